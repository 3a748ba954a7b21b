"""Batch normalisation and dropout: layers of training in the clear, which no shared model has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from nn.core.checks import integer, interval, real
from nn.layers.convolution import Convolution
from nn.layers.dense import Dense
from nn.layers.graph import Graph, inputs_of
from nn.layers.layer import Layer, Shape
from nn.layers.scale import Scale
from ring.errors import ArgumentError, ShapeError

__all__ = ["BatchNorm", "Dropout", "folded"]


def _refuse_shares(layer: Layer, x: Any) -> None:
    if isinstance(x, SharedArray):
        raise ArgumentError(f"{layer!r} is trained in the clear only, got a SharedArray")


class BatchNorm(Layer):
    """Batch normalisation over the last axis (Ioffe, Szegedy 2015).

    ``forward`` normalises by the mean and variance of the batch, and updates the running mean and
    variance; ``layer(x)`` normalises by the running ones. Before a model is shared, the layer is
    folded into the Dense or Convolution before it.

    Parameters
    ----------
    scale, shift : array of shape (channels,)
        The parameters, gamma and beta.
    mean, variance : array of shape (channels,), optional
        The running mean and variance; default 0 and 1.
    momentum : float, default=0.9
        Weight of the old running values in an update, in [0, 1).
    epsilon : float, default=1e-5
        Added to the variance. Above 0.

    Raises
    ------
    ShapeError
        If `scale`, `shift`, `mean` and `variance` are not vectors of one length.
    ArgumentError, DtypeError
        If `momentum` or `epsilon` breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import BatchNorm
    >>> layer = BatchNorm(np.ones(1), np.zeros(1))
    >>> layer.forward(np.array([[1.0], [3.0]])).round(2).tolist()
    [[-1.0], [1.0]]
    """

    only_trains = True

    def __init__(
        self,
        scale: Any,
        shift: Any,
        mean: Any = None,
        variance: Any = None,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.scale, self.shift = np.asarray(scale), np.asarray(shift)
        kind = self.scale.dtype
        self.mean = np.zeros(self.scale.shape, kind) if mean is None else np.asarray(mean)
        self.variance = (
            np.ones(self.scale.shape, kind) if variance is None else np.asarray(variance)
        )
        shapes = [a.shape for a in (self.scale, self.shift, self.mean, self.variance)]
        if self.scale.ndim != 1 or len(set(shapes)) > 1:
            raise ShapeError(
                f"scale, shift, mean and variance must be vectors, got shapes {shapes}"
            )
        self.momentum = real("momentum", momentum, least=0, below=1)
        self.epsilon = real("epsilon", epsilon, above=0, below=np.inf)

    @classmethod
    def untrained(cls, channels: int) -> BatchNorm:
        """Return a layer that is to be trained, for inputs whose last axis has `channels` entries."""
        count = integer("channels", channels, 1)
        return cls(np.ones(count), np.zeros(count))

    def __repr__(self) -> str:
        return f"BatchNorm({len(self.scale)})"

    @property
    def parameters(self) -> list[Any]:
        """The scale and the shift."""
        return [self.scale, self.shift]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [self.scale.shape] * 2:
            raise ShapeError(f"{self!r} needs two parameters of {self.scale.shape}, got {shapes}")
        self.scale, self.shift = values

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> BatchNorm:
        count = len(self.scale)
        layer = self.with_parameters([np.ones(count, dtype), np.zeros(count, dtype)])
        layer.mean, layer.variance = np.zeros(count, dtype), np.ones(count, dtype)
        return layer

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return float64 vectors with which ``layer(x)`` is ``x * factor + summand``."""
        factor = np.asarray(self.scale, np.float64) / np.sqrt(
            np.asarray(self.variance, np.float64) + self.epsilon
        )
        return factor, self.shift - self.mean * factor

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        factor, summand = self.affine()
        return x * factor.astype(self.scale.dtype) + summand.astype(self.scale.dtype)

    def forward(self, x: Any) -> Any:
        _refuse_shares(self, x)
        self.output_shape(tuple(x.shape)[1:])
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axis=axes)
        centred = x - mean
        variance = np.mean(centred * centred, axis=axes)
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normal = centred * inverse
        kept = self.momentum
        self.mean = (kept * self.mean + (1 - kept) * mean).astype(self.scale.dtype)
        self.variance = (kept * self.variance + (1 - kept) * variance).astype(self.scale.dtype)
        self._memory = normal, inverse
        return normal * self.scale + self.shift

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        normal, inverse = self._remembered()
        axes = tuple(range(gradient.ndim - 1))
        with_normal, total = (gradient * normal).sum(axis=axes), gradient.sum(axis=axes)
        self.gradients = [with_normal, total]
        if not input_gradient:
            return None
        count = gradient.size // len(self.scale)
        centred = gradient - total / count - normal * (with_normal / count)
        return centred * (self.scale * inverse)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        factor, summand = self.affine()
        ends = lows * factor + summand, highs * factor + summand
        return np.minimum(*ends), np.maximum(*ends)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if not shape or shape[-1] != len(self.scale):
            raise ShapeError(f"{self!r} takes {len(self.scale)} channels, got shape {shape}")
        return shape


