"""What a protocol of two parties takes of them: transfers, rounds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost"]


@dataclass(frozen=True)
class Cost:
    """What a protocol takes of two parties.

    Attributes
    ----------
    transfers : tuple of int
        Random transfers in which the first party sends, and in which the second does.
    offline : tuple of int
        Bytes each party sends ahead, beside those of the transfers.
    rounds : int
        Rounds online.
    sent : tuple of int
        Bytes each party sends online.
    """

    transfers: tuple[int, int] = (0, 0)
    offline: tuple[int, int] = (0, 0)
    rounds: int = 0
    sent: tuple[int, int] = (0, 0)

    def __add__(self, other: Cost) -> Cost:
        def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
            return a[0] + b[0], a[1] + b[1]

        return Cost(
            add(self.transfers, other.transfers),
            add(self.offline, other.offline),
            self.rounds + other.rounds,
            add(self.sent, other.sent),
        )
