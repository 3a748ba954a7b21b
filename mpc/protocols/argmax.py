"""The one-hot vector of the largest value along an axis.

For k <= 16 values:
1. Mask the scores, opening those that have no mask yet: c_a = open(s_a + r_a), 8 bytes a class. r_a is
   minus the mask that the scores keep (:mod:`mpc.protocols.masking`). If they are a product whose cross
   term C is pending, and their values are not needed, it is D - C as in :mod:`mpc.protocols.truncation`.
2. All pairs a < b at once: s_a - s_b = u - v, with the public u = c_a - c_b and v = r_a - r_b, which the
   provider knows: it XOR-shares tables of v, and <s_a < s_b> is the sign of u - v as in
   :mod:`mpc.protocols.sign`. Of equal values the one with the lower index wins.
3. Value a wins if it beats every other: AND of k - 1 bits, in 1 round for k <= 10, else in groups of
   four or five, in 2 (:mod:`mpc.protocols.bits`). The bit of a pair is opened once, under one mask, for
   both its values: m = <bit> ^ <lambda>; the complement's is m ^ 1, with the same lambda.
4. Where the result is revealed, the winners' XOR shares are opened. Where shares of it are needed, B2A: 1
   round (:mod:`mpc.protocols.b2a`).
One r_a serves k - 1 comparisons: all that is opened of it is c_a, which is uniform; the tables are shared
with fresh words for each pair, and every product of bits has masks of its own. The opened winners are
the result, and their shares are masked by the products of masks of step 3, which nothing else uses.
For more than 16 values, steps 1 to 4 find the largest of each group of at most 16, then the largest of
these; the result is the product of both one-hot vectors.
Up to 16 values are compared without truncation: scores from a matrix product, with twice the
fractional bits, need no extra round, and near ties are decided exactly. More than 16 values are
truncated to the format first.
Exact for every value below 2^62: differences are compared on up to 64 bits.

Source: ours; all pairs at once in place of a tournament, each score opened once. The AND of several bits:
ABY2.0 (Patra, Schneider, Suresh, Yalame 2021, section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part, View, apply_views
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.known import SecretBit
from mpc.core.ranges import LARGEST
from mpc.core.runtime import CorrelatedShares, Runtime
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import b2a, bits, linear, sign
from mpc.protocols.largest_score import LARGEST_GROUP, differences_of_pairs, literals
from mpc.protocols.masking import mask_ahead, mask_and_ask
from mpc.protocols.product import multiply
from mpc.protocols.truncation import (
    OFFSET_BITS,
    check_cross_term,
    open_masked,
    take_in,
    to_format,
)
from mpc.two_party import maximum as own_shares
from ring.bits import WORD_BITS, count_words, pack_bits, unpack_bits
from ring.digits import Digits, add_tables, read_tables

__all__ = [
    "LARGEST_GROUP", "argmax_index", "argmax_one_hot", "cost", "cost_of_shares", "sum_of_one",
    "winning_bits",
]  # fmt: skip

Words = NDArray[np.uint64]

# The products of masks of one AND are 2^9: with more bits, groups of four take fewer bytes.
_ONE_ROUND = 10
# The place of the first round of step 3 among those of a correlation.
_FIRST_WIN = 1


@lru_cache(maxsize=128)
def _wins(k: int) -> tuple[bits.Structure, ...]:
    """Return the rounds of step 3, on planes of all values."""
    fan_in = k - 1 if k <= _ONE_ROUND else bits.FAN_IN
    if (k - 1) % fan_in == 1:
        fan_in += 1  # no bit is left alone, which would not be opened
    return bits.tree((tuple(range(k - 1)),), fan_in)


def _needed(words: Words, rows: int, k: int, *, negate: bool) -> Words:
    """Return the bits that values need, planes (k - 1, words of k * rows), from those of pairs."""
    pair, complement = literals(k)
    pairs = k * (k - 1) // 2
    found = unpack_bits(words, rows * pairs).reshape(pairs, rows)[pair]
    if negate:
        found = found ^ complement
    return pack_bits(found.reshape(k - 1, k * rows))


@dataclass(frozen=True)
class PairTables(Correlation):
    """Tables of v for all pairs of each row, and masks for the products of bits: steps 2 and 3.

    Attributes
    ----------
    rows, values, window : int
        Rows, k, and the bits of a difference.
    mask : MaskRef, optional
        Of the scores; None if they get one here.
    cross_term : Correlation, optional
        C, if there is no mask yet, and the scores are a product.
    """

    rows: int
    values: int
    window: int
    mask: MaskRef | None = None
    cross_term: Correlation | None = None

    @property
    def pairs(self) -> int:
        """The number of differences."""
        return self.rows * (self.values * (self.values - 1) // 2)

    @property
    def rounds(self) -> list[tuple[bits.Structure, int]]:
        """The rounds of steps 2 and 3, each with the words of a plane."""
        (compare,) = bits.prefix_rounds(len(self.digits.widths), True)
        words = count_words(self.rows * self.values)
        return [(compare, count_words(self.pairs)), *((win, words) for win in _wins(self.values))]

    @property
    def digits(self) -> Digits:
        """The digits of a difference."""
        return sign.digits_for(self.window, True)

    def masks(self) -> tuple[Part, ...]:
        own = () if self.mask is not None else (Part((self.rows * self.values,)),)
        planes = [Part((len(each.opened), words), "xor") for each, words in self.rounds]
        # Of each pair, for both its values.
        once = 1 if self.values > 2 else 0
        planes[_FIRST_WIN] = Part((once, count_words(self.pairs)), "xor")
        return (*own, *planes)

    def corrected(self) -> tuple[Part, ...]:
        products = (Part((len(each.subsets), words), "xor") for each, words in self.rounds)
        return (Part((self.digits.count_table_words(self.pairs),), "xor"), *products)

    def check(self, limit: int) -> None:
        if not 2 <= self.values <= LARGEST_GROUP:
            raise ShapeError(f"there must be from 2 to {LARGEST_GROUP} values, got {self.values}")
        sign.check_window(self.window, 0)
        super().check(limit)
        if self.mask is not None and self.mask.check(limit) != (self.rows, self.values):
            raise ShapeError(f"the mask must have the shape {(self.rows, self.values)}")
        if self.mask is not None and self.cross_term is not None:
            raise ShapeError("what has its mask takes no cross term in")
        check_cross_term(self.cross_term, self.rows * self.values, limit)

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        if self.mask is None:
            r, *lams = masks
            take_in(self.cross_term, provider, r)
        else:
            # r is minus the mask.
            r, lams = np.negative(provider.mask(self.mask)), masks
        tables, *products = out
        add_tables(differences_of_pairs(r, self.rows, self.values), 0, self.digits, tables)
        each = zip(self.rounds, lams, products, strict=True)
        for number, ((structure, _), lam, product) in enumerate(each):
            if not structure.subsets:
                continue
            if number == _FIRST_WIN:
                lam = _needed(lam[0], self.rows, self.values, negate=False)
            bits.deal_products(structure.subsets, lam, product)


def cost(parties: int, rows: int, k: int, window: int, *, masked: bool = False) -> Spent:
    """Declare the cost for `rows` rows of k <= 16 values whose differences take `window` bits.

    Without step 4. `masked` says whether they have their mask.
    """
    if k == 1:
        return Spent()
    tables = PairTables(rows, k, window)
    total = Spent(0 if masked else 1, 0 if masked else 8 * (parties - 1) * rows * k, 0)
    planes = tables.masks()[1:]
    for part in planes:
        if part.size:
            total = total + Spent(1, 8 * (parties - 1) * part.size)
    return total + Spent(0, 0, 8 * tables.corrected_words)


def cost_of_shares(parties: int, rows: int, k: int) -> Spent:
    """Declare the cost of step 4, where shares of the result are needed."""
    return b2a.cost(parties, 1, k * rows) if k > 1 else Spent()


def _from_planes(planes: Words, size: int) -> Words:
    """Return the bits of planes, (p, planes, words), one behind the other, (p, words)."""
    if size % WORD_BITS == 0:
        return planes.reshape(len(planes), planes.shape[1] * planes.shape[2])
    return pack_bits(unpack_bits(planes, size).reshape(len(planes), planes.shape[1] * size))


def _open_scores(
    base: SecretValue, steps: Sequence[View], x: SecretValue, window: int, values: bool
) -> tuple[PairTables, CorrelatedShares, Words]:
    """Step 1: return the correlation, this process's shares of it, and c, of shape (1, rows, k)."""
    session, (rows, k) = x.session, x.shape
    z, cross_term = x.split_cross_term()
    if cross_term is not None and not values:
        own = PairTables(rows, k, window, None, cross_term)
        shares = session.correlated(own)
        return own, shares, open_masked(session, z, shares.masks[0])

    def ask(ref: MaskRef) -> tuple[PairTables, CorrelatedShares]:
        for step in steps:
            ref = ref.view(step)
        tables = PairTables(rows, k, window, ref)
        return tables, session.correlated(tables)

    # Of the array, not of its rows alone: it keeps the mask.
    mask, (tables, shares) = mask_and_ask(base, ask)
    return tables, shares, apply_views(mask.delta, steps, 1)


