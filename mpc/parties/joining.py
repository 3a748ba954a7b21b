"""Joining a session: a party connects to the parties before it, and accepts those after it.

If there is a provider, every party connects to it, too, and to its auditor. Order is that of the parties in
parties.toml.

A program joins once, within a time limit. A service joins again whenever its session is lost, and waits
for missing parties until it is told to stop.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mpc.core.errors import (
    FrameError,
    HandshakeError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
)
from mpc.core.frames import Kind
from mpc.core.network import MEASURED, Network
from mpc.core.runtime import MEMORY_LIMIT
from mpc.core.watching import MALICIOUS, holders, said_of_inputs
from mpc.parties.configuration import Configuration, Member
from mpc.parties.handshake import (
    COMPARE,
    NOTICES,
    SESSION,
    Greeting,
    Terms,
    disagreement,
    expect_hello,
    expect_ready,
    hear_hello,
    pair_key,
    read_hello,
    read_ready,
    say_ready,
    send_hello,
    take_hello,
    terms,
)
from mpc.parties.measuring import follow, measure
from mpc.parties.tls import connect, own_contexts
from mpc.transport.addresses import bind
from mpc.transport.connection import Connection, wait
from mpc.transport.listener import Listener
from mpc.transport.loop import KEEP, Talk, farewell
from mpc.transport.waiting import Report
from ring.streams import KEY_BYTES, fresh_key

__all__ = ["Joining", "Links", "Lobby", "join_parties"]

_LOOK_SECONDS = 0.1
# How long to wait for a party before asking it for its terms, and how long before asking again.
_COMPARE_SECONDS = 1.0
_COMPARE_AGAIN_SECONDS = 10.0


@dataclass(repr=False)
class Links:
    """A party's connections of a session, and the key that it shares with the other end of each.

    Attributes
    ----------
    session : bytes
        The session id.
    peers : dict of int to Connection
    provider : Connection, optional
    pair_keys : dict of int to bytes
    provider_key : bytes, optional
    memory_limit : int
        As all parties have it, see :class:`mpc.Session`.
    network : Network, optional
        As all parties state it, or as the first one has measured it for all.
    auditor : Connection, optional
    auditor_key : bytes, optional
        Of tags of corrections; watched parties who get these have one that both have been sent.
    notices : dict of str to Connection
        Of a service: a second connection to each party, for messages beside the session's.
    watched : tuple of bytes, optional
        Of a watched party (:mod:`mpc.core.watching`): the key of the next role with the provider, and
        its input key with each role that it does not hold.
    """

    session: bytes
    peers: dict[int, Connection]
    provider: Connection | None
    pair_keys: dict[int, bytes]
    provider_key: bytes | None
    memory_limit: int = MEMORY_LIMIT
    network: Network | None = None
    auditor: Connection | None = None
    auditor_key: bytes | None = None
    notices: dict[str, Connection] = field(default_factory=dict)
    watched: tuple[bytes, ...] | None = None

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections that the session computes over."""
        helpers = (self.provider, self.auditor)
        return (*self.peers.values(), *(link for link in helpers if link is not None))


class Lobby:
    """Holds connections that other parties have opened for a session, until this party takes them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: dict[tuple[str, str], tuple[Connection, Greeting]] = {}
        self._closed = False
        # A disagreement found by comparing terms with another party.
        self.problem = ""
        # Counts additions and complaints, so that `wait` can notice one.
        self.changes = 0

    def put(self, connection: Connection, greeting: Greeting) -> None:
        """Add a connection; it replaces an earlier one of the same peer and purpose."""
        with self._changed:
            key = connection.peer, greeting.purpose
            before = self._arrived.pop(key, None)
            self._arrived[key] = connection, greeting
            late = self._closed
            self._count_change()
        if before is not None:
            before[0].close()
        if late:
            self.close()

    def take(self, name: str, purpose: str) -> tuple[Connection, Greeting] | None:
        """Remove and return a peer's connection for a purpose, or return None."""
        with self._changed:
            return self._arrived.pop((name, purpose), None)

    def _count_change(self) -> None:
        self.changes += 1
        self._changed.notify_all()

    def wait(self, changes: int, seconds: float) -> None:
        """Wait until the number of changes is not `changes`, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.changes != changes, seconds)

    def complain(self, problem: str) -> None:
        """Keep a disagreement between this party and another, for the thread that waits here."""
        with self._changed:
            self.problem = problem or self.problem
            self._count_change()

    def complaint(self) -> str:
        """Return the disagreement that was kept, once; empty without one."""
        problem, self.problem = self.problem, ""
        return problem

    def close(self) -> None:
        """Close all connections that are held, and any that are added later."""
        with self._changed:
            self._closed = True
            waiting = list(self._arrived.values())
            self._arrived.clear()
        for connection, _ in waiting:
            connection.close()

    def receive(
        self, read: Configuration, me: str, program: str | None, memory_limit: int = MEMORY_LIMIT
    ) -> Receive:
        """Return the function that makes conversations of a listener while a program joins."""
        mine = terms(read, program, memory_limit)

        def talk(connection: Connection) -> Talk:
            greeting = yield from hear_hello(connection, read.timeouts.connect)
            if greeting.purpose == COMPARE:
                return (yield from self.answer_comparison(read, me, mine, connection, greeting))
            if greeting.purpose != SESSION:
                return farewell(connection, f"{me} waits for the others still")
            self.put(connection, greeting)
            return KEEP

        return talk

    def answer_comparison(
        self, read: Configuration, me: str, mine: Terms, connection: Connection, greeting: Greeting
    ) -> Talk:
        """Send another party this one's terms, and keep a disagreement with it."""
        send_hello(connection, COMPARE, mine, b"")
        self.complain(disagreement(me, mine, connection.peer, greeting.terms))
        yield read.timeouts.connect
        return farewell(connection, "", Kind.BYE)


