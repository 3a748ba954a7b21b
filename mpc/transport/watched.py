"""The transport of a watched party: to each what it lacks, and digests of everything.

What is sent to whom, and the check: :mod:`mpc.core.watching`. Rows are those of the party's own role and of
the one that it watches, in this order.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Opening
from mpc.core.errors import PeerError
from mpc.core.frames import Kind, Shapes
from mpc.core.interfaces import Transport
from mpc.core.watching import Checks, senders_to
from mpc.transport.connection import Background, Connection, exchange
from mpc.transport.remote import located

__all__ = ["RemoteWatched", "Watched"]

Words = NDArray[np.uint64]
Sent = Mapping[int, list[Words]]
_TAG: Shapes = ((2,),)


class Watched(Transport):
    """What one of three watched parties sends, receives, computes and compares, on any network.

    Parameters
    ----------
    me : int
    pair_keys : dict of int to bytes
        The key with each of the two others.
    """

    def __init__(self, me: int, pair_keys: Mapping[int, bytes]) -> None:
        self.me = me
        self.checks = Checks(me, pair_keys)
        self.next, self.before = self.checks.next, self.checks.before
        self._steps = 0

    @abstractmethod
    def _exchange(
        self, kind: Kind, sent: Sent, wanted: Mapping[int, Shapes]
    ) -> dict[int, list[Words]]:
        """Send arrays to other parties, and return those of given shapes from others."""

    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which parties notice that their programs differ."""
        self._steps = zlib.crc32(repr(step).encode(), self._steps)

    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Combine own rows and what the party before has sent.

        With a party's number a message is that role's, which both its holders compute.
        """
        self.note("open", [(words.shape[1:], opening) for words, opening in messages])
        own: list[Words] = []
        wanted: list[tuple[int, ...]] = []
        for words, opening in messages:
            if not isinstance(opening, int):
                own.append(words[0])
                self.checks.add(self.next, opening, words[1])
                wanted.append(words.shape[1:])
            elif opening == self.me:
                own.append(words[0])
            elif opening == self.next:
                self.checks.add(self.next, "role", words[0])
            else:
                wanted.append(words.shape[1:])
        came = self._exchange(
            Kind.OPEN,
            {self.next: own} if own else {},
            {self.before: tuple(wanted)} if wanted else {},
        )
        received = iter(came.get(self.before, []))
        opened = []
        for words, opening in messages:
            if isinstance(opening, int) and opening != self.before:
                opened.append(words)
                continue
            third = next(received)
            if isinstance(opening, int):
                self.checks.add(self.before, "role", third)
                opened.append(third[None])
                continue
            self.checks.add(self.before, opening, third)
            combine = np.bitwise_xor if opening == "xor" else np.add
            total = combine(words[:1], words[1:])
            combine(total, third, out=total)
            opened.append(total)
        return opened

    def open_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Open one array to both holders of a party's role."""
        return self._open_to(party, shares, opening, private=False)

    def reveal_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Open one array to one party's process."""
        return self._open_to(party, shares, opening, private=True)

    def _open_to(
        self, party: int, shares: Words, opening: Literal["sum", "xor"], private: bool
    ) -> Words:
        self.note("open to", party, shares.shape[1:], opening, private)
        senders = senders_to(party, private)
        if self.next in senders:
            self.checks.add(self.next, f"{opening} to {party}", shares[1])
        learns = self.before in senders
        came = self._exchange(
            Kind.REVEAL,
            {self.next: [shares[0]]} if self.me in senders else {},
            {self.before: (shares.shape[1:],)} if learns else {},
        )
        if not learns:
            return shares[:0]
        (third,) = came[self.before]
        self.checks.add(self.before, f"{opening} to {party}", third)
        combine = np.bitwise_xor if opening == "xor" else np.add
        total = combine(shares[:1], shares[1:])
        combine(total, third, out=total)
        return total

    def give(self, owner: int, words: Words) -> Words:
        """Deliver what one party says freely to the two others."""
        shape = words.shape[1:]
        self.note("give", owner, shape)
        mine = owner == self.me
        sent = {self.next: [words[0]], self.before: [words[0]]} if mine else {}
        came = self._exchange(Kind.OPEN, sent, {} if mine else {owner: (shape,)})
        if mine:
            return words
        (given,) = came[owner]
        self.checks.add(owner, "given", given)
        return given[None]

    def tell(self, words: Sequence[Words]) -> list[Words]:
        """Broadcast public words of each party."""
        self.note("tell", [each.shape[1:] for each in words])
        own, others = words[self.me][0], (self.next, self.before)
        came = self._exchange(
            Kind.OPEN, {q: [own] for q in others}, {q: (words[q].shape[1:],) for q in others}
        )
        told = [own[None]] * len(words)
        for q in others:
            (given,) = came[q]
            self.checks.add(q, "told", given)
            told[q] = given[None]
        return told

    def check(self) -> None:
        """Compare digests of all that was sent since the last check."""
        sent = {q: [tag] for q, tag in self.checks.begin().items()}
        came = self._exchange(Kind.CHECK, sent, dict.fromkeys(sent, _TAG))
        self.checks.finish({q: arrays[0] for q, arrays in came.items()})


class RemoteWatched(Watched):
    """A watched party in a process of its own.

    Parameters
    ----------
    me : int
    peers : dict of int to Connection
    pair_keys : dict of int to bytes
    provider : Connection
    timeout : float
        Seconds without a byte after which a party counts as lost.
    where : callable
        Returns the round and the step of the session, for errors.
    background : Background
        Receives corrections while this party waits for others.
    """

    def __init__(
        self,
        me: int,
        peers: Mapping[int, Connection],
        pair_keys: Mapping[int, bytes],
        provider: Connection,
        timeout: float,
        where: Callable[[], str],
        background: Background,
    ) -> None:
        super().__init__(me, pair_keys)
        self.peers = dict(peers)
        self._everybody = [*self.peers.values(), provider]
        self._timeout, self._where, self._background = timeout, where, background

    def _exchange(
        self, kind: Kind, sent: Sent, wanted: Mapping[int, Shapes]
    ) -> dict[int, list[Words]]:
        used = [self.peers[q] for q in sorted({*sent, *wanted})]
        try:
            for q, arrays in sent.items():
                self.peers[q].post(kind, arrays, self._steps)
            for q, shapes in wanted.items():
                self.peers[q].expect_arrays(kind, shapes, self._steps)
            exchange(used, self._timeout, self._background)
            return {q: list(self.peers[q].take().arrays()) for q in wanted}
        except PeerError as error:
            raise located(error, self._where()) from None

    def close(self, problem: str | None) -> None:
        """Send the others BYE, or ABORT with the problem, and close all connections."""
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
