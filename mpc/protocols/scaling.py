"""Products with public real numbers, and division by public numbers, right to the last place.

y = x . d for a secret x and public numbers d: an elementwise product, its sums, or a matrix product. y has
the format's f fractional bits, x has f_x. With D = d 2^(f - f_x), the encoded integers have y = x . D.
1. Limbs: x = x_0 + x_1 2^s + ... exactly, with x_i below 2^s or so: truncations of x by s, 2 s, ..., all
   opened in one round, and differences of what they give: see :mod:`mpc.protocols.truncation`.
2. D 2^(s i) = C_i + F_i, C_i the nearest integer, and G_i = F_i 2^p rounded: public.
3. [y] = sum of [x_i] . C_i + truncation by p of sum of [x_i] . G_i. The first is exact modulo 2^64.
The fewest limbs are taken that meet the error below, one if x is small; p is as large as 2^62 leaves room
for. Where D = m / 2^t with x . m in range, y is the truncation of x . m by t, or for t = 0 x . m itself.
Error, beside the rounding error that x has already: less than one unit of the last place from truncation,
and at most 2^-12 of a unit from rounding G. None where d is exact in the format: then y is x . d with twice
the format's fractional bits, if that is in range.
Cost: 2 rounds, 8 (n - 1) bytes for each element of x and limb but one, and 8 (n - 1) an element of y;
1 round with one limb, none where d is exact in the format. Correction 10 bytes for each of these
elements, 12 for more than 16 bits.

Where bounds do not prove that y is in range, a check on shares compares x alone with 2^62 divided by the
largest |D| that an element is multiplied by, for a matrix by the largest sum of them: it may refuse a
result that is in range.

Source: ours; limbs by truncation, and one truncation for the fractions of all limbs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError, RangeError
from mpc.core.ranges import LARGEST, LIMIT_BITS, at_index
from mpc.core.secret_value import Secret
from mpc.protocols import linear, range_check, truncation
from ring.matmul import matmul_add

__all__ = ["cost", "divide", "matmul", "multiply", "weighted_sum"]

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

# The error that rounding G may add to an element, in units of the last place.
_TOLERANCE = Fraction(1, 1 << 12)
_MOST_LIMBS = 4
_MANTISSA_BITS = 53


@dataclass(frozen=True)
class Dyadic:
    """Public numbers ``mantissa * 2**exponent``: those of a float array, exactly."""

    mantissa: Integers
    exponent: Integers

    @classmethod
    def of(cls, values: NDArray[Any], shift: int) -> Dyadic:
        """Return finite values times 2^shift."""
        fraction, exponent = np.frexp(values.astype(np.float64))
        mantissa = np.ldexp(fraction, _MANTISSA_BITS).astype(np.int64)
        return cls(mantissa, exponent.astype(np.int64) - _MANTISSA_BITS + shift)

    def doubles(self) -> NDArray[np.float64]:
        """Return the numbers as doubles."""
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.ldexp(self.mantissa.astype(np.float64), self.exponent))

    def behind(self) -> int | None:
        """Return the most fractional bits that one of the numbers has."""
        magnitude = np.abs(self.mantissa)
        lowest = magnitude & -magnitude
        zeros = np.frexp(lowest.astype(np.float64))[1] - 1
        needed = np.where(self.mantissa == 0, 0, -self.exponent - zeros)
        return max(0, int(needed.max(initial=0)))

    def integers(self, shift: int) -> Integers:
        """Return the numbers times 2^shift; the caller knows that these are integers in range."""
        exponent = self.exponent + shift
        left = np.clip(exponent, 0, 63)
        right = np.clip(-exponent, 0, 63)
        return self.mantissa << left >> right

    def parts(self, shift: int, p: int) -> tuple[Words, Integers]:
        """Step 2 for one limb, shift being s i: return C_i and G_i."""
        exponent = self.exponent + shift
        whole = exponent >= 0
        left = np.where(whole, np.minimum(exponent, 63), 0).astype(np.uint64)
        shifted = self.mantissa.view(np.uint64) << left
        shifted = np.where(exponent > 63, np.uint64(0), shifted)
        real = np.ldexp(np.where(whole, 0, self.mantissa).astype(np.float64), exponent * ~whole)
        nearest = np.rint(real)
        c = np.where(whole, shifted, nearest.astype(np.int64).view(np.uint64))
        g = np.rint(np.ldexp(real - nearest, p)).astype(np.int64)
        return c, g


@dataclass(frozen=True)
class Ratios:
    """Public fractions, as an array of indices into a tuple of the distinct ones."""

    values: tuple[Fraction, ...]
    index: NDArray[np.int64]

    @classmethod
    def inverse(cls, divisors: NDArray[Any], shift: int) -> Ratios:
        """Return 2^shift over divisors."""
        found, index = np.unique(divisors, return_inverse=True)
        power = Fraction(2) ** shift
        values = tuple(power / Fraction(d) for d in found.tolist())
        return cls(values, index.reshape(divisors.shape))

    def _taken(self, values: list[Any], dtype: Any) -> NDArray[Any]:
        return np.array(values, dtype)[self.index]

    def doubles(self) -> NDArray[np.float64]:
        """Return the numbers as doubles."""
        try:
            return self._taken([float(v) for v in self.values], np.float64)
        except OverflowError:
            raise RangeError("the public divisor is too small for the ring") from None

    def behind(self) -> int | None:
        """Return the most fractional bits that one of the numbers has, None if one has infinitely many."""
        sizes = [v.denominator for v in self.values]
        if any(size & (size - 1) for size in sizes):
            return None
        return max((size.bit_length() - 1 for size in sizes), default=0)

    def integers(self, shift: int) -> Integers:
        """Return the numbers times 2^shift; the caller knows that these are integers in range."""
        return self._taken([int(v * (1 << shift)) for v in self.values], np.int64)

    def parts(self, shift: int, p: int) -> tuple[Words, Integers]:
        """Step 2 for one limb, shift being s i: return C_i and G_i."""
        scaled = [v * (1 << shift) for v in self.values]
        nearest = [round(v) for v in scaled]
        c = self._taken([n % (1 << 64) for n in nearest], np.uint64)
        g = [round((v - n) * (1 << p)) for v, n in zip(scaled, nearest, strict=True)]
        return c, self._taken(g, np.int64)


Factors = Dyadic | Ratios


@dataclass(frozen=True)
class LimbPlan:
    """The number of limbs, their width s in bits, and p."""

    limbs: int
    width: int
    p: int

    def bounds(self, bound: int) -> list[int]:
        """Return the bound of each limb of x, the lowest first."""
        if self.limbs == 1:
            return [bound]
        inner = [(1 << self.width) + 1] * (self.limbs - 1)
        return [*inner, (bound >> self.width * (self.limbs - 1)) + 1]


def plan_limbs(bound: int, addends: int, sums: Fraction) -> LimbPlan | None:
    """Choose limbs for |x| <= bound, or return None if no choice stays within 2^62 and the error.

    Parameters
    ----------
    bound : int
        On |x|, encoded.
    addends : int
        How many products add up to an element of y.
    sums : Fraction
        The largest sum of |D| over the products of an element.
    """
    for limbs in range(1, _MOST_LIMBS + 1):
        width = max(1, -(-bound.bit_length() // limbs))
        bounds = LimbPlan(limbs, width, 0).bounds(bound)
        # F is at most 1 / 2, and rounding G adds at most as much.
        rows = [min(Fraction(addends, 2), sums * (1 << width * i)) for i in range(limbs)]
        fixed = sum(Fraction(addends, 2) * b for b in bounds)
        share = sum(b * row for b, row in zip(bounds, rows, strict=True))
        room = (LARGEST - fixed) / share if share else Fraction(2)
        p = min(LIMIT_BITS - 1, int(room).bit_length() - 1)
        if p >= 1 and fixed / (1 << p) <= _TOLERANCE:
            return LimbPlan(limbs, width, p)
    return None


@dataclass(frozen=True)
class _Map(Generic[Secret]):
    """The linear map x . d.

    Attributes
    ----------
    name : str
        The operation, for messages.
    x : SharedArray
    factors : Factors
        D.
    addends : int
        How many products add up to an element of y.
    sums : Fraction
        The largest sum of |D| over the products of an element.
    apply : callable
        Applies the map to shares, for a public integer matrix or array in place of D.
    exact : callable
        Applies the map to plain arrays.
    limits : callable
        Returns the limits on |x| that a check on shares claims.
    """

    name: str
    x: Secret
    factors: Factors
    addends: int
    sums: Fraction
    apply: Callable[[Words, Words], Words]
    exact: Callable[..., Any]
    limits: Callable[[], int | Integers]

    def settled(self, bound: int, frac_bits: int) -> int:
        """Return a bound of at most 2^62 - 1 for y, checked if need be, see :mod:`mpc.core.ranges`."""
        return linear.settled(
            self.x, self.name, bound, frac_bits, (self.x, self.factors.doubles()), self.exact,
            self.addends, lambda: (range_check.magnitude(self.x, self.limits()),), self.addends == 1,
        )  # fmt: skip

    def integers(self, factors: Integers, frac_bits: int, bound: int) -> Secret:
        """Return x . m for integers m, with a bound that the caller knows."""
        shares = self.apply(self.x.shares, factors.view(np.uint64))
        return self.x.derive(shares, frac_bits=frac_bits, bound=bound, origins=(self.x,))


def _limbs(x: Secret, chosen: LimbPlan) -> list[Secret]:
    """Step 1."""
    bounds = chosen.bounds(x.bound)
    if chosen.limbs == 1:
        return [x]
    high = truncation.divide_by_powers(x, [chosen.width * i for i in range(1, chosen.limbs)])
    whole = [x, *high]
    limbs = []
    for low, up, bound in zip(whole, whole[1:], bounds, strict=False):
        shares = low.shares - (up.shares << np.uint64(chosen.width))
        limbs.append(x.derive(shares, frac_bits=0, bound=bound))
    return [*limbs, whole[-1].with_integer_bound(bounds[-1])]


def _scaled(map: _Map[Secret]) -> Secret:
    """Return y, with the format's fractional bits or, where that is exact and in range, with more."""
    x, fixed_point = map.x, map.x.session.format
    bound = ceil(x.bound * map.sums)
    behind = map.factors.behind()
    if behind is not None:
        # `behind` counts the fractional bits of D, in which 2^(f - f_x) is included.
        larger = ceil(x.bound * map.sums * (1 << behind))
        if 0 < behind <= fixed_point.frac_bits and x.frac_bits <= fixed_point.frac_bits:
            # Exact, with twice the format's fractional bits, if that is in range.
            full = ceil(x.bound * map.sums * (1 << fixed_point.frac_bits))
            if full <= LARGEST:
                shift = fixed_point.frac_bits
                return map.integers(map.factors.integers(shift), 2 * fixed_point.frac_bits, full)
        if behind == 0 or (larger <= LARGEST and behind < LIMIT_BITS):
            larger = map.settled(larger, fixed_point.frac_bits)
            z = map.integers(_wrapped(map.factors, behind), fixed_point.frac_bits + behind, larger)
            return truncation.truncate(z, behind) if behind else z
    bound = map.settled(bound + 1, fixed_point.frac_bits)
    chosen = plan_limbs(x.bound, map.addends, map.sums)
    if chosen is None:
        raise RangeError(_no_room(map))
    whole: Words | None = None
    rest: Words | None = None
    most = 0
    for i, (limb, limit) in enumerate(zip(_limbs(x, chosen), chosen.bounds(x.bound), strict=True)):
        c, g = map.factors.parts(chosen.width * i, chosen.p)
        first, second = map.apply(limb.shares, c), map.apply(limb.shares, g.view(np.uint64))
        whole = first if whole is None else whole + first
        rest = second if rest is None else rest + second
        most += limit * min(map.addends * linear.magnitude(g), LARGEST)
    assert whole is not None and rest is not None
    tail = x.derive(rest, frac_bits=chosen.p, bound=min(most, LARGEST))
    tail = truncation.truncate(tail, chosen.p)
    return x.derive(whole + tail.shares, frac_bits=fixed_point.frac_bits, bound=bound)


