"""Shuffle: rows of secrets in an order that nobody knows.

Every party in turn, j = 1 ... n, permutes the rows by a permutation pi_j that it alone chooses:
1. Party j takes 64-bit words w = PRG(k_j, id); pi_j puts them in order, ties by place. The others take
   a_i = PRG(k_i, id'). The provider can expand all of it.
2. D = open to j of x - a, a being the sum of the a_i: every other party sends x_i - a_i to party j.
3. Provider: [pi_j(a)], shared with a correction. [x] becomes [pi_j(a)], party j adding pi_j(D).
The order is pi_n ... pi_1. It is uniform to any n - 1 parties, who do not know the last one's permutation,
but for a bias below m^2 / 2^65 for m rows, the chance of equal words. Words are used once.
A party learns nothing of pi_i: what it is sent is masked, and its new share is fresh.
Cost for m rows of c words: n rounds; a party sends 8 (n - 1) m c bytes; correction 8 n m c.

Source: the permute-and-share correlation of Chase, Ghosh, Poburinnaya 2020 (Secret-shared shuffle), dealt
by the provider; one party after another as in Laur, Willemson, Zhang 2011.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part, check_dealt
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.known import expand_mask
from mpc.core.runtime import Runtime

__all__ = ["cost", "shuffled"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class PermutedMask(Correlation):
    """[pi(a)], for the masks a of all parties but one, and the permutation pi of that one."""

    order: MaskRef
    a: MaskRef
    rows: int
    columns: int

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.rows, self.columns)),)

    def check(self, limit: int) -> None:
        super().check(limit)
        order, a = self.order.check(limit), self.a.check(limit)
        if order != (self.rows,) or a != (self.rows, self.columns):
            raise ShapeError(
                f"an order of {self.rows} rows of {self.columns} words must have a word for each row,"
                f" got the shapes {order} and {a}"
            )
        if self.order.owner is None or self.a.without != self.order.owner:
            raise ShapeError("an order must be one party's, and a that of all others")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        words, a = provider.mask(self.order), provider.mask(self.a)
        check_dealt(words, self.rows)
        check_dealt(a, self.rows * self.columns)
        np.subtract(a[_permutation(words)], out[0], out=out[0])


def _permutation(words: Words) -> NDArray[np.int64]:
    return np.argsort(words, kind="stable")


def cost(parties: int, rows: int, columns: int) -> Spent:
    """Declare the cost of shuffling so many rows."""
    count = 8 * rows * columns
    return Spent(parties, (parties - 1) * count, parties * count)


def shuffled(session: Runtime, x: Words) -> Words:
    """Return shares (p, rows, columns) of the same rows in an order that nobody knows."""
    with session.protocol("shuffle"):
        for party in range(session.size):
            x = _permuted_by(session, party, x)
    return x


def _permuted_by(session: Runtime, party: int, x: Words) -> Words:
    rows, columns = x.shape[1:]
    order = MaskRef(session.fresh_id(), Part((rows,)), owner=party)
    a = MaskRef(session.fresh_id(), Part((rows, columns)), without=party)
    others = tuple(k for k, one in enumerate(session.here) if one != party)
    hidden = x.copy()
    if others:
        hidden[list(others)] -= expand_mask(session, a, others)
    shares = session.correlated(PermutedMask(order, a, rows, columns))
    opened = session.open_to(party, hidden)
    (found,) = shares.corrected
    if party in session.here:
        row = session.here.index(party)
        words = expand_mask(session, replace(order, owner=None), (row,))[0]
        found[row] += opened[0][_permutation(words)]
    return found
