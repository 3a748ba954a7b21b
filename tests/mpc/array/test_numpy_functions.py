"""NumPy's functions on secrets beside NumPy's own: shapes, errors as stated, costs as planned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.array.numpy_functions import FUNCTIONS, UFUNCS
from mpc.protocols import shuffled_sort
from tests.helpers.numpy_cases import CASES, parts

UNIT = 2.0**-16


def compare(session, case, arrays):
    secret = [session.share(a, owner=session.parties[k % 2]) for k, a in enumerate(arrays)]
    got, want = parts(case.call(*secret)), parts(case.call(*arrays))
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        assert np.shape(mine) == np.shape(theirs)
        theirs = np.asarray(theirs, np.float64)
        allowed = case.allowed(theirs + (case.function is np.expm1))
        assert np.all(np.abs(np.asarray(mine, np.float64) - theirs) <= allowed), case.name


def test_every_function_has_a_case():
    assert {case.function for case in CASES} == UFUNCS.keys() | FUNCTIONS.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_numpy_does(session, case):
    compare(session, case, case.arrays(np.random.default_rng(20)))


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 2**32))
def test_as_numpy_does_for_other_values(session, case, seed):
    compare(session, case, case.arrays(np.random.default_rng(seed)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_costs_as_planned(case):
    arrays = case.arrays(np.random.default_rng(20))

    def program(s, given=arrays):
        return case.call(*(s.share(a, owner=s.parties[k % 2]) for k, a in enumerate(given)))

    with mpc.Session() as s:
        program(s)
        assert s.plan(program).cost.total == s.cost().total


def test_some_of_each_family(session):
    """In one body, which runs in every party's process, too."""
    a = np.rint(np.random.default_rng(4).normal(size=(5, 90)) / UNIT) * UNIT
    a[1] = 1.0
    x = session.share(a if 1 in session.here else None, owner="bob", shape=a.shape, dtype=float)
    for call in (
        lambda x: np.sort(x[:2], axis=1), lambda x: np.sort(x[:, :6], axis=1), lambda x: np.var(x, axis=1),
        lambda x: np.einsum("ij,kj->ik", x, x), lambda x: np.median(x[2], axis=0), np.cumsum,
        lambda x: np.histogram(x, [-1, 0, 1])[0], lambda x: np.sin(x[0]), lambda x: np.roll(x, 3),
        lambda x: np.average(x, axis=1, weights=x > 0.5), lambda x: np.cov(x[2:]),
        lambda x: np.linalg.solve(np.cov(x[2:]), x[2:, :2]),
    ):  # fmt: skip
        np.testing.assert_allclose(call(x).reveal(), call(a), rtol=0, atol=6 * UNIT)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 16, 1500])
