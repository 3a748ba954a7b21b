"""The subcommand ``sotto gateway``, which starts without its extra to say that it needs it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mpc.command import commands as command
from mpc.core.errors import MissingExtraError

__all__ = ["add_gateway"]


def add_gateway(commands: Any) -> None:
    """Add the command to what ``add_subparsers`` has returned."""
    gateway = command.add_command(
        commands, "gateway", "let programs and browsers at a client's side ask over HTTP",
        "Run a client of the parties as an HTTP server, and a page to try it, until Ctrl-C or SIGTERM.\n"
        "It belongs at the client's side: it sees rows and answers in the clear. Whoever reaches its\n"
        "address can ask as this client: by default that is whoever runs programs on this machine.",
    )  # fmt: skip
    gateway.add_argument("configuration", type=Path, help="the path of parties.toml")
    gateway.add_argument("--me", required=True, metavar="NAME", help="which client this is")
    gateway.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT",
        help="where (default: 127.0.0.1:8080; port 0: any that is free)",
    )  # fmt: skip
    gateway.add_argument(
        "--name", action="append", default=[], metavar="HOST",
        help="a name by which browsers may call it besides; may be repeated",
    )  # fmt: skip
    gateway.add_argument(
        "--largest-body", type=int, default=1 << 24, metavar="BYTES", help="default: 2^24"
    )
    gateway.add_argument(
        "--largest-rows", type=int, default=10_000, metavar="N", help="a request (default: 10000)"
    )
    gateway.add_argument(
        "--seconds", type=int, default=60, metavar="N",
        help="for a body to arrive, and again for the answer (default: 60)",
    )  # fmt: skip
    gateway.add_argument(
        "--at-once", type=int, default=4, metavar="N",
        help="requests that the parties are asked at a time (default: 4)",
    )  # fmt: skip
    gateway.add_argument("--verbose", action="store_true", help="log every request")
    gateway.add_argument("--log", choices=("text", "json"), default="text", help="json: everything")
    gateway.set_defaults(run=_gateway)


def _gateway(options: argparse.Namespace) -> int:
    command.start_log(options.verbose, options.log)
    try:
        from nn.gateway.server import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11"):
            raise
        raise MissingExtraError(
            "the gateway needs starlette and uvicorn: pip install 'sotto-mpc[gateway]'"
        ) from None
    return run(options)
