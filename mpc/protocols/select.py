"""Bit injection: a secret number times a secret bit.

The bit is a masked bit, b = delta ^ beta with delta public, as comparisons and ReLU give it.
1. Mask g, if it has no mask yet: Delta_g.
2. Provider: [lambda_g beta], shared with a correction.
3. [g beta] = Delta_g [beta] + [lambda_g beta];  [g b] = delta [g] + (1 - 2 delta) [g beta].
Cost: 1 round, 8 (n - 1) bytes an element (none if g has its mask); correction 8 bytes an element.

Source: bit injection, ABY2.0 (Patra, Schneider, Suresh, Yalame 2021, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part, check_dealt
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.known import SecretBit, SharedBit
from mpc.core.secret_value import Secret
from mpc.protocols.masking import mask_together
from mpc.two_party import select as own_shares
from ring.bits import count_words
from ring.compile import kernel
from ring.threads import run

__all__ = ["cost", "multiply_bit"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class BitTerm(Correlation):
    """[lambda_g beta], the cross term of g and a masked bit."""

    g: MaskRef
    beta: MaskRef
    size: int

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def check(self, limit: int) -> None:
        super().check(limit)
        g, beta = self.g.check(limit), self.beta.check(limit)
        if prod(g) != self.size or beta != (count_words(self.size),):
            raise ShapeError(
                f"g must have {self.size} elements, and beta a bit for each, got the shapes {g} and {beta}"
            )

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        lam = np.ascontiguousarray(provider.mask(self.g)).reshape(-1)
        beta = provider.mask(self.beta)
        check_dealt(lam, self.size)
        check_dealt(beta, count_words(self.size))
        run(_deal, self.size, 4, lam, beta, out[0])


@kernel
def _deal(start: int, stop: int, lam: Words, beta: Words, out: Words) -> None:
    for e in range(start, stop):
        i = np.uint64(e)
        bit = beta[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        out[i] = bit * lam[i] - out[i]


@kernel
def _finish(
    start: int,
    stop: int,
    delta: Words,
    beta: Words,
    g: Words,
    g_delta: Words,
    cross_term: Words,
    out: Words,
) -> None:
    for e in range(start, stop):
        i = np.uint64(e)
        bit = delta[i >> np.uint64(6)] >> (i & np.uint64(63)) & np.uint64(1)
        g_beta = g_delta[i] * beta[i] + cross_term[i]
        out[i] = g[i] - g_beta if bit else g_beta


def cost(parties: int, masked: int, size: int) -> Spent:
    """Declare the cost: `masked` elements of g have to be opened, the product has `size`."""
    return Spent(1 if masked else 0, 8 * (parties - 1) * masked, 8 * size)


def multiply_bit(g: Secret, bit: SecretBit) -> Secret:
    """Multiply g by a bit of the same shape."""
    session = g.session
    pair = session.pair
    with session.protocol("select"):
        if isinstance(bit, SharedBit):
            assert pair is not None
            numbers = g.shares.reshape(len(g.shares), g.size)
            chosen = own_shares.select(pair, numbers, bit.planes)
            return g.derive(
                chosen.reshape(g.shares.shape),
                frac_bits=g.frac_bits,
                bound=g.bound,
                binary=g.binary,
            )
        (mask,) = mask_together(g)
        (cross_term,) = session.correlated(BitTerm(mask.ref, bit.ref, g.size)).corrected
        out = np.empty_like(cross_term)
        shares = np.ascontiguousarray(g.shares).reshape(len(out), g.size)
        delta = np.ascontiguousarray(mask.delta).reshape(len(mask.delta), g.size)
        for i in range(len(out)):
            run(
                _finish,
                g.size,
                8,
                bit.delta[0],
                bit.beta[i],
                shares[i],
                delta[0],
                cross_term[i],
                out[i],
            )
        return g.derive(
            out.reshape(len(out), *g.shape), frac_bits=g.frac_bits, bound=g.bound, binary=g.binary
        )
