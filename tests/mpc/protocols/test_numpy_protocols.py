"""NumPy functions with operands of many kinds, against NumPy itself."""

import numpy as np
import pytest

import mpc
from mpc.array.numpy_functions import FUNCTIONS, UFUNCS

UNIT = 2.0**-16

A = np.array([[1.5, -2.0, 0.0, 3.25], [-0.5, 7.0, -2.0, -6.75]])
B = np.array([[2.0, -2.0, 1.0, -3.25], [0.25, 7.0, -2.5, 6.75]])
BITS = np.array([1, 0, 1, 1])
OTHER_BITS = np.array([1, 1, 0, 1])

# Which arrays a function takes. "xy": both secret, the first or the second of them.
BINARY = {
    np.add, np.subtract, np.multiply, np.maximum, np.minimum,
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
}  # fmt: skip
ON_BITS = {
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.logical_and, np.logical_or, np.logical_xor,
}  # fmt: skip
OTHERS = {
    np.matmul: [
        lambda x, y: np.matmul(x, y.T),
        lambda x, y: np.matmul(x.T, y),
        lambda x, y: np.matmul(x[0], y[1]),
    ],
    np.true_divide: [lambda x, y: np.true_divide(x, 4), lambda x, y: np.divide(x, np.float32(-2)),
        lambda x, y: np.divide(x, y), lambda x, y: x[0] / y, lambda x, y: 1 / y, lambda x, y: A / y],
    np.power: [
        lambda x, y: np.power(x, 1),
        lambda x, y: np.power(x, 3),
        lambda x, y: np.power(x * x, 0.25),
    ],
    # More of these in test_normalised.py and test_rounding.py.
    np.exp: [lambda x, y: np.exp(x / 2), lambda x, y: np.exp(np.minimum(x, y) / 2)],
    np.log: [lambda x, y: np.log(x * x + 1)],
    np.sqrt: [lambda x, y: np.sqrt(y * y)],
    np.reciprocal: [lambda x, y: np.reciprocal(y)],
    np.sign: [lambda x, y: np.sign(x)],
    np.floor: [lambda x, y: np.floor(x)],
    np.ceil: [lambda x, y: np.ceil(x)],
    np.rint: [lambda x, y: np.rint(x)],
    np.round: [lambda x, y: np.round(x), lambda x, y: np.round(x, decimals=0)],
    np.square: [lambda x, y: np.square(x)],
    np.negative: [lambda x, y: np.negative(x)],
    np.positive: [lambda x, y: np.positive(x)],
    np.absolute: [lambda x, y: np.absolute(x), lambda x, y: np.abs(x), lambda x, y: abs(y)],
    np.tanh: [],  # an approximation: tests/mpc/protocols/test_sigmoid.py
    np.invert: [],
    np.logical_not: [],
    np.sum: [
        lambda x, y: np.sum(x),
        lambda x, y: np.sum(x, 0),
        lambda x, y: np.sum(x, axis=(0, 1)),
    ],
    np.mean: [lambda x, y: np.mean(x), lambda x, y: np.mean(x, axis=-1)],
    np.max: [lambda x, y: np.max(x), lambda x, y: np.max(x, axis=0), lambda x, y: x.max(1)],
    np.min: [lambda x, y: np.min(x), lambda x, y: np.min(x, axis=1), lambda x, y: x.min(0)],
    np.argmax: [lambda x, y: np.argmax(x), lambda x, y: np.argmax(x, axis=1)],
    np.argmin: [lambda x, y: np.argmin(x), lambda x, y: np.argmin(x, 0)],
    np.reshape: [lambda x, y: np.reshape(x, (4, 2)), lambda x, y: np.reshape(x, -1)],
    np.ravel: [lambda x, y: np.ravel(x)],
    np.transpose: [lambda x, y: np.transpose(x), lambda x, y: np.transpose(x, (1, 0))],
    np.swapaxes: [lambda x, y: np.swapaxes(x, 0, -1)],
    np.squeeze: [
        lambda x, y: np.squeeze(x[None, :, None]),
        lambda x, y: np.squeeze(x[None, :, None], axis=0),
    ],
    np.expand_dims: [lambda x, y: np.expand_dims(x, 1), lambda x, y: np.expand_dims(x, (0, -1))],
    np.concatenate: [
        lambda x, y: np.concatenate([x, y]),
        lambda x, y: np.concatenate((x, y), axis=1),
    ],
    np.stack: [lambda x, y: np.stack([x, y]), lambda x, y: np.stack((x, y), axis=-1)],
    np.where: [
        lambda x, y: np.where(x > y, x, y),
        lambda x, y: np.where(x > 0, x, 1.5),
        lambda x, y: np.where(x > 0, -1.5, x),
        lambda x, y: np.where(x == y, 1, 0),
        lambda x, y: np.where(x < y, np.uint8(1), np.uint8(2)),
        lambda x, y: np.where(x[0] > 0, x, y),
        lambda x, y: np.where(A > 0, x, y),
        lambda x, y: np.where([[True], [False]], x, 2.5),
        lambda x, y: np.where(A > 0, 2, y),
    ],
    np.clip: [
        lambda x, y: np.clip(x, -1, 2.5),
        lambda x, y: np.clip(x, None, 1.0),
        lambda x, y: np.clip(x, 0, None),
        lambda x, y: np.clip(x, a_min=-0.5, a_max=0.5),
        lambda x, y: np.clip(x, y, 4),
    ],
    np.dot: [
        lambda x, y: np.dot(x, y.T),
        lambda x, y: np.dot(x[0], y[0]),
        lambda x, y: np.dot(x, 2.0),
    ],
    np.shape: [lambda x, y: np.shape(x)],
    np.ndim: [lambda x, y: np.ndim(x)],
    np.size: [lambda x, y: np.size(x)],
}  # fmt: skip


