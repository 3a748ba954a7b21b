"""What a training on shares starts from, and the model that it ends with.

Initial weights are public, follow from ``random_state`` and are what a training in the clear starts
from, unless ``fit`` is told otherwise by ``start=``:

- a shared model of the same layers, whose weights stay secret: fine-tuning;
- a plain model that every party has;
- "secret": each of n parties draws the initial weights with 1/n of their variance, and shares them; the
  sum has the usual distribution. Whoever pools all parts but one knows them up to that part. What is the
  same in every drawing, such as biases of 0, is public. No round but that of sharing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, SessionError
from nn.layers import Layer
from nn.layers.graph import rewired
from nn.layers.layer import parameters
from nn.layers.normalisation import BatchNorm, resumed
from nn.shared.model import SharedModel
from nn.shared.regressor import SharedRegressor
from nn.training.tasks import OF_CLASSES, begun, finished

__all__ = ["finished_model", "meant", "named_start", "started"]

Draw = Callable[[np.random.Generator, np.dtype[Any]], Sequence[Layer]]


def named_start(start: Any) -> str:
    """Return what parties must have alike of ``start``: a digest of weights that are public."""
    if isinstance(start, str) or isinstance(start, SharedModel):
        return start if isinstance(start, str) else "shared"
    found = hashlib.sha256()
    for layer in start.layers:
        running = [layer.mean, layer.variance] if isinstance(layer, BatchNorm) else []
        for array in (*layer.parameters, *running):
            found.update(np.ascontiguousarray(array, np.float64).tobytes())
    return found.hexdigest()


def meant(start: Any) -> list[int]:
    """Return by which numbers of this session all parties mean the same shared model of ``start``."""
    if not isinstance(start, SharedModel):
        return []
    numbers = []
    for x in parameters(start.layers):
        plaintext, mask = getattr(x, "plaintext", None), getattr(x, "mask", None)
        numbers.append(plaintext.base.id if plaintext else mask.ref.id if mask else 0)
    return numbers


def started(
    session: Session, task: str, fresh: Sequence[Layer], draw: Draw, start: Any
) -> Sequence[Layer]:
    """Return the layers that a training starts with.

    Parameters
    ----------
    session : Session
    task : str
        See :mod:`nn.training.tasks`.
    fresh : sequence of Layer
        With public initial weights.
    draw : callable
        ``draw(generator, dtype)`` returns layers with other initial weights.
    start : SharedModel, Model or "secret"

    Raises
    ------
    ArgumentError, DtypeError, SessionError
        If `start` is none of these, of another session, of other layers, takes scaled rows, or shows
        less than the model would.
    """
    if isinstance(start, str):
        if start != "secret":
            raise ArgumentError(f"start must be a model or 'secret', got {start!r}")
        return _secret(session, fresh, draw)
    given = getattr(start, "layers", None)
    if given is None:
        raise DtypeError(f"start must be a model or 'secret', got {type(start).__name__}")
    if isinstance(start, SharedModel):
        if start.session is not session:
            raise SessionError("start belongs to another session than X")
        if start.inputs is not None:
            raise ArgumentError(
                "start takes rows that are scaled feature by feature, which a training does not: share"
                " it with one range for all features, share(..., low=-1, high=1)"
            )
        if task == "labels" and not isinstance(start, SharedRegressor) and not start.scores:
            raise ArgumentError(
                "start shows the class of a row alone, and a training of labels would show on which side"
                " of 0 every score is: share it with scores=True"
            )
    given = begun(task, given)
    layers = resumed(fresh, given)
    if layers is None:
        raise ArgumentError(f"start must have the layers {list(fresh)}, got {list(given)}")
    return layers


def _secret(session: Session, fresh: Sequence[Layer], draw: Draw) -> Sequence[Layer]:
    """Return layers whose random weights are sums of what each party has drawn."""

    def drawn() -> list[NDArray[Any]]:
        # Seeded by the operating system.
        return parameters(draw(np.random.default_rng(), np.dtype(np.float64)))

    public = parameters(fresh)
    random = [not np.array_equal(a, b) for a, b in zip(public, drawn(), strict=True)]
    sizes = [a.size for a, found in zip(public, random, strict=True) if found]
    if not sizes:
        raise ArgumentError(
            "start='secret' needs layers whose initial weights are random, got none"
        )
    total: SharedArray | None = None
    for number, party in enumerate(session.parties):
        part = None
        if number in session.residents:
            own = [a for a, found in zip(drawn(), random, strict=True) if found]
            part = np.concatenate([a.reshape(-1) for a in own]) / math.sqrt(session.size)
        shared = session.share(part, owner=party, shape=(sum(sizes),))
        total = shared if total is None else total + shared
    assert total is not None
    pieces = iter(np.split(total, np.cumsum(sizes)[:-1]))
    form = session.format
    arrays: list[Any] = []
    for array, found in zip(public, random, strict=True):
        arrays.append(
            next(pieces).reshape(array.shape)
            if found
            else SharedArray.from_public(session, array, form.frac_bits, form.bound)
        )
    remaining = iter(arrays)
    return rewired(
        fresh,
        [layer.with_parameters([next(remaining) for _ in layer.parameters]) for layer in fresh],
    )


def finished_model(task: str, model: SharedModel) -> SharedModel:
    """Return the model that a training of another task than "classes" ends with."""
    layers = finished(task, model.layers)
    options: dict[str, Any] = {"scores": model.scores, "link": model.link}
    kind: type[SharedModel] = SharedModel
    if task not in OF_CLASSES:
        kind, options = SharedRegressor, {"flat": task == "values" and len(model.classes_) == 1}
    made = kind(
        model.session,
        layers,
        model.classes_,
        model.n_features_in_,
        model.low,
        model.high,
        **options,
    )
    for name in ("validation_scores_", "validation_losses_", "epoch_costs_"):
        setattr(made, name, getattr(model, name))
    return made
