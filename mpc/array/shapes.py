"""NumPy's functions that rearrange a secret array: no rounds, no bytes, exact.

Which element goes where is public. A function of NumPy is applied to the numbers of the elements, and the
elements are taken by these numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc.core.errors import ArgumentError, DtypeError, ShapeError, SottoError
from mpc.core.secret_value import check_axis
from mpc.protocols import linear
from mpc.protocols.linear import is_shared
from ring.real_arrays import plain_array

__all__ = ["FUNCTIONS", "rearranged", "repeated_axis", "squeezed", "swapped"]


def rearranged(x: Any, name: str, function: Callable[..., Any]) -> Any:
    """Return the elements of x as `function` places their numbers."""
    numbers = np.arange(x.size).reshape(x.shape)
    try:
        places = np.asarray(function(numbers))
    except SottoError:
        raise
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise ShapeError(f"{name} of shape {x.shape}: {error}") from None
    if places.size == x.size and np.array_equal(places.reshape(-1), numbers.reshape(-1)):
        return x.reshape(places.shape)
    return x.reshape(-1)[places]


def _by(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an implementation that rearranges its first argument."""

    def apply(x: Any, *args: Any, **kwargs: Any) -> Any:
        _check_public(name, args, kwargs)
        return rearranged(x, name, lambda numbers: function(numbers, *args, **kwargs))

    return apply


