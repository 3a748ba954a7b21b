"""Sine and cosine of a secret.

X is the encoded value, with f' fractional bits, of at most L bits; f are the format's.
1. Whole turns: q = X C / 2^k, rounded up or down as a truncation does it, with k = L + 9 and
   C = 2^k / (2 pi 2^f') rounded: 1 round (:mod:`mpc.protocols.truncation`).
2. r = x - 2 pi q, with P = f + L - f' fractional bits: local. It is in [-2 pi - 0.01, 2 pi + 0.01], and
   off by 2^(-f - 2) at most, since 2 pi is rounded to 2^-P.
3. The cubic pieces of width pi / 8 over that range: :mod:`mpc.protocols.piecewise`, 7 rounds.
Where the bound of x is below 2 pi there are no turns to take away, and steps 1 and 2 are left out.
Domain: |x| with room for X C below 2^62, which is 2 L < f' + 55; in the default format |x| < 2^19. Where
the bound of x does not show it, as that of a product, it is checked as the session's `ranges` say. x with
more fractional bits than the format's are truncated first.
Cost at L = 31, K = 33: 8 rounds, about 122 (n - 1) bytes an element; correction about 450 bytes.

Error: the pieces are within 7.8e-6; rounding adds less than 3.2 units of the format, 3.5 with step 2. In
the default format 6.4e-5 in all. Measured by the tests over the domain.

Source: reduction to a period by a truncated product as in Aly, Smart 2019, section 4.1; interpolation at
Chebyshev's four nodes, whose remainder is w^4 / 192 for half-width w.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from mpc.core.cost import Spent
from mpc.core.secret_value import Secret
from mpc.protocols import piecewise, truncation
from mpc.protocols.piecewise import ONE, Pieces, rounding_of
from mpc.protocols.sign import count_bits

__all__ = ["cost", "error_bound", "evaluate", "pieces_of"]

_DIGITS = 60
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
# Pieces to each side of zero; 16 reach 2 pi, and one more what rounding adds.
_SIDE = 17
_TURN_BITS = 9


def _sine(x: Decimal) -> Decimal:
    """Return sin x by its series, the same on every machine."""
    total, term, k = Decimal(0), x, 1
    while abs(term) > Decimal(10) ** -50:
        total += term
        k += 2
        term = -term * x * x / (k * (k - 1))
    return total


def _cosine(x: Decimal) -> Decimal:
    return _sine(_PI / 2 - x)


@lru_cache(maxsize=2)
def pieces_of(name: str) -> Pieces:
    """Return the pieces of "sin" or "cos" from -17 pi / 8 to 17 pi / 8."""
    with localcontext() as context:
        context.prec = _DIGITS
        width = _PI / 8
        near, far = (width / 2 * _cosine(_PI * k / 8) for k in (3, 1))
        # cos d and sin d by even and odd polynomials through the nodes.
        c2 = (_cosine(far) - _cosine(near)) / (far**2 - near**2)
        c0 = _cosine(near) - c2 * near**2
        s3 = (_sine(far) / far - _sine(near) / near) / (far**2 - near**2)
        s1 = _sine(near) / near - s3 * near**2
        rows: list[tuple[int, ...]] = [(0,) * 6]
        for k in range(-_SIDE, _SIDE):
            middle = width * k + width / 2
            sine, cosine = _sine(middle), _cosine(middle)
            if name == "cos":
                sine, cosine = cosine, -sine
            row = (middle, sine * c0, cosine * s1, sine * c2, cosine * s3)
            rows.append((*(int((value * ONE).to_integral_value()) for value in row), 0))
        rows.append((0,) * 6)
        places = [int((width * k * ONE).to_integral_value()) for k in range(-_SIDE, _SIDE + 1)]
        fit = float((width / 2) ** 4 / 192) + 2.0**-30
    thresholds = tuple(places)
    return Pieces(name, thresholds, tuple(rows), fit, rounding_of(thresholds, tuple(rows), 1.0))


def error_bound(name: str, frac_bits: int) -> float:
    """Return how far a result may lie from ``name``, "sin" or "cos", at its exact input."""
    return pieces_of(name).error_bound(frac_bits) + 2.0 ** (-frac_bits - 2)


def cost(parties: int, size: int, bits: int, frac_bits: int) -> Spent:
    """Declare the cost for `size` elements of `bits` bits, more than a turn has."""
    span = int((2 * _PI + Decimal("0.02")) * (1 << frac_bits))
    places = 2 * (_SIDE - 1) + 1
    window = count_bits(2 * span)
    shift = max(0, bits - frac_bits)
    return truncation.cost(parties, size, bits + _TURN_BITS) + piecewise.cost(
        parties, size, shift, window, frac_bits, places, False
    )


def _reduced(x: Secret, name: str) -> Secret:
    """Steps 1 and 2."""
    place, form = x.frac_bits, x.session.format
    most_bits = (place + 55 - 1) // 2
    limit = (1 << most_bits) - 1
    if x.bound > limit:
        about = f"{name} of values below {2.0 ** (most_bits - place):g} in magnitude"
        x.session.range_policy.settle_bound(x, limit, about)
        x = x.with_integer_bound(limit)
    bits = x.bound.bit_length()
    with localcontext() as context:
        context.prec = _DIGITS
        k = bits + _TURN_BITS
        factor = int((Decimal(2) ** (k - place) / (2 * _PI)).to_integral_value())
        most = form.frac_bits + max(0, bits - place)
        turn = int((2 * _PI * 2**most).to_integral_value())
    wide = x.derive(x.shares * np.uint64(factor), frac_bits=0, bound=x.bound * factor)
    turns = truncation.divide_by_powers(wide, [k])[0]
    words = (x.shares << np.uint64(most - place)) - turns.shares * np.uint64(turn)
    return x.derive(words, frac_bits=most, bound=turn + (turn >> 9))


def evaluate(x: Secret, name: str) -> Secret:
    """Return "sin" or "cos" of x, with twice the format's fractional bits.

    Raises
    ------
    RangeError
        If a value is outside of the domain, see the session's `ranges`.
    """
    pieces = pieces_of(name)
    with x.session.protocol(name):
        x = truncation.to_format(x)
        if x.bound << max(0, 16 - x.frac_bits) > 6 << max(16, x.frac_bits):
            x = _reduced(x, name)
        return piecewise.evaluate(x, pieces)
