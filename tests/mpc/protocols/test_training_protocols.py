"""What training adds to the protocols: gates, fractions, inverse roots, masks of data sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from mpc import SharedArray
from mpc.protocols import bit_injection, combination, inverse_root, masking
from mpc.protocols.combination import Fraction

UNIT = 2.0**-16


def fixed(x):
    return np.round(np.asarray(x) / UNIT) * UNIT


# Gates.


def test_gate_truncates_and_selects_at_once(session, spent):
    rng = np.random.default_rng(0)
    x, g, w = (fixed(rng.normal(size=(13, 10))) for _ in range(3))
    _, derivative = session.share(x, owner="alice").relu_with_derivative()
    product = session.share(g, owner="bob") * session.share(w, owner="alice")
    assert product.frac_bits == 32
    cost = spent(session, lambda: product.gate(derivative))
    if not session.source.own_shares:
        assert cost == bit_injection.cost(session.size, 130, 16)
        assert cost.rounds == 1
    found = product.gate(derivative)
    assert found.frac_bits == 16
    assert np.abs(found.reveal() - g * w * (x > 0)).max() <= UNIT
    assert not found.reveal()[x < 0].any()


def test_gate_rounds_without_bias_and_without_wrapping(session, share_integers, integers):
    size = 20_000
    signs = np.tile([1.0, -1.0], size // 2)
    _, bit = session.share(signs, owner="bob").relu_with_derivative()
    for value in (2**61 - 12345, -(2**61) + 54321, 3 * 2**14):
        z = share_integers(session, np.full(size, value), frac_bits=32)
        found = integers(z.gate(bit))
        assert not found[1::2].any()
        error = found[::2] - value / 2**16
        assert np.abs(error).max() < 1 + 2**-7
        assert abs(error.mean()) < 0.05


def test_gate_of_what_needs_no_truncation(session):
    x = fixed(np.linspace(-1, 1, 11))
    _, bit = session.share(x, owner="alice").relu_with_derivative()
    np.testing.assert_array_equal(session.share(x, owner="bob").gate(bit).reveal(), x * (x >= 0))


def test_gate_refuses_other_bits(pair):
    x = pair.share(np.ones(3), owner="alice")
    with pytest.raises(mpc.DtypeError, match="result of a comparison"):
        x.gate(pair.share(np.ones(3, bool), owner="bob"))
    with pytest.raises(mpc.ShapeError, match=r"shape \(3,\)"):
        x.gate(pair.share(np.ones(4), owner="bob") > 0)


# Fractions.


@given(st.integers(-40, 20))
def test_powers_of_two_are_exact(power):
    f = Fraction.nearest(2.0**power, 40)
    assert f.value == 2.0**power
    assert f == Fraction(2 ** max(power, 0), max(-power, 0))


@given(st.floats(1e-6, 1e6))
def test_sixteen_significant_bits(value):
    f = Fraction.nearest(value, 60)
    assert abs(f.value / value - 1) <= 2.0**-16
    assert Fraction.nearest(-value, 60).value == -f.value


@given(st.floats(0, 1), st.integers(1, 30))
def test_no_finer_than_asked(value, bits):
    f = Fraction.nearest(value, bits)
    assert f.bits <= bits
    assert abs(f.value - value) <= max(2.0 ** -(bits + 1), value * 2.0**-16)


def test_combination(session, spent):
    x, y = fixed([1.5, -3.25, 0.0]), fixed([100.0, 0.125, -7.0])
    a, b = session.share(x, owner="alice"), session.share(y, owner="bob")
    terms = [(a, Fraction(3, 3)), (b * b, Fraction(-5, 20))]
    found = combination.combine(terms, 24)
    assert found.frac_bits == 24
    revealed = found.derive(found.shares, frac_bits=0, bound=(1 << 62) - 1).reveal() * 2.0**-24
    assert np.abs(revealed - (3 / 8 * x - 5 * 2.0**-20 * y * y)).max() <= 2.0**-24
    cost = spent(session, lambda: combination.combine(terms, 24))
    if not session.source.own_shares:
        assert cost == combination.cost(session.size, 3, 32 + 20 - 24)


def test_combination_with_nothing_to_truncate_or_nothing_at_all(session):
    a = session.share([1.5, -2.0], owner="alice")
    assert combination.combine([(a, Fraction(1, 0))], 16).reveal().tolist() == [1.5, -2.0]
    assert combination.combine([(a, Fraction(0, 0))], 16).reveal().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bits", [0, 1, 20, 61])
def test_combination_up_to_the_end_of_the_ring(pair, integers, bits):
    """Sums in between that wrap around do no harm; the result counts."""
    largest = 2**62 - 1
    values = np.array([largest, -largest, 0, 1])
    x = exact(pair, values, 61, largest)
    terms = [(x, Fraction(7, 0)), (x, Fraction(-6, 0))]
    assert combination.reach(terms, 61 - bits) == 13 * largest
    result = combination.combine(terms, 61 - bits)
    assert result.frac_bits == 61 - bits
    for value, found in zip(values.tolist(), integers(result).tolist(), strict=True):
        assert value >> bits <= found <= -(-value >> bits) and abs(found) <= result.bound


def test_combination_bounds_the_sum(pair):
    x, y = exact(pair, np.array([5]), 16, 5), exact(pair, np.array([-7]), 24, 7)
    # 3 / 2^3 x and -5 y, with 24 bits: 96 x and -5 y.
    terms = [(x, Fraction(3, 3)), (y, Fraction(-5, 0))]
    assert combination.reach(terms, 24) == 96 * 5 + 5 * 7
    assert combination.combine(terms, 24).bound == 96 * 5 + 5 * 7


# m / sqrt(x).


@pytest.mark.parametrize("top", [10, 26], ids=["narrow", "wide"])
def test_inverse_root_over_its_whole_range(session, integers, top):
    rng = np.random.default_rng(0)
    limit = 2 ** (top + 36) - 2
    x = 2.0 ** np.concatenate([rng.uniform(-36, top, 3000), np.arange(-36, top), np.zeros(2)])
    x = np.minimum((x * 2.0**36).astype(np.int64), limit)
    x[:3], x[-1] = (limit, limit - 1, 1), 0
    # Up to the largest m, and to the largest ratio.
    ratio = 2.0 ** rng.uniform(-10, 12.99, len(x)) * rng.choice([-1, 1], len(x))
    root = np.sqrt(x + 1) * 2.0**-18
    m = np.clip(np.round(ratio * root * 2.0**24), -(2**41), 2**41).astype(np.int64)
    m[0] = 0
    shared = exact(session, m, 24, inverse_root.M_BOUND), exact(session, x, 36, limit)
    result = inverse_root.times_inverse_root(*shared)
    found = integers(result)
    assert result.frac_bits == inverse_root.RESULT_BITS and np.abs(found).max() <= result.bound
    # Zero counts as 2^-36; adding that is what the protocol does to all.
    expected = m * 2.0**-24 / root
    error = np.abs(found * 2.0**-inverse_root.RESULT_BITS - expected)
    assert np.all(error <= 1e-3 * np.abs(expected) + (2.0**-36 / root if top > 10 else 0))


def exact(session, integers, frac_bits, bound):
    """Shares of encoded values as large as a product's."""
    shares = np.zeros((len(session.here), len(integers)), np.uint64)
    if session.first_row is not None:
        shares[session.first_row] = integers.view(np.uint64)
    return SharedArray(session, shares, frac_bits, bound)


