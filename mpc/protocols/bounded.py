"""1 / x and log x for x in a public range [15/16, k], k <= 32, from one opening, by polynomials that meet.

x has 24 fractional bits, after s more that are rounded away, up or down. Modulo 2^B it is cut into pieces
of width W = 1/4, N = 2^(B - 22) of them, at least 4 k - 1; s + B <= 64.
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

Source: ours; the table that is addressed by a masked value as in Ishai, Kushilevitz, Meldgaard, Orlandi,
Paskin-Cherniavsky 2013, with powers of the mask's lower part for payload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from math import comb
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
from ring.threads import run

__all__ = [
    "FRAC_BITS", "LARGEST", "BoundedPieces", "Function", "Later", "cost", "cost_of_opening",
    "evaluate", "pieces_of", "takes",
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


@kernel
def _deal(
    start: int, stop: int, r: Words, pieces: int, shift: int, power_bits: int, out: Words
) -> None:
    more = np.uint64(40 - power_bits)
    half = np.uint64(1) << (more - np.uint64(1))
    for e in range(start, stop):
        v = r[e] >> np.uint64(shift)
        low = v & np.uint64(_LOW)
        place = v >> np.uint64(_LOW_BITS) & np.uint64(pieces - 1)
        for h in range(pieces):
            # With 40 bits on the way.
            power = np.uint64(1 << 40) if np.uint64(h) == place else np.uint64(0)
            for d in range(_TERMS):
                row = h * _TERMS + d
                out[row, e] = (power + half >> more) - out[row, e]
                power = power * low >> np.uint64(_LOW_BITS)


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
