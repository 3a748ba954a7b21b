"""Range check: one opened bit says whether all results of an operation are below 2^62 in magnitude.

It is opened before the operation is carried out, and tells nothing else. For operands within public
bounds and a result R over the integers, which may be far beyond 2^64:
1. Cut each operand into limbs, x = sum of x_i 2^a_i. x is masked, if it was not yet; with
   c = Delta_x + 2^62 and r = -lambda_x the parties truncate by each cut a_i as in
   :mod:`mpc.protocols.truncation`, and x_i = (x >> a_i) - 2^(a_(i+1) - a_i) (x >> a_(i+1)): local.
   No limb but the highest exceeds 2^(a_(i+1) - a_i), however the truncations round: each is off by
   less than 1.
2. Mask the limbs together and multiply each with each: R = sum of p_k 2^s_k, every p_k below 2^62.
3. For levels S, W_S = sum of p_k 2^(s_k - S) over the s_k >= S, modulo 2^64: local. The other p_k
   contribute at most e_S 2^S to R, for a public e_S. So |R| <= 2^62 implies |W_S| <= 2^62 / 2^S + e_S,
   the claim of the level. The levels are chosen so that the claim of each implies |W| <= 2^63 at
   the next lower level, where W modulo 2^64 is then W itself. At the highest level the bounds imply
   it, and the lowest is W_0 = R with the limit 2^62 - 1. So all claims hold if and only if R is in
   range: exact, with no probability of failure, and no result in range is refused.
4. For the words W and the limits t of all claims, t < 2^62: the top bits of W - t - 1 and W + t
   from one opening, see :mod:`mpc.protocols.sign` with L = 64. |W| <= t if and only if they are 1
   and 0.
5. B2A, as in :mod:`mpc.protocols.b2a`; a sum of these numbers counts the claims that fail. Whether the
   count is zero is the one bit that is opened.
Sums take steps 3 to 5, and step 1 if more than two are added; limits on an operand and multiples
with public integers take steps 4 and 5 alone.
Operations whose results others go on with at once may leave the opened bit to these: counts are added up,
and one bit decides for all (:class:`Later`). Nothing that depends on a result is opened before.
Cost of steps 4 and 5: 5 rounds, 6 for more than 2^18 claims; 11.8 (n - 1) bytes a claim; correction 349
bytes. Functions carry them out beside their own rounds, in the same openings. A product of two operands
of 62 bits has four claims an element, and before them 2 rounds, one of which the product itself then saves,
32 (n - 1) bytes an element of the operands, correction 28 bytes, and 72 an element of the result.

Source: levels that each bound the next are this library's own. See :mod:`mpc.protocols.truncation`,
`product`, `sign` and `b2a` for their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskRef, MaskSource, Part, check_dealt
from mpc.core.cost import Spent
from mpc.core.errors import RangeError, ShapeError
from mpc.core.ranges import Operation
from mpc.core.runtime import Beside, Result, Runtime, Steps
from mpc.core.secret_value import Secret, SecretValue
from mpc.core.sizes import broadcast
from mpc.protocols import b2a, masking, sign, truncation
from mpc.protocols.truncation import OFFSET_BITS, deal_high, deal_tops, finish, tops_part

__all__ = [
    "LIMIT",
    "Claim",
    "bilinear",
    "cost",
    "cost_of_none",
    "cost_of_product",
    "cost_of_sum",
    "inside",
    "is_none",
    "largest_met",
    "linear",
    "magnitude",
    "multiple",
    "none_steps",
    "verdict",
    "verdict_steps",
    "within",
]

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
# (shift, bound) of each p_k 2^s_k: s_k, and the bound on |p_k|.
Sizes = tuple[tuple[int, int], ...]

LIMIT = 1 << OFFSET_BITS
"""2^62: every encoded value must be below it in magnitude."""
_MOST_LIMBS = 12


@dataclass(frozen=True)
class MaskShifts(Correlation):
    """[r >> s] and [r >> 63] for each of some shifts s; r = -lambda, lambda being the mask of an array."""

    mask: MaskRef
    size: int
    shifts: tuple[int, ...]

    def corrected(self) -> tuple[Part, ...]:
        return (
            *(Part((self.size,)) for _ in self.shifts),
            *(tops_part(1, self.size, shift) for shift in self.shifts),
        )

    def check(self, limit: int) -> None:
        for shift in self.shifts:
            if not 0 < shift < OFFSET_BITS:
                raise ShapeError(f"shifts must be in [1, {OFFSET_BITS - 1}], got {shift}")
        super().check(limit)
        if prod(self.mask.check(limit)) != self.size:
            raise ShapeError(f"the mask must have {self.size} elements, got {self.mask}")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        r = np.ascontiguousarray(np.negative(provider.mask(self.mask))).reshape(-1)
        check_dealt(r, self.size)
        highs, tops = out[: len(self.shifts)], out[len(self.shifts) :]
        for shift, high, top in zip(self.shifts, highs, tops, strict=True):
            deal_high(r, shift, high)
            deal_tops(r, shift, top)


@dataclass(frozen=True, repr=False)
class Claim:
    """The claim that shared words, taken as signed integers, are within public limits in magnitude.

    Attributes
    ----------
    like : SharedArray
        Any array of the session.
    words : uint64 array of shape (p, n)
        Additive shares.
    limits : uint64 array of shape (n,)
        Below 2^62.
    """

    like: SecretValue
    words: Words
    limits: Words


@dataclass(frozen=True, repr=False)
class _Piece:
    """A summand p_k 2^s_k of R: shares of p_k, the bound on |p_k|, and s_k as `shift`."""

    shift: int
    bound: int
    words: Words


# Step 1.


def _cuts(bound: int, limbs: int) -> tuple[int, ...]:
    """Return the cuts a_i, the first bits of at most `limbs` limbs of a value within `bound`."""
    bits = max(1, bound.bit_length())
    width = -(-bits // limbs)
    return tuple(range(0, bits, width))


def _limb_bounds(bound: int, cuts: tuple[int, ...]) -> list[int]:
    lower = [1 << high - low for low, high in pairwise(cuts)]
    return [*lower, -(-bound >> cuts[-1])]


def _truncations(x: SecretValue, shifts: tuple[int, ...]) -> list[Words]:
    """Return shares of x / 2^s for each shift; no round if x is masked already."""
    session = x.session
    if session.pair is not None:
        return [y.shares for y in truncation.divide_by_powers(x, shifts)]
    (mask,) = masking.mask_together(x)
    correlation = MaskShifts(mask.ref, x.size, shifts)
    parts = session.correlated(correlation).corrected
    c = mask.delta.reshape(len(mask.delta), x.size) + np.uint64(LIMIT)
    found = []
    for k, shift in enumerate(shifts):
        words = finish(session, c, parts[k], parts[len(shifts) + k], shift)
        found.append(words.reshape(len(words), *x.shape))
    return found


def limbs_of(x: Secret, cuts: tuple[int, ...]) -> list[Secret]:
    if len(cuts) == 1:
        held = x.mask is not None or x.plaintext is not None
        shares = None if held else x.shares
        return [x.derive(shares, frac_bits=0, bound=x.bound, mask=x.mask, plaintext=x.plaintext)]
    above = _truncations(x, cuts[1:])
    words = [x.shares, *above]
    for k, (low, high) in enumerate(pairwise(cuts)):
        words[k] = words[k] - (above[k] << np.uint64(high - low))
    bounds = _limb_bounds(x.bound, cuts)
    return [
        x.derive(shares, frac_bits=0, bound=bound)
        for shares, bound in zip(words, bounds, strict=True)
    ]


def _public_limbs(y: Integers, cuts: tuple[int, ...]) -> list[Integers]:
    limbs = [y >> np.int64(cut) for cut in cuts]
    for k, (low, high) in enumerate(pairwise(cuts)):
        limbs[k] = limbs[k] - (limbs[k + 1] << np.int64(high - low))
    return limbs


def _largest(y: Integers) -> int:
    return max(abs(int(y.min(initial=0))), abs(int(y.max(initial=0))))


# Step 3.


@lru_cache(maxsize=1024)
def levels_of(pieces: Sizes) -> tuple[tuple[int, int], ...] | None:
    """Return (S, limit) of the levels, the lowest first, or None if no levels can decide R."""

    def size(level: int) -> int:
        """Return the bound on |W_S| for S = level."""
        return sum(bound << shift - level for shift, bound in pieces if shift >= level)

    def left_out(level: int) -> int:
        """Return e_S for S = level."""
        rest = sum(bound << shift for shift, bound in pieces if shift < level)
        return -(-rest >> level)

    shifts = sorted({shift for shift, _ in pieces})
    level, levels = 0, [(0, LIMIT - 1)]
    while size(level) > 1 << 63:
        for higher in (shift for shift in reversed(shifts) if shift > level):
            limit = (LIMIT >> higher) + left_out(higher)
            implied = (limit + left_out(higher) << higher - level) + left_out(level)
            if implied <= 1 << 63:
                break
        else:
            return None
        level = higher
        levels.append((level, limit))
    return tuple(levels)


def _claim(like: SecretValue, pieces: Sequence[_Piece], shape: tuple[int, ...]) -> Claim:
    """Claim that R, the sum of `pieces` broadcast to `shape`, is in range."""
    levels = levels_of(tuple((piece.shift, piece.bound) for piece in pieces))
    assert levels is not None
    rows, size = len(like.session.here), prod(shape)
    words = np.zeros((rows, len(levels), *shape), np.uint64)
    for k, (level, _) in enumerate(levels):
        for piece in pieces:
            if level <= piece.shift < level + 64:
                missing = len(shape) - (piece.words.ndim - 1)
                some = piece.words.reshape(rows, *(1,) * missing, *piece.words.shape[1:])
                words[:, k] += some << np.uint64(piece.shift - level)
    limits = np.repeat(np.array([limit for _, limit in levels], np.uint64), size)
    return Claim(like, words.reshape(rows, len(levels) * size), limits)


# Claims.


def magnitude(x: SecretValue, limits: int | Integers) -> Claim:
    """Claim that encoded values are within limits, which broadcast to the shape of x."""
    most = LIMIT - 1
    held = min(limits, most) if isinstance(limits, int) else np.minimum(limits, most)
    words = x.shares.reshape(len(x.shares), x.size)
    return Claim(x, words, np.broadcast_to(np.asarray(held, np.uint64), x.shape).reshape(-1))


def largest_met(shape: tuple[int, ...], magnitudes: NDArray[Any]) -> NDArray[Any]:
    """Return for each element of an array of `shape` the largest factor that it is multiplied by."""
    whole = broadcast(shape, magnitudes.shape)
    ahead = len(whole) - len(shape)
    met = tuple(k for k, n in enumerate(whole) if k < ahead or (shape[k - ahead] == 1 and n != 1))
    spread = np.broadcast_to(magnitudes, whole)
    return spread.max(axis=met, initial=0, keepdims=True).reshape(shape)


def multiple(x: SecretValue, factors: int | Integers) -> Claim:
    """Claim that encoded values times public integers, with broadcasting, are in range."""
    # np.abs leaves -2^63 as it is; taken as unsigned it is 2^63.
    sizes = largest_met(x.shape, np.abs(np.asarray(factors).astype(np.int64)).view(np.uint64))
    return magnitude(x, (np.uint64(LIMIT - 1) // np.maximum(sizes, np.uint64(1))).astype(np.int64))


def linear(
    terms: Sequence[tuple[SecretValue | Integers, int]], axes: tuple[int, ...] = ()
) -> Claim:
    """Claim that the sum of arrays times powers of two, with broadcasting, is in range.

    Parameters
    ----------
    terms : sequence of (SharedArray or int64 array, int)
        The arrays to add, at least one of them shared, and by how many bits each is shifted left.
    axes : tuple of int
        The axes along which each term is summed, counted from the front.
    """
    like = next(x for x, _ in terms if not isinstance(x, np.ndarray))
    session = like.session
    bounds = [_largest(x) if isinstance(x, np.ndarray) else x.bound for x, _ in terms]
    sized = tuple(
        (shift, prod(x.shape[a] for a in axes), bound)
        for (x, shift), bound in zip(terms, bounds, strict=True)
    )
    limbs = fewest_limbs(sized)
    sums: list[Words] = []
    with session.protocol("range check"):
        cuts = [_cuts(bound, limbs) for bound in bounds]
        secret = [
            x
            for (x, _), some in zip(terms, cuts, strict=True)
            if len(some) > 1 and not isinstance(x, np.ndarray)
        ]
        masking.mask_ahead(*secret)
        for (x, _), some in zip(terms, cuts, strict=True):
            for words in _words_of_limbs(session, x, some):
                sums.append(words.sum(axis=tuple(a + 1 for a in axes), dtype=np.uint64))
    sizes = _sizes_of_terms(sized, limbs)
    pieces = [_Piece(*size, words) for size, words in zip(sizes, sums, strict=True)]
    return _claim(like, pieces, broadcast(*(words.shape[1:] for words in sums)))


def _words_of_limbs(
    session: Runtime, x: SecretValue | Integers, cuts: tuple[int, ...]
) -> Iterator[Words]:
    if not isinstance(x, np.ndarray):
        yield from (limb.shares for limb in limbs_of(x, cuts))
        return
    for limb in _public_limbs(x, cuts):
        words = np.zeros((len(session.here), *x.shape), np.uint64)
        if session.first_row is not None:
            words[session.first_row] = limb.view(np.uint64)
        yield words


def _sizes_of_terms(terms: tuple[tuple[int, int, int], ...], limbs: int) -> Sizes:
    """Return (shift, bound) of all limbs, for a sum of terms (shift, addends, bound)."""
    sizes: list[tuple[int, int]] = []
    for shift, count, bound in terms:
        cuts = _cuts(bound, limbs)
        bounds = _limb_bounds(bound, cuts)
        sizes += [(shift + c, count * b) for c, b in zip(cuts, bounds, strict=True)]
    return tuple(sizes)


@lru_cache(maxsize=1024)
def fewest_limbs(terms: tuple[tuple[int, int, int], ...]) -> int:
    """Return the fewest limbs that decide a sum of terms (shift, addends, bound)."""
    for limbs in range(1, _MOST_LIMBS):
        if levels_of(_sizes_of_terms(terms, limbs)) is not None:
            return limbs
    raise RangeError(f"no check on shares takes a sum of this size: {terms}")


def bilinear(
    x: SecretValue,
    y: SecretValue | Integers,
    multiply: Callable[[SecretValue, Any], SecretValue],
    terms: int,
) -> Claim:
    """Claim that a product of x with a secret y, or with public integers y, is in range.

    Parameters
    ----------
    x, y : SharedArray; y may be an int64 array
        They are masked here; the product itself uses the same masks afterwards.
    multiply : callable
        The product, without truncation of its operands; it is called with limbs of x and of y, which
        are whole numbers.
    terms : int
        The most products that an element of the result is the sum of.
    """
    session = x.session
    largest = _largest(y) if isinstance(y, np.ndarray) else y.bound
    x_cuts, y_cuts = cheapest_cuts(x.bound, largest, terms)
    with session.protocol("range check"):
        if not isinstance(y, np.ndarray):
            masking.mask_ahead(x, y)
        lefts = limbs_of(x, x_cuts)
        rights: list[Any]
        if isinstance(y, np.ndarray):
            rights = list(_public_limbs(y, y_cuts))
        else:
            rights = list(lefts) if y is x and x_cuts == y_cuts else list(limbs_of(y, y_cuts))
            masking.mask_ahead(*lefts, *rights)
        # The cuts are chosen so that products of limbs stay below 2^62.
        with session.range_policy.vouched():
            found = [multiply(left, right) for left, right in product(lefts, rights)]
        sizes = sizes_of_products(x.bound, x_cuts, largest, y_cuts, terms)
        pieces = [
            _Piece(shift, bound, z.shares) for (shift, bound), z in zip(sizes, found, strict=True)
        ]
    return _claim(x, pieces, found[0].shape)


def sizes_of_products(
    x: int, x_cuts: tuple[int, ...], y: int, y_cuts: tuple[int, ...], terms: int
) -> Sizes:
    """Return (shift, bound) of the products of all limbs."""
    lefts = zip(x_cuts, _limb_bounds(x, x_cuts), strict=True)
    rights = tuple(zip(y_cuts, _limb_bounds(y, y_cuts), strict=True))
    return tuple((a + b, terms * p * q) for (a, p), (b, q) in product(lefts, rights))


@lru_cache(maxsize=1024)
def cheapest_cuts(x: int, y: int, terms: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the cuts of x and of y, operands within these bounds, that cost least."""
    best: tuple[int, tuple[int, ...], tuple[int, ...]] | None = None
    for left, right in sorted(product(range(1, _MOST_LIMBS), repeat=2), key=prod):
        # Bytes for two parties and an elementwise product, roughly.
        spent = 8 * left * right + 20 * (left + right)
        if best is not None and spent >= best[0]:
            continue
        x_cuts, y_cuts = _cuts(x, left), _cuts(y, right)
        sizes = sizes_of_products(x, x_cuts, y, y_cuts, terms)
        levels = levels_of(sizes) if max(bound for _, bound in sizes) <= LIMIT else None
        if levels is not None and (best is None or spent + 88 * len(levels) < best[0]):
            best = spent + 88 * len(levels), x_cuts, y_cuts
    if best is None:
        raise RangeError(
            f"no check on shares takes sums of {terms} products of {x.bit_length()} and"
            f" {y.bit_length()} bits"
        )
    return best[1:]


