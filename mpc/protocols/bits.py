"""Polynomials of secret bits over GF(2): XORs of products (ANDs) of up to four bits, in one round.

1. For each bit plane x_e in a product of two or more: lambda_e uniform; m_e = open(x_e ^ lambda_e).
2. Provider: for every set S of two or more planes of a product, XOR shares of the product of the lambda_e
   with e in S.
3. A product of the bits x_e = m_e ^ lambda_e is the XOR over the subsets S of its planes of
   (product of m_e outside S) AND <product of lambda_e inside S>: local.
A plane may enter negated: then m_e is negated. A single plane needs no opening.
Cost: 1 round, one bit for each plane opened; correction one bit for each distinct S.

Source: the multi-fan-in AND of ABY2.0 (Patra, Schneider, Suresh, Yalame
2021, section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import Correlation, MaskSource, Part
from mpc.core.cost import Spent
from mpc.core.errors import ShapeError
from mpc.core.runtime import Runtime, Steps
from ring.bits import add_polynomials

__all__ = [
    "FAN_IN",
    "Structure",
    "add_terms",
    "all_of",
    "cost",
    "count_planes",
    "deal_products",
    "evaluate",
    "prefix",
    "prefix_rounds",
    "steps",
    "structure_of",
    "tree",
]

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]
# A plane's number, or its complement (~k) for the negated plane.
Literal = int
Monomial = tuple[Literal, ...]
Polynomial = tuple[Monomial, ...]

FAN_IN = 4


def _plane(literal: Literal) -> int:
    return ~literal if literal < 0 else literal


@dataclass(frozen=True)
class _Terms:
    """Terms for :func:`ring.bits.add_polynomials`."""

    outputs: Indices
    factors: Indices
    places: Indices
    literals: Indices

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, Sequence[int]]]) -> _Terms:
        rows = list(rows)
        places = np.cumsum([0, *(len(literals) for _, _, literals in rows)])
        flat = [literal for _, _, literals in rows for literal in literals]
        return cls(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            places.astype(np.int64),
            np.array(flat, np.int64),
        )


@dataclass(frozen=True, eq=False)
class Structure:
    """One round of evaluation: the planes to open, and the products of masks to deal.

    Attributes
    ----------
    outputs : int
        The number of polynomials.
    opened : tuple of int
        The planes that occur in a product of two or more.
    order : int64 array
        `opened` as an array.
    subsets : tuple of tuple of int
        The sets S of step 2, as positions in `opened`.
    linear : tuple of (output, literal)
        Monomials of a single plane.
    public, secret : _Terms
        Terms of opened planes alone, which the first party adds; and terms with a mask or a product
        of masks, of which every party adds its share.
    """

    outputs: int
    opened: tuple[int, ...]
    order: Indices
    subsets: tuple[tuple[int, ...], ...]
    linear: tuple[tuple[int, Literal], ...]
    public: _Terms
    secret: _Terms


@lru_cache(maxsize=256)
def structure_of(polynomials: tuple[Polynomial, ...]) -> Structure:
    """Return the round that evaluates `polynomials`; each is a tuple of products of literals."""
    linear, longer = [], []
    for output, polynomial in enumerate(polynomials):
        for monomial in polynomial:
            if len(monomial) == 1:
                linear.append((output, monomial[0]))
            else:
                longer.append((output, monomial))
    opened = tuple(sorted({_plane(literal) for _, monomial in longer for literal in monomial}))
    place = {plane: k for k, plane in enumerate(opened)}
    subsets: dict[tuple[int, ...], int] = {}
    public, secret = [], []
    for output, monomial in longer:
        literals = [~place[~x] if x < 0 else place[x] for x in monomial]
        public.append((output, -1, literals))
        for count in range(1, len(literals) + 1):
            for inside in combinations(literals, count):
                masks = tuple(sorted(_plane(x) for x in inside))
                outside = [x for x in literals if x not in inside]
                if count == 1:
                    factor = masks[0]
                else:
                    factor = len(opened) + subsets.setdefault(masks, len(subsets))
                secret.append((output, factor, outside))
    return Structure(
        len(polynomials),
        opened,
        np.array(opened, np.int64),
        tuple(subsets),
        tuple(linear),
        _Terms.of(public),
        _Terms.of(secret),
    )


def prefix(greater: Sequence[int], equal: Sequence[int]) -> Polynomial:
    """Return g_(D - 1) ^ p_(D - 1) (g_(D - 2) ^ ...), given the numbers of the planes, the lowest first."""
    count = len(greater)
    return tuple((*equal[:j:-1], greater[j]) for j in range(count - 1, -1, -1))


@lru_cache(maxsize=64)
def prefix_rounds(count: int, signed: bool, rounds: int = 1) -> tuple[Structure, ...]:
    """Return how a comparison goes on from its digits: a prefix if signed, else all digits' equality.

    Plane j is g_j, plane count + j is p_j, the lowest first. With two rounds the first makes of each group
    of digits the g and the p of a digit, and the second goes on from these.
    """
    equal = tuple(range(count, 2 * count))
    if not signed:
        return (structure_of(((equal,),)),)
    if rounds == 1:
        return (structure_of((prefix(range(count), equal),)),)
    groups: list[Polynomial] = []
    of_greater: list[int] = []
    of_equal: list[int] = []
    start = 0
    for size in _groups_for(count):
        stop = start + size
        of_greater.append(len(groups))
        groups.append(prefix(range(start, stop), equal[start:stop]))
        # The lowest p is in no prefix.
        of_equal.append(len(groups) if start else -1)
        if start:
            groups.append((equal[start:stop],))
        start = stop
    return structure_of(tuple(groups)), structure_of((prefix(of_greater, of_equal),))


@lru_cache(maxsize=64)
def _groups_for(count: int) -> tuple[int, ...]:
    """Return the sizes of the groups, the lowest first, that take the fewest planes in two rounds.

    But no more are opened than in one round and one more, which is what a tree of nibbles opens.
    """
    tried = (
        tuple(count // n + (k < count % n) for k in range(n))
        for n in range(1, count + 1)
    )  # fmt: skip
    few = [groups for groups in tried if _count_grouped(groups)[0] < 2 * count]
    return min(few, key=lambda groups: sum(_count_grouped(groups)))


def _count_grouped(groups: Sequence[int]) -> tuple[int, int]:
    opened, products = count_planes(len(groups), True)
    for k, size in enumerate(groups):
        some = count_planes(size, True)
        # p of a group needs the lowest p, too, and its products.
        more = k > 0 and size > 1
        opened += some[0] + more
        products += some[1] + (2 ** (size - 1) - 1 if more else 0)
    return opened, products


def count_planes(count: int, signed: bool, rounds: int = 1) -> tuple[int, int]:
    """Return how many planes :func:`prefix_rounds` opens, and how many products are dealt for it."""
    if count == 1:
        return 0, 0
    if rounds == 2:
        return _count_grouped(_groups_for(count))
    opened = 2 * (count - 1) if signed else count
    sets = 3 * (2 ** (count - 1) - 1) if signed else 2**count - 1
    return opened, sets - opened


@dataclass(frozen=True)
class MaskProducts(Correlation):
    """Masks of the opened planes, and products of some sets of these masks."""

    planes: int
    subsets: tuple[tuple[int, ...], ...]
    words: int

    def masks(self) -> tuple[Part, ...]:
        return (Part((self.planes, self.words), "xor"),)

    def corrected(self) -> tuple[Part, ...]:
        return (Part((len(self.subsets), self.words), "xor"),)

    def check(self, limit: int) -> None:
        super().check(limit)
        for masks in self.subsets:
            if not masks or any(not 0 <= k < self.planes for k in masks):
                raise ShapeError(f"subsets must name planes below {self.planes}, got {masks}")

    def deal(self, provider: MaskSource, masks: list[Words], out: list[Words]) -> None:
        deal_products(self.subsets, masks[0], out[0])


def deal_products(subsets: tuple[tuple[int, ...], ...], masks: Words, out: Words) -> None:
    """Compute the last party's shares of the products of masks, in `out`, from the others' sum."""
    terms = _product_terms(subsets)
    add_polynomials(masks, masks, terms.outputs, terms.factors, terms.places, terms.literals, out)


@lru_cache(maxsize=256)
def _product_terms(subsets: tuple[tuple[int, ...], ...]) -> _Terms:
    return _Terms.of((k, -1, masks) for k, masks in enumerate(subsets))


def cost(parties: int, structure: Structure, words: int) -> Spent:
    """Declare the cost of polynomials over planes of `words` words."""
    rounds = 1 if structure.opened else 0
    return Spent(
        rounds,
        8 * (parties - 1) * len(structure.opened) * words,
        8 * len(structure.subsets) * words,
    )


def evaluate(
    session: Runtime, planes: Words, structure: Structure, dealt: tuple[Words, Words] | None = None
) -> Words:
    """Evaluate polynomials.

    Parameters
    ----------
    planes : uint64 array of shape (p, planes, words)
        XOR shares.
    structure : Structure
    dealt : (uint64 array, uint64 array), optional
        Shares of the masks of step 1 and of the products of step 2, of shape (p, number, words), if
        another correlation has dealt them.

    Returns
    -------
    uint64 array of shape (p, outputs, words)
        XOR shares of the polynomials.
    """
    return session.run(steps(session, planes, structure, dealt))


def steps(
    session: Runtime, planes: Words, structure: Structure, dealt: tuple[Words, Words] | None = None
) -> Steps[Words]:
    """Evaluate polynomials as :func:`evaluate` does, for :meth:`mpc.core.runtime.Runtime.beside`."""
    words = planes.shape[2]
    out = np.zeros((len(planes), structure.outputs, words), np.uint64)
    for output, literal in structure.linear:
        out[:, output] ^= planes[:, _plane(literal)]
        if literal < 0 and session.first_row is not None:
            out[session.first_row, output] ^= ~np.uint64(0)
    if not structure.opened:
        return out
    if dealt is not None:
        lam, products = dealt
        m = yield planes.take(structure.order, axis=1) ^ lam, "xor"
    else:
        correlation = MaskProducts(len(structure.opened), structure.subsets, words)
        shares = session.correlated(correlation)
        (lam,) = shares.masks
        m = yield planes.take(structure.order, axis=1) ^ lam, "xor"
        (products,) = shares.corrected
    for i in range(len(planes)):
        add_terms(structure, m[0], lam[i], products[i], i == session.first_row, out[i])
    return out


def add_terms(
    structure: Structure, m: Words, lam: Words, products: Words, first: bool, out: Words
) -> None:
    """Step 3 at one party: add (XOR) its shares of all products of two or more bits to `out`."""
    for terms in (structure.public, structure.secret) if first else (structure.secret,):
        add_polynomials(
            m, lam, terms.outputs, terms.factors, terms.places, terms.literals, out, products
        )


@lru_cache(maxsize=256)
def tree(literals: tuple[Monomial, ...], fan_in: int = FAN_IN) -> tuple[Structure, ...]:
    """Return the rounds that AND each list of literals, of at most `fan_in` in each."""
    rounds: list[Structure] = []
    # Even single literals need a Structure, which picks and negates planes without an opening.
    while not rounds or any(len(x) > 1 for x in literals):
        groups: list[Polynomial] = []
        following: list[Monomial] = []
        for some in literals:
            pieces = [some[k : k + fan_in] for k in range(0, len(some), fan_in)]
            following.append(tuple(range(len(groups), len(groups) + len(pieces))))
            groups += [(piece,) for piece in pieces]
        rounds.append(structure_of(tuple(groups)))
        literals = tuple(following)
    return tuple(rounds)


def all_of(session: Runtime, planes: Words, literals: tuple[Monomial, ...]) -> Words:
    """AND each list of literals, in ceil(log4 of the longest) rounds.

    Parameters
    ----------
    planes : uint64 array of shape (p, planes, words)
    literals : tuple of tuple of int
        For each output the planes to AND, complemented (~k) to negate.

    Returns
    -------
    uint64 array of shape (p, len(literals), words)
    """
    for structure in tree(literals):
        planes = evaluate(session, planes, structure)
    return planes
