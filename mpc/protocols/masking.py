"""Masking: open a tensor under a one-time mask, once in its life.

1. Party i takes lambda_i = PRG(k_i, id); the provider can expand lambda = sum lambda_i.
2. Delta = open(x - lambda), kept with the tensor and used in every product it takes part in.
A value as its owner j has given it takes a mask that j knows: lambda_j = PRG(k_j, id), the others'
being zero. Then j alone sends Delta, and products have nothing to compute where a zero stands.
The others see Delta only, under a mask they know nothing of, however many of them collude.
Cost: 1 round for all tensors masked together; 8 (n - 1) bytes an element, from every party or
from the owner alone; no correction.
A data set is opened in pieces, a round each, and the shares of its mask are not kept: a batch of
its rows expands those of its own rows when it needs them.

Source: Beaver 1991; the mask kept with the wire, and known to an input's owner, as in ABY2.0
(Patra, Schneider, Suresh, Yalame 2021, section 3.1) and Turbospeedz (Ben-Efraim, Nielsen, Omri
2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import MaskRef, Opening, Part, View, apply_views, chosen_rows
from mpc.cost import Spent

if TYPE_CHECKING:
    from mpc.session import Session
    from mpc.shared_array import SharedArray

__all__ = ["Mask", "cost", "mask_data", "mask_together", "rows_at_once"]

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
        self, ref: MaskRef, rows: tuple[int, ...], shares: Words | Session, delta: Words
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
            self._shares = _expand(self._shares, self.ref, self.rows)
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


def _holders(session: Session, x: SharedArray) -> tuple[int | None, tuple[int, ...]]:
    """Return who has given x, if that is one party, and who here has a share of its mask."""
    owner = None if x.given is None else x.given.owner
    return owner, tuple(k for k, party in enumerate(session.here) if owner in (None, party))


def _expand(session: Session, ref: MaskRef, rows: tuple[int, ...]) -> Words:
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


def cost(parties: int, size: int, pieces: int = 1) -> Spent:
    """Declare the cost of masking, `size` elements from the party that sends most."""
    return Spent(pieces, 8 * (parties - 1) * size, 0)


def mask_together(*tensors: SharedArray) -> list[Mask]:
    """Return the mask of every tensor, opening in one round those that have none yet."""
    fresh = list({id(x): x for x in tensors if x.mask is None}.values())
    if fresh:
        _mask(fresh)
    return [x.mask for x in tensors if x.mask is not None]


def _message(x: SharedArray, lam: Words, rows: slice | None = None) -> tuple[Words, Opening]:
    """Return what is opened of x, or of some of its rows."""
    words = x.shares if x.given is None else x.given.encoded
    words = words if rows is None else words[:, rows]
    return words - lam, "sum" if x.given is None else x.given.owner


def _mask(fresh: list[SharedArray]) -> None:
    session = fresh[0].session
    session.check_open()
    hidden: list[tuple[MaskRef, tuple[int, ...], Words]] = []
    messages: list[tuple[Words, Opening]] = []
    for x in fresh:
        owner, rows = _holders(session, x)
        ref = MaskRef(session.fresh_id(), Part(x.shape), owner=owner)
        lam = _expand(session, ref, rows)
        hidden.append((ref, rows, lam))
        messages.append(_message(x, lam))
    for x, (ref, rows, lam), delta in zip(fresh, hidden, session.open(*messages), strict=True):
        x.set_mask(Mask(ref, rows, lam, delta))


def rows_at_once(x: SharedArray) -> int:
    """Return how many rows :func:`mask_data` opens in a piece."""
    # A piece's shares, mask and message, and what is opened.
    row = 8 * (3 * x.session.size + 1) * max(1, x.size // max(1, len(x)))
    return max(1, x.session.memory_limit // (4 * row))


def mask_data(x: SharedArray) -> None:
    """Mask a data set of which batches of rows are to be used, again and again.

    Every batch is then a view that needs no opening. Besides what was there and Delta itself, the
    session's memory limit bounds what this takes.
    """
    if x.mask is not None or not x.size:
        return
    session = x.session
    owner, rows = _holders(session, x)
    ref = MaskRef(session.fresh_id(), Part(x.shape), owner=owner)
    delta = np.empty((min(1, len(session.here)), *x.shape), np.uint64)
    some = rows_at_once(x)
    with session.protocol("masking"):
        for start in range(0, len(x), some):
            piece = slice(start, start + some)
            lam = _expand(session, ref.view(("index", (piece,))), rows)
            (opened,) = session.open(_message(x, lam, piece))
            delta[:, piece] = opened
    x.set_mask(Mask(ref, rows, session, delta))
