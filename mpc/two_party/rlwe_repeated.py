"""Several products of the same kind at once, in as many rounds as one: for stacks of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_ciphertexts import Ciphertexts
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_parameters import Parameters
from mpc.two_party.rlwe_products import Mixing, Product, check_kept, check_operand

__all__ = ["Repeated"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Repeated:
    """A product of stacks of operands, one with one; see :class:`mpc.two_party.rlwe_products.Product`.

    Attributes
    ----------
    one : Product
        Each of them.
    count : int
        How many.
    """

    one: Product
    count: int

    @property
    def parameters(self) -> Parameters:
        return self.one.parameters

    @property
    def life(self) -> int:
        return self.count * self.one.life

    @property
    def answered(self) -> int:
        return self.count * self.one.answered

    def fresh_life(self) -> Life:
        """Return a count of an operand's answers, from zero on."""
        return Life(self.life)

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return self.count, *self.one.kept_shape

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        return self.count, *self.one.mixed_shape

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.count, *self.one.result_shape

    @property
    def share_shape(self) -> tuple[int, ...]:
        return self.count, *self.one.share_shape

    def memory_bytes(self) -> int:
        """Return how much memory an operand takes that the mixer keeps."""
        return self.count * self.one.memory_bytes()

    def multiply(self, x: Words, w: Words) -> Words:
        """Return the products of a keeper's and a mixer's operands, in the clear."""
        return np.stack([self.one.multiply(a, b) for a, b in zip(x, w, strict=True)])

    def operand_rows(self) -> list[int]:
        """Return how many ciphertexts are in each of the keeper's messages."""
        return self.count * self.one.operand_rows()

    def operand_words(self) -> list[int]:
        """Return how long each of the keeper's messages is."""
        return self.count * self.one.operand_words()

    def answer_words(self) -> list[int]:
        """Return how long each of the mixer's messages is."""
        return self.count * self.one.answer_words()

    def encrypt(self, key: SecretKey, x: Words | None) -> Iterator[Words]:
        """Return the keeper's messages."""
        whole = check_operand("keeper's", x, self.kept_shape)
        return chain.from_iterable(self.one.encrypt(key, part) for part in whole)

    def read(self, public: PublicKey, data: bytes, rows: int, peer: str) -> Ciphertexts:
        """Read one of the keeper's messages."""
        return self.one.read(public, data, rows, peer)

    def check_mixed(self, public: PublicKey, w: Words | None) -> Words:
        """Refuse a mixer's operand that does not fit."""
        whole = check_operand("mixer's", w, self.mixed_shape)
        for part in whole:
            self.one.check_mixed(public, part)
        return whole

    def mixing(self, w: Words) -> _Mixings:
        """Return what takes the keeper's messages as they come, and then gives the answers."""
        return _Mixings(self.one, w)

    def answers(
        self, kept: Ciphertexts, public: PublicKey, w: Words, shares: Words
    ) -> Iterator[Words]:
        """Return the mixer's messages, which fill its shares."""
        check_kept(self, kept)
        rows = sum(self.one.operand_rows())

        def part(k: int) -> Iterator[Words]:
            here = slice(k * rows, (k + 1) * rows)
            some = Ciphertexts(kept.parameters, kept.c_0[:, here], kept.c_1[:, here])
            return self.one.answers(some, public, w[k], shares[k])

        return chain.from_iterable(map(part, range(self.count)))

    def open(self, key: SecretKey, k: int, data: bytes, peer: str, shares: Words) -> None:
        """Decrypt the mixer's message k into the keeper's shares."""
        which, message = divmod(k, len(self.one.answer_words()))
        self.one.open(key, message, data, peer, shares[which])

    def unpack(self, shares: Words) -> Words:
        """Return the results from what is read of all answers."""
        return np.stack([self.one.unpack(part) for part in shares])


class _Mixings:
    """What the mixer makes of one operand after the other."""

    def __init__(self, one: Product, w: Words) -> None:
        self._w, self._one, self._messages = w, one, len(one.operand_words())
        self._mixings: list[Mixing] = []
        self._taken = 0

    def add(self, part: Ciphertexts) -> None:
        """Take the next message."""
        which, message = divmod(self._taken, self._messages)
        if not message:
            self._mixings.append(self._one.mixing(self._w[which]))
        self._taken += 1
        self._mixings[which].add(part)

    def answers(self, public: PublicKey, shares: Words) -> Iterator[Words]:
        """Return the mixer's messages."""
        return chain.from_iterable(
            mixing.answers(public, part) for mixing, part in zip(self._mixings, shares, strict=True)
        )
