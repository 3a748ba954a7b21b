"""TLS 1.3 between processes, each side's certificate pinned to its name."""

from __future__ import annotations

import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from mpc.configuration import Configuration, Member
from mpc.errors import ConfigurationError, PeerClosedError, PeerError, PeerTimeoutError
from mpc.events import record
from mpc.transport.addresses import bind
from mpc.transport.certificates import client_context, server_context
from mpc.transport.connection import Connection
from mpc.transport.frames import Kind
from mpc.transport.tls_session import Tls

__all__ = ["Listener", "bind", "connect", "own_contexts"]

# A stranger may hold a place no longer than this, and there are so many places.
_STRANGER_SECONDS = 10.0
_STRANGERS = 64
_RETRY_SECONDS = 0.05
# OpenSSL's numbers for a certificate that is not valid yet, and for one that has expired.
_NOT_NOW = (9, 10)


def own_contexts(configuration: Configuration, me: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what `me` connects with and listens with.

    Raises
    ------
    ConfigurationError
        If `me` is nobody in the configuration or its key is not here.
    """
    members = configuration.members
    if me not in members:
        raise ConfigurationError(f"me must be one of {', '.join(members)}, got {me!r}")
    member = members[me]
    if member.key is None:
        raise ConfigurationError(f"{configuration.path}: {me} needs key = ... on its own machine")
    # Its own too: its service may be asked for health from its own machine.
    known = configuration.certificates()
    return (
        client_context(member.certificates, member.key, known),
        server_context(member.certificates, member.key, known),
    )


def connect(member: Member, context: ssl.SSLContext, timeout: float) -> Connection:
    """Connect to a party or the provider, waiting until it listens.

    Raises
    ------
    PeerTimeoutError
        If nobody listens there within `timeout` seconds.
    PeerClosedError
        If whoever listens does not talk TLS 1.3, or has another certificate.
    """
    assert member.address is not None
    place = member.place
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerTimeoutError(f"{place} did not accept a connection within {timeout:g} s")
        try:
            plain = socket.create_connection(member.address, timeout=left)
        except TimeoutError:
            continue
        except socket.gaierror as error:
            raise PeerClosedError(f"{place} cannot be found: {error.strerror}") from None
        except OSError:
            time.sleep(min(_RETRY_SECONDS, left))
            continue
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = Tls(plain, context, server=False)
            tls.handshake(deadline)
        except TimeoutError:
            plain.close()
            raise PeerTimeoutError(f"{place} did not finish TLS within {timeout:g} s") from None
        except (OSError, ValueError) as error:
            plain.close()
            _refuse(place, error)
        if tls.certificate() not in member.accepted:
            plain.close()
            raise PeerClosedError(
                f"{place} has another certificate than the one that is pinned to it"
            )
        return Connection(tls, member.name)


def _refuse(place: str, error: Exception) -> NoReturn:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NOT_NOW:
            raise PeerClosedError(
                f"{place} has a certificate that is not valid now ({error.verify_message}):"
                " sotto check says more"
            ) from None
        raise PeerClosedError(
            f"{place} has another certificate than the one that is pinned to it"
        ) from None
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        raise PeerClosedError(
            f"{place} does not talk TLS 1.3 ({(error.reason or '?').lower()})"
        ) from None
    raise PeerClosedError(f"{place} closed the connection during TLS") from None


class Listener:
    """Accepts connections from those whose certificates are known.

    Parameters
    ----------
    me : str
        Whose socket this is, for the log.
    sock : socket that listens
    context : ssl.SSLContext
    known : dict of str to sequence of bytes
        Certificates by name; nobody else gets in.
    handle : callable, optional
        Called with each connection, in a thread of its own. Without it, :meth:`accept` returns
        them one after the other.
    """

    def __init__(
        self,
        me: str,
        sock: socket.socket,
        context: ssl.SSLContext,
        known: Mapping[str, Sequence[bytes]],
        handle: Callable[[Connection], None] | None = None,
    ) -> None:
        self.me = me
        self._socket, self._context = sock, context
        self._names = {der: name for name, accepted in known.items() for der in accepted}
        self._accepted: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._handle = handle
        self._places = threading.BoundedSemaphore(_STRANGERS)
        self._closed = False
        self._socket.setblocking(False)
        self._awake, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name=f"{me} listens", daemon=True)
        self._thread.start()

    def accept(self, timeout: float) -> Connection | None:
        """Return the next connection, or None if there is none within `timeout` seconds."""
        try:
            return self._accepted.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._wake.close()
        self._thread.join(timeout=2.0)
        self._awake.close()
        self._socket.close()
        self._close_late()

    def _close_late(self) -> None:
        while (late := self.accept(0.0)) is not None:
            late.close()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._awake, select.POLLIN)
        while not self._closed:
            poll.poll()
            try:
                plain, address = self._socket.accept()
            except BlockingIOError:
                continue
            except OSError:
                if self._closed:
                    return
                time.sleep(_RETRY_SECONDS)  # out of file descriptors, say
                continue
            if not self._places.acquire(blocking=False):
                record("refused", warning=True, at=self.me, peer=address[0], why="too many at once")
                plain.close()
                continue
            threading.Thread(
                target=self._admit, args=(plain, address), name=f"{self.me} admits", daemon=True
            ).start()

    def _admit(self, plain: socket.socket, address: tuple[str, int]) -> None:
        where = f"{address[0]}:{address[1]}"
        try:
            try:
                tls = Tls(plain, self._context, server=True)
                tls.handshake(time.monotonic() + _STRANGER_SECONDS)
                name = self._names.get(tls.certificate() or b"")
                if name is None:
                    raise ssl.SSLError(0, "unknown certificate")
                connection = Connection(tls, name)
            except (OSError, ValueError) as error:
                reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
                reason = reason or str(error) or type(error).__name__
                record("refused", warning=True, at=self.me, peer=where, why=str(reason))
                plain.close()
                return
        finally:
            self._places.release()
        if self._handle is None:
            self._accepted.put(connection)
            if self._closed:  # and so may have been when close() looked
                self._close_late()
            return
        try:
            self._handle(connection)
        except PeerError as error:
            record("lost", warning=True, at=self.me, why=str(error))
        except Exception as error:
            # The text of an unforeseen error may hold anything; its type does not.
            why = type(error).__name__
            record("failed", warning=True, at=self.me, peer=connection.peer, why=why)
            connection.notify(Kind.ABORT, f"{type(error).__name__} at {self.me}")
        finally:
            connection.close()
