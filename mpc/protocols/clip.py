"""A secret clipped to public limits, min(max(y, l), h), fused with truncation by s bits.

1. c = open(z + 2^62 + r), and <y <= l> and <y < h> for the truncated y, from one opening: see
   :mod:`mpc.protocols.sign`. 2 rounds.
2. <m> = <y <= l> ^ <y < h>: whether l < y < h. [y m] as in :mod:`mpc.protocols.relu`, with beta dealt
   together with r; [y <= l] and [y < h] as in :mod:`mpc.protocols.b2a`, those whose limit is not zero. All
   bits are opened in 1 round.
3. [y m] + l [y <= l] + h (1 - [y < h]): local.
m is a masked bit at no further cost: the derivative, 0 at both limits.
Exact for every value below 2^62, apart from the truncation's rounding.
Cost at L = 33, for l = 0: 3 rounds, about 11 (n - 1) bytes an element; correction about 89 bytes. Two ReLUs
would take 19 (n - 1) bytes and 129.

Source: ours; the one opening for both limits follows from :mod:`mpc.protocols.sign`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError
from mpc.core.known import MaskedBit, SecretBit, SharedBit
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, linear, relu, sign, truncation
from mpc.two_party.pads import times_bit
from mpc.two_party.sign import sign as own_signs
from ring.bits import count_words

__all__ = ["clip_with_derivative", "cost"]

Words = NDArray[np.uint64]


def cost(parties: int, size: int, shift: int, window: int, limits: int) -> Spent:
    """Declare the cost for `size` elements, with so many limits that are not zero."""
    total = sign.cost(parties, size, shift, window, True, "relu", 2)
    bits = 8 * (parties - 1) * (1 + limits) * count_words(size)
    return total + Spent(1, bits, 8 * limits * size)


def clip_with_derivative(
    x: Secret, low: int | None, high: int | None
) -> tuple[Secret, SecretBit | None]:
    """Return x between limits, with the format's fractional bits, and the bit [low < x < high].

    Limits are encoded with the format's fractional bits. None, or a limit that by its bound x cannot
    pass, is no limit; with one alone the result is a ReLU, with none there is no bit.
    """
    form = x.session.format
    x = truncation.kept(linear.at_bits(x, max(x.frac_bits, form.frac_bits)))
    shift = x.frac_bits - form.frac_bits
    reach = -(-x.bound >> shift)
    if low is not None and high is not None and not low < high:
        raise ArgumentError(f"low must be below high, got {low} and {high}")
    low = None if low is None or low <= -reach else low
    high = None if high is None or high >= reach else high
    with x.session.protocol("clip"):
        if low is None and high is None:
            return truncation.to_format(x), None
        if low is None or high is None:
            side, limit = (-1, high) if low is None else (1, low)
            assert limit is not None
            moved = linear.add_integer(x, -limit << shift)
            moved = moved if side > 0 else linear.negative(moved)

            def back(y: Secret) -> Secret:
                return linear.add_integer(y if side > 0 else linear.negative(y), limit)

            positive, bit = relu.relu_with_derivative(moved)
            if moved.truncated is not None:
                truncation.keep(x, back(moved.truncated).shares, shift)
            return back(positive).with_integer_bound(max(reach, abs(limit))), bit
        return _between(x, shift, low, high)


def _between(x: Secret, shift: int, low: int, high: int) -> tuple[Secret, SecretBit]:
    session, form = x.session, x.session.format
    window = sign.count_bits(-(-x.bound >> shift) + max(abs(low), abs(high)) + 1, shift)
    # y < low + 1 in place of y < low: the same value, and the derivative of a ReLU.
    thresholds = (low + 1, high)
    named = [(k, limit) for k, limit in enumerate((low, high)) if limit]
    numbered = [k for k, _ in named]
    middle: SecretBit
    if session.pair is not None:
        bits, y = own_signs(session.pair, sign.own_words(x, shift), window, shift, thresholds)
        truncation.keep(x, y[:, : x.size], shift)
        inner = bits[:, 0] ^ bits[:, 1]
        middle = SharedBit(inner, x.size, session.first_row)
        out = times_bit(session.pair, y, inner)[:, : x.size]
        numbers = b2a.convert(session, bits[:, numbered], x.size)
    else:
        opened = sign.open_signs(x, shift, window, "relu", thresholds)
        assert opened.beta is not None and opened.ref is not None
        bits = opened.bit.reshape(len(opened.bit), 2, count_words(x.size))
        outer = bits[:, 0] ^ bits[:, 1]
        if session.first_row is not None:
            outer[session.first_row] = ~outer[session.first_row]
        masked = b2a.Masked(session, bits[:, numbered], x.size)
        delta, deltas = session.open((outer ^ opened.beta, "xor"), (masked.message, "xor"))
        out = relu.of_positive(opened, delta, shift, session.first_row)
        if shift:
            truncation.keep_opened(x, shift, opened.c, opened.rings[:, 2], opened.tops)
        middle = MaskedBit(opened.ref, opened.rings[:, 0], delta).negate()
        numbers = masked.numbers(deltas)
    out = np.ascontiguousarray(out)
    for (k, limit), number in zip(named, numbers.transpose(1, 0, 2), strict=True):
        factor = np.uint64(limit % 2**64)
        if k == 0:
            out += factor * number
            continue
        out -= factor * number
        if session.first_row is not None:
            out[session.first_row] += factor
    bound = max(abs(low), abs(high))
    found = out.reshape(len(out), *x.shape)
    return x.derive(found, frac_bits=form.frac_bits, bound=bound), middle
