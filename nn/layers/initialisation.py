"""Initial weights, and the generator that draws them. Masks never come from this generator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nn.core.checks import float_dtype, integer
from ring.errors import DtypeError

__all__ = ["RandomState", "generator", "he_normal"]

RandomState = int | np.integer | np.random.Generator | np.random.RandomState | None


def generator(random_state: RandomState = None) -> np.random.Generator:
    """Return a generator for weights and data order.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        An int seeds a new generator, None seeds it from the operating system, a RandomState draws
        its seed; a Generator is returned itself.

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    DtypeError
        If `random_state` is of another type.
    ArgumentError
        If `random_state` is a negative int.

    Examples
    --------
    >>> from nn.layers.initialisation import generator
    >>> generator(0).integers(100) == generator(0).integers(100)
    np.True_
    """
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**32, size=4, dtype=np.uint64))
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return np.random.default_rng(integer("random_state", random_state, 0))
    raise DtypeError(
        "random_state must be an int, None, numpy.random.Generator or numpy.random.RandomState, "
        f"got {type(random_state).__name__}"
    )


def he_normal(
    inputs: int, outputs: int, random: np.random.Generator, dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Draw weights from a normal distribution of variance 2 / inputs (He et al. 2015).

    Parameters
    ----------
    inputs, outputs : int
    random : numpy.random.Generator
    dtype : float32 or float64

    Returns
    -------
    ndarray of shape (inputs, outputs)

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers.initialisation import he_normal
    >>> he_normal(3, 2, np.random.default_rng(0)).shape
    (3, 2)
    """
    # Drawn in float64 whatever the dtype, so that a seed gives the same weights in both.
    weights = random.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs))
    return weights.astype(float_dtype(dtype), copy=False)
