"""Input checks: array-likes and tables become real arrays; masked, sparse and other ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ring.errors import DtypeError, RangeError, ShapeError

__all__ = ["check_unmasked", "plain_array", "real_array"]


def check_unmasked(x: object, name: str) -> None:
    """Raise DtypeError if anything in x is masked: NumPy would use the value behind the mask."""
    if _is_masked(x):
        raise DtypeError(
            f"{name} must not be a masked array with masked values, which would be used; fill or drop"
            " them first, as by x.filled(0) or x.compressed()"
        )


def plain_array(x: object, name: str) -> NDArray[Any]:
    """Return x as an array of any dtype, without masked values.

    Columns of a table of pandas become columns of one dtype that holds them all: bools and nullable
    numbers among them.

    Raises
    ------
    DtypeError
        If anything in x is masked, or x is a sparse matrix, which NumPy would turn into an array
        of one object; or if a column of a table holds no numbers.
    RangeError
        If a column of nullable numbers misses some.
    ShapeError
        If x is nested unevenly.
    """
    if type(x) is np.ndarray:
        return x
    check_unmasked(x, name)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):  # SciPy's, without importing it
        raise DtypeError(f"{name} must be a dense array, got {type(x).__name__}: use x.toarray()")
    if hasattr(x, "iloc") and hasattr(x, "dtypes"):  # of pandas, without importing it
        return _table(x, name) if hasattr(x, "columns") else _column(x, name)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name} must be an array: {error}") from None


def real_array(x: object, name: str) -> NDArray[Any]:
    """Return x as an array of floats, integers or bools; raises what :func:`plain_array` raises, too.

    Raises
    ------
    DtypeError
        If x holds complex numbers, dates, strings, records or objects.
    RangeError
        If x holds integers that do not fit 64 bits.
    """
    values = plain_array(x, name)
    if values.dtype == object and all(type(v) is int for v in values.flat):
        # NumPy's answer to whole numbers that are too large; smaller ones are objects by somebody's choice.
        if any(abs(v) >= 1 << 63 for v in values.flat):
            raise RangeError(f"{name} must be below 2^63 in magnitude")
    if values.dtype.kind not in "fiub":
        raise DtypeError(f"{name} must hold real numbers, got dtype {values.dtype}")
    return values


def _is_masked(x: object) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_is_masked(part) for part in x)
    return isinstance(x, np.ma.MaskedArray) and bool(np.ma.is_masked(x))


def _table(x: Any, name: str) -> NDArray[Any]:
    """Return a DataFrame's columns, all of them numbers, as a matrix."""
    wrong = [
        f"{label!r} ({dtype})"
        for label, dtype in zip(x.columns, x.dtypes, strict=True)
        if dtype.kind not in "biuf"
    ]
    if wrong:
        raise DtypeError(
            f"{name} must hold numbers, got columns of other types: {', '.join(wrong[:5])}"
            f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}; encode or drop them, as by"
            " pandas.get_dummies or scikit-learn's OneHotEncoder"
        )
    if not len(x.columns):
        return np.empty(x.shape)
    if len({str(dtype) for dtype in x.dtypes}) < 2:
        values = np.asarray(x)
        if values.dtype.kind in "biuf":
            return values
    dtype = np.result_type(*(_plain_dtype(dtype) for dtype in x.dtypes))
    matrix = np.empty(x.shape, dtype)
    for k, (label, column) in enumerate(x.items()):
        matrix[:, k] = _column(column, f"column {label!r} of {name}")
    return matrix


def _column(x: Any, name: str) -> NDArray[Any]:
    """Return a Series as an array; one of nullable numbers as numbers."""
    if isinstance(x.dtype, np.dtype) or x.dtype.kind not in "biuf":
        return np.asarray(x)
    missing = int(x.isna().sum())
    if missing:
        raise RangeError(f"{name} must have no missing values, got {missing}; fill or drop them")
    return np.asarray(x.to_numpy(dtype=_plain_dtype(x.dtype)))


def _plain_dtype(dtype: Any) -> np.dtype[Any]:
    """Return NumPy's dtype for pandas' one of numbers: nullable, sparse, or of Arrow."""
    if isinstance(dtype, np.dtype):
        return dtype
    return np.dtype(getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", np.float64))
