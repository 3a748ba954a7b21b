"""Lanes: integers of 16 or 32 bits packed into 64-bit words, each wrapping around on its own.

A word has ``2**fold`` lanes of ``width = 64 >> fold`` bits: lane i of a row begins at bit
``(i % 2**fold) * width`` of word ``i // 2**fold``. Lanes after the last number are padding of any value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ring.compile import kernel

__all__ = ["count_lane_words", "fold_of", "lane"]

Words = NDArray[np.uint64]

LARGEST_FOLD = 2


def fold_of(bits: int) -> int:
    """Return log2 of the lanes in a word, for the narrowest lanes (16, 32, 64 bits) holding `bits` bits.

    Examples
    --------
    >>> from ring.lanes import fold_of
    >>> fold_of(16), fold_of(17), fold_of(33)
    (2, 1, 0)
    """
    return sum(bits <= 64 >> fold for fold in range(1, LARGEST_FOLD + 1))


def count_lane_words(lanes: int, fold: int) -> int:
    """Return how many words hold `lanes` lanes.

    Examples
    --------
    >>> from ring.lanes import count_lane_words
    >>> count_lane_words(5, fold=2)
    2
    """
    return -(-lanes // (1 << fold))


@kernel
def lane(words: Words, i: np.uint64, fold: int) -> np.uint64:
    """Return lane i of a row in the lowest bits; the bits above belong to other lanes.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.lanes import lane
    >>> hex(lane(np.array([0x0004_0003_0002_0001], np.uint64), np.uint64(1), 2) & 0xFFFF)
    '0x2'
    """
    within = i & ((np.uint64(1) << np.uint64(fold)) - np.uint64(1))
    return words[i >> np.uint64(fold)] >> (within << np.uint64(6 - fold))
