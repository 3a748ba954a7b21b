"""The base class of :mod:`nn.estimators`: training in the clear or on shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from nn.layers import Dense, Layer
from nn.layers.initialisation import RandomState
from nn.models.mlp import ACTIVATIONS, dense_layers
from nn.models.predictors import Classifier, Regressor
from nn.models.trainable import Network
from nn.secure_estimator import SecureEstimator, Weights, check_weights, row_weights, threads
from nn.training.optimizers import SCHEDULES, SGD, Adam, Optimizer, choose_optimizer
from nn.training.steps import FitSettings
from ring.errors import ArgumentError
from ring.real_arrays import check_unmasked

__all__ = ["SecureMLP"]


class SecureMLP(SecureEstimator):
    """Base class of both estimators: parameters and training."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "solver": [StrOptions({"sgd", "adam"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), None],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "momentum": [Interval(Real, 0, 1, closed="left"), None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
        "encrypted_fit": ["boolean"],
        "verbose": ["verbose"],
        **SecureEstimator._parameter_constraints,
    }

    validation_scores_: list[float]
    _layers: Sequence[Layer]

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "relu",
        solver: str = "adam",
        alpha: float = 0.0,
        learning_rate_init: float | None = None,
        learning_rate: str = "cosine",
        momentum: float | None = None,
        batch_size: int = 32,
        max_iter: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: RandomState = None,
        encrypted_fit: bool = False,
        parties: Sequence[str] = ("alice", "bob"),
        frac_bits: int | None = None,
        int_bits: int | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.encrypted_fit = encrypted_fit
        self.verbose = verbose
        super().__init__(parties=parties, frac_bits=frac_bits, int_bits=int_bits, n_jobs=n_jobs)

    @property
    def coefs_(self) -> list[NDArray[Any]]:
        """Weights of each layer, of shape (inputs, outputs)."""
        return [layer.weights for layer in self.model_.layers if isinstance(layer, Dense)]

    @property
    def intercepts_(self) -> list[NDArray[Any]]:
        """Bias of each layer."""
        return [layer.bias for layer in self.model_.layers if isinstance(layer, Dense)]

    @abstractmethod
    def _fit(
        self, X: NDArray[Any], y: NDArray[Any], weights: Weights, going_on: bool, epochs: int | None
    ) -> None:
        """Set ``model_`` and the other fitted attributes."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train, in the clear or on shares.

        Parameters
        ----------
        X : array_like of shape (rows, features)
        y : array_like of shape (rows,)
            Labels, or values; of a regressor also of shape (rows, outputs).
        sample_weight : array_like of shape (rows,), optional
            Factor on the loss of each row, from 0 to 1024. With ``encrypted_fit=True`` it is shared
            by the owner of the rows, and stays secret.

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
        going_on = bool(self.warm_start) and hasattr(self, "model_")
        return self._fit_rows(X, y, sample_weight, going_on, None)

    def _fit_rows(
        self, X: Any, y: Any, sample_weight: Any, going_on: bool, epochs: int | None
    ) -> Self:
        check_unmasked(X, "X")
        check_unmasked(y, "y")
        if self.early_stopping and epochs is not None:
            raise ArgumentError(
                "early_stopping must be False for partial_fit, which trains for one epoch, got True"
            )
        with self._names_kept(X=X, y=y):
            X, y = validate_data(
                self,
                X,
                y,
                dtype=[np.float64, np.float32],
                multi_output=isinstance(self, RegressorMixin),
                y_numeric=isinstance(self, RegressorMixin),
                reset=not going_on,
            )
            X, y = np.asarray(X), np.asarray(y)
            self._fit(X, y, row_weights(sample_weight, X), going_on, epochs)
        self.model_.feature_names_in_ = getattr(self, "feature_names_in_", None)
        return self

    def _widths(self, X: NDArray[Any], targets: NDArray[Any]) -> tuple[int, ...]:
        widths = [int(width) for width in np.ravel(np.asarray(self.hidden_layer_sizes))]
        if min(widths, default=1) < 1:
            raise ArgumentError(f"hidden_layer_sizes must be at least 1, got {tuple(widths)}")
        return (X.shape[1], *widths, targets.shape[1])

    def _optimizer(self) -> Optimizer:
        rule = choose_optimizer(self.solver, self.learning_rate_init, self.momentum)
        assert isinstance(rule, (SGD, Adam))
        rule.weight_decay = float(self.alpha)
        return rule

    def _train(
        self,
        X: NDArray[Any],
        targets: NDArray[Any],
        loss: str,
        weights: Weights,
        going_on: bool,
        epochs: int | None,
    ) -> Sequence[Layer]:
        """Return layers that are trained on `X` and `targets`, in the clear or on shares.

        `going_on` says whether they start from those of the training before; `epochs` is given by
        ``partial_fit``.
        """
        values = loss != "cross_entropy"
        widths = self._widths(X, targets)
        network = _Perceptron(widths, self.random_state, self.activation, values)
        held_out, stops = None, bool(self.early_stopping) and epochs is None
        if stops:
            kept, held = train_test_split(
                np.arange(len(X)), test_size=self.validation_fraction,
                random_state=_seed(self.random_state),
                stratify=None if values else targets.argmax(axis=1),
            )  # fmt: skip
            held_out = X[held], targets[held]
            X, targets = X[kept], targets[kept]
            weights = None if weights is None else weights[kept]
        settings: dict[str, Any] = {
            "epochs": int(self.max_iter) if epochs is None else epochs,
            "batch_size": min(int(self.batch_size), len(X)), "optimizer": self._optimizer(),
            "schedule": self.learning_rate if epochs is None else "constant", "loss": loss,
            "patience": int(self.n_iter_no_change) if stops else None,
            "progress": bool(self.verbose),
        }  # fmt: skip
        if going_on:
            settings["start"] = (
                Classifier(self._layers, np.arange(targets.shape[1]), X.shape[1])
                if targets.shape[1] > 1
                else Regressor(self._layers, X.shape[1])
            )
        if not self.encrypted_fit:
            network.fit(X, targets, validation=held_out, sample_weight=weights, **settings)
            self.loss_curve_ = network.loss_curve_
            self.n_iter_, self.loss_ = len(self.loss_curve_), self.loss_curve_[-1]
            self._layers, scores = network.layers, network.validation_scores_
        else:
            self._layers, scores = self._train_on_shares(
                network, X, targets, weights, held_out, settings
            )
        # Those of an earlier fit are not this one's.
        if hasattr(self, "validation_scores_"):
            del self.validation_scores_
        if stops:
            self.validation_scores_ = [float(score) for score in scores]
            self.n_iter_ = len(scores)
        return self._layers

    def _train_on_shares(
        self,
        network: _Perceptron,
        X: NDArray[Any],
        targets: NDArray[Any],
        weights: Weights,
        held_out: Any,
        settings: dict[str, Any],
    ) -> tuple[Sequence[Layer], list[float]]:
        with threads(self.n_jobs), self._session() as session:
            owner = session.parties[-1]
            # A bound must be positive; targets are all 0 for a regressor of a constant.
            bound = float(np.abs(targets).max()) or 1.0
            shared = session.share(X, owner), session.share(targets, owner, bound=bound)
            if held_out is not None:
                settings["validation"] = tuple(session.share(part, owner) for part in held_out)
            if weights is not None:
                check_weights(weights)
                settings["sample_weight"] = session.share(
                    weights, owner, bound=float(weights.max())
                )
            fitted = network.fit(*shared, **settings)
            layers: Sequence[Layer] = fitted.reveal_layers()
        self.n_iter_ = int(settings["epochs"])
        # Training on shares reveals no loss; remove those of an earlier fit.
        for name in ("loss_curve_", "loss_"):
            if hasattr(self, name):
                delattr(self, name)
        return layers, fitted.validation_scores_


class _Perceptron(Network):
    """Dense layers with an activation between, trained on numeric targets."""

    def __init__(
        self, widths: tuple[int, ...], random_state: RandomState, activation: str, values: bool
    ) -> None:
        self.widths, self.random_state = widths, random_state
        self.activation, self.values = activation, values

    @property
    def n_features_in_(self) -> int:
        return self.widths[0]

    @property
    def _classes(self) -> int:
        return self.widths[-1]

    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> list[Layer]:
        return dense_layers(self.widths, random, dtype, self.activation)

    def _task(self, settings: FitSettings) -> str:
        return "values" if self.values else "classes"

    def _rows_and_targets(
        self, X: Any, y: Any, classes: Any, task: str
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        # The estimator has checked them.
        return X, np.arange(self._classes), y

    def _validation_data(
        self, validation: Any, classes: NDArray[Any], dtype: np.dtype[Any], task: str
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        X, targets = validation
        return X, targets if self.values else targets.argmax(axis=1)


def _seed(random_state: RandomState) -> Any:
    """Return what scikit-learn's functions take; they know no Generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    return random_state
