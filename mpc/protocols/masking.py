"""Masking: open a tensor under a one-time mask, once in its life (PROTOCOLS: masks and products).

1. Party i takes lambda_i = PRG(k_i, id); the provider can expand lambda = sum lambda_i.
2. Delta = open(x - lambda), kept with the tensor and used in every product it takes part in.
A value as its owner j has given it takes a mask that j knows: lambda_j = PRG(k_j, id), the others'
being zero. Then j alone sends Delta, and products have nothing to compute where a zero stands.
The others see Delta only, under a mask they know nothing of, however many of them collude.
Cost: 1 round for all tensors masked together; 8 (n - 1) bytes an element, from every party or
from the owner alone; no correction.

Source: Beaver 1991; the mask kept with the wire, and known to an input's owner, as in ABY2.0
(Patra, Schneider, Suresh, Yalame 2021, section 3.1) and Turbospeedz (Ben-Efraim, Nielsen, Omri
2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import MaskRef, Opening, Part, View, apply_views
from mpc.cost import Spent

if TYPE_CHECKING:
    from mpc.shared_array import SharedArray

__all__ = ["Mask", "cost", "mask_together"]

Words = NDArray[np.uint64]


@dataclass(frozen=True, repr=False)
class Mask:
    """A tensor's mask: how the provider finds it, its shares, and the opened difference.

    Attributes
    ----------
    ref : MaskRef
    rows : tuple of int
        The rows of the party axis with a share that is not zero: all, or the owner's, if any.
    shares : uint64 array of shape (len(rows), *S)
        lambda.
    delta : uint64 array of shape (1, *S)
        Delta = x - lambda, public to the computing parties.
    """

    ref: MaskRef
    rows: tuple[int, ...]
    shares: Words
    delta: Words

    def view(self, view: View) -> Mask:
        """Return the mask of a view of the tensor."""
        return Mask(
            replace(self.ref, views=(*self.ref.views, view)),
            self.rows,
            apply_views(self.shares, [view], 1),
            apply_views(self.delta, [view], 1),
        )


def cost(parties: int, size: int) -> Spent:
    """Declare the cost of masking, `size` elements from the party that sends most."""
    return Spent(1, 8 * (parties - 1) * size, 0)


def mask_together(*tensors: SharedArray) -> list[Mask]:
    """Return the mask of every tensor, opening in one round those that have none yet."""
    fresh = list({id(x): x for x in tensors if x.mask is None}.values())
    if fresh:
        _mask(fresh)
    return [x.mask for x in tensors if x.mask is not None]


def _mask(fresh: list[SharedArray]) -> None:
    session = fresh[0].session
    session.check_open()
    hidden: list[tuple[MaskRef, tuple[int, ...], Words]] = []
    messages: list[tuple[Words, Opening]] = []
    for x in fresh:
        owner = None if x.given is None else x.given.owner
        rows = tuple(k for k, party in enumerate(session.here) if owner in (None, party))
        number = session.fresh_id()
        lam = np.empty((len(rows), *x.shape), np.uint64)
        for k, row in enumerate(rows):
            session.streams[session.here[row]].provider.fill(lam[k, ...], number)
        hidden.append((MaskRef(number, Part(x.shape), owner=owner), rows, lam))
        if x.given is None:
            messages.append((x.shares - lam, "sum"))
        else:
            messages.append((x.given.encoded - lam, x.given.owner))
    for x, (ref, rows, lam), delta in zip(fresh, hidden, session.open(*messages), strict=True):
        x.set_mask(Mask(ref, rows, lam, delta))
