"""Weights of classes and rows in training: plain and on shares, what they find, and refusals."""

import re

import numpy as np
import pytest

import mpc
import nn
from mpc import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from nn.training.weights import shared_weights

HOW = {"epochs": 3, "batch_size": 32, "learning_rate": 0.05}


def network():
    return nn.MLP((4, 8, 2), random_state=0)


@pytest.fixture(scope="module")
def rare():
    """Rows of which one in forty is of the second class."""
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 4))
    edge = np.sort(X @ [1, 0.5, 0, 0])[-10]
    return X, (X @ [1, 0.5, 0, 0] >= edge).astype(int)


def test_the_rare_class_is_found(rare):
    X, y = rare
    assert not network().fit(X, y, **HOW).predict(X).any()
    for weight in ("balanced", {1: 30.0}, {0: 0.5, 1: 20}):
        assert network().fit(X, y, class_weight=weight, **HOW).predict(X)[y == 1].all()


def test_weights_are_what_scikit_learn_calls_balanced(rare):
    X, y = rare
    counts = np.bincount(y)
    by_hand = {k: len(y) / (2 * counts[k]) for k in (0, 1)}
    found = network().fit(X, y, class_weight="balanced", **HOW)
    expected = network().fit(X, y, class_weight=by_hand, **HOW)
    also = network().fit(X, y, sample_weight=np.where(y, by_hand[1], by_hand[0]), **HOW)
    for a, b, c in zip(found.parameters, expected.parameters, also.parameters, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_weight_of_two_is_a_row_twice(rare, loss):
    X, y = rare[0][:40], np.arange(40) % 2
    weights = np.where(np.arange(40) < 10, 2.0, 1.0)
    how = {
        "epochs": 2,
        "batch_size": 50,
        "learning_rate": 0.1,
        "schedule": "constant",
        "loss": loss,
    }
    twice = network().fit(np.concatenate([X, X[:10]]), np.concatenate([y, y[:10]]), **how)
    # The mean is over 40 rows in place of 50.
    once = network().fit(X, y, sample_weight=weights * 40 / 50, **how)
    for a, b in zip(once.parameters, twice.parameters, strict=True):
        assert a == pytest.approx(b, abs=1e-12)
    assert once.loss_curve_ == pytest.approx(twice.loss_curve_, abs=1e-12)


def test_rows_of_weight_zero_change_nothing(rare):
    X, y = rare[0][:32], np.arange(32) % 2
    weights = (np.arange(32) < 20).astype(float)
    changed = np.where(weights[:, None] > 0, X, X[::-1])
    found = [network().fit(x, y, sample_weight=weights, **HOW).parameters for x in (X, changed)]
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("given", ["classes", "secret rows", "public rows", "both"])
def test_training_on_shares_follows(rare, parties, loss, given):
    X, y = rare[0][:96], np.arange(96) % 5 == 0
    sample = None if given == "classes" else np.linspace(0, 3, 96)
    classes = {True: 4.5, False: 0.75} if given in ("classes", "both") else None
    how = {**HOW, "epochs": 1, "loss": loss, "classes": [False, True]}
    plain = network().fit(X, y, class_weight=classes, sample_weight=sample, **how)
    unweighted = network().fit(X, y, **how)
    with mpc.Session(parties) as s:
        rows = s.share(X, owner="bob", bound=6), s.share(nn.one_hot(y * 1, 2), owner="bob", bound=1)
        weights = sample
        if given in ("secret rows", "both"):
            weights = s.share(sample, owner="bob", bound=4)
        secret = network().fit(*rows, class_weight=classes, sample_weight=weights, **how).reveal()
    for found, expected, other in zip(
        secret.parameters, plain.parameters, unweighted.parameters, strict=True
    ):
        assert np.abs(found - expected).max() < 5e-4
        assert np.abs(expected - other).max() > 5e-3


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        ({"class_weight": {2: 1}}, ArgumentError, "classes of y, [0, 1], got 2"),
        ({"class_weight": {1: -1}}, ArgumentError, "class_weight[1] must be at least 0"),
        ({"class_weight": {1: np.nan}}, ArgumentError, "class_weight[1] must be at least 0"),
        ({"class_weight": {1: 1025}}, ArgumentError, "got 1025"),
        ({"class_weight": {1: "2"}}, DtypeError, "class_weight[1] must be a number"),
        ({"class_weight": [1, 2]}, DtypeError, "None, 'balanced' or a dict"),
        ({"class_weight": "rare"}, DtypeError, "None, 'balanced' or a dict"),
        ({"class_weight": {0: 0, 1: 0}}, ArgumentError, "weights of all rows are 0"),
        ({"sample_weight": np.ones(7)}, ShapeError, "the shape (8,), got (7,)"),
        ({"sample_weight": np.ones((8, 1))}, ShapeError, "the shape (8,), got (8, 1)"),
        ({"sample_weight": np.zeros(8)}, ArgumentError, "weights of all rows are 0"),
        ({"sample_weight": [1] * 7 + [-1]}, ArgumentError, "got -1 in row 7"),
        ({"sample_weight": [1] * 7 + [np.nan]}, ArgumentError, "got nan in row 7"),
        ({"sample_weight": [1] * 7 + [1e4]}, ArgumentError, "from 0 to 1024, got 10000 in row 7"),
        ({"sample_weight": ["a"] * 8}, DtypeError, "sample_weight must hold real numbers"),
    ],
)
def test_wrong_weights_are_refused(weights, error, text, shared):
    X, y = np.ones((8, 4)), np.arange(8) % 2
    model = network()
    with mpc.Session(["alice", "bob"]) as s:
        rows = X, y
        if shared:
            rows = s.share(X, owner="bob"), s.share(nn.one_hot(y, 2), owner="bob", bound=1)
        with pytest.raises(error, match=re.escape(text)):
            model.fit(*rows, epochs=1, **weights)
    assert not hasattr(model, "layers")


