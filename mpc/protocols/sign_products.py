"""The sign of a truncated value times that value, in two rounds: ReLU for a slow network.

In place of a bit beta, as in :mod:`mpc.protocols.relu`, all products that the bits of the comparison may
take part in are dealt. Notation as in :mod:`mpc.protocols.sign`; R = r >> s, T = r >> 63, and P is each of
1, R and T.
1. Provider: r; the tables of the D digits of v', the L - 1 lower bits of v; masks lambda_e for the
   2 D - 1 bits e = p_1, ..., p_(D - 1), g_0, ..., g_(D - 1). [R], [T], [m_v P] and, for each set S of
   bits within one of the products of t = g_(D - 1) + p_(D - 1) (g_(D - 2) + ... p_1 g_0), the numbers
   [lambda_S (1 - 2 m_v) P], lambda_S being the product of the masks: 3 2^(D - 1) - 2 sets.
2. c = open(z + 2^62 + r): 1 round. Every party reads its shares of the bits from the tables, at u - 1,
   and m_e = open(e ^ lambda_e): 2 D - 1 bits, 1 round.
3. t is linear in each e = m_e + (1 - 2 m_e) lambda_e. So locally, for each P,
   [w P] = [m_v P] + [t (1 - 2 m_v) P], where w = m_v ^ t: see ring.masked_products.
4. y - 1 has the sign m_u ^ w, and m_u is public. relu(y) is y w if m_u = 1, else y (1 - w), by step 4 of
   ReLU: [y] = A - [R] + kappa [T] and [y w] = A [w] - [w R] + kappa [w T].
D is what takes the fewest bytes. Numbers that are multiplied by kappa are dealt in lanes of 16, 32 or 64
bits, of which s count. With s = 0, R is r itself and there is no T. Rounding is as in three rounds, by
the same bits of r.
Cost at L = 32: 2 rounds, 8 bytes and 7 bits an element to each other party, correction 536 bytes.

Whether a ReLU takes two rounds, three or four (:mod:`mpc.protocols.relu`) follows from what all parties
know alike: its size, L, and round trip and bandwidth of `[network]` in parties.toml. The fewer rounds, the
more bytes are dealt. Of each form the time is its trips, and nine tenths of the transfer of its correction:
some of it comes while the parties talk. A round is a trip. But where two parties multiply what each masks
for itself, as with rows of one and weights of the other, one of the two is behind then, and an odd round
holds it up once more: two rounds take two trips, three and four take four.
That is so from a model's second call in a session on, if what follows is again multiplied with such
weights: the first call opens weights on the way. How far a party is behind no plan knows, so it does not
count. Two rounds are never taken where nobody states a network, without a provider, where the derivative is
needed, and where the correction would have more than 32 MB, or `memory_limit`. Where nobody states one, it
is three or four, as at 20 ms and 1 Gbit/s, with 1.5 ms for a round more: four of at least ten thousand
elements where that takes no trip more, and of many more where it does.

Source: ours; the tables as in :mod:`mpc.protocols.sign`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.network import Network
from mpc.core.runtime import CorrelatedShares
from mpc.core.secret_value import SecretValue
from mpc.protocols.sign import Window, check_window, deal_rings, window_of
from mpc.protocols.truncation import (
    check_cross_term,
    deal_tops,
    open_masked,
    take_in,
    tops_part,
)
from ring.bits import count_words, fold_of, pack_bits
from ring.digits import WIDEST, Digits, add_tables, digits_of, read_tables, split_evenly
from ring.masked_products import add_masked_products, count_sets, deal_sets

__all__ = ["Chosen", "SignProducts", "cost", "digits_for", "fastest", "open_sign"]

Words = NDArray[np.uint64]

_ONE = np.uint64(1)
# More digits than that never take fewer bytes.
_MOST_DIGITS = 8
_LARGEST = 1 << 25
# The part of a correction's transfer that counts. What a party does for a round more, and for the products
# of two rounds, an element.
_WAITED_FOR = 0.9
_ROUND_SECONDS = 3e-4
_SECONDS = 1e-7
# Where nobody states a network: one to go by, and what a round more takes.
_UNKNOWN_ROUND_SECONDS = 1.5e-3
_NOMINAL = Network(round_trip=0.02, megabits=1000)


class _Dealt(NamedTuple):
    """The parts of :class:`SignProducts`; at a party this process's shares, with the party axis first.

    Attributes
    ----------
    r, lam : uint64 arrays of shape (size,), (2 D - 1, words)
    tables : uint64 array of shape (table words,)
    rings : uint64 array of shape (3, size), or (2, size) for s = 0
        Rows: m_v; m_v R; R.
    sets : uint64 array of shape (2 sets, size)
        The products with 1 - 2 m_v for all sets, then those with (1 - 2 m_v) R.
    tops : uint64 array of shape (2 + sets, lane words), without rows for s = 0
        Rows: T; m_v T; then the products with (1 - 2 m_v) T.
    """

    r: Words
    lam: Words
    tables: Words
    rings: Words
    sets: Words
    tops: Words


@dataclass(frozen=True)
class SignProducts(Correlation):
    """The correlated randomness of step 1.

    `SignProducts` is its name on the wire.

    Attributes
    ----------
    size : int
        Elements of z.
    shift, window : int
        s and L.
    cross_term : Correlation, optional
        C, if z is a product whose cross term is taken into r.
    """

    size: int
    shift: int
    window: int
    cross_term: Correlation | None = None

    @cached_property
    def digits(self) -> Digits:
        """The digits of v'."""
        return digits_for(self.window, self.shift)

    def masks(self) -> tuple[Part, ...]:
        planes = 2 * len(self.digits.widths) - 1
        return Part((self.size,)), Part((planes, count_words(self.size)), "xor")

    def corrected(self) -> tuple[Part, ...]:
        sets = count_sets(len(self.digits.widths))
        return (
            Part((self.digits.count_table_words(self.size),), "xor"),
            Part((3 if self.shift else 2, self.size)),
            Part((2 * sets, self.size)),
            tops_part(2 + sets if self.shift else 0, self.size, self.shift),
        )

    def check(self, limit: int) -> None:
        check_window(self.window, self.shift)
        super().check(limit)
        check_cross_term(self.cross_term, self.size, limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        dealt = _Dealt(*masks, *out)
        r, sets = dealt.r, len(dealt.sets) // 2
        take_in(self.cross_term, provider, r)
        add_tables(r, self.shift, self.digits, dealt.tables)
        sign = r >> np.uint64(self.shift + self.window - 1) & _ONE
        plane = pack_bits(sign)
        deal_rings(r, plane, self.shift, dealt.rings)
        flip = _ONE - sign - sign
        deal_sets(dealt.lam, flip, 0, dealt.sets[:sets])
        deal_sets(dealt.lam, flip * (r >> np.uint64(self.shift)), 0, dealt.sets[sets:])
        if self.shift:
            fold = fold_of(self.shift)
            tops = np.zeros_like(dealt.tops[:2])
            deal_tops(r, self.shift, tops, plane)  # from nothing: the values themselves
            deal_tops(r, self.shift, dealt.tops[:2], plane)
            deal_sets(dealt.lam, _flipped(tops, fold), fold, dealt.tops[2:])

    def shares(self, shares: CorrelatedShares) -> _Dealt:
        """Name the parts of this process's shares, with the corrected ones."""
        return _Dealt(*shares.masks, *shares.corrected)


def _flipped(tops: Words, fold: int) -> Words:
    """Return (1 - 2 m_v) T, from rows T and m_v T in lanes."""
    top, times_sign = tops.view(np.dtype(f"u{8 >> fold}"))
    words: Words = (top - times_sign - times_sign).view(np.uint64)
    return words


@lru_cache(maxsize=512)
def digits_for(window: int, shift: int) -> Digits:
    """Return the digits of the L - 1 lower bits that take the fewest bytes."""
    below = window - 1

    def count(digits: Digits) -> int:
        sets = count_sets(len(digits.widths))
        return digits.table_bits + sets * (128 + ((64 >> fold_of(shift)) if shift else 0))

    tried = range(-(-below // WIDEST), min(below, _MOST_DIGITS) + 1)
    return min((digits_of(split_evenly(below, n), False) for n in tried), key=count)


@dataclass(repr=False)
class Chosen:
    """What step 4 needs: shares with the party axis first, as ReLU names them, beta being w.

    Attributes
    ----------
    c : uint64 array of shape (1, size)
    delta : uint64 array of shape (1, words)
        The plane of m_u: w = 1 says y > 0 where it is 1, y <= 0 where it is 0.
    r : uint64 array of shape (p, size)
    rings : uint64 array of shape (p, 3, size), or (p, 2, size) for s = 0
        Rows: w; w R; R.
    tops : uint64 array of shape (p, 2, lane words), or (p, 0, lane words)
        Rows: T; w T.
    """

    c: Words
    delta: Words
    r: Words
    rings: Words
    tops: Words


def cost(parties: int, size: int, shift: int, window: int) -> Spent:
    """Declare the cost for `size` elements."""
    correlation = SignProducts(size, shift, window)
    planes = 2 * len(correlation.digits.widths) - 1
    opened = size + planes * count_words(size)
    return Spent(2, 8 * (parties - 1) * opened, 8 * correlation.corrected_words)


def open_sign(x: SecretValue, shift: int) -> Chosen:
    """Steps 2 and 3, for the sign of y - 1 with y = x / 2^shift."""
    session, size = x.session, x.size
    window = window_of(-(-x.bound >> shift), shift, (1,))
    # For s = 0 shares of r stand for those of R, so r must not take in a cross term.
    x, cross_term = x.split_cross_term() if shift else (x, None)
    correlation = SignProducts(size, shift, window, cross_term)
    shares = session.correlated(correlation)
    c = open_masked(session, x, shares.masks[0])
    dealt, digits = correlation.shares(shares), correlation.digits
    count = len(digits.widths)
    # g_0, ..., g_(D - 1) behind p_0, ..., p_(D - 1), of which p_0 is not needed.
    planes = np.empty((len(dealt.r), 2 * count, count_words(size)), np.uint64)
    for i, each in enumerate(planes):
        read_tables(
            c[0], shift, digits, dealt.tables[i], i == session.first_row, each[count:], each[:count], 1
        )  # fmt: skip
    m = session.open((planes[:, 1:] ^ dealt.lam, "xor"))[0]
    rings, tops = dealt.rings.copy(), dealt.tops[:, :2].copy()
    sets, fold = count_sets(count), fold_of(shift)
    for i in range(len(planes)):
        high = rings[i, 2] if shift else dealt.r[i]
        # Of (1 - 2 m_v) P nothing more is dealt.
        flip = np.full(size, i == session.first_row, np.uint64) - 2 * rings[i, 0]
        flip_high = high - 2 * rings[i, 1]
        add_masked_products(m[0], dealt.sets[i, :sets], flip, 0, rings[i, 0])
        add_masked_products(m[0], dealt.sets[i, sets:], flip_high, 0, rings[i, 1])
        if shift:
            flip_top = _flipped(tops[i], fold)
            add_masked_products(m[0], dealt.tops[i, 2:], flip_top, fold, tops[i, 1])
    u = (c >> np.uint64(shift)) - (_ONE << np.uint64(62 - shift)) - _ONE
    delta = pack_bits(u >> np.uint64(window - 1) & _ONE)
    return Chosen(c, delta, dealt.r, rings, tops)


@lru_cache(maxsize=1024)
def _corrections(size: int, shift: int, window: int) -> dict[int, int]:
    """Return the bytes of the correction, by the number of rounds."""
    forms = {
        2: SignProducts(size, shift, window),
        3: Window(size, shift, window, True, "relu"),
        4: Window(size, shift, window, True, "relu", ands=2),
    }
    return {rounds: 8 * form.corrected_words for rounds, form in forms.items()}


@lru_cache(maxsize=1024)
def fastest(
    size: int,
    shift: int,
    window: int,
    network: Network | None,
    *,
    one_is_behind: bool,
    derivative: bool,
    memory: int,
) -> tuple[int, str]:
    """Return in how many rounds to take ReLU, 2, 3 or 4, and why.

    `one_is_behind` says whether each of two parties has masked what the other does not know. `memory` is
    the session's limit.
    """
    corrections = _corrections(size, shift, window)
    # At once: of a model's batch that is no more than it may take.
    held = corrections[2] <= min(_LARGEST, memory)
    two = network is not None and not derivative and held
    step = 2 if one_is_behind else 1
    over = network or _NOMINAL
    seconds = {}
    for rounds in (2, 3, 4) if two else (3, 4):
        trips = -(-rounds // step) * step * over.round_trip / 2
        more = _UNKNOWN_ROUND_SECONDS if network is None else _ROUND_SECONDS
        work = {2: _SECONDS * size, 3: 0.0, 4: more}[rounds]
        seconds[rounds] = trips, work + _WAITED_FOR * over.seconds(corrections[rounds])
    # Of two that take as long, the one with fewer rounds.
    chosen = min(seconds, key=lambda rounds: (sum(seconds[rounds]), rounds))
    said = [
        f"{rounds}{' rounds' if rounds == chosen else ''}: {1e3 * trips:.3g} ms of trips,"
        f" {1e3 * rest:.3g} ms for {corrections[rounds]:,} bytes of correction"
        for rounds, (trips, rest) in seconds.items()
    ]
    said.insert(0, said.pop(list(seconds).index(chosen)))
    if not held:
        said.append(f"2: a correction of {corrections[2]:,} bytes would be held at once")
    if network is None:
        said.append(f"over {over}, as no network is stated")
    return chosen, "; ".join(said)
