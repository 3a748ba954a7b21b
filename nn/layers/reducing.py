"""Sums, means, maxima and minima along axes of every row."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import DtypeError, ShapeError

__all__ = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"]


class _Reduce(Layer):
    """Base class of reductions.

    Parameters
    ----------
    axes : int or sequence of int, optional
        Axes of a row, counted from 0 without the axis of the rows, or from the last backward; default all.
    keep : bool, default=True
        Whether reduced axes stay, with size 1.

    Raises
    ------
    DtypeError
        If an axis is no integer. A ShapeError for rows without it comes from the call.
    """

    options = ("axes", "keep")

    def __init__(self, axes: int | Sequence[int] | None = None, keep: bool = True) -> None:
        super().__init__()
        given = axes if axes is None or isinstance(axes, (tuple, list)) else (axes,)
        try:
            self.axes = None if given is None else tuple(operator.index(a) for a in given)
        except TypeError:
            raise DtypeError(f"axes must be integers, got {axes!r}") from None
        self.keep = bool(keep)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.axes}{'' if self.keep else ', keep=False'})"

    def _places(self, shape: Shape) -> tuple[int, ...]:
        """Return the reduced axes of a row, in order."""
        count = len(shape)
        named = range(count) if self.axes is None else self.axes
        if not all(-count <= a < count for a in named):
            raise ShapeError(f"{self!r} takes rows that have its axes, got shape {shape}")
        places = sorted(a % count for a in named)
        if len(set(places)) < len(places):
            raise ShapeError(f"{self!r} names an axis of rows of shape {shape} twice")
        return tuple(places)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        places = self._places(shape)
        if self.keep:
            return tuple(1 if k in places else n for k, n in enumerate(shape))
        return tuple(n for k, n in enumerate(shape) if k not in places)

    def _spread(self, gradient: Any, shape: Shape) -> Any:
        """Return an array of the output's shape with the reduced axes of size 1."""
        kept = tuple(1 if k - 1 in self._places(shape[1:]) else n for k, n in enumerate(shape))
        return gradient.reshape(kept)

    def _reduce(self, x: Any, axes: tuple[int, ...]) -> Any:
        raise NotImplementedError

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        axes = tuple(k + 1 for k in self._places(tuple(x.shape)[1:]))
        if not axes:
            return x
        return self._reduce(x, axes).reshape((x.shape[0], *shape))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = np.broadcast_arrays(*interval(low, high))
        return self(lows[None])[0], self(highs[None])[0]

    def forward(self, x: Any) -> Any:
        self._memory = tuple(x.shape)
        return self(x)

    def _count(self, shape: Shape) -> int:
        return math.prod(shape[k] for k in self._places(shape))


@register
class ReduceSum(_Reduce):
    """The sum along axes of every row.

    Parameters
    ----------
    axes : int or sequence of int, optional
        Axes of a row, counted from 0 without the axis of the rows, or from the last backward; default all.
    keep : bool, default=True
        Whether reduced axes stay, with size 1.

    Raises
    ------
    DtypeError
        If an axis is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReduceSum
    >>> ReduceSum(-1)(np.array([[1.0, 3.0]]))
    array([[4.]])
    """

    def _reduce(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.sum(axis=axes)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        if not input_gradient:
            return None
        return _repeated(self._spread(gradient, shape), shape)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        whole: NDArray[Any] = self(np.broadcast_to(error, np.shape(magnitude))[None])[0]
        return whole


@register
class ReduceMean(_Reduce):
    """The mean along axes of every row.

    Parameters
    ----------
    axes, keep
        As for :class:`ReduceSum`.

    Raises
    ------
    DtypeError
        If an axis is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReduceMean
    >>> ReduceMean(-1, keep=False)(np.array([[1.0, 3.0]]))
    array([2.])
    """

    may_grow = False

    def _reduce(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.mean(axis=axes)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        if not input_gradient:
            return None
        count = self._count(shape[1:])
        return _repeated(self._spread(gradient / count, shape), shape)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        mean = self(np.broadcast_to(error, np.shape(magnitude))[None])[0]
        return np.asarray(mean + 2 * 2.0**-frac_bits)


def _repeated(x: Any, shape: Shape) -> Any:
    """Return an array repeated along its axes of size 1."""
    if not isinstance(x, SharedArray):
        return np.broadcast_to(x, shape).copy()
    for axis, (old, new) in enumerate(zip(x.shape, shape, strict=True)):
        if old != new:
            x = x[(slice(None),) * axis + (np.zeros(new, np.intp),)]
    return x


class _Extreme(_Reduce):
    """Base class of the largest and the smallest value."""

    may_grow = False
    # Whose largest value is taken: x's, or -x's.
    sign = 1

    def _columns(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Return the reduced axes as one, the last."""
        others = [k for k in range(len(x.shape)) if k not in axes]
        moved = x.transpose((*others, *axes))
        return moved.reshape((*(x.shape[k] for k in others), -1))

    def _reduce(self, x: Any, axes: tuple[int, ...]) -> Any:
        if isinstance(x, SharedArray):
            columns = self._columns(x, axes)
            return columns.max(-1) if self.sign > 0 else columns.min(-1)
        return x.max(axis=axes) if self.sign > 0 else x.min(axis=axes)

    def forward(self, x: Any) -> Any:
        shape = tuple(x.shape)
        axes = tuple(k + 1 for k in self._places(shape[1:]))
        columns = self._columns(x, axes)
        signed = columns if self.sign > 0 else -columns
        # The first of equal values has the gradient.
        if isinstance(x, SharedArray):
            found = signed.argmax(axis=-1, one_hot=True)
        else:
            found = np.arange(columns.shape[-1]) == signed.argmax(axis=-1)[..., None]
        self._memory = found, shape, axes
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        found, shape, axes = self._remembered()
        if not input_gradient:
            return None
        part = found * gradient.reshape((*found.shape[:-1], 1))
        order = (*(k for k in range(len(shape)) if k not in axes), *axes)
        moved = part.reshape(tuple(shape[k] for k in order))
        return moved.transpose(tuple(int(k) for k in np.argsort(order)))

    def reach(self, magnitude: SharedArray) -> SharedArray:
        largest: SharedArray = ReduceMax(self.axes, keep=self.keep)(
            magnitude
        )  # of the smallest, too
        return largest

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        largest = np.broadcast_to(error, shape).max(axis=self._places(shape), keepdims=self.keep)
        return np.asarray(largest + 2.0**-frac_bits)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        count = self._count(tuple(input_shape))
        return (20 + 12 * min(count, 16)) * (parties + 1) * math.prod(input_shape)


@register
class ReduceMax(_Extreme):
    """The largest value along axes of every row.

    Parameters
    ----------
    axes, keep
        As for :class:`ReduceSum`.

    Raises
    ------
    DtypeError
        If an axis is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReduceMax
    >>> ReduceMax()(np.array([[1.0, 3.0]]))
    array([[3.]])
    """


@register
class ReduceMin(_Extreme):
    """The smallest value along axes of every row.

    Parameters
    ----------
    axes, keep
        As for :class:`ReduceSum`.

    Raises
    ------
    DtypeError
        If an axis is no integer. A ShapeError for rows without it comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReduceMin
    >>> ReduceMin()(np.array([[1.0, 3.0]]))
    array([[1.]])
    """

    sign = -1
