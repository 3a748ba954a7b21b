"""Memory of the services: what each takes when it is ready, and for a connection, a model and a row.

Starts the provider, alice and bob as commands of this machine and reads their memory from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import script
from machine import describe, facts, table

import mpc
import nn
from mpc import configuration
from mpc.health import ask

LAYERS = (784, 128, 128, 10)
PARTIES = ("alice", "bob")
NAMES = ("provider", *PARTIES)
# Each has a few connections, as one with many may be refused.
CLIENTS = tuple(f"client-{k}" for k in range(16))


def network() -> nn.MLP:
    """Return a network whose weights do not matter."""
    rng = np.random.default_rng(0)
    shapes = [s for n, m in itertools.pairwise(LAYERS) for s in ((n, m), (m,))]
    return nn.MLP.from_parameters([rng.normal(0, 0.05, shape) for shape in shapes])


class Services:
    """The services as processes, and their memory."""

    def __init__(self, folder: Path, models: int) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
        ports = [sock.getsockname()[1] for sock in sockets]
        for sock in sockets:
            sock.close()
        self.path = configuration.write_example(folder / "trial", PARTIES, CLIENTS, ports=ports)
        served = []
        with mpc.Session(PARTIES) as session:
            for k in range(models):
                nn.save_shares(
                    network().share(session, owner="alice", low=0, high=1), folder / f"{k}"
                )
                served += ["--model", f"model-{k}={folder / str(k)}"]
        commands = [["provider", str(self.path)]]
        commands += [["serve", str(self.path), "--me", name, *served] for name in PARTIES]
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "nn.command", *command], stdout=subprocess.DEVNULL
            )
            for name, command in zip(NAMES, commands, strict=True)
        }

    def wait(self) -> None:
        """Wait until all are ready."""
        read = configuration.load(self.path)
        deadline = time.monotonic() + 600
        while not all(each.ready for each in ask(read, "alice")):
            if time.monotonic() > deadline or any(p.poll() for p in self._processes.values()):
                raise SystemExit("the services do not become ready")
            time.sleep(0.2)

    def _status(self, name: str, key: str) -> int:
        for line in Path(f"/proc/{self._processes[name].pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
        raise ValueError(f"the system does not tell {key}")

    def resident(self) -> dict[str, int]:
        """Return the bytes that each has in memory, once they change no more."""
        last: dict[str, int] = {}
        while True:
            found = {name: self._status(name, "VmRSS") for name in NAMES}
            if found == last:
                return found
            last = found
            time.sleep(0.5)

    def forget_peaks(self) -> None:
        """Let the peaks begin anew."""
        for process in self._processes.values():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peaks(self) -> dict[str, int]:
        """Return the most that each has had in memory since."""
        return {name: self._status(name, "VmHWM") for name in NAMES}

    def stop(self) -> None:
        """End all."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(models: int) -> Iterator[Services]:
    """Run services with so many models, all of the same size."""
    with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
        services = Services(Path(folder), models)
        try:
            services.wait()
            yield services
        finally:
            services.stop()


def measure(connections: int, models: int, rows: int) -> dict[str, Any]:
    """Return bytes by service: ready, and for each connection, model and row more."""
    with running(1) as services:
        X = np.random.default_rng(1).random((rows, LAYERS[0]))
        with nn.Client(services.path, me=CLIENTS[0]) as client:
            for _ in range(20):
                client.predict(X[:1])
        ready = services.resident()
        with contextlib.ExitStack() as stack:
            for k in range(connections):
                # One to every party.
                client = nn.Client(services.path, me=CLIENTS[k % len(CLIENTS)])
                stack.enter_context(client)
            connected = services.resident()
        peaks = []
        for count in (1, rows):
            with nn.Client(services.path, me=CLIENTS[0]) as client:
                services.forget_peaks()
                client.predict(X[:count])
                peaks.append(services.peaks())
    with running(1 + models) as services:
        with nn.Client(services.path, me=CLIENTS[0], model="model-0") as client:
            for _ in range(20):
                client.predict(X[:1])
        more = services.resident()

    def each(after: dict[str, int], before: dict[str, int], count: int) -> dict[str, int]:
        return {name: max(0, after[name] - before[name]) // count for name in NAMES}

    return {
        "layers": LAYERS,
        "connections": connections,
        "models": models,
        "rows": rows,
        "ready": ready,
        "connection": each(connected, ready, connections),
        "model": each(more, ready, models),
        "row": each(peaks[1], peaks[0], rows - 1),
    }


def _size(count: int) -> str:
    if not count:
        return "-"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def rows_of(measured: dict[str, Any]) -> list[list[str]]:
    """Return the table."""
    layers = "-".join(map(str, measured["layers"]))
    about = {
        "ready": f"ready, with one model {layers}, after a few requests",
        "connection": f"a client's connection (of {measured['connections']})",
        "model": f"a model {layers} more (of {measured['models']})",
        "row": f"a row of a request, while it is computed (of {measured['rows']:,})",
    }
    found = [["", "provider", "alice, a party", "bob, the last party"]]
    return found + [
        [text, *(_size(measured[key][name]) for name in NAMES)] for key, text in about.items()
    ]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = script.parser(__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--models", type=int, default=8, help="besides the first")
    parser.add_argument("--rows", type=int, default=4096)
    script.add_output(parser)
    return parser.parse_args(line)


def job(options: argparse.Namespace) -> int:
    """Measure and report."""
    script.at_least_one(options, "connections", "models")
    if options.rows < 2:
        raise ValueError(f"--rows must be at least 2, got {options.rows}")
    measured = {
        "machine": facts(),
        **measure(options.connections, options.models, options.rows),
    }
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print(table(rows_of(measured)), describe(measured["machine"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(script.main(job, arguments()))
