"""Softmax, sigmoid and their kin: right for every value, bound and format, or refused by the bound.

Every number of fractional bits in every run, with integer bits, bounds and values that are drawn;
SOTTO_DOMAINS repeats that so many times, SOTTO_SEED draws others.
"""

import os

import numpy as np
import pytest
from scipy.special import expit

import mpc
from mpc.array.shared_array import SharedArray
from mpc.protocols import comparison, exponential, sigmoid, softmax

RUNS = int(os.environ.get("SOTTO_DOMAINS", "1"))
SEED = int(os.environ.get("SOTTO_SEED", "0"))
LARGEST = 2**62
NAMES = ("alice", "bob", "carol")

every_format = pytest.mark.parametrize("frac_bits", range(31))


def sessions(random, frac_bits):
    """Sessions with the fewest and the most integer bits, and with some."""
    most = 61 - 2 * frac_bits
    for _ in range(RUNS):
        for int_bits in {1, most, int(random.integers(1, most + 1))}:
            names = NAMES[: int(random.integers(2, 4))]
            with mpc.Session(names, frac_bits=frac_bits, int_bits=int_bits) as s:
                yield s


def draw_places(form):
    """Return the fractional bits that an array can have: whole numbers to products of weights."""
    f, guard = form.frac_bits, form.guard_bits
    return sorted({0, f, f + guard, 2 * f, 2 * f + guard})


def draw_bound(random, form, place):
    """Return a bound: the format's, a product's, the ring's, or anything."""
    own = form.bound << max(0, place - form.frac_bits)
    some = [1, 1 << place, own, 2**60, 2**61 + 1, LARGEST, int(2.0 ** random.uniform(0, 62))]
    return min(LARGEST, some[int(random.integers(len(some)))])


def draw_values(random, shape, bound, place):
    """Return integers: at both ends, anywhere, around zero, or close together at an end."""
    top = min(bound, LARGEST - 1)
    near = min(top, int(13 * 2.0**place) + 1)
    kind = int(random.integers(5))
    if kind == 0:
        return random.choice([top, -top, top - 1, 0, 1], shape)
    if kind == 1:
        return random.integers(-top, top + 1, shape)
    if kind == 2:
        return random.integers(-near, near + 1, shape)
    end = top - random.integers(0, near + 1, shape)
    return end if kind == 3 else -end


def shared(random, session, values, place, bound):
    """Share encoded integers that `share` may not take, as products and sums hold them."""
    words = np.asarray(values, np.int64).view(np.uint64)
    shares = random.integers(0, 2**64, (session.size, *words.shape), dtype=np.uint64)
    shares[0] = words - shares[1:].sum(axis=0, dtype=np.uint64)
    return SharedArray(session, shares, place, bound)


def encoded(x):
    """Return the encoded values, which are within the bound."""
    values = x.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
    assert np.abs(values).max() <= x.bound <= LARGEST
    return values


def below_largest(values, place):
    """Return s - max(s) of rows of integers as floats, without wrapping around."""
    rows = values.tolist()
    return np.array([[(v - max(row)) * 2.0**-place for v in row] for row in rows])


def log_softmax_or_refusal(x):
    try:
        return x.log_softmax()
    except mpc.RangeError:
        return None


@every_format
def test_softmax(frac_bits):
    random = np.random.default_rng((SEED, frac_bits))
    for s in sessions(random, frac_bits):
        for place in draw_places(s.format):
            bound = draw_bound(random, s.format, place)
            k = int(random.choice([2, 3, 10, 16, 17, 32, 33, 70]))
            values = np.concatenate([draw_values(random, (1, k), bound, place) for _ in range(5)])
            x = shared(random, s, values, place, bound)
            d = below_largest(values, place)
            powers = np.exp(d)
            sums = powers.sum(axis=1, keepdims=True)
            case = (s.format, place, bound, k)

            p = x.softmax()
            assert p.frac_bits == frac_bits
            error = np.abs(encoded(p) * 2.0**-frac_bits - powers / sums).max()
            assert error <= softmax.error_bound(k, frac_bits), case

            # Scores below 2^(60 - f) are never refused.
            before = s.cost().total
            if bound * 2.0**-place > 2.0 ** (60 - frac_bits):
                log = log_softmax_or_refusal(x)
                if log is None:
                    assert s.cost().total == before
                    continue
            else:
                log = x.log_softmax()
            expected = d - np.log(sums)
            found = encoded(log) * 2.0**-log.frac_bits
            # Float64 itself has but 53 bits.
            error = (np.abs(found - expected) - np.abs(expected) * 2.0**-51).max()
            assert error <= softmax.error_bound(k, frac_bits, log=True, place=log.frac_bits), case


