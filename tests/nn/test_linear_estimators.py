"""Linear, ridge and logistic regression on shares: scikit-learn's answers, or a named refusal."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context, datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mpc
import nn
from nn.shared.linear_models import LARGEST_SYSTEM, DependentColumnsError

NAMES = ("alice", "bob", "carol")
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-1, 1, size=(60, 4))
VALUES = X[:, 0] - 2 * X[:, 1] + RANDOM.normal(size=60) * 0.3
SIGN = (VALUES > 0) * 1
KINDS = np.digitize(VALUES, [-0.7, 0.7])
WEIGHTS = RANDOM.integers(0, 4, 60).astype(float)
# The errors that docs/training.md states: of coefficients relative to the largest one, of values relative
# to the deviation of the targets, of probabilities.
RELATIVE, OF_VALUES, OF_ODDS = 3e-4, 2e-4, 3e-4


def exact(kind, **options):
    if kind is LogisticRegression:
        options |= {"tol": 1e-8, "max_iter": 10000, "solver": "newton-cg"}
    return kind(**options)


def near(coefficients, expected, most=RELATIVE):
    return np.abs(coefficients - expected).max() <= most * np.abs(expected).max()


# Ours, scikit-learn's, options, data set, options of fit.
CASES = {
    "linear, diabetes": (nn.SecureLinearRegression, LinearRegression, {}, "diabetes", False),
    "ridge, weights": (nn.SecureRidge, Ridge, {"alpha": 2.5}, "diabetes", True),
    "ridge, no intercept": (nn.SecureRidge, Ridge, {"fit_intercept": False}, "diabetes", False),
    "logistic, breast cancer": (
        nn.SecureLogisticRegression, LogisticRegression, {"C": 0.5}, "breast_cancer", False,
    ),
    "softmax, iris": (nn.SecureLogisticRegression, LogisticRegression, {}, "iris", True),
    "balanced, iris": (
        nn.SecureLogisticRegression, LogisticRegression,
        {"class_weight": "balanced", "fit_intercept": False}, "iris", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_scikit_learn(case):
    """In the data's own units, which differ by orders of magnitude."""
    ours, theirs, options, name, weighted = CASES[case]
    rows, y = getattr(datasets, f"load_{name}")(
        return_X_y=True, **({"scaled": False} if name == "diabetes" else {})
    )
    if name == "breast_cancer":
        rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    if name == "iris":
        y = np.array(["setosa", "versicolor", "virginica"])[y]
    weights = RANDOM.integers(0, 3, len(y)).astype(float) if weighted else None
    made = ours(**options).fit(rows, y, sample_weight=weights)
    right = exact(theirs, **options).fit(rows, y, sample_weight=weights)
    assert made.coef_.shape == right.coef_.shape
    assert np.shape(made.intercept_) == np.shape(right.intercept_)
    assert near(made.coef_, right.coef_)
    if theirs is LogisticRegression:
        assert np.abs(made.predict_proba(rows) - right.predict_proba(rows)).max() <= OF_ODDS
        assert made.predict(rows).tolist() == right.predict(rows).tolist()
        assert made.decision_function(rows).shape == right.decision_function(rows).shape
        assert 1 < made.n_iter_[0] < 20
    else:
        assert np.abs(made.predict(rows) - right.predict(rows)).max() <= OF_VALUES * y.std()
    plain = nn.from_sklearn(made, rows)
    assert (np.ravel(plain.predict(rows)) == np.ravel(made.model_.predict(rows))).all()


def share(s, y=VALUES, rows=X):
    return s.share(rows, owner="alice", bound=1), s.share(y, owner="bob", bound=8)


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def session(request):
    with mpc.Session(NAMES[: request.param], ranges="error") as s:
        yield s


