"""Two parties and what they make for each other: the place of a provider's correlations.

A protocol asks for what it needs by a description, such as `BitPairs(words=10, bits=16)`. It has been
made ahead, or is made now. `Pair.plan` runs a program without data and says what it will take.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import base_ot
from mpc.two_party.channel import Channel, Planned
from mpc.two_party.extension import Extension
from mpc.two_party.silent import Silent
from ring.bits import WORD_BITS, count_words
from ring.streams import Stream, fresh_key

__all__ = ["Correlation", "Cost", "Made", "Pair", "padded"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Cost:
    """What a protocol takes of two parties.

    Attributes
    ----------
    transfers : tuple of int
        Random transfers in which the first party sends, and in which the second does.
    offline : tuple of int
        Bytes each party sends ahead, beside those of the transfers.
    rounds : int
        Rounds online.
    sent : tuple of int
        Bytes each party sends online.
    """

    transfers: tuple[int, int] = (0, 0)
    offline: tuple[int, int] = (0, 0)
    rounds: int = 0
    sent: tuple[int, int] = (0, 0)

    def __add__(self, other: Cost) -> Cost:
        def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
            return a[0] + b[0], a[1] + b[1]

        return Cost(
            add(self.transfers, other.transfers),
            add(self.offline, other.offline),
            self.rounds + other.rounds,
            add(self.sent, other.sent),
        )


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
        for name, array in self._arrays():
            scale = array.shape[-1] // self.words
            cut[name] = np.ascontiguousarray(array[..., first * scale : stop * scale])
        return replace(self, words=stop - first, **cut)

    def joined(self, others: Sequence[Self]) -> Self:
        """Return this and others behind it as one."""
        if not others:
            return self
        whole = {
            name: np.concatenate([array, *(getattr(other, name) for other in others)], axis=-1)
            for name, array in self._arrays()
        }
        return replace(self, words=self.words + sum(other.words for other in others), **whole)

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, array) for name, array in named if isinstance(array, np.ndarray)]


@dataclass(frozen=True)
class Correlation(ABC):
    """Describes something that two parties make ahead, for so many `words` of planes."""

    words: int

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """What it takes, all of it ahead."""

    @abstractmethod
    def make(self, pair: Pair) -> Made:
        """Make it, with the other party: for all parties that live here."""


@dataclass(repr=False)
class _Piece:
    """In stock, and how much of it is used."""

    made: Made
    used: int = 0


class Pair:
    """Two parties without a provider, or that of them which lives here.

    Parameters
    ----------
    channel : Channel
    k : int
        See :class:`mpc.two_party.extension.Extension`.
    silent : str, optional
        Which set of :mod:`mpc.two_party.silent`, for fewer bytes and one more assumption.

    Attributes
    ----------
    parties : tuple of int
        Those that live here: the leading axis of every array of shares.
    extensions : tuple of Extension, or of Silent
        In the first, the first party sends.
    taken : list of Correlation
        What protocols have asked for, in order.
    """

    def __init__(self, channel: Channel, k: int = 4, silent: str | None = None) -> None:
        self.channel = channel
        self.parties = channel.parties
        session = base_ot.agree(channel)
        extensions = [Extension(channel, session, sender, k) for sender in (0, 1)]
        self.extensions: tuple[Extension | Silent, ...] = tuple(extensions)
        if silent is not None:
            self.extensions = tuple(Silent(channel, session, e, silent) for e in extensions)
        self.taken: list[Correlation] = []
        self._stock: dict[Correlation, list[_Piece]] = {}
        # Only for what a party draws for itself.
        self._own, self._drawn = Stream(fresh_key()), 0

    def __repr__(self) -> str:
        return f"Pair({' and '.join(self.channel.names[party] for party in self.parties)})"

    def random_words(self, *shape: int) -> Words:
        """Return uniform words that a party draws for itself."""
        out = np.empty(shape, np.uint64)
        start = self._drawn
        self._drawn += out.size
        self._own.fill(out, 0, start)
        return out

    def prepare(self, correlations: Iterable[Correlation]) -> None:
        """Make correlations ahead. Both parties name the same ones in the same order."""
        wanted = [correlation for correlation in correlations if correlation.words]
        self._expect(wanted)
        for correlation in wanted:
            kind = replace(correlation, words=0)
            self._stock.setdefault(kind, []).append(_Piece(correlation.make(self)))

    def take(self, correlation: Correlation) -> Any:
        """Return a correlation that has never been used and will never be again.

        From the stock, of which a part may be taken and several parts may make a whole, and what is
        not there is made.
        """
        self.taken.append(correlation)
        stock = self._stock.get(replace(correlation, words=0), [])
        parts: list[Made] = []
        missing = correlation.words
        while stock and missing:
            piece = stock[0]
            first = piece.used
            # Before it is used: nothing is handed out twice.
            piece.used = min(piece.made.words, first + missing)
            if piece.used == piece.made.words:
                stock.pop(0)
            missing -= piece.used - first
            parts.append(piece.made.part(first, piece.used))
        if missing or not parts:
            rest = replace(correlation, words=missing)
            self._expect([rest])
            parts.append(rest.make(self))
        return parts[0].joined(parts[1:])

    def resume(self) -> None:
        """After a call that failed at either party: forget what is in stock, and agree where to go on.

        Until both have called it, what they have made ahead may not fit together.
        """
        self._stock = {}
        for extension in self.extensions:
            extension.resume()

    def _expect(self, correlations: Iterable[Correlation]) -> None:
        for correlation in correlations:
            for extension, count in zip(self.extensions, correlation.cost.transfers, strict=True):
                extension.expect(count)

    @staticmethod
    def plan(program: Callable[[Pair], object]) -> tuple[list[Correlation], Cost]:
        """Return what a program takes and costs, which is run on arrays without parties."""
        channel = Planned()
        pair = _Planning(channel)
        rounds, sent = channel.rounds, tuple(channel.sent)
        program(pair)
        total = Cost(
            rounds=channel.rounds - rounds,
            sent=(channel.sent[0] - sent[0], channel.sent[1] - sent[1]),
        )
        for correlation in pair.taken:
            total = total + correlation.cost
        return pair.taken, total


class _Planning(Pair):
    """No party: what it takes is there, and does not count as online."""

    def take(self, correlation: Correlation) -> Any:
        channel = self.channel
        assert isinstance(channel, Planned)
        rounds, sent = channel.rounds, list(channel.sent)
        made = super().take(correlation)
        channel.rounds, channel.sent = rounds, sent
        return made


def padded(words: Words, size: int) -> Words:
    """Return shares of shape (p, size) with zeros up to a multiple of 64."""
    whole = WORD_BITS * count_words(size)
    flat = words.reshape(len(words), size)
    if whole == size:
        return np.ascontiguousarray(flat)
    out = np.zeros((len(words), whole), np.uint64)
    out[:, :size] = flat
    return out
