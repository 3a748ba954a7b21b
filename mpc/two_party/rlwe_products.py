"""Products of a matrix that one party knows with one that the other knows, as additive shares.

The keeper encrypts its operand, the mixer multiplies with its own and answers; C_0 + C_1 is the product
modulo 2^64, exactly, C_0 the mixer's. Which way a product goes, follows from what is known:

- **A**: the mixer's operand is small (weights of a bounded magnitude), the keeper's a fresh mask: it is
  what public random strings decrypt to, for 14.5 bytes an element (:class:`Mask`).
- **B**: the keeper's operand stays (weights), and is encrypted once for all products
  (:class:`~mpc.two_party.rlwe_layouts.KeptRight`); the mixer's are fresh masks. For few rows.
- **G**: any numbers on both sides.

One protocol serves all three (:mod:`mpc.two_party.rlwe_protocol`); here is what each party computes:

1. The keeper's operand: seeds and ciphertexts, some polynomials to a message.
2. The mixer multiplies, masks with fresh shares and answers, some answers to a message.
3. The keeper decrypts them.

Semi-honest: the mixer learns nothing of the keeper's operand but by breaking ring-LWE; the keeper
learns of the mixer's what the flood lets through, at most 2^-40 in statistical distance over the
operand's declared life. A keeper that sends ciphertexts of its own making may learn the mixer's operand.

References: Huang and others 2022 (ePrint 2022/207) for the packing; the random strings, the flood and the
shorter answers are of this library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.two_party.rlwe_answers import Life, Mixed, answer_bytes, finish, open_answers
from mpc.two_party.rlwe_ciphertexts import (
    Ciphertexts,
    ciphertext_bytes,
    encrypt,
    encrypt_random,
    read_ciphertexts,
)
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_layouts import Layout
from mpc.two_party.rlwe_parameters import LENGTH, Parameters, choose_parameters
from mpc.two_party.rlwe_samples import Samples, Seed
from mpc.two_party.rlwe_wire import as_words
from ring.ntt import Residues
from ring.residue_products import add_run_products, add_slot_products
from ring.vectors import LANES

__all__ = [
    "Collected", "Mask", "Mixing", "Product", "Sized", "check_kept", "check_operand", "check_parameters",
]  # fmt: skip

Words = NDArray[np.uint64]

WORD_BOUND = 2**63
# Polynomials in one message, answers in one, and polynomials of the mixer's at a time: what bounds the
# memory, and lets one party work while the other does.
_SENT = 16
_ANSWERED = 32
_TRANSFORMED = 64
# Answers whose sums are kept while an operand arrives.
_SUMMED = 128


class Sized(Protocol):
    """What is known of a product before it is made."""

    @property
    def parameters(self) -> Parameters: ...

    def operand_rows(self) -> list[int]:
        """Return how many ciphertexts are in each of the keeper's messages."""


