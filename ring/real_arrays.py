"""Input checks: array-likes become arrays of real numbers; masked, sparse and other ones are refused."""

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

    Raises
    ------
    DtypeError
        If anything in x is masked, or x is a sparse matrix, which NumPy would turn into an array
        of one object.
    ShapeError
        If x is nested unevenly.
    """
    check_unmasked(x, name)
    if hasattr(x, "toarray") and hasattr(x, "nnz"):  # SciPy's, without importing it
        raise DtypeError(f"{name} must be a dense array, got {type(x).__name__}: use x.toarray()")
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
    if values.dtype == object and all(type(v) is int for v in values.reshape(-1)[:1000]):
        raise RangeError(f"{name} must be below 2^63 in magnitude")
    if values.dtype.kind not in "fiub":
        raise DtypeError(f"{name} must hold real numbers, got dtype {values.dtype}")
    return values


def _is_masked(x: object) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_is_masked(part) for part in x)
    return isinstance(x, np.ma.MaskedArray) and bool(np.ma.is_masked(x))
