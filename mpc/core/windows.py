"""Sliding windows of images: the pixels under a kernel at each of its places, as a strided view.

Images have shape (rows, height, width, channels). `Windows` is the name of this class on the wire. The
window of *bits* that comparisons look at is another thing, see :mod:`mpc.protocols.sign`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Size, stride, padding and dilation of a kernel that slides over images.

    Attributes
    ----------
    kernel, stride : (int, int)
        Along height and width.
    padding : ((int, int), (int, int))
        Rows of zeros above and below, columns to the left and right.
    dilation : (int, int)
        Distance of a kernel's elements along height and width; 1 for neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> from mpc.core.windows import Windows
    >>> windows = Windows((2, 2), (1, 1), ((0, 0), (0, 0)))
    >>> image = np.arange(6).reshape(1, 2, 3, 1)
    >>> windows.view(image)[0].reshape(2, 4)
    array([[0, 1, 3, 4],
           [1, 2, 4, 5]])
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """The size of the part of an image that a kernel covers, gaps included."""
        (height, width), (down, across) = self.kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1

    def places(self, height: int, width: int) -> Pair:
        """Return the number of places along height and width; below 1 if the kernel does not fit."""
        down, across = (
            (size + sum(pad) - extent) // stride + 1
            for size, pad, extent, stride in zip(
                (height, width), self.padding, self.extent, self.stride, strict=True
            )
        )
        return down, across

    def padded(self, height: int, width: int) -> Pair:
        """Return the size of an image with its padding."""
        return height + sum(self.padding[0]), width + sum(self.padding[1])

    def pad(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return images x of shape (..., height, width, channels) with the zeros of the padding."""
        if not any(map(sum, self.padding)):
            return x
        return np.pad(x, ((0, 0),) * (x.ndim - 3) + (*self.padding, (0, 0)))

    def view(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the windows of images as a view; only padding copies.

        Parameters
        ----------
        x : array of shape (..., height, width, channels)

        Returns
        -------
        array of shape (..., down, across, kernel height, kernel width, channels)
        """
        places = self.places(*x.shape[-3:-1])
        x = self.pad(x)
        *outer, row, column, channel = x.strides
        return np.lib.stride_tricks.as_strided(
            x,
            (*x.shape[:-3], *places, *self.kernel, x.shape[-1]),
            (
                *outer, row * self.stride[0], column * self.stride[1],
                row * self.dilation[0], column * self.dilation[1], channel,
            ),
        )  # fmt: skip

    def add_back(self, windows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Add the elements of windows to the pixels they cover: the transpose of :meth:`view`.

        Parameters
        ----------
        windows : array of the shape that ``view`` returns
        shape : tuple of int
            Of the images.

        Returns
        -------
        array of shape `shape`
        """
        (top, bottom), (left, right) = self.padding
        height, width = shape[-3:-1]
        x = np.zeros(
            (*shape[:-3], top + height + bottom, left + width + right, shape[-1]), windows.dtype
        )
        down, across = windows.shape[-5:-3]
        for i in range(self.kernel[0]):
            first = i * self.dilation[0]
            rows = slice(first, first + (down - 1) * self.stride[0] + 1, self.stride[0])
            for j in range(self.kernel[1]):
                first = j * self.dilation[1]
                columns = slice(first, first + (across - 1) * self.stride[1] + 1, self.stride[1])
                x[..., rows, columns, :] += windows[..., i, j, :]
        return x[..., top : top + height, left : left + width, :]
