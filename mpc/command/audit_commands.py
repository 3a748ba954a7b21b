"""The commands about audits: auditor, audit verify."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mpc.command.command_line import add_command
from mpc.command.terminal import paint
from mpc.core.errors import ConfigurationError
from mpc.parties import configuration, observing
from mpc.provider.evidence import load_evidence

__all__ = ["add_audit_commands"]


def add_audit_commands(commands: Any) -> argparse.ArgumentParser:
    """Add the commands to `commands`; return that of the service, whose function is still to be set."""
    auditor = add_command(
        commands, "auditor", "run the auditor, who checks what the crypto provider deals",
        "Run the auditor until Ctrl-C or SIGTERM. It computes a part of what the provider deals again\n"
        "(rate = 0.1 in [auditor] of parties.toml). It sees masks, shapes and ids, never data.",
    )  # fmt: skip
    auditor.add_argument("configuration", type=Path, help="the path of parties.toml")
    auditor.add_argument(
        "--memory-limit", type=int, default=1 << 30, metavar="BYTES",
        help="for one correlation (default: 2^30)",
    )  # fmt: skip
    auditor.add_argument(
        "--sessions", type=int, default=64, metavar="N", help="how many at once (default: 64)"
    )
    auditor.add_argument(
        "--evidence", type=Path, metavar="FOLDER",
        help="write here what shows a cheat to others; needs signed = true in [auditor]",
    )  # fmt: skip
    auditor.add_argument("--verbose", action="store_true", help="log every session")
    observing.add_options(auditor)

    audit = add_command(
        commands, "audit", "look at evidence of an audit", "Look at what an auditor has written."
    )
    actions = audit.add_subparsers(title="actions", metavar="ACTION", required=True)
    verify = add_command(
        actions, "verify", "say whether a file shows that a provider has dealt wrongly",
        "Check a file that an auditor has written (sotto auditor --evidence): that the provider of\n"
        "parties.toml has signed what it dealt, and its auditor that other corrections follow from\n"
        "the keys. The exit code is 0 if so.",
    )  # fmt: skip
    verify.add_argument("file", type=Path, help="the evidence")
    verify.add_argument("configuration", type=Path, help="the path of parties.toml")
    verify.set_defaults(run=_verify)
    return auditor


def _verify(options: argparse.Namespace) -> int:
    read = configuration.load(options.configuration)
    if read.provider is None or read.auditor is None:
        raise ConfigurationError(f"{options.configuration} names no provider with an auditor")
    evidence = load_evidence(options.file)
    problems = evidence.problems(read.provider.accepted, read.auditor.accepted)
    for problem in problems:
        print(f"{paint('not shown:', 'red')} {problem}")
    if problems:
        return 1
    print(f"session      {evidence.session.hex()}, part {evidence.number}")
    print(f"dealt        {evidence.dealt.hex()} (SHA-256), as the provider has signed")
    print(f"follows      {evidence.follows.hex()} (SHA-256), as the auditor has signed")
    print("The provider has dealt other corrections than those that its auditor has computed.")
    return 0
