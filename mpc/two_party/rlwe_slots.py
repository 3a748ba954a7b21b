"""Elementwise products of numbers that one party knows with numbers that the other knows, by ring-LWE.

Modulo 2^64 polynomials have no slots. So the product is taken over the integers, by its residues modulo
four primes t of 48 bits that are 1 modulo 2N: modulo such a prime a polynomial is its N values at the
roots of X^N + 1, and polynomials multiply value by value.

1. The keeper encrypts its numbers: for N of them four ciphertexts, of the polynomials whose values are
   the numbers modulo t; c_0 + c_1 s = round(q m / t) + e.
2. The mixer multiplies each with the polynomial of its own numbers, draws for each product an integer r,
   uniform in 2^190 values, adds it, hides the rest as in :mod:`mpc.two_party.rlwe_answers`, and answers
   modulo 2^64. Its share is -r.
3. The keeper decrypts, takes values at the roots, and has x w + r by its residues, which is below half
   of the primes' product: nothing wraps around. Its share is that modulo 2^64.

Cost: 2 messages one way each, 90 bytes a number from the keeper and 64 from the mixer, rounded up to N
numbers; by oblivious transfers (:mod:`mpc.two_party.product`) fewer numbers are cheaper.

What the keeper sees of the mixer's numbers: r hides a product below 2^126 up to 2^-64; the flood is
uniform in 2^F values, F being log2 q less 49, and hides the noise, at most 43/2 N t/2 and what answers
have anyway: see :func:`SlotProduct.distance`. An answer rounds right while all noise is below 2^15
modulo 2^64: the flood takes 2^14.

Reference: Huang and others 2022 (Cheetah, ePrint 2022/207) and its successors take such slots; masks over
the integers in place of a wrap that is wrong now and then are of this library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import log2

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, RangeError
from mpc.two_party.rlwe_answers import Life, Mixed, hide
from mpc.two_party.rlwe_ciphertexts import (
    Ciphertexts,
    ciphertext_bytes,
    encrypt_scaled,
    read_ciphertexts,
)
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_parameters import (
    DISTANCE_BITS,
    LENGTH,
    PARAMETERS,
    Parameters,
    decoding_numbers,
    decoding_transform,
    noise_bound,
)
from mpc.two_party.rlwe_products import Collected, check_kept, check_operand, check_parameters
from mpc.two_party.rlwe_samples import Samples, Seed
from mpc.two_party.rlwe_wire import as_words, pack_words, unpack_words
from ring.compile import kernel
from ring.ntt import Residues, Transform
from ring.residue_numbers import ResidueNumbers
from ring.residue_products import multiply_places
from ring.residues import balanced, high_product, largest_primes, multiply, reduce

__all__ = ["SLOT_PARAMETERS", "SlotProduct"]

Words = NDArray[np.uint64]

SLOT_PARAMETERS = PARAMETERS[0]
PLAIN_BITS = 48
PLAIN_PRIMES = 4
MASK_BITS = 190
# A product of two signed words.
_PRODUCT_BITS = 126
_ROOM_BITS = 49
# Blocks of N numbers in one message.
_TOGETHER = 4


@cache
def plain_numbers() -> ResidueNumbers:
    return ResidueNumbers(largest_primes(PLAIN_BITS, PLAIN_PRIMES, LENGTH))


@cache
def plain_transform() -> Transform:
    return Transform(plain_numbers().primes, LENGTH)


@dataclass(frozen=True)
class SlotProduct:
    """An elementwise product that both parties are about to make: public.

    Attributes
    ----------
    size : int
        How many numbers.
    products : int
        How many products one operand of the mixer's serves in its life.

    Raises
    ------
    RangeError
        If the parameters do not hide an operand for so long.
    """

    size: int
    products: int = 1

    def __post_init__(self) -> None:
        if self.size < 0 or self.products < 1:
            raise ArgumentError(
                f"size must not be negative and products positive, got {self.size}, {self.products}"
            )
        if self.distance > Fraction(1, 2**DISTANCE_BITS):
            raise RangeError(
                f"parameters {SLOT_PARAMETERS.name} flood {self.flood_bits} bits: {self.life} coefficients"
                f" answered would show a factor by 2^{log2(self.distance):.1f}, above"
                f" 2^-{DISTANCE_BITS}: multiply fewer numbers at once, or use fresh masks"
            )

    @classmethod
    def allows(cls, size: int, products: int) -> bool:
        """Whether one operand of the mixer's may serve so many products of so many numbers."""
        one = cls(size)
        return products * one.distance <= Fraction(1, 2**DISTANCE_BITS)

    @property
    def blocks(self) -> int:
        return -(-self.size // LENGTH)

    @property
    def life(self) -> int:
        """Coefficients that are answered from one operand of the mixer's in all."""
        return self.products * self.answered

    @property
    def answered(self) -> int:
        """Coefficients that one product answers."""
        return PLAIN_PRIMES * self.blocks * LENGTH

    @property
    def flood_bits(self) -> int:
        return SLOT_PARAMETERS.prime_bits * SLOT_PARAMETERS.count - _ROOM_BITS

    @property
    def distance(self) -> Fraction:
        """The statistical distance of what a keeper sees of the mixer's numbers in their life."""
        noise = self.life * noise_bound(LENGTH << (PLAIN_BITS - 1)) / 2**self.flood_bits
        numbers = self.products * self.blocks * LENGTH
        return noise + Fraction(numbers * 2**_PRODUCT_BITS, 2**MASK_BITS)

    @property
    def distance_of_one(self) -> Fraction:
        """The same of one product."""
        return self.distance / self.products

    def fresh_life(self) -> Life:
        """Return a count of an operand's answers, from zero on."""
        return Life(self.life)

    def messages(self) -> Iterator[tuple[int, int]]:
        """The blocks of each message."""
        for start in range(0, self.blocks, _TOGETHER):
            yield start, min(start + _TOGETHER, self.blocks)

    @property
    def parameters(self) -> Parameters:
        return SLOT_PARAMETERS

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def result_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def share_shape(self) -> tuple[int, ...]:
        """Shape of what is read of all answers."""
        return self.blocks, LENGTH

    def multiply(self, x: Words, w: Words) -> Words:
        """Return the product of a keeper's and a mixer's operand, in the clear."""
        return np.asarray(x * w)

    def operand_rows(self) -> list[int]:
        """Return how many ciphertexts are in each of the keeper's messages."""
        return [PLAIN_PRIMES * (stop - start) for start, stop in self.messages()]

    def operand_words(self) -> list[int]:
        """Return how long each of the keeper's messages is."""
        return [
            ciphertext_bytes(SLOT_PARAMETERS, rows, random=False) // 8
            for rows in self.operand_rows()
        ]

    def answer_words(self) -> list[int]:
        """Return how long each of the mixer's messages is."""
        return [2 * rows * LENGTH for rows in self.operand_rows()]

    def operand_bytes(self) -> int:
        """Return how many bytes the keeper sends."""
        return 8 * sum(self.operand_words())

    def answer_bytes(self) -> int:
        """Return how many bytes the mixer answers."""
        return 8 * sum(self.answer_words())

    def encrypt(self, key: SecretKey, x: Words | None) -> Iterator[Words]:
        """Return the keeper's messages, one after the other: step 1."""
        check_parameters(SLOT_PARAMETERS, key.parameters, "the key")
        blocks = _blocks(self, check_operand("keeper's", x, self.kept_shape))
        return (self._encrypted(key, blocks[a:b]) for a, b in self.messages())

    @staticmethod
    def _encrypted(key: SecretKey, blocks: Words) -> Words:
        scaled = _scaled(_values(blocks))
        scaled = scaled.reshape(len(scaled), PLAIN_PRIMES * len(blocks), LENGTH)
        return as_words(encrypt_scaled(key, scaled, Seed()))

    def read(self, public: PublicKey, data: bytes, rows: int, peer: str) -> Ciphertexts:
        """Read one of the keeper's messages."""
        return read_ciphertexts(SLOT_PARAMETERS, data, rows, peer, random=False, label=public.label)

    def check_mixed(self, public: PublicKey, w: Words | None) -> Words:
        """Refuse a mixer's operand that does not fit, before anything is counted or sent."""
        check_parameters(SLOT_PARAMETERS, public.parameters, "the public key")
        return check_operand("mixer's", w, self.mixed_shape)

    def mixing(self, w: Words) -> SlotMixing:
        """Return what the mixer makes of an operand that serves this product alone."""
        return SlotMixing(self, w)

    def answers(
        self, kept: Ciphertexts, public: PublicKey, w: Words, shares: Words
    ) -> Iterator[Words]:
        """Return the mixer's messages, one after the other: step 2. They fill its shares."""
        check_kept(self, kept)
        blocks = _blocks(self, w)

        def answer(start: int, stop: int) -> Words:
            rows = slice(PLAIN_PRIMES * start, PLAIN_PRIMES * stop)
            part = Ciphertexts(SLOT_PARAMETERS, kept.c_0[:, rows].copy(), kept.c_1[:, rows].copy())
            shares[start:stop], message = _answer(public, part, blocks[start:stop], self.flood_bits)
            return message

        return (answer(start, stop) for start, stop in self.messages())

    def open(self, key: SecretKey, k: int, data: bytes, peer: str, shares: Words) -> None:
        """Decrypt the mixer's message k into the keeper's shares: step 3."""
        decoding, plain = decoding_numbers(), plain_numbers()
        start, stop = list(self.messages())[k]
        rows = PLAIN_PRIMES * (stop - start)
        second, first = unpack_words(data, (2, rows, LENGTH), f"{peer}'s answer")
        x = decoding.from_words(second)
        decoding_transform().forward(x)
        x = key.times_secret(x)
        decoding_transform().inverse(x)
        phase = (first + decoding.low_words(x)).reshape(PLAIN_PRIMES, stop - start, LENGTH)
        values = np.empty(phase.shape)
        for i, t in enumerate(plain.primes):
            _unscale(phase[i].reshape(-1), np.uint64(t), values[i].reshape(-1))
        plain_transform().forward(values)
        shares[start:stop] = plain.low_words(values)

    def unpack(self, shares: Words) -> Words:
        """Return the result from what is read of all answers."""
        return shares.reshape(-1)[: self.size]


class SlotMixing(Collected):
    """A keeper's numbers as they arrive, for one product."""

    def __init__(self, product: SlotProduct, w: Words) -> None:
        super().__init__(product)
        self._product, self._w = product, w

    def answers(self, public: PublicKey, shares: Words) -> Iterator[Words]:
        """Return the mixer's messages; see :meth:`SlotProduct.answers`."""
        return self._product.answers(self.whole, public, self._w, shares)


@kernel
def _scale(
    m: Residues, row: Residues, low: Residues, down: Residues,
    p: Residues, inverse: Residues, out: Residues,
) -> None:  # fmt: skip
    """round(q m / t) = (q m - r) / t, r being the balanced remainder; q is 0 modulo p."""
    t, below, q = row
    for e in range(m.size):
        low[e] = reduce(multiply(m[e], q, t, below), t, below)
    for i in range(len(p)):
        for e in range(m.size):
            out[i, e] = reduce(multiply(low[e], down[i], p[i], inverse[i]), p[i], inverse[i])


@kernel
def _to_moduli(m: Residues, p: Residues, inverse: Residues, out: Residues) -> None:
    for i in range(len(p)):
        for e in range(m.size):
            out[i, e] = reduce(m[e], p[i], inverse[i])


@kernel
def _unscale(phase: Words, t: np.uint64, out: Residues) -> None:
    """round(t phase / 2^64), balanced."""
    for e in range(out.size):
        low = phase[e] * t
        value = np.int64(high_product(phase[e], t) + (low >> np.uint64(63)))
        over = value > np.int64(t >> np.uint64(1))
        out[e] = np.float64(value - np.int64(t) * np.int64(over))


def _scaled(polynomials: Residues) -> Residues:
    """Scale polynomials modulo each plain prime, of shape (plain primes, ...), up to q."""
    numbers, plain = SLOT_PARAMETERS.numbers, plain_numbers()
    out = np.empty((len(numbers), *polynomials.shape))
    one = np.empty((len(numbers), polynomials[0].size))
    low = np.empty(polynomials[0].size)
    for k, t in enumerate(plain.primes):
        down = np.array([balanced(-pow(t, -1, p), p) for p in numbers.primes])
        row = np.array([t, 1 / t, balanced(numbers.q, t)])
        _scale(polynomials[k].reshape(-1), row, low, down, numbers.p, numbers.inverse, one)
        out[:, k] = one.reshape(out[:, k].shape)
    return out


def _values(x: Words) -> Residues:
    """Return polynomials that have the words x, of shape (blocks, N), as values."""
    values = plain_numbers().from_words(x)
    plain_transform().inverse(values)
    plain = plain_numbers()
    for k in range(len(plain)):
        flat = values[k].reshape(1, -1)
        _to_moduli(flat[0], plain.p[k : k + 1], plain.inverse[k : k + 1], flat)
    return values


def _blocks(product: SlotProduct, x: Words) -> Words:
    out = np.zeros(product.blocks * LENGTH, np.uint64)
    out[: product.size] = x
    return out.reshape(product.blocks, LENGTH)


def _answer(
    public: PublicKey, sums: Ciphertexts, blocks: Words, flood_bits: int
) -> tuple[Words, Words]:
    """Multiply ciphertexts, which are changed, with blocks of the mixer's: its shares, and the answer."""
    numbers, plain = SLOT_PARAMETERS.numbers, plain_numbers()
    shape = (len(numbers), PLAIN_PRIMES * len(blocks), LENGTH)
    factor = np.empty((len(numbers), shape[1] * LENGTH))
    _to_moduli(_values(blocks).reshape(-1), numbers.p, numbers.inverse, factor)
    factor = factor.reshape(shape)
    SLOT_PARAMETERS.transform.forward(factor)
    multiply_places(numbers, sums.c_0, factor)
    multiply_places(numbers, sums.c_1, factor)
    masks = np.zeros((PLAIN_PRIMES, len(blocks) * LENGTH))
    Samples().add_flood(plain, MASK_BITS, masks)
    shares = np.negative(plain.low_words(masks)).reshape(len(blocks), LENGTH)
    polynomials = masks.reshape(PLAIN_PRIMES, len(blocks), LENGTH)
    plain_transform().inverse(polynomials)
    masked = _scaled(polynomials).reshape(len(numbers), -1)
    first, second = hide(public, Mixed(sums), masked, np.arange(LENGTH), flood_bits)
    message = pack_words(numbers.unscale(second)) + pack_words(numbers.unscale(first))
    return shares, as_words(message)
