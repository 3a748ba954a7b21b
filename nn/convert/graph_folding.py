"""Simplification of graphs: scales go into the layers beside them, ReLU behind max pooling."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from nn.layers import Layer
from nn.layers.convolution import Convolution
from nn.layers.dense import Dense
from nn.layers.graph import Graph, output_shapes
from nn.layers.pooling import MaxPool
from nn.layers.relu import ReLU
from nn.layers.scale import Scale, Shift
from nn.layers.shaping import Reshape, Transpose
from nn.layers.standardising import LayerNorm

__all__ = ["simplified"]

Nodes = list[tuple[Layer, tuple[int, ...]]]
Floats = NDArray[np.float64]


def simplified(graph: Graph, n_features: int) -> Graph:
    """Return a graph of the same function with fewer products, rounds and comparisons.

    Only a layer whose output has one use is changed: a Scale or Shift goes into the Dense or
    Convolution before or behind it, or the norm before it, a Dense into the Dense before it if that
    makes fewer products, and a ReLU behind the MaxPool that follows it.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.convert.graph_folding import simplified
    >>> from nn.layers import Dense, Graph, Scale
    >>> dense, scale = Dense(np.ones((3, 2)), np.zeros(2)), Scale(np.ones(2), np.ones(2))
    >>> simplified(Graph([(dense, 0), (scale, 1)]), 3)
    Graph([(Dense(3, 2), (0,))])
    """
    nodes: Nodes = [(node.layer, node.inputs) for node in graph.nodes]
    changed = True
    while changed:
        changed = False
        shapes = [(n_features,), *output_shapes(Graph(nodes), (n_features,))]
        uses = Counter(k for _, taken in nodes for k in taken)
        for number, (layer, taken) in enumerate(nodes, start=1):
            before = taken[0]
            if _changes_nothing(layer) and before and shapes[before] == shapes[number]:
                if number < len(nodes) or before == number - 1:
                    pairs = [(one, [before if k == number else k for k in of]) for one, of in nodes]
                    nodes = _without([(one, tuple(of)) for one, of in pairs], number)
                    changed = True
                    break
            if layer.joins or not before or uses[before] > 1:
                continue
            first, source = nodes[before - 1]
            if first.joins:
                continue
            if isinstance(first, (Scale, Shift)) and shapes[source[0]] != shapes[before]:
                continue  # it also repeats elements
            pair = _merged(first, layer)
            if pair is None:
                continue
            if len(pair) == 2:
                nodes[before - 1] = pair[0], source
                nodes[number - 1] = pair[1], taken
            else:
                nodes[number - 1] = pair[0], source
                nodes = _without(nodes, before)
            changed = True
            break
    return Graph(nodes)


def _without(nodes: Nodes, gone: int) -> Nodes:
    """Return nodes without one whose output has no use any more."""
    kept = [node for number, node in enumerate(nodes, start=1) if number != gone]
    return [(layer, tuple(k - (k > gone) for k in taken)) for layer, taken in kept]


def _changes_nothing(layer: Layer) -> bool:
    """Return whether a layer multiplies by 1, to the digits of float32, and adds 0."""
    if type(layer) not in (Scale, Shift) or np.any(layer.parameters[-1]):
        return False
    return isinstance(layer, Shift) or bool(np.allclose(layer.parameters[0], 1, rtol=1e-6, atol=0))


def _merged(first: Layer, second: Layer) -> tuple[Layer, ...] | None:
    """Return the one or two layers that do what `first` and `second` do, or None."""
    if isinstance(first, ReLU) and isinstance(second, MaxPool):
        return second, first
    if isinstance(first, (Dense, Convolution)) and isinstance(second, (Scale, Shift)):
        return _behind(first, second)
    if isinstance(first, (Scale, Shift)) and isinstance(second, (Dense, Convolution)):
        return _ahead(first, second)
    if isinstance(first, (Scale, Shift)) and isinstance(second, (Scale, Shift)):
        return _both(first, second)
    if isinstance(first, LayerNorm) and isinstance(second, (Scale, Shift)):
        return _normalised(first, second)
    if isinstance(first, Dense) and isinstance(second, Dense):
        (a, b), (_, c) = first.weights.shape, second.weights.shape
        if a * c <= a * b + b * c:
            bias = first.bias @ second.weights + second.bias
            return (Dense(first.weights @ second.weights, bias),)
    if isinstance(first, Reshape) and isinstance(second, Reshape):
        return (second,) if type(second) is Reshape else None
    if isinstance(first, Transpose) and isinstance(second, Transpose):
        return (Transpose(*(first.axes[a] for a in second.axes)),)
    return None


def _affine(layer: Scale | Shift) -> tuple[Floats, Floats] | None:
    """Return factor and summand by channels, the last axis; None if they vary along others."""
    summand = np.asarray(layer.summand, np.float64)
    factor = np.asarray(layer.factor, np.float64) if isinstance(layer, Scale) else np.ones(())
    pair = np.broadcast_arrays(factor, summand)
    if any(n != 1 for n in pair[0].shape[:-1]):
        return None
    return pair[0].reshape(-1), pair[1].reshape(-1)


def _behind(first: Dense | Convolution, second: Scale | Shift) -> tuple[Layer, ...] | None:
    found = _affine(second)
    if found is None or len(found[0]) not in (1, len(first.bias)):
        return None
    factor, summand = found
    return (first.with_parameters([first.weights * factor, first.bias * factor + summand]),)


def _normalised(first: LayerNorm, second: Scale | Shift) -> tuple[Layer, ...] | None:
    """Return a norm that scales and shifts as the layer behind it does, if it has room for that."""
    found = _affine(second)
    count = first.scale.shape[-1] if first.scale.ndim == 1 else 0
    if found is None or len(found[0]) not in (1, count) or (found[1].any() and first.shift is None):
        return None
    factor, summand = (np.broadcast_to(v, (count,)) for v in found)
    moved = [] if first.shift is None else [first.shift * factor + summand]
    return (first.with_parameters([first.scale * factor, *moved]),)


def _ahead(first: Scale | Shift, second: Dense | Convolution) -> tuple[Layer, ...] | None:
    found = _affine(first)
    inputs = second.weights.shape[-2]
    if found is None or len(found[0]) not in (1, inputs):
        return None
    factor, summand = (np.broadcast_to(v, (inputs,)) for v in found)
    # With zeros around images, a summand would have to be around them, too.
    if isinstance(second, Convolution) and second.padding != "valid" and summand.any():
        return None
    matrix = np.asarray(second.weights).reshape(-1, inputs, second.weights.shape[-1]).sum(axis=0)
    weights = second.weights * factor[:, None]
    return (second.with_parameters([weights, second.bias + summand @ matrix]),)


def _both(first: Scale | Shift, second: Scale | Shift) -> tuple[Layer, ...]:
    one, two = (
        (p.factor if isinstance(p, Scale) else np.ones(()), p.summand) for p in (first, second)
    )
    summand = one[1] * two[0] + two[1]
    if isinstance(first, Shift) and isinstance(second, Shift):
        return (Shift(summand),)
    factor = one[0] * two[0]
    return (Scale(*(np.array(v) for v in np.broadcast_arrays(factor, summand))),)
