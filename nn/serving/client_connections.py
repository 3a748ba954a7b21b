"""A client's connections to the parties: joining, calls, and repetition after a loss."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from mpc import ArgumentError, HandshakeError, PeerClosedError, PeerError, SessionError, ShapeError
from mpc.core import wire
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.core.owner import check_process
from mpc.parties.configuration import Configuration
from mpc.parties.handshake import client_terms, disagreement, read_hello, send_hello
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import Connection, exchange, printable
from mpc.transport.waiting import Report
from ring import processes

__all__ = ["ClientConnections", "LaterError", "read_answer"]

# Bytes of an answer that describes a model, at most.
_LARGEST_ANSWER = 1 << 26
# Pauses between two attempts, the first and the longest; the time of an attempt with patience=0.
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_ONE_TRY_SECONDS = 1.0

T = TypeVar("T")


class LaterError(PeerError):
    """The parties cannot answer now; the message says why. The same call may succeed later."""


def read_answer(data: Any) -> Any:
    """Return what a party has sent, in which there is nothing but numbers, text, bytes and tuples.

    Raises
    ------
    ShapeError
        If it is malformed, or there is. Arrays cannot be compared like what honest parties send.
    """
    answer = wire.decode(data)
    left = [answer]
    while left:
        each = left.pop()
        if isinstance(each, tuple):
            left += each
        elif each is not None and not isinstance(each, bool | int | str | bytes):
            raise ShapeError(f"an answer must not hold a {type(each).__name__}")
    return answer


class ClientConnections(ABC):
    """A connection to every party, for calls of one client.

    Parameters
    ----------
    read : Configuration
    me : str
        Name of the client.
    patience : float
        Seconds during which a call is repeated, see :class:`nn.Client`.
    """

    def __init__(self, read: Configuration, me: str, patience: float) -> None:
        self._read, self._me, self._patience = read, me, patience
        self._lock = threading.Lock()
        self._generation, self._pid = processes.generation, os.getpid()
        self._connections: list[Connection] = []
        self._closed = self._described = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the parties; the client cannot be used any more."""
        self._closed = True
        if self._generation != processes.generation:
            return  # the connections belong to the parent process, which goes on
        for connection in self._connections:
            connection.notify(Kind.BYE)
        self._hang_up()

    def _hang_up(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections, self._described = [], False

    def _tried(self, ask: Callable[[], T]) -> T:
        """Return ``ask()``, called with all parties connected; repeat it as long as `patience` says."""
        # Before the lock is taken: in a forked process it may be held for ever.
        check_process("client", self._generation, self._pid)
        deadline, said, pause = None, "", _PAUSE_SECONDS
        with self._lock:
            # Connections of an earlier call may have been closed since: reconnect at once.
            old = bool(self._connections)
            while True:
                if self._closed:
                    raise SessionError("the client is closed")
                try:
                    if not self._connections:
                        self._connect()
                    if not self._described:
                        self._describe()
                    return ask()
                except (PeerClosedError, LaterError) as error:
                    now = time.monotonic()
                    deadline = now + self._patience if deadline is None else deadline
                    if not isinstance(error, LaterError):
                        self._hang_up()
                        if old:
                            old = False
                            continue
                    if now >= deadline:
                        raise
                    if str(error) != said:
                        said = str(error)
                        record("waiting", warning=True, me=self._me, why=said)
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                except PeerError:
                    # Late answers would be taken for those of the next call.
                    self._hang_up()
                    raise

    def _connect(self) -> None:
        context, _ = own_contexts(self._read, self._me)
        deadline = time.monotonic() + self._read.timeouts.connect
        mine = client_terms(self._read)
        for member in self._read.parties.values():
            left = max(0.01, min(deadline - time.monotonic(), self._patience or _ONE_TRY_SECONDS))
            report = Report(me=self._me, peer=member.name)
            connection = connect(member, context, left, report)
            self._connections.append(connection)
            send_hello(connection, "predict", mine, b"")
            greeting = read_hello(connection, max(0.01, deadline - time.monotonic()))
            problem = disagreement(member.name, greeting.terms, self._me, mine)
            if problem:
                raise HandshakeError(problem)

    def _ask(self, call: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Send the same call to all parties; return the answer of each."""
        for connection in self._connections:
            connection.post_bytes(Kind.CALL, wire.encode(call))
            connection.expect_bytes([Kind.ANSWER], _LARGEST_ANSWER)
        exchange(self._connections, self._read.timeouts.answer)
        # All answers are taken from the connections before one of them raises an error.
        data = [connection.take().data.data for connection in self._connections]
        return [
            self._answer(connection, each)
            for connection, each in zip(self._connections, data, strict=True)
        ]

    def _answer(self, connection: Connection, data: Any) -> tuple[Any, ...]:
        try:
            answer = read_answer(data)
            status = answer[0]
        except (ShapeError, TypeError, IndexError):
            raise PeerError(f"{connection.peer} sent an answer that is malformed") from None
        if status != "ok":
            text = printable(str(answer[1] if len(answer) > 1 else "").encode())[:500]
            if status == "later":
                raise LaterError(f"{connection.peer}: {text}")
            raise ArgumentError(f"{connection.peer}: {text}")
        return tuple(answer[1:])

    @abstractmethod
    def _describe(self) -> None:
        """Ask for the description of the model, after connecting."""
