"""Graphs of layers, and layers with several inputs, in the clear: functions, gradients, bounds, order."""

import numpy as np
import pytest

from nn.fixed_point.audit import error_bounds
from nn.fixed_point.bounds import interval_bounds
from nn.layers import (
    Add,
    Concat,
    Convolution,
    Dense,
    Graph,
    MatMul,
    Maximum,
    Mean,
    Minimum,
    Multiply,
    Pad,
    ReLU,
    Reshape,
    Scale,
    Shift,
    Subtract,
    Take,
    Transpose,
)  # fmt: skip
from nn.layers.dropout import Dropout
from nn.layers.graph import backward, inputs_of, output_shapes, run, words_at_once
from nn.layers.normalisation import BatchNorm, folded
from nn.training.steps import forward
from ring.errors import ArgumentError, DtypeError, ShapeError

random = np.random.default_rng(3)


def dense(inputs, outputs):
    return Dense(random.normal(size=(inputs, outputs)) / inputs, random.normal(size=outputs))


def residual():
    """Two branches, values that are used twice, a product and a skip over it."""
    return Graph(
        [
            (dense(4, 4), 0), (ReLU(), 1), (dense(4, 4), 2), (Add(), (3, 0)), (Multiply(), (4, 2)),
            (Concat(), (5, 4, 0)), (Scale(random.normal(size=12), random.normal(size=12)), 6),
            (dense(12, 3), 7),
        ]
    )  # fmt: skip


def by_hand(graph, x):
    layers = list(graph)
    h = layers[1](layers[0](x))
    total = layers[2](h) + x
    return layers[7](layers[6](np.concatenate([total * h, total, x], axis=1)))


def test_a_graph_computes_what_its_nodes_say():
    graph, x = residual(), random.normal(size=(5, 4))
    np.testing.assert_allclose(run(graph, x), by_hand(graph, x), atol=1e-12)
    assert [layer.output_shape for layer in graph] and len(graph) == 8
    assert output_shapes(graph, (4,))[-2:] == [(12,), (3,)]


def test_a_list_is_a_chain():
    layers = [dense(4, 3), ReLU(), dense(3, 2)]
    x = random.normal(size=(5, 4))
    chain = Graph([(layer, k) for k, layer in enumerate(layers)])
    assert inputs_of(layers) == inputs_of(chain) == [(0,), (1,), (2,)]
    np.testing.assert_array_equal(run(layers, x), run(chain, x))


def test_values_are_freed_after_their_last_use():
    """A value is held by nothing but the variables of its users."""
    import weakref

    kept, alive = [], []

    class Array(np.ndarray):
        pass

    def step(index, layer, given):
        alive.append([k for k, ref in enumerate(kept) if ref() is not None])
        made = np.zeros(3).view(Array)
        kept.append(weakref.ref(made))
        return made

    run([ReLU()] * 4, np.zeros(3), step)
    assert alive == [[], [0], [1], [2]]
    kept.clear(), alive.clear()
    run(Graph([(ReLU(), 0), (ReLU(), 1), (ReLU(), 2), (Add(), (3, 1))]), np.zeros(3), step)
    assert alive == [[], [0], [0, 1], [0, 2]]


LAYERS = [
    (Add(), [(3, 2), (3, 2), (1, 2)]), (Subtract(), [(3, 2), (3, 1)]), (Mean(), [(4,), (4,), (4,)]),
    (Multiply(), [(3, 2), (1, 2)]), (Concat(1), [(3, 2), (3, 4)]), (MatMul(), [(3, 2), (2, 4)]),
    (MatMul(), [(5, 3, 2), (1, 2, 4)]),
]  # fmt: skip
SINGLE = [
    (Take(0, [2, 0, 0]), (3, 2)), (Take(1, [0, 2]), (2, 3)), (Take(0, [1]), (3,)),
    (Pad([(1, 2), (0, 1)]), (2, 3)),
    (Scale(random.normal(size=(2, 1)), random.normal(size=(2, 1))), (2, 3)),
    (Scale(random.normal(size=3), random.normal(size=3)), (1,)),
    (Shift(random.normal(size=3)), (2, 3)), (dense(3, 2), (4, 3)), (Transpose(1, 0), (2, 3)),
]  # fmt: skip


