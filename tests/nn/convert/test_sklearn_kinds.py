"""Kinds of scikit-learn's estimators: each agrees with the original on shares, or is refused.

A few are tried in each run; with SOTTO_ALL_ESTIMATORS set every estimator and pipeline of the page
docs/scikit-learn.md, on all its data sets.
"""

import importlib.util
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn import (
    calibration,
    compose,
    decomposition,
    dummy,
    ensemble,
    gaussian_process,
    impute,
    isotonic,
    kernel_ridge,
    linear_model,
    model_selection,
    naive_bayes,
    neural_network,
    preprocessing,
    tree,
)
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.gaussian_process import kernels
from sklearn.pipeline import make_pipeline

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.convert.sklearn_trees import from_float32
from nn.layers import Trees

PAGE = Path(__file__).resolve().parents[3] / "docs" / "write_scikit_learn.py"
SPEC = importlib.util.spec_from_file_location("write_scikit_learn", PAGE)
tried = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tried)

ALL = bool(os.environ.get("SOTTO_ALL_ESTIMATORS"))
PIPELINES = dict(tried.pipelines())
SOME = (
    "ColumnTransformer, LogisticRegression",
    "FeatureUnion, LogisticRegression",
    "PolynomialFeatures, LogisticRegression",
    "Normalizer, LogisticRegression",
    "KBinsDiscretizer, LogisticRegression",
    "StandardScaler, SVC",
    "StandardScaler, GaussianNB",
    "StandardScaler, Calibrated",
    "StandardScaler, OneVsOne",
    "StandardScaler, Voting(soft)",
    "StandardScaler, Stacking, passthrough",
    "StandardScaler, AdaBoost",
    "regression: StandardScaler, target log, Ridge",
    "regression: StandardScaler, HistGradientBoosting",
)


def on_shares(model, rows, **own):
    with mpc.Session(**own) as s:
        secret = model.share(s, owner="alice")
        return secret.predict(secret.share_rows(rows, owner="bob"))


@pytest.mark.parametrize("name", PIPELINES if ALL else SOME)
def test_pipelines(name):
    outcome = tried.try_pipeline(name, PIPELINES[name])
    assert outcome.kind == "agrees" or (outcome.kind == "refused" and name not in SOME), outcome


def test_most_pipelines_are_tried_here():
    assert len(PIPELINES) == 62 and set(SOME) <= set(PIPELINES)


@pytest.mark.skipif(not ALL, reason="SOTTO_ALL_ESTIMATORS tries every estimator on every data set")
@pytest.mark.parametrize(("kind", "least"), [("classifier", 34), ("regressor", 45)])
def test_every_estimator(kind, least):
    converted = 0
    for name, estimator in tried.estimators(kind).items():
        found = tried.tries(kind, name, estimator)
        assert not [one for one in found if one.kind == "differs"], name
        assert all(one.reason for one in found if one.kind == "refused"), name
        converted += any(one.kind == "agrees" for one in found)
    assert converted >= least


# Trees.


def test_thresholds_of_doubles_are_those_of_float32():
    random = np.random.default_rng(0)
    limits = np.concatenate([random.normal(size=200), random.normal(size=200).astype(np.float32)])
    limits = np.concatenate([limits, [0.0, -0.0, 1e-30, 3e38, 2.0**-149]])
    found = from_float32(limits)
    up = np.nextafter(found, np.inf)
    assert (found.astype(np.float32) <= limits).all()
    with np.errstate(over="ignore"):
        assert (up.astype(np.float32) > limits).all()


def ties(original, X):
    """Return rows with values that are thresholds, their neighbours among float32 too."""
    fitted = original[-1].tree_
    rows = []
    for node in np.flatnonzero(fitted.children_left >= 0):
        limit, k = np.float32(fitted.threshold[node]), fitted.feature[node]
        for value in (
            limit,
            np.nextafter(limit, np.float32(9e9)),
            np.nextafter(limit, np.float32(-9e9)),
        ):
            row = X[node % len(X)].copy()
            row[k] = value
            rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("secret", [False, True])
def test_rows_on_thresholds_go_the_right_way(secret):
    X, y = load_iris(return_X_y=True)
    original = make_pipeline(tree.DecisionTreeClassifier(random_state=0)).fit(X, y)
    rows = np.concatenate([X, ties(original, X)])
    model = nn.from_sklearn(original, rows, secret_features=secret)
    np.testing.assert_array_equal(model.predict(rows), original.predict(rows))
    np.testing.assert_array_equal(on_shares(model, rows), original.predict(rows))


