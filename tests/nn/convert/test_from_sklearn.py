"""Converted estimators agree with the originals, in the clear and on shares, raw and scaled."""

import warnings

import numpy as np
import pytest
from sklearn import datasets
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FunctionTransformer, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, SplineTransformer, StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.convert.sklearn_transformers import TRANSFORMERS
from nn.layers import Dense
from nn.layers.activations import Sigmoid
from nn.models.predictors import Classifier, Regressor
from nn.models.trainable import NotFittedError
from ring.errors import DtypeError, RangeError, ShapeError

ACTIVATIONS = ("relu", "identity", "logistic", "tanh")
NETWORK = {"hidden_layer_sizes": (16, 8), "random_state": 0, "learning_rate_init": 0.01}

CLASSIFIERS = {
    "LogisticRegression": LogisticRegression(max_iter=100),
    "LinearSVC": LinearSVC(max_iter=300),
} | {f"MLP {a}": MLPClassifier(activation=a, max_iter=60, **NETWORK) for a in ACTIVATIONS}
REGRESSORS = {
    "LinearRegression": LinearRegression(),
    "Ridge": Ridge(),
} | {f"MLP {a}": MLPRegressor(activation=a, max_iter=150, **NETWORK) for a in ACTIVATIONS}
SCALERS = {
    "raw": [],
    "standard": [StandardScaler()],
    "minmax": [MinMaxScaler((-1, 2))],
    "pca": [PCA(3)],
    "all": [MinMaxScaler(), StandardScaler(with_mean=False), PCA(3, whiten=True)],
}
DATA = {
    name: getattr(datasets, f"load_{name}")(return_X_y=True)
    for name in ("breast_cancer", "wine", "digits", "iris", "diabetes")
}
DATA["diabetes in its units"] = datasets.load_diabetes(return_X_y=True, scaled=False)
CASES = [
    (data, scaler, name)
    for data in DATA
    for scaler in SCALERS
    for name in (REGRESSORS if data.startswith("diabetes") else CLASSIFIERS)
    # Networks on what raw and standard do not cover: one of them is enough.
    if scaler in ("raw", "standard") or not name.startswith("MLP") or name == "MLP tanh"
]


def fit(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        with threadpool_limits(1):  # as fast for small data, and not at all slow on a busy machine
            return clone(estimator).fit(X, y)


@pytest.mark.parametrize(("data", "scaler", "name"), CASES)
def test_agrees_with_the_original(data, scaler, name):
    X, y = DATA[data]
    regression = data.startswith("diabetes")
    original = fit(
        make_pipeline(*SCALERS[scaler], (REGRESSORS if regression else CLASSIFIERS)[name]), X, y
    )
    model = nn.from_sklearn(original, X)
    audit = model.audit()
    assert audit.fits, audit.problem
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    want = original.predict(X)
    if regression:
        np.testing.assert_allclose(model.predict(X), want, rtol=1e-9, atol=1e-9 * y.std())
        assert np.abs(predicted - want).max() <= min(1e-3 * y.std(), audit.error_bound)
    else:
        scores = model.decision_function(X)
        assert (model.predict(X) == want).mean() == 1
        assert (predicted == want).mean() >= 0.995
        ranked = np.sort(scores, axis=1)
        sure = ranked[:, -1] - ranked[:, -2] > 2 * audit.error_bound
        assert (predicted == want)[sure].all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["LogisticRegression", "MLP tanh", "MLP relu"])
def test_probabilities_and_scores_where_allowed(classes, name):
    X, y = DATA["iris"]
    X, y = X[y < classes], np.array(["setosa", "versi", "virgi"])[y[y < classes]]
    original = fit(make_pipeline(StandardScaler(), CLASSIFIERS[name]), X, y)
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-10)
    with mpc.Session(("alice", "bob", "carol")) as s:
        secret = model.share(s, owner="alice", scores=True)
        rows = secret.share_rows(X, owner="carol")
        np.testing.assert_allclose(secret.predict_proba(rows), original.predict_proba(X), atol=2e-3)
        np.testing.assert_allclose(
            secret.decision_function(rows, to="carol"), model.decision_function(X), atol=5e-3
        )
        labels = secret.predict(rows)
        assert labels.dtype == y.dtype and (labels == original.predict(X)).mean() >= 0.995


