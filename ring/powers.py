"""Powers of b = e^(16/23) as integers, the same on every machine, for exponentials.

e^d = b^y with y = 23 d / 16, and b^16 is a little above 2^16. Exponents have 20 fractional bits.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ring.compile import kernel

__all__ = ["LOW_BITS", "UNITS", "UNIT_BITS", "Y_BITS", "power", "power_tables"]

Words = NDArray[np.uint64]

UNITS = 23
UNIT_BITS = 4
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
    return product >> (np.uint64(61 - 32 - bits) + table[row + 1, high])
