"""Cross-entropy between labels of 0 and 1 and the sigmoids of the scores, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from nn.losses.loss import Loss, plain_pair

__all__ = ["BINARY_CROSS_ENTROPY", "binary_cross_entropy", "binary_cross_entropy_gradient"]

# What the error on shared arrays advises.
_INSTEAD = "use scores.activation('softplus') - targets * scores"


def binary_cross_entropy(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return -t log p - (1 - t) log(1 - p) for p = sigmoid(score), summed over a row, averaged over rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.binary_cross_entropy import binary_cross_entropy
    >>> round(binary_cross_entropy(np.array([[0.0, 0.0]]), np.array([[1, 0]])), 6)
    1.386294
    """
    scores, targets = plain_pair(scores, targets, _INSTEAD)
    each = np.logaddexp(0, scores) - targets * scores
    return float(each.sum(axis=1).mean(dtype=np.float64))


def binary_cross_entropy_gradient(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the gradient of `binary_cross_entropy` with respect to the scores, of their shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.binary_cross_entropy import binary_cross_entropy_gradient
    >>> binary_cross_entropy_gradient(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    scores, targets = plain_pair(scores, targets, _INSTEAD)
    # The hyperbolic tangent does not overflow.
    gradient: NDArray[Any] = 0.5 + 0.5 * np.tanh(0.5 * scores) - targets
    gradient /= len(gradient)
    return gradient


def shared_binary_cross_entropy(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return the loss summed over rows and columns."""
    scores = scores.truncate()
    return scores.activation("softplus").sum() - (targets * scores).sum().truncate()


def shared_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return sigmoid(scores) - targets: 8 rounds."""
    return scores.sigmoid() - targets


BINARY_CROSS_ENTROPY = Loss(
    name="binary_cross_entropy",
    value=binary_cross_entropy,
    gradient=binary_cross_entropy_gradient,
    shared_value=shared_binary_cross_entropy,
    shared_gradient=shared_gradient,
    link="softmax",
)
