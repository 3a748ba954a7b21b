"""Where a number lies among public thresholds, on the parties' own shares.

For thresholds t_1 ... t_K, in any order:
1. XOR shares of [y < t_k] for all k: :mod:`mpc.two_party.sign`. The second party's digits are looked up
   in K tables each, so its L - 1 transfers and its message serve all thresholds.
2. They become numbers [b_k]: 1 round (:mod:`mpc.two_party.convert`).
3. Values chosen by the place of y are sums over k of public differences times [b_k]: local, as in
   :mod:`mpc.protocols.thresholds`.
Cost at L = 36, s = 0, K = 20: 7 rounds, 692 bytes from the first party and 56 from the second an
element; 35 + 180 transfers in which the first party sends and 160 in which the second does.

Source: the tables of all thresholds at one place: ours; else see :mod:`mpc.two_party.sign`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import convert, sign
from mpc.two_party.cost import Cost
from mpc.two_party.pair import Pair
from ring.bits import WORD_BITS, count_words

__all__ = ["below", "cost"]

Words = NDArray[np.uint64]


def cost(size: int, bits: int, shift: int, thresholds: int) -> Cost:
    """Declare the cost for `size` elements."""
    conversion = convert.cost(thresholds * count_words(size) * WORD_BITS)
    return sign.cost(size, bits, shift, thresholds) + conversion


def below(
    pair: Pair, z: Words, thresholds: Sequence[int], bits: int, shift: int = 0
) -> tuple[Words, Words]:
    """Return shares of the numbers [y < t], (p, thresholds, size), and of y, (p, size), y = z / 2^shift.

    Parameters
    ----------
    bits : int
        L: every y - t is in [-2^(L - 1), 2^(L - 1)).
    """
    size, count = z.shape[1], len(thresholds)
    planes, y = sign.sign(pair, z, bits, shift, thresholds)
    words = count_words(size)
    flat = planes.reshape(len(planes), count * words)
    numbers = convert.to_number(pair, flat, WORD_BITS * count * words)
    return numbers.reshape(len(planes), count, WORD_BITS * words)[..., :size], y[:, :size]
