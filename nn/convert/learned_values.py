"""The values of a graph of learned models, as the conversion represents them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Conversion, Scores
from nn.convert.expressions import Affine
from nn.convert.learned_trees import Path
from nn.convert.problems import ConversionError
from nn.layers import Sigmoid

__all__ = ["Context", "Labelled", "Lost", "Numbers", "Odds", "computed", "labels_of", "numbers"]


@dataclass(frozen=True)
class Context:
    """The conversion under way, and whether rows are float64 in the original."""

    c: Conversion
    double: bool


@dataclass(frozen=True, eq=False)
class Numbers:
    """Columns of numbers, and of each where it comes from, None if it is computed of several."""

    affine: Affine
    paths: tuple[Path | None, ...]
    # What it was divided by must be the sum of its own columns.
    summed: Affine | None = None

    def take(self, places: Sequence[int]) -> Numbers:
        """Return some columns."""
        return Numbers(self.affine.take(places), tuple(self.paths[k] for k in places))


@dataclass(frozen=True, eq=False)
class Odds:
    """Class probabilities, made from scores by their link; "sigmoids" do not sum to 1."""

    scores: Scores


@dataclass(frozen=True, eq=False)
class Labelled:
    """The class with the largest score."""

    scores: Scores


@dataclass(frozen=True)
class Lost:
    """An output that cannot be converted, and what it is."""

    reason: str


def computed(affine: Affine) -> Numbers:
    return Numbers(affine, (None,) * affine.size)


def numbers(context: Context, value: Any) -> Numbers:
    """Return a value as numbers; raise ConversionError otherwise."""
    if isinstance(value, Numbers):
        return value
    if isinstance(value, Odds):
        scores = value.scores
        if scores.link is None:
            return computed(scores.values)
        if scores.link == "sigmoids":
            return computed(context.c.build.apply(Sigmoid(), scores.values))
        return computed(context.c.probabilities_of(scores, "the classifier"))
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size == 1:
        return computed(context.c.build.constant(value.reshape(1)))
    raise ConversionError(f"needs numbers, got {type(value).__name__.lower()}")


def labels_of(attributes: dict[str, Any]) -> NDArray[Any]:
    """Return the labels of the classes that a node names, in the order of its outputs."""
    for key in ("classlabels_strings", "classlabels_ints", "classlabels_int64s"):
        if attributes.get(key):
            return np.array([n.decode() if isinstance(n, bytes) else n for n in attributes[key]])
    raise ConversionError("needs the labels of its classes")
