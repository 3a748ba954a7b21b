"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from nn.core.checks import integer, interval
from nn.layers.initialisation import he_normal
from nn.layers.layer import Layer, Shape, Weighted, register
from ring.errors import ShapeError

__all__ = ["Dense"]


@register
class Dense(Weighted):
    """Fully connected layer: ``x @ weights + bias``, over the last axis of a row.

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
        """Return a layer that is to be trained, with zeros for parameters.

        Parameters
        ----------
        inputs, outputs : int
            At least 1.

        Raises
        ------
        ArgumentError, DtypeError
            If a size is no integer of at least 1.

        Examples
        --------
        >>> from nn.layers import Dense
        >>> Dense.untrained(100, 10)
        Dense(100, 10)
        """
        sizes = integer("inputs", inputs, 1), integer("outputs", outputs, 1)
        return cls(np.zeros(sizes), np.zeros(sizes[1]))

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Layer:
        inputs, outputs = self.weights.shape
        weights = he_normal(inputs, outputs, random, dtype)
        return self.with_parameters([weights, np.zeros(self.bias.shape, dtype=weights.dtype)])

    def __repr__(self) -> str:
        return "Dense({}, {})".format(*self.weights.shape)

    def __call__(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        if len(shape) == 1:
            return x @ self.weights + self.bias
        return (_flat(x) @ self.weights + self.bias).reshape((x.shape[0], *shape))

    def forward(self, x: Any) -> Any:
        shape = self.output_shape(tuple(x.shape)[1:])
        self._memory = x if len(shape) == 1 else _flat(x)
        output = self._memory @ self.weights + self.bias
        return output if len(shape) == 1 else output.reshape((x.shape[0], *shape))

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        if isinstance(gradient, SharedArray):
            # Truncated once, so that both products use the same masked gradient.
            gradient = gradient.truncate()
        shape = tuple(gradient.shape)
        gradient = gradient if len(shape) == 2 else _flat(gradient)
        # First: it opens the gradient to all, the product with an owner's input to the owner alone.
        back = gradient @ self.weights.T if input_gradient else None
        self.gradients = [x.T @ gradient, gradient.sum(axis=0)]
        if back is None:
            return None
        return back if len(shape) == 2 else back.reshape((*shape[:-1], x.shape[1]))

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        inputs = self.weights.shape[:1]
        if {*lows.shape[-1:], *highs.shape[-1:]} - {*inputs, 1}:
            raise ShapeError(
                f"low and high must be scalars or have {inputs[0]} entries, "
                f"got shapes {lows.shape} and {highs.shape}"
            )
        lows, highs, _ = np.broadcast_arrays(lows, highs, np.empty(inputs))
        weights = np.asarray(self.weights, dtype=np.float64)
        bias = np.asarray(self.bias, dtype=np.float64)
        # The least output has the low input where a weight is positive, the high input elsewhere.
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
        magnitude, error, _ = np.broadcast_arrays(magnitude, error, np.empty(inputs))
        off = magnitude @ np.abs(rounded - weights)
        grown: NDArray[Any] = error @ np.abs(rounded)
        return grown + off + np.abs(np.rint(bias / unit) * unit - bias)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        # Input: masks, messages and opened values. Output: shares and messages.
        inputs, outputs = self.weights.shape
        times = math.prod(input_shape[:-1])
        return int(times * ((4 * parties + 2) * inputs + 4 * (parties + 1) * outputs))

    def output_shape(self, input_shape: Shape) -> Shape:
        inputs, outputs = self.weights.shape
        shape = tuple(input_shape)
        if shape[-1:] != (inputs,):
            raise ShapeError(f"{self!r} takes rows of shape ({inputs},), got shape {shape}")
        return (*shape[:-1], int(outputs))


def _flat(x: Any) -> Any:
    """Return rows as a matrix of their last axis."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))
