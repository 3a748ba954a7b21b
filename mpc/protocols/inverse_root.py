"""m / sqrt(x), for optimizers that scale a step by the root of its second moment.

x has 36 fractional bits; 2^-36 is added to it, so that it is not zero. T = 46 if the bound of x is 2^10 or
less, else 62:
1. For k = 32, 16, 8, 4, 2: bit b = [x < 2^(T - k)] on the encoded value, x <- x (1 + b (2^k - 1)).
   Then x lies in [2^(T - 2), 2^T), that is in [1, 4) with T - 2 fractional bits. 4 rounds each: a
   comparison, and a product with its bit.
2. y = 1 / sqrt(x) in [1, 4), by a polynomial of degree two, within 2.5 %: 2 rounds. One step of
   Newton's iteration, y <- y (3 - x y^2) / 2: 6 rounds.
3. u = m y, with T = 62 truncated by 8 bits, then for each k: u <- u (1 + b (2^(k / 2) - 1)), so that
   u = m / sqrt(x) in the end, with the bits of step 1: a round each.
m has 24 fractional bits, the result 48.
The places of x and of the result are more than :mod:`mpc.protocols.normalised` has room for in a word.
Domain: 0 <= x < 2^26 and |m| < 2^17, checked on their bounds; and |m / sqrt(x)| < 2^13, which does not
follow from these bounds and which the caller has to know: the moments m and x of Adam stay far below it.
Error: at most 1e-3 relative to the result; and, with T = 62, 2^-36 / sqrt(x) from the truncation in step 3.
Measured over the whole domain by the tests.
Cost: 35 rounds, about 217 bytes an element; 36 and about 227 with T = 62.
:mod:`mpc.protocols.bounded` would take step 2 in 2 rounds in place of 8, for 780 bytes of correction in
place of about 70. An optimizer does this for every weight, so that it would save time on very slow
networks alone: for 100,000 weights at 1 Gbit/s from a round trip of 0.2 s on.

Source: normalisation by the highest bit as in Aly, Smart 2019 (section 3) and Keller, Sun 2022 (section
4.2), with a secret factor of 4 at a time in place of shared bits.
"""

from __future__ import annotations

import numpy as np

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.known import SecretBit
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import comparison, linear, product, select, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.sign import count_bits

__all__ = [
    "M_BITS", "M_BOUND", "RESULT_BITS", "X_BITS", "X_BOUND", "X_LIMIT", "cost", "times_inverse_root",
]  # fmt: skip

# Fractional bits of x, of m and of the result.
X_BITS = 36
M_BITS = 24
RESULT_BITS = 48
# Bounds on the encoded values: 1 is added to x, which has to stay below 2^62.
X_BOUND = (1 << 62) - 2
M_BOUND = 1 << M_BITS + 17
# Up to this bound of x, T is 46.
X_LIMIT = 2.0**10
_RATIO_BOUND = 1 << RESULT_BITS + 13
_STEPS = (32, 16, 8, 4, 2)
_Y_BITS = 20
# Best in relative error for 1 / sqrt(x) in [1, 4), times 2^20: 1.33542 - 0.41067 x + 0.05121 x^2.
_START = (1400287, -430619, 53693)


def _top(bound: int) -> int:
    """Return T."""
    return 46 if bound <= X_LIMIT * 2**X_BITS else 62


def _surplus(top: int) -> int:
    """Return by how many bits m y is truncated in step 3, for a result with RESULT_BITS.

    x in step 2 is 4^(e - (T - 38) / 2) times the original one.
    """
    return M_BITS + _Y_BITS + (top - 2 - X_BITS) // 2 - RESULT_BITS


