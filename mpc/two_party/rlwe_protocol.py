"""How two parties make a product by ring-LWE: who sends what, in which round.

A product, of matrices or images (:mod:`mpc.two_party.rlwe_products`) or elementwise
(:mod:`mpc.two_party.rlwe_slots`), says what each party computes. The keeper of an operand has a secret key,
the mixer of the other operand its public key (:func:`make_keys`).

1. The keeper sends its operand, encrypted: once for all products that it serves.
2. The mixer answers.

Cost: a round each. Where both parties have shares of both operands, each is keeper of one share and mixer
of another, and both do the same at the same time: 2 rounds as well.
Which of the two a party is, is public; what it does not know is None in the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError
from mpc.two_party.channel import Channel, send, stream, trade
from mpc.two_party.cost import Cost
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_ciphertexts import Ciphertexts
from mpc.two_party.rlwe_keys import PublicKey, SecretKey
from mpc.two_party.rlwe_parameters import Parameters
from mpc.two_party.rlwe_products import Collected, Mask, Product, Sized
from mpc.two_party.rlwe_wire import as_words, pack_words

__all__ = [
    "Kept",
    "Keys",
    "Multiplication",
    "cross_cost",
    "cross_products",
    "keep",
    "make_keys",
    "multiply_kept",
    "multiply_mask",
    "multiply_private",
    "product_cost",
]  # fmt: skip

Words = NDArray[np.uint64]


class Multiplication(Sized, Protocol):
    """What is asked of a product."""

    @property
    def life(self) -> int:
        """Coefficients that are answered from one operand of the mixer's in all."""

    @property
    def answered(self) -> int:
        """Coefficients that one product answers."""

    @property
    def result_shape(self) -> tuple[int, ...]: ...

    @property
    def share_shape(self) -> tuple[int, ...]:
        """Shape of what is read of all answers."""

    def multiply(self, x: Words, w: Words) -> Words:
        """Return the product of a keeper's and a mixer's operand, in the clear."""

    def operand_words(self) -> list[int]:
        """Return how long each of the keeper's messages is."""

    def answer_words(self) -> list[int]:
        """Return how long each of the mixer's messages is."""

    def encrypt(self, key: SecretKey, x: Words | None) -> Iterator[Words]:
        """Return the keeper's messages."""

    def read(self, public: PublicKey, data: bytes, rows: int, peer: str) -> Ciphertexts:
        """Read one of the keeper's messages."""

    def check_mixed(self, public: PublicKey, w: Words | None) -> Words:
        """Refuse a mixer's operand that does not fit."""

    def mixing(self, w: Words) -> Any:
        """Return what takes the keeper's messages as they come, and then gives the answers."""

    def answers(
        self, kept: Ciphertexts, public: PublicKey, w: Words, shares: Words
    ) -> Iterator[Words]:
        """Return the mixer's messages, which fill its shares."""

    def open(self, key: SecretKey, k: int, data: bytes, peer: str, shares: Words) -> None:
        """Decrypt the mixer's message k into the keeper's shares."""

    def unpack(self, shares: Words) -> Words:
        """Return the result from what is read of all answers."""


@dataclass(frozen=True, repr=False)
class Keys:
    """What the parties hold of a keeper's keys.

    Attributes
    ----------
    keeper : int
    secret : SecretKey, where the keeper lives; elsewhere None
    public : PublicKey, where the mixer lives; elsewhere None
    """

    keeper: int
    secret: SecretKey | None
    public: PublicKey | None


@dataclass(frozen=True, repr=False)
class Kept:
    """A keeper's operand, encrypted, for any number of products.

    Attributes
    ----------
    keys : Keys
    ciphertexts : Ciphertexts, where the mixer lives; elsewhere None
    """

    keys: Keys
    ciphertexts: Ciphertexts | None


def product_cost(product: Multiplication, keeper: int, *, kept: bool = False) -> Cost:
    """Declare the cost of a product, or of one with an operand that is kept."""
    operand, answer = 8 * sum(product.operand_words()), 8 * sum(product.answer_words())
    if kept:
        operand = 0
    sent = (operand, answer) if keeper == 0 else (answer, operand)
    return Cost(rounds=(operand > 0) + (answer > 0), sent=sent)


