"""Normal equations on shares: columns centred and scaled, sums of their products, and an inverse.

All arrays in here are whole numbers (`frac_bits` 0); how many bits a number has behind the point is known
to the code. X has n rows, its public bound is B, and n <= 2^k.
1. Columns: with an intercept each column loses its mean, rounded to the format, and a column of ones
   joins them. z = x / 2^b with 2^b >= 2 B (B without an intercept), so |z| <= 1. Exact, unless products of
   so many rows would not fit the ring: then the last bits of z are truncated.
2. A = Z' W Z / 2^k for weights W of the rows, none or secret, at most 1. Exact without weights.
3. Scale: D_j = 2^i for the largest i <= 12 with (A_jj + penalty_j) 4^i < 1, by comparisons. So
   D A D + D penalty D has a diagonal below 1.6 and no eigenvalue above 1.6 times the number of columns.
4. Inverse: :func:`mpc.array.linear_algebra.inverse` of A + floor. For a floor of 2^-18 and 11 columns 13
   steps of 4 rounds, whatever the values are. Who takes it for steps towards a solution sees from the steps
   whether they have converged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.array.linear_algebra import A_BITS, product, shifted
from mpc.protocols import linear
from nn.shared.range import anywhere

__all__ = [
    "SUM_BITS", "Columns", "Scale", "are_none", "outside", "times", "whole",
]  # fmt: skip

# Bits behind the point of sums of products before they are scaled.
SUM_BITS = 58
_SCALES = 12
_LARGEST_WEIGHT = 12
_DIAGONAL_BITS = 28
# The bound on the words of a sum of products.
_ROOM = 60


def whole(x: SharedArray, bound: int) -> SharedArray:
    """Return x as whole numbers: the same words."""
    return x.derive(x.shares, frac_bits=0, bound=bound, origins=(x,))


def outside(x: SharedArray, limit: int) -> SharedArray:
    """Return how many words are beyond `limit` in magnitude; on all 64 bits."""
    words = x.reshape(-1)
    both = linear.concatenate([words, linear.negative(words)])
    return (anywhere(linear.add_integer(both, -limit - 1)) >= 0).sum()


def are_none(*counts: SharedArray) -> list[bool]:
    """Open which counts are 0; all in a plan, which has no values."""
    flat = linear.concatenate([count.reshape(1) for count in counts])
    if not flat.session.here:
        (flat == 0).reveal()
        return [True] * len(counts)
    return [bool(bit) for bit in np.asarray((flat == 0).reveal())]


def times(x: SharedArray, y: SharedArray, bits: int, bound: int) -> SharedArray:
    """Return x * y / 2^bits, rounded, of which the caller knows the bound before rounding."""
    found = linear.placed(x * y, 0, bound)
    return shifted(found, bits) if bits else found


@dataclass
class Columns:
    """The columns of a regression, and their scale.

    Attributes
    ----------
    z : SharedArray of shape (rows, columns)
        With `bits` behind the point; the last one is the intercept's, if there is one.
    means : SharedArray of shape (features,) or None
        Of the columns, in the format; None without an intercept.
    exponent : int
        b: x - mean is z times 2^b.
    rows_exponent : int
        k.
    by_penalty : bool
        Whether b is as large for the penalty's sake.
    """

    session: Session
    z: SharedArray
    bits: int
    means: SharedArray | None
    exponent: int
    rows_exponent: int
    by_penalty: bool

    @classmethod
    def of(cls, X: SharedArray, intercept: bool, least_exponent: int) -> Columns:
        """Return the columns of rows X, with b at least `least_exponent`."""
        session, form = X.session, X.session.format
        x = linear.at_bits(X.truncate(), form.frac_bits)
        means = None
        bound = x.bound
        if intercept:
            means = X.mean(axis=0).truncate()
            x, bound = x - means, 2 * bound + 1
        bits = max(bound.bit_length(), least_exponent + form.frac_bits)
        exponent = bits - form.frac_bits
        k = (len(x) - 1).bit_length()
        z = whole(x, bound)
        lost = max(0, -(-(k + 2 * bits - _ROOM) // 2))
        if lost:
            z, bits = shifted(z, lost), bits - lost
        if intercept:
            ones = np.full((len(x), 1), 1 << bits)
            column = SharedArray.from_public(session, ones, 0, 1 << bits)
            z = linear.concatenate([z, column], axis=1)
        # It stays for all products.
        z.kept = True
        by_penalty = exponent > bound.bit_length() - form.frac_bits
        return cls(session, z, bits, means, exponent, k, by_penalty and least_exponent > 0)

    @property
    def count(self) -> int:
        """How many columns."""
        return int(self.z.shape[1])

    @property
    def room(self) -> int:
        """How many bits numbers of at most 1 may have, so that their products with z fit the ring."""
        return _ROOM - self.bits - self.rows_exponent

    def sums(self, right: SharedArray, bits: int, result_bits: int = SUM_BITS) -> SharedArray:
        """Return Z' R / 2^k with `result_bits`, for R of at most 1 with `bits`."""
        at = self.bits + bits + self.rows_exponent
        return product(self.z.T, right, at - result_bits, 1 << at)

    def scale(self, sums: SharedArray, penalty: NDArray[np.float64]) -> Scale:
        """Return D, for A with SUM_BITS and the penalty of each column."""
        place = np.arange(self.count)
        return Scale(sums[place, place], penalty)

    def sums_of_squares(self, x: SharedArray, bits: int) -> SharedArray:
        """Return the sum of x^2 over the rows / 2^k with SUM_BITS, for x of at most 1 with `bits`."""
        lost = max(0, -(-(self.rows_exponent + 2 * bits - _ROOM) // 2))
        x, bits = shifted(x, lost) if lost else x, bits - lost
        at = 2 * bits + self.rows_exponent
        found = linear.placed((x * x).sum(axis=0), 0, 1 << at)
        return shifted(found, at - SUM_BITS)

    def coefficients(
        self, u: SharedArray, bits: int, gain: int
    ) -> tuple[SharedArray, SharedArray, SharedArray]:
        """Return coefficients and intercepts of rows of X for D w, and how many are out of range.

        Both have the format's fractional bits and its guard bits.

        Parameters
        ----------
        u : SharedArray of shape (columns, outputs)
            D w, with `bits` behind the point.
        bits : int
        gain : int
            The answer is 2^gain times as large.
        """
        form = self.session.format
        most, bound = form.frac_bits + form.guard_bits, form.bound << form.guard_bits
        features = self.count - (self.means is not None)
        shift = bits - gain - most
        if self.means is None:
            weights, large = _within(u, shift + self.exponent, bound)
            zeros = np.zeros(u.shape[1], np.int64)
            own = SharedArray.from_public(self.session, zeros, 0, bound)
        else:
            # As many bits as leave room for coefficients of 2^12, in the products below.
            reach = (features * self.means.bound).bit_length()
            lost = most - max(1, min(most, _ROOM - reach - _LARGEST_WEIGHT))
            limit = min(bound, 1 << _ROOM - reach + lost)
            weights, large = _within(u[:features], shift + self.exponent, limit)
            coarse = shifted(weights, lost) if lost else weights
            moved = whole(self.means, self.means.bound).reshape(1, -1) @ coarse
            moved = shifted(linear.placed(moved, 0, 1 << _ROOM), form.frac_bits - lost)
            middle, beyond = _within(u[features:], shift, 1 << _ROOM)
            own = (middle - moved).reshape(-1)
            large = large + beyond + outside(own, bound)
        return linear.placed(weights, most, bound), linear.placed(own, most, bound), large


def _within(x: SharedArray, bits: int, limit: int) -> tuple[SharedArray, SharedArray]:
    """Return x / 2^bits, and how many of these are beyond `limit`, also where they wrap around."""
    if bits < 0:
        return shifted(x, bits), outside(x, limit >> -bits)
    found = shifted(x, bits)
    return found, outside(found, limit)


class Scale:
    """Step 3: secret powers of two, from 1 to 2^12, that bring numbers near to 1, of shape (size, 1).

    Parameters
    ----------
    squares : SharedArray of shape (size,)
        Squares a of the numbers, at most 1, with SUM_BITS: the power is 2^i for the largest i <= 12
        with a 4^i < 1.
    more : array of shape (size,), optional
        Public numbers that are added to the squares.

    Attributes
    ----------
    power, square, inverse : SharedArray of shape (size, 1)
        2^i, 4^i, and 2^(12 - i).
    """

    inverse_bits = _SCALES

    def __init__(self, squares: SharedArray, more: NDArray[np.float64] | None = None) -> None:
        total = shifted(squares, SUM_BITS - _DIAGONAL_BITS)
        if more is not None:
            total = total + np.ceil(np.ldexp(more, _DIAGONAL_BITS)).astype(np.int64)
        steps = np.arange(1, _SCALES + 1)
        thresholds = (1 << _DIAGONAL_BITS) >> 2 * steps
        below = (total.reshape(-1, 1) - thresholds) < 0

        def chosen(values: NDArray[np.int64]) -> SharedArray:
            # The first value, and for each i with a bit the difference to the next one.
            found = below @ np.diff(values).reshape(-1, 1) + int(values[0])
            return found.with_integer_bound(int(values.max()))

        powers = 2 ** np.arange(_SCALES + 1)
        self.power, self.square = chosen(powers), chosen(powers**2)
        self.inverse = chosen(powers[::-1].copy())

    def of_matrix(self, sums: SharedArray) -> SharedArray:
        """Return D A D with A_BITS, for sums A with SUM_BITS of shape (..., size, size)."""
        pairs = times(self.power, self.power.T, 0, 1 << 2 * _SCALES)
        return times(sums, pairs, SUM_BITS - A_BITS, 1 << SUM_BITS + 1)

    def of_penalty(self, penalty: NDArray[np.float64]) -> SharedArray:
        """Return D penalty D with A_BITS, of shape (size,)."""
        encoded = np.rint(np.ldexp(penalty, SUM_BITS)).astype(np.int64).reshape(-1, 1)
        found = linear.placed(linear.multiply_integers(self.square, encoded), 0, 1 << SUM_BITS + 1)
        return shifted(found, SUM_BITS - A_BITS).reshape(-1)
