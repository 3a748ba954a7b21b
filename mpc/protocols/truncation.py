"""Truncation by s bits.

Needs |z| < 2^62.
1. Provider: r uniform, [r >> s] and [r >> 63], shared with corrections. Of shares of r >> 63 only s bits
   are dealt, since they are multiplied by 2^(64 - s) below: for s <= 16 four of them take a word.
2. c = open(z + 2^62 + r), the first party adding 2^62.
   If z is a product, the parties hold shares of z - C, and the provider knows the cross term C
   (:mod:`mpc.protocols.product`). The parties mask with D = sum PRG(k_i, id), as always, and open
   c = (z - C) + 2^62 + D; the provider takes r = D - C. r is as uniform as D, which is independent of
   C, and shares of C are never dealt.
3. kappa = (1 - (c >> 63)) 2^(64 - s), public; locally
   [y] = (c >> s) - 2^(62 - s) - [r >> s] + kappa [r >> 63].
y is floor(z / 2^s) or that plus 1, the latter with probability (z mod 2^s) / 2^s exactly:
unbiased, and never wrong by a wrap-around. y is rounded up if z mod 2^s exceeds c mod 2^s, which is
public: whoever learns y learns z + (r mod 2^s) = 2^s y + (c mod 2^s), where r mod 2^s is uniform and known
to no party. So a product is truncated once, however often it is revealed or taken in the format:
protocols that truncate to the format on their way, such as ReLU, keep what they have rounded, and take
what was kept. A new array has a rounding of its own: a view, the same product once more, a sum with a
number. So has each result that is rounded to other places: means, quotients, products with public
numbers, exponentials.
Cost: 1 round, 8 (n - 1) bytes an element; correction 10 bytes an element, 12 for s > 16.
Without a provider: :mod:`mpc.two_party.truncation`, with the same rounding.
If y is to be revealed at once, c and R = r >> s are opened together, to those who learn y:
y = (c >> s) - 2^(62 - s) - R modulo 2^(64 - s), as a signed number. Who sees c and R sees what c and y
show: each follows from the other. Cost: 1 round, 16 (n - 1) bytes an element, 16 to one party. Shares of
y, should they be needed later, take an opening of c unless all parties know it.

c alone tells nothing about z, since r is uniform.

Source: Escudero, Ghosh, Keller, Rachuri, Scholl 2020, section 5; Dalskov, Escudero, Keller 2020. On the
leak of other probabilistic truncations: Santos et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import LANES, Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError, ShapeError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret, SecretValue
from mpc.two_party import truncation as own_shares
from mpc.two_party.joint import fresh_shares
from mpc.two_party.pair import Pair
from ring.bits import count_lane_words, fold_of, lane
from ring.compile import kernel
from ring.threads import run

__all__ = [
    "OFFSET_BITS",
    "RoundLater",
    "check_cross_term",
    "cost",
    "deal_high",
    "deal_tops",
    "divide_together",
    "finish",
    "keep",
    "keep_opened",
    "kept",
    "masked",
    "open_masked",
    "round_later",
    "take_in",
    "to_format",
    "tops_part",
    "truncate",
]

Words = NDArray[np.uint64]

OFFSET_BITS = 62
_OFFSET = np.uint64(1 << OFFSET_BITS)


@dataclass(frozen=True)
class TruncationPair(Correlation):
    """r, [r >> shift] and [r >> 63]; `cross_term` is the C of a product, None for other values."""

    size: int
    shift: int
    cross_term: Correlation | None = None

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((self.size,)), tops_part(1, self.size, self.shift))

    def check(self, limit: int) -> None:
        super().check(limit)
        check_cross_term(self.cross_term, self.size, limit)
        if not 0 < self.shift < OFFSET_BITS:
            raise ShapeError(f"shift must be in [1, {OFFSET_BITS - 1}], got {self.shift}")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        take_in(self.cross_term, provider, masks[0])
        deal_high(masks[0], self.shift, out[0])
        deal_tops(masks[0], self.shift, out[1])


def check_cross_term(cross_term: Correlation | None, size: int, limit: int) -> None:
    """Raise ShapeError unless the cross term can be subtracted from a mask of `size` elements."""
    if cross_term is None:
        return
    cross_term.check(limit)
    if cross_term.masks() or [(part.size, part.algebra) for part in cross_term.corrected()] != [
        (size, "sum")
    ]:
        raise ShapeError(
            f"a cross term of a mask must have {size} elements and no masks of its own, got a"
            f" {type(cross_term).__name__}"
        )


def take_in(cross_term: Correlation | None, provider: MaskSource, mask: Words) -> None:
    """Replace D by r = D - C, in place, if there is a cross term C."""
    if cross_term is not None:
        (part,) = cross_term.corrected()
        cross_term.deal(provider, [], [mask.reshape(part.shape)])  # to C - D
        np.negative(mask, out=mask)


def tops_part(rows: int, size: int, shift: int) -> Part:
    """Return the part of `rows` rows of numbers of which only `shift` bits are dealt, in lanes."""
    fold = fold_of(shift)
    return Part((rows, count_lane_words(size, fold)), LANES[fold])


def deal_high(r: Words, shift: int, out: Words) -> None:
    """Compute the last party's share of [r >> shift], in `out`, from the sum of the others'."""
    run(_deal_high, r.size, 2, r, shift, out)


@kernel
def _deal_high(start: int, stop: int, r: Words, shift: int, out: Words) -> None:
    r, out = r[start:stop], out[start:stop]
    for e in range(r.size):
        out[e] = (r[e] >> np.uint64(shift)) - out[e]


def deal_tops(r: Words, shift: int, out: Words, beta: Words | None = None) -> None:
    """Compute the last party's share of [r >> 63], in `out`, from the sum of the others'.

    A second row of `out`, if there is one, is [beta (r >> 63)].
    """
    fold = fold_of(shift)
    bits = np.empty(0, np.uint64) if beta is None else beta
    run(_deal_tops, out.shape[1], 8 << fold, r, bits, fold, out)


@kernel
def _deal_tops(start: int, stop: int, r: Words, beta: Words, fold: int, out: Words) -> None:
    lanes, width = 1 << fold, np.uint64(64 >> fold)
    whole = ~np.uint64(0) >> (np.uint64(64) - width)
    for word in range(start, stop):
        for row in range(out.shape[0]):
            others, last = out[row, word], np.uint64(0)
            for k in range(min(lanes, r.size - word * lanes)):
                i, place = np.uint64(word * lanes + k), np.uint64(k) * width
                top = r[i] >> np.uint64(63)
                if row:
                    top &= beta[i >> np.uint64(6)] >> (i & np.uint64(63))
                last |= (top - (others >> place) & whole) << place
            out[row, word] = last


@kernel
def _finish(
    start: int, stop: int,
    c: Words, high: Words, tops: Words, shift: int, fold: int, first: bool, out: Words,
) -> None:  # fmt: skip
    offset = np.uint64(1) << np.uint64(62 - shift)
    for e in range(start, stop):
        i = np.uint64(e)
        kappa = (np.uint64(1) - (c[i] >> np.uint64(63))) << np.uint64(64 - shift)
        public = (c[i] >> np.uint64(shift)) - offset if first else np.uint64(0)
        out[i] = public - high[i] + kappa * lane(tops, i, fold)


def cost(parties: int, size: int, shift: int) -> Spent:
    """Declare the cost of truncating `size` elements by `shift` bits."""
    return Spent(1, 8 * (parties - 1) * size, 8 * TruncationPair(size, shift).corrected_words)


@kernel
def _mask(start: int, stop: int, z: Words, r: Words, offset: np.uint64, out: Words) -> None:
    z, r, out = z[start:stop], r[start:stop], out[start:stop]
    for e in range(z.size):
        out[e] = z[e] + r[e] + offset


def masked(session: Runtime, z: SecretValue, r: Words) -> Words:
    """Return the message of step 2: shares of z + 2^62 + r, of shape (p, size of z).

    If the cross term is split off z, `r` holds shares of D.
    """
    message = np.empty(r.shape, np.uint64)
    addends = dict(z.addends())
    for row in range(len(message)):
        offset = _OFFSET if row == session.first_row else np.uint64(0)
        if row in addends:
            words = np.ascontiguousarray(addends[row]).reshape(-1)
            run(_mask, z.size, 2, words, r[row], offset, message[row])
        else:
            np.add(r[row], offset, out=message[row])
    return message


def open_masked(session: Runtime, z: SecretValue, r: Words) -> Words:
    """Open z + 2^62 + r, see :func:`masked`."""
    return session.open((masked(session, z, r), "sum"))[0]


def finish(session: Runtime, c: Words, high: Words, tops: Words, shift: int) -> Words:
    """Step 3: shares of y, of shape (p, n), from c and shares of [r >> s] and [r >> 63]."""
    out = np.empty_like(high)
    for i in range(len(out)):
        run(
            _finish, out.shape[1], 6,
            c[0], high[i], tops[i, 0], shift, fold_of(shift), i == session.first_row, out[i],
        )  # fmt: skip
    return out


def truncate(x: Secret, shift: int) -> Secret:
    """Divide by 2^shift with stochastic rounding, and drop as many fractional bits."""
    return divide_by_power(x, shift, x.frac_bits - shift)


def divide_by_power(x: Secret, shift: int, frac_bits: int) -> Secret:
    """Shift the shared integers right by `shift` bits; the result has `frac_bits`."""
    if frac_bits < 0:
        raise ArgumentError(
            f"shift must not exceed the fractional bits of x, {x.frac_bits}, got {shift}"
        )
    (y,) = divide_by_powers(x, [shift])
    return y.derive(y.shares, frac_bits=frac_bits, bound=y.bound)


def divide_by_powers(x: Secret, shifts: Sequence[int]) -> list[Secret]:
    """Return the shared integers shifted right by each of `shifts`, all in one round."""
    return divide_together([(x, shift) for shift in shifts])


def divide_together(pairs: Sequence[tuple[Secret, int]]) -> list[Secret]:
    """Return shared integers, each shifted right by its own number of bits, all in one round."""
    for _, shift in pairs:
        if not 0 < shift < OFFSET_BITS:
            raise ArgumentError(f"shift must be in [1, {OFFSET_BITS - 1}], got {shift}")
    session = pairs[0][0].session
    pair = session.pair
    with session.protocol("truncation"):
        if pair is not None:
            return [_on_own_shares(pair, x, shift) for x, shift in pairs]
        messages, dealt = [], []
        for x, shift in pairs:
            z, cross_term = x.split_cross_term()
            correlation = TruncationPair(x.size, shift, cross_term)
            dealt.append(session.correlated(correlation))
            messages.append(masked(session, z, dealt[-1].masks[0]))
        opened = session.open(*((message, "sum") for message in messages))
        results = []
        for (x, shift), c, shares in zip(pairs, opened, dealt, strict=True):
            high, tops = shares.corrected
            out = finish(session, c, high, tops, shift)
            # Rounding adds at most one, and nothing to a multiple of 2^shift.
            results.append(
                x.derive(out.reshape(len(out), *x.shape), frac_bits=0, bound=-(-x.bound >> shift))
            )
        return results


def _on_own_shares(pair: Pair, x: Secret, shift: int) -> Secret:
    shares = own_shares.truncate(pair, fresh_shares(x.session, x.shares), shift)
    return x.derive(shares.reshape(len(shares), *x.shape), frac_bits=0, bound=-(-x.bound >> shift))


def _signed(c: Words, above: Words, shift: int) -> Words:
    """Return y of an opened c and the opened bits of r above the shift."""
    y = (c >> np.uint64(shift)) - (_OFFSET >> np.uint64(shift)) - above
    # The bits above 64 - s are those of the sign.
    return ((y << np.uint64(shift)).view(np.int64) >> np.int64(shift)).view(np.uint64)


class RoundLater:
    """Truncation up to step 2: c is opened when the result is revealed, or when shares of it are needed.

    Parameters
    ----------
    session : Runtime
    shift : int
    shape : tuple of int
        Of y.
    parts : callable
        Returns shares of [r >> s] and [r >> 63], as :func:`finish` takes them.
    message, c : uint64 array of shape (p, size), or (1, size)
        What is to be opened, or what has been: one of the two.
    """

    def __init__(
        self,
        session: Runtime,
        shift: int,
        shape: tuple[int, ...],
        parts: Callable[[], Sequence[Words]],
        *,
        message: Words | None = None,
        c: Words | None = None,
    ) -> None:
        self._session, self._shift, self.shape = session, shift, shape
        self._parts, self._message, self._c = parts, message, c

    @property
    def opened(self) -> bool:
        """Whether all parties know c."""
        return self._c is not None

    def shares(self) -> Words:
        """Open c unless it is known, and return shares of y: step 3."""
        if self._c is None:
            assert self._message is not None
            with self._session.protocol("truncation"):
                (self._c,) = self._session.open((self._message, "sum"))
        high, tops = self._parts()
        out = finish(self._session, self._c, high, tops, self._shift)
        return out.reshape(len(out), *self.shape)

    def reveal(self, to: int | None) -> Words:
        """Open R, and c unless it is known, to all or to one; return y where it is learnt."""
        session = self._session
        sent = high = self._parts()[0]
        if self._c is None:
            assert self._message is not None
            sent = np.stack([self._message, high], axis=1)
        opened = session.open((sent, "sum"))[0] if to is None else session.open_to(to, sent)
        if self._c is not None:
            c, above = self._c[: len(opened)], opened
        else:
            c, above = opened[:, 0], opened[:, 1]
            if to is None:
                self._c = np.ascontiguousarray(c)
        return _signed(c, above, self._shift).reshape(len(opened), *self.shape)

    def values(self) -> Words:
        """Return y where all parties live here: without a word."""
        c = self._c
        if c is None:
            assert self._message is not None
            c = self._message.sum(axis=0, dtype=np.uint64)
        above = self._parts()[0].sum(axis=0, dtype=np.uint64)
        return _signed(c.reshape(above.shape), above, self._shift).reshape(self.shape)

    def without_shares(self, planned: Runtime) -> RoundLater:
        """Return the same where no party lives (for plans)."""

        none = np.empty((0, prod(self.shape)), np.uint64)
        c, message = (none, None) if self.opened else (None, none)
        return RoundLater(
            planned, self._shift, self.shape, lambda: (none, none[:, None]), message=message, c=c
        )


def round_later(x: Secret) -> Secret:
    """Return :func:`to_format` of x, without a round: it takes one when it is revealed, or used."""
    session = x.session
    shift = x.frac_bits - session.format.frac_bits
    if shift <= 0 or x.truncated is not None or session.pair is not None or shift >= OFFSET_BITS:
        return to_format(x)
    held, cross_term = x.split_cross_term()
    with session.protocol("truncation"):
        dealt = session.correlated(TruncationPair(x.size, shift, cross_term))
        message = masked(session, held, dealt.masks[0])
    later = RoundLater(session, shift, x.shape, lambda: dealt.corrected, message=message)
    return _keep_pending(x, shift, later)


def _keep_pending(x: Secret, shift: int, later: RoundLater) -> Secret:
    bound = -(-x.bound >> shift)
    x.truncated = x.derive(None, frac_bits=x.frac_bits - shift, bound=bound, pending=later)
    return x.truncated


def kept(x: Secret) -> Secret:
    """Return x in the format, if it was truncated to it before; else x as it is.

    Protocols that truncate to the format on their way begin with this and end with :func:`keep` or
    :func:`keep_opened`: each new rounding of one value would tell something of the bits that truncation
    takes away.
    """
    y = x.truncated
    if y is None:
        return x
    bound = -(-x.bound >> x.frac_bits - y.frac_bits)
    return y.with_integer_bound(bound) if bound < y.bound else y


def keep(x: Secret, words: Words, shift: int) -> None:
    """Keep shares of x, truncated by `shift` bits to the format, with x."""
    if shift:
        shares = words.reshape(len(words), *x.shape)
        bound = -(-x.bound >> shift)
        x.truncated = x.derive(shares, frac_bits=x.frac_bits - shift, bound=bound)


def keep_opened(x: Secret, shift: int, c: Words, high: Words, tops: Words) -> None:
    """Keep x truncated by `shift` bits to the format with x; shares follow by step 3 when needed."""
    if shift:
        # Copies: rows of what was dealt would hold all of it, tables too, for as long as x lives.
        parts = high.copy(), tops[:, :1].copy()
        later = RoundLater(x.session, shift, x.shape, lambda: parts, c=c)
        _keep_pending(x, shift, later)


def to_format(x: Secret) -> Secret:
    """Truncate x to the session's fractional bits, if it has more; the result is kept with x."""
    extra = x.frac_bits - x.session.format.frac_bits
    if extra <= 0:
        return x
    if x.truncated is None:
        x.truncated = truncate(x, extra)
    return x.truncated
