"""Smooth functions by pieces: error over the whole range and in every format, cost, and refusals."""

import numpy as np
import pytest
from scipy.special import erf, expit

import mpc
from mpc.array.shared_array import SharedArray
from mpc.protocols import piecewise, sign, smooth
from mpc.protocols.piecewise import ONE

UNIT = 2.0**-16


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


EXACT = {
    "celu": elu,
    "elu": elu,
    "erf": erf,
    "gelu": lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "selu": lambda x: smooth.SELU[1] * elu(x, smooth.SELU[0]),
    "silu": lambda x: x * expit(x),
    "softplus": lambda x: np.logaddexp(0, x),
}
every_function = pytest.mark.parametrize("name", EXACT)


def grid(pieces, frac_bits, int_bits, fine=2.0**-6):
    """A fine grid where the functions bend, the neighbours of every threshold, and the far ends."""
    random = np.random.default_rng(0)
    unit = 2.0**-frac_bits
    far = min(2.0**int_bits - unit, np.nextafter(2.0**int_bits, 0))
    values = [
        np.arange(-15, 15, fine),
        random.uniform(-far, far, 300),
        [0.0, unit, -unit, far, -far, far / 2, -far / 2],
        *(t / ONE + np.arange(-2, 3) * unit for t in pieces.thresholds),
    ]
    found = np.round(np.concatenate(values) / unit) * unit
    return found[np.abs(found) <= far]


def test_all_names_are_tested():
    assert set(EXACT) == set(smooth.NAMES)


@every_function
@pytest.mark.parametrize("alpha", [1.0, 1 / 16, 0.3, 16.0])
def test_pieces_are_as_close_as_stated(name, alpha):
    if alpha != 1 and name not in ("elu", "celu"):
        return
    pieces = smooth.pieces_of(name, alpha)
    x = np.linspace(-20, 20, 400_001) * (alpha if name == "celu" else 1)
    exact = {"elu": lambda x: elu(x, alpha), "celu": lambda x: alpha * elu(x / alpha)}
    want = exact.get(name, EXACT[name])(x)
    error = np.abs(smooth.by_pieces(name, x, alpha) - want).max()
    stated = pieces.fit * (smooth.SELU[1] if name == "selu" else 1)
    assert stated / 2 < error <= stated
    # Outside, not even by a rounding of the float.
    far = np.array([-1e9, 1e9])
    np.testing.assert_allclose(
        smooth.by_pieces(name, far, alpha), exact.get(name, EXACT[name])(far), rtol=1e-9
    )


@every_function
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_error_is_within_the_bound_over_the_whole_range(name, parties):
    with mpc.Session(("alice", "bob", "carol", "dave", "erin")[:parties]) as s:
        values = grid(smooth.pieces_of(name), 16, 15)
        result = smooth.evaluate(s.share(values, owner="bob"), name)
        assert result.frac_bits == (32 if name == "erf" else 16)
        error = np.abs(result.reveal() - EXACT[name](values)).max()
        bound = smooth.error_bound(name, 16)
        assert bound / 6 < error <= bound


@every_function
@pytest.mark.parametrize("frac_bits", range(1, 31, 3))
def test_every_format(name, frac_bits):
    for int_bits in {1, 61 - 2 * frac_bits}:
        with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
            values = grid(smooth.pieces_of(name), frac_bits, int_bits, 2.0**-3)
            x = s.share(values, owner="alice")
            if name == "selu" and frac_bits == 30:
                with pytest.raises(mpc.RangeError, match="at most 29 fractional bits"):
                    smooth.evaluate(x, name)
                continue
            found = smooth.evaluate(x, name).reveal()
            want = EXACT[name](values)
            # Float64 itself has but 53 bits.
            error = np.abs(found - want) - np.abs(want) * 2.0**-50
            assert error.max() <= smooth.error_bound(name, frac_bits), int_bits


@pytest.mark.parametrize("alpha", [1 / 16, 0.5, 3.0, 15.5])
@pytest.mark.parametrize("name", ["elu", "celu"])
def test_alpha(session, name, alpha):
    pieces = smooth.pieces_of(name, alpha)
    values = grid(pieces, 16, 15)
    found = session.share(values, owner="bob").activation(name, alpha).reveal()
    want = elu(values, alpha) if name == "elu" else alpha * elu(values / alpha)
    assert np.abs(found - want).max() <= smooth.error_bound(name, 16, alpha)


