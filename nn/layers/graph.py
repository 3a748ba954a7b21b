"""Networks as graphs: layers, and for each the values that it takes.

Values are numbered: 0 is the network's input, k the output of the k-th node, and the last one the
network's output. A list of layers is the simple case, in which every layer takes the output of the
layer before it. So whatever takes ``layers`` takes a list or a :class:`Graph`, and :func:`run` is the
one way to evaluate either, in the clear and on shares.

A layer that ``joins`` takes a tuple where other layers take an array, a shape or a bound: one entry for
each of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, overload

from nn.core.checks import elements
from nn.layers.layer import Layer, Shape
from nn.layers.selecting import Take
from nn.layers.shaping import Reshape
from ring.errors import ArgumentError, DataError, DtypeError, ShapeError, SottoError

__all__ = [
    "Graph",
    "Node",
    "backward",
    "flat_rows",
    "inputs_of",
    "names",
    "output_shapes",
    "rewired",
    "run",
    "run_all",
    "taken_by",
    "wired",
    "wiring_of",
    "words_at_once",
]

Step = Callable[[int, Layer, Any], Any]


@dataclass(frozen=True)
class Node:
    """One step of a graph.

    Attributes
    ----------
    layer : Layer
    inputs : tuple of int
        Numbers of the values that the layer takes: 0 is the graph's input, k the output of the k-th
        node.
    """

    layer: Layer
    inputs: tuple[int, ...]


class Graph(Sequence[Layer]):
    """A network whose values may be used more than once: a sequence of layers with their inputs.

    It is given to models where a list of layers is. Its elements are the layers.

    Parameters
    ----------
    nodes : sequence of (Layer, int or sequence of int)
        Each layer, and the numbers of the values that it takes: 0 is the input, k the output of the
        k-th node, counted from 1. The last node's output is the network's.
    n_features : int, optional
        Features of a row, which the model knows that the graph is given to.

    Raises
    ------
    ArgumentError
        If there is no node, a node takes a value that is not known before it, or an output is never
        used.
    DtypeError
        If a node is no Layer with integers.

    Examples
    --------
    A residual block, ``x + relu(x)``:

    >>> import numpy as np
    >>> from nn.layers import Add, Graph, ReLU
    >>> from nn.layers.graph import run
    >>> graph = Graph([(ReLU(), 0), (Add(), (0, 1))])
    >>> run(graph, np.array([[1.0, -2.0]]))
    array([[ 2., -2.]])
    """

    def __init__(
        self, nodes: Sequence[tuple[Layer, int | Sequence[int]]], n_features: int | None = None
    ) -> None:
        made = []
        for number, node in enumerate(elements("nodes", nodes), start=1):
            if not isinstance(node, (tuple, list)) or len(node) != 2:
                raise DtypeError(
                    f"node {number} must be a layer and numbers of values, got {node!r}"
                )
            layer, inputs = node
            taken = tuple(inputs) if isinstance(inputs, (tuple, list, range)) else (inputs,)
            if not isinstance(layer, Layer) or not all(type(k) is int for k in taken):
                raise DtypeError(
                    f"node {number} must be a layer and numbers of values, got {layer!r}"
                )
            if not taken or not all(0 <= k < number for k in taken):
                raise ArgumentError(
                    f"node {number}, {layer!r}, must take values from 0 to {number - 1}, got {taken}"
                )
            if not layer.joins and len(taken) > 1:
                raise ArgumentError(f"node {number}, {layer!r}, takes one value, got {taken}")
            made.append(Node(layer, taken))
        used = {k for node in made for k in node.inputs}
        idle = [k for k in range(1, len(made)) if k not in used]
        if not made or idle:
            raise ArgumentError(f"every node's output must be used, got no use of {idle or 'any'}")
        self.nodes = tuple(made)
        self.n_features = n_features

    def __len__(self) -> int:
        return len(self.nodes)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Layer]: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequence[Layer]:
        if isinstance(index, slice):
            return [node.layer for node in self.nodes[index]]
        return self.nodes[index].layer

    def __repr__(self) -> str:
        return f"Graph({[(node.layer, node.inputs) for node in self.nodes]})"


def inputs_of(layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Return the numbers of the values that each layer takes."""
    if isinstance(layers, Graph):
        return [node.inputs for node in layers.nodes]
    return [(number,) for number in range(len(layers))]


def flat_rows(X: Any, layers: Sequence[Layer], columns: slice | None = None) -> Any:
    """Return images or sequences as rows of numbers, if their axes are those that the layers make.

    Rows with several axes are taken where the layers begin with a Reshape to these; axes of size 1 make
    no difference. Anything else is returned as it is. Of one of several inputs, `columns` are its
    features among those of the model.
    """
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) < 3:
        return X
    pairs = list(zip(layers, inputs_of(layers), strict=True))
    source = 0
    if columns is not None:
        own = Take(0, range(columns.start, columns.stop)).indices
        places = [
            k for k, (x, _) in enumerate(pairs, 1) if isinstance(x, Take) and x.indices == own
        ]
        if not places or pairs[places[0] - 1][1] != (0,):
            return X
        source = places[0]
    first = [layer for layer, taken in pairs if source in taken]
    wanted = [n for n in shape[1:] if n != 1]
    made = [[n for n in getattr(layer, "shape", ()) if n != 1] for layer in first]
    if not first or not all(isinstance(layer, Reshape) for layer in first):
        return X
    if any(sizes != wanted for sizes in made):
        return X
    return X.reshape((shape[0], prod(shape[1:])))


