"""A function of a secret by cubic pieces that comparisons choose.

The line is cut at K public thresholds t_k. Between two of them the function is s y + h(y), with a
slope s that is 0 or 1 and h a cubic in d = y - m, m being the middle of the piece. On the two outer
pieces h is a constant, so that nothing but s y grows with y.
1. c = open(z + 2^62 + r). From it follow the truncated value [y] and the bits <y < t_k> for all k: the
   tables dealt with r can be read at the public u - t_k for any number of thresholds, see
   :mod:`mpc.protocols.sign`. 2 rounds.
2. B2A of these bits to [b_k]: 1 round (:mod:`mpc.protocols.b2a`).
3. The middle, the coefficients and the slope of the piece that y lies in are sums over k of public
   differences times [b_k]: local. [d] = [y] - [m].
4. [d], [a_3] and [a_1] are masked, and [s] if there is a slope; [d^2], [a_3 d], [a_1 d] and [s d] follow:
   1 round.
5. d^2 and e = a_3 d + a_2 are truncated: 1 round.
6. h = d^2 e + a_1 d + a_0, with twice the format's fractional bits: 1 round. This is the result of a
   function without slopes.
7. Otherwise h is truncated: 1 round. s y = s d + s m is added, exactly.
On the outer pieces a_1, a_2 and a_3 are zero, and so are e and its truncation, exactly, whatever
d and d^2 have become modulo 2^64. The bits are exact, so a value is never taken for a neighbour's
piece. A whole number is compared as it is, and shifted to f bits modulo 2^64 in step 3; with slopes it
has to be in range when it is shifted, which the range policy settles.
Right for every value that an array can hold, in every format with at least one fractional bit that has
room for the coefficients. Thresholds beyond the bound of y are left out, and so are the pieces beyond
them.
Cost at L = 33, K = 20: 6 rounds, about 87 (n - 1) bytes an element; correction about 363 bytes.
With slopes 7 rounds, and 16 bytes and 18 bytes more. Values that need no truncation save 10 bytes of
correction.

Error: the distance of the pieces to the function, and what rounding adds, in units of 2^-f: with D the
largest |d|, E the largest |e| and L the largest slope of the function, 3 L / 2 for y and m,
(D + D^3) / 2 for a_1 and a_3, D^2 for e, E for d^2, and 1 for the last truncation.

Source: piecewise polynomials chosen by comparisons, as in SecureML (Mohassel, Zhang 2017, section
5.3) with two thresholds and ABY3 (Mohassel, Rindal 2018, section 5.2) with any; the one opening
for all thresholds follows from :mod:`mpc.protocols.sign`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, linear, product, sign, truncated_product, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.thresholds import choose

__all__ = [
    "ONE",
    "UNIT_BITS",
    "Pieces",
    "Sizes",
    "cost",
    "cubic",
    "evaluate",
    "rounded",
    "rounding_of",
]

Words = NDArray[np.uint64]

UNIT_BITS = 32
ONE = 1 << UNIT_BITS
"""Constants of pieces are integers in units of 2^-32, so that every machine rounds alike."""


@dataclass(frozen=True)
class Pieces:
    """A function by pieces, in units of 2^-32.

    Attributes
    ----------
    name : str
        Of the function, for messages and costs.
    thresholds : tuple of int
        Ascending.
    rows : tuple of (m, a_0, a_1, a_2, a_3, s)
        One row more than thresholds; the slope s is 0 or 1 itself. Of the first and the last row,
        a_1, a_2 and a_3 are zero.
    fit : float
        The largest distance of the pieces to the function.
    rounding : float
        The largest distance of a result to the pieces, in units of 2^-f.
    """

    name: str
    thresholds: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    fit: float
    rounding: float

    @cached_property
    def has_slope(self) -> bool:
        """Whether a piece has the slope 1."""
        return any(row[5] for row in self.rows)

    @cached_property
    def _inner(self) -> list[tuple[int, tuple[int, ...]]]:
        """The largest |d| of each piece but the outer ones, and its row."""
        ends = zip(self.thresholds, self.thresholds[1:], self.rows[1:], strict=False)
        return [(max(row[0] - low, high - row[0]), row) for low, high, row in ends]

    @cached_property
    def factor(self) -> int:
        """The largest of |d|, |a_1| and |a_3| on the inner pieces."""
        return max((max(d, abs(r[2]), abs(r[4])) for d, r in self._inner), default=0)

    @cached_property
    def bend(self) -> int:
        """A bound on |e| and d^2 on the inner pieces."""
        found = (
            (d * d >> UNIT_BITS, (d * abs(r[4]) >> UNIT_BITS) + abs(r[3])) for d, r in self._inner
        )
        return 1 + max((max(some) for some in found), default=0)

    @cached_property
    def height(self) -> int:
        """A bound on |h|."""

        def largest(d: int, row: tuple[int, ...]) -> int:
            _, a0, a1, a2, a3 = map(abs, row[:5])
            return (
                a0 + (d * (a1 + (d * (a2 + (d * a3 >> UNIT_BITS)) >> UNIT_BITS)) >> UNIT_BITS) + 3
            )

        ends = abs(self.rows[0][1]), abs(self.rows[-1][1])
        return max(*ends, *(largest(d, row) for d, row in self._inner))

    def error_bound(self, frac_bits: int) -> float:
        """Return how far a result may lie from the function at its exact input."""
        return self.fit + self.rounding * 2.0**-frac_bits

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the pieces give for numbers in the clear."""
        places = np.searchsorted(np.array(self.thresholds) / ONE, x, side="right")
        m, a0, a1, a2, a3 = (np.array([row[:5] for row in self.rows]) / ONE).T[:, places]
        slope = np.array([row[5] for row in self.rows])[places]
        outer = (places == 0) | (places == len(self.thresholds))
        d = np.where(outer, 0.0, x - m)
        return np.asarray(a0 + d * (a1 + d * (a2 + d * a3)) + np.where(slope == 0, 0.0, x))


