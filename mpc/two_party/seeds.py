"""Trees of seeds of which one party knows all leaves and the other all but one.

128 / k trees with 2^k leaves each. The party that shall know all is the *grower*; the other has a secret
D of 128 bits, k for each tree, and shall miss leaf D_i of tree i.
1. Grower: a random root for each tree; the children of a node x are AES_0(x) ^ x and AES_1(x) ^ x, with
   fixed keys for each level, in which the session's id is.
2. 128 transfers of keys (:mod:`mpc.two_party.base_ot`), one a tree and level; the other party chooses the
   side that the path to D_i does not take.
3. Grower: on each level the sum (XOR) of all left children and that of all right ones, each under one of
   the keys: sent.
4. The other party knows all nodes of a level but the one on the path, hence all children but two; the
   sum of the side that it has the key of gives it one of them.
Cost: 2 rounds, 16 kB from the one that misses a leaf, 4 kB from the grower.

Source: Goldreich, Goldwasser, Micali 1986 (the tree); Boyle et al. 2019 and Roy 2022 (SoftSpokenOT,
section 5) for all leaves but one.
"""

from __future__ import annotations

import os
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.two_party import base_ot
from mpc.two_party.channel import Channel, send

__all__ = ["SECRET_BITS", "bits_of", "grow"]

Words = NDArray[np.uint64]

SECRET_BITS = 128
_WORDS = np.dtype("<u8")


def bits_of(secret: int) -> NDArray[np.uint64]:
    """Return the 128 bits of a secret, the lowest first."""
    return np.array([secret >> i & 1 for i in range(SECRET_BITS)], np.uint64)


def _children(nodes: Words, session: bytes, sender: int, level: int) -> Words:
    """Return both children of each node: (trees, n, 2) to (trees, 2 n, 2)."""
    out = np.empty((len(nodes), nodes.shape[1], 2, 2), np.uint64)
    data = np.ascontiguousarray(nodes, _WORDS).tobytes()
    for side in (0, 1):
        where = session + bytes([sender, level, side])
        key = sha256(b"sotto tree of seeds" + where).digest()[: base_ot.KEY_BYTES]
        hidden = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data)
        out[:, :, side] = np.frombuffer(hidden, _WORDS).reshape(nodes.shape) ^ nodes
    return out.reshape(len(nodes), -1, 2)


def _sums(nodes: Words) -> Words:
    """Return the sum of the nodes of each side: (trees, n, 2) to (trees, 2, 2)."""
    sides = nodes.reshape(len(nodes), -1, 2, 2)
    return np.asarray(np.bitwise_xor.reduce(sides, axis=1))


def _words_of(keys: list[bytes]) -> Words:
    return np.frombuffer(b"".join(keys), _WORDS).astype(np.uint64)


def _chosen(sides: Words, bit: Words) -> Words:
    """Return the entry of the second to last axis that each bit says, without a branch."""
    mask = -bit[..., None]
    return np.asarray(sides[..., 0, :] ^ ((sides[..., 0, :] ^ sides[..., 1, :]) & mask))


def _grown(session: bytes, sender: int, k: int, keys: Words) -> tuple[Words, Words]:
    """Steps 1 and 3: the leaves, (trees, 2^k, 2), and the message."""
    trees = SECRET_BITS // k
    nodes = np.frombuffer(os.urandom(16 * trees), _WORDS).reshape(trees, 1, 2).astype(np.uint64)
    hidden = np.empty((trees, k, 2, 2), np.uint64)
    for level in range(k):
        nodes = _children(nodes, session, sender, level)
        hidden[:, level] = _sums(nodes) ^ keys[:, level]
    return nodes, hidden.reshape(-1)


def _followed(
    session: bytes, sender: int, k: int, bits: Words, keys: Words, hidden: Words
) -> Words:
    """Step 4: the leaves, (trees, 2^k, 2), leaf y at place y ^ D_i, so that the missing one is first."""
    trees = SECRET_BITS // k
    # What is not known counts as zero.
    nodes = np.zeros((trees, 1, 2), np.uint64)
    path = np.zeros(trees, np.uint64)
    for level in range(k):
        bit = bits[:, level]
        places = np.arange(2 << level, dtype=np.uint64)
        nodes = _children(nodes, session, sender, level)
        nodes &= -(places >> np.uint64(1) != path[:, None]).astype(np.uint64)[..., None]
        other = np.uint64(1) - bit
        told = _chosen(hidden[:, level], other) ^ keys[:, level] ^ _chosen(_sums(nodes), other)
        here = -(places == (path * np.uint64(2) + other)[:, None]).astype(np.uint64)
        nodes |= told[:, None] & here[..., None]
        path = path * np.uint64(2) + bit
    for level in range(k):
        halves = nodes.reshape(trees, 1 << level, 2, -1)
        first, second = halves[:, :, 0], halves[:, :, 1]
        swapped = (first ^ second) & -bits[:, level, None, None]
        first ^= swapped
        second ^= swapped
    return nodes


def grow(
    channel: Channel, session: bytes, sender: int, k: int, secret: int | None
) -> dict[int, Words]:
    """Grow the trees.

    Parameters
    ----------
    sender : int
        The party with the secret D, sender of the transfers that are made from the trees.
    k : int
        Bits a tree.
    secret : int, where that party lives; elsewhere None

    Returns
    -------
    dict of int to uint64 array of shape (128 / k, 2^k, 2)
        The leaves of each party that lives here: of the grower as they are, of the other leaf y at
        place y ^ D_i, with zeros in place of the missing one, at place 0.
    """
    trees, grower = SECRET_BITS // k, 1 - sender
    bits = None
    if secret is not None:
        # Of each tree the highest bit first.
        bits = bits_of(secret).reshape(trees, k)[:, ::-1]
    choices = None if bits is None else [1 - int(b) for b in bits.reshape(-1)]
    pairs, keys = base_ot.transfer(channel, session, grower, SECRET_BITS, choices)
    leaves: dict[int, Words] = {}
    message = None
    if pairs is not None:
        both = _words_of([key for pair in pairs for key in pair]).reshape(trees, k, 2, 2)
        leaves[grower], message = _grown(session, sender, k, both)
    hidden = send(channel, grower, 4 * SECRET_BITS, message)
    if keys is not None and hidden is not None and bits is not None:
        one = _words_of(keys).reshape(trees, k, 2)
        leaves[sender] = _followed(session, sender, k, bits, one, hidden.reshape(trees, k, 2, 2))
    return leaves
