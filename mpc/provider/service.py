"""The crypto provider as a service: any number of sessions, of which it learns ids and shapes only.

Parties meet as :mod:`mpc.provider.meetings` says. After that the last party sends requests, each an id
and a correlation's sizes, and the provider answers in order with the last party's shares of the
corrected parts. Requests may come ahead of need. The provider stops dealing while more than
``ahead_bytes`` of corrections wait to be sent, and stops reading while a fixed number of requests wait,
so that a session's memory is bounded whatever is requested.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import AbortError, FrameError, PeerClosedError, PeerError, ShapeError
from mpc.core.frames import Kind
from mpc.core.keys import provider_streams
from mpc.core.watching import MALICIOUS, SEMI_HONEST, holders, role_streams
from mpc.parties.configuration import Configuration, Member
from mpc.parties.handshake import SIGNED
from mpc.provider.correction_pool import CorrectionPool, check_workers
from mpc.provider.dealer import Provider
from mpc.provider.meetings import Meeting, MeetingService
from mpc.provider.requests import Request, read
from mpc.provider.signed import ProviderSignatures
from mpc.provider.watched import Requests, keys_for, watched_provider
from mpc.transport.connection import Connection, wait
from mpc.transport.signatures import Signer
from ring.streams import NamedStreamBlocks, StreamBlocks

__all__ = ["ProviderService"]

Words = NDArray[np.uint64]

_LARGEST_REQUEST = 1 << 22
_MOST_PENDING = 4096
# How often an idle session checks whether the service is to stop.
_LOOK_SECONDS = 0.25
# When the service is to stop, a session without requests for so long is ended.
_STOP_SECONDS = 3.0


class ProviderService(MeetingService):
    """Serves sessions until it is closed.

    Parameters
    ----------
    read : Configuration
    sock : socket, optional
        A socket that listens at the provider's address already.
    workers : int, default=1
        With more than one, joblib workers compute the corrections. joblib's ``parallel_config``, where
        this object is made, chooses processes or threads of this machine; other backends are
        refused, since keys would leave the machine.
    memory_limit : int, default=2**30
        Bytes of one correlation; larger ones are refused.
    ahead_bytes : int, default=2**26
        Bytes of corrections that may wait for a session's last party.
    sessions : int, default=64
        The most sessions at once.
    """

    role = "provider"

    def __init__(
        self,
        read: Configuration,
        *,
        sock: socket.socket | None = None,
        workers: int = 1,
        memory_limit: int = 1 << 30,
        ahead_bytes: int = 1 << 26,
        sessions: int = 64,
    ) -> None:
        self.workers = check_workers(workers)
        self.limit = memory_limit // 8
        self.pool = CorrectionPool(workers, self.limit) if workers > 1 else None
        self.ahead = ahead_bytes
        super().__init__(read, sock=sock, sessions=sessions)

    @staticmethod
    def member(read: Configuration) -> Member:
        """Return the provider's entry in the configuration."""
        if read.provider is None:
            raise read.lacks_provider()
        return read.provider

    def terms(self) -> dict[str, Any]:
        """Return the terms on which the provider and every party must agree."""
        return {**super().terms(), "security": self.read.security}

    def health(self) -> dict[str, Any]:
        """Return what the service tells of itself, and whether the parties watch one another."""
        told = super().health()
        if self.read.security != SEMI_HONEST:
            told["security"] = self.read.security
        return told

    def figures(self) -> dict[str, int]:
        """Return the figures that metrics show of this service, beside those counted from events."""
        return {
            **super().figures(),
            "corrections": self.counted("corrections"),
            "correction_bytes": self.sent_bytes(),
        }

    def hold(self, meeting: Meeting, connections: Mapping[str, Connection]) -> None:
        """Deal for a session until its last party says goodbye."""
        keys = [meeting.keys[name] for name in connections]
        watched = any(terms.get("security") == MALICIOUS for terms in meeting.terms.values())
        kind = _WatchedDealing if watched else _Dealing
        dealing = kind(self, meeting, list(connections.values()), keys)
        if any(str(terms.get("auditor")).endswith(SIGNED) for terms in meeting.terms.values()):
            key = self.member(self.read).key
            assert key is not None
            dealing.sign(Signer(key))
        dealing.run()

    def reported(self, meeting: Meeting) -> dict[str, int]:
        """Return what the log says of a session that has ended."""
        return {"corrections": meeting.counts["corrections"]}


