"""Cubic pieces for powers, logarithm and exponential, fitted to a format when they are needed.

X is the encoded value, with f' fractional bits. For a power or the logarithm, X in [2^j, 2^(j + 1)) is
2^j v, and each such octave is cut at S places of v in [1, 2); S depends on j, and is the least that
keeps the error of the cubics within half a unit of the format, or within 2^-19 of the result where
that is more. x^p is 2^(p (j - f')) v^p, and log x is (j - f') log 2 + log v. For the exponential the
pieces are from 1/4 to 2 wide, with the same error.
All constants come from decimal arithmetic with 60 digits, which is the same on every machine.

Source: interpolation at Chebyshev's four nodes; the remainder is at most max |g''''| w^4 / 192 on a piece
of half-width w.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, RangeError
from mpc.core.ranges import LARGEST, LIMIT_BITS
from mpc.protocols.piecewise import Sizes
from ring.fixed_point import FixedPoint

__all__ = ["Curve", "Plan", "plan_of"]

_EXACT = Context(prec=60)
_HALF, _ONE, _TWO = Decimal("0.5"), Decimal(1), Decimal(2)
# Places in an octave are multiples of 2^-8.
_GRID_BITS = 8
_RELATIVE = _TWO**-19
_CUTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
# Widths of the exponential's pieces.
_WIDTHS = (Decimal(2), _ONE, _HALF, Decimal("0.25"))
# The largest error relative to the result that is accepted.
_COARSEST = 2.0**-10
_D_BITS = 32
_LEAST_D_BITS = 24


@dataclass(frozen=True)
class Curve:
    """A function: x^p, log x or exp x.

    Attributes
    ----------
    name : str
        For messages and costs.
    kind : {"power", "log", "exp"}
    exponent : float
        p, of a power.
    """

    name: str
    kind: Literal["power", "log", "exp"]
    exponent: float = 0.0

    @property
    def normalises(self) -> bool:
        """Whether x is brought to [1, 2) first."""
        return self.kind != "exp"


class Piece(NamedTuple):
    """A piece: where it begins, j, middle and half-width, a_0 to a_3, whether in the domain."""

    start: int
    octave: int
    middle: Decimal
    half: Decimal
    a: tuple[Decimal, ...]
    inside: bool = True


@dataclass(frozen=True)
class Plan:
    """The pieces of a function in a format, encoded.

    Attributes
    ----------
    thresholds : tuple of int
    rows : int64 array of shape (6, pieces)
        c, m, a_0 to a_3: d = c X - m.
    outside : int64 array of shape (1, pieces)
        1 for pieces outside of the domain.
    v_bits, d_bits : int
        Fractional bits of c X, and of d.
    sizes : Sizes
    low, high : int
        The least and the largest X that is right.
    absolute, relative : float
        The error, in units of the format and relative to the result.
    """

    thresholds: tuple[int, ...]
    rows: NDArray[np.int64]
    outside: NDArray[np.int64]
    v_bits: int
    d_bits: int
    sizes: Sizes
    low: int
    high: int
    absolute: float
    relative: float


def _integer(value: Decimal, rounding: str = ROUND_HALF_EVEN) -> int:
    return int(value.to_integral_value(rounding=rounding))


def _nodes() -> list[Decimal]:
    """Return Chebyshev's nodes cos(pi / 8), cos(3 pi / 8) and their negatives."""
    root = _TWO.sqrt()
    outer, inner = ((_TWO + sign * root).sqrt() / 2 for sign in (1, -1))
    return [outer, inner, -inner, -outer]


def _cubic(
    function: Callable[[Decimal], Decimal], middle: Decimal, half: Decimal
) -> tuple[Decimal, ...]:
    """Return a_0 to a_3 of the cubic in v - middle that interpolates a function."""
    nodes = [half * node for node in _nodes()]
    table = [function(middle + node) for node in nodes]
    for order in range(1, 4):
        for k in range(3, order - 1, -1):
            table[k] = (table[k] - table[k - 1]) / (nodes[k] - nodes[k - order])
    # From Newton's form to powers.
    a = [Decimal(0)] * 4
    for k in range(3, -1, -1):
        a = [shifted - nodes[k] * own for shifted, own in zip([Decimal(0), *a[:3]], a, strict=True)]
        a[0] += table[k]
    return tuple(a)


def _function(curve: Curve) -> tuple[Callable[[Decimal], Decimal], Decimal, Decimal]:
    """Return v^p or log v, and the factor and power of v of its fourth derivative."""
    if curve.kind == "log":
        return Decimal.ln, Decimal(6), Decimal(-4)
    p = Decimal(curve.exponent)
    return lambda v: v**p, abs(p * (p - 1) * (p - 2) * (p - 3)), p - 4