def test_scores_need_the_owner_to_allow_them():
    X, y = DATA["iris"]
    model = nn.from_sklearn(fit(CLASSIFIERS["LogisticRegression"], X, y), X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        rows = secret.share_rows(X[:5], owner="bob")
        before = s.cost()
        for reveal in (secret.decision_function, secret.predict_proba):
            with pytest.raises(mpc.RevealError, match="scores=True"):
                reveal(rows)
        assert s.cost() == before


def test_a_support_vector_machine_has_no_probabilities():
    X, y = DATA["wine"]
    model = nn.from_sklearn(fit(make_pipeline(StandardScaler(), LinearSVC()), X, y), X)
    with pytest.raises(mpc.ArgumentError, match="no probabilities"):
        model.predict_proba(X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", scores=True)
        rows = secret.share_rows(X, owner="bob")
        before = s.cost()
        with pytest.raises(mpc.ArgumentError, match="no probabilities"):
            secret.predict_proba(rows)
        assert s.cost() == before


def test_liblinear_probabilities_of_several_classes():
    # One class against the rest where scikit-learn still fits it so.
    X, y = DATA["iris"]
    try:
        original = fit(LogisticRegression(solver="liblinear"), X, y)
    except ValueError:
        pytest.skip("this scikit-learn fits two classes only with liblinear")
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-10)


def test_several_targets():
    X, y = DATA["diabetes"]
    Y = np.column_stack([y, -2 * y, y**2 / 100])
    network = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    for original in (LinearRegression(), Ridge(), network):
        original = fit(original, X, Y)
        model = nn.from_sklearn(original, X)
        form = model.audit().suggestion  # the network has hardly been trained, and hardly varies
        with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
            secret = model.share(s, owner="bob")
            predicted = secret.predict(secret.share_rows(X, owner="alice"))
        assert predicted.shape == Y.shape
        np.testing.assert_allclose(predicted, original.predict(X), atol=0.05)
    flat = nn.from_sklearn(fit(Ridge(), X, y[:, None]), X)
    assert flat.predict(X).shape == fit(Ridge(), X, y[:, None]).predict(X).shape


def test_thousands_next_to_thousandths():
    random = np.random.default_rng(0)
    scale = 10.0 ** np.arange(-5, 7)
    X = random.normal(size=(300, 12)) * scale + 50 * scale * random.integers(-1, 2, size=12)
    y = (X / scale) @ random.normal(size=12) * 100
    original = fit(make_pipeline(StandardScaler(), Ridge()), X, y)
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    assert np.abs(predicted - original.predict(X)).max() <= 1e-3 * y.std()


def test_refused_then_works_with_the_format_suggested():
    X, y = DATA["diabetes"]
    original = fit(LinearRegression(), X, y * 1e4)  # targets in the millions
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s, pytest.raises(RangeError, match=r"layer 1, Dense\(10, 1\)"):
        model.share(s, owner="alice")
    form = model.audit().suggestion
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    assert np.abs(predicted - original.predict(X)).max() <= 1e-3 * y.std() * 1e4


def test_folding():
    X, y = DATA["digits"]
    network = MLPClassifier((12,), activation="identity", max_iter=5, random_state=0)
    model = nn.from_sklearn(fit(make_pipeline(StandardScaler(), PCA(20), network), X, y), X)
    assert repr(model.layers) == "[Dense(64, 10)]"
    network = MLPClassifier((12,), activation="logistic", max_iter=5, random_state=0)
    model = nn.from_sklearn(fit(make_pipeline(StandardScaler(), PCA(20), network), X, y), X)
    assert [type(layer) for layer in model.layers] == [Dense, Sigmoid, Dense]
    assert model.layers[0].weights.shape == (64, 12)
    assert isinstance(model, Classifier) and model.n_features_in_ == 64


def test_where_the_range_comes_from():
    X, y = DATA["wine"]
    low, high = nn.from_sklearn(fit(LogisticRegression(), X, y), X).input_range_
    assert (low <= X.min(axis=0)).all() and (high >= X.max(axis=0)).all()
    assert nn.from_sklearn(fit(LogisticRegression(), X, y)).input_range_ is None
    scaled = nn.from_sklearn(fit(make_pipeline(MinMaxScaler(), LogisticRegression()), X, y))
    np.testing.assert_array_equal(scaled.input_range_, (low, high))
    with mpc.Session() as s:
        with pytest.raises(mpc.ArgumentError, match="low and high must be given"):
            nn.from_sklearn(fit(LogisticRegression(), X, y)).share(s, owner="alice")
        scaled.share(s, owner="alice")


def test_the_original_is_not_touched():
    X, y = DATA["iris"]
    original = fit(make_pipeline(StandardScaler(), LogisticRegression()), X, y)
    before = original.predict_proba(X)
    model = nn.from_sklearn(original, X)
    for parameter in model.parameters:
        parameter[...] = 0
    np.testing.assert_array_equal(original.predict_proba(X), before)


def test_pipelines_in_pipelines():
    X, y = DATA["iris"]
    inner = Pipeline([("s", StandardScaler()), ("no", "passthrough"), ("p", PCA(3))])
    last = make_pipeline(MinMaxScaler(), "passthrough", LogisticRegression())
    original = fit(Pipeline([("inner", inner), ("none", None), ("last", last)]), X, y)
    model = nn.from_sklearn(original, X)
    assert repr(model.layers) == "[Dense(4, 3)]"
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-10)
    inner.steps[0] = ("s", SplineTransformer())
    with pytest.raises(ConversionError, match="step 's', SplineTransformer"):
        nn.from_sklearn(fit(make_pipeline(inner, LogisticRegression()), X, y))


