"""Whether results stay inside the ring, found out on shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.ranges import Operation

if TYPE_CHECKING:
    from mpc.secret_value import SecretValue

__all__ = ["inside", "within"]


def inside(operation: Operation) -> bool:
    raise NotImplementedError


def within(x: SecretValue, bound: int) -> bool:
    raise NotImplementedError
