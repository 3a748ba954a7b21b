"""Graphs on shares: the same values as in the clear, one mask a value, batches, files, plans, workers."""

import re

import numpy as np
import pytest

import mpc
import nn
from nn.layers import (
    Add,
    BatchNorm,
    Concat,
    Dense,
    Dropout,
    Graph,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    MatMul,
    Maximum,
    Mean,
    Minimum,
    Multiply,
    Pad,
    ReLU,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    Subtract,
    Take,
)  # fmt: skip
from nn.layers.layer import parameters
from nn.layers.normalisation import folded, frozen
from nn.models.heads import Head, HeadsModel
from nn.models.predictors import Classifier, Regressor
from ring.errors import ArgumentError, DtypeError, RangeError

random = np.random.default_rng(7)
X = random.uniform(-1, 1, size=(12, 6))


def dense(inputs, outputs):
    weights = random.normal(size=(inputs, outputs)) / np.sqrt(inputs)
    return Dense(weights, random.normal(size=outputs) / 4)


def everything():
    """A graph with every layer that joins or selects."""
    return Graph(
        [
            (dense(6, 6), 0), (ReLU(), 1), (dense(6, 6), 2), (Add(), (3, 0)), (Subtract(), (4, 2)),
            (Multiply(), (4, 5)), (Mean(), (4, 5, 6)), (Maximum(), (6, 7, 0)), (Minimum(), (8, 4)),
            (Concat(), (9, 6, 0)), (Scale(random.normal(size=18), random.normal(size=18)), 10),
            (Take(0, [3, 17, 17, 4, 5, 6]), 11), (Reshape(2, 3), 12), (Pad([(1, 0), (0, 1)], 0.5), 13),
            (Shift(random.normal(size=(3, 1))), 14), (Take(1, [3, 2, 1]), 15), (MatMul(), (15, 15)),
            (MatMul(), (16, 16)),
        ][:16]
        + [(MatMul(), (16, 16)), (Reshape(9), 17), (dense(9, 3), 18)]
    )  # fmt: skip


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
def test_a_graph_on_shares_is_the_graph_in_the_clear(parties):
    model = Classifier(everything(), ["a", "b", "c"], 6, (-1, 1))
    audit = model.audit(X)
    assert audit.fits and audit.layers[-1].error_observed <= audit.error_bound
    assert audit.layers[4].name == "4 Add() of 3, 0"
    with mpc.Session(parties) as s:
        secret = model.share(s, owner="alice", scores=True)
        rows = secret.share_rows(X, owner="bob")
        np.testing.assert_allclose(
            secret.decision_function(rows), model.decision_function(X), atol=audit.error_bound
        )
        np.testing.assert_array_equal(secret.predict(rows), model.predict(X))
        compared = nn.compare(model, secret, X)
        assert [d.name for d in compared.layers] == [a.name for a in audit.layers[1:]]
        for difference, layer in zip(compared.layers, audit.layers[1:], strict=True):
            assert difference.difference <= layer.error_bound


def test_without_a_provider():
    model = Regressor(
        Graph([(dense(6, 6), 0), (ReLU(), 1), (Add(), (2, 0)), (dense(6, 2), 3)]), 6, (-1, 1)
    )
    with mpc.Session(provider=None) as s:
        secret = model.share(s, owner="alice")
        found = secret.predict(secret.share_rows(X[:2], owner="bob"))
    np.testing.assert_allclose(found, model.predict(X[:2]), atol=1e-3)


def test_a_value_with_several_uses_is_opened_once():
    layers = [dense(6, 6) for _ in range(3)]
    graph = Graph([*((layer, 0) for layer in layers), (Add(), (1, 2, 3))])
    with mpc.Session() as s:
        secret = Regressor(graph, 6, (-1, 1)).share(s, owner="alice")
        rows = secret.share_rows(X, owner="bob")
        before = s.cost().total
        secret(rows)
        # Bob opens his rows once, alice each of three matrices: the larger number counts.
        assert (s.cost().total - before).bytes_sent == max(X.size, 3 * 36) * 8


