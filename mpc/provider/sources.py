"""Sources of correlated randomness with a crypto provider.

Only the last party gets corrections. So there are three sources: of a local session, with a provider in
this process; of the last party in a process of its own, which sends requests
(:mod:`mpc.provider.remote`); and of any other party, which expands all its shares from keys.
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
from mpc.core.wire import name_of
from mpc.provider.audit_link import AuditLink
from mpc.provider.dealer import Provider
from mpc.provider.requests import Block
from mpc.transport.connection import Connection, wait
from mpc.transport.remote import located

__all__ = ["FromKeys", "InProcess", "ProviderSource", "expand_corrected"]

Words = NDArray[np.uint64]


class ProviderSource(CorrelationSource):
    """Base of the sources: books corrections and requests.

    Attributes
    ----------
    copies : int
        To how many parties the provider sends each correction.
    """

    copies = 1

    # With an auditor programs that run again and again have their corrections checked before they run.
    audited = False

    def repeats(self, bundle: Block) -> int:
        """Return how often to ask at a time for what a program needs; 0 without an auditor."""
        return bundle.repeats if self.audited else 0

    def makes(self, kind: type[Correlation]) -> bool:
        """Whether a provider deals correlations of a class: of every one."""
        return True

    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book the correction that the provider sends."""
        corrected = correlation.layout.corrected_words
        if corrected:
            ledger.add_correction(
                self.copies * 8 * corrected, self.copies * _framing(8 * corrected)
            )

    def bundle(self, asked: Sequence[tuple[int, Correlation]], base: int, last: int) -> Block:
        """Return the requests, as a block."""
        return Block.of(asked, base, last)

    def book_bundle(self, bundle: Block, ledger: Ledger) -> None:
        """Book the requests that the last party sends."""
        for frame in bundle.frames(0):
            book_request(ledger, len(frame))


class InProcess(ProviderSource):
    """The source of a local session: a provider in this process, for this session alone.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        Of all parties, by number.
    parties : int
        The number of parties.
    provider : Provider
    copies : int, default=1
        To how many parties it would send each correction.
    """

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        parties: int,
        provider: Provider,
        copies: int = 1,
    ) -> None:
        self._streams, self.copies = streams, copies
        self._last = parties - 1
        self.provider: Provider | None = provider

    def masks(self, id: int, correlation: Correlation) -> Words:
        """Expand all parties' masks from keys."""
        return expand_masks(self._streams, id, correlation)

    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Expand all parties' corrected parts from keys, but the last party's: compute those."""
        words = np.empty((len(self._streams), correlation.layout.corrected_words), np.uint64)
        if not words.size:
            return words
        for row, (party, streams) in zip(words, self._streams.items(), strict=True):
            if party < self._last:
                expand_corrected(streams, id, correlation, row)
            else:
                self._dealer().correct(id, correlation, row)
        return words

    def value(self, correlation: Correlation) -> Words:
        """Compute the value of the corrected part in the provider."""
        return self._dealer().plain(correlation)

    def _dealer(self) -> Provider:
        if self.provider is None:
            raise SessionError("the session is closed")
        return self.provider

    def close(self) -> None:
        """Drop the provider, and its keys with it."""
        self.provider = None


class FromKeys(ProviderSource):
    """The source of a party other than the last, which expands all its shares from keys.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        The party's, under its number.
    link : Connection, optional
        To the provider, which announces its stop there, and sends nothing else.
    where : callable
        Returns the round and the step of the session, for errors.
    audit : AuditLink, optional
        To the provider's auditor: this party goes on when the last one may.
    """

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        link: Connection | None = None,
        where: Callable[[], str] = str,
        audit: AuditLink | None = None,
    ) -> None:
        self._streams, self._audit = streams, audit
        # It asks for nothing, but sets the same ids aside as the last party.
        self.audited = self.works_ahead = audit is not None
        self._link, self._where = link, where
        self._leaves = False
        if link is not None:
            link.expect_bytes([Kind.NOTICE], 0)

    def masks(self, id: int, correlation: Correlation) -> Words:
        """Expand the party's masks."""
        return expand_masks(self._streams, id, correlation)

    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Expand the party's shares of the corrected parts."""
        words = np.empty((len(self._streams), correlation.layout.corrected_words), np.uint64)
        if words.size:
            for row, streams in zip(words, self._streams.values(), strict=True):
                expand_corrected(streams, id, correlation, row)
            if self._audit is not None:
                try:
                    self._audit.wait(id)
                except PeerError as error:
                    raise located(error, self._where()) from None
        return words

    def leaves(self) -> bool:
        """Whether the provider has announced its stop.

        It does so to all parties but the last, whose connection carries corrections; the other parties
        tell the last one.
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


def book_request(ledger: Ledger, count: int, parties: Sequence[int] = (-1,)) -> None:
    """Book a request of `count` bytes from the last party, or others, to the provider."""
    for party in parties:
        ledger.add_framing(party, count + framing([(1, count)]))


def expand_masks(streams: Mapping[int, PartyStreams], id: int, correlation: Correlation) -> Words:
    """Return the masks of the parties whose streams these are, of shape (p, mask words)."""
    words = np.empty((len(streams), correlation.layout.mask_words), np.uint64)
    if words.size:
        for row, some in zip(words, streams.values(), strict=True):
            some.masks.fill(row, id)
    return words


def expand_corrected(streams: PartyStreams, id: int, correlation: Correlation, row: Words) -> None:
    """Fill `row` with a party's shares of the corrected parts; it is not the last party."""
    corrections = streams.corrections.at(id)
    corrections.fill(row, corrections.place(name_of(id, correlation)))


@lru_cache(maxsize=1024)
def _framing(count: int) -> int:
    """Return the bytes of framing of a correction of `count` bytes."""
    return framing([(1, count)])