Receive = Callable[[Connection], Talk]


def _nothing(awaited: str) -> None:
    """Do nothing."""


class Joining:
    """One attempt to join a session.

    Parameters
    ----------
    configuration : Configuration
    me : str
        A computing party.
    program : str or None
        Fingerprint of what is going to run.
    lobby : Lobby
        Holds the connections of the parties after this one.
    seconds : float
        How long to wait; may be infinite.
    look : callable
        Called repeatedly while this party waits, with the names of those it waits for; may raise to
        give up.
    memory_limit : int, optional
        As for :class:`mpc.Session`.
    """

    def __init__(
        self,
        configuration: Configuration,
        me: str,
        program: str | None,
        lobby: Lobby,
        seconds: float,
        look: Callable[[str], None] = _nothing,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._read, self._me, self._lobby = configuration, me, lobby
        self._names = configuration.names
        self._number = self._names.index(me)
        self._memory_limit = memory_limit
        self._terms = terms(configuration, program, memory_limit)
        self._session = fresh_key() if self._number == 0 else b""
        self._connections: dict[str, Connection] = {}
        self._notices: dict[str, Connection] = {}
        self._keys: dict[str, bytes] = {}
        self._problem = ""
        self._others_are_alone = self._others_have_no_auditor = False
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._call_while_waiting = look
        self._context, _ = own_contexts(configuration, me)
        # The names of those that this party waits for now.
        self._awaited = ""
        self._report = Report()

    def run(self, notices: bool = False) -> Links:
        """Join the session; with `notices`, open a second connection to each party, too.

        Raises
        ------
        PeerError
            If a peer cannot be reached, is lost, has another certificate, or disagrees. All peers
            that are connected are told.
        """
        try:
            for name in self._names[: self._number]:
                self._reach(self._read.parties[name])
            self._await(self._names[self._number + 1 :], SESSION)
            provider = self._read.provider
            # It waits in vain for a party that does without: that is told at once.
            if provider is not None and not self._others_are_alone:
                self._reach(provider)
            auditor = self._read.auditor
            if auditor is not None and not self._others_have_no_auditor:
                self._reach(auditor)
            self._agree()
            watched = self._watched_keys()
            auditor_key = self._auditor_key(watched)
            network = self._network()
            if notices:
                for name in self._names[: self._number]:
                    self._notify(self._read.parties[name])
                self._await(self._names[self._number + 1 :], NOTICES)
        except BaseException as error:
            problem = str(error) if isinstance(error, PeerError) else f"{self._me} gives up"
            for connection in (*self._connections.values(), *self._notices.values()):
                connection.notify(Kind.ABORT, problem)
                connection.close()
            raise
        names, found = self._names, self._connections
        return Links(
            self._session,
            {names.index(n): c for n, c in found.items() if n in names},
            None if provider is None else found[provider.name],
            {names.index(n): key for n, key in self._keys.items() if n in names},
            None if provider is None else self._keys[provider.name],
            self._memory_limit,
            network,
            None if auditor is None else found[auditor.name],
            auditor_key,
            self._notices,
            watched,
        )

    def _left(self, most: float = float("inf")) -> float:
        return max(0.01, min(most, self._deadline - time.monotonic()))

    def _look(self) -> None:
        """Do the periodic work of waiting: call `look`, notice lost peers, log."""
        self._call_while_waiting(self._awaited)
        # Raises if a connected peer is lost: then this attempt is over.
        wait([c for c in self._connections.values() if c.expecting], 0.0)
        if self._awaited:
            self._report()

    def _wait_for(self, *names: str) -> None:
        """State whom this party waits for from now on, for `look` and for the log."""
        self._awaited = ", ".join(names)
        self._report = Report(me=self._me, peer=self._awaited)

    def _reach(self, member: Member) -> None:
        """Connect to a member and exchange HELLOs; try again if it restarts meanwhile."""
        self._wait_for(member.name)
        while True:
            connection = connect(member, self._context, self._left(self._seconds), self._look)
            nonce = send_hello(connection, SESSION, self._terms, self._session)
            try:
                self._hear(connection)
            except PeerClosedError:
                # The peer's listener of an earlier session may have accepted the connection.
                connection.close()
                if self._deadline - time.monotonic() <= _LOOK_SECONDS:
                    raise
                time.sleep(_LOOK_SECONDS / 2)
                self._look()
                continue
            except BaseException as error:
                if isinstance(error, PeerError):
                    connection.notify(Kind.ABORT, str(error))
                connection.close()
                raise
            return self._greeted(connection, take_hello(connection), nonce, accepted=False)

    def _hear(self, connection: Connection) -> None:
        expect_hello(connection)
        while not wait([connection], _LOOK_SECONDS):
            self._look()
            if time.monotonic() > self._deadline:
                raise PeerTimeoutError(
                    f"{connection.peer} did not answer within {self._seconds:g} s"
                )

    def _greeted(
        self, connection: Connection, greeting: Greeting, nonce: bytes, accepted: bool
    ) -> None:
        """Add a connection whose HELLOs are exchanged: compare terms, derive the key."""
        me, other = self._me, connection.peer
        first, second = (me, other) if accepted else (other, me)
        both = (self._terms, greeting.terms) if accepted else (greeting.terms, self._terms)
        problem = disagreement(first, both[0], second, both[1])
        if other in self._names and greeting.terms.get("provider") == "none":
            self._others_are_alone = True
        if other in self._names and greeting.terms.get("auditor") == "none":
            self._others_have_no_auditor = True
        self._session = self._session or greeting.session
        if greeting.session and greeting.session != self._session:
            problem = problem or f"{first} and {second} are in different sessions"
        self._problem = self._problem or problem
        nonces = (nonce, greeting.nonce) if accepted else (greeting.nonce, nonce)
        self._keys[other] = pair_key(self._session, first, nonces[0], second, nonces[1])
        expect_ready(connection)
        self._connections[other] = connection

    def _agree(self) -> None:
        """Exchange READY with all, as :func:`mpc.parties.handshake.agree`, calling `look` meanwhile."""
        self._wait_for()
        say_ready(self._connections, self._problem)
        self._exchange(tuple(self._connections.values()))
        read_ready(self._connections, self._problem)

    def _watched_keys(self) -> tuple[bytes, ...] | None:
        """Receive from the provider what a watched party has beside its own key."""
        if self._read.security != MALICIOUS or self._read.provider is None:
            return None
        return self._keys_from(self._read.provider, len(self._names) - 1)

    def _auditor_key(self, watched: tuple[bytes, ...] | None) -> bytes | None:
        """Return the key that tags follow from: shared with the auditor, or one that it sends.

        Watched parties tell it before what input keys they have: a provider that gives the owner of an
        input others than the holders of a role would change the input.
        """
        provider, auditor = self._read.provider, self._read.auditor
        if provider is None or auditor is None:
            return None
        if watched is None:
            return self._keys[auditor.name]
        said = said_of_inputs(self._number, self._keys[provider.name], watched)
        self._connections[auditor.name].post_bytes(Kind.KEYS, said)
        receives = self._number in holders(len(self._names))
        try:
            keys = self._keys_from(auditor, int(receives))
        except PeerTimeoutError as error:
            raise PeerTimeoutError(
                f"{error}: it answers when all parties have told it of their input keys, and one of them"
                " may not have"
            ) from None
        return keys[0] if receives else self._keys[auditor.name]

    def _keys_from(self, member: Member, count: int) -> tuple[bytes, ...]:
        """Receive so many keys from the provider or its auditor."""
        link = self._connections[member.name]
        link.expect_bytes([Kind.KEYS], count * KEY_BYTES)
        self._exchange((link,))
        keys = link.take().data.tobytes()
        if len(keys) != count * KEY_BYTES:
            raise FrameError(f"{link.peer} sent {len(keys)} bytes where {count} keys were to come")
        return tuple(keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))

    def _exchange(self, connections: Sequence[Connection]) -> None:
        """Send and receive what is queued and expected, calling `look` meanwhile."""
        begin, limit = time.monotonic(), self._read.timeouts.connect
        while late := [c for c in connections if not c.advance()]:
            wait(late, _LOOK_SECONDS)
            self._look()
            if time.monotonic() > min(self._deadline, begin + limit):
                raise PeerTimeoutError(f"{late[0].peer} did not answer within {limit:g} s")

    def _network(self) -> Network | None:
        """Return the network as it is stated, or measure it, if there is a use for that."""
        stated, others = (
            self._read.network,
            [self._connections[n] for n in self._names if n != self._me],
        )
        if stated != MEASURED:
            return stated
        if self._read.provider is None:
            return None
        if self._number == 0:
            return measure(others, self._exchange)
        return follow(others[0], self._exchange)

    def _await(self, names: tuple[str, ...], purpose: str) -> None:
        """Wait until all of these parties have connected for a purpose."""
        missing = list(names)
        self._wait_for(*missing)
        begin = time.monotonic()
        compare = begin + _COMPARE_SECONDS
        while missing:
            changes = self._lobby.changes
            for name in tuple(missing):
                if (come := self._lobby.take(name, purpose)) is not None and self._enter(*come):
                    missing.remove(name)
                    self._wait_for(*missing)
            if not missing:
                return
            self._lobby.wait(changes, _LOOK_SECONDS)
            self._look()
            if problem := self._lobby.complaint():
                raise HandshakeError(problem)
            if time.monotonic() > self._deadline:
                raise PeerTimeoutError(
                    f"{', '.join(missing)} did not connect to {self._me} within {self._seconds:g} s"
                )
            if purpose == NOTICES and time.monotonic() > begin + self._read.timeouts.connect:
                raise PeerTimeoutError(f"{missing[0]} did not come back to {self._me}")
            if purpose == SESSION and time.monotonic() > compare:
                compare = time.monotonic() + _COMPARE_AGAIN_SECONDS
                threading.Thread(
                    target=self._compare, args=(tuple(missing),), name="sotto compares", daemon=True
                ).start()

    def _enter(self, connection: Connection, greeting: Greeting) -> bool:
        """Answer a party that has connected. Returns whether it belongs to this session."""
        if greeting.purpose == NOTICES:
            if greeting.session != self._session:
                connection.close()
                return False
            self._notices[connection.peer] = connection
            return True
        nonce = send_hello(connection, SESSION, self._terms, self._session)
        try:
            connection.push()
        except PeerError:
            # The party is gone by now; it will connect again.
            connection.close()
            return False
        self._greeted(connection, greeting, nonce, accepted=True)
        return True

    def _notify(self, member: Member) -> None:
        """Open the second connection to a party."""
        left = self._left(self._read.timeouts.connect)
        connection = connect(member, self._context, left, self._look)
        send_hello(connection, NOTICES, {}, self._session)
        self._notices[member.name] = connection
        connection.push()

    def _compare(self, names: tuple[str, ...]) -> None:
        """Ask missing parties for their terms: they may be waiting for this party, too."""
        for name in names:
            problem = _ask_for_terms(self._read.parties[name], self._context, self._me, self._terms)
            self._lobby.complain(problem)


