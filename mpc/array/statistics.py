"""Statistics of secret arrays: sums, means, spreads, and counts by public edges.

Sums of squares and of products are taken in pieces of :data:`PIECE` rows, each with twice the format's
fractional bits; a piece must stay below 2^(62 - 2 f), 2^30 in the default format, or the range policy
refuses it. Quantiles are in :mod:`mpc.array.sorting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.array import shapes
from mpc.core.errors import ArgumentError, DtypeError, RangeError, ShapeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import check_axis
from mpc.protocols import linear, product, range_check, scaling, thresholds, truncation
from mpc.protocols.linear import Axis, axes_of, is_shared, kept_axes
from ring.real_arrays import real_array

__all__ = ["FUNCTIONS", "PIECE", "along", "products_along", "variance"]

PIECE = 1024
"""Rows of which products are added up before they are truncated."""


def along(x: Any, axis: Axis) -> Any:
    """Return x with the axes to be reduced joined into one, the last."""
    axes = axes_of(x, axis)
    left = [a for a in range(x.ndim) if a not in axes]
    moved = x.transpose([*left, *axes]) if x.ndim else x
    count = math.prod(x.shape[a] for a in axes)
    return moved.reshape((*(x.shape[a] for a in left), count))


def inner(a: Any, b: Any) -> Any:
    """Return a @ b for matrices (..., k, n) and (..., n, l), in pieces of n."""
    count = a.shape[-1]
    if count <= PIECE:
        return product.matmul(a, b)
    total = None
    for start in range(0, count, PIECE):
        some = slice(start, start + PIECE)
        part = product.matmul(a[..., some], b[..., some, :])
        total = part if total is None else linear.concatenate([total, part[None]], 0)
        if total is part:
            total = part[None]
    assert total is not None
    return total.truncate().sum(0)


def products_along(a: Any, b: Any) -> Any:
    """Return the sums of products along the last axis of two arrays of one shape."""
    return inner(a.reshape((*a.shape[:-1], 1, a.shape[-1])), b.reshape((*b.shape, 1))).reshape(
        a.shape[:-1]
    )


def centred(x: Any, axis: Axis) -> Any:
    """Return the deviations from the mean, with the axes to be reduced joined into one, the last.

    Values and mean are rounded to the format first: a mean that is off shifts all deviations alike, which
    the sums of products hardly show; deviations that are rounded one by one would be.
    """
    rows = truncation.to_format(along(x, axis))
    return rows - rows.mean(-1, keepdims=True).truncate()


def variance(x: Any, axis: Axis, ddof: float, keepdims: bool) -> Any:
    """Return the mean of squared deviations."""
    count = math.prod(x.shape[a] for a in axes_of(x, axis))
    if is_shared(ddof) or not count - ddof > 0:
        raise ArgumentError(f"var needs more than ddof elements, got {count} and ddof={ddof}")
    d = centred(x, axis)
    with range_check.Later(x.session):
        found = scaling.divide(products_along(d, d), count - ddof, "var")
    return kept_axes(found, x, axis, keepdims)


def _weighted(rows: Any, weights: Any) -> Any:
    """Return the sums of public multiples along the last axis, rounded once for each piece."""
    rows = truncation.to_format(rows)
    # Sums of values near the ring's limit are right to the last place for fewer of them.
    pieces = -(-rows.shape[-1] // (PIECE if rows.bound < LARGEST >> 8 else PIECE // 4))
    if pieces > 1:
        some = -(-rows.shape[-1] // pieces)
        missing = pieces * some - rows.shape[-1]
        rows, weights = (
            np.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, missing)]).reshape(
                (*v.shape[:-1], pieces, some)
            )
            for v in (rows, weights)
        )
    found = scaling.weighted_sum(rows, weights)
    return found.sum(-1) if pieces > 1 else found


def _average(
    a: Any, axis: Axis = None, weights: Any = None, returned: bool = False, keepdims: bool = False
) -> Any:
    if not is_shared(a):
        a = linear.public(a)
    axes = axes_of(a, axis)
    if weights is None:
        result = a.mean(axis, keepdims=keepdims)
        number = float(math.prod(a.shape[k] for k in axes))
        return (result, np.full(result.shape, number)) if returned else result
    weights = weights if is_shared(weights) else real_array(weights, "weights").astype(np.float64)
    if weights.shape != a.shape:
        if axis is None or weights.shape != tuple(a.shape[k] for k in axes):
            raise ShapeError(
                f"weights must have the shape of a, or that of its axes {axis}, got {weights.shape}"
            )
        order = np.argsort(axes)
        sizes = [a.shape[k] if k in axes else 1 for k in range(a.ndim)]
        weights = np.transpose(weights, order.tolist()).reshape(sizes)
        weights = np.broadcast_to(weights, a.shape)
    if not is_shared(weights):
        total = weights.sum(axis=axes, keepdims=True)
        if not np.all(total):
            raise ArgumentError("weights must not sum to zero")
        result = _weighted(along(a, axis), along(weights / total, axis))
        total = total.reshape(result.shape)
    else:
        if not is_shared(a):
            zeros = np.zeros((len(weights.session.here), *a.shape), np.uint64)
            a = linear.add_public(weights.derive(zeros, frac_bits=0, bound=0), a)
        with range_check.Later(weights.session):
            total = weights.sum(axis)
            if weights.bit is not None:
                # Selected by the bits, which have masks already.
                top = (a * weights).sum(axis)
            else:
                top = products_along(along(a, axis), along(weights, axis))
            result = top / total
    result = kept_axes(result, a, axis, keepdims)
    return (result, kept_axes(total, a, axis, keepdims)) if returned else result


def _variables(m: Any, y: Any, rowvar: bool) -> Any:
    if not is_shared(m):
        raise DtypeError("the first argument must be secret where the second is")
    if m.ndim > 2:
        raise ShapeError(f"variables must have at most two axes, got shape {m.shape}")
    rows = m.reshape(1, -1) if m.ndim < 2 else (m if rowvar else m.T)
    if y is None:
        return rows
    other = y if is_shared(y) else linear.public(y)
    other = other.reshape(1, -1) if other.ndim < 2 else (other if rowvar else other.T)
    return np.concatenate([rows, other])


def _cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: float | None = None
) -> Any:
    rows = _variables(m, y, rowvar)
    count = rows.shape[1]
    less = ddof if ddof is not None else (0 if bias else 1)
    if not count - less > 0:
        raise ArgumentError(f"cov needs more than ddof observations, got {count} and ddof={less}")
    d = centred(rows, 1)
    with range_check.Later(rows.session):
        found = scaling.divide(inner(d, d.T), count - less, "cov")
    return found.reshape(()) if len(rows) == 1 else found


def _corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    rows = _variables(x, y, rowvar)
    if rows.shape[1] < 2:
        raise ArgumentError(f"corrcoef needs at least 2 observations, got {rows.shape[1]}")
    with range_check.Later(rows.session):
        covariance = _cov(rows, ddof=0).reshape(len(rows), len(rows))
        deviations = shapes.FUNCTIONS[np.diagonal](covariance).sqrt()
        spread = deviations.reshape(-1, 1) * deviations
        found = covariance / spread
    return found.reshape(()) if len(rows) == 1 else found


def cumulated(x: Any, axis: int | None = None) -> Any:
    """Sum up to each element: local."""
    x = x.ravel() if axis is None else x
    place = check_axis(0 if axis is None else axis, x.ndim)

    def up_to(v: Any, one: Any) -> Any:
        if is_shared(v):
            words = v.shares.cumsum(axis=place + 1, dtype=np.uint64)
            bound = max(1, v.shape[place]) * v.bound
            return v.derive(words, frac_bits=v.frac_bits, bound=bound, origins=(v,))
        return v.cumsum(axis=place) * one

    count = x.shape[place]
    one = np.ones((), np.int64)
    bound = linear.settled(
        x, "cumsum", x.bound * max(1, count), x.frac_bits, (x, one), up_to, max(1, count),
        lambda: (range_check.bilinear(x, one, up_to, max(1, count)),),
    )  # fmt: skip
    words = x.shares.cumsum(axis=place + 1, dtype=np.uint64)
    return x.derive(words, frac_bits=x.frac_bits, bound=bound, origins=(x,))


def multiplied(x: Any, axis: Axis = None) -> Any:
    """Multiply along an axis, in pairs."""
    rows = along(x, axis)
    if not rows.shape[-1]:
        return rows.sum(-1) + 1
    while rows.shape[-1] > 1:
        pairs = rows.shape[-1] // 2
        most = product.multiply(rows[..., :pairs], rows[..., pairs : 2 * pairs])
        most = most.truncate()
        odd = rows[..., 2 * pairs :]
        rows = linear.concatenate([most, odd], -1) if odd.shape[-1] else most
    return rows[..., 0]


def _cumprod(a: Any, axis: int | None = None) -> Any:
    x = a.ravel() if axis is None else a
    place = check_axis(0 if axis is None else axis, x.ndim)
    rows = np.moveaxis(x, place, -1)
    step = 1
    while step < rows.shape[-1]:
        later = product.multiply(rows[..., step:], rows[..., :-step]).truncate()
        rows = linear.concatenate([rows[..., :step].truncate(), later], -1)
        step *= 2
    return np.moveaxis(rows, -1, place)


def _diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ArgumentError(f"n must be a whole number of at least 0, got {n!r}")
    place = check_axis(axis, a.ndim)
    before = (slice(None),) * place
    if n and not (prepend is None and append is None):
        one = (*a.shape[:place], 1, *a.shape[place + 1 :])
        ends = [
            np.broadcast_to(end, one) if end is not None and not np.ndim(end) else end
            for end in (prepend, append)
        ]
        parts = [part for part in (ends[0], a, ends[1]) if part is not None]
        a = np.concatenate(parts, axis=place)
    for _ in range(n):
        a = a[(*before, slice(1, None))] - a[(*before, slice(None, -1))]
    return a


def _ediff1d(ary: Any) -> Any:
    return _diff(ary.ravel())


# Counts.


def nonzero_bits(x: Any) -> Any:
    """Return [x != 0]."""
    return x if x.binary else x != 0


def count(x: Any, axis: Axis = None) -> Any:
    """Count the elements that are not zero."""
    return nonzero_bits(x).sum(axis)


def _encoded_edges(x: Any, edges: Any, last_inside: bool) -> list[int]:
    """Return thresholds t with X < t where x < edge; for the last edge where x <= edge, if asked."""
    found = []
    for number, edge in enumerate(edges):
        exact = Fraction(edge.item()) * (1 << x.frac_bits)
        inside = last_inside and number == len(edges) - 1
        place = math.floor(exact) + 1 if inside else math.ceil(exact)
        found.append(max(-x.bound, min(x.bound + 1, place)))
    return found


def _edges(bins: Any, name: str) -> Any:
    edges = real_array(bins, name)
    if edges.dtype.kind == "f":
        edges = edges.astype(np.float64)
    # Whole numbers stay what they are: doubles have no room for those beyond 2^53.
    rises = edges.ndim == 1 and not np.any(edges[1:] < edges[:-1])
    if not rises or not np.all(np.isfinite(edges)):
        raise ArgumentError(f"{name} must be finite, and rise along one axis")
    return edges


def _below(x: Any, places: list[int], reduce: Callable[[Any], Any]) -> Any:
    """Return reduce(numbers [X < t] of shape (p, edges, elements)), in parts, added or joined."""
    session = x.session
    each = 48 * max(1, len(places)) * (session.size + 1)
    some = max(64, session.memory_limit // each)
    flat = x.reshape(-1)
    return [
        reduce(thresholds.below(flat[k : k + some], places)) for k in range(0, max(1, x.size), some)
    ]


def _histogram(
    a: Any, bins: Any = 10, range: Any = None, density: bool = False, weights: Any = None
) -> Any:
    if not is_shared(a):
        raise DtypeError("np.histogram of public values takes public weights alone")
    if is_shared(bins) or is_shared(range) or is_shared(weights):
        raise DtypeError(
            "np.histogram of a secret takes public bins and range, and no secret weights"
        )
    if isinstance(bins, str):
        raise ArgumentError(
            f"bins of a secret are a number or edges, got {bins!r}, for which one would read it"
        )
    if np.ndim(bins) == 0:
        if range is None:
            raise ArgumentError(
                "np.histogram of a secret needs range=(low, high), or bins as edges: its own range is"
                " secret"
            )
        low, high = (float(value) for value in range)
        number = int(bins)
        if number != bins or number < 1 or not low < high or not np.isfinite([low, high]).all():
            raise ArgumentError(f"bins and range must be sound, got {bins!r} and {range!r}")
        edges = np.linspace(low, high, number + 1)
    else:
        edges = _edges(bins, "bins")
    if len(edges) < 2:
        raise ArgumentError(f"bins need at least two edges, got {len(edges)}")
    if weights is not None and np.shape(weights) != a.shape:
        raise ShapeError(f"weights must have the shape {a.shape}, got {np.shape(weights)}")
    places = _encoded_edges(a, edges, True)
    with a.session.protocol("histogram"):
        if weights is None:
            parts = _below(a, places, lambda numbers: numbers.sum(axis=2, dtype=np.uint64))
            words = sum(parts[1:], parts[0])
            counts = a.derive(words[:, 1:] - words[:, :-1], frac_bits=0, bound=a.size)
        else:
            words = np.concatenate(_below(a, places, lambda numbers: numbers), axis=2)
            inside = a.derive(words[:, 1:] - words[:, :-1], frac_bits=0, bound=1)
            counts = inside @ linear.public(weights).reshape(-1)
    if density:
        if weights is not None:
            raise ArgumentError("density=True takes no weights on a SharedArray")
        # Elements outside of the edges do not count.
        counts = counts / counts.sum()
        counts = counts / np.diff(edges)
    return counts, edges


def _digitize(x: Any, bins: Any, right: bool = False) -> Any:
    if is_shared(bins) or not is_shared(x):
        raise DtypeError("np.digitize takes a secret x and public bins")
    given = real_array(bins, "bins")
    if given.ndim == 1 and len(given) > 1 and given[0] > given[-1]:
        return len(given) - _digitize(x, given[::-1], right)
    edges = _edges(given, "bins")
    exact = [Fraction(edge.item()) * (1 << x.frac_bits) for edge in edges]
    found = [math.floor(t) + 1 if right else math.ceil(t) for t in exact]
    places = [max(-x.bound, min(x.bound + 1, t)) for t in found]
    if not places or not x.size:
        return linear.zeros_like(x)
    with x.session.protocol("histogram"):
        words = np.concatenate(
            _below(x, places, lambda numbers: numbers.sum(axis=1, dtype=np.uint64)), axis=1
        )
    below = x.derive(words.reshape(len(words), *x.shape), frac_bits=0, bound=len(places))
    return (len(places) - below).with_integer_bound(len(places))


def _searchsorted(a: Any, v: Any, side: str = "left") -> Any:
    if side not in ("left", "right"):
        raise ArgumentError(f"side must be left or right, got {side!r}")
    return _digitize(v, a, right=side == "left")


def _isclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08) -> Any:
    """|a - b| <= atol + rtol |b|, the right side rounded to the format."""
    if is_shared(rtol) or is_shared(atol):
        raise DtypeError("rtol and atol must be public")
    size = abs(b) if is_shared(b) else np.abs(linear.public(b))
    distance = abs(a - b)
    if not rtol:
        return distance <= atol
    return distance <= size * rtol + atol


def _allclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08) -> Any:
    return _isclose(a, b, rtol, atol).all()


def _array_equal(a1: Any, a2: Any) -> Any:
    if np.shape(a1) != np.shape(a2):
        return False
    return (a1 == a2).all() if is_shared(a1) else (a2 == a1).all()


def check_fraction(value: Any, name: str) -> Any:
    """Return public numbers from 0 to 1."""
    if is_shared(value):
        raise DtypeError(f"{name} must be public")
    found = real_array(value, name).astype(np.float64)
    if not np.all((found >= 0) & (found <= 1)):
        raise RangeError(f"{name} must be from 0 to 1, got {value!r}")
    return found


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.sum: lambda a, axis=None, keepdims=False: a.sum(axis, keepdims=keepdims),
    np.mean: lambda a, axis=None, keepdims=False: a.mean(axis, keepdims=keepdims),
    np.max: lambda a, axis=None, keepdims=False: a.max(axis, keepdims=keepdims),
    np.min: lambda a, axis=None, keepdims=False: a.min(axis, keepdims=keepdims),
    np.amax: lambda a, axis=None, keepdims=False: a.max(axis, keepdims=keepdims),
    np.amin: lambda a, axis=None, keepdims=False: a.min(axis, keepdims=keepdims),
    np.ptp: lambda a, axis=None, keepdims=False: a.ptp(axis, keepdims=keepdims),
    np.argmax: lambda a, axis=None, keepdims=False: a.argmax(axis, keepdims=keepdims),
    np.argmin: lambda a, axis=None, keepdims=False: a.argmin(axis, keepdims=keepdims),
    np.var: lambda a, axis=None, ddof=0, keepdims=False: a.var(axis, ddof=ddof, keepdims=keepdims),
    np.std: lambda a, axis=None, ddof=0, keepdims=False: a.std(axis, ddof=ddof, keepdims=keepdims),
    np.average: _average,
    np.cov: _cov,
    np.corrcoef: _corrcoef,
    np.prod: lambda a, axis=None, keepdims=False: a.prod(axis, keepdims=keepdims),
    np.cumsum: lambda a, axis=None: a.cumsum(axis),
    np.cumprod: _cumprod,
    np.diff: _diff,
    np.ediff1d: _ediff1d,
    np.any: lambda a, axis=None, keepdims=False: a.any(axis, keepdims=keepdims),
    np.all: lambda a, axis=None, keepdims=False: a.all(axis, keepdims=keepdims),
    np.count_nonzero: lambda a, axis=None, *, keepdims=False: kept_axes(
        count(a, axis), a, axis, keepdims
    ),
    np.histogram: _histogram,
    np.digitize: _digitize,
    np.searchsorted: _searchsorted,
    np.isclose: _isclose,
    np.allclose: _allclose,
    np.array_equal: _array_equal,
}  # fmt: skip
