"""The nodes of a graph while they are changed, and what a value is of another one.

Values are read through the layers that only move or repeat elements and through factors and summands, so
that it is the same whether an exporter reduces the last axis or another, keeps its size, or repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.layers import Layer
from nn.layers.graph import Graph, output_shapes
from nn.layers.joining import Multiply
from nn.layers.reducing import ReduceMean, ReduceSum
from nn.layers.scale import Scale, Shift
from nn.layers.selecting import Take
from nn.layers.shaping import Reshape, Transpose

__all__ = ["Nodes", "Read", "close"]

# Relative differences of constants that float32 and its decimals explain.
_CLOSE = 2e-4
# The largest graph constant that is compared when equal nodes are joined.
_FEW = 1 << 16


def close(a: Any, b: Any) -> bool:
    """Return whether numbers are equal to the digits of a graph's constants."""
    return bool(np.allclose(a, b, rtol=_CLOSE, atol=0))


@dataclass(frozen=True)
class Read:
    """A value as ``factor * elements of another one + summand``.

    Attributes
    ----------
    value : float
        The other one.
    places : int array of the value's shape
        The place of each element in a row of the other one, in row-major order.
    factor, summand : arrays that broadcast with `places`
    """

    value: float
    places: NDArray[np.intp]
    factor: NDArray[np.float64]
    summand: NDArray[np.float64]

    @property
    def plain(self) -> bool:
        """Whether elements are moved or repeated only."""
        return close(self.factor, 1) and not self.summand.any()


