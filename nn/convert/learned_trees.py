"""Tree ensembles of ONNX-ML as trees of Sotto: TreeEnsembleClassifier, -Regressor and TreeEnsemble.

onnxruntime compares float32 with float32. So each threshold, whatever the mode of its node, becomes the
greatest float32 that goes one way; if scalers stand before the tree, the greatest float32 of the feature
itself, found by bisection of what they do in float32; and of that the greatest double that is cast to it. A
row in any precision gets the leaf that its float32 gets there, ties included. Which way missing values go
does not matter: a row that is shared has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.convert.conversion import Conversion
from nn.convert.expressions import Affine, TreeTable
from nn.convert.problems import ConversionError
from nn.convert.sklearn_trees import from_float32, leaf_sums

__all__ = ["Path", "always", "base_values", "ensemble", "ensemble_of_version_5", "weights_of"]

Floats = NDArray[np.float64]
# The feature that a column is made of, and what is done to it in float32, one operation after the other.
Path = tuple[int, tuple[tuple[str, float], ...]]

_MODES = (
    "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER",
)  # fmt: skip
# Nodes of an ensemble, several times what forests have.
_MOST_NODES = 1 << 20
_FINITE = int(np.finfo(np.float32).max.view(np.int32))
_STEPS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}


def _of_order(places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return finite float32 by their number in ascending order, 0 for 0."""
    bits = np.abs(places).astype(np.int32)
    return np.where(places < 0, -bits.view(np.float32), bits.view(np.float32))


