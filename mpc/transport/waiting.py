"""Waiting for other processes: awake at first, then asleep, and no longer than a limit."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from mpc.core.errors import PeerTimeoutError
from mpc.core.events import record

__all__ = ["Beside", "Report", "exchange", "wait"]

# A process that sleeps takes as long to wake up as others take to answer on one machine. So look
# for so long before going to sleep, letting whoever else wants the core have it.
_AWAKE_SECONDS = 4e-4
# Where several are late, some of them wait for another one just as long, and say so: how long to
# wait for that.
_EXPLAIN_SECONDS = 1.0
# When waiting for somebody is first reported; then after twice the time, and so on.
_REPORT_SECONDS = 5.0


class Link(Protocol):
    """What is waited for: a connection, as :mod:`mpc.transport.connection` has it."""

    peer: str

    @property
    def sent_bytes(self) -> int:
        """How many bytes were sent up to now."""

    @property
    def received_bytes(self) -> int:
        """How many bytes have come up to now."""

    @property
    def expecting(self) -> bool:
        """Whether a frame is expected."""

    def fileno(self) -> int:
        """Return the socket's descriptor."""

    def events(self) -> int:
        """Return what to wait for, as select.poll has it."""

    def push(self) -> bool:
        """Send what can be sent now. Returns whether all is sent."""

    def pull(self) -> bool:
        """Receive what has come. Returns whether all that is expected has."""

    def advance(self) -> bool:
        """Do both. Returns whether all is done."""


AnyLink = TypeVar("AnyLink", bound=Link)


class Beside(Protocol):
    """Something that goes on while others are waited for."""

    @property
    def connection(self) -> Link:
        """The connection that it goes on over."""

    def advance(self) -> None:
        """Do a little of what can be done now."""


class Report:
    """Tells the log that somebody is waited for: after some seconds, then after twice the time.

    Parameters
    ----------
    **fields : str
        What the line says beside the seconds.
    """

    def __init__(self, **fields: str) -> None:
        self._fields = fields
        self._since, self._patience = time.monotonic(), _REPORT_SECONDS

    def __call__(self) -> None:
        """Look whether it is time for a line."""
        waited = time.monotonic() - self._since
        if waited >= self._patience:
            record("waiting", warning=True, **self._fields, seconds=waited)
            self._patience *= 2


def exchange(connections: Iterable[Link], timeout: float, beside: Beside | None = None) -> None:
    """Send all that is lined up and receive all that is expected, at the same time.

    Parameters
    ----------
    connections : iterable of Connection
    timeout : float
        Seconds.
    beside : Beside, optional
        Goes on meanwhile, and is not waited for.

    Raises
    ------
    PeerTimeoutError
        If a peer neither takes nor sends a byte for `timeout` seconds while it should.
    PeerError
        If one is lost, says that it stopped, or sends what is not expected.

    Notes
    -----
    Waiting for longer than a few seconds is reported in the log "sotto".
    """
    waiting = _awake(connections, beside)
    if not waiting:
        return
    seen = {c: (c.sent_bytes + c.received_bytes, time.monotonic()) for c in waiting}
    patience = _REPORT_SECONDS
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
        _sleep(waiting if beside is None else [*waiting, beside.connection], left)
        waiting = _awake(waiting, beside)
        for c in waiting:
            moved = c.sent_bytes + c.received_bytes
            if moved != seen[c][0]:
                seen[c] = (moved, time.monotonic())


def _awake(connections: Iterable[AnyLink], beside: Beside | None) -> list[AnyLink]:
    """Do what can be done, staying awake for a moment. Returns those that are not done."""
    until = time.perf_counter() + _AWAKE_SECONDS
    while True:
        connections = [c for c in connections if not c.advance()]
        if not connections:
            return []
        if beside is not None:
            beside.advance()
        if time.perf_counter() >= until:
            return connections
        os.sched_yield()


def wait(connections: Sequence[AnyLink], timeout: float) -> list[AnyLink]:
    """Wait until one of the connections has the frame that it expects; send meanwhile.

    Returns
    -------
    list of Connection
        Those with a whole frame; empty after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        ready = []
        for c in connections:
            c.push()
            if c.expecting and c.pull():
                ready.append(c)
        left = deadline - time.monotonic()
        if ready or left <= 0:
            return ready
        _sleep(connections, left)


def _sleep(connections: Iterable[Link], seconds: float) -> None:
    """Wait until something can be done."""
    poll = select.poll()
    for c in connections:
        # A connection that is broken would be reported without being asked for, again and again.
        if events := c.events():
            poll.register(c, events)
    poll.poll(max(1, int(seconds * 1000)))
