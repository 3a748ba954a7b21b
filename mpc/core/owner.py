"""Which thread and process a session belongs to: one process, and in it one thread at a time.

A session counts ids and rounds, and all parties must count alike. Two threads would interleave their
steps in another order at every party, and shares of one computation would be added to shares of
another. So a session belongs to the thread that uses it first, until that thread ends or hands it
over. Any other thread is refused, always, and not only when both happen to run at once. A forked child
has its parent's keys and counters, and would use the same masks for other values.
"""

from __future__ import annotations

import os
import threading

from mpc.core.errors import SessionError
from ring import processes

__all__ = ["Owner", "check_process"]


def check_process(what: str, generation: int, pid: int) -> None:
    """Raise SessionError in a forked child of process `pid`, to which a session (`what`) belongs."""
    if generation != processes.generation:
        raise SessionError(
            f"the {what} belongs to the process {pid}, which this one, {os.getpid()}, was forked"
            f" from: both would use the same keys; make a {what} of its own after the fork"
        )


class Owner:
    """The process and the thread that a session belongs to.

    Attributes
    ----------
    thread : int
        The identity of the thread; 0 if the session is free.
    generation : int
        Of the process, see :mod:`ring.processes`.
    """

    __slots__ = ("_object", "_pid", "_turn", "generation", "thread")

    def __init__(self) -> None:
        self.thread = 0
        self.generation = processes.generation
        self._pid = os.getpid()
        self._object: threading.Thread | None = None
        self._turn = threading.Lock()

    def claim(self) -> None:
        """Take the session for this thread, or raise SessionError."""
        check_process("session", self.generation, self._pid)
        me = threading.current_thread()
        with self._turn:
            other = self._object
            if other is not None and other is not me and other.is_alive():
                raise SessionError(
                    f"the session belongs to the thread {other.name!r} and was used by {me.name!r}:"
                    " it serves one thread at a time. Make a session for each thread, or let"
                    f" {other.name!r} call session.hand_over() after each whole computation"
                )
            self._object, self.thread = me, threading.get_ident()

    def release(self) -> None:
        """Let the next thread that comes take the session."""
        with self._turn:
            self._object, self.thread = None, 0
