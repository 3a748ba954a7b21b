"""All parties in one process: a message is a row of an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Algebra

__all__ = ["LocalTransport"]

Words = NDArray[np.uint64]


class LocalTransport:
    """Delivers every party's message to every party at once.

    With no party at all, as in a plan, what arrives is empty too.
    """

    def open(self, messages: Sequence[tuple[Words, Algebra]]) -> list[Words]:
        """Combine all parties' shares of each message.

        Parameters
        ----------
        messages : sequence of (shares, algebra)
            Shares have the party axis first.

        Returns
        -------
        list of uint64 arrays
            The opened values, one copy for all parties that live here: first axis 1, or 0 in a plan.
        """
        opened = []
        for shares, algebra in messages:
            combine = np.add if algebra == "sum" else np.bitwise_xor
            opened.append(combine.reduce(shares, axis=0, keepdims=True) if len(shares) else shares)
        return opened

    def open_to(self, party: int, shares: Words) -> Words:
        """Combine all parties' shares at one party, which is the only one to learn the sum."""
        return self.open([(shares, "sum")])[0]
