"""Sorting many secrets: shuffled, then compared in the open.

The keys are different from each other: the values, and behind them the places from which they come.
1. Shuffle keys and what goes with them: :mod:`mpc.protocols.shuffle`, n rounds. The ranks of shuffled keys
   are a uniform permutation whatever the values are, and what follows opens functions of the ranks alone.
   So it tells nothing: not how values are spread, nor which are equal.
2. Up to 512 keys: open which of each pair is smaller, and sort by that.
   More keys: a sample of s = 2^e - 1, e being such that 8 to 16 keys come to one of the sample, is sorted
   in the same way. Every other key finds its place between two of them, up to four bits of the place at a
   time: it is compared with all ends of the parts at once. Keys of one place are compared in pairs.
   How many pairs there are is a matter of the ranks, so that their number is filled up to a fixed one, the
   mean and 25 / sqrt(s) of it. Beyond that, with a chance below 2^-30, they take another batch.
Each comparison is the sign of a difference, by :mod:`mpc.protocols.sign`, opened: 4 rounds.
Cost for 100,000 values: 10 steps, 42 rounds for two parties; about 52 comparisons a value, each 12 (n - 1)
bytes and 42 bytes of correction. Where that exceeds the session's memory limit, steps are cut into parts.

Source: shuffle, then compare: Hamada, Kikuchi, Ikarashi, Chida, Takahashi 2012 (Practically efficient
multi-party sorting protocols from comparison sort algorithms), where quicksort follows; a sample in place
of pivots has the same number of rounds and bytes in every run.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import shuffle, sign
from ring.bits import unpack_bits

__all__ = ["cost", "sort"]

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

ALL_PAIRS = 512
_STEP_BITS = 4
# Bytes that a comparison takes at once, for each party.
_BYTES_EACH = 64


def _sample_bits(count: int) -> int:
    """Return e."""
    return (count // 8).bit_length() - 1


def _steps(bits: int) -> list[int]:
    """Cut so many bits into steps of nearly equal width."""
    number = -(-bits // _STEP_BITS)
    return [(bits + k) // number for k in range(number)]


def _pairs_within(rest: int, sample: int) -> int:
    """Return the size of the batch for pairs of keys of one place."""
    mean = rest * (rest - 1) / (sample + 2)
    return math.ceil(mean * (1 + 25 / math.sqrt(sample)))


def batches(count: int) -> list[int]:
    """Return how many comparisons each step makes, for so many keys."""
    if count <= ALL_PAIRS:
        return [count * (count - 1) // 2]
    e = _sample_bits(count)
    sample = (1 << e) - 1
    rest = count - sample
    searches = [rest * ((1 << b) - 1) for b in _steps(e)]
    return [*batches(sample), *searches, _pairs_within(rest, sample)]


def cost(parties: int, count: int, columns: int, window: int) -> Spent:
    """Declare the cost for so many rows of words, whose keys' differences take `window` bits."""
    total = shuffle.cost(parties, count, columns)
    for some in batches(count):
        total += sign.cost(parties, some, 0, window, True, "none")
        total += Spent(1, 8 * (parties - 1) * -(-some // 64))
    return total


class _Comparer:
    """Step 2, on keys that are shuffled.

    Parameters
    ----------
    like : SharedArray
        Any array of the session.
    keys : uint64 array of shape (p, n)
        Shares, of different keys.
    bound : int
        On the magnitude of a key, below 2^62.
    """

    def __init__(self, like: SecretValue, keys: Words, bound: int) -> None:
        self._like, self._keys = like, keys
        self._bound = min(2 * bound, LARGEST)
        session = like.session
        each = _BYTES_EACH * (session.size + 1)
        self._most = max(4096, session.memory_limit // each // 64 * 64)

    def less(self, first: Indices, second: Indices) -> NDArray[np.bool_]:
        """Open for each pair of numbers of keys whether the first key is smaller. In a plan, none is."""
        session = self._like.session
        found = []
        for start in range(0, len(first), self._most):
            a, b = first[start : start + self._most], second[start : start + self._most]
            words = self._keys[:, a] - self._keys[:, b]
            d = self._like.derive(words, frac_bits=0, bound=self._bound)
            bits = sign.negative_bits(d)
            with session.revealing():
                (opened,) = session.open((bits, "xor"))
            words = opened[0] if len(opened) else np.zeros(opened.shape[1:], np.uint64)
            found.append(unpack_bits(words, len(a)).astype(bool))
        return np.concatenate(found)

    def _all_pairs(self, keys: Indices) -> Indices:
        first, second = np.triu_indices(len(keys), 1)
        smaller = self.less(keys[first], keys[second])
        ranks = np.bincount(second[smaller], minlength=len(keys))
        ranks += np.bincount(first[~smaller], minlength=len(keys))
        return keys[np.argsort(ranks, kind="stable")]

    def order(self, keys: Indices) -> Indices:
        """Return the numbers of keys in ascending order of the keys."""
        count = len(keys)
        if count <= ALL_PAIRS:
            return self._all_pairs(keys) if count > 1 else keys
        e = _sample_bits(count)
        size = (1 << e) - 1
        sample, rest = self.order(keys[:size]), keys[size:]
        place, left = np.zeros(len(rest), np.int64), e
        for bits in _steps(e):
            left -= bits
            ends = (place[:, None] + (np.arange(1, 1 << bits) << left)).reshape(-1)
            each = np.repeat(rest, (1 << bits) - 1)
            above = self.less(sample[ends - 1], each)
            place += above.reshape(len(rest), -1).sum(axis=1) << left
        ranks = self._ranks_within(rest, place, _pairs_within(len(rest), size))
        # Keys of a place come before the key of the sample that ends it.
        places = np.concatenate([place, np.arange(size)])
        last = np.concatenate([ranks, np.full(size, count)])
        joined = np.concatenate([rest, sample])
        return joined[np.lexsort((last, places))]

    def _ranks_within(self, keys: Indices, place: Indices, batch: int) -> Indices:
        """Return the rank of each key among those of its place."""
        ranks = np.zeros(len(keys), np.int64)
        if not self._like.session.here:
            self.less(*np.zeros((2, batch), np.int64))
            return ranks
        by_place = np.argsort(place, kind="stable")
        sorted_place, firsts, seconds = place[by_place], [], []
        left, apart = np.arange(len(keys)), 0
        while True:
            apart += 1
            left = left[left + apart < len(keys)]
            left = left[sorted_place[left] == sorted_place[left + apart]]
            if not len(left):
                break
            firsts.append(left)
            seconds.append(left + apart)
        first = by_place[np.concatenate([*firsts, np.empty(0, np.int64)])]
        second = by_place[np.concatenate([*seconds, np.empty(0, np.int64)])]
        for start in range(0, max(1, len(first)), batch):
            a, b = first[start : start + batch], second[start : start + batch]
            # A key against itself tells nothing.
            filled = np.zeros((2, batch), np.int64)
            filled[0, : len(a)], filled[1, : len(b)] = keys[a], keys[b]
            smaller = self.less(*filled)[: len(a)]
            ranks += np.bincount(b[smaller], minlength=len(keys))
            ranks += np.bincount(a[~smaller], minlength=len(keys))
        return ranks


def sort(like: Secret, columns: Words, shift: int, bound: int) -> Words:
    """Return rows of words in ascending order of their keys.

    Parameters
    ----------
    like : SharedArray
        Any array of the session.
    columns : uint64 array of shape (p, n, c)
        What is to be put in order: shares. The key of a row is its first word times 2^shift plus its
        second; the keys differ from each other.
    shift : int
    bound : int
        On the magnitude of a key, below 2^62.
    """
    session = like.session
    with session.protocol("sort"):
        rows = shuffle.shuffled(session, columns)
        keys = (rows[:, :, 0] << np.uint64(shift)) + rows[:, :, 1]
        order = _Comparer(like, keys, bound).order(np.arange(rows.shape[1]))
        return rows[:, order]
