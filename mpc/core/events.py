"""The log of the services: a line for each event, as ``key=value`` pairs or as JSON.

Fields are names, ids, shapes, counts and seconds, and messages of errors about peers, which hold
nothing else. Never a value, a share or a key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["Field", "hear", "record", "start_log"]

Field = str | int | float

_log = logging.getLogger("sotto")
_hearers: list[Callable[[str, bool, Mapping[str, Field]], None]] = []


def record(event: str, *, warning: bool = False, **fields: Field) -> None:
    """Write a line to the log "sotto", and call every function registered by :func:`hear`."""
    for hearer in _hearers:
        hearer(event, warning, fields)
    level = logging.WARNING if warning else logging.INFO
    if not _log.isEnabledFor(level):
        return
    words = [f"event={event}"]
    for name, value in fields.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        words.append(f"{name}={text!r}" if " " in text or not text else f"{name}={text}")
    _log.log(level, " ".join(words), extra={"sotto": {"event": event, **fields}})


def hear(hearer: Callable[[str, bool, Mapping[str, Field]], None]) -> None:
    """Register a function to be called with every event: its name, whether it is a warning, its fields."""
    _hearers.append(hearer)


class _Json(logging.Formatter):
    """Formats a record as one line of JSON: events of this log, and messages of other libraries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        event = getattr(record, "sotto", None)
        if event is None:
            event = {"event": "message", "logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[0]:
                # The type alone: the text of a foreign exception could hold values.
                event["error"] = record.exc_info[0].__name__
        return json.dumps(line | event)


def start_log(verbose: bool, style: str = "text") -> None:
    """Write the log to standard error: warnings alone, or everything.

    Parameters
    ----------
    verbose : bool
        Whether to write events that are no warnings.
    style : {"text", "json"}
        JSON is meant as an audit trail, and always has every event.
    """
    handler = logging.StreamHandler()
    text = "%(asctime)s level=%(levelname)s %(message)s"
    handler.setFormatter(_Json() if style == "json" else logging.Formatter(text))
    level = logging.INFO if verbose or style == "json" else logging.WARNING
    logging.basicConfig(handlers=[handler], level=level)
