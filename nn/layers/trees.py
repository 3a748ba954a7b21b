"""Decision trees and sums of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.protocols import trees
from nn.core.checks import integer, interval
from nn.layers.layer import Layer, Shape, register
from ring.errors import ArgumentError, ShapeError

__all__ = ["Trees"]

Floats = NDArray[np.float64]
# Elements of a table of rows and trees that are worked on at once, in the clear.
_AT_ONCE = 1 << 22
# By what part of a computed feature sums in another order may differ.
_LAST_DIGITS = 2.0**-42


@register
class Trees(Layer):
    """The sum of decision trees: each adds the values of the leaf that a row comes to.

    At an inner node a row goes left if its feature is at most the threshold, else right. On shares the
    thresholds, the values and the bias are secret, and the trees' shape is public. Which feature a node
    compares is public too, or secret with `picks` (a product more).

    Parameters
    ----------
    thresholds : array of shape (nodes,)
        One for each inner node, of all trees.
    values : array of shape (leaves, outputs)
        Times ``2**shift``.
    bias : array of shape (outputs,)
        Added to the sum.
    picks : array of shape (features, nodes), optional
        One-hot columns, in place of `features`.
    lean : array of shape (nodes,), optional
        1 where rows are known that lie just below a threshold or on it, -1 where just above; 1 + d or
        -1 - d to move the threshold by d: see :meth:`on_grid`. Default: zeros.
    features : sequence of int
        The number of the feature that each inner node compares; empty with `picks`.
    left, right : sequence of int
        For each inner node the node for rows that go that way, or ``~k`` for leaf k.
    roots : sequence of int
        The first node of each tree.
    shift : int, default=0
        Of small values, by how many bits they are scaled up, so that a format holds them exactly.

    Raises
    ------
    ArgumentError, ShapeError
        If the nodes make no trees, or the arrays do not fit them.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Trees
    >>> stump = Trees(np.array([2.5]), np.array([[10.0], [20.0]]), np.zeros(1), None, [0], [~0], [~1], [0])
    >>> stump(np.array([[2.5], [2.6]]))
    array([[10.],
           [20.]])
    """

    options = ("features", "left", "right", "roots", "shift")
    trains, trains_on_shares = False, False

    def __init__(
        self,
        thresholds: Any,
        values: Any,
        bias: Any,
        picks: Any,
        features: Sequence[int],
        left: Sequence[int],
        right: Sequence[int],
        roots: Sequence[int],
        shift: int = 0,
        *,
        lean: Any = None,
    ) -> None:
        super().__init__()
        self.forest = trees.Forest(*(tuple(int(k) for k in some) for some in (left, right, roots)))
        self.left, self.right, self.roots = self.forest.left, self.forest.right, self.forest.roots
        self.features = tuple(integer(f"features[{k}]", n, 0) for k, n in enumerate(features))
        self.shift = integer("shift", shift, 0)
        if self.shift > 32:
            raise ArgumentError(f"shift must be at most 32, got {shift}")
        nodes, leaves = len(self.left), self.forest.leaves
        shapes = [tuple(a.shape) for a in (thresholds, values, bias)]
        outputs = shapes[1][-1] if len(shapes[1]) == 2 else 0
        if shapes != [(nodes,), (leaves, outputs), (outputs,)] or not outputs:
            raise ShapeError(
                f"{nodes} inner nodes and {leaves} leaves need thresholds, values and bias of shapes "
                f"({nodes},), ({leaves}, outputs) and (outputs,), got {shapes}"
            )
        if (picks is None) == (not self.features) or len(self.features) not in (0, nodes):
            raise ShapeError(
                f"each of {nodes} inner nodes needs a feature, in features or in picks, got "
                f"{len(self.features)} features and {'no' if picks is None else 'some'} picks"
            )
        if picks is not None and (len(picks.shape) != 2 or picks.shape[1] != nodes):
            raise ShapeError(
                f"picks must have a column for each of {nodes} nodes, got {picks.shape}"
            )
        self.thresholds, self.values, self.bias, self.picks = thresholds, values, bias, picks
        self.lean = np.zeros(nodes) if lean is None else lean

    def __repr__(self) -> str:
        hidden = ", secret features" if self.picks is not None else ""
        return f"Trees({len(self.roots)} trees, {len(self.left)} nodes, {self.outputs} outputs{hidden})"

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return int(self.values.shape[1])

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        named = cls._named(options)
        thresholds, values, bias, lean = (next(parameters) for _ in range(4))
        picks = None if named["features"] else next(parameters)
        return cls(thresholds, values, bias, picks, **named, lean=lean)

    @property
    def parameters(self) -> list[Any]:
        """Thresholds, values, bias and leanings; the picks, if features are secret."""
        found = [self.thresholds, self.values, self.bias, self.lean]
        return found if self.picks is None else [*found, self.picks]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        expected = [tuple(value.shape) for value in self.parameters]
        if shapes != expected:
            raise ShapeError(f"{self!r} needs parameters of shapes {expected}, got {shapes}")
        self.thresholds, self.values, self.bias, self.lean = values[:4]
        self.picks = values[4] if len(values) > 4 else None

    def picked(self) -> NDArray[np.int64]:
        """Return the feature of each node, of a plain model."""
        if self.picks is None:
            return np.array(self.features, np.int64)
        return np.asarray(self.picks).argmax(axis=0)

    def leaning(self, X: Floats, near: Floats, computed: bool = False) -> Trees:
        """Return trees that know of rows nearer to a threshold than `near`, one number a feature.

        With `computed`, the features are computed on shares and so off by units: thresholds are moved
        on shares by `near`, or half way to the next row. A row that is above a threshold by its last
        digits, in which sums differ from one library to the next, is taken to lie on it.
        """
        lean, places = np.zeros(len(self.left)), self.picked()
        thresholds = np.array(self.thresholds, np.float64)
        for k in np.unique(places):
            nodes, column = np.flatnonzero(places == k), np.unique(X[:, k])
            limits = thresholds[nodes]
            if computed:
                digits = _LAST_DIGITS * np.abs(column).max()
                last = np.searchsorted(column, limits + digits, side="right")
                limits = np.maximum(limits, np.concatenate([[-np.inf], column])[last])
                thresholds[nodes] = limits
            after = np.searchsorted(column, limits, side="right")
            padded = np.concatenate([[-np.inf], column, [np.inf]])
            below, above = limits - padded[after], padded[after + 1] - limits
            close = np.minimum(below, above) <= near[k]
            room = np.minimum(np.abs(above - below) / 2, near[k]) if computed else 0.0
            lean[nodes] = np.where(close, np.where(below <= above, 1.0, -1.0) * (1 + room), 0.0)
        values = self.parameters
        return self.with_parameters([thresholds, *values[1:3], lean, *values[4:]])

    def on_grid(self, frac_bits: int) -> list[Any]:
        """Return the parameters with thresholds on the grid of a format.

        They are rounded down, so that a row on the grid goes where it goes in the clear. Where a row
        is known to lie within a unit of a threshold, off the grid, the threshold is rounded as that row
        is, or one unit lower, so that this row goes the right way. Thresholds of computed features
        are moved away from it.
        """
        unit = 2.0**-frac_bits
        places, lean = np.asarray(self.thresholds) / unit, np.asarray(self.lean)
        # Leanings are for 16 fractional bits; in a finer format features are off by less.
        part = min(unit, 2.0**-16) * 2.0**16
        places = places + np.where(lean == 0, 0, lean - np.sign(lean)) * part / unit
        nearest = np.where(lean > 0, np.rint(places), np.rint(places) - 1)
        rounded = np.where(lean == 0, np.floor(places), nearest) * unit
        return [rounded, self.values, self.bias, np.zeros_like(lean), *self.parameters[4:]]

    def rescaled(self, middle: Floats, power: NDArray[Any], reach: float) -> Trees:
        """Return trees that take ``(x - middle) / 2^power``, of magnitude up to `reach`, in place of x."""
        places = self.picked()
        moved = np.ldexp(self.thresholds - middle[places], -power[places])
        # Whatever lies beyond the range divides no rows.
        return self._with_thresholds(np.clip(moved, -reach - 1, reach))

    def unscaled(self, middle: Floats, power: NDArray[Any]) -> Trees:
        """Undo :meth:`rescaled`."""
        places = self.picked()
        return self._with_thresholds(np.ldexp(self.thresholds, power[places]) + middle[places])

    def _with_thresholds(self, thresholds: Floats) -> Trees:
        return self.with_parameters([thresholds, *self.parameters[1:]])

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        if isinstance(x, SharedArray):
            return self._shared(x)
        reached = self._leaves(np.asarray(x))
        total = np.zeros((len(x), self.outputs))
        for column in reached.T:  # in the order of the trees, as the original adds them
            total += self.values[column]
        return total * 2.0**-self.shift + self.bias

    def _leaves(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Return the leaf of each row in each tree, (rows, trees)."""
        features, left, right = (
            np.array(a, np.int64) for a in (self.picked(), self.left, self.right)
        )
        roots = np.array(self.roots, np.int64)
        found = np.empty((len(x), len(roots)), np.int64)
        step = max(1, _AT_ONCE // len(roots))
        for start in range(0, len(x), step):
            part = x[start : start + step]
            rows = np.arange(len(part))[:, None]
            at = np.broadcast_to(roots, (len(part), len(roots)))
            while (at >= 0).any():
                node = np.maximum(at, 0)
                goes_left = part[rows, features[node]] <= self.thresholds[node]
                at = np.where(at < 0, at, np.where(goes_left, left[node], right[node]))
            found[start : start + step] = ~at
        return found

    def _shared(self, x: SharedArray) -> SharedArray:
        if self.picks is None:
            compared = x[:, np.array(self.features, np.intp)]
        else:
            compared = x @ self.picks
        at = trees.leaves_of(compared, self.thresholds, self.forest)
        total = at @ self.values
        if self.shift:
            total = total.derive(
                total.shares, frac_bits=total.frac_bits + self.shift, bound=total.bound
            )
        output: SharedArray = total + self.bias
        return output

    def forward(self, x: Any) -> Any:
        raise ArgumentError(f"{self!r} is not trained")

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        raise ArgumentError(f"{self!r} is not trained")

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        interval(low, high)
        tree = np.zeros(self.forest.leaves, np.int64)
        for number, root in enumerate(self.roots):
            waiting = [root]
            while waiting:
                node = waiting.pop()
                if node < 0:
                    tree[~node] = number
                else:
                    waiting += [self.left[node], self.right[node]]
        values, bias = (np.asarray(a, np.float64) for a in (self.values, self.bias))
        least = np.full((len(self.roots), self.outputs), np.inf)
        most = -least
        np.minimum.at(least, tree, values)
        np.maximum.at(most, tree, values)
        scale = 2.0**-self.shift
        return least.sum(axis=0) * scale + bias, most.sum(axis=0) * scale + bias

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        features = None if self.picks is None else int(self.picks.shape[0])
        most = max(self.features, default=-1)
        if len(shape) != 1 or not (shape[0] > most if features is None else shape[0] == features):
            count = f"more than {most}" if features is None else f"{features}"
            raise ShapeError(f"{self!r} takes rows of {count} features, got shape {shape}")
        return (self.outputs,)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        nodes, leaves = len(self.left), self.forest.leaves
        return (12 * nodes + 6 * leaves) * (parties + 1) + 4 * math.prod(input_shape)
