"""The base class of :mod:`nn.estimators`: training, and a session with model and rows on shares."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from mpc import Session
from nn.layers import Dense, Layer
from nn.layers.initialisation import RandomState
from nn.models.mlp import dense_layers
from nn.models.predictors import Classifier, Regressor
from nn.models.trainable import Network
from nn.shared.model import SharedModel
from nn.training.optimizers import SCHEDULES
from ring import FixedPoint, get_num_threads, set_num_threads
from ring.errors import ArgumentError, RangeError
from ring.real_arrays import check_unmasked

__all__ = ["SecureMLP"]


class SecureMLP(BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]
    """Base class of both estimators: parameters, training, and shares of model and rows."""

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
        # Each truncation rounds at random, up or down to a multiple of 2^-frac_bits.
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
        """Set ``model_`` and the other fitted attributes."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train, in the clear or on shares.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,)
            Labels, or values; of a regressor also of shape (rows, outputs).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `X` or `y` is not of the shape above, or has missing or infinite values.
        ArgumentError
            If a parameter breaks a rule, `y` has one class only, or the training diverges.
        RangeError
            With ``encrypted_fit=True``, if a value does not fit the fixed-point format.
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
        """Return a local session in the format of the parameters, else in one that suits the model."""
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

    def _train(self, X: NDArray[Any], targets: NDArray[Any], loss: str) -> Sequence[Layer]:
        """Return layers that are trained on `X` and `targets`, in the clear or on shares."""
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
            # A bound must be positive; targets are all 0 for a regressor of a constant.
            bound = float(np.abs(targets).max()) or 1.0
            shared = session.share(X, owner), session.share(targets, owner, bound=bound)
            layers: Sequence[Layer] = network.fit(*shared, **settings).reveal_layers()
        self.n_iter_ = int(self.max_iter)
        # Training on shares reveals no loss; remove those of an earlier fit.
        for name in ("loss_curve_", "loss_"):
            if hasattr(self, name):
                delattr(self, name)
        return layers

    # Prediction on shares.

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
        """Open a session, share model and rows `X` in it, and yield both."""
        with _threads(self.n_jobs), self._session(self.model_) as session:
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
            raise RangeError(f"{problem} {form}: {text}") from None


class _Perceptron(Network):
    """Dense layers with ReLU between them, with one output or more, trained on numeric targets."""

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
        # The estimator has checked them.
        return X, np.arange(self._classes), y


@contextmanager
def _threads(n_jobs: int | None) -> Iterator[None]:
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
