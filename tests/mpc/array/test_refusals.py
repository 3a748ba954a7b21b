"""Bad input: a specific error that names the argument, the rule and the value; nothing half done."""

import copy
import io
import math
import operator

import numpy as np
import pytest

import mpc
from mpc.array.numpy_functions import FUNCTIONS, REFUSED, UFUNCS
from mpc.protocols import linear

UNIT = 2.0**-16
NAN, INF = math.nan, math.inf


def check(s, call, error, message):
    """Run a refused call; nothing may be spent, and the next call must work."""
    cost, following = s.cost(), s.last_id
    with pytest.raises(error, match=message):
        call()
    assert s.cost() == cost
    assert s.last_id == following
    assert s.share([1.5], owner="alice").reveal() == 1.5


# Sharing.


SHARING = {
    mpc.RangeError: [
        ([0.0, NAN], {}, r"^x must be finite, got nan at index 1$"),
        ([[0.0], [-INF]], {}, r"^x must be finite, got -inf at index \(1, 0\)$"),
        (INF, {}, r"^x must be finite, got inf$"),
        ([1, 2, 32768.0], {}, r"^x must be below 2\^15 in magnitude, got 32768.0 at index 2$"),
        (-32768.0, {}, r"below 2\^15 in magnitude, got -32768.0$"),
        # Rounds up to the limit.
        (32768 - UNIT / 4, {}, r"below 2\^15 in magnitude, got 32767.99"),
        (1e300, {}, r"got 1e\+300$"),
        (np.float32(1e30), {}, r"below 2\^15 in magnitude"),
        ([0, 2**31], {}, r"^x must be below 2\^31 in magnitude, got 2147483648 at index 1$"),
        ([-(2**31)], {}, r"below 2\^31 in magnitude, got -2147483648 at index 0$"),
        (-(2**63), {}, r"got -9223372036854775808$"),
        (np.uint64(2**64 - 1), {}, r"got 18446744073709551615$"),
        (np.ma.array([1e9]), {}, r"below 2\^15"),
        ([NAN], {"name": "the images"}, r"^the images must be finite, got nan"),
        ([1.0], {"bound": 0}, r"^bound of x must be positive, got 0$"),
        ([1.0], {"bound": -1}, r"^bound of x must be positive, got -1$"),
        ([1.0], {"bound": NAN}, r"^bound of x must be positive, got nan$"),
        ([0, 1.5], {"bound": 1}, r"^x must be within its bound of 1 .*, got 1.5 at index .*1"),
        (-2, {"bound": 1}, r"^x must be within its bound of 1 in magnitude, got -2$"),
        (np.array([-128], np.int8), {"bound": 127}, r"within its bound of 127 .*, got -128"),
        ([NAN], {"bound": 1}, r"^x must be finite, got nan at index"),
    ],
    mpc.DtypeError: [
        ([1j], {}, r"^x must hold real numbers, got dtype complex128$"),
        (["1"], {}, r"^x must hold real numbers, got dtype <U1$"),
        ("1", {}, r"^x must hold real numbers, got dtype <U1$"),
        ([b"1"], {}, r"got dtype \|S1$"),
        ([{}], {}, r"^x must hold real numbers, got dtype object$"),
        ([2**70], {}, r"got dtype object$"),
        (np.array(["2020-01-01"], "M8[D]"), {}, r"got dtype datetime64\[D\]$"),
        ([1.5], {"dtype": int}, r"^x must hold what int64 holds exactly, got dtype float64$"),
        ([2**40], {"dtype": "i4"}, r"^x must hold what int32 holds exactly, got dtype int64$"),
        ([1.0], {"dtype": "banana"}, r"^dtype of x must be a NumPy dtype: .*banana"),
        ([1.0], {"dtype": complex}, r"^x must hold real numbers, got dtype complex128$"),
        ([1.0], {"shape": 1}, r"^shape of x must be a sequence of whole numbers, got 1$"),
        ([1.0], {"shape": (1.0,)}, r"^shape of x .* whole numbers, got \(1.0,\)$"),
        ([1.0], {"shape": "1"}, r"^shape of x .* whole numbers, got '1'$"),
        ([1.0], {"bound": True}, r"^bound of x must be a number, got True$"),
        ([1.0], {"bound": "3"}, r"^bound of x must be a number, got '3'$"),
        ([1.0], {"bound": [1, 2]}, r"^bound of x must be a number, got \[1, 2\]$"),
    ],
    mpc.ShapeError: [
        ([[1], [1, 2]], {}, r"^x must be an array: .*inhomogeneous"),
        ([1.0], {"shape": (2,)}, r"^x must have the shape \(2,\), got \(1,\)$"),
        ([1.0], {"shape": [1, 1]}, r"^x must have the shape \(1, 1\), got \(1,\)$"),
        ([1.0], {"shape": (-1,)}, r"^shape of x must not be negative, got \(-1,\)$"),
    ],
    mpc.PartyError: [
        ([1.0], {"owner": "mallory"}, r"^owner must be one of alice, bob, got 'mallory'$"),
        ([1.0], {"owner": "Alice"}, r"^owner must be one of alice, bob, got 'Alice'$"),
        ([1.0], {"owner": 0}, r"^owner must be one of alice, bob, got 0$"),
        ([1.0], {"owner": None}, r"^owner must be one of alice, bob, got None$"),
    ],
    mpc.ArgumentError: [
        (None, {}, r"^x must be given by its owner alice, got None$"),
        (None, {"owner": "bob", "shape": (2,)}, r"^x must be given by its owner bob, got None$"),
    ],
}


