"""The commands of ``sotto`` that need no neural network: doctor, init, check, provider, health."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpc import configuration, observing
from mpc.errors import ArgumentError, SottoError
from mpc.events import start_log
from mpc.health import as_json, ask, table
from mpc.own_process import settle
from mpc.provider_service import ProviderService
from mpc.terminal import paint
from mpc.transport.tls import own_contexts

__all__ = ["add_command", "add_commands", "run", "serve_until_signal", "start_log"]


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


def add_commands(commands: Any) -> None:
    """Add the commands to what ``add_subparsers`` has returned."""
    doctor = add_command(
        commands, "doctor", "say whether Sotto works on this machine",
        "Print versions and what the processor can do, and test every protocol, in seconds.\n"
        "Please include what it prints when you report a problem.",
    )  # fmt: skip
    doctor.set_defaults(run=_doctor)

    init = add_command(
        commands, "init", "write an example configuration, keys and certificates included",
        "Write a complete parties.toml with fresh keys and certificates, for a trial on this\n"
        "machine. An existing file is never overwritten.",
    )  # fmt: skip
    init.add_argument("folder", type=Path, help="where to write; made if it is not there")
    init.add_argument(
        "--parties", default="alice,bob", metavar="NAME,NAME",
        help="computing parties (default: alice,bob)",
    )  # fmt: skip
    init.add_argument(
        "--clients", default="carol", metavar="NAME,NAME",
        help="who may ask the parties for predictions (default: carol)",
    )  # fmt: skip
    init.add_argument(
        "--port", type=int, default=9001, help="the first; each party takes one (default: 9001)"
    )
    init.set_defaults(run=_init)

    check = add_command(
        commands, "check", "say whether a configuration is right, or which line is wrong",
        "Read a parties.toml and its certificates, and name the first line that is wrong.",
    )  # fmt: skip
    check.add_argument("configuration", type=Path, help="the path of parties.toml")
    check.add_argument("--me", metavar="NAME", help="check this party's key too")
    check.set_defaults(run=_check)

    provider = add_command(
        commands, "provider", "run the crypto provider",
        "Run the crypto provider until Ctrl-C or SIGTERM. It sees shapes and ids, never data.",
    )  # fmt: skip
    provider.add_argument("configuration", type=Path, help="the path of parties.toml")
    provider.add_argument(
        "--workers", type=int, default=1, metavar="N", help="joblib workers (default: 1, none)"
    )
    provider.add_argument(
        "--memory-limit", type=int, default=1 << 30, metavar="BYTES",
        help="for one correlation (default: 2^30)",
    )  # fmt: skip
    provider.add_argument(
        "--sessions", type=int, default=64, metavar="N", help="how many at once (default: 64)"
    )
    provider.add_argument("--verbose", action="store_true", help="log every session")
    observing.add_options(provider)
    provider.set_defaults(run=_provider)

    health = add_command(
        commands, "health", "ask the provider and all parties that serve whether they are well",
        "Ask the provider and every party that serves (sotto serve) how they are, and print a line\n"
        "for each. The exit code is 1 if one that was asked does not answer. A client asks the\n"
        "parties alone: the provider answers no clients.",
    )  # fmt: skip
    health.add_argument("configuration", type=Path, help="the path of parties.toml")
    health.add_argument(
        "--me", required=True, metavar="NAME", help="who asks: a party, the provider or a client"
    )
    health.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS",
        help="how long to wait for an answer (default: 5)",
    )  # fmt: skip
    health.add_argument("--of", metavar="NAME", help="ask this service alone")
    health.add_argument("--json", action="store_true", help="print an object, for a program")
    health.add_argument(
        "--live", action="store_true",
        help="exit code 0 if what was asked runs, though it may wait for others still",
    )  # fmt: skip
    health.set_defaults(run=_health)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _doctor(options: argparse.Namespace) -> int:
    # It brings in every protocol, which the other commands do not wait for.
    from mpc.doctor import examine

    return examine()


def _init(options: argparse.Namespace) -> int:
    parties, clients = _names(options.parties), _names(options.clients)
    ports = range(options.port, options.port + len(parties) + 1)
    path = configuration.write_example(options.folder, parties, clients, ports=ports)
    done = paint("Wrote", "green")
    print(f"{done} {path}, and a key and a certificate for each of")
    print("  " + ", ".join([*parties, "provider", *clients]))
    print("On several machines: give each its own .key file alone, and set the addresses.")
    print(f"Next: sotto check {path}")
    print(f"      sotto provider {path}")
    print(f"      and in Python, one process each: mpc.Session({str(path)!r}, me={parties[0]!r})")
    return 0


def _check(options: argparse.Namespace) -> int:
    read = configuration.load(options.configuration)
    if options.me is not None:
        own_contexts(read, options.me)
    print(f"{options.configuration}: {', '.join(read.names)} and the provider,", end=" ")
    print(paint("all is well.", "green"))
    return 0


def _provider(options: argparse.Namespace) -> int:
    observing.start(options, options.configuration)
    read = configuration.load(options.configuration)
    settle()
    service = ProviderService(
        read,
        workers=options.workers,
        memory_limit=options.memory_limit,
        sessions=options.sessions,
    )
    serve_until_signal(service.close)
    return 0


def _health(options: argparse.Namespace) -> int:
    if not 0 < options.timeout < 1e9:
        raise ArgumentError(
            f"--timeout must be a positive number of seconds, got {options.timeout}"
        )
    read = configuration.load(options.configuration)
    found = ask(read, options.me, options.timeout, of=options.of)
    told = as_json(found)
    if options.json:
        print(json.dumps(told))
    else:
        head, *lines = table(found)
        print(paint(head, "bold"))
        for each, line in zip(found, lines, strict=True):
            print(paint(line, "red") if each.problem else line)
    return 0 if told["live" if options.live else "ready"] else 1


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
    if not hasattr(options, "run"):
        parser.print_help(sys.stderr)
        return 2
    debug = getattr(options, "debug", False)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except (SottoError, OSError) as error:
        if debug:
            raise
        problem = str(error)
    except Exception as error:
        if debug:
            raise
        # Its text is not ours, and could hold anything.
        problem = f"{type(error).__name__}, a bug: please report it with what --debug shows"
    print(f"{paint('sotto: error:', 'red', sys.stderr)} {problem}", file=sys.stderr)
    return 2
