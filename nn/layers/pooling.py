"""Pooling: the largest or the mean value of every window of an image, channel by channel.

Images have the shape (rows, height, width, channels), signals (rows, length, channels). Tiles, windows
that neither overlap nor leave gaps, are reduced at once; other windows along one axis after the other,
which compares fewer pairs: 4 in place of 8 for a window of 3 x 3 with steps of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear, scaling
from mpc.protocols.pooling import (
    maximum_gradient,
    maximum_of_first,
    maximum_with_bits,
    mean_of_first,
    mean_of_sum,
)
from nn.core.checks import interval
from nn.layers.layer import Layer, Shape, register
from nn.layers.windowed import Line, line_of, pad_pairs, per_axis
from ring.errors import ArgumentError, ShapeError

__all__ = ["AveragePool", "MaxPool"]

Ints = NDArray[np.int64]


class _Pool(Layer):
    """Base class of pooling."""

    options = ("size",)
    later_options: ClassVar[tuple[str, ...]] = ("stride", "padding", "dilation", "ceil")
    may_grow = False

    def __init__(
        self, size: Any = 2, stride: Any = None, padding: Any = "valid", dilation: Any = 1,
        ceil: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if size is None:
            if (stride, padding, dilation, ceil) != (None, "valid", 1, False):
                raise ArgumentError(
                    "stride, padding, dilation and ceil must be left out for windows of the whole image"
                )
            self.size: tuple[int, ...] | None = None
            axes = 2
        else:
            axes = 1 if isinstance(size, (tuple, list)) and len(size) == 1 else 2
            self.size = per_axis("size", size, axes)
        # Files hold what differs from the defaults, so options that say the same are kept as these.
        steps = None if stride is None else per_axis("stride", stride, axes)
        self.stride = None if steps == self.size else steps
        sides = pad_pairs(padding, axes)
        flat = () if isinstance(sides, str) else np.array(sides).reshape(-1).tolist()
        self.padding = "valid" if not isinstance(sides, str) and not any(flat) else sides
        gaps = per_axis("dilation", dilation, axes)
        self.dilation: int | tuple[int, ...] = 1 if set(gaps) == {1} else gaps
        self._gaps = gaps
        self.ceil = bool(ceil)

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({self.size}"
        for name, usual in zip(self.later_options, (None, "valid", 1, False, False), strict=False):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != usual else ""
        return text + ")"

    def _lines(self, shape: Sequence[int]) -> list[Line]:
        """Return the windows along each axis of an image, or of a signal, of the given size."""
        if self.size is None:
            return [line_of(n, n, n, 1, "valid", ceil=False) for n in shape]
        steps = self.size if self.stride is None else self.stride
        sides = self.padding
        found = []
        for k, n in enumerate(shape):
            side = sides if isinstance(sides, str) else sides[k]
            both = (side, side) if isinstance(side, int) else side
            found.append(line_of(n, self.size[k], steps[k], self._gaps[k], both, ceil=self.ceil))
        return found

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        axes = (1, 2) if self.size is None else (len(self.size),)
        if len(shape) - 1 not in axes:
            what = (
                "signals (length, channels)" if axes == (1,) else "images (height, width, channels)"
            )
            raise ShapeError(f"{self!r} takes {what}, got shape {shape}")
        lines = self._lines(shape[:-1])
        if min(line.places for line in lines) < 1:
            raise ShapeError(f"{self!r} has windows larger than the image, got shape {shape}")
        if not all(line.in_every_window for line in lines):
            raise ShapeError(f"{self!r} has a window of padding alone, got shape {shape}")
        return (*(line.places for line in lines), shape[-1])

    def _tiles(self, x: Any, lines: Sequence[Line]) -> Any:
        """Return the elements of tiles of images, (elements of a tile, rows, *places, channels)."""
        x = _cropped(x, lines)
        sizes = [n for line in lines for n in (line.places, line.length)]
        split = x.reshape(x.shape[0], *sizes, x.shape[-1])
        inner = [2 * k + 2 for k in range(len(lines))]
        outer = [2 * k + 1 for k in range(len(lines))]
        moved = split.transpose((*inner, 0, *outer, split.ndim - 1))
        count = math.prod(line.length for line in lines)
        return moved.reshape((count, *moved.shape[len(lines) :]))

    def _untiled(self, tiles: Any, lines: Sequence[Line]) -> Any:
        """Return the images of `_tiles`, with zeros behind the last tiles."""
        axes, rows, channels = len(lines), tiles.shape[1], tiles.shape[-1]
        lengths = [line.length for line in lines]
        split = tiles.reshape((*lengths, *tiles.shape[1:]))
        order = [n for k in range(axes) for n in (axes + 1 + k, k)]
        moved = split.transpose((axes, *order, split.ndim - 1))
        image = moved.reshape((rows, *(n.places * n.length for n in lines), channels))
        widths = [(0, 0), *((0, n.size - n.places * n.length) for n in lines), (0, 0)]
        return (
            linear.pad(image, widths) if isinstance(image, SharedArray) else np.pad(image, widths)
        )

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

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # The first comparisons, or sums, meet the windows along the last axis.
        *sizes, channels = input_shape
        lines = self._lines(sizes)
        last = lines[-1].places * lines[-1].length
        seen = max(math.prod(sizes), math.prod(sizes[:-1]) * last) * channels
        return (2 * parties + 10 * (parties + 1)) * seen


def _cropped(x: Any, lines: Sequence[Line]) -> Any:
    """Return images without the elements behind the last tile of each axis."""
    kept = [line.places * line.length for line in lines]
    if list(x.shape[1:-1]) == kept:
        return x
    return x[(slice(None), *(slice(0, n) for n in kept))]


def _taken(x: Any, axis: int, numbers: Ints) -> Any:
    """Return the numbered elements of an axis; `numbers` of shape (k, places) makes k arrays."""
    found = x[(slice(None),) * axis + (numbers.reshape(-1),)]
    split = found.reshape((*x.shape[:axis], *numbers.shape, *x.shape[axis + 1 :]))
    return split.transpose((axis, *(k for k in range(split.ndim) if k != axis)))


def _back(parts: Any, axis: int, line: Line, numbers: Ints) -> Any:
    """Add the k arrays of `_taken` to the elements that they are copies of."""
    ndim = parts.ndim
    # The axes of the elements last, then their sum by a matrix of zeros and ones.
    rest = [k for k in range(1, ndim) if k != axis + 1]
    moved = parts.transpose((*rest, 0, axis + 1))
    flat = moved.reshape((*moved.shape[:-2], numbers.size))
    matrix = line.matrix(numbers)
    added = flat @ (matrix if isinstance(parts, SharedArray) else matrix.astype(parts.dtype))
    order = list(range(ndim - 2))
    return added.transpose((*order[:axis], ndim - 2, *order[axis:]))


@register
class MaxPool(_Pool):
    """The largest value of every window.

    Padding is no value: the largest value of a window is that of the pixels inside the image. Before a
    ReLU the layer gives the same result as behind it, and leaves fewer elements to the ReLU.

    Parameters
    ----------
    size : int or (int, int), or None, default=2
        Height and width of a window; ``(length,)`` for signals. None: all of the image.
    stride : int or (int, int), optional
        Step from a window to the next; default `size`, so that windows are tiles.
    padding : {"valid", "same"}, int, (int, int) or two pairs of int, default="valid"
        As for :class:`Convolution`.
    dilation : int or (int, int), default=1
        Distance of a window's pixels.
    ceil : bool, default=False
        Whether a last window that is partly outside counts; else the pixels behind the last whole
        window are left out.

    Raises
    ------
    ArgumentError, DtypeError
        If an argument is none of the above. A ShapeError for images smaller than a window, or where a
        window has padding alone, comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import MaxPool
    >>> MaxPool(2)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    >>> MaxPool(3, stride=2, padding=1)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    commutes_with_relu = True

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # A value is truncated once.
        return (self(error[None])[0] if np.ndim(error) else error) + 2.0**-frac_bits

    def _slices(self, x: NDArray[Any], lines: Sequence[Line]) -> list[NDArray[Any]]:
        """Return, for each element of a tile, that of all tiles as a view."""
        x = _cropped(x, lines)
        offsets = np.ndindex(*(line.length for line in lines))
        steps = [line.length for line in lines]
        return [
            x[(slice(None), *(slice(k, None, n) for k, n in zip(place, steps, strict=True)))]
            for place in offsets
        ]

    def _reduce(self, x: Any) -> Any:
        lines = self._lines(x.shape[1:-1])
        if all(line.tiles for line in lines):
            if isinstance(x, SharedArray):
                return maximum_of_first(self._tiles(x, lines))
            return _largest(self._slices(x, lines))
        for axis, line in _last_first(lines):
            parts = _taken(x, axis, line.nearest)
            x = maximum_of_first(parts) if isinstance(x, SharedArray) else _largest(parts)
        return x

    def forward(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        lines = self._lines(x.shape[1:-1])
        if all(line.tiles for line in lines):
            if isinstance(x, SharedArray):
                output, bits = maximum_with_bits(self._tiles(x, lines))
                self._memory = (lines, bits)
            else:
                output = self._reduce(x)
                self._memory = (lines, (x, output))
            return output
        steps: list[tuple[int, Line, Any]] = []
        seen: Any
        for axis, line in _last_first(lines):
            parts = _taken(x, axis, line.nearest)
            if isinstance(x, SharedArray):
                x, seen = maximum_with_bits(parts)
            else:
                x = _largest(parts)
                seen = _firsts(parts, x)
            steps.append((axis, line, seen))
        self._memory = (None, steps)
        return x

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        lines, memory = self._remembered()
        if not input_gradient:
            return None
        shared = isinstance(gradient, SharedArray)
        if lines is None:
            for axis, line, seen in reversed(memory):
                parts = maximum_gradient(gradient, seen, line.length) if shared else gradient * seen
                gradient = _back(parts, axis, line, line.nearest)
            return gradient
        if shared:
            count = math.prod(line.length for line in lines)
            return self._untiled(maximum_gradient(gradient, memory, count), lines)
        x, output = memory
        back = np.zeros(x.shape, gradient.dtype)
        parts, places = self._slices(x, lines), self._slices(back, lines)
        # The gradient goes to the first of equal values; `free` marks tiles that have not had it.
        free = np.ones(output.shape, bool)
        for part, place in zip(parts, places, strict=True):
            found = (part == output) & free
            np.multiply(gradient, found, out=place)
            free &= ~found
        return back


def _last_first(lines: Sequence[Line]) -> list[tuple[int, Line]]:
    """Return (axis of an image, its windows), the last axis first, without those that change nothing.

    In this order the first of equal values wins by rows, as it does within a tile.
    """
    found = list(enumerate(lines, start=1))[::-1]
    return [(k, n) for k, n in found if not n.tiles or (n.length, n.places) != (1, n.size)]


def _largest(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    greatest = parts[0].copy()
    for part in parts[1:]:
        np.maximum(greatest, part, out=greatest)
    return greatest


def _firsts(parts: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
    """Return, for each array of `parts`, where it is the first to have the largest value."""
    found = parts == largest
    found[1:] &= np.logical_or.accumulate(found, axis=0)[:-1] == 0
    return found


@register
class AveragePool(_Pool):
    """The mean value of every window.

    Parameters
    ----------
    size, stride, padding, dilation, ceil
        As for :class:`MaxPool`.
    count_padding : bool, default=False
        Whether the zeros of the padding count; else the mean is that of the pixels inside the image.

    Raises
    ------
    ArgumentError, DtypeError
        If an argument breaks its rule. A ShapeError for images smaller than a window, or where a window
        has padding alone, comes from the call.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import AveragePool
    >>> AveragePool(2)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """

    later_options = (*_Pool.later_options, "count_padding")

    def __init__(
        self, size: Any = 2, stride: Any = None, padding: Any = "valid", dilation: Any = 1,
        ceil: bool = False, count_padding: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(size, stride, padding, dilation, ceil)
        self.count_padding = bool(count_padding)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = super().bounds(low, high)
        if np.ndim(low) or not self.count_padding or self.padding == "valid":
            return lows, highs
        return np.minimum(lows, 0), np.maximum(highs, 0)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        # A value is truncated once, and the quotient is right to the last place.
        return (self(error[None])[0] if np.ndim(error) else error) + 3 * 2.0**-frac_bits

    def _counts(self, lines: Sequence[Line]) -> Ints:
        """Return how many elements each window has, (*places, 1)."""
        each = [line.counts(padding=self.count_padding) for line in lines]
        whole = each[0] if len(each) == 1 else each[0][:, None] * each[1]
        return whole[..., None]

    def _reduce(self, x: Any) -> Any:
        lines = self._lines(x.shape[1:-1])
        shared = isinstance(x, SharedArray)
        if all(line.tiles for line in lines):
            tiles = self._tiles(x, lines)
            return mean_of_first(tiles) if shared else tiles.mean(axis=0)
        bound, total = (x.bound if shared else 0), x
        for axis, line in _last_first(lines):
            total = _window_sums(total, axis, line)
        counts = self._counts(lines)
        if not shared:
            return total / counts.astype(x.dtype)
        if (counts == counts.flat[0]).all():
            return mean_of_sum(total, int(counts.flat[0]), bound)
        return scaling.divide(total, counts, "mean")

    def forward(self, x: Any) -> Any:
        self._memory = self._lines(x.shape[1:-1])
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        lines = self._remembered()
        if not input_gradient:
            return None
        shared = isinstance(gradient, SharedArray)
        if all(line.tiles for line in lines):
            count = math.prod(line.length for line in lines)
            part = gradient * (1 / count)
            if shared:
                return self._untiled(part.reshape(1, *part.shape)[np.zeros(count, np.intp)], lines)
            return self._untiled(np.broadcast_to(part, (count, *part.shape)), lines)
        counts = self._counts(lines)
        gradient = gradient / counts if shared else gradient / counts.astype(gradient.dtype)
        for axis, line in reversed(_last_first(lines)):
            parts = gradient.reshape((1, *gradient.shape))
            repeated = parts[np.zeros(line.length, np.intp)]
            gradient = _back(repeated, axis, line, line.numbers)
        return gradient


def _window_sums(x: Any, axis: int, line: Line) -> Any:
    """Return the sums of windows along an axis, padding being zero."""
    reach = (line.places - 1) * line.stride + (line.length - 1) * line.dilation + 1
    behind = max(0, reach - line.before - line.size)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (line.before, behind)
    if any(widths[axis]):
        x = linear.pad(x, widths) if isinstance(x, SharedArray) else np.pad(x, widths)
    total: Any = None
    for k in range(line.length):
        start = k * line.dilation
        stop = start + (line.places - 1) * line.stride + 1
        part = x[(slice(None),) * axis + (slice(start, stop, line.stride),)]
        total = part if total is None else total + part
    return total
