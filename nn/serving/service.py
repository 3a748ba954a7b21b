"""A computing party as a service: predictions on shared models for clients outside.

Every party holds its shares of one or more models and a session with the other parties. A client
sends each party its share of the rows; each party sends back its share of the answer. What is different
among watched parties (``security = "malicious"``): :mod:`nn.serving.parcels`.

The last party is the leader: a client sends it a full share of the rows, and the others only seeds, so
it receives a request last. The others send the leader the keys of their requests, on connections beside
the session's (:mod:`nn.serving.agreement`, :mod:`nn.serving.notices`). In each turn the leader opens to
all, in one round, which requests come next; all parties evaluate these together. A turn comes at least
every second, also without requests, so that the loss of a party is noticed.

A service runs until it is told to stop. When another party or the provider is lost, the service answers
its clients with that, and joins a new session, with fresh keys, as soon as all are back. A service that
leaves on purpose announces it; then all parties finish the requests that every party has received.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AuditError, HandshakeError, PartyError, PeerError, Session, SottoError
from mpc.core import wire
from mpc.core.errors import ConfigurationError
from mpc.core.events import record
from mpc.core.frames import Kind
from mpc.core.watching import SEMI_HONEST
from mpc.parties import configuration
from mpc.parties.configuration import Configuration
from mpc.parties.expiry import warn_of_certificates, watch_certificates
from mpc.parties.handshake import (
    COMPARE,
    HEALTH,
    NOTICES,
    RELOAD,
    SESSION,
    audit_terms,
    hear_hello,
    terms,
)
from mpc.parties.joining import Joining, Links, Lobby
from mpc.parties.metrics import present
from mpc.parties.tls import own_contexts
from mpc.transport.addresses import bind, show
from mpc.transport.connection import Connection
from mpc.transport.listener import Listener
from mpc.transport.loop import ASLEEP, KEEP, Loop, Talk, farewell
from nn.serving.agreement import Book
from nn.serving.client_calls import Calls
from nn.serving.model_files import ModelFiles
from nn.serving.notices import Notices
from nn.serving.turns import Turns, Wishes
from nn.shared.model import SharedModel

__all__ = ["PartyService", "serve"]

Words = NDArray[np.uint64]

_PROGRAM = "sotto serve"
# Seconds after which a thread gives up the interpreter lock to a waiting one.
_SWITCH_SECONDS = 2e-4
# Seconds after which a service that leaves ends in any case.
_STOP_SECONDS = 4.0
# Pauses after a session that has ended, or after a failed attempt to join one.
_PAUSE_SECONDS = 0.1
_LONG_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0


class _StopError(Exception):
    """The service is told to stop while it waits for the other parties."""


class PartyService:
    """The service of one party: answers clients until it is stopped.

    Parameters
    ----------
    read : Configuration
    me : str
        A computing party.
    folders : dict of str to path
        Folders of this party's shares, by name of the model, beside those in the configuration.
    sock : socket, optional
        A socket that listens at this party's address already.
    largest_rows : int, default=4096
        Rows of one request, at most.
    progress : bool, default=False
        Whether to show a progress bar on a terminal for evaluations of more than two seconds.

    Attributes
    ----------
    state : str
        Why the service cannot answer now; empty if it can.

    Raises
    ------
    PartyError, DataError, ConfigurationError
        If something is wrong at this party; no other party is waited for before.
    """

    def __init__(
        self,
        read: Configuration,
        me: str,
        folders: Mapping[str, str | Path],
        *,
        sock: socket.socket | None = None,
        largest_rows: int = 4096,
        progress: bool = False,
    ) -> None:
        if me not in read.parties:
            raise PartyError(f"me must be one of {', '.join(read.names)}, got {me!r}")
        address = read.parties[me].listen
        assert address is not None
        self.read, self.me, self._number = read, me, read.names.index(me)
        self.largest_rows = largest_rows
        # For SharedModel, None means after two seconds and on a terminal.
        self._progress = None if progress else False
        self.files = ModelFiles(read, me, folders)
        self.state = f"{me} starts"
        self.book = Book(self._number, len(read.names), read.timeouts.answer)
        self._calls = Calls(self)
        self._lobby = Lobby()
        self._turns: Turns | None = None
        self._served = self._failures = 0
        # What the auditor has found of the provider, until the configuration is read again.
        self._wrong = ""
        self._stop_by = float("inf")
        self._reloads = threading.Lock()
        self._started = time.monotonic()
        _, server = own_contexts(read, me)
        sock = sock or bind(address)
        self._listener = Listener(me, sock, server, read.certificates(), self._admit)
        self.loop: Loop = self._listener.loop
        self._notices = Notices(lambda: self.read, me, self.book, self.loop)
        self.loop.after, self.loop.now_and_then = self._notices.send_news, self._look
        self._listener.start()
        present(self.figures, lambda: self.read)

    def stop(self) -> None:
        """Announce that this party leaves, finish requests that all parties have, and end.

        It takes four seconds at most.
        """
        # No lock: this is called by a signal's handler.
        if not self._stopping:
            self._stop_by = time.monotonic() + _STOP_SECONDS
            self.loop.call(self._leave)

    @property
    def models(self) -> dict[str, SharedModel]:
        """The models that are served now, by name."""
        turns = self._turns
        return {} if turns is None else turns.models

    @property
    def sets(self) -> dict[str, bytes]:
        """The id of each model's set of files, the same at all parties."""
        turns = self._turns
        return {} if turns is None else turns.sets

    @property
    def digests(self) -> dict[str, bytes]:
        """The digest of each model that is served now, by name."""
        turns = self._turns
        return {} if turns is None else turns.digests

    @property
    def kinds(self) -> dict[str, Hashable]:
        """A key for each model, equal for models that can be evaluated together."""
        turns = self._turns
        return {} if turns is None else turns.kinds

    @property
    def _stopping(self) -> bool:
        return self._stop_by < float("inf")

    def models_of(self, client: str) -> dict[str, SharedModel]:
        """Return the models that a client may ask for now; other members of the configuration see all."""
        read, models = self.read, self.models
        if client not in read.clients:
            return models if client in read.members else {}
        may = read.clients[client].models
        return {name: m for name, m in models.items() if may is None or name in may}

    def trusts(self, client: str) -> bool:
        """Return whether a client's rows are believed to be in range, so that nobody checks them."""
        member = self.read.clients.get(client)
        return member is not None and member.trusted

    def health(self, asks: str) -> dict[str, Any]:
        """Return the state of the service, as far as the member `asks` may know it."""
        pending = () if asks in self.read.clients or self.state else self.files.pending
        state, models, known = self.state, self.models_of(asks), self.digests
        digests = tuple(f"{name}={known[name].hex()}" for name in models if name in known)
        helpers = (self.read.provider, self.read.auditor)
        if self.read.auditor and any(member and member.name == asks for member in helpers):
            # Errors are not for them, see mpc.transport.remote.
            state = f"{self.me} waits" if state else ""
        return {
            "role": "party",
            "me": self.me,
            "state": state or "ready",
            "models": tuple(models),
            **({"digests": digests} if digests else {}),
            **({"pending": pending} if pending else {}),
            **({} if self.read.security == SEMI_HONEST else {"security": self.read.security}),
            "waiting": len(self.book),
            "served": self._all_served(),
            "seconds": int(time.monotonic() - self._started),
        }

    def figures(self) -> dict[str, int]:
        """Return the figures of this service for metrics, beside those counted from events."""
        return {
            "ready": int(not self.state and not self._stopping),
            "waiting": len(self.book),
            "clients": sum(tuple(self._calls.connected.values())),
        }

    def _all_served(self) -> int:
        turns = self._turns
        return self._served + (0 if turns is None else turns.served)

    def reload(self, read: Configuration) -> None:
        """Replace clients, certificates and limits by those of `read`, and read all models' files.

        New files are served as soon as all parties have files of the same set.

        Raises
        ------
        SottoError
            If something is wrong with the files or the key. Nothing changes then.
        """
        fixed = [(r.names, r.format, r.security) for r in (read, self.read)]
        if fixed[0] != fixed[1]:
            raise PartyError(
                "parties, format and security can change only when all services start again"
            )
        helpers = [(r.provider is None, audit_terms(r)) for r in (read, self.read)]
        if helpers[0] != helpers[1]:
            raise PartyError(
                "whether there is a provider, its auditor and the rate can change only when all services"
                " start again"
            )
        _, server = own_contexts(read, self.me)
        self.files.take(self.files.read(read))
        self.read, self._wrong = read, ""
        self._listener.know(server, read.certificates())
        record("reload", me=self.me, clients=",".join(read.clients))
        warn_of_certificates(read)
        self.loop.call(self._notices.ask_for_reload)

    def read_again(self) -> str:
        """Read configuration and files again; return what is wrong, or an empty string."""
        with self._reloads:
            try:
                self.reload(configuration.load(self.read.path))
            except SottoError as error:
                record("reload", warning=True, me=self.me, problem=str(error))
                return str(error)
        return ""

    def run(self) -> None:
        """Serve until this party is told to stop."""
        record("start", role="party", me=self.me, models=",".join(self.files.names))
        try:
            while not self._stopping:
                if self._wrong:
                    # Who was caught does not get another try before somebody has looked.
                    self._pause(_LONG_PAUSE_SECONDS)
                    continue
                try:
                    links = self._join()
                except _StopError:
                    break
                self._serve(links)
        finally:
            self.state = f"{self.me} shuts down"
            self.book.close(self.state)
            self._listener.close(0.5)
            self._lobby.close()
            record("stop", role="party", me=self.me, served=self._served)

    # Sessions.

    def _join(self) -> Links:
        """Wait for all other parties, without a timeout, and join a session with them."""
        said = ""
        while True:
            try:
                return Joining(
                    self.read, self.me, _PROGRAM, self._lobby, float("inf"),
                    look=self._waits,
                ).run(notices=True)  # fmt: skip
            except (PeerError, ConfigurationError) as error:
                # A ConfigurationError: this party's certificate has expired. It may be renewed.
                if str(error) != said:
                    said = str(error)
                    record("waiting", warning=True, me=self.me, why=said)
                self.state = f"{self.me} waits: {said}"
                # Disagreements and files do not change within a moment.
                lasts = isinstance(error, HandshakeError | ConfigurationError) or "disagree" in said
                self._pause(_LONG_PAUSE_SECONDS if lasts else _PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            time.sleep(min(seconds, _PAUSE_SECONDS))

    def _waits(self, awaited: str) -> None:
        if self._stopping:
            raise _StopError
        if awaited:
            self.state = f"{self.me} waits for {awaited}"

    def _serve(self, links: Links) -> None:
        """Serve until the session ends."""
        problem = ""
        wishes = Wishes()
        provider = "" if self.read.provider is None else self.read.provider.name
        self._notices.begin(links, wishes)
        try:
            # Two parties alone make keys for oblivious transfers here, and either may be lost.
            with Session.from_links(self.read, self.me, links) as session:
                turns = Turns(
                    session, provider, self.book, self.files, wishes, self._progress,
                    self.read.checks_rows,
                )  # fmt: skip
                self.state = f"{self.me} prepares its models"
                turns.agree_on_models()
                self._turns, self.state = turns, ""
                self.book.open()
                record("ready", me=self.me, models=",".join(self.models))
                print(f"{self.me} is ready: {', '.join(self.models) or 'no model'}", flush=True)
                problem = f"{turns.run()} shuts down"
        except AuditError as error:
            problem = self._wrong = str(error)
        except PeerError as error:
            problem = wishes.explain(error)
        except Exception as error:
            # Without its text, which may hold secrets. The others go on as after any loss.
            problem = f"{type(error).__name__} at {self.me}"
        # A session that fails before it is ready may fail again: try less and less often.
        self._failures = self._failures + 1 if self._turns is None else 0
        self.state = problem
        self._served, self._turns = self._all_served(), None
        self._notices.end(links)
        self.book.close(problem)
        if not self._stopping:
            record("lost", warning=True, me=self.me, why=problem)
            self._pause(min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2**self._failures))

    # In the listener's thread: new connections, and notices.

    def _admit(self, connection: Connection) -> Talk:
        peer, read = connection.peer, self.read
        if peer not in read.clients:
            return (yield from self._attend(connection))
        connected = self._calls.connected
        if connected[peer] >= read.limits.connections:
            return farewell(connection, f"{peer} has {read.limits.connections} connections already")
        connected[peer] += 1
        try:
            return (yield from self._attend(connection))
        finally:
            connected[peer] -= 1

    def _attend(self, connection: Connection) -> Talk:
        peer, read = connection.peer, self.read
        greeting = yield from hear_hello(connection, read.timeouts.connect)
        purpose = greeting.purpose
        if purpose == HEALTH:
            return (yield from self._calls.answer_health_check(connection))
        if peer in read.clients and purpose not in (SESSION, NOTICES, COMPARE):
            return (yield from self._calls.greet(connection, greeting))
        if peer == self.me and purpose == RELOAD:
            return (yield from self._reload_for(connection))
        if peer in read.parties and purpose == COMPARE:
            return (
                yield from self._lobby.answer_comparison(
                    read, self.me, terms(read, _PROGRAM), connection, greeting
                )
            )
        if peer in read.names[self._number + 1 :] and purpose in (SESSION, NOTICES):
            links, number = self._notices.links, read.names.index(peer)
            self._lobby.put(connection, greeting)
            if links is not None and purpose == SESSION:
                # The peer has started a new session, so the old one cannot go on.
                links.peers[number].abandon()
            return KEEP
        self._listener.refusals.add(peer, f"has no business here for {purpose[:40]!r}")
        return farewell(connection, f"{peer} has no business here for {purpose[:40]!r}")

    def _reload_for(self, connection: Connection) -> Talk:
        """Read configuration and files again for this party's own operator, and answer the result."""
        problems: list[str] = []
        loop, seat = self.loop, self.loop.current
        assert seat is not None

        def again() -> None:
            problems.append(self.read_again())
            loop.wake(seat)

        # Files may take long to read.
        threading.Thread(target=again, name="sotto reloads", daemon=True).start()
        while not problems:
            yield ASLEEP
        answer = "error" if problems[0] else "ok", problems[0][:2000], self.files.names
        connection.post_bytes(Kind.ANSWER, wire.encode(answer))
        yield self.read.timeouts.answer
        return None

    def _leave(self) -> None:
        """Announce that this party leaves."""
        self._listener.shut()
        self._notices.leave()

    def _look(self) -> None:
        """Close connections that are waited for too long."""
        self._notices.look()
        now, links = time.monotonic(), self._notices.links
        if now > self._stop_by and links is not None:
            for connection in links.connections:
                connection.abandon()


def serve(path: str | Path, me: str, folders: Mapping[str, str], *, progress: bool = False) -> None:
    """Run the service of a party until SIGTERM or SIGINT; on SIGHUP, read configuration and files again.

    Parameters
    ----------
    path : path
        The path of parties.toml.
    me : str
        The party.
    folders, progress
        As for :class:`PartyService`.
    """
    read = configuration.load(path)
    # The threads of turns and of clients share the interpreter lock.
    sys.setswitchinterval(_SWITCH_SECONDS)
    service = PartyService(read, me, folders, progress=progress)
    watch_certificates(lambda: service.read)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())

    def reload(*_: object) -> None:
        threading.Thread(target=service.read_again, name="sotto reloads", daemon=True).start()

    signal.signal(signal.SIGHUP, reload)
    listen = read.parties[me].listen
    assert listen is not None
    others = [member.name for member in read.services if member.name != me]
    print(f"{me} listens at {show(listen)} and waits for {', '.join(others)}", flush=True)
    service.run()
