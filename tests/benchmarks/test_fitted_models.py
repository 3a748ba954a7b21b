"""Fitted models beside Concrete ML: what is measured, and texts that say what was found."""

import json

import pytest

from tests.helpers.scripts import check_refused, run


@pytest.fixture(scope="module")
def measured():
    """A run without the peer: parties and provider as processes."""
    done = run("fitted_models", "--no-peer", "--models", "logistic", "--repeats", 1, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_measures_both_parties_as_processes(measured):
    (item,) = measured["models"]
    found = item["sotto"]
    assert found["quality"] == found["plain_quality"] > 0.9
    assert found["rows"] > 100 and len(found["seconds_row"]) == 1
    assert item["concrete"] == {"error": "not measured"} and not item["same_model"]


def test_texts_say_what_was_found_and_what_failed(benchmark, measured):
    models = benchmark("fitted_models")
    text = "\n".join(models.fitted_text(measured))
    assert "- Concrete ML, logistic regression, breast cancer: not measured." in text
    found = json.loads(json.dumps(measured))
    found["models"][0]["concrete"] = {
        "quality": 0.9, "seconds_row": [0.25, 0.75, 0.5], "seconds_compiling": 1.0, "seconds_keys": 2.0,
    }  # fmt: skip
    text = "\n".join(models.fitted_text(found))
    assert "| 0.900 |" in text and "| 0.5 [0.25-0.75] s | 3.0 s |" in text
    assert "fit models that differ in some row" in text
    found["models"][0]["same_model"] = True
    assert "differ" not in "\n".join(models.fitted_text(found))


def test_models_are_fitted_by_one_seed(peers):
    fitted = peers("fitted")
    model = fitted.MODELS["tree"]
    first, second = (fitted.fitted(model) for _ in range(2))
    assert first[0].predict(first[2]).tolist() == second[0].predict(second[2]).tolist()
    assert abs(first[1].mean(0)).max() < 1e-9 and fitted.quality(model, first[3], first[3]) == 1
    assert fitted.quality(fitted.MODELS["linear"], [2.0, 2.0], [1.0, 3.0]) == 0


def test_bad_arguments():
    check_refused(run("fitted_models", "--models", "knn"), "--models must be of linear, logistic")
    check_refused(run("fitted_models", "--repeats", 0), "--repeats must be at least 1, got 0")


def test_published_figures(benchmark):
    publish = benchmark("publish")
    if not (publish.FILES / "fitted_models.json").exists():
        pytest.skip("not measured: publish.py --run --only fitted_models")
    for item in publish.read("fitted_models")["models"]:
        assert item["sotto"]["quality"] >= item["sotto"]["plain_quality"] - 0.01, item["title"]
