"""Softmax of k <= 16 scores a row, for training with cross-entropy.

1. The row's maximum: winning bits as in :mod:`mpc.protocols.argmax`, times the scores as in
   :mod:`mpc.protocols.select`. 7 rounds for k = 10. The scores need no truncation.
2. e_j = exp(s_j - max), below -11.13 zero: :mod:`mpc.protocols.exponential`. 5 rounds.
3. S = sum of e_j, in [1, k]: local. y = 1 / S: :mod:`mpc.protocols.reciprocal`. 10 rounds for k = 10.
4. p_j = e_j y, truncated to the format. 2 rounds.
24 rounds for k = 10, of which most move few bytes. The gradient of the cross-entropy with respect to
the scores is p - targets.
More than 16 scores: the maximum as in :mod:`mpc.protocols.maximum`, with more rounds.
Error: at most (k - 1) 2^-16 where that many e_j are cut off, 2.4e-5 p from 1 / S, and 2^-16 from
rounding the result: 1.8e-4 in all for k = 10 and scores of any size in the format, if nine of them lie
just below the cut. For scores as they come, 3e-5. Both measured by the tests.

Source: the maximum is subtracted first, as in plain code, so that exponentials stay in [0, 1]; the
other steps' sources are in their files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.cost import Spent
from mpc.protocols import (
    argmax,
    exponential,
    linear,
    logarithm,
    product,
    reciprocal,
    select,
    truncation,
)
from mpc.protocols.maximum import max_along
from mpc.protocols.sign import window

if TYPE_CHECKING:
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["cost", "log_softmax", "softmax"]


def _differences(scores: SharedArray) -> SharedArray:
    """Return s - max(s) for scores (rows, k), of shape (k, rows)."""
    columns = linear.view(scores, ("transpose", (1, 0)))
    k, rows = columns.shape
    if k > argmax.LARGEST_GROUP:
        columns = truncation.to_format(columns)
        largest = linear.view(max_along(columns, 0), ("reshape", (1, rows)))
    else:
        bit = argmax.winning_bits(scores)
        chosen = select.multiply_bit(columns, bit)
        largest = linear.view(linear.sum_along(chosen, 0), ("reshape", (1, rows)))
        largest = largest.with_integer_bound(scores.bound)
    return linear.subtract(columns, largest)


def cost(parties: int, rows: int, k: int, scores: SharedArray) -> Spent:
    """Declare the cost for `rows` rows of k <= 16 scores like `scores`."""
    size = rows * k
    nibbles = window(2 * scores.bound)
    d = scores.derive(scores.shares, frac_bits=scores.frac_bits, bound=2 * scores.bound)
    _, shift, exp_nibbles = exponential.prepare(d)
    return (
        argmax.cost(parties, rows, k, nibbles)
        + select.cost(parties, size, size)
        + exponential.cost(parties, size, shift, exp_nibbles)
        + reciprocal.cost(parties, rows, k)
        + product.cost(parties, size + rows)
        + truncation.cost(parties, size, _surplus(scores.session))
    )


def _surplus(session: Session) -> int:
    """Return how many fractional bits the probabilities have too many."""
    return exponential.FRAC_BITS + reciprocal.FRAC_BITS - session.format.frac_bits


def log_softmax(scores: SharedArray) -> SharedArray:
    """Return the logarithm of the softmax, s - max - log(S), of shape (k, rows): for losses.

    Steps 1 to 3, with a logarithm in place of the reciprocal. Error: at most (k - 1) 2^-16 + 2^-17
    where that many e_j are cut off, for scores as they come 4e-5.
    """
    with scores.session.protocol("softmax"):
        k, rows = scores.shape[1], scores.shape[0]
        differences = _differences(scores)
        total = linear.sum_along(exponential.exp(differences), 0)
        total = total.with_integer_bound(k << exponential.FRAC_BITS)
        log = linear.view(logarithm.log(total, k), ("reshape", (1, rows)))
        return linear.subtract(differences, log)


def softmax(scores: SharedArray) -> SharedArray:
    """Return the softmax of each row of scores (rows, k), with the format's fractional bits."""
    session = scores.session
    rows, k = scores.shape
    with session.protocol("softmax"):
        if k == 1:
            return linear.add_public(linear.zeros_like(scores), 1.0)
        powers = exponential.exp(_differences(scores))
        total = linear.sum_along(powers, 0).with_integer_bound(k << exponential.FRAC_BITS)
        inverse = linear.view(reciprocal.reciprocal(total, k), ("reshape", (1, rows)))
        p = product.multiply(powers, inverse, whole=True)
        p = truncation.truncate(p, _surplus(session))
        p = linear.view(p, ("transpose", (1, 0)))
        return p.with_integer_bound((1 << session.format.frac_bits) + 4)
