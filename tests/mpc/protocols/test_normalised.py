"""Powers, logarithm, exponential and quotients: errors over the domain in every format, refusals, cost."""

import contextlib
import operator
import os
from fractions import Fraction
from math import floor

import numpy as np
import pytest

import mpc
from mpc.array.shared_array import SharedArray
from mpc.protocols import bounded, fits, normalised, quotient, sign, truncation
from mpc.protocols.normalised import EXP, LOG, power

RUNS = int(os.environ.get("SOTTO_DOMAINS", "1"))
SEED = int(os.environ.get("SOTTO_SEED", "0"))
NAMES = ("alice", "bob", "carol", "dave", "erin")
UNIT = 2.0**-16
CURVES = {
    "sqrt": (power(0.5), np.sqrt),
    "inverse root": (power(-0.5), lambda x: x**-0.5),
    "x^2.5": (power(2.5), lambda x: x**2.5),
    "x^-2": (power(-2.0), lambda x: x**-2.0),
    "x^0.1": (power(0.1), lambda x: x**0.1),
    "log": (LOG, np.log),
    "exp": (EXP, np.exp),
}
every_curve = pytest.mark.parametrize("name", CURVES)


def held(session, values, place, bound):
    """Share encoded integers that `share` may not take, as products and sums hold them."""
    words = np.asarray(values, np.int64).view(np.uint64)
    random = np.random.default_rng(0)
    shares = random.integers(0, 2**64, (session.size, *words.shape), dtype=np.uint64)
    shares[0] = words - shares[1:].sum(axis=0, dtype=np.uint64)
    return SharedArray(session, shares, place, bound)


def encoded_grid(curve, plan, bound, count):
    """Encoded values: neighbours of the thresholds and of powers of two, the domain's ends, and between."""
    random = np.random.default_rng(len(plan.thresholds))
    ends = plan.low, min(plan.high, bound)
    near = [t + step for t in plan.thresholds for step in (-1, 0, 1)]
    near += [(1 << j) + step for j in range(bound.bit_length() + 1) for step in (-1, 0, 1)]
    spread = np.exp2(random.uniform(0, bound.bit_length(), count)).astype(np.int64)
    if curve.kind == "exp":
        spread = random.integers(max(-bound, -20 * plan.high), ends[1] + 1, count)
        near += [-bound, -plan.high]
    values = {*near, *ends, *map(int, spread)}
    values = np.array(sorted(v for v in values if abs(v) <= bound), np.int64)
    return values[normalised._inside(curve, plan, values, 0)]


def check_curve(session, name, place, bound, count):
    curve, exact = CURVES[name]
    plan = fits.plan_of(curve, place, session.format, bound)
    values = encoded_grid(curve, plan, bound, count)
    if not values.size:  # none has a result in the format
        return 0.0, 0.0, 0, plan
    x = held(session, values, place, bound)
    before = session.cost().rounds
    y = normalised.evaluate(x, curve)
    rounds = session.cost().rounds - before
    words = y.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
    assert (np.abs(words) <= y.bound).all()
    decoded = values * 2.0**-place
    with np.errstate(divide="ignore"):
        want = np.where(values == 0, 1.0 if curve.kind == "exp" else 0.0, exact(decoded))
    absolute, relative = normalised.error_bound(x, curve)
    error = np.abs(y.reveal() - want) - np.abs(want) * (relative + 2.0**-50)
    assert error.max() <= absolute, (session.format, place, bound, decoded[np.argmax(error)])
    return error.max() / absolute, relative, rounds, plan


@every_curve
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_error_is_within_the_bound_over_the_domain(name, parties):
    with mpc.Session(NAMES[:parties]) as s:
        s.memory_limit = 1 << 30
        reached, relative, rounds, plan = check_curve(s, name, 16, s.format.bound, 1500)
        # The bound is no idle one.
        assert reached > 0.2
        assert relative <= 2.0**-18
        assert rounds == (5 if name == "exp" else 6)
        assert plan.v_bits == plan.d_bits