def test_rows_of_the_grid_go_the_right_way_without_being_known():
    random = np.random.default_rng(1)
    X = random.integers(0, 50, (200, 3)) / 8
    y = random.integers(0, 2, 200)
    original = tree.DecisionTreeClassifier(random_state=0).fit(X, y)
    model = nn.from_sklearn(original, X[:2])
    model.input_range_ = np.zeros(3), np.full(3, 8.0)
    grid = random.integers(0, 8 << 16, (300, 3)) * 2.0**-16
    grid[:100] = random.integers(0, 64, (100, 3)) / 8
    grid[0, 0], grid[1, 0] = original.tree_.threshold[0], original.tree_.threshold[0] + 2.0**-16
    np.testing.assert_array_equal(on_shares(model, grid), original.predict(grid))


def test_rows_between_the_values_that_a_tree_was_grown_from():
    """Out-of-bag rows lie on thresholds, up to the last digits of a double."""
    X, y = load_diabetes(return_X_y=True)
    original = ensemble.BaggingRegressor(random_state=0, n_estimators=4).fit(X, y)
    model = nn.from_sklearn(original, X)
    want = original.predict(X)
    assert np.abs(on_shares(model, X) - want).max() <= 1e-3 * y.std()


def test_rows_on_thresholds_of_computed_features():
    """With few bins, thresholds are values of the training data, here behind a step that mixes features."""
    X, y = load_iris(return_X_y=True)
    boosted = ensemble.HistGradientBoostingClassifier(max_iter=4, max_bins=4, min_samples_leaf=5)
    original = make_pipeline(decomposition.PCA(3), boosted).fit(X, y)
    limits = original[-1]._predictors[0][0].nodes["num_threshold"]
    assert np.isin(limits[:1], original[:-1].transform(X)).all()
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice", scores=True)
        found = secret.predict_proba(secret.share_rows(X, owner="bob"))
    np.testing.assert_allclose(found, original.predict_proba(X), atol=1e-3)


def test_a_forest_is_one_layer_with_rounds_of_its_depth_alone():
    X, y = load_breast_cancer(return_X_y=True)
    spent = []
    for count in (2, 8):
        forest = ensemble.RandomForestClassifier(count, max_depth=6, random_state=0).fit(X, y)
        model = nn.from_sklearn(make_pipeline(forest), X)
        assert [type(layer) for layer in model.layers] == [Trees]
        np.testing.assert_allclose(model.predict_proba(X), forest.predict_proba(X), atol=1e-12)
        with mpc.Session() as s:
            secret = model.share(s, owner="alice")
            rows = secret.share_rows(X[:100], owner="bob")
            np.testing.assert_array_equal(secret.predict(rows), forest.predict(X[:100]))
            spent.append(s.cost().total.rounds)
    assert spent[0] == spent[1]


@pytest.mark.parametrize("provider", ["crypto", None])
def test_a_converted_forest_is_saved_revealed_and_outlined(tmp_path, provider):
    X, y = load_iris(return_X_y=True)
    forest = ensemble.RandomForestClassifier(2, max_depth=2, random_state=0).fit(X, y)
    for secret_features in (False, True)[: 1 if provider is None else 2]:
        model = nn.from_sklearn(forest, X, secret_features=secret_features)
        model.save(tmp_path / "model.npz")
        again = nn.load(tmp_path / "model.npz")
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        outline = model.outline()
        assert not any(p.any() for p in outline.parameters)
        with mpc.Session(provider=provider) as s:
            secret = again.share(s, owner="alice")
            rows = secret.share_rows(X[::10], owner="bob")
            np.testing.assert_array_equal(secret.predict(rows), forest.predict(X[::10]))
            plain = secret.reveal()
        np.testing.assert_allclose(plain.predict_proba(X), forest.predict_proba(X), atol=1e-4)


def _program(s, model, outline, X):
    secret = (model if s.me in (None, "alice") else outline).share(s, owner="alice")
    rows = secret.share_rows(X if s.me in (None, "bob") else None, owner="bob", rows=len(X))
    return secret.predict(rows)


def test_between_processes():
    X, y = load_iris(return_X_y=True)
    vote = ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression(max_iter=500)),
         ("b", ensemble.ExtraTreesClassifier(3, max_depth=3, random_state=0))], voting="soft",
    ).fit(X, y)  # fmt: skip
    model = nn.from_sklearn(vote, X)
    found = mpc.launch(partial(_program, model=model, outline=model.outline(), X=X[::5]))
    for labels in found.values():
        np.testing.assert_array_equal(labels, vote.predict(X[::5]))


# Categories and gaps.


