"""Sizes, strides and padding of windows as layers' options, for images and for signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.windows import Windows
from nn.core.checks import integer
from ring.errors import ArgumentError

__all__ = ["Line", "Padding", "line_of", "pad_pairs", "per_axis", "same_padding", "windows_of"]

Pair = tuple[int, int]
Padding = str | tuple[int, ...] | tuple[Pair, ...]
_COUNTS = {1: "one integer", 2: "one integer or two"}


def per_axis(name: str, value: Any, axes: int = 2, minimum: int = 1) -> tuple[int, ...]:
    """Return `value`, one integer or one an axis of at least `minimum`, as one an axis."""
    if isinstance(value, (tuple, list)):
        if len(value) != axes:
            raise ArgumentError(f"{name} must be {_COUNTS[axes]}, got {value!r}")
        return tuple(integer(name, v, minimum) for v in value)
    return (integer(name, value, minimum),) * axes


def pad_pairs(padding: Any, axes: int) -> Padding:
    """Return padding as it was given: "valid", "same", an integer an axis, or a pair an axis."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ArgumentError(f"padding must be 'valid', 'same' or integers, got {padding!r}")
        return padding
    if isinstance(padding, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in padding):
        if len(padding) != axes:
            raise ArgumentError(f"padding must be one pair for each axis, got {padding!r}")
        return tuple(
            (sides[0], sides[1])
            for sides in (per_axis(f"padding[{k}]", v, 2, 0) for k, v in enumerate(padding))
        )
    return per_axis("padding", padding, axes, 0)


def same_padding(size: int, extent: int, stride: int) -> Pair:
    """Return zeros before and behind that give ``ceil(size / stride)`` places, an odd one behind."""
    missing = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return missing // 2, missing - missing // 2


def windows_of(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Padding,
    dilation: Sequence[int],
) -> Windows:  # fmt: skip
    """Return the windows of images of a height and width, or of signals, as images of width 1."""
    return _windows_of(tuple(size), tuple(kernel), tuple(stride), padding, tuple(dilation))


@lru_cache(maxsize=256)
def _windows_of(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: Padding,
    dilation: tuple[int, ...],
) -> Windows:  # fmt: skip
    sides: list[Pair] = []
    for k, (length, count, step, gap) in enumerate(
        zip(size, kernel, stride, dilation, strict=True)
    ):
        if isinstance(padding, str):
            extent = (int(count) - 1) * gap + 1
            sides.append(same_padding(length, extent, step) if padding == "same" else (0, 0))
        else:
            side = padding[k]
            sides.append(side if isinstance(side, tuple) else (side, side))
    if len(sides) == 1:
        return Windows((int(kernel[0]), 1), (stride[0], 1), (sides[0], (0, 0)), (dilation[0], 1))
    return Windows(
        (int(kernel[0]), int(kernel[1])), (stride[0], stride[1]), (sides[0], sides[1]),
        (dilation[0], dilation[1]),
    )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """The windows along one axis.

    Attributes
    ----------
    size : int
        Elements of the axis.
    length, stride, dilation : int
        Elements of a window, steps between windows, and between a window's elements.
    before : int
        How far the first window begins before the first element.
    places : int
        Windows.
    padded : int
        Elements with padding on both sides.
    """

    size: int
    length: int
    stride: int
    dilation: int
    before: int
    places: int
    padded: int

    @property
    def tiles(self) -> bool:
        """Whether windows do not overlap, have no gaps and lie inside the axis."""
        inside = not self.before and self.places * self.stride <= self.size
        return inside and self.stride == self.length and self.dilation == 1

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """The element that element o of window p meets, of shape (length, places); may be outside."""
        starts = np.arange(self.places) * self.stride - self.before
        return starts + np.arange(self.length)[:, None] * self.dilation

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Which of `numbers` are elements of the axis."""
        return (self.numbers >= 0) & (self.numbers < self.size)

    @cached_property
    def in_every_window(self) -> bool:
        """Whether every window has an element that is inside."""
        return bool(self.inside.any(axis=0).all())

    @cached_property
    def nearest(self) -> NDArray[np.int64]:
        """`numbers`, with the window's nearest element that is inside in place of one that is not."""
        first = self.inside.argmax(axis=0)
        last = self.length - 1 - self.inside[::-1].argmax(axis=0)
        return np.take_along_axis(
            self.numbers, np.clip(np.arange(self.length)[:, None], first, last), 0
        )

    def counts(self, *, padding: bool) -> NDArray[np.int64]:
        """Return how many elements each window has, with those of the padding or without."""
        if not padding:
            return np.asarray(self.inside.sum(axis=0))
        behind = self.numbers + self.before
        return np.asarray((behind < self.padded).sum(axis=0))

    def matrix(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ones at (row k, element numbers[k]), zeros elsewhere and for numbers outside."""
        flat = numbers.reshape(-1)
        return (flat[:, None] == np.arange(self.size)).astype(np.int64)


@lru_cache(maxsize=256)
def line_of(
    size: int, length: int, stride: int, dilation: int, padding: Pair | str, *, ceil: bool
) -> Line:
    """Return the windows along an axis; no more than begin before its end if `ceil` counts partial ones.

    The number of places is below 1 if no window fits.
    """
    extent = (length - 1) * dilation + 1
    if isinstance(padding, str):
        before, behind = same_padding(size, extent, stride) if padding == "same" else (0, 0)
    else:
        before, behind = padding
    room = size + before + behind - extent
    places = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (places - 1) * stride >= size + before:
        places -= 1
    return Line(size, length, stride, dilation, before, places, size + before + behind)
