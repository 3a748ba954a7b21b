"""Further piecewise linear activations, PReLU, ThresholdedReLU and Abs; and Step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear
from nn.core.checks import interval, real
from nn.layers.layer import Layer, NamedElsewhere, Shape, register
from ring.errors import DtypeError, ShapeError

__all__ = ["Abs", "PReLU", "Step", "ThresholdedReLU"]


class _Elementwise(Layer):
    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        return 24 * (parties + 1) * math.prod(input_shape)


@register
class PReLU(_Elementwise):
    """Parametric rectifier: x where x is positive, ``slope * x`` elsewhere.

    On shares the slopes are secret, as weights are. The derivative at 0 is the slope.

    Parameters
    ----------
    slope : array
        A number for each channel, of shape (channels,), or any shape that broadcasts with a row.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import PReLU
    >>> PReLU(np.array([0.5, -1.0]))(np.array([[-2.0, -2.0], [4.0, 4.0]]))
    array([[-1.,  2.],
           [ 4.,  4.]])
    """

    def __init__(self, slope: Any) -> None:
        super().__init__()
        self.slope = slope

    def __repr__(self) -> str:
        return f"PReLU({', '.join(map(str, self.slope.shape))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        () = options
        return cls(next(parameters))

    @property
    def parameters(self) -> list[Any]:
        """The slopes."""
        return [self.slope]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(self.slope.shape)]:
            raise ShapeError(
                f"{self!r} needs one parameter of shape {tuple(self.slope.shape)}, got {shapes}"
            )
        (self.slope,) = values

    def _check(self, x: Any) -> None:
        self.output_shape(tuple(x.shape)[1:])

    def __call__(self, x: Any) -> Any:
        self._check(x)
        if isinstance(x, SharedArray):
            x = x.truncate()
            positive = x.relu()
            return (x - positive) * self.slope + positive
        return np.where(x > 0, x, x * self.slope)

    def forward(self, x: Any) -> Any:
        self._check(x)
        if isinstance(x, SharedArray):
            x = x.truncate()
            positive, bit = x.relu_with_derivative()
            negative = x - positive
            self._memory = negative, bit
            return negative * self.slope + positive
        self._memory = np.minimum(x, 0), x > 0
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        negative, bit = self._remembered()
        if isinstance(gradient, SharedArray):
            gradient = gradient.truncate()
        shape = (1,) * (len(gradient.shape) - len(self.slope.shape)) + tuple(self.slope.shape)
        axes = tuple(k for k, n in enumerate(gradient.shape) if not k or n != shape[k])
        self.gradients = [(gradient * negative).sum(axis=axes).reshape(self.slope.shape)]
        if not input_gradient:
            return None
        if isinstance(gradient, SharedArray):
            kept = gradient.gate(bit)
            return (gradient - kept) * self.slope + kept
        return np.where(bit, gradient, gradient * self.slope)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        slope = np.asarray(self.slope, np.float64)
        # The line changes its direction at 0, if anywhere.
        ends = [np.where(v > 0, v, v * slope) for v in (lows, highs)]
        ends.append(np.where((lows < 0) & (highs > 0), 0.0, ends[0]))
        return np.minimum.reduce(ends), np.maximum.reduce(ends)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        slope = np.asarray(self.slope, np.float64)
        off = np.abs(np.rint(slope / unit) * unit - slope)
        return np.maximum(1, np.abs(slope)) * (error + 2 * unit) + off * magnitude

    def output_shape(self, input_shape: Shape) -> Shape:
        shape, own = tuple(input_shape), tuple(self.slope.shape)
        try:
            fits = len(own) <= len(shape) and np.broadcast_shapes(shape, own) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"{self!r} takes rows that broadcast with its slopes, got {shape}")
        return shape


@register
class ThresholdedReLU(_Elementwise):
    """Thresholded rectifier: x where x is above `threshold`, 0 elsewhere.

    Parameters
    ----------
    threshold : float, default=1.0
        On shares rounded to the format.

    Raises
    ------
    ArgumentError, DtypeError
        If `threshold` is no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ThresholdedReLU
    >>> ThresholdedReLU(1.0)(np.array([[0.5, 1.5]]))
    array([[0. , 1.5]])
    """

    options = ("threshold",)
    may_grow = False
    named_elsewhere = NamedElsewhere(
        onnx="ThresholdedRelu", onnx_attributes={"alpha": ("threshold", 1.0)}
    )

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = real("threshold", threshold, least=-1e300, below=1e300)

    def __repr__(self) -> str:
        return f"ThresholdedReLU({self.threshold:g})"

    def _both(self, x: Any) -> tuple[Any, Any]:
        """Return the output, and whether x is above the threshold."""
        if isinstance(x, SharedArray):
            x = x.truncate()
            above = x > self.threshold
            return x.gate(above), above
        above = x > self.threshold
        return np.where(above, x, np.zeros((), x.dtype)), above

    def __call__(self, x: Any) -> Any:
        return self._both(x)[0]

    def forward(self, x: Any) -> Any:
        output, self._memory = self._both(x)
        return output

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        above = self._remembered()
        if not input_gradient:
            return None
        return gradient.gate(above) if isinstance(above, SharedArray) else gradient * above

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        above, below = highs > self.threshold, lows <= self.threshold
        first = np.where(above, np.maximum(lows, self.threshold), np.inf)
        least = np.minimum(first, np.where(below, 0.0, np.inf))
        most = np.maximum(np.where(above, highs, -np.inf), np.where(below, 0.0, -np.inf))
        return least, most

    def reach(self, magnitude: SharedArray) -> SharedArray:
        return magnitude

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@register
class Abs(_Elementwise):
    """The magnitude of each element. The derivative at 0 is -1.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Abs
    >>> Abs()(np.array([[-1.0, 2.0]]))
    array([[1., 2.]])
    """

    may_grow = False
    named_elsewhere = NamedElsewhere(onnx="Abs")

    def __call__(self, x: Any) -> Any:
        return abs(x)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            x = x.truncate()
            positive, self._memory = x.relu_with_derivative()
            return 2 * positive - x
        self._memory = x > 0
        return abs(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        positive = self._remembered()
        if not input_gradient:
            return None
        if isinstance(positive, SharedArray):
            gradient = gradient.truncate()
            return 2 * gradient.gate(positive) - gradient
        return np.where(positive, gradient, -gradient)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        inside = (lows < 0) & (highs > 0)
        ends = np.abs(lows), np.abs(highs)
        return np.where(inside, 0.0, np.minimum(*ends)), np.maximum(*ends)

    def reach(self, magnitude: SharedArray) -> SharedArray:
        return magnitude

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        return error + 2.0**-frac_bits


@register
class Step(_Elementwise):
    """1 where x is above a threshold, 0 elsewhere. It is not trained: its derivative is 0.

    Parameters
    ----------
    threshold : float, default=0.0
        On shares rounded to the format.
    inclusive : bool, default=False
        Whether x at the threshold gives 1.

    Raises
    ------
    ArgumentError, DtypeError
        If `threshold` is no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Step
    >>> Step(1.0)(np.array([[1.0, 1.5]]))
    array([[0., 1.]])
    """

    options = ("threshold", "inclusive")
    may_grow = False
    trains_on_shares = False

    def __init__(self, threshold: float = 0.0, inclusive: bool = False) -> None:
        super().__init__()
        self.threshold = real("threshold", threshold, least=-1e300, below=1e300)
        self.inclusive = bool(inclusive)

    def __repr__(self) -> str:
        return f"Step({self.threshold:g}{', True' if self.inclusive else ''})"

    def __call__(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            x = x.truncate()
            bit = x >= self.threshold if self.inclusive else x > self.threshold
            return linear.at_bits(bit, x.session.format.frac_bits)
        above = x >= self.threshold if self.inclusive else x > self.threshold
        return np.asarray(above).astype(np.result_type(np.asarray(x).dtype, np.float32))

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            raise DtypeError(f"{self!r} is not trained on shares")
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        return gradient * 0 if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.asarray(self(lows)), np.asarray(self(highs))

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # What is nearer to the threshold than its error may be on the other side.
        return np.ones(np.shape(error))
