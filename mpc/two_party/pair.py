"""Two parties and what they make for each other: the place of a provider's correlations.

A protocol asks for what it needs by a description, such as `BitPairs(words=10, bits=16)`. It has been
made ahead, or is made now. `Pair.plan` runs a program without data and says what it will take, and
`Pair.prepare` makes it, all of a kind at once: few rounds, and large pieces.
Products by ring-LWE are methods of `Pair`, over the same channel: the keys are made when they are first
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import base_ot, rlwe_protocol
from mpc.two_party.channel import Channel, Planned
from mpc.two_party.constants import Constants
from mpc.two_party.cost import Cost
from mpc.two_party.extension import Extension
from mpc.two_party.operands import Operands
from mpc.two_party.prepared import Correlation, Made, Prepared, by_kind
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_parameters import Parameters
from mpc.two_party.rlwe_products import Product
from mpc.two_party.rlwe_protocol import Kept, Keys, Multiplication
from mpc.two_party.silent import Silent
from ring import processes
from ring.bits import WORD_BITS, count_words
from ring.streams import Stream, fresh_key

__all__ = ["Correlation", "Made", "Pair", "padded"]

Words = NDArray[np.uint64]


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
    operands : Operands
        What is remembered of operands of products by ring-LWE.
    constants : Constants
        Arrays of the session that programs which are planned have used.
    planning : bool
        Whether this is of a plan that finds out what to make ahead: then all that could be is taken.
    prepared : Prepared
        What has been made ahead.
    taken : list of Correlation
        What protocols have asked for, in order; only where no party lives.
    multiplied : list of Multiplication
        The products by ring-LWE, in order; only where no party lives.
    """

    def __init__(self, channel: Channel, k: int = 4, silent: str | None = None) -> None:
        self.channel = channel
        self.parties = channel.parties
        self._options = k, silent
        self._generation = processes.generation
        self._session = session = base_ot.agree(channel)
        extensions = [Extension(channel, session, sender, k) for sender in (0, 1)]
        self.extensions: tuple[Extension | Silent, ...] = tuple(extensions)
        if silent is not None:
            self.extensions = tuple(Silent(channel, session, e, silent) for e in extensions)
        self.prepared = Prepared()
        self.taken: list[Correlation] = []
        self.multiplied: list[Multiplication] = []
        self._keys: dict[tuple[Parameters, int], Keys] = {}
        self.operands = Operands()
        self.constants = Constants()
        # Whether this plans what is made ahead, or a program that takes what was.
        self.planning = self.for_stock = False
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
        """Make correlations ahead, and keep them in memory. Both parties name the same ones."""
        for correlation, made in self.make(correlations):
            self.prepared.add(correlation, made)

    def make(self, correlations: Iterable[Correlation]) -> Iterator[tuple[Correlation, Made]]:
        """Make correlations, and yield them one after the other.

        What is of a kind is made at once, first all that needs transfers in the first direction alone:
        then one party need not wait for the other in between.
        """
        self._check_process()
        wanted = [replace(kind, words=words) for kind, words in by_kind(correlations).items()]
        wanted.sort(key=_turn)
        self._expect(wanted)
        begins = True
        try:
            for correlation in wanted:
                if begins:
                    for extension in self.extensions:
                        extension.in_pieces(True)
                yield correlation, correlation.make(self)
                # What else is sent has been waited for.
                begins = correlation.cost.offline != (0, 0)
        finally:
            for extension in self.extensions:
                extension.in_pieces(False)

    def take(self, correlation: Correlation) -> Any:
        """Return a correlation that has never been used and will never be again.

        It is one that has been made ahead, or is made now, or some of it is.

        Raises
        ------
        ProcessError
            In a process forked from the pair's: both would use the same. So in all that follows.
        """
        self._check_process()
        if not self.parties:
            self.taken.append(correlation)
        parts = self.prepared.take(correlation)
        missing = correlation.words - sum(part.words for part in parts)
        if missing or not parts:
            rest = replace(correlation, words=missing)
            self._expect([rest])
            parts.append(rest.make(self))
        return parts[0].joined(parts[1:])

    def take_prepared(self, correlations: Sequence[Correlation]) -> list[Any] | None:
        """Return correlations as by :meth:`take`; None if one has not been made ahead, all of it."""
        if self.planning:
            self.taken += correlations
            return None
        if not all(correlation.words for correlation in correlations):
            return None
        if not self.prepared.has(correlations):
            return None
        return [self.take(correlation) for correlation in correlations]

    @property
    def in_advance(self) -> bool:
        """Whether programs take what was made ahead, or this finds out what to make: not for workers."""
        return self.for_stock or (self.prepared.lasting and not self.planning)

    def without_parties(self, channel: Channel, *, planning: bool = False) -> Pair:
        """Return a pair that has as much as this one, where no party lives: what it sends is as much.

        Parameters
        ----------
        channel : Channel
            Of no party. What it counts here is to be forgotten.
        planning : bool
            Whether it is to find out what can be made ahead; then nothing has been.
        """
        out = Pair(channel, *self._options)
        out.constants, out.planning = self.constants, planning
        if planning:
            out.for_stock = self.in_advance
            return out
        for parameters, keeper in self._keys:
            out.keys(parameters, keeper)
        out.operands.count_like(self.operands)
        out.prepared.copy_counts(self.prepared, lambda kind: replace(kind, words=1).make(out))
        for mine, other in zip(out.extensions, self.extensions, strict=True):
            if isinstance(mine, Silent):
                assert isinstance(other, Silent)
                mine.count_like(other)
            else:
                assert isinstance(other, Extension)
                mine.count_like(other)
        return out

    def resume(self) -> None:
        """After a call that failed at either party: forget stock and keys, and agree where to go on.

        Until both have called it, what they have made ahead may not fit together.
        """
        self.prepared.forget()
        self._keys = {}
        self.operands.forget()
        for extension in self.extensions:
            extension.resume()

    def keys(self, parameters: Parameters, keeper: int) -> Keys:
        """Return a keeper's keys for ring-LWE; the first call makes them, in 1 round."""
        self._check_process()
        if (parameters, keeper) not in self._keys:
            made = rlwe_protocol.make_keys(self.channel, self._session, keeper, parameters)
            self._keys[parameters, keeper] = made
        return self._keys[parameters, keeper]

    def keep(self, product: Multiplication, keeper: int, x: Words | None) -> Kept:
        """Encrypt an operand for many products: `x` where the keeper lives. 1 round."""
        return rlwe_protocol.keep(self.channel, product, self.keys(product.parameters, keeper), x)

    def multiply_kept(
        self, product: Multiplication, kept: Kept, w: Words | None, life: Life
    ) -> Words:
        """Multiply an operand that is kept with one of the other party's, `w` where that lives: 1 round.

        Returns
        -------
        uint64 array of shape (p, ...): shares of the product, as of all of the following
        """
        self._check_process()
        self._note(product)
        return rlwe_protocol.multiply_kept(self.channel, product, kept, w, life)

    def multiply_mask(
        self, product: Product, keeper: int, w: Words | None, life: Life
    ) -> tuple[Words | None, Words]:
        """Draw a mask that its keeper alone knows, and multiply it with the other party's `w`: 2 rounds.

        Returns
        -------
        the mask, where its keeper lives, elsewhere None; and shares of the product
        """
        self._note(product)
        keys = self.keys(product.parameters, keeper)
        return rlwe_protocol.multiply_mask(self.channel, product, keys, w, life)

    def multiply_private(
        self, product: Multiplication, keeper: int, x: Words | None, w: Words | None, life: Life
    ) -> Words:
        """Multiply the keeper's `x` with the other party's `w`, each None elsewhere: 2 rounds."""
        self._note(product)
        keys = self.keys(product.parameters, keeper)
        return rlwe_protocol.multiply_private(self.channel, product, keys, x, w, life)

    def cross_products(self, product: Multiplication, x: Words, w: Words, life: Life) -> Words:
        """Add the products of each party's own `x` with the other's own `w`, (p, ...): 2 rounds.

        `life` counts the answers from both parties' `w`.
        """
        self._note(product)
        keys = self.keys(product.parameters, 0), self.keys(product.parameters, 1)
        return rlwe_protocol.cross_products(self.channel, product, keys, x, w, life)

    def multiply_shared(self, product: Multiplication, x: Words, w: Words, life: Life) -> Words:
        """Multiply operands of which each party has a share, (p, ...); see :meth:`cross_products`."""
        out = self.cross_products(product, x, w, life)
        for mine, left, right in zip(out, x, w, strict=True):
            mine += product.multiply(left, right)
        return out

    def _check_process(self) -> None:
        processes.check("what two parties make for each other", self._generation)

    def _note(self, product: Multiplication) -> None:
        if not self.parties:
            self.multiplied.append(product)

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
    """No party: what it takes and its keys are there, and do not count as online."""

    def take(self, correlation: Correlation) -> Any:
        channel = self.channel
        assert isinstance(channel, Planned)
        rounds, sent = channel.rounds, list(channel.sent)
        made = super().take(correlation)
        channel.rounds, channel.sent = rounds, sent
        return made

    def keys(self, parameters: Parameters, keeper: int) -> Keys:
        channel = self.channel
        assert isinstance(channel, Planned)
        rounds, sent = channel.rounds, list(channel.sent)
        made = super().keys(parameters, keeper)
        channel.rounds, channel.sent = rounds, sent
        return made


def _turn(correlation: Correlation) -> tuple[bool, bool, bool]:
    cost = correlation.cost
    return cost.transfers[1] > 0, cost.offline != (0, 0), cost.transfers[0] == 0


def padded(words: Words, size: int) -> Words:
    """Return shares of shape (p, size) with zeros up to a multiple of 64."""
    whole = WORD_BITS * count_words(size)
    flat = words.reshape(len(words), size)
    if whole == size:
        return np.ascontiguousarray(flat)
    out = np.zeros((len(words), whole), np.uint64)
    out[:, :size] = flat
    return out
