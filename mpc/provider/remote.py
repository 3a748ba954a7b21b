"""The last party's source of correlated randomness: a provider in another process."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.cost import Ledger
from mpc.core.errors import PeerError, SessionError
from mpc.core.frames import Kind
from mpc.core.keys import PartyStreams
from mpc.provider.audit_link import LastPartyLink
from mpc.provider.requests import Block, RequestedPart
from mpc.provider.sources import ProviderSource, book_request, expand_masks
from mpc.transport.connection import Background, Connection, exchange
from mpc.transport.remote import located, verdict

__all__ = ["RemoteProvider"]

Words = NDArray[np.uint64]

# The most bytes of corrections that wait for use, and of one read while an opening waits.
_AHEAD_BYTES = 1 << 26
_PIECE_BYTES = 1 << 18
_LARGEST_SIGNATURE = 1 << 22


class RemoteProvider(ProviderSource):
    """The last party's source: requests corrections from the provider, ahead of need if announced.

    The provider answers in the order of the requests. Corrections that arrive ahead of need are received
    while the session waits for the other parties. Those that the program does not use after all are
    dropped: no id is used twice.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        The last party's, under its number.
    connection : Connection
    timeout : float
        Seconds without a byte after which the provider counts as lost.
    ledger : Ledger
        Books the requests, and names the round and the step in errors.
    audit : LastPartyLink, optional
        To the provider's auditor, who clears corrections before they are used.
    """

    works_ahead = True

    # What goes on while this process waits: for corrections, and for the auditor.
    _while_dealt: Background | None = None
    _while_audited: Background | None = None

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        connection: Connection,
        timeout: float,
        ledger: Ledger,
        audit: LastPartyLink | None = None,
    ) -> None:
        self._streams, self._audit = streams, audit
        self.audited = audit is not None
        self.connection = connection
        self._timeout = timeout
        self._ledger = ledger
        self._asked: OrderedDict[int, Correlation] = OrderedDict()
        self._last = 0
        self._due: deque[tuple[int, Correlation]] = deque()
        self._coming: Words | None = None
        # Corrections that have arrived, in the order of the requests, and are not used yet.
        self.ahead: deque[tuple[int, Words]] = deque()
        # Of correlations whose masks are in use: what has not been taken from `ahead`, and what has.
        self._begun: set[int] = set()
        self._kept: dict[int, Words] = {}
        # Ids of programs that will run later, and those of the one that runs with what was kept for it.
        self._later: set[int] = set()
        self._now: frozenset[int] = frozenset()
        self._ready_bytes = 0

    @property
    def connections(self) -> Sequence[Connection]:
        """The connections that go on while the session waits for other parties."""
        audit = () if self._audit is None else self._audit.connections
        return (self.connection, *audit)

    def masks(self, id: int, correlation: Correlation) -> Words:
        """Expand the masks, and ask for the correction if it was not asked for ahead."""
        if correlation.layout.corrected_words:
            if id not in self._asked:
                self.announce(id - 1, Block.of([(id, correlation)], id - 1, id))
            elif not _same(self._asked[id], correlation):
                raise SessionError(
                    "the program asks for other randomness than the one that was prepared"
                )
            del self._asked[id]
            if id not in self._kept:
                self._begun.add(id)
        return expand_masks(self._streams, id, correlation)

    def announce(self, base: int, bundle: Block) -> None:
        """Send the requests of a block for ids from base + 1 on, without waiting; ids must be new."""
        self._expect_of(base, bundle)
        self._request(bundle.parts(base))

    def announce_repeats(self, base: int, bundle: Block, times: int, ids: int) -> None:
        """Request a block `times` over, and keep what comes until it is used or dropped."""
        for first in range(base, base + times * ids, ids):
            self._later.update(self._expect_of(first, bundle))
        # What is signed is one statement, of which the auditor needs all that it is about.
        together = self._audit is not None and not self._audit.signs
        self._request(bundle.repeated(base, times, ids, together=together))

    def begin_repeat(self, base: int, bundle: Block) -> None:
        """Drop what the program before has not used, and no longer keep what this one is about to use."""
        self._forget(self._now)
        self._now = frozenset(base + id for id, _ in bundle.correlations)
        self._later.difference_update(self._now)

    def drop_repeat(self, base: int, bundle: Block) -> None:
        """Drop a block, as far as it is here; what is still to come is dropped when it comes."""
        self._forget([base + id for id, _ in bundle.correlations])

    def _forget(self, ids: Iterable[int]) -> None:
        self._later.difference_update(ids)
        for id in ids:
            # Of those whose masks are in use the correction may be asked for later.
            if self._asked.pop(id, None) is not None and id in self._kept:
                self._ready_bytes -= self._kept.pop(id).nbytes

    def _expect_of(self, base: int, bundle: Block) -> list[int]:
        """Enter the correlations of a block as asked for; return their ids."""
        ids = []
        for id, correlation in bundle.at(base):
            if id <= self._last:
                raise SessionError(
                    "the program goes another way than the one that was prepared; it must ask for"
                    " the same correlated randomness in the same order"
                )
            self._last = id
            self._asked[id] = correlation
            self._due.append((id, correlation))
            ids.append(id)
        return ids

    def _request(self, parts: Iterable[RequestedPart]) -> None:
        for part in parts:
            self._book_request(len(part.frame))
            if self._audit is not None:
                self._audit.requested(part)
            self.connection.post_bytes(Kind.REQUEST, part.frame)
        try:
            self.connection.push()
        except PeerError as error:
            raise located(error, self._ledger.where()) from None

    def _book_request(self, count: int) -> None:
        book_request(self._ledger, count)

    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Return the corrected parts: the provider's correction, for which this waits."""
        if not correlation.layout.corrected_words:
            return np.empty((1, 0), np.uint64)
        while id not in self._kept:
            while not self.ahead:
                self._receive()
            first, words = self.ahead.popleft()
            if first in self._begun or first in self._later or first in self._now:
                # Perhaps that of a correlation whose masks are in use, and which will be asked for later.
                self._begun.discard(first)
                self._kept[first] = words
            else:
                # A correction that was requested ahead and is not used after all is dropped.
                self._asked.pop(first, None)
                self._ready_bytes -= words.nbytes
        if self._audit is not None:
            self._wait_for_audit(self._audit, id)
        words = self._kept.pop(id)
        self._ready_bytes -= words.nbytes
        return words[None]

    def _receive(self) -> None:
        """Wait for the next correction."""
        self._expect()
        try:
            exchange([self.connection], self._timeout, self._while_dealt)
            self._arrived()
        except PeerError as error:
            raise self._located(error) from None

    def _located(self, error: PeerError) -> PeerError:
        """Return an error with round and step, in place of a lost provider's the auditor's verdict."""
        if self._audit is not None:
            error = verdict(error, self._audit)
        return located(error, self._ledger.where())

    def _wait_for_audit(self, audit: LastPartyLink, id: int) -> None:
        """Wait until a correction is cleared: its whole part has to be here before."""
        while audit.bound < id:
            self._receive()
        try:
            audit.wait(id, self._while_audited)
        except PeerError as error:
            raise self._located(error) from None

    def advance(self) -> None:
        """Receive corrections that have arrived ahead of need, as far as possible without waiting."""
        try:
            self._receive_ahead()
        finally:
            # A provider that was caught and is gone does not keep the verdict from being heard.
            if self._audit is not None:
                self._audit.advance()

    def _receive_ahead(self) -> None:
        while (self._due or self._signature_is_due) and self._ready_bytes <= _AHEAD_BYTES:
            self._expect()
            if not self.connection.advance(_PIECE_BYTES):
                break
            self._arrived()

    @property
    def _signature_is_due(self) -> bool:
        return self._audit is not None and self._audit.awaits_signature

    def _expect(self) -> None:
        """Allocate memory for the next correction and expect it, unless that is done already."""
        if self._coming is not None:
            return
        if self._signature_is_due:
            self._coming = np.empty(0, np.uint64)
            self.connection.expect_bytes([Kind.SIGNED], _LARGEST_SIGNATURE)
            return
        id, correlation = self._due[0]
        self._coming = np.empty(correlation.corrected_words, np.uint64)
        self.connection.expect_arrays(
            Kind.CORRECTION, (self._coming.shape,), id & 0xFFFFFFFF, self._coming
        )

    def _arrived(self) -> None:
        assert self._coming is not None
        if self._audit is not None and self._audit.awaits_signature:
            self._coming = None
            self._audit.signed(self.connection.take().data.data)
            return
        id, _ = self._due.popleft()
        words, self._coming = self._coming, None
        self.connection.take()
        if sys.byteorder == "big":
            words.byteswap(inplace=True)
        self.ahead.append((id, words))
        if self._audit is not None:
            self._audit.arrived(words)
        self._ready_bytes += words.nbytes


def _same(one: Correlation, other: Correlation) -> bool:
    try:
        return one == other
    except ValueError:  # == of index arrays in a mask's views has no single truth value
        return wire.encode(one) == wire.encode(other)
