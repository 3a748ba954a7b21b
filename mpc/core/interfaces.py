"""What a session is made of and what may be made otherwise: transports and sources of randomness.

A session holds one of each. What it does is the same whichever they are; what differs is said here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, Opening
from mpc.core.cost import Ledger
from mpc.core.errors import SessionError

__all__ = ["CorrelationSource", "Transport"]

Words = NDArray[np.uint64]


class Transport(ABC):
    """How what the parties send each other gets there."""

    @abstractmethod
    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Deliver messages in one round, and combine the parties' shares of each.

        Parameters
        ----------
        messages : sequence of (words, opening)
            For "sum" and "xor" the shares of the parties that live here, of shape (p, ...). For a
            party's number what it alone sends: first axis 1 where it lives, else 0.

        Returns
        -------
        list of uint64 arrays
            The opened values, one copy for all parties that live here: first axis 1, or 0 in a plan.
        """

    @abstractmethod
    def open_to(self, party: int, shares: Words) -> Words:
        """Open one array to one party: first axis 1 where it lives; (0, ...) elsewhere."""

    def tell(self, words: Sequence[Words]) -> list[Words]:
        """Deliver public words of every party, in their order, to all.

        Parameters
        ----------
        words : sequence of arrays
            As in a message of one party.
        """
        return self.open([(each, party) for party, each in enumerate(words)])

    @abstractmethod
    def close(self, problem: str | None) -> None:
        """End: tell whoever is elsewhere that all is done, or what the problem is."""

    @property
    @abstractmethod
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent and received, headers included."""

    def note(self, *step: object) -> None:  # noqa: B027 - it need not
        """Enter a step into what parties compare, if they run apart."""


class CorrelationSource(ABC):
    """Where a session's correlated randomness comes from.

    Attributes
    ----------
    takes_terms : bool
        Whether the mask of a truncation can take in the cross term of a product, so that a product
        leaves it for later (see :mod:`mpc.protocols.truncation`). If not, every product gets its
        term dealt at once. It must be the same at all parties.
    works_ahead : bool
        Whether it is worth telling what a program is going to ask for.
    """

    takes_terms: bool = True
    works_ahead: bool = False

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return type(self).__name__

    def makes(self, kind: type[Correlation]) -> bool:
        """Whether it can make correlations of a class. It must be the same at all parties."""
        return True

    @abstractmethod
    def shares(self, id: int, correlation: Correlation) -> Words:
        """Return the shares of the parties that live here.

        Parameters
        ----------
        id : int
            The correlation's place in the streams; none serves twice.
        correlation : Correlation

        Returns
        -------
        uint64 array of shape (p, mask words + corrected words)

        Raises
        ------
        PeerError
            If it takes somebody who is lost.
        """

    @abstractmethod
    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book what a correlation costs, as a run and as a plan."""

    def value(self, correlation: Correlation) -> Words:
        """Return what the one corrected part is a sharing of.

        For checks of ranges alone, see :mod:`mpc.core.ranges`, and only where all parties live here.
        """
        raise SessionError("only a session whose parties all live in this process can look")

    # Ahead of need.

    def bundle(self, asked: Sequence[tuple[int, Correlation]], base: int, last: int) -> Any:
        """Return what `announce` takes, for a program that asks for these.

        It may be announced many times, at other bases.

        Parameters
        ----------
        asked : sequence of (int, Correlation)
        base, last : int
            The ids that the program begins behind and ends at.
        """
        return tuple(asked)

    def announce(self, base: int, bundle: Any) -> None:  # noqa: B027 - it need not
        """Begin with what a program behind id `base` is going to ask for, without waiting."""

    def book_bundle(self, bundle: Any, ledger: Ledger) -> None:  # noqa: B027 - it may be free
        """Book, in a plan, what it takes to ask for these."""

    # Its end.

    def leaves(self) -> bool:
        """Whether somebody whom it takes has said that he leaves (for services that wait).

        Raises
        ------
        PeerError
            If he is gone.
        """
        return False

    def close(self) -> None:  # noqa: B027 - it may have none
        """Forget all keys."""
