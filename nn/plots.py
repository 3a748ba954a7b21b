"""Figures of training and evaluation (extra: plot). They draw public values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mpc import SharedArray
from mpc.core.errors import ArgumentError, RevealError, ShapeError
from mpc.core.figures import COLORS, new_figure

__all__ = ["confusion_matrix", "learning_curves"]

_STYLES = ("o-", "x--", "s:", "^-.")


def learning_curves(scores: Mapping[str, Sequence[float]], title: str = "") -> Any:
    """Draw accuracies by epoch, one line for each name.

    Parameters
    ----------
    scores : mapping of str to sequence of float
        At most four; for instance ``{"plain": model.validation_scores_, "encrypted":
        trained.validation_scores_}``. Fractions from 0 to 1, one an epoch.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Shown in a notebook; elsewhere ``figure.savefig("curves.png")``.

    Raises
    ------
    ArgumentError
        If there are no scores, or more than four series.
    MissingExtraError
        Without matplotlib.
    """
    if not 1 <= len(scores) <= len(_STYLES):
        raise ArgumentError(f"scores must have one to {len(_STYLES)} names, got {len(scores)}")
    for name, values in scores.items():
        if not len(values):
            raise ArgumentError(f"scores[{name!r}] must have an accuracy for each epoch, got none")
    figure = new_figure(6, 4)
    ax = figure.subplots()
    for (name, values), style, color in zip(scores.items(), _STYLES, COLORS, strict=False):
        epochs = range(1, len(values) + 1)
        ax.plot(epochs, 100 * np.asarray(values, float), style, color=color, label=name)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("accuracy, %")
    ax.set_title(title)
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def confusion_matrix(
    counts: ArrayLike, classes: Sequence[object] | None = None, title: str = ""
) -> Any:
    """Draw a confusion matrix that has been revealed.

    Parameters
    ----------
    counts : array_like of shape (classes, classes)
        Rows are true classes, columns predicted ones: see :func:`nn.metrics.confusion_matrix`.
    classes : sequence, optional
        Their names; default 0, 1, ...
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    RevealError
        For counts that are still shared.
    ShapeError
        If `counts` is not square, or `classes` has another length.
    MissingExtraError
        Without matplotlib.
    """
    if isinstance(counts, SharedArray):
        raise RevealError("counts are secret: draw counts.reveal(), which shows them to everybody")
    values = np.asarray(counts)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise ShapeError(f"counts must have shape (classes, classes), got {values.shape}")
    names = list(range(len(values))) if classes is None else list(classes)
    if len(names) != len(values):
        raise ShapeError(f"classes must have {len(values)} names, got {len(names)}")
    figure = new_figure(4.6, 4.6)
    ax = figure.subplots()
    # By row, so that a rare class shows its errors as well as a frequent one does.
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(values):
        if count:
            ink = "white" if shares[row, column] > 0.5 else "#222222"
            ax.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title)
    ax.tick_params(length=0)
    return figure
