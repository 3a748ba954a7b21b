"""What two parties have made ahead and not yet used: in memory, and in a file of each.

Correlations are counted in words of planes, or in what they say. A protocol asks for so many, and gets
them from what is there, a part of what was made or several parts in a row; each is handed out once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mpc.core.events import record
from mpc.two_party.cost import Cost

__all__ = ["Correlation", "Made", "Prepared", "Reservoir", "by_kind"]


@dataclass(frozen=True, repr=False)
class Made:
    """What has been made of a correlation. Never shown.

    Attributes
    ----------
    words : int
        For so many words of planes. All other attributes are arrays with as many along the last axis,
        or 64 times as many, or None where the party that has them does not live.
    """

    words: int

    def part(self, first: int, stop: int) -> Self:
        """Return what is for the words [first, stop)."""
        if (first, stop) == (0, self.words):
            return self
        cut = {}
        for name, array in self.arrays():
            scale = array.shape[-1] // self.words
            cut[name] = np.ascontiguousarray(array[..., first * scale : stop * scale])
        return replace(self, words=stop - first, **cut)

    def joined(self, others: Sequence[Self]) -> Self:
        """Return this and others behind it as one."""
        if not others:
            return self
        whole = {
            name: np.concatenate([array, *(getattr(other, name) for other in others)], axis=-1)
            for name, array in self.arrays()
        }
        return replace(self, words=self.words + sum(other.words for other in others), **whole)

    def repeated(self, words: int) -> Self:
        """Return as much as so many words are, where no party lives and arrays are empty (for plans)."""
        arrays = {
            name: np.empty((*array.shape[:-1], array.shape[-1] // self.words * words), array.dtype)
            for name, array in self.arrays()
        }
        return replace(self, words=words, **arrays)

    def arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Return what there is, by name."""
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, array) for name, array in named if isinstance(array, np.ndarray)]


@dataclass(frozen=True)
class Correlation(ABC):
    """Describes something that two parties make ahead, for so many `words` of planes.

    Or rows, where it says so: the unit in which it is taken.
    """

    words: int
    # Whether a protocol takes all that it asks for or nothing.
    whole: ClassVar[bool] = False

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """What it takes, all of it ahead."""

    @abstractmethod
    def make(self, pair: Any) -> Made:
        """Make it, with the other party: for all parties that live here."""


class Reservoir(Protocol):
    """Where there is more than in memory: a file."""

    def holds(self, kind: Correlation) -> int:
        """Return how many words there are of a kind."""

    def __iter__(self) -> Iterator[Correlation]:
        """Yield the kinds."""

    def knows(self, kind: Correlation) -> bool:
        """Return whether there ever were any."""

    def withdraw(self, wanted: Sequence[Correlation]) -> list[tuple[Correlation, Made]]:
        """Take correlations, one of a kind and no more than there are, never to be taken again."""


@dataclass(repr=False)
class _Piece:
    """In memory, and how much of it is used."""

    made: Made
    used: int = 0


def by_kind(correlations: Iterable[Correlation]) -> dict[Correlation, int]:
    """Return how many words of each kind; a kind is a correlation of no words."""
    counts: dict[Correlation, int] = {}
    for correlation in correlations:
        kind = replace(correlation, words=0)
        counts[kind] = counts.get(kind, 0) + correlation.words
    return {kind: words for kind, words in counts.items() if words}


