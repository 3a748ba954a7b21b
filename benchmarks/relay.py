"""A slow network on this machine: a relay that adds delay and limits bandwidth, on the loopback only.

Every process has one line out and one line in, each of the given bandwidth; a byte passes the
sender's line, then the receiver's, and arrives half a round trip later. Connections that share a
line take turns, in pieces. A piece starts at the time at which the kernel received it, where the kernel
reports that (Linux), not when the relay read it: a late relay delays a piece only by what exceeds half a
round trip. The relay terminates each TCP connection and opens another, so slow start and losses of TCP
are those of the loopback: there are none.

    python benchmarks/relay.py 9101:9001 9102:9002 --round-trip 20 --bandwidth 100
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import heapq
import itertools
import multiprocessing
import select
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

HOST = "127.0.0.1"
# Connections that share a line take turns in pieces of so many bytes; two of a connection may wait
# for the line.
PIECE_BYTES = 1 << 15
# Sleeps end late, so they are asked to end this many seconds early, and polling without sleep bridges the
# rest; a long sleep is followed by a short one.
_EARLY = 1e-5
_LONG, _LONG_EARLY = 1e-3, 3e-4
# Linux: the option for timestamps of received bytes, and that for exact sleeps.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_NOTE_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_SET_TIMER_SLACK = 29
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass
class Line:
    """One direction of a process's access to the network.

    Attributes
    ----------
    seconds_per_byte : float
    free : float
        When the last byte that was put on it has passed.
    """

    seconds_per_byte: float
    free: float = 0.0

    def passes(self, count: int, start: float) -> float:
        """Put `count` bytes on the line, from `start` on; return when the last has passed."""
        self.free = max(start, self.free) + count * self.seconds_per_byte
        return self.free


def arrives(out: Line, into: Line, count: int, now: float) -> float:
    """Return when `count` bytes have passed both lines, pipelined."""
    left = out.passes(count, now)
    return max(left, into.passes(count, left - count * out.seconds_per_byte))


@dataclass(frozen=True)
class Route:
    """A listening port of the relay, and the port that its connections are forwarded to.

    Attributes
    ----------
    sock : socket
        The listening socket.
    port : int
        The port behind it.
    caller, called : str
        Names of the process that connects and of the process behind the port; each has its lines.
    """

    sock: socket.socket
    port: int
    caller: str
    called: str


def receive(sock: socket.socket) -> tuple[bytes, float]:
    """Return the bytes that a socket has, at most one piece, and when the kernel received them."""
    data, notes, _, _ = sock.recvmsg(PIECE_BYTES, _NOTE_BYTES)
    now = time.monotonic()
    for _, kind, value in notes:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            now -= max(0, time.time_ns() - seconds * 10**9 - nanoseconds) * 1e-9
    return data, now


class Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, out: Line, into: Line) -> None:
        self.source, self.target, self.out, self.into = source, target, out, into
        # The flow of the other direction, and the events that the source is polled for.
        self.twin, self.events = self, 0
        # When each piece has passed the lines, and its bytes; no bytes mark the end of the stream.
        self.pieces: deque[tuple[float, bytes | memoryview]] = deque()
        self.open = True
        self.blocked = False
        # A piece is put on the line no earlier than this time.
        self.since = 0.0
        # When all pieces but the last have passed the lines, and when the last has: more stays
        # with the sender until there is room.
        self.room = self._last = 0.0

    @property
    def finished(self) -> bool:
        """Whether all has been delivered, the end too."""
        return not self.open and not self.pieces

    def reads(self, now: float) -> bool:
        """Return whether another piece may be read."""
        return self.open and not self.blocked and self.room <= now

    def read(self) -> float | None:
        """Put a piece on the lines; return when it has passed them."""
        try:
            data, came = receive(self.source)
        except BlockingIOError:
            return None
        except OSError:
            data, came = b"", time.monotonic()
        self.open = bool(data)
        passed = arrives(self.out, self.into, len(data), max(came, self.since))
        self.pieces.append((passed, data))
        self.room, self._last = self._last, passed
        return passed

    def write(self, now: float, delay: float) -> None:
        """Deliver the pieces that are due."""
        while self.pieces and self.pieces[0][0] + delay <= now:
            passed, data = self.pieces.popleft()
            try:
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    break
                count = self.target.send(data)
            except BlockingIOError:
                count = 0
            except OSError:
                self.pieces.clear()
                self.open = False
                break
            if count < len(data):
                self.pieces.appendleft((passed, memoryview(data)[count:]))
                self.blocked = True
                return
        if self.blocked:
            # While the receiver read nothing, the line was idle.
            self.blocked, self.since = False, now


class Timetable:
    """The times at which flows are due."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Flow]] = []
        self._numbers = itertools.count()

    def add(self, when: float, flow: Flow) -> None:
        heapq.heappush(self._entries, (when, next(self._numbers), flow))

    def due(self, now: float) -> Flow | None:
        """Remove a flow that is due, and return it; None if none is."""
        if self._entries and self._entries[0][0] <= now:
            return heapq.heappop(self._entries)[2]
        return None

    def rest(self) -> float | None:
        """Return how long to sleep before looking again, None if there is nothing to look at."""
        if not self._entries:
            return None
        left = self._entries[0][0] - time.monotonic()
        return max(0.0, left - (_LONG_EARLY if left > _LONG else _EARLY))


