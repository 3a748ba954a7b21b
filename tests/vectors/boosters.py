"""Write the dumps in tests/vectors/boosters: small models of xgboost and lightgbm, and what they answer.

    pip install xgboost lightgbm && python -m tests.vectors.boosters

Among the rows are some that lie on a threshold, and next to one.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

FOLDER = Path(__file__).resolve().parent / "boosters"


def models(xgboost, lightgbm):
    """Return estimators and their data, by name."""
    cancer, iris, diabetes = (
        load(return_X_y=True) for load in (load_breast_cancer, load_iris, load_diabetes)
    )
    few = {"n_estimators": 3, "max_depth": 3, "n_jobs": 1, "random_state": 0}
    quiet = {**few, "verbose": -1}
    return {
        "xgboost-binary": (xgboost.XGBClassifier(**few), cancer),
        "xgboost-multiclass": (xgboost.XGBClassifier(**{**few, "max_depth": 2}), iris),
        "xgboost-regression": (xgboost.XGBRegressor(**few), diabetes),
        "xgboost-poisson": (xgboost.XGBRegressor(**few, objective="count:poisson"), diabetes),
        "xgboost-dart": (xgboost.XGBRegressor(**few, booster="dart", rate_drop=0.5), diabetes),
        "xgboost-forest": (xgboost.XGBRFClassifier(**few), cancer),
        "lightgbm-binary": (lightgbm.LGBMClassifier(**quiet), cancer),
        "lightgbm-multiclass": (lightgbm.LGBMClassifier(**quiet), iris),
        "lightgbm-regression": (lightgbm.LGBMRegressor(**quiet), diabetes),
        "lightgbm-poisson": (lightgbm.LGBMRegressor(**quiet, objective="poisson"), diabetes),
        "lightgbm-forest": (
            lightgbm.LGBMRegressor(**quiet, boosting_type="rf", subsample=0.7, subsample_freq=1),
            diabetes,
        ),
    }


def dump_of(estimator):
    if hasattr(estimator, "get_booster"):
        return json.loads(bytes(estimator.get_booster().save_raw("json")))
    return estimator.booster_.dump_model()


def thresholds(dump):
    """Return pairs of a feature and a threshold."""
    if "learner" in dump:
        booster = dump["learner"]["gradient_booster"]
        trees = booster.get("gbtree", booster)["model"]["trees"]
        return [
            (feature, float(np.float32(limit)))
            for tree in trees
            for feature, limit, left in zip(
                tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
            )
            if left >= 0
        ]
    found, nodes = [], [tree["tree_structure"] for tree in dump["tree_info"]]
    for node in nodes:
        if "split_feature" in node:
            found.append((node["split_feature"], node["threshold"]))
            nodes += [node["left_child"], node["right_child"]]
    return found


def rows_of(X, dump):
    """Return some rows of the data, and rows on, just below and just above thresholds."""
    rows = [*X[:: len(X) // 12]]
    middle = np.median(X, axis=0)
    for feature, limit in thresholds(dump)[:8]:
        for value in (limit, np.nextafter(limit, -np.inf), np.nextafter(limit, np.inf)):
            row = middle.copy()
            row[feature] = value
            rows.append(row)
    return np.array(rows)


def main():
    import lightgbm
    import xgboost

    FOLDER.mkdir(exist_ok=True)
    for name, (estimator, (X, y)) in models(xgboost, lightgbm).items():
        dump = dump_of(estimator.fit(X, y))
        dump.pop("pandas_categorical", None)
        rows = rows_of(X, dump)
        kept = {
            "dump": dump,
            "rows": rows.tolist(),
            "predictions": np.asarray(estimator.predict(rows), np.float64).tolist(),
        }
        if hasattr(estimator, "predict_proba"):
            odds = np.asarray(estimator.predict_proba(rows), np.float64)
            kept["probabilities"] = odds.tolist()
        (FOLDER / f"{name}.json").write_text(json.dumps(kept, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
