"""Memory of a process that does nothing but be a party, or the provider."""

from __future__ import annotations

import gc

import numpy as np

__all__ = ["settle"]

# A little below what the C library takes for a hint.
_LARGEST_KEPT = (32 << 20) - (1 << 16)
# Objects that come into being between two looks for cycles; Python's own number is 700.
_SELDOM = 50_000


def settle() -> None:
    """Prepare the memory of this process for the work of a service. Not for a process of the user's.

    GNU's C library gives memory back that exceeds twice the largest block freed so far, and clearing
    fresh pages took a tenth of the last party's time: a large block is freed, so that what large
    arrays leave is kept for the next ones. Elsewhere that does nothing.

    What a call makes has no cycles, so Python's collector finds nothing, again and again: it looks
    seldom here, and no more at what is there from the start.
    """
    np.empty(_LARGEST_KEPT, np.uint8)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_SELDOM)
