"""Estimators by scikit-learn's conventions whose predictions are made on shares.

They train in the clear, or on shares, and predict in a local session: model and rows are split into shares,
evaluated as they would be between organisations, and the predictions alone are revealed. So a
pipeline, a grid search or a cross-validation measures what the encrypted model does. To predict
between organisations, give the fitted estimator, or the pipeline around it, to
:func:`nn.from_sklearn` and share the result in a session of several processes.

This module imports scikit-learn, which ``import nn`` does not.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mpc import Session
from nn.core.labels import encode_labels
from nn.layers import Dense, Layer
from nn.layers.folding import dense
from nn.layers.initialisation import RandomState
from nn.models.mlp import dense_layers
from nn.models.predictors import Classifier, Regressor
from nn.models.trainable import Network
from nn.shared.model import SharedModel
from nn.training.optimizers import SCHEDULES
from ring import FixedPoint, get_num_threads, set_num_threads
from ring.errors import ArgumentError, RangeError
from ring.real_arrays import check_unmasked

__all__ = ["SecureMLPClassifier", "SecureMLPRegressor"]


class _SecureMLP(BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]
    """What both estimators have in common."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like"],
        "solver": [StrOptions({"sgd", "adam"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), None],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "momentum": [Interval(Real, 0, 1, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.Generator],
        "encrypted_fit": ["boolean"],
        "parties": ["array-like"],
        "frac_bits": [Interval(Integral, 1, None, closed="left"), None],
        "int_bits": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    model_: Classifier | Regressor

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        solver: str = "adam",
        learning_rate_init: float | None = None,
        learning_rate: str = "cosine",
        momentum: float | None = None,
        batch_size: int = 32,
        max_iter: int = 200,
        random_state: RandomState = None,
        encrypted_fit: bool = False,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.random_state = random_state
        self.encrypted_fit = encrypted_fit
        self.parties = parties
        self.frac_bits = frac_bits
        self.int_bits = int_bits
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Fixed point rounds at random, by less than 2^-frac_bits a step.
        tags.non_deterministic = True
        return tags

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Weights of each layer, of shape (inputs, outputs)."""
        return [layer.weights for layer in self.model_.layers if isinstance(layer, Dense)]

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Bias of each layer."""
        return [layer.bias for layer in self.model_.layers if isinstance(layer, Dense)]

    @abstractmethod
    def _fit(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        """Set ``model_``, and what else is fitted."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train, in the clear or on shares.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,)

        Returns
        -------
        self
        """
        check_unmasked(X, "X")
        check_unmasked(y, "y")
        X, y = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            multi_output=isinstance(self, RegressorMixin),
            y_numeric=isinstance(self, RegressorMixin),
        )
        self._fit(np.asarray(X), np.asarray(y))
        self.model_.feature_names_in_ = getattr(self, "feature_names_in_", None)
        return self

    def _widths(self, X: NDArray[Any], targets: NDArray[Any]) -> tuple[int, ...]:
        widths = [int(width) for width in np.ravel(np.asarray(self.hidden_layer_sizes))]
        if min(widths, default=1) < 1:
            raise ArgumentError(f"hidden_layer_sizes must be at least 1, got {tuple(widths)}")
        return (X.shape[1], *widths, targets.shape[1])

    def _session(self, model: Classifier | Regressor | None = None) -> Session:
        """Return a session in the format that was asked for, else in one that suits the model."""
        form = FixedPoint()
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

    def _train(self, X: NDArray[Any], targets: NDArray[Any], loss: str) -> list[Layer]:
        """Train layers from `X` to `targets`, in the clear or on shares."""
        network = _Perceptron(self._widths(X, targets), self.random_state)
        settings: dict[str, Any] = {
            "epochs": int(self.max_iter), "batch_size": min(int(self.batch_size), len(X)),
            "optimizer": self.solver, "learning_rate": self.learning_rate_init,
            "momentum": self.momentum, "schedule": self.learning_rate, "loss": loss,
            "progress": bool(self.verbose),
        }  # fmt: skip
        if not self.encrypted_fit:
            network.fit(X, targets, **settings)
            self.loss_curve_ = network.loss_curve_
            self.n_iter_, self.loss_ = len(self.loss_curve_), self.loss_curve_[-1]
            return network.layers
        with _threads(self.n_jobs), self._session() as session:
            owner = session.parties[-1]
            # A bound is positive, also of targets that are all 0, as standardised constants are.
            bound = float(np.abs(targets).max()) or 1.0
            shared = session.share(X, owner), session.share(targets, owner, bound=bound)
            # The weights are revealed at the end.
            layers: list[Layer] = network.fit(*shared, **settings).reveal_layers()
        self.n_iter_ = int(self.max_iter)
        # The loss of training on shares is nobody's to know.
        for name in ("loss_curve_", "loss_"):
            if hasattr(self, name):
                delattr(self, name)
        return layers

    # Predicting, on shares.

    def _rows(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        check_unmasked(X, "X")
        return np.asarray(
            validate_data(self, X, dtype=[np.float64, np.float32], reset=False), dtype=np.float64
        )

    @contextmanager
    def _secret(
        self, X: NDArray[Any], *, scores: bool = False
    ) -> Iterator[tuple[SharedModel, Any]]:
        """Give the model and the rows as shares in a session of their own."""
        with _threads(self.n_jobs), self._session(self.model_) as session:
            secret = self._shared(session, scores, "the model does not fit the format")
            outside = (X < secret.low) | (X > secret.high)
            if outside.any():
                # Nobody else is here to whom the range of these rows could be news.
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

    def _shared(
        self, session: Session, scores: bool, problem: str, **inputs: NDArray[Any]
    ) -> SharedModel:
        """Share the model; of formats, an error names this estimator's parameters."""
        try:
            return self.model_.share(session, session.parties[0], scores=scores, **inputs)
        except RangeError as error:
            form = f"frac_bits={session.format.frac_bits}, int_bits={session.format.int_bits}"
            text = str(error).replace("mpc.Session(", f"{type(self).__name__}(")
            raise RangeError(f"{problem} {form}: {text}") from None


class _Perceptron(Network):
    """Dense layers with ReLU between them, for one output or more, whose targets are numbers."""

    def __init__(self, widths: tuple[int, ...], random_state: RandomState) -> None:
        self.widths, self.random_state = widths, random_state

    @property
    def n_features_in_(self) -> int:
        return self.widths[0]

    @property
    def _classes(self) -> int:
        return self.widths[-1]

    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> list[Layer]:
        return dense_layers(self.widths, random, dtype)

    def _rows_and_targets(
        self, X: Any, y: Any, classes: Any
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        # Checked by the estimator.
        return X, np.arange(self._classes), y


@contextmanager
def _threads(n_jobs: int | None) -> Iterator[None]:
    """Let the kernels use so many threads for a while."""
    if n_jobs is None:
        yield
        return
    before = get_num_threads()
    set_num_threads(effective_n_jobs(n_jobs))
    try:
        yield
    finally:
        set_num_threads(before)


class SecureMLPClassifier(ClassifierMixin, _SecureMLP):  # type: ignore[misc]
    """Classifier of dense layers with ReLU, trained in the clear or on shares, predicting on shares.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(100,)
        Widths of the hidden layers.
    solver : {"adam", "sgd"}, default="adam"
    learning_rate_init : float, optional
        The solver's step at first; default 0.001 for "adam", 0.1 for "sgd".
    learning_rate : {"cosine", "linear", "halving", "constant"}, default="cosine"
        How the step falls towards 0 at the end.
    momentum : float, optional
        For "sgd"; default 0.9.
    batch_size : int, default=32
    max_iter : int, default=200
        Passes over the rows.
    random_state : int, RandomState, Generator or None, default=None
        Seeds the initial weights and the order of the rows, never a mask.
    encrypted_fit : bool, default=False
        Whether to train on shares too, in a session of its own; the weights are revealed at the
        end.
    parties : sequence of str, default=("alice", "bob")
        The computing parties of a prediction. The first holds the model, the last the rows.
    frac_bits, int_bits : int, optional
        The fixed-point format; default 16 and 15, and for predictions what the audit suggests where
        that does not suit the model.
    n_jobs : int, optional
        Threads of a prediction; default as :func:`ring.set_num_threads` has it.
    verbose : bool, default=False
        Whether training shows its progress.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (features,)
        If `X` had names.
    model_ : Classifier
        The plain model: ``model_.audit()``, ``model_.share(...)``, ``model_.save(...)``.
    coefs_, intercepts_ : list of ndarray
        Weights and biases of each layer.
    loss_curve_ : list of float
        Mean loss of each pass; not after training on shares, which reveals none.
    loss_ : float
        The last of them.
    n_iter_ : int

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> secure = make_pipeline(StandardScaler(), nn.SecureMLPClassifier(random_state=0))
    >>> secure.fit(X, y).score(X, y) > 0.95
    True
    """

    def _fit(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ArgumentError(
                f"{type(self).__name__} needs at least two classes in y, got one class only"
            )
        classes, numbers = encode_labels(y, None, len(classes))
        targets = np.zeros((len(X), len(classes)), dtype=X.dtype)
        targets[np.arange(len(X)), numbers] = 1
        layers = self._train(X, targets, "cross_entropy")
        self.classes_ = classes
        self.model_ = Classifier(layers, classes, X.shape[1])
        self.model_.take_rows(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return each row's label, the only thing that is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,)
        """
        with self._secret(self._rows(X)) as (model, rows):
            labels: NDArray[Any] = model.predict(rows)
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class, made from the scores, which are revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows, classes)
        """
        with self._secret(self._rows(X), scores=True) as (model, rows):
            odds: NDArray[Any] = model.predict_proba(rows)
        return odds


class SecureMLPRegressor(RegressorMixin, _SecureMLP):  # type: ignore[misc]
    """Regressor of dense layers with ReLU, trained in the clear or on shares, predicting on shares.

    Targets are standardised by their owner for the training, and the last layer gives them back in
    their units.

    Parameters
    ----------
    hidden_layer_sizes, solver, learning_rate_init, learning_rate, momentum, batch_size, max_iter, \
random_state, encrypted_fit, parties, frac_bits, int_bits, n_jobs, verbose
        As for :class:`SecureMLPClassifier`.

    Attributes
    ----------
    model_ : Regressor
        The plain model.
    n_features_in_, feature_names_in_, coefs_, intercepts_, loss_curve_, loss_, n_iter_
        As for :class:`SecureMLPClassifier`; the loss is that of the standardised targets.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_diabetes(return_X_y=True)
    >>> secure = make_pipeline(StandardScaler(), nn.SecureMLPRegressor((16,), random_state=0))
    >>> secure.fit(X, y).score(X, y) > 0.5
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        middle, deviation = targets.mean(axis=0), targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        scaled = ((targets - middle) / deviation).astype(X.dtype)
        *layers, last = self._train(X, scaled, "squared_error")
        assert isinstance(last, Dense)
        last = dense(last.weights * deviation, last.bias * deviation + middle)
        self.model_ = Regressor([*layers, last], X.shape[1], flat=y.ndim == 1)
        self.model_.take_rows(X)
        # What is to be predicted is known here, not only what is.
        self.model_.output_scale_ = deviation

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return each row's predicted value, the only thing that is revealed.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)
        """
        with self._secret(self._rows(X)) as (model, rows):
            values: NDArray[Any] = model.predict(rows)
        return values
