"""Sessions: who the parties are, what they hold in common, and what it has cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from mpc import session_setup
from mpc.array.shared_array import SharedArray
from mpc.core.cost import Ledger
from mpc.core.errors import ArgumentError, DtypeError, PartyError, PeerError, SessionError
from mpc.core.ranges import MODES
from mpc.core.runtime import Runtime, Setup
from mpc.parties import configuration
from mpc.parties.configuration import Configuration
from mpc.parties.joining import Links, join_parties
from mpc.planning import Bundle, Bundles, Plan, Recorded
from mpc.protocols import sharing
from mpc.session_setup import agreed
from mpc.transport.local import LocalTransport

__all__ = ["Plan", "Session", "SessionAt"]


class Session(Runtime):
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
        if ranges is not None and ranges not in MODES:
            raise ArgumentError(f"ranges must be one of {', '.join(MODES)}, got {ranges!r}")
        if me is None:
            if program is not None:
                raise ArgumentError("program is for a session with me=")
            self._begin(
                session_setup.local(parties, frac_bits, int_bits, memory_limit, ranges or "values")
            )
            return
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
        session_setup.check_source(read)
        ranges = ranges or "warn"
        links = join_parties(read, me, agreed(program, ranges))
        self._begin(session_setup.joined(read, me, links, memory_limit, ranges), read)

    def _begin(self, setup: Setup, read: Configuration | None = None, first_id: int = 0) -> None:
        super().__init__(setup, first_id)
        # Of a session of one party, and of its plans.
        self.configuration = read
        self._bundles = Bundles()
        # What was announced goes up to this id.
        self._prepared = 0

    @property
    def ranges(self) -> str:
        """What is done where the bounds do not prove that a result fits, see :mod:`mpc.core.ranges`."""
        return self.range_policy.mode

    @staticmethod
    def from_links(
        read: Configuration,
        me: str,
        links: Links,
        memory_limit: int = 1 << 28,
        ranges: str = "warn",
    ) -> Session:
        """Make a session of one party over connections that have shaken hands (for services)."""
        return SessionAt(session_setup.joined(read, me, links, memory_limit, ranges), read)

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
            self._end(f"{type(error).__name__} after {self._ledger.where()}")

    def __repr__(self) -> str:
        form = f"frac_bits={self.format.frac_bits}, int_bits={self.format.int_bits}"
        return f"Session(parties={self.parties}, {form}{', closed' if self._closed else ''})"

    def __reduce__(self) -> Any:
        # A copy would use the same masks for other values.
        raise SessionError("a session cannot be copied or pickled: both would use the same masks")

    def close(self) -> None:
        """End the session: its keys are dropped, its arrays can no longer be used."""
        self._end(None)

    def check_own(self, x: object, name: str) -> SharedArray:
        """Return `x` if it is a shared array of this session, or raise."""
        if not isinstance(x, SharedArray):
            raise DtypeError(f"{name} must be a SharedArray, got {type(x).__name__}")
        if x.session is not self:
            raise SessionError(f"{name} belongs to another session")
        self.check_open()
        return x

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

    # Plans.

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
        if not callable(program):
            raise DtypeError(f"program must take a session, got {program!r}")
        recorded = Recorded(self.source)
        planned = self.without_parties(source=recorded)
        program(planned)
        bundle = self.source.bundle(recorded.asked, 0, planned._next_id)
        self.source.book_bundle(bundle, planned._ledger)
        return Plan(planned.cost(), tuple(recorded.asked))

    def prepare(self, program: Callable[[Session], object], key: Hashable | None = None) -> None:
        """Let the provider work ahead: tell it what `program`, which is about to run, will ask.

        Optional. Without it every correlation is asked for when it is needed, which takes a round
        trip to the provider each time.

        Parameters
        ----------
        program : callable
            Runs with a session where no party lives, as in :meth:`plan`. It reaches arrays of
            this session by ``planned.twin(x)``. What runs afterwards must ask for the same.
        key : hashable, optional
            All that the plan depends on: arrays enter it by :meth:`SharedArray.outline`. A program
            that was planned under an equal key is not planned again.

        Raises
        ------
        SessionError
            By what runs afterwards, if it asks for something else.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     x = s.share([1.5, -2.0], owner="alice")
        ...     s.prepare(lambda planned: planned.twin(x).relu().reveal())
        ...     x.relu().reveal()
        array([1.5, 0. ])
        """
        self.check_open()
        if not self.source.works_ahead or self._next_id < self._prepared:
            return
        base = self._next_id
        bundle = self._bundle(program, key, base)
        self._prepared = base + bundle.ids
        self.source.announce(base, bundle.asked)

    def _bundle(
        self, program: Callable[[Session], object], key: Hashable | None, base: int
    ) -> Bundle:
        """Return what a program will ask for, planned now or under the same key before."""
        known = self._bundles.get(key)
        if known is not None:
            return known
        recorded = Recorded(self.source)
        planned = self.without_parties(base, recorded)
        planned.range_policy.quiet = True
        program(planned)
        last = planned._next_id
        bundle = Bundle(last - base, self.source.bundle(recorded.asked, base, last))
        self._bundles.add(key, bundle)
        return bundle

    def without_parties(self, first_id: int = 0, source: Recorded | None = None) -> Session:
        """Return a session of the same parties where nobody lives (for plans)."""
        policy = self.range_policy
        setup = Setup(
            parties=self.parties, here=(), format=self.format, memory_limit=self.memory_limit,
            streams={}, source=source or Recorded(self.source), transport=LocalTransport(),
            ledger=Ledger(self.size),
            # What a plan has warned of, the run warns of again.
            range_policy=session_setup.policy(policy.mode, (), set(policy.places)),
        )  # fmt: skip
        return SessionAt(setup, self.configuration, first_id)

    def twin(self, x: SharedArray) -> SharedArray:
        """Return an array like `x` in this session where no party lives; see :meth:`prepare`."""
        if self.here:
            raise SessionError("twin is for the session that a plan runs with")
        if x.session is self:
            return x
        return x.without_shares(self)


class SessionAt(Session):
    """A session whose parties are in their places already (for services and plans)."""

    def __init__(
        self, setup: Setup, configuration: Configuration | None = None, first_id: int = 0
    ) -> None:
        self._begin(setup, configuration, first_id)
