"""The base class of networks that ``fit`` trains as classifiers, in the clear or on shares."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import Session, SharedArray
from nn.core.checks import check_names, column_names, feature_matrix, label_vector
from nn.core.labels import check_kind, encode_labels
from nn.fixed_point.audit import Fitted
from nn.fixed_point.calibration import Bounds
from nn.layers import Layer
from nn.layers.evaluation import accuracy
from nn.layers.graph import rewired
from nn.layers.initialisation import RandomState, generator
from nn.layers.layer import check_described
from nn.layers.normalisation import resumed
from nn.losses import LOSSES
from nn.losses.loss import Loss
from nn.models.model import Model
from nn.models.predictors import Classifier, Regressor
from nn.shared.fit import Untrained, fit_shared
from nn.shared.model import SharedModel
from nn.training import steps as training
from nn.training import tasks
from nn.training.optimizers import Optimizer
from nn.training.steps import FitSettings
from nn.training.weights import plain_weights
from ring.errors import ArgumentError, ShapeError, SottoError

__all__ = ["Network", "NotFittedError"]


class NotFittedError(SottoError, ValueError, AttributeError):
    """A model is used before ``fit`` has given it weights."""


class Network(Classifier):
    """Base class of networks that are trained as classifiers, or with one output as regressors.

    Attributes
    ----------
    layers : list of Layer
        After ``fit``.
    ranked : bool
        Whether the outputs are scores of classes. They are values after a training of values or
        labels, see ``fit``: ``predict`` returns them then, and there are no probabilities.
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
        class_weight: dict[Any, float] | str | None = None,
        sample_weight: Any = None,
        start: Model | SharedModel | str | None = None,
        numbers: bool = False,
    ) -> Any:
        """Train the network from initial weights; an earlier ``fit`` has no influence.

        A network with one output learns two classes (``loss="cross_entropy"``, the default) or
        numbers (every other loss); with several outputs one class of several or, with
        ``loss="binary_cross_entropy"``, labels of 0 and 1 that do not exclude each other, or, with
        ``numbers=True``, numbers.

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
            their owner shares the result of :func:`nn.one_hot`. For one output, numbers, or shared
            labels of 0 and 1, of shape (rows,) or (rows, 1). For ``loss="binary_cross_entropy"``
            and several outputs 0 and 1, and for ``numbers=True`` numbers, of shape (rows, outputs).
            Numbers should be of the order of 1: standardise them.
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
        loss : str or nn.losses.Loss, default="cross_entropy"
            "cross_entropy" of the scores' softmax, of one score's sigmoid; "huber" or
            "squared_error", Huber's loss or squared distance of the scores to one-hot targets or
            numbers; "binary_cross_entropy" of each score's sigmoid; or a loss of your own.
        classes : array_like of shape (classes,), optional
            All labels in ascending order, in case some are not in `y`; default the labels in `y`.
        validation : (X, y), optional
            Data on which accuracy is computed after each epoch; see ``validation_scores_``. For
            labels it is the share of single labels that are right, for numbers minus the mean loss. On
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
        class_weight : dict of class to number, or "balanced", optional
            Factors on the loss of rows of each class, 1 for classes that are not named: a rare class
            counts more. "balanced" is rows / (classes * rows of the class), at most 1024 on shares, where
            counts and weights stay secret. A dict is public.
        sample_weight : array_like or SharedArray of shape (rows,), optional
            Factor on the loss of each row, from 0 to 1024; multiplied with the class's. On shares, an
            array that one party shares stays secret; each step then opens one more mask of the
            gradient. The loss is the mean over the rows of weight times loss.
        start : Model, SharedModel or "secret", optional
            A model of the same layers whose weights are the initial ones, instead of random ones:
            ``start=model`` goes on with the model itself. On shares, a SharedModel of the same
            session, such as alice's for a fine-tuning on bob's rows; its weights stay secret. Or
            "secret": initial weights that nobody knows, each of n parties having drawn a part with
            1/n of the variance.
        numbers : bool, default=False
            Whether several outputs are numbers, for the losses "squared_error" and "huber"; one
            output of theirs always is.

        Returns
        -------
        Self or SharedModel
            The model itself; on shares a new one, a SharedRegressor if its outputs are numbers or
            labels. The model is unchanged if ``fit`` raises. The range
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
        if self._classes == 1 and isinstance(loss, str) and loss == "cross_entropy":
            loss = "binary_cross_entropy"
        settings = FitSettings(
            epochs, batch_size, optimizer, learning_rate, momentum, schedule, loss, classes,
            validation, patience, checkpoint, resume, check_range, progress, class_weight,
            sample_weight, start, numbers,
        )  # fmt: skip
        if isinstance(X, SharedArray) or isinstance(y, SharedArray):
            return fit_shared(self._untrained(), X, y, settings)
        if checkpoint is not None:
            raise ArgumentError("checkpoint is for training on shares")
        if start is not None and not isinstance(start, Model):
            raise ArgumentError(
                f"start must be a plain model for a training in the clear, got {start!r}"
            )
        return self._fit_plain(X, y, settings)

    def _untrained(self) -> Untrained:
        return Untrained(
            self.n_features_in_, self._classes, self.random_state, self._fresh_layers, self._task
        )

    def _task(self, settings: FitSettings) -> str:
        """Return what the network learns, see :mod:`nn.training.tasks`."""
        return settings.task(self._classes)

    def _fit_plain(self, X: Any, y: Any, settings: FitSettings) -> Self:
        task = self._task(settings)
        classes = settings.classes
        if classes is None and task in tasks.OF_CLASSES and isinstance(settings.start, Classifier):
            classes = settings.start.classes_
        matrix, names, targets = self._rows_and_targets(X, y, classes, task)
        counted = tasks.one_hot_columns(targets) if task == "two classes" else targets
        if settings.class_weight is not None and task not in tasks.OF_CLASSES:
            raise ArgumentError(f"class_weight is for a training of classes, not of {task}")
        weights = plain_weights(counted, names, settings.class_weight, settings.sample_weight)
        held_out = None
        if settings.validation is not None:
            check_names(settings.validation[0], column_names(X))
            held_out = self._validation_data(settings.validation, names, matrix.dtype, task)
        random = generator(self.random_state)
        layers = self._fresh_layers(random, matrix.dtype)
        check_described(layers)
        if settings.start is not None:
            started = resumed(layers, tasks.begun(task, settings.start.layers))
            if started is None:
                raise ArgumentError(
                    f"start must have the layers {list(layers)}, got {settings.start!r}"
                )
            layers = started
        settings.rule.reset()
        losses: list[float] = []
        scores: list[float] = []
        for value in training.train(layers, matrix, targets, settings, random, weights):
            losses.append(value)
            if held_out is not None:
                scores.append(
                    accuracy(layers, names, *held_out)
                    if task == "classes"
                    else tasks.score(task, layers, *held_out, settings.loss_record.value)
                )
            if training.stalled(scores, settings.patience):
                break

        self.link = settings.loss_record.link
        # Copies, because the trained layers hold arrays of the last batch.
        layers = rewired(layers, [x.with_parameters(x.parameters) for x in layers])
        self.layers = tasks.finished(task, layers) if task != "classes" else layers
        self.classes_, self.ranked = names, task in tasks.OF_CLASSES
        self.output_scale_ = None if self.ranked else targets.std(axis=0)
        self.input_range_ = (float(matrix.min()), float(matrix.max()))
        self.bounds_ = None  # of other weights
        self.loss_curve_, self.validation_scores_ = losses, scores
        self.feature_names_in_ = column_names(X)
        return self

    def _rows_and_targets(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None, task: str
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the rows, the classes, and targets of shape (rows, outputs)."""
        matrix = feature_matrix("X", X, self.n_features_in_, None)
        if not len(matrix):
            raise ShapeError(f"X must have at least one row, got shape {matrix.shape}")
        if task != "classes":
            names, targets = tasks.encoded(task, y, classes, len(matrix), self._classes)
            return matrix, names, targets.astype(matrix.dtype)
        labels = label_vector("y", y, len(matrix))
        names, numbers = encode_labels(labels, classes, self._classes)
        targets = np.zeros((len(matrix), self._classes), dtype=matrix.dtype)
        targets[np.arange(len(matrix)), numbers] = 1
        return matrix, names, targets

    # After a training of numbers or labels the model is what a Regressor is.

    def _as_regressor(self) -> Regressor:
        made = Regressor(self.layers, self.n_features_in_, self.input_range_)
        made.feature_names_in_, made.output_scale_ = self.feature_names_in_, self.output_scale_
        made.bounds_ = self.bounds_
        return made

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        if not self.ranked:
            raise ArgumentError("the model was trained on numbers or labels: use predict")
        return super().decision_function(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        return super().predict(X) if self.ranked else self._as_regressor().predict(X)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        return super().score(X, y) if self.ranked else self._as_regressor().score(X, y)

    def _shared(
        self,
        session: Session,
        layers: Sequence[Layer],
        fitted: Fitted,
        scores: bool,
        bounds: Bounds | None,
    ) -> SharedModel:
        if self.ranked:
            return super()._shared(session, layers, fitted, scores, bounds)
        return self._as_regressor()._shared(session, layers, fitted, scores, bounds)

    def contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        if not self.ranked:
            header, arrays = self._as_regressor().contents()
            return {**header, "kind": "Regressor"}, arrays
        header, arrays = super().contents()
        header["loss_curve"], header["validation_scores"] = (
            [float(v) for v in values] for values in (self.loss_curve_, self.validation_scores_)
        )
        return header, arrays

    def _validation_data(
        self, validation: Any, classes: NDArray[Any], dtype: np.dtype[Any], task: str
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        X, y = validation
        matrix = feature_matrix("validation[0]", X, self.n_features_in_, dtype)
        if not len(matrix):
            raise ShapeError(f"validation must have at least one row, got shape {matrix.shape}")
        if task != "classes":
            known = classes if task == "two classes" else None
            return matrix, tasks.encoded(task, y, known, len(matrix), self._classes)[1]
        labels = label_vector("validation[1]", y, len(matrix))
        check_kind("validation[1]", labels, classes)
        return matrix, labels