@pytest.mark.parametrize(
    ("error", "x", "options", "message"),
    [(error, *case) for error in SHARING for case in SHARING[error]],
)
def test_sharing(pair, error, x, options, message):
    options = {"owner": "alice"} | options
    check(pair, lambda: pair.share(x, **options), error, message)


def test_sharing_needs_an_owner(pair):
    check(pair, lambda: pair.share([1.0]), TypeError, "owner")


def test_a_shared_array_is_not_shared_again(pair):
    x = pair.share([1.0], owner="alice")
    check(pair, lambda: pair.share(x, owner="bob"), mpc.RevealError, "would reveal")
    check(pair, lambda: pair.share([x, x], owner="bob"), mpc.RevealError, "would reveal")


def test_floats_where_the_format_has_no_fraction():
    with mpc.Session(frac_bits=0, int_bits=30) as s:
        with pytest.raises(
            mpc.DtypeError, match="whole numbers for a format without fractional bits"
        ):
            s.share([1.0], owner="alice")
        assert s.share([3], owner="alice").reveal() == 3


def test_a_plan_wants_shapes(pair):
    def plan(**options):
        return pair.plan(lambda p: p.share(None, owner="bob", **options))

    with pytest.raises(mpc.ShapeError, match="x needs shape= where its owner bob does not live"):
        plan()
    with pytest.raises(mpc.DtypeError, match="x must hold real numbers, got dtype complex"):
        plan(shape=(2,), dtype=complex)
    with pytest.raises(mpc.PartyError, match="got 'carol'"):
        pair.plan(lambda p: p.share(None, owner="carol", shape=(2,)))


# Sessions.


SESSIONS = [
    (
        lambda: mpc.Session("alice"),
        mpc.DtypeError,
        "parties must be a sequence of names, got the string 'alice'",
    ),
    (lambda: mpc.Session(5), mpc.DtypeError, "parties must be a sequence of names, got 5"),
    (lambda: mpc.Session(None), mpc.DtypeError, "parties must be a sequence of names, got None"),
    (lambda: mpc.Session(()), mpc.PartyError, r"at least two computing parties, got 0: \(\)"),
    (lambda: mpc.Session(["alice"]), mpc.PartyError, "at least two computing parties, got 1"),
    (
        lambda: mpc.Session(("a", "b", "a")),
        mpc.PartyError,
        "parties must be different, got 'a' twice",
    ),
    (lambda: mpc.Session(("a", "")), mpc.PartyError, "parties must be names, got ''"),
    (lambda: mpc.Session(("a", 3)), mpc.PartyError, "parties must be names, got 3"),
    (lambda: mpc.Session(("a", None)), mpc.PartyError, "parties must be names, got None"),
    (lambda: mpc.Session(frac_bits=24), mpc.RangeError, r"must be below 62.* 2 \* 24 \+ 15 = 63"),
    (lambda: mpc.Session(int_bits=30), mpc.RangeError, r"got 2 \* 16 \+ 30 = 62"),
    (lambda: mpc.Session(frac_bits=-1), mpc.RangeError, "frac_bits must be at least 0, got -1"),
    (lambda: mpc.Session(int_bits=0), mpc.RangeError, "int_bits must be at least 1, got 0"),
    (
        lambda: mpc.Session(frac_bits=8.0),
        mpc.DtypeError,
        "frac_bits must be a whole number, got 8.0",
    ),
    (
        lambda: mpc.Session(int_bits=True),
        mpc.DtypeError,
        "int_bits must be a whole number, got True",
    ),
    (
        lambda: mpc.Session(frac_bits="16"),
        mpc.DtypeError,
        "frac_bits must be a whole number, got '16'",
    ),
    (lambda: mpc.Session(memory_limit=0), mpc.ArgumentError, "memory_limit .* got 0"),
    (lambda: mpc.Session(memory_limit=1.5), mpc.ArgumentError, "memory_limit .* got 1.5"),
    (lambda: mpc.Session(memory_limit=True), mpc.ArgumentError, "memory_limit .* got True"),
]


