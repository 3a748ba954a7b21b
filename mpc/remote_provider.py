"""The last party's end of its connection to the crypto provider."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation
from mpc.errors import SessionError
from mpc.transport import wire
from mpc.transport.connection import Connection, exchange
from mpc.transport.frames import Kind
from mpc.transport.remote import located

__all__ = ["RemoteProvider"]

Words = NDArray[np.uint64]

# Requests go out in frames of so many.
_PER_FRAME = 128


class RemoteProvider:
    """Asks the provider for corrections, ahead of time where they are known.

    The provider answers in the order in which it was asked. What was asked for ahead and is not
    needed after all is received and dropped: an id never serves twice.

    Parameters
    ----------
    connection : Connection
    timeout : float
        Seconds without a byte after which the provider counts as lost.
    where : callable
        Says in which round and step the session is, for errors.
    """

    def __init__(self, connection: Connection, timeout: float, where: Callable[[], str]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._where = where
        self._asked: OrderedDict[int, Correlation] = OrderedDict()
        self._last = 0

    def announce(self, correlations: Iterable[tuple[int, Correlation]]) -> None:
        """Ask for corrections without waiting for them; ids must be new and ascending."""
        requests = []
        for id, correlation in correlations:
            if not correlation.corrected_words:
                continue
            if id <= self._last:
                raise SessionError(
                    "the program goes another way than the one that was prepared; it must ask for"
                    " the same randomness in the same order"
                )
            self._last = id
            self._asked[id] = correlation
            requests.append((id, _encode(correlation)))
        with located(self._where):
            for first in range(0, len(requests), _PER_FRAME):
                some = tuple(requests[first : first + _PER_FRAME])
                self._connection.post_bytes(Kind.REQUEST, wire.encode(some))
            self._connection.push()

    def correct(self, id: int, correlation: Correlation, out: Words) -> None:
        """Receive the last party's share of the corrected parts into `out`."""
        if id not in self._asked:
            self.announce([(id, correlation)])
        elif not _same(self._asked[id], correlation):
            raise SessionError(
                "the program asks for other randomness than the one that was prepared"
            )
        while True:
            first, asked = self._asked.popitem(last=False)
            words = asked.corrected_words
            target = out if first == id else np.empty(words, np.uint64)
            with located(self._where):
                self._connection.expect_arrays(
                    Kind.CORRECTION, ((words,),), first & 0xFFFFFFFF, target
                )
                exchange([self._connection], self._timeout)
            self._connection.take()
            if sys.byteorder == "big":
                target.byteswap(inplace=True)
            if first == id:
                return


@lru_cache(maxsize=256)
def _encode_cached(correlation: Correlation) -> bytes:
    return wire.encode(correlation)


def _encode(correlation: Correlation) -> bytes:
    try:
        return _encode_cached(correlation)
    except TypeError:  # a mask seen through an index array
        return wire.encode(correlation)


def _same(one: Correlation, other: Correlation) -> bool:
    try:
        return one == other
    except ValueError:  # likewise
        return wire.encode(one) == wire.encode(other)
