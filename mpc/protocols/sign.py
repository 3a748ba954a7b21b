"""The sign of a truncated value, and equality to zero, from one opening.

y = z / 2^s, rounded as :mod:`mpc.protocols.truncation` does it, must fit L signed bits: L is a multiple
of 4, or 64 - s. For s = 0 and L = 64, z may be any value below 2^63 in magnitude, such as the difference
of two values below 2^62. The L bits from bit s on are called the window of bits.
1. c = open(z + 2^62 + r). With v = (r >> s) mod 2^L, which the provider knows, and the public
   u = ((c >> s) - 2^(62 - s)) mod 2^L, y = u - v mod 2^L.
2. Leaves of a comparison tree of u and v: the provider XOR-shares the truth table of [v_j > t] over the
   16 values of t, for each nibble v_j of v. From its share of the table, every party reads its shares
   of g_j = [v_j > u_j] and p_j = [v_j = u_j]: local (see ring.nibbles).
3. Prefix: msb = g_top ^ p_top (g_next ^ p_next (... g_0)), in groups of four: two rounds for any L,
   one for L <= 16, none for L = 4. Equality to zero instead is the product of all p_j. The masks for
   these products of bits are dealt with the tables.
The result is an XOR-shared bit. :mod:`mpc.protocols.relu`, `comparison` and `argmax` go on from it.
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
    finish,
    open_masked,
    take_in,
    tops_part,
)
from mpc.two_party import sign as own_shares
from mpc.two_party.joint import fresh_shares
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.nibbles import NIBBLE_BITS, add_tables, count_table_words, read_tables
from ring.threads import run

__all__ = [
    "Opened",
    "Window",
    "cost",
    "count_nibbles",
    "flat",
    "negative_bits",
    "nibbles_of",
    "open_sign",
    "open_signs",
    "open_top_bits",
    "open_zero",
    "own_words",
    "rounds_of",
    "signs_and_value",
    "window_bits",
    "zero_bits",
]

Words = NDArray[np.uint64]
# What else is dealt with r and its tables: nothing, a random bit for B2A, or the parts for truncation
# or ReLU.
Extras = Literal["none", "bit", "truncation", "relu"]


class Dealt(NamedTuple):
    """The parts of a :class:`Window`, by name.

    At the provider whole values; at a party this process's shares, with the party axis first.

    Attributes
    ----------
    r : uint64 array of shape (size,)
    beta : uint64 array of shape (words,), or None
        A plane of random bits, one an element, with extras "bit" and "relu".
    tables : uint64 array of shape (table words, size)
        Truth tables of the nibbles of v, see ring.nibbles; XOR shares.
    rings : uint64 array of shape (ring parts, size)
        Additive shares. Rows: beta; then beta (r >> s); then r >> s, as far as dealt. With extras
        "truncation" r >> s is the only row.
    tops : uint64 array of shape (rows, lane words)
        Additive shares in lanes, see ring.lanes. Rows: r >> 63; then beta (r >> 63), as far as dealt.
    planes : list of (uint64 array, uint64 array)
        For each round of step 3 the masks of the opened planes, and the products of masks.
    """

    r: Words
    beta: Words | None
    tables: Words
    rings: Words
    tops: Words
    planes: list[tuple[Words, Words]]


@dataclass(frozen=True)
class Window(Correlation):
    """The correlated randomness of steps 1 to 3: r, tables of v's nibbles, masks for the products of bits.

    `Window` is its name on the wire.

    Attributes
    ----------
    size : int
        Elements of z.
    shift, nibbles : int
        s, and L / 4.
    signed : bool
        Whether for a sign, else for equality to zero.
    extras : Extras
        What else is dealt. With "bit" <beta> and [beta] for a random bit beta. With "relu" these and
        [r >> s], [r >> 63], [beta (r >> s)], [beta (r >> 63)]; for s = 0 of the four only the third.
        With "truncation" [r >> s] and [r >> 63]; for s = 0 nothing. Of numbers shifted by 63, only s
        bits are dealt.
    thresholds : int
        How many thresholds each element is compared with.
    cross_term : Correlation, optional
        C, if z is a product whose cross term is taken into r.
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
        """The rounds of step 3: for each, the planes to open and the products of masks to deal."""
        return rounds_of(self.nibbles, self.signed)

    @property
    def words(self) -> int:
        """Words of one bit plane in step 3."""
        return self.thresholds * count_words(self.size)

    @property
    def has_beta(self) -> bool:
        """Whether beta is dealt."""
        return self.extras in ("bit", "relu")

    @property
    def beta(self) -> Part:
        """The part of <beta>, a plane of random bits."""
        return Part((count_words(self.size),), "xor")

    @property
    def ring_parts(self) -> int:
        """The number of rows of :attr:`Dealt.rings`."""
        with_shift = {"none": 0, "bit": 1, "truncation": 1, "relu": 3}
        without = {"none": 0, "bit": 1, "truncation": 0, "relu": 2}
        return (with_shift if self.shift else without)[self.extras]

    def check(self, limit: int) -> None:
        last = self.shift + NIBBLE_BITS * (self.nibbles - 1)
        if not 0 <= self.shift < OFFSET_BITS or self.nibbles < 1 or last >= 64:
            raise ShapeError(
                f"a word has no window of {self.nibbles} nibbles from bit {self.shift} on"
            )
        if self.thresholds < 1:
            raise ShapeError(f"a window must have at least 1 threshold, got {self.thresholds}")
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
        """Name the parts of this process's shares."""
        parts, uniform = self.split(words), len(self.layout.masks)
        return self._named(parts[:uniform], parts[uniform:])

    def _named(self, masks: Sequence[Words], corrected: Sequence[Words]) -> Dealt:
        r, *lams = masks
        beta = lams.pop(0) if self.has_beta else None
        tables, rings, tops, *products = corrected
        return Dealt(r, beta, tables, rings, tops, list(zip(lams, products, strict=True)))


