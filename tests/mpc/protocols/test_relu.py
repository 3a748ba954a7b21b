"""ReLU: exact against the value that the truncation gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc.core import correlation
from mpc.protocols import comparison, relu, sign
from mpc.protocols.relu import relu_in_four_rounds, relu_with_derivative
from ring.digits import digits_of, split_evenly

UNIT = 2.0**-16

wide = st.integers(-(2**62) + 1, 2**62 - 1)
# Around zero, where a sign is easily wrong.
small = st.integers(-(2**18), 2**18)


def may_be(z, shift):
    """Return the least and the largest that truncation and ReLU may make of integers z."""
    floor = z >> shift
    return np.maximum(floor, 0), np.maximum(floor + (z % 2**shift != 0), 0)


def test_exact_where_nothing_is_truncated(session, edges):
    want = np.maximum(edges, 0)
    x = session.share(edges, owner="alice")
    for given_or_computed in (x, x + 0, x * -1 * -1):
        np.testing.assert_array_equal(given_or_computed.relu().reveal(), want)
    whole = session.share((edges * 2**16).astype(int), owner="bob")
    np.testing.assert_array_equal(whole.relu().reveal(), want * 2**16)


def test_edges_of_products(session, share_integers, integers, wide_edges):
    low, high = may_be(wide_edges, 16)
    for _ in range(3):
        y = share_integers(session, wide_edges, frac_bits=32).relu()
        assert y.frac_bits == 16
        got = integers(y)
        assert np.all((got == low) | (got == high))


@pytest.mark.dealt
@settings(deadline=None, max_examples=50, derandomize=True)
@given(z=st.lists(wide | small, min_size=1, max_size=130))
def test_exact_against_the_truncated_value(session, share_integers, integers, tap, z):
    x = share_integers(session, z, frac_bits=32)
    with tap(session) as heard:
        y, derivative = relu_with_derivative(x)
    words = heard.dealt[0][2]
    r = words[:, : len(z)].sum(axis=0, dtype=np.uint64)
    # Rounded as a truncation rounds, by the low bits of the mask.
    truncated = [(v + int(mask) % 2**16) >> 16 for v, mask in zip(z, r, strict=True)]
    assert integers(y).tolist() == [max(v, 0) for v in truncated]
    bits = comparison.bit_array(x, derivative)
    assert bits.reveal().tolist() == [int(v > 0) for v in truncated]


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000])
def test_every_size(session, size):
    a = np.random.default_rng(size).integers(-(2**31) + 1, 2**31, size) * UNIT
    x = session.share(a, owner="bob")
    np.testing.assert_array_equal(x.relu().reveal(), np.maximum(a, 0))
    got = (x * 1.0).relu().reveal()
    np.testing.assert_array_equal(got, np.maximum(a, 0))


def test_shapes_are_kept(session):
    a = np.random.default_rng(0).normal(size=(3, 1, 5))
    x = session.share(a, owner="alice")
    for view in (lambda x: x, lambda x: x.T, lambda x: x[:, 0, ::2], lambda x: x[1, 0, 2]):
        got = view(x).relu().reveal()
        assert np.shape(got) == np.shape(view(a))
        np.testing.assert_array_equal(got, np.maximum(np.round(view(a) * 2**16) * UNIT, 0))


@pytest.mark.parametrize("frac_bits", [0, 1, 2, 3, 4, 5, 7, 8, 10, 13, 14, 15, 17, 20, 23, 27, 30])
def test_every_format(share_integers, integers, wide_edges, frac_bits):
    low, high = may_be(wide_edges, frac_bits)
    with mpc.Session(("alice", "bob", "carol"), frac_bits=frac_bits, int_bits=31 - frac_bits) as s:
        for _ in range(3):
            got = integers(share_integers(s, wide_edges, frac_bits=2 * frac_bits).relu())
            assert np.all((got == low) | (got == high))


def test_the_bound_follows(session, share_integers):
    for bound in (1, 2**16, 2**16 + 1, 2**40):
        x = share_integers(session, [bound, -bound], frac_bits=32, bound=bound)
        y = x.relu()
        assert y.bound == -(-bound >> 16)
        assert y.reveal().max() * 2**16 <= y.bound


def test_the_mean_of_a_rounded_relu(session, share_integers, integers):
    n, z = 100_000, 3 * 2**14
    got = integers(share_integers(session, np.full(n, z), frac_bits=32).relu())
    # Three quarters, to seven standard deviations.
    assert abs(got.sum() - 0.75 * n) <= 7 * np.sqrt(n * 0.75 * 0.25)


def edges_of(window, shift):
    """Return z for which something could go wrong in a window of L bits from bit `shift` on."""
    top = 2 ** (window - 1) - 1
    ys = {0, 1, 2, 3, top - 1, top, 2 ** (window // 2)}
    ys = {y for y in ys | {-y for y in ys} if abs(y) <= top}
    lows = {0, 1, 2**shift - 1, 2**shift // 2} if shift else {0}
    zs = {(y << shift) + low for y in ys for low in lows}
    return sorted(z for z in zs if abs(z) <= min(top << shift, 2**62 - 1))


def check_words(session, share_integers, integers, tap, form, window, shift, size):
    """Compare ReLU of edge values and its derivative with what follows from the masks that were dealt."""
    z = np.resize(np.array(edges_of(window, shift)), size)
    bound = max(1, min((2 ** (window - 1) - 1) << shift, 2**62 - 1))
    x = share_integers(session, z, frac_bits=16 + shift, bound=bound)
    with tap(session) as heard:
        y, derivative = form(x)
    asked, words = heard.dealt[0][1:]
    assert asked.ands == (2 if form is relu_in_four_rounds else 1)
    r = words[:, :size].sum(axis=0, dtype=np.uint64)
    c = [(int(v) + 2**62 + int(mask)) % 2**64 for v, mask in zip(z, r, strict=True)]
    expected = []
    for opened, mask in zip(c, map(int, r), strict=True):
        kappa = (1 - (opened >> 63)) << 64 - shift if shift else 0
        word = (opened >> shift) - 2 ** (62 - shift) - (mask >> shift) + kappa * (mask >> 63)
        expected.append((word + 2**63) % 2**64 - 2**63)
    assert integers(y).tolist() == [max(v, 0) for v in expected]
    bits = comparison.bit_array(x, derivative)
    assert bits.reveal().tolist() == [int(v > 0) for v in expected]


@pytest.mark.dealt
@pytest.mark.parametrize("form", [relu_with_derivative, relu_in_four_rounds])
@pytest.mark.parametrize("shift", [0, 1, 16, 17, 40])
@pytest.mark.parametrize("window", [2, 5, 8, 20, 24, 33, 47])
def test_the_words_follow_from_the_mask(
    session, share_integers, integers, tap, form, shift, window
):
    """Truncation and ReLU of z under the mask r, whatever the digits: y of section 4, or 0."""
    for size in (1, 63, 64, 65):
        check_words(
            session, share_integers, integers, tap, form, min(window, 64 - shift), shift, size
        )


@pytest.mark.dealt
@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5, 7, 10, 13, 17, 23])
def test_any_number_of_digits_in_four_rounds(
    session, share_integers, integers, tap, monkeypatch, digits
):
    window = min(1 + 8 * digits, 24)
    chosen = digits_of(split_evenly(window - 1, digits), True)
    monkeypatch.setattr(sign, "digits_for", lambda *asked: chosen)
    monkeypatch.setattr(correlation, "_layouts", {})
    sign._parts_of.cache_clear()
    try:
        check_words(session, share_integers, integers, tap, relu_in_four_rounds, window, 16, 65)
    finally:
        sign._parts_of.cache_clear()


@pytest.mark.dealt
@pytest.mark.parametrize("size", [0, 1, 64, 1000])
def test_four_rounds_cost_what_is_stated(session, share_integers, spent, size):
    for shift, bound in ((0, 2**31 - 1), (16, 2**47 - 1), (40, 2**62 - 1)):
        x = share_integers(session, np.zeros(size), frac_bits=16 + shift, bound=bound)
        window = sign.window_of(-(-bound >> shift), shift, (1,))
        found = spent(session, lambda x=x: relu_in_four_rounds(x))
        assert found == relu.cost(session.size, size, shift, window, ands=2)
        assert found.trips == found.rounds == 4
