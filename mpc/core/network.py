"""What the parties know of the network between them, for choices that all of them make alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mpc.core.errors import ArgumentError

__all__ = ["MEASURED", "Network"]

MEASURED: Literal["measured"] = "measured"
"""Stands for a network that the first party is to measure, in a configuration."""


@dataclass(frozen=True)
class Network:
    """Round trip and bandwidth between the parties, as all of them state it.

    Attributes
    ----------
    round_trip : float
        Seconds from a message to its answer.
    megabits : float
        Million bits a second that a party can receive.

    Raises
    ------
    ArgumentError
        If one is not a positive number.

    Examples
    --------
    >>> import mpc
    >>> with mpc.Session(network=mpc.Network(round_trip=0.02, megabits=1000)) as s:
    ...     plan = s.plan(lambda p: p.share(None, owner="bob", shape=(10,)).relu().reveal())
    >>> plan.cost.rounds
    3
    """

    round_trip: float
    megabits: float

    def __post_init__(self) -> None:
        for name, value in (("round_trip", self.round_trip), ("megabits", self.megabits)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < 1e9:
                raise ArgumentError(f"{name} must be a positive number below 10^9, got {value!r}")

    def __str__(self) -> str:
        return f"{float(self.round_trip)!r} s, {float(self.megabits)!r} Mbit/s"

    def seconds(self, count: int) -> float:
        """Return how long so many bytes take."""
        return 8 * count / (self.megabits * 1e6)
