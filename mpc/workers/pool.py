"""The worker pool of a party, in the party's own process: joblib starts the workers, TLS reaches them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpc.core import joblib_processes, wire
from mpc.core.errors import ConfigurationError, FrameError, PeerError, PeerTimeoutError, ShapeError
from mpc.core.events import record
from mpc.core.frames import Header, Kind
from mpc.session import Session
from mpc.transport.addresses import EVERYWHERE, bind
from mpc.transport.connection import Connection, exchange, printable, wait
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, Talk
from mpc.workers.worker import (
    ABORT,
    BUSY,
    FAILED,
    LARGEST_ANSWER,
    WRONG,
    Order,
    Program,
    Task,
    own_contexts,
)
from ring import get_num_threads

__all__ = [
    "ABORTED",
    "BROKEN",
    "DONE",
    "FAILURE",
    "HERE",
    "LOSS",
    "PART_STATES",
    "RUNNING",
    "STATES",
    "WAITING",
    "Part",
    "WorkerPool",
    "most_seconds",
]

Words = NDArray[np.uint64]

# The states that a party tells the others: of its pool, and of each part.
WAITING, HERE, BROKEN = range(3)
STATES = WAITING, HERE, BROKEN
RUNNING, DONE, LOSS, FAILURE, ABORTED = range(5)
PART_STATES = frozenset((RUNNING, DONE, LOSS, FAILURE, ABORTED))

_STARTS = 3
_LOOK_SECONDS = 0.05
# How long further tries wait for new workers in place of those that were lost.
_PATIENCE_SECONDS = 3.0
# How long joblib's tasks may take to return after their party has no more for them.
_END_SECONDS = 10.0


def most_seconds(connect: float) -> float:
    """Return for how long :meth:`WorkerPool.status` may say that it waits, for the timeout `connect`."""
    # A wait for each start, and one more for what joblib takes to end what it had started.
    return (_STARTS + 1) * (connect + _PATIENCE_SECONDS)


@dataclass(eq=False)
class Part:
    """Some of the rows, computed by one worker of every party.

    Attributes
    ----------
    order : Order
        What this party's worker is sent.
    words : sequence of uint64 arrays of shape (p, ...)
        Rows of shares or plaintexts of the operands, sent after the order.
    shape : tuple of int
        Of the result.
    state : int
        RUNNING, DONE, LOSS, FAILURE or ABORTED, at this party.
    result : uint64 array of shape (p, ...), or None
        This party's rows of shares of the result.
    text : str
        Why there is no result.
    abandoned : bool
        Whether to stop waiting for it, since another party has lost it.
    wrong : bool
        Whether it has failed since the provider has dealt wrongly.
    """

    order: Order
    words: Sequence[Words]
    shape: tuple[int, ...]
    state: int = RUNNING
    result: Words | None = None
    text: str = ""
    abandoned: bool = False
    wrong: bool = False


class _Worker:
    """A worker that has connected and waits for a part."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.part: Part | None = None
        self.ordered = threading.Event()