# Steps 4 and 5.


def cost(parties: int, size: int) -> Spent:
    """Declare the cost of the verdict on claims of `size` words in all."""
    return (
        sign.cost(parties, size, 0, 64, True, "none", 2)
        + b2a.cost(parties, 2, size)
        + cost_of_none(parties, 2 * size)
    )


def _cost_of_limbs(size: int, cuts: tuple[int, ...]) -> Spent:
    return Spent(0, 0, sum(8 * (size + tops_part(1, size, shift).size) for shift in cuts[1:]))


def cost_of_sum(parties: int, size: int, bound: int, count: int) -> Spent:
    """Declare the cost of claim and verdict on sums of `count` elements each.

    The summed array has `size` elements within `bound`, and no mask yet.
    """
    cuts = _cuts(bound, fewest_limbs(((0, count, bound),)))
    levels = levels_of(_sizes_of_terms(((0, count, bound),), len(cuts)))
    assert levels is not None
    masked = masking.cost(parties, size) if len(cuts) > 1 else Spent()
    return masked + _cost_of_limbs(size, cuts) + cost(parties, len(levels) * size // count)


def cost_of_product(
    parties: int, x: tuple[int, int], y: tuple[int, int], terms: int, size: int
) -> Spent:
    """Declare the cost of claim and verdict on a product of secrets, with a result of `size` elements.

    `x` and `y` are (size, bound) of the operands, which have no masks yet.
    """
    x_cuts, y_cuts = cheapest_cuts(x[1], y[1], terms)
    levels = levels_of(sizes_of_products(x[1], x_cuts, y[1], y_cuts, terms))
    assert levels is not None
    total = masking.cost(parties, x[0] + y[0])
    total += _cost_of_limbs(x[0], x_cuts) + _cost_of_limbs(y[0], y_cuts)
    opened = sum(n * len(cuts) for n, cuts in ((x[0], x_cuts), (y[0], y_cuts)) if len(cuts) > 1)
    if opened:
        total += masking.cost(parties, opened)
    dealt = Spent(0, 0, 8 * size * len(x_cuts) * len(y_cuts))
    return total + dealt + cost(parties, len(levels) * size)


def inside(operation: Operation) -> bool:
    """Open whether the results of an operation are in range."""
    return verdict(*operation.claims())


def within(x: SecretValue, bound: int) -> bool:
    """Open whether encoded values are within a bound."""
    return verdict(magnitude(x, bound))


def verdict(*claims: Claim, failed: SecretValue | None = None) -> bool:
    """Open whether all claims hold, in a bit. In a plan they do.

    `failed` is a secret whole number, of no axes and not negative, that has to be 0 as well.
    """
    if not claims:
        return True
    session = claims[0].like.session
    with session.protocol("range check"):
        return session.run(verdict_steps(*claims, failed=failed))


def verdict_steps(*claims: Claim, failed: SecretValue | None = None) -> Steps[bool]:
    """Open what :func:`verdict` says, for :meth:`mpc.core.runtime.Runtime.beside`."""
    if not sum(len(claim.limits) for claim in claims):
        return True
    count = yield from failures_steps(*claims)
    if failed is not None:
        count = _added(count, failed)
    return (yield from none_steps(count))


def _added(count: SecretValue, other: SecretValue) -> SecretValue:
    words = count.shares.reshape(-1) + other.shares.reshape(-1)
    return count.derive(words, frac_bits=0, bound=count.bound + other.bound)


def failures_steps(*claims: Claim) -> Steps[SecretValue]:
    """Return how many claims fail, of no axes; a claim may count as two."""
    size = sum(len(claim.limits) for claim in claims)
    like = claims[0].like
    session = like.session
    words = np.concatenate([claim.words for claim in claims], axis=1)
    limits = np.concatenate([claim.limits for claim in claims])
    # These may be any words; the bound is ignored.
    held = like.derive(words, frac_bits=0, bound=LIMIT)
    planes = yield from sign.top_bits_steps(held, (limits + np.uint64(1), np.negative(limits)))
    bits = yield from b2a.steps(session, planes, size)
    shares = (bits[:, 1] - bits[:, 0]).sum(axis=1, dtype=np.uint64)
    first = session.first_row
    if first is not None:
        shares[first : first + 1] += np.uint64(size)
    return like.derive(shares, frac_bits=0, bound=2 * size)


class Later:
    """Checks whose failures are counted beside what follows, and decided with others' in one bit.

    Operations of a ``with`` block go on with results that may be wrong. So nothing that depends on them may
    be opened before :meth:`taken` counts are, or the end of the block has decided.

    Parameters
    ----------
    session : Runtime
        Where its mode is not "check", or another block is open, nothing changes.
    """

    def __init__(self, session: Runtime) -> None:
        self._session, self._policy = session, session.range_policy
        self._counts: list[tuple[Operation, Beside[SecretValue]]] = []
        self._opens = False

    def __enter__(self) -> Later:
        self._opens = self._policy.mode == "check" and self._policy.later is None
        if self._opens:
            self._policy.later = self
        return self

    def add(self, operation: Operation) -> None:
        """Begin to check an operation."""
        claims = [claim for claim in operation.claims() if len(claim.limits)]
        if claims:
            with self._session.protocol("range check"):
                counting = self._session.beside(failures_steps(*claims)).__enter__()
            self._counts.append((operation, counting))

    def taken(self) -> tuple[SecretValue | None, str]:
        """Return how many claims have failed up to now, for the caller to decide, and what to say then."""
        total, said = None, ""
        for operation, counting in self._counts:
            counting.__exit__(None, None, None)
            total = counting.value if total is None else _added(total, counting.value)
            said = f"{said}, or {operation.said}"
        self._counts.clear()
        return total, said

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if not self._opens:
            return
        self._policy.later = None
        if kind is None and self._counts:
            with self._session.protocol("range check"):
                total, said = self.taken()
                if total is not None and not is_none(total):
                    raise RangeError(f"{said[5:]}; share smaller values")
        for _, counting in self._counts:
            counting.__exit__(kind, *error)


def take(failed: Secret) -> tuple[Secret, str]:
    """Return `failed`, a count of no axes, with failures of a :class:`Later` block, and what to say."""
    later = failed.session.range_policy.later
    total, said = (None, "") if later is None else later.taken()
    if total is None:
        return failed, said
    words = failed.shares.reshape(-1) + total.shares.reshape(-1)
    return failed.derive(words, frac_bits=0, bound=failed.bound + total.bound), said


def cost_of_none(parties: int, bound: int) -> Spent:
    """Declare the cost of :func:`is_none` for a number up to `bound`."""
    zero = sign.cost(parties, 1, 0, sign.count_bits(bound), False, "none")
    return zero + Spent(1, 8 * (parties - 1), 0)


def is_none(count: SecretValue) -> bool:
    """Open whether a secret whole number, of no axes, is 0. In a plan it is."""
    return count.session.run(none_steps(count))


def none_steps(count: SecretValue) -> Steps[bool]:
    """Open what :func:`is_none` says, for :meth:`mpc.core.runtime.Runtime.beside`."""
    none = yield from sign.zero_steps(count)
    opened = yield Result(none & np.uint64(1), "xor")
    return not len(opened) or bool(opened[0, 0])
