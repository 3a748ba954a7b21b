"""Evaluating a shared model on workers of every party, see :mod:`mpc.spread`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mpc import Session, SharedArray
from mpc.spread import spread
from nn.inputs import ScaledRows
from nn.progress import progress_bar

if TYPE_CHECKING:
    from nn.shared_model import SharedModel

__all__ = ["Answer", "evaluate"]

Answer = Literal["scores", "classes", "one-hot"]


@dataclass(frozen=True)
class _Shape:
    """What is left of a parameter in a model without any."""

    shape: tuple[int, ...]


class Evaluation:
    """What a worker does: the model without session and parameters, which it gets apart."""

    def __init__(self, model: SharedModel, answer: Answer, batch_size: int | None) -> None:
        self._model = copy.copy(model)
        del self._model.session
        self._model.layers = [
            layer.with_parameters([_Shape(p.shape) for p in layer.parameters])
            for layer in model.layers
        ]
        self._answer, self._batch_size = answer, batch_size
        # What the log calls it, and what workers of all parties must agree on.
        self.__qualname__ = f"{type(self).__qualname__} of {answer}"

    def __call__(
        self, session: Session, rows: SharedArray, *parameters: SharedArray
    ) -> SharedArray:
        model = copy.copy(self._model)
        model.session = session
        rest = list(parameters)
        model.layers = [
            layer.with_parameters([rest.pop(0) for _ in layer.parameters])
            for layer in self._model.layers
        ]
        X = rows if model.inputs is None else ScaledRows(rows, model.inputs)
        scores = model(X, batch_size=self._batch_size, progress=False, n_jobs=1)
        if self._answer == "scores":
            return scores
        return scores.argmax(axis=1, one_hot=self._answer == "one-hot")


def evaluate(
    model: SharedModel,
    rows: SharedArray,
    answer: Answer,
    n_jobs: int,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> SharedArray:
    """Return the scores of rows in the model's scale, or their classes, as indices or one-hot."""
    program = Evaluation(model, answer, batch_size)
    parameters = [p for layer in model.layers for p in layer.parameters]
    with progress_bar(len(rows), "encrypted evaluation", "row", progress) as bar:
        return spread(model.session, program, rows, *parameters, n_jobs=n_jobs, done=bar.update)
