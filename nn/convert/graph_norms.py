"""Softmax and norms that a graph spells out, as the one layer that computes them.

Exporters without an operator for them write the exponentials divided by their sum, with the largest
value subtracted before; and differences from the mean, multiplied by one over the root of the variance,
as the mean of squares of these or as the mean of squares less the square of the mean. Along which axes,
and by how many nodes sizes are kept, moved and repeated, differs from exporter to exporter: it is the
same here if every element is divided by what its own group gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.graph_nodes import Groups, Nodes, Read, close
from nn.layers import Layer
from nn.layers.clipping import Clip
from nn.layers.functions import Exp, Log, Pow, Reciprocal, Sqrt
from nn.layers.joining import Multiply, Subtract
from nn.layers.reducing import ReduceSum
from nn.layers.relu import ReLU
from nn.layers.scale import Scale
from nn.layers.softmax import LogSoftmax, Softmax
from nn.layers.standardising import LayerNorm, RMSNorm

__all__ = ["fuse_log", "fuse_log_softmax", "fuse_norm", "fuse_shifted_norm", "fuse_softmax"]

Places = NDArray[np.intp]
# The largest least value of a norm that counts as added in squares: about the unit of the default format.
_LEAST = 1e-5
# Stands for no least value: that of a norm must be above 0.
_NONE = 1e-24


def _placed(nodes: Nodes, read: Read, shape: tuple[int, ...]) -> Places | None:
    """Return places of a value that is broadcast to a shape."""
    try:
        return np.broadcast_to(read.places, shape)
    except ValueError:
        return None


def _limits(nodes: Nodes, k: float) -> tuple[Read, float]:
    """Return what a value that is never negative is read of, and the limit below that it has."""
    read, least = nodes.read(k), 0.0
    while True:
        layer, taken = nodes.kind(read.value)
        low = layer.low if isinstance(layer, Clip) and layer.high is None else None
        low = 0.0 if isinstance(layer, ReLU) else low
        if low is None or not 0 <= low <= _LEAST:
            return read, least
        inner = nodes.read(taken[0])
        if (inner.factor <= 0).any() or (inner.summand < 0).any():
            return read, least
        least = max(least, low)
        factor, summand = (_at(v, read.places) for v in (inner.factor, inner.summand))
        places = inner.places.reshape(-1)[read.places]
        read = Read(inner.value, places, read.factor * factor, read.summand + read.factor * summand)


def _at(values: NDArray[np.float64], places: Places) -> NDArray[np.float64]:
    return values.reshape(-1)[places] if values.size > 1 else values


def _one(values: NDArray[np.float64]) -> float | None:
    """Return the number that values are, if they are equal."""
    first = float(values.reshape(-1)[0])
    return first if close(values, first) else None


# Softmax.


def _powers(nodes: Nodes, k: float) -> tuple[Groups, Read] | None:
    """Return the groups of x if a value is elements of sums of e^x, and these elements."""
    read, least = _limits(nodes, k)
    layer, _ = nodes.kind(read.value)
    groups = nodes.groups(read.value) if isinstance(layer, ReduceSum) else None
    exp, taken = nodes.kind(0 if groups is None else groups.source)
    if groups is None or not isinstance(exp, Exp) or not close(read.factor, 1):
        return None
    groups = nodes.within(groups, *nodes.moved(taken[0]))
    # A least value is nothing beside the sum if the largest power in it is 1.
    if read.summand.any() or least:
        most = float(np.max(read.summand))
        if np.min(read.summand) < 0 or most > _LEAST or _unshifted(nodes, groups) == groups.source:
            return None
    return groups, read


def _unshifted(nodes: Nodes, groups: Groups) -> float:
    """Return the value from which something is subtracted that is one number in each group."""
    layer, taken = nodes.kind(groups.source)
    if type(layer) is not Subtract or len(taken) != 2:
        return groups.source
    x, shift = taken
    shape = nodes.shapes[groups.source]
    read = nodes.read(shift)
    places = _placed(nodes, read, shape)
    if nodes.shapes[x] != shape or places is None:
        return groups.source
    _, firsts = np.unique(groups.of, return_index=True)
    for values in (places, read.factor, read.summand):
        whole = np.broadcast_to(values, shape).reshape(-1)
        if not np.array_equal(whole, whole[firsts][groups.of]):
            return groups.source
    return x


def fuse_softmax(nodes: Nodes, number: float) -> bool:
    """Put a Softmax where a node multiplies powers by one over their sum; return whether."""
    for e, inverse in (nodes.nodes[number][1], nodes.nodes[number][1][::-1]):
        exp, layers = nodes.moved(e)
        one, taken = nodes.kind(nodes.below(inverse))
        if not isinstance(nodes.kind(exp)[0], Exp) or not isinstance(one, Reciprocal):
            continue
        outer, found = nodes.read(inverse), _powers(nodes, taken[0])
        if found is None or not outer.plain:
            continue
        groups, inner = found
        source, ahead = nodes.moved(nodes.kind(exp)[1][0])
        places = _placed(nodes, outer, nodes.shapes[number])
        if source != groups.source or nodes.shapes[e] != nodes.shapes[number] or places is None:
            continue
        behind = [*ahead, *layers]
        if _own(nodes, groups, behind, inner.places.reshape(-1)[places]):
            _put(nodes, number, groups, Softmax(), behind, _unshifted(nodes, groups))
            return True
    return False


def fuse_log_softmax(nodes: Nodes, number: float) -> bool:
    """Put a LogSoftmax where a node subtracts the logarithm of the sum of powers; return whether."""
    x, subtracted = nodes.nodes[number][1]
    log, taken = nodes.kind(nodes.below(subtracted))
    if not isinstance(log, Log) or nodes.shapes[x] != nodes.shapes[number]:
        return False
    outer, found = nodes.read(subtracted), _powers(nodes, taken[0])
    if found is None or not outer.plain:
        return False
    groups, inner = found
    source, behind = nodes.moved(x)
    places = _placed(nodes, outer, nodes.shapes[number])
    if source != groups.source or places is None:
        return False
    if not _own(nodes, groups, behind, inner.places.reshape(-1)[places]):
        return False
    _put(nodes, number, groups, LogSoftmax(), behind, _unshifted(nodes, groups))
    return True


def fuse_log(nodes: Nodes, number: float) -> bool:
    """Put a LogSoftmax where a node takes the logarithm of a softmax; return whether."""
    source, layers = nodes.moved(nodes.nodes[number][1][0])
    layer, taken = nodes.kind(source)
    if not isinstance(layer, Softmax) or nodes.shapes[source][layer.axis] < 2:
        return False
    nodes.put(number, [LogSoftmax(layer.axis), *layers], taken[0])
    return True


def _own(nodes: Nodes, groups: Groups, behind: list[Layer], places: Places) -> bool:
    """Return whether each element, moved by layers, has its own group's place."""
    shape = nodes.shapes[groups.source]
    of: Any = groups.of.reshape(shape)[None]
    for layer in behind:
        of = layer(of)
    return np.array_equal(of[0], places)


