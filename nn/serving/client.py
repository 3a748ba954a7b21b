"""A data owner outside the computing parties: private predictions by parties that serve."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import (
    ArgumentError,
    ConfigurationError,
    DataError,
    HandshakeError,
    PeerClosedError,
    PeerError,
    SessionError,
    ShapeError,
)
from mpc.core import wire
from mpc.core.events import record
from mpc.core.frames import Header, Kind
from mpc.core.owner import check_process
from mpc.parties import configuration
from mpc.parties.handshake import disagreement, read_hello, send_hello, terms
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import Connection, exchange, printable
from mpc.transport.waiting import Report
from nn.core.checks import check_names, feature_matrix
from nn.fixed_point.inputs import check_inside
from nn.losses.links import probabilities
from nn.serving.exchange import Exchange, Seen
from nn.serving.model_description import Description
from ring import Stream, decode, encode, fresh_key, processes

__all__ = ["Client"]

Words = NDArray[np.uint64]

# As in nn.serving.service.
_CLIENT_STREAM = 1
# Of what describes a model.
_LARGEST_ANSWER = 1 << 26
# Between two tries, at first and later; and how long the only one may take where there is but one.
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_ONE_TRY_SECONDS = 1.0
# What parties must agree on, and a client need not know.
_NOT_MINE = ("program", "provider")

T = TypeVar("T")


class LaterError(PeerError):
    """The parties cannot answer now, and say why; the same call may be answered later."""


class Client:
    """Asks parties for predictions without telling any of them the rows or the answers.

    Each row is split into shares in this process, one for each party; each party returns a share
    of the answer. Used like a scikit-learn classifier that is fitted already. Threads that use one
    client wait for each other; a forked child must make a client of its own.

    Parameters
    ----------
    parties : path
        Of parties.toml.
    me : str, optional
        Which client this is. Default: the only one whose key is here.
    model : str, optional
        Which model; default the only one there is.
    patience : float, optional
        How many seconds to try again when a party or a connection is lost, or the parties wait for
        one another; 0 for not at all. Default: ``connect`` of the configuration. Nothing is
        revealed by a try that fails.

    Attributes
    ----------
    classes_ : ndarray
        Of a classifier.
    n_features_in_ : int
    answers_ : tuple of str
        What the model's owner allows: "class", "one-hot" and perhaps "scores"; for a regressor
        "values".
    input_range_ : (ndarray, ndarray)
        The least and the largest that a feature may be.
    feature_names_in_ : ndarray of str
        Where the model's owner has given names.
    last_exchange_ : Exchange
        What the last call with rows has sent to each party; None before.

    Raises
    ------
    ConfigurationError, PeerError, ArgumentError
        A configuration that is wrong; a party that cannot be reached or is not who it should be;
        a model that is not there.

    Examples
    --------
    >>> import nn
    >>> with nn.Client("parties.toml") as client:  # doctest: +SKIP
    ...     client.predict(X)
    array([7, 2, 1])
    """

    def __init__(
        self,
        parties: str | Path,
        *,
        me: str | None = None,
        model: str | None = None,
        patience: float | None = None,
    ) -> None:
        self._read = configuration.load(parties)
        self._me = me if me is not None else self._only_client()
        if self._me not in self._read.clients:
            raise ConfigurationError(
                f"me must be one of {', '.join(self._read.clients)}, got {self._me!r}"
            )
        self._patience = self._read.timeouts.connect if patience is None else patience
        self._lock = threading.Lock()
        self._generation, self._pid = processes.generation, os.getpid()
        self._connections: list[Connection] = []
        self._closed = self._described = False
        self._asked = model
        self._known: tuple[Any, ...] | None = None
        self.last_exchange_: Exchange | None = None
        try:
            # Connects, and finds out what the model is.
            self._tried(lambda: None)
        except BaseException:
            self.close()
            raise

    def _only_client(self) -> str:
        here = [n for n, m in self._read.clients.items() if m.key is not None and m.key.exists()]
        if len(here) != 1:
            raise ConfigurationError(
                f"me must say which client this is: there are keys of {', '.join(here) or 'none'}"
            )
        return here[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client(me={self._me!r}, parties={self._read.names})"

    def close(self) -> None:
        """Say goodbye to the parties."""
        self._closed = True
        if self._generation != processes.generation:
            return  # the connections are the parent's, which goes on
        for connection in self._connections:
            connection.notify(Kind.BYE)
        self._hang_up()

    def _hang_up(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections, self._described = [], False

    def _tried(self, ask: Callable[[], T]) -> T:
        """Do something with all parties connected, again where one is lost meanwhile."""
        # Before the lock, which a thread of the parent may have held.
        check_process("client", self._generation, self._pid)
        deadline, said, pause = None, "", _PAUSE_SECONDS
        with self._lock:
            # Connections of an earlier call may have gone since, which is no loss.
            old = bool(self._connections)
            while True:
                if self._closed:
                    raise SessionError("the client is closed")
                try:
                    if not self._connections:
                        self._connect()
                    if not self._described:
                        self._describe()
                    return ask()
                except (PeerClosedError, LaterError) as error:
                    now = time.monotonic()
                    deadline = now + self._patience if deadline is None else deadline
                    if not isinstance(error, LaterError):
                        self._hang_up()
                        if old:
                            old = False
                            continue
                    if now >= deadline:
                        raise
                    if str(error) != said:
                        said = str(error)
                        record("waiting", warning=True, me=self._me, why=said)
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                except PeerError:
                    # Answers that are late would be taken for those of the next call.
                    self._hang_up()
                    raise

    def _connect(self) -> None:
        context, _ = own_contexts(self._read, self._me)
        deadline = time.monotonic() + self._read.timeouts.connect
        mine = {name: v for name, v in terms(self._read, None).items() if name not in _NOT_MINE}
        for member in self._read.parties.values():
            left = max(0.01, min(deadline - time.monotonic(), self._patience or _ONE_TRY_SECONDS))
            report = Report(me=self._me, peer=member.name)
            connection = connect(member, context, left, report)
            self._connections.append(connection)
            send_hello(connection, "predict", mine, b"")
            greeting = read_hello(connection, max(0.01, deadline - time.monotonic()))
            problem = disagreement(member.name, greeting.terms, self._me, mine)
            if problem:
                raise HandshakeError(problem)

    def _ask(self, call: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Send the same call to all parties; return their answers in bytes."""
        for connection in self._connections:
            connection.post_bytes(Kind.CALL, wire.encode(call))
            connection.expect_bytes([Kind.ANSWER], _LARGEST_ANSWER)
        exchange(self._connections, self._read.timeouts.answer)
        # All are taken before one is an error.
        data = [connection.take().data.data for connection in self._connections]
        return [
            self._answer(connection, each)
            for connection, each in zip(self._connections, data, strict=True)
        ]

    def _answer(self, connection: Connection, data: Any) -> tuple[Any, ...]:
        try:
            answer = wire.decode(data)
            status = answer[0]
        except (ShapeError, TypeError, IndexError):
            raise PeerError(f"{connection.peer} sent an answer that is malformed") from None
        if status != "ok":
            text = printable(str(answer[1] if len(answer) > 1 else "").encode())[:500]
            if status == "later":
                raise LaterError(f"{connection.peer}: {text}")
            raise ArgumentError(f"{connection.peer}: {text}")
        return tuple(answer[1:])

    def _describe(self) -> None:
        first, *others = self._ask(("describe", self._asked))
        for connection, other in zip(self._connections[1:], others, strict=True):
            if other != first:
                raise PeerError(
                    f"{self._connections[0].peer} and {connection.peer} serve different models"
                )
        try:
            model = Description.read(first)
        except DataError as error:
            raise PeerError(f"{self._connections[0].peer} sent {error}") from None
        if self._known not in (None, first):
            raise PeerError(
                f"the parties serve another model as {model.name} now: make a new Client for it"
            )
        self._known, self._described, self._model = first, True, model
        self.n_features_in_, self.answers_ = model.n_features, model.answers
        self.input_range_ = model.low, model.high
        if model.feature_names is not None:
            self.feature_names_in_ = model.feature_names
        if "values" not in self.answers_:
            self.classes_ = model.classes

    def health(self) -> list[dict[str, Any]]:
        """Return what each party says of itself."""
        return self._tried(lambda: [dict(pairs) for pairs in self._ask(("health",))])

    def models(self) -> list[str]:
        """Return the models that this client may ask for and all parties serve."""
        first, *others = [each.get("models", ()) for each in self.health()]
        return [str(name) for name in first if all(name in other for other in others)]

    def last_cost(self) -> tuple[int, int]:
        """Return the rounds and bytes of the last call, as the parties have counted them.

        Bytes are those that a party has sent to the other parties, at most. Requests that were
        computed together have both in common. (0, 0) before the first call.
        """
        exchange = self.last_exchange_
        rounds = sent = 0
        for id in exchange.ids if exchange is not None else ():
            told = self._tried(functools.partial(self._ask, ("cost", id)))
            if any([type(n) for n in each] != [int, int] for each in told):
                raise PeerError("the parties sent an answer that is malformed")
            rounds += max(each[0] for each in told)
            sent += max(each[1] for each in told)
        return rounds, sent

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of each row, or the values of a regressor.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        ndarray of shape (rows,), or (rows, outputs) for values of several outputs

        Raises
        ------
        ShapeError, RangeError, ArgumentError
            Rows of another width, a value outside the model's range or NaN, or a table whose columns
            have other names or another order: nothing is sent.
        PeerError
            A party is lost.
        """
        if "values" in self.answers_:
            values = self._decoded(X, "values")
            return values[:, 0] if self._model.flat else values
        index = self._request(X, "class")
        if index.size and int(index.max()) >= len(self.classes_):
            raise PeerError("the parties' answers do not add up to a class")
        return np.asarray(self.classes_[index.astype(np.int64)])

    def predict_one_hot(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return zeros, and a one for the label, of shape (rows, classes)."""
        return self._request(X, "one-hot").astype(np.int64)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scores, of shape (rows, classes), where the model's owner allows it."""
        return self._decoded(X, "scores")

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return each class's probability, of shape (rows, classes), where scores are allowed.

        The scores are revealed to this client, which makes them into probabilities.
        """
        link = self._model.link
        if "scores" in self.answers_:
            probabilities(link, np.zeros((1, len(self.classes_))))  # before anything is sent
        return np.asarray(probabilities(link, self.decision_function(X)))

    def _decoded(self, X: ArrayLike, answer: str) -> NDArray[np.float64]:
        return decode(self._request(X, answer), self._read.format.frac_bits)

    def _request(self, X: ArrayLike, answer: str) -> Words:
        model = self._model
        if answer not in model.answers:
            raise ArgumentError(
                f"the parties answer with {', '.join(model.answers)} alone, not with {answer}"
            )
        check_names(X, model.feature_names)
        rows = feature_matrix("X", X, model.n_features, None).astype(np.float64)
        check_inside(rows, model.low, model.high)
        if model.inputs is not None:
            rows = model.inputs.apply(rows)
        form = self._read.format
        encoded = encode(rows, form.frac_bits, int_bits=form.int_bits, name="X")
        self.last_exchange_ = None
        pieces = [
            self._send(encoded[k : k + model.largest_rows], answer)
            for k in range(0, len(encoded), model.largest_rows)
        ]
        width = () if answer == "class" else (len(model.classes),)
        return np.concatenate(pieces) if pieces else np.empty((0, *width), np.uint64)

    def _send(self, encoded: Words, answer: str) -> Words:
        return self._tried(lambda: self._send_once(encoded, answer))

    def _send_once(self, encoded: Words, answer: str) -> Words:
        rows = len(encoded)
        shape = (rows,) if answer == "class" else (rows, len(self._model.classes))
        id = fresh_key()
        call = wire.encode(("predict", id, self._model.name, answer, rows))
        last = encoded.copy()
        before = [(c.sent_bytes, c.received_bytes) for c in self._connections]
        first_rows = []
        for connection in self._connections[:-1]:
            seed = fresh_key()
            share = np.empty(encoded.shape, np.uint64)
            Stream(seed).fill(share, _CLIENT_STREAM)
            last -= share
            first_rows.append(share[0].copy())
            connection.post_bytes(Kind.CALL, call)
            connection.post_bytes(Kind.SHARE, seed)
        self._connections[-1].post_bytes(Kind.CALL, call)
        self._connections[-1].post(Kind.SHARE, [last])
        first_rows.append(last[0])
        for connection in self._connections:
            connection.expect(_expect(shape))
        # An answer takes a turn of the parties, who have a timeout of their own.
        exchange(self._connections, 2 * self._read.timeouts.party)
        total = np.zeros(shape, np.uint64)
        problem: PeerError | None = None
        for connection in self._connections:
            incoming = connection.take()
            if incoming.header.words:
                total += incoming.arrays()[0]
                continue
            status, reason = "error", "an answer that is malformed"
            try:
                status, reason = wire.decode(incoming.data.data)
            except (ShapeError, TypeError, ValueError):
                pass
            text = f"{connection.peer}: {printable(str(reason).encode())[:500]}"
            if problem is None or status != "later":
                problem = LaterError(text) if status == "later" else PeerError(text)
        if problem is not None:
            raise problem
        seen = tuple(
            Seen(c.peer, k < len(before) - 1, c.sent_bytes - a, c.received_bytes - b, row)
            for k, (c, (a, b), row) in enumerate(
                zip(self._connections, before, first_rows, strict=True)
            )
        )
        exchanged = Exchange((id,), rows, seen)
        past = self.last_exchange_
        self.last_exchange_ = exchanged if past is None else past + exchanged
        return total


def _expect(shape: tuple[int, ...]) -> Any:
    def accept(header: Header) -> Any:
        if header.kind != Kind.ANSWER:
            raise ShapeError(f"sent {header.kind.name} where ANSWER was to come")
        if not header.words and header.nbytes <= 2000:
            return np.empty(header.nbytes, np.uint8)
        if header.shapes != (shape,):
            raise ShapeError(f"sent the shapes {header.shapes} where {shape} was to come")
        return np.empty(header.nbytes // 8, np.uint64)

    return accept
