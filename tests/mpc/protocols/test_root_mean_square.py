"""Rows over the root of their mean square, from the smallest values to the largest."""

from fractions import Fraction

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
    again, inverse, square = root_mean_square.with_mean_square(x, epsilon)
    assert np.abs(integers(again) - integers(y)).max() <= 3
    exact = ((raw * UNIT) ** 2).mean(axis=1, keepdims=True)
    error = np.abs(integers(square) * UNIT - exact)
    # Where the mean square is large, its elements have fewer fractional bits.
    assert (error <= UNIT + 2.0**-12 * np.sqrt(exact) * (exact > 2.0**18)).all()
    assert (integers(square) >= 0).all() and np.abs(integers(square)).max() <= square.bound
    unit, root = 2.0**-inverse.frac_bits, 1 / np.sqrt(exact + epsilon)
    assert (np.abs(integers(inverse) * unit - root) <= 2.0**-17 * root + 2 * unit).all()


def test_a_small_bound_takes_one_sum(share_integers, integers, spent):
    raw = rows_of(8, 20)
    with mpc.Session() as s:
        rounds = []
        for bound in (1 << 20, 1 << 31):
            x = share_integers(s, raw, 16, bound=bound)
            found = []
            cost = spent(
                s,
                lambda x=x, found=found: found.append(
                    root_mean_square.over_root_mean_square(x, 0.1)
                ),
            )
            rounds.append(cost.rounds)
            wanted = wanted_of(raw * UNIT, 0.1)
            error = np.abs(integers(found[0]) * UNIT - wanted)
            assert (error <= 2.0**-17 * np.abs(wanted) + 2 * UNIT).all()
    assert rounds == [17, 24]


@pytest.mark.parametrize(("count", "epsilon"), [(4, 1e-5), (8, 1e-5), (5, 3.0), (2, 2.0**40)])
def test_the_format_that_is_named_has_room_and_few_more_bits_have_none(count, epsilon):
    with mpc.Session(frac_bits=2, int_bits=40) as s:
        x = s.share(np.ones((1, count)), owner="alice")
        with pytest.raises(mpc.RangeError, match="take a format of at most") as caught:
            root_mean_square.over_root_mean_square(x, epsilon)
    bits = int(str(caught.value).split("at most ")[1].split()[0])
    for more in (0, 2):
        with mpc.Session(frac_bits=2, int_bits=bits + more) as s:
            x = s.share(np.ones((1, count)), owner="alice")
            room = Fraction(epsilon) * count
            if more:
                with pytest.raises(mpc.RangeError, match="leaves no room"):
                    root_mean_square.kept_bits(x, count, room)
            else:
                assert root_mean_square.kept_bits(x, count, room) >= 1


def test_what_is_added_to_squares_may_leave_no_room_alone():
    with mpc.Session() as s:
        x = s.share(np.ones((1, 4)), owner="alice")
        with pytest.raises(mpc.RangeError, match=r"added to them, 4e\+18, takes it"):
            root_mean_square.over_root_mean_square(x, 1e18)


def test_a_bound_that_leaves_no_room():
    with mpc.Session(frac_bits=2, int_bits=29) as s:
        x = s.share(np.ones((2, 8)), owner="alice")
        with pytest.raises(mpc.RangeError, match="leaves no room for a fractional bit"):
            root_mean_square.over_root_mean_square(x, 1e-5)
        assert s.cost().rounds == 0
