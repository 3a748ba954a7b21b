"""The natural logarithm of x in a public range [1, k].

For k <= 32, with a provider: polynomials that one opening chooses, :mod:`mpc.protocols.bounded`: 2 rounds.
For k <= 32, two parties alone, for whom nobody deals tables: Chebyshev polynomials.
1. u = (2 x - k - 1) / (k - 1), in [-1, 1], truncated.
2. T_1(u) ... T_N(u), N a power of two, by T_(m + i) = 2 T_m T_i - T_(m - i) for i = 1 ... m, all at once.
3. With q = (sqrt(k) - 1) / (sqrt(k) + 1) and A = (k - 1) / (4 q):
   log x = log A - 2 sum of (-q)^n T_n(u) / n. Exact as a series; truncated.
For k up to 2^16: j and x / 2^j in [1, 2] as in :mod:`mpc.protocols.reciprocal`, 5 rounds; then
j log 2 + log(x / 2^j), as above for k = 2: 2 rounds.
The range is known here, so that up to k = 32 nothing has to be compared; of any x > 0:
:mod:`mpc.protocols.normalised`.
All values have 24 fractional bits. N is chosen so that the truncated tail of the series stays below
2^-17: N = 16 for k = 10. x may lie outside of [1, k] by 2^-20 x.
Error: at most 3e-6; without a provider 2^-17, and 3e-6 from truncations. Measured over the whole range by
the tests.
Cost: that of :mod:`mpc.protocols.bounded`. For k > 32: 7 rounds.

Source: of the series the generating function of Chebyshev's polynomials; on shares as in MP-SPDZ and
CrypTen, which use other polynomials.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.secret_value import Secret
from mpc.protocols import bounded, linear, product, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.reciprocal import cost_of_normalise, normalise, normalised
from mpc.protocols.thresholds import choose

__all__ = ["FRAC_BITS", "cost", "log"]

# Fractional bits of x and of the result.
FRAC_BITS = 24
_SCALE_BITS = 30


@lru_cache(maxsize=16)
def _series(k: int) -> tuple[int, NDArray[np.uint64]]:
    """Return log A with 48 bits and the factors of T_1 ... T_N with 24, as integers."""
    # Decimal arithmetic is the same on every machine, which parties rely on.
    with localcontext() as context:
        context.prec = 40
        root = Decimal(k).sqrt()
        q = (root - 1) / (root + 1)
        degree = 2
        while 2 * q ** (degree + 1) / ((degree + 1) * (1 - q)) > Decimal(2) ** -17:
            degree *= 2
        factors = [-2 * (-q) ** n / n for n in range(1, degree + 1)]
        constant = int(((k - 1) / (4 * q)).ln() * (1 << 2 * FRAC_BITS))
        integers = [round(f * (1 << FRAC_BITS)) for f in factors]
    return constant, np.array(integers, np.int64).view(np.uint64)


@lru_cache(maxsize=1)
def _log_2() -> int:
    """Return log 2 as an integer."""
    with localcontext() as context:
        context.prec = 40
        return round(Decimal(2).ln() * (1 << FRAC_BITS))


def cost(parties: int, size: int, k: int) -> Spent:
    """Declare the cost for `size` elements in [1, k]."""
    if normalised(k):
        return cost_of_normalise(parties, size, k) + cost(parties, size, 2)
    return bounded.cost(parties, size, k)


def log(x: Secret, k: int) -> Secret:
    """Return log(x), for x of shape (size,) with FRAC_BITS fractional bits, in [1, k]."""
    with x.session.protocol("log"):
        powers = normalised(k)
        if not powers:
            return _direct(x, k)
        scaled, _, numbers = normalise(x, k)
        values = np.array([[j * _log_2() for j in range(len(powers) + 1)]])
        power = choose(x.session, numbers, values)[:, 0]
        log_of_power = x.derive(power, frac_bits=FRAC_BITS, bound=int(values[0, -1]))
        return linear.add(_direct(scaled, 2), log_of_power)


def _direct(x: Secret, k: int) -> Secret:
    if bounded.takes(x.session, k):
        return bounded.evaluate(x, k, "log")
    constant, factors = _series(k)
    one = 1 << FRAC_BITS
    near = one + 64
    bits = FRAC_BITS + _SCALE_BITS
    scale = (2 << _SCALE_BITS) // (k - 1)
    middle = scale * ((k + 1) << (FRAC_BITS - 1))
    x = x.with_integer_bound((k << FRAC_BITS) + (k << 5))
    u = linear.add_integer(linear.rescale(x, scale, bits, x.bound * scale), -middle)
    u = truncation.truncate(u.with_integer_bound(near << _SCALE_BITS), _SCALE_BITS)
    powers = linear.stack([u])
    while len(powers) < len(factors):
        count = len(powers)
        mask_ahead(powers)
        twice = product.multiply(powers, powers[count - 1 :], whole=True)
        products = truncation.truncate(twice, FRAC_BITS - 1).shares
        # T_0 = 1 for i = m, else T_(m - i).
        products[:, : count - 1] -= powers.shares[:, : count - 1][:, ::-1]
        if x.session.first_row is not None:
            products[x.session.first_row, count - 1] -= np.uint64(one)
        more = powers.derive(products, frac_bits=FRAC_BITS, bound=2 * one)
        powers = linear.concatenate([powers, more])
    total = (powers.shares * factors[:, None]).sum(axis=1, dtype=np.uint64)
    # The factors add up to 2 log(1 / (1 - q)), less than 3.
    series = x.derive(total, frac_bits=2 * FRAC_BITS, bound=3 << 2 * FRAC_BITS)
    return truncation.truncate(linear.add_integer(series, constant), FRAC_BITS)
