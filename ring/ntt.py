"""Polynomials modulo X^N + 1 and several primes: their values at the roots, and back.

The number-theoretic transform of a polynomial is its values at the N roots of X^N + 1, in
bit-reversed order, so that polynomials multiply place by place (Cooley-Tukey forward,
Gentleman-Sande back, with the powers merged: Longa, Naehrig 2016, ePrint 2016/504).

The first three levels work on eight parts of a polynomial that lie N / 8 apart, and transpose them in
registers; from there on the parts are eight polynomials side by side, lane by lane, each with twiddle
factors of its own. So one polynomial is as fast as many, and its 64 kB stay in the cache.

After the first log2(D) levels the ring has split into D rings Z_p[X] / (X^(N/D) - w): a polynomial in
X^(N/D) is a constant in each, so that its transform has one value for each run of N / D places. Those
values are a transform of length D with the same table: :func:`forward_columns`.

No level of the forward transform reduces: what is added at each is below p, so that residues stay
below 2^53 (:func:`forward_bound`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ring.compile import kernel
from ring.errors import ArgumentError
from ring.residues import PRIME_BITS, balanced, multiply, product_bound, reduce, root_of_unity
from ring.threads import run
from ring.vectors import LANES, WORD, Doubles

__all__ = ["SHORTEST", "Residues", "Transform", "forward_bound"]

Residues = NDArray[np.float64]

SHORTEST = LANES * LANES


def forward_bound(p: int, length: int) -> Fraction:
    """Return the largest residue inside a forward transform, in units of p.

    From residues up to p / 2 + 64 in magnitude: reduced ones, with small errors added to them.
    """
    bound = Fraction(1, 2) + Fraction(64, p)
    for _ in range(length.bit_length() - 1):
        bound += product_bound(bound, p)
    return bound


class _Twiddles:
    """Vectors or copies of twiddle factors, by level and block, with their ratios to p."""

    def __init__(self, v: Doubles, load: Callable[[int], Any]) -> None:
        self.v, self.load = v, load
        self.found: dict[int, tuple[Any, Any]] = {}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index not in self.found:
            factor = self.load(index)
            self.found[index] = factor, self.v.ratio(factor)
        return self.found[index]


def _forward_levels(v: Doubles, x: list[Any], twiddles: _Twiddles) -> list[Any]:
    """Run log2(len(x)) levels on vectors: block i of a level with m blocks takes factor m + i."""
    x, m = list(x), 1
    while m < len(x):
        half = len(x) // (2 * m)
        for i in range(m):
            for j in range(2 * i * half, (2 * i + 1) * half):
                product = v.multiply(x[j + half], *twiddles[m + i])
                x[j], x[j + half] = v.add(x[j], product), v.subtract(x[j], product)
        m *= 2
    return x


def _inverse_levels(v: Doubles, x: list[Any], twiddles: _Twiddles) -> list[Any]:
    """The levels of `_forward_levels` from the last to the first.

    Sums of sums alone are reduced, at the end: nothing grows beyond 8 times what has come in.
    """
    x, m = list(x), len(x) // 2
    while m:
        half = len(x) // (2 * m)
        for i in range(m):
            for j in range(2 * i * half, (2 * i + 1) * half):
                a, b = x[j], x[j + half]
                x[j], x[j + half] = v.add(a, b), v.multiply(v.subtract(a, b), *twiddles[m + i])
        m //= 2
    x[0] = v.reduce(x[0])
    return x


def _pass(body: Callable[..., None], arrays: int, indices: int) -> Any:
    """Build an intrinsic from ``body(v, builder, data pointers, indices)``.

    Its arguments are that many arrays and indices, and p and 1 / p. Nothing checks bounds here.
    """

    def make(*arguments: Any) -> Any:
        signature = types.void(
            *arguments[:arrays], *[types.intp] * indices, types.float64, types.float64
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = [
                context.make_array(signature.args[k])(context, builder, args[k]).data
                for k in range(arrays)
            ]
            body(Doubles(builder, *args[-2:]), builder, data, args[arrays:-2])
            return context.get_dummy_value()

        return signature, generate

    # Numba reads how many arguments an intrinsic has from its signature.
    if (arrays, indices) == (3, 5):

        @intrinsic
        def outer(
            typingctx: Any, x: Any, scratch: Any, table: Any,
            i: Any, j: Any, k: Any, m: Any, n: Any, p: Any, inverse: Any,
        ) -> Any:  # fmt: skip
            return make(x, scratch, table, i, j, k, m, n, p, inverse)

        return outer

    @intrinsic
    def inner(
        typingctx: Any, scratch: Any, table: Any,
        i: Any, j: Any, k: Any, p: Any, inverse: Any,
    ) -> Any:  # fmt: skip
        return make(scratch, table, i, j, k, p, inverse)

    return inner


def _at(builder: Any, base: Any, step: Any, times: int) -> Any:
    return builder.add(base, builder.mul(step, WORD(times)))


def _blocks(
    v: Doubles, builder: Any, table: Any, row: Any, block: Any, levels: int, scalar: bool
) -> _Twiddles:
    """Give the factors that belong to one block of a level, and to its parts in the levels after.

    The block has index ``block`` in a table whose row starts at ``row``; factor m + i of the pass is
    at ``m * block + i``.
    """

    def load(index: int) -> Any:
        m = 1 << (index.bit_length() - 1)
        at = builder.add(builder.mul(block, WORD(m)), WORD(index - m))
        if scalar:
            return v.broadcast(builder.load(builder.gep(table, [builder.add(row, at)])))
        return v.load(table, builder.add(row, builder.mul(at, WORD(LANES))))

    return _Twiddles(v, load)


def _loaded(factors: _Twiddles, levels: int) -> _Twiddles:
    """Load factors ahead of a loop: LLVM cannot know that the loop does not change them."""
    for k in range(1, 1 << levels):
        factors[k]
    return factors


def _middle(levels: Callable[..., list[Any]], count: int) -> Any:
    """Levels on vectors of the scratch that lie ``step`` vectors apart, for ``step`` places."""

    def body(v: Doubles, builder: Any, data: Any, indices: Any) -> None:
        (scratch, table), (start, step, block) = data, indices
        factors = _loaded(_blocks(v, builder, table, WORD(0), block, count, False), count)
        with cgutils.for_range(builder, step, intp=WORD) as loop:
            first = builder.add(start, loop.index)
            places = [
                builder.mul(_at(builder, first, step, k), WORD(LANES)) for k in range(1 << count)
            ]
            x = levels(v, [v.load(scratch, place) for place in places], factors)
            for value, place in zip(x, places, strict=True):
                v.store(value, scratch, place)

    return _pass(body, 2, 3)


def _split(v: Doubles, builder: Any, data: Any, indices: Any) -> None:
    """The first three levels forward, from parts that lie ``stride`` apart, and the transposition."""
    (x, scratch, table), (start, stride, to, row, count) = data, indices
    factors = _loaded(_blocks(v, builder, table, row, WORD(1), 3, True), 3)
    with cgutils.for_range(builder, count, intp=WORD) as loop:
        first = _at(builder, start, loop.index, LANES)
        after = _at(builder, to, loop.index, SHORTEST)
        parts = [v.load(x, _at(builder, first, stride, k)) for k in range(LANES)]
        for k, value in enumerate(v.transpose(_forward_levels(v, parts, factors))):
            v.store(value, scratch, builder.add(after, WORD(LANES * k)))


def _join(v: Doubles, builder: Any, data: Any, indices: Any) -> None:
    """The last three levels forward, the transposition, and parts that lie ``stride`` apart."""
    (x, scratch, table), (start, stride, to, row, block) = data, indices
    factors = _blocks(v, builder, table, row, block, 3, False)
    values = [v.load(scratch, builder.add(to, WORD(LANES * k))) for k in range(LANES)]
    reduced = [v.reduce(value) for value in _forward_levels(v, values, factors)]
    for k, value in enumerate(v.transpose(reduced)):
        v.store(value, x, _at(builder, start, stride, k))


def _split_back(v: Doubles, builder: Any, data: Any, indices: Any) -> None:
    """The first three levels back: what `_join` has done."""
    (x, scratch, table), (start, stride, to, row, block) = data, indices
    factors = _blocks(v, builder, table, row, block, 3, False)
    parts = v.transpose([v.load(x, _at(builder, start, stride, k)) for k in range(LANES)])
    for k, value in enumerate(_inverse_levels(v, parts, factors)):
        v.store(value, scratch, builder.add(to, WORD(LANES * k)))


def _join_back(v: Doubles, builder: Any, data: Any, indices: Any) -> None:
    """The last three levels back: what `_split` has done. Factor 0 of the table is 1 / N."""
    (x, scratch, table), (start, stride, to, row, count) = data, indices
    factors = _loaded(_blocks(v, builder, table, row, WORD(1), 3, True), 3)
    scale = v.broadcast(builder.load(builder.gep(table, [row])))
    ratio = v.ratio(scale)
    with cgutils.for_range(builder, count, intp=WORD) as loop:
        first = _at(builder, start, loop.index, LANES)
        after = _at(builder, to, loop.index, SHORTEST)
        lanes = [v.load(scratch, builder.add(after, WORD(LANES * k))) for k in range(LANES)]
        for k, value in enumerate(_inverse_levels(v, v.transpose(lanes), factors)):
            v.store(v.multiply(value, scale, ratio), x, _at(builder, first, stride, k))


_split_pass, _join_pass = _pass(_split, 3, 5), _pass(_join, 3, 5)
_split_back_pass, _join_back_pass = _pass(_split_back, 3, 5), _pass(_join_back, 3, 5)
_forward_4, _forward_2 = _middle(_forward_levels, 2), _middle(_forward_levels, 1)
_inverse_4, _inverse_2 = _middle(_inverse_levels, 2), _middle(_inverse_levels, 1)


@kernel
def _forward(
    start: int, stop: int, x: Residues, rows: int, length: int,
    heads: Residues, tables: Residues, primes: Residues, inverses: Residues,
) -> None:  # fmt: skip
    """Transform polynomials `start` to `stop` of x, `rows` for each prime one after the other."""
    part = length // LANES
    scratch = np.empty(length)
    for row in range(start, stop):
        prime = row // rows
        p, inverse, table = primes[prime], inverses[prime], tables[prime]
        at = row * length
        _split_pass(x, scratch, heads, at, part, 0, prime * LANES, part // LANES, p, inverse)
        # The part has split into `blocks` so far, of `size` places each.
        blocks, size = 1, part
        while size > LANES:
            if size >= 4 * LANES:
                for i in range(blocks):
                    _forward_4(scratch, table, i * size, size // 4, blocks + i, p, inverse)
                blocks, size = blocks * 4, size // 4
            else:
                for i in range(blocks):
                    _forward_2(scratch, table, i * size, size // 2, blocks + i, p, inverse)
                blocks, size = blocks * 2, size // 2
        for i in range(blocks):
            j = i * LANES
            _join_pass(x, scratch, table, at + j, part, j * LANES, 0, blocks + i, p, inverse)


@kernel
def _inverse(
    start: int, stop: int, x: Residues, rows: int, length: int,
    heads: Residues, tables: Residues, primes: Residues, inverses: Residues,
) -> None:  # fmt: skip
    """Undo `_forward`."""
    part = length // LANES
    scratch = np.empty(length)
    for row in range(start, stop):
        prime = row // rows
        p, inverse, table = primes[prime], inverses[prime], tables[prime]
        at = row * length
        blocks, size = part // LANES, LANES
        for i in range(blocks):
            j = i * LANES
            _split_back_pass(x, scratch, table, at + j, part, j * LANES, 0, blocks + i, p, inverse)
        while size < part:
            if size * 4 <= part:
                blocks, size = blocks // 4, size * 4
                for i in range(blocks):
                    _inverse_4(scratch, table, i * size, size // 4, blocks + i, p, inverse)
            else:
                blocks, size = blocks // 2, size * 2
                for i in range(blocks):
                    _inverse_2(scratch, table, i * size, size // 2, blocks + i, p, inverse)
        _join_back_pass(x, scratch, heads, at, part, 0, prime * LANES, part // LANES, p, inverse)


@kernel
def _forward_columns(
    start: int, stop: int, x: Residues, length: int,
    powers: Residues, primes: Residues, inverses: Residues,
) -> None:  # fmt: skip
    """Transform along the second axis of x, for primes `start` to `stop`."""
    for prime in range(start, stop):
        p, inverse = primes[prime], inverses[prime]
        m, half = 1, length // 2
        while m < length:
            for i in range(m):
                factor = powers[prime, m + i]
                for j in range(2 * i * half, (2 * i + 1) * half):
                    upper, lower = x[prime, j], x[prime, j + half]
                    for c in range(upper.size):
                        product = multiply(lower[c], factor, p, inverse)
                        lower[c] = upper[c] - product
                        upper[c] += product
            m, half = 2 * m, half // 2
        for j in range(length):
            line = x[prime, j]
            for c in range(line.size):
                line[c] = reduce(line[c], p, inverse)


class Transform:
    """The transforms of polynomials modulo X^N + 1 and each of several primes.

    Parameters
    ----------
    primes : sequence of int
        Below 2^48, and 1 modulo 2 N.
    length : int
        N, a power of two and at least 64.
    """

    def __init__(self, primes: tuple[int, ...], length: int) -> None:
        if length < SHORTEST or length & (length - 1):
            raise ArgumentError(
                f"length must be a power of two and at least {SHORTEST}, got {length}"
            )
        for p in primes:
            if p >= 1 << PRIME_BITS or p % (2 * length) != 1:
                raise ArgumentError(
                    f"primes must be below 2^{PRIME_BITS} and 1 modulo {2 * length}, got {p}"
                )
        self.primes, self.length = tuple(primes), length
        self._p = np.array(primes, np.float64)
        self._inverse = 1 / self._p
        part = length // LANES
        order = _bit_reversed(length)
        heads = np.empty((2, len(primes), LANES))
        tables = np.empty((2, len(primes), part, LANES))
        self._powers = np.empty((len(primes), length))
        # Row m + i of a table: block i of the m that lane b has split into is block b m + i of all.
        lanes = np.arange(LANES)
        level = np.ones(part, np.int64)
        level[1:] = 1 << np.floor(np.log2(np.arange(1, part))).astype(np.int64)
        where = LANES * level[:, None] + lanes * level[:, None] + (np.arange(part) - level)[:, None]
        for k, p in enumerate(primes):
            powers = _powers(root_of_unity(p, 2 * length), p, 2 * length)
            for back, exponents in enumerate((order, -order % (2 * length))):
                factors = powers[exponents]
                heads[back, k] = factors[:LANES]
                tables[back, k] = factors[where]
                if not back:
                    self._powers[k] = factors
            heads[1, k, 0] = balanced(pow(length, -1, p), p)
        tables[:, :, 0] = 0
        self._tables = tables.reshape(2, len(primes), -1)
        self._heads = heads.reshape(2, -1)

    def _run(self, function: Any, back: int, x: Residues) -> None:
        if not x.size:
            return
        rows = x.shape[1]
        run(
            function, len(self.primes) * rows, 8 * self.length, x.reshape(-1), rows, self.length,
            self._heads[back], self._tables[back], self._p, self._inverse,
        )  # fmt: skip

    def forward(self, x: Residues) -> None:
        """Replace contiguous polynomials, of shape (primes, rows, N), by their values."""
        self._run(_forward, 0, x)

    def inverse(self, x: Residues) -> None:
        """Replace values by the polynomials; the inverse of :meth:`forward`."""
        self._run(_inverse, 1, x)

    def forward_columns(self, x: Residues) -> None:
        """Replace polynomials in X^(N/D), of shape (primes, D, columns), by their values.

        Value t is what :meth:`forward` gives at the places ``t * N / D`` to ``(t + 1) * N / D``.
        """
        if x.size:
            run(
                _forward_columns, len(self.primes), 8 * x[0].size, x, x.shape[1],
                self._powers, self._p, self._inverse,
            )  # fmt: skip


def _bit_reversed(length: int) -> NDArray[np.int64]:
    order = np.zeros(1, np.int64)
    while order.size < length:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _powers(root: int, p: int, count: int) -> Residues:
    """Return the balanced residues of the powers of a root."""
    found, power = np.empty(count), 1
    for k in range(count):
        found[k] = balanced(power, p)
        power = power * root % p
    return found
