"""The command ``sotto``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpc.command import commands as command
from mpc.core.own_process import tune_memory
from mpc.core.versions import own_version
from mpc.parties import observing
from mpc.parties.model_table import check_model_name
from nn.gateway.command import add_gateway
from nn.serving.model_commands import add_model_commands
from nn.serving.service import serve
from nn.serving.stocks import add_stock_command
from ring.errors import ArgumentError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``sotto`` with the given arguments; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="sotto",
        description="Encrypted deep learning by secret sharing.",
        epilog="first steps:\n"
        "  sotto doctor                         does it work here?\n"
        "  sotto init trial                     a trial on this machine, in ./trial\n"
        "  sotto provider trial/parties.toml    the crypto provider, one terminal\n"
        "  sotto key NAME                       your own key, to work with other organisations\n"
        "  sotto COMMAND --help                 what a command takes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"sotto {own_version()}", help="print the version"
    )
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    command.add_commands(commands)
    serve = command.add_command(
        commands, "serve", "run a computing party that answers clients",
        "Run a computing party until Ctrl-C or SIGTERM. It evaluates models whose shares it holds,\n"
        "as nn.save_shares has written them, on rows that clients send as shares (nn.Client).",
    )  # fmt: skip
    serve.add_argument("configuration", type=Path, help="the path of parties.toml")
    serve.add_argument("--me", required=True, metavar="NAME", help="which computing party this is")
    serve.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER",
        help="a model beside those of [parties.NAME.models] in parties.toml (sotto put), and where"
        " this party's shares of it are; may be repeated",
    )  # fmt: skip
    serve.add_argument(
        "--verbose", action="store_true",
        help="log every request, and show the progress of long ones on a terminal",
    )  # fmt: skip
    observing.add_options(serve)
    serve.set_defaults(run=_serve)
    add_model_commands(commands)
    add_stock_command(commands)
    add_gateway(commands)
    return command.run(parser, arguments)


def _serve(options: argparse.Namespace) -> int:
    observing.start(options)
    folders = {}
    for text in options.model:
        name, sign, folder = text.partition("=")
        if not name or not sign or not folder:
            raise ArgumentError(f"--model must be NAME=FOLDER, got {text!r}")
        check_model_name(name)
        folders[name] = folder
    tune_memory()
    serve(options.configuration, options.me, folders, progress=options.verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())
