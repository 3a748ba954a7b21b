"""Exponential, reciprocal, logarithm and softmax on shares: errors over whole ranges, and costs."""

import numpy as np
import pytest

from mpc.array.shared_array import SharedArray
from mpc.core.errors import ShapeError
from mpc.protocols import bounded, exponential, linear, logarithm, reciprocal, softmax
from ring import FixedPoint

UNIT = 2.0**-16
# Below this the exponential counts as zero.
CUT = -256 / 22


@pytest.fixture(scope="module")
def values(integers):
    """Reveal with all fractional bits, as floats."""
    return lambda x: np.asarray(integers(x)) * 2.0**-x.frac_bits


def fixed(x):
    return np.round(np.asarray(x) / UNIT) * UNIT


def test_exponential_over_its_whole_range(session, values):
    d = fixed(
        np.concatenate([[0.0, -UNIT, -11.0, -20, -1000, -32767], -np.linspace(0, 12, 20_001)])
    )
    found = values(exponential.exp(session.share(d, owner="alice")))
    inside = d > CUT + 1e-4
    assert np.abs(found - np.exp(d))[inside].max() < 4e-7
    assert np.abs(found - np.exp(d)).max() < 9e-6
    assert not found[d < CUT - 1e-4].any()


def test_exponential_of_untruncated_values(session, values):
    """With 40 fractional bits, the lowest 20 are rounded away."""
    d = -np.linspace(0, 11, 5001)
    x = linear.at_bits(session.share(d, owner="bob"), 40)
    found = values(exponential.exp(x))
    assert np.abs(found - np.exp(fixed(d))).max() < 1e-6
    assert abs(found[0] - 1) < 4e-7


def test_exponential_rounds_without_bias(session, values):
    x = linear.at_bits(session.share(np.full(20_000, -1.23456), owner="bob"), 40)
    found = values(exponential.exp(x))
    assert abs(found.mean() - np.exp(fixed(-1.23456))) < 1e-7


def test_reciprocal_starts_as_published():
    a, b, steps = reciprocal.start(10)
    assert a / 2**12 == pytest.approx(0.54658, abs=2e-4)
    assert b / 2**12 == pytest.approx(0.04969, abs=2e-4)
    assert steps == 4


@pytest.mark.parametrize("k", range(2, bounded.LARGEST + 1))
def test_pieces_are_as_many_as_are_met(k):
    """Of every number that x can be, both pieces have a polynomial of their own."""
    edge = 2.0**-20
    least, most = int(15 / 16 * (1 - edge) * 4), int(k * (1 + edge) * 4) + 1
    pieces = bounded.pieces_of(k)
    met = [i % pieces for i in range(least, most + 1)]
    assert len(set(met)) == len(met)
    assert {i if i >= least else i + pieces for i in met} == set(range(least, most + 1))


@pytest.mark.dealt
@pytest.mark.parametrize("name", ["reciprocal", "log"])
def test_pieces_join(session, values, name):
    """At the ends of pieces, under several masks."""
    unit, width = 2.0**-24, 0.25
    ends = np.arange(1, 10.1, width)
    x = np.concatenate([np.linspace(15 / 16, 1, 33), ends, ends[1:] - unit, ends + unit])
    found = [
        values(bounded.evaluate(SharedArray.from_public(session, x, 24, 11 << 24), 10, name))
        for _ in range(8)
    ]
    right = 1 / x if name == "reciprocal" else np.log(x)
    assert np.abs(np.array(found) - right).max() < 3e-6


@pytest.mark.dealt
@pytest.mark.parametrize("name", ["reciprocal", "log"])
@pytest.mark.parametrize("k", [2, 3, 10, 16])
def test_untruncated_numbers_of_a_range(session, values, name, k):
    """With 60 fractional bits, modulo 2^64, and a result that a product takes untruncated."""
    random = np.random.default_rng(k)
    x = np.concatenate([np.linspace(15 / 16, 1, 1001), over(k)])
    whole = (x * 2**24).astype(np.int64).astype(np.uint64) << np.uint64(36)
    whole += random.integers(0, 2**36, len(x), np.uint64)
    shares = (SharedArray.from_public(session, 0 * x, 24, 1)).shares.copy()
    if session.first_row is not None:
        shares[session.first_row] += whole
    like = SharedArray.from_public(session, x, 24, (k + 1) << 24)
    right = 1 / x if name == "reciprocal" else np.log(x)
    found = bounded.evaluate(like, k, name, shares, 36)
    assert np.abs(values(found) - right).max() < 3e-6
    later = bounded.Later(session, shares, k, name, shift=36, power_bits=20, factor_bits=20)
    found = later.value(like, session.open((later.message, "sum"))[0])
    assert found.frac_bits == 40
    assert np.abs(values(found) - right).max() < 6e-6
    assert np.abs(values(found)).max() * 2.0**40 <= found.bound


def test_pieces_that_a_word_does_not_hold_are_refused():
    for wrong in ((3, 0, 24), (256, 0, 24), (64, 37, 24), (64, -1, 24), (64, 36, 0), (64, 36, 40)):
        with pytest.raises(ShapeError):
            bounded.BoundedPieces(5, *wrong).check(2**20)
    bounded.BoundedPieces(5, 64, 36, 20).check(2**20)


@pytest.mark.parametrize("k", [1, 65537])
def test_other_ranges_are_refused(session, k):
    x = session.share([1.0], owner="bob")
    for function in (reciprocal.reciprocal, logarithm.log):
        with pytest.raises(ValueError, match=r"k must be in \[2, 65536\]"):
            function(x, k)


