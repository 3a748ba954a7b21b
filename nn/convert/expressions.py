"""Networks put together from affine maps, trees and layers, with as few layers as possible.

Converted estimators are chains and sums of affine maps with few other steps in between. So a value under
construction is an affine map of *bases*: the input, outputs of layers, and the leaves of trees (ones where
a row comes to a leaf). Scalers, selections, means of members, weights and links of affine maps are then
matrix arithmetic at conversion, and only what a layer takes becomes a layer itself. A forest whose trees
are averaged, weighted or spread over classes is one layer, whatever it was put together from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.layers import Add, Concat, Dense, Graph, Layer, Narrow, Trees
from nn.layers.folding import dense

__all__ = ["Affine", "Builder", "TreeTable", "joined"]

Floats = NDArray[np.float64]

# Several times the rounding of a double.
_ROUNDING = 2.0**-50


@dataclass(frozen=True)
class Affine:
    """The sum over bases of ``base @ matrix``, plus `bias`.

    Attributes
    ----------
    terms : dict of int to array of shape (size of the base, outputs)
        By the number of the base: a value of the graph, 0 being the input; or below 0 the leaves of trees.
    bias : array of shape (outputs,)
    """

    terms: Mapping[int, Floats]
    bias: Floats

    @property
    def size(self) -> int:
        """The number of outputs."""
        return len(self.bias)

    def map(self, weights: ArrayLike, bias: ArrayLike = 0.0) -> Affine:
        """Return ``self @ weights + bias``; weights of one axis are a diagonal matrix."""
        matrix = np.asarray(weights, np.float64)
        if matrix.ndim == 1:
            terms = {k: a * matrix for k, a in self.terms.items()}
            return Affine(terms, self.bias * matrix + np.asarray(bias, np.float64))
        terms = {k: a @ matrix for k, a in self.terms.items()}
        return Affine(terms, self.bias @ matrix + np.asarray(bias, np.float64))

    def take(self, columns: ArrayLike) -> Affine:
        """Return some columns."""
        places = np.asarray(columns)
        return Affine({k: a[:, places] for k, a in self.terms.items()}, self.bias[places])

    def __add__(self, other: Affine) -> Affine:
        terms = dict(self.terms)
        for k, a in other.terms.items():
            size = max(len(a), len(terms.get(k, a)))
            terms[k] = _grown(terms[k], size) + _grown(a, size) if k in terms else a
        return Affine(terms, self.bias + other.bias)

    def __neg__(self) -> Affine:
        return self * -1.0

    def __sub__(self, other: Affine) -> Affine:
        return self + -other

    def __mul__(self, factor: ArrayLike) -> Affine:
        scale = np.broadcast_to(np.asarray(factor, np.float64), self.bias.shape)
        return self.map(scale)


def _grown(matrix: Floats, rows: int) -> Floats:
    """Return a matrix with rows of zeros below: features that were not there yet when it was made."""
    if len(matrix) == rows:
        return matrix
    return np.concatenate([matrix, np.zeros((rows - len(matrix), matrix.shape[1]))])


def joined(parts: Sequence[Affine]) -> Affine:
    """Return values side by side."""
    if len(parts) == 1:
        return parts[0]
    stops = np.cumsum([0, *(part.size for part in parts)])
    terms: dict[int, Floats] = {}
    for part, start, stop in zip(parts, stops[:-1], stops[1:], strict=True):
        for k, a in part.terms.items():
            if k not in terms:
                rows = max(len(other.terms[k]) for other in parts if k in other.terms)
                terms[k] = np.zeros((rows, int(stops[-1])))
            terms[k][: len(a), start:stop] = a
    return Affine(terms, np.concatenate([part.bias for part in parts]))


@dataclass
class TreeTable:
    """One or more trees as lists; leaves are numbered from 0, and children of a node as in Trees.

    A row goes left at a node if its feature is at most the threshold.
    """

    thresholds: list[float] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    leaves: int = 0

    def add(
        self,
        features: ArrayLike,
        thresholds: ArrayLike,
        left: ArrayLike,
        right: ArrayLike,
        inner: ArrayLike,
    ) -> NDArray[np.int64]:
        """Add a tree, given arrays over its nodes, inner ones and leaves, of which node 0 is the root.

        Returns
        -------
        int array
            The nodes of `left` and `right` that are leaves, in the order of the leaves' numbers; empty
            for a tree of one leaf, which is not added.
        """
        is_inner = np.asarray(inner, bool)
        if not is_inner[0]:
            return np.empty(0, np.int64)
        numbers = np.where(
            is_inner,
            np.cumsum(is_inner) - 1 + len(self.left),
            ~(np.cumsum(~is_inner) - 1 + self.leaves),
        )
        self.thresholds += np.asarray(thresholds, np.float64)[is_inner].tolist()
        self.features += np.asarray(features, np.int64)[is_inner].tolist()
        self.left += numbers[np.asarray(left)[is_inner]].tolist()
        self.right += numbers[np.asarray(right)[is_inner]].tolist()
        self.roots.append(int(numbers[0]))
        self.leaves += int(np.count_nonzero(~is_inner))
        return np.flatnonzero(~is_inner)


class Builder:
    """A graph under construction.

    Parameters
    ----------
    features : int
        Features of a row.
    secret_features : bool
        Whether trees hide which features they compare.
    """

    def __init__(self, features: int, secret_features: bool = False) -> None:
        self.features, self._secret = features, secret_features
        self._nodes: list[tuple[Layer, tuple[int, ...]]] = []
        self._sizes = {0: features}
        self._made: dict[int, tuple[Affine, int]] = {}
        # By the base of their leaves: trees, and the value that they take.
        self._trees: dict[int, tuple[TreeTable, int]] = {}

    @property
    def input(self) -> Affine:
        """The rows."""
        return self._base(0)

    def columns(self, places: Sequence[int]) -> Affine:
        """Return features by their numbers, which may be new ones."""
        self.features = self._sizes[0] = max(self.features, 1 + max(places))
        matrix = np.zeros((self.features, len(places)))
        matrix[places, np.arange(len(places))] = 1.0
        return Affine({0: matrix}, np.zeros(len(places)))

    def constant(self, values: ArrayLike) -> Affine:
        """Return the same numbers for every row."""
        return Affine({}, np.atleast_1d(np.asarray(values, np.float64)))

    def _base(self, number: int) -> Affine:
        size = self._sizes[number]
        return Affine({number: np.eye(size)}, np.zeros(size))

    def _add(self, layer: Layer, taken: tuple[int, ...], size: int) -> int:
        self._nodes.append((layer, taken))
        self._sizes[len(self._nodes)] = size
        return len(self._nodes)

    def apply(self, layer: Layer, *parts: Affine) -> Affine:
        """Return the output of a layer for a value, or for several of one that joins."""
        taken = tuple(self.value(part) for part in parts)
        shapes: Any = tuple((self._sizes[k],) for k in taken)
        (size,) = layer.output_shape(shapes if layer.joins else shapes[0])
        return self._base(self._add(layer, taken, size))

    def value(self, x: Affine) -> int:
        """Return the number of a graph's value that holds `x`, never that of the input."""
        known = self._made.get(id(x))
        if known is not None:
            return known[1]
        alone = [k for k, a in x.terms.items() if k > 0 and _is_identity(a) and not x.bias.any()]
        number = alone[0] if len(x.terms) == 1 and alone else self._sum(x)
        self._made[id(x)] = x, number  # kept, so that its id stays its own
        return number

    def _sum(self, x: Affine) -> int:
        parts, bias = [], x.bias
        by_input: dict[int, list[int]] = {}
        for k in x.terms:
            if k < 0 and x.terms[k].any():
                by_input.setdefault(self._trees[k][1], []).append(k)
        for taken, bases in by_input.items():
            parts.append(self._add(self._forest(bases, x, bias), (taken,), x.size))
            bias = np.zeros_like(bias)
        plain = [k for k, a in x.terms.items() if k >= 0 and a.any()]
        if not parts and not plain:
            plain = [0]
        if len(plain) > 1 and 0 not in plain and all(self._sizes[k] <= 64 for k in plain):
            size = sum(self._sizes[k] for k in plain)
            together = self._add(Concat(), tuple(plain), size)
            matrix = np.concatenate([x.terms[k] for k in plain])
            parts.append(self._add(dense(matrix, bias), (together,), x.size))
        else:
            for k in plain:
                matrix = x.terms.get(k, np.zeros((self._sizes[k], x.size)))
                parts.append(self._add(Dense(matrix.copy(), bias.copy()), (k,), x.size))
                bias = np.zeros_like(bias)
        return parts[0] if len(parts) == 1 else self._add(Add(), tuple(parts), x.size)

    def _forest(self, bases: list[int], x: Affine, bias: Floats) -> Trees:
        """Return one layer for the trees of several bases that take the same value."""
        whole = TreeTable()
        for k in bases:
            table = self._trees[k][0]
            nodes, leaves = len(whole.left), whole.leaves
            for mine, its in ((whole.left, table.left), (whole.right, table.right)):
                mine += [n + nodes if n >= 0 else ~(~n + leaves) for n in its]
            whole.roots += [n + nodes for n in table.roots]
            whole.thresholds += table.thresholds
            whole.features += table.features
            whole.leaves += table.leaves
        values = np.concatenate([x.terms[k] for k in bases])
        largest = float(np.abs(values).max())
        # Small values are scaled up to 1, so that rounding them does not add up.
        shift = int(np.clip(-np.ceil(np.log2(largest)), 0, 16)) if largest else 0
        size, picks = self._sizes[self._trees[bases[0]][1]], None
        if self._secret:
            picks = np.zeros((size, len(whole.left)))
            picks[whole.features, np.arange(len(whole.left))] = 1.0
        return Trees(
            np.array(whole.thresholds), np.ldexp(values, shift), bias.copy(), picks,
            () if self._secret else whole.features, whole.left, whole.right, whole.roots, shift,
        )  # fmt: skip

    def trees(self, table: TreeTable, x: Affine, values: Floats, bias: Floats) -> Affine:
        """Return the sum of trees that compare the columns of `x`, given values of leaves, and a bias."""
        if not table.roots:
            return self.constant(bias)
        thresholds, moved = np.array(table.thresholds), self._monotone(x, table.features)
        if moved is None:
            taken, features = self.value(x), np.array(table.features)
        else:
            taken, (features, scale, offset) = 0, moved
            middle = offset / scale
            thresholds = thresholds / scale - middle
            if (scale != 1).any() or offset.any():
                # A row on a threshold stays left of it, whatever the last digits of a scaler's sums.
                thresholds += _ROUNDING * (np.abs(thresholds) + np.abs(middle))
        largest = np.finfo(np.float64).max / 4
        thresholds = np.clip(thresholds, -largest, largest)
        base = -1 - len(self._trees)
        table = TreeTable(
            thresholds.tolist(),
            features.tolist(),
            table.left,
            table.right,
            table.roots,
            table.leaves,
        )
        self._trees[base] = table, taken
        return Affine({base: np.asarray(values, np.float64)}, np.asarray(bias, np.float64))

    def _monotone(
        self, x: Affine, columns: Sequence[int]
    ) -> tuple[NDArray[np.int64], Floats, Floats] | None:
        """Return features, factors and summands if each column is a feature times a factor above 0."""
        if set(x.terms) != {0}:
            return None
        matrix = x.terms[0]
        used = np.unique(np.asarray(columns))
        if (np.count_nonzero(matrix[:, used], axis=0) != 1).any() or (matrix[:, used] < 0).any():
            return None
        features = matrix.argmax(axis=0)[list(columns)]
        return features, matrix[features, list(columns)], x.bias[list(columns)]

    def used(self, x: Affine) -> list[int]:
        """Return the numbers of the features that `x` depends on."""
        found: set[int] = set()
        for k in self._needed(self.value(x)):
            layer, taken = self._nodes[k - 1]
            if 0 in taken and isinstance(layer, Dense):
                found |= set(np.flatnonzero(layer.weights.any(axis=1)).tolist())
            elif 0 in taken and isinstance(layer, Trees):
                found |= set(layer.picked().tolist())
        return sorted(found)

    def _needed(self, last: int) -> list[int]:
        needed = {last}
        for number in range(last, 0, -1):
            if number in needed:
                needed |= set(self._nodes[number - 1][1])
        return sorted(needed - {0})

    def _narrowed(self, layer: Layer, keep: Sequence[int]) -> Layer:
        """Return a layer that takes some of the features alone."""
        if isinstance(layer, Dense):
            return Dense(_grown(layer.weights, self.features)[list(keep)], layer.bias)
        assert isinstance(layer, Trees)
        numbers = {feature: k for k, feature in enumerate(keep)}
        features = [numbers[k] for k in layer.picked().tolist()]
        picks = None
        if layer.picks is not None:
            picks = np.zeros((len(keep), len(features)))
            picks[features, np.arange(len(features))] = 1.0
        return Trees(
            layer.thresholds, layer.values, layer.bias, picks, () if picks is not None else features,
            layer.left, layer.right, layer.roots, layer.shift,
        )  # fmt: skip

    def finish(self, x: Affine, keep: Sequence[int] | None = None) -> list[Layer] | Graph:
        """Return the layers whose output is `x`: a list if each takes the one before it, else a graph.

        With `keep`, rows have those features alone.
        """
        needed = self._needed(self.value(x))
        takers = [k for k in needed if 0 in self._nodes[k - 1][1]]
        plain = [k for k in takers if isinstance(self._nodes[k - 1][0], Dense)]
        nodes: list[tuple[Layer, tuple[int, ...]]] = []
        numbers, narrow = {0: 0}, 0
        if plain and len(takers) > 1:
            nodes.append((Narrow(), (0,)))
            narrow = 1
        for k in needed:
            layer, taken = self._nodes[k - 1]
            through = [narrow if n == 0 and k in plain else numbers[n] for n in taken]
            if k in takers and keep is not None:
                layer = self._narrowed(layer, keep)
            nodes.append((layer, tuple(through)))
            numbers[k] = len(nodes)
        if all(taken == (k,) for k, (_, taken) in enumerate(nodes)):
            return [layer for layer, _ in nodes]
        return Graph(nodes, self.features if keep is None else len(keep))


def _is_identity(matrix: Floats) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))
