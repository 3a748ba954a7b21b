"""An event loop: conversations on many connections, in one thread.

A conversation is a generator, a coroutine of this loop. It queues frames, states which frame it expects,
and yields the number of seconds that it is ready to wait; it is resumed when all is sent and the expected
frame has arrived. Errors of the connection are raised at the yield. It ends by returning None, and its
line is closed; `KEEP`, and the line is left open for other code; or `Next`, another line over the same
socket with a conversation of its own.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

from mpc.core.errors import PeerClosedError, PeerError, PeerTimeoutError
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.transport.connection import Connection
from mpc.transport.waiting import heard_until

__all__ = ["ASLEEP", "KEEP", "By", "Line", "Loop", "Next", "Seat", "Talk", "farewell"]

# How often the loop checks for conversations that have waited too long.
_LOOK_SECONDS = 0.25
# The most frames of one connection before the others have their turn.
_STEPS = 8
_FAREWELL_SECONDS = 1.0


class By(float):
    """A deadline, in time.monotonic's seconds, for a conversation to yield.

    A plain float yielded instead is a timeout that begins anew with what is sent or received, as in
    :func:`mpc.transport.waiting.exchange`.
    """


class Line(Protocol):
    """The connection, or something like it, that a conversation is held over."""

    peer: str

    def fileno(self) -> int:
        """Return the socket's number."""

    def events(self) -> int:
        """Return the events of select.poll to wait for."""

    def advance(self, *, readable: bool) -> bool:
        """Send and receive without waiting. Returns whether all is done, or raises PeerError.

        `readable`: whether the socket has something to read.
        """

    def moved(self) -> int:
        """Return the number of bytes sent and received together."""

    def close(self) -> None:
        """Close the socket."""


Talk = Generator[float, None, "Next | bool | None"]


class Next(NamedTuple):
    """Another line in place of this one, over the same socket."""

    line: Line
    talk: Talk


KEEP = True
# Yielded by a conversation that waits until Loop.wake is called.
ASLEEP = float("inf")


class Seat:
    """One conversation's entry in the loop: its line, its generator, and how long it waits."""

    __slots__ = ("asleep", "events", "heard", "limit", "line", "moved", "socket", "talk")

    def __init__(self, line: Line, talk: Talk) -> None:
        self.line, self.talk = line, talk
        # The selector knows the socket by this number, even after it is closed.
        self.socket = line.fileno()
        self.limit, self.heard, self.moved = 0.0, 0.0, 0
        self.asleep, self.events = False, 0

    def begins(self, limit: float) -> None:
        """Wait for `limit` seconds from now on, in place of what was yielded."""
        self.limit, self.heard = limit, time.monotonic()