@dataclass(frozen=True)
class Product:
    """A product that both parties are about to make: public.

    Attributes
    ----------
    layout : Layout
        Who keeps what, and how it is packed.
    parameters : Parameters
    bound : int
        The largest magnitude of the mixer's numbers, at most 2^63.
    life : int
        How many coefficients are answered from one operand of the mixer's in all.
    random : bool
        Whether the keeper's operand is a fresh mask, which the encryption makes.

    Raises
    ------
    RangeError
        If the parameters do not hide such an operand for so long; see
        :mod:`mpc.two_party.rlwe_parameters`.
    """

    layout: Layout
    parameters: Parameters
    bound: int
    life: int
    random: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.bound <= WORD_BOUND:
            raise RangeError(f"bound must be in [0, 2^63], got {self.bound}")
        if self.life < self.answered:
            raise RangeError(
                f"life must be at least {self.answered}, what one product answers, got {self.life}"
            )
        if self.random and not self.layout.dense:
            raise ArgumentError("only polynomials that are full of the operand may be random")
        self.parameters.check(self.bound * self.layout.used, self.life)

    @classmethod
    def choose(
        cls, layout: Layout, *, bound: int = WORD_BOUND, products: int = 1, random: bool = False
    ) -> Product:
        """Return the cheapest product, for `products` answers from the mixer's operand in its life.

        Raises
        ------
        RangeError
            If no parameters hide such an operand.
        """
        life = products * layout.kept_groups * layout.mixed_groups * len(layout.places)
        return cls(layout, choose_parameters(bound * layout.used, life), bound, life, random)

    @property
    def answered(self) -> int:
        """Coefficients that one product answers."""
        layout = self.layout
        return layout.kept_groups * layout.mixed_groups * len(layout.places)

    @property
    def distance_of_one(self) -> Fraction:
        """By how much one product shows the mixer's operand: a statistical distance."""
        return self.parameters.distance(self.bound * self.layout.used, self.answered)

    def fresh_life(self) -> Life:
        """Return a count of an operand's answers, from zero on."""
        return Life(self.life)

    def _sent(self) -> Iterator[tuple[int, int]]:
        """The keeper's polynomials, message by message; none has those of two groups."""
        terms = self.layout.terms
        for group in range(self.layout.kept_groups):
            for start in range(0, terms, _SENT):
                yield group * terms + start, group * terms + min(start + _SENT, terms)

    @cached_property
    def _mixes(self) -> list[tuple[int, int]]:
        """The mixer's groups that are transformed together."""
        most, groups = _ANSWERED, self.layout.mixed_groups
        if self.layout.run < LANES:
            most = max(1, min(most, _TRANSFORMED // max(1, self.layout.terms)))
        return [(start, min(start + most, groups)) for start in range(0, groups, most)]

    def _answers(self) -> Iterator[tuple[int, int, int]]:
        """The keeper's group and the mixer's groups of each answer: the latter are transformed once."""
        for start, stop in self._mixes:
            for group in range(self.layout.kept_groups):
                yield group, start, stop

    def memory_bytes(self) -> int:
        """Return how much memory an operand takes that the mixer keeps."""
        polynomials = self.layout.kept_groups * self.layout.terms
        return 2 * 8 * self.parameters.count * polynomials * LENGTH

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """Shape of the keeper's operand."""
        return self.layout.kept_shape

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        """Shape of the mixer's operand."""
        return self.layout.mixed_shape

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.layout.result_shape

    @property
    def share_shape(self) -> tuple[int, ...]:
        """Shape of what is read of all answers."""
        return self.layout.kept_groups, self.layout.mixed_groups, len(self.layout.places)

    def multiply(self, x: Words, w: Words) -> Words:
        """Return the product of a keeper's and a mixer's operand, in the clear."""
        return self.layout.multiply(x, w)

    def operand_rows(self) -> list[int]:
        """Return how many ciphertexts are in each of the keeper's messages."""
        return [stop - start for start, stop in self._sent()]

    def operand_words(self) -> list[int]:
        """Return how long each of the keeper's messages is."""
        parameters, random = self.parameters, self.random
        return [ciphertext_bytes(parameters, n, random=random) // 8 for n in self.operand_rows()]

    def answer_words(self) -> list[int]:
        """Return how long each of the mixer's messages is."""
        places = len(self.layout.places)
        return [answer_bytes(stop - start, places) // 8 for _, start, stop in self._answers()]

    def operand_bytes(self) -> int:
        """Return how many bytes the keeper sends."""
        return 8 * sum(self.operand_words())

    def answer_bytes(self) -> int:
        """Return how many bytes the mixer answers."""
        return 8 * sum(self.answer_words())

    def encrypt(self, key: SecretKey, x: Words | None) -> Iterator[Words]:
        """Return the keeper's messages, one after the other: step 1."""
        check_parameters(self.parameters, key.parameters, "the key")
        polynomials = self.layout.pack_kept(check_operand("keeper's", x, self.kept_shape))
        polynomials = polynomials.reshape(-1, LENGTH)
        return (as_words(encrypt(key, polynomials[a:b], Seed())) for a, b in self._sent())

    def read(self, public: PublicKey, data: bytes, rows: int, peer: str) -> Ciphertexts:
        """Read one of the keeper's messages."""
        return read_ciphertexts(
            self.parameters, data, rows, peer, random=self.random, label=public.label
        )

    def check_mixed(self, public: PublicKey, w: Words | None) -> Words:
        """Refuse a mixer's operand that does not fit, before anything is counted or sent."""
        check_parameters(self.parameters, public.parameters, "the public key")
        w = check_operand("mixer's", w, self.mixed_shape)
        _check_bound(self, w)
        return w

    def mixing(self, w: Words) -> Mixing:
        """Return what the mixer makes of an operand that serves this product alone."""
        return Mixing(self, w)

    def answers(
        self, kept: Ciphertexts, public: PublicKey, w: Words, shares: Words
    ) -> Iterator[Words]:
        """Return the mixer's messages, one after the other: step 2. They fill its shares."""
        check_kept(self, kept)
        shares[:] = Samples().words(*self.share_shape)
        return self._answered(kept, public, w, shares)

    def _answered(
        self, kept: Ciphertexts, public: PublicKey, w: Words, shares: Words
    ) -> Iterator[Words]:
        layout = self.layout
        whole = Ciphertexts(
            kept.parameters, np.ascontiguousarray(kept.c_0), np.ascontiguousarray(kept.c_1)
        )
        x, now = np.empty(0), (0, 0)
        for group, start, stop in self._answers():
            if now != (start, stop):
                x, now = _transformed(self, w, start, stop), (start, stop)
            sums = _empty_sums(self, stop - start)
            _mix(self, whole, group * layout.terms, x, sums)
            share = shares[group, start:stop]
            yield as_words(finish(public, Mixed(sums), share, layout.places))

    def open(self, key: SecretKey, k: int, data: bytes, peer: str, shares: Words) -> None:
        """Decrypt the mixer's message k into the keeper's shares: step 3."""
        mix, group = divmod(k, self.layout.kept_groups)
        start, stop = self._mixes[mix]
        part = shares[group, start:stop]
        part[:] = open_answers(key, data, stop - start, self.layout.places, peer)

    def unpack(self, shares: Words) -> Words:
        """Return the result from what is read of all answers."""
        return self.layout.unpack(shares)


def check_operand(name: str, x: Words | None, shape: tuple[int, ...]) -> Words:
    """Return an operand that is an array of words of this shape; refuse any other."""
    if not isinstance(x, np.ndarray) or x.dtype != np.uint64:
        raise DtypeError(f"the {name} operand must be a uint64 array")
    if x.shape != shape:
        raise ShapeError(f"the {name} operand must have shape {shape}, got {x.shape}")
    return x


def check_parameters(wanted: Parameters, found: Parameters, what: str) -> None:
    """Refuse a key, or what is encrypted, with other parameters than the product's."""
    if found != wanted:
        raise ArgumentError(f"{what} has parameters {found.name}, the product {wanted.name}")


def check_kept(product: Sized, kept: Ciphertexts) -> None:
    """Refuse an encrypted operand of another product's."""
    check_parameters(product.parameters, kept.parameters, "the keeper's operand")
    rows = sum(product.operand_rows())
    if kept.c_0.shape[1] != rows:
        raise ShapeError(
            f"the keeper's operand must have {rows} polynomials, got {kept.c_0.shape[1]}"
        )


class Mask:
    """A keeper's operand that is drawn as it is encrypted, by a product that says so at random.

    Attributes
    ----------
    pieces : iterator of arrays of words
        The keeper's messages.
    """

    def __init__(self, product: Product, key: SecretKey) -> None:
        check_parameters(product.parameters, key.parameters, "the key")
        self._layout = layout = product.layout
        self._drawn: Words | None = None
        if not product.random:
            self._drawn = Samples().words(*layout.kept_shape)
            self.pieces = product.encrypt(key, self._drawn)
            return
        self._polynomials = np.empty((layout.kept_groups * layout.terms, LENGTH), np.uint64)
        self.pieces = self._encrypted(product, key)

    def _encrypted(self, product: Product, key: SecretKey) -> Iterator[Words]:
        for start, stop in product._sent():
            self._polynomials[start:stop], data = encrypt_random(key, stop - start, Seed())
            yield as_words(data)

    def operand(self) -> Words:
        """Return the mask, once all pieces are made."""
        if self._drawn is not None:
            return self._drawn
        layout = self._layout
        shape = (layout.kept_groups, layout.terms, LENGTH)
        return layout.unpack_kept(self._polynomials.reshape(shape))


class Collected:
    """A keeper's operand as it arrives, all of which is kept."""

    def __init__(self, product: Sized) -> None:
        shape = (product.parameters.count, sum(product.operand_rows()), LENGTH)
        self.whole = Ciphertexts(product.parameters, np.empty(shape), np.empty(shape))
        self._at = 0

    def add(self, part: Ciphertexts) -> None:
        """Take the next message."""
        here = slice(self._at, self._at + part.c_0.shape[1])
        self.whole.c_0[:, here], self.whole.c_1[:, here] = part.c_0, part.c_1
        self._at = here.stop


class Mixing:
    """A keeper's operand as it arrives, for one product: its products with the mixer's are summed up.

    Where the sums take more memory than the operand, that is kept.
    """

    def __init__(self, product: Product, w: Words) -> None:
        layout = product.layout
        self._product, self._w, self._at = product, w, 0
        self._collected: Collected | None = None
        groups = layout.kept_groups * layout.mixed_groups
        most = max(_SUMMED, layout.kept_groups * layout.terms)
        if layout.run < LANES or not layout.terms or groups > most:
            self._collected = Collected(product)
            return
        self._x = _transformed(product, w, 0, layout.mixed_groups)
        self._sums = [_empty_sums(product, layout.mixed_groups) for _ in range(layout.kept_groups)]

    def add(self, part: Ciphertexts) -> None:
        """Take the next message."""
        if self._collected is not None:
            self._collected.add(part)
            return
        group, term = divmod(self._at, self._product.layout.terms)
        rows = part.c_0.shape[1]
        self._at += rows
        x = np.ascontiguousarray(self._x[..., term : term + rows])
        _mix(self._product, part, 0, x, self._sums[group])

    def answers(self, public: PublicKey, shares: Words) -> Iterator[Words]:
        """Return the mixer's messages; see :meth:`Product.answers`."""
        product = self._product
        if self._collected is not None:
            return product.answers(self._collected.whole, public, self._w, shares)
        shares[:] = Samples().words(*product.share_shape)
        return self._finished(public, shares)

    def _finished(self, public: PublicKey, shares: Words) -> Iterator[Words]:
        product = self._product
        for group, start, stop in product._answers():
            sums = self._sums[group]
            some = Ciphertexts(
                product.parameters, sums.c_0[:, start:stop].copy(), sums.c_1[:, start:stop].copy()
            )
            share = shares[group, start:stop]
            yield as_words(finish(public, Mixed(some), share, product.layout.places))


def _check_bound(product: Product, w: Words) -> None:
    """|w| <= bound, for words as signed integers, without a branch on one of them."""
    bound = product.bound
    if bound < WORD_BOUND and w.size and int((w + np.uint64(bound)).max()) > 2 * bound:
        raise RangeError(
            f"the mixer's operand must be at most {bound} in magnitude, as the product declares"
        )


def _transformed(product: Product, w: Words, start: int, stop: int) -> Residues:
    """Values at the roots of the mixer's polynomials, as the products take them."""
    layout, numbers = product.layout, product.parameters.numbers
    transform = product.parameters.transform
    polynomials = layout.pack_mixed(w, start, stop)
    if layout.run < LANES:
        # Most of a polynomial may be zeros that end it, whose residues are known.
        x = np.zeros((len(numbers), *polynomials.shape[:2], LENGTH))
        used = layout.run * polynomials.shape[2]
        x[..., : used : layout.run] = numbers.from_words(polynomials)
        transform.forward(x.reshape(len(numbers), -1, LENGTH))
        return x
    columns = np.ascontiguousarray(polynomials.transpose(2, 0, 1))
    x = numbers.from_words(columns)
    transform.forward_columns(x.reshape(len(numbers), len(columns), -1))
    return x


def _empty_sums(product: Product, count: int) -> Ciphertexts:
    shape = (product.parameters.count, count, LENGTH)
    return Ciphertexts(product.parameters, np.zeros(shape), np.zeros(shape))


def _mix(product: Product, kept: Ciphertexts, first: int, x: Residues, sums: Ciphertexts) -> None:
    """Add products of the keeper's polynomials from `first` on with the mixer's to sums."""
    add = add_slot_products if product.layout.run < LANES else add_run_products
    for component, out in ((kept.c_0, sums.c_0), (kept.c_1, sums.c_1)):
        add(product.parameters.numbers, component, x, out, first)
