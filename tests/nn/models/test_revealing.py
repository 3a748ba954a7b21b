"""Shared models revealed as plain ones: of any layers, to one party, for rows as they are."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Dense, ReLU
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape, Transpose
from nn.models.predictors import Classifier, Regressor

random = np.random.default_rng(0)
X = random.uniform(size=(12, 128))


def images(outputs):
    return [
        Reshape(2, 8, 8),
        Transpose(1, 2, 0),
        Convolution(
            random.normal(size=(3, 3, 2, 4)), random.normal(size=4), padding=((2, 0), (1, 1))
        ),
        MaxPool(2),
        ReLU(),
        AveragePool((2, 1)),
        Flatten(),
        Dense(random.normal(size=(32, 5)), random.normal(size=5)),
        Tanh(),
        Dense(random.normal(size=(5, outputs)), random.normal(size=outputs)),
    ]


@pytest.mark.parametrize("to", [None, "bob"])
def test_networks_of_images(to, tmp_path):
    model = nn.Sequential.from_layers(images(3), 128, classes=["a", "b", "c"])
    with mpc.Session(("alice", "bob", "carol")) as s:
        again = model.share(s, owner="alice").reveal(to)
    assert type(again) is nn.Sequential and repr(again.layers) == repr(model.layers)
    for ours, theirs in zip(model.parameters, again.parameters, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=2**-16)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.input_range_ == (0, 1) and again.link == "softmax"
    again.save(tmp_path / "m.npz")
    read = nn.load(tmp_path / "m.npz")
    assert repr(read.layers) == repr(model.layers)
    np.testing.assert_array_equal(read.predict_proba(X), again.predict_proba(X))


@pytest.mark.parametrize("outputs", [1, 2])
def test_regressors(outputs, tmp_path):
    model = Regressor(images(outputs), 128, (0, 1))
    with mpc.Session() as s:
        again = model.share(s, owner="bob").reveal(to="alice")
    assert type(again) is Regressor and again.flat == (outputs == 1)
    assert again.predict(X).shape == model.predict(X).shape
    np.testing.assert_allclose(again.predict(X), model.predict(X), atol=1e-2)
    again.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(nn.load(tmp_path / "m.npz").predict(X), again.predict(X))


@pytest.mark.parametrize("activation", [ReLU, Sigmoid])
def test_scaled_inputs_are_folded_back(activation):
    scale = np.array([1e-3, 1.0, 4e3, 1e6])
    rows = random.normal(size=(60, 4)) * scale + np.array([0, 100, 0, 5e6])
    hidden = Dense(random.normal(size=(4, 6)) / scale[:, None], random.normal(size=6))
    hidden.bias -= rows.mean(axis=0) @ hidden.weights
    layers = [hidden, activation(), Dense(random.normal(size=(6, 3)), random.normal(size=3))]
    model = Classifier(layers, [2, 4, 6], 4, link="one_vs_rest")
    model.take_rows(rows)
    model.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        assert secret.inputs is not None
        again = secret.reveal()
    assert type(again) is (nn.MLP if activation is ReLU else nn.Sequential)
    np.testing.assert_allclose(
        again.decision_function(rows), model.decision_function(rows), atol=0.01
    )
    np.testing.assert_allclose(again.predict_proba(rows), model.predict_proba(rows), atol=0.01)
    np.testing.assert_array_equal(again.input_range_, (secret.low, secret.high))
    assert again.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with mpc.Session() as s:
        labels = again.share(s, owner="bob")
        predicted = labels.predict(labels.share_rows(rows, owner="alice"))
    assert (predicted == model.predict(rows)).mean() >= 0.98


def test_machines_without_probabilities_have_none_when_revealed():
    model = Classifier([Dense(np.eye(2), np.zeros(2))], [0, 1], 2, (0, 1), link=None)
    with mpc.Session() as s:
        again = model.share(s, owner="alice").reveal()
    with pytest.raises(mpc.ArgumentError, match="no probabilities"):
        again.predict_proba([[1.0, 0.0]])


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_probabilities_after_training_on_shares(loss):
    rows = random.uniform(size=(40, 6))
    labels = (rows[:, 0] > rows[:, 1]).astype(int)
    setting = {"epochs": 4, "batch_size": 8, "learning_rate": 0.25, "loss": loss}
    plain = nn.MLP((6, 5, 2), random_state=0).fit(rows, labels, **setting)
    with mpc.Session() as s:
        secret = nn.MLP((6, 5, 2), random_state=0).fit(
            s.share(rows, owner="alice", bound=1),
            s.share(nn.one_hot(labels), owner="bob"),
            **setting,
        )
        shared = secret.share_rows(rows, owner="alice")
        on_shares, again = secret.predict_proba(shared, to="alice"), secret.reveal(to="bob")
    link = {"cross_entropy": "softmax", "squared_error": "normalised"}[loss]
    assert secret.link == again.link == plain.link == link
    np.testing.assert_allclose(on_shares, plain.predict_proba(rows), atol=0.02)
    np.testing.assert_allclose(again.predict_proba(rows), plain.predict_proba(rows), atol=0.02)


def test_a_network_trained_on_shares(tmp_path):
    rows, _, labels, _ = nn.load_digits_8x8()
    rows, labels = rows[:96], labels[:96]
    layers = [
        Reshape(8, 8, 1), Convolution.untrained(1, 4, kernel=3), MaxPool(2), ReLU(), Flatten(),
        Dense.untrained(36, 10),
    ]  # fmt: skip
    setting = {"epochs": 2, "batch_size": 32, "learning_rate": 0.125}
    with mpc.Session() as s:
        secret = nn.Sequential(layers, 64, random_state=0).fit(
            s.share(rows, owner="alice", bound=1),
            s.share(nn.one_hot(labels), owner="bob"),
            **setting,
        )
        scores = secret.decision_function(secret.share_rows(rows, owner="alice"))
        again = secret.reveal(to="alice")
    np.testing.assert_allclose(again.decision_function(rows), scores, atol=2e-3)
    again.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(nn.load(tmp_path / "m.npz").predict(rows), again.predict(rows))
    with mpc.Session() as s:
        shared = again.share(s, owner="alice", low=0, high=1)
        predicted = shared.predict(shared.share_rows(rows, owner="bob"))
    assert (predicted == again.predict(rows)).mean() >= 0.97


def test_revealing_costs_what_was_planned():
    model = nn.Sequential.from_layers(images(3), 128)

    def program(s):
        model.share(s, owner="alice").reveal(to="bob")

    with mpc.Session() as s:
        plan = s.plan(program)
        program(s)
        assert plan.cost == s.cost()
