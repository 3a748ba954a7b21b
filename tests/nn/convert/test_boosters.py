"""Boosted trees of xgboost and lightgbm: from dumps kept here, and from the libraries if installed."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mpc
import nn
from mpc import ArgumentError, DtypeError, ShapeError
from nn.convert.problems import ConversionError
from nn.models.predictors import Classifier, Regressor
from ring.errors import DataError
from tests.vectors import boosters

FILES = sorted(boosters.FOLDER.glob("*.json"))
INSTALLED = all(importlib.util.find_spec(name) for name in ("xgboost", "lightgbm"))
needs_both = pytest.mark.skipif(not INSTALLED, reason="needs xgboost and lightgbm")
# xgboost sums in float32.
NEAR = 3e-6


def load(name):
    return json.loads((boosters.FOLDER / f"{name}.json").read_text())


def check(model, rows, wanted, odds):
    found = model.predict(rows)
    assert found.shape == wanted.shape
    if isinstance(model, Classifier):
        assert np.array_equal(found, wanted)
        assert np.abs(model.predict_proba(rows) - odds).max() < NEAR
    else:
        assert np.abs(found - wanted).max() < NEAR * np.abs(wanted).max()


def held_apart(dump, rows):
    """Return which rows shares can tell apart: not those a double's last bit above a threshold."""
    count = 3 * min(8, len(boosters.thresholds(dump)))
    kept = np.ones(len(rows), bool)
    kept[len(rows) - count + 2 :: 3] = False
    assert 0.5 < kept.mean() < 1
    return kept


def check_shared(model, rows, wanted):
    """Of rows on a threshold, too, every row goes the original's way."""
    form = model.audit().suggestion or mpc.Session().format
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = model.share(s, owner="alice")
        found = secret.predict(secret.share_rows(rows, owner="bob"))
    if isinstance(model, Classifier):
        assert np.array_equal(found, wanted)
    else:
        assert np.abs(found - wanted).max() < 1e-3 * np.std(wanted)


