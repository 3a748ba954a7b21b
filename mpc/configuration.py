"""parties.toml: who takes part, where each listens, and how each proves who it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, SottoError
from mpc.limits import Limits
from mpc.transport.certificates import load_certificate, make_certificate
from ring import FixedPoint

__all__ = ["Configuration", "Member", "Timeouts", "Workers", "load", "write_example"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Member:
    """A party, the provider or a client.

    Attributes
    ----------
    name : str
    address : (str, int), or None for a client
        Where it listens: host and port.
    certificate, key : Path
        The key is there on its owner's machine only.
    der : bytes
        The certificate itself.
    scheduler : str, optional
        Of the Dask cluster on which a party's workers run.
    """

    name: str
    address: tuple[str, int] | None
    certificate: Path
    key: Path | None
    der: bytes = field(repr=False)
    scheduler: str | None = None


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait.

    Attributes
    ----------
    connect : float, default=30
        For the others to start and to agree.
    answer : float, default=60
        For an answer, while none of its bytes arrives.
    idle : float, default=3600
        For a client's next request, at a service, which then lets its connection go.
    """

    connect: float = 30.0
    answer: float = 60.0
    idle: float = 3600.0

    @property
    def party(self) -> float:
        """For another party, which may be waiting itself.

        Whoever waits for the one that is lost gives up first, and tells the others who it is.
        """
        return self.answer + max(2.0, self.answer / 4)


@dataclass(frozen=True)
class Workers:
    """Over how many workers each party spreads a prediction where the call does not say.

    Attributes
    ----------
    n_jobs : int, default=1
        -1: as many as every party has.
    rows : int, default=1000
        Predictions of fewer rows stay in the party's own process.
    """

    n_jobs: int = 1
    rows: int = 1000


@dataclass(frozen=True)
class Configuration:
    """What parties.toml says.

    Attributes
    ----------
    path : Path
    parties : dict of str to Member
        The computing parties, in their order.
    provider : Member
    clients : dict of str to Member
    format : ring.FixedPoint
    timeouts : Timeouts
    workers : Workers
    limits : Limits
    """

    path: Path
    parties: dict[str, Member]
    provider: Member
    clients: dict[str, Member]
    format: FixedPoint
    timeouts: Timeouts
    workers: Workers = Workers()
    limits: Limits = field(default_factory=Limits)

    @property
    def names(self) -> tuple[str, ...]:
        """The computing parties' names."""
        return tuple(self.parties)

    @property
    def members(self) -> dict[str, Member]:
        """Everybody, by name."""
        return {**self.parties, self.provider.name: self.provider, **self.clients}

    def certificates(self) -> dict[str, bytes]:
        """Return everybody's certificate by name."""
        return {name: m.der for name, m in self.members.items()}


