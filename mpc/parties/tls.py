"""Connecting to members over TLS 1.3, with certificates pinned to names."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable

from mpc.core.errors import (
    CertificateError,
    ConfigurationError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
)
from mpc.parties.configuration import Configuration, Member
from mpc.transport.certificates import client_context, server_context
from mpc.transport.connection import Connection
from mpc.transport.tls_session import Tls

__all__ = ["connect", "own_contexts"]

_RETRY_SECONDS = 0.05
# How long one attempt may take: for the TCP connection, and for the TLS handshake.
_TRY_SECONDS = 3.0
_TLS_SECONDS = 10.0
# OpenSSL's numbers for a certificate that is not valid yet, and for one that has expired.
_NOT_NOW = (9, 10)


def own_contexts(configuration: Configuration, me: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts with which member `me` connects, and listens.

    Raises
    ------
    ConfigurationError
        If `me` is not in the configuration, or its key is not on this machine.
    """
    members = configuration.members
    if me not in members:
        raise ConfigurationError(f"me must be one of {', '.join(members)}, got {me!r}")
    member = members[me]
    if member.key is None:
        raise ConfigurationError(f"{configuration.path}: {me} needs key = ... on its own machine")
    # Its own certificate, too: `sotto health` on its own machine presents it to its service.
    known = configuration.certificates()
    return (
        client_context(member.certificates, member.key, known),
        server_context(member.certificates, member.key, known),
    )


def connect(
    member: Member,
    context: ssl.SSLContext,
    timeout: float,
    look: Callable[[], None] | None = None,
) -> Connection:
    """Connect to a party or the provider, waiting until it listens.

    It tries again while the host name does not resolve, while nobody listens at the address, and when
    a connection is lost before the TLS handshake is done.

    Parameters
    ----------
    member : Member
    context : ssl.SSLContext
    timeout : float
        Seconds; may be infinite.
    look : callable, optional
        Called between attempts; may raise to give up.

    Raises
    ------
    PeerTimeoutError
        If nobody listens there within `timeout` seconds.
    PeerClosedError
        If the host name is not found, or the process that listens does not talk TLS 1.3.
    CertificateError
        If the process that listens has another certificate, or one that is not valid now.
    """
    assert member.address is not None
    place = member.place
    deadline = time.monotonic() + timeout
    problem: PeerError = PeerTimeoutError(
        f"{place} did not accept a connection within {timeout:g} s"
    )
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise problem
        plain = None
        try:
            plain = socket.create_connection(member.address, timeout=min(left, _TRY_SECONDS))
            tls = Tls(plain, context, server=False)
            tls.handshake(time.monotonic() + min(left, _TLS_SECONDS))
        except socket.gaierror as error:
            problem = PeerClosedError(f"{place} cannot be found: {error.strerror}")
        except TimeoutError:
            if plain is not None:
                problem = PeerTimeoutError(f"{place} did not finish TLS within {timeout:g} s")
        except (ssl.SSLError, ValueError) as error:
            assert plain is not None
            plain.close()
            refused = _refused(place, error)
            if not isinstance(error, ssl.SSLEOFError):
                raise refused from None
            problem = refused
        except OSError as error:
            if plain is not None:
                problem = _refused(place, error)
        else:
            if tls.certificate() in member.accepted:
                return Connection(tls, member.name)
            plain.close()
            raise CertificateError(
                f"{place} has another certificate than the one that is pinned to it"
            )
        if plain is not None:
            plain.close()
        if look is not None:
            look()
        time.sleep(max(0.0, min(_RETRY_SECONDS, deadline - time.monotonic())))


def _refused(place: str, error: Exception) -> PeerError:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NOT_NOW:
            return CertificateError(
                f"{place} has a certificate that is not valid now ({error.verify_message}):"
                " sotto check says more"
            )
        return CertificateError(
            f"{place} has another certificate than the one that is pinned to it"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return PeerClosedError(f"{place} does not talk TLS 1.3 ({(error.reason or '?').lower()})")
    return PeerClosedError(f"{place} closed the connection during TLS")
