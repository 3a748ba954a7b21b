"""How the two parties talk: in rounds, in words.

Code on both sides is one. What a party holds of something is a row of an array with the leading axis
of parties, and `Channel.parties` says which parties live in this process: both of them, in lock step;
one, with the other behind a connection; or none, in a plan that only counts.
In a round each party sends so many words as both know, which may be none, and gets what the other
has sent. Messages that need not wait for one another belong into one round. One that is made and read
in pieces, one way, is a :func:`stream`: while one party makes a piece the other reads the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import FrameError, ShapeError

__all__ = ["Channel", "LockStep", "Planned", "exchange", "send", "stream", "trade"]

Words = NDArray[np.uint64]


class Channel(Protocol):
    """What the protocols of two parties need of a connection.

    Attributes
    ----------
    parties : tuple of int
        Those that live here, in order: (0, 1), (0,), (1,) or ().
    names : tuple of str
        What to call both, in errors.
    """

    parties: tuple[int, ...]
    names: tuple[str, str]

    def swap(
        self, messages: Sequence[Words], counts: tuple[int, int], *, continued: bool = False
    ) -> list[Words]:
        """Send and get one message each: a round, or a piece more of the round before.

        Parameters
        ----------
        messages : one flat array of words for each party that lives here
            They must not be changed afterwards.
        counts : tuple of int
            How many words the first party sends, and how many the second.

        Returns
        -------
        list of flat arrays of words, one for each party that lives here: what the other has sent
            They must not be changed.

        Raises
        ------
        PeerError
            If the other party is lost or late, or sends something else.
        """
        ...  # pragma: no cover


class _Counting:
    """A channel that counts.

    Attributes
    ----------
    rounds : int
    sent : list of int
        Bytes, by party.
    """

    parties: tuple[int, ...] = ()

    def __init__(self, names: tuple[str, str] = ("alice", "bob")) -> None:
        self.names = names
        self.rounds = 0
        self.sent = [0, 0]

    def _count(self, messages: Sequence[Words], counts: tuple[int, int], continued: bool) -> None:
        found = [message.size for message in messages]
        wanted = [counts[party] for party in self.parties]
        if found != wanted:
            raise ShapeError(f"the parties send {wanted} words, got {found}")
        if any(counts) and not continued:
            self.rounds += 1
        for party in (0, 1):
            self.sent[party] += 8 * counts[party]


class LockStep(_Counting):
    """Both parties in one process, which does what the first has to do, then the second."""

    parties = (0, 1)

    def swap(
        self, messages: Sequence[Words], counts: tuple[int, int], *, continued: bool = False
    ) -> list[Words]:
        """Hand each party's message to the other."""
        self._count(messages, counts, continued)
        return [messages[1], messages[0]]


class Planned(_Counting):
    """No party: nothing is computed, but rounds and bytes are counted."""

    def swap(
        self, messages: Sequence[Words], counts: tuple[int, int], *, continued: bool = False
    ) -> list[Words]:
        """Count."""
        self._count(messages, counts, continued)
        return []


def _swap(
    channel: Channel, messages: Sequence[Words], counts: tuple[int, int], continued: bool = False
) -> list[Words]:
    got = channel.swap(messages, counts, continued=continued)
    for party, words in zip(channel.parties, got, strict=True):
        # A channel sees to it; what is short here would be read from behind its end.
        if words.dtype != np.uint64 or words.size != counts[1 - party]:
            name, wanted = channel.names[1 - party], counts[1 - party]
            raise FrameError(f"{name} has sent {words.size} words in place of {wanted}")
    return got


def exchange(channel: Channel, words: Words) -> Words:
    """Send a row of words each, of shape (p, ...), and return what each gets, in the same shape."""
    count = int(np.prod(words.shape[1:]))
    got = _swap(channel, [np.ascontiguousarray(row).reshape(-1) for row in words], (count, count))
    out = np.empty_like(words, order="C")
    for row, message in zip(out.reshape(len(words), count), got, strict=True):
        row[:] = message
    return out


def send(
    channel: Channel, sender: int, count: int, message: Words | None, *, continued: bool = False
) -> Words | None:
    """Send `count` words one way; if `continued`, as a piece of the round before.

    Parameters
    ----------
    message : flat array of words, where the sender lives; elsewhere None

    Returns
    -------
    the message, where the receiver lives; elsewhere None
    """
    nothing = np.empty(0, np.uint64)
    messages = []
    for party in channel.parties:
        mine = message if party == sender else nothing
        assert mine is not None, "the sender lives here and has no message"
        messages.append(mine)
    got = _swap(channel, messages, (count, 0) if sender == 0 else (0, count), continued)
    return next((w for p, w in zip(channel.parties, got, strict=True) if p != sender), None)


def stream(
    channel: Channel, sender: int, counts: Sequence[int], pieces: Iterator[Words] | None
) -> Iterator[Words | None]:
    """Send messages of so many words one way, in one round, each made when its turn comes.

    Parameters
    ----------
    pieces : iterator of flat arrays of words, where the sender lives; elsewhere None

    Yields
    ------
    as :func:`send` returns
    """
    begun = False
    for count in counts:
        piece = None if pieces is None else next(pieces)
        # The sender has waited for nothing since the first.
        yield send(channel, sender, count, piece, continued=begun)
        begun = begun or count > 0


def trade(
    channel: Channel, messages: dict[int, Words], counts: tuple[int, int]
) -> dict[int, Words]:
    """Send messages of different lengths, by sender; return what came, by receiver."""
    got = _swap(channel, [messages[party] for party in channel.parties], counts)
    return dict(zip(channel.parties, got, strict=True))