class _Dealing:
    """Requests in, corrections out, for one session and in one thread."""

    _watched = False

    def __init__(
        self,
        service: ProviderService,
        meeting: Meeting,
        connections: list[Connection],
        keys: list[bytes],
    ) -> None:
        self._service, self._meeting = service, meeting
        self._connections, self._last = connections, connections[-1]
        self._keys = tuple(keys)
        self._provider = self._provider_of(keys)
        self._pending: deque[Request] = deque()
        self._last_id = 0
        self._signatures: ProviderSignatures | None = None

    @staticmethod
    def _provider_of(keys: list[bytes]) -> Provider:
        return Provider(keys)

    def sign(self, signer: Signer) -> None:
        """Sign each part from now on."""
        self._signatures = ProviderSignatures(
            self._meeting.id,
            signer.sign,
            self._streams(),
            self._service.limit,
        )

    def _streams(self) -> list[tuple[StreamBlocks, NamedStreamBlocks]]:
        return [provider_streams(key) for key in self._keys]

    def run(self) -> None:
        """Serve until the last party says goodbye, however long it sends no request."""
        service, last = self._service, self._last
        for connection in self._connections:
            connection.expect_bytes([], 0)
        last.expect_bytes([Kind.REQUEST], _LARGEST_REQUEST)
        announced, quiet_since = False, 0.0
        while True:
            busy = bool(self._pending) and last.outgoing_bytes <= service.ahead
            try:
                came = self._receive(0.0 if busy else _LOOK_SECONDS)
            except PeerError:
                if last.ended:
                    return
                raise
            if busy:
                self._answer()
            if service.stopping:
                if not announced:
                    announced, quiet_since = True, time.monotonic()
                    self._announce_stop()
                if came or busy or last.outgoing_bytes:
                    quiet_since = time.monotonic()
                # Party services end their session themselves, after the requests that they have begun.
                now = time.monotonic()
                if now >= service.deadline or now >= quiet_since + _STOP_SECONDS:
                    raise PeerClosedError(f"{service.me} shuts down")

    def _answer(self) -> None:
        for correction, id in self._deal():
            self._post(self._last, correction, id, self._signature(correction))
            self._last.push()
            # With few cores, let the party that waits for this correction run first.
            os.sched_yield()
            self._meeting.counts["corrections"] += 1

    def _signature(self, correction: Words) -> bytes | None:
        return None if self._signatures is None else self._signatures.dealt(correction)

    @staticmethod
    def _post(link: Connection, correction: Words, id: int, signature: bytes | None) -> None:
        link.post(Kind.CORRECTION, [correction], id & 0xFFFFFFFF)
        if signature is not None:
            link.post_bytes(Kind.SIGNED, signature)

    def _announce_stop(self) -> None:
        """Announce the stop to all parties but the last, which expects corrections alone."""
        for connection in self._connections:
            if connection is not self._last:
                connection.post_bytes(Kind.NOTICE, b"")

    def _receive(self, seconds: float) -> bool:
        """Move frames; take in requests. Returns whether anything came."""
        last = self._last
        if not last.expecting and len(self._pending) < _MOST_PENDING:
            last.expect_bytes([Kind.REQUEST], _LARGEST_REQUEST)
        for connection in self._connections[:]:
            if connection.ended and connection is not last:
                self._connections.remove(connection)
        try:
            ready = wait(self._connections, seconds)
        except PeerError:
            # A party that has finished before the last one does not end the session.
            if any(c.ended for c in self._connections if c is not last) and not last.ended:
                return True
            raise
        if last not in ready:
            return False
        try:
            self._take_in(last.take().data.tobytes())
        except ShapeError as error:
            raise FrameError(f"{last.peer} sent a request that is malformed: {error}") from None
        return True

    def _take_in(self, frame: bytes) -> None:
        before = len(self._pending)
        for request in read(frame):
            if request.id <= self._last_id:
                raise ShapeError("ids must ascend, none serves twice")
            self._last_id = request.id
            self._pending.append(request)
        if self._signatures is not None:
            self._signatures.requested(frame, len(self._pending) - before)

    def _deal(self) -> Iterator[tuple[Words, int]]:
        """Compute the next correction, or the next few with several workers."""
        service = self._service
        if service.pool is None:
            request = self._pending.popleft()
            correlation = request.correlation(service.limit)
            out = np.empty(correlation.corrected_words, np.uint64)
            self._provider.correct(request.id, correlation, out)
            yield out, request.id
            return
        some: list[Request] = []
        words = 0
        while self._pending and len(some) < 4 * service.workers:
            next_words = self._pending[0].correlation(service.limit).corrected_words
            if some and 8 * (words + next_words) > service.ahead:
                break
            some.append(self._pending.popleft())
            words += next_words
        corrections = service.pool.deal(self._keys, some, self._watched)
        for request, correction in zip(some, corrections, strict=True):
            yield correction, request.id


