"""``sotto gateway``: the gateway as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mpc.command.command_line import check_positive
from mpc.command.terminal import paint
from mpc.core.events import record
from mpc.transport.addresses import bind, parse, show
from nn.gateway.application import Limits, application
from nn.gateway.asking import Asking
from nn.gateway.guard import is_loopback

__all__ = ["run"]

# For the head of a request to arrive, if the limit of a request is not shorter.
_HEAD_SECONDS = 10.0
# For requests in progress, when the gateway is told to end.
_GRACE_SECONDS = 5
_CONNECTIONS = 256
_LARGEST_HEAD = 1 << 14


class _Impatient(H11Protocol):
    """HTTP on a connection that is closed if the head of a request takes too long."""

    head_seconds = _HEAD_SECONDS
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_clock()
        elif self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    host, port = parse(options.listen, "--listen", any_port=True)
    limits = Limits(
        body=check_positive("--largest-body", options.largest_body),
        rows=check_positive("--largest-rows", options.largest_rows),
        seconds=float(check_positive("--seconds", options.seconds)),
        at_once=check_positive("--at-once", options.at_once),
    )
    asking = Asking(Path(options.configuration), options.me, limits.at_once)
    sock = bind((host, port))
    port = sock.getsockname()[1]
    _say(asking, host, port)
    names = frozenset(name.lower() for name in options.name)
    _Impatient.head_seconds = min(_HEAD_SECONDS, limits.seconds)
    # Uvicorn raises the signal again after it has shut down.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        application(asking, limits, host, names),
        http=_Impatient, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS, h11_max_incomplete_event_size=_LARGEST_HEAD,
    )  # fmt: skip
    record("start", role="gateway", me=asking.me, at=show((host, port)))
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[sock]))
    finally:
        asking.close()
        record("stop", role="gateway", me=asking.me)
    return 0


def _say(asking: Asking, host: str, port: int) -> None:
    print(f"{paint('gateway', 'green')} of {asking.me} at http://{show((host, port))}", flush=True)
    print(f"It sees {asking.me}'s rows and answers in the clear: run it where they may be seen.")
    print(f"{asking.everybody} see shares, masked values and shapes.", flush=True)
    if is_loopback(host):
        print(f"Whoever can run programs on this machine can ask as {asking.me}.", flush=True)
        return
    warning = paint("Warning:", "yellow", sys.stderr)
    print(
        f"{warning} {host} is no loopback address. Whoever reaches it can ask as {asking.me}, and rows "
        "and answers travel there without encryption: put a proxy with TLS and a login before it.",
        file=sys.stderr, flush=True,
    )  # fmt: skip