def test_public_preprocessing(tmp_path):
    random = np.random.default_rng(0)
    X = np.empty((80, 4), object)
    X[:, 0], X[:, 1] = random.normal(size=80), random.normal(5, 2, 80)
    X[:, 2] = random.choice(["red", "green", "blue"], 80)
    X[:, 3] = random.choice(["low", "middle", "high"], 80)
    X[::7, 1] = np.nan
    y = (X[:, 2] == "red") | (X[:, 0] > 0.5)
    columns = compose.make_column_transformer(
        (
            make_pipeline(impute.SimpleImputer(add_indicator=True), preprocessing.StandardScaler()),
            [0, 1],
        ),
        (preprocessing.OneHotEncoder(drop="first"), [2]),
        (preprocessing.OrdinalEncoder(categories=[["low", "middle", "high"]]), [3]),
    )
    original = make_pipeline(columns, linear_model.LogisticRegression()).fit(X, y)
    with pytest.raises(ConversionError, match=r"public_preprocessing=True\) allows it"):
        nn.from_sklearn(original, X)
    model = nn.from_sklearn(original, X, public_preprocessing=True)
    model.save(tmp_path / "model.npz")
    for plain in (model, nn.load(tmp_path / "model.npz"), model.outline()):
        numbers = plain.preprocess(X)
        assert numbers.shape == (80, 6)
    np.testing.assert_array_equal(on_shares(model, numbers), original.predict(X))
    X[0, 3] = "other"
    with pytest.raises(mpc.RangeError, match="column 3"):
        model.preprocess(X)


# Refusals.


def test_searches_stand_for_their_best_estimator():
    X, y = load_iris(return_X_y=True)
    search = model_selection.GridSearchCV(
        linear_model.LogisticRegression(max_iter=500), {"C": [1.0]}, refit=False
    ).fit(X, y)
    with pytest.raises(ConversionError, match="by its best_estimator_"):
        nn.from_sklearn(search, X)


@pytest.mark.parametrize("name", ["secret_features", "public_preprocessing"])
def test_flags(name):
    with pytest.raises(mpc.DtypeError, match=f"{name} must be True or False"):
        nn.from_sklearn(linear_model.Ridge(), **{name: "yes"})


def test_one_class_is_always_that_class():
    X = np.random.default_rng(3).normal(size=(12, 2))
    original = naive_bayes.GaussianNB().fit(X, np.full(12, 7))
    model = nn.from_sklearn(original, X)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        assert secret.predict(secret.share_rows(X, owner="bob")).tolist() == [7] * 12


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("width", [0.02, 1e-5, 1e-7])
def test_isotonic_regression_of_any_slope(width, sign):
    """Lines, or stairs where the last digit of a row would show; at the ends of pieces it is exact."""
    X = np.array([0.0, 0.3, 0.3 + width, 0.7, 1.0])
    y = sign * np.array([0.0, 0.1, 0.8, 0.9, 1.0])
    original = isotonic.IsotonicRegression(increasing=sign > 0, out_of_bounds="clip").fit(X, y)
    rows = np.concatenate([X, np.linspace(0, 1, 200), np.linspace(0.3, 0.3 + width, 20)[1:-1]])
    if width < 1e-6:
        rows = rows[:205]  # no unit of rows divides so steep a piece
    found = on_shares(nn.from_sklearn(original, rows[:, None]), rows[:, None])
    assert np.abs(found - original.predict(rows)).max() <= 1e-3 * y.std()
    assert np.abs(found - original.predict(rows))[:5].max() <= 1e-4 * y.std()


def test_isotonic_regression_that_refuses_rows_says_how():
    original = isotonic.IsotonicRegression().fit([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ConversionError, match="set_params"):
        nn.from_sklearn(original, np.array([[0.0], [1.0]]))
    made = nn.from_sklearn(original.set_params(out_of_bounds="clip"), np.array([[0.0], [1.0]]))
    assert made.predict(np.array([[2.0], [0.5]])).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "step",
    [
        preprocessing.PowerTransformer(), preprocessing.PowerTransformer("box-cox", standardize=False),
        preprocessing.QuantileTransformer(n_quantiles=9), preprocessing.QuantileTransformer(n_quantiles=90),
        preprocessing.FunctionTransformer(np.log10), preprocessing.FunctionTransformer(np.tanh),
        preprocessing.FunctionTransformer(np.negative),
        preprocessing.FunctionTransformer(np.log2),
    ],
    ids=lambda step: getattr(step, "func", step).__class__.__name__ + str(getattr(step, "method", "")),
)  # fmt: skip
def test_functions_of_single_features(step):
    random = np.random.default_rng(4)
    X = np.column_stack(
        [random.lognormal(size=90), random.integers(1, 5, 90), random.uniform(0.5, 2, 90)]
    )
    y = X @ [1.0, -2.0, 3.0] + random.normal(size=90)
    original = make_pipeline(step, linear_model.Ridge(0.01)).fit(X, y)
    fresh = np.column_stack(
        [random.lognormal(size=40), random.integers(1, 5, 40), random.uniform(0.5, 2, 40)]
    )
    fresh = np.clip(fresh, X.min(axis=0), X.max(axis=0))
    model = nn.from_sklearn(original, X)
    form = model.audit().suggestion
    found = on_shares(model, fresh, frac_bits=form.frac_bits, int_bits=form.int_bits)
    assert np.abs(found - original.predict(fresh)).max() <= 1e-3 * y.std()


