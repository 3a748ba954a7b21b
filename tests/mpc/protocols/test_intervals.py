"""Whether groups of words lie in intervals, against Python's integers: exact at every end."""

import numpy as np
import pytest

import mpc
from mpc.protocols import intervals
from mpc.protocols.intervals import groups_inside

RNG = np.random.default_rng(12)


def shared(session, values):
    """Share any words, of which one party holds what the others' random ones leave."""
    words = RNG.integers(0, 2**64, (session.size, *np.shape(values)), np.uint64)
    words[-1] -= words.sum(axis=0, dtype=np.uint64) - np.asarray(values, np.int64).view(np.uint64)
    return mpc.SharedArray(session, words, 16, 1)


def signed(value):
    return (value + 2**63) % 2**64 - 2**63


def beyond(low, high):
    """Words outside of an interval: next to it, and where signs, windows or sums could go wrong."""
    words = {
        low - 1, high + 1, 2**63, 2**63 - 1, low + 2**62, high + 2**62, low + 2**63, high + 2**63,
        low - 2**62, *(high + 2**k for k in range(1, 63)), *(low - 2**k for k in range(1, 63)),
    }  # fmt: skip
    return [word for word in map(signed, words) if not low <= word <= high]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 0), (-1, 0), (0, 2**16), (-(2**31), 2**31), (7, 7), (-(2**61), 2**61 - 1), (2**40, 2**41)],
)
def test_each_word_beyond_an_end_is_found_and_none_within(session, low, high):
    inside = [low, high, (low + high) // 2, min(low + 1, high), max(high - 1, low)]
    values = [*inside, *beyond(low, high)]
    found = groups_inside(shared(session, values), low, high, [1] * len(values))
    np.testing.assert_array_equal(found, [low <= value <= high for value in values])


def test_one_word_spoils_its_own_group_alone(session):
    low = RNG.integers(-(2**40), 0, 13)
    high = low + RNG.integers(0, 2**41, 13)
    rows = [3, 1, 9, 2, 1, 5, 30]
    good = RNG.integers(low, high, (sum(rows), 13), endpoint=True)
    good[0], good[-1] = low, high
    counts = [13 * n for n in rows]
    assert groups_inside(shared(session, good), low, high, counts).all()
    ends = np.cumsum([0, *rows])
    for group in range(len(rows)):
        # The first word of a group and its last: next to others' in the same word of bits.
        for row, column in ((ends[group], 0), (ends[group + 1] - 1, 12)):
            bad = good.copy()
            bad[row, column] = high[column] + 1 if column else low[column] - 1
            found = groups_inside(shared(session, bad), low, high, counts)
            np.testing.assert_array_equal(found, np.arange(len(rows)) != group)


def test_words_are_compared_in_pieces(session, monkeypatch):
    monkeypatch.setattr(intervals, "_PIECE", 128)
    counts = [100, 1, 27, 128, 200]
    for bad in (None, 99, 100, 127, 128, 255, 256, 455):
        values = np.zeros(sum(counts), np.int64)
        if bad is not None:
            values[bad] = 11
        found = groups_inside(shared(session, values), -10, 10, counts)
        hit = np.searchsorted(np.cumsum(counts), bad, "right") if bad is not None else -1
        np.testing.assert_array_equal(found, np.arange(len(counts)) != hit)


def test_a_plan_says_what_it_takes(session):
    x = shared(session, np.zeros((4, 5), np.int64))

    def program(planned):
        return groups_inside(planned.twin(x), -1, 1, [5, 15])

    plan = session.plan(program)
    before = session.spent()
    assert groups_inside(x, np.int64(-1), np.int64(1), [5, 15]).all()
    spent = session.spent() - before
    assert plan.cost.total.rounds == spent.rounds
    assert plan.cost.total.bytes_sent == spent.bytes_sent


@pytest.mark.parametrize("counts", [[19], [21], [20, 0], [-1, 21], []])
def test_groups_that_are_not_the_words_are_refused(session, counts):
    with pytest.raises(mpc.ArgumentError, match="add up to 20 words"):
        groups_inside(shared(session, np.zeros((4, 5), np.int64)), 0, 1, counts)


def test_no_words_no_groups(session):
    assert groups_inside(shared(session, np.zeros((0, 5), np.int64)), 0, 1, []).shape == (0,)
