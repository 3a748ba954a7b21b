"""Figures of a service for Prometheus: counted from the events of its log, and asked of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mpc.configuration import Configuration
from mpc.errors import ArgumentError, ConfigurationError, MissingExtraError
from mpc.events import Field, hear

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Figures", "expose", "present"]

Figures = Callable[[], Mapping[str, int]]

# What a service tells of itself at any time: its name, and whether it only grows.
_FIGURES = {
    "ready": ("Whether requests are served.", False),
    "waiting": ("Requests that wait for their turn.", False),
    "clients": ("Clients that are connected.", False),
    "sessions": ("Sessions that run.", False),
    "corrections": ("Corrections that were dealt.", True),
    "correction_bytes": ("Bytes that were sent to computing parties.", True),
}
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
_present: list[Figures] = []


def present(figures: Figures) -> None:
    """Say what tells how the service of this process is, when it is asked for its metrics."""
    _present[:] = [figures]


def expose(address: str, read: Callable[[], Configuration]) -> int:
    """Serve the metrics of this process over HTTP from now on, in a thread.

    Parameters
    ----------
    address : str
        "host:port"; port 0 for any that is free.
    read : callable
        Returns the configuration as it is then, for the days that certificates have left.

    Returns
    -------
    int
        The port.

    Raises
    ------
    ArgumentError, ConfigurationError
        If `address` is none, or nothing can listen there.
    MissingExtraError
        If prometheus_client is not installed.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ArgumentError(f"--metrics must be HOST:PORT, got {address!r}")
    try:
        from prometheus_client import (
            CollectorRegistry,
            PlatformCollector,
            ProcessCollector,
            start_http_server,
        )
    except ImportError:
        raise MissingExtraError(
            "metrics need prometheus_client: pip install 'sotto-mpc[metrics]'"
        ) from None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # memory, processor time, file descriptors
    PlatformCollector(registry=registry)
    registry.register(_Asked(read))
    hear(_Counted(registry).hear)
    try:
        server, _ = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen for metrics at {address}: {error.strerror}"
        ) from None
    return int(server.server_port)


class _Counted:
    """What the events of the log add up to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"sotto_{name}", about, labels, registry=registry)

        request = ("client", "model", "answer")
        self._requests = counter("requests", "Requests that were answered.", *request)
        self._rows = counter("rows", "Rows that were answered.", *request)
        self._rounds = counter("rounds", "Rounds for requests.", "model")
        self._bytes = counter(
            "sent_bytes", "Bytes that a party sent the others for requests.", "model"
        )
        self._errors = counter("errors", "Warnings of the log, by kind.", "kind")
        self._seconds = Histogram(
            "sotto_request_seconds", "Seconds of a request, by stage.", ("model", "stage"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip

    def hear(self, event: str, warning: bool, fields: Mapping[str, Field]) -> None:
        if warning or event == "unanswered":
            self._errors.labels(event).inc()
        if event != "request":
            return
        model = fields["model"]
        labels = fields.get("client", ""), model, fields["answer"]
        self._requests.labels(*labels).inc()
        self._rows.labels(*labels).inc(int(str(fields["shape"]).partition("x")[0]))
        # Those that were computed together have rounds and bytes in common.
        together = int(fields["together"])
        self._rounds.labels(model).inc(int(fields["rounds"]) / together)
        self._bytes.labels(model).inc(int(fields["bytes"]) / together)
        self._seconds.labels(model, "computing").observe(float(fields["seconds"]))
        if "waited" in fields:
            self._seconds.labels(model, "waiting").observe(float(fields["waited"]))


class _Asked:
    """What is asked of the service, and of the configuration, whenever the metrics are."""

    def __init__(self, read: Callable[[], Configuration]) -> None:
        self._read, self._last = read, read()
        self._lock = threading.Lock()

    def describe(self) -> list[Any]:
        """Return nothing: the registry need not ask before there is a service."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            for figures in _present:
                for name, value in figures().items():
                    about, grows = _FIGURES[name]
                    family = CounterMetricFamily if grows else GaugeMetricFamily
                    yield family(f"sotto_{name}", about, value=value)
        days = GaugeMetricFamily(
            "sotto_certificate_days", "Days until a certificate expires.", labels=("name",)
        )
        try:
            self._last = self._read()
        except ConfigurationError:
            pass  # half written, perhaps: what was right before still tells the most
        for name, der in self._last.certificates().items():
            days.add_metric([name], _days_left(der))
        yield days


def _days_left(der: bytes) -> float:
    from cryptography import x509

    left = x509.load_der_x509_certificate(der).not_valid_after_utc - datetime.now(UTC)
    return left.total_seconds() / 86400
