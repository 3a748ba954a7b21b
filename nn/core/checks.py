"""Checks of arguments that modules of ``nn`` share; each error names argument, rule and value."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.core.runtime import Runtime
from ring.errors import ArgumentError, DtypeError, RangeError, ShapeError
from ring.real_arrays import plain_array, real_array

__all__ = [
    "check_names",
    "check_session",
    "column_names",
    "columns_of",
    "elements",
    "feature_matrix",
    "float_dtype",
    "in_order",
    "integer",
    "interval",
    "label_vector",
    "layer_widths",
    "local_path",
    "named_inputs",
    "parameter_arrays",
    "plain_numbers",
    "real",
    "side_by_side",
]


def integer(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`."""
    if isinstance(value, (bool, np.bool_)):
        raise DtypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise DtypeError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ArgumentError(f"{name} must be at least {minimum}, got {number}")
    return number


def real(
    name: str, value: Any, *, above: float | None = None, least: float = -math.inf, below: float
) -> float:
    """Return `value` as a float above `above` (or at least `least`) and below `below`."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise DtypeError(f"{name} must be a number, got {value!r}")
    low = f"above {above:g}" if above is not None else f"at least {least:g}"
    high = "finite" if below == math.inf else f"below {below:g}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DtypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:  # an int or a Fraction that may have too many digits to print
        raise ArgumentError(
            f"{name} must be {low} and {high}, got a number beyond the largest float"
        ) from None
    # Written so that NaN, which compares false with everything, is refused.
    if not ((number > above if above is not None else number >= least) and number < below):
        raise ArgumentError(f"{name} must be {low} and {high}, got {number!r}")
    return number


def elements(name: str, value: Any) -> list[Any]:
    """Return the elements of a list, a tuple or another iterable but text."""
    if isinstance(value, (str, bytes)):
        raise DtypeError(f"{name} must be a sequence, got {value!r}")
    try:
        return list(value)
    except TypeError:
        raise DtypeError(f"{name} must be a sequence, got {value!r}") from None


def check_session(session: object) -> None:
    """Raise DtypeError unless `session` is one."""
    if not isinstance(session, Runtime):
        raise DtypeError(f"session must be an mpc.Session, got {session!r}")


def local_path(name: str, value: Any) -> Path:
    """Return `value`, a str or a path-like object of one, as a Path."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise DtypeError(f"{name} must be a path, got {value!r}")
    return Path(path)


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return `dtype` as float32 or float64."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise DtypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise DtypeError(f"dtype must be float32 or float64, got {result}")
    return result


