"""Activations by clipping: Clip, HardSigmoid and HardSwish. On shares by :mod:`mpc.protocols.clip`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import comparison
from mpc.protocols.clip import clip_with_derivative
from nn.core.checks import interval, real
from nn.layers.layer import Layer, NamedElsewhere, Shape, register
from ring.errors import ArgumentError

__all__ = ["Clip", "HardSigmoid", "HardSwish"]

# More than any float, less than infinity.
_MOST = 1e300


def clipped(x: Any, low: float | None, high: float | None) -> tuple[Any, Any]:
    """Return x between limits, and whether it lies between them; bits on shares, or None for always."""
    if not isinstance(x, SharedArray):
        ends = -np.inf if low is None else low, np.inf if high is None else high
        return np.clip(x, low, high), (x > ends[0]) & (x < ends[1])
    unit = 2.0**x.session.format.frac_bits
    least, most = (None if v is None else round(v * unit) for v in (low, high))
    y, bit = clip_with_derivative(x, least, most)
    return y, None if bit is None else comparison.bit_array(y, bit)


def _gated(gradient: Any, inside: Any) -> Any:
    if inside is None:
        return gradient
    return gradient.gate(inside) if isinstance(inside, SharedArray) else gradient * inside


class _Clipped(Layer):
    """Base class of activations that take one clip of each element."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        return 26 * (parties + 1) * math.prod(input_shape)


@register
class Clip(_Clipped):
    """Clip: `low` below it, `high` above it, x between them. ``Clip(0, 6)`` is known as ReLU6.

    The derivative at the limits is 0, in the clear and on shares.

    Parameters
    ----------
    low, high : float, optional
        Limits; None for no limit. On shares they are rounded to the format.

    Raises
    ------
    ArgumentError, DtypeError
        If a limit is no number, both are missing, or `low` is not below `high`.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Clip
    >>> Clip(0, 6)(np.array([[-1.0, 2.0, 7.0]]))
    array([[0., 2., 6.]])
    """

    options = ("low", "high")

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        self.low, self.high = (
            None if v is None else real(name, v, least=-_MOST, below=_MOST)
            for name, v in (("low", low), ("high", high))
        )
        if self.low is None and self.high is None:
            raise ArgumentError("low or high must be given")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ArgumentError(f"low must be below high, got {self.low:g} and {self.high:g}")

    def __repr__(self) -> str:
        ends = ("None" if v is None else f"{v:g}" for v in (self.low, self.high))
        return f"Clip({', '.join(ends)})"

    def __call__(self, x: Any) -> Any:
        return clipped(x, self.low, self.high)[0]

    def forward(self, x: Any) -> Any:
        output, inside = clipped(x, self.low, self.high)
        self._memory = (inside,)
        return output

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        (inside,) = self._remembered()
        return _gated(gradient, inside) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.asarray(self(lows)), np.asarray(self(highs))

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        if self.low is not None and self.high is not None:
            return max(abs(self.low), abs(self.high))
        return magnitude + abs(self.low or self.high or 0.0)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # One truncation, and a limit that is rounded.
        return error + 2 * 2.0**-frac_bits


@register
class HardSigmoid(_Clipped):
    """Hard sigmoid: ``slope * x + offset`` between 0 and 1.

    Parameters
    ----------
    slope : float, default=0.2
        Above 0.
    offset : float, default=0.5

    Raises
    ------
    ArgumentError, DtypeError
        If `slope` or `offset` is no finite number, or `slope` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import HardSigmoid
    >>> HardSigmoid(0.25)(np.array([[-3.0, 1.0]]))
    array([[0.  , 0.75]])
    """

    options = ("slope", "offset")
    may_grow = True
    named_elsewhere = NamedElsewhere(
        onnx="HardSigmoid",
        onnx_attributes={"alpha": ("slope", 0.2), "beta": ("offset", 0.5)},
    )

    def __init__(self, slope: float = 0.2, offset: float = 0.5) -> None:
        super().__init__()
        self.slope = real("slope", slope, above=0, below=_MOST)
        self.offset = real("offset", offset, least=-_MOST, below=_MOST)

    def __repr__(self) -> str:
        return f"HardSigmoid({self.slope:g}, {self.offset:g})"

    def _both(self, x: Any) -> tuple[Any, Any]:
        """Return the output, and whether it lies between 0 and 1."""
        if not isinstance(x, SharedArray):
            line = x * np.asarray(self.slope, x.dtype) + np.asarray(self.offset, x.dtype)
            return clipped(line, 0.0, 1.0)
        # The limits of x are rounded to the format, so the line there is not quite 0 and 1.
        low, high = -self.offset / self.slope, (1 - self.offset) / self.slope
        inner, inside = clipped(x, low, high)
        return inner * self.slope + self.offset, inside

    def __call__(self, x: Any) -> Any:
        return self._both(x)[0]

    def forward(self, x: Any) -> Any:
        output, inside = self._both(x)
        self._memory = (inside,)
        return output

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        (inside,) = self._remembered()
        return _gated(gradient, inside) * self.slope if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.asarray(self(lows)), np.asarray(self(highs))

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0 + 2.0**-8

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        return self.slope * (error + 2 * 2.0**-frac_bits) + 3 * 2.0**-frac_bits


@register
class HardSwish(_Clipped):
    """Hard swish: ``x`` times the hard sigmoid ``x / 6 + 1 / 2`` between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import HardSwish
    >>> HardSwish()(np.array([[-4.0, 0.0, 1.5, 4.0]]))
    array([[-0.   ,  0.   ,  1.125,  4.   ]])
    """

    named_elsewhere = NamedElsewhere(onnx="HardSwish")
    # Where it is least, and the least it is.
    _LEAST = -1.5, -0.375

    def __init__(self) -> None:
        super().__init__()
        self._gate = HardSigmoid(1 / 6, 0.5)

    def __call__(self, x: Any) -> Any:
        x = x.truncate() if isinstance(x, SharedArray) else x
        return x * self._gate(x)

    def forward(self, x: Any) -> Any:
        x = x.truncate() if isinstance(x, SharedArray) else x
        gate, inside = self._gate._both(x)
        self._memory = x, gate, inside
        return x * gate

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x, gate, inside = self._remembered()
        if not input_gradient:
            return None
        if isinstance(gradient, SharedArray):
            gradient = gradient.truncate()
        # (x g)' = g + x g', and g' is 1 / 6 where g is neither 0 nor 1.
        return gradient * gate + _gated(gradient * x, inside) * (1 / 6)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        ends = np.asarray(self(lows)), np.asarray(self(highs))
        place, least = self._LEAST
        lowest = np.where((lows <= place) & (highs >= place), least, np.minimum(*ends))
        return lowest, np.maximum(*ends)

    def reach(self, magnitude: SharedArray) -> SharedArray:
        return magnitude

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # The derivative is at most 1.5; the gate is off by 4 units, and the input by one.
        unit = 2.0**-frac_bits
        return 1.5 * (error + unit) + 4 * magnitude * unit
