"""The beginning of the command ``sotto``: it notices packages of other projects before it imports them.

What the command does is in :mod:`nn.command`, which could not be found if another ``nn`` were in its place.
"""

from __future__ import annotations

import sys

import sotto_mpc

__all__ = ["main"]

# As in nn.command: nothing changes before somebody puts the environment right.
_CONFIGURATION = 78


def main() -> int:
    """Run the command ``sotto``."""
    for package in ("ring", "mpc", "nn"):
        problem = sotto_mpc.foreign(package)
        if problem:
            print(f"sotto: {problem}", file=sys.stderr)
            return _CONFIGURATION
    from nn.command import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
