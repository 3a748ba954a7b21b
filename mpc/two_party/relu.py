"""ReLU, fused with truncation by s bits, on the parties' own shares.

1. XOR shares of [y < 1] for the truncated y, and [y]: :mod:`mpc.two_party.sign`. 5 rounds at L = 32.
2. b = 1 ^ that: the derivative, 0 at 0 as in the clear.
3. [b y], two products of one party's number with the other's bit: :mod:`mpc.two_party.pads`, 2 rounds.
   Nothing is lost by [y >= 1], since relu(0) = 0 y.
y is z / 2^s, rounded as :mod:`mpc.two_party.truncation` does it.
Cost at L = 32, s = 16: 7 rounds, 38.5 bytes from the first party and 14.4 from the second an element; 48
transfers (40 in which the first sends), and ahead 2 bytes from the first.

Source: the parts'; the product with a bit shared by XOR: Rathee et al. 2020 (CrypTFlow2, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import sign
from mpc.two_party.cost import Cost
from mpc.two_party.pads import times_bit, times_bit_cost
from mpc.two_party.pair import Pair
from ring.bits import count_words

__all__ = ["cost", "relu_and_bits", "relu_with_derivative"]

Words = NDArray[np.uint64]


def cost(size: int, bits: int, shift: int) -> Cost:
    """Declare the cost for `size` elements."""
    return sign.cost(size, bits, shift) + times_bit_cost(count_words(size))


def complement(pair: Pair, bits: Words) -> Words:
    """Negate XOR shares."""
    out = bits.copy()
    for i, party in enumerate(pair.parties):
        if party == 0:
            out[i] = ~bits[i]
    return out


def relu_with_derivative(pair: Pair, z: Words, bits: int, shift: int = 0) -> tuple[Words, Words]:
    """Return shares of max(y, 0), (p, size), and XOR shares of y > 0, (p, words), for y = z / 2^shift.

    Parameters
    ----------
    bits : int
        L: y - 1 and y, rounded up too, are in [-2^(L - 1), 2^(L - 1)).
    """
    return relu_and_bits(pair, z, bits, shift, ())[:2]


def relu_and_bits(
    pair: Pair, z: Words, bits: int, shift: int, others: Sequence[int]
) -> tuple[Words, Words, Words, Words]:
    """Return the same, XOR shares of y < t for 1 and each t of `others`, (p, 1 + others, words), and of y.

    Every y - t is in [-2^(L - 1), 2^(L - 1)), too.
    """
    low, y = sign.sign(pair, z, bits, shift, (1, *others))
    derivative = complement(pair, low[:, 0])
    return times_bit(pair, y, derivative)[:, : z.shape[1]], derivative, low, y
