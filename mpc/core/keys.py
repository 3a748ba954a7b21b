"""The keys of a session: which processes share each key, and what it is for.

Party i and the provider agree on one key. Two root keys are derived from it, by HKDF-SHA256 with a
label each, and from a root the keys of blocks of 128 ids (:mod:`ring.streams`):

- of masks: both expand the same mask words by id. Opened values are hidden by such words;
- of corrections: the correction key, from which party i's shares of corrected parts are expanded, and
  the name key, which maps a correlation's name to its place in that stream. The name is the
  correlation's class and sizes, its id, and its references with their ids (:mod:`mpc.core.wire`,
  :class:`ring.streams.NamedStream`). The last party has no use for these two.

A key of a block can be opened to whoever recomputes what the provider has dealt in it. It tells nothing of
the words of other blocks, nor a mask key of corrections or the other way round. Masks of a model's weights
and of data sets are in use for as long as the session. So each of them has a mask key of its own, and the
key of a batch's block opens none of them. Of watched parties, whose inputs may be either, every input has.

Each pair of parties shares one more key, from which shares of inputs are expanded.

Why masks and corrections have different keys. The provider answers the last party with
f - (the other parties' shares), where f is a function of masks. Suppose that the last party forges a
request. With one key for both, it would request a correlation whose f it knows, at the id of another
party's mask, and get that mask by subtraction. With these keys the answer tells nothing unless class,
sizes, references and all ids are those that the parties compute with: shares of any other name are
used nowhere else, so the answer is uniform to whoever lacks one other party's key. Requesting the
right name twice gives the same answer twice, since f is a function of the name and the masks. The same
id with another cross term or other references, where the difference of two answers would tell
something about the masks, is another name.

Why one root is enough for all masks. There are masks of tensors (:mod:`mpc.protocols.masking`), and
uniform parts of correlations (the r of a truncation, the beta of a bit), to which later correlations
may refer. All are expanded by id, and an honest party uses each id once, for one tensor or one
correlation, so no mask word ever hides two values. Forged requests do not change that: their answers
contain masks only within f, and f only as above. So it does not matter which masks a forged request
refers to, or whether they were ever dealt.

All this is about requests. A last party that computes on with forged answers can still make results
wrong, see the page *Who sees what*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ring import Stream, fresh_key
from ring.streams import KEY_BYTES, NamedStreamBlocks, StreamBlocks

__all__ = [
    "PartyStreams",
    "derive",
    "fresh_streams",
    "pair_streams",
    "party_streams",
    "provider_streams",
]


@dataclass(frozen=True, repr=False)
class PartyStreams:
    """The pseudo-random streams that one computing party can expand.

    Attributes
    ----------
    masks : StreamBlocks
        Its shares of masks, by id; shared with the crypto provider.
    corrections : NamedStreamBlocks
        Its shares of corrected parts, by id and name; shared with the crypto provider.
    pairs : dict of int to Stream
        The stream shared with each other party, by that party's number.
    """

    masks: StreamBlocks
    corrections: NamedStreamBlocks
    pairs: dict[int, Stream]


def derive(key: bytes, label: str, count: int = KEY_BYTES) -> bytes:
    """Return a key of `count` bytes derived from `key` for the purpose that `label` names."""
    return HKDF(SHA256(), count, salt=None, info=f"sotto {label}".encode()).derive(key)


def provider_streams(key: bytes) -> tuple[StreamBlocks, NamedStreamBlocks]:
    """Return a party's streams of masks and of corrections, from its key shared with the provider."""
    return (
        StreamBlocks(derive(key, "masks")),
        NamedStreamBlocks(derive(key, "corrections")),
    )


def party_streams(provider_key: bytes, pair_keys: Mapping[int, bytes]) -> PartyStreams:
    """Return one party's streams, from the keys that a handshake has agreed on."""
    pairs = {j: Stream(key) for j, key in pair_keys.items()}
    return PartyStreams(*provider_streams(provider_key), pairs)


def pair_streams(pair_keys: Mapping[int, bytes]) -> PartyStreams:
    """Return one party's streams in a session without a provider: only those of pairs serve."""
    return party_streams(fresh_key(), pair_keys)


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
