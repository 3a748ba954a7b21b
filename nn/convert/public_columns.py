"""What a conversion asks the rows' owner to compute in the clear."""

from __future__ import annotations

from collections.abc import Sequence

from nn.models.preprocessing import Rule

__all__ = ["Columns"]


class Columns:
    """The rules that a conversion asks for; the first ones are the columns themselves.

    Parameters
    ----------
    count : int
        Columns of the rows.
    allowed : bool
        Whether there may be others than the columns themselves.
    """

    def __init__(self, count: int, allowed: bool) -> None:
        self.count, self.allowed = count, allowed
        self.rules: list[Rule] = [("number", k, None) for k in range(count)]

    def add(self, rules: Sequence[Rule]) -> list[int]:
        """Return the places of rules, new or known."""
        places = []
        for rule in rules:
            if rule not in self.rules:
                self.rules.append(rule)
            places.append(self.rules.index(rule))
        return places
