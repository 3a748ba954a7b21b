"""How matrices lie in polynomials, so that products of polynomials hold their products.

A layout says what the keeper encrypts: some groups of polynomials; what the mixer multiplies with:
groups of as many; and which coefficients of the sum over a group of products are the results, for each
pair of groups.

**Matrices** (m, k) times (k, n): T = X^rows for a power of two rows, D = N / rows = kb nb. Column j of
the left operand is x_j, coefficients j rows to (j + 1) rows; x(T) = sum x_j T^j over kb columns,
w(T) = sum w_(j,o) T^(o kb + kb-1-j) over kb rows and nb columns of the right operand. In their product
coefficient (o kb + kb-1) rows + i is the result (i, o): at no other j does T get to that power, and what
wraps around ends below power kb - 1. (As Cheetah does, Huang and others, ePrint 2022/207, with rows in T.)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, ShapeError
from mpc.two_party.rlwe_parameters import LENGTH
from ring import matmul
from ring.vectors import LANES

__all__ = [
    "KeptLeft",
    "KeptRight",
    "Layout",
    "ceiling",
    "check_shape",
    "choose_left",
    "choose_mask",
    "choose_right",
    "weight",
    "whole_polynomials",
]

Words = NDArray[np.uint64]
Places = NDArray[np.int64]

# About what a coefficient of a ciphertext takes on the wire; a little more or less by parameters.
GIVEN_BYTES, RANDOM_BYTES = 24.0, 16.0


class Layout(Protocol):
    """What the protocols of :mod:`mpc.two_party.rlwe_products` ask of a layout."""

    def __hash__(self) -> int: ...

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """Shape of the keeper's operand."""

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        """Shape of the mixer's operand."""

    @property
    def result_shape(self) -> tuple[int, ...]: ...

    @property
    def kept_as(self) -> Hashable:
        """What the keeper's polynomials depend on, beside its operand."""

    @property
    def kept_groups(self) -> int: ...

    @property
    def mixed_groups(self) -> int: ...

    @property
    def terms(self) -> int:
        """Polynomials in a group."""

    @property
    def run(self) -> int:
        """The mixer's polynomials are ones in X^run."""

    @property
    def used(self) -> int:
        """Coefficients of the mixer's that may differ from zero in one group."""

    @property
    def places(self) -> Places:
        """Coefficients that are read of each answer."""

    @property
    def reads(self) -> int:
        """How many these are."""

    @property
    def dense(self) -> bool:
        """Whether any polynomials will do as the keeper's, so that they may be random."""

    def pack_kept(self, x: Words) -> Words:
        """Return the keeper's polynomials, of shape (groups, terms, N)."""

    def unpack_kept(self, polynomials: Words) -> Words:
        """Return the operand that random polynomials stand for, if the layout is dense."""

    def pack_mixed(self, w: Words, start: int, stop: int) -> Words:
        """Return the mixer's groups `start` to `stop`, of shape (groups, terms, at most N / run).

        Zeros that end all of them may be left away.
        """

    def unpack(self, results: Words) -> Words:
        """Return the result from what is read, of shape (kept groups, mixed groups, places)."""

    def multiply(self, x: Words, w: Words) -> Words:
        """Return the product of a keeper's and a mixer's operand, in the clear."""


