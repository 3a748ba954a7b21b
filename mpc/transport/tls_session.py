"""One TLS session over memory: the handshake, and bytes out and in through its socket."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque

__all__ = ["Tls"]

# The socket is read and written in pieces of so many bytes.
_PIECE_BYTES = 1 << 18


class Tls:
    """A TLS session over memory, and the socket that carries what it writes.

    The socket is read and written in large pieces: one system call for many records.

    Parameters
    ----------
    sock : socket
    context : ssl.SSLContext
    server : bool

    Attributes
    ----------
    sent_bytes, received_bytes : int
        What went through the socket since `start`, TLS included.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server: bool) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.sent_bytes = self.received_bytes = 0
        self._cipher: bytes | memoryview = b""
        self._piece = memoryview(bytearray(_PIECE_BYTES))

    def handshake(self, deadline: float) -> None:
        """Shake hands before `deadline`, or raise OSError or ssl.SSLError."""
        while True:
            try:
                self._object.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                self._flush(deadline)  # the alert that tells the other side why
                raise
            self._flush(deadline)
            if done:
                return
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            count = self.sock.recv_into(self._piece)
            if not count or time.monotonic() > deadline:
                raise TimeoutError if count else ConnectionResetError
            self._incoming.write(self._piece[:count])

    def _flush(self, deadline: float) -> None:
        if self._outgoing.pending:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            self.sock.sendall(self._outgoing.read())

    def certificate(self) -> bytes | None:
        """Return the peer's certificate, in DER."""
        return self._object.getpeercert(binary_form=True)

    def start(self) -> None:
        """Let nothing block from now on."""
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)

    @property
    def unsent(self) -> bool:
        """Whether the socket has not taken yet all that was encrypted."""
        return len(self._cipher) > 0

    def send(self, pieces: deque[bytes | memoryview]) -> int:
        """Send what can be sent now, and take it from `pieces`; return how many bytes were taken.

        Raises
        ------
        OSError
            If the connection is lost, or the peer has broken the rules of TLS.
        """
        taken = 0
        while True:
            while self._cipher:
                try:
                    count = self.sock.send(self._cipher)
                except BlockingIOError:
                    return taken
                self.sent_bytes += count
                self._cipher = memoryview(self._cipher)[count:]
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
            # Asking TLS or the socket in vain costs an exception.
            if self._incoming.pending or self._object.pending():
                try:
                    while done < size:
                        # Into a buffer it returns a count; the stubs know the other form alone.
                        count: int = read(size - done, target[done:])  # type: ignore[assignment]
                        if not count:
                            raise ConnectionResetError
                        done += count
                        if not whole:
                            break
                    return done
                except ssl.SSLWantReadError:
                    pass
            if not self._poll.poll(0):
                return done
            try:
                count = self.sock.recv_into(self._piece)
            except BlockingIOError:  # poll may be wrong
                return done
            if not count:
                raise ConnectionResetError
            self.received_bytes += count
            self._incoming.write(self._piece[:count])

    def wait_for_end(self, seconds: float) -> None:
        """Read for a while what is not wanted, until the peer has nothing more to send."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.sock], [], [], left)
            if not ready or not self.sock.recv_into(self._piece):
                return
