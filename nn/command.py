"""The command ``sotto``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpc import command
from nn.serving import serve
from ring.errors import ArgumentError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(
        prog="sotto", description="Encrypted deep learning by secret sharing."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_commands(commands)
    serve = commands.add_parser("serve", help="run a party that answers clients, until SIGTERM")
    serve.add_argument("configuration", type=Path)
    serve.add_argument("--me", required=True, help="which computing party this is")
    serve.add_argument(
        "--model", action="append", required=True, metavar="NAME=FOLDER",
        help="a model, and where this party's shares of it are; may be repeated",
    )  # fmt: skip
    serve.add_argument("--verbose", action="store_true", help="log every request")
    serve.set_defaults(run=_serve)
    return command.run(parser, arguments)


def _serve(options: argparse.Namespace) -> int:
    command.start_log(options.verbose)
    folders = {}
    for text in options.model:
        name, sign, folder = text.partition("=")
        if not name or not sign or not folder:
            raise ArgumentError(f"--model must be NAME=FOLDER, got {text!r}")
        folders[name] = folder
    serve(options.configuration, options.me, folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
