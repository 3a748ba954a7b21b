"""Division, mean and products with public numbers: right to the last place."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core.ranges import LARGEST
from mpc.protocols import scaling
from tests.helpers.program_fuzz import exactly

PLACE = 1 + Fraction(1, 1 << 12)
UNIT = Fraction(1, 1 << 16)
divisors = st.one_of(
    st.integers(1, 2**31), st.sampled_from([3, 7, 10, 1000, 2**31 - 1, 2**31, 2**20 + 1]),
    st.floats(1e-6, 1e9),
).flatmap(lambda n: st.sampled_from([n, -n]))  # fmt: skip
bounds = st.sampled_from([None, 1, 100, 30000, 2**20])


def check(found, want, unit=UNIT):
    for got, right in zip(exactly(found).reshape(-1), np.asarray(want).reshape(-1), strict=True):
        # Decoding rounds what has more bits than a double.
        assert abs(got - right) <= PLACE * unit + abs(right) / 2**52


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.data())
def test_division_and_factors(session, data):
    bound, divisor = data.draw(bounds), data.draw(divisors)
    whole = data.draw(st.booleans())
    top = (
        (2**31 - 1 if whole else 32767)
        if bound is None
        else min(bound, 32767 if not whole else bound)
    )
    number = st.integers(-top, top) if whole else st.floats(-top, top)
    values = np.array(data.draw(st.lists(number, min_size=1, max_size=4)) + [top, -top])
    if not whole:
        values = np.rint(values * 2.0**16) / 2.0**16
    x = session.share(values, owner="alice", bound=bound)
    exact = exactly(values)
    for operation, factor in (
        (lambda: x / divisor, 1 / Fraction(divisor)),
        (lambda: x * (1 / divisor), Fraction(1 / divisor)),
        (lambda: x.reshape(-1, 1) @ np.array([[0.5 / divisor]]), Fraction(0.5 / divisor)),
    ):
        right = exact * factor
        if max(abs(v) for v in right) * 2**16 > LARGEST - 2:
            with pytest.raises(mpc.RangeError):
                operation()
            continue
        check(operation().reveal(), right)


@pytest.mark.parametrize("form", [(16, 15), (0, 20), (4, 4), (24, 13), (30, 1)], ids=str)
@pytest.mark.parametrize("count", [1, 3, 7, 64, 1000, 99991])
def test_means(form, count):
    random = np.random.default_rng(count)
    with mpc.Session(frac_bits=form[0], int_bits=form[1]) as s:
        limit = 2 ** sum(form) - 1
        whole = random.integers(-limit, limit, count)
        found = s.share(whole, owner="alice").mean()
        right = Fraction(int(whole.sum()), count)
        if abs(right) * 2 ** form[0] > LARGEST:
            return
        check(found.reveal(), exactly([right]), Fraction(1, 1 << form[0]))
        if form[0]:
            real = np.rint(random.uniform(-1, 1, count) * 2.0 ** form[0]) / 2.0 ** form[0]
            right = sum(map(Fraction, real.tolist())) / count
            found = s.share(real, owner="bob").mean().reveal()
            check(found, exactly([right]), Fraction(1, 1 << form[0]))


def test_a_matrix_of_public_numbers(session):
    random = np.random.default_rng(1)
    a = np.rint(random.uniform(-300, 300, (3, 784)) * 2.0**16) / 2.0**16
    w = random.normal(size=(784, 4))
    x = session.share(a, owner="alice")
    check((x @ w).reveal(), exactly(a) @ exactly(w))
    check((w.T @ x.T).reveal(), (exactly(a) @ exactly(w)).T)
    check((x * w[:, 0]).reveal(), exactly(a) * exactly(w[:, 0]))
    check((x / (1 + np.arange(784))).reveal(), exactly(a) / exactly(1 + np.arange(784)))


@pytest.mark.parametrize("bound", [1, 2**20, 2**31, 2**40, LARGEST])
@pytest.mark.parametrize("addends", [1, 784])
def test_plans_leave_room(bound, addends):
    for sums in (Fraction(1, 3), Fraction(10**9, 7), Fraction(1, 10**9)):
        chosen = scaling.plan_limbs(bound, addends, sums * addends)
        if chosen is None:
            assert bound > 2**40
            continue
        limits = chosen.bounds(bound)
        assert sum(limits[i] << chosen.width * i for i in range(chosen.limbs)) >= bound
        fractions = [
            min(Fraction(addends, 2), sums * addends * 2 ** (chosen.width * i))
            for i in range(len(limits))
        ]
        most = sum(
            b * (f * 2**chosen.p + Fraction(addends, 2))
            for b, f in zip(limits, fractions, strict=True)
        )
        assert most <= LARGEST
        assert sum(addends * b for b in limits) / Fraction(2 ** (chosen.p + 1)) <= Fraction(
            1, 1 << 12
        )


def test_no_room_says_which_bound_would_do(session):
    x = session.share(np.array([[2**30] * 200_000]), owner="alice") * 2**30
    w = np.full((200_000, 1), 1e-13 / 3)
    with pytest.raises(mpc.RangeError, match=r"^@: .* no room .* bound=(\S+) when they are shared"):
        x @ w


@pytest.mark.parametrize("mode", ["check", "warn"])
def test_a_plan_counts_what_a_check_costs(mode):
    def program(s):
        x = s.share(np.array([3.0, 4.0]), owner="alice")
        total = (x @ x).reveal(), (x * 0.1 / 3).reveal(), ((x * x).sum() * 2.0**20).reveal()
        return total, x.with_bound(4).bound

    with (
        mpc.Session(ranges=mode) as s,
        pytest.warns(mpc.RangeWarning) if mode == "warn" else s.layer("a"),
    ):
        planned = s.plan(program).cost
        before = s.cost()
        program(s)
        spent = s.cost() - before
        assert spent.total == planned.total
        assert ("range check" in spent.by_protocol) == (mode == "check")
