"""Rows that are only like those that a model was converted with: right on shares, or refused."""

import re

import numpy as np
import pytest
from sklearn import (
    decomposition,
    ensemble,
    gaussian_process,
    kernel_ridge,
    neighbors,
    neural_network,
    preprocessing,
    svm,
)
from sklearn.datasets import load_diabetes, load_linnerud
from sklearn.pipeline import make_pipeline

import mpc
import nn
from nn.convert.from_sklearn import ConversionError


def between(X, count, seed=1):
    """Return rows that lie between two of `X`."""
    random = np.random.default_rng(seed)
    one, other = random.integers(0, len(X), (2, count))
    part = random.uniform(size=(count, 1))
    return part * X[one] + (1 - part) * X[other]


def on_shares(model, rows, frac_bits, int_bits):
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        secret = model.share(s, owner="alice")
        return secret.predict(secret.share_rows(rows, owner="bob"))


def test_trees_of_computed_features_ask_for_a_format_in_which_rows_do_not_leap():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    forest = ensemble.RandomForestRegressor(8, random_state=0)
    original = make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(4), forest).fit(X, y)
    model, rows = nn.from_sklearn(original, X), between(X, 400)
    audit = model.audit()
    assert not audit.fits and "fractional bits are too few" in audit.problem
    form, want = audit.suggestion, original.predict(rows)
    found = on_shares(model, rows, form.frac_bits, form.int_bits)
    assert np.mean(np.abs(found - want) > 1e-3 * y.std()) <= 1 / 400


def test_rows_on_thresholds_of_computed_features_count_as_they_do_there():
    """With few bins, thresholds are rows of the training data, up to the last digits of a sum."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    boosted = ensemble.HistGradientBoostingRegressor(max_iter=4)
    original = make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(4), boosted)
    original.fit(X, y)
    model, want = nn.from_sklearn(original, X), original.predict(X)
    np.testing.assert_allclose(model.predict(X), want)
    form = model.audit().suggestion
    found = on_shares(model, X, form.frac_bits, form.int_bits)
    assert np.abs(found - want).max() <= 1e-3 * y.std()


@pytest.mark.parametrize("names", [False, True])
def test_small_differences_beside_large_values_are_refused(names):
    random = np.random.default_rng(1)
    X = np.exp(random.normal(size=(400, 3)) * [0, 6, 0.1])
    y = np.log(X[:, 1]) + X[:, 2]
    boosted = ensemble.GradientBoostingRegressor(loss="huber", random_state=0)
    given = X
    if names:
        given = pytest.importorskip("pandas").DataFrame(X, columns=["a", "wide", "c"])
    message = "got a feature, " + ("'wide'" if names else "1") + ", of far smaller differences"
    with pytest.raises(ConversionError, match=re.escape(message)):
        nn.from_sklearn(boosted.fit(given, y), given)
    logarithms = np.log(X)
    model = nn.from_sklearn(boosted.fit(logarithms, y), logarithms)
    rows = between(logarithms, 100)
    assert np.abs(on_shares(model, rows, 16, 15) - boosted.predict(rows)).max() <= 1e-3 * y.std()


def test_what_weights_make_of_a_function_s_own_error_is_refused():
    X, y = load_linnerud(return_X_y=True)
    steep = kernel_ridge.KernelRidge(kernel="sigmoid", gamma=0.1, alpha=0.01, coef0=0.5)
    with pytest.raises(ConversionError, match="smaller weights, as by a larger alpha"):
        nn.from_sklearn(make_pipeline(preprocessing.StandardScaler(), steep).fit(X, y), X)
    flat = kernel_ridge.KernelRidge(kernel="sigmoid", gamma=0.1)
    original = make_pipeline(preprocessing.StandardScaler(), flat).fit(X, y)
    model, rows = nn.from_sklearn(original, X), between(X, 100)
    form = model.audit().suggestion
    found = on_shares(model, rows, form.frac_bits, form.int_bits)
    assert (np.abs(found - original.predict(rows)) <= 1e-3 * y.std(axis=0)).all()


def test_a_network_that_hardly_learnt_is_converted():
    X, y = load_diabetes(return_X_y=True)
    network = neural_network.MLPRegressor(
        hidden_layer_sizes=(4,), activation="tanh", max_iter=1, random_state=0
    )
    assert nn.from_sklearn(network.fit(X / 100, y), X / 100).audit().fits


def test_rows_that_are_not_typical_of_their_range_count():
    """Most rows of the range are where tanh is flat, and exact; those that occur are not."""
    random = np.random.default_rng(12)
    X = np.column_stack([random.lognormal(0, 1, 300), random.normal(0, 3, 300)])
    X = np.column_stack([X, random.uniform(-50, 50, 300)])
    y = 30 * X[:, 0] - X[:, 1] ** 2
    original = kernel_ridge.KernelRidge(kernel="sigmoid", gamma=0.1, alpha=5).fit(X, y)
    model, rows = nn.from_sklearn(original, X), between(X, 200)
    form = model.audit().suggestion
    found = on_shares(model, rows, form.frac_bits, form.int_bits)
    assert np.abs(found - original.predict(rows)).max() <= 1e-3 * original.predict(X).std()


def test_a_sum_of_leaves_that_is_0_is_the_second_class():
    X = np.repeat(np.arange(3.0), 2)[:, None]
    original = ensemble.GradientBoostingClassifier(n_estimators=2).fit(X, [0, 1] * 3)
    assert (original.predict(X) == 1).all() and not original.decision_function(X).any()
    model = nn.from_sklearn(original, X)
    assert (model.predict(X) == 1).all()
    assert (on_shares(model, X, 16, 15) == 1).all()


def test_refusals_say_what_it_is():
    X, y = load_linnerud(return_X_y=True)
    matern = gaussian_process.GaussianProcessRegressor(gaussian_process.kernels.Matern())
    for original, message in [
        (matern.fit(X, y), "constant times RBF"),
        (svm.SVR(kernel=lambda a, b: a @ b.T).fit(X, y[:, 0]), "kernels by name are"),
        (neighbors.KNeighborsRegressor(3).fit(X, y), "points at the same distance"),
    ]:
        with pytest.raises(ConversionError, match=message):
            nn.from_sklearn(original, X)
