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

import hashlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
    SottoError,
    WorkerError,
    configuration,
)
from mpc.configuration import Configuration
from mpc.events import record
from mpc.handshake import COMPARE, HEALTH, NOTICES, SESSION, hear_hello
from mpc.joining import Joining, Links, Lobby
from mpc.transport import wire
from mpc.transport.connection import Connection
from mpc.transport.frames import Kind
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, Loop, Seat, Talk
from mpc.transport.tls import bind, own_contexts
from nn.agreement import KEY_BYTES, PER_TURN, Book, Request
from nn.client_calls import CLIENT_STREAM, Calls
from nn.inputs import ScaledRows
from nn.model_description import answers_of
from nn.saved_shares import SharesFile, shared_model
from nn.shared_model import SharedModel

__all__ = ["CLIENT_STREAM", "PartyService", "serve"]

Words = NDArray[np.uint64]

_PROGRAM = "sotto serve"
_TURN_SECONDS = 1.0
_LARGEST_NOTICE = 1 << 20
_KEY_WORDS = KEY_BYTES // 8
# How long one that leaves may go on with what every party has got, and until it ends in any case.
_FINISH_SECONDS = 2.5
_STOP_SECONDS = 4.0
# After a session that has ended, or a try to join that has failed.
_PAUSE_SECONDS = 0.1
_LONG_PAUSE_SECONDS = 1.0
# What a turn says beside its requests.
_END, _RELOAD = 1, 2
# How long a party's other line may live on after its line for notices.
_SUSPECT_SECONDS = 1.0


class _StopError(Exception):
    """This service is told to stop, while it waits for others."""