def numeric(function, x, gradient, step=1e-6):
    """Return the gradient of sum(function(x) * gradient) by differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        old = x[index]
        x[index] = old + step
        more = (function() * gradient).sum()
        x[index] = old - step
        found[index] = (more - (function() * gradient).sum()) / (2 * step)
        x[index] = old
    return found


@pytest.mark.parametrize(("layer", "shapes"), LAYERS, ids=lambda v: repr(v))
def test_gradients_of_layers_with_several_inputs(layer, shapes):
    parts = tuple(random.normal(size=(2, *shape)) for shape in shapes)
    output = layer.forward(parts)
    assert output.shape[1:] == layer.output_shape(shapes)
    gradient = random.normal(size=output.shape)
    back = layer.backward(gradient)
    for part, found in zip(parts, back, strict=True):
        np.testing.assert_allclose(found, numeric(lambda: layer(parts), part, gradient), atol=1e-6)
    assert layer.backward(gradient, input_gradient=False) is None


@pytest.mark.parametrize(("layer", "shape"), SINGLE, ids=lambda v: repr(v))
def test_gradients_of_layers_that_move_or_scale(layer, shape):
    x = random.normal(size=(2, *shape))
    output = layer.forward(x)
    assert output.shape[1:] == layer.output_shape(shape)
    gradient = random.normal(size=output.shape)
    found = layer.backward(gradient)
    np.testing.assert_allclose(found, numeric(lambda: layer(x), x, gradient), atol=1e-6)
    for parameter, found in zip(layer.parameters, layer.gradients, strict=True):
        expected = numeric(lambda: layer(x), parameter, gradient)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_of_a_graph_are_those_of_differences():
    graph, x = residual(), random.normal(size=(3, 4))
    output = forward(graph, x)
    gradient = random.normal(size=output.shape)
    backward(graph, gradient)
    for layer in graph:
        for parameter, found in zip(layer.parameters, layer.gradients, strict=True):
            expected = numeric(lambda: run(graph, x), parameter, gradient)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("form", [8, 16])
def test_bounds_of_values_and_errors_hold(form):
    graph, rows = residual(), random.uniform(-2, 2, size=(500, 4))
    graph = Graph([(node.layer, node.inputs) for node in graph.nodes], 4)
    ends = interval_bounds(graph, -2.0, 2.0)
    errors = error_bounds(graph, np.array(-2.0), np.array(2.0), form)
    assert len(errors) == len(ends) + 1 and np.isfinite(errors[-1]).all()
    found = []
    run(graph, rows, lambda _, layer, given: found.append(layer(given)) or found[-1])
    for values, (low, high) in zip(found, ends, strict=True):
        assert (values >= low - 1e-9).all() and (values <= high + 1e-9).all()


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [*LAYERS, (Maximum(), [(3, 2), (3, 2)]), (Minimum(), [(3,), (3,), (3,)])],
    ids=lambda v: repr(v),
)
def test_bounds_of_layers_with_several_inputs_hold_and_are_met(layer, shapes):
    lows = tuple(random.uniform(-2, 1, size=shape) for shape in shapes)
    highs = tuple(low + random.uniform(0, 2, size=low.shape) for low in lows)
    low, high = layer.bounds(lows, highs)
    ends = [random.uniform(size=(4000, *a.shape)) > 0.5 for a in lows]
    parts = tuple(np.where(k, a, b) for k, a, b in zip(ends, lows, highs, strict=True))
    values = layer(parts)
    assert (values >= low - 1e-9).all() and (values <= high + 1e-9).all()
    if not isinstance(layer, MatMul):  # whose bound is not sharp
        width = np.maximum(high - low, 1e-9)
        assert ((values.max(axis=0) - values.min(axis=0)) / width > 0.5).all()


def test_batch_normalisation_and_dropout_in_a_graph():
    def norm(count):
        return BatchNorm(*random.normal(size=(3, count)), random.uniform(1, 2, count))

    graph = Graph(
        [
            (dense(4, 4), 0), (norm(4), 1), (Dropout(0.5), 2), (ReLU(), 3), (norm(4), 4),
            (dense(4, 4), 5), (norm(4), 6), (Add(), (6, 7, 0)), (Dropout(0.5), 8),
        ]
    )  # fmt: skip
    x = random.normal(size=(5, 4))
    kept = folded(graph)
    # The first one goes into the layer before it; the last ones cannot, since that layer has other uses.
    assert [type(layer) for layer in kept] == [Dense, ReLU, Scale, Dense, Scale, Add]
    np.testing.assert_allclose(run(kept, x), run(graph, x), atol=1e-9)


def test_words_of_a_row_count_the_values_that_wait():
    big = [(Reshape(10, 10, 1), 0)]
    chain = Graph([*big, (ReLU(), 1), (ReLU(), 2), (ReLU(), 3)])
    waiting = Graph([*big, (ReLU(), 1), (ReLU(), 2), (ReLU(), 3), (Add(), (4, 1))])
    assert words_at_once(waiting, (100,), 2) >= words_at_once(chain, (100,), 2) + 5 * 100


@pytest.mark.parametrize(
    ("nodes", "kind", "message"),
    [
        ([], ArgumentError, "every node's output"),
        ([(ReLU(), 1)], ArgumentError, "node 1, ReLU.*from 0 to 0, got .1"),
        ([(ReLU(), 0), (ReLU(), 0)], ArgumentError, r"no use of \[1\]"),
        ([(ReLU(), (0, 0))], ArgumentError, "takes one value"),
        ([(ReLU(), "0")], DtypeError, "node 1 must be a layer and numbers"),
    ],
)
def test_bad_graphs(nodes, kind, message):
    with pytest.raises(kind, match=message):
        Graph(nodes)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (Add(), [(3,), (4,)]), (Add(), [(3,), (1, 3)]), (Subtract(), [(3,)]), (Concat(1), [(3,), (3,)]),
        (Concat(0), [(3, 2), (3, 3)]), (MatMul(), [(3, 2), (3, 2)]), (MatMul(), [(3,), (3,)]),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(layer, shapes):
    with pytest.raises(ShapeError, match="takes"):
        layer.output_shape(shapes)


def test_a_convolution_within_a_graph():
    kernel = Convolution(random.normal(size=(3, 3, 2, 2)), random.normal(size=2), padding="same")
    graph = Graph([(Reshape(4, 4, 2), 0), (kernel, 1), (Add(), (2, 1))])
    x = random.normal(size=(3, 32))
    images = x.reshape(3, 4, 4, 2)
    np.testing.assert_allclose(run(graph, x), kernel(images) + images)
