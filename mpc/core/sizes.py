"""Checks of sizes and views in messages from another process, before any memory is allocated."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from mpc.core.errors import ShapeError
from mpc.core.windows import Windows

__all__ = ["broadcast", "check_size", "shape_of_view"]


def check_size(shape: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """Return `shape`, or raise ShapeError if a size is negative or the array exceeds `limit` words."""
    # Sizes of zero count as one: loops may still run over the large sizes beside them.
    if len(shape) > 32 or any(n < 0 for n in shape) or prod(max(n, 1) for n in shape) > limit:
        raise ShapeError(f"a shape must have sizes of at least 0 and {limit} words, got {shape}")
    return shape


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `shapes` broadcast to, or raise ShapeError."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"shapes must broadcast, got {shapes}") from None


def shape_of_view(shape: tuple[int, ...], view: tuple[str, object], limit: int) -> tuple[int, ...]:
    """Return the shape that apply_views would give, without allocating the result."""
    kind, argument = view
    if kind == "windows":
        return _shape_of_windows(shape, argument, limit)
    if not isinstance(argument, tuple):
        raise ShapeError(f"a view must have a tuple, got {type(argument).__name__}")
    if kind == "transpose":
        if sorted(argument) != list(range(len(shape))):
            raise ShapeError(f"axes must be a permutation of {len(shape)} axes, got {argument}")
        return tuple(shape[a] for a in argument)
    if kind == "reshape":
        if any(n < 0 for n in argument) or prod(argument) != prod(shape):
            raise ShapeError(f"cannot reshape {shape} to {argument}")
        return argument
    if kind != "index":
        raise ShapeError(f"a view must be transpose, reshape, index or windows, got {kind!r}")
    try:
        view_of = np.broadcast_to(np.uint8(0), shape)
        if 0 not in shape:
            # Indexing with arrays copies. To find the size first, index with 0 in place of arrays.
            single: list[Any] = []
            chosen: list[tuple[int, ...]] = []
            for k in argument:
                arrays = () if not isinstance(k, np.ndarray) else (k,)
                if arrays and k.dtype == np.bool_:
                    arrays = k.nonzero()
                single += [0] * len(arrays) if arrays else [k]
                chosen += [array.shape for array in arrays]
            if chosen:
                rest = view_of[tuple(single)].shape
                check_size((*np.broadcast_shapes(*chosen), *rest), limit)
        return view_of[argument].shape
    except (IndexError, ValueError, TypeError) as error:
        raise ShapeError(f"an index does not fit shape {shape}: {error}") from None


def _shape_of_windows(shape: tuple[int, ...], windows: object, limit: int) -> tuple[int, ...]:
    if not isinstance(windows, Windows) or len(shape) < 3:
        raise ShapeError(f"windows must be those of images, got {windows} of shape {shape}")
    (top, bottom), (left, right) = windows.padding
    steps = min(*windows.kernel, *windows.stride, *windows.dilation)
    if steps < 1 or min(top, bottom, left, right) < 0:
        raise ShapeError(f"windows must have a kernel, steps and no negative padding: {windows}")
    *outer, height, width, channels = shape
    check_size((*outer, height + top + bottom, width + left + right, channels), limit)
    down, across = windows.places(height, width)
    if down < 1 or across < 1:
        raise ShapeError(f"{windows} has no place on images of {height} by {width}")
    return check_size((*outer, down, across, *windows.kernel, channels), limit)
