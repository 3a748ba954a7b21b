"""Network addresses: parsing, formatting, and sockets that listen at them."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from mpc.core.errors import ConfigurationError, TemporaryError

__all__ = ["EVERYWHERE", "bind", "parse", "show"]

# Hosts that stand for all of a machine's addresses when one listens; nobody can connect to them.
EVERYWHERE = ("0.0.0.0", "::")
_LABEL = re.compile(r"[\w]([\w-]{0,61}[\w])?")


def _host_problem(host: str, bracketed: bool) -> str:
    """Return what is wrong with a host, or an empty string."""
    with suppress(ValueError):
        if isinstance(ip_address(host), IPv6Address) != bracketed:
            return "an IPv6 address, and nothing else, stands in brackets"
        return ""
    if "//" in host or "/" in host:
        return "it is no URL: leave out what stands before the host"
    if bracketed:
        return f"{host} is no IPv6 address"
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return f"{host!r} is no name of a host"
    if labels[-1].isdecimal():
        return f"{host} is no IPv4 address"
    return ""


def parse(text: str, what: str = "address", *, any_port: bool = False) -> tuple[str, int]:
    """Return the host and the port of "host:port"; an IPv6 host stands in brackets.

    With `any_port`, the port may be 0, for one that is free.

    Raises
    ------
    ConfigurationError
        The message begins with `what`.
    """
    host, _, port = text.rpartition(":")
    number = int(port) if re.fullmatch("[0-9]{1,5}", port) else -1
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    problem = "" if host and (0 if any_port else 1) <= number < 65536 else " "
    if "//" in text or (host and not problem):
        problem = _host_problem(host, bracketed)
    if problem:
        why = f" ({problem})" if problem.strip() else ""
        raise ConfigurationError(
            f'{what} must be "host:port" with a port below 65536, got {text!r}{why}'
        )
    return host, number


def show(address: tuple[str, int]) -> str:
    """Return an address as :func:`parse` reads it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(address: tuple[str, int]) -> socket.socket:
    """Return a socket that listens at `address`; at "::" for IPv4 and IPv6 alike.

    Raises
    ------
    TemporaryError
        If this machine has no such address, or another process listens there already.
    ConfigurationError
        If this user may not listen there.
    """
    host, port = address
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        return socket.create_server(place, family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        # Taken, or not there yet while a machine starts: that may pass. A lack of permission does not.
        forbidden = isinstance(error, PermissionError)
        kind = ConfigurationError if forbidden else TemporaryError
        raise kind(f"cannot listen at {show(address)}: {error.strerror}") from None
