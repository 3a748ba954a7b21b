"""Powers of b = e^(16/22) as integers, the same on every machine, for exponentials.

e^d = b^y with y = 22 d / 16, and b^16 is below 2^17. Exponents have 20 fractional bits.
There are two ways. :func:`power` reads large tables at the exponent: two products, and the address shows
the exponent to whoever watches the cache, so that it is for one that is public or the provider's own mask.
:func:`hidden_power` takes the same time and memory for every exponent, and a share may be one. Their last
bits differ.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ring.compile import kernel

__all__ = [
    "LOG_OF_BASE",
    "LOW_BITS",
    "UNITS",
    "UNIT_BITS",
    "Y_BITS",
    "hidden_power",
    "power",
    "power_tables",
]

Words = NDArray[np.uint64]

UNITS = 22
UNIT_BITS = 4
LOG_OF_BASE = Decimal(1 << UNIT_BITS) / Decimal(UNITS)
"""log b, to 28 digits."""
Y_BITS = 20
LOW_BITS = 24
_HALF_BITS = np.uint64(LOW_BITS // 2)
_HALF = np.uint64((1 << LOW_BITS // 2) - 1)


@lru_cache(maxsize=1)
def power_tables() -> Words:
    """Return powers of b as integers, for :func:`power`.

    Row 0: b^(j / 2^20) with 31 bits behind the point, j < 2^12. Rows 1 and 2: mantissa, with 30 bits,
    and 32 minus exponent of b^(i / 2^8 + 2^-20). Rows 3 and 4: the same of b^(i / 2^8 + 2^-20 - 16).
    """
    half = LOW_BITS // 2
    table = np.empty((5, 1 << half), np.uint64)
    with localcontext() as context:
        context.prec = 40
        unit = Decimal(1 << UNIT_BITS) / Decimal(UNITS)
        fine, coarse = unit / (1 << Y_BITS), unit / (1 << (Y_BITS - half))
        whole = unit * (1 << (LOW_BITS - Y_BITS))
        steps = [(fine * j).exp() for j in range(1 << half)]
        table[0] = [int(x * (1 << 31)) for x in steps]
        for row, start in ((1, fine), (3, fine - whole)):
            for i in range(1 << half):
                value, exponent = (start + coarse * i).exp(), 0
                while value >= 2:
                    value, exponent = value / 2, exponent + 1
                while value < 1:
                    value, exponent = value * 2, exponent - 1
                table[row, i] = int(value * (1 << 30))
                table[row + 1, i] = 32 - exponent
    table.flags.writeable = False
    return table


@kernel
def power(w: np.uint64, bits: int, row: int, table: Words) -> np.uint64:
    """b^((w + 1) / 2^20), less b^16 in row 3, with `bits` bits behind the point, for w < 2^24."""
    high = w >> _HALF_BITS
    product = table[row, high] * table[0, w & _HALF]
    # The product has 61 bits behind the point, times 2^exponent.
    shift = np.uint64(61 - 32 - bits) + table[row + 1, high]
    return product + (np.uint64(1) << shift - np.uint64(1)) >> shift


def _unit() -> Decimal:
    """log b."""
    return Decimal(1 << UNIT_BITS) / Decimal(UNITS)


def _factors() -> tuple[np.uint64, ...]:
    """Return b^(2^k / 2^8) for k < 8, and (b / 2)^(2^k) for k < 4, with 31 bits behind the point."""
    with localcontext() as context:
        context.prec = 40
        half = _unit() - Decimal(2).ln()
        logs = [_unit() * (1 << k) / (1 << 8) for k in range(8)] + [
            half * (1 << k) for k in range(4)
        ]
        return tuple(np.uint64(round(x.exp() * (1 << 31))) for x in logs)


def _start(units: int) -> np.uint64:
    """Return (b / 2)^units with 31 bits behind the point."""
    with localcontext() as context:
        context.prec = 40
        return np.uint64(round(((_unit() - Decimal(2).ln()) * units).exp() * (1 << 31)))


_FACTORS = _factors()
_ONE, _LESS = _start(0), _start(-16)
# log b for exponents in units of 2^-20, with 32 bits behind the point of the exponent.
_LOG = np.uint64(round(_unit() * (1 << 32)))
_SIXTH = np.uint64(round(Decimal(1 << 32) / 6))
_WHOLE = np.uint64(1 << 31)
_TO_31 = np.uint64(1 << 30)
_TOP = np.uint64(Y_BITS)


@kernel
def hidden_power(w: np.uint64, bits: int, less: bool) -> np.uint64:
    """b^((w + 1) / 2^20), over b^16 if `less`, with `bits` bits behind the point, for w < 2^24.

    With y = top + middle / 2^8 + low / 2^20: b^y = 2^top (b / 2)^top b^(middle / 2^8) b^(low / 2^20). The
    last is a polynomial, the others are products over the bits of the exponent. About 29 bits are right.
    """
    one, bits_31 = np.uint64(1), np.uint64(31)
    # x < 2^-8, in units of 2^-40; then x + x^2 / 2 + x^3 / 6 in the same.
    x = ((w & _HALF) + one) * _LOG >> np.uint64(12)
    square = x * x >> np.uint64(32)
    more = x + (square >> np.uint64(9)) + ((square * x >> np.uint64(32)) * _SIXTH >> np.uint64(48))
    # At most 3.5 in the end, with 31 bits behind the point.
    out = _WHOLE + (more + np.uint64(1 << 8) >> np.uint64(9))
    out = out * (_LESS if less else _ONE) + _TO_31 >> bits_31
    exponents = w >> _HALF_BITS
    for k in range(11):
        bit = exponents >> np.uint64(k) & one
        out = out * (_ONE + (_FACTORS[k] - _ONE) * bit) + _TO_31 >> bits_31
    bit = exponents >> np.uint64(11)
    product = out * (_ONE + (_FACTORS[11] - _ONE) * bit)
    # 62 bits behind the point.
    shift = np.uint64(62 - bits + (16 if less else 0)) - (w >> _TOP)
    return product + (one << shift - one) >> shift
