"""Options of the estimators that scikit-learn's users know: in the clear and on shares."""

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nn
from nn.layers import Dense
from ring.errors import ArgumentError

X, Y = make_classification(160, 6, n_informative=4, n_redundant=0, random_state=1)
X /= 3
WORDS = np.where(Y, "yes", "no")
ROWS, VALUES = make_regression(160, 6, noise=1, random_state=0)
ROWS /= 3
SIZE = {"hidden_layer_sizes": (8,), "batch_size": 32, "random_state": 0}
HOW = {**SIZE, "max_iter": 5, "learning_rate_init": 0.02}
KINDS = {
    "classes": (nn.SecureMLPClassifier, X, WORDS),
    "values": (nn.SecureMLPRegressor, ROWS, VALUES),
}


def close(one, other, error=3e-3):
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        # Relative to the layer: a regressor's last one is in the targets' units.
        assert np.abs(a - b).max() < error * max(1, np.abs(b).max())


def apart(one, other):
    assert max(np.abs(a - b).max() for a, b in zip(one.coefs_, other.coefs_, strict=True)) > 1e-2


OPTIONS = {
    "activation": {"activation": "tanh"},
    "alpha": {"alpha": 0.5},
    "alpha of sgd": {"alpha": 0.1, "solver": "sgd"},
    "early_stopping": {"early_stopping": True, "validation_fraction": 0.25, "n_iter_no_change": 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_training_on_shares_follows(kind, option):
    made, rows, y = KINDS[kind]
    how = {**HOW, **OPTIONS[option]}
    weights = np.linspace(0, 2, len(rows))
    plain = made(**how).fit(rows, y, weights)
    secret = made(**how, encrypted_fit=True).fit(rows, y, weights)
    assert plain.n_iter_ == secret.n_iter_
    if option == "early_stopping":
        assert secret.validation_scores_ == pytest.approx(plain.validation_scores_, abs=5e-3)
    assert hasattr(secret, "validation_scores_") == (option == "early_stopping")
    close(secret, plain, 1e-2 if how.get("solver") is None else 3e-3)
    apart(plain, made(**HOW).fit(rows, y))
    apart(plain, made(**how).fit(rows, y))  # without the weights


def test_activations_are_those_of_the_layers():
    for name, kinds in {
        "relu": ["Dense", "ReLU", "Dense"], "tanh": ["Dense", "Tanh", "Dense"],
        "logistic": ["Dense", "Sigmoid", "Dense"], "identity": ["Dense", "Dense"],
    }.items():  # fmt: skip
        model = nn.SecureMLPClassifier(**HOW, activation=name).fit(X, Y)
        assert [type(layer).__name__ for layer in model.model_.layers] == kinds
        assert model.predict(X[:8]).shape == (8,)
        network = nn.MLP((6, 8, 2), random_state=0, activation=name).fit(X, Y, epochs=1)
        assert [type(layer).__name__ for layer in network.layers] == kinds
        again = nn.MLP.from_parameters(network.parameters, activation=name)
        assert np.array_equal(again.predict(X), network.predict(X))
    assert repr(network) == "MLP((6, 8, 2), random_state=0, activation='identity')"
    with pytest.raises(ArgumentError, match="activation must be one of"):
        nn.MLP((6, 2), activation="sigmoid")
    with pytest.raises(ArgumentError, match="activation must be one of"):
        nn.MLP.from_parameters(network.parameters, activation="gelu")


def test_an_mlp_with_another_activation_is_written_and_read(tmp_path):
    model = nn.MLP((6, 8, 2), random_state=0, activation="tanh").fit(X, Y, epochs=1)
    model.save(tmp_path / "m.npz")
    read = nn.load(tmp_path / "m.npz")
    assert type(read) is nn.MLP and read.activation == "tanh"
    assert np.array_equal(read.decision_function(X), model.decision_function(X))


def test_alpha_makes_weights_small():
    sizes = [
        np.abs(nn.SecureMLPClassifier(**HOW, alpha=alpha).fit(X, Y).coefs_[0]).mean()
        for alpha in (0, 1, 10)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_early_stopping_stops():
    model = nn.SecureMLPClassifier(
        **{**SIZE, "max_iter": 300},
        early_stopping=True,
        n_iter_no_change=3,
        learning_rate_init=0.02,
    ).fit(X, Y)
    assert model.n_iter_ == len(model.validation_scores_) < 300
    best = max(model.validation_scores_)
    assert max(model.validation_scores_[-3:]) <= max(model.validation_scores_[:-3]) == best


def test_the_rare_class_is_found():
    rows = np.random.default_rng(0).normal(size=(400, 3)) / 3
    rare = (rows[:, 0] > np.sort(rows[:, 0])[-5]) * 1  # 4 of 400
    how = {**SIZE, "max_iter": 6, "learning_rate_init": 0.01}
    assert not nn.SecureMLPClassifier(**how).fit(rows, rare).predict(rows).any()
    for extra in ({}, {"encrypted_fit": True, "max_iter": 3}):
        model = nn.SecureMLPClassifier(**{**how, **extra}, class_weight="balanced").fit(rows, rare)
        assert model.predict(rows)[rare == 1].all()
    by_hand = {0: 400 / 2 / 396, 1: 400 / 2 / 4}
    close(
        nn.SecureMLPClassifier(**how, class_weight=by_hand).fit(rows, rare),
        nn.SecureMLPClassifier(**how, class_weight="balanced").fit(rows, rare),
        1e-9,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_goes_on(kind):
    made, rows, y = KINDS[kind]
    for shares in (False, True):
        model = made(**HOW, warm_start=True, encrypted_fit=shares).fit(rows, y)
        first = [w.copy() for w in model.coefs_]
        again = model.set_params(max_iter=1, learning_rate_init=1e-5).fit(rows, y)
        assert again is model
        for a, b in zip(model.coefs_, first, strict=True):
            assert np.abs(a - b).max() < 5e-3 * max(1, np.abs(b).max())
        # Without it the training begins anew.
        cold = model.set_params(warm_start=False).fit(rows, y)
        assert max(np.abs(a - b).max() for a, b in zip(cold.coefs_, first, strict=True)) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_come_in_parts(kind):
    made, rows, y = KINDS[kind]
    how = {**SIZE, "learning_rate_init": 0.03, "solver": "sgd"}
    plain, secret = made(**how), made(**how, encrypted_fit=True)
    extra = {"classes": ["yes", "no"]} if kind == "classes" else {}
    for start in (0, 80, 0, 80):
        part = slice(start, start + 80)
        plain.partial_fit(rows[part], y[part], **extra)
        secret.partial_fit(rows[part], y[part], **extra)
        assert plain.n_iter_ == secret.n_iter_ == 1
    close(secret, plain)
    whole = made(**{**how, "max_iter": 8}).fit(rows, y)
    for _ in range(30):
        plain.partial_fit(rows, y)
    assert plain.score(rows, y) > min(0.7, whole.score(rows, y) - 0.1)


def test_a_part_may_lack_a_class():
    model = nn.SecureMLPClassifier(**HOW)
    model.partial_fit(X[Y == 1], WORDS[Y == 1], classes=["no", "yes"])
    # A weight counts also in a part that lacks the class, or has nothing else.
    weighed = nn.SecureMLPClassifier(**HOW, class_weight={"yes": 3.0})
    weighed.partial_fit(X[Y == 0], WORDS[Y == 0], classes=["no", "yes"])
    alike = nn.SecureMLPClassifier(**HOW)
    close(weighed, alike.partial_fit(X[Y == 0], WORDS[Y == 0], ["no", "yes"]), 1e-12)
    with pytest.raises(ArgumentError, match="'balanced' for partial_fit, which sees a part"):
        weighed.set_params(class_weight="balanced").partial_fit(X, WORDS)
    assert model.classes_.tolist() == ["no", "yes"]
    model.partial_fit(X[Y == 0], WORDS[Y == 0])
    before = [w.copy() for w in model.coefs_]
    for y, extra, text in [
        (WORDS, {"classes": ["no", "maybe"]}, "those of the first call"),
        (np.where(Y, "yes", "maybe"), {}, "labels from classes only, got .*'maybe'"),
    ]:
        with pytest.raises(ArgumentError, match=text):
            model.partial_fit(X, y, **extra)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :5], WORDS)
    assert all(np.array_equal(a, b) for a, b in zip(model.coefs_, before, strict=True))
    with pytest.raises(ArgumentError, match="at least two classes"):
        nn.SecureMLPClassifier(**HOW).partial_fit(X[:4], ["yes"] * 4)
    model.set_params(warm_start=True)
    with pytest.raises(ArgumentError, match="labels of the fit before"):
        model.fit(X, np.where(Y, "yes", "maybe"))
    several = nn.SecureMLPRegressor(**HOW).fit(ROWS, VALUES)
    with pytest.raises(ArgumentError, match="1 outputs as in the fit before, got 2"):
        several.partial_fit(ROWS, np.stack([VALUES, VALUES], axis=1))


def test_wrong_weights_are_refused_and_leave_no_model():
    for shares in (False, True):
        model = nn.SecureMLPClassifier(**HOW, encrypted_fit=shares)
        for weights in (np.full(160, -1.0), np.full(160, 2000.0), np.zeros(160)):
            with pytest.raises(ValueError, match="(?i)weights?"):
                model.fit(X, Y, weights)
        assert not hasattr(model, "model_")


def test_a_grid_over_the_new_options():
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), nn.SecureMLPClassifier(**HOW, class_weight="balanced")),
        {"securemlpclassifier__activation": ["identity", "tanh"]},
        cv=2,
    ).fit(X, Y, securemlpclassifier__sample_weight=np.ones(160))
    assert isinstance(grid.best_estimator_[-1].model_.layers[0], Dense)
    assert grid.best_score_ > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_two_is_a_row_twice(kind):
    made, rows, y = KINDS[kind]
    weights = np.where(np.arange(160) < 10, 2.0, np.where(np.arange(160) < 20, 0.0, 1.0))
    twice = np.repeat(np.arange(160), weights.astype(int))
    # One batch, so that the order is no matter; Adam takes no notice of the loss's unit.
    how = {**HOW, "batch_size": 400, "max_iter": 20}
    weighted = made(**how).fit(rows, y, weights)
    repeated = made(**how).fit(rows[twice], y[twice])
    close(weighted, repeated, 1e-5)
    apart(weighted, made(**how).fit(rows, y))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_is_refused_leaves_the_model_as_it_was(kind):
    made, rows, y = KINDS[kind]
    wide = np.concatenate([rows, rows[:, :1]], axis=1)
    unfitted = made(**HOW)
    for model in (unfitted, made(**HOW).fit(rows, y)):
        before = set(vars(model)), getattr(model, "n_features_in_", None)
        for weights in (np.full(len(rows), -1.0), np.full(len(rows), 2000.0)):
            with pytest.raises(ValueError, match="weights"):
                model.fit(wide, y, weights)
        assert (set(vars(model)), getattr(model, "n_features_in_", None)) == before
    with pytest.raises(NotFittedError):
        unfitted.predict(rows)
    assert len(model.predict(rows[:3])) == 3
    model.partial_fit(rows, y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_holds_out_no_rows(kind):
    """As in scikit-learn, where an option would be ignored otherwise."""
    made, rows, y = KINDS[kind]
    model = made(**HOW, early_stopping=True)
    with pytest.raises(ArgumentError, match="early_stopping must be False for partial_fit"):
        model.partial_fit(rows, y)
    assert not hasattr(model, "model_")
