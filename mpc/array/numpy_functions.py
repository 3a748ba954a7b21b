"""NumPy's ufuncs and functions on shared arrays: which are defined, and by which protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np

from mpc.core.errors import DtypeError, ShapeError
from mpc.core.secret_value import check_axis
from mpc.protocols import linear, maximum
from mpc.protocols.linear import is_shared
from ring.real_arrays import plain_array

__all__ = ["apply_function", "apply_ufunc"]


def _either(
    function: Callable[[Any, Any], Any],
) -> Callable[[Any, Any], Any]:
    """For a symmetric function: put the shared operand first."""

    def apply(x: Any, y: Any) -> Any:
        if not is_shared(x):
            x, y = y, x
        if is_shared(y):
            y.session.check_own(x, "x")
        return function(x, y)

    return apply


def _power(x: Any, exponent: Any) -> Any:
    if not is_shared(x):
        raise DtypeError("a secret exponent is not supported; the exponent must be public")
    return x**exponent


UFUNCS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: lambda x, y: x + y if is_shared(x) else y.__radd__(x),
    np.subtract: lambda x, y: x - y if is_shared(x) else y.__rsub__(x),
    np.multiply: lambda x, y: x * y if is_shared(x) else y.__rmul__(x),
    np.matmul: lambda x, y: x @ y if is_shared(x) else y.__rmatmul__(x),
    np.true_divide: lambda x, y: x / y if is_shared(x) else y.__rtruediv__(x),
    np.power: lambda x, y: _power(x, y),
    np.square: lambda x: x**2,
    np.negative: lambda x: -x,
    np.positive: lambda x: x,
    np.absolute: abs,
    np.less: lambda x, y: x < y if is_shared(x) else y > x,
    np.less_equal: lambda x, y: x <= y if is_shared(x) else y >= x,
    np.greater: lambda x, y: x > y if is_shared(x) else y < x,
    np.greater_equal: lambda x, y: x >= y if is_shared(x) else y <= x,
    np.equal: lambda x, y: x == y if is_shared(x) else y == x,
    np.not_equal: lambda x, y: x != y if is_shared(x) else y != x,
    np.maximum: _either(maximum.maximum),
    np.minimum: _either(maximum.minimum),
    np.bitwise_and: lambda x, y: x & y if is_shared(x) else y.__rand__(x),
    np.bitwise_or: lambda x, y: x | y if is_shared(x) else y.__ror__(x),
    np.bitwise_xor: lambda x, y: x ^ y if is_shared(x) else y.__rxor__(x),
    np.tanh: lambda x: x.tanh(),
    np.exp: lambda x: x.exp(),
    np.log: lambda x: x.log(),
    np.sqrt: lambda x: x.sqrt(),
    np.reciprocal: lambda x: x.reciprocal(),
    np.sign: lambda x: x.sign(),
    np.floor: lambda x: x.floor(),
    np.ceil: lambda x: x.ceil(),
    np.rint: lambda x: x.rint(),
    np.invert: lambda x: ~x,
    np.logical_not: lambda x: ~x,
    np.logical_and: lambda x, y: x & y if is_shared(x) else y.__rand__(x),
    np.logical_or: lambda x, y: x | y if is_shared(x) else y.__ror__(x),
    np.logical_xor: lambda x, y: x ^ y if is_shared(x) else y.__rxor__(x),
}

# Of scipy.special, by name so that it is not imported.
SCIPY: dict[str, Callable[..., Any]] = {"expit": lambda x: x.sigmoid(), "erf": lambda x: x.erf()}
_SCIPY_NAMES = tuple(f"scipy.special.{name}" for name in SCIPY)


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Apply a ufunc to operands of which at least one is shared."""
    if method != "__call__":
        raise DtypeError(f"np.{ufunc.__name__}.{method} is not defined on a SharedArray")
    if kwargs:
        raise DtypeError(
            f"np.{ufunc.__name__} on a SharedArray takes no {', '.join(sorted(kwargs))}"
        )
    if ufunc.__name__ in SCIPY:
        return SCIPY[ufunc.__name__](*inputs)
    if ufunc not in UFUNCS:
        raise DtypeError(
            f"np.{ufunc.__name__} is not defined on a SharedArray; there are "
            + ", ".join(sorted([*(known.__name__ for known in UFUNCS), *_SCIPY_NAMES]))
        )
    return UFUNCS[ufunc](*inputs)


