"""Layers with several inputs: sums, differences, products, the largest, the mean, joining along an axis.

Where one of these layers takes its input, it takes a tuple, with an entry for each input; the same holds
of shapes, bounds and errors, and of the gradients that ``backward`` returns. Rows of the inputs
broadcast as NumPy's arrays do, if they have the same number of axes.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from mpc.protocols import linear
from nn.core.checks import integer, interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import ShapeError

__all__ = ["Add", "Concat", "MatMul", "Maximum", "Mean", "Minimum", "Multiply", "Subtract"]


class _Joining(Layer):
    """Base class of layers with several inputs."""

    joins = True
    # How many inputs there must be; None for any number.
    count: ClassVar[int | None] = None

    def _checked(self, shapes: Any) -> list[Shape]:
        found = [tuple(shape) for shape in shapes]
        if not found or (self.count is not None and len(found) != self.count):
            raise ShapeError(
                f"{self!r} takes {self.count or 'one or more'} inputs, got {len(found)}"
            )
        return found

    def shared_words(self, input_shape: Any, parties: int) -> int:
        # Shares of inputs and output, and temporaries.
        sizes = sum(map(math.prod, input_shape)) + math.prod(self.output_shape(input_shape))
        return (2 * parties + 2) * sizes


class _Elementwise(_Joining):
    """Base class of layers whose inputs broadcast."""

    def output_shape(self, input_shape: Any) -> Shape:
        shapes = self._checked(input_shape)
        try:
            if len({len(shape) for shape in shapes}) > 1:
                raise ValueError
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ShapeError(f"{self!r} takes rows that broadcast, got shapes {shapes}") from None

    def forward(self, x: Any) -> Any:
        self._memory = [tuple(part.shape) for part in x]
        return self(x)


def _intervals(low: Any, high: Any) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    return [interval(a, b) for a, b in zip(low, high, strict=True)]


def _summed_to(gradient: Any, shape: Shape) -> Any:
    """Return the gradient at an input of the given shape, which was broadcast to the gradient's."""
    axes = tuple(k for k, (a, b) in enumerate(zip(gradient.shape, shape, strict=True)) if a != b)
    return gradient.sum(axis=axes).reshape(shape) if axes else gradient


