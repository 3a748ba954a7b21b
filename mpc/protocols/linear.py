"""What costs nothing: sums, public factors, and views of shared arrays.

[x] + [y], -[x] and m [x] for a public m are computed share by share; a public value is added by the
first party alone. Arrays with fewer fractional bits are shifted to those with more, if their bound
leaves room for it: a product is truncated before a large whole number is added. Dividing by a
public number takes a truncation: 1 round, 8 (n - 1) bytes an element, correction 10 bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation, View, apply_views
from mpc.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.protocols import truncation
from ring import encode
from ring.matmul import matmul_add
from ring.real_arrays import real_array

if TYPE_CHECKING:
    from mpc.shared_array import Operand, SharedArray

__all__ = [
    "add",
    "add_integer",
    "add_public",
    "at_bits",
    "check_axis",
    "check_operands",
    "concatenate",
    "divide_public",
    "is_shared",
    "is_zero",
    "matmul_public",
    "multiply_public",
    "negative",
    "rescale",
    "stack",
    "subtract",
    "sum_along",
    "view",
    "zeros_like",
]

Words = NDArray[np.uint64]


def is_shared(x: object) -> TypeGuard[SharedArray]:
    """Whether x is a SharedArray."""
    return hasattr(x, "with_integer_bound")


def is_zero(x: Any) -> bool:
    """Whether x is the public number zero."""
    return not is_shared(x) and np.ndim(x) == 0 and bool(np.all(np.asarray(x) == 0))


def public(x: object) -> NDArray[Any]:
    """Return a public operand as an array of floats or int64, or raise DtypeError."""
    values = real_array(x, "a public operand")
    if values.dtype.kind == "f":
        return values
    # Signed and wide: small and unsigned integers wrap around when they are negated.
    if values.dtype == np.uint64 and values.max(initial=0) >= 1 << 63:
        raise RangeError(f"the public operand must be below 2^63, got {values.max()}")
    return values.astype(np.int64, copy=False)


def _widen(shares: Words, ndim: int) -> Words:
    """Insert axes behind the party axis, so that shares broadcast like the arrays they stand for."""
    missing = ndim - (shares.ndim - 1)
    return (
        shares.reshape(len(shares), *(1,) * missing, *shares.shape[1:]) if missing > 0 else shares
    )


def at_bits(x: SharedArray, frac_bits: int) -> SharedArray:
    """Return x with `frac_bits` fractional bits, of which it has no more yet."""
    steps = frac_bits - x.frac_bits
    if steps == 0:
        return x
    return x.derive(x.shares << np.uint64(steps), frac_bits=frac_bits, bound=x.bound << steps)


def _level(arrays: Sequence[SharedArray]) -> list[SharedArray]:
    """Shift all arrays up to the most fractional bits among them.

    A large whole number has no room for the bits of a product: then products are truncated first,
    for 1 round.
    """
    most = max(x.frac_bits for x in arrays)
    if any(x.bound << (most - x.frac_bits) > 1 << truncation.OFFSET_BITS for x in arrays):
        arrays = [truncation.to_format(x) for x in arrays]
        most = max(x.frac_bits for x in arrays)
    return [at_bits(x, most) for x in arrays]


def rescale(x: SharedArray, factor: int, frac_bits: int, bound: int) -> SharedArray:
    """Multiply the encoded value by an integer and place the point anew (for protocols)."""
    return x.derive(x.shares * np.uint64(factor % 2**64), frac_bits=frac_bits, bound=bound)


def add_integer(x: SharedArray, value: int) -> SharedArray:
    """Add an integer to the encoded value (for protocols)."""
    shares = x.shares.copy()
    if x.session.first_row is not None:
        shares[x.session.first_row] += np.uint64(value % 2**64)
    return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound + abs(value))


def _broadcast(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"operands of {name} must broadcast, got shapes {' and '.join(map(str, shapes))}"
        ) from None


def _apart(x: SharedArray, shape: tuple[int, ...]) -> tuple[SharedArray, Correlation | None]:
    """Return x and the term that its shares lack apart, if the sum has the shape of x."""
    return x.apart() if x.shape == shape else (x, None)


def add(x: SharedArray, y: Operand) -> SharedArray:
    """x + y."""
    if not is_shared(y):
        return add_public(x, y)
    shape = _broadcast("+", x.shape, y.shape)
    x, y = _level([x, y])
    x, term = _apart(x, shape)
    if term is None:
        y, term = _apart(y, shape)
    shares = _widen(x.shares, len(shape)) + _widen(y.shares, len(shape))
    return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound + y.bound, term=term)


def _encode(values: NDArray[Any], frac_bits: int) -> tuple[Words, int]:
    """Encode public values; return also their largest magnitude."""
    encoded = encode(values, frac_bits, int_bits=61 - frac_bits, name="the public operand")
    return encoded, int(np.abs(encoded.view(np.int64)).max(initial=0))


def add_public(x: SharedArray, y: object) -> SharedArray:
    """x + y for public y, which is rounded to the fractional bits of x."""
    values = public(y)
    if values.dtype.kind == "f" and x.frac_bits < x.session.format.frac_bits:
        x = at_bits(x, x.session.format.frac_bits)
    shape = _broadcast("+", x.shape, values.shape)
    encoded, largest = _encode(values, x.frac_bits)
    x, term = _apart(x, shape)
    shares = np.broadcast_to(_widen(x.shares, len(shape)), (len(x.shares), *shape)).copy()
    if x.session.first_row is not None:
        shares[x.session.first_row] += encoded
    return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound + largest, term=term)


def check_operands(name: str, x: SharedArray, y: Operand) -> None:
    """Raise what combining x and y in the session's format would raise, before a round is spent."""
    if is_shared(y):
        _broadcast(name, x.shape, y.shape)
        return
    values = public(y)
    _broadcast(name, x.shape, values.shape)
    most = x.session.format.frac_bits
    _encode(values, most if values.dtype.kind == "f" else min(x.frac_bits, most))


