"""Networks that are trained as classifiers, in plain NumPy or on shares."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from nn import training
from nn.checks import feature_matrix, integer, label_vector, local_path
from nn.evaluation import accuracy
from nn.initialisation import RandomState, generator
from nn.labels import check_kind, encode_labels
from nn.layers import Layer
from nn.links import LINK_OF_LOSS
from nn.losses import LOSSES
from nn.optimizers import SCHEDULES, Optimizer, choose_optimizer
from nn.predictors import Classifier
from ring.errors import ArgumentError, ShapeError, SottoError

__all__ = ["Network", "NotFittedError"]


class NotFittedError(SottoError, ValueError, AttributeError):
    """A model is used before it has weights."""


class Network(Classifier):
    """What networks that are trained as classifiers have in common.

    Attributes
    ----------
    layers : list of Layer
        After ``fit``.
    classes_, input_range_, loss_curve_, validation_scores_
        As of :class:`MLP`.
    """

    layers: list[Layer]
    classes_: NDArray[Any]
    input_range_: tuple[Any, Any]
    loss_curve_: list[float]
    validation_scores_: list[float]

    random_state: RandomState
    link: str | None = LINK_OF_LOSS["cross_entropy"]

    @property
    @abstractmethod
    def n_features_in_(self) -> int:
        """Number of features that ``fit`` and ``predict`` take."""

    @property
    @abstractmethod
    def _classes(self) -> int:
        """How many classes there are."""

    @abstractmethod
    def _fresh_layers(self, random: np.random.Generator, dtype: np.dtype[Any]) -> list[Layer]:
        """Return layers to train."""

    def __getattr__(self, name: str) -> Any:
        # Only reached for attributes that are not there. `parameters` is among them when the
        # layers that it reads are not.
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
        loss: str = "cross_entropy",
        classes: ArrayLike | None = None,
        validation: tuple[Any, Any] | None = None,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        check_range: bool = True,
        progress: bool | None = None,
    ) -> Any:
        """Train from fresh weights, which replace those of an earlier ``fit``.

        On shared arrays the weights are secret too: the result is a :class:`SharedModel`, which can
        be used as it is or revealed to one party, and this object stays as it was. Order and
        initial weights, which are public, are those of a plain run with the same `random_state`.

        Parameters
        ----------
        X : array_like of shape (rows, features), or SharedArray
            Float32 input is computed in float32, all other in float64. Shared rows may come from
            several owners, joined by ``np.concatenate``.
        y : array_like of shape (rows,), or SharedArray of shape (rows, classes)
            Labels of any kind that sorts: integers, strings, ... Shared labels are one-hot rows,
            as :func:`nn.one_hot` makes them and checks them at their owner.
        epochs : int, default=10
            Passes over the rows.
        batch_size : int, default=128
            Rows a step; the last batch of an epoch may be shorter.
        optimizer : {"sgd", "adam"} or Optimizer, default="sgd"
            An object's state is reset first.
        learning_rate : float, optional
            For an optimizer given by name; its own default is 0.1 for "sgd", 0.001 for "adam".
            On shares a rate over the number of rows, times the schedule's factor, is rounded to 16
            significant bits, and to steps of 2^-24 (for the usual format): exact for powers of two.
        momentum : float, optional
            For "sgd"; default 0.9.
        schedule : {"cosine", "linear", "halving", "constant"}, default="cosine"
            How the learning rate falls from its full value at the first step towards 0 at the
            last; "halving" halves it after each quarter.
        loss : {"cross_entropy", "squared_error"}, default="cross_entropy"
            Cross-entropy of the scores' softmax, or squared distance of the scores to one-hot
            targets.
        classes : array_like of shape (classes,), optional
            All labels in ascending order, for when `y` lacks some; default those in `y`.
        validation : (X, y), optional
            Data to score after each epoch; see ``validation_scores_``. On shares, the accuracy and
            the mean loss are revealed after each epoch, and a bit as by `check_range`.
        patience : int, optional
            Stop when so many epochs in a row have not improved on the best validation score
            before them.
        checkpoint : path, optional
            On shares: a folder where each party's own shares are saved after each epoch; those of
            the epoch before are kept.
        resume : bool, default=False
            Go on from the last checkpoint that all parties hold, if there is one, as the run that
            wrote it would have: the other arguments must be the same.
        check_range : bool, default=True
            On shares: open one bit after each epoch, whether activations, gradients, the optimizer's
            moments and the weights were inside the range that is right on shares in every step, and
            raise RangeError if not; see :mod:`nn.shared_range`. Where all parties live in one
            process, the layer is named. Without it, a training that diverges is not noticed.
        progress : bool, optional
            Progress bar with the time left on stderr. Default: if stderr is a terminal and the
            work takes more than a moment.

        Returns
        -------
        Self or SharedModel
            The model itself; on shares a new one. The model is unchanged if ``fit`` raises. A shared
            one is for inputs up to the bound of `X`, halved as often as it takes for no layer to
            leave the format, up to 16 times, which is revealed.

        Raises
        ------
        ShapeError
            If `X` is not (rows, features) or `y` has another length.
        RangeError
            If `X` or `y` holds NaN or infinities.
        DtypeError
            If an argument has the wrong type.
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
        epochs = integer("epochs", epochs, 1)
        batch_size = integer("batch_size", batch_size, 1)
        if patience is not None:
            patience = integer("patience", patience, 1)
            if validation is None:
                raise ArgumentError("patience needs validation data, got None")
        for name, choice, table in (("loss", loss, LOSSES), ("schedule", schedule, SCHEDULES)):
            if not isinstance(choice, str) or choice not in table:
                raise ArgumentError(f"{name} must be one of {sorted(table)}, got {choice!r}")
        if progress not in (None, True, False):
            raise ArgumentError(f"progress must be True, False or None, got {progress!r}")
        folder = None if checkpoint is None else local_path("checkpoint", checkpoint)
        if resume and checkpoint is None:
            raise ArgumentError("resume needs checkpoint, the folder to go on from")
        if isinstance(X, SharedArray) or isinstance(y, SharedArray):
            from nn.shared_fit import fit_shared

            return fit_shared(
                self, X, y, epochs=epochs, batch_size=batch_size, optimizer=optimizer,
                learning_rate=learning_rate, momentum=momentum, schedule=schedule, loss=loss,
                classes=classes, validation=validation, patience=patience, checkpoint=folder,
                resume=resume, check_range=check_range, progress=progress,
            )  # fmt: skip
        if checkpoint is not None:
            raise ArgumentError("checkpoint is for training on shares")

        matrix, labels = self._data("X", X, "y", y)
        if not len(matrix):
            raise ShapeError(f"X must have at least one row, got shape {matrix.shape}")
        outputs = self._classes
        names, targets = encode_labels(labels, classes, outputs)
        held_out = None
        if validation is not None:
            held_out = self._validation_data(validation, names, matrix.dtype)
        stepper = choose_optimizer(optimizer, learning_rate, momentum)
        stepper.reset()
        random = generator(self.random_state)
        layers = self._fresh_layers(random, matrix.dtype)
        one_hot = np.zeros((len(matrix), outputs), dtype=matrix.dtype)
        one_hot[np.arange(len(matrix)), targets] = 1
        losses, scores = [], []
        for value in training.train(
            layers,
            matrix,
            one_hot,
            loss=LOSSES[loss],
            optimizer=stepper,
            schedule=SCHEDULES[schedule],
            epochs=epochs,
            batch_size=batch_size,
            random=random,
            progress=progress,
        ):
            losses.append(value)
            if held_out is not None:
                scores.append(accuracy(layers, names, *held_out))
            if patience is not None and len(scores) > patience:
                if max(scores[-patience:]) <= max(scores[:-patience]):
                    break

        self.link = LINK_OF_LOSS[loss]
        # Fresh layers, because those that were trained still hold the last batch.
        self.layers = [layer.with_parameters(layer.parameters) for layer in layers]
        self.classes_ = names
        self.input_range_ = (float(matrix.min()), float(matrix.max()))
        self.loss_curve_, self.validation_scores_ = losses, scores
        return self

    def _data(
        self, X_name: str, X: ArrayLike, y_name: str, y: ArrayLike, dtype: Any = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        matrix = feature_matrix(X_name, X, self.n_features_in_, dtype)
        return matrix, label_vector(y_name, y, len(matrix))

    def _validation_data(
        self, validation: Any, classes: NDArray[Any], dtype: np.dtype[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise ArgumentError(
                f"validation must be a pair (X, y), got {type(validation).__name__}"
            )
        X, y = validation
        matrix, labels = self._data("validation[0]", X, "validation[1]", y, dtype)
        if not len(matrix):
            raise ShapeError(f"validation must have at least one row, got shape {matrix.shape}")
        check_kind("validation[1]", labels, classes)
        return matrix, labels
