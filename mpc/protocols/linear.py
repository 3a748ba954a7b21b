"""Linear operations, which need no communication: sums, public integer factors, joining arrays.

[x] + [y], -[x] and m [x] for a public integer m are computed share by share; a public value is added to
the first party's share alone. Operands with different numbers of fractional bits are brought to the
larger one by a shift, which multiplies the encoded value. Where the shifted bound would exceed 2^62, as
of a large whole number that is added to a product, the product is truncated first, for 1 round. Public
factors that are not integers, and divisors: :mod:`mpc.protocols.scaling`.

The bound of a result is computed from the bounds of the operands and from the public values. Where it
does not prove that the result stays below 2^62, see :mod:`mpc.core.ranges`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc.core.correlation import Correlation
from mpc.core.errors import ArgumentError, DtypeError, RangeError, SessionError, ShapeError
from mpc.core.ranges import LARGEST, Operation
from mpc.core.secret_value import Secret, SecretValue, check_axis
from mpc.protocols import range_check, truncation
from ring import encode
from ring.matmul import matmul_add
from ring.real_arrays import real_array

__all__ = [
    "Axis",
    "add",
    "add_integer",
    "add_public",
    "at_bits",
    "axes_of",
    "check_operands",
    "concatenate",
    "is_shared",
    "is_zero",
    "kept_axes",
    "matmul_integers",
    "minus",
    "multiply_integers",
    "negative",
    "pad",
    "placed",
    "rescale",
    "stack",
    "subtract",
    "sum_along",
    "zeros_like",
]

Words = NDArray[np.uint64]
Axis = int | tuple[int, ...] | None


def is_shared(x: Secret | object) -> TypeGuard[Secret]:
    """Whether x is a shared array."""
    return isinstance(x, SecretValue)


def is_zero(x: Any) -> bool:
    """Whether x is the public number zero."""
    if is_shared(x) or np.ndim(x):
        return False
    return bool(public(x) == 0)


def public(x: object) -> NDArray[Any]:
    """Return a public operand as an array of floats or int64, or raise DtypeError."""
    values = real_array(x, "a public operand")
    if values.dtype.kind == "f":
        if values.dtype.itemsize <= 8:
            return values
        with np.errstate(over="ignore"):  # infinite then, which is refused where it is encoded
            return values.astype(np.float64)
    # Signed and wide: small and unsigned integers wrap around when they are negated.
    if values.dtype == np.uint64 and values.max(initial=0) >= 1 << 63:
        raise RangeError(f"the public operand must be below 2^63, got {values.max()}")
    return values.astype(np.int64, copy=False)


def widen(shares: Words, ndim: int) -> Words:
    """Insert axes of size one behind the party axis, so that `ndim` axes follow it."""
    missing = ndim - (shares.ndim - 1)
    return (
        shares.reshape(len(shares), *(1,) * missing, *shares.shape[1:]) if missing > 0 else shares
    )


def settled(
    x: SecretValue, name: str, bound: int, frac_bits: int, operands: tuple[Any, ...],
    exact: Callable[..., Any], addends: int, claims: Callable[[], tuple[Any, ...]],
    sharp: bool = True,
) -> int:  # fmt: skip
    """Return a bound of at most 2^62 - 1 for the result of an operation on x, checked if need be.

    If `bound` exceeds 2^62 - 1, the session's range policy decides, see
    :meth:`mpc.core.ranges.RangePolicy.settle`. The other arguments are the fields of
    :class:`mpc.core.ranges.Operation`.
    """
    if bound <= LARGEST:
        return bound
    operation = Operation(name, operands, exact, addends, bound, frac_bits, claims, sharp)
    return x.session.range_policy.settle(operation)


def at_bits(x: Secret, frac_bits: int, name: str = "+") -> Secret:
    """Return x with `frac_bits` fractional bits, at least as many as it has, by a shift to the left."""
    steps = frac_bits - x.frac_bits
    if steps == 0:
        return x
    bound = settled(
        x, name, x.bound << steps, frac_bits, (x,), lambda v: v * (1 << steps), 1,
        lambda: (range_check.magnitude(x, LARGEST >> steps),),
    )  # fmt: skip
    return x.derive(x.shares << np.uint64(steps), frac_bits=frac_bits, bound=bound, origins=(x,))


def _level(arrays: Sequence[Secret], name: str = "+") -> list[Secret]:
    """Bring all arrays to the number of fractional bits of the one with most.

    Where the shift would take an array's bound beyond 2^62, arrays with more fractional bits than the
    format's (products) are truncated first, for 1 round.
    """
    most = max(x.frac_bits for x in arrays)
    if any(x.bound << (most - x.frac_bits) > LARGEST for x in arrays if x.frac_bits < most):
        arrays = [truncation.to_format(x) for x in arrays]
        most = max(x.frac_bits for x in arrays)
    return [at_bits(x, most, name) for x in arrays]


def rescale(x: Secret, factor: int, frac_bits: int, bound: int) -> Secret:
    """Multiply the encoded value by an integer and state its new fractional bits (for protocols).

    The caller knows that the encoded result stays within `bound`.
    """
    return x.derive(
        x.shares * np.uint64(factor % 2**64), frac_bits=frac_bits, bound=bound, origins=(x,)
    )


def placed(x: Secret, frac_bits: int, bound: int) -> Secret:
    """State the fractional bits and the bound of the same words (for protocols, which know them)."""
    words, cross_term = x.split_cross_term()
    return x.derive(words.shares, frac_bits=frac_bits, bound=bound, cross_term=cross_term)


def add_integer(x: Secret, value: int) -> Secret:
    """Add an integer to the encoded value (for protocols, which know that the result is in range)."""
    shares = x.shares.copy()
    if x.session.first_row is not None:
        shares[x.session.first_row] += np.uint64(value % 2**64)
    return x.derive(
        shares, frac_bits=x.frac_bits, bound=min(LARGEST, x.bound + abs(value)), origins=(x,)
    )


def broadcast(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    # Of rows and a bias at once: NumPy makes arrays to find out.
    if len(shapes) == 2 and len(shapes[1]) == 1 and shapes[0][-1:] == shapes[1]:
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"operands of {name} must broadcast, got shapes {' and '.join(map(str, shapes))}"
        ) from None


def _split_cross_term(x: Secret, shape: tuple[int, ...]) -> tuple[Secret, Correlation | None]:
    """Split the pending cross term off x, if the sum has the shape of x and so can carry it on."""
    return x.split_cross_term() if x.shape == shape else (x, None)


def _sum(*operands: Any) -> Any:
    """Add operands elementwise."""
    return functools.reduce(operator.add, operands)


def add(x: Secret, y: Secret | ArrayLike, name: str = "+") -> Secret:
    """x + y."""
    if not is_shared(y):
        return add_public(x, y, name)
    shape = broadcast(name, x.shape, y.shape)
    arrays = _level([x, y], name)
    x, y = arrays
    bound = settled(
        x, name, x.bound + y.bound, x.frac_bits, (x, y), _sum, 2,
        lambda: (range_check.linear([(z, 0) for z in arrays]),),
    )  # fmt: skip
    x, cross_term = _split_cross_term(x, shape)
    if cross_term is None:
        y, cross_term = _split_cross_term(y, shape)
    shares = widen(x.shares, len(shape)) + widen(y.shares, len(shape))
    return x.derive(shares, frac_bits=x.frac_bits, bound=bound, cross_term=cross_term)


def _encode(values: NDArray[Any], frac_bits: int) -> tuple[Words, int]:
    """Encode public values; return also their largest magnitude."""
    encoded = encode(values, frac_bits, int_bits=61 - frac_bits, name="the public operand")
    return encoded, magnitude(encoded.view(np.int64))


def magnitude(values: NDArray[np.int64]) -> int:
    """Return the largest magnitude of integers, 0 if there are none."""
    # Not by np.abs, which has no room for the smallest one.
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def add_public(x: Secret, y: object, name: str = "+") -> Secret:
    """x + y for public y, which is rounded to the fractional bits of x."""
    values = public(y)
    fixed_point = x.session.format
    if values.dtype.kind == "f" and x.frac_bits < fixed_point.frac_bits:
        x = at_bits(x, fixed_point.frac_bits, name)
    shape = broadcast(name, x.shape, values.shape)
    shortened = x.frac_bits > fixed_point.frac_bits and not _has_room(values, x.frac_bits)
    encoded, largest = _encode(values, fixed_point.frac_bits if shortened else x.frac_bits)
    if shortened:
        x = truncation.to_format(x)
    operands = (x, encoded.view(np.int64))
    bound = settled(
        x, name, x.bound + largest, x.frac_bits, operands, _sum, 2,
        lambda: (range_check.linear([(x, 0), (encoded.view(np.int64), 0)]),),
    )  # fmt: skip
    x, cross_term = _split_cross_term(x, shape)
    shares = np.broadcast_to(widen(x.shares, len(shape)), (len(x.shares), *shape)).copy()
    if x.session.first_row is not None:
        shares[x.session.first_row] += encoded
    return x.derive(shares, frac_bits=x.frac_bits, bound=bound, cross_term=cross_term, origins=(x,))


def _has_room(values: NDArray[Any], frac_bits: int) -> bool:
    """Whether public values can be encoded with so many fractional bits."""
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.abs(values.astype(np.float64)) < 2.0 ** (61 - frac_bits)))


def check_operands(name: str, x: SecretValue, y: SecretValue | ArrayLike) -> None:
    """Raise any error of combining x and y in the session's format, before a round is spent."""
    if is_shared(y):
        broadcast(name, x.shape, y.shape)
        return
    values = public(y)
    broadcast(name, x.shape, values.shape)
    most = x.session.format.frac_bits
    _encode(values, most if values.dtype.kind == "f" else min(x.frac_bits, most))


