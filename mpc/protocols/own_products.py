"""Products of two secrets in a session without a provider: elementwise and matrix.

x w = x_0 w_0 + x_1 w_1 + x_0 w_1 + x_1 w_0. The first two terms are local, each of the others is a product
of what one party knows with what the other knows: a cross term.
If x is an input of party j, it is j's alone: x w = x w_j + x w_i, one local term and one cross term;
likewise for w. A product of two inputs of one party is local; it is shared afresh, since shares of it may
be opened beside others.

Cross terms of matrices are made by ring-LWE (:mod:`mpc.two_party.rlwe_products`): one party encrypts its
operand, the other multiplies and answers, whichever way takes fewer bytes. A right operand that is an
input, such as a model's weights, stays encrypted at the other party for products of few rows, and masks of
the other's rows may be multiplied with it ahead (:mod:`mpc.two_party.mask_products`). Elementwise,
few numbers take oblivious transfers (:mod:`mpc.two_party.product`), more :mod:`mpc.two_party.rlwe_slots`.

Source: cross terms of shares by oblivious transfer, Gilboa 1999; by encryption, see the files named.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.two_party.joint import fresh_shares
from mpc.two_party.mask_products import FEW_ROWS, MaskProducts, factors_of, multiply_masked
from mpc.two_party.operands import INPUT_PRODUCTS, product_for
from mpc.two_party.pair import Pair, padded
from mpc.two_party.product import cross_products
from mpc.two_party.rlwe_layouts import choose_left, choose_right
from mpc.two_party.rlwe_parameters import DISTANCE_BITS
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import product_cost
from mpc.two_party.rlwe_slots import SlotProduct
from ring.bits import WORD_BITS
from ring.matmul import matmul_add

__all__ = ["matmul", "multiply"]

Words = NDArray[np.uint64]

# From so many numbers on elementwise products are made by ring-LWE, so many at a time.
SLOTS_FROM = 3000
_SLOTS = 1 << 20


class _Operand:
    """What each party knows of a secret.

    Attributes
    ----------
    words : list of arrays
        What each party that lives here knows: an input its owner whole, other arrays each its share.
    known : tuple of bool
        For each party, whether it knows anything but zeros.
    bound : int
        On the magnitude of what a party knows.
    products : int
        How many products a life should have.
    array : array
        What all of `words` are views of.
    """

    def __init__(self, x: SecretValue) -> None:
        here, plaintext = x.session.here, x.plaintext
        self.plaintext = plaintext
        if plaintext is None:
            self.array = x.shares
            self.words = list(x.shares)
            self.known = (True, True)
            self.bound, self.products = WORD_BOUND, 1
            return
        nothing = np.zeros(x.shape, np.uint64)
        self.array = plaintext.base.encoded
        self.words = [
            plaintext.encoded[0] if party == plaintext.owner else nothing for party in here
        ]
        self.known = (plaintext.owner == 0, plaintext.owner == 1)
        self.bound, self.products = x.bound, INPUT_PRODUCTS


def _cross(x: _Operand, w: _Operand) -> list[int]:
    """Return the parties whose x is to be multiplied with the other's w."""
    return [party for party in (0, 1) if x.known[party] and w.known[1 - party]]