def _winning(base: SecretValue, steps: Sequence[View], values: bool) -> Words:
    """Steps 1 to 3 for the array (rows, k) that `steps` make: XOR shares of winners, by value."""
    session, x = base.session, base
    for step in steps:
        x = x.view(step)
    rows, k = x.shape
    # Differences are below 2^63, for which a bound of LARGEST makes the comparison take all 64 bits.
    window = sign.count_bits(min(2 * x.bound, LARGEST))
    pair = session.pair
    if pair is not None:
        columns = np.ascontiguousarray(x.shares.transpose(0, 2, 1))
        return _from_planes(own_shares.argmax(pair, columns, window), rows)
    tables, shares, c = _open_scores(base, steps, x, window, values)
    u = differences_of_pairs(c[0], rows, k) if len(c) else np.empty(tables.pairs, np.uint64)
    held, *products = shares.corrected
    digits = tables.digits
    count = len(digits.widths)
    planes = np.empty((len(held), 2 * count, count_words(tables.pairs)), np.uint64)
    for i, each in enumerate(planes):
        # The offset of every c is gone from their differences.
        read_tables(
            u, 0, digits, held[i], i == session.first_row, each[:count], each[count:],
            -1 << OFFSET_BITS,
        )  # fmt: skip
    lams = shares.masks[tables.mask is None :]
    for number, (structure, _) in enumerate(tables.rounds):
        if number == _FIRST_WIN:
            planes = _first_products(session, planes[:, 0], tables, lams[number], products[number])
        else:
            planes = bits.evaluate(session, planes, structure, (lams[number], products[number]))
    return planes[:, 0]


