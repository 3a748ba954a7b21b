"""1 / x, log x and exp x for x in a public range, from one opening.

1 / x and log x in [15/16, k], k <= 32, by polynomials that meet. x has 24 fractional bits, after s more
that are rounded away, up or down. Modulo 2^B it is cut into pieces of width W = 1/4, N = 2^(B - 22) of
them, at least 4 k - 1; s + B <= 64.
1. c = open(x + r), r uniform. x = u - v modulo 2^B, with the public u = (c >> s) mod 2^B, and
   v = (r >> s) mod 2^B, which the provider knows. The lower 22 bits of each are numbers u', v' in [0, 1),
   the others u_hi, v_hi. So x = W (i + u' - v') with i = u_hi - v_hi mod N: x lies in piece i, or in the
   one below it if u' < v'. A polynomial f_i(t) = sum of a_(i,d) t^d, of degree 5, is fitted on both at
   once, t from -1 to 1: no borrow is needed. i is from 3 to N + 2: numbers below 3 stand for those
   beyond N.
2. Provider: [v_hi = h] v'^e, for all h < N and e <= 5, shared with corrections: all but six are zero.
   [f(x)] = sum over h and e of q_e(u_hi - h, u') [[v_hi = h] v'^e],
   q_e(i, u') = (-1)^e sum over d >= e of binomial(d, e) a_(i,d) u'^(d - e): public, and local.
3. Truncation, to 24 fractional bits: 1 round. A product may do without it.
The a_(i,d) come from decimal arithmetic with 60 digits, and q_e from integers with 30 fractional bits, so
that they are the same at every party; powers of v' have 24. Where there is no truncation, both have 20 or
more, rounded. x may lie outside of [15/16, k] by 2^-20 x.
Error: 2^-24 from the truncation, and at most 2e-6 from fits and constants; at most 6e-6 with 20 bits of
each. Measured over the whole range by the tests.
c tells nothing about x, since r is uniform; the tables are shared with fresh words.
Cost: 2 rounds, 16 (n - 1) bytes an element; correction 48 N bytes and those of a truncation: 3 kB for
k = 10.

exp x of x within a public bound is a product of powers, as in :mod:`mpc.protocols.exponential`: with the
same b = e^(16/22), y = 22 x / 16 has 20 fractional bits, after s more. In N = 2^(B - 22) pieces of 4:
1. c = open(22 x + r). y = 4 (i + u' - v') as above, with i = u_hi - v_hi mod N, from a lowest one that
   the bound of x gives; u' may be below v'.
2. Provider: [v_hi = h] b^(-4 v') for all h < N, shared with corrections.
   [exp(x)] = sum over h of b^(4 (i + u')) [[v_hi = h] b^(-4 v')], with i of h: public factors, and local.
The dealt powers, at least b^-4, have e fractional bits, the factors m, about as many: together as many as
results up to 2^62 leave room for.
Error: 2^-21 of the result, and 2^-m. For x with more than 16 fractional bits, rounding y adds 2^-20 of it.
Cost: 1 round, 8 (n - 1) bytes an element; correction 8 N bytes: 64 for |x| up to 8, 128 up to 32.

Source: ours; the table that is addressed by a masked value as in Ishai, Kushilevitz, Meldgaard, Orlandi,
Paskin-Cherniavsky 2013, with powers of the mask's lower part for payload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from math import ceil, comb, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret
from mpc.protocols import truncation
from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.powers import LOG_OF_BASE, LOW_BITS, UNIT_BITS, UNITS, Y_BITS, power, power_tables
from ring.threads import run

__all__ = [
    "FRAC_BITS", "LARGEST", "BoundedPieces", "BoundedPowers", "Function", "Later", "PowerForm", "cost",
    "cost_of_opening", "cost_of_power", "evaluate", "exp", "pieces_of", "power_form", "takes",
]  # fmt: skip

Words = NDArray[np.uint64]
Function = Literal["reciprocal", "log"]

FRAC_BITS = 24
LARGEST = 32
_DEGREE = 5
_TERMS = _DEGREE + 1
_LOW_BITS = 22
_POWER_BITS, _FACTOR_BITS = 24, 30
_FIRST = 3
_LOW = (1 << _LOW_BITS) - 1


@dataclass(frozen=True)
class BoundedPieces(Correlation):
    """r, and the powers of its lower part at the place that its upper part says, from bit `shift` on."""

    size: int
    pieces: int
    shift: int = 0
    power_bits: int = _POWER_BITS

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.pieces * _TERMS, self.size)),)

    def check(self, limit: int) -> None:
        if self.pieces not in {1 << bits for bits in range(1, 8)}:
            raise ShapeError(f"pieces must be a power of two up to 128, got {self.pieces}")
        if not 0 <= self.shift <= WORD_BITS - _LOW_BITS - self.pieces.bit_length() + 1:
            raise ShapeError(f"a word has no {self.pieces} pieces from bit {self.shift} on")
        if not 1 <= self.power_bits < 40:
            raise ShapeError(f"power_bits must be from 1 to 39, got {self.power_bits}")
        super().check(limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        run(
            _deal, self.size, 2 * self.pieces * _TERMS,
            masks[0], self.pieces, self.shift, self.power_bits, out[0],
        )  # fmt: skip


# Elements that a kernel takes at a time, so that what it goes on with stays in the cache.
_BLOCK = 256


@kernel
def _deal(
    start: int, stop: int, r: Words, pieces: int, shift: int, power_bits: int, out: Words
) -> None:
    more = np.uint64(40 - power_bits)
    half = np.uint64(1) << (more - np.uint64(1))
    powers, places = np.empty((_TERMS, _BLOCK), np.uint64), np.empty(_BLOCK, np.uint64)
    for first in range(start, stop, _BLOCK):
        count = min(_BLOCK, stop - first)
        for e in range(count):
            v = r[first + e] >> np.uint64(shift)
            low = v & np.uint64(_LOW)
            places[e] = v >> np.uint64(_LOW_BITS) & np.uint64(pieces - 1)
            # With 40 bits on the way.
            power = np.uint64(1 << 40)
            for d in range(_TERMS):
                powers[d, e] = power + half >> more
                power = power * low >> np.uint64(_LOW_BITS)
        for h in range(pieces):
            for d in range(_TERMS):
                row, own = out[h * _TERMS + d, first : first + count], powers[d]
                for e in range(count):
                    row[e] = (own[e] if places[e] == np.uint64(h) else np.uint64(0)) - row[e]


@kernel
def _finish(
    start: int, stop: int,
    c: Words, tables: Words, factors: NDArray[np.int64], binomials: NDArray[np.int64], shift: int,
    less: int, out: Words,
) -> None:  # fmt: skip
    pieces = factors.shape[0]
    half = np.int64((1 << less) >> 1)
    for e in range(start, stop):
        u = c[e] >> np.uint64(shift)
        low = np.int64(u & np.uint64(_LOW))
        high = u >> np.uint64(_LOW_BITS)
        total = np.uint64(0)
        for h in range(pieces):
            i = np.int64(high - np.uint64(h) & np.uint64(pieces - 1))
            for d in range(_TERMS):
                # By Horner, from the highest power of u'.
                q = np.int64(0)
                for k in range(_DEGREE, d - 1, -1):
                    q = (q * low >> np.int64(_LOW_BITS)) + binomials[k, d] * factors[i, k]
                q = (-q if d & 1 else q) + half >> np.int64(less)
                total += np.uint64(q) * tables[h * _TERMS + d, e]
        out[e] = total


def _reciprocal(x: Decimal) -> Decimal:
    return 1 / x


_FUNCTIONS: dict[str, Callable[[Decimal], Decimal]] = {"reciprocal": _reciprocal, "log": Decimal.ln}


def _nodes() -> list[Decimal]:
    """Return Chebyshev's six nodes."""
    two, six = Decimal(2).sqrt(), Decimal(6).sqrt()
    half = [(six + two) / 4, two / 2, (six - two) / 4]
    return [*half, *(-node for node in half)]


