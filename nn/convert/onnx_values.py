"""What the walk through an ONNX graph knows of a value that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.layers import Layer
from nn.layers.convolution import Convolution
from nn.layers.folding import dense
from nn.layers.shaping import Flatten, Reshape, Transpose

__all__ = [
    "Images",
    "Labels",
    "Probabilities",
    "Rows",
    "Sizes",
    "Value",
    "as_images",
    "as_rows",
    "constant",
    "of_one_row",
]

Floats = NDArray[np.float64]
Pads = tuple[tuple[int, int], tuple[int, int]]

NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of numbers: the layers up to the last activation, and an affine map behind it.

    Attributes
    ----------
    core : tuple of Layer
    width : int
        Numbers in a row in front of the map.
    weights, bias : arrays, or None for the identity
    shape : tuple of int
        What a row's numbers are laid out in, row-major.
    batch : int
        How many rows the graph was made for; -1 if that is open.
    order : array of shape (width,), or None
        Which number in front of the map each one is that the weights are for; None: as they are.
        Only where weights is None.
    """

    core: tuple[Layer, ...]
    width: int
    weights: Floats | None
    bias: Floats
    shape: tuple[int, ...]
    batch: int = -1
    order: NDArray[np.intp] | None = None

    def matrix(self) -> Floats:
        """Return the map's weights."""
        if self.weights is not None:
            return self.weights
        return np.eye(self.width) if self.order is None else np.eye(self.width)[:, self.order]

    def then(self, weights: Floats, bias: Floats) -> Rows:
        """Follow with a map of whole rows."""
        if self.weights is not None:
            both = self.weights @ weights
        elif self.order is None:
            both = weights
        else:
            both = np.empty_like(weights)
            both[self.order] = weights
        return replace(
            self,
            weights=both,
            bias=self.bias @ weights + bias,
            shape=(weights.shape[1],),
            order=None,
        )

    def take(self, places: NDArray[np.intp], shape: tuple[int, ...]) -> Rows:
        """Put the numbers in another order."""
        if self.weights is not None:
            return replace(
                self, weights=self.weights[:, places], bias=self.bias[places], shape=shape
            )
        order = places if self.order is None else self.order[places]
        return replace(self, bias=self.bias[places], shape=shape, order=order)

    def scaled(self, factor: Any, summand: Any) -> Rows:
        """Follow with x * factor + summand, element by element."""
        size = (prod(self.shape),)
        factor, summand = (
            np.broadcast_to(np.asarray(v, np.float64), size) for v in (factor, summand)
        )
        bias = self.bias * factor + summand
        if (factor == 1).all():
            return replace(self, bias=bias)
        return replace(self, weights=self.matrix() * factor, bias=bias, order=None)

    def layers(self) -> list[Layer]:
        """Return all layers."""
        if self.weights is None and self.order is None and not self.bias.any():
            return list(self.core)
        return [*self.core, dense(self.matrix(), self.bias)]

    def activate(self, layer: Layer) -> Rows:
        """Follow with an activation, which works element by element."""
        if self.weights is None and not self.bias.any():
            return replace(self, core=(*self.core, layer))
        size = prod(self.shape)
        return Rows((*self.layers(), layer), size, None, np.zeros(size), self.shape, self.batch)