def multiply(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    """Return shares of the elementwise product, of shape (p, *shape)."""
    left, right = _Operand(x), _Operand(w)
    z = np.empty((len(session.here), *shape), np.uint64)
    numbers, factors = np.empty_like(z), np.empty_like(z)
    for row, (a, b) in enumerate(zip(left.words, right.words, strict=True)):
        numbers[row], factors[row] = a, b
        np.multiply(numbers[row], factors[row], out=z[row, ...])
    size, parties = prod(shape), _cross(left, right)
    if not size:
        return z
    if not parties:
        return fresh_shares(session, z).reshape(z.shape)
    flat = [v.reshape(len(v), size) for v in (numbers, factors)]
    mixed = None if size < SLOTS_FROM else _with_room(pair, (right, left), size)
    if mixed is None:
        # Of x_i w_j the bits of w_j are chosen by.
        bits = [WORD_BITS if 1 - party in parties else 0 for party in (0, 1)]
        cross = cross_products(
            pair, padded(flat[0], size), padded(flat[1], size), (bits[0], bits[1])
        )[:, :size]
    elif mixed is right:
        cross = _by_slots(pair, flat[0], flat[1], right, parties)
    else:
        others = [party for party in (0, 1) if 1 - party in parties]
        cross = _by_slots(pair, flat[1], flat[0], left, others)
    z += cross.reshape(z.shape)
    return z


def _with_room(pair: Pair, operands: tuple[_Operand, ...], size: int) -> _Operand | None:
    """Return the first operand that so many answers may show a little more of."""
    for mixed in operands:
        pieces = pairwise([*range(0, size, _SLOTS), size])
        more = sum(_slots(stop - start).distance_of_one for start, stop in pieces)
        if more <= pair.operands.room(mixed.array):
            return mixed
    return None


def _by_slots(
    pair: Pair, numbers: Words, factors: Words, mixed: _Operand, parties: list[int]
) -> Words:
    out = np.empty_like(numbers)
    size = numbers.shape[1]
    for start, stop in pairwise([*range(0, size, _SLOTS), size]):
        product = _slots(stop - start)
        life = pair.operands.life(mixed.array, product)
        x = np.ascontiguousarray(numbers[:, start:stop])
        w = np.ascontiguousarray(factors[:, start:stop])
        if len(parties) == 2:
            out[:, start:stop] = pair.cross_products(product, x, w, life)
            continue
        keeper = parties[0]
        mine = _where(pair, x, keeper)
        theirs = _where(pair, w, 1 - keeper)
        out[:, start:stop] = pair.multiply_private(product, keeper, mine, theirs, life)
    return out


def _slots(size: int) -> SlotProduct:
    """Return the elementwise product with the longest life of an operand, up to 2^16 products."""
    products = 1
    while products < INPUT_PRODUCTS and SlotProduct.allows(size, 2 * products):
        products *= 2
    return SlotProduct(size, products)


def _where(pair: Pair, words: Words | list[Words], party: int) -> Words | None:
    """Return the row of a party, None if it does not live here."""
    return words[pair.parties.index(party)] if party in pair.parties else None


def matmul(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    """Return shares of the matrix product, of shape (p, *shape)."""
    left, right = _Operand(x), _Operand(w)
    z = np.zeros((len(session.here), *shape), np.uint64)
    for out, a, b in zip(z, left.words, right.words, strict=True):
        matmul_add(a, b, out)
    parties = _cross(left, right)
    if not parties:
        return fresh_shares(session, z).reshape(z.shape)
    if not x.size or not w.size:
        return z
    (m, n), k = shape[-2:], x.shape[-1]
    if w.ndim == 2:
        # Rows are rows, whatever the leading axes.
        rows = prod(shape[:-1])
        a = [words.reshape(rows, k) for words in left.words]
        z += _matrices(pair, (rows, k, n), left, right, a, right.words, parties).reshape(z.shape)
        return z
    wide = [np.broadcast_to(v, (*shape[:-2], m, k)) for v in left.words]
    tall = [np.broadcast_to(v, (*shape[:-2], k, n)) for v in right.words]
    for at in np.ndindex(*shape[:-2]):
        a, b = [v[at] for v in wide], [v[at] for v in tall]
        z[(slice(None), *at)] += _matrices(pair, (m, k, n), left, right, a, b, parties, at)
    return z


def _matrices(
    pair: Pair, sizes: tuple[int, int, int], left: _Operand, right: _Operand,
    a: list[Words], b: list[Words], parties: list[int], at: tuple[int, ...] = (),
) -> Words:  # fmt: skip
    """Return shares of the cross terms of matrices (m, k) and (k, n), (p, m, n)."""
    a, b = [np.ascontiguousarray(v) for v in a], [np.ascontiguousarray(v) for v in b]
    m, k, n = sizes
    operands = pair.operands
    known = right.array if right.plaintext is None else right.plaintext
    factor = factors_of(pair, known, at, (k, n), right.bound)
    if factor is not None:
        masks = [MaskProducts(m, party, factor(1 - party)) for party in parties]
        made = pair.take_prepared(masks)
        if made is not None:
            return multiply_masked(pair, masks, made, a, b)
    if len(parties) == 2:
        product, by_right = _cheapest(pair, sizes, left, right)
        if by_right:
            kept, mixed, array = a, b, right.array
        else:
            kept, mixed, array = b, a, left.array
        stacked = [np.stack(v) if v else np.empty((0, *v_shape), np.uint64) for v, v_shape in (
            (kept, product.layout.kept_shape), (mixed, product.layout.mixed_shape)
        )]  # fmt: skip
        return pair.cross_products(product, stacked[0], stacked[1], operands.life(array, product))
    (party,) = parties
    other = 1 - party
    mine, theirs = _where(pair, a, party), _where(pair, b, other)
    if m < FEW_ROWS and right.plaintext is not None:
        # Encrypted once, by its owner.
        few = _product(pair, choose_right(m, k, n), left)
        if few is not None:
            key = (right.plaintext.base.id, _hashable(right.plaintext.views), at, few)
            life = operands.life(left.array, few)
            kept_once = operands.kept(
                key, few.memory_bytes(), lambda: pair.keep(few, other, theirs)
            )
            return pair.multiply_kept(few, kept_once, mine, life)
    product, by_right = _cheapest(pair, sizes, left, right)
    if by_right:
        life = operands.life(right.array, product)
        return pair.multiply_private(product, party, mine, theirs, life)
    life = operands.life(left.array, product)
    return pair.multiply_private(product, other, theirs, mine, life)


def _product(pair: Pair, layout: Any, mixed: _Operand) -> Product | None:
    """Return the cheapest product that shows no more of the mixer's operand than may be."""
    return product_for(layout, mixed.bound, mixed.products, pair.operands.room(mixed.array))


def _cheapest(
    pair: Pair, sizes: tuple[int, int, int], left: _Operand, right: _Operand
) -> tuple[Product, bool]:
    """Return the product that takes the fewest bytes, and whether it is the right operand that is mixed."""
    m, k, n = sizes
    first = _product(pair, choose_left(m, k, n), right)
    second = _product(pair, choose_right(m, k, n, products=1), left)
    if first is None and second is None:
        raise SessionError(
            "both operands of a matrix product have been multiplied as often as they may be, or the product"
            f" of ({m}, {k}) and ({k}, {n}) is too large: what the other party sees of their encryption"
            f" would show one by more than 2^-{DISTANCE_BITS}; share or compute them anew, or multiply"
            " fewer rows at a time"
        )
    if second is None or (first is not None and _sent(first) <= _sent(second)):
        assert first is not None
        return first, True
    return second, False


def _hashable(views: object) -> Hashable:
    """Return what tells views from all others. Text does not: it leaves out the middle of long indices."""
    if isinstance(views, np.ndarray):
        return views.shape, views.dtype.str, views.tobytes()
    if isinstance(views, (tuple, list)):
        return tuple(_hashable(part) for part in views)
    return str(views)


def _sent(product: Product) -> int:
    return sum(product_cost(product, 0).sent)