def rounding_of(
    thresholds: tuple[int, ...], rows: tuple[tuple[int, ...], ...], steepest: float
) -> float:
    """Return what rounding can add, in units of 2^-f, for a function of a given largest slope."""
    most = 0.0
    for low, high, row in zip(thresholds, thresholds[1:], rows[1:], strict=False):
        m, _, _, a2, a3, _ = (value / ONE for value in row)
        d = max(m - low / ONE, high / ONE - m)
        most = max(most, (d + d**3) / 2 + d * d + abs(a2) + d * abs(a3))
    return 1.5 * steepest + most + 1


def rounded(value: int, frac_bits: int) -> int:
    """Return value / 2^32 with `frac_bits`, rounded half up."""
    shift = UNIT_BITS - frac_bits
    return value << -shift if shift <= 0 else (value + (1 << shift - 1)) >> shift


@lru_cache(maxsize=64)
def _encoded(
    pieces: Pieces, frac_bits: int, up: int, bound: int
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return thresholds and rows, of shape (7, pieces), for y up to `bound`.

    m, a_1 and a_3 have `frac_bits`; a_0 and a_2 are added to products and have twice as many. The
    slope is a whole number, and the last row is s m. y and the thresholds have `up` bits fewer.
    """
    places = (frac_bits, 2 * frac_bits, frac_bits, 2 * frac_bits, frac_bits)
    rows = []
    for row in pieces.rows:
        m, *rest = (rounded(value, bits) for value, bits in zip(row[:5], places, strict=True))
        rows.append([m, *rest, row[5], row[5] * m])
    # A whole number is below t if it is below the next whole number from t on.
    whole = [-(-rounded(t, frac_bits) >> up) for t in pieces.thresholds]
    low = sum(t <= -bound for t in whole)
    high = sum(t <= bound for t in whole)
    if low == high:  # one piece; the opening needs a threshold, so the nearest one stays
        low, high = (low - 1, high) if low else (low, high + 1)
    return tuple(whole[low:high]), np.array(rows[low : high + 1], np.int64).T


def _sizes(pieces: Pieces, frac_bits: int) -> Sizes:
    """Return bounds, or raise RangeError if products of the coefficients leave the ring."""
    # A little more for rounding m, y and the thresholds.
    factor = rounded(pieces.factor, frac_bits) + 4
    bend = max(factor**2 >> frac_bits, rounded(pieces.bend, frac_bits)) + 2
    height = rounded(pieces.height, 2 * frac_bits) + (16 << frac_bits)
    sizes = Sizes(factor, factor, bend, bend, height)
    largest = sizes.largest(frac_bits)
    if largest > LARGEST:
        most = frac_bits - (largest.bit_length() - 61) // 2
        raise RangeError(
            f"{pieces.name} needs a format with at most {most} fractional bits for its coefficients,"
            f" got frac_bits = {frac_bits}"
        )
    return sizes


def cost(
    parties: int, size: int, shift: int, window: int, frac_bits: int, thresholds: int, slope: bool
) -> Spent:
    """Declare the cost for `size` elements that lose `shift` bits and then have `frac_bits`."""
    products = 4 if slope else 3
    total = (
        sign.cost(parties, size, shift, window, True, "truncation", thresholds)
        + b2a.cost(parties, thresholds, size)
        + product.cost(parties, products * size, products * size)
        + truncation.cost(parties, 2 * size, frac_bits)
        + product.cost(parties, 2 * size)
    )
    return total + truncation.cost(parties, size, frac_bits) if slope else total


@dataclass(frozen=True)
class Sizes:
    """Bounds on what a cubic is computed from, as encoded integers.

    Attributes
    ----------
    d, a : int
        |d|; |a_1| and |a_3|.
    square, e : int
        d^2 and e, truncated.
    height : int
        The result.
    """

    d: int
    a: int
    square: int
    e: int
    height: int

    def largest(self, frac_bits: int) -> int:
        """Return the largest intermediate value, for d with `frac_bits`."""
        truncated = max(self.square, self.e) << frac_bits
        return max(self.d * max(self.a, self.d), truncated, self.square * self.e, self.height)


def cubic(
    x: Secret,
    d: Words,
    a: tuple[Words, ...],
    frac_bits: int,
    sizes: Sizes,
    more: tuple[Words, ...] = (),
    at_once: bool = False,
) -> tuple[Secret, Words]:
    """Steps 4 to 6: d^2 (a_3 d + a_2) + a_1 d + a_0, and `more` times d.

    Parameters
    ----------
    x : SharedArray
        Whose session and class the result has.
    d : uint64 array of shape (p, size)
        Shares, with `frac_bits`.
    a : tuple of uint64 array
        Shares of a_0 to a_3, a_0 and a_2 with `frac_bits` more than a_1 and a_3.
    frac_bits : int
    sizes : Sizes
    more : tuple of uint64 array
        Shares of further factors of d.
    at_once : bool
        Whether step 5 and the product of step 6 take one round, for 28 bytes of correction more:
        :mod:`mpc.protocols.truncated_product`.
    """

    def shared(shares: Words, bound: int) -> Secret:
        # The places of the point differ from row to row; the caller knows them.
        return x.derive(shares, frac_bits=frac_bits, bound=bound)

    a0, a1, a2, a3 = a
    factors = shared(np.stack([d, a3, a1, *more], axis=1), max(sizes.a, sizes.d))
    # The mask made by indexing a masked array is a view of it, so d is opened once.
    mask_ahead(factors)
    products = product.multiply(factors, factors[0].with_integer_bound(sizes.d), whole=True)
    e = products[1].shares + a2
    bound = max(sizes.square, sizes.e) << frac_bits
    pair = x.derive(np.stack([products[0].shares, e], axis=1), frac_bits=2 * frac_bits, bound=bound)
    if at_once:
        most = sizes.square * sizes.e
        bent = truncated_product.multiply(pair[0], frac_bits, pair[1], frac_bits, most)
    else:
        pair = truncation.truncate(pair, frac_bits)
        mask_ahead(pair)
        square, e_ = pair[0].with_integer_bound(sizes.square), pair[1].with_integer_bound(sizes.e)
        bent = product.multiply(square, e_, whole=True)
    line = x.derive(products[2].shares + a0, frac_bits=2 * frac_bits, bound=sizes.height)
    with x.session.range_policy.vouched():
        total = linear.add(bent, line).with_integer_bound(sizes.height)
    return total, products[3:].shares


def evaluate(x: Secret, pieces: Pieces) -> Secret:
    """Return the function of x: with the format's fractional bits if it has slopes, else with twice."""
    session = x.session
    with session.protocol(pieces.name):
        frac_bits = session.format.frac_bits
        if not frac_bits:
            raise RangeError(
                f"{pieces.name} needs a format with fractional bits, got frac_bits = 0"
            )
        sizes = _sizes(pieces, frac_bits)
        if pieces.has_slope and x.frac_bits < frac_bits:
            x = linear.at_bits(x, frac_bits, pieces.name)
        x = truncation.kept(x)
        shift, up = max(0, x.frac_bits - frac_bits), max(0, frac_bits - x.frac_bits)
        bound = -(-x.bound >> shift)
        thresholds, rows = _encoded(pieces, frac_bits, up, bound)

        bits, y = sign.signs_and_value(x, shift, thresholds)
        numbers = b2a.convert(session, bits, x.size)
        truncation.keep(x, y, shift)
        y = y << np.uint64(up)
        count = len(rows) if pieces.has_slope else 5
        m, a0, a1, a2, a3, *slopes = choose(session, numbers, rows[:count]).transpose(1, 0, 2)

        total, sloped = cubic(x, y - m, (a0, a1, a2, a3), frac_bits, sizes, tuple(slopes[:1]))
        total = total.view(("reshape", x.shape))
        if not pieces.has_slope:
            return total
        h = truncation.truncate(total, frac_bits)
        sloped = (sloped[:, 0] + slopes[1]).reshape(h.shares.shape)
        # On the outer pieces the result is y or a constant, which is within the height.
        near = rounded(max(map(abs, pieces.thresholds)), frac_bits) + 2
        most = max(bound, (sizes.height >> frac_bits) + min(bound, near) + 2)
        return x.derive(h.shares + sloped, frac_bits=frac_bits, bound=most)
