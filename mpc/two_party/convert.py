"""From bits shared by XOR to the same bits as additively shared numbers.

1. Both exchange b_i under the bits of a correlation [a b] modulo 2^64, and have [b_0 b_1]:
   :mod:`mpc.two_party.pads`, `BitPairs`.
2. [b] = b_0 + b_1 - 2 [b_0 b_1].
Cost: 1 round, 1 bit each an element; ahead one transfer, in which the first party sends, and 8 bytes.

Source: Gilboa 1999; b_0 ^ b_1 = b_0 + b_1 - 2 b_0 b_1: Demmler, Schneider, Zohner 2015 (ABY, section 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.channel import exchange
from mpc.two_party.cost import Cost
from mpc.two_party.pads import BitPairs, product_of_bits
from mpc.two_party.pair import Pair
from ring.bits import WORD_BITS, count_words, unpack_bits

__all__ = ["cost", "to_number"]

Words = NDArray[np.uint64]


def cost(size: int) -> Cost:
    """Declare the cost for `size` bits."""
    words = count_words(size)
    return BitPairs(words, WORD_BITS).cost + Cost(rounds=1, sent=(8 * words, 8 * words))


def to_number(pair: Pair, bits: Words, size: int) -> Words:
    """Return additive shares, (p, size), of zeros and ones with XOR shares of shape (p, words)."""
    made = pair.take(BitPairs(bits.shape[1], WORD_BITS))
    mine = bits ^ made.bit
    product = product_of_bits(pair, made, mine, exchange(pair.channel, mine))
    own = unpack_bits(bits, WORD_BITS * bits.shape[1]).astype(np.uint64)
    return (own - (product + product))[:, :size]
