"""The handshake: processes agree on what they are about to run, and on fresh keys.

1. Party j connects to every party i < j and to the provider; certificates say who is who.
2. On each connection both sides send HELLO: protocol version, program, ring, format, parties, the
   session id if they know it (the first party draws it), and 32 random bytes.
3. Where both HELLOs agree, the key of the connection's two ends is HMAC-SHA256 of both sides'
   random bytes over names and session id: fresh if either side's generator is.
4. Everybody sends everybody READY, with the first disagreement it has found. So one that only two
   can see is an error for all.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc.configuration import Configuration, Member
from mpc.errors import (
    FrameError,
    HandshakeError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
    ShapeError,
)
from mpc.transport import wire
from mpc.transport.connection import Connection, exchange, printable
from mpc.transport.frames import Kind
from mpc.transport.tls import Listener, bind, connect, own_contexts
from ring.streams import KEY_BYTES, fresh_key

__all__ = [
    "HEALTH",
    "PROTOCOL_VERSION",
    "SESSION",
    "Greeting",
    "Links",
    "agree",
    "disagreement",
    "join_parties",
    "pair_key",
    "terms",
]

PROTOCOL_VERSION = 3
# What a HELLO is for, beside what clients want.
SESSION, HEALTH = "session", "health"
SESSION_ID_BYTES = 16
_NONCE_BYTES = 32
_LARGEST_HELLO = 1 << 16
_RETRY_SECONDS = 0.05

Terms = Mapping[str, Any]


def terms(configuration: Configuration, program: str | None) -> dict[str, Any]:
    """Return what all computing parties of a session must have in common."""
    form = configuration.format
    return {
        "protocol version": PROTOCOL_VERSION,
        "ring": "2^64",
        "parties": configuration.names,
        "program": program or "",
        "frac_bits": form.frac_bits,
        "int_bits": form.int_bits,
    }


@dataclass(frozen=True, repr=False)
class Greeting:
    """The other side's HELLO.

    Attributes
    ----------
    purpose : str
        SESSION, HEALTH, or what a client wants.
    terms : dict
    session : bytes
        Empty if the other side does not know it yet.
    nonce : bytes
        Its part of the key.
    """

    purpose: str
    terms: dict[str, Any]
    session: bytes
    nonce: bytes


def send_hello(connection: Connection, purpose: str, mine: Terms, session: bytes) -> bytes:
    """Line up a HELLO; return this side's part of the key."""
    nonce = fresh_key() + fresh_key()
    hello = (purpose, tuple(mine.items()), session, nonce)
    connection.post_bytes(Kind.HELLO, wire.encode(hello))
    return nonce


def read_hello(connection: Connection, timeout: float) -> Greeting:
    """Receive a HELLO."""
    connection.expect_bytes([Kind.HELLO], _LARGEST_HELLO)
    exchange([connection], timeout)
    try:
        hello = wire.decode(connection.take().data.data)
        purpose, items, session, nonce = hello
        known = dict(items)
    except (ShapeError, TypeError, ValueError):
        raise FrameError(f"{connection.peer} sent a HELLO that is malformed") from None
    if (
        type(purpose) is not str
        or any(type(name) is not str for name in known)
        or type(session) is not bytes
        or len(session) not in (0, SESSION_ID_BYTES)
        or type(nonce) is not bytes
        or len(nonce) != _NONCE_BYTES
    ):
        raise FrameError(f"{connection.peer} sent a HELLO that is malformed")
    return Greeting(purpose, known, session, nonce)


def _show(value: Any) -> str:
    return printable(repr(value).encode())[:200]


def disagreement(one: str, terms_of_one: Terms, other: str, terms_of_other: Terms) -> str:
    """Return the first difference between two sides' terms, or nothing."""
    for name, value in terms_of_one.items():
        if name in terms_of_other and terms_of_other[name] != value:
            return (
                f"{one} and {other} disagree on {name}: {one} has {_show(value)},"
                f" {other} has {_show(terms_of_other[name])}"
            )
    return ""


def pair_key(
    session: bytes, one: str, nonce_of_one: bytes, other: str, nonce_of_other: bytes
) -> bytes:
    """Derive the key that two processes have in common; `one` is the side that accepted."""
    message = wire.encode(("sotto pair key", session, one, other))
    return hmac.digest(nonce_of_one + nonce_of_other, message, "sha256")[:KEY_BYTES]


def agree(connections: Mapping[str, Connection], problem: str, timeout: float) -> None:
    """Exchange READY with all, each with the first disagreement it knows of.

    Raises
    ------
    HandshakeError
        If anybody found one: the same on every side.
    """
    for connection in connections.values():
        connection.post_bytes(Kind.READY, problem.encode())
        connection.expect_bytes([Kind.READY], 2000)
    exchange(connections.values(), timeout)
    problems = [printable(c.take().data.tobytes()) for c in connections.values()]
    found = sorted({p for p in (problem, *problems) if p})
    if found:
        raise HandshakeError(found[0])


