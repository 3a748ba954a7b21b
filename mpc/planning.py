"""Plans: what a program will ask for, found out by running it where no party lives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from mpc.correlation import Correlation
from mpc.cost import Cost
from mpc.errors import DtypeError, SessionError
from mpc.remote_provider import RemoteProvider
from mpc.requests import Block

if TYPE_CHECKING:
    from mpc.provider import Provider
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["Plan", "Planning"]

# How many plans a session keeps.
_KEPT = 256


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


class Planning:
    """The part of a session that plans."""

    if TYPE_CHECKING:
        here: tuple[int, ...]
        _provider: Provider | RemoteProvider | None
        _asked: list[tuple[int, Correlation]]
        _next_id: int
        _prepared: int
        _known: OrderedDict[Hashable, Block]

        def check_open(self) -> None: ...
        def book_request(self, count: int) -> None: ...
        def without_parties(self, first_id: int = 0) -> Session: ...

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
        planned = self.without_parties()
        program(planned)
        for frame in Block.of(planned._asked, 0, planned._next_id).frames(0):
            planned.book_request(len(frame))
        return Plan(planned.cost(), tuple(planned._asked))

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
        if not isinstance(self._provider, RemoteProvider) or self._next_id < self._prepared:
            return
        base = self._next_id
        block = self._planned(program, key, base)
        self._prepared = base + block.ids
        self._provider.announce(base, block)

    def _planned(
        self, program: Callable[[Session], object], key: Hashable | None, base: int
    ) -> Block:
        """Return what a program will ask for, planned now or under the same key before."""
        try:
            known = None if key is None else self._known.get(key)
        except TypeError:  # a mask seen through an index
            key = known = None
        if known is not None:
            self._known.move_to_end(key)
            return known
        planned = self.without_parties(base)
        planned.range_policy.quiet = True
        program(planned)
        block = Block.of(planned._asked, base, planned._next_id)
        if key is not None:
            self._known[key] = block
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return block

    def twin(self, x: SharedArray) -> SharedArray:
        """Return an array like `x` in this session where no party lives; see :meth:`prepare`."""
        if self.here:
            raise SessionError("twin is for the session that a plan runs with")
        if x.session is self:
            return x
        return x.without_shares(cast("Session", self))
