"""Progress bars."""

from __future__ import annotations

from typing import Any

__all__ = ["progress_bar"]


def progress_bar(
    total: int, what: str, unit: str, progress: bool | None, *, delay: float = 2.0, **options: Any
) -> Any:
    """Return a progress bar on stderr.

    Parameters
    ----------
    total : int
        Units of work in all.
    what, unit : str
        Name of the work, and of a unit of it.
    progress : bool or None
        Whether to show the bar; None for after `delay` seconds, if stderr is a terminal.
    delay : float, default=2
        Seconds.
    **options
        Further arguments of tqdm.
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
