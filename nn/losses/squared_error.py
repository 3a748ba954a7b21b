"""Half the squared distance between scores and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from nn.losses.loss import Loss, check_shapes, plain_pair

__all__ = ["SQUARED_ERROR", "squared_error", "squared_error_gradient"]


def squared_error(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return half the squared distance between scores and targets, averaged over the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.squared_error import squared_error
    >>> squared_error(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    2.0
    """
    scores, targets = plain_pair(
        scores, targets, "use np.square(scores - targets).sum() over twice the number of rows"
    )
    return float(0.5 * np.square(scores - targets).sum(axis=1).mean(dtype=np.float64))


def squared_error_gradient(scores: Any, targets: Any) -> Any:
    """Return the gradient of `squared_error` with respect to the scores, of their shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.losses.squared_error import squared_error_gradient
    >>> squared_error_gradient(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([[2., 0.]])
    """
    check_shapes(scores, targets)
    return (scores - targets) * (1 / scores.shape[0])


def shared_squared_error(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return half the squared distance between scores and targets, summed over the rows."""
    difference = (scores - targets).truncate()
    return (difference * difference).sum() / 2


def shared_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return scores - targets: 1 round."""
    return (scores - targets).truncate()


SQUARED_ERROR = Loss(
    name="squared_error",
    value=squared_error,
    gradient=squared_error_gradient,
    shared_value=shared_squared_error,
    shared_gradient=shared_gradient,
    link="normalised",
)
