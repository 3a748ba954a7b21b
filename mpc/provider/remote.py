"""The last party's end of its connection to the crypto provider."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.cost import Ledger
from mpc.core.errors import PeerError, SessionError
from mpc.core.frames import Kind
from mpc.core.keys import PartyStreams
from mpc.provider.requests import Block
from mpc.provider.sources import ProviderSource, book_request
from mpc.transport.connection import Connection, exchange
from mpc.transport.remote import located

__all__ = ["RemoteProvider"]

Words = NDArray[np.uint64]

# What may wait for the session, and how much is received at once beside an opening.
_AHEAD_BYTES = 1 << 26
_PIECE_BYTES = 1 << 18


class RemoteProvider(ProviderSource):
    """The last party's source: asks the provider for corrections, ahead of time where they are known.

    The provider answers in the order in which it was asked. What arrives before it is needed is
    received while the session waits for the other parties. What was asked for ahead and is not
    needed after all is dropped: an id never serves twice.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        The last party's, under its number.
    connection : Connection
    timeout : float
        Seconds without a byte after which the provider counts as lost.
    ledger : Ledger
        Where requests are booked; it says in which round and step the session is, for errors.
    """

    works_ahead = True

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        connection: Connection,
        timeout: float,
        ledger: Ledger,
    ) -> None:
        self._streams = streams
        self.connection = connection
        self._timeout = timeout
        self._ledger = ledger
        self._asked: OrderedDict[int, Correlation] = OrderedDict()
        self._last = 0
        self._due: deque[tuple[int, Correlation]] = deque()
        self._coming: Words | None = None
        self._ready: deque[tuple[int, Words]] = deque()
        self._ready_bytes = 0

    def shares(self, id: int, correlation: Correlation) -> Words:
        """Expand the masks beside what the provider has sent."""
        masks = correlation.layout.mask_words
        if correlation.layout.corrected_words:
            words = self.words(id, correlation)
        else:
            words = np.empty(masks, np.uint64)
        for streams in self._streams.values():
            streams.masks.fill(words[:masks], id)
        return words[None]

    def announce(self, base: int, bundle: Block) -> None:
        """Ask for what a block has behind id `base`, without waiting for it; ids must be new."""
        for id, correlation in bundle.at(base):
            if id <= self._last:
                raise SessionError(
                    "the program goes another way than the one that was prepared; it must ask for"
                    " the same randomness in the same order"
                )
            self._last = id
            self._asked[id] = correlation
            self._due.append((id, correlation))
        for frame in bundle.frames(base):
            book_request(self._ledger, len(frame))
            self.connection.post_bytes(Kind.REQUEST, frame)
        try:
            self.connection.push()
        except PeerError as error:
            raise located(error, self._ledger.where()) from None

    def words(self, id: int, correlation: Correlation) -> Words:
        """Return the last party's words of a correlation: room for the masks, then the rest."""
        if id not in self._asked:
            self.announce(id - 1, Block.of([(id, correlation)], id - 1, id))
        elif not _same(self._asked[id], correlation):
            raise SessionError(
                "the program asks for other randomness than the one that was prepared"
            )
        del self._asked[id]
        while True:
            while not self._ready:
                self._expect()
                try:
                    exchange([self.connection], self._timeout)
                except PeerError as error:
                    raise located(error, self._ledger.where()) from None
                self._arrived()
            first, words = self._ready.popleft()
            self._ready_bytes -= words.nbytes
            if first == id:
                return words
            # What was prepared and is not needed after all is dropped.
            self._asked.pop(first, None)

    def advance(self) -> None:
        """Receive some of what has arrived ahead of need, and expect what comes next."""
        while self._due and self._ready_bytes <= _AHEAD_BYTES:
            self._expect()
            if not self.connection.advance(_PIECE_BYTES):
                return
            self._arrived()

    def _expect(self) -> None:
        """Make room for the next correction, unless it is on its way in already."""
        if self._coming is not None:
            return
        id, correlation = self._due[0]
        masks, corrected = correlation.mask_words, correlation.corrected_words
        self._coming = np.empty(masks + corrected, np.uint64)
        self.connection.expect_arrays(
            Kind.CORRECTION, ((corrected,),), id & 0xFFFFFFFF, self._coming[masks:]
        )

    def _arrived(self) -> None:
        assert self._coming is not None
        id, correlation = self._due.popleft()
        words, self._coming = self._coming, None
        self.connection.take()
        if sys.byteorder == "big":
            words[correlation.mask_words :].byteswap(inplace=True)
        self._ready.append((id, words))
        self._ready_bytes += words.nbytes


def _same(one: Correlation, other: Correlation) -> bool:
    try:
        return one == other
    except ValueError:  # a mask seen through an index array
        return wire.encode(one) == wire.encode(other)
