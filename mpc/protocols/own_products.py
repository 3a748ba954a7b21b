"""Products of two secrets in a session without a provider: elementwise, and of matrices.

Each party multiplies what it knows, and both make the cross terms, see :mod:`mpc.protocols.own_operands`. A
product of two inputs of one party is local; it is shared afresh, since shares of it may be opened beside
others.
Elementwise, few numbers take oblivious transfers (:mod:`mpc.two_party.product`), more
:mod:`mpc.two_party.rlwe_slots`, while that may show any more of one of the operands
(:mod:`mpc.two_party.operands`). Masks of rows may be multiplied with a matrix that stays, such as a
model's weights, ahead (:mod:`mpc.two_party.mask_products`).

Source: cross terms of shares by oblivious transfer, Gilboa 1999; by encryption, see the files named.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.protocols.own_operands import (
    Operand,
    cross_terms,
    crossing,
    from_masks,
    local_factors,
    matrix_ways,
    row_of,
)
from mpc.two_party.joint import fresh_shares
from mpc.two_party.mask_products import MaskProducts
from mpc.two_party.operands import shown_by_slots
from mpc.two_party.pair import Pair, padded
from mpc.two_party.product import cross_products
from mpc.two_party.rlwe_slots import SlotProduct
from ring.bits import WORD_BITS
from ring.matmul import matmul_add

__all__ = ["matmul", "multiply"]

Words = NDArray[np.uint64]

# From so many numbers on elementwise products are made by ring-LWE, so many at a time.
SLOTS_FROM = 3000
_SLOTS = 1 << 20
# So many products of a stack of matrices at once.
_STACKED = 64


def multiply(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    """Return shares of the elementwise product, of shape (p, *shape)."""
    left, right = Operand(x), Operand(w)
    z = np.zeros((len(session.here), *shape), np.uint64)
    for row, a, b in local_factors(session, left, right):
        np.multiply(a, b, out=z[row, ...])
    size, parties = prod(shape), crossing(left, right)
    if not size:
        return z
    if not parties:
        return fresh_shares(session, z).reshape(z.shape)
    numbers, factors = (np.empty((len(z), size), np.uint64) for _ in range(2))
    for row, (a, b) in enumerate(zip(left.words, right.words, strict=True)):
        numbers[row] = np.broadcast_to(a, shape).reshape(-1)
        factors[row] = np.broadcast_to(b, shape).reshape(-1)
    cross = np.empty_like(numbers)
    for start, stop in pairwise([*range(0, size, _SLOTS), size]):
        cross[:, start:stop] = _elementwise(
            pair, numbers[:, start:stop], factors[:, start:stop], left, right, parties
        )
    z += cross.reshape(z.shape)
    return z


def _elementwise(
    pair: Pair, x: Words, w: Words, left: Operand, right: Operand, parties: list[int]
) -> Words:
    """Return shares of the cross terms, (p, size)."""
    size = x.shape[1]
    if size >= SLOTS_FROM:
        shown = shown_by_slots(size)
        if shown <= pair.operands.assumed(right.array):
            return _by_slots(pair, x, w, right, parties, shown)
        if shown <= pair.operands.assumed(left.array):
            return _by_slots(pair, w, x, left, [1 - party for party in parties], shown)
    # Of x_i w_j the bits of w_j are chosen by.
    bits = [WORD_BITS if 1 - party in parties else 0 for party in (0, 1)]
    out = cross_products(pair, padded(x, size), padded(w, size), (bits[0], bits[1]))
    return out[:, :size]


def _by_slots(
    pair: Pair, kept: Words, mixed: Words, operand: Operand, keepers: list[int], shown: Fraction
) -> Words:
    product = SlotProduct(kept.shape[1])
    pair.operands.spend(operand.array, shown)
    kept, mixed = np.ascontiguousarray(kept), np.ascontiguousarray(mixed)
    if len(keepers) == 2:
        return pair.cross_products(product, kept, mixed, product.fresh_life())
    (keeper,) = keepers
    mine, theirs = row_of(pair, kept, keeper), row_of(pair, mixed, 1 - keeper)
    return pair.multiply_private(product, keeper, mine, theirs, product.fresh_life())


def matmul(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    """Return shares of the matrix product, of shape (p, *shape)."""
    left, right = Operand(x), Operand(w)
    z = np.zeros((len(session.here), *shape), np.uint64)
    for row, mine, own in local_factors(session, left, right):
        matmul_add(mine, own, z[row])
    parties = crossing(left, right)
    if not parties:
        return fresh_shares(session, z).reshape(z.shape)
    if not prod(shape) or not x.size:
        return z
    ready = _from_masks(pair, left, right, shape, parties)
    if ready is not None:
        z += ready
        return z
    (m, n), k = shape[-2:], x.shape[-1]
    if w.ndim == 2:
        # Rows are rows, whatever the leading axes.
        rows = prod(shape[:-1])
        a = [words.reshape(rows, k) for words in left.words]
        ways = matrix_ways(rows, k, n, right)
        z += cross_terms(pair, ways, left, right, a, right.words, parties).reshape(z.shape)
        return z
    count = prod(shape[:-2])
    wide = [np.broadcast_to(v, (*shape[:-2], m, k)).reshape(count, m, k) for v in left.words]
    tall = [np.broadcast_to(v, (*shape[:-2], k, n)).reshape(count, k, n) for v in right.words]
    ways, out = matrix_ways(m, k, n, right), z.reshape(len(z), count, m, n)
    for start, stop in pairwise([*range(0, count, _STACKED), count]):
        piece = slice(start, stop)
        a, b = [v[piece] for v in wide], [v[piece] for v in tall]
        out[:, piece] += cross_terms(pair, ways, left, right, a, b, parties, piece)
    return z


def _from_masks(
    pair: Pair, left: Operand, right: Operand, shape: tuple[int, ...], parties: list[int]
) -> Words | None:
    """Return shares of the cross terms by masks whose products were made ahead, if there are any."""
    (m, n), k = shape[-2:], left.shape[-1]
    leading = (1,) * (len(shape) - len(right.shape)) + right.shape[:-2]
    # One matrix serves all rows along an axis that it does not have.
    stack = [axis for axis, count in enumerate(leading) if count > 1]
    rows = [axis for axis, count in enumerate(leading) if count == 1]
    order = [*rows, len(leading), *stack, len(leading) + 1]
    count = prod(leading)

    def as_rows(words: Words) -> Words:
        wide = np.broadcast_to(words, (*shape[:-2], m, k)).transpose(order)
        return np.ascontiguousarray(wide).reshape(-1, count * k)

    words = prod(shape[:-1]) // count
    out = from_masks(pair, MaskProducts, words, left, right, (count, k, n), parties, as_rows)
    if out is None:
        return None
    moved = [shape[axis] for axis in order[:-1]]
    back = np.argsort(order) + 1
    return out.reshape(len(out), *moved, n).transpose(0, *back)
