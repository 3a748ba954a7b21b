"""1 / x for x in a public range [1, k], by Newton's iteration in Goldschmidt's order.

1. y = a - b x, with e = 1 - x y = 1 - a x + b x^2 equal in magnitude at both ends and in the middle:
   for X = (k + 1) / (k - 1), D = 2 X^2 - 1: b = 8 / ((k - 1)^2 D), a = b (k + 1), |e| <= 1 / D. One
   square, truncated: 2 rounds. (k = 10: y = 0.5466 - 0.0497 x, |e| <= 0.503.)
2. y <- y + y e, e <- e^2, until |e| < 2^-15 is sure: 2 rounds each, both products at once.
   (k = 2: 2 times; k = 10: 4 times; k = 100: 10 times.)
Everything has 24 bits behind the point. a and b are rounded to 12 bits once and for all, so that
step 1 is exact for them.
Error, relative: what is left of e, at most 2^-15, and k 2^-24 for each truncation: for k = 2, 10, 100
at most 2e-5, 3e-5, 2e-4.
Cost for t iterations: 2 + 2 t rounds, 8 (n - 1) (3 + 4 t - 2) bytes an element; correction
8 (5 + 6 t - 3) bytes.

Source: Goldschmidt 1964; on shares Catrina, Saxena 2010, section 3.4. The start:
from Chebyshev's polynomial of degree two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.cost import Spent
from mpc.errors import RangeError
from mpc.protocols import linear, product, truncation
from mpc.protocols.masking import mask_together

if TYPE_CHECKING:
    from mpc.shared_array import SharedArray

__all__ = ["FRAC_BITS", "cost", "reciprocal", "start"]

# Fractional bits of x and of the result.
FRAC_BITS = 24
_START_BITS = 12
_TOLERANCE_BITS = 15
LARGEST = 128


def start(k: int) -> tuple[int, int, int]:
    """Return a and b times 2^12, as integers, and the number of iterations."""
    if not 1 < k <= LARGEST:
        raise RangeError(f"k must be in [2, {LARGEST}], got {k}")
    middle = (k + 1) / (k - 1)
    d = 2 * middle**2 - 1
    b = 8 / ((k - 1) ** 2 * d)
    a_, b_ = (round(v * (1 << _START_BITS)) for v in (b * (k + 1), b))
    a, b = a_ / (1 << _START_BITS), b_ / (1 << _START_BITS)
    # Where 1 - a x + b x^2 can be largest in magnitude: the ends, and the vertex.
    places = [1.0, float(k)] + ([a / (2 * b)] if b else [])
    worst = max(abs(1 - a * x + b * x * x) for x in places)
    steps = 0
    while worst > 2.0**-_TOLERANCE_BITS:
        worst, steps = worst * worst, steps + 1
    return a_, b_, max(1, steps)


def cost(parties: int, size: int, k: int) -> Spent:
    """Declare the cost for `size` elements in [1, k]."""
    steps = start(k)[2]
    total = product.cost(parties, size, size)
    total = total + truncation.cost(parties, 2 * size, FRAC_BITS + _START_BITS)
    for _ in range(steps - 1):
        total = total + product.cost(parties, 2 * size)
        total = total + truncation.cost(parties, 2 * size, FRAC_BITS)
    total = total + product.cost(parties, 2 * size)
    return total + truncation.cost(parties, size, FRAC_BITS)


def reciprocal(x: SharedArray, k: int) -> SharedArray:
    """Return 1 / x, for x of shape (size,) with FRAC_BITS fractional bits, in [1, k]."""
    a, b, steps = start(k)
    one = 1 << FRAC_BITS
    with x.session.protocol("reciprocal"):
        # x^2 has 48 bits behind the point, b x^2 and a x at 48 + 12.
        bits = 2 * FRAC_BITS + _START_BITS
        square = linear.rescale(product.multiply(x, x, whole=True), b, bits, 1 << bits)
        e = linear.subtract(square, linear.rescale(x, a << FRAC_BITS, bits, 1 << bits))
        y = linear.rescale(x, -b << FRAC_BITS, bits, 1 << bits)
        starts = linear.stack(
            [linear.add_integer(e, 1 << bits), linear.add_integer(y, a << (2 * FRAC_BITS))]
        )
        both = truncation.truncate(starts, bits - FRAC_BITS)
        for _ in range(steps - 1):
            # Masked as one array, whose rows e and y are.
            mask_together(both)
            squares = product.multiply(both, both[:1], whole=True)
            e_and_change = truncation.truncate(squares, FRAC_BITS)
            y = linear.add(both[1:], e_and_change[1:])
            both = linear.concatenate([e_and_change[:1], y])
        mask_together(both)
        change = product.multiply(both[1], both[0], whole=True)
        y = linear.add(both[1], truncation.truncate(change, FRAC_BITS))
        return y.with_integer_bound(one + (one >> 4))
