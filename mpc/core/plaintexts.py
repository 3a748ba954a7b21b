"""The plaintext of a value at the party that owns it, and shares of it when they are asked for.

Party j's value x is shared from keys alone, as :mod:`mpc.protocols.sharing` describes:
1. Party i != j takes x_i = PRG(k_ij, id), from the key it has in common with j.
2. Party j takes x_j = x - (sum of the others' shares), which it can expand too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import View, apply_views
from mpc.core.runtime import Runtime

__all__ = ["Plaintext", "Source"]

Words = NDArray[np.uint64]


class Source:
    """A whole value of an owner, and this process's shares of it once they were asked for."""

    def __init__(self, session: Runtime, owner: int, encoded: Words, id: int | None = None) -> None:
        self.session = session
        self.id = session.fresh_id() if id is None else id
        self.owner = owner
        self.encoded = encoded
        self._shares: Words | None = None

    def shares(self) -> Words:
        """Steps 1 and 2."""
        if self._shares is None:
            self.session.check_open()
            session, shape = self.session, self.encoded.shape[1:]
            shares = np.empty((len(session.here), *shape), np.uint64)
            for row, party in enumerate(session.here):
                # With the dots it is a view even for a scalar, which shares[row] would copy.
                mine = shares[row, ...]
                if party != self.owner:
                    session.streams[party].pairs[self.owner].fill(mine, self.id)
                    continue
                others = np.empty(shape, np.uint64)
                mine[...] = self.encoded[0]
                for stream in session.streams[party].pairs.values():
                    stream.fill(others, self.id)
                    mine -= others
            self._shares = shares
        return self._shares


@dataclass(frozen=True, repr=False)
class Plaintext:
    """A party's own value, or a view of one; other parties hold where it comes from alone.

    Attributes
    ----------
    owner : int
    encoded : uint64 array of shape (1, *S) where the owner lives, else (0, *S)
    """

    base: Source
    encoded: Words
    views: tuple[View, ...] = ()

    @property
    def owner(self) -> int:
        """The party whose value it is."""
        return self.base.owner

    def view(self, view: View) -> Plaintext:
        """Return a view of the value."""
        return replace(
            self, encoded=apply_views(self.encoded, [view], 1), views=(*self.views, view)
        )

    def without_value(self, planned: Runtime) -> Plaintext:
        """Return the same in a session where no party lives."""
        empty = np.empty((0, *self.base.encoded.shape[1:]), np.uint64)
        base = Source(planned, self.owner, empty, self.base.id)
        return Plaintext(base, np.empty((0, *self.encoded.shape[1:]), np.uint64), self.views)

    def shares(self) -> Words:
        """Return this process's shares, of shape (p, *S)."""
        return apply_views(self.base.shares(), self.views, 1)
