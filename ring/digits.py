"""Comparison of a public number u with a secret v, of which truth tables are XOR-shared, by digits.

u and v are cut into digits of any widths, the lowest first. The dealer, who knows v, writes for each
digit v_j of w bits the truth table T of [v_j > t] over the 2^w values t of u_j: bit t of T is 1 if
v_j > t. Reading bit u_j of T is an XOR-linear map, so a party can do it on its XOR share of T. The
table of [v_j = u_j] follows from the same bits, since [v_j = t] = T[t] ^ T[t - 1] with T[-1] = 1.

For the sign of u - v there is one bit more above the digits, the top bits m_u and m_v, and
msb(u - v) = m_u ^ m_v ^ [u' < v'] for the numbers u', v' below them. The table of the highest digit
holds [v_j > t] ^ m_v instead; whoever adds the constants also adds m_u to what is read. T[2^w - 1] is
m_v then, so that [v_j = t] = T[t] ^ T[t - 1] ^ [t = 0], with T taken cyclically.

The tables of an element are packed, the widest digits first, into words and one last lane of 16, 32 or
64 bits (ring.bits). A table of 64 bits or fewer lies within one word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ring.bits import WORD_BITS, count_lane_words, count_words, fold_of
from ring.compile import kernel
from ring.threads import run

__all__ = [
    "WIDEST",
    "Digits",
    "add_tables",
    "digits_of",
    "read_all_tables",
    "read_tables",
    "split_evenly",
]

Words = NDArray[np.uint64]

WIDEST = 10
"""The most bits of a digit: its table has 1024."""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL = ~np.uint64(0)
_LAST = np.uint64(63)
_SIX = np.uint64(6)
# So many blocks of 64 elements at once: what is read again for each digit stays in the first-level cache,
# and what a digit's elements have in common is set up once.
_BLOCKS = 32


@dataclass(frozen=True, eq=False)
class Digits:
    """Where the digits of a window of bits lie, and their tables.

    Attributes
    ----------
    widths : tuple of int
        Bits of each digit, the lowest first.
    signed : bool
        Whether a top bit follows the digits, and the highest table holds the sign.
    bits : int
        Of the window, the top bit included.
    table_bits : int
        Of the tables of one element.
    whole, fold : int
        The words of one element, and log2 of the lanes in a word of the rest; -1 if there is none.
    places : int64 array of shape (digits, 3)
        For each digit its first bit in the window, its width, the first bit of its table.
    steps : uint64 array of shape (words, 3)
        For each word of tables the bits whose neighbour T[t - 1] is the bit below; the lowest bits of
        the tables that begin there; the lowest bit of the highest digit's table, if it is cyclic.
    """

    widths: tuple[int, ...]
    signed: bool
    bits: int
    table_bits: int
    whole: int
    fold: int
    places: NDArray[np.int64]
    steps: Words

    def count_table_words(self, size: int) -> int:
        """Return how many words hold the tables of `size` elements."""
        return self.whole * size + (count_lane_words(size, self.fold) if self.fold >= 0 else 0)


@lru_cache(maxsize=512)
def digits_of(widths: tuple[int, ...], signed: bool) -> Digits:
    """Return the digits of the given widths, of at most WIDEST bits each."""
    count = len(widths)
    starts = [sum(widths[:j]) for j in range(count)]
    first, at = [0] * count, 0
    for j in sorted(range(count), key=lambda j: -widths[j]):
        first[j] = at
        at += 1 << widths[j]
    words = -(-at // WORD_BITS)
    rest = at % WORD_BITS
    fold = fold_of(rest) if rest else 0
    steps = np.zeros((words, 3), np.uint64)
    steps[:, 0] = _ALL
    for j in range(count):
        word, lowest = first[j] // WORD_BITS, _ONE << np.uint64(first[j] % WORD_BITS)
        steps[word, 0] &= ~lowest
        steps[word, 1] |= lowest
        if signed and j == count - 1:
            steps[word, 2] = lowest
    return Digits(
        widths,
        signed,
        sum(widths) + signed,
        at,
        words - (fold > 0),
        fold if fold > 0 else -1,
        np.array([(starts[j], widths[j], first[j]) for j in range(count)], np.int64),
        steps,
    )


def split_evenly(bits: int, count: int) -> tuple[int, ...]:
    """Cut `bits` bits into `count` digits as even as can be, the widest lowest."""
    return tuple(bits // count + (j < bits % count) for j in range(count))


@kernel
def _add_narrow(
    some: Words, shift: np.uint64, at: np.uint64, mask: np.uint64, lane: np.uint64,
    top_at: np.uint64, inverted: np.uint64, out: Words,
) -> None:  # fmt: skip
    """Add to words of tables that of a digit of fewer than 6 bits, which begins at the bit `lane`."""
    within = _ALL >> np.uint64(63) - mask
    for e in range(out.size):
        here = some[e] >> shift
        below = (_ONE << (here >> at & mask)) - _ONE
        top = _ZERO - (here >> top_at & _ONE)
        out[e] ^= ((below ^ top & inverted) & within) << lane


@kernel
def _add_wide(
    some: Words, shift: np.uint64, at: np.uint64, mask: np.uint64, base: np.uint64,
    top_at: np.uint64, inverted: np.uint64, out: Words,
) -> None:  # fmt: skip
    """Add to words of tables those of a digit of 6 bits or more, from its bit `base` on."""
    for e in range(out.size):
        here = some[e] >> shift
        number = here >> at & mask
        behind = number - base
        below = (_ONE << (behind & _LAST)) - _ONE
        below = below if behind < np.uint64(WORD_BITS) else _ALL
        below = below if number >= base else _ZERO
        top = _ZERO - (here >> top_at & _ONE)
        out[e] ^= below ^ top & inverted


@kernel
def _add_tables(
    start: int, stop: int,
    v: Words, shift: int, places: NDArray[np.int64], signed: bool, bits: int,
    whole: int, fold: int, out: Words,
) -> None:  # fmt: skip
    size, count = v.size, places.shape[0]
    lanes = np.empty(min(_BLOCKS, stop - start) * WORD_BITS, np.uint64)
    top_at = np.uint64(bits - 1)
    for begin in range(start, stop, _BLOCKS):
        first = begin * WORD_BITS
        here = min(_BLOCKS * WORD_BITS, min(stop * WORD_BITS, size) - first)
        some = v[first : first + here]
        for word in range(whole + (fold >= 0)):
            if word < whole:
                row = out[word * size + first : word * size + first + here]
            else:
                row = lanes[:here]
                row[:] = _ZERO
            for j in range(count):
                at, digit = np.uint64(places[j, 0]), places[j, 1]
                place = places[j, 2] - WORD_BITS * word
                mask = (_ONE << np.uint64(digit)) - _ONE
                inverted = _ALL if signed and j == count - 1 else _ZERO
                if 0 <= place < WORD_BITS and digit < 6:
                    _add_narrow(
                        some, np.uint64(shift), at, mask, np.uint64(place), top_at, inverted, row
                    )
                elif digit >= 6 and place <= 0 and place > -(1 << digit):
                    _add_wide(
                        some, np.uint64(shift), at, mask, np.uint64(-place), top_at, inverted, row
                    )
            if word < whole:
                continue
            packed = out[whole * size + (first >> fold) :]
            if fold == 1:
                for i in range(here >> 1):
                    packed[i] ^= lanes[2 * i] | lanes[2 * i + 1] << np.uint64(32)
            else:
                for i in range(here >> 2):
                    packed[i] ^= (
                        lanes[4 * i] | lanes[4 * i + 1] << np.uint64(16)
                        | lanes[4 * i + 2] << np.uint64(32) | lanes[4 * i + 3] << np.uint64(48)
                    )  # fmt: skip
            within, apart = (1 << fold) - 1, WORD_BITS >> fold
            for e in range(here & ~within, here):
                packed[e >> fold] ^= lanes[e] << np.uint64((e & within) * apart)


def add_tables(v: Words, shift: int, digits: Digits, out: Words) -> None:
    """Add (XOR) the truth tables of the digits of ``v >> shift`` to `out`.

    Parameters
    ----------
    v : uint64 array of shape (n,)
    shift : int
        The window of bits of v starts at bit `shift`, and ends at bit 63 at the latest.
    digits : Digits
    out : uint64 array of shape (digits.count_table_words(n),)
    """
    run(
        _add_tables, count_words(v.size), WORD_BITS * 2 * (len(digits.widths) + len(digits.steps)),
        v, shift, digits.places, digits.signed, digits.bits, digits.whole, digits.fold, out,
    )  # fmt: skip


@kernel
def _read_narrow(
    some: Words, row: Words, ends: Words, shift: np.uint64, less: np.uint64, at: np.uint64,
    mask: np.uint64, lane: np.uint64, others: np.uint64, before: np.uint64, turn: np.uint64,
    lowest: np.uint64, greater: Words, equal: Words,
) -> None:  # fmt: skip
    """Read the tables of a digit of at most 6 bits, which begin at the bit `lane` of the words `row`."""
    for block in range(greater.size):
        here = some[block * WORD_BITS : (block + 1) * WORD_BITS]
        tables = row[block * WORD_BITS : (block + 1) * WORD_BITS]
        last = ends[block * WORD_BITS : (block + 1) * WORD_BITS]
        g = p = _ZERO
        # Of constant length, so that LLVM makes vectors of it.
        for e in range(WORD_BITS):
            bit = ((here[e] >> shift) - less >> at & mask) + lane
            table = tables[e]
            behind = _ZERO - (last[e] >> turn & _ONE)
            step = table ^ (table << _ONE & others) ^ before ^ (behind & lowest)
            g |= (table >> bit & _ONE) << np.uint64(e)
            p |= (step >> bit & _ONE) << np.uint64(e)
        greater[block] = g
        equal[block] = p


@kernel
def _read_wide(
    some: Words, row: Words, ends: Words, shift: np.uint64, less: np.uint64, at: np.uint64,
    mask: np.uint64, this: np.uint64, others: np.uint64, before: np.uint64, turn: np.uint64,
    lowest: np.uint64, greater: Words, equal: Words,
) -> None:  # fmt: skip
    """Add what the word `this` of the tables of a digit of more than 6 bits holds."""
    for block in range(greater.size):
        here = some[block * WORD_BITS : (block + 1) * WORD_BITS]
        tables = row[block * WORD_BITS : (block + 1) * WORD_BITS]
        last = ends[block * WORD_BITS : (block + 1) * WORD_BITS]
        g = p = _ZERO
        for e in range(WORD_BITS):
            number = (here[e] >> shift) - less >> at & mask
            one = _ONE if number >> _SIX == this else _ZERO
            bit = number & _LAST
            table = tables[e]
            behind = _ZERO - (last[e] >> turn & _ONE)
            step = table ^ (table << _ONE & others) ^ before ^ (behind & lowest)
            g |= (table >> bit & one) << np.uint64(e)
            p |= (step >> bit & one) << np.uint64(e)
        greater[block] |= g
        equal[block] |= p


@kernel
def _read_tops(some: Words, shift: np.uint64, less: np.uint64, at: np.uint64, out: Words) -> None:
    """Add the top bits m_u to a plane."""
    for block in range(out.size):
        here = some[block * WORD_BITS : (block + 1) * WORD_BITS]
        tops = _ZERO
        for e in range(WORD_BITS):
            tops |= ((here[e] >> shift) - less >> at & _ONE) << np.uint64(e)
        out[block] ^= tops


@kernel
def _read_tables(
    start: int, stop: int,
    c: Words, shift: int, places: NDArray[np.int64], steps: Words, signed: bool, bits: int,
    whole: int, fold: int, tables: Words, flip: bool, greater: Words, equal: Words,
    thresholds: Words, alike: NDArray[np.int64],
) -> None:  # fmt: skip
    size, count = c.size, places.shape[0]
    offset = _ONE << np.uint64(62 - shift)
    most = min(_BLOCKS, stop - start) * WORD_BITS
    padded, lanes, padded_ends = (
        np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64),
    )  # fmt: skip
    for begin in range(start, stop, _BLOCKS):
        end = min(begin + _BLOCKS, stop)
        first, full = begin * WORD_BITS, (end - begin) * WORD_BITS
        here = min(full, size - first)
        some = c[first : first + here]
        if here < full:
            padded[:here] = some
            # u = 0 behind the last element.
            padded[here:] = offset << np.uint64(shift)
            lanes[here:] = padded_ends[here:] = _ZERO
            some = padded
        for word in range(steps.shape[0]):
            others, lowest = steps[word, 0], steps[word, 2]
            before = steps[word, 1] if flip else _ZERO
            # T[t - 1] of the lowest bit: of a cyclic table its last bit, of a wide one's further words
            # the last bit of the word before.
            source, turn = word, _ZERO
            if lowest:
                last = places[count - 1, 2] + (1 << places[count - 1, 1]) - 1
                turn, source = np.uint64(last % WORD_BITS), last // WORD_BITS
            elif others & _ONE:
                source, turn, lowest = word - 1, _LAST, _ONE
            if word < whole:
                row = tables[word * size + first : word * size + first + here]
                if here < full:
                    lanes[:here] = row
                    row = lanes
            else:
                packed = tables[whole * size + (first >> fold) :]
                if fold == 1:
                    for i in range(here >> 1):
                        lanes[2 * i] = packed[i]
                        lanes[2 * i + 1] = packed[i] >> np.uint64(32)
                else:
                    for i in range(here >> 2):
                        lanes[4 * i] = packed[i]
                        lanes[4 * i + 1] = packed[i] >> np.uint64(16)
                        lanes[4 * i + 2] = packed[i] >> np.uint64(32)
                        lanes[4 * i + 3] = packed[i] >> np.uint64(48)
                within, apart = (1 << fold) - 1, WORD_BITS >> fold
                for e in range(here & ~within, here):
                    lanes[e] = packed[e >> fold] >> np.uint64((e & within) * apart)
                row = lanes
            ends = row
            if source != word:
                ends = tables[source * size + first : source * size + first + here]
                if here < full:
                    padded_ends[:here] = ends
                    ends = padded_ends
            for j in range(count):
                at, digit = np.uint64(places[j, 0]), places[j, 1]
                place = places[j, 2] - WORD_BITS * word
                mask = (_ONE << np.uint64(digit)) - _ONE
                narrow = 0 <= place < WORD_BITS and digit <= 6
                if not narrow and not (digit > 6 and place <= 0 and place > -(1 << digit)):
                    continue
                for k in range(thresholds.size):
                    if alike[k, j] != k:
                        continue
                    less, g, p = (
                        offset + thresholds[k],
                        greater[j, k, begin:end],
                        equal[j, k, begin:end],
                    )
                    if narrow:
                        _read_narrow(
                            some, row, ends, np.uint64(shift), less, at, mask, np.uint64(place),
                            others, before, turn, lowest, g, p,
                        )  # fmt: skip
                        continue
                    if place == 0:
                        g[:] = p[:] = _ZERO
                    _read_wide(
                        some, row, ends, np.uint64(shift), less, at, mask, np.uint64(-place) >> _SIX,
                        others, before, turn, lowest, g, p,
                    )  # fmt: skip
        for k in range(thresholds.size):
            for j in range(count):
                if alike[k, j] != k:
                    greater[j, k, begin:end] = greater[j, alike[k, j], begin:end]
                    equal[j, k, begin:end] = equal[j, alike[k, j], begin:end]
        for k in range(thresholds.size if signed and flip else 0):
            _read_tops(
                some, np.uint64(shift), offset + thresholds[k], np.uint64(bits - 1),
                greater[count - 1, k, begin:end],
            )  # fmt: skip


@lru_cache(maxsize=256)
def _alike(thresholds: tuple[int, ...], digits: Digits) -> tuple[Words, NDArray[np.int64]]:
    """Return thresholds as words, and for each and each digit the first one with the same lower bits.

    That digit of u less a threshold depends on the threshold's bits up to the digit's last alone, and many
    thresholds end in zeros.
    """
    alike = np.empty((len(thresholds), len(digits.widths)), np.int64)
    for j, (at, width, _) in enumerate(digits.places.tolist()):
        first: dict[int, int] = {}
        for k, threshold in enumerate(thresholds):
            alike[k, j] = first.setdefault(threshold % (1 << at + width), k)
    return np.array([t % 2**64 for t in thresholds], np.uint64), alike


def read_tables(
    c: Words,
    shift: int,
    digits: Digits,
    tables: Words,
    flip: bool,
    greater: Words,
    equal: Words,
    threshold: int = 0,
) -> None:
    """Do what :func:`read_all_tables` does for one threshold; planes have the shape (digits, words)."""
    read_all_tables(c, shift, digits, tables, flip, greater[:, None], equal[:, None], (threshold,))


def read_all_tables(
    c: Words,
    shift: int,
    digits: Digits,
    tables: Words,
    flip: bool,
    greater: Words,
    equal: Words,
    thresholds: tuple[int, ...],
) -> None:
    """Read the tables at the digits of ``u = (c >> shift) - 2^(62 - shift) - t`` for some thresholds t.

    Parameters
    ----------
    c : uint64 array of shape (n,)
        The opened values.
    shift, digits
        As for :func:`add_tables`.
    tables : uint64 array of shape (digits.count_table_words(n),)
        The tables, or one party's XOR share of them.
    flip : bool
        Whether to add the constants of the affine map, T[-1] = 1 and m_u, to this share: true for one
        party.
    greater, equal : uint64 arrays of shape (digits, thresholds, ceil(n / 64))
        Filled with this share of the planes of [v_j > u_j], for the highest digit of a signed window
        of [v_j > u_j] ^ m_u ^ m_v; and of [v_j = u_j].
    thresholds : tuple of int
        Public numbers to subtract: the same tables serve every u.
    """
    less, alike = _alike(thresholds, digits)
    run(
        _read_tables, count_words(c.size), WORD_BITS * 4 * len(digits.widths) * len(thresholds),
        c, shift, digits.places, digits.steps, digits.signed, digits.bits, digits.whole, digits.fold,
        tables, flip, greater, equal, less, alike,
    )  # fmt: skip
