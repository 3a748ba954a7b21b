"""Sharing and revealing: what comes back is what went in, at everyone or at one party."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc

UNIT = 2.0**-16
LIMIT = 2**31

SHAPES = [(), (0,), (1,), (7,), (2, 3), (2, 0, 3), (1, 1, 1), (3, 1, 2, 2)]

encoded = st.integers(-LIMIT + 1, LIMIT - 1)
words = st.integers(-(2**63), 2**63 - 1)


def test_edges_come_back_exactly(session, edges):
    for owner in session.parties:
        revealed = session.share(edges, owner=owner).reveal()
        assert revealed.dtype == np.float64
        np.testing.assert_array_equal(revealed, edges)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(values=st.lists(encoded, min_size=1, max_size=100))
def test_representable_values_come_back_exactly(session, values):
    x = np.array(values) * UNIT
    np.testing.assert_array_equal(session.share(x, owner="bob").reveal(), x)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(value=st.floats(-32767.9, 32767.9))
def test_other_values_are_rounded_to_the_nearest_unit(session, value):
    revealed = session.share(value, owner="alice").reveal()
    assert revealed == round(value * 2**16) * UNIT
    assert abs(revealed - value) <= UNIT / 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(session, shape):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape) - 2.5
    for owner in (session.parties[0], session.parties[-1]):
        shared = session.share(x, owner=owner)
        assert shared.shape == shape
        assert (shared.ndim, shared.size) == (x.ndim, x.size)
        assert shared.shares.shape == (len(session.here), *shape)
        revealed = shared.reveal()
        assert np.shape(revealed) == shape
        np.testing.assert_array_equal(revealed, x)


def test_scalars_are_shared_and_not_left_to_chance(session):
    # One share of a scalar at a time is easily written into a copy.
    values = [session.share(float(k), owner="alice") for k in range(50)]
    assert [x.reveal() for x in values] == list(range(50))
    assert len({int(word) for x in values for word in x.shares}) == 50 * len(session.here)
    assert isinstance(values[3].reveal(), np.float64)


def test_memory_order_does_not_matter(session):
    x = np.arange(24.0).reshape(4, 6)
    for y in (x.T, x[::2, ::-1], np.asfortranarray(x), np.broadcast_to(x[0], (3, 6))):
        np.testing.assert_array_equal(session.share(y, owner="bob").reveal(), y)


@pytest.mark.parametrize(
    "x",
    [
        np.array([1, -2, 3], np.int8),
        np.array([1, 2, 250], np.uint8),
        np.array([2**31 - 1, -(2**31) + 1]),
        np.array([2**31 - 1], np.uint64),
        [0, 5, -7],
        3,
    ],
    ids=["int8", "uint8", "limits", "uint64", "list", "scalar"],
)
def test_whole_numbers_stay_whole(session, x):
    shared = session.share(x, owner="alice")
    assert shared.frac_bits == 0
    assert shared.dtype == np.int64
    revealed = shared.reveal()
    assert np.asarray(revealed).dtype == np.int64
    np.testing.assert_array_equal(revealed, x)


def test_bools_become_bits(session):
    shared = session.share(np.array([True, False, True]), owner="bob")
    assert (shared.frac_bits, shared.bound) == (0, 1)
    np.testing.assert_array_equal(shared.reveal(), [1, 0, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_every_float_dtype(session, dtype):
    x = np.array([1.5, -0.25, 100], dtype)
    np.testing.assert_array_equal(session.share(x, owner="alice").reveal(), x.astype(float))


def test_dtype_and_shape_can_be_stated(session):
    x = session.share([1, 2], owner="alice", dtype=float, shape=(2,))
    assert x.frac_bits == 16
    np.testing.assert_array_equal(x.reveal(), [1.0, 2.0])
    small = session.share(np.array([1, 2], np.int8), owner="alice", dtype=np.int64)
    assert small.frac_bits == 0


def test_shares_add_up_in_the_ring(session, edges):
    shares = session.share(edges, owner=session.parties[-1]).shares
    total = [sum(int(word) for word in column) % 2**64 for column in shares.T]
    assert total == [round(v * 2**16) % 2**64 for v in edges]


def test_the_owner_can_change_its_array_afterwards(session):
    for dtype in (float, np.int64):
        x = np.ones(5, dtype)
        shared = session.share(x, owner="alice")
        x[:] = 7
        np.testing.assert_array_equal(shared.reveal(), np.ones(5))


def test_reveal_to_one_party(session, edges):
    x = session.share(edges, owner="alice")
    for name in session.parties:
        before = session.cost()
        np.testing.assert_array_equal(x.reveal(to=name), edges)
        spent = (session.cost() - before).total
        assert spent.rounds == 1
    np.testing.assert_array_equal(session.reveal(x, to="bob"), edges)


def test_reveal_truncates_to_the_format(session):
    x = session.share([1.5, -2.25, 300.0], owner="alice")
    y = session.share([2.5, 3.125, -100.0], owner="bob")
    product = x * y
    assert product.frac_bits == 32
    for to in (None, "alice", session.parties[-1]):
        revealed = product.reveal(to=to)
        # Nothing beyond the format's precision.
        np.testing.assert_array_equal(revealed, np.round(revealed * 2**16) / 2**16)
        assert np.abs(revealed - [3.75, -7.03125, -30000]).max() < UNIT


@pytest.mark.parametrize(
    ("frac_bits", "int_bits"), [(0, 61), (0, 1), (1, 15), (8, 20), (16, 15), (20, 21), (30, 1)]
)
def test_other_formats(frac_bits, int_bits):
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        largest = 2**int_bits - 2.0**-frac_bits
        if frac_bits:
            values = np.array([0, 2.0**-frac_bits, largest, -largest])
            np.testing.assert_array_equal(s.share(values, owner="alice").reveal(), values)
        whole = np.array([0, 1, -1, 2 ** (int_bits + frac_bits) - 1])
        np.testing.assert_array_equal(s.share(whole, owner="alice").reveal(), whole)


def test_what_an_array_says_of_itself(session):
    x = session.share(np.zeros((2, 3)), owner="alice")
    names = ", ".join(session.parties)
    assert repr(x) == f"SharedArray(shape=(2, 3), frac_bits=16, parties={names})"
    assert str(x) == repr(x)
    assert len(x) == 2
    assert x.session is session


def test_sharing_costs_nothing(session):
    before = session.cost()
    session.share(np.zeros(100), owner="bob")
    assert session.cost() == before


# Split and join.


@settings(deadline=None, max_examples=100, derandomize=True)
@given(values=st.lists(words, max_size=20), parties=st.integers(2, 6))
def test_join_inverts_split(values, parties):
    shares = mpc.split(np.array(values, np.int64), parties)
    assert shares.shape == (parties, len(values))
    assert shares.dtype == np.uint64
    assert mpc.join(shares).tolist() == values
    for k in range(len(values)):
        assert sum(int(share[k]) for share in shares) % 2**64 == values[k] % 2**64


def test_adding_shares_adds_secrets():
    assert mpc.join(mpc.split(5, 3) + mpc.split(-7, 3)) == -2
    assert mpc.join(mpc.split(np.uint64(2**64 - 1))) == -1
    assert not (mpc.split(np.zeros(50, int)) == mpc.split(np.zeros(50, int))).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mpc.split(1.5), mpc.DtypeError, "x must hold integers"),
        (lambda: mpc.split([True]), mpc.DtypeError, "got dtype bool"),
        (lambda: mpc.split(1, 1), mpc.ArgumentError, "parties must be at least 2, got 1"),
        (lambda: mpc.split(1, 2.0), mpc.DtypeError, "parties must be a whole number, got 2.0"),
        (lambda: mpc.split(1, True), mpc.DtypeError, "parties must be a whole number, got True"),
        (lambda: mpc.join([1, 2]), mpc.DtypeError, "shares must be a uint64 array"),
        (
            lambda: mpc.join(np.zeros((1, 3), np.uint64)),
            mpc.ShapeError,
            r"at least two parties, got shape \(1, 3\)",
        ),
    ],
)
def test_split_and_join_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
