"""The product of two truncated secrets in one round: as a truncation of each, and a product."""

import numpy as np
import pytest

import mpc
from mpc.array.shared_array import SharedArray
from mpc.core.errors import ShapeError
from mpc.protocols import truncated_product
from mpc.protocols.truncated_product import TruncatedProduct

TOP = 2**62 - 1


def held(session, values, bound=2**62):
    words = np.asarray(values, np.int64).view(np.uint64)
    shares = np.random.default_rng(1).integers(0, 2**64, (session.size, len(words)), np.uint64)
    shares[0] = words - shares[1:].sum(axis=0, dtype=np.uint64)
    return SharedArray(session, shares, 61, bound)


@pytest.mark.parametrize(("left", "right"), [(1, 61), (61, 1), (31, 31), (40, 45), (8, 60)])
def test_right_at_the_ring_s_limit(session, left, right):
    random = np.random.default_rng(left)
    ends = [TOP, -TOP, 0, 1, -1, 1 << left, (1 << left) - 1, -(1 << right)]
    x = np.concatenate([np.repeat(ends, 8), random.integers(-TOP, TOP, 200)])
    y = np.concatenate([np.tile(ends, 8), random.integers(-TOP, TOP, 200)])
    z = truncated_product.multiply(held(session, x), left, held(session, y), right, 2**62)
    found = z.shares.sum(axis=0, dtype=np.uint64).view(np.int64)
    for a, b, got in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        # Each is rounded down or up, and not at all if it is a multiple.
        some = {
            (p * q + 2**63) % 2**64 - 2**63
            for p in {a >> left, -(-a >> left)}
            for q in {b >> right, -(-b >> right)}
        }
        assert got in some


@pytest.mark.dealt
def test_rounding_is_unbiased(pair):
    x = held(pair, np.full(20_000, 5))
    one = held(pair, np.full(20_000, 1 << 40))
    z = truncated_product.multiply(x, 4, one, 40, 2**62)
    found = z.shares.sum(axis=0, dtype=np.uint64)
    assert set(found.tolist()) == {0, 1} and abs(found.mean() - 5 / 16) < 0.02


@pytest.mark.dealt
def test_a_shift_that_is_none_is_refused():
    with pytest.raises(ShapeError, match="shifts must be in"):
        TruncatedProduct(5, 0, 3).check(100)
    with mpc.Session() as s:
        x = held(s, [1, 2])
        with pytest.raises(mpc.ArgumentError, match=r"shift must be in \[1, 61\], got 62"):
            truncated_product.multiply(x, 3, x, 62, 2**62)
