"""Rows of a matrix out of a stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring import Stream


@given(
    rows=st.lists(st.integers(0, 40), max_size=8),
    width=st.integers(1, 7),
    start=st.integers(0, 5),
    id=st.integers(0, 2**64 - 1),
)
def test_rows_are_those_of_the_whole(rows, width, start, id):
    stream = Stream(bytes(range(16)))
    whole = np.empty((41, width), np.uint64)
    stream.fill(whole, id, start)
    out = np.empty((len(rows), width), np.uint64)
    stream.fill_rows(out, id, np.array(rows, np.int64), start)
    np.testing.assert_array_equal(out, whole[rows])


def test_long_rows_and_runs():
    stream = Stream(bytes(16))
    whole = np.empty((6, 3, 5000), np.uint64)
    stream.fill(whole, 3)
    for rows in ([5, 0, 3], [2, 3, 4], [4]):
        out = np.empty((len(rows), 3, 5000), np.uint64)
        stream.fill_rows(out, 3, np.array(rows))
        np.testing.assert_array_equal(out, whole[rows])


def test_what_it_refuses():
    stream = Stream(bytes(16))
    with pytest.raises(ValueError, match="rows must not be negative, got -1"):
        stream.fill_rows(np.empty((1, 2), np.uint64), 0, np.array([-1]))
    with pytest.raises(ValueError, match="out must have 2 rows"):
        stream.fill_rows(np.empty((1, 2), np.uint64), 0, np.array([0, 1]))
    with pytest.raises(ValueError, match="start must be in"):
        stream.fill_rows(np.empty((2, 2), np.uint64), 0, np.array([0, 2]), 2**65 - 4)
