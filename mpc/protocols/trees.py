"""Decision trees: which leaf a secret row comes to, as secret numbers 0 and 1.

Every inner node j of every tree compares a secret x_j with a secret threshold t_j: rows go right where
t_j < x_j, else left. The shape of the trees is public.
1. The bits <t_j < x_j> of all nodes and rows at once: the sign of t_j - x_j, :mod:`mpc.protocols.sign`.
   3 rounds.
2. A row comes to a leaf if every bit on the path to it is right: the product of those bits, negated where
   the path goes left, in groups of four: ceil(log4(depth)) rounds (:mod:`mpc.protocols.bits`). Groups that
   paths have in common are computed once. Without a provider in groups of two: ceil(log2(depth)) rounds.
3. B2A: 1 round (:mod:`mpc.protocols.b2a`).
Exact, ties included, for every pair of values below 2^62. The leaves' values then follow by one product.
Cost for depth 6 and values of 32 bits: 6 rounds, about 9 (n - 1) bytes for each node and row.

Source: ours; all comparisons first, then a product for each leaf, as in De Cock, Dowsley, Horst, Katti,
Nascimento, Poon, Truex 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import ArgumentError, ShapeError
from mpc.core.runtime import Runtime
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, bits, sign
from mpc.protocols.comparison import difference
from mpc.two_party.pads import and_planes
from mpc.two_party.relu import complement
from ring.bits import WORD_BITS, count_words, pack_bits, unpack_bits

__all__ = ["Forest", "cost", "leaves_of"]

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Forest:
    """The shape of trees.

    Attributes
    ----------
    left, right : tuple of int
        For each inner node the node that follows it, or ~k for leaf k.
    roots : tuple of int
        The first node of each tree, an inner one.

    Raises
    ------
    ArgumentError
        If an inner node or a leaf is not reached exactly once.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    roots: tuple[int, ...]

    def __post_init__(self) -> None:
        nodes = len(self.left)
        reached = sorted([*self.roots, *self.left, *self.right])
        leaves = sum(k < 0 for k in reached)
        if (
            not nodes
            or min(self.roots, default=-1) < 0
            or len(self.right) != nodes
            or reached != list(range(-leaves, nodes))
            or sum(map(len, self.paths)) == 0
            or len(self.paths) != leaves
        ):
            raise ArgumentError(
                "left, right and roots must reach each inner node and each leaf once, got "
                f"{nodes} inner nodes and {len(self.roots)} roots"
            )

    @property
    def leaves(self) -> int:
        """The number of leaves."""
        return len(self.paths)

    @property
    def paths(self) -> tuple[bits.Monomial, ...]:
        """For each leaf the nodes on its path, from the root, complemented where it goes left."""
        return _paths(self.left, self.right, self.roots)


@lru_cache(maxsize=64)
def _paths(
    left: tuple[int, ...], right: tuple[int, ...], roots: tuple[int, ...]
) -> tuple[bits.Monomial, ...]:
    found: dict[int, bits.Monomial] = {}
    waiting: list[tuple[int, bits.Monomial]] = [(root, ()) for root in roots]
    seen = 0
    while waiting and seen <= len(left):
        node, path = waiting.pop()
        if node < 0:
            found[~node] = path
            continue
        if node >= len(left) or node >= len(right):
            break
        seen += 1
        waiting += [(left[node], (*path, ~node)), (right[node], (*path, node))]
    return tuple(found[k] for k in sorted(found))


@lru_cache(maxsize=64)
def _rounds(paths: tuple[bits.Monomial, ...], fan_in: int) -> tuple[tuple[bits.Monomial, ...], ...]:
    """Return, for each round, the products to compute: lists of literals, the last round's by leaf."""
    rounds: list[tuple[bits.Monomial, ...]] = []
    while not rounds or any(len(path) > 1 for path in paths):
        groups: dict[bits.Monomial, int] = {}
        following = []
        for path in paths:
            pieces = [path[k : k + fan_in] for k in range(0, len(path), fan_in)]
            following.append(tuple(groups.setdefault(piece, len(groups)) for piece in pieces))
        rounds.append(tuple(groups))
        paths = tuple(following)
    last = tuple(rounds[-1][k] for (k,) in paths)
    return (*rounds[:-1], last)


@lru_cache(maxsize=64)
def _structures(paths: tuple[bits.Monomial, ...]) -> tuple[bits.Structure, ...]:
    return tuple(
        bits.structure_of(tuple((group,) for group in groups))
        for groups in _rounds(paths, bits.FAN_IN)
    )


def cost(parties: int, forest: Forest, rows: int, window: int) -> Spent:
    """Declare the cost for rows whose distances to the thresholds take `window` bits."""
    total = sign.cost(parties, len(forest.left) * rows, 0, window, True, "none")
    for structure in _structures(forest.paths):
        total = total + bits.cost(parties, structure, count_words(rows))
    return total + b2a.cost(parties, forest.leaves, rows)


def _planes(words: Words, planes: int, size: int) -> Words:
    """Cut (p, words) with planes * size bits into planes of their own words."""
    if size % WORD_BITS == 0:
        return words.reshape(len(words), planes, size // WORD_BITS)
    return pack_bits(unpack_bits(words, planes * size).reshape(len(words), planes, size))


def _products(session: Runtime, planes: Words, paths: tuple[bits.Monomial, ...]) -> Words:
    """Step 2."""
    pair = session.pair
    if pair is None:
        for structure in _structures(paths):
            planes = bits.evaluate(session, planes, structure)
        return planes
    for groups in _rounds(paths, 2):
        negated = complement(pair, planes)

        def literals(
            which: Sequence[int], planes: Words = planes, negated: Words = negated
        ) -> Words:
            numbers = np.array(which, np.int64)
            flip = (numbers < 0)[None, :, None]
            places = np.where(numbers < 0, ~numbers, numbers)
            return np.where(flip, negated[:, places], planes[:, places])

        following = literals([group[0] for group in groups])
        pairs = [k for k, group in enumerate(groups) if len(group) > 1]
        if pairs:
            second = literals([groups[k][1] for k in pairs])
            (both,) = and_planes(pair, np.ascontiguousarray(following[:, pairs]), second)
            following[:, pairs] = both
        planes = following
    return planes


def leaves_of(x: Secret, thresholds: Secret, forest: Forest) -> Secret:
    """Return a one for the leaf of each tree that a row comes to, and zeros.

    Parameters
    ----------
    x : secret array of shape (rows, nodes)
        For each inner node the value that it compares.
    thresholds : secret array of shape (nodes,)
    forest : Forest

    Returns
    -------
    secret array of whole numbers, of shape (rows, leaves)

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    nodes = len(forest.left)
    if x.ndim != 2 or x.shape[1] != nodes or thresholds.shape != (nodes,):
        raise ShapeError(
            f"x must have the shape (rows, {nodes}) and thresholds ({nodes},), "
            f"got {x.shape} and {thresholds.shape}"
        )
    session, rows = x.session, x.shape[0]
    with session.protocol("trees"):
        d = difference(thresholds, x, "trees")
        turned = d.view(("transpose", (1, 0)))
        right = sign.negative_bits(turned)
        at_leaves = _products(session, _planes(right, nodes, rows), forest.paths)
        shares = b2a.convert(session, at_leaves, rows).transpose(0, 2, 1)
    return x.derive(np.ascontiguousarray(shares), frac_bits=0, bound=1, binary=True)
