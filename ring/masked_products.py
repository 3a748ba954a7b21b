"""A secret bit times secret numbers, where the bit is a sum of products of bits that are known masked.

The bit is t = g_(D - 1) + p_(D - 1) (g_(D - 2) + ... p_1 g_0), of which at most one product is 1:
whether v > u, given g_j = [v_j > u_j] and p_j = [v_j = u_j] for the digits of v and u (ring.digits). Of
each x of these 2 D - 1 bits m = x ^ lambda is known; x = m + (1 - 2 m) lambda. A dealer, who knows a
number F and every lambda, shares F times the product of the lambdas of S, for each set S of bits within
one of the products above. Then [t F] is a linear function of these shares and of [F]:

    W[S] = sel(m_(g_0); V[S], V[S, g_0])
    W[S] <- sel(m_(g_j); V[S], V[S, g_j]) + sel(m_(p_j); W[S], W[S, p_j])     for j = 1, ..., D - 1

for the sets S of p_(D - 1), ..., p_(j + 1), with j = 0 in the first line. V[S] is what is dealt,
V[] = F, and sel(m; a, b) = m ? a - b : b. W[] is t F.

The planes are p_1, ..., p_(D - 1), g_0, ..., g_(D - 1). A set of p's is a number whose bit k stands for
p_(D - 1 - k). In this order are dealt: the sets of p's but the empty one; these with g_0, the empty one
first; for j = 1, ..., D - 1 the sets of p_(D - 1), ..., p_(j + 1) with g_j. Numbers of which fewer bits
count are in lanes of a word (ring.bits).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.threads import run

__all__ = ["add_masked_products", "count_sets", "deal_sets"]

Words = NDArray[np.uint64]

_ONE = np.uint64(1)
_ZERO = np.uint64(0)


def count_sets(digits: int) -> int:
    """Return how many sets of bits there are.

    Examples
    --------
    >>> from ring.masked_products import count_sets
    >>> [count_sets(digits) for digits in (1, 2, 3, 4)]
    [1, 4, 10, 22]
    """
    return 3 * 2 ** (digits - 1) - 2


@kernel
def _spread(plane: np.uint64, fold: int, out: Words) -> None:
    """Write words whose lanes are all ones where a bit of the plane's word is set, else zero."""
    if fold == 0:
        for e in range(WORD_BITS):
            out[e] = _ZERO - (plane >> np.uint64(e) & _ONE)
        return
    lanes, bits = np.uint64(1 << fold), np.uint64(WORD_BITS >> fold)
    factor, lowest = _ZERO, _ZERO
    for k in range(1 << fold):
        # Bit k of the lanes' bits goes to the lowest bit of lane k.
        factor |= _ONE << np.uint64(k) * (bits - _ONE)
        lowest |= _ONE << np.uint64(k) * bits
    some, whole = (_ONE << lanes) - _ONE, (_ONE << bits) - _ONE
    for w in range(WORD_BITS >> fold):
        out[w] = ((plane >> np.uint64(w) * lanes & some) * factor & lowest) * whole


@kernel
def _tops(fold: int) -> np.uint64:
    """Return the top bits of a word's lanes; zero if the word is one lane, which needs no care."""
    tops = _ZERO
    if fold:
        for k in range(1, (1 << fold) + 1):
            tops |= _ONE << np.uint64(k * (WORD_BITS >> fold) - 1)
    return tops


@kernel
def _plus(x: np.uint64, y: np.uint64, tops: np.uint64) -> np.uint64:
    """Add the lanes of two words."""
    return (x & ~tops) + (y & ~tops) ^ (x ^ y) & tops


@kernel
def _minus(x: np.uint64, y: np.uint64, tops: np.uint64) -> np.uint64:
    """Subtract the lanes of two words."""
    return (x | tops) - (y & ~tops) ^ (x ^ ~y) & tops


