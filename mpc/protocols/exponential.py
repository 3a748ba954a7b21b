"""exp(d) for d <= 0, from one opening; 0 below -11.63.

A power of a difference u - v is a product of powers: one of the public u, one of the dealt v. In units of
16/22, y = floor(d 22/16) with 20 fractional bits, w = y + 2^24 - 1, and b = e^(16/22):
exp(d) = b^(w + 1 - 2^24), with exponents in units of 2^-20. Where d > -11.63, w is in [0, 2^24). With
u public and v known to the provider (as in :mod:`mpc.protocols.sign`), both modulo 2^24,
   w = u - v or, if u < v, u - v + 2^24:   exp(d) = M_0 E or M_1 E,
   E = b^-v, M_0 = b^(u + 1 - 2^24), M_1 = b^(u + 1).
1. c = open(z + 2^62 + r), with z = 22 d and w = u - v from its bits above s.
2. <borrow> = <u < v> from the digits of the lower 24 bits, <msb> of w from all digits:
   a_1 = borrow (1 ^ msb), a_0 = 1 ^ msb ^ a_1. One round, as for a sign.
3. Provider: beta_0, beta_1 and [E], [beta_0 E], [beta_1 E], E with 38 fractional bits.
   Open a_k ^ beta_k: two bits. [a_k E] follows by bit injection, as in :mod:`mpc.protocols.select`.
4. M_0 [a_0 E] + M_1 [a_1 E], with M to 22 fractional bits: 60 fractional bits. Then truncate; or go on
   with these (:mod:`mpc.protocols.softmax`).
Right for any d <= 0. Where |z| could reach 2^62, the fewest low bits of d are truncated first that avoid
it, if 16 fractional bits remain: 1 round. Otherwise d is replaced by max(d, -12), which has the same
result: a ReLU of d + 12 (:mod:`mpc.protocols.relu`), 3 rounds, exact also where d is a signed word beyond
-2^62.
Cost, L bits of w: 3 rounds, 8 (n - 1) bytes and about 13 bits an element; correction about 90 bytes;
and a truncation.
Error: at most 9e-6, from the cut to 0 below -11.63. Above that 4e-7, from the bits of M and the
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
from mpc.protocols.sign import check_window, count_bits, flat
from mpc.protocols.truncation import OFFSET_BITS, open_masked
from mpc.two_party import exponential as own_shares
from mpc.two_party.exponential import E_BITS, M_BITS
from mpc.two_party.joint import fresh_shares
from ring.bits import count_words
from ring.compile import kernel
from ring.digits import WIDEST, Digits, add_tables, digits_of, read_tables, split_evenly
from ring.powers import LOW_BITS, UNIT_BITS, UNITS, Y_BITS, power, power_tables
from ring.threads import run

__all__ = [
    "FRAC_BITS", "LEAST_BITS", "SATURATED", "WHOLE_BITS", "cost", "exp", "powers", "saturated", "scaled",
    "surplus",
]  # fmt: skip

Words = NDArray[np.uint64]

# Fractional bits of the result.
FRAC_BITS = 24
# Before it is truncated.
WHOLE_BITS = E_BITS + M_BITS

# The fewest fractional bits of d in step 1; multiplying by 22/16 gives y four more.
LEAST_BITS = Y_BITS - UNIT_BITS
# The result is zero for d below -SATURATED.
SATURATED = 12
_LOW = np.uint64((1 << LOW_BITS) - 1)
# Digits of these bits: few, since the products of masks are those of lower and of upper digits.
_LOW_DIGITS = 4
_MOST_UPPER = 4
_LEAST_WINDOW = LOW_BITS + 2


@dataclass(frozen=True)
class PowerWindow(Correlation):
    """r, tables of its digits, planes of random bits beta_0 and beta_1, [E], [beta_0 E], [beta_1 E]."""

    size: int
    shift: int
    window: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)), Part((2, count_words(self.size)), "xor"))

    @property
    def digits(self) -> Digits:
        """The digits of step 2."""
        return _digits(self.window)

    def corrected(self) -> tuple[Part, ...]:
        tables = Part((self.digits.count_table_words(self.size),), "xor")
        return (tables, Part((3, self.size)))

    def check(self, limit: int) -> None:
        if self.window < _LEAST_WINDOW:
            raise ShapeError(f"window must be at least {_LEAST_WINDOW} bits, got {self.window}")
        check_window(self.window, self.shift)
        super().check(limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        add_tables(masks[0], self.shift, self.digits, out[0])
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
def _structure(count: int) -> bits.Structure:
    """Return step 2 for `count` digits. Plane j is [v_j > u_j], plane count + j is [v_j = u_j]."""
    greater, equal = range(count), range(count, 2 * count)
    borrow = bits.prefix(greater[:_LOW_DIGITS], equal[:_LOW_DIGITS])
    upper = bits.prefix(greater[_LOW_DIGITS:], equal[_LOW_DIGITS:])
    msb = upper + _times((tuple(equal[_LOW_DIGITS:]),), borrow)
    a_1 = borrow + _times(msb, borrow)
    # Equal products cancel out.
    a_1 = tuple(m for m in dict.fromkeys(a_1) if a_1.count(m) % 2)
    return bits.structure_of((msb, a_1))


@lru_cache(maxsize=64)
def _digits(window: int) -> Digits:
    """Return the digits of w: of its lower 24 bits, and of those above, as few bits in all as can be."""
    upper = window - 1 - LOW_BITS

    def count(digits: Digits) -> int:
        return digits.table_bits + len(_structure(len(digits.widths)).subsets)

    lower = split_evenly(LOW_BITS, _LOW_DIGITS)
    tried = range(-(-upper // WIDEST), min(upper, _MOST_UPPER) + 1)
    return min((digits_of(lower + split_evenly(upper, n), True) for n in tried), key=count)


def cost(parties: int, size: int, shift: int, window: int, *, whole: bool = False) -> Spent:
    """Declare the cost for `size` elements, the final truncation included unless `whole`."""
    words = count_words(size)
    total = Spent(
        2, 8 * (parties - 1) * (size + 2 * words),
        8 * PowerWindow(size, shift, window).corrected_words,
    )  # fmt: skip
    total = total + bits.cost(parties, _structure(len(_digits(window).widths)), words)
    return total if whole else total + truncation.cost(parties, size, WHOLE_BITS - FRAC_BITS)


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


def saturated(d: Secret, most: int = 0) -> Secret:
    """Return max(d, -12) for d <= most; d may be any signed word of 64 bits up to that."""
    limit = SATURATED << d.frac_bits
    # d + limit gets a bound of 2^62 - 1, for which the comparison takes all 64 bits.
    d = d.with_integer_bound((1 << OFFSET_BITS) - limit)
    above = relu.relu(linear.add_integer(d, limit), truncate=False)
    above = above.with_integer_bound(limit + most)
    return linear.add_integer(above, -limit).with_integer_bound(limit)


def scaled(d: Secret) -> tuple[Secret, int, int]:
    """Return z as in step 1, s and the bits L of w."""
    up, shift = _steps(d.frac_bits)
    d = linear.at_bits(d, d.frac_bits + up)
    z = linear.rescale(d, UNITS, d.frac_bits, d.bound * UNITS)
    z = linear.add_integer(z, ((1 << LOW_BITS) - 1) << shift)
    return z, shift, max(_LEAST_WINDOW, count_bits(-(-z.bound >> shift)))


def exp(d: Secret) -> Secret:
    """Return exp(d) for d <= 0, with FRAC_BITS bits behind the point."""
    with d.session.protocol("exp"):
        return truncation.truncate(powers(d), WHOLE_BITS - FRAC_BITS)


def powers(d: Secret) -> Secret:
    """Return exp(d) for d <= 0, with WHOLE_BITS bits behind the point: no truncation."""
    session = d.session
    with session.protocol("exp"):
        drop = surplus(d.bound, d.frac_bits)
        if drop:
            d = truncation.truncate(d, drop)
        elif drop is None:
            d = saturated(d)
        z, shift, window = scaled(d)
        size, words = z.size, count_words(z.size)
        pair = session.pair
        if pair is not None:
            held = fresh_shares(session, z.shares) if shift else flat(z)
            return _whole(d, own_shares.exp(pair, held, window, shift))
        correlation = PowerWindow(size, shift, window)
        shares = session.correlated(correlation)
        r, beta = shares.masks
        c = open_masked(session, z, r)
        tables, rings = shares.corrected
        digits = correlation.digits
        count = len(digits.widths)
        planes = np.empty((len(r), 2 * count, words), np.uint64)
        for i in range(len(planes)):
            read_tables(
                c[0], shift, digits, tables[i], i == session.first_row,
                planes[i, :count], planes[i, count:],
            )  # fmt: skip
        planes = bits.evaluate(session, planes, _structure(count))
        # From msb and a_1 to a_0 and a_1.
        planes[:, 0] ^= planes[:, 1]
        if session.first_row is not None:
            planes[session.first_row, 0] ^= ~np.uint64(0)
        delta = session.open((planes ^ beta, "xor"))[0]
        out = np.empty((len(r), size), np.uint64)
        for i in range(len(out)):
            run(_finish, size, 30, c[0], delta[0], rings[i], shift, power_tables(), out[i])
        return _whole(d, out)


def _whole(d: Secret, words: Words) -> Secret:
    words = words.reshape(len(words), *d.shape)
    return d.derive(words, frac_bits=WHOLE_BITS, bound=(1 << WHOLE_BITS) + (1 << 42))