def _before(steps: Sequence[tuple[str, float]], limits: ArrayLike) -> Floats:
    """Return, for each limit, the greatest float32 that `steps`, none of which falls, make at most that."""
    wanted = np.asarray(limits, np.float64)

    def goes(places: NDArray[np.int64]) -> NDArray[np.bool_]:
        x = _of_order(places)
        with np.errstate(all="ignore"):
            for name, number in steps:
                x = _STEPS[name](x, np.float32(number))
        return np.asarray(x <= wanted)

    low, high = np.full(wanted.shape, -_FINITE), np.full(wanted.shape, _FINITE)
    never, always = ~goes(low), goes(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        found = goes(middle)
        low, high = np.where(found, middle, low), np.where(found, high, middle)
    return np.where(always, np.inf, np.where(never, -np.inf, _of_order(low).astype(np.float64)))


def _limit(value: float, strict: bool, double: bool) -> float:
    """Return the greatest number that is at most `value`, or below it, among those that rows have."""
    if double:
        return float(np.nextafter(value, -np.inf)) if strict else value
    with np.errstate(over="ignore"):
        found = np.float32(value)
    if found > value or (strict and found == value):
        found = np.nextafter(found, np.float32(-np.inf))
    return float(found)


class _Nodes:
    """The nodes of one tree, of which each compares a column with a limit, made of nodes of any mode."""

    def __init__(self, double: bool) -> None:
        self.double = double
        self.features: list[int] = []
        self.limits: list[float] = []
        self.left: list[int] = []
        self.right: list[int] = []
        # The leaf of the original, -1 for inner nodes.
        self.leaves: list[int] = []
        # All nodes of the original that rows come to.
        self.reached: set[int] = set()

    def grow(self, given: Mapping[str, Any], root: int, first_of_false: int) -> None:
        """Add the nodes below a root; numbers from `first_of_false` on are leaves."""
        waiting: list[tuple[int, tuple[int, int] | None]] = [(root, None)]
        # What waits: a node of the original, and the place that is told of it.
        while waiting:
            node, told = waiting.pop()
            place = self._add(told)
            self.reached.add(node)
            if node >= first_of_false or given["modes"][node] == "LEAF":
                self.leaves[place] = node
                continue
            yes, no = given["true"][node], given["false"][node]
            mode, value = given["modes"][node], float(given["values"][node])
            self.features[place] = int(given["features"][node])
            strict = mode in ("BRANCH_LT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ")
            self.limits[place] = _limit(value, strict, self.double)
            if mode in ("BRANCH_LEQ", "BRANCH_LT"):
                waiting += [(yes, (place, 0)), (no, (place, 1))]
            elif mode in ("BRANCH_GTE", "BRANCH_GT"):
                waiting += [(no, (place, 0)), (yes, (place, 1))]
            elif mode in ("BRANCH_EQ", "BRANCH_NEQ"):
                inside, outside = (yes, no) if mode == "BRANCH_EQ" else (no, yes)
                second = self._add((place, 1))
                self.features[second] = self.features[place]
                self.limits[second] = _limit(value, False, self.double)
                waiting += [(outside, (place, 0)), (inside, (second, 0)), (outside, (second, 1))]
            else:
                raise ConversionError(f"nodes must have a mode that compares numbers, got {mode}")

    def _add(self, told: tuple[int, int] | None) -> int:
        place = len(self.leaves)
        if place >= _MOST_NODES:
            raise ConversionError(
                f"its nodes make no tree, or one of more than {_MOST_NODES} nodes"
            )
        for numbers in (self.features, self.left, self.right, self.leaves):
            numbers.append(-1)
        self.limits.append(0.0)
        if told is not None:
            (self.left if told[1] == 0 else self.right)[told[0]] = place
        return place


def _trees(
    c: Conversion, x: Affine, paths: Sequence[Path | None], double: bool,
    grown: list[_Nodes], values: Floats,
) -> Affine:  # fmt: skip
    """Return the sum of trees, given what each leaf of the original adds."""
    used = sorted({k for tree in grown for k in tree.features if k >= 0})
    if used and used[-1] >= x.size:
        raise ConversionError(f"compares column {used[-1]}, but its rows have {x.size}")
    known = {k: path for k, path in enumerate(paths) if path is not None}
    direct = all(k in known for k in used)
    tables = []
    for tree in grown:
        features, limits = np.array(tree.features, np.int64), np.array(tree.limits)
        left, right = np.array(tree.left), np.array(tree.right)
        inner, leaves = features >= 0, np.array(tree.leaves, np.int64)
        if direct and not double:
            for k in np.unique(features[inner]):
                feature, steps = known[int(k)]
                at = np.flatnonzero(np.array(tree.features) == k)
                if sum(name in "*/" and number < 0 for name, number in steps) % 2:
                    # What falls is above the limit where its opposite is below the opposite limit.
                    steps = (*steps, ("*", -1.0))
                    limits[at] = [_limit(-limit, True, double) for limit in limits[at].tolist()]
                    left[at], right[at] = right[at], left[at]
                limits[at] = _before(steps, limits[at])
                features[at] = feature
        elif direct:
            features[inner] = [known[int(k)][0] for k in features[inner]]
        if not double:
            limits = from_float32(limits)
        table = TreeTable()
        found = table.add(features, limits, left, right, inner)
        alone = values[leaves[0]] if leaves[0] >= 0 else np.zeros(values.shape[1])
        tables.append((table, values[leaves[found]] if len(found) else None, alone))
    return leaf_sums(c, c.build.input if direct else x, tables)


def _array(attributes: Mapping[str, Any], name: str, count: int, default: Any = 0) -> NDArray[Any]:
    """Return an attribute of nodes, also as the tensor of doubles that may stand in for it."""
    import onnx.numpy_helper

    tensor = attributes.get(f"{name}_as_tensor")
    if tensor is not None:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    found = attributes.get(name)
    if found is None:
        return np.full(max(count, 0), default)
    found = found if isinstance(found, list) else onnx.numpy_helper.to_array(found)
    if len(found) != count and count >= 0:
        raise ConversionError(f"needs {count} numbers in {name}, got {len(found)}")
    return np.asarray(found)


def base_values(attributes: Mapping[str, Any], count: int) -> Floats:
    """Return what is added to the sums of an ensemble, one number each."""
    found = np.asarray(_array(attributes, "base_values", -1), np.float64)
    if not found.size:
        return np.zeros(count)
    if found.shape != (count,):
        raise ConversionError(f"needs {count} numbers in base_values, got {len(found)}")
    return found


@dataclass(frozen=True)
class Weights:
    """What the weights of a TreeEnsembleClassifier say."""

    classes: frozenset[int]
    positive: bool
    # Whether each class has a weight for every row.
    all_weigh: bool
    # The largest sum of the weights of class number 0.
    most: float
    sums_to_one: bool


def weights_of(attributes: Mapping[str, Any], count: int) -> Weights:
    """Return what the weights of a TreeEnsembleClassifier say."""
    weights = np.asarray(_array(attributes, "class_weights", -1), np.float64)
    trees, nodes = (np.asarray(attributes[f"class_{key}"]) for key in ("treeids", "nodeids"))
    most = least = 0.0
    for tree, leaves in _leaves(attributes).items():
        here = trees == tree
        _, places = np.unique(nodes[here], return_inverse=True)
        sums = np.bincount(places, weights[here], minlength=leaves)
        most, least = most + sums.max(), least + sums.min()
    base = base_values(attributes, count) if count > 2 else np.zeros(1)
    positive = bool((weights >= 0).all())
    one = positive and (base >= 0).all() and abs(most + base.sum() - 1) < 1e-5
    return Weights(
        frozenset(attributes["class_ids"]), positive,
        len(always(attributes, "class")) == count or bool(base.any()), most,
        bool(one and most - least < 1e-5),
    )  # fmt: skip


def _leaves(attributes: Mapping[str, Any]) -> dict[int, int]:
    """Return how many leaves each tree has."""
    found: dict[int, int] = {}
    for tree, mode in zip(attributes["nodes_treeids"], attributes["nodes_modes"], strict=True):
        found[tree] = found.get(tree, 0) + (mode == b"LEAF")
    return found


def always(attributes: Mapping[str, Any], target: str) -> set[int]:
    """Return the outputs to which some leaf adds for every row."""
    seen: dict[tuple[int, int], set[int]] = {}
    entries = (attributes[f"{target}_{key}"] for key in ("treeids", "ids", "nodeids"))
    for tree, column, node in zip(*entries, strict=True):
        seen.setdefault((tree, column), set()).add(node)
    leaves = _leaves(attributes)
    return {column for (tree, column), nodes in seen.items() if len(nodes) == leaves[tree]}


def ensemble(
    c: Conversion, x: Affine, paths: Sequence[Path | None], double: bool,
    attributes: Mapping[str, Any], target: str, outputs: int,
) -> Affine:  # fmt: skip
    """Return the sums of a TreeEnsembleRegressor (`target` "target") or -Classifier ("class").

    Parameters
    ----------
    c : Conversion
    x : Affine
        The rows.
    paths : sequence of Path or None
        Where the columns of `x` come from.
    double : bool
        Whether rows are compared as doubles, not as float32.
    attributes : mapping
        Of the node.
    target : str
    outputs : int
    """
    names = [b.decode() for b in attributes["nodes_modes"]]
    count = len(names)
    trees, ids = (np.asarray(attributes[f"nodes_{key}"]) for key in ("treeids", "nodeids"))
    numbers = {key: n for n, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=True))}
    if len(numbers) != count:
        raise ConversionError("two of its nodes have the same number")
    given: dict[str, Any] = {
        "modes": names,
        "features": attributes["nodes_featureids"],
        "values": _array(attributes, "nodes_values", count),
    }
    below = set()
    for key in ("true", "false"):
        children = attributes[f"nodes_{key}nodeids"]
        given[key] = [
            -1 if mode == "LEAF" else numbers[tree, child]
            for mode, tree, child in zip(names, trees.tolist(), children, strict=True)
        ]
        below |= set(given[key])
    values = np.zeros((count, outputs))
    weights = _array(attributes, f"{target}_weights", -1)
    entries = zip(
        attributes[f"{target}_treeids"], attributes[f"{target}_nodeids"],
        attributes[f"{target}_ids"], weights.tolist(), strict=True,
    )  # fmt: skip
    for tree, node, column, weight in entries:
        values[numbers[tree, node], column] += weight
    grown = []
    for root in sorted(set(range(count)) - below):
        grown.append(_Nodes(double))
        grown[-1].grow(given, root, count)
    its = [{trees[node] for node in tree.reached} for tree in grown]
    one_each = len(its) == len(set(trees.tolist())) == sum(map(len, its))
    if not one_each or sum(len(tree.reached) for tree in grown) != count:
        raise ConversionError("the nodes of each number in nodes_treeids must make one tree")
    return _aggregated(c, x, paths, double, grown, values, attributes)


