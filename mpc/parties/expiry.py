"""Warnings in the log of a service: certificates that have expired or soon will."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpc.core.events import record
from mpc.parties.configuration import Configuration

__all__ = ["warn_of_certificates", "watch_certificates"]

_DAY_SECONDS = 86400.0


def warn_of_certificates(read: Configuration) -> None:
    """Log a warning for each member whose certificates are not valid now or expire soon."""
    for name, text in read.warnings().items():
        record("certificate", warning=True, of=name, why=text)


def watch_certificates(
    current: Callable[[], Configuration], every: float = _DAY_SECONDS
) -> threading.Event:
    """Warn now and once a day, in a thread, until the returned event is set.

    Parameters
    ----------
    current : callable
        Returns the configuration in use.
    every : float
        Seconds between warnings.
    """
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every):
            warn_of_certificates(current())

    warn_of_certificates(current())
    threading.Thread(target=go_on, name="sotto watches certificates", daemon=True).start()
    return over
