"""One party in this process, the others behind connections."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Opening
from mpc.core.errors import PeerError
from mpc.core.frames import Kind, Shapes
from mpc.core.interfaces import Transport
from mpc.transport.connection import Beside, Connection, exchange

__all__ = ["RemoteTransport", "located"]

Words = NDArray[np.uint64]


def located(error: PeerError, where: str) -> PeerError:
    """Return an error about a peer with the round and the step added."""
    return type(error)(f"{error} in {where}")


class _Route(NamedTuple):
    """Who sends which messages of a round."""

    noted: bytes
    own: tuple[int, ...]
    # What each peer sends that sends anything: numbers of messages, and their shapes.
    incoming: tuple[tuple[int, tuple[int, ...], Shapes], ...]


@lru_cache(maxsize=1024)
def _route(
    form: tuple[tuple[tuple[int, ...], Opening], ...], me: int, peers: tuple[int, ...]
) -> _Route:
    """Find the route of messages of these shapes and openings."""
    sent = {
        party: tuple(k for k, (_, o) in enumerate(form) if o in ("sum", "xor", party))
        for party in (me, *peers)
    }
    # Equal arguments must give equal bytes, whoever was here first: True would be 1.
    openings = [o if isinstance(o, str) else int(o) for _, o in form]
    noted = repr(("open", [shape for shape, _ in form], openings)).encode()
    incoming = ((party, sent[party], tuple(form[k][0] for k in sent[party])) for party in peers)
    return _Route(noted, sent[me], tuple(each for each in incoming if each[1]))


class RemoteTransport(Transport):
    """Sends this party's shares to the others, everything of a round in one frame each.

    Parameters
    ----------
    me : int
        Which party lives here.
    peers : dict of int to Connection
        Each other party's.
    provider : Connection, optional
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
        provider: Connection | None,
        timeout: float,
        where: Callable[[], str],
        beside: Beside | None = None,
    ) -> None:
        self.me = me
        self.peers = dict(peers)
        self._others = tuple(self.peers)
        self._everybody = [*self.peers.values(), *([] if provider is None else [provider])]
        self.timeout = timeout
        self._where = where
        self._beside = beside
        self._steps = 0

    def note(self, *step: object) -> None:
        """Enter a step into the checksum."""
        self._steps = zlib.crc32(repr(step).encode(), self._steps)

    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Exchange with all others, and combine the parties' shares."""
        form = tuple([(words.shape[1:], opening) for words, opening in messages])
        route = _route(form, self.me, self._others)
        self._steps = zlib.crc32(route.noted, self._steps)
        opened: list[Words | None] = [None] * len(messages)
        own = []
        for k in route.own:
            opened[k] = words = np.asarray(messages[k][0][0], order="C")
            own.append(words)
        try:
            if own:
                for connection in self.peers.values():
                    connection.post(Kind.OPEN, own, self._steps)
            for party, _, shapes in route.incoming:
                self.peers[party].expect_arrays(Kind.OPEN, shapes, self._steps)
            exchange(self.peers.values(), self.timeout, self._beside)
        except PeerError as error:
            raise located(error, self._where()) from None
        for party, numbers, _ in route.incoming:
            for k, words in zip(numbers, self.peers[party].take().arrays(), strict=True):
                combine = np.bitwise_xor if messages[k][1] == "xor" else np.add
                so_far = opened[k]
                if so_far is not None:
                    combine(words, so_far, out=words)
                opened[k] = words
        return [words[None] for words in opened if words is not None]

    def open_to(self, party: int, shares: Words) -> Words:
        """Send the share to `party`; there, add up what all others send."""
        own = np.asarray(shares[0], order="C")
        self.note("reveal", party, own.shape)
        try:
            if party != self.me:
                self.peers[party].post(Kind.REVEAL, [own], self._steps)
                exchange([self.peers[party]], self.timeout, self._beside)
                return shares[:0]
            for connection in self.peers.values():
                connection.expect_arrays(Kind.REVEAL, (own.shape,), self._steps)
            exchange(self.peers.values(), self.timeout, self._beside)
        except PeerError as error:
            raise located(error, self._where()) from None
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
