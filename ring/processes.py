"""Tells a forked child from its parent.

A forked child inherits its parent's keys and counters, and would hide other secrets under the same
masks. An object that must not be used in both records the generation of the process that made it.
"""

from __future__ import annotations

import os

from ring.errors import ProcessError

__all__ = ["check", "generation"]

generation = 0
"""How many forks lie between this process and its first ancestor that has imported this module."""


def check(what: str, made_in: int) -> None:
    """Raise ProcessError unless `what` was made in this process: `made_in` is its generation."""
    if made_in != generation:
        raise ProcessError(
            f"{what}: made by the process that this one was forked from, and its alone"
        )


def _count() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count)
