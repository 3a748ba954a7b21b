"""The handshake: processes agree on what they are about to run, and on fresh keys.

1. Party j connects to every party i < j, to the provider and to its auditor, if there are; certificates
   say who is who.
2. On each connection both sides send HELLO: protocol version, program, ring, format, parties, the
   session id if they know it (the first party draws it), and 32 random bytes.
3. Where both HELLOs agree, the key of the connection's two ends is HMAC-SHA256 of both sides'
   random bytes over names and session id: fresh if either side's generator is.
4. Everybody sends everybody READY, with the first disagreement it has found. So one that only two
   can see is an error for all.
5. If the parties watch one another, the provider sends each of them two keys: mpc.provider.watched. If
   there is an auditor, it compares what they have got: mpc.provider.announced.
6. If all say so, the first party measures the network: :mod:`mpc.parties.measuring`.

In step 1 each party waits for the ones after it, so two parties whose configurations list the parties in
different orders could wait for each other for ever. A party that waits for long therefore asks the other
one for its terms, by a HELLO with the purpose COMPARE.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from mpc.core import wire
from mpc.core.errors import FrameError, HandshakeError, ShapeError
from mpc.core.frames import Kind
from mpc.core.runtime import MEMORY_LIMIT
from mpc.parties.configuration import Configuration
from mpc.transport.connection import Connection, exchange, printable
from mpc.transport.loop import By
from ring.streams import KEY_BYTES, fresh_key

__all__ = [
    "COMPARE",
    "HEALTH",
    "NOTICES",
    "PROTOCOL_VERSION",
    "RELOAD",
    "SESSION",
    "SIGNED",
    "Greeting",
    "Terms",
    "agree",
    "audit_terms",
    "client_terms",
    "disagreement",
    "expect_hello",
    "expect_ready",
    "hear_hello",
    "pair_key",
    "read_hello",
    "read_ready",
    "say_ready",
    "send_hello",
    "take_hello",
    "terms",
]

PROTOCOL_VERSION = 15
# The purposes of a HELLO between parties and provider; clients have others.
SESSION, HEALTH, COMPARE, NOTICES = "session", "health", "compare", "notices"
# The purpose of a HELLO from a party to its own service: read parties.toml again.
RELOAD = "reload"
SESSION_ID_BYTES = 16
SIGNED = ", signed"
"""How the term on audits ends where the provider signs what it deals."""
_NONCE_BYTES = 32
_LARGEST_HELLO = 1 << 16
_LARGEST_READY = 2000

Terms = Mapping[str, Any]


def terms(
    configuration: Configuration, program: str | None, memory_limit: int = MEMORY_LIMIT
) -> dict[str, Any]:
    """Return the terms on which all computing parties of a session must agree, by name."""
    fixed_point = configuration.format
    return {
        "protocol version": PROTOCOL_VERSION,
        "ring": "2^64",
        "parties": configuration.names,
        "program": program or "",
        "frac_bits": fixed_point.frac_bits,
        "int_bits": fixed_point.int_bits,
        # Whether there is one; which one it is, its certificate says.
        "provider": "none" if configuration.provider is None else "crypto",
        "transfers": configuration.transfers,
        "network": str(configuration.network or "none"),
        # Forms, batches and so words follow from it; as a number that a frame has room for.
        "memory_limit": min(memory_limit, 1 << 62),
        "auditor": audit_terms(configuration),
        "security": configuration.security,
    }


def audit_terms(configuration: Configuration) -> str:
    """Return the term on audits: parties meet at the same auditor, or do not begin."""
    if configuration.auditor is None:
        return "none"
    return f"rate {configuration.audit_rate:g}{SIGNED if configuration.audit_signed else ''}"


def client_terms(configuration: Configuration) -> dict[str, Any]:
    """Return the terms on which a client and a party must agree: a client does not know the program."""
    found = terms(configuration, None)
    for name in ("program", "transfers", "network", "memory_limit", "auditor"):
        del found[name]
    return found


@dataclass(frozen=True, repr=False)
class Greeting:
    """The other side's HELLO.

    Attributes
    ----------
    purpose : str
        SESSION, HEALTH, COMPARE, NOTICES, RELOAD, or one of a client's.
    terms : dict
    session : bytes
        The session id; empty if the other side does not know it yet.
    nonce : bytes
        The other side's random bytes for the key.
    """

    purpose: str
    terms: dict[str, Any]
    session: bytes
    nonce: bytes


def send_hello(connection: Connection, purpose: str, mine: Terms, session: bytes) -> bytes:
    """Queue a HELLO; return this side's random bytes for the key."""
    nonce = fresh_key() + fresh_key()
    hello = (purpose, tuple(mine.items()), session, nonce)
    connection.post_bytes(Kind.HELLO, wire.encode(hello))
    return nonce


def read_hello(connection: Connection, timeout: float) -> Greeting:
    """Receive a HELLO."""
    expect_hello(connection)
    exchange([connection], timeout)
    return take_hello(connection)


def hear_hello(connection: Connection, seconds: float) -> Generator[float, None, Greeting]:
    """Receive a HELLO within `seconds`, in a conversation of :mod:`mpc.transport.loop`."""
    expect_hello(connection)
    yield By(time.monotonic() + seconds)
    return take_hello(connection)


def expect_hello(connection: Connection) -> None:
    """Expect a HELLO."""
    connection.expect_bytes([Kind.HELLO], _LARGEST_HELLO)


def take_hello(connection: Connection) -> Greeting:
    """Decode the HELLO that has arrived.

    Raises
    ------
    FrameError
        If the frame holds no HELLO.
    """
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
    """Return a text that names the first difference between two sides' terms; empty without one."""
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
    """Derive the key that two processes share; `one` is the side that accepted the connection."""
    message = wire.encode(("sotto pair key", session, one, other))
    return hmac.digest(nonce_of_one + nonce_of_other, message, "sha256")[:KEY_BYTES]


def expect_ready(connection: Connection) -> None:
    """Expect READY; it may arrive long before this process calls :func:`agree`."""
    connection.expect_bytes([Kind.READY], _LARGEST_READY)


def agree(connections: Mapping[str, Connection], problem: str, timeout: float) -> None:
    """Exchange READY with all, each with the first disagreement that its sender has found.

    Raises
    ------
    HandshakeError
        If anybody found a disagreement; all sides raise the same one.
    """
    say_ready(connections, problem)
    exchange(connections.values(), timeout)
    read_ready(connections, problem)


def say_ready(connections: Mapping[str, Connection], problem: str) -> None:
    """Queue READY for all, and expect theirs, unless it has arrived already."""
    for connection in connections.values():
        connection.post_bytes(Kind.READY, problem.encode())
        if connection.arrived:
            connection.rest()
        else:
            expect_ready(connection)


def read_ready(connections: Mapping[str, Connection], problem: str) -> None:
    """Decode everybody's READY; raise HandshakeError if anybody found a disagreement."""
    problems = [printable(c.take().data.tobytes()) for c in connections.values()]
    found = sorted({p for p in (problem, *problems) if p})
    if found:
        raise HandshakeError(found[0])
