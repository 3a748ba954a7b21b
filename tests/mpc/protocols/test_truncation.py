"""Truncation: within one unit, unbiased, and never a wrap-around."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.protocols import truncation
from mpc.protocols.truncation import divide_by_power
from tests.helpers.chances import ALARM, chance_of_count

SHIFTS = [1, 2, 7, 13, 16, 31, 32, 45, 60, 61]

values = st.integers(-(2**62) + 1, 2**62 - 1)


@pytest.mark.parametrize("shift", SHIFTS)
def test_edges_are_off_by_less_than_one(session, share_integers, wide_edges, shift):
    for _ in range(3):
        x = share_integers(session, wide_edges)
        error = divide_by_power(x, shift, 0).reveal() - (wide_edges >> shift)
        exact = wide_edges % 2**shift == 0
        assert np.all((error == 0) | ((error == 1) & ~exact))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(some=st.lists(values, min_size=1, max_size=70), shift=st.integers(1, 61))
def test_any_value_is_off_by_less_than_one(session, share_integers, some, shift):
    x = share_integers(session, some)
    y = divide_by_power(x, shift, 0).reveal()
    for got, z in zip(y.tolist(), some, strict=True):
        assert got == z >> shift or (got == (z >> shift) + 1 and z % 2**shift)


@pytest.mark.dealt
@settings(deadline=None, max_examples=30, derandomize=True)
@given(some=st.lists(values, min_size=1, max_size=70), shift=st.integers(1, 61))
def test_the_low_bits_of_r_say_which_way_it_rounds(session, share_integers, tap, some, shift):
    x = share_integers(session, some)
    with tap(session) as heard:
        y = divide_by_power(x, shift, 0)
    ((_, _, words),) = heard.dealt
    r = words[:, : len(some)].sum(axis=0, dtype=np.uint64)
    want = [(z + int(mask) % 2**shift) >> shift for z, mask in zip(some, r, strict=True)]
    assert y.reveal().tolist() == want


@pytest.mark.parametrize("numerator", [0, 1, 16384, 32768, 49152, 65535])
@pytest.mark.parametrize("whole", [0, 12345, -12345, 2**45, -(2**45)])
def test_the_rounding_error_has_mean_zero(session, share_integers, whole, numerator):
    n, shift = 100_000, 16
    z = (whole << shift) + numerator
    x = share_integers(session, np.full(n, z))
    ups = divide_by_power(x, shift, 0).reveal() - whole
    assert set(np.unique(ups)) <= {0, 1}
    # Rounds up with probability (z mod 2^s) / 2^s, which may be so small that it happens once or twice.
    assert chance_of_count(ups.sum(), n, numerator / 2**shift) > ALARM


def test_the_rounding_error_has_mean_zero_over_arbitrary_values(session, share_integers):
    n, shift = 1_000_000, 16
    z = np.random.default_rng(1).integers(-(2**47), 2**47, n)
    y = divide_by_power(share_integers(session, z), shift, 0).reveal()
    fraction = (z % 2**shift) / 2**shift
    error = (y - (z >> shift)) - fraction
    deviation = np.sqrt((fraction * (1 - fraction)).sum())
    assert abs(error.sum()) <= 7 * deviation
    # Nor does it depend on the sign, as it does for a truncation toward zero.
    for some in (z < 0, z >= 0):
        assert abs(error[some].sum()) <= 7 * deviation


@pytest.mark.parametrize(("parties", "millions"), [(2, 10), (3, 1), (5, 1)])
def test_not_one_wrap_around_in_ten_million(share_integers, parties, millions):
    random = np.random.default_rng(2)
    names = ("alice", "bob", "carol", "dave", "erin")[:parties]
    with mpc.Session(names) as s:
        for _ in range(millions):
            # As large as allowed, where a truncation that can wrap around does so every time.
            z = random.integers(2**61, 2**62, 1_000_000)
            np.negative(z, where=random.random(z.size) < 0.5, out=z)
            y = divide_by_power(share_integers(s, z), 16, 0).reveal()
            y -= z >> 16
            assert y.min() >= 0
            assert y.max() <= 1


def test_truncate_returns_to_the_format(session, integers):
    a = np.array([1.5, -2.25, 0, 100.125])
    x = session.share(a, owner="alice")
    assert x.truncate() is x
    product = x * x
    y = product.truncate()
    assert y.frac_bits == 16
    assert y.bound == -(-product.bound >> 16)
    np.testing.assert_array_equal(y.reveal(), a * a)
    np.testing.assert_array_equal(integers(y), a * a * 2**16)
    whole = session.share(np.array([5]), owner="bob")
    assert whole.truncate() is whole


def test_bounds_after_truncation_hold(session, share_integers):
    for z in (1, 2**16, 2**16 + 1, 2**40 - 1, 2**61 + 1):
        for sign in (1, -1):
            x = share_integers(session, np.full(200, sign * z), bound=z)
            y = divide_by_power(x, 16, 0)
            assert np.abs(y.reveal()).max() <= y.bound


@pytest.mark.parametrize("shift", [0, 62, 64, -1])
def test_shifts_out_of_range_are_refused(session, shift):
    x = session.share([1.0], owner="alice")
    before = session.cost()
    with pytest.raises(mpc.ArgumentError, match=rf"shift must be in \[1, 61\], got {shift}"):
        divide_by_power(x, shift, 0)
    assert session.cost() == before


def test_more_bits_than_there_are_cannot_be_dropped(session):
    x = session.share([1.0], owner="alice")
    with pytest.raises(mpc.ArgumentError, match="fractional bits of x, 16, got 17"):
        truncation.truncate(x, 17)
