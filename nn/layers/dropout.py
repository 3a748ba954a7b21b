"""Dropout, in the clear and on shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear
from mpc.protocols.combination import Fraction, combine
from nn.core.checks import interval, real
from nn.layers.layer import Layer, Shape

__all__ = ["Dropout"]


class Dropout(Layer):
    """Dropout: ``forward`` sets random elements to 0 and divides the others by ``1 - rate``.

    ``layer(x)`` returns `x`. Before a model is shared, the layer is left out.

    In training on shares every party knows which elements are 0, as it knows the order of the rows: both
    follow from random_state, and are the same in the clear. They say nothing about rows or weights.

    Parameters
    ----------
    rate : float, default=0.5
        Probability of an element to be set to 0, in [0, 1).
    random : numpy.random.Generator, optional
        Draws the elements; ``fit`` replaces it by one that follows from the model's random_state.

    Attributes
    ----------
    random : numpy.random.Generator

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

    only_trains = True
    options = ("rate",)

    def __init__(self, rate: float = 0.5, random: np.random.Generator | None = None) -> None:
        super().__init__()
        self.rate = real("rate", rate, least=0, below=1)
        self.random = np.random.default_rng() if random is None else random

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Dropout:
        # A generator of its own, so that a network without dropout has the same initial weights.
        return Dropout(self.rate, random.spawn(1)[0])

    def __call__(self, x: Any) -> Any:
        return x

    def forward(self, x: Any) -> Any:
        shape = tuple(x.shape)
        if isinstance(x, SharedArray):
            # A plan of steps to come must not draw their numbers.
            planned = not x.session.here
            self._memory = np.ones(shape, bool) if planned else self._drawn(shape)
            return self._dropped(x)
        self._memory = self._drawn(shape) * np.asarray(1 / (1 - self.rate), dtype=x.dtype)
        return x * self._memory

    def _drawn(self, shape: Shape) -> NDArray[np.bool_]:
        """Return which elements are kept."""
        return self.random.random(shape, dtype=np.float32) >= self.rate

    def _dropped(self, x: SharedArray) -> SharedArray:
        x = x.truncate()
        kept = linear.multiply_integers(x, self._memory.astype(np.int64))
        # The same bound for all draws, so that a plan holds for each.
        kept = kept.derive(kept.shares, frac_bits=x.frac_bits, bound=x.bound, origins=(x,))
        return combine([(kept, Fraction.nearest(1 / (1 - self.rate), 16))], x.frac_bits)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        factor = self._remembered()
        if not input_gradient:
            return None
        return self._dropped(gradient) if isinstance(gradient, SharedArray) else gradient * factor

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        return interval(low, high)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