@lru_cache(maxsize=256)
def _octave(
    curve: Curve, cuts: int
) -> tuple[tuple[int, Decimal, Decimal, tuple[Decimal, ...]], ...]:
    """Return start, middle, half-width and cubic of each piece of [1, 2); starts in units of 2^-8."""
    function = _function(curve)[0]
    places = [_integer(_TWO ** (Decimal(k) / cuts) * 2**_GRID_BITS) for k in range(cuts + 1)]
    found = []
    for low, high in pairwise(places):
        middle, half = (Decimal(n) / 2 ** (_GRID_BITS + 1) for n in (low + high, high - low))
        found.append((low, middle, half, _cubic(function, middle, half)))
    return tuple(found)


@lru_cache(maxsize=256)
def _remainder(curve: Curve, cuts: int) -> Decimal:
    _, factor, power = _function(curve)
    return max(
        factor * max((middle - half) ** power, (middle + half) ** power) * half**4 / 192
        for _, middle, half, _ in _octave(curve, cuts)
    )


def _fewest(curve: Curve, tolerance: Decimal) -> int:
    for cuts in _CUTS:
        if _remainder(curve, cuts) <= tolerance:
            return cuts
    raise ArgumentError(f"the exponent must be smaller in magnitude, got {curve.exponent:g}")


def _octaves(curve: Curve, place: int, form: FixedPoint, low: int, high: int) -> Iterator[Piece]:
    """Yield the pieces of a power or the logarithm for X from `low` to `high`."""
    unit, p = _TWO**-form.frac_bits, Decimal(curve.exponent)
    for j in range(low.bit_length() - 1, high.bit_length()):
        log = curve.kind == "log"
        scale = _TWO ** (p * (j - place)) if curve.kind == "power" else _ONE
        shift = (j - place) * _TWO.ln() if log else Decimal(0)
        if log:
            ends = [shift, shift + _TWO.ln()]
            least = Decimal(0) if ends[0] * ends[1] <= 0 else min(map(abs, ends))
        else:
            least = min(scale, scale * _TWO**p)
        cuts = _fewest(curve, max(unit / 2, least * _RELATIVE) / scale)
        pieces = _octave(curve, cuts)
        starts = [-(-(start << j) >> _GRID_BITS) for start, *_ in pieces]
        for start, end, piece in zip(starts, [*starts[1:], 2 << j], pieces, strict=True):
            if max(start, low) >= min(end, high + 1):
                continue
            a0, *rest = (scale * a for a in piece[3])
            yield Piece(max(start, low), j, piece[1], piece[2], (a0 + shift, *rest))


def _strips(place: int, form: FixedPoint, low: Decimal, high: Decimal) -> Iterator[Piece]:
    """Yield the pieces of the exponential between multiples of 1/4, the highest first."""
    unit = _TWO**-form.frac_bits
    right = high
    while right > low:
        for width in _WIDTHS:
            half = width / 2
            # Relative to the least result on the piece.
            remainder = width.exp() * half**4 / 192
            if remainder <= max(unit / 2 / (right - width).exp(), _RELATIVE):
                break
        middle = right - half
        start = _integer((right - width) * 2**place, ROUND_CEILING)
        yield Piece(start, 0, middle, half, _cubic(Decimal.exp, middle, half))
        right -= width


def _domain(curve: Curve, place: int, form: FixedPoint, bound: int) -> tuple[int, int]:
    """Return the least and the largest X with a result in the format."""
    if curve.kind == "log":
        return 1, bound
    if curve.kind == "exp":
        return -bound, _integer(form.int_bits * _TWO.ln() * 2**place, ROUND_FLOOR)
    p = Decimal(curve.exponent)
    if p > 0 and form.int_bits / p + place > LIMIT_BITS:
        return 1, bound  # far from the edge, which may be too large a number
    edge = _TWO ** (form.int_bits / p + place)
    if p < 0:
        return _integer(edge, ROUND_FLOOR) + 1, bound
    return 1, _integer(edge, ROUND_CEILING) - 1


_EMPTY = (Decimal(0),) * 4
_OUTSIDE = Piece(0, 0, Decimal(0), Decimal(0), _EMPTY, False)
_ZERO = _OUTSIDE._replace(inside=True)


def _pieces(curve: Curve, place: int, form: FixedPoint, bound: int) -> tuple[list[Piece], int, int]:
    """Return all pieces of x >= 0, or of any x for the exponential, and the domain."""
    low, high = _domain(curve, place, form, bound)
    if curve.kind == "exp":
        # Below, the result is less than half a unit of the format.
        least = max(-((form.frac_bits + 1) * _TWO.ln()), -Decimal(bound) / 2**place)
        left = (least * 4).to_integral_value(ROUND_FLOOR) / 4
        right = (Decimal(min(high, bound)) / 2**place * 4).to_integral_value(ROUND_CEILING) / 4
        strips = reversed(list(_strips(place, form, left, max(right, left + 1))))
        # Of strips that begin between the same whole numbers, the last one.
        pieces = [_ZERO, *{piece.start: piece for piece in strips}.values()]
    else:
        first = _ZERO if curve.kind == "power" and curve.exponent > 0 else _OUTSIDE
        pieces = [first, *_octaves(curve, place, form, low, min(high, bound))]
    if high < bound:
        pieces.append(_OUTSIDE._replace(start=max(high, low - 1) + 1))
    elif len(pieces) == 1:
        pieces.append(_OUTSIDE._replace(start=low))
    return pieces, low, high


