"""The two interfaces behind a session: its transport, and its source of correlated randomness.

A session holds one of each. Protocols are the same whichever implementation that is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, Opening
from mpc.core.cost import Ledger
from mpc.core.errors import SessionError

__all__ = ["CorrelationSource", "Transport"]

Words = NDArray[np.uint64]


class Transport(ABC):
    """Delivers what the computing parties send to one another."""

    @abstractmethod
    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Deliver messages in one round, and combine the parties' shares of each.

        Parameters
        ----------
        messages : sequence of (words, opening)
            For "sum" and "xor" the shares of the parties that live here, of shape (p, ...). For a
            party's number the words that it alone sends: (1, ...) where it lives, else (0, ...).

        Returns
        -------
        list of uint64 arrays
            The opened values, one copy for all parties that live here: (1, ...), or (0, ...) in a
            plan.
        """

    @abstractmethod
    def open_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Open one array to one party. Returns (1, ...) where that party lives, else (0, ...)."""

    def tell(self, words: Sequence[Words]) -> list[Words]:
        """Broadcast public words: every party gets those of all parties, in their order.

        Parameters
        ----------
        words : sequence of arrays
            One for each party: (1, ...) where it lives, else (0, ...).
        """
        return self.open([(each, party) for party, each in enumerate(words)])

    def reveal_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Open one array to the process of one party, as a result; returns as :meth:`open_to`.

        Among watched parties :meth:`open_to` is for the party's role, which has two holders.
        """
        return self.open_to(party, shares, opening)

    def give(self, owner: int, words: Words) -> Words:
        """Deliver what one party says freely: (1, ...) where it lives, else (0, ...). Returns (1, ...)."""
        return self.open([(words, owner)])[0]

    def check(self) -> None:
        """Among watched parties, raise AbortError if one has deviated: see mpc.core.watching."""
        raise SessionError("a transport of semi-honest parties has nothing to check")

    @abstractmethod
    def close(self, problem: str | None) -> None:
        """End the connections, if any; send the other parties `problem`, or None for a regular end."""

    @property
    @abstractmethod
    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Bytes sent and received, headers included."""

    @abstractmethod
    def note(self, *step: object) -> None:
        """Enter a step into the checksum by which parties in different processes compare programs."""


class CorrelationSource(ABC):
    """Where a session's correlated randomness comes from.

    Attributes
    ----------
    takes_terms : bool
        Whether the source can subtract a product's cross term from the mask of a truncation
        (:mod:`mpc.protocols.truncation`), so that products put dealing it off. If not, every product
        has its cross term dealt at once. Must be the same at all parties.
    works_ahead : bool
        Whether the source can deal ahead of need, if `announce` says what a program will ask for.
    own_shares : bool
        Whether protocols take the way of two parties without a provider, who make what they need with
        each other (:mod:`mpc.two_party`). Must be the same at all parties.
    """

    takes_terms: bool = True
    works_ahead: bool = False
    own_shares: bool = False

    @property
    def name(self) -> str:
        """The name of the source in errors."""
        return type(self).__name__

    @abstractmethod
    def makes(self, kind: type[Correlation]) -> bool:
        """Whether the source can make correlations of a class. Must be the same at all parties."""

    @abstractmethod
    def masks(self, id: int, correlation: Correlation) -> Words:
        """Return the shares of a correlation's masks of the parties that live here, without waiting.

        What another process is needed for is asked of it now.

        Parameters
        ----------
        id : int
            Where in the streams its masks are; no id is used twice.
        correlation : Correlation

        Returns
        -------
        uint64 array of shape (p, mask words)

        Raises
        ------
        PeerError
            If another process is lost.
        """

    @abstractmethod
    def corrected(self, id: int, correlation: Correlation) -> Words:
        """Return the shares of its corrected parts, once for every id, after :meth:`masks`.

        Returns
        -------
        uint64 array of shape (p, corrected words)

        Raises
        ------
        PeerError
            If another process is needed for it and is lost.
        """

    @abstractmethod
    def book(self, correlation: Correlation, ledger: Ledger) -> None:
        """Book what a correlation costs; runs and plans call this alike."""

    def value(self, correlation: Correlation) -> Words:
        """Return the value of the only corrected part, in the clear.

        For checks of ranges alone, see :mod:`mpc.core.ranges`, and only where all parties live here.
        """
        raise SessionError(
            "the value of a correlation is known only where all parties live in this process"
        )

    # Ahead of need.

    def bundle(self, asked: Sequence[tuple[int, Correlation]], base: int, last: int) -> Any:
        """Pack the correlations that a program asks for, in the form that `announce` takes.

        A bundle is independent of the base: it may be announced again whenever the program runs again.

        Parameters
        ----------
        asked : sequence of (int, Correlation)
        base, last : int
            The program uses the ids from base + 1 to `last`.
        """
        return tuple(asked)

    def announce(self, base: int, bundle: Any) -> None:  # noqa: B027 - it need not
        """Begin to deal a bundle for a program whose ids begin at base + 1; returns at once."""

    def repeats(self, bundle: Any) -> int:
        """Return how often to ask at a time for what a program needs that runs again and again.

        0 if it is asked for when it runs. Must be the same at all parties.
        """
        return 0

    def announce_repeats(self, base: int, bundle: Any, times: int, ids: int) -> None:  # noqa: B027
        """Begin to deal a bundle `times` over, for ids from base + 1, base + ids + 1, ... on.

        It is kept until :meth:`begin_repeat` or :meth:`drop_repeat` is called for each base.
        """

    def begin_repeat(self, base: int, bundle: Any) -> None:  # noqa: B027 - there may be none
        """Note that the program runs now for which a bundle was announced ahead, at a base."""

    def drop_repeat(self, base: int, bundle: Any) -> None:  # noqa: B027 - there may be none
        """Drop what was announced ahead and no program will use."""

    def book_bundle(self, bundle: Any, ledger: Ledger) -> None:  # noqa: B027 - it may be free
        """Book, in a plan, the bytes of the requests for a bundle."""

    # The end.

    def leaves(self) -> bool:
        """Whether another process that the source needs has announced its stop (for services).

        Raises
        ------
        PeerError
            If that process is lost.
        """
        return False

    def close(self) -> None:  # noqa: B027 - it may have none
        """Drop all keys."""
