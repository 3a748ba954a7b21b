"""Random oblivious transfers from few messages: a million for a hundred kilobytes.

For t trees of depth h and a base of 2^m + t h rows, as :mod:`mpc.two_party.extension` makes them, D odd and
the choice in the lowest bit of a receiver's row:
1. Sender, for each tree: a random s; the root's children are s and D ^ s. The children of a node x are H(x)
   and x ^ H(x), H(x) = AES_K(sigma x) ^ sigma x, sigma(a, b) = (a ^ b, a), K new in each round. On every
   level all nodes sum to D.
2. Sends the sum of each level's left nodes, under a row q of the base. The receiver, with bit r of its row,
   gets the sum of side r, so that it knows all nodes but one: the path takes the other side.
3. The missing leaf is the sum of the others, up to D. Lowest bits of leaves are cleared, and the missing
   one's is set: it is the receiver's choice, one 1 in each tree.
4. To each leaf row both add ten rows of the base, at public positions that a stream gives: learning parity
   with noise, the noise being one 1 in each tree, makes the choices look uniform.
5. The first 2^m + t h rows are the next round's base; the rest is handed out.
Cost: 1 round one way, 16 t h bytes from the sender for t 2^h - t h - 2^m transfers; the first base is made
once.

A round whose message is lost has spent its base: :meth:`Silent.resume` makes a new one.
That parity with regular noise is hard is an assumption beside those of the extension. The sets of t, m and
h are those of emp-ot 1.0 (emp-ot/tuning.h, read in November 2026): for about 128 bits against Gauss,
SD-ISD, BJMM, hybrid and algebraic attacks on regular noise, estimated by lpnestimator.com; the
hybrid attack (Esser, Santini 2023; Briaud, Oygarden 2023 for the algebraic one) binds. Nobody has run
an estimator for this library.

Source: Yang, Weng, Lan, Zhang, Wang 2020 (Ferret); Guo, Yang, Wang, Zhang, Xie, Liu, Zhao 2022 (half
trees).
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, FrameError
from mpc.two_party.channel import Channel, send
from mpc.two_party.extension import Extension, Pads, Transfers
from ring import processes
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.streams import Stream
from ring.threads import run

__all__ = ["SETS", "Silent"]

Words = NDArray[np.uint64]

# Trees, log2 of the base's rows, depth.
SETS = {
    "b10": (850, 16, 10),
    "b11": (1170, 17, 11),
    "b12": (1520, 18, 12),
    "b13": (1900, 19, 13),
}
# Rows of the base that are added to a leaf: two positions in a word.
_PAIRS = 5
# Trees that grow at once, and rows whose positions are drawn at once: what stays in the cache.
_GROUP = 16
_ROWS = 1 << 14
# Where rows count from, beyond all that an extension will ever make: a hash has a key for each place.
_FIRST = 1 << 63
# The number of a round that nobody gets to: all places are below 2^64.
_LARGEST_ROUND = 1 << 40


@kernel
def _sigma(start: int, stop: int, x: Words, out: Words) -> None:
    for i in range(start, stop):
        out[i, 0], out[i, 1] = x[i, 0] ^ x[i, 1], x[i, 0]


@kernel
def _children(
    start: int, stop: int,
    parents: Words, turned: Words, hidden: Words, holes: Words, out: Words, sums: Words,
) -> None:  # fmt: skip
    """Children of each tree's nodes and the sums of both sides, without those of the hole.

    `hidden` is AES of `turned`; a hole behind the last node is none.
    """
    n = parents.shape[0] // sums.shape[0]
    for t in range(start, stop):
        a0 = a1 = b0 = b1 = np.uint64(0)
        hole = holes[t]
        for i in range(n):
            j = t * n + i
            known = np.uint64(0) - np.uint64(np.uint64(i) != hole)
            left0 = (hidden[j, 0] ^ turned[j, 0]) & known
            left1 = (hidden[j, 1] ^ turned[j, 1]) & known
            right0, right1 = (left0 ^ parents[j, 0]) & known, (left1 ^ parents[j, 1]) & known
            out[2 * j, 0], out[2 * j, 1] = left0, left1
            out[2 * j + 1, 0], out[2 * j + 1, 1] = right0, right1
            a0 ^= left0
            a1 ^= left1
            b0 ^= right0
            b1 ^= right1
        sums[t, 0, 0], sums[t, 0, 1], sums[t, 1, 0], sums[t, 1, 1] = a0, a1, b0, b1


@kernel
def _fill(
    start: int, stop: int, nodes: Words, told: Words, bits: Words, sums: Words, holes: Words
) -> None:
    """The hole's child on the side that is told; the other one is the next hole."""
    n = nodes.shape[0] // holes.size
    for t in range(start, stop):
        side = np.uint64(0) - bits[t]
        v0 = told[t, 0] ^ sums[t, 0, 0] ^ ((sums[t, 0, 0] ^ sums[t, 1, 0]) & side)
        v1 = told[t, 1] ^ sums[t, 0, 1] ^ ((sums[t, 0, 1] ^ sums[t, 1, 1]) & side)
        place = np.uint64(2) * holes[t] + bits[t]
        for i in range(n):
            here = np.uint64(0) - np.uint64(np.uint64(i) == place)
            nodes[t * n + i, 0] |= v0 & here
            nodes[t * n + i, 1] |= v1 & here
        holes[t] = place ^ np.uint64(1)


