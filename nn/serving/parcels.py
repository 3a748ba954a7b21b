"""What a client sends each party: shares of its rows; to parties that watch one another, commitments too.

Semi-honest parties: the last one gets a share of the rows, each other one the seed of its share.

Watched parties (:mod:`mpc.core.watching`) have a share for each role, which both its holders get:

1. The client draws a key k_r for each role r. The shares of all roles but the last are expanded from their
   keys; that of the last one is the rest, x.
2. C_r = SHA-256(k_r), of the last role SHA-256(k_r, x). Party p gets k_p and k_(p+1), all C, and x if
   it holds the last role. It lacks the other keys, so it learns nothing from the C of their roles.
3. Each party compares what it got for its two roles with their C. All C are part of the request's
   key, by which parties agree on requests (:mod:`nn.serving.agreement`). So both holders of each role have
   the same share, or the request is refused, before anything is computed; the session goes on.
4. An answer y is opened under a mask of the client's, rho = sum_r PRG(k_r): role r sends y_r + rho_r. Each
   party lacks the words of a role or more. All send the client y + rho, who takes it if it got the same
   from all.

Source: clients' inputs and outputs as in Damgard, Damgard, Nielsen, Nordholt, Toft 2015, with commitments
in place of tags: every share has two holders, of whom one at least is honest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import ShapeError
from mpc.core.watching import MALICIOUS, SEMI_HONEST, roles_of
from ring import Stream, fresh_key
from ring.streams import KEY_BYTES

__all__ = ["DIFFERENT_SHARES", "Contents", "Parcel", "answer_masks", "pack"]

Words = NDArray[np.uint64]

DIFFERENT_SHARES = "the shares of this request are not those that it commits itself to"

# Numbers of the streams that are expanded from a client's keys.
_ROWS, _ANSWERS = 1, 2
_COMMITMENT_BYTES = 32


@dataclass(frozen=True, repr=False)
class Parcel:
    """What a client sends one party behind a call.

    Attributes
    ----------
    said : tuple of bytes
        The last arguments of the call.
    share : uint64 array of shape (rows, features), or None
        Sent behind the call.
    first_row : uint64 array of shape (p * features,)
        The shares of the first row, of each of the p roles that the party holds.
    """

    said: tuple[bytes, ...]
    share: Words | None
    first_row: Words


def pack(rows: Words, parties: int, watched: bool) -> tuple[list[Parcel], list[bytes]]:
    """Split encoded rows into what each party gets.

    Returns
    -------
    list of Parcel
    list of bytes
        The keys of the mask of the answer; none for semi-honest parties, who send shares.
    """
    rest = rows.copy()
    keys = [fresh_key() for _ in range(parties)]
    first: list[Words] = []
    for key in keys[:-1]:
        share = _expand(key, rows.shape)
        rest -= share
        first.append(share[0].copy())
    first.append(rest[0].copy())
    last = parties - 1
    if not watched:
        said = [*((key,) for key in keys[:-1]), ()]
        shares = [None] * last + [rest]
        return [Parcel(*each) for each in zip(said, shares, first, strict=True)], []
    committed = b"".join(
        commitment(key, rest if role == last else None) for role, key in enumerate(keys)
    )
    parcels = []
    for party in range(parties):
        roles = roles_of(party, MALICIOUS, parties)
        parcels.append(
            Parcel(
                (b"".join(keys[role] for role in roles), committed),
                rest if last in roles else None,
                np.concatenate([first[role] for role in roles]),
            )
        )
    return parcels, keys


def commitment(key: bytes, share: Words | None = None) -> bytes:
    """Return the commitment to a role's key, and to its share where that does not follow from the key."""
    digest = hashlib.sha256(key)
    if share is not None:
        digest.update(np.ascontiguousarray(share, "<u8").data.cast("B"))
    return digest.digest()


def answer_masks(keys: Sequence[bytes], shape: tuple[int, ...]) -> Words:
    """Expand the mask of an answer, a row for each role: its sum hides the answer."""
    masks = np.empty((len(keys), *shape), np.uint64)
    for row, key in zip(masks, keys, strict=True):
        Stream(key).fill(row, _ANSWERS)
    return masks


def _expand(key: bytes, shape: tuple[int, ...]) -> Words:
    share = np.empty(shape, np.uint64)
    Stream(key).fill(share, _ROWS)
    return share


class Contents:
    """What one party got behind a call, before the share that may follow.

    Parameters
    ----------
    said : tuple
        The last arguments of the call.
    party, parties : int
        Its number, and how many parties there are.
    watched : bool

    Attributes
    ----------
    keys : tuple of bytes
        Of its roles: what their shares are expanded from.
    committed : bytes
        The commitments of all roles; empty if the parties are semi-honest.

    Raises
    ------
    ShapeError
        If it is malformed.
    """

    def __init__(self, said: tuple[object, ...], party: int, parties: int, watched: bool) -> None:
        last = parties - 1
        self._roles = roles_of(party, MALICIOUS if watched else SEMI_HONEST, parties)
        self._with_share = self._roles.index(last) if last in self._roles else None
        counts = [KEY_BYTES] if not watched and party != last else []
        if watched:
            counts = [KEY_BYTES * len(self._roles), _COMMITMENT_BYTES * parties]
        sizes = [len(each) if type(each) is bytes else -1 for each in said]
        if sizes != counts:
            raise ShapeError(
                "a prediction needs a key for each of two roles, and the commitments of all"
                if watched
                else "a prediction needs a seed of 16 bytes, at the last party none"
            )
        keys, committed, *_ = (*said, b"", b"")
        assert isinstance(keys, bytes) and isinstance(committed, bytes)
        self.committed = committed
        self.keys = tuple([keys[k : k + KEY_BYTES] for k in range(0, len(keys), KEY_BYTES)])

    @property
    def brings_share(self) -> bool:
        """Whether a share follows in a frame of its own."""
        return self._with_share is not None

    def shares(self, shape: tuple[int, ...], received: Words | None) -> Words | None:
        """Return the shares of the party's p roles, (p, *shape); None if not those committed to."""
        given = [
            received if place == self._with_share else None for place in range(len(self._roles))
        ]
        # All of them before a row is expanded, which takes far longer than a key does.
        for role, key, share in zip(self._roles, self.keys, given, strict=False):
            start = role * _COMMITMENT_BYTES
            wanted = self.committed[start : start + _COMMITMENT_BYTES]
            if self.committed and commitment(key, share) != wanted:
                return None
        found = np.empty((len(self._roles), *shape), np.uint64)
        for place, share in enumerate(given):
            found[place] = _expand(self.keys[place], shape) if share is None else share
        return found
