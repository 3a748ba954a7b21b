"""Progress bars."""

from __future__ import annotations

from typing import Any

__all__ = ["progress_bar"]


def progress_bar(
    total: int, what: str, unit: str, progress: bool | None, *, delay: float = 2.0, **options: Any
) -> Any:
    """Return a bar on stderr: always or never as `progress` says, else for what takes a while.

    Parameters
    ----------
    total : int
    what, unit : str
        What is done, and in what it is counted.
    progress : bool or None
        None: after `delay` seconds, and only if stderr is a terminal.
    delay : float
    **options
        Of tqdm.
    """
    from tqdm import tqdm  # here, so that importing nn stays light

    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        disable=None if progress is None else not progress,
        delay=0.0 if progress else delay,
        **options,
    )
