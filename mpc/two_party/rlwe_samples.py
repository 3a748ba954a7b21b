"""What ring-LWE encryption draws, all of it from AES streams under keys of the operating system.

Nothing is drawn in time that depends on what is drawn, but public residues.
"""

from __future__ import annotations

import threading
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.two_party.rlwe_parameters import ERROR_BITS
from ring import Stream, fresh_key, processes
from ring.compile import kernel
from ring.ntt import Residues
from ring.residue_numbers import BLOCK, ResidueNumbers
from ring.residues import count_ones, multiply, reduce

__all__ = ["SEED_BYTES", "Once", "Samples", "Seed", "bound_seed", "uniform_residues"]

Words = NDArray[np.uint64]

SEED_BYTES = 16
_LIMB_BITS = 48


@kernel
def _errors(words: Words, half: np.uint64, out: Residues) -> None:
    """The ones in the lowest bits of a word, less those in as many more."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    for i in range(out.size):
        plus, minus = words[i] & mask, words[i] >> half & mask
        out[i] = np.float64(count_ones(plus) - count_ones(minus))


@kernel
def _ternary(words: Words, out: Residues) -> None:
    """-1, 0 or 1, each for a third of all words, but for one word."""
    third = np.uint64(2**64 // 3)
    for i in range(out.size):
        out[i] = np.float64(
            np.int64(words[i] >= third) + np.int64(words[i] >= third + third) - np.int64(1)
        )


@kernel
def _add_flood(
    words: Words, bits: int, shift: float, p: Residues, inverse: Residues, out: Residues
) -> None:
    """Add to residues an integer of `bits` bits less half its range, the same modulo every prime."""
    limbs = len(words)
    top = bits - _LIMB_BITS * (limbs - 1)
    half = 2.0 ** (top - 1)
    drop, drop_top = np.uint64(64 - _LIMB_BITS), np.uint64(64 - top)
    value = np.empty(BLOCK)
    for first in range(0, out.shape[1], BLOCK):
        last = min(first + BLOCK, out.shape[1])
        for i in range(len(p)):
            modulus, below = p[i], inverse[i]
            some = words[0, first:last]
            for e in range(some.size):
                number = np.float64(np.int64(some[e] >> drop_top)) - half
                value[e] = reduce(number, modulus, below)
            for k in range(1, limbs):
                some = words[k, first:last]
                for e in range(some.size):
                    high = multiply(value[e], shift, modulus, below)
                    limb = np.float64(np.int64(some[e] >> drop))
                    value[e] = reduce(np.float64(high) + limb, modulus, below)
            line = out[i, first:last]
            for e in range(line.size):
                line[e] = reduce(line[e] + value[e], modulus, below)


class Samples:
    """Fresh randomness for one computation, in one thread."""

    __slots__ = ("_drawn", "_stream")

    def __init__(self) -> None:
        self._stream, self._drawn = Stream(fresh_key()), 0

    def words(self, *shape: int) -> Words:
        """Return words that nobody has seen."""
        out = np.empty(shape, np.uint64)
        self._stream.fill(out, self._drawn)
        self._drawn += 1
        return out

    def errors(self, *shape: int) -> Residues:
        """Return centred binomial errors: of standard deviation 3.24, at most 21 in magnitude."""
        out = np.empty(shape)
        _errors(self.words(out.size), np.uint64(ERROR_BITS // 2), out.reshape(-1))
        return out

    def ternary(self, *shape: int) -> Residues:
        """Return numbers uniform in -1, 0, 1."""
        out = np.empty(shape)
        _ternary(self.words(out.size), out.reshape(-1))
        return out

    def add_flood(self, numbers: ResidueNumbers, bits: int, out: Residues) -> None:
        """Add to reduced residues, of shape (primes, n), integers uniform in [-2^(bits-1), 2^(bits-1))."""
        words = self.words(-(-bits // _LIMB_BITS), out.shape[1])
        _add_flood(words, bits, 2.0**_LIMB_BITS, numbers.p, numbers.inverse, out)


@kernel
def _take(words: Words, bits: int, p: float, out: Residues) -> int:
    """Take numbers of so many bits, less p // 2 to balance them; mark those of p and above."""
    limit, refused = np.uint64(p), 0
    for i in range(out.size):
        value = words[i] >> np.uint64(64 - bits)
        number, over = np.float64(np.int64(value)) - (p - 1) / 2, np.int64(value >= limit)
        out[i] = number + (p - number) * np.float64(over)
        refused += int(over)
    return refused


def bound_seed(label: bytes, seed: bytes) -> bytes:
    """Return the key of a seed's stream: the same seed gives another string under another label."""
    return sha256(b"sotto ring-lwe string" + label + seed).digest()[:SEED_BYTES]


def uniform_residues(seed: bytes, numbers: ResidueNumbers, *shape: int, id: int = 0) -> Residues:
    """Return residues, uniform modulo each prime, that follow from a public seed.

    Word k of stream ``2^32 id + i`` gives residue k modulo prime i, in its highest bits; if they are
    no residue, word ``k + n`` does, n being how many there are, or else ``k + 2n`` and so on.
    """
    out = np.empty((len(numbers), *shape))
    stream = Stream(seed)
    for i, p in enumerate(numbers.primes):
        flat = out[i].reshape(-1)
        words = np.empty(flat.size, np.uint64)
        stream.fill(words, (id << 32) + i)
        refused, turn = _take(words, p.bit_length(), float(p), flat), 0
        while refused:
            turn += 1
            places = np.flatnonzero(flat == p)
            again, one = np.empty(1), np.empty(1, np.uint64)
            refused = 0
            for place in places.tolist():
                stream.fill(one, (id << 32) + i, start=turn * flat.size + place)
                refused += _take(one, p.bit_length(), float(p), again)
                flat[place] = again[0]
    return out


class Once:
    """Something that may be used once, and by the process that has made it.

    Parameters
    ----------
    what : str
        Its name in an error.
    """

    __slots__ = ("_generation", "_lock", "_used", "_what")

    def __init__(self, what: str) -> None:
        self._what, self._used = what, False
        self._generation, self._lock = processes.generation, threading.Lock()

    def spend(self) -> None:
        """Mark it as used.

        Raises
        ------
        SessionError
            If it is used already.
        ProcessError
            If a process forked from that which has made it asks: both would use it.
        """
        processes.check(self._what, self._generation)
        with self._lock:
            if self._used:
                raise SessionError(f"{self._what} has been used already, and may be used once")
            self._used = True


class Seed:
    """A public seed, for one batch of ciphertexts.

    Two corrections of one random string, or two messages under one random component, would show their
    difference and that of their errors.
    """

    __slots__ = ("_once", "_seed")

    def __init__(self) -> None:
        self._seed, self._once = fresh_key(), Once("a seed of ciphertexts")

    def spend(self) -> bytes:
        """Return the seed, the first time; see :meth:`Once.spend`."""
        self._once.spend()
        return self._seed
