"""Plans: what a program will ask for, found out by running it where no party lives."""

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

# How many bundles a session keeps.
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


class Recorded(CorrelationSource):
    """The source of a plan: deals nothing, and keeps what it is asked for.

    Parameters
    ----------
    of : CorrelationSource
        What the program will run with. A plan asks for the same, and it costs as much.

    Attributes
    ----------
    asked : list of (int, Correlation)
    """

    def __init__(self, of: CorrelationSource) -> None:
        self._of = of
        self.takes_terms = of.takes_terms
        self.asked: list[tuple[int, Correlation]] = []

    @property
    def name(self) -> str:
        """What to call the program's source in an error."""
        return self._of.name

    def makes(self, kind: type[Correlation]) -> bool:
        """Whether the program's source does."""
        return self._of.makes(kind)

    def shares(self, id: int, correlation: Correlation) -> Words:
        """Keep the correlation; nobody has shares of it."""
        self.asked.append((id, correlation))
        layout = correlation.layout
        return np.empty((0, layout.mask_words + layout.corrected_words), np.uint64)

    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book what the program's source books."""
        self._of.book(correlation, ledger)


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a program asks for, wherever its ids begin.

    Attributes
    ----------
    ids : int
        How many it uses.
    asked : Any
        As the session's source keeps it, see :meth:`mpc.core.interfaces.CorrelationSource.bundle`.
    """

    ids: int
    asked: Any


class Bundles:
    """The bundles used last, by what they depend on."""

    def __init__(self) -> None:
        self._held: OrderedDict[Hashable, Bundle] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable | None) -> Bundle | None:
        """Return what was added under an equal key, if it is still there."""
        try:
            found = None if key is None else self._held.get(key)
        except TypeError:  # a mask seen through an index
            return None
        if found is not None:
            self._held.move_to_end(key)
        return found

    def add(self, key: Hashable | None, bundle: Bundle) -> None:
        """Keep a bundle, unless its key cannot be one."""
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
