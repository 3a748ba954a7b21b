"""Some columns of shared rows: the features that one owner has, before they are joined with others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from mpc.core.errors import ArgumentError, DtypeError, SessionError, ShapeError
from mpc.protocols import linear
from nn.core.checks import integer
from nn.fixed_point.inputs import InputScale, ScaledRows

__all__ = ["SharedColumns", "column_numbers", "join"]


@dataclass(frozen=True, eq=False)
class SharedColumns:
    """Some features of shared rows, made by ``share_rows(..., columns=...)``.

    ``join_columns`` of the model joins them with the features of the other owners.

    Attributes
    ----------
    values : SharedArray of shape (rows, len(columns))
        In the model's scale, if it has one.
    columns : tuple of int
        Which features of the model they are.
    inputs : InputScale or None
        The scale of all features of the model, which is public.
    """

    values: SharedArray
    columns: tuple[int, ...]
    inputs: InputScale | None

    def __len__(self) -> int:
        return self.values.shape[0]

    def __repr__(self) -> str:
        return f"SharedColumns(shape={self.values.shape}, columns={self.columns})"

    def __array__(self, *args: object, **kwargs: object) -> Any:
        return self.values.__array__(*args, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise DtypeError(
            f"np.{function.__name__} is not defined on SharedColumns; the model's join_columns"
            " joins them"
        )


def column_numbers(
    columns: Sequence[Any], names: NDArray[Any] | None, features: int
) -> tuple[int, ...]:
    """Return the numbers of features that are given by number or by name.

    Raises
    ------
    ArgumentError
        If the model has no such feature, or `columns` has one twice, or none.
    DtypeError
        If `columns` is no sequence of integers and strings.
    """
    if isinstance(columns, (str, bytes)) or not np.iterable(columns):
        raise DtypeError(f"columns must be a sequence of numbers or names, got {columns!r}")
    known = [] if names is None else [str(name) for name in names]
    found: list[int] = []
    for column in columns:
        if isinstance(column, str):
            if column not in known:
                has = f"has {', '.join(known[:8])}" if known else "has no names of features"
                raise ArgumentError(
                    f"columns must be features of the model, which {has}: {column!r}"
                )
            number = known.index(column)
        else:
            number = integer("columns", column, 0)
            if number >= features:
                raise ArgumentError(f"columns must be below {features}, got {number}")
        if number in found:
            raise ArgumentError(f"columns must not repeat, got {column!r} twice")
        found.append(number)
    if not found:
        raise ArgumentError("columns must name at least one feature, got none")
    return tuple(found)


def join(
    parts: Sequence[SharedColumns], names: NDArray[Any] | None, features: int
) -> SharedArray | ScaledRows:
    """Return whole rows from the columns of all owners; raises what ``join_columns`` raises."""
    for part in parts:
        if not isinstance(part, SharedColumns):
            raise DtypeError(
                "join_columns takes what share_rows(..., columns=...) returns, got "
                f"{type(part).__name__}"
            )
        if part.inputs != parts[0].inputs:
            raise SessionError("all columns must be shared by share_rows of the same model")
    order = [column for part in parts for column in part.columns]

    def named(numbers: list[int]) -> str:
        return ", ".join(str(k if names is None else names[k]) for k in numbers[:8])

    missing = sorted(set(range(features)) - set(order))
    twice = sorted({column for column in order if order.count(column) > 1})
    if missing or twice:
        raise ArgumentError(
            "join_columns needs each feature once; "
            + (f"missing: {named(missing)}" if missing else f"more than once: {named(twice)}")
        )
    if len({len(part) for part in parts}) > 1:
        raise ShapeError(f"all columns must have as many rows, got {[len(p) for p in parts]}")
    rows = linear.concatenate([part.values for part in parts], 1)
    rows = rows[:, np.argsort(order)]
    return rows if parts[0].inputs is None else ScaledRows(rows, parts[0].inputs)
