"""The sign of a truncated value, and equality to zero, from one opening.

y = z / 2^s, rounded as :mod:`mpc.protocols.truncation` does it, must fit L signed bits, L <= 64 - s. For
s = 0 and L = 64, z may be any value below 2^63 in magnitude, such as the difference of two values below
2^62. The L bits from bit s on are called the window of bits.
1. c = open(z + 2^62 + r). With v = (r >> s) mod 2^L, which the provider knows, and the public
   u = ((c >> s) - 2^(62 - s)) mod 2^L, y = u - v mod 2^L. With the top bits m_u, m_v and the lower bits
   u', v', msb(y) = m_u ^ m_v ^ [u' < v'].
2. u' and v' are cut into D digits. The provider XOR-shares the truth table of [v_j > t] over the values t
   of u_j, for each digit v_j; with m_v added to that of the highest. From its share of the tables, every
   party reads its shares of g_j = [v_j > u_j] and p_j = [v_j = u_j]: local (see ring.digits). The first
   party adds m_u to g_(D - 1).
3. msb = g_(D - 1) ^ p_(D - 1) (g_(D - 2) ^ p_(D - 2) (... g_0)), a sum of products of up to D bits: 1 round
   (:mod:`mpc.protocols.bits`), none for D = 1. Equality to zero instead is the product of all p_j, the
   digits making up all L bits. The masks for these products of bits are dealt with the tables.
The result is an XOR-shared bit. :mod:`mpc.protocols.relu`, `comparison` and `argmax` go on from it.
D is what takes the fewest bits in all: a table of w bits has 2^w, and 3 2^(D - 1) - 2 D - 1 products are
dealt for each threshold. The tables serve any number of thresholds.
Step 3 in two rounds takes narrower digits, of four bits at L = 32: the first makes g and p of each group
of digits, g_b ^ p_b g_a and so on and the product of all p, and the second goes on from these as from
digits.
Cost at L = 32: 2 rounds, 8 bytes and 10 bits an element; correction 28 bytes and 83 bits. With two rounds
for step 3: 3 rounds, 8 bytes and 15 bits; correction 16 bytes and 38 bits.

Source: the carry as a prefix over blocks (Damgard, Fitzi, Kiltz, Nielsen, Toft 2006, section 6), the
public-input lookup on shared tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky
2013; Rathee et al. 2021, SiRnn), the AND of several bits of ABY2.0 (Patra, Schneider, Suresh, Yalame 2021,
section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.ranges import LARGEST
from mpc.core.runtime import CorrelatedShares, Runtime, Steps
from mpc.core.secret_value import SecretValue
from mpc.protocols import bits
from mpc.protocols.truncation import (
    OFFSET_BITS,
    check_cross_term,
    deal_high,
    deal_tops,
    finish,
    masked,
    take_in,
    tops_part,
)
from mpc.two_party import sign as own_shares
from mpc.two_party.joint import fresh_shares
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.digits import (
    WIDEST,
    Digits,
    add_tables,
    digits_of,
    read_all_tables,
    read_tables,
    split_evenly,
)
from ring.threads import run

__all__ = [
    "Opened",
    "Window",
    "below_steps",
    "check_window",
    "cost",
    "count_bits",
    "deal_rings",
    "digits_for",
    "flat",
    "negative_bits",
    "open_sign",
    "open_signs",
    "open_top_bits",
    "open_zero",
    "own_words",
    "signs_and_value",
    "top_bits_steps",
    "window_of",
    "zero_bits",
    "zero_steps",
]

Words = NDArray[np.uint64]
# What else is dealt with r and its tables: nothing, a random bit for B2A, or the parts for truncation
# or ReLU.
Extras = Literal["none", "bit", "truncation", "relu"]
# With more, the products of masks cost more than any tables save.
_MOST_DIGITS = 12
_WIDEST_ALONE = 20


class Dealt(NamedTuple):
    """The parts of a :class:`Window`, by name.

    At the provider whole values; at a party this process's shares, with the party axis first.

    Attributes
    ----------
    r : uint64 array of shape (size,)
    beta : uint64 array of shape (words,), or None
        A plane of random bits, one an element, with extras "bit" and "relu".
    tables : uint64 array of shape (table words,)
        Truth tables of the digits of v, see ring.digits; XOR shares.
    rings : uint64 array of shape (ring parts, size)
        Additive shares. Rows: beta; then beta (r >> s); then r >> s, as far as dealt. With extras
        "truncation" r >> s is the only row.
    tops : uint64 array of shape (rows, lane words)
        Additive shares in lanes, see ring.bits. Rows: r >> 63; then beta (r >> 63), as far as dealt.
    lam, products : uint64 arrays of shape (planes, words), (products, words)
        Of step 3: the masks of the opened planes, and the products of masks.
    """

    r: Words
    beta: Words | None
    tables: Words
    rings: Words
    tops: Words
    lam: Words
    products: Words


@dataclass(frozen=True)
class Window(Correlation):
    """The correlated randomness of steps 1 to 3: r, tables of v's digits, masks for the products of bits.

    `Window` is its name on the wire.

    Attributes
    ----------
    size : int
        Elements of z.
    shift, window : int
        s and L.
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
    ands : int
        How many rounds step 3 takes, if it takes any: 1, or 2 for a sign.
    """

    size: int
    shift: int
    window: int
    signed: bool
    extras: Extras
    thresholds: int = 1
    cross_term: Correlation | None = None
    ands: int = 1

    def masks(self) -> tuple[Part, ...]:
        return self._parts[0]

    def corrected(self) -> tuple[Part, ...]:
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        return _parts_of(replace(self, cross_term=None) if self.cross_term is not None else self)

    @property
    def digits(self) -> Digits:
        """The digits of step 2."""
        return digits_for(self.window, self.signed, self.thresholds, self.ands, self.size == 1)

    @property
    def rounds(self) -> tuple[bits.Structure, ...]:
        """Step 3: for each round the planes to open and the products of masks to deal."""
        return bits.prefix_rounds(len(self.digits.widths), self.signed, self.ands)

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
        check_window(self.window, self.shift)
        if self.thresholds < 1:
            raise ShapeError(f"a window must have at least 1 threshold, got {self.thresholds}")
        if self.ands not in ((1, 2) if self.signed else (1,)):
            raise ShapeError(f"a window takes 1 round of products, or 2 if signed, got {self.ands}")
        super().check(limit)
        check_cross_term(self.cross_term, self.size, limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        dealt = self._named(masks, out)
        take_in(self.cross_term, provider, dealt.r)
        add_tables(dealt.r, self.shift, self.digits, dealt.tables)
        if dealt.beta is not None:
            deal_rings(dealt.r, dealt.beta, self.shift, dealt.rings)
        elif self.ring_parts:
            deal_high(dealt.r, self.shift, dealt.rings[0])
        deal_tops(dealt.r, self.shift, dealt.tops, dealt.beta)
        for structure, lam, products in self.of_rounds(dealt.lam, dealt.products):
            if structure.subsets:
                bits.deal_products(structure.subsets, lam, products)

    def of_rounds(
        self, lam: Words, products: Words
    ) -> Iterator[tuple[bits.Structure, Words, Words]]:
        """Cut :attr:`Dealt.lam` and :attr:`Dealt.products` into those of each round of step 3."""
        rounds = self.rounds
        for structure in rounds[:-1]:
            opened, dealt = len(structure.opened), len(structure.subsets)
            yield structure, lam[..., :opened, :], products[..., :dealt, :]
            lam, products = lam[..., opened:, :], products[..., dealt:, :]
        yield rounds[-1], lam, products

    def shares(self, shares: CorrelatedShares) -> Dealt:
        """Name the parts of this process's shares, with the corrected ones."""
        return self._named(shares.masks, shares.corrected)

    def _named(self, masks: Sequence[Words], corrected: Sequence[Words]) -> Dealt:
        r, *beta, lam = masks
        tables, rings, tops, products = corrected
        return Dealt(r, beta[0] if beta else None, tables, rings, tops, lam, products)