@every_function
def test_values_and_bounds_at_the_ring_s_limit(pair, name):
    """As products and sums hold them: with more bits than `share` takes."""
    top = 2**62 - 1
    values = np.array([top, -top, top - 1, 5 << 16, -(5 << 16), 0, 1, -1])
    for place, bound in ((16, 2**62), (32, 2**62), (24, 2**61), (32, top)):
        kept = np.clip(values, -min(bound, top), min(bound, top))
        words = kept.view(np.uint64)
        shares = np.random.default_rng(0).integers(0, 2**64, (2, len(kept)), dtype=np.uint64)
        shares[0] = words - shares[1]
        x = SharedArray(pair, shares, place, bound)
        if name == "selu" and place == 16:
            continue  # its factor is above 1
        y = smooth.evaluate(x, name)
        words = y.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
        assert (np.abs(words.astype(object)) <= y.bound).all() and y.bound <= 2**62
        want = EXACT[name](kept * 2.0**-place)
        error = np.abs(y.reveal() - want) - np.abs(want) * 2.0**-50
        assert error.max() <= smooth.error_bound(name, 16), (place, bound)


def test_what_grows_stays_exact(pair):
    """Outside of the pieces not a unit is lost."""
    values = np.array([2.0**15 - UNIT, 12345.0 + UNIT, 20.0, -20.0, -(2.0**15) + UNIT])
    x = pair.share(values, owner="alice")
    for name in ("silu", "gelu", "mish", "softplus"):
        np.testing.assert_array_equal(x.activation(name).reveal(), np.maximum(values, 0))


def test_whole_numbers_come_to_the_format(pair):
    x = pair.share(np.array([-3, 0, 2, 1000]), owner="alice")
    np.testing.assert_allclose(
        x.activation("gelu").reveal(), EXACT["gelu"](np.array([-3.0, 0, 2, 1000])), atol=7e-5
    )


def test_whole_numbers_are_refused_by_their_values(pair):
    large = pair.share(np.array([2**30, 3]), owner="alice") * pair.share(2**30, owner="bob")
    with pytest.raises(mpc.RangeError, match=r"^silu: the result at index 0 is 1.15292e\+18"):
        large.activation("silu")
    assert np.abs(large.erf().reveal() - [1, 1]).max() <= smooth.error_bound("erf", 16)


@pytest.mark.parametrize("ranges", ["check", "warn", "error"])
def test_nothing_is_checked_where_bounds_are_enough(ranges, recwarn):
    with mpc.Session(ranges=ranges) as s:
        x = s.share([-1.0, 20.0], owner="alice")
        for name in EXACT:
            before = s.cost().rounds
            x.activation(name)
            assert s.cost().rounds - before == {"erf": 6, "selu": 9}.get(name, 7)
    assert not [w for w in recwarn.list if issubclass(w.category, mpc.RangeWarning)]


@pytest.mark.dealt
@pytest.mark.parametrize("size", [1, 65, 300])
@pytest.mark.parametrize("name", ["erf", "silu"])
@pytest.mark.parametrize("product", [False, True], ids=["format", "product"])
def test_cost_is_as_declared_and_planned(fresh_session, spent, size, name, product):
    def make(s):
        x = s.share(np.zeros(size), owner="alice")
        return x * 0.5 if product else x

    x, pieces = make(fresh_session), smooth.pieces_of(name)
    shift = 16 if product else 0
    furthest = max(map(abs, pieces.thresholds)) >> 16
    window = sign.count_bits(-(-x.bound >> shift) + furthest, shift)
    declared = piecewise.cost(
        fresh_session.size, size, shift, window, 16, len(pieces.thresholds), pieces.has_slope
    )
    assert spent(fresh_session, lambda: smooth.evaluate(x, name)) == declared
    planned = fresh_session.plan(lambda p: smooth.evaluate(make(p), name)).cost
    assert planned.total == declared and set(planned.by_protocol) == {name}


def test_a_smaller_bound_leaves_out_pieces(pair):
    costs = []
    for bound in (0.01, 1.0, 5.0, None):
        x = pair.share(np.linspace(-0.01, 0.01, 20), owner="alice", bound=bound)
        before = pair.cost().total
        y = x.activation("silu")
        costs.append((pair.cost().total - before).bytes_sent if pair.pair is None else len(costs))
        assert np.abs(y.reveal() - EXACT["silu"](x.reveal())).max() <= smooth.error_bound(
            "silu", 16
        )
    assert costs == sorted(set(costs))


def test_empty_and_closed(pair):
    assert pair.share(np.zeros((0, 3)), owner="bob").activation("mish").reveal().shape == (0, 3)
    x = pair.share([1.0], owner="bob")
    pair.close()
    with pytest.raises(mpc.SessionError):
        x.activation("silu")


@pytest.mark.parametrize("name", sorted(set(EXACT) - {"celu", "elu"}))
def test_alpha_is_refused_where_a_function_has_none(pair, name):
    x = pair.share([1.0], owner="alice")
    with pytest.raises(mpc.ArgumentError, match=f"^alpha must be 1 for {name}, .* got 0.5"):
        x.activation(name, 0.5)


def test_alpha_may_be_a_float32(pair):
    found = pair.share([-1.0], owner="alice").activation("elu", np.float32(0.1)).reveal()
    assert np.abs(found - elu(-1.0, 0.1)).max() <= smooth.error_bound("elu", 16, 0.1)
