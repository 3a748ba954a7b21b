"""Warnings of certificates that have expired or soon will, in the log of a service."""

from __future__ import annotations

import threading

from mpc.configuration import Configuration
from mpc.events import record

__all__ = ["watch_certificates"]

_DAY_SECONDS = 86400.0


def watch_certificates(read: Configuration, every: float = _DAY_SECONDS) -> threading.Event:
    """Warn now, and once a day for as long as the process lives, until the event is set."""
    over = threading.Event()

    def warn() -> None:
        for name, text in read.warnings().items():
            record("certificate", warning=True, of=name, why=text)

    def go_on() -> None:
        while not over.wait(every):
            warn()

    warn()
    threading.Thread(target=go_on, name="sotto watches certificates", daemon=True).start()
    return over
