"""``fit`` on shares: checks of the data, the loop over epochs, validation and checkpoints."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.protocols import truncation
from nn.core.labels import ordered_classes
from nn.core.progress import progress_bar
from nn.layers import Layer
from nn.layers.graph import names, rewired
from nn.layers.initialisation import RandomState, generator
from nn.layers.layer import check_described, check_trains_on_shares
from nn.layers.normalisation import BatchNorm, folded, frozen
from nn.shared.bounds import largest_inputs
from nn.shared.checkpoint import Progress, load, save
from nn.shared.model import SharedModel
from nn.shared.optimizers import on_shares
from nn.shared.start import finished_model, meant, named_start, started
from nn.shared.training import SharedTrainer
from nn.training.optimizers import Optimizer
from nn.training.steps import FitSettings, stalled
from nn.training.tasks import OF_CLASSES, one_hot_columns, right
from nn.training.weights import UNWEIGHTED, named_weights, shared_weights
from ring.real_arrays import plain_array

__all__ = ["Untrained", "fit_shared"]


@dataclass(frozen=True)
class _Data:
    """Rows, of shape (rows, features), and their targets, of shape (rows, outputs)."""

    X: SharedArray
    targets: SharedArray
    weights: SharedArray | None = None


def _data(name: str, X: Any, y: Any, network: Untrained) -> _Data:
    """Return rows and targets after checking them; errors call them `name` X and `name` y."""
    features, outputs = network.n_features, network.outputs
    for part, value, hint in (
        ("X", X, "share the rows: session.share(X, owner=...)"),
        ("y", y, "share one-hot rows: session.share(nn.one_hot(y, classes), owner=...)"),
    ):
        if not isinstance(value, SharedArray):
            raise DtypeError(
                f"{name}{part} must be a SharedArray too, got {type(value).__name__}; {hint}"
            )
    if X.session is not y.session:
        raise SessionError(f"{name}X and {name}y belong to different sessions")
    if X.ndim != 2 or X.shape[1] != features or not len(X):
        raise ShapeError(f"{name}X must have the shape (rows, {features}), got {X.shape}")
    if outputs == 1 and y.ndim == 1:
        y = y.reshape(-1, 1)
    if y.shape != (len(X), outputs):
        raise ShapeError(
            f"{name}y must hold {'one-hot rows or numbers' if outputs > 1 else 'numbers'}, of shape"
            f" {(len(X), outputs)}, got {y.shape}"
        )
    return _Data(X, y)


def _generator(session: Session, random_state: Any) -> np.random.Generator:
    """Return the generator of initial weights and order, which is the same at all parties."""
    apart = 0 < len(session.here) < session.size
    if apart and (
        isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer))
    ):
        raise ArgumentError(
            "random_state must be an int that all parties agree on, since initial weights and order"
            f" of the rows follow from it at every party, got {random_state!r}"
        )
    return generator(random_state)


@dataclass(frozen=True)
class Untrained:
    """A network before a training on shares.

    Attributes
    ----------
    n_features, outputs : int
        Features of a row, and scores of a row.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
    fresh_layers : callable
        ``fresh_layers(generator, dtype)`` returns the layers with initial weights.
    task : callable
        ``task(settings)`` returns what the network learns, see :mod:`nn.training.tasks`.
    """

    n_features: int
    outputs: int
    random_state: RandomState
    fresh_layers: Callable[[np.random.Generator, np.dtype[Any]], Sequence[Layer]]
    task: Callable[[FitSettings], str]


def fit_shared(network: Untrained, X: Any, y: Any, settings: FitSettings) -> SharedModel:
    """Train a network on shares; see :meth:`nn.MLP.fit`."""
    data = _data("", X, y, network)
    task = network.task(settings)
    count = 2 if task == "two classes" else network.outputs
    classes = np.arange(count)
    if settings.classes is not None:
        if task not in OF_CLASSES:
            raise ArgumentError(f"classes is for a training of classes, not of {task}")
        classes = plain_array(settings.classes, "classes")
    elif task in OF_CLASSES and hasattr(settings.start, "classes_"):
        classes = settings.start.classes_
    classes = ordered_classes(classes, count)
    if settings.class_weight is not None and task not in OF_CLASSES:
        raise ArgumentError(f"class_weight is for a training of classes, not of {task}")
    if settings.class_weight is not None or settings.sample_weight is not None:
        counted = one_hot_columns(data.targets) if task == "two classes" else data.targets
        weights = shared_weights(counted, classes, settings.class_weight, settings.sample_weight)
        data = replace(data, weights=weights)
    held_out = None
    if settings.validation is not None:
        held_out = _held_out(settings.validation, network, data)
    return _Fit(network, data, held_out, settings, classes).run()


def _held_out(validation: Any, network: Untrained, data: _Data) -> _Data:
    """Return the validation data after checking session and bound against the training data."""
    held_out = _data("validation ", validation[0], validation[1], network)
    if held_out.X.session is not data.X.session:
        raise SessionError("validation belongs to another session than X")
    if held_out.X.bound << data.X.frac_bits > data.X.bound << held_out.X.frac_bits:
        raise RangeError(
            "validation X must have a public bound of at most that of X,"
            f" {data.X.bound / 2**data.X.frac_bits:g}, got"
            f" {held_out.X.bound / 2**held_out.X.frac_bits:g}; share it with that bound="
        )
    return held_out


def _seed(random_state: Any) -> int | None:
    """Return what parties must have alike of `random_state`: an int where they are apart."""
    return int(random_state) if isinstance(random_state, (int, np.integer)) else None


def _exactly(rule: Optimizer) -> str:
    """Return an optimizer with all digits of its settings."""
    settings = {k: v for k, v in sorted(vars(rule).items()) if not k.startswith("_")}
    return f"{type(rule).__name__}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"


class _Fit:
    """One call of ``fit`` on shares."""

    def __init__(
        self,
        network: Untrained,
        data: _Data,
        held_out: _Data | None,
        settings: FitSettings,
        classes: NDArray[Any],
    ) -> None:
        self.data, self.held_out, self.settings = data, held_out, settings
        self.session = session = data.X.session
        self.random = _generator(session, network.random_state)
        rows = len(data.X)
        self.task = network.task(settings)
        layers = network.fresh_layers(self.random, np.dtype(np.float64))
        if settings.start is not None:
            layers = started(session, self.task, layers, network.fresh_layers, settings.start)
        check_described(layers)
        check_trains_on_shares(layers)
        self.trainer = SharedTrainer(
            session,
            layers,
            settings.loss_record,
            on_shares(settings.rule, session, min(settings.batch_size, rows)),
            check_range=settings.check_range,
        )
        # The largest magnitude of X, which is public: the bound given to `share`, or the format's.
        self.limit = data.X.bound / 2**data.X.frac_bits
        if data.X.bound == session.format.bound and data.X.frac_bits:
            self.limit = session.format.limit  # without the rounding of `bound`
        self._check_room(network.outputs)
        weights = UNWEIGHTED
        if settings.class_weight is not None or settings.sample_weight is not None:
            weights = named_weights(settings.class_weight, settings.sample_weight, classes)
        # A resumed run must agree with the run that wrote the checkpoint in all of these.
        self.common = {
            "layers": names(self.trainer.layers), "rows": rows,
            "options": json.dumps([x.description() for x in layers], default=float),
            "epochs": settings.epochs, "batch_size": settings.batch_size,
            "optimizer": _exactly(settings.rule), "schedule": settings.schedule,
            "loss": settings.loss_record.name, "task": self.task,
            "classes": str(classes.tolist()),
            **weights,
            "start": "public" if settings.start is None else named_start(settings.start),
        }  # fmt: skip
        # Parties that were given other ones are noticed here.
        shared_start = [] if settings.start is None else meant(settings.start)
        session.note(
            "fit", sorted(self.common.items()), _seed(network.random_state), shared_start,
            [settings.patience, bool(settings.check_range), 0 if held_out is None else len(held_out.X)],
        )  # fmt: skip
        self.advice = (
            f"a lower learning_rate may help than {settings.rule!r}, or inputs that are scaled down"
        )
        self.done = Progress(_run(session))
        normed = any(layer.only_trains for layer in layers)
        shown = folded(frozen(layers, made=False)) if normed else layers
        # A training reveals what its parties agree to; a model that was shared with less keeps to it.
        self.model = SharedModel(
            session, shown, classes, network.n_features, -self.limit, self.limit,
            link=settings.loss_record.link, scores=getattr(settings.start, "scores", True),
        )  # fmt: skip

    def _check_room(self, outputs: int) -> None:
        """Raise RangeError if public sizes alone show that a step cannot fit the ring."""
        size = self.settings.batch_size
        if self.data.weights is not None:
            size *= math.ceil(self.data.weights.bound / 2**self.data.weights.frac_bits)
        room = 2.0 ** (truncation.OFFSET_BITS - 2 * self.session.format.frac_bits)
        if size * self.limit >= room:
            raise RangeError(
                f"batch_size times the rows' bound must be below {room:g}, so that the sum of a"
                f" batch's gradients fits the ring, got {size} times {self.limit:g}"
            )
        if self.settings.loss_record.check_room is not None:
            self.settings.loss_record.check_room(self.session, outputs)

    def run(self) -> SharedModel:
        """Train from the start, or from a checkpoint, to the end."""
        settings, rows = self.settings, len(self.data.X)
        if settings.folder is not None and settings.resume:
            found = load(settings.folder, self.trainer, self.random, self.common, self.done.run)
            self.done = found or self.done
        with progress_bar(
            settings.epochs * rows, "encrypted fit", "row", settings.progress,
            delay=0.5, initial=self.done.epoch * rows, unit_scale=True,
        ) as bar:  # fmt: skip
            while not self._finished():
                self._epoch(bar)
                if self.held_out is not None:
                    self._validate(bar)
                if settings.folder is not None:
                    save(settings.folder, self.trainer, self.random, self.common, self.done)
        return self._trained()

    def _finished(self) -> bool:
        # A plan has no accuracies.
        stops = bool(self.session.here) and stalled(self.done.scores, self.settings.patience)
        return self.done.epoch >= self.settings.epochs or stops

    def _epoch(self, bar: Any) -> None:
        """Train on every row once, and check that all values were in range."""
        session, data, done = self.session, self.data, self.done
        before, begun = session.cost().total, time.perf_counter()
        try:
            for rows in self.trainer.epoch(
                data.X, data.targets, self.settings.batch_size, self.random,
                self.settings.rate(len(data.X)), data.weights,
            ):  # fmt: skip
                bar.update(rows)
        except RangeError as error:
            raise RangeError(f"in epoch {done.epoch + 1}, {error}; {self.advice}") from None
        self.trainer.place()
        done.epoch += 1
        inside = self.trainer.in_range()
        spent = session.cost().total - before
        spent.seconds = time.perf_counter() - begun
        self.model.epoch_costs_.append(spent)
        if not inside:
            raise RangeError(
                f"in epoch {done.epoch}, activations, gradients, the optimizer's moments or the"
                f" weights have left the range that shares can represent; {self.advice}"
            )

    def _validate(self, bar: Any) -> None:
        assert self.held_out is not None
        self.model.layers = self.trainer.evaluated()
        try:
            _validate(self.model, self.trainer, self.held_out, self.done, self.task)
        except RangeError as error:
            raise RangeError(f"after epoch {self.done.epoch}, {error}; {self.advice}") from None
        score = self.done.scores[-1]
        shown = f"{score:.4g}" if self.task == "values" else f"{score:.2%}"
        bar.set_postfix(epoch=self.done.epoch, score=shown, refresh=False)

    def _trained(self) -> SharedModel:
        """Return the model, with the largest input range for which no layer leaves the format."""
        trainer, model = self.trainer, self.model
        layers = trainer.evaluated()
        if any(isinstance(layer, BatchNorm) for layer in trainer.layers) and not trainer.in_range():
            raise RangeError(
                f"the running statistics of a batch normalisation are out of range; {self.advice}"
            )
        model.layers = rewired(layers, [x.with_parameters(x.parameters) for x in layers])
        limit = largest_inputs(self.session, model.layers, model.n_features_in_, self.limit)
        model.low, model.high = np.asarray(-limit), np.asarray(limit)
        model.validation_scores_, model.validation_losses_ = self.done.scores, self.done.losses
        return model if self.task == "classes" else finished_model(self.task, model)


def _run(session: Session) -> str:
    """Return a name for this run: the same at all parties, different for every run."""
    # Runs of one session start at different numbers of rounds.
    return f"{session.session_id.hex() or secrets.token_hex(16)}-{session.cost().total.rounds}"


def _validate(
    model: SharedModel, trainer: SharedTrainer, held_out: _Data, done: Progress, task: str
) -> None:
    """Reveal accuracy and mean loss on the validation data, and add them to `done`."""
    session = model.session
    rows = len(held_out.X)
    held_out.X.mask_data()
    hits, losses = [], []
    model.range = trainer.range
    # The losses of scores near the format's limit would not fit.
    with session.layer("validation"), session.range_policy.checked():
        for start in range(0, rows, model.rows_at_once()):
            piece = slice(start, start + model.rows_at_once())
            scores, targets = model(held_out.X[piece]), held_out.targets[piece]
            if task == "classes":
                hits.append((scores.argmax(axis=1, one_hot=True) * targets).sum())
            elif task != "values":
                hits.append(right(scores, targets))
            losses.append(trainer.loss.shared_value(scores, targets))
        model.range = None
        if not trainer.in_range():
            raise RangeError("activations for the validation rows have left the range")
        loss = _total(losses).reveal() / rows
        labels = rows * (held_out.targets.shape[1] if task == "labels" else 1)
        accuracy = _total(hits).reveal() / labels if hits else -loss
    done.scores.append(float(accuracy))
    done.losses.append(float(loss))


def _total(parts: list[SharedArray]) -> SharedArray:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
