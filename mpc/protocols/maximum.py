"""Maximum and minimum of two arrays, or along an axis.

max(x, y) = y + relu(x - y), without truncation, and |x| = 2 relu(x) - x, of x rounded once: 3 rounds.
Along an axis of k <= 16 values:
1. The one-hot vector of the largest: see :mod:`mpc.protocols.argmax`. 4 rounds for k = 10.
2. Its inner product with the values, which have their mask: 1 round.
Cost of the pairwise maximum: that of :mod:`mpc.protocols.relu` with s = 0 on the difference.
Exact for every value below 2^62. A difference may reach 2^63: it is taken as a signed word, and
y + relu(x - y) modulo 2^64 is in range again.

Source: max(x, y) = y + relu(x - y), as in SecureNN (Wagh, Gupta, Chandran 2019, section 4).
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.protocols import comparison, linear
from mpc.protocols.argmax import argmax_one_hot, sum_of_one
from mpc.protocols.product import multiply
from mpc.protocols.relu import relu
from mpc.protocols.truncation import kept, to_format

__all__ = ["absolute", "max_along", "maximum", "minimum"]


def maximum(x: Secret, y: Secret | ArrayLike) -> Secret:
    """Return the elementwise maximum."""
    if linear.is_zero(y):
        return relu(x)
    linear.check_operands("maximum", x, y)
    with x.session.protocol("maximum"):
        x = to_format(x)
        y = to_format(y) if linear.is_shared(y) else y
        difference = comparison.difference(x, y, "maximum")
        if not linear.is_shared(y):
            y = linear.add_public(linear.zeros_like(x), y)
        reach = max(v.bound << (difference.frac_bits - v.frac_bits) for v in (x, y))
        bound = min(LARGEST, reach)
        return comparison.add_words(relu(difference), y, bound)


def minimum(x: Secret, y: Secret | ArrayLike) -> Secret:
    """Return the elementwise minimum."""
    linear.check_operands("minimum", x, y)
    with x.session.protocol("maximum"):
        x = to_format(x)
        y = to_format(y) if linear.is_shared(y) else y
        return linear.negative(maximum(linear.negative(x), linear.negative(y)))


def absolute(x: Secret) -> Secret:
    """Return |x|, with at most the session's fractional bits."""
    with x.session.protocol("maximum"):
        positive = relu(x)
        # As ReLU has rounded it, or somebody before.
        x = kept(x)
        # Modulo 2^64: twice the positive part may exceed 2^62, the result does not.
        shares = positive.shares + positive.shares - x.shares
        return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound)


def max_along(x: Secret, axis: int) -> Secret:
    """Return the maximum along an axis."""
    with x.session.protocol("maximum"):
        x = to_format(x)
        chosen = multiply(argmax_one_hot(x, axis), x)
        return sum_of_one(chosen, axis)