def negative(x: SecretValue | ArrayLike) -> Any:
    """Return -x, for a shared or a public x."""
    if not is_shared(x):
        return np.asarray(-public(x))
    return x.derive(-x.shares, frac_bits=x.frac_bits, bound=x.bound, origins=(x,))


def subtract(x: Secret, y: Secret | ArrayLike, name: str = "-") -> Secret:
    """x - y."""
    return add(x, minus(x, y), name)


def minus(x: SecretValue, y: SecretValue | ArrayLike) -> Any:
    """Return -y, to be added to x; errors name y, not -y."""
    if not is_shared(y):
        values, fixed_point = public(y), x.session.format
        if not _has_room(values, max(x.frac_bits, fixed_point.frac_bits)):
            _encode(
                values,
                fixed_point.frac_bits
                if values.dtype.kind == "f"
                else min(x.frac_bits, fixed_point.frac_bits),
            )
    return negative(y)


def multiply_integers(x: Secret, values: NDArray[np.int64], name: str = "*") -> Secret:
    """x * y for public integers y."""
    shape = broadcast(name, x.shape, values.shape)
    bound = settled(
        x, name, x.bound * magnitude(values), x.frac_bits, (x, values), operator.mul, 1,
        lambda: (range_check.multiple(x, values),),
    )  # fmt: skip
    shares = widen(x.shares, len(shape)) * values.view(np.uint64)
    return x.derive(shares, frac_bits=x.frac_bits, bound=bound, origins=(x,))


