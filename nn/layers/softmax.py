"""Softmax and its logarithm as layers inside a network. On shares by :mod:`mpc.protocols.softmax`."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols.softmax import error_bound
from nn.core.checks import interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import DtypeError, ShapeError

__all__ = ["LogSoftmax", "Softmax"]


class _AlongAxis(Layer):
    """Base class of layers that work along one axis of a row."""

    options = ("axis",)

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        try:
            self.axis = operator.index(axis)
        except TypeError:
            raise DtypeError(f"axis must be an integer, got {axis!r}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.axis == -1 else self.axis})"

    def _place(self, shape: Shape) -> int:
        """Return the axis of a row, counted from 0."""
        if not -len(shape) <= self.axis < len(shape):
            raise ShapeError(f"{self!r} takes rows that have its axis, got shape {shape}")
        return self.axis % len(shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._place(tuple(input_shape))
        return tuple(input_shape)

    def _columns(self, x: Any) -> tuple[Any, Any]:
        """Return the axis as that of a matrix (others, axis), and a function that undoes it."""
        axis, ndim = self._place(tuple(x.shape)[1:]) + 1, len(x.shape)
        order = (*(k for k in range(ndim) if k != axis), axis)
        moved = x.transpose(order)
        shape = tuple(moved.shape)

        def back(z: Any) -> Any:
            return z.reshape(shape).transpose(tuple(int(k) for k in np.argsort(order)))

        return moved.reshape((-1, shape[-1])), back

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Up to 16 values are compared pairwise, more in groups. Up to 32 have tables for 1 / S.
        count = input_shape[self._place(tuple(input_shape))]
        return (108 + 12 * min(count, 16)) * (parties + 1) * math.prod(input_shape)


@register
class Softmax(_AlongAxis):
    """Softmax along an axis: ``exp(x)`` divided by its sum.

    Parameters
    ----------
    axis : int, default=-1
        Axis of a row, counted from 0 without the axis of the rows, or from the last backward.

    Raises
    ------
    DtypeError
        If `axis` is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Softmax
    >>> Softmax()(np.log([[1.0, 3.0]]))
    array([[0.25, 0.75]])
    """

    may_grow = False

    def __call__(self, x: Any) -> Any:
        columns, back = self._columns(x)
        return back(columns.softmax() if isinstance(x, SharedArray) else _softmax(columns))

    def forward(self, x: Any) -> Any:
        self._memory = self(x)
        return self._memory

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        p = self._remembered()
        if not input_gradient:
            return None
        (p, back), (g, _) = self._columns(p), self._columns(gradient)
        g = g.truncate() if isinstance(g, SharedArray) else g
        mean = (g * p).sum(axis=1).reshape((-1, 1))
        if isinstance(mean, SharedArray):
            mean = mean.truncate()
        return back(p * (g - mean))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        lows, highs = np.broadcast_arrays(lows, highs)
        return np.zeros(lows.shape), np.ones(lows.shape)

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0 + 2.0**-8

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        axis = self._place(shape)
        # A probability moves by at most half of what scores move by.
        largest = np.broadcast_to(error, shape).max(axis=axis, keepdims=True) / 2
        return np.broadcast_to(largest + error_bound(shape[axis], frac_bits), shape)


@register
class LogSoftmax(_AlongAxis):
    """The logarithm of the softmax along an axis.

    Parameters
    ----------
    axis : int, default=-1
        As for :class:`Softmax`.

    Raises
    ------
    DtypeError
        If `axis` is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import LogSoftmax
    >>> LogSoftmax()(np.log([[1.0, 3.0]])).round(4)
    array([[-1.3863, -0.2877]])
    """

    def __call__(self, x: Any) -> Any:
        columns, back = self._columns(x)
        if isinstance(x, SharedArray):
            # Of one value alone it is 0.
            return back(columns.log_softmax() if columns.shape[1] > 1 else columns * 0)
        shifted = columns - columns.max(axis=1, keepdims=True)
        return back(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    def forward(self, x: Any) -> Any:
        found = self(x)
        # On shares the powers follow from x, by the protocol that Softmax has.
        self._memory = x.truncate() if isinstance(x, SharedArray) else found
        return found

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        log = self._remembered()
        if not input_gradient:
            return None
        (log, back), (g, _) = self._columns(log), self._columns(gradient)
        if isinstance(g, SharedArray):
            g = g.truncate()
            return back(g - log.softmax() * g.sum(axis=1).reshape((-1, 1)))
        return back(g - np.exp(log) * g.sum(axis=1, keepdims=True))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        lows, highs = np.broadcast_arrays(lows, highs)
        axis = self._place(lows.shape)
        most = highs.max(axis=axis, keepdims=True)
        total = most + np.log(np.exp(highs - most).sum(axis=axis, keepdims=True))
        return lows - total, np.zeros(lows.shape)

    def reach(self, magnitude: SharedArray) -> SharedArray:
        # No value is further from the largest than both magnitudes; the sum of powers adds log k.
        columns, back = self._columns(magnitude)
        reach: SharedArray = back(columns + columns.max(axis=1).reshape((-1, 1)))
        return reach + math.log(columns.shape[1])

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        axis = self._place(shape)
        largest = 2 * np.broadcast_to(error, shape).max(axis=axis, keepdims=True)
        own = error_bound(shape[axis], frac_bits, log=True, place=min(24, frac_bits))
        return np.broadcast_to(largest + own + 2.0**-frac_bits, shape)


def _softmax(columns: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(columns - columns.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
