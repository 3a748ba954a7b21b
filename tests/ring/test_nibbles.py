"""Truth tables of nibbles against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import unpack_bits
from ring.bits import count_words
from ring.nibbles import add_tables, count_table_words, read_tables

EDGES = [0, 1, 7, 8, 15, 16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
SIZES = [0, 1, 2, 63, 64, 65, 128, 200]

sizes = st.sampled_from(SIZES)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def windows(draw, signed):
    """Draw the start and the number of nibbles of a window."""
    shift = draw(st.integers(0, 60))
    room = 64 - shift
    # A signed top nibble may reach behind bit 63.
    return shift, draw(st.integers(1, -(-room // 4) if signed else room // 4))


def words(size, seed):
    """Draw words, half of them edge values or close to one another."""
    random = np.random.default_rng(seed)
    some = random.integers(0, 2**64, size, np.uint64)
    edges = random.choice(np.array(EDGES, np.uint64), size)
    return np.where(random.random(size) < 0.5, edges, some)


def nibbles_of(x, count):
    return [x >> 4 * j & 15 for j in range(count)]


def top_bits(shift, count):
    """Return how many bits are left for the top nibble."""
    return min(4, 64 - shift - 4 * (count - 1))


def tables_of(v, shift, count, signed):
    """Write the tables of one word: bit t of table j is [v_j > t], or the sign of t - v_j."""
    out = [0] * count_table_words(count)
    for j, nibble in enumerate(nibbles_of(v >> shift, count)):
        for t in range(16):
            bit = int(nibble > t)
            if signed and j == count - 1:
                b = top_bits(shift, count)
                bit = (t - nibble) % 2**b >> (b - 1)
            out[j // 4] |= bit << 16 * (j % 4) + t
    return out


def compared(u, v, shift, count, signed):
    """Return greater and equal of one pair of words, a bit for each nibble."""
    pairs = list(zip(nibbles_of(u, count), nibbles_of(v, count), strict=True))
    greater = [int(q > p) for p, q in pairs]
    equal = [int(q == p) for p, q in pairs]
    if signed:
        b = top_bits(shift, count)
        difference = pairs[-1][0] - pairs[-1][1]
        greater[-1] = difference % 2**b >> (b - 1)
        equal[-1] = int(difference % 2 ** (b - 1) == 0)
    return greater, equal


def public(c, shift):
    return ((c >> shift) - 2 ** (62 - shift)) % 2**64


def opened(u, shift, random):
    """Return a c whose public part is u in the lowest 64 - shift bits."""
    c = (u + 2 ** (62 - shift) << shift) % 2**64
    return c + int(random.integers(0, 1 << shift, dtype=np.uint64)) if shift else c


def some_tables(v, shift, count, signed):
    tables = np.zeros((count_table_words(count), v.size), np.uint64)
    add_tables(v, shift, count, signed, tables)
    return tables


def read(c, shift, count, signed, tables, flip=True):
    """Read tables into planes that have a row on either side, and check that it stays."""
    planes = np.full((2 * count + 3, count_words(c.size)), 77, np.uint64)
    greater, equal = planes[1 : 1 + count], planes[2 + count : -1]
    read_tables(c, shift, count, signed, tables, flip, greater, equal)
    assert (planes[[0, 1 + count, -1]] == 77).all()
    return unpack_bits(greater, c.size), unpack_bits(equal, c.size)


def both(windows_of):
    return st.booleans().flatmap(lambda signed: st.tuples(windows_of(signed), st.just(signed)))


@pytest.mark.parametrize(("nibbles", "expected"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (16, 4)])
def test_count_table_words(nibbles, expected):
    assert count_table_words(nibbles) == expected


@pytest.mark.usefixtures("threads")
class TestAddTables:
    @settings(max_examples=80, deadline=None)
    @given(both(windows), sizes, seeds)
    def test_definition(self, window, size, seed):
        (shift, count), signed = window
        v = words(size, seed)
        before = words((count_table_words(count) + 2, size), seed + 1)
        after = before.copy()
        add_tables(v, shift, count, signed, after[1:-1])
        assert np.array_equal(after[[0, -1]], before[[0, -1]])
        added = (after ^ before)[1:-1]
        for e in range(size):
            assert added[:, e].tolist() == tables_of(int(v[e]), shift, count, signed)

    def test_every_nibble(self):
        v = np.arange(16, dtype=np.uint64)
        assert some_tables(v, 0, 1, False)[0].tolist() == [2**n - 1 for n in range(16)]
        # The sign of t - 0 and of t - 3, over t.
        signs = some_tables(v, 0, 1, True)[0].tolist()
        assert signs[0] == 0b1111111100000000
        assert signs[3] == 0b1111100000000111

    def test_input_stays_as_it_is(self):
        v = words(70, 1)
        before = v.copy()
        some_tables(v, 16, 8, True)
        assert np.array_equal(v, before)


@settings(max_examples=60, deadline=None)
@given(both(windows), sizes, seeds, st.sampled_from([1, -1, 5, 2**31, -(2**40)]))
def test_a_threshold_is_subtracted_from_the_public_number(window, size, seed, threshold):
    (shift, count), signed = window
    c, v = words(size, seed), words(size, seed + 1)
    tables = some_tables(v, shift, count, signed)
    planes = np.empty((2 * count, count_words(size)), np.uint64)
    read_tables(c, shift, count, signed, tables, True, planes[:count], planes[count:], threshold)
    found = unpack_bits(planes, size)
    for e in range(size):
        u = (public(int(c[e]), shift) - threshold) % 2**64
        greater, equal = compared(u, int(v[e]) >> shift, shift, count, signed)
        assert found[:, e].tolist() == greater + equal


@pytest.mark.usefixtures("threads")
class TestReadTables:
    @settings(max_examples=80, deadline=None)
    @given(both(windows), sizes, seeds)
    def test_definition(self, window, size, seed):
        (shift, count), signed = window
        random = np.random.default_rng(seed)
        r, c = words(size, seed), words(size, seed + 1)
        # A third is equal to the mask in some or all of the nibbles.
        for e in range(0, size, 3):
            u = int(r[e]) >> shift ^ int(random.integers(0, 2)) << int(
                random.integers(0, 64 - shift)
            )
            c[e] = opened(u, shift, random)
        greater, equal = read(c, shift, count, signed, some_tables(r, shift, count, signed))
        for e in range(size):
            u, v = public(int(c[e]), shift), int(r[e]) >> shift
            expected = compared(u, v, shift, count, signed)
            assert (greater[:, e].tolist(), equal[:, e].tolist()) == expected

    @settings(max_examples=40, deadline=None)
    @given(both(windows), sizes, st.sampled_from([2, 3, 5]), st.data(), seeds)
    def test_shares_read_like_the_whole(self, window, size, parties, data, seed):
        (shift, count), signed = window
        r, c = words(size, seed), words(size, seed + 1)
        tables = some_tables(r, shift, count, signed)
        shares = np.random.default_rng(seed).integers(0, 2**64, (parties, *tables.shape), np.uint64)
        shares[-1] = tables ^ np.bitwise_xor.reduce(shares[:-1], axis=0)
        flips = data.draw(st.integers(0, parties - 1))
        parts = [read(c, shift, count, signed, shares[i], i == flips) for i in range(parties)]
        whole = read(c, shift, count, signed, tables)
        for k in range(2):
            planes = np.bitwise_xor.reduce([part[k] for part in parts], axis=0)
            assert np.array_equal(planes, whole[k])

    @pytest.mark.parametrize("signed", [False, True])
    def test_every_pair_of_nibbles(self, signed):
        u, v = (x.reshape(-1) for x in np.meshgrid(np.arange(16), np.arange(16)))
        c = (u.astype(np.uint64) + np.uint64(2**62)) & np.uint64(2**64 - 1)
        greater, equal = read(c, 0, 1, signed, some_tables(v.astype(np.uint64), 0, 1, signed))
        if signed:
            assert np.array_equal(greater[0], (u - v) % 16 >= 8)
            assert np.array_equal(equal[0], (u - v) % 8 == 0)
        else:
            assert np.array_equal(greater[0], v > u)
            assert np.array_equal(equal[0], v == u)


def carried(greater, equal):
    """Return g_top ^ p_top (g_next ^ p_next (... g_0))."""
    bit = np.zeros(greater.shape[1], np.uint8)
    for g, p in zip(greater, equal, strict=True):
        bit = g ^ p & bit
    return bit


def truncated(z, r, shift):
    """Return c and y for z masked by r, y as section 4 of the protocols has it."""
    c = (z + 2**62 + r) % 2**64
    kappa = (1 - (c >> 63)) << 64 - shift
    y = (c >> shift) - 2 ** (62 - shift) - (r >> shift) + kappa * (r >> 63)
    return c, (y + 2**63) % 2**64 - 2**63


def values_within(bits, shift, random):
    """Return values of z whose truncation has so many bits, edges first."""
    largest = min(2**62 - 1, (2 ** (bits - 1) - 1) << shift)
    unit = 2**shift
    edges = [0, 1, -1, unit, -unit, unit - 1, 1 - unit, largest, -largest, largest - 1, 1 - largest]
    edges += [sign << k for k in range(62) for sign in (1, -1)]
    some = (random.integers(-(2**62), 2**62, 60) % (2 * largest + 1) - largest).tolist()
    return [z for z in edges + some if abs(z) <= largest]


@pytest.mark.parametrize(
    ("shift", "window"),
    [
        (shift, window)
        for shift in (0, 1, 2, 3, 4, 8, 13, 14, 15, 16, 31, 32, 48, 59, 60, 61)
        for window in range(4, 68 - shift, 4)
    ],
)
def test_sign_of_a_truncated_value(shift, window):
    """The prefix of the planes is the sign of y, whatever the mask."""
    random = np.random.default_rng(64 * shift + window)
    values = values_within(min(window, 64 - shift), shift, random)
    zs = values * 3
    masks = [2**64 - 1 - 2**62 - z for z in values]
    r = words(len(zs), window)
    # Masks which bring c to the ends of its range.
    r[: len(values)] = [mask % 2**64 for mask in masks]
    pairs = [truncated(z, int(mask), shift) for z, mask in zip(zs, r, strict=True)]
    c = np.array([pair[0] for pair in pairs], np.uint64)
    planes = read(c, shift, window // 4, True, some_tables(r, shift, window // 4, True))
    for z, (_, y) in zip(zs, pairs, strict=True):
        assert y in (z >> shift, -(-z >> shift))
    assert carried(*planes).tolist() == [int(y < 0) for _, y in pairs]


@pytest.mark.parametrize("window", range(4, 65, 4))
def test_equality_to_zero(window):
    random = np.random.default_rng(window)
    values = [0] * 10 + values_within(window, 0, random)
    r = words(len(values), window)
    c = np.array(
        [(z + 2**62 + int(mask)) % 2**64 for z, mask in zip(values, r, strict=True)], np.uint64
    )
    _, equal = read(c, 0, window // 4, False, some_tables(r, 0, window // 4, False))
    assert equal.all(axis=0).tolist() == [z == 0 for z in values]
