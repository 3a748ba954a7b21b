"""Links: how a classifier's scores become probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core.checks import plain_numbers
from ring.errors import ArgumentError, ShapeError

__all__ = [
    "LINKS",
    "log_probabilities",
    "log_softmax",
    "normalised",
    "one_vs_rest",
    "probabilities",
    "softmax",
]


def _rows(scores: Any, instead: str) -> NDArray[Any]:
    matrix = plain_numbers("scores", scores, instead)
    if matrix.ndim != 2:
        raise ShapeError(f"scores must have the shape (rows, classes), got {matrix.shape}")
    return matrix


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Return each row's exponentials, scaled to sum to 1.

    Parameters
    ----------
    scores : ndarray of shape (rows, classes)

    Returns
    -------
    ndarray of the same shape and dtype

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.links import softmax
    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    scores = _rows(scores, "use scores.softmax()")
    # The largest exponent is 0, so nothing overflows and the sum is at least 1.
    powers: NDArray[Any] = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def log_softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the natural logarithms of `softmax`, which stay finite where it underflows.

    Parameters
    ----------
    scores : ndarray of shape (rows, classes)

    Returns
    -------
    ndarray of the same shape and dtype

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.links import log_softmax
    >>> log_softmax(np.array([[0.0, 1000.0]]))
    array([[-1000.,     0.]])
    """
    scores = _rows(scores, "use scores.log_softmax()")
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithms: NDArray[Any] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - logarithms


def normalised(scores: NDArray[Any]) -> NDArray[Any]:
    """Return each row clipped to [0, 1] and scaled to sum to 1; a row of zeros becomes uniform.

    Parameters
    ----------
    scores : ndarray of shape (rows, classes)

    Returns
    -------
    ndarray of the same shape and dtype

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.links import normalised
    >>> normalised(np.array([[-0.5, 0.25, 0.75]]))
    array([[0.  , 0.25, 0.75]])
    """
    scores = _rows(scores, "reveal them first, to whoever is to know probabilities")
    clipped: NDArray[Any] = np.clip(scores, 0.0, 1.0)
    clipped[~clipped.any(axis=1)] = 1
    clipped /= clipped.sum(axis=1, keepdims=True)
    return clipped


def one_vs_rest(scores: NDArray[Any]) -> NDArray[Any]:
    """Return each score's sigmoid, every row scaled to sum to 1."""
    odds: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * scores))
    total = odds.sum(axis=1, keepdims=True)
    return np.where(total > 0, odds / np.where(total > 0, total, 1), 1 / scores.shape[1])


# How scores become probabilities.
LINKS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "softmax": softmax,
    "one_vs_rest": one_vs_rest,
    "normalised": normalised,
}


def probabilities(link: str | None, scores: NDArray[Any]) -> NDArray[Any]:
    """Apply a link, or raise ArgumentError if there is none."""
    if link is None:
        raise ArgumentError("this model has scores only, no probabilities: use decision_function")
    return LINKS[link](scores)


def log_probabilities(link: str | None, scores: NDArray[Any]) -> NDArray[Any]:
    """Return the natural logarithms of what `probabilities` gives, -inf for 0."""
    if link == "softmax":
        return log_softmax(scores)  # which has no zeros where the softmax itself underflows
    with np.errstate(divide="ignore"):
        logarithms: NDArray[Any] = np.log(probabilities(link, scores))
    return logarithms
