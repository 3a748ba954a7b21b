"""Linear regression, ridge and logistic regression by scikit-learn's conventions, fitted on shares.

For rows and targets in the clear ``fit`` opens a local session, as the other estimators do to predict. For
shared ones, of several organisations too, it returns a model on shares.
"""

from __future__ import annotations

import sys
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from mpc import SharedArray
from nn.core.labels import encode_labels
from nn.fixed_point.inputs import InputScale, public_range
from nn.layers import Dense
from nn.models.predictors import Classifier, Regressor
from nn.secure_estimator import (
    SecureClassifier,
    SecureEstimator,
    SecureRegressor,
    Weights,
    row_weights,
    standardised,
    threads,
)
from nn.shared.linear_fit import fit_least_squares, fit_logistic
from nn.shared.linear_models import DependentColumnsError, least_squares, logistic
from ring import FixedPoint
from ring.errors import ArgumentError, RangeError
from ring.real_arrays import check_unmasked

__all__ = ["SecureLinearRegression", "SecureLogisticRegression", "SecureRidge"]

# For `fit`: rows that are scaled to [-1, 1] have room for finer numbers than the default format's.
_FORM = FixedPoint(20, 15)
# The part of its largest value over which a column spreads; with less, its spread shows in few units.
_LEAST_SPREAD = 2.0**-11


class _Linear(SecureEstimator):
    """What the estimators have in common: how rows are scaled, and what the shares' answer becomes."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "fit_intercept": ["boolean"],
        **SecureEstimator._parameter_constraints,
    }

    fit_intercept: bool

    @abstractmethod
    def _solved(
        self, X: SharedArray, y: SharedArray, alpha: NDArray[np.float64], weights: Any
    ) -> tuple[SharedArray, SharedArray]:
        """Return coefficients and intercepts on shares."""

    def _on_shares(
        self, X: NDArray[Any], targets: NDArray[Any], alpha: float, weights: Weights
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return weights of shape (features, outputs) and a bias, of rows in the clear."""
        low, high = public_range(X)
        scale = InputScale.of(low, high, [Dense.untrained(X.shape[1], 1)])
        assert scale is not None
        if not self.fit_intercept:
            reach = np.maximum(np.abs(low), np.abs(high))
            scale = InputScale(np.zeros_like(low), np.ceil(np.log2(reach)).astype(np.int64))
            _check_spread(X, scale)
        # A column far smaller than its penalty is not brought to 1, for the sake of all others.
        largest = 1.0 if weights is None else float(weights.max())
        alpha = alpha / largest
        least = np.ceil(np.log2(alpha / len(X)) / 2) if alpha > 0 else -np.inf
        scale = InputScale(scale.middle, np.maximum(scale.power, least).astype(np.int64))
        with threads(self.n_jobs), self._session(form=_FORM) as session:
            owner = session.parties[-1]
            rows = session.share(scale.apply(X), owner, bound=1)
            # A bound must be positive; targets are all 0 for a regressor of a constant.
            bound = float(np.abs(targets).max()) or 1.0
            shared = session.share(targets, owner, bound=bound)
            w = None
            if weights is not None:
                w = session.share(weights / largest, owner, bound=1)
            found = self._solved(rows, shared, np.ldexp(float(alpha), -2 * scale.power), w)
            coefficients, bias = (x.reveal() for x in found)
        with np.errstate(over="ignore", invalid="ignore"):
            (layer,) = scale.unfold([Dense(coefficients, bias)])
        return layer.parameters[0], layer.parameters[1]


def _check_spread(X: NDArray[Any], scale: InputScale) -> None:
    """Raise DependentColumnsError if the format shows columns that stay 0 apart as the same one."""
    spread = np.ldexp(np.ptp(X, axis=0), -scale.power)
    alike = np.flatnonzero(spread < _LEAST_SPREAD)
    if len(alike) > 1 and spread[alike].any():
        raise DependentColumnsError(
            f"without an intercept, columns of X must not be far from 0 compared with their spread, got"
            f" columns {alike[:5].tolist()} of up to {np.abs(X[:, alike]).max():g} with a spread of"
            f" {np.ptp(X[:, alike], axis=0).max():g}: subtract their means, or fit_intercept=True"
        )


