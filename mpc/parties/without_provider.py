"""What parties.toml says of trust: of a provider and its auditor, or of none, and of the parties."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mpc.core.errors import ArgumentError, ConfigurationError, PartyError
from mpc.core.watching import MALICIOUS, PARTIES, SECURITY, SEMI_HONEST
from mpc.parties.toml_text import TomlText
from mpc.two_party.joint import check_transfers

__all__ = ["ALONE", "RATE", "ProviderText", "check_rate", "check_two"]

ALONE = 'provider = "none"'
RATE = 0.1
"""The default of which part of the corrections an auditor computes again."""


def check_rate(rate: object) -> float:
    """Return the rate of an audit, or raise ArgumentError."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise ArgumentError(f"the rate of an audit must be above 0 and at most 1, got {rate!r}")
    return float(rate)


def check_two(names: Collection[str]) -> None:
    """Raise PartyError unless there are two parties, who can do without a provider."""
    if len(names) != 2:
        raise PartyError(
            f"a session without a provider has two parties, got {len(names)}: {', '.join(names)}"
        )


class ProviderText(TomlText):
    """A configuration's text, and what it says of the provider."""

    def __init__(self, path: Path, text: str) -> None:
        try:
            super().__init__(path, text)
        except ConfigurationError:
            if (line := _named_twice(text)) is None:
                raise
            raise ConfigurationError(
                f"{path}, line {line}: there is {ALONE} and a table [provider], and only one of them"
                " can be meant"
            ) from None

    def table(self, table: tuple[str, ...], keys: Sequence[str]) -> dict[str, Any]:
        """Return a table, as :class:`TomlText`; say where a line goes that has got into this one."""
        values: Any = self.data
        for part in table:
            values = values.get(part) if isinstance(values, dict) else None
        if table and isinstance(values, dict) and isinstance(values.get("provider"), str):
            raise self.error(table, "provider", f"{ALONE} goes to the top, above the first table")
        return super().table(table, keys)

    def alone(self) -> bool:
        """Return whether the parties do without a provider."""
        says = self.data.get("provider", {})
        if isinstance(says, dict):
            return False
        if says != "none":
            raise self.error(
                (), "provider", f'provider must be "none" or a table [provider], got {says!r}'
            )
        return True

    def transfers(self) -> str:
        """Return how the parties extend their transfers."""
        if "transfers" not in self.data:
            return "softspoken"
        says = self.data["transfers"]
        if not self.alone():
            raise self.error((), "transfers", f"transfers is for two parties with {ALONE}")
        if not isinstance(says, str):
            raise self.error((), "transfers", f"transfers must be text, got {says!r}")
        try:
            check_transfers(says)
        except ArgumentError as error:
            raise self.error((), "transfers", str(error)) from None
        return says

    def audit_rate(self) -> float:
        """Return which part of the corrections the auditor computes again."""
        if "auditor" not in self.data:
            return RATE
        if self.alone():
            raise self.error(
                ("auditor",), None, f"an auditor checks a provider, and there is {ALONE}"
            )
        try:
            return check_rate(self.data["auditor"].get("rate", RATE))
        except ArgumentError as error:
            raise self.error(("auditor",), "rate", str(error)) from None

    def audit_signed(self) -> bool:
        """Return whether the provider signs what it deals."""
        says = self.data.get("auditor", {}).get("signed", False)
        if not isinstance(says, bool):
            raise self.error(("auditor",), "signed", f"signed must be true or false, got {says!r}")
        return says

    def security(self) -> str:
        """Return what the parties are trusted to do, and refuse what does not go with it."""
        says = self.data.get("security", SEMI_HONEST)
        if not isinstance(says, str) or says not in SECURITY:
            either = " or ".join(f'"{each}"' for each in SECURITY)
            raise self.error((), "security", f"security must be {either}, got {says!r}")
        if says == SEMI_HONEST:
            return SEMI_HONEST
        count = len(self.data.get("parties", {}))
        problem = ""
        if self.alone():
            problem = f"needs a crypto provider: name one in a table [provider] in place of {ALONE}"
        elif count < PARTIES:
            problem = (
                f"is for three computing parties or more, got {count}: a third one need not own"
                " any data"
            )
        if problem:
            raise self.error((), "security", f'security = "{MALICIOUS}" {problem}')
        return MALICIOUS

    def check_parties(self, parties: Collection[str]) -> None:
        """Refuse more parties without a provider than two."""
        if self.alone() and len(parties) > 2:
            try:
                check_two(parties)
            except PartyError as error:
                raise self.error((), "provider", str(error)) from None

    def check_provider(self) -> None:
        """Refuse a text that leaves open who makes the randomness."""
        if "provider" not in self.data:
            raise ConfigurationError(
                f"{self.path} says nothing of a provider: a table [provider] with address = ... and"
                f" certificate = ... names one, and {ALONE} at the top has two parties do without"
            )


def _named_twice(text: str) -> int | None:
    """Return the line of the table [provider] in a text that says ``provider = ...`` before."""
    said = False
    for number, line in enumerate(text.splitlines(), start=1):
        said = said or re.match(r"\s*provider\s*=", line) is not None
        if said and re.match(r"\s*\[\s*provider\s*\]", line):
            return number
    return None
