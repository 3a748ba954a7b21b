"""A complete parties.toml for a trial on one machine, and the first lines of any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mpc.core.errors import ConfigurationError
from mpc.core.watching import SEMI_HONEST
from mpc.parties.members import check_name
from mpc.parties.settings import Timeouts
from mpc.parties.without_provider import ALONE, RATE, check_two
from mpc.transport import addresses
from mpc.transport.certificates import make_certificate, write_new
from ring import FixedPoint

__all__ = ["WITHOUT", "head", "write_example"]

PROVIDER = (
    "# The crypto provider: sees shapes, never data. It must not work with any of the parties."
)
AUDITOR = "# The auditor: computes a part of what the provider deals again. It must work with none of them."
WITHOUT = "# Two parties without a crypto provider: they make their randomness with each other."
WATCHED = (
    "# One of the computing parties may deviate from the program in any way: the others notice."
)
PARTIES = "# The computing parties, in this order."
CLIENTS = "# Who may ask for predictions."


def head(
    about: Sequence[str],
    format: FixedPoint | None = None,
    timeouts: Timeouts | None = None,
    provider: bool = True,
    transfers: str = "softspoken",
    security: str = SEMI_HONEST,
) -> list[str]:
    """Return the first lines of a configuration: a comment, the format, the timeouts."""
    fixed_point, limits = format or FixedPoint(), timeouts or Timeouts()
    return [
        *(f"# {line}" for line in about),
        "",
        *(() if provider else (WITHOUT, ALONE)),
        *(() if transfers == "softspoken" else (f'transfers = "{transfers}"',)),
        *(() if security == SEMI_HONEST else (WATCHED, f'security = "{security}"')),
        *(() if provider and security == SEMI_HONEST else ("",)),
        "[format]",
        f"frac_bits = {fixed_point.frac_bits}",
        f"int_bits = {fixed_point.int_bits}",
        "",
        "[timeouts]  # seconds",
        f"connect = {limits.connect:g}",
        f"answer = {limits.answer:g}",
        f"idle = {limits.idle:g}",
    ]


def write_example(
    folder: str | Path,
    parties: Sequence[str] = ("alice", "bob"),
    clients: Sequence[str] = ("carol",),
    *,
    ports: Sequence[int] | None = None,
    format: FixedPoint | None = None,
    timeouts: Timeouts | None = None,
    provider: bool = True,
    transfers: str = "softspoken",
    auditor: bool = False,
    audit_rate: float = RATE,
    audit_signed: bool = False,
    security: str = SEMI_HONEST,
) -> Path:
    """Write a complete configuration for a trial on one machine, with fresh keys.

    Parameters
    ----------
    folder : path
        Is made if it does not exist. Files that are there already are not overwritten.
    parties, clients : sequence of str
    ports : sequence of int, optional
        One for each party, one for the provider and one for the auditor; default 9001, 9002, ...
    format : ring.FixedPoint, optional
    timeouts : Timeouts, optional
    provider : bool, default=True
        Whether there is one. Two parties can do without.
    transfers : {"softspoken", "ferret"}
        As for :class:`Configuration`; without a provider.
    auditor : bool, default=False
        Whether the provider has one.
    audit_rate : float, default=0.1
    audit_signed : bool, default=False
    security : {"semi-honest", "malicious"}
        As for :class:`Configuration`.

    Returns
    -------
    Path
        Of parties.toml.

    Raises
    ------
    ConfigurationError
        If a name is unfit or used twice, or a file exists already.
    """
    folder = Path(folder)
    helpers = [*(["provider"] if provider else []), *(["auditor"] if auditor else [])]
    members = [*parties, *helpers, *clients]
    for k, name in enumerate(members):
        check_name(name)
        if name in members[:k]:
            raise ConfigurationError(f"names must be different, got {name!r} twice")
    if len(parties) < 2:
        raise ConfigurationError(f"at least two parties must be named, got {len(parties)}")
    if not provider:
        check_two(parties)
    if auditor and not provider:
        raise ConfigurationError("an auditor checks a provider, and there is none")
    ports = list(ports) if ports is not None else list(range(9001, 9003 + len(parties)))
    for port in ports:
        addresses.parse(f"127.0.0.1:{port}", "each address")
    path = folder / "parties.toml"
    if path.exists():
        raise ConfigurationError(f"{path} exists already and is not overwritten")
    folder.mkdir(parents=True, exist_ok=True)

    def member(table: str, name: str, port: int | None) -> list[str]:
        address = [] if port is None else [f'address = "127.0.0.1:{port}"']
        return ["", f"[{table}]", *address, f'certificate = "{name}.crt"', f'key = "{name}.key"']

    lines = head(
        (
            "For a trial on one machine: the keys of all are in this folder, and protect nobody from",
            "whoever can read it. Between organisations each makes its own with sotto key.",
        ),
        format,
        timeouts,
        provider,
        transfers,
        security,
    )
    if provider:
        lines += ["", PROVIDER]
        lines += member("provider", "provider", ports[len(parties)])[1:]
    if auditor:
        lines += ["", AUDITOR, *member("auditor", "auditor", ports[len(parties) + 1])[1:]]
        lines += [] if audit_rate == RATE else [f"rate = {audit_rate:g}"]
        lines += ["signed = true"] if audit_signed else []
    lines += ["", PARTIES]
    for name, port in zip(parties, ports, strict=False):
        lines += member(f"parties.{name}", name, port)[0 if name != parties[0] else 1 :]
    if clients:
        lines += ["", CLIENTS]
        for name in clients:
            lines += member(f"clients.{name}", name, None)[0 if name != clients[0] else 1 :]
    with ExitStack() as undo:
        for name in members:
            files = folder / f"{name}.crt", folder / f"{name}.key"
            make_certificate(name, *files)
            for file in files:
                undo.callback(file.unlink, missing_ok=True)
        write_new([(path, ("\n".join(lines) + "\n").encode(), 0o644)])
        undo.pop_all()
    return path
