"""Keys and certificates: making, reading, and pinning them to names.

Every process has a self-signed certificate of its own; the configuration lists the certificates of each
name. A connection is accepted if the other side proves to hold the key of one of exactly these
certificates. There is no certificate authority that could vouch for another one.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from mpc.core.errors import ConfigurationError, TemporaryError

__all__ = [
    "DAYS",
    "Certificate",
    "client_context",
    "load_certificate",
    "make_certificate",
    "presented",
    "server_context",
    "write_new",
]

# How long a certificate is valid unless its owner says otherwise.
DAYS = 365
# Warn of a certificate when fewer days are left.
_WARN_DAYS = 30
# Certificates are valid from a day ago on, for machines whose clocks are behind.
_AHEAD = timedelta(days=1)
# The URI scheme by which a certificate states its owner's address.
_SCHEME = "sotto://"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Certificate:
    """A certificate as read from a file; it may have expired.

    Attributes
    ----------
    path : Path
    der : bytes
    name : str
        The common name. The name that counts is the one that the configuration lists it under.
    begin, end : datetime
        The period of validity.
    address : str
        The owner's address, "host:port", if the certificate states one; else empty.
    """

    path: Path
    der: bytes = field(repr=False)
    name: str
    begin: datetime
    end: datetime
    address: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, written as ``openssl x509 -fingerprint -sha256`` does."""
        return hashlib.sha256(self.der).digest().hex(":").upper()

    def fits(self, fingerprint: str) -> bool:
        """Whether `fingerprint` is the certificate's, whatever its spacing, colons and case."""
        return re.sub(r"[\s:]", "", fingerprint).upper() == self.fingerprint.replace(":", "")

    @property
    def days_left(self) -> float:
        """Days until it expires; negative afterwards."""
        return (self.end - datetime.now(UTC)) / timedelta(days=1)

    @property
    def validity(self) -> str:
        """The period of validity, as text."""
        return f"{_clock(self.begin)} to {_clock(self.end)}"

    @property
    def problem(self) -> str:
        """Why the certificate is not valid now; empty if it is."""
        now = datetime.now(UTC)
        here = f"by this machine's clock it is {_clock(now)}"
        if now < self.begin:
            return (
                f"{self.path} is valid from {_clock(self.begin)} on, and {here}: wait, or set the"
                " clock that is wrong"
            )
        if now > self.end:
            return (
                f"{self.path} expired at {_clock(self.end)}, and {here}: its owner makes a"
                " successor with sotto key"
            )
        return ""

    @property
    def warning(self) -> str:
        """`problem`, or that the certificate expires within 30 days; empty otherwise."""
        if self.problem or self.days_left > _WARN_DAYS:
            return self.problem
        return (
            f"{self.path} expires in {int(self.days_left)} days, at {_clock(self.end)}: its owner"
            " makes a successor with sotto key"
        )


def write_new(files: Iterable[tuple[Path, bytes, int]]) -> None:
    """Write new files, all of them or none; the umask applies to their modes.

    Raises
    ------
    ConfigurationError
        If a file exists already or cannot be written.
    """
    with ExitStack() as undo:
        for path, data, mode in files:
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                undo.callback(path.unlink, missing_ok=True)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                raise ConfigurationError(f"{path} exists already and is not overwritten") from None
            except OSError as error:
                raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
        undo.pop_all()


