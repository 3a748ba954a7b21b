"""Softmax of the scores of each row, k of them.

For k <= 16:
1. The row's maximum: winning bits as in :mod:`mpc.protocols.argmax`, times the scores as in
   :mod:`mpc.protocols.select`. 7 rounds for k = 10. The scores need no truncation.
2. e_j = exp(s_j - max), below -11.13 zero: :mod:`mpc.protocols.exponential`. 5 rounds.
3. S = sum of e_j, in [1, k]: local. y = 1 / S: :mod:`mpc.protocols.reciprocal`. 10 rounds for k = 10.
4. p_j = e_j y, truncated to the format. 2 rounds.
24 rounds for k = 10, of which most move few bytes. The gradient of the cross-entropy with respect to
the scores is p - targets.
For more than 16 the maximum is as in :mod:`mpc.protocols.maximum`, with more rounds, of the scores
truncated to the format. For k > 32, up to 2^16, e_j = exp((s_j - max) / 2)^2, which is cut off below
-22.26 only: 2 rounds more; and S is normalised, in [1, 2].
log softmax, for losses: s_j - max - log S, :mod:`mpc.protocols.logarithm` in place of the reciprocal.

Right for every score that an array can hold. s_j - max may be a signed word of 64 bits. Where it could
exceed the range of step 2, it is clipped by a comparison, or low bits of the scores are truncated first:
see :mod:`mpc.protocols.exponential`. log softmax is not zero below the cut, and is refused where by the
scores' bound its values could reach 2^62.

Error, for f fractional bits in the format: from the cut (k - 1) 2^-16, which nine scores just below
it do reach for k = 10, and k 2^-22 for k > 32; from 1 / S 4e-5 p; 2^-f from rounding the result; 2^-16
from the rest, and as much for scores that lose low bits, or 2^-f, if that is more, for k > 16. For
k = 10 and f = 16 1.8e-4 where all scores keep their bits, for scores as they come 3e-5. log softmax: the
same with twice the errors of scores, 2^-17 from the logarithm in place of 2^-f, and three times its own
last bit where it has no room for 24. See `error_bound`. Measured by the tests, over formats and bounds.

Source: the maximum is subtracted first, as in plain code, so that exponentials stay in [0, 1]; the
other steps' sources are in their files.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import (
    argmax,
    comparison,
    exponential,
    linear,
    logarithm,
    product,
    reciprocal,
    relu,
    select,
    truncation,
)
from mpc.protocols.maximum import max_along
from mpc.protocols.sign import count_nibbles

__all__ = ["cost", "error_bound", "log_softmax", "softmax"]


# With more columns, the errors of cutting off below -11.13 would add up to too much.
_FEW = 32


@dataclass(frozen=True)
class _Steps:
    """How to evaluate, decided from the public bound and format of the scores.

    Attributes
    ----------
    drop : int
        How many low bits of the scores are truncated first.
    saturate : bool
        Whether the differences s_j - max are clipped by a comparison before their exponential.
    reach : int
        A bound on the differences, encoded; up to 2^63.
    place : int or None
        Fractional bits of the log softmax; None if it could leave the range.
    """

    drop: int
    saturate: bool
    reach: int
    place: int | None


def _choose_steps(scores: SecretValue, k: int, *, log: bool = False) -> _Steps:
    frac_bits, own = scores.session.format.frac_bits, scores.frac_bits
    extra = max(0, own - frac_bits)
    half = int(k > _FEW)
    few = k <= argmax.LARGEST_GROUP
    for drop in (0, extra) if few and log else (0 if few else extra,):
        reach = 2 * -(-scores.bound >> drop)
        more = exponential.surplus(reach, own - drop + half)
        if more:
            drop, reach = drop + more, 2 * -(-scores.bound >> drop + more)
        place = _place(reach, own - drop, frac_bits, k)
        if place is not None:
            break
    return _Steps(drop, more is None, reach, place)


def _place(reach: int, own: int, frac_bits: int, k: int) -> int | None:
    """Return the fractional bits of the log softmax for differences up to `reach`, None if none fit."""
    enough = min(frac_bits, exponential.LEAST_BITS)
    for place in (max(own, logarithm.FRAC_BITS), max(own, frac_bits), max(own, enough)):
        if (reach << place - own) + (k.bit_length() << place) <= LARGEST:
            return place
    return None


def _check(name: str, scores: SecretValue) -> None:
    k = scores.shape[1]
    if k > reciprocal.LARGEST:
        raise RangeError(
            f"{name} takes at most {reciprocal.LARGEST} columns, got {k}: each adds an error of 2^-22"
        )


def _powers(scores: Secret, steps: _Steps) -> tuple[Secret, Secret, Secret]:
    """Return s - max(s), its exponentials, both of shape (k, rows), and their sums, of shape (rows,)."""
    if steps.drop:
        scores = truncation.truncate(scores, steps.drop)
    columns = scores.view(("transpose", (1, 0)))
    k, rows = columns.shape
    if k > argmax.LARGEST_GROUP:
        largest = max_along(columns, 0)
    else:
        bit = argmax.winning_bits(scores)
        largest = argmax.sum_of_one(select.multiply_bit(columns, bit), 0)
    largest = largest.view(("reshape", (1, rows)))
    differences = comparison.difference(columns, largest)
    half = int(k > _FEW)
    d = differences.derive(
        differences.shares, frac_bits=differences.frac_bits + half, bound=differences.bound
    )
    if steps.saturate:
        d = exponential.saturated(d)
    powers = exponential.exp(d)
    if half:
        squares = product.multiply(powers, powers, whole=True)
        powers = truncation.truncate(squares, exponential.FRAC_BITS)
    bound = (k << exponential.FRAC_BITS) + (k << 5)
    return differences, powers, linear.sum_along(powers, 0).with_integer_bound(bound)


def cost(parties: int, rows: int, k: int, scores: SecretValue) -> Spent:
    """Declare the cost for `rows` rows of k <= 16 scores like `scores`."""
    size = rows * k
    steps = _choose_steps(scores, k)
    d = scores.derive(
        scores.shares,
        frac_bits=scores.frac_bits - steps.drop,
        bound=min(steps.reach, LARGEST),
    )
    nibbles = count_nibbles(d.bound)
    total = argmax.cost(parties, rows, k, nibbles) + select.cost(parties, size, size)
    if steps.drop:
        total = total + truncation.cost(parties, size, steps.drop)
    if steps.saturate:
        total = total + relu.cost(parties, size, 0, count_nibbles(LARGEST))
        d = d.with_integer_bound(exponential.SATURATED << d.frac_bits)
    _, shift, exp_nibbles = exponential.scaled(d)
    return (
        total
        + exponential.cost(parties, size, shift, exp_nibbles)
        + reciprocal.cost(parties, rows, k)
        + product.cost(parties, size + rows)
        + truncation.cost(parties, size, _surplus(scores.session))
    )


def error_bound(columns: int, frac_bits: int, *, log: bool = False, place: int = 24) -> float:
    """Return how far a probability may lie from the softmax in a format with `frac_bits`.

    Or, with `log`, its logarithm, which has `place` fractional bits.
    """
    cut = (columns - 1) * 2.0**-16 if columns <= _FEW else columns * 2.0**-22
    score = 2.0**-16 if columns <= argmax.LARGEST_GROUP else max(2.0**-16, 2.0**-frac_bits)
    common = cut + 4e-5 + 2.0**-16
    if log:
        last = 3 * 2.0**-place if place < logarithm.FRAC_BITS else 0.0
        return common + 2 * score + 2.0**-17 + last
    return common + score + 2.0**-frac_bits


def _surplus(session: Runtime) -> int:
    """Return by how many bits the probabilities are truncated to the format."""
    return exponential.FRAC_BITS + reciprocal.FRAC_BITS - session.format.frac_bits


def log_softmax(scores: Secret) -> Secret:
    """Return the logarithm of the softmax, of shape (k, rows).

    It has 24 fractional bits, or as many as the scores, if those are more; where the scores' bound
    leaves no room for 24 the format's, or else 16.
    """
    session = scores.session
    rows, k = scores.shape
    _check("log_softmax", scores)
    steps = _choose_steps(scores, k, log=True)
    if steps.place is None:
        most = 2.0 ** (truncation.OFFSET_BITS - 2 - session.format.frac_bits)
        raise RangeError(
            "log_softmax can leave the ring: in this format the scores need a bound of"
            f" {most:g} or less, got {scores.bound / 2.0**scores.frac_bits:g}; share them with bound=,"
            f" or state what is known by .with_bound({most:g})"
        )
    with session.protocol("softmax"):
        differences, _, total = _powers(scores, steps)
        log = logarithm.log(total, k).view(("reshape", (1, rows)))
        if steps.place < logarithm.FRAC_BITS:
            log = truncation.truncate(log, logarithm.FRAC_BITS - steps.place)
        return linear.subtract(differences, log)


def softmax(scores: Secret) -> Secret:
    """Return the softmax of each row of scores (rows, k), with the format's fractional bits."""
    session = scores.session
    rows, k = scores.shape
    _check("softmax", scores)
    frac_bits = session.format.frac_bits
    one = 1 << frac_bits
    with session.protocol("softmax"):
        if k == 1:
            return linear.add_integer(linear.at_bits(linear.zeros_like(scores), frac_bits), one)
        _, powers, total = _powers(scores, _choose_steps(scores, k))
        inverse = reciprocal.reciprocal(total, k).view(("reshape", (1, rows)))
        p = product.multiply(powers, inverse, whole=True)
        p = truncation.truncate(p, _surplus(session))
        p = p.view(("transpose", (1, 0)))
        return p.with_integer_bound(one + (one >> 13) + 4)
