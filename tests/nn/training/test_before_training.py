"""What a layer or a loss lacks is refused before training starts, in the clear and on shares."""

import dataclasses

import numpy as np
import pytest

import mpc
import nn
from nn.layers import LAYERS, Dense, Layer, ReLU
from nn.losses import LOSSES, Loss
from ring.errors import ArgumentError, DtypeError

X = np.random.default_rng(1).uniform(size=(12, 3))
Y = np.arange(12) % 2


class Halved(ReLU):
    """A layer that computes, and is not registered."""


class Powered(Layer):
    """A layer of a registered kind that forgets what it was made with."""

    options = ("factor",)
    may_grow = False

    def __init__(self, factor):
        super().__init__()
        self.factor = 2 * factor

    def __repr__(self):
        return f"Powered({self.factor})"

    def __call__(self, x):
        return x * 0.5

    forward = __call__

    def backward(self, gradient, *, input_gradient=True):
        return gradient * 0.5

    def bounds(self, low, high):
        return np.asarray(low) / 2, np.asarray(high) / 2

    def output_shape(self, input_shape):
        return input_shape


@pytest.fixture(autouse=True)
def powered_is_known(monkeypatch):
    monkeypatch.setitem(LAYERS, "Powered", Powered)


def network(layer):
    return nn.Sequential([Dense.untrained(3, 4), layer, Dense.untrained(4, 2)], 3, random_state=0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Halved(), r"layer 2 could not be saved after training: .*nn\.layers\.register"),
        (Powered(1), r"layer 2, Powered\(2\), could not be saved after training: .*Powered\(4\)"),
        (Powered(1j), "layer 2 could not be saved after training: .*complex"),
    ],
    ids=["not registered", "made otherwise", "no plain options"],
)
def test_layers_that_files_cannot_hold(layer, message):
    model = network(layer)
    with pytest.raises(DtypeError, match=message):
        model.fit(X, Y)
    assert "layers" not in vars(model)
    with mpc.Session() as s:
        rows, targets = s.share(X, owner="alice"), s.share(nn.one_hot(Y), owner="bob")
        before = s.cost().total.rounds
        with pytest.raises(DtypeError, match=message):
            model.fit(rows, targets)
        assert s.cost().total.rounds == before


def parts():
    return {f.name: getattr(LOSSES["squared_error"], f.name) for f in dataclasses.fields(Loss)}


@pytest.mark.parametrize("part", ["value", "gradient", "shared_value", "shared_gradient", "link"])
def test_losses_that_lack_a_part(part):
    whole = parts() | {"name": "mine"}
    with pytest.raises(ArgumentError, match=f"{part} of loss 'mine' must be .*, got None"):
        Loss(**whole | {part: None})
    with pytest.raises(TypeError, match=part):
        Loss(**{name: value for name, value in whole.items() if name != part})


def test_losses_that_are_none():
    for bad in ("mean", None, ReLU(), ["squared_error"]):
        with pytest.raises(ArgumentError, match="loss must be one of .*cross_entropy.* or a Loss"):
            nn.MLP((3, 2)).fit(X, Y, loss=bad)
    with pytest.raises(
        ArgumentError, match="name of a loss must be a string that is not empty, got ''"
    ):
        Loss(**parts() | {"name": ""})


def test_a_loss_of_ones_own_trains_and_is_saved(tmp_path):
    # Twice the squared error, which is the squared error with half the learning rate.
    known = LOSSES["squared_error"]
    own = Loss(
        name="doubled",
        value=lambda scores, targets: 2 * known.value(scores, targets),
        gradient=lambda scores, targets: 2 * known.gradient(scores, targets),
        shared_value=lambda scores, targets: known.shared_value(scores, targets) * 2,
        shared_gradient=lambda scores, targets: known.shared_gradient(scores, targets) * 2,
        link="normalised",
    )
    model = nn.MLP((3, 4, 2), random_state=0).fit(X, Y, loss=own, learning_rate=0.25)
    same = nn.MLP((3, 4, 2), random_state=0).fit(X, Y, loss="squared_error", learning_rate=0.5)
    for a, b in zip(model.parameters, same.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    model.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(
        nn.load(tmp_path / "m.npz").predict_proba(X), model.predict_proba(X)
    )
    with mpc.Session() as s:
        rows, targets = s.share(X, owner="alice"), s.share(nn.one_hot(Y), owner="bob")
        fitted = nn.MLP((3, 4, 2), random_state=0).fit(
            rows, targets, loss=own, learning_rate=0.25, validation=(rows, targets)
        )
        for a, b in zip(fitted.reveal().parameters, model.parameters, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)
        wanted = own.value(model.decision_function(X), nn.one_hot(Y))
        assert fitted.validation_losses_[-1] == pytest.approx(wanted, abs=5e-3)
