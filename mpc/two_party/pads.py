"""What pads give: bits times numbers, products of bits, and tables to look up.

With the pads P_0 and P_1 of a transfer, known to the sender, and P_c, known with c to the receiver:
- A choice b in place of c: the receiver opens d = b ^ c. Then P_d is the pad of 0, and P_c that of b.
- Number times bit, x the sender's, b the receiver's, modulo 2^w: the sender has -P_d, and sends
  E = P_d + x - P_(1 - d); the receiver has P_c + b E. `NumberPads`.
- Random bits a at the first party and b at the second, and [a b] modulo 2^w: the same ahead, with c for b
  and a for x. Of any bits m_0, m_1 of the two, with d_0 = m_0 ^ a, d_1 = m_1 ^ b exchanged,
  m_0 m_1 = d_0 d_1 + d_0 (1 - 2 d_1) b + d_1 (1 - 2 d_0) a + (1 - 2 d_0) (1 - 2 d_1) a b. `BitPairs`.
- Products of bits shared by XOR, for nothing: c, and g = P_0 ^ P_1 of a bit of the pads; P_0 and P_c are
  shares of c g. With a transfer in each direction and local terms <p>, <g>, <p g>, and with a second bit
  of the pads <q>, <p q>. `AndPairs`. Then x y = (x ^ p) (y ^ g) ^ (x ^ p) g ^ (y ^ g) p ^ p g.
- A table of 2^t entries, of one or two bits, read at the receiver's place, is in
  :mod:`mpc.two_party.lookup`.
Every bit of a pad hides one thing.

Source: Gilboa 1999 (numbers); Asharov, Lindell, Schneider, Zohner 2013 (ANDs); the exchange of d
ahead of [a b]: Beaver 1995.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.channel import exchange, send
from mpc.two_party.cost import Cost
from mpc.two_party.extension import Pads
from mpc.two_party.pair import Correlation, Made, Pair
from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.threads import run

__all__ = [
    "AndPairs", "BitPairs", "NumberPads", "and_planes", "lane_bits", "narrow", "product_of_bits",
    "times_bit", "widen",
]  # fmt: skip

Words = NDArray[np.uint64]

# Words of a plane that are made at once, so that what is hashed stays in the cache.
BLOCK = 1024
# Told to kernels at run time: where the compiler knows that a factor is a bit, it jumps over what the bit
# keeps out, and the time would show it.
ONE = np.uint64(1)


def lane_bits(bits: int) -> int:
    """Return 8, 16, 32 or 64: the narrowest integers that hold so many bits."""
    return next(width for width in (8, 16, 32, 64) if bits <= width)


def narrow(values: Words, bits: int) -> Words:
    """Put the lowest `bits` bits of values, a multiple of 64 of them, into words."""
    return values.astype(f"<u{lane_bits(bits) // 8}").view("<u8").astype(np.uint64, copy=False)


def widen(words: Words, bits: int) -> Words:
    """Undo :func:`narrow`."""
    lanes = np.ascontiguousarray(words, "<u8").view(f"<u{lane_bits(bits) // 8}")
    return lanes.astype(np.uint64, copy=False)


# Bits at two parties, and their product.


@dataclass(frozen=True, repr=False)
class BitPairsMade(Made):
    """Of each party that lives here its bit, (p, words), and its share of a b, (p, 64 words)."""

    bit: Words
    product: Words


@dataclass(frozen=True)
class BitPairs(Correlation):
    """Random bits a and b, and [a b] modulo 2^bits."""

    bits: int

    @property
    def cost(self) -> Cost:
        sent = 8 * self.words * lane_bits(self.bits)
        return Cost((WORD_BITS * self.words, 0), (sent, 0))

    def make(self, pair: Pair) -> BitPairsMade:
        bit = np.empty((len(pair.parties), self.words), np.uint64)
        product = np.empty((len(pair.parties), WORD_BITS * self.words), np.uint64)
        hidden: list[Words] = []
        for words, rows, pads in _blocks(pair, 0, self.words):
            for i, party in enumerate(pair.parties):
                if party == 0:
                    assert pads.sender is not None
                    bit[i, words] = pair.random_words(words.stop - words.start)
                    full = np.empty(rows.stop - rows.start, np.uint64)
                    zero, one = pads.sender[:, 0]
                    run(_hide_bits, full.size, 8, zero, one, bit[i, words], full, product[i, rows])
                    hidden.append(narrow(full, self.bits))
                else:
                    assert pads.receiver is not None and pads.choices is not None
                    bit[i, words] = pads.choices
                    product[i, rows] = pads.receiver[0, :, 0]
        # At once, so that nothing has to wait for it but the last step.
        message = np.concatenate(hidden) if hidden else None
        if message is None and 0 in pair.parties:
            message = np.empty(0, np.uint64)
        got = send(pair.channel, 0, self.words * lane_bits(self.bits), message)
        for i, party in enumerate(pair.parties):
            if party == 1:
                assert got is not None
                told = widen(got, self.bits)
                run(_unhide, len(told), 8, bit[i], told, ONE, product[i])
        return BitPairsMade(self.words, bit, product)


def _blocks(pair: Pair, sender: int, count: int) -> Iterator[tuple[slice, slice, Pads]]:
    """Draw transfers for so many words of planes: words, elements, and their pads, block by block."""
    extension = pair.extensions[sender]
    for first in range(0, count, BLOCK):
        words = slice(first, min(first + BLOCK, count))
        rows = slice(WORD_BITS * words.start, WORD_BITS * words.stop)
        yield words, rows, extension.pads(extension.draw(rows.stop - rows.start))


@kernel
def _hide_bits(
    start: int, stop: int, zero: Words, one: Words, bits: Words, message: Words, share: Words
) -> None:
    for e in range(start, stop):
        i = np.uint64(e)
        bit = bits[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        message[e] = zero[e, 0] + bit - one[e, 0]
        share[e] = np.uint64(0) - zero[e, 0]


@kernel
def _unhide(
    start: int, stop: int, choices: Words, message: Words, one: np.uint64, share: Words
) -> None:
    for e in range(start, stop):
        i = np.uint64(e)
        bit = choices[i >> np.uint64(6)] >> (i & np.uint64(63)) & one
        share[e] += message[e] & (np.uint64(0) - bit)


@kernel
def _multiply_bits(
    start: int, stop: int,
    first: bool, mine: Words, theirs: Words, bit: Words, product: Words, out: Words,
) -> None:  # fmt: skip
    one = np.uint64(1)
    both = one if first else np.uint64(0)
    for e in range(start, stop):
        i = np.uint64(e)
        word, place = i >> np.uint64(6), i & np.uint64(63)
        d, other, r = (
            mine[word] >> place & one,
            theirs[word] >> place & one,
            bit[word] >> place & one,
        )
        sign, their_sign = one - (d + d), one - (other + other)
        out[e] = (d & other & both) + other * sign * r + sign * their_sign * product[e]


def product_of_bits(pair: Pair, made: BitPairsMade, mine: Words, theirs: Words) -> Words:
    """Return shares of m_0 m_1, (p, 64 words), modulo 2^bits, from what both have exchanged.

    Parameters
    ----------
    mine, theirs : uint64 arrays of shape (p, words)
        m ^ r of each party that lives here, with r its random bit, and that of the other.
    """
    out = np.empty_like(made.product)
    for i, party in enumerate(pair.parties):
        run(
            _multiply_bits, out.shape[1], 12,
            party == 0, mine[i], theirs[i], made.bit[i], made.product[i], out[i],
        )  # fmt: skip
    return out


# A number of one party times a bit of the other.


@dataclass(frozen=True, repr=False)
class NumberPadsMade(Made):
    """Pads of 64 bits.

    Attributes
    ----------
    zero, one : uint64 arrays of shape (64 words,), where the sender lives; elsewhere None
    chosen : likewise of the receiver
    choices : uint64 array of shape (words,), where the receiver lives; elsewhere None
    """

    zero: Words | None
    one: Words | None
    chosen: Words | None
    choices: Words | None


@dataclass(frozen=True)
class NumberPads(Correlation):
    """Pads for a number of `sender` and a bit of the other party, for 64 `words` of both."""

    sender: int

    @property
    def cost(self) -> Cost:
        count = WORD_BITS * self.words
        return Cost((count, 0) if self.sender == 0 else (0, count))

    def make(self, pair: Pair) -> NumberPadsMade:
        count = WORD_BITS * self.words
        sends = self.sender in pair.parties
        receives = 1 - self.sender in pair.parties
        made = [np.empty(count if there else 0, np.uint64) for there in (sends, sends, receives)]
        choices = np.empty(self.words if receives else 0, np.uint64)
        for words, rows, pads in _blocks(pair, self.sender, self.words):
            if pads.sender is not None:
                made[0][rows], made[1][rows] = pads.sender[0, 0, :, 0], pads.sender[1, 0, :, 0]
            if pads.receiver is not None:
                made[2][rows] = pads.receiver[0, :, 0]
                assert pads.choices is not None
                choices[words] = pads.choices
        return NumberPadsMade(
            self.words,
            made[0] if sends else None,
            made[1] if sends else None,
            made[2] if receives else None,
            choices if receives else None,
        )


@kernel
def _offer(
    start: int, stop: int,
    number: Words, bits: Words, opened: Words, zero: Words, one: Words, message: Words, out: Words,
) -> None:  # fmt: skip
    """The sender's part of (own bit ^ the other's bit) times its number."""
    for e in range(start, stop):
        i = np.uint64(e)
        word, place = i >> np.uint64(6), i & np.uint64(63)
        mine = np.uint64(0) - (bits[word] >> place & np.uint64(1))
        d = np.uint64(0) - (opened[word] >> place & np.uint64(1))
        swap = (zero[e] ^ one[e]) & d
        of_zero, of_one = zero[e] ^ swap, one[e] ^ swap
        # x where the own bit is 0, -x where it is 1.
        x = (number[e] ^ mine) - mine
        message[e] = of_zero + x - of_one
        out[e] = (number[e] & mine) - of_zero


@kernel
def _accept(
    start: int, stop: int,
    bits: Words, message: Words, chosen: Words, one: np.uint64, out: Words,
) -> None:  # fmt: skip
    """Add the receiver's share."""
    for e in range(start, stop):
        i = np.uint64(e)
        bit = bits[i >> np.uint64(6)] >> (i & np.uint64(63)) & one
        out[e] += chosen[e] + (message[e] & (np.uint64(0) - bit))


