"""NumPy's ufuncs and functions on shared arrays: which are defined, and by which protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np

from mpc.array import linear_algebra, shapes, sorting, statistics
from mpc.core.errors import ArgumentError, DtypeError, SottoError
from mpc.protocols import linear, maximum
from mpc.protocols.linear import is_shared
from ring.real_arrays import plain_array

__all__ = ["FUNCTIONS", "REFUSED", "UFUNCS", "apply_function", "apply_ufunc", "name_of"]


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
        raise _secret_exponent()
    return x**exponent


def _secret_exponent() -> DtypeError:
    return DtypeError(
        "a secret exponent is not supported; the exponent must be public. Of 2 there is np.exp2(x), of a"
        " public base above 0 np.exp(x * np.log(base))"
    )


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
    # No secret is NaN.
    np.fmax: _either(maximum.maximum),
    np.fmin: _either(maximum.minimum),
    np.fabs: abs,
    np.conjugate: lambda x: x,
    np.bitwise_and: lambda x, y: x & y if is_shared(x) else y.__rand__(x),
    np.bitwise_or: lambda x, y: x | y if is_shared(x) else y.__ror__(x),
    np.bitwise_xor: lambda x, y: x ^ y if is_shared(x) else y.__rxor__(x),
    np.tanh: lambda x: x.tanh(),
    np.exp: lambda x: x.exp(),
    np.log: lambda x: x.log(),
    np.sqrt: lambda x: x.sqrt(),
    np.reciprocal: lambda x: x.reciprocal(),
    np.sin: lambda x: x.sin(),
    np.cos: lambda x: x.cos(),
    np.exp2: lambda x: (x * float(np.log(2))).exp(),
    np.expm1: lambda x: x.exp() - 1,
    np.log1p: lambda x: (x + 1).log(),
    np.log2: lambda x: x.log() * float(1 / np.log(2)),
    np.log10: lambda x: x.log() * float(1 / np.log(10)),
    np.hypot: lambda x, y: (x * x + y * y).sqrt(),
    np.radians: lambda x: x * float(np.pi / 180),
    np.deg2rad: lambda x: x * float(np.pi / 180),
    np.degrees: lambda x: x * float(180 / np.pi),
    np.rad2deg: lambda x: x * float(180 / np.pi),
    np.sign: lambda x: x.sign(),
    np.floor: lambda x: x.floor(),
    np.ceil: lambda x: x.ceil(),
    np.rint: lambda x: x.rint(),
    np.trunc: lambda x: np.where(x < 0, x.ceil(), x.floor()),
    np.invert: lambda x: ~x,
    np.logical_not: lambda x: ~x,
    np.logical_and: lambda x, y: x & y if is_shared(x) else y.__rand__(x),
    np.logical_or: lambda x, y: x | y if is_shared(x) else y.__ror__(x),
    np.logical_xor: lambda x, y: x ^ y if is_shared(x) else y.__rxor__(x),
}

# Of scipy.special, by name so that it is not imported.
SCIPY: dict[str, Callable[..., Any]] = {"expit": lambda x: x.sigmoid(), "erf": lambda x: x.erf()}
_SCIPY_NAMES = tuple(f"scipy.special.{name}" for name in SCIPY)


_NO_NAN = (
    "a secret number is always finite, since NaN and infinities are refused when they are shared"
)
_COUNT = "how many elements the result has would tell something; keep the bits of the condition"
_FLOOR = "a quotient is rounded, and next to a whole number that changes its floor"
_PLACES = "np.sort sorts all of them at about the same cost"

REFUSED: dict[Callable[..., Any], str] = {
    **dict.fromkeys((np.isnan, np.isinf, np.isfinite, np.nan_to_num), _NO_NAN),
    **{
        getattr(np, f"nan{name}"): f"{_NO_NAN}; the function without nan in its name does the same"
        for name in (
            "sum", "prod", "cumsum", "cumprod", "max", "min", "argmax", "argmin", "mean", "var", "std",
            "median", "quantile", "percentile",
        )
    },
    **dict.fromkeys(
        (np.unique, np.nonzero, np.flatnonzero, np.argwhere, np.extract, np.compress, np.trim_zeros),
        _COUNT,
    ),
    **dict.fromkeys(
        (np.floor_divide, np.remainder, np.fmod, np.divmod, np.modf),
        f"{_FLOOR}; np.floor(x / n) is one off there",
    ),
    **dict.fromkeys((np.partition, np.argpartition), _PLACES),
    np.lexsort: "sort one key, which may be a sum of several times public powers of two",
    np.put_along_axis: "a SharedArray cannot be changed in place; use np.where",
    np.copyto: "a SharedArray cannot be changed in place; use np.where",
}  # fmt: skip
"""Functions that are not defined, and why."""


def name_of(function: Any) -> str:
    """Return a function's name as users write it behind ``np.``."""
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module}.{function.__name__}".removeprefix("numpy.")


def _undefined(function: Any, known: Sequence[str]) -> DtypeError:
    why = REFUSED.get(function)
    reason = f": {why}" if why else "; there are " + ", ".join(sorted(known))
    return DtypeError(f"np.{name_of(function)} is not defined on a SharedArray{reason}")


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
        raise _undefined(ufunc, [*(known.__name__ for known in UFUNCS), *_SCIPY_NAMES])
    return UFUNCS[ufunc](*(x if is_shared(x) else linear.public(x) for x in inputs))


def refused_operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method of an operator that is refused, for the reason that NumPy's function is."""

    def refuse(self: Any, other: Any) -> Any:
        raise _secret_exponent() if function is np.power else _undefined(function, ())

    return refuse


def missing_attribute(name: str) -> str:
    """Say why a SharedArray lacks an attribute that NumPy's arrays have, and what to do."""
    why = REFUSED.get(getattr(np, name, None))  # type: ignore[arg-type]
    if why is None and getattr(np, name, None) in (*FUNCTIONS, *UFUNCS):
        why = f"take np.{name}(x)"
    return why or "x.reveal() gives NumPy's array, if that is agreed"


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


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    **shapes.FUNCTIONS,
    **statistics.FUNCTIONS,
    **sorting.FUNCTIONS,
    **linear_algebra.FUNCTIONS,
    np.where: _where,
    np.clip: _clip,
    np.round: lambda a, decimals=0: a.round(decimals),
    np.around: lambda a, decimals=0: a.round(decimals),
}


def apply_function(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Apply a NumPy function to arguments of which at least one is shared."""
    if function not in FUNCTIONS:
        raise _undefined(function, [name_of(known) for known in FUNCTIONS])
    implementation, name = FUNCTIONS[function], f"np.{name_of(function)}"
    try:
        signature(implementation).bind(*args, **kwargs)
    except TypeError as error:
        raise DtypeError(f"{name} on a SharedArray: {error}") from None
    try:
        return implementation(*args, **kwargs)
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, SottoError):
            raise
        raise ArgumentError(f"{name} on a SharedArray: {error}") from None