@pytest.mark.parametrize("kind", [LogisticRegression, LinearSVC])
def test_sparse_coefficients(kind):
    X, y = DATA["wine"]
    original = fit(make_pipeline(StandardScaler(), kind()), X, y)
    wanted = original.predict(X)
    original[-1].sparsify()
    np.testing.assert_array_equal(nn.from_sklearn(original, X).predict(X), wanted)


@pytest.mark.parametrize("option", ["with_mean", "with_std"])
def test_options_changed_after_the_fit_count_as_they_do_there(option):
    X, y = DATA["wine"]
    original = fit(make_pipeline(StandardScaler(), LogisticRegression()), X, y)
    original[0].set_params(**{option: False})
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-9)


@pytest.mark.parametrize(
    "labels", [[False, True], [-3, 4], ["no", "yes"], np.array(["no", "yes"], object)],
    ids=["bool", "int", "str", "object"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["LogisticRegression", "LinearSVC", "MLP relu"])
def test_labels_of_any_kind_come_back(labels, name):
    X, y = DATA["iris"]
    X, y = X[y < 2], np.asarray(labels)[y[y < 2]]
    original = fit(CLASSIFIERS[name], X, y)
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    assert predicted.dtype == original.predict(X).dtype
    np.testing.assert_array_equal(predicted, original.predict(X))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.uint8])
def test_rows_of_other_dtypes(dtype):
    X, y = DATA["digits"]
    X = X.astype(dtype)
    original = fit(make_pipeline(StandardScaler(), LogisticRegression(max_iter=20)), X, y)
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    assert (predicted == original.predict(X)).mean() >= 0.995


def test_features_that_do_not_vary():
    X, y = DATA["iris"]
    X = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X)), np.full(len(X), -1e6)])
    for scaler in (StandardScaler(), MinMaxScaler(), PCA(3, whiten=True)):
        original = fit(make_pipeline(scaler, LogisticRegression()), X, y)
        model = nn.from_sklearn(original, X)
        with mpc.Session() as s:
            secret = model.share(s, owner="alice")
            predicted = secret.predict(secret.share_rows(X, owner="bob"))
        assert (predicted == original.predict(X)).mean() >= 0.995


class Table:
    """Rows with names, as a data frame has."""

    def __init__(self, X, columns):
        self.X, self.columns = np.asarray(X), list(columns)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.X, dtype)