@every_format
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_sigmoid_and_tanh(name, frac_bits):
    function, exact = getattr(sigmoid, name), {"sigmoid": expit, "tanh": np.tanh}[name]
    random = np.random.default_rng((SEED, frac_bits))
    for s in sessions(random, frac_bits):
        for place in draw_places(s.format):
            bound = draw_bound(random, s.format, place)
            drawn = [draw_values(random, 60, bound, place) for _ in range(4)]
            # The neighbours of each threshold, as far as the bound goes.
            near = [(n << place >> 4) + step for n in sigmoid.SIXTEENTHS for step in (-1, 0, 1)]
            near = [t for t in near if t < min(bound, LARGEST)]
            values = np.concatenate([*drawn, near, np.negative(near)]).astype(np.int64)
            x = shared(random, s, values, place, bound)
            if not frac_bits:
                with pytest.raises(mpc.RangeError, match=f"{name} needs a format with fractional"):
                    function(x)
                continue
            result = function(x)
            assert result.frac_bits == 2 * frac_bits
            encoded(result)
            found = encoded(result.truncate()) * 2.0**-frac_bits
            error = np.abs(found - exact(values * 2.0**-place)).max()
            assert error <= sigmoid.error_bound(name, frac_bits), (s.format, place, bound)


@every_format
def test_exponential(frac_bits):
    random = np.random.default_rng((SEED, frac_bits))
    for s in sessions(random, frac_bits):
        for place in draw_places(s.format):
            bound = draw_bound(random, s.format, place)
            values = -np.abs(
                np.concatenate([draw_values(random, 60, bound, place) for _ in range(4)])
            )
            power = exponential.exp(shared(random, s, values, place, bound))
            error = np.abs(encoded(power) * 2.0**-power.frac_bits - np.exp(values * 2.0**-place))
            assert error.max() <= 2.0**-16 + 2.0**-20, (s.format, place, bound)


