"""Limits on what one client may ask of a service, so that other clients are served too."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

__all__ = ["Allowance", "Limits"]

_HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """The limits of each client at each party.

    Attributes
    ----------
    connections : int, default=1000
        Open at once.
    requests : int, default=1000
        In progress at once.
    rows_an_hour : int, default=10**9
        Rows of all its requests in an hour.
    """

    connections: int = 1000
    requests: int = 1000
    rows_an_hour: int = 10**9

    @classmethod
    def defaults(cls) -> dict[str, int]:
        """Return the limits that hold where the configuration sets none."""
        return {field.name: int(getattr(cls, field.name)) for field in fields(cls)}


class Allowance:
    """A leaky bucket of rows for one client: holds an hour's rows, and refills evenly."""

    def __init__(self) -> None:
        self._used, self._since = 0.0, time.monotonic()

    def take(self, rows: int, an_hour: int) -> bool:
        """Take `rows` out of the bucket. Returns whether there were enough; if not, takes none."""
        now = time.monotonic()
        self._used = max(0.0, self._used - (now - self._since) * an_hour / _HOUR)
        self._since = now
        if self._used + rows > an_hour:
            return False
        self._used += rows
        return True
