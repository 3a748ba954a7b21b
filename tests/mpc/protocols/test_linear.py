"""Sums, public factors and views: what costs nothing, and behaves as NumPy does."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

UNIT = 2.0**-16

BROADCASTS = [
    ((), ()),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((1,), (4, 2, 3)),
    ((4, 1, 3), (2, 1)),
    ((0,), (1,)),
    ((2, 0), (2, 1)),
]

encoded = st.integers(-(2**31) + 1, 2**31 - 1)


def numbers(shape, start=0):
    """Different multiples of 1/8, of both signs."""
    size = int(np.prod(shape))
    return ((np.arange(size) * 37 + start) % 200 - 99.0).reshape(shape) / 8


@settings(deadline=None, max_examples=50, derandomize=True)
@given(data=st.data())
def test_sums_are_exact(session, data):
    n = data.draw(st.integers(1, 40))
    a = np.array(data.draw(st.lists(encoded, min_size=n, max_size=n))) * UNIT
    b = np.array(data.draw(st.lists(encoded, min_size=n, max_size=n))) * UNIT
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    before = session.cost()
    results = [x + y, x - y, -x, +x, x + x - y]
    assert session.cost() == before
    expected = [a + b, a - b, -a, a, a + a - b]
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got.reveal(), want)
        assert np.all(np.abs(want) * 2**16 <= got.bound)


def test_sums_at_the_edges(session, edges):
    x = session.share(edges[:, None], owner="alice")
    y = session.share(edges, owner="bob")
    np.testing.assert_array_equal((x + y).reveal(), edges[:, None] + edges)
    np.testing.assert_array_equal((x - y).reveal(), edges[:, None] - edges)


@pytest.mark.parametrize(("left", "right"), BROADCASTS, ids=str)
@pytest.mark.parametrize(
    "op", [operator.add, operator.sub, operator.mul], ids=lambda op: op.__name__
)
def test_broadcasting_is_numpys(session, op, left, right):
    a, b = numbers(left), numbers(right, 5)
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for got in (op(x, y), op(x, b), op(a, y)):
        assert got.shape == op(a, b).shape
        np.testing.assert_allclose(got.reveal(), op(a, b), rtol=0, atol=UNIT)


PUBLIC = [
    3,
    -2,
    0,
    True,
    0.5,
    -1.25,
    np.int8(-128),
    np.uint8(200),
    np.uint64(7),
    np.float32(0.75),
    np.float64(-8.5),
    np.bool_(True),
    [1, 2, 3],
    (1.5, 0.0, -2.0),
    np.array([1, 0, 1], bool),
    np.array([-128, 0, 127], np.int8),
    np.array([0, 1, 255], np.uint8),
    np.array([0, 1, 2**20], np.uint64),
    np.array([0.5, 1, 2], np.float16),
    np.array([[0.5], [2.0]]),
]


@pytest.mark.parametrize("public", PUBLIC, ids=repr)
@pytest.mark.parametrize("dtype", [float, int])
def test_public_operands_of_every_kind_on_both_sides(session, public, dtype):
    a = np.array([1, -2, 5], dtype)
    x = session.share(a, owner="alice")
    b = np.asarray(public)
    # In Python's numbers: NumPy's small integers would wrap around.
    b = b.astype(float) if b.dtype.kind == "f" else b.astype(int)
    before = session.cost()
    results = [x + public, public + x, x - public, public - x, x * public, public * x]
    assert session.cost() == before
    expected = [a + b, b + a, a - b, b - a, a * b, b * a]
    for got, want in zip(results, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got.reveal(), want, rtol=0, atol=UNIT)
        if want.dtype.kind == "i":
            assert got.frac_bits == 0
            np.testing.assert_array_equal(got.reveal(), want)


def test_a_public_array_can_change_afterwards(session):
    public = np.array([1.0, 2.0])
    x = session.share([3.0, 4.0], owner="alice")
    results = [x + public, x * public, x - public]
    public[:] = 0
    for got, want in zip(results, ([4, 6], [3, 8], [2, 2]), strict=True):
        np.testing.assert_array_equal(got.reveal(), want)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(a=encoded, b=encoded)
def test_a_public_factor_is_exact(session, integers, a, b):
    x = session.share(a * UNIT, owner="bob")
    product = x * (b * UNIT)
    assert integers(product) << 32 - product.frac_bits == a * b
    # A whole factor adds no fractional bits.
    assert abs(a * b) <= product.bound << 32 - product.frac_bits


def test_operands_with_different_fractional_bits(session, integers):
    whole = session.share(np.array([3, -4]), owner="alice")
    fixed = session.share([0.5, 0.25], owner="bob")
    product = fixed * fixed
    for got, want in (
        (whole + fixed, [3.5, -3.75]),
        (fixed - whole, [-2.5, 4.25]),
        (whole + 0.5, [3.5, -3.5]),
        (whole * 0.5, [1.5, -2.0]),
        (whole * fixed, [1.5, -1.0]),
        (product + fixed, [0.75, 0.3125]),
        (whole + product, [3.25, -3.9375]),
        (product + 1, [1.25, 1.0625]),
        (product - 0.125, [0.125, -0.0625]),
    ):
        np.testing.assert_array_equal(got.reveal(), want)
    # A sum with a product is exact, with twice the bits.
    assert (product + fixed).frac_bits == 32
    np.testing.assert_array_equal(
        integers(product + fixed), (np.array([0.75, 0.3125]) * 2**32).astype(int)
    )


def test_large_whole_numbers_leave_no_room_for_a_products_bits(session, spent):
    a = np.array([2**31 - 1, -(2**31) + 1, 2**30, 7])
    b = np.array([1.5, 2.0, -3.0, 0.25])
    whole, fixed = session.share(a, owner="alice"), session.share(b, owner="bob")
    product = fixed * fixed
    # The product is truncated first, rather than the sum wrapping around.
    rounds = spent(session, lambda: whole + product).rounds
    assert rounds > 0 if session.source.own_shares else rounds == 1
    for got, want in (
        (whole + product, a + b * b),
        (product - whole, b * b - a),
        (np.concatenate([whole, product]), np.concatenate([a, b * b])),
        (np.stack([product, whole]), np.stack([b * b, a])),
        (np.where(whole > 0, whole, product), np.where(a > 0, a, b * b)),
        (np.maximum(whole, product), np.maximum(a, b * b)),
    ):
        np.testing.assert_array_equal(got.reveal(), want)
    np.testing.assert_array_equal((whole > product).reveal(), a > b * b)
    np.testing.assert_array_equal((product == whole).reveal(), a == b * b)
    # With a bound that leaves room it is free, and exact.
    small = session.share(a[3:], owner="alice", bound=1000)
    assert spent(session, lambda: small + product).rounds == 0
    assert (small + product).frac_bits == 32


@pytest.mark.parametrize(
    "divisor", [1, 2, 3, -7, 10, 1000, 0.5, 0.3, -0.001, 1.5, 2**15, 1e30, np.float32(3)]
)
def test_division_by_a_public_number(session, divisor):
    a = np.array([0, 1, -1, 5.5, -100.25, 32000, -32000])
    a = a * min(1, abs(float(divisor)))
    a = np.round(a * 2**16) / 2**16
    x = session.share(a, owner="alice")
    error = (x / divisor).reveal() - a / float(divisor)
    assert np.abs(error).max() <= UNIT


def test_division_of_whole_numbers_and_products(session):
    whole = session.share(np.array([1, -7, 10]), owner="alice")
    np.testing.assert_allclose((whole / 4).reveal(), [0.25, -1.75, 2.5], rtol=0, atol=UNIT)
    x = session.share([1.5, -3.0], owner="bob")
    np.testing.assert_allclose((x * x / 3).reveal(), [0.75, 3.0], rtol=0, atol=UNIT)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (-1, 0), ()], ids=str)
def test_sum_and_mean_along_axes(session, axis):
    a = numbers((2, 3, 4))
    x = session.share(a, owner="alice")
    assert x.sum(axis).shape == a.sum(axis).shape
    np.testing.assert_array_equal(x.sum(axis).reveal(), a.sum(axis))
    np.testing.assert_allclose(x.mean(axis).reveal(), a.mean(axis), rtol=0, atol=UNIT)
    assert x.sum(axis).bound >= np.abs(a.sum(axis) * 2**16).max()


def test_the_sum_of_nothing_is_zero(session):
    x = session.share(np.zeros((0, 3)), owner="alice")
    np.testing.assert_array_equal(x.sum(0).reveal(), np.zeros(3))
    assert x.sum().reveal() == 0


KEYS = [
    0,
    -1,
    np.int64(1),
    slice(None),
    slice(1, None),
    slice(None, None, -1),
    Ellipsis,
    None,
    (0, 1),
    (0, 1, 2),
    (slice(None), 0),
    (Ellipsis, 0),
    (0, Ellipsis, None),
    (slice(None), None, slice(1, 3)),
    [1, 0, 1],
    np.array([[0, 1], [1, 0]]),
    (slice(None), [2, 0]),
    ([0, 1], [2, 0]),
    (0, slice(None), [0, 1]),
    ([0, 1], slice(None), [3, 0]),
    ([0, 1], slice(None), 2),
    (slice(None), [2, 0], slice(None, None, 2)),
    (Ellipsis, [3, 1]),
    (np.array([[0], [1]]), slice(None), np.array([0, 2, 3])),
    (None, [0, 1], slice(None), [3, 0]),
    np.array([True, False]),
    (slice(None), np.array([True, False, True])),
    (0, np.array([True, False, True]), slice(None)),
    slice(0, 0),
    [],
]


@pytest.mark.parametrize("masked", [False, True], ids=["shares", "masked"])
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_indexing_is_numpys(session, key, masked):
    a = numbers((2, 3, 4))
    key_of_numpy = np.array(key, int) if isinstance(key, list) else key
    x = session.share(a, owner="bob")
    if masked:
        (x * x).reveal()
    part = x[key]
    want = a[key_of_numpy]
    assert part.shape == want.shape
    assert part.shares.shape == (len(session.here), *want.shape)
    np.testing.assert_array_equal(part.reveal(), want)
    # The provider finds the mask of the part, too.
    np.testing.assert_allclose((part * 2.0).reveal(), 2 * want, rtol=0, atol=UNIT)
    np.testing.assert_allclose((part * part).reveal(), want**2, rtol=0, atol=UNIT)


def test_an_index_array_can_change_afterwards(session):
    x = session.share([1.0, 2.0, 3.0], owner="alice")
    (x * x).reveal()
    key = np.array([0, 2])
    part = x[key]
    key[:] = 1
    np.testing.assert_allclose((part * part).reveal(), [1, 9], rtol=0, atol=UNIT)


@pytest.mark.parametrize("masked", [False, True], ids=["shares", "masked"])
def test_transpose_and_reshape_are_numpys(session, masked):
    a = numbers((2, 3, 4))
    x = session.share(a, owner="alice")
    if masked:
        (x * x).reveal()
    for got, want in (
        (x.T, a.T),
        (x.transpose(), a.transpose()),
        (x.transpose(None), a.transpose(None)),
        (x.transpose(1, 0, 2), a.transpose(1, 0, 2)),
        (x.transpose((2, 0, 1)), a.transpose(2, 0, 1)),
        (x.transpose([-1, 0, 1]), a.transpose(-1, 0, 1)),
        (x.reshape(6, 4), a.reshape(6, 4)),
        (x.reshape((4, -1)), a.reshape(4, -1)),
        (x.reshape(-1), a.reshape(-1)),
        (x.ravel(), a.ravel()),
        (x.T.ravel(), a.T.ravel()),
        (x.T.flatten(), a.T.flatten()),
        (x.transpose(1, 0, 2)[1].reshape(-1), a.transpose(1, 0, 2)[1].reshape(-1)),
        (x[0].T, a[0].T),
        (x[:, 0].T.reshape(8, 1), a[:, 0].T.reshape(8, 1)),
    ):
        assert got.shape == want.shape
        np.testing.assert_array_equal(got.reveal(), want)
        np.testing.assert_allclose((got * got).reveal(), want * want, rtol=0, atol=UNIT)


def test_iteration_gives_secret_rows(session):
    a = numbers((3, 2))
    rows = list(session.share(a, owner="alice"))
    assert [type(row).__name__ for row in rows] == ["SharedArray"] * 3
    np.testing.assert_array_equal([row.reveal() for row in rows], a)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_concatenate(session, axis):
    a, b = numbers((2, 3)), numbers((2, 3), 7)
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    (x * x).reveal()
    joined = np.concatenate([x, y, x], axis=axis)
    np.testing.assert_array_equal(joined.reveal(), np.concatenate([a, b, a], axis=axis))
    flat = np.concatenate([x, y], axis=None)
    np.testing.assert_array_equal(flat.reveal(), np.concatenate([a, b], axis=None))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_stack(session, axis):
    a, b = numbers((2, 3)), numbers((2, 3), 7)
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    np.testing.assert_array_equal(np.stack([x, y], axis=axis).reveal(), np.stack([a, b], axis=axis))


def test_joining_different_formats(session):
    whole = session.share(np.array([1, 2]), owner="alice")
    fixed = session.share([0.5, -0.5], owner="bob")
    joined = np.concatenate([whole, fixed, fixed * fixed])
    np.testing.assert_array_equal(joined.reveal(), [1, 2, 0.5, -0.5, 0.25, 0.25])
    np.testing.assert_array_equal(np.stack([fixed, whole]).reveal(), [[0.5, -0.5], [1, 2]])


@pytest.mark.filterwarnings("error")
def test_scalars_wrap_around_without_warnings(session):
    a, b = 1.5, -2.25
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for _ in range(5):
        assert (x + y).reveal() == a + b
        assert (x * 3).reveal() == 3 * a
        assert (1 - x).reveal() == 1 - a
        assert abs((x * y).reveal() - a * b) <= UNIT
        assert x.reshape(1).sum().reveal() == a
        assert (x < y).reveal() == 0
        assert np.maximum(x, y).reveal() == a
        assert y.relu().reveal() == 0
