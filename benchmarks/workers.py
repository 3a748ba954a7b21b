"""Predictions a second against workers a party, what bounds them, and what more machines would give.

All parties and the provider are processes of this machine, over TLS on the loopback interface, and
every worker has one thread. With as many processes as cores, another worker brings nothing: the
column "cores busy" says when that is so. `paper` works out other sizes from what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import script
from machine import describe, facts, table

import mpc
import nn
from mpc.launch import Place, start

LAYERS = (784, 128, 128, 10)
FEW = 100
# What the page assumes of machines that were not measured.
CORES, LINK, LINE, ROUND_TRIP = 16, 10e9, 10e9, 1e-3
MACHINES = (1, 10, 100)
IMAGES = 10_000_000


def network() -> nn.MLP:
    """Return a network whose weights do not matter: they change nothing in what is done."""
    rng = np.random.default_rng(0)
    shapes = [s for n, m in itertools.pairwise(LAYERS) for s in ((n, m), (m,))]
    return nn.MLP.from_parameters([rng.normal(0, 0.05, shape) for shape in shapes])


def cpu_seconds(root: int) -> float:
    """Return what a process and all below it have computed up to now."""
    parents, spent = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                # Of itself, and of its children that have ended.
                spent[int(folder.name)] = sum(map(int, fields[11:15]))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0)
        waiting += [child for child, parent in parents.items() if parent == pid]
    return total / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Return what all processes of this machine have computed, these and others."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


class Measurement:
    """What each process of the launch does."""

    def __init__(
        self, folder: Path, rows: int, jobs: list[int], repeats: int, schedulers: dict[str, str]
    ) -> None:
        self.folder, self.rows, self.jobs, self.repeats = folder, rows, jobs, repeats
        self.schedulers = schedulers

    def __call__(self, place: Place) -> Any:
        (self.folder / place.me).write_text(str(os.getpid()))
        if place.me == "provider":
            return place.provide()
        backend: Any = contextlib.nullcontext()
        with contextlib.ExitStack() as stack:
            if self.schedulers:
                import joblib
                from distributed import Client

                client = Client(self.schedulers[place.me], set_as_default=False)
                stack.enter_context(client)
                backend = joblib.parallel_config("dask", client=client)
            stack.enter_context(backend)
            session = stack.enter_context(place.session("benchmarks/workers.py"))
            return self.run(session)

    def run(self, session: mpc.Session) -> list[dict[str, Any]]:
        """Time every number of workers in turn, several times."""
        model = network() if session.me == "alice" else network().outline()
        secret = model.share(session, owner="alice", low=0, high=1)
        values = np.random.default_rng(1).random((self.rows, LAYERS[0]))

        def fresh() -> Any:
            # Rows that were opened under a mask once are not opened again.
            return secret.share_rows(
                values if session.me == "bob" else None, owner="bob", rows=self.rows
            )

        names = (*session.parties, "provider")
        pids = {name: int((self.folder / name).read_text()) for name in names}
        expected = secret.predict(fresh()[:FEW], n_jobs=1)
        results = []
        for n_jobs in self.jobs * (self.repeats + 1):
            x, few = fresh(), fresh()[:FEW]
            before, cpu = session.cost(), {n: cpu_seconds(p) for n, p in pids.items()}
            all_before, begin = machine_seconds(), time.perf_counter()
            labels = secret.predict(x, n_jobs=n_jobs)
            seconds = time.perf_counter() - begin
            all_after = machine_seconds()
            spent = session.cost() - before
            after = {n: cpu_seconds(p) for n, p in pids.items()}
            if not (labels[:FEW] == expected).all():
                raise SystemExit(f"{n_jobs} workers give other labels")
            begin = time.perf_counter()
            secret.predict(few, n_jobs=n_jobs)
            results.append(
                {
                    "n_jobs": n_jobs,
                    "seconds": seconds,
                    "seconds_few": time.perf_counter() - begin,
                    "cpu": {n: after[n] - cpu[n] for n in pids},
                    "machine_busy": (all_after - all_before) / seconds,
                    "rounds": spent.rounds,
                    "bytes_sent": list(spent.total.sent),
                    "correction_bytes": spent.correction_bytes,
                }
            )
        return results[len(self.jobs) :]  # the first turn warms up


def measure(
    rows: int, jobs: list[int], repeats: int, schedulers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run the parties; return for each number of workers the median of its turns."""
    with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
        run = Measurement(Path(folder), rows, jobs, repeats, schedulers or {})
        found = start(lambda _: run, ("alice", "bob"), threads=1, timeout=3600.0)["bob"]
    out = []
    for n_jobs in jobs:
        turns = [turn for turn in found if turn["n_jobs"] == n_jobs]
        seconds = [turn["seconds"] for turn in turns]
        middle = statistics.median(seconds)
        cpu = {n: statistics.median(t["cpu"][n] for t in turns) for n in turns[0]["cpu"]}
        out.append(
            {
                "n_jobs": n_jobs,
                "seconds": middle,
                "seconds_runs": seconds,
                "images_per_second": rows / middle,
                "seconds_few": statistics.median(t["seconds_few"] for t in turns),
                "cpu_seconds": cpu,
                "cores_busy": sum(cpu.values()) / middle,
                "machine_busy": statistics.median(t["machine_busy"] for t in turns),
                **{key: turns[0][key] for key in ("rounds", "bytes_sent", "correction_bytes")},
            }
        )
    return out