def negative(x: Operand) -> Any:
    """Return -x, for a shared or a public x."""
    if not is_shared(x):
        return -public(x)
    return x.derive(-x.shares, frac_bits=x.frac_bits, bound=x.bound)


def subtract(x: SharedArray, y: Operand) -> SharedArray:
    """x - y."""
    return add(x, negative(y))


def multiply_public(x: SharedArray, y: object) -> SharedArray:
    """x * y for public y: floats bring the format's fractional bits, integers none."""
    values = public(y)
    shape = _broadcast("*", x.shape, values.shape)
    more = x.session.format.frac_bits if values.dtype.kind == "f" else 0
    encoded, largest = _encode(values, more)
    if values.dtype.kind == "f":
        x = truncation.to_format(x)
    shares = _widen(x.shares, len(shape)) * encoded
    return x.derive(shares, frac_bits=x.frac_bits + more, bound=x.bound * largest)


def matmul_public(x: SharedArray, y: object, *, reverse: bool = False) -> SharedArray:
    """x @ y for public y, or y @ x if `reverse`; operands of at least two axes."""
    values = public(y)
    left, right = (values.shape, x.shape) if reverse else (x.shape, values.shape)
    if left[-1] != right[-2]:
        raise ShapeError(
            f"operands of @ must agree in the inner dimension, got shapes {left} and {right}"
        )
    shape = (*_broadcast("@", left[:-2], right[:-2]), left[-2], right[-1])
    more = x.session.format.frac_bits if values.dtype.kind == "f" else 0
    encoded, _ = _encode(values, more)
    if values.dtype.kind == "f":
        x = truncation.to_format(x)
    magnitudes = np.abs(encoded.view(np.int64)).astype(np.float64)
    largest = int(np.ceil(magnitudes.sum(axis=-1 if reverse else -2).max(initial=0.0)))
    shares = np.zeros((len(x.shares), *shape), np.uint64)
    for share, out in zip(x.shares, shares, strict=True):
        if reverse:
            matmul_add(encoded, share, out)
        else:
            matmul_add(share, encoded, out)
    return x.derive(shares, frac_bits=x.frac_bits + more, bound=x.bound * largest)


def inverse(divisor: float, bound: int) -> tuple[int, int]:
    """Return a factor and k with 1 / divisor = factor / 2^k, as exact as values up to `bound` allow."""
    k = min(
        truncation.OFFSET_BITS - 1,
        truncation.OFFSET_BITS - bound.bit_length() + int(np.log2(abs(divisor))) - 1,
    )
    if k < 1:
        raise RangeError(
            f"x / {divisor} can leave the ring: x has a bound of {bound.bit_length()} bits"
        )
    factor = round(2**k / divisor)
    while factor and factor % 2 == 0 and k > 1:
        factor, k = factor // 2, k - 1
    return factor, k