def _sizes(pieces: list[Piece], frac_bits: int, d_bits: int) -> Sizes:
    unit, d_unit = 1 << frac_bits, 1 << d_bits
    d = a = e = height = Decimal(0)
    for piece in pieces:
        a0, a1, a2, a3 = map(abs, piece.a)
        half = piece.half
        d, a, e = max(d, half), max(a, a1, a3), max(e, a2 + half * a3)
        height = max(height, a0 + half * (a1 + half * (a2 + half * a3)))
    widest, steepest, bend = (
        _integer(d * d_unit) + 4,
        _integer(a * unit) + 4,
        _integer(e * unit) + 4,
    )
    # Rounding adds a few units of the format, and what units of d and d^2 make.
    most = _integer(height * unit * d_unit) + (8 << d_bits) + 2 * (bend + steepest)
    return Sizes(widest, steepest, (widest * widest >> d_bits) + 2, bend, most)


def _errors(
    curve: Curve, pieces: list[Piece], unit: int, v_bits: int, d_bits: int
) -> tuple[float, float]:
    """Return the error in units of the format, and that relative to the result."""
    absolute = relative = Decimal(0)
    lost = _TWO**-d_bits
    for piece in pieces:
        d = piece.half
        a0, a1, a2, a3 = map(abs, piece.a)
        units = (d + d**3) / 2 + d * d
        # For d^2, and for d if c X is truncated.
        bend = (a2 + d * a3) * lost + (a1 * lost if v_bits > d_bits else 0)
        if curve.kind == "log":  # which crosses zero
            units += bend * unit
        elif a0:
            relative = max(relative, bend / (a0 - d * (a1 + d * (a2 + d * a3))))
        absolute = max(absolute, units)
    return float(absolute + _HALF + 1), float(relative + _RELATIVE)


@lru_cache(maxsize=64)
def plan_of(curve: Curve, place: int, form: FixedPoint, bound: int) -> Plan:
    """Return the plan for values with `place` fractional bits, up to `bound` in magnitude.

    Raises
    ------
    RangeError
        If the format has no room for the function, or results would be off by more than 2^-10 of
        themselves.
    ArgumentError
        If an exponent is too large.
    """
    with localcontext(_EXACT):
        pieces, low, high = _pieces(curve, place, form, bound)
        v_bits = max(piece.octave for piece in pieces) if curve.normalises else _D_BITS
        v_bits = max(v_bits, _LEAST_D_BITS)
        for d_bits in range(min(v_bits, _D_BITS), 0, -1):
            sizes = _sizes(pieces, form.frac_bits, d_bits)
            if sizes.largest(d_bits) <= LARGEST:
                break
        else:
            raise RangeError(
                f"{curve.name} has no room in a format with int_bits = {form.int_bits}"
            )
        if not curve.normalises and d_bits < place:
            raise RangeError(
                f"{curve.name} has no room for {place} fractional bits in a format with int_bits ="
                f" {form.int_bits}"
            )
        if not curve.normalises:
            v_bits = d_bits
        errors = _errors(curve, pieces, 1 << form.frac_bits, v_bits, d_bits)
        if errors[1] > _COARSEST:
            raise RangeError(
                f"{curve.name} has no room in a format with frac_bits = {form.frac_bits} and int_bits ="
                f" {form.int_bits}: a result could be off by {errors[1]:.1g} of itself, and at most"
                f" {_COARSEST:.1g} is accepted; take fewer integer bits"
            )
        rows = [_row(piece, form.frac_bits, v_bits, d_bits) for piece in pieces]
    starts = [piece.start for piece in pieces[1:]]
    outside = [int(not piece.inside) for piece in pieces]
    if curve.normalises and pieces[0].inside:
        # Below zero.
        rows.insert(0, [0] * 6)
        outside.insert(0, 1)
        starts.insert(0, 0)
    return Plan(
        tuple(starts), np.array(rows, np.int64).T, np.array([outside], np.int64), v_bits, d_bits,
        sizes, low, high, *errors,
    )  # fmt: skip


def _row(piece: Piece, frac_bits: int, v_bits: int, d_bits: int) -> list[int]:
    unit, both = 2**frac_bits, 2 ** (frac_bits + d_bits)
    a = [_integer(value * places) for value, places in zip(piece.a, (both, unit) * 2, strict=True)]
    scale = 1 << v_bits - piece.octave if any(piece.a) else 0
    return [scale, _integer(piece.middle * 2**d_bits), *a]