def times_bit(pair: Pair, numbers: Words, bits: Words) -> Words:
    """Return shares of b x, (p, 64 words): 2 rounds, a bit and 8 bytes from each party an element.

    Parameters
    ----------
    numbers : uint64 array of shape (p, 64 words)
        Shares of x.
    bits : uint64 array of shape (p, words)
        XOR shares of b.
    """
    words = bits.shape[1]
    made = [pair.take(NumberPads(words, sender)) for sender in (0, 1)]
    masked = np.empty_like(bits)
    for i, party in enumerate(pair.parties):
        masked[i] = bits[i] ^ made[1 - party].choices
    opened = exchange(pair.channel, masked)
    message, out = np.empty_like(numbers), np.empty_like(numbers)
    for i, party in enumerate(pair.parties):
        run(
            _offer, WORD_BITS * words, 12,
            numbers[i], bits[i], opened[i], made[party].zero, made[party].one, message[i], out[i],
        )  # fmt: skip
    got = exchange(pair.channel, message)
    for i, party in enumerate(pair.parties):
        run(_accept, WORD_BITS * words, 6, bits[i], got[i], made[1 - party].chosen, ONE, out[i])
    return out


def times_bit_cost(words: int) -> Cost:
    """Declare the cost of :func:`times_bit`."""
    sent = 8 * words + 8 * WORD_BITS * words
    online = Cost(rounds=2, sent=(sent, sent))
    return NumberPads(words, 0).cost + NumberPads(words, 1).cost + online


