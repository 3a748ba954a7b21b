"""Sharing a value and revealing one.

Sharing a value x of party j:
1. Party i != j takes x_i = PRG(k_ij, id), from the key that it shares with party j.
2. Party j takes x_j = x - (sum of the other parties' shares), which it can expand, too.
Nothing is sent, so shares are expanded only when a protocol needs them. A value that is used under
masks alone (products, truncation, comparisons: see :mod:`mpc.protocols.masking`) never needs shares:
party j adds its mask to x itself, and the other parties contribute their masks alone.
Cost: no rounds, no bytes.

Revealing [x]:
1. A product z with s fractional bits more than the format is first truncated to x, unless it was before.
   The truncated array is kept with z, so that revealing z again tells no more.
2. Each party sends its share to the parties that are to learn x; they add up the shares.
If a product is truncated for this alone, the value c that truncation opens goes with the shares of r >> s,
in the same round and to those who learn x: see :mod:`mpc.protocols.truncation`.
From a truncated product these parties learn 2^s x + (c mod 2^s) = z + U exactly, with c as truncation
opened it and U = r mod 2^s, uniform in [0, 2^s): less than one unit of x. See
:mod:`mpc.protocols.truncation`.
Parties that watch one another (security="malicious") check what all have sent before this, and again
before the result is used: :mod:`mpc.core.watching`.
Cost: 1 round; 8 (n - 1) bytes an element to reveal to all, 8 to reveal to one; twice as many for a product
that is truncated on the way, and truncation's correction.

Source: additive secret sharing with pseudo-random shares (Cramer, Damgard, Ishai 2005).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.core.known import OwnerInput, Plaintext
from mpc.core.ranges import LARGEST
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.protocols import truncation
from mpc.protocols.truncation import round_later
from ring import decode, encode
from ring.real_arrays import plain_array

__all__ = [
    "cost_of_product",
    "cost_of_reveal",
    "encoded_limit",
    "enter",
    "public_shares",
    "reveal",
    "share",
]

Words = NDArray[np.uint64]


def cost_of_reveal(parties: int, size: int) -> Spent:
    """Declare the cost of revealing `size` elements to all."""
    return Spent(1, 8 * (parties - 1) * size, 0)


def cost_of_product(parties: int, size: int, shift: int) -> Spent:
    """Declare the cost of revealing `size` elements to all that are truncated by `shift` bits for it."""
    correction = truncation.cost(parties, size, shift).correction_bytes
    return Spent(1, 16 * (parties - 1) * size, correction)


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
    """Encode a public bound on magnitudes as an integer of at most 2^62 - 1; raise if it is no bound.

    With fractional bits the bound is rounded up, since encoding may have rounded the largest value
    up. For whole numbers it is rounded down.
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
    # On the encoded values: protocols use the bound of those alone.
    signed = encoded.view(np.int64)
    if signed.max(initial=0) > largest or signed.min(initial=0) < -largest:
        inside = (signed <= largest) & (signed >= -largest)
        place = np.unravel_index(int(np.argmax(~inside)), x.shape)
        where = f" at index {tuple(int(i) for i in place)}" if x.ndim else ""
        raise RangeError(
            f"{name} must be within its bound of {bound} in magnitude, got {x[place]}{where}"
        )


def share(
    session: Runtime,
    x: ArrayLike | None,
    owner: int,
    *,
    shape: Sequence[int] | None,
    dtype: DTypeLike | None,
    bound: float | None,
    name: str,
) -> tuple[Plaintext, int, int, bool]:
    """Check and encode an input x of party `owner`.

    Returns
    -------
    Plaintext
    int
        Fractional bits.
    int
        Bound on the encoded values.
    bool
        Whether x holds bools.
    """
    if x is not None:
        values = _as_array(x, dtype, name)
        if shape is not None and _check_shape(shape, name) != values.shape:
            raise ShapeError(f"{name} must have the shape {tuple(shape)}, got {values.shape}")
        sizes, held = values.shape, values.dtype
    else:
        if owner in session.residents:
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
    fixed_point = session.format
    frac_bits = fixed_point.frac_bits if kind == "f" else 0
    # Whole numbers may use the fractional bits, too: encoded values have the same limit.
    int_bits = fixed_point.frac_bits + fixed_point.int_bits - frac_bits
    largest = fixed_point.bound
    if bound is not None:
        largest = min(largest, encoded_limit(bound, frac_bits, f"bound of {name}"))
    if kind == "b":
        largest = 1
    encoded = np.empty((0, *sizes), np.uint64)
    if x is not None and owner in session.residents:
        encoded = encode(values, frac_bits, int_bits=int_bits, name=name)[np.newaxis]
        if bound is not None:
            _check_bound(values, encoded[0], largest, bound, name)
    return enter(session, owner, encoded, frac_bits, largest), frac_bits, largest, kind == "b"


def enter(session: Runtime, owner: int, encoded: Words, frac_bits: int, bound: int) -> Plaintext:
    """Make an encoded value an input of party `owner`: shape (1, *S) where it lives, else (0, *S)."""
    base = OwnerInput(session, owner, encoded)
    session.note("share", base.id, owner, encoded.shape[1:], frac_bits, bound)
    return Plaintext(base, encoded)


def public_shares(session: Runtime, values: ArrayLike, frac_bits: int) -> Words:
    """Encode public numbers, and return trivial shares: the value at the first party, zeros elsewhere."""
    encoded = encode(values, frac_bits, int_bits=truncation.OFFSET_BITS - frac_bits - 1)
    shares = np.zeros((len(session.here), *encoded.shape), np.uint64)
    if session.first_row is not None:
        shares[session.first_row] = encoded
    return shares


def reveal(x: SecretValue, to: str | None) -> Any:
    """Open x to all parties, or to the party named, and decode it."""
    session = x.session
    party = None if to is None else session.number(to, "to")
    x = round_later(x)
    with session.protocol("reveal"):
        # Before the check: what shares are made of may have to be opened.
        shares = None if x.pending is not None else x.shares
        with session.revealing():
            if shares is None:
                assert x.pending is not None
                opened = x.pending.reveal(party)
            elif party is None:
                (opened,) = session.open((shares, "sum"))
            else:
                opened = session.open_to(party, shares)
    if session.here and not len(opened):
        return None
    words = opened[0] if len(opened) else np.zeros(x.shape, np.uint64)
    if x.frac_bits == 0:
        return words.astype(np.int64)[()]
    return decode(words, x.frac_bits)[()]
