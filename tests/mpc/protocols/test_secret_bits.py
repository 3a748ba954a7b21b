"""Polynomials of secret bits, and bits turned into numbers."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.protocols import b2a, bits
from ring import pack_bits, unpack_bits

PLANES = 6

literals = st.integers(-PLANES, PLANES - 1)
monomials = st.lists(literals, min_size=1, max_size=4, unique_by=lambda x: ~x if x < 0 else x)
polynomials = st.lists(monomials.map(tuple), min_size=1, max_size=5).map(tuple)


def share_planes(session, planes):
    """Return XOR shares of planes of bits."""
    words = pack_bits(planes)
    shares = np.empty((session.size, *words.shape), np.uint64)
    random = np.frombuffer(os.urandom(words.nbytes * (session.size - 1)), np.uint64)
    shares[1:] = random.reshape(-1, *words.shape)
    shares[0] = words ^ np.bitwise_xor.reduce(shares[1:], axis=0)
    return shares


def reveal_planes(shares, size):
    return unpack_bits(np.bitwise_xor.reduce(shares, axis=0), size)


def literal(planes, x):
    return 1 - planes[~x] if x < 0 else planes[x]


@pytest.mark.dealt
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    form=st.lists(polynomials, min_size=1, max_size=4).map(tuple),
    size=st.sampled_from([1, 5, 64, 65, 200]),
    seed=st.integers(0, 2**32 - 1),
)
def test_polynomials(session, form, size, seed):
    planes = np.random.default_rng(seed).integers(0, 2, (PLANES, size))
    got = bits.evaluate(session, share_planes(session, planes), bits.structure_of(form))
    want = [
        sum(np.prod([literal(planes, x) for x in product], axis=0) for product in polynomial) % 2
        for polynomial in form
    ]
    np.testing.assert_array_equal(reveal_planes(got, size), want)


@pytest.mark.dealt
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 65])
def test_and_of_many(session, count):
    size = 130
    random = np.random.default_rng(count)
    # Mostly ones, so that some of the results are ones.
    planes = (random.random((count, size)) < 1 - 1 / (2 * count)).astype(int)
    every = tuple(range(count))
    none = tuple(~k for k in range(count))
    some = (every, none, every[: count // 2 + 1], (0,))
    got = reveal_planes(bits.all_of(session, share_planes(session, planes), some), size)
    np.testing.assert_array_equal(got[0], planes.all(axis=0))
    np.testing.assert_array_equal(got[1], (1 - planes).all(axis=0))
    np.testing.assert_array_equal(got[2], planes[: count // 2 + 1].all(axis=0))
    np.testing.assert_array_equal(got[3], planes[0])
    assert 0 < got[0].sum() < size


@pytest.mark.parametrize("count", [1, 4, 5, 16, 17, 64, 65])
def test_rounds_of_an_and(session, count):
    rounds = sum(1 for form in bits.tree((tuple(range(count)),)) if form.opened)
    assert rounds == {1: 0, 4: 1, 5: 2, 16: 2, 17: 3, 64: 3, 65: 4}[count]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_bits_to_numbers(session, size):
    planes = np.random.default_rng(size).integers(0, 2, (3, size))
    shares = b2a.convert(session, share_planes(session, planes), size)
    assert shares.shape == (session.size, 3, size)
    np.testing.assert_array_equal(shares.sum(axis=0, dtype=np.uint64), planes)
