"""Agreement on requests: the parties compute those that every party has received.

A request's key is a digest of client, id, model, answer, number of rows and whether the client is trusted,
so parties that have received the same request, and say the same of its client, have the same key; watched
parties also of the client's commitments to its shares (:mod:`nn.serving.parcels`). The last
party is the leader. The others send the leader the keys of their requests; the leader chooses among the
keys that all parties have. A request that some parties lack delays no other: it is refused when it has
waited too long, or at once if another party has refused it or has its id under another key. What a turn
refuses is refused again, whoever says it has it, until all parties have said that they are past that turn:
what they said before may be late, and what a turn computes must be at every party.

Every party counts what a client asks for in an hour, and refuses on its own what is beyond the limit; then
all refuse it. A request that is refused without being computed is not counted, at any party.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mpc.core.limits import Allowance, Limits
from nn.serving.parcels import Contents

__all__ = [
    "DIGEST", "ERROR", "KEY_BYTES", "LATER", "LIMIT", "PER_TURN", "RANGE", "STATUSES", "Book", "Request",
]  # fmt: skip

Words = NDArray[np.uint64]

# A key is a tag, the digest of client and id, and the digest of the whole request.
_TAG_BYTES = 8
KEY_BYTES = _TAG_BYTES + 16
PER_TURN = 64
# A turn with requests of several kinds takes about so long at most, by the kinds' last evaluations:
# what comes meanwhile waits for its end.
_SECONDS_OF_A_TURN = 0.25
# Tags of refused requests that the leader remembers, since other parties may receive them later. As many
# may be in turns that not all parties have passed: no turn refuses more until they have.
_KEPT = 4096
# Keys that the leader keeps for each other party, and refusals that it has to tell it. What it says beyond
# that the leader does not hear: its memory is not another's to fill, nor is the room of the third ones.
_HEARD = 1 << 17

STATUSES = ERROR, LATER, LIMIT, RANGE, DIGEST = "error", "later", "limit", "range", "digest"
"""Why a request has no result: it can have none; the parties cannot answer now; its client has asked for
too much in an hour; one of its rows is outside the model's range; it is for a model with another digest."""

DIFFERENT = (
    "not every party has got this request alike: it must go to all of them, with the same id, model,"
    " answer, number of rows and commitments, and all must say the same in parties.toml of whether its"
    " client is trusted"
)


class Request:
    """A client's request at one party, until it is answered.

    Attributes
    ----------
    kind : hashable
        Equal for requests that can be evaluated together.
    key : bytes
        Equal at all parties that have received the same request.
    shares : uint64 array of shape (p, rows, features)
        Of the rows, of each of the party's p roles.
    contents : Contents or None
        What the client sent with the shares.
    result : uint64 array, or None
        This party's share of the answer; among watched parties the answer under the client's mask.
    problem : str
        Why there is no result.
    version : bytes
        Id of the set of files that the model was loaded from.
    cost : (int, int)
        Rounds and bytes of the evaluation, which other requests may have shared.
    arrived : float
        Time of arrival, by :func:`time.monotonic`.
    status : str
        Of an answer without a result, see :data:`STATUSES`.
    wait : float
        Seconds after which a request beyond a limit may be sent again.
    trusted : bool
        Whether this party believes that the client's rows are in range.
    """

    __slots__ = (
        "answer", "arrived", "client", "contents", "cost", "done", "id", "key", "kind", "model", "problem",
        "result", "rows", "shares", "status", "trusted", "version", "wait", "wake",
    )  # fmt: skip

    def __init__(
        self, client: str, id: bytes, model: str, version: bytes, answer: str, rows: int,
        shares: Words, wake: Callable[[], None], kind: Hashable, trusted: bool = False,
        contents: Contents | None = None,
    ) -> None:  # fmt: skip
        self.client, self.id, self.model, self.answer, self.rows = client, id, model, answer, rows
        self.version, self.shares, self.wake, self.kind = version, shares, wake, kind
        self.contents = contents
        self.done, self.status, self.problem, self.wait = False, "", "", 0.0
        self.result: Words | None = None
        self.cost, self.arrived, self.trusted = (0, 0), time.monotonic(), trusted
        whole = _joined(
            client.encode(), id, model.encode(), version, answer.encode(), b"%d" % rows,
            b"trusted" if trusted else b"", b"" if contents is None else contents.committed,
        )  # fmt: skip
        self.key = _tag(client, id) + hashlib.blake2b(whole, digest_size=16).digest()

    @property
    def later(self) -> bool:
        """Whether the client may send the same rows again at once."""
        return self.status == LATER

    def finish(self, result: Words | None, problem: str = "", status: str = "error") -> None:
        """Set result or problem, and wake the conversation that answers the client."""
        self.result, self.problem, self.done = result, problem, True
        self.status = "" if result is not None else status
        self.wake()