def _fit(function: Callable[[Decimal], Decimal], piece: int) -> list[Decimal]:
    """Return a_0 ... a_5 of f_i, by interpolation on the part of both pieces that x can lie in."""
    width = Decimal(1) / 4
    # Of a softmax the largest exponential may be exp(-1/16).
    first, last = max(width * (piece - 1), Decimal(15) / 16), width * (piece + 1)
    middle, reach = (first + last) / 2, (last - first) / 2
    places = [(middle + reach * node) / width - piece for node in _nodes()]
    # Newton's divided differences, then powers of t.
    differences = [function(width * (piece + t)) for t in places]
    for step in range(1, _TERMS):
        for k in range(_DEGREE, step - 1, -1):
            differences[k] = (differences[k] - differences[k - 1]) / (places[k] - places[k - step])
    found = [Decimal(0)] * _TERMS
    for k in range(_DEGREE, -1, -1):
        # found * (t - places[k]) + differences[k]
        found = [a - places[k] * b for a, b in zip([Decimal(0), *found], found, strict=False)]
        found[0] += differences[k]
    return found


@lru_cache(maxsize=16)
def _factors(name: Function, pieces: int) -> NDArray[np.int64]:
    """Return the a_(i,d) as integers, of shape (pieces, 6)."""
    with localcontext(Context(prec=60)):
        rows = [_fit(_FUNCTIONS[name], i if i >= _FIRST else i + pieces) for i in range(pieces)]
        return np.array([[round(a * (1 << _FACTOR_BITS)) for a in row] for row in rows], np.int64)


