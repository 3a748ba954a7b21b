"""Matrix products with an input, made ahead: masks that one party knows times the other's matrix.

Party i knows rows x, an input or its share of an array, party j a matrix w, its input.
1. Ahead: masks lambda that i alone knows, and shares C_0 + C_1 = lambda w, by ring-LWE
   (:mod:`mpc.two_party.rlwe_products`). Of many rows i encrypts lambda; for few w stays encrypted at i.
2. Then: i sends x - lambda to j alone. j: z_j = (x - lambda) w + C_j; i: z_i = C_i.
Cost: 1 round one way, 8 bytes an element of x.

A mask serves one product. It is no :class:`mpc.core.known.Mask`: it goes only with what j knows in the
clear, and only j gets x - lambda.
Products of two arrays that are shared are made within the call: their operands, as in training, change
from one product to the next, so that what would be made ahead takes as much as the product itself.

Source: Beaver 1991; the mask that one party knows: Mohassel, Zhang 2017 (SecureML, section 4).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import View, apply_views
from mpc.core.errors import SessionError
from mpc.core.known import Plaintext
from mpc.two_party.channel import send
from mpc.two_party.cost import Cost
from mpc.two_party.operands import INPUT_PRODUCTS, LIMIT, product_for
from mpc.two_party.pair import Correlation, Made, Pair
from mpc.two_party.rlwe_layouts import KeptRight, choose_mask, choose_right
from mpc.two_party.rlwe_parameters import LENGTH
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import product_cost
from mpc.two_party.rlwe_samples import Samples
from ring.matmul import matmul_add

__all__ = ["FEW_ROWS", "Factor", "MaskProducts", "factor_of", "multiply_masked"]

Words = NDArray[np.uint64]

# Products of fewer rows than this take an input's ciphertexts that are kept.
FEW_ROWS = 16
# Rows whose products are made at once.
_ROWS = LENGTH


@dataclass(frozen=True)
class Factor:
    """A matrix of a session's input: which it is, and its public bound.

    Attributes
    ----------
    id : int
        Of the input.
    views : tuple of View
        What was taken of it.
    at : tuple of int
        Which matrix of the result.
    owner : int
    rows, columns : int
    bound : int
    """

    id: int
    views: tuple[View, ...]
    at: tuple[int, ...]
    owner: int
    rows: int
    columns: int
    bound: int

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Under which its ciphertexts are kept."""
        return self.id, str(self.views), self.at

    def words(self, pair: Pair) -> tuple[Words, Words]:
        """Return the matrix, without rows where the owner does not live, and the array it is of."""
        base = pair.inputs.get(self.id)
        if base is None:
            raise SessionError("an input is gone whose products were to be made ahead")
        array = apply_views(base.encoded, self.views, 1)
        for index in self.at:
            array = array[:, index]
        return np.ascontiguousarray(array), base.encoded


def factor_of(
    plaintext: Plaintext, at: tuple[int, ...], shape: tuple[int, int], bound: int
) -> Factor | None:
    """Describe a matrix of an input; None if its views cannot be told by what they are."""
    rows, columns = shape
    base = plaintext.base
    factor = Factor(base.id, plaintext.views, at, base.owner, rows, columns, bound)
    try:
        hash(factor)
    except TypeError:  # a view by an index array
        return None
    return factor


@dataclass(frozen=True, repr=False)
class MaskProductsMade(Made):
    """Masks and their products, a row behind the other.

    Attributes
    ----------
    mask : uint64 array of shape (rows k,), where the party lives that knows them; elsewhere None
    product : uint64 array of shape (p, rows n)
    """

    mask: Words | None
    product: Words


@dataclass(frozen=True)
class MaskProducts(Correlation):
    """Masks for rows, `words` of them, that `party` knows, times the other's matrix."""

    party: int
    factor: Factor
    whole: ClassVar[bool] = True

    @property
    def cost(self) -> Cost:
        total = Cost()
        for rows in self._pieces():
            product = self._product(rows.stop - rows.start, LIMIT)
            few = isinstance(product.layout, KeptRight)
            keeper = 1 - self.party if few else self.party
            total = total + Cost(offline=product_cost(product, keeper, kept=few).sent)
        return total

    def make(self, pair: Pair) -> MaskProductsMade:
        factor, knows = self.factor, self.party in pair.parties
        k, n = factor.rows, factor.columns
        mask = np.empty((self.words, k), np.uint64) if knows else None
        shares = np.empty((len(pair.parties), self.words, n), np.uint64)
        if pair.parties:
            matrix, array = factor.words(pair)
            w = matrix[0] if len(matrix) else None
            for rows in self._pieces():
                product = self._product(rows.stop - rows.start, pair.operands.room(array))
                drawn, shares[:, rows] = self._multiply(pair, product, w, array)
                if mask is not None and drawn is not None:
                    mask[rows] = drawn
        return MaskProductsMade(
            self.words,
            None if mask is None else mask.reshape(self.words * k),
            shares.reshape(len(shares), self.words * n),
        )

    def _pieces(self) -> Iterator[slice]:
        """Yield rows that are made at once."""
        for start, stop in pairwise([*range(0, self.words, _ROWS), self.words]):
            yield slice(start, stop)

    def _product(self, m: int, room: Fraction) -> Product:
        """Return how so many rows are made, if the matrix may be shown so much more."""
        k, n, found = self.factor.rows, self.factor.columns, None
        if m >= FEW_ROWS:
            found = product_for(choose_mask(m, k, n), self.factor.bound, INPUT_PRODUCTS, room)
        if found is not None:
            return replace(found, random=found.layout.dense)
        found = product_for(choose_right(m, k, n), WORD_BOUND)
        assert found is not None, "fresh masks may be shown once"
        return found

    def _multiply(
        self, pair: Pair, product: Product, w: Words | None, array: Words
    ) -> tuple[Words | None, Words]:
        operands = pair.operands
        if not isinstance(product.layout, KeptRight):
            return pair.multiply_mask(product, self.party, w, operands.life(array, product))
        drawn = Samples().words(*product.mixed_shape) if self.party in pair.parties else None
        key = (*self.factor.key, product)
        kept = operands.kept(
            key, product.memory_bytes(), lambda: pair.keep(product, 1 - self.party, w)
        )
        return drawn, pair.multiply_kept(product, kept, drawn, product.fresh_life())


def multiply_masked(
    pair: Pair, made: MaskProductsMade, masks: MaskProducts, x: Words | None, w: Words | None
) -> Words:
    """Step 2: shares of x w, (p, m, n).

    Parameters
    ----------
    x, w : arrays of words of shape (m, k) and (k, n), where those live that know them; elsewhere None
    """
    m, k, n = masks.words, masks.factor.rows, masks.factor.columns
    message = None
    if masks.party in pair.parties:
        assert x is not None and made.mask is not None
        message = x.reshape(m * k) - made.mask
    got = send(pair.channel, masks.party, m * k, message)
    out = made.product.reshape(len(pair.parties), m, n).copy()
    for row, party in zip(out, pair.parties, strict=True):
        if party != masks.party:
            assert got is not None and w is not None
            matmul_add(got.reshape(m, k), w, row)
    return out