def _finite(layer: Dense) -> Dense:
    """Return a layer whose numbers are finite; raise RangeError if one is not."""
    if not all(np.isfinite(array).all() for array in layer.parameters):
        raise RangeError(
            "a coefficient does not fit a double: bring columns of X to the order of 1"
        )
    return layer


class SecureRidge(SecureRegressor, _Linear):
    """Linear least squares with a penalty, fitted on shares by the normal equations.

    As :class:`sklearn.linear_model.Ridge`: minimises the sum of w (y - X c - i)^2 and of alpha c^2.

    Parameters
    ----------
    alpha : float, default=1
        At least 0; 0 is :class:`SecureLinearRegression`.
    fit_intercept : bool, default=True
    parties : sequence of str, default=("alice", "bob")
        The computing parties of the local session. The last owns the rows.
    frac_bits, int_bits : int, optional
        The fixed-point format of the local session. Default: 20 and 15 for ``fit``, where each feature is
        brought to [-1, 1]; for predictions the format that ``model_.audit()`` suggests.
    n_jobs : int, optional
        Threads of the kernels; default the number set by :func:`ring.set_num_threads`.

    Attributes
    ----------
    coef_ : ndarray of shape (features,) or (outputs, features)
        As in scikit-learn, of shape (features,) too for `y` of shape (rows, 1).
    intercept_ : float or ndarray of shape (outputs,)
    n_features_in_, feature_names_in_, model_
        As of :class:`nn.SecureMLPRegressor`.

    Raises
    ------
    ValueError, ArgumentError, RangeError
        By ``fit`` and ``predict``, see there; the constructor checks nothing, as in scikit-learn.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> nn.SecureRidge(alpha=0.1).fit(X, y).score(X, y) > 0.5
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        **_Linear._parameter_constraints,
    }

    coef_: NDArray[Any]
    intercept_: Any

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        super().__init__(parties=parties, frac_bits=frac_bits, int_bits=int_bits, n_jobs=n_jobs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _is_flat(self, shape: tuple[int, ...]) -> bool:
        """Return whether predictions for targets of a shape have one axis, as scikit-learn's Ridge."""
        return len(shape) == 1 or shape[1:] == (1,)

    def _solved(
        self, X: SharedArray, y: SharedArray, alpha: NDArray[np.float64], weights: Any
    ) -> tuple[SharedArray, SharedArray]:
        return least_squares(X, y, alpha, bool(self.fit_intercept), weights)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit on shares: in a local session, or in that of shared rows.

        Parameters
        ----------
        X : array_like or SharedArray of shape (rows, features)
            Shared rows with a public bound, ``session.share(..., bound=)``, that is not far above their
            values.
        y : array_like or SharedArray of shape (rows,) or (rows, outputs)
        sample_weight : array_like of shape (rows,), optional
            From 0 to 1024; below about a millionth of the largest they count as 0. For shared rows a
            SharedArray, which stays secret.

        Returns
        -------
        self, or for shared rows a SharedRegressor
            Whose weights stay secret until ``reveal``. This object does not change then.

        Raises
        ------
        ValueError
            If `X` or `y` is not of the shape above, or has missing or infinite values.
        ArgumentError
            If a parameter breaks a rule, or there are more than 256 features.
        DependentColumnsError
            If columns are nearly linearly dependent. Where they are exactly so, or constant, or more than
            the rows, the coefficients are those of least norm, of columns that are brought to deviations of
            1/2 to 1 by powers of two; predictions of rows with the same dependence do not depend on that.
        RangeError
            If a value or a coefficient does not fit the fixed-point format.
        """
        alpha = float(getattr(self, "alpha", 0.0))
        if isinstance(X, SharedArray) or isinstance(y, SharedArray):
            flat = self._is_flat(getattr(y, "shape", ()))
            return fit_least_squares(X, y, alpha, bool(self.fit_intercept), sample_weight, flat)
        check_unmasked(X, "X")
        check_unmasked(y, "y")
        with self._names_kept(X=X, y=y):
            X, y = validate_data(
                self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
            )
            X, y = np.asarray(X, np.float64), np.asarray(y)
            weights = row_weights(sample_weight, X)
            targets = np.asarray(y, np.float64).reshape(len(y), -1)
            middle, deviation = standardised(targets, weights, centre=bool(self.fit_intercept))
            found, bias = self._on_shares(X, (targets - middle) / deviation, alpha, weights)
            with np.errstate(over="ignore", invalid="ignore"):
                layer = _finite(Dense(found * deviation, bias * deviation + middle))
            flat = self._is_flat(y.shape)
            model = Regressor([layer], X.shape[1], flat=flat)
            model.take_rows(X)
        # The spread of the targets, which is better than the spread of the predictions.
        model.output_scale_ = deviation
        model.feature_names_in_ = getattr(self, "feature_names_in_", None)
        self.model_ = model
        coefficients, intercepts = layer.parameters[0].T, layer.parameters[1]
        self.coef_ = coefficients[0] if flat else coefficients
        self.intercept_ = float(intercepts[0]) if y.ndim == 1 else intercepts
        if not self.fit_intercept:
            self.intercept_ = 0.0
        return self


class SecureLinearRegression(SecureRidge):
    """Linear least squares, fitted on shares by the normal equations.

    As :class:`sklearn.linear_model.LinearRegression`.

    Parameters
    ----------
    fit_intercept, parties, frac_bits, int_bits, n_jobs
        As of :class:`SecureRidge`.

    Attributes
    ----------
    coef_, intercept_, n_features_in_, feature_names_in_, model_
        As of :class:`SecureRidge`.

    Raises
    ------
    ValueError, ArgumentError, RangeError
        As of :class:`SecureRidge`.

    Examples
    --------
    Alice has the rows, bob the numbers, and the model stays secret:

    >>> import mpc, nn
    >>> with mpc.Session() as s:
    ...     X = s.share([[0.0], [0.5], [1.0]], owner="alice", bound=1)
    ...     y = s.share([1.0, 2.0, 3.0], owner="bob", bound=4)
    ...     model = nn.SecureLinearRegression().fit(X, y)
    ...     model.predict(X).round(3).tolist()
    [1.0, 2.0, 3.0]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {**_Linear._parameter_constraints}

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.fit_intercept = fit_intercept
        _Linear.__init__(
            self, parties=parties, frac_bits=frac_bits, int_bits=int_bits, n_jobs=n_jobs
        )

    def _is_flat(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1


class SecureLogisticRegression(SecureClassifier, _Linear):
    """Logistic regression with a penalty, fitted on shares by Newton's method.

    As :class:`sklearn.linear_model.LogisticRegression`: minimises the sum of w times the cross-entropy, and
    of c^2 / (2 C). Three or more classes by their softmax, not one against the rest.

    Parameters
    ----------
    C : float, default=1
        Above 0: the inverse of the penalty.
    fit_intercept : bool, default=True
    class_weight : dict of class to number, "balanced" or None, default=None
        Factors on the loss of rows of each class. For shared rows "balanced" is at most 1024, and counts
        stay secret; a dict is public.
    max_iter : int, default=50
        Steps, at most.
    tol : float, default=1e-3
        ``fit`` ends at a step that moves no coefficient of a column by more, if columns are brought to
        deviations of 1/2 to 1 by powers of two. Steps converge quadratically unless C is very large.
    parties, frac_bits, int_bits, n_jobs
        As of :class:`SecureRidge`.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels in ascending order.
    coef_ : ndarray of shape (1, features) or (classes, features)
    intercept_ : ndarray of shape (1,) or (classes,)
    n_iter_ : ndarray of shape (1,)
        Steps.
    n_features_in_, feature_names_in_, model_
        As of :class:`nn.SecureMLPClassifier`.

    Raises
    ------
    ValueError, ArgumentError, RangeError
        By ``fit`` and the predicting methods, see there; the constructor checks nothing, as in
        scikit-learn.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> nn.SecureLogisticRegression().fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        # 1 / C is finite.
        "C": [Interval(Real, sys.float_info.min, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        **_Linear._parameter_constraints,
    }

    classes_: NDArray[Any]
    coef_: NDArray[Any]
    intercept_: NDArray[Any]
    n_iter_: NDArray[Any]

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        max_iter: int = 50,
        tol: float = 1e-3,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        super().__init__(parties=parties, frac_bits=frac_bits, int_bits=int_bits, n_jobs=n_jobs)

    def _solved(
        self, X: SharedArray, y: SharedArray, alpha: NDArray[np.float64], weights: Any
    ) -> tuple[SharedArray, SharedArray]:
        found = logistic(
            X, y, alpha, bool(self.fit_intercept), weights,
            max_iter=int(self.max_iter), tol=float(self.tol),
        )  # fmt: skip
        self._steps = found.steps, found.converged
        return found.coefficients, found.intercepts

    def _warn(self, steps: int, converged: bool) -> None:
        if not converged:
            warnings.warn(
                f"{type(self).__name__} has not converged in {steps} steps: a smaller C, a larger max_iter"
                " or tol, or columns that are scaled",
                ConvergenceWarning,
                stacklevel=4,
            )

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, classes: ArrayLike | None = None
    ) -> Any:
        """Fit on shares: in a local session, or in that of shared rows.

        Parameters
        ----------
        X : array_like or SharedArray of shape (rows, features)
            Shared rows with a public bound, ``session.share(..., bound=)``, that is not far above their
            values.
        y : array_like of shape (rows,), or SharedArray of shape (rows,) or (rows, classes)
            Labels. Shared ones are 0 and 1, or one-hot rows: :func:`nn.one_hot`.
        sample_weight : array_like of shape (rows,), optional
            From 0 to 1024; below about a millionth of the largest they count as 0. For shared rows a
            SharedArray, which stays secret.
        classes : array_like of shape (classes,), optional
            Of shared labels: what they are called, in ascending order; default 0, 1, ...

        Returns
        -------
        self, or for shared rows a SharedModel
            Whose weights stay secret until ``reveal``. This object does not change then.

        Raises
        ------
        ValueError
            If `X` or `y` is not of the shape above, or has missing or infinite values.
        ArgumentError
            If a parameter breaks a rule, `y` has one class only, or there are more than 256 unknowns.
        RangeError
            If a value or a coefficient does not fit the fixed-point format.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If `max_iter` steps were too few.
        """
        if isinstance(X, SharedArray) or isinstance(y, SharedArray):
            secret, steps, converged = fit_logistic(
                X, y, float(self.C), bool(self.fit_intercept), sample_weight, self.class_weight,
                classes, max_iter=int(self.max_iter), tol=float(self.tol),
            )  # fmt: skip
            self._warn(steps, converged)
            return secret
        if classes is not None:
            raise ArgumentError(f"classes is for shared labels, got {classes!r}")
        check_unmasked(X, "X")
        check_unmasked(y, "y")
        with self._names_kept(X=X, y=y):
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
            X, y = np.asarray(X, np.float64), np.asarray(y)
            check_classification_targets(y)
            found = np.unique(y)
            if len(found) < 2:
                raise ArgumentError(
                    f"{type(self).__name__} needs at least two classes in y, got one class only"
                )
            names, numbers = encode_labels(y, found, len(found))
            weights = row_weights(sample_weight, X)
            if self.class_weight is not None:
                by_class = compute_sample_weight(self.class_weight, y)
                weights = row_weights(by_class if weights is None else weights * by_class, X)
            two = len(names) == 2
            targets = numbers.reshape(-1, 1) if two else np.eye(len(names), dtype=np.int64)[numbers]
            coefficients, bias = self._on_shares(X, targets, 1 / float(self.C), weights)
            layer = _finite(Dense(coefficients, bias))
            if two:
                layer = Dense(coefficients * [0, 1], bias * [0, 1])
            model = Classifier([layer], names, X.shape[1])
            model.take_rows(X)
        model.feature_names_in_ = getattr(self, "feature_names_in_", None)
        self.model_, self.classes_ = model, names
        self.coef_, self.intercept_ = coefficients.T, bias
        steps, converged = self.__dict__.pop("_steps")
        self.n_iter_ = np.array([steps])
        self._warn(steps, converged)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return the scores. They are revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,) for two classes, else (rows, classes)

        Raises
        ------
        NotFittedError, ValueError, RangeError
            As in ``predict``.
        """
        with self._secret(self._rows(X), scores=True) as (model, rows):
            scores: NDArray[Any] = model.decision_function(rows)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores
