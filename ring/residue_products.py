"""Sums of products of polynomials by their values: at every place, a matrix times a vector modulo p.

Where one factor serves many places, products are summed whole: b being the bits of p, x w rounded to a
multiple of 2^(b-1), and what that lacks, each in a double of its own. Rounding takes one fused
multiply-add of x w and 3/2 2^(b+51), whose last bit is 2^(b-1), and the subtraction of that constant;
what it lacks another. Both sums are exact for so many terms (:func:`split_terms_at_once`), and only
then reduced. Elsewhere every product is reduced, and is below :func:`term_bound`
(:func:`terms_at_once`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ring.compile import kernel
from ring.errors import ShapeError
from ring.residue_numbers import ResidueNumbers
from ring.residues import multiply, product_bound, reduce
from ring.threads import run
from ring.vectors import LANES, WORD, Doubles

__all__ = [
    "add_run_products",
    "add_slot_products",
    "multiply_places",
    "rounding_constant",
    "split_terms_at_once",
    "term_bound",
    "terms_at_once",
]

Residues = NDArray[np.float64]

TILE_ROWS = 4
# Places of one polynomial that are worked on together: 4 kB, so that a sum stays in the cache.
BLOCK = 512
# Places of a run that share the factors that have been loaded.
PANEL = 8 * LANES


def term_bound(p: int) -> Fraction:
    """Return the largest product of reduced residues, in units of p."""
    return product_bound(Fraction(1, 2) + Fraction(16, p), p)


def terms_at_once(p: int) -> int:
    """Return how many products may be added to a reduced residue below 2^53."""
    return int((Fraction(2**53, p) - 1) / term_bound(p))


def rounding_constant(p: int) -> float:
    """Return the constant that rounds what is added to it to a multiple of 2^(b-1)."""
    return 1.5 * 2.0 ** (51 + p.bit_length())


def split_terms_at_once(p: int) -> int:
    """Return how many products may be summed in two parts.

    The multiples of 2^(b-1) are exact below 2^(b+52), and go into p 2^52 times at most; what they lack is
    at most 2^(b-2) for each.
    """
    bits = p.bit_length()
    largest = (Fraction(p, 2) + 16) ** 2 + 2 ** (bits - 2)
    whole = min(2 ** (bits + 52), p * 2**52) / largest
    return int(min(whole, Fraction(2**53, 2 ** (bits - 2))))


def _sums(rows: int) -> Any:
    """Build ``out[r] += sum over k of w[r, k] x[k]``, reduced, for vectors x and scalars w."""

    @intrinsic
    def sums(
        typingctx: Any,
        x: Any, w: Any, w_start: Any, w_row: Any,
        out: Any, out_start: Any, out_row: Any,
        depth: Any, constant: Any, p: Any, inverse: Any,
    ) -> Any:  # fmt: skip
        index, real = types.intp, types.float64
        signature = types.void(x, w, index, index, out, index, index, index, real, real, real)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, _, w_start, w_row, _, out_start, out_row, depth, constant, p, inverse = args
            x_data, w_data, out_data = (
                context.make_array(signature.args[k])(context, builder, args[k]).data
                for k in (0, 1, 4)
            )
            v = Doubles(builder, p, inverse)

            def row(start: Any, stride: Any, times: int) -> Any:
                return builder.add(start, builder.mul(stride, WORD(times)))

            places = [row(out_start, out_row, r) for r in range(rows)]
            zero = v.type(None)
            highs = [cgutils.alloca_once_value(builder, zero) for _ in places]
            lows = [cgutils.alloca_once_value(builder, zero) for _ in places]
            shift = v.broadcast(constant)
            lines = [builder.gep(w_data, [row(w_start, w_row, r)]) for r in range(rows)]
            with cgutils.for_range(builder, depth, intp=WORD) as loop:
                right = v.load(x_data, builder.mul(loop.index, WORD(LANES)))
                for r in range(rows):
                    left = v.broadcast(builder.load(builder.gep(lines[r], [loop.index])))
                    minus = v.subtract(shift, v.fused(left, right, shift))
                    lack = v.fused(left, right, minus)
                    builder.store(v.subtract(builder.load(highs[r]), minus), highs[r])
                    builder.store(v.add(builder.load(lows[r]), lack), lows[r])
            for high, low, at in zip(highs, lows, places, strict=True):
                found = v.add(v.reduce(builder.load(high)), v.reduce(builder.load(low)))
                v.store(v.reduce(v.add(v.load(out_data, at), found)), out_data, at)
            return context.get_dummy_value()

        return signature, generate

    return sums


_tile_sums, _one_sum = _sums(TILE_ROWS), _sums(1)


@kernel
def _add_run_products(
    start: int, stop: int, x: Residues, w: Residues, terms: NDArray[np.int64], wide: int,
    constants: Residues, p: Residues, inverse: Residues, out: Residues, x_first: int,
) -> None:  # fmt: skip
    """Panels `start` to `stop` of `wide` places, prime after prime."""
    _, x_rows, length = x.shape
    _, runs, rows, depth = w.shape
    flat_x, flat_w, flat_out = x.reshape(-1), w.reshape(-1), out.reshape(-1)
    # The places of all x lie 2^16 bytes apart, which is what caches are worst at.
    panel = np.empty(depth * wide)
    for place in range(start, stop):
        prime, at = place // (length // wide), place % (length // wide) * wide
        modulus, below, most = p[prime], inverse[prime], terms[prime]
        constant = constants[prime]
        for k in range(depth):
            line = flat_x[(prime * x_rows + x_first + k) * length + at :]
            for lane in range(wide):
                panel[(lane // LANES * depth + k) * LANES + lane % LANES] = line[lane]
        first = (prime * runs + at // (length // runs)) * rows * depth
        to = prime * rows * length + at
        for k in range(0, depth, most):
            some = min(most, depth - k)
            r = 0
            while r < rows:
                factors, row = first + r * depth + k, to + r * length
                whole = r + TILE_ROWS <= rows
                for vector in range(0, wide, LANES):
                    part = panel[vector * depth + k * LANES :]
                    if whole:
                        _tile_sums(
                            part, flat_w, factors, depth, flat_out, row + vector, length,
                            some, constant, modulus, below,
                        )  # fmt: skip
                    else:
                        _one_sum(
                            part, flat_w, factors, depth, flat_out, row + vector, length,
                            some, constant, modulus, below,
                        )  # fmt: skip
                r += TILE_ROWS if whole else 1


@kernel
def _add_slot_products(
    start: int, stop: int, x: Residues, w: Residues, terms: NDArray[np.int64],
    p: Residues, inverse: Residues, out: Residues, x_first: int,
) -> None:  # fmt: skip
    """Blocks `start` to `stop` of places, prime after prime."""
    length = x.shape[2]
    _, rows, depth, _ = w.shape
    block = min(BLOCK, length)
    for piece in range(start, stop):
        prime, at = piece // (length // block), piece % (length // block) * block
        modulus, below = p[prime], inverse[prime]
        for r in range(rows):
            total = out[prime, r, at : at + block]
            since = 0
            for k in range(depth):
                left = x[prime, x_first + k, at : at + block]
                right = w[prime, r, k, at : at + block]
                for s in range(block):
                    total[s] += multiply(left[s], right[s], modulus, below)
                since += 1
                if since == terms[prime] or k == depth - 1:
                    since = 0
                    for s in range(block):
                        total[s] = reduce(total[s], modulus, below)


@kernel
def _multiply_places(
    start: int, stop: int, x: Residues, w: Residues, p: Residues, inverse: Residues
) -> None:
    for i in range(len(p)):
        for e in range(start, stop):
            product = multiply(x[i, e], w[i, e], p[i], inverse[i])
            x[i, e] = reduce(product, p[i], inverse[i])


def _check_rows(x: Residues, w: Residues, first: int) -> None:
    """Kernels do not check their bounds."""
    if not 0 <= first <= x.shape[1] - w.shape[3]:
        raise ShapeError(
            f"x must have the {w.shape[3]} rows from first = {first} on, it has {x.shape[1]}"
        )


def add_run_products(
    numbers: ResidueNumbers, x: Residues, w: Residues, out: Residues, first: int = 0
) -> None:
    """Add ``sum over k of w[:, t, r, k] x[:, first + k, s]`` to ``out[:, r, s]``, t the run of place s.

    All are contiguous, x of shape (primes, first + depth or more, N), w of shape (primes, runs, rows,
    depth), whose runs have eight places or more, and out of shape (primes, rows, N); all are reduced and
    stay so.
    """
    _check_rows(x, w, first)
    terms = np.array([split_terms_at_once(p) for p in numbers.primes])
    constants = np.array([rounding_constant(p) for p in numbers.primes])
    wide = min(PANEL, x.shape[2] // w.shape[1])
    run(
        _add_run_products, len(numbers) * x.shape[2] // wide, wide * w.shape[3] * w.shape[2],
        x, w, terms, wide, constants, numbers.p, numbers.inverse, out, first,
    )  # fmt: skip


def add_slot_products(
    numbers: ResidueNumbers, x: Residues, w: Residues, out: Residues, first: int = 0
) -> None:
    """Add ``sum over k of w[:, r, k, s] x[:, first + k, s]`` to ``out[:, r, s]``.

    As :func:`add_run_products`, for w of shape (primes, rows, depth, N).
    """
    _check_rows(x, w.swapaxes(2, 3), first)
    terms = np.array([terms_at_once(p) for p in numbers.primes])
    blocks = len(numbers) * x.shape[2] // min(BLOCK, x.shape[2])
    run(
        _add_slot_products, blocks, BLOCK * w.shape[2] * w.shape[1],
        x, w, terms, numbers.p, numbers.inverse, out, first,
    )  # fmt: skip


def multiply_places(numbers: ResidueNumbers, x: Residues, w: Residues) -> None:
    """Multiply reduced residues, of shape (primes, ...), place by place, in place of x."""
    shape = (len(numbers), -1)
    run(
        _multiply_places, x[0].size, 8 * len(numbers),
        x.reshape(shape), w.reshape(shape), numbers.p, numbers.inverse,
    )  # fmt: skip
