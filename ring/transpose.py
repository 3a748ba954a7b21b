"""Bit matrices turned over: from planes, one for each bit, to rows, one for each element, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ring.bits import WORD_BITS
from ring.compile import kernel
from ring.errors import ArgumentError, DtypeError
from ring.threads import run

__all__ = ["planes_of_rows", "rows_of_planes"]

Words = NDArray[np.uint64]

# Squares of 64 x 64 bits that are turned at once: LLVM vectors, as in ring/matmul.py.
_LANES = 8


def _swap_rows(context: Any, square: Any, i: Any, j: Any, shift: Any, mask: Any) -> Any:
    """Swap the masked bits of row j with those of row i that lie `shift` higher, in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, upper_row, lower_row, shift, mask = arguments
        word, index = ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(word, _LANES)
        first = context.make_array(signature.args[0])(context, builder, words).data

        def place(row: Any) -> Any:
            at = builder.mul(row, ir.Constant(word, _LANES))
            return builder.bitcast(builder.gep(first, [at]), vector.as_pointer())

        def spread(scalar: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            lane = builder.insert_element(undefined, scalar, ir.Constant(index, 0))
            zeros = ir.Constant(ir.VectorType(index, _LANES), None)
            return builder.shuffle_vector(lane, undefined, zeros)

        by, kept = spread(shift), spread(mask)
        upper = builder.load(place(upper_row), align=8)
        lower = builder.load(place(lower_row), align=8)
        differ = builder.and_(builder.xor(builder.lshr(upper, by), lower), kept)
        builder.store(builder.xor(lower, differ), place(lower_row), align=8)
        builder.store(builder.xor(upper, builder.shl(differ, by)), place(upper_row), align=8)
        return context.get_dummy_value()

    return types.void(square, types.intp, types.intp, types.uint64, types.uint64), generate


_swap: Any = intrinsic(_swap_rows)


@kernel
def _turn(square: Words) -> None:
    """Swap the off-diagonal quarters of every square, then those of each quarter, and so on."""
    mask, shift = np.uint64(0x00000000FFFFFFFF), 32
    while shift:
        for block in range(0, square.shape[0], 2 * shift):
            for i in range(block, block + shift):
                _swap(square, i, i + shift, np.uint64(shift), mask)
        shift >>= 1
        mask ^= mask << np.uint64(shift)


@kernel
def _rows_of_planes(start: int, stop: int, planes: Words, out: Words) -> None:
    count = planes.shape[0]
    square = np.zeros((count, _LANES), np.uint64)
    for first in range(start, stop, _LANES):
        width = min(_LANES, stop - first)
        for p in range(count):
            if width == _LANES:
                for k in range(_LANES):
                    square[p, k] = planes[p, first + k]
            else:
                for k in range(width):
                    square[p, k] = planes[p, first + k]
        _turn(square)
        for k in range(width):
            for i in range(64):
                for half in range(count // 64):
                    out[64 * (first + k) + i, half] = square[64 * half + i, k]


@kernel
def _planes_of_rows(start: int, stop: int, rows: Words, out: Words) -> None:
    square = np.zeros((64, _LANES), np.uint64)
    for first in range(start, stop, _LANES):
        width = min(_LANES, stop - first)
        for k in range(width):
            for i in range(64):
                square[i, k] = rows[64 * (first + k) + i]
        _turn(square)
        for p in range(out.shape[0]):
            for k in range(width):
                out[p, first + k] = square[p, k]


def rows_of_planes(planes: Words, out: Words | None = None) -> Words:
    """Return the rows of bit planes: bit p of row e is bit e of plane p.

    Parameters
    ----------
    planes : contiguous uint64 array of shape (64 h, words)
        Bit e of a plane as in :mod:`ring.bits`.
    out : contiguous uint64 array of shape (64 words, h), optional

    Returns
    -------
    uint64 array of shape (64 words, h)

    Raises
    ------
    DtypeError, ArgumentError
        If an array has another dtype, shape or order.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.transpose import rows_of_planes
    >>> planes = np.zeros((64, 1), np.uint64)
    >>> planes[5] = 0b110
    >>> rows_of_planes(planes)[:4, 0]
    array([ 0, 32, 32,  0], dtype=uint64)
    """
    if planes.dtype != np.uint64 or not planes.flags.c_contiguous:
        raise DtypeError("planes must be a contiguous uint64 array")
    if planes.ndim != 2 or not len(planes) or len(planes) % WORD_BITS:
        raise ArgumentError(f"planes must have shape (64 h, words), got {planes.shape}")
    shape = (WORD_BITS * planes.shape[1], len(planes) // WORD_BITS)
    if out is None:
        out = np.empty(shape, np.uint64)
    if out.dtype != np.uint64 or not out.flags.c_contiguous:
        raise DtypeError("out must be a contiguous uint64 array")
    if out.shape != shape:
        raise ArgumentError(f"out must have shape {shape}, got {out.shape}")
    # 6 steps of 32 swaps of some 6 operations for each square, eight at once.
    run(_rows_of_planes, planes.shape[1], 150 * shape[1], planes, out, multiple=_LANES)
    return out


def planes_of_rows(rows: Words, count: int) -> Words:
    """Return the planes of the lowest bits of rows of one word: bit e of plane p is bit p of row e.

    Parameters
    ----------
    rows : contiguous uint64 array of shape (64 words,)
    count : int
        How many planes, at most 64.

    Returns
    -------
    uint64 array of shape (count, words)

    Raises
    ------
    DtypeError, ArgumentError
        If `rows` has another dtype, shape or order, or a word has fewer bits.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.transpose import planes_of_rows
    >>> planes_of_rows(np.arange(64, dtype=np.uint64), 2)[0, 0] == 0xAAAA_AAAA_AAAA_AAAA
    np.True_
    """
    if rows.dtype != np.uint64 or not rows.flags.c_contiguous:
        raise DtypeError("rows must be a contiguous uint64 array")
    if rows.ndim != 1 or len(rows) % WORD_BITS:
        raise ArgumentError(f"rows must have shape (64 words,), got {rows.shape}")
    if not 0 <= count <= WORD_BITS:
        raise ArgumentError(f"count must be in [0, {WORD_BITS}], got {count}")
    out = np.empty((count, len(rows) // WORD_BITS), np.uint64)
    run(_planes_of_rows, out.shape[1], 150, rows, out, multiple=_LANES)
    return out
