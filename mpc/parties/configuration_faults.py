"""Checks of a configuration beyond its syntax: keys, dates, fingerprints, addresses."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from mpc.core.errors import ConfigurationError
from mpc.parties.configuration import Configuration, Member
from mpc.parties.tls import own_contexts
from mpc.transport import addresses

__all__ = ["faults", "notes"]


def faults(
    read: Configuration, me: str | None = None, told: Mapping[str, str] | None = None
) -> list[str]:
    """Return the faults that keep this configuration from working, a text for each.

    Parameters
    ----------
    read : Configuration
    me : str, optional
        The member of this machine: its key is checked, and that it can listen here.
    told : dict of str to str, optional
        Fingerprints by name, as their owners have told them, to be compared.
    """
    found: list[str] = []
    if me is not None:
        try:
            own_contexts(read, me)
        except ConfigurationError as error:
            found.append(str(error))
    found += [
        text
        for name, fingerprint in (told or {}).items()
        if (text := _other_fingerprint(read.members[name], fingerprint))
    ]
    listening = read.services
    # Not of clients: an expired certificate keeps only its owner from working.
    found += [
        f"{member.name}'s certificate {member.certificates[-1].problem}"
        for member in listening
        if member.name != me and all(each.problem for each in member.certificates)
    ]
    with ThreadPoolExecutor(len(listening)) as pool:
        found += filter(None, pool.map(_not_found, listening))
    own = read.members.get(me or "")
    if own is not None and own.listen is not None and (text := _cannot_listen(own)):
        found.append(text)
    return found


def notes(read: Configuration) -> list[str]:
    """Return notes on what may be intended but is worth a look, a text for each."""
    found = list(read.warnings().values())
    listening = read.services
    here = [member.name for member in listening if _is_loopback(member)]
    if here and len(here) < len(listening):
        found.append(
            f"{', '.join(here)}: an address that only this machine itself can reach, while others"
            " are elsewhere"
        )
    return found


def _other_fingerprint(member: Member, fingerprint: str) -> str:
    if any(certificate.fits(fingerprint) for certificate in member.certificates):
        return ""
    has = " and ".join(certificate.fingerprint for certificate in member.certificates)
    return (
        f"{member.name}'s certificate has the fingerprint {has}, not {fingerprint}: it is not the"
        f" one that {member.name} has made"
    )


def _not_found(member: Member) -> str:
    assert member.address is not None
    try:
        socket.getaddrinfo(*member.address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no name of a host"
        return f"{member.place} cannot be found from here: {why}"
    return ""


def _cannot_listen(member: Member) -> str:
    """Try the host with any port: at its own the service may be running."""
    assert member.listen is not None
    host, _ = member.listen
    try:
        addresses.bind((host, 0)).close()
    except ConfigurationError:
        return (
            f"{member.name} cannot listen at {host}, which is no address of this machine: listen ="
            ' "[::]:PORT" listens at all that it has'
        )
    return ""


def _is_loopback(member: Member) -> bool:
    assert member.address is not None
    host = member.address[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
