"""Softmax of the scores of each row, k of them.

For k <= 16:
1. M, a score of the row that is less than 2^-4 below its largest: :mod:`mpc.protocols.largest_score`. 3
   rounds. With m = M + 2^-4 no difference s_j - m is positive. The scores need no truncation.
2. e_j = exp(s_j - m), below -11.63 zero: :mod:`mpc.protocols.exponential`, without its truncation. 3
   rounds.
3. S = sum of e_j, in [0.93, k]: local. e_j is truncated to 20 fractional bits, and in the same round S is
   opened for y = 1 / S, with 40 bits: :mod:`mpc.protocols.bounded`. 1 round.
4. p_j = e_j y, truncated to the format. 2 rounds.
9 rounds. For k = 2, and for two parties alone, m is the largest score, by :mod:`mpc.protocols.argmax` and
:mod:`mpc.protocols.select`. Two parties alone take e_j with 24 bits, and y by
:mod:`mpc.protocols.reciprocal`, as all do for k > 16. The gradient of the cross-entropy with respect to
the scores is p - targets.
For more than 16 the maximum is as in :mod:`mpc.protocols.maximum`, with more rounds, of the scores
truncated to the format. For k > 32, up to 2^16, e_j = exp((s_j - max) / 2)^2, which is cut off below
-23.27 only: 2 rounds more; and S is normalised, in [1, 2].
log softmax, for losses: s_j - m - log S, :mod:`mpc.protocols.logarithm` in place of the reciprocal.

Right for every score that an array can hold. s_j - m may be a signed word of 64 bits. Where it could
exceed the range of step 2, it is clipped by a comparison, or low bits of the scores are truncated first:
see :mod:`mpc.protocols.exponential`. log softmax is not zero below the cut, and is refused where by the
scores' bound its values could reach 2^62.

Error, for f fractional bits in the format: from the cut (k - 1) 9.5e-6, which nine scores just below
it do reach for k = 10, and k 2^-22 for k > 32; from 1 / S 4e-5 p; 2^-f from rounding the result; 2^-16
from the rest, and as much for scores that lose low bits, or 2^-f, if that is more, for k > 16. For
k = 10 and f = 16 1.3e-4 where all scores keep their bits, for scores as they come 3e-5. log softmax: the
same with twice the errors of scores, 2^-17 from the logarithm in place of 2^-f, and three times its own
last bit where it has no room for 24. See `error_bound`. Measured by the tests, over formats and bounds.

Source: the maximum is subtracted first, as in plain code, so that exponentials stay in [0, 1]; the
other steps' sources are in their files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import (
    argmax,
    bounded,
    comparison,
    exponential,
    largest_score,
    linear,
    logarithm,
    product,
    reciprocal,
    relu,
    select,
    truncation,
)
from mpc.protocols.maximum import max_along
from mpc.protocols.sign import count_bits

__all__ = ["cost", "error_bound", "log_softmax", "softmax"]

Words = NDArray[np.uint64]

# With more columns, the errors of cutting off below -11.63 would add up to too much.
_FEW = 32
# Fractional bits of what is multiplied in step 4 for k <= 16: of e_j, and of both parts of 1 / S.
_POWER_BITS, _PART_BITS = 20, 20


@dataclass(frozen=True)
class _Steps:
    """How to evaluate, decided from the public bound and format of the scores.

    Attributes
    ----------
    drop : int
        How many low bits of the scores are truncated first.
    saturate : bool
        Whether the differences s_j - m are clipped by a comparison before their exponential.
    reach : int
        A bound on the differences, encoded; up to 2^63 and a little more.
    margin : int
        m - M, encoded.
    place : int or None
        Fractional bits of the log softmax; None if it could leave the range.
    """

    drop: int
    saturate: bool
    reach: int
    margin: int
    place: int | None


def _choose_steps(scores: SecretValue, k: int, *, log: bool = False) -> _Steps:
    frac_bits, own = scores.session.format.frac_bits, scores.frac_bits
    extra = max(0, own - frac_bits)
    half = int(k > _FEW)
    few = k <= argmax.LARGEST_GROUP

    def reach_of(drop: int) -> tuple[int, int]:
        bound = -(-scores.bound >> drop)
        margin = largest_score.margin(bound, own - drop) if _nearly(scores, k) else 0
        return 2 * bound + margin, margin

    for drop in (0, extra) if few and log else (0 if few else extra,):
        reach, margin = reach_of(drop)
        more = exponential.surplus(reach, own - drop + half)
        if more:
            drop += more
            reach, margin = reach_of(drop)
        place = _place(reach, own - drop, frac_bits, k)
        if place is not None:
            break
    return _Steps(drop, more is None, reach, margin, place)


def _nearly(scores: SecretValue, k: int) -> bool:
    """Whether m is taken from a score that is nearly the largest."""
    # Of two columns the winning bits take as many rounds, and fewer bytes.
    return 2 < k <= argmax.LARGEST_GROUP and scores.session.pair is None


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


def _differences(scores: Secret, steps: _Steps) -> tuple[Secret, Secret]:
    """Step 1: return s - m, of shape (k, rows), and what step 2 takes of it."""
    if steps.drop:
        form = scores.session.format
        whole = steps.drop == scores.frac_bits - form.frac_bits
        scores = truncation.to_format(scores) if whole else truncation.truncate(scores, steps.drop)
    rows, k = scores.shape
    if k > argmax.LARGEST_GROUP:
        columns = scores.view(("transpose", (1, 0)))
        largest = max_along(columns, 0)
    elif _nearly(scores, k):
        largest = largest_score.near_largest(scores)
        columns = scores.view(("transpose", (1, 0)))
    else:
        bit = argmax.winning_bits(scores)
        # Masked by now.
        columns = scores.view(("transpose", (1, 0)))
        largest = argmax.sum_of_one(select.multiply_bit(columns, bit), 0)
    largest = largest.view(("reshape", (1, rows)))
    differences = comparison.difference(columns, largest)
    half = int(k > _FEW)
    d = differences.derive(
        differences.shares, frac_bits=differences.frac_bits + half, bound=differences.bound
    )
    if steps.saturate:
        d = exponential.saturated(d, steps.margin)
    if not steps.margin:
        return differences, d
    return linear.add_integer(differences, -steps.margin), linear.add_integer(d, -steps.margin)


def _powers(d: Secret) -> tuple[Secret, Secret]:
    """Return exponentials of d, of shape (k, rows), and their sums, of shape (rows,)."""
    k = len(d)
    powers = exponential.exp(d)
    if k > _FEW:
        squares = product.multiply(powers, powers, whole=True)
        powers = truncation.truncate(squares, exponential.FRAC_BITS)
    bound = (k << exponential.FRAC_BITS) + (k << 5)
    return powers, linear.sum_along(powers, 0).with_integer_bound(bound)


def _at_once(session: Runtime, k: int) -> bool:
    """Whether 1 / S or log S follows from untruncated exponentials."""
    # Of more columns the sum could leave 64 bits.
    return k <= argmax.LARGEST_GROUP and bounded.takes(session, k)


def _sums(powers: Secret) -> Words:
    """Return shares of the sums over the columns, (p, rows), modulo 2^64."""
    return powers.shares.sum(axis=1, dtype=np.uint64)


def _inverse_at_once(powers: Secret) -> tuple[Secret, Secret]:
    """Step 3 for whole exponentials (k, rows): return them truncated, and 1 / S of shape (1, rows)."""
    session, (k, rows) = powers.session, powers.shape
    drop = exponential.WHOLE_BITS - _POWER_BITS
    dealt = session.correlated(truncation.TruncationPair(powers.size, drop))
    later = bounded.Later(
        session, _sums(powers), k, "reciprocal",
        shift=exponential.WHOLE_BITS - bounded.FRAC_BITS, power_bits=_PART_BITS, factor_bits=_PART_BITS,
    )  # fmt: skip
    message = truncation.masked(session, powers, dealt.masks[0])
    c, c_of_sum = session.open((message, "sum"), (later.message, "sum"))
    high, tops = dealt.corrected
    words = truncation.finish(session, c, high, tops, drop)
    short = powers.derive(
        words.reshape(len(words), k, rows), frac_bits=_POWER_BITS, bound=(1 << _POWER_BITS) + 1
    )
    return short, later.value(powers, c_of_sum).view(("reshape", (1, rows)))


def cost(parties: int, rows: int, k: int, scores: SecretValue) -> Spent:
    """Declare the cost for `rows` rows of k <= 16 scores like `scores`."""
    size = rows * k
    steps = _choose_steps(scores, k)
    d = scores.derive(
        scores.shares,
        frac_bits=scores.frac_bits - steps.drop,
        bound=min(steps.reach, LARGEST),
    )
    bound = -(-scores.bound >> steps.drop)
    if _nearly(scores, k):
        total = largest_score.cost(parties, rows, k, bound, d.frac_bits)
    else:
        total = argmax.cost(parties, rows, k, count_bits(d.bound))
        total = total + argmax.cost_of_shares(parties, rows, k) + select.cost(parties, 0, size)
    if steps.drop:
        total = total + truncation.cost(parties, size, steps.drop)
    if steps.saturate:
        total = total + relu.cost(parties, size, 0, count_bits(LARGEST))
        d = d.with_integer_bound((exponential.SATURATED << d.frac_bits) + steps.margin)
    _, shift, window = exponential.scaled(d)
    drop = exponential.WHOLE_BITS - _POWER_BITS
    shift_of_sum = exponential.WHOLE_BITS - bounded.FRAC_BITS
    return (
        total
        + exponential.cost(parties, size, shift, window, whole=True)
        + truncation.cost(parties, size, drop)
        + replace(bounded.cost_of_opening(parties, rows, k, shift_of_sum), rounds=0)
        + product.cost(parties, size + rows)
        + truncation.cost(
            parties, size, _POWER_BITS + 2 * _PART_BITS - scores.session.format.frac_bits
        )
    )


def error_bound(columns: int, frac_bits: int, *, log: bool = False, place: int = 24) -> float:
    """Return how far a probability may lie from the softmax in a format with `frac_bits`.

    Or, with `log`, its logarithm, which has `place` fractional bits.
    """
    cut = (columns - 1) * 9.5e-6 if columns <= _FEW else columns * 2.0**-22
    score = 2.0**-16 if columns <= argmax.LARGEST_GROUP else max(2.0**-16, 2.0**-frac_bits)
    common = cut + 4e-5 + 2.0**-16
    if log:
        last = 3 * 2.0**-place if place < logarithm.FRAC_BITS else 0.0
        return common + 2 * score + 2.0**-17 + last
    return common + score + 2.0**-frac_bits


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
        differences, d = _differences(scores, steps)
        if _at_once(session, k):
            powers = exponential.powers(d)
            shift = exponential.WHOLE_BITS - bounded.FRAC_BITS
            log = bounded.evaluate(powers, k, "log", _sums(powers), shift)
        else:
            log = logarithm.log(_powers(d)[1], k)
        log = log.view(("reshape", (1, rows)))
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
        _, d = _differences(scores, _choose_steps(scores, k))
        if _at_once(session, k):
            powers, inverse = _inverse_at_once(exponential.powers(d))
        else:
            powers, total = _powers(d)
            inverse = reciprocal.reciprocal(total, k).view(("reshape", (1, rows)))
        p = product.multiply(powers, inverse, whole=True)
        p = truncation.truncate(p, p.frac_bits - frac_bits)
        p = p.view(("transpose", (1, 0)))
        return p.with_integer_bound(one + (one >> 13) + 4)