def _first_products(
    session: Runtime, bit: Words, tables: PairTables, lam: Words, products: Words
) -> Words:
    """Step 3, its first round: from the bits of pairs to planes of all values, (p, planes, words)."""
    rows, k = tables.rows, tables.values
    structure, words = tables.rounds[_FIRST_WIN]
    if k == 2:
        each = [_needed(b, rows, k, negate=i == session.first_row) for i, b in enumerate(bit)]
        return np.array(each, np.uint64).reshape(len(bit), 1, words)
    (m,) = session.open((bit ^ lam[:, 0], "xor"))
    out = np.zeros((len(bit), structure.outputs, words), np.uint64)
    for i in range(len(bit)):
        opened = _needed(m[0], rows, k, negate=True)
        secret = _needed(lam[i, 0], rows, k, negate=False)
        bits.add_terms(structure, opened, secret, products[i], i == session.first_row, out[i])
    return out


def winning_bits(x: SecretValue) -> SecretBit:
    """Return the one-hot vectors of an array (rows, k), 1 < k <= 16, as bits of shape (k, rows).

    The array has its mask then. Without a provider k may be larger.
    """
    rows, k = x.shape
    return b2a.mask_bits(x.session, _winning(x, (), True), k * rows)


class BitsLater:
    """Winners as XOR shares: opened when they are revealed, converted when shares are needed: step 4.

    Parameters
    ----------
    session : Runtime
    bits : uint64 array of shape (p, words)
        Of shape (k, rows).
    rows : int
    moved : tuple of int
        The shape that the rows make, with k last.
    axis : int or None
        Where k goes; None for the index of the winner in place of its one-hot vector.
    shape : tuple of int
        Of the array that is made of that.
    """

    def __init__(
        self,
        session: Runtime,
        bits: Words,
        rows: int,
        moved: tuple[int, ...],
        axis: int | None,
        shape: tuple[int, ...],
    ) -> None:
        self._session, self._bits, self._rows = session, bits, rows
        self._moved, self._axis = moved, axis
        self.shape = shape

    @property
    def opened(self) -> bool:
        """Whether it is known to all parties: shares are converted all the same."""
        return False

    def _arranged(self, numbers: Words) -> Words:
        """Return numbers (m, k, rows) as the array, (m, *shape)."""
        if self._axis is not None:
            across = numbers.transpose(0, 2, 1).reshape(len(numbers), *self._moved)
            found = np.ascontiguousarray(np.moveaxis(across, -1, self._axis + 1))
        else:
            places = np.arange(self._moved[-1], dtype=np.uint64)[:, None]
            found = (numbers * places).sum(axis=1, dtype=np.uint64)
        return found.reshape(len(numbers), *self.shape)

    def shares(self) -> Words:
        """Return additive shares: 1 round."""
        k = self._moved[-1]
        with self._session.protocol("argmax"):
            bit = b2a.mask_bits(self._session, self._bits, k * self._rows)
            numbers = b2a.to_number(self._session, bit)
        return self._arranged(numbers.reshape(len(numbers), k, self._rows))

    def reveal(self, to: int | None) -> Words:
        """Open the bits to all parties or to one, and return the array where it is learnt."""
        session = self._session
        if to is None:
            (opened,) = session.open((self._bits, "xor"))
        else:
            opened = session.open_to(to, self._bits, "xor")
        return self._of_bits(opened)

    def _of_bits(self, bits: Words) -> Words:
        """Return the array, (m, *shape), of bits (m, words)."""
        k = self._moved[-1]
        numbers = unpack_bits(bits, k * self._rows).astype(np.uint64)
        return self._arranged(numbers.reshape(len(bits), k, self._rows))

    def values(self) -> Words:
        """Return the array where all parties live here: without a word."""
        return self._of_bits(np.bitwise_xor.reduce(self._bits, axis=0)[None])[0]

    def without_shares(self, planned: Runtime) -> BitsLater:
        """Return the same where no party lives (for plans)."""
        return BitsLater(planned, self._bits[:0], self._rows, self._moved, self._axis, self.shape)


