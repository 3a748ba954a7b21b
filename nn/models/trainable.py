"""The base class of networks that ``fit`` trains as classifiers, in the clear or on shares."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn.core.checks import feature_matrix, label_vector
from nn.core.labels import check_kind, encode_labels
from nn.layers import Layer
from nn.layers.evaluation import accuracy
from nn.layers.graph import rewired
from nn.layers.initialisation import RandomState, generator
from nn.layers.layer import check_described
from nn.losses import LOSSES
from nn.losses.loss import Loss
from nn.models.predictors import Classifier
from nn.shared.fit import Untrained, fit_shared
from nn.training import steps as training
from nn.training.optimizers import Optimizer
from nn.training.steps import FitSettings
from ring.errors import ArgumentError, ShapeError, SottoError

__all__ = ["Network", "NotFittedError"]


class NotFittedError(SottoError, ValueError, AttributeError):
    """A model is used before ``fit`` has given it weights."""


class Network(Classifier):
    """Base class of networks that are trained as classifiers.

    Attributes
    ----------
    layers : list of Layer
        After ``fit``.
    classes_, input_range_, loss_curve_, validation_scores_
        As of :class:`MLP`.
    """

    layers: Sequence[Layer]
    classes_: NDArray[Any]
    input_range_: tuple[Any, Any]
    loss_curve_: list[float]
    validation_scores_: list[float]

    random_state: RandomState
    link: str | None = LOSSES["cross_entropy"].link

    @property
    @abstractmethod
    def n_features_in_(self) -> int:
        """Number of features that ``fit`` and ``predict`` take."""

    @property
    @abstractmethod
    def _classes(self) -> int:
        """Number of classes."""

    @abstractmethod
    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> Sequence[Layer]:
        """Return the layers with initial weights."""

    def __getattr__(self, name: str) -> Any:
        # Called for missing attributes only; `parameters` is missing if `layers` is.
        if name in (
            "layers",
            "parameters",
            "classes_",
            "input_range_",
            "loss_curve_",
            "validation_scores_",
        ):
            raise NotFittedError(f"the model has no {name} yet: call fit first")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        optimizer: str | Optimizer = "sgd",
        learning_rate: float | None = None,
        momentum: float | None = None,
        schedule: str = "cosine",
        loss: str | Loss = "cross_entropy",
        classes: ArrayLike | None = None,
        validation: tuple[Any, Any] | None = None,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        check_range: bool = True,
        progress: bool | None = None,
    ) -> Any:
        """Train the network from initial weights; an earlier ``fit`` has no influence.

        If `X` and `y` are shared arrays, the weights are secret too: the result is a
        :class:`SharedModel`, which can predict on shares or be revealed to one party, and this
        object does not change. The initial weights and the order of the rows are public, and the
        same as in the clear with the same `random_state`.

        Parameters
        ----------
        X : array_like of shape (rows, features), or SharedArray
            A float32 array is computed with in float32, any other in float64. Shared rows of several
            owners are joined by ``np.concatenate``.
        y : array_like of shape (rows,), or SharedArray of shape (rows, classes)
            Labels of any type that sorts: integers, strings, ... Shared labels are one-hot rows:
            their owner shares the result of :func:`nn.one_hot`.
        epochs : int, default=10
            Passes over the rows.
        batch_size : int, default=128
            Rows of a step; the last batch of an epoch may be shorter.
        optimizer : {"sgd", "adam"} or Optimizer, default="sgd"
            The state of an Optimizer is reset first.
        learning_rate : float, optional
            For an optimizer given by name; default 0.1 for "sgd", 0.001 for "adam". On shares, the
            rate times the schedule's factor, divided by the number of rows, is rounded to 16
            significant bits and to a multiple of 2^-24 (in the usual format). Powers of two are
            exact.
        momentum : float, optional
            For "sgd"; default 0.9.
        schedule : {"cosine", "linear", "halving", "constant"}, default="cosine"
            How the learning rate falls from its full value at the first step towards 0 at the
            last; "halving" halves it after each quarter.
        loss : {"cross_entropy", "huber", "squared_error"} or nn.losses.Loss, default="cross_entropy"
            Cross-entropy of the scores' softmax; Huber's loss or squared distance of the scores to
            one-hot targets; or a loss of your own.
        classes : array_like of shape (classes,), optional
            All labels in ascending order, in case some are not in `y`; default the labels in `y`.
        validation : (X, y), optional
            Data on which accuracy is computed after each epoch; see ``validation_scores_``. On
            shares, accuracy, mean loss and a further bit as with `check_range` are revealed after
            each epoch.
        patience : int, optional
            Stop after this number of epochs in a row without a validation score above the best one
            before them.
        checkpoint : path, optional
            On shares: a folder in which each process saves its parties' shares after each epoch; the
            files of the epoch before are kept.
        resume : bool, default=False
            Start from the last checkpoint that all parties hold, if there is one, and continue
            exactly as the run that wrote it. The other arguments must be the same as in that run.
        check_range : bool, default=True
            On shares: open one bit after each epoch, which says whether activations, gradients, the
            optimizer's moments and the weights were in the range that shares can represent in every
            step; raise RangeError if not, see :mod:`nn.shared.range`. Where all parties live in one
            process, the error names the layer. With False, a training that diverges is not noticed.
        progress : bool, optional
            Whether to show a progress bar on stderr; by default on a terminal, after half a second.

        Returns
        -------
        Self or SharedModel
            The model itself; on shares a new one. The model is unchanged if ``fit`` raises. The range
            of a shared model's inputs is [-r, r] for the largest r of b, b/2, ..., b/2^15 with which
            no layer can leave the format, b being the public bound of `X`. r is revealed.

        Raises
        ------
        ShapeError
            If `X` is not (rows, features) or `y` has another length.
        RangeError
            If `X` or `y` holds NaN or infinities.
        DtypeError
            If an argument has the wrong type, or a layer is of a kind that files cannot hold.
        ArgumentError
            If an argument's value breaks a rule, or the training diverges.

        Examples
        --------
        >>> import numpy as np
        >>> import nn
        >>> X = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> model = nn.MLP((2, 2), random_state=0).fit(X, ["no", "yes"], epochs=50)
        >>> model.predict(X).tolist()
        ['no', 'yes']
        """
        settings = FitSettings(
            epochs, batch_size, optimizer, learning_rate, momentum, schedule, loss, classes,
            validation, patience, checkpoint, resume, check_range, progress,
        )  # fmt: skip
        if isinstance(X, SharedArray) or isinstance(y, SharedArray):
            return fit_shared(self._untrained(), X, y, settings)
        if checkpoint is not None:
            raise ArgumentError("checkpoint is for training on shares")
        return self._fit_plain(X, y, settings)

    def _untrained(self) -> Untrained:
        return Untrained(self.n_features_in_, self._classes, self.random_state, self._fresh_layers)

    def _fit_plain(self, X: Any, y: Any, settings: FitSettings) -> Self:
        matrix, names, targets = self._rows_and_targets(X, y, settings.classes)
        held_out = None
        if settings.validation is not None:
            held_out = self._validation_data(settings.validation, names, matrix.dtype)
        random = generator(self.random_state)
        layers = self._fresh_layers(random, matrix.dtype)
        check_described(layers)
        settings.rule.reset()
        losses: list[float] = []
        scores: list[float] = []
        for value in training.train(layers, matrix, targets, settings, random):
            losses.append(value)
            if held_out is not None:
                scores.append(accuracy(layers, names, *held_out))
            if training.stalled(scores, settings.patience):
                break

        self.link = settings.loss_record.link
        # Copies, because the trained layers hold arrays of the last batch.
        self.layers = rewired(layers, [x.with_parameters(x.parameters) for x in layers])
        self.classes_ = names
        self.input_range_ = (float(matrix.min()), float(matrix.max()))
        self.bounds_ = None  # of other weights
        self.loss_curve_, self.validation_scores_ = losses, scores
        return self

    def _rows_and_targets(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the rows, the classes, and one-hot targets of shape (rows, classes)."""
        matrix, labels = self._data("X", X, "y", y)
        if not len(matrix):
            raise ShapeError(f"X must have at least one row, got shape {matrix.shape}")
        names, numbers = encode_labels(labels, classes, self._classes)
        targets = np.zeros((len(matrix), self._classes), dtype=matrix.dtype)
        targets[np.arange(len(matrix)), numbers] = 1
        return matrix, names, targets

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = super().contents()
        header["loss_curve"], header["validation_scores"] = (
            [float(v) for v in values] for values in (self.loss_curve_, self.validation_scores_)
        )
        return header, arrays

    def _data(
        self, X_name: str, X: ArrayLike, y_name: str, y: ArrayLike, dtype: Any = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        matrix = feature_matrix(X_name, X, self.n_features_in_, dtype)
        return matrix, label_vector(y_name, y, len(matrix))

    def _validation_data(
        self, validation: Any, classes: NDArray[Any], dtype: np.dtype[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        X, y = validation
        matrix, labels = self._data("validation[0]", X, "validation[1]", y, dtype)
        if not len(matrix):
            raise ShapeError(f"validation must have at least one row, got shape {matrix.shape}")
        check_kind("validation[1]", labels, classes)
        return matrix, labels
