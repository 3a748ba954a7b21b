"""Numbers of a fixed width one after the other, as a stream of bits in words.

Number i takes the bits ``i * width`` to ``(i + 1) * width``, bit b of the stream being bit ``b % 64``
of word ``b // 64``. Bits behind the last number are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.errors import ArgumentError
from ring.threads import run

__all__ = ["count_field_words", "pack_fields", "unpack_fields"]

Words = NDArray[np.uint64]


def count_field_words(count: int, width: int) -> int:
    """Return how many words hold `count` numbers of `width` bits."""
    return -(-count * width // WORD_BITS)


@kernel
def _pack(start: int, stop: int, values: Words, width: int, out: Words) -> None:
    """Pack the numbers `start` to `stop`, the first of which begins a word."""
    full = np.uint64(WORD_BITS)
    at, used, word = start * width // WORD_BITS, np.uint64(0), np.uint64(0)
    for i in range(start, stop):
        value = values[i]
        word |= value << used
        used += np.uint64(width)
        if used >= full:
            out[at] = word
            at += 1
            used -= full
            # What the word could not hold, if anything: a shift by 64 is none.
            word = value >> (np.uint64(width) - used) if used else np.uint64(0)
    if used:
        out[at] = word


@kernel
def _unpack(start: int, stop: int, words: Words, width: int, out: Words) -> None:
    mask = np.uint64(2**64 - 1) >> np.uint64(WORD_BITS - width)
    last = np.uint64(words.size - 1)
    some, step = out[start:stop], np.uint64(width)
    bit = np.uint64(start) * step
    for i in range(some.size):
        at, shift = bit >> np.uint64(6), bit & np.uint64(63)
        # The word after it, shifted in two steps: by 64 at once would be none.
        after = words[min(at + np.uint64(1), last)] << np.uint64(1) << (np.uint64(63) - shift)
        some[i] = (words[at] >> shift | after) & mask
        bit += step


def _check(width: int) -> None:
    if not 1 <= width <= WORD_BITS:
        raise ArgumentError(f"width must be in [1, {WORD_BITS}], got {width}")


def pack_fields(values: Words, width: int) -> Words:
    """Pack numbers below 2^width, of any shape, into words."""
    _check(width)
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(count_field_words(flat.size, width), np.uint64)
    run(_pack, flat.size, 4, flat, width, out, multiple=WORD_BITS)
    return out


def unpack_fields(words: Words, count: int, width: int) -> Words:
    """Unpack `count` numbers; the inverse of :func:`pack_fields`.

    Raises
    ------
    ArgumentError
        If there are not as many words as that takes, or a bit behind the last number is set.
    """
    _check(width)
    expected = count_field_words(count, width)
    if words.shape != (expected,):
        raise ArgumentError(
            f"{count} numbers of {width} bits take {expected} words, got {words.size}"
        )
    used = count * width % WORD_BITS
    if used and int(words[-1]) >> used:
        raise ArgumentError("bits behind the last number must be zero")
    out = np.empty(count, np.uint64)
    run(_unpack, count, 4, np.ascontiguousarray(words), width, out)
    return out
