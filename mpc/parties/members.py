"""Who takes part: parties, the provider, its auditor, clients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpc.core.errors import ConfigurationError
from mpc.transport import addresses
from mpc.transport.certificates import Certificate

__all__ = ["Member", "check_name"]

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


def check_name(name: str) -> None:
    """Raise ConfigurationError unless `name` can be a member's name."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"a name must have letters, digits, - and _ alone, at most 64, got {name!r}"
        )