def test_regression_on_shares(session, monkeypatch):
    rows, y = share(session, np.column_stack([VALUES, 3 * X[:, 1]]))
    weights = session.share(WEIGHTS, owner="carol" if session.size == 3 else "bob", bound=4)
    revealed = []
    real = mpc.Session.reveal
    monkeypatch.setattr(
        mpc.Session, "reveal", lambda s, x, to=None: revealed.append(real(s, x, to)) or revealed[-1]
    )
    secret = nn.SecureRidge(alpha=0.5).fit(rows, y, weights)
    # Two bits, and the number of ranges that the model holds.
    assert [np.shape(x) for x in revealed] == [(2,), ()] and revealed[0].tolist() == [1, 1]
    assert not hasattr(secret, "coef_")
    right = Ridge(alpha=0.5).fit(X, np.column_stack([VALUES, 3 * X[:, 1]]), WEIGHTS)
    (layer,) = secret.reveal().layers
    assert near(layer.weights.T, right.coef_) and near(layer.bias, right.intercept_, 3e-3)
    assert np.abs(secret.predict(rows) - right.predict(X)).max() < 1e-3


def test_a_logistic_regression_opens_bits_alone(monkeypatch):
    revealed = []
    real = mpc.Session.reveal
    monkeypatch.setattr(
        mpc.Session, "reveal", lambda s, x, to=None: revealed.append(real(s, x, to)) or revealed[-1]
    )
    with mpc.Session() as s:
        nn.SecureLogisticRegression(tol=0.1).fit(*share(s, SIGN))
    *bits, ranges = [np.ravel(x).tolist() for x in revealed]
    steps = len(bits) // 2 - 1
    # Of the labels; of each step one and two more, of the last one two; of the answer.
    assert bits == [[1], *[[0], [1, 1]] * (steps - 1), [1], [1], [1]] and len(ranges) == 1


def test_classes_on_shares(session):
    rows, labels = share(session, nn.one_hot(KINDS))
    # A class weight and a bound that is not stated.
    right = exact(LogisticRegression, class_weight={0: 3.0}).fit(X, KINDS)
    fit = nn.SecureLogisticRegression(class_weight={"a": 3}).fit
    secret = fit(rows, labels, classes=["a", "b", "c"])
    (layer,) = secret.reveal().layers
    assert near(layer.weights.T, right.coef_, 1e-3)
    assert (secret.predict(rows) == np.array(["a", "b", "c"])[right.predict(X)]).all()
    assert np.abs(secret.predict_proba(rows) - right.predict_proba(X)).max() < 1e-3
    two = nn.SecureLogisticRegression().fit(rows, share(session, nn.one_hot(SIGN))[1])
    same = nn.SecureLogisticRegression().fit(rows, session.share(SIGN > 0, owner="bob"))
    right = exact(LogisticRegression).fit(X, SIGN)
    for model in (two, same):
        assert near(model.reveal().layers[0].weights[:, 1], right.coef_[0], 1e-3)
        assert (model.predict(rows) == right.predict(X)).all()


def test_settings_of_any_size():
    nn.SecureLogisticRegression(tol=1e308).fit(X, SIGN)
    with pytest.warns(ConvergenceWarning):
        nn.SecureLogisticRegression(max_iter=1).fit(1e300 * X, SIGN)
    with mpc.Session() as s:
        rows, labels = share(s, SIGN)
        weights = nn.SecureRidge(alpha=1e307).fit(rows, labels).reveal().layers[0].weights
        # None, up to the unit by which each is rounded at random.
        assert np.abs(weights).max() <= 2.0**-16
        with pytest.raises(mpc.RangeError, match=r"penalty, 1e\+30, .* larger C"):
            nn.SecureLogisticRegression(C=1e-30).fit(rows, labels)


def test_balanced_classes_on_shares():
    rare = (VALUES > 1.5) * 1
    right = exact(LogisticRegression, class_weight="balanced").fit(X, rare)
    with mpc.Session() as s:
        rows, labels = share(s, rare)
        model = nn.SecureLogisticRegression(class_weight="balanced").fit(rows, labels)
        assert near(model.reveal().layers[0].weights[:, 1], right.coef_[0], 1e-3)


