"""The turns of a session of services: what all parties compute next, and in which order.

In each turn the leader, the last party, opens a plan to all: keys of requests to compute and to refuse,
and flags. All parties then do the same.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AbortError, FrameError, PeerError, RangeError, Session, SharedArray, WorkerError
from mpc.core.events import record
from nn.models.saved_shares import SharesFile, shared_model
from nn.serving.agreement import ERROR, KEY_BYTES, LATER, PER_TURN, RANGE, Book, Request
from nn.serving.answers import (
    OUTSIDE,
    answer_of,
    answer_to_checked,
    checked_answer,
    prepare_check,
    requests_inside,
)
from nn.serving.model_files import ModelFiles
from nn.serving.parcels import answer_masks
from nn.serving.stocks import use_stocks
from nn.serving.warming import warm_up
from nn.shared.model import SharedModel
from nn.shared.side_by_side import architecture, side_by_side

__all__ = ["Turns", "Wishes"]

Words = NDArray[np.uint64]

_TURN_SECONDS = 1.0
_KEY_WORDS = KEY_BYTES // 8
# Seconds that a party which leaves may go on with requests that all parties have.
_FINISH_SECONDS = 2.5
# Flags of a turn: the session ends after it; the parties agree on their models again.
_END, _RELOAD = 1, 2


@dataclass
class Wishes:
    """What any thread asks of the turns: to end the session, or to agree on models again.

    Attributes
    ----------
    leaves : str
        Name of the service that has announced that it leaves; empty if none has.
    since : float
        Time of the announcement, by :func:`time.monotonic`.
    lost : str
        Why another party counts as lost, found by :mod:`nn.serving.notices`.
    announced : bool
        Whether this party has sent the announcement to the others.
    reload : bool
        Whether the parties are to agree on their models again.
    """

    leaves: str = ""
    since: float = 0.0
    lost: str = ""
    announced: bool = False
    reload: bool = False

    def leave(self, name: str) -> bool:
        """Note that a service leaves; return whether it is the first that does."""
        if self.leaves:
            return False
        self.leaves, self.since = name, time.monotonic()
        return True

    def explain(self, error: BaseException) -> str:
        """Return why a session is over. A service that has announced it leaves is not called lost.

        Of a check between watched parties that has failed: always the same text.
        """
        if not isinstance(error, PeerError):
            return "the request failed"
        if isinstance(error, AbortError):
            return str(error)
        return f"{self.leaves} shuts down" if self.leaves else self.lost or str(error)


class Turns:
    """The turns of one session.

    Parameters
    ----------
    session : Session
        Of one party.
    provider : str
        The provider's name; empty if there is none.
    book : Book
    files : ModelFiles
    wishes : Wishes
    progress : bool or None
        As for :meth:`SharedModel.__call__`.
    checks : bool
        Whether there is a client whose rows are checked, as this party says: models are made ready for
        it if one party says so.

    Attributes
    ----------
    models : dict of str to SharedModel
        The models that are served, by name.
    sets : dict of str to bytes
        The id of each model's set of files, the same at all parties.
    digests : dict of str to bytes
        Each model's digest, see :class:`nn.models.saved_shares.SharesFile`.
    kinds : dict of str to hashable
        A key for each model, equal for models that can be evaluated together.
    served : int
        Number of requests answered.
    """

    def __init__(
        self,
        session: Session,
        provider: str,
        book: Book,
        files: ModelFiles,
        wishes: Wishes,
        progress: bool | None,
        checks: bool,
    ) -> None:
        assert session.me is not None
        self.session, self._provider, self._me = session, provider, session.me
        self._leads = session.here[0] == session.size - 1
        self._book, self._files, self._wishes, self._progress = book, files, wishes, progress
        self._checks = checks
        self.models: dict[str, SharedModel] = {}
        self.sets: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}
        self.kinds: dict[str, Hashable] = {}
        self.served = 0
        # Seconds of the last evaluation of each kind of requests.
        self._seconds: dict[Hashable, float] = {}

    def agree_on_models(self) -> None:
        """Find the sets of files that all parties have, and load new models from them.

        2 rounds; 4 among watched parties.
        """
        files = self._files.known()
        rows = [
            np.concatenate([_name_words(name), file.set_id])
            for name in sorted(files)
            for file in files[name]
        ]
        counts = self.session.tell([np.array([len(rows), self._checks], np.uint64)])
        # Or one that deviates could have the others load different models.
        self.session.check_each_other()
        # As parties may say different things of clients, and still have to run one program.
        checks = any(int(count[1]) for count in counts)
        sizes = [min(int(count[0]), 4096) for count in counts]
        table = np.array(rows, np.uint64).reshape(-1)
        received = self.session.tell([table], [(4 * size,) for size in sizes])
        self.session.check_each_other()
        tables = [[row.tobytes() for row in words.reshape(-1, 4)] for words in received]
        models: dict[str, SharedModel] = {}
        new: dict[str, SharedModel] = {}
        sets: dict[str, bytes] = {}
        used: dict[str, SharesFile] = {}
        # In the first party's order, so that all parties choose the same of two sets of a model.
        for row in tables[0]:
            name = next((n for n in files if _name_words(n).tobytes() == row[:8]), None)
            if name is None or name in models or not all(row in table for table in tables):
                continue
            file = next(each for each in files[name] if each.set_id.tobytes() == row[8:])
            if self.sets.get(name) == row:
                models[name] = self.models[name]
            else:
                models[name] = shared_model(self.session, [file])
                warm_up(models[name], checked_answer if checks else answer_of)
                new[name] = models[name]
            sets[name], used[name] = row, file
        folders = {name: file.path.parent for name, file in used.items()}
        use_stocks(self.session, new, folders, checks)
        self._files.settle(used)
        for name in files:
            if name not in models:
                why = "not all parties have shares of one set"
                record("models", warning=True, me=self._me, model=name, why=why)
        self.kinds = {name: architecture(model) for name, model in models.items()}
        self.digests = {name: file.digest for name, file in used.items()}
        self.models = {name: models[name] for name in files if name in models}
        # Last: the thread of clients reads this first, so a request never has the id of a new model with
        # digest, answers or width of the one before. One with an old id is refused in its turn.
        self.sets = sets
        self._seconds.clear()

    def run(self) -> str:
        """Take turns until a service leaves; return its name."""
        while not (name := self._turn()):
            pass
        return name

    def _turn(self) -> str:
        """Take one turn; return the name of the service that leaves after it, or an empty string."""
        leader = self.session.size - 1
        if self.session.source.leaves():
            self._wishes.leave(self._provider)
        plan = np.zeros((int(self._leads), 2 + _KEY_WORDS * PER_TURN), np.uint64)
        if self._leads:
            self._plan(plan[0])
        turn = self._told(leader, plan)
        flags, taken, refused = int(turn[0]), int(turn[1]) & 0xFFFF, int(turn[1]) >> 16
        if taken + refused > PER_TURN:
            raise FrameError(
                f"{self.session.parties[leader]} sent a turn of {taken + refused} requests"
            )
        data = turn[2:].tobytes()
        keys = [data[k : k + KEY_BYTES] for k in range(0, (taken + refused) * KEY_BYTES, KEY_BYTES)]
        self._book.refuse(keys[taken:])
        try:
            requests = self._book.take(keys[:taken])
        except KeyError:
            raise FrameError(
                f"{self.session.parties[leader]} sent a turn with a request that {self._me} has not"
            ) from None
        try:
            for group in self._groups(self._usable(requests)):
                self._evaluate(group)
        except BaseException as error:
            problem = self._wishes.explain(error)
            for request in requests:
                if not request.done:
                    request.finish(None, problem, LATER)
            raise
        if flags & _RELOAD:
            self.agree_on_models()
        if flags & _END:
            members = (*self.session.parties, self._provider)
            return members[min(flags >> 8, len(members) - 1)]
        return ""

    def _told(self, leader: int, plan: Words) -> Words:
        """Return the leader's plan; watched parties compare at once that all have got the same."""
        session = self.session
        if session.watch is None:
            return session.open((plan, leader))[0][0]
        told = session.give(leader, plan)[0]
        session.check_each_other()
        return told

    def _plan(self, plan: Words) -> None:
        """At the leader: wait for something to do, and write the plan of the turn."""
        wishes = self._wishes
        self._book.await_turn(_TURN_SECONDS, lambda: bool(wishes.leaves or wishes.reload))
        chosen, refused = self._book.choose(
            self._rows_at_once, lambda kind: self._seconds.get(kind, float("inf"))
        )
        keys = b"".join([*chosen, *refused])
        plan[1] = len(chosen) | len(refused) << 16
        plan[2 : 2 + len(keys) // 8] = np.frombuffer(keys, np.uint64)
        if wishes.reload:
            wishes.reload = False
            plan[0] |= np.uint64(_RELOAD)
        if wishes.leaves and (self._book.idle or time.monotonic() > wishes.since + _FINISH_SECONDS):
            members = (*self.session.parties, self._provider)
            plan[0] |= np.uint64(_END | members.index(wishes.leaves) << 8)

    def _rows_at_once(self, name: str) -> int:
        return self.models[name].rows_at_once() if name in self.models else 1

    def _usable(self, requests: Sequence[Request]) -> list[Request]:
        """Answer requests whose model was replaced or removed since; return the others.

        All parties agree on `sets`, so they find the same.
        """
        found = []
        for request in requests:
            if self.sets.get(request.model) == request.version:
                found.append(request)
            else:
                self._book.give_back(request)
                request.finish(None, "the model was replaced or removed meanwhile", LATER)
        return found

    def _groups(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Return the requests of a turn by evaluation; in each, those of a model follow one another."""
        kinds: dict[Hashable, dict[str, list[Request]]] = {}
        for request in requests:
            kind = self.kinds[request.model], request.answer, request.trusted
            kinds.setdefault(kind, {}).setdefault(request.model, []).append(request)
        groups: list[list[Request]] = []
        for models in kinds.values():
            # Workers evaluate one model at a time.
            alone = self.session.worker_count(
                None, sum(r.rows for each in models.values() for r in each)
            )
            begin, rows = True, 0
            for name, each in models.items():
                most, begin = self.models[name].rows_at_once(), begin or alone != 1
                for request in each:
                    if begin or rows + request.rows > most:
                        groups.append([])
                        begin, rows = False, 0
                    groups[-1].append(request)
                    rows += request.rows
        return groups

    def _evaluate(self, requests: Sequence[Request]) -> None:
        begin, before = time.monotonic(), self.session.spent()
        rows: Counter[str] = Counter()
        self.session.note("requests", [request.key for request in requests])
        for request in requests:
            rows[request.model] += request.rows
        model = side_by_side([self.models[name] for name in rows], tuple(rows.values()))
        words = np.concatenate([request.shares for request in requests], axis=1)
        answer = requests[0].answer
        try:
            x = self._checked(model, words, requests)
            if x is None:
                return
            program = answer_of if requests[0].trusted else answer_to_checked
            result = self._answers(program(model, x, answer, self._progress), requests)
        except WorkerError as error:
            self._refuse(requests, error)
            return
        except RangeError as error:
            # All parties have it: they opened it, or it follows from public bounds. One request's rows
            # must not cost the others their answers; nor must those that stand in for refused ones.
            left = [request for request in requests if not request.done]
            if len(left) == len(requests) == 1:
                left[0].finish(None, str(error), ERROR)
            else:
                half = len(left) // 2 if len(left) == len(requests) else 0
                for some in (left[:half], left[half:]):
                    if some:
                        self._evaluate(some)
            return
        spent = self.session.spent() - before
        places = np.cumsum([0, *(request.rows for request in requests)]).tolist()
        answered = [
            (request, result[place : place + request.rows])
            for request, place in zip(requests, places[:-1], strict=True)
            if not request.done
        ]
        # Before the answers: a client that has one finds it counted.
        self.served += len(answered)
        for request, own in answered:
            request.cost = spent.rounds, spent.bytes_sent
            request.finish(own)
        self._seconds[requests[0].kind] = seconds = time.monotonic() - begin
        for request, _ in answered:
            # Rounds and bytes are those of the whole evaluation.
            record(
                "request", id=request.id.hex()[:8], client=request.client, model=request.model,
                answer=answer, shape=f"{request.rows}x{model.n_features_in_}",
                together=len(requests), rounds=spent.rounds, bytes=spent.bytes_sent,
                waited=begin - request.arrived, seconds=seconds,
            )  # fmt: skip

    def _answers(self, found: SharedArray, requests: Sequence[Request]) -> Words:
        """Return this party's shares of answers; among watched parties the answers under clients' masks.

        What no client is to get, of a refused request, is not opened at all: a party that works with this
        client would know its mask.
        """
        if self.session.watch is None:
            return found.shares[0]
        shares = found.shares.copy()
        place = 0
        for request in requests:
            rows = slice(place, place + request.rows)
            assert request.contents is not None
            if request.done:
                shares[:, rows] = 0
            shares[:, rows] += answer_masks(request.contents.keys, shares[0, rows].shape)
            place = rows.stop
        with self.session.protocol("answers"), self.session.revealing():
            (opened,) = self.session.open((shares, "sum"))
        return opened[0]

    def _checked(self, model: SharedModel, words: Words, requests: Sequence[Request]) -> Any:
        """Refuse requests with rows out of range, and return the rows to evaluate, None if none are.

        All requests are of clients who are trusted, or none. Rows of refused ones are replaced by the low
        end of the range: nothing that was made ready for the others changes, nor how long they take.
        """
        x, answer = model.rows_from_shares(words), requests[0].answer
        if requests[0].trusted:
            model.prepare(x, answer_of, answer=answer)
            return x
        # Two parties alone make products with the rows themselves ahead, so for those that are in range.
        apart = self.session.pair is not None
        if apart:
            prepare_check(model, x, len(requests))
        else:
            model.prepare(x, checked_answer, answer=answer, requests=len(requests))
        models = [self.models[request.model] for request in requests]
        inside = requests_inside(models, [request.rows for request in requests], x)
        if not inside.all():
            words, place = words.copy(), 0
            for request, one, good in zip(requests, models, inside, strict=True):
                if not good:
                    rows = slice(place, place + request.rows)
                    words[:, rows] = 0
                    if (first := self.session.first_row) is not None:
                        words[first, rows] = one.encoded_range[0].view(np.uint64)
                    request.finish(None, OUTSIDE, RANGE)
                place += request.rows
            x = model.rows_from_shares(words)
        if not inside.any():
            if not apart:
                self.session.drop_prepared()
            return None
        if apart:
            model.prepare(x, answer_to_checked, answer=answer)
        return x

    def _refuse(self, requests: Sequence[Request], error: WorkerError) -> None:
        """Answer requests with an error of the workers. All parties do so, and go on serving."""
        # Further parts may be the text of an unforeseen error in a worker, which may hold secrets.
        problem = ": ".join(str(error).split(": ")[:2])
        record("workers", warning=True, me=self._me, problem=problem)
        for request in requests:
            if not request.done:
                request.finish(None, problem)


def _name_words(name: str) -> Words:
    """Return the digest of a model's name, of shape (1,)."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), np.uint64)
