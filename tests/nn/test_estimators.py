"""Estimators by scikit-learn's conventions: its own checks, its tools, and what they reveal."""

import pickle
import re
import warnings

import numpy as np
import pytest
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _testing, estimator_checks

import mpc
import nn
from ring import get_num_threads, set_num_threads

ROUNDING = "fixed point rounds at random, so two predictions differ in the last bits (1e-5)"
# Scikit-learn compares two predictions to 1e-7 here.
EXCUSED = {
    "SecureMLPClassifier": {
        "check_sample_weight_equivalence_on_dense_data": ROUNDING,
        "check_estimators_pickle": ROUNDING,
        "check_fit_idempotent": ROUNDING,
    },
    "SecureMLPRegressor": {
        "check_sample_weight_equivalence_on_dense_data": ROUNDING,
        "check_estimators_pickle": ROUNDING,
        "check_fit_idempotent": ROUNDING,
        "check_supervised_y_2d": ROUNDING,
    },
}
EXCUSED["SecureRidge"] = EXCUSED["SecureLinearRegression"] = EXCUSED["SecureMLPRegressor"]
EXCUSED["SecureLogisticRegression"] = EXCUSED["SecureMLPClassifier"]
SETTINGS = {"max_iter": 20, "learning_rate_init": 0.01, "random_state": 0}
ESTIMATORS = [
    nn.SecureMLPClassifier(**SETTINGS), nn.SecureMLPRegressor(**SETTINGS), nn.SecureRidge(),
    nn.SecureLinearRegression(), nn.SecureLogisticRegression(max_iter=1),
]  # fmt: skip


def count(results):
    """Return the names of the checks by status."""
    found = {}
    for result in results:
        found.setdefault(result["status"], []).append(result["check_name"])
    return found


@pytest.mark.parametrize("made", ESTIMATORS, ids=lambda made: type(made).__name__)
def test_scikit_learns_checks(made, capsys):
    name = type(made).__name__
    excused = EXCUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = estimator_checks.check_estimator(
            made, expected_failed_checks=excused, on_skip=None
        )
    found = count(results)
    with capsys.disabled():
        print(
            f"\ncheck_estimator({name}): {len(found['passed'])} passed, "
            f"{len(found['xfail'])} excused, {len(found.get('skipped', []))} skipped by scikit-learn"
        )
        for result in results:
            name = result["check_name"]
            if result["status"] == "xfail":
                print(f"  excused: {name}: {result['expected_to_fail_reason']}")
            elif result["status"] == "skipped":
                print(f"  skipped: {name}: {result['exception']}")
    assert set(found["xfail"]) == set(excused), "an excuse is no longer needed"
    assert set(found) <= {"passed", "xfail", "skipped"}
    assert len(found["passed"]) >= 40


