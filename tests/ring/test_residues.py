"""Residues in doubles, beside Python integers."""

import random
from fractions import Fraction

import numpy as np
import pytest

from ring.compile import kernel
from ring.residue_products import (
    rounding_constant,
    split_terms_at_once,
    term_bound,
    terms_at_once,
)
from ring.residues import (
    PRIME_BITS,
    balanced,
    count_ones,
    high_product,
    is_prime,
    largest_primes,
    multiply,
    product_bound,
    reduce,
    root_of_unity,
)

LENGTH = 8192
PRIMES = [p for bits in (42, 45, 48) for p in largest_primes(bits, 2, LENGTH)]


@kernel
def products(a, b, p, inverse, out):
    for i in range(out.size):
        out[i] = multiply(a[i], b[i], p, inverse)


@kernel
def reductions(a, p, inverse, out):
    for i in range(out.size):
        out[i] = reduce(a[i], p, inverse)


@kernel
def words(a, b, high, ones):
    for i in range(a.size):
        high[i] = high_product(a[i], b[i])
        ones[i] = count_ones(a[i])


@pytest.mark.parametrize("p", PRIMES)
@pytest.mark.parametrize("size", [1, 2, 10])
def test_products_are_exact_and_as_small_as_stated(p, size):
    """For left factors up to ten p: more than a transform makes."""
    draw = random.Random(p + size)
    half = p // 2
    left = [s * (size * p - k) for s in (1, -1) for k in range(40)] + [0, 1, -1, half, -half]
    left += [draw.randint(-size * p, size * p) for _ in range(4000)]
    right = [draw.choice((half, -half, half - 1, 1, 0, draw.randint(-half, half))) for _ in left]
    a, b = np.array(left, np.float64), np.array(right, np.float64)
    out = np.empty_like(a)
    products(a, b, float(p), 1 / p, out)
    bound = product_bound(size, p) * p
    for x, y, found in zip(left, right, out.tolist(), strict=True):
        assert found == int(found) and (int(found) - x * y) % p == 0
        assert abs(int(found)) <= bound


@pytest.mark.parametrize("p", PRIMES)
def test_reductions(p):
    values = [k * p + d for k in (0, 1, -1, 7, -15, 31) for d in (0, 1, -1, p // 2, -(p // 2))]
    values += [2**53, -(2**53)]
    out = np.empty(len(values))
    reductions(np.array(values, np.float64), float(p), 1 / p, out)
    for value, found in zip(values, out.tolist(), strict=True):
        assert (int(found) - value) % p == 0 and abs(found) <= p / 2 + 16


def test_words():
    edges = [0, 1, 2, 3, 2**63, 2**64 - 1, 2**32, 2**32 - 1]
    a, b = (x.reshape(-1) for x in np.meshgrid(*[np.array(edges, np.uint64)] * 2))
    high, ones = np.empty_like(a), np.empty(a.size, np.int64)
    words(a, b, high, ones)
    for x, y, h, n in zip(a.tolist(), b.tolist(), high.tolist(), ones.tolist(), strict=True):
        assert h == x * y >> 64 and n == x.bit_count()


def test_primes():
    sieve = [n for n in range(2, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    assert [n for n in range(2000) if is_prime(n)] == sieve
    # Strong pseudoprimes to the bases 2, 3, 5, 7 and to the first eleven primes.
    assert not is_prime(3215031751) and not is_prime(3825123056546413051)
    for bits, length in ((42, LENGTH), (45, LENGTH), (48, LENGTH), (20, 64)):
        found = largest_primes(bits, 4, length)
        assert len(set(found)) == 4 and list(found) == sorted(found, reverse=True)
        every = range((1 << bits) + 1 - 2 * length, found[-1] - 1, -2 * length)
        assert [n for n in every if is_prime(n)] == list(found)
        for p in found:
            root = root_of_unity(p, 2 * length)
            assert p < 1 << bits and pow(root, length, p) == p - 1


def test_balanced():
    for value in range(-30, 30):
        found = balanced(value, 7)
        assert (found - value) % 7 == 0 and abs(found) <= 3


@pytest.mark.parametrize("p", PRIMES)
def test_as_many_terms_as_fit(p):
    assert p < 1 << PRIME_BITS
    count = terms_at_once(p)
    assert (count * term_bound(p) + 1) * p <= 2**53 < ((count + 1) * term_bound(p) + 1) * p
    assert count >= 1


@pytest.mark.parametrize("p", PRIMES)
def test_as_many_products_as_fit_in_two_parts(p):
    """A double holds 2^53 units of its last bit, and 2^52 is the most that is rounded to a whole."""
    unit, count = 2 ** (p.bit_length() - 1), split_terms_at_once(p)
    largest = (Fraction(p, 2) + 16) ** 2
    # One product with the constant, of which 2^(b+51) is the leading bit: unit is the last.
    constant = rounding_constant(p)
    assert constant - float(largest) >= 2**52 * unit and constant + float(largest) < 2**53 * unit
    high, low = count * (largest + Fraction(unit, 2)), count * Fraction(unit, 2)
    assert high <= 2**53 * unit and high <= 2**52 * p and low <= 2**53
    more = (count + 1) * (largest + Fraction(unit, 2))
    assert more > min(2**53 * unit, 2**52 * p) or (count + 1) * unit > 2**54
    assert count >= 32
