"""What protocols are made of: who the parties are, rounds of opening, correlated randomness."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from threading import get_ident

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, Opening
from mpc.core.cost import Cost, Ledger
from mpc.core.errors import PartyError, PeerError, SessionError
from mpc.core.events import record
from mpc.core.frames import framing
from mpc.core.interfaces import CorrelationSource, Transport
from mpc.core.keys import PartyStreams
from mpc.core.owner import Owner
from mpc.core.ranges import RangePolicy
from ring import FixedPoint, processes

__all__ = ["Runtime", "Setup"]

Words = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, repr=False)
class Setup:
    """What a session is made of.

    Attributes
    ----------
    parties : tuple of str
    here : tuple of int
        The numbers of those that live in this process.
    format : ring.FixedPoint
    memory_limit : int
    streams : dict of int to PartyStreams
        What those that live here can expand. The source has the same dict.
    source : CorrelationSource
    transport : Transport
    ledger : Ledger
    range_policy : RangePolicy
    session_id : bytes
        Of a session of one party: as agreed with the others.
    """

    parties: tuple[str, ...]
    here: tuple[int, ...]
    format: FixedPoint
    memory_limit: int
    streams: dict[int, PartyStreams]
    source: CorrelationSource
    transport: Transport
    ledger: Ledger
    range_policy: RangePolicy
    session_id: bytes = b""


class Runtime:
    """The part of a session that protocols are made of.

    Parameters
    ----------
    setup : Setup
    first_id : int
        Ids begin behind it.
    """

    def __init__(self, setup: Setup, first_id: int = 0) -> None:
        self.parties, self.here = setup.parties, setup.here
        self.format, self.memory_limit = setup.format, setup.memory_limit
        self.session_id = setup.session_id
        # Where on the party axis the first party is, which adds public values; None if elsewhere.
        self.first_row = self.here.index(0) if 0 in self.here else None
        # By the party's number, for those who live here.
        self.streams = setup.streams
        self.source, self.transport = setup.source, setup.transport
        self.range_policy = setup.range_policy
        self._ledger = setup.ledger
        self._endings: dict[Callable[[], None], None] = {}
        self._next_id = first_id
        self._closed = False
        self._owner = Owner()
        self._began = time.monotonic()

    @property
    def size(self) -> int:
        """How many computing parties there are."""
        return len(self.parties)

    @property
    def me(self) -> str | None:
        """The party that lives in this process, or None if several or none do."""
        return self.parties[self.here[0]] if len(self.here) == 1 else None

    @property
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent to and received from the others and the provider, headers included."""
        return self.transport.bytes_on_the_wire

    def number(self, party: str, name: str = "party") -> int:
        """Return the number of a party, or raise PartyError."""
        if party not in self.parties:
            raise PartyError(f"{name} must be one of {', '.join(self.parties)}, got {party!r}")
        return self.parties.index(party)

    def check_open(self) -> None:
        """Raise SessionError if the session is closed, or not this thread's and process's."""
        if self._closed:
            raise SessionError("the session is closed")
        owner = self._owner
        if owner.thread != get_ident() or owner.generation != processes.generation:
            owner.claim()  # raises unless it is free

    def hand_over(self) -> None:
        """Let another thread use the session: the next one that does.

        A session belongs to the thread that uses it first, until that ends or calls this. Other
        threads get a SessionError. Between processes all parties must hand over at the same points
        of the same program, like all that they do.

        Raises
        ------
        SessionError
            If it belongs to another thread.

        Examples
        --------
        >>> import threading
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     x = s.share([1.5, -2.0], owner="alice")
        ...     s.hand_over()
        ...     thread = threading.Thread(target=lambda: print(x.relu().reveal()))
        ...     thread.start()
        ...     thread.join()
        [1.5 0. ]
        """
        self.check_open()
        self._owner.release()

    def fresh_id(self) -> int:
        """Return the next id. Every party counts alike, and no id is used twice."""
        self.check_open()
        self._next_id += 1
        return self._next_id

    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which parties notice that their programs differ."""
        self.transport.note(*step)

    def open(self, *messages: tuple[Words, Opening]) -> list[Words]:
        """Open several arrays in one round. The only place where parties' shares meet.

        Parameters
        ----------
        *messages : (words, opening)
            Shares of shape (p, ...) that add ("sum") or XOR ("xor"); or, with a party's number,
            what that party sends to all: of shape (1, ...) where it lives, else (0, ...).

        Returns
        -------
        list of uint64 arrays
            The opened values, of shape (1, ...), or (0, ...) in a plan.
        """
        self.check_open()
        form = tuple([(words.shape[1:], opening) for words, opening in messages])
        self._ledger.add_round(*_spent(form, self.size))
        try:
            return self.transport.open(messages)
        except PeerError as error:
            self._end(str(error))
            raise

    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party: the others send it their shares."""
        self.check_open()
        self._ledger.add_round(*_spent_on_one(shares.shape[1:], party, self.size))
        try:
            return self.transport.open_to(party, shares)
        except PeerError as error:
            self._end(str(error))
            raise

    def tell(
        self,
        own: Sequence[Words],
        shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        booked: bool = True,
    ) -> list[Words]:
        """Tell all parties public words of each, in one round.

        Parameters
        ----------
        own : sequence of uint64 arrays
            What the parties that live here say, one each.
        shapes : sequence of tuple of int, optional
            Of every party's words; default that of `own`.
        booked : bool, default=True
            Whether a plan can foresee this round: what it cannot is no cost of a program.

        Returns
        -------
        list of uint64 arrays
            Every party's words, in the parties' order; none in a plan.
        """
        self.check_open()
        if shapes is None:
            shapes = [own[0].shape] * self.size
        words = [np.empty((0, *shape), np.uint64) for shape in shapes]
        for party, said in zip(self.here, own, strict=True):
            words[party] = said[None]
        if booked:
            form = tuple([(tuple(shape), party) for party, shape in enumerate(shapes)])
            self._ledger.add_round(*_spent(form, self.size))
        try:
            told = self.transport.tell(words)
        except PeerError as error:
            self._end(str(error))
            raise
        return [each[0] for each in told] if self.here else []

    def correlated(self, correlation: Correlation) -> tuple[int, Words]:
        """Get this process's shares of a correlation.

        Returns
        -------
        int
            The correlation's id.
        uint64 array of shape (p, mask words + corrected words)
            To be cut by `correlation.split`.

        Raises
        ------
        SessionError
            If the session's source makes none of this class.
        """
        source, kind = self.source, type(correlation)
        if not source.makes(kind):
            raise SessionError(
                f"a {kind.__name__} must come from a source that makes it, got"
                f" {source.name}, which does not"
            )
        id = self.fresh_id()
        layout = correlation.layout
        self.transport.note(kind.__name__, id, layout.mask_words, layout.corrected_words)
        try:
            words = source.shares(id, correlation)
        except PeerError as error:
            self._end(str(error))
            raise
        source.book(correlation, self._ledger)
        return id, words

    # Cost.

    def cost(self) -> Cost:
        """Return the rounds and bytes spent up to now."""
        return self._ledger.cost()

    def layer(self, name: str) -> AbstractContextManager[None]:
        """Book what is spent inside the ``with`` block under the layer `name`."""
        return self._ledger.layer(name)

    def protocol(self, name: str) -> AbstractContextManager[None]:
        """Book what is spent inside the ``with`` block under the protocol `name`."""
        return self._ledger.protocol(name)

    def book_at_once(self, others: Sequence[Runtime]) -> None:
        """Book what other sessions have spent at the same time: all bytes, the longest's rounds."""
        self._ledger.add_at_once([other._ledger for other in others])

    # The end.

    def at_end(self, ending: Callable[[], None]) -> None:
        """Let `ending` be called, once, when the session ends."""
        self._endings[ending] = None

    def _end(self, problem: str | None) -> None:
        if self._closed:
            return
        self._closed = True
        self.streams.clear()
        self.source.close()
        if self._owner.generation != processes.generation:
            return  # the connections are the parent's, which goes on
        if self.session_id:
            total, (sent, received) = self._ledger.cost().total, self.bytes_on_the_wire
            record(
                "session", warning=problem is not None, session=self.session_id.hex()[:8],
                me=str(self.me), parties=",".join(self.parties), rounds=total.rounds, sent=sent,
                received=received, seconds=time.monotonic() - self._began, problem=problem or "-",
            )  # fmt: skip
        self.transport.close(problem)
        for ending in self._endings:
            ending()


@lru_cache(maxsize=1024)
def _spent(
    form: tuple[tuple[tuple[int, ...], Opening], ...], parties: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what each party sends in a round of messages of these shapes, and beside them."""
    frames = [
        [shape for shape, opening in form if opening in ("sum", "xor", party)]
        for party in range(parties)
    ]
    return _of_frames(frames, parties - 1)


@lru_cache(maxsize=1024)
def _spent_on_one(
    shape: tuple[int, ...], receiver: int, parties: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what each party sends if all others send one an array, and beside it."""
    return _of_frames([[] if p == receiver else [shape] for p in range(parties)], 1)


def _of_frames(
    frames: list[list[tuple[int, ...]]], receivers: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bytes of a round in which each party sends one frame, if any, to so many."""
    contents = [[(len(shape), 8 * prod(shape)) for shape in frame] for frame in frames]
    return (
        tuple(receivers * sum(size for _, size in content) for content in contents),
        tuple(receivers * framing(content) if content else 0 for content in contents),
    )
