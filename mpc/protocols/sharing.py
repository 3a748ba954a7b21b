"""Sharing a value and revealing one.

Sharing, party j's value x:
1. Party i != j takes x_i = PRG(k_ij, id), from the key it has in common with j.
2. Party j takes x_j = x - (sum of the others' shares), which it can expand too.
Nothing is sent, so nothing need be done until a share is asked for. A value that only ever enters
under a mask (products, truncation, comparisons: see :mod:`mpc.protocols.masking`) never needs its
shares: there x enters as j's addend, the others' being zero.
Cost: no rounds, no bytes.

Revealing [x]:
1. A product z is truncated to x first, by the s bits that it has too many, if it was not yet. The
   truncated array stays with it, so that revealing it again tells no more.
2. Each party sends its share to those that are to learn x; they add up.
Of a truncated product they learn 2^s x + (c mod 2^s) = z + U exactly, with c as truncation has opened
it and U = r mod 2^s, uniform in [0, 2^s): less than one unit of x. See :mod:`mpc.protocols.truncation`.
Cost: 1 round; 8 (n - 1) bytes an element to reveal to all, 8 to reveal to one.

Source: additive secret sharing with pseudo-random shares (Cramer, Damgard, Ishai 2005).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc.correlation import View, apply_views
from mpc.cost import Spent
from mpc.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.protocols import truncation
from mpc.protocols.truncation import to_format
from mpc.ranges import LARGEST
from ring import decode, encode
from ring.real_arrays import plain_array

if TYPE_CHECKING:
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["Given", "cost_of_reveal", "encoded_limit", "from_public", "give", "reveal", "share"]

Words = NDArray[np.uint64]


class _Base:
    """What a party has given, and this process's shares of it once they were asked for."""

    def __init__(self, session: Session, owner: int, encoded: Words, id: int | None = None) -> None:
        self.session = session
        self.id = session.fresh_id() if id is None else id
        self.owner = owner
        self.encoded = encoded
        self._shares: Words | None = None

    def shares(self) -> Words:
        """Steps 1 and 2."""
        if self._shares is None:
            self.session.check_open()
            session, shape = self.session, self.encoded.shape[1:]
            shares = np.empty((len(session.here), *shape), np.uint64)
            for row, party in enumerate(session.here):
                # With the dots it is a view even for a scalar, which shares[row] would copy.
                mine = shares[row, ...]
                if party != self.owner:
                    session.streams[party].pairs[self.owner].fill(mine, self.id)
                    continue
                others = np.empty(shape, np.uint64)
                mine[...] = self.encoded[0]
                for stream in session.streams[party].pairs.values():
                    stream.fill(others, self.id)
                    mine -= others
            self._shares = shares
        return self._shares


@dataclass(frozen=True, repr=False)
class Given:
    """A value as a party has given it, or a view of one.

    Attributes
    ----------
    owner : int
    encoded : uint64 array of shape (1, *S) where the owner lives, else (0, *S)
    """

    base: _Base
    encoded: Words
    views: tuple[View, ...] = ()

    @property
    def owner(self) -> int:
        """The party that has given it."""
        return self.base.owner

    def view(self, view: View) -> Given:
        """Return a view of the value."""
        return replace(
            self, encoded=apply_views(self.encoded, [view], 1), views=(*self.views, view)
        )

    def without_value(self, planned: Session) -> Given:
        """Return the same in a session where no party lives."""
        empty = np.empty((0, *self.base.encoded.shape[1:]), np.uint64)
        base = _Base(planned, self.owner, empty, self.base.id)
        return Given(base, np.empty((0, *self.encoded.shape[1:]), np.uint64), self.views)

    def shares(self) -> Words:
        """Return this process's shares, of shape (p, *S)."""
        return apply_views(self.base.shares(), self.views, 1)


def cost_of_reveal(parties: int, size: int) -> Spent:
    """Declare the cost of revealing `size` elements to all."""
    return Spent(1, 8 * (parties - 1) * size, 0)


def _check_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise DtypeError(
            f"shape of {name} must be a sequence of whole numbers, got {shape!r}"
        ) from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"shape of {name} must not be negative, got {sizes}")
    return sizes


def _check_dtype(dtype: DTypeLike, name: str) -> np.dtype[Any]:
    try:
        return np.dtype(dtype)
    except TypeError as error:
        raise DtypeError(f"dtype of {name} must be a NumPy dtype: {error}") from None


