"""Losses on shares: the gradients at the scores, summed over the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mpc import SharedArray

__all__ = ["SHARED_LOSSES", "SharedLoss"]


def cross_entropy_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return softmax(scores) - targets: 24 rounds for 10 classes."""
    return scores.softmax() - targets


def squared_error_gradient(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return scores - targets: 1 round."""
    return (scores - targets).truncate()


class SharedLoss(NamedTuple):
    """A loss on shares."""

    gradient: Callable[[SharedArray, SharedArray], SharedArray]


SHARED_LOSSES = {
    "cross_entropy": SharedLoss(cross_entropy_gradient),
    "squared_error": SharedLoss(squared_error_gradient),
}
