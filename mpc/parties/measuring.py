"""The handshake's last step, where parties.toml says ``measure = true``: one network for all parties.

1. The first party sends each other one, in turn, short messages one after another, then longer and longer
   ones; each is answered with an empty one. The round trip is the shortest time to an answer. The longer
   ones end with one that takes a tenth of a second more, and their best speed is the bandwidth.
2. Of several parties the longest round trip and the lowest bandwidth count. Both are rounded to 1, 2 or 5
   times a power of ten, so that sessions over the same network mostly choose alike.
3. The first party tells all what it has found, as whole numbers: nanoseconds and kbit/s. All take these.
No party's own clock counts but the first one's. A party that answers late makes the network look slow:
results are the same, and what a form takes in bytes stays within its limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from math import log10

from mpc.core import wire
from mpc.core.errors import ArgumentError, FrameError, ShapeError
from mpc.core.frames import Kind
from mpc.core.network import Network
from mpc.transport.connection import Connection

__all__ = ["follow", "measure", "rounded"]

_SHORT = 4
# Each starts where the window of TCP has opened for the one before.
_LONG = tuple(1 << bits for bits in (16, 18, 20, 22))
_ENOUGH_SECONDS = 0.1
_LARGEST = _LONG[-1]
# What numbers are told in, and between which a measured one is taken to lie.
_NANOSECONDS, _KILOBITS = 1e9, 1e3
_ROUND_TRIPS, _MEGABITS = (1e-6, 100.0), (0.01, 1e6)

Exchange = Callable[[Sequence[Connection]], None]
"""Sends what is queued on connections and receives what is expected, within a time limit."""


def rounded(value: float, least: float, most: float) -> float:
    """Return the number of 1, 2 and 5 times powers of ten that is nearest, by ratio, within limits."""
    value = min(max(value, least), most)
    power = int(log10(value)) - 1
    found = (m * 10.0**n for n in range(power, power + 3) for m in (1, 2, 5))
    return float(f"{min(found, key=lambda near: abs(log10(near / value))):.1g}")


def measure(connections: Iterable[Connection], exchange: Exchange) -> Network:
    """Steps 1 to 3 at the first party, over its connections to the others: return what they are told."""
    connections = list(connections)
    found = [_times(connection, exchange) for connection in connections]
    round_trip = rounded(max(slow for slow, _ in found), *_ROUND_TRIPS)
    megabits = rounded(min(speed for _, speed in found) / 1e6, *_MEGABITS)
    told = wire.encode((round(round_trip * _NANOSECONDS), round(megabits * _KILOBITS)))
    for connection in connections:
        connection.post_bytes(Kind.READY, told)
    exchange(connections)
    return _decoded(told, "this party")


def _times(connection: Connection, exchange: Exchange) -> tuple[float, float]:
    """Return the round trip to a party in seconds, and bits a second."""
    round_trip = min(_probe(connection, exchange, 0) for _ in range(_SHORT))
    best = 0.0
    for size in _LONG:
        more = max(_probe(connection, exchange, size) - round_trip, 1e-9)
        best = max(best, 8 * size / more)
        if more > _ENOUGH_SECONDS:
            break
    return round_trip, best


def _probe(connection: Connection, exchange: Exchange, size: int) -> float:
    data, begin = bytes(size), time.perf_counter()
    connection.post_bytes(Kind.PROBE, data)
    connection.expect_bytes([Kind.PROBE], 0)
    exchange([connection])
    connection.take()
    return time.perf_counter() - begin


def follow(connection: Connection, exchange: Exchange) -> Network:
    """Answer the first party, and return what it tells.

    Raises
    ------
    FrameError
        If what it tells is no network.
    """
    for _ in range(_SHORT + len(_LONG) + 1):
        connection.expect_bytes([Kind.PROBE, Kind.READY], _LARGEST)
        exchange([connection])
        incoming = connection.take()
        if incoming.header.kind == Kind.READY:
            return _decoded(incoming.data.tobytes(), connection.peer)
        connection.post_bytes(Kind.PROBE, b"")
    raise FrameError(f"{connection.peer} measures the network without an end")


def _decoded(told: bytes, peer: str) -> Network:
    try:
        nanoseconds, kilobits = wire.decode(told)
        if type(nanoseconds) is not int or type(kilobits) is not int:
            raise ShapeError("numbers must be whole")
    except (ShapeError, TypeError, ValueError):
        raise FrameError(f"{peer} told a network that is malformed") from None
    try:
        return Network(nanoseconds / _NANOSECONDS, kilobits / _KILOBITS)
    except ArgumentError as error:
        raise FrameError(f"{peer} told a network that there cannot be: {error}") from None
