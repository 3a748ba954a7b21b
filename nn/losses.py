"""Losses: small functions of scores and targets, and the table `LOSSES` that names them.

Scores and targets have shape (rows, classes); targets are one-hot. Values and gradients are means
over the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from ring.errors import DtypeError, ShapeError
from ring.real_arrays import real_array

__all__ = [
    "LOSSES",
    "Loss",
    "cross_entropy",
    "cross_entropy_gradient",
    "log_softmax",
    "normalised",
    "softmax",
    "squared_error",
    "squared_error_gradient",
]


def _check(scores: Any, targets: Any) -> None:
    if len(scores.shape) != 2 or tuple(scores.shape) != tuple(targets.shape) or not scores.shape[0]:
        raise ShapeError(
            "scores and targets must have the same shape (rows, classes) and at least one row, "
            f"got {tuple(scores.shape)} and {tuple(targets.shape)}"
        )


def _plain(name: str, values: Any, instead: str) -> NDArray[Any]:
    """Return an array of plain numbers; `instead` says what is for shared ones."""
    if isinstance(values, SharedArray):
        raise DtypeError(f"{name} must hold plain numbers, got a SharedArray: {instead}")
    return real_array(values, name)


def _rows(scores: Any, instead: str) -> NDArray[Any]:
    matrix = _plain("scores", scores, instead)
    if matrix.ndim != 2:
        raise ShapeError(f"scores must have the shape (rows, classes), got {matrix.shape}")
    return matrix


def _pair(scores: Any, targets: Any, instead: str) -> tuple[NDArray[Any], NDArray[Any]]:
    pair = _plain("scores", scores, instead), _plain("targets", targets, instead)
    _check(*pair)
    return pair


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
    >>> from nn.losses import softmax
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
    >>> from nn.losses import log_softmax
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
    >>> from nn.losses import normalised
    >>> normalised(np.array([[-0.5, 0.25, 0.75]]))
    array([[0.  , 0.25, 0.75]])
    """
    scores = _rows(scores, "reveal them first, to whoever is to know probabilities")
    clipped: NDArray[Any] = np.clip(scores, 0.0, 1.0)
    clipped[~clipped.any(axis=1)] = 1
    clipped /= clipped.sum(axis=1, keepdims=True)
    return clipped


def cross_entropy(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean of -log softmax(scores) at the targets.

    Parameters
    ----------
    scores, targets : ndarray of shape (rows, classes)

    Raises
    ------
    ShapeError
        If the shapes differ, are not two-dimensional or have no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses import cross_entropy
    >>> round(cross_entropy(np.array([[0.0, 0.0]]), np.array([[1, 0]])), 6)
    0.693147
    """
    scores, targets = _pair(
        scores, targets, "use -(targets * scores.log_softmax()).sum() over the number of rows"
    )
    return float(-(targets * log_softmax(scores)).sum(axis=1).mean(dtype=np.float64))


def cross_entropy_gradient(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the gradient of `cross_entropy` with respect to the scores.

    Parameters
    ----------
    scores, targets : ndarray of shape (rows, classes)

    Returns
    -------
    ndarray of shape (rows, classes)

    Raises
    ------
    ShapeError
        If the shapes differ, are not two-dimensional or have no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses import cross_entropy_gradient
    >>> cross_entropy_gradient(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    scores, targets = _pair(
        scores, targets, "use scores.softmax() - targets over the number of rows"
    )
    gradient: NDArray[Any] = softmax(scores) - targets
    gradient /= len(gradient)
    return gradient


def squared_error(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return half the squared distance between scores and targets, as a mean over the rows.

    Parameters
    ----------
    scores, targets : ndarray of shape (rows, classes)

    Raises
    ------
    ShapeError
        If the shapes differ, are not two-dimensional or have no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses import squared_error
    >>> squared_error(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    2.0
    """
    scores, targets = _pair(
        scores, targets, "use np.square(scores - targets).sum() over twice the number of rows"
    )
    return float(0.5 * np.square(scores - targets).sum(axis=1).mean(dtype=np.float64))


def squared_error_gradient(scores: Any, targets: Any) -> Any:
    """Return the gradient of `squared_error` with respect to the scores.

    Parameters
    ----------
    scores, targets : array of shape (rows, classes)

    Returns
    -------
    array of shape (rows, classes)

    Raises
    ------
    ShapeError
        If the shapes differ, are not two-dimensional or have no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses import squared_error_gradient
    >>> squared_error_gradient(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[2., 0.]])
    """
    _check(scores, targets)
    return (scores - targets) * (1 / scores.shape[0])


class Loss(NamedTuple):
    """A loss: its value, its gradient, and the probabilities that its scores stand for."""

    value: Callable[[NDArray[Any], NDArray[Any]], float]
    gradient: Callable[[Any, Any], Any]
    probabilities: Callable[[NDArray[Any]], NDArray[Any]]


LOSSES = {
    "cross_entropy": Loss(cross_entropy, cross_entropy_gradient, softmax),
    "squared_error": Loss(squared_error, squared_error_gradient, normalised),
}
