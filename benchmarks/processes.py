"""Network A in a local session and with every party in a process of its own, in turns.

A call shares the images, evaluates the network and reveals the scores; the provider's work is in it.
The time of a call is that of the party that takes longest. Model and images are random: times do not
depend on them. What is revealed is compared with the plain model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import page
import script
from machine import describe, facts, spread, table
from numpy.typing import NDArray

import mpc
import nn
from mpc.core.cost import Cost
from mpc.launch import Place, fingerprint, start

SIZES = (784, 128, 128, 10)
PARTIES = ("alice", "bob")
ROWS = (1, 128, 1000)
# Largest difference from the plain model that fixed-point numbers explain.
TOLERANCE = 2e-3


def network() -> nn.MLP:
    """Return network A with random weights."""
    rng = np.random.default_rng(0)
    arrays: list[NDArray[Any]] = []
    for i, o in pairwise(SIZES):
        arrays += [rng.normal(0, np.sqrt(2 / i), (i, o)), rng.normal(0, 0.05, o)]
    return nn.MLP.from_parameters(arrays)


def images(rows: int) -> NDArray[np.float64]:
    """Return random images."""
    return np.random.default_rng(rows).random((rows, SIZES[0]))


@dataclass(frozen=True)
class Calls:
    """How often each batch is evaluated; a callable for :func:`mpc.launch.start`.

    Attributes
    ----------
    rows : tuple of int
    repeats : int
    ports : dict of int to int
        Where a port is reached by another, that of a relay.
    network : mpc.Network, optional
        What the parties state of the network between them.
    """

    rows: tuple[int, ...]
    repeats: int
    ports: Mapping[int, int] = field(default_factory=dict)
    network: mpc.Network | None = None

    def __call__(self, place: Place) -> list[dict[str, Any]] | None:
        """Evaluate in one party's process, or be the provider."""
        if self.ports or self.network is not None:
            own = place.path.with_name(f"{place.me}.toml")
            text = place.path.read_text()
            for port, other in self.ports.items():
                text = text.replace(f':{port}"', f':{other}"')
            if self.network is not None:
                text += (
                    f"\n[network]\nround_trip = {self.network.round_trip}"
                    f"\nmegabits = {self.network.megabits}\n"
                )
            own.write_text(text)
            place = replace(place, path=own)
        if place.me == "provider":
            place.provide()
            return None
        with place.session(fingerprint(measure)) as session:
            return [self.measured(session, rows, place) for rows in self.rows]

    def measured(self, session: mpc.Session, rows: int, place: Place) -> dict[str, Any]:
        """Measure one batch in one party's process."""
        return measure(session, rows, self.repeats)

    def local(self) -> list[dict[str, Any]]:
        """Evaluate in a local session."""
        with mpc.Session(PARTIES) as session:
            return [measure(session, rows, self.repeats) for rows in self.rows]


