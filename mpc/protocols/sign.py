"""The sign of a truncated value, and equality to zero, from one opening.

For z with z / 2^s in L signed bits, L a multiple of 4, or 64 - s: for s = 0 every z below 2^63 in
magnitude, such as the difference of two values below 2^62.
1. c = open(z + 2^62 + r). With v = (r >> s) mod 2^L, which the provider knows, and
   u = ((c >> s) - 2^(62 - s)) mod 2^L, which is public, the truncated y has y = u - v mod 2^L.
2. Leaves: the provider XOR-shares truth tables of [v_j > t] for each nibble; every party reads off
   its shares of g_j = [v_j > u_j] and p_j = [v_j = u_j]: local (see ring.nibbles).
3. Prefix: msb = g_top ^ p_top (g_next ^ p_next (... g_0)), in groups of four: two rounds for any L,
   one for L <= 16, none for L = 4. Equality to zero instead is the product of all p_j. The masks of
   these bits and their products come with the tables.
The result is XOR-shared; :mod:`mpc.protocols.relu`, `comparison` and `argmax` go on from there.
Cost at L = 32: 3 rounds, 8 bytes and 15 bits an element; correction 16 bytes and 38 bits.

Source: the carry as a prefix over blocks (Damgard, Fitzi, Kiltz, Nielsen, Toft 2006, section 6), the
public-input lookup on shared tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky
2013; Rathee et al. 2021, SiRnn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.protocols import bits
from mpc.protocols.truncation import (
    OFFSET_BITS,
    check_cross_term,
    deal_high,
    deal_tops,
    open_masked,
    take_in,
    tops_part,
)
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.nibbles import NIBBLE_BITS, add_tables, count_table_words, read_tables
from ring.threads import run

__all__ = [
    "Opened",
    "Window",
    "cost",
    "count_nibbles",
    "open_sign",
    "open_signs",
    "open_top_bits",
    "open_zero",
]

Words = NDArray[np.uint64]
# What else is dealt with r: nothing, shares of a random bit, or what truncation or ReLU need.
Extras = Literal["none", "bit", "truncation", "relu"]


class Dealt(NamedTuple):
    """The parts of a :class:`Window`: all of each, or this process's shares with the party axis first.

    Attributes
    ----------
    r : uint64 array of shape (size,)
    beta : uint64 array of shape (words,), if dealt
    tables : uint64 array of shape (table words, size)
        Of the nibbles of r, see ring.nibbles.
    rings : uint64 array of shape (ring parts, size)
        Rows: beta, beta (r >> s), r >> s, as far as dealt; r >> s alone with "truncation".
    tops : uint64 array of shape (rows, lane words)
        Rows: r >> 63, beta (r >> 63), as far as dealt.
    planes : list of (uint64 array, uint64 array)
        For each round of step 3 the masks of planes, and the products of masks.
    """

    r: Words
    beta: Words | None
    tables: Words
    rings: Words
    tops: Words
    planes: list[tuple[Words, Words]]


@dataclass(frozen=True)
class Window(Correlation):
    """A window of the bits of r: tables of its nibbles, what step 3 takes, and beta with its products.

    For `size` elements, each against so many `thresholds`; `cross_term` is the C of a product. `shift`
    is s, ``4 * nibbles`` is L. With extras "bit" come <beta> and [beta]; with "relu" also [r >> s],
    [r >> 63], [beta (r >> s)] and [beta (r >> 63)], of which s = 0 needs the third only. With
    "truncation" come [r >> s] and [r >> 63] alone, and nothing for s = 0. Of what is shifted by 63,
    s bits are dealt.
    """

    size: int
    shift: int
    nibbles: int
    signed: bool
    extras: Extras
    thresholds: int = 1
    cross_term: Correlation | None = None

    def masks(self) -> tuple[Part, ...]:
        return self._parts[0]

    def corrected(self) -> tuple[Part, ...]:
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        return _parts_of(replace(self, cross_term=None) if self.cross_term is not None else self)

    @property
    def rounds(self) -> tuple[bits.Structure, ...]:
        """Step 3: what is opened, and what is dealt for it."""
        return _rounds(self.nibbles, self.signed)

    @property
    def words(self) -> int:
        """Of a plane of bits in step 3."""
        return self.thresholds * count_words(self.size)

    @property
    def has_beta(self) -> bool:
        """Whether random bits are dealt."""
        return self.extras in ("bit", "relu")

    @property
    def beta(self) -> Part:
        """The plane of random bits."""
        return Part((count_words(self.size),), "xor")

    @property
    def ring_parts(self) -> int:
        """How many ring elements are dealt an element."""
        with_shift = {"none": 0, "bit": 1, "truncation": 1, "relu": 3}
        without = {"none": 0, "bit": 1, "truncation": 0, "relu": 2}
        return (with_shift if self.shift else without)[self.extras]

    def check(self, limit: int) -> None:
        last = self.shift + NIBBLE_BITS * (self.nibbles - 1)
        if not 0 <= self.shift < OFFSET_BITS or self.nibbles < 1 or last >= 64:
            raise ShapeError(f"no window of {self.nibbles} nibbles starts at bit {self.shift}")
        if self.thresholds < 1:
            raise ShapeError(f"a window needs a threshold, got {self.thresholds}")
        super().check(limit)
        check_cross_term(self.cross_term, self.size, limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        dealt = self._named(masks, out)
        take_in(self.cross_term, provider, dealt.r)
        add_tables(dealt.r, self.shift, self.nibbles, self.signed, dealt.tables)
        if dealt.beta is not None:
            run(_deal, self.size, 8, dealt.r, dealt.beta, self.shift, dealt.rings)
        elif self.ring_parts:
            deal_high(dealt.r, self.shift, dealt.rings[0])
        deal_tops(dealt.r, self.shift, dealt.tops, dealt.beta)
        for structure, (lam, products) in zip(self.rounds, dealt.planes, strict=True):
            if structure.subsets:
                bits.deal_products(structure.subsets, lam, products)

    def shares(self, words: Words) -> Dealt:
        """Cut this process's shares into their parts."""
        parts, uniform = self.split(words), len(self.layout.masks)
        return self._named(parts[:uniform], parts[uniform:])

    def _named(self, masks: Sequence[Words], corrected: Sequence[Words]) -> Dealt:
        r, *lams = masks
        beta = lams.pop(0) if self.has_beta else None
        tables, rings, tops, *products = corrected
        return Dealt(r, beta, tables, rings, tops, list(zip(lams, products, strict=True)))


