"""Softmax, reductions and embedding along axes of rows: in the clear and on shares."""

import json

import numpy as np
import pytest

import mpc
from nn.layers import (
    Embedding,
    LogSoftmax,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceSum,
    Softmax,
)
from nn.layers.layer import described, layers_of
from ring.errors import DataError, DtypeError, ShapeError
from tests.helpers.gradients import finite_differences

UNIT = 2.0**-16


def softmax(x, axis):
    powers = np.exp(x)
    return powers / powers.sum(axis=axis, keepdims=True)


# Layer, the function of an array with its rows, and the error beside rounding.
CASES = {
    "softmax": (Softmax(), lambda x: softmax(x, -1), 2e-4),
    "softmax of the first": (Softmax(0), lambda x: softmax(x, 1), 2e-4),
    "log softmax": (LogSoftmax(1), lambda x: np.log(softmax(x, 2)), 2e-4),
    "sum": (ReduceSum((0, 2)), lambda x: x.sum(axis=(1, 3), keepdims=True), 0),
    "sum of all": (ReduceSum(keep=False), lambda x: x.sum(axis=(1, 2, 3)), 0),
    "mean": (ReduceMean(-1, keep=False), lambda x: x.mean(axis=-1), 0),
    "mean of two": (ReduceMean([-1, 0]), lambda x: x.mean(axis=(3, 1), keepdims=True), 0),
    "max": (ReduceMax(1), lambda x: x.max(axis=2, keepdims=True), 0),
    "max of two": (ReduceMax((0, 1), keep=False), lambda x: x.max(axis=(1, 2)), 0),
    "min": (ReduceMin((1, 2)), lambda x: x.min(axis=(2, 3), keepdims=True), 0),
}


def rows(seed, *shape):
    return np.round(np.random.default_rng(seed).normal(size=shape) * 2 / UNIT) * UNIT


@pytest.mark.parametrize("case", CASES)
def test_in_the_clear(case):
    layer, function, _ = CASES[case]
    x = rows(len(case), 3, 2, 4, 3)
    wanted = function(x)
    assert layer.output_shape(x.shape[1:]) == wanted.shape[1:]
    np.testing.assert_allclose(layer(x), wanted, atol=1e-12)
    weight = rows(1, *wanted.shape)

    def loss():
        return float((layer.forward(x) * weight).sum())

    expected = finite_differences(loss, x)
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(weight), expected, atol=1e-6)
    low, high = x[0] - np.abs(x[1]), x[0] + np.abs(x[2])
    lows, highs = layer.bounds(low, high)
    assert lows.shape == highs.shape == wanted.shape[1:]
    random = np.random.default_rng(0)
    for _ in range(50):
        y = layer(np.where(random.random(low.shape) < 0.5, low, high)[None])[0]
        assert (lows - 1e-9 <= y).all() and (y <= highs + 1e-9).all()
    (kept,) = json.loads(json.dumps(described([layer])))
    (again,) = layers_of([kept], [])
    assert repr(again) == repr(layer)
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize(
    ("kind", "case"),
    [(n, case) for case in CASES for n in (2, 3)]
    + [(0, case) for case in ("softmax of the first", "mean of two", "max")],
)
def test_on_shares(case, kind):
    layer, function, off = CASES[case]
    x = rows(len(case), 3, 2, 4, 3)
    gradient = rows(1, *function(x).shape)
    layer.forward(x)
    at_input = layer.backward(gradient)
    seen = []

    def program(s):
        secret = s.share(x, owner="bob")
        seen[:] = [layer(secret).reveal(), layer(secret * 0.5 * 2).reveal()]
        layer.forward(secret)
        seen.append(layer.backward(s.share(gradient, owner="alice")).reveal())

    names, provider = ("alice", "bob", "carol")[: kind or 2], "crypto" if kind else None
    with mpc.Session(names, provider=provider) as s:
        plan = s.plan(program)
        program(s)
        assert not kind or plan.cost == s.cost()
    for found in seen[:2]:
        np.testing.assert_allclose(found, function(x), atol=off + 2 * UNIT)
    error = layer.fixed_point_error(np.abs(x[0]), np.zeros(x.shape[1:]), 16)
    assert (np.abs(seen[0] - function(x)) <= error + UNIT).all()
    np.testing.assert_allclose(seen[2], at_input, atol=6 * off + 8 * UNIT)


