"""parties.toml: the members, their addresses and certificates, and the settings of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mpc.core.errors import ConfigurationError
from mpc.core.limits import AN_HOUR, Limits
from mpc.core.network import Network
from mpc.core.watching import SEMI_HONEST
from mpc.parties.example import write_example
from mpc.parties.members import Member, check_name
from mpc.parties.model_table import allowed_models, model_folders
from mpc.parties.settings import SettingsText, Timeouts, Workers
from mpc.parties.toml_text import decode
from mpc.parties.without_provider import ALONE, RATE, ProviderText
from mpc.transport import addresses
from mpc.transport.certificates import Certificate, load_certificate
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
    security : {"semi-honest", "malicious"}
        What the parties are trusted to do, see :class:`mpc.Session`.
    """

    path: Path
    parties: dict[str, Member]
    provider: Member | None
    clients: dict[str, Member]
    format: FixedPoint
    timeouts: Timeouts
    workers: Workers = field(default_factory=Workers)
    limits: Limits = field(default_factory=Limits)
    transfers: str = "softspoken"
    network: Network | Literal["measured"] | None = None
    auditor: Member | None = None
    audit_rate: float = RATE
    audit_signed: bool = False
    security: str = SEMI_HONEST

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

    def limits_of(self, client: str) -> Limits:
        """Return the limits of a client: its own where it has them, else those of all."""
        member = self.clients.get(client)
        return self.limits if member is None else replace(self.limits, **member.own_limits)

    @property
    def checks_rows(self) -> bool:
        """Whether there is a client whose rows are checked, as it is not trusted."""
        return not all(client.trusted for client in self.clients.values())

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


class _Reader(ProviderText, SettingsText):
    def member(
        self, table: tuple[str, ...], name: str, listens: bool, computes: bool = False
    ) -> Member:
        keys = (
            *(("address", "listen") if listens else ()), "certificate", "successor", "key",
            *(("scheduler",) if computes else ()), *(("models",) if computes or not listens else ()),
            *(("rate", "signed") if table == ("auditor",) else ()),
            *(() if listens else ("trusted", *AN_HOUR)),
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
            if key not in ("models", "rate", "signed", "trusted", *AN_HOUR) and (
                not isinstance(value, str) or not value
            ):
                raise self.error(table, key, f"{key} must be a string, got {value!r}")
        trusted = values.get("trusted", False)
        if type(trusted) is not bool:
            raise self.error(table, "trusted", f"trusted must be true or false, got {trusted!r}")
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
            trusted,
            self.own_limits(table, values, AN_HOUR),
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
            self.security(),
        )
        # Last: the line may have got into one of the tables, which is a better thing to say.
        self.check_provider()
        return found

    def check_tables(self) -> None:
        self.table(
            (),
            (
                "format", "timeouts", "workers", "limits", "network", "provider", "transfers",
                "auditor", "parties", "clients", "security",
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