def check_shape(name: str, x: Words, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ShapeError(f"the {name} operand must have shape {shape}, got {x.shape}")


def ceiling(count: int, size: int) -> int:
    return -(-count // size)


def whole_polynomials(polynomials: Words) -> Words:
    """Return polynomials of shape (groups, terms, N), with the zeros that end them."""
    out = np.zeros((*polynomials.shape[:2], LENGTH), np.uint64)
    out[..., : polynomials.shape[2]] = polynomials
    return out


@dataclass(frozen=True)
class _Matrices:
    """The product of matrices of shapes (m, k) and (k, n).

    Attributes
    ----------
    m, k, n : int
    rows : int
        A power of two, at most N: the left operand's rows in one polynomial.
    columns : int
        nb: the right operand's columns in one polynomial.
    """

    m: int
    k: int
    n: int
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 0:
            raise ArgumentError(
                f"m, k and n must not be negative, got {self.m}, {self.k}, {self.n}"
            )
        if self.rows < 1 or self.rows > LENGTH or self.rows & (self.rows - 1):
            raise ArgumentError(f"rows must be a power of two, at most {LENGTH}, got {self.rows}")
        if not 1 <= self.columns <= LENGTH // self.rows:
            raise ArgumentError(
                f"columns must be in [1, {LENGTH // self.rows}] for {self.rows} rows, got {self.columns}"
            )

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.m, self.n

    @property
    def depth(self) -> int:
        """kb: columns of the left operand, rows of the right one, in one polynomial."""
        return LENGTH // self.rows // self.columns

    @property
    def terms(self) -> int:
        return ceiling(self.k, self.depth)

    @property
    def row_groups(self) -> int:
        return ceiling(self.m, self.rows)

    @property
    def column_groups(self) -> int:
        return ceiling(self.n, self.columns)

    @property
    def filled(self) -> int:
        """Rows of a polynomial that are used: as many in each group, so that few are left over."""
        return ceiling(self.m, max(1, self.row_groups))

    @property
    def reads(self) -> int:
        return self.columns * self.filled

    @cached_property
    def places(self) -> Places:
        outputs = np.arange(self.columns) * self.depth + self.depth - 1
        return (outputs[:, None] * self.rows + np.arange(self.filled)).reshape(-1)

    def _pack_left(self, x: Words) -> Words:
        """Polynomials of shape (groups, terms, depth rows), which only zeros follow."""
        terms, depth = self.terms, self.depth
        out = np.zeros((len(x), terms * depth, self.rows), np.uint64)
        out[:, : self.k, : self.filled] = x.swapaxes(1, 2)
        return out.reshape(len(x), terms, depth * self.rows)

    def _left_groups(self, x: Words, start: int, stop: int) -> Words:
        out = np.zeros(((stop - start) * self.filled, self.k), np.uint64)
        some = x[start * self.filled : stop * self.filled]
        out[: len(some)] = some
        return out.reshape(stop - start, self.filled, self.k)

    def _pack_right(self, w: Words) -> Words:
        """Polynomials in T, of shape (groups, terms, N / rows)."""
        groups, terms, depth = ceiling(w.shape[1], self.columns), self.terms, self.depth
        full = np.zeros((terms * depth, groups * self.columns), np.uint64)
        full[: self.k, : w.shape[1]] = w
        parts = full.reshape(terms, depth, groups, self.columns)[:, ::-1].transpose(2, 0, 3, 1)
        out = np.zeros((groups, terms, LENGTH // self.rows), np.uint64)
        out[:, :, : depth * self.columns] = parts.reshape(groups, terms, depth * self.columns)
        return out

    def _result(self, results: Words) -> Words:
        """From (row groups, column groups, places)."""
        parts = results.reshape(self.row_groups, self.column_groups, self.columns, self.filled)
        rows = parts.transpose(0, 3, 1, 2).reshape(
            self.row_groups * self.filled, self.column_groups * self.columns
        )
        return np.ascontiguousarray(rows[: self.m, : self.n])


class KeptLeft(_Matrices):
    """The keeper's matrix is the left one: many rows, encrypted for this product."""

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return self.m, self.k

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        return self.k, self.n

    @property
    def kept_as(self) -> Hashable:
        return self

    @property
    def kept_groups(self) -> int:
        return self.row_groups

    @property
    def mixed_groups(self) -> int:
        return self.column_groups

    @property
    def run(self) -> int:
        return self.rows

    @property
    def used(self) -> int:
        return self.k * self.columns

    @property
    def dense(self) -> bool:
        return self.columns == 1

    def pack_kept(self, x: Words) -> Words:
        check_shape("keeper's", x, self.kept_shape)
        return whole_polynomials(self._pack_left(self._left_groups(x, 0, self.row_groups)))

    def unpack_kept(self, polynomials: Words) -> Words:
        if not self.dense:
            raise ArgumentError("only polynomials that are full of the operand may be random")
        parts = polynomials.reshape(self.row_groups, self.terms * self.depth, self.rows)
        rows = parts[:, : self.k, : self.filled].swapaxes(1, 2)
        return np.ascontiguousarray(rows.reshape(self.row_groups * self.filled, self.k)[: self.m])

    def pack_mixed(self, w: Words, start: int, stop: int) -> Words:
        check_shape("mixer's", w, self.mixed_shape)
        return self._pack_right(w[:, start * self.columns : stop * self.columns])

    def unpack(self, results: Words) -> Words:
        return self._result(results)

    def multiply(self, x: Words, w: Words) -> Words:
        return matmul(x, w)


class KeptRight(_Matrices):
    """The keeper's matrix is the right one: encrypted once, for products with few rows each."""

    @property
    def kept_shape(self) -> tuple[int, ...]:
        return self.k, self.n

    @property
    def mixed_shape(self) -> tuple[int, ...]:
        return self.m, self.k

    @property
    def kept_as(self) -> Hashable:
        # However many rows the other matrix has.
        return KeptRight, self.k, self.n, self.rows, self.columns

    @property
    def kept_groups(self) -> int:
        return self.column_groups

    @property
    def mixed_groups(self) -> int:
        return self.row_groups

    @property
    def run(self) -> int:
        return 1

    @property
    def used(self) -> int:
        return self.k * self.filled

    @property
    def dense(self) -> bool:
        return False

    def pack_kept(self, x: Words) -> Words:
        check_shape("keeper's", x, self.kept_shape)
        short = self._pack_right(x)
        out = np.zeros((*short.shape, self.rows), np.uint64)
        out[..., 0] = short
        return out.reshape(*short.shape[:2], LENGTH)

    def unpack_kept(self, polynomials: Words) -> Words:
        raise ArgumentError("only polynomials that are full of the operand may be random")

    def pack_mixed(self, w: Words, start: int, stop: int) -> Words:
        check_shape("mixer's", w, self.mixed_shape)
        return self._pack_left(self._left_groups(w, start, stop))

    def unpack(self, results: Words) -> Words:
        return self._result(results.swapaxes(0, 1))

    def multiply(self, x: Words, w: Words) -> Words:
        return matmul(w, x)


def _candidates(least_rows: int, n: int, dense: bool) -> Iterator[tuple[int, int]]:
    rows = least_rows
    while rows <= LENGTH:
        most = 1 if dense else min(n, LENGTH // rows)
        yield rows, most
        for columns in (1 << k for k in range(most.bit_length())):
            if columns < most:
                yield rows, columns
        rows *= 2


def weight(layout: Layout, products: int, coefficient: float) -> float:
    """What a product takes, in bytes: those that are sent, and work at the price of a gigabit a second.

    Measured on two parties' sides: 8 us to multiply and add a pair of polynomials, 0.3 ms to encrypt and
    receive one, 0.4 ms to finish and decrypt an answer; 50 us for each of the mixer's polynomials of full
    length, shorter ones next to nothing.

    Parameters
    ----------
    layout : Layout
    products : int
        How many products the keeper's operand serves.
    coefficient : float
        Bytes of a coefficient of what the keeper sends.
    """
    kept = layout.kept_groups * layout.terms * (LENGTH * coefficient + 37_500) / products
    answers = layout.kept_groups * layout.mixed_groups
    sent = answers * 9.5 * (LENGTH + layout.reads)
    mixed = 6_000 * layout.mixed_groups * layout.terms if layout.run < LANES else 0
    return kept + sent + mixed + answers * (1000 * layout.terms + 50_000)


@lru_cache(1 << 12)
def choose_left(m: int, k: int, n: int, *, dense: bool = False) -> KeptLeft:
    """Return the layout that takes least, for a left operand that is encrypted for one product."""
    # Runs of fewer than eight places would take a polynomial of full length for each of the mixer's.
    found = [KeptLeft(m, k, n, *pair) for pair in _candidates(LANES, max(1, n), dense)]
    return min(found, key=lambda layout: weight(layout, 1, GIVEN_BYTES))


def choose_mask(m: int, k: int, n: int) -> KeptLeft:
    """Return the layout that takes least, for a left operand that is a fresh mask.

    If it is dense, the mask may be what random strings decrypt to; if not, fewer answers are worth more.
    """
    found = [KeptLeft(m, k, n, *pair) for pair in _candidates(LANES, max(1, n), False)]
    return min(
        found, key=lambda layout: weight(layout, 1, RANDOM_BYTES if layout.dense else GIVEN_BYTES)
    )


@lru_cache(1 << 12)
def choose_right(m: int, k: int, n: int, *, products: int = 1000) -> KeptRight:
    """Return the layout that takes least, for a right operand that serves so many products."""
    found = [KeptRight(m, k, n, *pair) for pair in _candidates(1, max(1, n), False)]
    return min(found, key=lambda layout: weight(layout, products, GIVEN_BYTES))
