"""A number times a bit, and both with truncation, on the parties' own shares.

Select: [b g] for XOR shares of b and additive shares of g.
1. b g = b_0 g_0 + b_1 (1 - 2 b_0) g_0 + b_1 g_1 + b_0 (1 - 2 b_1) g_1. The first and third term are local;
   the others are a number of one party times a bit of the other: :mod:`mpc.two_party.pads`. 2 rounds.
Gate, ReLU's way back: z is truncated first (:mod:`mpc.two_party.truncation`, 1 round), with the same
rounding, then selected.
Cost of select: 2 rounds, 8 bytes and 1 bit from each party an element, one transfer in each direction. Of
gate: those of both.

Source: Rathee et al. 2020 (CrypTFlow2, section 4.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import truncation
from mpc.two_party.cost import Cost
from mpc.two_party.pads import times_bit, times_bit_cost
from mpc.two_party.pair import Pair, padded
from ring.bits import count_words

__all__ = ["gate", "gate_cost", "select", "select_cost"]

Words = NDArray[np.uint64]


def select_cost(size: int) -> Cost:
    """Declare the cost of :func:`select` for `size` elements."""
    return times_bit_cost(count_words(size))


def gate_cost(size: int, shift: int) -> Cost:
    """Declare the cost of :func:`gate` for `size` elements."""
    return truncation.cost(size, shift) + select_cost(size)


def select(pair: Pair, numbers: Words, bits: Words) -> Words:
    """Return shares of g where b is 1, and of 0 elsewhere: (p, size), for bits of shape (p, words)."""
    size = numbers.shape[1]
    return times_bit(pair, padded(numbers, size), bits)[:, :size]


def gate(pair: Pair, z: Words, bits: Words, shift: int) -> tuple[Words, Words]:
    """Return shares of y = z / 2^shift where b is 1, and of 0 elsewhere, |z| < 2^62; and of y."""
    y = truncation.truncate(pair, z, shift)
    return select(pair, y, bits), y
