"""Methods of shared arrays that NumPy's arrays have: reductions, and elements in another order."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from mpc.array import shapes, sorting, statistics
from mpc.array.smooth_methods import SmoothMethods
from mpc.core.errors import ShapeError
from mpc.protocols import linear, maximum, range_check
from mpc.protocols.linear import Axis

__all__ = ["ArrayMethods"]


class ArrayMethods(SmoothMethods):
    """The part of SharedArray with reductions, and with elements in another order.

    `axis` and `keepdims` are NumPy's. What each function costs, and how exact it is: the page *NumPy's
    functions* of the documentation.
    """

    __slots__ = ()
    session: Any

    def _as_numpy(self, function: Any, *arguments: Any) -> Self:
        found: Self = function(self, *arguments)
        return found

    # Spreads, products and sums so far.

    def var(self, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Self:
        """Variance along an axis, several, or all: the mean of squared deviations from the mean.

        Within 1.1 units of the format, 2.1 for more than 1024 elements. Squares of 1024 deviations must
        add up to less than 2^30 in the default format. At most 6 rounds.

        Parameters
        ----------
        axis : int or tuple of int, optional
        ddof : float, default=0
            The sum is divided by the number of elements minus this.
        keepdims : bool, default=False

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([1.0, 2.0, 6.0], owner="alice").var(ddof=1).reveal().round(3)
        np.float64(7.0)
        """
        self.session.check_open()
        return statistics.variance(self, axis, ddof, keepdims)

    def std(self, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Self:
        """Standard deviation: the root of :meth:`var`, of which the root magnifies the error near 0."""
        with range_check.Later(self.session):
            return self.var(axis, ddof=ddof, keepdims=keepdims).sqrt()

    def prod(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Product along an axis, several, or all, in pairs: 2 rounds for each power of two of their number.

        Each product must be in range, and is off by a unit of the format, which the later ones multiply.
        """
        self.session.check_open()
        found = statistics.multiplied(self, axis)
        return linear.kept_axes(found, self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Self:
        """Sums up to each element along an axis, or of all, flattened: exact, local."""
        self.session.check_open()
        return statistics.cumulated(self, axis)

    def cumprod(self, axis: int | None = None) -> Self:
        """Products up to each element: 2 rounds for each power of two of their number; see :meth:`prod`."""
        return self._as_numpy(np.cumprod, axis)

    def dot(self, b: Any) -> Self:
        """Return NumPy's dot: ``x @ b`` of vectors and matrices."""
        return self._as_numpy(np.dot, b)

    # The largest and the smallest.

    def clip(self, min: Any = None, max: Any = None) -> Self:
        """Return the values, cut off below `min` and above `max`: 3 rounds for each that is given.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([3.0, -1.0, 2.0], owner="alice").clip(0, 2.5).reveal()
        array([2.5, 0. , 2. ])
        """
        return self._as_numpy(np.clip, min, max)

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Maximum along an axis, or of all: 5 rounds for 10 values."""
        found = maximum.max_along(*self._along(axis))
        return linear.kept_axes(found, self, axis, keepdims)

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Minimum along an axis, or of all: 5 rounds for 10 values."""
        return linear.negative(linear.negative(self).max(axis, keepdims=keepdims))

    def ptp(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Maximum minus minimum, both found at once: 5 rounds for 10 values."""
        rows, number = self._along(axis)
        both = maximum.max_along(linear.stack([rows, linear.negative(rows)]), number + 1)
        return linear.kept_axes(both.sum(0), self, axis, keepdims)

    def _along(self, axis: Axis) -> tuple[Self, int]:
        """Return the array with the axes to be reduced joined into one, the last, and its number."""
        self.session.check_open()
        rows = statistics.along(self, axis)
        self._check_some(rows, rows.ndim - 1)
        if isinstance(axis, int):
            return self, self._axis(axis)
        return rows, rows.ndim - 1

    def _check_some(self, source: Self, number: int) -> None:
        if source.ndim == 0 or source.shape[number] == 0:
            raise ShapeError(f"the largest of no values does not exist, shape {self.shape}")

    # Order.

    def sort(self, axis: int | None = -1) -> Self:
        """Return the values along an axis in ascending order, or of all, flattened; exact.

        Unlike NumPy's method it makes a new array. 6 rounds up to 64 values. More: 42 rounds for 100,000 of
        two parties; without a provider a network of 4 rounds a stage, 136 stages for 2^16.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     s.share([3.0, -1.0, 2.0], owner="alice").sort().reveal()
        array([-1.,  2.,  3.])
        """
        return sorting.order(self, axis)[0]

    def argsort(self, axis: int | None = -1) -> Self:
        """Return the places that the sorted values come from; of equal ones the first comes first."""
        return sorting.order(self, axis, values=False, index=True)[1]

    def topk(self, k: int, axis: int = -1) -> tuple[Self, Self]:
        """Return the k largest values along an axis, the largest first, and their places.

        Examples
        --------
        >>> import mpc
        >>> with mpc.Session() as s:
        ...     values, places = s.share([3, 7, 5], owner="alice").topk(2)
        ...     print(values.reveal(), places.reveal())
        [7 5] [1 2]
        """
        self.session.check_open()
        return sorting.top(self, k, axis)

    # Bits.

    def any(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Whether an element is not zero, as secret bits: 5 rounds."""
        self.session.check_open()
        found = statistics.count(self, axis) != 0
        return linear.kept_axes(found, self, axis, keepdims)

    def all(self, axis: Axis = None, *, keepdims: bool = False) -> Self:
        """Whether no element is zero, as secret bits: 5 rounds."""
        self.session.check_open()
        zeros = (~statistics.nonzero_bits(self)).sum(axis)
        return linear.kept_axes(zeros == 0, self, axis, keepdims)

    # The same elements, or in another order: local.

    def copy(self) -> Self:
        """Return the array as a new one."""
        return self._as_numpy(np.copy)

    def conjugate(self) -> Self:
        """Return the array: its elements are real."""
        return self._as_numpy(np.conjugate)

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Self:
        """Leave out axes of one element."""
        return shapes.squeezed(self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """Exchange two axes."""
        return shapes.swapped(self, axis1, axis2)

    def repeat(self, repeats: Any, axis: int | None = None) -> Self:
        """Repeat elements."""
        return shapes.FUNCTIONS[np.repeat](self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Self:
        """Take elements by public indices."""
        return shapes.FUNCTIONS[np.take](self, indices, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Self:
        """Take the diagonal of two axes."""
        return shapes.FUNCTIONS[np.diagonal](self, offset, axis1, axis2)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Self:
        """Sum the diagonal of two axes: exact."""
        return shapes.FUNCTIONS[np.trace](self, offset, axis1, axis2)
