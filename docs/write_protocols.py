"""Write docs/protocols.md: each protocol's steps and source, and a table of what it costs.

The steps are the docstrings of the files in mpc/protocols, the costs come from plans. A test checks
that the page is what this program writes.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import mpc
from mpc.command.self_test import CHECKS

HERE = Path(__file__).resolve().parent
PAGE = HERE / "protocols.md"
PROTOCOLS = HERE.parent / "mpc" / "protocols"
NAMES = ("alice", "bob", "carol")

INTRODUCTION = """\
# Protocols

Written by `docs/write_protocols.py` from the code; do not edit.

Shares of x, additive modulo 2^64, are [x]; XOR shares of a bit are `<b>`. There are n computing parties,
and a crypto provider that deals random numbers and never sees data. Its *corrections* go to the last
party alone: everybody else's part follows from a key that the party has in common with the provider.
*Rounds* are messages that have to wait for one another. Fixed point has f fractional bits, 16 by default.

## What they cost

From plans of the code itself, for two parties and for three: rounds, bytes that the busiest party sends
to all others, and bytes that the provider sends (correction), both for each element of the result.
"""


def cost_table() -> list[str]:
    """Return the table of costs."""
    rows = [
        "| protocol | computes | rounds | sent, n = 2 | sent, n = 3 | correction |",
        "|---|---|---:|---:|---:|---:|",
    ]
    sessions = [mpc.Session(NAMES[:parties]) for parties in (2, 3)]
    for check in CHECKS:
        two, three = (check.cost(session) for session in sessions)
        size = check.expected.size
        cells = [
            f"{c / size:.1f}" for c in (two.bytes_sent, three.bytes_sent, two.correction_bytes)
        ]
        name = f"[{check.name.replace('_', ' ')}](#{check.name.replace('_', '-')})"
        rows.append(f"| {name} | {check.what} | {two.rounds} | " + " | ".join(cells) + " |")
    for session in sessions:
        session.close()
    return rows


def sections() -> list[str]:
    """Return a section for each protocol file: its docstring as it stands."""
    lines = []
    for path in sorted(PROTOCOLS.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines += ["", f"## {path.stem.replace('_', ' ')}", "", f"`mpc/protocols/{path.name}`", ""]
        lines += ["```text", text, "```"]
    return lines


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *cost_table(), *sections(), ""])


def main() -> int:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
