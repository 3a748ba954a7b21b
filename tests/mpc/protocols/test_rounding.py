"""Floor, ceiling, nearest and sign: exact for every value."""

from fractions import Fraction

import numpy as np
import pytest

import mpc
from mpc.array.shared_array import SharedArray
from mpc.protocols import rounding

FUNCTIONS = {"floor": np.floor, "ceil": np.ceil, "rint": np.rint, "sign": np.sign}
HALVES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.5, 100.25])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize(("frac_bits", "int_bits"), [(16, 15), (1, 59), (30, 1), (8, 45)])
def test_exact(name, parties, frac_bits, int_bits):
    with mpc.Session(
        ("alice", "bob", "carol", "dave", "erin")[:parties], frac_bits=frac_bits, int_bits=int_bits
    ) as s:
        unit, far = 2.0**-frac_bits, np.nextafter(2.0**int_bits, 0)
        near = np.concatenate(
            [HALVES, HALVES + unit, HALVES - unit, [2.0**int_bits - unit, far / 2]]
        )
        values = np.concatenate([near, -near, np.random.default_rng(0).uniform(-far, far, 200)])
        values = np.round(values / unit) * unit
        values = values[np.abs(values) <= min(far, 2.0**int_bits - unit)]
        x = s.share(values, owner="bob")
        for _ in range(5):  # roundings differ
            found = getattr(x, name)()
            assert found.frac_bits == 0
            np.testing.assert_array_equal(found.reveal(), FUNCTIONS[name](values))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_and_the_ring_s_limit(pair, name):
    top = 2**62 - 1
    values = np.array([top, -top, 1 << 31, 3 << 31, -(1 << 31), 1, 0, -1])
    shares = np.random.default_rng(0).integers(0, 2**64, (2, len(values)), dtype=np.uint64)
    shares[0] = values.view(np.uint64) - shares[1]
    x = SharedArray(pair, shares, 32, 2**62)
    exact = {
        "floor": [v >> 32 for v in values.tolist()],
        "ceil": [-(-v >> 32) for v in values.tolist()],
        "rint": [2**30, -(2**30), 0, 2, 0, 0, 0, 0],
        "sign": np.sign(values).tolist(),
    }
    found = getattr(x, name)()
    assert found.reveal().tolist() == exact[name]


@pytest.mark.parametrize("frac_bits", [1, 32, 58, 59, 60])
def test_rint_next_to_the_ring_s_limit(pair, frac_bits):
    """Nothing is added on the way: a sum beyond 2^62 is truncated wrongly, one time in 2^(63 - f)."""
    top, half = 2**62 - 1, 1 << frac_bits - 1
    values = [top, top - 1, -top, *(k * half + d for k in (-3, -1, 1, 3) for d in (-1, 0, 1))]
    values = np.array([v for v in values if abs(v) <= top] * 40)
    shares = np.random.default_rng(0).integers(0, 2**64, (2, len(values)), dtype=np.uint64)
    shares[0] = values.view(np.uint64) - shares[1]
    found = SharedArray(pair, shares, frac_bits, 2**62).rint().reveal()
    assert found.tolist() == [round(Fraction(v, 1 << frac_bits)) for v in values.tolist()]


def test_whole_numbers_stay(pair):
    x = pair.share([3, -4], owner="alice")
    before = pair.cost().total
    for name in ("floor", "ceil", "rint"):
        assert getattr(x, name)() is x
    assert pair.cost().total == before
    assert x.sign().reveal().tolist() == [1, -1]


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 65, 300])
def test_cost_is_as_declared_and_planned(fresh_session, spent, size):
    x = fresh_session.share(np.zeros(size), owner="alice")
    declared = rounding.cost(fresh_session.size, size, 16)
    assert spent(fresh_session, lambda: x.floor()) == declared and declared.rounds == 4
    planned = fresh_session.plan(lambda p: p.share(np.zeros(size), owner="alice").floor()).cost
    assert planned.total == declared and set(planned.by_protocol) == {"rounding"}
