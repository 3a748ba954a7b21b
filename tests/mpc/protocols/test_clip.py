"""Clipping of secrets to public limits, over edge values."""

import numpy as np
import pytest

import mpc
from mpc.protocols import clip, comparison
from mpc.protocols.sign import count_bits

UNIT = 2.0**-16


@pytest.mark.parametrize("frac_bits", [16, 32])
@pytest.mark.parametrize("limits", [(0, 6 << 16), (-(1 << 20), 1 << 20), (-7, -3), (-1, 0), (3, 4)])
def test_clip_of_edges(session, edges, share_integers, integers, frac_bits, limits):
    raw = (edges / UNIT).astype(np.int64)
    x = share_integers(session, raw << (frac_bits - 16), frac_bits, bound=1 << (15 + frac_bits))
    y, bit = clip.clip_with_derivative(x, *limits)
    assert y.frac_bits == 16 and y.bound == max(map(abs, limits))
    np.testing.assert_array_equal(integers(y), np.clip(raw, *limits))
    inside = comparison.bit_array(y, bit).reveal()
    np.testing.assert_array_equal(inside, (raw > limits[0]) & (raw < limits[1]))


@pytest.mark.parametrize("limits", [(None, 5), (-5, None), (None, None), (-(1 << 40), 5)])
def test_clip_on_one_side(session, edges, share_integers, integers, limits):
    raw = (edges / UNIT).astype(np.int64)
    y, bit = clip.clip_with_derivative(share_integers(session, raw, 16, bound=1 << 31), *limits)
    low = -(1 << 40) if limits[0] is None else limits[0]
    high = 1 << 40 if limits[1] is None else limits[1]
    np.testing.assert_array_equal(integers(y), np.clip(raw, low, high))
    assert np.abs(integers(y)).max() <= y.bound
    assert (bit is None) == (limits == (None, None))


def test_limits_at_the_bound(share_integers, integers):
    raw = np.arange(-5, 6)
    with mpc.Session() as s:
        for limits in ((None, 4), (-4, None), (-4, 4), (None, 5), (-5, 5)):
            y, bit = clip.clip_with_derivative(share_integers(s, raw, 16, bound=5), *limits)
            low, high = (v if v is not None else d for v, d in zip(limits, (-9, 9), strict=True))
            np.testing.assert_array_equal(integers(y), np.clip(raw, low, high))
            assert (bit is None) == (limits in ((None, 5), (-5, 5)))


def test_declared_cost():
    with mpc.Session(("alice", "bob", "carol")) as s:
        x = s.share(np.ones(70), owner="alice") * 0.5  # with twice the fractional bits
        assert x.frac_bits == 32
        before = s.cost()
        clip.clip_with_derivative(x, 0, 6 << 16)
        window = count_bits(-(-x.bound >> 16) + (6 << 16) + 1, 16)
        assert (s.cost() - before).total == clip.cost(3, 70, 16, window, 1)
        x = x * 1  # what x was rounded to is kept with it
        before = s.cost()
        clip.clip_with_derivative(x, -1 << 16, 1 << 16)
        window = count_bits(-(-x.bound >> 16) + (1 << 16) + 1, 16)
        assert (s.cost() - before).total == clip.cost(3, 70, 16, window, 2)
