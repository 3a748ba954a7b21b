"""Spreading a computation on rows over worker pools, one of every party, by joblib.

1. All parties tell one another how many workers they are to start. Each starts its own with joblib:
   processes on this machine, or the backend that ``joblib.parallel_config`` or ``parties.toml`` names.
2. Once a second or more often, every party tells the others how many of its workers have connected. When
   every party has all of its workers, the smallest number counts, and the workers' addresses are
   exchanged.
3. The rows are cut into as many parts. Worker i of each party gets its party's shares of part i and
   makes a session with the workers i of the other parties (:mod:`mpc.workers.worker`).
4. Once a second or more often, every party tells the others the state of every part. A part that one
   party has lost is lost for all: the other parties drop their shares of its result.
5. Rows of lost parts are cut up again among the remaining and new workers, with fresh keys: back to
   step 2.

Watched parties (:mod:`mpc.core.watching`) check each other before step 3: what was wrong before could make
a worker's check fail or pass by a secret. Workers check each other before they return a result, and a check
that has failed at one ends the session of all. Before a result is used, it is checked that all
were told the same in step 4. What a party says of its workers and parts may be a lie, to all alike: the
session ends if it is not one of the states, or if the party says for ever that it waits or computes.

Cost: the bytes of all parts, and the rounds of the longest, since parts run in parallel; among watched
parties 2 more. What parties tell one another in steps 1, 2 and 4 is not booked. A worker holds its own
party's shares and no other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mpc.array.shared_array import SharedArray
from mpc.core.errors import (
    AbortError,
    ArgumentError,
    AuditError,
    FrameError,
    PeerError,
    PeerTimeoutError,
    ShapeError,
    WorkerError,
)
from mpc.core.events import record
from mpc.session import Session
from mpc.workers import pool
from mpc.workers.pool import Part, WorkerPool
from mpc.workers.worker import Operand, Order, Program, plan_result, words_of

__all__ = ["spread"]

Words = NDArray[np.uint64]
Rows = NDArray[np.intp]
Address = tuple[str, int]

_TRIES = 3
_TURN_SECONDS = 1.0
# How many times the timeout `answer` a part may take at a watched party when it has ended at another.
_MOST_BEHIND = 10
# Bytes of an address in step 2: UTF-8, padded with zeros.
_ADDRESS_BYTES = 264


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
        Of a party in a process of its own, or of a plan.
    program : callable
        Takes a session, some of the rows and all of `others`, and returns a shared array of as
        many rows. It may reveal nothing. All parties give the same, and it can be pickled.
    rows : SharedArray
        The operand that is cut into parts, along its first axis.
    *others : SharedArray
        Operands of which every worker gets a share, uncut.
    n_jobs : int
        How many workers each party has; -1 for as many as joblib offers at every party.
    done : callable, optional
        Called with the number of rows of each part that is done.

    Returns
    -------
    SharedArray

    Raises
    ------
    ArgumentError
        If the parties differ in `n_jobs`. Raised at every party.
    AuditError
        If the provider has dealt wrongly to a worker.
    AbortError
        If a watched party has deviated, in a worker or before. The session has ended.
    WorkerError
        If a party has no workers, the program fails in a worker, or rows are lost three times.
        Raised at every party; the session goes on.
    PeerError
        If another party's own process is lost, or says what cannot be.
    """
    call = _SpreadCall(session, program, (rows, *others))
    if not session.here:
        return call.plan(max(1, n_jobs))
    begin = time.monotonic()
    everybodys = session.tell([np.array([n_jobs]).view(np.uint64)], booked=False)
    numbers = [int(words.view(np.int64)[0]) for words in everybodys]
    if len(set(numbers)) > 1:
        has = ", ".join(f"{p} has {n}" for p, n in zip(session.parties, numbers, strict=True))
        raise ArgumentError(f"n_jobs must be the same at all parties: {has}")
    with WorkerPool(session, program, call.number, n_jobs, len(rows)) as mine:
        mine.start()
        result = call.run(mine, done or (lambda count: None))
    record(
        "spread", me=session.me or "", program=call.label, rows=len(rows), workers=mine.wanted,
        tries=call.tries, seconds=time.monotonic() - begin,
    )  # fmt: skip
    return result


def _cut(rows: Rows, count: int) -> list[Rows]:
    return np.array_split(rows, max(1, min(count, len(rows))))


