"""The last party's end of its connection to the crypto provider."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque
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

# What may wait for the session, and from how many bytes on receiving ahead pays.
_AHEAD_BYTES = 1 << 26
_WORTH_A_THREAD = 1 << 20

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
        self._due: deque[tuple[int, Correlation]] = deque()
        self._ready: deque[tuple[int, Words]] = deque()
        self._ready_bytes = 0
        self._changed = threading.Condition()
        self._receiving: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._closed = False

    def announce(self, correlations: Iterable[tuple[int, Correlation]]) -> None:
        """Ask for corrections without waiting for them; ids must be new and ascending."""
        while self._receiving is not None:
            # What is left of an earlier plan was not needed.
            id, _ = self._take()
            self._asked.pop(id, None)
        requests = []
        words = 0
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
            self._due.append((id, correlation))
            requests.append((id, _encode(correlation)))
            words += correlation.corrected_words
        with located(self._where):
            for first in range(0, len(requests), _PER_FRAME):
                some = tuple(requests[first : first + _PER_FRAME])
                self._connection.post_bytes(Kind.REQUEST, wire.encode(some))
            self._connection.push()
        if len(requests) > 1 and 8 * words > _WORTH_A_THREAD:
            self._receiving = threading.Thread(
                target=self._receive_ahead, name="sotto corrections", daemon=True
            )
            self._receiving.start()

    def words(self, id: int, correlation: Correlation) -> Words:
        """Return the last party's words of a correlation: room for the masks, then the rest."""
        if id not in self._asked:
            self.announce([(id, correlation)])
        elif not _same(self._asked[id], correlation):
            raise SessionError(
                "the program asks for other randomness than the one that was prepared"
            )
        del self._asked[id]
        with located(self._where):
            while True:
                if self._receiving is None:
                    first, words = self._receive(self._due.popleft())
                else:
                    first, words = self._take()
                # What was prepared and is not needed after all is dropped.
                if first == id:
                    return words
                self._asked.pop(first, None)

    def _receive(self, due: tuple[int, Correlation]) -> tuple[int, Words]:
        id, correlation = due
        masks, corrected = correlation.mask_words, correlation.corrected_words
        words = np.empty(masks + corrected, np.uint64)
        self._connection.expect_arrays(
            Kind.CORRECTION, ((corrected,),), id & 0xFFFFFFFF, words[masks:]
        )
        exchange([self._connection], self._timeout)
        self._connection.take()
        if sys.byteorder == "big":
            words[masks:].byteswap(inplace=True)
        return id, words

    # Large corrections are received while the session computes.

    def _receive_ahead(self) -> None:
        try:
            while self._due:
                id, words = self._receive(self._due[0])
                with self._changed:
                    self._due.popleft()
                    self._ready.append((id, words))
                    self._ready_bytes += words.nbytes
                    self._changed.notify_all()
                    while self._ready_bytes > _AHEAD_BYTES and not self._closed:
                        self._changed.wait(1.0)
                    if self._closed:
                        return
        except BaseException as error:
            with self._changed:
                self._problem = error
                self._changed.notify_all()

    def _take(self) -> tuple[int, Words]:
        with self._changed:
            while not self._ready:
                if self._problem is not None:
                    raise self._problem
                self._changed.wait(1.0)  # the thread that receives has a timeout of its own
            id, words = self._ready.popleft()
            self._ready_bytes -= words.nbytes
            self._changed.notify_all()
            if not self._due and not self._ready:
                self._receiving = None
        return id, words

    def close(self) -> None:
        """Stop receiving ahead."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


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