class Dropout(Layer):
    """Dropout: ``forward`` sets random elements to 0 and divides the others by ``1 - rate``.

    ``layer(x)`` returns `x`. Before a model is shared, the layer is left out.

    Parameters
    ----------
    rate : float, default=0.5
        Probability of an element to be set to 0, in [0, 1).
    random : numpy.random.Generator, optional
        Draws the elements; ``fit`` replaces it by one that follows from the model's random_state.

    Raises
    ------
    ArgumentError, DtypeError
        If `rate` is no number in [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dropout
    >>> Dropout(0.5)(np.ones((1, 3)))
    array([[1., 1., 1.]])
    """

    only_trains, may_grow = True, False

    def __init__(self, rate: float = 0.5, random: np.random.Generator | None = None) -> None:
        super().__init__()
        self.rate = real("rate", rate, least=0, below=1)
        self._random = np.random.default_rng() if random is None else random

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Dropout:
        # A generator of its own, so that a network without dropout has the same initial weights.
        return Dropout(self.rate, random.spawn(1)[0])

    def __call__(self, x: Any) -> Any:
        return x

    def forward(self, x: Any) -> Any:
        _refuse_shares(self, x)
        kept = self._random.random(x.shape, dtype=np.float32) >= self.rate
        self._memory = kept * np.asarray(1 / (1 - self.rate), dtype=x.dtype)
        return x * self._memory

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        factor = self._remembered()
        return gradient * factor if input_gradient else None

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        return interval(low, high)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


def folded(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the layers that a model is shared with: no dropout, batch normalisation folded in.

    Batch normalisation goes into the Convolution or Dense before it, if nothing else takes that
    layer's output, and is a Scale elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> from nn.layers.normalisation import BatchNorm, folded
    >>> norm = BatchNorm(np.array([2.0]), np.ones(1), epsilon=1e-12)
    >>> (layer,) = folded([Dense(np.ones((2, 1)), np.zeros(1)), norm])
    >>> layer(np.array([[1.0, 2.0]])).round(6).tolist()
    [[7.0]]
    """
    if not any(isinstance(layer, (BatchNorm, Dropout)) for layer in layers):
        return layers
    wiring = inputs_of(layers)
    uses = Counter(k for taken in wiring for k in taken)
    nodes: list[tuple[Layer, tuple[int, ...]]] = []
    # Of each value its number among the nodes that are kept, and how often it is used.
    places, users = {0: 0}, {0: uses[0]}
    for number, (layer, taken) in enumerate(zip(layers, wiring, strict=True), start=1):
        given = tuple(places[k] for k in taken)
        last = nodes[given[0] - 1][0] if given[0] else None
        if isinstance(layer, Dropout):
            places[number] = given[0]
            users[given[0]] += uses[number] - 1
            continue
        if isinstance(layer, BatchNorm):
            factor, summand = layer.affine()
            if isinstance(last, (Convolution, Dense)) and users[given[0]] == 1:
                weights, bias = (np.asarray(p) for p in last.parameters)
                kind = weights.dtype
                made = last.with_parameters(
                    [(weights * factor).astype(kind), (bias * factor + summand).astype(kind)]
                )
                nodes[given[0] - 1] = made, nodes[given[0] - 1][1]
                places[number] = given[0]
                users[given[0]] = uses[number]
                continue
            kind = layer.scale.dtype
            layer = Scale(factor.astype(kind), summand.astype(kind))
        nodes.append((layer, given))
        places[number] = len(nodes)
        users[len(nodes)] = uses[number]
    if isinstance(layers, Graph):
        return Graph(nodes, layers.n_features)
    return [layer for layer, _ in nodes]
