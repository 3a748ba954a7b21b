"""Figures: what they have in common, and a session's cost as one (extra: plot)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from mpc.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from mpc.cost import Cost, Spent

__all__ = ["COLORS", "draw_cost", "new_figure"]

# Readable on white and on black, and told apart by readers who see few colours (Okabe, Ito).
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure that notebooks show, and that pyplot knows nothing of."""
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


def draw_cost(cost: Cost, by: str, sent: str) -> Any:
    """Draw rounds, bytes and seconds as bars, a row for each layer or protocol."""
    if by not in ("layer", "protocol"):
        raise ArgumentError(f"by must be 'layer' or 'protocol', got {by!r}")
    parts = cost.by_layer if by == "layer" else cost.by_protocol
    names = [f"in no {by}" if name == "-" else name for name in parts]
    spent = list(parts.values())
    most = max((max(s.bytes_sent, s.correction_bytes) for s in spent), default=0)
    unit, size = ("MB", 1e6) if most >= 1e5 else ("kB", 1e3)
    panels: list[tuple[str, list[tuple[str, list[float]]]]] = [
        ("rounds", [("", [float(s.rounds) for s in spent])]),
        (
            unit,
            [
                (sent, [s.bytes_sent / size for s in spent]),
                ("from the provider", [s.correction_bytes / size for s in spent]),
            ],
        ),
    ]
    # Time is kept by layer only, and only while a layer runs.
    longest = max((s.seconds for s in spent), default=0.0)
    if longest:
        unit, size = ("seconds", 1.0) if longest >= 1 else ("milliseconds", 1e-3)
        panels.append((unit, [("", [s.seconds / size for s in spent])]))
    figure = new_figure(8, 1.1 + 0.36 * max(len(names), 2))
    axes = figure.subplots(1, len(panels), sharey=True)
    for ax, (title, series) in zip(axes, panels, strict=True):
        _bars(ax, series, spent if title.endswith("seconds") else None)
        ax.set_xlabel(title)
        ax.locator_params(axis="x", nbins=4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].locator_params(axis="x", integer=True)
    # Not the axes' own, which would push the panels apart.
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure


def _bars(ax: Any, series: list[tuple[str, list[float]]], spent: list[Spent] | None) -> None:
    height = 0.76 / len(series)
    for k, (label, values) in enumerate(series):
        places = [row + (k - (len(series) - 1) / 2) * height for row in range(len(values))]
        ax.barh(places, values, height, color=COLORS[k], label=label)
        for row, (place, value) in enumerate(zip(places, values, strict=True)):
            timed = spent is None or spent[row].seconds
            text = f"{value:.3g}" if timed else "not timed"
            ax.annotate(
                text, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
    ax.margins(x=0.25)
    ax.set_xlim(left=0)
