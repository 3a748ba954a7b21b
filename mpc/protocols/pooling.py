"""Pooling: the maximum and the mean of a few arrays, elementwise.

Maximum of k arrays, by a tree of ceil(log2 k) levels; on each
1. d = x - y for the pairs of arrays: local.
2. max(x, y) = y + relu(d), without truncation: :mod:`mpc.protocols.relu` with s = 0, 4 rounds.
Values straight from a matrix product, with twice the fractional bits, are compared as they are, so
a ReLU behind the maximum truncates, and the maximum costs no round for that.
Cost for pairs of 48 bits: a level takes 4 rounds, about 11.3 (n - 1) bytes a pair; correction about
60 bytes a pair. k arrays make k - 1 pairs.

Mean of k arrays:
1. Sum: local.
2. For k a power of two, one truncation takes its log2 and the surplus fractional bits together. Else
   the sum is truncated to the format, if it has more bits, then divided as by any public number:
   with both at once, the ring would leave too few bits for the factor 1 / k.
Cost: 1 round (2 for a k that is no power of two and surplus bits), 8 (n - 1) bytes an element each;
correction 16 bytes. See :mod:`mpc.protocols.truncation`.

Source: max(x, y) = y + relu(x - y), as in SecureNN (Wagh, Gupta, Chandran 2019, section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.cost import Spent
from mpc.errors import ArgumentError
from mpc.protocols import linear, relu, truncation

if TYPE_CHECKING:
    from mpc.shared_array import SharedArray

__all__ = ["cost_of_maximum", "cost_of_mean", "maximum_of_first", "mean_of_first"]


def cost_of_maximum(parties: int, count: int, size: int, nibbles: int) -> Spent:
    """Declare the cost for `count` arrays of `size` elements, differences taking `nibbles`."""
    total = Spent()
    while count > 1:
        total = total + relu.cost(parties, count // 2 * size, 0, nibbles)
        count -= count // 2
    return total


def cost_of_mean(parties: int, count: int, size: int, surplus: bool) -> Spent:
    """Declare the cost for `count` arrays of `size` elements, with `surplus` fractional bits or not."""
    if count & (count - 1) == 0:
        return truncation.cost(parties, size) if surplus or count > 1 else Spent()
    once = truncation.cost(parties, size)
    return once + once if surplus else once


def maximum_of_first(x: SharedArray) -> SharedArray:
    """Return the maximum along the first axis, with the fractional bits of x."""
    if not x.shape or not x.shape[0]:
        raise ArgumentError(f"the maximum needs at least one array, got shape {x.shape}")
    bound = x.bound
    with x.session.protocol("maximum"):
        while x.shape[0] > 1:
            half = x.shape[0] // 2
            first = linear.view(x, ("index", (slice(0, half),)))
            second = linear.view(x, ("index", (slice(half, 2 * half),)))
            best, _ = relu.relu_with_derivative(linear.subtract(first, second), truncate=False)
            best = linear.add(best, second).with_integer_bound(bound)
            odd = linear.view(x, ("index", (slice(2 * half, None),)))
            x = linear.concatenate([best, odd]) if odd.shape[0] else best
        return linear.view(x, ("index", (0,)))


def mean_of_first(x: SharedArray) -> SharedArray:
    """Return the mean along the first axis, with at most the session's fractional bits."""
    count = x.shape[0] if x.shape else 0
    if not count:
        raise ArgumentError(f"the mean needs at least one array, got shape {x.shape}")
    total = linear.sum_along(x, 0)
    power = count.bit_length() - 1
    if count != 1 << power:
        return linear.divide_public(total, count)
    frac_bits = min(x.frac_bits, x.session.format.frac_bits)
    extra = x.frac_bits - frac_bits
    if not extra + power:
        return total
    with x.session.protocol("mean"):
        y = truncation.divide_by_power(total, extra + power, frac_bits)
        return y.with_integer_bound((x.bound >> extra) + 1)
