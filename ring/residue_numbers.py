"""Large integers by their residues modulo several primes, and their fractions of the product q.

Residues are balanced, in doubles, of shape (primes, n). What has to leave that form:

- a word m as round(q m / 2^64), and back (:meth:`ResidueNumbers.scale`, :meth:`~ResidueNumbers.unscale`);
- x as round(2^76 x / q), 76 bits (:meth:`~ResidueNumbers.switch`);
- x as digits d_0 + d_1 p_0 + d_2 p_0 p_1 + ..., and back (Garner).

The fraction x / q is the sum of (x_i (q / p_i)^-1 mod p_i) / p_i modulo 1, and is taken to 192 bits.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ring.compile import kernel
from ring.residues import balanced, multiply, reduce
from ring.threads import run
from ring.vectors import WORD

__all__ = ["LOW_BITS", "SWITCHED_BITS", "ResidueNumbers", "least", "signed_residue"]

Words = NDArray[np.uint64]
Residues = NDArray[np.float64]

SWITCHED_BITS = 76
LOW_BITS = SWITCHED_BITS - 64
_HALF = 2.0**32
# Numbers that are worked on together: what a step leaves for the next stays in the cache.
BLOCK = 512

# As far as a type checker can know, whoever calls one passes its typing context too.
_intrinsic: Any = intrinsic


@kernel
def signed_residue(word: np.uint64, p: float, inverse: float) -> float:
    """Return the residue of a word as a signed integer."""
    value = np.int64(word)
    high = np.float64(value >> np.int64(32)) * _HALF
    low = np.float64(value & np.int64(0xFFFFFFFF))
    return reduce(reduce(high, p, inverse) + low, p, inverse)


@kernel
def least(x: float, p: float) -> np.uint64:
    """Return a reduced residue in [0, p), without a branch."""
    value = np.int64(x)
    return np.uint64(value + (np.int64(p) & (value >> np.int64(63))))


# Slices, whose indices cannot be negative, and one loop for each step: LLVM makes vectors of them.


@kernel
def _from_words(
    start: int, stop: int, words: Words, p: Residues, inverse: Residues, out: Residues
) -> None:
    some = words[start:stop]
    for i in range(len(p)):
        line, modulus, below = out[i, start:stop], p[i], inverse[i]
        for e in range(some.size):
            line[e] = signed_residue(some[e], modulus, below)


@kernel
def _scale(
    start: int, stop: int, words: Words, low: np.uint64, factor: Residues,
    p: Residues, inverse: Residues, out: Residues,
) -> None:  # fmt: skip
    """round(q m / 2^64) = (q m - r) / 2^64, r being the balanced remainder; q is 0 modulo p."""
    some = words[start:stop]
    for i in range(len(p)):
        line, modulus, below, down = out[i, start:stop], p[i], inverse[i], factor[i]
        for e in range(some.size):
            remainder = signed_residue(low * some[e], modulus, below)
            line[e] = reduce(multiply(remainder, down, modulus, below), modulus, below)


@_intrinsic
def _fraction(
    typingctx: Any, v: Any, start: Any, stride: Any, parts: Any, count: Any, half: Any
) -> Any:
    """The upper two of three words: sum of v[start + i stride] parts[i], and half in the middle."""
    word, index = types.uint64, types.intp
    signature = types.UniTuple(word, 2)(v, index, index, parts, index, word)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(192)
        _, start, stride, _, count, half = args
        values, pieces = (
            context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 3)
        )

        def shifted(value: Any, words: int) -> Any:
            return builder.shl(builder.zext(value, wide), wide(64 * words))

        total = cgutils.alloca_once_value(builder, shifted(half, 1))
        with cgutils.for_range(builder, count, intp=WORD) as loop:
            at = builder.add(start, builder.mul(loop.index, stride))
            value = builder.zext(builder.load(builder.gep(values, [at])), wide)
            first = builder.mul(loop.index, WORD(3))
            part = wide(0)
            for k in range(3):
                piece = builder.load(builder.gep(pieces, [builder.add(first, WORD(k))]))
                part = builder.or_(part, shifted(piece, k))
            builder.store(builder.add(builder.load(total), builder.mul(value, part)), total)
        found = builder.load(total)
        words = [builder.trunc(builder.lshr(found, wide(64 * k)), WORD) for k in (2, 1)]
        return context.make_tuple(builder, signature.return_type, words)

    return signature, generate


@kernel
def _weigh(
    x: Residues, start: int, stop: int, weight: Residues, p: Residues, inverse: Residues, v: Words
) -> None:
    """x_i (q / p_i)^-1 modulo p_i, in [0, p_i)."""
    for i in range(len(p)):
        some, line = x[i, start:stop], v[i]
        factor, modulus, below = weight[i], p[i], inverse[i]
        for e in range(some.size):
            y = reduce(multiply(some[e], factor, modulus, below), modulus, below)
            line[e] = least(y, modulus)


@kernel
def _unscale(
    start: int, stop: int, x: Residues, weight: Residues,
    p: Residues, inverse: Residues, parts: Words, out: Words,
) -> None:  # fmt: skip
    v = np.empty((len(p), BLOCK), np.uint64)
    half = np.uint64(1) << np.uint64(63)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        _weigh(x, first, last, weight, p, inverse, v)
        for e in range(last - first):
            out[first + e] = _fraction(v, e, BLOCK, parts, len(p), half)[0]


@kernel
def _switch(
    start: int, stop: int, x: Residues, weight: Residues,
    p: Residues, inverse: Residues, parts: Words, high: Words, low: Words,
) -> None:  # fmt: skip
    v = np.empty((len(p), BLOCK), np.uint64)
    drop = np.uint64(64 - LOW_BITS)
    half = np.uint64(1) << (drop - np.uint64(1))
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        _weigh(x, first, last, weight, p, inverse, v)
        for e in range(last - first):
            high[first + e], middle = _fraction(v, e, BLOCK, parts, len(p), half)
            low[first + e] = middle >> drop


@kernel
def _digits(
    start: int, stop: int, x: Residues, mixed: Residues, p: Residues, inverse: Residues, out: Words
) -> None:
    """Digits in [0, p_i), the last one signed. mixed[i, j] is p_0 ... p_(j-1), and at j = i its inverse."""
    count = len(out)
    scratch = np.empty(BLOCK)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        value = scratch[: last - first]
        for i in range(count):
            value[:] = x[i, first:last]
            modulus, below = p[i], inverse[i]
            for j in range(i):
                digits, factor = out[j, first:last], mixed[i, j]
                for e in range(value.size):
                    digit = np.float64(np.int64(digits[e]))
                    less = value[e] - multiply(digit, factor, modulus, below)
                    value[e] = reduce(less, modulus, below)
            line, factor = out[i, first:last], mixed[i, i]
            for e in range(value.size):
                found = reduce(multiply(value[e], factor, modulus, below), modulus, below)
                value[e] = found
                line[e] = np.uint64(np.int64(found))
            if i < count - 1:
                for e in range(value.size):
                    line[e] = least(value[e], modulus)


@kernel
def _from_digits(
    start: int, stop: int, digits: Words, mixed: Residues,
    p: Residues, inverse: Residues, out: Residues,
) -> None:  # fmt: skip
    """Add numbers given by digits to residues."""
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        for i in range(len(p)):
            line, modulus, below = out[i, first:last], p[i], inverse[i]
            for j in range(len(digits)):
                some, factor = digits[j, first:last], mixed[i, j]
                for e in range(line.size):
                    digit = np.float64(np.int64(some[e]))
                    more = line[e] + multiply(digit, factor, modulus, below)
                    line[e] = reduce(more, modulus, below)


@kernel
def _low_words(start: int, stop: int, digits: Words, products: Words, out: Words) -> None:
    total = out[start:stop]
    total[:] = 0
    for j in range(len(digits)):
        some, product = digits[j, start:stop], products[j]
        for e in range(total.size):
            total[e] += some[e] * product


class ResidueNumbers:
    """Integers modulo the product of primes below 2^48.

    Parameters
    ----------
    primes : tuple of int
        Odd and distinct.

    Attributes
    ----------
    q : int
        Their product.
    p, inverse : float64 arrays
        The primes and their inverses, for kernels.
    """

    def __init__(self, primes: tuple[int, ...]) -> None:
        self.primes = primes
        self.q = prod(primes)
        self.p = np.array(primes, np.float64)
        self.inverse = 1 / self.p
        self._weight = np.array([balanced(pow(self.q // p, -1, p), p) for p in primes])
        self._low = np.uint64(self.q % 2**64)
        self._down = np.array([balanced(-pow(2, -64, p), p) for p in primes])
        self._parts = np.array(
            [[(2**192 // p >> 64 * k) % 2**64 for k in range(3)] for p in primes], np.uint64
        )
        # Digits need products below the diagonal and inverses on it, sums of digits all products.
        self._products = np.array(
            [[balanced(prod(primes[:j]), p) for j in range(len(primes))] for p in primes]
        )
        self._mixed = self._products.copy()
        for i, p in enumerate(primes):
            self._mixed[i, i] = balanced(pow(prod(primes[:i]), -1, p), p)

    def __len__(self) -> int:
        return len(self.primes)

    def digit_factor(self, i: int) -> float:
        """Return the inverse of the product of the primes before p_i, modulo p_i."""
        return float(self._mixed[i, i])

    def from_words(self, words: Words) -> Residues:
        """Return the residues of words as signed integers, for words of any shape."""
        out = np.empty((len(self), words.size))
        flat = np.ascontiguousarray(words).reshape(-1)
        run(_from_words, words.size, 8 * len(self), flat, self.p, self.inverse, out)
        return out.reshape(len(self), *words.shape)

    def scale(self, words: Words) -> Residues:
        """Return round(q m / 2^64) for words m of any shape."""
        out = np.empty((len(self), words.size))
        flat = np.ascontiguousarray(words).reshape(-1)
        run(
            _scale, words.size, 16 * len(self),
            flat, self._low, self._down, self.p, self.inverse, out,
        )  # fmt: skip
        return out.reshape(len(self), *words.shape)

    def unscale(self, x: Residues) -> Words:
        """Return round(2^64 x / q) modulo 2^64, but within 2^-75 of where it turns."""
        out = np.empty(x[0].size, np.uint64)
        flat = x.reshape(len(self), -1)
        run(
            _unscale, out.size, 16 * len(self),
            flat, self._weight, self.p, self.inverse, self._parts, out,
        )  # fmt: skip
        return out.reshape(x.shape[1:])

    def switch(self, x: Residues) -> tuple[Words, Words]:
        """Return round(2^76 x / q) modulo 2^76: the upper 64 bits and the lower twelve.

        But within 2^-63 of where it turns.
        """
        high, low = np.empty(x[0].size, np.uint64), np.empty(x[0].size, np.uint64)
        flat = x.reshape(len(self), -1)
        run(
            _switch, high.size, 16 * len(self),
            flat, self._weight, self.p, self.inverse, self._parts, high, low,
        )  # fmt: skip
        return high.reshape(x.shape[1:]), low.reshape(x.shape[1:])

    def digits(self, x: Residues, count: int) -> Words:
        """Return the first `count` digits of integers that have no more.

        Digit i is in [0, p_i), but the last one, which is signed: (p - 1) / 2 times the product of
        the primes before it, p, is the largest magnitude.
        """
        out = np.empty((count, x[0].size), np.uint64)
        run(
            _digits, out.shape[1], 8 * count * count,
            x.reshape(len(x), -1), self._mixed, self.p, self.inverse, out,
        )  # fmt: skip
        return out.reshape(count, *x.shape[1:])

    def low_words(self, x: Residues) -> Words:
        """Return integers modulo 2^64, for ones as small as :meth:`digits` takes them."""
        digits = self.digits(x.reshape(len(self), -1), len(self))
        products = np.array([prod(self.primes[:j]) % 2**64 for j in range(len(self))], np.uint64)
        out = np.empty(digits.shape[1], np.uint64)
        run(_low_words, out.size, 4 * len(self), digits, products, out)
        return out.reshape(x.shape[1:])

    def add_digits(self, digits: Words, out: Residues) -> None:
        """Add integers given by digits to contiguous residues; the inverse of :meth:`digits`."""
        run(
            _from_digits, out[0].size, 8 * len(digits) * len(self),
            digits.reshape(len(digits), -1), self._products, self.p, self.inverse,
            out.reshape(len(self), -1),
        )  # fmt: skip
