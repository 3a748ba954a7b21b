"""Watched parties: three parties, one of which may deviate from the program in any way.

Role r has a key with the provider. Process i plays role i and watches role i + 1 (modulo 3): it has the
keys of both, and so computes what the party after it should send.

1. *Inputs.* An input of party j is opened under a mask of three words, one for each role, from input keys:
   kappa_(j,r) follows from the key of role r. So party j, the holders of role r and the provider know
   the words of role r; party j is given the key of the role that it does not hold. Each other process
   lacks one of the three.
2. *Openings.* Process i sends its message to process i + 1 alone, which lacks role i; process i - 1
   computes it. Nothing is compared yet: when an error is noticed would depend on secrets.
3. *Digests.* Of all that role r should send, process r - 1 keeps a digest of what it has computed, and
   process r + 1 one of what it has received, both with what party r has said freely (its inputs).
   They are GMACs, under a key that party r does not have.
4. *Check*, before anything is revealed and again before a result is used. Write D_r^p for the digest of
   role r at process p, and for the pair (p, t), whose third is q:
   T_q^p = HMAC(k_pt, "tag", number, D_q^p) and M_q^p = HMAC(k_pt, "mask", number, D_q^p).
   Process p sends q alone T_t^p + M_q^p (XOR, 16 bytes), and t alone T_q^p + M_t^p. It accepts if
   the XOR of what it receives from q and from t is T_t^p + T_q^p. If nobody has deviated, the masks
   cancel out. If q has, D_q^p and D_q^t differ, so that M_q^p and M_q^t are independent and hide the
   tags from q, which may have spoiled what p and t hold; and q would have to guess T_q^p + T_q^t, which
   is under a key that it lacks and in no message to it: not even whoever speaks last can.
   A process that does not accept ends the session with a text that is always the same.

Source: replicated sharing with redundant messages and a check before outputs (Furukawa, Lindell, Nof,
Weinstein 2017; Chida et al. 2018), on masked evaluation with a provider.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.core.correlation import INPUT_IDS
from mpc.core.errors import AbortError
from mpc.core.keys import PartyStreams, derive, provider_streams
from ring.streams import KEY_BYTES, Stream, StreamBlocks

__all__ = [
    "MALICIOUS",
    "PARTIES",
    "SECURITY",
    "SEMI_HONEST",
    "Checks",
    "RoleMasks",
    "Watch",
    "input_id",
    "input_key",
    "input_streams",
    "role_streams",
    "roles_of",
    "salt_key",
    "senders_to",
]

Words = NDArray[np.uint64]

SEMI_HONEST, MALICIOUS = "semi-honest", "malicious"
SECURITY = (SEMI_HONEST, MALICIOUS)
"""What `security` may be."""
PARTIES = 3
"""How many parties watch one another."""
_TAG_BYTES = 16


def input_id(owner: int, id: int) -> int:
    """Return the id of the mask of an input of party `owner`."""
    return (owner + 1) * INPUT_IDS + id


def input_key(key: bytes, owner: int) -> bytes:
    """Return kappa_(owner, r), where `key` is the key of role r."""
    return derive(key, f"inputs of party {owner}")


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
        owner, number = divmod(id, INPUT_IDS)
        return self._inputs[owner - 1].at(number)


def roles_of(party: int, security: str) -> tuple[int, ...]:
    """Return the roles of which a party's process holds the rows: its own first."""
    return (party,) if security == SEMI_HONEST else (party, (party + 1) % PARTIES)


def salt_key(pair_key: bytes) -> bytes:
    """Return the key of the salts of a role from that of its two holders, see :class:`Watch`."""
    return derive(pair_key, "salts of digests")


def role_streams(key: bytes) -> PartyStreams:
    """Return the streams of a role from its key with the provider."""
    _, corrections = provider_streams(key)
    inputs = [input_key(key, owner) for owner in range(PARTIES)]
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
    salts : dict of int to bytes
        For each role here, a key that its two holders alone have: not the third process, and not the
        provider, who could guess what a digest is of.
    """

    me: int | None
    inputs: Mapping[int, Sequence[StreamBlocks]]
    salts: Mapping[int, bytes]

    def salt(self, role: int, number: int) -> bytes:
        """Return 32 bytes that hide what a digest is of, the same at both holders of a role."""
        return derive(self.salts[role], f"salt {number}", 32)

    def whole_mask(self, owner: int, id: int, shape: tuple[int, ...]) -> Words:
        """Return the sum over the roles of the mask of an input of `owner`, which lives here."""
        total, words = np.zeros(shape, np.uint64), np.empty(shape, np.uint64)
        for stream in self.inputs[owner]:
            stream.at(id % INPUT_IDS).fill(words, id)
            total += words
        return total

    def planned(self) -> Watch:
        """Return the same where no party lives (for plans)."""
        return Watch(None, {}, {})


def senders_to(party: int, private: bool) -> tuple[int, ...]:
    """Return who sends when a value is opened to `party`: to its process alone, or to its role.

    A role has two holders. The process before the party lacks the words of the one after it.
    """
    before, after = (party + 2) % PARTIES, (party + 1) % PARTIES
    return (before,) if private else (before, after)


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
        The key with each of the two others, which the third does not have.
    """

    def __init__(self, me: int, pair_keys: Mapping[int, bytes]) -> None:
        self.next, self.before = (me + 1) % PARTIES, (me + 2) % PARTIES
        # Of role q, and with whom it is compared: the one that is neither q nor this process.
        with_of = {self.next: self.before, self.before: self.next}
        self._digests = {
            q: _Digest(derive(pair_keys[t], "digests of the third")) for q, t in with_of.items()
        }
        self._keys = {
            q: derive(pair_keys[t], "tags of digests", 2 * KEY_BYTES) for q, t in with_of.items()
        }
        self._number = 0
        self._wanted = b""

    def add(self, role: int, what: str, words: Words) -> None:
        """Enter a message of another role: as this process has computed it, or received it."""
        self._digests[role].add(what, words)

    def begin(self) -> dict[int, Words]:
        """Return what is to be sent to each of the two others."""
        tags, masks = {}, {}
        for q, digest in self._digests.items():
            content = self._number.to_bytes(8, "big") + bytes([q]) + digest.take()
            key = self._keys[q]
            tags[q] = hmac.digest(key, b"tag" + content, "sha256")[:_TAG_BYTES]
            masks[q] = hmac.digest(key, b"mask" + content, "sha256")[:_TAG_BYTES]
        self._number += 1
        self._wanted = _xor(tags[self.next], tags[self.before])
        return {
            self.next: _words(_xor(tags[self.before], masks[self.next])),
            self.before: _words(_xor(tags[self.next], masks[self.before])),
        }

    def finish(self, received: Mapping[int, Words]) -> None:
        """Compare with what the two others have sent; raise AbortError if somebody has deviated."""
        both = [np.ascontiguousarray(received[q], "<u8") for q in (self.next, self.before)]
        found = _xor(both[0].tobytes(), both[1].tobytes())
        if not hmac.compare_digest(found, self._wanted):
            raise AbortError


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _words(data: bytes) -> Words:
    return np.frombuffer(data, "<u8").astype(np.uint64)