def _tag(client: str, id: bytes) -> bytes:
    """Return the first part of a key."""
    return hashlib.blake2b(_joined(client.encode(), id), digest_size=_TAG_BYTES).digest()


def _joined(*parts: bytes) -> bytes:
    """Return the parts behind their lengths: other parts never give the same bytes."""
    return struct.pack(f"<{len(parts)}I", *map(len, parts)) + b"".join(parts)


def _places(bits: int) -> list[int]:
    """Return the numbers of the parties whose bits are set."""
    return [place for place in range(bits.bit_length()) if bits >> place & 1]


class Book:
    """The requests at one party.

    Parameters
    ----------
    me : int
        This party's number.
    parties : int
        Number of parties; the last one is the leader.
    patience : float
        Seconds that a request may wait until the other parties have received it.
    """

    def __init__(self, me: int, parties: int, patience: float) -> None:
        self._me, self._leads = me, me == parties - 1
        self._all = (1 << parties - 1) - 1
        self._patience = patience
        self.changed = threading.Condition()
        self._waiting: dict[bytes, Request] = {}
        self._in_progress: Counter[str] = Counter()
        # Of requests and of rows, by client. They outlive sessions.
        self._allowances: dict[str, tuple[Allowance, Allowance]] = {}
        # Not yet sent to the leader: keys of requests received, and keys of requests refused.
        self._has: list[bytes] = []
        self._has_not: list[bytes] = []
        self._closed = "the parties have not met yet"
        self._forget_all()

    def _forget_all(self) -> None:
        # At the leader, by key: a bit for each other party that has the request; when the first
        # party had it; the key of each tag.
        self._had: dict[bytes, int] = {}
        self._since: OrderedDict[bytes, float] = OrderedDict()
        self._tags: dict[bytes, bytes] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        # By key: the bits of the parties that have it. And for how many keys each bit is kept in all.
        self._to_refuse: OrderedDict[bytes, int] = OrderedDict()
        self._entries: Counter[int] = Counter()
        # At the leader: what it has chosen for a turn, and not yet taken. The others may have taken it.
        self._chosen: set[bytes] = set()
        # Turns so far; at the leader those that each other party has passed, as it has said, and the turn
        # of each tag that was refused in one not all have passed. At the others whether to say so.
        self._turn, self._passes = 0, False
        self._passed = dict.fromkeys(range(self._all.bit_length()), 0)
        self._in_flight: OrderedDict[bytes, int] = OrderedDict()
        # Requests that all parties have, by client and kind, the client whose turn is next first.
        self._ready: OrderedDict[str, OrderedDict[Hashable, deque[Request]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    # Beginning and end of a session.

    def open(self) -> None:
        """Accept requests from now on."""
        with self.changed:
            self._closed = ""

    def close(self, problem: str) -> None:
        """Accept no requests, and answer all that wait with `problem`."""
        with self.changed:
            self._closed = problem
            waiting = list(self._waiting.values())
            for request in waiting:
                self._give_back(request)
            self._waiting.clear()
            self._in_progress.clear()
            self._has.clear()
            self._has_not.clear()
            self._forget_all()
        for request in waiting:
            request.finish(None, problem, LATER)

    # Requests of clients, and keys that other parties send.

    def add(self, request: Request, limits: Limits) -> None:
        """Accept a request, or answer it with the reason for refusing it."""
        client, key = request.client, request.key
        with self.changed:
            problem, status = self._closed, LATER
            if problem:
                self._refuse(key)
            elif key in self._waiting:
                problem, status = "this request is in progress already", ERROR
            elif problem := self.full(client, limits):
                self._refuse(key)
            elif problem := self._beyond(request, limits):
                status = LIMIT
                self._refuse(key)
            else:
                self._waiting[key] = request
                self._in_progress[client] += 1
                if self._leads:
                    self._note(key, 0)
                else:
                    self._has.append(key)
        if problem:
            request.finish(None, problem, status)

    def full(self, client: str, limits: Limits) -> str:
        """Return why a client may have no more requests in progress; an empty string if it may."""
        if self._in_progress.get(client, 0) < limits.requests:
            return ""
        return f"{client} has {limits.requests} requests in progress, and may have no more"

    def _beyond(self, request: Request, limits: Limits) -> str:
        """Take a request out of its client's allowances; return why not, if one has not as much."""
        client = request.client
        requests, rows = self._allowances.setdefault(client, (Allowance(), Allowance()))
        waits = {
            f"{limits.requests_an_hour} requests": requests.wait_for(1, limits.requests_an_hour),
            f"{limits.rows_an_hour} rows": rows.wait_for(request.rows, limits.rows_an_hour),
        }
        what, request.wait = max(waits.items(), key=lambda each: each[1])
        if not request.wait:
            requests.take(1)
            rows.take(request.rows)
            return ""
        when = (
            f"this request has {request.rows}" if math.isinf(request.wait)
            else f"ask again in {math.ceil(request.wait)} s"
        )  # fmt: skip
        return f"{client} may ask for {what} an hour: {when}"

    def give_back(self, request: Request) -> None:
        """Put back what a request has taken that a turn answers without computing it."""
        with self.changed:
            self._give_back(request)

    def _give_back(self, request: Request) -> None:
        """Put back what a request has taken that is answered without being computed."""
        for allowance, count in zip(
            self._allowances.get(request.client, ()), (1, request.rows), strict=False
        ):
            allowance.give_back(count)

    def news(self) -> tuple[bytes, bytes, int]:
        """Return the keys of requests received and refused since the last call, and a turn.

        The turn is 0, or one that this party has passed: for :meth:`passed`, behind the keys.
        """
        if not self._has and not self._has_not and not self._passes:
            return b"", b"", 0
        with self.changed:
            turn = self._turn if self._passes else 0
            news = b"".join(self._has), b"".join(self._has_not), turn
            self._has.clear()
            self._has_not.clear()
            self._passes = False
        return news

    def heard(self, party: int, has: Iterable[bytes], has_not: Iterable[bytes]) -> None:
        """At the leader: note the keys that another party has received and refused."""
        if not self._leads:
            return
        with self.changed:
            for key in has:
                if key in self._had or self._entries[party] < _HEARD:
                    self._note(key, 1 << party)
            for key in has_not:
                self._drop(self._tags.get(key[:_TAG_BYTES], key), "another party has refused it")

    def passed(self, party: int, turn: int) -> None:
        """At the leader: note that another party has passed a turn, and told all that it had before."""
        if not self._leads:
            return
        with self.changed:
            self._passed[party] = turn
            least = min(self._passed.values())
            while self._in_flight and next(iter(self._in_flight.values())) <= least:
                self._in_flight.popitem(last=False)
            self.changed.notify_all()

    def refuse_id(self, client: str, id: bytes) -> None:
        """Note, for the other parties, that this party has refused all requests of an id."""
        with self.changed:
            self._refuse(_tag(client, id) + bytes(KEY_BYTES - _TAG_BYTES))

    def _refuse(self, key: bytes) -> None:
        """Note, for the other parties, that this party has refused the request of a key."""
        if self._leads:
            self._drop(self._tags.get(key[:_TAG_BYTES], key), "another party has refused it")
        elif len(self._has_not) < _KEPT:
            self._has_not.append(key)

    def _note(self, key: bytes, bit: int) -> None:
        """At the leader: note that the party of a bit (0: the leader) has the request of a key."""
        if key[:_TAG_BYTES] in self._refused or key[:_TAG_BYTES] in self._in_flight:
            self._keep(self._had, key, bit)
            self._drop(key, DIFFERENT)
            return
        other = self._tags.setdefault(key[:_TAG_BYTES], key)
        had = self._keep(self._had, key, bit)
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
        """At the leader: refuse a request at all parties that have it or receive it later."""
        if bits := self._forget(key):
            self._keep(self._to_refuse, key, bits)
            self.changed.notify_all()
        self._remember(key)
        self._finish(key, problem)

    def _remember(self, key: bytes) -> None:
        """At the leader: refuse what other parties receive later of a request."""
        # By the tag, since they may have the id under another key.
        tag = key[:_TAG_BYTES]
        self._refused[tag] = None
        self._refused.move_to_end(tag)
        if len(self._refused) > _KEPT:
            self._refused.popitem(last=False)

    def _forget(self, key: bytes) -> int:
        """At the leader: remove a key; return the bits of the other parties that have it."""
        self._since.pop(key, None)
        if self._tags.get(key[:_TAG_BYTES]) == key:
            del self._tags[key[:_TAG_BYTES]]
        return self._free(self._had, key)

    def _keep(self, where: dict[bytes, int], key: bytes, bits: int) -> int:
        """Add the bits of parties to those of a key; return all of them."""
        before = where.get(key, 0)
        where[key] = before | bits
        self._entries.update(_places(bits & ~before))
        return before | bits

    def _free(self, where: dict[bytes, int], key: bytes) -> int:
        """Remove a key, if it is there; return its bits."""
        bits = where.pop(key, 0)
        self._entries -= Counter(_places(bits))
        return bits

    def _finish(self, key: bytes, problem: str) -> None:
        # Who has taken a request before the leader may refuse the same again, if a client sends it.
        request = None if key in self._chosen else self._pop(key)
        if request is not None:
            self._give_back(request)
            # LATER: for an honest client this happens at the beginning or end of a session only.
            request.finish(None, problem, LATER)

    def _pop(self, key: bytes) -> Request | None:
        request = self._waiting.pop(key, None)
        if request is not None:
            self._in_progress[request.client] -= 1
            if not self._in_progress[request.client]:
                del self._in_progress[request.client]
        return request

    # Turns.

    def await_turn(self, seconds: float, also: Callable[[], bool]) -> None:
        """Wait until a request can be chosen or refused, `also` returns True, or the time is over."""
        with self.changed:
            self.changed.wait_for(
                lambda: self._ready or (self._to_refuse and len(self._in_flight) < _KEPT) or also(),
                seconds,
            )

    def choose(
        self, rows_at_once: Callable[[str], int], seconds: Callable[[Hashable], float]
    ) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of the requests to compute next, and of those to refuse, at all parties.

        The first client in line determines the kind, and moves to the end of the line. Requests of
        that kind are taken from the clients in turn, one at a time, until one evaluation is full:
        `rows_at_once` returns its number of rows for a model's name. Further kinds follow in the same
        turn, each once, while all their evaluations together take little time: `seconds` returns
        that of a kind.
        """
        with self.changed:
            late = time.monotonic() - self._patience
            while self._since and next(iter(self._since.values())) < late:
                self._drop(next(iter(self._since)), DIFFERENT)
            self._turn += 1
            # There is always room for requests beside them.
            most = min(PER_TURN // 2, _KEPT - len(self._in_flight))
            refused = list(islice(self._to_refuse, most))
            for key in refused:
                self._free(self._to_refuse, key)
                self._in_flight[key[:_TAG_BYTES]] = self._turn
                self._in_flight.move_to_end(key[:_TAG_BYTES])
                # Who has got it again since it was dropped here loses it, too.
                self._forget(key)
                self._remember(key)
            chosen: list[Request] = []
            taken: set[Hashable] = set()
            left = _SECONDS_OF_A_TURN
            while self._ready:
                kind = next(iter(next(iter(self._ready.values()))))
                left -= seconds(kind)
                if taken and (kind in taken or left < 0):
                    break
                most = PER_TURN - len(refused) - len(chosen)
                more = self._next_kind(most, rows_at_once)
                if not more:
                    break
                taken.add(more[0].kind)
                chosen += more
            self._chosen = {request.key for request in chosen}
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
        """Return the first request that was not refused meanwhile, dropping those before it."""
        while requests:
            key = requests[0].key
            if self._waiting.get(key) is requests[0] and key in self._had:
                return requests[0]
            requests.popleft()
        return None

    def _tidy(self, kind: Hashable) -> None:
        """Remove empty queues of a kind."""
        for name, kinds in tuple(self._ready.items()):
            if kind in kinds and not kinds[kind]:
                del kinds[kind]
                if not kinds:
                    del self._ready[name]

    def prompt(self) -> None:
        """Wake the thread in `await_turn`, so that it calls `also` again."""
        with self.changed:
            self.changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether no request is at all parties."""
        return not self._ready

    def take(self, keys: Iterable[bytes]) -> list[Request]:
        """Remove the requests of a turn, and return them.

        Raises
        ------
        KeyError
            If one of the keys is not here, or comes twice. Then nothing is removed, so that the end of
            the session answers all of them.
        """
        with self.changed:
            found: dict[bytes, Request] = {}
            for key in keys:
                if key in found:
                    raise KeyError(key)
                found[key] = self._waiting[key]
            for key in found:
                self._pop(key)
            self._chosen.clear()
            return list(found.values())

    def refuse(self, keys: Iterable[bytes]) -> None:
        """End a turn's refusals: answer the requests that the leader refuses, as far as they are here."""
        with self.changed:
            if not self._leads:
                self._turn += 1
            for key in keys:
                self._passes = not self._leads
                self._finish(key, DIFFERENT)
