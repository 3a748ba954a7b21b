"""Colour on a terminal, and none anywhere else."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["paint"]

_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return `text` in a style if `stream` (default: standard output) is a terminal that shows it.

    The environment variables NO_COLOR, if not empty, and TERM=dumb turn colour off.
    """
    stream = sys.stdout if stream is None else stream
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
