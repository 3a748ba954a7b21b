"""The crypto provider as a process of its own: any number of sessions, told ids and shapes only.

A session begins when all its computing parties have connected and shaken hands: the provider then
shares a fresh key with each. After that the last party sends requests, each an id and a
correlation's sizes, and the provider answers in order with the last party's shares of the
corrected parts. Requests may come ahead of need. The provider stops dealing while more than
``ahead_bytes`` wait to be taken, and stops reading while more than a bounded number of requests
wait to be dealt, so that a session's memory is bounded whatever it asks.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.configuration import Configuration
from mpc.correction_pool import CorrectionPool, check_workers
from mpc.errors import FrameError, PeerError, PeerTimeoutError, ShapeError, SottoError
from mpc.events import record
from mpc.handshake import (
    HEALTH,
    PROTOCOL_VERSION,
    SESSION,
    agree,
    disagreement,
    pair_key,
    read_hello,
    send_hello,
)
from mpc.metrics import present
from mpc.provider import Provider
from mpc.requests import Request, read
from mpc.transport import wire
from mpc.transport.connection import Connection, exchange, wait
from mpc.transport.frames import Kind
from mpc.transport.tls import Listener, bind, own_contexts

__all__ = ["ProviderService"]

Words = NDArray[np.uint64]

_LARGEST_REQUEST = 1 << 22
_MOST_PENDING = 4096
# How often a session that has nothing to do looks whether the service is to stop.
_LOOK_SECONDS = 0.5


@dataclass(repr=False, eq=False)
class _Meeting:
    """The parties of a session, while they arrive and until it is over."""

    id: bytes
    connections: dict[str, Connection] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    corrections: int = 0

    def sent_bytes(self) -> int:
        """What all its parties have been sent."""
        return sum(connection.sent_bytes for connection in tuple(self.connections.values()))


class ProviderService:
    """Serves sessions until it is closed.

    Parameters
    ----------
    read : Configuration
    sock : socket, optional
        Listens at the provider's address already.
    workers : int, default=1
        More than one: corrections are computed by so many joblib workers. ``joblib``'s own
        ``parallel_config``, around the making of this object, chooses where they run.
    memory_limit : int, default=2**30
        Bytes that one correlation may take; larger ones are refused.
    ahead_bytes : int, default=2**26
        Bytes that a session may have waiting for its last party.
    sessions : int, default=64
        How many at once.
    """

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
        self._read = read
        self.workers = check_workers(workers)
        self._limit = memory_limit // 8
        self._pool = CorrectionPool(workers, self._limit) if workers > 1 else None
        self._ahead = ahead_bytes
        self._most = sessions
        self._meetings: dict[bytes, _Meeting] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._started = time.monotonic()
        self._served = 0
        # Of sessions that are over.
        self._corrections = self._sent = 0
        me = read.provider
        assert me.address is not None
        _, server = own_contexts(read, me.name)
        # Its own process may ask for health.
        known = {name: read.members[name].der for name in (*read.parties, me.name)}
        self._listener = Listener(me.name, sock or bind(me.address), server, known, self._admit)
        record("start", role="provider", parties=",".join(read.names))
        present(self.figures)

    def health(self) -> dict[str, Any]:
        """Return how many sessions run and have run, and the seconds since the start."""
        with self._changed:
            running = len(self._meetings)
        return {
            "role": "provider",
            "sessions": running,
            "served": self._served,
            "seconds": int(time.monotonic() - self._started),
        }

    def figures(self) -> dict[str, int]:
        """Return what metrics have of this service beside its events."""
        with self._changed:
            running = tuple(self._meetings.values())
            return {
                "ready": int(not self._stopping),
                "sessions": len(running),
                "corrections": self._corrections + sum(m.corrections for m in running),
                "correction_bytes": self._sent + sum(m.sent_bytes() for m in running),
            }

    def close(self, grace: float = 30.0) -> None:
        """Stop listening, let sessions finish what they have asked for, and end them."""
        self._stopping = True
        self._listener.close()
        deadline = time.monotonic() + grace
        with self._changed:
            while self._meetings and time.monotonic() < deadline:
                self._changed.wait(0.2)
        record("stop", role="provider", served=self._served)

    # A session's beginning.

    def _admit(self, connection: Connection) -> None:
        """Serve one connection of a computing party."""
        mine = {
            "protocol version": PROTOCOL_VERSION,
            "ring": "2^64",
            "parties": self._read.names,
        }
        seconds = self._read.timeouts.connect
        nonce = send_hello(connection, SESSION, mine, b"")
        greeting = read_hello(connection, seconds)
        if greeting.purpose == HEALTH:
            connection.post_bytes(Kind.ANSWER, wire.encode(tuple(self.health().items())))
            exchange([connection], seconds)
            return
        name, me = connection.peer, self._read.provider.name
        if name not in self._read.parties:
            raise FrameError(f"{name} is no computing party and may ask for health alone")
        if not greeting.session:
            raise FrameError(f"{name} did not say which session it belongs to")
        with self._changed:
            meeting = self._meetings.get(greeting.session)
            if meeting is None:
                if len(self._meetings) >= self._most or self._stopping:
                    reason = "shuts down" if self._stopping else f"serves {self._most} sessions"
                    connection.notify(Kind.ABORT, f"{me} {reason} already")
                    return
                meeting = self._meetings[greeting.session] = _Meeting(greeting.session)
            if name in meeting.connections:
                connection.notify(Kind.ABORT, f"{name} is in this session already")
                return
            problem = disagreement(me, mine, name, greeting.terms)
            meeting.problem = meeting.problem or problem
            meeting.keys[name] = pair_key(greeting.session, me, nonce, name, greeting.nonce)
            meeting.connections[name] = connection
            complete = len(meeting.connections) == len(self._read.names)
        if not complete:
            self._wait_for_all(meeting, seconds)
            meeting.over.wait()
            return
        try:
            self._serve(meeting)
        finally:
            self._end(meeting)

    def _wait_for_all(self, meeting: _Meeting, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        names = self._read.names
        while time.monotonic() < deadline and not meeting.over.is_set():
            if len(meeting.connections) == len(names):
                return
            meeting.over.wait(0.05)
        with self._changed:
            missing = [n for n in names if n not in meeting.connections]
            if not missing or meeting.over.is_set():
                return
            problem = f"{', '.join(missing)} did not come to the session within {seconds:g} s"
            for connection in meeting.connections.values():
                connection.notify(Kind.ABORT, problem)
        record("session", warning=True, session=meeting.id.hex()[:8], problem=problem)
        self._end(meeting)

    def _end(self, meeting: _Meeting) -> None:
        with self._changed:
            if self._meetings.pop(meeting.id, None) is not None:
                self._corrections += meeting.corrections
                self._sent += meeting.sent_bytes()
            self._changed.notify_all()
        meeting.over.set()

    # A session.

    def _serve(self, meeting: _Meeting) -> None:
        begin = time.monotonic()
        connections = {n: meeting.connections[n] for n in self._read.names}
        problem = "-"
        try:
            agree(connections, meeting.problem, self._read.timeouts.connect)
            keys = [meeting.keys[name] for name in connections]
            _Dealing(self, meeting, list(connections.values()), keys).run()
        except SottoError as error:
            problem = str(error)
            for connection in connections.values():
                connection.notify(Kind.ABORT, problem)
        except Exception as error:
            problem = type(error).__name__
            for connection in connections.values():
                connection.notify(Kind.ABORT, f"{problem} at the provider")
        finally:
            self._served += 1
            for connection in connections.values():
                connection.close()
            record(
                "session",
                warning=problem != "-",
                session=meeting.id.hex()[:8],
                parties=",".join(connections),
                corrections=meeting.corrections,
                bytes=meeting.sent_bytes(),
                seconds=time.monotonic() - begin,
                problem=problem,
            )


class _Dealing:
    """Requests in, corrections out, for one session and in one thread."""

    def __init__(
        self,
        service: ProviderService,
        meeting: _Meeting,
        connections: list[Connection],
        keys: list[bytes],
    ) -> None:
        self._service, self._meeting = service, meeting
        self._connections, self._last = connections, connections[-1]
        self._keys = tuple(keys)
        self._provider = Provider(keys)
        self._pending: deque[Request] = deque()
        self._last_id = 0

    def run(self) -> None:
        """Serve until the last party says goodbye."""
        service, last = self._service, self._last
        idle = service._read.timeouts.idle
        for connection in self._connections:
            connection.expect_bytes([], 0)
        last.expect_bytes([Kind.REQUEST], _LARGEST_REQUEST)
        heard = time.monotonic()
        while True:
            busy = bool(self._pending) and last.outgoing_bytes <= service._ahead
            try:
                if self._receive(0.0 if busy else _LOOK_SECONDS):
                    heard = time.monotonic()
                    if not busy:
                        continue
            except PeerError:
                if last.ended:
                    return
                raise
            if busy:
                for correction, id in self._deal():
                    last.post(Kind.CORRECTION, [correction], id & 0xFFFFFFFF)
                    last.push()
                    # Where cores are few, whoever has waited for this goes first.
                    os.sched_yield()
                    self._meeting.corrections += 1
                heard = time.monotonic()
            elif service._stopping and not last.outgoing_bytes:
                raise PeerTimeoutError(f"{service._read.provider.name} shuts down")
            elif time.monotonic() - heard > idle:
                raise PeerTimeoutError(f"{last.peer} asked for nothing within {idle:g} s")

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
            for request in read(last.take().data.data):
                if request.id <= self._last_id:
                    raise ShapeError("ids must ascend, none serves twice")
                self._last_id = request.id
                self._pending.append(request)
        except ShapeError as error:
            raise FrameError(f"{last.peer} sent a request that is malformed: {error}") from None
        return True

    def _deal(self) -> Iterator[tuple[Words, int]]:
        """Compute the next correction, or the next few with several workers."""
        service = self._service
        if service._pool is None:
            request = self._pending.popleft()
            correlation = request.correlation(service._limit)
            out = np.empty(correlation.corrected_words, np.uint64)
            self._provider.correct(request.id, correlation, out)
            yield out, request.id
            return
        some: list[Request] = []
        words = 0
        while self._pending and len(some) < 4 * service.workers:
            next_words = self._pending[0].correlation(service._limit).corrected_words
            if some and 8 * (words + next_words) > service._ahead:
                break
            some.append(self._pending.popleft())
            words += next_words
        corrections = service._pool.deal(self._keys, some)
        for request, correction in zip(some, corrections, strict=True):
            yield correction, request.id
