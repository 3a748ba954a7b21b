"""Smooth activations that grow like x, and their kin: exact on NumPy arrays, cubic pieces on shares.

On shares the error is at most 8.3e-5 at the default format and for every input, for SELU 1.22e-4, more for
an alpha other than 1: see :mod:`mpc.protocols.smooth`. They are not trained on shares.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import smooth
from nn.core.checks import interval, real
from nn.layers.layer import Layer, NamedElsewhere, Shape, register
from ring.errors import ArgumentError, DtypeError

__all__ = ["CELU", "ELU", "GELU", "SELU", "Erf", "Mish", "SiLU", "Softplus"]

Reals = NDArray[Any]


class SmoothActivation(Layer):
    """Base class: an activation of :mod:`mpc.protocols.smooth`."""

    # The largest slope, and where the function is least; None if it only rises.
    slope: ClassVar[float] = 1.0
    lowest_at: float | None = None
    alpha: float = 1.0
    trains_on_shares = False

    @property
    def protocol(self) -> str:
        """The function's name in :mod:`mpc.protocols.smooth`."""
        return type(self).__name__.lower()

    def __call__(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            return x.activation(self.protocol, self.alpha)
        return self._exact(x)

    def _exact(self, x: Reals) -> Reals:
        raise NotImplementedError

    def _derivative(self, x: Reals) -> Reals:
        raise NotImplementedError

    def as_on_shares(self, x: Reals) -> Reals:
        return smooth.by_pieces(self.protocol, x, self.alpha)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            raise DtypeError(f"{self!r} is not trained on shares")
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        return gradient * self._derivative(x) if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[Reals, Reals]:
        lows, highs = interval(low, high)
        least, most = np.asarray(self(lows)), np.asarray(self(highs))
        if self.lowest_at is None:
            return least, most
        turn = np.asarray(self.lowest_at)
        inside = (lows < turn) & (highs > turn)
        lowest = np.where(inside, self(turn), np.minimum(least, most))
        return lowest, np.maximum(least, most)

    def fixed_point_error(self, magnitude: Reals, error: Reals, frac_bits: int) -> Reals:
        bound = smooth.error_bound(self.protocol, frac_bits, self.alpha)
        return np.asarray(self._steepest * error + bound)

    @property
    def _steepest(self) -> float:
        return self.slope

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        return magnitude

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Comparison bits, coefficients, and the openings of four rounds.
        return 110 * (parties + 1) * math.prod(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@register
class SiLU(SmoothActivation):
    """x times the logistic function of x, which is also called Swish.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import SiLU
    >>> SiLU()(np.array([[0.0, 1.0]])).round(4)
    array([[0.    , 0.7311]])
    """

    slope, lowest_at, may_grow = 1.0999, -1.2784645428, False
    named_elsewhere = NamedElsewhere(onnx="Swish")

    def _exact(self, x: Reals) -> Reals:
        return x * _special("expit", x)

    def _derivative(self, x: Reals) -> Reals:
        s = _special("expit", x)
        return np.asarray(s * (1 + x * (1 - s)))


@register
class GELU(SmoothActivation):
    """x times the normal distribution function of x.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default="none"
        By the error function, or by the usual approximation with tanh.

    Raises
    ------
    ArgumentError
        If `approximate` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import GELU
    >>> GELU()(np.array([[0.0, 1.0]])).round(4)
    array([[0.    , 0.8413]])
    """

    options = ("approximate",)
    slope, may_grow = 1.129, False
    named_elsewhere = NamedElsewhere(
        onnx="Gelu", onnx_attributes={"approximate": ("approximate", "none")}
    )

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate
        self.lowest_at = -0.7524614221 if approximate == "tanh" else -0.7517915247

    def __repr__(self) -> str:
        return f"GELU({self.approximate!r})" if self.approximate != "none" else "GELU()"

    @property
    def protocol(self) -> str:
        return "gelu_tanh" if self.approximate == "tanh" else "gelu"

    _ROOT = math.sqrt(2 / math.pi)

    def _exact(self, x: Reals) -> Reals:
        if self.approximate == "tanh":
            return np.asarray(x / 2 * (1 + np.tanh(self._ROOT * (x + 0.044715 * x**3))))
        return np.asarray(x / 2 * (1 + _special("erf", x * math.sqrt(0.5))))

    def _derivative(self, x: Reals) -> Reals:
        if self.approximate == "tanh":
            t = np.tanh(self._ROOT * (x + 0.044715 * x**3))
            return np.asarray(
                (1 + t) / 2 + x / 2 * (1 - t * t) * self._ROOT * (1 + 0.134145 * x * x)
            )
        density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return np.asarray((1 + _special("erf", x * math.sqrt(0.5))) / 2 + x * density)


@register
class Mish(SmoothActivation):
    """x times tanh of the softplus of x.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Mish
    >>> Mish()(np.array([[0.0, 1.0]])).round(4)
    array([[0.    , 0.8651]])
    """

    slope, lowest_at, may_grow = 1.0886, -1.1924312145, False
    named_elsewhere = NamedElsewhere(onnx="Mish")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(x * np.tanh(np.logaddexp(np.zeros((), np.asarray(x).dtype), x)))

    def _derivative(self, x: Reals) -> Reals:
        t = np.tanh(np.logaddexp(0, x))
        return np.asarray(t + x * (1 - t * t) * _special("expit", x))


@register
class Softplus(SmoothActivation):
    """log(1 + exp(x)).

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Softplus
    >>> Softplus()(np.array([[0.0]])).round(4)
    array([[0.6931]])
    """

    named_elsewhere = NamedElsewhere(onnx="Softplus")

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.logaddexp(np.zeros((), np.asarray(x).dtype), x))

    def _derivative(self, x: Reals) -> Reals:
        return _special("expit", x)

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        return magnitude + 0.75


@register
class Erf(SmoothActivation):
    """The error function.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Erf
    >>> Erf()(np.array([[0.0, 1.0]])).round(4)
    array([[0.    , 0.8427]])
    """

    slope = 1.1284
    named_elsewhere = NamedElsewhere(onnx="Erf")

    def _exact(self, x: Reals) -> Reals:
        return _special("erf", x)

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(2 / math.sqrt(math.pi) * np.exp(-x * x))

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        return 1.0


class _WithAlpha(SmoothActivation):
    """Base class: an activation with a limit on the left."""

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = real("alpha", alpha, least=smooth.SMALLEST_ALPHA, below=smooth.LARGEST_ALPHA)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.alpha:g})"


