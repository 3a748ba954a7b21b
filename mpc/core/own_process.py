"""Memory settings of a process that does nothing but be a party or the provider."""

from __future__ import annotations

import gc

import numpy as np

__all__ = ["tune_memory"]

# A little below 32 MB, the largest block whose freeing makes the C library raise its limits.
_LARGEST_KEPT = (32 << 20) - (1 << 16)
# Allocations between two runs of the garbage collector; Python's default is 700.
_SELDOM = 50_000


def tune_memory() -> None:
    """Tune this process's memory for a service. Not for a process of the user's.

    GNU's C library returns memory to the system that exceeds twice the largest block freed so far, and
    clearing fresh pages took a tenth of the last party's time. So a large block is freed here, and from
    then on the memory of large arrays is kept for the next ones. Other C libraries ignore that.

    What a call allocates has no reference cycles, so the garbage collector has nothing to find: it runs
    seldom from here on, and skips the objects that exist already.
    """
    np.empty(_LARGEST_KEPT, np.uint8)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_SELDOM)
