"""``fit`` on shares: checks of the data, the loop over epochs, validation and checkpoints."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from nn.shared.bounds import largest_inputs
from nn.shared.checkpoint import Progress, load, save
from nn.shared.model import SharedModel
from nn.shared.optimizers import on_shares
from nn.shared.training import SharedTrainer
from nn.training.steps import FitSettings, stalled
from ring.real_arrays import plain_array

__all__ = ["Untrained", "fit_shared"]


@dataclass(frozen=True)
class _Data:
    """Rows, of shape (rows, features), and their one-hot targets, of shape (rows, outputs)."""

    X: SharedArray
    targets: SharedArray


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
    if y.shape != (len(X), outputs):
        raise ShapeError(
            f"{name}y must hold one-hot rows, of shape {(len(X), outputs)}, got {y.shape}"
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
    """

    n_features: int
    outputs: int
    random_state: RandomState
    fresh_layers: Callable[[np.random.Generator, np.dtype[Any]], Sequence[Layer]]


def fit_shared(network: Untrained, X: Any, y: Any, settings: FitSettings) -> SharedModel:
    """Train a network on shares; see :meth:`nn.MLP.fit`."""
    data = _data("", X, y, network)
    classes = np.arange(network.outputs)
    if settings.classes is not None:
        classes = plain_array(settings.classes, "classes")
    classes = ordered_classes(classes, network.outputs)
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
        layers = network.fresh_layers(self.random, np.dtype(np.float64))
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
        # A resumed run must agree with the run that wrote the checkpoint in all of these.
        self.common = {
            "layers": names(self.trainer.layers), "rows": rows,
            "epochs": settings.epochs, "batch_size": settings.batch_size,
            "optimizer": repr(settings.rule), "schedule": settings.schedule,
            "loss": settings.loss_record.name,
        }  # fmt: skip
        self.advice = (
            f"a lower learning_rate may help than {settings.rule!r}, or inputs that are scaled down"
        )
        self.done = Progress(_run(session))
        self.model = SharedModel(
            session, self.trainer.layers, classes, network.n_features, -self.limit, self.limit,
            link=settings.loss_record.link, scores=True,
        )  # fmt: skip

    def _check_room(self, outputs: int) -> None:
        """Raise RangeError if public sizes alone show that a step cannot fit the ring."""
        size = self.settings.batch_size
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
                self.settings.rate(len(data.X)),
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
        try:
            _validate(self.model, self.trainer, self.held_out, self.done)
        except RangeError as error:
            raise RangeError(f"after epoch {self.done.epoch}, {error}; {self.advice}") from None
        accuracy = f"{self.done.scores[-1]:.2%}"
        bar.set_postfix(epoch=self.done.epoch, accuracy=accuracy, refresh=False)

    def _trained(self) -> SharedModel:
        """Return the model, with the largest input range for which no layer leaves the format."""
        trainer, model = self.trainer, self.model
        trainer.place()
        model.layers = rewired(
            trainer.layers, [layer.with_parameters(layer.parameters) for layer in trainer.layers]
        )
        limit = largest_inputs(self.session, model.layers, model.n_features_in_, self.limit)
        model.low, model.high = np.asarray(-limit), np.asarray(limit)
        model.validation_scores_, model.validation_losses_ = self.done.scores, self.done.losses
        return model


def _run(session: Session) -> str:
    """Return a name for this run: the same at all parties, different for every run."""
    # Runs of one session start at different numbers of rounds.
    return f"{session.session_id.hex() or secrets.token_hex(16)}-{session.cost().total.rounds}"


def _validate(model: SharedModel, trainer: SharedTrainer, held_out: _Data, done: Progress) -> None:
    """Reveal accuracy and mean loss on the validation data, and add them to `done`."""
    session = model.session
    rows = len(held_out.X)
    held_out.X.mask_data()
    hits, losses = [], []
    model.range = trainer.range
    with session.layer("validation"):
        for start in range(0, rows, model.rows_at_once()):
            piece = slice(start, start + model.rows_at_once())
            scores, targets = model(held_out.X[piece]), held_out.targets[piece]
            hits.append((scores.argmax(axis=1, one_hot=True) * targets).sum())
            losses.append(trainer.loss.shared_value(scores, targets))
        model.range = None
        if not trainer.in_range():
            raise RangeError("activations for the validation rows have left the range")
        accuracy = _total(hits).reveal() / rows
        loss = _total(losses).reveal() / rows
    done.scores.append(float(accuracy))
    done.losses.append(float(loss))


def _total(parts: list[SharedArray]) -> SharedArray:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
