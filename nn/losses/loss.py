"""The record of a loss: its functions in the clear and on shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mpc import Session, SharedArray
from nn.core.checks import plain_numbers
from nn.losses.links import LINKS
from ring.errors import ArgumentError, ShapeError

__all__ = ["Loss", "check_shapes", "plain_pair"]

Plain = NDArray[Any]


@dataclass(frozen=True)
class Loss:
    """A loss of scores and one-hot targets, both of shape (rows, classes).

    Value and gradient are means over the rows in the clear, and sums over the rows on shares. The
    functions for plain arrays raise ShapeError if the two shapes differ, are not two-dimensional or
    have no rows, and DtypeError for shared arrays; :func:`plain_pair` does both checks.

    Parameters
    ----------
    name : str
        Name of the loss in ``loss=`` and in checkpoints.
    value : callable
        ``value(scores, targets)`` of plain arrays returns a float.
    gradient : callable
        ``gradient(scores, targets)`` of plain arrays returns the gradient of `value` with respect
        to the scores, of shape (rows, classes).
    shared_value, shared_gradient : callable
        The same functions of shared arrays, returning shared arrays. The gradient has the format's
        fractional bits, or twice as many.
    link : {"softmax", "one_vs_rest", "normalised"}
        How the scores of a model that was trained with this loss become probabilities.
    check_room : callable, optional
        ``check_room(session, outputs)`` raises if there are too many classes for this loss on
        shares.

    Raises
    ------
    ArgumentError
        If `name` is empty, a function is missing, or `link` is not known.

    Examples
    --------
    >>> import nn
    >>> loss = nn.losses.LOSSES["squared_error"]
    >>> loss.name, loss.link
    ('squared_error', 'normalised')
    """

    name: str
    value: Callable[[Plain, Plain], float]
    gradient: Callable[[Plain, Plain], Plain]
    shared_value: Callable[[SharedArray, SharedArray], SharedArray]
    shared_gradient: Callable[[SharedArray, SharedArray], SharedArray]
    link: str
    check_room: Callable[[Session, int], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgumentError(
                f"name of a loss must be a string that is not empty, got {self.name!r}"
            )
        for part in ("value", "gradient", "shared_value", "shared_gradient"):
            if not callable(getattr(self, part)):
                raise ArgumentError(
                    f"{part} of loss {self.name!r} must be a function of scores and targets,"
                    f" got {getattr(self, part)!r}"
                )
        if self.link not in LINKS:
            raise ArgumentError(
                f"link of loss {self.name!r} must be one of {sorted(LINKS)}, got {self.link!r}"
            )


def check_shapes(scores: Any, targets: Any) -> None:
    """Raise ShapeError unless scores and targets are matrices of one shape with at least one row."""
    if len(scores.shape) != 2 or tuple(scores.shape) != tuple(targets.shape) or not scores.shape[0]:
        raise ShapeError(
            "scores and targets must have the same shape (rows, classes) and at least one row, "
            f"got {tuple(scores.shape)} and {tuple(targets.shape)}"
        )


def plain_pair(scores: Any, targets: Any, instead: str) -> tuple[Plain, Plain]:
    """Return scores and targets as plain arrays, after checking their shapes.

    Parameters
    ----------
    scores, targets : array of shape (rows, classes)
    instead : str
        For the error on shared arrays: the expression to use for them.

    Raises
    ------
    DtypeError
        If an argument is a SharedArray, or no array of reals.
    ShapeError
        If the shapes differ, are not two-dimensional or have no rows.
    """
    pair = plain_numbers("scores", scores, instead), plain_numbers("targets", targets, instead)
    check_shapes(*pair)
    return pair
