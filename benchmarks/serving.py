"""Requests a second of the services, how long clients wait, and what hostile clients cost the others.

Starts the provider, alice and bob as commands of this machine, and clients in two processes beside
them, which share its cores. Each client asks again as soon as it is answered, and checks every answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import script
from machine import describe, facts, markdown, table
from services import NAMES, Services, layers_of, processor_seconds, running

HERE = Path(__file__).resolve().parent
LAYERS = (hostile.WIDTH, 32, 10)
# Each has connections of its own, as one with many may be refused.
CLIENTS = tuple(f"client-{k}" for k in range(8))
ROWS = 2
_PROCESSES = 2


class Crowd:
    """Clients in processes of their own, connected and ready to ask.

    Parameters
    ----------
    services : Services
    clients : int
    models : int
    seconds : float
    requests : int, optional
        How many in all; as many as there is time for if not given.
    different : bool
        Whether the models have different architectures.
    """

    def __init__(
        self,
        services: Services,
        clients: int,
        models: int,
        seconds: float,
        requests: int = 0,
        different: bool = False,
    ) -> None:
        self._services = services
        self._outs = [services.folder / f"asked-{k}.npy" for k in range(_PROCESSES)]
        self._processes = []
        for k, out in enumerate(self._outs):
            job = {
                "path": str(services.path),
                "names": CLIENTS,
                "models": [f"model-{m}" for m in range(models)],
                "clients": clients // _PROCESSES + (k < clients % _PROCESSES),
                "layers": [layers_of(LAYERS, m, different) for m in range(models)],
                "rows": ROWS,
                "seconds": seconds,
                "requests": requests // _PROCESSES,
                "keep": not requests,
                "seed": k,
                "out": str(out),
            }
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "serving_clients.py"), json.dumps(job)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise ValueError("clients could not connect")

    def start(self) -> float:
        """Let all begin; return when."""
        begin = time.monotonic() + 0.5
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{begin}\n")
            process.stdin.flush()
        return begin

    def cpu(self) -> float:
        """Return the processor's seconds that all have used."""
        return sum(processor_seconds(process.pid) for process in self._processes)

    @property
    def asking(self) -> bool:
        """Whether some are not done."""
        return any(process.poll() is None for process in self._processes)

    def wait(self) -> tuple[np.ndarray, dict[str, int]]:
        """Return when requests began and how long they took, and how many failed by why."""
        errors: Counter[str] = Counter()
        for process, out in zip(self._processes, self._outs, strict=True):
            if process.wait():
                raise ValueError(f"clients ended with exit code {process.returncode}")
            errors.update(json.loads(out.with_suffix(".json").read_text()))
        if errors["a wrong answer"]:
            raise ValueError(f"{errors['a wrong answer']} answers were wrong")
        return np.concatenate([np.load(out) for out in self._outs]), dict(errors)

    def stop(self) -> None:
        """End those that are left."""
        for process in self._processes:
            process.kill()
            process.wait()


def turn(
    services: Services,
    clients: int,
    models: int,
    warm_up: float,
    seconds: float,
    different: bool = False,
) -> dict[str, Any]:
    """Let clients ask, and return what was measured behind the warm-up, and of the first second."""
    crowd = Crowd(services, clients, models, warm_up + seconds, different=different)
    try:
        begin = crowd.start()
        time.sleep(max(0.0, begin + warm_up - time.monotonic()))
        before = {**services.cpu(), "clients": crowd.cpu()}
        time.sleep(max(0.0, begin + warm_up + seconds - time.monotonic()))
        after = {**services.cpu(), "clients": crowd.cpu()}
        asked, errors = crowd.wait()
    finally:
        crowd.stop()
    ends = asked.sum(axis=1)
    counted = asked[(ends >= warm_up) & (ends < warm_up + seconds), 1]
    if not len(counted):
        raise ValueError("no request was answered")
    return {
        "requests_a_second": round(len(counted) / seconds, 1),
        "first_second": int((ends < 1).sum()),
        "median_ms": round(1e3 * float(np.median(counted)), 2),
        "p99_ms": round(1e3 * float(np.percentile(counted, 99)), 2),
        "cpu_ms": {n: round(1e3 * (after[n] - before[n]) / len(counted), 3) for n in after},
        "errors": errors,
    }