@pytest.mark.parametrize(("call", "error", "message"), SESSIONS, ids=[m for _, _, m in SESSIONS])
def test_sessions(call, error, message):
    with pytest.raises(error, match=message):
        call()


STRANGERS = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x @ y,
    lambda x, y: x < y,
    lambda x, y: x == y,
    lambda x, y: x != y,
    np.maximum,
    np.minimum,
    np.add,
    lambda x, y: np.clip(x, y, 1),
    lambda x, y: np.where(x > 0, x, y),
    lambda x, y: np.where(y > 0, x, x),
    lambda x, y: np.concatenate([x, y]),
    lambda x, y: np.stack([x, y]),
    lambda x, y: (x > 0) & (y > 0),
    lambda x, y: (x > 0) * y,
    lambda x, y: x.session.reveal(y),
]


@pytest.mark.parametrize("combine", STRANGERS)
def test_arrays_of_another_session(pair, combine):
    with mpc.Session() as other:
        x, y = pair.share([1.0, 2.0], owner="alice"), other.share([1.0, 2.0], owner="alice")
        with pytest.raises(mpc.SessionError, match="session"):
            combine(x, y)
        assert combine(x, x) is not None


ON_CLOSED = [
    lambda s, x: s.share([1.0], owner="alice"),
    lambda s, x: s.plan(lambda p: None),
    lambda s, x: s.reveal(x),
    lambda s, x: x.reveal(to="bob"),
    lambda s, x: x + 1,
    lambda s, x: 1 - x,
    lambda s, x: -x,
    lambda s, x: abs(x),
    lambda s, x: x * x,
    lambda s, x: x @ x,
    lambda s, x: x < 0,
    lambda s, x: x == x,
    lambda s, x: x[0],
    lambda s, x: x.sum(),
    lambda s, x: x.mean(),
    lambda s, x: x.max(),
    lambda s, x: x.argmax(),
    lambda s, x: x.relu(),
    lambda s, x: x.truncate(),
    lambda s, x: np.maximum(x, 1),
    lambda s, x: np.maximum(x, 0),
    lambda s, x: x / 2,
    lambda s, x: x**2,
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("call", ON_CLOSED)
def test_closed_sessions(call, masked):
    with mpc.Session() as s:
        x = s.share([1.0, 2.0], owner="alice")
        if masked:  # then its products take no round
            x * x
        cost = s.cost()
    with pytest.raises(mpc.SessionError, match="^the session is closed$"):
        call(s, x)
    # What it has cost can still be read, and what the array is.
    assert s.cost() == cost
    assert x.shape == (2,)
    s.close()


# Operands: a matrix (2, 3), its square, a vector (4,), and bits (2, 3).

OPERANDS = {
    mpc.ShapeError: [
        (
            lambda x, p, v, b: x + v,
            r"^operands of \+ must broadcast, got shapes \(2, 3\) and \(4,\)$",
        ),
        (lambda x, p, v, b: x - np.ones(4), r"got shapes \(2, 3\) and \(4,\)$"),
        (lambda x, p, v, b: x * v, r"^operands of \* must broadcast, got shapes"),
        (lambda x, p, v, b: p * v, r"^operands of \* must broadcast"),
        (lambda x, p, v, b: p * np.ones(4), r"^operands of \* must broadcast"),
        (lambda x, p, v, b: x @ x, r"^operands of @ must agree in the inner dimension, got shapes"),
        (lambda x, p, v, b: p @ x, r"^operands of @ must agree"),
        (
            lambda x, p, v, b: np.ones((5, 5)) @ p,
            r"inner dimension, got shapes \(5, 5\) and \(2, 3\)",
        ),
        (lambda x, p, v, b: x @ v, r"^operands of @ must agree"),
        (
            lambda x, p, v, b: x @ 2,
            r"^operands of @ must have at least one axis, got a scalar; use \*$",
        ),
        (
            lambda x, p, v, b: np.stack([x] * 2) @ np.ones((3, 3, 1)),
            r"^operands of @ must broadcast",
        ),
        (
            lambda x, p, v, b: np.stack([x] * 2) @ np.stack([x.T] * 3),
            r"^leading axes of @ must broadcast",
        ),
        (lambda x, p, v, b: x < v, r"must broadcast, got shapes \(2, 3\) and \(4,\)$"),
        (lambda x, p, v, b: x == np.ones(4), r"must broadcast"),
        (lambda x, p, v, b: np.maximum(x, v), r"^operands of maximum must broadcast"),
        (lambda x, p, v, b: np.maximum(p, np.ones(4)), r"^operands of maximum must broadcast"),
        (lambda x, p, v, b: np.minimum(p, v), r"^operands of minimum must broadcast"),
        (lambda x, p, v, b: np.where(b, x, v), r"must broadcast"),
        (lambda x, p, v, b: np.where(b, v, v), r"must broadcast"),
        (
            lambda x, p, v, b: np.concatenate([x, v]),
            r"^arrays must agree in all axes but axis 0, got shapes",
        ),
        (lambda x, p, v, b: np.concatenate([x, x.T], axis=1), r"all axes but axis 1"),
        (lambda x, p, v, b: np.concatenate([x, x], axis=2), r"^axis must be in \[-2, 2\), got 2$"),
        (
            lambda x, p, v, b: np.concatenate([x, x], axis=-3),
            r"^axis must be in \[-2, 2\), got -3$",
        ),
        (lambda x, p, v, b: np.stack([x, x], axis=-4), r"^axis must be in \[-3, 3\), got -4$"),
        (lambda x, p, v, b: np.stack([x, v]), r"^arrays must have the same shape"),
        (lambda x, p, v, b: x.reshape(5), r"^cannot reshape shape \(2, 3\) to \(5,\)$"),
        (lambda x, p, v, b: x.reshape(-1, 4), r"^cannot reshape shape \(2, 3\) to \(-1, 4\)$"),
        (
            lambda x, p, v, b: x.transpose(0, 0),
            r"^axes must be a permutation of 2 axes, got \(0, 0\)$",
        ),
        (lambda x, p, v, b: x.transpose(0, 2), r"^axis must be in \[-2, 2\), got 2$"),
        (lambda x, p, v, b: x.transpose(-3, 0), r"^axis must be in \[-2, 2\), got -3$"),
        (lambda x, p, v, b: np.swapaxes(x, 0, 2), r"^axis must be in \[-2, 2\), got 2$"),
        (lambda x, p, v, b: x.sum(2), r"^axis must be in \[-2, 2\), got 2$"),
        (lambda x, p, v, b: x.sum((0, -2)), r"^axis must not name an axis twice"),
        (lambda x, p, v, b: x.sum(-3), r"got -3$"),
        (lambda x, p, v, b: p.mean(5), r"got 5$"),
        (lambda x, p, v, b: x.max(axis=2), r"got 2$"),
        (
            lambda x, p, v, b: x[:0].max(),
            r"^the largest of no values does not exist, shape \(0, 3\)$",
        ),
        (lambda x, p, v, b: x[:, :0].argmax(axis=1), r"^the largest of no values"),
        (lambda x, p, v, b: x[:0].mean(axis=0), r"^the mean needs at least one element, got shape"),
        (lambda x, p, v, b: x[2], r"^index out of range for shape \(2, 3\)"),
        (lambda x, p, v, b: x[0, 0, 0], r"^index out of range for shape \(2, 3\)"),
        (lambda x, p, v, b: x[[0, 9]], r"index 9 is out of bounds"),
        (lambda x, p, v, b: x[np.ones(3, bool)], r"^index out of range"),
        (lambda x, p, v, b: x / [1, 2], r"^operands of / must broadcast"),
    ],
    mpc.DtypeError: [
        (
            lambda x, p, v, b: np.concatenate([x, x], axis=0.5),
            r"^axis must be a whole number, got 0.5$",
        ),
        (
            lambda x, p, v, b: linear.concatenate([x, np.ones((2, 3))]),
            r"^all arrays must be SharedArrays",
        ),
        (lambda x, p, v, b: x.sum(1.0), r"^axis must be a whole number, got 1.0$"),
        (lambda x, p, v, b: x.argmax(axis="0"), r"^axis must be a whole number, got '0'$"),
        (lambda x, p, v, b: x + ["a"], r"^a public operand must hold real numbers, got dtype <U1$"),
        (lambda x, p, v, b: x * [1j], r"real numbers, got dtype complex128$"),
        (lambda x, p, v, b: x - np.array([None]), r"real numbers, got dtype object$"),
        (lambda x, p, v, b: x < np.array(["a"]), r"got dtype <U1$"),
        (lambda x, p, v, b: np.maximum(x, "a"), r"got dtype <U1$"),
        (lambda x, p, v, b: x**x, r"^exponent must be a public number"),
        (lambda x, p, v, b: x**True, r"^exponent must be a public number, got True$"),
        (lambda x, p, v, b: x ** np.ones(3), r"^exponent must be a public number"),
        (lambda x, p, v, b: np.round(x, 0.5), r"^decimals must be a whole number, got 0.5$"),
        (lambda x, p, v, b: np.power(np.ones(3), x), r"^a secret exponent is not supported"),
        (lambda x, p, v, b: x & b, r"^operands of & must be secret bits"),
        (lambda x, p, v, b: b | x, r"^operands of \| must be secret bits"),
        (lambda x, p, v, b: b ^ 2, r"^operands of \^ must be bits"),
        (lambda x, p, v, b: b & 0.5, r"^operands of & must be bits"),
        (lambda x, p, v, b: np.array([0, 3, 1]) | b, r"^operands of \| must be bits"),
        (lambda x, p, v, b: ~x, r"^operands of ~ must be secret bits"),
        (lambda x, p, v, b: np.where(x, x, x), r"^condition must hold secret bits"),
        (lambda x, p, v, b: x.with_bound("1"), r"^limit must be a number, got '1'$"),
        (lambda x, p, v, b: x.with_bound(True), r"^limit must be a number, got True$"),
        (lambda x, p, v, b: x.session.reveal(3.5), r"^x must be a SharedArray, got float$"),
        (
            lambda x, p, v, b: x.session.reveal(np.ones(2)),
            r"^x must be a SharedArray, got ndarray$",
        ),
    ],
    mpc.SottoError: [
        (lambda x, p, v, b: x["a"], r"index"),
        (lambda x, p, v, b: x[0.5], r"index"),
        (lambda x, p, v, b: b & b[0, :2], "must broadcast"),
    ],
    TypeError: [
        (lambda x, p, v, b: x + None, "unsupported operand"),
        (lambda x, p, v, b: x + "a", "must hold real numbers, got dtype <U1"),
        (lambda x, p, v, b: x * {}, "unsupported operand"),
        (lambda x, p, v, b: x < "a", "must hold real numbers, got dtype <U1"),
    ],
    mpc.RangeError: [
        (lambda x, p, v, b: x + NAN, r"^the public operand must be finite, got nan$"),
        (
            lambda x, p, v, b: x - np.array([0, 1, INF]),
            r"public operand must be finite, got inf at index 2$",
        ),
        (lambda x, p, v, b: x * -INF, r"^the public operand must be finite, got -inf$"),
        (lambda x, p, v, b: p * NAN, r"^the public operand must be finite, got nan$"),
        (lambda x, p, v, b: p @ np.full((3, 1), NAN), r"finite, got nan at index \(0, 0\)$"),
        (lambda x, p, v, b: x < NAN, r"finite, got nan$|finite, got -nan$"),
        (lambda x, p, v, b: np.maximum(p, NAN), r"public operand must be finite, got"),
        (lambda x, p, v, b: np.minimum(p, INF), r"public operand must be finite, got"),
        (lambda x, p, v, b: np.where(b, NAN, 0.0), r"finite, got nan$"),
        (
            lambda x, p, v, b: x + 2.0**46,
            r"^the public operand must be below 2\^45 in magnitude, got",
        ),
        (
            lambda x, p, v, b: (x + 1) * 2.0**46,
            r"^\*: the result at index .* is not below 2\^46 \(with 16",
        ),
        (lambda x, p, v, b: p + 2**46, r"below 2\^45 in magnitude, got 70368744177664$"),
        (
            lambda x, p, v, b: (x + 1) * 2**62,
            r"^\*: the result at index .* is not below 2\^46 \(with 16",
        ),
        (
            lambda x, p, v, b: x + np.uint64(2**64 - 1),
            r"must be below 2\^63, got 18446744073709551615$",
        ),
        (lambda x, p, v, b: (x + 1) / 1e-14, r"^/: the result at index .* is not below 2\^46"),
        (lambda x, p, v, b: x.with_bound(0), r"^limit must be positive, got 0$"),
        (lambda x, p, v, b: x.with_bound(NAN), r"^limit must be positive, got nan$"),
    ],
    mpc.ArgumentError: [
        (lambda x, p, v, b: x / 0, r"^a divisor must be finite and not zero, got 0$"),
        (lambda x, p, v, b: p / NAN, r"^a divisor must be finite and not zero, got nan$"),
        (lambda x, p, v, b: x / INF, r"got inf$"),
        (lambda x, p, v, b: x.power(0), r"^exponent must be finite and not 0, got 0"),
        (lambda x, p, v, b: x**np.inf, r"^exponent must be finite and not 0, got inf"),
        (
            lambda x, p, v, b: x**1000.5,
            r"^the exponent must be smaller in magnitude, got 1000.5",
        ),
        (lambda x, p, v, b: x.activation("relu"), r"^name must be one of celu, elu, "),
        (
            lambda x, p, v, b: x.activation("elu", 99.0),
            r"^alpha must be in \[0.0625, 16\], got 99$",
        ),
    ],
    mpc.PartyError: [
        (lambda x, p, v, b: p.reveal(to="carol"), r"^to must be one of alice, bob, got 'carol'$"),
        (lambda x, p, v, b: p.reveal(to=0), r"^to must be one of alice, bob, got 0$"),
    ],
}


def operands(s):
    x = s.share(np.arange(6.0).reshape(2, 3), owner="alice")
    return x, x * x, s.share(np.ones(4), owner="bob"), x > 2


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [(error, call, message) for error in OPERANDS for call, message in OPERANDS[error]],
)
def test_operands(pair, error, call, message):
    given = operands(pair)
    check(pair, lambda: call(*given), error, message)


