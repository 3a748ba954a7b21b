"""Waiting for other processes with a timeout: busy for a moment first, then asleep in poll."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from mpc.core.errors import PeerTimeoutError
from mpc.core.events import record

__all__ = ["Background", "Report", "exchange", "heard_until", "wait"]

# Waking from sleep takes as long as another process on this machine takes to answer. So poll for so
# long before going to sleep, yielding the core to other processes meanwhile.
_AWAKE_SECONDS = 4e-4
# Where several peers are late, some of them may be waiting for another one, and will name it: how much
# longer to wait for that.
_EXPLAIN_SECONDS = 1.0
# Bytes a second: whoever sends or takes fewer, on average, counts as silent for the rest of the time. A
# byte now and then would keep the others waiting for ever.
_LEAST_RATE = 1000.0
# When waiting is first logged; then after twice the time, and so on.
REPORT_SECONDS = 5.0


class Link(Protocol):
    """A connection to wait for, see :class:`mpc.transport.connection.Connection`."""

    peer: str

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far."""

    @property
    def received_bytes(self) -> int:
        """Bytes received so far."""

    @property
    def expecting(self) -> bool:
        """Whether a frame is expected."""

    @property
    def holds(self) -> bool:
        """Whether there is something to send, or to read that the socket does not tell of."""

    def fileno(self) -> int:
        """Return the socket's descriptor."""

    def events(self) -> int:
        """Return the events of select.poll to wait for."""

    def push(self) -> bool:
        """Send without waiting. Returns whether all is sent."""

    def pull(self) -> bool:
        """Receive without waiting. Returns whether the expected frame has arrived in full."""

    def advance(self, most: int = ..., readable: bool | None = None) -> bool:
        """Do `push` and `pull`. Returns whether both are done."""


AnyLink = TypeVar("AnyLink", bound=Link)


class Background(Protocol):
    """Work on other connections that goes on during an exchange, and is not waited for."""

    @property
    def connections(self) -> Sequence[Link]:
        """The connections of the work."""

    def advance(self) -> None:
        """Do a part of the work, without waiting."""


class Report:
    """Logs that this process waits: after 5 s, then after twice the time, and so on.

    Parameters
    ----------
    **fields : str
        Fields of the log's line, beside the seconds.
    """

    def __init__(self, **fields: str) -> None:
        self._fields = fields
        self._since, self._patience = time.monotonic(), REPORT_SECONDS

    def __call__(self) -> None:
        """Log a line if it is time for one."""
        waited = time.monotonic() - self._since
        if waited >= self._patience:
            record("waiting", warning=True, **self._fields, seconds=waited)
            self._patience *= 2


def heard_until(heard: float, moved: int, now: float) -> float:
    """Return up to when a peer counts as heard that has moved so many bytes since it was heard."""
    return min(now, heard + moved / _LEAST_RATE)


def exchange(
    connections: Iterable[Link],
    timeout: float,
    background: Background | None = None,
    *,
    busy: bool = True,
) -> None:
    """Send all queued frames and receive all expected ones, on all connections at the same time.

    Parameters
    ----------
    connections : iterable of Connection
    timeout : float
        Seconds.
    background : Background, optional
        Work that goes on meanwhile, and is not waited for.
    busy : bool, default=True
        Whether to be busy for a moment before going to sleep. Pays where the answer comes at once.

    Raises
    ------
    PeerTimeoutError
        If a peer that has still to take or send bytes does neither for `timeout` seconds, beyond a
        second for each 1000 bytes that it has moved.
    PeerError
        If a peer is lost, reports that it stopped, or sends a frame that is not expected.

    Notes
    -----
    Waiting for longer than a few seconds is reported in the log "sotto".
    """
    # The answer to what is sent only now has not arrived yet.
    waiting = _awake(connections, background, None if busy else set(), busy)
    if not waiting:
        return
    seen = {c: (c.sent_bytes + c.received_bytes, time.monotonic()) for c in waiting}
    patience = REPORT_SECONDS
    while waiting:
        late = min(waiting, key=lambda c: seen[c][1])
        quiet = time.monotonic() - seen[late][1]
        limit = timeout + (_EXPLAIN_SECONDS if len(waiting) > 1 else 0.0)
        if quiet >= limit:
            now = time.monotonic()
            names = [c.peer for c in waiting if now - seen[c][1] >= timeout]
            raise PeerTimeoutError(f"{' and '.join(names)} did not answer within {timeout:g} s")
        if quiet >= patience:
            record("waiting", warning=True, peer=late.peer, seconds=quiet, limit=timeout)
            patience *= 2
        left = min(limit, patience) - quiet
        links = waiting if background is None else [*waiting, *background.connections]
        waiting = _awake(waiting, background, _sleep(links, left), busy)
        for c in waiting:
            moved, (before, since) = c.sent_bytes + c.received_bytes, seen[c]
            if moved != before:
                seen[c] = (moved, heard_until(since, moved - before, time.monotonic()))


def _awake(
    connections: Iterable[AnyLink],
    background: Background | None,
    ready: set[int] | None,
    busy: bool,
) -> list[AnyLink]:
    """Send and receive, busy for a moment. Returns the connections that are not done.

    `ready`: the descriptors of those that have something to read, if that is known.
    """
    until = time.perf_counter() + _AWAKE_SECONDS if busy else 0.0
    while True:
        connections = [
            c
            for c in connections
            if not c.advance(readable=None if ready is None else c.fileno() in ready)
        ]
        if not connections:
            return []
        if background is not None:
            background.advance()
        if not busy or time.perf_counter() >= until:
            return connections
        os.sched_yield()
        ready = None


def wait(connections: Sequence[AnyLink], timeout: float) -> list[AnyLink]:
    """Wait until the expected frame of one of the connections has arrived; send meanwhile.

    Returns
    -------
    list of Connection
        Those whose frame has arrived; empty after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    # Who may sleep is told then which sockets have something to read.
    readable: set[int] | None = set() if timeout > 0 else None
    while True:
        ready = []
        for c in connections:
            has = None if readable is None else c.fileno() in readable
            if has is not False or c.holds:
                expecting = c.expecting
                c.advance(readable=has)
                if expecting and not c.expecting:
                    ready.append(c)
        left = deadline - time.monotonic()
        if ready or left <= 0:
            return ready
        readable = _sleep(connections, left)


def _sleep(connections: Iterable[Link], seconds: float) -> set[int]:
    """Sleep until a connection can send or receive, for at most `seconds`; return which are ready."""
    poll = select.poll()
    for c in connections:
        # Not with no events: poll would report a broken connection nevertheless, again and again.
        if events := c.events():
            poll.register(c, events)
    return {number for number, _ in poll.poll(max(1, int(seconds * 1000)))}
