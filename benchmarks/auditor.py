"""Network A between processes with an auditor of the provider and without, in turns.

Every party, the provider and its auditor run in a process of their own. The same processes hold two
sessions, one with the auditor and one without, and evaluate in them in turns, some calls each. A call
shares the images, evaluates the network and reveals the scores; its time is that of the party that takes
longest. CPU is what a process has used while calls ran. Which parts the auditor computes again is drawn, so
their share is given beside it, and what its CPU would be at the rate: by least squares over the turns, of a
share for every part and one for each that is computed again. Model and images are random. For Linux, whose
clocks show the CPU of others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import processes
import script
from machine import describe, facts, markdown, spread, table

import mpc
from mpc.core.watching import MALICIOUS, SECURITY, SEMI_HONEST
from mpc.launch import HELPERS, Place, fingerprint, start
from mpc.parties import configuration
from mpc.parties.health import ask
from mpc.parties.without_provider import RATE, check_rate

PARTIES = {SEMI_HONEST: processes.PARTIES, MALICIOUS: (*processes.PARTIES, "carol")}
KINDS = ("plain", "audited")
# How many calls a chunk has; chunks of both kinds take turns. Several parts each: what is asked for ahead
# at a chunk's end is dealt in the next one.
MOST_CALLS, CHUNK_ROWS = 200, 4000
# As many until the session asks ahead for as much as it ever does, and the parties hold it.
WARM_UP = 100


def cpu_clock(pid: int) -> int:
    """Return the clock of the CPU time of a process of this machine, as Linux numbers it."""
    return (~pid << 3) | 2


@dataclass(frozen=True)
class Turns:
    """What each process does; a callable for :func:`mpc.launch.start`.

    Attributes
    ----------
    rows : tuple of int
    chunks : int
        How many of each kind, of each batch.
    warm_up : int, optional
        How many calls come before those that are timed; default :func:`warm_up`.
    security : {"semi-honest", "malicious"}
        Of both sessions.
    """

    rows: tuple[int, ...]
    chunks: int
    warm_up: int | None = None
    security: str = SEMI_HONEST

    def __call__(self, place: Place) -> list[dict[str, Any]] | None:
        """Evaluate in one party's process, or be the provider or its auditor."""
        folder = place.path.parent
        (folder / f"{place.me}.pid").write_text(str(os.getpid()))
        parties = PARTIES[self.security]
        if place.me in HELPERS:
            # Else the kernels that the auditor needs are loaded when a coin falls for the first time.
            with mpc.Session(parties, security=self.security) as session:
                for rows in self.rows:
                    processes.measure(session, rows, 1)
            place.provide()
            return None
        plain = folder / f"{place.me}-plain.toml"
        plain.write_text(without_auditor(place.path.read_text()))
        program = fingerprint(chunk)
        with (
            replace(place, path=plain).session(program) as one,
            place.session(program) as other,
        ):
            clocks = [
                cpu_clock(int((folder / f"{name}.pid").read_text()))
                for name in (parties[-1], *HELPERS)
            ]
            return [self.measured(place, (one, other), rows, clocks) for rows in self.rows]

    def measured(
        self,
        place: Place,
        sessions: tuple[mpc.Session, mpc.Session],
        rows: int,
        clocks: Sequence[int],
    ) -> dict[str, Any]:
        """Measure one batch: chunks of calls in both sessions, in turns."""
        model, X = processes.network(), processes.images(rows)
        parties = PARTIES[self.security]
        shared = [model.share(s, parties[0], low=0, high=1, scores=True) for s in sessions]
        calls = calls_of(rows)
        for secret in shared:
            scores, _ = chunk(secret, X, self.warm_up or warm_up(rows))
            wanted = model.decision_function(X)
            if scores is not None and np.max(np.abs(scores - wanted)) > processes.TOLERANCE:
                raise mpc.SessionError("the scores are not those of the plain model")
        tells = place.me == parties[-1]
        counts: list[tuple[int, int]] = []
        taken: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        cpu: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        for k in range(self.chunks):
            order = (0, 1) if k % 2 else (1, 0)
            for which in order:
                counted = parts_of(place) if tells else (0, 0)
                before = [time.clock_gettime(clock) for clock in clocks]
                _, seconds = chunk(shared[which], X, calls)
                used = [
                    time.clock_gettime(clock) - then
                    for clock, then in zip(clocks, before, strict=True)
                ]
                taken[KINDS[which]].append(seconds)
                cpu[KINDS[which]].append([each / calls for each in used])
                if which and tells:
                    parts, audited = parts_of(place)
                    counts.append((parts - counted[0], audited - counted[1]))
        return {
            "rows": rows,
            "calls": calls,
            "seconds": taken,
            "cpu": cpu,
            "parts": [parts for parts, _ in counts],
            "audited": [audited for _, audited in counts],
        }


def parts_of(place: Place) -> tuple[int, int]:
    """Return how many parts the auditor has been told of, and how many of them it has computed again."""
    read = configuration.load(place.path)
    (health,) = ask(read, place.me, of="auditor")
    return int(health.told["parts"]), int(health.told["audited"])


def chunk(secret: Any, X: Any, calls: int) -> tuple[Any, list[float]]:
    """Return the scores of the last of some calls, where they are revealed, and what each has taken."""
    session = secret.session
    last = session.parties[-1]
    mine = X if session.me == last else None
    taken: list[float] = []
    scores = None
    for _ in range(calls):
        begin = time.perf_counter()
        rows = secret.share_rows(mine, last, rows=len(X))
        scores = secret.decision_function(rows, to=last)
        taken.append(time.perf_counter() - begin)
    return scores, taken


