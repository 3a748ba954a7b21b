"""The parts common to all commands of ``sotto``: help, errors, exit codes, signals."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mpc.command.terminal import paint
from mpc.core.errors import (
    ArgumentError,
    ConfigurationError,
    DataError,
    MissingExtraError,
    SottoError,
    TemporaryError,
)
from mpc.core.events import record

__all__ = ["CONFIGURATION", "add_command", "check_positive", "run", "serve_until_signal"]

# Exit codes. Those above 63 are from sysexits.h, for supervisors such as systemd.
_COMMAND_LINE = 2
_BUG = 70
# A fault that may pass: starting again may work.
_LATER = 75
# A fault in configuration or files: starting again does not help before it is corrected.
CONFIGURATION = 78

# What the operating system says of a path that somebody has to put right; the rest may pass.
_OF_PATHS = {
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
    errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip


def add_command(commands: Any, name: str, summary: str, about: str) -> argparse.ArgumentParser:
    """Add a command with its one-line summary, and what its own help says."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    added.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS,
        help="show where an error came from",
    )  # fmt: skip
    return added


def check_positive(option: str, value: int) -> int:
    """Return an option's value; raise ArgumentError if it is below 1."""
    if value < 1:
        raise ArgumentError(f"{option} must be at least 1, got {value}")
    return value


def serve_until_signal(close: Callable[[], None], reload: Callable[[], None], me: str) -> None:
    """Wait for SIGTERM or SIGINT, then close; reload at each SIGHUP."""
    stop, again = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: again.set())
    while not stop.wait(0.25):
        if again.is_set():
            again.clear()
            try:
                reload()
            except SottoError as error:
                record("reload", warning=True, me=me, problem=str(error))
    close()


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command; an error becomes one line and an exit code."""
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help(sys.stderr)
        return _COMMAND_LINE
    debug = getattr(options, "debug", False)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except (SottoError, OSError) as error:
        if debug:
            raise
        problem, code = str(error), _code(error)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            problem = f"{error.filename}: {error.strerror}"
    except Exception as error:
        if debug:
            raise
        # The type alone: the text of a foreign exception could hold values.
        problem = f"{type(error).__name__}, a bug: please report it with what --debug shows"
        code = _BUG
    print(f"{paint('sotto: error:', 'red', sys.stderr)} {problem}", file=sys.stderr)
    return code


def _code(error: Exception) -> int:
    if isinstance(error, TemporaryError):
        return _LATER
    if isinstance(error, ConfigurationError | DataError | MissingExtraError):
        return CONFIGURATION
    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_PATHS:
        return CONFIGURATION
    return _COMMAND_LINE if isinstance(error, ArgumentError) else _LATER