def ensemble_of_version_5(
    c: Conversion, x: Affine, paths: Sequence[Path | None], double: bool,
    attributes: Mapping[str, Any],
) -> Affine:  # fmt: skip
    """Return the sums of a TreeEnsemble, whose leaves are numbered apart; else as :func:`ensemble`."""
    modes = _array(attributes, "nodes_modes", -1).tolist()
    count = len(modes)
    given: dict[str, Any] = {
        "modes": [_MODES[mode] for mode in modes],
        "features": attributes["nodes_featureids"],
        "values": _array(attributes, "nodes_splits", count),
    }
    for key in ("true", "false"):
        children = attributes[f"nodes_{key}nodeids"]
        leaves = attributes[f"nodes_{key}leafs"]
        given[key] = [
            child + count if leaf else child for child, leaf in zip(children, leaves, strict=True)
        ]
    targets = attributes["leaf_targetids"]
    values = np.zeros((count + len(targets), int(attributes.get("n_targets", 1))))
    values[count + np.arange(len(targets)), targets] = _array(
        attributes, "leaf_weights", len(targets)
    )
    grown = []
    for root in attributes["tree_roots"]:
        grown.append(_Nodes(double))
        grown[-1].grow(given, root, count)
    kind = ("AVERAGE", "SUM", "MIN", "MAX")[int(attributes.get("aggregate_function", 1))]
    named = {"aggregate_function": kind.encode()}
    return _aggregated(c, x, paths, double, grown, values, named)


def _aggregated(
    c: Conversion, x: Affine, paths: Sequence[Path | None], double: bool, grown: list[_Nodes],
    values: Floats, attributes: Mapping[str, Any],
) -> Affine:  # fmt: skip
    kind = attributes.get("aggregate_function", b"SUM").decode()
    if kind not in ("SUM", "AVERAGE"):
        raise ConversionError(f"needs aggregate_function SUM or AVERAGE, got {kind}")
    if not grown:
        raise ConversionError("needs a tree, got no nodes")
    if kind == "AVERAGE":
        values = values / len(grown)
    return _trees(c, x, paths, double, grown, values)
