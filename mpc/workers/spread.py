"""Spreading a computation on rows over workers of every party, by joblib.

1. All parties open how many workers they want, and each starts its own with joblib: processes of
   this machine, or whatever ``joblib.parallel_config`` or ``parties.toml`` names.
2. In turns, at least one every second, each party tells how many of its workers have come. When all
   have, the smallest number counts, and the addresses are exchanged.
3. The rows are cut into as many parts. Worker i of each party gets its party's shares of part i and
   makes a session with the workers i of the others (:mod:`mpc.workers.worker`).
4. In turns each party tells which parts have ended, and how. A part that any party has lost is lost
   for all: what others have of it is dropped.
5. Rows of lost parts are cut up again among the workers that are left or new, with fresh keys: back
   to step 2.

Cost: that of the parts, whose rounds run at the same time. The turns are not counted. A worker
never holds more than its own party's shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpc.array.shared_array import SharedArray
from mpc.core.errors import ArgumentError, FrameError, ShapeError, WorkerError
from mpc.core.events import record
from mpc.session import Session
from mpc.workers import pool
from mpc.workers.pool import Part, WorkerPool
from mpc.workers.worker import Operand, Order, Program, planned, words_of

__all__ = ["jobs", "spread"]

Words = NDArray[np.uint64]
Rows = NDArray[np.intp]
Address = tuple[str, int]

_TRIES = 3
_TURN_SECONDS = 1.0
# Of an address, as UTF-8 with zeros behind it.
_ADDRESS_BYTES = 264


def jobs(session: Session, n_jobs: int | None, rows: int) -> int:
    """Return over how many workers to spread, -1 for all there are, 1 for none.

    Parameters
    ----------
    session : Session
    n_jobs : int, optional
        Default: what ``[workers]`` in parties.toml says, 1 without it.
    rows : int

    Raises
    ------
    ArgumentError
        If `n_jobs` is neither at least 1 nor -1, or asks for workers in a session where all parties
        live in this process.
    """
    if n_jobs is None:
        default = session.configuration.workers if session.configuration else None
        return default.n_jobs if default and rows >= default.rows else 1
    if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
        raise ArgumentError(f"n_jobs must be a whole number of at least 1, or -1, got {n_jobs!r}")
    if n_jobs != 1 and len(session.here) > 1:
        raise ArgumentError(
            f"n_jobs must be 1 where all parties live in one process, got {n_jobs}: that process"
            " uses all cores already; workers are for parties apart, mpc.Session(me=...)"
        )
    return n_jobs if rows > 1 else 1


def spread(
    session: Session,
    program: Program,
    rows: SharedArray,
    *others: SharedArray,
    n_jobs: int,
    done: Callable[[int], object] | None = None,
) -> SharedArray:
    """Compute ``program(session, rows, *others)`` in parts, each on a worker of every party.

    Parameters
    ----------
    session : Session
        Of one party, or a plan's.
    program : callable
        Takes a session, some of the rows and all of `others`, and returns a shared array of as
        many rows. It may reveal nothing. All parties give the same, and it can be pickled.
    rows : SharedArray
        What is cut, along its first axis.
    *others : SharedArray
        What every worker gets a share of as it is.
    n_jobs : int
        How many workers each party has; -1 for as many as joblib offers at every party.
    done : callable, optional
        Called with numbers of rows that are done.

    Returns
    -------
    SharedArray

    Raises
    ------
    ArgumentError
        If the parties differ in `n_jobs`: at every party.
    WorkerError
        If a party has no workers, a program fails in one, or rows are lost three times: at every
        party. The session goes on.
    PeerError
        If another party's own process is lost.
    """
    work = _Work(session, program, (rows, *others))
    if not session.here:
        return work.planned(max(1, n_jobs))
    begin = time.monotonic()
    told = session.tell([np.array([n_jobs]).view(np.uint64)], booked=False)
    numbers = [int(words.view(np.int64)[0]) for words in told]
    if len(set(numbers)) > 1:
        has = ", ".join(f"{p} has {n}" for p, n in zip(session.parties, numbers, strict=True))
        raise ArgumentError(f"n_jobs must be the same at all parties: {has}")
    with WorkerPool(session, program, work.number, n_jobs, len(rows)) as mine:
        mine.start()
        result = work.run(mine, done or (lambda count: None))
    record(
        "spread", me=session.me or "", program=work.label, rows=len(rows), workers=mine.wanted,
        tries=work.tries, seconds=time.monotonic() - begin,
    )  # fmt: skip
    return result


def _cut(rows: Rows, count: int) -> list[Rows]:
    return np.array_split(rows, max(1, min(count, len(rows))))


def _some(words: Words, rows: Rows) -> Words:
    """Return rows of words of shape (1, ...), without copying those that follow one another."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return words[0, rows[0] : rows[-1] + 1]
    return words[0, rows]


