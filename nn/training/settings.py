"""The settings of ``fit``, which are checked before a training begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from nn.core.checks import integer, local_path
from nn.losses import chosen_loss
from nn.losses.loss import Loss
from nn.training.optimizers import SCHEDULES, Optimizer, choose_optimizer
from ring.errors import ArgumentError

__all__ = ["FitSettings"]


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
        put("loss_record", chosen_loss(self.loss))
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
        put("rule", choose_optimizer(self.optimizer, self.learning_rate, self.momentum))

    def rate(self, rows: int) -> Callable[[int], float]:
        """Return the function from a step's number to the schedule's factor, for `rows` rows."""
        schedule, total = SCHEDULES[self.schedule], self.epochs * -(-rows // self.batch_size)
        return lambda step: schedule(step / total)