def make_certificate(
    name: str, certificate: Path, key: Path, *, days: int = DAYS, address: str = ""
) -> Certificate:
    """Draw a new key for `name` and write it, mode 600, with its certificate: both or neither.

    Parameters
    ----------
    name : str
    certificate, key : Path
        New files.
    days : int, default=365
        How long the certificate is valid, from now on.
    address : str, optional
        The owner's address, "host:port", to be stated in the certificate.

    Raises
    ------
    ConfigurationError
        If a file exists already or cannot be written.
    """
    # Imported here: only those who make certificates need it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _AHEAD)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if address:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_SCHEME + address)])
        builder = builder.add_extension(names, critical=False)
    made = builder.sign(secret, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret_text = secret.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_new([(key, secret_text, 0o600), (certificate, made.public_bytes(pem), 0o644)])
    return load_certificate(certificate)


def load_certificate(path: Path) -> Certificate:
    """Return the certificate in a PEM file, whether it is valid now or not.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, does not hold exactly one certificate, or holds a private key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"certificate {path} cannot be read: {error.strerror}") from None
    if b"PRIVATE KEY-----" in text:
        raise ConfigurationError(
            f"{path} holds a private key, which is for its owner alone, where a certificate (.crt)"
            " belongs"
        )
    try:
        found = x509.load_pem_x509_certificates(text)
    except ValueError:
        raise ConfigurationError(f"{path} holds no PEM certificate") from None
    if len(found) != 1:
        raise ConfigurationError(f"{path} must hold one certificate, got {len(found)}")
    (read,) = found
    names: Sequence[Any] = read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        path,
        read.public_bytes(Encoding.DER),
        str(names[0].value) if names else "",
        read.not_valid_before_utc,
        read.not_valid_after_utc,
        _address(read),
    )


def _address(certificate: Any) -> str:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        stated = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        return ""
    return next((text.removeprefix(_SCHEME) for text in stated if text.startswith(_SCHEME)), "")


def presented(certificates: Sequence[Certificate], key: Path) -> Certificate:
    """Return the certificate to which a private key belongs: the one that its owner presents.

    Raises
    ------
    ConfigurationError
        If the key cannot be used, or belongs to none of the certificates.
    """
    try:
        mode = key.stat().st_mode
        with key.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"key {key} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigurationError(
            f"key {key} must be readable by its owner alone, got mode {mode & 0o777:o};"
            f" run: chmod 600 {key}"
        )

    def encrypted() -> NoReturn:
        raise ConfigurationError(
            f"key {key} is encrypted with a passphrase, which nobody is there to type when a service"
            f" starts; write it without one: (umask 077; openssl pkey -in {key} -out NEW.key)"
        )

    for certificate in certificates:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                certificate.path, key, password=encrypted
            )
        except (OSError, ssl.SSLError):
            continue
        return certificate
    paths = " or ".join(str(certificate.path) for certificate in certificates)
    raise ConfigurationError(f"key {key} and certificate {paths} do not belong together")


def _context(
    protocol: int,
    certificates: Sequence[Certificate],
    key: Path,
    known: Mapping[str, Sequence[bytes]],
) -> ssl.SSLContext:
    own = presented(certificates, key)
    if own.problem:
        # A certificate that is not valid yet becomes valid by itself, or when the clock is set.
        early = own.begin > datetime.now(UTC)
        raise (TemporaryError if early else ConfigurationError)(f"certificate {own.problem}")
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # Each listed certificate is trusted by itself, whoever signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(own.path, key)
    # Validity is checked at every connection.
    for accepted in known.values():
        for der in accepted:
            context.load_verify_locations(cadata=der)
    return context


def client_context(
    certificates: Sequence[Certificate], key: Path, known: Mapping[str, Sequence[bytes]]
) -> ssl.SSLContext:
    """Return the TLS context to connect with.

    Parameters
    ----------
    certificates : sequence of Certificate
        This process's own; the one to which `key` belongs is presented.
    key : Path
    known : dict of str to sequence of bytes
        The accepted certificates in DER, by name.

    Raises
    ------
    ConfigurationError
        If the key cannot be used, or its certificate is not valid now.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificates, key, known)


def server_context(
    certificates: Sequence[Certificate], key: Path, known: Mapping[str, Sequence[bytes]]
) -> ssl.SSLContext:
    """Return the TLS context to listen with; parameters as of :func:`client_context`."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificates, key, known)
    context.num_tickets = 0
    return context