def test_errors_do_not_grow_with_the_values(session, n):
    """A sum of products shows each rounding of a factor, times the other factor."""
    r = np.random.default_rng(n)
    a = np.rint(r.uniform(-1, 1, (2, n)) * min(8000, 20000 / n**0.5) / UNIT) * UNIT
    weights = r.uniform(0.1, 3, n)
    x = session.share(a, owner="alice")
    pieces = -(-n // 1024)
    for call in (np.cov, lambda x: np.var(x, axis=1), lambda x: np.average(x, 1, weights)):
        for given_or_product in (x, x * session.share(1.0, owner="bob")):
            got, want = call(given_or_product).reveal(), call(a)
            np.testing.assert_allclose(got, want, rtol=0, atol=1.1 * pieces * UNIT)


def test_weights_of_an_average(session):
    a = np.random.default_rng(2).integers(-9, 9, (2, 3, 4)) / 2
    x, weights = session.share(a, owner="alice"), np.arange(1.0, 25).reshape(2, 3, 4)
    for axis, some in (
        (None, weights),
        ((2, 0), weights),
        ((2, 0), weights[:, 0].T),
        (1, weights[0, :, 0]),
    ):
        got, total = np.average(x, axis=axis, weights=some, returned=True)
        want, all_of_it = np.average(a, axis=axis, weights=some, returned=True)
        np.testing.assert_allclose(got.reveal(), want, rtol=0, atol=1.1 * UNIT)
        np.testing.assert_allclose(total, all_of_it)
    with mpc.Session(frac_bits=2, int_bits=57) as s:  # no room for more of them at once
        large = np.full(1500, 2.0**56)
        some = np.average(s.share(large, owner="alice"), weights=np.linspace(1, 2, 1500)).reveal()
        np.testing.assert_allclose(some, 2.0**56, rtol=2.0**-50)


def test_edges_that_no_double_holds():
    with mpc.Session(frac_bits=0, int_bits=60) as s:
        a = 2**55 + np.arange(-2, 5)
        x, edges = s.share(a, owner="alice"), a[1:6:2]
        for call in (
            lambda x: np.digitize(x, edges), lambda x: np.digitize(x, edges, right=True),
            lambda x: np.searchsorted(edges, x), lambda x: np.histogram(x, edges)[0],
        ):  # fmt: skip
            np.testing.assert_array_equal(call(x).reveal(), call(a))


def test_values_on_the_edges(session):
    """As NumPy counts them: in the bin that an edge opens, the last edge in the last bin."""
    a = np.array([-1.0, -1.0 - UNIT, 0.5, 0.5 - UNIT, 2.0, 2.0 + UNIT, 2.0 - UNIT, -1.0])
    x = session.share(a, owner="alice")
    edges = [-1, 0.5, 2]
    np.testing.assert_array_equal(np.histogram(x, edges)[0].reveal(), np.histogram(a, edges)[0])
    for right in (False, True):
        np.testing.assert_array_equal(
            np.digitize(x, edges, right=right).reveal(), np.digitize(a, edges, right=right)
        )
    for side in ("left", "right"):
        np.testing.assert_array_equal(
            np.searchsorted(edges, x, side=side).reveal(), np.searchsorted(edges, a, side=side)
        )
    close = np.isclose(x, 0.5, rtol=0, atol=1.5)
    np.testing.assert_array_equal(close.reveal(), [1, 0, 1, 1, 1, 0, 1, 1])


@pytest.mark.parametrize("values", [np.zeros(70), np.arange(70.0)])
def test_the_order_that_is_opened_is_not_that_of_the_values(values, monkeypatch):
    """Equal values are told apart by their places before the shuffle, not by those after it."""
    shown, order = [], shuffled_sort._Comparer.order
    monkeypatch.setattr(
        shuffled_sort._Comparer, "order",
        lambda self, keys: shown.append(order(self, keys)) or shown[-1],
    )  # fmt: skip
    with mpc.Session() as s:
        x = s.share(values, owner="alice")
        for _ in range(3):
            np.testing.assert_array_equal(np.sort(x).reveal(), values)
    # Two of three would be equal by chance once in 70!.
    assert len({tuple(one.tolist()) for one in [*shown, np.arange(70)]}) == 4


def test_few_many_and_a_network(session):
    """Equal values keep their order; whatever way is taken."""
    random = np.random.default_rng(2)
    for shape in ((3, 5), (1, 1), (2, 0), (2, 66)):
        a = random.integers(-2, 3, shape)
        x = session.share(a, owner="alice")
        np.testing.assert_array_equal(np.sort(x).reveal(), np.sort(a))
        np.testing.assert_array_equal(np.argsort(x).reveal(), np.argsort(a, kind="stable"))
        np.testing.assert_array_equal(np.sort(x * 0.5, axis=0).reveal(), np.sort(a / 2, axis=0))
    values, places = session.share(a, owner="bob").topk(3)
    np.testing.assert_array_equal(values.reveal(), -np.sort(-a)[:, :3])
    np.testing.assert_array_equal(places.reveal(), np.argsort(-a, kind="stable")[:, :3])


def test_values_with_no_room_for_places_go_through_a_network(pair, share_integers):
    a = np.array([*range(70), 2**62 - 1, -(2**62) + 1])[::-1].copy()
    x = share_integers(pair, a)
    np.testing.assert_array_equal(np.sort(x).reveal(), np.sort(a))
    with pytest.raises(mpc.RangeError, match="no room for it; state a smaller"):
        np.argsort(x)


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_secret_indices_out_of_range_are_refused_by_their_values(ranges):
    with mpc.Session(ranges=ranges) as s:
        x = s.share(np.arange(4.0), owner="alice")
        for places in ([0, 3], [3, 3]):
            index = s.share(np.array(places), owner="bob", bound=9)
            np.testing.assert_array_equal(np.take_along_axis(x, index, 0).reveal(), places)
        for places in ([0, 4], [-1, 0]):
            index = s.share(np.array(places), owner="bob", bound=9)
            with pytest.raises(mpc.RangeError, match="take_along_axis"):
                np.take_along_axis(x, index, 0)


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_a_system_that_is_none_is_refused_by_their_values(ranges):
    with mpc.Session(ranges=ranges) as s:
        a = s.share(np.array([[1.0, 1.0], [1.0, 1.0 + UNIT]]), owner="alice", bound=2)
        b = s.share(np.array([1.0, 2.0]), owner="bob", bound=2)
        with pytest.raises(mpc.RangeError):
            np.linalg.solve(a, b)


@pytest.mark.parametrize("ranges", ["values", "check"])
def test_sums_out_of_range_are_refused_by_their_values(ranges):
    with mpc.Session(ranges=ranges, frac_bits=2, int_bits=57) as s:
        x = s.share(np.array([2.0**56, 2.0**56, 1.0] + [2.0**56] * 20), owner="alice")
        for call in (np.cumsum, np.prod, np.var):
            with pytest.raises(mpc.RangeError):
                call(x)
        np.testing.assert_array_equal(np.cumsum(x[:3]).reveal(), [2.0**56, 2.0**57, 2.0**57 + 1])


def test_methods_of_numpys_arrays_are_there(session):
    names = {case.name for case in CASES if hasattr(np.ndarray, case.name)}
    # In place, and a search in a secret: of public edges there is np.searchsorted.
    assert {n for n in names if not hasattr(mpc.SharedArray, n)} == {"resize", "searchsorted"}
    a, b = np.arange(-6.0, 6).reshape(3, 4) / 2, np.arange(8.0).reshape(4, 2)
    x = session.share(a, owner="alice")
    for call in (
        lambda x: x.clip(-1, 0.5), lambda x: x.clip(max=1), lambda x: x.dot(b), lambda x: x.cumprod(1),
        lambda x: x.copy(), lambda x: x.conjugate(),
    ):  # fmt: skip
        np.testing.assert_allclose(call(x).reveal(), call(a), rtol=0, atol=30 * UNIT)


def test_products_over_no_elements(session):
    def check(call, *shapes):
        given = [np.ones(shape) for shape in shapes]
        got = call(*(session.share(a, owner="alice") for a in given)).reveal()
        np.testing.assert_array_equal(got, call(*given), strict=True)

    check(np.inner, (0,), (0,))
    check(np.inner, (0,), (3, 0))
    check(np.dot, (3, 0), (2, 0, 3))
    check(lambda x, y: np.tensordot(x, y, 1), (2, 0), (0, 3))


def test_arguments_that_must_be_public_or_sound(pair):
    x = pair.share(np.arange(6.0).reshape(2, 3), owner="alice")
    i = pair.share(np.array([0, 1]), owner="bob")
    for call, error, message in (
        (lambda: np.take(x, i), mpc.DtypeError, "public indices"),
        (lambda: np.histogram(x, 5), mpc.ArgumentError, r"needs range=\(low, high\)"),
        (lambda: np.quantile(x, 1.5), mpc.RangeError, "q must be from 0 to 1"),
        (lambda: np.quantile(x, 0.5, method="weibull"), mpc.ArgumentError, "method must be one of"),
        (lambda: np.var(x, axis=0, ddof=2), mpc.ArgumentError, "more than ddof elements"),
        (
            lambda: np.average(x, weights=np.zeros((2, 3))),
            mpc.ArgumentError,
            "must not sum to zero",
        ),
        (lambda: np.pad(x, 1, mode="mean"), mpc.ArgumentError, "modes constant, edge"),
        (lambda: np.pad(x, 1.5), mpc.ShapeError, "pad of shape"),
        (lambda: np.roll(x, i), mpc.DtypeError, "secrets as its first argument alone"),
        (lambda: np.split(x, 5), mpc.ShapeError, "split of shape"),
        (lambda: np.einsum("ij,jk", x, x), mpc.ShapeError, "two sizes"),
        (lambda: np.linalg.norm(x, 2, axis=(0, 1)), mpc.ArgumentError, "ord None, 2, 1"),
        (lambda: np.linalg.solve(x, i), mpc.ShapeError, "square matrix"),
        (lambda: np.moveaxis(x, 0, 5), mpc.ShapeError, "moveaxis"),
        (lambda: x.topk(4), mpc.ArgumentError, "k must be from 1 to 3"),
        (lambda: np.sum(x, axis=(0, 0)), mpc.ShapeError, "twice"),
        (lambda: np.tile(x, "a"), mpc.SottoError, "tile"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("ranges", ["values", "check", "error", "warn"])
def test_any_number_of_decimals(ranges):
    """More places than a value has keep it, fewer than it has digits leave 0; neither overflows."""
    values, whole = np.array([1.5, -32767.75, 0.0]), np.array([2**30, -7, 45])
    with mpc.Session(ranges=ranges) as s:
        x, n = s.share(values, owner="alice"), s.share(whole, owner="bob")
        for decimals in (5, 13, 16, 20, 400, -19, -400, np.int64(1), np.int8(-1)):
            for secret, plain in ((x, values), (n, whole)):
                found = np.round(secret, decimals).reveal()
                wanted = plain if decimals > 4 else np.round(plain, max(-15, int(decimals)))
                np.testing.assert_allclose(found, wanted, atol=2.0**-15)
        assert np.round(n, 2).reveal().dtype == np.round(whole, 2).dtype
