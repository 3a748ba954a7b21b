"""What the rows' owner computes in the clear: categories, ordinals and fill values.

Rows with text, categories or gaps cannot be shared. With ``public_preprocessing=True`` the owner of the
rows gets the model's categories and fill values and turns its columns into numbers itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ring.errors import ArgumentError, DataError, RangeError, ShapeError
from ring.real_arrays import plain_array

__all__ = ["PublicPreprocessing", "Rule"]

# A number of the model's rows: what is done, in which column, and with what.
Rule = tuple[str, int, Any]
_KINDS = ("number", "is", "rank", "filled", "missing", "filled is", "filled rank")


@dataclass(frozen=True)
class PublicPreprocessing:
    """The rules by which the owner of rows turns them into a model's numbers.

    They are public: categories and fill values of the model's training data.

    Parameters
    ----------
    columns : int
        Columns of the rows.
    rules : sequence of (str, int, value)
        For each of the model's features what is done, and with which column. "number": the column
        itself; "is": 1 where it equals the value, else 0; "rank": the place of its value in a list,
        or a number for those that are not in it; "filled": the column, with the value where it is
        missing; "missing": 1 where it is. "filled is" and "filled rank" fill first.
    names : sequence of str, optional
        Names of the columns.

    Examples
    --------
    >>> from nn.models.preprocessing import PublicPreprocessing
    >>> rules = PublicPreprocessing(2, [("filled", 0, 1.5), ("is", 1, "red"), ("is", 1, "blue")])
    >>> rules.transform([[2.0, "red"], [float("nan"), "blue"]])
    array([[2. , 1. , 0. ],
           [1.5, 0. , 1. ]])
    """

    columns: int
    rules: Sequence[Rule]
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for rule in self.rules:
            if len(rule) != 3 or rule[0] not in _KINDS or not 0 <= rule[1] < self.columns:
                raise DataError(f"a rule must be one of {_KINDS}, a column and a value, got {rule}")

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Return the numbers of rows, to be given to the model.

        Parameters
        ----------
        X : array_like or data frame of shape (rows, columns)

        Raises
        ------
        ShapeError, ArgumentError, RangeError
            If the rows have other columns, a value is no number, or it is none of the categories of an
            encoder that knows no others.
        """
        named = getattr(X, "columns", None)
        if self.names is not None and named is not None and list(named) != list(self.names):
            raise ArgumentError(f"X must have the columns {list(self.names)}, got {list(named)}")
        rows = plain_array(X, "X") if named is None else np.asarray(X, dtype=object)
        if isinstance(X, (list, tuple)):
            rows = np.array(X, dtype=object)
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise ShapeError(f"X must have the shape (rows, {self.columns}), got {rows.shape}")
        out = np.empty((len(rows), len(self.rules)))
        for place, (kind, column, value) in enumerate(self.rules):
            out[:, place] = _apply(kind, rows[:, column], column, value)
        return out

    def described(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "columns": self.columns,
            "rules": [[kind, column, _plain(value)] for kind, column, value in self.rules],
            "names": None if self.names is None else [str(name) for name in self.names],
        }

    @classmethod
    def rebuilt(cls, kept: Any) -> PublicPreprocessing:
        """Return what :meth:`described` has described."""
        try:
            return cls(int(kept["columns"]), [tuple(rule) for rule in kept["rules"]], kept["names"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"damaged rules of preprocessing: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    # NaN is the one value that differs from itself.
    return np.array([v is None or bool(v != v) for v in column.tolist()], bool)


def _apply(kind: str, column: NDArray[Any], number: int, value: Any) -> NDArray[Any]:
    gaps = _missing(column)
    if kind == "missing":
        return gaps.astype(np.float64)
    if kind.startswith("filled"):
        fill, value = (value, None) if kind == "filled" else (value[0], value[1])
        column = column.astype(object)
        column[gaps] = fill
    if kind.endswith("is"):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return _missing(column).astype(np.float64)
        return np.array([item == value for item in column.tolist()], np.float64)
    if kind.endswith("rank"):
        known = {item: float(k) for k, item in enumerate(value["known"])}
        places = [known.get(item, value["other"]) for item in column.tolist()]
        if None in places:
            raise RangeError(
                f"X must hold categories that the model knows in column {number}: {value['known']}"
            )
        return np.array(places, np.float64)
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"X must hold numbers in column {number}") from None
