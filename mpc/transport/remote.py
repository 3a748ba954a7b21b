"""One party in this process, the others behind connections."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Opening
from mpc.errors import PeerError
from mpc.transport.connection import Beside, Connection, exchange
from mpc.transport.frames import Kind

__all__ = ["RemoteTransport", "located"]

Words = NDArray[np.uint64]


@contextmanager
def located(where: Callable[[], str]) -> Iterator[None]:
    """Add the round and the step to an error about a peer."""
    try:
        yield
    except PeerError as error:
        raise type(error)(f"{error} in {where()}") from None


class RemoteTransport:
    """Sends this party's shares to the others, everything of a round in one frame each.

    Parameters
    ----------
    me : int
        Which party lives here.
    peers : dict of int to Connection
        Each other party's.
    provider : Connection
        Told when this party stops.
    timeout : float
        Seconds without a byte after which a party counts as lost.
    where : callable
        Says in which round and step the session is, for errors.
    beside : Beside, optional
        Goes on while others are waited for.

    Notes
    -----
    Every opening carries a checksum of the steps before it, so parties that run different
    programs, or share an array under different shapes or formats, notice at the next opening.
    """

    def __init__(
        self,
        me: int,
        peers: Mapping[int, Connection],
        provider: Connection,
        timeout: float,
        where: Callable[[], str],
        beside: Beside | None = None,
    ) -> None:
        self.me = me
        self.peers = dict(peers)
        self._everybody = [*self.peers.values(), provider]
        self.timeout = timeout
        self._where = where
        self._beside = beside
        self._steps = 0

    def note(self, *step: object) -> None:
        """Enter a step into the checksum."""
        self._steps = zlib.crc32(repr(step).encode(), self._steps)

    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Exchange with all others, and combine the parties' shares.

        Parameters
        ----------
        messages : sequence of (words, opening)
            For "sum" and "xor" this party's share, of shape (1, ...). For a party's number what it
            alone sends: first axis 1 where it lives, else 0.

        Returns
        -------
        list of uint64 arrays
            The opened values, of shape (1, ...).
        """
        shapes = [words.shape[1:] for words, _ in messages]
        self.note("open", shapes, [opening for _, opening in messages])

        def sent_by(party: int) -> list[int]:
            return [k for k, (_, o) in enumerate(messages) if o in ("sum", "xor", party)]

        own = {k: np.asarray(messages[k][0][0], order="C") for k in sent_by(self.me)}
        incoming = {party: sent_by(party) for party in self.peers}
        with located(self._where):
            for party, connection in self.peers.items():
                if own:
                    connection.post(Kind.OPEN, list(own.values()), self._steps)
                if incoming[party]:
                    expected = tuple(shapes[k] for k in incoming[party])
                    connection.expect_arrays(Kind.OPEN, expected, self._steps)
            exchange(self.peers.values(), self.timeout, self._beside)
        opened: list[Words | None] = [None] * len(messages)
        for party, numbers in incoming.items():
            if not numbers:
                continue
            for k, words in zip(numbers, self.peers[party].take().arrays(), strict=True):
                combine = np.bitwise_xor if messages[k][1] == "xor" else np.add
                so_far = opened[k] if opened[k] is not None else own.get(k)
                if so_far is not None:
                    combine(words, so_far, out=words)
                opened[k] = words
        return [own[k][None] if o is None else o[None] for k, o in enumerate(opened)]

    def open_to(self, party: int, shares: Words) -> Words:
        """Send the share to `party`; there, add up what all others send.

        Returns
        -------
        uint64 array
            Of shape (1, ...) at `party`, (0, ...) elsewhere.
        """
        own = np.asarray(shares[0], order="C")
        self.note("reveal", party, own.shape)
        with located(self._where):
            if party != self.me:
                self.peers[party].post(Kind.REVEAL, [own], self._steps)
                exchange([self.peers[party]], self.timeout, self._beside)
                return shares[:0]
            for connection in self.peers.values():
                connection.expect_arrays(Kind.REVEAL, (own.shape,), self._steps)
            exchange(self.peers.values(), self.timeout, self._beside)
        total = own.copy()
        for connection in self.peers.values():
            total += connection.take().arrays()[0]
        return total[None]

    def close(self, problem: str | None) -> None:
        """Tell the others that this party is done, or why it stops, and hang up."""
        for connection in self._everybody:
            if problem is None:
                connection.notify(Kind.BYE)
            else:
                connection.notify(Kind.ABORT, problem)
        for connection in self._everybody:
            connection.close()

    @property
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent and received, headers included."""
        return (
            sum(connection.sent_bytes for connection in self._everybody),
            sum(connection.received_bytes for connection in self._everybody),
        )
