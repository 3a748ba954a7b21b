"""Pooling: the maximum and the mean of a few arrays, elementwise.

Maximum of k arrays, by a tree of ceil(log2 k) levels; on each
1. d = y - x for the pairs of arrays: local.
2. max(x, y) = x + relu(d), without truncation: :mod:`mpc.protocols.relu` with s = 0, 3 rounds; without
   the backward pass 2 where that pays (:mod:`mpc.protocols.sign_products`).
Products, with twice the fractional bits, are compared without truncation; a ReLU that follows the
maximum truncates them in its own opening.
Cost for pairs of 48 bits: a level takes 3 rounds, about 9.9 (n - 1) bytes a pair; correction about
122 bytes a pair. k arrays make k - 1 pairs.

Exact for every value below 2^62, see :mod:`mpc.protocols.maximum`.

Ties go to the array with the lower index. The backward pass multiplies the maximum's gradient by the
masked bit of each pair, level by level (:mod:`mpc.protocols.select`): 1 round a level, 8 (n - 1) bytes a
pair; correction 8 bytes.

Mean of k arrays:
1. Sum: local.
2. For k a power of two, one truncation divides by k and drops the surplus fractional bits; its error is
   less than one unit in the result's last place. A mean of whole numbers is exact, with log2 k fractional
   bits. For other k the sum is divided by a public number, see :mod:`mpc.protocols.scaling`.
Cost: 1 round, 8 (n - 1) bytes an element, correction 10 bytes; twice that for a k that is no power
of two. See :mod:`mpc.protocols.truncation`.

Source: max(x, y) = x + relu(y - x), as in SecureNN (Wagh, Gupta, Chandran 2019, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError
from mpc.core.known import SecretBit
from mpc.core.secret_value import Secret
from mpc.protocols import comparison, linear, relu, scaling, select, truncation

__all__ = [
    "cost_of_gradient",
    "cost_of_maximum",
    "cost_of_mean",
    "maximum_gradient",
    "maximum_of_first",
    "maximum_with_bits",
    "mean_of_first",
    "mean_of_sum",
]


def cost_of_maximum(parties: int, count: int, size: int, window: int) -> Spent:
    """Declare the cost for `count` arrays of `size` elements, differences taking `window` bits."""
    total = Spent()
    while count > 1:
        total = total + relu.cost(parties, count // 2 * size, 0, window)
        count -= count // 2
    return total


def cost_of_mean(parties: int, count: int, size: int, surplus: int, bound: int) -> Spent:
    """Declare the cost for `count` arrays of `size` elements with `surplus` fractional bits."""
    if count & (count - 1) == 0:
        shift = max(0, surplus + count.bit_length() - 1)
        return truncation.cost(parties, size, shift) if shift else Spent()
    chosen = scaling.plan_limbs(count * bound, 1, Fraction(1, count << surplus))
    assert chosen is not None
    return scaling.cost(parties, size, size, chosen)


def maximum_with_bits(x: Secret) -> tuple[Secret, list[SecretBit]]:
    """Return the maximum along the first axis, and for each level the bits [the pair's second won]."""
    bits: list[SecretBit] = []

    def rectified(difference: Secret) -> Secret:
        best, bit = relu.relu_with_derivative(difference, truncate=False)
        bits.append(bit)
        return best

    return _maximum(x, rectified), bits


def maximum_of_first(x: Secret) -> Secret:
    """Return the maximum along the first axis, with the fractional bits of x."""
    return _maximum(x, lambda difference: relu.relu(difference, truncate=False))


def _maximum(x: Secret, rectified: Callable[[Secret], Secret]) -> Secret:
    """Return the maximum along the first axis, with a ReLU of the pairs' differences."""
    if not x.shape or not x.shape[0]:
        raise ArgumentError(f"the maximum needs at least one array, got shape {x.shape}")
    bound = x.bound
    with x.session.protocol("maximum"):
        while x.shape[0] > 1:
            paired = x.shape[0] // 2 * 2
            first = x.view(("index", (slice(0, paired, 2),)))
            second = x.view(("index", (slice(1, paired, 2),)))
            best = rectified(comparison.difference(second, first))
            best = comparison.add_words(best, first, bound)
            odd = x.view(("index", (slice(paired, None),)))
            x = linear.concatenate([best, odd]) if odd.shape[0] else best
        return x.view(("index", (0,)))


def cost_of_gradient(parties: int, count: int, size: int) -> Spent:
    """Declare the cost of :func:`maximum_gradient` for `count` arrays of `size` elements."""
    total = Spent()
    while count > 1:
        pairs = count // 2 * size
        total = total + select.cost(parties, pairs, pairs)
        count -= count // 2
    return total


def maximum_gradient(g: Secret, bits: Sequence[SecretBit], count: int) -> Secret:
    """Return the gradient at `count` arrays, for the gradient g of their maximum and its bits."""
    counts = [count]
    while counts[-1] > 1:
        counts.append(counts[-1] - counts[-1] // 2)
    shape = g.shape
    x = g.view(("reshape", (1, *shape)))
    with g.session.protocol("maximum"):
        for bit, before in zip(reversed(bits), reversed(counts[:-1]), strict=True):
            pairs = before // 2
            best = x.view(("index", (slice(0, pairs),)))
            second = select.multiply_bit(best, bit)
            first = comparison.add_words(best, linear.negative(second), g.bound)
            both = linear.stack([first, second], axis=1)
            both = both.view(("reshape", (2 * pairs, *shape)))
            odd = x.view(("index", (slice(pairs, None),)))
            x = linear.concatenate([both, odd]) if odd.shape[0] else both
            # Each gradient is an element of g or zero.
            x = x.with_integer_bound(g.bound)
        return x


def mean_of_first(x: Secret) -> Secret:
    """Return the mean along the first axis, with at most the session's fractional bits."""
    count = x.shape[0] if x.shape else 0
    if not count:
        raise ArgumentError(f"the mean needs at least one array, got shape {x.shape}")
    return mean_of_sum(linear.sum_along(x, 0), count, x.bound)


def mean_of_sum(total: Secret, count: int, bound: int) -> Secret:
    """Return the mean of `count` values up to `bound`, encoded, of which `total` is the sum."""
    power = count.bit_length() - 1
    frac_bits, fixed_point = total.frac_bits, total.session.format
    if count != 1 << power:
        return scaling.divide(total, count, "mean")
    # The sum is the mean with `power` more fractional bits.
    drop = max(0, frac_bits + power - fixed_point.frac_bits)
    bound = -(-bound << power >> drop)
    if not drop:
        return total.derive(total.shares, frac_bits=frac_bits + power, bound=total.bound)
    with total.session.protocol("mean"):
        y = truncation.divide_by_power(total, drop, frac_bits + power - drop)
        return y.with_integer_bound(bound)