@lru_cache(maxsize=256)
def _parts_of(window: Window) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return the uniform and the corrected parts, for a window without a cross term."""
    rounds, words = window.rounds, window.words
    tops = {"none": 0, "bit": 0, "truncation": 1, "relu": 2}[window.extras] if window.shift else 0
    return (
        (
            Part((window.size,)),
            *((window.beta,) if window.has_beta else ()),
            Part((sum(len(each.opened) for each in rounds), words), "xor"),
        ),
        (
            Part((window.digits.count_table_words(window.size),), "xor"),
            Part((window.ring_parts, window.size)),
            tops_part(tops, window.size, window.shift),
            Part((sum(len(each.subsets) for each in rounds), words), "xor"),
        ),
    )


def deal_rings(r: Words, beta: Words, shift: int, out: Words) -> None:
    """Compute the last party's shares of beta, beta (r >> s), r >> s, as many as `out` has rows."""
    run(_deal, r.size, 8, r, beta, shift, out)


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


def count_bits(bound: int, shift: int = 0) -> int:
    """Return L for a window that holds every integer up to `bound` in magnitude, with its sign.

    At most the bits of a word above bit `shift`, which hold every magnitude below 2^(63 - shift). For a
    shift of 0 the bound LARGEST stands for the difference of any two values below 2^62, which takes them
    all.
    """
    if not shift and bound >= LARGEST:
        return WORD_BITS
    return max(2, min(WORD_BITS - shift, bound.bit_length() + 1))


