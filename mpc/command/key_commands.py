"""The commands about keys and certificates: init, key, join, check."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mpc.command.command_line import CONFIGURATION, add_command
from mpc.command.terminal import paint
from mpc.core.errors import ArgumentError, ConfigurationError
from mpc.parties import configuration
from mpc.parties.configuration import Configuration
from mpc.parties.configuration_faults import faults, notes
from mpc.parties.membership import ROLES, join
from mpc.transport import addresses
from mpc.transport.certificates import DAYS, Certificate, load_certificate, make_certificate

__all__ = ["add_key_commands"]

# About a century: dates beyond that may not fit a certificate.
_MOST_DAYS = 36500


def add_key_commands(commands: Any) -> None:
    """Add the commands to `commands`, which argparse's ``add_subparsers`` has returned."""
    init = add_command(
        commands, "init", "write an example for a trial on this machine, all keys included",
        "Write a complete parties.toml with fresh keys and certificates of everybody, for a trial\n"
        "on this machine alone: keys that were in one place protect nobody from whoever was there.\n"
        "Between organisations each makes its own (sotto key), and only certificates travel\n"
        "(sotto join). An existing file is never overwritten.",
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
    init.add_argument(
        "--no-provider", action="store_true",
        help="two parties alone: they make with each other what a crypto provider would deal",
    )  # fmt: skip
    init.add_argument(
        "--auditor", action="store_true",
        help="with an auditor, who computes a part of what the provider deals again",
    )  # fmt: skip
    init.set_defaults(run=_init)

    key = add_command(
        commands, "key", "make one organisation's own key and certificate",
        "Write NAME.key, which never leaves this machine, and NAME.crt, which the others need.\n"
        "An existing file is never overwritten. With --successor: NAME-2, NAME-3, ..., which takes\n"
        "the place of an earlier one without a stop.",
    )  # fmt: skip
    key.add_argument("name", metavar="NAME", help="who you are: what the others will call you")
    key.add_argument(
        "--address", metavar="HOST:PORT",
        help="where the others reach you, if you are a party or the provider; is in the certificate",
    )  # fmt: skip
    key.add_argument(
        "--days", type=int, default=DAYS, metavar="N",
        help=f"how long the certificate is valid (default: {DAYS})",
    )  # fmt: skip
    key.add_argument(
        "--folder", type=Path, default=Path(), help="where to write (default: this folder)"
    )
    key.add_argument(
        "--successor", action="store_true", help="of a key and certificate that are there already"
    )
    key.set_defaults(run=_key)

    joins = add_command(
        commands, "join", "put certificates that you have received into parties.toml",
        "Add members to parties.toml, or to a member that is there the successor of its\n"
        "certificate: both are accepted then. The file is made if it is not there; comments and\n"
        "layout are kept. A certificate elsewhere is copied beside parties.toml. Your own key,\n"
        "beside your certificate, is named in your parties.toml.",
    )  # fmt: skip
    joins.add_argument("configuration", type=Path, help="the path of parties.toml")
    joins.add_argument("certificates", type=Path, nargs="+", metavar="CERTIFICATE")
    joins.add_argument("--as", dest="role", choices=ROLES, help="the role of new members")
    joins.add_argument("--name", help="another name than the certificate has")
    joins.add_argument(
        "--address", metavar="HOST:PORT", help="another address than the certificate states"
    )
    joins.add_argument(
        "--fingerprint",
        metavar="HEX",
        help="the fingerprint that its owner has told you; refuse another",
    )
    joins.add_argument(
        "--no-provider", action="store_true",
        help="write that the two parties compute without a crypto provider; all of them must",
    )  # fmt: skip
    joins.set_defaults(run=_join)

    check = add_command(
        commands, "check", "say whether a configuration is right, or which line is wrong",
        "Read a parties.toml and its certificates, and name the first line that is wrong. Show\n"
        "every fingerprint, look up every address, and look at every certificate's dates.",
    )  # fmt: skip
    check.add_argument("configuration", type=Path, help="the path of parties.toml")
    check.add_argument(
        "--me", metavar="NAME", help="check this one's key too, and that it can listen here"
    )
    check.add_argument(
        "--fingerprint", action="append", default=[], metavar="NAME=HEX",
        help="the fingerprint that NAME has told you; may be repeated",
    )  # fmt: skip
    check.set_defaults(run=_check)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _init(options: argparse.Namespace) -> int:
    parties, clients = _names(options.parties), _names(options.clients)
    ports = range(options.port, options.port + len(parties) + 1 + options.auditor)
    provider = not options.no_provider
    path = configuration.write_example(
        options.folder, parties, clients, ports=ports, provider=provider, auditor=options.auditor
    )
    done = paint("Wrote", "green")
    print(f"{done} {path}, and a key and a certificate for each of")
    print("  " + ", ".join(configuration.load(path).members))
    print("All keys are in one folder: for a trial on this machine, and for nothing else.")
    print("Between organisations each makes its own key: see sotto key --help.")
    print(f"Next: sotto check {path}")
    if provider:
        print(f"      sotto provider {path}")
    if options.auditor:
        print(f"      sotto auditor {path}")
    print(f"      and in Python, one process each: mpc.Session({str(path)!r}, me={parties[0]!r})")
    return 0


def _key(options: argparse.Namespace) -> int:
    configuration.check_name(options.name)
    if not 1 <= options.days <= _MOST_DAYS:
        raise ArgumentError(f"--days must be in [1, {_MOST_DAYS}], got {options.days}")
    if options.address is not None:
        reached, _ = addresses.parse(options.address, "--address")
        if reached in addresses.EVERYWHERE:
            raise ArgumentError(
                f"--address is where others reach {options.name}, and nobody can reach {reached}"
            )
        if not options.address.isascii():
            raise ArgumentError(f"--address must be in ASCII (xn--...), got {options.address!r}")
    options.folder.mkdir(parents=True, exist_ok=True)
    stem = options.folder / options.name
    if options.successor:
        number = 2
        while any(Path(f"{stem}-{number}.{end}").exists() for end in ("key", "crt")):
            number += 1
        stem = Path(f"{stem}-{number}")
    certificate, key = Path(f"{stem}.crt"), Path(f"{stem}.key")
    if not options.successor and (key.exists() or certificate.exists()):
        there = key if key.exists() else certificate
        raise ConfigurationError(
            f"{there} exists already and is not overwritten; --successor makes one to take its place"
        )
    address, first = options.address or "", options.folder / f"{options.name}.crt"
    if options.successor and not address and first.exists():
        address = load_certificate(first).address
    made = make_certificate(options.name, certificate, key, days=options.days, address=address)
    print(f"{paint('Wrote', 'green')} {key}, mode 600: it stays here, and nobody asks you for it.")
    print(f"{paint('Wrote', 'green')} {certificate}: for everybody who is to know you.")
    _show(made, options.name, made.address)
    print("Tell the others the fingerprint on another way than the file takes: by telephone, say.")
    if options.successor:
        print(f'When all have it in their parties.toml: key = "{key.name}" in yours.')
    return 0


def _show(certificate: Certificate, name: str, address: str) -> None:
    print(f"  name         {name}")
    print(f"  address      {address or '-'}")
    print(f"  valid        {certificate.validity}")
    print(f"  fingerprint  {certificate.fingerprint}")


def _join(options: argparse.Namespace) -> int:
    joined = join(
        options.configuration, options.certificates, options.role,
        name=options.name, address=options.address, fingerprint=options.fingerprint,
        alone=options.no_provider,
    )  # fmt: skip
    for each in joined:
        what = f"the successor of {each.name}'s certificate" if each.successor else each.role
        print(f"{paint('Added', 'green')} {each.certificate.path} as {what}")
        _show(each.certificate, each.name, each.address)
        if each.key:
            print(f"  key          {each.key}")
        if each.certificate.warning:
            print(f"{paint('warning:', 'yellow')} {each.certificate.warning}")
    if options.fingerprint is None:
        print("Ask each owner for the fingerprint, on another way than the file has taken.")
    return 0


def _check(options: argparse.Namespace) -> int:
    read = configuration.load(options.configuration)
    told = [_fingerprint_of(read, text) for text in options.fingerprint]
    _table(read)
    found = faults(read, options.me, dict(told))
    for text in notes(read):
        print(f"{paint('warning:', 'yellow')} {text}")
    if found:
        for text in found:
            print(f"{paint('sotto: error:', 'red', sys.stderr)} {text}", file=sys.stderr)
        return CONFIGURATION
    if not told:
        print("Whether each fingerprint is what its owner has made, only its owner can say: ask.")
    print(f"{options.configuration}: {read.everybody},", end=" ")
    print(paint("all is well.", "green"))
    return 0


def _fingerprint_of(read: Configuration, text: str) -> tuple[str, str]:
    """Parse NAME=HEX of the option --fingerprint."""
    name, sign, fingerprint = text.partition("=")
    if not sign or name not in read.members:
        raise ArgumentError(
            f"--fingerprint must be NAME=HEX, NAME one of {', '.join(read.members)}, got {text!r}"
        )
    return name, fingerprint


def _table(read: Configuration) -> None:
    rows = [("name", "role", "address", "days", "fingerprint (SHA-256)")]
    for role, members in (
        ("party", read.parties.values()), ("provider", filter(None, [read.provider])),
        ("auditor", filter(None, [read.auditor])),
        ("client", read.clients.values()),
    ):  # fmt: skip
        for member in members:
            for number, certificate in enumerate(member.certificates):
                address = addresses.show(member.address) if member.address else "-"
                first = (member.name, role, address) if not number else ("", "successor", "")
                rows.append((*first, str(int(certificate.days_left)), certificate.fingerprint))
    width = [max(len(row[k]) for row in rows) for k in range(5)]
    for number, row in enumerate(rows):
        line = "  ".join(f"{text:{size}}" for text, size in zip(row, width, strict=True)).rstrip()
        print(line if number else paint(line, "bold"))
