"""Models on shares from regressions on shares: checks of the data, and the model of the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, SessionError, ShapeError
from nn.core.labels import ordered_classes
from nn.layers import Dense
from nn.shared.bounds import largest_inputs
from nn.shared.equations import are_none
from nn.shared.linear_models import least_squares, logistic
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor
from nn.training.tasks import finished, one_hot_columns
from nn.training.weights import named_weights, shared_weights
from ring.real_arrays import plain_array

__all__ = ["fit_least_squares", "fit_logistic"]


def _check(X: Any, y: Any) -> None:
    """Raise an error unless X and y are shared rows and as many targets of one session."""
    for name, value in (("X", X), ("y", y)):
        if not isinstance(value, SharedArray):
            raise DtypeError(
                f"{name} must be a SharedArray too, got {type(value).__name__}:"
                " session.share(..., owner=...)"
            )
    if X.session is not y.session:
        raise SessionError("X and y belong to different sessions")
    if X.ndim != 2 or not X.size:
        raise ShapeError(
            f"X must have the shape (rows, features), at least one each, got {X.shape}"
        )
    if y.ndim not in (1, 2) or len(y) != len(X) or not y.size:
        raise ShapeError(f"y must have the shape ({len(X)},) or ({len(X)}, outputs), got {y.shape}")


def _input_bound(X: SharedArray) -> float:
    """Return the largest magnitude of X, which is public."""
    form = X.session.format
    return form.limit if X.bound == form.bound and X.frac_bits else X.bound / 2**X.frac_bits


def _limit(session: Session, layer: Dense, X: SharedArray) -> float:
    return largest_inputs(session, [layer], X.shape[1], _input_bound(X))


def fit_least_squares(
    X: Any, y: Any, alpha: float, intercept: bool, sample_weight: Any, flat: bool
) -> SharedRegressor:
    """Return the model of a linear regression with penalty `alpha`; see :class:`nn.SecureRidge`.

    With `flat` predictions have one axis.
    """
    _check(X, y)
    session, features = X.session, X.shape[1]
    columns = y.reshape(len(X), -1)
    outputs = np.arange(columns.shape[1])
    weights = shared_weights(columns, outputs, None, sample_weight)
    # Parties that were given other arguments are noticed here.
    given = named_weights(None, sample_weight, outputs)
    session.note("least squares", alpha, intercept, sorted(given.items()))
    penalty = np.full(features, float(alpha))
    layer = Dense(
        *least_squares(
            X, columns, penalty, intercept, None if weights is None else weights.reshape(-1)
        )
    )
    limit = _limit(session, layer, X)
    return SharedRegressor(session, [layer], outputs, features, -limit, limit, flat=flat)


def fit_logistic(
    X: Any,
    y: Any,
    C: float,
    intercept: bool,
    sample_weight: Any,
    class_weight: Any,
    classes: ArrayLike | None,
    *,
    max_iter: int,
    tol: float,
) -> tuple[SharedModel, int, bool]:
    """Return the model of a logistic regression, steps, and whether it has converged.

    See :class:`nn.SecureLogisticRegression`.
    """
    _check(X, y)
    session, features = X.session, X.shape[1]
    columns = _check_labels(y.reshape(len(X), -1))
    if columns.shape[1] == 2:
        columns = columns[:, 1:]  # one score for two classes
    outputs = columns.shape[1]
    task = "two classes" if outputs == 1 else "classes"
    count = max(2, outputs)
    given: NDArray[Any] = np.arange(count) if classes is None else plain_array(classes, "classes")
    names = ordered_classes(given, count)
    counted = one_hot_columns(columns) if outputs == 1 else columns
    weights = shared_weights(counted, names, class_weight, sample_weight)
    by_weights = sorted(named_weights(class_weight, sample_weight, names).items())
    session.note("logistic regression", C, intercept, names.tolist(), max_iter, tol, by_weights)
    found = logistic(
        X,
        columns,
        np.full(features, 1 / C),
        intercept,
        None if weights is None else weights.reshape(-1),
        max_iter=max_iter,
        tol=tol,
    )
    layer = Dense(found.coefficients, found.intercepts)
    limit = _limit(session, layer, X)
    model = SharedModel(
        session,
        finished(task, [layer]),
        names,
        features,
        -limit,
        limit,
        link="softmax",
        scores=True,
    )
    return model, found.steps, found.converged


def _check_labels(y: SharedArray) -> SharedArray:
    """Return y with the bound 1; raise ArgumentError unless its rows are 0 or 1, or one-hot.

    One bit is opened, unless the bound shows it.
    """
    if y.binary and y.shape[1] == 1:
        return y
    with y.session.range_policy.vouched():
        strange = (((1 - y) * y) != 0).sum()
        if y.shape[1] > 1:
            strange = strange + (y.sum(axis=1) != 1).sum()
        if not are_none(strange)[0]:
            raise ArgumentError(
                "y must be 0 and 1, or one-hot rows of three or more classes: share nn.one_hot(labels)"
            )
    return y.with_integer_bound(1 << y.frac_bits)