def _wrapped(factors: Factors, shift: int) -> Integers:
    """Return factors times 2^shift modulo 2^64; the caller knows that these are integers."""
    return factors.parts(shift, 1)[0].view(np.int64)


def _no_room(map: _Map[Any]) -> str:
    bits = map.x.bound.bit_length()
    while bits and plan_limbs((1 << bits) - 1, map.addends, map.sums) is None:
        bits -= 1
    limit = 2.0 ** (bits - map.x.frac_bits)
    return (
        f"{map.name}: the ring has no room for a result that is right to the last place, of values"
        f" up to {map.x.bound / 2**map.x.frac_bits:g} by their bound; bound={limit:g} when they are"
        " shared would do"
    )


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    bad = ~np.isfinite(values)
    if np.any(bad):
        place = int(np.argmax(bad))
        raise RangeError(
            f"the public operand must be finite, got {values.reshape(-1)[place]}"
            f"{at_index(place, values.shape)}"
        )
    return values


def _largest(factors: Factors, axis: int | None = None) -> Fraction:
    """Return an upper bound, nearly tight, on magnitudes, or on sums of magnitudes along an axis."""
    magnitudes = np.abs(factors.doubles())
    if axis is None:
        most, slack = float(magnitudes.max(initial=0.0)), Fraction(1)
        if isinstance(factors, Ratios):
            return max((abs(v) for v in factors.values), default=Fraction(0))
    else:
        most, slack = float(magnitudes.sum(axis=axis).max(initial=0.0)), 1 + Fraction(1, 1 << 20)
    if not np.isfinite(most):
        raise RangeError("the public operand is too large for the ring")
    return Fraction(most) * slack


