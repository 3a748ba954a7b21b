"""Running a kernel on several threads, each on a range of rows.

Kernels release the interpreter lock, so ordinary threads suffice. Unlike Numba's own parallel
loops, several callers may enter at the same time, and nothing extra is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ring.errors import ArgumentError

__all__ = ["get_num_threads", "run", "set_num_threads"]

# Below this many elementary operations a second thread costs more than it brings: handing work
# to a thread and waiting for it takes some 100 microseconds, in which one core does as many.
WORTHWHILE = 1_000_000

_threads = 0
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def get_num_threads() -> int:
    """Return how many threads a kernel may use: by default, the cores this process may run on."""
    if _threads:
        return _threads
    asked = os.environ.get("SOTTO_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ArgumentError(
                f"SOTTO_NUM_THREADS must be a whole number of at least 1, got {asked!r}"
            )
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(threads: int) -> None:
    """Set how many threads a kernel may use, for the whole process.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ArgumentError
        If `threads` is not a positive whole number.
    """
    global _threads
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ArgumentError(f"threads must be a whole number of at least 1, got {threads!r}")
    _threads = threads


def _pool(workers: int) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads, so pools belong to one process.
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="ring")
    return _pools[key]


def run(kernel: Callable[..., Any], rows: int, work: int, *args: Any, multiple: int = 1) -> None:
    """Call ``kernel(start, stop, *args)`` over ``range(rows)``, in pieces on several threads.

    Parameters
    ----------
    kernel : compiled function
        Takes the half-open range of rows it is to do, then `args`.
    rows : int
        How many rows there are.
    work : int
        Elementary operations for one row; small totals stay on the calling thread.
    multiple : int
        Pieces start at multiples of this.
    """
    if rows * work < 2 * WORTHWHILE:
        if rows:
            kernel(0, rows, *args)
        return
    pieces = min(rows * work // WORTHWHILE, -(-rows // multiple), get_num_threads())
    if pieces <= 1:
        kernel(0, rows, *args)
        return
    step = -(-rows // (pieces * multiple)) * multiple
    waiting = [
        _pool(pieces - 1).submit(kernel, start, min(start + step, rows), *args)
        for start in range(step, rows, step)
    ]
    try:
        kernel(0, step, *args)
    finally:
        for future in waiting:
            future.result()
