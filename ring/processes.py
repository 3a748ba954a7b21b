"""Tells a forked child from its parent.

A forked child inherits its parent's keys and counters, and would hide other secrets under the same
masks. An object that must not be used in both records the generation of the process that made it.
"""

from __future__ import annotations

import os

__all__ = ["generation"]

generation = 0
"""How many forks lie between this process and its first ancestor that has imported this module."""


def _count() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count)
