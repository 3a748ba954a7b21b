"""Evaluation of plain layers in batches of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.layers.graph import run
from nn.layers.layer import Layer

__all__ = ["accuracy", "evaluate"]

# Rows of a batch. It bounds the memory of a prediction, whatever the number of rows.
ROWS_AT_ONCE = 4096


def evaluate(layers: Sequence[Layer], X: NDArray[Any]) -> NDArray[Any]:
    """Return the last layer's output for the rows `X`, computed in batches."""
    pieces = []
    for start in range(0, max(len(X), 1), ROWS_AT_ONCE):
        pieces.append(run(layers, X[start : start + ROWS_AT_ONCE]))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def accuracy(
    layers: Sequence[Layer], classes: NDArray[Any], X: NDArray[Any], y: NDArray[Any]
) -> float:
    """Return the fraction of rows whose class with the largest score is their label in `y`."""
    return float(np.mean(classes[evaluate(layers, X).argmax(axis=1)] == y))
