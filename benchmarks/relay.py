"""A slow network on this machine: a relay that adds delay and limits bandwidth, on the loopback only.

Every process has one line out and one line in, each of the given bandwidth; a byte passes the
sender's line, then the receiver's, and arrives half a round trip later. Connections that share a
line take turns, in pieces. The relay ends each TCP connection and opens another, so TCP's own slow
start and losses are those of the loopback: there are none.

    python benchmarks/relay.py 9101:9001 9102:9002 --round-trip 20 --bandwidth 100
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

HOST = "127.0.0.1"
# Connections that share a line take turns in pieces of so many bytes.
PIECE_BYTES = 1 << 15
# What a connection may have before its line; more stays with the sender.
_QUEUE_BYTES = 1 << 16
_SET_TIMER_SLACK = 29


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
    """Return when `count` bytes have passed both lines, the second while they pass the first."""
    left = out.passes(count, now)
    return max(left, into.passes(count, left - count * out.seconds_per_byte))


@dataclass(frozen=True)
class Route:
    """A port that stands for another.

    Attributes
    ----------
    sock : socket
        Listens.
    port : int
        What stands behind it.
    caller, called : str
        Who connects, and whom it reaches; every name has its lines.
    """

    sock: socket.socket
    port: int
    caller: str
    called: str


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, out: Line, into: Line) -> None:
        self.source, self.target, self.out, self.into = source, target, out, into
        # When each piece has passed the lines, and its bytes; nothing stands for the end.
        self.pieces: deque[tuple[float, memoryview]] = deque()
        self.open = True
        self.blocked = False

    def before_the_line(self, now: float) -> int:
        count = 0
        for passed, piece in reversed(self.pieces):
            if passed <= now:
                break
            count += len(piece)
        return count

    def read(self, now: float) -> None:
        try:
            data = self.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.open = bool(data)
        self.pieces.append((arrives(self.out, self.into, len(data), now), memoryview(data)))

    def write(self, now: float, delay: float) -> None:
        """Deliver what is due."""
        self.blocked = False
        while self.pieces and self.pieces[0][0] + delay <= now:
            passed, data = self.pieces.popleft()
            try:
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    continue
                count = self.target.send(data)
            except BlockingIOError:
                count = 0
            except OSError:
                self.pieces.clear()
                self.open = False
                return
            if count < len(data):
                self.pieces.appendleft((passed, data[count:]))
                self.blocked = True
                return


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
        self._routes = {route.sock: route for route in routes}
        self._delay = round_trip / 2
        names = {name for route in routes for name in (route.caller, route.called)}
        self._lines = {(name, way): Line(8 / bandwidth) for name in names for way in ("out", "in")}
        self._flows: list[_Flow] = []

    def run(self, stop: Pipe | None = None) -> None:
        """Carry bytes until the other end of `stop` is closed."""
        while True:
            now = time.monotonic()
            due: list[float] = []
            readers: list[socket.socket | Pipe] = [*self._routes, *([stop] if stop else [])]
            writers = []
            sources = {}
            for flow in self._flows:
                flow.write(now, self._delay)
                if flow.blocked:
                    writers.append(flow.target)
                elif flow.pieces:
                    due.append(flow.pieces[0][0] + self._delay)
                if flow.open and flow.before_the_line(now) < _QUEUE_BYTES:
                    sources[flow.source] = flow
                elif flow.open:
                    due.append(next(passed for passed, _ in flow.pieces if passed > now))
            self._drop_finished()
            left = max(0.0, min(due) - time.monotonic()) if due else None
            ready, _, _ = select.select([*readers, *sources], writers, [], left)
            now = time.monotonic()
            for one in ready:
                if one is stop:
                    return
                if one in self._routes:
                    self._connect(self._routes[one])
                else:
                    sources[one].read(now)

    def _connect(self, route: Route) -> None:
        near, _ = route.sock.accept()
        try:
            far = socket.create_connection((HOST, route.port))
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        lines = self._lines
        caller, called = route.caller, route.called
        self._flows.append(_Flow(near, far, lines[caller, "out"], lines[called, "in"]))
        self._flows.append(_Flow(far, near, lines[called, "out"], lines[caller, "in"]))

    def _drop_finished(self) -> None:
        done = [flow for flow in self._flows if not flow.open and not flow.pieces]
        for flow in done:
            twin = next((f for f in self._flows if f.source is flow.target), None)
            if twin is None or twin in done:
                flow.source.close()
                flow.target.close()
                self._flows.remove(flow)


def _serve(routes: Sequence[Route], round_trip: float, bandwidth: float, stop: Pipe) -> None:
    with contextlib.suppress(OSError, AttributeError):
        # Linux rounds sleeps up by 50 microseconds unless asked not to.
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1)
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
    a second of the line's bytes, at most 4 MB, comes through.
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
    return median, 8 * size / (whole - median)


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
