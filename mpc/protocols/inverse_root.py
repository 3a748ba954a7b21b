"""m / sqrt(x), for optimizers that scale a step by the root of its second moment.

x has 36 bits behind the point and lies in [0, 2^10); it counts as at least 2^-36.
1. For k = 32, 16, 8, 4, 2: bit b = [x < 2^(46 - k)] on the encoded value, x <- x (1 + b (2^k - 1)).
   Then x lies in [2^44, 2^46), that is in [1, 4) with 44 bits behind the point. 5 rounds each: a
   comparison, and a product with its bit.
2. y = 1 / sqrt(x) in [1, 4), by a polynomial of degree two, within 2.5 %: 2 rounds. One step of
   Newton's iteration, y <- y (3 - x y^2) / 2: 6 rounds.
3. u = m y, then for each k: u <- u (1 + b (2^(k / 2) - 1)), so that u = m / sqrt(x) in the end, with
   the bits of step 1: a round each.
Error, relative: at most 1e-3, and 2^-36 or so in m / sqrt(x) for each unit of m's last bit.
Needs |m / sqrt(x)| < 2^9, |m| < 2^5; m has 24 bits behind the point, the result 48.
Cost: 40 rounds, about 250 bytes an element.

Source: normalisation by the highest bit as in Aly, Smart 2019 (section 3) and Keller, Sun 2022 (section
4.2), with a secret factor of 4 at a time in place of shared bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.cost import Spent
from mpc.protocols import comparison, linear, product, select, truncation
from mpc.protocols.masking import mask_together
from mpc.protocols.sign import window
from mpc.ranges import LARGEST

if TYPE_CHECKING:
    from mpc.protocols.convert import MaskedBit
    from mpc.shared_array import SharedArray

__all__ = ["M_BITS", "RESULT_BITS", "X_BITS", "X_LIMIT", "cost", "times_inverse_root"]

# Fractional bits of x, of m and of the result; x stays below X_LIMIT.
X_BITS = 36
M_BITS = 24
X_LIMIT = 2.0**10
_TOP = 46
_STEPS = (32, 16, 8, 4, 2)
_Y_BITS = 20
# Four more than m y: x in step 2 is 4^(e - 4) times the old one.
RESULT_BITS = M_BITS + _Y_BITS + 4
# Best in relative error for 1 / sqrt(x) in [1, 4), times 2^20: 1.33542 - 0.41067 x + 0.05121 x^2.
_START = (1400287, -430619, 53693)


def cost(parties: int, size: int) -> Spent:
    """Declare the cost for `size` elements."""
    total = Spent()
    for _ in _STEPS:
        total = total + comparison.cost(parties, size, window((1 << _TOP) + 1), True)
        total = total + select.cost(parties, size, size)
    for shift in (_TOP - 2 - _Y_BITS, 2 * _Y_BITS, _Y_BITS, _Y_BITS, _Y_BITS + 1):
        total = total + truncation.cost(parties, size, shift)
    # Of all products the first and the last are more than truncated.
    total = total + product.cost(parties, size, size)
    for _ in range(3):
        total = total + product.cost(parties, size)
    total = total + product.cost(parties, 2 * size, size)
    for _ in _STEPS:
        total = total + select.cost(parties, size, size)
    return total


def _normalise(x: SharedArray) -> tuple[SharedArray, list[MaskedBit]]:
    """Step 1."""
    bits = []
    for k in _STEPS:
        difference = linear.add_integer(x, -(1 << (_TOP - k))).with_integer_bound((1 << _TOP) + 1)
        bit = comparison.negative_bit(difference)
        bits.append(bit)
        x = _raise_where(x, bit, k, 1 << _TOP)
    return x, bits


def _raise_where(x: SharedArray, bit: MaskedBit, k: int, bound: int) -> SharedArray:
    """Multiply x by 2^k where the bit is set."""
    chosen = linear.rescale(select.multiply_bit(x, bit), (1 << k) - 1, x.frac_bits, bound)
    return linear.add(x, chosen).with_integer_bound(bound)


def times_inverse_root(m: SharedArray, x: SharedArray) -> SharedArray:
    """Return m / sqrt(x), with RESULT_BITS fractional bits, for m with M_BITS and x with X_BITS."""
    with x.session.protocol("inverse root"), x.session.range_policy.vouched():
        x = linear.add_integer(x, 1).with_integer_bound(1 << _TOP)
        x, bits = _normalise(x)
        one = 1 << _Y_BITS
        shift = _TOP - 2 - _Y_BITS
        x = truncation.divide_by_power(
            x.derive(x.shares, frac_bits=_TOP - 2, bound=1 << _TOP), shift, _Y_BITS
        )
        square = product.multiply(x, x, whole=True)
        a, b, c = _START
        total = linear.add(
            linear.rescale(square, c, 3 * _Y_BITS, 4 * one**3),
            linear.rescale(x, b << _Y_BITS, 3 * _Y_BITS, 4 * one**3),
        ).with_integer_bound(2 * one**3)
        start = linear.add_integer(total, a << 2 * _Y_BITS).with_integer_bound(2 * one**3)
        y = truncation.truncate(start, 2 * _Y_BITS)
        y_square = truncation.truncate(product.multiply(y, y, whole=True), _Y_BITS)
        near_one = truncation.truncate(product.multiply(x, y_square, whole=True), _Y_BITS)
        # 3 - x y^2, halved by the place of the point.
        factor = linear.add_integer(linear.negative(near_one), 3 * one)
        factor = factor.derive(factor.shares, frac_bits=_Y_BITS + 1, bound=4 * one)
        y = truncation.truncate(product.multiply(y, factor, whole=True), _Y_BITS + 1)
        mask_together(m, y)
        u = product.multiply(m, y, whole=True).with_integer_bound(LARGEST)
        u = u.derive(u.shares, frac_bits=RESULT_BITS, bound=u.bound)
        for k, bit in zip(_STEPS, bits, strict=True):
            u = _raise_where(u, bit, k // 2, LARGEST)
        return u
