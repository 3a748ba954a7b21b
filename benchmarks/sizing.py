"""Memory of the services: what each takes when it is ready, and for a connection, a model and a row.

Starts the provider, alice and bob as commands of this machine and reads their memory from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import script
from machine import describe, facts, table
from services import NAMES, running

import nn

LAYERS = (784, 128, 128, 10)
# Each has a few connections, as one with many may be refused.
CLIENTS = tuple(f"client-{k}" for k in range(16))


def measure(connections: int, models: int, rows: int) -> dict[str, Any]:
    """Return bytes by service: ready, and for each connection, model and row more."""
    with running(LAYERS, 1, CLIENTS) as services:
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
    with running(LAYERS, 1 + models, CLIENTS) as services:
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
