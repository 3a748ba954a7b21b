"""Letting in those whose certificates are known, whoever else comes meanwhile.

Somebody whose TLS is not done yet is a newcomer. So many are let in a second, as TLS takes time from
those that are in. Each has a place for a few seconds; there are so many places in all, and so many
for one address. Where these are taken, who has had its own longest goes: who means it needs a place
for milliseconds.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mpc.core.errors import PeerClosedError, PeerError, PeerTimeoutError
from mpc.core.events import record
from mpc.transport.connection import Connection
from mpc.transport.loop import By, Loop, Next, Seat, Talk, farewell
from mpc.transport.tls_session import Tls

__all__ = ["Listener", "Refusals"]

_NEWCOMER_SECONDS = 5.0
_PLACES = 256
_PLACES_OF_AN_ADDRESS = 32
# Somebody who is refused has so long to take in why.
_FAREWELL_SECONDS = 1.0
# So many a second, and so many at once after a while without.
_A_SECOND = 30
_SAVED = 1000
# How often the door is looked at while it is shut.
_LOOK_SECONDS = 0.2
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
    """The socket that listens, for so many newcomers a second: TLS with them is work, whoever they are.

    Those beyond wait in the system's queue.
    """

    peer = "the listener"

    def __init__(self, sock: socket.socket, arrived: Callable[[socket.socket, str], None]) -> None:
        self._socket, self._arrived = sock, arrived
        self._may, self._since = float(_SAVED), time.monotonic()
        sock.setblocking(False)

    def _open(self) -> bool:
        now = time.monotonic()
        self._may = min(_SAVED, self._may + _A_SECOND * (now - self._since))
        self._since = now
        return self._may >= 1

    def fileno(self) -> int:
        return self._socket.fileno()

    def events(self) -> int:
        # While it is shut the loop comes back by itself: see _listens.
        return select.POLLIN if self._open() else 0

    def advance(self) -> bool:
        for _ in range(_AT_ONCE):
            if not self._open():
                break
            try:
                plain, address = self._socket.accept()
            except BlockingIOError:
                break
            except OSError:
                time.sleep(0.01)  # out of file descriptors, say
                break
            self._may -= 1
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
        self._refused = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def events(self) -> int:
        return select.POLLOUT if self.tls.unsent else select.POLLIN

    def refuse(self) -> None:
        """Hear it out from now on: a socket closed before takes back the alert that says why."""
        self._refused = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone

    def advance(self) -> bool:
        if self._refused:
            return self.tls.discard()
        try:
            return self.tls.step()
        except (OSError, ValueError) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
            if not reason and isinstance(error, ConnectionError | ssl.SSLEOFError):
                reason = "it was gone before TLS was done"
            raise PeerClosedError(str(reason or error) or type(error).__name__) from None

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
        except PeerError as error:
            self.refusals.add(_network(newcomer.peer), str(error), newcomer.peer)
            if not isinstance(error, PeerTimeoutError):
                newcomer.refuse()
                with suppress(PeerError):
                    yield By(time.monotonic() + _FAREWELL_SECONDS)
            return None
        finally:
            if seat is not None:
                self._newcomers.pop(seat, None)
        name = self._names.get(newcomer.tls.certificate() or b"")
        connection = Connection(newcomer.tls, name or newcomer.peer)
        if name is None:
            # Known to TLS, and nobody who is wanted here.
            self.refusals.add(_network(newcomer.peer), "unknown certificate", newcomer.peer)
            wanted = ", ".join(dict.fromkeys(self._names.values()))
            return farewell(connection, f"{self.me} lets in {wanted} alone")
        return Next(connection, self._handle(connection))


def _listens() -> Talk:
    while True:
        with suppress(PeerTimeoutError):
            yield _LOOK_SECONDS


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
