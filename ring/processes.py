"""Tells a forked child from its parent.

A child has all that its parent has, keys and counters too, and both would go on alike: the same
masks for other secrets. What must not be used twice keeps the generation that it was made in.
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