def test_tables_with_other_features_are_refused(tmp_path):
    X, y = DATA["iris"]
    names = ["a", "b", "c", "d"]
    original = fit(make_pipeline(StandardScaler(), LogisticRegression()), X, y)
    original[0].feature_names_in_ = np.array(names, object)  # as after a fit to a data frame
    model = nn.from_sklearn(original, Table(X, names))
    turned = Table(X[:, ::-1], names[::-1])
    with pytest.raises(mpc.ArgumentError, match="column 0 must be 'a', got 'd'"):
        nn.from_sklearn(original, turned)
    with pytest.raises(mpc.ArgumentError, match="column 0 must be 'a', got 'd'"):
        model.predict(turned)
    model.save(tmp_path / "m.npz")
    for plain in (model, model.outline(), nn.load(tmp_path / "m.npz")):
        with mpc.Session() as s:
            secret = plain.share(s, owner="alice")
            with pytest.raises(mpc.ArgumentError, match="column 0 must be 'a', got 'd'"):
                secret.share_rows(turned, owner="bob")
            with pytest.raises(mpc.ArgumentError, match="column 1 must be 'b', got 'B'"):
                secret.share_rows(Table(X, ["a", "B", "c", "d"]), owner="bob")
            with pytest.raises(ShapeError):
                secret.share_rows(Table(X[:, :3], names[:3]), owner="bob")
            for rows in (X, Table(X, names), Table(X, range(4))):
                assert secret.share_rows(rows, owner="bob").shape == (150, 4)


def test_estimators_of_other_versions():
    X, y = DATA["iris"]
    original = fit(make_pipeline(MinMaxScaler(), LogisticRegression()), X, y)
    del original[0].clip  # came with 0.24
    with pytest.raises(ConversionError, match="another version of scikit-learn"):
        nn.from_sklearn(original, X)
    # A network that was changed predicts what nobody knows of.
    network = fit(MLPClassifier((4,), max_iter=5, random_state=0), X, y)
    network.predict = lambda rows: np.zeros(len(rows), int)
    network.coefs_[0] += np.nan
    with pytest.raises((ConversionError, RangeError)):
        nn.from_sklearn(network, X)


@pytest.mark.parametrize("given", [True, False])
def test_what_predicts_otherwise_is_refused(given, monkeypatch):
    X, y = DATA["diabetes"]
    original = fit(make_pipeline(StandardScaler(), Ridge()), X, y)
    right = TRANSFORMERS["StandardScaler"]

    def wrong(conversion, step, x):
        return right(conversion, step, x).map(np.ones(x.size), 1e-3)

    monkeypatch.setitem(TRANSFORMERS, "StandardScaler", wrong)
    with pytest.raises(ConversionError, match="must predict the same"):
        nn.from_sklearn(original, X if given else None)