def _as_array(x: ArrayLike | None, dtype: DTypeLike | None, name: str) -> NDArray[Any]:
    values = plain_array(x, name)
    if dtype is None:
        return values
    wanted = _check_dtype(dtype, name)
    if not np.can_cast(values.dtype, wanted, "safe"):
        raise DtypeError(f"{name} must hold what {wanted} holds exactly, got dtype {values.dtype}")
    return values.astype(wanted)


def encoded_limit(limit: object, frac_bits: int, name: str) -> int:
    """Return a bound on magnitudes as one on encoded values, at most what the ring has, or raise.

    Of fixed point it is rounded up, as the value may have been; of whole numbers down.
    """
    if isinstance(limit, (int, np.integer)) and not isinstance(limit, bool):
        exact = Fraction(int(limit))
    else:
        try:
            number = float("not a number" if isinstance(limit, (bool, str)) else limit)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise DtypeError(f"{name} must be a number, got {limit!r}") from None
        if not number > 0:
            raise RangeError(f"{name} must be positive, got {limit!r}")
        exact = Fraction(min(number, 2.0**63))
    if not exact > 0:
        raise RangeError(f"{name} must be positive, got {limit!r}")
    scaled = exact * (1 << frac_bits)
    return min(LARGEST, math.ceil(scaled) if frac_bits else math.floor(scaled))


def _check_bound(x: NDArray[Any], encoded: Words, largest: int, bound: object, name: str) -> None:
    # On the encoded values, of which alone the bound is used.
    signed = encoded.view(np.int64)
    inside = (signed <= largest) & (signed >= -largest)
    if not np.all(inside):
        place = np.unravel_index(int(np.argmax(~inside)), x.shape)
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
) -> tuple[Given, int, int, bool]:
    """Check and encode x; return it, its fractional bits, its bound, and whether it holds bits."""
    given = x is not None
    if given:
        values = _as_array(x, dtype, name)
        if shape is not None and _check_shape(shape, name) != values.shape:
            raise ShapeError(f"{name} must have the shape {tuple(shape)}, got {values.shape}")
        sizes, held = values.shape, values.dtype
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
        held = _check_dtype(float if dtype is None else dtype, name)
    kind = held.kind
    if kind not in "fiub":
        raise DtypeError(f"{name} must hold real numbers, got dtype {held}")
    form = session.format
    frac_bits = form.frac_bits if kind == "f" else 0
    # Whole numbers get the bits behind the point too, so that they fit the same window.
    int_bits = form.frac_bits + form.int_bits - frac_bits
    largest = form.bound
    if bound is not None:
        largest = min(largest, encoded_limit(bound, frac_bits, f"bound of {name}"))
    if kind == "b":
        largest = 1
    encoded = np.empty((0, *sizes), np.uint64)
    if given and owner in session.here:
        encoded = encode(values, frac_bits, int_bits=int_bits, name=name)[np.newaxis]
        if bound is not None:
            _check_bound(values, encoded[0], largest, bound, name)
    return give(session, owner, encoded, frac_bits, largest), frac_bits, largest, kind == "b"


def give(session: Session, owner: int, encoded: Words, frac_bits: int, bound: int) -> Given:
    """Enter an encoded value of a party, of shape (1, *S) where it lives, else (0, *S)."""
    base = _Base(session, owner, encoded)
    session.note("share", base.id, owner, encoded.shape[1:], frac_bits, bound)
    return Given(base, encoded)


def from_public(session: Session, values: ArrayLike, frac_bits: int, bound: int) -> SharedArray:
    """Make shares of public numbers: the first party holds them, the others zeros.

    Nothing about them is secret; what is computed from them and from secrets is.
    """
    from mpc.shared_array import SharedArray  # which imports this module

    encoded = encode(values, frac_bits, int_bits=truncation.OFFSET_BITS - frac_bits - 1)
    shares = np.zeros((len(session.here), *encoded.shape), np.uint64)
    if session.first_row is not None:
        shares[session.first_row] = encoded
    return SharedArray(session, shares, frac_bits, bound)


def reveal(x: SharedArray, to: str | None) -> Any:
    """Open x to all, or to the party named, and decode it."""
    session = x.session
    party = None if to is None else session.number(to, "to")
    x = to_format(x)
    shares = x.shares
    with session.protocol("reveal"):
        opened = (
            session.open((shares, "sum"))[0] if party is None else session.open_to(party, shares)
        )
    if session.here and not len(opened):
        return None
    words = opened[0] if len(opened) else np.zeros(x.shape, np.uint64)
    if x.frac_bits == 0:
        return words.astype(np.int64)[()]
    return decode(words, x.frac_bits)[()]
