"""Rows over the root of their mean square, from the smallest values to the largest."""

import numpy as np
import pytest

import mpc
from mpc.protocols import root_mean_square

UNIT = 2.0**-16


def rows_of(count, bits=30):
    """Rows whose values reach each power of two, up to 2^bits units, and its neighbours."""
    random, rows = np.random.default_rng(count), []
    for k in range(bits + 1):
        row = random.integers(-(1 << k), (1 << k) + 1, count)
        row[0] = 1 << k
        rows += [row, np.where(np.arange(count) == 1, 1 << k, 0), np.full(count, (1 << k) - 1)]
    return np.array(rows, np.int64)


def wanted_of(values, epsilon):
    return values / np.sqrt((values**2).mean(axis=1, keepdims=True) + epsilon)


@pytest.mark.parametrize("count", [2, 64])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_over_all_magnitudes(session, share_integers, integers, count, epsilon):
    raw = rows_of(count)
    x = share_integers(session, raw, 16, bound=1 << 30)
    y = root_mean_square.over_root_mean_square(x, epsilon)
    assert y.frac_bits == 16
    wanted = wanted_of(raw * UNIT, epsilon)
    error = np.abs(integers(y) * UNIT - wanted)
    assert (error <= 2.0**-17 * np.abs(wanted) + 2 * UNIT).all()
    assert np.abs(integers(y)).max() <= y.bound


def test_a_small_bound_takes_one_sum(share_integers, integers, spent):
    raw = rows_of(8, 20)
    with mpc.Session() as s:
        rounds = []
        for bound in (1 << 20, 1 << 31):
            x = share_integers(s, raw, 16, bound=bound)
            found = []
            cost = spent(
                s, lambda x=x: found.append(root_mean_square.over_root_mean_square(x, 0.1))
            )
            rounds.append(cost.rounds)
            wanted = wanted_of(raw * UNIT, 0.1)
            error = np.abs(integers(found[0]) * UNIT - wanted)
            assert (error <= 2.0**-17 * np.abs(wanted) + 2 * UNIT).all()
    assert rounds == [18, 26]


def test_a_bound_that_leaves_no_room():
    with mpc.Session(frac_bits=2, int_bits=29) as s:
        x = s.share(np.ones((2, 8)), owner="alice")
        with pytest.raises(mpc.RangeError, match="leaves no room for a fractional bit"):
            root_mean_square.over_root_mean_square(x, 1e-5)
        assert s.cost().rounds == 0
