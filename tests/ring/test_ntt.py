"""Number-theoretic transforms, beside Python integers."""

import os
import platform
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numba
import numpy as np
import pytest

from ring import vectorised
from ring.errors import ArgumentError
from ring.ntt import (
    SHORTEST,
    Transform,
    _forward,
    _forward_levels,
    _inverse,
    _inverse_levels,
    forward_bound,
)
from ring.residues import balanced, largest_primes, product_bound, root_of_unity

ROOT = Path(__file__).resolve().parents[2]
BITS = (42, 45, 48)


def reversed_bits(i, length):
    return int(format(i, f"0{length.bit_length() - 1}b")[::-1], 2)


def values(polynomial, p):
    """Evaluate at the roots, in bit-reversed order, one Python integer after the other."""
    length = len(polynomial)
    root = root_of_unity(p, 2 * length)
    found = []
    for i in range(length):
        x, total = pow(root, 2 * reversed_bits(i, length) + 1, p), 0
        for c in reversed(polynomial):
            total = (total * x + c) % p
        found.append(total)
    return found


def draw(kind, p, shape, seed):
    random_ = np.random.default_rng(seed)
    half = p // 2
    if kind == "random":
        return random_.integers(-half, half + 1, shape).astype(np.float64)
    if kind == "extreme":
        return random_.choice([-half, half], shape).astype(np.float64)
    return np.full(shape, {"largest": half, "smallest": -half, "one": 1}[kind], np.float64)


