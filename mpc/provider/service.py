"""The crypto provider as a service: any number of sessions, of which it learns ids and shapes only.

A session begins when all its computing parties have connected and shaken hands: the provider then
shares a fresh key with each. After that the last party sends requests, each an id and a
correlation's sizes, and the provider answers in order with the last party's shares of the
corrected parts. Requests may come ahead of need. The provider stops dealing while more than
``ahead_bytes`` of corrections wait to be sent, and stops reading while a fixed number of requests wait,
so that a session's memory is bounded whatever is requested.
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

from mpc.core import wire
from mpc.core.errors import (
    FrameError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
    ShapeError,
    SottoError,
)
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.parties.configuration import Configuration
from mpc.parties.expiry import warn_of_certificates
from mpc.parties.handshake import (
    HEALTH,
    PROTOCOL_VERSION,
    SESSION,
    agree,
    disagreement,
    expect_ready,
    hear_hello,
    pair_key,
    send_hello,
)
from mpc.parties.metrics import present
from mpc.parties.tls import own_contexts
from mpc.provider.correction_pool import CorrectionPool, check_workers
from mpc.provider.dealer import Provider
from mpc.provider.requests import Request, read
from mpc.transport.addresses import bind
from mpc.transport.connection import Connection, wait
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, By, Seat, Talk, farewell

__all__ = ["ProviderService"]

Words = NDArray[np.uint64]

_LARGEST_REQUEST = 1 << 22
_MOST_PENDING = 4096
# How often an idle session checks whether the service is to stop.
_LOOK_SECONDS = 0.25
# When the service is to stop, a session without requests for so long is ended.
_STOP_SECONDS = 3.0


@dataclass(repr=False, eq=False)
class _Meeting:
    """The parties of a session, while they arrive and until it is over."""

    id: bytes
    connections: dict[str, Connection] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""
    complete: bool = False
    corrections: int = 0

    def sent_bytes(self) -> int:
        """Bytes sent to all parties of the session."""
        return sum(connection.sent_bytes for connection in tuple(self.connections.values()))


class ProviderService:
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
        self.read = read
        self.workers = check_workers(workers)
        self._limit = memory_limit // 8
        self._pool = CorrectionPool(workers, self._limit) if workers > 1 else None
        self._ahead = ahead_bytes
        self._most = sessions
        # Only the listener's thread adds meetings.
        self._meetings: dict[bytes, _Meeting] = {}
        self._changed = threading.Condition()
        # By when all sessions must be over, once the service is to stop; infinite before that.
        self._deadline = float("inf")
        self._started = time.monotonic()
        self._served = 0
        # Sums over the sessions that have ended.
        self._corrections = self._sent = 0
        me = read.provider
        if me is None:
            raise read.lacks_provider()
        assert me.listen is not None
        self.me = me.name
        _, server = own_contexts(read, me.name)
        self._listener = Listener(
            me.name, sock or bind(me.listen), server, self._known(), self._admit
        )
        self._listener.start()
        record("start", role="provider", parties=",".join(read.names))
        present(self.figures, lambda: self.read)

    def _known(self) -> dict[str, tuple[bytes, ...]]:
        # The provider's own certificate, too: `sotto health --me provider` uses it.
        read = self.read
        return {name: read.members[name].accepted for name in (*read.parties, self.me)}

    @property
    def _stopping(self) -> bool:
        return self._deadline < float("inf")

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
        """Return the figures that metrics show of this service, beside those counted from events."""
        with self._changed:
            running = tuple(self._meetings.values())
            return {
                "ready": int(not self._stopping),
                "sessions": len(running),
                "corrections": self._corrections + sum(m.corrections for m in running),
                "correction_bytes": self._sent + sum(m.sent_bytes() for m in running),
            }

    def reload(self, read: Configuration) -> None:
        """Accept the certificates of this configuration, and no others, from now on."""
        if read.provider is None:
            raise read.lacks_provider()
        _, server = own_contexts(read, self.me)
        self.read = read
        self._listener.know(server, self._known())
        record("reload", me=self.me)
        warn_of_certificates(read)

    def close(self, grace: float = 4.0) -> None:
        """Stop listening, announce the stop, and end each session when it is idle, or after `grace` s."""
        self._deadline = time.monotonic() + grace
        self._listener.loop.call(self._shut)
        with self._changed:
            while self._meetings and time.monotonic() < self._deadline + 0.5:
                self._changed.wait(0.05)
        self._listener.close(0.5)
        record("stop", role="provider", served=self._served)

    def _shut(self) -> None:
        """Stop listening, and dismiss parties whose sessions have not begun. In the listener's thread."""
        self._listener.shut()
        loop, problem = self._listener.loop, f"{self.me} shuts down"
        for meeting in tuple(self._meetings.values()):
            for seat in () if meeting.complete else tuple(meeting.seats.values()):
                loop.detach(seat)
                if (last := farewell(seat.line, problem)) is not None:
                    loop.add(*last)

    # A session's beginning.

    def _admit(self, connection: Connection) -> Talk:
        """Attend to one connection of a computing party."""
        mine = {
            "protocol version": PROTOCOL_VERSION,
            "ring": "2^64",
            "parties": self.read.names,
        }
        seconds = self.read.timeouts.connect
        nonce = send_hello(connection, SESSION, mine, b"")
        greeting = yield from hear_hello(connection, seconds)
        if greeting.purpose == HEALTH:
            connection.post_bytes(Kind.ANSWER, wire.encode(tuple(self.health().items())))
            yield seconds
            return None
        name, me = connection.peer, self.me
        if name not in self.read.parties:
            raise FrameError(f"{name} is no computing party and may ask for health alone")
        if not greeting.session:
            raise FrameError(f"{name} did not say which session it belongs to")
        meeting = self._meetings.get(greeting.session)
        if meeting is None:
            if len(self._meetings) >= self._most or self._stopping:
                reason = "shuts down" if self._stopping else f"serves {self._most} sessions already"
                return farewell(connection, f"{me} {reason}")
            meeting = self._meetings[greeting.session] = _Meeting(greeting.session)
        if name in meeting.connections:
            return farewell(connection, f"{name} is in this session already")
        problem = disagreement(me, mine, name, greeting.terms)
        meeting.problem = meeting.problem or problem
        meeting.keys[name] = pair_key(greeting.session, me, nonce, name, greeting.nonce)
        meeting.connections[name] = connection
        if len(meeting.connections) == len(self.read.names):
            return self._begin(meeting)
        return (yield from self._wait_for_all(meeting, connection, seconds))

    def _wait_for_all(self, meeting: _Meeting, connection: Connection, seconds: float) -> Talk:
        """Keep a party waiting until all have come; the last one to come ends this conversation."""
        seat = self._listener.loop.current
        assert seat is not None
        name = connection.peer
        meeting.seats[name] = seat
        expect_ready(connection)
        deadline = By(time.monotonic() + seconds)
        try:
            yield deadline
            # The READY that has arrived is kept for `agree`. Only the party's leaving may come now.
            connection.expect_bytes([], 0)
            yield deadline
            raise FrameError(f"{name} sent something that was not asked for")
        except PeerTimeoutError:
            missing = [n for n in self.read.names if n not in meeting.connections]
            problem = f"{', '.join(missing)} did not come to the session within {seconds:g} s"
            record("session", warning=True, session=meeting.id.hex()[:8], problem=problem)
            return farewell(connection, problem)
        finally:
            if not meeting.complete:
                meeting.connections.pop(name, None)
                meeting.seats.pop(name, None)
                if not meeting.connections:
                    self._end(meeting)

    def _begin(self, meeting: _Meeting) -> bool:
        """Detach all connections from the listener's loop, and serve them in a thread."""
        meeting.complete = True
        for seat in meeting.seats.values():
            self._listener.loop.detach(seat)
        threading.Thread(
            target=self._serve, args=(meeting,), name="sotto session", daemon=True
        ).start()
        return KEEP

    def _end(self, meeting: _Meeting) -> None:
        with self._changed:
            if self._meetings.pop(meeting.id, None) is not None:
                self._corrections += meeting.corrections
                self._sent += meeting.sent_bytes()
            self._changed.notify_all()

    # A session.

    def _serve(self, meeting: _Meeting) -> None:
        begin = time.monotonic()
        connections = {n: meeting.connections[n] for n in self.read.names}
        problem = "-"
        try:
            agree(connections, meeting.problem, self.read.timeouts.connect)
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
            with self._changed:
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
            self._end(meeting)


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
        """Serve until the last party says goodbye, however long it sends no request."""
        service, last = self._service, self._last
        for connection in self._connections:
            connection.expect_bytes([], 0)
        last.expect_bytes([Kind.REQUEST], _LARGEST_REQUEST)
        announced, quiet_since = False, 0.0
        while True:
            busy = bool(self._pending) and last.outgoing_bytes <= service._ahead
            try:
                came = self._receive(0.0 if busy else _LOOK_SECONDS)
            except PeerError:
                if last.ended:
                    return
                raise
            if busy:
                self._answer()
            if service._stopping:
                if not announced:
                    announced, quiet_since = True, time.monotonic()
                    self._announce_stop()
                if came or busy or last.outgoing_bytes:
                    quiet_since = time.monotonic()
                # Party services end their session themselves, after the requests that they have begun.
                now = time.monotonic()
                if now >= service._deadline or now >= quiet_since + _STOP_SECONDS:
                    raise PeerClosedError(f"{service.me} shuts down")

    def _answer(self) -> None:
        for correction, id in self._deal():
            self._last.post(Kind.CORRECTION, [correction], id & 0xFFFFFFFF)
            self._last.push()
            # With few cores, let the party that waits for this correction run first.
            os.sched_yield()
            self._meeting.corrections += 1

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
