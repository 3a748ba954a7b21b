"""Audits: what the provider has dealt, computed again from the keys of the blocks of ids that it lies in.

1. The last party has all corrections of a part, the requests of one frame. It sends the auditor the
   requests, and a tag of the corrections: GMAC under a key of these two, with the part's number as the
   nonce. The provider does not know the key, so other corrections have the same tag with a probability
   of at most 2^-128 times their blocks of 16 bytes. Where a frame asks for several runs of a program,
   each run is a part of its own, with its own tag and number, and a coin of its own.
2. Then the auditor draws whether it checks the part. If so, each party sends it the keys of the blocks
   that the requests, and the masks that they refer to, are in: its own, as far as they are needed.
3. The auditor computes the corrections as the provider does, and compares the tag. It tells every party
   up to which id corrections are cleared, and no party uses any other. What a party opens before it
   needs a correction hides values under masks alone, and does not depend on the correction.

The auditor sees masks, and nothing that is opened under them: it learns what the provider knows of these
blocks, and must work with no party, like it. A provider that deals m parts wrongly is caught with
probability 1 - (1 - rate)^m. The coin is of a part and not of a block, since a part may lie in several
blocks, and refers to masks in others.

Source: covert security (Aumann, Lindell 2007).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc.core.correlation import Correlation
from mpc.core.errors import ShapeError
from mpc.core.keys import derive
from mpc.provider.dealer import Provider
from mpc.provider.requests import read_runs
from ring.opened_blocks import OpenedNamedStreams, OpenedStreams
from ring.streams import KEY_BYTES, NAME_KEY_BYTES, block_of

__all__ = [
    "CORRECTION_KEY_BYTES",
    "MASK_KEY_BYTES",
    "TAG_BYTES",
    "CorrectionTag",
    "Needed",
    "Recomputation",
    "blocks_needed",
    "draw",
    "requests_of",
    "runs_of",
    "tag_key",
]

Words = NDArray[np.uint64]

TAG_BYTES = 16
MASK_KEY_BYTES = KEY_BYTES
CORRECTION_KEY_BYTES = KEY_BYTES + NAME_KEY_BYTES
_MOST_KEPT_WORDS = 1 << 21


def draw(rate: float, runs: int) -> tuple[int, ...]:
    """Return which of so many runs to check, by a coin of the operating system's generator for each.

    A coin falls with probability `rate`, rounded up to a multiple of 2^-64.
    """
    below = math.ceil(rate * 2.0**64)
    coins = struct.unpack(f"={runs}Q", os.urandom(8 * runs))
    return tuple(k for k, coin in enumerate(coins) if coin < below)


def tag_key(shared: bytes) -> bytes:
    """Return the key of tags, from the key that the last party and the auditor share."""
    return derive(shared, "tags of corrections")


class CorrectionTag:
    """The tag of a part's corrections.

    Parameters
    ----------
    key : bytes
    number : int
        Which part of the session it is: no number serves twice under a key.
    """

    def __init__(self, key: bytes, number: int) -> None:
        nonce = number.to_bytes(12, "big")
        self._gmac = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()

    def add(self, words: Words) -> None:
        """Add the next correction."""
        self._gmac.authenticate_additional_data(words.astype("<u8", copy=False).data.cast("B"))

    def end(self) -> bytes:
        """Return the tag; nothing can be added any more."""
        self._gmac.finalize()
        return bytes(self._gmac.tag)


@dataclass(frozen=True)
class Needed:
    """The blocks of ids whose keys one party is asked for.

    Attributes
    ----------
    masks, corrections : tuple of int
        In ascending order.
    """

    masks: tuple[int, ...]
    corrections: tuple[int, ...]


def requests_of(frame: bytes, limit: int) -> list[tuple[int, Correlation]]:
    """Read the requests of a part.

    Raises
    ------
    ShapeError
        If the provider would have refused them.
    """
    return runs_of(frame, limit, 1, (0,))[-1][0]


def runs_of(
    frame: bytes, limit: int, runs: int, picked: Sequence[int]
) -> tuple[int, int, list[list[tuple[int, Correlation]]]]:
    """Read the requests of the runs that were picked of a frame; nothing is decoded of the others.

    Returns
    -------
    first, last : int
        The first and the last id of the frame.
    list of list of (int, Correlation)
        Of each run that was picked.

    Raises
    ------
    ShapeError
        If the provider would have refused them, or they are not for so many runs.
    """
    asked = read_runs(frame)
    first, last = asked.check_ids()
    if asked.times != runs:
        raise ShapeError(f"a part of {asked.times} runs must have as many tags, got {runs}")
    found = [[(request.id, request.correlation(limit)) for request in asked.of(k)] for k in picked]
    return first, last, found


def blocks_needed(requests: Sequence[tuple[int, Correlation]], parties: int) -> list[Needed]:
    """Return which blocks the corrections of a part follow from, for each party.

    Of a mask that is one party's alone only that party's key is needed, and so for a mask without a party.
    """
    masks: list[set[int]] = [set() for _ in range(parties)]
    corrections: set[int] = set()
    for id, correlation in requests:
        corrections.add(block_of(id))
        if correlation.layout.masks:
            for blocks in masks:
                blocks.add(block_of(id))
        for ref in correlation.references():
            for party, blocks in enumerate(masks):
                if ref.owner in (None, party) and ref.without != party:
                    blocks.add(block_of(ref.id))
    # The last party's share of corrected parts is the correction itself.
    return [
        Needed(tuple(sorted(blocks)), tuple(sorted(corrections)) if party < parties - 1 else ())
        for party, blocks in enumerate(masks)
    ]


class Recomputation:
    """Corrections of one session, computed again from keys that were opened.

    Parameters
    ----------
    parties : int
    """

    def __init__(self, parties: int) -> None:
        self._masks = [OpenedStreams() for _ in range(parties)]
        self._corrections = [OpenedNamedStreams() for _ in range(parties)]
        self._words = np.empty(0, np.uint64)
        # Masks of a model's weights stay in its cache from one part to the next.
        self._provider = Provider.of(list(zip(self._masks, self._corrections, strict=True)))

    def corrections(
        self,
        requests: Sequence[tuple[int, Correlation]],
        needed: Sequence[Needed],
        opened: Sequence[tuple[bytes, bytes]],
    ) -> Generator[Words, None, None]:
        """Yield the corrections of a part, one at a time: whoever asks for many gets no more memory.

        Each is valid until the next one is asked for.

        Parameters
        ----------
        requests : sequence of (int, Correlation)
        needed : sequence of Needed
            The blocks of each party.
        opened : sequence of (bytes, bytes)
            The keys of these blocks, one behind the other: of masks, and of corrections.
        """
        self._open(needed, opened)
        try:
            for id, correlation in requests:
                words = self._room(correlation.corrected_words)
                self._provider.correct(id, correlation, words)
                yield words
        finally:
            self._forget(needed)

    def _room(self, size: int) -> Words:
        """Return memory for a correction: the same again, which has its pages, unless it is large."""
        if size > _MOST_KEPT_WORDS:
            return np.empty(size, np.uint64)
        if size > self._words.size:
            self._words = np.empty(size, np.uint64)
        return self._words[:size]

    def _open(self, needed: Sequence[Needed], opened: Sequence[tuple[bytes, bytes]]) -> None:
        for party, (blocks, (masks, corrections)) in enumerate(zip(needed, opened, strict=True)):
            for k, block in enumerate(blocks.masks):
                key = masks[k * MASK_KEY_BYTES : (k + 1) * MASK_KEY_BYTES]
                self._masks[party].open(block, key)
            for k, block in enumerate(blocks.corrections):
                key = corrections[k * CORRECTION_KEY_BYTES : (k + 1) * CORRECTION_KEY_BYTES]
                self._corrections[party].open(block, key)

    def _forget(self, needed: Sequence[Needed]) -> None:
        for party, blocks in enumerate(needed):
            for block in blocks.masks:
                self._masks[party].forget(block)
            for block in blocks.corrections:
                self._corrections[party].forget(block)
