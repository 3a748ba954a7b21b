"""The leaky rectifier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import interval, real
from nn.layers.layer import Layer, NamedElsewhere, Shape, register

__all__ = ["LeakyReLU"]


@register
class LeakyReLU(Layer):
    """Leaky rectifier: x where x is positive, ``slope * x`` elsewhere.

    The derivative at 0 is `slope`, in the clear and on shares.

    Parameters
    ----------
    slope : float, default=0.01
        In [0, 1). On shares the error of ``slope * x`` is below one unit of the format.

    Raises
    ------
    ArgumentError, DtypeError
        If `slope` is no number in [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import LeakyReLU
    >>> LeakyReLU(0.25)(np.array([[-1.0, 2.0]]))
    array([[-0.25,  2.  ]])
    """

    options = ("slope",)
    may_grow = False
    named_elsewhere = NamedElsewhere(onnx="LeakyRelu", onnx_attributes={"alpha": ("slope", 0.01)})

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = real("slope", slope, least=0, below=1)

    def __repr__(self) -> str:
        return f"LeakyReLU({self.slope:g})"

    def __call__(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            x = x.truncate()
            return self._mixed(x, x.relu())
        return np.where(x > 0, x, x * np.asarray(self.slope, x.dtype))

    def _mixed(self, x: Any, positive: Any) -> Any:
        return (x - positive) * self.slope + positive

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            x = x.truncate()
            positive, self._memory = x.relu_with_derivative()
            return self._mixed(x, positive)
        self._memory = x > 0
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if not input_gradient:
            return None
        if isinstance(memory, SharedArray):
            gradient = gradient.truncate()
            return self._mixed(gradient, gradient.gate(memory))
        return np.where(memory, gradient, gradient * np.asarray(self.slope, gradient.dtype))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.asarray(self(lows)), np.asarray(self(highs))

    def reach(self, magnitude: SharedArray) -> SharedArray:
        return magnitude

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # Truncations of the input, of its positive part and of the product, one unit each; and the
        # input times the error of a slope that is rounded to the format.
        return error + (3 + magnitude) * 2.0**-frac_bits

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        return 24 * (parties + 1) * math.prod(input_shape)
