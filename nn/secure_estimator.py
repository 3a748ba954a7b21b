"""The base class of estimators that predict on shares, in a local session with model and rows."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mpc import Session
from nn.models.predictors import Classifier, Regressor
from nn.shared.model import SharedModel
from nn.training.weights import LARGEST
from ring import FixedPoint, get_num_threads, set_num_threads
from ring.errors import ArgumentError, RangeError, SottoError
from ring.real_arrays import check_unmasked, plain_array

__all__ = [
    "SecureClassifier", "SecureEstimator", "SecureRegressor", "Weights", "check_weights", "row_weights",
    "standardised", "threads",
]  # fmt: skip

Weights = NDArray[np.float64] | None
# What validate_data sets before the labels are checked.
_NAMES = ("n_features_in_", "feature_names_in_")
# From here on the deviation of targets may be why a model fits no format.
_LARGE = 2.0**10


class SecureEstimator(BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]
    """Parameters of the session, and shares of model and rows in it."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "parties": ["array-like"],
        "frac_bits": [Interval(Integral, 1, None, closed="left"), None],
        "int_bits": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
    }

    model_: Classifier | Regressor

    def __init__(
        self,
        *,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.parties = parties
        self.frac_bits = frac_bits
        self.int_bits = int_bits
        self.n_jobs = n_jobs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Each truncation rounds at random, up or down to a multiple of 2^-frac_bits.
        tags.non_deterministic = True
        return tags

    @contextmanager
    def _names_kept(self, **tables: Any) -> Iterator[None]:
        """Restore what validate_data has set, if ``fit`` fails: it belongs to the model before.

        Columns of `tables` that hold no numbers are named.
        """
        known = {name: vars(self)[name] for name in _NAMES if name in vars(self)}
        try:
            with _columns_named(**tables):
                yield
        except BaseException:
            for name in _NAMES:
                self.__dict__.pop(name, None)
            self.__dict__.update(known)
            raise

    def _session(
        self, model: Classifier | Regressor | None = None, form: FixedPoint | None = None
    ) -> Session:
        """Return a local session in the format of the parameters, else one for the model, else `form`."""
        form = FixedPoint() if form is None else form
        given = self.frac_bits, self.int_bits
        if given != (None, None):
            frac_bits, int_bits = (
                default if bits is None else int(bits)
                for bits, default in zip(given, (form.frac_bits, form.int_bits), strict=True)
            )
            form = FixedPoint(frac_bits, int_bits)
        elif model is not None:
            form = model.audit().suggestion or form
        return Session(tuple(self.parties), frac_bits=form.frac_bits, int_bits=form.int_bits)

    # Prediction on shares.

    def _rows(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        check_unmasked(X, "X")
        with _columns_named(X=X):
            rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(rows, dtype=np.float64)

    @contextmanager
    def _secret(
        self, X: NDArray[Any], *, scores: bool = False
    ) -> Iterator[tuple[SharedModel, Any]]:
        """Open a session, share model and rows `X` in it, and yield both."""
        with threads(self.n_jobs), self._session(self.model_) as session:
            secret = self._shared(session, scores, "the model does not fit the format")
            outside = (X < secret.low) | (X > secret.high)
            if outside.any():
                # All parties live here, so the range of these rows may be public in the session.
                low, high = self.model_.range_for(None, None)
                ends = {
                    "low": np.minimum(low, X.min(axis=0)), "high": np.maximum(high, X.max(axis=0))
                }  # fmt: skip
                index = tuple(int(i) for i in np.argwhere(outside)[0])
                secret = self._shared(
                    session, scores, f"X is too far from the rows of fit, as {X[index]:g} at index"
                    f" {index} is, for the format", **ends,
                )  # fmt: skip
            yield secret, secret.share_rows(X, owner=session.parties[-1])

    def _shared(self, session: Session, scores: bool, problem: str, **inputs: Any) -> SharedModel:
        """Share the model; an error about the format names this estimator's parameters."""
        try:
            return self.model_.share(session, session.parties[0], scores=scores, **inputs)
        except RangeError as error:
            form = f"frac_bits={session.format.frac_bits}, int_bits={session.format.int_bits}"
            text = str(error).replace("mpc.Session(", f"{type(self).__name__}(")
            if isinstance(self, RegressorMixin) and np.max(self.model_.output_scale_) > _LARGE:
                text += "; scale y, as by TransformedTargetRegressor with a StandardScaler"
            raise RangeError(f"{problem} {form}: {text}") from None


class SecureClassifier(ClassifierMixin, SecureEstimator):  # type: ignore[misc]
    """Predictions of classes."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of each row. Nothing else is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,)

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If `X` is not (rows, features), or has missing or infinite values.
        RangeError
            If the model, or a row far from those of ``fit``, does not fit the fixed-point format.
        """
        with self._secret(self._rows(X)) as (model, rows):
            labels: NDArray[Any] = model.predict(rows)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class. The scores are revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)

        Raises
        ------
        NotFittedError, ValueError, RangeError
            As in ``predict``.
        """
        with self._secret(self._rows(X), scores=True) as (model, rows):
            odds: NDArray[Any] = model.predict_proba(rows)
        return odds


class SecureRegressor(RegressorMixin, SecureEstimator):  # type: ignore[misc]
    """Predictions of values."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predicted value of each row. Nothing else is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)

        Raises
        ------
        NotFittedError, ValueError, RangeError
            As of a classifier, see :class:`SecureClassifier`.
        """
        with self._secret(self._rows(X)) as (model, rows):
            values: NDArray[Any] = model.predict(rows)
        return values


@contextmanager
def _columns_named(**tables: Any) -> Iterator[None]:
    """Raise DtypeError with the names of columns that hold no numbers, if a check of tables fails.

    Complex columns, too, which beside columns of bools scikit-learn's check takes the real part of.
    """
    for name, table in tables.items():
        if hasattr(table, "columns") and any(dtype.kind == "c" for dtype in table.dtypes):
            plain_array(table, name)
    try:
        yield
    except SottoError:
        raise
    except (TypeError, ValueError):
        for name, table in tables.items():
            if hasattr(table, "iloc"):
                plain_array(table, name)
        raise


def standardised(
    targets: NDArray[np.float64], weights: Weights, *, centre: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of each column, 0 without `centre`, and its deviation, 1 if it is constant.

    With a weight of 2 a row counts as if it was there twice.
    """
    middle = np.zeros(targets.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        if centre:
            middle = np.average(targets, axis=0, weights=weights)
        rest = targets - middle
        largest = np.abs(rest).max(axis=0)
        # Squares of numbers near 1 alone.
        rest = rest / np.where(largest > 0, largest, 1.0)
        deviation = largest * np.sqrt(np.average(rest**2, axis=0, weights=weights))
    if not (np.isfinite(middle).all() and np.isfinite(deviation).all()):
        raise RangeError(f"y must be below about 1e307, got {np.abs(targets).max():g}")
    return middle, np.where(deviation > 0, deviation, 1.0)


def row_weights(sample_weight: Any, X: NDArray[Any]) -> Weights:
    """Return weights of the rows of X after checking them, None if none are given."""
    if sample_weight is None:
        return None
    weights = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64))
    check_weights(weights)
    return weights


def check_weights(weights: NDArray[np.float64]) -> None:
    """Raise ArgumentError unless weights are from 0 to the largest one that a training takes."""
    if not 0 < weights.max() <= LARGEST or weights.min() < 0:
        raise ArgumentError(
            f"weights of rows must be from 0 to {LARGEST:g} and not all 0, got {weights.min():g} to"
            f" {weights.max():g}"
        )


@contextmanager
def threads(n_jobs: int | None) -> Iterator[None]:
    """Set the kernels' number of threads; as joblib counts `n_jobs`, None leaves it."""
    if n_jobs is None:
        yield
        return
    before = get_num_threads()
    set_num_threads(effective_n_jobs(n_jobs))
    try:
        yield
    finally:
        set_num_threads(before)
