"""Network A between processes with an auditor of the provider and without, in turns.

Every party, the provider and its auditor run in a process of their own. The same processes hold two
sessions, one with the auditor and one without, and evaluate in them in turns. A call shares the
images, evaluates the network and reveals the scores; its time is that of the party that takes longest. CPU
is what a process has used while the calls ran: that of the provider is in both sessions the same work. Which
part the auditor computes again is drawn, so it is given beside the CPU. Model and images are random.
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
from pathlib import Path
from typing import Any

import processes
import script
from machine import describe, facts, markdown, spread, table

import mpc
from mpc.launch import HELPERS, Place, fingerprint, start
from mpc.parties import configuration
from mpc.parties.health import ask

PARTIES = processes.PARTIES
# Calls of a chunk take about this long in all; chunks of both kinds take turns.
CHUNK_ROWS = 400
KINDS = ("plain", "audited")
# What the last chunk of a session waits for: the others' shares of what is counted.
CLOCKS = ("last party", "provider", "auditor")


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
    """

    rows: tuple[int, ...]
    chunks: int

    def __call__(self, place: Place) -> list[dict[str, Any]] | None:
        """Evaluate in one party's process, or be the provider or its auditor."""
        folder = place.path.parent
        (folder / f"{place.me}.pid").write_text(str(os.getpid()))
        if place.me in HELPERS:
            # Else the kernels that the auditor needs are loaded when a coin falls for the first time.
            with mpc.Session(PARTIES) as session:
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
                for name in (PARTIES[-1], *HELPERS)
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
        shared = [model.share(s, PARTIES[0], low=0, high=1, scores=True) for s in sessions]
        calls = max(2, CHUNK_ROWS // (rows + 7))
        for secret in shared:
            scores, _ = chunk(secret, X, processes.warm_up(rows))
            found = scores is None or abs(scores - model.decision_function(X)).max()
            if found is not True and found > processes.TOLERANCE:
                raise mpc.SessionError("the scores are not those of the plain model")
        counted = parts_of(place)
        taken: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        cpu: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        for k in range(self.chunks):
            order = (0, 1) if k % 2 else (1, 0)
            for which in order:
                before = [time.clock_gettime(clock) for clock in clocks]
                _, seconds = chunk(shared[which], X, calls)
                used = [
                    time.clock_gettime(clock) - then
                    for clock, then in zip(clocks, before, strict=True)
                ]
                taken[KINDS[which]].append(seconds)
                cpu[KINDS[which]].append([each / calls for each in used])
        parts, audited = (
            now - then for now, then in zip(parts_of(place), counted, strict=True)
        )
        return {
            "rows": rows,
            "calls": calls,
            "seconds": taken,
            "cpu": cpu,
            "parts": parts,
            "audited": audited,
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
