"""Evaluation of a shared model by the workers of every party, see :mod:`mpc.workers.spread`.

The rows are cut into pieces; each worker of a party evaluates the model on one piece, together with
the corresponding workers of the other parties.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mpc import Session, SharedArray
from mpc.workers.spread import spread
from nn.core.progress import progress_bar
from nn.fixed_point.calibration import Bounds
from nn.fixed_point.inputs import InputScale, ScaledRows
from nn.layers import Layer
from nn.layers.graph import rewired
from nn.shared.proof import split_failures, with_failures

__all__ = ["Answer", "evaluate"]

Answer = Literal["scores", "classes", "one-hot"]


class Evaluated(Protocol):
    """The part of a shared model's interface that this module uses."""

    session: Session
    layers: Sequence[Layer]
    inputs: InputScale | None
    bounds: Bounds | None
    failures: list[SharedArray] | None
    rows_are_checked: bool

    def evaluated(
        self,
        X: SharedArray | ScaledRows,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        n_jobs: int | None = None,
    ) -> SharedArray:
        """Return the outputs for rows, as a shared array of shape (rows, outputs)."""
        ...


@dataclass(frozen=True)
class _Placeholder:
    """Takes the place of a parameter in a model that is sent to a worker; has its shape."""

    shape: tuple[int, ...]


class Evaluation:
    """The program that each worker runs: evaluate the model on the worker's piece of the rows.

    The program holds the model without session and parameters: the worker has a session of its
    own, and receives its party's shares of the parameters and of the rows as arguments.

    Parameters
    ----------
    model : SharedModel
    answer : {"scores", "classes", "one-hot"}
        What the program returns for each row.
    batch_size : int or None
        Rows evaluated at once; None for as many as the worker's memory limit allows.
    rows_are_checked : bool, default=False
        Whether the rows are those of a party, which has checked that they are in the model's range.
    """

    def __init__(
        self,
        model: Evaluated,
        answer: Answer,
        batch_size: int | None,
        rows_are_checked: bool = False,
    ) -> None:
        self._model = copy.copy(model)
        del self._model.session
        placed = [
            layer.with_parameters([_Placeholder(p.shape) for p in layer.parameters])
            for layer in model.layers
        ]
        self._model.layers = rewired(model.layers, placed)
        self._answer, self._batch_size = answer, batch_size
        self._rows_are_checked = rows_are_checked
        # The program's name in the log; the workers of all parties must run the same one.
        self.__qualname__ = f"{type(self).__qualname__} of {answer}"

    def __call__(
        self, session: Session, rows: SharedArray, *parameters: SharedArray
    ) -> SharedArray:
        model = copy.copy(self._model)
        model.session = session
        remaining = iter(parameters)
        given = [
            layer.with_parameters([next(remaining) for _ in layer.parameters])
            for layer in self._model.layers
        ]
        model.layers = rewired(self._model.layers, given)
        X = rows if model.inputs is None else ScaledRows(rows, model.inputs)
        # Whether a value left its limit is opened for all rows together, and not by a worker.
        model.failures = None if model.bounds is None else []
        model.rows_are_checked = self._rows_are_checked
        answer = model.evaluated(X, batch_size=self._batch_size, progress=False, n_jobs=1)
        if self._answer != "scores":
            answer = answer.argmax(axis=1, one_hot=self._answer == "one-hot")
        return answer if model.failures is None else with_failures(answer, model.failures)


def evaluate(
    model: Evaluated,
    rows: SharedArray,
    answer: Answer,
    n_jobs: int,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> SharedArray:
    """Evaluate a shared model on `n_jobs` workers of every party.

    Parameters
    ----------
    model : SharedModel
    rows : SharedArray of shape (rows, features)
        In the scale of the model's inputs.
    answer : {"scores", "classes", "one-hot"}
        What is returned for each row.
    n_jobs : int
    batch_size, progress
        As for :meth:`nn.shared.model.SharedModel.__call__`.

    Returns
    -------
    SharedArray of shape (rows, outputs), for "classes" (rows,)
        Scores, class indices, or one-hot vectors.
    """
    program = Evaluation(model, answer, batch_size, rows.plaintext is not None)
    parameters = [p for layer in model.layers for p in layer.parameters]
    with progress_bar(len(rows), "encrypted evaluation", "row", progress) as bar:
        found = spread(model.session, program, rows, *parameters, n_jobs=n_jobs, done=bar.update)
    if model.bounds is None:
        return found
    outputs = found.shape[1] - 1
    found = split_failures(found, (len(rows),) if answer == "classes" else (len(rows), outputs))
    return found.as_binary() if answer == "one-hot" else found
