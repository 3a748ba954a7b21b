"""Products of a matrix that one party knows with one that the other knows, as additive shares.

The keeper encrypts its operand, the mixer multiplies with its own and answers; C_0 + C_1 is the product
modulo 2^64, exactly, C_0 the mixer's. Which way a product goes, follows from what is known:

- **A**: the mixer's operand is small (weights of a bounded magnitude), the keeper's a fresh mask: it is
  what public random strings decrypt to, for 14.5 bytes an element (:func:`send_mask`).
- **B**: the keeper's operand stays (weights), and is encrypted once for all products
  (:class:`~mpc.two_party.rlwe_layouts.KeptRight`); the mixer's are fresh masks. For few rows.
- **G**: any numbers on both sides.

One protocol serves all three:

1. The keeper sends its operand: seeds and ciphertexts, some polynomials at a time.
2. The mixer multiplies, masks with fresh shares and answers, some answers at a time.
3. The keeper decrypts them.

Rounds: 2 messages one way each, step 1 once for an operand. Bytes: :meth:`Product.operand_bytes` and
:meth:`Product.answer_bytes`.

Semi-honest: the mixer learns nothing of the keeper's operand but by breaking ring-LWE; the keeper
learns of the mixer's what the flood lets through, at most 2^-40 in statistical distance over the
operand's declared life. A keeper that sends ciphertexts of its own making may learn the mixer's operand.

References: Huang and others 2022 (ePrint 2022/207) for the packing; the random strings, the flood and the
shorter answers are of this library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from ring.ntt import Residues
from ring.residue_products import add_run_products, add_slot_products
from ring.vectors import LANES

__all__ = [
    "Channel",
    "Product",
    "answer",
    "check_operand",
    "multiply_shared",
    "read_public_key",
    "receive_and_answer",
    "receive_answer",
    "receive_operand",
    "send_mask",
    "send_operand",
]

Words = NDArray[np.uint64]

WORD_BOUND = 2**63
# Polynomials in one message, answers in one, and polynomials of the mixer's at a time: what bounds the
# memory, and lets one party work while the other does.
_SENT = 16
_ANSWERED = 32
_TRANSFORMED = 64
# Answers whose sums are kept while an operand arrives.
_SUMMED = 128


class Channel(Protocol):
    """To the other party. Both parties may send at once: `send` must not wait for it to receive."""

    @property
    def peer(self) -> str:
        """The other party's name."""

    def send(self, data: bytes) -> None: ...

    def receive(self, count: int) -> bytes:
        """Return the next `count` bytes."""


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

    def fresh_life(self) -> Life:
        """Return a count of an operand's answers, from zero on."""
        return Life(self.life)

    def _sent(self) -> Iterator[tuple[int, int]]:
        """The keeper's polynomials, message by message; none has those of two groups."""
        terms = self.layout.terms
        for group in range(self.layout.kept_groups):
            for start in range(0, terms, _SENT):
                yield group * terms + start, group * terms + min(start + _SENT, terms)

    def _mixes(self) -> Iterator[tuple[int, int]]:
        """The mixer's groups that are transformed together."""
        most = _ANSWERED
        if self.layout.run < LANES:
            most = max(1, min(most, _TRANSFORMED // max(1, self.layout.terms)))
        for start in range(0, self.layout.mixed_groups, most):
            yield start, min(start + most, self.layout.mixed_groups)

    def memory_bytes(self) -> int:
        """Return how much memory an operand takes that the mixer keeps."""
        polynomials = self.layout.kept_groups * self.layout.terms
        return 2 * 8 * self.parameters.count * polynomials * LENGTH

    def operand_bytes(self) -> int:
        """Return how many bytes the keeper sends."""
        return sum(
            ciphertext_bytes(self.parameters, stop - start, random=self.random)
            for start, stop in self._sent()
        )

    def answer_bytes(self) -> int:
        """Return how many bytes the mixer answers."""
        places = len(self.layout.places)
        one = sum(answer_bytes(stop - start, places) for start, stop in self._mixes())
        return self.layout.kept_groups * one


def check_operand(name: str, x: Words, shape: tuple[int, ...]) -> Words:
    """Return an operand that is an array of words of this shape; refuse any other."""
    if not isinstance(x, np.ndarray) or x.dtype != np.uint64:
        raise DtypeError(f"the {name} operand must be a uint64 array")
    if x.shape != shape:
        raise ShapeError(f"the {name} operand must have shape {shape}, got {x.shape}")
    return x


def _same_parameters(product: Product, found: Parameters, what: str) -> None:
    if found != product.parameters:
        raise ArgumentError(
            f"{what} has parameters {found.name}, the product {product.parameters.name}"
        )


def read_public_key(parameters: Parameters, channel: Channel) -> PublicKey:
    """Receive the other party's public key."""
    data = channel.receive(PublicKey.count_bytes(parameters))
    return PublicKey.from_bytes(parameters, data, channel.peer)


def send_operand(product: Product, key: SecretKey, x: Words, channel: Channel) -> None:
    """Keeper, step 1: encrypt its operand and send it."""
    layout = product.layout
    _same_parameters(product, key.parameters, "the key")
    polynomials = layout.pack_kept(check_operand("keeper's", x, layout.kept_shape))
    polynomials = polynomials.reshape(-1, LENGTH)
    for start, stop in product._sent():
        channel.send(encrypt(key, polynomials[start:stop], Seed()))


def send_mask(product: Product, key: SecretKey, channel: Channel) -> Words:
    """Keeper, step 1, for a fresh mask: draw it and send it encrypted. Return it.

    Where the product says so, the mask is what public random strings decrypt to.
    """
    layout = product.layout
    _same_parameters(product, key.parameters, "the key")
    if not product.random:
        mask = Samples().words(*layout.kept_shape)
        send_operand(product, key, mask, channel)
        return mask
    polynomials = np.empty((layout.kept_groups * layout.terms, LENGTH), np.uint64)
    for start, stop in product._sent():
        polynomials[start:stop], data = encrypt_random(key, stop - start, Seed())
        channel.send(data)
    return layout.unpack_kept(polynomials.reshape(layout.kept_groups, layout.terms, LENGTH))


def _receive_some(product: Product, count: int, channel: Channel) -> Ciphertexts:
    """Receive one of the keeper's messages."""
    parameters, random = product.parameters, product.random
    data = channel.receive(ciphertext_bytes(parameters, count, random=random))
    return read_ciphertexts(parameters, data, count, channel.peer, random=random)


def receive_operand(product: Product, channel: Channel) -> Ciphertexts:
    """Mixer, step 1: receive the keeper's operand, for one product or for many."""
    layout, parameters = product.layout, product.parameters
    shape = (parameters.count, layout.kept_groups * layout.terms, LENGTH)
    found = Ciphertexts(parameters, np.empty(shape), np.empty(shape))
    for start, stop in product._sent():
        part = _receive_some(product, stop - start, channel)
        found.c_0[:, start:stop], found.c_1[:, start:stop] = part.c_0, part.c_1
    return found


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
        if layout.run > 1:
            spread = np.zeros((*polynomials.shape, layout.run), np.uint64)
            spread[..., 0] = polynomials
            polynomials = spread.reshape(*polynomials.shape[:2], LENGTH)
        x = numbers.from_words(polynomials)
        transform.forward(x.reshape(len(numbers), -1, LENGTH))
        return x
    columns = np.ascontiguousarray(polynomials.transpose(2, 0, 1))
    x = numbers.from_words(columns)
    transform.forward_columns(x.reshape(len(numbers), len(columns), -1))
    return x


def _empty_sums(product: Product, count: int) -> Ciphertexts:
    shape = (product.parameters.count, count, LENGTH)
    return Ciphertexts(product.parameters, np.zeros(shape), np.zeros(shape))


def _mix(product: Product, kept: Ciphertexts, x: Residues, sums: Ciphertexts) -> None:
    """Add products of some of a group of the keeper's polynomials with the mixer's to sums."""
    add = add_slot_products if product.layout.run < LANES else add_run_products
    for component, out in ((kept.c_0, sums.c_0), (kept.c_1, sums.c_1)):
        add(product.parameters.numbers, np.ascontiguousarray(component), x, out)


def _begin(product: Product, public: PublicKey, w: Words, life: Life) -> Words:
    """Check a mixer's arguments, count what it will answer, and draw its shares."""
    layout = product.layout
    _same_parameters(product, public.parameters, "the public key")
    w = check_operand("mixer's", w, layout.mixed_shape)
    _check_bound(product, w)
    if life.coefficients > product.life:
        raise ArgumentError(
            f"the operand's life is {life.coefficients} coefficients, the product allows {product.life}"
        )
    life.spend(product.answered)
    return Samples().words(layout.kept_groups, layout.mixed_groups, len(layout.places))


def answer(
    product: Product, kept: Ciphertexts, public: PublicKey, w: Words, channel: Channel, life: Life
) -> Words:
    """Mixer, step 2: multiply the keeper's operand with its own, and answer. Return C_0.

    Parameters
    ----------
    life : Life
        What counts the answers from this operand of the mixer's.

    Raises
    ------
    RangeError
        If the operand is larger than the product declares.
    SessionError
        If the operand's life does not have another product's coefficients.
    """
    layout, places = product.layout, product.layout.places
    _same_parameters(product, kept.parameters, "the keeper's operand")
    polynomials = layout.kept_groups * layout.terms
    if kept.c_0.shape[1] != polynomials:
        raise ShapeError(
            f"the keeper's operand must have {polynomials} polynomials, got {kept.c_0.shape[1]}"
        )
    shares = _begin(product, public, w, life)
    x, now = np.empty(0), (0, 0)
    for group in range(layout.kept_groups):
        here = slice(group * layout.terms, (group + 1) * layout.terms)
        part = Ciphertexts(kept.parameters, kept.c_0[:, here], kept.c_1[:, here])
        for start, stop in product._mixes():
            if now != (start, stop):
                x, now = _transformed(product, w, start, stop), (start, stop)
            sums = _empty_sums(product, stop - start)
            _mix(product, part, x, sums)
            channel.send(finish(public, Mixed(sums), shares[group, start:stop], places))
    return layout.unpack(shares)


def receive_and_answer(
    product: Product, public: PublicKey, w: Words, channel: Channel, life: Life
) -> Words:
    """Mixer, steps 1 and 2: multiply a keeper's operand that serves this product alone. Return C_0.

    As :func:`receive_operand` and :func:`answer`, but what arrives is multiplied at once and not
    kept, where the sums take less memory than it would.
    """
    layout, places = product.layout, product.layout.places
    terms = layout.terms
    if layout.run < LANES or not terms or layout.mixed_groups > max(_SUMMED, terms):
        return answer(product, receive_operand(product, channel), public, w, channel, life)
    shares = _begin(product, public, w, life)
    x = _transformed(product, w, 0, layout.mixed_groups)
    sums = _empty_sums(product, layout.mixed_groups)
    for first, last in product._sent():
        group, term = divmod(first, terms)
        part = _receive_some(product, last - first, channel)
        _mix(product, part, np.ascontiguousarray(x[..., term : term + last - first]), sums)
        if last < (group + 1) * terms:
            continue
        for start, stop in product._mixes():
            some = Ciphertexts(
                product.parameters, sums.c_0[:, start:stop].copy(), sums.c_1[:, start:stop].copy()
            )
            channel.send(finish(public, Mixed(some), shares[group, start:stop], places))
        sums.c_0[:] = sums.c_1[:] = 0
    return layout.unpack(shares)


def receive_answer(product: Product, key: SecretKey, channel: Channel) -> Words:
    """Keeper, step 3: receive and decrypt the answers. Return C_1."""
    layout = product.layout
    _same_parameters(product, key.parameters, "the key")
    places = layout.places
    shares = np.empty((layout.kept_groups, layout.mixed_groups, len(places)), np.uint64)
    for group in range(layout.kept_groups):
        for start, stop in product._mixes():
            data = channel.receive(answer_bytes(stop - start, len(places)))
            shares[group, start:stop] = open_answers(key, data, stop - start, places, channel.peer)
    return layout.unpack(shares)


def multiply_shared(
    product: Product,
    key: SecretKey,
    public: PublicKey,
    x: Words,
    w: Words,
    channel: Channel,
    life: Life,
) -> Words:
    """Multiply operands of which each party has an additive share: (x_0 + x_1) (w_0 + w_1).

    Both parties call it, each keeper of its x and mixer of its w. Return this party's share.

    Parameters
    ----------
    public : PublicKey
        The other party's.
    life : Life
        What counts the answers from this w.
    """
    send_operand(product, key, x, channel)
    own = product.layout.multiply(x, w)
    own += receive_and_answer(product, public, w, channel, life)
    own += receive_answer(product, key, channel)
    return own
