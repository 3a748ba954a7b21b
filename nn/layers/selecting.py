"""Layers that take some elements of every row, and zeros around rows. No communication on shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear
from nn.core.checks import elements, integer, interval, real
from nn.layers.layer import Layer, Shape, register
from ring.errors import ShapeError

__all__ = ["Pad", "Take"]


@register
class Take(Layer):
    """Take elements along an axis of every row, by public indices.

    Parameters
    ----------
    axis : int
        Axis of a row, counted from 0 without the axis of the rows.
    indices : sequence of int
        At least 0; an index may be given several times.

    Raises
    ------
    ArgumentError, DtypeError
        If `axis` or an index is no integer of at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Take
    >>> Take(0, [2, 0, 0])(np.array([[1.0, 2.0, 3.0]]))
    array([[3., 1., 1.]])
    """

    options = ("axis", "indices")
    may_grow, only_moves, commutes_with_relu = False, True, True

    def __init__(self, axis: int, indices: Sequence[int]) -> None:
        super().__init__()
        self.axis = integer("axis", axis, 0)
        self.indices = tuple(integer(f"indices[{k}]", n, 0) for k, n in enumerate(indices))
        if not self.indices:
            raise ShapeError("indices must name at least one element, got none")

    def __repr__(self) -> str:
        steps = set(np.diff(self.indices).tolist())
        if len(steps) == 1 and steps != {0}:
            (step,) = steps
            return f"Take({self.axis}, range({self.indices[0]}, {self.indices[-1] + step}, {step}))"
        shown = self.indices if len(self.indices) < 5 else f"{len(self.indices)} indices"
        return f"Take({self.axis}, {shown})"

    def _index(self, first: int) -> tuple[Any, ...]:
        """Return the index into an array whose rows' axes start at axis `first`."""
        before = (slice(None),) * (self.axis + first)
        # A slice is a view, and keeps what is known of the order.
        steps = set(np.diff(self.indices).tolist())
        if len(self.indices) == 1:
            return (*before, slice(self.indices[0], self.indices[0] + 1))
        if len(steps) == 1 and min(steps) > 0:
            return (*before, slice(self.indices[0], self.indices[-1] + 1, min(steps)))
        return (*before, np.array(self.indices, np.intp))

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        return x[self._index(1)]

    def forward(self, x: Any) -> Any:
        self._memory = tuple(x.shape)
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        if not input_gradient:
            return None
        axis, size = self.axis + 1, shape[self.axis + 1]
        # The gradient at an element is the sum of those of its copies.
        spread = np.zeros((len(self.indices), size), np.int64)
        spread[np.arange(len(self.indices)), self.indices] = 1
        order = [k for k in range(len(shape)) if k != axis]
        moved = gradient.transpose((*order, axis))
        flat = moved.reshape((-1, len(self.indices))) @ spread
        back = flat.reshape((*(shape[k] for k in order), size))
        return back.transpose(tuple(int(k) for k in np.argsort([*order, axis])))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim and not highs.ndim:
            return lows, highs
        lows, highs = np.broadcast_arrays(lows, highs)
        self.output_shape(lows.shape)
        return lows[self._index(0)], highs[self._index(0)]

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) <= self.axis or shape[self.axis] <= max(self.indices):
            raise ShapeError(
                f"{self!r} takes rows with more than {max(self.indices)} elements along axis "
                f"{self.axis}, got shape {shape}"
            )
        return (*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :])

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        return np.broadcast_to(error, shape)[self._index(0)] if shape else error


@register
class Pad(Layer):
    """Put public numbers around every row.

    Parameters
    ----------
    widths : sequence of (int, int)
        For each axis of a row: how many are added before and behind.
    value : float, default=0
        The number that is added.

    Raises
    ------
    ArgumentError, DtypeError
        If a width is no integer of at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Pad
    >>> Pad([(1, 2)])(np.array([[3.0, 4.0]]))
    array([[0., 3., 4., 0., 0.]])
    """

    options = ("widths", "value")
    keeps_bits = True

    def __init__(self, widths: Sequence[Sequence[int]], value: float = 0.0) -> None:
        super().__init__()
        pairs = [
            elements(f"widths[{k}]", pair) for k, pair in enumerate(elements("widths", widths))
        ]
        if any(len(pair) != 2 for pair in pairs):
            raise ShapeError(f"widths must be pairs, got {widths!r}")
        self.widths = tuple(
            (integer(f"widths[{k}][0]", a, 0), integer(f"widths[{k}][1]", b, 0))
            for k, (a, b) in enumerate(pairs)
        )
        self.value = real("value", value, above=-math.inf, below=math.inf)

    def __repr__(self) -> str:
        return f"Pad({self.widths}{f', {self.value:g}' if self.value else ''})"

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if not isinstance(x, SharedArray):
            return np.pad(x, ((0, 0), *self.widths), constant_values=self.value)
        x = linear.pad(x, ((0, 0), *self.widths))
        if not self.value:
            return x
        return x + np.pad(np.zeros(np.subtract(shape, np.sum(self.widths, axis=1))), self.widths,
                          constant_values=self.value)  # fmt: skip

    def forward(self, x: Any) -> Any:
        self._memory = True
        return self(x)

    def _inner(self, shape: Sequence[int]) -> tuple[slice, ...]:
        pairs = zip(self.widths, shape, strict=True)
        return tuple(slice(before, size - behind) for (before, behind), size in pairs)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        self._remembered()
        return gradient[(slice(None), *self._inner(gradient.shape[1:]))] if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim and not highs.ndim:
            return np.minimum(lows, self.value), np.maximum(highs, self.value)
        lows, highs = np.broadcast_arrays(lows, highs)
        return self(lows[None])[0], self(highs[None])[0]

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) != len(self.widths):
            raise ShapeError(f"{self!r} takes rows with {len(self.widths)} axes, got shape {shape}")
        return tuple(n + a + b for n, (a, b) in zip(shape, self.widths, strict=True))

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        shape = np.shape(magnitude)
        if not shape:
            return error + 2.0**-frac_bits
        inner = np.broadcast_to(error, shape)
        return np.pad(inner, self.widths, constant_values=2.0**-frac_bits)
