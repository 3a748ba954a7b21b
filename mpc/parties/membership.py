"""Adding received certificates to parties.toml, keeping its comments and layout.

The new text is parsed before it is written, and must hold what the old text held and the addition, and
nothing else. If anything fails, the file and its folder stay as they were.
"""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.core.errors import ArgumentError, ConfigurationError
from mpc.parties.configuration import check_name, check_text
from mpc.parties.example import WITHOUT, head
from mpc.parties.toml_text import decode, quoted, replace_file
from mpc.parties.without_provider import ALONE
from mpc.transport.certificates import Certificate, load_certificate, write_new

__all__ = ["ROLES", "Joined", "join"]

ROLES = ("party", "provider", "auditor", "client")
_HELPERS = ("provider", "auditor")
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Joined:
    """A certificate that was added to parties.toml.

    Attributes
    ----------
    name, role : str
    address : str
        Empty for a client.
    certificate : Certificate
    key : str
        The owner's key, if it was found beside the certificate; else empty.
    successor : bool
        Whether it is accepted in addition to an earlier certificate.
    """

    name: str
    role: str
    address: str
    certificate: Certificate
    key: str = ""
    successor: bool = False


def join(
    path: Path,
    certificates: Sequence[Path],
    role: str | None = None,
    *,
    name: str | None = None,
    address: str | None = None,
    fingerprint: str | None = None,
    alone: bool = False,
) -> list[Joined]:
    """Add certificates to parties.toml, all of them or none.

    A certificate of a member that has one already becomes its successor: both are accepted from then
    on. Certificates in other folders are copied beside parties.toml, which is made if it does not
    exist. A key that lies beside its certificate is entered as the member's key.

    Parameters
    ----------
    path : Path
        Of parties.toml.
    certificates : sequence of Path
    role : str, optional
        "party", "provider" or "client"; required for members that are not in the file yet.
    name, address, fingerprint : str, optional
        For a single certificate: a name or an address in place of the ones that it states, and the
        fingerprint that its owner has told, to be compared.
    alone : bool, default=False
        Write that the parties compute without a provider.

    Raises
    ------
    ConfigurationError
        If a certificate or the file as it would become is wrong, or the file cannot be written.
    ArgumentError
        If a role, name or address is missing that the certificate does not state.
    """
    if len(certificates) != 1 and (name or address or fingerprint):
        raise ArgumentError(
            f"a name, an address or a fingerprint is of one certificate, got {len(certificates)}"
        )
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    change = _Change(path)
    if alone:
        change.do_without_provider()
    for each in certificates:
        certificate = load_certificate(each)
        if fingerprint is not None and not certificate.fits(fingerprint):
            raise ConfigurationError(
                f"{each} has the fingerprint {certificate.fingerprint}, not {fingerprint}: it is"
                " not the certificate that its owner has made"
            )
        change.add(certificate, role, name, address)
    change.write()
    return change.joined


