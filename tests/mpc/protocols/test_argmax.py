"""argmax and the maximum along an axis: ties go to the first, for any number of classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.protocols.truncation import round_later
from mpc.session_setup import _values_of

UNIT = 2.0**-16

# Every size of one group, the first with two, and such with several levels of groups.
CLASSES = [*range(1, 18), 31, 32, 33, 40, 145, 225, 257, 300]


def one_hot_of(a, axis):
    index = np.expand_dims(a.argmax(axis), axis)
    shape = [1] * a.ndim
    shape[axis] = -1
    return (np.arange(a.shape[axis]).reshape(shape) == index).astype(int)


def rows_with_ties(rows, k, seed):
    """Rows of few different values, the edges among them, and some rows all alike."""
    random = np.random.default_rng(seed)
    few = np.array([-32768 + UNIT, -1, -UNIT, 0, UNIT, 1, 32768 - UNIT])
    a = random.choice(few, (rows, k))
    a[0] = 0
    a[1] = -32768 + UNIT
    a[2:5] = random.integers(-(2**31) + 1, 2**31, (3, k)) * UNIT
    return a


@pytest.mark.parametrize("k", CLASSES)
def test_one_hot_index_and_maximum(session, k):
    a = rows_with_ties(9 if k > 40 else 70, k, k)
    x = session.share(a, owner="alice")
    hot = x.argmax(axis=1, one_hot=True)
    assert (hot.shape, hot.frac_bits, hot.bound) == (a.shape, 0, 1)
    np.testing.assert_array_equal(hot.reveal(), one_hot_of(a, 1))
    index = x.argmax(axis=1)
    assert index.frac_bits == 0
    np.testing.assert_array_equal(index.reveal(), a.argmax(axis=1))
    np.testing.assert_array_equal(x.max(axis=1).reveal(), a.max(axis=1))
    np.testing.assert_array_equal(x.min(axis=1).reveal(), a.min(axis=1))
    np.testing.assert_array_equal(np.argmin(x, axis=1).reveal(), a.argmin(axis=1))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(data=st.data(), k=st.integers(2, 20))
def test_arbitrary_values(session, data, k):
    value = st.integers(-3, 3) | st.integers(-(2**31) + 1, 2**31 - 1)
    rows = data.draw(st.lists(st.lists(value, min_size=k, max_size=k), min_size=1, max_size=6))
    a = np.array(rows) * UNIT
    x = session.share(a, owner="bob")
    np.testing.assert_array_equal(x.argmax(axis=1).reveal(), a.argmax(axis=1))
    np.testing.assert_array_equal(x.max(axis=-1).reveal(), a.max(axis=-1))


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 1, 6), (1, 1, 1), (3, 20, 2)])
def test_along_any_axis(session, shape):
    a = np.random.default_rng(0).integers(-3, 4, shape) / 2
    x = session.share(a, owner="alice")
    for axis in (0, 1, 2, -1, -2):
        np.testing.assert_array_equal(x.argmax(axis=axis).reveal(), a.argmax(axis=axis))
        got = x.argmax(axis=axis, one_hot=True).reveal()
        np.testing.assert_array_equal(got, one_hot_of(a, axis % 3))
        np.testing.assert_array_equal(x.max(axis=axis).reveal(), a.max(axis=axis))
        np.testing.assert_array_equal(x.min(axis=axis).reveal(), a.min(axis=axis))
    assert x.argmax().reveal() == a.argmax()
    assert x.max().reveal() == a.max()
    assert x.min().reveal() == a.min()
    flat = one_hot_of(a.ravel(), 0).reshape(shape)
    np.testing.assert_array_equal(x.argmax(one_hot=True).reveal(), flat)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65])
def test_any_number_of_rows(session, rows):
    a = np.random.default_rng(rows).integers(-3, 4, (rows, 10)) / 2
    x = session.share(a, owner="bob")
    np.testing.assert_array_equal(x.argmax(axis=1).reveal(), a.argmax(axis=1))
    np.testing.assert_array_equal(x.max(axis=1).reveal(), a.max(axis=1))


def test_whole_numbers(session):
    a = np.array([[3, 2**31 - 1, 2**31 - 1], [-5, -(2**31) + 1, -5]])
    x = session.share(a, owner="alice")
    np.testing.assert_array_equal(x.argmax(axis=1).reveal(), [1, 0])
    np.testing.assert_array_equal(x.max(axis=1).reveal(), [2**31 - 1, -5])


def test_scores_are_compared_as_they_are(session):
    # Products that differ by 2^-32 only, and one pair alike.
    a = np.array([[1, 1 + UNIT, 1], [1 + UNIT, 1, 1 + UNIT], [1, 1, 1]])
    x = session.share(a, owner="alice")
    y = session.share(np.array([UNIT, UNIT, UNIT]), owner="bob")
    product = x * y
    before = session.cost()
    hot = product.argmax(axis=1, one_hot=True)
    assert (session.cost() - before).by_protocol.keys() == {"argmax"}
    np.testing.assert_array_equal(hot.reveal(), [[0, 1, 0], [1, 0, 0], [1, 0, 0]])


def test_hits_against_secret_targets(session):
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(50, 10)), random.integers(0, 10, 50)
    x = session.share(scores, owner="alice")
    targets = session.share(np.eye(10, dtype=int)[labels], owner="bob")
    hits = (x.argmax(axis=1, one_hot=True) * targets).sum()
    assert hits.reveal() == (scores.argmax(axis=1) == labels).sum()


@pytest.mark.dealt
def test_rounds(fresh_session, spent):
    s = fresh_session
    rounds = {}
    for k in (1, 2, 5, 6, 10, 11, 16):
        x = s.share(np.zeros((3, k)), owner="alice")
        rounds[k] = [
            spent(s, lambda x=x: x.argmax(axis=1, one_hot=True).reveal()).rounds,
            spent(s, lambda x=x: x.argmax(axis=1, one_hot=True).shares).rounds,
        ]
    # The scores have their mask the second time. For one value the result is known.
    some, more = [4, 3], [5, 4]
    assert rounds == {1: [1, 0], 2: [3, 2], 5: some, 6: some, 10: some, 11: more, 16: more}


def test_revealed_winners_and_shares_of_them_are_the_same(session):
    """Before and after shares were needed, to one party and to all; ties go to the first."""
    z = np.random.default_rng(4).integers(-2, 3, (70, 5)).astype(float)
    one = session.share(np.ones_like(z), owner="bob")
    for axis in (0, 1, None):
        # With its cross term pending.
        x = session.share(z, owner="alice") * one
        index, hot = x.argmax(axis), x.argmax(axis, one_hot=True)
        want = z.argmax(axis)
        for _ in range(2):
            # None at a party that learns nothing.
            learnt = index.reveal(to="bob"), hot.reveal(to="alice")
            places = hot.reveal()
            assert learnt[0] is None or np.array_equal(learnt[0], want)
            assert learnt[1] is None or np.array_equal(learnt[1], places)
            np.testing.assert_array_equal(index.reveal(), want)
            np.testing.assert_array_equal(places.argmax(axis), want)
            np.testing.assert_array_equal(places.sum(axis), np.ones_like(want))
            np.testing.assert_array_equal((index + 1).reveal(), want + 1)
            np.testing.assert_array_equal((hot + 0).reveal(), places)


@pytest.mark.parametrize("rows", [1, 64, 65])
def test_every_number_of_classes(session, rows):
    random = np.random.default_rng(5)
    for k in range(1, 18):
        z = random.integers(-3, 4, (rows, k))
        x = session.share(z, owner="alice") + 0
        np.testing.assert_array_equal(x.argmax(axis=1).reveal(), z.argmax(axis=1))


def test_differences_of_any_words(session):
    """Values next to the ends of the ring, where differences are 2^63 - 1 and scores of a pair tie."""
    top = 2**62 - 1
    z = np.array([[top, -top, 0], [-top, top, top], [-top, -top, -top], [top - 1, top, -1]])
    zero = session.share(np.zeros(z.shape, int), owner="alice") + 0
    shares = zero.shares.copy()
    if session.first_row is not None:
        shares[session.first_row] += z.view(np.uint64)
    x = zero.derive(shares, frac_bits=0, bound=top)
    np.testing.assert_array_equal(x.argmax(axis=1).reveal(), z.argmax(axis=1))


def test_a_check_of_ranges_by_values_opens_nothing(session):
    """A local session alone looks at values: it must take the rounds that parties in processes take."""
    x = session.share([[3.0, 1.5, 7.0], [2.0, 2.0, -1.0]], owner="alice")
    hot, rounded = x.argmax(axis=1, one_hot=True), round_later(x * 0.5 * x)
    before = session.cost().rounds
    np.testing.assert_array_equal(_values_of(hot), [[0, 0, 1], [1, 0, 0]])
    exact = np.array([[4.5, 1.125, 24.5], [2.0, 2.0, 0.5]])
    assert np.abs(_values_of(rounded) - exact / UNIT).max() <= 1
    assert session.cost().rounds == before
    np.testing.assert_array_equal(hot.reveal(), [[0, 0, 1], [1, 0, 0]])