def check(got, want):
    if isinstance(got, mpc.SharedArray):
        assert got.shape == np.shape(want)
        got = got.reveal()
    np.testing.assert_allclose(got, want, rtol=0, atol=8 * UNIT)


def test_all_of_these_are_there():
    """Every function, these among them: tests/mpc/array/test_numpy_functions.py."""
    assert set(UFUNCS) | set(FUNCTIONS) > BINARY | ON_BITS | set(OTHERS)


@pytest.mark.parametrize(
    "function", sorted(BINARY, key=lambda f: f.__name__), ids=lambda f: f.__name__
)
def test_functions_of_two_arrays(session, function):
    x, y = session.share(A, owner="alice"), session.share(B, owner="bob")
    check(function(x, y), function(A, B))
    check(function(x, B), function(A, B))
    check(function(A, y), function(A, B))
    check(function(x, 1.5), function(A, 1.5))
    check(function(-2, y), function(-2, B))
    check(function(x, B[0]), function(A, B[0]))
    check(function(A[:, :1], y), function(A[:, :1], B))


@pytest.mark.parametrize(
    "function", sorted(ON_BITS, key=lambda f: f.__name__), ids=lambda f: f.__name__
)
def test_functions_of_bits(session, function):
    want = function(BITS, OTHER_BITS).astype(int)
    x = session.share(BITS.astype(bool), owner="alice")
    y = session.share(OTHER_BITS.astype(bool), owner="bob")
    # A comparison's bit keeps its mask; a shared one has none.
    masked = x > 0
    for left in (x, masked):
        for right in (y, OTHER_BITS, OTHER_BITS.astype(bool)):
            got = function(left, right)
            np.testing.assert_array_equal(got.reveal(), want)
            assert got.bound == 1
            np.testing.assert_array_equal(function(right, left).reveal(), want)
    np.testing.assert_array_equal(function(masked, y == 1).reveal(), want)


@pytest.mark.parametrize("function", [np.invert, np.logical_not])
def test_the_other_bit(session, function):
    x = session.share(BITS.astype(bool), owner="alice")
    np.testing.assert_array_equal(function(x).reveal(), 1 - BITS)
    np.testing.assert_array_equal(function(x > 0).reveal(), 1 - BITS)
    np.testing.assert_array_equal((~~(x > 0)).reveal(), BITS)


def test_operators_on_bits(session):
    x, y = session.share(A, owner="alice"), session.share(B, owner="bob")
    p, q = A > 0, B > 1
    secret_p, secret_q = x > 0, y > 1
    for got, want in (
        (secret_p & secret_q, p & q),
        (secret_p | secret_q, p | q),
        (secret_p ^ secret_q, p ^ q),
        (~secret_p & ~secret_q, ~p & ~q),
        (secret_p & q, p & q),
        (p | secret_q, p | q),
        (secret_p ^ True, p ^ True),
        (~(secret_p ^ secret_q), ~(p ^ q)),
    ):
        np.testing.assert_array_equal(got.reveal(), want.astype(int))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=function.__name__) for function in OTHERS for case in OTHERS[function]],
)
def test_other_functions(session, case):
    x, y = session.share(A, owner="alice"), session.share(B, owner="bob")
    check(case(x, y), case(A, B))


def test_functions_of_whole_numbers_stay_whole(session):
    a, b = np.array([[1, -2, 3]]), np.array([[2, -2, -3]])
    x, y = session.share(a, owner="alice"), session.share(b, owner="bob")
    for function in (np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.less, np.equal):
        got = function(x, y)
        assert got.frac_bits == 0
        np.testing.assert_array_equal(got.reveal(), function(a, b).astype(int))
    np.testing.assert_array_equal((x @ y.T).reveal(), a @ b.T)
    np.testing.assert_array_equal(np.abs(x).reveal(), np.abs(a))
    np.testing.assert_array_equal((x**5).reveal(), a**5)


def test_operators_go_the_same_way_as_functions(session):
    x = session.share(A, owner="alice")
    for got, want in (
        (B + x, B + A),
        (B - x, B - A),
        (B * x, B * A),
        (B @ x.T, B @ A.T),
        (np.float64(2) * x, 2 * A),
        ([1, 2, 3, 4] * x, np.array([1, 2, 3, 4]) * A),
        (B < x, B < A),
        (B >= x, B >= A),
        (B == x, B == A),
        (x != B, A != B),
        (2.0 - x, 2.0 - A),
    ):
        check(got, want)


def test_comparing_with_something_else_is_not_a_secret(session):
    x = session.share(A, owner="alice")
    assert (x == None) is False  # noqa: E711
    for compare in (np.equal, np.not_equal, lambda a, b: a == b, lambda a, b: a != b):
        with pytest.raises(mpc.DtypeError, match="must hold real numbers, got dtype <U5"):
            compare(x, "alice")


def test_in_place_operators_make_a_new_array(session):
    x = session.share(A, owner="alice")
    y = x
    y += 1
    check(y, A + 1)
    check(x, A)
