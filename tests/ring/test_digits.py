"""Truth tables of digits against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import unpack_bits
from ring.bits import count_words
from ring.digits import (
    WIDEST,
    add_tables,
    digits_of,
    read_all_tables,
    read_tables,
    split_evenly,
)

EDGES = [0, 1, 7, 8, 15, 16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
SIZES = [0, 1, 2, 63, 64, 65, 128, 200]

sizes = st.sampled_from(SIZES)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def windows(draw):
    """Draw the start of a window and its digits, of widths in any order."""
    shift = draw(st.integers(0, 61))
    signed = draw(st.booleans())
    room, widths = 64 - shift - signed, []
    while room and (not widths or draw(st.integers(0, 3))):
        widths.append(draw(st.integers(1, min(room, WIDEST))))
        room -= widths[-1]
    return shift, digits_of(tuple(widths), signed)


def words(size, seed):
    """Draw words, half of them edge values or close to one another."""
    random = np.random.default_rng(seed)
    some = random.integers(0, 2**64, size, np.uint64)
    edges = random.choice(np.array(EDGES, np.uint64), size)
    return np.where(random.random(size) < 0.5, edges, some)


def cut(x, widths):
    """Return the digits of x, and what is above them."""
    found = []
    for width in widths:
        found.append(x % 2**width)
        x >>= width
    return found, x


def tables_of(v, widths, signed):
    """Return the truth table of each digit of v as a list of bits."""
    found, above = cut(v, widths)
    tables = [
        [int(digit > t) for t in range(2**width)]
        for digit, width in zip(found, widths, strict=True)
    ]
    if signed and above % 2:
        tables[-1] = [1 - bit for bit in tables[-1]]
    return tables


def packed(v, digits):
    """Return the bits of all tables of one word, the widest digits first."""
    tables = tables_of(v, digits.widths, digits.signed)
    order = sorted(range(len(tables)), key=lambda j: -digits.widths[j])
    return [bit for j in order for bit in tables[j]]


def unpacked(tables, digits, size):
    """Return the bits of all tables of each element."""
    whole = tables[: digits.whole * size].reshape(digits.whole, size)
    bits = [[int(word) >> k & 1 for word in whole[:, e] for k in range(64)] for e in range(size)]
    if digits.fold >= 0:
        lanes, width = 2**digits.fold, 64 >> digits.fold
        for e in range(size):
            word = int(tables[digits.whole * size + e // lanes])
            bits[e] += [word >> (e % lanes * width + k) & 1 for k in range(width)]
    return bits


def compared(u, v, digits):
    """Return greater and equal of one pair of numbers, a bit for each digit."""
    (below, above), (other, top) = cut(u, digits.widths), cut(v, digits.widths)
    greater = [int(q > p) for p, q in zip(below, other, strict=True)]
    equal = [int(q == p) for p, q in zip(below, other, strict=True)]
    if digits.signed:
        greater[-1] ^= (above ^ top) & 1
    return greater, equal


def public(c, shift):
    return ((c >> shift) - 2 ** (62 - shift)) % 2**64


def opened(u, shift, random):
    """Return a c whose public part is u in the lowest 64 - shift bits."""
    c = (u + 2 ** (62 - shift) << shift) % 2**64
    return c + int(random.integers(0, 1 << shift, dtype=np.uint64)) if shift else c


def some_tables(v, shift, digits):
    tables = np.zeros(digits.count_table_words(v.size), np.uint64)
    add_tables(v, shift, digits, tables)
    return tables


def read(c, shift, digits, tables, flip=True, threshold=0):
    """Read tables into planes that have a row on either side, and check that it stays."""
    count = len(digits.widths)
    planes = np.full((2 * count + 3, count_words(c.size)), 77, np.uint64)
    greater, equal = planes[1 : 1 + count], planes[2 + count : -1]
    read_tables(c, shift, digits, tables, flip, greater, equal, threshold)
    assert (planes[[0, 1 + count, -1]] == 77).all()
    return unpack_bits(greater, c.size), unpack_bits(equal, c.size)


@pytest.mark.parametrize(
    ("widths", "size", "expected"),
    [
        ((3,), 9, 3), ((4,), 9, 3), ((5,), 9, 5), ((6,), 9, 9), ((5, 5, 5, 4, 4), 9, 18),
        ((6, 5, 5, 5, 5, 5), 9, 32), ((7,), 9, 18), ((10,), 1, 16), ((6, 3, 3), 4, 5), ((6,), 0, 0),
    ],
)  # fmt: skip
def test_tables_are_packed(widths, size, expected):
    assert digits_of(widths, False).count_table_words(size) == expected


def test_an_even_split():
    assert split_evenly(23, 5) == (5, 5, 5, 4, 4)
    assert split_evenly(8, 1) == (8,)


@pytest.mark.usefixtures("threads")
class TestAddTables:
    @settings(max_examples=80, deadline=None)
    @given(windows(), sizes, seeds)
    def test_definition(self, window, size, seed):
        shift, digits = window
        v = words(size, seed)
        length = digits.count_table_words(size)
        before = words(length + 2, seed + 1)
        after = before.copy()
        add_tables(v, shift, digits, after[1 : length + 1])
        assert np.array_equal(after[[0, -1]], before[[0, -1]])
        found = unpacked((after ^ before)[1 : length + 1], digits, size)
        for e in range(size):
            expected = packed(int(v[e]) >> shift, digits)
            assert found[e][: digits.table_bits] == expected
            assert not any(found[e][digits.table_bits :])

    def test_every_number_of_a_digit(self):
        v = np.arange(16, dtype=np.uint64)
        lanes = some_tables(v, 0, digits_of((4,), False)).view("<u2")
        assert lanes.tolist() == [2**n - 1 for n in range(16)]
        # With a top bit above three: [3 > t], inverted for 3 + 8.
        lanes = some_tables(v, 0, digits_of((3,), True)).view("<u2")
        assert (lanes[3], lanes[11]) == (0b00000111, 0b11111000)

    def test_input_stays_as_it_is(self):
        v = words(70, 1)
        before = v.copy()
        some_tables(v, 16, digits_of((8, 8, 6), True))
        assert np.array_equal(v, before)


@pytest.mark.usefixtures("threads")
class TestReadTables:
    @settings(max_examples=120, deadline=None)
    @given(windows(), sizes, seeds, st.sampled_from([0, 0, 1, -1, 5, 2**31, -(2**40)]))
    def test_definition(self, window, size, seed, threshold):
        shift, digits = window
        random = np.random.default_rng(seed)
        r, c = words(size, seed), words(size, seed + 1)
        # A third is equal to the mask in some or all of the digits.
        for e in range(0, size, 3):
            u = int(r[e]) >> shift ^ int(random.integers(0, 2)) << int(
                random.integers(0, 64 - shift)
            )
            c[e] = opened((u + threshold) % 2**64, shift, random)
        tables = some_tables(r, shift, digits)
        greater, equal = read(c, shift, digits, tables, threshold=threshold)
        for e in range(size):
            u, v = (public(int(c[e]), shift) - threshold) % 2**64, int(r[e]) >> shift
            expected = compared(u, v, digits)
            assert (greater[:, e].tolist(), equal[:, e].tolist()) == expected

    @settings(max_examples=40, deadline=None)
    @given(windows(), sizes, st.sampled_from([2, 3, 5]), st.data(), seeds)
    def test_shares_read_like_the_whole(self, window, size, parties, data, seed):
        shift, digits = window
        r, c = words(size, seed), words(size, seed + 1)
        tables = some_tables(r, shift, digits)
        shares = np.random.default_rng(seed).integers(0, 2**64, (parties, *tables.shape), np.uint64)
        shares[-1] = tables ^ np.bitwise_xor.reduce(shares[:-1], axis=0)
        flips = data.draw(st.integers(0, parties - 1))
        parts = [read(c, shift, digits, shares[i], i == flips) for i in range(parties)]
        whole = read(c, shift, digits, tables)
        for k in range(2):
            planes = np.bitwise_xor.reduce([part[k] for part in parts], axis=0)
            assert np.array_equal(planes, whole[k])

    @pytest.mark.parametrize("width", [1, 4, 6, 7, 8])
    @pytest.mark.parametrize("signed", [False, True])
    def test_every_pair_of_a_digit(self, width, signed):
        digits = digits_of((width,), signed)
        numbers = np.arange(2**digits.bits, dtype=np.uint64)
        u, v = (x.reshape(-1) for x in np.meshgrid(numbers, numbers))
        greater, equal = read(u + np.uint64(2**62), 0, digits, some_tables(v, 0, digits))
        below = np.uint64(2**width - 1)
        expected = (v & below) > (u & below)
        if signed:
            expected = (u - v) >> np.uint64(width) & np.uint64(1) == 1
        assert np.array_equal(greater[0], expected)
        assert np.array_equal(equal[0], (v & below) == (u & below))


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
        for shift in (0, 1, 2, 3, 8, 13, 15, 16, 17, 31, 40, 48, 60, 61)
        for window in sorted({2, 3, 5, 8, 20, 24, 27, 33, 36, 64 - shift})
        if window <= 64 - shift
    ],
)
def test_sign_of_a_truncated_value(shift, window):
    """The prefix of the planes is the sign of y, whatever the mask and the digits."""
    random = np.random.default_rng(64 * shift + window)
    values = values_within(window, shift, random)
    zs = values * 3
    masks = [2**64 - 1 - 2**62 - z for z in values]
    r = words(len(zs), window)
    # Masks which bring c to the ends of its range, and to those of the window.
    r[: len(values)] = [mask % 2**64 for mask in masks]
    r[len(values) : len(values) + 4] = [
        2**end - step for end in (min(63, shift + window - 1), min(63, shift + window)) for step in (0, 1)
    ]  # fmt: skip
    pairs = [truncated(z, int(mask), shift) for z, mask in zip(zs, r, strict=True)]
    c = np.array([pair[0] for pair in pairs], np.uint64)
    for z, (_, y) in zip(zs, pairs, strict=True):
        assert y in (z >> shift, -(-z >> shift))
    for count in range(-(-(window - 1) // 8), min(window - 1, 9) + 1):
        digits = digits_of(split_evenly(window - 1, count), True)
        planes = read(c, shift, digits, some_tables(r, shift, digits))
        assert carried(*planes).tolist() == [int(y < 0) for _, y in pairs]


@pytest.mark.parametrize("window", [2, 3, 8, 20, 33, 50, 63, 64])
def test_equality_to_zero(window):
    random = np.random.default_rng(window)
    values = [0] * 10 + values_within(window, 0, random)
    r = words(len(values), window)
    c = np.array(
        [(z + 2**62 + int(mask)) % 2**64 for z, mask in zip(values, r, strict=True)], np.uint64
    )
    digits = digits_of(split_evenly(window, -(-window // 5)), False)
    _, equal = read(c, 0, digits, some_tables(r, 0, digits))
    assert equal.all(axis=0).tolist() == [z == 0 for z in values]


@pytest.mark.parametrize(
    "thresholds", [(0,), (5, 0, 5), (-8, 0, 32, 33, 64, 1 << 18, 3 << 18, (1 << 20) - 1)]
)
@pytest.mark.parametrize("widths", [(6, 5, 5, 4), (7, 3), (4,)])
def test_many_thresholds_at_once_are_as_one_after_another(thresholds, widths):
    random = np.random.default_rng(len(thresholds))
    digits, size = digits_of(widths, True), 150
    v = random.integers(0, 2**64, size, dtype=np.uint64)
    c = random.integers(0, 2**64, size, dtype=np.uint64)
    tables = some_tables(v, 3, digits)
    shape = (len(widths), len(thresholds), count_words(size))
    greater, equal = np.full(shape, 77, np.uint64), np.full(shape, 77, np.uint64)
    read_all_tables(c, 3, digits, tables, True, greater, equal, thresholds)
    for k, threshold in enumerate(thresholds):
        one = read(c, 3, digits, tables, threshold=threshold)
        assert np.array_equal(unpack_bits(greater[:, k], size), one[0])
        assert np.array_equal(unpack_bits(equal[:, k], size), one[1])
