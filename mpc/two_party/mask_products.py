"""Bilinear products with weights, made ahead: masks that one party knows times what the other knows.

Party i knows x, rows or images, an input or its share of an array; party j knows w, matrices or kernels,
its input or its share of an array that stays, such as weights that nobody knows: then each does the same
with the other's.
1. Ahead: masks lambda that i alone knows, and shares C_0 + C_1 = lambda w, by ring-LWE
   (:mod:`mpc.two_party.rlwe_products`, :mod:`mpc.two_party.rlwe_images`). Of many rows i encrypts lambda;
   for few w stays encrypted at i. Of images, what takes fewer bytes and less work.
2. Then: i sends x - lambda to j alone. j: z_j = (x - lambda) w + C_j; i: z_i = C_i.
Cost: 1 round, 8 bytes an element of x, one way or each way.

A mask serves one product. It is no :class:`mpc.core.known.Mask`: it goes only with what j knows in the
clear, and only j gets x - lambda.
Where both operands change from one product to the next, as in training, it is made within the call: what
would be made ahead takes as much as the product itself.

Source: Beaver 1991; the mask that one party knows: Mohassel, Zhang 2017 (SecureML, section 4).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import View, apply_views
from mpc.core.errors import SessionError
from mpc.core.known import Plaintext
from mpc.core.windows import Windows
from mpc.two_party.channel import trade
from mpc.two_party.cost import Cost
from mpc.two_party.operands import (
    HALF_BOUND,
    INPUT_PRODUCTS,
    LIMIT,
    join_halves,
    product_for,
    split_halves,
)
from mpc.two_party.pair import Correlation, Made, Pair
from mpc.two_party.rlwe_images import ImageConvolution
from mpc.two_party.rlwe_layouts import KeptRight, choose_mask, choose_right, weight
from mpc.two_party.rlwe_parameters import LENGTH
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import product_cost
from mpc.two_party.rlwe_samples import Samples
from ring import matmul
from ring.matmul import matmul_add

__all__ = [
    "FEW_ROWS", "ConvolutionMasks", "Factor", "MaskProducts", "Masks", "MasksMade", "factors_of",
    "multiply_masked",
]  # fmt: skip

Words = NDArray[np.uint64]

# Products of fewer rows than this take an input's ciphertexts that are kept.
FEW_ROWS = 16
# Rows, or images, whose products are made at once.
_ROWS, _IMAGES = LENGTH, 64
# Products that kernels which are kept are taken to serve.
_SERVED = 1000


@dataclass(frozen=True)
class Factor:
    """Matrices that one party knows, of an array of the session: which they are, and their public bound.

    Attributes
    ----------
    id : int
        Of the array, see :class:`mpc.two_party.constants.Constants`: an input, or any other, of which
        the party knows its share.
    views : tuple of View
        What was taken of an input.
    owner : int
        The party.
    count, rows, columns : int
        How many matrices, and their shape. Kernels are a matrix with a column for each output.
    bound : int
    """

    id: int
    views: tuple[View, ...]
    owner: int
    count: int
    rows: int
    columns: int
    bound: int

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Under which its ciphertexts are kept."""
        return self.id, self.views, self.owner

    def words(self, pair: Pair) -> tuple[Words, Words]:
        """Return the matrices, (1, count, rows, columns), or (0, ...) where their party does not live.

        And the array of which they are.
        """
        shape = self.count, self.rows, self.columns
        base = pair.constants.input(self.id)
        if base is not None:
            found = apply_views(base.encoded, self.views, 1)
            return np.ascontiguousarray(found).reshape(len(found), *shape), base.encoded
        shares = pair.constants.array(self.id)
        if shares is None:
            raise SessionError("an array is gone whose products were to be made ahead")
        mine = [pair.parties.index(self.owner)] if self.owner in pair.parties else []
        return shares.reshape(len(pair.parties), *shape)[mine], shares


def factors_of(
    pair: Pair, known: Plaintext | Words, shape: tuple[int, int, int], bound: int
) -> Callable[[int], Factor] | None:
    """Return what describes matrices of an input, or those of any party's shares of an array.

    None if masks cannot be made for it: no plan was given it, or its views cannot be told by what they are.
    """
    if isinstance(known, np.ndarray):
        number = pair.constants.number(known)
        return None if number is None else lambda owner: Factor(number, (), owner, *shape, bound)
    base, views = known.base, known.views
    if pair.constants.input(base.id) is None:
        return None
    try:
        hash(views)
    except TypeError:  # a view by an index array
        return None
    return lambda owner: Factor(base.id, views, owner, *shape, bound)


@dataclass(frozen=True, repr=False)
class MasksMade(Made):
    """Masks and their products, one behind the other.

    Attributes
    ----------
    mask : uint64 array of shape (words given,), where the party lives that knows them; elsewhere None
    product : uint64 array of shape (p, words results)
    """

    mask: Words | None
    product: Words


