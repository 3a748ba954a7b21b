"""What may be known of a secret value beside its shares: its plaintext, or a mask and the difference.

- An owner's input: the plaintext x at the party that owns it.
- A masked array: lambda + Delta, and a masked bit: beta ^ delta; Delta and delta are public to the
  computing parties.

Party j's value x is shared from keys alone, as :mod:`mpc.protocols.sharing` describes; shares are expanded
only when needed:
1. Party i != j takes x_i = PRG(k_ij, id), from the key that it shares with party j.
2. Party j takes x_j = x - (sum of the other parties' shares), which it can expand too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import MaskRef, View, apply_views, chosen_rows
from mpc.core.runtime import Runtime

__all__ = [
    "Mask",
    "MaskedBit",
    "OwnerInput",
    "Pending",
    "Plaintext",
    "SecretBit",
    "SharedBit",
    "expand_mask",
]

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


class Mask:
    """The mask lambda of a secret array x of shape S, and the opened difference Delta = x - lambda.

    Attributes
    ----------
    ref : MaskRef
        How the provider refers to lambda.
    rows : tuple of int
        The rows of the party axis whose share of lambda is not zero: all; for an owner's plaintext
        the owner's, where it lives.
    shares : uint64 array of shape (len(rows), *S)
        Shares of lambda. The constructor takes a session in their place: then they are expanded from
        its keys each time a Mask first needs them.
    delta : uint64 array of shape (1, *S)
        Delta, public to the computing parties.
    """

    __slots__ = ("_shares", "_without_others", "delta", "ref", "rows")

    def __init__(
        self, ref: MaskRef, rows: tuple[int, ...], shares: Words | Runtime, delta: Words
    ) -> None:
        self.ref = ref
        self.rows = rows
        self._shares = shares
        self.delta = delta
        # By row; None after the first request, the array from the second on.
        self._without_others: dict[int, Words | None] = {}

    @property
    def shares(self) -> Words:
        """Shares of lambda."""
        if not isinstance(self._shares, np.ndarray):
            self._shares = expand_mask(self._shares, self.ref, self.rows)
        return self._shares

    def without_others(self, row: int) -> Words:
        """Return Delta + lambda_row: the value minus the other parties' shares of the mask.

        Cached from the second request on: a model's weights are requested with every batch.
        """
        kept = self._without_others.get(row)
        if kept is None:
            kept = np.add(self.delta[0], self.shares[row])
            self._without_others[row] = kept if row in self._without_others else None
        return kept

    def view(self, view: View) -> Mask:
        """Return the mask of a view of the tensor."""
        shares = self._shares
        return Mask(
            self.ref.view(view),
            self.rows,
            apply_views(shares, [view], 1) if isinstance(shares, np.ndarray) else shares,
            apply_views(self.delta, [view], 1),
        )


def expand_mask(session: Runtime, ref: MaskRef, rows: tuple[int, ...]) -> Words:
    """Expand shares of a mask from keys; if its first view picks rows, only of those rows."""
    chosen = chosen_rows(ref)
    shape = ref.part.shape if chosen is None else (len(chosen), *ref.part.shape[1:])
    shares = np.empty((len(rows), *shape), np.uint64)
    for k, row in enumerate(rows):
        stream = session.streams[session.here[row]].masks
        if chosen is None:
            stream.fill(shares[k, ...], ref.id, ref.start)
        else:
            stream.fill_rows(shares[k], ref.id, chosen, ref.start)
    return apply_views(shares, ref.views if chosen is None else ref.views[1:], 1)


@dataclass(frozen=True, repr=False)
class MaskedBit:
    """Secret bits b = delta ^ beta: beta shared, delta public to the computing parties.

    Attributes
    ----------
    ref : MaskRef
        How the provider refers to the plane of beta.
    beta : uint64 array of shape (p, size)
        Additive shares of beta, a word for each bit.
    delta : uint64 array of shape (1, words)
        A bit plane, 64 bits to a word.
    """

    ref: MaskRef
    beta: Words
    delta: Words

    def negate(self) -> MaskedBit:
        """Return 1 - b."""
        return MaskedBit(self.ref, self.beta, ~self.delta)

    def without_shares(self) -> MaskedBit:
        """Return the same bits where no party lives (for plans)."""
        return MaskedBit(self.ref, self.beta[:0], self.delta[:0])


@dataclass(frozen=True, repr=False)
class SharedBit:
    """Secret bits of two parties without a provider: XOR shares, and nothing public.

    Attributes
    ----------
    planes : uint64 array of shape (p, words)
        Bit planes, 64 bits to a word.
    size : int
        How many bits.
    first_row : int or None
        The row of the first party, if it lives here.
    """

    planes: Words
    size: int
    first_row: int | None

    # No provider refers to it.
    ref = None

    def negate(self) -> SharedBit:
        """Return 1 - b."""
        planes = self.planes.copy()
        if self.first_row is not None:
            np.invert(planes[self.first_row], out=planes[self.first_row])
        return SharedBit(planes, self.size, self.first_row)

    def without_shares(self) -> SharedBit:
        """Return the same bits where no party lives (for plans)."""
        return SharedBit(self.planes[:0], self.size, None)


SecretBit = MaskedBit | SharedBit
"""A bit as a comparison gives it: masked, or without a provider shared."""


class Pending(Protocol):
    """A protocol's last step, put off until its result is revealed or shares of it are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""

    @property
    def opened(self) -> bool:
        """Whether all parties know what shares follow from."""

    def shares(self) -> Words:
        """Return shares of the result, (p, *shape): 1 round unless it is opened."""

    def reveal(self, to: int | None) -> Words:
        """Open the result to all parties or to one, and return it where it is learnt, else (0, *shape)."""

    def values(self) -> Words:
        """Return the result, of shape (*shape), where all parties live here: without a word, for checks."""

    def without_shares(self, planned: Runtime) -> Pending:
        """Return the same where no party lives (for plans)."""