@dataclass(frozen=True, eq=False)
class Images:
    """Images: ONNX has their channels first, the layers have them last.

    Attributes
    ----------
    core : tuple of Layer
        Give images (height, width, channels).
    shape : (int, int, int)
        Channels, height and width.
    batch : int
        As for Rows.
    factor, summand : arrays of shape (channels,), or None
        A map of each channel behind the core.
    pads : ((int, int), (int, int))
        Zeros around that.
    source : Rows, or None
        The rows that these are another shape of, as long as no layer has followed.
    """

    core: tuple[Layer, ...]
    shape: tuple[int, ...]
    batch: int = -1
    factor: Floats | None = None
    summand: Floats | None = None
    pads: Pads = NO_PADS
    source: Rows | None = None

    def affine(self, factor: Any, summand: Any) -> Images:
        """Follow with x * factor + summand, for each channel."""
        channels = (self.shape[0],)
        factor, summand = (
            np.broadcast_to(np.asarray(v, np.float64), channels) for v in (factor, summand)
        )
        whole = self.unpadded()
        if whole.factor is not None and whole.summand is not None:
            return replace(
                whole, factor=whole.factor * factor, summand=whole.summand * factor + summand
            )
        if whole.core and isinstance(whole.core[-1], Convolution):
            weights, bias = whole.core[-1].parameters
            last = whole.core[-1].with_parameters([weights * factor, bias * factor + summand])
            return replace(whole, core=(*whole.core[:-1], last))
        return replace(whole, factor=factor, summand=summand)

    def unpadded(self) -> Images:
        """Return the images themselves, or refuse if there are zeros around them."""
        if self.pads != NO_PADS:
            raise ConversionError("needs a Conv behind a Pad")
        return self

    def plain(self) -> Images:
        """Return the same with the map of channels among the layers."""
        self.unpadded()
        if self.factor is None or self.summand is None:
            return self
        layer = Convolution(np.diag(self.factor)[None, None], self.summand)
        return replace(self, core=(*self.core, layer), factor=None, summand=None, source=None)

    def follow(self, *layers: Layer, shape: Sequence[int]) -> Images:
        """Follow with layers that give images of `shape`."""
        core = (*self.plain().core, *layers)
        return replace(self.plain(), core=core, shape=tuple(shape), source=None)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Rows of probabilities made from scores by a link; of scores themselves without one.

    `classes` are their columns' names, if the graph says them. `log` is for their logarithms. The
    link "sigmoids" is for sigmoids that nothing scales to sum to 1, which no model gives.
    """

    rows: Rows
    link: str | None
    classes: NDArray[Any] | None = None
    log: bool = False


@dataclass(frozen=True, eq=False)
class Labels:
    """The class with the largest score of each row; numbers from 0 unless `classes` names them."""

    rows: Rows
    classes: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Sizes:
    """Numbers that depend on how many rows there are, which only a Reshape may use.

    Attributes
    ----------
    array : array
        Worked out for the number of rows that the graph was made for, -1 if that is open.
    of_rows : bool array of the same shape
        Which of them are that number or depend on it.
    """

    array: NDArray[Any]
    of_rows: NDArray[Any]


Value = Rows | Images | Probabilities | Labels | Sizes | NDArray[Any]


def as_rows(value: Any, ndim: int | None = None) -> Rows:
    """Return rows of numbers, or refuse."""
    if isinstance(value, Images):
        value = _flat(value.unpadded())
    if not isinstance(value, Rows):
        raise ConversionError(
            f"needs rows of numbers, got {type(value).__name__.lower() if value is not None else 'nothing'}"
        )
    if ndim is not None and len(value.shape) != ndim:
        raise ConversionError(f"needs rows with {ndim} axes, got rows of shape {value.shape}")
    return value


def _flat(images: Images) -> Rows:
    channels, height, width = images.shape
    size = channels * height * width
    if images.source is not None:
        if images.factor is None or images.summand is None:
            return images.source
        pixels = height * width
        return images.source.scaled(
            np.repeat(images.factor, pixels), np.repeat(images.summand, pixels)
        )
    images = images.plain()
    places = np.arange(size).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
    order = None if np.array_equal(places, np.arange(size)) else places
    core = (*images.core, Flatten())
    return Rows(core, size, None, np.zeros(size), images.shape, images.batch, order)


def as_images(value: Any) -> Images:
    """Return images, or refuse."""
    if isinstance(value, Images):
        return value
    rows = as_rows(value)
    if len(rows.shape) != 3:
        raise ConversionError(
            f"needs images of shape (channels, height, width), got rows of shape {rows.shape}"
        )
    channels, height, width = rows.shape
    core, order = rows.layers(), None
    if rows.weights is None and not rows.bias.any():
        core, order = list(rows.core), rows.order
    count = np.arange(prod(rows.shape))
    places = (count if order is None else order).reshape(rows.shape).transpose(1, 2, 0)
    if np.array_equal(places.reshape(-1), count):
        core.append(Reshape(height, width, channels))
    elif order is None:
        core += [Reshape(channels, height, width), Transpose(1, 2, 0)]
    else:
        raise ConversionError("needs images whose axes were not mixed up before")
    return Images(tuple(core), rows.shape, rows.batch, source=rows)


def constant(value: Any) -> Floats:
    """Return a constant of numbers, or refuse."""
    if isinstance(value, Sizes):
        raise ConversionError(
            "must not compute with the number of rows, which is another in every call"
        )
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConversionError("needs a constant of numbers for its other operand")
    return value.astype(np.float64)


def of_one_row(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Broadcast a constant to the numbers of a row; all rows have the same."""
    if values.ndim > len(shape):
        if values.ndim > len(shape) + 1 or values.shape[0] != 1:
            raise ConversionError(
                f"needs a constant that is the same for all rows, got shape {values.shape} for "
                f"rows of shape {shape}"
            )
        values = values[0]
    return np.broadcast_to(values, shape).reshape(-1)
