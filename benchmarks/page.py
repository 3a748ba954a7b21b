"""One self-contained page with a run's figures and tables, readable in light and dark."""

from __future__ import annotations

import html
import io
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import describe

import mpc
from mpc.core.figures import COLORS, new_figure

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
svg { max-width: 100%; height: auto; }
footer { border-top: 1px solid var(--line); color: var(--soft); margin-top: 3rem; padding-top: 1rem; }
"""
# A colour that no figure has; the page's own takes its place.
_INK = "#010203"
_RC = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.framealpha": 0,
    "svg.fonttype": "none",
}

Rows = Sequence[Sequence[str]]


def check(path: Path) -> None:
    """Raise before a run rather than after it if its report cannot be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise mpc.MissingExtraError(
            "--report needs matplotlib: pip install 'sotto-mpc[plot]'"
        ) from None
    if path.is_dir() or not path.parent.is_dir():
        raise mpc.ArgumentError(f"--report must be a file in a folder that exists, got {path}")


def table(rows: Rows, header: bool = True) -> str:
    """Return a table; rows of empty cells are left out."""
    lines = ['<div class="wide"><table>']
    for k, row in enumerate(row for row in rows if any(row)):
        tag = "th" if header and k == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>")
    return "\n".join([*lines, "</table></div>"])


def text(words: str) -> str:
    """Return a paragraph."""
    return f"<p>{html.escape(words)}</p>"


def heading(words: str) -> str:
    """Return a heading."""
    return f"<h2>{html.escape(words)}</h2>"


def figure(draw: Callable[[], Any], about: str) -> str:
    """Return what `draw` returns as a drawing that takes the page's colour; `about` describes it."""
    import matplotlib

    out = io.StringIO()
    # Ids must differ between the drawings of a page.
    with matplotlib.rc_context({**_RC, "svg.hashsalt": about}):
        draw().savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue().replace(_INK, "currentColor")
    svg = svg[svg.index("<svg") :]
    # Names that drawings have in common, such as figure_1, belong to none of them.
    svg = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|legend|matplotlib\.axis|[xy]tick)_?\d*"', "", svg
    )
    # On a narrow screen it shrinks as far as its words can be read, and is then scrolled.
    least = 0.8 * float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]
    label = f'role="img" aria-label="{html.escape(about)}" style="min-width: {least:.0f}px"'
    svg = svg.replace("<svg ", f"<svg {label} ", 1)
    return f'<div class="wide">{svg}</div>'


def beside(
    names: Sequence[str],
    measured: Sequence[Sequence[float]],
    marks: Mapping[str, Sequence[float]],
    unit: str,
) -> Any:
    """Draw a row for each name: what was measured, median and range, beside marks for each row."""
    figure = new_figure(8, 1.2 + 0.36 * len(names))
    ax = figure.subplots()
    rows = range(len(names))
    medians = [statistics.median(runs) for runs in measured]
    ax.hlines(rows, [min(runs) for runs in measured], [max(runs) for runs in measured], color=_INK)
    ax.plot(medians, rows, "o", color=COLORS[0], label="measured, median and range")
    for (mark, values), color in zip(marks.items(), COLORS[1:], strict=False):
        ax.plot(values, rows, "|", color=color, markersize=14, markeredgewidth=2.5, label=mark)
    for row, (runs, median) in enumerate(zip(measured, medians, strict=True)):
        ax.annotate(
            f"{median:.3g}", (max(*runs, *(values[row] for values in marks.values())), row), (7, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(x=0.12)
    ax.set_xlabel(unit)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=1 + len(marks), frameon=False, fontsize=8)
    return figure


def write(path: Path, title: str, parts: Sequence[str], machine: dict[str, Any]) -> None:
    """Write the page."""
    body = "\n".join(parts)
    path.write_text(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n"
        f"<footer>Machine: {html.escape(describe(machine))}</footer>\n</body>\n</html>\n",
        encoding="utf-8",
    )


def cost_rows(parts: dict[str, mpc.core.cost.Spent]) -> list[list[str]]:
    """Return costs as rows of a table."""
    rows = [["", "rounds", "bytes sent a party", "correction bytes", "seconds"]]
    rows += [
        [
            "in no layer" if name == "-" else name,
            f"{spent.rounds:,}",
            f"{spent.bytes_sent:,}",
            f"{spent.correction_bytes:,}",
            f"{spent.seconds:.4f}" if spent.seconds else "",
        ]
        for name, spent in parts.items()
    ]
    return rows