def calls_of(rows: int) -> int:
    """Return how many calls a chunk has."""
    return min(MOST_CALLS, max(2, CHUNK_ROWS // rows))


def warm_up(rows: int) -> int:
    """Return how many calls come before those that are timed."""
    return max(8, WARM_UP // rows)


def without_auditor(text: str) -> str:
    """Return parties.toml without its table [auditor]."""
    lines, keep = [], True
    for line in text.splitlines():
        if line.startswith("["):
            keep = line.strip() != "[auditor]"
        if keep:
            lines.append(line)
    return "\n".join(lines) + "\n"


def combined(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Combine what the parties have measured: a median of each chunk, of the slowest party."""
    lines = []
    for each in zip(*found.values(), strict=True):
        # The last party's clocks: it alone waits for corrections.
        line = {key: each[-1][key] for key in ("rows", "calls", "cpu", "parts", "audited")}
        line["medians"] = {
            kind: [
                statistics.median(max(pair) for pair in zip(*some, strict=True))
                for some in zip(*(party["seconds"][kind] for party in each), strict=True)
            ]
            for kind in KINDS
        }
        line["ratios"] = [
            b / a for a, b in zip(*(line["medians"][kind] for kind in KINDS), strict=True)
        ]
        lines.append(line)
    return lines


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--rows", default=",".join(map(str, processes.ROWS)), metavar="N,N")
    parser.add_argument(
        "--chunks", type=int, default=100, help="of calls, of each kind (default: 100)"
    )
    parser.add_argument(
        "--security", choices=SECURITY, default=SEMI_HONEST,
        help="of both sessions; malicious is of three parties (default: semi-honest)",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=RATE, help="of the audit (default: 0.1)")
    script.add_output(parser)
    return parser.parse_args(line)


def run(
    rows: Sequence[int],
    chunks: int,
    rate: float = RATE,
    warm_up: int | None = None,
    security: str = SEMI_HONEST,
) -> dict[str, Any]:
    """Take turns and combine them."""
    turns = Turns(tuple(rows), chunks, warm_up, security)
    found = start(
        lambda _: turns, PARTIES[security], auditor=True, audit_rate=rate, security=security
    )
    return {
        "security": security,
        "network": processes.SIZES,
        "rate": rate,
        "chunks": chunks,
        "batches": combined(found),
        "machine": facts(),
    }


def cpu_of(batch: dict[str, Any], kind: str) -> list[float]:
    """Return the mean CPU seconds a call of the last party, the provider and the auditor."""
    return [statistics.mean(each) for each in zip(*batch["cpu"][kind], strict=True)]


def share_of(batch: dict[str, Any]) -> float:
    """Return the auditor's CPU time over the provider's."""
    _, provider, auditor = cpu_of(batch, "audited")
    return auditor / provider


def at_rate(batch: dict[str, Any], rate: float) -> float:
    """Return the auditor's CPU time over the provider's, if as many parts were drawn as the rate says."""
    used = np.array([each[-1] for each in batch["cpu"]["audited"]]) * batch["calls"]
    counts = np.stack([batch["parts"], batch["audited"]], axis=1).astype(float)
    (each, again), *_ = np.linalg.lstsq(counts, used, rcond=None)
    provider = cpu_of(batch, "audited")[1] * batch["calls"] * len(used)
    return float((each + rate * again) * counts[:, 0].sum() / provider)


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Return the result as a table."""
    rows = [
        [
            "images", "without, ms", "with, ms", "times", "CPU of the provider, ms: without, with",
            "CPU of the auditor, ms", "over the provider's", "parts computed again", "at the rate",
        ]
    ]  # fmt: skip
    for batch in result["batches"]:
        medians = batch["medians"]
        (_, before, _), (_, provider, auditor) = (cpu_of(batch, kind) for kind in KINDS)
        rows.append(
            [
                f"{batch['rows']:,}",
                spread(medians["plain"], 1e3),
                spread(medians["audited"], 1e3),
                spread(batch["ratios"], 1, 2),
                f"{1e3 * before:.2f}, {1e3 * provider:.2f}",
                f"{1e3 * auditor:.3f}",
                f"{share_of(batch):.3f}",
                f"{sum(batch['audited']):,} of {sum(batch['parts']):,}",
                f"{at_rate(batch, result['rate']):.3f}",
            ]
        )
    return rows


def auditor_text(result: dict[str, Any]) -> list[str]:
    """Return the chapter on the auditor."""
    calls = ", ".join(f"{batch['calls']} of {batch['rows']:,}" for batch in result["batches"])
    security = result.get("security", SEMI_HONEST)
    option = "" if security == SEMI_HONEST else f" --security {security}"
    who = "" if security == SEMI_HONEST else "three parties who watch one another: "
    return [
        f"`auditor.py{option}`: network A, {who}every party, the provider and the auditor in a process of"
        " its own over"
        f" TLS on the loopback, rate {result['rate']:g}. The same processes hold a session with the auditor"
        f" and one without, and evaluate in turns: {result['chunks']} times so many calls each, {calls}"
        " images."
        " Medians of a turn's calls [least-most]; ratios are of turns that follow each other. A call"
        " shares the images, evaluates and reveals the scores. CPU is a mean a call; the last column is the"
        " auditor's over the provider's if coins had fallen as often as the rate says, by least squares"
        " over the turns.",
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
    script.at_least_one(options, "chunks")
    result = run(rows, options.chunks, check_rate(options.rate), security=options.security)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{table(rows_of(result))}\n\nMachine: {describe(result['machine'])}")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