def test_batches_files_plans_and_revealing(tmp_path):
    model = Classifier(everything(), [3, 4, 5], 6, (-1, 1))
    model.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", scores=True)
        nn.save_shares(secret, tmp_path / "shares")
        back = secret.reveal()
        np.testing.assert_allclose(back.decision_function(X), model.decision_function(X), atol=1e-3)
        assert repr(back.layers) == repr(model.layers)
    with mpc.Session() as s:
        secret = nn.load_shares(s, tmp_path / "shares")
        rows = secret.share_rows(X, owner="bob")
        whole = secret(rows).reveal()
        rows = secret.share_rows(X, owner="bob")
        pieces = secret(rows, batch_size=5).reveal()
        np.testing.assert_allclose(whole, model.decision_function(X), atol=1e-3)
        np.testing.assert_allclose(pieces, model.decision_function(X), atol=1e-3)
        rows = secret.share_rows(X, owner="bob")
        planned = s.plan(lambda p: secret.twin(p).predict(secret.twin_rows(p, rows))).cost.total
        before = s.cost().total
        secret.predict(rows)
        spent = s.cost().total - before
        assert (spent.rounds, spent.bytes_sent) == (planned.rounds, planned.bytes_sent)


def heads():
    graph = Graph(
        [(dense(6, 8), 0), (ReLU(), 1), (dense(8, 3), 2), (dense(8, 1), 2), (Concat(), (3, 4))]
    )
    return HeadsModel(
        graph, 6, [Head("kind", 0, 3, (3,), "labels"), Head("age", 3, 4, (), "values")], (-1, 1)
    )


def test_several_outputs_and_inputs_by_name(tmp_path):
    model = heads()
    model.inputs_ = {"left": 4, "right": 2}
    parts = {"left": X[:, :4], "right": X[:, 4:]}
    plain = model.predict(X)
    for name, values in model.predict(parts).items():
        np.testing.assert_array_equal(values, plain[name])
    model.save(tmp_path / "m.npz")
    model = nn.load(tmp_path / "m.npz")
    assert model.inputs_ == {"left": 4, "right": 2}
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", scores=True)
        nn.save_shares(secret, tmp_path / "shares")
        secret = nn.load_shares(s, tmp_path / "shares")
        rows = {
            **secret.share_rows({"right": parts["right"]}, owner="alice"),
            **secret.share_rows({"left": parts["left"]}, owner="bob"),
        }
        assert set(secret(rows)) == {"kind", "age"}
        for given in (rows, secret.share_rows(X, owner="bob")):
            found = secret.predict(given)
            np.testing.assert_array_equal(found["kind"], plain["kind"])
            np.testing.assert_allclose(found["age"], plain["age"], atol=1e-3)
        assert 0 < nn.compare(model, secret, parts).difference < 1e-3
        scores = secret.decision_function(rows)
        np.testing.assert_allclose(scores["kind"], model.decision_function(X)["kind"], atol=1e-3)
        with pytest.raises(ArgumentError, match="none called 'right'"):
            secret({"left": rows["left"]})
        with pytest.raises(ArgumentError, match="left, right, got 'other'"):
            secret.share_rows({"other": X}, owner="bob")
        with pytest.raises(RangeError, match="must lie in"):
            secret.share_rows({"left": 3 * np.ones((2, 4))}, owner="bob")
        back = secret.reveal()
        np.testing.assert_array_equal(back.predict(X)["kind"], plain["kind"])
    with pytest.raises(ArgumentError, match="none called 'right'"):
        model.predict({"left": X[:, :4]})


def test_training_a_residual_network_in_the_clear_and_on_shares():
    X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    X_train, y_train = X_train[:300], y_train[:300]
    graph = Graph(
        [
            (Dense.untrained(64, 16), 0), (ReLU(), 1), (Dense.untrained(16, 16), 2), (Add(), (3, 2)),
            (ReLU(), 4), (Dense.untrained(16, 10), 5),
        ]
    )  # fmt: skip
    network = nn.Sequential(graph, 64, random_state=0)
    settings = {"epochs": 8, "batch_size": 32, "learning_rate": 0.125}
    plain = nn.Sequential(graph, 64, random_state=0).fit(X_train, y_train, **settings)
    accuracy = plain.score(X_test, y_test)
    assert accuracy > 0.8
    with mpc.Session() as s:
        secret = network.fit(
            s.share(X_train, owner="alice"), s.share(nn.one_hot(y_train), owner="bob"), **settings
        )
        again = secret.reveal()
    assert abs(again.score(X_test, y_test) - accuracy) < 0.03


