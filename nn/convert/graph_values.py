"""What ONNX's operators take and give while a graph is built: tensors, scores, labels, constants."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_sizes import Sizes

__all__ = ["ROWS", "Labels", "Scores", "Shape", "Tensor", "constant", "cuts_of", "places_of"]

Shape = tuple[int, ...]

# Stands for the axis of the rows among the axes of a tensor.
ROWS = -1


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value that depends on the graph's inputs, with ONNX's axes.

    Attributes
    ----------
    value : int
        Number of the value in the graph that is built.
    sizes : tuple of int
        Shape of a row of that value.
    axes : tuple of tuple of int
        For each of ONNX's axes: the axes of such a row that it consists of, in row-major order; ROWS
        stands for the axis of the rows, and an empty tuple is an axis of size 1.
    """

    value: int
    sizes: Shape
    axes: tuple[tuple[int, ...], ...]

    def size(self, axis: int) -> int:
        """Return the size of one of ONNX's axes, without the factor of the rows."""
        return prod(self.sizes[a] for a in self.axes[axis] if a != ROWS)

    @property
    def shape(self) -> Shape:
        """The sizes of ONNX's axes but the first, which must be that of the rows."""
        if not self.axes or self.axes[0] != (ROWS,):
            raise ConversionError("needs rows along its first axis")
        return tuple(self.size(k) for k in range(1, len(self.axes)))

    def number(self, axis: int) -> int:
        """Return an axis counted from the front."""
        if not -len(self.axes) <= axis < len(self.axes):
            raise ConversionError(f"needs an axis of {len(self.axes)}, got axis={axis}")
        return axis % len(self.axes)


@dataclass(frozen=True, eq=False)
class Scores:
    """Class probabilities that are not computed on shares unless something takes them.

    Attributes
    ----------
    scores : Tensor
    axis : int
    log : bool
        Whether the values are natural logarithms of the probabilities.
    """

    scores: Tensor
    axis: int
    log: bool = False


@dataclass(frozen=True, eq=False)
class Labels:
    """The index of the first largest score of every row."""

    scores: Tensor


def constant(value: Any) -> NDArray[np.float64]:
    """Return a constant of numbers in float64.

    An array that is the same for every row, made by a node that repeats it, has one row.
    """
    if isinstance(value, Sizes) and value.same_for_all_rows() is not None:
        value = value.same_for_all_rows()
    if isinstance(value, Sizes):
        raise ConversionError(
            "must not compute with the number of rows, which differs from call to call"
        )
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConversionError("needs a constant of numbers for its other operand")
    return value.astype(np.float64)


def places_of(x: Tensor) -> dict[tuple[int, int], int]:
    """Return, for each part of ONNX's axes, the axis of a row that it is."""
    return {
        (axis, k): a
        for axis, group in enumerate(x.axes)
        for k, a in enumerate(a for a in group if a != ROWS)
    }


def cuts_of(x: Tensor, axis: int) -> list[tuple[tuple[bool, int], int]]:
    """Return for each part of one of ONNX's axes what is behind it: (rows, product), and the part."""
    found: list[tuple[tuple[bool, int], int]] = []
    rows, behind = False, 1
    for a in reversed(x.axes[axis]):
        found.append(((rows, behind), a))
        if a == ROWS:
            rows, behind = True, 1
        else:
            behind *= x.sizes[a]
    return found
