"""argmax and the maximum along an axis: ties go to the first, for any number of classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    for k in (1, 2, 5, 6, 10, 16):
        x = s.share(np.zeros((3, k)), owner="alice")
        rounds[k] = spent(s, lambda x=x: x.argmax(axis=1, one_hot=True)).rounds
    assert rounds == {1: 0, 2: 4, 5: 5, 6: 6, 10: 6, 16: 6}
