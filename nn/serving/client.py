"""The client of parties that serve: private predictions for a data owner who computes nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import (
    AnswerError,
    ArgumentError,
    ConfigurationError,
    DataError,
    LimitError,
    PeerError,
    RangeError,
    ShapeError,
    SottoError,
)
from mpc.core import wire
from mpc.core.frames import Header, Kind
from mpc.core.watching import MALICIOUS
from mpc.parties import configuration
from mpc.transport.connection import exchange, printable
from nn.core.checks import check_names, feature_matrix, side_by_side
from nn.core.commitments import DIGEST_BYTES
from nn.fixed_point.inputs import check_inside
from nn.losses.links import probabilities
from nn.serving.agreement import DIGEST, ERROR, LATER, LIMIT, RANGE, STATUSES
from nn.serving.client_connections import ClientConnections, LaterError, read_answer
from nn.serving.exchange import Exchange, Seen
from nn.serving.model_description import Description
from nn.serving.parcels import answer_masks, pack
from ring import decode, encode, fresh_key

__all__ = ["Client"]

Words = NDArray[np.uint64]


class Client(ClientConnections):
    """Asks parties for predictions; no party learns the rows or the answers.

    Each row is split into shares in this process, one for each party; each party returns a share of
    the answer. Where ``security = "malicious"`` stands in parties.toml, all return the answer under a mask
    of this client, which takes it if all have sent the same. The interface is that of a fitted
    scikit-learn classifier or regressor. Threads may use one client, one call at a time; a forked process
    must make its own client.

    Parameters
    ----------
    parties : path
        The path of parties.toml.
    me : str, optional
        The name of this client. Default: the only client whose key is on this machine.
    model : str, optional
        The name of the model. Default: the only model that this client may ask for.
    patience : float, optional
        Seconds during which a call is repeated when a party or a connection is lost, or the parties
        wait for one another; 0 for never. Default: the timeout ``connect`` of the configuration.
        A failed attempt reveals nothing.
    model_digest : str, optional
        The model's digest, as ``sotto put`` and ``sotto health`` show it and its owner tells: the client
        asks no other model. Default: whatever the parties serve under the name.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels; a classifier only.
    model_digest_ : str
        The digest of the model that the parties served when the client connected last.
    n_features_in_ : int
        Number of features.
    answers_ : tuple of str
        The answers that the model's owner allows: "class", "one-hot" and perhaps "scores"; of a
        regressor "values"; of a model with several outputs "outputs".
    inputs_ : dict of str to int, or None
        Of a model with several inputs: their names, and how many features each has, in order.
    outputs_ : dict of str to (str, tuple of int), or None
        Of a model with several outputs: by their names "labels", "probabilities" or "values", which says
        what the network's file has there, and the shape of a row of scores or values.
    input_range_ : (ndarray, ndarray)
        Least and largest value of the inputs, scalars or of shape (features,).
    feature_names_in_ : ndarray of str, of shape (features,)
        Names of the features, if the model has them.
    last_exchange_ : Exchange or None
        Bytes and shares that the last call with rows has sent to each party; None before.

    Raises
    ------
    ConfigurationError
        If the configuration is wrong, or has no such client.
    PeerError
        If a party cannot be reached, or is not who it should be.
    ArgumentError
        If there is no such model for this client, or `model_digest` is no digest.
    AnswerError
        If a party serves another model than `model_digest` names, or the parties serve different ones.

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
        model_digest: str | None = None,
    ) -> None:
        self._pinned = _digest(model_digest)
        self._read = configuration.load(parties)
        self._me = me if me is not None else self._only_client()
        if self._me not in self._read.clients:
            raise ConfigurationError(
                f"me must be one of {', '.join(self._read.clients)}, got {self._me!r}"
            )
        super().__init__(
            self._read, self._me, self._read.timeouts.connect if patience is None else patience
        )
        self._watched = self._read.security == MALICIOUS
        self._asked = model
        self._known: tuple[Any, ...] | None = None
        self.last_exchange_: Exchange | None = None
        try:
            # Connects, and asks for the description of the model.
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

    def __repr__(self) -> str:
        return f"Client(me={self._me!r}, parties={self._read.names})"

    def _describe(self) -> None:
        told = self._ask(("describe", self._asked))
        peers = [connection.peer for connection in self._connections]
        digests = [self._check_digest(*each) for each in zip(peers, told, strict=True)]
        first, *others = [each[1:] for each in told]
        for connection, other in zip(self._connections[1:], others, strict=True):
            if other != first:
                raise PeerError(
                    f"{self._connections[0].peer} and {connection.peer} serve different models"
                )
        for connection, digest in zip(self._connections[1:], digests[1:], strict=True):
            if digest != digests[0]:
                # Parties that take a new set of files do not do so at the same moment.
                raise _UnequalError(
                    f"{self._connections[0].peer} serves a model with the digest {digests[0].hex()}, and"
                    f" {connection.peer} one with {digest.hex()}"
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
        self.model_digest_ = digests[0].hex()
        self.n_features_in_, self.answers_ = model.n_features, model.answers
        self.input_range_ = model.low, model.high
        if model.feature_names is not None:
            self.feature_names_in_ = model.feature_names
        self.inputs_ = model.named_inputs
        self.outputs_ = {head.name: (head.role, head.shape) for head in model.heads} or None
        if not {"values", "outputs"} & set(self.answers_):
            self.classes_ = model.classes

    def _check_digest(self, peer: str, told: tuple[Any, ...]) -> bytes:
        """Return the digest that a party has told; raise AnswerError if it is not the one pinned."""
        digest = told[0] if told else None
        if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
            raise PeerError(f"{peer} sent a digest of the model that is malformed")
        if self._pinned and digest != self._pinned:
            raise AnswerError(
                f"{peer} serves a model with the digest {digest.hex()}, and model_digest is"
                f" {self._pinned.hex()}"
            )
        return digest

    def health(self) -> list[dict[str, Any]]:
        """Return the state of each party's service.

        Returns
        -------
        list of dict
            One for each party, with "me", "state" ("ready" if it answers), "models" and figures.

        Raises
        ------
        PeerError
            If a party is lost.
        """
        return self._tried(self._ask_for_health)

    def _ask_for_health(self) -> list[dict[str, Any]]:
        told = self._ask(("health",))
        found = []
        for connection, pairs in zip(self._connections, told, strict=True):
            try:
                found.append(dict(pairs))
            except (TypeError, ValueError):
                raise PeerError(f"{connection.peer} sent an answer that is malformed") from None
        return found

    def models(self) -> list[str]:
        """Return the names of the models that all parties serve and this client may ask for.

        Returns
        -------
        list of str

        Raises
        ------
        PeerError
            If a party is lost.
        """
        told = [each.get("models", ()) for each in self.health()]
        first, *others = [each if isinstance(each, tuple) else () for each in told]
        return [str(name) for name in first if all(name in other for other in others)]

    def last_cost(self) -> tuple[int, int]:
        """Return rounds and bytes of the last call, as the parties have counted them.

        Returns
        -------
        (int, int)
            Rounds, and bytes that a party has sent to the other parties, the most of any party.
            Both are those of the whole evaluation, which requests of other clients may have shared.
            (0, 0) before the first call.

        Raises
        ------
        PeerError
            If a party is lost.
        """
        exchange = self.last_exchange_
        rounds = sent = 0
        for id in exchange.ids if exchange is not None else ():
            costs = self._tried(functools.partial(self._ask, ("cost", id)))
            if any([type(n) for n in each] != [int, int] for each in costs):
                raise PeerError("the parties sent an answer that is malformed")
            rounds += max(each[0] for each in costs)
            sent += max(each[1] for each in costs)
        return rounds, sent

    def predict(self, X: Any) -> Any:
        """Return the label of each row, or the values of a regressor.

        Parameters
        ----------
        X : array_like of shape (rows, features), or dict of str to array_like
            By their names, of a model with several inputs.

        Returns
        -------
        ndarray of shape (rows,), or (rows, outputs) for values of several outputs
            Of a model with outputs that have names, a dict of str to ndarray: the index of the
            largest score, or the values.

        Raises
        ------
        ShapeError, RangeError, DtypeError, ArgumentError
            If `X` is not (rows, features), has a value outside the model's range or NaN, is no array
            of reals, or is a table whose columns have other names or another order. Nothing is sent
            then.
        LimitError
            If this client has asked for more requests or rows than it may in an hour; its `retry_after`
            says in how many seconds it may ask again. Rows that take several requests may have used up
            the limit in part; nothing is returned then.
        PeerError
            If a party is lost.
        AnswerError
            If parties that watch one another have sent different answers, or a party serves another model
            than `model_digest` names.
        """
        if "outputs" in self.answers_:
            found, start = {}, 0
            answers = self._decoded(X, "outputs")
            for head in self._model.heads:
                found[head.name] = head.answered(start, answers)
                start += head.stop - head.start
            return found
        if "values" in self.answers_:
            values = self._decoded(X, "values")
            return values[:, 0] if self._model.flat else values
        index = self._request(X, "class")
        if index.size and int(index.max()) >= len(self.classes_):
            raise PeerError("the parties' answers do not add up to a class")
        return np.asarray(self.classes_[index.astype(np.int64)])

    def predict_one_hot(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the label of each row as a one-hot vector.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        int64 array of shape (rows, classes)

        Raises
        ------
        ShapeError, RangeError, DtypeError, ArgumentError, PeerError
            As in :meth:`predict`.
        """
        return self._request(X, "one-hot").astype(np.int64)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scores of each row, if the model's owner allows it.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        float64 array of shape (rows, classes)

        Raises
        ------
        ArgumentError
            If scores are not allowed.
        ShapeError, RangeError, DtypeError, PeerError
            As in :meth:`predict`.
        """
        return self._decoded(X, "scores")

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, if the model's owner allows scores.

        The scores are revealed to this client, which computes the probabilities from them.

        Parameters
        ----------
        X : array_like of shape (rows, features)

        Returns
        -------
        float64 array of shape (rows, classes)

        Raises
        ------
        ArgumentError
            If scores are not allowed, or the model has no probabilities.
        ShapeError, RangeError, DtypeError, PeerError
            As in :meth:`predict`.
        """
        link = self._model.link
        if "scores" in self.answers_:
            probabilities(link, np.zeros((1, len(self.classes_))))  # before anything is sent
        return np.asarray(probabilities(link, self.decision_function(X)))

    def _decoded(self, X: ArrayLike, answer: str) -> NDArray[np.float64]:
        return decode(self._request(X, answer), self._read.format.frac_bits)

    def _request(self, X: Any, answer: str) -> Words:
        model = self._model
        if answer not in model.answers:
            raise ArgumentError(
                f"the parties answer with {', '.join(model.answers)} alone, not with {answer}"
            )
        if isinstance(X, dict):
            X = side_by_side(X, model.named_inputs)
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
        call = ("predict", id, self._model.name, self._pinned, answer, rows)
        before = [(c.sent_bytes, c.received_bytes) for c in self._connections]
        parcels, masks = pack(encoded, len(self._connections), self._watched)
        for connection, parcel in zip(self._connections, parcels, strict=True):
            connection.post_bytes(Kind.CALL, wire.encode((*call, *parcel.said)))
            if parcel.share is not None:
                connection.post(Kind.SHARE, [parcel.share], beside=True)
        accept = _expect(shape)
        for connection in self._connections:
            connection.expect(accept, (Kind.ANSWER, (shape,)))
        # The parties answer within a turn, whose timeout is `party`.
        exchange(self._connections, 2 * self._read.timeouts.party, busy=False)
        answers: list[Words] = []
        refusals: list[_Refusal] = []
        for connection in self._connections:
            incoming = connection.take()
            if incoming.header.words:
                answers.append(incoming.arrays()[0])
                continue
            refusals.append(_Refusal.read(connection.peer, incoming.data.data))
        if refusals:
            raise max(refusals, key=lambda each: each.weight).error()
        if self._watched:
            self._compare("answers", [words.tobytes() for words in answers])
            total = answers[0] - answer_masks(masks, shape).sum(axis=0, dtype=np.uint64)
        else:
            total = np.sum(answers, axis=0, dtype=np.uint64)
        seen = tuple(
            Seen(
                c.peer,
                parcel.share is None,
                c.sent_bytes - a,
                c.received_bytes - b,
                parcel.first_row,
            )
            for c, (a, b), parcel in zip(self._connections, before, parcels, strict=True)
        )
        exchanged = Exchange((id,), rows, seen)
        past = self.last_exchange_
        self.last_exchange_ = exchanged if past is None else past + exchanged
        return total

    def _compare(self, what: str, told: Sequence[object]) -> None:
        """Raise AnswerError unless all parties have told the same."""
        for connection, other in zip(self._connections[1:], told[1:], strict=True):
            if other != told[0]:
                raise AnswerError(
                    f"{self._connections[0].peer} and {connection.peer} sent different {what}: one of"
                    " the parties deviates from the program, and none of the answers was used"
                )


class _UnequalError(LaterError, AnswerError):
    """The parties serve models with different digests: for a moment, or one of them lies."""


@dataclass(frozen=True)
class _Refusal:
    """A party's reason for an answer without a result.

    Attributes
    ----------
    status : str
        One of :data:`nn.serving.agreement.STATUSES`.
    text : str
    wait : int or None
        Seconds after which a request beyond a limit may be sent again; None if never.
    """

    status: str
    text: str
    wait: int | None

    @classmethod
    def read(cls, peer: str, data: Any) -> _Refusal:
        """Read the answer of a party, which may be anything."""
        status, reason, wait = ERROR, "an answer that is malformed", ()
        try:
            status, reason, *wait = read_answer(data)
        except (ShapeError, TypeError, ValueError):
            pass
        known = status if status in STATUSES else ERROR
        seconds = wait[0] if wait and type(wait[0]) is int else None
        return cls(known, f"{peer}: {printable(str(reason).encode())[:500]}", seconds)

    @property
    def weight(self) -> tuple[int, float]:
        """The refusal to tell of several is the largest: others may follow from it."""
        wait = float("inf") if self.wait is None else self.wait
        return (LATER, ERROR, RANGE, LIMIT, DIGEST).index(self.status), wait

    def error(self) -> SottoError:
        """Return the exception."""
        if self.status == LIMIT:
            return LimitError(self.text, self.wait)
        kinds = {LATER: LaterError, RANGE: RangeError, DIGEST: AnswerError}
        return kinds.get(self.status, PeerError)(self.text)


def _digest(text: str | None) -> bytes:
    """Return the bytes of `model_digest`; none for None."""
    if text is None:
        return b""
    try:
        digest = bytes.fromhex(text)
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise ArgumentError(
            f"model_digest must be {2 * DIGEST_BYTES} hexadecimal digits, as sotto put shows them,"
            f" got {text!r}"
        )
    return digest


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
