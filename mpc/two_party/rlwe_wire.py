"""How ciphertexts travel: packed bits, and what is refused.

All is little-endian. Numbers of one kind stand one after the other at a fixed width, padded with zero
bits to a word (:mod:`ring.bit_fields`):

| what | bits a coefficient |
|---|---|
| a ciphertext of a given message, or a public key | the primes' bits, prime after prime; 16 bytes of seed |
| a correction of a random string | each prime's bits, until a last, signed digit; 16 bytes of seed |
| an answer | a word and 12 bits, for the second component; the same for the places of the first |
| an answer of an elementwise product | a word for each component |
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, FrameError
from mpc.two_party.rlwe_parameters import Parameters
from ring.bit_fields import count_field_words, pack_fields, unpack_fields
from ring.compile import kernel
from ring.ntt import Residues
from ring.residue_numbers import LOW_BITS, least

__all__ = [
    "as_words",
    "correction_bytes",
    "pack_corrections",
    "pack_residues",
    "pack_switched",
    "pack_words",
    "residue_bytes",
    "switched_bytes",
    "unpack_corrections",
    "unpack_residues",
    "unpack_switched",
    "unpack_words",
]

Words = NDArray[np.uint64]
_WIRE = np.dtype("<u8")


def pack_words(words: Words) -> bytes:
    """Pack whole words."""
    return words.astype(_WIRE, copy=False).tobytes()


def as_words(data: bytes) -> Words:
    """Return a message, whole words of it, as a channel takes it."""
    return np.frombuffer(data, _WIRE).astype(np.uint64, copy=False)


class _Reader:
    """Reads packed numbers one kind after the other."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def take(self, count: int, width: int) -> Words:
        size = 8 * count_field_words(count, width)
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise FrameError(f"{self._what} ends early: {len(self._data)} bytes")
        self._at += size
        words = np.frombuffer(piece, _WIRE).astype(np.uint64, copy=False)
        try:
            return unpack_fields(words, count, width)
        except ArgumentError as error:
            raise FrameError(f"{self._what}: {error}") from None

    def end(self) -> None:
        if self._at != len(self._data):
            raise FrameError(f"{self._what} must have {self._at} bytes, got {len(self._data)}")


@kernel
def _canonical(x: Residues, p: float, out: Words) -> None:
    for i in range(x.size):
        out[i] = least(x[i], p)


@kernel
def _centred(words: Words, p: float, out: Residues) -> None:
    half = (p - 1) / 2
    for i in range(out.size):
        value = np.float64(np.int64(words[i]))
        out[i] = value - p * np.float64(np.int64(value > half))


def residue_bytes(parameters: Parameters, count: int) -> int:
    """Return how many bytes so many residues modulo every prime take."""
    return 8 * parameters.count * count_field_words(count, parameters.prime_bits)


def pack_residues(parameters: Parameters, x: Residues) -> bytes:
    """Pack reduced residues, of shape (primes, ...)."""
    pieces = []
    for i, p in enumerate(parameters.numbers.primes):
        out = np.empty(x[i].size, np.uint64)
        _canonical(x[i].reshape(-1), float(p), out)
        pieces.append(pack_words(pack_fields(out, parameters.prime_bits)))
    return b"".join(pieces)


def unpack_residues(parameters: Parameters, data: bytes, count: int, what: str) -> Residues:
    """Unpack so many residues modulo every prime.

    Raises
    ------
    FrameError
        If the data is too short or long, or holds what is no residue; it begins with `what`.
    """
    out, reader = np.empty((parameters.count, count)), _Reader(data, what)
    for i, p in enumerate(parameters.numbers.primes):
        words = reader.take(count, parameters.prime_bits)
        if count and int(words.max()) >= p:
            raise FrameError(f"{what} holds a number that is no residue modulo prime {i}")
        _centred(words, float(p), out[i])
    reader.end()
    return out


def correction_bytes(parameters: Parameters, count: int) -> int:
    """Return how many bytes so many corrections take."""
    return 8 * sum(count_field_words(count, width) for width in parameters.correction_widths)


def pack_corrections(parameters: Parameters, digits: Words) -> bytes:
    """Pack corrections, as digits of shape (digits, count)."""
    widths = parameters.correction_widths
    pieces = [
        pack_words(pack_fields(line, width))
        for line, width in zip(digits[:-1], widths[:-1], strict=True)
    ]
    offset = np.uint64(1 << (widths[-1] - 1))
    return b"".join([*pieces, pack_words(pack_fields(digits[-1] + offset, widths[-1]))])


def unpack_corrections(parameters: Parameters, data: bytes, count: int, what: str) -> Words:
    """Unpack so many corrections into digits.

    Raises
    ------
    FrameError
        If the data is too short or long, or a digit is no residue; it begins with `what`.
    """
    widths = parameters.correction_widths
    out, reader = np.empty((len(widths), count), np.uint64), _Reader(data, what)
    for i, width in enumerate(widths):
        out[i] = reader.take(count, width)
        if i < len(widths) - 1 and count and int(out[i].max()) >= parameters.numbers.primes[i]:
            raise FrameError(f"{what} holds a digit that is no residue modulo prime {i}")
    out[-1] -= np.uint64(1 << (widths[-1] - 1))
    reader.end()
    return out


def switched_bytes(count: int) -> int:
    """Return how many bytes so many numbers modulo 2^76 take."""
    return 8 * (count + count_field_words(count, LOW_BITS))


def pack_switched(high: Words, low: Words) -> bytes:
    """Pack numbers modulo 2^76: their upper words and lower twelve bits."""
    return pack_words(high.reshape(-1)) + pack_words(pack_fields(low, LOW_BITS))


def unpack_switched(data: bytes, count: int, what: str) -> tuple[Words, Words]:
    """Unpack so many numbers modulo 2^76.

    Raises
    ------
    FrameError
        If the data is too short or long; it begins with `what`.
    """
    reader = _Reader(data, what)
    high, low = reader.take(count, 64), reader.take(count, LOW_BITS)
    reader.end()
    return high, low


def unpack_words(data: bytes, shape: tuple[int, ...], what: str) -> Words:
    """Unpack whole words.

    Raises
    ------
    FrameError
        If the data is too short or long; it begins with `what`.
    """
    reader = _Reader(bytes(data), what)
    words = reader.take(prod(shape), 64)
    reader.end()
    return words.reshape(shape)
