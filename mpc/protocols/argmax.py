"""The one-hot vector of the largest value along an axis.

For k <= 16 values:
1. Compare all k (k - 1) / 2 pairs at once, a < b: <s_a < s_b>, the sign of s_a - s_b: 3 rounds. Of
   equal values the one with the lower index wins.
2. Value a wins if it beats every other: AND of k - 1 bits, in groups of four: 2 rounds for k > 5.
3. B2A: 1 round (:mod:`mpc.protocols.b2a`).
6 rounds for 10 classes. For more than 16 values, steps 1 to 3 find the largest of each group of at
most 16, then the largest of these; the result is the product of both one-hot vectors.
Up to 16 values are compared without truncation: scores from a matrix product, with twice the
fractional bits, need no extra round, and near ties are decided exactly. More than 16 values are
truncated to the format first.
Exact for every value below 2^62: differences are compared on up to 64 bits.

Source: ours; all pairs at once in place of a tournament. The AND of several bits: ABY2.0 (Patra,
Schneider, Suresh, Yalame 2021, section 3.1.4).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.known import SecretBit, SharedBit
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import b2a, bits, linear, sign
from mpc.protocols.product import multiply
from mpc.protocols.truncation import to_format
from mpc.two_party import maximum as own_shares
from ring.bits import WORD_BITS, count_words, pack_bits, unpack_bits

__all__ = ["LARGEST_GROUP", "argmax_one_hot", "cost", "sum_of_one", "winning_bits"]

Words = NDArray[np.uint64]

LARGEST_GROUP = 16


@lru_cache(maxsize=32)
def _winners(k: int) -> tuple[tuple[int, ...], ...]:
    """Return for each value the literals (numbers k of pairs, ~k if negated) whose AND is its bit."""
    wins: list[list[int]] = [[] for _ in range(k)]
    for number, (a, b) in enumerate(combinations(range(k), 2)):
        # The pair's bit says that a < b in value, so that b beats a.
        wins[a].append(~number)
        wins[b].append(number)
    return tuple(tuple(w) for w in wins)


def cost(parties: int, rows: int, k: int, nibbles: int) -> Spent:
    """Declare the cost for `rows` rows of k <= 16 values whose differences take `nibbles`."""
    if k == 1:
        return Spent()
    pairs = k * (k - 1) // 2
    total = sign.cost(parties, rows * pairs, 0, nibbles, True, "none")
    for structure in bits.tree(_winners(k)):
        total = total + bits.cost(parties, structure, count_words(rows))
    return total + b2a.cost(parties, 1, k * rows)


def _to_planes(words: Words, planes: int, size: int) -> Words:
    """Cut (p, words) with planes * size bits into bit planes, (p, planes, words of a plane)."""
    if size % WORD_BITS == 0:
        return words.reshape(len(words), planes, size // WORD_BITS)
    flat = unpack_bits(words, planes * size)
    return pack_bits(flat.reshape(len(words), planes, size))


def _from_planes(planes: Words, size: int) -> Words:
    """Undo :func:`_to_planes`: (p, planes, words) to (p, words)."""
    if size % WORD_BITS == 0:
        return planes.reshape(len(planes), planes.shape[1] * planes.shape[2])
    return pack_bits(unpack_bits(planes, size).reshape(len(planes), planes.shape[1] * size))


def winning_bits(x: SecretValue) -> SecretBit:
    """Return the one-hot vectors of an array (rows, k), 1 < k <= 16, as bits of shape (k, rows).

    Without a provider k may be larger.
    """
    session = x.session
    rows, k = x.shape
    columns = x.shares.transpose(0, 2, 1)
    # Differences are below 2^63, for which a bound of LARGEST makes the comparison take all 64 bits.
    bound = min(2 * x.bound, LARGEST)
    pair = session.pair
    if pair is not None:
        window = sign.window_bits(sign.count_nibbles(bound))
        planes = own_shares.argmax(pair, np.ascontiguousarray(columns), window)
        return SharedBit(_from_planes(planes, rows), k * rows, session.first_row)
    first, second = (list(ends) for ends in zip(*combinations(range(k), 2), strict=True))
    differences = columns[:, first] - columns[:, second]
    d = x.derive(differences, frac_bits=x.frac_bits, bound=bound)
    bit = sign.open_sign(d, 0, "none").bit
    winners = bits.all_of(session, _to_planes(bit, len(first), rows), _winners(k))
    return b2a.mask_bits(session, _from_planes(winners, rows), k * rows)


def _one_hot(x: Secret) -> Secret:
    """One-hot vectors of an array (rows, k), k <= 16."""
    rows, k = x.shape
    if k == 1:
        return linear.add_public(linear.zeros_like(x), 1).as_binary()
    shares = b2a.to_number(x.session, winning_bits(x))
    shares = shares.reshape(len(shares), k, rows).transpose(0, 2, 1)
    return x.derive(np.ascontiguousarray(shares), frac_bits=0, bound=1, binary=True)


def sum_of_one(x: Secret, axis: int) -> Secret:
    """Sum along an axis where all elements but one are zero, so that the bound stays (for protocols)."""
    total = x.shares.sum(axis=axis + 1, dtype=np.uint64)
    return x.derive(total, frac_bits=x.frac_bits, bound=x.bound)


def _any_one_hot(x: Secret) -> Secret:
    """One-hot vectors of an array (rows, k)."""
    rows, k = x.shape
    if k <= LARGEST_GROUP or x.session.pair is not None:
        return _one_hot(x)
    x = to_format(x)
    # Equal groups, the last filled up with copies of its first value: a copy ties with a lower
    # index and so never wins.
    count = -(-k // LARGEST_GROUP)
    width = -(-k // count)
    source = np.arange(count * width).reshape(count, width)
    source = (
        np.where(source < k, source, source[:, :1])
        if source[-1, 0] < k
        else np.minimum(source, k - 1)
    )
    filled = x.view(("index", (slice(None), source.reshape(-1))))
    groups = filled.view(("reshape", (rows * count, width)))
    inside = _one_hot(groups).view(("reshape", (rows, count, width)))
    values = filled.view(("reshape", (rows, count, width)))
    best = sum_of_one(multiply(inside, values), 2)
    outside = _any_one_hot(best).view(("reshape", (rows, count, 1)))
    both = multiply(inside, outside).view(("reshape", (rows, count * width)))
    return both.view(("index", (slice(None), slice(0, k)))).as_binary()


def argmax_one_hot(x: Secret, axis: int) -> Secret:
    """Return zeros, and a one for the first largest value along `axis`."""
    order = [a for a in range(x.ndim) if a != axis] + [axis]
    with x.session.protocol("argmax"):
        moved = x.view(("transpose", tuple(order)))
        rows = moved.view(("reshape", (x.size // max(1, x.shape[axis]), x.shape[axis])))
        found = _any_one_hot(rows).view(("reshape", moved.shape))
        return found.view(("transpose", tuple(int(a) for a in np.argsort(order))))
