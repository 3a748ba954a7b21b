"""Intervals of networks know how many elements a row has, in a list of layers as in a graph."""

import itertools

import numpy as np
import pytest

import mpc
from nn.fixed_point import calibration
from nn.fixed_point.bounds import interval_bounds
from nn.layers import (
    Abs,
    AveragePool,
    Clip,
    Dense,
    Embedding,
    Flatten,
    Graph,
    HardSigmoid,
    LayerNorm,
    LogSoftmax,
    MaxPool,
    Pad,
    PReLU,
    ReduceMax,
    ReduceMean,
    ReduceSum,
    ReLU,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    Sigmoid,
    Softmax,
    Take,
    Transpose,
)
from nn.layers.graph import output_shapes, run_all
from nn.models.predictors import Regressor
from ring.errors import RangeError, ShapeError

N, END = 12, 3.0
ONE = np.ones(1)
KINDS = [
    Shift(0 * ONE), Scale(-2 * ONE, ONE), PReLU(0.5 * ONE), Abs(), ReLU(), Sigmoid(), Clip(-1.0, 2.0),
    Transpose(0), Transpose(1, 0), Flatten(), Take(0, [0, 1, 2]), Pad([(1, 1)], 1.0),
    ReduceSum(), ReduceSum(0), ReduceSum(-1), ReduceSum(0, keep=False), ReduceMean(), ReduceMax(),
    Softmax(), LogSoftmax(), LayerNorm(np.ones(N), np.zeros(N)), RMSNorm(np.ones(N)),
    Embedding(np.ones((4, 5))), Reshape(N, 1), Reshape(3, 4, 1), MaxPool(2), AveragePool(None),
    Dense(np.ones((N, 2)), np.zeros(2)), Dense(np.ones((5, 1)), np.zeros(1)), Shift(np.ones(5)),
]  # fmt: skip


def chains(longest):
    """Return the lists of layers that take a row of N features."""
    for count in range(1, longest + 1):
        for chain in itertools.product(KINDS, repeat=count):
            try:
                output_shapes(chain, (N,))
            except ShapeError:
                continue
            yield list(chain)


def test_an_interval_has_the_shape_of_a_row_and_holds_its_values():
    low, high = np.full(N, -END), np.full(N, END)
    random = np.random.default_rng(3)
    rows = np.concatenate([[low, high], random.choice([-END, END], (3, N)), np.eye(N)[:1] * END])
    seen = 0
    for chain in chains(2):
        if any(isinstance(layer, Embedding) for layer in chain[1:]):
            continue  # it takes whole numbers, which the layer before does not give
        first = isinstance(chain[0], Embedding)
        X = np.rint(np.abs(rows)) if first else rows
        values = run_all(chain, X, lambda _, layer, x: layer(x))
        bounds = interval_bounds(chain, 0 * low if first else low, high)
        for value, (least, most), shape in zip(
            values, bounds, output_shapes(chain, (N,)), strict=True
        ):
            assert least.shape == most.shape == shape, chain
            assert (value >= least - 1e-9).all(), chain
            assert (value <= most + 1e-9).all(), chain
        seen += 1
    assert seen > 100


def test_one_range_for_all_features_is_that_range_for_each():
    """Limits from a scalar range are those of the row, whatever the layers know of its size."""
    X = np.full((1, N), 0.5)
    for chain in chains(2):
        if isinstance(chain[0], (Dense, Embedding)):  # Dense has a scale of its own for features
            continue
        if any(isinstance(layer, Embedding) for layer in chain):
            continue
        model = Regressor(chain, N)
        graph = Regressor(Graph([(layer, k) for k, layer in enumerate(chain)]), N)
        one = model.calibrate(X, low=-END, high=END)
        assert one == model.calibrate(X, low=np.full(N, -END), high=np.full(N, END)), chain
        assert one == graph.calibrate(X, low=-END, high=END), chain


def tail():
    """Return layers that make values of several bits more than a format has, one after the other."""
    return [
        Dense(np.array([[64.0]]), np.zeros(1)), ReLU(), Dense(np.array([[64.0]]), np.zeros(1)), ReLU(),
        Dense(np.array([[1.0]]), np.zeros(1)),
    ]  # fmt: skip