def test_parties_with_other_arguments_are_told_so():
    """What the parties compare has all of them, also those that change no opening."""
    logistic, noted = nn.SecureLogisticRegression, []
    with mpc.Session() as s:
        note = s.note
        s.note = lambda *step: (noted.append(step), note(*step))
        rows, labels = share(s, SIGN)
        for weights in (WEIGHTS, WEIGHTS, WEIGHTS[::-1]):
            nn.SecureRidge().fit(rows, labels, weights)
        for weight, weights in ((2, None), (2, None), (3, None), (2, WEIGHTS), (2, WEIGHTS[::-1])):
            logistic(class_weight={1: weight}, tol=0.5).fit(rows, labels, weights)
    squares, steps = (
        [x for x in noted if x[0] == n] for n in ("least squares", "logistic regression")
    )
    assert len(squares) == 3 and len({repr(step) for step in squares}) == 2
    assert len(steps) == 5 and len({repr(step) for step in steps}) == 4


def test_a_refused_fit_changes_nothing():
    made = nn.SecureLinearRegression().fit(X, VALUES)
    before = {name: id(value) for name, value in vars(made).items()}
    with pytest.raises(mpc.RangeError):
        made.fit(X[:, :2] * 1e-250, VALUES * 1e100)
    assert {name: id(value) for name, value in vars(made).items()} == before


def test_two_parties_alone():
    with mpc.Session(provider=None) as s:
        rows, y = share(s, VALUES[:12], X[:12])
        weights = nn.SecureRidge().fit(rows, y).reveal().layers[0].weights
        assert near(weights[:, 0], Ridge().fit(X[:12], VALUES[:12]).coef_)
        labels = s.share(SIGN[:12], owner="bob", bound=1)
        weights = nn.SecureLogisticRegression(max_iter=3, tol=0.1).fit(rows, labels).reveal()
        right = exact(LogisticRegression).fit(X[:12], SIGN[:12])
        assert near(weights.layers[0].weights[:, 1], right.coef_[0], 1e-2)


def test_a_plan_costs_what_a_run_does_and_no_bound_costs_places_alone():
    def program(s):
        rows = s.share(X, owner="alice")
        return nn.SecureLinearRegression().fit(rows, s.share(VALUES, owner="bob"))

    with mpc.Session() as s:
        planned = s.plan(program).cost.total
        secret = program(s)
        spent = s.cost().total
        found = secret.reveal().layers[0].weights[:, 0]
    assert near(found, LinearRegression().fit(X, VALUES).coef_, 5e-3)
    assert (planned.rounds, planned.bytes_sent) == (spent.rounds, spent.bytes_sent)


# What other programs get wrong without a word.

DUMMIES = np.eye(3)[np.arange(60) % 3]
DEPENDENT = {
    "the same column twice": np.c_[X, X[:, :1]],
    "a constant column": np.c_[X, np.full(60, 0.3)],
    "all dummies": np.c_[X, DUMMIES],
    "more columns than rows": X[:5].repeat(2, axis=1) * [1, 1, 1, -1, 1, 0.5, 1, 0.25],
    "one row": X[:1],
}


@pytest.mark.parametrize("case", DEPENDENT)
def test_dependent_columns_predict_alike(case):
    rows = DEPENDENT[case]
    y = VALUES[: len(rows)]
    made = nn.SecureLinearRegression().fit(rows, y)
    right = LinearRegression().fit(rows, y)
    assert np.abs(made.model_.predict(rows) - right.predict(rows)).max() < 1e-4 * max(1, y.std())
    if case == "the same column twice":
        assert near(made.coef_, right.coef_, 0.01)  # both take half of it
    elif case == "a constant column":
        assert near(made.coef_, right.coef_) and abs(made.coef_[-1]) < 1e-4


