"""A connection to another process, which sends and receives frames without blocking."""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mpc.core import frames
from mpc.core.errors import (
    ABORTED,
    AbortError,
    CertificateError,
    FrameError,
    PeerClosedError,
    PeerError,
    ShapeError,
)
from mpc.core.frames import Header, Kind
from mpc.transport.tls_session import Tls
from mpc.transport.waiting import Background, exchange, wait

__all__ = ["Background", "Connection", "Incoming", "exchange", "printable", "wait"]

Words = NDArray[np.uint64]

_LARGEST_ABORT = 2000
# TLS alerts of a peer that refuses this process's certificate: the reason, and the way out.
_REFUSALS = {
    "ALERT_UNKNOWN_CA": "it is not in that one's parties.toml, which sotto join and SIGHUP there"
    " put right",
    "ALERT_CERTIFICATE_EXPIRED": "by that one's clock it has expired; sotto key --successor makes"
    " the next",
    # OpenSSL sends this one for a certificate that is not valid yet, too.
    "ALERT_BAD_CERTIFICATE": "it is damaged, or not valid yet by that one's clock",
    "ALERT_CERTIFICATE_UNKNOWN": "it cannot be used",
    "ALERT_CERTIFICATE_REQUIRED": "there was none",
}
_LAST_WORDS = frozenset((Kind.ABORT, Kind.BYE))
# What has to be the same at parties whose messages do not fit.
_SAME = "; all run one program, with the same shape=, dtype= and bound= of what any of them shares"
# How long to try to deliver a last message.
_NOTICE_SECONDS = 1.0


def little_endian(words: Words) -> Words:
    """Return words in the byte order of the wire, or back."""
    return words if sys.byteorder == "little" else words.byteswap()


class Incoming:
    """A frame that has arrived: header and data."""

    __slots__ = ("data", "header")

    def __init__(self, header: Header, data: Any) -> None:
        self.header, self.data = header, data

    def arrays(self) -> list[Words]:
        """Return the arrays, views of one piece of memory."""
        words = little_endian(self.data)
        out, first = [], 0
        for shape in self.header.shapes:
            behind = first + prod(shape)
            out.append(words[first:behind].reshape(shape))
            first = behind
        return out


