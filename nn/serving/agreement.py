"""Which requests every party has got alike: those can be computed, and no other stops anybody.

A request's key is a digest of who asks, under which id, for which answer of which model, on how
many rows. Parties tell the last one the keys that they have; it leads, and lets all compute what
all have. What not all have waits beside, and is refused when it has waited too long, or at once if
another party has the same id under another key or has refused it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from mpc.core import wire
from mpc.core.limits import Allowance, Limits

__all__ = ["KEY_BYTES", "PER_TURN", "Book", "Request"]

Words = NDArray[np.uint64]

# Of a key: what stands for the client and its id, and the digest of everything.
_TAG_BYTES = 8
KEY_BYTES = _TAG_BYTES + 16
PER_TURN = 64
# So many keys of requests that were refused are kept, to refuse what comes late at other parties.
_KEPT = 4096

DIFFERENT = (
    "not every party has got this request alike: it must go to all of them, with the same id, model,"
    " answer and number of rows"
)


class Request:
    """One client's rows, until they are answered.

    Attributes
    ----------
    kind : hashable
        What must be equal for requests to be evaluated together.
    key : bytes
        The same at every party that has got the same request.
    result : uint64 array, or None
        This party's share of the answer.
    problem : str
        Why there is none.
    version : bytes
        Which files the model is from.
    cost : (int, int)
        Rounds and bytes of all that was computed together with it.
    arrived : float
        When, by :func:`time.monotonic`.
    later : bool
        Whether the same rows may well be answered if they are sent again.
    """

    __slots__ = (
        "answer", "arrived", "client", "cost", "done", "id", "key", "kind", "later", "model",
        "problem", "result", "rows", "shares", "version", "wake",
    )  # fmt: skip

    def __init__(
        self, client: str, id: bytes, model: str, version: bytes, answer: str, rows: int,
        shares: Words, wake: Callable[[], None], kind: Hashable,
    ) -> None:  # fmt: skip
        self.client, self.id, self.model, self.answer, self.rows = client, id, model, answer, rows
        self.version, self.shares, self.wake, self.kind = version, shares, wake, kind
        self.done, self.later, self.problem = False, False, ""
        self.result: Words | None = None
        self.cost, self.arrived = (0, 0), time.monotonic()
        whole = wire.encode((client, id, model, version, answer, rows))
        self.key = _tag(client, id) + hashlib.blake2b(whole, digest_size=16).digest()

    def finish(self, result: Words | None, problem: str = "", *, later: bool = False) -> None:
        """Let the client have its answer."""
        self.result, self.problem, self.later, self.done = result, problem, later, True
        self.wake()


def _tag(client: str, id: bytes) -> bytes:
    return hashlib.blake2b(wire.encode((client, id)), digest_size=_TAG_BYTES).digest()


class Book:
    """The requests at one party.

    Parameters
    ----------
    me : int
        This party's number.
    parties : int
        How many there are; the last leads.
    patience : float
        Seconds that a request may wait for the other parties to get it.
    """

    def __init__(self, me: int, parties: int, patience: float) -> None:
        self._me, self._leads = me, me == parties - 1
        self._all = (1 << parties - 1) - 1
        self._patience = patience
        self.changed = threading.Condition()
        self._waiting: dict[bytes, Request] = {}
        self._in_progress: Counter[str] = Counter()
        self._allowances: dict[str, Allowance] = {}
        # What the others are to be told: keys this party has, and keys it has refused.
        self._has: list[bytes] = []
        self._has_not: list[bytes] = []
        self._closed = "the parties have not met yet"
        self._forget_all()

    def _forget_all(self) -> None:
        # What the leader knows: which others have a key and since when, by their bits.
        self._had: dict[bytes, int] = {}
        self._since: OrderedDict[bytes, float] = OrderedDict()
        self._tags: dict[bytes, bytes] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._to_refuse: list[bytes] = []
        # What all have: each client's, by kind. Who comes first in line says what is computed next.
        self._ready: OrderedDict[str, OrderedDict[Hashable, deque[Request]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    # A session's beginning and end.

    def open(self) -> None:
        """Take requests from now on."""
        with self.changed:
            self._closed = ""

    def close(self, problem: str) -> None:
        """Take none for now, and answer all with `problem`."""
        with self.changed:
            self._closed = problem
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._in_progress.clear()
            self._has.clear()
            self._has_not.clear()
            self._forget_all()
        for request in waiting:
            request.finish(None, problem, later=True)

    # What clients send and the others tell.

    def add(self, request: Request, limits: Limits) -> None:
        """Take a request, or answer it with why not."""
        client, key = request.client, request.key
        with self.changed:
            problem, later = self._closed, True
            if problem:
                self._refuse(key)
            elif key in self._waiting:
                problem, later = "this request is in progress already", False
            elif self._in_progress[client] >= limits.requests:
                problem = (
                    f"{client} has {limits.requests} requests in progress, and may have no more"
                )
                self._refuse(key)
            else:
                allowance = self._allowances.setdefault(client, Allowance())
                if not allowance.take(request.rows, limits.rows_an_hour):
                    problem = f"{client} may ask for {limits.rows_an_hour} rows an hour"
                    later = False
                    self._refuse(key)
            if not problem:
                self._waiting[key] = request
                self._in_progress[client] += 1
                if self._leads:
                    self._note(key, 0)
                else:
                    self._has.append(key)
        if problem:
            request.finish(None, problem, later=later)

    def news(self) -> tuple[bytes, bytes]:
        """Return the keys that this party has and those that it has refused, since it told last."""
        if not self._has and not self._has_not:
            return b"", b""
        with self.changed:
            news = b"".join(self._has), b"".join(self._has_not)
            self._has.clear()
            self._has_not.clear()
        return news

    def heard(self, party: int, has: Iterable[bytes], has_not: Iterable[bytes]) -> None:
        """Take what another party has told the leader."""
        if not self._leads:
            return
        with self.changed:
            for key in has:
                self._note(key, 1 << party)
            for key in has_not:
                self._drop(self._tags.get(key[:_TAG_BYTES], key), "another party has refused it")

    def refuse_id(self, client: str, id: bytes) -> None:
        """Let the others know that this party has refused a client's request, whatever it asks."""
        with self.changed:
            self._refuse(_tag(client, id) + bytes(KEY_BYTES - _TAG_BYTES))

    def _refuse(self, key: bytes) -> None:
        """Let the others know that this party has no such request."""
        if self._leads:
            self._drop(self._tags.get(key[:_TAG_BYTES], key), "another party has refused it")
        elif len(self._has_not) < _KEPT:
            self._has_not.append(key)

    def _note(self, key: bytes, bit: int) -> None:
        """Enter that a party has a request."""
        if key[:_TAG_BYTES] in self._refused:
            self._had[key] = self._had.get(key, 0) | bit
            self._drop(key, DIFFERENT)
            return
        other = self._tags.setdefault(key[:_TAG_BYTES], key)
        self._had[key] = had = self._had.get(key, 0) | bit
        if other != key:
            self._drop(other, DIFFERENT)
            self._drop(key, DIFFERENT)
            return
        self._since.setdefault(key, time.monotonic())
        if had == self._all and (request := self._waiting.get(key)) is not None:
            kinds = self._ready.setdefault(request.client, OrderedDict())
            kinds.setdefault(request.kind, deque()).append(request)
            self.changed.notify_all()

    def _drop(self, key: bytes, problem: str) -> None:
        """Refuse a request at all parties that have it, or will."""
        if self._forget(key):
            self._to_refuse.append(key)
            self.changed.notify_all()
        # Under whatever key the other parties have it.
        self._refused[key[:_TAG_BYTES]] = None
        if len(self._refused) > _KEPT:
            self._refused.popitem(last=False)
        self._finish(key, problem)

    def _forget(self, key: bytes) -> int:
        """Remove what the leader knows of a request; return which others have it."""
        self._since.pop(key, None)
        if self._tags.get(key[:_TAG_BYTES]) == key:
            del self._tags[key[:_TAG_BYTES]]
        return self._had.pop(key, 0)

    def _finish(self, key: bytes, problem: str) -> None:
        request = self._pop(key)
        if request is not None:
            # Of one that keeps to the rules this is what a session's beginning or end has done.
            request.finish(None, problem, later=True)

    def _pop(self, key: bytes) -> Request | None:
        request = self._waiting.pop(key, None)
        if request is not None:
            self._in_progress[request.client] -= 1
            if not self._in_progress[request.client]:
                del self._in_progress[request.client]
        return request

    # Turns.

    def await_turn(self, seconds: float, also: Callable[[], bool]) -> None:
        """Wait until there is something to do, `also` says so, or for so long."""
        with self.changed:
            self.changed.wait_for(lambda: self._ready or self._to_refuse or also(), seconds)

    def choose(self, rows_at_once: Callable[[str], int]) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of what comes next, and of what is refused, for all parties.

        The first client in line says of which kind, and goes to the end of the line. With it goes
        what others have of that kind, a request of each client at a time, as far as one evaluation
        goes.
        """
        with self.changed:
            late = time.monotonic() - self._patience
            while self._since and next(iter(self._since.values())) < late:
                self._drop(next(iter(self._since)), DIFFERENT)
            refused = self._to_refuse[:PER_TURN]
            del self._to_refuse[:PER_TURN]
            chosen = self._next_kind(PER_TURN - len(refused), rows_at_once)
            return [request.key for request in chosen], refused

    def _next_kind(self, most: int, rows_at_once: Callable[[str], int]) -> list[Request]:
        chosen: list[Request] = []
        while self._ready and most and not chosen:
            first, kinds = next(iter(self._ready.items()))
            kind = next(iter(kinds))
            rows = 0
            line = [(name, each[kind]) for name, each in self._ready.items() if kind in each]
            while line and len(chosen) < most:
                left = []
                for name, requests in line:
                    request = self._first_of(requests)
                    if request is None or len(chosen) == most:
                        continue
                    if not chosen:
                        limit = rows_at_once(request.model)
                    elif rows + request.rows > limit:
                        continue
                    chosen.append(requests.popleft())
                    rows += request.rows
                    self._forget(request.key)
                    left.append((name, requests))
                line = left
            kinds.move_to_end(kind)
            self._ready.move_to_end(first)
            self._tidy(kind)
        return chosen

    def _first_of(self, requests: deque[Request]) -> Request | None:
        """Return the first that has not been refused meanwhile."""
        while requests:
            key = requests[0].key
            if self._waiting.get(key) is requests[0] and key in self._had:
                return requests[0]
            requests.popleft()
        return None

    def _tidy(self, kind: Hashable) -> None:
        for name, kinds in tuple(self._ready.items()):
            if kind in kinds and not kinds[kind]:
                del kinds[kind]
                if not kinds:
                    del self._ready[name]

    def prompt(self) -> None:
        """Let whoever awaits a turn look again at what else there is to do."""
        with self.changed:
            self.changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether the leader has nothing that all have."""
        return not self._ready

    def take(self, keys: Iterable[bytes]) -> list[Request]:
        """Take out requests of a turn.

        Raises
        ------
        KeyError
            If there is none under one of the keys.
        """
        with self.changed:
            found = []
            for key in keys:
                request = self._pop(key)
                if request is None:
                    raise KeyError(key)
                found.append(request)
            return found

    def refuse(self, keys: Iterable[bytes]) -> None:
        """Answer requests that the leader refuses, where they are here."""
        with self.changed:
            for key in keys:
                self._finish(key, DIFFERENT)
