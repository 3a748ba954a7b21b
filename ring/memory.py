"""How the C library treats memory that arrays leave behind.

Protocols make and drop arrays of some megabytes many times in a call. glibc gives what is free at the end
of its heap back to the system as soon as it is twice the largest block that was ever freed, and the system
clears each page when it is needed again, which can take a quarter of a call. A block of 32 MB, the most
that glibc goes by, has it keep up to 64 MB. Nothing is written to the block, so it takes no memory. Other
C libraries do not care.
"""

from __future__ import annotations

import numpy as np

__all__ = ["keep_freed"]

# In bytes: in whole pages and with glibc's own words in front, it has at most 32 MB.
_BLOCK = (1 << 25) - (1 << 13)


def keep_freed() -> None:
    """Have this process keep freed memory for the next arrays."""
    np.empty(_BLOCK, np.uint8)