@pytest.mark.parametrize("frac_bits", [0, 1, 10, 16, 22])
def test_differences_of_64_bits_are_cut_off(frac_bits):
    """As softmax takes them: below -2^62, down to minus 2^63."""
    random = np.random.default_rng(frac_bits)
    with mpc.Session(frac_bits=frac_bits, int_bits=61 - 2 * frac_bits) as s:
        far = np.array([-(2**63) + 2, -(2**62) - 1, -(2**62), -(2**62) + 1, -1, 0])
        near = -np.arange(0, 13 << frac_bits, max(1, (13 << frac_bits) // 100))
        values = np.concatenate([far, near])
        x = shared(random, s, values, frac_bits, LARGEST)
        expected = np.maximum(values, -12 << frac_bits)
        np.testing.assert_array_equal(encoded(exponential.saturated(x)), expected)


# What a user's program may write.


@pytest.mark.parametrize(
    ("frac_bits", "int_bits", "factors"),
    [(24, 13, (1, 2849.5)), (16, 15, (3e4, 3e4)), (16, 15, (-2, -16383.75)), (8, 40, (3e7, 3e5))],
)
def test_softmax_of_a_large_product(frac_bits, int_bits, factors):
    """Two values in the format, whose product is beyond what exp has room for."""
    with mpc.Session(frac_bits=frac_bits, int_bits=int_bits) as s:
        large = factors[0] * factors[1]
        x = s.share(np.full((1, 2), float(factors[0])), owner="alice")
        y = s.share([[factors[1], 0.0]], owner="bob")
        for product in (x * y, x[:, :1] * y):
            np.testing.assert_allclose(product.softmax().reveal(), [[1, 0]], atol=2.0**-8)
            log = product.log_softmax().reveal()
            np.testing.assert_allclose(log, [[0, -large]], rtol=1e-6, atol=2.0**-6)


def test_log_softmax_of_the_table():
    with mpc.Session(frac_bits=24, int_bits=13) as s:
        x = s.share([[2849.5, 0.0]], owner="alice")
        for scores in (x, x * s.share([[1.0, 1.0]], owner="bob")):
            np.testing.assert_allclose(scores.softmax().reveal(), [[1, 0]], atol=1e-4)
            np.testing.assert_allclose(scores.log_softmax().reveal(), [[0, -2849.5]], atol=1e-4)


def test_log_softmax_is_refused_by_the_bound_and_says_which_would_do(pair):
    whole = pair.share([[2**30, 0]], owner="alice")
    large = whole * pair.share([[2**30, 1]], owner="bob")
    before = pair.cost().total
    with pytest.raises(
        mpc.RangeError, match=r"log_softmax .* bound of 1\.75922e\+13 or less, got"
    ) as e:
        large.log_softmax()
    assert pair.cost().total == before
    limit = float(str(e.value).split("with_bound(")[1].split(")")[0])
    # Its advice is right.
    fine = pair.share([[2**12, 0]], owner="alice") * pair.share([[2**12, 1]], owner="bob")
    log = fine.with_bound(limit).log_softmax().reveal()
    np.testing.assert_allclose(log, [[0, -(2.0**24)]], atol=2.0**-13)


def test_whole_numbers_saturate(pair):
    """Products of whole numbers have no room for the format's bits; sigmoid needs none."""
    a = np.array([2**30, -(2**30), 3, -3, 0, 12, -12])
    x = pair.share(a, owner="alice") * pair.share(np.array([2**31 - 1] * 2 + [1] * 5), owner="bob")
    exact = a * np.array([2.0**31 - 1] * 2 + [1.0] * 5)
    assert np.abs(expit(x).reveal() - expit(exact)).max() <= sigmoid.error_bound("sigmoid", 16)
    assert np.abs(np.tanh(x).reveal() - np.tanh(exact)).max() <= sigmoid.error_bound("tanh", 16)
    found = x.reshape(1, -1).softmax().reveal()
    assert np.abs(found - [[1, 0, 0, 0, 0, 0, 0]]).max() <= softmax.error_bound(7, 16)


@pytest.mark.parametrize("k", [33, 1000, pytest.param(65536, marks=pytest.mark.dear)])
def test_softmax_of_many_columns(pair, k):
    random = np.random.default_rng(k)
    # As they come; all below the cut of few columns; all alike.
    z = np.stack([random.normal(0, 3, k), np.full(k, -11.2), np.zeros(k)])
    z[1, k // 2] = 0
    z = np.round(z * 2.0**16) * 2.0**-16
    scores = pair.share(z, owner="alice")
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    exact = powers / powers.sum(axis=1, keepdims=True)
    error = np.abs(scores.softmax().reveal() - exact).max()
    assert error <= softmax.error_bound(k, 16)
    error = np.abs(scores.log_softmax().reveal() - np.log(exact)).max()
    assert error <= softmax.error_bound(k, 16, log=True)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_more_columns_are_refused(pair, name):
    scores = pair.share(np.zeros((1, 65537)), owner="alice")
    with pytest.raises(mpc.RangeError, match=f"^{name} takes at most 65536 columns, got 65537"):
        getattr(scores, name)()
    assert pair.cost().rounds == 0


def test_one_column(pair):
    with mpc.Session(frac_bits=0, int_bits=31) as s:
        assert s.share([[5], [-7]], owner="alice").softmax().reveal().tolist() == [[1], [1]]
    assert pair.share([[5.5], [-7]], owner="alice").softmax().reveal().tolist() == [[1], [1]]


@pytest.mark.dealt
def test_a_smaller_bound_leaves_out_pieces(pair, spent):
    values = np.linspace(-1, 1, 100)
    costs = []
    for bound in (1.0, 5.0, None):
        x = pair.share(values, owner="alice", bound=bound)
        costs.append(spent(pair, lambda x=x: sigmoid.sigmoid(x)))
    sizes = [cost.correction_bytes for cost in costs]
    assert sizes == sorted(set(sizes))


def test_sums_of_words_keep_the_bound_they_are_given(pair):
    random = np.random.default_rng(0)
    x = shared(random, pair, [LARGEST - 1, 1 - LARGEST], 16, LARGEST)
    d = comparison.difference(x, x[::-1])
    assert LARGEST - 1 <= d.bound <= LARGEST
    back = comparison.add_words(d, x[::-1], LARGEST)
    assert encoded(back).tolist() == [LARGEST - 1, 1 - LARGEST]
