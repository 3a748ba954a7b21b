"""Masked products against the definition, over Python integers."""

from itertools import combinations

import numpy as np
import pytest

from ring import pack_bits
from ring.bits import count_lane_words
from ring.masked_products import add_masked_products, count_sets, deal_sets

DIGITS = [1, 2, 3, 4, 5]
SIZES = [0, 1, 63, 64, 65, 130]


def products_of(digits):
    """Return the products of t as lists of planes."""
    return [
        [*range(digits - 2, j - 1, -1), digits - 1 + j] if j < digits - 1 else [2 * digits - 2]
        for j in range(digits)
    ]


def some_bits(digits, size, random):
    """Draw p_1, ..., g_0, ...: u is smaller, equal or larger in each digit."""
    order = random.choice([-1, 0, 0, 1], (digits, size))
    return np.concatenate([order[1:] == 0, order == 1]).astype(np.uint8)


def lanes(values, fold):
    """Pack one number for each element into lanes."""
    count, bits = 1 << fold, 64 >> fold
    values = list(values)
    words = [0] * count_lane_words(len(values), fold)
    for e, value in enumerate(values):
        words[e // count] |= (int(value) % 2**bits) << e % count * bits
    return np.array(words, np.uint64)


def numbers(row, size, fold):
    """Unpack what :func:`lanes` packs."""
    count, bits = 1 << fold, 64 >> fold
    return [int(row[e // count]) >> e % count * bits & 2**bits - 1 for e in range(size)]


def random_lanes(rows, size, fold, random):
    return random.integers(0, 2**64, (rows, count_lane_words(size, fold)), np.uint64)


@pytest.mark.parametrize("digits", DIGITS)
def test_the_sets_are_those_within_a_product(digits):
    inside = {
        frozenset(some)
        for product in products_of(digits)
        for count in range(1, len(product) + 1)
        for some in combinations(product, count)
    }
    assert len(inside) == count_sets(digits)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("fold", [0, 1, 2])
@pytest.mark.parametrize("digits", DIGITS)
def test_shares_of_the_bit_times_a_number(digits, fold):
    random = np.random.default_rng(8 * digits + fold)
    modulus = 2 ** (64 >> fold)
    for size in SIZES:
        for parties in (2, 3):
            bits = some_bits(digits, size, random)
            masks = random.integers(0, 2, bits.shape, np.uint8)
            factor = random.integers(0, 2**64, size, np.uint64)
            planes, m = pack_bits(masks), pack_bits(bits ^ masks)
            shares = [random_lanes(count_sets(digits), size, fold, random) for _ in range(parties)]
            others = np.array(
                [
                    lanes(
                        map(
                            sum, zip(*(numbers(s[k], size, fold) for s in shares[:-1]), strict=True)
                        ),
                        fold,
                    )
                    for k in range(count_sets(digits))
                ]
            )
            shares[-1] = others
            deal_sets(planes, lanes(factor, fold), fold, shares[-1])
            total = [0] * size
            for party, dealt in enumerate(shares):
                rest = lanes(factor, fold) if party == 0 else np.zeros_like(dealt[0])
                before = random_lanes(1, size, fold, random)[0]
                out = before.copy()
                add_masked_products(m, dealt, rest, fold, out)
                old, new = (numbers(row, size, fold) for row in (before, out))
                total = [a + c - b for a, b, c in zip(total, old, new, strict=True)]
            t = sum(np.prod(bits[product], axis=0) for product in products_of(digits))
            assert t.max(initial=0) <= 1
            expected = [int(a) * int(b) % modulus for a, b in zip(t, factor, strict=True)]
            assert [value % modulus for value in total] == expected


def test_every_set_is_the_product_of_its_masks_and_the_number():
    """The dealer's values themselves, in the order that the file states."""
    digits, random = 3, np.random.default_rng(5)
    masks = random.integers(0, 2, (5, 70), np.uint8)
    factor = random.integers(0, 2**64, 70, np.uint64)
    out = np.zeros((count_sets(digits), 70), np.uint64)
    deal_sets(pack_bits(masks), factor, 0, out)
    p1, p2, g0, g1, g2 = range(5)
    sets = [[p2], [p1], [p1, p2], [g0], [g0, p2], [g0, p1], [g0, p1, p2], [g1], [g1, p2], [g2]]
    for row, inside in zip(out, sets, strict=True):
        assert np.array_equal(row, factor * masks[inside].prod(axis=0).astype(np.uint64))