def check_window(window: int, shift: int) -> None:
    """Raise ShapeError unless a word has so many bits from bit `shift` on."""
    if not 0 <= shift < OFFSET_BITS or not 2 <= window <= WORD_BITS - shift:
        raise ShapeError(f"a word has no window of {window} bits from bit {shift} on")


@lru_cache(maxsize=512)
def digits_for(
    window: int, signed: bool, thresholds: int = 1, ands: int = 1, alone: bool = False
) -> Digits:
    """Return the digits of a window, for a sign or for equality to zero: those with the fewest bits.

    `ands` is how many rounds of products step 3 takes if it takes any: 1, or 2 for a sign. For one number
    `alone`, equal to zero or not, a round is more than any table up to 128 kB.
    """
    if alone and not signed and window <= _WIDEST_ALONE:
        return digits_of((window,), signed)

    def count(digits: Digits) -> int:
        number = len(digits.widths)
        opened, products = bits.count_planes(number, signed, ands)
        if ands == 2:
            # As they are packed: of 64 elements so many words, of one so many bits.
            return digits.count_table_words(WORD_BITS) + thresholds * (opened + products)
        if number == 1:
            return digits.table_bits
        # A digit more than one takes a round.
        return digits.table_bits + thresholds * (opened + products) + WORD_BITS

    below = window - signed
    # Digits of fewer than four bits would open more bits than they save.
    narrowest = -(-below // 4)
    tried = range(-(-below // WIDEST), min(narrowest, narrowest if ands == 2 else _MOST_DIGITS) + 1)
    return min((digits_of(split_evenly(below, n), signed) for n in tried), key=count)


def cost(
    parties: int,
    size: int,
    shift: int,
    window: int,
    signed: bool,
    extras: Extras,
    thresholds: int = 1,
    ands: int = 1,
) -> Spent:
    """Declare the cost for `size` elements, each against so many thresholds."""
    correlation = Window(size, shift, window, signed, extras, thresholds, None, ands)
    total = Spent(1, 8 * (parties - 1) * size, 8 * correlation.corrected_words)
    for structure in correlation.rounds:
        opening = bits.cost(parties, structure, correlation.words)
        total += Spent(opening.rounds, opening.bytes_sent)
    return total


def _steps(
    session: Runtime,
    x: SecretValue,
    shift: int,
    window: int,
    signed: bool,
    extras: Extras,
    thresholds: Sequence[int | Words] = (0,),
    ands: int = 1,
) -> Steps[Opened]:
    size = x.size
    # For s = 0, ReLU uses shares of r as [r >> s], so r must not take in a cross term.
    x, cross_term = x.split_cross_term() if shift or extras != "relu" else (x, None)
    correlation = Window(size, shift, window, signed, extras, len(thresholds), cross_term, ands)
    shares = session.correlated(correlation)

    c = yield masked(session, x, shares.masks[0]), "sum"
    dealt = correlation.shares(shares)
    digits = correlation.digits
    count = len(digits.widths)
    each = np.empty((len(dealt.r), 2 * count, len(thresholds), count_words(size)), np.uint64)
    # Thresholds that differ by element are subtracted from c; the shift is 0 then.
    own = [k for k, t in enumerate(thresholds) if isinstance(t, np.ndarray)]
    numbers = tuple(t for t in thresholds if not isinstance(t, np.ndarray))
    for i in range(len(each)):
        for k in own:
            read_tables(
                c[0] - thresholds[k], shift, digits, dealt.tables[i], i == session.first_row,
                each[i, :count, k], each[i, count:, k],
            )  # fmt: skip
        if numbers:
            read_all_tables(
                c[0], shift, digits, dealt.tables[i], i == session.first_row,
                each[i, :count], each[i, count:], numbers,
            )  # fmt: skip
    planes = each.reshape(len(dealt.r), 2 * count, correlation.words)
    for structure, *masks in correlation.of_rounds(dealt.lam, dealt.products):
        planes = yield from bits.steps(session, planes, structure, (masks[0], masks[1]))
    bit = planes[:, 0]
    ref = MaskRef(shares.id, correlation.beta, start=size) if correlation.has_beta else None
    return Opened(c, bit, dealt.r, dealt.beta, dealt.rings, dealt.tops, ref)


def open_sign(
    x: SecretValue, shift: int, extras: Extras, thresholds: Sequence[int] = (0,), ands: int = 1
) -> Opened:
    """Compute XOR shares of [y < t] for y = x / 2^shift, rounded as truncation rounds it.

    The thresholds t are at least 0. [y < 1] costs no more than [y < 0]: y - 1 fits L bits if y does.
    Step 3 takes `ands` rounds, 1 or 2.
    """
    window = window_of(-(-x.bound >> shift), shift, thresholds)
    return x.session.run(_steps(x.session, x, shift, window, True, extras, thresholds, ands))


def window_of(bound: int, shift: int, thresholds: Sequence[int]) -> int:
    """Return L for y - t, for all y up to `bound` in magnitude and thresholds t >= 0."""
    # The lowest of a word's values has the magnitude of the highest, and 1 more.
    return count_bits(bound + max(0, max(thresholds) - 1), shift)


def open_signs(
    x: SecretValue, shift: int, window: int, extras: Extras, thresholds: Sequence[int]
) -> Opened:
    """Compute XOR shares of [y < t] for y = x / 2^shift and each t; `window` bits hold y - t."""
    return x.session.run(_steps(x.session, x, shift, window, True, extras, thresholds))


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
    window = count_bits(-(-x.bound >> shift) + max(map(abs, thresholds)), shift)
    if pair is not None:
        bits, y = own_shares.sign(pair, own_words(x, shift), window, shift, thresholds)
        return bits, y[:, : x.size]
    opened = open_signs(x, shift, window, "truncation", thresholds)
    found = opened.bit.reshape(len(opened.bit), len(thresholds), count_words(x.size))
    if not shift:
        return found, flat(x)
    return found, finish(session, opened.c, opened.rings[:, 0], opened.tops, shift)


def flat(x: SecretValue) -> Words:
    """Return shares as (p, size)."""
    return x.shares.reshape(len(x.shares), x.size)


def negative_bits(x: SecretValue) -> Words:
    """Compute XOR shares of [x < 0], (p, words)."""
    pair = x.session.pair
    if pair is None:
        return open_sign(x, 0, "none").bit
    return own_shares.sign(pair, flat(x), count_bits(x.bound))[0][:, 0]


def zero_bits(x: SecretValue, window: int | None = None) -> Words:
    """Compute XOR shares of [x = 0], (p, words).

    `window` is how many of the lowest bits decide it: by default all that the bound of x allows.
    """
    return x.session.run(zero_steps(x, window))


def zero_steps(x: SecretValue, window: int | None = None) -> Steps[Words]:
    """Compute what :func:`zero_bits` does; without a provider before the first step."""
    pair, window = x.session.pair, count_bits(x.bound) if window is None else window
    if pair is not None:
        return own_shares.is_zero(pair, flat(x), window)
    opened = yield from _steps(x.session, x, 0, window, False, "none")
    return opened.bit


def open_top_bits(x: SecretValue, offsets: Sequence[Words]) -> Words:
    """Compute XOR shares of the top bits of words less offsets, see :func:`top_bits_steps`."""
    return x.session.run(top_bits_steps(x, offsets))


def top_bits_steps(x: SecretValue, offsets: Sequence[Words]) -> Steps[Words]:
    """Compute XOR shares of the top bit of (w - t) mod 2^64 for the words w of x, from one opening.

    Each t of `offsets` is an array of public words, one an element. The words of x may be anything,
    whatever its bound says. The result has the shape (p, len(offsets), words).
    """
    pair = x.session.pair
    if pair is not None:
        return own_shares.sign(pair, flat(x), WORD_BITS, 0, offsets)[0]
    opened = yield from _steps(x.session, x, 0, WORD_BITS, True, "none", offsets)
    return opened.bit.reshape(len(opened.bit), len(offsets), count_words(x.size))


def below_steps(x: SecretValue, threshold: int) -> Steps[Words]:
    """Compute XOR shares of [x < t], (p, 1, words), for t up to the bound of x; with a provider alone."""
    window = count_bits(x.bound + abs(threshold))
    opened = yield from _steps(x.session, x, 0, window, True, "none", (threshold,))
    return opened.bit[:, None]


def open_zero(x: SecretValue, extras: Extras) -> Opened:
    """Compute XOR shares of [x = 0]."""
    return x.session.run(_steps(x.session, x, 0, count_bits(x.bound), False, extras))
