"""The transport of a party in a process of its own: frames to and from the other parties."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Opening
from mpc.core.errors import AbortError, AuditError, PeerError
from mpc.core.frames import Kind, Shapes
from mpc.core.interfaces import Transport
from mpc.transport.connection import Background, Connection, exchange

__all__ = ["RemoteTransport", "end", "last_words", "located", "verdict"]

Words = NDArray[np.uint64]


def located(error: PeerError, where: str) -> PeerError:
    """Return an error of a peer with `where`, the round and the step, added to its text."""
    # Of a failed check nothing is told but that it has failed.
    return error if isinstance(error, AbortError) else type(error)(f"{error} in {where}")


def verdict(error: PeerError, background: Background) -> PeerError:
    """Return the auditor's verdict, if it is there by now, in place of another process' error."""
    try:
        background.advance()
    except AuditError as found:
        return found
    except PeerError:
        pass
    return error


def last_words(peers: Iterable[Connection]) -> PeerError | None:
    """Return why the session has ended, if one of these has said it."""
    return next(filter(None, (connection.last_words() for connection in peers)), None)


def end(
    connections: Sequence[Connection], problem: str | None, untold: Sequence[Connection | None]
) -> None:
    """Send each BYE, or ABORT with the problem, but BYE to those that are not told; close all."""
    for connection in connections:
        if problem is None or connection in untold:
            connection.notify(Kind.BYE)
        else:
            connection.notify(Kind.ABORT, problem)
    for connection in connections:
        connection.close()


class Route(NamedTuple):
    """Which party sends which messages of a round.

    Attributes
    ----------
    noted : bytes
        Enters the checksum of the program's steps.
    own : tuple of int
        The indices of the messages that this party sends.
    incoming : tuple of (party, indices, shapes)
        For each peer that sends anything: the indices of its messages, and their shapes.
    """

    noted: bytes
    own: tuple[int, ...]
    incoming: tuple[tuple[int, tuple[int, ...], Shapes], ...]


@lru_cache(maxsize=1024)
def route_of(
    messages: tuple[tuple[tuple[int, ...], Opening], ...], me: int, peers: tuple[int, ...]
) -> Route:
    """Return the route of messages with these shapes and openings."""
    sent = {
        party: tuple(k for k, (_, o) in enumerate(messages) if o in ("sum", "xor", party))
        for party in (me, *peers)
    }
    # int(): arguments that are equal to cached ones, as True is to 1, must give equal bytes.
    openings = [o if isinstance(o, str) else int(o) for _, o in messages]
    noted = repr(("open", [shape for shape, _ in messages], openings)).encode()
    incoming = ((party, sent[party], tuple(messages[k][0] for k in sent[party])) for party in peers)
    return Route(noted, sent[me], tuple(each for each in incoming if each[1]))


class RemoteTransport(Transport):
    """Sends this party's shares to the others, everything of a round in one frame each.

    Parameters
    ----------
    me : int
        The number of the party that lives here.
    peers : dict of int to Connection
        To the other parties, by number.
    provider : Connection, optional
        To the provider, for the last message when this party stops.
    timeout : float
        Seconds without a byte after which a party counts as lost.
    where : callable
        Returns the round and the step of the session, for errors.
    background : Background, optional
        Work to go on with while this party waits for others: the last party receives corrections, and
        every party opens keys for audits.
    auditor : Connection, optional
        To the auditor. It and the provider are told then that this party stops, and not why.

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
        background: Background | None = None,
        auditor: Connection | None = None,
    ) -> None:
        self.me = me
        self.peers = dict(peers)
        self._others = tuple(self.peers)
        self._everybody = [*self.peers.values(), *([] if provider is None else [provider])]
        self._auditor = auditor
        # A malicious provider must not learn from an error what the parties have computed.
        self._told_nothing = () if auditor is None else (provider, auditor)
        self.timeout = timeout
        self._where = where
        self._background = background
        self._steps = 0

    def note(self, *step: object) -> None:
        """Enter a step into the checksum."""
        self._steps = zlib.crc32(repr(step).encode(), self._steps)

    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Send own messages, receive the other parties', and combine the shares of each."""
        shapes_of = tuple([(words.shape[1:], opening) for words, opening in messages])
        route = route_of(shapes_of, self.me, self._others)
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
            exchange(self.peers.values(), self.timeout, self._background)
        except PeerError as error:
            raise self._located(error) from None
        for party, numbers, _ in route.incoming:
            for k, words in zip(numbers, self.peers[party].take().arrays(), strict=True):
                combine = np.bitwise_xor if messages[k][1] == "xor" else np.add
                so_far = opened[k]
                if so_far is not None:
                    combine(words, so_far, out=words)
                opened[k] = words
        return [words[None] for words in opened if words is not None]

    def open_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Send the share to `party`; at `party`, receive all shares and combine them."""
        own = np.asarray(shares[0], order="C")
        self.note("reveal", party, own.shape, opening)
        try:
            if party != self.me:
                self.peers[party].post(Kind.REVEAL, [own], self._steps)
                exchange([self.peers[party]], self.timeout, self._background)
                return shares[:0]
            for connection in self.peers.values():
                connection.expect_arrays(Kind.REVEAL, (own.shape,), self._steps)
            exchange(self.peers.values(), self.timeout, self._background)
        except PeerError as error:
            raise self._located(error) from None
        total, combine = own.copy(), np.bitwise_xor if opening == "xor" else np.add
        for connection in self.peers.values():
            combine(total, connection.take().arrays()[0], out=total)
        return total[None]

    def _located(self, error: PeerError) -> PeerError:
        """Return an error with round and step, in place of another party's the auditor's verdict."""
        if self._auditor is not None and self._background is not None:
            error = verdict(error, self._background)
        return located(error, self._where())

    def last_words(self) -> PeerError | None:
        """Return why the session has ended, if another party has said it."""
        return last_words(self.peers.values())

    def close(self, problem: str | None) -> None:
        """Send the others BYE, or ABORT with the problem, and close all connections."""
        everybody = [*self._everybody, *(() if self._auditor is None else (self._auditor,))]
        end(everybody, problem, self._told_nothing)

    @property
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent and received, headers included."""
        return (
            sum(connection.sent_bytes for connection in self._everybody),
            sum(connection.received_bytes for connection in self._everybody),
        )
