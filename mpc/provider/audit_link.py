"""A party's side of audits: it opens keys of blocks, and uses no correction that is not cleared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core import wire
from mpc.core.errors import (
    AuditError,
    FrameError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
    ShapeError,
)
from mpc.core.frames import Kind
from mpc.core.keys import PartyStreams
from mpc.core.watching import holders
from mpc.provider.audit import CorrectionTag, Needed, blocks_needed, requests_of, runs_of
from mpc.provider.requests import RequestedPart
from mpc.provider.signed import SignedParts, hashes_of, own_hashes
from mpc.transport.connection import Background, Connection, exchange
from ring.streams import block_of

__all__ = ["AuditLink", "LastPartyLink", "WatchedLink"]

Words = NDArray[np.uint64]

_LARGEST_MESSAGE = 1 << 18
_WORDS = 1 << 62


def _nothing() -> None:
    """Return None."""


class AuditLink:
    """A party's connection to the auditor, which goes on while the party waits for others.

    Parameters
    ----------
    connection : Connection
    provider : str
        Whom the auditor checks.
    streams : dict of int to PartyStreams
        The party's, under its number; of a watched party also those of the role that it watches.
    timeout : float
        Seconds without a byte after which the auditor counts as lost.

    Attributes
    ----------
    cleared : int
        Corrections of ids up to this one may be used.
    explain : callable
        Returns why the session has ended, as another party has said, or None.
    """

    def __init__(
        self,
        connection: Connection,
        provider: str,
        streams: Mapping[int, PartyStreams],
        timeout: float,
    ) -> None:
        self.connection, self._provider = connection, provider
        self._streams, self._timeout = streams, timeout
        self.cleared = 0
        self.explain: Callable[[], PeerError | None] = _nothing
        self._left = ""
        self._expect()

    @property
    def connections(self) -> Sequence[Connection]:
        """The connection, as :class:`mpc.transport.connection.Background` has it."""
        return (self.connection,)

    def advance(self) -> None:
        """Answer what the auditor has asked for, without waiting.

        Raises
        ------
        AuditError
            If the provider has dealt wrongly.
        PeerError
            If the auditor is lost.
        """
        while self.connection.advance():
            self._take()

    def wait(self, id: int, background: Background | None = None) -> None:
        """Wait until the correction of an id is cleared; raise as :meth:`advance`.

        `background` goes on meanwhile.
        """
        while self.cleared < id:
            if self._left:
                raise self.explain() or PeerClosedError(
                    f"{self._left} ended the session before {self.connection.peer} had checked what"
                    f" {self._provider} dealt"
                )
            exchange([self.connection], self._timeout, background)
            self._take()
        self.advance()

    def _expect(self) -> None:
        self.connection.expect_bytes([Kind.AUDIT], _LARGEST_MESSAGE)

    def _take(self) -> None:
        message = self._read()
        self._expect()
        what, *rest = message
        if what == "clear" and _are_numbers(rest, 1) and rest[0] > self.cleared:
            self._clear(rest[0])
        elif (
            what == "open"
            and [type(value) for value in rest] == [bytes, tuple, *self._blocks]
            and all(map(_is_ascending, rest[1:]))
        ):
            self._open(rest[0], rest[1], *_pairs(rest[2:]))
        elif (
            what == "signed"
            and [type(value) for value in rest] == [*self._blocks, bytes]
            and all(map(_is_ascending, rest[:-1]))
        ):
            self._compare(rest[-1], *_pairs(rest[:-1]))
        elif what == "wrong" and _are_numbers(rest, 2):
            first, last = rest
            raise AuditError(
                f"{self._provider} has dealt wrongly for ids {first} to {last} (blocks"
                f" {block_of(first)} to {block_of(last)}), as {self.connection.peer} has found"
            )
        elif what == "left" and len(rest) == 1 and type(rest[0]) is str:
            self._left = rest[0]
        else:
            raise FrameError(f"{self.connection.peer} sent a message that is malformed")

    def _read(self) -> tuple[Any, ...]:
        try:
            message = wire.decode(self.connection.take().data.data)
        except ShapeError:
            message = None
        if type(message) is not tuple or not message:
            raise FrameError(f"{self.connection.peer} sent a message that is malformed")
        return message

    def _clear(self, id: int) -> None:
        self.cleared = id

    def _open(self, tags: bytes, picked: tuple[int, ...], *blocks: Needed) -> None:
        """Send the keys of blocks. Whoever has them learns of these blocks what the provider knows."""
        keys = chain.from_iterable(self._keys(blocks))
        self._post(("keys", *(b"".join(each) for each in keys)))

    def _compare(self, hashes: bytes, *blocks: Needed) -> None:
        """Compare hashes that the provider has signed with those of the keys that it shares with us."""
        if hashes != hashes_of(self._keys(blocks)):
            raise FrameError(f"{self._provider} sent a signature of other keys")

    @property
    def _blocks(self) -> list[type]:
        """The types of what names blocks in a message: of masks and of corrections, for each role here."""
        return [tuple, tuple] * len(self._streams)

    def _keys(self, blocks: Sequence[Needed]) -> list[tuple[list[bytes], list[bytes]]]:
        """Return the keys of blocks of each role here: of masks, and of corrections."""
        try:
            return [
                (
                    [streams.masks.key(block) for block in each.masks],
                    [streams.corrections.key(block) for block in each.corrections],
                )
                for streams, each in zip(self._streams.values(), blocks, strict=True)
            ]
        except ShapeError as error:
            raise FrameError(
                f"{self.connection.peer} named blocks that are none: {error}"
            ) from None

    def _post(self, message: tuple[Any, ...]) -> None:
        self.connection.post_bytes(Kind.AUDIT, wire.encode(message))
        self.connection.push()


class LastPartyLink(AuditLink):
    """The last party's: it sends a tag of each part's corrections, once all of them are here.

    Parameters
    ----------
    connection, provider, streams, timeout
        As for :class:`AuditLink`.
    key : bytes
        Of the tags.
    parties : int
    """

    def __init__(
        self,
        connection: Connection,
        provider: str,
        streams: Mapping[int, PartyStreams],
        timeout: float,
        key: bytes,
        parties: int,
    ) -> None:
        super().__init__(connection, provider, streams, timeout)
        self._key, self._parties = key, parties
        # Parts that corrections are awaited for, and parts that the auditor has not cleared.
        self._requested: deque[RequestedPart] = deque()
        self._bound: deque[tuple[RequestedPart, bytes]] = deque()
        self._tag: CorrectionTag | None = None
        # Of the runs of the part that come before.
        self._tags = b""
        self._arrived = self._numbers = 0
        self._signed: SignedParts | None = None
        self.bound = 0
        """Corrections of ids up to this one are bound by tags."""

    def check_signatures(self, session: bytes, certificates: Sequence[bytes]) -> None:
        """Have the provider, whose certificates these are, sign each part."""
        self._signed = SignedParts(session, certificates)

    @property
    def signs(self) -> bool:
        """Whether the provider signs each part."""
        return self._signed is not None

    @property
    def awaits_signature(self) -> bool:
        """Whether the provider's signature comes next."""
        return self._signed is not None and bool(self._arrived) and self._is_whole()

    def _is_whole(self) -> bool:
        return self._arrived == self._requested[0].requests

    def requested(self, part: RequestedPart) -> None:
        """Note a part that the provider is asked for."""
        self._requested.append(part)

    def arrived(self, words: Words) -> None:
        """Take in the next correction that has come; with the last one of a part, send the tag."""
        if self._tag is None:
            self._tag = CorrectionTag(self._key, self._numbers)
            self._numbers += 1
        self._tag.add(words)
        self._arrived += 1
        if self._signed is not None:
            self._signed.add(words)
            return
        part = self._requested[0]
        if self._arrived % (part.requests // part.runs) == 0:
            self._end_run()
            if self._is_whole():
                self._bind(())

    def _end_run(self) -> None:
        """End the tag of a run: the next correction belongs to another."""
        assert self._tag is not None
        self._tags, self._tag = self._tags + self._tag.end(), None

    def signed(self, data: Any) -> None:
        """Take in the provider's signature of a part, and send it on with the tag.

        Raises
        ------
        FrameError
            If it is not a signature of what has come, or of this party's keys.
        """
        assert self._signed is not None
        frame = self._requested[0].frame
        needed = blocks_needed(requests_of(frame, _WORDS), self._parties)
        try:
            hashes, signature, digest = self._signed.read(data, self._numbers - 1, frame)
        except ShapeError as error:
            raise FrameError(f"{self._provider} sent {error}") from None
        mine = [own_hashes(hashes, needed, role) for role in self._streams]
        self._compare(b"".join(mine), *(needed[role] for role in self._streams))
        self._end_run()
        self._bind((hashes, digest, signature))

    def _bind(self, signed: tuple[bytes, ...]) -> None:
        """Send the auditor a part whose corrections are here."""
        part, tags = self._requested.popleft(), self._tags
        self._bound.append((part, tags))
        self._post(("part", self._asked(part.frame), part.last, tags, *signed))
        self._tags, self._arrived, self.bound = b"", 0, part.last

    def _asked(self, frame: bytes) -> bytes:
        """Return what to say of the requests of a part."""
        return frame

    def _clear(self, id: int) -> None:
        if id > self.bound:
            raise FrameError(f"{self.connection.peer} cleared corrections that it was not told of")
        super()._clear(id)
        while self._bound and self._bound[0][0].last <= id:
            self._bound.popleft()

    def _open(self, tags: bytes, picked: tuple[int, ...], *blocks: Needed) -> None:
        # Who can name the tags has not asked before the corrections were bound.
        part, bound = self._bound[0] if self._bound else (None, b"")
        if (
            part is None
            or tags != bound
            or not picked
            or picked[-1] >= part.runs
            or list(blocks) != self._needed(part, picked)
        ):
            raise FrameError(
                f"{self.connection.peer} asked for keys of blocks that are not those of the next part"
            )
        super()._open(tags, picked, *blocks)

    def _needed(self, part: RequestedPart, picked: Sequence[int]) -> list[Needed]:
        *_, runs = runs_of(part.frame, _WORDS, part.runs, picked)
        needed = blocks_needed(list(chain.from_iterable(runs)), self._parties)
        return [needed[role] for role in self._streams]


class WatchedLink(LastPartyLink):
    """A watched party's: it names each part that it has asked for, see :mod:`mpc.provider.announced`.

    Parameters
    ----------
    connection, provider, streams, timeout, key, parties
        As for :class:`LastPartyLink`; the key has both who get corrections.
    signs : bool
        Whether the provider signs each part.
    """

    def __init__(
        self,
        connection: Connection,
        provider: str,
        streams: Mapping[int, PartyStreams],
        timeout: float,
        key: bytes,
        parties: int,
        signs: bool,
    ) -> None:
        super().__init__(connection, provider, streams, timeout, key, parties)
        self._signs = signs
        me = next(iter(streams))
        self._names_requests = me == parties - 1
        self._receives = me in holders(parties)

    @property
    def signs(self) -> bool:
        """Whether the provider signs each part, for those who get corrections."""
        return self._signs

    def requested(self, part: RequestedPart) -> None:
        """Note a part that the provider is asked for; who gets no corrections has nothing to wait for."""
        super().requested(part)
        if not self._receives:
            self._bind(())

    def wait(self, id: int, background: Background | None = None) -> None:
        """As :meth:`AuditLink.wait`; in time it may be any of the others who is late."""
        try:
            super().wait(id, background)
        except PeerTimeoutError as error:
            raise PeerTimeoutError(
                f"{error}: {self.connection.peer} clears what all parties have told it of"
            ) from None

    def _asked(self, frame: bytes) -> bytes:
        return frame if self._names_requests else sha256(frame).digest()

    def _open(self, tags: bytes, picked: tuple[int, ...], *blocks: Needed) -> None:
        # Who gets no corrections has said no tags.
        super()._open(tags if self._receives else b"", picked, *blocks)


def _pairs(blocks: Sequence[tuple[int, ...]]) -> Iterator[Needed]:
    """Yield the blocks of each role: of masks, and of corrections."""
    return map(Needed, blocks[::2], blocks[1::2])


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    return len(values) == count and all(type(value) is int for value in values)


def _is_ascending(blocks: Any) -> bool:
    """Whether a value is a tuple of the numbers of different blocks, in their order."""
    if type(blocks) is not tuple or not _are_numbers(blocks, len(blocks)):
        return False
    return all(a < b for a, b in zip((-1, *blocks), blocks, strict=False)) and max(
        blocks, default=0
    ) < (1 << 63)
