"""Links: functions from a classifier's scores to class probabilities."""

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


def _score_matrix(scores: Any, instead: str) -> NDArray[Any]:
    matrix = plain_numbers("scores", scores, instead)
    if matrix.ndim != 2:
        raise ShapeError(f"scores must have the shape (rows, classes), got {matrix.shape}")
    return matrix


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the exponentials of the scores, each row divided by its sum.

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
    scores = _score_matrix(scores, "use scores.softmax()")
    # The largest exponent is 0, so nothing overflows and the sum is at least 1.
    powers: NDArray[Any] = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def log_softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the natural logarithms of `softmax`, finite also where `softmax` underflows to 0.

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
    scores = _score_matrix(scores, "use scores.log_softmax()")
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithms: NDArray[Any] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - logarithms


def normalised(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the scores clipped to [0, 1], each row divided by its sum; uniform for a row of zeros.

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
    scores = _score_matrix(scores, "reveal them first, to the party that is to learn probabilities")
    clipped: NDArray[Any] = np.clip(scores, 0.0, 1.0)
    clipped[~clipped.any(axis=1)] = 1
    clipped /= clipped.sum(axis=1, keepdims=True)
    return clipped


def one_vs_rest(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the sigmoids of the scores, each row divided by its sum."""
    odds: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * scores))
    total = odds.sum(axis=1, keepdims=True)
    return np.where(total > 0, odds / np.where(total > 0, total, 1), 1 / scores.shape[1])


LINKS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "softmax": softmax,
    "one_vs_rest": one_vs_rest,
    "normalised": normalised,
}


def probabilities(link: str | None, scores: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities of scores by a link; raise ArgumentError if it is None."""
    if link is None:
        raise ArgumentError("this model has scores only, no probabilities: use decision_function")
    return LINKS[link](scores)


def log_probabilities(link: str | None, scores: NDArray[Any]) -> NDArray[Any]:
    """Return the natural logarithms of `probabilities`, -inf for 0."""
    if link == "softmax":
        return log_softmax(scores)  # finite where the softmax underflows to 0
    with np.errstate(divide="ignore"):
        logarithms: NDArray[Any] = np.log(probabilities(link, scores))
    return logarithms
