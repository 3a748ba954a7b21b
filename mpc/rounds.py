"""What protocols are made of: rounds in which arrays are opened, and correlated randomness."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from threading import get_ident
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation, Opening
from mpc.cost import Ledger
from mpc.errors import DtypeError, PartyError, PeerError, SessionError
from mpc.keys import PartyStreams
from mpc.names import name_of
from mpc.owner import Owner
from mpc.provider import Provider
from mpc.remote_provider import RemoteProvider
from mpc.secret_value import SecretValue
from mpc.shared_array import SharedArray
from mpc.transport.frames import framing
from mpc.transport.local import LocalTransport
from mpc.transport.remote import RemoteTransport
from ring import processes

__all__ = ["Rounds"]

Words = NDArray[np.uint64]


class Rounds:
    """The part of a session that protocols are made of."""

    if TYPE_CHECKING:
        parties: tuple[str, ...]
        here: tuple[int, ...]
        first_row: int | None
        streams: list[PartyStreams] | dict[int, PartyStreams]
        _provider: Provider | RemoteProvider | None
        _transport: LocalTransport | RemoteTransport
        _ledger: Ledger
        _asked: list[tuple[int, Correlation]]
        _next_id: int
        _closed: bool
        _owner: Owner

        def _end(self, problem: str | None) -> None: ...

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
        return self._transport.bytes_on_the_wire

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

    def check_own(self, x: object, name: str) -> SharedArray:
        """Return `x` if it is a shared array of this session, or raise."""
        if not isinstance(x, SharedArray):
            raise DtypeError(f"{name} must be a SharedArray, got {type(x).__name__}")
        if x.session is not self:
            raise SessionError(f"{name} belongs to another session")
        self.check_open()
        return x

    def values_of(self, x: SecretValue) -> NDArray[np.int64]:
        """Return the integers behind an array, where all parties live in this process.

        For checks of ranges alone, see :mod:`mpc.ranges`: the ring does not tell a value from one
        that has wrapped around. Nothing else may look.
        """
        x, cross_term = x.split_cross_term()
        total = np.zeros(x.shape, np.uint64)
        for _, words in x.addends():
            total += words
        if cross_term is not None:
            assert isinstance(self._provider, Provider)
            total += self._provider.plain(cross_term).reshape(x.shape)
        return total.view(np.int64)

    def fresh_id(self) -> int:
        """Return the next id. Every party counts alike, and no id is used twice."""
        self.check_open()
        self._next_id += 1
        return self._next_id

    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which parties notice that their programs differ."""
        if isinstance(self._transport, RemoteTransport):
            self._transport.note(*step)

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
            return self._transport.open(messages)
        except PeerError as error:
            self._end(str(error))
            raise

    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party: the others send it their shares."""
        self.check_open()
        self._ledger.add_round(*_spent_on_one(shares.shape[1:], party, self.size))
        try:
            return self._transport.open_to(party, shares)
        except PeerError as error:
            self._end(str(error))
            raise

    def book_request(self, count: int) -> None:
        """Book a request of `count` bytes that the last party sends to the provider."""
        self._ledger.add_framing(self.size - 1, count + framing([(1, count)]))

    def correlated(self, correlation: Correlation) -> tuple[int, Words]:
        """Get this process's shares of a correlation.

        Returns
        -------
        int
            The correlation's id.
        uint64 array of shape (p, mask words + corrected words)
            To be cut by `correlation.split`.
        """
        id = self.fresh_id()
        layout = correlation.layout
        masks, corrected = layout.mask_words, layout.corrected_words
        self.note(type(correlation).__name__, id, masks, corrected)
        if corrected and isinstance(self._provider, RemoteProvider):
            try:
                words = self._provider.words(id, correlation)[None]
            except PeerError as error:
                self._end(str(error))
                raise
            self.streams[self.here[0]].masks.fill(words[0, :masks], id)
        else:
            words = np.empty((len(self.here), masks + corrected), np.uint64)
            self._expand(id, correlation, words, masks)
        if corrected:
            self._ledger.add_correction(8 * corrected, _beside(8 * corrected))
        if not self.here:
            self._asked.append((id, correlation))
        return id, words

    def _expand(self, id: int, correlation: Correlation, words: Words, masks: int) -> None:
        """Fill in the shares of a correlation that follow from keys held in this process."""
        for row, party in zip(words, self.here, strict=True):
            streams = self.streams[party]
            if masks:
                streams.masks.fill(row[:masks], id)
            if masks == len(row):
                continue
            if party < self.size - 1:
                corrections = streams.corrections
                corrections.fill(row[masks:], corrections.place(name_of(id, correlation)))
            else:
                assert self._provider is not None and not isinstance(self._provider, RemoteProvider)
                self._provider.correct(id, correlation, row[masks:])


@lru_cache(maxsize=1024)
def _beside(count: int) -> int:
    """Return what is sent beside a correction of so many bytes."""
    return framing([(1, count)])


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
