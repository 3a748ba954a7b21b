"""parties.toml: the members, their addresses and certificates, and the settings of all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mpc.core.errors import ConfigurationError, SottoError
from mpc.core.limits import Limits
from mpc.core.network import MEASURED, Network
from mpc.parties.model_table import allowed_models, model_folders
from mpc.parties.toml_text import decode
from mpc.parties.without_provider import ALONE, RATE, ProviderText, check_two
from mpc.transport import addresses
from mpc.transport.certificates import (
    Certificate,
    load_certificate,
    make_certificate,
    write_new,
)
from ring import FixedPoint

__all__ = [
    "Configuration",
    "Member",
    "Timeouts",
    "Workers",
    "check_name",
    "check_text",
    "load",
    "write_example",
]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Member:
    """A party, the provider, its auditor or a client.

    Attributes
    ----------
    name : str
    address : (str, int), or None for a client
        Host and port at which the others reach it.
    certificates : tuple of Certificate
        The accepted certificates: its own, and a successor if there is one.
    key : Path, optional
        Its private key, on its own machine only; it determines which certificate is presented.
    listen : (str, int), or None for a client
        Host and port at which it listens; `address` unless the configuration says otherwise.
    scheduler : str, optional
        Address of the Dask cluster on which a party's workers run.
    folders : dict of str to Path
        The folders of a party's shares, by model.
    models : tuple of str, optional
        The models that a client may request; None for all.
    """

    name: str
    address: tuple[str, int] | None
    certificates: tuple[Certificate, ...]
    key: Path | None
    listen: tuple[str, int] | None = None
    scheduler: str | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    models: tuple[str, ...] | None = None

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """The accepted certificates, in DER."""
        return tuple(certificate.der for certificate in self.certificates)

    @property
    def place(self) -> str:
        """The name, and the address if there is one, as text."""
        return f"{self.name} at {addresses.show(self.address)}" if self.address else self.name


@dataclass(frozen=True)
class Timeouts:
    """Timeouts, in seconds.

    Attributes
    ----------
    connect : float, default=30
        For the others to start, connect and agree.
    answer : float, default=60
        For an answer, counted from its last byte that arrived.
    idle : float, default=3600
        For a client's next request; the service then closes the connection.
    """

    connect: float = 30.0
    answer: float = 60.0
    idle: float = 3600.0

    @property
    def party(self) -> float:
        """Seconds to wait for another party, which may be waiting for a lost process itself.

        Longer than `answer`, so that the party that waits for the lost process gives up first, and
        tells the others which one is lost.
        """
        return self.answer + max(2.0, self.answer / 4)


@dataclass(frozen=True)
class Workers:
    """The default number of workers over which each party spreads a prediction.

    Attributes
    ----------
    n_jobs : int, default=1
        1 for none, -1 for as many as joblib offers at every party.
    rows : int, default=1000
        Predictions of fewer rows stay in the party's own process.
    """

    n_jobs: int = 1
    rows: int = 1000


@dataclass(frozen=True)
class Configuration:
    """The contents of parties.toml.

    Attributes
    ----------
    path : Path
    parties : dict of str to Member
        The computing parties, in their order.
    provider : Member, optional
        None with ``provider = "none"``: two parties, who make their randomness with each other.
    clients : dict of str to Member
    format : ring.FixedPoint
    timeouts : Timeouts
    workers : Workers
    limits : Limits
    transfers : {"softspoken", "ferret"}
        Without a provider: how the two parties extend their oblivious transfers.
    network : Network or MEASURED, optional
        Round trip and bandwidth between the parties, as all of them state it, or that the first party
        measures it for all when a session begins.
    auditor : Member, optional
        Who checks what the provider deals.
    audit_rate : float, default=0.1
        Which part of it.
    audit_signed : bool, default=False
        Whether the provider signs what it deals.
    """

    path: Path
    parties: dict[str, Member]
    provider: Member | None
    clients: dict[str, Member]
    format: FixedPoint
    timeouts: Timeouts
    workers: Workers = Workers()
    limits: Limits = field(default_factory=Limits)
    transfers: str = "softspoken"
    network: Network | Literal["measured"] | None = None
    auditor: Member | None = None
    audit_rate: float = RATE
    audit_signed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The computing parties' names."""
        return tuple(self.parties)

    @property
    def members(self) -> dict[str, Member]:
        """All members, by name."""
        helpers = {member.name: member for member in (self.provider, self.auditor) if member}
        return {**self.parties, **helpers, **self.clients}

    @property
    def services(self) -> tuple[Member, ...]:
        """The members that listen: the computing parties, and the provider and its auditor if there are."""
        helpers = (self.provider, self.auditor)
        return (*self.parties.values(), *(member for member in helpers if member is not None))

    @property
    def everybody(self) -> str:
        """The names of all that compute, the provider among them, as text."""
        helpers = {"the provider": self.provider, "the auditor": self.auditor}
        names = [*self.names, *(name for name, member in helpers.items() if member is not None)]
        return f"{', '.join(names[:-1])} and {names[-1]}"

    def lacks_provider(self) -> ConfigurationError:
        """Return the error to raise where a provider is needed and the parties do without."""
        return ConfigurationError(
            f"{self.path} says {ALONE}: {self.everybody} compute without one, and there is none to run"
        )

    def lacks_auditor(self) -> ConfigurationError:
        """Return the error to raise where an auditor is needed and there is none."""
        return ConfigurationError(
            f"{self.path} has no table [auditor], which names one with address = ... and certificate ="
            " ...: there is none to run"
        )

    def certificates(self) -> dict[str, tuple[bytes, ...]]:
        """Return all members' accepted certificates in DER, by name."""
        return {name: m.accepted for name, m in self.members.items()}

    def warnings(self) -> dict[str, str]:
        """Return warnings by member, for certificates that are not valid now or expire soon.

        There is none for a member with a successor that stays valid for longer.
        """
        found: dict[str, str] = {}
        for name, member in self.members.items():
            if all(certificate.warning for certificate in member.certificates):
                found[name] = f"{name}'s certificate {member.certificates[-1].warning}"
        return found


