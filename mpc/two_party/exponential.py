"""exp(d) for d <= 0, on the parties' own shares; 0 below -11.63.

As in :mod:`mpc.protocols.exponential`: z = 22 d + (2^24 - 1) 2^s, w = z / 2^s, b = e^(16/22), and
exp(d) = b^(w + 1 - 2^24) for 0 <= w < 2^24, with exponents in units of 2^-20.
1. Both parties cut s bits of their shares (:mod:`mpc.two_party.truncation`): w - 1 = alpha + beta, with
   alpha the first party's and beta the second's. u and v are their lower 24 bits.
2. XOR shares of the carry of u + v and of the sign of w - 1, from one comparison of twice as many numbers
   (:mod:`mpc.two_party.private_comparison`):
   a_0 = carry (1 ^ sign), a_1 = 1 ^ sign ^ a_0. One more round.
3. Each raises b to what it knows: the second party E = b^(v + 1 - 2^24), with 38 fractional bits, the
   first M_0 = b^(u + 1 - 2^24) and M_1 = b^(u + 1), with 22, in a time that tells nothing of v and u.
   [M_0 E] and [M_1 E] are products of one party's number with the other's of 39 bits:
   :mod:`mpc.two_party.product`, 2 rounds.
4. [a_0 M_0 E] + [a_1 M_1 E]: :mod:`mpc.two_party.pads`, 2 rounds.
w is rounded as truncation rounds; w = 0, the smallest power that is not 0, comes out as 0. Where a_k is 0,
the product may have wrapped around.

Source: multiplicative shares of a power from additive ones as in SecureML's and SiRnn's exponentials
(Rathee et al. 2021, section 5); else ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.two_party import private_comparison
from mpc.two_party.cost import Cost
from mpc.two_party.pads import and_cost, and_planes, times_bit, times_bit_cost
from mpc.two_party.pair import Pair, padded
from mpc.two_party.product import cost as product_cost
from mpc.two_party.product import cross_products
from mpc.two_party.truncation import OFFSET_BITS, shift_shares
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.powers import LOW_BITS, hidden_power
from ring.threads import run
from ring.transpose import planes_of_rows

__all__ = ["E_BITS", "M_BITS", "cost", "exp"]

Words = NDArray[np.uint64]

E_BITS = 38
M_BITS = 22
_LOW = np.uint64((1 << LOW_BITS) - 1)


def cost(size: int, bits: int) -> Cost:
    """Declare the cost for `size` elements, w in `bits` signed bits."""
    words = count_words(size)
    total = private_comparison.cost(2 * words, bits - 1) + and_cost(words)
    return total + product_cost(2 * words * WORD_BITS, (0, E_BITS + 1)) + times_bit_cost(2 * words)


@kernel
def _powers(start: int, stop: int, low: Words, first: bool, out: Words) -> None:
    """Step 3: M_0 and M_1 in the rows of `out`, or E in both."""
    for e in range(start, stop):
        if first:
            out[0, e] = hidden_power(low[e], M_BITS, True)
            out[1, e] = hidden_power(low[e], M_BITS, False)
        else:
            out[0, e] = out[1, e] = hidden_power(low[e], E_BITS, True)


def exp(pair: Pair, z: Words, bits: int, shift: int) -> Words:
    """Return shares of exp(d), (p, size), with 60 fractional bits, for shares of z, (p, size).

    Parameters
    ----------
    bits : int
        L > 24: w - 1 and w, rounded up too, are in [-2^(L - 1), 2^(L - 1)).
    shift : int
        s; above zero needs |z| < 2^62.
    """
    size = z.shape[1]
    words, z = count_words(size), padded(z, size)
    high, turn = z, -1
    if shift:
        high, _ = shift_shares(pair, z, shift)
        turn = -(1 << OFFSET_BITS - shift)
    whole = 2 * WORD_BITS * words
    numbers, factors = np.zeros((2, len(z), whole), np.uint64)
    tops = np.empty((len(z), words), np.uint64)
    first, second = None, None
    for i, party in enumerate(pair.parties):
        number = high[i] + np.uint64(turn % 2**64) if party == 0 else high[i]
        low = number & _LOW
        tops[i] = planes_of_rows(number >> np.uint64(bits - 1), 1)
        if party == 0:
            first = np.concatenate([number, low])[None]
        else:
            # Of the complement of v only 24 bits: what is above is equal at both, namely 0.
            second = np.concatenate([~number, ~number & _LOW])
        out = (numbers if party == 0 else factors)[i].reshape(2, whole // 2)
        run(_powers, whole // 2, 100, low, party == 0, out)
    nothing = np.empty((len(z), 0), np.uint64)
    found, _ = private_comparison.greater(pair, first, second, 2 * words, bits - 1, nothing)
    carries = found[:, 0].reshape(len(z), 2, words)
    right, carry = carries[:, 0] ^ tops, carries[:, 1]
    for i, party in enumerate(pair.parties):
        if party == 0:
            right[i] = ~right[i]
    (a_0,) = and_planes(pair, right, np.ascontiguousarray(carry))
    planes = np.concatenate([a_0, right ^ a_0], axis=1)
    products = cross_products(pair, numbers, factors, (0, E_BITS + 1))
    chosen = times_bit(pair, products, planes).reshape(len(z), 2, whole // 2)
    return (chosen[:, 0] + chosen[:, 1])[:, :size]
