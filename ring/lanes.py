"""Short numbers, several to a word, each of which wraps around by itself.

A word has ``2**fold`` lanes of ``64 >> fold`` bits: lane i of a row is bits ``(i % 2**fold) * width``
and following of word ``i // 2**fold``. Lanes behind the last number carry no meaning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ring.compile import kernel

__all__ = ["count_lane_words", "fold_of", "lane"]

Words = NDArray[np.uint64]

LARGEST_FOLD = 2


def fold_of(bits: int) -> int:
    """Return the fold of the narrowest lanes that hold `bits` bits: of 16, 32 or 64.

    Examples
    --------
    >>> from ring.lanes import fold_of
    >>> fold_of(16), fold_of(17), fold_of(33)
    (2, 1, 0)
    """
    return sum(bits <= 64 >> fold for fold in range(1, LARGEST_FOLD + 1))


def count_lane_words(lanes: int, fold: int) -> int:
    """Return how many words hold so many lanes.

    Examples
    --------
    >>> from ring.lanes import count_lane_words
    >>> count_lane_words(5, fold=2)
    2
    """
    return -(-lanes // (1 << fold))


@kernel
def lane(words: Words, i: np.uint64, fold: int) -> np.uint64:
    """Return lane i of a row in the lowest bits; what is above belongs to other lanes.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.lanes import lane
    >>> hex(lane(np.array([0x0004_0003_0002_0001], np.uint64), np.uint64(1), 2) & 0xFFFF)
    '0x2'
    """
    within = i & ((np.uint64(1) << np.uint64(fold)) - np.uint64(1))
    return words[i >> np.uint64(fold)] >> (within << np.uint64(6 - fold))
