"""SharedArray: a secret array that is used like a NumPy array."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike

from mpc.array.array_methods import ArrayMethods
from mpc.array.numpy_functions import (
    apply_function,
    apply_ufunc,
    missing_attribute,
    refused_operator,
)
from mpc.core.errors import ArgumentError, DtypeError, SessionError, ShapeError
from mpc.core.runtime import Runtime
from mpc.protocols import (
    argmax,
    bit_injection,
    comparison,
    linear,
    masking,
    maximum,
    product,
    relu,
    scaling,
    select,
    sharing,
    softmax,
    truncation,
)
from mpc.protocols.linear import Axis

__all__ = ["Operand", "SharedArray"]

Operand: TypeAlias = Union["SharedArray", ArrayLike]


class SharedArray(ArrayMethods):
    """A secret array, of which each party holds a share.

    Made by :meth:`mpc.Session.share` and by operations on other shared arrays, never by hand. The
    operators ``+ - * @ / < <= > >= == !=``, indexing, and NumPy's functions work as on an array.
    Operations that would reveal a value are refused, except :meth:`reveal`.

    Attributes
    ----------
    session : Session
    shape : tuple of int
    frac_bits : int
        Fractional bits: 0 for whole numbers, the format's for fixed-point values, twice the format's
        for a product that was not truncated yet.
    bound : int
        A public bound on the magnitude of the encoded value, below 2^62. Every operation computes the
        bound of its result. Comparisons take fewer bits for a smaller bound. Where the bound does not
        prove that a result stays below 2^62, the operation is checked, refused or warned of: see
        `ranges` of :class:`mpc.Session`.
    binary : bool
        Whether the values are secret bits: results of comparisons, or bools that were shared.

    Examples
    --------
    >>> import mpc
    >>> s = mpc.Session()
    >>> x = s.share([[1.0, -2.0], [3.0, 4.0]], owner="alice")
    >>> x
    SharedArray(shape=(2, 2), frac_bits=16, parties=alice, bob)
    >>> (x.T @ x).relu().sum(axis=0).reveal()
    array([20., 30.])
    """

    __slots__ = ()
    # A mpc.Session, which this file cannot import: sessions make arrays.
    session: Any
    __hash__ = None  # type: ignore[assignment]
    # Higher than those of Series and DataFrame, which then leave operators to this class.
    __pandas_priority__ = 5000

    @classmethod
    def from_public(
        cls, session: Runtime, values: ArrayLike, frac_bits: int, bound: int
    ) -> SharedArray:
        """Make an array of public numbers, with a bound on the encoded values (for models)."""
        return cls(session, sharing.public_shares(session, values, frac_bits), frac_bits, bound)

    # Operators.

    def _operand(self, other: object) -> Any:
        """Return `other` as an operand, a SharedArray or a public array; or NotImplemented."""
        self.session.check_open()
        if isinstance(other, SharedArray):
            if other.session is not self.session:
                raise SessionError("operands belong to different sessions")
            return other
        if isinstance(other, (np.ndarray, np.generic, int, float, complex, str, list, tuple)):
            # public() refuses what is no number: a comparison would be False for Python.
            return linear.public(other)
        # A DataFrame or Series of pandas, say; or a sparse matrix, which public() refuses.
        like = hasattr(other, "__array__") or hasattr(other, "toarray")
        return linear.public(other) if like else NotImplemented

    def _apply(self, function: Callable[[SharedArray, Any], SharedArray], other: object) -> Any:
        operand = self._operand(other)
        return NotImplemented if operand is NotImplemented else function(self, operand)

    def __add__(self, other: Operand) -> SharedArray:
        return self._apply(linear.add, other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> SharedArray:
        return self._apply(linear.subtract, other)

    def __rsub__(self, other: Operand) -> SharedArray:
        return self._apply(lambda x, y: linear.add(linear.negative(x), y), other)

    def __mul__(self, other: Operand) -> SharedArray:
        return self._apply(_multiply, other)

    __rmul__ = __mul__

    def __matmul__(self, other: Operand) -> SharedArray:
        return self._apply(lambda x, y: _matmul(x, y, False), other)

    def __rmatmul__(self, other: Operand) -> SharedArray:
        return self._apply(lambda x, y: _matmul(x, y, True), other)

    def __truediv__(self, other: Operand) -> SharedArray:
        if isinstance(other, SharedArray):
            return self._apply(SharedArray.divided_by, other)
        return self._apply(scaling.divide, other)

    def __rtruediv__(self, other: Operand) -> SharedArray:
        return self._apply(SharedArray.divided_into, other)

    def __pow__(self, exponent: float) -> SharedArray:
        self.session.check_open()
        if isinstance(exponent, np.ndarray) and not exponent.ndim:
            exponent = exponent.item()
        if isinstance(exponent, (SharedArray, bool)) or not isinstance(exponent, numbers.Real):
            raise DtypeError(f"exponent must be a public number, got {exponent!r}")
        if exponent == 0:
            return linear.zeros_like(self) + 1
        power = int(exponent) if float(exponent).is_integer() else 0
        if power < 1:
            return self.power(float(exponent))
        result: SharedArray | None = None
        square = self
        while power:
            if power & 1:
                result = square if result is None else product.multiply(result, square)
            power >>= 1
            if power:
                square = product.multiply(square, square)
        assert result is not None
        return result

    __rpow__ = refused_operator(np.power)
    __floordiv__ = __rfloordiv__ = refused_operator(np.floor_divide)
    __mod__ = __rmod__ = refused_operator(np.remainder)
    __divmod__ = __rdivmod__ = refused_operator(np.divmod)

    def __neg__(self) -> SharedArray:
        self.session.check_open()
        return linear.negative(self)

    def __pos__(self) -> SharedArray:
        return self

    def __abs__(self) -> SharedArray:
        self.session.check_open()
        return maximum.absolute(self)

    def __invert__(self) -> SharedArray:
        """Return 1 - b, for an array of secret bits b."""
        self._check_bits("~")
        if self.bit is not None:
            return comparison.bit_array(self, self.bit.negate())
        return (1 - self).as_binary()

    def __and__(self, other: Operand) -> SharedArray:
        return self._bitwise(other, "&", lambda x, y: x * y)

    __rand__ = __and__

    def __or__(self, other: Operand) -> SharedArray:
        return self._bitwise(other, "|", lambda x, y: x + y - x * y)

    __ror__ = __or__

    def __xor__(self, other: Operand) -> SharedArray:
        return self._bitwise(other, "^", lambda x, y: x + y - 2 * (x * y))

    __rxor__ = __xor__

    def _check_bits(self, sign: str) -> None:
        if not self.binary:
            raise DtypeError(
                f"operands of {sign} must be secret bits: results of comparisons, or bools that were"
                " shared"
            )

    def _bitwise(
        self, other: Operand, sign: str, rule: Callable[[SharedArray, Any], SharedArray]
    ) -> SharedArray:
        self._check_bits(sign)
        operand = self._operand(other)
        if operand is NotImplemented:
            return NotImplemented
        if isinstance(operand, SharedArray):
            operand._check_bits(sign)
        elif operand.dtype.kind != "i" or np.any((operand != 0) & (operand != 1)):
            raise DtypeError(
                f"operands of {sign} must be bits, got a public operand with values other than 0 and 1"
            )
        return rule(self, operand).as_binary()

    def __lt__(self, other: Operand) -> SharedArray:
        return self._apply(comparison.less, other)

    def __le__(self, other: Operand) -> SharedArray:
        return self._apply(comparison.less_equal, other)

    def __gt__(self, other: Operand) -> SharedArray:
        return self._apply(comparison.greater, other)

    def __ge__(self, other: Operand) -> SharedArray:
        return self._apply(comparison.greater_equal, other)

    def __eq__(self, other: object) -> SharedArray:  # type: ignore[override]
        return self._apply(comparison.equal, other)

    def __ne__(self, other: object) -> SharedArray:  # type: ignore[override]
        return self._apply(comparison.not_equal, other)

    # Reductions and functions.

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> SharedArray:
        """Sum along an axis, several, or all: exact, local."""
        self.session.check_open()
        total = linear.sum_along(self, linear.axes_of(self, axis))
        kept: SharedArray = linear.kept_axes(total, self, axis, keepdims)
        return kept

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> SharedArray:
        """Mean along an axis, several, or all.

        Within one unit of the format's last place, 2^-16 by default, of the mean of the encoded
        values. At most 2 rounds, for the division by their number.
        """
        total = self.sum(axis)
        if total.size and not self.size:
            raise ShapeError(f"the mean needs at least one element, got shape {self.shape}")
        # Of no rows there are no means.
        found = scaling.divide(total, self.size // total.size, "mean") if total.size else total
        kept: SharedArray = linear.kept_axes(found, self, axis, keepdims)
        return kept

    def argmax(
        self, axis: int | None = None, *, one_hot: bool = False, keepdims: bool = False
    ) -> SharedArray:
        """Find the first largest value along an axis, or of all.

        Parameters
        ----------
        axis : int, optional
            Default: all elements, flattened.
        one_hot : bool, default=False
            Return, in place of indices, an array of the same shape with a one at each largest value
            and zeros elsewhere.
        keepdims : bool, default=False

        Returns
        -------
        SharedArray of whole numbers

        Notes
        -----
        3 rounds for 3 to 10 values, and 1 more to reveal or to use the result; no other value is
        revealed.
        """
        if isinstance(axis, tuple):
            raise ArgumentError(f"argmax takes one axis, or None for all, got {axis}")
        self.session.check_open()
        source = self.ravel() if axis is None else self
        number = 0 if axis is None else self._axis(axis)
        if not source.ndim or not source.shape[number]:
            raise ShapeError(f"the largest of no values does not exist, shape {self.shape}")
        if one_hot:
            return argmax.argmax_one_hot(source, number, self.shape)
        gone = range(self.ndim) if axis is None else (number,)
        shape = [
            1 if a in gone else n for a, n in enumerate(self.shape) if keepdims or a not in gone
        ]
        return argmax.argmax_index(source, number, tuple(shape))

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> SharedArray:
        """Find the first smallest value along an axis, or of all, as :meth:`argmax` does."""
        return linear.negative(self).argmax(axis, keepdims=keepdims)

    def relu(self) -> SharedArray:
        """Return max(x, 0), truncated to the format: 3 rounds, about 9 bytes an element."""
        self.session.check_open()
        return relu.relu(self)

    def relu_with_derivative(self) -> tuple[SharedArray, SharedArray]:
        """Return max(x, 0) and the bits [max(x, 0) > 0], at the cost of :meth:`relu`."""
        self.session.check_open()
        y, bit = relu.relu_with_derivative(self)
        return y, comparison.bit_array(y, bit)

    def gate(self, bit: SharedArray) -> SharedArray:
        """Multiply by secret bits of the same shape, and truncate to the format in the same round.

        This is bit injection, see :mod:`mpc.protocols.bit_injection`; costs book it as "gate".

        Parameters
        ----------
        bit : SharedArray
            The result of a comparison or of :meth:`relu_with_derivative`, not a view of one.

        Raises
        ------
        DtypeError, ShapeError
            If `bit` is of another kind or shape.
        """
        other = self.session.check_own(bit, "bit")
        if other.bit is None:
            raise DtypeError("bit must be the result of a comparison or of a ReLU")
        if other.shape != self.shape:
            raise ShapeError(f"bit must have the shape {self.shape}, got {other.shape}")
        return bit_injection.inject(self, other.bit)

    def softmax(self) -> SharedArray:
        """Return the softmax of each row, of up to 2^16 columns; for 10: 9 rounds, error at most 2e-4."""
        self.session.check_open()
        if self.ndim != 2 or not self.size:
            raise ShapeError(f"softmax needs a shape (rows, columns), got {self.shape}")
        return softmax.softmax(self)

    def log_softmax(self) -> SharedArray:
        """Return the logarithm of the softmax of each row; RangeError if it could leave the range."""
        self.session.check_open()
        if self.ndim != 2 or self.shape[1] < 2 or not self.size:
            raise ShapeError(f"log_softmax needs a shape (rows, columns >= 2), got {self.shape}")
        return softmax.log_softmax(self).T

    def mask_data(self) -> None:
        """Open the array under a mask now, so that products with batches of its rows need no opening.

        The mask has a key to itself. An array that has a mask already, from a product, keeps that one.
        """
        self.session.check_open()
        masking.mask_data(self)

    def truncate(self) -> SharedArray:
        """Return x with no more than the format's fractional bits: 1 round if it has more."""
        self.session.check_open()
        return truncation.to_format(self)

    def with_bound(self, limit: float) -> SharedArray:
        """Return the array with the bound `limit` on magnitudes, which the caller knows to hold.

        Comparisons then take fewer bits, and more results are proven to be in range. The statement is
        checked as the session's `ranges` say: in a local session on the values; with "check" and
        "error" on shares, opening one bit. With "warn" it is not checked, and a
        :class:`mpc.RangeWarning` says so once.

        Raises
        ------
        RangeError
            If a value is larger.
        """
        bound = sharing.encoded_limit(limit, self.frac_bits, "limit")
        if bound >= self.bound:
            return self
        self.session.check_open()
        self.session.range_policy.settle_bound(self, bound, f"with_bound({limit:g})")
        return self.with_integer_bound(bound)

    def reveal(self, to: str | None = None) -> Any:
        """Reveal the array to one party or to all; see :meth:`mpc.Session.reveal`.

        A product z with more fractional bits than the format's is truncated first, once. Then the
        result tells z + U exactly, where U is uniform below one unit of the result's last place.
        """
        return self.session.reveal(self, to)

    # NumPy's protocols.

    def __getattr__(self, name: str) -> Any:
        message = f"a SharedArray has no attribute {name!r}"
        if not name.startswith("__") and hasattr(np.ndarray, name):
            message += f": {missing_attribute(name)}"
        raise AttributeError(message, name=name, obj=self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return apply_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return apply_function(func, args, kwargs)


def _multiply(x: SharedArray, y: Any) -> SharedArray:
    if not isinstance(y, SharedArray):
        return scaling.multiply(x, y)
    for bit, other in ((x, y), (y, x)):
        if bit.bit is not None and bit.shape == other.shape:
            return select.multiply_bit(other, bit.bit)
    return product.multiply(x, y)


def _matmul(x: SharedArray, y: Any, reverse: bool) -> SharedArray:
    left, right = (y, x) if reverse else (x, y)
    if left.ndim == 0 or right.ndim == 0:
        raise ShapeError("operands of @ must have at least one axis, got a scalar; use *")
    # Vectors become matrices, as for NumPy.
    rows = left.reshape(1, -1) if left.ndim == 1 else left
    columns = right.reshape(-1, 1) if right.ndim == 1 else right
    if not isinstance(y, SharedArray):
        shared, public = (columns, rows) if reverse else (rows, columns)
        z = scaling.matmul(shared, public, reverse=reverse)
    else:
        z = product.matmul(rows, columns)
    shape = z.shape
    if left.ndim == 1:
        shape = (*shape[:-2], shape[-1])
    if right.ndim == 1:
        shape = shape[:-1]
    return z.reshape(shape) if shape != z.shape else z