class _Work:
    """One call of :func:`spread`."""

    def __init__(self, session: Session, program: Program, arrays: Sequence[SharedArray]) -> None:
        self.session, self.program, self.arrays = session, program, arrays
        self.number = session.fresh_id()
        self.operands = [Operand.of(x) for x in arrays]
        self.rows = arrays[0].shape[0]
        self.tries = 0
        self.label = getattr(program, "__qualname__", type(program).__qualname__)
        self._forms: dict[int, SharedArray] = {}

    def form(self, size: int) -> SharedArray:
        """Return what the result of so many rows looks like, and with its session what it costs."""
        if size not in self._forms:
            first, *others = self.operands
            some = replace(first, shape=(size, *first.shape[1:]))
            form = planned(self.session, self.program, [some, *others])
            if form.shape[:1] != (size,):
                raise ShapeError(
                    f"the program must return an array of as many rows as it gets, {size},"
                    f" got the shape {form.shape}"
                )
            self._forms[size] = form
        return self._forms[size]

    def book(self, parts: Sequence[Rows]) -> None:
        """Book what parts cost."""
        self.session.book_at_once([self.form(len(part)).session for part in parts])

    def result(self, words: Words) -> SharedArray:
        """Make the result from shares of shape (p, ...)."""
        form = next(iter(self._forms.values()))
        return SharedArray(self.session, words, form.frac_bits, form.bound)

    def planned(self, count: int) -> SharedArray:
        """Return the result where no party lives."""
        parts = _cut(np.arange(self.rows), count)
        self.book(parts)
        return self.result(np.empty((0, self.rows, *self.form(len(parts[0])).shape[1:]), np.uint64))

    def run(self, mine: WorkerPool, done: Callable[[int], object]) -> SharedArray:
        """Compute all rows, some of them again where workers are lost."""
        left = np.arange(self.rows)
        words: Words | None = None
        while len(left):
            self.tries += 1
            workers = self._meet(mine)
            cut = _cut(left, len(workers[0]))
            parts = self._order(mine, cut, workers)
            states = self._watch(mine, parts, done)
            kept = [k for k, state in enumerate(states) if state == pool.DONE]
            if words is None:
                words = np.empty((1, self.rows, *parts[0].shape[1:]), np.uint64)
            for k in kept:
                result = parts[k].result
                assert result is not None
                words[0, cut[k]] = result
            if kept:
                self.book([cut[k] for k in kept])
            lost = [cut[k] for k in range(len(cut)) if k not in kept]
            left = np.concatenate(lost) if lost else left[:0]
        assert words is not None
        return self.result(words)

    def _meet(self, mine: WorkerPool) -> list[list[Address]]:
        """Step 2: wait for the workers, and return the addresses of each party's."""
        session = self.session
        mine.wait_anew()
        while True:
            state, count = mine.status(self.tries == 1)
            own = np.array([state, count], np.uint64)
            told = [words.tolist() for words in session.tell([own], booked=False)]
            states = [state for state, _ in told]
            if pool.BROKEN in states:
                name = session.parties[states.index(pool.BROKEN)]
                why = mine.problem if name == session.me else "its error says why"
                raise WorkerError(f"{name} has no workers: {why}")
            if set(states) == {pool.HERE}:
                break
            if state == pool.WAITING:
                mine.wait_for_workers(count, _TURN_SECONDS)
        count = min(count for _, count in told)
        self._workers = mine.take(count)
        # One that has gone meanwhile has no address, and its part is lost.
        own = np.zeros((count, _ADDRESS_BYTES), np.uint8)
        for row, worker in zip(own, self._workers, strict=False):
            text = f"{worker.address[0]} {worker.address[1]}".encode()
            row[: len(text)] = np.frombuffer(text, np.uint8)
        everybody = session.tell([own.view(np.uint64)], booked=False)
        return [
            [_address(name, row) for row in words]
            for name, words in zip(session.parties, everybody, strict=True)
        ]

    def _order(
        self, mine: WorkerPool, cut: Sequence[Rows], workers: Sequence[Sequence[Address]]
    ) -> list[Part]:
        """Step 3."""
        session, number = self.session, self.session.here[0]
        held = [
            words_of(x) if operand.held_by(number) else None
            for x, operand in zip(self.arrays, self.operands, strict=True)
        ]
        parts = []
        for k, rows in enumerate(cut):
            # What the workers' handshake compares.
            name = (
                f"{self.label}, session {session.session_id.hex()}, call {self.number}, try {self.tries},"
                f" part {k} of {len(cut)}, {session.memory_limit} bytes a batch"
            )
            first, *others = self.operands
            some = replace(first, shape=(len(rows), *first.shape[1:]))
            order = Order(name, tuple(each[k] for each in workers), (some, *others))
            words = [
                _some(w, rows) if place == 0 else w[0]
                for place, w in enumerate(held)
                if w is not None
            ]
            parts.append(Part(order, words, self.form(len(rows)).shape))
        for part, worker in zip(parts, self._workers, strict=False):
            if all(port for _, port in part.order.addresses):
                mine.give(worker, part)
        for part in parts:
            if not all(port for _, port in part.order.addresses):
                part.state, part.text = pool.LOSS, "a worker is gone"
        return parts

    def _watch(
        self, mine: WorkerPool, parts: Sequence[Part], done: Callable[[int], object]
    ) -> list[int]:
        """Step 4: wait until all parts have ended at all parties; return how, for all together."""
        session = self.session
        assert session.configuration is not None
        patience = session.configuration.timeouts.answer + _TURN_SECONDS
        seen: dict[int, float] = {}
        while True:
            sent = [part.state for part in parts]
            told = np.array(session.tell([np.array(sent, np.uint64)], booked=False))
            joint = [_together(column) for column in told.T.tolist()]
            for k, state in enumerate(joint):
                if state != pool.RUNNING and k not in seen:
                    seen[k] = time.monotonic()
                    if state == pool.DONE:
                        done(parts[k].shape[0])
                if k in seen and time.monotonic() - seen[k] > patience:
                    parts[k].abandoned = True
            if np.all(told != pool.RUNNING):
                break
            if pool.RUNNING in sent:
                mine.wait_for_parts(parts, sent, _TURN_SECONDS)
        self._check(parts, told)
        return joint

    def _check(self, parts: Sequence[Part], told: Words) -> None:
        """Raise where a program failed, or rows are lost once too often."""
        names, me = self.session.parties, self.session.me
        for state, what in ((pool.FAILURE, "failed"), (pool.LOSS, f"was lost {_TRIES} times")):
            if state == pool.LOSS and self.tries < _TRIES:
                continue
            found = np.argwhere(told == state)
            if not len(found):
                continue
            mine = [k for party, k in found.tolist() if names[party] == me]
            party, k = found[0].tolist() if not mine else (self.session.here[0], mine[0])
            why = f": {parts[k].text}" if mine else ", and its error says why"
            raise WorkerError(f"part {k} of {len(parts)} {what} at a worker of {names[party]}{why}")


def _together(states: Sequence[int]) -> int:
    """Return what a part's states at all parties mean together."""
    if pool.FAILURE in states:
        return pool.FAILURE
    if pool.LOSS in states:
        return pool.LOSS
    return pool.DONE if set(states) == {pool.DONE} else pool.RUNNING


def _address(name: str, words: Words) -> Address:
    text = words.tobytes().rstrip(b"\0").decode("ascii", "replace")
    host, _, port = text.rpartition(" ")
    if text and (not port.isdecimal() or not 0 < int(port) < 1 << 16 or not host.isprintable()):
        raise FrameError(f"{name} sent an address of a worker that is none")
    return host, int(port or 0)
