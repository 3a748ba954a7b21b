"""Masks of secret arrays and bits, whose masked values are public."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import MaskRef, View, apply_views, chosen_rows
from mpc.core.runtime import Runtime

__all__ = ["Mask", "MaskedBit", "expand_mask"]

Words = NDArray[np.uint64]


class Mask:
    """A tensor's mask: how the provider finds it, its shares, and the opened difference.

    Attributes
    ----------
    ref : MaskRef
    rows : tuple of int
        The rows of the party axis with a share that is not zero: all, or the owner's, if any.
    shares : uint64 array of shape (len(rows), *S)
        lambda. Given as a session, they are expanded from its keys when they are asked for.
    delta : uint64 array of shape (1, *S)
        Delta = x - lambda, public to the computing parties.
    """

    __slots__ = ("_shares", "_without_others", "delta", "ref", "rows")

    def __init__(
        self, ref: MaskRef, rows: tuple[int, ...], shares: Words | Runtime, delta: Words
    ) -> None:
        self.ref = ref
        self.rows = rows
        self._shares = shares
        self.delta = delta
        # By row; None once it was asked for.
        self._without_others: dict[int, Words | None] = {}

    @property
    def shares(self) -> Words:
        """Shares of lambda."""
        if not isinstance(self._shares, np.ndarray):
            self._shares = expand_mask(self._shares, self.ref, self.rows)
        return self._shares

    def without_others(self, row: int) -> Words:
        """Return Delta + lambda_row, the value less what the other parties hide of it.

        Kept from the second time on: a model's weights are asked for with every batch.
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
    """Expand shares of a mask; if the first view picks rows of the tensor, of these alone."""
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
    """A secret bit as delta ^ beta, delta public.

    Attributes
    ----------
    ref : MaskRef
        How the provider finds the plane of beta.
    beta : uint64 array of shape (p, size)
        Additive shares of beta.
    delta : uint64 array of shape (1, words)
    """

    ref: MaskRef
    beta: Words
    delta: Words

    def negate(self) -> MaskedBit:
        """Return the other bit."""
        return MaskedBit(self.ref, self.beta, ~self.delta)
