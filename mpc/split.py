"""Splitting one number into shares by hand, for a first look at secret sharing."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc.core.errors import ArgumentError, DtypeError, ShapeError
from ring.real_arrays import plain_array

__all__ = ["join", "split"]


def split(x: ArrayLike, parties: int = 2) -> NDArray[np.uint64]:
    """Split whole numbers into additive shares modulo 2^64.

    Parameters
    ----------
    x : array_like of integers
        Floats are first encoded, see :func:`ring.encode`.
    parties : int, default=2
        How many shares, at least two. Any number of them short of all are uniformly random.

    Returns
    -------
    uint64 array of shape (parties, *x.shape)

    Raises
    ------
    DtypeError, ArgumentError
        If `x` holds no integers, or `parties` is below two or above 2^16.

    Examples
    --------
    >>> import mpc
    >>> shares = mpc.split(5, 2)
    >>> int(mpc.join(shares))
    5
    >>> int(mpc.join(mpc.split(5, 3) + mpc.split(-7, 3)))
    -2
    """
    values = plain_array(x, "x")
    if values.dtype.kind not in "iu":
        raise DtypeError(
            f"x must hold integers (encode reals with ring.encode), got dtype {values.dtype}"
        )
    if isinstance(parties, bool) or not isinstance(parties, int):
        raise DtypeError(f"parties must be a whole number, got {parties!r}")
    if parties < 2:
        raise ArgumentError(f"parties must be at least 2, got {parties}")
    if parties > 1 << 16:
        raise ArgumentError(f"parties must be at most 2^16, got {parties}")
    words = values.astype(np.uint64)
    shares = np.empty((parties, *values.shape), np.uint64)
    random = np.frombuffer(os.urandom(8 * (parties - 1) * values.size), np.uint64)
    shares[1:] = random.reshape(parties - 1, *values.shape)
    shares[0] = words - shares[1:].sum(axis=0, dtype=np.uint64)
    return shares


def join(shares: ArrayLike) -> Any:
    """Join additive shares: the inverse of :func:`split`.

    Parameters
    ----------
    shares : uint64 array of shape (parties, ...)

    Returns
    -------
    int64 array of shape (...), or a scalar

    Raises
    ------
    DtypeError, ShapeError
        If `shares` is not uint64, or holds fewer than two shares.
    """
    words = plain_array(shares, "shares")
    if words.dtype != np.uint64:
        raise DtypeError(f"shares must be a uint64 array, got dtype {words.dtype}")
    if words.ndim < 1 or len(words) < 2:
        raise ShapeError(
            f"shares must have a first axis of at least two parties, got shape {words.shape}"
        )
    return words.sum(axis=0, dtype=np.uint64).astype(np.int64)[()]
