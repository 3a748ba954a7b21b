"""Inputs: the plaintext at the party that owns it, and shares of it, expanded only when needed.

Party j's value x is shared from keys alone, as :mod:`mpc.protocols.sharing` describes:
1. Party i != j takes x_i = PRG(k_ij, id), from the key that it shares with party j.
2. Party j takes x_j = x - (sum of the other parties' shares), which it can expand too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import View, apply_views
from mpc.core.runtime import Runtime

__all__ = ["OwnerInput", "Plaintext"]

Words = NDArray[np.uint64]


class OwnerInput:
    """An input as its owner entered it, whole, with this process's shares once they are expanded.

    Attributes
    ----------
    session : Runtime
    id : int
        Of the streams from which shares are expanded.
    owner : int
        The party whose input it is.
    encoded : uint64 array of shape (1, *S) where the owner lives, else (0, *S)
    """

    def __init__(self, session: Runtime, owner: int, encoded: Words, id: int | None = None) -> None:
        self.session = session
        self.id = session.fresh_id() if id is None else id
        self.owner = owner
        self.encoded = encoded
        self._shares: Words | None = None

    def shares(self) -> Words:
        """Return this process's shares, of shape (p, *S): steps 1 and 2."""
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
    """An owner's input, or a view of one. Only the owner has the value; others have shape and id.

    Attributes
    ----------
    base : OwnerInput
    encoded : uint64 array of shape (1, *S) where the owner lives, else (0, *S)
        The value, after the views.
    views : tuple of View
        The views taken of `base`.
    """

    base: OwnerInput
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
        """Return the plaintext's counterpart in a session where no party lives."""
        empty = np.empty((0, *self.base.encoded.shape[1:]), np.uint64)
        base = OwnerInput(planned, self.owner, empty, self.base.id)
        return Plaintext(base, np.empty((0, *self.encoded.shape[1:]), np.uint64), self.views)

    def shares(self) -> Words:
        """Return this process's shares, of shape (p, *S)."""
        return apply_views(self.base.shares(), self.views, 1)
