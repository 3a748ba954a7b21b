"""The graph that a conversion builds: layers are added, axes arranged, operands aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_values import ROWS, Labels, Scores, Shape, Tensor, cuts_of, places_of
from nn.convert.graph_whole import Whole
from nn.layers import LAYERS, Layer
from nn.layers.graph import Graph
from nn.layers.scale import Constant, Scale, Shift
from nn.layers.shaping import Reshape, Transpose
from ring.errors import SottoError

__all__ = ["FAR", "Builder"]

# What stands for a mask: the softmax of scores that are not as large as this is 0 there, also if they are
# scaled down somewhat.
FAR = 2.0**13


@dataclass
class Builder:
    """A graph that is being built.

    Attributes
    ----------
    counts : (int, int)
        Numbers of rows for which shape arithmetic is done; the first is that which the graph was
        made for, if it is not open.
    nodes : list of (Layer, tuple of int)
    sizes : list of tuple of int
        Shape of a row of every value.
    far : set of int
        Values with elements that stand for constants too large for any format, as masks have them.
    infinite : bool
        Whether some of them are infinite.
    exact : bool
        Whether such constants are taken as they are.
    whole : Whole
        Which of the graph's values are whole numbers.
    """

    counts: tuple[int, int]
    nodes: list[tuple[Layer, tuple[int, ...]]] = field(default_factory=list)
    sizes: list[Shape] = field(default_factory=list)
    far: set[int] = field(default_factory=set)
    infinite: bool = False
    exact: bool = False
    whole: Whole = field(default_factory=Whole)
    _arranged: dict[Any, int] = field(default_factory=dict)

    # Adding layers.

    def add(self, layer: Layer, *values: int) -> int:
        """Add a layer that takes the given values; return the number of its output."""
        shapes = tuple(self.sizes[k] for k in values)
        try:
            given: Any = shapes if layer.joins else shapes[0]
            shape = layer.output_shape(given)
        except SottoError as error:
            raise ConversionError(str(error)) from None
        self.nodes.append((layer, values))
        self.sizes.append(tuple(int(n) for n in shape))
        return len(self.nodes)

    def tensor(self, x: Any) -> Tensor:
        """Return a value that depends on the graph's inputs as a Tensor, or refuse it."""
        if isinstance(x, Scores):
            name = "LogSoftmax" if x.log else "Softmax"
            if name not in LAYERS:
                raise ConversionError(f"needs numbers, got the probabilities of a {name}")
            return self.along(LAYERS[name](), x.scores, x.axis)
        if not isinstance(x, Tensor):
            what = (
                "labels" if isinstance(x, Labels) else "a constant" if x is not None else "nothing"
            )
            raise ConversionError(f"needs a value that depends on the graph's inputs, got {what}")
        return x

    def elementwise(self, layer: Layer, x: Tensor) -> Tensor:
        """Apply a layer to each element."""
        return replace(x, value=self.add(layer, x.value))

    def along(self, layer: Layer, x: Tensor, axis: int) -> Tensor:
        """Apply a layer that works along the last axis of rows and keeps their shape."""
        last = x.axes[x.number(axis)]
        if ROWS in last:
            raise ConversionError("needs an axis without the rows")
        others = [a for a in range(len(x.sizes)) if a not in last]
        whole = prod(x.sizes[a] for a in last)
        value = self.arranged(x, [*((a,) for a in others), tuple(last)])
        made = self.add(layer, value)
        if self.sizes[made] != (*(x.sizes[a] for a in others), whole):
            raise ConversionError(f"{layer!r} changes the shape of rows")
        sizes = tuple(x.sizes[a] for a in (*others, *last))
        places = {a: k for k, a in enumerate((*others, *last))} | {ROWS: ROWS}
        axes = tuple(tuple(places[a] for a in group) for group in x.axes)
        return Tensor(self.reshaped(made, sizes), sizes, axes)

    # Axes.

    def arranged(self, x: Tensor, groups: Sequence[tuple[int, ...]]) -> int:
        """Return the number of the value with the axes of its rows in another order, joined by groups.

        Axes of size 1 may be left out of `groups`; empty groups become axes of size 1.
        """
        order = [a for group in groups for a in group]
        left = [a for a in range(len(x.sizes)) if a not in order]
        if any(x.sizes[a] != 1 for a in left) or len(set(order)) < len(order) or ROWS in order:
            raise ConversionError("moves elements between rows, which are computed separately")
        order = [*order, *left]
        value = x.value
        if [a for a in order if x.sizes[a] > 1] != [a for a in sorted(order) if x.sizes[a] > 1]:
            key = (value, tuple(order))
            if key not in self._arranged:
                self._arranged[key] = self.add(Transpose(*order), value)
            value = self._arranged[key]
        return self.reshaped(value, tuple(prod(x.sizes[a] for a in group) for group in groups))

    def reshaped(self, value: int, shape: Shape) -> int:
        """Return the number of a value with rows of another shape."""
        if self.sizes[value] == shape:
            return value
        key = (value, shape, "reshape")
        if key not in self._arranged:
            # From where the elements came: a reshape of a reshape is one.
            layer, (source, *_) = self.nodes[value - 1] if value else (None, (0,))
            start = source if isinstance(layer, Reshape) else value
            self._arranged[key] = (
                start if self.sizes[start] == shape else self.add(Reshape(*shape), start)
            )
        return self._arranged[key]

    def images(self, x: Tensor) -> int:
        """Return the number of the value as images with channels last."""
        if len(x.axes) not in (3, 4) or x.axes[0] != (ROWS,):
            raise ConversionError(
                "needs images of shape (rows, channels, height, width), or without the height, "
                f"got {len(x.axes)} axes"
            )
        return self.arranged(x, [*x.axes[2:], x.axes[1]])

    def from_images(self, value: int) -> Tensor:
        """Return images with channels last as a Tensor."""
        sizes = self.sizes[value]
        last = len(sizes) - 1
        return Tensor(value, sizes, ((ROWS,), (last,), *((k,) for k in range(last))))

    def rows(self, x: Tensor) -> int:
        """Return the number of the value whose rows have ONNX's axes behind that of the rows."""
        if not x.axes or x.axes[0] != (ROWS,):
            raise ConversionError("needs rows along its first axis")
        return self.arranged(x, list(x.axes[1:]))

    def from_rows(self, value: int) -> Tensor:
        """Return a value whose rows have ONNX's axes behind that of the rows as a Tensor."""
        sizes = self.sizes[value]
        return Tensor(value, sizes, ((ROWS,), *((k,) for k in range(len(sizes)))))

    @staticmethod
    def slim(x: Tensor) -> Tensor:
        """Return a tensor whose axes leave out axes of rows of size 1."""
        axes = tuple(tuple(a for a in g if a == ROWS or x.sizes[a] > 1) for g in x.axes)
        return replace(x, axes=axes)

    def one_axis(self, x: Tensor, axis: int) -> Tensor:
        """Return a tensor one of whose axes is one axis of its rows."""
        group = x.axes[axis]
        if len(group) == 1 and group != (ROWS,):
            return x
        others = [a for a in range(len(x.sizes)) if a not in group]
        value = self.arranged(x, [*((a,) for a in others), group])
        places = {a: k for k, a in enumerate(others)} | {ROWS: ROWS}
        axes = tuple(
            (len(others),) if k == axis else tuple(places[a] for a in g)
            for k, g in enumerate(x.axes)
        )
        return Tensor(value, self.sizes[value], axes)

    def split(self, x: Tensor, factors: Mapping[int, Sequence[int]]) -> Tensor:
        """Split axes of a tensor's rows into axes of the given sizes."""
        if not any(len(parts) > 1 for parts in factors.values()):
            return x
        sizes: list[int] = []
        places: dict[int, tuple[int, ...]] = {ROWS: (ROWS,)}
        for a, size in enumerate(x.sizes):
            parts = factors.get(a, (size,))
            places[a] = tuple(range(len(sizes), len(sizes) + len(parts)))
            sizes += parts
        axes = tuple(tuple(k for a in group for k in places[a]) for group in x.axes)
        return Tensor(self.reshaped(x.value, tuple(sizes)), tuple(sizes), axes)

    def aligned(self, *tensors: Tensor) -> tuple[list[int], Tensor]:
        """Return values whose rows broadcast, and a Tensor that says what their sum's axes are.

        The tensors broadcast as ONNX's operators do.
        """
        rank = max(len(x.axes) for x in tensors)
        widened = [
            self.slim(replace(x, axes=((),) * (rank - len(x.axes)) + x.axes)) for x in tensors
        ]
        for axis in range(rank):
            widened = self.refined(widened, axis)
        # Every axis of the result as (ONNX's axis, place among its parts), in the order of the first
        # tensor that has all, or in ONNX's order.
        parts = {
            (axis, k): widest.sizes[a]
            for axis in range(rank)
            for widest in [max(widened, key=lambda x: self._parts(x, axis))]
            for k, a in enumerate(a for a in widest.axes[axis] if a != ROWS)
        }
        order = list(parts)
        placed = [places_of(x) for x in widened]
        for place in placed:
            if set(place) == set(parts):
                order = sorted(parts, key=lambda part: place[part])
                break
        values = []
        for x, place in zip(widened, placed, strict=True):
            if any(x.sizes[a] != parts.get(part) for part, a in place.items()):
                raise ConversionError("needs operands that broadcast")
            values.append(self.arranged(x, [(place[p],) if p in place else () for p in order]))
        number = {part: k for k, part in enumerate(order)}
        rows = next(k for k, group in enumerate(widened[0].axes) if ROWS in group)
        axes = []
        for axis in range(rank):
            group = [number[axis, k] for k in range(sum(part[0] == axis for part in parts))]
            if axis == rows:
                group.insert(widened[0].axes[axis].index(ROWS), ROWS)
            axes.append(tuple(group))
        return values, Tensor(values[0], tuple(parts[p] for p in order), tuple(axes))

    @staticmethod
    def _parts(x: Tensor, axis: int) -> tuple[int, int]:
        return x.size(axis), len(x.axes[axis])

    def refined(self, tensors: list[Tensor], axis: int) -> list[Tensor]:
        """Split one of ONNX's axes alike in all tensors that do not broadcast along it."""
        if len({ROWS in x.axes[axis] for x in tensors}) > 1:
            raise ConversionError("needs operands whose rows are along the same axis")
        # The places where an axis is cut, counted from its end: (rows behind it, product behind it).
        cuts: set[tuple[bool, int]] = set()
        for x in tensors:
            if x.size(axis) > 1 or ROWS in x.axes[axis]:
                cuts |= {cut for cut, _ in cuts_of(x, axis)}
        found = []
        for x in tensors:
            factors: dict[int, Sequence[int]] = {}
            if x.size(axis) > 1:
                for (rows, behind), a in cuts_of(x, axis):
                    if a == ROWS:
                        continue
                    size = x.sizes[a]
                    inner = sorted(p for r, p in cuts if r == rows and behind < p < behind * size)
                    marks = [behind, *inner, behind * size]
                    if any(high % low for low, high in pairwise(marks)):
                        raise ConversionError("needs operands that broadcast")
                    factors[a] = [high // low for low, high in pairwise(marks)][::-1]
            found.append(self.split(x, factors))
        return found

    # Constants.

    def near(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return constants with those that no format holds as masks of softmaxes, unless `exact`."""
        self.infinite |= bool(np.isinf(values).any())
        if not self.exact:
            return np.asarray(np.clip(values, -FAR, FAR))
        if not np.isfinite(values).all():
            raise ConversionError("needs finite constants where anything but a softmax takes them")
        return values

    def shifted(self, x: Tensor, values: NDArray[np.float64], factor: float | None) -> Tensor:
        """Return x * factor + values, which may be masks."""
        near = self.near(values)
        made = self.scaled(x, factor, near)
        if not np.array_equal(near, values):
            self.far.add(made.value)
        return made

    def scaled(self, x: Tensor, factor: Any, summand: Any) -> Tensor:
        """Return x * factor + summand, for constants that broadcast as ONNX's operators do.

        `factor` or `summand` may be None, for 1 and 0.
        """
        given = [np.asarray(v, np.float64) for v in (factor, summand) if v is not None]
        shape = np.broadcast_shapes(*(v.shape for v in given))
        rank = max(len(x.axes), len(shape))
        x = replace(x, axes=((),) * (rank - len(x.axes)) + x.axes)
        shape = (1,) * (rank - len(shape)) + shape
        sizes, axes = list(x.sizes), list(x.axes)
        # The constant's axes: one for each part of an axis, of size 1 where it does not vary.
        parts: list[int] = []
        of_parts: list[int] = []
        for axis, (size, group) in enumerate(zip(shape, x.axes, strict=True)):
            if size > 1 and ROWS in group:
                raise ConversionError("needs a constant that is the same for all rows")
            if size > 1 and x.size(axis) == 1:
                sizes.append(1)
                axes[axis] = group = (len(sizes) - 1,)
                of_parts.append(size)
            elif size in (1, x.size(axis)):
                of_parts += [sizes[a] if size > 1 else 1 for a in group if a != ROWS]
            else:
                raise ConversionError(
                    f"needs a constant that broadcasts, got size {size} for {x.size(axis)}"
                )
            parts += [a for a in group if a != ROWS]
        order = [parts.index(a) if a in parts else None for a in range(len(sizes))]

        def placed(v: Any) -> NDArray[np.float64]:
            whole = np.broadcast_to(np.asarray(v, np.float64), shape).reshape(of_parts)
            moved = whole.transpose([k for k in order if k is not None])
            for a, k in enumerate(order):
                if k is None:
                    moved = np.expand_dims(moved, a)
            for a in range(moved.ndim):  # where it does not vary, one entry does
                if (moved == moved.take([0], a)).all() and (sizes[a] > 1 or moved.shape[a] == 1):
                    moved = moved.take([0], a)
            return np.array(moved)

        value = self.reshaped(x.value, tuple(sizes))
        if factor is None:
            layer: Layer = Shift(_without_leading(placed(summand)))
        else:
            pair = [placed(factor), placed(0.0 if summand is None else summand)]
            pair = [np.array(v) for v in np.broadcast_arrays(*pair)]
            cut = min(_leading(v) for v in pair)
            layer = Scale(*(v.reshape(v.shape[cut:]) for v in pair))
        made = self.add(layer, value)
        return Tensor(made, self.sizes[made], tuple(axes))

    def constant(self, values: NDArray[Any], rows: int) -> Tensor:
        """Return a constant as a Tensor whose axis `rows`, of size 1, is that of the rows."""
        if values.ndim <= rows or values.shape[rows] != 1:
            raise ConversionError("needs a constant that is the same for all rows")
        row = np.array(values.take(0, rows), np.float64)
        made = self.add(Constant(row), 0)
        axes: list[tuple[int, ...]] = [(k,) for k in range(row.ndim)]
        axes.insert(rows, (ROWS,))
        return Tensor(made, self.sizes[made], tuple(axes))

    # The end.

    def places(self, value: int) -> dict[int, int]:
        """Return the numbers, in the graph of one value, of the values that it depends on."""
        needed, left = set(), [value]
        while left:
            k = left.pop()
            if k and k not in needed:
                needed.add(k)
                left += self.nodes[k - 1][1]
        return {0: 0} | {k: number for number, k in enumerate(sorted(needed), start=1)}

    def graph(self, value: int) -> Graph:
        """Return the graph of one value: the nodes that it depends on."""
        places = self.places(value)
        nodes = [self.nodes[k - 1] for k in places if k]
        return Graph([(layer, tuple(places[k] for k in taken)) for layer, taken in nodes])


def _leading(v: NDArray[Any]) -> int:
    return next((k for k, n in enumerate(v.shape) if n != 1), v.ndim)


def _without_leading(v: NDArray[Any]) -> NDArray[Any]:
    return v.reshape(v.shape[_leading(v) :])
