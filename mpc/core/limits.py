"""Limits on what one client may ask of a service, so that other clients are served too."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

__all__ = ["AN_HOUR", "Allowance", "Limits"]

_HOUR = 3600.0
# Less is a rounding error.
_MOMENT = 1e-6

AN_HOUR = ("requests_an_hour", "rows_an_hour")
"""The limits that a client can have of its own."""


@dataclass(frozen=True)
class Limits:
    """The limits of each client at each party.

    Attributes
    ----------
    connections : int, default=1000
        Open at once.
    requests : int, default=1000
        In progress at once.
    requests_an_hour : int, default=10**9
        Requests in an hour.
    rows_an_hour : int, default=10**9
        Rows of all its requests in an hour.
    """

    connections: int = 1000
    requests: int = 1000
    requests_an_hour: int = 10**9
    rows_an_hour: int = 10**9

    @classmethod
    def defaults(cls) -> dict[str, int]:
        """Return the limits that hold where the configuration sets none."""
        return {field.name: int(getattr(cls, field.name)) for field in fields(cls)}


class Allowance:
    """A leaky bucket of requests or rows for one client: holds an hour's, and refills evenly.

    It is in memory, by a clock that cannot be set: a process that starts again begins with a full one.
    """

    def __init__(self) -> None:
        self._used, self._since = 0.0, time.monotonic()

    def wait_for(self, count: int, an_hour: int) -> float:
        """Return in how many seconds `count` can be taken: 0 if now, infinity if never."""
        now = time.monotonic()
        self._used = max(0.0, self._used - (now - self._since) * an_hour / _HOUR)
        self._since = now
        if count > an_hour:
            return float("inf")
        wait = (self._used + count - an_hour) * _HOUR / an_hour
        return wait if wait > _MOMENT else 0.0

    def take(self, count: int) -> None:
        """Take `count` out of the bucket, for which there need be nothing to wait."""
        self._used += count

    def give_back(self, count: int) -> None:
        """Put `count` into the bucket again."""
        self._used = max(0.0, self._used - count)
