"""Watched parties: three or more, one of which may deviate from the program in any way.

Role r of n has a key with the provider. Process i plays role i and watches role i + 1 (modulo n): it has
the keys of both, and so computes what the party after it should send.

1. *Inputs.* An input of party j is opened under a mask of n words, one for each role, from input keys:
   kappa_(j,r) follows from the key of role r. So party j, the holders of role r and the provider know
   the words of role r; party j is given the keys of the roles that it does not hold. Each other process
   lacks all but two.
2. *Openings.* Process i sends its message to all who lack role i; process i - 1 computes it. Nothing is
   compared yet: when an error is noticed would depend on secrets.
3. *Digests.* Of all that role r should send, process r - 1 keeps digests of what it has computed, and each
   receiver of what it has received, with what party r has said freely (its inputs). Each pair of
   processes compares what both of them should know, by GMACs under a key that no other process has.
4. *Check*, before anything is revealed and again before a result is used. Write D_q^pt for the digest of
   role q that process p keeps for the pair with t:
   T_q^pt = HMAC(k_pt, "tag", number, q, D_q^pt) and M_q^pt = HMAC(k_pt, "mask", number, q, D_q^pt).
   Process p sends t alone the XOR of T_q^pt over all other q, and of M_t^pu over all other u: 16
   bytes. It accepts if the XOR of what it receives from all is that of all its own T. If nobody has
   deviated, the masks cancel out. If c has, then D_c^pt and D_c^tp differ for some p and t, so that
   their M are independent, and what c receives is random to it: the tags in it are of views that c may
   have spoiled. And to have p accept it would have to guess T_c^pt + T_c^tp, which is under a key that
   it lacks and in no message to it: not even whoever speaks last can.
   A process that does not accept ends the session with a text that is always the same.

One party alone: of two that work together, one can spoil the view of the process that the other watches.
The next message of that follows from a role that both lack; one receives it, the other has its mask's key.

Source: replicated sharing with redundant messages and a check before outputs (Furukawa, Lindell, Nof,
Weinstein 2017; Chida et al. 2018), on masked evaluation with a provider.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.core.correlation import INPUT_IDS
from mpc.core.errors import AbortError, ShapeError
from mpc.core.keys import PartyStreams, derive, provider_streams
from ring.streams import KEY_BYTES, OWN_IDS, Stream, StreamBlocks

__all__ = [
    "MALICIOUS",
    "PARTIES",
    "SECURITY",
    "SEMI_HONEST",
    "Checks",
    "RoleMasks",
    "Watch",
    "deliveries",
    "holders",
    "input_id",
    "input_key",
    "input_streams",
    "known_inputs",
    "role_streams",
    "roles_of",
    "said_of_inputs",
    "salt_stream",
]

Words = NDArray[np.uint64]

SEMI_HONEST, MALICIOUS = "semi-honest", "malicious"
SECURITY = (SEMI_HONEST, MALICIOUS)
"""What `security` may be."""
PARTIES = 3
"""How many parties watch one another at least."""
_TAG_BYTES = 16


def input_id(owner: int, id: int) -> int:
    """Return the id of the mask of an input of party `owner`."""
    return (owner + 1) * INPUT_IDS + id


def input_key(key: bytes, owner: int) -> bytes:
    """Return kappa_(owner, r), where `key` is the key of role r."""
    return derive(key, f"inputs of party {owner}")


def known_inputs(party: int, parties: int) -> list[tuple[int, int]]:
    """Return of which owners and roles a party knows the input keys: of its own roles, and its own."""
    here = roles_of(party, MALICIOUS, parties)
    others = ((party + k) % parties for k in range(2, parties))
    return [
        *((owner, role) for role in here for owner in range(parties)),
        *((party, role) for role in others),
    ]


def said_of_inputs(party: int, own: bytes, given: Sequence[bytes]) -> bytes:
    """Return SHA-256 of each input key that a party knows, in the order of :func:`known_inputs`.

    Parameters
    ----------
    party : int
    own : bytes
        The key of its role.
    given : sequence of bytes
        What the provider has given it: the key of the role that it watches, and its other input keys.
    """
    parties = len(given) + 1
    mine = [input_key(key, owner) for key in (own, given[0]) for owner in range(parties)]
    return b"".join(sha256(key).digest() for key in (*mine, *given[1:]))


class RoleMasks(StreamBlocks):
    """The streams of a role's masks: those of inputs come from input keys, all others from its own.

    Parameters
    ----------
    root : bytes
        16 bytes. The object never shows it.
    inputs : sequence of bytes
        The role's input key with each party.
    """

    __slots__ = ("_inputs",)

    def __init__(self, root: bytes, inputs: Sequence[bytes]) -> None:
        super().__init__(root)
        self._inputs = [StreamBlocks(key) for key in inputs]

    def _make(self, id: int) -> Stream:
        # Every way to a stream ends here, unless it is kept; those of inputs are not kept here.
        if id < INPUT_IDS:
            return super()._make(id)
        return self._inputs[id // INPUT_IDS - 1].at(_place(id))

    def key(self, block: int) -> bytes:
        """Return the key of a block; of an input, which has a block of its own, that of its input key."""
        if block < INPUT_IDS:
            return super().key(block)
        owner = block // INPUT_IDS
        if owner > len(self._inputs):
            raise ShapeError(
                f"there is no block {block}: it would be of party {owner - 1}'s inputs"
            )
        return self._inputs[owner - 1].key(_place(block))


def _place(id: int) -> int:
    """Return where the mask of an input is under an input key: with a key of its own, as kept masks.

    An input may be a model's weights. An auditor to whom a batch's mask is opened must not read theirs.
    """
    return OWN_IDS + id % INPUT_IDS


def roles_of(party: int, security: str, parties: int) -> tuple[int, ...]:
    """Return the roles, of so many, of which a party's process holds the rows: its own first."""
    return (party,) if security == SEMI_HONEST else (party, (party + 1) % parties)