def test_nearly_dependent_columns_are_refused_or_right():
    refused = []
    for size in 2.0 ** -np.arange(3, 24, 4):
        rows = np.c_[X, X[:, :1] + size * RANDOM.normal(size=(60, 1))]
        try:
            made = nn.SecureLinearRegression().fit(rows, VALUES)
        except DependentColumnsError:
            refused.append(size)
            continue
        right = LinearRegression().fit(rows, VALUES)
        assert near(made.coef_, right.coef_, 5e-3), size
    assert 2 <= len(refused) <= 5
    made = nn.SecureRidge().fit(rows, VALUES)
    assert near(made.coef_, Ridge().fit(rows, VALUES).coef_)


def test_separable_classes():
    """A solution has the penalty alone to thank for; without much of it steps do not end in time."""
    y = (X[:, 0] > 0) * 1
    right = exact(LogisticRegression, C=10).fit(X, y)
    made = nn.SecureLogisticRegression(C=10).fit(X, y)
    assert near(made.coef_, right.coef_, 2e-3)
    with pytest.warns(ConvergenceWarning, match=r"in 6 steps: a smaller C"):
        nn.SecureLogisticRegression(C=1e9, max_iter=6).fit(X, y)


def test_coefficients_beyond_their_range():
    with mpc.Session() as s:
        rows, labels = share(s, X[:, 0] > 0, X / 128)
        with pytest.raises(mpc.RangeError, match="larger penalty"):
            nn.SecureLogisticRegression(C=1e9).fit(rows, labels)
        y = s.share(64 * VALUES, owner="bob", bound=512)
        rows = s.share(X / 1024, owner="alice", bound=1)
        with pytest.raises(mpc.RangeError, match="below 32768"):
            nn.SecureLinearRegression().fit(rows, y)


def test_no_coefficient_wraps_around():
    """Up to 2^49 in a format that holds 2^42: words of more than 64 bits."""
    fit = nn.SecureLinearRegression(fit_intercept=False).fit
    with mpc.Session(frac_bits=8, int_bits=42) as s:
        rows = s.share((X[:, :1] > 0) / 256, owner="alice", bound=1)
        for size in range(29, 42, 2):
            y = s.share((X[:, 0] > 0) * 2.0**size, owner="bob")
            if size + 8 < 42:
                found = fit(rows, y).reveal().layers[0].weights[0, 0]
                assert found == pytest.approx(2.0 ** (size + 8), rel=1e-3)
            else:
                with pytest.raises(mpc.RangeError, match=r"below 4\.39805e\+12"):
                    fit(rows, y)


def test_huge_and_tiny_units():
    rows = X * [1e6, 1e-6, 1, 30] + [5e6, 0, 0, -1e3]
    made, right = nn.SecureRidge().fit(rows, 1e6 * VALUES), Ridge().fit(rows, 1e6 * VALUES)
    assert np.abs(made.model_.predict(rows) - right.predict(rows)).max() < 2e-4 * 1e6 * VALUES.std()
    assert near(made.coef_ * rows.std(axis=0), right.coef_ * rows.std(axis=0))
    with mpc.Session() as s, pytest.raises(mpc.RangeError, match="index"):
        s.share(rows, owner="alice")


@pytest.mark.parametrize("size", [1e-7, 1, 1024])
def test_weights_of_very_different_sizes(size):
    weights = np.where(np.arange(60) < 30, size, size / 1000)
    for made, right, y in (
        (nn.SecureRidge(alpha=size), Ridge(alpha=size), VALUES),
        (nn.SecureLogisticRegression(C=1 / size), exact(LogisticRegression, C=1 / size), SIGN),
    ):
        assert near(made.fit(X, y, weights).coef_, right.fit(X, y, weights).coef_)


def test_tables_and_names():
    table = pd.DataFrame(X[:, :2], columns=["age", "dose"]).assign(smoker=X[:, 2] > 0)
    made = nn.SecureLinearRegression().fit(table, VALUES)
    assert made.feature_names_in_.tolist() == ["age", "dose", "smoker"]
    assert near(made.coef_, LinearRegression().fit(table, VALUES).coef_)
    with pytest.raises(ValueError, match="feature names"):
        made.predict(table[["dose", "age", "smoker"]])
    with pytest.raises(mpc.DtypeError, match="'colour'"):
        made.fit(table.assign(colour="red"), VALUES)
    assert made.feature_names_in_.tolist() == ["age", "dose", "smoker"]


