"""Fitted models that are timed, for every library: the data, the estimators, what is measured.

Every library's process fits them itself, with the same rows and seeds, and tells what the estimator
predicts in the clear, so that whoever compares sees whether the models are the same. Workers import this
module from its folder; it needs scikit-learn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
SEED = 20261128


@dataclass(frozen=True)
class Fitted:
    """A model: its data set, how it is fitted, and what Concrete ML is told.

    Attributes
    ----------
    title : str
    data : str
        Of scikit-learn.
    make : callable
        Returns the estimator to fit.
    concrete : str
        The class of Concrete ML, or "torch" where the weights go through its compiler for networks.
    bits : int
        Of numbers, there.
    rows : int
        How many rows are timed there one by one.
    """

    title: str
    data: str
    make: Callable[[], Any]
    concrete: str
    bits: int
    rows: int = 3

    @property
    def regression(self) -> bool:
        """Whether it predicts numbers."""
        return self.data == "diabetes"


def _linear() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=5, random_state=0)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20, max_depth=4, random_state=0)


def _network() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((32,), max_iter=60, random_state=0)


MODELS = {
    "linear": Fitted("linear regression, diabetes", "diabetes", _linear, "LinearRegression", 12),
    "logistic": Fitted(
        "logistic regression, breast cancer", "breast_cancer", _logistic, "LogisticRegression", 12
    ),
    "tree": Fitted("tree of depth 5, breast cancer", "breast_cancer", _tree, "DecisionTreeClassifier", 6),
    "forest": Fitted(
        "20 trees of depth 4, breast cancer", "breast_cancer", _forest, "RandomForestClassifier", 6
    ),
    "network": Fitted("network 64-32-10, digits", "digits", _network, "torch", 6, 1),
}  # fmt: skip


def rows_of(model: Fitted) -> tuple[Rows, Rows, Any, Any]:
    """Return standardised rows to fit and rows to predict, and their targets."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    X, y = getattr(datasets, f"load_{model.data}")(return_X_y=True)
    fit, test, y_fit, y_test = train_test_split(X, y, test_size=0.25, random_state=SEED)
    middle, spread = fit.mean(0), fit.std(0)
    spread[spread == 0] = 1
    return (fit - middle) / spread, (test - middle) / spread, y_fit, y_test


def fitted(model: Fitted) -> tuple[Any, Rows, Rows, Any]:
    """Return the fitted estimator, the rows it was fitted on, those to predict, and their targets."""
    fit, test, y_fit, y_test = rows_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.make().fit(fit, y_fit), fit, test, y_test


def quality(model: Fitted, predicted: Any, wanted: Any) -> float:
    """Return the part of rows that get their class, or R^2 of a regression."""
    predicted, wanted = np.asarray(predicted).reshape(-1), np.asarray(wanted)
    if model.regression:
        return float(1 - np.mean((predicted - wanted) ** 2) / np.var(wanted))
    return float(np.mean(predicted == wanted))


def timed(function: Callable[[], Any], times: int) -> tuple[Any, list[float]]:
    """Return the last result, and the seconds of each call."""
    taken, result = [], None
    for _ in range(times):
        begun = time.perf_counter()
        result = function()
        taken.append(time.perf_counter() - begun)
    return result, taken
