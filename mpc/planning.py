"""Plans: the cost and the correlations of a program, found by running it where no party lives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation
from mpc.core.cost import Cost, Ledger
from mpc.core.interfaces import CorrelationSource

__all__ = ["Bundle", "Bundles", "Plan", "Recorded"]

Words = NDArray[np.uint64]

# The number of bundles that a session keeps.
_KEPT = 256


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
    """

    ids: int
    asked: Any


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
