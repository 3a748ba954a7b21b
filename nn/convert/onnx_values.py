"""The values of an ONNX graph, as the conversion represents them.

A value that depends on the graph's input is a function of it: the layers up to that value. Which of the
classes below it is says what its elements are: numbers, images, probabilities, labels, or sizes.
"""

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
from nn.layers.scale import Scale
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

# The widest row for which a matrix is made that only moves or scales elements.
_WIDEST = 2048

NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Rows:
    """An array of numbers, row by row: layers, and an affine map of their output.

    A row is ``core(x)[order] @ weights + bias``, reshaped to `shape`.

    Attributes
    ----------
    core : tuple of Layer
        Up to the last activation.
    width : int
        Elements of a row of the core's output.
    weights : float64 array of shape (width, elements), or None for the identity
        A vector of shape (width,) is a diagonal matrix.
    bias : float64 array of shape (elements,)
    shape : tuple of int
        Shape of one row, in row-major order; () for a single number.
    batch : int
        Number of rows that the graph was made for; -1 if the graph leaves it open.
    order : int array of shape (width,), or None
        Permutation of the core's output before the map; only if `weights` is None or a vector.
    """

    core: tuple[Layer, ...]
    width: int
    weights: Floats | None
    bias: Floats
    shape: tuple[int, ...]
    batch: int = -1
    order: NDArray[np.intp] | None = None

    def matrix(self) -> Floats:
        """Return the weights of the map, of shape (width, elements), `order` included."""
        if self.weights is not None and self.weights.ndim == 2:
            return self.weights
        if self.width > _WIDEST:
            raise ConversionError(f"needs a matrix of {self.width} by {self.width}")
        same = np.eye(self.width) if self.order is None else np.eye(self.width)[:, self.order]
        return same if self.weights is None else same * self.weights

    def then(self, weights: Floats, bias: Floats) -> Rows:
        """Return the value behind ``row @ weights + bias``."""
        if self.weights is not None and self.weights.ndim == 2:
            both = self.weights @ weights
        else:
            both = weights if self.weights is None else self.weights[:, None] * weights
            if self.order is not None:
                moved = np.empty_like(both)
                moved[self.order] = both
                both = moved
        return replace(
            self,
            weights=both,
            bias=self.bias @ weights + bias,
            shape=(weights.shape[1],),
            order=None,
        )

    def take(self, places: NDArray[np.intp], shape: tuple[int, ...]) -> Rows:
        """Return the value whose element k of a row is element ``places[k]`` of this one."""
        if self.weights is not None and self.weights.ndim == 2:
            return replace(
                self, weights=self.weights[:, places], bias=self.bias[places], shape=shape
            )
        order = places if self.order is None else self.order[places]
        weights = None if self.weights is None else self.weights[places]
        return replace(self, weights=weights, bias=self.bias[places], shape=shape, order=order)

    def scaled(self, factor: Any, summand: Any) -> Rows:
        """Return x * factor + summand, by elements of a row."""
        size = (prod(self.shape),)
        factor, summand = (
            np.broadcast_to(np.asarray(v, np.float64), size) for v in (factor, summand)
        )
        bias = self.bias * factor + summand
        if (factor == 1).all():
            return replace(self, bias=bias)
        if self.weights is not None:
            factor = self.weights * factor
        return replace(self, weights=factor, bias=bias)

    def layers(self) -> list[Layer]:
        """Return the core, and the map as a Dense layer if it is not the identity."""
        if self.weights is None and self.order is None and not self.bias.any():
            return list(self.core)
        if self.weights is not None and self.weights.ndim == 1 and self.order is None:
            return [*self.core, Scale(self.weights, self.bias)]
        return [*self.core, dense(self.matrix(), self.bias)]

    def activate(self, layer: Layer) -> Rows:
        """Return the value behind an activation, which works element by element."""
        if self.weights is None and not self.bias.any():
            return replace(self, core=(*self.core, layer))
        size = prod(self.shape)
        return Rows((*self.layers(), layer), size, None, np.zeros(size), self.shape, self.batch)