_BINOMIALS = np.array([[comb(k, d) for d in range(_TERMS)] for k in range(_TERMS)], np.int64)


def pieces_of(k: int) -> int:
    """Return N: pieces 3 to 4 k + 1 are met."""
    return 1 << (4 * k - 2).bit_length()


def cost_of_opening(parties: int, size: int, k: int, shift: int = 0) -> Spent:
    """Declare the cost of steps 1 and 2 for `size` elements in [15/16, k]."""
    words = BoundedPieces(size, pieces_of(k), shift).corrected_words
    return Spent(1, 8 * (parties - 1) * size, 8 * words)


def cost(parties: int, size: int, k: int) -> Spent:
    """Declare the cost for `size` elements in [1, k]."""
    opened = cost_of_opening(parties, size, k)
    return opened + truncation.cost(parties, size, _POWER_BITS + _FACTOR_BITS - FRAC_BITS)


def takes(session: Runtime, k: int) -> bool:
    """Whether x in [1, k] is evaluated here: two parties alone have nobody who deals tables."""
    return k <= LARGEST and session.pair is None


class Later:
    """A function of x, of shape (size,), in [1, k], whose message is opened with others'.

    Parameters
    ----------
    session : Runtime
    words : uint64 array of shape (p, size)
        Shares of numbers with 24 + `shift` fractional bits, modulo 2^64.
    k : int
    name : Function
    shift, power_bits, factor_bits : int
        s, and the fractional bits of the powers of v' and of q_e.

    Attributes
    ----------
    message : uint64 array of shape (p, size)
        To be opened as a sum.
    correlation : BoundedPieces
    """

    def __init__(
        self,
        session: Runtime,
        words: Words,
        k: int,
        name: Function,
        *,
        shift: int = 0,
        power_bits: int = _POWER_BITS,
        factor_bits: int = _FACTOR_BITS,
    ) -> None:
        pieces = pieces_of(k)
        self.correlation = BoundedPieces(words.shape[1], pieces, shift, power_bits)
        self._k, self._name, self._factor_bits = k, name, factor_bits
        self._shares = session.correlated(self.correlation)
        self.message = words + self._shares.masks[0]

    def value(self, x: Secret, c: Words) -> Secret:
        """Return the function, with `power_bits` + `factor_bits` fractional bits, from what was opened.

        x is any array of the session.
        """
        (tables,) = self._shares.corrected
        size, pieces, shift = tables.shape[2], self.correlation.pieces, self.correlation.shift
        factors = _factors(self._name, pieces)
        less = _FACTOR_BITS - self._factor_bits
        out = np.empty((len(tables), size), np.uint64)
        for row, table in zip(out, tables, strict=True):
            run(_finish, size, 100 * pieces, c[0], table, factors, _BINOMIALS, shift, less, row)
        frac_bits = self.correlation.power_bits + self._factor_bits
        # log k is below the bits of k.
        log = self._k.bit_length() << frac_bits
        bound = 18 << frac_bits - 4 if self._name == "reciprocal" else log
        return x.derive(out, frac_bits=frac_bits, bound=bound)


