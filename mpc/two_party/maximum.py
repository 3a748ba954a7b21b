"""The largest of some values and where it is, on the parties' own shares.

For rows of k values, in groups of at most G, 4 by default:
1. All pairs of a group at once: XOR shares of [s_a < s_b] (:mod:`mpc.two_party.sign`). A value wins if it
   beats every other of its group; of equal ones the one with the lower index does.
2. The products of those bits: ceil(log2(G - 1)) rounds, none for G = 2.
3. The largest value, s_0 + sum of [wins_a (s_a - s_0)] over the others: :mod:`mpc.two_party.select`, 2
   rounds.
4. The largest values of all groups likewise, until one is left.
5. A value is the largest if it wins in its group and its group wins: a product of bits for every value
   and level. Step 4 does not wait for it.
A larger G takes fewer rounds and more bytes: the one-hot vectors for k = 10 and L = 36 take 33 rounds with
G = 2, 18 with 4 and 10 with 16, and of the first party 465, 806 and 1572 bytes a row.
Exact for every value below 2^62: the difference, below 2^63, is a signed word.
Cost: see `cost`.

Source: a tournament with groups; all pairs at once as in :mod:`mpc.protocols.argmax`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError
from mpc.two_party import select, sign
from mpc.two_party.cost import Cost
from mpc.two_party.pads import and_cost, and_planes
from mpc.two_party.pair import Pair
from mpc.two_party.relu import complement
from ring.bits import count_words, pack_bits, unpack_bits

__all__ = ["argmax", "cost", "maximum"]

Words = NDArray[np.uint64]

GROUP = 4


def _to_planes(words: Words, planes: int, size: int) -> Words:
    """Cut (p, words) with planes * size bits into planes of their own words."""
    flat = unpack_bits(words, planes * size)
    return pack_bits(flat.reshape(len(words), planes, size))


def _from_planes(planes: Words, size: int) -> Words:
    """Undo it: (p, planes, words) to (p, words)."""
    flat = unpack_bits(planes, size)
    return pack_bits(flat.reshape(len(planes), planes.shape[1] * size))


def _groups(k: int, group: int) -> tuple[int, int]:
    """Return how many groups k values make, and of how many each."""
    count = -(-k // group)
    return count, -(-k // count)


def cost(k: int, size: int, bits: int, group: int = GROUP, *, value: bool = True) -> Cost:
    """Declare the cost of :func:`maximum` for `size` rows of k values, or of :func:`argmax`."""
    if k == 1:
        return Cost()
    count, width = _groups(k, group)
    total = sign.cost(width * (width - 1) // 2 * count * size, bits, 0)
    words, left = count_words(count * size), width - 1
    while left > 1:
        total = total + and_cost(width * (left // 2) * words)
        left -= left // 2
    if value or count > 1:
        total = total + select.select_cost((width - 1) * count * size)
    total = total + cost(count, size, bits, group, value=value)
    if count > 1 and not value:
        total = total + and_cost(k * count_words(size))
    return total


def _winners(pair: Pair, s: Words, bits: int) -> Words:
    """Steps 1 and 2: which of the values (p, k, size) wins, as planes (p, k, words)."""
    p, k, size = s.shape
    ends = list(combinations(range(k), 2))
    first, second = [a for a, _ in ends], [b for _, b in ends]
    differences = (s[:, first] - s[:, second]).reshape(p, len(ends) * size)
    less, _ = sign.sign(pair, differences, bits)
    planes = _to_planes(less[:, 0], len(ends), size)
    negated = complement(pair, planes)
    # For each value the bits that must all be set.
    sets = [
        [
            negated[:, n] if a == value else planes[:, n]
            for n, (a, b) in enumerate(ends)
            if value in (a, b)
        ]
        for value in range(k)
    ]
    while len(sets[0]) > 1:
        pairs = len(sets[0]) // 2
        x = np.stack([some[2 * j] for some in sets for j in range(pairs)], axis=1)
        y = np.stack([some[2 * j + 1] for some in sets for j in range(pairs)], axis=1)
        (both,) = and_planes(pair, x, y)
        sets = [
            [both[:, v * pairs + j] for j in range(pairs)] + some[2 * pairs :]
            for v, some in enumerate(sets)
        ]
    return np.stack([some[0] for some in sets], axis=1)


def _level(pair: Pair, s: Words, bits: int, group: int, wanted: bool) -> tuple[Words, Words]:
    """Decide groups of the values (p, k, size).

    Returns the winning bits (p, count, group, words) and the largest of each, (p, count, size), with
    the last group filled up with copies of its first value, which never win.
    """
    p, k, size = s.shape
    count, width = _groups(k, group)
    source = np.arange(count * width).reshape(count, width)
    source = np.where(source < k, source, np.minimum(source[:, :1], k - 1))
    # Groups side by side: the pairs of all of them are compared at once.
    grouped = s[:, source].transpose(0, 2, 1, 3).reshape(p, width, count * size)
    won = _winners(pair, grouped, bits)
    best = np.empty((p, count, 0), np.uint64)
    if wanted:
        rest = width - 1
        offsets = (grouped[:, 1:] - grouped[:, :1]).reshape(p, rest * count * size)
        chosen = select.select(pair, offsets, _from_planes(won[:, 1:], count * size))
        total = chosen.reshape(p, rest, count * size).sum(axis=1, dtype=np.uint64)
        best = (grouped[:, 0] + total).reshape(p, count, size)
    inside = np.stack([_to_planes(won[:, j], count, size) for j in range(width)], axis=2)
    return inside, best


def _check(s: Words, group: int) -> None:
    if group < 2:
        raise ArgumentError(f"group must be at least 2, got {group}")
    if s.ndim != 3 or not s.shape[1]:
        raise ArgumentError(f"values must have shape (p, k, size) with k > 0, got {s.shape}")


def maximum(pair: Pair, s: Words, bits: int, group: int = GROUP) -> Words:
    """Return shares of the largest of k values, (p, size).

    Parameters
    ----------
    s : uint64 array of shape (p, k, size)
    bits : int
        L of the difference of any two: as of y in :func:`mpc.two_party.sign.sign`.
    """
    _check(s, group)
    while s.shape[1] > 1:
        _, s = _level(pair, s, bits, group, True)
    return s[:, 0]


def argmax(pair: Pair, s: Words, bits: int, group: int = GROUP) -> Words:
    """Return XOR shares of the one-hot vectors of the first largest value: planes (p, k, words).

    Parameters are those of :func:`maximum`.
    """
    _check(s, group)
    p, k, size = s.shape
    words = count_words(size)
    if k == 1:
        out = np.zeros((p, 1, words), np.uint64)
        return complement(pair, out)
    inside, best = _level(pair, s, bits, group, k > group)
    count, width = inside.shape[1:3]
    if count == 1:
        return inside[:, 0, :k]
    outside = argmax(pair, best, bits, group)
    x = inside.reshape(p, count * width, words)[:, :k]
    y = np.repeat(outside, width, axis=1)[:, :k]
    (both,) = and_planes(pair, np.ascontiguousarray(x), np.ascontiguousarray(y))
    return both
