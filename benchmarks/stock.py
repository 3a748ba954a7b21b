"""Network A with a provider, and by two parties alone who have a stock, in turns.

Every party is in a process of its own, over TLS on the loopback. A call shares the images, evaluates the
network and reveals the scores. The provider's work is in it; what the two parties have made ahead, each in
its stock file, is not, and is timed apart. From the files they take within the call, and record it there
first. The time of a call is that of the party that takes longest. What is revealed is compared with the
plain model, and a call that makes anything itself is an error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import processes
import script
from machine import describe, facts, markdown, spread, table

import mpc
import nn
from mpc.launch import Place, start

ROWS = (1, 128, 1000)


@dataclass(frozen=True)
class Calls(processes.Calls):
    """Calls of two parties alone, all of which is made ahead, into files beside the configuration."""

    def measured(self, session: mpc.Session, rows: int, place: Place) -> dict[str, Any]:
        """Measure one batch in one party's process."""
        path = place.path.with_name(f"{place.me}-{rows}.stock")
        made: dict[str, Any] = {}

        def ready(secret: nn.SharedModel, calls: int) -> None:
            def program(planned: mpc.Session) -> None:
                twin = secret.twin(planned)
                images = twin.share_rows(None, processes.PARTIES[-1], rows=rows)
                twin.decision_function(images, to=processes.PARTIES[-1])

            begin = time.perf_counter()
            session.prepare_ahead(program, calls, path=path)
            made["seconds_ahead"] = (time.perf_counter() - begin) / calls
            made["rounds"] = session.cost().by_protocol["prepared"].rounds
            session.use_stock(path, program)
            made["bytes_ahead"] = path.stat().st_size / calls

        found = processes.measure(session, rows, self.repeats, ready)
        spent = session.cost().by_protocol["prepared"].rounds
        if spent != made.pop("rounds"):
            raise mpc.SessionError("a call has made what its stock should hold")
        return found | made


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), metavar="N,N")
    parser.add_argument("--turns", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument("--repeats", type=int, default=5, help="calls a turn (default: 5)")
    script.add_output(parser)
    return parser.parse_args(line)


def run(rows: Sequence[int], turns: int, repeats: int) -> dict[str, Any]:
    """Take turns and combine them."""
    kinds = {
        "provider": (processes.Calls(tuple(rows), repeats), True),
        "stock": (Calls(tuple(rows), repeats), False),
    }
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in kinds}
    for _ in range(turns):
        for name, (calls, provider) in kinds.items():
            lines = start(lambda _, calls=calls: calls, processes.PARTIES, provider=provider)
            found[name].append(processes.slowest(lines))
    batches = []
    for k, n in enumerate(rows):
        medians = {
            name: [statistics.median(turn[k]["seconds"]) for turn in turned]
            for name, turned in found.items()
        }
        ratios = [b / a for a, b in zip(medians["provider"], medians["stock"], strict=True)]
        last = {name: turned[-1][k] for name, turned in found.items()}
        batches.append(
            {
                "rows": n,
                "medians": medians,
                "ratios": ratios,
                "rounds": {name: line["rounds"] for name, line in last.items()},
                "wire_sent": {name: line["wire_sent"] for name, line in last.items()},
                "seconds_ahead": [turn[k]["seconds_ahead"] for turn in found["stock"]],
                "bytes_ahead": last["stock"]["bytes_ahead"],
            }
        )
    return {
        "network": processes.SIZES,
        "turns": turns,
        "repeats": repeats,
        "batches": batches,
        "machine": facts(),
    }


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Return the result as a table."""
    rows = [
        [
            "images", "with a provider, ms", "with a stock, ms", "times", "rounds of each",
            "made ahead, ms a call", "stock a call, each party",
        ]
    ]  # fmt: skip
    for batch in result["batches"]:
        medians, rounds = batch["medians"], batch["rounds"]
        rows.append(
            [
                f"{batch['rows']:,}",
                spread(medians["provider"], 1e3),
                spread(medians["stock"], 1e3),
                spread(batch["ratios"], 1, 2),
                f"{rounds['provider']:g}, {rounds['stock']:g}",
                spread(batch["seconds_ahead"], 1e3),
                f"{batch['bytes_ahead'] / 1e6:.2f} MB",
            ]
        )
    return rows


def stock_text(result: dict[str, Any]) -> list[str]:
    """Return the chapter on calls with a stock."""
    return [
        "`stock.py`: network A, every party in a process of its own over TLS on the loopback: alice, bob"
        " and the provider, whose work is in the times; and alice and bob alone, who have made everything"
        " ahead and take it from their files within the call. A call shares the images, evaluates and"
        f" reveals the scores. Medians of {result['turns']} turns of each [least-most], one after the"
        f" other, of {result['repeats']} calls after those to warm up; the ratios are of turns that follow"
        " each other.",
        "",
        markdown(rows_of(result)),
        "",
        f"Machine: {describe(result['machine'])}.",
    ]


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    rows = [int(n) for n in options.rows.split(",")]
    if min(rows) < 1:
        raise ValueError(f"--rows must be at least 1, got {options.rows}")
    script.at_least_one(options, "turns", "repeats")
    result = run(rows, options.turns, options.repeats)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{table(rows_of(result))}\n\nMachine: {describe(result['machine'])}")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
