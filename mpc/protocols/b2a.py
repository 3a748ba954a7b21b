"""B2A: conversion of Boolean (XOR) shares of a bit to arithmetic (additive) shares.

1. Provider: a random bit beta, <beta>, [beta].
2. delta = open(<b> ^ <beta>): one bit.
3. [b] = delta + (1 - 2 delta) [beta].
The pair (delta, beta) is kept with the result: a later product with b needs no opening of b, see
:mod:`mpc.protocols.select`.
Cost: 1 round, one bit an element; correction 8 bytes.

Source: doubly shared random bits, daBits (Rotaru, Wood 2019, section 3), dealt by the provider.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.known import MaskedBit, SecretBit, SharedBit
from mpc.core.runtime import Runtime, Steps
from mpc.two_party import convert as own_shares
from ring.bits import WORD_BITS, count_words
from ring.compile import kernel
from ring.threads import run

__all__ = ["Masked", "convert", "cost", "mask_bits", "steps", "to_number"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class RandomBits(Correlation):
    """<beta> and [beta] of random bits beta, for planes of `size` bits (daBits)."""

    planes: int
    size: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.planes, count_words(self.size)), "xor"),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.planes, self.size)),)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        run(_subtract_from_bits, self.size, 4 * self.planes, masks[0], out[0])


@kernel
def _subtract_from_bits(start: int, stop: int, planes: Words, out: Words) -> None:
    for k in range(len(planes)):
        plane, row = planes[k], out[k]
        for e in range(start, stop):
            i = np.uint64(e)
            row[i] = (plane[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)) - row[i]


@kernel
def _to_number(start: int, stop: int, delta: Words, beta: Words, first: bool, out: Words) -> None:
    # Rows one after another: each is read and written once, in order. `out` may be `beta`.
    for k in range(len(delta)):
        plane, number, row = delta[k], beta[k], out[k]
        for e in range(start, stop):
            i = np.uint64(e)
            bit = plane[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
            row[i] = (bit if first else np.uint64(0)) + (np.uint64(1) - (bit + bit)) * number[i]


def cost(parties: int, planes: int, size: int) -> Spent:
    """Declare the cost for `planes` planes of `size` bits."""
    return Spent(1, 8 * (parties - 1) * planes * count_words(size), 8 * planes * size)


def to_number(session: Runtime, bit: SecretBit) -> Words:
    """Step 3, for one plane: shares of shape (p, size)."""
    if isinstance(bit, SharedBit):
        return convert(session, bit.planes[:, None], bit.size)[:, 0]
    out = np.empty_like(bit.beta)
    for i in range(len(out)):
        run(
            _to_number, out.shape[1], 4,
            bit.delta, bit.beta[i : i + 1], i == session.first_row, out[i : i + 1],
        )  # fmt: skip
    return out


class Masked:
    """Bit planes whose masked differences are still to be opened, with others' (for protocols).

    Attributes
    ----------
    message : uint64 array of shape (p, planes, words)
        To be opened by XOR.
    """

    def __init__(self, session: Runtime, planes: Words, size: int) -> None:
        self._session, self._size = session, size
        self._shares = session.correlated(RandomBits(planes.shape[1], size))
        self.message = planes ^ self._shares.masks[0]

    def numbers(self, delta: Words) -> Words:
        """Return additive shares of zeros and ones, (p, planes, size), from what was opened."""
        (number,), first = self._shares.corrected, self._session.first_row
        # What was dealt for this alone is overwritten: there can be much of it.
        out = number if number.flags.writeable else np.empty_like(number)
        for i in range(len(out)):
            run(_to_number, self._size, 4 * out.shape[1], delta[0], number[i], i == first, out[i])
        return out


def convert(session: Runtime, planes: Words, size: int) -> Words:
    """Convert bit planes, of `size` bits each.

    Parameters
    ----------
    planes : uint64 array of shape (p, planes, words)
        XOR shares.

    Returns
    -------
    uint64 array of shape (p, planes, size)
        Additive shares of zeros and ones.
    """
    return session.run(steps(session, planes, size))


def steps(session: Runtime, planes: Words, size: int) -> Steps[Words]:
    """Convert bit planes as :func:`convert` does; without a provider before the first step."""
    pair, count, words_each = session.pair, planes.shape[1], planes.shape[2]
    if pair is not None:
        whole = planes.reshape(len(planes), count * words_each)
        found = own_shares.to_number(pair, whole, WORD_BITS * count * words_each)
        return found.reshape(len(planes), count, WORD_BITS * words_each)[..., :size]
    masked = Masked(session, planes, size)
    return masked.numbers((yield masked.message, "xor"))


def mask_bits(session: Runtime, bits: Words, size: int) -> SecretBit:
    """Mask XOR shares of `size` bits, of shape (p, words): steps 1 and 2, for one plane.

    Without a provider they stay as they are.
    """
    if session.pair is not None:
        return SharedBit(bits, size, session.first_row)
    correlation = RandomBits(1, size)
    shares = session.correlated(correlation)
    delta = session.open((bits ^ shares.masks[0][:, 0], "xor"))[0]
    ref = MaskRef(shares.id, Part((count_words(size),), "xor"))
    return MaskedBit(ref, shares.corrected[0][:, 0], delta)