# Products of bits shared by XOR.


@dataclass(frozen=True, repr=False)
class AndPairsMade(Made):
    """XOR shares of random p, g, q and of p g and p q, each of shape (p, words)."""

    p: Words
    g: Words
    q: Words
    pg: Words
    pq: Words


@dataclass(frozen=True)
class AndPairs(Correlation):
    """Random p, g, q with p g and p q, for 64 `words` of them."""

    @property
    def cost(self) -> Cost:
        return Cost((WORD_BITS * self.words, WORD_BITS * self.words))

    def make(self, pair: Pair) -> AndPairsMade:
        out = AndPairsMade(self.words, *np.zeros((5, len(pair.parties), self.words), np.uint64))
        # One direction after the other, so that neither party waits for the other in between.
        for sender in (0, 1):
            for words, _, pads in _blocks(pair, sender, self.words):
                count = words.stop - words.start
                for i, party in enumerate(pair.parties):
                    low = np.empty((2, 2, count), np.uint64)
                    if party == sender:
                        assert pads.sender is not None
                        for rows, planes in zip(pads.sender[:, 0], low, strict=True):
                            run(_two_planes, count, 256, rows, planes)
                        out.g[i, words], out.q[i, words] = low[0] ^ low[1]
                    else:
                        assert pads.receiver is not None and pads.choices is not None
                        run(_two_planes, count, 256, pads.receiver[0], low[0])
                        out.p[i, words] = pads.choices
                    out.pg[i, words] ^= low[0, 0]
                    out.pq[i, words] ^= low[0, 1]
        np.bitwise_xor(out.pg, out.p & out.g, out=out.pg)
        np.bitwise_xor(out.pq, out.p & out.q, out=out.pq)
        return out