def rewired(
    layers: Sequence[Layer], replaced: Sequence[Layer], n_features: int | None = None
) -> Sequence[Layer]:
    """Return `replaced`, one layer for each of `layers`, with the same inputs.

    A graph is told the features of a row, if they are given.
    """
    if isinstance(layers, Graph):
        pairs = zip(replaced, layers.nodes, strict=True)
        features = layers.n_features if n_features is None else n_features
        return Graph([(layer, node.inputs) for layer, node in pairs], features)
    return list(replaced)


def wiring_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return what a file's header holds of a graph beside its layers; nothing of a list."""
    return (
        {"wiring": [list(taken) for taken in inputs_of(layers)]}
        if isinstance(layers, Graph)
        else {}
    )


def wired(layers: Sequence[Layer], header: Mapping[str, Any]) -> Sequence[Layer]:
    """Return the layers of a file with the wiring in its header, if there is one.

    Raises
    ------
    DataError
        If the wiring is malformed.
    """
    if "wiring" not in header:
        return layers
    try:
        pairs = zip(layers, header["wiring"], strict=True)
        return Graph([(layer, tuple(k)) for layer, k in pairs], header["n_features"])
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"its layers cannot be joined: {error}") from None


def names(layers: Sequence[Layer]) -> list[str]:
    """Return a name of each layer for messages and tables: its number, repr and inputs."""
    return [
        f"{number} {layer!r}"
        + (f" of {', '.join(map(str, taken))}" if taken != (number - 1,) else "")
        for number, (layer, taken) in enumerate(
            zip(layers, inputs_of(layers), strict=True), start=1
        )
    ]


def _last_uses(wiring: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """Return the index of the last layer that takes each value."""
    return {k: index for index, taken in enumerate(wiring) for k in taken}


def taken_by(layer: Layer, values: Any, taken: tuple[int, ...]) -> Any:
    """Return what a layer takes: one value, or a tuple of them if it joins several."""
    return tuple(values[k] for k in taken) if layer.joins else values[taken[0]]


def run(layers: Sequence[Layer], x: Any, step: Step | None = None) -> Any:
    """Evaluate layers; a value is freed after its last use.

    Parameters
    ----------
    layers : sequence of Layer
    x : Any
        The network's input: an array, a shape, an interval, whatever `step` takes.
    step : callable, optional
        ``step(index, layer, x)`` returns a layer's output for its input; `x` is a tuple for a layer
        that joins. Default: ``layer(x)``.

    Returns
    -------
    Any
        The last layer's output.
    """
    if not isinstance(layers, Graph):  # nothing waits; on the way of every prediction
        for index, layer in enumerate(layers):
            given = (x,) if layer.joins else x
            x = layer(given) if step is None else step(index, layer, given)
        return x
    wiring = inputs_of(layers)
    last = _last_uses(wiring)
    values = {0: x}
    del x
    for index, (layer, taken) in enumerate(zip(layers, wiring, strict=True)):
        given = taken_by(layer, values, taken)
        for k in set(taken):
            if last[k] == index:
                del values[k]
        values[index + 1] = layer(given) if step is None else step(index, layer, given)
    return values[len(wiring)]


def run_all(layers: Sequence[Layer], x: Any, step: Step) -> list[Any]:
    """Evaluate layers as :func:`run` does, and return every layer's output."""
    found: list[Any] = []

    def keep(index: int, layer: Layer, given: Any) -> Any:
        found.append(step(index, layer, given))
        return found[-1]

    run(layers, x, keep)
    return found


def output_shapes(layers: Sequence[Layer], input_shape: Shape) -> list[Shape]:
    """Return the shape of a row of each layer's output.

    Raises
    ------
    ShapeError
        If a layer does not take what it is given; the message names it.
    """

    def step(index: int, layer: Layer, shape: Any) -> Shape:
        try:
            return layer.output_shape(shape)
        except ShapeError as error:
            raise ShapeError(f"layer {index + 1}: {error}") from None

    return run_all(layers, input_shape, step)


def words_at_once(layers: Sequence[Layer], input_shape: Shape, parties: int) -> int:
    """Return about how many 8-byte words one row needs at most while it is evaluated on shares.

    What a layer needs, and the values that wait for later layers meanwhile: shares, and what was
    opened of them.
    """
    if not isinstance(layers, Graph):  # nothing waits; on the way of every prediction
        most, shape = 1, input_shape
        for layer in layers:
            most = max(most, layer.shared_words(shape, parties))
            shape = layer.output_shape(shape)
        return most
    shapes = [input_shape, *output_shapes(layers, input_shape)]
    wiring = inputs_of(layers)
    last = _last_uses(wiring)
    most = 1
    for index, (layer, taken) in enumerate(zip(layers, wiring, strict=True)):
        need = layer.shared_words(taken_by(layer, shapes, taken), parties)
        waiting = [k for k in range(index + 1) if last.get(k, -1) > index and k not in taken]
        most = max(most, need + (2 * parties + 1) * sum(prod(shapes[k]) for k in waiting))
    return most


def backward(
    layers: Sequence[Layer], gradient: Any, step: Callable[[int, Layer, Any], Any] | None = None
) -> None:
    """Compute each layer's ``gradients`` after a forward pass, given that at the last output.

    Gradients of a value that several layers took are added up.

    Parameters
    ----------
    layers : sequence of Layer
    gradient : array
    step : callable, optional
        Called with a layer's index, the layer and the gradient at its output, before its
        ``backward``.
    """
    wiring = inputs_of(layers)
    at = {len(wiring): gradient}
    del gradient
    for index in range(len(wiring) - 1, -1, -1):
        layer, taken, found = layers[index], wiring[index], at.pop(index + 1)
        if step is not None:
            step(index, layer, found)
        back = layer.backward(found, input_gradient=any(taken))
        if not any(taken):
            continue
        for k, part in zip(taken, back if layer.joins else (back,), strict=True):
            if k:
                at[k] = at[k] + part if k in at else part
