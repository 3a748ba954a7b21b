"""Conversations on many connections, in one thread.

A conversation is a generator. It lines up what is to be sent, says what may come, and yields for
how long it waits; it goes on once all is sent and what it expects is there. What goes wrong is
raised where it waits. It ends by returning: nothing, and its line is closed; `KEEP`, and the line
is somebody else's from now on; or another line with its own conversation, as `Next`.
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

__all__ = ["ASLEEP", "KEEP", "By", "Line", "Loop", "Next", "Seat", "Talk", "farewell"]

# How often somebody looks whether one who is waited for is late.
_LOOK_SECONDS = 0.25
# So many frames of one connection at a time, then it is the others' turn.
_STEPS = 8
_FAREWELL_SECONDS = 1.0


class By(float):
    """When a wait ends, as time.monotonic has it, whatever arrives before. A plain number of
    seconds begins anew with every byte."""


class Line(Protocol):
    """What a conversation is held over."""

    peer: str

    def fileno(self) -> int:
        """Return the socket's number."""

    def events(self) -> int:
        """Return what to wait for, as select.poll has it."""

    def advance(self) -> bool:
        """Do what can be done now. Returns whether all of it is done, or raises PeerError."""

    def moved(self) -> int:
        """Return how many bytes have gone either way."""

    def close(self) -> None:
        """Close the socket."""


Talk = Generator[float, None, "Next | bool | None"]


class Next(NamedTuple):
    """Another line in place of this one, over the same socket."""

    line: Line
    talk: Talk


KEEP = True
# Until somebody calls Loop.wake.
ASLEEP = float("inf")


class Seat:
    """One conversation."""

    __slots__ = ("asleep", "events", "heard", "limit", "line", "moved", "socket", "talk")

    def __init__(self, line: Line, talk: Talk) -> None:
        self.line, self.talk = line, talk
        # By its number the selector knows it, whoever closes it.
        self.socket = line.fileno()
        self.limit, self.heard, self.moved = 0.0, 0.0, 0
        self.asleep, self.events = False, 0


class Loop:
    """Holds conversations until it is closed.

    Parameters
    ----------
    name : str
        Whose they are, for the log.
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
        # What is done after every round of conversations, and now and then.
        self.after: Callable[[], None] = _nothing
        self.now_and_then: Callable[[], None] = _nothing
        self._thread = threading.Thread(target=self._run, name=f"{name} talks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    # For any thread, and for a signal's handler.

    def call(self, do: Callable[[], None]) -> None:
        """Let the loop's thread call something."""
        self._calls.append(do)
        if not self._prodded:
            self._prodded = True
            try:
                self._prodding.send(b"\0")
            except OSError:
                pass

    def wake(self, seat: Seat) -> None:
        """Let a conversation that is asleep go on."""
        self.call(lambda: self._wake(seat))

    def close(self, seconds: float = 0.0) -> None:
        """End all conversations, after letting the last answers go out for so long."""
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
        """Begin a conversation."""
        seat = Seat(line, talk)
        self._seats.add(seat)
        if self._step(seat, None):
            self._advance(seat)
        return seat

    def detach(self, seat: Seat) -> None:
        """Forget a conversation and leave its line alone; it may be over already."""
        if seat in self._seats:
            self._seats.discard(seat)
            self._listen(seat, 0)
            seat.talk.close()

    def push(self, seat: Seat) -> None:
        """Send what was lined up for a conversation that waits."""
        if seat in self._seats:
            self._advance(seat)

    def __len__(self) -> int:
        return len(self._seats)

    def _run(self) -> None:
        look = time.monotonic() + _LOOK_SECONDS
        try:
            while not self._closed:
                left = max(0.0, look - time.monotonic())
                for key, _ in self._selector.select(0.0 if self._again else left):
                    if key.data is None:
                        self._quiet()
                    else:
                        self._advance(key.data)
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
        """Do something that shall not end all conversations."""
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
        # Last: who has found it set has added its call before, and calls are looked at next.
        self._prodded = False

    def _wake(self, seat: Seat) -> None:
        if seat in self._seats and seat.asleep and self._step(seat, None):
            self._advance(seat)

    def _look(self) -> None:
        """Tell whoever has waited long enough."""
        now = time.monotonic()
        for seat in tuple(self._seats):
            if seat.asleep or seat not in self._seats:
                continue
            limit, peer = seat.limit, seat.line.peer
            if isinstance(limit, By):
                if now >= limit:
                    self._raise(seat, PeerTimeoutError(f"{peer} did not finish in time"))
            elif (moved := seat.line.moved()) != seat.moved:
                seat.moved, seat.heard = moved, now
            elif now - seat.heard >= limit:
                self._raise(seat, PeerTimeoutError(f"{peer} did not answer within {limit:g} s"))
        self.now_and_then()

    def _advance(self, seat: Seat) -> None:
        """Do for one conversation what can be done now."""
        if seat not in self._seats:
            return
        if seat.asleep:
            # What comes meanwhile has to wait, and must not call again and again.
            self._listen(seat, 0)
            return
        for _ in range(_STEPS):
            try:
                done = seat.line.advance()
            except PeerError as error:
                self._raise(seat, error)
                return
            except (OSError, ValueError):  # closed by somebody here
                self._raise(seat, PeerClosedError(f"{seat.line.peer} is let go"))
                return
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
        """Let a conversation go on. Returns whether it waits again."""
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
        """End a conversation. Returns whether another one waits in its place."""
        if isinstance(how, Next):
            # The same socket, so the selector knows it still.
            seat.line, seat.talk = how
            return self._step(seat, None)
        self._seats.discard(seat)
        self._listen(seat, 0)
        if how is not KEEP:
            seat.line.close()
        return False

    def _listen(self, seat: Seat, events: int) -> None:
        """Wait for these events, of a socket that is not closed yet."""
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
    """Stand in for what nobody has asked for."""


class _Leaving:
    """A connection that is told a last word and let go, with as little of a wait as can be."""

    def __init__(self, connection: Connection) -> None:
        self.peer, self._connection = connection.peer, connection
        self._said = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def events(self) -> int:
        return select.POLLIN if self._said else select.POLLOUT

    def advance(self) -> bool:
        self._said = self._said or self._connection.push()
        return self._said and self._connection.discard()

    def moved(self) -> int:
        return 0

    def close(self) -> None:
        self._connection.close()


def farewell(line: Line, text: str, kind: Kind = Kind.ABORT) -> Next | None:
    """Return how to end a conversation with a last word, if there is anybody to hear it."""
    if not isinstance(line, Connection) or not line.line_up_last(kind, text):
        return None
    return Next(_Leaving(line), _leave())


def _leave() -> Talk:
    try:
        yield By(time.monotonic() + _FAREWELL_SECONDS)
    except PeerError:
        pass
    return None