def interval(low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return `low` and `high` in float64, after checking that `low` is nowhere above `high`."""
    lows, highs = (
        real_array(ends, name).astype(np.float64, copy=False)
        for name, ends in (("low", low), ("high", high))
    )
    try:
        ordered = np.less_equal(lows, highs)
    except ValueError:
        raise ShapeError(
            f"low and high must have the same shape, got {lows.shape} and {highs.shape}"
        ) from None
    if not np.all(ordered):
        # The message shows one pair of values, not arrays.
        where = int(np.argmin(ordered))
        lowest, highest = (np.broadcast_to(a, ordered.shape).flat[where] for a in (lows, highs))
        raise ArgumentError(f"low must not be above high, got low {lowest:g} and high {highest:g}")
    return lows, highs


def layer_widths(layer_sizes: Any) -> tuple[int, ...]:
    """Return `layer_sizes` as a tuple of at least two integers of at least 1."""
    if isinstance(layer_sizes, (str, bytes)) or not isinstance(layer_sizes, (Sequence, np.ndarray)):
        raise DtypeError(f"layer_sizes must be a sequence of integers, got {layer_sizes!r}")
    if len(layer_sizes) < 2:
        raise ArgumentError(
            "layer_sizes must name at least the features and the outputs, "
            f"got {len(layer_sizes)} entries"
        )
    # Returned unchanged when it already is such a tuple, as scikit-learn's clone expects.
    widths = tuple(integer(f"layer_sizes[{i}]", n, 1) for i, n in enumerate(layer_sizes))
    return layer_sizes if isinstance(layer_sizes, tuple) and widths == layer_sizes else widths


def feature_matrix(
    name: str, X: Any, features: int, dtype: np.dtype[Any] | None = None
) -> NDArray[Any]:
    """Return `X` as a finite array of shape (rows, features).

    With `dtype` None, float32 stays float32, and all other types become float64.
    """
    matrix = plain_array(X, name)
    if matrix.dtype.kind not in "biuf":
        raise DtypeError(f"{name} must be a dense array of real numbers, got {matrix.dtype}")
    if matrix.ndim != 2:
        raise ShapeError(f"{name} must have two axes (rows, features), got shape {matrix.shape}")
    if matrix.shape[1] != features:
        raise ShapeError(
            f"{name} must have {features} features (columns), got shape {matrix.shape}"
        )
    if dtype is None:
        dtype = np.dtype(np.float32 if matrix.dtype == np.float32 else np.float64)
    with np.errstate(over="ignore"):
        converted = matrix.astype(dtype, copy=False)
    # Minimum and maximum show NaN and infinities without a temporary of the matrix's size.
    if converted.size and not (np.isfinite(converted.min()) and np.isfinite(converted.max())):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(converted))[0])
        raise RangeError(
            f"{name} must be finite in {dtype}, got {matrix[row, column]} "
            f"in row {row}, column {column}"
        )
    return converted


def columns_of(inputs: dict[str, int] | None, name: str) -> slice:
    """Return the columns of one of a model's inputs, given the features of each by name."""
    names = list(inputs or {})
    if name not in names:
        raise ArgumentError(
            f"X must be given by the names of the model's inputs, {', '.join(names) or 'none'}, "
            f"got {name!r}"
        )
    sizes = [(inputs or {})[n] for n in names]
    start = sum(sizes[: names.index(name)])
    return slice(start, start + sizes[names.index(name)])


def named_inputs(pairs: Any, features: int) -> dict[str, int]:
    """Return the names and sizes of a model's inputs as a file or a message has them, checked."""
    inputs = {name: size for name, size in pairs}  # noqa: C416  (pairs may be of any length)
    ok = all(type(name) is str and type(size) is int and size > 0 for name, size in inputs.items())
    if not ok or len(inputs) != len(pairs) or sum(inputs.values()) != features:
        raise ArgumentError(f"inputs must have names and {features} features in all")
    return inputs


def in_order(X: dict[str, Any], inputs: dict[str, int] | None) -> list[Any]:
    """Return the parts of `X` in the order of a model's inputs, after checking that all are there."""
    for name in X or [""]:
        columns_of(inputs, name)
    missing = [name for name in inputs or {} if name not in X]
    if missing:
        raise ArgumentError(f"X must have all inputs of the model, got none called {missing[0]!r}")
    return [X[name] for name in inputs or {}]


def side_by_side(X: dict[str, Any], inputs: dict[str, int] | None) -> NDArray[Any]:
    """Return rows that are given by the names of a model's inputs as one matrix."""
    parts = [
        feature_matrix(f"X[{name!r}]", part, size)
        for part, (name, size) in zip(in_order(X, inputs), (inputs or {}).items(), strict=True)
    ]
    if len({len(part) for part in parts}) > 1:
        raise ShapeError(f"X must have as many rows in each input, got {list(map(len, parts))}")
    return np.concatenate(parts, axis=1)


def check_names(X: Any, names: NDArray[Any] | None) -> None:
    """Raise ArgumentError if `X` is a table whose columns are not called `names`, in this order."""
    columns = getattr(X, "columns", None)
    if names is None or columns is None:
        return
    found = list(columns)
    if not all(isinstance(name, str) for name in found) or found == list(names):
        return
    if len(found) != len(names):
        return  # the check of the shape has a better message
    k = next(k for k, (a, b) in enumerate(zip(found, names, strict=True)) if a != b)
    raise ArgumentError(
        "X must have the features that the model was fitted to, in their order: column "
        f"{k} must be {str(names[k])!r}, got {found[k]!r}"
    )


def column_names(X: Any) -> NDArray[Any] | None:
    """Return the names of a table's columns, as scikit-learn does: None if one is no string."""
    columns = getattr(X, "columns", None)
    if columns is None or not len(columns) or not all(isinstance(name, str) for name in columns):
        return None
    return np.array(list(columns), dtype=object)


def label_vector(name: str, y: Any, rows: int) -> NDArray[Any]:
    """Return `y` as a vector of `rows` labels without NaN."""
    labels = plain_array(y, name)
    if labels.ndim != 1:
        raise ShapeError(f"{name} must have one axis (one label a row), got shape {labels.shape}")
    if len(labels) != rows:
        raise ShapeError(f"{name} must have one label for each of {rows} rows, got {len(labels)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise RangeError(f"{name} must be finite, got {labels[row]} in row {row}")
    return labels


def plain_numbers(name: str, values: Any, instead: str) -> NDArray[Any]:
    """Return plain numbers as an array; the error on a SharedArray advises `instead`."""
    if isinstance(values, SharedArray):
        raise DtypeError(f"{name} must hold plain numbers, got a SharedArray: {instead}")
    return real_array(values, name)


def parameter_arrays(parameters: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """Return copies of weights and biases: in float32 if all are float32, else in float64.

    Raises
    ------
    DtypeError
        If an array is not real.
    RangeError
        If an array holds NaN or infinities.
    """
    arrays = [
        plain_array(p, f"parameters[{i}]") for i, p in enumerate(elements("parameters", parameters))
    ]
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"parameters[{i}] must be real numbers, got {array.dtype}")
        if not np.isfinite(array).all():
            raise RangeError(f"parameters[{i}] must be finite, got {array[~np.isfinite(array)][0]}")
    single = all(array.dtype == np.float32 for array in arrays)
    return [array.astype(np.float32 if single else np.float64) for array in arrays]