def holders(parties: int) -> tuple[int, int]:
    """Return the processes that hold the last role, to which corrections go."""
    return parties - 2, parties - 1


def salt_stream(pair_key: bytes) -> Stream:
    """Return the stream of the salts of a role from the key of its two holders, see :class:`Watch`."""
    return Stream(derive(pair_key, "salts of digests"))


def role_streams(key: bytes, parties: int) -> PartyStreams:
    """Return the streams of a role, of so many, from its key with the provider."""
    _, corrections = provider_streams(key)
    inputs = [input_key(key, owner) for owner in range(parties)]
    return PartyStreams(RoleMasks(derive(key, "masks"), inputs), corrections, {})


def input_streams(keys: Sequence[bytes], owner: int) -> list[StreamBlocks]:
    """Return the streams of the masks of a party's inputs, from the keys of all roles."""
    return [StreamBlocks(input_key(key, owner)) for key in keys]


@dataclass(frozen=True, repr=False)
class Watch:
    """What a session of watched parties has beside the streams of its roles.

    Attributes
    ----------
    me : int or None
        The party whose process this is; None where all parties live in it, or none.
    inputs : dict of int to sequence of StreamBlocks
        For each party that lives here, the streams of its inputs' masks, of each role.
    salts : dict of int to Stream
        For each role here, of a key that its two holders alone have: not another process, and not the
        provider, who could guess what a digest is of.
    """

    me: int | None
    inputs: Mapping[int, Sequence[StreamBlocks]]
    salts: Mapping[int, Stream]

    def salt(self, role: int, number: int) -> bytes:
        """Return 32 bytes that hide what a digest is of, the same at both holders of a role."""
        words = np.empty(4, np.uint64)
        self.salts[role].fill(words, number)
        return words.astype("<u8").tobytes()

    def whole_mask(self, owner: int, id: int, shape: tuple[int, ...]) -> Words:
        """Return the sum over the roles of the mask of an input of `owner`, which lives here."""
        total, words = np.zeros(shape, np.uint64), np.empty(shape, np.uint64)
        for stream in self.inputs[owner]:
            stream.at(_place(id)).fill(words, id)
            total += words
        return total

    def planned(self) -> Watch:
        """Return the same where no party lives (for plans)."""
        return Watch(None, {}, {})