BAD = {
    "missing": (ValueError, "NaN", lambda: nn.SecureRidge().fit([[np.nan], [1.0]], [0, 1])),
    "no rows": (ValueError, "0 sample", lambda: nn.SecureRidge().fit(np.empty((0, 2)), [])),
    "one class": (
        ValueError, "two classes", lambda: nn.SecureLogisticRegression().fit(X, np.ones(60)),
    ),
    "values": (
        ValueError, "Unknown label type", lambda: nn.SecureLogisticRegression().fit(X, VALUES),
    ),
    "strings": (ValueError, "could not convert", lambda: nn.SecureRidge().fit(X, ["a"] * 60)),
    "alpha": (ValueError, "alpha", lambda: nn.SecureRidge(alpha=-1).fit(X, VALUES)),
    "C": (ValueError, "'C'", lambda: nn.SecureLogisticRegression(C=0).fit(X, SIGN)),
    "tiny C": (ValueError, "'C'", lambda: nn.SecureLogisticRegression(C=1e-320).fit(X, SIGN)),
    "weights": (
        ValueError, "from 0 to 1024", lambda: nn.SecureRidge().fit(X, VALUES, np.full(60, 2000.0)),
    ),
    "unknowns": (
        mpc.ArgumentError, f"at most {LARGEST_SYSTEM} unknowns",
        lambda: nn.SecureRidge().fit(np.ones((2, LARGEST_SYSTEM)), [0, 1]),
    ),
    "coarse": (
        mpc.RangeError, "at least 8 fractional bits",
        lambda: nn.SecureRidge(frac_bits=7, int_bits=8).fit(X, VALUES),
    ),
    "large": (
        mpc.RangeError, "1e307", lambda: nn.SecureRidge().fit(X, np.where(X[:, 0] > 0.9, -1, 1) * 1.7e308),
    ),
    "classes": (
        mpc.ArgumentError, "shared labels",
        lambda: nn.SecureLogisticRegression().fit(X, SIGN, classes=[0, 1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    error, match, call = BAD[case]
    with pytest.raises(error, match=re.escape(match)):
        call()


def test_bad_shares():
    fit = nn.SecureLogisticRegression().fit
    with mpc.Session() as s, mpc.Session() as other:
        rows, y = share(s)
        labels = s.share(SIGN, owner="bob")
        for error, match, call in (
            (mpc.DtypeError, "X must be a SharedArray", lambda: fit(X, y)),
            (mpc.SessionError, "different sessions", lambda: fit(rows, share(other)[1])),
            (mpc.ShapeError, "y must have the shape", lambda: fit(rows, y[1:])),
            (mpc.ArgumentError, "y must be 0 and 1", lambda: fit(rows, y)),
            (mpc.ArgumentError, "one-hot", lambda: fit(rows, s.share(X[:, :3] > 0, "bob"))),
            (mpc.RangeError, "share it with bound=", lambda: fit(s.share(X, "alice"), labels)),
        ):  # fmt: skip
            with pytest.raises(error, match=match):
                call()


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("outputs", [None, 1, 2])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(nn.SecureLinearRegression, LinearRegression), (nn.SecureRidge, Ridge)]
)
def test_shapes_are_those_of_scikit_learn(ours, theirs, outputs, intercept):
    y = VALUES if outputs is None else np.column_stack([VALUES] * outputs)
    found = [kind(fit_intercept=intercept).fit(X, y) for kind in (ours, theirs)]
    for name in ("coef_", "intercept_"):
        assert np.shape(getattr(found[0], name)) == np.shape(getattr(found[1], name))
    assert found[0].predict(X).shape == found[1].predict(X).shape
    with mpc.Session() as s:
        rows, targets = share(s, y)
        secret = ours(fit_intercept=intercept).fit(rows, targets)
        assert secret.predict(rows).shape == found[1].predict(X).shape


def test_columns_far_from_zero_without_an_intercept():
    """Their spread does not show in any unit that they fit: refused, not a model of their means."""
    for model in (nn.SecureRidge, nn.SecureLinearRegression, nn.SecureLogisticRegression):
        y = SIGN if model is nn.SecureLogisticRegression else VALUES
        for rows in (X + 1e8, np.column_stack([np.ones(60), X[:, 0] + 1e8])):
            with pytest.raises(DependentColumnsError, match=r"columns \[0, 1.* subtract their"):
                model(fit_intercept=False).fit(rows, y)
    one = X + [1e8, 0, 0, 0]
    rows, y = np.concatenate([one, np.eye(4)]), np.concatenate([VALUES, np.zeros(4)])
    right = np.linalg.lstsq(rows, y, rcond=None)[0]
    assert near(nn.SecureRidge(fit_intercept=False).fit(one, VALUES).coef_, right)
    moved = nn.SecureRidge().fit(X + 1e8, VALUES)
    assert near(moved.coef_, Ridge().fit(X, VALUES).coef_)


@pytest.mark.parametrize("size", [1e-300, 1e150])
def test_targets_of_any_size(size):
    right = Ridge().fit(X, VALUES).coef_
    assert near(nn.SecureRidge().fit(X, VALUES * size).model_.layers[0].weights[:, 0] / size, right)


@pytest.mark.parametrize(
    "model",
    [
        nn.SecureRidge(), nn.SecureLogisticRegression(), nn.SecureMLPRegressor((2,), max_iter=1),
        nn.SecureMLPClassifier((2,), max_iter=1),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_columns_that_are_no_numbers_are_named(model):
    words = pd.DataFrame({"age": X[:, 0], "city": ["x"] * 60})
    days = pd.DataFrame({"age": X[:, 0], "when": pd.date_range("2020-01-01", periods=60)})
    waves = pd.DataFrame({"age": X[:, 0] > 0, "wave": X[:, 1] * 1j})
    for rows, name in ((words, "city"), (days, "when"), (waves, "wave")):
        with pytest.raises(mpc.DtypeError, match=f"X must hold numbers.*'{name}'"):
            model.fit(rows, SIGN)
    model.fit(words.assign(city=1.0), SIGN)
    with pytest.raises(mpc.DtypeError, match="X must hold numbers.*'city'"):
        model.predict(words)


@pytest.mark.parametrize(
    "model", [nn.SecureRidge(), nn.SecureLinearRegression(), nn.SecureLogisticRegression(tol=0.1)]
)
def test_tools_of_scikit_learn_take_them(model):
    """Searches, cross-validation, weights through a pipeline, tables from a scaler, clones, pickles."""
    y = SIGN if isinstance(model, nn.SecureLogisticRegression) else VALUES
    table = pd.DataFrame(X, columns=list("abcd"))
    with config_context(enable_metadata_routing=True):
        weighted = clone(model).set_fit_request(sample_weight=True)
        weighted.set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        search = GridSearchCV(
            make_pipeline(scaler.set_output(transform="pandas"), weighted),
            {f"{type(model).__name__.lower()}__fit_intercept": [True, False]}, cv=2,
        ).fit(table, y, sample_weight=WEIGHTS)  # fmt: skip
    best = search.best_estimator_[-1]
    assert best.feature_names_in_.tolist() == list("abcd")
    rows = search.best_estimator_[0].transform(table)
    same = clone(best).fit(rows, y, sample_weight=WEIGHTS)
    assert near(same.coef_, best.coef_) and not near(clone(best).fit(rows, y).coef_, best.coef_)
    assert cross_val_score(model, table, y, cv=2).min() > 0.7
    again = pickle.loads(pickle.dumps(best))
    assert np.array_equal(again.coef_, best.coef_) and again.get_params() == best.get_params()