def _check_public(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    if any(is_shared(value) for value in (*args, *kwargs.values())):
        raise DtypeError(f"{name} takes secrets as its first argument alone")


def _several(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an implementation that cuts its first argument into several arrays."""

    def apply(x: Any, *args: Any, **kwargs: Any) -> list[Any]:
        _check_public(name, args, kwargs)
        numbers = np.arange(x.size).reshape(x.shape)
        try:
            parts = function(numbers, *args, **kwargs)
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise ShapeError(f"{name} of shape {x.shape}: {error}") from None
        return [rearranged(x, name, lambda _, part=part: part) for part in parts]

    return apply


def swapped(x: Any, axis1: int, axis2: int) -> Any:
    """Exchange two axes."""
    order = list(range(x.ndim))
    axis1, axis2 = check_axis(axis1, x.ndim), check_axis(axis2, x.ndim)
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return x.transpose(order)


def _moveaxis(x: Any, source: Any, destination: Any) -> Any:
    try:
        sources, targets = (
            np.lib.array_utils.normalize_axis_tuple(a, x.ndim) for a in (source, destination)
        )
    except (ValueError, TypeError) as error:
        raise ShapeError(f"moveaxis of shape {x.shape}: {error}") from None
    if len(sources) != len(targets):
        raise ShapeError(
            f"moveaxis needs as many destinations as sources, got {source} and {destination}"
        )
    order = [a for a in range(x.ndim) if a not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return x.transpose(order) if order else x


def squeezed(x: Any, axis: Any = None) -> Any:
    """Leave out axes of one element."""
    return _reshaped(x, np.squeeze, axis)


def _expand_dims(x: Any, axis: Any) -> Any:
    return _reshaped(x, np.expand_dims, axis)


def _reshaped(x: Any, function: Callable[..., Any], axis: Any) -> Any:
    try:
        return x.reshape(function(np.broadcast_to(np.uint8(0), x.shape), axis).shape)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{function.__name__} of shape {x.shape}: {error}") from None


def _at_least(axes: int) -> Callable[..., Any]:
    function: Any = (np.atleast_1d, np.atleast_2d, np.atleast_3d)[axes - 1]

    def apply(*arrays: Any) -> Any:
        found = [
            x.reshape(function(np.broadcast_to(np.uint8(0), x.shape)).shape)
            if is_shared(x)
            else function(x)
            for x in arrays
        ]
        return found[0] if len(found) == 1 else tuple(found)

    return apply


def as_secrets(arrays: Sequence[Any], name: str) -> list[Any]:
    """Return arrays of which at least one is secret, the public ones as secrets that all know."""
    secret = next((x for x in arrays if is_shared(x)), None)
    if secret is None:
        raise ArgumentError(f"{name} needs at least one array, got none")
    out = []
    for x in arrays:
        if not is_shared(x):
            values = linear.public(x)
            zeros = np.zeros((len(secret.session.here), *values.shape), np.uint64)
            x = linear.add_public(secret.derive(zeros, frac_bits=0, bound=0), values)
        out.append(x)
    return out


def _concatenate(arrays: Any, axis: Any = 0) -> Any:
    return linear.concatenate(as_secrets(list(arrays), "np.concatenate"), axis)


def _stack(arrays: Any, axis: int = 0) -> Any:
    return linear.stack(as_secrets(list(arrays), "np.stack"), axis)


def _hstack(tup: Any) -> Any:
    arrays = [_at_least(1)(x) for x in as_secrets(list(tup), "np.hstack")]
    return linear.concatenate(arrays, 0 if arrays[0].ndim == 1 else 1)


def _vstack(tup: Any) -> Any:
    arrays = as_secrets(list(tup), "np.vstack")
    return linear.concatenate([_at_least(2)(x) for x in arrays], 0)


def _dstack(tup: Any) -> Any:
    arrays = as_secrets(list(tup), "np.dstack")
    return linear.concatenate([_at_least(3)(x) for x in arrays], 2)


def _column_stack(tup: Any) -> Any:
    arrays = as_secrets(list(tup), "np.column_stack")
    return linear.concatenate([x.reshape(-1, 1) if x.ndim < 2 else x for x in arrays], 1)


def _append(arr: Any, values: Any, axis: Any = None) -> Any:
    return linear.concatenate(as_secrets([arr, values], "np.append"), axis)


def repeated_axis(x: Any, shape: Any) -> Any:
    """Broadcast to a shape."""
    return rearranged(x, "broadcast_to", lambda numbers: np.broadcast_to(numbers, shape))


def _broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    shape = linear.broadcast("np.broadcast_arrays", *(np.shape(x) for x in args))
    return tuple(
        repeated_axis(x, shape) if is_shared(x) else np.broadcast_to(x, shape) for x in args
    )


def _pad(array: Any, pad_width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise ArgumentError(
            f"np.pad of a secret has the modes constant, edge, reflect, symmetric, wrap; got {mode!r}"
        )
    kind = kwargs.pop("reflect_type", "even") if mode in ("reflect", "symmetric") else "even"
    if kind != "even":
        # What is padded with are places, of which "odd" would make others.
        raise ArgumentError(f"np.pad of a secret has reflect_type='even', got {kind!r}")
    if mode != "constant":
        return rearranged(array, "pad", lambda n: np.pad(n, pad_width, mode, **kwargs))  # type: ignore[call-overload]
    values = kwargs.pop("constant_values", 0)
    if kwargs:
        raise DtypeError(f"np.pad on a SharedArray takes no {', '.join(sorted(kwargs))}")
    if is_shared(values):
        raise DtypeError("np.pad pads with public values; join secret ones by np.concatenate")
    try:
        sizes = [
            (operator.index(a), operator.index(b))
            for a, b in np.broadcast_to(plain_array(pad_width, "pad_width"), (array.ndim, 2))
        ]
        border = np.pad(np.zeros(array.shape), sizes, constant_values=values)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"pad of shape {array.shape}: {error}") from None
    wide = linear.pad(array, sizes)
    if not np.any(border):
        return wide
    whole = np.array_equal(border, np.rint(border)) and np.asarray(values).dtype.kind in "iub"
    return linear.add_public(wide, border.astype(np.int64) if whole else border)


def _take(a: Any, indices: Any, axis: Any = None, mode: str = "raise") -> Any:
    if is_shared(indices):
        raise DtypeError(
            "np.take takes public indices; secret ones, or their one-hot vectors, go by"
            " np.take_along_axis"
        )
    if mode not in ("raise", "wrap", "clip"):
        raise ArgumentError(f"mode must be raise, wrap or clip, got {mode!r}")
    return rearranged(a, "take", lambda n: np.take(n, indices, axis, mode=mode))  # type: ignore[call-overload]


def _diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 1:
        size = len(v) + abs(int(k))
        places = np.diag(np.arange(1, len(v) + 1), k)
        padded = linear.pad(v, [(1, 0)])
        return padded[places].reshape(size, size)
    return rearranged(v, "diag", lambda n: np.diag(n, k))


def _diagflat(v: Any, k: int = 0) -> Any:
    return _diag(v.ravel(), k)


def _triangle(keep: Callable[..., Any]) -> Callable[..., Any]:
    def apply(m: Any, k: int = 0) -> Any:
        if not m.ndim:
            raise ShapeError(f"a triangle needs at least one axis, got shape {m.shape}")
        # As NumPy has it: every row is m.
        m = m if m.ndim > 1 else FUNCTIONS[np.broadcast_to](m, (len(m), len(m)))
        mask = keep(np.ones(m.shape[-2:], np.int64), k)
        return linear.multiply_integers(m, mask)

    return apply


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return FUNCTIONS[np.diagonal](a, offset, axis1, axis2).sum(-1)


def _like(value: int) -> Callable[..., Any]:
    def apply(a: Any, dtype: Any = None, shape: Any = None) -> Any:
        return np.full(
            a.shape if shape is None else shape, value, a.dtype if dtype is None else dtype
        )

    return apply


def _full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Any:
    if is_shared(fill_value):
        raise DtypeError("fill_value must be public; a secret one goes by np.broadcast_to")
    return np.full(a.shape if shape is None else shape, fill_value, dtype)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.reshape: lambda x, shape: x.reshape(shape),
    np.ravel: lambda x: x.ravel(),
    np.transpose: lambda x, axes=None: x.transpose(axes),
    np.matrix_transpose: lambda x: swapped(x, -1, -2),
    np.swapaxes: swapped,
    np.moveaxis: _moveaxis,
    np.squeeze: squeezed,
    np.expand_dims: _expand_dims,
    np.atleast_1d: _at_least(1),
    np.atleast_2d: _at_least(2),
    np.atleast_3d: _at_least(3),
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.hstack: _hstack,
    np.vstack: _vstack,
    np.dstack: _dstack,
    np.column_stack: _column_stack,
    np.append: _append,
    np.split: _several("split", np.split),
    np.array_split: _several("array_split", np.array_split),
    np.hsplit: _several("hsplit", np.hsplit),
    np.vsplit: _several("vsplit", np.vsplit),
    np.dsplit: _several("dsplit", np.dsplit),
    np.broadcast_to: lambda x, shape: repeated_axis(x, shape),
    np.broadcast_arrays: _broadcast_arrays,
    np.repeat: _by("repeat", np.repeat),
    np.tile: _by("tile", np.tile),
    np.roll: _by("roll", np.roll),
    np.flip: _by("flip", np.flip),
    np.fliplr: _by("fliplr", np.fliplr),
    np.flipud: _by("flipud", np.flipud),
    np.rot90: _by("rot90", np.rot90),
    np.delete: _by("delete", np.delete),
    np.resize: _by("resize", np.resize),
    np.diagonal: _by("diagonal", np.diagonal),
    np.take: _take,
    np.pad: _pad,
    np.diag: _diag,
    np.diagflat: _diagflat,
    np.tril: _triangle(np.tril),
    np.triu: _triangle(np.triu),
    np.trace: _trace,
    np.copy: lambda a: a.reshape(a.shape),
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
    np.size: lambda x, axis=None: x.size if axis is None else x.shape[check_axis(axis, x.ndim)],
    np.zeros_like: _like(0),
    np.ones_like: _like(1),
    np.full_like: _full_like,
}  # fmt: skip
