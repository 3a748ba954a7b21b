"""The product of two secrets that are truncated first, in one round.

1. Provider: r and r' uniform; with h = r >> s, t = r >> 63, and h', t' of r', it shares these four, and
   h h', h t', t h' and t t', with corrections.
2. c = open(z + 2^62 + r), c' = open(z' + 2^62 + r').
3. As in :mod:`mpc.protocols.truncation`, y = z / 2^s is p - h + k t, p and k being public after step 2, and
   y' is p' - h' + k' t'. So
   [y y'] = p p' + p (k' [t'] - [h']) + p' (k [t] - [h]) + [h h'] - k' [h t'] - k [t h'] + k k' [t t'].
Rounded as two truncations round; exact modulo 2^64 otherwise. Truncations and a product one after another
take 2 rounds, and four openings in place of two.
Cost: 1 round, 16 (n - 1) bytes an element; correction 64 bytes.
Without a provider: two truncations and a product.

Source: ours; a truncation's output is held by a mask of which the provider knows both parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError, ShapeError
from mpc.core.secret_value import Secret
from mpc.protocols import linear, product, truncation
from mpc.protocols.truncation import OFFSET_BITS, masked
from ring.compile import kernel
from ring.threads import run

__all__ = ["cost", "multiply"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class TruncatedProduct(Correlation):
    """r, r', and shares of h, t, h', t', h h', h t', t h' and t t', for shifts s and s'."""

    size: int
    left: int
    right: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((2, self.size)),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((8, self.size)),)

    def check(self, limit: int) -> None:
        super().check(limit)
        for shift in (self.left, self.right):
            if not 0 < shift < OFFSET_BITS:
                raise ShapeError(f"shifts must be in [1, {OFFSET_BITS - 1}], got {shift}")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        run(_deal, self.size, 10, masks[0], self.left, self.right, out[0])


@kernel
def _deal(start: int, stop: int, r: Words, left: int, right: int, out: Words) -> None:
    top = np.uint64(63)
    for e in range(start, stop):
        i = np.uint64(e)
        h, t = r[0, i] >> np.uint64(left), r[0, i] >> top
        k, u = r[1, i] >> np.uint64(right), r[1, i] >> top
        out[0, i] = h - out[0, i]
        out[1, i] = t - out[1, i]
        out[2, i] = k - out[2, i]
        out[3, i] = u - out[3, i]
        out[4, i] = h * k - out[4, i]
        out[5, i] = h * u - out[5, i]
        out[6, i] = t * k - out[6, i]
        out[7, i] = t * u - out[7, i]


@kernel
def _finish(
    start: int, stop: int, c: Words, dealt: Words, left: int, right: int, first: bool, out: Words
) -> None:
    one, top = np.uint64(1), np.uint64(63)
    for e in range(start, stop):
        i = np.uint64(e)
        p = (c[0, i] >> np.uint64(left)) - (one << np.uint64(62 - left))
        q = (c[1, i] >> np.uint64(right)) - (one << np.uint64(62 - right))
        k = (one - (c[0, i] >> top)) << np.uint64(64 - left)
        m = (one - (c[1, i] >> top)) << np.uint64(64 - right)
        total = p * (m * dealt[3, i] - dealt[2, i]) + q * (k * dealt[1, i] - dealt[0, i])
        total += dealt[4, i] - m * dealt[5, i] - k * dealt[6, i] + k * m * dealt[7, i]
        out[i] = total + p * q if first else total


def cost(parties: int, size: int) -> Spent:
    """Declare the cost for `size` elements."""
    return Spent(1, 16 * (parties - 1) * size, 64 * size)


def multiply(x: Secret, left: int, y: Secret, right: int, bound: int) -> Secret:
    """Return (x / 2^left) (y / 2^right), for x and y of one shape.

    The result has the fractional bits that are left of both, and a bound that the caller knows.
    """
    for shift in (left, right):
        if not 0 < shift < OFFSET_BITS:
            raise ArgumentError(f"shift must be in [1, {OFFSET_BITS - 1}], got {shift}")
    session, size = x.session, x.size
    bits = x.frac_bits - left + y.frac_bits - right
    if session.pair is not None:
        a, b = truncation.divide_together([(x, left), (y, right)])
        with session.range_policy.vouched():
            found = product.multiply(a, b, whole=True)
        return linear.placed(found, bits, bound)
    with session.protocol("truncated product"):
        shares = session.correlated(TruncatedProduct(size, left, right))
        (r,) = shares.masks
        messages = [masked(session, z, r[:, k]) for k, z in enumerate((x, y))]
        opened = session.open((np.concatenate(messages, axis=1), "sum"))[0]
        c = opened.reshape(len(opened), 2, size)
        (dealt,) = shares.corrected
        out = np.empty((len(r), size), np.uint64)
        for i in range(len(out)):
            run(_finish, size, 20, c[0], dealt[i], left, right, i == session.first_row, out[i])
    return x.derive(out.reshape(len(out), *x.shape), frac_bits=bits, bound=bound)
