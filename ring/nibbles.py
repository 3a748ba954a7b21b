"""Comparison of a public number u with a secret v, of which truth tables are XOR-shared, by nibbles.

Let u and v have L bits, cut into nibbles u_j and v_j, the lowest first. The dealer, who knows v,
writes for each nibble the truth table T of [v_j > t] over the 16 values t of u_j: bit t of T is 1
if v_j > t. Reading bit u_j of T is an XOR-linear map, so a party can do it on its XOR share of T.
The table of [v_j = u_j] follows from the same word, since [v_j = t] = T[t] ^ T[t - 1] with
T[-1] = 1. For the sign of u - v, the top nibble's table holds bit 3 of (u_top - v_top) mod 16
instead, and T[t] ^ T[t - 1], taken cyclically, is then [(u_top - v_top) mod 8 = 0]. Where u and
v are the L bits from bit s on of 64-bit words (a window of bits) and s + L > 64, the top nibble has
only b = 4 - (s + L - 64) bits: the sign is bit b - 1 of (u_top - v_top) mod 2^b, and equality counts
modulo 2^(b - 1).

Four tables of 16 bits make a word; an element has ceil(L / 16) words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.threads import run

__all__ = ["NIBBLE_BITS", "add_tables", "count_table_words", "read_tables"]

Words = NDArray[np.uint64]

NIBBLE_BITS = 4

_ONE = np.uint64(1)
_FIFTEEN = np.uint64(15)
_LOWEST_BITS = np.uint64(0x0001000100010001)
_OTHER_BITS = np.uint64(0xFFFEFFFEFFFEFFFE)
# Bit b - 1 of t, for t = 0..15, and b = 1..4 bits in the top nibble.
_TOP_BITS = np.array([0xAAAA, 0xCCCC, 0xF0F0, 0xFF00], np.uint64)
_TABLE = np.uint64(0xFFFF)


def count_table_words(nibbles: int) -> int:
    """Return how many words hold the tables of one element."""
    return -(-nibbles // 4)


@kernel
def _add_tables(
    start: int, stop: int, v: Words, shift: int, nibbles: int, signed: bool, out: Words
) -> None:
    # Slices from zero: LLVM vectorises loops whose indices cannot be negative.
    some = v[start:stop]
    for j in range(nibbles):
        row = out[j // 4, start:stop]
        lane = np.uint64(16 * (j % 4))
        place = np.uint64(shift + NIBBLE_BITS * j)
        if signed and j == nibbles - 1:
            pattern = _TOP_BITS[min(4, 64 - shift - NIBBLE_BITS * j) - 1]
            for e in range(some.size):
                turned = pattern << (some[e] >> place & _FIFTEEN)
                row[e] ^= ((turned | turned >> np.uint64(16)) & _TABLE) << lane
        else:
            for e in range(some.size):
                row[e] ^= ((_ONE << (some[e] >> place & _FIFTEEN)) - _ONE) << lane


def add_tables(v: Words, shift: int, nibbles: int, signed: bool, out: Words) -> None:
    """Add (XOR) the truth tables of the nibbles of ``v >> shift`` to `out`.

    Parameters
    ----------
    v : uint64 array of shape (n,)
    shift, nibbles : int
        The window of bits of v: `nibbles` nibbles from bit `shift` on. An unsigned window ends at
        bit 63 at the latest; the top nibble of a signed one may reach beyond and is cut there.
    signed : bool
        Whether the top nibble's table gives the sign of u - v, not [v_j > u_j].
    out : uint64 array of shape (ceil(nibbles / 4), n)
    """
    run(_add_tables, v.size, 2 * nibbles, v, shift, nibbles, signed, out)


@kernel
def _read_tables(
    start: int, stop: int,
    u: Words, shift: int, nibbles: int, signed: bool, tables: Words, flip: bool,
    greater: Words, equal: Words, threshold: np.uint64,
) -> None:  # fmt: skip
    shift_ = np.uint64(shift)
    offset = (_ONE << np.uint64(62 - shift)) + threshold
    for block in range(start, stop):
        first = block * WORD_BITS
        width = min(WORD_BITS, u.size - first)
        some = u[first : first + width]
        for w in range(tables.shape[0]):
            here = min(4, nibbles - 4 * w)
            # T[-1] = 1, in the share of the party that flips; the sign's table is cyclic.
            before = _LOWEST_BITS if flip else np.uint64(0)
            cyclic = np.uint64(0)
            if signed and w == tables.shape[0] - 1:
                cyclic = _ONE << np.uint64(16 * (here - 1))
                before &= ~cyclic
            row = tables[w, first : first + width]
            for j in range(here):
                place = np.uint64(16 * w + NIBBLE_BITS * j)
                lane = np.uint64(16 * j)
                g = np.uint64(0)
                p = np.uint64(0)
                # The same loop twice: with a constant length LLVM vectorises it.
                if width == WORD_BITS:
                    for e in range(WORD_BITS):
                        table = row[e]
                        steps = (
                            table
                            ^ (table << _ONE & _OTHER_BITS)
                            ^ before
                            ^ (table >> _FIFTEEN & cyclic)
                        )
                        bit = ((((some[e] >> shift_) - offset) >> place) & _FIFTEEN) + lane
                        g |= (table >> bit & _ONE) << np.uint64(e)
                        p |= (steps >> bit & _ONE) << np.uint64(e)
                else:
                    for e in range(width):
                        table = row[e]
                        steps = (
                            table
                            ^ (table << _ONE & _OTHER_BITS)
                            ^ before
                            ^ (table >> _FIFTEEN & cyclic)
                        )
                        bit = ((((some[e] >> shift_) - offset) >> place) & _FIFTEEN) + lane
                        g |= (table >> bit & _ONE) << np.uint64(e)
                        p |= (steps >> bit & _ONE) << np.uint64(e)
                greater[4 * w + j, block] = g
                equal[4 * w + j, block] = p


def read_tables(
    c: Words,
    shift: int,
    nibbles: int,
    signed: bool,
    tables: Words,
    flip: bool,
    greater: Words,
    equal: Words,
    threshold: int = 0,
) -> None:
    """Read the tables at the nibbles of ``u = (c >> shift) - 2^(62 - shift) - threshold``.

    Parameters
    ----------
    c : uint64 array of shape (n,)
        The opened values.
    shift, nibbles, signed
        As for :func:`add_tables`.
    tables : uint64 array of shape (ceil(nibbles / 4), n)
        The tables, or one party's XOR share of them.
    flip : bool
        Whether to add the constant T[-1] = 1 of the affine map to this share: true for one party.
    greater, equal : uint64 arrays of shape (nibbles, ceil(n / 64))
        Filled with this share of the planes of [v_j > u_j] (for a signed top nibble: of the sign) and
        of [v_j = u_j] (there: of [(u - v) mod 8 = 0], or a smaller modulus if cut at bit 63).
    threshold : int
        A public number to subtract: the same tables serve every u, and so any number of thresholds.
    """
    run(
        _read_tables, count_words(c.size), WORD_BITS * 4 * nibbles,
        c, shift, nibbles, signed, tables, flip, greater, equal, np.uint64(threshold % 2**64),
    )  # fmt: skip
