"""Write docs/protocols.md: each protocol's steps and source, and a table of what it costs.

The steps are the docstrings of the files in mpc/protocols, and in mpc/two_party for two parties without a
provider; the costs come from plans. A test checks that the page is what this program writes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import mpc
from mpc.command.self_test import CHECKS, SIZE, Check
from mpc.two_party.cost import Cost
from mpc.two_party.pair import Pair
from mpc.two_party.seeds import SECRET_BITS

HERE = Path(__file__).resolve().parent
PAGE = HERE / "protocols.md"
PROTOCOLS = HERE.parent / "mpc" / "protocols"
TWO_PARTY = HERE.parent / "mpc" / "two_party"
NAMES = ("alice", "bob", "carol")
# Of a session's transfers: see mpc.two_party.extension, k.
TREE_BITS = inspect.signature(Pair).parameters["k"].default

INTRODUCTION = """\
# Protocols

Written by `docs/write_protocols.py` from the code; do not edit.

Shares of x, additive modulo 2^64, are [x]; XOR shares of a bit are `<b>`. There are n computing parties,
and a crypto provider that deals random numbers and never sees data. Its *corrections* go to the last
party alone: everybody else's part follows from a key that the party has in common with the provider.
*Rounds* are messages that have to wait for one another. Fixed point has f fractional bits, 16 by default.
Two parties without a provider go [other ways](#without-a-provider).

## What they cost

From plans of the code itself, for two parties and for three: rounds, bytes that the busiest party sends
to all others, and bytes that the provider sends (correction), both for each element of the result.
The last columns are of two parties without a provider: rounds, and bytes that the first and the second
send for each element, oblivious transfers and ciphertexts included. Rounds are those with transfers in
stock; to make them takes one or two more for every kind. Not included is what the two make once a
session: base transfers and keys. Ciphertexts have thousands of places, so that products of few numbers
cost more for each; the results here have {size} elements.
"""

ALONE = """\

## Without a provider

Two parties, the first and the second. What the first knows of a shared x is x_0, what the second knows
x_1; *transfers* are random oblivious transfers. The rest of this page is the docstrings of
`mpc/two_party`."""


def cost_alone(session: mpc.Session, check: Check) -> Cost:
    """Return the cost of a check without a provider."""
    planned = session.without_parties()
    pair = planned.pair
    # The first time, keys are made.
    check.run(*check.make(planned))
    pair.prepare(list(pair.taken))
    arguments = check.make(planned)
    before, taken = planned.cost(), len(pair.taken)
    check.run(*arguments)
    online = (planned.cost() - before).total
    ahead = sum((correlation.cost for correlation in pair.taken[taken:]), Cost())
    sent = [
        online + offline + transfers * (SECRET_BITS // TREE_BITS - 1) / 8
        for online, offline, transfers in zip(
            online.sent or (0, 0), ahead.offline, reversed(ahead.transfers), strict=True
        )
    ]
    return Cost(rounds=online.rounds, sent=(round(sent[0]), round(sent[1])))


def cost_table() -> list[str]:
    """Return the table of costs."""
    rows = [
        "| protocol | computes | rounds | sent, n = 2 | sent, n = 3 | correction"
        " | alone: rounds | first sends | second sends |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    sessions = [mpc.Session(NAMES[:parties]) for parties in (2, 3)]
    sessions.append(mpc.Session(NAMES[:2], provider=None))
    for check in CHECKS:
        two, three = (check.cost(session) for session in sessions[:2])
        size = check.expected.size
        sent = (two.bytes_sent, three.bytes_sent, two.correction_bytes)
        cells = [str(two.rounds), *(f"{count / size:.1f}" for count in sent)]
        if check.dealt:
            cells += ["needs a provider", "", ""]
        else:
            alone = cost_alone(sessions[2], check)
            cells += [str(alone.rounds), *(f"{count / size:.1f}" for count in alone.sent)]
        name = f"[{check.name.replace('_', ' ')}](#{check.name.replace('_', '-')})"
        rows.append(f"| {name} | {check.what} | " + " | ".join(cells) + " |")
    for session in sessions:
        session.close()
    return rows


def sections(folder: Path, heading: str) -> list[str]:
    """Return a section for each protocol file of a folder: its docstring as it stands."""
    lines = []
    for path in sorted(folder.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = f"{folder.parent.name}/{folder.name}/{path.name}"
        lines += ["", f"{heading} {path.stem.replace('_', ' ')}", "", f"`{name}`", ""]
        lines += ["```text", text, "```"]
    return lines


def page() -> str:
    """Return the whole page."""
    parts = [*sections(PROTOCOLS, "##"), ALONE, *sections(TWO_PARTY, "###")]
    return "\n".join([INTRODUCTION.format(size=SIZE), *cost_table(), *parts, ""])


def main() -> int:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