def test_every_kind_is_here():
    assert len(FILES) == 11
    assert {path.stem.split("-")[0] for path in FILES} == {"xgboost", "lightgbm"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dumps_are_read_without_the_libraries(path):
    kept = load(path.stem)
    rows, wanted = np.array(kept["rows"]), np.array(kept["predictions"])
    model = nn.from_booster(kept["dump"], rows)
    assert isinstance(model, Classifier) == ("probabilities" in kept)
    check(model, rows, wanted, kept.get("probabilities"))
    chosen = held_apart(kept["dump"], rows)
    check_shared(nn.from_booster(kept["dump"], rows[chosen]), rows[chosen], wanted[chosen])


def test_a_file_and_hidden_features(tmp_path):
    kept = load("lightgbm-multiclass")
    chosen = held_apart(kept["dump"], np.array(kept["rows"]))
    rows, wanted = np.array(kept["rows"])[chosen], np.array(kept["predictions"])[chosen]
    path = tmp_path / "model.json"
    path.write_text(json.dumps(kept["dump"]))
    names = ["setosa", "versicolor", "virginica"]
    model = nn.from_booster(str(path), rows, classes=names, secret_features=True)
    assert np.array_equal(model.predict(rows), np.array(names)[wanted.astype(int)])
    check_shared(model, rows, np.array(names)[wanted.astype(int)])
    model.save(tmp_path / "model.npz")
    assert np.array_equal(nn.load(tmp_path / "model.npz").predict(rows), model.predict(rows))
    without = nn.from_booster(path)
    assert without.input_range_ is None
    with mpc.Session() as s, pytest.raises(ArgumentError, match="low and high must be given"):
        without.share(s, owner="alice")


def changed(name, change):
    dump = copy.deepcopy(load(name)["dump"])
    change(dump)
    return dump


def xgboost_tree(dump):
    return dump["learner"]["gradient_booster"]["model"]["trees"][0]


def lightgbm_root(dump):
    return dump["tree_info"][0]["tree_structure"]


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("xgboost-binary", lambda d: xgboost_tree(d).update(categories_nodes=[0]), "categorical splits"),
        ("xgboost-binary", lambda d: xgboost_tree(d).pop("left_children"), "damaged"),
        ("xgboost-binary", lambda d: d["learner"]["gradient_booster"].update(name="gblinear"), "gblinear"),
        ("xgboost-binary", lambda d: d["learner"]["objective"].update(name="rank:ndcg"), "'rank:ndcg'"),
        ("xgboost-binary", lambda d: d.pop("learner"), "a dump must be the JSON"),
        (
            "xgboost-binary",
            lambda d: xgboost_tree(d)["tree_param"].update(size_leaf_vector="2"),
            "several outputs",
        ),
        ("lightgbm-binary", lambda d: lightgbm_root(d).update(decision_type="=="), "categorical splits"),
        ("lightgbm-binary", lambda d: lightgbm_root(d).update(missing_type="Zero"), "zero_as_missing"),
        ("lightgbm-binary", lambda d: d.update(objective="lambdarank"), "'lambdarank'"),
        ("lightgbm-regression", lambda d: d.update(objective="regression sqrt"), "reg_sqrt"),
        ("lightgbm-binary", lambda d: d.update(objective="multiclassova"), "'multiclassova'"),
        ("lightgbm-binary", lambda d: d.update(tree_info=[]), "one tree or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(name, change, text):
    with pytest.raises(ConversionError, match=re.escape(text)):
        nn.from_booster(changed(name, change))


def set_tree(**lists):
    def change(dump):
        for name, values in lists.items():
            xgboost_tree(dump)[name][: len(values)] = values

    return change


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("xgboost-binary", set_tree(left_children=[0]), "do not make a tree"),
        ("xgboost-binary", set_tree(right_children=[1]), "do not make a tree"),
        ("xgboost-binary", set_tree(right_children=[-1]), "do not make a tree"),
        ("xgboost-binary", set_tree(right_children=[10**6]), "damaged"),
        ("xgboost-binary", set_tree(split_indices=[10**6]), "compares feature 1000000 of"),
        ("xgboost-binary", set_tree(split_conditions=[float("nan")]), "is NaN"),
        ("lightgbm-binary", lambda d: lightgbm_root(d).update(split_feature=-1), "feature -1 of"),
        (
            "lightgbm-binary",
            lambda d: lightgbm_root(d).update(left_child={"leaf_value": float("nan")}),
            "is NaN",
        ),
        (
            "xgboost-binary",
            lambda d: d["learner"]["gradient_booster"]["model"].update(
                tree_info=[-1] * len(d["learner"]["gradient_booster"]["model"]["trees"])
            ),
            "output -1 of 1",
        ),
        (
            "xgboost-binary",
            lambda d: d["learner"]["learner_model_param"].update(num_target="2"),
            "several labels a row",
        ),
    ],
)  # fmt: skip
def test_damaged_trees_and_several_labels_are_refused(name, change, text):
    with pytest.raises(ConversionError, match=re.escape(text)) as info:
        nn.from_booster(changed(name, change))
    assert "ConversionError" not in str(info.value)


def test_pruned_nodes_are_no_matter():
    """xgboost's dumps keep the nodes that it has pruned, which no row comes to."""
    kept = load("xgboost-binary")
    rows = np.array(kept["rows"])
    before = nn.from_booster(kept["dump"], rows).predict_proba(rows)

    def change(dump):
        for tree in dump["learner"]["gradient_booster"]["model"]["trees"]:
            for name, values in (
                ("left_children", [-1, -1]), ("right_children", [-1, -1]),
                ("split_indices", [2**31 - 1] * 2), ("split_conditions", [7.0, 8.0]),
            ):  # fmt: skip
                tree[name] += values

    after = nn.from_booster(changed("xgboost-binary", change), rows).predict_proba(rows)
    assert np.array_equal(after, before)


@needs_both
def test_trees_that_were_pruned():
    import xgboost

    X, y = boosters.load_breast_cancer(return_X_y=True)
    estimator = xgboost.XGBClassifier(
        n_estimators=3, max_depth=5, gamma=20.0, tree_method="exact", n_jobs=1
    ).fit(X, y)
    trees = json.loads(bytes(estimator.get_booster().save_raw("json")))["learner"]
    trees = trees["gradient_booster"]["model"]["trees"]
    assert any(int(tree["tree_param"]["num_deleted"]) for tree in trees)
    check(nn.from_sklearn(estimator, X), X, estimator.predict(X), estimator.predict_proba(X))