def cross_cost(product: Multiplication) -> Cost:
    """Declare the cost of :func:`cross_products`."""
    operand, answer = 8 * sum(product.operand_words()), 8 * sum(product.answer_words())
    return Cost(rounds=(operand > 0) + (answer > 0), sent=(operand + answer,) * 2)


def make_keys(channel: Channel, session: bytes, keeper: int, parameters: Parameters) -> Keys:
    """Make a keeper's keys, and tell the mixer the public one: 1 round."""
    label = session + bytes([keeper])
    secret = SecretKey(parameters, label) if keeper in channel.parties else None
    message = None if secret is None else as_words(secret.public.to_bytes())
    got = send(channel, keeper, PublicKey.count_bytes(parameters) // 8, message)
    public = None
    if got is not None:
        name = channel.names[keeper]
        public = PublicKey.from_bytes(parameters, pack_words(got), name, label)
    return Keys(keeper, secret, public)


def _spend(channel: Channel, product: Multiplication, life: Life) -> None:
    if life.coefficients > product.life:
        raise ArgumentError(
            f"the operand's life is {life.coefficients} coefficients, the product allows {product.life}"
        )
    # A plan answers nothing.
    if channel.parties:
        life.spend(product.answered)


def _receive(
    channel: Channel,
    product: Multiplication,
    keys: Keys,
    pieces: Iterator[Words] | None,
    take: Callable[[Ciphertexts], None],
) -> None:
    """Step 1: the mixer takes messages as they come."""
    name, rows = channel.names[keys.keeper], product.operand_rows()
    arriving = stream(channel, keys.keeper, product.operand_words(), pieces)
    for count, got in zip(rows, arriving, strict=True):
        if got is not None:
            assert keys.public is not None
            take(product.read(keys.public, pack_words(got), count, name))


def _answer(
    channel: Channel,
    product: Multiplication,
    keys: Keys,
    pieces: Iterator[Words] | None,
    mine: Words,
) -> Words:
    """Step 2: the keeper decrypts messages as they come. Return each party's share."""
    mixer, theirs = 1 - keys.keeper, np.empty(product.share_shape, np.uint64)
    for k, got in enumerate(stream(channel, mixer, product.answer_words(), pieces)):
        if got is not None:
            assert keys.secret is not None
            product.open(keys.secret, k, pack_words(got), channel.names[mixer], theirs)
    out = np.empty((len(channel.parties), *product.result_shape), np.uint64)
    for row, party in zip(out, channel.parties, strict=True):
        row[:] = product.unpack(mine if party == mixer else theirs)
    return out


def keep(channel: Channel, product: Multiplication, keys: Keys, x: Words | None) -> Kept:
    """Step 1 for an operand that serves many products.

    Parameters
    ----------
    x : array of words, where the keeper lives; elsewhere None
    """
    pieces = None if keys.secret is None else product.encrypt(keys.secret, x)
    if keys.public is None:
        _receive(channel, product, keys, pieces, lambda part: None)
        return Kept(keys, None)
    found = Collected(product)
    _receive(channel, product, keys, pieces, found.add)
    return Kept(keys, found.whole)


def multiply_kept(
    channel: Channel, product: Multiplication, kept: Kept, w: Words | None, life: Life
) -> Words:
    """Step 2: multiply an operand that is kept with the mixer's. Return shares, (p, ...).

    Parameters
    ----------
    w : array of words, where the mixer lives; elsewhere None
    life : Life
        What counts the answers from this w.

    Raises
    ------
    RangeError
        If the mixer's operand is larger than the product declares.
    SessionError
        If its life does not have another product's coefficients.
    """
    keys, pieces = kept.keys, None
    shares = np.empty(product.share_shape, np.uint64)
    if keys.public is not None:
        assert kept.ciphertexts is not None
        w = product.check_mixed(keys.public, w)
        pieces = product.answers(kept.ciphertexts, keys.public, w, shares)
    _spend(channel, product, life)
    return _answer(channel, product, keys, pieces, shares)


def multiply_private(
    channel: Channel,
    product: Multiplication,
    keys: Keys,
    x: Words | None,
    w: Words | None,
    life: Life,
) -> Words:
    """Both steps, for an operand of the keeper's that serves once: as :func:`keep` and then once."""
    pieces = None if keys.secret is None else product.encrypt(keys.secret, x)
    return _multiply_once(channel, product, keys, pieces, w, life)


def multiply_mask(
    channel: Channel, product: Product, keys: Keys, w: Words | None, life: Life
) -> tuple[Words | None, Words]:
    """Multiply a fresh mask of the keeper's, which this draws.

    Returns
    -------
    mask : array of words, where the keeper lives; elsewhere None
    shares : array of words, (p, ...)
    """
    mask = None if keys.secret is None else Mask(product, keys.secret)
    pieces = None if mask is None else mask.pieces
    shares = _multiply_once(channel, product, keys, pieces, w, life)
    return None if mask is None else mask.operand(), shares


def _multiply_once(
    channel: Channel,
    product: Multiplication,
    keys: Keys,
    pieces: Iterator[Words] | None,
    w: Words | None,
    life: Life,
) -> Words:
    if keys.public is not None:
        w = product.check_mixed(keys.public, w)
    _spend(channel, product, life)
    shares = np.empty(product.share_shape, np.uint64)
    if keys.public is None:
        _receive(channel, product, keys, pieces, lambda part: None)
        return _answer(channel, product, keys, None, shares)
    assert w is not None
    mixing = product.mixing(w)
    _receive(channel, product, keys, pieces, mixing.add)
    return _answer(channel, product, keys, mixing.answers(keys.public, shares), shares)


def _joined(pieces: Iterator[Words]) -> Words:
    return np.concatenate([np.empty(0, np.uint64), *pieces])


def _cut(words: Words, counts: list[int]) -> list[Words]:
    return np.split(words, np.cumsum(counts)[:-1]) if counts else []


def cross_products(
    channel: Channel,
    product: Multiplication,
    keys: tuple[Keys, Keys],
    x: Words,
    w: Words,
    life: Life,
) -> Words:
    """Return shares, (p, ...), of the sum of x_0 with w_1 and x_1 with w_0.

    Party i alone knows x_i, of which it is keeper, and w_i, of which it is mixer.

    Parameters
    ----------
    keys : tuple of Keys
        The first party's, then the second's.
    x, w : arrays of words, (p, ...)
    life : Life
        What counts the answers from w_0, and from w_1: as many of each.
    """
    asked, answered = product.operand_words(), product.answer_words()
    pieces = {}
    for i, party in enumerate(channel.parties):
        secret, public = keys[party].secret, keys[1 - party].public
        assert secret is not None and public is not None
        product.check_mixed(public, w[i])
        pieces[party] = product.encrypt(secret, x[i])
    _spend(channel, product, life)
    sent = {party: _joined(some) for party, some in pieces.items()}
    heard = trade(channel, sent, (sum(asked),) * 2)
    out = np.empty((len(channel.parties), *product.result_shape), np.uint64)
    sent = {}
    for i, party in enumerate(channel.parties):
        public, name = keys[1 - party].public, channel.names[1 - party]
        assert public is not None
        mixing = product.mixing(w[i])
        for rows, words in zip(product.operand_rows(), _cut(heard[party], asked), strict=True):
            mixing.add(product.read(public, pack_words(words), rows, name))
        shares = np.empty(product.share_shape, np.uint64)
        sent[party] = _joined(mixing.answers(public, shares))
        out[i] = product.unpack(shares)
    heard = trade(channel, sent, (sum(answered),) * 2)
    for i, party in enumerate(channel.parties):
        secret, name = keys[party].secret, channel.names[1 - party]
        assert secret is not None
        theirs = np.empty(product.share_shape, np.uint64)
        for k, words in enumerate(_cut(heard[party], answered)):
            product.open(secret, k, pack_words(words), name, theirs)
        out[i] += product.unpack(theirs)
    return out
