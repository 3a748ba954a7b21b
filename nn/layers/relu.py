"""The rectifier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import interval
from nn.layers.layer import Layer, NamedElsewhere, Shape, register

__all__ = ["ReLU"]


@register
class ReLU(Layer):
    """Rectifier: the larger of each element and 0.

    The derivative at 0 is 0, in the clear and on shares.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReLU
    >>> ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    may_grow, rectifies = False, True
    named_elsewhere = NamedElsewhere(onnx="Relu", sklearn="relu")

    def __call__(self, x: Any) -> Any:
        return np.maximum(x, 0)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            output, self._memory = x.relu_with_derivative()
            return output
        # The output has the sign bit as well as the input does, and the next layer keeps it anyway.
        self._memory = self(x)
        return self._memory

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if not input_gradient:
            return None
        if isinstance(memory, SharedArray):
            return gradient.gate(memory)
        return gradient * (memory > 0)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.maximum(lows, 0), np.maximum(highs, 0)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        return error + 2.0**-frac_bits

    def reach(self, magnitude: SharedArray) -> SharedArray:
        return magnitude

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Correlated randomness, about 13 words an element and party, and opened values.
        return 20 * (parties + 1) * math.prod(input_shape)
