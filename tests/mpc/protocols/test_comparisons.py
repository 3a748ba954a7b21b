"""Comparisons are exact for every pair of values, equal ones too."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.protocols import sign

UNIT = 2.0**-16

OPERATORS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
every_operator = pytest.mark.parametrize("compare", OPERATORS, ids=lambda f: f.__name__)

encoded = st.integers(-(2**31) + 1, 2**31 - 1)


@every_operator
def test_all_pairs_of_edges(session, edges, compare):
    x = session.share(edges[:, None], owner="alice")
    y = session.share(edges, owner="bob")
    bits = compare(x, y)
    assert (bits.frac_bits, bits.bound) == (0, 1)
    revealed = bits.reveal()
    assert revealed.dtype == np.int64
    np.testing.assert_array_equal(revealed, compare(edges[:, None], edges))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(pairs=st.lists(st.tuples(encoded, st.integers(-2, 2)), min_size=1, max_size=80))
def test_neighbours(session, pairs):
    a = np.array([v for v, _ in pairs]) * UNIT
    b = np.clip(np.array([v + step for v, step in pairs]), -(2**31) + 1, 2**31 - 1) * UNIT
    x, y = session.share(a, owner="bob"), session.share(b, owner="alice")
    for compare in OPERATORS:
        np.testing.assert_array_equal(compare(x, y).reveal(), compare(a, b))


@every_operator
def test_whole_numbers(session, compare):
    a = np.array([0, 5, -5, 2**31 - 1, -(2**31) + 1, 7])
    b = np.array([0, -5, -5, -(2**31) + 1, 2**31 - 1, 8])
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    np.testing.assert_array_equal(compare(x, y).reveal(), compare(a, b))
    np.testing.assert_array_equal(compare(x, 5).reveal(), compare(a, 5))
    np.testing.assert_array_equal(compare(x, 0.5).reveal(), compare(a, 0.5))
    bits = session.share(a > 0, owner="alice")
    np.testing.assert_array_equal(compare(bits, 1).reveal(), compare(a > 0, 1))
    np.testing.assert_array_equal(compare(bits, y > 0).reveal(), compare(a > 0, b > 0))


@every_operator
def test_public_operands_on_both_sides(session, edges, compare):
    x = session.share(edges, owner="alice")
    for public in (0, 0.0, -1, UNIT, 32767.0, -32768.5, 2**20, edges[::-1]):
        np.testing.assert_array_equal(compare(x, public).reveal(), compare(edges, public))
        np.testing.assert_array_equal(compare(public, x).reveal(), compare(public, edges))


@every_operator
def test_products_are_compared_without_rounding(session, compare):
    # The last pair differs by 2^-32 only.
    a = np.array([1.5, 1.5, 1 + UNIT])
    b = np.array([2.25, 2.25 + UNIT, 1 + 2 * UNIT])
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    product = x * x
    before = session.cost()
    bits = compare(product, y)
    assert (session.cost() - before).by_protocol.keys() <= {"comparison", "product"}
    np.testing.assert_array_equal(bits.reveal(), compare(a * a, b))


@every_operator
def test_values_as_large_as_the_ring_allows(session, share_integers, compare):
    z = np.array([2**62 - 1, -(2**62) + 1, 2**61, -(2**61), 0, 1, -1])
    x = share_integers(session, z)
    np.testing.assert_array_equal(compare(x, 0).reveal(), compare(z, 0))
    half = share_integers(session, z // 2, bound=2**61)
    other = share_integers(session, z[::-1] // 2, bound=2**61)
    np.testing.assert_array_equal(compare(half, other).reveal(), compare(z // 2, z[::-1] // 2))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 130])
def test_every_size(session, size):
    random = np.random.default_rng(size)
    a, b = random.integers(-2, 3, (2, size)) * UNIT
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for compare in OPERATORS:
        got = compare(x, y).reveal()
        assert got.shape == (size,)
        np.testing.assert_array_equal(got, compare(a, b))


def test_broadcasting(session):
    a, b = np.arange(6.0).reshape(2, 1, 3), np.arange(4.0)[:, None]
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for compare in OPERATORS:
        np.testing.assert_array_equal(compare(x, y).reveal(), compare(a, b))


def test_every_format():
    for frac_bits in (0, 1, 3, 8, 13, 20, 30):
        with mpc.Session(frac_bits=frac_bits, int_bits=31 - frac_bits) as s:
            a = np.array([0, 1, -1, 2**31 - 1, -(2**31) + 1, 12345])
            dtype = float if frac_bits else int
            a = (a / 2**frac_bits).astype(dtype)
            x = s.share(a[:, None], owner="alice")
            y = s.share(a, owner="bob")
            for compare in OPERATORS:
                np.testing.assert_array_equal(compare(x, y).reveal(), compare(a[:, None], a))


# Maxima of two arrays.


def test_maximum_minimum_and_magnitude_are_exact(session, edges):
    x = session.share(edges[:, None], owner="alice")
    y = session.share(edges, owner="bob")
    np.testing.assert_array_equal(np.maximum(x, y).reveal(), np.maximum(edges[:, None], edges))
    np.testing.assert_array_equal(np.minimum(x, y).reveal(), np.minimum(edges[:, None], edges))
    np.testing.assert_array_equal(np.maximum(y, 0).reveal(), np.maximum(edges, 0))
    np.testing.assert_array_equal(np.minimum(y, 0).reveal(), np.minimum(edges, 0))
    np.testing.assert_array_equal(np.maximum(y, -1.5).reveal(), np.maximum(edges, -1.5))
    np.testing.assert_array_equal(abs(y).reveal(), abs(edges))
    np.testing.assert_array_equal(np.clip(y, -2, 3.5).reveal(), np.clip(edges, -2, 3.5))


def test_maximum_of_products(session):
    a, b = np.array([1.5, -2.0, 3.0]), np.array([2.0, 4.5, -7.0])
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    np.testing.assert_array_equal(np.maximum(x * x, y).reveal(), np.maximum(a * a, b))
    np.testing.assert_array_equal(np.minimum(y, x * y).reveal(), np.minimum(b, a * b))
    np.testing.assert_array_equal(np.maximum(x * x, y * y).reveal(), np.maximum(a * a, b * b))
    np.testing.assert_array_equal(abs(x * y).reveal(), abs(a * b))


def test_bounds_of_maxima_hold(session, edges):
    x = session.share(edges, owner="alice", bound=32768)
    y = session.share(edges[::-1], owner="bob")
    for z in (np.maximum(x, y), np.minimum(x, y), abs(x), np.maximum(x, 100)):
        assert np.abs(z.reveal() * 2**16).max() <= z.bound


@pytest.mark.parametrize("bound", [0, 1, 7, 8, 2**31 - 1, 2**31, 2**62 - 1])
@pytest.mark.parametrize("shift", [0, 1, 16, 33, 60])
def test_a_window_holds_every_value_and_is_above_the_shift(bound, shift):
    held = sign.count_bits(-(-bound >> shift), shift)
    assert 2 <= held <= 64 - shift
    # y and y - 1 in L signed bits, unless those are all that there are.
    assert -(-bound >> shift) < 1 << held - 1 or held == 64 - shift