class WorkerPool:
    """A party's workers for one call of :func:`mpc.workers.spread.spread`.

    Parameters
    ----------
    session : Session
        Of this party.
    program : Program
    number : int
        Of the call, in this session.
    n_jobs : int
        How many workers to start; -1 for as many as joblib offers.
    most : int
        The most workers to start.

    Attributes
    ----------
    wanted : int
        How many workers were started.
    problem : str
        Why there are none.
    """

    def __init__(
        self, session: Session, program: Program, number: int, n_jobs: int, most: int
    ) -> None:
        read, self._session = session.configuration, session
        assert read is not None and session.me is not None
        self._me = read.parties[session.me]
        assert self._me.address is not None and self._me.listen is not None
        self._limits = read.timeouts
        self._token = session.session_id + number.to_bytes(8, "little")
        self._n_jobs, self._most = n_jobs, most
        self._changed = threading.Condition()
        self._ready: list[_Worker] = []
        self._closed = False
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._starts = 0
        self._client: Any = None
        self._since = 0.0
        self._gave_up = False
        self.wanted, self.problem = 0, ""
        host = self._me.listen[0]
        sock = bind((host, 0))
        # A party that listens on all networks is reached at its public address.
        reached = self._me.address[0] if host in EVERYWHERE else host
        self._task = Task(
            str(read.path.absolute()), session.me, session.format, session.memory_limit,
            session.network, (reached, int(sock.getsockname()[1])), self._token, program,
        )  # fmt: skip
        _, context = own_contexts(self._me)
        known = {self._me.name: self._me.accepted}
        self._listener = Listener(f"{session.me}'s workers", sock, context, known, self._come)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Dismiss all workers, and end what was started for them."""
        with self._changed:
            self._closed = True
            for worker in self._ready:
                worker.ordered.set()
        # The other parties wait for this one meanwhile, so wait no longer than half their timeout.
        seconds = min(_END_SECONDS, 0.5 * self._limits.answer)
        if not self._over.wait(0.0 if error is not None or self._gave_up else seconds):
            self._abort()
        self._listener.close()
        if self._client is not None:
            self._client.close()

    def _abort(self) -> None:
        self._parallel._backend.abort_everything(ensure_ready=False)

    # Starting.

    @contextmanager
    def _backend(self) -> Iterator[None]:
        """Let joblib use the party's cluster, if the configuration names one."""
        import joblib  # here: slow to import, and needed for workers alone

        if self._me.scheduler is None:
            yield
            return
        if self._client is None:
            try:
                from distributed import Client
            except ImportError:
                raise ConfigurationError(
                    f"scheduler of {self._me.name} needs Dask: pip install 'sotto-mpc[dask]'"
                ) from None
            self._client = Client(self._me.scheduler, set_as_default=False)
        with joblib.parallel_config(backend="dask", client=self._client):
            yield

    def start(self) -> None:
        """Start the workers; :meth:`status` reports a failure."""
        self._since = self._since or time.monotonic()
        self._starts += 1
        self._failure = None
        self._over = threading.Event()
        try:
            with self._backend():
                self._dispatch()
        except Exception as error:
            self._failure = error
            self._over.set()

    def _dispatch(self) -> None:
        import joblib

        own = joblib_processes.options()
        offered = joblib.effective_n_jobs(self._n_jobs)
        wanted = offered if self._n_jobs < 0 else min(offered, self._n_jobs)
        self.wanted = max(1, min(wanted, self._most))
        task = self._task
        if own:
            # Processes on this machine divide this process's cores among them.
            task = replace(task, threads=max(1, get_num_threads() // self.wanted))
            # End them with the session: they have held shares.
            self._session.at_end(joblib_processes.shut_down)
        # max_nbytes: joblib must never write an argument to a file.
        self._parallel = joblib.Parallel(
            self.wanted, return_as="generator_unordered", batch_size=1, pre_dispatch="all",
            max_nbytes=None, **own,
        )  # fmt: skip
        tasks = self._parallel(joblib.delayed(task)() for _ in range(self.wanted))
        threading.Thread(
            target=self._drain, args=(tasks, self._over), name="sotto joblib", daemon=True
        ).start()

    def _drain(self, tasks: Iterator[None], over: threading.Event) -> None:
        try:
            for _ in tasks:
                pass
        except BaseException as error:
            if over is self._over:  # unless other workers have been started meanwhile
                self._failure = error
        finally:
            over.set()
            self._notify()

    def status(self, first: bool) -> tuple[int, int]:
        """Return WAITING, HERE or BROKEN, and the number of workers that are ready.

        If joblib has lost a process, workers are started again. After the first try, workers that
        replace lost ones are waited for a few seconds only.
        """
        with self._changed:
            ready = len(self._ready)
        if self.wanted and ready >= self.wanted:
            return HERE, ready
        if self._over.is_set():
            if self._failure is not None and not _killed(self._failure):
                self.problem = f"{type(self._failure).__name__}: {self._failure}"
                return BROKEN, 0
            return self._start_again()
        waited = time.monotonic() - self._since
        if self._gave_up and not ready and waited >= _PATIENCE_SECONDS:
            # Only workers that stall are left, and joblib would wait for them.
            self._gave_up = False
            self._abort()
            return self._start_again()
        limit = self._limits.connect if first or not ready else _PATIENCE_SECONDS
        if waited < limit:
            return WAITING, ready
        if ready:
            return HERE, ready
        self.problem = f"no worker came within {limit:g} s"
        return BROKEN, 0

    def _start_again(self) -> tuple[int, int]:
        if self._starts == _STARTS:
            self.problem = f"workers were lost {_STARTS} times"
            return BROKEN, 0
        self.wait_anew()
        self.start()
        return WAITING, 0

    def wait_anew(self) -> None:
        """Count the time that workers are waited for from now on."""
        self._since = time.monotonic()

    def take(self, count: int) -> list[_Worker]:
        """Return `count` ready workers, or all if there are fewer."""
        with self._changed:
            return self._ready[:count]

    def give(self, worker: _Worker, part: Part) -> None:
        """Give a worker a part; the part's `state` changes when it has ended."""
        with self._changed:
            if worker not in self._ready:
                part.state, part.text = LOSS, "its worker is gone"
                return
            self._ready.remove(worker)
            worker.part = part
            worker.ordered.set()

    def wait_for_workers(self, count: int, seconds: float) -> None:
        """Wait until the number of ready workers is not `count`, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._ready) != count or self._over.is_set(), seconds
            )

    def wait_for_parts(self, parts: Sequence[Part], states: Sequence[int], seconds: float) -> None:
        """Wait until the states of the parts are not `states`, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: [p.state for p in parts] != states, seconds)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # One worker, in a thread of its own.

    def _come(self, connection: Connection) -> Talk:
        threading.Thread(
            target=self._admit, args=(connection,), name="sotto workers", daemon=True
        ).start()
        return KEEP
        yield  # never reached: makes this function a generator, as conversations are

    def _admit(self, connection: Connection) -> None:
        name = f"{self._me.name}'s workers"
        try:
            self._attend(connection)
        except PeerError as error:
            record("lost", warning=True, at=name, why=str(error))
        except Exception as error:
            # The text of an unforeseen error may hold anything; its type does not.
            why = type(error).__name__
            record("failed", warning=True, at=name, peer=connection.peer, why=why)
            connection.notify(Kind.ABORT, f"{why} at {name}")
        finally:
            connection.close()

    def _attend(self, connection: Connection) -> None:
        while not self._closed:
            worker = _Worker(self._hear(connection))
            with self._changed:
                self._ready.append(worker)
                if self._closed:
                    worker.ordered.set()
                self._changed.notify_all()
            try:
                while not worker.ordered.wait(_LOOK_SECONDS):
                    # Raises if the worker is gone. That is no fault: it has no part yet.
                    wait([connection], 0.0)
            finally:
                with self._changed:
                    if worker in self._ready:
                        self._ready.remove(worker)
            part = worker.part
            if part is None:  # dismissed
                break
            try:
                self._do(connection, part, worker.address)
            except PeerError as error:
                part.state, part.text = LOSS, str(error)
                raise
            finally:
                if part.state == RUNNING:
                    part.state, part.text = LOSS, "its worker is gone"
                self._notify()
        connection.notify(Kind.BYE)

    def _hear(self, connection: Connection) -> tuple[str, int]:
        connection.expect_bytes([Kind.CALL], LARGEST_ANSWER)
        exchange([connection], self._limits.answer)
        try:
            token, host, port = wire.decode(connection.take().data.tobytes())
            if token != self._token or type(host) is not str or not 0 < int(port) < 1 << 16:
                raise ShapeError("not one of this call")
        except (ShapeError, TypeError, ValueError):
            raise FrameError(f"a worker of {self._me.name} belongs to another call") from None
        # The worker sends nothing before it has an order; expecting a frame notices its end.
        connection.expect_bytes([Kind.ANSWER], LARGEST_ANSWER)
        return host, int(port)

    def _do(self, connection: Connection, part: Part, address: tuple[str, int]) -> None:
        connection.post_bytes(Kind.CALL, part.order.encode())
        for words in part.words:
            connection.post(Kind.SHARE, [words])
        part.words = ()

        shape = (len(self._session.here), *part.shape)

        def accept(header: Header) -> Any:
            if header.kind == Kind.SHARE and header.words and header.shapes == (shape,):
                return np.empty(header.nbytes // 8, np.uint64)
            if header.kind == Kind.ANSWER and not header.words and header.nbytes <= LARGEST_ANSWER:
                return np.empty(header.nbytes, np.uint8)
            raise ShapeError(f"sent the shapes {header.shapes} where {shape} was to come")

        who = f"a worker of {self._me.name} at {address[0]}:{address[1]}"
        moved, heard = -1, time.monotonic()
        kind = BUSY
        while kind == BUSY:
            connection.expect(accept)
            while not wait([connection], 4 * _LOOK_SECONDS):
                if moved != (now := connection.sent_bytes + connection.received_bytes):
                    moved, heard = now, time.monotonic()
                silent = time.monotonic() - heard >= self._limits.answer
                if silent or part.abandoned:
                    self._gave_up = True
                    limit = f" within {self._limits.answer:g} s" if silent else ", unlike others"
                    raise PeerTimeoutError(f"{who} did not answer{limit}")
            answer = connection.take()
            if answer.header.words:
                part.result = answer.arrays()[0]
                part.state = DONE
                return
            try:
                kind, text = wire.decode(answer.data.tobytes())
            except (ShapeError, TypeError, ValueError):
                raise FrameError(f"{who} sent a malformed answer") from None
        part.text = printable(str(text).encode())
        part.state = {FAILED: FAILURE, WRONG: FAILURE, ABORT: ABORTED}.get(kind, LOSS)
        part.wrong = kind == WRONG


def _killed(error: BaseException) -> bool:
    """Whether an error says that joblib's backend has lost a process, not that the program failed."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