class Prepared:
    """What there is. Both parties ask it the same, in the same order.

    Attributes
    ----------
    reservoirs : list of Reservoir
    warns : bool
        Whether to write to the log, once, when a protocol asks for more than there is.
    lasting : bool
        Whether there is what was made ahead for programs, and none has asked for more of it yet.
    """

    def __init__(self) -> None:
        self._pieces: dict[Correlation, list[_Piece]] = {}
        self.reservoirs: list[Reservoir] = []
        self.warns = self.lasting = False

    def add(self, correlation: Correlation, made: Made) -> None:
        """Keep what has been made."""
        self._pieces.setdefault(replace(correlation, words=0), []).append(_Piece(made))

    def last(self) -> None:
        """Say that what there is was made ahead for programs."""
        self.warns = self.lasting = True

    def forget(self) -> None:
        """Forget everything: of what is in a file both have to agree anew where they are."""
        self._pieces, self.reservoirs, self.lasting = {}, [], False

    def copy_counts(self, other: Prepared, one: Callable[[Correlation], Made]) -> None:
        """Hold as much as another, where no party lives (for plans); `one(kind)` is a word of it."""
        self.lasting = other.lasting
        for kind in other._kinds():
            self.add(kind, one(kind).repeated(other.holds(kind)))

    def _kinds(self) -> list[Correlation]:
        kinds = list(self._pieces)
        for reservoir in self.reservoirs:
            kinds += [kind for kind in reservoir if kind not in kinds]
        return [kind for kind in kinds if self.holds(kind)]

    def _in_memory(self, kind: Correlation) -> int:
        return sum(piece.made.words - piece.used for piece in self._pieces.get(kind, []))

    def holds(self, kind: Correlation) -> int:
        """Return how many words there are of a kind."""
        return self._in_memory(kind) + self._in_files(kind)

    def _in_files(self, kind: Correlation) -> int:
        return sum(reservoir.holds(kind) for reservoir in self.reservoirs)

    def lacking(self, correlations: Iterable[Correlation]) -> list[Correlation]:
        """Return what there is not of all of these together, in their order."""
        left: dict[Correlation, int] = {}
        out = []
        for correlation in correlations:
            kind = replace(correlation, words=0)
            have = left[kind] if kind in left else self.holds(kind)
            left[kind] = max(0, have - correlation.words)
            if have < correlation.words:
                out.append(replace(correlation, words=correlation.words - have))
        return out

    def fetch(self, correlations: Iterable[Correlation]) -> None:
        """Take from the files, in one go each, what these need and is not in memory."""
        if not self.reservoirs:
            return
        missing = {}
        for kind, words in by_kind(correlations).items():
            lacks = words - self._in_memory(kind)
            there = self._in_files(kind)
            if lacks > 0 and there and (there >= lacks or not kind.whole):
                missing[kind] = lacks
        for reservoir in self.reservoirs:
            wanted = []
            for kind, words in missing.items():
                count = min(words, reservoir.holds(kind))
                missing[kind] -= count
                if count:
                    wanted.append(replace(kind, words=count))
            if wanted:
                for correlation, made in reservoir.withdraw(wanted):
                    self.add(correlation, made)

    def has(self, correlations: Iterable[Correlation]) -> bool:
        """Return whether all of each is there; say so if there was some and it is used up."""
        for kind, words in by_kind(correlations).items():
            if self.holds(kind) < words:
                if kind in self._pieces or any(file.knows(kind) for file in self.reservoirs):
                    self.say_used_up()
                return False
        return True

    def take(self, correlation: Correlation) -> list[Any]:
        """Hand out what there is, in parts, at most as much as is asked for."""
        kind, missing = replace(correlation, words=0), correlation.words
        self.fetch([correlation])
        pieces, parts = self._pieces.get(kind, []), []
        while pieces and missing:
            piece = pieces[0]
            first = piece.used
            # Before it is used: nothing is handed out twice.
            piece.used = min(piece.made.words, first + missing)
            if piece.used == piece.made.words:
                pieces.pop(0)
            missing -= piece.used - first
            parts.append(piece.made.part(first, piece.used))
        if missing:
            self.say_used_up()
        return parts

    def say_used_up(self) -> None:
        """Say so, if it is to be said and has not been."""
        self.lasting = False
        if self.warns:
            self.warns = False
            record("stock used up", warning=True, what="the rest is made within the calls")
