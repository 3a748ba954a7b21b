"""The transport of a watched party: to each what it lacks, and digests of everything.

What is sent to whom, and the check: :mod:`mpc.core.watching`. Rows are those of the party's own role and of
the one that it watches, in this order.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Opening
from mpc.core.errors import PeerError
from mpc.core.frames import Kind, Shapes
from mpc.core.interfaces import Transport
from mpc.core.watching import Checks, deliveries
from mpc.transport.connection import Background, Connection, exchange
from mpc.transport.remote import end, last_words, located, verdict

__all__ = ["RemoteWatched", "Watched"]

Words = NDArray[np.uint64]
Sent = Mapping[int, list[Words]]
_TAG: Shapes = ((2,),)


class Watched(Transport):
    """What one of the watched parties sends, receives, computes and compares, on any network.

    Parameters
    ----------
    me : int
    pair_keys : dict of int to bytes
        The key with each of the others.
    """

    def __init__(self, me: int, pair_keys: Mapping[int, bytes]) -> None:
        self.me = me
        self.checks = Checks(me, pair_keys)
        self.others, self._parties = self.checks.others, len(pair_keys) + 1
        self.next = self.others[0]
        # Who lacks this party's role (its watcher is the last of the others), and whose roles it lacks.
        self._receivers = self.others[:-1]
        self._senders = self.others[1:]
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
        """Combine own rows and what the parties whose roles are not here have sent.

        With a party's number a message is that role's, which both its holders compute.
        """
        self.note("open", [(words.shape[1:], opening) for words, opening in messages])
        own: list[Words] = []
        wanted: dict[int, list[tuple[int, ...]]] = {}
        for words, opening in messages:
            if not isinstance(opening, int):
                own.append(words[0])
                self.checks.add(self.next, opening, words[1])
                for sender in self._senders:
                    wanted.setdefault(sender, []).append(words.shape[1:])
            elif opening == self.me:
                own.append(words[0])
            elif opening == self.next:
                self.checks.add(self.next, "role", words[0])
            else:
                wanted.setdefault(opening, []).append(words.shape[1:])
        came = self._exchange(
            Kind.OPEN,
            dict.fromkeys(self._receivers, own) if own else {},
            {sender: tuple(shapes) for sender, shapes in wanted.items()},
        )
        received = {sender: iter(arrays) for sender, arrays in came.items()}
        opened = []
        for words, opening in messages:
            if isinstance(opening, int) and opening not in self._senders:
                opened.append(words)
                continue
            if isinstance(opening, int):
                other = next(received[opening])
                self.checks.add(opening, "role", other)
                opened.append(other[None])
                continue
            arrived = {sender: next(received[sender]) for sender in self._senders}
            opened.append(self._combined(words, opening, arrived, opening))
        return opened

    def _combined(
        self,
        rows: Words,
        opening: Literal["sum", "xor"],
        arrived: Mapping[int, Words],
        what: str,
        known: Mapping[int, Collection[int]] | None = None,
    ) -> Words:
        """Return what own rows and others' messages add up to, and enter these into digests."""
        combine = np.bitwise_xor if opening == "xor" else np.add
        total: Words = combine(rows[:1], rows[1:])
        for sender, words in arrived.items():
            self.checks.add(sender, what, words, None if known is None else known[sender])
            combine(total, words, out=total)
        return total

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
        what, ways = f"{opening} to {party}", deliveries(party, private, self._parties)
        # Who has the message of each sender: the one that watches it, and those that receive it.
        known = {sender: {(sender - 1) % self._parties} for sender, _ in ways}
        for sender, receiver in ways:
            known[sender].add(receiver)
        if self.next in known:
            self.checks.add(self.next, what, shares[1], known[self.next])
        came = self._exchange(
            Kind.REVEAL,
            {receiver: [shares[0]] for sender, receiver in ways if sender == self.me},
            {sender: (shares.shape[1:],) for sender, receiver in ways if receiver == self.me},
        )
        if not came:
            return shares[:0]
        arrived = {sender: words for sender, (words,) in came.items()}
        return self._combined(shares, opening, arrived, what, known)

    def give(self, owner: int, words: Words) -> Words:
        """Deliver what one party says freely to all others."""
        shape = words.shape[1:]
        self.note("give", owner, shape)
        mine = owner == self.me
        sent = {q: [words[0]] for q in self.others} if mine else {}
        came = self._exchange(Kind.OPEN, sent, {} if mine else {owner: (shape,)})
        if mine:
            return words
        (given,) = came[owner]
        self.checks.add(owner, "given", given)
        return given[None]

    def tell(self, words: Sequence[Words]) -> list[Words]:
        """Broadcast public words of each party."""
        self.note("tell", [each.shape[1:] for each in words])
        own, others = words[self.me][0], self.others
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
        Receives corrections, and opens keys for audits, while this party waits for others.
    auditor : Connection, optional
        To the auditor. It and the provider are told then that this party stops, and not why.
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
        auditor: Connection | None = None,
    ) -> None:
        super().__init__(me, pair_keys)
        self.peers = dict(peers)
        self._everybody = [*self.peers.values(), provider]
        self._audited = [] if auditor is None else [auditor]
        # A malicious provider must not learn from an error what the parties have computed.
        self._told_nothing = () if auditor is None else (provider, auditor)
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
            if self._audited:
                error = verdict(error, self._background)
            raise located(error, self._where()) from None

    def last_words(self) -> PeerError | None:
        """Return why the session has ended, if another party has said it."""
        return last_words(self.peers.values())

    def close(self, problem: str | None) -> None:
        """Send the others BYE, or ABORT with the problem, and close all connections."""
        end([*self._everybody, *self._audited], problem, self._told_nothing)

    @property
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent and received, headers included."""
        return (
            sum(connection.sent_bytes for connection in self._everybody),
            sum(connection.received_bytes for connection in self._everybody),
        )
