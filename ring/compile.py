"""How kernels are compiled: lazily, once, cached on disk, announced when it happens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` with Numba on its first call, and keep the result on disk.

    Kernels release the interpreter lock, so that `ring.threads` can run several at once. They get
    contiguous uint64 arrays and allocate nothing in their loops.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


class _Announcement(event.Listener):
    """Says once, on a terminal, that the first run compiles."""

    def on_start(self, event: object) -> None:
        if not self.said and sys.stderr.isatty():
            print(
                "Sotto compiles its kernels, once on this machine (about 20 s) ...", file=sys.stderr
            )
        self.said = True

    def on_end(self, event: object) -> None:
        pass

    said = False


event.register("numba:compile", _Announcement())
