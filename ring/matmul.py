"""Matrix product over Z_2^64.

The inner loop keeps a tile of the result in registers, written as LLVM vectors of eight 64-bit
lanes. Such vectors are legal on every target: LLVM cuts them to the processor's vector width, and
multiplies with its instructions (one with AVX-512, three 32-bit products with AVX2).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

from ring.compile import kernel
from ring.errors import DtypeError, ShapeError
from ring.real_arrays import plain_array
from ring.threads import run
from ring.vectors import LANES, WORD, Vectors

__all__ = ["matmul", "matmul_add"]

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

TILE_ROWS = 8
# Depth of a block: a packed panel of BLOCK_DEPTH rows and LANES columns fits in a first-level cache.
BLOCK_DEPTH = 512
# With fewer rows than this, packing the right-hand side costs more than it saves.
PACKED_ROWS = 8
# With more multiplications a matrix than this, the products of a stack are made one by one.
SMALL = 1 << 17


def _tile(rows: int, vectors: int) -> Any:
    """Build the intrinsic ``out[rows, vectors * LANES] += a[rows, depth] @ b[depth, ...]``.

    Operands are arrays plus offsets and strides in words, so that one tile serves matrices that
    are packed, transposed or plain. Nothing checks bounds here.
    """

    @intrinsic
    def tile(
        typingctx: Any,
        a: Any, a_start: Any, a_row: Any, a_col: Any,
        b: Any, b_start: Any, b_row: Any,
        out: Any, out_start: Any, out_row: Any,
        depth: Any,
    ) -> Any:  # fmt: skip
        index = types.intp
        signature = types.void(
            a, index, index, index, b, index, index, out, index, index, index
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def data(position: int, start: Any) -> Any:
                array = context.make_array(signature.args[position])(
                    context, builder, args[position]
                )
                return builder.gep(array.data, [start])

            def offset(stride: Any, times: int) -> Any:
                return builder.mul(stride, ir.Constant(WORD, times))

            _, a_start, a_row, a_col, _, b_start, b_row, _, out_start, out_row, depth = args
            a_data, b_data, out_data = data(0, a_start), data(4, b_start), data(7, out_start)
            vectors_of = Vectors(builder, WORD)
            a_rows = [builder.gep(a_data, [offset(a_row, r)]) for r in range(rows)]
            sums = [
                [
                    cgutils.alloca_once_value(builder, ir.Constant(vectors_of.type, None))
                    for _ in range(vectors)
                ]
                for _ in range(rows)
            ]
            with cgutils.for_range(builder, depth, intp=WORD) as loop:
                b_line = builder.gep(b_data, [builder.mul(loop.index, b_row)])
                right = [
                    vectors_of.load(b_line, ir.Constant(WORD, v * LANES)) for v in range(vectors)
                ]
                column = builder.mul(loop.index, a_col)
                for r in range(rows):
                    left = vectors_of.broadcast(builder.load(builder.gep(a_rows[r], [column])))
                    for v in range(vectors):
                        product = builder.mul(left, right[v])
                        builder.store(builder.add(builder.load(sums[r][v]), product), sums[r][v])
            for r in range(rows):
                line = builder.gep(out_data, [offset(out_row, r)])
                for v in range(vectors):
                    at = ir.Constant(WORD, v * LANES)
                    total = builder.add(vectors_of.load(line, at), builder.load(sums[r][v]))
                    vectors_of.store(total, line, at)
            return context.get_dummy_value()

        return signature, generate

    return tile


_full_tile = _tile(TILE_ROWS, 1)
_row_tile = _tile(1, 1)
_wide_row_tile = _tile(1, 8)


@kernel
def _pack(
    start: int, stop: int, b: Words, row: int, col: int, depth: int, columns: int, panels: Words
) -> None:
    """Copy panels `start` to `stop` of b, LANES columns each, row by row; pad with zeros."""
    for panel in range(start, stop):
        left = panel * LANES
        width = min(LANES, columns - left)
        out = panels[panel * depth * LANES : (panel + 1) * depth * LANES]
        if width == LANES and col == 1:
            for k in range(depth):
                # Of constant length, so that LLVM makes one vector of it.
                line = b[k * row + left : k * row + left + LANES]
                for c in range(LANES):
                    out[k * LANES + c] = line[c]
            continue
        for c in range(width):
            column = b[(left + c) * col :]
            for k in range(depth):
                out[k * LANES + c] = column[k * row]
        for c in range(width, LANES):
            for k in range(depth):
                out[k * LANES + c] = 0


@kernel
def _multiply_packed(
    start: int, stop: int,
    a: Words, a_row: int, a_col: int,
    panels: Words, depth: int, columns: int,
    out: Words, out_row: int,
) -> None:  # fmt: skip
    """Add rows `start` to `stop` of a times the packed panels to out."""
    edge = np.zeros(TILE_ROWS * LANES, np.uint64)
    for k in range(0, depth, BLOCK_DEPTH):
        some = min(BLOCK_DEPTH, depth - k)
        for i in range(start, stop, TILE_ROWS):
            rows = min(TILE_ROWS, stop - i)
            for left in range(0, columns, LANES):
                width = min(LANES, columns - left)
                b_start = (left // LANES * depth + k) * LANES
                a_start = i * a_row + k * a_col
                if width == LANES and rows == TILE_ROWS:
                    _full_tile(
                        a,
                        a_start,
                        a_row,
                        a_col,
                        panels,
                        b_start,
                        LANES,
                        out,
                        i * out_row + left,
                        out_row,
                        some,
                    )
                    continue
                edge[:] = 0
                if rows == TILE_ROWS:
                    _full_tile(
                        a, a_start, a_row, a_col, panels, b_start, LANES, edge, 0, LANES, some
                    )
                else:
                    for r in range(rows):
                        _row_tile(
                            a,
                            a_start + r * a_row,
                            a_row,
                            a_col,
                            panels,
                            b_start,
                            LANES,
                            edge,
                            r * LANES,
                            LANES,
                            some,
                        )
                for r in range(rows):
                    for c in range(width):
                        out[(i + r) * out_row + left + c] += edge[r * LANES + c]


@kernel
def _multiply_rows(
    start: int, stop: int,
    a: Words, a_row: int, a_col: int,
    b: Words, b_row: int, depth: int, columns: int,
    out: Words, out_row: int,
) -> None:  # fmt: skip
    """Add rows `start` to `stop` of a times b to out, for b with contiguous rows, unpacked."""
    wide = 8 * LANES
    for i in range(start, stop):
        a_start, left = i * a_row, 0
        while left + wide <= columns:
            _wide_row_tile(
                a, a_start, a_row, a_col, b, left, b_row, out, i * out_row + left, out_row, depth
            )
            left += wide
        while left + LANES <= columns:
            _row_tile(
                a, a_start, a_row, a_col, b, left, b_row, out, i * out_row + left, out_row, depth
            )
            left += LANES
        for c in range(left, columns):
            total = np.uint64(0)
            for k in range(depth):
                total += a[a_start + k * a_col] * b[k * b_row + c]
            out[i * out_row + c] += total


@kernel
def _multiply_stack(
    start: int, stop: int,
    a: Words, a_starts: Indices, a_row: int, a_col: int,
    b: Words, b_starts: Indices, b_row: int,
    rows: int, depth: int, columns: int, out: Words,
) -> None:  # fmt: skip
    """Add products `start` to `stop` of a stack, whose matrices begin at `a_starts` and `b_starts`."""
    size = rows * columns
    for k in range(start, stop):
        _multiply_rows(
            0, rows, a[a_starts[k] :], a_row, a_col, b[b_starts[k] :], b_row, depth, columns,
            out[k * size : (k + 1) * size], columns,
        )  # fmt: skip


def _flat(x: Words) -> tuple[Words, int, int]:
    """View a matrix as the flat array below it and its two strides in words.

    A transposed matrix is the same memory with strides exchanged, so neither copies.
    """
    if x.flags.c_contiguous:
        return x.reshape(-1), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    return np.ascontiguousarray(x).reshape(-1), x.shape[1], 1


def _matrix(x: Words, place: tuple[int, ...]) -> Words:
    """Return the matrix of a stack that broadcasts to `place`.

    Not by np.broadcast_to, whose read-only views would have every kernel compiled again.
    """
    axes = x.shape[:-2]
    ends = place[len(place) - len(axes) :]
    found: Words = x[tuple(i if n > 1 else 0 for i, n in zip(ends, axes, strict=True))]
    return found


def _starts(x: Words, leading: tuple[int, ...]) -> Indices:
    """Return where the matrices of a contiguous stack begin that broadcasts to `leading` axes."""
    axes = x.shape[:-2]
    numbers = np.arange(prod(axes), dtype=np.int64).reshape(axes) * (x.shape[-2] * x.shape[-1])
    return np.broadcast_to(numbers, leading).reshape(-1).copy()


def _add_stack(a: Words, b: Words, out: Words) -> None:
    """Add the products of a stack of small matrices to `out`, in one kernel."""
    leading, (rows, columns), depth = out.shape[:-2], out.shape[-2:], a.shape[-1]
    turned = a.swapaxes(-1, -2)
    if not a.flags.c_contiguous and turned.flags.c_contiguous:
        held, a_row, a_col = turned, 1, rows
    else:
        held, a_row, a_col = np.ascontiguousarray(a), depth, 1
    b = np.ascontiguousarray(b)
    run(
        _multiply_stack, prod(leading), rows * depth * columns,
        held.reshape(-1), _starts(a, leading), a_row, a_col,
        b.reshape(-1), _starts(b, leading), columns,
        rows, depth, columns, out.reshape(-1),
    )  # fmt: skip


def matmul_add(a: Words, b: Words, out: Words) -> None:
    """Add the matrix product ``a @ b`` modulo 2^64 to `out`, which is contiguous.

    `a` (..., m, k) and `b` (..., k, n) may be transposed views; neither is copied whole. Leading
    axes broadcast to those of `out`.
    """
    if out.ndim > 2:
        if out.size and out.shape[-2] * out.shape[-1] * a.shape[-1] <= SMALL:
            _add_stack(a, b, out)
            return
        for place in np.ndindex(*out.shape[:-2]):
            matmul_add(_matrix(a, place), _matrix(b, place), out[place])
        return
    (m, depth), columns = a.shape, b.shape[1]
    if not m or not columns or not depth:
        return
    a_flat, a_row, a_col = _flat(a)
    b_flat, b_row, b_col = _flat(b)
    target = out.reshape(-1)
    if m < PACKED_ROWS and b_col == 1:
        run(
            _multiply_rows, m, depth * columns,
            a_flat, a_row, a_col, b_flat, b_row, depth, columns, target, columns,
        )  # fmt: skip
        return
    count = -(-columns // LANES)
    panels = np.empty(count * depth * LANES, np.uint64)
    run(_pack, count, 4 * depth * LANES, b_flat, b_row, b_col, depth, columns, panels)
    run(
        _multiply_packed, m, depth * columns // 4,
        a_flat, a_row, a_col, panels, depth, columns, target, columns,
        multiple=TILE_ROWS,
    )  # fmt: skip


def matmul(a: ArrayLike, b: ArrayLike) -> Words:
    """Matrix product modulo 2^64.

    Parameters
    ----------
    a : uint64 array of shape (..., m, k) or (k,)
    b : uint64 array of shape (..., k, n) or (k,)
        Leading axes broadcast and vectors are treated as by :func:`numpy.matmul`. Transposed
        views are read in place.

    Returns
    -------
    uint64 array of shape (..., m, n)

    Raises
    ------
    DtypeError
        If an operand is not uint64: encode floats with :func:`ring.encode`, view signed
        integers as uint64.
    ShapeError
        If the inner dimensions differ.

    Examples
    --------
    >>> import numpy as np
    >>> from ring import matmul
    >>> minus_one = np.full((1, 1), 2**64 - 1, np.uint64)
    >>> matmul(minus_one, minus_one)
    array([[1]], dtype=uint64)
    """
    a, b = plain_array(a, "a"), plain_array(b, "b")
    for name, x in (("a", a), ("b", b)):
        if x.dtype != np.uint64:
            raise DtypeError(f"{name} must be a uint64 array of ring elements, got dtype {x.dtype}")
        if x.ndim == 0:
            raise ShapeError(f"{name} must have at least one axis, got a scalar")
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(
            f"a's last axis must match b's first matrix axis, got shapes {a.shape} and {b.shape}"
        )
    try:
        leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"the leading axes of a and b must broadcast, got shapes {a.shape} and {b.shape}"
        ) from None
    out = np.zeros((*leading, left.shape[-2], right.shape[-1]), np.uint64)
    matmul_add(left, right, out)
    if a.ndim == 1:
        out = out[..., 0, :]
    return out[..., 0] if b.ndim == 1 else out
