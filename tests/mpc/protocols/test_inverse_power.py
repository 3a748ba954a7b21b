"""Inverse powers of secrets, over whole public ranges."""

from fractions import Fraction

import numpy as np
import pytest

import mpc
from mpc.protocols import inverse_power

HALF = Fraction(1, 2)
# Bound, least, fractional bits, exponent and scale.
RANGES = [
    (2**62 - 1, 1, 32, HALF, Fraction(1)),
    (2**40, 2**15 + 7, 32, HALF, Fraction(1, 60)),
    (2**36, 2**30, 30, Fraction(3, 4), Fraction(1, 50000)),
    (2**25 - 1, 2**24, 24, Fraction(1), Fraction(1)),
    (2**30 - 1, 2**29 + 5, 20, HALF, Fraction(3)),
    (200, 1, 4, Fraction(1, 3), Fraction(1)),
]


def values_of(bound, least):
    """Return both ends, powers of two and their neighbours, and numbers between."""
    powers = 1 << np.arange(least.bit_length(), bound.bit_length(), dtype=np.int64)
    random = np.exp(np.random.default_rng(0).uniform(np.log(least), np.log(bound), 200))
    found = np.concatenate(
        [powers - 1, powers, powers + 1, random.astype(np.int64), [least, bound]]
    )
    return np.unique(np.clip(found, least, bound))


@pytest.mark.parametrize("case", RANGES, ids=lambda c: f"{c[0].bit_length()} bits to {c[3]}")
def test_over_the_range(session, share_integers, integers, case):
    bound, least, frac_bits, exponent, scale = case
    values = values_of(bound, least)
    x = share_integers(session, values, frac_bits, bound)
    y = inverse_power.inverse_power(x, exponent, scale, least)
    found, unit = integers(y).astype(float), 2.0**y.frac_bits
    wanted = (values / 2.0**frac_bits * float(scale)) ** -float(exponent) * unit
    assert (np.abs(found - wanted) <= wanted * 2.0**-19 + 2).all()
    assert found.max() <= y.bound < 2**37 + 5
    assert y.frac_bits == inverse_power.result_bits(frac_bits, least, exponent, scale)


@pytest.mark.dealt
@pytest.mark.parametrize("case", RANGES[:5], ids=str)
def test_declared_cost(fresh_session, share_integers, spent, case):
    bound, least, frac_bits, exponent, scale = case
    x = share_integers(fresh_session, values_of(bound, least), frac_bits, bound)
    wanted = inverse_power.cost(fresh_session.size, x.size, least, bound)
    assert spent(
        fresh_session, lambda: inverse_power.inverse_power(x, exponent, scale, least)
    ) == wanted  # fmt: skip


def test_what_is_refused():
    with mpc.Session() as s:
        x = s.share([1.0], owner="alice")
        for exponent, scale, least in ((Fraction(2), 1, 1), (HALF, 0, 1), (HALF, 1, 0)):
            with pytest.raises(mpc.RangeError, match=r"exponent must be in \(0, 1\]"):
                inverse_power.inverse_power(x, exponent, Fraction(scale), least)
        assert s.cost().rounds == 0
