"""The keys of a session: who shares which with whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ring import Stream, fresh_key

__all__ = ["PartyStreams", "fresh_streams", "party_streams"]


@dataclass(frozen=True, repr=False)
class PartyStreams:
    """What one computing party can expand.

    Attributes
    ----------
    provider : Stream
        The stream it has in common with the crypto provider.
    pairs : dict of int to Stream
        The streams it has in common with each other party, by that party's number.
    """

    provider: Stream
    pairs: dict[int, Stream]


def party_streams(provider_key: bytes, pair_keys: Mapping[int, bytes]) -> PartyStreams:
    """Return one party's streams, from the keys that a handshake has agreed on."""
    return PartyStreams(Stream(provider_key), {j: Stream(key) for j, key in pair_keys.items()})


def fresh_streams(parties: int) -> tuple[list[PartyStreams], list[bytes]]:
    """Draw the keys of a local session from the operating system.

    Returns
    -------
    list of PartyStreams
        Each party's own.
    list of bytes
        The keys that the provider gets.
    """
    provider_keys = [fresh_key() for _ in range(parties)]
    pair_keys = {(i, j): fresh_key() for i in range(parties) for j in range(i)}
    return [
        PartyStreams(
            Stream(provider_keys[i]),
            {j: Stream(pair_keys[max(i, j), min(i, j)]) for j in range(parties) if j != i},
        )
        for i in range(parties)
    ], provider_keys
