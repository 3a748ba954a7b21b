"""Exact rounding of a secret to whole numbers, and its sign.

1. y = x / 2^f, rounded up or down as a truncation does it: 1 round (:mod:`mpc.protocols.truncation`).
2. r = X - 2^f y, X being the encoded value, is in (-2^f, 2^f), and negative where y was rounded up.
3. floor x = y - [r < 0], by the bits of :mod:`mpc.protocols.thresholds`: 3 rounds.
Nearest, halves to even numbers: y = X / 2^(f + 1), r accordingly, and 2 y + s. With h = 2^f, s is -2 for
r <= -3 h / 2, -1 for r < -h / 2, 0 for r <= h / 2, 1 for r < 3 h / 2 and else 2. Nothing is added to X,
which may be next to the limit of the ring.
The sign is -1, 0 or 1 by the thresholds 0 and 1: 3 rounds.
Exact for every value. Results are whole numbers.
Cost of floor at f = 16: 4 rounds, about 17 (n - 1) bytes an element; correction about 30 bytes.

Source: a truncation corrected by a comparison, as in Catrina, de Hoogh 2010, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.core.cost import Spent
from mpc.core.secret_value import Secret
from mpc.protocols import linear, thresholds, truncation
from mpc.protocols.sign import count_bits

__all__ = ["ceil", "cost", "floor", "nearest", "sign"]


def cost(parties: int, size: int, frac_bits: int) -> Spent:
    """Declare the cost of floor for `size` elements."""
    window = count_bits(1 << frac_bits)
    return truncation.cost(parties, size, frac_bits) + thresholds.cost(parties, size, window, 1)


def _chosen(x: Secret, places: Sequence[int], values: Sequence[int]) -> Secret:
    """Return whole numbers by where the encoded value lies."""
    numbers = thresholds.below(x, places)
    found = thresholds.choose(x.session, numbers, np.array([values]))[:, 0]
    return x.derive(found.reshape(len(found), *x.shape), frac_bits=0, bound=max(map(abs, values)))


def _cut(x: Secret, bits: int) -> tuple[Secret, Secret]:
    """Steps 1 and 2: y, a whole number, and r."""
    y = truncation.divide_by_powers(x, [bits])[0]
    rest = x.shares - (y.shares << np.uint64(bits))
    return y, x.derive(rest, frac_bits=x.frac_bits, bound=1 << bits)


def floor(x: Secret) -> Secret:
    """Return the largest whole number that is not above x."""
    if not x.frac_bits:
        return x
    with x.session.protocol("rounding"):
        y, rest = _cut(x, x.frac_bits)
        return linear.add(y, _chosen(rest, (0,), (-1, 0)))


def ceil(x: Secret) -> Secret:
    """Return the smallest whole number that is not below x."""
    return linear.negative(floor(linear.negative(x))) if x.frac_bits else x


def nearest(x: Secret) -> Secret:
    """Return the nearest whole number; of two, the even one."""
    if not x.frac_bits:
        return x
    with x.session.protocol("rounding"):
        half = 1 << x.frac_bits - 1
        y, rest = _cut(x, x.frac_bits + 1)
        step = _chosen(rest, (1 - 3 * half, -half, half + 1, 3 * half), (-2, -1, 0, 1, 2))
        return linear.add(linear.multiply_integers(y, np.array(2)), step)


def sign(x: Secret) -> Secret:
    """Return -1, 0 or 1."""
    with x.session.protocol("rounding"):
        return _chosen(x, (0, 1), (-1, 0, 1))
