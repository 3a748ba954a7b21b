"""Signatures with the key of a certificate, for what has to be shown to others later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mpc.core.errors import ConfigurationError

__all__ = ["Signer", "is_signed"]


class Signer:
    """Signs with a private key.

    Parameters
    ----------
    path : Path
        Of the key, as parties.toml names it.

    Raises
    ------
    ConfigurationError
        If the key cannot sign: it must be of an elliptic curve, as those of `sotto key` are.
    """

    def __init__(self, path: Path) -> None:
        try:
            key: Any = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError):
            raise ConfigurationError(f"key {path} cannot be read") from None
        if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
            raise ConfigurationError(
                f"key {path} must be of an elliptic curve to sign with it; sotto key makes one"
            )
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: ECDSA with SHA-256, or Ed25519."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(SHA256()))


def is_signed(message: bytes, signature: bytes, certificates: Iterable[bytes]) -> bool:
    """Whether the owner of one of these certificates, in DER, has signed a message."""
    return any(_is_signed(message, signature, each) for each in certificates)


def _is_signed(message: bytes, signature: bytes, certificate: bytes) -> bool:
    try:
        key: Any = x509.load_der_x509_certificate(certificate).public_key()
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(SHA256()))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
