"""The provider among watched parties: it deals what all of them ask for, once, to both who need it.

A request is a message like any other. The correction to a forged one could be the words that hide another
party's message, so nobody alone may ask: every process sends each request, and the provider deals
those that all have sent, byte by byte the same and with ascending ids. If they differ, it ends the session
with the text of a failed check. Corrections are of the last role, which two processes hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation
from mpc.core.cost import Ledger
from mpc.core.errors import AbortError, PeerTimeoutError
from mpc.core.keys import PartyStreams
from mpc.core.watching import input_key, role_streams
from mpc.provider.audit_link import WatchedLink
from mpc.provider.dealer import Provider
from mpc.provider.remote import RemoteProvider
from mpc.provider.requests import Block
from mpc.provider.sources import book_request, expand_corrected
from mpc.transport.connection import Connection

__all__ = ["COPIES", "Requests", "WatchedSource", "keys_for", "watched_provider"]

Words = NDArray[np.uint64]

COPIES = 2
"""To how many processes each correction goes."""


def watched_provider(keys: Sequence[bytes]) -> Provider:
    """Return the provider of roles with these keys."""
    streams = [role_streams(key, len(keys)) for key in keys]
    return Provider.of([(each.masks, each.corrections) for each in streams])


def keys_for(keys: Sequence[bytes], party: int) -> bytes:
    """Return what a party is given: the key of the role that it watches, and of all others input keys."""
    after = [keys[(party + k) % len(keys)] for k in range(1, len(keys))]
    return after[0] + b"".join(input_key(key, party) for key in after[1:])


class Requests:
    """The requests that a provider has received from each of so many parties."""

    def __init__(self, parties: int) -> None:
        self._waiting: list[deque[bytes]] = [deque() for _ in range(parties)]
        self._bytes = [0] * parties

    def add(self, party: int, frame: bytes) -> list[bytes]:
        """Add a party's next frame; return those that all have sent by now, in their order.

        Raises
        ------
        AbortError
            If a party has sent another one than the others.
        """
        self._waiting[party].append(frame)
        self._bytes[party] += len(frame)
        agreed = []
        while all(self._waiting):
            frames = [waiting.popleft() for waiting in self._waiting]
            self._bytes = [
                held - len(taken) for held, taken in zip(self._bytes, frames, strict=True)
            ]
            if len(set(frames)) > 1:
                raise AbortError
            agreed.append(frames[0])
        return agreed

    def ahead(self, party: int) -> tuple[int, int]:
        """Return how many frames of a party wait for the others, and their bytes: frames may be empty."""
        return len(self._waiting[party]), self._bytes[party]


class _Dealing:
    """What a party has to do with the provider while it waits for the auditor."""

    def __init__(self, connection: Connection, advance: Callable[[], None]) -> None:
        self.connections, self.advance = (connection,), advance


class WatchedSource(RemoteProvider):
    """A watched party's source: it sends all requests, and gets the corrections of the last role.

    Parameters
    ----------
    streams : dict of int to PartyStreams
        Of its own role and of the one that it watches.
    connection : Connection
    timeout : float
    ledger : Ledger
        As for :class:`RemoteProvider`.
    parties : int
    audit : WatchedLink, optional
        To the provider's auditor, who clears corrections before anybody uses them.
    """

    copies = COPIES

    def __init__(
        self,
        streams: Mapping[int, PartyStreams],
        connection: Connection,
        timeout: float,
        ledger: Ledger,
        parties: int,
        audit: WatchedLink | None = None,
    ) -> None:
        super().__init__(streams, connection, timeout, ledger, audit)
        self._everybody, self._last_role = range(parties), parties - 1
        self._receives = self._last_role in streams
        # Others may wait for what this process has still to send to the one, or to open to the other.
        self._while_dealt = audit
        self._while_audited = _Dealing(connection, self._receive_ahead)

    def repeats(self, bundle: Block) -> int:
        """Return 0: inputs are masked before the program begins, so requests cannot come before them."""
        return 0

    def announce(self, base: int, bundle: Block) -> None:
        """Send the requests of a block for ids from base + 1 on, without waiting; ids must be new."""
        super().announce(base, bundle)
        if not self._receives:
            self._due.clear()

    def _receive_ahead(self) -> None:
        # Others wait for these requests, though this process may not be due anything for them.
        self.connection.push()
        super()._receive_ahead()

    def _receive(self) -> None:
        """Wait for the next correction."""
        try:
            super()._receive()
        except PeerTimeoutError as error:
            raise PeerTimeoutError(
                f"{error}: it deals what all parties ask it for and take, and one of them may not have"
            ) from None

    def _book_request(self, count: int) -> None:
        book_request(self._ledger, count, self._everybody)

    def book_bundle(self, bundle: Block, ledger: Ledger) -> None:
        """Book the requests that all parties send."""
        for frame in bundle.frames(0):
            book_request(ledger, len(frame), self._everybody)

    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Return the corrected parts of both roles; for those of the last one this waits."""
        words = np.empty((len(self._streams), correlation.layout.corrected_words), np.uint64)
        if not words.size:
            return words
        for row, (role, streams) in zip(words, self._streams.items(), strict=True):
            if role == self._last_role:
                row[:] = super().corrected(id, correlation)[0]
            else:
                expand_corrected(streams, id, correlation, row)
        if not self._receives:
            if self._audit is not None:
                self._wait_for_audit(self._audit, id)
            self._begun.discard(id)
            # As the holders of the last role drop what was announced before this and is not used.
            while self._asked and next(iter(self._asked)) < id:
                self._asked.popitem(last=False)
        return words