class _WatchedDealing(_Dealing):
    """As _Dealing, for parties who watch one another: :mod:`mpc.provider.watched`."""

    _watched = True

    def __init__(
        self,
        service: ProviderService,
        meeting: Meeting,
        connections: list[Connection],
        keys: list[bytes],
    ) -> None:
        super().__init__(service, meeting, connections, keys)
        self._left = dict(enumerate(connections))
        self._requests = Requests(len(connections))
        self._holders = holders(len(connections))

    @staticmethod
    def _provider_of(keys: list[bytes]) -> Provider:
        return watched_provider(keys)

    def _streams(self) -> list[tuple[StreamBlocks, NamedStreamBlocks]]:
        each = [role_streams(key, len(self._keys)) for key in self._keys]
        return [(streams.masks, streams.corrections) for streams in each]

    def run(self) -> None:
        """Send each party its keys, and serve until all have said goodbye."""
        service = self._service
        for party, connection in self._left.items():
            connection.post_bytes(Kind.KEYS, keys_for(self._keys, party))
        receivers = [self._connections[party] for party in self._holders]
        quiet_since = time.monotonic()
        while self._left:
            busy = bool(self._pending) and all(
                each.outgoing_bytes <= service.ahead for each in receivers
            )
            came = self._receive(0.0 if busy else _LOOK_SECONDS)
            if busy:
                self._answer()
            now = time.monotonic()
            if came or busy or not service.stopping:
                quiet_since = now
            elif now >= service.deadline or now >= quiet_since + _STOP_SECONDS:
                raise PeerClosedError(f"{service.me} shuts down")

    def _answer(self) -> None:
        for correction, id in self._deal():
            signature = self._signature(correction)
            for party in self._holders:
                if party in self._left:
                    self._post(self._left[party], correction, id, signature)
                    self._push(party)
            os.sched_yield()
            self._meeting.counts["corrections"] += 1

    def _push(self, party: int) -> None:
        try:
            self._left[party].push()
        except PeerClosedError:
            del self._left[party]

    def _receive(self, seconds: float) -> bool:
        """Move frames; take in what all parties have asked for. Returns whether anything came."""
        for party, connection in self._left.items():
            count, size = self._requests.ahead(party)
            room = count < _MOST_PENDING and size <= _LARGEST_REQUEST
            if room and not connection.expecting and len(self._pending) < _MOST_PENDING:
                connection.expect_bytes([Kind.REQUEST], _LARGEST_REQUEST)
        try:
            ready = wait(tuple(self._left.values()), seconds)
        except PeerError:
            # Parties finish one after another.
            if not any(connection.ended for connection in self._left.values()):
                raise
            self._left = {p: c for p, c in self._left.items() if not c.ended}
            return True
        for party, connection in self._left.items():
            if connection in ready:
                for frame in self._requests.add(party, connection.take().data.tobytes()):
                    try:
                        self._take_in(frame)
                    except ShapeError:
                        # Two parties at least are honest, and they have sent it: no frame was read.
                        raise AbortError from None
        return bool(ready)
