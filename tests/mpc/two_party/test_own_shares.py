"""Protocols on the parties' own shares against Python's integers, at the edges of shares and values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.core.errors import ArgumentError, RangeError
from mpc.two_party import convert, maximum, product, relu, select, sign, thresholds, truncation
from ring import pack_bits
from tests.helpers.chances import ALARM, chance_of_count

# Shares of one party, and what is next to them.
EDGES = [0, 1, 2**62 - 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2**62, 2**64 - 1]
words = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**64 - 1))
few = {"max_examples": 60, "deadline": None}


def near(limit):
    """Values in [-limit, limit]: zero, units, both ends, anything."""
    special = sorted({v for k in (0, 1, 2, limit - 1, limit) for v in (k, -k) if abs(v) <= limit})
    return st.one_of(st.sampled_from(special), st.integers(-limit, limit))


def rounded_rightly(y, z, shift):
    """Whether y is z / 2^shift, rounded down or up, exactly where z is a multiple."""
    down, low = z >> shift, z & (1 << shift) - 1
    return y == down or (low and y == down + 1)


@st.composite
def truncations(draw):
    shift = draw(st.integers(1, 61))
    z = draw(st.lists(near(2**62 - 1), min_size=1, max_size=5))
    z += [v >> shift << shift for v in z]
    return shift, z, draw(st.lists(words, min_size=len(z), max_size=len(z)))


@st.composite
def windows(draw):
    """L, s, and values z of which z / 2^s, rounded up too, and one less, have L signed bits."""
    shift = draw(st.one_of(st.integers(0, 20), st.just(16), st.integers(0, 60)))
    bits = draw(st.integers(2, min(62, 64 - shift)))
    # Below 2^62 where a truncation is.
    limit = min(2 ** (bits - 1) - 1 << shift, 2**62 - 1)
    y = draw(st.lists(near(limit >> shift), min_size=1, max_size=6))
    lows = draw(st.lists(st.integers(0, (1 << shift) - 1), min_size=len(y), max_size=len(y)))
    z = [(v << shift) + low for v, low in zip(y, lows, strict=True)]
    # The largest may not be rounded up, the smallest has no place below for y - 1.
    least = -(2 ** (bits - 1)) + 1
    z = [max(min(v, limit), least << shift) for v in z]
    return bits, shift, z, draw(st.lists(words, min_size=len(z), max_size=len(z)))


def array(values):
    return np.array(values, np.uint64)


class TestTruncation:
    @settings(**few)
    @given(truncations())
    def test_any(self, pair, shared, integers, drawn):
        shift, z, second = drawn
        y = integers(truncation.truncate(pair, shared(z, array(second)), shift))
        assert all(rounded_rightly(a, b, shift) for a, b in zip(y, z, strict=True))

    @pytest.mark.parametrize("shift", [1, 3, 16, 40, 61])
    @pytest.mark.parametrize("part", [0, 1, 0.25, 0.5, -1])
    def test_rounds_up_as_often_as_it_should(self, pair, shared, integers, shift, part):
        """The law itself: with probability (z mod 2^s) / 2^s; -1 stands for the largest rest."""
        n, step = 1 << 16, 1 << shift
        low = step - 1 if part == -1 else min(step - 1, int(part * step) if part != 1 else 1)
        for sign_of in (1, -1):
            z = sign_of * min(5 << shift, 2**61) + low
            y = integers(truncation.truncate(pair, shared(np.full(n, z)), shift))
            up = sum(v - (z >> shift) for v in y)
            # It may be so small that it happens once or never.
            assert chance_of_count(up, n, low / step) > ALARM

    def test_rounds_by_what_one_party_knows(self, pair, shared, integers):
        """Up where z mod 2^s is more than (z_0 - 1) mod 2^s: the docstring's sentence."""
        random = np.random.default_rng(0)
        z = random.integers(-(2**40), 2**40, 2048)
        shares = shared(z)
        y = integers(truncation.truncate(pair, shares, 16))
        offset = (shares[0] - np.uint64(1)) & np.uint64(65535)
        up = (z & 65535).astype(np.uint64) > offset
        assert y == ((z >> 16) + up).tolist()

    @pytest.mark.parametrize("shift", [-1, 0, 62, 64])
    def test_refuses(self, pair, shared, shift):
        with pytest.raises(RangeError, match=r"shift must be in \[1, 62\)"):
            truncation.truncate(pair, shared([1]), shift)


