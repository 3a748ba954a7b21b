"""Common parts of the benchmarks: facts about the machine, versions, tables, timing."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Return the processor, cores, memory, versions and date, for a report."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("numpy", "numba", "llvmlite", "cryptography")
        },
        "date": date.today().isoformat(),
    }


def version(name: str) -> str:
    """Return the version of an installed package, or "-"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    widest = next((f for f in ("avx512dq", "avx2") if f in flags), "")
    return f"{found.get('model name', platform.machine())}{f' ({widest})' if widest else ''}"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def describe(machine: dict[str, Any]) -> str:
    """Return the facts as one line of text."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB,"
        f" Python {machine['python']}, {versions}, {machine['date']}"
    )


def table(rows: Sequence[Sequence[str]], header: bool = True) -> str:
    """Return aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, whose first row is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("---" if k == 0 else "---:" for k in range(len(rows[0]))) + "|")
    return "\n".join(lines)


def seconds(function: Callable[[], Any], repeats: int) -> list[float]:
    """Time `function` `repeats` times."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return taken


def spread(taken: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Return "median [least-greatest]"."""
    low, middle, high = min(taken), statistics.median(taken), max(taken)
    return f"{middle * scale:.{digits}f} [{low * scale:.{digits}f}-{high * scale:.{digits}f}]"
