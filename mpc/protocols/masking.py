"""Masking: open a tensor under a one-time mask, once in its life (PROTOCOLS: masks and products).

1. Party i takes lambda_i = PRG(k_i, id); the provider can expand lambda = sum lambda_i.
2. Delta = open(x - lambda), kept with the tensor and used in every product it takes part in.
Cost: 1 round for all tensors masked together; 8 (n - 1) bytes an element; no correction.

Source: Beaver 1991; the mask kept with the wire as in ABY2.0 (Patra, Schneider, Suresh, Yalame
2021, section 3) and Turbospeedz (Ben-Efraim, Nielsen, Omri 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpc.correlation import Algebra, Correlation, MaskRef, Part, View, apply_views
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
    shares : uint64 array of shape (p, *S)
        lambda.
    delta : uint64 array of shape (1, *S)
        Delta = x - lambda, public to the computing parties.
    """

    ref: MaskRef
    shares: Words
    delta: Words

    def view(self, view: View) -> Mask:
        """Return the mask of a view of the tensor."""
        return Mask(
            replace(self.ref, views=(*self.ref.views, view)),
            apply_views(self.shares, [view], 1),
            apply_views(self.delta, [view], 1),
        )


@dataclass(frozen=True)
class TensorMask(Correlation):
    """A uniform mask for a tensor; nothing to correct."""

    shape: tuple[int, ...]

    def masks(self) -> tuple[Part, ...]:
        return (Part(self.shape),)


def cost(parties: int, size: int) -> Spent:
    """Declare the cost of masking `size` elements."""
    return Spent(1, 8 * (parties - 1) * size, 0)


def mask_together(*tensors: SharedArray) -> list[Mask]:
    """Return the mask of every tensor, opening in one round those that have none yet."""
    fresh = list({id(x): x for x in tensors if x.mask is None}.values())
    if fresh:
        _mask(fresh)
    return [x.mask for x in tensors if x.mask is not None]


def _mask(fresh: list[SharedArray]) -> None:
    session = fresh[0].session
    refs, shares = [], []
    messages: list[tuple[Words, Algebra]] = []
    for x in fresh:
        correlation = TensorMask(x.shape)
        number, words = session.correlated(correlation)
        (lam,) = correlation.split(words)
        refs.append(MaskRef(number, correlation.masks()[0]))
        shares.append(lam)
        messages.append((x.shares - lam, "sum"))
    for x, ref, lam, delta in zip(fresh, refs, shares, session.open(*messages), strict=True):
        x.set_mask(Mask(ref, lam, delta))
