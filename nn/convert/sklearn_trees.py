"""Decision trees of scikit-learn and sums of them: forests and boosted trees.

A tree of scikit-learn casts a row to float32 and goes left if it is at most the threshold, a double. The
same holds of the row itself, in any precision, for the greatest double that is cast to at most the
threshold: :func:`from_float32`. On shares, rows are multiples of the format's unit, and thresholds are
rounded down to such a multiple: a row that is one goes the way it goes in the original, ties included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.convert.conversion import Conversion, Scores, Values
from nn.convert.expressions import Affine, TreeTable
from nn.convert.problems import ConversionError
from nn.convert.sklearn_linear import binary

__all__ = ["CLASSIFIERS", "REGRESSORS", "from_float32", "leaf_sums"]

Floats = NDArray[np.float64]
# Shows in the default format, and is less than 1e-5 of a probability.
_SECOND = 2.0**-15


def from_float32(thresholds: ArrayLike) -> Floats:
    """Return, for each threshold t, the greatest double whose nearest float32 is at most t.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.convert.sklearn_trees import from_float32
    >>> limit = float(from_float32([0.1])[0])
    >>> [float(np.float32(x)) <= 0.1 for x in (limit, np.nextafter(limit, 1))]
    [True, False]
    """
    exact = np.asarray(thresholds, np.float64)
    with np.errstate(over="ignore"):
        below = exact.astype(np.float32)
    below = np.where(below > exact, np.nextafter(below, np.float32(-np.inf)), below)
    above = np.nextafter(below, np.float32(np.inf))
    with np.errstate(invalid="ignore", over="ignore"):
        middle = below.astype(np.float64) / 2 + above.astype(np.float64) / 2
        # A double half way between two is cast to the even one.
        limit = np.where(middle.astype(np.float32) == below, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isfinite(limit), limit, exact)


def leaf_sums(
    c: Conversion, x: Affine, trees: list[tuple[TreeTable, Floats | None, Floats]]
) -> Affine:
    """Return the sum of trees, each a table of one tree, the values of its leaves, or of a lone leaf."""
    whole, values, constant = TreeTable(), [], np.zeros(trees[0][2].shape[-1])
    for table, at_leaves, alone in trees:
        if at_leaves is None:
            constant = constant + alone
            continue
        nodes = len(whole.left)
        for mine, its in ((whole.left, table.left), (whole.right, table.right)):
            mine += [n + nodes if n >= 0 else ~(~n + whole.leaves) for n in its]
        whole.roots += [n + nodes for n in table.roots]
        whole.thresholds += table.thresholds
        whole.features += table.features
        whole.leaves += table.leaves
        values.append(at_leaves)
    if not values:
        return c.build.constant(constant)
    return c.build.trees(whole, x, np.concatenate(values), constant)


def _tree(step: Any, values: Floats) -> tuple[TreeTable, Floats | None, Floats]:
    """Return a tree of scikit-learn, given the values of its nodes, (nodes, outputs)."""
    tree, table = step.tree_, TreeTable()
    leaves = table.add(
        tree.feature, from_float32(tree.threshold), tree.children_left, tree.children_right,
        tree.children_left >= 0,
    )  # fmt: skip
    return table, values[leaves] if len(leaves) else None, values[0]


def _odds(step: Any, classes: int | None = None) -> Floats:
    """Return the probabilities of the classes at each node of a tree."""
    if step.tree_.value.shape[1] != 1:
        raise ConversionError(
            f"{type(step).__name__} of several outputs is not converted: convert a tree for each"
        )
    counts = np.asarray(step.tree_.value[:, 0, :], np.float64)
    return counts / counts.sum(axis=1, keepdims=True)


def _targets(step: Any) -> Floats:
    return np.asarray(step.tree_.value[:, :, 0], np.float64)


def _tree_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    values = leaf_sums(c, x, [_tree(step, _odds(step))])
    return Scores(values, np.asarray(step.classes_), "normalised", certain=True)


def _tree_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    values = leaf_sums(c, x, [_tree(step, _targets(step))])
    return Values(values, values.size == 1)


def _forest_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    trees = [_tree(tree, _odds(tree) / len(step.estimators_)) for tree in step.estimators_]
    values = leaf_sums(c, x, trees)
    return Scores(values, np.asarray(step.classes_), "normalised", certain=True)


def _forest_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    trees = [_tree(tree, _targets(tree) / len(step.estimators_)) for tree in step.estimators_]
    values = leaf_sums(c, x, trees)
    return Values(values, values.size == 1)


def _boosted(c: Conversion, step: Any, x: Affine) -> Affine:
    """Return the raw sums of gradient boosting, one column for each class or one."""
    stages = step.estimators_
    first = step.init_
    if not isinstance(first, str) and type(first).__name__ not in (
        "DummyClassifier",
        "DummyRegressor",
    ):
        raise ConversionError(
            f"{type(step).__name__} is converted with init=None or 'zero', got {type(first).__name__}"
        )
    constant = np.asarray(step._raw_predict_init(np.zeros((1, step.n_features_in_), np.float32)))[0]
    outputs = stages.shape[1]
    trees = []
    for stage in stages:
        for column, tree in enumerate(stage):
            values = step.learning_rate * _targets(tree)
            trees.append(_tree(tree, values * np.eye(outputs)[column]))
    return leaf_sums(c, x, trees).map(np.ones(outputs), constant)


def _boosted_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    raw, classes = _boosted(c, step, x), np.asarray(step.classes_)
    if raw.size > 1:
        return Scores(raw, classes, "softmax", raw)
    # A sum of 0, as leaves with as many rows of one class as of the other have it, is the second class.
    # What makes it so stays small beside probabilities, also where the loss doubles the sum.
    raw = raw.map([2.0 if step.loss == "exponential" else 1.0], _SECOND)
    return Scores(binary(raw), classes, "softmax", raw)


def _boosted_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    return Values(_boosted(c, step, x))


def _histogram(c: Conversion, step: Any, x: Affine) -> Affine:
    """Return the raw sums of histogram boosting, whose thresholds are doubles and not cast."""
    if getattr(step, "is_categorical_", None) is not None and np.any(step.is_categorical_):
        raise ConversionError(
            f"{type(step).__name__} is not converted with categorical features: encode them by "
            "OneHotEncoder or OrdinalEncoder, with public_preprocessing=True"
        )
    constant = np.ravel(np.asarray(step._baseline_prediction, np.float64))
    outputs = len(constant)
    trees = []
    for stage in step._predictors:
        for column, predictor in enumerate(stage):
            nodes, table = predictor.nodes, TreeTable()
            leaves = table.add(
                nodes["feature_idx"], nodes["num_threshold"], nodes["left"], nodes["right"],
                nodes["is_leaf"] == 0,
            )  # fmt: skip
            values = nodes["value"][:, None] * np.eye(outputs)[column]
            trees.append((table, values[leaves] if len(leaves) else None, values[0]))
    return leaf_sums(c, x, trees).map(np.ones(outputs), constant)


def _histogram_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    raw, classes = _histogram(c, step, x), np.asarray(step.classes_)
    return Scores(binary(raw) if raw.size == 1 else raw, classes, "softmax", raw)


def _histogram_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    raw = _histogram(c, step, x)
    if type(step._loss.link).__name__ == "LogLink":
        raw = c.exponential(raw, np.ravel(step._baseline_prediction))
    return Values(raw)


def _ada_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    classes, weights = np.asarray(step.classes_), np.asarray(step.estimator_weights_, np.float64)
    count = len(classes)
    weights = weights[: len(step.estimators_)] / np.sum(step.estimator_weights_)
    if count == 1:
        return Scores(c.build.constant([1.0]), classes, "normalised", certain=True)
    total = c.build.constant(np.zeros(count))
    trees = []
    for member, weight in zip(step.estimators_, weights, strict=True):
        # A vote for one class is one against each of the others.
        places = np.searchsorted(classes, member.classes_)
        spread = np.full((len(places), count), -weight / (count - 1))
        spread[np.arange(len(places)), places] = weight
        if type(member).__name__ in ("DecisionTreeClassifier", "ExtraTreeClassifier"):
            trees.append(_tree(member, spread[_odds(member).argmax(axis=1)]))
        else:
            total = total + c.votes(member, x).map(spread)
    if trees:
        total = total + leaf_sums(c, x, trees)
    if count == 2:
        return Scores(total, classes, "softmax", total.map([[-1.0], [1.0]]))
    # Probabilities are the softmax of the sums over (count - 1).
    return Scores(total * (1 / (count - 1)), classes, "softmax", total)


CLASSIFIERS = {
    "AdaBoostClassifier": _ada_classifier,
    "DecisionTreeClassifier": _tree_classifier,
    "ExtraTreeClassifier": _tree_classifier,
    "ExtraTreesClassifier": _forest_classifier,
    "GradientBoostingClassifier": _boosted_classifier,
    "HistGradientBoostingClassifier": _histogram_classifier,
    "RandomForestClassifier": _forest_classifier,
}
REGRESSORS = {
    "DecisionTreeRegressor": _tree_regressor,
    "ExtraTreeRegressor": _tree_regressor,
    "ExtraTreesRegressor": _forest_regressor,
    "GradientBoostingRegressor": _boosted_regressor,
    "HistGradientBoostingRegressor": _histogram_regressor,
    "RandomForestRegressor": _forest_regressor,
}
