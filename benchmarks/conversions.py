"""Scikit-learn's models converted and evaluated on shares, on scikit-learn's data sets.

For each estimator, on raw and on standardised features: the share of rows that get the original's
class, or the largest error in standard deviations of the target; and the fixed-point format. Where
the audit refuses the default format it says why, and its suggestion is used. Exits with 1 if a
figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import script
from machine import describe, facts, table
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

import mpc
import nn

AGREEMENT, ERROR = 0.995, 1e-3
ACTIVATIONS = ("relu", "identity", "logistic", "tanh")
DATA = ("breast_cancer", "wine", "digits", "iris", "diabetes")


def estimators(regression: bool) -> dict[str, Any]:
    """Return the estimators by name; those of one kind with the same seed."""
    network: dict[str, Any] = {"hidden_layer_sizes": (32,), "random_state": 0}
    if regression:
        return (
            {"LinearRegression": LinearRegression(), "Ridge": Ridge()}
            | {
                f"MLPRegressor, {a}": MLPRegressor(
                    activation=a, max_iter=500, learning_rate_init=0.01, **network
                )
                for a in ACTIVATIONS
            }
            | {"SecureMLPRegressor": nn.SecureMLPRegressor((32,), max_iter=100, random_state=0)}
        )
    return (
        {"LogisticRegression": LogisticRegression(max_iter=1000), "LinearSVC": LinearSVC()}
        | {f"MLPClassifier, {a}": MLPClassifier(activation=a, **network) for a in ACTIVATIONS}
        | {"SecureMLPClassifier": nn.SecureMLPClassifier((32,), max_iter=50, random_state=0)}
    )


def load(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows and targets; the diabetes rows in their units, years and milligrams."""
    options = {"scaled": False} if name == "diabetes" else {}
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True, **options)
    return X, y


def measure(
    name: str, scaled: bool, title: str, estimator: Any, parties: list[str]
) -> dict[str, Any]:
    """Fit, convert, and compare predictions on shares with the original's."""
    X, y = load(name)
    original = clone(estimator)
    if scaled:
        original = make_pipeline(StandardScaler(), original)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        original.fit(X, y)
    model = nn.from_sklearn(original, X)
    audit = model.audit()
    form = audit.suggestion
    found: dict[str, Any] = {
        "data": name,
        "features": "standardised" if scaled else "raw",
        "estimator": title,
        "refusal": audit.problem,
        "frac_bits": form.frac_bits if form else None,
        "int_bits": form.int_bits if form else None,
    }
    # What Sotto's own predict is on shares already: the plain model is the judge.
    wanted = (model if title.startswith("Secure") else original).predict(X)
    measured: dict[str, Any] = {"agreement": None, "error": None, "seconds": None, "good": False}
    if form is not None:
        with mpc.Session(parties, frac_bits=form.frac_bits, int_bits=form.int_bits) as session:
            secret_model = model.share(session, owner=parties[0])
            rows = secret_model.share_rows(X, owner=parties[-1])
            start = time.perf_counter()
            predicted = secret_model.predict(rows)
            measured["seconds"] = time.perf_counter() - start
        if name == "diabetes":
            measured["error"] = float(np.abs(predicted - wanted).max() / y.std())
            measured["good"] = measured["error"] <= ERROR
        else:
            measured["agreement"] = float(np.mean(predicted == wanted))
            measured["good"] = measured["agreement"] >= AGREEMENT
    return found | measured


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """Return the results as a table with a header."""
    text = [
        [
            "data",
            "features",
            "estimator",
            "same class",
            "error, deviations",
            "format",
            "default format",
        ]
    ]
    for r in results:
        text.append(
            [
                r["data"],
                r["features"],
                r["estimator"],
                "-" if r["agreement"] is None else f"{r['agreement']:.2%}",
                "-" if r["error"] is None else f"{r['error']:.1e}",
                "none" if r["frac_bits"] is None else f"{r['frac_bits']} + {r['int_bits']} bits",
                "fits" if r["refusal"] is None else "refused",
            ]
        )
    return text


def refusals(results: list[dict[str, Any]]) -> list[str]:
    """Return what the audit said where it refused the default format."""
    return [
        f"{r['data']}, {r['features']}, {r['estimator']}: {r['refusal']}"
        for r in results
        if r["refusal"] is not None
    ]


def summary(results: list[dict[str, Any]]) -> str:
    """Return the worst figures as a sentence."""
    agreements = [r["agreement"] for r in results if r["agreement"] is not None]
    errors = [r["error"] for r in results if r["error"] is not None]
    refused = sum(r["refusal"] is not None for r in results)
    parts = [f"{len(results)} models"]
    if agreements:
        parts.append(f"same class for {min(agreements):.2%} of the rows or more")
    if errors:
        parts.append(f"error at most {max(errors):.1e} standard deviations of the target")
    parts.append(f"{refused} refused in the default format")
    good = sum(r["good"] for r in results)
    parts.append(f"{good} of {len(results)} reach {AGREEMENT:.1%} or {ERROR:g}")
    return "; ".join(parts) + "."


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--data", default=",".join(DATA), help="which (default: all five)")
    script.add_parties(parser, "the model", "the data")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    names = [name for name in options.data.split(",") if name]
    if not names or not set(names) <= set(DATA):
        raise ValueError(f"--data must be of {', '.join(DATA)}, got {options.data!r}")
    parties = options.parties.split(",")
    results = [
        measure(name, scaled, title, estimator, parties)
        for name in names
        for title, estimator in estimators(name == "diabetes").items()
        for scaled in (False, True)
    ]
    machine = facts()
    if options.json:
        print(json.dumps({"models": results, "parties": parties, "machine": machine}))
    else:
        print("\n".join([table(rows(results)), "", *refusals(results), summary(results)]))
        print(f"Machine: {describe(machine)}")
    return 0 if all(r["good"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
