"""A score of each row that is the largest, or less than 2^-4 below it: enough to stabilise a softmax.

For 1 < k <= 16 scores with f fractional bits, t = f - 5 and L the bits of a difference of two of them cut
by t bits; t = 0 for f <= 5, and where L would exceed 64 - t.
1. Mask the scores, as in :mod:`mpc.protocols.argmax`: c_a = open(s_a + r_a). With A_a = c_a >> t and
   R_a = r_a >> t, y_a = A_a - R_a modulo 2^(64 - t) is s_a / 2^t, rounded down or up by the low bits of
   c_a: alike in all pairs, so there are no cycles. Of equal y_a the lower index wins.
2. All pairs a < b: lost_ab = [y_a < y_b] is m_u ^ w, of u = A_a - A_b and v = R_a - R_b modulo 2^L, as
   [w] = [m_v ^ t] in :mod:`mpc.protocols.sign_products`, with products of masks dealt for P = 1 alone, in
   lanes of 16 bits: 2 D - 1 bits of a pair are opened, 1 round. So the parties have shares of how many
   others a score wins against: local.
3. w_a = open(wins_a + rho_a), modulo 2^16, rho_a uniform: each party tells its lanes, and all add them. 1
   round.
4. Provider: for each of the 16 values that w_a has modulo 16, o_a = [w_a - rho_a = k - 1 modulo 16], [o_a]
   and [o_a r_a]. [M] = sum over a of c_a [o_a] - [o_a r_a]: local, exactly the score that wins.
So s_j - M < 2^-4 for all j, and s_j - M <= 0 for t = 0. Which score it is nobody learns.
c_a is uniform, since r_a is; tables and products are shared with fresh words, and each bit and each w_a
has a mask of its own, over all bits that are sent.
Cost for k = 10, L = 23: 3 rounds, about 140 (n - 1) bytes a row, correction about 5.7 kB.

Source: ours; one-hot tables of a masked sum as in Ishai, Kushilevitz, Meldgaard, Orlandi,
Paskin-Cherniavsky 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import LANES, Correlation, MaskRef, MaskSource, Part, combine
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.runtime import CorrelatedShares
from mpc.core.secret_value import Secret
from mpc.protocols import sign
from mpc.protocols.masking import mask_and_ask
from mpc.protocols.truncation import OFFSET_BITS
from ring.bits import WORD_BITS, count_lane_words, count_words
from ring.digits import WIDEST, Digits, add_tables, digits_of, read_tables, split_evenly
from ring.masked_products import add_masked_products, count_sets, deal_sets

__all__ = ["LARGEST_GROUP", "cost", "differences_of_pairs", "literals", "margin", "near_largest"]

Words = NDArray[np.uint64]

LARGEST_GROUP = 16
"""Of so many values all pairs are compared, and no more."""
_ONE = np.uint64(1)
# Numbers of wins are below 16, and in lanes of 16 bits.
_FOLD, _LANE_BITS, _VALUES = 2, 16, 16
_LANE = np.uint64((1 << _LANE_BITS) - 1)
_PLACES = np.arange(1 << _FOLD, dtype=np.uint64) * np.uint64(_LANE_BITS)
# Bits behind the point that are compared.
_FINE_BITS = 5
_MOST_DIGITS = 8


@lru_cache(maxsize=32)
def _pairs(k: int) -> tuple[list[int], list[int]]:
    """Return the first and the second value of every pair."""
    first, second = zip(*combinations(range(k), 2), strict=True)
    return list(first), list(second)


@lru_cache(maxsize=32)
def literals(k: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return for the j-th bit that value a needs, at (j, a), its pair, and 1 if it needs the complement."""
    wins: list[list[tuple[int, int]]] = [[] for _ in range(k)]
    for number, (a, b) in enumerate(combinations(range(k), 2)):
        # The pair's bit says that a < b in value, so that b beats a.
        wins[a].append((number, 1))
        wins[b].append((number, 0))
    both = np.array(wins).transpose(2, 1, 0)
    return both[0].astype(np.int64), both[1].astype(np.uint8)[..., None]


def differences_of_pairs(words: Words, rows: int, k: int) -> Words:
    """Return x_a - x_b of all pairs, (pairs * rows,), of words (rows, k) in any shape."""
    columns = np.ascontiguousarray(words.reshape(rows, k).T)
    first, second = _pairs(k)
    return (columns[first] - columns[second]).reshape(-1)