def load(path: str | Path) -> Configuration:
    """Read and check a configuration.

    Raises
    ------
    ConfigurationError
        The message names the file and the line.
    """
    return _Reader(Path(path)).configuration()


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from None
        try:
            self.data = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    def error(self, table: Sequence[str], key: str | None, message: str) -> ConfigurationError:
        """Return an error that says in which line `key` of `table` stands."""
        inside = not table
        found = None
        for number, line in enumerate(self.text.splitlines(), start=1):
            bare = line.strip()
            if bare.startswith("["):
                head = [
                    part.strip().strip("\"'") for part in bare.split("]")[0].strip("[").split(".")
                ]
                inside = head == list(table)
                # A key that is missing is reported where its table begins.
                found = number if inside else found
            elif (
                inside and key is not None and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*=", bare)
            ):
                found = number
                break
        where = f"{self.path}, line {found}" if found else str(self.path)
        return ConfigurationError(f"{where}: {message}")

    def table(self, table: tuple[str, ...], keys: Sequence[str]) -> dict[str, Any]:
        """Return a table, or an empty one, after checking that it holds known keys alone."""
        value: Any = self.data
        for part in table:
            value = value.get(part, {})
            if not isinstance(value, dict):
                raise self.error(table[:-1], part, f"{'.'.join(table)} must be a table")
        for key in value:
            if keys and key not in keys:
                raise self.error(table, key, f"no {key!r} goes here, only {', '.join(keys)}")
        return value

    def number(
        self, table: tuple[str, ...], values: Mapping[str, Any], key: str, default: float
    ) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise self.error(
                table, key, f"{key} must be a positive number of seconds, got {value!r}"
            )
        return float(value)

    def member(
        self, table: tuple[str, ...], name: str, listens: bool, computes: bool = False
    ) -> Member:
        keys = (
            *(("address",) if listens else ()), "certificate", "key",
            *(("scheduler",) if computes else ()),
        )  # fmt: skip
        values = self.table(table, keys)
        if not _NAME.fullmatch(name):
            raise self.error(
                table, None, f"a name must have letters, digits, - and _ alone, got {name!r}"
            )
        for key in ("certificate", "address") if listens else ("certificate",):
            if key not in values:
                raise self.error(table, None, f"{name} needs {key} = ...")
        for key, value in values.items():
            if not isinstance(value, str) or not value:
                raise self.error(table, key, f"{key} must be a string, got {value!r}")
        folder = self.path.parent
        certificate = folder / values["certificate"]
        try:
            der = load_certificate(certificate)
        except ConfigurationError as error:
            raise self.error(table, "certificate", str(error)) from None
        return Member(
            name,
            self.address(table, values["address"]) if listens else None,
            certificate,
            folder / values["key"] if "key" in values else None,
            der,
            values.get("scheduler"),
        )

    def address(self, table: tuple[str, ...], text: str) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise self.error(
                table,
                "address",
                f'address must be "host:port" with a port below 65536, got {text!r}',
            )
        return host.strip("[]"), int(port)

    def configuration(self) -> Configuration:
        self.table(
            (), ("format", "timeouts", "workers", "limits", "provider", "parties", "clients")
        )
        parties = self.table(("parties",), ())
        if len(parties) < 2:
            raise self.error(
                ("parties",), None, f"at least two parties must be named, got {len(parties)}"
            )
        if "provider" not in self.data:
            raise self.error((), None, "a table [provider] must say where the crypto provider is")
        read = Configuration(
            self.path,
            {name: self.member(("parties", name), name, True, True) for name in parties},
            self.member(("provider",), "provider", True),
            {
                name: self.member(("clients", name), name, False)
                for name in self.table(("clients",), ())
            },
            self.format(),
            self.timeouts(),
            self.workers(),
            Limits(**self.whole_numbers(("limits",), Limits.defaults())),
        )
        self.check_different(read)
        return read

    def format(self) -> FixedPoint:
        values = self.table(("format",), ("frac_bits", "int_bits"))
        try:
            return FixedPoint(values.get("frac_bits", 16), values.get("int_bits", 15))
        except SottoError as error:
            raise self.error(("format",), None, str(error)) from None

    def timeouts(self) -> Timeouts:
        table = ("timeouts",)
        values = self.table(table, ("connect", "answer", "idle"))
        return Timeouts(
            self.number(table, values, "connect", Timeouts.connect),
            self.number(table, values, "answer", Timeouts.answer),
            self.number(table, values, "idle", Timeouts.idle),
        )

    def workers(self) -> Workers:
        table = ("workers",)
        values = self.table(table, ("n_jobs", "rows"))
        n_jobs, rows = values.get("n_jobs", Workers.n_jobs), values.get("rows", Workers.rows)
        if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
            raise self.error(
                table,
                "n_jobs",
                f"n_jobs must be a whole number of at least 1, or -1, got {n_jobs!r}",
            )
        if type(rows) is not int or rows < 1:
            raise self.error(
                table, "rows", f"rows must be a whole number of at least 1, got {rows!r}"
            )
        return Workers(n_jobs, rows)

    def whole_numbers(self, table: tuple[str, ...], defaults: Mapping[str, int]) -> dict[str, int]:
        values = self.table(table, tuple(defaults))
        for key, value in values.items():
            if type(value) is not int or value < 1:
                raise self.error(
                    table, key, f"{key} must be a whole number of at least 1, got {value!r}"
                )
        return {**defaults, **values}

    def check_different(self, read: Configuration) -> None:
        """Refuse two members of the same name, address or certificate."""
        tables = {name: ("parties", name) for name in read.parties}
        members = [*read.parties.values(), read.provider, *read.clients.values()]
        tables[read.provider.name] = ("provider",)  # type: ignore[assignment]
        if "provider" in read.parties or "provider" in read.clients:
            raise self.error(
                ("parties", "provider"), None, "no party or client can be called provider"
            )
        for name in read.clients:
            if name in read.parties:
                raise self.error(("clients", name), None, f"{name} is a party already")
            tables[name] = ("clients", name)
        for k, one in enumerate(members):
            for other in members[:k]:
                if one.address is not None and one.address == other.address:
                    raise self.error(
                        tables[one.name], "address", f"{one.name} has the address of {other.name}"
                    )
                if one.der == other.der:
                    raise self.error(
                        tables[one.name], "certificate",
                        f"{one.name} has the certificate of {other.name}",
                    )  # fmt: skip