@dataclass(frozen=True)
class Masks(Correlation):
    """Masks, `words` of them, that `party` knows, times the other's matrices."""

    party: int
    factor: Factor
    whole: ClassVar[bool] = True
    # How many are made at once.
    together: ClassVar[int]

    @property
    @abstractmethod
    def given(self) -> int:
        """Elements of a mask."""

    @property
    @abstractmethod
    def results(self) -> int:
        """Elements of the product of one."""

    @abstractmethod
    def multiply(self, x: Words, w: Words) -> Words:
        """Return the products of x, (words, given), with matrices, (words, results)."""

    @abstractmethod
    def _cost_of(self, count: int) -> Cost:
        """What so many take, all at once."""

    @abstractmethod
    def _make_some(
        self, pair: Pair, count: int, w: Words | None, array: Words
    ) -> tuple[Words, Words]:
        """Return masks, (count, given), (0, given) where their party does not live; and shares."""

    @property
    def cost(self) -> Cost:
        total = Cost()
        for piece in self._pieces():
            total = total + Cost(offline=self._cost_of(piece.stop - piece.start).sent)
        return total

    def make(self, pair: Pair) -> MasksMade:
        knows = self.party in pair.parties
        mask = np.empty((self.words, self.given), np.uint64) if knows else None
        shares = np.empty((len(pair.parties), self.words, self.results), np.uint64)
        if pair.parties:
            matrices, array = self.factor.words(pair)
            w = matrices[0] if len(matrices) else None
            for piece in self._pieces():
                count = piece.stop - piece.start
                drawn, product = self._make_some(pair, count, w, array)
                shares[:, piece] = product.reshape(len(shares), count, self.results)
                if mask is not None:
                    mask[piece] = drawn
        flat = shares.reshape(len(shares), self.words * self.results)
        return MasksMade(self.words, None if mask is None else mask.reshape(-1), flat)

    def _pieces(self) -> Iterator[slice]:
        """Yield what is made at once."""
        for start, stop in pairwise([*range(0, self.words, self.together), self.words]):
            yield slice(start, stop)


@dataclass(frozen=True)
class MaskProducts(Masks):
    """Masks of rows: a mask is a row for each of the matrices."""

    together: ClassVar[int] = _ROWS

    @property
    def given(self) -> int:
        return self.factor.count * self.factor.rows

    @property
    def results(self) -> int:
        return self.factor.count * self.factor.columns

    def multiply(self, x: Words, w: Words) -> Words:
        count, k, n = w.shape
        out = np.zeros((count, len(x), n), np.uint64)
        for rows, matrix, z in zip(x.reshape(-1, count, k).swapaxes(0, 1), w, out, strict=True):
            matmul_add(np.ascontiguousarray(rows), matrix, z)
        return out.swapaxes(0, 1).reshape(len(x), count * n)

    def _product(self, m: int, room: Fraction) -> Product:
        """Return how so many rows are made, if a matrix may be shown so much more."""
        k, n, found = self.factor.rows, self.factor.columns, None
        if m >= FEW_ROWS:
            found = product_for(choose_mask(m, k, n), self.factor.bound, INPUT_PRODUCTS, room)
        if found is not None:
            return replace(found, random=found.layout.dense)
        found = product_for(choose_right(m, k, n), WORD_BOUND)
        assert found is not None, "fresh masks may be shown once"
        return found

    def _cost_of(self, count: int) -> Cost:
        product, total = self._product(count, LIMIT), Cost()
        few = isinstance(product.layout, KeptRight)
        for _ in range(self.factor.count):
            total = total + product_cost(product, 1 - self.party if few else self.party, kept=few)
        return total

    def _make_some(
        self, pair: Pair, count: int, w: Words | None, array: Words
    ) -> tuple[Words, Words]:
        f, knows = self.factor, self.party in pair.parties
        mask = np.empty((count if knows else 0, f.count, f.rows), np.uint64)
        shares = np.empty((len(pair.parties), count, f.count, f.columns), np.uint64)
        for at in range(f.count):
            product = self._product(count, pair.operands.assumed(array))
            drawn, shares[:, :, at] = self._multiply(
                pair, product, at, None if w is None else w[at], array
            )
            if drawn is not None:
                mask[:, at] = drawn
        return mask.reshape(len(mask), self.given), shares

    def _multiply(
        self, pair: Pair, product: Product, at: int, w: Words | None, array: Words
    ) -> tuple[Words | None, Words]:
        operands = pair.operands
        if not isinstance(product.layout, KeptRight):
            return pair.multiply_mask(product, self.party, w, operands.life(array, product))
        drawn = Samples().words(*product.mixed_shape) if self.party in pair.parties else None
        key = (*self.factor.key, at, product)
        kept = operands.kept(
            key, product.memory_bytes(), lambda: pair.keep(product, 1 - self.party, w)
        )
        return drawn, pair.multiply_kept(product, kept, drawn, product.fresh_life())


