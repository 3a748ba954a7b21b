"""The commands of ``sotto`` that need no neural network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mpc.command.audit_commands import add_audit_commands
from mpc.command.command_line import add_command, check_positive, run, serve_until_signal
from mpc.command.key_commands import add_key_commands
from mpc.command.terminal import paint
from mpc.core.errors import ArgumentError
from mpc.core.events import start_log
from mpc.core.own_process import tune_memory
from mpc.parties import configuration, observing
from mpc.parties.expiry import watch_certificates
from mpc.parties.health import as_json, ask, table
from mpc.provider.auditor import AuditorService
from mpc.provider.meetings import MeetingService
from mpc.provider.service import ProviderService
from mpc.transport.addresses import show

__all__ = ["add_command", "add_commands", "run", "serve_until_signal", "start_log"]


def add_commands(commands: Any) -> None:
    """Add the commands to `commands`, which argparse's ``add_subparsers`` has returned."""
    doctor = add_command(
        commands, "doctor", "say whether Sotto works on this machine",
        "Print versions and what the processor can do, and test every protocol, in seconds.\n"
        "Please include what it prints when you report a problem.",
    )  # fmt: skip
    doctor.set_defaults(run=_doctor)

    add_key_commands(commands)

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

    auditor = add_audit_commands(commands)
    auditor.set_defaults(run=_auditor)

    health = add_command(
        commands, "health", "ask the provider and all parties that serve whether they are well",
        "Ask the provider and its auditor, if there are, and every party that serves (sotto serve) how\n"
        "they are, and print a line for each. The exit code is 1 if one that was asked does not answer.\n"
        "A client asks the parties alone: the others answer no clients.",
    )  # fmt: skip
    health.add_argument("configuration", type=Path, help="the path of parties.toml")
    health.add_argument("--me", required=True, metavar="NAME", help="who asks: any member")
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


def _doctor(options: argparse.Namespace) -> int:
    # Imported here: it imports every protocol, which would slow the other commands down.
    from mpc.command.doctor import examine

    return examine()


def _provider(options: argparse.Namespace) -> int:
    observing.start(options)
    read = configuration.load(options.configuration)
    tune_memory()
    service = ProviderService(
        read,
        workers=options.workers,
        memory_limit=check_positive("--memory-limit", options.memory_limit),
        sessions=check_positive("--sessions", options.sessions),
    )
    return _serve(service, options.configuration)


def _auditor(options: argparse.Namespace) -> int:
    observing.start(options)
    read = configuration.load(options.configuration)
    tune_memory()
    service = AuditorService(
        read,
        memory_limit=check_positive("--memory-limit", options.memory_limit),
        sessions=check_positive("--sessions", options.sessions),
        evidence=options.evidence,
    )
    return _serve(service, options.configuration)


def _serve(service: MeetingService, path: Path) -> int:
    watch_certificates(lambda: service.read)
    member, names = service.member(service.read), ", ".join(service.read.names)
    assert member.listen is not None
    print(f"{service.role} listens at {show(member.listen)} for {names}", flush=True)
    serve_until_signal(
        service.close, lambda: service.reload(configuration.load(path)), service.role
    )
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
            print(paint(line, "red") if each.trouble else line)
    for text in read.warnings().values():
        print(f"{paint('warning:', 'yellow', sys.stderr)} {text}", file=sys.stderr)
    return 0 if told["live" if options.live else "ready"] else 1