@dataclass(frozen=True)
class ScoreTables(Correlation):
    """The correlated randomness of steps 2 to 4 for rows of scores whose mask is dealt already.

    `ScoreTables` is its name on the wire.

    Attributes
    ----------
    rows, values : int
        Rows, and k.
    shift, window : int
        t and L.
    mask : MaskRef
        Of the scores.
    """

    rows: int
    values: int
    shift: int
    window: int
    mask: MaskRef

    @property
    def pairs(self) -> int:
        """The number of differences."""
        return self.rows * (self.values * (self.values - 1) // 2)

    @cached_property
    def digits(self) -> Digits:
        """The digits of the lower bits of a difference."""
        return _digits_for(self.window)

    def masks(self) -> tuple[Part, ...]:
        planes = 2 * len(self.digits.widths) - 1
        return (
            Part((planes, count_words(self.pairs)), "xor"),
            Part((count_lane_words(self.rows * self.values, _FOLD),), LANES[_FOLD]),
        )

    def corrected(self) -> tuple[Part, ...]:
        sets = count_sets(len(self.digits.widths))
        return (
            Part((self.digits.count_table_words(self.pairs),), "xor"),
            Part((1 + sets, count_lane_words(self.pairs, _FOLD)), LANES[_FOLD]),
            Part((2 * _VALUES, self.rows * self.values)),
        )

    def check(self, limit: int) -> None:
        if not 2 <= self.values <= LARGEST_GROUP:
            raise ShapeError(f"there must be from 2 to {LARGEST_GROUP} values, got {self.values}")
        sign.check_window(self.window, self.shift)
        super().check(limit)
        if self.mask.check(limit) != (self.rows, self.values):
            raise ShapeError(f"the mask must have the shape {(self.rows, self.values)}")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        lam, rho = masks
        tables, counts, choices = out
        # r is minus the mask.
        r = np.negative(provider.mask(self.mask)).reshape(self.rows, self.values)
        v = differences_of_pairs(r >> np.uint64(self.shift), self.rows, self.values)
        add_tables(v, 0, self.digits, tables)
        top = v >> np.uint64(self.window - 1) & _ONE
        np.negative(_lanes(counts[0]), out=_lanes(counts[0]))
        combine(LANES[_FOLD], counts[0], _packed(top))
        deal_sets(lam, _packed(_ONE - top - top), _FOLD, counts[1:])
        wins = _unpacked(rho, r.size) + np.uint64(self.values - 1)
        chosen = (wins & np.uint64(_VALUES - 1)).astype(np.intp), np.arange(r.size)
        np.negative(choices, out=choices)
        choices[:_VALUES][chosen] += _ONE
        choices[_VALUES:][chosen] += np.ascontiguousarray(r.T).reshape(-1)


def _lanes(words: Words) -> NDArray[np.uint16]:
    """Return lanes in any order, to be added or negated."""
    return words.view(np.uint16)


def _packed(numbers: Words) -> Words:
    """Return numbers as lanes of words."""
    padded = np.zeros((count_lane_words(numbers.size, _FOLD), 1 << _FOLD), np.uint64)
    padded.reshape(-1)[: numbers.size] = numbers & _LANE
    return np.asarray(np.bitwise_or.reduce(padded << _PLACES, axis=1))


def _unpacked(words: Words, size: int) -> Words:
    """Return the first `size` lanes as numbers."""
    return (words[:, None] >> _PLACES & _LANE).reshape(-1)[:size]


@lru_cache(maxsize=64)
def _digits_for(window: int) -> Digits:
    """Return the digits of the L - 1 lower bits that take the fewest bits."""
    below = window - 1

    def count(digits: Digits) -> int:
        number = len(digits.widths)
        return digits.table_bits + 2 * number + _LANE_BITS * count_sets(number)

    tried = range(-(-below // WIDEST), min(below, _MOST_DIGITS) + 1)
    return min((digits_of(split_evenly(below, n), False) for n in tried), key=count)


def _cut(bound: int, frac_bits: int) -> tuple[int, int]:
    """Return t and L."""
    shift = max(0, frac_bits - _FINE_BITS)
    window = sign.count_bits(2 * ((bound >> shift) + 2)) if shift else WORD_BITS
    if shift and window <= WORD_BITS - shift:
        return shift, window
    return 0, sign.count_bits(min(2 * bound, 1 << OFFSET_BITS))


def margin(bound: int, frac_bits: int) -> int:
    """Return how far below the largest score the one that is found may be, in units of 2^-f."""
    shift, _ = _cut(bound, frac_bits)
    return 2 << shift if shift else 0


def cost(parties: int, rows: int, k: int, bound: int, frac_bits: int) -> Spent:
    """Declare the cost for `rows` rows of k scores up to `bound` that have no mask yet."""
    tables = ScoreTables(rows, k, *_cut(bound, frac_bits), MaskRef(1, Part((rows, k))))
    planes, wins = tables.masks()
    sent = rows * k + planes.size + wins.size
    return Spent(3, 8 * (parties - 1) * sent, 8 * tables.corrected_words)


def near_largest(x: Secret) -> Secret:
    """Return for each row of x (rows, k), 1 < k <= 16, a score less than :func:`margin` below the largest.

    x has its mask then. Not for two parties without a provider.
    """
    session, (rows, k) = x.session, x.shape
    shift, window = _cut(x.bound, x.frac_bits)

    def ask(ref: MaskRef) -> tuple[ScoreTables, CorrelatedShares]:
        tables = ScoreTables(rows, k, shift, window, ref)
        return tables, session.correlated(tables)

    mask, (tables, shares) = mask_and_ask(x, ask)
    c, (lam, rho) = mask.delta, shares.masks
    u = np.empty(tables.pairs, np.uint64)
    if len(c):
        u = differences_of_pairs(c[0] >> np.uint64(shift), rows, k)
    held, counts, choices = shares.corrected
    count = len(tables.digits.widths)
    # As in mpc.protocols.sign_products: p_0 is not needed.
    planes = np.empty((len(held), 2 * count, count_words(tables.pairs)), np.uint64)
    for i, each in enumerate(planes):
        read_tables(
            u, 0, tables.digits, held[i], i == session.first_row, each[count:], each[:count],
            -1 << OFFSET_BITS,
        )  # fmt: skip
    m = session.open((planes[:, 1:] ^ lam, "xor"))[0]
    message = np.empty_like(rho)
    for i, row in enumerate(message):
        row[:] = _packed(_wins(tables, u, m[0], counts[i], i == session.first_row))
        combine(LANES[_FOLD], row, rho[i])
    # Each party's lanes by themselves: added as words, one would carry into the next.
    by_party = [
        (message[session.here.index(j)][None] if j in session.here else message[:0], j)
        for j in range(session.size)
    ]
    told = session.open(*by_party)
    total = np.zeros((len(choices), rows), np.uint64)
    if session.here:
        opened = told[0][0].copy()
        for words in told[1:]:
            combine(LANES[_FOLD], opened, np.ascontiguousarray(words[0]))
        w = (_unpacked(opened, rows * k) & np.uint64(_VALUES - 1)).astype(np.intp)
        places, columns = np.arange(rows * k), np.ascontiguousarray(c[0].reshape(rows, k).T)
        for i, each in enumerate(choices):
            found = columns.reshape(-1) * each[w, places] - each[w + _VALUES, places]
            total[i] = found.reshape(k, rows).sum(axis=0, dtype=np.uint64)
    return x.derive(total, frac_bits=x.frac_bits, bound=x.bound)


def _wins(tables: ScoreTables, u: Words, m: Words, counts: Words, first: bool) -> Words:
    """Step 2 behind the opening: one party's shares of wins_a, (k * rows,), modulo 2^16."""
    w, one = counts[0].copy(), np.uint64(first)
    flip = _packed(np.full(tables.pairs, one))
    twice = _lanes(counts[0]) + _lanes(counts[0])
    combine(LANES[_FOLD], flip, np.negative(twice).view(np.uint64))
    add_masked_products(m, counts[1:], flip, _FOLD, w)
    lost = _unpacked(w, tables.pairs)
    lost = np.where(u >> np.uint64(tables.window - 1) & _ONE, one - lost, lost)
    pair, negated = literals(tables.values)
    each = lost.reshape(-1, tables.rows)[pair]
    won: Words = np.where(negated, one - each, each).sum(axis=0, dtype=np.uint64).reshape(-1)
    return won & _LANE
