"""Tables of the first party, read at places that the second knows, by digits of two private numbers.

The first party has a number a, the second b; digit j of each has t_j bits, at most 4. Of [a_j > b_j] and
[a_j = b_j] for every digit, both get XOR shares. The second party's random choices serve t_j transfers a
digit and all of K numbers a^(k) of the first.
1. Ahead: t_j transfers for digit j. The pad of entry s, for a first and a second bit, is a bit of
   W = XOR over i of (P_i^0 where bit i of s is 0, P_i^1 where it is 1): bits s and 2^t_j + s of 32 bits.
   The second party knows the bits of its choices' entry c_j, and nothing of any other entry: each
   hangs on a bit of a pad P_i that it has not, and that serves this entry alone. K numbers take bits of K
   words from each row.
2. Second party: sends d_j = b_j ^ c_j.
3. First party: for s = 0 ... 2^t_j - 1 sends [a_j > s ^ d_j] ^ gamma_j and [a_j = s ^ d_j] ^ eps_j under
   the pads; gamma_j and eps_j, random, are its shares.
4. Second party: reads entry c_j, which is that of b_j.
Of the lowest digit an order needs the first bit alone; equality needs the second alone.
Cost: 2 rounds, t_j bits a digit, and one or two times 2^t_j bits a digit and number back, in lanes of 8, 16
or 32 bits; sum of t_j transfers in which the first party sends.

Source: 1-of-N transfers from 1-of-2 as in Kolesnikov, Kumaresan 2013 and Naor, Pinkas 1999; digits of
four bits: Rathee et al. 2020 (CrypTFlow2, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.channel import trade
from mpc.two_party.cost import Cost
from mpc.two_party.pads import lane_bits
from mpc.two_party.pair import Correlation, Made, Pair
from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.threads import run
from ring.transpose import planes_of_rows, rows_of_planes

__all__ = ["DIGIT_BITS", "Lookups", "look_up", "widths_of"]

Words = NDArray[np.uint64]
Halves = NDArray[np.uint32]

DIGIT_BITS = 4
# Words of a plane made at once: the rows of a digit then stay in the cache.
BLOCK = 256
# Bit i of the places of 16 entries, twice: for the first bit and for the second.
_PLACES = (0xAAAAAAAA, 0xCCCCCCCC, 0xF0F0F0F0, 0xFF00FF00)
# Words of 32 bits in a block of the hash.
_EACH = 4


def widths_of(bits: int) -> tuple[int, ...]:
    """Return the bits of each digit, the lowest first."""
    whole, rest = divmod(bits, DIGIT_BITS)
    return (DIGIT_BITS,) * whole + ((rest,) if rest else ())


@dataclass(frozen=True, repr=False)
class LookupsMade(Made):
    """Pads and choices.

    Attributes
    ----------
    pads : uint32 array of shape (digits, K, 64 words), where the first party lives; elsewhere None
    choices : uint64 array of shape (bits, words), where the second party lives; elsewhere None
    places : uint64 array of shape (64 words,), likewise: the choices of an element, digit by digit
    seen : uint64 array of shape (2, digits, K, words), likewise
        The pads of the entries at these places.
    """

    pads: Halves | None
    choices: Words | None
    places: Words | None
    seen: Words | None


@dataclass(frozen=True)
class Lookups(Correlation):
    """Pads for the digits of numbers of `bits` bits, 64 `words` of them, and K of the first party's.

    With `ordered` for both bits, of the lowest digit for the first; else for the second alone.
    """

    bits: int
    ordered: bool = True
    numbers: int = 1

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The bits of each digit."""
        return widths_of(self.bits)

    def values(self, digit: int) -> int:
        """How many bits an entry of a digit has."""
        return 2 if self.ordered and digit else 1

    def entry_bits(self, digit: int) -> int:
        """How many bits a whole table takes."""
        return self.values(digit) << self.widths[digit]

    @property
    def message_words(self) -> int:
        """Words of step 3."""
        lanes = sum(lane_bits(self.entry_bits(j)) for j in range(len(self.widths)))
        return lanes * self.numbers * self.words

    @property
    def cost(self) -> Cost:
        return Cost((self.bits * WORD_BITS * self.words, 0))

    def make(self, pair: Pair) -> LookupsMade:
        digits, k, count = len(self.widths), self.numbers, WORD_BITS * self.words
        pads, choices, places, seen = None, None, None, None
        if 0 in pair.parties:
            pads = np.empty((digits, k, count), np.uint32)
        if 1 in pair.parties:
            choices = np.empty((self.bits, self.words), np.uint64)
            places = np.zeros(count, np.uint64)
            seen = np.zeros((2, digits, k, self.words), np.uint64)
        extension = pair.extensions[0]
        for first in range(0, self.words, BLOCK):
            last = min(first + BLOCK, self.words)
            n, rows = WORD_BITS * (last - first), slice(WORD_BITS * first, WORD_BITS * last)
            for j, width in enumerate(self.widths):
                low = DIGIT_BITS * j
                hashed = extension.pads(extension.draw(width * n), -(-k // _EACH))
                second = _second(self, j)
                if pads is not None:
                    assert hashed.sender is not None
                    out = np.empty((k, n), np.uint32)
                    zero, one = (side.view(np.uint32) for side in hashed.sender)
                    selectors = np.array([_masks(i, width) for i in range(width)], np.uint32)
                    run(_combine, n, 8 * width * k, zero, one, selectors, out)
                    pads[j, :, rows] = out
                if seen is not None and places is not None and choices is not None:
                    assert hashed.receiver is not None and hashed.choices is not None
                    mine = hashed.choices.reshape(width, last - first)
                    choices[low : low + width, first:last] = mine
                    found = np.zeros((2, k, last - first), np.uint64)
                    run(
                        _see, last - first, 1000 * k,
                        hashed.receiver.view(np.uint32), mine, low, second, places[rows], found,
                    )  # fmt: skip
                    seen[:, j, :, first:last] = found
        return LookupsMade(self.words, pads, choices, places, seen)


def _masks(i: int, width: int) -> int:
    """Bit i of the places, for 2^width entries and behind them as many again."""
    part = _PLACES[i] & (1 << (1 << width)) - 1
    return part | part << (1 << width) & 0xFFFFFFFF


@kernel
def _combine(
    start: int, stop: int, zero: Halves, one: Halves, selectors: Halves, out: Halves
) -> None:
    """out[k, e] = W; rows (blocks, width * n, 4), those of transfer i behind one another."""
    n = out.shape[1]
    for k in range(out.shape[0]):
        block, place = k // 4, k % 4
        for e in range(start, stop):
            word = np.uint32(0)
            for i in range(selectors.size):
                a, b = zero[block, i * n + e, place], one[block, i * n + e, place]
                word ^= a ^ ((a ^ b) & selectors[i])
            out[k, e] = word


@kernel
def _see(
    start: int, stop: int,
    rows: Halves, choices: Words, low: int, second: int, places: Words, out: Words,
) -> None:  # fmt: skip
    """The pads of the entries at the choices, as planes; and the places."""
    width, n = choices.shape[0], places.size
    one, above = np.uint64(1), np.uint64(second)
    for w in range(start, stop):
        for k in range(out.shape[1]):
            block, part = k // 4, k % 4
            x = y = np.uint64(0)
            for b in range(64):
                place, word, e = np.uint64(0), np.uint64(0), 64 * w + b
                for i in range(width):
                    place |= (choices[i, w] >> np.uint64(b) & one) << np.uint64(i)
                    word ^= np.uint64(rows[block, i * n + e, part])
                x |= (word >> place & one) << np.uint64(b)
                y |= (word >> (place + above) & one) << np.uint64(b)
                if k == 0:
                    places[e] |= place << np.uint64(low)
            out[0, k, w], out[1, k, w] = x, y


@kernel
def _tables(
    start: int, stop: int,
    numbers: Words, opened: Words, low: int, width: int, ordered: bool, second: int,
    shares: Words, pads: Halves, out: Halves,
) -> None:  # fmt: skip
    """Step 3 for a digit; shares (2, K, words)."""
    one, none = np.uint64(1), np.uint64(0)
    entries = one << np.uint64(width)
    digit, whole = entries - one, (one << entries) - one
    shift, behind = np.uint64(low), np.uint64(second)
    greater = whole if ordered else none
    equals = whole if second or not ordered else none
    # A pad's bits behind the entry serve nothing, and are not shown.
    used = np.uint32(whole | whole << behind)
    # Entry s becomes entry s ^ d: neighbours, pairs, fours and eights change places.
    m0, m1, m2, m3 = np.uint64(0x5555), np.uint64(0x3333), np.uint64(0x0F0F), np.uint64(0x00FF)
    two, three, four, eight = np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(8)
    for k in range(out.shape[0]):
        for w in range(start, stop):
            first_share, second_share = shares[0, k, w], shares[1, k, w]
            block = slice(64 * w, 64 * w + 64)
            mine, theirs, hidden, to = (
                numbers[k, block],
                opened[block],
                pads[k, block],
                out[k, block],
            )
            for b in range(64):
                place = np.uint64(b)
                a, d = mine[b] >> shift & digit, theirs[b] >> shift & digit
                e = (one << (a ^ d)) ^ (none - (second_share >> place & one))
                g = (one << a) - one
                g ^= (g ^ ((g & m0) << one | (g >> one & m0))) & (none - (d & one))
                g ^= (g ^ ((g & m1) << two | (g >> two & m1))) & (none - (d >> one & one))
                g ^= (g ^ ((g & m2) << four | (g >> four & m2))) & (none - (d >> two & one))
                g ^= (g ^ ((g & m3) << eight | (g >> eight & m3))) & (none - (d >> three & one))
                g ^= none - (first_share >> place & one)
                to[b] = np.uint32((g & greater) | (e & equals) << behind) ^ (hidden[b] & used)


@kernel
def _read(
    start: int,
    stop: int,
    tables: Halves,
    places: Words,
    low: int,
    width: int,
    second: int,
    out: Words,
) -> None:
    """Step 4: add the entries at the places, as planes (2, K, words)."""
    one = np.uint64(1)
    digit, shift, behind = (one << np.uint64(width)) - one, np.uint64(low), np.uint64(second)
    for k in range(tables.shape[0]):
        for w in range(start, stop):
            block = slice(64 * w, 64 * w + 64)
            entries, at = tables[k, block], places[block]
            x = y = np.uint64(0)
            for b in range(64):
                place, table = at[b] >> shift & digit, np.uint64(entries[b])
                x |= (table >> place & one) << np.uint64(b)
                y |= (table >> (place + behind) & one) << np.uint64(b)
            out[0, k, w] ^= x
            out[1, k, w] ^= y


def look_up(
    pair: Pair, form: Lookups, first: Words | None, second: Words | None, more: Words
) -> tuple[Words, Words]:
    """Steps 2 to 4.

    Parameters
    ----------
    first : uint64 array of shape (K, 64 words), where the first party lives; elsewhere None
        a^(k); bits above those of `form` do not count.
    second : uint64 array of shape (64 words,), where the second party lives; elsewhere None
        b, likewise.
    more : uint64 array of shape (p, extra)
        Words that each party has for the other beside, which go with these messages.

    Returns
    -------
    shares : uint64 array of shape (p, 2, digits, K, words)
        XOR shares of [a_j > b_j] and [a_j = b_j]; those that `form` is not for have no meaning.
    got : uint64 array of shape (p, extra)
    """
    made: LookupsMade = pair.take(form)
    channel, words, extra = pair.channel, form.words, more.shape[1]
    digits, k, count = len(form.widths), form.numbers, WORD_BITS * words
    row = {party: i for i, party in enumerate(pair.parties)}
    shares = np.zeros((len(pair.parties), 2, digits, k, words), np.uint64)
    got = np.empty_like(more)
    nothing = np.empty(0, np.uint64)

    messages = dict.fromkeys(row, nothing)
    if 1 in row:
        assert second is not None and made.choices is not None
        d = planes_of_rows(second, form.bits) ^ made.choices
        messages[1] = np.concatenate([d.reshape(-1), more[row[1]]])
    heard = trade(channel, messages, (0, form.bits * words + extra))

    messages = dict.fromkeys(row, nothing)
    if 0 in row:
        assert first is not None and made.pads is not None
        planes = np.zeros((WORD_BITS, words), np.uint64)
        planes[: form.bits] = heard[0][: form.bits * words].reshape(form.bits, words)
        got[row[0]] = heard[0][form.bits * words :]
        opened = rows_of_planes(planes).reshape(-1)
        shares[row[0]] = pair.random_words(2, digits, k, words)
        message, at = np.empty(form.message_words + extra, np.uint64), 0
        for j, width in enumerate(form.widths):
            lane = lane_bits(form.entry_bits(j))
            part = message[at : at + lane * k * words]
            at += part.size
            # In place where a table fills its lane of 32 bits, as most do.
            out = part.view(np.uint32) if lane == 32 else np.empty(k * count, np.uint32)
            run(
                _tables, words, 2000 * k,
                first, opened, DIGIT_BITS * j, width, form.ordered, _second(form, j),
                np.ascontiguousarray(shares[row[0]][:, j]), made.pads[j], out.reshape(k, count),
            )  # fmt: skip
            if lane != 32:
                part[:] = _pack(out, lane)
        message[at:] = more[row[0]]
        messages[0] = message
    heard = trade(channel, messages, (form.message_words + extra, 0))

    if 1 in row:
        assert made.places is not None and made.seen is not None
        mine, at = shares[row[1]], 0
        mine[:] = made.seen
        for j, width in enumerate(form.widths):
            lane = lane_bits(form.entry_bits(j))
            tables = _unpack(heard[1][at : at + lane * k * words], lane).reshape(k, count)
            at += lane * k * words
            found = np.ascontiguousarray(mine[:, j])
            run(
                _read, words, 1000 * k,
                tables, made.places, DIGIT_BITS * j, width, _second(form, j), found,
            )  # fmt: skip
            mine[:, j] = found
        got[row[1]] = heard[1][at:]
    if not form.ordered:
        # The only bit of an entry has been the second.
        for i, party in enumerate(pair.parties):
            if party == 1:
                shares[i, 1] = shares[i, 0]
    return shares, got


def _second(form: Lookups, digit: int) -> int:
    """Return where the second bits of a digit's entries begin, or 0 if they have but one."""
    return 1 << form.widths[digit] if form.values(digit) == 2 else 0


def _pack(tables: Halves, lane: int) -> Words:
    return tables.astype(f"u{lane // 8}").view(np.uint64)


def _unpack(words: Words, lane: int) -> Halves:
    return words.view(f"u{lane // 8}").astype(np.uint32, copy=False)


def cost(form: Lookups, extra: int = 0) -> Cost:
    """Declare the cost of :func:`look_up`, for so many words beside in each direction."""
    sent = 8 * (form.message_words + extra), 8 * (form.bits * form.words + extra)
    return form.cost + Cost(rounds=2, sent=sent)
