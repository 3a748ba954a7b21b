"""Sessions: who the parties are, what they hold in common, and what it has cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import configuration
from mpc.configuration import Configuration
from mpc.correlation import Correlation, Opening
from mpc.cost import Cost, Ledger
from mpc.errors import ArgumentError, DtypeError, PartyError, PeerError, SessionError
from mpc.handshake import Links, join_parties
from mpc.keys import PartyStreams, fresh_streams, party_streams
from mpc.planning import Plan, Planning
from mpc.protocols import sharing
from mpc.provider import Provider
from mpc.remote_provider import RemoteProvider
from mpc.shared_array import SharedArray
from mpc.transport.local import LocalTransport
from mpc.transport.remote import RemoteTransport
from ring import FixedPoint

__all__ = ["Plan", "Session"]

Words = NDArray[np.uint64]


def _check_parties(parties: Iterable[str] | Path) -> tuple[str, ...]:
    if isinstance(parties, (str, Path)):
        raise DtypeError(
            f"parties must be a sequence of names, got the string {str(parties)!r}; the path of a"
            " configuration goes with me="
        )
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


class Session(Planning):
    """Computing parties and a crypto provider, ready to compute on shares.

    Without `me`, all of them live in this process, in lock step: for notebooks, tests and first
    contact. With `me`, this process is that party alone; the others run the same program on their
    machines, and all meet as ``parties.toml`` says. The parties are semi-honest, any number of
    them short of all may collude, and the provider colludes with nobody. Keys are fresh from the
    operating system's generator.

    Parameters
    ----------
    parties : sequence of str, or path, default=("alice", "bob")
        At least two different names. With `me`, the path of a configuration: ``sotto init`` writes
        an example.
    me : str, optional
        The computing party that this process is. It listens at its address, and waits for the
        others.
    program : str, optional
        With `me`: name and version of what is going to run, which all parties must agree on.
    frac_bits, int_bits : int, default=16 and 15
        The fixed-point format: values below ``2**int_bits`` in steps of ``2**-frac_bits``. With
        `me`, the configuration has it.
    memory_limit : int, default=2**28
        Bytes that a batch of a model's evaluation may take; more rows are cut into batches.

    Raises
    ------
    PartyError
        Fewer than two parties, or one named twice.
    RangeError
        A format whose products do not fit the ring.
    ConfigurationError
        With `me`: a configuration that is wrong; the message names the line.
    PeerError
        With `me`: somebody cannot be reached, is not who it should be, or disagrees on what runs.

    Examples
    --------
    >>> import mpc
    >>> with mpc.Session() as s:
    ...     x = s.share([1.5, -2.0], owner="alice")
    ...     y = s.share([2.0, 4.0], owner="bob")
    ...     (x * y).reveal()
    array([ 3., -8.])
    """

    # Of a session of one party.
    configuration: Configuration | None = None
    session_id = b""

    def __init__(
        self,
        parties: Sequence[str] | str | Path = ("alice", "bob"),
        *,
        me: str | None = None,
        program: str | None = None,
        frac_bits: int | None = None,
        int_bits: int | None = None,
        memory_limit: int = 1 << 28,
    ) -> None:
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1:
            raise ArgumentError(
                f"memory_limit must be a positive number of bytes, got {memory_limit!r}"
            )
        self.memory_limit = memory_limit
        if me is not None:
            self._join(parties, me, program, frac_bits, int_bits)
            return
        if program is not None:
            raise ArgumentError("program is for a session with me=")
        self.parties = _check_parties(parties)
        self.format = FixedPoint(
            16 if frac_bits is None else frac_bits, 15 if int_bits is None else int_bits
        )
        streams, provider_keys = fresh_streams(len(self.parties))
        here = tuple(range(len(self.parties)))
        self._start(here, streams, Provider(provider_keys), LocalTransport())

    def _join(
        self,
        parties: Sequence[str] | str | Path,
        me: str,
        program: str | None,
        frac_bits: int | None,
        int_bits: int | None,
    ) -> None:
        if not isinstance(parties, (str, Path)):
            raise DtypeError(
                f"parties must be the path of a configuration for me={me!r}, got {parties!r}"
            )
        if frac_bits is not None or int_bits is not None:
            raise ArgumentError(f"frac_bits and int_bits for me={me!r} go into {parties}")
        read = configuration.load(parties)
        if me not in read.parties:
            raise PartyError(f"me must be one of {', '.join(read.names)}, got {me!r}")
        self._meet(read, me, join_parties(read, me, program))

    def _meet(self, read: Configuration, me: str, links: Links) -> None:
        """Start with connections that are there already."""
        self.parties, self.format = read.names, read.format
        self.configuration, self.session_id = read, links.session
        number = read.names.index(me)
        streams = party_streams(links.provider_key, links.pair_keys)
        answer = read.timeouts.answer
        # The one that waits for the provider gives up first, and can tell the others whom it lost.
        provider = RemoteProvider(links.provider, 0.8 * answer, self._where)
        last = number == len(read.names) - 1
        transport = RemoteTransport(number, links.peers, links.provider, answer, self._where)
        self._start((number,), {number: streams}, provider if last else None, transport)

    @classmethod
    def from_links(
        cls, read: Configuration, me: str, links: Links, memory_limit: int = 1 << 28
    ) -> Session:
        """Make a session of one party over connections that have shaken hands (for services)."""
        session = object.__new__(cls)
        session.memory_limit = memory_limit
        session._meet(read, me, links)
        return session

    def _start(
        self,
        here: tuple[int, ...],
        streams: list[PartyStreams] | dict[int, PartyStreams],
        provider: Provider | RemoteProvider | None,
        transport: LocalTransport | RemoteTransport | None = None,
    ) -> None:
        self.here = here
        # By the party's number, for those who live here.
        self.streams = streams
        self._provider = provider
        self._transport = transport or LocalTransport()
        self._ledger = Ledger(len(self.parties))
        self._asked: list[tuple[int, Correlation]] = []
        self._endings: dict[Callable[[], None], None] = {}
        self._next_id = self._prepared = 0
        self._closed = False

    def _where(self) -> str:
        """Return the round and the step, for errors."""
        step = self._ledger.step
        return f"round {self._ledger.rounds}{f' ({step})' if step else ''}"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, PeerError):
            self._end(None if error is None else str(error))
        else:
            # The text of the error may name values, its type does not.
            self._end(f"{type(error).__name__} after {self._where()}")

    def __repr__(self) -> str:
        form = f"frac_bits={self.format.frac_bits}, int_bits={self.format.int_bits}"
        return f"Session(parties={self.parties}, {form}{', closed' if self._closed else ''})"

    def close(self) -> None:
        """End the session: its keys are dropped, its arrays can no longer be used."""
        self._end(None)

    def _end(self, problem: str | None) -> None:
        if self._closed:
            return
        self._closed = True
        if isinstance(self._provider, RemoteProvider):
            self._provider.close()
        self.streams = []
        self._provider = None
        self._transport.close(problem)
        for ending in self._endings:
            ending()

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
        float64 or int64 array, or a scalar; None where `to` does not live
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

    def without_parties(self, first_id: int = 0) -> Session:
        """Return a session of the same parties where nobody lives (for plans)."""
        planned = object.__new__(Session)
        planned.parties, planned.format, planned.memory_limit = (
            self.parties,
            self.format,
            self.memory_limit,
        )
        planned.configuration = self.configuration
        planned._start((), [], None)
        planned._next_id = first_id
        return planned

    # What protocols are made of.

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

    def at_end(self, ending: Callable[[], None]) -> None:
        """Let `ending` be called, once, when the session ends."""
        self._endings[ending] = None

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
        sent = [0] * self.size
        for words, opening in messages:
            for party in range(self.size):
                if opening in ("sum", "xor", party):
                    sent[party] += 8 * (self.size - 1) * _size(words)
        self._ledger.add_round(sent)
        try:
            return self._transport.open(messages)
        except PeerError as error:
            self._end(str(error))
            raise

    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party: the others send it their shares."""
        self.check_open()
        sent = [8 * _size(shares)] * self.size
        sent[party] = 0
        self._ledger.add_round(sent)
        try:
            return self._transport.open_to(party, shares)
        except PeerError as error:
            self._end(str(error))
            raise

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
        self.note(type(correlation).__name__, id, masks, corrected)
        if corrected and isinstance(self._provider, RemoteProvider):
            try:
                words = self._provider.words(id, correlation)[None]
            except PeerError as error:
                self._end(str(error))
                raise
            self.streams[self.here[0]].provider.fill(words[0, :masks], id)
        else:
            words = np.empty((len(self.here), masks + corrected), np.uint64)
            self._expand(id, correlation, words, masks)
        if corrected:
            self._ledger.add_correction(8 * corrected)
        if not self.here:
            self._asked.append((id, correlation))
        return id, words

    def _expand(self, id: int, correlation: Correlation, words: Words, masks: int) -> None:
        """Fill in the shares of a correlation that follow from keys held in this process."""
        for row, party in zip(words, self.here, strict=True):
            if party < self.size - 1:
                self.streams[party].provider.fill(row, id)
                continue
            self.streams[party].provider.fill(row[:masks], id)
            if masks < len(row):
                assert self._provider is not None and not isinstance(self._provider, RemoteProvider)
                self._provider.correct(id, correlation, row[masks:])


def _size(shares: Words) -> int:
    return int(np.prod(shares.shape[1:], dtype=np.int64))
