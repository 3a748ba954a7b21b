"""Health checks: asking the provider, its auditor and every party service for their state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mpc.core import wire
from mpc.core.errors import ArgumentError, FrameError, PeerError, ShapeError
from mpc.core.frames import Kind
from mpc.parties.configuration import Configuration, Member
from mpc.parties.handshake import HEALTH, read_hello, send_hello
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import Connection, exchange, printable

__all__ = ["Health", "as_json", "ask", "table"]

_LARGEST_ANSWER = 1 << 16


@dataclass(frozen=True)
class Health:
    """The state of a service.

    Attributes
    ----------
    role, name : str
    told : dict of str to int, str or tuple of str
        The service's answer; empty if it was not asked or did not answer. `told` is its name in the
        JSON of `sotto health`.
    problem : str
        Why the service did not answer; empty if it did or was not asked.
    live : bool
        Whether the service runs: it has proved its identity. A service that waits for others is live,
        and not ready.
    """

    role: str
    name: str
    told: dict[str, Any]
    problem: str = ""
    live: bool = True

    @property
    def ready(self) -> bool:
        """Whether the service accepts requests."""
        return bool(self.told) and self.told.get("state", "ready") == "ready"

    @property
    def trouble(self) -> str:
        """Why the service does not accept requests; empty if it does."""
        return self.problem or ("" if self.ready else str(self.told.get("state", "")))


def ask(
    read: Configuration, me: str, timeout: float = 5.0, *, of: str | None = None
) -> list[Health]:
    """Ask all services at once.

    Parameters
    ----------
    read : Configuration
    me : str
        The member that asks; its key must be on this machine. The provider and its auditor answer no
        clients, so a client does not ask them.
    timeout : float, default=5
        Seconds.
    of : str, optional
        Which service to ask; default all.

    Returns
    -------
    list of Health
        The provider's first, then its auditor's.

    Raises
    ------
    ConfigurationError
        If `me` is not in the configuration, or its key is not on this machine.
    """
    context, _ = own_contexts(read, me)
    helpers = [member for member in (read.provider, read.auditor) if member is not None]

    def one(member: Member) -> Health:
        role = member.name if member in helpers else "party"
        if role != "party" and me in read.clients:
            return Health(role, member.name, {}, live=False)
        deadline = time.monotonic() + timeout
        try:
            connection = connect(member, context, timeout)
        except PeerError as error:
            return Health(role, member.name, {}, str(error), live=False)
        try:
            return Health(role, member.name, _ask(connection, deadline))
        except PeerError as error:
            return Health(role, member.name, {}, str(error))

    members = sorted(read.services, key=lambda member: member not in helpers)
    if of is not None:
        names = ", ".join(member.name for member in members)
        members = [member for member in members if member.name == of]
        if not members:
            raise ArgumentError(f"--of must be one of {names}, got {of!r}")
    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, members))


def _ask(connection: Connection, deadline: float) -> dict[str, Any]:
    def left() -> float:
        return max(0.01, deadline - time.monotonic())

    try:
        send_hello(connection, HEALTH, {}, b"")
        read_hello(connection, left())
        connection.expect_bytes([Kind.ANSWER], _LARGEST_ANSWER)
        exchange([connection], left())
        return _read(connection)
    finally:
        connection.close()


def _read(connection: Connection) -> dict[str, Any]:
    try:
        told = dict(wire.decode(connection.take().data.data))
        if type(told["seconds"]) is not int or not all(type(name) is str for name in told):
            raise TypeError
    except (ShapeError, TypeError, ValueError, KeyError):
        raise FrameError(f"{connection.peer} sent an answer that is malformed") from None
    return told


def as_json(found: Sequence[Health]) -> dict[str, Any]:
    """Return the object that `sotto health --json` prints; live and ready are null if not asked."""
    services = []
    for each in found:
        asked = bool(each.told or each.problem)
        services.append(
            {
                "role": each.role,
                "name": each.name,
                "live": each.live if asked else None,
                "ready": each.ready if asked else None,
                "problem": each.problem,
                "told": {n: v for n, v in each.told.items() if n not in ("role", "me")},
            }
        )
    return {
        "live": all(service["live"] is not False for service in services),
        "ready": all(service["ready"] is not False for service in services),
        "services": services,
    }


def table(found: Sequence[Health]) -> list[str]:
    """Return a table as lines: a head, and a line for each service."""
    cells = [("role", "name", "seconds up", "says")]
    for each in found:
        rest = {n: v for n, v in each.told.items() if n not in ("role", "me", "seconds")}
        says = ", ".join(f"{name} {_show(value)}" for name, value in rest.items())
        if not each.told:
            says = each.problem or f"not asked: the {each.role} answers no clients"
        cells.append((each.role, each.name, str(each.told.get("seconds", "-")), says))
    width = [max(len(row[k]) for row in cells) for k in range(3)]
    return [
        f"{role:{width[0]}}  {name:{width[1]}}  {seconds:>{width[2]}}  {says}"
        for role, name, seconds, says in cells
    ]


def _show(value: Any) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    return printable(" ".join(str(part) for part in parts).encode())
