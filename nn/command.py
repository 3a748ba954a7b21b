"""The command ``sotto``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mpc import command

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(
        prog="sotto", description="Encrypted deep learning by secret sharing."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_commands(commands)
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
