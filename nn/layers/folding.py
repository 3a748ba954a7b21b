"""Dense layers in float64, and the merging of those that follow one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nn.layers.dense import Dense
from nn.layers.layer import Layer

__all__ = ["dense", "merge"]

Floats = NDArray[np.float64]


def dense(weights: Floats, bias: Floats) -> Dense:
    """Return a Dense layer in float64.

    Parameters
    ----------
    weights : array of shape (inputs, outputs), or (features,) for a diagonal matrix
    bias : array of shape (outputs,)
    """
    matrix = np.array(weights, dtype=np.float64)
    return Dense(np.diag(matrix) if matrix.ndim == 1 else matrix, np.array(bias, dtype=np.float64))


def merge(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers of the same function in which no Dense follows a Dense.

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
