"""The keys of a session: who shares which with whom, and what each is for.

Party i and the provider agree on one key. Three follow from it, by HKDF-SHA256 with a label each:

- one of its masks, of which both expand the same words by id. Such words hide what is opened;
- one of its shares of corrections, and one of where in that stream they are: at a place that
  follows from the correlation's class and sizes, its id, and its references with their ids
  (:mod:`mpc.core.names`, :class:`ring.streams.NamedStream`). The last party has no such shares.

Why two: the provider answers the last party with f - (the others' shares), f following from masks.
What if the last party asks for something else than the program does? With one key for both, it
would ask for a correlation of which it knows f, at the id of another party's mask, and subtract.
Here the answer tells nothing unless class, sizes, references and all ids are those that the parties
compute with: any other name's shares are read nowhere else, so that the answer is uniform to whoever
lacks one other party's key. To ask twice for the right name gives the same answer twice: f follows
from the name and the masks alone. An id that is asked for with another term or other references,
where the answers' difference would tell what the masks have in common, is another name.

Why masks need no more than one: there are masks of tensors (:mod:`mpc.protocols.masking`), uniform
parts of correlations that something is opened under (the r of a truncation, the beta of a bit), and
those of them that later correlations refer to. All are read by id, and an honest party hands each id
out once, to one tensor or one correlation, so no word of a mask ever hides two things. Nothing that
the last party asks for changes that: it gets masks only within f, and f only as above. So it does
not matter which masks a forged request refers to, or whether they were ever dealt.

This is about requests. A last party that goes on computing with forged answers can still make
results wrong, see the page *Who sees what*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ring import Stream, fresh_key
from ring.streams import KEY_BYTES, NAME_KEY_BYTES, NamedStream

__all__ = ["PartyStreams", "derive", "fresh_streams", "party_streams", "provider_streams"]


@dataclass(frozen=True, repr=False)
class PartyStreams:
    """What one computing party can expand.

    Attributes
    ----------
    masks : Stream
        What it masks with, in common with the crypto provider.
    corrections : NamedStream
        Its shares of corrections, in common with the crypto provider.
    pairs : dict of int to Stream
        The streams it has in common with each other party, by that party's number.
    """

    masks: Stream
    corrections: NamedStream
    pairs: dict[int, Stream]


def derive(key: bytes, label: str, count: int = KEY_BYTES) -> bytes:
    """Return a key of `count` bytes that follows from `key`, for one use alone."""
    return HKDF(SHA256(), count, salt=None, info=f"sotto {label}".encode()).derive(key)


def provider_streams(key: bytes) -> tuple[Stream, NamedStream]:
    """Return a party's masks and its shares of corrections, from the key agreed with the provider."""
    return (
        Stream(derive(key, "masks")),
        NamedStream(
            derive(key, "shares of corrections"),
            derive(key, "names of corrections", NAME_KEY_BYTES),
        ),
    )


def party_streams(provider_key: bytes, pair_keys: Mapping[int, bytes]) -> PartyStreams:
    """Return one party's streams, from the keys that a handshake has agreed on."""
    pairs = {j: Stream(key) for j, key in pair_keys.items()}
    return PartyStreams(*provider_streams(provider_key), pairs)


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
        party_streams(
            provider_keys[i],
            {j: pair_keys[max(i, j), min(i, j)] for j in range(parties) if j != i},
        )
        for i in range(parties)
    ], provider_keys
