"""Write docs/scikit-learn.md: which estimators of scikit-learn are converted, tried one by one.

Every classifier and regressor that scikit-learn lists is fitted to five data sets, raw and scaled, and so
are pipelines of the usual kinds; then converted, shared in a local session, and asked for 200 rows. The
tests run a share of this, and with SOTTO_ALL_ESTIMATORS all of it; the tables are what this program writes.
Each estimator is tried in a process of its own, which may take 6 GB of memory. With a folder, outcomes are
kept there, and those that are there already are not tried again:

    python docs/write_scikit_learn.py [--jobs N] [--kept FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import (
    calibration,
    cluster,
    compose,
    datasets,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    kernel_approximation,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    random_projection,
    svm,
    tree,
)  # fmt: skip
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

import mpc
import nn

HERE = Path(__file__).resolve().parent
PAGE = HERE / "scikit-learn.md"
# What stands behind this is written by this program.
MARK = "<!-- written by docs/write_scikit_learn.py -->\n"
ROWS = 200
_MEMORY = 6 << 30
make = pipeline.make_pipeline
scale = preprocessing.StandardScaler


class Outcome(NamedTuple):
    """What came of one estimator: "agrees", "differs", "refused" or "not fitted", and why.

    Of a classifier, how many labels are those of the original, and of how many; of a regressor, the
    largest error in deviations of the targets.
    """

    kind: str
    reason: str = ""
    right: int = 0
    asked: int = 0
    error: float = 0.0


def classification() -> dict[str, tuple[Any, Any]]:
    """Return the data sets of classifiers."""
    found = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True)
        for name in ("iris", "wine", "breast_cancer", "digits")
    }
    found["synthetic"] = datasets.make_classification(
        300, 10, n_informative=6, n_classes=3, random_state=0
    )
    return found


def regression() -> dict[str, tuple[Any, Any]]:
    """Return the data sets of regressors."""
    return {
        "diabetes": datasets.load_diabetes(return_X_y=True),
        "diabetes in its units": datasets.load_diabetes(return_X_y=True, scaled=False),
        "friedman1": datasets.make_friedman1(300, 10, random_state=0, noise=0.5),
        "friedman2": datasets.make_friedman2(300, random_state=0),
        "linear": datasets.make_regression(300, 8, noise=5, random_state=0),
    }


_LOGISTIC, _RIDGE = linear_model.LogisticRegression(), linear_model.Ridge()
_TREE = tree.DecisionTreeClassifier(max_depth=3, random_state=0)
# Arguments of estimators that need some.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "IsotonicRegression": {"out_of_bounds": "clip"},
    "StackingClassifier": {"estimators": [("a", _LOGISTIC), ("b", _TREE)]},
    "StackingRegressor": {"estimators": [("a", _RIDGE)]},
    "VotingClassifier": {"estimators": [("a", _LOGISTIC), ("b", _TREE)]},
    "VotingRegressor": {"estimators": [("a", _RIDGE)]},
} | {
    name: {"estimator": _RIDGE if name in ("MultiOutputRegressor", "RegressorChain") else _LOGISTIC}
    for name in (
        "ClassifierChain", "FixedThresholdClassifier", "MultiOutputClassifier", "MultiOutputRegressor",
        "OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier", "RegressorChain",
        "SelfTrainingClassifier", "TunedThresholdClassifierCV",
    )
}  # fmt: skip
# These take several targets a row.
_SEVERAL = ("MultiTask", "MultiOutput", "RegressorChain", "ClassifierChain", "CCA", "PLSCanonical")
# Too slow to fit here, and not converted.
_SLOW = ("GaussianProcessClassifier",)


def estimators(kind: str) -> dict[str, Any]:
    """Return every classifier or regressor of scikit-learn, not fitted, by name."""
    found = {}
    for name, made in all_estimators(type_filter=kind):
        estimator = made(**ARGUMENTS.get(name, {}))
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=0)
        found[name] = estimator
    return found


def try_one(name: str, estimator: Any, X: Any, y: Any) -> Outcome:
    """Fit an estimator, convert it, and compare its answers with those on shares."""
    if name.startswith(_SEVERAL):
        y = np.stack([y, y[::-1]], axis=1)
    if name == "IsotonicRegression":
        X = X[:, :1]
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        try:
            estimator.fit(X, y)
        except ValueError as error:
            return Outcome("not fitted", str(error))
        rows = rows_of(X)
        try:
            model = nn.from_sklearn(estimator, X)
            form = model.audit().suggestion
            own = {} if form is None else {"frac_bits": form.frac_bits, "int_bits": form.int_bits}
            with mpc.Session(**own) as s:
                secret = model.share(s, owner="alice")
                got = secret.predict(secret.share_rows(rows, owner="bob"))
        except mpc.SottoError as error:
            return Outcome("refused", str(error))
        want = estimator.predict(rows)
    if hasattr(model, "classes_"):
        right = int(np.count_nonzero(got == want))
        kind = "agrees" if right >= 0.995 * len(rows) else "differs"
        return Outcome(kind, f"{right} of {len(rows)} labels", right, len(rows))
    error = float(np.max(np.abs(got - want)) / (np.std(y) or 1.0))
    kind = "agrees" if error <= 1e-3 else "differs"
    return Outcome(kind, f"{error:.2g} deviations", error=error)


def rows_of(X: Any) -> Any:
    """Return 200 rows of the data; where it has fewer, also mixtures of two of its rows."""
    random = np.random.default_rng(0)
    rows = X[random.permutation(len(X))[:ROWS]]
    one, other = random.integers(0, len(X), (2, ROWS - len(rows)))
    part = random.uniform(size=(ROWS - len(rows), 1))
    return np.concatenate([rows, part * X[one] + (1 - part) * X[other]])


def pipelines() -> Iterator[tuple[str, Any]]:
    """Yield the names and estimators of 62 pipelines, half of them classifiers."""
    logistic = linear_model.LogisticRegression(max_iter=500)
    forest = ensemble.RandomForestClassifier(20, max_depth=5, random_state=0)
    boosted = ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0)
    halves = compose.ColumnTransformer(
        [("a", scale(), [0, 2]), ("b", preprocessing.MinMaxScaler(), [1, 3])]
    )
    union = pipeline.FeatureUnion([("a", decomposition.PCA(2)), ("b", scale())])
    fronts = {
        "RobustScaler": preprocessing.RobustScaler(),
        "MaxAbsScaler": preprocessing.MaxAbsScaler(),
        "MinMaxScaler": preprocessing.MinMaxScaler(clip=True),
        "StandardScaler, PCA": make(scale(), decomposition.PCA(3)),
        "IncrementalPCA": decomposition.IncrementalPCA(2),
        "TruncatedSVD": decomposition.TruncatedSVD(2, random_state=0),
        "FactorAnalysis": make(scale(), decomposition.FactorAnalysis(2, random_state=0)),
        "FastICA": decomposition.FastICA(2, random_state=0, whiten="unit-variance"),
        "GaussianRandomProjection": random_projection.GaussianRandomProjection(3, random_state=0),
        "SparseRandomProjection": random_projection.SparseRandomProjection(3, random_state=0),
        "SelectKBest": feature_selection.SelectKBest(k=3),
        "RFE": feature_selection.RFE(linear_model.LinearRegression(), n_features_to_select=2),
        "VarianceThreshold": feature_selection.VarianceThreshold(0.01),
        "SelectFromModel": feature_selection.SelectFromModel(linear_model.LinearRegression()),
        "ColumnTransformer": halves,
        "FeatureUnion": union,
        "PolynomialFeatures": make(scale(), preprocessing.PolynomialFeatures(2)),
        "PolynomialFeatures(3)": make(scale(), preprocessing.PolynomialFeatures(3)),
        "Normalizer": preprocessing.Normalizer(),
        "Normalizer(l1)": preprocessing.Normalizer("l1"),
        "Binarizer": preprocessing.Binarizer(threshold=1.5),
        "KBinsDiscretizer": preprocessing.KBinsDiscretizer(
            4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"
        ),
        "FunctionTransformer(log1p)": preprocessing.FunctionTransformer(np.log1p),
        "FeatureAgglomeration": cluster.FeatureAgglomeration(2),
        "QuantileTransformer": preprocessing.QuantileTransformer(n_quantiles=20, random_state=0),
        "PowerTransformer": preprocessing.PowerTransformer(),
        "SplineTransformer": preprocessing.SplineTransformer(),
        "Nystroem": kernel_approximation.Nystroem(n_components=20, random_state=0),
    }
    for name, front in fronts.items():
        yield f"{name}, LogisticRegression", make(front, logistic)
    ends = {
        "forest": forest,
        "boosted": boosted,
        "SVC": svm.SVC(),
        "LinearSVC": svm.LinearSVC(),
        "SVC(linear)": svm.SVC(kernel="linear"),
        "SVC(poly)": svm.SVC(kernel="poly"),
        "GaussianNB": naive_bayes.GaussianNB(),
        "KNeighbors": neighbors.KNeighborsClassifier(),
        "LDA": discriminant_analysis.LinearDiscriminantAnalysis(),
        "MLP": neural_network.MLPClassifier((16,), random_state=0, max_iter=300),
        "GridSearchCV": model_selection.GridSearchCV(logistic, {"C": [0.1, 1.0]}),
        "Calibrated": calibration.CalibratedClassifierCV(svm.LinearSVC()),
        "Calibrated(isotonic)": calibration.CalibratedClassifierCV(logistic, method="isotonic"),
        "OneVsRest": multiclass.OneVsRestClassifier(svm.LinearSVC()),
        "OneVsOne": multiclass.OneVsOneClassifier(logistic),
        "Voting(soft)": ensemble.VotingClassifier(
            [("a", logistic), ("b", forest), ("c", naive_bayes.GaussianNB())], voting="soft"
        ),
        "Voting(hard)": ensemble.VotingClassifier([("a", logistic), ("b", forest)]),
        "Stacking": ensemble.StackingClassifier([("a", logistic), ("b", forest)], logistic),
        "Stacking, passthrough": ensemble.StackingClassifier(
            [("a", logistic), ("b", forest)], logistic, passthrough=True
        ),
        "Bagging": ensemble.BaggingClassifier(logistic, 5, random_state=0, max_features=0.75),
        "AdaBoost": ensemble.AdaBoostClassifier(n_estimators=20, random_state=0),
        "PCA, forest": make(decomposition.PCA(3), forest),
        "PolynomialFeatures, boosted": make(preprocessing.PolynomialFeatures(2), boosted),
    }
    for name, end in ends.items():
        yield f"StandardScaler, {name}", make(scale(), end)
    ridge = linear_model.Ridge()
    target = compose.TransformedTargetRegressor
    values = {
        "target scaled, SVR": target(svm.SVR(), transformer=scale()),
        "target log, Ridge": target(ridge, func=np.log, inverse_func=np.exp),
        "target scaled, forest": target(
            ensemble.RandomForestRegressor(20, random_state=0),
            transformer=preprocessing.MinMaxScaler(),
        ),
        "PolynomialFeatures, LassoCV": make(
            preprocessing.PolynomialFeatures(2), linear_model.LassoCV(max_iter=3000)
        ),
        "PLS of RandomizedSearchCV": model_selection.RandomizedSearchCV(
            ridge, {"alpha": [0.1, 1.0]}, n_iter=2, random_state=0
        ),
        "HistGradientBoosting": ensemble.HistGradientBoostingRegressor(max_iter=30),
        "Stacking": ensemble.StackingRegressor([("a", ridge), ("b", svm.LinearSVR())]),
        "Voting": ensemble.VotingRegressor(
            [("a", ridge), ("b", tree.DecisionTreeRegressor(max_depth=4, random_state=0))]
        ),
        "MultiOutput": multioutput.MultiOutputRegressor(ridge),
        "KNeighbors": neighbors.KNeighborsRegressor(),
        "PoissonRegressor": linear_model.PoissonRegressor(),
    }
    for name, end in values.items():
        yield f"regression: StandardScaler, {name}", make(scale(), end)


def try_pipeline(name: str, estimator: Any) -> Outcome:
    """Try a pipeline on the iris, or on the diabetes data in its units."""
    if name.startswith("regression"):
        X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
        return try_one("MultiOutput" if "MultiOutput" in name else name, estimator, X, y)
    return try_one(name, estimator, *datasets.load_iris(return_X_y=True))


def tries(kind: str, name: str, estimator: Any) -> list[Outcome]:
    """Try one estimator on all data sets, raw and scaled."""
    from sklearn.base import clone

    if name in _SLOW:
        return [Outcome("refused", f"{name} is not converted")] * 10
    data = classification() if kind == "classifier" else regression()
    return [
        try_one(name, make(*front, clone(estimator)), X, y)
        for X, y in data.values()
        for front in ([], [scale()])
    ]


def cells(name: str, found: list[Outcome]) -> str:
    """Return a row of the table."""
    counts = [
        sum(one.kind == kind for one in found) for kind in ("agrees", "refused", "not fitted")
    ]
    reasons = [one.reason for one in found if one.kind == "refused"]
    reason = reasons[0].split(". ")[0].split("; ")[0] if reasons else ""
    return f"| {name} | " + " | ".join(map(str, counts)) + f" | {reason.replace('|', ',')} |"


def alone(kind: str, name: str, kept: Path | None) -> list[Outcome]:
    """Try one estimator, or all pipelines, in a process of its own, unless its outcomes are kept."""
    place = None if kept is None else kept / f"{kind}-{name}.json"
    if place is None or not place.exists():
        child = subprocess.run(
            [sys.executable, __file__, "--one", kind, name],
            stdout=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        if child.returncode:
            raise SystemExit(f"{kind} {name}: its process ended with {child.returncode}")
        found = child.stdout
        if place is not None:
            place.write_text(found, encoding="utf-8")
    else:
        found = place.read_text(encoding="utf-8")
    print(name, file=sys.stderr, flush=True)
    return [Outcome(*one) for one in json.loads(found)]


def page(jobs: int, kept: Path | None) -> str:
    """Return the whole page; raise if an answer is wrong."""
    names = [
        *((kind, name) for kind in ("classifier", "regressor") for name in estimators(kind)),
        ("pipelines", "all"),
    ]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = dict(zip(names, pool.map(lambda one: alone(*one, kept), names), strict=True))
    wrong = {
        name: one for name, found in outcomes.items() for one in found if one.kind == "differs"
    }
    if wrong:
        raise SystemExit("\n".join(f"{name} differs: {one}" for name, one in wrong.items()))
    lines = [PAGE.read_text(encoding="utf-8").split(MARK)[0] + MARK]
    for kind in ("classifier", "regressor"):
        tried = {name: found for (its, name), found in outcomes.items() if its == kind}
        agreed = [one for found in tried.values() for one in found if one.kind == "agrees"]
        converted = sum(any(one.kind == "agrees" for one in found) for found in tried.values())
        right, asked = sum(one.right for one in agreed), sum(one.asked for one in agreed)
        answers = (
            f"{right:,} of {asked:,} labels on shares are the original's"
            if kind == "classifier"
            else f"the largest error is {max(one.error for one in agreed):.1e} deviations"
        )
        lines += [
            f"### {kind.capitalize()}s", "",
            f"{converted} of {len(tried)} are converted; {answers}.", "",
            f"| {kind} | agrees | refused | not fitted | why it is refused |", "|---|---:|---:|---:|---|",
            *(cells(name, found) for name, found in tried.items()), "",
        ]  # fmt: skip
    named = [name for name, _ in pipelines()]
    chains = dict(zip(named, outcomes["pipelines", "all"], strict=True))
    agreed_chains = sum(one.kind == "agrees" for one in chains.values())
    lines += ["### Pipelines", "", f"{agreed_chains} of {len(chains)} are converted.", ""]
    lines += ["| pipeline | outcome |", "|---|---|"]
    for name, one in chains.items():
        why = "" if one.kind == "agrees" else ": " + one.reason.split(". ")[0].split("; ")[0]
        lines.append(f"| {name} | {one.kind}{why.replace('|', ',')} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write it, or try one estimator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", type=Path, help="folder of outcomes")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NAME"), help="print its outcomes alone")
    asked = parser.parse_args()
    if asked.one is None:
        PAGE.write_text(page(asked.jobs, asked.kept), encoding="utf-8")
        return 0
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    kind, name = asked.one
    if kind == "pipelines":
        found = [try_pipeline(*one) for one in pipelines()]
    else:
        found = tries(kind, name, estimators(kind)[name])
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
