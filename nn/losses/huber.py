"""Huber's loss: the squared error of small differences, the absolute error of large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from nn.losses.loss import Loss, plain_pair

__all__ = ["HUBER", "huber", "huber_gradient"]

# What the error on shared arrays advises.
_INSTEAD = "d = scores - targets and c = np.clip(d, -1, 1) give c * (d - c / 2)"


def huber(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return Huber's loss with delta 1 (Huber 1964), summed over the classes, averaged over the rows.

    Of a difference d between score and target it is d^2 / 2 for |d| <= 1, and |d| - 1/2 beyond.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.huber import huber
    >>> huber(np.array([[3.0, 0.5]]), np.array([[1.0, 0.0]]))
    1.625
    """
    scores, targets = plain_pair(scores, targets, _INSTEAD)
    difference = scores - targets
    clipped = np.clip(difference, -1, 1)
    return float((clipped * (difference - clipped / 2)).sum(axis=1).mean(dtype=np.float64))


def huber_gradient(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the gradient of `huber` with respect to the scores, of their shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.huber import huber_gradient
    >>> huber_gradient(np.array([[3.0, 0.5]]), np.array([[1.0, 0.0]]))
    array([[1. , 0.5]])
    """
    scores, targets = plain_pair(scores, targets, _INSTEAD)
    gradient: NDArray[Any] = np.clip(scores - targets, -1, 1) * (1 / len(scores))
    return gradient


def shared_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return scores - targets, clipped to [-1, 1]: two comparisons, 6 rounds."""
    clipped: Any = np.clip((scores - targets).truncate(), -1, 1)
    return clipped


def shared_huber(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return the loss summed over rows and classes."""
    difference = (scores - targets).truncate()
    clipped: Any = np.clip(difference, -1, 1)
    total: SharedArray = (clipped * (difference * 2 - clipped)).sum() / 2
    return total


HUBER = Loss(
    name="huber",
    value=huber,
    gradient=huber_gradient,
    shared_value=shared_huber,
    shared_gradient=shared_gradient,
    link="normalised",
)
