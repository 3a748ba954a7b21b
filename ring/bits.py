"""Small values packed into 64-bit words: bit planes, polynomials over GF(2) on them, and lanes.

A plane holds one bit of every element: element e is bit ``e % 64`` of word ``e // 64``. Bits after
the last element are padding of any value.

Lanes are integers of 16 or 32 bits, each wrapping around on its own. A word has ``2**fold`` lanes of
``width = 64 >> fold`` bits: lane i of a row begins at bit ``(i % 2**fold) * width`` of word
``i // 2**fold``. Lanes after the last number are padding of any value.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ring.compile import kernel
from ring.errors import ArgumentError, DtypeError
from ring.real_arrays import plain_array
from ring.threads import run

__all__ = [
    "add_polynomials", "count_lane_words", "count_words", "fold_of", "lane", "pack_bits", "unpack_bits",
]  # fmt: skip

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

WORD_BITS = 64
LARGEST_FOLD = 2


def count_words(bits: int) -> int:
    """Return how many words hold a plane of `bits` bits."""
    return -(-bits // WORD_BITS)


def pack_bits(bits: ArrayLike) -> Words:
    """Pack bits along the last axis into words.

    Parameters
    ----------
    bits : array of bools or of zeros and ones, shape (..., n)

    Returns
    -------
    uint64 array of shape (..., ceil(n / 64))

    Raises
    ------
    DtypeError, ArgumentError
        If `bits` holds anything else, or is a scalar.

    Examples
    --------
    >>> from ring import pack_bits
    >>> pack_bits([1, 0, 1])
    array([5], dtype=uint64)
    """
    values = plain_array(bits, "bits")
    if values.dtype.kind not in "biu":
        raise DtypeError(f"bits must be bools or integers, got dtype {values.dtype}")
    if values.ndim == 0:
        raise ArgumentError("bits must have at least one axis, got a scalar")
    if values.dtype.kind != "b" and np.any((values != 0) & (values != 1)):
        raise ArgumentError("bits must be zeros and ones")
    packed = np.packbits(values.astype(bool), axis=-1, bitorder="little")
    out = np.zeros((*values.shape[:-1], 8 * count_words(values.shape[-1])), np.uint8)
    out[..., : packed.shape[-1]] = packed
    return out.view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: Words, count: int) -> NDArray[np.uint8]:
    """Unpack words into `count` bits along the last axis; the inverse of :func:`pack_bits`.

    Parameters
    ----------
    words : uint64 array of shape (..., w)
    count : int
        At most 64 w.

    Returns
    -------
    uint8 array of zeros and ones, shape (..., count)

    Raises
    ------
    DtypeError, ArgumentError
        If `words` is not uint64, is a scalar, or holds fewer bits, or `count` is no whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from ring import unpack_bits
    >>> unpack_bits(np.array([5], np.uint64), 3)
    array([1, 0, 1], dtype=uint8)
    """
    words = plain_array(words, "words")
    if words.dtype != np.uint64:
        raise DtypeError(f"words must be a uint64 array, got dtype {words.dtype}")
    if words.ndim == 0:
        raise ArgumentError("words must have at least one axis, got a scalar")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise DtypeError(f"count must be a whole number, got {count!r}")
    if not 0 <= count <= WORD_BITS * words.shape[-1]:
        raise ArgumentError(f"count must be in [0, {WORD_BITS * words.shape[-1]}], got {count}")
    flat = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    # np.unpackbits wants a non-empty axis.
    if not flat.size or not count:
        return np.zeros((*words.shape[:-1], count), np.uint8)
    return np.unpackbits(flat, axis=-1, bitorder="little", count=count)


@kernel
def _add_polynomials(
    start: int, stop: int,
    planes: Words, secrets: Words, more: Words,
    outputs: Indices, factors: Indices, places: Indices, literals: Indices, out: Words,
) -> None:  # fmt: skip
    # As much as stays in the first-level cache beside the planes.
    block = 256
    term = np.empty(block, np.uint64)
    ones = ~np.uint64(0)
    for left in range(start, stop, block):
        width = min(block, stop - left)
        for t in range(outputs.size):
            factor = factors[t]
            if factor >= secrets.shape[0]:
                secret = more[factor - secrets.shape[0], left : left + width]
                for w in range(width):
                    term[w] = secret[w]
            elif factor >= 0:
                secret = secrets[factor, left : left + width]
                for w in range(width):
                    term[w] = secret[w]
            else:
                for w in range(width):
                    term[w] = ones
            for k in range(places[t], places[t + 1]):
                # A literal is a plane's index, or its complement (~k) for the negated plane.
                literal = literals[k]
                flip = ones if literal < 0 else np.uint64(0)
                plane = planes[~literal if literal < 0 else literal, left : left + width]
                for w in range(width):
                    term[w] &= plane[w] ^ flip
            target = out[outputs[t], left : left + width]
            for w in range(width):
                target[w] ^= term[w]


def add_polynomials(
    planes: Words,
    secrets: Words,
    outputs: Indices,
    factors: Indices,
    places: Indices,
    literals: Indices,
    out: Words,
    more: Words | None = None,
) -> None:
    """Add (XOR) sums of products of planes to `out`.

    Term t adds to ``out[outputs[t]]`` the AND of ``secrets[factors[t]]`` (all ones for -1) and of
    the planes ``literals[places[t]:places[t + 1]]``, where ~k stands for the complement of plane k.

    Parameters
    ----------
    planes, secrets, out : uint64 arrays of shape (number of planes, words), contiguous
    outputs, factors : int64 arrays of shape (terms,)
    places : int64 array of shape (terms + 1,)
    literals : int64 array of shape (places[-1],)
    more : uint64 array of shape (number of planes, words), contiguous, optional
        Planes that follow those of `secrets`.
    """
    rest = planes[:0] if more is None else more
    run(
        _add_polynomials, out.shape[1], 2 * (literals.size + 2 * outputs.size) // 8 + 1,
        planes, secrets, rest, outputs, factors, places, literals, out,
        multiple=64,
    )  # fmt: skip


@lru_cache(maxsize=WORD_BITS)
def fold_of(bits: int) -> int:
    """Return log2 of the lanes in a word, for the narrowest lanes (16, 32, 64 bits) holding `bits` bits.

    Examples
    --------
    >>> from ring.bits import fold_of
    >>> fold_of(16), fold_of(17), fold_of(33)
    (2, 1, 0)
    """
    return sum(bits <= 64 >> fold for fold in range(1, LARGEST_FOLD + 1))


def count_lane_words(lanes: int, fold: int) -> int:
    """Return how many words hold `lanes` lanes.

    Examples
    --------
    >>> from ring.bits import count_lane_words
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
    >>> from ring.bits import lane
    >>> hex(lane(np.array([0x0004_0003_0002_0001], np.uint64), np.uint64(1), 2) & 0xFFFF)
    '0x2'
    """
    within = i & ((np.uint64(1) << np.uint64(fold)) - np.uint64(1))
    return words[i >> np.uint64(fold)] >> (within << np.uint64(6 - fold))
