"""Plans: the cost and the correlations of a program, found by running it where no party lives."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation
from mpc.core.cost import Cost, Ledger
from mpc.core.interfaces import CorrelationSource

__all__ = ["Bundle", "Bundles", "Plan", "Recorded", "Repeats"]

Words = NDArray[np.uint64]

# The number of bundles that a session keeps.
_KEPT = 256
# Programs whose randomness is asked for ahead, and how many words of it wait at most.
_PROGRAMS = 16
_AHEAD_WORDS = 1 << 22
# What waits for a program that has not run for so many runs of others is dropped, if there is no room.
_PATIENCE = 64


@dataclass(frozen=True)
class Plan:
    """The cost of a program and the correlations that it uses, found without data.

    Attributes
    ----------
    cost : Cost
        Rounds and bytes, exactly those of a run.
    correlations : tuple of (id, Correlation)
        In the order of their use: the provider can deal them ahead. Without a provider none.
    transfers : tuple of int
        Without a provider: the oblivious transfers that the program takes, those in which the first
        party sends, and those in which the second does.
    products : int
        Without a provider: how many products by ring-LWE it takes.
    """

    cost: Cost
    correlations: tuple[tuple[int, Correlation], ...] = field(repr=False)
    transfers: tuple[int, int] = (0, 0)
    products: int = 0


class Recorded(CorrelationSource):
    """The source of a plan: deals nothing, and records the correlations it is asked for.

    Parameters
    ----------
    of : CorrelationSource
        The source of the session that the program will run in; it determines what correlations there
        are and what they cost.

    Attributes
    ----------
    asked : list of (int, Correlation)
        Ids and correlations, in order.
    """

    def __init__(self, of: CorrelationSource) -> None:
        self._of = of
        self.takes_terms, self.own_shares = of.takes_terms, of.own_shares
        self.asked: list[tuple[int, Correlation]] = []

    @property
    def name(self) -> str:
        """The name of the program's source in errors."""
        return self._of.name

    def makes(self, kind: type[Correlation]) -> bool:
        """Whether the program's source makes correlations of a class."""
        return self._of.makes(kind)

    def masks(self, id: int, correlation: Correlation) -> Words:
        """Record the correlation; return shares of no party."""
        self.asked.append((id, correlation))
        return np.empty((0, correlation.layout.mask_words), np.uint64)

    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Return shares of no party."""
        return np.empty((0, correlation.layout.corrected_words), np.uint64)

    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book as the program's source does."""
        self._of.book(correlation, ledger)


@dataclass(frozen=True, eq=False)
class Bundle:
    """The correlations of a program, whatever id it begins at.

    Attributes
    ----------
    ids : int
        How many ids the program uses.
    asked : Any
        The correlations, packed by :meth:`mpc.core.interfaces.CorrelationSource.bundle`.
    words : int
        How many words of corrections they have.
    """

    ids: int
    asked: Any
    words: int = 0


class Bundles:
    """A cache of the bundles used last, by key."""

    def __init__(self) -> None:
        self._held: OrderedDict[Hashable, Bundle] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable | None) -> Bundle | None:
        """Return the bundle added under an equal key, if it is still kept."""
        try:
            found = None if key is None else self._held.get(key)
        except TypeError:  # a key that is not hashable: a mask's view holds an index array
            return None
        if found is not None:
            self._held.move_to_end(key)
        return found

    def add(self, key: Hashable | None, bundle: Bundle) -> None:
        """Keep a bundle, unless its key is None or not hashable."""
        try:
            hash(key)
        except TypeError:
            return
        if key is not None:
            self._held[key] = bundle
            if len(self._held) > _KEPT:
                self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()


@dataclass
class _Repeated:
    """A program that runs again and again: where its next runs are, and how often it has run."""

    bundle: Bundle
    runs: int = 0
    last: int = 0
    bases: deque[int] = field(default_factory=deque)


class Repeats:
    """Ids that are set aside for programs that run again and again, whose randomness is asked for ahead.

    What it decides follows from the programs' keys and plans alone, so all parties decide alike. Not more
    is asked for ahead than half of what a program has used.

    Parameters
    ----------
    source : CorrelationSource
    """

    def __init__(self, source: CorrelationSource) -> None:
        self._source = source
        self._programs: OrderedDict[Hashable, _Repeated] = OrderedDict()
        self._runs = 0

    def begin(self, key: Hashable | None) -> tuple[int, Bundle] | None:
        """Return where the ids that were set aside for a run now begin, and its bundle, or None."""
        if not self._programs:
            return None  # as without an auditor: a key takes long to hash
        try:
            found = None if key is None else self._programs.get(key)
        except TypeError:  # a key that is not hashable
            return None
        if found is None or not found.bases:
            return None
        base = found.bases.popleft()
        self._source.begin_repeat(base, found.bundle.asked)
        return base, found.bundle

    def ask(self, key: Hashable | None, bundle: Bundle, base: int) -> int:
        """Ask for the next runs of a program that runs now, if it is time to; return how many ids that is.

        Parameters
        ----------
        key : hashable or None
        bundle : Bundle
        base : int
            Ids from the next one on are not used yet.
        """
        most = self._source.repeats(bundle.asked)
        try:
            if key is None or not most:
                return 0
            found = self._programs.setdefault(key, _Repeated(bundle))
        except TypeError:
            return 0
        self._programs.move_to_end(key)
        found.runs += 1
        self._runs += 1
        found.last = self._runs
        if len(self._programs) > _PROGRAMS:
            self._drop(self._programs.popitem(last=False)[1])
        limit, held = min(most, found.runs // 2), len(found.bases)
        # As soon as one run of the part before has begun: a whole part is dealt and checked before any of
        # it is used. Few at a time only at the beginning.
        times = min(most, found.runs // 2 - held)
        if held >= limit or 2 * times < limit or not times:
            return 0
        if not self._has_room(times * bundle.words):
            return 0
        self._source.announce_repeats(base, bundle.asked, times, bundle.ids)
        found.bases.extend(base + k * bundle.ids for k in range(times))
        return times * bundle.ids

    def _has_room(self, words: int) -> bool:
        """Whether so many words may wait, too; drop what waits for programs that have not run for long."""
        held = words + sum(len(each.bases) * each.bundle.words for each in self._programs.values())
        while held > _AHEAD_WORDS:
            oldest = next(iter(self._programs.values()))
            if self._runs - oldest.last < _PATIENCE:
                return False
            held -= len(oldest.bases) * oldest.bundle.words
            self._drop(self._programs.popitem(last=False)[1])
        return True

    def _drop(self, program: _Repeated) -> None:
        for base in program.bases:
            self._source.drop_repeat(base, program.bundle.asked)

    def clear(self) -> None:
        """Drop all."""
        for program in self._programs.values():
            self._drop(program)
        self._programs.clear()
