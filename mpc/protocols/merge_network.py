"""Sorting secrets by a network: nothing is opened, with a provider or without.

Batcher's odd-even merge sort. In a stage values are compared in pairs of places (i, j), i < j, that do not
overlap, all at once:
1. m = relu(x_i - x_j), by :mod:`mpc.protocols.relu` with s = 0.
2. x_i becomes x_i - m, the smaller, and x_j becomes x_j + m: local.
Exact for every value below 2^62: differences are taken as signed words, as in :mod:`mpc.protocols.maximum`.
Cost for k values: h (h + 1) / 2 stages, h = ceil(log2 k), of 4 rounds each; about k h^2 / 4 comparisons.

Source: Batcher 1968, as in Knuth, volume 3, section 5.3.4.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.protocols import relu

__all__ = ["cost", "sort", "stages_of"]

Indices = NDArray[np.int64]


@lru_cache(maxsize=8)
def stages_of(k: int) -> tuple[tuple[Indices, Indices], ...]:
    """Return the places that each stage compares, the smaller value to go to the first."""
    stages = []
    whole = 1 << max(0, k - 1).bit_length()
    run = 1
    while run < whole:
        step = run
        while step:
            first = np.arange(step % run, whole - step)
            first = first[(first - step % run) % (2 * step) < step]
            # Places in different pairs of runs are not compared.
            first = first[first // (2 * run) == (first + step) // (2 * run)]
            first = first[first + step < k]
            if len(first):
                stages.append((first, first + step))
            step //= 2
        run *= 2
    return tuple(stages)


def cost(parties: int, rows: int, k: int, window: int) -> Spent:
    """Declare the cost for `rows` rows of k values whose differences take `window` bits."""
    total = Spent()
    for first, _ in stages_of(k):
        total = total + relu.cost(parties, rows * len(first), 0, window)
    return total


def sort(x: Secret) -> Secret:
    """Return the values of each row of an array (rows, k) in ascending order."""
    words = x.shares.copy()
    bound = min(2 * x.bound, LARGEST)
    with x.session.protocol("sort"):
        for first, second in stages_of(x.shape[1]):
            d = x.derive(
                words[:, :, first] - words[:, :, second], frac_bits=x.frac_bits, bound=bound
            )
            above = relu.relu(d, truncate=False).shares
            words[:, :, first] -= above
            words[:, :, second] += above
    return x.derive(words, frac_bits=x.frac_bits, bound=x.bound)
