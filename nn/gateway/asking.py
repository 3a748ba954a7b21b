"""The gateway's clients of the parties, which all HTTP requests share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import ConfigurationError, PeerError
from mpc.core.events import record
from mpc.parties import configuration
from mpc.parties.health import Health, ask
from mpc.parties.tls import own_contexts
from nn.gateway.bodies import Table
from nn.gateway.problems import HttpError
from nn.serving.client import Client
from nn.serving.exchange import Exchange

__all__ = ["ANSWERS", "Answer", "Asking"]

# The gateway's kinds of answer, and the client's answer that the model's owner must allow for each.
ANSWERS = {
    "labels": "class", "scores": "scores", "probabilities": "scores", "values": "values",
    "outputs": "outputs",
}  # fmt: skip
# Seconds that a party may take to answer a question for its state.
_LOOK_SECONDS = 3.0
# Short, so that an HTTP client soon learns that parties are away and when to try again; long enough for
# parties that join again at once.
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """The answer of the parties to one HTTP request.

    Attributes
    ----------
    kind : str
        A key of :data:`ANSWERS`.
    values : ndarray of shape (rows,) or (rows, outputs), or dict of str to ndarray
        Labels, scores, probabilities or values; by the names of the outputs, if there are several.
    rows : int
    classes : ndarray, or None for a regressor
    exchange : Exchange or None
        None for a request without rows.
    cost : (int, int) or None
        Rounds and bytes, if details were asked for.
    seconds : float
    """

    kind: str
    values: NDArray[Any] | dict[str, NDArray[Any]]
    rows: int
    classes: NDArray[Any] | None
    exchange: Exchange | None
    cost: tuple[int, int] | None
    seconds: float


class Asking:
    """Asks the parties as one client of the configuration, from several threads.

    Parameters
    ----------
    path : path
        The path of parties.toml.
    me : str
        The name of the client.
    most : int
        Threads that ask at the same time; each uses its own connections to the parties.

    Raises
    ------
    ConfigurationError
        If the configuration is wrong or the client's key is not here. The parties need not run.
    """

    def __init__(self, path: Path, me: str, most: int) -> None:
        self._path, self.me, self._most = path, me, most
        self._read = configuration.load(path)
        if me not in self._read.clients:
            raise ConfigurationError(
                f"me must be one of {', '.join(self._read.clients)}, got {me!r}"
            )
        own_contexts(self._read, me)
        self._lock = threading.Lock()
        # Idle clients with their models; a client whose connections were closed reconnects by itself.
        self._idle: list[tuple[str, Client]] = []
        self._open = 0

    @property
    def parties(self) -> tuple[str, ...]:
        """The computing parties' names."""
        return self._read.names

    @property
    def provider(self) -> bool:
        """Whether there is a crypto provider."""
        return self._read.provider is not None

    @property
    def everybody(self) -> str:
        """The names of all that compute, as text."""
        return self._read.everybody

    def look(self) -> list[Health]:
        """Return the state of each party's service."""
        # Read again, since certificates may have been renewed.
        read = configuration.load(self._path)
        return [each for each in ask(read, self.me, _LOOK_SECONDS) if each.role == "party"]

    def models(self) -> list[str]:
        """Return the models that all parties serve.

        Raises
        ------
        PeerError
            If one of the parties is not ready.
        """
        served = []
        for each in self.look():
            if not each.ready:
                raise PeerError(each.trouble)
            served.append([str(name) for name in each.told.get("models", ())])
        return [name for name in served[0] if all(name in others for others in served[1:])]

    def describe(self, model: str) -> dict[str, Any]:
        """Return the description of a model, as the gateway's JSON has it."""
        with self._client(model) as client:
            low, high = (np.broadcast_to(e, client.n_features_in_) for e in client.input_range_)
            names = getattr(client, "feature_names_in_", None)
            classes = getattr(client, "classes_", None)
            return {
                "name": model,
                "features": client.n_features_in_,
                "feature_names": None if names is None else [str(name) for name in names],
                "low": low.tolist(),
                "high": high.tolist(),
                "classes": None if classes is None else classes.tolist(),
                "answers": [kind for kind in ANSWERS if ANSWERS[kind] in client.answers_],
                "inputs": client.inputs_,
                "outputs": client.outputs_
                and {
                    n: {"kind": kind, "shape": shape}
                    for n, (kind, shape) in client.outputs_.items()
                },
            }

    def answer(
        self, model: str, kind: str | None, rows: Table, *, detailed: bool, one_array: bool = False
    ) -> Answer:
        """Ask the parties for an answer of a kind.

        None asks for labels, of a regressor for values, of a model with several outputs for these. They
        are refused where the answer has to be `one_array`.

        Raises
        ------
        HttpError
            If there is no such model, or its owner does not allow the answer.
        SottoError
            As :class:`nn.Client` does.
        """
        with self._client(model) as client:
            if kind is None:
                kind = next((k for k in ("values", "outputs") if k in client.answers_), "labels")
            if ANSWERS[kind] not in client.answers_:
                allowed = ", ".join(k for k in ANSWERS if ANSWERS[k] in client.answers_)
                raise HttpError(
                    403, f"the owner of {model} allows {allowed} alone, not {kind}", "NotAllowed"
                )
            call = {
                "labels": client.predict, "values": client.predict, "outputs": client.predict,
                "scores": client.decision_function, "probabilities": client.predict_proba,
            }[kind]  # fmt: skip
            if one_array and kind == "outputs":
                raise HttpError(
                    406, f"several outputs, as of {model}, are answered as JSON alone", "Accept"
                )
            given: Any = rows
            if rows.inputs is not None and len(rows):
                given = rows.inputs
            elif rows.inputs is not None or rows.rows.shape == (0, 0):
                # JSON without rows does not say their width.
                given = Table(np.empty((0, client.n_features_in_)), rows.columns)
            begin = time.monotonic()
            values = call(given)
            seconds = time.monotonic() - begin
            exchange = client.last_exchange_ if len(rows) else None
            cost = client.last_cost() if detailed and exchange is not None else None
            classes = getattr(client, "classes_", None)
        return Answer(kind, values, len(rows), classes, exchange, cost, seconds)

    def close(self) -> None:
        """Close the idle clients, without waiting for the others."""
        with self._lock:
            clients = [client for _, client in self._idle]
            self._open -= len(clients)
            self._idle.clear()
        for client in clients:
            client.close()

    @contextmanager
    def _client(self, model: str) -> Iterator[Client]:
        """Lend a client for a model to one thread; a client that has lost a party is closed."""
        client = self._take(model)
        try:
            yield client
        except (PeerError, OSError):
            self._drop(client)
            raise
        except BaseException:
            self._give_back(model, client)
            raise
        self._give_back(model, client)

    def _take(self, model: str) -> Client:
        with self._lock:
            found = next((each for each in self._idle if each[0] == model), None)
            if found is not None:
                self._idle.remove(found)
                return found[1]
            # Make place for a new client: close one for another model.
            spare = self._idle.pop(0)[1] if self._open >= self._most else None
            self._open += spare is None
        if spare is not None:
            spare.close()
        try:
            if model not in self.models():
                raise HttpError(404, f"no model is named {model[:100]!r}", "UnknownModel")
            return Client(self._path, me=self.me, model=model, patience=_PATIENCE_SECONDS)
        except BaseException:
            with self._lock:
                self._open -= 1
            raise

    def _drop(self, client: Client) -> None:
        with self._lock:
            self._open -= 1
        client.close()
        record("client", warning=True, me=self.me, problem="lost")

    def _give_back(self, model: str, client: Client) -> None:
        with self._lock:
            self._idle.append((model, client))
