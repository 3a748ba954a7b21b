"""Sine and cosine over their domain, in several formats."""

import numpy as np
import pytest

import mpc
from mpc.protocols import trigonometry

NAMES = ("alice", "bob", "carol", "dave", "erin")
EXACT = {"sin": np.sin, "cos": np.cos}


def values(limit, unit, count=2000):
    places = np.pi / 8 * np.arange(-40, 41)
    near = np.concatenate([places, places + unit, places - unit, [limit, -limit, 0]])
    near = np.concatenate([near, np.random.default_rng(3).uniform(-limit, limit, count)])
    near = np.round(near / unit) * unit
    return near[np.abs(near) <= limit - unit]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize(
    ("frac_bits", "int_bits", "limit"),
    [(16, 15, 2**15), (16, 15, 6), (8, 20, 2**20), (20, 10, 2**10)],
)
def test_error_as_stated(name, parties, frac_bits, int_bits, limit):
    unit = 2.0**-frac_bits
    with mpc.Session(NAMES[:parties], frac_bits=frac_bits, int_bits=int_bits) as s:
        a = values(limit, unit)
        got = trigonometry.evaluate(s.share(a, owner="bob", bound=limit), name).reveal()
    assert np.abs(got - EXACT[name](a)).max() <= trigonometry.error_bound(name, frac_bits)


def test_whole_numbers_and_products(pair):
    whole = np.arange(-300, 300)
    x = pair.share(whole, owner="alice", bound=300)
    limit = trigonometry.error_bound("sin", 16)
    assert np.abs(np.sin(x).reveal() - np.sin(whole)).max() <= limit
    assert np.abs(np.cos(x * 0.25 * 1.5).reveal() - np.cos(whole * 0.375)).max() <= limit + 2.0**-16


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_what_leaves_no_room_is_refused_by_its_values(ranges):
    limit = 2.0**19
    with mpc.Session(ranges=ranges) as s:
        factor = s.share(32.0, owner="bob")
        for some in ([1, 2], [limit - 2.0**-11, 2.0**-11 - limit]):
            x = s.share(np.array(some) / 32, owner="alice") * factor
            assert x.bound > limit * 2.0**x.frac_bits
            assert np.abs(np.sin(x).reveal() - np.sin(some)).max() < 1e-4
        for value in (limit, -limit):
            x = s.share(np.array([1.0, value]) / 32, owner="alice") * factor
            with pytest.raises(mpc.RangeError, match="sin of values below 524288 in magnitude"):
                np.sin(x)
    with mpc.Session() as s:
        whole = s.share(np.array([1, 2, 2**27 - 1]), owner="alice")
        assert np.abs(np.cos(whole).reveal() - np.cos([1, 2, 2**27 - 1])).max() < 1e-4


@pytest.mark.dealt
def test_cost_is_as_declared_and_planned(fresh_session, spent):
    s = fresh_session
    x = s.share(np.zeros(65), owner="alice")
    declared = trigonometry.cost(s.size, 65, 31, 16)
    assert spent(s, lambda: np.sin(x)) == declared and declared.rounds == 7
    assert s.plan(lambda p: np.sin(p.share(np.zeros(65), owner="alice"))).cost.total == declared
