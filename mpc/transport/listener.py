"""Letting in those whose certificates are known, whoever else comes meanwhile.

Somebody whose TLS is not done yet is a newcomer. It has a place for a few seconds; there are so
many places in all, and so many for one address. Where these are taken, who has had its own longest
goes: who means it needs a place for milliseconds.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from mpc.errors import PeerClosedError, PeerError
from mpc.events import record
from mpc.transport.connection import Connection
from mpc.transport.loop import By, Loop, Next, Seat, Talk
from mpc.transport.tls_session import Tls

__all__ = ["Listener", "Refusals"]

_NEWCOMER_SECONDS = 5.0
_PLACES = 256
_PLACES_OF_AN_ADDRESS = 32
# Who has come is let in by so many at a time, between which those that are in go on.
_AT_ONCE = 8
# Refusals that are alike are logged once in so many seconds.
_QUIET_SECONDS = 60.0
_KEPT = 1000


class Refusals:
    """The log's lines on those who are not let in: alike ones are counted, not written.

    Parameters
    ----------
    at : str
        Whose they are.
    """

    def __init__(self, at: str) -> None:
        self._at = at
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, peer: str, why: str, place: str | None = None) -> None:
        """Log a refusal, unless one like it was a moment ago."""
        now = time.monotonic()
        since, count = self._seen.get((peer, why), (-_QUIET_SECONDS, 0))
        if now - since < _QUIET_SECONDS:
            self._seen[peer, why] = since, count + 1
            return
        if len(self._seen) >= _KEPT:
            self._seen.clear()
        self._seen[peer, why] = now, 0
        more: dict[str, int] = {"more": count} if count else {}
        record("refused", warning=True, at=self._at, peer=place or peer, why=why, **more)


class _Door:
    """The socket that listens."""

    peer = "the listener"

    def __init__(self, sock: socket.socket, arrived: Callable[[socket.socket, str], None]) -> None:
        self._socket, self._arrived = sock, arrived
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def events(self) -> int:
        return select.POLLIN

    def advance(self) -> bool:
        for _ in range(_AT_ONCE):
            try:
                plain, address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError:
                time.sleep(0.01)  # out of file descriptors, say
                break
            self._arrived(plain, address[0])
        return False

    def moved(self) -> int:
        return 0

    def close(self) -> None:
        self._socket.close()


class _Newcomer:
    """Somebody in the middle of TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, address: str) -> None:
        self.socket, self.peer = sock, address
        self.tls = Tls(sock, context, server=True)

    def fileno(self) -> int:
        return self.socket.fileno()

    def events(self) -> int:
        return select.POLLOUT if self.tls.unsent else select.POLLIN

    def advance(self) -> bool:
        try:
            return self.tls.step()
        except (OSError, ValueError) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
            raise PeerClosedError(str(reason or error or type(error).__name__)) from None

    def moved(self) -> int:
        return 0

    def close(self) -> None:
        self.socket.close()


class Listener:
    """Accepts connections from those whose certificates are known, once it is started.

    Parameters
    ----------
    me : str
        Whose socket this is, for the log.
    sock : socket that listens
    context : ssl.SSLContext
    known : dict of str to sequence of bytes
        Certificates by name; nobody else gets in.
    handle : callable
        Takes a connection and returns the conversation that it begins.
    """

    def __init__(
        self,
        me: str,
        sock: socket.socket,
        context: ssl.SSLContext,
        known: Mapping[str, Sequence[bytes]],
        handle: Callable[[Connection], Talk],
    ) -> None:
        self.me = me
        self.loop = Loop(me)
        self.refusals = Refusals(me)
        self._handle = handle
        self._newcomers: dict[Seat, str] = {}
        self._door: Seat | None = None
        self.know(context, known)
        door = _Door(sock, self._arrived)
        self.loop.call(lambda: self._open(door))

    def start(self) -> None:
        """Let in whoever comes, once all that `handle` needs is there."""
        self.loop.start()

    def know(self, context: ssl.SSLContext, known: Mapping[str, Sequence[bytes]]) -> None:
        """Let in those with these certificates from now on."""
        self._context = context
        self._names = {der: name for name, accepted in known.items() for der in accepted}

    def close(self, seconds: float = 0.0) -> None:
        """Stop listening and end all conversations, letting last answers out for so long."""
        self.loop.call(self.shut)
        self.loop.close(seconds)

    def shut(self) -> None:
        """Stop listening. For the loop's own thread."""
        if self._door is not None:
            self.loop.detach(self._door)
            self._door.line.close()
            self._door = None

    def _open(self, door: _Door) -> None:
        self._door = self.loop.add(door, _listens())

    def _arrived(self, plain: socket.socket, address: str) -> None:
        whose = _network(address)
        taken = Counter(self._newcomers.values())
        if taken[whose] >= _PLACES_OF_AN_ADDRESS:
            self._make_room(whose)
        elif len(self._newcomers) >= _PLACES:
            self._make_room(taken.most_common(1)[0][0])
        try:
            newcomer = _Newcomer(plain, self._context, address)
        except (OSError, ValueError):
            plain.close()
            return
        seat = self.loop.add(newcomer, self._admit(newcomer))
        if seat.line is newcomer and newcomer.fileno() >= 0:
            self._newcomers[seat] = whose

    def _make_room(self, whose: str) -> None:
        seat = next(seat for seat, each in self._newcomers.items() if each == whose)
        del self._newcomers[seat]
        self.loop.detach(seat)
        seat.line.close()
        self.refusals.add(whose, "too many at once that do not finish TLS")

    def _admit(self, newcomer: _Newcomer) -> Talk:
        seat = self.loop.current
        try:
            yield By(time.monotonic() + _NEWCOMER_SECONDS)
            name = self._names.get(newcomer.tls.certificate() or b"")
            if name is None:
                raise PeerClosedError("unknown certificate")
        except PeerError as error:
            self.refusals.add(_network(newcomer.peer), str(error), newcomer.peer)
            return None
        finally:
            if seat is not None:
                self._newcomers.pop(seat, None)
        connection = Connection(newcomer.tls, name)
        return Next(connection, self._handle(connection))


def _listens() -> Talk:
    while True:
        yield float("1e9")


def _network(address: str) -> str:
    """Return what stands for all addresses that one machine may have."""
    try:
        if isinstance(ip := ipaddress.ip_address(address.partition("%")[0]), ipaddress.IPv6Address):
            if ip.ipv4_mapped is None:
                return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
            return str(ip.ipv4_mapped)
    except ValueError:
        pass
    return address
