"""The commands of ``sotto`` that need no network of neurons: init, check, provider."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpc import configuration
from mpc.errors import SottoError
from mpc.events import start_log
from mpc.provider_service import ProviderService
from mpc.transport.tls import own_contexts

__all__ = ["add_commands", "run", "serve_until_signal", "start_log"]


def add_commands(commands: Any) -> None:
    """Add the commands to what ``add_subparsers`` has returned."""
    init = commands.add_parser(
        "init", help="write a complete example with fresh keys, for a trial on this machine"
    )
    init.add_argument("folder", type=Path)
    init.add_argument("--parties", default="alice,bob", help="names, comma-separated")
    init.add_argument("--clients", default="carol", help="names, comma-separated")
    init.add_argument("--port", type=int, default=9001, help="the first; one a party (9001)")
    init.set_defaults(run=_init)

    check = commands.add_parser(
        "check", help="say whether a configuration is right, or which line is wrong"
    )
    check.add_argument("configuration", type=Path)
    check.add_argument("--me", help="check this party's key too")
    check.set_defaults(run=_check)

    provider = commands.add_parser("provider", help="run the crypto provider, until SIGTERM")
    provider.add_argument("configuration", type=Path)
    provider.add_argument("--workers", type=int, default=1, help="joblib workers (1: none)")
    provider.add_argument(
        "--memory-limit", type=int, default=1 << 30, help="bytes of one correlation (2^30)"
    )
    provider.add_argument("--sessions", type=int, default=64, help="how many at once (64)")
    provider.add_argument("--verbose", action="store_true", help="log every session")
    provider.set_defaults(run=_provider)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _init(options: argparse.Namespace) -> int:
    parties, clients = _names(options.parties), _names(options.clients)
    ports = range(options.port, options.port + len(parties) + 1)
    path = configuration.write_example(options.folder, parties, clients, ports=ports)
    print(f"wrote {path}, with a key and a certificate for each of")
    print("  " + ", ".join([*parties, "provider", *clients]))
    print("On several machines: give each its own key alone, and set the addresses.")
    print(f"Next: sotto provider {path}, and mpc.Session({str(path)!r}, me={parties[0]!r})")
    return 0


def _check(options: argparse.Namespace) -> int:
    read = configuration.load(options.configuration)
    if options.me is not None:
        own_contexts(read, options.me)
    print(f"{options.configuration}: {', '.join(read.names)} and the provider, all is well")
    return 0


def _provider(options: argparse.Namespace) -> int:
    start_log(options.verbose)
    service = ProviderService(
        configuration.load(options.configuration),
        workers=options.workers,
        memory_limit=options.memory_limit,
        sessions=options.sessions,
    )
    serve_until_signal(service.close)
    return 0


def serve_until_signal(close: Callable[[], None]) -> None:
    """Wait for SIGTERM or SIGINT, then close."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(1.0):
        pass
    close()


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do what it says; an error is one line and exit code 2."""
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (SottoError, OSError) as error:
        print(f"sotto: {error}", file=sys.stderr)
        return 2
