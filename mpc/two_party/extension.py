"""Random oblivious transfers, as many as are wanted, from 128 trees' worth of seeds.

The sender has a secret D of 128 bits, odd; of transfer j it gets a row q_j, the receiver a bit c_j and a
row t_j = q_j ^ c_j D. Pads are H(q_j), H(q_j ^ D) for the sender and H(t_j) for the receiver.
1. Once: trees of seeds, 128 / k of 2^k leaves (:mod:`mpc.two_party.seeds`). A leaf is the key of an AES-CTR
   stream, read at the transfers' positions.
2. Receiver, for tree i and the streams r_x of its leaves: u_i the sum (XOR) of all r_x, and plane k i + b
   that of all r_x with bit b of x. c = u_0; sends u_i ^ c for the other trees.
3. Sender: the same sums of r_(y ^ D_i), without y = 0: plane k i + b differs from the receiver's by D's bit
   times u_i. Adds D's bit times the message to it: then by D's bit times c.
4. Both turn the planes into rows. H(x) = AES_K(x) ^ x, K = SHA-256(session, direction, position), a new one
   for every TILE transfers.
Cost: 1 round one way, 128 / k - 1 bits a transfer from the receiver and 8 bytes a message.

A position serves once: it is passed before anything is computed or sent, so that what fails in the middle
is lost, and a second attempt has others. A message says its position.
The hash is correlation robust with AES as an ideal cipher. Who knows N pads of the other choice under one K
and computes T values of H meets one of them with probability N T / 2^128, and has D: for a TILE of
2^11, after 2^117. A smaller one costs time: AES takes as long to set up as for 2^10 transfers.

Source: Roy 2022 (SoftSpokenOT, sections 3 and 5; k = 1 is Ishai, Kilian, Nissim, Petrank 2003); the
hash: Guo, Katz, Wang, Yu 2019/074, sections 7.2 and 7.3, and why K must change: 2019/1168.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, FrameError
from mpc.two_party import seeds
from mpc.two_party.channel import Channel, exchange, send
from ring import processes
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.streams import Stream
from ring.threads import run
from ring.transpose import rows_of_planes

__all__ = ["TREE_BITS", "Extension", "Transfers", "message_words"]

Words = NDArray[np.uint64]

TREE_BITS = (1, 2, 4, 8)
# Transfers whose pads come from one key of the hash.
TILE = 1 << 11
# Words a plane that are expanded at once: few enough for the cache, enough for the cipher.
CHUNK = 4096
# Words of transfers that nobody gets to: below the places of silent ones.
LARGEST = 1 << 56
# At least so many words are made at once: setting out takes as long as they do. Who has drawn many is going
# to draw more: then at least an eighth of them, up to the second number.
SMALLEST, SMALL = 128, 1024


def message_words(words: int, k: int) -> int:
    """Return how many words the receiver sends for so many words of transfers."""
    return -(-words // CHUNK) + (seeds.SECRET_BITS // k - 1) * words


@dataclass(frozen=True, repr=False)
class Transfers:
    """Random transfers in a row, at most once to be used.

    Attributes
    ----------
    start : int
        The position of the first.
    count : int
        How many.
    q : uint64 array of shape (count, 2), where the sender lives; elsewhere None
    t : uint64 array of shape (count, 2), where the receiver lives; elsewhere None
    choices : uint64 array of shape (count / 64,), where the receiver lives; elsewhere None
    """

    start: int
    count: int
    q: Words | None
    t: Words | None
    choices: Words | None

    def part(self, first: int, stop: int) -> Transfers:
        """Return the transfers [first, stop), both multiples of 64."""
        rows, words = slice(first, stop), slice(first // WORD_BITS, stop // WORD_BITS)
        return Transfers(
            self.start + first,
            stop - first,
            None if self.q is None else self.q[rows],
            None if self.t is None else self.t[rows],
            None if self.choices is None else self.choices[words],
        )

    def without_rows(self) -> Transfers:
        """Return as many transfers where no party lives (for plans)."""
        return Transfers(self.start, self.count, None, None, None)

    @staticmethod
    def joined(parts: Sequence[Transfers]) -> Transfers:
        """Return transfers that follow one another as one."""

        def join(name: str) -> Words | None:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays)

        if len(parts) == 1:
            return parts[0]
        count = sum(part.count for part in parts)
        return Transfers(parts[0].start, count, join("q"), join("t"), join("choices"))


@dataclass(frozen=True, repr=False)
class Pads:
    """What the rows of transfers hash to.

    Attributes
    ----------
    sender : uint64 array of shape (2, blocks, count, 2), where the sender lives; elsewhere None
        The pads of choice 0, and those of choice 1.
    receiver : uint64 array of shape (blocks, count, 2), where the receiver lives; elsewhere None
    choices : uint64 array of shape (count / 64,), where the receiver lives; elsewhere None
    """

    sender: Words | None
    receiver: Words | None
    choices: Words | None


@kernel
def _fold(start: int, stop: int, streams: Words, out: Words, total: Words) -> None:
    """out[b] = XOR of the streams with bit b; total = XOR of all."""
    block = 256
    leaves, bits = streams.shape[0], out.shape[0]
    # The sums of pairs, of fours and so on, one behind the other.
    sums = np.empty((max(1, leaves - 1), block), np.uint64)
    for left in range(start, stop, block):
        width = min(block, stop - left)
        size, made = leaves, 0
        for b in range(bits):
            target = out[b, left : left + width]
            for w in range(width):
                target[w] = np.uint64(0)
            for x in range(size // 2):
                if b == 0:
                    even = streams[2 * x, left : left + width]
                    odd = streams[2 * x + 1, left : left + width]
                else:
                    even, odd = sums[made - size + 2 * x], sums[made - size + 2 * x + 1]
                to = sums[made + x]
                for w in range(width):
                    target[w] ^= odd[w]
                    to[w] = even[w] ^ odd[w]
            size //= 2
            made += size
        for w in range(width):
            total[left + w] = sums[leaves - 2, w]


@kernel
def _add_masked(start: int, stop: int, masks: Words, message: Words, planes: Words) -> None:
    """planes[k + j] ^= masks[k + j] & message[j // k]: all but the first tree's."""
    k = planes.shape[0] // (message.shape[0] + 1)
    for p in range(k, planes.shape[0]):
        plane, more, mask = planes[p], message[p // k - 1], masks[p]
        for w in range(start, stop):
            plane[w] ^= mask & more[w]


class _End:
    """One party's streams, and what they give."""

    def __init__(self, leaves: Words, k: int, *, missing: bool) -> None:
        self._k = k
        self._trees: list[list[Stream | None]] = [
            [
                None if missing and not x else Stream(leaf.astype("<u8").tobytes())
                for x, leaf in enumerate(tree)
            ]
            for tree in leaves
        ]

    def expand(self, position: int, words: int) -> tuple[Words, Words]:
        """Return the planes, (128, words), and the trees' sums, (trees, words)."""
        k = self._k
        planes = np.empty((seeds.SECRET_BITS, words), np.uint64)
        totals = np.empty((len(self._trees), words), np.uint64)
        streams = np.empty((1 << k, words), np.uint64)
        for i, tree in enumerate(self._trees):
            Stream.fill_each(tree, streams, 0, position)
            out = planes[k * i : k * i + k]
            run(_fold, words, 1 << k, streams, out, totals[i], multiple=256)
        return planes, totals


class Extension:
    """Transfers in one direction between two parties.

    Parameters
    ----------
    channel : Channel
    session : bytes
        See :func:`mpc.two_party.base_ot.agree`.
    sender : int
        The party that sends.
    k : int
        1, 2, 4 or 8: more take fewer bytes and more time.

    Notes
    -----
    Both parties call the same methods with the same arguments, in the same order. Threads must take
    turns. The object never shows what it holds.
    """

    def __init__(self, channel: Channel, session: bytes, sender: int, k: int = 4) -> None:
        if k not in TREE_BITS:
            raise ArgumentError(f"k must be one of {TREE_BITS}, got {k}")
        if sender not in (0, 1):
            raise ArgumentError(f"sender must be 0 or 1, got {sender}")
        self.sender, self.made = sender, 0
        self._channel, self._session, self._k = channel, session, k
        self._generation = processes.generation
        self._position = 0
        self._expected = 0
        self._left: Transfers | None = None
        # How many pieces of a message have been sent, within one.
        self._pieces: int | None = None
        secret = None
        if sender in channel.parties:
            secret = int.from_bytes(os.urandom(16), "little") | 1
            bits = seeds.bits_of(secret)
            self._masks = -bits
            self.secret = np.array([secret & (2**64 - 1), secret >> 64], np.uint64)
        leaves = seeds.grow(channel, session, sender, k, secret)
        self._ends = {
            party: _End(rows, k, missing=party == sender) for party, rows in leaves.items()
        }

    def __repr__(self) -> str:
        return f"Extension({self._channel.names[self.sender]} sends, k = {self._k})"

    def expect(self, count: int) -> None:
        """Say that so many transfers are going to be drawn, so that they are made in large pieces."""
        self._expected += count

    def in_pieces(self, begins: bool) -> None:
        """Say whether the next messages are pieces of one, which the receiver sends without a pause.

        Parameters
        ----------
        begins : bool
            Whether such a message begins; False ends it.
        """
        self._pieces = 0 if begins else None

    def count_like(self, other: Extension) -> None:
        """Be where another is, without what it has: no party lives here (for plans)."""
        self._position, self._expected = other._position, other._expected
        self._left = None if other._left is None else other._left.without_rows()

    def resume(self) -> None:
        """After a failure: agree on a position that neither has passed, and forget what is left."""
        self._left, self._expected = None, 0
        self._position = self.agree(self._position)

    def agree(self, position: int, largest: int = LARGEST) -> int:
        """Return the larger of both parties' positions.

        Raises
        ------
        FrameError
            If the other party says that it is beyond `largest`, where nobody gets.
        """
        mine = np.full((len(self._channel.parties), 1), position, np.uint64)
        theirs = exchange(self._channel, mine)
        for party, told in zip(self._channel.parties, theirs[:, 0], strict=True):
            if told > largest:
                raise FrameError(
                    f"{self._channel.names[1 - party]} says that its transfers are at position {told},"
                    f" beyond the last, {largest}"
                )
        return max([position, *(int(p) for p in theirs[:, 0])])

    def draw(self, count: int) -> Transfers:
        """Return the next `count` transfers, a multiple of 64.

        Raises
        ------
        FrameError
            If the parties are at different positions, as they are after a call that failed at one of
            them: both have to call :meth:`resume`.
        PeerError
            If the other party is lost. What was to be made is never made again.
        ProcessError
            In a process forked from the one that has begun: both would use the same transfers.
        """
        processes.check("transfers", self._generation)
        if count < 0 or count % WORD_BITS:
            raise ArgumentError(f"count must be a multiple of {WORD_BITS}, got {count}")
        if not count:
            return self._nothing()
        self._expected = max(0, self._expected - count)
        left, self._left = self._left, None
        parts = [] if left is None else [left]
        have = 0 if left is None else left.count
        while have < count:
            least = min(max(SMALLEST, self._position // 8), SMALL)
            wanted = max(count - have + self._expected, WORD_BITS * least)
            more = self._extend(min(count_words(wanted), CHUNK))
            parts.append(more)
            have += more.count
        whole = Transfers.joined(parts)
        if have > count:
            self._left = whole.part(count, have)
        self.made += count
        return whole.part(0, count)

    def _nothing(self) -> Transfers:
        rows, words = np.empty((0, 2), np.uint64), np.empty(0, np.uint64)
        receives = 1 - self.sender in self._ends
        q = rows if self.sender in self._ends else None
        return Transfers(0, 0, q, rows if receives else None, words if receives else None)

    def _extend(self, words: int) -> Transfers:
        """Steps 2 to 4, for so many words."""
        position = self._position
        # First of all, so that nothing serves twice, whatever happens below.
        self._position += words
        trees, receiver = seeds.SECRET_BITS // self._k, 1 - self.sender
        q, t, choices, message = None, None, None, None
        if receiver in self._ends:
            planes, totals = self._ends[receiver].expand(position, words)
            choices = totals[0].copy()
            message = np.empty(1 + (trees - 1) * words, np.uint64)
            message[0] = position
            np.bitwise_xor(totals[1:], choices, out=message[1:].reshape(trees - 1, words))
        # Both expand at the same time: the sender before it waits for the message.
        own = None
        if self.sender in self._ends:
            own, _ = self._ends[self.sender].expand(position, words)
        count, continued = 1 + (trees - 1) * words, bool(self._pieces)
        got = send(self._channel, receiver, count, message, continued=continued)
        if self._pieces is not None:
            self._pieces += 1
        if receiver in self._ends:
            t = rows_of_planes(planes)
        if got is not None:
            assert own is not None
            if got[0] != position:
                here, there = self._channel.names[self.sender], self._channel.names[receiver]
                raise FrameError(
                    f"{there} makes transfers from position {got[0]}, {here} from {position}:"
                    " a call has failed at one of them, and they must agree where to go on"
                )
            differences = got[1:].reshape(trees - 1, words)
            run(_add_masked, words, 32, self._masks, differences, own)
            q = rows_of_planes(own)
        return Transfers(position * WORD_BITS, words * WORD_BITS, q, t, choices)

    def pads(self, transfers: Transfers, blocks: int = 1) -> Pads:
        """Hash the rows of transfers, each to so many blocks of 128 bits."""
        sender, receiver = None, None
        if transfers.q is not None:
            sender = self._hash(transfers.start, [transfers.q, transfers.q ^ self.secret], blocks)
        if transfers.t is not None:
            receiver = self._hash(transfers.start, [transfers.t], blocks)[0]
        return Pads(sender, receiver, transfers.choices)

    def _hash(self, start: int, rows: list[Words], blocks: int) -> Words:
        """Return H of each array of rows, (len(rows), blocks, count, 2): the same keys for all."""
        count = len(rows[0])
        size = 16 * count
        # The cipher wants room for a block more than it writes.
        buffer = np.empty(len(rows) * blocks * size + 15, np.uint8)
        target, sources = buffer.data, [x.data.cast("B") if count else x.data for x in rows]
        for block in range(blocks):
            for first in range(0, size, 16 * TILE):
                last = min(first + 16 * TILE, size)
                where = (start + first // 16).to_bytes(8, "big") + block.to_bytes(4, "big")
                data = b"sotto ot hash" + self._session + bytes([self.sender]) + where
                key = algorithms.AES(sha256(data).digest()[:16])
                cipher = Cipher(key, modes.ECB()).encryptor()
                for k, source in enumerate(sources):
                    at = (k * blocks + block) * size
                    cipher.update_into(source[first:last], target[at + first : at + last + 15])
        out = buffer[: len(rows) * blocks * size].view(np.uint64)
        whole = out.reshape(len(rows), blocks, count, 2)
        for x, y in zip(rows, whole, strict=True):
            y ^= x
        return whole