def evaluate(
    x: Secret, k: int, name: Function, words: Words | None = None, shift: int = 0
) -> Secret:
    """Return the function of x, of shape (size,), in [1, k], with 24 fractional bits.

    Or of numbers modulo 2^64, of which `words` are shares, with `shift` more fractional bits.
    """
    later = Later(x.session, x.shares if words is None else words, k, name, shift=shift)
    y = later.value(x, x.session.open((later.message, "sum"))[0])
    return truncation.truncate(y, y.frac_bits - FRAC_BITS)


# exp x.

# Pieces are of 2^2 units, and at most so many: beyond, the pieces of mpc.protocols.normalised take less.
_PIECE_BITS = Y_BITS + 2
_PIECE = (1 << _PIECE_BITS) - 1
_MOST_POWERS = 64
_MOST_BITS = 30
# Of both factors together, at least.
_LEAST_BITS = 46
_WHOLE_POWER = np.uint64((1 << LOW_BITS) - 1)


@dataclass(frozen=True)
class BoundedPowers(Correlation):
    """r, and b^(-4 v') of its lower part at the place that its upper part says, from bit `shift` on."""

    size: int
    pieces: int
    shift: int
    power_bits: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.pieces, self.size)),)

    def check(self, limit: int) -> None:
        if self.pieces not in {1 << bits for bits in range(1, 7)}:
            raise ShapeError(f"pieces must be a power of two up to 64, got {self.pieces}")
        if not 0 <= self.shift <= WORD_BITS - _PIECE_BITS - self.pieces.bit_length() + 1:
            raise ShapeError(f"a word has no {self.pieces} pieces from bit {self.shift} on")
        if not 1 <= self.power_bits <= _MOST_BITS:
            raise ShapeError(f"power_bits must be from 1 to {_MOST_BITS}, got {self.power_bits}")
        super().check(limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        run(
            _deal_powers, self.size, 10 + 2 * self.pieces,
            masks[0], self.shift, self.power_bits, power_tables(), out[0],
        )  # fmt: skip


@kernel
def _deal_powers(
    start: int, stop: int, r: Words, shift: int, power_bits: int, table: Words, out: Words
) -> None:
    pieces = out.shape[0]
    for h in range(pieces):
        row = out[h]
        for e in range(start, stop):
            row[e] = np.uint64(0) - row[e]
    for e in range(start, stop):
        v = r[e] >> np.uint64(shift)
        place = v >> np.uint64(_PIECE_BITS) & np.uint64(pieces - 1)
        # The exponent less 16, which w + 1 = 2^24 - v' has more.
        out[place, e] += power(_WHOLE_POWER - (v & np.uint64(_PIECE)), power_bits, 3, table)


@kernel
def _finish_powers(
    start: int, stop: int,
    c: Words, tables: Words, shift: int, factors: Words, shifts: Words, table: Words, out: Words,
) -> None:  # fmt: skip
    pieces, one = factors.size, np.uint64(1)
    for e in range(start, stop):
        u = c[e] >> np.uint64(shift)
        # b^(4 u'), at most b^4, with 27 bits; w + 1 = 4 u' but for 0, where it is 1.
        low = u & np.uint64(_PIECE)
        mine = power(low - one, 27, 1, table) if low else one << np.uint64(27)
        high = u >> np.uint64(_PIECE_BITS)
        total = np.uint64(0)
        for h in range(pieces):
            i = high - np.uint64(h) & np.uint64(pieces - 1)
            total += (mine * factors[i] + (one << shifts[i] - one) >> shifts[i]) * tables[h, e]
        out[e] = total


@dataclass(frozen=True)
class PowerForm:
    """How exp of x within a bound is computed.

    Attributes
    ----------
    pieces : int
        N.
    power_bits, factor_bits : int
        e and m.
    factors, shifts : uint64 arrays of shape (N,)
        b^(4 i), for i mod N: with 31 bits, and by how many bits its product with b^(4 u') is shifted.
    """

    pieces: int
    power_bits: int
    factor_bits: int
    factors: Words
    shifts: Words


@lru_cache(maxsize=64)
def power_form(bound: float, most: float) -> PowerForm | None:
    """Return the form for |x| <= bound, where no x exceeds `most`; None if there is no room for it."""
    with localcontext(Context(prec=60)):
        piece = LOG_OF_BASE * 4
        # x / piece differs from i by less than 1, and what rounding adds.
        reach, highest = (
            Decimal(value) / piece + Decimal(2) ** -16 for value in (bound, min(bound, most))
        )
        first, last = floor(-reach), floor(highest) + 1
        pieces = max(2, 1 << (last - first).bit_length())
        bits = 61 - max(0, ceil(Decimal(min(bound, most)) / Decimal(2).ln() - Decimal(2) ** -20))
        if pieces > _MOST_POWERS or bits < _LEAST_BITS:
            return None
        power_bits = min(_MOST_BITS, (bits + 5) // 2)
        factor_bits = min(_MOST_BITS, bits - power_bits)
        factors, shifts = np.zeros(pieces, np.uint64), np.empty(pieces, np.uint64)
        for i in range(first, first + pieces):
            # A factor below 2, with 30 bits; what the result cannot be is 0.
            value = (piece * i).exp()
            exponent = floor(value.ln() / Decimal(2).ln())
            shift = 57 - exponent - factor_bits
            shifts[i % pieces] = max(1, min(63, shift))
            if i <= last and shift <= 63:
                factors[i % pieces] = round(value / Decimal(2) ** exponent * (1 << 30))
    return PowerForm(pieces, power_bits, factor_bits, factors, shifts)


def cost_of_power(parties: int, size: int, pieces: int) -> Spent:
    """Declare the cost of :func:`exp` for `size` elements."""
    return Spent(1, 8 * (parties - 1) * size, 8 * pieces * size)


def exp(x: Secret, form: PowerForm, bound: int) -> Secret:
    """Return exp x, with e + m fractional bits and a bound that the caller knows."""
    session, size = x.session, x.size
    up = max(0, Y_BITS - UNIT_BITS - x.frac_bits)
    shift = x.frac_bits + up - (Y_BITS - UNIT_BITS)
    shares = session.correlated(BoundedPowers(size, form.pieces, shift, form.power_bits))
    # Modulo 2^64, whatever leaves the ring.
    z = x.shares.reshape(len(x.shares), size) * np.uint64(UNITS << up)
    (c,) = session.open((z + shares.masks[0], "sum"))
    (tables,) = shares.corrected
    out = np.empty((len(tables), size), np.uint64)
    for row, table in zip(out, tables, strict=True):
        run(
            _finish_powers, size, 20 + 4 * form.pieces,
            c[0], table, shift, form.factors, form.shifts, power_tables(), row,
        )  # fmt: skip
    found = out.reshape(len(out), *x.shape)
    return x.derive(found, frac_bits=form.power_bits + form.factor_bits, bound=bound)