def row_sums(values: NDArray[Any], axis: int) -> int:
    """Return the largest sum of magnitudes along an axis of integers, rounded up."""
    sums = np.abs(values.astype(np.float64)).sum(axis=axis)
    # Sums of doubles may be rounded down, so a large one is enlarged a little. Small ones are exact.
    most = float(sums.max(initial=0.0))
    return int(most) if most < 2.0**52 else int(most * (1 + 2.0**-20)) + 1


def matmul_integers(x: Secret, values: NDArray[np.int64], *, reverse: bool = False) -> Secret:
    """x @ y for public integers y, or y @ x if `reverse`; operands of at least two axes."""
    left, right = (values.shape, x.shape) if reverse else (x.shape, values.shape)
    shape = matmul_shape(left, right)
    bound = x.bound * row_sums(values, -1 if reverse else -2)
    operands = (values, x) if reverse else (x, values)
    bound = settled(
        x, "@", bound, x.frac_bits, operands, operator.matmul, left[-1],
        lambda: (
            range_check.bilinear(
                x, values, lambda a, b: matmul_integers(a, b, reverse=reverse), left[-1]
            ),
        ),
    )  # fmt: skip
    words = values.view(np.uint64)
    shares = np.zeros((len(x.shares), *shape), np.uint64)
    for share, out in zip(x.shares, shares, strict=True):
        if reverse:
            matmul_add(words, share, out)
        else:
            matmul_add(share, words, out)
    return x.derive(shares, frac_bits=x.frac_bits, bound=bound, origins=(x,))


