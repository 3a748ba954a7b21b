"""(s x)^(-p) of a secret x in a public range, for a public scale s and exponent p, 0 < p <= 1.

x has f fractional bits and is at least one unit. With the powers of two 2^j in the range:
1. The bits [x < 2^j] from one opening choose c = 2^(J - j), with which c x lies in [2^J, 2^(J + 1)], and
   w = (s 2^(j - f))^(-p): :mod:`mpc.protocols.thresholds`. 3 rounds.
2. v = c x in [1, 2) with 24 fractional bits: a product and its truncation. 2 rounds.
3. v^(-p), by a polynomial of degree 7 in d = v - 3/2, with public coefficients: d^2, 2 rounds; d^3 and d^4,
   2 rounds; d^5, d^6 and d^7, 2 rounds; their sum, truncated, 1 round.
4. v^(-p) w, truncated. 2 rounds.
The result has at most 30 fractional bits, as many as leave it below 2^37 units.
Cost: 14 rounds for a range wider than 2^24; the powers of two take 8 bytes of correction each. A network
takes one for each row that it normalises, so rounds count and bytes do not.
Error: 2^-19 relative, from the polynomial and the truncations, and two units of the result's last place.
Measured by the tests over the whole range.

Coefficients and w are computed in decimal arithmetic of 40 digits, so that every machine rounds alike: by
interpolation at Chebyshev points.

Source: normalisation by the highest bit as in Catrina, Saxena 2010, section 3.4, with all thresholds read
from one opening.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.secret_value import Secret
from mpc.protocols import linear, product, thresholds, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.sign import count_bits

__all__ = ["cost", "inverse_power", "result_bits"]

Ints = NDArray[np.int64]

# Fractional bits of v and of its powers.
_BITS = 24
_ONE = 1 << _BITS
# Chebyshev points of [-1/2, 1/2], in units of 2^-20: one more than the polynomial's degree.
_PLACES = (-514214, -435930, -291279, -102284, 102284, 291279, 435930, 514214)
# The result and v^(-p) have to leave room for their product.
_MOST_BITS, _ROOM = 30, 37
_CONTEXT = Context(prec=40)


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


@lru_cache(maxsize=32)
def _coefficients(exponent: Fraction) -> tuple[int, ...]:
    """Return the coefficients of v^(-p) in powers of v - 3/2, in units of 2^-24."""
    with localcontext(_CONTEXT):
        places, count = [Fraction(n, 1 << 20) for n in _PLACES], len(_PLACES)
        power = -_decimal(exponent)
        values = [(_decimal(d) + Decimal("1.5")) ** power for d in places]
        total = [Decimal(0)] * count
        for k, (place, value) in enumerate(zip(places, values, strict=True)):
            basis = [Fraction(1)]
            for m, other in enumerate(places):
                if m != k:
                    shifted = [Fraction(0), *basis]
                    basis = [
                        a - other * b for a, b in zip(shifted, [*basis, Fraction(0)], strict=True)
                    ]
                    basis = [b / (place - other) for b in basis]
            total = [t + value * _decimal(b) for t, b in zip(total, basis, strict=True)]
        return tuple(int((t * _ONE).to_integral_value()) for t in total)


def _powers(least: int, bound: int) -> list[int]:
    """Return the exponents of the powers of two between the ends of the range of the encoded x."""
    return list(range(max(1, least).bit_length() - 1, bound.bit_length()))


def result_bits(frac_bits: int, least: int, exponent: Fraction, scale: Fraction) -> int:
    """Return the fractional bits of the result, for x of `frac_bits` and at least `least`, encoded."""
    with localcontext(_CONTEXT):
        start = _decimal(scale * Fraction(1 << (max(1, least).bit_length() - 1), 1 << frac_bits))
        largest = start ** -_decimal(exponent)
        above = 0
        while Decimal(2) ** above <= largest:
            above += 1
        return max(0, min(_MOST_BITS, _ROOM - above))


def _weights(
    powers: list[int], frac_bits: int, exponent: Fraction, scale: Fraction, bits: int
) -> list[int]:
    """Return w for each power of two, with `bits` fractional bits."""
    with localcontext(_CONTEXT):
        bases = (scale * Fraction(1 << j, 1 << frac_bits) for j in powers)
        power, unit = -_decimal(exponent), Decimal(1 << bits)
        return [int((_decimal(base) ** power * unit).to_integral_value()) for base in bases]


def cost(parties: int, size: int, least: int, bound: int) -> Spent:
    """Declare the cost for `size` elements, encoded from `least` to `bound`."""
    powers = _powers(least, bound)
    top, limits = max(powers[-1], _BITS), [1 << j for j in powers[1:]]
    total = Spent()
    if limits:
        window = count_bits(bound + limits[-1])
        total = thresholds.cost(parties, size, window, len(limits))
    total = total + product.cost(parties, 2 * size, 0 if top > _BITS else size)
    if top > _BITS:
        total = total + truncation.cost(parties, size, top - _BITS)
    for opened, count in ((1, 1), (2, 2), (4, 3)):
        total = total + product.cost(parties, opened * size)
        total = total + truncation.cost(parties, count * size, _BITS)
    total = total + truncation.cost(parties, size, _BITS)
    return total + product.cost(parties, 2 * size) + truncation.cost(parties, size, _BITS)


def inverse_power(x: Secret, exponent: Fraction, scale: Fraction, least: int) -> Secret:
    """Return (scale x)^(-exponent), for x from `least` units on; its bound is the public range's.

    Raises
    ------
    RangeError
        If `exponent` is not in (0, 1], or `scale` and `least` are not above 0.
    """
    if not 0 < exponent <= 1 or scale <= 0 or least < 1:
        raise RangeError(
            f"exponent must be in (0, 1], scale and least above 0, got {exponent}, {scale}, {least}"
        )
    shape, frac_bits = x.shape, x.frac_bits
    powers = _powers(least, x.bound)
    bits = result_bits(frac_bits, least, exponent, scale)
    weights = _weights(powers, frac_bits, exponent, scale, bits)
    with x.session.protocol("inverse power"):
        flat = x.view(("reshape", (x.size,)))
        v, w = _normalised(flat, powers, weights, bits)
        y = _polynomial(v, _coefficients(exponent))
        mask_ahead(y, w)
        result = truncation.truncate(product.multiply(y, w, whole=True), _BITS)
        return result.with_integer_bound(weights[0] + 4).view(("reshape", shape))


def _normalised(
    x: Secret, powers: list[int], weights: list[int], bits: int
) -> tuple[Secret, Secret]:
    """Steps 1 and 2: v with _BITS fractional bits, and w with `bits`."""
    top = max(powers[-1], _BITS)
    limits = [1 << j for j in powers[1:]]
    rows = np.array([[1 << (top - j) for j in powers], weights], np.int64)
    if limits:
        numbers = thresholds.below(x, limits)
    else:
        numbers = np.zeros((len(x.session.here), 0, x.size), np.uint64)
    chosen = thresholds.choose(x.session, numbers, rows)
    c, w = (np.ascontiguousarray(words) for words in chosen.transpose(1, 0, 2))
    # c x is below 2^(top + 1), which their bounds do not say.
    v = product.multiply_within(x, x.derive(c, frac_bits=0, bound=1), (2 << top) - 1, top)
    if top > _BITS:
        v = truncation.truncate(v, top - _BITS)
    return v, x.derive(w, frac_bits=bits, bound=max(weights))


def _polynomial(v: Secret, coefficients: tuple[int, ...]) -> Secret:
    """Step 3: the polynomial in v - 3/2, with _BITS fractional bits."""
    half = (_ONE >> 1) + 2
    d = linear.add_integer(v, -3 * _ONE // 2).with_integer_bound(half)
    square = truncation.truncate(product.multiply(d, d, whole=True), _BITS)
    # Views of a masked array keep its mask, so each power is opened once more for each product.
    both = linear.stack([d, square])
    mask_ahead(both)
    higher = truncation.truncate(product.multiply(both, both[1:], whole=True), _BITS)
    four = linear.concatenate([both, higher])
    mask_ahead(four)
    rest = product.multiply(four[:3], four[3:], whole=True)
    powers = linear.concatenate([four, truncation.truncate(rest, _BITS)])
    total = linear.add_integer(linear.zeros_like(v), coefficients[0] << _BITS)
    words = total.shares.copy()
    for k, factor in enumerate(coefficients[1:]):
        words += powers.shares[:, k] * np.uint64(factor % 2**64)
    y = v.derive(words, frac_bits=2 * _BITS, bound=2 << 2 * _BITS)
    return truncation.truncate(y, _BITS).with_integer_bound(_ONE + (_ONE >> 10))
