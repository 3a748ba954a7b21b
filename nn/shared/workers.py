"""Evaluating a shared model on workers of every party, see :mod:`mpc.workers.spread`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Protocol

from mpc import Session, SharedArray
from mpc.workers.spread import spread
from nn.core.progress import progress_bar
from nn.fixed_point.inputs import InputScale, ScaledRows
from nn.layers import Layer

__all__ = ["Answer", "evaluate"]

Answer = Literal["scores", "classes", "one-hot"]


class Evaluated(Protocol):
    """A shared model, as far as workers need to know it."""

    session: Session
    layers: list[Layer]
    inputs: InputScale | None

    def __call__(
        self,
        X: SharedArray | ScaledRows,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Return the scores of rows."""
        ...


@dataclass(frozen=True)
class _Shape:
    """Stands for a parameter while a model is sent to a worker: its shape alone."""

    shape: tuple[int, ...]


class Evaluation:
    """The program of a worker: evaluate a model on the worker's part of the rows.

    It holds the model without its session and its parameters. Every worker has a session of its
    own, and the shares of the parameters arrive as arrays, as those of the rows do.
    """

    def __init__(self, model: Evaluated, answer: Answer, batch_size: int | None) -> None:
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
    model: Evaluated,
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
