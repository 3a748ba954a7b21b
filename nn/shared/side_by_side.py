"""Several models of one architecture, evaluated in the same rounds, each on its own rows.

A layer without parameters is computed for the rows of all models at once. A layer with parameters
opens all rows under their masks in one round; then each model multiplies its own rows, which takes
no further round. Without a provider each model's product takes its own one or two rounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.protocols import linear
from nn.layers.graph import inputs_of
from nn.layers.layer import described, parameters
from nn.shared.heads import SharedHeads
from nn.shared.model import SharedModel
from nn.shared.model_inputs import Rows
from ring.errors import ShapeError

__all__ = ["architecture", "side_by_side"]


def architecture(model: SharedModel) -> Hashable:
    """Return a key that is equal for models that can be evaluated together.

    A model with several outputs is evaluated alone.
    """
    return (
        type(model),
        id(model) if isinstance(model, SharedHeads) else 0,
        model.n_features_in_,
        json.dumps([described(model.layers), inputs_of(model.layers)]),
        tuple((p.shape, p.frac_bits, p.bound) for p in parameters(model.layers)),
        model.row_bound(),
        model.inputs is None,
        model.bounds,
    )


def side_by_side(models: Sequence[SharedModel], rows: Sequence[int]) -> SharedModel:
    """Return a model that evaluates `models` together, each on its own rows.

    Its input has the rows of the first model first, then those of the second, and so on.

    Parameters
    ----------
    models : sequence of SharedModel
        Of one architecture, in one session.
    rows : sequence of int
        Number of rows of each model.

    Returns
    -------
    SharedModel
        ``models[0]`` itself if there is no other.
    """
    return models[0] if len(models) == 1 else _SideBySide(models, rows)


class _SideBySide(SharedModel):
    """The first model, except that each model's parameters are applied to its own rows."""

    def __init__(self, models: Sequence[SharedModel], rows: Sequence[int]) -> None:
        first = models[0]
        super().__init__(
            first.session, first.layers, first.classes_, first.n_features_in_, first.low,
            first.high, inputs=first.inputs, bounds=first.bounds,
        )  # fmt: skip
        self._models, self._rows_of = tuple(models), tuple(rows)

    def through(self, number: int, x: Any) -> SharedArray:
        if not self.layers[number].parameters:
            return super().through(number, x)
        if len(x) != sum(self._rows_of):
            raise ShapeError(f"models side by side take {sum(self._rows_of)} rows, got {len(x)}")
        # Truncated and opened for all models together, so in common rounds.
        form = self.session.format
        if x.frac_bits > form.frac_bits + form.guard_bits:
            x = x.truncate()
        x.mask_data()
        stops = np.cumsum(self._rows_of).tolist()
        return linear.concatenate(
            [
                model.through(number, x[stop - count : stop])
                for model, count, stop in zip(self._models, self._rows_of, stops, strict=True)
            ]
        )

    def twin(self, planned: Session) -> SharedModel:
        return side_by_side([model.twin(planned) for model in self._models], self._rows_of)

    def prepare(self, X: Rows, program: Callable[..., object], **arguments: Any) -> None:
        # The same models with the same numbers of rows hardly meet again: the plan is not kept.
        self.session.prepare(
            lambda planned: program(self.twin(planned), self.twin_rows(planned, X), **arguments)
        )
