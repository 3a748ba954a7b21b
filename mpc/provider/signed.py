"""What the provider signs of a part, so that a cheat can be shown to others.

A statement names the session, the part's number, its requests with their ids, the keys of all blocks that
it follows from, by their hashes, and the corrections. It comes behind the corrections, and before the
auditor draws whether to check them. Without the requests and the keys an honest provider could be framed,
by the corrections of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core import wire
from mpc.core.errors import ShapeError
from mpc.provider.audit import Needed, blocks_needed, requests_of
from mpc.transport.signatures import is_signed
from ring.streams import NamedStreamBlocks, StreamBlocks

__all__ = ["ProviderSignatures", "SignedParts", "hashes_of", "own_hashes", "statement"]

Words = NDArray[np.uint64]

_HASH_BYTES = 32


def statement(session: bytes, number: int, frame: bytes, hashes: bytes, digest: bytes) -> bytes:
    """Return what the provider signs.

    Parameters
    ----------
    session : bytes
        The session id.
    number : int
        Which part of the session it is.
    frame : bytes
        The requests.
    hashes : bytes
        SHA-256 of each key, see :func:`hashes_of`, one behind the other.
    digest : bytes
        SHA-256 of the corrections.
    """
    what = ("sotto corrections", session, number, sha256(frame).digest(), hashes, digest)
    return wire.encode(what)


def hashes_of(keys: Sequence[tuple[Sequence[bytes], Sequence[bytes]]]) -> bytes:
    """Return the hashes of each party's keys of masks, and then of corrections."""
    each = (key for masks, corrections in keys for key in (*masks, *corrections))
    return b"".join(sha256(key).digest() for key in each)


def own_hashes(hashes: bytes, needed: Sequence[Needed], party: int) -> bytes:
    """Return those of one party; wrong sizes are an empty result."""
    counts = [len(blocks.masks) + len(blocks.corrections) for blocks in needed]
    if len(hashes) != _HASH_BYTES * sum(counts):
        return b""
    first = _HASH_BYTES * sum(counts[:party])
    return hashes[first : first + _HASH_BYTES * counts[party]]


def _bytes_of(words: Words) -> Any:
    return words.astype("<u8", copy=False).data


class SignedParts:
    """The last party's side: the digest of the corrections that come, and the signatures of parts.

    Parameters
    ----------
    session : bytes
    certificates : sequence of bytes
        Of the provider, in DER.
    """

    def __init__(self, session: bytes, certificates: Sequence[bytes]) -> None:
        self._session, self._certificates = session, certificates
        self._digest = sha256()

    def add(self, words: Words) -> None:
        """Add the next correction of a part."""
        self._digest.update(_bytes_of(words))

    def read(self, data: Any, number: int, frame: bytes) -> tuple[bytes, bytes, bytes]:
        """Return hashes of keys, signature and digest of a part, from what the provider has sent.

        Raises
        ------
        ShapeError
            If it is no signature of the provider's, of what has come.
        """
        digest, self._digest = self._digest.digest(), sha256()
        found = wire.decode(data)
        if type(found) is not tuple or [type(value) for value in found] != [bytes, bytes]:
            raise ShapeError("something else than a signature")
        hashes, signature = found
        said = statement(self._session, number, frame, hashes, digest)
        if not is_signed(said, signature, self._certificates):
            raise ShapeError(
                "a signature that is not its own, or of something else than it has sent"
            )
        return hashes, signature, digest


class ProviderSignatures:
    """The provider's signatures of the parts of a session.

    Parameters
    ----------
    session : bytes
    sign : callable
        Returns the signature of a message.
    streams : sequence of (StreamBlocks, NamedStreamBlocks)
        Of each party.
    limit : int
        Words that one correlation may have.
    """

    def __init__(
        self,
        session: bytes,
        sign: Callable[[bytes], bytes],
        streams: Sequence[tuple[StreamBlocks, NamedStreamBlocks]],
        limit: int,
    ) -> None:
        self._session, self._sign, self._streams, self._limit = session, sign, streams, limit
        self._frames: list[tuple[bytes, int]] = []
        self._number = self._dealt = 0
        self._digest = sha256()

    def requested(self, frame: bytes, requests: int) -> None:
        """Note a part that was asked for."""
        if requests:
            self._frames.append((frame, requests))

    def dealt(self, words: Words) -> bytes | None:
        """Take in a correction; behind the last one of a part, return hashes of keys and the signature."""
        self._digest.update(_bytes_of(words))
        self._dealt += 1
        frame, requests = self._frames[0]
        if self._dealt < requests:
            return None
        del self._frames[0]
        needed = blocks_needed(requests_of(frame, self._limit), len(self._streams))
        hashes = hashes_of(
            [
                (
                    [masks.key(block) for block in blocks.masks],
                    [corrections.key(block) for block in blocks.corrections],
                )
                for (masks, corrections), blocks in zip(self._streams, needed, strict=True)
            ]
        )
        said = statement(self._session, self._number, frame, hashes, self._digest.digest())
        self._dealt, self._number, self._digest = 0, self._number + 1, sha256()
        return wire.encode((hashes, self._sign(said)))
