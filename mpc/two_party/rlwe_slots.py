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

from mpc.core.errors import ArgumentError, RangeError, ShapeError
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
    decoding_numbers,
    decoding_transform,
    noise_bound,
)
from mpc.two_party.rlwe_products import Channel, check_operand
from mpc.two_party.rlwe_samples import Samples, Seed
from mpc.two_party.rlwe_wire import pack_words, unpack_words
from ring.compile import kernel
from ring.ntt import Residues, Transform
from ring.residue_numbers import ResidueNumbers
from ring.residue_products import multiply_places
from ring.residues import balanced, high_product, largest_primes, multiply, reduce

__all__ = [
    "SLOT_PARAMETERS",
    "SlotProduct",
    "answer_slots",
    "receive_slots",
    "receive_slots_answer",
    "send_slots",
]

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

    def fresh_life(self) -> Life:
        """Return a count of an operand's answers, from zero on."""
        return Life(self.life)

    def messages(self) -> Iterator[tuple[int, int]]:
        """The blocks of each message."""
        for start in range(0, self.blocks, _TOGETHER):
            yield start, min(start + _TOGETHER, self.blocks)

    def operand_bytes(self) -> int:
        """Return how many bytes the keeper sends."""
        return sum(
            ciphertext_bytes(SLOT_PARAMETERS, PLAIN_PRIMES * (stop - start), random=False)
            for start, stop in self.messages()
        )

    def answer_bytes(self) -> int:
        """Return how many bytes the mixer answers."""
        return 16 * self.answered


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


def send_slots(product: SlotProduct, key: SecretKey, x: Words, channel: Channel) -> None:
    """Keeper, step 1: encrypt its numbers and send them."""
    blocks = _blocks(product, check_operand("keeper's", x, (product.size,)))
    for start, stop in product.messages():
        scaled = _scaled(_values(blocks[start:stop]))
        scaled = scaled.reshape(len(scaled), PLAIN_PRIMES * (stop - start), LENGTH)
        channel.send(encrypt_scaled(key, scaled, Seed()))


def receive_slots(product: SlotProduct, channel: Channel) -> list[Ciphertexts]:
    """Mixer, step 1: receive the keeper's numbers."""
    found = []
    for start, stop in product.messages():
        count = PLAIN_PRIMES * (stop - start)
        data = channel.receive(ciphertext_bytes(SLOT_PARAMETERS, count, random=False))
        found.append(read_ciphertexts(SLOT_PARAMETERS, data, count, channel.peer, random=False))
    return found


def answer_slots(
    product: SlotProduct,
    kept: list[Ciphertexts],
    public: PublicKey,
    w: Words,
    channel: Channel,
    life: Life,
) -> Words:
    """Mixer, step 2: multiply the keeper's numbers with its own, and answer. Return its share.

    Raises
    ------
    SessionError
        If the operand's life does not have another product's coefficients.
    """
    blocks = _blocks(product, check_operand("mixer's", w, (product.size,)))
    if life.coefficients > product.life:
        raise ArgumentError(
            f"the operand's life is {life.coefficients} coefficients, the product allows {product.life}"
        )
    found = [ciphertexts.c_0.shape[1] for ciphertexts in kept]
    wanted = [PLAIN_PRIMES * (stop - start) for start, stop in product.messages()]
    if found != wanted:
        raise ShapeError(f"the keeper's operand must have {wanted} polynomials, got {found}")
    life.spend(product.answered)
    numbers, plain = SLOT_PARAMETERS.numbers, plain_numbers()
    transform, places = SLOT_PARAMETERS.transform, np.arange(LENGTH)
    shares = np.empty_like(blocks)
    for (start, stop), ciphertexts in zip(product.messages(), kept, strict=True):
        shape = (len(numbers), PLAIN_PRIMES * (stop - start), LENGTH)
        factor = np.empty((len(numbers), shape[1] * LENGTH))
        _to_moduli(_values(blocks[start:stop]).reshape(-1), numbers.p, numbers.inverse, factor)
        factor = factor.reshape(shape)
        transform.forward(factor)
        sums = Ciphertexts(SLOT_PARAMETERS, ciphertexts.c_0.copy(), ciphertexts.c_1.copy())
        multiply_places(numbers, sums.c_0, factor)
        multiply_places(numbers, sums.c_1, factor)
        masks = np.zeros((PLAIN_PRIMES, (stop - start) * LENGTH))
        Samples().add_flood(plain, MASK_BITS, masks)
        shares[start:stop] = np.negative(plain.low_words(masks)).reshape(stop - start, LENGTH)
        polynomials = masks.reshape(PLAIN_PRIMES, stop - start, LENGTH)
        plain_transform().inverse(polynomials)
        masked = _scaled(polynomials).reshape(len(numbers), -1)
        first, second = hide(public, Mixed(sums), masked, places, product.flood_bits)
        channel.send(pack_words(numbers.unscale(second)) + pack_words(numbers.unscale(first)))
    return shares.reshape(-1)[: product.size]


def receive_slots_answer(product: SlotProduct, key: SecretKey, channel: Channel) -> Words:
    """Keeper, step 3: receive and decrypt the answers. Return its share."""
    decoding, plain = decoding_numbers(), plain_numbers()
    shares = np.empty((product.blocks, LENGTH), np.uint64)
    for start, stop in product.messages():
        rows = PLAIN_PRIMES * (stop - start)
        data = channel.receive(16 * rows * LENGTH)
        second, first = unpack_words(data, (2, rows, LENGTH), f"{channel.peer}'s answer")
        x = decoding.from_words(second)
        decoding_transform().forward(x)
        x = key.times_secret(x)
        decoding_transform().inverse(x)
        phase = (first + decoding.low_words(x)).reshape(PLAIN_PRIMES, stop - start, LENGTH)
        values = np.empty(phase.shape)
        for k, t in enumerate(plain.primes):
            _unscale(phase[k].reshape(-1), np.uint64(t), values[k].reshape(-1))
        plain_transform().forward(values)
        shares[start:stop] = plain.low_words(values)
    return shares.reshape(-1)[: product.size]