class Nodes:
    """The nodes of a graph by number; new ones have numbers between those of old ones.

    Attributes
    ----------
    nodes : dict of float to (Layer, tuple of float)
    shapes : dict of float to tuple of int
        Of a row of every value.
    last : float
        The graph's output.
    ends : set of float
        Values that are not read as elements of others.
    """

    def __init__(self, graph: Graph, n_features: int, ends: Iterable[float] = ()) -> None:
        self.ends = set(ends)
        shapes = output_shapes(graph, (n_features,))
        self.nodes: dict[float, tuple[Layer, tuple[float, ...]]] = {}
        self.shapes: dict[float, tuple[int, ...]] = {0: (n_features,)}
        self._same: dict[Any, float] = {}
        self.last = self._joined(graph, shapes)

    def _joined(self, graph: Graph, shapes: list[Any]) -> float:
        """Take the graph's nodes, equal ones once; return the number of the last value."""
        places: list[float] = [0]
        for number, (node, shape) in enumerate(zip(graph.nodes, shapes, strict=True), start=1):
            layer, taken = node.layer, tuple(places[k] for k in node.inputs)
            key = _key(layer, taken)
            if key is not None and key in self._same:
                places.append(self._same[key])
                continue
            self.nodes[number], self.shapes[number] = (layer, taken), tuple(shape)
            places.append(number)
            if key is not None:
                self._same[key] = number
        return places[-1]

    def needed(self) -> set[float]:
        """Return the numbers of the nodes that the last value depends on."""
        found: set[float] = set()
        left = [self.last]
        while left:
            k = left.pop()
            if k and k not in found:
                found.add(k)
                left += self.nodes[k][1]
        return found

    def graph(self) -> Graph:
        """Return the graph of the nodes that the last value depends on."""
        numbers = sorted(self.needed())
        places = {0.0: 0} | {k: n for n, k in enumerate(numbers, start=1)}
        pairs = (self.nodes[k] for k in numbers)
        return Graph([(layer, tuple(places[k] for k in taken)) for layer, taken in pairs])

    def put(self, number: float, layers: Sequence[Layer], source: float) -> None:
        """Put layers, one behind the other from a value on, in the place of a node."""
        layers = tidied(layers, self.shapes[source])
        for k, layer in enumerate(layers, start=1):
            new = number if k == len(layers) else number - 1 + k / (len(layers) + 1)
            self.nodes[new] = layer, (source,)
            self.shapes[new], source = tuple(layer.output_shape(self.shapes[source])), new

    # What a value is.

    def kind(self, k: float) -> tuple[Layer | None, tuple[float, ...]]:
        """Return a value's layer and what it takes; (None, ()) for the graph's input."""
        return self.nodes[k] if k else (None, ())

    def affine(self, k: float) -> tuple[float, float, float]:
        """Return (source, factor, summand): the value is factor * source + summand, by one number."""
        factor, summand = 1.0, 0.0
        while True:
            layer, taken = self.kind(k)
            if k in self.ends:
                return k, factor, summand
            if isinstance(layer, (Reshape, Transpose)):
                # A moved factor of a value, of which there is another one that is only moved.
                inner, scale, shift = self.affine(taken[0])
                other = self._same.get(_key(layer, (inner,)))
                if inner == taken[0] or other is None:
                    return k, factor, summand
                k, summand, factor = other, summand + factor * shift, factor * scale
                continue
            if type(layer) not in (Scale, Shift):
                return k, factor, summand
            assert layer is not None
            values = [np.asarray(p, np.float64) for p in layer.parameters]
            if any(v.size != 1 for v in values) or self.shapes[taken[0]] != self.shapes[k]:
                return k, factor, summand
            *scales, shift = (float(v.reshape(())) for v in values)
            summand += factor * shift
            factor *= scales[0] if scales else 1.0
            (k,) = taken

    def below(self, k: float) -> float:
        """Return the value that :meth:`read` reads a value as elements of."""
        while (
            k not in self.ends
            and k
            and (_moves(self.nodes[k][0]) or type(self.nodes[k][0]) in (Scale, Shift))
        ):
            (k,) = self.nodes[k][1]
        return k

    def read(self, k: float, stop: float | None = None) -> Read:
        """Return a value as elements of another one, at the latest of `stop`."""
        places = np.arange(math.prod(self.shapes[k])).reshape(self.shapes[k])
        factor, summand = np.ones(()), np.zeros(())
        while k != stop:
            layer, taken = self.kind(k)
            if layer is None or k in self.ends:
                break
            own, shape = self.shapes[k], self.shapes[taken[0]]
            whole = np.arange(math.prod(shape)).reshape(shape)
            if _moves(layer):
                places = layer(whole[None])[0].reshape(-1)[places]
            elif type(layer) in (Scale, Shift):
                *scales, shift = (
                    float(p.reshape(())) if p.size == 1 else np.broadcast_to(p, own).reshape(-1)[places]
                    for p in (np.asarray(p, np.float64) for p in layer.parameters)
                )  # fmt: skip
                summand = np.asarray(summand + factor * shift)
                factor = np.asarray(factor * scales[0]) if scales else factor
                if shape != own:
                    places = np.broadcast_to(whole, own).reshape(-1)[places]
            else:
                break
            (k,) = taken
        return Read(k, places, factor, summand)

    def moved(self, k: float) -> tuple[float, list[Layer]]:
        """Return a value that has the same elements, and the layers that put them in other places."""
        layers: list[Layer] = []
        while k and isinstance(self.nodes[k][0], (Reshape, Transpose)):
            layer, taken = self.nodes[k]
            layers.insert(0, layer)
            (k,) = taken
        return k, layers

    def back(self, k: float, layers: Sequence[Layer]) -> list[Layer]:
        """Return what undoes layers that move the elements of a value."""
        undone: list[Layer] = []
        shape = self.shapes[k]
        for layer in layers:
            if isinstance(layer, Transpose):
                undone.insert(0, Transpose(*(int(a) for a in np.argsort(layer.axes))))
            else:
                undone.insert(0, Reshape(*shape))
            shape = tuple(layer.output_shape(shape))
        return undone

    def square_of(self, k: float) -> float | None:
        """Return the value whose square a value is."""
        layer, taken = self.kind(k)
        same = type(layer) is Multiply and len(taken) == 2 and taken[0] == taken[1]
        return taken[0] if same else None

    def groups(self, k: float) -> Groups | None:
        """Return what a sum or mean adds up of which value."""
        layer, taken = self.kind(k)
        if not isinstance(layer, (ReduceSum, ReduceMean)):
            return None
        (reduced,) = taken
        source, ahead = self.moved(reduced)
        shape = self.shapes[reduced]
        named = range(len(shape)) if layer.axes is None else layer.axes
        axes = sorted(a % len(shape) for a in named)
        others = [a for a in range(len(shape)) if a not in axes]
        count = math.prod(shape[a] for a in axes)
        if count < 2:
            return None
        lying = (*(shape[a] for a in others), count)
        ahead += [Transpose(*others, *axes), Reshape(*lying)]
        mean = isinstance(layer, ReduceMean)
        return self.grouped(source, ahead, count, 1.0 if mean else float(count))

    def grouped(self, source: float, ahead: list[Layer], count: int, total: float) -> Groups:
        """Return the groups of a value whose elements are put into rows of `count` by layers."""
        shape = self.shapes[source]
        places: Any = np.arange(math.prod(shape)).reshape(shape)[None]
        for layer in ahead:
            places = layer(places)
        found = np.empty(places.size, np.intp)
        found[places.reshape(-1, count)] = np.arange(places.size // count)[:, None]
        return Groups(source, ahead, found, count, total)

    def within(self, groups: Groups, source: float, layers: Sequence[Layer]) -> Groups:
        """Return the same groups of a value of which `groups.source` has the elements."""
        return self.grouped(source, [*layers, *groups.ahead], groups.count, groups.total)


@dataclass(frozen=True)
class Groups:
    """A reduction: which elements of a value are added up to which.

    Attributes
    ----------
    source : float
        The value.
    ahead : list of Layer
        Makes it rows whose last axis is reduced.
    of : int array
        For each element of the value, in row-major order, which sum it is added to.
    count : int
        How many elements are added up to one.
    total : float
        What the reduction of so many ones is divided by to be their mean.
    """

    source: float
    ahead: list[Layer]
    of: NDArray[np.intp]
    count: int
    total: float


def _key(layer: Layer, taken: tuple[float, ...]) -> Any:
    """Return what equal nodes have in common; None for one with many parameters."""
    parameters = [np.asarray(p) for p in layer.parameters]
    if sum(p.size for p in parameters) > _FEW:
        return None
    named = tuple(repr(getattr(layer, name)) for name in layer.options)
    return type(layer), named, tuple((p.shape, p.tobytes()) for p in parameters), taken


def tidied(layers: Sequence[Layer], shape: tuple[int, ...]) -> list[Layer]:
    """Return layers without moves that the next ones undo; one at least."""
    found: list[tuple[Layer, tuple[int, ...]]] = []  # each with the shape that it takes
    for layer in layers:
        while True:
            before = found[-1][0] if found else None
            if isinstance(before, Reshape) and isinstance(layer, Reshape):
                shape = found.pop()[1]
                layer = Reshape(*layer.output_shape(shape))
            elif isinstance(before, Transpose) and isinstance(layer, Transpose):
                shape = found.pop()[1]
                layer = Transpose(*(before.axes[a] for a in layer.axes))
            else:
                break
        new = tuple(layer.output_shape(shape))
        still = isinstance(layer, Transpose) and layer.axes == tuple(range(len(shape)))
        if not still and not (isinstance(layer, Reshape) and new == shape):
            found.append((layer, shape))
        shape = new
    return [layer for layer, _ in found] or [Reshape(*shape)]


def _moves(layer: Layer) -> bool:
    return isinstance(layer, (Reshape, Take, Transpose))
