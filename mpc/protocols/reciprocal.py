"""1 / x for x in a public range [1, k].

For k <= 32, with a provider: polynomials that one opening chooses, :mod:`mpc.protocols.bounded`: 2 rounds.
For k <= 32, two parties alone, for whom nobody deals tables: Newton's iteration in Goldschmidt's order.
1. y = a - b x, with e = 1 - x y = 1 - a x + b x^2 equal in magnitude at both ends and in the middle:
   for X = (k + 1) / (k - 1), D = 2 X^2 - 1: b = 8 / ((k - 1)^2 D), a = b (k + 1), |e| <= 1 / D. One
   square, truncated. (k = 10: y = 0.5466 - 0.0497 x, |e| <= 0.503.)
2. y <- y + y e, e <- e^2, until |e| < 2^-15 is sure: both products at once.
   (k = 2: 2 times; k = 10: 4 times; k = 32: 6 times.)
1 / v for v in [1, 2), where 2^-18.8 of it is enough, as quotients take it: by one of these, for k = 2.
For k up to 2^16:
1. c = 2^-j where 2^j <= x < 2^(j + 1): :mod:`mpc.protocols.thresholds`. 3 rounds. c x, in [1, 2]: 2.
2. 1 / (c x) as above, for k = 2: 2 rounds.
3. c times that: 2 rounds.
The range is known here, so that up to k = 32 nothing has to be compared; of any x:
:mod:`mpc.protocols.normalised`.
x has 24 fractional bits, and so have all values but x^2 and products with c. a and b are constants of 12
fractional bits, and the bound on |e| is for these. x may lie outside of [1, k] by 2^-20 x.
Error: 2^-22 absolute, and relative to 1 / x at most 3e-6 and 2^-24 k; without a provider the remaining e,
at most 2^-15, and 2^-24 k for each truncation: 4e-5 for any k. Measured over the whole range by the tests.
Cost: that of :mod:`mpc.protocols.bounded`. For k > 32: 9 rounds.

Source: of the iteration Goldschmidt 1964; on shares Catrina, Saxena 2010, section 3.4. The start:
from Chebyshev's polynomial of degree two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.secret_value import Secret
from mpc.protocols import bounded, linear, product, thresholds, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.sign import count_bits

__all__ = [
    "FRAC_BITS",
    "LARGEST",
    "NORMALISED_ERROR",
    "cost",
    "cost_of_normalise",
    "normalise",
    "normalised",
    "of_normalised",
    "reciprocal",
    "start",
]

Words = NDArray[np.uint64]

# Fractional bits of x and of the result.
FRAC_BITS = 24
LARGEST = 1 << 16
# Of :func:`of_normalised`, relative to the result.
NORMALISED_ERROR = 2.3e-6
_ONE = 1 << FRAC_BITS
_START_BITS = 12
_TOLERANCE_BITS = 15
_FINE_BITS = 20


def start(k: int, tolerance_bits: int = _TOLERANCE_BITS) -> tuple[int, int, int]:
    """Return a and b times 2^12, as integers, and the number of iterations."""
    if not 1 < k <= bounded.LARGEST:
        raise RangeError(f"k must be in [2, {bounded.LARGEST}] to start at once, got {k}")
    middle = (k + 1) / (k - 1)
    d = 2 * middle**2 - 1
    b = 8 / ((k - 1) ** 2 * d)
    a_, b_ = (round(v * (1 << _START_BITS)) for v in (b * (k + 1), b))
    a, b = a_ / (1 << _START_BITS), b_ / (1 << _START_BITS)
    # Where 1 - a x + b x^2 can be largest in magnitude: the ends, and the vertex.
    places = [1.0, float(k)] + ([a / (2 * b)] if b else [])
    worst = max(abs(1 - a * x + b * x * x) for x in places)
    steps = 0
    while worst > 2.0**-tolerance_bits:
        worst, steps = worst * worst, steps + 1
    return a_, b_, max(1, steps)


def normalised(k: int) -> tuple[int, ...]:
    """Return the encoded powers of two that x is compared with; none for k <= 32.

    Raises RangeError for a k outside of [2, 2^16].
    """
    if not 1 < k <= LARGEST:
        raise RangeError(f"k must be in [2, {LARGEST}], got {k}")
    if k <= bounded.LARGEST:
        return ()
    return tuple(_ONE << j for j in range(1, (k - 1).bit_length()))


def cost_of_normalise(parties: int, size: int, k: int) -> Spent:
    """Declare the cost of :func:`normalise` for `size` elements in [1, k]."""
    powers = normalised(k)
    total = thresholds.cost(parties, size, count_bits((k << FRAC_BITS) + powers[-1]), len(powers))
    total = total + product.cost(parties, 2 * size)
    return total + truncation.cost(parties, size, len(powers))


def cost(parties: int, size: int, k: int) -> Spent:
    """Declare the cost for `size` elements in [1, k]."""
    powers = normalised(k)
    if powers:
        # c has its mask by the second product.
        total = cost_of_normalise(parties, size, k) + cost(parties, size, 2)
        return total + product.cost(parties, size) + truncation.cost(parties, size, len(powers))
    return bounded.cost(parties, size, k)


def normalise(x: Secret, k: int) -> tuple[Secret, Secret, Words]:
    """Return c x in [1, 2], c, and the numbers [x < 2^j], j = 1, 2 ..., for k > 32.

    c has as many fractional bits as there are powers of two.
    """
    powers = normalised(k)
    count = len(powers)
    numbers = thresholds.below(x, powers)
    values = np.array([[1 << j for j in range(count, -1, -1)]])
    chosen = thresholds.choose(x.session, numbers, values)[:, 0]
    c = x.derive(chosen, frac_bits=count, bound=1 << count)
    # c x is at most 2, a little more for the errors of x.
    scaled = product.multiply(x.with_integer_bound(LARGEST << FRAC_BITS + 1), c, whole=True)
    scaled = scaled.with_integer_bound(2 * _ONE + 64 << count)
    return truncation.truncate(scaled, count), c, numbers


def reciprocal(x: Secret, k: int) -> Secret:
    """Return 1 / x, for x of shape (size,) with FRAC_BITS fractional bits, in [1, k]."""
    with x.session.protocol("reciprocal"):
        powers = normalised(k)
        if not powers:
            return _direct(x, k)
        scaled, c, _ = normalise(x, k)
        y = product.multiply(_direct(scaled, 2), c, whole=True)
        return truncation.truncate(y, len(powers))


def of_normalised(v: Secret) -> Secret:
    """Return 1 / v for v in [1, 2), with 24 fractional bits or more, and more again behind the result's.

    Where v is 0 it is any number below 2 in magnitude. 1 round with a provider.
    """
    session, shift = v.session, v.frac_bits - FRAC_BITS
    flat = v.view(("reshape", (v.size,)))
    if bounded.takes(session, 2):
        later = bounded.Later(session, flat.shares, 2, "reciprocal", shift=shift)
        found = later.value(v, session.open((later.message, "sum"))[0])
    else:
        found = _by_iteration(truncation.truncate(flat, shift) if shift else flat, 2, _FINE_BITS)
    return found.view(("reshape", v.shape))


def _direct(x: Secret, k: int) -> Secret:
    if bounded.takes(x.session, k):
        return bounded.evaluate(x, k, "reciprocal")
    return _by_iteration(x, k, _TOLERANCE_BITS)


def _by_iteration(x: Secret, k: int, tolerance_bits: int) -> Secret:
    a, b, steps = start(k, tolerance_bits)
    # x^2 has 48 fractional bits, b x^2 and a x have 48 + 12. These may exceed 2^62; e and y, the
    # results of step 1, do not.
    bits = 2 * FRAC_BITS + _START_BITS
    x = x.with_integer_bound((k << FRAC_BITS) + (k << 5))
    square = product.multiply(x, x, whole=True)
    e = x.derive(
        square.shares * np.uint64(b) - x.shares * np.uint64(a << FRAC_BITS),
        frac_bits=bits, bound=2 << bits,
    )  # fmt: skip
    y = linear.rescale(x, -b << FRAC_BITS, bits, x.bound * b << FRAC_BITS)
    starts = linear.stack(
        [linear.add_integer(e, 1 << bits), linear.add_integer(y, a << (2 * FRAC_BITS))]
    ).with_integer_bound(1 << bits)
    both = truncation.truncate(starts, bits - FRAC_BITS)
    for _ in range(steps - 1):
        # e and y are rows of one array, masked together.
        mask_ahead(both)
        squares = product.multiply(both, both[:1], whole=True)
        e_and_change = truncation.truncate(squares, FRAC_BITS)
        y = linear.add(both[1:], e_and_change[1:])
        both = linear.concatenate([e_and_change[:1], y]).with_integer_bound(2 * _ONE)
    mask_ahead(both)
    change = product.multiply(both[1], both[0], whole=True)
    y = linear.add(both[1], truncation.truncate(change, FRAC_BITS))
    return y.with_integer_bound(_ONE + (_ONE >> 4))
