"""In graphs, too, a value that leaves its limit is a RangeError, and within them there is none.

Chains, and the proof itself, are in test_range_proof.
"""

import os

import numpy as np
import pytest

import mpc
import nn
from nn.fixed_point import calibration
from nn.layers import (
    Add,
    AveragePool,
    Clip,
    Concat,
    Convolution,
    Dense,
    Flatten,
    Graph,
    LeakyReLU,
    Maximum,
    MaxPool,
    Mean,
    Minimum,
    Multiply,
    Reciprocal,
    ReLU,
    Reshape,
    Scale,
    Shift,
    Sigmoid,
    Subtract,
)
from nn.layers.graph import inputs_of, run_all
from nn.layers.scale import Constant
from nn.models.predictors import Classifier, Regressor
from ring.errors import ArgumentError, RangeError
from tests.helpers.calibrated import UNIT, answer, bounds_of, dense, eye, refused, shared

KINDS = [(2, "crypto"), (3, "crypto"), (2, None)]


@pytest.fixture(scope="module", params=KINDS, ids=["two", "three", "alone"])
def session(request):
    parties, provider = request.param
    with mpc.Session(("alice", "bob", "carol")[:parties], provider=provider) as s:
        yield s


def places(*nodes):
    return [k + 1 for k, checked in enumerate(calibration.checked_at(Graph(nodes))) if checked]


def test_where_a_limit_is_checked():
    one, relu = eye(), ReLU()
    # A residual block: at the ReLU behind the sum alone, not at its part.
    assert places((one, 0), (relu, 1), (one, 2), (Add(), (3, 2)), (relu, 4), (one, 5)) == [2, 5]
    # Without a ReLU, at the sum; a part that another layer takes as well is checked before.
    assert places((one, 0), (one, 1), (Add(), (2, 1)), (one, 3)) == [1, 3]
    assert places((one, 0), (Add(), (1, 1)), (relu, 2), (one, 3)) == [1, 3]
    assert places((one, 0), (Add(), (1, 0)), (Subtract(), (2, 0)), (one, 3)) == [3]
    # Up to the network's output, and to a sigmoid, nothing is.
    assert places((one, 0), (Add(), (1, 0))) == []
    assert places((one, 0), (Add(), (1, 0)), (Sigmoid(), 2), (one, 3)) == []
    assert places((one, 0), (Add(), (1, 0)), (relu, 2), (Concat(), (3, 0))) == [3]
    assert places((one, 0), (Add(), (1, 0)), (relu, 2)) == []
    # Parts of a Concat are checked, it is not; with a ReLU behind it they wait.
    assert places((one, 0), (Concat(), (1, 0)), (dense([1], [1]), 2)) == [1]
    assert places((one, 0), (Concat(), (1, 0)), (relu, 2), (dense([1], [1]), 3)) == [3]
    assert places((one, 0), (Concat(), (1, 0)), (Add(), (2, 2)), (dense([1], [1]), 3)) == [1, 3]
    # No product takes an unchecked value: neither Scale, Mean nor Multiply, nor a layer of another kind.
    for layer in (Scale(np.ones(1), np.zeros(1)), Shift(np.ones(1)), Mean(), LeakyReLU(0.5)):
        after = [2] if calibration.is_linear(layer) else []
        assert places((one, 0), (layer, (1,)), (one, 2)) == [1, *after]
    assert places((one, 0), (Multiply(), (1, 0)), (one, 2)) == [1]
    assert places((Constant(np.ones(1)), 0), (one, 1), (one, 2)) == [2]


