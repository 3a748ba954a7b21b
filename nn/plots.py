"""Figures of training and evaluation, of public values only. They need the extra ``sotto-mpc[plot]``."""

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
    """Draw accuracies over epochs, one line for each name.

    Parameters
    ----------
    scores : mapping of str to sequence of float
        By name, the accuracy after each epoch, from 0 to 1; at most four names. For instance
        ``{"plain": model.validation_scores_, "encrypted": secret_model.validation_scores_}``.
    title : str, default=""

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it; elsewhere use ``figure.savefig("curves.png")``.

    Raises
    ------
    ArgumentError
        If there are no scores, or more than four series.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nn
    >>> figure = nn.plots.learning_curves({"plain": [0.8, 0.9], "encrypted": [0.7, 0.9]})
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['plain', 'encrypted']
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
        Rows are true classes, columns predicted classes, as of
        :func:`nn.metrics.confusion_matrix`.
    classes : sequence, optional
        Names of the classes; default 0, 1, ...
    title : str, default=""

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    RevealError
        If `counts` is a SharedArray.
    ShapeError
        If `counts` is not square, or `classes` has another length.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nn
    >>> figure = nn.plots.confusion_matrix([[5, 1], [0, 4]], classes=["no", "yes"])
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('predicted', 'true')
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
    # Colours by the fraction of the row, so that errors of a rare class are seen too.
    fractions = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    ax.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(values):
        if count:
            ink = "white" if fractions[row, column] > 0.5 else "#222222"
            ax.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title)
    ax.tick_params(length=0)
    return figure
