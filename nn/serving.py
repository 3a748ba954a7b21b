"""A computing party as a service: predictions on shared models for clients outside.

Every party holds its shares of one or more models and a session with the other parties. A client
sends each party its share of the rows; each party sends back its share of the answer.

The last party leads, as it gets the rows and the others seeds. The others tell it beside the
session which requests they have (:mod:`nn.agreement`). In turns it opens to all which come next,
several of them together, and all evaluate them; that takes one round. A turn without requests comes
at least every second, so that whoever is lost is missed.

A service lives until it is told to stop. When another party or the provider is lost, it answers
its clients so, and joins again, with fresh keys, as soon as all are back. Whoever leaves on purpose
says so first; then all finish what every party has got already.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import (
    FrameError,
    HandshakeError,
    PartyError,
    PeerError,
    Session,
    ShapeError,
    SottoError,
    configuration,
)
from mpc.configuration import Configuration
from mpc.errors import ConfigurationError, PeerTimeoutError
from mpc.events import record
from mpc.expiry import warn_of_certificates, watch_certificates
from mpc.handshake import COMPARE, HEALTH, NOTICES, SESSION, hear_hello
from mpc.joining import Joining, Links, Lobby
from mpc.metrics import present
from mpc.transport import wire
from mpc.transport.addresses import bind, show
from mpc.transport.connection import Connection
from mpc.transport.frames import Kind
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, By, Loop, Seat, Talk, farewell
from mpc.transport.tls import own_contexts
from nn.agreement import KEY_BYTES, Book
from nn.client_calls import CLIENT_STREAM, Calls
from nn.saved_shares import SharesFile
from nn.shared_model import SharedModel
from nn.turns import Turns, Wishes

__all__ = ["CLIENT_STREAM", "PartyService", "serve"]

Words = NDArray[np.uint64]

_PROGRAM = "sotto serve"
_LARGEST_NOTICE = 1 << 20
# How long a thread may keep the interpreter where another one waits for it.
_SWITCH_SECONDS = 2e-4
# How long one that leaves may take to end in any case.
_STOP_SECONDS = 4.0
# After a session that has ended, or a try to join that has failed.
_PAUSE_SECONDS = 0.1
_LONG_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
# How long a party's other line may live on after its line for notices.
_SUSPECT_SECONDS = 1.0


class _StopError(Exception):
    """This service is told to stop, while it waits for others."""


class PartyService:
    """Answers clients until it is stopped.

    Parameters
    ----------
    read : Configuration
    me : str
        A computing party.
    folders : dict of str to path
        Where this party's shares of each model are.
    sock : socket, optional
        Listens at this party's address already.
    largest_rows : int
        Rows of one request.
    progress : bool
        Whether to show a progress bar for evaluations of more than two seconds, on a terminal.

    Attributes
    ----------
    state : str
        Why nothing can, or nothing.

    Raises
    ------
    PartyError, DataError, ConfigurationError
        What is wrong at this party, before anybody else is waited for.
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
        self.leads = self._number == len(read.names) - 1
        self.largest_rows = largest_rows
        # As SharedModel has it, where True would be for any stream and at once.
        self._progress = None if progress else False
        self._folders = {name: Path(folder) for name, folder in folders.items()}
        self.names = tuple(self._folders)
        # Each model's files, the newest first, until all parties have that one.
        self._files = {name: [file] for name, file in self._read_files().items()}
        self.state = f"{me} starts"
        self.book = Book(self._number, len(read.names), read.timeouts.answer)
        self._calls = Calls(self)
        self._lobby = Lobby()
        self._links: Links | None = None
        self._told: dict[str, Seat] = {}
        self._suspect: tuple[float, Links, int] | None = None
        self._wishes = Wishes()
        self._turns: Turns | None = None
        self._served = self._failures = 0
        self._stop_by, self._next_sign = float("inf"), 0.0
        self._started = time.monotonic()
        _, server = own_contexts(read, me)
        sock = sock or bind(address)
        self._listener = Listener(me, sock, server, read.certificates(), self._admit)
        self.loop: Loop = self._listener.loop
        self.loop.after, self.loop.now_and_then = self._tell_news, self._look
        self._listener.start()
        present(self.figures, lambda: self.read)

    def _read_files(self) -> dict[str, SharesFile]:
        read = self.read
        files = {
            name: SharesFile(read.names, read.format, self._number, folder)
            for name, folder in self._folders.items()
        }
        self.widest = max(int(file.header["n_features"]) for file in files.values())
        return files

    def stop(self) -> None:
        """Finish what every party has got, say that this one leaves, and end within seconds."""
        # No lock: this is called by a signal's handler.
        if not self._stopping:
            self._stop_by = time.monotonic() + _STOP_SECONDS
            self.loop.call(self._leave)

    @property
    def models(self) -> dict[str, SharedModel]:
        """What can be asked for now."""
        turns = self._turns
        return {} if turns is None else turns.models

    @property
    def sets(self) -> dict[str, bytes]:
        """Which files these models are from, by a name that all parties have in common."""
        turns = self._turns
        return {} if turns is None else turns.sets

    @property
    def _stopping(self) -> bool:
        return self._stop_by < float("inf")

    def health(self) -> dict[str, Any]:
        """Return what runs here, as clients can ask for it."""
        return {
            "role": "party",
            "me": self.me,
            "state": self.state or "ready",
            "models": tuple(self.models),
            "waiting": len(self.book),
            "served": self._all_served(),
            "seconds": int(time.monotonic() - self._started),
        }

    def figures(self) -> dict[str, int]:
        """Return what metrics have of this service beside its events."""
        return {
            "ready": int(not self.state and not self._stopping),
            "waiting": len(self.book),
            "clients": sum(tuple(self._calls.connected.values())),
        }

    def _all_served(self) -> int:
        turns = self._turns
        return self._served + (0 if turns is None else turns.served)

    def reload(self, read: Configuration) -> None:
        """Take clients, certificates and limits of another configuration, and the models' files.

        What the files hold is served as soon as all parties have files of the same new set.

        Raises
        ------
        SottoError
            If something is wrong with the files or the key: nothing changes.
        """
        same = (read.names, read.format) == (self.read.names, self.read.format)
        if not same:
            raise PartyError("parties and format can change only when all services start again")
        _, server = own_contexts(read, self.me)
        files = self._read_files()
        for name, file in files.items():
            known = self._files[name]
            self._files[name] = [
                file,
                *(each for each in known if not np.array_equal(each.name, file.name)),
            ][:2]
        self.read = read
        self._listener.know(server, read.certificates())
        record("reload", me=self.me, clients=",".join(read.clients))
        warn_of_certificates(read)
        self.loop.call(self._ask_for_reload)

    def run(self) -> None:
        """Serve until this party is told to stop."""
        record("start", role="party", me=self.me, models=",".join(self.names))
        try:
            while not self._stopping:
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

    # From one session to the next.

    def _join(self) -> Links:
        """Wait for all others, however long that takes, and join a session with them."""
        said = ""
        while True:
            try:
                return Joining(
                    self.read, self.me, _PROGRAM, self._lobby, float("inf"),
                    look=self._waits,
                ).run(notices=True)  # fmt: skip
            except (PeerError, ConfigurationError) as error:
                # This party's own certificate may have expired, until one is read that has not.
                if str(error) != said:
                    said = str(error)
                    record("waiting", warning=True, me=self.me, why=said)
                self.state = f"{self.me} waits: {said}"
                # What parties disagree on will not change at once, nor will files.
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
        """Serve for as long as the session lasts."""
        problem = ""
        session = Session.from_links(self.read, self.me, links)
        self._wishes = wishes = Wishes()
        turns = Turns(
            session, self.read.provider.name, self.book, self._files, wishes, self._progress
        )
        self._links = links
        self.loop.call(lambda: self._open_notices(links))
        try:
            with session:
                self.state = f"{self.me} prepares its models"
                turns.agree_on_models()
                self._turns, self.state = turns, ""
                self.book.open()
                record("ready", me=self.me, models=",".join(self.models))
                print(f"{self.me} is ready: {', '.join(self.models) or 'no model'}", flush=True)
                problem = f"{turns.run()} shuts down"
        except PeerError as error:
            problem = wishes.explain(error)
        except Exception as error:
            # Its text may hold anything. The others go on as after any loss.
            problem = f"{type(error).__name__} at {self.me}"
        # What fails before it serves anybody may fail again: less and less often.
        self._failures = self._failures + 1 if self._turns is None else 0
        self._links = None
        self.state = problem
        self._served, self._turns = self._all_served(), None
        self.loop.call(lambda: self._close_notices(links))
        self.book.close(problem)
        if not self._stopping:
            record("lost", warning=True, me=self.me, why=problem)
            self._pause(min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2**self._failures))

    # In the listener's thread: who comes, and what parties tell one another beside the session.

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
            return (yield from self._calls.tell_anybody(connection))
        if peer in read.clients and purpose not in (SESSION, NOTICES, COMPARE):
            return (yield from self._calls.greet(connection, greeting))
        if peer in read.parties and purpose == COMPARE:
            return (
                yield from self._lobby.answer_comparison(
                    read, self.me, _PROGRAM, connection, greeting
                )
            )
        if peer in read.names[self._number + 1 :] and purpose in (SESSION, NOTICES):
            links, number = self._links, read.names.index(peer)
            self._lobby.put(connection, greeting)
            if links is not None and purpose == SESSION:
                # It has begun anew, so what is left of the session with it is of no use.
                links.peers[number].abandon()
            return KEEP
        self._listener.refusals.add(peer, f"has no business here for {purpose[:40]!r}")
        return farewell(connection, f"{peer} has no business here for {purpose[:40]!r}")

    def _open_notices(self, links: Links) -> None:
        if self._links is links:
            self._told = {
                name: self.loop.add(connection, self._hear(connection, links))
                for name, connection in links.notices.items()
            }
            if self._stopping:
                self._leave()

    def _close_notices(self, links: Links) -> None:
        for name, seat in tuple(self._told.items()):
            if links.notices.get(name) is seat.line:
                self.loop.detach(seat)
                del self._told[name]
        for connection in links.notices.values():
            connection.close()

    def _hear(self, connection: Connection, links: Links) -> Talk:
        """Hear what another party tells beside the session."""
        peer = connection.peer
        number, limit = self.read.names.index(peer), self.read.timeouts.party
        try:
            while True:
                connection.expect_bytes([Kind.NOTICE], _LARGEST_NOTICE)
                # What this party sends is no sign of life of the other.
                yield By(time.monotonic() + limit)
                try:
                    word, one, other = wire.decode(connection.take().data.data)
                    if word == "news":
                        self.book.heard(number, _cut(one), _cut(other))
                    elif word == "leaves" and one in (*self.read.names, self.read.provider.name):
                        self._hear_leaving(one)
                    elif word == "reload":
                        self._ask_for_reload()
                except (ShapeError, TypeError, ValueError):
                    raise FrameError(f"{peer} sent a notice that is malformed") from None
        except PeerTimeoutError:
            # It stalls, or its machine is gone without a word. Turns without requests do not miss it.
            if self._links is links:
                self._wishes.lost = f"{peer} did not answer within {limit:g} s"
                links.peers[number].abandon()
            return None
        except PeerError:
            # It may have said more on its other line, or end there by itself.
            self._suspect = time.monotonic() + _SUSPECT_SECONDS, links, number
            return None

    def _tell(self, names: Sequence[str], *notice: Any) -> None:
        data = wire.encode(notice)
        for name in names:
            if (seat := self._told.get(name)) is not None and isinstance(seat.line, Connection):
                seat.line.post_bytes(Kind.NOTICE, data)
                self.loop.push(seat)

    def _tell_news(self) -> None:
        if not self._told:
            return
        has, has_not = self.book.news()
        if has or has_not:
            self._tell(self.read.names[-1:], "news", has, has_not)
        wishes = self._wishes
        if wishes.leaves and not wishes.told:
            wishes.told = True
            self._tell([n for n in self.read.names if n != self.me], "leaves", wishes.leaves, b"")

    def _leave(self) -> None:
        """Say that this party leaves."""
        self._listener.shut()
        self._hear_leaving(self.me)

    def _hear_leaving(self, name: str) -> None:
        """Let the leader end the session, as soon as what all have is done."""
        if self._wishes.leave(name):
            self._prompt()

    def _ask_for_reload(self) -> None:
        if self.leads:
            self._wishes.reload = True
            self._prompt()
        else:
            self._tell(self.read.names[-1:], "reload", b"", b"")

    def _prompt(self) -> None:
        with self.book.changed:
            self.book.changed.notify_all()

    def _look(self) -> None:
        """End what waits for others longer than it should."""
        now, links = time.monotonic(), self._links
        if now > self._next_sign:
            # A sign of life, for whom turns tell nothing of this party.
            self._next_sign = now + self.read.timeouts.party / 4
            self._tell([n for n in self.read.names if n != self.me], "here", b"", b"")
        if self._suspect is not None and now > self._suspect[0]:
            _, suspected, number = self._suspect
            self._suspect = None
            if suspected is links:
                suspected.peers[number].abandon()
        if now > self._stop_by and links is not None:
            for connection in (*links.peers.values(), links.provider):
                connection.abandon()