@kernel
def _two_planes(start: int, stop: int, rows: Words, out: Words) -> None:
    for w in range(start, stop):
        low = high = np.uint64(0)
        for k in range(64):
            value = rows[64 * w + k, 0]
            low |= (value & np.uint64(1)) << np.uint64(k)
            high |= (value >> np.uint64(1) & np.uint64(1)) << np.uint64(k)
        out[0, w], out[1, w] = low, high


def and_planes(pair: Pair, x: Words, y: Words, z: Words | None = None) -> list[Words]:
    """AND planes shared by XOR: x y, and x z if there is a z, in 1 round.

    Parameters
    ----------
    x, y, z : uint64 arrays of shape (p, ...)
        z may have fewer rows along axis 1 than x and y: then it goes with their last ones.

    Returns
    -------
    list of uint64 arrays: of the shape of x, and of that of z
    """
    shape = x.shape
    made = pair.take(AndPairs(int(np.prod(shape[1:]))))
    p, g, q, pg, pq = (a.reshape(shape) for a in (made.p, made.g, made.q, made.pg, made.pq))
    parts = [x ^ p, y ^ g]
    skip = 0 if z is None else shape[1] - z.shape[1]
    if z is not None:
        q, pq = q[:, skip:], pq[:, skip:]
        parts.append(z ^ q)
    flat = np.concatenate([part.reshape(len(x), _size(part)) for part in parts], axis=1)
    opened = flat ^ exchange(pair.channel, flat)
    size = _size(x)
    u, v = (opened[:, k * size : (k + 1) * size].reshape(shape) for k in (0, 1))
    outs = [(u & g) ^ (v & p) ^ pg]
    if z is not None:
        w, some = opened[:, 2 * size :].reshape(z.shape), u[:, skip:]
        outs.append((some & q) ^ (w & p[:, skip:]) ^ pq)
    for i, party in enumerate(pair.parties):
        if party == 0:
            outs[0][i] ^= u[i] & v[i]
            if z is not None:
                outs[1][i] ^= some[i] & w[i]
    return outs


def _size(planes: Words) -> int:
    return int(np.prod(planes.shape[1:]))


def and_cost(words: int, more: int = 0) -> Cost:
    """Declare the cost of :func:`and_planes`, for so many words of x and of z."""
    sent = 8 * (2 * words + more)
    return AndPairs(words).cost + Cost(rounds=1, sent=(sent, sent))
