"""A computing party as a service: predictions on shared models for clients outside.

Every party holds its shares of one or more models and a session with the other parties. A client
sends each party its share of the rows; each party sends back its share of the answer.

The last party leads, as it gets the rows and the others seeds. In turns it opens to all which
requests come next, several of them together where they ask the same of the same model; all say
whether they have them, which makes two rounds, and then evaluate. A turn without requests comes at
least every second, so that whoever is lost is missed. When a party is told to stop, all finish the
turn and stop together.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import (
    FrameError,
    PartyError,
    PeerError,
    Session,
    ShapeError,
    SharedArray,
    WorkerError,
    configuration,
)
from mpc.configuration import Configuration
from mpc.events import record
from mpc.handshake import (
    HEALTH,
    PROTOCOL_VERSION,
    disagreement,
    join_parties,
    read_hello,
    send_hello,
)
from mpc.metrics import present
from mpc.transport import wire
from mpc.transport.connection import Connection, exchange, wait
from mpc.transport.frames import Header, Kind
from mpc.transport.tls import Listener, bind, own_contexts
from nn.inputs import ScaledRows
from nn.model_description import Description, answers_of
from nn.saved_shares import load_shares
from nn.shared_model import SharedModel
from nn.warming import warm_up
from ring import Stream

__all__ = ["CLIENT_STREAM", "PartyService", "serve"]

Words = NDArray[np.uint64]

# Which stream of a client's seed its shares are.
CLIENT_STREAM = 1
_PER_TURN = 32
_TURN_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_LARGEST_CALL = 4096
# How many requests' costs can be asked for afterwards.
_COSTS_KEPT = 1024


class _Request:
    """One client's rows, until they are answered."""

    def __init__(self, client: str, model: str, answer: str, rows: int, shares: Words) -> None:
        self.client = client
        self.model, self.answer, self.rows, self.shares = model, answer, rows, shares
        self.arrived = time.monotonic()
        self.done = threading.Event()
        self.result: Words | None = None
        self.problem = ""

    @property
    def kind(self) -> tuple[str, str]:
        """What must agree for requests to be evaluated together."""
        return self.model, self.answer


def _answer(
    model: SharedModel, x: SharedArray | ScaledRows, answer: str, progress: bool | None = False
) -> SharedArray:
    """Evaluate a model as far as `answer` wants it; the result is still secret."""
    if answer in ("scores", "values"):
        return model(x, progress=progress).truncate()
    return model.winners(x, one_hot=answer == "one-hot", progress=progress)