@lru_cache(maxsize=256)
def _parts_of(window: Window) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return what is uniform and what is corrected, for a window without a cross term."""
    rounds, words = window.rounds, window.words
    tops = {"none": 0, "bit": 0, "truncation": 1, "relu": 2}[window.extras] if window.shift else 0
    return (
        (
            Part((window.size,)),
            *((window.beta,) if window.has_beta else ()),
            *(Part((len(structure.opened), words), "xor") for structure in rounds),
        ),
        (
            Part((count_table_words(window.nibbles), window.size), "xor"),
            Part((window.ring_parts, window.size)),
            tops_part(tops, window.size, window.shift),
            *(Part((len(structure.subsets), words), "xor") for structure in rounds),
        ),
    )


@kernel
def _deal(start: int, stop: int, r: Words, beta: Words, shift: int, out: Words) -> None:
    """Rows of out: beta; then beta r; or then beta (r >> s) and r >> s."""
    for e in range(start, stop):
        i = np.uint64(e)
        bit = beta[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        out[0, i] = bit - out[0, i]
        if out.shape[0] > 1:
            high = r[i] >> np.uint64(shift)
            out[1, i] = bit * high - out[1, i]
            if out.shape[0] > 2:
                out[2, i] = high - out[2, i]


@dataclass(repr=False)
class Opened:
    """Where step 3 has left off.

    Attributes
    ----------
    c : uint64 array of shape (1, size)
    bit : uint64 array of shape (p, words), or (p, thresholds, words)
        XOR shares of the sign or of the equality.
    r : uint64 array of shape (p, size)
    beta : uint64 array of shape (p, words), if dealt
    rings : uint64 array of shape (p, ring parts, size)
        Rows: [beta], [beta (r >> s)], [r >> s], as far as dealt; [r >> s] alone with "truncation".
    tops : uint64 array of shape (p, rows, lane words)
        Rows: [r >> 63], [beta (r >> 63)], as far as dealt.
    ref : MaskRef of beta, if dealt
    """

    c: Words
    bit: Words
    r: Words
    beta: Words | None
    rings: Words
    tops: Words
    ref: MaskRef | None


def count_nibbles(bound: int, shift: int = 0) -> int:
    """Return how many nibbles hold every integer up to `bound` in magnitude, with its sign.

    Never more than a word has above bit `shift`: what is below 2^(63 - shift) fits those. Without a
    shift that is the difference of any two values below 2^62.
    """
    most = -(-(WORD_BITS - shift) // NIBBLE_BITS)
    return max(1, min(most, -(-(bound.bit_length() + 1) // NIBBLE_BITS)))


@lru_cache(maxsize=64)
def _prefix(nibbles: int) -> tuple[bits.Structure, ...]:
    """Return the rounds of step 3; plane j is g_j and plane nibbles + j is p_j, the lowest first."""
    groups: list[bits.Polynomial] = []
    order = list(range(nibbles))[::-1]
    pieces = [order[k : k + bits.FAN_IN] for k in range(0, nibbles, bits.FAN_IN)]
    for number, piece in enumerate(pieces):
        p = [nibbles + j for j in piece]
        groups.append(tuple((*p[:k], g) for k, g in enumerate(piece)))
        if number < len(pieces) - 1:
            groups.append((tuple(p),))
    first = bits.structure_of(tuple(groups))
    if len(pieces) == 1:
        return (first,)
    # Outputs of the first round alternate: G of a group, P of the group.
    p = [2 * k + 1 for k in range(len(pieces) - 1)]
    second = tuple((*p[:k], 2 * k) for k in range(len(pieces)))
    return (first, bits.structure_of((second,)))


def _rounds(nibbles: int, signed: bool) -> tuple[bits.Structure, ...]:
    if signed:
        return _prefix(nibbles)
    return bits.tree((tuple(range(nibbles, 2 * nibbles)),))


def cost(
    parties: int,
    size: int,
    shift: int,
    nibbles: int,
    signed: bool,
    extras: Extras,
    thresholds: int = 1,
) -> Spent:
    """Declare the cost for `size` elements, each against so many thresholds."""
    window = Window(size, shift, nibbles, signed, extras, thresholds)
    total = Spent(1, 8 * (parties - 1) * size, 8 * window.corrected_words)
    for structure in window.rounds:
        opening = bits.cost(parties, structure, window.words)
        total = total + Spent(opening.rounds, opening.bytes_sent)
    return total


def _open(
    session: Runtime,
    x: SecretValue,
    shift: int,
    nibbles: int,
    signed: bool,
    extras: Extras,
    thresholds: Sequence[int | Words] = (0,),
) -> Opened:
    size = x.size
    # Without a shift, ReLU takes the mask itself for [r >> s].
    x, cross_term = x.split_cross_term() if shift or extras != "relu" else (x, None)
    correlation = Window(size, shift, nibbles, signed, extras, len(thresholds), cross_term)
    number, words = session.correlated(correlation)
    dealt = correlation.shares(words)

    c = open_masked(session, x, dealt.r)
    words_each = count_words(size)
    each = np.empty((len(thresholds), len(words), 2 * nibbles, words_each), np.uint64)
    for planes, threshold in zip(each, thresholds, strict=True):
        for i in range(len(planes)):
            # What differs from element to element is taken from c, which has no shift then.
            if isinstance(threshold, np.ndarray):
                seen, rest = c[0] - threshold, 0
            else:
                seen, rest = c[0], threshold
            read_tables(
                seen, shift, nibbles, signed, dealt.tables[i], i == session.first_row,
                planes[i, :nibbles], planes[i, nibbles:], rest,
            )  # fmt: skip
    planes = each.transpose(1, 2, 0, 3).reshape(len(words), 2 * nibbles, correlation.words)
    for structure, masks_and_products in zip(correlation.rounds, dealt.planes, strict=True):
        planes = bits.evaluate(session, planes, structure, masks_and_products)
    bit = planes[:, 0]
    ref = MaskRef(number, correlation.beta, start=size) if correlation.has_beta else None
    return Opened(c, bit, dealt.r, dealt.beta, dealt.rings, dealt.tops, ref)


def open_sign(x: SecretValue, shift: int, extras: Extras, *, strict: bool = False) -> Opened:
    """Share the bit of y < 0 for y = x / 2^shift, rounded as a truncation rounds it.

    With `strict` that of y < 1, which is the sign of y - 1: as cheap, and in the window if y is.
    """
    nibbles = count_nibbles(-(-x.bound >> shift))
    return _open(x.session, x, shift, nibbles, True, extras, (int(strict),))


def open_signs(x: SecretValue, shift: int, thresholds: Sequence[int]) -> Opened:
    """Share the sign bits of y - t for y = x / 2^shift and each public integer t, from one opening.

    y - t must stay below 2^(63 - shift) in magnitude, as it does for thresholds up to the bound of y.
    The rings and tops are what finishing the truncation to y takes, see
    :func:`mpc.protocols.truncation.finish`.
    """
    nibbles = count_nibbles(-(-x.bound >> shift) + max(map(abs, thresholds)), shift)
    opened = _open(x.session, x, shift, nibbles, True, "truncation", thresholds)
    opened.bit = opened.bit.reshape(len(opened.bit), len(thresholds), count_words(x.size))
    return opened


def open_top_bits(x: SecretValue, offsets: Sequence[Words]) -> Words:
    """Share the top bits of w - t for the words w of x, whatever they are, from one opening.

    Each t of `offsets` is an array of public words, one an element; the bound of x does not count.
    The result has the shape (p, len(offsets), words).
    """
    opened = _open(x.session, x, 0, 64 // NIBBLE_BITS, True, "none", offsets)
    return opened.bit.reshape(len(opened.bit), len(offsets), count_words(x.size))


def open_zero(x: SecretValue, extras: Extras) -> Opened:
    """Share whether x is zero."""
    return _open(x.session, x, 0, count_nibbles(x.bound), False, extras)