def sum_of_one(x: Secret, axis: int) -> Secret:
    """Sum along an axis where all elements but one are zero, so that the bound stays (for protocols)."""
    total = x.shares.sum(axis=axis + 1, dtype=np.uint64)
    return x.derive(total, frac_bits=x.frac_bits, bound=x.bound)


def _later(
    x: Secret,
    steps: Sequence[View],
    moved: tuple[int, ...],
    axis: int | None,
    shape: tuple[int, ...],
) -> Secret:
    """Winners of the array (rows, k), k <= 16, that `steps` make, as an array of the given shape.

    The rows make the shape `moved`, with k last. `axis` is as in :class:`BitsLater`.
    """
    k = moved[-1]
    rows = prod(moved[:-1])
    if k == 1:
        zeros = linear.zeros_like(x).view(("reshape", shape))
        return zeros if axis is None else linear.add_public(zeros, 1).as_binary()
    later = BitsLater(x.session, _winning(x, steps, False), rows, moved, axis, shape)
    bound = 1 if axis is not None else k - 1
    return x.derive(None, frac_bits=0, bound=bound, binary=axis is not None, pending=later)


def _many(x: Secret) -> Secret:
    """One-hot vectors of an array (rows, k), k > 16."""
    rows, k = x.shape
    x = to_format(x)
    # Once, for the comparisons and for the products with the one-hot vectors.
    mask_ahead(x)
    # Equal groups, the last filled up with copies of its first value: a copy ties with a lower
    # index and so never wins.
    count = -(-k // LARGEST_GROUP)
    width = -(-k // count)
    source = np.arange(count * width).reshape(count, width)
    source = (
        np.where(source < k, source, source[:, :1])
        if source[-1, 0] < k
        else np.minimum(source, k - 1)
    )
    filled = x.view(("index", (slice(None), source.reshape(-1))))
    groups = (rows, count, width)
    inside = _later(filled, [("reshape", (rows * count, width))], groups, 2, groups)
    values = filled.view(("reshape", groups))
    best = sum_of_one(multiply(inside, values), 2)
    if count > LARGEST_GROUP:
        outside = _many(best).view(("reshape", (rows, count, 1)))
    else:
        outside = _later(best, (), (rows, count), 1, (rows, count, 1))
    both = multiply(inside, outside).view(("reshape", (rows, count * width)))
    return both.view(("index", (slice(None), slice(0, k)))).as_binary()


def _moved(x: Secret, axis: int) -> tuple[list[View], tuple[int, ...], list[int]]:
    """Return the steps that make rows (rows, k) of an array, its shape with `axis` last, and the order."""
    order = [a for a in range(x.ndim) if a != axis] + [axis]
    moved = tuple(x.shape[a] for a in order)
    steps: list[View] = [] if axis == x.ndim - 1 else [("transpose", tuple(order))]
    if len(moved) != 2:
        steps.append(("reshape", (prod(moved[:-1]), moved[-1])))
    return steps, moved, order


def _many_of(x: Secret, steps: Sequence[View]) -> Secret | None:
    """Return the one-hot vectors of rows of more than 16 values, None if there are no more."""
    if x.session.pair is not None:
        return None
    for step in steps:
        x = x.view(step)
    return _many(x)


def argmax_one_hot(x: Secret, axis: int, shape: tuple[int, ...] | None = None) -> Secret:
    """Return zeros, and a one for the first largest value along `axis`, in the given shape or that of x."""
    shape = x.shape if shape is None else shape
    with x.session.protocol("argmax"):
        steps, moved, order = _moved(x, axis)
        found = _many_of(x, steps) if moved[-1] > LARGEST_GROUP else None
        if found is None:
            return _later(x, steps, moved, axis, shape)
        back = tuple(int(a) for a in np.argsort(order))
        one_hot = found.view(("reshape", moved)).view(("transpose", back))
        return one_hot if shape == x.shape else one_hot.view(("reshape", shape))


def argmax_index(x: Secret, axis: int, shape: tuple[int, ...]) -> Secret:
    """Return the index of the first largest value along `axis`, in the given shape."""
    with x.session.protocol("argmax"):
        steps, moved, _ = _moved(x, axis)
        found = _many_of(x, steps) if moved[-1] > LARGEST_GROUP else None
        if found is None:
            return _later(x, steps, moved, None, shape)
        places = np.arange(moved[-1])
        index = linear.sum_along(linear.multiply_integers(found, places), 1)
        return index.with_integer_bound(len(places) - 1).view(("reshape", shape))
