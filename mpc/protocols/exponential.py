"""exp(d) for d <= 0, from one opening; 0 below -11.13.

A power of a difference u - v is a product of powers: one of the public u, one of the dealt v. In units of
16/23, y = floor(d 23/16) with 20 fractional bits, w = y + 2^24 - 1, and b = e^(16/23):
exp(d) = b^(w + 1 - 2^24), with exponents in units of 2^-20. Where d > -11.13, w is in [0, 2^24). With
u public and v known to the provider (as in :mod:`mpc.protocols.sign`), both modulo 2^24,
   w = u - v or, if u < v, u - v + 2^24:   exp(d) = M_0 E or M_1 E,
   E = b^-v, M_0 = b^(u + 1 - 2^24), M_1 = b^(u + 1).
1. c = open(z + 2^62 + r), with z = 23 d and w = u - v from its bits above s.
2. <borrow> = <u < v> from the lower six nibbles, <msb> of w from all of them:
   a_1 = borrow (1 ^ msb), a_0 = 1 ^ msb ^ a_1. Two rounds, as for a sign.
3. Provider: beta_0, beta_1 and [E], [beta_0 E], [beta_1 E], E with 38 fractional bits.
   Open a_k ^ beta_k: two bits. [a_k E] follows by bit injection, as in :mod:`mpc.protocols.select`.
4. M_0 [a_0 E] + M_1 [a_1 E], with M to 22 fractional bits: 60 fractional bits. Then truncate.
Right for any d <= 0. Where |z| could reach 2^62, the fewest low bits of d are truncated first that avoid
it, if 16 fractional bits remain: 1 round. Otherwise d is replaced by max(d, -12), which has the same
result: a ReLU of d + 12 (:mod:`mpc.protocols.relu`), 4 rounds, exact also where d is a signed word beyond
-2^62.
Cost, L bits of w: 4 rounds, 8 (n - 1) bytes and about 16 bits an element; correction 48 bytes and
some bits; and a truncation.
Error: at most 2^-16, from the cut to 0 below -11.13. Above that 4e-7, from the bits of M and the
truncation, and 7e-7 times the result from rounding y; where d is truncated to 16 fractional bits 1.6e-5
times the result. Measured over the whole range by the tests.

For any x, with an error relative to the result: :mod:`mpc.protocols.normalised`.

Source: ours; multiplicative shares of a power from additive ones as in SecureML's and SiRnn's
exponentials (Rathee et al. 2021, section 5), with both wraps dealt by the provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.secret_value import Secret
from mpc.protocols import bits, linear, relu, truncation
from mpc.protocols.sign import count_nibbles, flat, window_bits
from mpc.protocols.truncation import OFFSET_BITS, open_masked
from mpc.two_party import exponential as own_shares
from mpc.two_party.exponential import E_BITS, M_BITS
from mpc.two_party.joint import fresh_shares
from ring.bits import count_words
from ring.compile import kernel
from ring.nibbles import NIBBLE_BITS, add_tables, count_table_words, read_tables
from ring.powers import LOW_BITS, UNIT_BITS, UNITS, Y_BITS, power, power_tables
from ring.threads import run

__all__ = ["FRAC_BITS", "LEAST_BITS", "SATURATED", "cost", "exp", "saturated", "scaled", "surplus"]

Words = NDArray[np.uint64]

# Fractional bits of the result.
FRAC_BITS = 24

# The fewest fractional bits of d in step 1; multiplying by 23/16 gives y four more.
LEAST_BITS = Y_BITS - UNIT_BITS
# The result is zero for d below -SATURATED.
SATURATED = 12
_LOW = np.uint64((1 << LOW_BITS) - 1)
_LOW_NIBBLES = LOW_BITS // 4


@dataclass(frozen=True)
class PowerWindow(Correlation):
    """r, tables of its nibbles, planes of random bits beta_0 and beta_1, [E], [beta_0 E], [beta_1 E]."""

    size: int
    shift: int
    nibbles: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)), Part((2, count_words(self.size)), "xor"))

    def corrected(self) -> tuple[Part, ...]:
        return (Part((count_table_words(self.nibbles), self.size), "xor"), Part((3, self.size)))

    def check(self, limit: int) -> None:
        super().check(limit)
        last = self.shift + NIBBLE_BITS * (self.nibbles - 1)
        if not 0 <= self.shift < OFFSET_BITS or self.nibbles < 1 or last >= 64:
            raise ShapeError(
                f"a word has no window of {self.nibbles} nibbles from bit {self.shift} on"
            )

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        add_tables(masks[0], self.shift, self.nibbles, True, out[0])
        run(_deal, self.size, 20, masks[0], masks[1], self.shift, power_tables(), out[1])


@kernel
def _deal(
    start: int, stop: int, r: Words, beta: Words, shift: int, table: Words, out: Words
) -> None:
    one = np.uint64(1)
    for e in range(start, stop):
        i = np.uint64(e)
        v = r[i] >> np.uint64(shift) & _LOW
        # b^-v, as b^(w + 1) / b^16 for w + 1 = 2^24 - v.
        factor = power(_LOW - v, E_BITS, 3, table)
        word, place = i >> np.uint64(6), i & np.uint64(63)
        out[0, i] = factor - out[0, i]
        out[1, i] = (beta[0, word] >> place & one) * factor - out[1, i]
        out[2, i] = (beta[1, word] >> place & one) * factor - out[2, i]


@kernel
def _finish(
    start: int, stop: int,
    c: Words, delta: Words, rings: Words, shift: int, table: Words, out: Words,
) -> None:  # fmt: skip
    one = np.uint64(1)
    offset = one << np.uint64(62 - shift)
    for e in range(start, stop):
        i = np.uint64(e)
        u = (c[i] >> np.uint64(shift)) - offset & _LOW
        word, place = i >> np.uint64(6), i & np.uint64(63)
        e_0, e_1 = rings[1, i], rings[2, i]
        if delta[0, word] >> place & one:
            e_0 = rings[0, i] - e_0
        if delta[1, word] >> place & one:
            e_1 = rings[0, i] - e_1
        out[i] = power(u, M_BITS, 3, table) * e_0 + power(u, M_BITS, 1, table) * e_1


def _times(x: bits.Polynomial, y: bits.Polynomial) -> bits.Polynomial:
    return tuple(tuple(sorted(set(a + b))) for a in x for b in y)


@lru_cache(maxsize=16)
def _rounds(nibbles: int) -> tuple[bits.Structure, bits.Structure]:
    """Return the rounds of step 2. Plane j is [v_j > u_j], plane nibbles + j is [v_j = u_j]."""
    lower = [range(_LOW_NIBBLES - 1, 2, -1), range(2, -1, -1)]
    upper = [
        range(top, max(top - bits.FAN_IN, _LOW_NIBBLES - 1), -1)
        for top in range(nibbles - 1, _LOW_NIBBLES - 1, -bits.FAN_IN)
    ]
    groups: list[bits.Polynomial] = []
    for some in (*upper, *lower):
        equal = [nibbles + j for j in some]
        groups += [tuple((*equal[:k], g) for k, g in enumerate(some)), (tuple(equal),)]
    # In the second round, plane 2 k is group k's [v > u], plane 2 k + 1 its [v = u].
    count = len(upper)
    borrow: bits.Polynomial = ((2 * count,), (2 * count + 1, 2 * count + 2))
    msb: bits.Polynomial = tuple(
        (*(2 * j + 1 for j in range(k)), 2 * k) for k in range(count)
    ) + _times((tuple(2 * j + 1 for j in range(count)),), borrow)
    a_1 = borrow + _times(msb, borrow)
    # Equal products cancel out.
    a_1 = tuple(m for m in dict.fromkeys(a_1) if a_1.count(m) % 2)
    return bits.structure_of(tuple(groups[:-1])), bits.structure_of((msb, a_1))


def cost(parties: int, size: int, shift: int, nibbles: int) -> Spent:
    """Declare the cost for `size` elements, the final truncation included."""
    words = count_words(size)
    total = Spent(
        2, 8 * (parties - 1) * (size + 2 * words),
        8 * PowerWindow(size, shift, nibbles).corrected_words,
    )  # fmt: skip
    for structure in _rounds(nibbles):
        total = total + bits.cost(parties, structure, words)
    return total + truncation.cost(parties, size, E_BITS + M_BITS - FRAC_BITS)


def _steps(frac_bits: int) -> tuple[int, int]:
    """Return by how many bits d is shifted left before step 1, and s."""
    up = max(0, LEAST_BITS - frac_bits)
    return up, frac_bits + up - LEAST_BITS


def _fits(bound: int, frac_bits: int) -> bool:
    up, shift = _steps(frac_bits)
    return UNITS * (bound << up) + (((1 << LOW_BITS) - 1) << shift) < 1 << OFFSET_BITS


def surplus(bound: int, frac_bits: int) -> int | None:
    """Return how many low bits of d, |d| <= bound, to truncate before step 1; None if it takes a ReLU."""
    for drop in range(max(0, frac_bits - LEAST_BITS) + 1):
        if _fits(-(-bound >> drop), frac_bits - drop):
            return drop
    return None


def saturated(d: Secret) -> Secret:
    """Return max(d, -12) for d <= 0; d may be any signed word of 64 bits."""
    limit = SATURATED << d.frac_bits
    # d + limit gets a bound of 2^62 - 1, for which the comparison takes all 64 bits.
    d = d.with_integer_bound((1 << OFFSET_BITS) - limit)
    above = relu.relu_with_derivative(linear.add_integer(d, limit), truncate=False)[0]
    return linear.add_integer(above.with_integer_bound(limit), -limit).with_integer_bound(limit)


def scaled(d: Secret) -> tuple[Secret, int, int]:
    """Return z as in step 1, s and the number of nibbles of w."""
    up, shift = _steps(d.frac_bits)
    d = linear.at_bits(d, d.frac_bits + up)
    z = linear.rescale(d, UNITS, d.frac_bits, d.bound * UNITS)
    z = linear.add_integer(z, ((1 << LOW_BITS) - 1) << shift)
    return z, shift, max(_LOW_NIBBLES + 1, count_nibbles(-(-z.bound >> shift)))


def exp(d: Secret) -> Secret:
    """Return exp(d) for d <= 0, with FRAC_BITS bits behind the point."""
    session = d.session
    with session.protocol("exp"):
        drop = surplus(d.bound, d.frac_bits)
        if drop:
            d = truncation.truncate(d, drop)
        elif drop is None:
            d = saturated(d)
        z, shift, nibbles = scaled(d)
        size, words = z.size, count_words(z.size)
        pair = session.pair
        if pair is not None:
            held = fresh_shares(session, z.shares) if shift else flat(z)
            return _truncated(d, own_shares.exp(pair, held, window_bits(nibbles, shift), shift))
        correlation = PowerWindow(size, shift, nibbles)
        shares = session.correlated(correlation)
        r, beta = shares.masks
        c = open_masked(session, z, r)
        tables, rings = shares.corrected
        planes = np.empty((len(r), 2 * nibbles, words), np.uint64)
        for i in range(len(planes)):
            read_tables(
                c[0], shift, nibbles, True, tables[i], i == session.first_row,
                planes[i, :nibbles], planes[i, nibbles:],
            )  # fmt: skip
        for structure in _rounds(nibbles):
            planes = bits.evaluate(session, planes, structure)
        # From msb and a_1 to a_0 and a_1.
        planes[:, 0] ^= planes[:, 1]
        if session.first_row is not None:
            planes[session.first_row, 0] ^= ~np.uint64(0)
        delta = session.open((planes ^ beta, "xor"))[0]
        out = np.empty((len(r), size), np.uint64)
        for i in range(len(out)):
            run(_finish, size, 30, c[0], delta[0], rings[i], shift, power_tables(), out[i])
        return _truncated(d, out)


def _truncated(d: Secret, words: Words) -> Secret:
    power = d.derive(
        words.reshape(len(words), *d.shape),
        frac_bits=E_BITS + M_BITS,
        bound=(1 << (E_BITS + M_BITS)) + (1 << 42),
    )
    return truncation.truncate(power, E_BITS + M_BITS - FRAC_BITS)
