"""One connection to another process: frames out, frames in, and both at the same time."""

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
from mpc.core.errors import CertificateError, FrameError, PeerClosedError, PeerError, ShapeError
from mpc.core.frames import Header, Kind
from mpc.transport.tls_session import Tls
from mpc.transport.waiting import Beside, exchange, wait

__all__ = ["Beside", "Connection", "Incoming", "exchange", "printable", "wait"]

Words = NDArray[np.uint64]

_LARGEST_ABORT = 2000
# What TLS tells of a certificate that is not accepted, and what is to be done.
_REFUSALS = {
    "ALERT_UNKNOWN_CA": "it is not in that one's parties.toml, which sotto join and SIGHUP there"
    " put right",
    "ALERT_CERTIFICATE_EXPIRED": "by that one's clock it has expired; sotto key --successor makes"
    " the next",
    # OpenSSL's word for one that is not valid yet.
    "ALERT_BAD_CERTIFICATE": "it is damaged, or not valid yet by that one's clock",
    "ALERT_CERTIFICATE_UNKNOWN": "it cannot be used",
    "ALERT_CERTIFICATE_REQUIRED": "there was none",
}
_LAST_WORDS = frozenset((Kind.ABORT, Kind.BYE))
# How long a notice to somebody who may be gone can take.
_NOTICE_SECONDS = 1.0


def little_endian(words: Words) -> Words:
    """Return the words as they are on the wire, or back."""
    return words if sys.byteorder == "little" else words.byteswap()


