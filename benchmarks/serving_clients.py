"""Clients of running services, many in one process, each with a thread of its own.

Started by serving.py: it says "ready" when all are connected and have been answered once, begins at
the time that standard input says, and writes when each request began, how long it took, and what failed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from services import network

import nn
from ring import SottoError

# Between two requests that fail at once.
_PAUSE_SECONDS = 0.01
# Rows that clients ask for, and how far their best two scores lie apart at least.
_ROWS, _CLEAR = 64, 2.0**-10


def clear_rows(X: np.ndarray, layers: Sequence[Sequence[int]]) -> np.ndarray:
    """Return 64 rows whose best two scores differ by more than rounding in any of the networks."""
    scores = [np.sort(network(each).decision_function(X), axis=1) for each in layers]
    gaps = np.min([each[:, -1] - each[:, -2] for each in scores], axis=0)
    clear = X[gaps > _CLEAR]
    if len(clear) < _ROWS:
        raise ValueError(f"only {len(clear)} rows have a clear label in {len(layers)} networks")
    return clear[:_ROWS]


def ask(job: dict[str, Any]) -> None:
    """Be so many clients for so many seconds, or for so many requests."""
    rng = np.random.default_rng(job["seed"])
    X = clear_rows(rng.random((2048, job["layers"][0][0])), job["layers"])
    expected = [network(layers).predict(X) for layers in job["layers"]]
    rows, names, count = job["rows"], job["models"], job["clients"]
    clients = []
    for k in range(count):
        name = job["names"][k % len(job["names"])]
        clients.append(nn.Client(job["path"], me=name, model=names[k % len(names)]))
        clients[-1].predict(X[:rows])
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    end = begin + job["seconds"]
    each = -(-job["requests"] // count) if job["requests"] else None
    found: list[list[tuple[float, float]]] = [[] for _ in clients]
    errors: Counter[str] = Counter()

    def one(number: int) -> None:
        client, mine = clients[number], found[number]
        right = expected[number % len(names)]
        time.sleep(max(0.0, begin - time.monotonic()))
        k = number
        while (start := time.monotonic()) < end and (each is None or k < number + each):
            first = k % (len(X) - rows)
            k += 1
            try:
                answer = client.predict(X[first : first + rows])
            except SottoError as error:
                errors[f"{type(error).__name__}: {error}"] += 1
                time.sleep(_PAUSE_SECONDS)
                continue
            if (answer != right[first : first + rows]).any():
                errors["a wrong answer"] += 1
            if job["keep"]:
                mine.append((start - begin, time.monotonic() - start))

    threads = [threading.Thread(target=one, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.save(job["out"], np.array([pair for mine in found for pair in mine]).reshape(-1, 2))
    Path(job["out"]).with_suffix(".json").write_text(json.dumps(errors))


if __name__ == "__main__":
    ask(json.loads(sys.argv[1]))