@pytest.mark.parametrize("shared", ["whole numbers", "fixed point", "one output"])
def test_balanced_weights_are_counted_on_shares(rare, shared):
    X, y = rare
    outputs = 1 if shared == "one output" else 2
    targets = y if outputs == 1 else nn.one_hot(y, 2)
    made = nn.MLP((4, 8, outputs), random_state=0)
    plain = made.fit(X, y, class_weight="balanced", **HOW)
    with mpc.Session(["alice", "bob"]) as s:
        rows = s.share(X, owner="bob", bound=8)
        labels = s.share(targets * (1.0 if shared == "fixed point" else 1), owner="alice", bound=1)
        found = nn.MLP((4, 8, outputs), random_state=0).fit(
            rows, labels, class_weight="balanced", **HOW
        )
        assert found.predict(found.share_rows(X, owner="bob"))[y == 1].all()
        parameters = found.reveal().parameters
    for a, b in zip(parameters, plain.parameters, strict=True):
        assert np.abs(a - b).max() < 2e-3


def test_balanced_weights_of_very_rare_and_missing_classes():
    y = np.where(np.arange(8192) == 5, 1, 0)
    with mpc.Session() as s:
        weights = shared_weights(
            s.share(nn.one_hot(y, 3), owner="bob", bound=1), np.arange(3), "balanced", None
        )
        assert weights.bound <= 1025 * 2**16
        found = weights.reveal()[:, 0]
    assert found[5] == pytest.approx(1024, rel=1e-4)
    assert np.abs(np.delete(found, 5) - 8192 / 3 / 8191).max() < 1e-4


def test_wrong_shared_weights_are_refused():
    X, y = np.ones((8, 4)), np.arange(8) % 2
    with mpc.Session(["alice", "bob"]) as s, mpc.Session(["alice", "bob"]) as other:
        rows = s.share(X, owner="bob"), s.share(nn.one_hot(y, 2), owner="bob", bound=1)
        before = s.cost().rounds
        for weights, error, text in [
            ({"sample_weight": s.share(np.ones(8), owner="bob")}, RangeError, "at most 1024, got"),
            ({"sample_weight": s.share(np.ones(7), owner="bob", bound=1)}, ShapeError, "(8,)"),
            (
                {"sample_weight": other.share(np.ones(8), owner="bob", bound=1)},
                SessionError,
                "another session",
            ),
        ]:
            with pytest.raises(error, match=re.escape(text)):
                network().fit(*rows, epochs=1, **weights)
        assert s.cost().rounds == before


def test_a_run_with_other_weights_is_not_resumed(tmp_path):
    X, y = np.eye(8)[:, :4], np.arange(8) % 2
    with mpc.Session(["alice", "bob"]) as s:
        rows = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(y, 2), owner="bob", bound=1)
        network().fit(*rows, epochs=1, class_weight={1: 2}, checkpoint=tmp_path)
        with pytest.raises(ArgumentError, match="class_weight"):
            network().fit(*rows, epochs=1, class_weight={1: 3}, checkpoint=tmp_path, resume=True)
