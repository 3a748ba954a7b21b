"""Layers with a factor or a summand for every element of a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from nn.core.checks import interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import ShapeError

__all__ = ["Constant", "Scale", "Shift"]


@register
class Scale(Layer):
    """Scale: ``x * factor + summand``, element by element.

    On shares factor and summand are secret, as weights are. Rows broadcast with them, as NumPy's
    arrays do: a vector has an entry for each channel of images whose channels come last.

    Parameters
    ----------
    factor, summand : array
        Of one shape, with no more axes than a row.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Scale
    >>> Scale(np.array([2.0, 3.0]), np.array([0.0, 1.0]))(np.array([[10.0, 100.0]]))
    array([[ 20., 301.]])
    """

    def __init__(self, factor: Any, summand: Any) -> None:
        super().__init__()
        if tuple(factor.shape) != tuple(summand.shape):
            raise ShapeError(
                f"factor and summand must have one shape, got {factor.shape} and {summand.shape}"
            )
        self.factor, self.summand = factor, summand

    def __repr__(self) -> str:
        return f"Scale({', '.join(map(str, self.factor.shape))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        () = options
        return cls(next(parameters), next(parameters))

    @property
    def parameters(self) -> list[Any]:
        """The factor and the summand."""
        return [self.factor, self.summand]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(self.factor.shape)] * 2:
            raise ShapeError(
                f"{self!r} needs two parameters of {self.factor.shape}, got shapes {shapes}"
            )
        self.factor, self.summand = values

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Self:
        shape = tuple(self.factor.shape)
        return self.with_parameters([np.ones(shape, dtype), np.zeros(shape, dtype)])

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        return x * self.factor + self.summand

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            x = x.truncate()  # once, for the product and the gradient
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        if isinstance(gradient, SharedArray):
            gradient = gradient.truncate()
        shape = tuple(self.factor.shape)
        self.gradients = [summed_rows(gradient * x, shape), summed_rows(gradient, shape)]
        if not input_gradient:
            return None
        back = gradient * self.factor
        grown = [k for k in range(1, len(back.shape)) if back.shape[k] != x.shape[k]]
        return back.sum(axis=tuple(grown)).reshape(x.shape) if grown else back

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        factor, summand = (np.asarray(p, np.float64) for p in self.parameters)
        ends = lows * factor + summand, highs * factor + summand
        return np.minimum(*ends), np.maximum(*ends)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        factor, summand = (np.asarray(p, np.float64) for p in self.parameters)
        rounded = np.rint(factor / unit) * unit
        off = np.abs(np.rint(summand / unit) * unit - summand)
        return error * np.abs(rounded) + magnitude * np.abs(rounded - factor) + off

    def output_shape(self, input_shape: Shape) -> Shape:
        return broadcast_rows(self, input_shape, self.factor)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        size = int(np.prod(self.output_shape(input_shape)))
        return (8 * parties + 6) * size


@register
class Shift(Layer):
    """Shift: ``x + summand``, element by element.

    On shares the summand is secret, and the sum takes no communication.

    Parameters
    ----------
    summand : array
        With no more axes than a row, with which it broadcasts.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Shift
    >>> Shift(np.array([0.0, 1.0]))(np.array([[10.0, 100.0]]))
    array([[ 10., 101.]])
    """

    keeps_bits = True

    def __init__(self, summand: Any) -> None:
        super().__init__()
        self.summand = summand

    def __repr__(self) -> str:
        return f"Shift({', '.join(map(str, self.summand.shape))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        () = options
        return cls(next(parameters))

    @property
    def parameters(self) -> list[Any]:
        """The summand."""
        return [self.summand]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        if [tuple(value.shape) for value in values] != [tuple(self.summand.shape)]:
            raise ShapeError(
                f"{self!r} needs one parameter of shape {tuple(self.summand.shape)}, "
                f"got {[tuple(value.shape) for value in values]}"
            )
        (self.summand,) = values

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Self:
        return self.with_parameters([np.zeros(tuple(self.summand.shape), dtype)])

    def __call__(self, x: Any) -> Any:
        return x + self.summand

    def forward(self, x: Any) -> Any:
        self._memory = tuple(x.shape)
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        self.gradients = [summed_rows(gradient, tuple(self.summand.shape))]
        if not input_gradient:
            return None
        grown = [k for k in range(1, len(shape)) if gradient.shape[k] != shape[k]]
        return gradient.sum(axis=tuple(grown)).reshape(shape) if grown else gradient

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        summand = np.asarray(self.summand, np.float64)
        return np.asarray(lows + summand), np.asarray(highs + summand)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        summand = np.asarray(self.summand, np.float64)
        return np.asarray(error + 0 * magnitude + np.abs(np.rint(summand / unit) * unit - summand))

    def output_shape(self, input_shape: Shape) -> Shape:
        return broadcast_rows(self, input_shape, self.summand)


@register
class Constant(Shift):
    """The same row for every row of the input, whatever that is.

    On shares the row is secret, as weights are, and no communication is needed.

    Parameters
    ----------
    summand : array
        The row.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers.scale import Constant
    >>> Constant(np.array([5.0, 6.0]))(np.zeros((2, 7)))
    array([[5., 6.],
           [5., 6.]])
    """

    keeps_bits = False

    def __repr__(self) -> str:
        return f"Constant({', '.join(map(str, self.summand.shape))})"

    def __call__(self, x: Any) -> Any:
        one = self.summand.reshape((1, *self.summand.shape))
        return one[np.zeros(x.shape[0], np.intp)]

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        self._remembered()
        self.gradients = [gradient.sum(axis=0)]
        return np.zeros(self._memory) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        summand = np.asarray(self.summand, np.float64)
        return summand, summand

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        summand = np.asarray(self.summand, np.float64)
        return np.abs(np.rint(summand * 2.0**frac_bits) * 2.0**-frac_bits - summand)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(self.summand.shape)


def broadcast_rows(layer: Layer, input_shape: Shape, parameter: Any) -> Shape:
    """Return the shape of rows that broadcast with a parameter."""
    shape, own = tuple(input_shape), tuple(parameter.shape)
    try:
        if len(own) > len(shape):
            raise ValueError
        return np.broadcast_shapes(shape, own)
    except ValueError:
        raise ShapeError(f"{layer!r} takes rows that broadcast with {own}, got {shape}") from None


def summed_rows(gradient: Any, shape: Shape) -> Any:
    """Return a gradient at rows, summed to the shape of a parameter that broadcasts with them."""
    padded = (1,) * (len(gradient.shape) - len(shape)) + shape
    axes = tuple(k for k, n in enumerate(gradient.shape) if not k or n != padded[k])
    return gradient.sum(axis=axes).reshape(shape)
