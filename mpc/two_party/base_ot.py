"""Oblivious transfers from public keys: a few, from which the others follow.

The sender gets two random keys for each transfer, the receiver the one that its choice b says, and
neither learns more. All hashes take in the session's id, the direction and the transfer's number i.
1. Sender: a private key y, for all transfers; sends Y = y G.
2. Receiver: a private key a, M = a G; r_(1 - b) a point that nobody knows the logarithm of, hashed from
   32 random bytes; r_b = M - Hash(b, i, r_(1 - b)). Sends r_0, r_1: both uniform on the curve.
3. Sender: M_b = r_b + Hash(b, i, r_(1 - b)), k_b = SHA-256(i, b, Y, r_0, r_1, y M_b), for b = 0, 1.
4. Receiver: k_b from a Y. The other M is a point whose logarithm it does not know.
Cost: 1 round, 128 bytes a transfer from the receiver, 64 bytes from the sender.

Source: Masny, Rindal 2019 (endemic oblivious transfer), on P-256; hashes to the curve: RFC 9380.
Curve25519's exchange does not serve: honest keys lie in a subgroup that random strings do not lie in,
so that a sender tells r_0 from r_1. :mod:`mpc.two_party.curve` says what takes constant time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, FrameError
from mpc.two_party import curve
from mpc.two_party.channel import Channel, trade

__all__ = ["KEY_BYTES", "SESSION_BYTES", "agree", "transfer"]

Words = NDArray[np.uint64]

KEY_BYTES = 16
SESSION_BYTES = 32
_WORDS = np.dtype("<u8")


def agree(channel: Channel) -> bytes:
    """Return a new session's id, to which both have added: 2 rounds, 64 bytes each.

    Raises
    ------
    FrameError
        If the parties do not have the same: what one has sent has been changed on its way.
    """
    mine = {party: os.urandom(SESSION_BYTES) for party in channel.parties}
    theirs = _traded(channel, mine)
    ids = {}
    for party, own in mine.items():
        parts = (own, theirs[party]) if party == 0 else (theirs[party], own)
        ids[party] = sha256(b"sotto session" + b"".join(parts)).digest()
    # A hash that says nothing else, of what both should have.
    checks = {party: sha256(b"sotto same session" + id).digest() for party, id in ids.items()}
    for party, told in _traded(channel, checks).items():
        if told != checks[party]:
            raise FrameError(
                f"{channel.names[1 - party]} has another id of the session than"
                f" {channel.names[party]}: what one has sent was changed on its way"
            )
    return next(iter(ids.values()), bytes(SESSION_BYTES))


def _traded(channel: Channel, messages: dict[int, bytes]) -> dict[int, bytes]:
    """Send SESSION_BYTES each, by sender; return what came, by receiver."""
    words = {party: np.frombuffer(data, _WORDS) for party, data in messages.items()}
    count = SESSION_BYTES // 8
    got = trade(channel, words, (count, count))
    return {party: data.astype(_WORDS).tobytes() for party, data in got.items()}


def _hash(session: bytes, sender: int, i: int, b: int, point: bytes) -> curve.Point:
    where = bytes([sender]) + i.to_bytes(4, "big") + bytes([b])
    return curve.hash_to_point(session + where + point, b"sotto base ot point")


def _key(session: bytes, sender: int, i: int, b: int, sent: bytes, secret: bytes) -> bytes:
    where = bytes([sender]) + i.to_bytes(4, "big") + bytes([b])
    return sha256(b"sotto base ot key" + session + where + sent + secret).digest()[:KEY_BYTES]


class _Sender:
    def __init__(self, session: bytes, sender: int) -> None:
        self._session, self._sender = session, sender
        self._key = ec.generate_private_key(curve.CURVE)
        self.message = curve.encode(curve.point_of(self._key))

    def keys(self, theirs: bytes) -> list[tuple[bytes, bytes]]:
        """Step 3."""
        out = []
        for i, at in enumerate(range(0, len(theirs), 2 * curve.POINT_BYTES)):
            both = theirs[at : at + 2 * curve.POINT_BYTES]
            r = both[: curve.POINT_BYTES], both[curve.POINT_BYTES :]
            points = [curve.decode(data) for data in r]
            pair = []
            for b in (0, 1):
                m = curve.add(points[b], _hash(self._session, self._sender, i, b, r[1 - b]))
                secret = self._key.exchange(ec.ECDH(), curve.public_key(m))
                sent = self.message + both
                pair.append(_key(self._session, self._sender, i, b, sent, secret))
            out.append((pair[0], pair[1]))
        return out


class _Receiver:
    def __init__(self, session: bytes, sender: int, choices: Sequence[int]) -> None:
        self._session, self._sender = session, sender
        self._choices = [int(b) for b in choices]
        self._keys, self._sent = [], []
        for i, b in enumerate(self._choices):
            key = ec.generate_private_key(curve.CURVE)
            other = curve.encode(
                curve.hash_to_point(session + os.urandom(32), b"sotto base ot random point")
            )
            hashed = _hash(session, sender, i, b, other)
            mine = curve.encode(curve.add(curve.point_of(key), curve.negative(hashed)))
            self._keys.append(key)
            self._sent.append(_in_order(mine, other, b))
        self.message = b"".join(self._sent)

    def keys(self, theirs: bytes) -> list[bytes]:
        """Step 4."""
        peer = curve.public_key(curve.decode(theirs))
        return [
            _key(self._session, self._sender, i, b, theirs + sent, key.exchange(ec.ECDH(), peer))
            for i, (key, b, sent) in enumerate(
                zip(self._keys, self._choices, self._sent, strict=True)
            )
        ]


def _in_order(mine: bytes, other: bytes, b: int) -> bytes:
    """Return r_0 and r_1, without a branch on b."""
    x, y = int.from_bytes(mine, "big"), int.from_bytes(other, "big")
    swap = (x ^ y) & -b
    return b"".join(v.to_bytes(curve.POINT_BYTES, "big") for v in (x ^ swap, y ^ swap))


def transfer(
    channel: Channel, session: bytes, sender: int, count: int, choices: Sequence[int] | None
) -> tuple[list[tuple[bytes, bytes]] | None, list[bytes] | None]:
    """Make `count` transfers.

    Parameters
    ----------
    session : bytes
        The session's id; another one gives other keys for the same messages.
    sender : int
        The party that gets both keys of each.
    choices : sequence of 0 and 1, where the receiver lives; elsewhere None

    Returns
    -------
    pairs : list of two keys each, where the sender lives; elsewhere None
    keys : list of the chosen ones, where the receiver lives; elsewhere None

    Raises
    ------
    FrameError
        If the other party sends what is no point of the curve.
    """
    if len(session) != SESSION_BYTES:
        raise ArgumentError(f"session must have {SESSION_BYTES} bytes, got {len(session)}")
    ends: dict[int, _Sender | _Receiver] = {}
    for party in channel.parties:
        if party == sender:
            ends[party] = _Sender(session, sender)
        else:
            if choices is None or len(choices) != count:
                raise ArgumentError(f"the receiver of {count} transfers must have as many choices")
            ends[party] = _Receiver(session, sender, choices)
    words = [0, 0]
    words[sender], words[1 - sender] = curve.POINT_BYTES // 8, 2 * curve.POINT_BYTES * count // 8
    messages = {party: np.frombuffer(end.message, _WORDS) for party, end in ends.items()}
    got = trade(channel, messages, (words[0], words[1]))
    pairs, keys = None, None
    for party, end in ends.items():
        theirs = got[party].astype(_WORDS).tobytes()
        try:
            if isinstance(end, _Sender):
                pairs = end.keys(theirs)
            else:
                keys = end.keys(theirs)
        except ArgumentError as error:
            raise FrameError(
                f"{channel.names[1 - party]} has sent a wrong key for oblivious transfers: {error}"
            ) from None
    return pairs, keys
