"""Network A with three parties: semi-honest, and watched (security="malicious"), in turns.

Every party is a process of its own, and the provider another. A call shares the images, evaluates the
network and reveals the scores to the owner of the images. CPU is that of the party's whole process, on one
thread; processes go to sleep at once when they wait, so that waiting is not counted as work. Model and
images are random: neither cost depends on them. What is revealed is compared with the plain model.

Semi-honest parties send less if one of them knows the model. So bytes are counted for a model on shares,
too, which has made one step of training: in a local session, which counts what processes send.
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

import numpy as np
import processes
import script
from machine import describe, facts, markdown, table

import mpc
import nn
from mpc.core.cost import Cost
from mpc.launch import HELPERS, Place, start
from mpc.transport import waiting

PARTIES = ("alice", "bob", "carol")
SECURITY = ("semi-honest", "malicious")
ROWS = (1, 128, 1000)
COUNTED = ("rounds", "bytes_of", "bytes_in_all", "correction_bytes")


@dataclass(frozen=True)
class Calls:
    """How often each batch is evaluated; a callable for :func:`mpc.launch.start`."""

    rows: tuple[int, ...]
    repeats: int

    def __call__(self, place: Place) -> list[dict[str, Any]] | None:
        """Evaluate in one party's process, or be the provider."""
        waiting._AWAKE_SECONDS = 0.0
        if place.me in HELPERS:
            place.provide()
            return None
        with place.session("watched") as session:
            return [self.measured(session, rows) for rows in self.rows]

    def measured(self, session: mpc.Session, rows: int) -> dict[str, Any]:
        """Measure one batch: the model is alice's, the images are carol's."""
        model, X = processes.network(), processes.images(rows)
        secret = model.share(session, "alice", low=0, high=1, scores=True)

        def call() -> Any:
            mine = X if session.me == "carol" else None
            return secret.decision_function(secret.share_rows(mine, "carol", rows=rows), to="carol")

        for _ in range(processes.warm_up(rows)):
            scores = call()
        if scores is not None:
            error = np.max(np.abs(scores - model.decision_function(X)))
            if error > processes.TOLERANCE:
                raise mpc.SessionError("the scores are not those of the plain model")
        before, seconds, cpu = session.cost(), [], []
        for _ in range(self.repeats):
            begin, work = time.perf_counter(), time.process_time()
            call()
            cpu.append(time.process_time() - work)
            seconds.append(time.perf_counter() - begin)
        cost = session.cost() - before
        return {
            "seconds": seconds,
            "cpu": cpu,
            **counts(cost, self.repeats),
        }


def counts(cost: Cost, calls: int) -> dict[str, Any]:
    """Return what is counted of so many calls, for one."""
    return {
        "rounds": cost.rounds / calls,
        "bytes_of": [sent / calls for sent in cost.total.sent],
        "bytes_in_all": sum(cost.total.sent) / calls,
        "correction_bytes": cost.correction_bytes / calls,
    }


def on_shares(security: str, rows: int) -> dict[str, Any]:
    """Count a call with a model that was trained on shares, which no party knows."""
    few = 4
    with mpc.Session(PARTIES, security=security) as session:
        X = session.share(processes.images(few), owner="carol", bound=1.0)
        y = session.share(nn.one_hot(np.arange(few), processes.SIZES[-1]), owner="bob")
        secret = nn.MLP(processes.SIZES, random_state=0).fit(X, y, epochs=1, batch_size=few)
        for _ in range(2):
            # The first call opens the masked weights.
            before = session.cost()
            secret.decision_function(secret.share_rows(processes.images(rows), "carol"), to="carol")
        return {"cpu": None, "seconds": None, **counts(session.cost() - before, 1)}


def measure(rows: Sequence[int], turns: int, repeats: int) -> list[dict[str, Any]]:
    """Run both, in turns; return for each batch and both kinds what the busiest party takes."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in SECURITY}
    for _ in range(turns):
        for kind in SECURITY:
            calls = Calls(tuple(rows), repeats)
            runs[kind].append(
                start(lambda _, calls=calls: calls, PARTIES, threads=1, security=kind)
            )
    found = []
    for k, count in enumerate(rows):
        of: dict[str, Any] = {"model": "alice's", "rows": count}
        for kind in SECURITY:
            parties = [{name: each[k] for name, each in run.items()} for run in runs[kind]]
            first = parties[0]["alice"]
            of[kind] = {
                # Of each party the median call over all turns, and of these the largest.
                key: max(
                    statistics.median([value for run in parties for value in run[name][key]])
                    for name in PARTIES
                )
                for key in ("cpu", "seconds")
            }
            of[kind] |= {key: first[key] for key in COUNTED}
        found.append(of)
    for count in rows:
        found.append({"model": "on shares", "rows": count})
        found[-1] |= {kind: on_shares(kind, count) for kind in SECURITY}
    return found


def rows_of(measured: dict[str, Any]) -> list[list[str]]:
    """Return a table of what was measured."""
    head = ["model", "images", "security", "CPU of the busiest party", "seconds", "rounds"]
    lines = [[*head, *(f"bytes sent by {name}" for name in PARTIES), "by all", "corrections"]]

    def times(kind: str, mine: float, semi_honest: float) -> str:
        return "" if kind == SECURITY[0] else f" ({mine / semi_honest:.2f}x)"

    def cpu(kind: str, mine: float | None, semi_honest: float) -> str:
        return "-" if mine is None else f"{mine * 1e3:.2f} ms{times(kind, mine, semi_honest)}"

    for each in measured["batches"]:
        first = each[SECURITY[0]]
        for kind in SECURITY:
            of = each[kind]
            sent = zip(
                [*of["bytes_of"], of["bytes_in_all"]],
                [*first["bytes_of"], first["bytes_in_all"]],
                strict=True,
            )
            lines.append(
                [
                    each["model"],
                    f"{each['rows']:,}",
                    kind,
                    cpu(kind, of["cpu"], first["cpu"]),
                    "-" if of["seconds"] is None else f"{of['seconds']:.4f}",
                    f"{of['rounds']:g}",
                    *(f"{count:,.0f}{times(kind, count, before)}" for count, before in sent),
                    f"{of['correction_bytes']:,.0f}",
                ]
            )
    return lines


def watched_text(measured: dict[str, Any]) -> list[str]:
    """Return the chapter of RESULTS.md, and what docs/security-models.md says of it."""
    return [
        "`watched.py`: network A, three parties and the provider as processes of one machine over TLS,"
        f" semi-honest and malicious in turns; medians of {measured['turns']} times"
        f" {measured['repeats']} calls, on one thread; in brackets how many times the semi-honest ones'."
        " The images are carol's; bob owns nothing. A model on shares has made a step of training, and no"
        " party knows it (counted, not timed): where alice does, semi-honest parties open what is"
        " multiplied with it to her alone, which watched parties cannot."
        " Bytes are those that parties send to one another, corrections all that the provider sends. An"
        " input goes to both others in either case, and is most of what its owner sends.",
        "",
        markdown(rows_of(measured)),
        "",
        f"Machine: {describe(measured['machine'])}.",
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="images of a call")
    parser.add_argument("--turns", type=int, default=3, help="how often both run (default: 3)")
    parser.add_argument("--repeats", type=int, default=20, help="calls of a turn (default: 20)")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure, and print a table or JSON."""
    measured = {
        "batches": measure(options.rows, options.turns, options.repeats),
        "turns": options.turns,
        "repeats": options.repeats,
        "machine": facts(),
    }
    print(json.dumps(measured, indent=1) if options.json else table(rows_of(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
