"""Bounds: they hold, and comparisons that look at no more bits than the bound asks for are right."""

import numpy as np
import pytest

import mpc
from mpc.protocols import pooling
from mpc.protocols.sign import count_bits

UNIT = 2.0**-16

BOUNDS = sorted(
    {1, 2, 3, 2**31 - 1, 2**61, 2**62 - 1}
    | {2**k + step for k in (3, 7, 11, 15, 16, 27, 31, 35, 47, 59) for step in (-1, 0, 1)}
)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_window_holds_the_bound_and_its_sign_and_is_not_wider(bound):
    window = count_bits(bound)
    assert bound < 2 ** (window - 1)
    assert window == 64 or bound >= 2 ** (window - 2)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_largest_values_of_a_window(session, share_integers, integers, bound):
    some = {0, 1, bound // 2, bound // 2 + 1, max(0, bound - 1), bound}
    z = np.array(sorted(some | {-n for n in some}))
    # Values of 2^62 themselves cannot be shared that way; they stand in the shares.
    z = z[np.abs(z) < 2**62]
    x = share_integers(session, z, bound=bound)
    assert x.bound == bound
    np.testing.assert_array_equal((x < 0).reveal(), z < 0)
    np.testing.assert_array_equal((x > 0).reveal(), z > 0)
    np.testing.assert_array_equal((x == 0).reveal(), z == 0)
    np.testing.assert_array_equal(x.relu().reveal(), np.maximum(z, 0))
    # Twice the bound, which may be 2^63.
    rows = np.stack([z, z[::-1], np.zeros_like(z)], axis=1)
    y = share_integers(session, rows, bound=bound)
    np.testing.assert_array_equal(y.argmax(axis=1).reveal(), rows.argmax(axis=1))
    np.testing.assert_array_equal(y.max(axis=1).reveal(), rows.max(axis=1))
    # The same values with a shift in front of the window.
    y = share_integers(session, z, frac_bits=32, bound=bound)
    got = integers(y.relu())
    low = np.maximum(z >> 16, 0)
    high = np.maximum((z >> 16) + (z % 2**16 != 0), 0)
    assert np.all((got == low) | (got == high))


def differences(bound):
    """Pairs whose differences are as large as the bound allows, and zero, and one."""
    z = [n for n in (0, 1, bound // 2, bound - 1, bound) if n < 2**62]
    z = sorted({*z, *(-n for n in z)})
    return np.repeat(z, len(z)), np.tile(z, len(z))


@pytest.mark.parametrize("bound", [1, 2**31 - 1, 2**60, 2**61 - 1, 2**61, 2**61 + 1, 2**62])
def test_two_values_may_differ_by_twice_their_bound(session, share_integers, bound):
    a, b = differences(bound)
    x, y = (share_integers(session, v, bound=bound) for v in (a, b))
    for z, right in (
        (x < y, a < b), (x <= y, a <= b), (x > y, a > b), (x >= y, a >= b), (x == y, a == b),
        (x != y, a != b), (np.maximum(x, y), np.maximum(a, b)), (np.minimum(x, y), np.minimum(a, b)),
        (abs(x), abs(a)),
    ):  # fmt: skip
        np.testing.assert_array_equal(z.reveal(), right)
        assert np.abs(right).max() <= z.bound <= bound
    layers = np.stack([x, y, -x, -y, x])
    largest, bits = pooling.maximum_with_bits(layers)
    np.testing.assert_array_equal(largest.reveal(), np.maximum(abs(a), abs(b)))
    assert largest.bound == bound
    passed = pooling.maximum_gradient(x, bits, 5)
    np.testing.assert_array_equal(passed.sum(axis=0).reveal(), a)
    assert passed.bound == bound
    # And public values, as large as may be.
    for public in (2**61 - 1, -(2**61) + 1, 0):
        np.testing.assert_array_equal((x < public).reveal(), a < public)
        np.testing.assert_array_equal((x >= public).reveal(), a >= public)
        np.testing.assert_array_equal(np.maximum(x, public).reveal(), np.maximum(a, public))
        np.testing.assert_array_equal(np.minimum(x, public).reveal(), np.minimum(a, public))


def test_whole_numbers_beside_fixed_point_at_the_ends_of_the_ring(session, share_integers):
    """The whole numbers have room for 16 bits behind the point, their differences have not."""
    whole = np.array([2**46 - 1, 1 - 2**46, 0, 2**46 - 1])
    fixed = np.array([1 - 2**62, 2**62 - 1, 1, 2**62 - 2**16])
    x = share_integers(session, whole, bound=2**46)
    y = share_integers(session, fixed, frac_bits=16, bound=2**62)
    np.testing.assert_array_equal((x < y).reveal(), whole << 16 < fixed)
    np.testing.assert_array_equal((y <= x).reveal(), fixed <= whole << 16)
    np.testing.assert_array_equal((x == y).reveal(), whole << 16 == fixed)
    largest = np.maximum(x, y)
    np.testing.assert_array_equal(largest.reveal(), np.maximum(whole << 16, fixed) * 2.0**-16)
    assert 2**62 - 1 <= largest.bound <= 2**62
    # And a public number, which brings the format's bits.
    np.testing.assert_array_equal((x > 0.5).reveal(), whole > 0)
    np.testing.assert_array_equal((x < -(2.0**44)).reveal(), whole < -(2**44))


def test_many_values_are_as_large_as_few(session, share_integers):
    """In groups: no sum of one of many goes by the bounds of all."""
    z = np.array([-(2**62) + 1, 2**62 - 1, *range(40), 2**62 - 1, 2**62 - 2])
    x = share_integers(session, z, bound=2**62)
    assert (x.argmax().reveal(), x.max().reveal(), x.min().reveal()) == (1, z[1], z[0])
    assert 2**62 - 1 <= x.max().bound <= 2**62


def test_a_window_ends_where_the_word_does():
    assert [count_bits(2**63, s) for s in (0, 1, 3, 4, 60)] == [64, 63, 61, 60, 4]
    assert count_bits(0) == 2


@pytest.mark.parametrize("limit", [1, 1.0, 0.5, 3, 1000.25, 32767, 1e9, np.float32(2)])
def test_bounds_of_shared_values(session, limit):
    largest = min(float(limit), 32768 - UNIT)
    a = np.array([largest, -largest, 0, largest / 2])
    x = session.share(a, owner="alice", bound=limit)
    assert x.bound == min(2**31 - 1, int(np.ceil(largest * 2**16)))
    a = np.round(a * 2**16) * UNIT
    np.testing.assert_array_equal(x.reveal(), a)
    np.testing.assert_array_equal(x.relu().reveal(), np.maximum(a, 0))
    np.testing.assert_array_equal((x < x[::-1]).reveal(), a < a[::-1])


def test_bounds_of_whole_numbers(session):
    a = np.array([7, -7, 0])
    x = session.share(a, owner="alice", bound=7)
    assert x.bound == 7
    np.testing.assert_array_equal((x < 0).reveal(), a < 0)
    assert session.share(a, owner="alice").bound == 2**31 - 1
    assert session.share(a, owner="alice", bound=np.inf).bound == 2**31 - 1
    small = np.array([-128, 127], np.int8)
    np.testing.assert_array_equal(
        (session.share(small, owner="bob", bound=128) < 0).reveal(), [1, 0]
    )


@pytest.mark.dealt
def test_a_smaller_bound_costs_less(session, spent):
    a = np.zeros(640)
    costs = []
    for bound in (None, 1000, 1, 0.0001):
        x = session.share(a, owner="alice", bound=bound)
        costs.append(spent(session, x.relu))
    sizes = [cost.bytes_sent for cost in costs]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    assert costs[0].correction_bytes > costs[-1].correction_bytes


def test_stated_bounds(session):
    a = np.array([3.0, -4.0])
    x = session.share(a, owner="alice")
    product = x * x
    stated = product.with_bound(16)
    assert stated.bound == 16 * 2**32
    assert product.bound > stated.bound
    np.testing.assert_array_equal(stated.reveal(), a * a)
    np.testing.assert_array_equal((stated < 10).reveal(), a * a < 10)
    # A bound is never widened.
    assert stated.with_bound(1e6).bound == stated.bound
    assert stated.with_bound(np.inf).bound == stated.bound
    # What is known of the array stays: mask, bit and owner.
    (x * x).reveal()
    assert x.with_bound(4).mask is x.mask
    bit = x > 0
    assert bit.with_integer_bound(1) is bit


@pytest.mark.parametrize(
    ("a", "b"),
    [([3, -4, 2.5], [0.5, 2, -2]), ([4, 4, 4], [2, 2, 2]), ([-4, -4, -4], [2, 2, 2])],
    ids=["mixed", "largest", "smallest"],
)
def test_bounds_follow_the_arithmetic(session, a, b):
    a, b = np.array(a, float), np.array(b, float)
    x = session.share(a, owner="alice", bound=4)
    y = session.share(b, owner="bob", bound=2)
    results = [
        x, x + y, x - y, -x, x + 1.5, 2 - x, x * 3, x * -2.5, x * y, x / 3, x / -0.5, x**3,
        x @ y, x @ b, a @ y, x.sum(), x.mean(), x.max(), x.min(), x.argmax(), x.relu(), abs(x),
        np.maximum(x, y), np.minimum(x, y), np.minimum(x, 1), np.clip(x, -1, 1), x < y, (x < y) * x,
        np.where(x < y, x, y), np.concatenate([x, y]), np.stack([x, y * y]), x[1:], x.T,
        (x * y).truncate(), (x * y).relu(), np.stack([x] * 3) @ np.stack([y] * 3), x * y + x,
        (x < y).sum(), np.stack([x, x]).sum(axis=(0, 1)), ((x < 9) + (y < 9)).sum(),
    ]  # fmt: skip
    for z in results:
        value = z.derive(z.shares, frac_bits=0, bound=z.bound).reveal()
        assert np.abs(value).max() <= z.bound
        assert z.bound < 2**62


def test_bounds_are_capped_where_the_protocols_end():
    with mpc.Session() as s:
        x = s.share(np.ones(4), owner="alice")
        assert (x @ x).bound == 2**62 - 1
        assert (x * 2**40).bound == 2**62 - 1
