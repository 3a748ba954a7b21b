"""One output, labels beside each other, and what a training starts from: in the clear and on shares."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import mpc
import nn
from mpc import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from nn.layers import Add, BatchNorm, Dense, Dropout, Graph, ReLU, Sigmoid
from nn.layers.layer import parameters
from nn.layers.normalisation import folded, frozen
from nn.models.predictors import Regressor
from nn.models.trainable import NotFittedError
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor

NAMES = ("alice", "bob", "carol")
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-1, 1, size=(160, 5))
SIGN = (X[:, 0] + X[:, 1] * X[:, 2] > 0) * 1
VALUES = X[:, 0] - X[:, 1] * X[:, 2]
LABELS = np.stack([X[:, 0] > 0, X[:, 1] > X[:, 2], X[:, 3] > 0.5], axis=1) * 1
HOW = {"epochs": 2, "batch_size": 32, "learning_rate": 0.25}
# Arguments of a training, and its targets, by task.
TASKS = {
    "two classes": (1, {}, SIGN),
    "squared error": (1, {"loss": "squared_error", "learning_rate": 0.1}, VALUES),
    "huber": (1, {"loss": "huber", "learning_rate": 0.1}, VALUES),
    "squared error of two": (
        2, {"loss": "squared_error", "numbers": True, "learning_rate": 0.1}, np.c_[VALUES, X[:, 1]],
    ),
    "labels": (3, {"loss": "binary_cross_entropy"}, LABELS),
}  # fmt: skip


def network(outputs, random_state=0):
    return nn.MLP((5, 8, outputs), random_state=random_state)


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def session(request):
    with mpc.Session(NAMES[: request.param]) as s:
        yield s


def share(s, y=SIGN):
    return s.share(X, owner="alice", bound=1), s.share(y, owner="bob", bound=2)


@pytest.mark.parametrize("task", TASKS)
def test_training_on_shares_follows(session, task):
    outputs, how, y = TASKS[task]
    how = {**HOW, **how}
    plain = network(outputs).fit(X, y, validation=(X, y), **how)
    data = share(session, y)
    secret = network(outputs).fit(*data, validation=data, **how)
    assert type(secret) is (SharedModel if task == "two classes" else SharedRegressor)
    revealed = secret.reveal()
    for found, expected in zip(revealed.parameters, plain.parameters, strict=True):
        assert np.abs(found - expected).max() < 1e-3
    assert secret.validation_scores_ == pytest.approx(plain.validation_scores_, abs=5e-3)
    assert secret.validation_losses_[-1] == pytest.approx(plain.loss_curve_[-1], rel=0.3)
    rows = secret.share_rows(X, owner="bob")
    found, expected = secret.predict(rows), plain.predict(X)
    assert found.shape == expected.shape == y.shape
    if "error" in task or task == "huber":
        assert np.abs(found - expected).max() < 1e-3
    else:
        assert np.mean(found == expected) > 0.99
    assert np.array_equal(revealed.predict(X).shape, y.shape)
    # A plain model is shared as any other.
    again = plain.share(session, owner="alice")
    close = np.abs(again.predict(again.share_rows(X, owner="bob")) - expected)
    assert np.mean(close < 1e-3) > 0.99


def test_one_output_learns_two_classes_of_any_labels():
    words = np.where(SIGN, "yes", "no")
    how = {"epochs": 40, "batch_size": 16, "learning_rate": 0.3}
    model = network(1).fit(X, words, **how)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.score(X, words) > 0.93
    odds = model.predict_proba(X)
    assert np.allclose(odds.sum(axis=1), 1)
    assert np.array_equal(odds[:, 1] > 0.5, model.predict(X) == "yes")
    # Both classes share the sigmoid of one score.
    scores = model.decision_function(X)
    assert not scores[:, 0].any()
    assert np.allclose(odds[:, 1], 1 / (1 + np.exp(-scores[:, 1])))
    # A network without a hidden layer is scikit-learn's logistic regression.
    linear = nn.MLP((5, 1), random_state=0).fit(X, words, epochs=400, batch_size=160, momentum=0.9)
    known = LogisticRegression(C=1e6).fit(X, words)
    assert np.mean(linear.predict(X) == known.predict(X)) > 0.99


def test_labels_are_learnt_beside_each_other():
    model = network(3).fit(
        X, LABELS, loss="binary_cross_entropy", epochs=60, batch_size=16, learning_rate=0.3
    )
    found = model.predict(X)
    assert {*np.unique(found)} == {0, 1}
    assert np.mean(found == LABELS) > 0.95


def test_numbers_are_learnt():
    how = {"loss": "squared_error", "epochs": 60, "batch_size": 16, "learning_rate": 0.1}
    model = network(1).fit(X, VALUES, **how)
    assert model.score(X, VALUES) > 0.95
    assert model.fit(X, VALUES.reshape(-1, 1), **how).predict(X).shape == (160,)


def test_patience_counts_the_loss_of_numbers():
    how = {"loss": "squared_error", "epochs": 30, "batch_size": 16, "patience": 2}
    # From a rate that is too large the loss rises.
    model = network(1).fit(X, VALUES, validation=(X, VALUES[::-1]), learning_rate=0.3, **how)
    assert len(model.validation_scores_) < 30
    assert max(model.validation_scores_) < 0


@pytest.mark.parametrize("task", TASKS)
def test_models_of_every_task_are_written_and_read(tmp_path, task):
    outputs, how, y = TASKS[task]
    model = network(outputs).fit(X, y, **{**HOW, **how})
    model.save(tmp_path / "model.npz")
    read = nn.load(tmp_path / "model.npz")
    assert isinstance(read, Regressor) == (task != "two classes")
    assert np.array_equal(read.predict(X), model.predict(X))
    assert read.score(X, y) == model.score(X, y)
    with mpc.Session() as s:
        secret = network(outputs).fit(*share(s, y), **{**HOW, **how})
        nn.save_shares(secret, tmp_path)
        rows = secret.share_rows(X, owner="bob")
        before = secret.predict(rows)
        found = nn.load_shares(s, tmp_path)
        assert np.allclose(found.predict(rows), before, atol=1e-3)


def test_a_model_of_numbers_has_no_probabilities_until_it_learns_classes():
    model = network(1).fit(X, VALUES, loss="squared_error", **HOW)
    for ask in (model.decision_function, model.predict_proba, model.predict_log_proba):
        with pytest.raises(ArgumentError, match="numbers or labels: use predict"):
            ask(X)
    assert model.fit(X, SIGN, **HOW).predict_proba(X).shape == (160, 2)


def test_more_than_128_classes(session):
    """The softmax of a row of 200: cross-entropy on shares follows the one in the clear."""
    rows = np.random.default_rng(1).uniform(-1, 1, size=(200, 6))
    network = nn.MLP((6, 200), random_state=0)
    how = {"epochs": 2, "batch_size": 50, "learning_rate": 4.0, "momentum": 0.5}
    plain = nn.MLP((6, 200), random_state=0).fit(rows, np.arange(200), **how)
    shared = session.share(rows, owner="alice", bound=1)
    secret = network.fit(shared, session.share(np.eye(200, dtype=int), owner="bob"), **how)
    for found, expected in zip(secret.reveal().parameters, plain.parameters, strict=True):
        assert np.abs(found - expected).max() < 1e-3 < np.abs(expected).max()
    assert np.mean(secret.predict(shared) == plain.predict(rows)) > 0.98


def test_weights_of_rows_and_classes(session):
    for task, extra in {
        "two classes": {"class_weight": {1: 3.0}, "sample_weight": np.linspace(0, 2, 160)},
        "squared error": {"sample_weight": np.linspace(0, 2, 160)},
    }.items():
        outputs, how, y = TASKS[task]
        how = {**HOW, **how, "epochs": 1}
        plain = network(outputs).fit(X, y, **how, **extra)
        other = network(outputs).fit(X, y, **how)
        secret = network(outputs).fit(*share(session, y), **how, **extra).reveal()
        for found, expected, without in zip(
            secret.parameters, plain.parameters, other.parameters, strict=True
        ):
            assert np.abs(found - expected).max() < 1e-3
            assert np.abs(expected - without).max() > 1e-3


def test_networks_of_other_layers_get_two_scores_too(session):
    dense = [Dense.untrained(5, 5), Dense.untrained(5, 1)]
    for layers in (
        [Dense.untrained(5, 4), ReLU(), Dense.untrained(4, 1), Sigmoid()],
        Graph([(dense[0], 0), (ReLU(), 1), (Add(), (0, 2)), (dense[1], 3)]),
    ):
        model = nn.Sequential(layers, 5, random_state=0)
        plain = model.fit(X, SIGN, **HOW)
        assert plain.decision_function(X).shape == (160, 2)
        secret = nn.Sequential(layers, 5, random_state=0).fit(*share(session), **HOW)
        rows = secret.share_rows(X, owner="bob")
        assert np.mean(secret.predict(rows) == plain.predict(X)) > 0.98


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("outputs", "y", "how", "error", "text"),
    [
        (1, np.arange(160) % 3, {}, ArgumentError, "two different labels"),
        (1, VALUES[:9], {"loss": "huber"}, ShapeError, "(160, 1)"),
        (1, np.full(160, np.nan), {"loss": "huber"}, RangeError, "finite"),
        (1, VALUES, {"loss": "huber", "classes": [0, 1]}, ArgumentError, "classes is for"),
        (1, VALUES, {"loss": "huber", "class_weight": {0: 1}}, ArgumentError, "class_weight is"),
        (2, VALUES, {"loss": "huber", "numbers": True}, ShapeError, "(160, 2)"),
        (2, LABELS[:, :2], {"numbers": True}, ArgumentError, "a loss of numbers"),
        (3, SIGN, {"loss": "binary_cross_entropy"}, ShapeError, "(160, 3)"),
        (3, LABELS * 2, {"loss": "binary_cross_entropy"}, ArgumentError, "of 0 and 1"),
        (3, LABELS, {"loss": "binary_cross_entropy", "class_weight": {0: 1}}, ArgumentError, "of labels"),
    ],
)  # fmt: skip
def test_wrong_targets_are_refused(outputs, y, how, error, text, shared):
    model = network(outputs)
    with mpc.Session() as s:
        data = X, y
        if shared:
            if text in ("two different labels", "finite", "of 0 and 1"):
                return  # what only the owner of the targets can see
            data = s.share(X, owner="alice", bound=1), s.share(y, owner="bob")
        with pytest.raises(error, match=re.escape(text)):
            model.fit(*data, **{**HOW, **how})
    with pytest.raises(NotFittedError):
        model.layers  # noqa: B018


# What a training starts from.


@pytest.mark.parametrize("task", TASKS)
def test_training_goes_on_from_a_model(session, task):
    outputs, how, y = TASKS[task]
    how = {**HOW, **how, "schedule": "constant"}
    model = network(outputs).fit(X, y, **how)
    first = [p.copy() for p in model.parameters]
    # alice's model, which bob does not know, and bob's rows.
    secret = model.share(session, owner="alice", low=-1, high=1)
    if task != "two classes":
        assert secret.predict(secret.share_rows(X, owner="bob")).shape == y.shape
    tuned = network(outputs).fit(*share(session, y), start=secret, **how).reveal()
    public = network(outputs).fit(*share(session, y), start=model, **how).reveal()
    other = network(outputs, random_state=0).fit(X, y, start=model, **how)
    assert all(np.array_equal(a, b) for a, b in zip(model.parameters, first, strict=True))
    same = model.fit(X, y, start=model, **how)
    assert same is model
    for found, also, expected, mine, before in zip(
        tuned.parameters, public.parameters, other.parameters, model.parameters, first, strict=True
    ):
        assert np.abs(found - expected).max() < 2e-3
        assert np.abs(also - expected).max() < 2e-3
        assert np.array_equal(mine, expected)
        assert np.abs(expected - before).max() > 3e-3


def test_fine_tuning_keeps_labels_and_what_may_be_revealed():
    words = np.where(SIGN, "yes", "no")
    model = nn.MLP((5, 8, 2), random_state=0).fit(X, words, **HOW)
    few = nn.MLP((5, 8, 2), random_state=0).fit(X[:3], ["yes"] * 3, start=model, **HOW)
    assert few.classes_.tolist() == ["no", "yes"]
    with mpc.Session() as s:
        for scores in (False, True):
            secret = model.share(s, owner="alice", low=-1, high=1, scores=scores)
            data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
            tuned = nn.MLP((5, 8, 2), random_state=0).fit(*data, start=secret, **HOW)
            assert tuned.classes_.tolist() == ["no", "yes"]
            assert tuned.scores is scores


def test_a_training_goes_on_from_one_on_shares_with_batch_normalisation():
    layers = [Dense.untrained(5, 4), BatchNorm.untrained(4), Dense.untrained(4, 2)]
    with mpc.Session() as s:
        data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
        first = nn.Sequential(layers, 5, random_state=0).fit(*data, **HOW)
        how = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-4}
        again = nn.Sequential(layers, 5, random_state=1).fit(*data, start=first, **how)
        found = [model.reveal().parameters for model in (first, again)]
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() < 2e-3


def test_parties_with_other_models_to_start_from_are_told_so():
    """What the parties compare of ``fit`` says which shared model is meant, of several alike."""
    model = nn.MLP((5, 8, 2), random_state=0).fit(X, SIGN, **HOW)
    noted = []
    with mpc.Session() as s:
        note = s.note
        s.note = lambda *step: (noted.append(step), note(*step))
        data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
        first = model.share(s, owner="alice", low=-1, high=1)
        other = model.share(s, owner="alice", low=-1, high=1)
        tuned = [nn.MLP((5, 8, 2)).fit(*data, start=first, **HOW) for _ in range(2)]
        for start in (first, first, other, *tuned):
            nn.MLP((5, 8, 2), random_state=0).fit(*data, start=start, **HOW)
    same, again, *others = [step for step in noted if step[0] == "fit"][2:]
    assert same == again
    assert len({repr(step) for step in (same, *others)}) == 4


def test_a_training_of_labels_shows_no_scores_that_are_hidden():
    model = nn.MLP((5, 8, 2), random_state=0).fit(X, SIGN, **HOW)
    how = {**HOW, "epochs": 1, "loss": "binary_cross_entropy"}
    with mpc.Session() as s:
        data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
        hidden, shown = (
            model.share(s, owner="alice", low=-1, high=1, scores=scores) for scores in (False, True)
        )
        with pytest.raises(ArgumentError, match="shows the class of a row alone"):
            nn.MLP((5, 8, 2), random_state=0).fit(*data, start=hidden, **how)
        labels = nn.MLP((5, 8, 2), random_state=0).fit(*data, start=shown, **how)
        nn.MLP((5, 8, 2), random_state=0).fit(*data, start=labels, **how)


def test_nobody_knows_secret_initial_weights(session):
    # A step that hardly moves them.
    how = {"epochs": 1, "batch_size": 160, "learning_rate": 1e-2, "start": "secret"}
    parts = []
    plain_share = session.share

    def share_and_see(values, owner, **options):
        parts.append((owner, np.array(values)))
        return plain_share(values, owner, **options)

    data = share(session)
    session.share = share_and_see
    wide = nn.MLP((5, 400, 1), random_state=0)
    found = [wide.fit(*data, **how).reveal().parameters[0] for _ in range(2)]
    del session.share
    deviation = np.sqrt(2 / 5)
    public = nn.MLP((5, 400, 1), random_state=0)._fresh_layers(np.random.default_rng(0), np.float64)
    known = [p[: 5 * 400].reshape(5, 400) for _, p in parts]
    assert [owner for owner, _ in parts] == [*session.parties] * 2
    for weights in found:
        assert weights.std() == pytest.approx(deviation, rel=0.1)
        # Neither the public ones, nor those of another run, nor any party's part alone.
        for others in (public[0].weights, *known):
            assert (weights - others).std() > deviation / np.sqrt(session.size) / 2
    assert (found[0] - found[1]).std() > deviation
    # Together they are.
    assert np.abs(found[0] - sum(known[: session.size])).max() < 2e-2
    # A bias of 0 is no secret.
    assert parts[0][1].shape == (5 * 400 + 400,)


def test_a_training_from_secret_weights_learns():
    """Of one layer: there is one best answer, and a way down to it from wherever it starts."""
    wanted = np.array([0.5, -0.5, 0.25, 0.0, 0.125])
    how = {**HOW, "epochs": 40, "start": "secret", "loss": "squared_error"}
    with mpc.Session() as s:
        data = share(s, X @ wanted)
        model = nn.MLP((5, 1)).fit(*data, validation=data, **how)
        weights, bias = model.reveal().parameters
    assert np.abs(weights[:, 0] - wanted).max() < 5e-3 and abs(bias[0]) < 5e-3
    assert model.validation_scores_[-1] == pytest.approx(0, abs=1e-3)


def test_a_start_of_another_kind_is_refused():
    model = nn.MLP((5, 8, 2), random_state=0).fit(X, SIGN, **HOW)
    other = nn.MLP((5, 7, 2), random_state=0).fit(X, SIGN, **HOW)
    with mpc.Session() as s, mpc.Session() as elsewhere:
        data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
        before = s.cost().rounds
        ranged = model.share(s, owner="alice", low=[-1] * 5, high=[1, 2, 3, 4, 500])
        for start, error, text in [
            ("public", ArgumentError, "start must be a model or 'secret'"),
            (3, DtypeError, "start must be a model or 'secret', got int"),
            (other, ArgumentError, "start must have the layers [Dense(5, 8)"),
            (other.share(s, owner="alice"), ArgumentError, "start must have the layers"),
            (model.share(elsewhere, owner="alice"), SessionError, "another session"),
            (ranged, ArgumentError, "one range for all features"),
        ]:
            with pytest.raises(error, match=re.escape(text)):
                nn.MLP((5, 8, 2), random_state=0).fit(*data, start=start, **HOW)
        assert s.cost().rounds == before
        for start in ("secret", ranged, 3):
            with pytest.raises(ArgumentError, match="plain model for a training in the clear"):
                nn.MLP((5, 8, 2)).fit(X, SIGN, start=start, **HOW)
    with pytest.raises(ArgumentError, match=re.escape("start must have the layers [Dense(5, 8)")):
        nn.MLP((5, 8, 2)).fit(X, SIGN, start=other, **HOW)


def test_statistics_of_batch_normalisation_go_on():
    layers = [Dense.untrained(5, 4), BatchNorm.untrained(4), Dropout(0.2), Dense.untrained(4, 2)]
    model = nn.Sequential(layers, 5, random_state=0).fit(X, SIGN, **HOW)
    mean = model.layers[1].mean.copy()
    again = nn.Sequential(layers, 5, random_state=0).fit(
        X, SIGN, start=model, epochs=1, batch_size=160, learning_rate=1e-6
    )
    assert np.array_equal(model.layers[1].mean, mean)
    # One update with the same weights.
    batch = model.layers[0](X).mean(axis=0)
    assert np.allclose(again.layers[1].mean, 0.9 * mean + 0.1 * batch, atol=1e-12)


def test_fine_tuning_drops_elements_and_keeps_or_moves_statistics():
    """From a plain model statistics go on; from one that was shared or written they stay folded in."""
    layers = [
        Dense.untrained(5, 4), BatchNorm.untrained(4), ReLU(), Dropout(0.5), Dense.untrained(4, 2)
    ]  # fmt: skip
    model = nn.Sequential(layers, 5, random_state=0).fit(X, SIGN, **HOW)
    written = nn.Sequential.from_layers(folded(model.layers), 5)

    def tuned(start, *data):
        return nn.Sequential(layers, 5, random_state=1).fit(*data, start=start, **HOW)

    with mpc.Session() as s:
        data = s.share(X, owner="bob", bound=1), s.share(nn.one_hot(SIGN), owner="bob", bound=1)
        secret = model.share(s, owner="alice", low=-1, high=1)
        on_shares = [tuned(start, *data).reveal().parameters for start in (model, secret)]
        # With a Scale for the statistics, and dropout still.
        again = [tuned(tuned(model, *data), *data).layers, tuned(secret, *data).layers]
    clear = tuned(model, X, SIGN), tuned(written, X, SIGN)
    wanted = [parameters(folded(frozen(one.layers))) for one in clear]
    for found, expected in zip(on_shares, wanted, strict=True):
        for a, b in zip(found, expected, strict=True):
            assert np.abs(a - b).max() < 2e-3
    assert [len(x) for x in again] == [4, 3]
    assert [type(x) for x in clear[1].layers] == [Dense, ReLU, Dropout, Dense]
    whole = nn.Sequential([layers[0], ReLU(), layers[-1]], 5, random_state=1)
    without = whole.fit(X, SIGN, start=written, **HOW).parameters
    assert max(np.abs(a - b).max() for a, b in zip(without, wanted[1], strict=True)) > 0.01
