"""Lanes of words, beside Python integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.bits import count_lane_words, fold_of, lane

WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("bits", "fold"), [(0, 2), (1, 2), (16, 2), (17, 1), (32, 1), (33, 0), (64, 0)]
)
def test_the_narrowest_lanes_that_hold_the_bits(bits, fold):
    assert fold_of(bits) == fold
    assert bits <= 64 >> fold


@pytest.mark.parametrize(("lanes", "words"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_words_for_lanes(lanes, words):
    assert count_lane_words(lanes, 2) == words
    assert count_lane_words(lanes, 0) == lanes


@settings(deadline=None)
@given(WORDS, st.integers(0, 2))
def test_a_lane_is_in_the_lowest_bits(words, fold):
    width, array = 64 >> fold, np.array(words, np.uint64)
    whole = sum(word << 64 * k for k, word in enumerate(words))
    for i in range(len(words) << fold):
        found = int(lane(array, np.uint64(i), fold))
        assert found % (1 << width) == whole >> i * width & (1 << width) - 1
