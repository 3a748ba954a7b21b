"""Sorting few secrets by their ranks: nothing is opened.

For each row of k values:
1. Compare all k (k - 1) / 2 pairs at once, a < b in place: [s_b < s_a], by :mod:`mpc.protocols.sign` and
   B2A (:mod:`mpc.protocols.b2a`): 4 rounds. Of equal values the earlier comes first.
2. The rank of a is the sum of [s_b < s_a] over b > a and of 1 - [s_a < s_b] over b < a: local.
3. The bits <rank < t> for t = 1 ... k - 1 from one opening, and from them the one-hot vectors of the ranks
   (:mod:`mpc.protocols.thresholds`): 3 or 4 rounds.
4. The matrix of these vectors times the values, and times what goes with them: 1 round.
Exact for every value below 2^62: differences are compared on up to 64 bits.
Cost for k values of 32 bits: 8 or 9 rounds; a value takes about 5 k (n - 1) bytes of comparisons and
10 k of vectors, and 30 k bytes of correction.

Source: all pairs at once as in :mod:`mpc.protocols.argmax`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, linear, product, sign, thresholds

__all__ = ["cost", "one_hot", "ordered", "ranks", "sorting_matrix"]

Words = NDArray[np.uint64]


def cost(parties: int, rows: int, k: int, window: int) -> Spent:
    """Declare the cost of all steps for `rows` rows of k values whose differences take `window` bits."""
    pairs, each = rows * k * (k - 1) // 2, rows * k
    total = sign.cost(parties, pairs, 0, window, True, "none") + b2a.cost(parties, 1, pairs)
    total += thresholds.cost(parties, each, sign.count_bits(2 * (k - 1)), k - 1)
    return total + product.cost(parties, each * k + each, each)


def ranks(x: Secret) -> Secret:
    """Return the place of each value in its row in ascending order, for an array (rows, k)."""
    session, (rows, k) = x.session, x.shape
    if k == 1:
        return linear.zeros_like(x)
    first, second = (np.array(ends) for ends in zip(*combinations(range(k), 2), strict=True))
    words = x.shares
    d = x.derive(
        words[:, :, second] - words[:, :, first],
        frac_bits=x.frac_bits,
        bound=min(2 * x.bound, LARGEST),
    )
    bits = sign.negative_bits(d)
    later = b2a.convert(session, bits[:, None], d.size)[:, 0].reshape(len(words), rows, len(first))
    found = np.zeros((len(words), rows, k), np.uint64)
    for a in range(k):
        found[:, :, a] += later[:, :, first == a].sum(axis=2, dtype=np.uint64)
        found[:, :, a] -= later[:, :, second == a].sum(axis=2, dtype=np.uint64)
    if session.first_row is not None:
        found[session.first_row] += np.arange(k, dtype=np.uint64)
    return x.derive(found, frac_bits=0, bound=k - 1)


def one_hot(index: Secret, k: int) -> Secret:
    """Return zeros and a one at the place that each whole number from 0 to k - 1 says, (..., k)."""
    session = index.session
    if k == 1:
        ones = np.zeros((len(session.here), *index.shape, 1), np.uint64)
        if session.first_row is not None:
            ones[session.first_row] = 1
        return index.derive(ones, frac_bits=0, bound=1, binary=True)
    numbers = thresholds.below(index, range(1, k))
    found = np.empty((len(numbers), k, index.size), np.uint64)
    found[:, 0], found[:, 1:] = numbers[:, 0], 0
    found[:, 1:-1] += numbers[:, 1:] - numbers[:, :-1]
    found[:, -1] -= numbers[:, -1]
    if session.first_row is not None:
        found[session.first_row, -1] += np.uint64(1)
    found = found.transpose(0, 2, 1).reshape(len(found), *index.shape, k)
    return index.derive(found, frac_bits=0, bound=1, binary=True)


def sorting_matrix(x: Secret) -> Secret:
    """Return the matrices of zeros and ones, (rows, k, k), that put the rows of x in order."""
    return one_hot(ranks(x), x.shape[1]).view(("transpose", (0, 2, 1)))


def ordered(matrix: Secret, x: Secret) -> Secret:
    """Step 4: put the rows of x in order."""
    with x.session.range_policy.vouched():
        found = product.matmul(matrix, x.view(("reshape", (*x.shape, 1))))
    return linear.placed(found, found.frac_bits, x.bound).view(("reshape", x.shape))