def test_linear_leaves_are_refused():
    def change(dump):
        node = lightgbm_root(dump)
        while "split_feature" in node:
            node = node["left_child"]
        node["leaf_const"] = 1.0

    with pytest.raises(ConversionError, match="^linear leaves"):
        nn.from_booster(changed("lightgbm-binary", change))


def test_wrong_arguments(tmp_path):
    dump = load("lightgbm-regression")["dump"]
    (tmp_path / "text").write_text("tree\n")
    (tmp_path / "deep").write_text("[" * 100_000)
    for source, how, error, text in [
        (tmp_path / "none.json", {}, DataError, "cannot be read as JSON"),
        (tmp_path / "text", {}, DataError, "cannot be read as JSON"),
        (tmp_path / "deep", {}, DataError, "cannot be read as JSON"),
        (3, {}, ConversionError, "a Booster of xgboost or lightgbm is needed, got 3"),
        (dump, {"classes": [0, 1]}, ConversionError, "has no classes"),
        (dump, {"secret_features": 1}, DtypeError, "secret_features must be True or False"),
        (load("xgboost-binary")["dump"], {"classes": [0, 1, 2]}, ShapeError, "2 outputs"),
    ]:
        with pytest.raises(error, match=re.escape(text)):
            nn.from_booster(source, **how)


@needs_both
@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_estimators_and_boosters_of_the_libraries(name):
    import lightgbm
    import xgboost

    estimator, (X, y) = boosters.models(xgboost, lightgbm)[name]
    estimator.fit(X, y)
    rows = np.concatenate([X[:60], boosters.rows_of(X, boosters.dump_of(estimator))])
    wanted = np.asarray(estimator.predict(rows))
    odds = estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else None
    own = estimator.get_booster() if "xgboost" in name else estimator.booster_
    for model in (nn.from_sklearn(estimator, rows), nn.from_booster(own, rows)):
        check(model, rows, wanted, odds)


@needs_both
def test_boosters_in_pipelines_votes_and_after_early_stopping():
    import lightgbm
    import xgboost

    X, y = boosters.load_breast_cancer(return_X_y=True)
    few = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1}
    members = [
        ("x", xgboost.XGBClassifier(**few)),
        ("l", lightgbm.LGBMClassifier(**few, verbose=-1)),
        ("o", LogisticRegression(max_iter=2000)),
    ]
    words = np.where(y, "benign", "malignant")
    for original in (
        make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**few, verbose=-1)),
        make_pipeline(StandardScaler(), VotingClassifier(members, voting="soft")),
    ):
        original.fit(X, words)
        model = nn.from_sklearn(original, X)
        assert np.mean(model.predict(X) == original.predict(X)) > 0.995
    early = xgboost.XGBClassifier(
        n_estimators=200, max_depth=3, n_jobs=1, learning_rate=0.5, early_stopping_rounds=2
    ).fit(X[:300], y[:300], eval_set=[(X[300:], y[300:])], verbose=False)
    assert early.best_iteration < early.get_booster().num_boosted_rounds() - 1
    model = nn.from_sklearn(early, X)
    assert np.array_equal(model.predict(X), early.predict(X))
    assert np.abs(model.predict_proba(X) - early.predict_proba(X)).max() < 1e-5


@needs_both
def test_a_model_that_is_not_fitted_or_has_categories_is_refused():
    import lightgbm
    import pandas
    import xgboost

    from nn.models.trainable import NotFittedError

    for estimator in (xgboost.XGBClassifier(), lightgbm.LGBMRegressor()):
        with pytest.raises((NotFittedError, ConversionError)):
            nn.from_sklearn(estimator)
    zero = xgboost.XGBClassifier(n_estimators=2, missing=0.0).fit(np.ones((8, 1)), [0, 1] * 4)
    with pytest.raises(ConversionError, match="missing=0 is not converted"):
        nn.from_sklearn(zero)
    table = pandas.DataFrame({"a": pandas.Categorical(list("xyz") * 40), "b": np.arange(120.0)})
    estimator = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, min_child_samples=2)
    estimator.fit(table, table["a"] == "y")
    with pytest.raises(ConversionError, match="categorical splits"):
        nn.from_sklearn(estimator)


def test_the_dumps_are_small():
    assert sum(Path(path).stat().st_size for path in FILES) < 400_000
    assert all(
        isinstance(nn.from_booster(load(p.stem)["dump"]), (Classifier, Regressor)) for p in FILES
    )