@lru_cache(maxsize=256)
def _parts_of(window: Window) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return the uniform and the corrected parts, for a window without a cross term."""
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
    """Compute the corrections of `Dealt.rings`: rows beta, beta (r >> s), r >> s, as many as there are."""
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
    """The result of step 3, with the shares that later protocols go on with.

    Attributes
    ----------
    c : uint64 array of shape (1, size)
        As opened in step 1.
    bit : uint64 array of shape (p, words), or (p, thresholds, words)
        XOR shares of the sign, or of [z = 0].
    r : uint64 array of shape (p, size)
    beta : uint64 array of shape (p, words), or None
    rings : uint64 array of shape (p, ring parts, size)
    tops : uint64 array of shape (p, rows, lane words)
        Shares as in :class:`Dealt`.
    ref : MaskRef, or None
        Of beta.
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

    At most those of a word above bit `shift`, which hold every magnitude below 2^(63 - shift); for a
    shift of 0 the difference of any two values below 2^62.
    """
    most = -(-(WORD_BITS - shift) // NIBBLE_BITS)
    return max(1, min(most, -(-(bound.bit_length() + 1) // NIBBLE_BITS)))


@lru_cache(maxsize=64)
def _prefix(nibbles: int) -> tuple[bits.Structure, ...]:
    """Return the rounds of step 3 for a sign. Plane j is g_j, plane nibbles + j is p_j, lowest first."""
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


def rounds_of(nibbles: int, signed: bool) -> tuple[bits.Structure, ...]:
    """Return the rounds of step 3, for a sign or for equality to zero."""
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
    # For s = 0, ReLU uses shares of r as [r >> s], so r must not take in a cross term.
    x, cross_term = x.split_cross_term() if shift or extras != "relu" else (x, None)
    correlation = Window(size, shift, nibbles, signed, extras, len(thresholds), cross_term)
    number, words = session.correlated(correlation)
    dealt = correlation.shares(words)

    c = open_masked(session, x, dealt.r)
    words_each = count_words(size)
    each = np.empty((len(thresholds), len(words), 2 * nibbles, words_each), np.uint64)
    for planes, threshold in zip(each, thresholds, strict=True):
        for i in range(len(planes)):
            # Thresholds that differ by element are subtracted from c; the shift is 0 then.
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


def open_sign(
    x: SecretValue, shift: int, extras: Extras, thresholds: Sequence[int] = (0,)
) -> Opened:
    """Compute XOR shares of [y < t] for y = x / 2^shift, rounded as truncation rounds it.

    The thresholds t are at least 0. [y < 1] costs no more than [y < 0]: y - 1 fits L bits if y does.
    """
    nibbles = nibbles_of(-(-x.bound >> shift), shift, thresholds)
    return _open(x.session, x, shift, nibbles, True, extras, thresholds)


def nibbles_of(bound: int, shift: int, thresholds: Sequence[int]) -> int:
    """Return how many nibbles hold y - t for all y up to `bound` in magnitude and thresholds t >= 0."""
    # The lowest of a word's values has the magnitude of the highest, and 1 more.
    return count_nibbles(bound + max(0, max(thresholds) - 1), shift)


def open_signs(
    x: SecretValue, shift: int, nibbles: int, extras: Extras, thresholds: Sequence[int]
) -> Opened:
    """Compute XOR shares of [y < t] for y = x / 2^shift and each t; `nibbles` hold y - t."""
    return _open(x.session, x, shift, nibbles, True, extras, thresholds)


def own_words(x: SecretValue, shift: int) -> Words:
    """Return shares (p, size) that truncation by `shift` bits may take, without a provider."""
    return fresh_shares(x.session, x.shares) if shift else flat(x)


def signs_and_value(x: SecretValue, shift: int, thresholds: Sequence[int]) -> tuple[Words, Words]:
    """Compute XOR shares of [y < t] for y = x / 2^shift and each public integer t, and y itself.

    With one opening for all. y - t must stay below 2^(63 - shift) in magnitude, as it does for
    thresholds up to the bound of y.

    Returns
    -------
    bits : uint64 array of shape (p, thresholds, words)
        XOR shares.
    y : uint64 array of shape (p, size)
        Additive shares.
    """
    session, pair = x.session, x.session.pair
    nibbles = count_nibbles(-(-x.bound >> shift) + max(map(abs, thresholds)), shift)
    if pair is not None:
        bits, y = own_shares.sign(
            pair, own_words(x, shift), window_bits(nibbles, shift), shift, thresholds
        )
        return bits, y[:, : x.size]
    opened = open_signs(x, shift, nibbles, "truncation", thresholds)
    found = opened.bit.reshape(len(opened.bit), len(thresholds), count_words(x.size))
    if not shift:
        return found, flat(x)
    return found, finish(session, opened.c, opened.rings[:, 0], opened.tops, shift)


def window_bits(nibbles: int, shift: int = 0) -> int:
    """Return L, the bits of a window, from its nibbles."""
    return min(WORD_BITS - shift, NIBBLE_BITS * nibbles)


def flat(x: SecretValue) -> Words:
    """Return shares as (p, size)."""
    return x.shares.reshape(len(x.shares), x.size)


def negative_bits(x: SecretValue) -> Words:
    """Compute XOR shares of [x < 0], (p, words)."""
    pair = x.session.pair
    if pair is None:
        return open_sign(x, 0, "none").bit
    return own_shares.sign(pair, flat(x), window_bits(count_nibbles(x.bound)))[0][:, 0]


def zero_bits(x: SecretValue) -> Words:
    """Compute XOR shares of [x = 0], (p, words)."""
    pair = x.session.pair
    if pair is None:
        return open_zero(x, "none").bit
    return own_shares.is_zero(pair, flat(x), window_bits(count_nibbles(x.bound)))


def open_top_bits(x: SecretValue, offsets: Sequence[Words]) -> Words:
    """Compute XOR shares of the top bit of (w - t) mod 2^64 for the words w of x, from one opening.

    Each t of `offsets` is an array of public words, one an element. The words of x may be anything,
    whatever its bound says. The result has the shape (p, len(offsets), words).
    """
    pair = x.session.pair
    if pair is not None:
        return own_shares.sign(pair, flat(x), WORD_BITS, 0, offsets)[0]
    opened = _open(x.session, x, 0, WORD_BITS // NIBBLE_BITS, True, "none", offsets)
    return opened.bit.reshape(len(opened.bit), len(offsets), count_words(x.size))


def open_zero(x: SecretValue, extras: Extras) -> Opened:
    """Compute XOR shares of [x = 0]."""
    return _open(x.session, x, 0, count_nibbles(x.bound), False, extras)