def _where(condition: Any, x: Any, y: Any) -> Any:
    x, y = (part if is_shared(part) else linear.public(part) for part in (x, y))
    if not is_shared(condition):
        chosen = plain_array(condition, "condition").astype(bool).astype(np.int64)
        return x * chosen + y * (1 - chosen)
    if not condition.binary:
        raise DtypeError(
            "condition must hold secret bits: results of comparisons, or bools that were shared"
        )
    if not is_shared(x) and not is_shared(y):
        # x - y of public integers could wrap around in NumPy.
        y = linear.add_public(linear.zeros_like(condition), y)
    return condition * (x - y) + y


def _clip(x: Any, low: Any = None, high: Any = None, **other: Any) -> Any:
    low = other.pop("min", other.pop("a_min", low))
    high = other.pop("max", other.pop("a_max", high))
    if other:
        raise DtypeError(f"np.clip on a SharedArray takes no {', '.join(sorted(other))}")
    if low is not None:
        x = np.maximum(x, low)
    if high is not None:
        x = np.minimum(x, high)
    return x


def _squeeze(x: Any, axis: Any = None) -> Any:
    return _reshaped(x, np.squeeze, axis)


def _expand_dims(x: Any, axis: Any) -> Any:
    return _reshaped(x, np.expand_dims, axis)


def _reshaped(x: Any, function: Callable[..., Any], axis: Any) -> Any:
    try:
        return x.reshape(function(np.broadcast_to(np.uint8(0), x.shape), axis).shape)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{function.__name__} of shape {x.shape}: {error}") from None


def _dot(x: Any, y: Any) -> Any:
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return x * y
    if np.ndim(x) > 2 or np.ndim(y) > 2:
        raise ShapeError("np.dot on a SharedArray takes at most two axes; use np.matmul")
    return x @ y


def _swapped(x: Any, axis1: int, axis2: int) -> list[int]:
    order = list(range(x.ndim))
    axis1, axis2 = check_axis(axis1, x.ndim), check_axis(axis2, x.ndim)
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return order


def _round(x: Any, decimals: int = 0) -> Any:
    if decimals != 0:
        raise DtypeError(f"np.round on a SharedArray takes decimals=0 alone, got {decimals!r}")
    return x.rint()


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.sum: lambda x, axis=None: x.sum(axis),
    np.mean: lambda x, axis=None: x.mean(axis),
    np.max: lambda x, axis=None: x.max(axis),
    np.min: lambda x, axis=None: x.min(axis),
    np.argmax: lambda x, axis=None: x.argmax(axis),
    np.argmin: lambda x, axis=None: (-x).argmax(axis),
    np.reshape: lambda x, shape: x.reshape(shape),
    np.ravel: lambda x: x.ravel(),
    np.transpose: lambda x, axes=None: x.transpose(axes),
    np.swapaxes: lambda x, axis1, axis2: x.transpose(_swapped(x, axis1, axis2)),
    np.squeeze: _squeeze,
    np.expand_dims: _expand_dims,
    np.concatenate: lambda arrays, axis=0: linear.concatenate(arrays, axis),
    np.stack: lambda arrays, axis=0: linear.stack(arrays, axis),
    np.where: _where,
    np.clip: _clip,
    np.round: _round,
    np.dot: _dot,
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
    np.size: lambda x: x.size,
}


def apply_function(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Apply a NumPy function to arguments of which at least one is shared."""
    if function not in FUNCTIONS:
        raise DtypeError(
            f"np.{function.__name__} is not defined on a SharedArray; there are "
            + ", ".join(sorted(known.__name__ for known in FUNCTIONS))
        )
    implementation = FUNCTIONS[function]
    try:
        signature(implementation).bind(*args, **kwargs)
    except TypeError as error:
        raise DtypeError(f"np.{function.__name__} on a SharedArray: {error}") from None
    return implementation(*args, **kwargs)
