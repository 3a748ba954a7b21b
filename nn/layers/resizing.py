"""Resizing of images (rows, height, width, channels), and of signals (rows, length, channels)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import elements, integer, interval, real
from nn.layers.layer import Layer, Shape, register
from ring.errors import ArgumentError, ShapeError

__all__ = ["CubicResize", "Resize"]

Floats = NDArray[np.float64]

MODES = ("nearest", "linear")
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ArgumentError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return str(value)


@register
class Resize(Layer):
    """Make images larger or smaller, channel by channel, by public places and weights.

    A mean of neighbouring pixels ("linear"), or the nearest one, which takes no communication on shares.
    Pixels in between are placed by one of ONNX's rules, `coordinates` and `rounding`.

    Parameters
    ----------
    scale : float or sequence of float, optional
        New size divided by the old one, for each axis; above 0.
    size : sequence of int, optional
        New height and width, or length, in place of `scale`.
    mode : {"nearest", "linear"}, default="nearest"
    coordinates : {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", \
"align_corners"}
        Where a new pixel lies among the old ones. Default "half_pixel": centres of pixels stay in place.
    rounding : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}
        Which pixel is nearest, for mode "nearest".

    Raises
    ------
    ArgumentError, DtypeError
        If neither or both of `scale` and `size` are given, or an argument is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Resize
    >>> Resize(2)(np.array([1.0, 3.0]).reshape(1, 2, 1))[0, :, 0]
    array([1., 1., 3., 3.])
    >>> Resize(2, mode="linear")(np.array([1.0, 3.0]).reshape(1, 2, 1))[0, :, 0]
    array([1. , 1.5, 2.5, 3. ])
    """

    options = ("scale", "size", "mode", "coordinates", "rounding")
    may_grow = False

    def __init__(
        self, scale: Any = None, size: Any = None, mode: str = "nearest",
        coordinates: str = "half_pixel", rounding: str = "round_prefer_floor",
    ) -> None:  # fmt: skip
        super().__init__()
        if (scale is None) == (size is None):
            raise ArgumentError("one of scale and size must be given")
        self.scale: float | tuple[float, ...] | None = None
        if isinstance(scale, (tuple, list)):
            self.scale = tuple(real("scale", s, above=0, below=math.inf) for s in scale)
        elif scale is not None:
            self.scale = real("scale", scale, above=0, below=math.inf)
        self.size = (
            None if size is None else tuple(integer("size", n, 1) for n in elements("size", size))
        )
        self.mode = _one_of("mode", mode, MODES)
        self.coordinates = _one_of("coordinates", coordinates, COORDINATES)
        self.rounding = _one_of("rounding", rounding, ROUNDINGS)

    def __repr__(self) -> str:
        what = f"scale={self.scale}" if self.size is None else f"size={self.size}"
        return f"Resize({what}, mode={self.mode!r}, coordinates={self.coordinates!r})"

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        wanted = self.scale if self.size is None else self.size
        axes = (len(wanted),) if isinstance(wanted, tuple) else (1, 2)
        if len(shape) - 1 not in axes:
            raise ShapeError(
                f"{self!r} takes rows with {' or '.join(map(str, axes))} axes before the channels, "
                f"got shape {shape}"
            )
        if self.size is not None:
            return (*self.size, shape[-1])
        # In float32, as ONNX has scales: 10 pixels times its 0.7, which is less than 0.7, are 7.
        sizes = tuple(
            math.floor(np.float32(n) * np.float32(s))
            for n, s in zip(shape[:-1], self._scales(shape), strict=True)
        )
        if min(sizes) < 1:
            raise ShapeError(f"{self!r} leaves nothing of images of shape {shape}")
        return (*sizes, shape[-1])

    def _scales(self, shape: Shape) -> tuple[float, ...]:
        if self.size is not None:
            return tuple(new / n for new, n in zip(self.size, shape[:-1], strict=True))
        assert self.scale is not None
        return self.scale if isinstance(self.scale, tuple) else (self.scale,) * (len(shape) - 1)

    def _places(self, old: int, new: int, scale: float) -> Floats:
        """Return where each new element lies among the old ones, from 0 to old - 1."""
        # In float32, as onnxruntime: of two places that are as near, it then repeats the same.
        k, step = np.arange(new, dtype=np.float32), np.float32(scale)
        if self.coordinates == "align_corners":
            found: NDArray[Any] = k * (old - 1) / (new - 1) if new > 1 else np.zeros(1)
        elif self.coordinates == "asymmetric":
            found = k / step
        elif self.coordinates == "pytorch_half_pixel" and new == 1:
            found = np.zeros(1)
        else:
            found = (k + 0.5) / step - 0.5
            if self.coordinates == "half_pixel_symmetric":  # new pixels lie around the same middle
                found += np.float32(old / 2) * (1 - np.float32(new) / (step * np.float32(old)))
        return found.astype(np.float64)

    def _nearest(self, old: int, new: int, scale: float) -> NDArray[np.int64]:
        """Return the old element that each new one repeats."""
        places = self._places(old, new, scale)
        by: dict[str, Callable[[Floats], Floats]] = {
            "round_prefer_floor": lambda v: np.ceil(v - 0.5), "floor": np.floor, "ceil": np.ceil,
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        }  # fmt: skip
        return np.clip(by[self.rounding](places), 0, old - 1).astype(np.int64)

    def _matrix(self, old: int, new: int, scale: float) -> Floats:
        """Return the weight of each old element in each new one, (old, new)."""
        if self.mode == "nearest":
            return np.asarray(np.eye(old)[:, self._nearest(old, new, scale)])
        places = np.clip(self._places(old, new, scale), 0, old - 1)
        below = np.minimum(np.floor(places).astype(np.int64), max(0, old - 2))
        part = places - below
        whole, columns = np.zeros((old, new)), np.arange(new)
        whole[below, columns] += 1 - part
        whole[np.minimum(below + 1, old - 1), columns] += part
        return whole

    def _axes(self, shape: Shape) -> list[tuple[int, int, int, float]]:
        """Return (axis of an image, its old size, its new size, scale), the smallest scale first."""
        new = self.output_shape(shape)
        found = zip(range(1, len(shape)), shape[:-1], new[:-1], self._scales(shape), strict=True)
        return sorted((a for a in found if a[1:3] != (1, 1)), key=lambda axis: axis[2] / axis[1])

    def __call__(self, x: Any) -> Any:
        for axis, old, new, scale in self._axes(tuple(x.shape)[1:]):
            if self.mode == "nearest":
                x = x[(slice(None),) * axis + (self._nearest(old, new, scale),)]
            else:
                x = _times(x, axis, self._matrix(old, new, scale))
        return x

    def forward(self, x: Any) -> Any:
        self._memory = tuple(x.shape)[1:]
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shape = self._remembered()
        if not input_gradient:
            return None
        for axis, old, new, scale in reversed(self._axes(shape)):
            matrix = self._matrix(old, new, scale).T
            gradient = _times(
                gradient, axis, matrix.astype(int) if self.mode == "nearest" else matrix
            )
        return gradient

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        if not lows.ndim:
            return lows, highs
        return self(lows[None])[0], self(highs[None])[0]

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        if np.ndim(error):
            error = self(np.broadcast_to(error, np.shape(magnitude))[None])[0]
        # Each axis is right to the last place.
        return error + (4 if self.mode == "linear" else 0) * 2.0**-frac_bits


@register
class CubicResize(Resize):
    """Make images larger or smaller, by public weighted means of four neighbouring pixels an axis.

    Keys' cubic convolution, of which some weights are negative: results may leave the range of the pixels.

    Parameters
    ----------
    scale : float or sequence of float, optional
        New size divided by the old one, for each axis; above 0.
    size : sequence of int, optional
        New height and width, or length, in place of `scale`.
    coordinates : {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", \
"align_corners"}
        Where a new pixel lies among the old ones. Default "half_pixel": centres of pixels stay in place.
    sharpness : float, default=-0.75
        At least -1 and at most 0: ONNX's `cubic_coeff_a`.
    beyond : {"repeat", "leave"}, default="repeat"
        Whether the pixels at the border stand for those beyond it, or the others get their weight.

    Raises
    ------
    ArgumentError, DtypeError
        If neither or both of `scale` and `size` are given, or an argument is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import CubicResize
    >>> CubicResize(2)(np.array([1.0, 1.0, 3.0, 3.0]).reshape(1, 4, 1))[0, :, 0].round(2)
    array([1.  , 0.93, 0.79, 1.45, 2.55, 3.21, 3.07, 3.  ])
    """

    options = ("scale", "size", "coordinates", "sharpness", "beyond")
    may_grow = True

    def __init__(
        self, scale: Any = None, size: Any = None, coordinates: str = "half_pixel",
        sharpness: float = -0.75, beyond: str = "repeat",
    ) -> None:  # fmt: skip
        super().__init__(scale, size, "linear", coordinates)
        self.mode = "cubic"
        self.sharpness = -real("-sharpness", -sharpness, least=0.0, below=1.0 + 2.0**-20)
        self.beyond = _one_of("beyond", beyond, ("repeat", "leave"))

    def _matrix(self, old: int, new: int, scale: float) -> Floats:
        a, places = self.sharpness, self._places(old, new, scale)
        whole, columns = np.zeros((old, new)), np.arange(new)
        for step in range(-1, 3):
            near = np.floor(places).astype(np.int64) + step
            d = np.abs(near - places)
            inner, outer = ((a + 2) * d - (a + 3)) * d * d + 1, (((d - 5) * d + 8) * d - 4) * a
            weights = np.where(d <= 1, inner, np.where(d < 2, outer, 0))
            if self.beyond == "leave":
                weights = np.where((near < 0) | (near >= old), 0, weights)
            whole[np.clip(near, 0, old - 1), columns] += weights
        return whole if self.beyond == "repeat" else np.asarray(whole / whole.sum(axis=0))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = (np.asarray(v, np.float64)[None] for v in interval(low, high))
        if lows.ndim == 1:  # one range for all; sizes are not known
            raise ShapeError(f"{self!r} needs bounds for every element of a row")
        for axis, old, new, scale in self._axes(lows.shape[1:]):
            matrix = self._matrix(old, new, scale)
            up, down = np.maximum(matrix, 0), np.minimum(matrix, 0)
            lows, highs = (
                _times(lows, axis, up) + _times(highs, axis, down),
                _times(highs, axis, up) + _times(lows, axis, down),
            )
        return lows[0], highs[0]

    def reach(self, magnitude: SharedArray) -> SharedArray:
        for axis, old, new, scale in self._axes(tuple(magnitude.shape)[1:]):
            magnitude = _times(magnitude, axis, np.abs(self._matrix(old, new, scale)))
        return magnitude

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        off = np.broadcast_to(error, np.shape(magnitude))[None]
        unit = 2.0**-frac_bits
        size = np.asarray(magnitude, np.float64)[None]
        for axis, old, new, scale in self._axes(size.shape[1:]):
            matrix = np.abs(self._matrix(old, new, scale))
            # Weights are rounded to half a unit, products to the last place.
            off = _times(off, axis, matrix) + 4 * size.max() * unit / 2 + 2 * unit
            size = _times(size, axis, matrix)
        return np.asarray(off[0])


def _times(x: Any, axis: int, matrix: NDArray[Any]) -> Any:
    """Return the products of an axis with a public matrix."""
    ndim = len(x.shape)
    order = [k for k in range(ndim) if k != axis] + [axis]
    if not isinstance(x, SharedArray):
        matrix = matrix.astype(x.dtype)
    product = x.transpose(tuple(order)) @ matrix
    return product.transpose(tuple(int(k) for k in np.argsort(order)))