def _put(
    nodes: Nodes, number: float, groups: Groups, layer: Layer, behind: list[Layer],
    source: float | None = None, *more: Layer,
) -> None:  # fmt: skip
    """Put a layer along groups, then layers that move its elements, in the place of a node."""
    source = groups.source if source is None else source
    back = nodes.back(groups.source, groups.ahead)
    nodes.put(number, [*groups.ahead, layer, *back, *behind, *more], source)


# Norms.


@dataclass(frozen=True)
class _Root:
    """A value as ``gain / sqrt(factor * elements of another one + least)``."""

    value: float
    places: Places
    gain: NDArray[np.float64]
    factor: float
    least: float


@dataclass(frozen=True)
class _Moment:
    """Which elements a mean of squares, or a variance (`centred`), is of; its factor and places."""

    groups: Groups
    factor: float
    places: Places
    centred: bool


def _root(nodes: Nodes, k: float) -> _Root | None:
    """Return a value as one over a root."""
    layer, taken = nodes.kind(nodes.below(k))
    whole = isinstance(layer, Reciprocal)
    if not whole and not (isinstance(layer, Pow) and layer.exponent == -0.5):
        return None
    outer = nodes.read(k)
    gain, places, least = outer.factor, outer.places, 0.0
    if outer.summand.any():
        return None
    if whole:
        middle, low = _limits(nodes, taken[0])
        layer, taken = nodes.kind(middle.value)
        factor, summand = _one(middle.factor), _one(middle.summand)
        if not isinstance(layer, Sqrt) and not (isinstance(layer, Pow) and layer.exponent == 0.5):
            return None
        if not factor or summand is None or factor < 0 or not 0 <= summand <= _LEAST * factor:
            return None
        gain, places = gain / factor, middle.places.reshape(-1)[places]
        least = max(low, summand / factor) ** 2
    inner, low = _limits(nodes, taken[0])
    factor, summand = _one(inner.factor), _one(inner.summand)
    if not factor or summand is None or factor < 0 or summand < 0:
        return None
    places = inner.places.reshape(-1)[places]
    return _Root(inner.value, places, gain, factor, least + summand + low * factor)