@dataclass(frozen=True, eq=False)
class Images:
    """Images: layers, an affine map of each channel of their output, and zeros around the result.

    Attributes
    ----------
    core : tuple of Layer
        Its output rows have the shape (height, width, channels).
    shape : (int, int, int)
        Channels, height and width, in the order of ONNX.
    batch : int
        As for Rows.
    factor, summand : float64 arrays of shape (channels,), or None
        The map ``x * factor + summand`` behind the core.
    pads : ((int, int), (int, int))
        Zeros ((above, below), (left, right)) around the result, which a Conv takes in.
    source : Rows, or None
        The rows that were reshaped to these images, as long as no layer has followed.
    """

    core: tuple[Layer, ...]
    shape: tuple[int, ...]
    batch: int = -1
    factor: Floats | None = None
    summand: Floats | None = None
    pads: Pads = NO_PADS
    source: Rows | None = None

    def affine(self, factor: Any, summand: Any) -> Images:
        """Return x * factor + summand, by channels."""
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
        """Return the images; raise ConversionError if there are zeros around them."""
        if self.pads != NO_PADS:
            raise ConversionError("cannot follow a Pad, which needs a Conv behind it")
        return self

    def mapped(self) -> Images:
        """Return the same images, with the map of channels as a layer of the core."""
        self.unpadded()
        if self.factor is None or self.summand is None:
            return self
        layer = Convolution(np.diag(self.factor)[None, None], self.summand)
        return replace(self, core=(*self.core, layer), factor=None, summand=None, source=None)

    def follow(self, *layers: Layer, shape: Sequence[int]) -> Images:
        """Return the images behind `layers`, of the given (channels, height, width)."""
        core = (*self.mapped().core, *layers)
        return replace(self.mapped(), core=core, shape=tuple(shape), source=None)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Class probabilities of every row, made from scores.

    Attributes
    ----------
    rows : Rows
        The scores.
    link : str or None
        See :mod:`nn.losses.links`; None if the values are the scores themselves. "sigmoids" are
        sigmoids of the scores that do not sum to 1: no model of Sotto has them.
    classes : array of shape (classes,), or None
        Labels of the columns, if the graph names them.
    log : bool
        Whether the values are natural logarithms of the probabilities.
    """

    rows: Rows
    link: str | None
    classes: NDArray[Any] | None = None
    log: bool = False


@dataclass(frozen=True, eq=False)
class Labels:
    """The class with the largest score, for every row.

    Attributes
    ----------
    rows : Rows
        The scores.
    classes : array of shape (classes,), or None
        The labels; None for indices from 0 on.
    """

    rows: Rows
    classes: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Sizes:
    """Sizes of an array, as a Shape node returns them, with the number of rows among them.

    The number of rows differs from call to call, so only a Reshape may use it.

    Attributes
    ----------
    array : int array
        The sizes, for the number of rows that the graph was made for; -1 if the graph leaves it
        open.
    of_rows : bool array of the same shape
        Which elements are the number of rows, or were computed from it.
    """

    array: NDArray[Any]
    of_rows: NDArray[Any]


Value = Rows | Images | Probabilities | Labels | Sizes | NDArray[Any]


def as_rows(value: Any, ndim: int | None = None) -> Rows:
    """Return a value as Rows, with `ndim` axes a row if given; raise ConversionError otherwise."""
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
    """Return images as Rows of the same shape (channels, height, width)."""
    channels, height, width = images.shape
    size = channels * height * width
    if images.source is not None:
        if images.factor is None or images.summand is None:
            return images.source
        pixels = height * width
        return images.source.scaled(
            np.repeat(images.factor, pixels), np.repeat(images.summand, pixels)
        )
    images = images.mapped()
    places = np.arange(size).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
    order = None if np.array_equal(places, np.arange(size)) else places
    core = (*images.core, Flatten())
    return Rows(core, size, None, np.zeros(size), images.shape, images.batch, order)


def as_images(value: Any) -> Images:
    """Return a value as Images; raise ConversionError otherwise."""
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
        raise ConversionError("needs images whose axes were not reordered before")
    return Images(tuple(core), rows.shape, rows.batch, source=rows)


def constant(value: Any) -> Floats:
    """Return a value that does not depend on the input in float64; raise ConversionError otherwise."""
    if isinstance(value, Sizes):
        raise ConversionError(
            "must not compute with the number of rows, which differs from call to call"
        )
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConversionError("needs a constant of numbers for its other operand")
    return value.astype(np.float64)


def of_one_row(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Return a constant operand as a vector with an entry for every element of a row of `shape`.

    Raises ConversionError if the constant differs between rows.
    """
    if values.ndim > len(shape):
        if values.ndim > len(shape) + 1 or values.shape[0] != 1:
            raise ConversionError(
                f"needs a constant that is the same for all rows, got shape {values.shape} for "
                f"rows of shape {shape}"
            )
        values = values[0]
    return np.broadcast_to(values, shape).reshape(-1)
