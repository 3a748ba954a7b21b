"""Linear combinations of secrets with public fractions, with a single truncation.

For fractions m_k / 2^t_k and secrets x_k with f_k fractional bits, and F the largest f_k + t_k:
1. [z] = sum of m_k 2^(F - f_k - t_k) [x_k], exact, with F fractional bits: local.
2. Truncate z by F minus the result's fractional bits: :mod:`mpc.protocols.truncation`.
A learning rate divided by the number of rows is such a fraction. A power of two has m = 1, and only adds
to the shift of the truncation.
Needs |z| < 2^62, that is, a result below 2^(62 - F) in magnitude; partial sums may wrap around. `reach` is
the bound on |z| that the bounds of the x_k give; where it is larger, the caller has to know that z fits.
Error: less than one unit in the last place of the result.
Cost: 1 round, 8 (n - 1) bytes an element; correction 10 bytes an element, 12 for more
than 16 bits.

Source: see :mod:`mpc.protocols.truncation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import linear, range_check, truncation

__all__ = ["Fraction", "combine", "cost", "reach"]


@dataclass(frozen=True)
class Fraction:
    """The number ``numerator / 2**bits``."""

    numerator: int
    bits: int

    @classmethod
    def nearest(cls, value: float, most_bits: int, significant: int = 16) -> Fraction:
        """Return the fraction nearest to `value`, with a numerator of `significant` bits.

        The denominator is at most ``2**most_bits``, so small values have fewer significant bits,
        and what is below half of ``2**-most_bits`` becomes 0. Powers of two in between are exact,
        with a numerator of one.
        """
        if value == 0:
            return cls(0, 0)
        bits = min(most_bits, significant - math.frexp(abs(value))[1])
        numerator = round(math.ldexp(value, bits))
        if numerator == 0:
            return cls(0, 0)
        while numerator % 2 == 0 and bits > 0:
            numerator, bits = numerator // 2, bits - 1
        return cls(numerator << max(0, -bits), max(0, bits))

    @property
    def value(self) -> float:
        """The number itself."""
        return math.ldexp(self.numerator, -self.bits)


def cost(parties: int, size: int, shift: int) -> Spent:
    """Declare the cost of combining arrays of `size` elements, and truncating by `shift` bits."""
    return truncation.cost(parties, size, shift)


def _most(terms: Sequence[tuple[SecretValue, Fraction]], frac_bits: int) -> int:
    """Return F, the fractional bits of z."""
    return max(frac_bits, *(x.frac_bits + c.bits for x, c in terms))


def _factor(x: SecretValue, c: Fraction, most: int) -> int:
    return c.numerator << (most - x.frac_bits - c.bits)


def reach(terms: Sequence[tuple[SecretValue, Fraction]], frac_bits: int) -> int:
    """Return the bound on |z| that follows from the bounds of the arrays."""
    most = _most(terms, frac_bits)
    return sum(x.bound * abs(_factor(x, c, most)) for x, c in terms)


def combine(terms: Sequence[tuple[Secret, Fraction]], frac_bits: int) -> Secret:
    """Return the sum of arrays of one shape times fractions, with `frac_bits` fractional bits."""
    terms = [(x, c) for x, c in terms if c.numerator] or [(terms[0][0], Fraction(0, 0))]
    first = terms[0][0]
    most = _most(terms, frac_bits)
    with first.session.protocol("combination"):
        factors = [_factor(x, c, most) for x, c in terms]
        if max(map(abs, factors)) > LARGEST:
            raise RangeError(
                f"combination: {most} bits behind the point leave no room in the ring for a factor of"
                f" {max(abs(c.value) for _, c in terms):g}"
            )
        arrays = [x for x, _ in terms]
        bound = linear.settled(
            first,
            "combination",
            reach(terms, frac_bits),
            most,
            (*arrays, *map(np.int64, factors)),
            lambda *v: sum(x * f for x, f in zip(v[: len(v) // 2], v[len(v) // 2 :], strict=True)),
            len(terms),
            lambda: tuple(
                range_check.magnitude(x, LARGEST // sum(map(abs, factors))) for x in arrays
            ),
        )
        shares = None
        for x, factor in zip(arrays, factors, strict=True):
            scaled = x.shares * np.uint64(factor % 2**64)
            shares = scaled if shares is None else np.add(shares, scaled, out=shares)
        total = first.derive(shares, frac_bits=most, bound=bound)
        return truncation.truncate(total, most - frac_bits) if most > frac_bits else total
