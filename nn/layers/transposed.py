"""Transposed convolution of images (rows, height, width, channels), and of signals."""

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

__all__ = ["TransposedConvolution"]


@register
class TransposedConvolution(Weighted):
    """Transposed convolution: each pixel adds its product with the kernels to a window, plus a bias.

    Also called deconvolution. Windows are those of a convolution from the output to the input. Rows are
    images, or signals, as for :class:`Convolution`.

    Parameters
    ----------
    weights : array of shape (kernel height, kernel width, channels a group, outputs)
        Or (kernel length, channels a group, outputs).
    bias : array of shape (outputs,)
    stride : int or (int, int), default=1
        Step from the window of a pixel to that of the next.
    padding : int, (int, int) or two pairs of int, default=0
        How much of the result is left out on each side.
    dilation : int or (int, int), default=1
    groups : int, default=1
        As for :class:`Convolution`.
    output_padding : int or (int, int), default=0
        Further rows below and columns to the right, fewer than `stride`.

    Raises
    ------
    ShapeError
        If `weights` does not have four axes, or three, or `bias` not one entry for each output.
    ArgumentError, DtypeError
        If another argument is none of the above, or `groups` does not divide the outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import TransposedConvolution
    >>> layer = TransposedConvolution(np.array([1.0, 2.0]).reshape(1, 2, 1, 1), np.zeros(1), stride=2)
    >>> layer(np.array([3.0, 4.0]).reshape(1, 1, 2, 1))[0, 0, :, 0]
    array([3., 6., 4., 8.])
    """

    options = ("stride", "padding", "dilation", "groups", "output_padding")

    def __init__(
        self, weights: Any, bias: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, output_padding: Any = 0,
    ) -> None:  # fmt: skip
        if len(weights.shape) not in (3, 4):
            raise ShapeError(
                "weights must have four axes (height, width, channels, outputs), or three for signals, "
                f"got shape {tuple(weights.shape)}"
            )
        super().__init__(weights, bias)
        axes = len(weights.shape) - 2
        if isinstance(padding, str):
            raise ArgumentError(f"padding must be integers, got {padding!r}")
        self.stride = per_axis("stride", stride, axes)
        self.padding = pad_pairs(padding, axes)
        self.dilation = per_axis("dilation", dilation, axes)
        self.groups = integer("groups", groups, 1)
        self.output_padding = per_axis("output_padding", output_padding, axes, 0)
        if weights.shape[-1] % self.groups:
            raise ArgumentError(
                f"groups must divide the {weights.shape[-1]} outputs, got {self.groups}"
            )
        if any(more >= step for more, step in zip(self.output_padding, self.stride, strict=True)):
            raise ArgumentError(
                f"output_padding must be below the stride {self.stride}, got {self.output_padding}"
            )

    def __repr__(self) -> str:
        *kernel, channels, outputs = self.weights.shape
        text = f"TransposedConvolution({channels * self.groups}, {outputs}, kernel={tuple(kernel)}"
        for name in ("stride", "padding", "dilation", "output_padding"):
            value = getattr(self, name)
            if set(value) != {int(name in ("stride", "dilation"))}:
                text += f", {name}={value}"
        return text + (f", groups={self.groups})" if self.groups > 1 else ")")

    def fresh(
        self, random: np.random.Generator, dtype: DTypeLike = np.float64
    ) -> TransposedConvolution:
        sizes = self.weights.shape
        weights = he_normal(math.prod(sizes[:-1]), sizes[-1], random, dtype).reshape(sizes)
        return self.with_parameters([weights, np.zeros(sizes[-1], dtype=weights.dtype)])

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        *kernel, channels, outputs = self.weights.shape
        channels *= self.groups
        if len(shape) != len(kernel) + 1 or shape[-1] != channels:
            what = "images (height, width," if len(kernel) == 2 else "signals (length,"
            raise ShapeError(f"{self!r} takes {what} {channels} channels), got shape {shape}")
        sizes = []
        for k, n in enumerate(shape[:-1]):
            side = self.padding[k]
            cut = 2 * side if isinstance(side, int) else int(side[0]) + int(side[1])
            extent = (int(kernel[k]) - 1) * self.dilation[k] + 1
            sizes.append((n - 1) * self.stride[k] + extent - cut + self.output_padding[k])
        if min(sizes) < 1:
            raise ShapeError(f"{self!r} leaves nothing of images of shape {shape}")
        return (*sizes, int(outputs))

    def _windows(self, shape: Shape) -> Windows:
        """Return the windows of output rows of `shape`."""
        kernel = tuple(self.weights.shape[:-2])
        return windows_of(shape[:-1], kernel, self.stride, self.padding, self.dilation)

    def _wide(self, shape: Shape) -> Shape:
        """Return the shape of images, for that of images or signals."""
        return shape if len(self.weights.shape) == 4 else (*shape[:-2], shape[-2], 1, shape[-1])

    def _apart(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return a matrix of the last axis for each group of channels."""
        return x.reshape(-1, self.groups, x.shape[-1] // self.groups).transpose(1, 0, 2)

    def _matrix(self, weights: Any) -> Any:
        """Return kernels, for each group, as a matrix (channels, elements of a window)."""
        channels, outputs = weights.shape[-2:]
        split = weights.reshape(-1, channels, self.groups, outputs // self.groups)
        return split.transpose(2, 1, 0, 3).reshape(self.groups, channels, -1)

    def _applied(self, x: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """Return the sums of all windows, of the output's shape."""
        shape = self.output_shape(x.shape[1:])
        windows = self._windows(shape)
        products = self._apart(x) @ self._matrix(weights)
        places = self._wide(tuple(x.shape))[1:3]
        split = products.reshape(self.groups, len(x), *places, *windows.kernel, -1)
        seen = np.moveaxis(split, 0, -2).reshape(*split.shape[1:-1], shape[-1])
        whole = windows.add_back(seen, (len(x), *self._wide(shape)))
        return whole.reshape(len(x), *shape)

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if isinstance(x, SharedArray):
            whole = convolution.transposed(
                x, self.weights, self._windows(shape), (x.shape[0], *shape), self.groups
            )
            return whole + self.bias
        return self._applied(x, self.weights) + self.bias

    def forward(self, x: Any) -> Any:
        self._memory = x = x.truncate() if isinstance(x, SharedArray) else x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        windows = self._windows(tuple(gradient.shape)[1:])
        if isinstance(x, SharedArray):
            gradient = gradient.truncate()
            back = None
            if input_gradient:
                # First: it opens the gradient to all, the product with an owner's input to the owner alone.
                turned = convolution.turned(self.weights, self.groups)
                back = convolution.convolve(gradient, turned, windows, self.groups)
            at_kernels = convolution.kernel_gradient(gradient, x, windows, self.groups)
            at_bias = gradient.sum(axis=tuple(range(gradient.ndim - 1)))
            self.gradients = [convolution.turned(at_kernels, self.groups), at_bias]
            return back
        seen = windows.view(gradient.reshape(len(gradient), *self._wide(gradient.shape[1:])))
        split = seen.reshape(
            -1, math.prod(windows.kernel), self.groups, seen.shape[-1] // self.groups
        )
        rows = split.transpose(2, 0, 1, 3).reshape(self.groups, len(split), -1)
        found = self._apart(x).transpose(0, 2, 1) @ rows
        *kernel, channels, _ = self.weights.shape
        at_kernels = found.reshape(self.groups, channels, math.prod(kernel), -1)
        self.gradients = [
            at_kernels.transpose(2, 1, 0, 3).reshape(self.weights.shape),
            gradient.reshape(-1, gradient.shape[-1]).sum(axis=0),
        ]
        if not input_gradient:
            return None
        back = rows @ self._matrix(self.weights).transpose(0, 2, 1)
        return back.transpose(1, 0, 2).reshape(x.shape)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if lows.ndim != len(self.weights.shape) - 1:
            raise ShapeError(
                f"low and high must have the shape of a row for {self!r}, got shape {lows.shape}"
            )
        weights = np.asarray(self.weights, np.float64)
        bias = np.asarray(self.bias, np.float64)
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        ends = [
            self._applied(least[None], positive)[0] + self._applied(most[None], negative)[0] + bias
            for least, most in ((lows, highs), (highs, lows))
        ]
        return ends[0], ends[1]

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        weights, bias = (np.asarray(p, np.float64) for p in (self.weights, self.bias))
        rounded = np.rint(weights / unit) * unit
        off = self._applied(magnitude[None], np.abs(rounded - weights))[0]
        grown = self._applied(np.broadcast_to(error, magnitude.shape)[None], np.abs(rounded))[0]
        whole: NDArray[Any] = grown + off + np.abs(np.rint(bias / unit) * unit - bias)
        return whole

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        outputs = math.prod(self.output_shape(input_shape))
        *kernel, _, count = self.weights.shape
        places = math.prod(input_shape[:-1])
        seen, image = places * math.prod(kernel) * count, math.prod(input_shape)
        return int(
            (4 * parties + 4) * seen + (4 * parties + 2) * image + 4 * (parties + 1) * outputs
        )
