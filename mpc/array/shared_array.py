"""SharedArray: a secret array that is used like a NumPy array."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike

from mpc.array.numpy_functions import apply_function, apply_ufunc
from mpc.core.errors import ArgumentError, DtypeError, SessionError, ShapeError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import SecretValue
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

__all__ = ["Operand", "SharedArray"]

Operand: TypeAlias = Union["SharedArray", ArrayLike]


class SharedArray(SecretValue):
    """Shares of a secret array.

    Made by :meth:`mpc.Session.share` and by operations on other shared arrays, never by hand. The
    operators ``+ - * @ / < <= > >= == !=``, indexing, and NumPy's functions work as on an array;
    what would reveal a value does not, except :meth:`reveal`.

    Attributes
    ----------
    session : Session
    shape : tuple of int
    frac_bits : int
        Bits behind the point: 0 for whole numbers, the format's for fixed-point values, twice
        the format's for a product that was not truncated yet.
    bound : int
        A public bound on the magnitude of the encoded value, below 2^62. It follows every operation,
        and chooses how many bits a comparison looks at. An operation whose result it does not
        prove to stay below 2^62 is checked, or refused, or warned of: see `ranges` of
        :class:`mpc.Session`.
    binary : bool
        Whether these are secret bits: what comparisons give, or bools that were shared.

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
    # A mpc.Session, which stands above and makes these arrays.
    session: Any
    __hash__ = None  # type: ignore[assignment]
    # Above a Series and a DataFrame, which leave their operators to what has more.
    __pandas_priority__ = 5000

    @classmethod
    def from_public(
        cls, session: Runtime, values: ArrayLike, frac_bits: int, bound: int
    ) -> SharedArray:
        """Make an array of public numbers, of which the encoded ones have a bound (for models)."""
        return cls(session, sharing.public_shares(session, values, frac_bits), frac_bits, bound)

    # Operators.

    def _operand(self, other: object) -> Any:
        """Return other as it can be used with self, or NotImplemented."""
        self.session.check_open()
        if isinstance(other, SharedArray):
            if other.session is not self.session:
                raise SessionError("operands belong to different sessions")
            return other
        if isinstance(other, (np.ndarray, np.generic, int, float, list, tuple)):
            return linear.public(other)
        # A table or column of pandas, say; a sparse matrix, to be refused.
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
            raise DtypeError(
                "division by a secret is not supported; multiply by a reciprocal shared by its owner"
            )
        return self._apply(scaling.divide, other)

    def __rtruediv__(self, other: Operand) -> SharedArray:
        raise DtypeError(
            "division by a secret is not supported; multiply by a reciprocal shared by its owner"
        )

    def __pow__(self, exponent: int) -> SharedArray:
        try:
            power = operator.index(exponent)
        except TypeError:
            raise DtypeError(f"exponent must be a whole number, got {exponent!r}") from None
        if power < 1:
            raise ArgumentError(f"exponent must be at least 1, got {power}")
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

    def __neg__(self) -> SharedArray:
        self.session.check_open()
        return linear.negative(self)

    def __pos__(self) -> SharedArray:
        return self

    def __abs__(self) -> SharedArray:
        self.session.check_open()
        return maximum.absolute(self)

    def __invert__(self) -> SharedArray:
        """Return the other bit, for an array of secret bits."""
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
                f"operands of {sign} must be secret bits: what comparisons give, or bools that were"
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
            raise DtypeError(f"operands of {sign} must be bits, got a public operand with others")
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

    def sum(self, axis: int | tuple[int, ...] | None = None) -> SharedArray:
        """Sum along an axis, several, or all."""
        self.session.check_open()
        if axis is not None:
            axis = (
                tuple(self._axis(a) for a in axis) if isinstance(axis, tuple) else self._axis(axis)
            )
            if isinstance(axis, tuple) and len(set(axis)) < len(axis):
                raise ShapeError(f"axis must not name an axis twice, got {axis}")
        return linear.sum_along(self, axis)

    def mean(self, axis: int | tuple[int, ...] | None = None) -> SharedArray:
        """Mean along an axis, several, or all.

        Within one unit of the format's last place, 2^-16 by default, of the mean of the encoded
        values. At most 2 rounds, for the division by their number.
        """
        total = self.sum(axis)
        if not total.size or not self.size:
            raise ShapeError(f"the mean needs at least one element, got shape {self.shape}")
        return scaling.divide(total, self.size // total.size, "mean")

    def max(self, axis: int | None = None) -> SharedArray:
        """Maximum along an axis, or of all: 7 rounds for 10 values."""
        return maximum.max_along(*self._along(axis))

    def min(self, axis: int | None = None) -> SharedArray:
        """Minimum along an axis, or of all: 7 rounds for 10 values."""
        return -(-self).max(axis)

    def argmax(self, axis: int | None = None, *, one_hot: bool = False) -> SharedArray:
        """Find the first largest value along an axis, or of all.

        Parameters
        ----------
        axis : int, optional
            Default: all elements, flattened.
        one_hot : bool, default=False
            Return zeros with a one where the largest value is, in the shape of the array, rather
            than its index.

        Returns
        -------
        SharedArray of whole numbers

        Notes
        -----
        6 rounds for 6 to 16 values; no value is revealed.
        """
        source, number = self._along(axis)
        found = argmax.argmax_one_hot(source, number)
        if one_hot:
            return found if axis is not None else found.reshape(self.shape)
        shape = [1] * source.ndim
        shape[number] = -1
        index = (found * np.arange(source.shape[number]).reshape(shape)).sum(number)
        return index.with_integer_bound(max(1, source.shape[number] - 1))

    def _along(self, axis: int | None) -> tuple[SharedArray, int]:
        self.session.check_open()
        source = self.ravel() if axis is None else self
        number = 0 if axis is None else self._axis(axis)
        if source.ndim == 0 or source.shape[number] == 0:
            raise ShapeError(f"the largest of no values does not exist, shape {self.shape}")
        return source, number

    def relu(self) -> SharedArray:
        """Return max(x, 0), truncated to the format: 4 rounds, about 10 bytes an element."""
        self.session.check_open()
        return relu.relu(self)

    def relu_with_derivative(self) -> tuple[SharedArray, SharedArray]:
        """Return max(x, 0) and, for nothing, the bits of that > 0; see :meth:`relu`."""
        self.session.check_open()
        y, bit = relu.relu_with_derivative(self)
        return y, comparison.bit_array(y, bit)

    def gate(self, bit: SharedArray) -> SharedArray:
        """Multiply by a secret bit of the same shape, truncated to the format in the same round.

        Parameters
        ----------
        bit : SharedArray
            As comparisons and :meth:`relu_with_derivative` give it, not a view of such an array.

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
        """Return the softmax of each row of up to 2^16: 24 rounds and error at most 2e-4 for 10."""
        self.session.check_open()
        if self.ndim != 2 or not self.size:
            raise ShapeError(f"softmax needs a shape (rows, columns), got {self.shape}")
        return softmax.softmax(self)

    def log_softmax(self) -> SharedArray:
        """Return the logarithm of the softmax of each row; refused if its bound is beyond the ring."""
        self.session.check_open()
        if self.ndim != 2 or self.shape[1] < 2 or not self.size:
            raise ShapeError(f"log_softmax needs a shape (rows, columns >= 2), got {self.shape}")
        return softmax.log_softmax(self).T

    def mask_data(self) -> None:
        """Open the array under its mask now, so that batches of its rows need no opening later."""
        self.session.check_open()
        masking.mask_data(self)

    def truncate(self) -> SharedArray:
        """Return x with no more than the format's fractional bits: 1 round if it has more."""
        self.session.check_open()
        return truncation.to_format(self)

    def with_bound(self, limit: float) -> SharedArray:
        """State that every value is at most `limit` in magnitude, known by other means.

        Comparisons then look at fewer bits, and more operations are proven to fit. Checked as the
        session's `ranges` say: on the values in a local session; on shares, opening one bit, with
        "check" and with "error"; with "warn" it is taken on trust, and a :class:`mpc.RangeWarning`
        says so once.

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

        A product z with more fractional bits than the format's is truncated first, once in its life.
        Then z + U is learnt exactly, U uniform below one unit of the result's last place.
        """
        return self.session.reveal(self, to)

    # NumPy's protocols.

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
