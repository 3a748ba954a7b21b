"""The sign of a truncated value, and equality to zero, from one opening (PROTOCOLS: sign and ReLU).

For z with z / 2^s in L signed bits, L a multiple of 4:
1. c = open(z + 2^62 + r). With v = (r >> s) mod 2^L, which the provider knows, and
   u = ((c >> s) - 2^(62 - s)) mod 2^L, which is public, the truncated y has y = u - v mod 2^L.
2. Leaves: the provider XOR-shares truth tables of [v_j > t] for each nibble; every party reads off
   its shares of g_j = [v_j > u_j] and p_j = [v_j = u_j]: local (see ring.nibbles).
3. Prefix: msb = g_top ^ p_top (g_next ^ p_next (... g_0)), in groups of four: two rounds for any L,
   one for L <= 16, none for L = 4. Equality to zero instead is the product of all p_j.
The result is XOR-shared; :mod:`mpc.protocols.relu`, `comparison` and `argmax` go on from there.
Cost at L = 32: 3 rounds, 8 bytes and 15 bits an element; correction 16 bytes and 38 bits.

Source: the carry as a prefix over blocks (Damgard, Fitzi, Kiltz, Nielsen, Toft 2006, section 6), the
public-input lookup on shared tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky
2013; Rathee et al. 2021, SiRnn).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation, MaskRef, Part
from mpc.cost import Spent
from mpc.errors import ShapeError
from mpc.protocols import bits
from mpc.protocols.truncation import OFFSET_BITS, open_masked
from ring.bits import count_words
from ring.compile import kernel
from ring.nibbles import NIBBLE_BITS, add_tables, count_table_words, read_tables
from ring.threads import run

if TYPE_CHECKING:
    from mpc.provider import Provider
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["Opened", "Window", "cost", "open_sign", "open_zero", "window"]

Words = NDArray[np.uint64]
# What else is dealt with r: nothing, shares of a random bit, or what ReLU needs.
Extras = Literal["none", "bit", "relu"]


@dataclass(frozen=True)
class Window(Correlation):
    """r with the tables of its nibbles, and beta with its products, for `size` elements.

    `shift` is s, ``4 * nibbles`` is L. With extras "bit" come <beta> and [beta]; with "relu" also
    [r >> s], [r >> 63], [beta (r >> s)] and [beta (r >> 63)], of which s = 0 needs the third only.
    """

    size: int
    shift: int
    nibbles: int
    signed: bool
    extras: Extras

    def masks(self) -> tuple[Part, ...]:
        r = Part((self.size,))
        return (r,) if self.extras == "none" else (r, self.beta)

    @property
    def beta(self) -> Part:
        """The plane of random bits."""
        return Part((count_words(self.size),), "xor")

    @property
    def ring_parts(self) -> int:
        """How many ring elements are dealt an element."""
        return {"none": 0, "bit": 1, "relu": 5 if self.shift else 2}[self.extras]

    def corrected(self) -> tuple[Part, ...]:
        tables = Part((count_table_words(self.nibbles), self.size), "xor")
        return (tables, Part((self.ring_parts, self.size)))

    def check(self, limit: int) -> None:
        super().check(limit)
        last = self.shift + NIBBLE_BITS * (self.nibbles - 1)
        if not 0 <= self.shift < OFFSET_BITS or self.nibbles < 1 or last >= 64:
            raise ShapeError(f"no window of {self.nibbles} nibbles starts at bit {self.shift}")

    def deal(self, provider: Provider, masks: list[Words], out: list[Words]) -> None:
        add_tables(masks[0], self.shift, self.nibbles, self.signed, out[0])
        if self.extras != "none":
            run(_deal, self.size, 10, masks[0], masks[1], self.shift, out[1])


@kernel
def _deal(start: int, stop: int, r: Words, beta: Words, shift: int, out: Words) -> None:
    """Rows of out: beta; then beta r; or then beta (r >> s), beta (r >> 63), r >> s, r >> 63."""
    for e in range(start, stop):
        i = np.uint64(e)
        bit = beta[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        out[0, i] = bit - out[0, i]
        if out.shape[0] > 1:
            high = r[i] >> np.uint64(shift)
            out[1, i] = bit * high - out[1, i]
            if out.shape[0] > 2:
                top = r[i] >> np.uint64(63)
                out[2, i] = bit * top - out[2, i]
                out[3, i] = high - out[3, i]
                out[4, i] = top - out[4, i]


@dataclass(frozen=True, repr=False)
class Opened:
    """Where step 3 has left off.

    Attributes
    ----------
    c : uint64 array of shape (1, size)
    bit : uint64 array of shape (p, words)
        XOR shares of the sign or of the equality.
    r : uint64 array of shape (p, size)
    beta : uint64 array of shape (p, words), with extras
    rings : uint64 array of shape (p, ring parts, size)
    ref : MaskRef of beta, with extras
    """

    c: Words
    bit: Words
    r: Words
    beta: Words | None
    rings: Words
    ref: MaskRef | None


def window(bound: int) -> int:
    """Return how many nibbles hold every integer up to `bound` in magnitude, with its sign."""
    return max(1, -(-(bound.bit_length() + 1) // NIBBLE_BITS))


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
    first = bits.structure(tuple(groups))
    if len(pieces) == 1:
        return (first,)
    # Outputs of the first round alternate: G of a group, P of the group.
    p = [2 * k + 1 for k in range(len(pieces) - 1)]
    second = tuple((*p[:k], 2 * k) for k in range(len(pieces)))
    return (first, bits.structure((second,)))


def _rounds(nibbles: int, signed: bool) -> tuple[bits.Structure, ...]:
    if signed:
        return _prefix(nibbles)
    return bits.tree((tuple(range(nibbles, 2 * nibbles)),))


def cost(parties: int, size: int, shift: int, nibbles: int, signed: bool, extras: Extras) -> Spent:
    """Declare the cost for `size` elements."""
    total = Spent(
        1,
        8 * (parties - 1) * size,
        8 * Window(size, shift, nibbles, signed, extras).corrected_words,
    )
    for form in _rounds(nibbles, signed):
        total = total + bits.cost(parties, form, count_words(size))
    return total


def _open(
    session: Session, x: SharedArray, shift: int, nibbles: int, signed: bool, extras: Extras
) -> Opened:
    size = x.size
    correlation = Window(size, shift, nibbles, signed, extras)
    number, words = session.correlated(correlation)
    parts = correlation.split(words)
    r, beta = (parts[0], None) if extras == "none" else (parts[0], parts[1])
    tables, rings = parts[-2], parts[-1]

    c = open_masked(session, x, r)
    planes = np.empty((len(words), 2 * nibbles, count_words(size)), np.uint64)
    for i in range(len(planes)):
        flip = i == session.first_row
        read_tables(
            c[0], shift, nibbles, signed, tables[i], flip, planes[i, :nibbles], planes[i, nibbles:]
        )
    for form in _rounds(nibbles, signed):
        planes = bits.evaluate(session, planes, form)
    bit = planes[:, 0]
    ref = None if extras == "none" else MaskRef(number, correlation.beta, start=size)
    return Opened(c, bit, r, beta, rings, ref)


def open_sign(x: SharedArray, shift: int, extras: Extras) -> Opened:
    """Share the sign bit of x / 2^shift, rounded as a truncation rounds it."""
    return _open(x.session, x, shift, window(-(-x.bound >> shift)), True, extras)


def open_zero(x: SharedArray, extras: Extras) -> Opened:
    """Share whether x is zero."""
    return _open(x.session, x, 0, window(x.bound), False, extras)
