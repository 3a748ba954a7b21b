"""The log of the services: one line of ``key=value`` pairs for each event.

What goes in are names, ids, shapes, counts and seconds, and messages of errors about peers, which
hold no more than that. Never a value, a share or a key.
"""

from __future__ import annotations

import logging

__all__ = ["record", "start_log"]

_log = logging.getLogger("sotto")


def record(event: str, *, warning: bool = False, **fields: str | int | float) -> None:
    """Write a line to the log "sotto"."""
    words = [f"event={event}"]
    for name, value in fields.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        words.append(f"{name}={text!r}" if " " in text or not text else f"{name}={text}")
    _log.log(logging.WARNING if warning else logging.INFO, " ".join(words))


def start_log(verbose: bool) -> None:
    """Write the log to standard error: warnings alone, or everything."""
    form = "%(asctime)s level=%(levelname)s %(message)s"
    logging.basicConfig(format=form, level=logging.INFO if verbose else logging.WARNING)