@lru_cache(maxsize=1024)
def deliveries(party: int, private: bool, parties: int) -> tuple[tuple[int, int], ...]:
    """Return who sends to whom when a value is opened to `party`: to its process alone, or to its role.

    A role has two holders. Each gets what it lacks of the others' messages.
    """
    holders = (party,) if private else (party, (party - 1) % parties)
    return tuple(
        (sender, holder)
        for sender in range(parties)
        for holder in holders
        if sender not in (party, holder, (holder + 1) % parties)
    )


class _Digest:
    """The GMAC of messages with their shapes, under a new nonce after each tag."""

    def __init__(self, key: bytes) -> None:
        self._key, self._number = key, 0
        self._begin()

    def _begin(self) -> None:
        nonce = self._number.to_bytes(12, "big")
        self._mac = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()

    def add(self, what: str, words: Words) -> None:
        """Enter a message."""
        head = f"{what} {words.shape}".encode()
        data = np.ascontiguousarray(words, "<u8").reshape(-1)
        self._mac.authenticate_additional_data(len(head).to_bytes(2, "big") + head)
        if data.size:
            self._mac.authenticate_additional_data(data.data.cast("B"))

    def take(self) -> bytes:
        """Return the digest of what was entered since the last one."""
        self._mac.finalize()
        tag: bytes = self._mac.tag
        self._number += 1
        self._begin()
        return tag


class Checks:
    """Steps 3 and 4 at one process.

    Parameters
    ----------
    me : int
    pair_keys : dict of int to bytes
        The key with each other process, which no third one has.
    """

    def __init__(self, me: int, pair_keys: Mapping[int, bytes]) -> None:
        parties = len(pair_keys) + 1
        self.others = tuple((me + k) % parties for k in range(1, parties))
        # Of role q, for the pair with t: neither is this process.
        self._digests = {
            (q, t): _Digest(derive(pair_keys[t], f"digests of role {q}"))
            for q in self.others
            for t in self.others
            if t != q
        }
        self._keys = {
            t: derive(pair_keys[t], "tags of digests", 2 * KEY_BYTES) for t in self.others
        }
        self._number = 0
        self._wanted = b""

    def add(self, role: int, what: str, words: Words, known: Collection[int] | None = None) -> None:
        """Enter a message of another role: as this process has computed it, or received it.

        `known` are the processes that have it, if these are not all.
        """
        for t in self.others:
            if t != role and (known is None or t in known):
                self._digests[role, t].add(what, words)

    def begin(self) -> dict[int, Words]:
        """Return what is to be sent to each of the others."""
        wanted, sent = bytes(_TAG_BYTES), dict.fromkeys(self.others, bytes(_TAG_BYTES))
        for (q, t), digest in self._digests.items():
            content = self._number.to_bytes(8, "big") + q.to_bytes(2, "big") + digest.take()
            tag = hmac.digest(self._keys[t], b"tag" + content, "sha256")[:_TAG_BYTES]
            mask = hmac.digest(self._keys[t], b"mask" + content, "sha256")[:_TAG_BYTES]
            wanted, sent[t], sent[q] = _xor(wanted, tag), _xor(sent[t], tag), _xor(sent[q], mask)
        self._number += 1
        self._wanted = wanted
        return {q: _words(each) for q, each in sent.items()}

    def finish(self, received: Mapping[int, Words]) -> None:
        """Compare with what the others have sent; raise AbortError if somebody has deviated."""
        found = bytes(_TAG_BYTES)
        for q in self.others:
            found = _xor(found, np.ascontiguousarray(received[q], "<u8").tobytes())
        if not hmac.compare_digest(found, self._wanted):
            raise AbortError


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _words(data: bytes) -> Words:
    return np.frombuffer(data, "<u8").astype(np.uint64)
