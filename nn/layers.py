"""Layers: what a network computes, and how gradients and value ranges pass through it.

A layer computes with operators and NumPy functions alone, so its parameters and its input may be
NumPy arrays or shared arrays. Rows come first in every input and gradient.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from nn.checks import integer, interval
from ring.errors import ArgumentError, ShapeError

__all__ = ["Dense", "Layer", "ReLU", "Weighted"]

Shape = tuple[int, ...]


class Layer(ABC):
    """One step of a network.

    ``layer(x)`` computes the output and remembers nothing. ``layer.forward(x)`` computes the same
    and keeps on the layer what the following ``layer.backward(gradient)`` needs. Only batch
    normalisation and dropout, which train otherwise than they predict, make a difference there.

    Attributes
    ----------
    gradients : list of array
        Gradients of the parameters, in their order, from the last ``backward``.
    """

    def __init__(self) -> None:
        self.gradients: list[Any] = []
        # What forward keeps for backward.
        self._memory: Any = None

    @property
    def parameters(self) -> list[Any]:
        """The arrays that training changes; none unless a layer says otherwise."""
        return []

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        if len(values):
            raise ArgumentError(f"{self!r} has no parameters, got {len(values)}")

    @abstractmethod
    def __call__(self, x: Any) -> Any:
        """Return the output for the rows `x`, of shape (rows, ...)."""

    def as_on_shares(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the output for plain rows by the formula that is used on shares."""
        output: NDArray[Any] = self(x)
        return output

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Return the output for the rows `x` and keep what ``backward`` needs."""

    @abstractmethod
    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        """Take the loss's gradient at the output back through the last ``forward``.

        Parameters
        ----------
        gradient : array of shape (rows, ...)
            Gradient of the loss with respect to this layer's output.
        input_gradient : bool
            False skips the gradient at the input, which a network's first layer does not need.

        Returns
        -------
        array of the input's shape, or None
            Gradient of the loss with respect to the input, None if it was not asked for. The
            parameters' gradients are in ``gradients``.

        Raises
        ------
        ArgumentError
            Before any ``forward``.
        """

    @abstractmethod
    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the least and greatest output for inputs between `low` and `high`, elementwise.

        Parameters
        ----------
        low, high : array_like
            Scalars, or arrays of one row's shape, `low` nowhere above `high`.

        Returns
        -------
        (ndarray, ndarray)
            Bounds of the output in float64, of one output row's shape where the layer knows it.
            They hold in real arithmetic; fixed-point rounding comes on top.
        """

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        """Return a bound on what fixed point adds to the output on shares, elementwise.

        Parameters
        ----------
        magnitude : ndarray
            The largest magnitude of each element of an input row.
        error : ndarray
            How far the input may be from its value in real arithmetic.
        frac_bits : int

        Returns
        -------
        ndarray
            NaN if not known, which is what a layer gives that does not say.
        """
        return np.asarray(np.nan)

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output row for input rows of `input_shape`.

        Raises
        ------
        ShapeError
            If the layer cannot take such rows.
        """

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        """Return about how many words of memory a row takes while it is evaluated on shares."""
        # Shares of the input and the output, and what an opening or a sum needs.
        sizes = math.prod(input_shape) + math.prod(self.output_shape(input_shape))
        return (2 * parties + 2) * sizes

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def with_parameters(self, values: Sequence[Any]) -> Self:
        """Return a layer like this one, with other parameters and nothing remembered."""
        twin = copy.copy(self)
        twin.parameters = list(values)
        twin.gradients, twin._memory = [], None
        return twin

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Layer:
        """Return a layer like this one, as it is before training, with weights from `random`."""
        return self.with_parameters([])

    def _remembered(self) -> Any:
        if self._memory is None:
            raise ArgumentError(f"{self!r}.backward needs a forward before it")
        return self._memory


class Weighted(Layer):
    """A layer with weights, whose last axis is the outputs, and a bias for each output."""

    def __init__(self, weights: Any, bias: Any) -> None:
        super().__init__()
        outputs = weights.shape[-1]
        if tuple(bias.shape) != (outputs,):
            raise ShapeError(
                f"bias must have one entry for each of {outputs} outputs, "
                f"got shape {tuple(bias.shape)}"
            )
        self.weights, self.bias = weights, bias

    @property
    def parameters(self) -> list[Any]:
        """The weights and the bias."""
        return [self.weights, self.bias]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        expected = [tuple(self.weights.shape), tuple(self.bias.shape)]
        if shapes != expected:
            raise ShapeError(f"{self!r} needs parameters of shapes {expected}, got {shapes}")
        self.weights, self.bias = values


class Dense(Weighted):
    """Fully connected layer: ``x @ weights + bias``.

    Parameters
    ----------
    weights : array of shape (inputs, outputs)
    bias : array of shape (outputs,)

    Raises
    ------
    ShapeError
        If `weights` does not have two axes, or `bias` not one entry for each output.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> layer = Dense(np.array([[1.0, -2.0], [3.0, 4.0]]), np.array([0.5, 0.0]))
    >>> layer(np.array([[1.0, 1.0]]))
    array([[4.5, 2. ]])
    >>> layer.bounds(0, 1)
    (array([ 0.5, -2. ]), array([4.5, 4. ]))
    """

    def __init__(self, weights: Any, bias: Any) -> None:
        if len(weights.shape) != 2:
            raise ShapeError(f"weights must have two axes (inputs, outputs), got {weights.shape}")
        super().__init__(weights, bias)

    @classmethod
    def untrained(cls, inputs: int, outputs: int) -> Dense:
        """Return a layer of zeros, which says what to train.

        Examples
        --------
        >>> from nn.layers import Dense
        >>> Dense.untrained(100, 10)
        Dense(100, 10)
        """
        sizes = integer("inputs", inputs, 1), integer("outputs", outputs, 1)
        return cls(np.zeros(sizes), np.zeros(sizes[1]))

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Layer:
        from nn.initialisation import he_normal  # which imports this module

        inputs, outputs = self.weights.shape
        weights = he_normal(inputs, outputs, random, dtype)
        return self.with_parameters([weights, np.zeros(self.bias.shape, dtype=weights.dtype)])

    def __repr__(self) -> str:
        return "Dense({}, {})".format(*self.weights.shape)

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        return x @ self.weights + self.bias

    def forward(self, x: Any) -> Any:
        output = self(x)
        self._memory = x
        return output

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        if isinstance(gradient, SharedArray):
            # Once, so that both products use the same array and open it once.
            gradient = gradient.truncate()
        self.gradients = [x.T @ gradient, gradient.sum(axis=0)]
        return gradient @ self.weights.T if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        inputs = self.weights.shape[:1]
        try:
            lows, highs = np.broadcast_to(lows, inputs), np.broadcast_to(highs, inputs)
        except ValueError:
            raise ShapeError(
                f"low and high must be scalars or have {inputs[0]} entries, "
                f"got shapes {lows.shape} and {highs.shape}"
            ) from None
        weights = np.asarray(self.weights, dtype=np.float64)
        bias = np.asarray(self.bias, dtype=np.float64)
        # The least output takes the low end where a weight is positive, the high end elsewhere.
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        return (
            lows @ positive + highs @ negative + bias,
            highs @ positive + lows @ negative + bias,
        )

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        unit = 2.0**-frac_bits
        inputs = self.weights.shape[:1]
        weights, bias = (np.asarray(p, dtype=np.float64) for p in (self.weights, self.bias))
        rounded = np.rint(weights / unit) * unit
        off = np.broadcast_to(magnitude, inputs) @ np.abs(rounded - weights)
        grown: NDArray[Any] = np.broadcast_to(error, inputs) @ np.abs(rounded)
        return grown + off + np.abs(np.rint(bias / unit) * unit - bias)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Masks, messages and opened values of the input; shares and messages of the output.
        inputs, outputs = self.weights.shape
        return int((4 * parties + 2) * inputs + 4 * (parties + 1) * outputs)

    def output_shape(self, input_shape: Shape) -> Shape:
        inputs, outputs = self.weights.shape
        if tuple(input_shape) != (inputs,):
            raise ShapeError(
                f"{self!r} takes rows of shape ({inputs},), got shape {tuple(input_shape)}"
            )
        return (int(outputs),)


class ReLU(Layer):
    """Rectifier: the greater of each element and 0.

    Its gradient at 0 is taken as 0, in the clear and on shares.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import ReLU
    >>> ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    def __call__(self, x: Any) -> Any:
        return np.maximum(x, 0)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            output, self._memory = x.relu_with_derivative()
            return output
        # The output tells the sign as well as the input does, and the next layer keeps it anyway.
        self._memory = self(x)
        return self._memory

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        memory = self._remembered()
        if not input_gradient:
            return None
        if isinstance(memory, SharedArray):
            return gradient.gate(memory)
        return gradient * (memory > 0)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        return np.maximum(lows, 0), np.maximum(highs, 0)

    def fixed_point_error(
        self, magnitude: NDArray[Any], error: NDArray[Any], frac_bits: int
    ) -> NDArray[Any]:
        return error + 2.0**-frac_bits

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # The correlated randomness, some 13 words an element and party, and what is opened.
        return 20 * (parties + 1) * math.prod(input_shape)
