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
from ring.errors import RangeError, ShapeError

__all__ = [
    "check_range", "check_values", "interval_bounds", "interval_of", "unbounded", "whole_row",
]  # fmt: skip

Interval = tuple[NDArray[Any], NDArray[Any]]


def interval_bounds(layers: Sequence[Layer], low: ArrayLike, high: ArrayLike) -> list[Interval]:
    """Return the least and greatest output of each layer for inputs between `low` and `high`.

    Parameters
    ----------
    layers : sequence of Layer
    low, high : array_like of shape (features,)
        One of them may be a scalar; both for a graph that knows its features.

    Returns
    -------
    list of (ndarray, ndarray)
        One pair a layer, each of one output row's shape, in float64.

    Raises
    ------
    ArgumentError
        If `low` is above `high` anywhere.
    ShapeError
        If a shape does not fit the layer, or nothing says how many features a row has.

    Examples
    --------
    >>> import nn
    >>> from nn.fixed_point.bounds import interval_bounds
    >>> model = nn.MLP.from_parameters([[[2.0, -1.0], [-3.0, 0.0]], [0.5, 0.0]])
    >>> interval_bounds(model.layers, [0, 0], 1)
    [(array([-2.5, -1. ]), array([2.5, 0. ]))]
    """
    intervals: list[Interval] = run_all(layers, whole_row(layers, low, high), interval_of)
    return intervals


def unbounded(layers: Sequence[Layer], low: ArrayLike, high: ArrayLike) -> bool:
    """Return whether some value has no bound, such as 1 / x for an x that may be 0."""
    return not all(np.isfinite(ends).all() for ends in interval_bounds(layers, low, high))


def whole_row(layers: Sequence[Layer], low: ArrayLike, high: ArrayLike) -> Interval:
    """Return a range with an entry for each feature of a row.

    A number for all features would do for layers that treat each element by itself, and is far too
    small for a sum of elements.
    """
    lows, highs = interval(low, high)
    shape = np.broadcast_shapes(lows.shape, highs.shape)
    if not shape and isinstance(layers, Graph) and layers.n_features is not None:
        shape = (layers.n_features,)
    if not shape:
        raise ShapeError(
            "low or high must have one entry for each feature of a row, got two numbers"
        )
    return np.broadcast_to(lows, shape), np.broadcast_to(highs, shape)


def interval_of(index: int, layer: Layer, ends: Any) -> Interval:
    """Return the interval of a layer's output, of one row's shape, from that of what it takes.

    Parameters
    ----------
    index : int
        The layer's, counted from 0, for an error.
    layer : Layer
    ends : (array, array), or a tuple of these for a layer that joins
        Of one input row's shape.

    Raises
    ------
    ShapeError
        If the layer's bounds are not of its output's shape: they might be those of a smaller row.
    """
    given_ends = ends if layer.joins else (ends,)
    # One pair for a value that is taken twice, so that a layer can tell.
    known = {id(pair): _numbers(*pair) for pair in given_ends}
    pairs = [known[id(pair)] for pair in given_ends]
    lows, highs = (tuple(pair[k] for pair in pairs) for k in (0, 1))
    with np.errstate(invalid="ignore"):  # 0 times infinity, which stands for infinity
        found = layer.bounds(lows, highs) if layer.joins else layer.bounds(lows[0], highs[0])
    given = tuple(np.shape(low) for low in lows)
    shape = tuple(layer.output_shape(given if layer.joins else given[0]))
    for end in found:
        if np.shape(end) not in ((), shape):
            raise ShapeError(
                f"layer {index + 1}, {layer!r}: its bounds must be numbers or of its output's shape"
                f" {shape}, got shape {np.shape(end)}"
            )
    low, high = (np.broadcast_to(np.asarray(end, np.float64), shape) for end in found)
    return low, high


def _numbers(low: Any, high: Any) -> tuple[Any, Any]:
    """Return ends with infinity for what is no number, such as an infinite bound minus another."""
    if not (np.isnan(low).any() or np.isnan(high).any()):
        return low, high
    return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)


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
        Range of the inputs, as for `interval_bounds`.
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
    >>> check_range(model.layers, [0, 0], 1, limit=256)[0][1].tolist()
    [200.0, 0.0]
    >>> check_range(model.layers, [0, 0], 2, limit=256)
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