class Incoming:
    """A frame that has arrived: its header, and its arrays or its bytes."""

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

    Nothing here blocks; :func:`exchange` and :func:`wait` do, with a timeout. One thread at a time.

    Attributes
    ----------
    peer : str
        Who is there, as its certificate says.
    ended : bool
        Whether the peer has said goodbye.
    """

    def __init__(self, tls: Tls, peer: str) -> None:
        self.peer = peer
        self._tls, self._socket = tls, tls.sock
        tls.start()
        self._outgoing: deque[bytes | memoryview] = deque()
        self.outgoing_bytes = 0
        self._sending = False
        self._next_sent = self._next_received = 0
        self._buffer = bytearray(2 * frames.RECORD_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._accept: Callable[[Header], Any] | None = None
        # The header to come, where it is known: its bytes, and what they say.
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
        """What went out through the socket after TLS's own handshake, headers and TLS included."""
        return self._tls.sent_bytes

    @property
    def received_bytes(self) -> int:
        """What came in, likewise."""
        return self._tls.received_bytes

    def moved(self) -> int:
        """Return how many bytes have gone either way."""
        return self.sent_bytes + self.received_bytes

    # Sending.

    def post(self, kind: Kind, arrays: Sequence[Words], step: int = 0) -> None:
        """Line up a frame of arrays. They must not change before it is sent."""
        whole = [little_endian(np.asarray(array, order="C")) for array in arrays]
        head = frames.pack(kind, self._next_sent, step, True, [array.shape for array in whole])
        self._line_up(head, [array.data for array in whole if array.size])

    def post_bytes(self, kind: Kind, data: bytes, step: int = 0) -> None:
        """Line up a frame of bytes."""
        head = frames.pack(kind, self._next_sent, step, False, [(len(data),)])
        self._line_up(head, [memoryview(data)] if data else [])

    def _line_up(self, head: bytes, pieces: list[memoryview]) -> None:
        self._next_sent += 1
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
        self.outgoing_bytes += len(head)
        self._outgoing.append(b"".join(first))
        self._outgoing.extend(rest)
        self._sending = True

    def push(self) -> bool:
        """Send what can be sent now. Returns whether nothing is left."""
        if self._sending:
            try:
                self.outgoing_bytes -= self._tls.send(self._outgoing)
            except OSError as error:
                # It may have said why before it went.
                self._fail(self._last_words() or self._lost(error))
            self._sending = bool(self._outgoing) or self._tls.unsent
        return not self._sending

    def _last_words(self) -> PeerError | None:
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

    def expect(self, accept: Callable[[Header], Any]) -> None:
        """State what the next frame may be.

        Parameters
        ----------
        accept : callable
            Takes the header of the next frame and returns memory for it, a contiguous array of
            words or of bytes. Raises ShapeError to refuse it.
        """
        self._accept, self._expected = accept, (b"", None)

    def expect_arrays(
        self, kind: Kind, shapes: frames.Shapes, step: int = 0, out: Words | None = None
    ) -> None:
        """Expect arrays of known shapes, in `out` if it is given."""

        def accept(header: Header) -> Any:
            if header.kind != kind or not header.words:
                raise ShapeError(f"sent {_name(header)} where {kind.name} was to come")
            if header.shapes != shapes:
                raise ShapeError(f"sent the shapes {header.shapes} where {shapes} were to come")
            if header.step != step:
                raise ShapeError("runs another program: not all steps before this one agree")
            return np.empty(header.nbytes // 8, np.uint64) if out is None else out.reshape(-1)

        self._accept = accept
        self._expected = frames.foresee(kind, self._next_received, step, shapes)

    def expect_bytes(self, kinds: Sequence[Kind], largest: int) -> None:
        """Expect bytes, no more than `largest`."""

        def accept(header: Header) -> Any:
            if header.kind not in kinds or header.words:
                wanted = " or ".join(kind.name for kind in kinds)
                raise ShapeError(f"sent {_name(header)} where {wanted} was to come")
            if header.nbytes > largest:
                raise ShapeError(f"sent {header.nbytes} bytes where at most {largest} may come")
            return np.empty(header.nbytes, np.uint8)

        self.expect(accept)

    def rest(self) -> None:
        """Expect nothing for now."""
        self._accept = None

    @property
    def expecting(self) -> bool:
        """Whether a frame is expected that is not whole yet."""
        return self._accept is not None

    @property
    def arrived(self) -> bool:
        """Whether a frame is there that nobody has taken."""
        return self._incoming is not None

    def take(self) -> Incoming:
        """Return the frame that has arrived."""
        incoming, self._incoming = self._incoming, None
        assert incoming is not None
        return incoming

    def pull(self, most: int = sys.maxsize) -> bool:
        """Receive what has arrived of the expected frame, up to about `most` bytes.

        Returns whether it is whole.
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
        """Receive the next bytes, after those of a header that are there; False if none came."""
        held = self._view[self._start : self._end]
        if self._start:
            self._view[: len(held)] = bytes(held)
            self._start, self._end = 0, len(held)
        count = self._receive(self._view[self._end :])
        self._end += count
        return count > 0

    def _read_header(self) -> bool:
        """Read the header and find memory for what follows; False if more bytes must come."""
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
                self._fail(PeerError(f"{self.peer} stopped: {printable(data.tobytes())}"))
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
        """Return what to wait for, as select.poll has it."""
        return (select.POLLIN if self.expecting else 0) | (select.POLLOUT if self._sending else 0)

    def advance(self, most: int = sys.maxsize) -> bool:
        """Send what can be sent now, receive up to about `most` bytes. Returns whether all is done."""
        sent = self.push()
        return self.pull(most) and sent

    def notify(self, kind: Kind, text: str = "") -> None:
        """Say a last word, without waiting long and without minding whether it arrives."""
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
        """Line up a last word. Returns whether there is anybody to hear it."""
        # One that has broken the rules is told so; one that is gone is not.
        refused = isinstance(self._broken, FrameError)
        if self.fileno() < 0 or not (self._broken is None or refused):
            return False
        self._accept = None
        self.post_bytes(kind, printable(text.encode()).encode()[:_LARGEST_ABORT])
        return True

    def discard(self) -> bool:
        """Read what is not wanted: a socket closed before takes back what it has sent.

        Returns whether the peer has nothing more to send.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            return self._tls.discard()
        except (OSError, ValueError):
            return True

    def abandon(self) -> None:
        """Let whoever waits here find it closed; any thread may call this."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket. Frames that are sent already still arrive."""
        self._outgoing.clear()
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