class TestSign:
    @settings(max_examples=120, deadline=None)
    @given(windows())
    def test_sign_and_value(self, pair, shared, integers, bits, drawn):
        window, shift, z, second = drawn
        low, y = sign.sign(pair, shared(z, array(second)), window, shift)
        y = integers(y)[: len(z)]
        if shift:
            assert all(rounded_rightly(a, b, shift) for a, b in zip(y, z, strict=True))
        else:
            assert y == z
        # Of the same y, however it has been rounded.
        assert bits(low[:, 0], len(z)) == [int(v < 0) for v in y]

    @settings(max_examples=120, deadline=None)
    @given(windows())
    def test_relu_and_its_derivative(self, pair, shared, integers, bits, drawn):
        window, shift, z, second = drawn
        result, derivative = relu.relu_with_derivative(
            pair, shared(z, array(second)), window, shift
        )
        for got, bit, v in zip(integers(result), bits(derivative, len(z)), z, strict=True):
            down, low = v >> shift, v & (1 << shift) - 1
            allowed = {down, down + 1} if low else {down}
            assert got in {max(y, 0) for y in allowed}
            assert bit == int(got > 0)

    @pytest.mark.parametrize("second", EDGES)
    @pytest.mark.parametrize("shift", [0, 16])
    def test_relu_at_both_ends(self, pair, shared, integers, bits, second, shift):
        y = [0, 1, -1, 2, -2, 2**31 - 1, -(2**31) + 1, -(2**31) + 2]
        shares = shared([v << shift for v in y], np.full(len(y), second, np.uint64))
        result, derivative = relu.relu_with_derivative(pair, shares, 32, shift)
        assert integers(result) == [max(v, 0) for v in y]
        assert bits(derivative, len(y)) == [int(v > 0) for v in y]

    @pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
    def test_sizes(self, pair, shared, integers, size):
        z = np.random.default_rng(size).integers(-(2**20), 2**20, size)
        result, derivative = relu.relu_with_derivative(pair, shared(z), 22)
        assert integers(result) == np.maximum(z, 0).tolist()
        assert result.shape == (2, size) and derivative.shape == (2, -(-size // 64))

    @settings(**few)
    @given(st.lists(st.tuples(words, words), min_size=1, max_size=5))
    def test_whole_words(self, pair, bits, drawn):
        """L = 64 and s = 0: the top bit of whatever the shares add up to."""
        shares = np.array(drawn, np.uint64).T.copy()
        low, _ = sign.sign(pair, shares, 64)
        assert bits(low[:, 0], len(drawn)) == [((a + b) % 2**64) >> 63 for a, b in drawn]

    @settings(**few)
    @given(st.integers(2, 64), st.data())
    def test_equality(self, pair, shared, bits, window, data):
        z = data.draw(st.lists(near(2 ** (window - 1) - 1), min_size=1, max_size=5))
        second = data.draw(st.lists(words, min_size=len(z), max_size=len(z)))
        found = sign.is_zero(pair, shared(z, array(second)), window)
        assert bits(found, len(z)) == [int(v == 0) for v in z]

    @pytest.mark.parametrize("second", EDGES)
    def test_equality_bit_by_bit(self, pair, shared, bits, second):
        z = [0, *(v for k in range(62) for v in (1 << k, -(1 << k)))]
        found = sign.is_zero(pair, shared(z, np.full(len(z), second, np.uint64)), 64)
        assert bits(found, len(z)) == [1] + [0] * 124

    @pytest.mark.parametrize(
        ("bits_", "shift"), [(1, 0), (65, 0), (49, 16), (0, 5), (4, 61)], ids=str
    )
    def test_refuses(self, pair, shared, bits_, shift):
        for call in (sign.sign, relu.relu_with_derivative):
            with pytest.raises(RangeError, match="bits must be in"):
                call(pair, shared([1]), bits_, shift)


class TestThresholds:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(4, 60), st.integers(0, 4), st.integers(1, 9), st.data())
    def test_any(self, pair, shared, integers, window, shift, count, data):
        limit = 2 ** (window - 2) - 1
        limits = data.draw(st.lists(near(limit), min_size=count, max_size=count))
        y = data.draw(st.lists(near(limit), min_size=1, max_size=4)) + limits
        shift = min(shift, 62 - window)
        shares = shared([v << shift for v in y])
        below, values = thresholds.below(pair, shares, limits, window, shift)
        assert integers(values) == y
        assert integers(below) == [[int(v < t) for v in y] for t in limits]


class TestBits:
    @settings(**few)
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=130))
    def test_to_numbers(self, pair, integers, drawn):
        planes = pack_bits(np.array(drawn).T)
        number = convert.to_number(pair, planes, len(drawn))
        assert integers(number) == [int(a ^ b) for a, b in drawn]

    @settings(**few)
    @given(st.lists(st.tuples(words, words, st.booleans(), st.booleans()), min_size=1, max_size=70))
    def test_select(self, pair, drawn):
        numbers = np.array([v[:2] for v in drawn], np.uint64).T.copy()
        planes = pack_bits(np.array([v[2:] for v in drawn]).T)
        got = select.select(pair, numbers, planes).sum(axis=0, dtype=np.uint64)
        assert got.tolist() == [(a + b) % 2**64 * (x ^ y) for a, b, x, y in drawn]

    @settings(**few)
    @given(truncations(), st.data())
    def test_gate(self, pair, shared, integers, drawn, data):
        shift, z, second = drawn
        chosen = data.draw(st.lists(st.booleans(), min_size=2 * len(z), max_size=2 * len(z)))
        planes = pack_bits(np.array(chosen).reshape(2, len(z)))
        got, kept = select.gate(pair, shared(z, array(second)), planes, shift)
        got, kept = integers(got), integers(kept)
        mine, theirs = chosen[: len(z)], chosen[len(z) :]
        for y, whole, v, a, b in zip(got, kept[: len(z)], z, mine, theirs, strict=True):
            assert rounded_rightly(whole, v, shift) if shift else whole == v
            assert y == (whole if a ^ b else 0)

    def test_a_derivative_serves_again(self, pair, shared, integers):
        """ReLU's way back takes its bits as they are, more than once."""
        z = np.random.default_rng(4).integers(-100, 100, 300)
        _, derivative = relu.relu_with_derivative(pair, shared(z), 9)
        for other in (z, z[::-1], np.arange(300)):
            got = integers(select.select(pair, shared(other), derivative))
            assert got == (other * (z > 0)).tolist()