class PartyService:
    """Answers clients until it is stopped.

    Parameters
    ----------
    read : Configuration
    session : Session
        Of one party, with the others.
    models : dict of str to SharedModel
    sock : socket
        Listens at this party's address.
    largest_rows : int
        Rows of one request.
    progress : bool
        Whether to show a progress bar for evaluations of more than two seconds, on a terminal.
    """

    def __init__(
        self,
        read: Configuration,
        session: Session,
        models: Mapping[str, SharedModel],
        sock: socket.socket,
        *,
        largest_rows: int = 4096,
        progress: bool = False,
    ) -> None:
        assert session.me is not None
        self._read, self._session, self._models = read, session, dict(models)
        self._me: str = session.me
        self._largest = largest_rows
        # As SharedModel has it, where True would be for any stream and at once.
        self._progress = None if progress else False
        self._waiting: OrderedDict[bytes, _Request] = OrderedDict()
        self._costs: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        # Those of the turn that runs.
        self._taken: list[_Request] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._over = threading.Event()
        self._started, self._served, self._clients = time.monotonic(), 0, 0
        _, server = own_contexts(read, self._me)
        self._listener = Listener(self._me, sock, server, read.certificates(), self._admit)
        record("start", role="party", me=self._me, models=",".join(self._models))
        present(self.figures)

    def stop(self) -> None:
        """Let all parties finish the turn and stop."""
        # No lock: this is called by a signal's handler. A turn comes within a second.
        self._stopping = True

    def health(self) -> dict[str, Any]:
        """Return what runs here, as clients can ask for it."""
        with self._changed:
            waiting = len(self._waiting)
        return {
            "role": "party",
            "me": self._me,
            "models": tuple(self._models),
            "waiting": waiting,
            "served": self._served,
            "seconds": int(time.monotonic() - self._started),
        }

    def figures(self) -> dict[str, int]:
        """Return what metrics have of this service beside its events."""
        with self._changed:
            waiting = len(self._waiting)
        ready = int(not self._stopping and not self._over.is_set())
        return {"ready": ready, "waiting": waiting, "clients": self._clients}

    def run(self) -> None:
        """Take turns until all are to stop.

        Raises
        ------
        PeerError
            If another party or the provider is lost; clients are told first.
        """
        problem = "the service stops"
        try:
            while self._turn():
                pass
        except PeerError as error:
            problem = str(error)
            raise
        finally:
            self._over.set()
            with self._changed:
                waiting = [*self._waiting.values(), *self._taken]
                self._waiting.clear()
            for request in waiting:
                request.problem = problem
                request.done.set()
            self._listener.close()
            time.sleep(0.2)  # the last answers are on their way
            record("stop", role="party", me=self._me, served=self._served, problem=problem)

    # Turns.

    def _turn(self) -> bool:
        """Agree on what comes next and do it. Returns whether there is another turn."""
        session = self._session
        session.look_for_provider()
        leader = session.size - 1
        leads = session.here == (leader,)
        chosen = self._choose() if leads else []
        plan = np.zeros((int(leads), 1 + 2 * _PER_TURN), np.uint64)
        if len(plan):
            plan[0, 0] = len(chosen)
            if chosen:
                plan[0, 1 : 1 + 2 * len(chosen)] = np.frombuffer(b"".join(chosen), np.uint64)
        turn = session.open((plan, leader))[0][0]
        count = int(turn[0])
        if count > _PER_TURN:
            raise FrameError(f"{session.parties[leader]} sent a turn of {count} requests")
        ids = [turn[1 + 2 * k : 3 + 2 * k].tobytes() for k in range(count)]
        mine = np.zeros((1, 1 + _PER_TURN), np.uint64)
        mine[0, 0] = self._stopping
        for k, id in enumerate(ids):
            mine[0, 1 + k] = self._arrived(id)
        votes = session.open((mine, "sum"))[0][0]
        here = [id for k, id in enumerate(ids) if votes[1 + k] == session.size]
        with self._changed:
            self._taken = requests = [self._waiting.pop(id) for id in here]
            lost = [self._waiting.pop(id) for id in ids if id in self._waiting]
        for request in lost:
            request.problem = "the request did not arrive at every party"
            request.done.set()
        if requests:
            self._evaluate(here, requests)
        return not votes[0]

    def _choose(self) -> list[bytes]:
        """Wait for requests; return the first and those that can be evaluated with it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping, _TURN_SECONDS)
            chosen: list[bytes] = []
            rows = 0
            for id, request in self._waiting.items():
                first = self._waiting[chosen[0]] if chosen else request
                if request.kind != first.kind or len(chosen) == _PER_TURN:
                    continue
                if chosen and rows + request.rows > self._models[request.model].rows_at_once():
                    continue
                chosen.append(id)
                rows += request.rows
            return chosen

    def _arrived(self, id: bytes) -> bool:
        """Wait for a request of the turn: a client sends to one party after the other."""
        with self._changed:
            return self._changed.wait_for(lambda: id in self._waiting, _PATIENCE_SECONDS)

    def _evaluate(self, ids: list[bytes], requests: list[_Request]) -> None:
        session, begin, before = self._session, time.monotonic(), self._session.cost()
        model = self._models[requests[0].model]
        shares = np.concatenate([request.shares for request in requests])[None]
        for id, request in zip(ids, requests, strict=True):
            session.note("request", id, request.model, request.answer, request.rows)
        x = model.rows_from_shares(shares)
        answer = requests[0].answer
        model.prepare(x, _answer, answer=answer)
        try:
            result = _answer(model, x, answer, self._progress).shares[0]
        except WorkerError as error:
            self._refuse(requests, error)
            return
        spent = session.cost() - before
        self._keep_costs(ids, (spent.rounds, spent.bytes_sent_per_party))
        first = 0
        for request in requests:
            request.result = result[first : first + request.rows]
            first += request.rows
            request.done.set()
        self._served += len(requests)
        seconds = time.monotonic() - begin
        for id, request in zip(ids, requests, strict=True):
            # What is computed together has rounds and bytes in common.
            record(
                "request", id=id.hex()[:8], client=request.client, model=request.model, answer=answer,
                shape=f"{request.rows}x{model.n_features_in_}", together=len(requests),
                rounds=spent.rounds, bytes=spent.bytes_sent_per_party,
                waited=begin - request.arrived, seconds=seconds,
            )  # fmt: skip

    def _keep_costs(self, ids: list[bytes], cost: tuple[int, int]) -> None:
        with self._changed:
            self._costs.update(dict.fromkeys(ids, cost))
            while len(self._costs) > _COSTS_KEPT:
                self._costs.popitem(last=False)

    def _refuse(self, requests: list[_Request], error: WorkerError) -> None:
        """Say why there is no answer. All parties come here together, and serve on."""
        # Behind that may be the text of an unforeseen error in a worker, which may hold anything.
        problem = ": ".join(str(error).split(": ")[:2])
        record("workers", warning=True, me=self._me, problem=problem)
        for request in requests:
            request.problem = problem
            request.done.set()

    # Clients.

    def _admit(self, connection: Connection) -> None:
        timeouts, peer = self._read.timeouts, connection.peer
        greeting = read_hello(connection, timeouts.connect)
        if peer not in self._read.clients and greeting.purpose != HEALTH:
            # Without a word to it: a party that has come for a new session tries again.
            record("refused", warning=True, at=self._me, peer=peer, why="no client")
            return
        mine = {"protocol version": PROTOCOL_VERSION, "ring": "2^64", "parties": self._read.names}
        mine |= {
            "frac_bits": self._read.format.frac_bits,
            "int_bits": self._read.format.int_bits,
        }
        send_hello(connection, "serve", mine, b"")
        if greeting.purpose == HEALTH:
            connection.post_bytes(Kind.ANSWER, wire.encode(tuple(self.health().items())))
            exchange([connection], timeouts.answer)
            return
        problem = disagreement(self._me, mine, peer, greeting.terms)
        if problem:
            connection.notify(Kind.ABORT, problem)
            return
        with self._changed:
            self._clients += 1
        try:
            self._talk(connection)
        except PeerError as error:
            if not connection.ended:
                connection.notify(Kind.ABORT, str(error))
                raise
        finally:
            with self._changed:
                self._clients -= 1

    def _talk(self, connection: Connection) -> None:
        """Answer one client's calls until it goes."""
        idle = self._read.timeouts.idle
        while True:
            connection.expect_bytes([Kind.CALL], _LARGEST_CALL)
            heard = time.monotonic()
            while not wait([connection], 0.5):
                if self._over.is_set() or time.monotonic() - heard > idle:
                    connection.notify(Kind.BYE)
                    return
            try:
                call = wire.decode(connection.take().data.data)
                known: Callable[..., None] | None = _CALLS.get(call[0])
                if known is None:
                    raise ShapeError(f"no call is named {str(call[0])[:40]!r}")
                known(self, connection, *call[1:])
            except (ShapeError, TypeError, IndexError) as error:
                text = error if isinstance(error, ShapeError) else "wrong number of arguments"
                raise FrameError(
                    f"{connection.peer} sent a call that is malformed: {text}"
                ) from None

    def _reply(self, connection: Connection, *answer: Any) -> None:
        connection.post_bytes(Kind.ANSWER, wire.encode(answer))
        exchange([connection], self._read.timeouts.answer)

    def _tell_health(self, connection: Connection) -> None:
        self._reply(connection, "ok", *self.health().items())

    def _tell_cost(self, connection: Connection, id: object) -> None:
        """Tell rounds and bytes of a request to whoever knows its id: the client that made it."""
        with self._changed:
            cost = self._costs.get(id) if type(id) is bytes else None
        if cost is None:
            self._reply(connection, "error", "no request of the last ones has this id")
        else:
            self._reply(connection, "ok", *cost)

    def _describe(self, connection: Connection, name: object) -> None:
        if name is None and len(self._models) == 1:
            name = next(iter(self._models))
        if not isinstance(name, str) or name not in self._models:
            self._reply(
                connection,
                "error",
                f"model must be one of {', '.join(self._models)}, got {name!r}"[:500],
            )
            return
        described = Description.of(name, self._models[name], self._largest)
        self._reply(connection, "ok", *described.values())

    def _predict(
        self, connection: Connection, id: object, name: object, answer: object, rows: object
    ) -> None:
        if type(id) is not bytes or len(id) != 16 or type(rows) is not int:
            raise ShapeError("a prediction needs an id and a number of rows")
        problem = ""
        if not isinstance(name, str) or name not in self._models:
            problem = f"model must be one of {', '.join(self._models)}"
        elif answer not in answers_of(self._models[name]):
            allowed = ", ".join(answers_of(self._models[name]))
            problem = f"answer must be one of {allowed}: the model's owner allows no other"
        elif not 1 <= rows <= self._largest:
            problem = f"rows must be in [1, {self._largest}], got {rows}"
        if problem:
            self._receive(connection, 0, 0)
            self._reply(connection, "error", problem)
            return
        assert isinstance(name, str) and isinstance(answer, str)
        shares = self._receive(connection, rows, self._models[name].n_features_in_)
        request = _Request(connection.peer, name, answer, rows, shares)
        with self._changed:
            if id in self._waiting or self._over.is_set():
                raise FrameError(f"{connection.peer} sent a request twice, or too late")
            self._waiting[id] = request
            self._changed.notify_all()
        # The turns end with all of them answered, or with a problem.
        limit = self._read.timeouts.party + _PATIENCE_SECONDS
        if not request.done.wait(limit):
            request.problem = f"no turn came within {limit:g} s"
        if request.result is None:
            record("unanswered", client=request.client, model=name, why=request.problem)
            self._reply(connection, "error", request.problem)
            return
        connection.post(Kind.ANSWER, [request.result])
        exchange([connection], self._read.timeouts.answer)

    def _receive(self, connection: Connection, rows: int, width: int) -> Words:
        """Receive a client's share: words at the last party, a seed elsewhere."""
        last = self._session.here[0] == self._session.size - 1
        widest = max(model.n_features_in_ for model in self._models.values())

        def accept(header: Header) -> Any:
            if header.kind != Kind.SHARE or header.words != last:
                raise ShapeError(f"sent {header.kind.name} where SHARE was to come")
            if rows and last and header.shapes != ((rows, width),):
                raise ShapeError(
                    f"sent the shape {header.shapes[0]} where {(rows, width)} was to come"
                )
            if header.nbytes > (8 * self._largest * widest if last else 16):
                raise ShapeError(f"sent a share of {header.nbytes} bytes")
            return (
                np.empty(header.nbytes // 8, np.uint64)
                if last
                else np.empty(header.nbytes, np.uint8)
            )

        connection.expect(accept)
        exchange([connection], self._read.timeouts.answer)
        arrived = connection.take()
        if last:
            return arrived.arrays()[0]
        shares = np.empty((rows, width), np.uint64)
        if arrived.data.nbytes != 16:
            raise FrameError(f"{connection.peer} sent a seed of {arrived.data.nbytes} bytes")
        Stream(arrived.data.tobytes()).fill(shares, CLIENT_STREAM)
        return shares


_CALLS: dict[str, Callable[..., None]] = {
    "health": PartyService._tell_health,
    "cost": PartyService._tell_cost,
    "describe": PartyService._describe,
    "predict": PartyService._predict,
}


def serve(path: str | Path, me: str, folders: Mapping[str, str], *, progress: bool = False) -> None:
    """Run a party: meet the others, load this party's shares of the models, answer clients.

    Returns when this or another party has got SIGTERM or SIGINT and all turns are done.
    """
    read = configuration.load(path)
    if me not in read.parties:
        raise PartyError(f"me must be one of {', '.join(read.names)}, got {me!r}")
    address = read.parties[me].address
    assert address is not None
    sock = bind(address)
    links = join_parties(read, me, f"sotto serve {' '.join(sorted(folders))}", sock.dup())
    with Session.from_links(read, me, links) as session:
        models = {name: load_shares(session, folder) for name, folder in folders.items()}
        warm_up(session, models, _answer)
        service = PartyService(read, session, models, sock, progress=progress)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        service.run()
