"""Elementary functions as layers: exact on NumPy arrays, by normalised pieces on shares.

On shares the error is at most 2^-18 of the result and four units of the format in the default format,
up to 2^-10 of the result in others: see :func:`mpc.protocols.normalised.error_bound`. A value outside
of the domain is refused there, as `ranges` of the session say. They are not trained on shares.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import trigonometry
from nn.core.checks import interval, real
from nn.layers.layer import Layer, NamedElsewhere, Shape, register
from ring.errors import ArgumentError, DtypeError

__all__ = ["Cos", "Exp", "Log", "Pow", "Reciprocal", "Sin", "Sqrt"]

Reals = NDArray[Any]
# No format has a smaller positive number.
_SMALLEST = 2.0**-30


def _limit(x: SharedArray) -> float:
    """Return the format's limit, which a function of numbers near 0 may reach; more is refused."""
    return 2.0**x.session.format.int_bits


class _Function(Layer):
    """Base class: a function of single elements that is monotonous where it is defined."""

    trains_on_shares = False

    def __call__(self, x: Any) -> Any:
        return self._shared(x) if isinstance(x, SharedArray) else self._exact(x)

    def _exact(self, x: Reals) -> Reals:
        raise NotImplementedError

    def _shared(self, x: SharedArray) -> SharedArray:
        raise NotImplementedError

    def _derivative(self, x: Reals) -> Reals:
        raise NotImplementedError

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            raise DtypeError(f"{self!r} is not trained on shares")
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        return gradient * self._derivative(x) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[Reals, Reals]:
        lows, highs = self._defined(*interval(low, high))
        with np.errstate(over="ignore"):
            ends = self._exact(lows), self._exact(highs)
        return np.minimum(*ends), np.maximum(*ends)

    def _defined(self, lows: Reals, highs: Reals) -> tuple[Reals, Reals]:
        """Return the part of an interval on which the function is defined."""
        return lows, highs

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Bits of a hundred thresholds; more elements than fit are evaluated in parts.
        return 400 * (parties + 1) * math.prod(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@register
class Exp(_Function):
    """e to the power of x.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Exp
    >>> Exp()(np.array([[0.0, 1.0]])).round(4)
    array([[1.    , 2.7183]])
    """

    named_elsewhere = NamedElsewhere(onnx="Exp")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.exp(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.exp().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(np.exp(x))

    def fixed_point_error(self, magnitude: Reals, error: Reals, frac_bits: int) -> Reals:
        with np.errstate(over="ignore"):
            most = np.exp(magnitude + error)
        return np.asarray(most * (error + 2.0**-18.5) + 3.5 * 2.0**-frac_bits)


@register
class Log(_Function):
    """The natural logarithm, of positive numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Log
    >>> Log()(np.array([[1.0, 100.0]])).round(4)
    array([[0.    , 4.6052]])
    """

    named_elsewhere = NamedElsewhere(onnx="Log")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.log(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.log().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(1 / x)

    def reach(self, magnitude: SharedArray) -> float:
        # Nothing in the format is closer to 0, or farther from it.
        form = magnitude.session.format
        return max(form.frac_bits, form.int_bits) * math.log(2)

    def _defined(self, lows: Reals, highs: Reals) -> tuple[Reals, Reals]:
        return np.maximum(lows, _SMALLEST), np.maximum(highs, _SMALLEST)


@register
class Sqrt(_Function):
    """The square root.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Sqrt
    >>> Sqrt()(np.array([[0.0, 9.0]]))
    array([[0., 3.]])
    """

    named_elsewhere = NamedElsewhere(onnx="Sqrt")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.sqrt(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.sqrt().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(0.5 / np.sqrt(x))

    def _defined(self, lows: Reals, highs: Reals) -> tuple[Reals, Reals]:
        return np.maximum(lows, 0), np.maximum(highs, 0)


@register
class Reciprocal(_Function):
    """One over x, for x that is not 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Reciprocal
    >>> Reciprocal()(np.array([[0.5, -4.0]]))
    array([[ 2.  , -0.25]])
    """

    named_elsewhere = NamedElsewhere(onnx="Reciprocal")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.reciprocal(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.reciprocal().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(-1 / (x * x))

    def reach(self, magnitude: SharedArray) -> float:
        return _limit(magnitude)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[Reals, Reals]:
        lows, highs = interval(low, high)
        with np.errstate(divide="ignore"):
            ends = 1 / lows, 1 / highs
        across = (lows <= 0) & (highs >= 0)
        return (
            np.where(across & (lows < 0), -np.inf, np.where(highs == 0, ends[0], ends[1])),
            np.where(across & (highs > 0), np.inf, np.where(lows == 0, ends[1], ends[0])),
        )


@register
class Pow(_Function):
    """x to the power of a public number.

    Parameters
    ----------
    exponent : float
        Not 0. For whole numbers above 0 x may be any number, for other exponents it has to be positive;
        0 for positive ones, and negative numbers for -1, are also right.

    Raises
    ------
    ArgumentError, DtypeError
        If `exponent` is no such number.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Pow
    >>> Pow(2)(np.array([[-3.0, 0.5]]))
    array([[9.  , 0.25]])
    """

    options = ("exponent",)

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = real("exponent", exponent, below=math.inf)
        if self.exponent == 0 or self.exponent == -math.inf:
            raise ArgumentError(f"exponent must be finite and not 0, got {exponent!r}")

    def __repr__(self) -> str:
        return f"Pow({self.exponent:g})"

    @property
    def _whole(self) -> bool:
        return self.exponent > 0 and self.exponent.is_integer()

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.power(x, np.asarray(self.exponent, np.asarray(x).dtype)))

    def _shared(self, x: SharedArray) -> SharedArray:
        found: SharedArray = x**self.exponent
        return found.truncate()

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        return _limit(magnitude) if self.exponent < 0 else super().reach(magnitude)

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(self.exponent * np.power(x, self.exponent - 1))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[Reals, Reals]:
        if self.exponent == -1:
            return Reciprocal().bounds(low, high)
        if not self._whole:
            return super().bounds(low, high)
        lows, highs = interval(low, high)
        ends = self._exact(lows), self._exact(highs)
        across = (lows < 0) & (highs > 0) & (self.exponent % 2 == 0)
        return np.where(across, 0, np.minimum(*ends)), np.maximum(*ends)

    def _defined(self, lows: Reals, highs: Reals) -> tuple[Reals, Reals]:
        least = 0 if self.exponent > 0 else _SMALLEST
        return np.maximum(lows, least), np.maximum(highs, least)


class _Wave(_Function):
    """Base class: sine and cosine."""

    may_grow = False
    # In mpc.protocols.trigonometry; and where it is 1.
    protocol: ClassVar[str]
    peak: ClassVar[float]

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[Reals, Reals]:
        lows, highs = interval(low, high)
        ends = self._exact(lows), self._exact(highs)

        def reached(place: float) -> Reals:
            turns = (lows - place) / (2 * np.pi), (highs - place) / (2 * np.pi)
            return np.asarray(np.ceil(turns[0]) <= np.floor(turns[1]))

        least = np.where(reached(self.peak + np.pi), -1.0, np.minimum(*ends))
        return least, np.where(reached(self.peak), 1.0, np.maximum(*ends))

    def fixed_point_error(self, magnitude: Reals, error: Reals, frac_bits: int) -> Reals:
        return np.minimum(error, 2.0) + trigonometry.error_bound(self.protocol, frac_bits)


@register
class Sin(_Wave):
    """The sine.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Sin
    >>> Sin()(np.array([[0.0, 1.0]])).round(4)
    array([[0.    , 0.8415]])
    """

    protocol, peak = "sin", math.pi / 2
    named_elsewhere = NamedElsewhere(onnx="Sin")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.sin(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.sin().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(np.cos(x))


@register
class Cos(_Wave):
    """The cosine.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Cos
    >>> Cos()(np.array([[0.0, 1.0]])).round(4)
    array([[1.    , 0.5403]])
    """

    protocol, peak = "cos", 0.0
    named_elsewhere = NamedElsewhere(onnx="Cos")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.cos(x))

    def _shared(self, x: SharedArray) -> SharedArray:
        return x.cos().truncate()

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(-np.sin(x))
