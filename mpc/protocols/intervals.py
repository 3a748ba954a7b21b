"""Intervals: one opened bit for each group of words, whether all of them lie within public limits.

For words that somebody outside has given, such as a client's rows: they may be anything modulo 2^64.
1. c = open(x + 2^62 + r), for the words x; in the same round 16 random bytes, the seed of step 5.
2. x lies in [low, high], high - low < 2^62, if and only if the top bit of x - low modulo 2^64 is 0 and
   that of x - high - 1 is 1. Each is m_u ^ m_v ^ [u' < v'] as in :mod:`mpc.protocols.sign` with L = 64,
   for the same v = r, and u = c - 2^62 - low or c - 2^62 - high - 1.
3. u' and v' are cut into 16 digits of four bits or three. The provider XOR-shares the truth tables of
   v's digits; each party reads g_j = [v_j > u_j] and p_j = [v_j = u_j] from its share: local.
4. For each four digits, G = g_3 ^ p_3 (g_2 ^ p_2 (g_1 ^ p_1 g_0)) and P = p_3 p_2 p_1 p_0; then the same of
   the four (G, P): 2 rounds (:mod:`mpc.protocols.bits`). Short digits and a round more take a sixth of
   what 64 bits take in one round.
5. The seed expands to 40 public coins for each of a group's bits of step 2, which are 1 outside. Of the
   bits whose coin is 1, each of the group's 40 XORs is local. The words were given before the seed was
   known.
6. B2A of the 40 bits of each group, and their sum. For each group, whether it is 0 is opened: one bit.
A group with a word outside passes with probability 2^-40; one within the limits never fails. Nothing is
opened of which words are outside, nor how many.
Without a provider, step 4 is :mod:`mpc.protocols.sign`'s, and the seed takes a round of its own.
Cost: 6 rounds, 16.5 (n - 1) bytes a word and 16 (n - 1) a group; correction 57.8 bytes a word, 328 a group.

Source: two levels of the carry as a prefix over blocks (Damgard, Fitzi, Kiltz, Nielsen, Toft 2006, section
6), on the tables of :mod:`mpc.protocols.sign`; steps 5 and 6 as in :mod:`mpc.protocols.limits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, bits, limits, sign
from mpc.protocols.truncation import masked
from ring.bits import WORD_BITS, count_words
from ring.digits import Digits, add_tables, digits_of, read_tables, split_evenly

__all__ = ["WordTables", "cost", "groups_inside"]

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

# Digits of a block, and blocks of a word.
_BLOCK = 4
_DIGITS: Digits = digits_of(split_evenly(WORD_BITS - 1, _BLOCK * _BLOCK), True)
# Plane j is g_j, plane 4 + j is p_j.
_CARRY = (bits.prefix(range(_BLOCK), range(_BLOCK, 2 * _BLOCK)),)
_INNER = bits.structure_of((*_CARRY, (tuple(range(_BLOCK, 2 * _BLOCK)),)))
_OUTER = bits.structure_of(_CARRY)
# Both ends of an interval.
_ENDS = 2
# Of a number up to 40, which is never negative.
_COUNT_BITS = limits.COMBINATIONS.bit_length()
# Words that are compared at once: what they take at a party fits in some 40 MB.
_PIECE = 1 << 18


@dataclass(frozen=True)
class WordTables(Correlation):
    """r with the truth tables of its digits, and what step 4 takes, for intervals of `size` words."""

    size: int

    def masks(self) -> tuple[Part, ...]:
        inner, outer = self._words
        return (
            Part((self.size,)),
            Part((len(_INNER.opened), inner), "xor"),
            Part((len(_OUTER.opened), outer), "xor"),
        )

    def corrected(self) -> tuple[Part, ...]:
        inner, outer = self._words
        return (
            Part((_DIGITS.count_table_words(self.size),), "xor"),
            Part((len(_INNER.subsets), inner), "xor"),
            Part((len(_OUTER.subsets), outer), "xor"),
        )

    @property
    def _words(self) -> tuple[int, int]:
        """Words of a plane on both levels of step 4."""
        outer = _ENDS * count_words(self.size)
        return _BLOCK * outer, outer

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        add_tables(masks[0], 0, _DIGITS, out[0])
        bits.deal_products(_INNER.subsets, masks[1], out[1])
        bits.deal_products(_OUTER.subsets, masks[2], out[2])


def cost(parties: int, size: int, groups: int) -> Spent:
    """Declare the cost for `size` words, at most 2^18, in so many groups."""
    tables, words = WordTables(size), _ENDS * count_words(size)
    opened = size + 2 + words * (_BLOCK * len(_INNER.opened) + len(_OUTER.opened))
    return (
        Spent(3, 8 * (parties - 1) * opened, 8 * tables.corrected_words)
        + b2a.cost(parties, groups, limits.COMBINATIONS)
        + sign.cost(parties, groups, 0, _COUNT_BITS, False, "none")
        + Spent(1, 8 * (parties - 1) * count_words(groups), 0)
    )


def groups_inside(
    x: Secret, low: Integers, high: Integers, counts: Sequence[int]
) -> NDArray[np.bool_]:
    """Open for each group of words whether all of them lie in their intervals.

    Parameters
    ----------
    x : SharedArray
        Its words may be anything, whatever its bound says.
    low, high : int64 arrays that broadcast to the shape of x
        The ends of each word's interval, which belong to it; less than 2^62 apart.
    counts : sequence of int
        The groups: so many words each, one after the other, in the order of ``x.reshape(-1)``.

    Returns
    -------
    bool array of shape (groups,)
        In a plan, where there are no words, all are inside.

    Raises
    ------
    ArgumentError
        If the groups do not make up x.
    """
    session, size = x.session, x.size
    if sum(counts) != size or min(counts, default=1) < 1:
        raise ArgumentError(f"counts must be positive and add up to {size} words, got {counts}")
    if not size:
        return np.zeros(0, np.bool_)
    ends = [np.broadcast_to(end, x.shape).reshape(-1).view(np.uint64) for end in (low, high)]
    offsets = ends[0], ends[1] + np.uint64(1)
    with session.protocol("intervals"):
        seed = limits.open_seed(session) if session.pair is not None else None
        stops = np.cumsum(counts)
        planes: list[list[Words]] = [[] for _ in counts]
        for start in range(0, size, _PIECE):
            stop = min(size, start + _PIECE)
            piece = x.derive(
                x.shares.reshape(len(x.shares), size)[:, start:stop], frac_bits=0, bound=x.bound
            )
            some = [offset[start:stop] for offset in offsets]
            if session.pair is not None:
                outside = sign.open_top_bits(piece, some)
            else:
                drawn, outside = _top_bits(piece, some, draws=not start)
                seed = drawn if not start else seed
            first = session.first_row
            if first is not None:
                outside[first, 1] ^= ~np.uint64(0)
            for number in range(int(np.searchsorted(stops, start, "right")), len(counts)):
                begin, end = int(stops[number]) - counts[number], int(stops[number])
                if begin >= stop:
                    break
                planes[number] += _cut(outside, max(begin, start) - start, min(end, stop) - start)
        return _verdicts(x, planes, seed)


def _top_bits(x: Secret, offsets: Sequence[Words], draws: bool) -> tuple[bytes | None, Words]:
    """Steps 1 to 4: the seed, if it `draws` one, and XOR shares (p, 2, words) of the top bits."""
    session, size = x.session, x.size
    shares = session.correlated(WordTables(size))
    r, inner_masks, outer_masks = shares.masks
    message = masked(session, x, r)
    seed = None
    if draws:
        c, opened = session.open((message, "sum"), (limits.seed_words(session), "sum"))
        seed = limits.seed_of(opened)
    else:
        c = session.open((message, "sum"))[0]
    tables, inner_products, outer_products = shares.corrected
    words, count = count_words(size), len(_DIGITS.widths)
    each = np.empty((len(r), 2, count, _ENDS, words), np.uint64)
    for i in range(len(each)):
        for k, offset in enumerate(offsets):
            read_tables(
                c[0] - offset, 0, _DIGITS, tables[i], i == session.first_row,
                each[i, 0, :, k], each[i, 1, :, k],
            )  # fmt: skip
    # The blocks of all words side by side: g_j and p_j of a block's digit j are a plane each.
    blocks = each.reshape(len(r), 2, _BLOCK, _BLOCK, _ENDS * words).swapaxes(2, 3)
    blocks = np.ascontiguousarray(blocks).reshape(len(r), 2 * _BLOCK, _BLOCK * _ENDS * words)
    found = bits.evaluate(session, blocks, _INNER, (inner_masks, inner_products))
    whole = found.reshape(len(r), 2 * _BLOCK, _ENDS * words)
    top = bits.evaluate(session, whole, _OUTER, (outer_masks, outer_products))
    return seed, top.reshape(len(r), _ENDS, words)


def _cut(planes: Words, start: int, stop: int) -> list[Words]:
    """Return the bits from `start` to `stop` of planes (p, 2, words), other bits of their words 0."""
    first, last = start // WORD_BITS, (stop - 1) // WORD_BITS
    some = planes[:, :, first : last + 1].copy()
    some[:, :, 0] &= ~np.uint64((1 << start % WORD_BITS) - 1)
    some[:, :, -1] &= np.uint64((1 << (stop - 1) % WORD_BITS + 1) - 1)
    return [some[:, 0], some[:, 1]]


def _verdicts(
    x: Secret, planes: Sequence[Sequence[Words]], seed: bytes | None
) -> NDArray[np.bool_]:
    """Steps 5 and 6."""
    session, groups = x.session, len(planes)
    odd = np.concatenate(
        [limits.combined(some, seed, len(session.here)) for some in planes], axis=1
    )
    found = b2a.convert(session, odd, limits.COMBINATIONS).sum(axis=2, dtype=np.uint64)
    none = sign.zero_bits(x.derive(found, frac_bits=0, bound=limits.COMBINATIONS), _COUNT_BITS)
    if groups % WORD_BITS:
        none = none.copy()
        none[:, -1] &= np.uint64((1 << groups % WORD_BITS) - 1)
    with session.revealing():
        (opened,) = session.open((none, "xor"))
    if not len(opened):
        return np.ones(groups, np.bool_)
    inside = np.unpackbits(opened[0].view(np.uint8), bitorder="little")[:groups]
    return np.asarray(inside, np.bool_)
