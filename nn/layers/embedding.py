"""Embedding: rows of a table chosen by whole numbers, which may be secret."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.protocols import thresholds
from nn.core.checks import interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import DataError, ShapeError
from ring.real_arrays import real_array

__all__ = ["Embedding"]


@register
class Embedding(Layer):
    """Embedding: the row of a table for each id, a whole number from 0 on.

    On shares ids and table are secret: each id is compared with all ids, from one opening, which gives
    its one-hot vector, and that is multiplied with the table. An id outside is taken for the nearest one
    there; in the clear it is refused.

    Parameters
    ----------
    table : array of shape (ids, width)

    Raises
    ------
    ShapeError
        If `table` does not have two axes.

    Notes
    -----
    On shares about 8 bytes an id, and two bits for each number that it may be; then a matrix product.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Embedding
    >>> Embedding(np.array([[1.0, 2.0], [3.0, 4.0]]))(np.array([[1, 0]]))
    array([[[3., 4.],
            [1., 2.]]])
    """

    def __init__(self, table: Any) -> None:
        if not hasattr(table, "shape"):
            table = real_array(table, "table")
        if len(table.shape) != 2:
            raise ShapeError(f"table must have two axes (ids, width), got shape {table.shape}")
        super().__init__()
        self.table = table

    def __repr__(self) -> str:
        return "Embedding({}, {})".format(*self.table.shape)

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        () = options
        return cls(next(parameters))

    @property
    def parameters(self) -> list[Any]:
        """The table."""
        return [self.table]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(self.table.shape)]:
            raise ShapeError(f"{self!r} needs one table of {self.table.shape}, got shapes {shapes}")
        (self.table,) = values

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Self:
        return self.with_parameters([random.normal(size=self.table.shape).astype(dtype)])

    def _places(self, x: NDArray[Any]) -> NDArray[np.intp]:
        """Return plain ids as indices of the table."""
        places, last = np.rint(x), self.table.shape[0] - 1
        outside = (places < 0) | (places > last)
        # Numbers between ids are tried by checks of a format, on random rows.
        if (outside & (places == x)).any():
            raise DataError(f"ids of {self!r} must be whole numbers from 0 to {last}")
        return np.clip(places, 0, last).astype(np.intp)

    def _one_hot(self, x: SharedArray) -> SharedArray:
        """Return the one-hot vectors of ids, of shape (all ids, table's rows)."""
        count, frac_bits = self.table.shape[0], x.frac_bits
        # Halfway between two ids, so that the rounding of a fixed-point id changes nothing.
        ends = [(k << frac_bits) - (1 << frac_bits >> 1) for k in range(1, count)]
        words = np.zeros((len(x.session.here), count, x.size), np.uint64)
        if ends:
            with x.session.protocol("embedding"):
                # [x < t] grows with t by one where x is.
                below = thresholds.below(x.ravel(), ends)
            words[:, :-1] = below
            words[:, 1:] -= below
        if x.session.first_row is not None:
            words[x.session.first_row, -1] += np.uint64(1)
        found = np.ascontiguousarray(words.transpose(0, 2, 1))
        return x.derive(found, frac_bits=0, bound=1, binary=True)

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if not isinstance(x, SharedArray):
            return self.table[self._places(x)]
        return self._looked_up(self._one_hot(x)).reshape((x.shape[0], *shape))

    def _looked_up(self, one_hot: SharedArray) -> SharedArray:
        found: SharedArray = one_hot @ self.table
        return found.with_integer_bound(self.table.bound)

    def forward(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if not isinstance(x, SharedArray):
            self._memory = self._places(x)
            return self.table[self._memory]
        self._memory = one_hot = self._one_hot(x)
        return self._looked_up(one_hot).reshape((x.shape[0], *shape))

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        """As of every layer; ids have no gradient, so that at the input is zero."""
        memory = self._remembered()
        shape = tuple(gradient.shape)[:-1]
        if isinstance(memory, SharedArray):
            flat = gradient.truncate().reshape((-1, gradient.shape[-1]))
            self.gradients = [memory.T @ flat]
            return gradient.sum(axis=-1) * 0 if input_gradient else None
        at_table = np.zeros(self.table.shape, gradient.dtype)
        np.add.at(at_table, memory, gradient)
        self.gradients = [at_table]
        return np.zeros(shape, gradient.dtype) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, _ = np.broadcast_arrays(*interval(low, high))
        table = np.asarray(self.table, np.float64)
        if not lows.ndim:
            return np.asarray(table.min()), np.asarray(table.max())
        shape = (*lows.shape, table.shape[1])
        return (
            np.broadcast_to(table.min(axis=0), shape).copy(),
            np.broadcast_to(table.max(axis=0), shape).copy(),
        )

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        table = np.asarray(self.table, np.float64)
        off = np.abs(np.rint(table / unit) * unit - table).max(axis=0)
        return np.broadcast_to(off, (*np.shape(magnitude), table.shape[1]))

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, int(self.table.shape[1]))

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        ids, width = self.table.shape
        return int((parties + 1) * math.prod(input_shape) * (8 * ids + 4 * width))