def divide_public(x: SharedArray, y: object) -> SharedArray:
    """x / y for a public number y, as exact as the headroom of the ring allows."""
    values = public(y)
    if values.ndim:
        raise ShapeError(
            f"a divisor must be one public number, got shape {values.shape}; multiply by its reciprocal"
        )
    divisor = float(values)
    if divisor == 0 or not np.isfinite(divisor):
        raise ArgumentError(f"a divisor must be finite and not zero, got {values}")
    x = truncation.to_format(x)
    if x.frac_bits < x.session.format.frac_bits:
        x = at_bits(x, x.session.format.frac_bits)
    factor, k = inverse(divisor, x.bound)
    scaled = x.derive(
        x.shares * np.uint64(factor % 2**64), frac_bits=x.frac_bits, bound=x.bound * abs(factor)
    )
    return truncation.divide_by_power(scaled, k, x.frac_bits)


def sum_along(x: SharedArray, axis: int | tuple[int, ...] | None) -> SharedArray:
    """Sum along axes, or over everything."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    shares = x.shares.sum(axis=tuple(a + 1 for a in axes), dtype=np.uint64)
    return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound * max(1, count))


def view(x: SharedArray, step: View) -> SharedArray:
    """Transpose, reshape or index; a mask goes along."""
    held = x.mask is not None or x.given is not None
    # Of what is reshaped, the elements stay in their order.
    x, term = x.apart() if step[0] == "reshape" else (x, None)
    return x.derive(
        None if held else apply_views(x.shares, [step], 1),
        frac_bits=x.frac_bits,
        bound=x.bound,
        mask=None if x.mask is None else x.mask.view(step),
        given=None if x.given is None else x.given.view(step),
        term=term,
    )


def _align(arrays: Sequence[SharedArray]) -> list[SharedArray]:
    if not arrays:
        raise ArgumentError("need at least one array, got none")
    if any(not is_shared(x) for x in arrays):
        raise DtypeError("all arrays must be SharedArrays; share or add the public ones first")
    if any(x.session is not arrays[0].session for x in arrays):
        raise SessionError("the arrays belong to different sessions")
    return _level(arrays)


def check_axis(axis: int, ndim: int) -> int:
    """Return an axis counted from the front, or raise: before the first one is the party axis."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise DtypeError(f"axis must be a whole number, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise ShapeError(f"axis must be in [{-ndim}, {ndim}), got {number}")
    return number % ndim


def concatenate(arrays: Sequence[SharedArray], axis: int | None = 0) -> SharedArray:
    """Join along an existing axis, or flattened if it is None."""
    aligned = _align(arrays)
    if axis is None:
        aligned, axis = [x.ravel() for x in aligned], 0
    axis = check_axis(axis, aligned[0].ndim)
    try:
        shares = np.concatenate([x.shares for x in aligned], axis=axis + 1)
    except ValueError:
        raise ShapeError(
            f"arrays must agree in all axes but axis {axis}, got shapes {[x.shape for x in aligned]}"
        ) from None
    first = aligned[0]
    return first.derive(shares, frac_bits=first.frac_bits, bound=max(x.bound for x in aligned))


def stack(arrays: Sequence[SharedArray], axis: int = 0) -> SharedArray:
    """Join along a new axis."""
    aligned = _align(arrays)
    axis = check_axis(axis, aligned[0].ndim + 1)
    try:
        shares = np.stack([x.shares for x in aligned], axis=axis + 1)
    except ValueError:
        raise ShapeError(
            f"arrays must have the same shape, got {[x.shape for x in aligned]}"
        ) from None
    first = aligned[0]
    return first.derive(shares, frac_bits=first.frac_bits, bound=max(x.bound for x in aligned))


def zeros_like(x: SharedArray) -> SharedArray:
    """Shares of zero, which are all zero: add something before anyone relies on them."""
    return x.derive(np.zeros((len(x.session.here), *x.shape), np.uint64), frac_bits=0, bound=0)