def matmul_shape(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a matrix product, or raise."""
    if left[-1] != right[-2]:
        raise ShapeError(
            f"operands of @ must agree in the inner dimension, got shapes {left} and {right}"
        )
    return (*broadcast("@", left[:-2], right[:-2]), left[-2], right[-1])


def axes_of(x: SecretValue, axis: Axis) -> tuple[int, ...]:
    """Return the axes that `axis` names, counted from the front; all if it is None."""
    if axis is None:
        return tuple(range(x.ndim))
    axes = tuple(check_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"axis must not name an axis twice, got {axis}")
    return axes


def kept_axes(result: Any, x: SecretValue, axis: Axis, keepdims: bool) -> Any:
    """Give a reduction along `axis` of x the axes of one element that `keepdims` asks for."""
    if not keepdims:
        return result
    axes = axes_of(x, axis)
    return result.reshape([1 if a in axes else n for a, n in enumerate(x.shape)])


def sum_along(x: Secret, axis: int | tuple[int, ...] | None) -> Secret:
    """Sum along an axis or several; over all elements if `axis` is None."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    count = prod(x.shape[a] for a in axes)
    bound = settled(
        x, "sum", x.bound * max(1, count), x.frac_bits, (x,), lambda v: v.sum(axis=axes), count,
        lambda: (range_check.linear([(x, 0)], axes),),
    )  # fmt: skip
    shares = x.shares.sum(axis=tuple(a + 1 for a in axes), dtype=np.uint64)
    return x.derive(shares, frac_bits=x.frac_bits, bound=bound, origins=(x,))


def _align(arrays: Sequence[Secret], name: str) -> list[Secret]:
    if not arrays:
        raise ArgumentError("need at least one array, got none")
    if any(not is_shared(x) for x in arrays):
        raise DtypeError("all arrays must be SharedArrays; share or add the public ones first")
    if any(x.session is not arrays[0].session for x in arrays):
        raise SessionError("the arrays belong to different sessions")
    return _level(arrays, name)


def concatenate(arrays: Sequence[Secret], axis: int | None = 0) -> Secret:
    """Join along an existing axis, or flattened if it is None."""
    aligned = _align(arrays, "concatenate")
    if axis is not None and not aligned[0].ndim:
        raise ShapeError("arrays without axes cannot be concatenated; np.stack joins them")
    if axis is None:
        aligned, axis = [x.ravel() for x in aligned], 0
    axis = check_axis(axis, aligned[0].ndim)
    try:
        shares = np.concatenate([x.shares for x in aligned], axis=axis + 1)
    except ValueError:
        raise ShapeError(
            f"arrays must agree in all axes but axis {axis}, got shapes {[x.shape for x in aligned]}"
        ) from None
    return _joined(aligned, shares)


def stack(arrays: Sequence[Secret], axis: int = 0) -> Secret:
    """Join along a new axis."""
    aligned = _align(arrays, "stack")
    axis = check_axis(axis, aligned[0].ndim + 1)
    try:
        shares = np.stack([x.shares for x in aligned], axis=axis + 1)
    except ValueError:
        raise ShapeError(
            f"arrays must have the same shape, got {[x.shape for x in aligned]}"
        ) from None
    return _joined(aligned, shares)


def _joined(arrays: Sequence[Secret], shares: Words) -> Secret:
    first = arrays[0]
    return first.derive(
        shares,
        frac_bits=first.frac_bits,
        bound=max(x.bound for x in arrays),
        binary=all(x.binary for x in arrays),
        origins=arrays,
    )


def pad(x: Secret, widths: Sequence[tuple[int, int]]) -> Secret:
    """Put so many zeros before and behind the elements of each axis."""
    if not any(map(any, widths)):
        return x
    shares = np.pad(x.shares, ((0, 0), *widths))
    return x.derive(shares, frac_bits=x.frac_bits, bound=x.bound, binary=x.binary)


def zeros_like(x: Secret) -> Secret:
    """Return zeros of the shape of x whose shares are all zero: a constant that hides nothing."""
    return x.derive(np.zeros((len(x.session.here), *x.shape), np.uint64), frac_bits=0, bound=0)