def write_example(
    folder: str | Path,
    parties: Sequence[str] = ("alice", "bob"),
    clients: Sequence[str] = ("carol",),
    *,
    ports: Sequence[int] | None = None,
    format: FixedPoint | None = None,
    timeouts: Timeouts | None = None,
) -> Path:
    """Write a complete configuration for a trial on one machine, with fresh keys.

    Parameters
    ----------
    folder : path
        Is made if it does not exist. Files that are there already are not overwritten.
    parties, clients : sequence of str
    ports : sequence of int, optional
        One for each party and one for the provider; default 9001, 9002, ...
    format : ring.FixedPoint, optional
    timeouts : Timeouts, optional

    Returns
    -------
    Path
        Of parties.toml.

    Raises
    ------
    ConfigurationError
        If a name is unfit or used twice, or a file exists already.
    """
    folder, form, limits = Path(folder), format or FixedPoint(), timeouts or Timeouts()
    members = [*parties, "provider", *clients]
    for k, name in enumerate(members):
        if not _NAME.fullmatch(name) or name in members[:k]:
            raise ConfigurationError(
                f"names must be different, of letters, digits, - and _ alone, got {name!r}"
            )
    if len(parties) < 2:
        raise ConfigurationError(f"at least two parties must be named, got {len(parties)}")
    ports = list(ports) if ports is not None else list(range(9001, 9002 + len(parties)))
    path = folder / "parties.toml"
    if path.exists():
        raise ConfigurationError(f"{path} exists already and is not overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    for name in members:
        make_certificate(name, folder / f"{name}.crt", folder / f"{name}.key")

    def member(table: str, name: str, port: int | None) -> list[str]:
        address = [] if port is None else [f'address = "127.0.0.1:{port}"']
        return ["", f"[{table}]", *address, f'certificate = "{name}.crt"', f'key = "{name}.key"']

    lines = [
        "# Who computes together. Everybody has the same copy of this file and of all certificates;",
        "# each has its own key (mode 600) and nobody else's.",
        "",
        "[format]",
        f"frac_bits = {form.frac_bits}",
        f"int_bits = {form.int_bits}",
        "",
        "[timeouts]  # seconds",
        f"connect = {limits.connect:g}",
        f"answer = {limits.answer:g}",
        f"idle = {limits.idle:g}",
        "",
        "# The crypto provider: sees shapes, never data. It must not work with any of the parties.",
    ]
    lines += member("provider", "provider", ports[len(parties)])[1:]
    lines += ["", "# The computing parties, in this order."]
    for name, port in zip(parties, ports, strict=False):
        lines += member(f"parties.{name}", name, port)[0 if name != parties[0] else 1 :]
    if clients:
        lines += ["", "# Who may ask for predictions."]
        for name in clients:
            lines += member(f"clients.{name}", name, None)[0 if name != clients[0] else 1 :]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