class Loop:
    """Runs conversations, in a thread of its own, until it is closed.

    Parameters
    ----------
    name : str
        The name of the loop in the log.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._selector = selectors.DefaultSelector()
        self._awake, self._prodding = socket.socketpair()
        self._awake.setblocking(False)
        self._prodding.setblocking(False)
        self._selector.register(self._awake, selectors.EVENT_READ, None)
        self._calls: deque[Callable[[], None]] = deque()
        self._again: deque[Seat] = deque()
        self._seats: set[Seat] = set()
        self._prodded = self._closed = False
        self.current: Seat | None = None
        # Called after every pass over the conversations, and every _LOOK_SECONDS.
        self.after: Callable[[], None] = _nothing
        self.now_and_then: Callable[[], None] = _nothing
        self._thread = threading.Thread(target=self._run, name=f"{name} talks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # For any thread, and for signal handlers.

    def call(self, do: Callable[[], None]) -> None:
        """Have the loop's thread call `do`."""
        self._calls.append(do)
        if not self._prodded:
            self._prodded = True
            try:
                self._prodding.send(b"\0")
            except OSError:
                pass

    def wake(self, seat: Seat) -> None:
        """Resume a conversation that is asleep."""
        self.call(lambda: self._wake(seat))

    def close(self, seconds: float = 0.0) -> None:
        """End all conversations, after up to `seconds` for queued frames to be sent."""
        deadline = time.monotonic() + seconds
        while self._thread.is_alive() and self._busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed = True
        self.call(_nothing)
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _busy(self) -> bool:
        return bool(self._calls) or any(
            seat.line.events() & select.POLLOUT for seat in tuple(self._seats)
        )

    # For the loop's own thread.

    def add(self, line: Line, talk: Talk) -> Seat:
        """Begin a conversation; return its seat."""
        seat = Seat(line, talk)
        self._seats.add(seat)
        if self._step(seat, None):
            self._advance(seat)
        return seat

    def detach(self, seat: Seat) -> None:
        """End a conversation and leave its line open; it may have ended already."""
        if seat in self._seats:
            self._seats.discard(seat)
            self._listen(seat, 0)
            seat.talk.close()

    def push(self, seat: Seat) -> None:
        """Send the frames that were queued for a conversation that waits."""
        if seat in self._seats:
            self._advance(seat)

    def __len__(self) -> int:
        return len(self._seats)

    def _run(self) -> None:
        look = time.monotonic() + _LOOK_SECONDS
        try:
            while not self._closed:
                left = max(0.0, look - time.monotonic())
                for key, mask in self._selector.select(0.0 if self._again else left):
                    if key.data is None:
                        self._quiet()
                    else:
                        self._advance(key.data, readable=bool(mask & selectors.EVENT_READ))
                for _ in range(len(self._again)):
                    self._advance(self._again.popleft())
                while self._calls:
                    self._guarded(self._calls.popleft())
                self._guarded(self.after)
                if time.monotonic() >= look:
                    look = time.monotonic() + _LOOK_SECONDS
                    self._guarded(self._look)
        finally:
            for seat in tuple(self._seats):
                seat.talk.close()
                seat.line.close()
            self._seats.clear()
            self._selector.close()
            self._awake.close()
            self._prodding.close()

    def _guarded(self, do: Callable[[], None]) -> None:
        """Call `do`; log an exception, so that it does not end the loop."""
        try:
            do()
        except Exception as error:
            record("failed", warning=True, at=self.name, why=type(error).__name__)

    def _quiet(self) -> None:
        try:
            while self._awake.recv(4096):
                pass
        except OSError:
            pass
        # Cleared last: a thread that found it set has added its call before, and calls are run next.
        self._prodded = False

    def _wake(self, seat: Seat) -> None:
        if seat in self._seats and seat.asleep and self._step(seat, None):
            self._advance(seat)

    def _look(self) -> None:
        """Raise PeerTimeoutError in conversations that have waited too long."""
        now = time.monotonic()
        for seat in tuple(self._seats):
            if seat.asleep or seat not in self._seats:
                continue
            limit, peer = seat.limit, seat.line.peer
            if isinstance(limit, By):
                if now >= limit:
                    self._raise(seat, PeerTimeoutError(f"{peer} did not finish in time"))
                continue
            moved = seat.line.moved()
            seat.heard = heard_until(seat.heard, moved - seat.moved, now)
            seat.moved = moved
            if now - seat.heard >= limit:
                self._raise(seat, PeerTimeoutError(f"{peer} did not answer within {limit:g} s"))
        self.now_and_then()

    def _advance(self, seat: Seat, readable: bool = False) -> None:
        """Send and receive for one conversation, and resume it when that is done.

        Where nothing is known to be readable, the selector tells as soon as it is.
        """
        if seat not in self._seats:
            return
        if seat.asleep:
            # Data that arrives meanwhile waits; the selector must not report it again and again.
            self._listen(seat, 0)
            return
        for _ in range(_STEPS):
            try:
                done = seat.line.advance(readable=readable)
            except PeerError as error:
                self._raise(seat, error)
                return
            except (OSError, ValueError):  # closed by another thread of this process
                self._raise(seat, PeerClosedError(f"{seat.line.peer} is let go"))
                return
            readable = False
            if not done:
                self._listen(seat, seat.line.events())
                return
            if not self._step(seat, None) or seat.asleep:
                return
        self._again.append(seat)

    def _raise(self, seat: Seat, error: PeerError) -> None:
        if self._step(seat, error) and not seat.asleep:
            self._again.append(seat)

    def _step(self, seat: Seat, error: PeerError | None) -> bool:
        """Resume a conversation, with an error or without. Returns whether it waits again."""
        self.current, seat.asleep = seat, False
        try:
            limit = seat.talk.send(None) if error is None else seat.talk.throw(error)
        except StopIteration as stop:
            return self._leave(seat, stop.value)
        except PeerError as problem:
            record("lost", warning=True, at=self.name, why=str(problem))
            return self._leave(seat, farewell(seat.line, str(problem)))
        except Exception as problem:
            # The text of an unforeseen error may hold anything; its type does not.
            why = type(problem).__name__
            record("failed", warning=True, at=self.name, peer=seat.line.peer, why=why)
            return self._leave(seat, farewell(seat.line, f"{why} at {self.name}"))
        finally:
            self.current = None
        seat.limit, seat.asleep = limit, limit is ASLEEP
        seat.heard, seat.moved = time.monotonic(), seat.line.moved()
        return True

    def _leave(self, seat: Seat, how: Next | bool | None) -> bool:
        """End a conversation as it has returned. Returns whether another one has taken its place."""
        if isinstance(how, Next):
            # It has the same socket, which the selector knows already.
            seat.line, seat.talk = how
            return self._step(seat, None)
        self._seats.discard(seat)
        self._listen(seat, 0)
        if how is not KEEP:
            seat.line.close()
        return False

    def _listen(self, seat: Seat, events: int) -> None:
        """Register the seat's socket, which must be open, for these events."""
        if events == seat.events:
            return
        mask = (selectors.EVENT_READ if events & select.POLLIN else 0) | (
            selectors.EVENT_WRITE if events & select.POLLOUT else 0
        )
        if not mask:
            self._selector.unregister(seat.socket)
        elif seat.events:
            self._selector.modify(seat.socket, mask, seat)
        else:
            self._selector.register(seat.socket, mask, seat)
        seat.events = events


def _nothing() -> None:
    """Do nothing."""


class _Leaving:
    """A connection as a line: sends its last message, then drops what the peer sends until it closes."""

    def __init__(self, connection: Connection) -> None:
        self.peer, self._connection = connection.peer, connection
        self._said = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def events(self) -> int:
        return select.POLLIN if self._said else select.POLLOUT

    def advance(self, *, readable: bool) -> bool:
        self._said = self._said or self._connection.push()
        return self._said and self._connection.discard()

    def moved(self) -> int:
        return 0

    def close(self) -> None:
        self._connection.close()


def farewell(line: Line, text: str, kind: Kind = Kind.ABORT) -> Next | None:
    """Return what a conversation returns to end with a last message; None if it cannot be sent."""
    if not isinstance(line, Connection) or not line.line_up_last(kind, text):
        return None
    return Next(_Leaving(line), _leave())


def _leave() -> Talk:
    try:
        yield By(time.monotonic() + _FAREWELL_SECONDS)
    except PeerError:
        pass
    return None