class _Change:
    """The changes to one parties.toml, collected before anything is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.joined: list[Joined] = []
        self._copies: dict[Path, bytes] = {}
        self._old: bytes | None = None
        try:
            self._old = path.read_bytes()
        except FileNotFoundError:
            lines = head(
                (
                    "Who computes together. All have the same names, certificates, format and order",
                    "of the parties here; key = is one's own alone, and never leaves its machine.",
                )
            )
            self.text = "\n".join(lines) + "\n"
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        else:
            self.text = decode(path, self._old)
            check_text(path, self.text)
        self._newline = "\r\n" if "\r\n" in self.text else "\n"
        self._data = self._parse(self.text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{self.path}: {error}") from None

    def do_without_provider(self) -> None:
        """Write above the first table that there is no provider."""
        said = self._data.get("provider", "none")
        if said != "none":
            raise ArgumentError(
                f"{self.path} names a provider: delete its table [provider] for two parties alone"
            )
        if "provider" in self._data:
            return
        lines = self.text.splitlines(keepends=True)
        tables = (n for n, line in enumerate(lines) if line.lstrip().startswith("["))
        first = next(tables, len(lines))
        new = f"{WITHOUT}{self._newline}{ALONE}{self._newline}{self._newline}"
        text = "".join([*lines[:first], new, *lines[first:]])
        self._take(text, {**self._data, "provider": "none"}, [ALONE])

    def add(
        self, certificate: Certificate, role: str | None, name: str | None, address: str | None
    ) -> None:
        """Add one certificate to the text: a new member, or a member's successor."""
        if role == "provider" and self._data.get("provider") == "none":
            raise ArgumentError(
                f"{self.path} says {ALONE}: delete that line at all parties to have one"
            )
        name = role if role in _HELPERS else name or certificate.name
        try:
            check_name(name)
        except ConfigurationError:
            raise ArgumentError(
                f"{certificate.path} names {certificate.name!r}, which cannot be a name here: say"
                " --name"
            ) from None
        table = self._table_of(name)
        if table is None:
            self._add_member(certificate, role, name, address)
        else:
            there = {"parties": "party", "clients": "client"}.get(table[0], table[0])
            if role not in (None, there):
                raise ArgumentError(f"{name} is a {there} in {self.path}, not a {role}")
            self._add_successor(certificate, table, there, name)

    def _table_of(self, name: str) -> tuple[str, ...] | None:
        if name in _HELPERS and isinstance(self._data.get(name), dict):
            return (name,)
        for kind in ("parties", "clients"):
            if name in self._data.get(kind, {}):
                return (kind, name)
        return None

    def _add_member(
        self, certificate: Certificate, role: str | None, name: str, address: str | None
    ) -> None:
        if role is None:
            raise ArgumentError(
                f"{name} is not in {self.path} yet: say --as party, --as provider, --as auditor or --as"
                " client"
            )
        values: dict[str, str] = {}
        if role != "client":
            values["address"] = address or certificate.address
            if not values["address"]:
                raise ArgumentError(
                    f"{certificate.path} does not state at which address {name} listens: say"
                    " --address HOST:PORT"
                )
        values["certificate"] = self._beside(certificate, name)
        if key := self._key_of(certificate, values["certificate"]):
            values["key"] = key
        table = {"party": ("parties", name), "client": ("clients", name)}.get(role, (role,))
        lines = [f"[{'.'.join(table)}]", *(f"{k} = {quoted(v)}" for k, v in values.items())]
        new = copy.deepcopy(self._data)
        if role in _HELPERS:
            new[role] = values
        else:
            new.setdefault(table[0], {})[name] = values
        gap = self._newline * (1 if self.text.endswith("\n") else 2)
        self._take(self.text + gap + "".join(line + self._newline for line in lines), new, lines)
        self.joined.append(
            Joined(name, role, values.get("address", ""), certificate, values.get("key", ""))
        )

    def _key_of(self, certificate: Certificate, name: str) -> str:
        """Return the key file beside a certificate, or beside its file `name` here; empty without one."""
        for beside in (certificate.path, self.path.parent / name):
            if (key := beside.with_suffix(".key")).exists():
                here = key.resolve().parent == self.path.parent
                return key.name if here else str(key.resolve())
        return ""

    def _add_successor(
        self, certificate: Certificate, table: tuple[str, ...], role: str, name: str
    ) -> None:
        new = copy.deepcopy(self._data)
        values = new
        for part in table:
            values = values[part]
        for key in ("certificate", "successor"):
            if key in values:
                there = load_certificate(self.path.parent / values[key])
                if there.der == certificate.der:
                    own = "" if "key" in values else self._key_of(certificate, values[key])
                    way = f"; it is yours, so write there: key = {quoted(own)}" if own else ""
                    raise ConfigurationError(
                        f"{certificate.path} is {name}'s {key} in {self.path} already{way}"
                    )
        if "successor" in values:
            raise ConfigurationError(
                f"{name} has a successor in {self.path} already: once it is in use, write"
                f" certificate = {quoted(values['successor'])} there and delete the line successor"
            )
        values["successor"] = self._beside(certificate, name)
        line = f"successor = {quoted(values['successor'])}"
        self._take(self._insert(table, line), new, [f"[{'.'.join(table)}]", line])
        self.joined.append(
            Joined(name, role, values.get("address", ""), certificate, successor=True)
        )

    def _insert(self, table: tuple[str, ...], line: str) -> str:
        """Return the text with `line` inserted after the line of a table's certificate."""
        inside, lines = False, self.text.splitlines(keepends=True)
        for number, old in enumerate(lines):
            bare = old.strip()
            if bare.startswith("["):
                parts = bare.split("]")[0].strip("[").split(".")
                inside = tuple(part.strip().strip("\"'") for part in parts) == table
            elif inside and re.match(r"certificate\s*=", bare):
                indent = old[: len(old) - len(old.lstrip())]
                if not old.endswith("\n"):
                    lines[number] += self._newline
                lines.insert(number + 1, f"{indent}{line}{self._newline}")
                break
        return "".join(lines)

    def _take(self, text: str, data: dict[str, Any], lines: Sequence[str]) -> None:
        """Accept the new text if parsing it gives `data`; else raise, naming the lines to write by hand."""
        try:
            same = tomllib.loads(text) == data
        except tomllib.TOMLDecodeError:
            same = False
        if not same:
            raise ConfigurationError(
                f"{self.path} is laid out in a way that cannot be added to; write there yourself:\n  "
                + "\n  ".join(lines)
            )
        self.text, self._data = text, data

    def _beside(self, certificate: Certificate, name: str) -> str:
        """Return the name of a certificate's file in the folder of parties.toml."""
        folder = self.path.parent
        if certificate.path.resolve().parent == folder:
            return certificate.path.name
        for there in sorted(folder.glob("*.crt")):
            # The received file may be a copy of one that is here, such as this machine's own.
            with suppress(ConfigurationError):
                if load_certificate(there).der == certificate.der:
                    return there.name
        number = 1
        while True:
            target = folder / (f"{name}.crt" if number == 1 else f"{name}-{number}.crt")
            if target not in self._copies and not os.path.lexists(target):
                self._copies[target] = certificate.path.read_bytes()
                return target.name
            number += 1

    def write(self) -> None:
        """Write everything, or nothing."""
        data = self.text.encode()
        if self._old is not None and self._old.startswith(_MARK):
            data = _MARK + data
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_new((path, text, 0o644) for path, text in self._copies.items())
        try:
            check_text(self.path, self.text)
            if self._old is None:
                write_new([(self.path, data, 0o644)])
            else:
                replace_file(self.path, self._old, data)
        except BaseException:
            for path in self._copies:
                path.unlink(missing_ok=True)
            raise
