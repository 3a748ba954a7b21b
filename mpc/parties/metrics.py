"""Metrics of a service for Prometheus: some counted from log events, some read from the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpc.core.errors import MissingExtraError, TemporaryError
from mpc.core.events import Field, hear
from mpc.parties.configuration import Configuration
from mpc.transport import addresses

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Figures", "expose", "present"]

Figures = Callable[[], Mapping[str, int]]

# Figures read from the service: help text, and whether the figure only grows (a counter).
_FIGURES = {
    "ready": ("Whether requests are served.", False),
    "waiting": ("Requests that wait for their turn.", False),
    "clients": ("Clients that are connected.", False),
    "sessions": ("Sessions that run.", False),
    "corrections": ("Corrections that were dealt.", True),
    "parts": ("Parts of corrections that were announced to the auditor.", True),
    "audited": ("Parts that the auditor has computed again.", True),
    "wrong": ("Parts that the provider has dealt wrongly.", True),
    "correction_bytes": ("Bytes that were sent to computing parties.", True),
}
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
# The service of this process.
_present: list[tuple[Figures, Callable[[], Configuration]]] = []


def present(figures: Figures, read: Callable[[], Configuration]) -> None:
    """Register the service of this process as the one whose figures the metrics show.

    Parameters
    ----------
    figures : callable
        Returns the service's current figures, by name.
    read : callable
        Returns the configuration in use.
    """
    _present[:] = [(figures, read)]


def expose(address: str) -> int:
    """Serve the metrics of this process over HTTP from now on, in a thread.

    Parameters
    ----------
    address : str
        "host:port"; port 0 for any that is free.

    Returns
    -------
    int
        The port.

    Raises
    ------
    ConfigurationError
        If `address` is malformed, or it is impossible to listen there now (a TemporaryError).
    MissingExtraError
        If prometheus_client is not installed.
    """
    host, port = addresses.parse(address, "--metrics", any_port=True)
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
    registry.register(_ServiceFigures())
    hear(EventCounters(registry).hear)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise TemporaryError(f"cannot listen for metrics at {address}: {error.strerror}") from None
    return int(server.server_port)


class EventCounters:
    """Counters and histograms of the events of the log."""

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
        """Count an event, see :func:`mpc.core.events.hear`."""
        if warning or event == "unanswered":
            self._errors.labels(event).inc()
        if event != "request":
            return
        model = fields["model"]
        labels = fields.get("client", ""), model, fields["answer"]
        self._requests.labels(*labels).inc()
        self._rows.labels(*labels).inc(int(str(fields["shape"]).partition("x")[0]))
        # Requests that were computed in one batch share its rounds and bytes evenly.
        together = int(fields["together"])
        self._rounds.labels(model).inc(int(fields["rounds"]) / together)
        self._bytes.labels(model).inc(int(fields["bytes"]) / together)
        self._seconds.labels(model, "computing").observe(float(fields["seconds"]))
        if "waited" in fields:
            self._seconds.labels(model, "waiting").observe(float(fields["waited"]))


class _ServiceFigures:
    """Collector of figures that are read from the service and its configuration at each scrape."""

    def describe(self) -> list[Any]:
        """Return an empty list: metrics are known only once there is a service."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for figures, read in tuple(_present):
            for name, value in figures().items():
                about, grows = _FIGURES[name]
                family = CounterMetricFamily if grows else GaugeMetricFamily
                yield family(f"sotto_{name}", about, value=value)
            days = GaugeMetricFamily(
                "sotto_certificate_days", "Days until a member's last certificate expires.",
                labels=("name",),
            )  # fmt: skip
            for name, member in read().members.items():
                left = max(certificate.days_left for certificate in member.certificates)
                days.add_metric([name], left)
            yield days
