"""What a client's request has cost, and what of it each party has seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Exchange", "Seen"]

Words = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Seen:
    """One party's side of a request.

    Attributes
    ----------
    party : str
    seed : bool
        Whether it got a seed, which it expands to its share, or the share itself.
    sent, received : int
        Bytes, as the client counts them.
    first_row : uint64 array of shape (features,)
        Its share of the first row.
    """

    party: str
    seed: bool
    sent: int
    received: int
    first_row: Words = field(repr=False)


@dataclass(frozen=True, eq=False)
class Exchange:
    """What one call of a client's has sent and received.

    Attributes
    ----------
    ids : tuple of bytes
        Of its requests: a call of many rows is several.
    rows : int
    parties : tuple of Seen
    """

    ids: tuple[bytes, ...]
    rows: int
    parties: tuple[Seen, ...]

    def __add__(self, other: Exchange) -> Exchange:
        """Join what two requests of one call have sent; the first row is the first one's."""
        return Exchange(
            self.ids + other.ids,
            self.rows + other.rows,
            tuple(
                Seen(a.party, a.seed, a.sent + b.sent, a.received + b.received, a.first_row)
                for a, b in zip(self.parties, other.parties, strict=True)
            ),
        )
