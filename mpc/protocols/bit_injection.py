"""Bit injection, a product with a secret bit, with truncation by s bits in one opening: ReLU's gradient.

y b for y = z / 2^s and a masked bit b = delta ^ beta, delta public, as comparisons and ReLU give it.
Needs |z| < 2^62. In tables of costs this protocol is called "gate".
1. Provider: r uniform, [r >> s], [r >> 63], [beta (r >> s)], [beta (r >> 63)].
2. c = open(z + 2^62 + r), the first party adding 2^62. If z is a product, the provider subtracts its
   cross term C from r, see :mod:`mpc.protocols.truncation`.
3. With A = (c >> s) - 2^(62 - s) and kappa = (1 - (c >> 63)) 2^(64 - s), locally
   [y] = A - [r >> s] + kappa [r >> 63],
   [y beta] = A [beta] - [beta (r >> s)] + kappa [beta (r >> 63)],
   [y b] = delta [y] + (1 - 2 delta) [y beta].
y is z / 2^s, rounded as :mod:`mpc.protocols.truncation` does it; it is kept with z, and taken if it was.
Cost: 1 round, 8 (n - 1) bytes an element; correction 20 bytes an element, 24 for s > 16. Truncating
first and multiplying then takes 2 rounds, 16 (n - 1) bytes and 18 bytes of correction.

Source: :mod:`mpc.protocols.truncation`; the product with a masked bit as in ABY2.0's bit injection
(Patra, Schneider, Suresh, Yalame 2021, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part, check_dealt
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.known import SecretBit, SharedBit
from mpc.core.secret_value import Secret
from mpc.protocols.select import multiply_bit
from mpc.protocols.truncation import (
    OFFSET_BITS,
    check_cross_term,
    deal_tops,
    keep,
    keep_opened,
    kept,
    open_masked,
    take_in,
    tops_part,
)
from mpc.two_party import select as own_shares
from mpc.two_party.joint import fresh_shares
from ring.bits import count_words, fold_of, lane
from ring.compile import kernel
from ring.threads import run

__all__ = ["cost", "inject"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class GatePair(Correlation):
    """r, [r >> shift], [r >> 63], and both times beta; `cross_term` is the C of a product.

    `GatePair` is its name on the wire.
    """

    size: int
    shift: int
    beta: MaskRef
    cross_term: Correlation | None = None

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((2, self.size)), tops_part(2, self.size, self.shift))

    def check(self, limit: int) -> None:
        super().check(limit)
        check_cross_term(self.cross_term, self.size, limit)
        if not 0 < self.shift < OFFSET_BITS or self.beta.check(limit) != (count_words(self.size),):
            raise ShapeError(
                f"shift must be in [1, {OFFSET_BITS - 1}], and beta a plane of {self.size} bits,"
                f" got the shift {self.shift} and {self.beta.part.shape}"
            )

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        take_in(self.cross_term, provider, masks[0])
        beta = provider.mask(self.beta)
        check_dealt(beta, count_words(self.size))
        run(_deal, self.size, 6, masks[0], beta, self.shift, out[0])
        deal_tops(masks[0], self.shift, out[1], beta)


@kernel
def _deal(start: int, stop: int, r: Words, beta: Words, shift: int, out: Words) -> None:
    for e in range(start, stop):
        i = np.uint64(e)
        bit = beta[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        high = r[i] >> np.uint64(shift)
        out[0, i] = high - out[0, i]
        out[1, i] = bit * high - out[1, i]


@kernel
def _finish(
    start: int, stop: int,
    c: Words, delta: Words, beta: Words, rings: Words, tops: Words, shift: int, fold: int,
    first: bool, out: Words,
) -> None:  # fmt: skip
    offset = np.uint64(1) << np.uint64(62 - shift)
    one, zero = np.uint64(1), np.uint64(0)
    for e in range(start, stop):
        i = np.uint64(e)
        bit = delta[i >> np.uint64(6)] >> (i & np.uint64(63)) & one
        a = (c[i] >> np.uint64(shift)) - offset
        kappa = (one - (c[i] >> np.uint64(63))) << np.uint64(64 - shift)
        y = (a if first else zero) - rings[0, i] + kappa * lane(tops[0], i, fold)
        y_beta = a * beta[i] - rings[1, i] + kappa * lane(tops[1], i, fold)
        out[i] = y - y_beta if bit else y_beta


def cost(parties: int, size: int, shift: int) -> Spent:
    """Declare the cost for `size` elements that have to be truncated by `shift` bits."""
    tops = tops_part(2, size, shift).size
    return Spent(1, 8 * (parties - 1) * size, 8 * (2 * size + tops))


def inject(z: Secret, bit: SecretBit) -> Secret:
    """Return z times a bit of the same shape, with at most the session's fractional bits."""
    session, z = z.session, kept(z)
    shift = z.frac_bits - session.format.frac_bits
    if shift <= 0:
        return multiply_bit(z, bit)
    pair = session.pair
    with session.protocol("gate"):
        if isinstance(bit, SharedBit):
            assert pair is not None
            out, y = own_shares.gate(pair, fresh_shares(session, z.shares), bit.planes, shift)
            keep(z, y, shift)
            return z.derive(
                out.reshape(len(out), *z.shape),
                frac_bits=session.format.frac_bits,
                bound=-(-z.bound >> shift),
            )
        held, cross_term = z.split_cross_term()
        dealt = GatePair(z.size, shift, bit.ref, cross_term)
        shares = session.correlated(dealt)
        c = open_masked(session, held, shares.masks[0])
        rings, tops = shares.corrected
        out = np.empty((len(session.here), z.size), np.uint64)
        for i in range(len(out)):
            run(
                _finish, z.size, 10,
                c[0], bit.delta[0], bit.beta[i], rings[i], tops[i], shift, fold_of(shift),
                i == session.first_row, out[i],
            )  # fmt: skip
        keep_opened(z, shift, c, rings[:, 0], tops)
        return z.derive(
            out.reshape(len(out), *z.shape),
            frac_bits=session.format.frac_bits,
            bound=-(-z.bound >> shift),
        )
