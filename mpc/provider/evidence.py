"""Evidence that a provider has dealt wrongly: a file that can be shown to others, and holds no key.

The provider has signed which corrections it has dealt, for which requests and keys; the auditor signs that
from these keys other corrections follow. Keys themselves are not in it: with them whoever has seen what a
computing party sees would read what the masks hide, a model's weights among them. So the file convinces
whoever trusts the auditor to have computed, and leaves no doubt about what the provider has said.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.core import wire
from mpc.core.errors import DataError
from mpc.provider.signed import statement
from mpc.transport.signatures import is_signed

__all__ = ["Evidence", "load_evidence"]

_WHAT = "sotto audit 1"
_LARGEST = 1 << 26
_BYTES = (
    "session", "requests", "keys", "dealt", "follows", "provider", "auditor",
    "provider_signature", "auditor_signature",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Evidence:
    """What the provider and the auditor have signed of a part.

    Attributes
    ----------
    number : int
        Which part of the session it is.
    session, requests : bytes
        The session id, and the requests of the part.
    keys : bytes
        SHA-256 of each key that the corrections follow from.
    dealt, follows : bytes
        SHA-256 of the corrections that were dealt, and of those that follow from the keys.
    provider, provider_signature, auditor, auditor_signature : bytes
        Their certificates, in DER, and signatures.
    """

    number: int
    session: bytes
    requests: bytes
    keys: bytes
    dealt: bytes
    follows: bytes
    provider: bytes
    provider_signature: bytes
    auditor: bytes = b""
    auditor_signature: bytes = b""

    @property
    def said(self) -> bytes:
        """What the provider has signed."""
        return statement(self.session, self.number, self.requests, self.keys, self.dealt)

    @property
    def found(self) -> bytes:
        """What the auditor signs: that from the keys of a statement other corrections follow."""
        return wire.encode(("sotto audit", self.said, self.provider_signature, self.follows))

    def problems(self, provider: Sequence[bytes], auditor: Sequence[bytes]) -> list[str]:
        """Return why this is no evidence against the owner of certificates; empty if it is.

        Parameters
        ----------
        provider, auditor : sequence of bytes
            The certificates that the two are known by, in DER.
        """
        checks = {
            "the certificate is not the provider's": self.provider in provider,
            "the certificate is not the auditor's": self.auditor in auditor,
            "the provider has not signed it": is_signed(
                self.said, self.provider_signature, [self.provider]
            ),
            "the auditor has not signed it": is_signed(
                self.found, self.auditor_signature, [self.auditor]
            ),
            "what was dealt is what follows from the keys": self.dealt != self.follows,
        }
        return [problem for problem, holds in checks.items() if not holds]

    def write(self, folder: Path) -> Path:
        """Write a new file into a folder; return its path."""
        values: dict[str, Any] = {"what": _WHAT, "number": self.number}
        values |= {name: b64encode(getattr(self, name)).decode() for name in _BYTES}
        path = folder / f"{self.session.hex()[:16]}-{self.number}.audit"
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(number, "w") as file:
            json.dump(values, file, indent=1)
            file.write("\n")
        return path


def load_evidence(path: Path) -> Evidence:
    """Read a file of evidence.

    Raises
    ------
    DataError
        If it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large for evidence of an audit")
        values = json.loads(path.read_bytes())
        if values["what"] != _WHAT or type(values["number"]) is not int:
            raise KeyError
        found = {name: b64decode(values[name], validate=True) for name in _BYTES}
        return Evidence(values["number"], **found)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise DataError(f"{path} holds no evidence of an audit, or it is damaged") from None