def _some(words: Words, rows: Rows) -> Words:
    """Return rows of words of shape (p, ...); consecutive rows are a view, not a copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return words[:, rows[0] : rows[-1] + 1]
    return words[:, rows]


class _SpreadCall:
    """One call of :func:`spread`."""

    def __init__(self, session: Session, program: Program, arrays: Sequence[SharedArray]) -> None:
        self.session, self.program, self.arrays = session, program, arrays
        self.number = session.fresh_id()
        self.operands = [Operand.of(x) for x in arrays]
        self.rows = arrays[0].shape[0]
        self.tries = 0
        self.label = getattr(program, "__qualname__", type(program).__qualname__)
        # Results of plans of parts, by the part's number of rows.
        self._part_plans: dict[int, SharedArray] = {}

    def plan_part(self, size: int) -> SharedArray:
        """Return the result of a plan for `size` rows: it has a part's shape, its session the cost."""
        if size not in self._part_plans:
            first, *others = self.operands
            some = replace(first, shape=(size, *first.shape[1:]))
            result = plan_result(self.session, self.program, [some, *others])
            if result.shape[:1] != (size,):
                raise ShapeError(
                    f"the program must return an array of as many rows as it gets, {size},"
                    f" got the shape {result.shape}"
                )
            self._part_plans[size] = result
        return self._part_plans[size]

    def book(self, parts: Sequence[Rows]) -> None:
        """Book the cost of parts that were computed in parallel."""
        self.session.book_at_once([self.plan_part(len(part)).session for part in parts])

    def result(self, words: Words) -> SharedArray:
        """Make the result of all rows from shares of shape (p, ...)."""
        any_part = next(iter(self._part_plans.values()))
        return SharedArray(self.session, words, any_part.frac_bits, any_part.bound)

    def plan(self, count: int) -> SharedArray:
        """Book `count` parts, and return the result of all rows where no party lives."""
        parts = _cut(np.arange(self.rows), count)
        self.session.check_each_other()
        self.book(parts)
        self.session.check_each_other()
        shape = (0, self.rows, *self.plan_part(len(parts[0])).shape[1:])
        return self.result(np.empty(shape, np.uint64))

    def run(self, mine: WorkerPool, done: Callable[[int], object]) -> SharedArray:
        """Compute all rows, some of them again where workers are lost."""
        left = np.arange(self.rows)
        words: Words | None = None
        while len(left):
            self.tries += 1
            workers = self._meet(mine)
            cut = _cut(left, len(workers[0]))
            self.session.check_each_other()
            parts = self._order(mine, cut, workers)
            states = self._watch(mine, parts, done)
            self.session.check_each_other()
            kept = [k for k, state in enumerate(states) if state == pool.DONE]
            if words is None:
                shape = (len(self.session.here), self.rows, *parts[0].shape[1:])
                words = np.empty(shape, np.uint64)
            for k in kept:
                result = parts[k].result
                assert result is not None
                words[:, cut[k]] = result
            if kept:
                self.book([cut[k] for k in kept])
            lost = [cut[k] for k in range(len(cut)) if k not in kept]
            left = np.concatenate(lost) if lost else left[:0]
        assert words is not None
        return self.result(words)

    def _meet(self, mine: WorkerPool) -> list[list[Address]]:
        """Step 2: wait for the workers, and return the addresses of each party's."""
        session = self.session
        assert session.configuration is not None
        mine.wait_anew()
        begin, most = time.monotonic(), pool.most_seconds(session.configuration.timeouts.connect)
        while True:
            state, count = mine.status(self.tries == 1)
            own = np.array([state, count], np.uint64)
            everybodys = [words.tolist() for words in session.tell([own], booked=False)]
            states = [state for state, _ in everybodys]
            for name, (told, ready) in zip(session.parties, everybodys, strict=True):
                if told not in pool.STATES or (told == pool.HERE and not ready):
                    self._end(
                        FrameError(f"{name} sent a state of its workers that is none: {told}")
                    )
                if told == pool.WAITING and time.monotonic() - begin > most:
                    self._end(PeerTimeoutError(f"{name} had no workers within {most:g} s"))
            if pool.BROKEN in states:
                name = session.parties[states.index(pool.BROKEN)]
                why = mine.problem if name == session.me else "its error says why"
                raise WorkerError(f"{name} has no workers: {why}")
            if set(states) == {pool.HERE}:
                break
            if state == pool.WAITING:
                mine.wait_for_workers(count, _TURN_SECONDS)
        count = min(count for _, count in everybodys)
        self._workers = mine.take(count)
        # A worker that is gone by now gets an empty address, and its part is lost.
        own = np.zeros((count, _ADDRESS_BYTES), np.uint8)
        for row, worker in zip(own, self._workers, strict=False):
            text = f"{worker.address[0]} {worker.address[1]}".encode()
            row[: len(text)] = np.frombuffer(text, np.uint8)
        told = session.tell([own.view(np.uint64)], booked=False)
        return [
            [self._address(name, row) for row in words]
            for name, words in zip(session.parties, told, strict=True)
        ]

    def _address(self, name: str, words: Words) -> Address:
        text = words.tobytes().rstrip(b"\0").decode("ascii", "replace")
        host, _, port = text.rpartition(" ")
        if text and (not port.isdecimal() or not 0 < int(port) < 1 << 16 or not host.isprintable()):
            self._end(FrameError(f"{name} sent a malformed address of a worker"))
        return host, int(port or 0)

    def _end(self, error: PeerError) -> NoReturn:
        """End the session: what another party has told is not what an honest one tells."""
        with self.session.protocol("workers"):
            raise error

    def _order(
        self, mine: WorkerPool, cut: Sequence[Rows], workers: Sequence[Sequence[Address]]
    ) -> list[Part]:
        """Step 3: send each of this party's workers its part."""
        session, number = self.session, self.session.here[0]
        held = [
            words_of(x) if operand.held_by(number) else None
            for x, operand in zip(self.arrays, self.operands, strict=True)
        ]
        parts = []
        for k, rows in enumerate(cut):
            # The workers' handshake compares this name.
            name = (
                f"{self.label}, session {session.session_id.hex()}, call {self.number}, try {self.tries},"
                f" part {k} of {len(cut)}, {session.memory_limit} bytes a batch"
            )
            first, *others = self.operands
            some = replace(first, shape=(len(rows), *first.shape[1:]))
            order = Order(name, tuple(each[k] for each in workers), (some, *others))
            words = [
                _some(w, rows) if place == 0 else w for place, w in enumerate(held) if w is not None
            ]
            parts.append(Part(order, words, self.plan_part(len(rows)).shape))
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
        """Step 4: wait until all parts have ended at all parties; return the joint state of each part."""
        session = self.session
        assert session.configuration is not None
        answer = session.configuration.timeouts.answer
        patience, behind = answer + _TURN_SECONDS, _MOST_BEHIND * answer
        seen: dict[int, float] = {}
        # When a part had ended at the first of the parties.
        ended: dict[int, float] = {}
        while True:
            sent = [part.state for part in parts]
            states = np.array(session.tell([np.array(sent, np.uint64)], booked=False))
            for name, own in zip(session.parties, states.tolist(), strict=True):
                if not pool.PART_STATES.issuperset(own):
                    self._end(FrameError(f"{name} sent states of parts that are none: {own}"))
            joint = [joint_state(column) for column in states.T.tolist()]
            for k in np.flatnonzero(np.any(states != pool.RUNNING, axis=0)).tolist():
                late = time.monotonic() - ended.setdefault(k, time.monotonic()) > behind
                if late and session.watch is not None and pool.RUNNING in states[:, k]:
                    name = session.parties[states[:, k].tolist().index(pool.RUNNING)]
                    self._end(
                        PeerTimeoutError(
                            f"part {k} of {len(parts)} had not ended at {name} {behind:g} s after"
                            " another party's"
                        )
                    )
            for k, state in enumerate(joint):
                if state != pool.RUNNING and k not in seen:
                    seen[k] = time.monotonic()
                    if state == pool.DONE:
                        done(parts[k].shape[0])
                if k in seen and time.monotonic() - seen[k] > patience:
                    parts[k].abandoned = True
            if np.all(states != pool.RUNNING):
                break
            if pool.RUNNING in sent:
                mine.wait_for_parts(parts, sent, _TURN_SECONDS)
        self._check(parts, states)
        return joint

    def _check(self, parts: Sequence[Part], states: Words) -> None:
        """Raise WorkerError if a program failed, or rows were lost in the last try.

        `states` has shape (parties, parts). AbortError if a check failed at a worker of any party.
        """
        if np.any(states == pool.ABORTED):
            self._end(AbortError())
        names, me = self.session.parties, self.session.me
        for state, what in ((pool.FAILURE, "failed"), (pool.LOSS, f"was lost {_TRIES} times")):
            if state == pool.LOSS and self.tries < _TRIES:
                continue
            found = np.argwhere(states == state)
            if not len(found):
                continue
            mine = [k for party, k in found.tolist() if names[party] == me]
            party, k = found[0].tolist() if not mine else (self.session.here[0], mine[0])
            if mine and parts[k].wrong:
                raise AuditError(parts[k].text)
            why = f": {parts[k].text}" if mine else ", and its error says why"
            raise WorkerError(f"part {k} of {len(parts)} {what} at a worker of {names[party]}{why}")


def joint_state(states: Sequence[int]) -> int:
    """Return the state of a part for all parties, from its state at each."""
    for worst in (pool.ABORTED, pool.FAILURE):
        if worst in states:
            return worst
    if pool.LOSS in states:
        return pool.LOSS
    return pool.DONE if set(states) == {pool.DONE} else pool.RUNNING