@dataclass(frozen=True)
class ConvolutionMasks(Masks):
    """Masks of images, without their padding, times kernels.

    Attributes
    ----------
    shape : (int, int, int)
        Height, width and channels of an image.
    windows : Windows
    """

    shape: tuple[int, int, int]
    windows: Windows
    together: ClassVar[int] = _IMAGES

    @staticmethod
    def fits(shape: tuple[int, int, int], windows: Windows) -> bool:
        """Whether a channel of an image, padded, is short enough for a polynomial."""
        return prod(windows.padded(*shape[:2])) <= LENGTH

    @property
    def given(self) -> int:
        return prod(self.shape)

    @property
    def results(self) -> int:
        return prod(self.windows.places(*self.shape[:2])) * self.factor.columns

    def multiply(self, x: Words, w: Words) -> Words:
        seen = self.windows.view(x.reshape(-1, *self.shape))
        rows = seen.reshape(prod(seen.shape[:3]), self.factor.rows)
        return matmul(rows, w[0]).reshape(len(x), self.results)

    def _layout(self, count: int, kept_images: bool) -> ImageConvolution:
        windows, channels = self.windows, self.shape[2]
        return ImageConvolution(
            count, *windows.padded(*self.shape[:2]), channels, self.factor.columns,
            windows.kernel, windows.stride, kept_images,
        )  # fmt: skip

    def _way(self, count: int, room: Fraction) -> _Way:
        """Return how so many are made."""
        found = []
        images = product_for(self._layout(count, True), self.factor.bound, INPUT_PRODUCTS, room)
        if images is not None:
            found.append(_Way(images, True, False))
        # Fresh masks may be shown once.
        for halves, bound in ((False, WORD_BOUND), (True, HALF_BOUND)):
            kernels = product_for(self._layout((1 + halves) * count, False), bound)
            if kernels is not None:
                found.append(_Way(kernels, False, halves))
        assert found, "halves of fresh masks may be shown once"
        return min(found, key=_Way.weight)

    def _cost_of(self, count: int) -> Cost:
        way = self._way(count, LIMIT)
        keeper = self.party if way.kept_images else 1 - self.party
        return product_cost(way.product, keeper, kept=not way.kept_images)

    def _make_some(
        self, pair: Pair, count: int, w: Words | None, array: Words
    ) -> tuple[Words, Words]:
        operands, knows = pair.operands, self.party in pair.parties
        way = self._way(count, operands.assumed(array))
        product = way.product
        mask = Samples().words(count if knows else 0, self.given)
        images = self.windows.pad(mask.reshape(-1, *self.shape)) if knows else None
        kernels = None
        if w is not None:
            shape = *self.windows.kernel, self.shape[2], self.factor.columns
            kernels = np.ascontiguousarray(w.reshape(shape).transpose(3, 0, 1, 2))
        if way.kept_images:
            life = operands.life(array, product)
            return mask, pair.multiply_private(product, self.party, images, kernels, life)
        key = (*self.factor.key, product.layout.kept_as, product.parameters)
        kept = operands.kept(
            key, product.memory_bytes(), lambda: pair.keep(product, 1 - self.party, kernels)
        )
        if way.halves and images is not None:
            images = split_halves(images, 0)
        out = pair.multiply_kept(product, kept, images, product.fresh_life())
        return mask, join_halves(out, 1) if way.halves else out


@dataclass(frozen=True)
class _Way:
    """How images are multiplied: who keeps what, and whether masks are two halves of each word."""

    product: Product
    kept_images: bool
    halves: bool

    def weight(self) -> float:
        served = 1 if self.kept_images else _SERVED
        product = self.product
        return weight(product.layout, served, product.parameters.ciphertext_bits / 8)


def multiply_masked(
    pair: Pair, masks: Sequence[Masks], made: Sequence[MasksMade],
    x: Sequence[Words], w: Sequence[Words],
) -> Words:  # fmt: skip
    """Step 2, of one party's x or at the same time of both's: shares of the sum of x w.

    Of shape (p, words, results).

    Parameters
    ----------
    x, w : sequences of arrays of words, for each party that lives here
        What it knows: rows or images, (words, given), and matrices, (count, rows, columns).
    """
    m, given, results = masks[0].words, masks[0].given, masks[0].results
    nothing = np.empty(0, np.uint64)
    messages = dict.fromkeys(pair.parties, nothing)
    out = np.zeros((len(pair.parties), m, results), np.uint64)
    counts = [0, 0]
    for some, products in zip(masks, made, strict=True):
        counts[some.party] = m * given
        out += products.product.reshape(len(pair.parties), m, results)
        if some.party in pair.parties:
            assert products.mask is not None
            rows = x[pair.parties.index(some.party)]
            messages[some.party] = rows.reshape(m * given) - products.mask
    heard = trade(pair.channel, messages, (counts[0], counts[1]))
    for row, party in enumerate(pair.parties):
        if heard[party].size:
            out[row] += masks[0].multiply(heard[party].reshape(m, given), w[row])
    return out
