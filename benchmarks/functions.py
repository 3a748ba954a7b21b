"""Functions of secret numbers beside CrypTen and SecretFlow SPU: error, rounds, bytes and seconds.

    python benchmarks/functions.py --elements 1000 --turns 1

All libraries do the same work on the same inputs, see peers/secret_functions.py, in turns, each turn in
fresh processes: one for each party over the loopback interface, and one for Sotto's provider. Peers are
installed as peers/run.py says. Sorting 100,000 numbers in a local session is timed beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import script
from machine import describe, facts, seconds, spread

import mpc

RUN = Path(__file__).resolve().parent / "peers" / "run.py"
US = "sotto-processes"
PEERS = ("spu", "crypten")
# A result that is off by more of the largest one (1 at least) is called wrong.
WRONG = 0.01


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Let all libraries take turns; what they report goes to standard error."""
    names = options.functions.split(",")
    work = [f"{name}:{options.elements}" if options.elements else name for name in names]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        line = [sys.executable, str(RUN), "--no-sotto", "--peers", US, *options.peers]
        line += ["--work", *work, "--turns", str(options.turns), "--repeats", str(options.repeats)]
        line += ["--timeout", str(options.timeout), "--json", str(file)]
        line += ["--venvs", options.venvs] if options.venvs else []
        done = subprocess.run(line, check=False, stdout=sys.stderr)
        if done.returncode:
            raise ValueError("the comparison has failed, see above")
        found: dict[str, Any] = json.loads(file.read_text())
    failed = [
        item["title"] for item in found["work"] if "median" not in item["libraries"].get(US, {})
    ]
    if failed:
        why = found["libraries"][US]["failure"]
        raise ValueError(f"Sotto has failed in {', '.join(failed)}: {why}")
    return found


def sorting(elements: int, repeats: int) -> dict[str, Any]:
    """Time sorting in a local session, from sharing to the sorted values, revealed."""
    values = np.random.default_rng(20).integers(-(2**30), 2**30, elements) / 2.0**16
    with mpc.Session() as session:

        def once() -> np.ndarray:
            return np.sort(session.share(values, owner="alice")).reveal()

        exact = bool(np.array_equal(once(), np.sort(values)))
        before = session.cost()
        taken = seconds(once, repeats)
        cost = session.cost() - before
    return {
        "elements": elements,
        "exact": exact,
        "seconds_runs": taken,
        "rounds": cost.rounds // repeats,
        "bytes_sent_per_party": cost.bytes_sent_per_party // repeats,
        "correction_bytes": cost.correction_bytes // repeats,
    }


def is_wrong(item: dict[str, Any], figures: dict[str, Any]) -> bool:
    """Whether a library's results are off by more than a hundredth of the largest."""
    return bool(figures.get("max_abs_error", 0) > WRONG * max(1.0, item["largest_result"]))


def verdict(found: dict[str, Any]) -> list[str]:
    """Say where Sotto is the fastest, where it is not, who is wrong, and what a library lacks."""
    faster, right, slower, lacking = 0, 0, [], {}
    wrong: dict[str, list[str]] = {}
    for item in found["work"]:
        mine = item["libraries"][US]["median"]
        others = {n: f for n, f in item["libraries"].items() if n != US}
        for name, figures in others.items():
            if "lacks" in figures:
                lacking.setdefault((name, figures["lacks"]), []).append(item["title"])
            if is_wrong(item, figures):
                said = f"{item['title']} by {figures['max_abs_error']:.2g}"
                wrong.setdefault(name, []).append(f"{said} of {item['largest_result']:.3g}")
        quicker = [n for n, f in others.items() if f.get("median", mine) < mine]
        faster += not quicker
        right += all(is_wrong(item, others[name]) for name in quicker)
        slower += [f"{item['title']} ({', '.join(quicker)})"] if quicker else []
    rows = len(found["work"])
    lost = f"; not in {'; '.join(slower)}" if slower else ""
    return [
        f"Sotto is the fastest in {faster} of {rows} rows{lost}.",
        f"Of libraries whose results are right within 1 % of the largest, it is in {right} of {rows}.",
        *(f"{name} is wrong in {', '.join(titles)}." for name, titles in wrong.items()),
        *(f"{name} lacks {', '.join(titles)}: {why}." for (name, why), titles in lacking.items()),
    ]


def sorting_text(measured: dict[str, Any]) -> str:
    """Say what sorting took."""
    return (
        f"Sorting {measured['elements']:,} numbers in a local session, from sharing to revealing, the"
        f" provider's work included: {spread(measured['seconds_runs'])} s, median [least-most] of"
        f" {len(measured['seconds_runs'])} after one that is not timed; {measured['rounds']} rounds,"
        f" {measured['bytes_sent_per_party'] / 1e6:,.0f} MB sent by a party,"
        f" {measured['correction_bytes'] / 1e6:,.0f} MB of corrections."
    )


def functions_text(found: dict[str, Any], beside: Sequence[str]) -> list[str]:
    """Return what RESULTS.md says; `beside` is what it says of every comparison."""
    return [
        "`functions.py`: every party of every library in a process of its own, over the loopback interface;"
        " Sotto's over TLS, with a provider in a third process, whose bytes are counted. Inputs are the"
        " same, multiples of 2^-10. Sotto is told the public bound of each operand, by which its costs go;"
        " the others have no such argument.",
        "",
        *(f"- {line}" for line in verdict(found)),
        "",
        *beside,
        sorting_text(found["sorting"]),
        "",
        f"Machine: {describe(found['sorting']['machine'])}.",
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument(
        "--functions", default="functions", metavar="NAME,NAME", help="which (default: all)"
    )
    parser.add_argument("--elements", type=int, help="of an operand (default: each its own)")
    parser.add_argument("--peers", nargs="*", default=PEERS, help="as peers/run.py has them")
    parser.add_argument("--turns", type=int, default=3, help="turns of each library (default: 3)")
    parser.add_argument("--repeats", type=int, default=3, help="calls a turn (default: 3)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds a turn may take")
    parser.add_argument(
        "--sort", type=int, default=100_000, help="numbers to sort (default: 100,000)"
    )
    parser.add_argument("--venvs", metavar="DIR", help="where the peers live")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "elements", "turns", "repeats", "sort")
    found = compare(options)
    measured = found["sorting"] = sorting(options.sort, 2 * options.repeats + 1) | {
        "machine": facts()
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(*verdict(found), sorting_text(measured), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
