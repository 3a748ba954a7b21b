"""The conversions' benchmark on one small data set of each kind; and what it refuses."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.helpers.scripts import check_refused, run


@pytest.fixture
def conversions(benchmark):
    return benchmark("conversions")


def test_measures(conversions):
    parties = ["alice", "bob", "carol"]
    results = [
        conversions.measure("iris", scaled, "Logistic", LogisticRegression(), parties)
        for scaled in (False, True)
    ]
    results.append(conversions.measure("diabetes", True, "Linear", LinearRegression(), parties))
    assert json.loads(json.dumps(results)) == results
    assert [r["good"] for r in results] == [True] * 3
    assert [r["features"] for r in results] == ["raw", "standardised", "standardised"]
    assert min(r["agreement"] for r in results[:2]) >= 0.995
    assert 0 < results[2]["error"] < 1e-3 and results[2]["agreement"] is None
    text = conversions.summary(results)
    assert text.startswith("3 models; ") and "0 refused" in text and "3 of 3" in text
    table = conversions.rows(results)
    assert len(table) == 4 and {len(row) for row in table} == {7}
    assert table[1][5:] == ["16 + 15 bits", "fits"]


def test_a_refusal_is_told_and_its_suggestion_used(conversions, monkeypatch):
    X, y = conversions.load("diabetes")
    monkeypatch.setattr(conversions, "load", lambda name: (X, 1e-4 * y))
    result = conversions.measure("diabetes", True, "Linear", LinearRegression(), ["alice", "bob"])
    assert "16 fractional bits are too few" in result["refusal"] and result["frac_bits"] > 16
    assert result["good"] and conversions.refusals([result])[0].startswith("diabetes, standardised")
    monkeypatch.setattr(conversions, "load", lambda name: (X, 1e-12 * y))
    result = conversions.measure("diabetes", True, "Linear", LinearRegression(), ["alice", "bob"])
    assert result["frac_bits"] is None and not result["good"]
    assert conversions.rows([result])[1][3:] == ["-", "-", "none", "refused"]


def test_every_estimator_is_in_it(conversions):
    found = {
        type(e).__name__
        for regression in (False, True)
        for e in conversions.estimators(regression).values()
    }
    assert found == {
        "LinearRegression", "LinearSVC", "LogisticRegression", "MLPClassifier", "MLPRegressor", "Ridge",
        "SecureMLPClassifier", "SecureMLPRegressor",
    }  # fmt: skip


def test_what_cannot_be_converted_is_an_error(conversions):
    strange = make_pipeline(FunctionTransformer(np.sin), LogisticRegression())
    with pytest.raises(conversions.mpc.SottoError, match="FunctionTransformer"):
        conversions.measure("iris", False, "strange", strange, ["alice", "bob"])


def test_bad_arguments():
    done = run("conversions", "--data", "iris,boston")
    check_refused(done, "error: --data must be of breast_cancer, wine")