def load(path: str | Path) -> Configuration:
    """Read and check a configuration.

    Raises
    ------
    ConfigurationError
        The message names the file and the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    return _Reader(path, decode(path, data)).configuration()


def check_text(path: Path, text: str) -> None:
    """Check the text of a file before it is written; members may still be missing.

    Raises
    ------
    ConfigurationError
        The message names the file and the line.
    """
    reader = _Reader(path, text)
    reader.members()
    reader.format()
    reader.timeouts()
    reader.workers()
    reader.limits()
    reader.network()


def check_name(name: str) -> None:
    """Raise ConfigurationError unless `name` can be a member's name."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"a name must have letters, digits, - and _ alone, at most 64, got {name!r}"
        )


class _Reader(ProviderText):
    def member(
        self, table: tuple[str, ...], name: str, listens: bool, computes: bool = False
    ) -> Member:
        keys = (
            *(("address", "listen") if listens else ()), "certificate", "successor", "key",
            *(("scheduler",) if computes else ()), *(("models",) if computes or not listens else ()),
            *(("rate", "signed") if table == ("auditor",) else ()),
        )  # fmt: skip
        values = self.table(table, keys)
        try:
            check_name(name)
        except ConfigurationError as error:
            raise self.error(table, None, str(error)) from None
        for key in ("certificate", "address") if listens else ("certificate",):
            if key not in values:
                raise self.error(table, None, f"{name} needs {key} = ...")
        for key, value in values.items():
            if key not in ("models", "rate", "signed") and (
                not isinstance(value, str) or not value
            ):
                raise self.error(table, key, f"{key} must be a string, got {value!r}")
        address = self.address(table, "address", values) if listens else None
        return Member(
            name,
            address,
            tuple(
                self.certificate(table, key, values)
                for key in ("certificate", "successor")
                if key in values
            ),
            self.path.parent / values["key"] if "key" in values else None,
            self.address(table, "listen", values) if "listen" in values else address,
            values.get("scheduler"),
            model_folders(self, table, values) if computes else {},
            None if listens else allowed_models(self, table, values),
        )

    def certificate(
        self, table: tuple[str, ...], key: str, values: Mapping[str, str]
    ) -> Certificate:
        try:
            return load_certificate(self.path.parent / values[key])
        except ConfigurationError as error:
            raise self.error(table, key, str(error)) from None

    def address(
        self, table: tuple[str, ...], key: str, values: Mapping[str, str]
    ) -> tuple[str, int]:
        text = values[key]
        try:
            address = addresses.parse(text, key)
        except ConfigurationError as error:
            raise self.error(table, key, str(error)) from None
        if key == "address" and address[0] in addresses.EVERYWHERE:
            raise self.error(
                table,
                key,
                f'nobody can reach {address[0]}: address = "..." says where the others find this'
                f' one, listen = "{text}" where it listens itself',
            )
        return address

    def configuration(self) -> Configuration:
        """Return the whole configuration, after checking that nothing is missing."""
        self.check_tables()
        parties = self.table(("parties",), ())
        if len(parties) < 2:
            raise self.error(
                ("parties",), None, f"at least two parties must be named, got {len(parties)}"
            )
        members = self.members()
        found = Configuration(
            self.path,
            {name: members["parties", name] for name in parties},
            members.get(("provider",)),
            {name: members["clients", name] for name in self.table(("clients",), ())},
            self.format(),
            self.timeouts(),
            self.workers(),
            self.limits(),
            self.transfers(),
            self.network(),
            members.get(("auditor",)),
            self.audit_rate(),
            self.audit_signed(),
        )
        # Last: the line may have got into one of the tables, which is a better thing to say.
        self.check_provider()
        return found

    def check_tables(self) -> None:
        self.table(
            (),
            (
                "format", "timeouts", "workers", "limits", "network", "provider", "transfers",
                "auditor", "parties", "clients",
            ),
        )  # fmt: skip

    def members(self) -> dict[tuple[str, ...], Member]:
        """Return all members in the file, by their tables."""
        self.check_tables()
        found: dict[tuple[str, ...], Member] = {}
        self.check_parties(self.table(("parties",), ()))
        for name in self.table(("parties",), ()):
            found["parties", name] = self.member(("parties", name), name, True, True)
        if "provider" in self.data and not self.alone():
            found["provider",] = self.member(("provider",), "provider", True)
        if "auditor" in self.data:
            self.audit_rate()
            self.audit_signed()
            found["auditor",] = self.member(("auditor",), "auditor", True)
        for name in self.table(("clients",), ()):
            found["clients", name] = self.member(("clients", name), name, False)
        self.check_different(found)
        return found

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

    def limits(self) -> Limits:
        table, defaults = ("limits",), Limits.defaults()
        values = self.table(table, tuple(defaults))
        for key, value in values.items():
            if type(value) is not int or value < 1:
                raise self.error(
                    table, key, f"{key} must be a whole number of at least 1, got {value!r}"
                )
        return Limits(**{**defaults, **values})

    def network(self) -> Network | Literal["measured"] | None:
        table, keys = ("network",), ("round_trip", "megabits")
        values = dict(self.table(table, (*keys, "measure")))
        measure = values.pop("measure", False)
        if type(measure) is not bool:
            raise self.error(table, "measure", f"measure must be true or false, got {measure!r}")
        if measure and values:
            raise self.error(
                table,
                "measure",
                f"measure = true and {' and '.join(values)} = ... exclude each other",
            )
        if not values:
            return MEASURED if measure else None
        for key in keys:
            if key not in values:
                raise self.error(table, None, f"the network needs {key} = ...")
        return Network(
            self.number(table, values, "round_trip", 0.0),
            self.number(table, values, "megabits", 0.0, "Mbit/s"),
        )

    def check_different(self, found: Mapping[tuple[str, ...], Member]) -> None:
        """Refuse two members of the same name, address or certificate."""
        for table, one in found.items():
            if len(table) > 1 and (one.name == "provider" or (one.name,) in found):
                raise self.error(table, None, f"no party or client can be called {one.name}")
            for other in found.values():
                if other is one:
                    break
                if one.name == other.name:
                    raise self.error(table, None, f"{one.name} is a party already")
                if one.address is not None and one.address == other.address:
                    raise self.error(
                        table, "address", f"{one.name} has the address of {other.name}"
                    )
                if set(one.accepted) & set(other.accepted):
                    raise self.error(
                        table, "certificate", f"{one.name} has the certificate of {other.name}"
                    )
            if len(set(one.accepted)) < len(one.accepted):
                raise self.error(table, "successor", f"{one.name}'s successor is its certificate")


PROVIDER = (
    "# The crypto provider: sees shapes, never data. It must not work with any of the parties."
)
AUDITOR = "# The auditor: computes a part of what the provider deals again. It must work with none of them."
WITHOUT = "# Two parties without a crypto provider: they make their randomness with each other."
PARTIES = "# The computing parties, in this order."
CLIENTS = "# Who may ask for predictions."


def head(
    about: Sequence[str],
    format: FixedPoint | None = None,
    timeouts: Timeouts | None = None,
    provider: bool = True,
    transfers: str = "softspoken",
) -> list[str]:
    """Return the first lines of a configuration: a comment, the format, the timeouts."""
    fixed_point, limits = format or FixedPoint(), timeouts or Timeouts()
    return [
        *(f"# {line}" for line in about),
        "",
        *(() if provider else (WITHOUT, ALONE)),
        *(() if transfers == "softspoken" else (f'transfers = "{transfers}"',)),
        *(() if provider else ("",)),
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
