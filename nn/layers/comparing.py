"""A layer whose outputs are zeros and ones: where the largest values are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import integer, interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import ArgumentError, ShapeError

__all__ = ["Largest"]


@register
class Largest(Layer):
    """Ones where the `count` largest elements of a row are, zeros elsewhere; of equal ones the first.

    Rows with several axes have them along the last one. On shares the elements are found one after the
    other, each as an argmax.

    Parameters
    ----------
    count : int, default=1
        At least 1 and at most the elements of a row.

    Raises
    ------
    ArgumentError, DtypeError
        If `count` is no integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Largest
    >>> Largest(2)(np.array([[3.0, 1.0, 3.0, 2.0]]))
    array([[1., 0., 1., 0.]])
    """

    options = ("count",)
    trains, trains_on_shares, may_grow = False, False, False

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = integer("count", count, 1)

    def __repr__(self) -> str:
        return f"Largest({self.count})"

    def __call__(self, x: Any) -> Any:
        shape = tuple(x.shape)
        self.output_shape(shape[1:])
        return self._ones(x.reshape((-1, shape[-1]))).reshape(shape)

    def _ones(self, x: Any) -> Any:
        if not isinstance(x, SharedArray):
            order = np.argsort(-x, axis=1, kind="stable")[:, : self.count]
            found = np.zeros(x.shape)
            np.put_along_axis(found, order, 1.0, axis=1)
            return found
        if self.count > 1:
            x = x.truncate()
        # Whoever was found is lowered below all others.
        lowered = 2 * (x.bound + 1 >> x.frac_bits) + 2
        total = None
        for number in range(self.count):
            one = x.argmax(axis=1, one_hot=True)
            total = one if total is None else total + one
            if number + 1 < self.count:
                x = x - one * lowered
        assert total is not None
        return total.with_integer_bound(1)

    def forward(self, x: Any) -> Any:
        raise ArgumentError(f"{self!r} is not trained")

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        raise ArgumentError(f"{self!r} is not trained")

    def reach(self, magnitude: SharedArray) -> float:
        return 1.0

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        shape = np.broadcast_shapes(lows.shape, highs.shape)
        return np.zeros(shape), np.ones(shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if not shape or shape[-1] < self.count:
            raise ShapeError(
                f"{self!r} takes rows of at least {self.count} elements along the last axis, got {shape}"
            )
        return shape

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Up to 16 values are compared pairwise, more in groups.
        return (60 + 12 * min(input_shape[-1], 16)) * (parties + 1) * math.prod(input_shape)
