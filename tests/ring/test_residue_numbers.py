"""Large integers by their residues, beside Python integers."""

import random
from math import prod

import numpy as np
import pytest

from ring.errors import ShapeError
from ring.residue_numbers import SWITCHED_BITS, ResidueNumbers
from ring.residue_products import (
    add_run_products,
    add_slot_products,
    split_terms_at_once,
    terms_at_once,
)
from ring.residues import balanced, largest_primes

SETS = [(42, 5), (45, 4), (48, 4), (48, 2), (48, 1)]
MESSAGES = [0, 1, 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]


@pytest.fixture(scope="module", params=SETS, ids=lambda found: f"{found[1]}x{found[0]}")
def numbers(request):
    return ResidueNumbers(largest_primes(*request.param, 8192))


def residues(numbers, integers):
    return np.array([[balanced(x, p) for x in integers] for p in numbers.primes])


def same(numbers, found, integers):
    return all(
        (int(x) - y) % p == 0
        for p, line in zip(numbers.primes, found, strict=True)
        for x, y in zip(line, integers, strict=True)
    )


def rounded(x, bits, q):
    return ((x << bits + 1) // q + 1) // 2 % 2**bits


def edges(numbers):
    """Integers around where a rounding to words turns, as near as it is exact, and the ends."""
    q = numbers.q
    found = [0, 1, q - 1, q // 2, q // 2 + 1]
    near = max(2, q >> 139)
    for m in MESSAGES:
        turn = ((2 * m + 1) * q) >> 65
        found += [(turn + d) % q for d in (-near, -near // 2, near // 2, near)]
    draw = random.Random(q)
    return found + [draw.randrange(q) for _ in range(3000)]


def test_words(numbers):
    words = [*MESSAGES, *(random.Random(1).randrange(2**64) for _ in range(500))]
    array = np.array(words, np.uint64)
    signed = [w - 2**64 if w >= 2**63 else w for w in words]
    assert same(numbers, numbers.from_words(array), signed)
    scaled = [(numbers.q * w + 2**63) >> 64 for w in words]
    assert same(numbers, numbers.scale(array), scaled)
    assert np.array_equal(numbers.unscale(numbers.scale(array)), array) or len(numbers) == 1
    assert numbers.from_words(array[:6].reshape(3, 2)).shape == (len(numbers), 3, 2)


def test_fractions_round_right_even_where_they_turn(numbers):
    """Ciphertexts from random strings need it: see mpc.two_party.rlwe_ciphertexts."""
    integers = edges(numbers)
    x = residues(numbers, integers)
    assert numbers.unscale(x).tolist() == [rounded(v, 64, numbers.q) for v in integers]


def test_switching(numbers):
    integers = edges(numbers)
    high, low = numbers.switch(residues(numbers, integers))
    bits = SWITCHED_BITS
    for v, h, l in zip(integers, high.tolist(), low.tolist(), strict=True):  # noqa: E741
        assert (h << 12) + l == rounded(v, bits, numbers.q)


def test_digits(numbers):
    for count in range(1, len(numbers) + 1):
        check_digits(numbers, count)


def check_digits(numbers, count):
    primes = numbers.primes
    largest = (primes[count - 1] - 1) // 2 * prod(primes[: count - 1])
    draw = random.Random(count)
    integers = [0, 1, -1, largest, -largest]
    integers += [draw.randint(-largest, largest) for _ in range(1000)]
    found = numbers.digits(residues(numbers, integers), count)
    for e, x in enumerate(integers):
        digits = [int(d) for d in found[:, e]]
        digits[-1] -= (digits[-1] >> 63) << 64
        assert sum(d * prod(primes[:i]) for i, d in enumerate(digits)) == x
        assert all(0 <= d < p for d, p in zip(digits[:-1], primes, strict=False))
    if count == len(numbers):
        low = numbers.low_words(residues(numbers, integers))
        assert low.tolist() == [x % 2**64 for x in integers]
    more = residues(numbers, integers[::-1])
    numbers.add_digits(found, more)
    assert same(numbers, more, [a + b for a, b in zip(integers, integers[::-1], strict=True)])
    assert (np.abs(more) <= numbers.p[:, None] / 2 + 16).all()


@pytest.mark.parametrize("bits", [42, 45, 48])
@pytest.mark.parametrize("kind", ["extreme", "same signs", "random"])
@pytest.mark.parametrize(
    ("depth", "rows", "runs"), [(1, 1, 8), (3, 17, 1), (9, 8, 4), (130, 9, 2), (1100, 1, 1)]
)
@pytest.mark.usefixtures("threads")
def test_sums_of_products(bits, kind, depth, rows, runs):
    length = 64
    numbers = ResidueNumbers(largest_primes(bits, 2, length))
    # More terms than are summed up at once, but for the smallest primes.
    if (depth >= 1100 and bits > 42) or (depth >= 130 and bits == 48):
        assert depth > 2 * split_terms_at_once(numbers.primes[0])
        assert depth > 2 * terms_at_once(numbers.primes[0])
    random_ = np.random.default_rng(depth)
    half = numbers.primes[1] // 2

    def some(*shape):
        if kind == "same signs":
            return np.full(shape, half, np.float64)
        if kind == "extreme":
            return random_.choice([-half, half], shape).astype(np.float64)
        return random_.integers(-half, half + 1, shape).astype(np.float64)

    x, w, start = some(2, depth, length), some(2, runs, rows, depth), some(2, rows, length)
    by_runs, by_slots = start.copy(), start.copy()
    add_run_products(numbers, x, w, by_runs)
    spread = np.repeat(w.transpose(0, 2, 3, 1), length // runs, axis=3)
    add_slot_products(numbers, x, np.ascontiguousarray(spread), by_slots)
    for k, p in enumerate(numbers.primes):
        whole = [a[k].astype(np.int64).astype(object) for a in (x, spread, start)]
        expected = whole[2] + (whole[1] * whole[0]).sum(axis=1)
        for found in (by_runs[k], by_slots[k]):
            assert not ((found.astype(np.int64).astype(object) - expected) % p).any()
            assert np.abs(found).max() <= p / 2 + 16
    # Rows of a longer x, and none beyond its last.
    longer = np.concatenate([some(2, 2, length), x, some(2, 1, length)], axis=1)
    for add, factors, whole in (
        (add_run_products, w, by_runs), (add_slot_products, np.ascontiguousarray(spread), by_slots)
    ):  # fmt: skip
        found = start.copy()
        add(numbers, longer, factors, found, first=2)
        assert np.array_equal(found, whole)
        for first in (-1, 4):
            with pytest.raises(ShapeError, match="rows from first"):
                add(numbers, longer, factors, found, first=first)