def _elementwise(x: Secret, factors: Factors, shape: tuple[int, ...], name: str) -> Secret:
    dimensions = len(shape)

    def apply(shares: Words, integers: Words) -> Words:
        return np.asarray(linear.widen(shares, dimensions) * integers)

    def limits() -> Integers:
        # Doubles round, so a little less than the exact quotient.
        met = range_check.largest_met(x.shape, np.abs(factors.doubles()))
        with np.errstate(divide="ignore"):
            return np.minimum(LARGEST * (1 - 2.0**-40) / met, 2.0**LIMIT_BITS).astype(np.int64)

    return _scaled(
        _Map(name, x, factors, 1, _largest(factors), apply, lambda v, d: v * d, limits)
    )  # fmt: skip


def multiply(x: Secret, y: object) -> Secret:
    """x * y for public y: integers as they are, floats to the last place."""
    values = linear.public(y)
    shape = linear.broadcast("*", x.shape, values.shape)
    if values.dtype.kind == "i":
        return linear.multiply_integers(x, values)
    with x.session.protocol("scaling"):
        shift = x.session.format.frac_bits - x.frac_bits
        return _elementwise(x, Dyadic.of(_finite(values), shift), shape, "*")


def divide(x: Secret, y: object, name: str = "/") -> Secret:
    """x / y for public y, not zero."""
    values = linear.public(y)
    shape = linear.broadcast("/", x.shape, values.shape)
    if not np.all(np.isfinite(values)) or np.any(values == 0):
        bad = ~np.isfinite(values) | (values == 0)
        place = int(np.argmax(bad))
        raise ArgumentError(
            f"a divisor must be finite and not zero, got {values.reshape(-1)[place]}"
            f"{at_index(place, values.shape)}"
        )
    with x.session.protocol("scaling"):
        shift = x.session.format.frac_bits - x.frac_bits
        return _elementwise(x, Ratios.inverse(values, shift), shape, name)


