"""A number times a secret bit, and the choices that are made of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

UNIT = 2.0**-16

encoded = st.integers(-(2**31) + 1, 2**31 - 1)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(pairs=st.lists(st.tuples(encoded, encoded), min_size=1, max_size=130))
def test_bit_times_value_is_exact(session, integers, pairs):
    a, b = np.array(pairs).T * UNIT
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    bit = x < y
    for chosen in (bit * x, x * bit):
        assert chosen.frac_bits == 16
        np.testing.assert_array_equal(chosen.reveal(), (a < b) * a)
    # The negated bit, a product with twice the bits, and a bit times a bit.
    np.testing.assert_array_equal(((~bit) * y).reveal(), (a >= b) * b)
    product = x * y
    np.testing.assert_array_equal(integers(bit * product), (a < b) * integers(product))
    np.testing.assert_array_equal((bit * bit).reveal(), a < b)
    np.testing.assert_array_equal((bit * (x > 0)).reveal(), (a < b) & (a > 0))


@pytest.mark.dealt
@pytest.mark.parametrize("given", [True, False], ids=["given", "computed"])
def test_a_masked_value_is_not_opened_again(session, tap, given):
    a = np.array([1.5, -2.0, 3.25])
    x = session.share(a, owner="alice")
    if not given:
        x = x + 0
    bit = x > 0
    with tap(session) as heard:
        first = bit * x
    assert heard.words_opened == 3
    with tap(session) as heard:
        second = (~bit) * x
        square = x * x
    assert heard.words_opened == 0
    np.testing.assert_array_equal(first.reveal(), [1.5, 0, 3.25])
    np.testing.assert_array_equal(second.reveal(), [0, -2, 0])
    np.testing.assert_array_equal(square.reveal(), a * a)


def test_bits_of_any_shape(session):
    a = np.random.default_rng(0).normal(size=(3, 5, 7))
    a = np.round(a * 2**16) * UNIT
    x = session.share(a, owner="bob")
    for view in (lambda x: x, lambda x: x.T, lambda x: x[:, 0], lambda x: x[0, 0, 0]):
        bit = view(x) > 0
        np.testing.assert_array_equal((bit * view(x)).reveal(), np.maximum(view(a), 0))
    # Views of a bit, and operands that broadcast.
    bit = x > 0
    for got, want in (
        (bit[0] * x[0], (a[0] > 0) * a[0]),
        (bit * x[0], (a > 0) * a[0]),
        (bit.T * x.T, (a.T > 0) * a.T),
        (bit.sum(), (a > 0).sum()),
        (bit.sum(axis=1), (a > 0).sum(axis=1)),
        (bit.mean(axis=0), (a > 0).mean(axis=0)),
        (bit * 3, (a > 0) * 3),
        (bit * 0.5, (a > 0) * 0.5),
        (bit @ x[0].T, (a > 0) @ a[0].T),
    ):
        np.testing.assert_allclose(got.reveal(), want, rtol=0, atol=4 * UNIT)


def test_where_takes_whole_branches(session, edges):
    a, b = edges, edges[::-1]
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    condition = x < y
    np.testing.assert_array_equal(np.where(condition, x, y).reveal(), np.minimum(a, b))
    np.testing.assert_array_equal(np.where(condition, y, x).reveal(), np.maximum(a, b))
    np.testing.assert_array_equal(np.where(~condition, x, 0).reveal(), np.where(a < b, 0, a))
    np.testing.assert_array_equal(np.where(x == y, 5, -5).reveal(), np.where(a == b, 5, -5))
    np.testing.assert_array_equal(np.where(a < b, x, y).reveal(), np.minimum(a, b))
    np.testing.assert_array_equal(np.where(True, x, y).reveal(), a)
    shared = session.share(a < 0, owner="bob")
    np.testing.assert_array_equal(np.where(shared, x, y).reveal(), np.where(a < 0, a, b))


def test_bits_are_ordinary_numbers_too(session):
    a = np.array([1.0, -1.0, 0.0])
    x = session.share(a, owner="alice")
    bit = x >= 0
    np.testing.assert_array_equal((2 * bit - 1).reveal(), [1, -1, 1])
    np.testing.assert_array_equal((bit + bit).reveal(), [2, 0, 2])
    np.testing.assert_array_equal((bit == 1).reveal(), [1, 0, 1])
    np.testing.assert_array_equal((bit < 1).reveal(), [0, 1, 0])
    np.testing.assert_array_equal(bit.relu().reveal(), [1, 0, 1])
    np.testing.assert_array_equal((-bit).relu().reveal(), [0, 0, 0])
    np.testing.assert_array_equal(bit.reveal(to="bob"), [1, 0, 1])
