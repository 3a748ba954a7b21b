"""Whether a > b, or a = b, for numbers that one party each knows.

1. Both get XOR shares of g_j = [a_j > b_j] and e_j = [a_j = b_j] for digits of four bits:
   :mod:`mpc.two_party.lookup`. 2 rounds.
2. Order: neighbours merge, G = g_hi ^ e_hi g_lo, E = e_hi e_lo, until one is left: g is the result. Where
   lo holds the lowest digit no E is needed. A round for each halving.
   Equality: the product of all e_j, likewise.
Of the first party's numbers there may be K for one of the second's.
Cost for D digits: ceil(log2 D) rounds and 3 (D - 1) bits or less an element and number in step 2, of
equality 2 (D - 1); two transfers, one in each direction, for each of D - 1 merges and each number.

Source: Rathee et al. 2020 (CrypTFlow2, section 3); the merge of neighbours: Garay, Schoenmakers,
Villegas 2007.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import lookup
from mpc.two_party.cost import Cost
from mpc.two_party.lookup import Lookups, look_up, widths_of
from mpc.two_party.pads import and_cost, and_planes
from mpc.two_party.pair import Pair

__all__ = ["cost", "equal", "greater"]

Words = NDArray[np.uint64]


def _merges(digits: int) -> list[int]:
    """Return how many pairs merge in each round."""
    rounds = []
    while digits > 1:
        rounds.append(digits // 2)
        digits -= digits // 2
    return rounds


def cost(words: int, bits: int, numbers: int = 1, *, ordered: bool = True, extra: int = 0) -> Cost:
    """Declare the cost of :func:`greater`, or of :func:`equal`."""
    total = lookup.cost(Lookups(words, bits, ordered, numbers), extra)
    for pairs in _merges(len(widths_of(bits))):
        size = numbers * words
        total = total + and_cost(pairs * size, (pairs - 1) * size if ordered else 0)
    return total


def _leaves(
    pair: Pair, form: Lookups, first: Words | None, second: Words | None, more: Words
) -> tuple[Words, Words, Words]:
    shares, got = look_up(pair, form, first, second, more)
    planes = shares.reshape(*shares.shape[:3], form.numbers * form.words)
    return planes[:, 0], planes[:, 1], got


def greater(
    pair: Pair,
    first: Words | None,
    second: Words | None,
    words: int,
    bits: int,
    more: Words,
    numbers: int = 1,
) -> tuple[Words, Words]:
    """Share a^(k) > b.

    Parameters
    ----------
    first : uint64 array of shape (K, 64 words), where the first party lives; elsewhere None
        Of which the lowest `bits` bits count, here and below.
    second : uint64 array of shape (64 words,), where the second party lives; elsewhere None
    more : uint64 array of shape (p, extra)
        See :func:`mpc.two_party.lookup.look_up`.
    numbers : int
        K.

    Returns
    -------
    bits : uint64 array of shape (p, K, words)
        XOR shares.
    got : uint64 array of shape (p, extra)
    """
    g, e, got = _leaves(pair, Lookups(words, bits, True, numbers), first, second, more)
    # Nodes from the lowest digits up; the first one needs no e.
    while g.shape[1] > 1:
        pairs = g.shape[1] // 2
        low, high = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        ends = and_planes(pair, e[:, high], g[:, low], e[:, low][:, 1:])
        up_g = g[:, high] ^ ends[0]
        up_e = np.concatenate([e[:, :1], ends[1]], axis=1)
        if g.shape[1] % 2:
            up_g = np.concatenate([up_g, g[:, -1:]], axis=1)
            up_e = np.concatenate([up_e, e[:, -1:]], axis=1)
        g, e = up_g, up_e
    return g.reshape(len(g), numbers, words), got


def equal(pair: Pair, first: Words | None, second: Words | None, words: int, bits: int) -> Words:
    """Share a = b, as (p, words): parameters as for :func:`greater`, with one number each."""
    more = np.empty((len(pair.parties), 0), np.uint64)
    form = Lookups(words, bits, False)
    _, e, _ = _leaves(pair, form, None if first is None else first[None], second, more)
    while e.shape[1] > 1:
        pairs = e.shape[1] // 2
        (both,) = and_planes(pair, e[:, : 2 * pairs : 2], e[:, 1 : 2 * pairs : 2])
        e = np.concatenate([both, e[:, 2 * pairs :]], axis=1)
    return e[:, 0]
