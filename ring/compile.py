"""How kernels are compiled: lazily, once, cached on disk, announced when it happens."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching, config, event

__all__ = ["cache_folder", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])

# Numba sets the names of its configuration at run time, so a type checker does not know them.
_config: Any = config
# All kernels of this process; their compiled code is kept in one folder.
_kernels: list[Any] = []


def kernel(function: F) -> F:
    """Compile `function` with Numba on its first call, and keep the compiled code on disk.

    Kernels release the interpreter lock, so that `ring.threads` can run several at once. They get
    contiguous uint64 arrays and allocate nothing in their loops.

    Where neither NUMBA_CACHE_DIR nor the package's folder nor the user's cache can be written, the
    code goes to a folder of this user's own among the temporary files. Without such a folder it is
    lost when the process ends.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # Numba found no folder to write to
        folder = _private_folder()
        made = numba.njit(cache=False, **options)(function)
        if folder is not None:
            # For this kernel alone: other packages may have cache folders of their own.
            before, _config.CACHE_DIR = _config.CACHE_DIR, str(folder)
            try:
                made.enable_caching()
            except RuntimeError:
                pass
            finally:
                _config.CACHE_DIR = before
    _survive_a_full_disk(made)
    _kernels.append(made)
    return cast(F, made)


def _survive_a_full_disk(made: Any) -> None:
    """Ignore an OSError when compiled code is saved: this process has it in memory anyway."""
    if not hasattr(made, "_cache"):  # NUMBA_DISABLE_JIT
        return
    keep = made._cache.save_overload

    def save(*arguments: Any) -> None:
        with suppress(OSError):
            keep(*arguments)

    made._cache.save_overload = save


def cache_folder() -> str | None:
    """Return where compiled kernels are kept, or None if they are not."""
    kept = getattr(_kernels[0], "_cache", None) if _kernels else None
    return kept and cast(str, kept.cache_path)


@cache
def _private_folder() -> Path | None:
    """Return a folder that nobody but this user can read or write, and print where it is.

    The code in it is run, so a folder that another user could have made is not used.
    """
    why = "neither the package's folder nor the home folder can be written"
    try:
        parent = Path(tempfile.gettempdir())
        folder = parent / f"sotto-cache-{os.geteuid()}"
        fresh = not os.path.lexists(folder) and _is_safe(parent, sticky=True)
        if fresh:
            _make(folder)
        if _is_safe(parent, sticky=True) and _is_safe(folder):
            if fresh:
                _say(f"Sotto keeps compiled kernels in {folder}: {why}")
            return folder
        why = f"{folder} is not this user's alone, and {why}"
    except OSError:
        pass
    _say(f"Sotto compiles its kernels anew in each process: {why}")
    return None


def _make(folder: Path) -> None:
    """Make the folder atomically, holding the code that the package has compiled already."""
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
    try:
        inside = part / caching._CacheLocator.get_suitable_cache_subpath(__file__)
        inside.mkdir()
        for file in (Path(__file__).parent / "__pycache__").glob("*.nb[ci]"):
            shutil.copyfile(file, inside / file.name)
        with suppress(OSError):  # another process has made the folder meanwhile
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_safe(folder: Path, *, sticky: bool = False) -> bool:
    """Whether no other user can replace the files of a folder.

    With `sticky`, a folder that others may write to is safe if its sticky bit keeps each user from
    the others' files.
    """
    found = folder.lstat() if not sticky else folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        return False
    if sticky and found.st_mode & stat.S_ISVTX:
        return found.st_uid in (0, os.geteuid())
    return found.st_uid == os.geteuid() and not found.st_mode & (0o022 if sticky else 0o077)


def _say(text: str) -> None:
    print(f"{text}; NUMBA_CACHE_DIR may name another place", file=sys.stderr)


class Announcement(event.Listener):
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


event.register("numba:compile", Announcement())
