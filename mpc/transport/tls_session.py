"""A TLS session over a non-blocking socket: handshake, sending, receiving."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque

__all__ = ["Tls"]

# The socket is read and written in pieces of so many bytes.
_PIECE_BYTES = 1 << 18
# The most pieces that one call of discard reads.
_DISCARDED = 16
# TCP keep-alive: an idle connection is probed after 10 s and given up 20 s later. Otherwise a lost peer
# would not be noticed, and routers in between would forget an idle connection.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class _Pieces(threading.local):
    """A thread's receive buffer, shared by its connections: its contents are passed on at once."""

    def __init__(self) -> None:
        self.piece = memoryview(bytearray(_PIECE_BYTES))


_pieces = _Pieces()


class Tls:
    """A TLS session, encrypting to and from memory, and the socket that carries its bytes.

    The socket is read and written in large pieces: one system call for many TLS records.

    Parameters
    ----------
    sock : socket
    context : ssl.SSLContext
    server : bool

    Attributes
    ----------
    sent_bytes, received_bytes : int
        Through the socket since `start`, TLS included.
    readable : bool or None
        Whether the socket has something to read, as far as the caller knows; None: `receive` asks.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server: bool) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.sent_bytes = self.received_bytes = 0
        self._cipher: bytes | memoryview = b""
        self._shaken = False
        self.readable: bool | None = None
        sock.setblocking(False)

    def handshake(self, deadline: float) -> None:
        """Do the TLS handshake before `deadline`, or raise OSError or ssl.SSLError."""
        poll = select.poll()
        while not self.step():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            poll.register(self.sock, select.POLLOUT if self._cipher else select.POLLIN)
            poll.poll(max(1, int(1000 * left)))

    def step(self) -> bool:
        """Go on with the TLS handshake without waiting. Returns whether it is done.

        Raises
        ------
        OSError
            As :meth:`handshake`.
        """
        while True:
            self._push()
            if self._cipher or self._shaken:
                return not self._cipher
            try:
                self._object.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                self._cipher = self._outgoing.read()
                self._push()
                try:
                    count = self.sock.recv_into(_pieces.piece)
                except BlockingIOError:
                    return False
                if not count:
                    raise ConnectionResetError from None
                self._incoming.write(_pieces.piece[:count])
            except ssl.SSLError:
                self._cipher = self._outgoing.read()
                self._push()  # the alert that tells the other side why
                raise
            self._cipher = self._cipher or self._outgoing.read()

    def _push(self) -> None:
        """Send encrypted bytes, as far as the socket takes them."""
        while self._cipher:
            try:
                count = self.sock.send(self._cipher)
            except BlockingIOError:
                return
            self.sent_bytes += count
            self._cipher = memoryview(self._cipher)[count:]

    def certificate(self) -> bytes | None:
        """Return the peer's certificate, in DER."""
        return self._object.getpeercert(binary_form=True)

    def start(self) -> None:
        """Prepare for frames: count bytes from here on, and turn TCP keep-alive on."""
        self.sent_bytes = self.received_bytes = 0
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the socket to take them."""
        return len(self._cipher) > 0

    @property
    def holds(self) -> bool:
        """Whether bytes that have come wait to be read."""
        return self._incoming.pending > 0 or self._object.pending() > 0

    def send(self, pieces: deque[bytes | memoryview]) -> int:
        """Send from `pieces` without waiting, removing what is sent; return how many bytes were taken.

        Raises
        ------
        OSError
            If the connection is lost, or the peer violates TLS.
        """
        taken = 0
        while True:
            self._push()
            if self._cipher:
                return taken
            some = 0
            while pieces and some < _PIECE_BYTES:
                piece = pieces.popleft()
                count = self._object.write(piece[: _PIECE_BYTES - some])
                some += count
                if count < len(piece):
                    pieces.appendleft(memoryview(piece)[count:])
            taken += some
            if not self._outgoing.pending:
                return taken
            self._cipher = self._outgoing.read()

    def receive(self, target: memoryview, whole: bool = False) -> int:
        """Read into `target`, once or until it is full; return how many bytes there were.

        Raises
        ------
        OSError
            As :meth:`send`; ConnectionResetError at the end.
        """
        size, done, read = len(target), 0, self._object.read
        while True:
            # Reading from TLS or the socket when nothing is there costs an exception.
            if self._incoming.pending or self._object.pending():
                try:
                    while done < size:
                        # With a buffer, read returns a count; the type stubs lack that overload.
                        count: int = read(size - done, target[done:])  # type: ignore[assignment]
                        if not count:
                            raise ConnectionResetError
                        done += count
                        if not whole:
                            break
                    return done
                except ssl.SSLWantReadError:
                    pass
            if not (self._poll.poll(0) if self.readable is None else self.readable):
                return done
            if self.readable:
                # Once: whoever told it is told again if there is more.
                self.readable = False
            try:
                count = self.sock.recv_into(_pieces.piece)
            except BlockingIOError:  # poll may be wrong
                return done
            if not count:
                raise ConnectionResetError
            self.received_bytes += count
            self._incoming.write(_pieces.piece[:count])

    def discard(self) -> bool:
        """Read and drop bytes without waiting. Returns whether the peer has closed its side."""
        try:
            # A limited number, so that a peer that keeps sending does not hold up the others.
            for _ in range(_DISCARDED):
                if not self.sock.recv_into(_pieces.piece):
                    return True
            return False
        except BlockingIOError:
            return False
        except OSError:
            return True