SUMS = {
    "sum": [ReduceSum()],
    "first axis": [ReduceSum(0)],
    "last axis": [ReduceSum(-1)],
    "shift": [Shift(0 * ONE), ReduceSum(-1)],
    "scale": [Scale(ONE, 0 * ONE), ReduceSum()],
    "prelu": [PReLU(ONE), ReduceSum()],
    "abs": [Abs(), ReduceSum()],
    "transpose": [Transpose(0), ReduceSum()],
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_of_a_whole_row_is_held_to_the_format(name):
    """64 in each of 1024 features is 65,536, and frac_bits=16 holds 32,768."""
    model = Regressor([*SUMS[name], Dense(ONE[None], 0 * ONE)], 1024)
    with mpc.Session() as session:
        with pytest.raises(RangeError, match=r"ReduceSum.* can reach 65\d\d\d"):
            model.share(session, "alice", low=-64, high=64)
    assert "can reach 65536" in model.audit(low=-64, high=64).problem


@pytest.mark.parametrize("name", [*SUMS, "tokens"])
def test_a_checked_evaluation_of_a_list_is_right_or_refused(name):
    if name == "tokens":
        n, low, high = 2048, 0.0, 1.0
        table = np.array([[0.0] * 8, [1.0] * 8])
        layers = [
            Embedding(table), Dense(np.eye(8) * 8, np.zeros(8)), ReLU(), ReduceSum(0, keep=False),
            Dense(np.full((8, 1), 8.0), np.zeros(1)), ReLU(), Dense(np.array([[8.0]]), np.zeros(1)),
            ReLU(), Dense(np.array([[1.0]]), np.zeros(1)),
        ]  # fmt: skip
        rows = [np.arange(n) < count for count in (0, 2, 64, 256, 512, 1024, 2048)]
    else:
        n, low, high = 256, -64.0, 64.0
        layers = [*SUMS[name], *tail()]
        rows = [np.full(n, value) for value in (1 / 1024, 1, 2, 8, 16, 32, 64)]
    model = Regressor(layers, n, (low, high))
    X = np.zeros((2, n))
    X[:, 0] = 1
    bounds = model.calibrate(X)
    right = refused = 0
    with mpc.Session() as session:
        secret = model.share(session, "alice", bounds=bounds)
        assert secret.bounds is not None
        for row in np.array(rows, np.float64)[:, None]:
            try:
                found = secret(secret.share_rows(row, "bob")).reveal()
            except RangeError:
                refused += 1
                continue
            np.testing.assert_allclose(found.ravel(), model.predict(row), rtol=1e-3)
            right += 1
    assert right
    assert refused


@pytest.mark.parametrize("first", [ReduceSum(-1), ReduceMax(0), Softmax()])
def test_rows_of_a_model_whose_first_layer_needs_the_rows_shape(first):
    width = output_shapes([first], (8,))[0][0]
    model = Regressor([first, Dense(np.ones((width, 1)), np.zeros(1))], 8)
    X = np.random.default_rng(0).uniform(-1, 1, (20, 8))
    model.take_rows(X)
    with mpc.Session() as session:
        secret = model.share(session, "alice", low=-1, high=1)
        found = secret(secret.share_rows(X, "bob")).reveal()
    np.testing.assert_allclose(found.ravel(), model.predict(X).ravel(), atol=1e-3)


def test_nothing_says_how_long_a_row_is():
    with pytest.raises(ShapeError, match="one entry for each feature"):
        interval_bounds([ReduceSum()], -1, 1)


class Forgetful(Abs):
    """A layer whose bounds are those of one element of the row."""

    def bounds(self, low, high):
        return tuple(end[:1] for end in super().bounds(low, high))


class OneForAll(Abs):
    """A layer whose bounds are numbers for all elements."""

    def bounds(self, low, high):
        return np.zeros(()), np.max(np.abs([low, high]))


def test_bounds_of_another_shape_than_the_output_are_refused():
    with pytest.raises(
        ShapeError, match=r"layer 1, Forgetful\(\): its bounds .* \(4,\), got .*\(1,\)"
    ):
        interval_bounds([Forgetful(), ReduceSum()], -np.ones(4), np.ones(4))
    (_, most), (_, total) = interval_bounds([OneForAll(), ReduceSum()], -np.ones(4), np.ones(4))
    assert (most.tolist(), total.tolist()) == ([1.0] * 4, [4.0])


@pytest.mark.parametrize("frac_bits", [8, 12, 16])
@pytest.mark.parametrize(
    "layer",
    [
        LayerNorm(np.full(2, 100.0), np.zeros(2), 1e-12), LayerNorm(np.full(8, 100.0), np.zeros(8), 1e-8),
        RMSNorm(np.full(3, 100.0), 1e-12), HardSigmoid(90.0, 0.0),
    ],
)  # fmt: skip
def test_no_value_on_shares_leaves_the_interval_that_limits_are_checked_by(layer, frac_bits):
    """Rows that differ by a few units of the format are rounded by as much as they differ."""
    unit = 2.0**-frac_bits
    n = 8 if isinstance(layer, HardSigmoid) else len(layer.scale)
    first = np.arange(100)[:, None] * np.eye(n)[:1]
    X = np.concatenate([first, first + 1, first + 7, -first]) * unit
    ends = np.full(n, np.abs(X).max())
    (reached,) = calibration._walk([layer], -ends, ends, None, unit)
    with mpc.Session(frac_bits=frac_bits, int_bits=15) as session:
        x = session.share(X, "alice", bound=64)
        with session.range_policy.vouched():
            found = layer(x).reveal()
    assert np.abs(found).max() <= reached
