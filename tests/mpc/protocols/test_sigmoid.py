"""Sigmoid and tanh on shares: error over the whole range, pieces, cost, and what is opened."""

import numpy as np
import pytest
from scipy.special import expit

import mpc
from mpc.protocols import sigmoid, sign

FUNCTIONS = {"sigmoid": (sigmoid.sigmoid, expit), "tanh": (sigmoid.tanh, np.tanh)}
PIECES = {"sigmoid": sigmoid.sigmoid_pieces(), "tanh": sigmoid.tanh_pieces()}
LARGEST_SHIFT = 47 << 14  # the outermost threshold, 11.75, at 16 fractional bits


def grid(frac_bits, int_bits, thresholds):
    """A fine grid where the functions bend, the neighbours of every threshold, and the far ends."""
    random = np.random.default_rng(0)
    unit = 2.0**-frac_bits
    near = [t / 2**32 + np.arange(-3, 4) * unit for t in thresholds]
    far = 2.0**int_bits - unit
    values = [
        np.arange(-13, 13, 2.0**-8),
        random.uniform(-16, 16, 4000),
        random.uniform(-far, far, 1000),
        [0.0, unit, -unit, far, -far, 2.0 ** (int_bits - 1), -(2.0 ** (int_bits - 1))],
        *near,
    ]
    return np.round(np.concatenate(values) / unit) * unit


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_error_is_within_the_bound_over_the_whole_range(name, parties):
    function, exact = FUNCTIONS[name]
    with mpc.Session(("alice", "bob", "carol", "dave", "erin")[:parties]) as s:
        values = grid(16, 15, PIECES[name].thresholds)
        result = function(s.share(values, owner="bob")).reveal()
        error = np.abs(result - exact(values)).max()
        assert error <= sigmoid.error_bound(name, 16)
        # The bound is no idle one: halving it would fail.
        assert error > sigmoid.error_bound(name, 16) / 4


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("frac_bits", "int_bits"), [(8, 20), (12, 20), (20, 15), (24, 12), (29, 2)]
)
def test_other_formats(name, frac_bits, int_bits):
    function, exact = FUNCTIONS[name]
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        values = grid(frac_bits, int_bits, PIECES[name].thresholds)
        values = values[np.abs(values) < 2**int_bits]
        result = function(s.share(values, owner="alice")).reveal()
        assert np.abs(result - exact(values)).max() <= sigmoid.error_bound(name, frac_bits)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_product_is_truncated_on_the_way(session, name):
    function, exact = FUNCTIONS[name]
    values = np.linspace(-14, 14, 999).reshape(3, 333)
    x = session.share(values, owner="alice") * session.share(np.float64(1), owner="bob")
    assert x.frac_bits == 32
    result = function(x)
    assert result.shape == (3, 333) and result.frac_bits == 32
    error = np.abs(result.reveal() - exact(values)).max()
    # One more rounding: that of the values when they were shared.
    assert error <= sigmoid.error_bound(name, 16) + 2.0**-17


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pieces_are_as_close_as_stated(name):
    exact, (stated, _) = FUNCTIONS[name][1], sigmoid.ERROR_BOUNDS[name]
    x = np.linspace(-20, 20, 400_001)
    rows = np.array(PIECES[name].rows, np.float64) / 2**32
    m, a0, a1, a2, a3 = rows[np.searchsorted(PIECES[name].thresholds, x * 2**32, side="right")].T[
        :5
    ]
    d = x - m
    error = np.abs(a0 + d * (a1 + d * (a2 + d * a3)) - exact(x)).max()
    assert stated / 2 < error <= stated


def test_outer_pieces_are_constant_whatever_their_size(session):
    values = np.array([-(2.0**15) + 2**-16, -20000.0, -12.0, 12.0, 30000.0, 2.0**15 - 2**-16])
    x = session.share(values, owner="alice")
    assert sigmoid.sigmoid(x).reveal().tolist() == [0, 0, 0, 1, 1, 1]
    assert sigmoid.tanh(x).reveal().tolist() == [-1, -1, -1, 1, 1, 1]


def test_whole_numbers(session):
    result = np.tanh(session.share([-1, 0, 3], owner="alice")).reveal()
    assert np.abs(result - np.tanh([-1, 0, 3])).max() <= sigmoid.error_bound("tanh", 16)


def test_numpy_and_scipy_call_them(session):
    x = session.share([0.5, -2.0], owner="alice")
    assert np.abs(np.tanh(x).reveal() - np.tanh([0.5, -2.0])).max() < 1e-4
    assert np.abs(expit(x).reveal() - expit([0.5, -2.0])).max() < 1e-4


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 64, 300])
@pytest.mark.parametrize("product", [False, True], ids=["format", "product"])
def test_cost_is_as_declared_and_planned(fresh_session, spent, size, product):
    def make(s):
        x = s.share(np.zeros(size), owner="alice")
        return x * 0.5 if product else x

    x = make(fresh_session)
    shift = 16 if product else 0
    window = sign.count_bits((x.bound >> shift) + bool(shift) + LARGEST_SHIFT, shift)
    declared = sigmoid.cost(fresh_session.size, size, shift, window)
    assert spent(fresh_session, lambda: sigmoid.sigmoid(x)) == declared
    assert declared.rounds == 6
    planned = fresh_session.plan(lambda p: sigmoid.sigmoid(make(p))).cost
    assert planned.total == declared and set(planned.by_protocol) == {"sigmoid"}


def test_what_is_opened_does_not_depend_on_the_value(pair, tap):
    # Every opened word must look uniform, also where the square of the distance overflows.
    for value in (0.0, 7.5, -30000.0):
        with tap(pair) as heard:
            sigmoid.sigmoid(pair.share(np.full(4096, value), owner="alice"))
        for arrays in heard.opened:
            for array in arrays:
                ones = np.bitwise_count(array).mean() / 64
                # Of few words the share varies more: seven deviations.
                assert abs(ones - 0.5) < max(0.02, 3.5 / np.sqrt(64 * array.size))


def test_empty_and_closed(pair):
    assert sigmoid.tanh(pair.share(np.zeros((0, 3)), owner="bob")).reveal().shape == (0, 3)
    x = pair.share([1.0], owner="bob")
    pair.close()
    with pytest.raises(mpc.SessionError):
        np.tanh(x)
