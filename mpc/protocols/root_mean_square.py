"""Rows divided by the root of the mean of their squares.

For rows x of N elements with f fractional bits: x / sqrt(S), S = (sum of squares) / N + epsilon.
1. C = N S from x truncated to k fractional bits, the most with which the sum stays below 2^61 units by the
   public bound of x. If k = f, V = C. Otherwise the sum F with 2 f fractional bits, modulo 2^64, too: it is
   right where C < 2^(R + 2 k), R = 60 - 2 f. That bit chooses V, F or C. 3 rounds, or 7.
2. 1 / sqrt(V / N): :mod:`mpc.protocols.inverse_power`. 14 rounds. V = C is taken with 2 f fractional bits
   in place of 2 k; the result is then divided by 2^(f - k), by the same bit: 2 rounds.
3. Its product with x, truncated: 2 rounds.
Cost: 17 rounds, 24 if the bound of x is so large that two sums are needed; 24 (n - 1) bytes an element of
x, 32 with two sums, and some kilobytes a row.
Error: 2^-18 relative, two units of the last place, and what x itself is off by, relative to sqrt(S). Where
S is 2^R or more, x has k fractional bits for it.

Source: ours, for the two sums; the power's sources are in its file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.protocols import comparison, linear, product, scaling, select, truncation
from mpc.protocols.inverse_power import inverse_power

__all__ = ["kept_bits", "over_root_mean_square", "scaled", "square", "with_mean_square"]

# Bits that sums of squares may take.
_BITS = 61


def kept_bits(x: Secret, count: int, more: Fraction) -> int:
    """Return k: fractional bits with which sums of `count` squares of x, and `more`, have room."""
    largest = count * Fraction(x.bound, 1 << x.frac_bits) ** 2 + more
    kept = min(x.frac_bits, (_BITS - math.ceil(largest).bit_length()) // 2)
    if kept < 1:
        reach = x.bound / 2.0**x.frac_bits
        left = float((1 << _BITS - 2) - 1 - more)
        most = math.sqrt(left / count) if left > 0 else 0.0
        bits = x.session.format.int_bits - math.ceil(math.log2(reach / most)) if most else 0
        advice = (
            f"take a format of at most {bits} integer bits, or values up to {most:g} by their bound"
            if bits > 0
            else f"what is added to them, {float(more):g}, takes it"
        )
        raise RangeError(
            f"the sum of {count} squares leaves no room for a fractional bit: values can reach"
            f" {reach:g} by their bound; {advice}"
        )
    return kept


def square(x: Secret, kept: int) -> Secret:
    """Return x^2 of x truncated to `kept` fractional bits."""
    if kept < x.frac_bits:
        x = truncation.truncate(x, x.frac_bits - kept)
    return product.multiply(x, x, whole=True)


def scaled(x: Secret, factor: Secret, reach: float) -> Secret:
    """Return x times a factor, with the fractional bits of x, for results up to `reach`."""
    bound = math.ceil(reach * (1 + 2.0**-12) * 2.0 ** (x.frac_bits + factor.frac_bits))
    z = product.multiply_within(x, factor, min(bound, LARGEST))
    return truncation.truncate(z, factor.frac_bits) if factor.frac_bits else z


def over_root_mean_square(x: Secret, epsilon: float) -> Secret:
    """Return rows (rows, count) divided by the root of their mean square and epsilon."""
    with x.session.protocol("root mean square"):
        return _divided(x, epsilon)[0]


def with_mean_square(x: Secret, epsilon: float) -> tuple[Secret, Secret, Secret]:
    """Return what :func:`over_root_mean_square` does, 1 / sqrt(S), and the mean square in the format.

    The latter two have the shape (rows, 1). 2 rounds more, 4 if two sums are needed.
    """
    with x.session.protocol("root mean square"):
        y, inverse, total = _divided(x, epsilon)
        return y, inverse, scaling.divide(total(), x.shape[1]).view(("reshape", (x.shape[0], 1)))


def _divided(x: Secret, epsilon: float) -> tuple[Secret, Secret, Callable[[], Secret]]:
    """Return x / sqrt(S), 1 / sqrt(S), and a function that returns the sums of squares."""
    count, frac_bits = x.shape[1], x.frac_bits
    room = Fraction(epsilon) * count
    kept = kept_bits(x, count, room)
    fewer = frac_bits - kept
    # The fine sum is right below 2^limit, where the coarse one is off by less than as much again.
    limit = _BITS - 1 - 2 * frac_bits
    twice = fewer and 2.0 ** (limit / 2 - 1) > math.sqrt(count) * 2.0 ** (1 - kept)
    total, least = _sum(square(x, kept), room)
    coarse, added = total, least
    if not twice:
        total = linear.placed(total, 2 * kept, total.bound)
        inverse = inverse_power(total, Fraction(1, 2), Fraction(1, count), least)

        def squares() -> Secret:
            return linear.placed(linear.add_integer(coarse, -added), 2 * kept, coarse.bound)
    else:
        small = comparison.negative_bit(comparison.difference(total, 1 << limit + 2 * kept))
        fine, finest = _sum(product.multiply_within(x, x, LARGEST // count), room)
        more = comparison.add_words(fine, linear.negative(total), LARGEST)
        chosen = select.multiply_bit(more, small)
        total = comparison.add_words(chosen, total, 1 << _BITS)
        total = linear.placed(total, 2 * frac_bits, total.bound)
        least = min(finest, 1 << limit + 2 * kept)
        inverse = inverse_power(total, Fraction(1, 2), Fraction(1, count), least)
        larger = select.multiply_bit(inverse, small).shares * np.uint64((1 << fewer) - 1)
        inverse = inverse.derive(
            inverse.shares + larger, frac_bits=inverse.frac_bits + fewer,
            bound=inverse.bound << fewer,
        )  # fmt: skip

        def squares() -> Secret:
            # The fine sum, with as many fractional bits as the coarse one, where it is right.
            exact = truncation.divide_by_power(linear.add_integer(fine, -finest), 2 * fewer, 0)
            rest = linear.add_integer(coarse, -added)
            more = comparison.add_words(exact, linear.negative(rest), LARGEST)
            found = comparison.add_words(select.multiply_bit(more, small), rest, rest.bound)
            return linear.placed(found, 2 * kept, rest.bound)

    reach = math.sqrt(count)
    surplus = inverse.frac_bits - (_BITS - 1 - frac_bits - math.ceil(math.log2(reach)))
    if surplus > 0:
        inverse = truncation.truncate(inverse, surplus)
    inverse = inverse.view(("reshape", (x.shape[0], 1)))
    return scaled(x, inverse, reach), inverse, squares


def _sum(squares: Secret, room: Fraction) -> tuple[Secret, int]:
    """Return the sums of rows, and of `room`, as whole numbers; and the units of `room`, at least 1."""
    added = max(1, round(room * (1 << squares.frac_bits)))
    total = linear.sum_along(squares, 1)
    total = total.derive(total.shares, frac_bits=0, bound=total.bound)
    return linear.add_integer(total, added), added
