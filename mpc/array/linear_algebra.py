"""Products of secret arrays by NumPy's names, norms, and small systems of equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc.array import shapes
from mpc.array.statistics import along, count, products_along
from mpc.core.errors import ArgumentError, DtypeError, ShapeError
from mpc.core.secret_value import check_axis
from mpc.protocols import linear, range_check, truncation
from mpc.protocols.linear import Axis, axes_of, is_shared, kept_axes

__all__ = ["A_BITS", "FUNCTIONS", "M_BITS", "inverse", "product", "shifted"]


def _operands(*arrays: Any) -> list[Any]:
    return [x if is_shared(x) else linear.public(x) for x in arrays]


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = _operands(a, b)
    try:
        if isinstance(axes, (int, np.integer)):
            left = list(range(a.ndim - int(axes), a.ndim))
            right = list(range(int(axes)))
        else:
            left, right = (
                [int(k) for k in np.atleast_1d(np.asarray(some, np.int64))] for some in axes
            )
    except (TypeError, ValueError):
        raise ArgumentError(f"axes must be a number, or two lists of axes, got {axes!r}") from None
    left = [check_axis(k, a.ndim) for k in left]
    right = [check_axis(k, b.ndim) for k in right]
    if [a.shape[k] for k in left] != [b.shape[k] for k in right]:
        raise ShapeError(f"axes must agree in size, got {a.shape} and {b.shape} along {axes!r}")
    rows = [k for k in range(a.ndim) if k not in left]
    columns = [k for k in range(b.ndim) if k not in right]
    inner = math.prod(a.shape[k] for k in left)
    shape = (*(a.shape[k] for k in rows), *(b.shape[k] for k in columns))
    flat_a = a.transpose([*rows, *left]).reshape(math.prod(a.shape[k] for k in rows), inner)
    flat_b = b.transpose([*right, *columns]).reshape(inner, math.prod(b.shape[k] for k in columns))
    return (flat_a @ flat_b).reshape(shape)


def _dot(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    if not a.ndim or not b.ndim:
        return a * b
    if a.ndim <= 2 and b.ndim <= 2:
        return a @ b
    return _tensordot(a, b, ([-1], [max(0, b.ndim - 2)]))


def _inner(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    return a * b if not a.ndim or not b.ndim else _tensordot(a, b, ([-1], [-1]))


def _outer(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    return a.reshape(-1, 1) * b.reshape(1, -1)


def _vdot(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    return a.reshape(-1) @ b.reshape(-1)


def _kron(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    axes = max(a.ndim, b.ndim)
    a = a.reshape((1,) * (axes - a.ndim) + tuple(a.shape))
    b = b.reshape((1,) * (axes - b.ndim) + tuple(b.shape))
    wide = a.reshape([n for size in a.shape for n in (size, 1)])
    wide = wide * b.reshape([n for size in b.shape for n in (1, size)])
    return wide.reshape([p * q for p, q in zip(a.shape, b.shape, strict=True)])


# Sums of products by subscripts.


def _parsed(subscripts: Any, operands: Sequence[Any]) -> tuple[list[str], str]:
    if not isinstance(subscripts, str) or "." in subscripts:
        raise ArgumentError(
            f"np.einsum of secrets takes subscripts as text, without dots, got {subscripts!r}"
        )
    ins, arrow, out = subscripts.replace(" ", "").partition("->")
    labels = ins.split(",")
    every = "".join(labels)
    if not arrow:
        out = "".join(sorted(c for c in set(every) if every.count(c) == 1))
    if (
        not all(c.isalpha() for c in every + out)
        or len(set(out)) < len(out)
        or set(out) - set(every)
    ):
        raise ArgumentError(f"subscripts must name axes by letters, got {subscripts!r}")
    if [len(some) for some in labels] != [len(x.shape) for x in operands]:
        raise ShapeError(
            f"subscripts {subscripts!r} do not fit the shapes {[x.shape for x in operands]}"
        )
    sizes: dict[str, int] = {}
    for some, x in zip(labels, operands, strict=True):
        for label, size in zip(some, x.shape, strict=True):
            if sizes.setdefault(label, size) != size:
                raise ShapeError(f"axis {label} has two sizes, {sizes[label]} and {size}")
    return labels, out


def _reduced(x: Any, labels: str, needed: set[str]) -> tuple[Any, str]:
    """Take the diagonals of repeated labels, and sum what nobody else needs."""
    once = "".join(dict.fromkeys(labels))
    if once != labels:
        pick = f"{labels}->{once}"
        x = (
            shapes.rearranged(x, "einsum", lambda n: np.einsum(pick, n))
            if is_shared(x)
            else np.einsum(pick, x)
        )
    gone = tuple(k for k, label in enumerate(once) if label not in needed)
    if gone:
        x = x.sum(axis=gone)
    return x, "".join(label for label in once if label in needed)


def _contracted(a: Any, left: str, b: Any, right: str, needed: set[str]) -> tuple[Any, str]:
    """Multiply two operands, and sum the labels of both that nobody needs afterwards."""
    both = [c for c in left if c in right]
    batch, summed = [c for c in both if c in needed], [c for c in both if c not in needed]
    rows = [c for c in left if c not in both]
    columns = [c for c in right if c not in both]
    sizes = dict(zip(left + right, (*a.shape, *b.shape), strict=True))

    def arranged(x: Any, labels: str, *groups: Sequence[str]) -> Any:
        moved = x.transpose([labels.index(c) for group in groups for c in group])
        joined = [int(np.prod([sizes[c] for c in group])) for group in groups[1:]]
        return moved.reshape([*(sizes[c] for c in batch), *joined])

    one = arranged(a, left, batch, rows, summed)
    other = arranged(b, right, batch, summed, columns)
    found = one @ other if summed else one * other
    names = [*batch, *rows, *columns]
    return found.reshape([sizes[c] for c in names]), "".join(names)


def _einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Any:
    arrays = _operands(*operands)
    labels, out = _parsed(subscripts, arrays)
    pending = list(zip(arrays, labels, strict=True))
    while True:
        for k, (x, some) in enumerate(pending):
            others = set(out).union(*(names for j, (_, names) in enumerate(pending) if j != k))
            pending[k] = _reduced(x, some, others)
        if len(pending) == 1:
            break
        (a, left), (b, right), *rest = pending
        needed = set(out).union(*(names for _, names in rest))
        pending = [_contracted(a, left, b, right, needed), *rest]
    ((x, some),) = pending
    return x.transpose([some.index(c) for c in out]) if out else x


# Norms.


def _norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    axes = axes_of(x, axis)
    matrix = len(axes) == 2 and ord is not None
    if ord in (None, "fro") or (ord == 2 and len(axes) == 1):
        if ord == "fro" and len(axes) != 2:
            raise ArgumentError(f"the norm 'fro' is of matrices, got axes {axes}")
        rows = along(x, axis)
        with range_check.Later(x.session):
            return kept_axes(products_along(rows, rows).sqrt(), x, axis, keepdims)
    if not 1 <= len(axes) <= 2 or ord not in (0, 1, np.inf, -np.inf) or (matrix and ord == 0):
        raise ArgumentError(
            f"np.linalg.norm of a secret has ord None, 2, 1, 0, inf and -inf of vectors, and 'fro', 1"
            f" and inf of matrices, got ord={ord!r} along {len(axes)} axes"
        )
    if matrix:
        inner, outer = (axes[0], axes[1]) if ord == 1 else (axes[1], axes[0])
        sums = abs(x).sum(inner, keepdims=True)
        found = sums.max(outer) if ord > 0 else sums.min(outer)
        return kept_axes(
            found.reshape([n for k, n in enumerate(x.shape) if k not in axes]), x, axis, keepdims
        )
    if ord == 0:
        return kept_axes(count(x, axis), x, axis, keepdims)
    size = abs(x)
    if ord == 1:
        return size.sum(axis, keepdims=keepdims)
    return size.max(axis, keepdims=keepdims) if ord > 0 else size.min(axis, keepdims=keepdims)


# Inverses, on whole numbers (`frac_bits` 0); how many bits are behind the point is known to the code.

A_BITS, M_BITS = 34, 16
"""Bits behind the point of a matrix that is inverted, and of its inverse."""
# Of A M, of 2 c - c^2 A M, and of c^2.
_T_BITS, _G_BITS, _C_BITS = 24, 26, 2
# The least eigenvalue of A M at which M is near enough to an inverse.
_NEAR = 0.97


def shifted(x: Any, bits: int) -> Any:
    """Return x / 2^bits, rounded, or x * 2^-bits."""
    if bits <= 0:
        return linear.multiply_integers(x, np.array(1 << -bits))
    return truncation.divide_by_power(x, bits, 0)


def product(x: Any, y: Any, bits: int, bound: int) -> Any:
    """Return x @ y / 2^bits, rounded, of which the caller knows the bound before rounding."""
    found = x @ y
    return (
        shifted(linear.placed(found, 0, bound), bits) if bits else found.with_integer_bound(bound)
    )


def inverse(a: Any, floor: float, top: float) -> Any:
    """Return the inverse of a + floor with M_BITS, for a matrix with A_BITS and eigenvalues of 0 to top.

    By Newton's iteration M (2 c - c^2 A M), with c = 2 / (least + largest eigenvalue of A M), which takes
    the least one times 4 each time. All c are public, and so is the number of steps, of 4 rounds each. A
    matrix without an inverse is no danger: where its least eigenvalue is zero M has 1 / floor.

    Source: Newton 1933 as Schulz has it, scaled by the known interval of the eigenvalues (Pan, Schreiber
    1991, section 4).
    """
    size = len(a)
    identity = np.eye(size, dtype=np.int64)
    a = a + identity * round(math.ldexp(floor, A_BITS))
    # The first step from a multiple of the identity is public: 2 c - c^2 A.
    c = 2 / (floor + top + floor)
    square = int(math.ldexp(c * c, _G_BITS))
    m = shifted(linear.multiply_integers(a, np.array(-square)), A_BITS + _G_BITS - M_BITS)
    m = m + identity * round(math.ldexp(2 * c, M_BITS))
    least = c * floor * (2 - c * floor)
    reach = 1 << M_BITS + math.ceil(-math.log2(floor)) + 1
    while least < _NEAR:
        best = 2 / (1 + least)
        square = int(math.ldexp(best * best, _C_BITS))
        c = math.sqrt(math.ldexp(square, -_C_BITS))
        m = m.with_integer_bound(reach)
        t = product(a, m, A_BITS + M_BITS - _T_BITS, 1 << A_BITS + M_BITS + 2)
        g = linear.multiply_integers(t, np.array(-square))
        g = g + identity * round(math.ldexp(2 * c, _G_BITS))
        m = product(m, g, _G_BITS, reach << _G_BITS)
        ends = [x * c * (2 - x * c) for x in (least, 1.0)]
        least = min(ends)
    return m


# Systems of equations.

LARGEST_SYSTEM = 16
# What a correction gains in places behind the point.
_MORE_BITS = 8
_REFINEMENTS = 2
# What is added to the scaled matrix.
_FLOOR = 2.0**-18
_RESIDUAL = 2.0**-6


def _solve(a: Any, b: Any) -> Any:
    a, b = _operands(a, b)
    if len(a.shape) != 2 or a.shape[0] != a.shape[1] or len(b.shape) not in (1, 2):
        raise ShapeError(
            f"solve takes a square matrix and a vector or matrix, got {a.shape}, {b.shape}"
        )
    if not 1 <= len(a) <= LARGEST_SYSTEM or b.shape[0] != len(a):
        raise ShapeError(
            f"solve takes at most {LARGEST_SYSTEM} equations, and as many rows of b, got {a.shape} and"
            f" {b.shape}"
        )
    if not is_shared(a):
        raise DtypeError("of a public matrix, multiply by np.linalg.inv(a)")
    right = b if len(b.shape) == 2 else b.reshape(-1, 1)
    a = a.truncate()
    policy = a.session.range_policy
    scale = shapes.FUNCTIONS[np.diagonal](a).power(-0.5).truncate().reshape(-1, 1)
    # Of a positive definite matrix the scaled one has a diagonal of about 1, and eigenvalues from 0 to its
    # size. Where it is not, the residual says so.
    with policy.vouched():
        scaled = (scale * a).truncate() * scale.T
        whole = linear.placed(scaled, 0, 1 << scaled.frac_bits + 1)
        found = inverse(shifted(whole, scaled.frac_bits - A_BITS), _FLOOR, 1.1 * len(a))
        near = linear.placed(found, M_BITS, found.bound)

    def approximate(v: Any) -> Any:
        return (scale * (near @ (scale * v).truncate()).truncate()).truncate()

    with policy.vouched():
        x = approximate(right)
    for _ in range(_REFINEMENTS):
        rest = right - a @ x
        with policy.vouched():
            more = linear.multiply_integers(rest, np.array(1 << _MORE_BITS)).truncate()
            step = approximate(more)
            x = (x + linear.placed(step, step.frac_bits + _MORE_BITS, step.bound)).truncate()
    left = (scale * (right - a @ x).truncate()).truncate()
    limit = int(_RESIDUAL * (1 << left.frac_bits))
    policy.settle_bound(left, limit, f"solve: the residual is at most {_RESIDUAL:g}")
    return x.reshape(b.shape)


def _inv(a: Any) -> Any:
    return _solve(a, np.eye(len(a)))


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.dot: _dot,
    np.vdot: _vdot,
    np.inner: _inner,
    np.outer: _outer,
    np.tensordot: _tensordot,
    np.einsum: _einsum,
    np.kron: _kron,
    np.linalg.norm: _norm,
    np.linalg.solve: _solve,
    np.linalg.inv: _inv,
}
