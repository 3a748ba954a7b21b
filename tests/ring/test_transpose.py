"""Bit planes turned into rows, against Python's integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.errors import ArgumentError, DtypeError
from ring.transpose import planes_of_rows, rows_of_planes


def turned(planes):
    """Rows as integers, bit by bit."""
    whole = [sum(word << 64 * w for w, word in enumerate(plane)) for plane in planes]
    rows = [
        sum((plane >> e & 1) << p for p, plane in enumerate(whole))
        for e in range(64 * len(planes[0]) if planes else 0)
    ]
    return [[row >> 64 * h & 2**64 - 1 for h in range(len(planes) // 64)] for row in rows]


@pytest.mark.usefixtures("threads")
class TestRows:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 3), st.integers(1, 19), st.integers(0, 2**32))
    def test_any(self, halves, words, seed):
        planes = np.random.default_rng(seed).integers(0, 2**64, (64 * halves, words), np.uint64)
        before = planes.copy()
        out = np.empty((64 * words, halves), np.uint64)
        assert rows_of_planes(planes, out) is out
        assert out.tolist() == turned(planes.tolist())
        assert np.array_equal(planes, before)

    @pytest.mark.parametrize("words", [1, 7, 8, 9, 16, 17])
    def test_one_bit_at_a_time(self, words):
        for p in (0, 1, 31, 63, 64, 100, 127):
            for e in (0, 1, 31, 32, 63, 64 * words - 1):
                planes = np.zeros((128, words), np.uint64)
                planes[p, e // 64] = 2 ** (e % 64)
                expected = np.zeros((64 * words, 2), np.uint64)
                expected[e, p // 64] = 2 ** (p % 64)
                assert np.array_equal(rows_of_planes(planes), expected)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 64), st.integers(0, 19), st.integers(0, 2**32))
    def test_planes(self, count, words, seed):
        rows = np.random.default_rng(seed).integers(0, 2**64, 64 * words, np.uint64)
        expected = [
            [sum((int(rows[64 * w + e]) >> p & 1) << e for e in range(64)) for w in range(words)]
            for p in range(count)
        ]
        assert planes_of_rows(rows, count).tolist() == expected


def test_nothing():
    assert rows_of_planes(np.zeros((128, 0), np.uint64)).shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 4), (63, 4), (65, 1), (64,), (64, 2, 2)])
def test_wrong_shape(shape):
    with pytest.raises(ArgumentError, match="planes must have shape"):
        rows_of_planes(np.zeros(shape, np.uint64))


def test_wrong_arrays():
    planes = np.zeros((64, 4), np.uint64)
    for wrong in (planes.astype(np.int64), np.zeros((4, 64), np.uint64).T):
        with pytest.raises(DtypeError, match="planes must be"):
            rows_of_planes(wrong)
    with pytest.raises(DtypeError, match="out must be"):
        rows_of_planes(planes, np.zeros((256, 1), np.int64))
    with pytest.raises(ArgumentError, match="out must have shape"):
        rows_of_planes(planes, np.zeros((255, 1), np.uint64))


def test_wrong_rows():
    for wrong in (np.zeros(64, np.int64), np.zeros(128, np.uint64)[::2]):
        with pytest.raises(DtypeError, match="rows must be"):
            planes_of_rows(wrong, 1)
    for shape in ((63,), (64, 1), ()):
        with pytest.raises(ArgumentError, match="rows must have shape"):
            planes_of_rows(np.zeros(shape, np.uint64), 1)
    for count in (-1, 65):
        with pytest.raises(ArgumentError, match=r"count must be in \[0, 64\]"):
            planes_of_rows(np.zeros(64, np.uint64), count)
