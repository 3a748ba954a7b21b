"""The sign of a truncated value, and equality to zero, on the parties' own shares.

For z with y = z / 2^s in L signed bits, rounded up too, L <= 64 - s; s = 0 and L = 64 take any signed word.
1. A_0, A_1 and the top bits m_0, m_1 as in :mod:`mpc.two_party.truncation`; for s = 0 A_i = z_i.
2. alpha = A_0 + 1 - 2^(62 - s) - t, or z_0 - t for s = 0, and beta = A_1, modulo 2^L: y - t = alpha + beta.
   What is lost by a wrap is a multiple of 2^(64 - s).
3. msb(y - t) = msb(alpha) ^ msb(beta) ^ [a > b], where a = alpha mod 2^(L - 1) and b is the complement of
   beta in L - 1 bits: :mod:`mpc.two_party.private_comparison`. With K thresholds t the second party's
   messages serve all. What truncation exchanges goes with the first two messages.
4. [y] as in truncation. To compare with t = 1 gives the sign of y - 1, so y < 1.
Equality to zero for |z| < 2^(L - 1): alpha = -beta, all L bits.
Cost at L = 32, s = 16: 5 rounds, 28.1 bytes from the first party and 4 from the second, and in three of
the rounds 18 bits from each; transfers 31 + 1 + 7 in which the first sends, 7 in which the second does.

Source: Rathee et al. 2020 (CrypTFlow2, sections 3 and 4); both numbers come from one cut, so that sign and
value are those of one y.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import RangeError
from mpc.two_party import private_comparison
from mpc.two_party.cost import Cost
from mpc.two_party.pads import BitPairs, product_of_bits
from mpc.two_party.pair import Pair, padded
from mpc.two_party.truncation import OFFSET_BITS, check_shift, finish, shift_shares
from ring.bits import WORD_BITS, count_words
from ring.transpose import planes_of_rows

__all__ = ["check_window", "cost", "is_zero", "sign"]

Words = NDArray[np.uint64]


def check_window(bits: int, shift: int) -> None:
    """Refuse a window that does not fit."""
    check_shift(shift, 0)
    if not 2 <= bits <= WORD_BITS - shift:
        raise RangeError(
            f"bits must be in [2, {WORD_BITS - shift}] with a shift of {shift}, got {bits}"
        )


def cost(size: int, bits: int, shift: int, thresholds: int = 1) -> Cost:
    """Declare the cost for `size` elements, each against so many thresholds."""
    words = count_words(size)
    extra = words if shift else 0
    total = private_comparison.cost(words, bits - 1, thresholds, extra=extra)
    return total + (BitPairs(words, shift).cost if shift else Cost())


def _less(turn: int, threshold: int | Words, size: int) -> Words:
    """Return what the first party adds to its numbers: `turn` less the threshold, modulo 2^64."""
    if not isinstance(threshold, np.ndarray):
        return np.full(1, (turn - threshold) % 2**64, np.uint64)
    out = np.full(size, turn % 2**64, np.uint64)
    out[: threshold.size] -= threshold
    return out


def sign(
    pair: Pair, z: Words, bits: int, shift: int = 0, thresholds: Sequence[int | Words] = (0,)
) -> tuple[Words, Words]:
    """Share the bits of y < t for each threshold t, and y.

    A threshold is a number, or an array of words, one for each element.

    Parameters
    ----------
    z : uint64 array of shape (p, size)
    bits : int
        L: every y - t is in [-2^(L - 1), 2^(L - 1)).
    shift : int
        s; above zero needs |z| < 2^62.

    Returns
    -------
    bits : uint64 array of shape (p, thresholds, words)
        XOR shares.
    y : uint64 array of shape (p, 64 words)
        Shares of y, with those of zeros behind the last.
    """
    check_window(bits, shift)
    words = count_words(z.shape[1])
    z = padded(z, z.shape[1])
    made = None
    high, more = z, np.empty((len(z), 0), np.uint64)
    top = more
    if shift:
        high, top = shift_shares(pair, z, shift)
        made = pair.take(BitPairs(words, shift))
        more = top ^ made.bit
    first, second = None, None
    turn = 1 - (1 << OFFSET_BITS - shift) if shift else 0
    tops = np.empty((len(z), len(thresholds), words), np.uint64)
    for i, party in enumerate(pair.parties):
        if party == 0:
            first = np.stack([high[i] + _less(turn, t, z.shape[1]) for t in thresholds])
            numbers = list(first)
        else:
            second = ~high[i]
            numbers = [high[i]]
        for k, number in enumerate(numbers):
            top_bits = number >> np.uint64(bits - 1)
            tops[i, k if party == 0 else slice(None)] = planes_of_rows(top_bits, 1)
    carry, got = private_comparison.greater(
        pair, first, second, words, bits - 1, more, len(thresholds)
    )
    if made is None:
        return carry ^ tops, z
    product = product_of_bits(pair, made, more, got)
    return carry ^ tops, finish(pair, high, top, product, shift)


def zero_cost(size: int, bits: int) -> Cost:
    """Declare the cost of :func:`is_zero`."""
    return private_comparison.cost(count_words(size), bits, ordered=False)


def is_zero(pair: Pair, z: Words, bits: int) -> Words:
    """Share z = 0, as (p, words), for z in `bits` signed bits."""
    check_window(bits, 0)
    words = count_words(z.shape[1])
    z = padded(z, z.shape[1])
    first, second = None, None
    for i, party in enumerate(pair.parties):
        if party == 0:
            first = z[i]
        else:
            second = np.uint64(0) - z[i]
    return private_comparison.equal(pair, first, second, words, bits)