@contextlib.contextmanager
def harm(services: Services, kinds: Sequence[str]) -> Iterator[None]:
    """Have a hostile client of each of these kinds meanwhile."""
    processes = [
        subprocess.Popen([sys.executable, str(HERE / "hostile.py"), str(services.path), kind])
        for kind in kinds
    ]
    try:
        yield
        ended = [kind for kind, process in zip(kinds, processes, strict=True) if process.poll()]
        if ended:
            raise ValueError(f"hostile clients have ended: {', '.join(ended)}")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def serve(models: int, different: bool = False) -> contextlib.AbstractContextManager[Services]:
    """Run services with so many models."""
    clients = (*CLIENTS, hostile.EVE, hostile.EXPIRED)
    return running(LAYERS, models, clients, [hostile.EXPIRED], different)


def measure_load(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every number of clients with every number of models."""
    found = []
    different = options.different
    for models in options.models:
        with serve(models, different) as services:
            for clients in options.clients:
                one = turn(services, clients, models, options.warm_up, options.seconds, different)
                found.append({"clients": clients, "models": models, **one})
    return found


def measure_harm(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure turns with hostile clients, each between two turns without."""
    found = []
    cases = [list(hostile.KINDS)] if options.hostile == "all" else [[k] for k in hostile.KINDS]
    clients = options.clients[0]
    with serve(1) as services:

        def once() -> dict[str, Any]:
            return turn(services, clients, 1, options.warm_up, options.seconds)

        calm = [once()]
        for kinds in cases:
            harmed = []
            for _ in range(options.turns):
                with harm(services, kinds):
                    harmed.append(once())
                calm.append(once())
            undisturbed = calm[-options.turns - 1 :]
            rates = [
                float(np.mean([each["requests_a_second"] for each in turns]))
                for turns in (undisturbed, harmed)
            ]
            errors: Counter[str] = Counter()
            for each in harmed:
                errors.update(each["errors"])
            found.append(
                {
                    "kinds": kinds,
                    "clients": clients,
                    "undisturbed": undisturbed,
                    "harmed": harmed,
                    "loss_percent": round(100 * (1 - rates[1] / rates[0]), 1),
                    "errors": dict(errors),
                }
            )
    return found


def measure_soak(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory of each service at a tenth of the requests, and at their end."""
    with serve(1) as services:
        crowd = Crowd(services, options.clients[0], 1, 1e9, options.soak)
        try:
            begin, memory = crowd.start(), []
            while crowd.asking:
                time.sleep(0.5)
                memory.append((services.served(CLIENTS[0]), services.memory()))
            seconds = time.monotonic() - begin
            _, errors = crowd.wait()
        finally:
            crowd.stop()
    early = next((each for each in memory if each[0] >= options.soak / 10), memory[-1])
    return {
        "requests": memory[-1][0],
        "clients": options.clients[0],
        "seconds": round(seconds),
        "early": {"requests": early[0], "bytes": early[1]},
        "end": memory[-1][1],
        "errors": errors,
    }


def load_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the table of requests a second."""
    rows = [
        ["clients", "models", "requests a second", "the first second", "median", "99 of 100 within"]
        + [f"CPU of {name}" for name in (*NAMES, "clients")]
        + ["errors"]
    ]
    for each in found:
        rows.append(
            [
                f"{each['clients']}",
                f"{each['models']}",
                f"{each['requests_a_second']:,.0f}",
                f"{each['first_second']:,}",
                f"{each['median_ms']:.0f} ms",
                f"{each['p99_ms']:.0f} ms",
                *(f"{each['cpu_ms'][name]:.2f} ms" for name in (*NAMES, "clients")),
                str(sum(each["errors"].values())),
            ]
        )
    return rows


def harm_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the table of hostile clients."""

    def mean(turns: Sequence[dict[str, Any]], key: str) -> float:
        return float(np.mean([each[key] for each in turns]))

    rows = [
        [
            "hostile client",
            "requests a second without",
            "with",
            "loss",
            "99 of 100 within, without",
            "with",
            "errors",
        ]
    ]
    for each in found:
        kinds, without, harmed = each["kinds"], each["undisturbed"], each["harmed"]
        rows.append(
            [
                kinds[0] if len(kinds) == 1 else f"one of each of {len(kinds)} kinds at once",
                f"{mean(without, 'requests_a_second'):,.0f}",
                f"{mean(harmed, 'requests_a_second'):,.0f}",
                f"{each['loss_percent']:.0f}%",
                f"{mean(without, 'p99_ms'):.0f} ms",
                f"{mean(harmed, 'p99_ms'):.0f} ms",
                str(sum(each["errors"].values())),
            ]
        )
    return rows


def soak_rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the table of memory."""
    early, end = found["early"]["bytes"], found["end"]
    return [
        ["", *NAMES],
        [
            f"after {found['early']['requests']:,} requests",
            *(f"{early[name] / 1e6:,.1f} MB" for name in NAMES),
        ],
        [
            f"after {found['requests']:,}",
            *(f"{end[name] / 1e6:,.1f} MB" for name in NAMES),
        ],
        ["growth", *(f"{end[name] / early[name] - 1:.1%}" for name in NAMES)],
    ]


def tables(measured: dict[str, Any]) -> Iterator[list[list[str]]]:
    """Return what was measured as tables."""
    if "load" in measured:
        yield load_rows(measured["load"])
    if "hostile" in measured:
        yield harm_rows(measured["hostile"])
    if "soak" in measured:
        yield soak_rows(measured["soak"])


def about(measured: dict[str, Any]) -> str:
    """Return how it was measured."""
    layers = "-".join(map(str, measured["layers"]))
    text = (
        f"Requests of {measured['rows']} rows for networks {layers}"
        f"{', each model one wider inside than the last' if measured['different'] else ''};"
        " the provider, alice, bob and all clients on one machine of"
        f" {measured['machine']['cores']} cores."
    )
    if "load" in measured or "hostile" in measured:
        text += (
            f" Measured for {measured['seconds']:g} s behind a warm-up of {measured['warm_up']:g} s;"
            " the first second is that of clients which are connected already. CPU is the time of each"
            " service, and of all clients, for a request."
        )
    if "soak" in measured:
        text += f" Memory while {measured['soak']['clients']} clients asked, in"
        text += f" {measured['soak']['seconds']:,} s."
    return text


def serving_text(measured: dict[str, Any]) -> list[str]:
    """Return what RESULTS.md says of it."""
    text = [about(measured), ""]
    for rows in tables(measured):
        text += [markdown(rows), ""]
    return [*text, f"Machine: {describe(measured['machine'])}."]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--clients", type=_numbers, default=[100, 400], metavar="N,N")
    parser.add_argument("--models", type=_numbers, default=[1, 50], metavar="N,N")
    parser.add_argument(
        "--different", action="store_true", help="models of different architectures, not all alike"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="that are measured")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before")
    parser.add_argument(
        "--hostile",
        choices=("all", "each"),
        help="measure a hostile client of every kind too: all at once, or each by itself;"
        " with the first number of clients",
    )
    parser.add_argument("--turns", type=int, default=3, help="with hostile clients (default: 3)")
    parser.add_argument(
        "--soak", type=int, metavar="N", help="measure the memory over so many requests too"
    )
    parser.add_argument("--no-load", action="store_true", help="leave the first measurement out")
    script.add_output(parser)
    return parser.parse_args(line)


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "turns", "soak")
    if not (options.seconds > 0 and options.warm_up >= 0):
        raise ValueError("--seconds must be positive and --warm-up not negative")
    if min(options.clients) < _PROCESSES:
        raise ValueError(f"--clients must be at least {_PROCESSES}, got {min(options.clients)}")
    measured: dict[str, Any] = {
        "machine": facts(),
        "layers": LAYERS,
        "different": options.different,
        "rows": ROWS,
        "seconds": options.seconds,
        "warm_up": options.warm_up,
    }
    if not options.no_load:
        measured["load"] = measure_load(options)
    if options.hostile:
        measured["hostile"] = measure_harm(options)
    if options.soak:
        measured["soak"] = measure_soak(options)
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print(about(measured), *map(table, tables(measured)), sep="\n\n")
        print(f"\n{describe(measured['machine'])}")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