def test_yeo_johnson_of_both_signs_and_special_powers():
    X = np.linspace(-3, 3, 25)[:, None] * [1.0, 0.5, 1.0]
    step = preprocessing.PowerTransformer(standardize=False).fit(X)
    step.lambdas_ = np.array([0.0, 2.0, 1.3])
    original = make_pipeline(step, linear_model.LinearRegression())
    original.steps[1][1].fit(step.transform(X), X[:, 0])
    found = on_shares(nn.from_sklearn(original, X), X)
    assert np.abs(found - original.predict(X)).max() <= 1e-3 * X[:, 0].std()


def test_temperature_of_two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    inner = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    original = calibration.CalibratedClassifierCV(inner, method="temperature", cv=3).fit(X, y)
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-9)


def test_isotonic_calibration_of_three_classes():
    """Rows that no class claims get all classes alike."""
    X, y = load_iris(return_X_y=True)
    inner = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    original = calibration.CalibratedClassifierCV(inner, method="isotonic", cv=3).fit(X, y)
    sums = [
        sum(
            one.predict(z)
            for one, z in zip(part.calibrators, part.estimator.decision_function(X).T, strict=True)
        )
        for part in original.calibrated_classifiers_
    ]
    assert np.count_nonzero(np.array(sums) == 0)
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-3)
    assert (on_shares(model, X) == original.predict(X)).mean() >= 0.995


def test_gaussian_process_with_noise():
    X = np.random.default_rng(5).normal(size=(40, 2))
    y = np.sin(X[:, 0]) + X[:, 1]
    kernel = kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel(0.1)
    original = gaussian_process.GaussianProcessRegressor(
        kernel, optimizer=None, normalize_y=True
    ).fit(X, y)
    found = on_shares(nn.from_sklearn(original, X), X)
    assert np.abs(found - original.predict(X)).max() <= 1e-3 * y.std()


def test_targets_scaled_by_several_steps():
    X, y = load_diabetes(return_X_y=True)
    scalers = make_pipeline(
        preprocessing.MinMaxScaler(), "passthrough", preprocessing.RobustScaler()
    )
    original = compose.TransformedTargetRegressor(linear_model.Ridge(), transformer=scalers).fit(
        X, y
    )
    np.testing.assert_allclose(nn.from_sklearn(original, X).predict(X), original.predict(X))


def test_an_audit_of_values_without_bound_is_an_answer():
    """A network of counts may reach e to any power: the audit says so."""
    X, y = load_diabetes(return_X_y=True)
    original = neural_network.MLPRegressor(
        loss="poisson", hidden_layer_sizes=(4,), max_iter=5, random_state=0
    )
    model = nn.from_sklearn(original.fit(1e3 * X, y / 50), 1e3 * X)
    assert "Exp" in str(model.audit())


def test_kernel_ridge_of_sparse_features():
    X = np.random.default_rng(3).normal(size=(20, 2))
    bins = preprocessing.KBinsDiscretizer(3, encode="onehot", strategy="uniform")
    original = make_pipeline(bins, kernel_ridge.KernelRidge()).fit(X, X[:, 0])
    model = nn.from_sklearn(original, X)
    np.testing.assert_allclose(model.predict(X), original.predict(X), atol=1e-6)


@pytest.mark.parametrize("original", [
    linear_model.RidgeClassifier(),
    linear_model.RidgeClassifierCV(),
    make_pipeline(preprocessing.StandardScaler(), linear_model.RidgeClassifier()),
    dummy.DummyClassifier(strategy="prior"),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_several_labels_a_row_are_refused_by_name(original, known):
    """Ridge classifiers number the labels as if they were classes, of which there is one a row."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 4)), random.integers(0, 2, (60, 3))
    original.fit(X, y)
    with pytest.raises(ConversionError, match="several labels a row"):
        nn.from_sklearn(original, X if known else None)


def test_boosting_with_an_exponential_loss_has_its_probabilities():
    """They are twice as steep, and a sum of 0 is the second class all the same."""
    X, y = load_breast_cancer(return_X_y=True)
    original = ensemble.GradientBoostingClassifier(
        loss="exponential", n_estimators=10, random_state=0
    ).fit(X, y)
    model = nn.from_sklearn(original, X)
    np.testing.assert_array_equal(model.predict(X), original.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=1e-5)
