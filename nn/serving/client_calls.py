"""The calls of clients and a party's answers, in a conversation for each connection."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Hashable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpc import FrameError, PeerError, ShapeError
from mpc.core import wire
from mpc.core.errors import PeerTimeoutError
from mpc.core.events import record
from mpc.core.frames import Header, Kind
from mpc.core.watching import MALICIOUS
from mpc.parties.configuration import Configuration
from mpc.parties.handshake import Greeting, client_terms, disagreement, send_hello
from mpc.transport.connection import Connection
from mpc.transport.loop import ASLEEP, Loop, Talk, farewell
from nn.serving.agreement import DIGEST, LATER, LIMIT, Book, Request
from nn.serving.model_description import Description, answers_of
from nn.serving.model_files import ModelFiles
from nn.serving.parcels import DIFFERENT_SHARES, Contents
from nn.shared.model import SharedModel

__all__ = ["Calls"]

Words = NDArray[np.uint64]
Answering = Generator[float, None, None]

_LARGEST_CALL = 4096
# Requests whose cost is kept for a later call.
_COSTS_KEPT = 1024


class Service(Protocol):
    """The part of a service's interface that answering uses, see :class:`PartyService`."""

    read: Configuration
    me: str
    state: str
    largest_rows: int
    book: Book
    loop: Loop

    @property
    def files(self) -> ModelFiles:
        """The files of the models."""

    @property
    def sets(self) -> dict[str, bytes]:
        """The id of each model's set of files, the same at all parties."""

    @property
    def digests(self) -> dict[str, bytes]:
        """The digest of each model that is served now, by name."""

    @property
    def kinds(self) -> dict[str, Hashable]:
        """A key for each model, equal for models that can be evaluated together."""

    def models_of(self, client: str) -> dict[str, SharedModel]:
        """Return the models that a client may ask for now."""

    def trusts(self, client: str) -> bool:
        """Return whether a client's rows are believed to be in range."""

    def health(self, asks: str) -> dict[str, Any]:
        """Return the state of the service, as far as the member `asks` may know it."""


