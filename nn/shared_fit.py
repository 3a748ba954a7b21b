"""``MLP.fit`` on shares: arguments, epochs, what is revealed and what is saved."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mpc import Session, SharedArray
from mpc.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.protocols import reciprocal, truncation
from nn.initialisation import generator
from nn.labels import ordered_classes
from nn.links import LINK_OF_LOSS
from nn.optimizers import SCHEDULES, choose_optimizer
from nn.progress import progress_bar
from nn.shared_bounds import largest_inputs
from nn.shared_checkpoint import Progress, load, save
from nn.shared_losses import SHARED_LOSSES
from nn.shared_model import SharedModel
from nn.shared_optimizers import on_shares
from nn.shared_training import SharedTrainer
from ring.real_arrays import plain_array

if TYPE_CHECKING:
    from nn.trainable import Network

__all__ = ["fit_shared"]


@dataclass(frozen=True)
class _Data:
    """Rows and their one-hot targets, both shared."""

    X: SharedArray
    targets: SharedArray


def _data(name: str, X: Any, y: Any, features: int, outputs: int) -> _Data:
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


def _random_state(session: Session, random_state: Any) -> np.random.Generator:
    apart = 0 < len(session.here) < session.size
    if apart and (
        isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer))
    ):
        raise ArgumentError(
            "random_state must be an int that all parties agree on, since weights and order start"
            f" from it at every party, got {random_state!r}"
        )
    return generator(random_state)


def fit_shared(
    model: Network,
    X: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Any,
    learning_rate: float | None,
    momentum: float | None,
    schedule: str,
    loss: str,
    classes: ArrayLike | None,
    validation: Any,
    patience: int | None,
    checkpoint: Path | None,
    resume: bool,
    check_range: bool,
    progress: bool | None,
) -> SharedModel:
    """Train a network on shares; arguments as for :meth:`nn.MLP.fit`."""
    outputs = model._classes
    data = _data("", X, y, model.n_features_in_, outputs)
    session = data.X.session
    names = np.arange(outputs) if classes is None else plain_array(classes, "classes")
    names = ordered_classes(names, outputs)
    held_out = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise ArgumentError(
                f"validation must be a pair (X, y), got {type(validation).__name__}"
            )
        held_out = _data("validation ", validation[0], validation[1], model.n_features_in_, outputs)
        if held_out.X.session is not session:
            raise SessionError("validation belongs to another session than X")
        if held_out.X.bound << data.X.frac_bits > data.X.bound << held_out.X.frac_bits:
            raise RangeError(
                "validation X must have a public bound of at most that of X,"
                f" {data.X.bound / 2**data.X.frac_bits:g}, got"
                f" {held_out.X.bound / 2**held_out.X.frac_bits:g}; share it with that bound="
            )
    rule = choose_optimizer(optimizer, learning_rate, momentum)
    random = _random_state(session, model.random_state)
    trainer = SharedTrainer(
        session,
        model._fresh_layers(random, np.dtype(np.float64)),
        SHARED_LOSSES[loss],
        on_shares(rule, session, min(batch_size, len(data.X))),
        check_range=check_range,
    )
    # The magnitude of a row's values is public: what `share` was told, or the format's limit.
    limit = data.X.bound / 2**data.X.frac_bits
    if data.X.bound == session.format.bound and data.X.frac_bits:
        limit = session.format.limit  # a rounder number
    _check_room(session, outputs, batch_size, limit, loss)
    total = epochs * -(-len(data.X) // batch_size)
    # What a resumed run must have in common with the one that it goes on with.
    setting = {
        "layers": [repr(layer) for layer in trainer.layers], "rows": len(data.X), "epochs": epochs,
        "batch_size": batch_size, "optimizer": repr(rule), "schedule": schedule, "loss": loss,
    }  # fmt: skip
    done = Progress(_run(session))
    if checkpoint is not None and resume:
        done = load(checkpoint, trainer, random, setting, done.run) or done

    best = SharedModel(
        session, trainer.layers, names, model.n_features_in_, -limit, limit,
        link=LINK_OF_LOSS[loss], scores=True,
    )  # fmt: skip
    with progress_bar(
        epochs * len(data.X), "encrypted fit", "row", progress,
        delay=0.5, initial=done.epoch * len(data.X), unit_scale=True,
    ) as bar:  # fmt: skip
        # In a plan there are no accuracies to stop on.
        while done.epoch < epochs and not (session.here and done.stops(patience)):
            factor = _factor(SCHEDULES[schedule], total)
            before, begun = session.cost().total, time.perf_counter()
            advice = f"a lower learning_rate may help than {rule!r}, or inputs that are scaled down"
            try:
                for rows in trainer.epoch(data.X, data.targets, batch_size, random, factor):
                    bar.update(rows)
            except RangeError as error:
                raise RangeError(f"in epoch {done.epoch + 1}, {error}; {advice}") from None
            trainer.place()
            done.epoch += 1
            inside = trainer.in_range()
            spent = session.cost().total - before
            spent.seconds = time.perf_counter() - begun
            best.epoch_costs_.append(spent)
            if not inside:
                raise RangeError(
                    f"in epoch {done.epoch}, activations, gradients, the optimizer's moments or the"
                    f" weights have left the range that is right on shares; {advice}"
                )
            if held_out is not None:
                try:
                    _validate(best, trainer, held_out, done)
                except RangeError as error:
                    raise RangeError(f"after epoch {done.epoch}, {error}; {advice}") from None
                bar.set_postfix(epoch=done.epoch, accuracy=f"{done.scores[-1]:.2%}", refresh=False)
            if checkpoint is not None:
                save(checkpoint, trainer, random, setting, done)
    trainer.place()
    best.layers = [layer.with_parameters(layer.parameters) for layer in trainer.layers]
    limit = largest_inputs(session, best.layers, model.n_features_in_, limit)
    best.low, best.high = np.asarray(-limit), np.asarray(limit)
    best.validation_scores_, best.validation_losses_ = done.scores, done.losses
    return best


def _run(session: Session) -> str:
    """Return a name for this run that all parties have in common, and no other run has."""
    # The rounds tell runs of one session apart.
    return f"{session.session_id.hex() or secrets.token_hex(16)}-{session.cost().total.rounds}"


def _check_room(session: Session, outputs: int, batch_size: int, limit: float, loss: str) -> None:
    """Raise where a quantity of every step is sure not to fit, which needs no opening to see."""
    room = 2.0 ** (truncation.OFFSET_BITS - 2 * session.format.frac_bits)
    if batch_size * limit >= room:
        raise RangeError(
            f"batch_size times the rows' bound must be below {room:g}, so that the sum of a batch's"
            f" gradients fits the ring, got {batch_size} times {limit:g}"
        )
    if loss == "cross_entropy" and outputs > reciprocal.LARGEST:
        raise RangeError(
            f"layer_sizes[-1] must be at most {reciprocal.LARGEST} for the softmax on shares, got"
            f" {outputs}; the squared error takes any number"
        )


def _factor(schedule: Callable[[float], float], total: int) -> Callable[[int], float]:
    return lambda step: schedule(step / total)


def _validate(model: SharedModel, trainer: SharedTrainer, held_out: _Data, done: Progress) -> None:
    """Reveal two numbers: accuracy and mean loss."""
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
            losses.append(trainer.loss.value(scores, targets))
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
