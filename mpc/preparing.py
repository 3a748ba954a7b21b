"""What sessions ask a provider for, or two parties make, before the program that uses it runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from mpc.core.errors import DtypeError, FrameError
from mpc.planning import Bundle, Bundles, Recorded, Repeats
from mpc.stock import SessionWithStock
from mpc.two_party import joint
from ring.streams import OWN_IDS

__all__ = ["SessionThatPrepares"]


class SessionThatPrepares(SessionWithStock):
    """The part of a session that prepares programs.

    Attributes
    ----------
    _bundles, _repeats : Bundles, Repeats
        Of programs with a key.
    _announced : int
        The last id for which correlations were announced to the source.
    """

    _bundles: Bundles
    _repeats: Repeats
    _announced: int

    def prepares(self) -> bool:
        """Return whether :meth:`prepare` asks for anything now, see :class:`mpc.Session`."""
        raise NotImplementedError

    def prepare(self, program: Callable[[Any], object], key: Hashable | None = None) -> None:
        """Get the correlations of `program`, which is about to run, ahead of need.

        Optional. From the provider they are requested; without it each is requested when it is needed,
        with a round trip to the provider. Two parties alone make what needs oblivious transfers at
        once, in fewer rounds than when each is needed, but for what :meth:`prepare_ahead` has made.

        Parameters
        ----------
        program : callable
            Called with a session where no party lives, as by :meth:`plan`; ``planned.twin(x)`` stands
            there for an array x of this session. The program that runs next must use the same
            correlations in the same order.
        key : hashable, optional
            Everything that the plan depends on; an array x is represented by ``x.outline()``. With a
            key equal to that of an earlier call, that call's plan is used again.

        Raises
        ------
        DtypeError
            If `program` cannot be called.
        SessionError
            From the program that runs next, if it uses other correlations.

        Notes
        -----
        With an auditor all parties have to call it alike. What a program with a key has used twice or
        more is asked for ahead of its next runs, so that the auditor has checked it before they begin.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     x = s.share([1.5, -2.0], owner="alice")
        ...     s.prepare(lambda planned: planned.twin(x).relu().reveal())
        ...     x.relu().reveal()
        array([1.5, 0. ])
        """
        if not callable(program):
            raise DtypeError(f"program must take a session, got {program!r}")
        if not self.prepares():
            return
        self._return()
        base = behind = self.last_id
        kept = self._repeats.begin(key)
        if kept is not None:
            self.last_id, bundle = kept
        else:
            bundle = self._bundle(program, key, base)
            behind += bundle.ids
        self._announced = self.last_id + bundle.ids
        if self.pair is not None:
            joint.make_at_once(self, bundle.asked)
        elif kept is None:
            self.source.announce(base, bundle.asked)
        behind += self._repeats.ask(key, bundle, behind)
        if behind != self._announced:
            # The next ids are set aside for other runs: who runs another program must notice.
            self._detour = self._announced, behind
            self.note("ahead", self.last_id, behind)

    def drop_prepared(self) -> None:
        """Leave what a program that ends here was prepared with and has not used: 1 round, not booked.

        All parties call it, at the same place. Ids that were announced to the provider are not used.
        """
        self._repeats.clear()
        used, self._detour = max(self._announced, self.last_id, *(self._detour or ())), None
        own = [np.array([used], np.uint64) for _ in self.residents]
        said = [int(last[0]) for last in self.tell(own, booked=False)]
        for party, last in zip(self.parties, said, strict=True):
            # Watched parties all ask ahead alike: one that deviates could send the others apart.
            alike = self.watch is None or last == used
            if last >= OWN_IDS or not alike:
                # A mask of a value to come would be one that is kept.
                wanted = f"ids below {OWN_IDS}" if alike else f"ids up to {used}"
                problem = f"{party} must have used {wanted}, got {last}"
                self._end(problem)
                raise FrameError(problem)
        self.last_id = max(said)

    def _bundle(self, program: Callable[[Any], object], key: Hashable | None, base: int) -> Bundle:
        """Return the correlations of a program, from a plan made now or earlier with an equal key."""
        known = self._bundles.get(key)
        if known is not None:
            return known
        recorded = Recorded(self.source)
        planned = self.without_parties(base, recorded, ahead=True)
        planned.range_policy.quiet = True
        program(planned)
        last = planned.last_id
        if planned.pair is None:
            asked = self.source.bundle(recorded.asked, base, last)
        else:
            asked = planned.pair.taken
        words = sum(correlation.corrected_words for _, correlation in recorded.asked)
        bundle = Bundle(last - base, asked, words)
        self._bundles.add(key, bundle)
        return bundle
