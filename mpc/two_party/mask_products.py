"""Matrix products with weights, made ahead: masks that one party knows times the other's matrix.

Party i knows rows x, an input or its share of an array, party j a matrix w, its input or its share of an
array that stays, such as weights that nobody knows: then each does the same with the other's.
1. Ahead: masks lambda that i alone knows, and shares C_0 + C_1 = lambda w, by ring-LWE
   (:mod:`mpc.two_party.rlwe_products`). Of many rows i encrypts lambda; for few w stays encrypted at i.
2. Then: i sends x - lambda to j alone. j: z_j = (x - lambda) w + C_j; i: z_i = C_i.
Cost: 1 round, 8 bytes an element of x, one way or each way.

A mask serves one product. It is no :class:`mpc.core.known.Mask`: it goes only with what j knows in the
clear, and only j gets x - lambda.
Where both operands change from one product to the next, as in training, it is made within the call: what
would be made ahead takes as much as the product itself.

Source: Beaver 1991; the mask that one party knows: Mohassel, Zhang 2017 (SecureML, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import View, apply_views
from mpc.core.errors import SessionError
from mpc.core.known import Plaintext
from mpc.two_party.channel import trade
from mpc.two_party.cost import Cost
from mpc.two_party.operands import INPUT_PRODUCTS, LIMIT, product_for
from mpc.two_party.pair import Correlation, Made, Pair
from mpc.two_party.rlwe_layouts import KeptRight, choose_mask, choose_right
from mpc.two_party.rlwe_parameters import LENGTH
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import product_cost
from mpc.two_party.rlwe_samples import Samples
from ring.matmul import matmul_add

__all__ = ["FEW_ROWS", "Factor", "MaskProducts", "factors_of", "multiply_masked"]

Words = NDArray[np.uint64]

# Products of fewer rows than this take an input's ciphertexts that are kept.
FEW_ROWS = 16
# Rows whose products are made at once.
_ROWS = LENGTH


@dataclass(frozen=True)
class Factor:
    """A matrix that one party knows, of an array of the session: which it is, and its public bound.

    Attributes
    ----------
    id : int
        Of the array, see :class:`mpc.two_party.constants.Constants`: an input, or any other, of which
        the party knows its share.
    views : tuple of View
        What was taken of an input.
    at : tuple of int
        Which matrix of the result.
    owner : int
        The party.
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
        return self.id, self.views, self.at, self.owner

    def words(self, pair: Pair) -> tuple[Words, Words]:
        """Return the matrix, (1, k, n), or (0, k, n) where its party does not live; and its array."""
        base = pair.constants.input(self.id)
        if base is not None:
            array = apply_views(base.encoded, self.views, 1)
            for index in self.at:
                array = array[:, index]
            return np.ascontiguousarray(array), base.encoded
        shares = pair.constants.array(self.id)
        if shares is None:
            raise SessionError("an array is gone whose products were to be made ahead")
        mine = [pair.parties.index(self.owner)] if self.owner in pair.parties else []
        each = shares.reshape(len(pair.parties), self.rows, self.columns)
        return each[mine], shares


def factors_of(
    pair: Pair, known: Plaintext | Words, at: tuple[int, ...], shape: tuple[int, int], bound: int
) -> Callable[[int], Factor] | None:
    """Return what describes a matrix of an input, or that of any party's shares of an array.

    None if masks cannot be made for it: no plan was given it, or its views cannot be told by what they are.
    """
    if isinstance(known, np.ndarray):
        number = None if at else pair.constants.number(known)
        return (
            None if number is None else lambda owner: Factor(number, (), (), owner, *shape, bound)
        )
    base, views = known.base, known.views
    if pair.constants.input(base.id) is None:
        return None
    try:
        hash(views)
    except TypeError:  # a view by an index array
        return None
    return lambda owner: Factor(base.id, views, at, owner, *shape, bound)


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
                product = self._product(rows.stop - rows.start, pair.operands.assumed(array))
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
    pair: Pair, masks: Sequence[MaskProducts], made: Sequence[MaskProductsMade],
    x: Sequence[Words], w: Sequence[Words],
) -> Words:  # fmt: skip
    """Step 2, of one party's rows or at the same time of both's: shares of the sum of x w, (p, m, n).

    Parameters
    ----------
    x, w : sequences of arrays of words of shape (m, k) and (k, n), for each party that lives here
        The rows it knows, and the matrix.
    """
    m, k, n = masks[0].words, masks[0].factor.rows, masks[0].factor.columns
    nothing = np.empty(0, np.uint64)
    messages = dict.fromkeys(pair.parties, nothing)
    out = np.zeros((len(pair.parties), m, n), np.uint64)
    counts = [0, 0]
    for some, products in zip(masks, made, strict=True):
        counts[some.party] = m * k
        out += products.product.reshape(len(pair.parties), m, n)
        if some.party in pair.parties:
            assert products.mask is not None
            rows = x[pair.parties.index(some.party)]
            messages[some.party] = rows.reshape(m * k) - products.mask
    heard = trade(pair.channel, messages, (counts[0], counts[1]))
    for row, party in enumerate(pair.parties):
        if heard[party].size:
            matmul_add(heard[party].reshape(m, k), np.ascontiguousarray(w[row]), out[row])
    return out
