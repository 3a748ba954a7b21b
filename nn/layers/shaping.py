"""Layers that change the shape of rows. They need no communication on shares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.core.checks import integer, interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import ArgumentError, ShapeError

__all__ = ["Flatten", "Reshape", "Transpose"]


@register
class Reshape(Layer):
    """Change the shape of every row; elements stay in row-major order.

    Parameters
    ----------
    *shape : int
        New shape of one row: ``Reshape(28, 28, 1)`` makes images of rows of 784 pixels.

    Raises
    ------
    ArgumentError, DtypeError
        If a size is no integer of at least 1. A ShapeError for rows of another number of elements
        comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Reshape
    >>> Reshape(2, 3, 1)(np.zeros((5, 6))).shape
    (5, 2, 3, 1)
    """

    options: ClassVar[tuple[str, ...]] = ("shape",)
    may_grow, only_moves, commutes_with_relu = False, True, True

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = tuple(integer(f"shape[{k}]", n, 1) for k, n in enumerate(shape))

    def __repr__(self) -> str:
        return f"Reshape({', '.join(map(str, self.shape))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        (numbers,) = options
        return cls(*numbers)

    def __call__(self, x: Any) -> Any:
        return x.reshape((x.shape[0], *self.output_shape(tuple(x.shape)[1:])))

    def forward(self, x: Any) -> Any:
        self._memory = tuple(x.shape)
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        return gradient.reshape((gradient.shape[0], *shape[1:])) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim and not highs.ndim and self.shape:
            return np.full(self.shape, lows), np.full(self.shape, highs)
        lows, highs = np.broadcast_arrays(lows, highs)
        shape = self.output_shape(lows.shape)
        return lows.reshape(shape), highs.reshape(shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape) != math.prod(self.shape):
            raise ShapeError(
                f"{self!r} takes rows of {math.prod(self.shape)} elements, "
                f"got shape {tuple(input_shape)}"
            )
        return self.shape

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        return np.broadcast_to(error, np.shape(magnitude)).reshape(
            self.output_shape(np.shape(magnitude)) if np.ndim(magnitude) else ()
        )


@register
class Transpose(Layer):
    """Change the order of the axes of every row.

    Parameters
    ----------
    *axes : int
        The new order of a row's axes, counted from 0 without the axis of the rows:
        ``Transpose(1, 2, 0)`` moves channels from the first axis to the last.

    Raises
    ------
    ArgumentError, DtypeError
        If `axes` are not the integers 0, 1, ... in some order. A ShapeError for rows with another
        number of axes comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Transpose
    >>> Transpose(1, 2, 0)(np.zeros((5, 3, 8, 9))).shape
    (5, 8, 9, 3)
    """

    options = ("axes",)
    may_grow, only_moves, commutes_with_relu = False, True, True

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = tuple(integer(f"axes[{k}]", a, 0) for k, a in enumerate(axes))
        if sorted(self.axes) != list(range(len(self.axes))):
            raise ArgumentError(f"axes must be all of 0, 1, ... in some order, got {self.axes}")

    def __repr__(self) -> str:
        return f"Transpose({', '.join(map(str, self.axes))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        (numbers,) = options
        return cls(*numbers)

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        return x.transpose((0, *(a + 1 for a in self.axes)))

    def forward(self, x: Any) -> Any:
        self._memory = True
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        self._remembered()
        back = np.argsort(self.axes) + 1
        return gradient.transpose((0, *map(int, back))) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim and not highs.ndim:
            return lows, highs
        lows, highs = np.broadcast_arrays(lows, highs)
        self.output_shape(lows.shape)
        return lows.transpose(self.axes), highs.transpose(self.axes)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.axes):
            raise ShapeError(
                f"{self!r} takes rows with {len(self.axes)} axes, got shape {tuple(input_shape)}"
            )
        return tuple(input_shape[a] for a in self.axes)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        return np.broadcast_to(error, shape).transpose(self.axes) if shape else error


@register
class Flatten(Reshape):
    """Make every row a vector, of its elements in row-major order.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Flatten
    >>> Flatten()(np.zeros((5, 4, 4, 16))).shape
    (5, 256)
    """

    options = ()

    def __init__(self) -> None:
        super().__init__()

    def __repr__(self) -> str:
        return "Flatten()"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        () = options
        return cls()

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return lows.reshape(-1) if lows.ndim else lows, highs.reshape(-1) if highs.ndim else highs

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)
