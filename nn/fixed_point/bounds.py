"""Interval bounds: how large a network's values can get on inputs of a given range.

A fixed-point format holds values up to a limit only, so a model is checked before it is shared.
Bounds treat the elements of a layer's input as independent: they hold for every input, and most
inputs stay far inside. They hold in real arithmetic; the caller's limit must leave room for
fixed-point rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.core.checks import interval, real
from nn.layers import Layer
from nn.layers.graph import Graph, run_all
from ring.errors import RangeError

__all__ = ["check_range", "check_values", "ends_of", "interval_bounds", "whole_row"]

Interval = tuple[NDArray[Any], NDArray[Any]]


def interval_bounds(layers: Sequence[Layer], low: ArrayLike, high: ArrayLike) -> list[Interval]:
    """Return the least and greatest output of each layer for inputs between `low` and `high`.

    Parameters
    ----------
    layers : sequence of Layer
    low, high : array_like
        Scalars, or one value for each feature.

    Returns
    -------
    list of (ndarray, ndarray)
        One pair a layer, each of one output row's shape, in float64.

    Raises
    ------
    ArgumentError
        If `low` is above `high` anywhere.
    ShapeError
        If a shape does not fit the layer.

    Examples
    --------
    >>> import nn
    >>> from nn.fixed_point.bounds import interval_bounds
    >>> model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
    >>> interval_bounds(model.layers, 0, 1)
    [(array([-2.5, -1. ]), array([2.5, 0. ]))]
    """
    low, high = whole_row(layers, low), whole_row(layers, high)
    intervals: list[Interval] = run_all(
        layers, (low, high), lambda _, layer, ends: layer.bounds(*ends_of(layer, ends))
    )
    return intervals


def whole_row(layers: Sequence[Layer], end: ArrayLike) -> ArrayLike:
    """Return one end of a range; for a graph with an entry for each feature, if they are known."""
    features = layers.n_features if isinstance(layers, Graph) else None
    return end if features is None or np.ndim(end) else np.full(features, end)


def ends_of(layer: Layer, ends: Any) -> tuple[Any, Any]:
    """Return the low and high ends of what a layer takes: two tuples for one with several inputs."""
    return (tuple(low for low, _ in ends), tuple(high for _, high in ends)) if layer.joins else ends


def check_range(
    layers: Sequence[Layer],
    low: ArrayLike,
    high: ArrayLike,
    limit: float,
    *,
    inputs: str | None = None,
) -> list[Interval]:
    """Raise unless every input, parameter and layer output stays below `limit` in magnitude.

    Parameters
    ----------
    layers : sequence of Layer
    low, high : array_like
        Range of the inputs: scalars, or one value for each feature.
    limit : float
        The magnitude that must not be reached.
    inputs : str, optional
        Text for the inputs in an error; default "inputs in [low, high]".

    Returns
    -------
    list of (ndarray, ndarray)
        The bounds, as from `interval_bounds`.

    Raises
    ------
    RangeError
        If a value can reach `limit` or is NaN; the message names the layer and the excess.
    ArgumentError
        If `limit` is not positive and finite, or `low` is above `high`.
    ShapeError
        If a shape does not fit the layer.

    Examples
    --------
    >>> import nn
    >>> from nn.fixed_point.bounds import check_range
    >>> model = nn.MLP.from_parameters([[[200.0, 0.0], [-50.0, 0.0]], [0.0, 0.0]])
    >>> check_range(model.layers, 0, 1, limit=256)[0][1].tolist()
    [200.0, 0.0]
    >>> check_range(model.layers, 0, 2, limit=256)
    Traceback (most recent call last):
    ...
    ring.errors.RangeError: layer 1, Dense(2, 2): its output must stay below 256 in magnitude, but \
element 0 can reach 400 for inputs in [0, 2]: 144 too much
    """
    limit = real("limit", limit, above=0, below=math.inf)
    lowest, highest = interval(low, high)
    span = f"[{lowest.min():g}, {highest.max():g}]" if lowest.size and highest.size else "[]"
    inputs = f"inputs in {span}" if inputs is None else inputs
    check_values(layers, lowest, highest, limit)
    intervals = interval_bounds(layers, low, high)
    for number, (layer, bounds) in enumerate(zip(layers, intervals, strict=True), start=1):
        _check(
            f"layer {number}, {layer!r}: its output",
            _magnitude(*bounds),
            limit,
            f" for {inputs}",
        )
    return intervals


def check_values(
    layers: Sequence[Layer], low: NDArray[Any], high: NDArray[Any], limit: float
) -> None:
    """Raise RangeError unless every input and parameter stays below `limit` in magnitude."""
    _check("the input", _magnitude(low, high), limit, "")
    for number, layer in enumerate(layers, start=1):
        for parameter in layer.parameters:
            _check(
                f"layer {number}, {layer!r}: its parameter of shape {parameter.shape}",
                np.abs(np.asarray(parameter, dtype=np.float64)),
                limit,
                "",
            )


def _magnitude(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    magnitude: NDArray[Any] = np.maximum(np.abs(low), np.abs(high))
    return magnitude


def _check(what: str, magnitude: NDArray[Any], limit: float, inputs: str) -> None:
    # Inverted, so that NaN is refused.
    if not np.all(magnitude < limit):
        worst = int(np.argmax(magnitude))  # NaN counts as greatest
        index = tuple(int(i) for i in np.unravel_index(worst, magnitude.shape))
        element = f"element {index[0] if len(index) == 1 else index}" if index else "it"
        value = float(magnitude[index])
        raise RangeError(
            f"{what} must stay below {limit:g} in magnitude, but {element} can reach {value:g}"
            f"{inputs}: {value - limit:g} too much"
        )