# What would reveal.

REVEALING = [
    lambda x: np.asarray(x),
    lambda x: np.array(x),
    lambda x: np.array([x, x]),
    lambda x: np.asarray(x, dtype=float),
    lambda x: np.float64(x[0, 0]),
    bool,
    lambda x: 1 if x[0, 0] > 0 else 0,
    lambda x: x[0, 0] and 1,
    lambda x: not x,
    lambda x: float(x[0, 0]),
    lambda x: int(x[0, 0]),
    lambda x: complex(x[0, 0]),
    lambda x: operator.index(x[0, 0]),
    lambda x: [1, 2, 3][x[0, 0]],
    lambda x: np.arange(3)[x[0, 0]],
    lambda x: x[x],
    lambda x: x[x > 0],
    lambda x: x[0, x[0, 0]],
    lambda x: range(x[0, 0]),
    lambda x: 1.0 in x,
    lambda x: x[0] in [1, 2],
    lambda x: max(x[0]),
    lambda x: sorted(x[0]),
    lambda x: math.sqrt(x[0, 0]),
    lambda x: bytes(x[0]),
    lambda x: np.save(io.BytesIO(), x),
    lambda x: np.full(3, x[0, 0]),
    lambda x: copy.copy(x),
    lambda x: [1.0, 2.0] < x[0, :2] and 1,
]