@pytest.mark.parametrize("case", ["log softmax", "max of two", "min"])
def test_reach_of_magnitudes_holds_what_the_layer_gives(case):
    layer, function, _ = CASES[case]
    x = rows(3, 6, 2, 4, 3)
    with mpc.Session() as s:
        reach = layer.reach(s.share(np.abs(x), owner="bob")).reveal()
    largest = np.abs(function(x))
    assert (reach >= largest - UNIT).all() and (reach < 12 * largest.max()).all()


@pytest.mark.parametrize(
    ("kind", "ids"), [(n, ids) for n in (2, 3) for ids in (1, 2, 7)] + [(0, 7)]
)
@pytest.mark.parametrize("real", [False, True], ids=["whole", "fixed point"])
def test_embedding(kind, ids, real):
    layer, random = Embedding(rows(ids, ids, 3)), np.random.default_rng(0)
    x = random.integers(0, ids, size=(4, 5))
    x = x.astype(float) if real else x
    wanted = layer.forward(x)
    np.testing.assert_array_equal(wanted, layer.table[x.astype(int)])
    gradient = rows(5, *wanted.shape)
    assert not layer.backward(gradient).any()
    seen = []

    def program(s):
        twin = layer.with_parameters([s.share(layer.table, owner="alice")])
        output = twin.forward(s.share(x, owner="bob"))
        at_input = twin.backward(s.share(gradient, owner="alice"))
        seen[:] = [output.reveal(), twin.gradients[0].reveal(), at_input.reveal()]

    names, provider = ("alice", "bob", "carol")[: kind or 2], "crypto" if kind else None
    with mpc.Session(names, provider=provider) as s:
        plan = s.plan(program)
        program(s)
        assert not kind or plan.cost == s.cost()
    np.testing.assert_array_equal(seen[0], wanted)
    np.testing.assert_allclose(seen[1], layer.gradients[0], atol=UNIT)
    assert seen[2].shape == x.shape and not seen[2].any()


def test_an_embedding_opens_each_id_once():
    layer = Embedding(np.ones((50, 4)))
    with mpc.Session() as s:
        twin = layer.with_parameters([s.share(layer.table, owner="alice")])
        ids = s.share(np.zeros((2, 3), np.int64), owner="bob")
        one_hot = s.plan(lambda s: twin._one_hot(ids)).cost.total
    # One word an id, and four bits at most for each of 49 thresholds, in whole words.
    assert one_hot.bytes_sent <= 8 * 6 + 8 * 49 * 9
    lows, highs = Embedding(np.array([[1.0, -2.0], [3.0, 4.0]])).bounds(np.zeros(5), np.ones(5))
    assert lows.tolist() == [[1, -2]] * 5 and highs.tolist() == [[3, 4]] * 5


def test_bad_input():
    with pytest.raises(ShapeError, match="have its axis, got shape"):
        Softmax(2)(np.ones((1, 3)))
    with pytest.raises(ShapeError, match="twice"):
        ReduceSum((0, -1))(np.ones((1, 3)))
    with pytest.raises(DtypeError, match="axes must be integers"):
        ReduceMean(0.5)
    with pytest.raises(DataError, match="whole numbers from 0 to 1"):
        Embedding(np.ones((2, 2)))(np.array([[0, 2]]))
    with pytest.raises(ShapeError, match="table must have two axes"):
        Embedding(np.ones(2))


def test_softmaxes_of_one_value_alone():
    with mpc.Session() as s:
        x = s.share(np.array([[2.0], [-1.0]]), owner="alice")
        np.testing.assert_array_equal(Softmax()(x).reveal(), [[1], [1]])
        log = LogSoftmax()
        np.testing.assert_array_equal(log.forward(x).reveal(), [[0], [0]])
        np.testing.assert_array_equal(log.backward(x).reveal(), [[0], [0]])