class Relay:
    """Carries bytes over routes until it is stopped.

    Parameters
    ----------
    routes : sequence of Route
    round_trip : float
        Seconds.
    bandwidth : float
        Bits a second of each line.
    """

    def __init__(self, routes: Sequence[Route], round_trip: float, bandwidth: float) -> None:
        if not round_trip >= 0 or not bandwidth > 0:
            raise ValueError(
                "round_trip must not be negative and bandwidth must be positive,"
                f" got {round_trip} s and {bandwidth} bit/s"
            )
        self._delay = round_trip / 2
        names = {name for route in routes for name in (route.caller, route.called)}
        self._lines = {(name, way): Line(8 / bandwidth) for name in names for way in ("out", "in")}
        self._times = Timetable()
        self._waits = selectors.DefaultSelector()
        for route in routes:
            self._waits.register(route.sock, _READ, route)

    def run(self, stop: Pipe | None = None) -> None:
        """Carry bytes until the other end of `stop` is closed."""
        with contextlib.suppress(OSError, AttributeError):
            # Linux rounds sleeps up by 50 microseconds unless asked not to.
            ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1)
        if stop is not None:
            self._waits.register(stop, _READ, stop)
        while True:
            now = time.monotonic()
            while (flow := self._times.due(now)) is not None:
                self._look_at(flow, now)
            # Unlike the selector's own, this sleep counts in microseconds.
            if not select.select([self._waits], [], [], self._times.rest())[0]:
                continue
            for key, events in self._waits.select(0):
                one = key.data
                if one is stop:
                    return
                if isinstance(one, Route):
                    self._connect(one)
                    continue
                if events & one.events & _WRITE:
                    self._look_at(one.twin, time.monotonic())
                if events & one.events & _READ:
                    self._read(one)

    def _read(self, flow: Flow) -> None:
        passed = flow.read()
        if passed is None:
            return
        self._times.add(passed + self._delay, flow)
        now = time.monotonic()
        if not flow.reads(now):
            self._watch(flow, now)
            self._times.add(flow.room, flow)

    def _look_at(self, flow: Flow, now: float) -> None:
        flow.write(now, self._delay)
        self._watch(flow, now)
        self._watch(flow.twin, now)
        if flow.finished and flow.twin.finished:
            flow.source.close()
            flow.target.close()

    def _watch(self, flow: Flow, now: float) -> None:
        """Wait for what the source is needed for, to read or for the other direction to write."""
        events = (_READ if flow.reads(now) else 0) | (_WRITE if flow.twin.blocked else 0)
        if events == flow.events:
            return
        if not flow.events:
            self._waits.register(flow.source, events, flow)
        elif events:
            self._waits.modify(flow.source, events, flow)
        else:
            self._waits.unregister(flow.source)
        flow.events = events

    def _connect(self, route: Route) -> None:
        near, _ = route.sock.accept()
        try:
            far = socket.create_connection((HOST, route.port))
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.setblocking(False)
        lines = self._lines
        caller, called = route.caller, route.called
        there = Flow(near, far, lines[caller, "out"], lines[called, "in"])
        back = Flow(far, near, lines[called, "out"], lines[caller, "in"])
        there.twin, back.twin = back, there
        for flow in (there, back):
            self._watch(flow, time.monotonic())


def _serve(routes: Sequence[Route], round_trip: float, bandwidth: float, stop: Pipe) -> None:
    Relay(routes, round_trip, bandwidth).run(stop)


@contextlib.contextmanager
def relayed(
    routes: Mapping[tuple[str, str], int], round_trip: float, bandwidth: float
) -> Iterator[dict[tuple[str, str], int]]:
    """Run a relay in a process of its own.

    Parameters
    ----------
    routes : dict
        The port that (caller, called) is about.
    round_trip : float
        Seconds.
    bandwidth : float
        Bits a second.

    Yields
    ------
    dict
        The port that the caller uses instead.
    """
    made = [Route(socket.create_server((HOST, 0)), port, *names) for names, port in routes.items()]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(made, round_trip, bandwidth, theirs), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield {(r.caller, r.called): r.sock.getsockname()[1] for r in made}
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
        for route in made:
            route.sock.close()


def measured(round_trip: float, bandwidth: float, times: int = 21) -> tuple[float, float]:
    """Return the round trip and the bits a second that a pair of processes gets.

    The median round trip of a byte, which holds what the relay itself takes; and the rate at which
    a second of the line's bytes, at most 4 MB, comes through, behind the quickest of the round trips.
    """
    size = int(min(bandwidth / 8, 4e6))
    with socket.create_server((HOST, 0)) as server:

        def answer() -> None:
            far, _ = server.accept()
            with far:
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(times):
                    far.sendall(far.recv(1))
                far.recv(1)
                far.sendall(bytes(size))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        with (
            relayed({("one", "other"): port}, round_trip, bandwidth) as ports,
            socket.create_connection((HOST, ports["one", "other"])) as near,
        ):
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = []
            for _ in range(times):
                begin = time.perf_counter()
                near.sendall(b"1")
                near.recv(1)
                taken.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            near.sendall(b"1")
            left = size
            while left:
                left -= len(near.recv(1 << 20))
            whole = time.perf_counter() - begin
        thread.join()
    median = sorted(taken)[times // 2]
    return median, 8 * size / (whole - min(taken))


def main() -> int:
    """Relay until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("routes", nargs="+", metavar="PORT:PORT", help="listen at, connect to")
    parser.add_argument("--round-trip", type=float, default=20, help="milliseconds (default: 20)")
    parser.add_argument("--bandwidth", type=float, default=100, help="Mbit/s (default: 100)")
    options = parser.parse_args()
    try:
        routes = []
        for number, text in enumerate(options.routes):
            near, far = map(int, text.split(":"))
            sock = socket.create_server((HOST, near))
            routes.append(Route(sock, far, f"callers of {number}", f"behind {number}"))
        Relay(routes, options.round_trip / 1e3, options.bandwidth * 1e6).run()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
