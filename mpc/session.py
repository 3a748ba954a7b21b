"""Sessions: who the parties are, what they hold in common, and what it has cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc.correlation import Correlation, Opening
from mpc.cost import Cost, Ledger
from mpc.errors import ArgumentError, DtypeError, PartyError, SessionError
from mpc.keys import PartyStreams, fresh_streams
from mpc.protocols import sharing
from mpc.provider import Provider
from mpc.shared_array import SharedArray
from mpc.transport.local import LocalTransport
from ring import FixedPoint

__all__ = ["Plan", "Session"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Plan:
    """What a program will ask for, found out without data.

    Attributes
    ----------
    cost : Cost
        Rounds and bytes, exactly those of a run.
    correlations : tuple of (id, Correlation)
        What the provider can prepare ahead, in order.
    """

    cost: Cost
    correlations: tuple[tuple[int, Correlation], ...] = field(repr=False)


def _check_parties(parties: Iterable[str]) -> tuple[str, ...]:
    if isinstance(parties, str):
        raise DtypeError(f"parties must be a sequence of names, got the string {parties!r}")
    try:
        names = tuple(parties)
    except TypeError:
        raise DtypeError(f"parties must be a sequence of names, got {parties!r}") from None
    for name in names:
        if not isinstance(name, str) or not name:
            raise PartyError(f"parties must be names, got {name!r}")
    if len(names) < 2:
        raise PartyError(
            f"parties must name at least two computing parties, got {len(names)}: {names}"
        )
    for k, name in enumerate(names):
        if name in names[:k]:
            raise PartyError(f"parties must be different, got {name!r} twice")
    return names


class Session:
    """Computing parties and a crypto provider, ready to compute on shares.

    All of them live in this process, in lock step: for notebooks, tests and first contact. The
    parties are semi-honest, any number of them short of all may collude, and the provider
    colludes with nobody. Keys are fresh from the operating system's generator.

    Parameters
    ----------
    parties : sequence of str, default=("alice", "bob")
        At least two different names.
    frac_bits, int_bits : int, default=16 and 15
        The fixed-point format: values below ``2**int_bits`` in steps of ``2**-frac_bits``.
    memory_limit : int, default=2**28
        Bytes that a batch of a model's evaluation may take; more rows are cut into batches.

    Raises
    ------
    PartyError
        Fewer than two parties, or one named twice.
    RangeError
        A format whose products do not fit the ring.

    Examples
    --------
    >>> import mpc
    >>> with mpc.Session() as s:
    ...     x = s.share([1.5, -2.0], owner="alice")
    ...     y = s.share([2.0, 4.0], owner="bob")
    ...     (x * y).reveal()
    array([ 3., -8.])
    """

    def __init__(
        self,
        parties: Sequence[str] = ("alice", "bob"),
        *,
        frac_bits: int = 16,
        int_bits: int = 15,
        memory_limit: int = 1 << 28,
    ) -> None:
        self.parties = _check_parties(parties)
        self.format = FixedPoint(frac_bits, int_bits)
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1:
            raise ArgumentError(
                f"memory_limit must be a positive number of bytes, got {memory_limit!r}"
            )
        self.memory_limit = memory_limit
        streams, provider_keys = fresh_streams(len(self.parties))
        self._start(tuple(range(len(self.parties))), streams, Provider(provider_keys))

    def _start(
        self, here: tuple[int, ...], streams: list[PartyStreams], provider: Provider | None
    ) -> None:
        self.here = here
        self.streams = streams
        self._provider = provider
        self._transport = LocalTransport()
        self._ledger = Ledger(len(self.parties))
        self._asked: list[tuple[int, Correlation]] = []
        self._next_id = 0
        self._closed = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        form = f"frac_bits={self.format.frac_bits}, int_bits={self.format.int_bits}"
        return f"Session(parties={self.parties}, {form}{', closed' if self._closed else ''})"

    def close(self) -> None:
        """End the session: its keys are dropped, its arrays can no longer be used."""
        self._closed = True
        self.streams = []
        self._provider = None

    # Sharing and revealing.

    def share(
        self,
        x: ArrayLike | None,
        owner: str,
        *,
        shape: Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        bound: float | None = None,
        name: str = "x",
    ) -> SharedArray:
        """Split `x`, which belongs to `owner`, into shares.

        Parameters
        ----------
        x : array_like of reals, or None
            Floats become fixed-point values in the session's format; integers and bools stay
            whole numbers. None where `owner` does not live (then `shape` says what is coming).
        owner : str
            A computing party.
        shape : sequence of int, optional
            The shape of `x`; required if it is None.
        dtype : dtype, optional
            What to take `x` as, default its own dtype, or float if it is None.
        bound : float, optional
            A public bound on the magnitude of `x`, checked at the owner, which makes later
            comparisons cheaper. Default: the format's limit.
        name : str
            What to call `x` in an error.

        Returns
        -------
        SharedArray

        Raises
        ------
        RangeError
            A value that is NaN, infinite, or not below the limit or within `bound`; the message
            names the value and its index. Nothing is shared then.
        PartyError, ShapeError, DtypeError
            An unknown owner, a shape that does not match, data that is not real numbers.

        Notes
        -----
        No rounds, no bytes: each other party's share comes from a key it has in common with the
        owner.
        """
        self.check_open()
        given, frac_bits, largest = sharing.share(
            self, x, self.number(owner, "owner"), shape=shape, dtype=dtype, bound=bound, name=name
        )
        return SharedArray(self, None, frac_bits, largest, given=given)

    def reveal(self, x: SharedArray, to: str | None = None) -> Any:
        """Reveal `x` to one party, or to all.

        Parameters
        ----------
        x : SharedArray
        to : str, optional
            The party that learns the value; default all.

        Returns
        -------
        float64 or int64 array, or a scalar
            Values with twice the fractional bits are truncated first, so that nothing beyond the
            format's precision is revealed.

        Notes
        -----
        1 round, 8 bytes an element to each party that learns the value; before it, 1 round and
        8 bytes an element if `x` needs truncation. In a plan the result is all zeros.
        """
        return sharing.reveal(self.check_own(x, "x"), to=to)

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

    def plan(self, program: Callable[[Session], object]) -> Plan:
        """Run `program` without any party, to learn what it costs and asks of the provider.

        Parameters
        ----------
        program : callable
            Takes a session. It may share real arrays, of which only the shapes are used, or None.

        Returns
        -------
        Plan

        Examples
        --------
        >>> import mpc
        >>> s = mpc.Session()
        >>> plan = s.plan(lambda p: p.share(None, owner="bob", shape=(10,)).relu().reveal())
        >>> plan.cost.rounds, plan.cost.bytes_sent_per_party
        (5, 288)
        """
        self.check_open()
        planned = object.__new__(Session)
        planned.parties, planned.format, planned.memory_limit = (
            self.parties,
            self.format,
            self.memory_limit,
        )
        planned._start((), [], None)
        program(planned)
        return Plan(planned.cost(), tuple(planned._asked))

    # What protocols are made of.

    @property
    def size(self) -> int:
        """How many computing parties there are."""
        return len(self.parties)

    @property
    def first_row(self) -> int | None:
        """Where on the party axis the first party is, which adds public values; None if elsewhere."""
        return self.here.index(0) if 0 in self.here else None

    def number(self, party: str, name: str = "party") -> int:
        """Return the number of a party, or raise PartyError."""
        if party not in self.parties:
            raise PartyError(f"{name} must be one of {', '.join(self.parties)}, got {party!r}")
        return self.parties.index(party)

    def check_open(self) -> None:
        """Raise SessionError if the session is closed."""
        if self._closed:
            raise SessionError("the session is closed")

    def check_own(self, x: object, name: str) -> SharedArray:
        """Return `x` if it is a shared array of this session, or raise."""
        if not isinstance(x, SharedArray):
            raise DtypeError(f"{name} must be a SharedArray, got {type(x).__name__}")
        if x.session is not self:
            raise SessionError(f"{name} belongs to another session")
        self.check_open()
        return x

    def fresh_id(self) -> int:
        """Return the next id. Every party counts alike, and no id is used twice."""
        self._next_id += 1
        return self._next_id

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
        sent = [0] * self.size
        for words, opening in messages:
            for party in range(self.size):
                if opening in ("sum", "xor", party):
                    sent[party] += 8 * (self.size - 1) * _size(words)
        self._ledger.add_round(sent)
        return self._transport.open(messages)

    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party: the others send it their shares."""
        self.check_open()
        sent = [8 * _size(shares)] * self.size
        sent[party] = 0
        self._ledger.add_round(sent)
        return self._transport.open_to(party, shares)

    def correlated(self, correlation: Correlation) -> tuple[int, Words]:
        """Get this process's shares of a correlation.

        Returns
        -------
        int
            The correlation's id.
        uint64 array of shape (p, mask words + corrected words)
            To be cut by `correlation.split`.
        """
        self.check_open()
        id = self.fresh_id()
        masks, corrected = correlation.mask_words, correlation.corrected_words
        words = np.empty((len(self.here), masks + corrected), np.uint64)
        for row, party in zip(words, self.here, strict=True):
            if party < self.size - 1:
                self.streams[party].provider.fill(row, id)
                continue
            self.streams[party].provider.fill(row[:masks], id)
            if corrected:
                assert self._provider is not None
                self._provider.correct(id, correlation, row[masks:])
        if corrected:
            self._ledger.add_correction(8 * corrected)
        if not self.here:
            self._asked.append((id, correlation))
        return id, words


def _size(shares: Words) -> int:
    return int(np.prod(shares.shape[1:], dtype=np.int64))
