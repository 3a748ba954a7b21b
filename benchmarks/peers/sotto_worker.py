"""Sotto: alice, bob and the crypto provider in one local session, that is in this process."""

from __future__ import annotations

import json
import time
from importlib import metadata
from typing import Any

import numpy as np
import parties
import work

import mpc
import nn

SETTING = (
    "alice, bob and the provider in one process in lock step: nothing crosses a network; the masked"
    " model is opened in the first call, which is not timed, and serves all others"
)


def prepare(session: mpc.Session, item: work.Item) -> parties.Call:
    """Share the model where there is one and return the call to time."""
    arrays = work.inputs(item)
    if item.kind == "train":
        raise NotImplementedError("no training step on shares to call yet")
    model = nn.MLP.from_parameters([part for layer in work.layers() for part in layer])
    secret = model.share(session, owner="alice") if item.kind == "network" else None

    def call() -> np.ndarray:
        first = session.share(arrays[0], owner="bob")
        if secret is not None:
            return secret(first).reveal()
        if item.kind == "matmul":
            return (first @ session.share(arrays[1], owner="alice")).reveal()
        return first.relu().reveal()

    return call


def measure(session: mpc.Session, item: work.Item, repeats: int) -> dict[str, Any]:
    """Check one call, count in a second (both warm up), then time the others."""
    call = prepare(session, item)
    error = float(np.abs(call() - work.expected(item)).max())
    before = session.cost()
    call()
    cost = session.cost() - before
    seconds = []
    for _ in range(repeats * item.burst):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return {
        "item": item.name,
        "seconds": seconds,
        "bytes_by_party": [cost.bytes_sent_per_party] * len(session.parties),
        "bytes_sent": cost.bytes_sent_per_party * len(session.parties) + cost.correction_bytes,
        "bytes_are": "what all parties and the provider would send, from session.cost()",
        "rounds": cost.rounds,
        "max_abs_error": error,
        "setting": SETTING,
        "versions": {name: metadata.version(name) for name in ("numpy", "numba")},
    }


def main() -> None:
    """Run the work and print one line of JSON for each item."""
    args = parties.arguments(__doc__)
    for item in work.choose(args.work):
        try:
            with mpc.Session() as session:
                line = measure(session, item, args.repeats)
        except Exception as error:
            line = {"item": item.name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
