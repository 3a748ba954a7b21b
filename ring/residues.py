"""Integers modulo primes below 2^48, as balanced residues in doubles.

A product y s modulo p takes four instructions that vectors have: high = y s rounded, low = y s - high
(one fused multiply-add), k = round(y (s / p)), and (high - k p) + low, the first again one fused
multiply-add. It is exact while |y s| < 2^100 and |y s / p| < 2^52: low is what rounding y s has cost,
below 2^47; k differs from y s / p by 1/2 and three roundings of it; so high - k p and the sum are
whole numbers below 2^53. For |s| <= p / 2 the result is below (1/2 + 3 / 2^54 |y|) p + 1: see
:func:`product_bound`. All this needs rounding to nearest, and products that are not re-ordered: no
fast-math. Processors without fused multiply-add call the mathematical library, which rounds alike.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ring.compile import kernel
from ring.vectors import DOUBLE, WORD

__all__ = [
    "PRIME_BITS",
    "balanced",
    "count_ones",
    "high_product",
    "is_prime",
    "largest_primes",
    "multiply",
    "product_bound",
    "reduce",
    "root_of_unity",
]

PRIME_BITS = 48

# As far as a type checker can know, whoever calls one passes its typing context too.
_intrinsic: Any = intrinsic


def product_bound(y: Fraction, p: int) -> Fraction:
    """Return the largest magnitude of y s modulo p, in units of p, for |y| <= `y` p, |s| <= p / 2.

    Three roundings of y (s / p): of 1 / p, of its product with s, and of that with y.
    """
    return Fraction(1, 2) + 3 * y * p / 2**54 + Fraction(1, p)


@_intrinsic
def _fused(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(DOUBLE, [DOUBLE] * 3)
        function = builder.module.declare_intrinsic("llvm.fma", [DOUBLE], kind)
        return builder.call(function, args)

    return types.float64(types.float64, types.float64, types.float64), generate


@_intrinsic
def _nearest(typingctx: Any, a: Any) -> Any:
    """Return the nearest whole number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.nearbyint", [DOUBLE])
        return builder.call(function, args)

    return types.float64(types.float64), generate


@_intrinsic
def high_product(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the upper 64 bits of a product of two words."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        a, b = (builder.zext(value, wide) for value in args)
        return builder.trunc(builder.lshr(builder.mul(a, b), ir.Constant(wide, 64)), WORD)

    return types.uint64(types.uint64, types.uint64), generate


@_intrinsic
def count_ones(typingctx: Any, a: Any) -> Any:
    """Return how many bits of a word are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [WORD]), args)

    return types.int64(types.uint64), generate


@kernel
def multiply(a: float, b: float, p: float, inverse: float) -> float:
    """Return a b modulo p, `inverse` being 1 / p."""
    high = a * b
    low = _fused(a, b, -high)
    return _fused(-_nearest(a * (b * inverse)), p, high) + low


@kernel
def reduce(a: float, p: float, inverse: float) -> float:
    """Return a modulo p, about in [-p / 2, p / 2], for any whole number a below 2^52 p."""
    return _fused(-_nearest(a * inverse), p, a)


def balanced(value: int, p: int) -> float:
    """Return the residue of a Python integer that is least in magnitude."""
    least = value % p
    return float(least - p if least > p // 2 else least)


def is_prime(n: int) -> bool:
    """Whether n < 3.3 * 10^24 is prime (Miller-Rabin with the first 13 primes as bases)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if n < 2 or any(n % a == 0 for a in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1

    def passes(a: int) -> bool:
        power = pow(a, odd, n)
        if power in (1, n - 1):
            return True
        for _ in range(twos - 1):
            power = power * power % n
            if power == n - 1:
                return True
        return False

    return all(map(passes, bases))


def largest_primes(bits: int, count: int, length: int) -> tuple[int, ...]:
    """Return the largest primes below 2^bits that are 1 modulo 2 `length`, a power of two."""
    found: list[int] = []
    p = (1 << bits) + 1
    while len(found) < count:
        p -= 2 * length
        if is_prime(p):
            found.append(p)
    return tuple(found)


def root_of_unity(p: int, order: int) -> int:
    """Return a primitive root of unity modulo a prime, `order` being a power of two above one."""
    for base in range(2, p):
        root = pow(base, (p - 1) // order, p)
        if pow(root, order // 2, p) == p - 1:
            return root
    raise AssertionError("the order divides p - 1")
