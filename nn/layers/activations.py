"""Smooth activations: sigmoid and tanh, exact on NumPy arrays, piecewise polynomials on shares.

On shares, sigmoid has an error of at most 7e-5 and tanh of at most 8e-5, at the default format and for
every input: see :mod:`mpc.protocols.sigmoid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols.sigmoid import by_pieces, error_bound
from nn.core.checks import interval
from nn.layers.layer import Layer, NamedElsewhere, Shape, register

__all__ = ["Sigmoid", "Tanh"]


class _Smooth(Layer):
    """An increasing activation whose derivative is a function of its output."""

    # Name in mpc.protocols.sigmoid, and the largest derivative.
    protocol: ClassVar[str]
    slope: ClassVar[float]
    # The width of the range.
    width: ClassVar[float]
    may_grow = False

    def as_on_shares(self, x: NDArray[Any]) -> NDArray[Any]:
        return by_pieces(self.protocol, x)

    def forward(self, x: Any) -> Any:
        self._memory = self(x)
        return self._memory

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        output = self._remembered()
        return gradient * self._derivative(output) if input_gradient else None

    def _derivative(self, output: Any) -> Any:
        raise NotImplementedError

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.asarray(self(lows)), np.asarray(self(highs))

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # No two results are further apart than the function's range.
        moved = np.minimum(self.slope * error, self.width)
        return np.asarray(moved + error_bound(self.protocol, frac_bits))

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Twenty comparison bits, five coefficients, and the openings of four rounds.
        return 100 * (parties + 1) * math.prod(input_shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@register
class Sigmoid(_Smooth):
    """Logistic function, 1 / (1 + exp(-x)).

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Sigmoid
    >>> Sigmoid()(np.array([[0.0, np.log(3.0)]]))
    array([[0.5 , 0.75]])
    """

    protocol, slope, width = "sigmoid", 0.25, 1.0
    named_elsewhere = NamedElsewhere(onnx="Sigmoid", sklearn="logistic")

    def __call__(self, x: Any) -> Any:
        return _expit()(x)

    def _derivative(self, output: Any) -> Any:
        return output * (1 - output)


@register
class Tanh(_Smooth):
    """Hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Tanh
    >>> Tanh()(np.array([[0.0, 100.0]]))
    array([[0., 1.]])
    """

    protocol, slope, width = "tanh", 1.0, 2.0
    named_elsewhere = NamedElsewhere(onnx="Tanh", sklearn="tanh")

    def __call__(self, x: Any) -> Any:
        return np.tanh(x)

    def _derivative(self, output: Any) -> Any:
        return 1 - output * output


def _expit() -> Callable[[Any], Any]:
    from scipy.special import expit  # here, so that importing nn stays light

    function: Callable[[Any], Any] = expit
    return function
