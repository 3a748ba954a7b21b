"""Losses on shares, and the table `SHARED_LOSSES` that names them as `LOSSES` does."""

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


def cross_entropy(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return minus the sum of log softmax(scores) at the targets."""
    return -(targets * scores.log_softmax()).sum()


def squared_error(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return half the squared distance between scores and targets."""
    difference = (scores - targets).truncate()
    return (difference * difference).sum() / 2


class SharedLoss(NamedTuple):
    """A loss on shares: its value and its gradient at the scores, both summed over the rows."""

    value: Callable[[SharedArray, SharedArray], SharedArray]
    gradient: Callable[[SharedArray, SharedArray], SharedArray]


SHARED_LOSSES = {
    "cross_entropy": SharedLoss(cross_entropy, cross_entropy_gradient),
    "squared_error": SharedLoss(squared_error, squared_error_gradient),
}