@pytest.mark.dealt
@pytest.mark.parametrize("bound", [1 << 46, (1 << 46) + 1, inverse_root.X_BOUND])
def test_inverse_root_costs_as_declared(session, spent, bound):
    m = SharedArray.from_public(session, np.ones(100), 24, 1 << 29)
    x = SharedArray.from_public(session, np.ones(100), 36, bound)
    cost = spent(session, lambda: inverse_root.times_inverse_root(m, x))
    assert cost == inverse_root.cost(session.size, 100, bound)
    assert cost.rounds == (35 if bound == 1 << 46 else 36)


@pytest.mark.parametrize(
    ("name", "m_bound", "x_bound"),
    [("m", inverse_root.M_BOUND + 1, 1), ("x", 1, inverse_root.X_BOUND + 1)],
)
def test_inverse_root_refuses_bounds_outside_of_its_domain(pair, name, m_bound, x_bound):
    m, x = (
        SharedArray.from_public(pair, [1.0], 24, m_bound),
        SharedArray.from_public(pair, [1.0], 36, x_bound),
    )
    with pytest.raises(mpc.RangeError, match=f"^{name} of m / sqrt.* got a bound of"):
        inverse_root.times_inverse_root(m, x)
    assert pair.cost().rounds == 0


# Masks of data sets.


