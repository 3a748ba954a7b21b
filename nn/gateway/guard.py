"""The check of a request's origin: scripts of other sites must not use the gateway.

A browser on this machine reaches the gateway even if no other machine does, and runs scripts of every
site that is open in it. A request of such a script shows the site's name: in Host, if the site's name
was made to resolve to this address (DNS rebinding), otherwise in Origin or Sec-Fetch-Site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from nn.gateway.problems import HttpError

__all__ = ["HEADERS", "check_origin", "is_loopback"]

# Headers of every response.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return whether a host is an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(authority: str) -> str:
    """Return the host of ``host:port``."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_origin(headers: Mapping[str, str], listens: str, names: frozenset[str]) -> None:
    """Raise HttpError if a request comes from a page of another site.

    Parameters
    ----------
    headers : mapping of str to str
        Headers of the request, with names in lower case.
    listens : str
        Host of the address at which the gateway listens.
    names : frozenset of str
        Further host names of the gateway, beside its address.
    """
    authority = headers.get("host", "")
    host = _name(authority)
    # A name may be made to resolve to this machine; an address may not.
    known = is_loopback(host) or host in names or host == listens.lower()
    if not known and not (_is_address(host) and not is_loopback(listens)):
        raise HttpError(421, f"the gateway is not called {host[:100]!r}: --name lets it be", "Host")
    origin = headers.get("origin")
    if origin is not None:
        foreign = origin.partition("://")[2].lower() != authority.lower()
    else:
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        )
    if foreign:
        raise HttpError(403, "the gateway answers no page of another site", "Origin")
