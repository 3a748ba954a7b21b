"""The transport of a local session: all parties in one process, each a row of the party axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Opening
from mpc.core.interfaces import Transport

__all__ = ["LocalTransport"]

Words = NDArray[np.uint64]


class LocalTransport(Transport):
    """Combines the rows of all parties; nothing is sent.

    In a plan, where no party lives, results are empty.
    """

    bytes_on_the_wire = (0, 0)

    def close(self, problem: str | None) -> None:
        """Do nothing: no party is in another process."""

    def note(self, *step: object) -> None:
        """Do nothing: all parties run the same program."""

    def check(self) -> None:
        """Do nothing: one process has computed all messages, once."""

    def open(self, messages: Sequence[tuple[Words, Opening]]) -> list[Words]:
        """Combine the rows of each message."""
        opened = []
        for words, opening in messages:
            if isinstance(opening, int) or not len(words):
                opened.append(words)
                continue
            combine = np.add if opening == "sum" else np.bitwise_xor
            total = combine(words[:1], words[1:2])
            for row in range(2, len(words)):
                combine(total, words[row], out=total)
            opened.append(total)
        return opened

    def open_to(self, party: int, shares: Words, opening: Literal["sum", "xor"]) -> Words:
        """Combine the rows; only `party` is meant to learn the result."""
        return self.open([(shares, opening)])[0]
