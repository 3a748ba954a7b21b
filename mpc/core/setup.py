"""What a session is made of."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.core.cost import Ledger
from mpc.core.interfaces import CorrelationSource, Transport
from mpc.core.keys import PartyStreams
from mpc.core.network import Network
from mpc.core.ranges import RangePolicy
from mpc.core.watching import Watch
from ring import FixedPoint

__all__ = ["Setup"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Setup:
    """The components of a session.

    Attributes
    ----------
    parties : tuple of str
        Names of the computing parties, in their order.
    here : tuple of int
        The numbers of the parties that live in this process, counted from 0.
    format : ring.FixedPoint
    memory_limit : int
        Bytes, see :class:`mpc.Session`.
    streams : dict of int to PartyStreams
        The streams of the parties that live here, by number. The source holds the same dict.
    source : CorrelationSource
    transport : Transport
    ledger : Ledger
    range_policy : RangePolicy
    session_id : bytes
        As agreed with the other parties; empty where all parties live in this process.
    network : Network, optional
        As all parties have it; forms of protocols are chosen by it.
    watch : Watch, optional
        Of parties that watch one another, one of whom may deviate, see :mod:`mpc.core.watching`. Then a
        process holds the rows of two roles, its own and the next one's.
    """

    parties: tuple[str, ...]
    here: tuple[int, ...]
    format: FixedPoint
    memory_limit: int
    streams: dict[int, PartyStreams]
    source: CorrelationSource
    transport: Transport
    ledger: Ledger
    range_policy: RangePolicy
    session_id: bytes = b""
    network: Network | None = None
    watch: Watch | None = None