# Each takes a row of one number, and limits are 8. `one` is the layer that is to fail.
GRAPHS = {
    "residual": lambda one: Graph(
        [(eye(), 0), (ReLU(), 1), (one, 2), (Add(), (3, 2)), (ReLU(), 4), (eye(), 5)]
    ),
    "sum": lambda one: Graph([(one, 0), (Add(), (1, 0)), (eye(), 2)]),
    "difference": lambda one: Graph(
        [(dense([-1.0]), 0), (one, 0), (Subtract(), (2, 1)), (eye(), 3)]
    ),
    "both parts wait": lambda one: Graph(
        [(eye(), 0), (one, 0), (Add(), (1, 2)), (ReLU(), 3), (eye(), 4)]
    ),
    "used three times": lambda one: Graph(
        [(one, 0), (eye(), 1), (eye(), 1), (Add(), (1, 2, 3)), (eye(factor=0.1), 4)]
    ),
    "parts": lambda one: Graph([(one, 0), (Concat(), (1, 0)), (dense([1], [1]), 2)]),
    "parts, then ReLU": lambda one: Graph(
        [(one, 0), (Concat(), (1, 0)), (ReLU(), 2), (dense([1], [1]), 3)]
    ),
    "parts, then a sum": lambda one: Graph(
        [(one, 0), (Concat(), (1, 0)), (Concat(), (0, 0)), (Add(), (2, 3)), (dense([1], [1]), 4)]
    ),
    "scale": lambda one: Graph(
        [(eye(), 0), (Scale(one.weights[0], one.bias), 1), (ReLU(), 2), (Add(), (3, 0)), (eye(), 4)]
    ),
    "mean": lambda one: Graph([(one, 0), (Mean(), (1, 0)), (eye(), 2)]),
    "product": lambda one: Graph([(one, 0), (Multiply(), (1, 0)), (Add(), (2, 0)), (eye(), 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_every_excess_at_every_place(session, name):
    """By a factor, by powers of two, up to products that are multiples of 2^64 further on."""
    limit, count = 8.0, 0
    # In the case of one, more than the limit comes about by sums alone.
    for factor in (1.0, 2.0**4, 2.0**14) if session.pair is None else (2.0**4,):
        layers = GRAPHS[name](eye(factor=factor))
        secret = shared(session, layers, limit, limit)
        sizes = {
            min(size, limit) for size in (limit, *(2.0**k / factor for k in (0, 1, 2, 4, 12, 17)))
        }
        for x in sorted(sizes | {-size for size in sizes} | {min(limit, limit / factor + UNIT)}):
            expected, over = real(layers, secret.bounds, np.array([[x]]))
            if max(over) > 2 * UNIT:
                count += refused(secret, [x])
            else:
                assert np.abs(answer(secret, [x]) - expected).max() < 1e-2 * factor**0.5
    assert count >= 2


@pytest.mark.parametrize("name", GRAPHS)
def test_an_excess_by_one_unit(session, name):
    layers = GRAPHS[name](dense([1.0], bias=[UNIT]))
    secret = shared(session, layers, 8.0, 8.0)
    told = []
    for x in (8.0, 4.0, 2.0, *(np.floor(8 / k / UNIT) * UNIT - UNIT for k in (1, 2, 3))):
        expected, over = real(layers, secret.bounds, np.array([[x]]))
        if max(over) > 0:
            told += [one for one in over if one > 0]
            refused(secret, [x])
        else:
            assert np.abs(answer(secret, [x]) - expected).max() < 1e-3
    assert min(told) <= 2 * UNIT, told


def real(layers, bounds, X):
    """Return the output in real arithmetic, and the excess of each value over its limit."""
    found = run_all(layers, X, lambda _, layer, x: layer(x))
    over = [
        np.abs(x).max() - limit
        for x, limit in zip(found, bounds.limits, strict=True)
        if limit is not None
    ]
    return found[-1], over


def test_products_that_would_wrap_around_to_zero(session):
    """2^18 encoded is 2^34; times 2^14, encoded 2^30, that is 2^64: caught at the sum or before."""
    big = 2.0**14
    for layers in (
        Graph([(eye(factor=big), 0), (Add(), (1, 0)), (eye(factor=big), 2), (Add(), (3, 0))]),
        Graph([(eye(factor=big), 0), (Concat(), (1, 1)), (dense([big], [big]), 2)]),
        Graph([(eye(factor=big), 0), (Concat(), (1, 0)), (ReLU(), 2), (dense([big], [big]), 3)]),
    ):
        secret = shared(session, layers, 2.0**9, 16.0)
        for x in (16.0, 8.0, 2.0**-4):
            refused(secret, [x])
        assert answer(secret, [0.0]) == pytest.approx(0.0, abs=1e-3)


def residual_network(blocks=12, width=16):
    """Return a residual network whose interval bounds no format holds."""
    rng = np.random.default_rng(3)

    def layer():
        return Dense(rng.normal(size=(width, width)) / 6, rng.normal(size=width) / 8)

    nodes, last = [(layer(), 0), (ReLU(), 1)], 2
    for _ in range(blocks):
        nodes += [
            (layer(), last),
            (ReLU(), last + 1),
            (layer(), last + 2),
            (Add(), (last + 3, last)),
        ]
        nodes += [(ReLU(), last + 4)]
        last += 5
    nodes.append((layer(), last))
    return Classifier(Graph(nodes, width), np.arange(width), width, (0.0, 64.0)), rng


def test_a_deep_residual_network(session, tmp_path):
    model, rng = residual_network(12 if session.pair is None else 3)
    X = rng.random((20, 16))
    bounds = model.calibrate(X, margin=4)
    if session.pair is None:
        assert bounds.largest > 2.0**20
        with pytest.raises(RangeError, match=r"bounds=model.calibrate\(X\)"):
            model.share(session, session.parties[0])
    else:
        bounds = nn.Bounds(bounds.limits, bounds.reaches, 2.0**40, bounds.room)
    secret = model.share(session, session.parties[0], scores=True, bounds=bounds)
    assert secret.bounds == bounds
    rows = secret.share_rows(X, session.parties[1])
    expected = model.decision_function(X)
    scale = np.abs(expected).max()
    assert np.abs(secret.decision_function(rows) - expected).max() < 2e-3 * scale
    some = X.copy()
    some[7] = 64.0
    rows = secret.share_rows(some, session.parties[1])
    with pytest.raises(RangeError, match="left its limit"):
        secret.predict(rows)
    # Files and plans.
    if session.pair is None:
        nn.save_shares(secret, tmp_path)
        with mpc.Session(session.parties) as s:
            again = nn.load_shares(s, tmp_path)
            assert again.bounds == bounds
            found = again.predict(again.share_rows(X, "bob"))
            assert (found == secret.predict(secret.share_rows(X, "bob"))).all()
            plan = s.plan(
                lambda p: again.twin(p).predict(again.twin_rows(p, again.share_rows(X, "bob")))
            )
            before = s.cost()
            again.predict(again.share_rows(X, "bob"))
            assert plan.cost.rounds == (s.cost() - before).rounds


def test_rows_of_any_number_type_and_owner(session):
    model, rng = residual_network(12 if session.pair is None else 2)
    X = rng.random((7, 16))
    bounds = model.calibrate(X.astype(np.float32), margin=4)
    bounds = nn.Bounds(bounds.limits, bounds.reaches, 2.0**40, bounds.room)
    first, last = session.parties[0], session.parties[-1]
    secret = model.share(session, first, scores=True, bounds=bounds)
    wanted = model.decision_function(X)

    def scores(rows, **how):
        return secret(rows, **how).reveal()

    near = 2e-3 * np.abs(wanted).max()
    for count in (0, 1, 7):
        for kind in (np.float32, np.float64):
            rows = secret.share_rows(X[:count].astype(kind), last)
            np.testing.assert_allclose(scores(rows), wanted[:count], atol=near)
    np.testing.assert_allclose(scores(secret.share_rows(X, last), batch_size=3), wanted, atol=near)
    both = [secret.share_rows(X[:4], first), secret.share_rows(X[4:], last)]
    np.testing.assert_allclose(scores(np.concatenate(both)), wanted, atol=near)
    # A unit beyond the range: refused by its owner, before anything is shared.
    high = float(np.max(secret.high)) + UNIT
    with pytest.raises(RangeError, match="must lie in"):
        secret.share_rows(np.full((1, 16), high), last)
    assert len(secret.outputs(secret.check_rows(secret.share_rows(X[:2], last)))) == len(
        secret.layers
    )


def test_rows_that_came_with_a_graph_are_its_default(tmp_path):
    model, rng = residual_network(20)
    X = rng.random((20, 16))
    model.take_rows(X)
    model.save(tmp_path / "model")
    assert nn.load(tmp_path / "model").bounds_ == model.bounds_
    with mpc.Session() as s:
        secret = model.share(s, "alice")
        assert secret.bounds == model.bounds_ == model.outline().share(s, "alice").bounds
        assert (secret.predict(secret.share_rows(X, "bob")) == model.predict(X)).all()


def test_bounds_of_another_graph():
    layers = GRAPHS["residual"](eye())
    model, good = Regressor(layers, 1), bounds_of(layers, 8.0, 8.0)
    other = Graph(
        [(layer, taken) for layer, taken in zip(layers, inputs_of(layers), strict=True)][:-1]
    )
    moved = (*good.limits[:3], 8.0, None, None)
    with mpc.Session() as s:
        for limits, reaches in (
            (moved, good.reaches),
            (good.limits, (*good.reaches[:3], None, None, 8.0)),
        ):
            with pytest.raises(ArgumentError, match="must be those of this model's 6 layers"):
                model.share(s, "alice", low=-8, high=8, bounds=nn.Bounds(limits, reaches, 2.0**40))
        with pytest.raises(ArgumentError, match="must be those of this model's 5 layers"):
            Regressor(other, 1).share(s, "alice", low=-8, high=8, bounds=good)
        # The reach of a sum is that of its parts together.
        small = (*good.reaches[:3], good.reaches[2] / 2, *good.reaches[4:])
        with pytest.raises(RangeError, match=r"layer 4, Add\(\) can reach .* more than the"):
            model.share(s, "alice", low=-8, high=8, bounds=nn.Bounds(good.limits, small, 2.0**40))


def test_images_with_a_skip(session):
    rng = np.random.default_rng(1)

    def filters(a, b, size=3):
        return Convolution(rng.normal(size=(size, size, a, b)) / 3, np.zeros(b), padding="same")

    layers = Graph(
        [
            (Reshape(4, 4, 1), 0), (filters(1, 2), 1), (ReLU(), 2), (filters(2, 2), 3), (ReLU(), 4),
            (filters(2, 3), 5), (filters(2, 3, 1), 3), (Add(), (6, 7)), (MaxPool(2), 8), (ReLU(), 9),
            (filters(3, 2, 1), 10), (Concat(2), (10, 11)), (AveragePool(2), 12), (Flatten(), 13),
            (Dense(rng.normal(size=(5, 2)), np.zeros(2)), 14),
        ], 16,
    )  # fmt: skip
    model, X = Regressor(layers, 16), rng.uniform(-1, 1, size=(10, 16))
    bounds = model.calibrate(X, margin=1.5, low=-500, high=500)
    assert [k + 1 for k, limit in enumerate(bounds.limits) if limit] == [3, 5, 10, 11]
    bounds = nn.Bounds(bounds.limits, bounds.reaches, 2.0**40)
    secret = model.share(session, session.parties[0], low=-500, high=500, bounds=bounds)
    assert np.abs(answer(secret, X) - model.predict(X)).max() < 1e-2
    refused(secret, np.concatenate([X, 100 * X[3:4]]))


def random_graph(rng):
    """Return a graph whose values come near what the ring holds, for inputs of a random range."""
    features = int(rng.integers(1, 5))
    inputs, nodes, sizes = float(2.0 ** rng.integers(0, 11)), [], [features]
    unused = {0}

    def put(layer, taken, size):
        nodes.append((layer, taken))
        unused.difference_update(taken)
        sizes.append(size)
        unused.add(len(nodes))

    def some(like=None):
        # Later ones rather than earlier ones, so that there is something to wait for.
        found = [k for k in range(len(sizes)) if like is None or sizes[k] == sizes[like]]
        return int(rng.choice(found[-3:]))

    def dense_of(k, size):
        weights = rng.normal(size=(sizes[k], size)) * 2.0 ** rng.integers(-6, 6)
        put(Dense(weights, rng.normal(size=size) * 2.0 ** rng.integers(-4, 6)), (k,), size)

    for _ in range(int(rng.integers(4, 12))):
        k = some()
        kind = rng.integers(10)
        if kind < 3:
            dense_of(k, int(rng.choice([sizes[k], 2, 3])))
        elif kind == 3:
            taken = [k] + [some(k) for _ in range(rng.integers(1, 3))]
            put(rng.choice([Add(), Mean()]), tuple(taken), sizes[k])
        elif kind == 4:
            put(Subtract(), (k, some(k)), sizes[k])
        elif kind == 5 and sizes[k] < 9:
            other = some()
            put(Concat(), (k, other), sizes[k] + sizes[other])
        elif kind == 6:
            factor = rng.normal(size=sizes[k]) * 2.0 ** rng.integers(-3, 4)
            put(rng.choice([Scale(factor, factor), Shift(factor)]), (k,), sizes[k])
        elif kind == 7:
            least = float(rng.normal() * 2.0 ** rng.integers(-3, 4))
            put(Clip(least, None if rng.random() < 0.5 else least + 3.0), (k,), sizes[k])
        elif kind == 8:
            put(rng.choice([Maximum(), Minimum()]), (k, some(k)), sizes[k])
        else:
            put(rng.choice([ReLU(), ReLU(), LeakyReLU(0.25), Sigmoid()]), (k,), sizes[k])
    unused.discard(0)
    if len(unused) > 1:
        put(Concat(), tuple(sorted(unused)), sum(sizes[k] for k in unused))
    dense_of(len(nodes), 2)
    return Graph(nodes, features), features, inputs


def expected_of(layers, bounds, X):
    """Return the outputs, their largest error, and how the limits fare: as in test_range_proof."""
    worst = [-np.inf]

    def step(index, layer, given):
        limit = bounds.limits[index]
        parts, offs = zip(*given, strict=True) if layer.joins else ([given[0]], [given[1]])
        off = sum(offs) if isinstance(layer, (Add, Subtract, Mean)) else max(offs)
        if layer.parameters:
            layer = layer.with_parameters([np.rint(p / UNIT) * UNIT for p in layer.parameters])
        if isinstance(layer, Dense):
            off *= np.abs(layer.weights).sum(axis=0).max()
        elif isinstance(layer, Scale):
            off *= np.abs(layer.factor).max()
        elif isinstance(layer, Mean):
            off += UNIT * len(parts) * max(np.abs(p).max() for p in parts)
        y = layer(tuple(parts) if layer.joins else parts[0])
        off += 1e-4 if isinstance(layer, Sigmoid) else 4 * UNIT
        if limit is not None and worst[0] is not None and worst[0] <= 0:
            over = np.abs(y).max() - limit
            worst[0] = None if abs(over) <= off else max(worst[0], over)
        return y, off

    y, off = run_all(layers, (X, UNIT), step)[-1]
    return y, off, worst[0]


def test_random_graphs_are_right_or_refused():
    """Against real arithmetic: beyond a limit always refused, inside always taken and right."""
    told = {"inside": 0, "beyond": 0, "not shared": 0, "too near to say": 0}
    with mpc.Session() as dealt, mpc.Session(provider=None) as alone:
        for seed in range(int(os.environ.get("SOTTO_RANDOM_PROOFS", "24"))):
            rng = np.random.default_rng(seed)
            layers, features, inputs = random_graph(rng)
            limit = float(2.0 ** rng.integers(4, 14))
            bounds = bounds_of(layers, limit, inputs, (features,))
            model = Regressor(layers, features)
            model.output_scale_ = np.full(2, 1e9)  # precision is no matter here
            s = dealt if seed % 10 else alone
            try:
                secret = model.share(s, "alice", low=-inputs, high=inputs, bounds=bounds)
            except RangeError:
                told["not shared"] += 1
                continue
            for scale in 2.0 ** -np.arange(0, 16, 3.0):
                X = np.rint(rng.uniform(-inputs, inputs, (2, features)) * scale / UNIT) * UNIT
                y, off, excess = expected_of(layers, bounds, X)
                rows = secret.share_rows(X, "bob")
                if excess is None:
                    told["too near to say"] += 1
                elif excess > 0:
                    with pytest.raises(RangeError, match="left its limit"):
                        secret(rows)
                    told["beyond"] += 1
                else:
                    assert np.abs(secret(rows).reveal() - y).max() <= off, seed
                    told["inside"] += 1
    assert min(told["inside"], told["beyond"]) > 10, told


@pytest.mark.parametrize("layer", [Mean(), Subtract(), Add()])
def test_the_reach_of_a_sum_is_that_of_its_parts_together(layer):
    """No sum of some of them, and no sum before it is divided, is beyond it; whatever they cancel."""
    parts = [(eye(), 0), (ReLU(), 1), (dense([-1.0]), 0), (ReLU(), 3)]
    graph = Graph([*parts, (layer, (2, 4)), (eye(), 5)])
    good = bounds_of(graph, 8.0, 8.0)
    assert good.limits[4] == 8.0
    for reach, fits in ((15.9, False), (16.1, True)):
        bounds = nn.Bounds(good.limits, (*good.reaches[:4], reach, good.reaches[5]), 2.0**40)
        model = Regressor(graph, 1)
        with mpc.Session() as s:
            if fits:
                model.share(s, "alice", low=-8, high=8, bounds=bounds)
                continue
            with pytest.raises(RangeError, match=r"layer 5, .* can reach 16\."):
                model.share(s, "alice", low=-8, high=8, bounds=bounds)


def test_a_divisor_with_a_least_value(session):
    """1 / max(x, 2^-10): the reach of a choice is exact, and a format is named that holds what follows."""
    chain = [dense([2.0**7]), dense([2.0**7]), Clip(2.0**-10, None), Reciprocal(), eye()]
    model = Regressor(chain, 1)
    bounds = model.calibrate([[2.0**-15]], low=-8, high=8)
    with pytest.raises(
        RangeError, match=r"layer 4, Reciprocal.* can reach 10\d\d.*int_bits=11\) holds it"
    ):
        model.share(mpc.Session(frac_bits=16, int_bits=9), "alice", low=-8, high=8, bounds=bounds)
    secret = model.share(session, "alice", low=-8, high=8, bounds=bounds)
    X = np.array([[-UNIT], [0.0], [UNIT], [4 * UNIT], [16 * UNIT]])
    expected = 1 / np.maximum(X * 2.0**14, 2.0**-10)
    np.testing.assert_allclose(answer(secret, X), expected, rtol=2e-3, atol=1e-3)
    refused(secret, [8.0])


def test_a_divisor_that_may_be_zero_needs_a_least_value():
    model = Regressor([eye(), Reciprocal(), eye()], 1, (0.5, 1.0))
    with (
        mpc.Session() as s,
        pytest.raises(RangeError, match="no limits hold it: give what is divided by"),
    ):
        model.share(s, "alice")
    with pytest.raises(RangeError, match=r"layer 2, Reciprocal\(\): no bounds .* a least value"):
        model.calibrate([[0.75]])