def residual(norm):
    return Graph(
        [
            (Dense.untrained(64, 16), 0), (norm(16), 1), (ReLU(), 2), (Dense.untrained(16, 16), 3),
            (norm(16), 4), (Add(), (5, 3)), (ReLU(), 6), (Dense.untrained(16, 10), 7), (LogSoftmax(), 8),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")], ids=len)
def test_batch_normalisation_and_dropout_are_trained_on_shares_as_in_the_clear(parties):
    X_train, _, y_train, _ = nn.load_digits_8x8()
    X_train, y_train = X_train[:136], y_train[:136]  # the last batch has 8 rows

    def network():
        nodes = [(node.layer, node.inputs) for node in residual(BatchNorm.untrained).nodes]
        nodes[-2:] = [(Dropout(0.25), 7), (nodes[-2][0], 8), (LogSoftmax(), 9)]
        return nn.Sequential(Graph(nodes), 64, random_state=0)

    settings = {"epochs": 3, "batch_size": 32, "learning_rate": 0.125}
    plain = network().fit(X_train, y_train, validation=(X_train, y_train), **settings)
    with mpc.Session(parties) as s:
        data = s.share(X_train, owner="alice", bound=1), s.share(nn.one_hot(y_train), owner="bob")
        secret = network().fit(*data, validation=data, **settings)
        found = secret.reveal()
        scores = secret(secret.share_rows(X_train, owner="bob")).reveal()
    wanted = folded(frozen(plain.layers))
    assert [type(layer) for layer in found.layers] == [type(layer) for layer in wanted]
    for mine, other in zip(found.parameters, parameters(wanted), strict=True):
        np.testing.assert_allclose(mine, other, atol=3e-3)
    np.testing.assert_allclose(scores, plain.decision_function(X_train), atol=1e-2)
    assert secret.validation_scores_ == pytest.approx(plain.validation_scores_, abs=0.01)
    norm = plain.layers[1]
    assert np.abs(norm.mean).max() > 0.1 and np.abs(norm.variance - 1).max() > 0.1


def test_rounds_that_batch_normalisation_and_dropout_add_to_a_step():
    def rounds(*between):
        layers = [Dense.untrained(6, 4), *between, Dense.untrained(4, 2)]
        with mpc.Session() as s:
            rows, targets = s.share(X, owner="alice"), s.share(nn.one_hot([0, 1] * 6), owner="bob")
            how = {"epochs": 1, "batch_size": 12, "check_range": False}
            model = nn.Sequential(layers, 6, random_state=0).fit(rows, targets, **how)
        return model.epoch_costs_[0].rounds

    without = rounds(ReLU())
    assert 40 <= rounds(BatchNorm.untrained(4), ReLU()) - without <= 50
    assert [rounds(ReLU(), Dropout(rate)) - without for rate in (0.5, 0.75, 0.3)] == [1, 1, 3]


@pytest.mark.parametrize(
    "layer",
    [LayerNorm(np.ones(6), np.zeros(6)), RMSNorm(np.ones(6)), LocalResponseNorm(3)],
    ids=repr,
)
def test_what_is_not_trained_on_shares_is_refused_by_name_and_before_it_starts(layer):
    network = nn.Sequential([layer, Dense.untrained(6, 2)], 6, random_state=0)
    with mpc.Session() as s:
        rows, targets = s.share(X, owner="alice"), s.share(nn.one_hot([0, 1] * 6), owner="bob")
        before = s.cost().total, s.last_id
        with pytest.raises(DtypeError, match=re.escape(f"layer 1, {layer!r}, is not trained on")):
            network.fit(rows, targets, epochs=1)
        assert (s.cost().total, s.last_id) == before


def test_what_has_no_way_back_is_refused_before_training():
    graph = Graph([(Dense.untrained(6, 2), 0), (Dense.untrained(6, 2), 0), (Maximum(), (1, 2))])
    with pytest.raises(ArgumentError, match=r"layer 3, Maximum\(\), cannot be trained"):
        nn.Sequential(graph, 6).fit(X, np.arange(12) % 2)
    with mpc.Session() as s:
        rows, targets = (
            s.share(X, owner="alice"),
            s.share(nn.one_hot(np.arange(12) % 2), owner="bob"),
        )
        before = s.cost().total.rounds
        with pytest.raises(ArgumentError, match=r"layer 3, Maximum\(\), cannot be trained"):
            nn.Sequential(graph, 6).fit(rows, targets)
        assert s.cost().total.rounds == before