@register
class ELU(_WithAlpha):
    """x where x is positive, ``alpha * (exp(x) - 1)`` elsewhere.

    Parameters
    ----------
    alpha : float, default=1.0
        At least 1/16 and below 16.

    Raises
    ------
    ArgumentError, DtypeError
        If `alpha` is no such number.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ELU
    >>> ELU()(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.6321,  2.    ]])
    """

    named_elsewhere = NamedElsewhere(onnx="Elu", onnx_attributes={"alpha": ("alpha", 1.0)})

    def _exact(self, x: Reals) -> Reals:
        return np.asarray(np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * _like(self.alpha, x)))

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(np.where(x > 0, 1, np.exp(np.minimum(x, 0)) * _like(self.alpha, x)))

    @property
    def _steepest(self) -> float:
        return max(1.0, self.alpha)

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        reach: SharedArray = magnitude * self._steepest
        return reach


@register
class CELU(_WithAlpha):
    """x where x is positive, ``alpha * (exp(x / alpha) - 1)`` elsewhere.

    Parameters
    ----------
    alpha : float, default=1.0
        At least 1/16 and below 16.

    Raises
    ------
    ArgumentError, DtypeError
        If `alpha` is no such number.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import CELU
    >>> CELU(2.0)(np.array([[-2.0, 2.0]])).round(4)
    array([[-1.2642,  2.    ]])
    """

    may_grow = False
    named_elsewhere = NamedElsewhere(onnx="Celu", onnx_attributes={"alpha": ("alpha", 1.0)})

    def _exact(self, x: Reals) -> Reals:
        alpha = _like(self.alpha, x)
        return np.asarray(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)))

    def _derivative(self, x: Reals) -> Reals:
        return np.asarray(np.where(x > 0, 1, np.exp(np.minimum(x, 0) / _like(self.alpha, x))))


@register
class SELU(SmoothActivation):
    """ELU with the alpha, and times the factor, of self-normalising networks.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import SELU
    >>> SELU()(np.array([[-1.0, 2.0]])).round(4)
    array([[-1.1113,  2.1014]])
    """

    slope = smooth.SELU[0] * smooth.SELU[1]
    named_elsewhere = NamedElsewhere(onnx="Selu")

    def _exact(self, x: Reals) -> Reals:
        alpha, factor = (_like(number, x) for number in smooth.SELU)
        return np.asarray(factor * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))

    def _derivative(self, x: Reals) -> Reals:
        alpha, factor = smooth.SELU
        return np.asarray(factor * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0))))

    def reach(self, magnitude: SharedArray) -> SharedArray | float:
        reach: SharedArray = magnitude * self.slope
        return reach


def _like(number: float, x: Reals) -> Reals:
    """Return a number of the dtype of x, so that float32 stays float32."""
    return np.asarray(number, np.result_type(np.asarray(x).dtype, np.float32))


def _special(name: str, x: Reals) -> Reals:
    from scipy import special  # here, so that importing nn stays light

    return np.asarray(getattr(special, name)(x))