@kernel
def _deal(
    start: int, stop: int, masks: Words, factor: Words, digits: int, fold: int, out: Words
) -> None:
    half, tops, count = 1 << digits - 1, _tops(fold), WORD_BITS >> fold
    # All ones in the lanes where the product of the masks of a set of p's is 1, and where that of g_j is.
    of_sets, of_bit = np.empty((half, WORD_BITS), np.uint64), np.empty(WORD_BITS, np.uint64)
    for block in range(start, stop):
        some = factor[block * count : block * count + count]
        for w in range(count):
            of_sets[0, w] = ~_ZERO
        for k in range(digits - 1):
            _spread(masks[digits - 2 - k, block], fold, of_bit)
            for inside in range(1 << k, 2 << k):
                for w in range(count):
                    of_sets[inside, w] = of_sets[inside - (1 << k), w] & of_bit[w]
        row = 0
        for j in range(-1, digits):
            sets = half if j < 1 else 1 << digits - 1 - j
            _spread(~_ZERO if j < 0 else masks[digits - 1 + j, block], fold, of_bit)
            for inside in range(1 if j < 0 else 0, sets):
                others, of_set = out[row, block * count : block * count + count], of_sets[inside]
                for w in range(some.size):
                    others[w] = _minus(of_set[w] & of_bit[w] & some[w], others[w], tops)
                row += 1


def deal_sets(masks: Words, factor: Words, fold: int, out: Words) -> None:
    """Compute the last party's shares of F times the products of masks, in `out`, from the others' sum.

    Parameters
    ----------
    masks : uint64 array of shape (2 D - 1, ceil(n / 64))
        The lambdas, in the order of the planes.
    factor : uint64 array of shape (lane words,)
        F, for n elements.
    fold : int
        log2 of the lanes of a word.
    out : uint64 array of shape (count_sets(D), lane words)
    """
    digits = len(masks) + 1 >> 1
    run(
        _deal, masks.shape[1], (WORD_BITS >> fold) * 2 * (len(out) + digits),
        masks, factor, digits, fold, out,
    )  # fmt: skip


@kernel
def _select(
    mask: Words, ones: np.uint64, one: Words, other: Words, tops: np.uint64, add: bool, out: Words
) -> None:
    """Write, or add to `out`, sel(m; one, other), with all ones in the lanes where m is 1."""
    if not tops and add:
        for w in range(other.size):
            out[w] += (one[w] & mask[w]) + ((other[w] ^ mask[w]) - mask[w])
        return
    if not tops:
        for w in range(other.size):
            out[w] = (one[w] & mask[w]) + ((other[w] ^ mask[w]) - mask[w])
        return
    for w in range(other.size):
        # With all ones, ~x + 1 = -x.
        chosen = _plus(one[w] & mask[w], other[w] ^ mask[w], tops)
        chosen = _plus(chosen, mask[w] & ones, tops)
        out[w] = _plus(out[w], chosen, tops) if add else chosen


@kernel
def _add(
    start: int, stop: int,
    m: Words, dealt: Words, factor: Words, digits: int, fold: int, out: Words,
) -> None:  # fmt: skip
    half, tops, count = 1 << digits - 1, _tops(fold), WORD_BITS >> fold
    # The lowest bits of the lanes: a top bit is the one below the next lane's.
    ones = tops << _ONE | _ONE
    masks = np.empty((2 * digits - 1, WORD_BITS), np.uint64)
    found = np.empty((half, WORD_BITS), np.uint64)
    for block in range(start, stop):
        first, last = block * count, block * count + count
        empty = factor[first:last]
        width = empty.size
        for k in range(masks.shape[0]):
            _spread(m[k, block], fold, masks[k])
        row = half - 1
        for j in range(digits):
            # In place: a set's result needs those of larger sets alone.
            for inside in range(1 << digits - 1 - j):
                result, without = found[inside, :width], empty
                if inside:
                    without = dealt[inside - 1, first:last]
                if j:
                    larger = found[inside + (1 << digits - 1 - j), :width]
                    _select(masks[j - 1], ones, result, larger, tops, False, result)
                within = dealt[row, first:last]
                _select(masks[digits - 1 + j], ones, without, within, tops, j > 0, result)
                row += 1
        total = out[first:last]
        for w in range(width):
            total[w] = _plus(total[w], found[0, w], tops)


def add_masked_products(m: Words, dealt: Words, factor: Words, fold: int, out: Words) -> None:
    """Add shares of t F to `out`.

    Parameters
    ----------
    m : uint64 array of shape (2 D - 1, ceil(n / 64))
        The opened planes.
    dealt : uint64 array of shape (count_sets(D), lane words)
        One party's shares of what :func:`deal_sets` deals.
    factor, out : uint64 array of shape (lane words,)
        Its shares of F, and of what t F is added to.
    fold : int
        log2 of the lanes of a word.
    """
    digits = len(m) + 1 >> 1
    run(
        _add, m.shape[1], (WORD_BITS >> fold) * 4 * (len(dealt) + digits),
        m, dealt, factor, digits, fold, out,
    )  # fmt: skip
