"""Hostile clients of running services, each kind in a process of its own.

Each comes from an address of its own and runs with the lowest priority, so that what it takes of this
machine is not taken for what it does to the services. Started by serving.py, until it is killed.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpc.core import frames, wire
from mpc.core.errors import SottoError
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.configuration import Configuration, Member
from mpc.parties.handshake import read_hello, send_hello, terms
from mpc.parties.tls import own_contexts
from mpc.transport.certificates import make_certificate
from mpc.transport.connection import Connection, exchange
from mpc.transport.tls_session import Tls
from ring import fresh_key

# Whose key is used where it takes one, and whose certificate has expired.
EVE, EXPIRED = "eve", "ella"
WIDTH = 64
_SECONDS = 10.0


class Hostile:
    """What a hostile client has: a configuration, a key and an address."""

    def __init__(self, read: Configuration, address: str) -> None:
        self.read, self._address = read, address
        self.context, _ = own_contexts(read, EVE)

    def reach(self, member: Member) -> socket.socket:
        """Connect without TLS."""
        assert member.address is not None
        return socket.create_connection(member.address, _SECONDS, (self._address, 0))

    def connect(self, member: Member, context: ssl.SSLContext | None = None) -> Connection:
        """Connect with TLS."""
        tls = Tls(self.reach(member), context or self.context, server=False)
        tls.handshake(time.monotonic() + _SECONDS)
        return Connection(tls, member.name)

    def greet(self, member: Member) -> Connection:
        """Connect as a client does."""
        connection = self.connect(member)
        mine = {name: v for name, v in terms(self.read, None).items() if name != "program"}
        send_hello(connection, "predict", mine, b"")
        read_hello(connection, _SECONDS)
        return connection

    def greet_all(self) -> list[Connection]:
        """Connect to all parties."""
        return [self.greet(member) for member in self.read.parties.values()]

    def any_context(self, name: str, folder: Path) -> ssl.SSLContext:
        """Return a context with a certificate that is not looked at here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        return context


def _call(connection: Connection, id: bytes, rows: int, last: bool) -> None:
    call = ("predict", id, "model-0", b"", "class", rows)
    if last:
        connection.post_bytes(Kind.CALL, wire.encode(call))
        connection.post(Kind.SHARE, [np.zeros((rows, WIDTH), np.uint64)])
    else:
        connection.post_bytes(Kind.CALL, wire.encode((*call, fresh_key())))
    connection.expect_bytes([Kind.ANSWER], 1 << 20)


def other_rows(hostile: Hostile) -> None:
    """Send the same request with one row to one party, with two to another."""
    connections = hostile.greet_all()
    while True:
        id = fresh_key()
        for k, connection in enumerate(connections):
            _call(connection, id, 1 + k, connection is connections[-1])
        exchange(connections, 1000)
        for connection in connections:
            connection.take()


def last_alone(hostile: Hostile) -> None:
    """Send a request to the last party only, 32 times at once, and again."""
    (member,) = list(hostile.read.parties.values())[-1:]
    connections = [hostile.greet(member) for _ in range(32)]
    while True:
        for connection in connections:
            _call(connection, fresh_key(), 2, True)
        exchange(connections, 1000)
        for connection in connections:
            connection.take()


def silent(hostile: Hostile) -> None:
    """Hold 64 TCP connections to everybody, and say nothing."""
    members = [hostile.read.provider, *hostile.read.parties.values()]
    held = [[hostile.reach(member) for _ in range(64)] for member in members]
    while True:
        for member, sockets in zip(members, held, strict=True):
            for k, sock in enumerate(sockets):
                sock.setblocking(False)
                try:
                    gone = not sock.recv(100)
                except BlockingIOError:
                    gone = False
                except OSError:
                    gone = True
                if gone:
                    sock.close()
                    sockets[k] = hostile.reach(member)
        time.sleep(0.05)


def _refused(hostile: Hostile, context: ssl.SSLContext) -> None:
    while True:
        for member in hostile.read.parties.values():
            connection = hostile.connect(member, context)
            try:
                read_hello(connection, _SECONDS)
            except SottoError:
                pass
            connection.close()


def expired(hostile: Hostile) -> None:
    """Connect again and again with a certificate that has expired."""
    _refused(hostile, hostile.any_context(EXPIRED, hostile.read.path.parent))


def unknown(hostile: Hostile) -> None:
    """Connect again and again with a certificate that nobody knows."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_certificate("x", place / "x.crt", place / "x.key")
        context = hostile.any_context("x", place)
    _refused(hostile, context)


def slow_tls(hostile: Hostile) -> None:
    """Shake hands a byte at a time, on 32 connections."""
    members = list(hostile.read.parties.values())
    outgoing = ssl.MemoryBIO()
    try:
        hostile.context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    held = [
        (hostile.reach(members[k % len(members)]), members[k % len(members)]) for k in range(32)
    ]
    sent = [0] * len(held)
    while True:
        for k, (sock, member) in enumerate(held):
            try:
                sock.send(hello[sent[k] : sent[k] + 1])
                sent[k] = min(sent[k] + 1, len(hello) - 1)
            except OSError:
                sock.close()
                held[k], sent[k] = (hostile.reach(member), member), 0
        time.sleep(0.02)


def half_a_frame(hostile: Hostile) -> None:
    """Send half of a request, and wait to be thrown out."""
    while True:
        connections = hostile.greet_all()
        for connection in connections:
            id = fresh_key()
            call = wire.encode(("predict", id, "model-0", b"", "class", 2))
            if connection is connections[-1]:
                connection.post_bytes(Kind.CALL, call)
                head = frames.pack(Kind.SHARE, 2, 0, True, [(2, WIDTH)])
            else:
                head = frames.pack(Kind.CALL, 1, 0, False, [(len(call) + 18,)])
            connection.post_raw(head + b"half", [])
            connection.expect_bytes([Kind.ANSWER], 1 << 20)
        try:
            exchange(connections, 1000)
        finally:
            for connection in connections:
                connection.close()


def reconnects(hostile: Hostile) -> None:
    """Connect, shake hands and go, in a tight loop."""
    while True:
        for member in hostile.read.parties.values():
            hostile.connect(member).close()


KINDS: dict[str, Callable[[Hostile], None]] = {
    "other rows": other_rows,
    "last alone": last_alone,
    "silent": silent,
    "expired": expired,
    "unknown": unknown,
    "slow TLS": slow_tls,
    "half a frame": half_a_frame,
    "reconnects": reconnects,
}


def main(path: str, kind: str) -> None:
    """Do harm of one kind, again whenever it is thrown out."""
    os.nice(19)
    number = list(KINDS).index(kind)
    hostile = Hostile(configuration.load(path), f"127.0.0.{100 + number}")
    while True:
        try:
            KINDS[kind](hostile)
        except (SottoError, OSError):
            time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