class Connection:
    """Frames to and from one process, over a TLS session that has shaken hands.

    No method waits for the peer; :func:`exchange` and :func:`wait` do, with a timeout. Only one thread may
    use a connection at a time.

    Attributes
    ----------
    peer : str
        The name that the configuration has for the peer's certificate.
    ended : bool
        Whether the peer has said goodbye.
    """

    def __init__(self, tls: Tls, peer: str) -> None:
        self.peer = peer
        self._tls, self._socket = tls, tls.sock
        tls.start()
        self.outgoing: deque[bytes | memoryview] = deque()
        self.outgoing_bytes = 0
        self._sending = False
        # Sequence numbers of the next frame to send and to receive.
        self.next_sent = self._next_received = 0
        self._buffer = bytearray(2 * frames.RECORD_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._accept: Callable[[Header], Any] | None = None
        # The expected header, where it is known: as bytes and parsed.
        self._expected: tuple[bytes, Header | None] = b"", None
        self._header: Header | None = None
        self._data: Any = None
        self._target = memoryview(b"")
        self._incoming: Incoming | None = None
        self._broken: PeerError | None = None
        self.ended = False

    def __repr__(self) -> str:
        return f"Connection({self.peer})"

    def fileno(self) -> int:
        """Return the socket's number, or -1 once it is closed."""
        return self._socket.fileno()

    @property
    def sent_bytes(self) -> int:
        """Bytes sent through the socket after the TLS handshake, headers and TLS included."""
        return self._tls.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes received through the socket after the TLS handshake, headers and TLS included."""
        return self._tls.received_bytes

    def moved(self) -> int:
        """Return the number of bytes sent and received together."""
        return self._tls.sent_bytes + self._tls.received_bytes

    # Sending.

    def post(
        self, kind: Kind, arrays: Sequence[Words], step: int = 0, *, beside: bool = False
    ) -> None:
        """Queue a frame of arrays, which must not change before it is sent.

        `beside`: in one TLS record with the end of the frame queued before, if there is room.
        """
        whole = [little_endian(np.asarray(array, order="C")) for array in arrays]
        head = frames.pack(kind, self.next_sent, step, True, [array.shape for array in whole])
        self.post_raw(head, [array.data for array in whole if array.size], beside)

    def post_bytes(self, kind: Kind, data: bytes, step: int = 0) -> None:
        """Queue a frame of bytes."""
        head = frames.pack(kind, self.next_sent, step, False, [(len(data),)])
        self.post_raw(head, [memoryview(data)] if data else [])

    def post_raw(self, head: bytes, pieces: list[memoryview], beside: bool = False) -> None:
        """Queue a frame whose header is packed already; `beside` as for :meth:`post`."""
        self.next_sent += 1
        self.outgoing_bytes += len(head)
        if beside and self.outgoing and len(self.outgoing[-1]) + len(head) <= frames.RECORD_BYTES:
            head = bytes(self.outgoing.pop()) + head
        # The header and what fits beside it go into one record.
        first: list[bytes | memoryview] = [head]
        rest: list[memoryview] = []
        room = frames.RECORD_BYTES - len(head)
        for piece in pieces:
            self.outgoing_bytes += piece.nbytes
            if piece.nbytes <= room:
                first.append(piece)
                room -= piece.nbytes
            else:
                flat = piece.cast("B")
                first.append(flat[:room])
                rest.append(flat[room:])
                room = 0
        self.outgoing.append(b"".join(first))
        self.outgoing.extend(rest)
        self._sending = True

    def push(self) -> bool:
        """Send what the socket takes now. Returns whether nothing is left to send."""
        if self._sending:
            try:
                self.outgoing_bytes -= self._tls.send(self.outgoing)
            except OSError as error:
                # The peer may have sent the reason before it closed.
                self._fail(self.last_words() or self._lost(error))
            self._sending = bool(self.outgoing) or self._tls.unsent
        return not self._sending

    def last_words(self) -> PeerError | None:
        """Return why the peer has ended the session, if it has said so; nothing else may come then."""
        try:
            deadline = time.monotonic() + 0.1
            if self._accept is None:
                self.expect(_anything)
            while time.monotonic() < deadline:
                if self.pull():
                    return None
                select.select([self._socket], [], [], 0.05)
        except PeerError as error:
            return error
        except (OSError, ValueError):
            pass
        return None

    # Receiving.

    def expect(
        self, accept: Callable[[Header], Any], usual: tuple[Kind, frames.Shapes] | None = None
    ) -> None:
        """State which frame is accepted next.

        Parameters
        ----------
        accept : callable
            Takes the header of the next frame and returns memory for its data, a contiguous array
            of words or of bytes. Raises ShapeError to refuse the frame.
        usual : (Kind, shapes), optional
            The frame of arrays that nearly always comes, whose header need not be parsed then.
        """
        self._accept, self._expected = accept, (b"", None)
        if usual is not None:
            self._expected = frames.foresee(usual[0], self._next_received, 0, usual[1])

    def expect_arrays(
        self, kind: Kind, shapes: frames.Shapes, step: int = 0, out: Words | None = None
    ) -> None:
        """Expect a frame of arrays of known shapes; its data go to `out`, if given."""

        def accept(header: Header) -> Any:
            if header.kind != kind or not header.words:
                raise ShapeError(f"sent {_name(header)} where {kind.name} was to come{_SAME}")
            if header.shapes != shapes:
                raise ShapeError(
                    f"sent the shapes {header.shapes} where {shapes} were to come{_SAME}"
                )
            if header.step != step:
                raise ShapeError(
                    f"runs another program: not all steps before this one agree{_SAME}"
                )
            return np.empty(header.nbytes // 8, np.uint64) if out is None else out.reshape(-1)

        self._accept = accept
        self._expected = frames.foresee(kind, self._next_received, step, shapes)

    def expect_bytes(
        self, kinds: Sequence[Kind], largest: int, begins: Callable[[], None] | None = None
    ) -> None:
        """Expect a frame of bytes of one of `kinds`, with at most `largest` bytes.

        `begins` is called once the frame's header has arrived.
        """

        def accept(header: Header) -> Any:
            if header.kind not in kinds or header.words:
                wanted = " or ".join(kind.name for kind in kinds)
                raise ShapeError(f"sent {_name(header)} where {wanted} was to come")
            if header.nbytes > largest:
                raise ShapeError(f"sent {header.nbytes} bytes where at most {largest} may come")
            if begins is not None:
                begins()
            return np.empty(header.nbytes, np.uint8)

        self.expect(accept)

    def rest(self) -> None:
        """Stop expecting a frame."""
        self._accept = None

    @property
    def expecting(self) -> bool:
        """Whether a frame is expected and has not arrived in full."""
        return self._accept is not None

    @property
    def arrived(self) -> bool:
        """Whether a frame has arrived that was not taken yet."""
        return self._incoming is not None

    @property
    def holds(self) -> bool:
        """Whether there is something to send, or to read that the socket does not tell of."""
        return self._sending or self._end > self._start or self._tls.holds

    def take(self) -> Incoming:
        """Return the frame that has arrived."""
        incoming, self._incoming = self._incoming, None
        assert incoming is not None
        return incoming

    def pull(self, most: int = sys.maxsize) -> bool:
        """Receive the bytes of the expected frame that are there, up to about `most`.

        Returns whether the frame has arrived in full.
        """
        while self._accept is not None:
            if self._header is None:
                if not self._read_header() and not self._read_more():
                    return False
                continue
            if held := min(self._end - self._start, len(self._target)):
                self._target[:held] = self._view[self._start : self._start + held]
                self._start += held
                self._target = self._target[held:]
            if wanted := min(most, len(self._target)):
                # Straight into the array.
                count = self._receive(self._target[:wanted], whole=True)
                most -= count
                self._target = self._target[count:]
                if count < wanted:
                    return False
            if len(self._target):
                return False
            self._finish()
        return True

    def _read_more(self) -> bool:
        """Receive more bytes into the buffer, behind the ones not used yet; False if none came."""
        held = self._view[self._start : self._end]
        if self._start:
            self._view[: len(held)] = bytes(held)
            self._start, self._end = 0, len(held)
        count = self._receive(self._view[self._end :])
        self._end += count
        return count > 0

    def _read_header(self) -> bool:
        """Parse the header and allocate memory for the data; False if bytes of it are missing."""
        if self._end - self._start < frames.HEADER_BYTES:
            return False
        try:
            head, header = self._expected
            if header is not None and self._buffer.startswith(head, self._start, self._end):
                need = len(head)
            else:
                held = self._view[self._start : self._end]
                need = frames.HEADER_BYTES + frames.shape_bytes(held)
                if len(held) < need:
                    return False
                header = frames.parse(held[:need])
            if header.sequence != self._next_received & 0xFFFFFFFF:
                raise ShapeError(
                    f"sent frame {header.sequence} where {self._next_received} was to come"
                )
            assert self._accept is not None
            if header.kind in _LAST_WORDS:
                if header.words or header.nbytes > _LARGEST_ABORT:
                    raise ShapeError(f"sent {_name(header)} of {header.nbytes} bytes")
                self._data = np.empty(header.nbytes, np.uint8)
            else:
                self._data = self._accept(header)
            assert self._data.nbytes == header.nbytes
        except ShapeError as error:
            self._fail(FrameError(f"{self.peer} {_said(str(error))}"))
        self._start += need
        self._next_received += 1
        self._header = header
        self._target = self._data.data.cast("B") if self._data.size else memoryview(b"")
        return True

    def _finish(self) -> None:
        header, data = self._header, self._data
        assert header is not None
        self._header, self._data, self._target = None, None, memoryview(b"")
        if header.kind in _LAST_WORDS:
            if header.kind == Kind.ABORT:
                said = printable(data.tobytes())
                self._fail(
                    AbortError() if said == ABORTED else PeerError(f"{self.peer} stopped: {said}")
                )
            self.ended = True
            self._fail(PeerClosedError(f"{self.peer} ended the session"))
        self._accept = None
        self._incoming = Incoming(header, data)

    def _receive(self, target: memoryview, whole: bool = False) -> int:
        try:
            return self._tls.receive(target, whole)
        except OSError as error:
            self._fail(self._lost(error))

    def _lost(self, error: OSError) -> PeerError:
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            reason = error.reason or "unknown reason"
            for alert, why in _REFUSALS.items():
                if reason.endswith(alert):
                    return CertificateError(
                        f"{self.peer} refused the certificate shown to it: {why}"
                    )
            if "ALERT" in reason:
                return PeerClosedError(f"{self.peer} ended TLS ({reason.lower()})")
            return FrameError(f"{self.peer} broke the rules of TLS ({reason.lower()})")
        return PeerClosedError(f"{self.peer} closed the connection")

    def _fail(self, error: PeerError) -> NoReturn:
        self._broken = error
        raise error from None

    # Waiting and closing.

    def events(self) -> int:
        """Return the events of select.poll to wait for."""
        return (select.POLLIN if self.expecting else 0) | (select.POLLOUT if self._sending else 0)

    def advance(self, most: int = sys.maxsize, readable: bool | None = None) -> bool:
        """Do `push` and `pull`. Returns whether all is sent and the expected frame has arrived.

        `readable`: whether the socket has something to read, if the caller knows it.
        """
        sent = self.push()
        self._tls.readable = readable
        try:
            return self.pull(most) and sent
        finally:
            self._tls.readable = None

    def notify(self, kind: Kind, text: str = "") -> None:
        """Send a last message; gives up after a second, and raises nothing."""
        if not self.line_up_last(kind, text):
            return
        try:
            exchange([self], _NOTICE_SECONDS)
            if self._broken is not None:
                deadline = time.monotonic() + _NOTICE_SECONDS
                while not self.discard() and (left := deadline - time.monotonic()) > 0:
                    select.select([self._socket], [], [], left)
        except (PeerError, OSError, ValueError):
            pass

    def line_up_last(self, kind: Kind, text: str = "") -> bool:
        """Queue a last message. Returns whether the connection can still carry it."""
        # After a FrameError the peer is there, and is told; after other errors it is gone.
        refused = isinstance(self._broken, FrameError)
        if self.fileno() < 0 or not (self._broken is None or refused):
            return False
        self._accept = None
        self.post_bytes(kind, printable(text.encode()).encode()[:_LARGEST_ABORT])
        return True

    def discard(self) -> bool:
        """Read and drop what the peer still sends, as far as possible without waiting.

        A socket that is closed with unread bytes resets the connection, and bytes sent before may be
        lost. Returns whether the peer has closed its side.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            return self._tls.discard()
        except (OSError, ValueError):
            return True

    def abandon(self) -> None:
        """Shut the socket down, so that a thread that waits on it gets an error; for any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket. Frames that were sent before still arrive."""
        self.outgoing.clear()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            pass
        self._socket.close()


def printable(data: bytes) -> str:
    """Return bytes of another process as text fit for a log: one line, no control characters."""
    text = data.decode("utf-8", "replace")[:1000]
    return "".join(c if c.isprintable() else "?" for c in text)


def _said(text: str) -> str:
    return text if text.startswith(("sent", "runs")) else f"sent a frame that is malformed: {text}"


def _name(header: Header) -> str:
    return f"{header.kind.name} ({'words' if header.words else 'bytes'})"


def _anything(header: Header) -> Any:
    if header.nbytes > 1 << 20:
        raise ShapeError("sent more than can be looked at")
    return np.empty(header.nbytes, np.uint8)
