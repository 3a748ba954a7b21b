"""One TLS session over memory: the handshake, and what it writes for the socket to carry."""

from __future__ import annotations

import socket
import ssl
import time

__all__ = ["PIECE_BYTES", "Tls"]

# The socket is read and written in pieces of so many bytes.
PIECE_BYTES = 1 << 18


class Tls:
    """A TLS session over memory, and the socket that carries what it writes.

    Parameters
    ----------
    sock : socket
    context : ssl.SSLContext
    server : bool
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server: bool) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=server)
        self.piece = memoryview(bytearray(PIECE_BYTES))

    def handshake(self, deadline: float) -> None:
        """Shake hands before `deadline`, or raise OSError or ssl.SSLError."""
        while True:
            try:
                self.object.do_handshake()
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
            count = self.sock.recv_into(self.piece)
            if not count or time.monotonic() > deadline:
                raise TimeoutError if count else ConnectionResetError
            self.incoming.write(self.piece[:count])

    def _flush(self, deadline: float) -> None:
        if self.outgoing.pending:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            self.sock.sendall(self.outgoing.read())