@pytest.mark.parametrize("both", [False, True], ids=["given", "joined"])
def test_batches_of_a_masked_data_set_are_opened_once(session, spent, both):
    """With a small memory limit it is masked in pieces; batches then cost no opening."""
    rng = np.random.default_rng(0)
    X, w = fixed(rng.normal(size=(50, 6))), fixed(rng.normal(size=(6, 4)))
    with mpc.Session(session.parties, memory_limit=1 << 13) as s:
        x = s.share(X, owner="alice")
        if both:
            x = np.concatenate([x[:20], s.share(X[20:], owner="bob")])
        some = masking.rows_at_once(x)
        assert some < 25
        cost = spent(s, x.mask_data)
        assert cost == masking.cost(s.size, 300, -(-50 // some))
        assert spent(s, x.mask_data).rounds == 0
        weights = s.share(w, owner="bob")
        (x[:1] @ weights).reveal()
        for rows in (np.array([7, 3, 49, 3]), np.arange(10, 20), slice(40, 50, 3)):
            batch = x[rows]
            before = s.cost()
            forward = batch @ weights
            assert (s.cost() - before).rounds == 0
            np.testing.assert_allclose(forward.reveal(), X[rows] @ w, rtol=0, atol=2e-4)
            g = s.share(np.ones((len(batch), 2)), owner="alice")
            np.testing.assert_allclose(
                (batch.T @ g).reveal(), X[rows].T @ np.ones((len(batch), 2)), rtol=0, atol=2e-4
            )
        np.testing.assert_allclose((x * x).reveal(), X * X, rtol=0, atol=2e-4)


def test_the_provider_expands_the_rows_asked_for_alone(monkeypatch):
    """A large data set is neither expanded nor cached whole."""
    from mpc.provider.dealer import Provider

    expanded = []
    expand = Provider.expand

    def listen(self, ref, rows):
        words = expand(self, ref, rows)
        expanded.append((ref.part.shape, words.shape))
        return words

    monkeypatch.setattr(Provider, "expand", listen)
    X = fixed(np.random.default_rng(0).normal(size=(2000, 200)))
    with mpc.Session() as s:
        x, w = s.share(X, owner="alice"), s.share(np.ones((200, 2)), owner="bob")
        x.mask_data()
        for rows in (np.array([1999, 0, 5]), slice(1000, 1010)):
            batch = x[rows]
            np.testing.assert_allclose(
                (batch @ w).reveal()[:, 0], X[rows].sum(axis=1), rtol=0, atol=5e-3
            )
            batch.T @ s.share(np.ones((len(batch), 1)), owner="bob")
    of_data = [shape for whole, shape in expanded if whole[1:] == (200,)]
    # Once a batch, for both products.
    assert of_data == [(3, 200), (10, 200)]


def test_rows_of_different_choices_are_not_mixed_up():
    """Two rows, and the run of rows between the same two."""
    X = fixed(np.random.default_rng(0).normal(size=(3000, 100)))
    with mpc.Session() as s:
        x, w = s.share(X, owner="alice"), s.share(np.ones((100, 1)), owner="bob")
        x.mask_data()
        for rows in (np.array([3, 6]), slice(3, 7), np.array([6, 3]), np.array([3, 6])):
            np.testing.assert_allclose(
                (x[rows] @ w).reveal()[:, 0], X[rows].sum(axis=1), rtol=0, atol=5e-3
            )


# Guard bits.


@pytest.mark.parametrize(("frac_bits", "int_bits", "guard"), [(16, 15, 8), (20, 15, 6), (2, 4, 1)])
def test_guard_bits_leave_room_for_a_product(frac_bits, int_bits, guard):
    from ring import FixedPoint

    form = FixedPoint(frac_bits, int_bits)
    assert form.guard_bits == guard
    assert 2 * frac_bits + guard + int_bits < 62


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_one_factor_keeps_its_guard_bits(seed):
    rng = np.random.default_rng(seed)
    x, w = fixed(rng.normal(size=(4, 5))), rng.normal(size=(5, 3))
    w = np.round(w * 2.0**24) * 2.0**-24
    with mpc.Session() as s:
        weights = SharedArray.from_public(s, w, 24, 1 << 39)
        z = s.share(x, owner="alice") @ weights
        assert z.frac_bits == 40
        assert np.abs(z.reveal() - x @ w).max() <= UNIT
        # Two of them would be too many.
        assert (weights * weights).frac_bits == 32
