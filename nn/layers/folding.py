"""Affine maps folded together in float64, before a model is shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nn.layers.dense import Dense
from nn.layers.layer import Layer

__all__ = ["dense", "merge"]

Floats = NDArray[np.float64]


def dense(weights: Floats, bias: Floats) -> Dense:
    """Return a layer in float64; weights of one axis scale each feature by itself."""
    matrix = np.array(weights, dtype=np.float64)
    return Dense(np.diag(matrix) if matrix.ndim == 1 else matrix, np.array(bias, dtype=np.float64))


def merge(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers that compute the same with no two dense ones in a row.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers.folding import dense, merge
    >>> (layer,) = merge([dense(np.array([2.0, 3.0]), np.ones(2)), dense(np.ones((2, 1)), np.ones(1))])
    >>> layer(np.array([[10.0, 100.0]]))
    array([[323.]])
    """
    merged: list[Layer] = []
    for layer in layers:
        last = merged[-1] if merged else None
        if isinstance(layer, Dense) and isinstance(last, Dense):
            merged[-1] = Dense(last.weights @ layer.weights, last.bias @ layer.weights + layer.bias)
        else:
            merged.append(layer)
    return merged