class Exact:
    """What scikit-learn leaves out for estimators that round at random is checked too."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        return tags


class ExactClassifier(Exact, nn.SecureMLPClassifier):
    pass


class ExactRegressor(Exact, nn.SecureMLPRegressor):
    pass


class ExactRidge(Exact, nn.SecureRidge):
    pass


class ExactLogistic(Exact, nn.SecureLogisticRegression):
    pass


@pytest.mark.parametrize(
    "made",
    [
        ExactClassifier(**SETTINGS),
        ExactRegressor(**SETTINGS),
        ExactRidge(),
        ExactLogistic(max_iter=2),
    ],
    ids=lambda made: type(made).__name__,
)
def test_nothing_needs_an_excuse_if_rounding_is_allowed_for(made, monkeypatch):
    exact = _testing.assert_allclose

    def loose(actual, desired, rtol=0, atol=0, **other):
        exact(actual, desired, rtol=max(rtol, 1e-3), atol=max(atol, 1e-3), **other)

    for module in (_testing, estimator_checks):
        monkeypatch.setattr(module, "assert_allclose", loose)

    wanted = {
        *EXCUSED[type(made).__mro__[2].__name__],
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_pipeline_consistency",
    }
    done = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, check in estimator_checks.estimator_checks_generator(made):
            name = getattr(check, "func", check).__name__
            if name in wanted:
                check(estimator)
                done.add(name)
    assert done == wanted


@pytest.fixture(scope="module")
def iris():
    return datasets.load_iris(return_X_y=True)


def test_in_a_pipeline_a_search_and_a_cross_validation(iris):
    X, y = iris
    network = nn.SecureMLPClassifier((8,), learning_rate_init=0.02, max_iter=20, random_state=1)
    secure = make_pipeline(StandardScaler(), network)
    assert cross_val_score(secure, X, y, cv=3).mean() > 0.85
    search = GridSearchCV(secure, {"securemlpclassifier__max_iter": [1, 20]}, cv=3).fit(X, y)
    assert search.best_params_ == {"securemlpclassifier__max_iter": 20}
    assert search.score(X, y) > 0.85


def test_clones_and_pickles(iris):
    X, y = iris
    secure = nn.SecureMLPClassifier((8,), max_iter=5, random_state=1, n_jobs=1).fit(X, y)
    assert clone(secure).get_params() == secure.get_params()
    assert not hasattr(clone(secure), "model_")
    again = pickle.loads(pickle.dumps(secure))
    np.testing.assert_array_equal(again.coefs_[0], secure.coefs_[0])
    assert (again.predict(X) == secure.predict(X)).mean() >= 0.98


def test_a_seed_gives_the_weights_and_never_the_masks(iris):
    X, y = iris
    first, second = (
        nn.SecureMLPClassifier((8,), max_iter=3, random_state=7).fit(X, y) for _ in range(2)
    )
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    # The same model on the same rows: were the masks the same, so would the rounding be.
    odds = [first.predict_proba(X) for _ in range(3)]
    assert any((odds[0] != other).any() for other in odds[1:])


def test_predicts_on_shares_what_the_plain_model_predicts(iris):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    secure = nn.SecureMLPClassifier((8, 6), max_iter=30, random_state=0, parties=("a", "b", "c"))
    secure.fit(X, names)
    plain = secure.model_
    assert (secure.predict(X) == plain.predict(X)).mean() >= 0.995
    np.testing.assert_allclose(secure.predict_proba(X), plain.predict_proba(X), atol=1e-3)
    assert [w.shape for w in secure.coefs_] == [(4, 8), (8, 6), (6, 3)]
    assert [b.shape for b in secure.intercepts_] == [(8,), (6,), (3,)]
    assert secure.n_iter_ == len(secure.loss_curve_) == 30
    assert secure.loss_ == secure.loss_curve_[-1] < secure.loss_curve_[0]


def test_predictions_open_a_session_and_reveal_labels_only(iris, monkeypatch):
    X, y = iris
    secure = nn.SecureMLPClassifier((8,), max_iter=3, random_state=0).fit(X, y)
    revealed, sessions = [], []
    real = mpc.Session.reveal

    def reveal(session, x, to=None):
        result = real(session, x, to)
        sessions.append(session)
        revealed.append(np.asarray(result))
        return result

    monkeypatch.setattr(mpc.Session, "reveal", reveal)
    secure.predict(X)
    secure.predict(X)
    assert [r.shape for r in revealed] == [(150,), (150,)]
    assert all(np.isin(r, [0, 1, 2]).all() for r in revealed)
    assert sessions[0] is not sessions[1]
    with pytest.raises(mpc.SessionError, match="closed"):
        sessions[0].share(1.0, owner="alice")


def test_training_on_shares_follows_training_in_the_clear(iris):
    X, y = iris
    names, rows = np.array(["a", "b", "c"])[y], (X - X.mean(axis=0)) / X.std(axis=0)
    setting = {"learning_rate_init": 0.25, "solver": "sgd", "max_iter": 5, "random_state": 0}
    plain = nn.SecureMLPClassifier((8,), **setting).fit(rows, names)
    secret = nn.SecureMLPClassifier((8,), encrypted_fit=True, **setting).fit(rows, names)
    for a, b in zip(secret.coefs_, plain.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)
        assert (a != b).any()
    assert secret.classes_.tolist() == ["a", "b", "c"] and secret.n_iter_ == 5
    assert not hasattr(secret, "loss_curve_")
    assert secret.score(rows, names) > 0.85


@pytest.mark.parametrize("targets", [1, 2])
def test_regressors_trained_on_shares_follow_training_in_the_clear(targets):
    X, y = datasets.load_diabetes(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    Y = y if targets == 1 else np.column_stack([y, -y / 10])
    setting = {"learning_rate_init": 0.0078125, "solver": "sgd", "max_iter": 3, "random_state": 0}
    plain = nn.SecureMLPRegressor((8,), **setting).fit(X, Y)
    secret = nn.SecureMLPRegressor((8,), encrypted_fit=True, **setting).fit(X, Y)
    for a, b in zip(secret.coefs_, plain.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * max(1, np.abs(b).max()))
        assert (a != b).any()
    assert not hasattr(secret, "loss_curve_") and secret.n_iter_ == 3
    assert secret.predict(X).shape == Y.shape
    assert secret.score(X, Y) == pytest.approx(plain.score(X, Y), abs=2e-3)


@pytest.mark.parametrize("encrypted_fit", [False, True])
@pytest.mark.parametrize(
    "y", [[5.0] * 8, [0.0] * 8, [3.0], [[5.0, -2.0]] * 8], ids=["5", "0", "one row", "two outputs"]
)
def test_targets_that_do_not_vary(y, encrypted_fit):
    X = np.linspace(-1, 1, 3 * len(y)).reshape(-1, 3)
    made = nn.SecureMLPRegressor(
        (4,), max_iter=60, batch_size=4, learning_rate_init=0.05, learning_rate="linear",
        random_state=0, encrypted_fit=encrypted_fit,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_allclose(made.predict(X), y, atol=0.02)


def test_regressors_in_their_units():
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    secure = make_pipeline(
        StandardScaler(),
        nn.SecureMLPRegressor((16,), learning_rate_init=0.02, max_iter=30, random_state=0),
    ).fit(X, y)
    assert secure.score(X, y) > 0.5
    plain = nn.from_sklearn(secure, X)
    assert np.abs(secure.predict(X) - plain.predict(X)).max() <= 1e-3 * y.std()
    several = nn.SecureMLPRegressor((16,), max_iter=5, random_state=0).fit(X / 100, np.c_[y, -y])
    assert several.predict(X[:7] / 100).shape == (7, 2)


def test_converts_with_the_pipeline_around_it(iris):
    X, y = iris
    secure = make_pipeline(
        StandardScaler(), nn.SecureMLPClassifier((8,), max_iter=20, random_state=0)
    ).fit(X, y)
    model = nn.from_sklearn(secure, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        labels = secret.predict(secret.share_rows(X, owner="bob"))
    assert (labels == secure.predict(X)).mean() >= 0.98


def test_rows_far_from_those_of_the_training(iris):
    X, y = iris
    secure = nn.SecureMLPClassifier((8,), max_iter=5, random_state=0).fit(X, y)
    far = X * np.array([1, 1, 500, 1])
    assert (secure.predict(far) == secure.model_.predict(far)).mean() >= 0.98
    with pytest.raises(mpc.RangeError, match="layer 1.*no format"):
        secure.predict(X * 1e9)
    with pytest.raises(mpc.RangeError, match="layer 1") as caught:
        secure.predict(X * 1e4)
    # What its user can change, not what it makes inside.
    assert "mpc.Session" not in str(caught.value)
    for part in (r"X is too far from the rows of fit, as \S+ at index", "SecureMLPClassifier"):
        assert re.search(part, str(caught.value))


@pytest.mark.parametrize("kind", [nn.SecureMLPClassifier, nn.SecureMLPRegressor])
@pytest.mark.parametrize("far", [1e3, 1e4, 1e5, 1e6, 1e7])
def test_a_far_row_spoils_no_other_rows_prediction(kind, far):
    X = np.random.default_rng(1).normal(size=(200, 3))
    values = X @ [1.0, 2.0, 3.0]
    y = values if kind is nn.SecureMLPRegressor else values > 0
    secure = kind((8,), max_iter=30, random_state=0).fit(X, y)
    rows = X.copy()
    rows[0] = far
    error = None
    try:
        found = secure.predict(rows)
    except mpc.RangeError as refusal:
        error = str(refusal)
    if error is not None:
        named = re.search(r"SecureMLP\w+\(frac_bits=(\d+), int_bits=(\d+)\)", error)
        assert "X is too far from the rows of fit" in error
        # As long as there is a format, it is named, and right at once.
        assert (named is None) == (far >= (1e5 if kind is nn.SecureMLPRegressor else 1e6))
        if named is None:
            return
        secure.set_params(frac_bits=int(named[1]), int_bits=int(named[2]))
        found = secure.predict(rows)
    wanted = secure.model_.predict(rows)
    if kind is nn.SecureMLPRegressor:
        assert np.abs(found - wanted)[1:].max() <= 2e-3 * y.std()
    else:
        assert (found == wanted).mean() >= 0.99


def test_the_format_suits_the_model_unless_one_is_asked_for(iris):
    X, _ = iris
    y = 1e-4 * X[:, 3]
    setting = {"learning_rate_init": 0.02, "max_iter": 30, "random_state": 0}
    secure = nn.SecureMLPRegressor((8,), **setting).fit(X, y)
    assert np.abs(secure.predict(X) - secure.model_.predict(X)).max() <= 1e-3 * y.std()
    secure.set_params(frac_bits=16)
    with pytest.raises(mpc.RangeError, match="16 fractional bits are too few"):
        secure.predict(X)


def test_names_of_features_go_with_the_model(iris):
    X, y = iris
    names = np.array(["a", "b", "c", "d"], object)

    class Named(nn.SecureMLPClassifier):
        def _fit(self, *arguments):
            super()._fit(*arguments)
            self.feature_names_in_ = names  # as after a fit to a data frame

    assert Named((4,), max_iter=1).fit(X, y).model_.feature_names_in_ is names
    assert nn.SecureMLPClassifier((4,), max_iter=1).fit(X, y).model_.feature_names_in_ is None


def test_threads_are_given_back(iris):
    X, y = iris
    before = get_num_threads()
    set_num_threads(3)
    try:
        nn.SecureMLPClassifier((4,), max_iter=1, n_jobs=1).fit(X, y).predict(X)
        assert get_num_threads() == 3
    finally:
        set_num_threads(before)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"solver": "lbfgs"}, "solver"),
        ({"max_iter": 0}, "max_iter"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": "adaptive"}, "learning_rate"),
        ({"momentum": 0.5}, "momentum belongs to 'sgd'"),
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes"),
    ],
)
def test_bad_parameters(iris, parameters, message):
    with pytest.raises(ValueError, match=message):
        nn.SecureMLPClassifier(**parameters).fit(*iris)


def test_bad_input(iris):
    X, y = iris
    with pytest.raises(NotFittedError):
        nn.SecureMLPClassifier().predict(X)
    with pytest.raises(ValueError, match="one class"):
        nn.SecureMLPClassifier().fit(X, np.zeros(len(X)))
    secure = nn.SecureMLPClassifier((4,), max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="features"):
        secure.predict(X[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        secure.predict(np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="must be below 62"):
        # A format whose products do not fit.
        nn.SecureMLPClassifier((4,), max_iter=1, frac_bits=40).fit(X, y).predict(X)