class _LeavingError(SottoError):
    """All parties end the session together; the message says who leaves."""


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
    models : dict of str to SharedModel
        What can be asked for now.
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
        address = read.parties[me].address
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
        self.models: dict[str, SharedModel] = {}
        self._sets: dict[str, bytes] = {}
        self.state = f"{me} starts"
        self.book = Book(self._number, len(read.names), read.timeouts.answer)
        self._calls = Calls(self)
        self._lobby = Lobby()
        self._links: Links | None = None
        self._told: dict[str, Seat] = {}
        self._suspect: tuple[float, Links, int] | None = None
        # Who has said that it leaves, and when; and whether models are to be agreed on again.
        self._leaves: tuple[str, float] | None = None
        self._reload = False
        self._stop_by = float("inf")
        self._started, self._served = time.monotonic(), 0
        _, server = own_contexts(read, me)
        sock = sock or bind(address)
        self._listener = Listener(me, sock, server, read.certificates(), self._admit)
        self.loop: Loop = self._listener.loop
        self.loop.after, self.loop.now_and_then = self._tell_news, self._look

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
            "served": self._served,
            "seconds": int(time.monotonic() - self._started),
        }

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
            joining = Joining(
                self.read, self.me, _PROGRAM, self._lobby, float("inf"),
                look=self._waits,
            )  # fmt: skip
            try:
                return joining.run(notices=True)
            except PeerError as error:
                if str(error) != said:
                    said = str(error)
                    record("waiting", warning=True, me=self.me, why=said)
                self.state = f"{self.me} waits: {said}"
                until = time.monotonic() + _LONG_PAUSE_SECONDS
                while time.monotonic() < until and not self._stopping:
                    time.sleep(_PAUSE_SECONDS)
                    if type(error) is not PeerError or "disagree" not in said:
                        break

    def _waits(self, awaited: str) -> None:
        if self._stopping:
            raise _StopError
        if awaited:
            self.state = f"{self.me} waits for {awaited}"

    def _serve(self, links: Links) -> None:
        """Serve for as long as the session lasts."""
        problem = ""
        session = Session.from_links(self.read, self.me, links)
        self._leaves = None
        self._links = links
        self.loop.call(lambda: self._open_notices(links))
        try:
            with session:
                self.state = f"{self.me} prepares its models"
                self._agree_on_models(session)
                self.state = ""
                self.book.open()
                record("ready", me=self.me, models=",".join(self.models))
                print(f"{self.me} is ready: {', '.join(self.models) or 'no model'}", flush=True)
                problem = self._take_turns(session)
        except PeerError as error:
            problem = self._explained(error)
        except Exception as error:
            # Its text may hold anything. The others go on as after any loss.
            problem = f"{type(error).__name__} at {self.me}"
        self._links = None
        self.state = problem
        self.models, self._sets = {}, {}
        self.loop.call(lambda: self._close_notices(links))
        self.book.close(problem)
        if not self._stopping:
            record("lost", warning=True, me=self.me, why=problem)
            time.sleep(_PAUSE_SECONDS)

    def _take_turns(self, session: Session) -> str:
        """Serve until somebody leaves; return who."""
        while True:
            try:
                self._turn(session)
            except _LeavingError as error:
                return str(error)

    def _explained(self, error: PeerError) -> str:
        """Return why a session is over: who has said that it leaves is not lost."""
        return f"{self._leaves[0]} shuts down" if self._leaves is not None else str(error)

    # Models.

    def _agree_on_models(self, session: Session) -> None:
        """Find the sets of files that all have, and prepare the models that are new; 2 rounds."""
        files = {name: tuple(each) for name, each in self._files.items()}
        rows = [
            np.concatenate([_name_words(name), file.name])
            for name in sorted(files)
            for file in files[name]
        ]
        counts = _tell_all(session, np.array([len(rows)], np.uint64), [1] * session.size)
        sizes = [min(int(count[0]), 4096) for count in counts]
        told = _tell_all(session, np.array(rows).reshape(-1), [4 * size for size in sizes])
        tables = [[row.tobytes() for row in words.reshape(-1, 4)] for words in told]
        models: dict[str, SharedModel] = {}
        sets: dict[str, bytes] = {}
        # The first party's order, so that all choose the same where they have two sets.
        for row in tables[0]:
            name = next((n for n in files if _name_words(n).tobytes() == row[:8]), None)
            if name is None or name in models or not all(row in table for table in tables):
                continue
            file = next(each for each in files[name] if each.name.tobytes() == row[8:])
            if self._sets.get(name) == row:
                models[name] = self.models[name]
            else:
                models[name] = shared_model(session, [file])
                self._warm(session, models[name])
            sets[name] = row
            self._files[name] = [
                each for each in self._files[name]
                if each is file or each is self._files[name][0]
            ]  # fmt: skip
        for name in files:
            if name not in models:
                why = "not all parties have shares of one set"
                record("models", warning=True, me=self.me, model=name, why=why)
        self.models = {name: models[name] for name in self.names if name in models}
        self._sets = sets

    def _warm(self, session: Session, model: SharedModel) -> None:
        """Evaluate one row that nobody has sent, so that no client waits for what comes but once."""
        answer = answers_of(model)[0]
        words = np.zeros((1, 1, model.n_features_in_), np.uint64)
        x = model.rows_from_shares(words)
        model.prepare(x, _answer, answer=answer)
        _answer(model, x, answer)

    # Turns.

    def _turn(self, session: Session) -> None:
        """Agree on what comes next and do it."""
        leader = session.size - 1
        if session.look_for_provider():
            self._hear_leaving(self.read.provider.name)
        plan = np.zeros((int(self.leads), 2 + _KEY_WORDS * PER_TURN), np.uint64)
        if self.leads:
            self._plan(plan[0])
        turn = session.open((plan, leader))[0][0]
        flags, taken, refused = int(turn[0]), int(turn[1]) & 0xFFFF, int(turn[1]) >> 16
        if taken + refused > PER_TURN:
            raise FrameError(f"{session.parties[leader]} sent a turn of {taken + refused} requests")
        data = turn[2:].tobytes()
        keys = [data[k : k + KEY_BYTES] for k in range(0, (taken + refused) * KEY_BYTES, KEY_BYTES)]
        self.book.refuse(keys[taken:])
        try:
            requests = self.book.take(keys[:taken])
        except KeyError:
            raise FrameError(
                f"{session.parties[leader]} sent a turn with a request that {self.me} has not"
            ) from None
        try:
            for group in self._groups(requests):
                self._evaluate(session, group)
        except BaseException as error:
            problem = self._explained(error) if isinstance(error, PeerError) else "a request failed"
            for request in requests:
                if not request.done:
                    request.finish(None, problem, later=True)
            raise
        if flags & _RELOAD:
            self._agree_on_models(session)
        if flags & _END:
            members = (*session.parties, self.read.provider.name)
            raise _LeavingError(f"{members[min(flags >> 8, len(members) - 1)]} shuts down")

    def _plan(self, plan: Words) -> None:
        """Wait for something to do, and write what all parties are to do."""
        self.book.await_turn(_TURN_SECONDS, lambda: self._leaves is not None or self._reload)
        chosen, refused = self.book.choose(lambda name: self.models[name].rows_at_once())
        keys = b"".join([*chosen, *refused])
        plan[1] = len(chosen) | len(refused) << 16
        plan[2 : 2 + len(keys) // 8] = np.frombuffer(keys, np.uint64)
        if self._reload:
            self._reload = False
            plan[0] |= np.uint64(_RELOAD)
        if self._leaves is not None:
            name, since = self._leaves
            if self.book.idle or time.monotonic() > since + _FINISH_SECONDS:
                members = (*self.read.names, self.read.provider.name)
                plan[0] |= np.uint64(_END | members.index(name) << 8)

    def _groups(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Cut a turn into what is evaluated together."""
        groups: list[list[Request]] = []
        rows = 0
        for request in requests:
            together = groups and groups[-1][0].kind == request.kind
            if together and rows + request.rows <= self.models[request.model].rows_at_once():
                groups[-1].append(request)
                rows += request.rows
            else:
                groups.append([request])
                rows = request.rows
        return groups

    def _evaluate(self, session: Session, requests: Sequence[Request]) -> None:
        begin, before = time.monotonic(), session.cost()
        model = self.models[requests[0].model]
        shares = np.concatenate([request.shares for request in requests])[None]
        for request in requests:
            session.note("request", request.key)
        x = model.rows_from_shares(shares)
        answer = requests[0].answer
        model.prepare(x, _answer, answer=answer)
        try:
            result = _answer(model, x, answer, self._progress).shares[0]
        except WorkerError as error:
            self._refuse(requests, error)
            return
        first = 0
        for request in requests:
            request.finish(result[first : first + request.rows])
            first += request.rows
        self._served += len(requests)
        spent, seconds = session.cost() - before, time.monotonic() - begin
        for request in requests:
            # What is computed together has rounds and bytes in common.
            record(
                "request", id=request.id.hex()[:8], model=request.model, answer=answer,
                shape=f"{request.rows}x{model.n_features_in_}", together=len(requests),
                rounds=spent.rounds, bytes=spent.bytes_sent_per_party, seconds=seconds,
            )  # fmt: skip

    def _refuse(self, requests: Sequence[Request], error: WorkerError) -> None:
        """Say why there is no answer. All parties come here together, and serve on."""
        # Behind that may be the text of an unforeseen error in a worker, which may hold anything.
        problem = ": ".join(str(error).split(": ")[:2])
        record("workers", warning=True, me=self.me, problem=problem)
        for request in requests:
            request.finish(None, problem)

    # In the listener's thread: who comes, and what parties tell one another beside the session.

    def _admit(self, connection: Connection) -> Talk:
        peer, read = connection.peer, self.read
        greeting = yield from hear_hello(connection, read.timeouts.connect)
        purpose = greeting.purpose
        if purpose == HEALTH or (
            peer in read.clients and purpose not in (SESSION, NOTICES, COMPARE)
        ):
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
        return None

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
        number = self.read.names.index(peer)
        try:
            while True:
                connection.expect_bytes([Kind.NOTICE], _LARGEST_NOTICE)
                yield 1e9
                try:
                    word, one, other = wire.decode(connection.take().data.data)
                    if word == "news":
                        self.book.heard(number, _cut(one), _cut(other))
                    elif word == "leaves":
                        self._hear_leaving(str(one)[:64])
                    elif word == "reload":
                        self._ask_for_reload()
                except (ShapeError, TypeError, ValueError):
                    raise FrameError(f"{peer} sent a notice that is malformed") from None
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
        has, has_not = self.book.news()
        if has or has_not:
            self._tell(self.read.names[-1:], "news", has, has_not)

    def _leave(self) -> None:
        """Say that this party leaves."""
        self._listener.shut()
        self._hear_leaving(self.me)

    def _hear_leaving(self, name: str) -> None:
        """Let the leader end the session, as soon as what all have is done."""
        if self._leaves is None:
            self._leaves = name, time.monotonic()
            others = [n for n in self.read.names if n != self.me]
            self.loop.call(lambda: self._tell(others, "leaves", name, b""))
            with self.book.changed:
                self.book.changed.notify_all()

    def _ask_for_reload(self) -> None:
        if self.leads:
            self._reload = True
            with self.book.changed:
                self.book.changed.notify_all()
        else:
            self._tell(self.read.names[-1:], "reload", b"", b"")

    def _look(self) -> None:
        """End what waits for others longer than it should."""
        now, links = time.monotonic(), self._links
        if self._suspect is not None and now > self._suspect[0]:
            _, suspected, number = self._suspect
            self._suspect = None
            if suspected is links:
                suspected.peers[number].abandon()
        if now > self._stop_by and links is not None:
            for connection in (*links.peers.values(), links.provider):
                connection.abandon()


def _name_words(name: str) -> Words:
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), np.uint64)


def _tell_all(session: Session, words: Words, sizes: Sequence[int]) -> list[Words]:
    """Tell all parties some public words; return every party's, of these sizes."""
    me = session.here[0]
    told = session.open(
        *[
            (words[None] if party == me else np.empty((0, size), np.uint64), party)
            for party, size in enumerate(sizes)
        ]
    )
    return [each[0] for each in told]


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
    service = PartyService(read, me, folders, progress=progress)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    reload = _reload(service, path)
    signal.signal(signal.SIGHUP, lambda *_: reload())
    others = [name for name in (*read.names, read.provider.name) if name != me]
    host, port = read.parties[me].address or ("", 0)
    print(f"{me} listens at {host}:{port} and waits for {', '.join(others)}", flush=True)
    service.run()