def weighted_sum(x: Secret, y: object) -> Secret:
    """Sum of x * y along the last axis, for public real y of the shape of x: rounded once."""
    values = linear.public(y)

    def apply(shares: Words, integers: Words) -> Words:
        return np.asarray((shares * integers).sum(axis=-1, dtype=np.uint64))

    def exact(v: NDArray[Any], d: NDArray[Any]) -> Any:
        return (v * d).sum(axis=-1)

    with x.session.protocol("scaling"):
        factors = Dyadic.of(_finite(values), x.session.format.frac_bits - x.frac_bits)
        sums = _largest(factors, -1)
        return _scaled(
            _Map("sum", x, factors, x.shape[-1], sums, apply, exact, lambda: int(LARGEST / sums))
        )


def matmul(x: Secret, y: object, *, reverse: bool = False) -> Secret:
    """x @ y for public y, or y @ x if `reverse`; operands of at least two axes."""
    values = linear.public(y)
    if values.dtype.kind == "i":
        return linear.matmul_integers(x, values, reverse=reverse)
    sizes = (values.shape, x.shape) if reverse else (x.shape, values.shape)
    shape, addends = linear.matmul_shape(*sizes), values.shape[-1 if reverse else -2]

    def apply(shares: Words, integers: Words) -> Words:
        out = np.zeros((len(shares), *shape), np.uint64)
        for share, row in zip(shares, out, strict=True):
            left, right = (integers, share) if reverse else (share, integers)
            matmul_add(left, right, row)
        return out

    def exact(v: NDArray[Any], d: NDArray[Any]) -> Any:
        return d @ v if reverse else v @ d

    with x.session.protocol("scaling"):
        factors = Dyadic.of(_finite(values), x.session.format.frac_bits - x.frac_bits)
        sums = _largest(factors, -1 if reverse else -2)
        return _scaled(
            _Map("@", x, factors, addends, sums, apply, exact, lambda: int(LARGEST / sums))
        )


def cost(parties: int, size: int, out_size: int, chosen: LimbPlan) -> Spent:
    """Declare the cost for x of `size` elements and y of `out_size`."""
    last = truncation.cost(parties, out_size, chosen.p)
    if chosen.limbs == 1:
        return last
    limbs = [truncation.cost(parties, size, chosen.width * i) for i in range(1, chosen.limbs)]
    first = Spent(1, sum(c.bytes_sent for c in limbs), sum(c.correction_bytes for c in limbs))
    return first + last
