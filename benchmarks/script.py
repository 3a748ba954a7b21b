"""Common parts of the benchmarks' command lines: options, checks, errors in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import page

from ring import SottoError


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_data(to: argparse.ArgumentParser) -> None:
    """Add the option that names the digits."""
    to.add_argument(
        "--data",
        default="digits",
        help="digits (8x8, comes with scikit-learn; the default), mnist (28x28, downloaded once"
        " from OpenML), auto (mnist if it can be had, else digits), or a folder with the four"
        " idx .gz files or scikit-learn's data home",
    )


def add_parties(to: argparse.ArgumentParser, first: str, last: str) -> None:
    """Add the option that names the parties, of which two own something."""
    to.add_argument(
        "--parties",
        default="alice,bob",
        help=f"computing parties, comma-separated; the first owns {first}, the last {last}",
    )


def add_no_provider(to: argparse.ArgumentParser) -> None:
    """Add the option by which two parties are alone."""
    to.add_argument(
        "--no-provider",
        action="store_true",
        help="two parties alone: they make with each other what the provider would deal",
    )


def add_report(to: argparse.ArgumentParser, more: str = "") -> None:
    """Add the option that writes a page."""
    to.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help=f"write a page with figures, tables and the machine (extra: plot){more}",
    )


def add_output(to: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark takes."""
    to.add_argument("--json", action="store_true", help="print one JSON object instead")
    to.add_argument("--debug", action="store_true", help="show where an error came from")


def at_least_one(options: argparse.Namespace, *names: str) -> None:
    """Raise ValueError unless these options, where they are given, are 1 or more."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def main(job: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a script's job, and return its exit code."""
    report: Path | None = getattr(options, "report", None)
    try:
        if report is not None:
            page.check(report)
        code = job(options)
    except KeyboardInterrupt:
        return 130
    except (SottoError, ValueError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    if report is not None and not options.json:
        print(f"Figures and tables: {report}")
    return code
