"""What a network learns beside one class of several: one of two, labels of 0 and 1, or values.

By its number of outputs and the loss of ``fit``:

============  =======  ====================================  ==========================================
task          outputs  loss                                  model after the training
============  =======  ====================================  ==========================================
classes       2, ...   all but "binary_cross_entropy"        a classifier with one score a class
two classes   1        "binary_cross_entropy"                a classifier with the scores 0 and s
labels        2, ...   "binary_cross_entropy"                values, 1 where the score is above 0
values        1        all but "binary_cross_entropy"        values
values        2, ...   "squared_error", "huber": `numbers`  values
============  =======  ====================================  ==========================================

So models of all tasks are classifiers or regressors, in files, in services and on shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import SharedArray
from nn.core.checks import label_vector
from nn.core.labels import encode_labels
from nn.layers import Dense, Layer, Step
from nn.layers.evaluation import evaluate
from nn.layers.graph import Graph, rewired
from ring.errors import ArgumentError, RangeError, ShapeError
from ring.real_arrays import real_array

__all__ = ["OF_CLASSES", "begun", "encoded", "finished", "one_hot_columns", "right", "score"]

# Tasks whose labels are classes.
OF_CLASSES = ("classes", "two classes")
# The scores of both classes by the one of a network with one output, and the other way round.
_WIDEN, _NARROW = np.array([[0, 1]]), np.array([[-1], [1]])


def encoded(
    task: str, y: Any, classes: Any, rows: int, outputs: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return classes, and targets of shape (rows, outputs), of what is no class of several.

    Raises
    ------
    ShapeError, RangeError, DtypeError, ArgumentError
        If `y` has another shape or kind.
    """
    if task == "two classes":
        labels = label_vector("y", y, rows)
        if classes is None and len(np.unique(labels)) != 2:
            raise ArgumentError(
                f"y must have two different labels for a network with one output, got"
                f" {len(np.unique(labels))}; classes= names a label that y lacks, and"
                " loss='squared_error' takes numbers"
            )
        names, numbers = encode_labels(labels, classes, 2)
        return names, numbers.reshape(-1, 1).astype(np.float64)
    if classes is not None:
        raise ArgumentError(f"classes is for a training of classes, got {classes!r} with {task}")
    targets = real_array(y, "y").astype(np.float64)
    if outputs == 1 and targets.ndim == 1:
        targets = targets.reshape(-1, 1)
    if targets.shape != (rows, outputs):
        raise ShapeError(f"y must have the shape ({rows}, {outputs}), got {targets.shape}")
    if not np.isfinite(targets).all():
        raise RangeError("y must hold finite numbers, got NaN or infinities")
    if task == "labels" and not np.isin(targets, (0, 1)).all():
        strange = targets[~np.isin(targets, (0, 1))][0]
        raise ArgumentError(f"y must hold labels of 0 and 1 for this loss, got {strange:g}")
    return np.arange(outputs), targets


def one_hot_columns(targets: Any) -> Any:
    """Return one-hot rows of two classes for a column of 0 and 1, in the clear or on shares."""
    return np.concatenate([1 - targets, targets], axis=1)


def finished(task: str, layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the layers of the model for those that were trained, in the clear or on shares."""
    if task == "labels":
        return _followed(layers, Step())
    if task != "two classes":
        return layers
    last = layers[-1]
    if not isinstance(last, Dense):
        return _followed(layers, Dense(_WIDEN.astype(np.float64), np.zeros(2)))
    return rewired(layers, [*layers[:-1], _mixed(last, _WIDEN)])


def begun(task: str, layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the layers to train of a model that :func:`finished` has returned."""
    if task == "labels" and isinstance(layers[-1], Step):
        return _without_last(layers)
    if task == "two classes" and isinstance(layers[-1], Dense):
        return rewired(layers, [*layers[:-1], _mixed(layers[-1], _NARROW)])
    return layers


def _mixed(layer: Dense, matrix: NDArray[np.int64]) -> Layer:
    """Return a layer with sums of a layer's outputs: a product with a small public matrix."""
    weights, bias = layer.parameters
    found = [weights @ matrix, (bias.reshape(1, -1) @ matrix).reshape(-1)]
    if not isinstance(weights, SharedArray):
        found = [a.astype(weights.dtype) for a in found]
    return Dense(*found)


def _followed(layers: Sequence[Layer], layer: Layer) -> Sequence[Layer]:
    if not isinstance(layers, Graph):
        return [*layers, layer]
    nodes = [(node.layer, node.inputs) for node in layers.nodes]
    return Graph([*nodes, (layer, (len(nodes),))], layers.n_features)


def _without_last(layers: Sequence[Layer]) -> Sequence[Layer]:
    if not isinstance(layers, Graph):
        return layers[:-1]
    return Graph([(node.layer, node.inputs) for node in layers.nodes[:-1]], layers.n_features)


def score(
    task: str, layers: Sequence[Layer], X: NDArray[Any], targets: NDArray[Any], loss: Any
) -> float:
    """Return how good scores are: the share of right labels, or of values minus the mean loss."""
    scores = evaluate(layers, X)
    if task == "values":
        return -float(loss(scores, targets))
    return float(np.mean((scores > 0) == (targets > 0)))


def right(scores: SharedArray, targets: SharedArray) -> SharedArray:
    """Return the number of right labels, as a shared array."""
    found: Any = scores.truncate() > 0
    both = (found * targets).sum() * 2
    count: SharedArray = both - found.sum() - targets.sum() + scores.size
    return count
