"""Digests of rows of shares: what is written to files of shares, and can be named and compared.

The digest of a role's row is the SHA-256 of 32 random bytes of salt, of the digest of all that is public
beside it, and of the row. All parties get the digests of all roles. The salt stays with whoever holds the
row. Without it a digest tells nothing, so it may be published: else who has all rows but this one, as a
client or the provider may, could try guesses of the values.

Semi-honest parties hold a row each and draw its salt. Of watched parties (:mod:`mpc.core.watching`) two
hold each row. Their salt follows from the key of these two. So the digest is a message of the role, that
one of them sends and the other one computes, and is checked like any other: then both have the same row,
the right one, and the other parties have the digest of this one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session
from ring.errors import DataError

__all__ = ["DIGEST_BYTES", "check_rows", "commit", "digest_of"]

Words = NDArray[np.uint64]
Salts = NDArray[np.uint8]

DIGEST_BYTES = 32
"""Of SHA-256, and of a salt."""


def digest_of(arrays: Mapping[str, NDArray[Any]], *first: bytes) -> bytes:
    """Return the SHA-256 of some bytes, and of arrays with their names, in the order of these."""
    found = hashlib.sha256()
    for each in first:
        found.update(len(each).to_bytes(8, "big") + each)
    for name in sorted(arrays):
        array = arrays[name]
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        head = f"{name} {little.dtype.str} {little.shape}".encode()
        found.update(len(head).to_bytes(8, "big") + head + little.tobytes())
    return found.digest()


def _digest_of_row(
    role: int, salt: bytes, public: bytes, rows: Mapping[str, Words], k: int
) -> bytes:
    own = {name: words[k] for name, words in rows.items()}
    return digest_of(own, b"sotto row", bytes([role]), salt, public)


def commit(
    session: Session, public: bytes, rows: Mapping[str, Words]
) -> tuple[Salts, tuple[bytes, ...]]:
    """Draw salts of the rows that are here, and tell all parties the digests of all roles.

    Watched parties check each other, so that what is written then is right.

    Parameters
    ----------
    session : Session
    public : bytes
        A digest of what is public beside the rows.
    rows : dict of str to uint64 array of shape (p, *S)
        Shares of arrays, the rows of the roles that are here.

    Returns
    -------
    uint8 array of shape (p, 32)
        The salts.
    tuple of bytes
        The digest of each role; none in a plan.

    Raises
    ------
    AbortError
        If a watched party has deviated, now or before.

    Notes
    -----
    1 round, 32 bytes to each other party; with ``security="malicious"`` 2 rounds, 64 bytes; of n
    parties 48 n - 80 bytes.
    """
    # Parties that differ in what is public run different programs: that is no deviation.
    session.note("commit", public)
    watch, number = session.watch, session.fresh_id()
    salts = [
        secrets.token_bytes(DIGEST_BYTES) if watch is None else watch.salt(role, number)
        for role in session.here
    ]
    own = {
        role: np.frombuffer(_digest_of_row(role, salt, public, rows, k), "<u8")
        for k, (role, salt) in enumerate(zip(session.here, salts, strict=True))
    }
    nothing = np.empty((0, DIGEST_BYTES // 8), np.uint64)
    messages = [
        (own[role].astype(np.uint64)[None] if role in own else nothing, role)
        for role in range(session.size)
    ]
    opened = session.open(*messages)
    session.check_each_other()
    digests = tuple(words[0].astype("<u8").tobytes() for words in opened if len(words))
    return np.frombuffer(b"".join(salts), np.uint8).reshape(-1, DIGEST_BYTES), digests


def check_rows(
    roles: Sequence[int],
    salts: NDArray[Any],
    public: bytes,
    rows: Mapping[str, NDArray[Any]],
    digests: Sequence[bytes],
) -> None:
    """Raise DataError unless the rows of some roles are those of which these are the digests.

    `rows` have the shape (roles, ...), `digests` are those of all roles.
    """
    if salts.dtype != np.uint8 or salts.shape != (len(roles), DIGEST_BYTES):
        raise DataError(f"it must have {DIGEST_BYTES} bytes of salt for each row of shares")
    for k, (role, salt) in enumerate(zip(roles, salts, strict=True)):
        if _digest_of_row(role, salt.tobytes(), public, rows, k) != digests[role]:
            raise DataError("its shares are not those of its digests: they were changed since")
