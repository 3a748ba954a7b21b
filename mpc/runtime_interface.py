"""What values and protocols need of a session, so that they stand below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Correlation, Opening
from mpc.keys import PartyStreams
from mpc.ranges import RangePolicy
from ring import FixedPoint

__all__ = ["Runtime"]

Words = NDArray[np.uint64]


class Runtime(Protocol):
    """The parties that live here, rounds, and correlated randomness: :class:`mpc.Session` has them.

    Attributes
    ----------
    parties : tuple of str
    here : tuple of int
        The numbers of the parties that live in this process, in the order of the party axis.
    first_row : int, optional
        The row of the party axis that adds public values: the first party's; None if it is elsewhere.
    format : FixedPoint
    memory_limit : int
        Bytes that a batch may take.
    range_policy : RangePolicy
    streams : PartyStreams by the party's number, for those who live here
    """

    parties: tuple[str, ...]
    here: tuple[int, ...]
    first_row: int | None
    format: FixedPoint
    memory_limit: int
    range_policy: RangePolicy

    @property
    def streams(self) -> Sequence[PartyStreams] | Mapping[int, PartyStreams]: ...

    @property
    def size(self) -> int:
        """How many computing parties there are."""

    def number(self, party: str, name: str = "party") -> int:
        """Return the number of a party, or raise PartyError."""

    def check_open(self) -> None:
        """Raise SessionError if the session cannot be used, or not from here."""

    def fresh_id(self) -> int:
        """Return the next id."""

    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which parties notice that their programs differ."""

    def open(self, *messages: tuple[Words, Opening]) -> list[Words]:
        """Open several arrays in one round."""

    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party."""

    def correlated(self, correlation: Correlation) -> tuple[int, Words]:
        """Get the id of a correlation and this process's shares of it."""

    def protocol(self, name: str) -> AbstractContextManager[None]:
        """Book what is spent inside the ``with`` block under the protocol `name`."""
