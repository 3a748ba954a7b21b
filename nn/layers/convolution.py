"""Convolution of images of shape (rows, height, width, channels)."""

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
from ring.errors import ArgumentError, ShapeError

__all__ = ["Convolution", "pair"]

Pair = tuple[int, int]

# Elements of the windows of plain images that are copied at a time.
_WINDOW_ELEMENTS = 1 << 23


def pair(name: str, value: Any, minimum: int = 1) -> tuple[int, int]:
    """Return `value`, one integer or two of at least `minimum`, as (height, width)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{name} must be one integer or two, got {value!r}")
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


@register
class Convolution(Weighted):
    """Convolutional layer: the products of every window of an image with the kernels, plus a bias.

    A cross-correlation, as in other libraries: kernels are not flipped. Input rows have the shape
    (height, width, channels), output rows (places down, places across, outputs).

    Parameters
    ----------
    weights : array of shape (kernel height, kernel width, channels, outputs)
    bias : array of shape (outputs,)
    stride : int or (int, int), default=1
        Step from a window to the next, along height and width.
    padding : {"valid", "same"}, int, (int, int) or two pairs of int, default="valid"
        Zeros around the image. "valid": none. "same": as many as give ``ceil(size / stride)``
        places, an odd one below or to the right. One integer: on all four sides; two: above and
        below, left and right; or ``((above, below), (left, right))``.

    Raises
    ------
    ShapeError
        If `weights` does not have four axes, or `bias` not one entry for each output.
    ArgumentError, DtypeError
        If `stride` or `padding` is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Convolution
    >>> layer = Convolution(np.ones((2, 2, 1, 1)), np.zeros(1))
    >>> layer(np.arange(9.0).reshape(1, 3, 3, 1))[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """

    options = ("stride", "padding")

    def __init__(self, weights: Any, bias: Any, *, stride: Any = 1, padding: Any = "valid") -> None:
        if len(weights.shape) != 4:
            raise ShapeError(
                "weights must have four axes (height, width, channels, outputs), "
                f"got shape {tuple(weights.shape)}"
            )
        super().__init__(weights, bias)
        self.stride = pair("stride", stride)
        if isinstance(padding, str):
            if padding not in ("valid", "same"):
                raise ArgumentError(f"padding must be 'valid', 'same' or integers, got {padding!r}")
            self.padding: str | Pair | tuple[Pair, Pair] = padding
        elif isinstance(padding, (tuple, list)) and any(
            isinstance(side, (tuple, list)) for side in padding
        ):
            if len(padding) != 2:
                raise ArgumentError(f"padding must be one pair for each axis, got {padding!r}")
            self.padding = (
                pair("padding[0]", padding[0], 0), pair("padding[1]", padding[1], 0)
            )  # fmt: skip
        else:
            self.padding = pair("padding", padding, 0)

    @classmethod
    def untrained(
        cls, channels: int, outputs: int, kernel: Any, *, stride: Any = 1, padding: Any = "valid"
    ) -> Convolution:
        """Return a layer that is to be trained, with zeros for parameters.

        Parameters
        ----------
        channels, outputs : int
            At least 1.
        kernel : int or (int, int)
            Height and width.
        stride, padding
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
        sizes = (
            *pair("kernel", kernel), integer("channels", channels, 1), integer("outputs", outputs, 1)
        )  # fmt: skip
        return cls(np.zeros(sizes), np.zeros(sizes[3]), stride=stride, padding=padding)

    def __repr__(self) -> str:
        height, width, channels, outputs = self.weights.shape
        text = f"Convolution({channels}, {outputs}, kernel=({height}, {width})"
        if self.stride != (1, 1):
            text += f", stride={self.stride}"
        if self.padding != "valid":
            text += f", padding={self.padding!r}"
        return text + ")"

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Convolution:
        sizes = self.weights.shape
        inputs = int(np.prod(sizes[:3]))
        weights = he_normal(inputs, sizes[3], random, dtype).reshape(sizes)
        return self.with_parameters([weights, np.zeros(sizes[3], dtype=weights.dtype)])

    def windows(self, height: int, width: int) -> Windows:
        """Return the windows of images of the given size."""
        kernel = self.weights.shape[:2]
        sides = []
        for size, length, step, k in zip(
            (height, width), kernel, self.stride, range(2), strict=True
        ):
            if isinstance(self.padding, str):
                missing = max(0, (-(-size // step) - 1) * step + length - size)
                missing = missing if self.padding == "same" else 0
                sides.append((missing // 2, missing - missing // 2))
            else:
                side = self.padding[k]
                sides.append(side if isinstance(side, tuple) else (side, side))
        return Windows((int(kernel[0]), int(kernel[1])), self.stride, (sides[0], sides[1]))

    def _window_matrix(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return a matrix with a row for every window of plain images."""
        seen = self.windows(*x.shape[1:3]).view(x)
        return seen.reshape(-1, int(np.prod(seen.shape[-3:])))

    def _kernel_matrix(self) -> Any:
        """Return the weights as a matrix with a column for every output."""
        return self.weights.reshape(-1, self.weights.shape[3])

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if isinstance(x, SharedArray):
            return convolution.convolve(x, self.weights, self.windows(*x.shape[1:3])) + self.bias
        # A few images at a time: windows overlap, so they need many times the memory of the images.
        step = max(1, _WINDOW_ELEMENTS // (shape[0] * shape[1] * math.prod(self.weights.shape[:3])))
        pieces = [
            self._window_matrix(x[start : start + step]) @ self._kernel_matrix() + self.bias
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
        return (rows @ self._kernel_matrix() + self.bias).reshape(len(x), *shape)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if isinstance(memory, SharedArray):
            return self._shared_backward(memory, gradient.truncate(), input_gradient)
        rows, shape = memory
        flat = gradient.reshape(-1, gradient.shape[-1])
        self.gradients = [(rows.T @ flat).reshape(self.weights.shape), flat.sum(axis=0)]
        if not input_gradient:
            return None
        windows = self.windows(*shape[1:3])
        back = (flat @ self._kernel_matrix().T).reshape(
            *gradient.shape[:3], *windows.kernel, shape[-1]
        )
        return windows.add_back(back, shape)

    def _shared_backward(
        self, x: SharedArray, gradient: SharedArray, wanted: bool
    ) -> SharedArray | None:
        windows = self.windows(*x.shape[1:3])
        self.gradients = [
            convolution.kernel_gradient(x, gradient, windows),
            gradient.sum(axis=(0, 1, 2)),
        ]
        return (
            convolution.input_gradient(gradient, self.weights, windows, x.shape) if wanted else None
        )

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if lows.ndim != 3:
            raise ShapeError(
                f"low and high must have the shape (height, width, channels) for {self!r}, "
                f"got shape {lows.shape}"
            )
        shape = self.output_shape(lows.shape)
        weights = np.asarray(self._kernel_matrix(), dtype=np.float64)
        bias = np.asarray(self.bias, dtype=np.float64)
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        below, above = self._window_matrix(lows[None]), self._window_matrix(highs[None])
        return (
            (below @ positive + above @ negative + bias).reshape(shape),
            (above @ positive + below @ negative + bias).reshape(shape),
        )

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        weights, bias = (
            np.asarray(p, dtype=np.float64) for p in (self._kernel_matrix(), self.bias)
        )
        rounded = np.rint(weights / unit) * unit
        off = self._window_matrix(magnitude[None]) @ np.abs(rounded - weights)
        grown = self._window_matrix(np.broadcast_to(error, magnitude.shape)[None]) @ np.abs(rounded)
        whole: NDArray[Any] = grown + off + np.abs(np.rint(bias / unit) * unit - bias)
        return whole.reshape(self.output_shape(magnitude.shape))

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        outputs = math.prod(self.output_shape(input_shape))
        # Windows of the opened image, of every party's share of its mask, and of the provider's.
        seen = outputs // self.weights.shape[3] * math.prod(self.weights.shape[:3])
        image = math.prod(input_shape)
        return int((parties + 3) * seen + (4 * parties + 2) * image + 4 * (parties + 1) * outputs)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        channels, outputs = self.weights.shape[2:]
        if len(shape) != 3 or shape[2] != channels:
            raise ShapeError(
                f"{self!r} takes images (height, width, {channels} channels), got shape {shape}"
            )
        windows = self.windows(*shape[:2])
        down, across = windows.places(*shape[:2])
        if down < 1 or across < 1:
            raise ShapeError(
                f"{self!r} has a kernel larger than the image: {windows.kernel} on "
                f"{shape[:2]} with padding {windows.padding}"
            )
        return (down, across, int(outputs))
