"""Division of rows by a power of two, for those whose scale is finer than the format's."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import integer, interval
from nn.layers.layer import Layer, Shape, register

__all__ = ["Narrow"]


@register
class Narrow(Layer):
    """``x / 2**bits``. On shares it costs nothing, and no bit is lost: the point moves.

    Parameters
    ----------
    bits : int, default=0
        At least 0.

    Raises
    ------
    ArgumentError, DtypeError
        If `bits` is no integer of at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Narrow
    >>> Narrow(2)(np.array([[1.0, -8.0]]))
    array([[ 0.25, -2.  ]])
    """

    options = ("bits",)
    may_grow, trains_on_shares = False, False

    def __init__(self, bits: int = 0) -> None:
        super().__init__()
        self.bits = integer("bits", bits, 0)

    def __repr__(self) -> str:
        return f"Narrow({self.bits})"

    def __call__(self, x: Any) -> Any:
        if isinstance(x, SharedArray) and self.bits:
            return x.derive(
                x.shares, frac_bits=x.frac_bits + self.bits, bound=x.bound, origins=(x,)
            )
        return x * 2.0**-self.bits if self.bits else x

    def forward(self, x: Any) -> Any:
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        return gradient * 2.0**-self.bits if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return lows * 2.0**-self.bits, highs * 2.0**-self.bits

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # What follows truncates to the format.
        return error * 2.0**-self.bits + 2.0**-frac_bits

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        return (2 * parties + 2) * math.prod(input_shape)