@kernel
def _finish(start: int, stop: int, leaves: Words, holes: Words, missing: bool) -> None:
    """Step 3."""
    trees = holes.size
    n = leaves.shape[0] // trees
    low = np.uint64(1)
    for t in range(start, stop):
        a = b = np.uint64(0)
        for i in range(t * n, t * n + n):
            leaves[i, 0] &= ~low
            a ^= leaves[i, 0]
            b ^= leaves[i, 1]
        if missing:
            for i in range(n):
                here = np.uint64(0) - np.uint64(np.uint64(i) == holes[t])
                leaves[t * n + i, 0] |= (a | low) & here
                leaves[t * n + i, 1] |= b & here


@kernel
def _add_base(
    start: int, stop: int, rows: Words, base: Words, places: Words, mask: np.uint64
) -> None:
    """Step 4; a word of `places` holds two."""
    for j in range(start, stop):
        a, b = rows[j, 0], rows[j, 1]
        for p in range(5):
            word = places[5 * j + p]
            one, other = word & mask, word >> np.uint64(32) & mask
            a ^= base[one, 0] ^ base[other, 0]
            b ^= base[one, 1] ^ base[other, 1]
        rows[j, 0], rows[j, 1] = a, b


@kernel
def _low_bits(start: int, stop: int, rows: Words, out: Words) -> None:
    for w in range(start, stop):
        bits = np.uint64(0)
        for k in range(64):
            bits |= (rows[64 * w + k, 0] & np.uint64(1)) << np.uint64(k)
        out[w] = bits


