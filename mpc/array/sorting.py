"""Sorting secret arrays, their quantiles, and elements at secret places.

Up to 64 values a row are put in order by their ranks (:mod:`mpc.protocols.ranks`); more are shuffled and
compared (:mod:`mpc.protocols.shuffled_sort`), or, without a provider, go through a network
(:mod:`mpc.protocols.merge_network`). All are exact, and keep the order of equal values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.array import shapes
from mpc.array.statistics import along, check_fraction
from mpc.core.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import check_axis
from mpc.protocols import (
    linear,
    merge_network,
    product,
    range_check,
    ranks,
    rounding,
    shuffled_sort,
)
from mpc.protocols.argmax import sum_of_one
from mpc.protocols.linear import Axis, is_shared, kept_axes
from mpc.protocols.truncation import to_format

__all__ = ["FUNCTIONS", "order", "quantiles", "top"]

FEW = 64
# Pairs of all rows that are compared at once.
_MOST_PAIRS = 1 << 20


def _moved(x: Any, axis: int | None) -> tuple[Any, tuple[int, ...], int]:
    """Return x as rows to be sorted, their shape before, and the number of the axis."""
    x = to_format(x)
    x = x.ravel() if axis is None else x
    if not x.ndim:
        raise ShapeError("an array without axes cannot be sorted")
    place = check_axis(-1 if axis is None else axis, x.ndim)
    moved = shapes.FUNCTIONS[np.moveaxis](x, place, -1)
    count = x.shape[place]
    return moved.reshape(moved.size // max(1, count), count), moved.shape, place


def _by_ranks(x: Any, values: bool, index: bool) -> tuple[Any, Any]:
    with x.session.protocol("sort"):
        matrix = ranks.sorting_matrix(x)
        found = ranks.ordered(matrix, x) if values else None
        if not index:
            return found, None
        places = np.arange(x.shape[1]).reshape(-1, 1)
        order = linear.matmul_integers(matrix, places).reshape(x.shape)
        return found, order.with_integer_bound(x.shape[1] - 1)


def _by_shuffle(x: Any, shift: int, row_bits: int, bound: int) -> tuple[Any, Any]:
    rows, count = x.shape
    session = x.session
    columns = np.zeros((len(session.here), rows * count, 2), np.uint64)
    columns[:, :, 0] = x.shares.reshape(len(columns), rows * count)
    before = np.arange(rows)[:, None] << row_bits
    if session.first_row is not None:
        columns[session.first_row, :, 1] = (before + np.arange(count)).reshape(-1)
    found = shuffled_sort.sort(x, columns, shift, bound)
    shape = (len(found), rows, count)
    places = found[:, :, 1].reshape(shape).copy()
    if session.first_row is not None:
        places[session.first_row] -= before.astype(np.uint64)
    values = x.derive(
        np.ascontiguousarray(found[:, :, 0]).reshape(shape), frac_bits=x.frac_bits, bound=x.bound
    )
    return values, x.derive(places, frac_bits=0, bound=count - 1)


def _by_network(x: Any, shift: int, index: bool) -> tuple[Any, Any]:
    if not index:
        return merge_network.sort(x), None
    key = linear.rescale(x, 1 << shift, shift, (x.bound + 1) << shift)
    key = merge_network.sort(linear.add(key, _places(x, shift)))
    with x.session.protocol("sort"):
        high = rounding.floor(key)
        low = key.shares - (high.shares << np.uint64(shift))
    values = linear.placed(high, x.frac_bits, x.bound)
    return values, x.derive(low, frac_bits=0, bound=x.shape[1] - 1)


def _places(x: Any, frac_bits: int) -> Any:
    words = np.zeros((len(x.session.here), *x.shape), np.uint64)
    if x.session.first_row is not None:
        words[x.session.first_row] = np.arange(x.shape[1], dtype=np.uint64)
    return x.derive(words, frac_bits=frac_bits, bound=max(1, x.shape[1] - 1))


def _order_rows(x: Any, values: bool, index: bool) -> tuple[Any, Any]:
    rows, count = x.shape
    if count < 2 or not rows:
        return x, linear.zeros_like(x)
    if count <= FEW and rows * count * count <= _MOST_PAIRS:
        return _by_ranks(x, values, index)
    shift = (count - 1).bit_length()
    alone = x.session.pair is not None
    row_bits = 0 if rows == 1 or alone else (2 * (x.bound + 1)).bit_length() + shift
    bound = ((x.bound + 1) << shift) + (rows - 1 << row_bits)
    if bound > LARGEST:
        if index:
            raise RangeError(
                f"sorting keeps places behind values, and {rows} rows of {count} values up to"
                f" {x.bound / 2**x.frac_bits:g} by their bound have no room for it; state a smaller"
                " bound= when you share, or .with_bound(...)"
            )
        return _by_network(x, shift, index)
    if alone:
        return _by_network(x, shift, index)
    return _by_shuffle(x, shift, row_bits, bound)


def order(x: Any, axis: int | None, *, values: bool = True, index: bool = False) -> tuple[Any, Any]:
    """Return the values along an axis in ascending order, and the places that they come from."""
    x.session.check_open()
    rows, shape, place = _moved(x, axis)
    found = _order_rows(rows, values, index)
    move = shapes.FUNCTIONS[np.moveaxis]
    sorted_, places = (
        move(y.reshape(shape), -1, place) if wanted else None
        for y, wanted in zip(found, (values, index), strict=True)
    )
    return sorted_, places


def top(x: Any, k: int, axis: int) -> tuple[Any, Any]:
    """Return the k largest values along an axis, the largest first, and their places."""
    place = check_axis(axis, x.ndim)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= x.shape[place]:
        raise ArgumentError(f"k must be from 1 to {x.shape[place]}, got {k!r}")
    values, places = order(linear.negative(x), place, index=True)
    first = (slice(None),) * place + (slice(0, int(k)),)
    return linear.negative(values[first]), places[first]


def _sort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    return order(a, axis)[0]


def _argsort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    return order(a, axis, values=False, index=True)[1]


# Quantiles.

_METHODS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda at: at,
    "lower": np.floor,
    "higher": np.ceil,
    "nearest": np.rint,
    "midpoint": lambda at: (np.floor(at) + np.ceil(at)) / 2,
}


def quantiles(a: Any, q: Any, axis: Axis, method: str, keepdims: bool) -> Any:
    """Return quantiles at public q along an axis, several, or all."""
    fractions = check_fraction(q, "q")
    if method not in _METHODS:
        raise ArgumentError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    rows = along(a, axis)
    count = rows.shape[-1]
    if not count:
        raise ShapeError(f"a quantile needs at least one element, got shape {a.shape}")
    values = order(rows, -1)[0]
    at = _METHODS[method](fractions.reshape(-1) * (count - 1))
    low = np.floor(at).astype(np.int64)
    found = values[..., low]
    rest = at - low
    if np.any(rest):
        found = found + (values[..., np.minimum(low + 1, count - 1)] - found) * rest
    if fractions.ndim:
        found = shapes.FUNCTIONS[np.moveaxis](found, -1, 0)
        each = kept_axes(rows[..., 0], a, axis, keepdims).shape
        return found.reshape((*fractions.shape, *each))
    return kept_axes(found.reshape(found.shape[:-1]), a, axis, keepdims)


def _quantile(
    a: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Any:
    return quantiles(a, q, axis, method, keepdims)


def _percentile(
    a: Any, q: Any, axis: Axis = None, method: str = "linear", keepdims: bool = False
) -> Any:
    if is_shared(q):
        raise DtypeError("q must be public")
    return quantiles(a, np.asarray(q, np.float64) / 100, axis, method, keepdims)


def _median(a: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    return quantiles(a, 0.5, axis, "linear", keepdims)


# Elements at secret places.


def _one_hot(indices: Any, count: int) -> Any:
    """Return the one-hot vectors of secret indices along a new last axis, checked."""
    if indices.frac_bits or indices.bound > LARGEST >> 1:
        raise DtypeError("indices must be whole numbers")
    session = indices.session
    check = session.range_policy.settle_domain(
        (indices,),
        lambda v: (v >= 0) & (v < count),
        "take_along_axis",
        f"indices from 0 to {count - 1}",
    )
    if check:
        # 0 <= i < count, as 2 i - count + 1 within count - 1.
        twice = linear.add_integer(linear.rescale(indices, 2, 0, 2 * indices.bound), 1 - count)
        if not range_check.within(twice, count - 1):
            raise RangeError(f"take_along_axis: an index is not from 0 to {count - 1}")
    return ranks.one_hot(indices.view(("reshape", indices.shape)), count)


def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """Take elements along an axis by public or secret indices, or by one-hot vectors of secret bits."""
    if not is_shared(indices):
        return shapes.rearranged(
            arr, "take_along_axis", lambda n: np.take_along_axis(n, np.asarray(indices), axis)
        )
    if not is_shared(arr):
        arr = linear.public(arr)
    if axis is None:
        arr, indices, axis = arr.reshape(-1), indices.reshape(-1), 0
    place = check_axis(axis, len(arr.shape))
    if len(indices.shape) != len(arr.shape):
        raise ShapeError(
            f"indices must have as many axes as the array, got shapes {arr.shape} and {indices.shape}"
        )
    count = arr.shape[place]
    move = shapes.FUNCTIONS[np.moveaxis]
    values = move(arr, place, -1) if is_shared(arr) else np.moveaxis(arr, place, -1)
    with indices.session.protocol("take"):
        if indices.binary and indices.shape == arr.shape:
            chosen = to_format(values) * move(indices, place, -1)
            found = sum_of_one(chosen, chosen.ndim - 1)
            return move(found.reshape((*found.shape, 1)), -1, place)
        hot = _one_hot(move(indices, place, -1), count)
        if not is_shared(values):
            found = hot @ values.reshape((*values.shape, 1))
        else:
            values = to_format(values)
            with values.session.range_policy.vouched():
                found = product.matmul(hot, values.reshape((*values.shape, 1)))
            found = linear.placed(found, found.frac_bits, values.bound)
        return move(found.reshape(found.shape[:-1]), -1, place)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.sort: _sort,
    np.argsort: _argsort,
    np.median: _median,
    np.quantile: _quantile,
    np.percentile: _percentile,
    np.take_along_axis: _take_along_axis,
}
