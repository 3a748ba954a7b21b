"""Services at which all computing parties of a session meet: the crypto provider, and an auditor.

A session begins when all its computing parties have connected and shaken hands: the service then
shares a fresh key with each.
"""

from __future__ import annotations

import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpc.core import wire
from mpc.core.errors import FrameError, PeerTimeoutError, SottoError
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.parties.configuration import Configuration, Member
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
from mpc.transport.addresses import bind
from mpc.transport.connection import Connection
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, By, Seat, Talk, farewell

__all__ = ["Meeting", "MeetingService"]


@dataclass(repr=False, eq=False)
class Meeting:
    """The parties of a session, while they arrive and until it is over.

    Attributes
    ----------
    id : bytes
        The session id.
    connections : dict of str to Connection
    keys : dict of str to bytes
        The key that the service shares with each party.
    terms : dict of str to dict
        What each party has stated in its HELLO.
    counts : Counter
        What the service counts of a session, by name.
    """

    id: bytes
    connections: dict[str, Connection] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    terms: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    problem: str = ""
    complete: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def sent_bytes(self) -> int:
        """Bytes sent to all parties of the session."""
        return sum(connection.sent_bytes for connection in tuple(self.connections.values()))


class MeetingService(ABC):
    """Serves sessions until it is closed.

    Parameters
    ----------
    read : Configuration
    sock : socket, optional
        A socket that listens at the service's address already.
    sessions : int, default=64
        The most sessions at once.

    Attributes
    ----------
    role : {"provider", "auditor"}
    """

    role: str

    def __init__(
        self, read: Configuration, *, sock: socket.socket | None = None, sessions: int = 64
    ) -> None:
        self.read = read
        self._most = sessions
        # Only the listener's thread adds meetings.
        self._meetings: dict[bytes, Meeting] = {}
        self._changed = threading.Condition()
        # By when all sessions must be over, once the service is to stop; infinite before that.
        self.deadline = float("inf")
        self._started = time.monotonic()
        self._served = 0
        # Sums over the sessions that have ended.
        self._counts: Counter[str] = Counter()
        self._sent = 0
        member = self.member(read)
        assert member.listen is not None
        self.me = member.name
        _, server = own_contexts(read, self.me)
        self._listener = Listener(
            self.me, sock or bind(member.listen), server, self._known(), self._admit
        )
        self._listener.start()
        record("start", role=self.role, parties=",".join(read.names))
        present(self.figures, lambda: self.read)

    @staticmethod
    @abstractmethod
    def member(read: Configuration) -> Member:
        """Return the service's own entry in the configuration, or raise ConfigurationError."""

    @abstractmethod
    def hold(self, meeting: Meeting, connections: Mapping[str, Connection]) -> None:
        """Do the service's part of a session, until it is over."""

    def terms(self) -> dict[str, Any]:
        """Return the terms on which the service and every party must agree."""
        return {
            "protocol version": PROTOCOL_VERSION,
            "ring": "2^64",
            "parties": self.read.names,
        }

    def _known(self) -> dict[str, tuple[bytes, ...]]:
        # The service's own certificate, too: `sotto health --me provider` uses it.
        read = self.read
        return {name: read.members[name].accepted for name in (*read.parties, self.me)}

    @property
    def stopping(self) -> bool:
        """Whether the service is to stop."""
        return self.deadline < float("inf")

    def health(self) -> dict[str, Any]:
        """Return how many sessions run and have run, and the seconds since the start."""
        with self._changed:
            running = len(self._meetings)
        return {
            "role": self.role,
            "sessions": running,
            "served": self._served,
            "seconds": int(time.monotonic() - self._started),
        }

    def figures(self) -> dict[str, int]:
        """Return the figures that metrics show of this service, beside those counted from events."""
        with self._changed:
            running = tuple(self._meetings.values())
            return {"ready": int(not self.stopping), "sessions": len(running)}

    def counted(self, name: str) -> int:
        """Return a sum over all sessions."""
        with self._changed:
            return self._counts[name] + sum(m.counts[name] for m in self._meetings.values())

    def sent_bytes(self) -> int:
        """Return the bytes sent to all parties of all sessions."""
        with self._changed:
            return self._sent + sum(m.sent_bytes() for m in self._meetings.values())

    def reload(self, read: Configuration) -> None:
        """Accept the certificates of this configuration, and no others, from now on."""
        self.member(read)
        _, server = own_contexts(read, self.me)
        self.read = read
        self._listener.know(server, self._known())
        record("reload", me=self.me)
        warn_of_certificates(read)

    def close(self, grace: float = 4.0) -> None:
        """Stop listening, announce the stop, and end each session when it is idle, or after `grace` s."""
        self.deadline = time.monotonic() + grace
        self._listener.loop.call(self._shut)
        with self._changed:
            while self._meetings and time.monotonic() < self.deadline + 0.5:
                self._changed.wait(0.05)
        self._listener.close(0.5)
        record("stop", role=self.role, served=self._served)

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
        mine = self.terms()
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
            if len(self._meetings) >= self._most or self.stopping:
                reason = "shuts down" if self.stopping else f"serves {self._most} sessions already"
                return farewell(connection, f"{me} {reason}")
            meeting = self._meetings[greeting.session] = Meeting(greeting.session)
        if name in meeting.connections:
            return farewell(connection, f"{name} is in this session already")
        problem = disagreement(me, mine, name, greeting.terms)
        meeting.problem = meeting.problem or problem
        meeting.keys[name] = pair_key(greeting.session, me, nonce, name, greeting.nonce)
        meeting.connections[name] = connection
        meeting.terms[name] = greeting.terms
        if len(meeting.connections) == len(self.read.names):
            return self._begin(meeting)
        return (yield from self._wait_for_all(meeting, connection, seconds))

    def _wait_for_all(self, meeting: Meeting, connection: Connection, seconds: float) -> Talk:
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

    def _begin(self, meeting: Meeting) -> bool:
        """Detach all connections from the listener's loop, and serve them in a thread."""
        meeting.complete = True
        for seat in meeting.seats.values():
            self._listener.loop.detach(seat)
        threading.Thread(
            target=self._serve, args=(meeting,), name="sotto session", daemon=True
        ).start()
        return KEEP

    def _end(self, meeting: Meeting) -> None:
        with self._changed:
            if self._meetings.pop(meeting.id, None) is not None:
                self._counts += meeting.counts
                self._sent += meeting.sent_bytes()
            self._changed.notify_all()

    def _serve(self, meeting: Meeting) -> None:
        begin = time.monotonic()
        connections = {n: meeting.connections[n] for n in self.read.names}
        problem = "-"
        try:
            agree(connections, meeting.problem, self.read.timeouts.connect)
            self.hold(meeting, connections)
        except SottoError as error:
            problem = str(error)
            for connection in connections.values():
                connection.notify(Kind.ABORT, problem)
        except Exception as error:
            problem = type(error).__name__
            for connection in connections.values():
                connection.notify(Kind.ABORT, f"{problem} at the {self.role}")
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
                **self.reported(meeting),
                bytes=meeting.sent_bytes(),
                seconds=time.monotonic() - begin,
                problem=problem,
            )
            self._end(meeting)

    @abstractmethod
    def reported(self, meeting: Meeting) -> dict[str, int]:
        """Return what the log says of a session that has ended, beside what it says at every service."""