@dataclass(repr=False)
class Links:
    """A party's connections of a session, and the keys that it shares with those at the other end.

    Attributes
    ----------
    session : bytes
        The session id.
    peers : dict of int to Connection
    provider : Connection
    pair_keys : dict of int to bytes
    provider_key : bytes
    """

    session: bytes
    peers: dict[int, Connection]
    provider: Connection
    pair_keys: dict[int, bytes]
    provider_key: bytes


class _Joining:
    def __init__(self, configuration: Configuration, me: str, program: str | None) -> None:
        self.configuration, self.me = configuration, me
        self.names = configuration.names
        self.number = self.names.index(me)
        self.terms = terms(configuration, program)
        self.session = fresh_key() if self.number == 0 else b""
        self.connections: dict[str, Connection] = {}
        self.keys: dict[str, bytes] = {}
        self.problem = ""
        self.deadline = time.monotonic() + configuration.timeouts.connect

    def left(self) -> float:
        return max(0.01, self.deadline - time.monotonic())

    def greet(self, connection: Connection, accepted: bool) -> bool:
        """Exchange HELLOs. Returns whether the other side has come for a session."""
        other = connection.peer
        self.connections[other] = connection
        nonce = send_hello(connection, SESSION, self.terms, self.session)
        greeting = read_hello(connection, self.left())
        if accepted and greeting.purpose != SESSION:
            del self.connections[other]
            return False
        if not self.session:
            self.session = greeting.session
        first, second = (self.me, other) if accepted else (other, self.me)
        mine, theirs = (self.terms, greeting.terms)
        both = (mine, theirs) if accepted else (theirs, mine)
        problem = disagreement(first, both[0], second, both[1])
        if greeting.session and greeting.session != self.session:
            problem = problem or f"{first} and {second} are in different sessions"
        self.problem = self.problem or problem
        nonces = (nonce, greeting.nonce) if accepted else (greeting.nonce, nonce)
        self.keys[other] = pair_key(self.session, first, nonces[0], second, nonces[1])
        return True

    def connect(self, member: Member, context: ssl.SSLContext) -> None:
        while True:
            connection = connect(member, context, self.left())
            try:
                self.greet(connection, accepted=False)
                return
            except PeerClosedError:
                # A listener of the session before this one may have taken the connection.
                connection.close()
                if self.left() <= _RETRY_SECONDS:
                    raise
                time.sleep(_RETRY_SECONDS)

    def accept_later(self, listener: Listener) -> None:
        missing = [n for n in self.names[self.number + 1 :] if n not in self.connections]
        while missing:
            connection = listener.accept(self.left())
            if connection is None:
                raise PeerTimeoutError(
                    f"{', '.join(missing)} did not connect to {self.me} within"
                    f" {self.configuration.timeouts.connect:g} s"
                )
            other = connection.peer
            if other not in missing:
                connection.notify(Kind.ABORT, f"{other} has no place in this session now")
                connection.close()
            elif self._comes(connection):
                missing.remove(other)
            else:
                connection.notify(Kind.ABORT, f"{self.me} waits for {', '.join(missing)} still")
                connection.close()

    def _comes(self, connection: Connection) -> bool:
        try:
            return self.greet(connection, accepted=True)
        except PeerClosedError:
            # One that asked for health, or that is started again and will come back.
            return False


def join_parties(
    configuration: Configuration,
    me: str,
    program: str | None = None,
    sock: socket.socket | None = None,
) -> Links:
    """Connect to the other parties and the provider, and agree with them.

    Parameters
    ----------
    configuration : Configuration
    me : str
        A computing party.
    program : str, optional
        Fingerprint of what is going to run.
    sock : socket, optional
        Listens at this party's address already.

    Raises
    ------
    PeerError
        If one cannot be reached, proves to be another, or disagrees; the message names it.
    """
    joining = _Joining(configuration, me, program)
    client, server = own_contexts(configuration, me)
    number, names = joining.number, joining.names
    listener = None
    try:
        if number < len(names) - 1:
            address = configuration.parties[me].listen
            assert address is not None
            later = {n: configuration.parties[n].accepted for n in names[number + 1 :]}
            listener = Listener(me, sock or bind(address), server, later)
        for name in names[:number]:
            joining.connect(configuration.parties[name], client)
        if listener is not None:
            joining.accept_later(listener)
        provider = configuration.provider
        joining.connect(provider, client)
        agree(joining.connections, joining.problem, joining.left())
    except PeerError as error:
        for connection in joining.connections.values():
            connection.notify(Kind.ABORT, str(error))
            connection.close()
        raise
    finally:
        if listener is not None:
            listener.close()
    return Links(
        joining.session,
        {names.index(n): c for n, c in joining.connections.items() if n in names},
        joining.connections[provider.name],
        {names.index(n): key for n, key in joining.keys.items() if n in names},
        joining.keys[provider.name],
    )