def on_dask(rows: int, jobs: list[int], repeats: int) -> list[dict[str, Any]]:
    """The same on a cluster of its own for each party; its processes are not the parties' children."""
    from distributed import LocalCluster

    os.environ["SOTTO_NUM_THREADS"] = "1"
    with contextlib.ExitStack() as stack:
        clusters = {
            name: stack.enter_context(
                LocalCluster(max(jobs), threads_per_worker=1, dashboard_address=None)
            )
            for name in ("alice", "bob")
        }
        found = measure(rows, jobs, repeats, {n: c.scheduler_address for n, c in clusters.items()})
    for item in found:
        del item["cpu_seconds"], item["cores_busy"]
    return found


def paper(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Work out 1, 10 and 100 machines a party from the run with one worker.

    Each bound is a rate in images a second; the lowest one holds.
    """
    one, rows = measured["processes"][0], measured["images"]
    overhead = max(item["seconds_few"] for item in measured["processes"])
    party = max(one["cpu_seconds"][name] for name in ("alice", "bob")) / rows
    provider = one["cpu_seconds"]["provider"] / rows
    online = max(one["bytes_sent"]) / rows
    corrections = one["correction_bytes"] / rows
    # Every batch has as many rounds as the whole run has by batches.
    waiting = one["rounds"] * ROUND_TRIP / rows
    found = []
    for machines in MACHINES:
        workers = machines * CORES
        bounds = {
            "cores of a party": workers / (party + waiting),
            "line between the parties": LINE / (8 * online),
            "provider's cores": CORES / provider,
            "provider's link": LINK / (8 * corrections),
            "data owner's link to its own workers": LINK / (8 * 8 * LAYERS[0]),
        }
        rate = min(bounds.values())
        found.append(
            {
                "machines": machines,
                "workers": workers,
                "bounds": bounds,
                "images_per_second": rate,
                "bound_by": min(bounds, key=lambda name: bounds[name]),
                "seconds": IMAGES / rate + overhead,
                "unbounded": bounds["cores of a party"],
                "line_gbit": bounds["cores of a party"] * 8 * online / 1e9,
                "provider_machines": math.ceil(bounds["cores of a party"] * provider / CORES),
                "provider_gbit": bounds["cores of a party"] * 8 * corrections / 1e9,
            }
        )
    return found


def bound(item: dict[str, Any], cores: int) -> str:
    """Say what holds a measured row back."""
    if item["machine_busy"] >= 0.85 * cores:
        return f"the {cores} cores of this machine"
    return "waiting for one another"


def rows_of(measured: dict[str, Any]) -> list[list[str]]:
    """Return the measured table."""
    cores = measured["machine"]["cores"]
    rows = [
        ["workers a party", "seconds [least-most]", "images/s", "a call of 100", "cores busy with it",
         "cores busy in all", "bound by"]
    ]  # fmt: skip
    for kind, title in (("processes", ""), ("dask", ", Dask")):
        for item in measured[kind]:
            runs = item["seconds_runs"]
            own = "none: its own process" if item["n_jobs"] == 1 else f"{item['n_jobs']}{title}"
            busy = f"{item['cores_busy']:.2f}" if "cores_busy" in item else "-"
            rows.append(
                [own, f"{item['seconds']:.2f} [{min(runs):.2f}-{max(runs):.2f}]",
                 f"{item['images_per_second']:,.0f}", f"{item['seconds_few'] * 1e3:.0f} ms", busy,
                 f"{item['machine_busy']:.2f}",
                 bound(item, cores)]
            )  # fmt: skip
    return rows


def paper_rows(measured: dict[str, Any]) -> list[list[str]]:
    """Return what more machines would give, as a table."""
    rows = [["", *(f"{p['machines']} machines a party" for p in measured["paper"])]]
    rows[0][1] = rows[0][1].replace("machines", "machine")
    for name in measured["paper"][0]["bounds"]:
        rows.append(
            [f"images/s: {name}", *(f"{p['bounds'][name]:,.0f}" for p in measured["paper"])]
        )
    rows += [
        ["images/s", *(f"{p['images_per_second']:,.0f}" for p in measured["paper"])],
        ["bound by", *(p["bound_by"] for p in measured["paper"])],
        [f"seconds for {IMAGES:,} images", *(f"{p['seconds']:,.0f}" for p in measured["paper"])],
        ["for all cores to be busy: line between the parties, Gbit/s",
         *(f"{p['line_gbit']:,.1f}" for p in measured["paper"])],
        ["provider's machines", *(f"{p['provider_machines']:,}" for p in measured["paper"])],
        ["provider's link, Gbit/s", *(f"{p['provider_gbit']:,.1f}" for p in measured["paper"])],
    ]  # fmt: skip
    return rows


def inputs_of_paper(measured: dict[str, Any]) -> list[list[str]]:
    """Return the measured figures that the computation starts from, as a table."""
    one, images = measured["processes"][0], measured["images"]
    cpu = one["cpu_seconds"]
    return [
        ["measured, one image", ""],
        ["processor time of alice", f"{cpu['alice'] / images * 1e6:.0f} microseconds"],
        ["processor time of bob", f"{cpu['bob'] / images * 1e6:.0f} microseconds"],
        ["processor time of the provider", f"{cpu['provider'] / images * 1e6:.0f} microseconds"],
        ["bytes that the busier party sends the other", f"{max(one['bytes_sent']) / images:,.0f}"],
        ["bytes from the provider", f"{one['correction_bytes'] / images:,.0f}"],
        ["rounds of a run", f"{one['rounds']:,} for {images:,} images"],
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="the first is 1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-dask", action="store_true", help="leave the Dask clusters out")
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "images", "repeats")
    if options.workers[0] != 1 or min(options.workers) < 1:
        raise ValueError(
            "--workers must begin with 1, with which the others are compared, and be at least 1,"
            f" got {' '.join(map(str, options.workers))}"
        )
    measured: dict[str, Any] = {
        "machine": facts(),
        "images": options.images,
        "layers": LAYERS,
        "processes": measure(options.images, options.workers, options.repeats),
        "dask": []
        if options.no_dask
        else on_dask(options.images, options.workers[1:], options.repeats),
    }
    measured["paper"] = paper(measured)
    if options.json:
        print(json.dumps(measured, indent=1))
        return 0
    print(table(rows_of(measured)), table(inputs_of_paper(measured)), sep="\n\n")
    print("", table(paper_rows(measured)), describe(measured["machine"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
