"""Keys and certificates: made, loaded, and pinned to names.

Every process has a self-signed certificate of its own; the configuration says which belongs to
whom. A connection is accepted if the other side proves to hold the key of exactly the certificate
that stands beside its name. There is no authority in between that could vouch for somebody else.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mpc.errors import ConfigurationError

__all__ = [
    "client_context",
    "load_certificate",
    "make_certificate",
    "server_context",
    "write_private",
]

_YEARS = 10


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone can read.

    Raises
    ------
    ConfigurationError
        If the file exists already.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already and is not overwritten") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def make_certificate(name: str, certificate: Path, key: Path) -> None:
    """Draw a new key for `name` and write it, mode 600, with its certificate, valid ten years."""
    # Imported here: only those who make certificates need it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    form = serialization
    write_private(
        key,
        secret.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
    )
    if certificate.exists():
        raise ConfigurationError(f"{certificate} exists already and is not overwritten")
    certificate.write_bytes(made.public_bytes(form.Encoding.PEM))


def load_certificate(path: Path) -> bytes:
    """Return the certificate in a PEM file, as DER, after checking that it is valid today.

    Raises
    ------
    ConfigurationError
        If there is no such file, it holds no certificate, or one that is not valid now.
    """
    from cryptography import x509

    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"certificate {path} cannot be read: {error.strerror}") from None
    try:
        certificate = x509.load_pem_x509_certificate(text)
        der = ssl.PEM_cert_to_DER_cert(text.decode("ascii", "replace").strip() + "\n")
    except ValueError:
        raise ConfigurationError(f"{path} holds no PEM certificate") from None
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ConfigurationError(
            f"the certificate in {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d}"
            f" to {certificate.not_valid_after_utc:%Y-%m-%d}, not today; make a new one"
        )
    return der


def _context(
    protocol: int, certificate: Path, key: Path, known: Mapping[str, bytes]
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # The certificates themselves are what is trusted, whoever signed them.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"key {key} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigurationError(
            f"key {key} must be readable by its owner alone, got mode {mode & 0o777:o};"
            f" run: chmod 600 {key}"
        )
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            f"key {key} and certificate {certificate} do not belong together"
        ) from None
    for der in known.values():
        context.load_verify_locations(cadata=der)
    return context


def client_context(certificate: Path, key: Path, known: Mapping[str, bytes]) -> ssl.SSLContext:
    """Return what to connect with; `known` are the certificates accepted, by name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, known)


def server_context(certificate: Path, key: Path, known: Mapping[str, bytes]) -> ssl.SSLContext:
    """Return what to listen with; `known` are the certificates accepted, by name."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, known)
    context.num_tickets = 0
    return context