def _squares(nodes: Nodes, k: float) -> tuple[Groups, Read] | None:
    """Return the groups of x if a value is elements of means or sums of x * x, and these elements."""
    read = nodes.read(k)
    groups = nodes.groups(read.value)
    x = None if groups is None else nodes.square_of(groups.source)
    if groups is None or x is None or read.summand.any():
        return None
    return nodes.within(groups, *nodes.moved(x)), read


def _mean(nodes: Nodes, k: float) -> tuple[Groups, Places] | None:
    """Return the groups of x if a value is elements of means of x, and which."""
    read = nodes.read(k)
    groups = nodes.groups(read.value)
    if groups is None or read.summand.any() or not close(read.factor * groups.total, 1):
        return None
    return groups, read.places


def _alike(first: Places, second: Places) -> bool:
    """Return whether two assignments to groups are the same but for the groups' numbers."""
    _, firsts = np.unique(first, return_index=True)
    same = np.array_equal(second, second[firsts][first])
    return same and len(np.unique(second)) == len(firsts)


def _centred(nodes: Nodes, k: float) -> tuple[Groups, list[Layer]] | None:
    """Return the groups of x, and how its elements are moved, if a value is x minus its means."""
    layer, taken = nodes.kind(k)
    if type(layer) is not Subtract or len(taken) != 2 or nodes.shapes[taken[0]] != nodes.shapes[k]:
        return None
    found = _mean(nodes, taken[1])
    x, behind = nodes.moved(taken[0])
    if found is None or found[0].source != x:
        return None
    groups, places = found
    whole = np.broadcast_to(places, nodes.shapes[k])
    return (groups, behind) if _own(nodes, groups, behind, whole) else None


def _moments(nodes: Nodes, root: _Root) -> list[_Moment]:
    """Return what the element under a root is the mean of squares or the variance of."""
    found = []
    squares = _squares(nodes, root.value)
    if squares is not None:
        groups, read = squares
        factor, places = _one(read.factor), read.places.reshape(-1)[root.places]
        if factor is None or factor <= 0:
            return []
        found.append(_Moment(groups, factor * groups.total * root.factor, places, False))
        centred = _centred(nodes, groups.source)
        if centred is not None:
            outer, behind = centred
            own = nodes.grouped(outer.source, [*behind, *groups.ahead], groups.count, groups.total)
            if _alike(own.of, outer.of):
                found.append(_Moment(own, found[0].factor, places, True))
    layer, taken = nodes.kind(root.value)
    if type(layer) is Subtract and len(taken) == 2:
        squares, product = _squares(nodes, taken[0]), nodes.read(taken[1])
        of = nodes.square_of(product.value)
        mean = None if of is None else _mean(nodes, of)
        if squares is None or mean is None or squares[0].source != mean[0].source:
            return found
        groups, read = squares
        factor = _one(read.factor)
        shapes = nodes.shapes[taken[0]] == nodes.shapes[taken[1]]
        if not factor or not shapes or product.summand.any():
            return found
        whole = factor * groups.total
        if not close(product.factor, whole):
            return found
        # Both parts of an element must be of one group.
        of_mean = mean[1].reshape(-1)[product.places]
        _, firsts = np.unique(groups.of, return_index=True)
        same = np.array_equal(mean[0].of[firsts][read.places], of_mean)
        if same and _alike(groups.of, mean[0].of):
            places = read.places.reshape(-1)[root.places]
            found.append(_Moment(groups, whole * root.factor, places, True))
    return found


