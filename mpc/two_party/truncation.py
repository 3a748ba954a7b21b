"""Truncation by s bits, on the parties' own shares: nothing is opened.

Needs |z| < 2^62 and 0 < s < 62.
1. A_0 = (z_0 + 2^62 - 1) >> s, A_1 = z_1 >> s; m_0 and m_1 are the top bits of what is shifted. Since
   z + 2^62 - 1 is in [0, 2^63), the sum wraps around where m_0 or m_1 is 1: w = m_0 + m_1 - m_0 m_1.
2. Both exchange m_i under the bits of a correlation [a b], and have [m_0 m_1] modulo 2^s:
   :mod:`mpc.two_party.pads`, `BitPairs`.
3. [y] = A_0 + A_1 + 1 - 2^(62 - s) - 2^(64 - s) [w].
y is floor(z / 2^s) or that plus 1, the latter with probability (z mod 2^s) / 2^s exactly, over z_0: as in
:mod:`mpc.protocols.truncation`. So z_0 modulo 2^s has to be uniform and to serve no other value: shares of
a value that a party has given come from a stream, never from the value itself and a zero.
It goes up if z mod 2^s is more than (z_0 - 1) mod 2^s, which the first party knows, as the second knows
z_1: whoever learns y and is one of them learns of z as much as with a public offset.
Cost: 1 round, 1 bit each an element; ahead one transfer an element, in which the first party sends,
and s bits, in lanes of 8, 16, 32 or 64.

Source: the wrap from the top bits: Rathee et al. 2020 (CrypTFlow2, appendix A) and Huang et al. 2022
(Cheetah, section 5.1), here with an offset that makes the rounding unbiased and exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import RangeError
from mpc.two_party.channel import exchange
from mpc.two_party.cost import Cost
from mpc.two_party.pads import BitPairs, product_of_bits
from mpc.two_party.pair import Pair, padded
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.threads import run

__all__ = ["check_shift", "cost", "finish", "shift_shares", "truncate"]

Words = NDArray[np.uint64]

OFFSET_BITS = 62


def check_shift(shift: int, least: int = 1) -> None:
    """Refuse a shift that truncation is not for."""
    if not least <= shift < OFFSET_BITS:
        raise RangeError(f"shift must be in [{least}, {OFFSET_BITS}), got {shift}")


@kernel
def _shift(
    start: int, stop: int, z: Words, shift: int, first: bool, high: Words, top: Words
) -> None:
    """Step 1, for the words [start, stop) of planes."""
    offset = (np.uint64(1) << np.uint64(62)) - np.uint64(1) if first else np.uint64(0)
    for w in range(start, stop):
        bits = np.uint64(0)
        for b in range(64):
            value = z[64 * w + b] + offset
            high[64 * w + b] = value >> np.uint64(shift)
            bits |= (value >> np.uint64(63)) << np.uint64(b)
        top[w] = bits


@kernel
def _finish(
    start: int,
    stop: int,
    high: Words,
    top: Words,
    product: Words,
    shift: int,
    first: bool,
    out: Words,
) -> None:
    """Step 3."""
    one = np.uint64(1)
    turn = one - (one << np.uint64(62 - shift)) if first else np.uint64(0)
    for e in range(start, stop):
        i = np.uint64(e)
        bit = top[i >> np.uint64(6)] >> (i & np.uint64(63)) & one
        out[e] = high[e] + turn - ((bit - product[e]) << np.uint64(64 - shift))


def shift_shares(pair: Pair, z: Words, shift: int) -> tuple[Words, Words]:
    """Step 1: A of shape (p, 64 words) and planes of m, (p, words), for shares of shape (p, 64 words)."""
    high = np.empty_like(z)
    top = np.empty((len(z), z.shape[1] // WORD_BITS), np.uint64)
    for i, party in enumerate(pair.parties):
        run(_shift, top.shape[1], 256, z[i], shift, party == 0, high[i], top[i])
    return high, top


def finish(pair: Pair, high: Words, top: Words, product: Words, shift: int) -> Words:
    """Step 3: shares of y, from step 1 and shares of m_0 m_1."""
    out = np.empty_like(high)
    for i, party in enumerate(pair.parties):
        run(_finish, high.shape[1], 8, high[i], top[i], product[i], shift, party == 0, out[i])
    return out


def cost(size: int, shift: int) -> Cost:
    """Declare the cost for `size` elements."""
    words = count_words(size)
    return BitPairs(words, shift).cost + Cost(rounds=1, sent=(8 * words, 8 * words))


def truncate(pair: Pair, z: Words, shift: int) -> Words:
    """Return shares of z / 2^shift, (p, size), for shares of z, |z| < 2^62."""
    check_shift(shift)
    size = z.shape[1]
    high, top = shift_shares(pair, padded(z, size), shift)
    made = pair.take(BitPairs(top.shape[1], shift))
    mine = top ^ made.bit
    product = product_of_bits(pair, made, mine, exchange(pair.channel, mine))
    return finish(pair, high, top, product, shift)[:, :size]