KINDS = ("random", "extreme", "largest", "smallest", "one")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("length", [64, 128, 256, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_values_at_the_roots_and_back(length, bits, kind):
    primes = largest_primes(bits, 2, length)
    transform = Transform(primes, length)
    x = np.stack([draw(kind, p, (3, length), k) for k, p in enumerate(primes)])
    y = x.copy()
    transform.forward(y)
    for k, p in enumerate(primes):
        assert np.abs(y[k]).max() <= p / 2 + 16
        for row in range(3):
            expected = values([int(c) for c in x[k, row]], p)
            assert [int(v) % p for v in y[k, row]] == expected
    transform.inverse(y)
    for k, p in enumerate(primes):
        assert ((y[k] - x[k]) % p == 0).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_polynomials_of_full_length(bits, kind):
    """Coefficients of x s modulo X^N + 1, for s with few terms, over Python integers."""
    length = 8192
    (p,) = largest_primes(bits, 1, length)
    transform = Transform((p,), length)
    x = draw(kind, p, (1, 1, length), bits)
    sparse = {0: p // 2, 1: -(p // 2), 77: 5, 4096: -1, 8191: p // 3}
    s = np.zeros((1, 1, length))
    s[0, 0, list(sparse)] = list(sparse.values())
    a, b = x.copy(), s.copy()
    transform.forward(a)
    transform.forward(b)
    exact = [balanced(int(u) * int(v), p) for u, v in zip(a[0, 0], b[0, 0], strict=True)]
    out = np.array(exact).reshape(1, 1, length)
    transform.inverse(out)
    terms = [int(c) for c in x[0, 0]]
    for i in random.Random(bits).sample(range(length), 300):
        expected = sum(
            c * (terms[i - j] if i >= j else -terms[i - j + length]) for j, c in sparse.items()
        )
        assert (int(out[0, 0, i]) - expected) % p == 0


class Bounds:
    """What a vector may hold at most, in units of p, in place of vectors."""

    def __init__(self, p):
        self.p, self.largest = p, Fraction(0)

    def _see(self, bound):
        self.largest = max(self.largest, bound)
        return bound

    def add(self, a, b):
        return self._see(a + b)

    subtract = add

    def multiply(self, a, factor, ratio):
        # The first product before it is reduced, and the number of times that p goes into it.
        assert a * self.p * self.p / 2 < 2**100 and a * self.p / 2 < 2**52
        return self._see(product_bound(a, self.p))

    def reduce(self, a):
        assert a * self.p <= 2**53
        return Fraction(1, 2) + Fraction(16, self.p)


FACTORS = [(None, None)] * 8


@pytest.mark.parametrize("bits", BITS)
def test_nothing_inside_a_transform_reaches_2_to_53(bits):
    """By the code of the levels itself, run on bounds: what goes into a pass is what came out."""
    (p,) = largest_primes(bits, 1, 8192)
    v = Bounds(p)
    bound = Fraction(1, 2) + Fraction(64, p)
    for count in (8, 4, 4, 4, 2, 8):
        bound = max(_forward_levels(v, [bound] * count, FACTORS))
    assert bound == forward_bound(p, 8192)
    assert v.largest * p < 2**53
    v.largest, bound = Fraction(0), Fraction(1, 2) + Fraction(64, p)
    for count in (8, 4, 4, 4, 2, 8):
        bound = max(_inverse_levels(v, [bound] * count, FACTORS))
    v.multiply(bound, None, None)
    assert v.largest * p < 2**53


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("runs", [1, 2, 4, 64, 1024, 8192])
def test_columns_are_the_runs_of_a_long_transform(bits, runs):
    length = 8192
    primes = largest_primes(bits, 2, length)
    transform = Transform(primes, length)
    short = np.stack([draw("random", p, (runs, 3), runs) for p in primes])
    long = np.zeros((2, 3, length))
    long[:, :, :: length // runs] = short.swapaxes(1, 2)
    transform.forward(long)
    transform.forward_columns(short)
    spread = np.repeat(short.swapaxes(1, 2), length // runs, axis=2)
    for k, p in enumerate(primes):
        assert ((spread[k] - long[k]) % p == 0).all()
        assert np.abs(short[k]).max() <= p / 2 + 16


def test_nothing_to_transform():
    transform = Transform(largest_primes(45, 2, 64), 64)
    for shape in ((2, 0, 64),):
        x = np.empty(shape)
        transform.forward(x)
        transform.inverse(x)
    transform.forward_columns(np.empty((2, 4, 0)))


@pytest.mark.parametrize(
    ("primes", "length", "message"),
    [
        ((97,), 63, "length must be a power of two and at least 64, got 63"),
        ((97,), SHORTEST // 2, "at least 64, got 32"),
        ((127,), 64, "1 modulo 128, got 127"),
        (((1 << 48) + 1 + 128 * 64,), 64, "below 2^48"),
    ],
)
def test_refusals(primes, length, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Transform(primes, length)


def test_transforms_are_vectorised():
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("checked on x86-64 alone")
    if numba.config.CPU_NAME or not vectorised.cpu_features()["avx2"]:
        pytest.skip("no AVX2 here, or Numba is told of another processor")
    x, one = np.zeros(64), np.ones(1)
    tables = np.zeros((1, 64))
    for kernel in (_forward, _inverse):
        listing = vectorised._assembly(kernel, (0, 1, x, 1, 64, x, tables, one, one))
        fused = re.findall(r"\bvfn?m(?:add|sub)\d+pd\b.*%[yz]mm", listing)
        # Radix 8, 4 and 2: at least 12 + 4 + 1 products, with two such instructions each.
        assert len(fused) >= 34


PROGRAM = """
import numpy as np
from numba.core import config
from llvmlite import binding
from ring import vectorised
from ring.ntt import Transform, _forward
from ring.residues import largest_primes, root_of_unity

primes = largest_primes(48, 1, 64)
p = primes[0]
x = np.random.default_rng(1).choice([p // 2, -(p // 2), 12345], (1, 2, 64)).astype(float)
y = x.copy()
transform = Transform(primes, 64)
transform.forward(y)
root = root_of_unity(p, 128)
for i in range(64):
    at = pow(root, 2 * int(format(i, "06b")[::-1], 2) + 1, p)
    assert sum(int(c) * pow(at, k, p) for k, c in enumerate(x[0, 1])) % p == int(y[0, 1, i]) % p
transform.inverse(y)
assert ((y - x) % p == 0).all()
one = np.ones(1)
listing = vectorised._assembly(
    _forward, (0, 1, np.zeros(64), 1, 64, np.zeros(64), np.zeros((1, 64)), one, one)
)
print("fused" if "vfmadd" in listing or "vfnmadd" in listing else "none")
"""


def test_a_processor_without_fused_products_is_right(tmp_path):
    """LLVM calls the mathematical library, which rounds once too."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("every other processor has them")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "+sse2", "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "none\n"