@every_curve
@pytest.mark.parametrize("frac_bits", range(1, 31, 3))
def test_every_format(name, frac_bits):
    """A few of the integer bits, places and bounds; SOTTO_DOMAINS draws so many times as many."""
    random = np.random.default_rng((SEED, frac_bits))
    room = 61 - 2 * frac_bits
    for _ in range(2 * RUNS):
        int_bits = int(random.choice([1, room, random.integers(1, room + 1)]))
        with mpc.Session(NAMES[:2], frac_bits=frac_bits, int_bits=int_bits) as s:
            place = int(random.choice([0, frac_bits // 2, frac_bits]))
            whole = s.format.bound >> (frac_bits - place)
            most = int(
                random.choice([whole, min(whole, 3 << place), random.integers(1, whole + 1)])
            )
            if name not in ("exp", "x^2.5") or int_bits <= 20:
                check_curve(s, name, place, most, 30)
                continue
            # The results may be too large, or too coarse.
            try:
                check_curve(s, name, place, most, 30)
            except mpc.RangeError as e:
                found = str(e)
                assert s.cost().rounds == 0, found


def inverses_of(s, place, bound, positive, count):
    """Check 1 / x over the domain: at its edges, around powers of two, and between; return the rounds."""
    random = np.random.default_rng(bound % 2**32)
    low = (2**place >> s.format.int_bits) + 1
    near = [(1 << j) + step for j in range(bound.bit_length() + 1) for step in (-1, 0, 1)]
    spread = np.exp2(random.uniform(0, bound.bit_length(), count)).astype(np.int64)
    values = np.array(
        [v for v in (low, bound, *near, *map(int, spread)) if low <= v <= bound], np.int64
    )
    if not values.size:  # none has a result in the format
        return 6
    values = values if positive else np.concatenate([values, -values])
    x = held(s, values, place, bound)
    absolute, relative = quotient.error_bound_of_inverse(x, positive)
    assert relative <= 2.0**-16
    before = s.cost().rounds
    y = quotient.inverse(x, positive)
    rounds = s.cost().rounds - before
    words = y.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
    assert (np.abs(words) <= y.bound).all()
    want = 2.0**place / values
    error = np.abs(y.reveal() - want) - np.abs(want) * (relative + 2.0**-50)
    assert error.max() <= absolute, (s.format, place, bound, values[np.argmax(error)])
    return rounds


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_reciprocals_are_within_the_bound_over_the_domain(parties, positive):
    with mpc.Session(NAMES[:parties]) as s:
        s.memory_limit = 1 << 30
        assert inverses_of(s, 16, s.format.bound, positive, 1500) == 6
        relative = quotient.error_bound_of_inverse(held(s, [1], 16, s.format.bound))[1]
        assert 2.0**-19 < relative < 2.0**-18.5
        # The whole of [1, 2), where the polynomials are.
        values = np.arange(1 << 16, 1 << 17, 5)
        found = quotient.inverse(held(s, values, 16, 2 << 16)).reveal() * (values / 2.0**16)
        assert 2.0**-20 < np.abs(found - 1).max() < relative + 2 * UNIT


@pytest.mark.parametrize("frac_bits", range(1, 31, 3))
def test_reciprocals_in_every_format(frac_bits):
    """A few of the integer bits, places and bounds; SOTTO_DOMAINS draws so many times as many."""
    random = np.random.default_rng((SEED, frac_bits))
    room = 61 - 2 * frac_bits
    for _ in range(2 * RUNS):
        int_bits = int(random.choice([1, room, random.integers(1, room + 1)]))
        with mpc.Session(NAMES[:2], frac_bits=frac_bits, int_bits=int_bits) as s:
            place = int(random.choice([0, frac_bits // 2, frac_bits]))
            whole = s.format.bound >> (frac_bits - place)
            most = int(
                random.choice([whole, min(whole, 3 << place), random.integers(1, whole + 1)])
            )
            inverses_of(s, place, most, bool(random.integers(2)), 30)


# Bounds of x for an exponential from one opening, and of one that takes pieces.
EXPONENTS = (0.25, 2.9, 8.0, 10.3, 20.0, 32.0, 170.0)


@pytest.mark.parametrize(
    ("frac_bits", "int_bits"), [(16, 15), (8, 13), (24, 6), (30, 1), (16, 4), (3, 14), (20, 15)]
)
@pytest.mark.parametrize("parties", [2, 3])
def test_exponentials_from_one_opening(parties, frac_bits, int_bits):
    random = np.random.default_rng((SEED, frac_bits))
    for bound in EXPONENTS:
        for ranges in ("values", "check"):
            with mpc.Session(
                NAMES[:parties], frac_bits=frac_bits, int_bits=int_bits, ranges=ranges
            ) as s:
                if bound >= 2**int_bits:
                    continue
                unit = 2.0**-frac_bits
                least, most = int(bound / unit), int(min(bound, int_bits * np.log(2)) / unit)
                near = [-least, most, -1, 0, 1, *(round(k * 32 / 11 / unit) for k in range(-9, 4))]
                values = np.array([*near, *random.integers(-least, most + 1, 500 * RUNS)])
                values = values[(values >= -least) & (values <= most)]
                x = s.share(values * unit, owner="alice", bound=bound)
                before = s.cost().rounds
                y = np.exp(x)
                checked = ranges == "check" and bound > int_bits * np.log(2)
                assert s.cost().rounds - before == (5 if checked else 1)
                words = y.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
                assert (np.abs(words) <= y.bound).all()
                absolute, relative = normalised.error_bound(x, EXP)
                want = np.exp(values * unit)
                assert (np.abs(y.reveal() - want) <= absolute + relative * want).all()
                if checked:
                    above = s.share(
                        np.array([0.5] * 70 + [(most + 1) * unit]), owner="bob", bound=bound
                    )
                    with pytest.raises(mpc.RangeError, match="domain"):
                        np.exp(above)


def test_forms_of_exponentials():
    for bound, most in ((b, m) for b in (*EXPONENTS, 1e-9, 16384.0) for m in (0.7, 10.397, 35.0)):
        form = bounded.power_form(bound, most)
        if form is None:
            assert bound > 170 or min(bound, most) > 10.5
            continue
        # Every piece that x and its mask can be in is one of N.
        piece = 32 / 11
        assert floor(min(bound, most) / piece) + 1 - floor(-bound / piece) < form.pieces <= 64
        assert form.power_bits + form.factor_bits + min(bound, most) / np.log(2) < 62
    for wrong in ((3, 0, 20), (128, 0, 20), (8, 40, 20), (8, -1, 20), (8, 0, 0), (8, 0, 31)):
        with pytest.raises(mpc.ShapeError):
            bounded.BoundedPowers(5, *wrong).check(2**20)
    bounded.BoundedPowers(5, 64, 36, 30).check(2**20)


def test_sums_and_products_of_the_format(session):
    """Bounds that are no power of two, and values with twice the bits."""
    values = np.array([0.001, 0.25, 1.0, 3.0, 150.0])
    x = session.share(values, owner="alice")
    for z, exact in ((x + x, 2 * values), (x * 1.5, 1.5 * values), (x * x, values**2)):
        lost = UNIT * 1.5 / (2 * np.sqrt(exact))
        assert (
            np.abs(z.sqrt().reveal() - np.sqrt(exact)) <= 2.0**-18 * exact + lost + 3 * UNIT
        ).all()
    before = session.cost().rounds
    (x + x).sqrt()
    assert session.cost().rounds - before == 6 or session.pair is not None


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize(("frac_bits", "int_bits"), [(16, 15), (8, 23), (24, 6), (30, 1)])
def test_quotients(parties, frac_bits, int_bits):
    with mpc.Session(NAMES[:parties], frac_bits=frac_bits, int_bits=int_bits) as s:
        random = np.random.default_rng(0)
        most = s.format.bound
        ends = np.array([1, 2, 3, most, most - 1, (most + 1) // 2])
        below = ends[:, None] * np.ones((1, 6), np.int64)
        spread = np.exp2(random.uniform(0, most.bit_length(), (2, 1000))).astype(np.int64)
        x = np.concatenate([below.ravel(), spread[0]]) * random.choice([-1, 1], 1036)
        y = np.concatenate([below.T.ravel(), spread[1]]) * random.choice([-1, 1], 1036)
        exact = x / y
        fits_ = np.abs(exact) < 2.0 ** (int_bits - 1)
        x, y, exact = x[fits_], y[fits_], exact[fits_]
        dividend, divisor = (held(s, v, frac_bits, most) for v in (x, y))
        before = s.cost().rounds
        found = dividend / divisor
        assert s.cost().rounds - before == 6
        absolute, relative = quotient.error_bound(dividend, divisor)
        assert relative <= 2.0**-18
        assert (np.abs(found.reveal() - exact) <= absolute + relative * np.abs(exact)).all()


def test_division_broadcasts_and_takes_public_and_whole_numbers(session):
    x, y = np.array([[1.0, -2.0, 3.5]]), np.array([[0.5], [-7.0]])
    a, b = session.share(x, owner="alice"), session.share(y, owner="bob")
    whole = session.share(np.array([3, -4, 1000]), owner="bob")
    for found, exact in (
        (a / b, x / y),
        (b / a, y / x),
        (1 / b, 1 / y),
        (x / b, x / y),
        ([[6]] / b, 6 / y),
        (a / whole, x / np.array([3, -4, 1000])),
        (whole / b, np.array([3, -4, 1000]) / y),
        (whole / whole, np.ones(3)),
        ((a * a) / (a + 9), x * x / (x + 9)),
    ):
        assert found.shape == exact.shape
        np.testing.assert_allclose(found.reveal(), exact, rtol=2.0**-17.5, atol=4 * UNIT)


REFUSED = {
    "log of 0": (
        lambda x: x.log(),
        [1.0, 0.0],
        r"log: the value at index 1 is 0, which is not in the",
    ),
    "log": (lambda x: x.log(), [-1.0], r"domain, x at least 1.52588e-05$"),
    "sqrt": (
        lambda x: x.sqrt(),
        [4.0, -UNIT],
        r"sqrt: the value at index 1 is -1.52588e-05, .* 0 <= x",
    ),
    "reciprocal": (lambda x: 1 / x, [0.0], r"reciprocal: the value at index 0 is 0"),
    "reciprocal of little": (lambda x: 1 / x, [-2 * UNIT], r"domain, \|x\| at least 4.57764e-05$"),
    "of a negative": (
        lambda x: x.reciprocal(positive=True),
        [-1.0],
        r"domain, x at least 4.57764e-05",
    ),
    "power": (
        lambda x: x**1.5,
        [1025.0],
        r"power: the value at index 0 is 1025, .* 0 <= x <= 1024$",
    ),
    "root of little": (lambda x: x**-2, [2.0**-8], r"power: .* domain, x at least 0.0055"),
    "exp": (lambda x: x.exp(), [10.4], r"exp: the value at index 0 is 10.4, .* x at most 10.3972$"),
    "/ 0": (lambda x: x / (x - 1), [1.0], r"/: the value at index 0 is 1 and 0, .* y not 0 and"),
    "/": (lambda x: x / (1 + UNIT - x), [1.0], r"/: the value .* \|x / y\| below 16384$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outside_of_the_domain(name):
    function, values, message = REFUSED[name]
    with mpc.Session() as s:
        x = s.share(values, owner="alice")
        with pytest.raises(mpc.RangeError, match=message):
            function(x)
    for ranges in ("check", "error"):
        with mpc.Session(ranges=ranges) as s:
            with pytest.raises(mpc.RangeError, match="domain"):
                function(s.share([*values, 2.0], owner="alice"))
            # In the middle of many, too: one part fails.
            many = np.full(300, 0.5 if name.startswith("/") else 2.0)
            s.memory_limit = 1 << 18
            function(s.share(many, owner="alice"))
            many[150] = values[-1]
            with pytest.raises(mpc.RangeError, match="domain"):
                function(s.share(many, owner="alice"))
    with mpc.Session(ranges="warn") as s:
        with pytest.warns(mpc.RangeWarning, match="not checked"):
            function(s.share(values, owner="alice"))


def test_what_a_check_opens_is_one_bit(tap):
    for values in ([1.0, 4.0], [1.0, -4.0]):
        with mpc.Session(ranges="check") as s:
            x = s.share(values, owner="alice")
            with tap(s) as heard:
                try:
                    x.sqrt()
                except mpc.RangeError:
                    assert values[1] < 0
            single = [a for arrays in heard.opened for a in arrays if a.size == 1]
            assert (
                int(single[-1].ravel()[0]) & 1 == (values[1] > 0) and int(single[-1].ravel()[0]) < 2
            )


def test_nothing_is_checked_where_the_bound_is_enough():
    with mpc.Session(ranges="error") as s:
        x = s.share([-3.0, 5.0], owner="alice", bound=10)
        before = s.cost().rounds
        x.exp()
        assert s.cost().rounds - before == 1


@pytest.mark.parametrize("ranges", ["values", "check", "error"])
def test_division_where_bounds_leave_no_room(ranges):
    """The product c X is checked then, or refused."""
    with mpc.Session(frac_bits=16, int_bits=22, ranges=ranges) as s:
        x, y = s.share([1.0, 2.0**21], owner="alice"), s.share([2.0**-16, 2.0**14], owner="bob")
        if ranges == "error":
            before = s.cost().rounds
            with pytest.raises(mpc.RangeError, match=r"^/: by the bounds of the operands"):
                x / y
            assert s.cost().rounds == before
            x, y = (z.with_bound(1000.0) for z in (x[:1], x[:1]))
            absolute, relative = quotient.error_bound(x, y)
            assert np.abs((x / y).reveal() - 1).max() <= absolute + relative
            return
        np.testing.assert_allclose((x / y).reveal(), [2.0**16, 2.0**7], rtol=2.0**-18)
        for vouched in (False, True):
            with s.range_policy.vouched() if vouched else contextlib.nullcontext():
                with pytest.raises(mpc.RangeError, match=r"^/: .* domain, y not 0 and"):
                    x[1:] / y[:1]  # 2^37, whose product with c is 2^75


@pytest.mark.parametrize("ranges", ["check", "error"])
def test_division_by_whole_numbers_of_large_bounds_is_checked_where_products_are_vouched_for(
    ranges,
):
    """c X is 6 * 2^76 here, which is 0 modulo 2^64."""
    with mpc.Session(ranges=ranges) as s:
        x, y = s.share([6.0], owner="alice"), held(s, np.array([6]), 0, 2**62 - 1)
        with s.range_policy.vouched(), pytest.raises(mpc.RangeError, match=r"^/: .* domain"):
            x / y


def test_a_refused_quotient_spends_the_same_whatever_is_wrong():
    """So one bit is opened: no step depends on what another one found."""
    spent = []
    for x, y in ((2.0**21, 2.0**-14), (1.0, 0.0), (1.0, 2.0), (2.0**21, 0.0)):
        with mpc.Session(frac_bits=14, int_bits=24, ranges="check") as s:
            a, b = s.share([x], owner="alice"), s.share([y], owner="bob")
            outcome = pytest.raises(mpc.RangeError, match="domain")
            with outcome if y < 1 else contextlib.nullcontext():
                a / b
            spent.append(s.cost().total)
    assert spent[1:] == spent[:-1]


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_quotients_of_words_that_no_double_holds_are_refused_alike(ranges):
    """2^60 - 1 is in the octave below 2^60, to which a double rounds it."""
    most = (1 << 62) - 1
    with mpc.Session(ranges=ranges) as s:
        for x, y in ((1 << 61, (1 << 60) - 1), (1 << 61, 1 << 60), (1 - (1 << 61), (1 << 60) - 1)):
            with pytest.raises(mpc.RangeError, match="domain"):
                held(s, [x], 16, most) / held(s, [y], 16, most)
        for x, y in ((most >> 1, 1 << 60), (-(most >> 2), (1 << 60) - 1), (most, -(1 << 61))):
            found = held(s, [x], 16, most) / held(s, [y], 16, most)
            np.testing.assert_allclose(found.reveal(), x / y, rtol=2.0**-18, atol=2 * UNIT)


@pytest.mark.parametrize(("frac_bits", "int_bits"), [(16, 23), (12, 36), (12, 37), (16, 29)])
def test_division_is_refused_in_formats_without_room_for_it(frac_bits, int_bits):
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        x = s.share([1.3], owner="alice")
        with pytest.raises(mpc.RangeError, match=f"^/ needs .* int_bits = {int_bits}$"):
            x / s.share([3.0], owner="bob")
        assert s.cost().rounds == 0


def test_many_elements_are_evaluated_in_parts(pair):
    values = np.linspace(0.1, 50, 700).reshape(7, 100)
    x = pair.share(values, owner="alice")
    want = x.log().reveal()
    pair.memory_limit = 1 << 18
    before = pair.cost().rounds
    found = x.log()
    assert pair.cost().rounds - before >= 14
    np.testing.assert_allclose(found.reveal(), want, atol=4 * UNIT)
    np.testing.assert_allclose((x / x).reveal(), np.ones((7, 100)), atol=4 * UNIT)


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_a_plan_has_the_parts_of_a_run(ranges):
    """So what is prepared is what the program takes, wherever parties live."""
    for apply in (
        np.log,
        np.exp,
        lambda x: np.exp(x.with_bound(4)),
        lambda x: 1 / x,
        lambda x: x / x,
    ):
        with mpc.Session(memory_limit=1 << 18, ranges=ranges) as s:
            x = s.share(np.linspace(0.1, 3.0, 2000), owner="alice", bound=4)
            plan = s.plan(lambda p, x=x, apply=apply: apply(p.twin(x)))
            before = s.spent()
            apply(x)
            assert s.spent() - before == plan.cost.total
            assert plan.cost.rounds > 1


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 65, 300])
@pytest.mark.parametrize("name", ["sqrt", "log", "exp"])
def test_cost_is_as_declared_and_planned(fresh_session, spent, size, name):
    curve = CURVES[name][0]

    def make(s):
        x = s.share(np.full(size, 2.0), owner="alice") + 0
        return x.derive(x.shares, frac_bits=16, bound=2**24)

    x = make(fresh_session)
    plan = fits.plan_of(curve, 16, fresh_session.format, x.bound)
    window = sign.count_bits(x.bound + max(map(abs, plan.thresholds)))
    declared = normalised.cost(fresh_session.size, size, 0, window, plan, curve.normalises)
    assert spent(fresh_session, lambda: normalised.evaluate(x, curve)) == declared
    planned = fresh_session.plan(lambda p: normalised.evaluate(make(p), curve)).cost
    assert planned.total == declared and set(planned.by_protocol) == {curve.name}


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 65, 300])
@pytest.mark.parametrize("bound", [2**24, 2**18])
@pytest.mark.parametrize("name", ["exp", "reciprocal", "of positive ones"])
def test_costs_of_what_pieces_do_not_choose(fresh_session, spent, size, bound, name):
    def make(s):
        x = s.share(np.full(size, 2.0), owner="alice") + 0
        return x.derive(x.shares, frac_bits=16, bound=bound)

    x, parties = make(fresh_session), fresh_session.size
    if name == "exp":
        form = bounded.power_form(bound * UNIT, 15 * np.log(2))
        if form is None:
            return
        declared = bounded.cost_of_power(parties, size, form.pieces)
    else:
        octaves = quotient.octaves_of(3, bound, name == "reciprocal")
        window = sign.count_bits(bound + max(map(abs, octaves.thresholds)))
        declared = quotient.cost_of_inverse(parties, size, 0, window, octaves)

    def run(x):
        return x.exp() if name == "exp" else x.reciprocal(positive=name != "reciprocal")

    assert spent(fresh_session, lambda: run(x)) == declared
    planned = fresh_session.plan(lambda p: run(make(p))).cost
    assert planned.total == declared


def test_plans_with_checks_cost_what_runs_do():
    def program(s):
        x = s.share(np.linspace(1, 2, 70), owner="alice")
        return (x.sqrt() / x).reveal()

    for ranges in ("check", "values"):
        with mpc.Session(ranges=ranges) as s:
            planned = s.plan(program).cost
            program(s)
            assert s.cost().total == planned.total


def test_fits_are_those_of_fractions():
    """The cubics interpolate; by fractions, whose arithmetic is exact, from 40 digits of the nodes."""
    plan = fits.plan_of(power(-2.0), 16, mpc.Session().format, 2**31 - 1)
    place = np.searchsorted(plan.thresholds, 3 << 16, side="right")
    c, m, a0, a1, a2, a3 = map(int, plan.rows[:, place])
    d = Fraction(c * (3 << 16) - m, 2**plan.d_bits)
    unit = Fraction(1, 2**16)
    found = (Fraction(a0) + d * d * a2) * unit / 2**plan.d_bits + (a1 + d * d * a3) * d * unit
    assert abs(found - Fraction(1, 9)) < unit


@pytest.mark.parametrize("name", ["log", "exp", "silu"])
def test_a_product_is_rounded_once_in_all_functions(pair, name):
    """Else each result would tell a comparison of the bits that truncation takes away."""
    x = pair.share(np.linspace(0.0123, 0.02, 300), owner="alice")
    z = x * pair.share([0.0377], owner="bob")
    pair.memory_limit = 1 << 18  # in parts
    apply = {"log": np.log, "exp": np.exp, "silu": lambda z: z.activation("silu")}[name]
    apply(z)
    first = z.truncated
    assert first is not None and first.frac_bits == 16 and first.shape == z.shape
    apply(z)
    assert z.truncated is first
    np.testing.assert_array_equal(z.reveal(), first.reveal())
    lost = np.abs(first.reveal() - x.reveal() * np.round(0.0377 / UNIT) * UNIT)
    assert lost.max() < UNIT
    # A bound that is smaller takes fewer pieces, as before.
    plans = [normalised._plan(truncation.kept(y), LOG)[1] for y in (z, z.with_bound(1.0))]
    assert len(plans[1].thresholds) < len(plans[0].thresholds)


def test_logarithms_of_one_product_are_alike(pair):
    z = pair.share([0.0123], owner="alice") * pair.share([0.0377], owner="bob")
    assert np.ptp([np.log(z).reveal() for _ in range(20)]) <= 8 * UNIT


@pytest.mark.parametrize("exponent", [1e-6, 1e-3, 0.0149])
def test_small_exponents(pair, exponent):
    """Every x that the format holds has a result, close to 1."""
    values = np.array([UNIT, 1.0, 2.0**15 - UNIT])
    found = (pair.share(values, owner="alice") ** exponent).reveal()
    assert np.abs(found - values**exponent).max() <= 4 * UNIT


@pytest.mark.parametrize(("frac_bits", "int_bits"), [(4, 52), (5, 51), (6, 49), (1, 58)])
def test_formats_in_which_results_would_be_useless_are_refused(frac_bits, int_bits):
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        x = s.share([1.0], owner="alice")
        with pytest.raises(mpc.RangeError, match=f"^exp has no room .* and int_bits = {int_bits}:"):
            x.exp()
        assert s.cost().rounds == 0


@pytest.mark.parametrize("exponent", [2, 3, 7])
def test_whole_powers_stay_products(pair, exponent):
    x = pair.share([-1.5, 2.0], owner="alice")
    want = operator.pow(np.array([-1.5, 2.0]), exponent)
    for p in (float(exponent), np.array(exponent)):
        np.testing.assert_allclose((x**p).reveal(), want, atol=2e-3)
    with pytest.raises(mpc.DtypeError):
        x ** np.array([exponent])


def test_empty_and_closed(pair):
    x = pair.share(np.zeros((0, 3)), owner="bob")
    for found in (x.sqrt(), x.exp(), 1 / x, x / x):
        assert found.reveal().shape == (0, 3)
    x = pair.share([1.0], owner="bob")
    pair.close()
    for function in (np.log, np.sqrt, np.exp, np.reciprocal, lambda x: x / x, lambda x: 2 / x):
        with pytest.raises(mpc.SessionError):
            function(x)
