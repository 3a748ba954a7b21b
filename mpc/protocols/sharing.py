"""Sharing a value and revealing one (PROTOCOLS: sharing and revealing).

Sharing, party j's value x:
1. Party i != j takes x_i = PRG(k_ij, id), from the key it has in common with j.
2. Party j takes x_j = x - (sum of the others' shares), which it can expand too.
Cost: no rounds, no bytes.

Revealing [x]:
1. Each party sends its share to those that are to learn x; they add up.
Cost: 1 round; 8 (n - 1) bytes an element to reveal to all, 8 to reveal to one.

Source: additive secret sharing with pseudo-random shares (Cramer, Damgard, Ishai 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc.cost import Spent
from mpc.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.protocols.truncation import to_format
from ring import decode, encode

if TYPE_CHECKING:
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["cost_of_reveal", "reveal", "share"]

Words = NDArray[np.uint64]


def cost_of_reveal(parties: int, size: int) -> Spent:
    """Declare the cost of revealing `size` elements to all."""
    return Spent(1, 8 * (parties - 1) * size, 0)


def _check_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in shape)
    except TypeError:
        raise DtypeError(
            f"shape of {name} must be a sequence of whole numbers, got {shape!r}"
        ) from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"shape of {name} must not be negative, got {sizes}")
    return sizes


def _check_bound(x: NDArray[Any], bound: float, name: str) -> None:
    if x.size and not np.all(np.abs(x) <= bound):
        place = np.unravel_index(int(np.argmax(~(np.abs(x) <= bound))), x.shape)
        where = f" at index {tuple(int(i) for i in place)}" if x.ndim else ""
        raise RangeError(
            f"{name} must be within its bound of {bound} in magnitude, got {x[place]}{where}"
        )


def share(
    session: Session,
    x: ArrayLike | None,
    owner: int,
    *,
    shape: Sequence[int] | None,
    dtype: DTypeLike | None,
    bound: float | None,
    name: str,
) -> tuple[Words, int, int]:
    """Return this process's shares of x, their fractional bits, and the bound on their size."""
    given = x is not None
    if given:
        values = np.asarray(x) if dtype is None else np.asarray(x).astype(dtype, casting="safe")
        if shape is not None and _check_shape(shape, name) != values.shape:
            raise ShapeError(f"{name} must have the shape {tuple(shape)}, got {values.shape}")
        sizes = values.shape
        kind = values.dtype.kind
    else:
        if owner in session.here:
            raise ArgumentError(
                f"{name} must be given by its owner {session.parties[owner]}, got None"
            )
        if shape is None:
            raise ShapeError(
                f"{name} needs shape= where its owner {session.parties[owner]} does not live"
            )
        sizes = _check_shape(shape, name)
        kind = np.dtype(float if dtype is None else dtype).kind
    if kind not in "fiub":
        raise DtypeError(
            f"{name} must hold real numbers, got dtype {values.dtype if given else dtype}"
        )
    form = session.format
    frac_bits = form.frac_bits if kind == "f" else 0
    # Whole numbers get the bits behind the point too, so that they fit the same window.
    int_bits = form.frac_bits + form.int_bits - frac_bits
    largest = form.bound
    if bound is not None:
        if isinstance(bound, bool) or not bound > 0:
            raise ArgumentError(f"bound of {name} must be positive, got {bound!r}")
        largest = min(largest, int(np.ceil(bound * 2**frac_bits)))
    if kind == "b":
        largest = 1
    encoded = None
    if given and (owner in session.here):
        if bound is not None:
            _check_bound(values, bound, name)
        encoded = encode(values, frac_bits, int_bits=int_bits, name=name)

    id = session.fresh_id()
    shares = np.empty((len(session.here), *sizes), np.uint64)
    for row, party in enumerate(session.here):
        if party != owner:
            session.streams[party].pairs[owner].fill(shares[row], id)
            continue
        assert encoded is not None
        others = np.empty(sizes, np.uint64)
        shares[row] = encoded
        for stream in session.streams[party].pairs.values():
            stream.fill(others, id)
            shares[row] -= others
    return shares, frac_bits, largest


def reveal(x: SharedArray, to: str | None) -> Any:
    """Open x to all, or to the party named, and decode it."""
    session = x.session
    party = None if to is None else session.number(to, "to")
    x = to_format(x)
    with session.protocol("reveal"):
        opened = (
            session.open((x.shares, "sum"))[0]
            if party is None
            else session.open_to(party, x.shares)
        )
    words = opened[0] if len(opened) else np.zeros(x.shape, np.uint64)
    if x.frac_bits == 0:
        return words.astype(np.int64)[()]
    return decode(words, x.frac_bits)[()]
