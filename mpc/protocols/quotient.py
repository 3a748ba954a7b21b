"""x / y for two secrets, and 1 / y.

Y is the encoded value of y, 2^j <= |Y| < 2^(j + 1), and v = c Y in [1, 2), for c = 2^(Q - j) with the sign
of Y, and Q fractional bits.
1. The bits <Y < t_k> for all powers of two and their negatives, from one opening, and numbers [b_k]: 3
   rounds (:mod:`mpc.protocols.thresholds`). [c] follows.
2. [c], [X] and [Y] are masked; n = c X and v = c Y follow: 1 round.
3. p = 1 / v from one opening, :mod:`mpc.protocols.bounded`: 1 round. Without a provider by Newton's
   iteration, :mod:`mpc.protocols.reciprocal`.
4. The result is the product of n and p, truncated: 1 round (:mod:`mpc.protocols.truncated_product`).
The result has up to 23 fractional bits more than n; n has the format's and 4 more, or fewer in large
formats. For 1 / y, n is a sum of the [b_k], too: the power of two that v has been divided by.
Domain: y not 0, and |c X| within the format's limit and below 2^62, which holds if |x / y| is below half
of the limit, and implies that x / y is below the limit. Where f + i exceeds 31, 2^62 is the smaller limit.
Of 1 / y: |y| > 2^-i, i being the format's integer bits.
With ranges="check" and "error" both are checked on shares: one bit is opened for all. |c X| is within a
limit if and only if |X| is within t, the limit divided by the power of two |c| and rounded down. t is
chosen by the [b_k] as well, and that no X - t is positive, and no X + t negative, is found as in
:mod:`mpc.protocols.range_check` while steps 2 to 4 are carried out, beside the number of zeros. Where
bounds do not show that c X is in range, "error" refuses it.
Formats with f + i above 38, which leave n fewer bits than the format's, are refused.
Many elements are divided one part after another, as the session's memory limit says.
Cost for Y of L bits: 6 rounds, for x / y 8 with the check on shares; 2 L - 2 thresholds.

Error: 2^-18.5 of the result, and 1.1 units of the format, up to 2 where f + i exceeds 34. x and y with more
fractional bits than the format's are truncated first.

Source: normalisation by the highest bit as in Catrina, Saxena 2010, section 3.4, and Aly, Smart 2019,
section 3; the order of the products is Goldschmidt's, 1964.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import (
    b2a,
    bounded,
    linear,
    product,
    range_check,
    reciprocal,
    sign,
    truncated_product,
    truncation,
)
from mpc.protocols.masking import mask_ahead
from mpc.protocols.normalised import slices
from mpc.protocols.thresholds import choose
from ring.fixed_point import FixedPoint

__all__ = ["cost_of_inverse", "divide", "error_bound", "error_bound_of_inverse", "inverse"]

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

# Fractional bits of p: more where there is room.
_P_BITS, _MOST_P_BITS = 22, 23
_GUARD_BITS = 4
# Words of an element beside those of its thresholds, in as many thresholds' worth: tables.
_TABLES = 16


@dataclass(frozen=True)
class Octaves:
    """The powers of two that Y lies between.

    Attributes
    ----------
    thresholds : tuple of int
    octave : int64 array of shape (pieces,)
        j.
    side : int64 array of shape (pieces,)
        The sign of Y; 0 where it is outside of the domain.
    v_bits : int
        Q.
    """

    thresholds: tuple[int, ...]
    octave: Integers
    side: Integers
    v_bits: int

    @property
    def c(self) -> Integers:
        """The factor that brings Y to [1, 2)."""
        return self.side << self.v_bits - self.octave

    @property
    def outside(self) -> Integers:
        """1 for pieces outside of the domain."""
        return (self.side == 0).astype(np.int64)


@lru_cache(maxsize=64)
def octaves_of(low: int, bound: int, both: bool) -> Octaves:
    """Return the octaves of `low` to `bound`, and of their negatives if `both`."""
    most = max(low, bound).bit_length()
    places = range(low.bit_length() - 1, most)
    starts = [low, *(1 << j for j in places[1:])]
    if both:
        octave, side = (
            [*reversed(places), 0, *places],
            [*(-1 for _ in places), 0, *(1 for _ in places)],
        )
        starts = [*(1 - start for start in reversed(starts)), *starts]
    else:
        octave, side = [0, *places], [0, *(1 for _ in places)]
    v_bits = max(most - 1, bounded.FRAC_BITS)
    return Octaves(tuple(starts), np.array(octave, np.int64), np.array(side, np.int64), v_bits)


def _relative(p_bits: int) -> float:
    """Return the error of p relative to itself."""
    return reciprocal.NORMALISED_ERROR + 2.0 ** (1 - p_bits)


def _n_bits(x: SecretValue, y: SecretValue, v_bits: int) -> tuple[int, int, int]:
    """Return the fractional bits of n before it is truncated, and after; and of p."""
    form = x.session.format
    room = 60 - form.int_bits
    p_bits = min(_MOST_P_BITS, max(_P_BITS, room - form.frac_bits - _GUARD_BITS))
    before = v_bits + x.frac_bits - y.frac_bits
    return before, min(before, form.frac_bits + _GUARD_BITS, room - p_bits), p_bits


def error_bound(x: SecretValue, y: SecretValue) -> tuple[float, float]:
    """Return the absolute error, and the error relative to the result, that x / y may have."""
    before, after, p_bits = _n_bits(x, y, octaves_of(1, y.bound, True).v_bits)
    absolute = 2.0**-x.session.format.frac_bits + (2.0**-after if before > after else 0.0)
    return absolute, _relative(p_bits)


def divide(x: Secret, y: Secret) -> Secret:
    """Return x / y.

    Raises
    ------
    RangeError
        If a value is outside of the domain, see the session's `ranges`; or the bounds, or the format's
        bits, are too many.
    """
    session, form = x.session, x.session.format
    if not form.frac_bits:
        raise RangeError("/ needs a format with fractional bits, got frac_bits = 0")
    shape = linear.broadcast("/", x.shape, y.shape)
    with session.protocol("quotient"):
        x, y = truncation.to_format(x), truncation.to_format(y)
        octaves = octaves_of(1, max(1, y.bound), True)
        v_bits = octaves.v_bits
        before, after, p_bits = _n_bits(x, y, v_bits)
        if before < 0:
            x = linear.at_bits(x, x.frac_bits - before, "/")
            before = after = 0
        if after < min(before, form.frac_bits):
            raise RangeError(
                f"/ needs a format with at most {60 - _P_BITS} bits in all, got frac_bits ="
                f" {form.frac_bits} and int_bits = {form.int_bits}"
            )
        session.range_policy.foresee("/", x.bound << v_bits, before)
        limit = min((1 << form.int_bits + before) - 1, LARGEST)
        most = min(2.0**form.int_bits, limit * 2.0**-before) / 2
        domain = f"y not 0 and |x / y| below {most:g}"

        def inside(xs: Integers, ys: Integers) -> NDArray[np.bool_]:
            # In whole numbers: doubles round those beyond 2^53, to the next octave too.
            piece = np.searchsorted(octaves.thresholds, ys, "right")
            most_of_x = _limits(octaves, limit)[0, piece]
            return np.asarray((ys != 0) & (np.abs(xs) <= most_of_x))

        check = session.range_policy.settle_domain((x, y), inside, "/", domain)
        alike = x.shape == y.shape
        parts = slices(session, y.size, len(octaves.thresholds) + _TABLES) if alike else []
        if len(parts) > 1:
            left, right = (z.view(("reshape", (y.size,))) for z in (x, y))
            pairs = [(left[part], right[part]) for part in parts]
        else:
            pairs = [(x, y)]
        zeros = np.zeros(len(session.here), np.uint64)
        claims: list[range_check.Claim] = []
        results: list[Secret] = []
        cut = before - after
        for a, b in pairs:
            numbers, words = _begun(b, 0, octaves)
            if check:
                zeros += _outside(b, numbers, octaves)
                claims += _claims(a, b, choose(session, numbers, _limits(octaves, limit))[:, 0])
            if check and len(results) == len(pairs) - 1:
                failed, said = range_check.take(y.derive(zeros, frac_bits=0, bound=y.size))
                steps = range_check.verdict_steps(*claims, failed=failed)
                with session.beside(steps) as inside_:
                    results.append(_ended(a, b, words, numbers, octaves, cut, p_bits))
                if not inside_.value:
                    raise RangeError(f"/: a quotient is not in the domain, {domain}{said}")
            else:
                results.append(_ended(a, b, words, numbers, octaves, cut, p_bits))
        whole = results[0] if len(results) == 1 else linear.concatenate(results)
        whole = whole.view(("reshape", shape))
        return linear.placed(whole, after + p_bits, 1 << form.int_bits + after + p_bits)


def _begun(y: Secret, shift: int, octaves: Octaves) -> tuple[Words, Words]:
    """Step 1: the [b_k], and shares of Y truncated by `shift` bits, (p, size)."""
    bits, words = sign.signs_and_value(y, shift, octaves.thresholds)
    return b2a.convert(y.session, bits, y.size), words


def _outside(y: Secret, numbers: Words, octaves: Octaves) -> Words:
    """Return shares of how many Y are outside of the domain, (p,)."""
    found = choose(y.session, numbers, octaves.outside[None])
    return found.sum(axis=(1, 2), dtype=np.uint64)


def _limits(octaves: Octaves, limit: int) -> Integers:
    """Return the largest |X| of which c X is within `limit`, for the c of each piece."""
    return np.array([[limit // max(1, abs(int(c))) for c in octaves.c]], np.int64)


def _claims(x: Secret, y: Secret, limits: Words) -> list[range_check.Claim]:
    """Claim that |X| is within limits t, of which shares are given, one for each element of y.

    With M = 2^62 - 1 the words t - X - M and t + X - M do not exceed M, and are -M at least if it holds.
    """
    shape = linear.broadcast("/", x.shape, y.shape)
    rows, size = len(limits), prod(shape)
    words = np.empty((rows, 2, *shape), np.uint64)
    t = linear.widen(limits.reshape(rows, *y.shape), len(shape))
    left = linear.widen(x.shares, len(shape))
    words[:, 0], words[:, 1] = t - left, t + left
    if x.session.first_row is not None:
        words[x.session.first_row] -= np.uint64(LARGEST)
    most = np.full(2 * size, LARGEST, np.uint64)
    return [range_check.Claim(x, words.reshape(rows, 2 * size), most)]


def _ended(
    x: Secret, y: Secret, words: Words, numbers: Words, octaves: Octaves, cut: int, p_bits: int
) -> Secret:
    """Steps 2 to 4."""
    session = x.session
    chosen = choose(session, numbers, octaves.c[None])
    # The bounds of the products are what counts.
    c = y.derive(chosen.reshape(len(chosen), *y.shape), frac_bits=0, bound=1 << octaves.v_bits)
    left = y.derive(words.reshape(len(words), *y.shape), frac_bits=octaves.v_bits, bound=1)
    mask_ahead(c, x, left)
    # The domain, which is settled even where others vouch for products, says that n is in range.
    with session.range_policy.vouched():
        n = product.multiply(x, c, whole=True)
    p = reciprocal.of_normalised(product.multiply(left, c, whole=True))
    if p.shape != n.shape:
        words = linear.widen(p.shares, len(n.shape))
        words = np.broadcast_to(words, (len(words), *n.shape)).copy()
        p = p.derive(words, frac_bits=p.frac_bits, bound=p.bound)
    # In range by the domain.
    wide = linear.rescale(n, 1 if cut else 2, max(cut, 1), LARGEST)
    return truncated_product.multiply(wide, max(cut, 1), p, p.frac_bits - p_bits, LARGEST)


# 1 / y.


@dataclass(frozen=True)
class _InverseForm:
    """How 1 / y is computed in a format: octaves, and the powers of two that p is multiplied by.

    Attributes
    ----------
    octaves : Octaves
    scales : int64 array of shape (pieces,)
        1 / y is p times that, with `scale_bits` fractional bits.
    top : int
        1 / y is at most 2^top.
    scale_bits, p_bits : int
    low : int
        The least |Y| in the domain.
    """

    octaves: Octaves
    scales: Integers
    top: int
    scale_bits: int
    p_bits: int
    low: int


@lru_cache(maxsize=64)
def _inverse_form(place: int, form: FixedPoint, bound: int, both: bool) -> _InverseForm:
    """Return the form for values with `place` fractional bits, up to `bound` in magnitude."""
    low = (1 << place >> form.int_bits) + 1
    octaves = octaves_of(low, bound, both)
    # What is below a quarter of a unit is left out.
    highest = int(octaves.octave.max())
    scale_bits = max(0, min(highest - place, form.frac_bits + 2))
    # Not beyond what f and i allow, so that p keeps 18 bits or more in every format.
    top = max(0, place - low.bit_length() + 1)
    p_bits = min(_MOST_P_BITS, 60 - top - scale_bits)
    powers = place - octaves.octave + scale_bits
    scales = np.where(powers < 0, 0, octaves.side << np.maximum(powers, 0))
    return _InverseForm(octaves, scales, top, scale_bits, p_bits, low)


def _form_of(x: SecretValue, positive: bool) -> tuple[int, _InverseForm]:
    """Return by how much x is truncated, and the form for the rest."""
    form = x.session.format
    if not form.frac_bits:
        raise RangeError("reciprocal needs a format with fractional bits, got frac_bits = 0")
    shift = max(0, x.frac_bits - form.frac_bits)
    place = min(x.frac_bits, form.frac_bits)
    return shift, _inverse_form(place, form, -(-x.bound >> shift), not positive)


def error_bound_of_inverse(x: SecretValue, positive: bool = False) -> tuple[float, float]:
    """Return the absolute error, and the error relative to the result, that 1 / x may have."""
    unit = 2.0**-x.session.format.frac_bits
    return 1.25 * unit, _relative(_form_of(x, positive)[1].p_bits)


def cost_of_inverse(parties: int, size: int, shift: int, window: int, octaves: Octaves) -> Spent:
    """Declare the cost for `size` elements that lose `shift` bits, without the check of the domain."""
    count = len(octaves.thresholds)
    total = sign.cost(parties, size, shift, window, True, "truncation", count)
    total += b2a.cost(parties, count, size) + product.cost(parties, 2 * size, size)
    total += bounded.cost_of_opening(parties, size, 2, octaves.v_bits - bounded.FRAC_BITS)
    return total + truncated_product.cost(parties, size)


def inverse(x: Secret, positive: bool = False) -> Secret:
    """Return 1 / x, of positive x alone if `positive`.

    Raises
    ------
    RangeError
        If a value is outside of the domain, see the session's `ranges`.
    """
    session = x.session
    with session.protocol("reciprocal"):
        x = truncation.kept(x)
        shift, form = _form_of(x, positive)
        octaves, low = form.octaves, form.low
        place = x.frac_bits - shift
        domain = f"{'x' if positive else '|x|'} at least {low * 2.0**-place:g}"

        def inside(values: Integers) -> NDArray[np.bool_]:
            return np.asarray((values if positive else np.abs(values)) >> shift >= low)

        check = session.range_policy.settle_domain((x,), inside, "reciprocal", domain)
        flat = x.view(("reshape", (x.size,)))
        parts = slices(session, x.size, len(octaves.thresholds) + _TABLES)
        parts_of_x = [flat[part] for part in parts] if len(parts) > 1 else [flat]
        outside = np.zeros(len(session.here), np.uint64)
        values: list[Words] = []
        results: list[Secret] = []
        for part in parts_of_x:
            numbers, words = _begun(part, shift, octaves)
            outside += _outside(part, numbers, octaves) if check else np.uint64(0)
            values.append(words)
            if check and len(values) == len(parts_of_x):
                count, said = range_check.take(x.derive(outside, frac_bits=0, bound=x.size))
                with session.beside(range_check.none_steps(count)) as none:
                    results.append(_inverse_ended(part, words, numbers, form))
                if not none.value:
                    raise RangeError(f"reciprocal: a value is not in the domain, {domain}{said}")
            else:
                results.append(_inverse_ended(part, words, numbers, form))
        truncation.keep(x, np.concatenate(values, axis=1), shift)
        whole = results[0] if len(results) == 1 else linear.concatenate(results)
        return whole.view(("reshape", x.shape))


def _inverse_ended(x: Secret, words: Words, numbers: Words, form: _InverseForm) -> Secret:
    """Steps 2 to 4."""
    session, octaves = x.session, form.octaves
    c_, scale_ = choose(session, numbers, np.stack([octaves.c, form.scales])).transpose(1, 0, 2)
    c = x.derive(c_, frac_bits=0, bound=1 << octaves.v_bits)
    left = x.derive(words, frac_bits=octaves.v_bits, bound=1)
    mask_ahead(c, left)
    p = reciprocal.of_normalised(product.multiply(left, c, whole=True))
    bits = form.top + form.scale_bits
    wide = x.derive(scale_ << np.uint64(1), frac_bits=form.scale_bits + 1, bound=4 << bits)
    return truncated_product.multiply(
        wide, 1, p, p.frac_bits - form.p_bits, 2 << bits + form.p_bits
    )