class TestProducts:
    @settings(**few)
    @given(st.lists(st.tuples(words, words, words, words), min_size=1, max_size=70))
    def test_any(self, pair, drawn):
        x, y = (np.array([v[k : k + 2] for v in drawn], np.uint64).T.copy() for k in (0, 2))
        got = product.multiply(pair, x, y).sum(axis=0, dtype=np.uint64)
        assert got.tolist() == [(a + b) * (c + d) % 2**64 for a, b, c, d in drawn]

    @settings(**few)
    @given(st.integers(0, 64), st.integers(0, 64), st.integers(0, 2**32))
    def test_factors_of_few_bits(self, pair, one, other, seed):
        random = np.random.default_rng(seed)
        x = random.integers(0, 2**64, (2, 64), np.uint64)
        w = random.integers(0, 2**64, (2, 64), np.uint64)
        for row, count in zip(w, (one, other), strict=True):
            row &= np.uint64(2**count - 1)
        got = product.cross_products(pair, x, w, (one, other)).sum(axis=0, dtype=np.uint64)
        assert np.array_equal(got, x[0] * w[1] + x[1] * w[0])

    def test_refuses(self, pair):
        zeros = np.zeros((2, 64), np.uint64)
        for wrong in ((65, 1), (1, -1)):
            with pytest.raises(RangeError, match=r"bits must be in \[0, 64\]"):
                product.cross_products(pair, zeros, zeros, wrong)


class TestLargest:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 3), st.integers(2, 16), st.data())
    def test_any(self, pair, shared, integers, bits, k, size, group, data):
        values = data.draw(
            st.lists(
                st.one_of(st.integers(-2, 2), st.sampled_from([2**62 - 1, -(2**62) + 1])),
                min_size=k * size, max_size=k * size,
            )
        )  # fmt: skip
        s = np.array(values, object).reshape(k, size)
        shares = shared(s)
        assert integers(maximum.maximum(pair, shares, 64, group)) == s.max(axis=0).tolist()
        planes = maximum.argmax(pair, shares, 64, group)
        found = [bits(planes[:, j], size) for j in range(k)]
        first = [[int(v) for v in s[:, e]].index(max(s[:, e])) for e in range(size)]
        assert found == [[int(j == f) for f in first] for j in range(k)]

    def test_refuses(self, pair, shared):
        for call in (maximum.maximum, maximum.argmax):
            with pytest.raises(ArgumentError, match="group must be at least 2, got 1"):
                call(pair, shared(np.zeros((3, 4))), 8, 1)
            with pytest.raises(ArgumentError, match="values must have shape"):
                call(pair, shared(np.zeros((0, 4))), 8)
            with pytest.raises(ArgumentError, match="values must have shape"):
                call(pair, shared(np.zeros(4)), 8)