def _cut(data: bytes) -> list[bytes]:
    if type(data) is not bytes or len(data) % KEY_BYTES:
        raise ShapeError("keys must be whole")
    return [data[k : k + KEY_BYTES] for k in range(0, len(data), KEY_BYTES)]


def _reload(service: PartyService, path: str | Path) -> Callable[[], None]:
    def again() -> None:
        try:
            service.reload(configuration.load(path))
        except SottoError as error:
            record("reload", warning=True, me=service.me, problem=str(error))

    return lambda: threading.Thread(target=again, name="sotto reloads", daemon=True).start()


def serve(path: str | Path, me: str, folders: Mapping[str, str], *, progress: bool = False) -> None:
    """Run a party until SIGTERM or SIGINT; SIGHUP reads the configuration and the models again."""
    read = configuration.load(path)
    # Turns and clients share the interpreter: neither shall wait for the other for long.
    sys.setswitchinterval(_SWITCH_SECONDS)
    service = PartyService(read, me, folders, progress=progress)
    watch_certificates(lambda: service.read)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    reload = _reload(service, path)
    signal.signal(signal.SIGHUP, lambda *_: reload())
    listen = read.parties[me].listen
    assert listen is not None
    others = [name for name in (*read.names, read.provider.name) if name != me]
    print(f"{me} listens at {show(listen)} and waits for {', '.join(others)}", flush=True)
    service.run()