@register
class Add(_Elementwise):
    """The sum of any number of inputs.

    On shares it takes no communication: inputs are brought to one number of fractional bits.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Add
    >>> Add()((np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])))
    array([[11., 22.]])
    """

    # On shares the parts carry the bits of the one with most, as the sum does.
    keeps_bits = True

    def __call__(self, x: Any) -> Any:
        return functools.reduce(operator.add, x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        shapes = self._remembered()
        return tuple(_summed_to(gradient, shape) for shape in shapes) if input_gradient else None

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        parts = _intervals(low, high)
        return np.asarray(self([a for a, _ in parts])), np.asarray(self([b for _, b in parts]))

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        # The magnitudes give the errors their shapes.
        return np.asarray(sum(e + 0 * m for m, e in zip(magnitude, error, strict=True)))


@register
class Subtract(Add):
    """The first input minus the second.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Subtract
    >>> Subtract()((np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])))
    array([[ -9., -18.]])
    """

    count = 2

    def __call__(self, x: Any) -> Any:
        first, second = x
        return first - second

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        first, second = self._remembered()
        if not input_gradient:
            return None
        return _summed_to(gradient, first), _summed_to(-gradient, second)

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        (a, b), (c, d) = _intervals(low, high)
        return np.asarray(a - d), np.asarray(b - c)

    def reach(self, magnitude: Any) -> SharedArray:
        bound: SharedArray = magnitude[0] + magnitude[1]
        return bound


@register
class Mean(Add):
    """The mean of any number of inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Mean
    >>> Mean()((np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])))
    array([[ 5.5, 11. ]])
    """

    keeps_bits = False

    def __call__(self, x: Any) -> Any:
        return super().__call__(x) * (1 / len(x))

    def forward(self, x: Any) -> Any:
        return super().forward(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        count = len(self._remembered())
        return super().backward(gradient * (1 / count), input_gradient=input_gradient)

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        total = super().fixed_point_error(magnitude, error, frac_bits)
        return np.asarray(total / len(error) + 2.0 * 2.0**-frac_bits)


def _products(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and greatest product of numbers in [a, b] and [c, d]."""
    ends = [a * c, a * d, b * c, b * d]
    return functools.reduce(np.minimum, ends), functools.reduce(np.maximum, ends)


@register
class Multiply(_Elementwise):
    """The product of two inputs, element by element.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Multiply
    >>> Multiply()((np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])))
    array([[10., 40.]])
    """

    count, doubles = 2, True

    def __call__(self, x: Any) -> Any:
        first, second = x
        return first * second

    def forward(self, x: Any) -> Any:
        if isinstance(x[0], SharedArray):
            x = tuple(part.truncate() for part in x)  # once, for the product and both gradients
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        first, second = self._remembered()
        if not input_gradient:
            return None
        if isinstance(gradient, SharedArray):
            gradient = gradient.truncate()
        return (
            _summed_to(gradient * second, tuple(first.shape)),
            _summed_to(gradient * first, tuple(second.shape)),
        )

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        (a, b), (c, d) = _intervals(low, high)
        least, most = _products(a, b, c, d)
        if low[0] is low[1] and high[0] is high[1]:  # the square of one value
            least = np.where((a < 0) & (b > 0), 0.0, np.minimum(a * a, b * b))
        return least, most

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        (m, n), (e, f) = magnitude, (error[0] + 2.0**-frac_bits, error[1] + 2.0**-frac_bits)
        # Operands may be truncated first.
        return np.asarray(m * f + n * e + e * f)

    def shared_words(self, input_shape: Any, parties: int) -> int:
        sizes = sum(map(math.prod, input_shape)) + math.prod(self.output_shape(input_shape))
        return 4 * (parties + 1) * sizes


class _Extreme(_Elementwise):
    """Base class of the largest and the smallest of any number of inputs."""

    may_grow = False
    function: ClassVar[Any]

    def __call__(self, x: Any) -> Any:
        return functools.reduce(type(self).function, x)

    def forward(self, x: Any) -> Any:
        raise ShapeError(f"{self!r} cannot be trained")

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        raise ShapeError(f"{self!r} cannot be trained")

    trains = False

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        parts = _intervals(low, high)
        return np.asarray(self([a for a, _ in parts])), np.asarray(self([b for _, b in parts]))

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        parts = [e + 0 * m for m, e in zip(magnitude, error, strict=True)]
        return np.asarray(functools.reduce(np.maximum, parts) + 2.0**-frac_bits * len(parts))

    def shared_words(self, input_shape: Any, parties: int) -> int:
        return 20 * (parties + 1) * math.prod(self.output_shape(input_shape)) * len(input_shape)


@register
class Maximum(_Extreme):
    """The largest of any number of inputs, element by element.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Maximum
    >>> Maximum()((np.array([[1.0, 20.0]]), np.array([[10.0, 2.0]])))
    array([[10., 20.]])
    """

    function = np.maximum


@register
class Minimum(_Extreme):
    """The smallest of any number of inputs, element by element.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Minimum
    >>> Minimum()((np.array([[1.0, 20.0]]), np.array([[10.0, 2.0]])))
    array([[1., 2.]])
    """

    function = np.minimum


@register
class Concat(_Joining):
    """The inputs, joined along an axis of a row.

    Parameters
    ----------
    axis : int, default=0
        Axis of a row, counted from 0 without the axis of the rows.

    Raises
    ------
    ArgumentError, DtypeError
        If `axis` is no integer of at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Concat
    >>> Concat()((np.array([[1.0, 2.0]]), np.array([[10.0]])))
    array([[ 1.,  2., 10.]])
    """

    options = ("axis",)
    may_grow, keeps_bits = False, True

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = integer("axis", axis, 0)

    def __repr__(self) -> str:
        return f"Concat({self.axis})"

    def output_shape(self, input_shape: Any) -> Shape:
        shapes = self._checked(input_shape)
        rest = {(*shape[: self.axis], *shape[self.axis + 1 :]) for shape in shapes}
        if len(rest) > 1 or len({len(s) for s in shapes}) > 1 or len(shapes[0]) <= self.axis:
            raise ShapeError(f"{self!r} takes rows that differ in that axis alone, got {shapes}")
        total = sum(shape[self.axis] for shape in shapes)
        return (*shapes[0][: self.axis], total, *shapes[0][self.axis + 1 :])

    def _joined(self, parts: Any, axis: int) -> Any:
        parts = list(parts)
        if isinstance(parts[0], SharedArray):
            return linear.concatenate(parts, axis)
        return np.concatenate(parts, axis)

    def __call__(self, x: Any) -> Any:
        return self._joined(x, self.axis + 1)

    def forward(self, x: Any) -> Any:
        self._memory = [int(part.shape[self.axis + 1]) for part in x]
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        sizes = self._remembered()
        if not input_gradient:
            return None
        stops = np.cumsum(sizes).tolist()
        before = (slice(None),) * (self.axis + 1)
        return tuple(
            gradient[(*before, slice(stop - size, stop))]
            for stop, size in zip(stops, sizes, strict=True)
        )

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        parts = _intervals(low, high)
        lows, highs = ([pair[k] for pair in parts] for k in (0, 1))
        return np.concatenate(lows, self.axis), np.concatenate(highs, self.axis)

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        # Parts with twice the fractional bits may be truncated where there is no room.
        parts = [np.broadcast_to(e, np.shape(m)) for m, e in zip(magnitude, error, strict=True)]
        return np.concatenate(parts, self.axis) + 2.0**-frac_bits


@register
class MatMul(_Joining):
    """The matrix product of two inputs, over the last two axes of their rows.

    Axes before these broadcast, as for :func:`numpy.matmul`.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import MatMul
    >>> MatMul()((np.ones((1, 2, 3)), np.ones((1, 3, 1))))[0]
    array([[3.],
           [3.]])
    """

    count, doubles = 2, True

    def output_shape(self, input_shape: Any) -> Shape:
        first, second = self._checked(input_shape)
        try:
            if len(first) < 2 or len(first) != len(second) or first[-1] != second[-2]:
                raise ValueError
            return (*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1])
        except ValueError:
            raise ShapeError(
                f"{self!r} takes rows of matrices whose sizes fit, got shapes {[first, second]}"
            ) from None

    def __call__(self, x: Any) -> Any:
        first, second = x
        return first @ second

    def forward(self, x: Any) -> Any:
        if isinstance(x[0], SharedArray):
            x = tuple(part.truncate() for part in x)
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        first, second = self._remembered()
        if not input_gradient:
            return None
        if isinstance(gradient, SharedArray):
            gradient = gradient.truncate()
        order = (*range(len(first.shape) - 2), len(first.shape) - 1, len(first.shape) - 2)
        return (
            _summed_to(gradient @ second.transpose(order), tuple(first.shape)),
            _summed_to(first.transpose(order) @ gradient, tuple(second.shape)),
        )

    def bounds(self, low: Any, high: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        (a, b), (c, d) = _intervals(low, high)
        # By middles and radii: |x y - m n| <= |m| s + r |n| + r s for x in m +- r, y in n +- s.
        m, n, r, s = (a + b) / 2, (c + d) / 2, (b - a) / 2, (d - c) / 2
        middle, radius = m @ n, np.abs(m) @ s + r @ (np.abs(n) + s)
        return middle - radius, middle + radius

    def fixed_point_error(self, magnitude: Any, error: Any, frac_bits: int) -> NDArray[Any]:
        m, n = magnitude
        e, f = (
            np.broadcast_to(p + 2.0**-frac_bits, q.shape)
            for p, q in zip(error, magnitude, strict=True)
        )
        return np.asarray(m @ f + e @ (n + f))

    def shared_words(self, input_shape: Any, parties: int) -> int:
        sizes = sum(map(math.prod, input_shape)) + math.prod(self.output_shape(input_shape))
        return 4 * (parties + 1) * sizes
