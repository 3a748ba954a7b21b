"""Sources of correlated randomness where there is a crypto provider.

What the provider sends goes to the last party. So there are three: all is dealt in this process,
where the last party lives in it; the last party alone asks, see :mod:`mpc.provider.remote`; and any
other party has all that it needs from its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation
from mpc.core.cost import Ledger
from mpc.core.errors import PeerError, SessionError
from mpc.core.frames import Kind, framing
from mpc.core.interfaces import CorrelationSource
from mpc.core.keys import PartyStreams
from mpc.core.names import name_of
from mpc.provider.dealer import Provider
from mpc.provider.requests import Block
from mpc.transport.connection import Connection, wait
from mpc.transport.remote import located

__all__ = ["FromKeys", "InProcess", "ProviderSource"]

Words = NDArray[np.uint64]


class ProviderSource(CorrelationSource):
    """What the three have in common: how corrections and requests are booked."""

    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book the correction that the provider sends."""
        corrected = correlation.layout.corrected_words
        if corrected:
            ledger.add_correction(8 * corrected, _beside(8 * corrected))

    def bundle(self, asked: Sequence[tuple[int, Correlation]], base: int, last: int) -> Block:
        """Return the requests."""
        return Block.of(asked, base, last)

    def book_bundle(self, bundle: Block, ledger: Ledger) -> None:
        """Book the requests that the last party sends."""
        for frame in bundle.frames(0):
            book_request(ledger, len(frame))


class InProcess(ProviderSource):
    """A provider in this process, which is nobody else's.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        Of the parties that live here, by number.
    parties : int
        How many there are.
    provider : Provider
    """

    def __init__(
        self, streams: Mapping[int, PartyStreams], parties: int, provider: Provider
    ) -> None:
        self._streams = streams
        self._last = parties - 1
        self.provider: Provider | None = provider

    def shares(self, id: int, correlation: Correlation) -> Words:
        """Expand all shares but the last party's, and compute that."""
        masks, words = _room(len(self._streams), correlation)
        for row, (party, streams) in zip(words, self._streams.items(), strict=True):
            if party < self._last:
                fill_from_keys(streams, id, correlation, row)
                continue
            if masks:
                streams.masks.fill(row[:masks], id)
            if masks < len(row):
                self._dealer().correct(id, correlation, row[masks:])
        return words

    def value(self, correlation: Correlation) -> Words:
        """Ask the provider, which knows."""
        return self._dealer().plain(correlation)

    def _dealer(self) -> Provider:
        if self.provider is None:
            raise SessionError("the session is closed")
        return self.provider

    def close(self) -> None:
        """Let the provider go."""
        self.provider = None


class FromKeys(ProviderSource):
    """All that a party other than the last needs follows from its keys.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        The party's, under its number.
    link : Connection, optional
        To the provider, which says there that it leaves, and nothing else.
    where : callable
        Says in which round and step the session is, for errors.
    """

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        link: Connection | None = None,
        where: Callable[[], str] = str,
    ) -> None:
        self._streams = streams
        self._link, self._where = link, where
        self._leaves = False
        if link is not None:
            link.expect_bytes([Kind.NOTICE], 0)

    def shares(self, id: int, correlation: Correlation) -> Words:
        """Expand the party's shares."""
        _, words = _room(len(self._streams), correlation)
        for row, streams in zip(words, self._streams.values(), strict=True):
            fill_from_keys(streams, id, correlation, row)
        return words

    def leaves(self) -> bool:
        """Whether the provider has said that it leaves.

        The last party, which has other things to expect of it, is told by the others.
        """
        link = self._link
        if link is None:
            return False
        try:
            if wait([link], 0.0):
                link.take()
                self._leaves = True
                link.expect_bytes([], 0)
        except PeerError as error:
            raise located(error, self._where()) from None
        return self._leaves


def book_request(ledger: Ledger, count: int) -> None:
    """Book a request of `count` bytes that the last party sends to the provider."""
    ledger.add_framing(-1, count + framing([(1, count)]))


def fill_from_keys(streams: PartyStreams, id: int, correlation: Correlation, row: Words) -> None:
    """Expand the shares of a party other than the last into a row."""
    masks = correlation.layout.mask_words
    if masks:
        streams.masks.fill(row[:masks], id)
    if masks < len(row):
        corrections = streams.corrections
        corrections.fill(row[masks:], corrections.place(name_of(id, correlation)))


def _room(parties: int, correlation: Correlation) -> tuple[int, Words]:
    """Return how many words are masks, and an array for all of each party's."""
    layout = correlation.layout
    masks = layout.mask_words
    return masks, np.empty((parties, masks + layout.corrected_words), np.uint64)


@lru_cache(maxsize=1024)
def _beside(count: int) -> int:
    """Return what is sent beside a correction of so many bytes."""
    return framing([(1, count)])
