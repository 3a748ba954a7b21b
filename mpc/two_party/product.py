"""Elementwise products of shared numbers, from oblivious transfers.

x y = x_0 y_0 + x_1 y_1 + x_0 y_1 + x_1 y_0. For a cross term x w, the sender has x and the other party w:
1. Receiver: opens its 64 bits w_i under its choices, d_i.
2. Sender: for each i, E_i = P_d + x - P_(1 - d) modulo 2^(64 - i), and has -sum of 2^i P_d.
3. Receiver: has the sum of 2^i (P_c + w_i E_i).
Both cross terms go in the same two rounds. Bit i and bit 64 - i share a word.
Where w has fewer bits, as whole numbers below 2^bits do, only those are taken: the rest of the ring's
word costs nothing. Matrix products by this are too dear: each product of two numbers pays in full.
Cost for 64 bits: 2 rounds, 268 bytes an element from each party, 64 transfers in each direction.

Source: Gilboa 1999; Demmler, Schneider, Zohner 2015 (ABY, section 4.2) for the bits that are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import RangeError
from mpc.two_party.channel import trade
from mpc.two_party.cost import Cost
from mpc.two_party.pads import NumberPads, NumberPadsMade, narrow, widen
from mpc.two_party.pair import Pair, padded
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.threads import run
from ring.transpose import planes_of_rows, rows_of_planes

__all__ = ["cost", "cross_products", "multiply"]

Words = NDArray[np.uint64]

_HALF = WORD_BITS // 2


def _message_rows(bits: int) -> int:
    """Return how many rows of words hold the message: bits i and 64 - i in one."""
    return min(bits, _HALF + 1)


def _message_words(bits: int, size: int) -> int:
    """Return how many words are sent: of the row of bit 32 the lower half."""
    rows = _message_rows(bits)
    return rows * size - (size // 2 if rows > _HALF else 0)


def _packed(message: Words) -> Words:
    if len(message) <= _HALF:
        return message.reshape(-1)
    return np.concatenate([message[:_HALF].reshape(-1), narrow(message[_HALF], _HALF)])


def _unpacked(words: Words, bits: int, size: int) -> Words:
    if _message_rows(bits) <= _HALF:
        return words.reshape(bits, size)
    whole = words[: _HALF * size].reshape(_HALF, size)
    return np.concatenate([whole, widen(words[_HALF * size :], _HALF)[None]])


def cost(size: int, bits: tuple[int, int] = (WORD_BITS, WORD_BITS)) -> Cost:
    """Declare the cost of :func:`cross_products`, `bits` of the numbers of the first and second party."""
    words, total, sent = count_words(size), Cost(rounds=2), [0, 0]
    for sender in (0, 1):
        count = bits[1 - sender]
        if not count:
            continue
        total = total + NumberPads(words * count, sender).cost
        sent[1 - sender] += 8 * words * count
        sent[sender] += 8 * _message_words(count, WORD_BITS * words)
    return total + Cost(sent=(sent[0], sent[1]))


@kernel
def _hide(
    start: int, stop: int,
    x: Words, opened: Words, zero: Words, one: Words, bits: int, message: Words, out: Words,
) -> None:  # fmt: skip
    """Step 2; pads of bit i are those from i * x.size on, and message[j, e] holds bits j and 64 - j."""
    n = x.size
    for e in range(start, stop):
        total = np.uint64(0)
        for i in range(bits):
            shift = np.uint64(i)
            d = np.uint64(0) - (opened[e] >> shift & np.uint64(1))
            a, b = zero[i * n + e], one[i * n + e]
            swap = (a ^ b) & d
            of_zero, of_one = a ^ swap, b ^ swap
            total -= of_zero << shift
            hidden = of_zero + x[e] - of_one
            if i <= 32:
                # What is above 64 - i bits belongs to bit 64 - i.
                message[i, e] = hidden << shift >> shift
            else:
                message[64 - i, e] |= hidden << shift
        out[e] += total


@kernel
def _show(
    start: int, stop: int, w: Words, message: Words, chosen: Words, bits: int, out: Words
) -> None:
    """Step 3."""
    n = w.size
    for e in range(start, stop):
        total = np.uint64(0)
        for i in range(bits):
            shift = np.uint64(i)
            bit = np.uint64(0) - (w[e] >> shift & np.uint64(1))
            hidden = message[i, e] << shift if i <= 32 else message[64 - i, e] >> shift << shift
            total += (chosen[i * n + e] << shift) + (hidden & bit)
        out[e] += total


def cross_products(
    pair: Pair, numbers: Words, factors: Words, bits: tuple[int, int] = (WORD_BITS, WORD_BITS)
) -> Words:
    """Return shares of x_0 w_1 + x_1 w_0, (p, 64 words), where party i alone knows x_i and w_i.

    Parameters
    ----------
    numbers, factors : uint64 arrays of shape (p, 64 words)
        x and w of each party that lives here.
    bits : tuple of int
        Of w_0 and of w_1, which are below 2^bits; with 0 bits the term is left out.
    """
    if not all(0 <= count <= WORD_BITS for count in bits):
        raise RangeError(f"bits must be in [0, {WORD_BITS}], got {bits}")
    words, size = numbers.shape[1] // WORD_BITS, numbers.shape[1]
    made: list[NumberPadsMade | None] = [
        pair.take(NumberPads(words * bits[1 - sender], sender)) if bits[1 - sender] else None
        for sender in (0, 1)
    ]
    messages = {}
    for i, party in enumerate(pair.parties):
        mine, count = made[1 - party], bits[party]
        planes = np.empty((0, words), np.uint64)
        if mine is not None:
            assert mine.choices is not None
            planes = planes_of_rows(factors[i], count) ^ mine.choices.reshape(count, words)
        messages[party] = planes.reshape(-1)
    heard = trade(pair.channel, messages, (words * bits[0], words * bits[1]))

    out = np.zeros_like(numbers)
    for i, party in enumerate(pair.parties):
        mine, count = made[party], bits[1 - party]
        message = np.zeros((_message_rows(count), size), np.uint64)
        if mine is not None:
            planes = np.zeros((WORD_BITS, words), np.uint64)
            planes[:count] = heard[party].reshape(count, words)
            opened = rows_of_planes(planes).reshape(-1)
            run(
                _hide, size, 8 * count,
                numbers[i], opened, mine.zero, mine.one, count, message, out[i],
            )  # fmt: skip
        messages[party] = _packed(message)
    counts = [_message_words(bits[1 - sender], size) for sender in (0, 1)]
    heard = trade(pair.channel, messages, (counts[0], counts[1]))
    for i, party in enumerate(pair.parties):
        mine, count = made[1 - party], bits[party]
        if mine is not None:
            told = _unpacked(heard[party], count, size)
            run(_show, size, 8 * count, factors[i], told, mine.chosen, count, out[i])
    return out


def multiply(pair: Pair, x: Words, y: Words) -> Words:
    """Return shares of x y, (p, size), untruncated."""
    size = x.shape[1]
    x, y = padded(x, size), padded(y, size)
    return (x * y + cross_products(pair, x, y))[:, :size]
