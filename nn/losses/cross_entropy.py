"""Cross-entropy between one-hot targets and the softmax of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.core.errors import RangeError
from mpc.protocols import reciprocal
from nn.losses.links import log_softmax, softmax
from nn.losses.loss import Loss, plain_pair

__all__ = ["CROSS_ENTROPY", "cross_entropy", "cross_entropy_gradient"]


def cross_entropy(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean over the rows of -log softmax(scores) at the target class.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.cross_entropy import cross_entropy
    >>> round(cross_entropy(np.array([[0.0, 0.0]]), np.array([[1, 0]])), 6)
    0.693147
    """
    scores, targets = plain_pair(
        scores, targets, "use -(targets * scores.log_softmax()).sum() over the number of rows"
    )
    return float(-(targets * log_softmax(scores)).sum(axis=1).mean(dtype=np.float64))


def cross_entropy_gradient(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the gradient of `cross_entropy` with respect to the scores, of their shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.cross_entropy import cross_entropy_gradient
    >>> cross_entropy_gradient(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[-0.5,  0.5]])
    """
    scores, targets = plain_pair(
        scores, targets, "use scores.softmax() - targets over the number of rows"
    )
    gradient: NDArray[Any] = softmax(scores) - targets
    gradient /= len(gradient)
    return gradient


def shared_cross_entropy(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return the sum over the rows of -log softmax(scores) at the target class."""
    return -(targets * scores.log_softmax()).sum()


def shared_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return softmax(scores) - targets: 9 rounds for 3 to 16 classes."""
    return scores.softmax() - targets


def check_room(session: Session, outputs: int) -> None:
    """Raise RangeError if there are more classes than the softmax on shares takes."""
    if outputs > reciprocal.LARGEST:
        raise RangeError(
            f"layer_sizes[-1] must be at most {reciprocal.LARGEST} for the softmax on shares, got"
            f" {outputs}; the squared error takes any number"
        )


CROSS_ENTROPY = Loss(
    name="cross_entropy",
    value=cross_entropy,
    gradient=cross_entropy_gradient,
    shared_value=shared_cross_entropy,
    shared_gradient=shared_gradient,
    link="softmax",
    check_room=check_room,
)
