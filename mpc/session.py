"""Sessions: the computing parties, sharing and revealing, plans, and the cost so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from mpc import session_setup
from mpc.array.shared_array import SharedArray
from mpc.core.cost import Ledger
from mpc.core.errors import (
    ArgumentError,
    DtypeError,
    PartyError,
    PeerError,
    SessionError,
    StockError,
)
from mpc.core.network import Network
from mpc.core.ranges import MODES
from mpc.core.runtime import MEMORY_LIMIT
from mpc.core.setup import Setup
from mpc.core.watching import MALICIOUS, SECURITY
from mpc.parties import configuration
from mpc.parties.configuration import Configuration
from mpc.parties.joining import Links, join_parties
from mpc.planning import Bundles, Plan, Recorded, Repeats
from mpc.preparing import SessionThatPrepares
from mpc.protocols import masking, sharing
from mpc.session_setup import agreed
from mpc.transport.local import LocalTransport
from mpc.two_party import joint

__all__ = ["Plan", "Session", "SessionAt"]


class Session(SessionThatPrepares):
    """Computing parties, with a crypto provider or two of them alone, ready to compute on shares.

    Without `me`, all of them live in this process, in lock step: for notebooks, tests and first
    contact. With `me`, this process is that party alone; the others run the same program on their
    machines, and all meet as ``parties.toml`` says. The parties are semi-honest, any number of
    them short of all may collude, and the provider, if there is one, colludes with nobody; `security`
    can have one of three parties or more deviate in any way. Keys are
    fresh from the operating system's generator. A session serves one process, and in it one thread at
    a time, see :meth:`hand_over`; threads and processes that work side by side make a session each.

    Parameters
    ----------
    parties : sequence of str, or path, default=("alice", "bob")
        At least two different names. With `me`, the path of a configuration: ``sotto init`` writes
        an example.
    me : str, optional
        The computing party that this process is. It listens at its address, and waits for the
        others.
    program : str, optional
        With `me`: name and version of the program, on which all parties must agree.
    frac_bits, int_bits : int, default=16 and 15
        The fixed-point format: values below ``2**int_bits`` in steps of ``2**-frac_bits``. With
        `me`, the configuration has it.
    memory_limit : int, default=2**28
        Bytes that a batch of a model's evaluation may take; more rows are cut into batches.
        All parties must choose the same, as a session checks when it begins: what is sent follows from it.
    ranges : {"values", "check", "warn", "error"}, optional
        What happens where the public bounds of the operands do not prove that the encoded result
        stays below 2^62; beyond that, results are wrong. "values": the operation is checked on the
        values, which are all in this process, and a result out of range is a RangeError; the default
        without `me`, and possible only there. "warn": a :class:`mpc.RangeWarning`, once for each
        place in the program; the default with `me`. "error": a RangeError before anything is sent.
        "check": the parties check on shares and open one bit for the operation; all of them raise a
        RangeError or none. All parties must choose the same.
    provider : {"crypto", None}, optional
        Who makes the correlated randomness. "crypto": a crypto provider; the default without `me`.
        None: the two parties, with each other, by oblivious transfers and ring-LWE. That takes nobody
        else, but more rounds and bytes, and more assumptions. With `me`, the configuration says which.
    transfers : {"softspoken", "ferret"}, optional
        Without a provider: how the parties extend their oblivious transfers. "softspoken", the default,
        takes no assumption more than AES. "ferret" sends far fewer bytes, for thin networks, and assumes
        that learning parity with regular noise is hard. With `me`, the configuration says which.
    network : mpc.Network, optional
        A network to choose by how many rounds each ReLU takes, see ``session.cost().forms``: for plans of
        what a session over that network takes. With `me`, ``[network]`` of the configuration says it, or
        that it is measured.
        Default: three, or four of very many elements at once.
    security : {"semi-honest", "malicious"}, optional
        What the parties are trusted to do. "semi-honest", the default without `me`: to run the program.
        "malicious", for three parties or more and a provider: one of them may deviate in any way, and
        then the session ends at the others with an :class:`mpc.AbortError` before anything is revealed.
        Half of them together, of three any two, see everything. With `me`, ``security`` of the
        configuration says it.

    Raises
    ------
    PartyError
        Fewer than two parties, one named twice, more than two without a provider, or fewer than three
        with ``security="malicious"``.
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

    Alice and bob, and nobody else:

    >>> with mpc.Session(provider=None) as s:
    ...     x = s.share([1.5, -2.0], owner="alice")
    ...     y = s.share([2.0, 4.0], owner="bob")
    ...     (x * y).reveal()
    array([ 3., -8.])

    Three, of whom one may deviate:

    >>> with mpc.Session(("alice", "bob", "carol"), security="malicious") as s:
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
        memory_limit: int = MEMORY_LIMIT,
        ranges: str | None = None,
        provider: str | None = session_setup.DEFAULT,
        transfers: str | None = None,
        network: Network | None = None,
        security: str | None = None,
    ) -> None:
        if provider is not None and (
            not isinstance(provider, str)
            or provider not in (session_setup.PROVIDER, session_setup.DEFAULT)
        ):
            raise ArgumentError(
                f"provider must be {session_setup.PROVIDER!r}, or None for two parties alone, got"
                f" {provider!r}"
            )
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1:
            raise ArgumentError(
                f"memory_limit must be a positive number of bytes, got {memory_limit!r}"
            )
        if ranges is not None and not (isinstance(ranges, str) and ranges in MODES):
            raise ArgumentError(f"ranges must be one of {', '.join(MODES)}, got {ranges!r}")
        if transfers is not None:
            joint.check_transfers(transfers)
            if me is not None or provider is not None:
                raise ArgumentError(
                    "transfers is for a session with provider=None and without me=; else parties.toml"
                    " says it"
                )
        if network is not None and not isinstance(network, Network):
            raise DtypeError(f"network must be an mpc.Network, got {network!r}")
        if security is not None and (not isinstance(security, str) or security not in SECURITY):
            raise ArgumentError(f"security must be one of {', '.join(SECURITY)}, got {security!r}")
        if me is None:
            if program is not None:
                raise ArgumentError("program is for a session with me=")
            self._begin(
                session_setup.local(
                    parties,
                    frac_bits,
                    int_bits,
                    memory_limit,
                    ranges or "values",
                    provider,
                    transfers or "softspoken",
                    network,
                    security == MALICIOUS,
                )
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
        if network is not None:
            raise ArgumentError(f"network for me={me!r} goes into {parties}, as [network]")
        read = configuration.load(parties)
        if me not in read.parties:
            raise PartyError(f"me must be one of {', '.join(read.names)}, got {me!r}")
        session_setup.check_provider(read, provider)
        if security not in (None, read.security):
            raise ArgumentError(
                f"security with me= is what the configuration says: {read.path} has"
                f" security = {read.security!r}, got {security!r}"
            )
        ranges = ranges or "warn"
        links = join_parties(read, me, agreed(program, ranges), memory_limit=memory_limit)
        self._begin(session_setup.joined(read, me, links, ranges), read)

    def _begin(self, setup: Setup, read: Configuration | None = None, last_id: int = 0) -> None:
        super().__init__(setup, last_id)
        # None where all parties live in this process.
        self.configuration = read
        self._bundles = Bundles()
        self._repeats = Repeats(setup.source)
        # The last id for which correlations were announced to the source.
        self._announced = 0
        if setup.source.own_shares and self.here:
            try:
                joint.begin(self)
            except BaseException as error:
                # Nobody has this session yet who could end it.
                self.__exit__(type(error), error, None)
                raise

    @property
    def ranges(self) -> str:
        """The mode of the range policy: what is done where bounds prove nothing, see the class."""
        return self.range_policy.mode

    @staticmethod
    def from_links(
        read: Configuration,
        me: str,
        links: Links,
        ranges: str = "warn",
    ) -> Session:
        """Make a session of party `me` over connections whose handshake is done (for services)."""
        return SessionAt(session_setup.joined(read, me, links, ranges), read)

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
            # The other parties get the error's type alone: its text may name values.
            self._end(f"{type(error).__name__} after {self._ledger.where()}")

    def __repr__(self) -> str:
        bits = f"frac_bits={self.format.frac_bits}, int_bits={self.format.int_bits}"
        read = self.configuration
        audited = (
            f", auditor='{read.auditor.name}' (rate {read.audit_rate:g}"
            f"{', signed' if read.audit_signed else ''})"
            if read is not None and read.auditor is not None
            else ""
        )
        security = "" if self.watch is None else f", security={self.security!r}"
        return (
            f"Session(parties={self.parties}, {bits}{security}{audited}"
            f"{', closed' if self._closed else ''})"
        )

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
            and bools are secret bits, for ``& | ^ ~`` and ``np.where``. None in a process where
            `owner` does not live; `shape` is required there.
        owner : str
            A computing party.
        shape : sequence of int, optional
            The shape of `x`; required if it is None.
        dtype : dtype, optional
            The dtype that `x` is converted to; default its own, or float if `x` is None.
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
        No rounds, no bytes: every other party expands its share from a key that it shares with the
        owner. With ``security="malicious"`` 1 round, in which the owner sends 16 bytes an element.
        """
        self.check_open()
        plaintext, frac_bits, largest, binary = sharing.share(
            self, x, self.number(owner, "owner"), shape=shape, dtype=dtype, bound=bound, name=name
        )
        if self.watch is not None:
            mask = masking.mask_input(plaintext)
            return SharedArray(self, None, frac_bits, largest, mask=mask, binary=binary)
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
        1 round, 8 bytes an element to each party that learns the value; 16 if `x` is truncated for it.
        With ``security="malicious"`` 1 round of 32 bytes before it and another one after it, in which
        the parties check each other.
        Without a provider truncation takes rounds of its own. In a plan the result is all zeros.

        If a product z is truncated to be revealed, a computing party that learns the result learns
        more: z + U exactly, where U is uniform, for each element, below one unit of the result's last
        place. The value that truncation opens says at which fraction z is rounded up; it tells nothing
        to a party that does not learn the result. The truncated array is kept, so that revealing `x`
        again, to any party, tells no more, nor does what ReLU, clipping and functions by pieces make of
        it. A view of `x`, `x` plus a number, or the same product computed again, is an array of its own
        with another U; means, quotients, softmax and products of `x` with public numbers round anew.
        """
        return sharing.reveal(self.check_own(x, "x"), to=to)

    # Plans.

    def plan(self, program: Callable[[Session], object]) -> Plan:
        """Run `program` in a session where no party lives, to find its cost and its correlations.

        Parameters
        ----------
        program : callable
            Takes a session. It may share arrays, of which only shapes and dtypes are used, or None.

        Returns
        -------
        Plan
            Its trips are those of a session that has just begun.

        Examples
        --------
        >>> import mpc
        >>> s = mpc.Session()
        >>> plan = s.plan(lambda p: p.share(None, owner="bob", shape=(10,)).relu().reveal())
        >>> plan.cost.rounds, plan.cost.bytes_sent_per_party
        (4, 248)
        """
        self.check_open()
        if not callable(program):
            raise DtypeError(f"program must take a session, got {program!r}")
        recorded = Recorded(self.source)
        planned = self.without_parties(source=recorded)
        program(planned)
        bundle = self.source.bundle(recorded.asked, 0, planned.last_id)
        self.source.book_bundle(bundle, planned._ledger)
        return Plan(planned.cost(), tuple(recorded.asked), *joint.needs_of(planned))

    def prepares(self) -> bool:
        """Return whether :meth:`prepare` asks for anything now; if not, it need not be called."""
        self.check_open()
        self._ledger.ask()
        alone = self.pair is not None and not self.pair.planning
        return (self.source.works_ahead or alone) and self.last_id >= self._announced

    def without_parties(
        self, last_id: int = 0, source: Recorded | None = None, *, ahead: bool = False
    ) -> Session:
        """Return a session of the same parties where nobody lives (for plans).

        With `ahead` it is for what two parties alone can make ahead, whatever they have.
        """
        policy = self.range_policy
        setup = Setup(
            parties=self.parties, here=(), format=self.format, memory_limit=self.memory_limit,
            streams={}, source=source or Recorded(self.source), transport=LocalTransport(),
            ledger=Ledger(self.size),
            # A copy of the places: the run warns again of what a plan has warned of.
            range_policy=session_setup.policy(policy.mode, (), set(policy.places)),
            network=self.network, watch=None if self.watch is None else self.watch.planned(),
        )  # fmt: skip
        planned = SessionAt(setup, self.configuration, last_id)
        joint.begin_plan(planned, self, ahead=ahead)
        return planned

    def worker_count(self, n_jobs: int | None, rows: int) -> int:
        """Return over how many workers to spread rows: -1 for as many as joblib offers, 1 for none.

        Parameters
        ----------
        n_jobs : int, optional
            Default: ``n_jobs`` of ``[workers]`` in parties.toml, or 1 without it. As long as there is
            something that was made ahead (:meth:`prepare_ahead`), it is 1: workers take none of it.
        rows : int

        Raises
        ------
        ArgumentError
            If `n_jobs` is neither at least 1 nor -1, or asks for workers in a session where all parties
            live in this process.
        StockError
            If it asks for workers while there is something that was made ahead, or to make it.
        """
        stock = self.pair is not None and self.pair.in_advance
        if n_jobs is None:
            if stock:
                return 1
            default = self.configuration.workers if self.configuration else None
            n_jobs = default.n_jobs if default and rows >= default.rows else 1
        if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
            raise ArgumentError(
                f"n_jobs must be a whole number of at least 1, or -1, got {n_jobs!r}"
            )
        if n_jobs != 1 and len(self.residents) > 1:
            raise ArgumentError(
                f"n_jobs must be 1 where all parties live in one process, got {n_jobs}: that process"
                " uses all cores already; workers are for parties apart, mpc.Session(me=...)"
            )
        if n_jobs != 1 and stock:
            raise StockError(
                f"n_jobs must be 1 for what is made ahead, got {n_jobs}: workers take nothing from a stock;"
                " leave n_jobs out until it is used up, or prepare none"
            )
        return n_jobs if rows > 1 else 1

    def twin(self, x: SharedArray) -> SharedArray:
        """Return the counterpart of `x` in this session, where no party lives; see :meth:`prepare`."""
        if self.here:
            raise SessionError("twin is for the session that plan and prepare pass to a program")
        if x.session is self:
            return x
        twin = x.without_shares(self)
        if self.pair is not None and x.session.here:
            self.pair.constants.add(x, twin)
        return twin


class SessionAt(Session):
    """A session made from its components (for services and plans)."""

    def __init__(
        self, setup: Setup, configuration: Configuration | None = None, last_id: int = 0
    ) -> None:
        self._begin(setup, configuration, last_id)
