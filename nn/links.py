"""Links: how a classifier's scores become probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.losses import log_softmax, normalised, softmax
from ring.errors import ArgumentError

__all__ = ["LINKS", "LINK_OF_LOSS", "log_probabilities", "one_vs_rest", "probabilities"]


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


# And which it is, by the loss of the training.
LINK_OF_LOSS = {"cross_entropy": "softmax", "squared_error": "normalised"}


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