def over(k):
    """All of [1, k] and a little more, finely at both ends, and around the powers of two."""
    powers = 2.0 ** np.arange(17)
    near = [powers + step * 2.0**-24 for step in (-2, -1, 0, 1, 2)]
    x = np.concatenate([np.linspace(1, k, 3001), np.geomspace(1, k, 3001), *near])
    edge = 2.0**-20
    x = np.append(x, [1 - edge, k * (1 + edge)])
    return np.round(x[(x >= 1 - edge) & (x <= k * (1 + edge))] * 2.0**24) * 2.0**-24


@pytest.mark.parametrize("k", [2, 3, 10, 16, 17, 27, 31, 32, 33, 100, 128, 1000, 65536])
def test_reciprocal_and_logarithm_over_the_whole_range(session, values, k):
    x = over(k)
    inverse = reciprocal.reciprocal(SharedArray.from_public(session, x, 24, (k + 1) << 24), k)
    error = np.abs(values(inverse) - 1 / x)
    alone = session.pair is not None
    assert np.all(error <= (4e-5 if alone else 3e-6 + k * 2.0**-24) / x + 2.0**-22)
    log = logarithm.log(SharedArray.from_public(session, x, 24, (k + 1) << 24), k)
    assert np.abs(values(log) - np.log(x)).max() <= (2.0**-17 if alone else 0) + 3e-6
    for result in (inverse, log):
        assert np.abs(values(result)).max() * 2.0**result.frac_bits <= result.bound


def plain(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [2, 5, 10, 16, 20])
@pytest.mark.parametrize("scale", [0.1, 5, 3000])
def test_softmax(session, k, scale):
    z = fixed(np.random.default_rng(k).normal(0, scale, (200, k)))
    scores = session.share(z, owner="alice")
    found = scores.softmax()
    assert found.frac_bits == 16
    assert np.abs(found.reveal() - plain(z)).max() < (8e-5 if k > 10 else 4e-5)
    log = scores.log_softmax().reveal()
    shifted = z - z.max(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert np.abs(log - expected).max() < 1e-4


@pytest.mark.dealt
@pytest.mark.parametrize("k", [2, 10])
def test_softmax_of_close_scores(session, k):
    """Where nothing is cut off, little but the rounding of the result is left."""
    z = fixed(np.random.default_rng(k).normal(0, 0.5, (1000, k)))
    found = session.share(z, owner="alice").softmax().reveal()
    assert np.abs(found - plain(z)).max() < UNIT + 3e-6


def test_softmax_at_its_worst(session):
    """All other scores just below the cut, ties, and the largest difference."""
    z = np.zeros((5, 10))
    z[0, 1:] = CUT - 0.001
    # Of the largest score 2^-4 more is subtracted where there is a provider.
    z[4, 1:] = CUT - 0.001 + 2.0**-4
    z[1] = 7.0
    z[2] = [-32767, 32767, *[0] * 8]
    z[3, :2] = 3.0
    found = session.share(fixed(z), owner="bob").softmax().reveal()
    assert np.abs(found - plain(fixed(z))).max() < 1.3e-4
    assert np.abs(found[1] - 0.1).max() < 4e-5


def test_softmax_of_products_keeps_their_precision(session):
    """Scores with 32 fractional bits need no truncation."""
    rng = np.random.default_rng(0)
    x, w = fixed(rng.normal(size=(64, 20))), fixed(rng.normal(size=(20, 10)))
    scores = session.share(x, owner="alice") @ session.share(w, owner="bob")
    assert scores.frac_bits == 32
    assert np.abs(scores.softmax().reveal() - plain(x @ w)).max() < 4e-5


@pytest.mark.dealt
@pytest.mark.parametrize("rows", [64, 100])
def test_costs_are_as_declared(session, spent, rows):
    n = session.size
    for k in (2, 10):
        scores = session.share(np.zeros((rows, k)), owner="alice")
        assert spent(session, scores.softmax) == softmax.cost(n, rows, k, scores)
    for k in (2, 10, 32, 33, 1000):
        x = [SharedArray.from_public(session, np.ones(rows), 24, k << 24) for _ in range(2)]
        assert spent(session, lambda: reciprocal.reciprocal(x[0], k)) == reciprocal.cost(n, rows, k)  # noqa: B023
        assert spent(session, lambda: logarithm.log(x[1], k)) == logarithm.cost(n, rows, k)  # noqa: B023
    x = session.share(np.zeros(rows), owner="bob")
    _, shift, window = exponential.scaled(x)
    cost = exponential.cost(n, rows, shift, window)
    assert spent(session, lambda: exponential.exp(x)) == cost
    assert softmax.cost(n, rows, 10, scores).rounds == 9
    assert cost.rounds == 4


def test_plan_costs_what_a_run_does(session, spent):
    def program(s):
        s.share(np.ones((70, 10)), owner="alice").softmax().reveal()

    assert session.plan(program).cost.total == spent(session, lambda: program(session))


def test_other_formats(session):
    import mpc

    z = np.array([[1.5, -2.0, 0.25]])
    for form in (FixedPoint(12, 15), FixedPoint(18, 12), FixedPoint(20, 15)):
        with mpc.Session(
            session.parties, frac_bits=form.frac_bits, int_bits=form.int_bits
        ) as other:
            found = other.share(z, owner="alice").softmax().reveal()
            assert np.abs(found - plain(z)).max() < 3e-5 + 2 * 2.0**-form.frac_bits


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0)])
def test_shapes_that_have_no_softmax(pair, shape):
    with pytest.raises(ValueError, match="softmax needs a shape"):
        pair.share(np.zeros(shape), owner="alice").softmax()
