"""The record of a client's call: bytes, and what each party has received."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Exchange", "Seen"]

Words = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Seen:
    """One party's side of a call.

    Attributes
    ----------
    party : str
    seed : bool
        Whether the party received a seed, which it expands to its share, or the share itself.
    sent, received : int
        Bytes that the client has sent to the party, and received from it.
    first_row : uint64 array of shape (features,)
        The party's share of the first row.
    """

    party: str
    seed: bool
    sent: int
    received: int
    first_row: Words = field(repr=False)


@dataclass(frozen=True, eq=False)
class Exchange:
    """The record of one call of a client with rows.

    Attributes
    ----------
    ids : tuple of bytes
        Ids of the call's requests: many rows are sent in several.
    rows : int
        Number of rows.
    parties : tuple of Seen
    """

    ids: tuple[bytes, ...]
    rows: int
    parties: tuple[Seen, ...]

    def __add__(self, other: Exchange) -> Exchange:
        """Return the record of two requests of one call; `first_row` is that of the first."""
        return Exchange(
            self.ids + other.ids,
            self.rows + other.rows,
            tuple(
                Seen(a.party, a.seed, a.sent + b.sent, a.received + b.received, a.first_row)
                for a, b in zip(self.parties, other.parties, strict=True)
            ),
        )
