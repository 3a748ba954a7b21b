"""joblib's worker processes on this machine: they end when the process that started them does.

Left to themselves they would go on waiting for work for minutes.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

__all__ = ["end_with", "options", "shut_down", "stays_here"]

_LOOK_SECONDS = 0.5


def options() -> dict[str, Any]:
    """Return keyword arguments for a ``joblib.Parallel`` that is made now.

    Empty unless joblib's active backend starts processes on this machine.
    """
    from joblib.parallel import get_active_backend  # here: nobody else needs it

    backend, _ = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return {}
    # Each process calls the initializer before it takes work.
    return {"initializer": end_with, "initargs": (os.getpid(),)}


# joblib's own backends, by name: classes derived from them may send work to other machines.
_HERE = ("LokyBackend", "SequentialBackend", "ThreadingBackend")


def stays_here(backend: object) -> bool:
    """Whether a backend of joblib runs all tasks on this machine."""
    kind = type(backend)
    return kind.__module__ == "joblib._parallel_backends" and kind.__name__ in _HERE


def end_with(parent: int) -> None:
    """End this process soon after `parent`, or now if that has ended already."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, name="sotto parent", daemon=True).start()


def shut_down() -> None:
    """End the processes that joblib keeps for later calls."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)
