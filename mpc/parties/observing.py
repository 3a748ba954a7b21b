"""Options of the services' commands for observability: format of the log, address of the metrics."""

from __future__ import annotations

import argparse

from mpc.core.events import record, start_log
from mpc.parties.metrics import expose

__all__ = ["add_options", "start"]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options to a command that runs a service."""
    command.add_argument(
        "--log", choices=("text", "json"), default="text",
        help="json: everything, an object a line, with the client of each request",
    )  # fmt: skip
    command.add_argument(
        "--metrics", metavar="HOST:PORT", help="serve metrics for Prometheus here, over HTTP"
    )


def start(options: argparse.Namespace) -> None:
    """Start the log, and the metrics if they are wanted."""
    start_log(options.verbose, options.log)
    if options.metrics is not None:
        port = expose(options.metrics)
        host = options.metrics.rpartition(":")[0]
        record("metrics", at=f"{host}:{port}")
