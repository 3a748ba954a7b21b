"""Boosted trees of xgboost and lightgbm, by the dumps that their libraries write.

A dump of xgboost is the JSON of ``save_model("model.json")``; a row goes left if its feature, cast to
float32, is below the threshold, which is a float32. One of lightgbm is ``dump_model()``; a row goes left
if its feature, a double, is at most the threshold. Both sum the leaves of all trees and put the sum
through the inverse link of the objective. Neither library is needed to read a dump.

On shares no value is missing, so directions for missing values are no matter, but where lightgbm takes
zeros for missing, which is refused, as are categorical splits, linear leaves and gblinear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Conversion, Scores, Values
from nn.convert.expressions import Affine, TreeTable
from nn.convert.problems import ConversionError
from nn.convert.sklearn_linear import binary
from nn.convert.sklearn_trees import from_float32, leaf_sums

__all__ = ["CLASSIFIERS", "REGRESSORS", "Boosted", "read", "read_model", "scores_of", "values_of"]

Floats = NDArray[np.float64]
Tree = tuple[TreeTable, Floats | None, Floats]

# Objectives by what stands between the sum and the prediction.
_IDENTITY = {
    "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
    "reg:quantileerror", "regression", "regression_l1", "huber", "fair", "quantile", "mape",
}  # fmt: skip
_LOGARITHM = {"count:poisson", "reg:gamma", "reg:tweedie", "poisson", "gamma", "tweedie"}
_LOGISTIC = {"binary:logistic", "binary", "cross_entropy"}
_SOFTMAX = {"multi:softprob", "multi:softmax", "multiclass"}


@dataclass(frozen=True)
class Boosted:
    """What a dump says.

    Attributes
    ----------
    features, outputs : int
    trees : list
        Of each a table of one tree, the values of its leaves, and those of a lone leaf.
    constant : array of shape (outputs,)
        What is added to the sum of the leaves.
    objective : str
    steepness : float
        Factor on the sum before the sigmoid.
    """

    features: int
    outputs: int
    trees: list[Tree]
    constant: Floats
    objective: str
    steepness: float = 1.0

    @property
    def classifies(self) -> bool:
        """Whether the objective is one of classes."""
        return self.objective in _LOGISTIC | _SOFTMAX

    @property
    def middle(self) -> Floats:
        """The sum of what the leaves of each tree have in the middle."""
        found = self.constant.copy()
        for _, values, alone in self.trees:
            found += alone if values is None else (values.min(axis=0) + values.max(axis=0)) / 2
        return found


def read(dump: Mapping[str, Any]) -> Boosted:
    """Read a dump as the libraries write it, parsed from JSON.

    Raises
    ------
    ConversionError
        If it is of no such library, or of a kind that cannot be converted.
    """
    try:
        if "learner" in dump:
            return _checked(_xgboost(dump["learner"]))
        if "tree_info" in dump:
            return _checked(_lightgbm(dump))
    except ConversionError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConversionError(f"the dump is damaged, or of another version: {error!r}") from None
    raise ConversionError(
        "a dump must be the JSON of xgboost's save_model or of lightgbm's dump_model"
    )


def _checked(found: Boosted) -> Boosted:
    for table, values, alone in found.trees:
        numbers = np.concatenate([table.thresholds, np.ravel(alone if values is None else values)])
        if np.isnan(numbers).any():
            raise ConversionError("the dump is damaged: a threshold or a leaf is NaN")
        for feature in table.features:
            if not 0 <= feature < found.features:
                raise ConversionError(
                    f"the dump is damaged: a split compares feature {feature} of {found.features}"
                )
    return found


def read_model(model: Any) -> Boosted:
    """Read a Booster of either library, by its own dump."""
    kind = f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"
    if kind == "xgboost.Booster":
        return read(json.loads(bytes(model.save_raw("json"))))
    if kind == "lightgbm.Booster":
        return read(model.dump_model())
    raise ConversionError(f"a Booster of xgboost or lightgbm is needed, got {model!r}")


def _xgboost(learner: Mapping[str, Any]) -> Boosted:
    booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
    objective = str(learner["objective"]["name"])
    weights = None
    if booster["name"] == "dart":
        weights, booster = booster["weight_drop"], booster["gbtree"]
    elif booster["name"] != "gbtree":
        raise ConversionError(f"booster={booster['name']!r} is not converted: trees are")
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    base = np.array(json.loads(str(parameters["base_score"])), np.float64).reshape(-1)
    model = booster["model"]
    trees = []
    for number, (tree, column) in enumerate(zip(model["trees"], model["tree_info"], strict=True)):
        if not 0 <= int(column) < outputs:
            raise ConversionError(f"the dump is damaged: a tree of output {column} of {outputs}")
        if tree.get("categories_nodes"):
            raise ConversionError("categorical splits are not converted: encode the categories")
        if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise ConversionError("trees of several outputs are not converted: multi_strategy")
        left = np.asarray(tree["left_children"], np.int64)
        limits = np.asarray(tree["split_conditions"], np.float32)
        inner = left >= 0
        # Below a float32 is at most the float32 before it.
        below = np.nextafter(limits, np.float32(-np.inf))
        factor = 1.0 if weights is None else float(weights[number])
        trees.append(
            _tree(
                tree["split_indices"], from_float32(below), left, tree["right_children"], inner,
                factor * limits.astype(np.float64)[:, None] * np.eye(outputs)[int(column)],
            )
        )  # fmt: skip
    if objective in _LOGISTIC:
        base = np.log(base / (1 - base))
    elif objective in _LOGARITHM:
        base = np.log(base)
    constant = np.broadcast_to(base, (outputs,)).astype(np.float64)
    return Boosted(int(parameters["num_feature"]), outputs, trees, constant, objective)


def _lightgbm(dump: Mapping[str, Any]) -> Boosted:
    objective, *options = str(dump.get("objective", "")).split(" ")
    if "sqrt" in options:
        raise ConversionError("reg_sqrt=True is not converted: take the root of the targets")
    steepness = 1.0
    for option in options:
        name, _, value = option.partition(":")
        steepness = float(value) if name == "sigmoid" else steepness
    outputs, found = int(dump["num_tree_per_iteration"]), dump["tree_info"]
    # Random forests are means, boosted trees sums.
    part = outputs / len(found) if dump.get("average_output") and found else 1.0
    trees = [
        _lightgbm_tree(tree["tree_structure"], part * np.eye(outputs)[k % outputs])
        for k, tree in enumerate(found)
    ]
    return Boosted(
        int(dump["max_feature_idx"]) + 1, outputs, trees, np.zeros(outputs), objective, steepness
    )


def _lightgbm_tree(root: Mapping[str, Any], column: Floats) -> Tree:
    nodes = [root]
    features, limits, left, right, values = [], [], [], [], []
    for node in nodes:  # grows
        inner = "split_feature" in node
        if not inner:
            if "leaf_const" in node:
                raise ConversionError("linear leaves are not converted: linear_tree=False")
        elif node["decision_type"] != "<=":
            raise ConversionError("categorical splits are not converted: encode the categories")
        elif node["missing_type"] == "Zero":
            raise ConversionError("zero_as_missing=True is not converted")
        features.append(int(node["split_feature"]) if inner else -1)
        limits.append(float(node["threshold"]) if inner else 0.0)
        values.append(0.0 if inner else float(node["leaf_value"]))
        left.append(len(nodes) if inner else -1)
        right.append(len(nodes) + 1 if inner else -1)
        if inner:
            nodes += [node["left_child"], node["right_child"]]
    return _tree(
        features, limits, left, right, np.asarray(left) >= 0, np.asarray(values)[:, None] * column
    )


def _tree(features: Any, limits: Any, left: Any, right: Any, inner: Any, values: Floats) -> Tree:
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    # xgboost's dumps have the nodes that it has pruned, too.
    nodes = _reached(left, right, inner)
    numbers = np.empty(len(inner), np.int64)
    numbers[nodes] = np.arange(len(nodes))
    table = TreeTable()
    leaves = table.add(
        np.asarray(features, np.int64)[nodes], np.asarray(limits)[nodes],
        numbers[left[nodes]], numbers[right[nodes]], inner[nodes],
    )  # fmt: skip
    values = values[nodes]
    return table, values[leaves] if len(leaves) else None, values[0]


def _reached(left: NDArray[np.int64], right: NDArray[np.int64], inner: NDArray[np.bool_]) -> Any:
    """Return the nodes that rows come to, in ascending order."""
    nodes = [0]
    for node in nodes:  # grows
        if inner[node]:
            nodes += [int(left[node]), int(right[node])]
        if len(nodes) > len(inner) or min(nodes[-2:]) < 0:
            break
    if len(set(nodes)) < len(nodes) or min(nodes) < 0:
        raise ConversionError("the dump is damaged: the nodes of a tree do not make a tree")
    return np.sort(nodes)


def scores_of(c: Conversion, found: Boosted, x: Affine, classes: NDArray[Any]) -> Scores:
    """Return the scores of a classifier."""
    if found.objective in _LOGISTIC and found.outputs > 1:
        raise ConversionError(
            "several labels a row are not converted: convert a booster for each label"
        )
    raw = _sum(c, found, x)
    if found.objective in _LOGISTIC:
        return Scores(binary(raw * found.steepness), classes, "softmax", raw)
    if found.objective in _SOFTMAX:
        return Scores(raw, classes, "softmax", raw)
    raise ConversionError(f"objective {found.objective!r} is not converted for classes")


def values_of(c: Conversion, found: Boosted, x: Affine) -> Values:
    """Return the values of a regressor."""
    raw = _sum(c, found, x)
    if found.objective in _LOGARITHM:
        raw = c.exponential(raw, found.middle)
    elif found.objective not in _IDENTITY:
        raise ConversionError(f"objective {found.objective!r} is not converted for values")
    return Values(raw)


def _sum(c: Conversion, found: Boosted, x: Affine) -> Affine:
    if not found.trees:
        raise ConversionError("a booster must have one tree or more, got none")
    return leaf_sums(c, x, found.trees).map(np.ones(found.outputs), found.constant)


def _booster(step: Any) -> Boosted:
    """Return what a fitted estimator of either library holds; early stopping leaves the best trees."""
    if not hasattr(step, "get_booster"):
        return read_model(step.booster_)
    missing = getattr(step, "missing", np.nan)
    if missing is not None and not np.isnan(missing):
        raise ConversionError(
            f"missing={missing:g} is not converted, as rows with this value go another way: replace it "
            "before the fit, and leave missing=nan"
        )
    booster, best = step.get_booster(), getattr(step, "best_iteration", None)
    return read_model(booster if best is None else booster[: best + 1])


def _classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    return scores_of(c, _booster(step), x, np.asarray(step.classes_))


def _regressor(c: Conversion, step: Any, x: Affine) -> Values:
    return values_of(c, _booster(step), x)


CLASSIFIERS = dict.fromkeys(("LGBMClassifier", "XGBClassifier", "XGBRFClassifier"), _classifier)
REGRESSORS = dict.fromkeys(("LGBMRegressor", "XGBRegressor", "XGBRFRegressor"), _regressor)
