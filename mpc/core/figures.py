"""Plots with matplotlib (extra: plot): an empty figure, and panels of bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TypeAlias

from mpc.core.errors import MissingExtraError

__all__ = ["COLORS", "Panel", "draw_bars", "new_figure"]

Series: TypeAlias = Sequence[tuple[str, Sequence[float | None]]]
Panel: TypeAlias = tuple[str, Series]

# Readable on white and on black, and told apart by readers who see few colours (Okabe, Ito).
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure that notebooks show; pyplot does not keep it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("figures need matplotlib: pip install 'sotto-mpc[plot]'") from None

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=110)
            return out.getvalue()

    return Picture(figsize=(width, height), layout="constrained")


def draw_bars(rows: Sequence[str], panels: Sequence[Panel]) -> Any:
    """Draw panels of horizontal bars beside one another, a row for each name.

    Parameters
    ----------
    rows : sequence of str
    panels : sequence of (title, sequence of (label, values))
        A value for each row, or None for what was not timed. The labels are those of the second
        panel.
    """
    figure = new_figure(8, 1.1 + 0.36 * max(len(rows), 2))
    axes = figure.subplots(1, len(panels), sharey=True)
    for ax, (title, series) in zip(axes, panels, strict=True):
        _bars(ax, series)
        ax.set_xlabel(title)
        ax.locator_params(axis="x", nbins=4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    axes[0].locator_params(axis="x", integer=True)
    # Not the axes' own, which would push the panels apart.
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure


def _bars(ax: Any, series: Series) -> None:
    height = 0.76 / len(series)
    for k, (label, values) in enumerate(series):
        places = [row + (k - (len(series) - 1) / 2) * height for row in range(len(values))]
        ax.barh(places, [value or 0.0 for value in values], height, color=COLORS[k], label=label)
        for place, value in zip(places, values, strict=True):
            text = "not timed" if value is None else f"{value:.3g}"
            ax.annotate(
                text, (value or 0.0, place), (3, 0), textcoords="offset points", va="center",
                fontsize=7,
            )  # fmt: skip
    ax.margins(x=0.25)
    ax.set_xlim(left=0)