class Silent:
    """Transfers in one direction, with the methods of :class:`mpc.two_party.extension.Extension`.

    Parameters
    ----------
    channel : Channel
    session : bytes
    extension : Extension
        In the same direction: it makes the first base.
    name : "b10", "b11", "b12" or "b13"
        Which set of parameters: larger ones take fewer bytes a transfer and more memory.
    """

    def __init__(
        self, channel: Channel, session: bytes, extension: Extension, name: str = "b11"
    ) -> None:
        if name not in SETS:
            raise ArgumentError(f"name must be one of {', '.join(SETS)}, got {name!r}")
        self.sender, self.made = extension.sender, 0
        self._channel, self._session, self._extension = channel, session, extension
        self._trees, log, self._depth = SETS[name]
        self._base = 1 << log
        self._reserved = self._base + self._trees * self._depth
        self._generation = processes.generation
        self._round = 0
        # Of each party that lives here; also where none does a base is there or is not.
        self._bases: dict[int, Words] | None = None
        self._left: Transfers | None = None
        key = sha256(b"sotto silent positions" + session + bytes([self.sender])).digest()[:16]
        self._places = Stream(key)

    def __repr__(self) -> str:
        return f"Silent({self._channel.names[self.sender]} sends)"

    @property
    def transfers_a_round(self) -> int:
        """How many transfers a round hands out: whole words of them."""
        leaves = (self._trees << self._depth) - self._reserved
        return leaves // WORD_BITS * WORD_BITS

    def expect(self, count: int) -> None:
        """Nothing: a round makes as many as it does."""

    def in_pieces(self, begins: bool) -> None:
        """Nothing: a round is a message."""

    def count_like(self, other: Silent) -> None:
        """Be where another is, without what it has: no party lives here (for plans)."""
        self._extension.count_like(other._extension)
        self._round = other._round
        self._bases = None if other._bases is None else {}
        self._left = None if other._left is None else other._left.without_rows()

    def resume(self) -> None:
        """After a failure: forget what is left, and begin with a new base."""
        self._left, self._bases = None, None
        self._extension.resume()
        self._round = self._extension.agree(self._round, _LARGEST_ROUND)

    def draw(self, count: int) -> Transfers:
        """Return the next `count` transfers, a multiple of 64; see `Extension.draw`."""
        processes.check("transfers", self._generation)
        if count < 0 or count % WORD_BITS:
            raise ArgumentError(f"count must be a multiple of {WORD_BITS}, got {count}")
        parts: list[Transfers] = []
        have = 0
        while have < count or not parts:
            left, self._left = self._left, None
            if left is None:
                left = self._make()
            size = left.count
            wanted = min(size, count - have)
            if wanted < size:
                self._left = left.part(wanted, size)
            parts.append(left.part(0, wanted))
            have += wanted
        self.made += count
        return Transfers.joined(parts)

    def pads(self, transfers: Transfers, blocks: int = 1) -> Pads:
        """Hash the rows of transfers, each to so many blocks of 128 bits."""
        return self._extension.pads(transfers, blocks)

    def _make(self) -> Transfers:
        """A round."""
        bases = self._first_base() if self._bases is None else self._bases
        # Before anything is sent: a base serves once.
        self._bases = None
        number = self._round
        self._round += 1
        position = _FIRST + number * self.transfers_a_round
        t, h, start = self._trees, self._depth, self._base
        rows: dict[int, Words] = {}
        kept: dict[int, Words] = {}
        message = None
        if self.sender in bases:
            cots = bases[self.sender][start:].reshape(t, h, 2)
            rows[self.sender], told = self._grow(number, cots, None)
            message = np.concatenate([np.array([number], np.uint64), told.reshape(-1)])
        got = send(self._channel, self.sender, 1 + 2 * t * h, message)
        receiver = 1 - self.sender
        if got is not None:
            if got[0] != number:
                here, there = self._channel.names[receiver], self._channel.names[self.sender]
                raise FrameError(
                    f"{there} is in round {got[0]} of silent transfers, {here} in round {number}:"
                    " a call has failed at one of them, and both have to begin anew"
                )
            cots = bases[receiver][start:].reshape(t, h, 2)
            rows[receiver], _ = self._grow(number, cots, got[1:].reshape(t, h, 2))
        out: dict[int, Words] = {}
        for party, leaves in rows.items():
            self._add(number, leaves, bases[party][:start])
            kept[party] = leaves[: self._reserved].copy()
            out[party] = leaves[self._reserved : self._reserved + self.transfers_a_round]
        self._bases = kept
        choices = None
        if receiver in out:
            choices = np.empty(self.transfers_a_round // WORD_BITS, np.uint64)
            run(_low_bits, choices.size, 200, out[receiver], choices)
        q, rows_t = out.get(self.sender), out.get(receiver)
        return Transfers(position, self.transfers_a_round, q, rows_t, choices)

    def _first_base(self) -> dict[int, Words]:
        count = WORD_BITS * count_words(self._reserved)
        self._extension.expect(count)
        transfers = self._extension.draw(count)
        out = {}
        low = np.uint64(1)
        if transfers.q is not None:
            out[self.sender] = transfers.q[: self._reserved].copy()
            out[self.sender][:, 0] &= ~low
        if transfers.t is not None and transfers.choices is not None:
            rows = transfers.t[: self._reserved].copy()
            places = np.arange(self._reserved, dtype=np.uint64)
            words = transfers.choices[places >> np.uint64(6)]
            rows[:, 0] &= ~low
            rows[:, 0] |= words >> (places & np.uint64(63)) & low
            out[1 - self.sender] = rows
        return out

    def _grow(self, number: int, cots: Words, message: Words | None) -> tuple[Words, Words]:
        """Steps 1 to 3: leaves, and the message, of the sender, or of the receiver from the message."""
        t, h, n = self._trees, self._depth, 1 << self._depth
        where = self._session + bytes([self.sender]) + number.to_bytes(8, "big")
        key = algorithms.AES(sha256(b"sotto half tree" + where).digest()[:16])
        cipher = Cipher(key, modes.ECB()).encryptor()
        leaves = np.empty((t * n, 2), np.uint64)
        out = np.empty((t, h, 2), np.uint64)
        bits = np.ascontiguousarray((cots[:, :, 0] & np.uint64(1)).T)
        told = (
            None if message is None else np.ascontiguousarray((message ^ cots).transpose(1, 0, 2))
        )
        for first in range(0, t, _GROUP):
            group = slice(first, min(first + _GROUP, t))
            size = group.stop - first
            # The roots' children; without a hole, it counts as one behind the last node.
            holes = np.full(size, n, np.uint64)
            roots = np.zeros((size, 2, 2), np.uint64)
            if told is None:
                seeds = np.frombuffer(os.urandom(16 * size), np.uint64).reshape(size, 2)
                roots[:, 0], roots[:, 1] = seeds, seeds ^ self._extension.secret
                out[group, 0] = seeds ^ cots[group, 0]
            else:
                right = -bits[0, group][:, None]
                roots[:, 0], roots[:, 1] = told[0, group] & ~right, told[0, group] & right
                holes = bits[0, group] ^ np.uint64(1)
            nodes = roots.reshape(2 * size, 2)
            for level in range(1, h):
                last = level == h - 1
                grown = (
                    leaves[first * n : group.stop * n]
                    if last
                    else np.empty((2 * len(nodes), 2), np.uint64)
                )
                sums = np.empty((size, 2, 2), np.uint64)
                self._level(cipher, nodes, holes, grown, sums)
                if told is None:
                    out[group, level] = sums[:, 0] ^ cots[group, level]
                else:
                    run(
                        _fill, size, 4 * len(grown) // size,
                        grown, told[level, group], bits[level, group], sums, holes,
                    )  # fmt: skip
                nodes = grown
            run(_finish, size, 4 * n, nodes, holes, told is not None)
        return leaves, out

    def _level(self, cipher: Any, nodes: Words, holes: Words, grown: Words, sums: Words) -> None:
        turned = np.empty_like(nodes)
        run(_sigma, len(nodes), 2, nodes, turned)
        buffer = np.empty(nodes.nbytes + 15, np.uint8)
        cipher.update_into(turned.data.cast("B"), buffer.data)
        hidden = buffer[: nodes.nbytes].view(np.uint64).reshape(nodes.shape)
        run(
            _children,
            len(sums),
            12 * len(nodes) // len(sums),
            nodes,
            turned,
            hidden,
            holes,
            grown,
            sums,
        )

    def _add(self, number: int, leaves: Words, base: Words) -> None:
        """Step 4."""
        mask = np.uint64(self._base - 1)
        places = np.empty(_PAIRS * _ROWS, np.uint64)
        for first in range(0, len(leaves), _ROWS):
            part = leaves[first : first + _ROWS]
            words = places[: _PAIRS * len(part)]
            self._places.fill(words, number, _PAIRS * first)
            run(_add_base, len(part), 30, part, base, words, mask)