def cost(parties: int, size: int, bound: int = 1 << 46) -> Spent:
    """Declare the cost for `size` elements and a bound on the encoded x."""
    top = _top(bound)
    total = Spent()
    for k in _STEPS:
        reach = (bound + 1 if k == _STEPS[0] else 1 << top) + (1 << top - k)
        window = count_bits(min(reach, LARGEST))
        total = total + comparison.cost(parties, size, window, True)
        total = total + select.cost(parties, size, size)
    for shift in (top - 2 - _Y_BITS, 2 * _Y_BITS, _Y_BITS, _Y_BITS, _Y_BITS + 1):
        total = total + truncation.cost(parties, size, shift)
    if _surplus(top):
        total = total + truncation.cost(parties, size, _surplus(top))
    # The cross terms of the first product and, if it is not truncated, of the last one are dealt.
    total = total + product.cost(parties, size, size)
    for _ in range(3):
        total = total + product.cost(parties, size)
    total = total + product.cost(parties, 2 * size, 0 if _surplus(top) else size)
    for _ in _STEPS:
        total = total + select.cost(parties, size, size)
    return total


def _normalise(x: Secret, top: int) -> tuple[Secret, list[SecretBit]]:
    """Step 1."""
    bits = []
    for k in _STEPS:
        whole = x.derive(x.shares, frac_bits=0, bound=x.bound)
        bit = comparison.negative_bit(comparison.difference(whole, 1 << (top - k)))
        bits.append(bit)
        x = _raise_where(x, bit, k, 1 << top)
    return x, bits


def _raise_where(x: Secret, bit: SecretBit, k: int, bound: int) -> Secret:
    """Multiply x by 2^k where the bit is set; the caller knows the bound."""
    chosen = select.multiply_bit(x, bit).shares * np.uint64((1 << k) - 1)
    return x.derive(x.shares + chosen, frac_bits=x.frac_bits, bound=bound)


def _check(name: str, x: SecretValue, frac_bits: int, bound: int) -> None:
    if x.bound > bound:
        raise RangeError(
            f"{name} of m / sqrt(x) must be below {bound / 2**frac_bits:g} in magnitude, got a bound of"
            f" {x.bound / 2**frac_bits:g}; state what is known by .with_bound"
        )


def times_inverse_root(m: Secret, x: Secret) -> Secret:
    """Return m / sqrt(x), with RESULT_BITS fractional bits, for m with M_BITS and x with X_BITS.

    Raises RangeError if the bound of m or x leaves the domain.
    """
    _check("m", m, M_BITS, M_BOUND)
    _check("x", x, X_BITS, X_BOUND)
    with x.session.protocol("inverse root"):
        top = _top(x.bound)
        x, bits = _normalise(linear.add_integer(x, 1), top)
        y = _of_normalised(x, top)
        mask_ahead(m, y)
        u = product.multiply(m, y, whole=True)
        if _surplus(top):
            u = truncation.truncate(u, _surplus(top))
        u = u.derive(u.shares, frac_bits=RESULT_BITS, bound=u.bound)
        for k, bit in zip(_STEPS, bits, strict=True):
            u = _raise_where(u, bit, k // 2, _RATIO_BOUND)
        return u


def _of_normalised(x: Secret, top: int) -> Secret:
    """Step 2: 1 / sqrt(x), with _Y_BITS."""
    one = 1 << _Y_BITS
    x = x.derive(x.shares, frac_bits=top - 2, bound=x.bound)
    x = truncation.truncate(x, top - 2 - _Y_BITS)
    square = product.multiply(x, x, whole=True)
    a, b, c = _START
    # b x + c x^2 is in [-0.83, 0] for x in [1, 4).
    curve = linear.add(
        linear.rescale(square, c, 3 * _Y_BITS, one**3),
        linear.rescale(x, b << _Y_BITS, 3 * _Y_BITS, 2 * one**3),
    ).with_integer_bound(one**3)
    start = linear.add_integer(curve, a << 2 * _Y_BITS).with_integer_bound(2 * one**3)
    y = truncation.truncate(start, 2 * _Y_BITS)
    y_square = truncation.truncate(product.multiply(y, y, whole=True), _Y_BITS)
    near_one = truncation.truncate(product.multiply(x, y_square, whole=True), _Y_BITS)
    # 3 - x y^2, halved by the place of the point.
    factor = linear.add_integer(linear.negative(near_one), 3 * one)
    factor = factor.derive(factor.shares, frac_bits=_Y_BITS + 1, bound=4 * one)
    y = truncation.truncate(product.multiply(y, factor, whole=True), _Y_BITS + 1)
    return y.with_integer_bound(one + (one >> 4))
