"""Pooling: the largest or the mean value of every tile of an image, channel by channel.

Images have the shape (rows, height, width, channels). Tiles do not overlap.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols.pooling import (
    maximum_gradient,
    maximum_of_first,
    maximum_with_bits,
    mean_of_first,
)
from nn.core.checks import interval
from nn.layers.convolution import pair
from nn.layers.layer import Layer, Shape, register
from ring.errors import ShapeError

__all__ = ["AveragePool", "MaxPool"]


class _Pool(Layer):
    """Base class of pooling by tiles."""

    options = ("size",)
    may_grow = False
    # Truncations of a value on shares, at most.
    roundings = 1

    def __init__(self, size: Any = 2) -> None:
        super().__init__()
        self.size = pair("size", size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) != 3:
            raise ShapeError(f"{self!r} takes images (height, width, channels), got shape {shape}")
        if shape[0] % self.size[0] or shape[1] % self.size[1]:
            raise ShapeError(f"{self!r} must divide the image, got shape {shape}")
        return (shape[0] // self.size[0], shape[1] // self.size[1], shape[2])

    def _tiles(self, x: Any) -> Any:
        """Return images as (tile height * tile width, rows, height, width, channels)."""
        (down, across), (rows, height, width, channels) = self.size, x.shape
        split = x.reshape(rows, height // down, down, width // across, across, channels)
        moved = split.transpose(2, 4, 0, 1, 3, 5)
        return moved.reshape(down * across, rows, height // down, width // across, channels)

    def _untiled(self, tiles: Any) -> Any:
        """Return the images of `_tiles`."""
        (down, across), (_, rows, height, width, channels) = self.size, tiles.shape
        split = tiles.reshape(down, across, rows, height, width, channels)
        moved = split.transpose(2, 3, 0, 4, 1, 5)
        return moved.reshape(rows, height * down, width * across, channels)

    def _reduce(self, x: Any) -> Any:
        raise NotImplementedError

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        return self._reduce(x)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim:
            return lows, highs
        return self(lows[None])[0], self(highs[None])[0]

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # A value is truncated once; the division of a mean adds to that.
        rounding = self.roundings * 2.0**-frac_bits
        if math.prod(self.size).bit_count() > 1 and self.roundings > 1:
            rounding = math.nan  # the reciprocal of the tile's size is rounded too
        return (self._reduce(error[None])[0] if np.ndim(error) else error) + rounding


@register
class MaxPool(_Pool):
    """The largest value of every tile.

    Before a ReLU it gives the same result as behind it, and leaves fewer elements to the ReLU.

    Parameters
    ----------
    size : int or (int, int), default=2
        Height and width of a tile; they must divide those of the image.

    Raises
    ------
    ArgumentError, DtypeError
        If `size` is not one integer or two of at least 1. A ShapeError for images that `size` does
        not divide comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import MaxPool
    >>> MaxPool(2)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    commutes_with_relu = True

    def _slices(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        down, across = self.size
        return [x[:, i::down, j::across] for i in range(down) for j in range(across)]

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # The first level of the tree of comparisons has half as many as there are elements.
        return (2 * parties + 10 * (parties + 1)) * math.prod(input_shape)

    def _reduce(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            return maximum_of_first(self._tiles(x))
        greatest = None
        for part in self._slices(x):
            greatest = part.copy() if greatest is None else np.maximum(greatest, part, out=greatest)
        return greatest

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            self.output_shape(tuple(x.shape)[1:])
            output, self._memory = maximum_with_bits(self._tiles(x))
            return output
        output = self(x)
        self._memory = (x, output)
        return output

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if not input_gradient:
            return None
        if isinstance(gradient, SharedArray):
            return self._untiled(maximum_gradient(gradient, memory, math.prod(self.size)))
        x, output = memory
        back = np.zeros(x.shape, gradient.dtype)
        # The gradient goes to the first of equal values; `free` marks tiles that have not had it.
        free = np.ones(output.shape, bool)
        for part, place in zip(self._slices(x), self._slices(back), strict=True):
            found = (part == output) & free
            np.multiply(gradient, found, out=place)
            free &= ~found
        return back


@register
class AveragePool(_Pool):
    """The mean value of every tile.

    Parameters
    ----------
    size : int or (int, int), default=2
        Height and width of a tile; they must divide those of the image.

    Raises
    ------
    ArgumentError, DtypeError
        If `size` is not one integer or two of at least 1. A ShapeError for images that `size` does
        not divide comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import AveragePool
    >>> AveragePool(2)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """

    roundings = 3

    def _reduce(self, x: Any) -> Any:
        tiles = self._tiles(x)
        return mean_of_first(tiles) if isinstance(x, SharedArray) else tiles.mean(axis=0)

    def forward(self, x: Any) -> Any:
        self._memory = self.size
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        down, across = self._remembered()
        if not input_gradient:
            return None
        part = gradient * (1 / (down * across))
        if isinstance(gradient, SharedArray):
            return self._untiled(part.reshape(1, *part.shape)[np.zeros(down * across, np.intp)])
        return self._untiled(np.broadcast_to(part, (down * across, *part.shape)))