@pytest.mark.parametrize("unit", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("name", ["LinearRegression", "MLP relu"])
def test_small_targets_are_exact_or_refused(name, unit):
    X, y = DATA["diabetes"]
    y = unit * y / y.std()
    original = fit(make_pipeline(StandardScaler(), REGRESSORS[name]), X, y)
    model = nn.from_sklearn(original, X)
    audit = model.audit()
    if unit < 1e-1:
        with mpc.Session() as s:
            with pytest.raises(RangeError, match="16 fractional bits are too few") as caught:
                model.share(s, owner="alice")
            assert s.fresh_id() == 1, "something was shared"
        assert audit.problem == str(caught.value) and not audit.fits
    form = audit.suggestion
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    want = original.predict(X)
    # A network that is not trained to its end varies more than the targets.
    assert np.abs(predicted - want).max() <= 1e-3 * max(y.std(), want.std())


@pytest.mark.parametrize("classes", [2, 3])
def test_small_weights_of_classifiers_are_refused_too(classes):
    X, y = DATA["iris"]
    X, y = X[y < classes], y[y < classes]
    original = fit(LogisticRegression(C=1e-8), X, y)
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s, pytest.raises(RangeError, match="best score ahead") as caught:
        model.share(s, owner="alice")
    form = model.audit().suggestion
    assert f"frac_bits={form.frac_bits}, int_bits={form.int_bits}" in str(caught.value)
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice")
        predicted = secret.predict(secret.share_rows(X, owner="bob"))
    assert (predicted == original.predict(X)).mean() >= 0.98
    # Without rows as well, as the range tells enough.
    bare = nn.from_sklearn(original)
    low, high = model.input_range_
    with mpc.Session() as s, pytest.raises(RangeError, match="too few for this model"):
        bare.share(s, owner="alice", low=low, high=high)


def test_targets_too_small_for_any_format():
    X, y = DATA["diabetes"]
    model = nn.from_sklearn(fit(Ridge(), X, y * 1e-9), X)
    assert model.audit().suggestion is None
    with (
        mpc.Session() as s,
        pytest.raises(RangeError, match="no format that holds the model is fine"),
    ):
        model.share(s, owner="alice")


def test_one_small_target_among_large_ones():
    X, y = DATA["diabetes"]
    model = nn.from_sklearn(fit(LinearRegression(), X, np.c_[y, 1e-5 * y]), X)
    with mpc.Session() as s, pytest.raises(RangeError, match="output 1 would be off"):
        model.share(s, owner="alice")


def test_constants_have_nothing_to_lose():
    X, _ = DATA["diabetes"]
    for value in (0.0, 3.0, -1e4):
        model = nn.from_sklearn(fit(LinearRegression(), X, np.full(len(X), value)), X)
        with mpc.Session() as s:
            secret = model.share(s, owner="alice")
            predicted = secret.predict(secret.share_rows(X, owner="bob"))
        np.testing.assert_allclose(predicted, value, atol=1e-3)


class Odd(LogisticRegression):
    """A subclass, which may predict as it likes."""


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SplineTransformer(), "SplineTransformer is not converted"),
        (
            make_pipeline(SplineTransformer(), LinearSVC()),
            "step 'splinetransformer'",
        ),
        (make_pipeline(FunctionTransformer(np.sin), LinearSVC()), "np.log1p"),
        (make_pipeline(StandardScaler(), PCA(2)), "PCA is not converted as"),
        (KNeighborsClassifier(weights="distance"), "weights='uniform'"),
        (Odd(), "Odd of .* is not converted"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_converted(estimator, message):
    X, y = DATA["iris"]
    with pytest.raises(ConversionError, match=message) as caught:
        nn.from_sklearn(fit(estimator, X, y), X)
    if message == "SplineTransformer is not converted":
        for known in (
            "coef_",
            "MLPClassifier",
            "RandomForestClassifier",
            "StandardScaler",
            "from_onnx",
        ):
            assert known in str(caught.value)


@pytest.mark.parametrize(
    "thing", [None, 3, "model", LogisticRegression, [], Pipeline([("a", None)])]
)
def test_no_estimators_at_all(thing):
    with pytest.raises(ConversionError, match="is needed|is not converted"):
        nn.from_sklearn(thing)


def test_labels_that_one_row_has_several_of():
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 3))
    several = fit(MLPClassifier((4,), max_iter=3), X, (X[:, :2] > 0).astype(int))
    with pytest.raises(ConversionError, match="one label a row"):
        nn.from_sklearn(several, X)


def test_poisson_networks():
    X, y = DATA["diabetes"]
    try:
        network = MLPRegressor(loss="poisson", hidden_layer_sizes=(4,), max_iter=30, random_state=0)
        original = fit(make_pipeline(StandardScaler(), network), X, y / 50)
    except TypeError:
        pytest.skip("this scikit-learn has no Poisson loss for networks")
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict(X), original.predict(X), rtol=1e-9)


def test_bad_input():
    X, y = DATA["iris"]
    for unfitted in (LogisticRegression(), make_pipeline(StandardScaler(), Ridge())):
        with pytest.raises(NotFittedError, match="must be fitted"):
            nn.from_sklearn(unfitted, X)
    original = fit(LogisticRegression(), X, y)
    with pytest.raises(ShapeError, match="4 features"):
        nn.from_sklearn(original, X[:, :3])
    with pytest.raises(ShapeError, match="at least one row"):
        nn.from_sklearn(original, X[:0])
    with pytest.raises(RangeError, match="finite"):
        nn.from_sklearn(original, np.where(X > 7, np.nan, X))
    from scipy.sparse import csr_array

    with pytest.raises(DtypeError, match="dense"):
        nn.from_sklearn(original, csr_array(X))
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        with pytest.raises(DtypeError, match="dense"):
            secret.share_rows(csr_array(X), owner="bob")
        with pytest.raises(ShapeError):
            secret.share_rows(X[:, :3], owner="bob")
        with pytest.raises(RangeError, match="at index"):
            secret.share_rows(X * 100, owner="bob")
    assert isinstance(nn.from_sklearn(fit(Ridge(), X, y)), Regressor)
