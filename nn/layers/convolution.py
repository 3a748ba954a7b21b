"""Convolution of images (rows, height, width, channels), and of signals (rows, length, channels)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.core.windows import Windows
from mpc.protocols import convolution
from nn.core.checks import integer, interval
from nn.layers.initialisation import he_normal
from nn.layers.layer import Shape, Weighted, register
from nn.layers.windowed import pad_pairs, per_axis, windows_of
from ring.errors import ArgumentError, ShapeError

__all__ = ["Convolution"]

# Elements of the windows of plain images that are copied at a time.
_WINDOW_ELEMENTS = 1 << 23


@register
class Convolution(Weighted):
    """Convolutional layer: the products of every window of an image with the kernels, plus a bias.

    A cross-correlation, as in other libraries: kernels are not flipped. Input rows have the shape
    (height, width, channels), output rows (places down, places across, outputs). With kernels of one
    axis rows are signals, of shape (length, channels).

    Parameters
    ----------
    weights : array of shape (kernel height, kernel width, channels a group, outputs)
        Or (kernel length, channels a group, outputs).
    bias : array of shape (outputs,)
    stride : int or (int, int), default=1
        Step from a window to the next, along height and width.
    padding : {"valid", "same"}, int, (int, int) or two pairs of int, default="valid"
        Zeros around the image. "valid": none. "same": as many as give ``ceil(size / stride)``
        places, an odd one below or to the right. One integer: on all four sides; two: above and
        below, left and right; or ``((above, below), (left, right))``.
    dilation : int or (int, int), default=1
        Distance of the pixels that neighbouring elements of a kernel meet.
    groups : int, default=1
        Groups of channels. The first ``outputs / groups`` outputs are made from the first group's
        channels alone, and so on. As many groups as channels make a depthwise convolution.

    Raises
    ------
    ShapeError
        If `weights` does not have four axes, or three, or `bias` not one entry for each output.
    ArgumentError, DtypeError
        If another argument is none of the above, or `groups` does not divide the outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Convolution
    >>> layer = Convolution(np.ones((2, 2, 1, 1)), np.zeros(1))
    >>> layer(np.arange(9.0).reshape(1, 3, 3, 1))[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    >>> signal = Convolution(np.array([1.0, -1.0]).reshape(2, 1, 1), np.zeros(1))
    >>> signal(np.array([3.0, 5.0, 4.0]).reshape(1, 3, 1)).ravel()
    array([-2.,  1.])
    """

    options = ("stride", "padding")
    later_options = ("dilation", "groups")

    def __init__(
        self, weights: Any, bias: Any, *, stride: Any = 1, padding: Any = "valid",
        dilation: Any = (1, 1), groups: int = 1,
    ) -> None:  # fmt: skip
        if len(weights.shape) not in (3, 4):
            raise ShapeError(
                "weights must have four axes (height, width, channels, outputs), or three for signals, "
                f"got shape {tuple(weights.shape)}"
            )
        super().__init__(weights, bias)
        axes = len(weights.shape) - 2
        self.stride = per_axis("stride", stride, axes)
        self.padding = pad_pairs(padding, axes)
        self.dilation = per_axis("dilation", 1 if dilation == (1, 1) else dilation, axes)
        self.groups = integer("groups", groups, 1)
        if weights.shape[-1] % self.groups:
            raise ArgumentError(
                f"groups must divide the {weights.shape[-1]} outputs, got {self.groups}"
            )

    @classmethod
    def untrained(
        cls, channels: int, outputs: int, kernel: Any, *, stride: Any = 1, padding: Any = "valid",
        dilation: Any = 1, groups: int = 1,
    ) -> Convolution:  # fmt: skip
        """Return a layer that is to be trained, with zeros for parameters.

        Parameters
        ----------
        channels, outputs : int
            At least 1.
        kernel : int or (int, int)
            Height and width; ``(length,)`` for signals.
        stride, padding, dilation, groups
            As for the class.

        Raises
        ------
        ArgumentError, DtypeError
            If an argument breaks its rule.

        Examples
        --------
        >>> from nn.layers import Convolution
        >>> Convolution.untrained(1, 16, kernel=5)
        Convolution(1, 16, kernel=(5, 5))
        """
        axes = len(kernel) if isinstance(kernel, (tuple, list)) and len(kernel) == 1 else 2
        count = integer("channels", channels, 1)
        if count % integer("groups", groups, 1):
            raise ArgumentError(f"groups must divide the {count} channels, got {groups}")
        sizes = (
            *per_axis("kernel", kernel, axes), count // groups, integer("outputs", outputs, 1)
        )  # fmt: skip
        return cls(
            np.zeros(sizes), np.zeros(sizes[-1]), stride=stride, padding=padding, dilation=dilation,
            groups=groups,
        )  # fmt: skip

    def __repr__(self) -> str:
        *kernel, channels, outputs = self.weights.shape
        text = f"Convolution({channels * self.groups}, {outputs}, kernel={tuple(kernel)}"
        if set(self.stride) != {1}:
            text += f", stride={self.stride}"
        if self.padding != "valid":
            text += f", padding={self.padding!r}"
        if set(self.dilation) != {1}:
            text += f", dilation={self.dilation}"
        return text + (f", groups={self.groups})" if self.groups > 1 else ")")

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Convolution:
        sizes = self.weights.shape
        weights = he_normal(math.prod(sizes[:-1]), sizes[-1], random, dtype).reshape(sizes)
        return self.with_parameters([weights, np.zeros(sizes[-1], dtype=weights.dtype)])

    def windows(self, *size: int) -> Windows:
        """Return the windows of images of the given height and width, or of signals of a length."""
        return windows_of(
            size, tuple(self.weights.shape[:-2]), self.stride, self.padding, self.dilation
        )

    def _images(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return rows as images: a signal has the width 1."""
        return x if self.weights.ndim == 4 else x[:, :, None]

    def _window_matrix(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return, for each group, a matrix with a row for every window of plain rows."""
        seen = self.windows(*x.shape[1:-1]).view(self._images(x))
        groups, size = self.groups, math.prod(seen.shape[-3:]) // self.groups
        if groups == 1:
            return seen.reshape(1, -1, size)
        split = seen.reshape(*seen.shape[:-1], groups, -1)
        return np.moveaxis(split, 5, 0).reshape(groups, -1, size)

    def _kernel_matrix(self, weights: Any) -> Any:
        """Return kernels, for each group, as a matrix with a column for every output."""
        outputs = weights.shape[-1]
        return weights.reshape(-1, self.groups, outputs // self.groups).transpose(1, 0, 2)

    def _side_by_side(self, products: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs of all groups, (places, outputs), of products (groups, places, ...)."""
        if self.groups == 1:
            return products[0]
        return products.transpose(1, 0, 2).reshape(products.shape[1], -1)

    def _apart(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Undo `_side_by_side`."""
        return outputs.reshape(len(outputs), self.groups, -1).transpose(1, 0, 2)

    def _applied(self, x: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """Return the products of every window of plain rows with kernels, (places, outputs)."""
        return self._side_by_side(self._window_matrix(x) @ self._kernel_matrix(weights))

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if isinstance(x, SharedArray):
            windows = self.windows(*x.shape[1:-1])
            return convolution.convolve(x, self.weights, windows, self.groups) + self.bias
        # A few images at a time: windows overlap, so they need many times the memory of the images.
        covered = math.prod(shape[:-1]) * math.prod(self.weights.shape[:-1]) * self.groups
        step = max(1, _WINDOW_ELEMENTS // covered)
        pieces = [
            self._applied(x[start : start + step], self.weights) + self.bias
            for start in range(0, max(1, len(x)), step)
        ]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole.reshape(len(x), *shape)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            # Truncated once, so that forward and backward use the same masked input.
            self._memory = x = x.truncate()
            return self(x)
        shape = self.output_shape(tuple(x.shape)[1:])
        rows = self._window_matrix(x)
        self._memory = (rows, x.shape)
        output = self._side_by_side(rows @ self._kernel_matrix(self.weights)) + self.bias
        return output.reshape(len(x), *shape)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if isinstance(memory, SharedArray):
            return self._shared_backward(memory, gradient.truncate(), input_gradient)
        rows, shape = memory
        flat = gradient.reshape(-1, gradient.shape[-1])
        apart = self._apart(flat)
        at_kernels = (rows.transpose(0, 2, 1) @ apart).transpose(1, 0, 2)
        self.gradients = [at_kernels.reshape(self.weights.shape), flat.sum(axis=0)]
        if not input_gradient:
            return None
        windows = self.windows(*shape[1:-1])
        wide = shape if len(shape) == 4 else (*shape[:2], 1, shape[2])
        places = windows.places(*wide[1:3])
        back = apart @ self._kernel_matrix(self.weights).transpose(0, 2, 1)
        split = back.reshape(self.groups, len(gradient), *places, *windows.kernel, -1)
        seen = np.moveaxis(split, 0, -2).reshape(*split.shape[1:-1], -1)
        return windows.add_back(seen, wide).reshape(shape)

    def _shared_backward(
        self, x: SharedArray, gradient: SharedArray, wanted: bool
    ) -> SharedArray | None:
        windows = self.windows(*x.shape[1:-1])
        back = None
        if wanted:
            # First: it opens the gradient to all, the product with an owner's input to the owner alone.
            back = convolution.input_gradient(gradient, self.weights, windows, x.shape, self.groups)
        self.gradients = [
            convolution.kernel_gradient(x, gradient, windows, self.groups),
            gradient.sum(axis=tuple(range(gradient.ndim - 1))),
        ]
        return back

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if lows.ndim != len(self.weights.shape) - 1:
            what = (
                "(height, width, channels)"
                if len(self.weights.shape) == 4
                else "(length, channels)"
            )
            raise ShapeError(
                f"low and high must have the shape {what} for {self!r}, got shape {lows.shape}"
            )
        shape = self.output_shape(lows.shape)
        weights = np.asarray(self.weights, dtype=np.float64)
        bias = np.asarray(self.bias, dtype=np.float64)
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        ends = [
            self._applied(least[None], positive) + self._applied(most[None], negative) + bias
            for least, most in ((lows, highs), (highs, lows))
        ]
        return ends[0].reshape(shape), ends[1].reshape(shape)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        weights, bias = (np.asarray(p, dtype=np.float64) for p in (self.weights, self.bias))
        rounded = np.rint(weights / unit) * unit
        off = self._applied(magnitude[None], np.abs(rounded - weights))
        grown = self._applied(np.broadcast_to(error, magnitude.shape)[None], np.abs(rounded))
        whole: NDArray[Any] = grown + off + np.abs(np.rint(bias / unit) * unit - bias)
        return whole.reshape(self.output_shape(magnitude.shape))

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        outputs = math.prod(self.output_shape(input_shape))
        # Windows of the opened image, of every party's share of its mask, and of the provider's.
        *kernel, channels, count = self.weights.shape
        seen = outputs // count * math.prod(kernel) * channels * self.groups
        image = math.prod(input_shape)
        return int((parties + 3) * seen + (4 * parties + 2) * image + 4 * (parties + 1) * outputs)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        *kernel, channels, outputs = self.weights.shape
        channels *= self.groups
        if len(shape) != len(kernel) + 1 or shape[-1] != channels:
            what = "images (height, width," if len(kernel) == 2 else "signals (length,"
            raise ShapeError(f"{self!r} takes {what} {channels} channels), got shape {shape}")
        windows = self.windows(*shape[:-1])
        places = windows.places(*shape[:-1], *(1,) * (2 - len(kernel)))
        if min(places) < 1:
            raise ShapeError(
                f"{self!r} has a kernel larger than the image: {windows.extent} on "
                f"{shape[:-1]} with padding {windows.padding}"
            )
        return (*places[: len(kernel)], int(outputs))
