"""A training: its settings, the parts of a step for any layers, and the loop over steps in the clear."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.core.checks import integer, local_path
from nn.core.progress import progress_bar
from nn.layers import Layer
from nn.layers.graph import backward, run
from nn.layers.layer import parameters
from nn.losses import LOSSES, Loss
from nn.training.optimizers import SCHEDULES, Optimizer, choose_optimizer
from nn.training.weights import mean_value
from ring.errors import ArgumentError

__all__ = [
    "FitSettings",
    "backward",
    "blas_threads",
    "forward",
    "shuffled_batches",
    "stalled",
    "train",
    "update",
]

# Multiply-adds of a matrix product from which on several threads are faster than one.
_LARGE_PRODUCT = 2**27


@dataclass(frozen=True)
class FitSettings:
    """The arguments of :meth:`nn.MLP.fit` except the data, under the same names.

    Attributes
    ----------
    loss_record : Loss
        The loss of the argument `loss`.
    rule : Optimizer
        The optimizer of the arguments `optimizer`, `learning_rate` and `momentum`.
    folder : Path or None
        The path of the argument `checkpoint`.

    Raises
    ------
    ArgumentError, DtypeError
        If an argument breaks a rule.
    """

    epochs: int
    batch_size: int
    optimizer: str | Optimizer
    learning_rate: float | None
    momentum: float | None
    schedule: str
    loss: str | Loss
    classes: ArrayLike | None
    validation: Any
    patience: int | None
    checkpoint: str | os.PathLike[str] | None
    resume: bool
    check_range: bool
    progress: bool | None
    class_weight: Any = None
    sample_weight: Any = None
    start: Any = None
    numbers: bool = False
    loss_record: Loss = field(init=False)
    rule: Optimizer = field(init=False)
    folder: Path | None = field(init=False)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("epochs", integer("epochs", self.epochs, 1))
        put("batch_size", integer("batch_size", self.batch_size, 1))
        if self.validation is not None and (
            not isinstance(self.validation, (tuple, list)) or len(self.validation) != 2
        ):
            raise ArgumentError(
                f"validation must be a pair (X, y), got {type(self.validation).__name__}"
            )
        if self.patience is not None:
            put("patience", integer("patience", self.patience, 1))
            if self.validation is None:
                raise ArgumentError("patience needs validation data, got None")
        loss = LOSSES.get(self.loss) if isinstance(self.loss, str) else self.loss
        if not isinstance(loss, Loss):
            raise ArgumentError(
                f"loss must be one of {sorted(LOSSES)} or a Loss, got {self.loss!r}"
            )
        put("loss_record", loss)
        if not isinstance(self.schedule, str) or self.schedule not in SCHEDULES:
            raise ArgumentError(
                f"schedule must be one of {sorted(SCHEDULES)}, got {self.schedule!r}"
            )
        if self.progress not in (None, True, False):
            raise ArgumentError(f"progress must be True, False or None, got {self.progress!r}")
        folder = None if self.checkpoint is None else local_path("checkpoint", self.checkpoint)
        put("folder", folder)
        if self.resume and self.checkpoint is None:
            raise ArgumentError("resume needs checkpoint, the folder to go on from")
        if not isinstance(self.numbers, bool):
            raise ArgumentError(f"numbers must be True or False, got {self.numbers!r}")
        if self.numbers and loss.link != "normalised":
            raise ArgumentError(
                f"numbers needs a loss of numbers, such as 'squared_error' or 'huber', got {self.loss!r}"
            )
        put("rule", choose_optimizer(self.optimizer, self.learning_rate, self.momentum))

    def task(self, outputs: int) -> str:
        """Return what a network with so many outputs learns, see :mod:`nn.training.tasks`."""
        if self.loss_record is LOSSES["binary_cross_entropy"]:
            return "labels" if outputs > 1 else "two classes"
        return "classes" if outputs > 1 and not self.numbers else "values"

    def rate(self, rows: int) -> Callable[[int], float]:
        """Return the function from a step's number to the schedule's factor, for `rows` rows."""
        schedule, total = SCHEDULES[self.schedule], self.epochs * -(-rows // self.batch_size)
        return lambda step: schedule(step / total)


def forward(layers: Sequence[Layer], x: Any) -> Any:
    """Return the last layer's output for the rows `x`; each layer keeps what ``backward`` needs."""
    return run(layers, x, lambda _, layer, given: layer.forward(given))


def update(layers: Sequence[Layer], optimizer: Optimizer, scale: float = 1.0) -> None:
    """Make one step of `optimizer` by the layers' ``gradients``.

    `scale` is a factor on the learning rate.
    """
    gradients = [gradient for layer in layers for gradient in layer.gradients]
    remaining = iter(optimizer.step(parameters(layers), gradients, scale=scale))
    for layer in layers:
        layer.parameters = [next(remaining) for _ in layer.parameters]


def shuffled_batches(
    rows: int, batch_size: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the indices 0 to rows - 1 once, in random order; the last batch may be short."""
    order = random.permutation(rows)
    for start in range(0, rows, batch_size):
        yield order[start : start + batch_size]


def blas_threads(largest_product: int) -> AbstractContextManager[Any]:
    """Return a context in which BLAS uses one thread, if `largest_product` multiply-adds are few.

    For small products several threads are not faster, take minutes where other processes use the
    same cores, and round differently for every number of cores.
    """
    if largest_product >= _LARGE_PRODUCT:
        return nullcontext()
    # A dependency of scikit-learn.
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def stalled(scores: Sequence[float], patience: int | None) -> bool:
    """Return whether the last `patience` scores have not improved on the best before them."""
    if patience is None or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def train(
    layers: Sequence[Layer],
    X: NDArray[Any],
    targets: NDArray[Any],
    settings: FitSettings,
    random: np.random.Generator,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[float]:
    """Train `layers` in place, yielding the mean loss of each epoch, with the rows' weights if given."""
    loss, optimizer, batch_size = settings.loss_record, settings.rule, settings.batch_size
    steps = settings.epochs * -(-len(X) // batch_size)
    rate = settings.rate(len(X))
    step = 0
    largest = min(batch_size, len(X)) * max(array.size for array in parameters(layers))
    with progress_bar(steps, "fit", "batch", settings.progress, delay=0.5) as bar:
        for epoch in range(1, settings.epochs + 1):
            total = 0.0
            # A training that diverges is reported below, in one error and not in warnings.
            with blas_threads(largest), np.errstate(over="ignore", invalid="ignore"):
                for rows in shuffled_batches(len(X), batch_size, random):
                    scores = forward(layers, X[rows])
                    wanted = targets[rows]
                    given = None if weights is None else weights[rows]
                    total += mean_value(loss.value, scores, wanted, given) * len(rows)
                    gradient = loss.gradient(scores, wanted)
                    if given is not None:
                        gradient = gradient * given[:, None].astype(gradient.dtype)
                    backward(layers, gradient)
                    update(layers, optimizer, rate(step))
                    step += 1
                    bar.update()
            mean = total / len(X)
            if not np.isfinite(mean):
                raise ArgumentError(
                    f"{optimizer!r} must keep the loss finite, got {mean} in epoch {epoch}; "
                    "a lower learning_rate may help"
                )
            bar.set_postfix(epoch=epoch, loss=f"{mean:.4f}", refresh=False)
            yield mean
