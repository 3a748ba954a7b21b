"""Rows that lie on thresholds of trees, or as good as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.layers import Layer, Trees
from nn.layers.graph import inputs_of, rewired, run

__all__ = ["knowing"]

# The unit of shared features as a part of their range is about 2^-28, coarser in coarse formats.
_NEAR = 2.0**-22
# Computed features are off by units of the format, large ones by more: by rounded weights times inputs.
_NEAR_COMPUTED = 2.0**-12


def knowing(layers: Sequence[Layer], X: NDArray[np.float64]) -> Sequence[Layer]:
    """Return layers whose trees know of the rows `X`.

    A threshold is often half way between two values of the training data, which is where another row may
    lie, up to the last digits of a double: fewer than a format has. Or it is a value of the training data.
    Of these rows the trees are told, also of what other steps make of them.
    """
    told = list(layers)

    def step(index: int, layer: Layer, x: Any) -> Any:
        if isinstance(layer, Trees):
            if inputs[index] == (0,):
                told[index] = layer.leaning(x, (x.max(axis=0) - x.min(axis=0)) * _NEAR)
            else:
                near = _NEAR_COMPUTED * (1 + np.abs(x).max(axis=0) / 8)
                told[index] = layer.leaning(x, near, computed=True)
        return layer(x)

    inputs = inputs_of(layers)
    if any(isinstance(layer, Trees) for layer in layers):
        run(layers, X, step)
    return rewired(layers, told)