class Calls:
    """Answers the calls of all clients of a service.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        # Number of connections of each client.
        self.connected: Counter[str] = Counter()
        # Rounds and bytes of the last requests, by client and id.
        self._costs: OrderedDict[tuple[str, bytes], tuple[int, int]] = OrderedDict()

    def greet(self, connection: Connection, greeting: Greeting) -> Talk:
        """Begin the conversation with a client that has sent HELLO."""
        mine = self._hello(connection)
        problem = disagreement(self._service.me, mine, connection.peer, greeting.terms)
        if problem:
            return farewell(connection, problem)
        return (yield from self._talk(connection))

    def _hello(self, connection: Connection) -> dict[str, Any]:
        mine = client_terms(self._service.read)
        send_hello(connection, "serve", mine, b"")
        return mine

    def answer_health_check(self, connection: Connection) -> Talk:
        """Answer a member's question for the state of this service, and end."""
        self._hello(connection)
        health = self._service.health(connection.peer)
        connection.post_bytes(Kind.ANSWER, wire.encode(tuple(health.items())))
        yield self._service.read.timeouts.answer
        return None

    def _talk(self, connection: Connection) -> Talk:
        """Answer a client's calls until it closes the connection."""
        seat = self._service.loop.current
        assert seat is not None

        def begins() -> None:
            # A client may be silent for long, but not in the middle of a call.
            seat.begins(self._service.read.timeouts.answer)

        while True:
            connection.expect_bytes([Kind.CALL], _LARGEST_CALL, begins)
            idle = self._service.read.timeouts.idle
            try:
                yield idle
            except PeerTimeoutError:
                if seat.limit < idle:
                    raise
                return farewell(connection, "", Kind.BYE)
            except PeerError:
                if connection.ended:
                    return None
                raise
            if connection.peer not in self._service.read.clients:
                return farewell(connection, f"{connection.peer} is no client any more")
            try:
                call = wire.decode(connection.take().data.data)
                known: Callable[..., Answering] | None = _CALLS.get(call[0])
                if known is None:
                    raise ShapeError(f"no call is named {str(call[0])[:40]!r}")
                yield from known(self, connection, *call[1:])
            except (ShapeError, TypeError, IndexError) as error:
                text = error if isinstance(error, ShapeError) else "wrong number of arguments"
                raise FrameError(
                    f"{connection.peer} sent a call that is malformed: {text}"
                ) from None

    def _reply(self, connection: Connection, *answer: Any) -> Answering:
        connection.post_bytes(Kind.ANSWER, wire.encode(answer))
        yield self._service.read.timeouts.answer

    def answer_health(self, connection: Connection) -> Answering:
        """Answer with the state of this service."""
        yield from self._reply(connection, "ok", *self._service.health(connection.peer).items())

    def answer_cost(self, connection: Connection, id: object) -> Answering:
        """Answer with rounds and bytes of one of the client's last requests."""
        cost = self._costs.get((connection.peer, id)) if type(id) is bytes else None
        if cost is None:
            yield from self._reply(connection, "error", "no request of the last ones has this id")
        else:
            yield from self._reply(connection, "ok", *cost)

    def describe(self, connection: Connection, name: object) -> Answering:
        """Answer with the description of a model."""
        service = self._service
        models, digests = service.models_of(connection.peer), service.digests
        if name is None and len(models) == 1:
            name = next(iter(models))
        if isinstance(name, str) and name in models and name not in digests:
            # The session has ended between the two.
            yield from self._reply(connection, LATER, service.state)
            return
        if isinstance(name, str) and name in models:
            described = Description.of(name, models[name], service.largest_rows)
            yield from self._reply(connection, "ok", digests[name], *described.values())
            return
        yield from self._reply(connection, *self._unknown(connection.peer, name))

    def _unknown(self, client: str, name: object) -> tuple[str, str]:
        """Return status ("later" or "error") and reason why a client cannot have a model."""
        service = self._service
        member = service.read.clients.get(client)
        may = None if member is None else member.models
        if may is not None and name is not None and name not in may:
            # The same answer whether there is such a model or not.
            return "error", (
                f"{client} may ask for {', '.join(may) or 'no model'} alone, not for {name!r}"
            )[:500]
        if service.state:
            return "later", service.state
        if name in service.files.names:
            return "error", f"model {name!r} is not served: not all parties have shares of one set"
        served = ", ".join(service.models_of(client)) or "none, for none is served"
        return "error", f"model must be one of {served}, got {name!r}"[:500]

    def predict(
        self,
        connection: Connection,
        id: object,
        name: object,
        pinned: object,
        answer: object,
        rows: object,
        *said: object,
    ) -> Answering:
        """Answer with this party's share of a prediction, or the prediction under the client's mask.

        It is of the model with the digest `pinned`, or with any where that is empty. `said`, and what is
        received behind the call: :mod:`nn.serving.parcels`.
        """
        service = self._service
        if type(id) is not bytes or len(id) != 16 or type(rows) is not int:
            raise ShapeError("a prediction needs an id and a number of rows")
        if type(pinned) is not bytes:
            raise ShapeError("the digest of a model must be bytes")
        names, watched = service.read.names, service.read.security == MALICIOUS
        limits = service.read.limits_of(connection.peer)
        contents = Contents(said, names.index(service.me), len(names), watched)
        # Before all else of the model, which may be replaced meanwhile: see Turns.agree_on_models.
        version = service.sets.get(name, b"") if isinstance(name, str) else b""
        models, digests = service.models_of(connection.peer), service.digests
        problem = "", ""
        if not isinstance(name, str) or name not in models:
            problem = self._unknown(connection.peer, name)
        elif name not in digests:
            # The session has ended between the two: that is no other model.
            problem = LATER, service.state
        elif pinned and pinned != digests[name]:
            problem = DIGEST, f"model {name!r} has the digest {digests[name].hex()} now"
        elif answer not in answers_of(models[name]):
            allowed = ", ".join(answers_of(models[name]))
            problem = "error", f"answer must be one of {allowed}: the model's owner allows no other"
        elif not 1 <= rows <= service.largest_rows:
            problem = "error", f"rows must be in [1, {service.largest_rows}], got {rows}"
        elif full := service.book.full(connection.peer, limits):
            # Before its rows are expanded: a call of some bytes may stand for many.
            problem = LATER, full
        if any(problem):
            # Otherwise parties that have accepted the request would wait for this one.
            service.book.refuse_id(connection.peer, id)
            if contents.brings_share:
                yield from self._receive(connection, 0, 0)
            yield from self._reply(connection, *problem)
            return
        assert isinstance(name, str) and isinstance(answer, str)
        width = models[name].n_features_in_
        received = None
        if contents.brings_share:
            received = yield from self._receive(connection, rows, width)
        shares = contents.shares((rows, width), received)
        if shares is None:
            service.book.refuse_id(connection.peer, id)
            yield from self._reply(connection, "error", DIFFERENT_SHARES)
            return
        loop, seat = service.loop, service.loop.current
        assert seat is not None
        trusted = service.trusts(connection.peer)
        request = Request(
            connection.peer,
            id,
            name,
            version,
            answer,
            rows,
            shares,
            lambda: loop.wake(seat),
            (service.kinds.get(name), answer, trusted),
            trusted,
            contents,
        )
        service.book.add(request, limits)
        # Turns, or the end of the session, answer every request.
        while not request.done:
            yield ASLEEP
        if request.result is None:
            record("unanswered", client=request.client, model=name, why=request.problem)
            told = request.status, request.problem[:1000], *_seconds(request)
            yield from self._reply(connection, *told)
            return
        self._costs[request.client, id] = request.cost
        if len(self._costs) > _COSTS_KEPT:
            self._costs.popitem(last=False)
        connection.post(Kind.ANSWER, [request.result])
        yield service.read.timeouts.answer

    def _receive(
        self, connection: Connection, rows: int, width: int
    ) -> Generator[float, None, Words]:
        """Receive a client's share of the rows; of any shape for 0 `rows`."""
        service = self._service

        def accept(header: Header) -> Any:
            if header.kind != Kind.SHARE or not header.words:
                raise ShapeError(f"sent {header.kind.name} where SHARE was to come")
            if rows and header.shapes != ((rows, width),):
                raise ShapeError(
                    f"sent the shape {header.shapes[0]} where {(rows, width)} was to come"
                )
            if header.nbytes > 8 * service.largest_rows * service.files.widest:
                raise ShapeError(f"sent a share of {header.nbytes} bytes")
            return np.empty(header.nbytes // 8, np.uint64)

        connection.expect(accept)
        yield service.read.timeouts.answer
        return connection.take().arrays()[0]


def _seconds(request: Request) -> tuple[int, ...]:
    """Return after how many seconds a request beyond a limit may be sent again; nothing if never."""
    if request.status != LIMIT or math.isinf(request.wait):
        return ()
    return (math.ceil(request.wait),)


_CALLS: dict[str, Callable[..., Answering]] = {
    "health": Calls.answer_health,
    "cost": Calls.answer_cost,
    "describe": Calls.describe,
    "predict": Calls.predict,
}