def _scale(gain: NDArray[np.float64], summand: Any, shape: tuple[int, ...]) -> list[Layer]:
    """Return the layer that scales and shifts, with one entry where it does not vary."""
    summand = np.asarray(summand, np.float64)
    if close(gain, 1) and not summand.any():
        return []
    pair = [np.broadcast_to(v, shape) for v in (gain, summand)]
    for axis in range(len(shape)):
        ones = [v.take([0], axis) for v in pair]
        if all((v == one).all() for v, one in zip(pair, ones, strict=True)):
            pair = ones
    while pair[0].ndim and pair[0].shape[0] == 1 and pair[0].ndim > 1:
        pair = [v[0] for v in pair]
    return [Scale(*(np.array(v) for v in pair))]


def fuse_norm(nodes: Nodes, number: float) -> bool:
    """Put a norm where a node multiplies by one over a root; return whether."""
    shape = nodes.shapes[number]
    for x, inverse in (nodes.nodes[number][1], nodes.nodes[number][1][::-1]):
        root = _root(nodes, inverse) if nodes.shapes[x] == shape else None
        if root is None:
            continue
        source, behind = nodes.moved(x)
        centred = _centred(nodes, source)
        for moment in _moments(nodes, root):
            groups, places = moment.groups, np.broadcast_to(moment.places, shape)
            outer = behind
            if moment.centred:
                if centred is None or groups.source != centred[0].source:
                    continue
                if not _alike(groups.of, centred[0].of):
                    continue
                outer = [*centred[1], *behind]
            elif groups.source != source or centred is not None:
                continue
            if not _own(nodes, groups, outer, places):
                continue
            _put_norm(nodes, number, root, moment, outer, 0.0)
            return True
    return False


def _put_norm(
    nodes: Nodes, number: float, root: _Root, moment: _Moment, behind: list[Layer], summand: Any
) -> None:
    count, factor = moment.groups.count, moment.factor
    one, epsilon = np.ones(count), max(root.least / factor, _NONE)
    layer = LayerNorm(one, np.zeros(count), epsilon) if moment.centred else RMSNorm(one, epsilon)
    scale = _scale(root.gain / math.sqrt(factor), summand, nodes.shapes[number])
    _put(nodes, number, moment.groups, layer, behind, None, *scale)


def fuse_shifted_norm(nodes: Nodes, number: float) -> bool:
    """Put a norm where ``x * w + (b - mean * w)`` is added up, as TensorFlow does; return whether."""
    shape = nodes.shapes[number]
    for scaled, rest in (nodes.nodes[number][1], nodes.nodes[number][1][::-1]):
        layer, taken = nodes.kind(scaled)
        product, parts = nodes.kind(nodes.below(rest))
        if type(layer) is not Multiply or type(product) is not Multiply or len(taken) != 2:
            continue
        read = nodes.read(rest)
        if nodes.shapes[scaled] != shape or not close(read.factor, -1) or len(parts) != 2:
            continue
        for x, weight in (taken, taken[::-1]):
            for mean, other in (parts, parts[::-1]):
                if _is_shifted(nodes, number, (x, weight), (mean, other), read):
                    return True
    return False


def _is_shifted(
    nodes: Nodes, number: float, left: tuple[float, ...], right: tuple[float, ...], rest: Read
) -> bool:
    shape = nodes.shapes[number]
    roots = [_root(nodes, k) for k in (left[1], right[1])]
    mean = _mean(nodes, right[0])
    one, two = roots
    if one is None or two is None or mean is None or nodes.shapes[left[0]] != shape:
        return False
    inner = nodes.shapes[rest.value]

    def at(values: NDArray[Any]) -> NDArray[Any]:
        """Return, at each element of the result, what the product with the mean has there."""
        whole = np.broadcast_to(values, inner).reshape(-1)[rest.places]
        return np.broadcast_to(whole, shape)

    if (one.value, one.factor, one.least) != (two.value, two.factor, two.least):
        return False
    if not np.array_equal(np.broadcast_to(one.places, shape), at(two.places)):
        return False
    if not close(np.broadcast_to(one.gain, shape), at(two.gain)):
        return False
    source, behind = nodes.moved(left[0])
    groups, places = mean
    if groups.source != source or not _own(nodes, groups, behind, at(places)):
        return False
    for moment in _moments(nodes, one):
        own = moment.groups
        if moment.centred and own.source == source and _alike(own.of, groups.of):
            if _own(nodes, own, behind, np.broadcast_to(moment.places, shape)):
                _put_norm(nodes, number, one, moment, behind, rest.summand)
                return True
    return False
