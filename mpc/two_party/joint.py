"""Two parties in a session without a provider: the source that deals nothing, and their channel.

With a pair (`Runtime.pair`) protocols work on the parties' own shares, without one on masks and
correlations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation as Dealt
from mpc.core.cost import Ledger
from mpc.core.errors import ArgumentError, SessionError
from mpc.core.interfaces import CorrelationSource
from mpc.core.runtime import Runtime
from mpc.two_party.cost import Cost
from mpc.two_party.pair import Correlation, Pair

__all__ = [
    "TRANSFERS",
    "OwnShares",
    "begin",
    "begin_plan",
    "check_transfers",
    "fresh_shares",
    "make_ahead",
    "make_at_once",
    "needs_of",
]

Words = NDArray[np.uint64]


TRANSFERS = {"softspoken": None, "ferret": "b11"}
"""How two parties extend their transfers, and with which set of :mod:`mpc.two_party.silent`."""


def check_transfers(transfers: object) -> None:
    """Raise ArgumentError unless two parties can extend their transfers so."""
    if not isinstance(transfers, str) or transfers not in TRANSFERS:
        raise ArgumentError(f"transfers must be one of {', '.join(TRANSFERS)}, got {transfers!r}")


class OwnShares(CorrelationSource):
    """The source of a session without a provider: deals nothing.

    The parties make what they need with each other, see :mod:`mpc.two_party.pair`.

    Parameters
    ----------
    transfers : {"softspoken", "ferret"}
        How they extend their oblivious transfers.
    """

    def __init__(self, transfers: str = "softspoken") -> None:
        check_transfers(transfers)
        self.transfers = transfers

    takes_terms = False
    own_shares = True

    @property
    def name(self) -> str:
        """What the session is called in errors."""
        return "a session without a provider"

    def makes(self, kind: type[Dealt]) -> bool:
        """Nothing is dealt."""
        return False

    def masks(self, id: int, correlation: Dealt) -> Words:
        """Refuse: nothing is dealt."""
        raise SessionError(f"{self.name} has nobody who deals a {type(correlation).__name__}")

    corrected = masks

    def book(self, correlation: Dealt, ledger: Ledger) -> None:
        """Book nothing."""


class _OverSession:
    """The channel of the two parties of a session: each round of it is one of the session."""

    def __init__(self, session: Runtime) -> None:
        self._session = session
        self.parties: tuple[int, ...] = session.here
        first, second = session.parties
        self.names = (first, second)
        # Until the parties are set up, rounds belong to the session's start, as a handshake does.
        self.begun = False

    def swap(
        self, messages: Sequence[Words], counts: tuple[int, int], *, continued: bool = False
    ) -> list[Words]:
        """Send and get one message each, see :class:`mpc.two_party.channel.Channel`."""
        session = self._session
        sent = [np.empty((0, count), np.uint64) for count in counts]
        for party, message in zip(session.here, messages, strict=True):
            sent[party] = message[None]
        told = [party for party in (0, 1) if counts[party]]
        if not told:
            return [np.empty(0, np.uint64) for _ in session.here]
        deliver = session.open_more if continued else session.open
        if not self.begun:
            deliver = session.begin_with
        opened = deliver(*((sent[party], party) for party in told))
        found = dict(zip(told, opened, strict=True))
        nothing = np.empty((1, 0), np.uint64)
        return [found.get(1 - party, nothing)[0] for party in session.here]


def begin(session: Runtime) -> None:
    """Set up the two parties of a session: base transfers, and the trees of their extension."""
    channel, source = _OverSession(session), session.source
    assert isinstance(source, OwnShares)
    session.pair = Pair(channel, silent=TRANSFERS[source.transfers])
    channel.begun = True


def begin_plan(planned: Runtime, session: Runtime, *, ahead: bool = False) -> None:
    """Give a session where no party lives as much as the two parties of `session` have.

    With `ahead` it is to find out what a program takes that can be made ahead.
    """
    if session.pair is None:
        return
    # Inputs that are kept encrypted are known by their ids: what a plan shares is none of them.
    planned.last_id = max(planned.last_id, session.last_id)
    channel = _OverSession(planned)
    planned.pair = session.pair.without_parties(channel, planning=ahead)
    channel.begun = True


def make_ahead(session: Runtime, needs: Iterable[Correlation], times: int = 1) -> None:
    """Make so many times what a program needs, in addition to what there is."""
    pair = session.pair
    with session.protocol("prepared"):
        pair.prepare(replace(need, words=times * need.words) for need in needs)
    pair.prepared.last()


def make_at_once(session: Runtime, needs: Sequence[Correlation]) -> None:
    """Get ready what a program needs that is about to run, as far as it can be and is not.

    Not more transfers than the session has memory for, at about two bytes each; and no masks, whose
    products take no less at once.
    """
    prepared, left = session.pair.prepared, session.memory_limit // 2
    prepared.fetch(needs)
    wanted = []
    for need in prepared.lacking(need for need in needs if not need.whole):
        left -= sum(need.cost.transfers)
        if left < 0:
            break
        wanted.append(need)
    if wanted:
        prepared.say_used_up()
        with session.protocol("prepared"):
            session.pair.prepare(wanted)


def needs_of(planned: Runtime) -> tuple[tuple[int, int], int]:
    """Return how many transfers and how many ring-LWE products a plan's program takes."""
    if planned.pair is None:
        return (0, 0), 0
    total = sum((correlation.cost for correlation in planned.pair.taken), Cost())
    return total.transfers, len(planned.pair.multiplied)


def fresh_shares(session: Runtime, shares: Words) -> Words:
    """Return shares of the same values, (p, size), with z_0 uniform and used for nothing else.

    Rounding by :mod:`mpc.two_party.truncation` is a matter of z_0 alone: it is right on the average only
    for fresh shares. Both parties expand the difference from the key that they share, without a word.
    """
    id = session.fresh_id()
    out = np.empty((len(shares), prod(shares.shape[1:])), np.uint64)
    for row, party in enumerate(session.here):
        session.streams[party].pairs[1 - party].fill(out[row], id)
        if party == 0:
            out[row] += shares[row].reshape(-1)
        else:
            np.subtract(shares[row].reshape(-1), out[row], out=out[row])
    return out
