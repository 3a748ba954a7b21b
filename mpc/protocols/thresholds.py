"""Step functions: public values chosen by where a secret number lies among public thresholds.

For thresholds t_1 < ... < t_K and values a_0 ... a_K, a_k is chosen where x is in [t_k, t_(k + 1)).
1. The bits <x < t_k> for all k, from one opening: :mod:`mpc.protocols.sign`, with s = 0. 2 rounds.
2. B2A of these bits to [b_k]: 1 round (:mod:`mpc.protocols.b2a`).
3. a_K + sum over k of (a_(k - 1) - a_k) [b_k]: local, for any number of rows of values a.
The bits are exact, for every x below 2^62 in magnitude.
With powers of two for both, [a x] is x normalised: :mod:`mpc.protocols.reciprocal`, `logarithm` and
`inverse_root` go on from there.

Source: the one opening for all thresholds follows from :mod:`mpc.protocols.sign`; normalisation by the
highest bit as in Catrina, Saxena 2010, section 3.4, and Aly, Smart 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.protocols import b2a, sign
from ring.matmul import matmul

__all__ = ["below", "choose", "cost"]

Words = NDArray[np.uint64]


def cost(parties: int, size: int, window: int, thresholds: int) -> Spent:
    """Declare the cost for `size` elements, whose distances to the thresholds take `window` bits."""
    opening = sign.cost(parties, size, 0, window, True, "truncation", thresholds)
    return opening + b2a.cost(parties, thresholds, size)


def below(x: SecretValue, thresholds: Sequence[int]) -> Words:
    """Steps 1 and 2: shares of the numbers [x < t], of shape (p, thresholds, size)."""
    bits, _ = sign.signs_and_value(x, 0, thresholds)
    return b2a.convert(x.session, bits, x.size)


def choose(session: Runtime, numbers: Words, values: NDArray[np.int64]) -> Words:
    """Step 3: shares of shape (p, rows, size), for values of shape (rows, K + 1)."""
    words = values.astype(np.int64).view(np.uint64)
    steps = np.ascontiguousarray(words[:, :-1] - words[:, 1:])
    chosen = np.empty((len(numbers), len(steps), numbers.shape[2]), np.uint64)
    for row, number in zip(chosen, numbers, strict=True):
        row[:] = matmul(steps, number)
    if session.first_row is not None:
        chosen[session.first_row] += words[:, -1:]
    return chosen
