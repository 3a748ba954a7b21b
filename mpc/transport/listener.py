"""Accepting connections from holders of known certificates, whatever strangers do meanwhile.

A connection whose TLS handshake is not finished is a newcomer. TLS handshakes take processor time from
established connections, so their rate is limited. Newcomers have places, a fixed number in all and a
smaller one for each address, for a few seconds each. Where all places are taken, the newcomer that has
been there longest is dropped: an honest one needs its place for milliseconds.
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
# How long a refused newcomer's connection stays open, so that it can read the reason.
_FAREWELL_SECONDS = 1.0
# A token bucket for newcomers: its rate in a second, and its size.
_A_SECOND = 30
_SAVED = 1000
# How often to look whether newcomers are accepted again, while the bucket is empty.
_LOOK_SECONDS = 0.2
# The most newcomers accepted before established connections have their turn.
_AT_ONCE = 8
# Equal refusals are logged once in so many seconds.
_QUIET_SECONDS = 60.0
_KEPT = 1000


class Refusals:
    """Logs refused connections; equal lines within a minute are counted, not written.

    Parameters
    ----------
    at : str
        The listener's name in the log.
    """

    def __init__(self, at: str) -> None:
        self._at = at
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, peer: str, why: str, place: str | None = None) -> None:
        """Log a refusal, or count it if an equal one was logged within the last minute."""
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
    """The listening socket, as a line of the loop: accepts newcomers at a limited rate.

    Connections beyond it wait in the system's queue.
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
        # While the bucket is empty the loop comes back after a while: see _listens.
        return select.POLLIN if self._open() else 0

    def advance(self, *, readable: bool) -> bool:
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
    """A connection in the middle of its TLS handshake, as a line of the loop."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, address: str) -> None:
        self.socket, self.peer = sock, address
        self.tls = Tls(sock, context, server=True)
        self._refused = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def events(self) -> int:
        return select.POLLOUT if self.tls.unsent else select.POLLIN

    def refuse(self) -> None:
        """Only read and drop from now on: closing a socket with unread bytes could lose TLS's alert."""
        self._refused = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone

    def advance(self, *, readable: bool) -> bool:
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
    """Accepts connections from holders of known certificates, once it is started.

    Parameters
    ----------
    me : str
        The name of the member that listens, for the log.
    sock : socket
        Listens already.
    context : ssl.SSLContext
    known : dict of str to sequence of bytes
        The accepted certificates in DER, by name.
    handle : callable
        Takes an accepted connection and returns its conversation, see :mod:`mpc.transport.loop`.
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
        self.newcomers: dict[Seat, str] = {}
        self._door: Seat | None = None
        self.know(context, known)
        door = _Door(sock, self._arrived)
        self.loop.call(lambda: self._open(door))

    def start(self) -> None:
        """Begin to accept connections; call it once everything that `handle` uses exists."""
        self.loop.start()

    def know(self, context: ssl.SSLContext, known: Mapping[str, Sequence[bytes]]) -> None:
        """Accept these certificates, and no others, from now on."""
        self._context = context
        self._names = {der: name for name, accepted in known.items() for der in accepted}

    def close(self, seconds: float = 0.0) -> None:
        """Stop listening and end all conversations, after up to `seconds` for answers to be sent."""
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
        taken = Counter(self.newcomers.values())
        if taken[whose] >= _PLACES_OF_AN_ADDRESS:
            self._make_room(whose)
        elif len(self.newcomers) >= _PLACES:
            self._make_room(taken.most_common(1)[0][0])
        try:
            newcomer = _Newcomer(plain, self._context, address)
        except (OSError, ValueError):
            plain.close()
            return
        seat = self.loop.add(newcomer, self._admit(newcomer))
        if seat.line is newcomer and newcomer.fileno() >= 0:
            self.newcomers[seat] = whose

    def _make_room(self, whose: str) -> None:
        seat = next(seat for seat, each in self.newcomers.items() if each == whose)
        del self.newcomers[seat]
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
                self.newcomers.pop(seat, None)
        name = self._names.get(newcomer.tls.certificate() or b"")
        connection = Connection(newcomer.tls, name or newcomer.peer)
        if name is None:
            # The TLS context accepts it, but it is not among the names of this listener.
            self.refusals.add(_network(newcomer.peer), "unknown certificate", newcomer.peer)
            wanted = ", ".join(dict.fromkeys(self._names.values()))
            return farewell(connection, f"{self.me} lets in {wanted} alone")
        return Next(connection, self._handle(connection))


def _listens() -> Talk:
    while True:
        with suppress(PeerTimeoutError):
            yield _LOOK_SECONDS


def _network(address: str) -> str:
    """Return the network that one machine may have all of: an IPv4 address, or an IPv6 /64."""
    try:
        if isinstance(ip := ipaddress.ip_address(address.partition("%")[0]), ipaddress.IPv6Address):
            if ip.ipv4_mapped is None:
                return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
            return str(ip.ipv4_mapped)
    except ValueError:
        pass
    return address
