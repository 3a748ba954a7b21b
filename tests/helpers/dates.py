"""Certificates of another time."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key


def redate(certificate, key, begin, end):
    """Write a certificate of the same key anew, valid from and to so many days from now."""
    secret = load_pem_private_key(key.read_bytes(), None)
    old = x509.load_pem_x509_certificate(certificate.read_bytes())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number,
        now + timedelta(days=begin), now + timedelta(days=end), list(old.extensions),
    )  # fmt: skip
    certificate.write_bytes(builder.sign(secret, hashes.SHA256()).public_bytes(Encoding.PEM))