@pytest.mark.parametrize("number", range(len(REVEALING)))
def test_nothing_is_revealed_without_saying_so(pair, number):
    x, *_ = operands(pair)
    revealed = pair.cost().by_protocol.get("reveal")
    with pytest.raises(mpc.SottoError) as info:
        REVEALING[number](x)
    assert isinstance(info.value, TypeError)
    if isinstance(info.value, mpc.RevealError) and "pickled" not in str(info.value):
        assert "would reveal a secret; call .reveal() first" in str(info.value)
    assert pair.cost().by_protocol.get("reveal") == revealed


@pytest.mark.parametrize(
    "call",
    [
        lambda x: hash(x),
        lambda x: len(x[0, 0]),
        lambda x: list(x[0, 0]),
        lambda x: f"{x:.2f}",
        lambda x: round(x),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x[0].__setitem__(slice(None), 0),
        lambda x: {x: 1},
    ],
)
def test_other_things_that_arrays_do_are_type_errors(pair, call):
    x, *_ = operands(pair)
    cost = pair.cost()
    with pytest.raises(TypeError):
        call(x)
    assert pair.cost() == cost


# NumPy's functions.

UNDEFINED = [
    (lambda x: np.tan(x), r"^np.tan is not defined on a SharedArray; there are absolute, add, "),
    (lambda x: np.sinh(x), "^np.sinh is not defined"),
    (lambda x: np.cbrt(x), "^np.cbrt is not defined"),
    (
        lambda x: np.isnan(x),
        "^np.isnan is not defined on a SharedArray: a secret number is always finite",
    ),
    (
        lambda x: np.floor_divide(x, 2),
        "^np.floor_divide is not defined on a SharedArray: a quotient is",
    ),
    (lambda x: np.ones(3) % x, "^np.remainder is not defined"),
    (lambda x: np.add.reduce(x), r"^np.add.reduce is not defined"),
    (lambda x: np.maximum.accumulate(x), "^np.maximum.accumulate is not defined"),
    (lambda x: np.multiply.outer(x, x), "^np.multiply.outer is not defined"),
    (lambda x: np.add.at(np.zeros(3), [0], x), "^np.add.at is not defined"),
    (lambda x: np.add(x, 1, out=np.zeros((2, 3))), "^np.add on a SharedArray takes no out$"),
    (lambda x: np.add(x, 1, where=True), "^np.add on a SharedArray takes no where$"),
    (lambda x: np.add(x, 1, dtype=float), "^np.add on a SharedArray takes no dtype$"),
    (lambda x: np.add(np.ones(3), 1, out=x), "^np.add on a SharedArray takes no out$"),
    (lambda x: operator.iadd(np.ones((2, 3)), x), "^np.add on a SharedArray takes no out$"),
    (lambda x: np.sum(x, dtype=int), "^np.sum on a SharedArray: .*dtype"),
    (lambda x: np.sum(x, out=np.zeros(())), "^np.sum on a SharedArray: .*out"),
    (lambda x: np.max(x, initial=0), "^np.max on a SharedArray: .*initial"),
    (lambda x: np.mean(x, where=True), "^np.mean on a SharedArray: .*where"),
    (lambda x: np.reshape(x, (3, 2), order="F"), "^np.reshape on a SharedArray: .*order"),
    (lambda x: np.concatenate([x, x], dtype=float), "^np.concatenate on a SharedArray: .*dtype"),
    (lambda x: np.where(x > 0), "^np.where on a SharedArray: missing"),
    (lambda x: np.clip(x, 0, 1, out=x), "^np.clip on a SharedArray takes no out$"),
    (lambda x: np.partition(x, 1), "^np.partition is not defined on a SharedArray: np.sort sorts"),
    (lambda x: np.unique(x), "^np.unique is not defined on a SharedArray: how many elements"),
    (
        lambda x: np.nanmean(x),
        "^np.nanmean is not defined on a SharedArray: .*; the function without nan in its name",
    ),
    (
        lambda x: np.linalg.svd(x),
        r"^np.linalg.svd is not defined on a SharedArray; there are all, ",
    ),
    (lambda x: np.copyto(np.ones((2, 3)), x), "^np.copyto is not defined"),
    # Operators are refused for the reasons of their functions.
    (lambda x: x // 2, "^np.floor_divide .*: a quotient is rounded"),
    (lambda x: 2 // x, "^np.floor_divide .*: a quotient is rounded"),
    (lambda x: x % 2, "^np.remainder .*: a quotient is rounded"),
    (lambda x: 2 % x, "^np.remainder .*: a quotient is rounded"),
    (lambda x: divmod(x, 2), "^np.divmod .*: a quotient is rounded"),
    (lambda x: divmod(2, x), "^np.divmod .*: a quotient is rounded"),
    (lambda x: 2**x, r"^a secret exponent is not supported; .* np.exp2\(x\)"),
    (lambda x: np.power([2.0, 3.0, 4.0], x), "^a secret exponent is not supported"),
]


@pytest.mark.parametrize(("call", "message"), UNDEFINED, ids=[m for _, m in UNDEFINED])
def test_functions_that_are_not_there(pair, call, message):
    x, *_ = operands(pair)
    opened = pair.cost().by_protocol.get("reveal")
    with pytest.raises(mpc.DtypeError, match=message):
        call(x)
    assert pair.cost().by_protocol.get("reveal") == opened


@pytest.mark.parametrize("call", [
    operator.eq, operator.ne, operator.lt, operator.ge, operator.add, operator.mul, operator.truediv,
    np.equal, np.not_equal, np.less, np.hypot, np.maximum, np.subtract,
])  # fmt: skip
@pytest.mark.parametrize("other", [1j, "a", np.complex64(1j)])
def test_no_numbers_are_refused_by_every_operator(pair, call, other):
    """A comparison with one would be False for Python, without a word."""
    x, *_ = operands(pair)
    check(pair, lambda: call(x, other), mpc.DtypeError, "must hold real numbers, got dtype")
    if not isinstance(other, np.generic):
        check(pair, lambda: call(other, x), mpc.DtypeError, "must hold real numbers, got dtype")


MISSING = {
    "item": r"x.reveal\(\) gives NumPy's array", "tolist": r"x.reveal\(\)", "astype": r"x.reveal\(\)",
    "conj": r"take np.conj\(x\)", "nonzero": "how many elements", "argpartition": "np.sort sorts",
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_what_arrays_have_and_secrets_do_not_says_what_to_do(pair, name):
    x, *_ = operands(pair)
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': .*{MISSING[name]}"):
        getattr(x, name)
    with pytest.raises(AttributeError, match="^a SharedArray has no attribute 'colour'$"):
        x.colour  # noqa: B018
    assert not hasattr(x, "__array_interface__")


def test_padding_by_mirrored_values_is_refused(pair):
    """What lies behind the edge would be the elements at the places that NumPy computes."""
    x = pair.share([1.0, 2.0, 4.0, 8.0], owner="alice")
    for mode in ("reflect", "symmetric"):
        check(pair, lambda mode=mode: np.pad(x, (1, 0), mode, reflect_type="odd"),
              mpc.ArgumentError, "reflect_type='even', got 'odd'")  # fmt: skip
        even = np.pad(x, (2, 1), mode, reflect_type="even").reveal()
        np.testing.assert_array_equal(even, np.pad([1.0, 2.0, 4.0, 8.0], (2, 1), mode))
    check(pair, lambda: np.pad(x, 1, "edge", reflect_type="odd"), mpc.ShapeError, "reflect_type")


def test_bins_that_would_read_the_secret_are_refused(pair):
    x, *_ = operands(pair)
    check(pair, lambda: np.histogram(x, bins="auto", range=(0, 1)), mpc.ArgumentError,
          "bins of a secret are a number or edges, got 'auto'")  # fmt: skip


def test_lists_are_operands_of_every_function_of_two(pair):
    x = pair.share([3.0, 5.0], owner="alice")
    for found in (np.hypot(x, [4, 12]), np.hypot((4, 12), x)):
        np.testing.assert_allclose(found.reveal(), [5, 13], atol=1e-3)


def test_what_is_refused_is_not_there():
    assert not REFUSED.keys() & (UFUNCS.keys() | FUNCTIONS.keys())
    assert all(reason and not reason.endswith(".") for reason in REFUSED.values())


# The errors.


def test_errors_are_also_the_built_in_ones():
    for error, builtin in (
        (mpc.ArgumentError, ValueError),
        (mpc.ShapeError, ValueError),
        (mpc.RangeError, ValueError),
        (mpc.PartyError, ValueError),
        (mpc.DtypeError, TypeError),
        (mpc.RevealError, TypeError),
        (mpc.SessionError, RuntimeError),
    ):
        assert issubclass(error, mpc.SottoError)
        assert issubclass(error, builtin)


def test_a_refusal_in_the_middle_leaves_arrays_as_they_were(pair):
    a = np.arange(6.0).reshape(2, 3)
    x, product, v, bit = operands(pair)
    masks = [array.mask for array in (x, product, v)]
    for refused in (lambda: x @ x, lambda: product * v, lambda: np.where(bit, x, v)):
        with pytest.raises(mpc.ShapeError):
            refused()
    assert [array.mask for array in (x, product, v)] == masks
    np.testing.assert_array_equal(x.reveal(), a)
    np.testing.assert_array_equal(product.reveal(), a * a)
    np.testing.assert_array_equal(bit.reveal(), a > 2)