def warm_up(rows: int) -> int:
    """Return how many calls come before those that are timed.

    The first opens the masked weights. Of a few rows it takes dozens until interpreter and caches
    have settled, as they have in a service.
    """
    return max(2, 40 // rows)


def measure(
    session: mpc.Session, rows: int, repeats: int,
    ready: Callable[[nn.SharedModel, int], None] = lambda secret, calls: None,
) -> dict[str, Any]:  # fmt: skip
    """Time calls with `rows` images; the model is alice's, the images are the last party's.

    `ready` is called first, with the model on shares and how many calls there will be.
    """
    model = network()
    secret = model.share(session, PARTIES[0], low=0, high=1, scores=True)
    last = session.parties[-1]
    X = images(rows)

    def call() -> NDArray[np.float64]:
        mine = X if len(session.here) > 1 or session.me == last else None
        shared = secret.share_rows(mine, last, rows=rows)
        scores: NDArray[np.float64] = secret.decision_function(shared, to=last)
        return scores

    ready(secret, warm_up(rows) + repeats)
    for _ in range(warm_up(rows)):
        scores = call()
    if scores is not None and np.max(np.abs(scores - model.decision_function(X))) > TOLERANCE:
        raise mpc.SessionError("the scores are not those of the plain model")
    taken: list[float] = []
    before, wire = session.cost(), session.bytes_on_the_wire
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    cost: Cost = session.cost() - before
    sent, received = (
        (now - then) / repeats for now, then in zip(session.bytes_on_the_wire, wire, strict=True)
    )
    return {
        "rows": rows,
        "seconds": taken,
        "rounds": cost.rounds / repeats,
        "trips": cost.trips / repeats,
        "bytes_sent": cost.bytes_sent_per_party / repeats,
        "sent": [n / repeats for n in cost.total.sent],
        "correction_bytes": cost.correction_bytes / repeats,
        "wire_sent": sent,
        "wire_received": received,
    }


def slowest(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Combine what the parties have measured: a call takes as long as at the slowest of them."""
    combined = []
    for lines in zip(*found.values(), strict=True):
        # The last party's bytes: it alone hears from the provider.
        line = dict(lines[-1])
        line["seconds"] = [max(each) for each in zip(*(x["seconds"] for x in lines), strict=True)]
        combined.append(line)
    return combined


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), metavar="N,N")
    parser.add_argument("--turns", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument("--repeats", type=int, default=15, help="calls a turn (default: 15)")
    script.add_report(parser)
    script.add_output(parser)
    return parser.parse_args(line)


def run(rows: Sequence[int], turns: int, repeats: int) -> dict[str, Any]:
    """Take turns and combine them."""
    calls = Calls(tuple(rows), repeats)
    locally: list[list[dict[str, Any]]] = []
    apart: list[list[dict[str, Any]]] = []
    for _ in range(turns):
        locally.append(calls.local())
        apart.append(slowest(start(lambda _: calls, PARTIES)))
    batches = []
    for k, n in enumerate(rows):
        medians = {
            name: [statistics.median(turn[k]["seconds"]) for turn in found]
            for name, found in (("local", locally), ("processes", apart))
        }
        line = {key: value for key, value in apart[-1][k].items() if key != "seconds"}
        ratios = [b / a for a, b in zip(medians["local"], medians["processes"], strict=True)]
        batches.append({"rows": n, **line, "medians": medians, "ratios": ratios})
    return {
        "network": SIZES,
        "turns": turns,
        "repeats": repeats,
        "batches": batches,
        "machine": facts(),
    }


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Return the result as a table."""
    rows = [["images", "local, ms", "processes, ms", "times local", "share of local throughput"]]
    for batch in result["batches"]:
        medians = batch["medians"]
        rows.append(
            [
                f"{batch['rows']:,}",
                spread(medians["local"], 1e3),
                spread(medians["processes"], 1e3),
                f"{statistics.median(batch['ratios']):.2f}",
                f"{1 / statistics.median(batch['ratios']):.0%}",
            ]
        )
    return rows


def counted(rows: int) -> str:
    """Return how many images, in words."""
    return "1 image" if rows == 1 else f"{rows:,} images"


def about(result: dict[str, Any]) -> str:
    """Return what the times are, in a line."""
    return f"Medians of {result['turns']} turns [least-most] of {result['repeats']} calls each."


def report(result: dict[str, Any]) -> str:
    """Return the result as text."""
    return f"{table(rows_of(result))}\n\n{about(result)}\nMachine: {describe(result['machine'])}"


def draw(result: dict[str, Any]) -> Any:
    """Draw the turns with processes, and where a local session is."""
    medians = [batch["medians"] for batch in result["batches"]]
    return page.beside(
        [counted(batch["rows"]) for batch in result["batches"]],
        [[1e3 * value for value in each["processes"]] for each in medians],
        {"a local session": [1e3 * statistics.median(each["local"]) for each in medians]},
        "milliseconds a call",
    )


def write_page(result: dict[str, Any], path: Path) -> None:
    """Write the result as a page."""
    parts = [
        page.text(about(result)),
        page.figure(lambda: draw(result), "times of a call with processes and in a local session"),
        page.table(rows_of(result)),
    ]
    page.write(path, "Every party in a process of its own", parts, result["machine"])


def job(options: argparse.Namespace) -> int:
    """Run and print."""
    rows = [int(n) for n in options.rows.split(",")]
    if min(rows) < 1:
        raise ValueError(f"--rows must be at least 1, got {options.rows}")
    script.at_least_one(options, "turns", "repeats")
    result = run(rows, options.turns, options.repeats)
    if options.report is not None:
        write_page(result, options.report)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
