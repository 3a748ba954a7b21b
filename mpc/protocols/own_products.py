"""Products of two secrets in a session without a provider: elementwise and matrix.

x w = x_0 w_0 + x_1 w_1 + x_0 w_1 + x_1 w_0. The first two terms are local, each of the others is a product
of what one party knows with what the other knows.
If x is an input of party j, it is j's alone: x w = x w_j + x w_i, one local term and one of the others;
likewise for w. A product of two inputs of one party is local; it is shared afresh, since shares of it
may be opened beside others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
from mpc.two_party.joint import fresh_shares
from mpc.two_party.pair import Pair, padded
from mpc.two_party.product import cross_products
from ring.bits import WORD_BITS

__all__ = ["matmul", "multiply"]

Words = NDArray[np.uint64]


def _known(x: SecretValue) -> tuple[list[Words], list[bool]]:
    """Return what each party that lives here knows of x, and which parties know something of it.

    An input is its owner's whole; otherwise each party has its share.
    """
    here, plaintext = x.session.here, x.plaintext
    if plaintext is None:
        return list(x.shares), [True, True]
    nothing = np.zeros(x.shape, np.uint64)
    held = [plaintext.encoded[0] if party == plaintext.owner else nothing for party in here]
    return held, [party == plaintext.owner for party in (0, 1)]


def multiply(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    """Return shares of the elementwise product, of shape (p, *shape)."""
    (left, knows_x), (right, knows_w) = _known(x), _known(w)
    z = np.empty((len(session.here), *shape), np.uint64)
    numbers, factors = np.empty_like(z), np.empty_like(z)
    for row in range(len(z)):
        np.multiply(left[row], right[row], out=z[row, ...])
        numbers[row], factors[row] = left[row], right[row]
    # x_0 w_1 and x_1 w_0, as far as neither is known to be zero.
    bits = [WORD_BITS if knows_w[party] and knows_x[1 - party] else 0 for party in (0, 1)]
    size = int(np.prod(shape))
    if not size:
        return z
    if not any(bits):
        return fresh_shares(session, z).reshape(z.shape)
    left_words, right_words = (padded(v.reshape(len(v), size), size) for v in (numbers, factors))
    cross = cross_products(pair, left_words, right_words, (bits[0], bits[1]))
    z += cross[:, :size].reshape(z.shape)
    return z


def matmul(
    session: Runtime, pair: Pair, x: SecretValue, w: SecretValue, shape: tuple[int, ...]
) -> Words:
    raise NotImplementedError
