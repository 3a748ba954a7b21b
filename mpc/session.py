"""Sessions: who the parties are, what they hold in common, and what it has cost."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from mpc import configuration
from mpc.configuration import Configuration
from mpc.correlation import Correlation
from mpc.cost import Cost, Ledger
from mpc.errors import ArgumentError, DtypeError, PartyError, PeerError, SessionError
from mpc.events import record
from mpc.joining import Links, join_parties
from mpc.keys import PartyStreams, fresh_streams, party_streams
from mpc.owner import Owner
from mpc.planning import Plan, Planning
from mpc.protocols import range_check, sharing
from mpc.provider import Provider
from mpc.ranges import MODES, RangePolicy
from mpc.remote_provider import RemoteProvider
from mpc.requests import Block
from mpc.rounds import Rounds
from mpc.shared_array import SharedArray
from mpc.transport.connection import wait
from mpc.transport.frames import Kind
from mpc.transport.local import LocalTransport
from mpc.transport.remote import RemoteTransport, located
from ring import FixedPoint, processes

__all__ = ["Plan", "Session"]


def agreed(program: str | None, ranges: str) -> str | None:
    """Return what all parties must run alike: the program, and how its ranges are checked."""
    return program if ranges == "warn" else f"{program or ''}, ranges={ranges}"


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


class Session(Planning, Rounds):
    """Computing parties and a crypto provider, ready to compute on shares.

    Without `me`, all of them live in this process, in lock step: for notebooks, tests and first
    contact. With `me`, this process is that party alone; the others run the same program on their
    machines, and all meet as ``parties.toml`` says. The parties are semi-honest, any number of
    them short of all may collude, and the provider colludes with nobody. Keys are fresh from the
    operating system's generator. A session serves one process, and in it one thread at a time, see
    :meth:`hand_over`; threads and processes that work side by side make a session each.

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
    ranges : {"values", "check", "warn", "error"}, optional
        What is done where the public bounds of the operands do not prove that a result stays below
        2^62, encoded, beyond which the ring gives wrong numbers. "values": the operation is checked
        on the values, which all are in this process; a result out of range is a RangeError. It is
        the default without `me`, and only there. "warn": a :class:`mpc.RangeWarning`, once a place
        of the program; the default with `me`. "error": a RangeError before anything is sent.
        "check": the parties check on shares, open one bit for the operation, and all raise a
        RangeError or none. All parties must say the same.

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
    _provider_leaves = False

    def __init__(
        self,
        parties: Sequence[str] | str | Path = ("alice", "bob"),
        *,
        me: str | None = None,
        program: str | None = None,
        frac_bits: int | None = None,
        int_bits: int | None = None,
        memory_limit: int = 1 << 28,
        ranges: str | None = None,
    ) -> None:
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1:
            raise ArgumentError(
                f"memory_limit must be a positive number of bytes, got {memory_limit!r}"
            )
        self.memory_limit = memory_limit
        if ranges is not None and ranges not in MODES:
            raise ArgumentError(f"ranges must be one of {', '.join(MODES)}, got {ranges!r}")
        if me is not None:
            self._join(parties, me, program, frac_bits, int_bits, ranges)
            return
        if program is not None:
            raise ArgumentError("program is for a session with me=")
        self.parties = _check_parties(parties)
        self.format = FixedPoint(
            16 if frac_bits is None else frac_bits, 15 if int_bits is None else int_bits
        )
        streams, provider_keys = fresh_streams(len(self.parties))
        here = tuple(range(len(self.parties)))
        self._start(
            here, streams, Provider(provider_keys), LocalTransport(), ranges or "values"
        )  # fmt: skip

    def _join(
        self,
        parties: Sequence[str] | str | Path,
        me: str,
        program: str | None,
        frac_bits: int | None,
        int_bits: int | None,
        ranges: str | None,
    ) -> None:
        if ranges == "values":
            raise ArgumentError(
                "ranges='values' is for a session whose parties all live in this process; with me="
                " there are 'warn', 'error' and 'check'"
            )
        if not isinstance(parties, (str, Path)):
            raise DtypeError(
                f"parties must be the path of a configuration for me={me!r}, got {parties!r}"
            )
        if frac_bits is not None or int_bits is not None:
            raise ArgumentError(f"frac_bits and int_bits for me={me!r} go into {parties}")
        read = configuration.load(parties)
        if me not in read.parties:
            raise PartyError(f"me must be one of {', '.join(read.names)}, got {me!r}")
        ranges = ranges or "warn"
        self._meet(read, me, join_parties(read, me, agreed(program, ranges)), ranges)

    def _meet(self, read: Configuration, me: str, links: Links, ranges: str = "warn") -> None:
        """Start with connections that are there already."""
        self.parties, self.format = read.names, read.format
        self.configuration, self.session_id = read, links.session
        number = read.names.index(me)
        streams = party_streams(links.provider_key, links.pair_keys)
        limits = read.timeouts
        provider = None
        if number == len(read.names) - 1:
            provider = RemoteProvider(links.provider, limits.answer, self._where, self.book_request)
        transport = RemoteTransport(
            number, links.peers, links.provider, limits.party, self._where, provider
        )
        self._start((number,), {number: streams}, provider, transport, ranges)
        self._number, self._began = links.session.hex()[:8], time.monotonic()
        self._provider_link = links.provider
        if provider is None:
            links.provider.expect_bytes([Kind.NOTICE], 0)  # nothing but the end

    @property
    def ranges(self) -> str:
        """What is done where the bounds do not prove that a result fits, see :mod:`mpc.ranges`."""
        return self.range_policy.mode

    @classmethod
    def from_links(
        cls,
        read: Configuration,
        me: str,
        links: Links,
        memory_limit: int = 1 << 28,
        ranges: str = "warn",
    ) -> Session:
        """Make a session of one party over connections that have shaken hands (for services)."""
        session = object.__new__(cls)
        session.memory_limit = memory_limit
        session._meet(read, me, links, ranges)
        return session

    def _start(
        self,
        here: tuple[int, ...],
        streams: list[PartyStreams] | dict[int, PartyStreams],
        provider: Provider | RemoteProvider | None,
        transport: LocalTransport | RemoteTransport | None = None,
        ranges: str = "values",
        warned: set[tuple[str, int, str]] | None = None,
    ) -> None:
        self.here = here
        self.range_policy = RangePolicy(
            ranges,
            self.values_of if here else None,
            range_check.inside,
            range_check.within,
            warned,
        )
        # Where on the party axis the first party is, which adds public values; None if elsewhere.
        self.first_row = here.index(0) if 0 in here else None
        # By the party's number, for those who live here.
        self.streams = streams
        self._provider = provider
        self._transport = transport or LocalTransport()
        self._ledger = Ledger(len(self.parties))
        self._asked: list[tuple[int, Correlation]] = []
        self._endings: dict[Callable[[], None], None] = {}
        self._next_id = self._prepared = 0
        self._known: OrderedDict[Hashable, Block] = OrderedDict()
        self._closed = False
        self._owner = Owner()

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

    def __reduce__(self) -> Any:
        # A copy would use the same masks for other values.
        raise SessionError("a session cannot be copied or pickled: both would use the same masks")

    def close(self) -> None:
        """End the session: its keys are dropped, its arrays can no longer be used."""
        self._end(None)

    def _end(self, problem: str | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._owner.generation != processes.generation:
            # The connections are the parent's, which goes on.
            self.streams, self._provider = [], None
            return
        if isinstance(self._transport, RemoteTransport):
            total, (sent, received) = self._ledger.cost().total, self.bytes_on_the_wire
            record(
                "session", warning=problem is not None, session=self._number, me=str(self.me),
                parties=",".join(self.parties), rounds=total.rounds, sent=sent, received=received,
                seconds=time.monotonic() - self._began, problem=problem or "-",
            )  # fmt: skip
        self.streams = []
        self._provider = None
        self._known.clear()
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
            Floats become fixed-point values in the session's format; integers stay whole numbers,
            and bools are secret bits, as ``& | ^ ~`` and ``np.where`` take them. None where `owner`
            does not live (then `shape` says what is coming).
        owner : str
            A computing party.
        shape : sequence of int, optional
            The shape of `x`; required if it is None.
        dtype : dtype, optional
            What to take `x` as, default its own dtype, or float if it is None.
        bound : float, optional
            A public bound on the magnitude of `x`, checked at the owner. It follows every
            operation, and makes comparisons cheaper. Default: the format's limit.
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
        plaintext, frac_bits, largest, binary = sharing.share(
            self, x, self.number(owner, "owner"), shape=shape, dtype=dtype, bound=bound, name=name
        )
        return SharedArray(self, None, frac_bits, largest, plaintext=plaintext, binary=binary)

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
            Values with twice the fractional bits are truncated first.

        Notes
        -----
        1 round, 8 bytes an element to each party that learns the value; before it, 1 round and
        8 bytes an element if `x` needs truncation. In a plan the result is all zeros.

        Of a product z that is truncated to be revealed, more is learnt than the result: z + U
        exactly, for each element a U that is uniform below one unit of the result's last place, by
        the computing parties that learn the result. What truncation opened to all of them says at
        which fraction it rounds up, and the result says the rest; that alone says nothing to those
        that do not learn the result. The truncated array is kept, so that revealing `x` again, to
        whomever, tells no more and costs no truncation. What is computed anew from the same operands,
        or a view of `x`, is an array of its own with another U.
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
        policy = self.range_policy
        # What a plan has warned of, the run warns of again.
        planned._start((), [], None, ranges=policy.mode, warned=set(policy.places))
        planned._next_id = first_id
        return planned

    def look_for_provider(self) -> bool:
        """Return whether the provider has said that it leaves (for services that wait for requests).

        The last party, which has other things to expect of it, is told by the others.

        Raises
        ------
        PeerError
            If the provider is gone.
        """
        if self.here[0] < self.size - 1:
            try:
                if wait([self._provider_link], 0.0):
                    self._provider_link.take()
                    self._provider_leaves = True
                    self._provider_link.expect_bytes([], 0)
            except PeerError as error:
                raise located(error, self._where()) from None
        return self._provider_leaves

    def at_end(self, ending: Callable[[], None]) -> None:
        """Let `ending` be called, once, when the session ends."""
        self._endings[ending] = None