def _ask_for_terms(
    member: Member, context: ssl.SSLContext, me: str, mine: dict[str, object]
) -> str:
    """Return a disagreement between another party and this one; empty if none or it does not answer."""
    try:
        connection = connect(member, context, _COMPARE_SECONDS)
        try:
            send_hello(connection, COMPARE, mine, b"")
            greeting = read_hello(connection, 2 * _COMPARE_SECONDS)
            return disagreement(me, mine, member.name, greeting.terms)
        finally:
            connection.close()
    except PeerError:
        return ""


def join_parties(
    configuration: Configuration,
    me: str,
    program: str | None = None,
    sock: socket.socket | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Links:
    """Connect to the other parties and the provider, if there is one, and agree with them.

    Parameters
    ----------
    configuration : Configuration
    me : str
        A computing party.
    program : str, optional
        Fingerprint of what is going to run.
    sock : socket, optional
        A socket that listens at this party's address already.
    memory_limit : int, optional
        As for :class:`mpc.Session`.

    Raises
    ------
    PeerError
        If one cannot be reached, has another certificate, or disagrees; the message names it.
    """
    names = configuration.names
    lobby = Lobby()
    seconds = configuration.timeouts.connect
    joining = Joining(configuration, me, program, lobby, seconds, memory_limit=memory_limit)
    _, server = own_contexts(configuration, me)
    listener = None
    try:
        if me != names[-1]:
            address = configuration.parties[me].listen
            assert address is not None
            others = {n: m.accepted for n, m in configuration.parties.items() if n != me}
            listener = Listener(
                me, sock or bind(address), server, others,
                lobby.receive(configuration, me, program, memory_limit),
            )  # fmt: skip
            listener.start()
        return joining.run()
    finally:
        if listener is not None:
            listener.close()
        lobby.close()
