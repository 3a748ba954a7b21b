"""ONNX-ML's linear models, tree ensembles and support vector machines in graphs of learned models.

Where onnxruntime and the standard do not agree on labels, or labels and probabilities with one another,
the use is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nn.convert.conversion import Scores, both
from nn.convert.expressions import Affine
from nn.convert.learned_trees import (
    always,
    base_values,
    ensemble,
    ensemble_of_version_5,
    weights_of,
)
from nn.convert.learned_values import (
    Context,
    Labelled,
    Lost,
    Numbers,
    Odds,
    computed,
    labels_of,
    numbers,
)
from nn.convert.problems import ConversionError
from nn.convert.sklearn_kernels import kernel, pair_votes, pair_weights
from nn.convert.sklearn_linear import binary

__all__ = ["MODELS"]


def _linear(attributes: dict[str, Any], x: Affine) -> Affine:
    weights = np.array(attributes["coefficients"], np.float64).reshape(-1, x.size).T
    bias = attributes.get("intercepts") or np.zeros(weights.shape[1])
    return x.map(weights, np.asarray(bias, np.float64))


def _linear_classifier(context: Context, attributes: dict[str, Any], x: Any) -> tuple[Any, ...]:
    classes, values = labels_of(attributes), _linear(attributes, numbers(context, x).affine)
    transform = attributes.get("post_transform", b"NONE").decode()
    links = {"NONE": None, "SOFTMAX": "softmax", "LOGISTIC": "sigmoids"}
    if transform not in links:
        raise ConversionError(f"needs post_transform NONE, SOFTMAX or LOGISTIC, got {transform}")
    link = links[transform]
    if values.size == 1 and len(classes) == 2:
        # The sigmoids of z and -z are the softmax of 0 and z.
        values = binary(values, link != "sigmoids")
        link = "softmax" if link == "sigmoids" else link
    if values.size != len(classes):
        raise ConversionError(
            f"needs one score a class, got {values.size} for {len(classes)} classes"
        )
    scores = Scores(values, classes, link)
    return Labelled(scores), Odds(scores)


def _only_plain(attributes: dict[str, Any]) -> None:
    if attributes.get("post_transform", b"NONE") not in (b"NONE", 0):
        raise ConversionError("needs post_transform NONE")


def _linear_regressor(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    _only_plain(attributes)
    values, targets = _linear(attributes, numbers(context, x).affine), attributes.get("targets", 1)
    if values.size != targets:
        raise ConversionError(f"needs coefficients for targets={targets}, got {values.size}")
    return computed(values)


def _tree_regressor(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    _only_plain(attributes)
    x, outputs = numbers(context, x), int(attributes.get("n_targets", 1))
    found = ensemble(context.c, x.affine, x.paths, context.double, attributes, "target", outputs)
    base = base_values(attributes, outputs)
    if outputs > 1 and base.any() and len(always(attributes, "target")) < outputs:
        raise ConversionError(
            "each target needs a weight for every row, as onnxruntime adds no base_values without one"
        )
    return computed(found.map(np.ones(outputs), base))


def _trees_of_version_5(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    _only_plain(attributes)
    x = numbers(context, x)
    return computed(ensemble_of_version_5(context.c, x.affine, x.paths, context.double, attributes))


def _tree_classifier(context: Context, attributes: dict[str, Any], x: Any) -> tuple[Any, ...]:
    x, classes = numbers(context, x), labels_of(attributes)
    transform = attributes.get("post_transform", b"NONE").decode()
    if transform not in ("NONE", "SOFTMAX", "LOGISTIC"):
        raise ConversionError(f"needs post_transform NONE, SOFTMAX or LOGISTIC, got {transform}")
    count = len(classes)
    found = ensemble(context.c, x.affine, x.paths, context.double, attributes, "class", count)
    says = weights_of(attributes, count)
    if count > 2:
        values = found.map(np.ones(count), base_values(attributes, count))
        link = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoids"}.get(transform)
        if transform == "NONE" and says.sums_to_one:
            link = "normalised"
        if not (says.all_weigh or says.positive):
            raise ConversionError(
                "each class needs a weight, as onnxruntime passes over one without"
            )
        scores = Scores(values, classes, link, certain=link == "normalised")
        return Labelled(scores), Odds(scores)
    if count != 2 or says.classes != {0}:
        raise ConversionError(
            "of two classes, weights must be of class number 0, for the score of the second class: "
            "onnxruntime and the standard do not agree on others"
        )
    z = found.take([0]).map([1.0], base_values(attributes, 1))
    if not says.positive:
        if transform == "LOGISTIC":
            scores = Scores(binary(z), classes, "softmax")
        else:
            scores = Scores(binary(z, True), classes, None)
        return Labelled(scores), Odds(scores)
    base = float(base_values(attributes, 1)[0])
    certain = base >= 0 and says.most + base <= 1 + 1e-5
    scores = Scores(both(z), classes, "normalised" if certain else None, certain=certain)
    if transform == "LOGISTIC":
        # Labels are of scores above one half here, probabilities of scores above 0.
        return Labelled(scores), Odds(Scores(binary(z), classes, "softmax"))
    return Labelled(scores), Odds(scores)


def _kernels(context: Context, attributes: dict[str, Any], x: Any) -> Affine:
    """Return the kernels of rows and support vectors, or the rows if there are no vectors."""
    affine = numbers(context, x).affine
    name = attributes.get("kernel_type", b"LINEAR").decode().lower()
    vectors = np.asarray(attributes.get("support_vectors") or [], np.float64)
    if not len(vectors):
        return affine
    gamma, offset, degree = [*attributes.get("kernel_params", []), 0.0, 0.0, 3.0][:3]
    return kernel(context.c, affine, name, vectors.reshape(-1, affine.size), gamma, offset, degree)


def _svm_classifier(context: Context, attributes: dict[str, Any], x: Any) -> tuple[Any, ...]:
    classes, members = labels_of(attributes), attributes.get("vectors_per_class") or []
    if len(members) != len(classes):
        raise ConversionError("needs support vectors of each class")
    found = _kernels(context, attributes, x)
    dual = np.asarray(attributes["coefficients"], np.float64).reshape(len(classes) - 1, -1)
    weights = pair_weights(dual, members)
    z = found.map(weights, np.asarray(attributes["rho"], np.float64))
    if len(classes) == 2:  # a positive sum is for the first class
        scores = Scores(binary(-z, True), classes, None)
    else:
        scores = Scores(pair_votes(context.c, z, len(classes), True), classes, None)
    return Labelled(scores), Lost(
        "scores of an SVMClassifier, of which the labels are converted: outputs= keeps their output alone,"
        " as ['output_label']"
    )


def _svm_regressor(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    _only_plain(attributes)
    if attributes.get("one_class", 0):
        raise ConversionError("needs one_class=0")
    found = _kernels(context, attributes, x)
    weights = np.asarray(attributes["coefficients"], np.float64)[:, None]
    return computed(found.map(weights, np.asarray(attributes["rho"], np.float64)[:1]))


_LABELS = ("classlabels_ints", "classlabels_int64s", "classlabels_strings", "post_transform")
_NODES = (
    "nodes_falsenodeids", "nodes_featureids", "nodes_hitrates", "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true", "nodes_modes", "nodes_nodeids", "nodes_treeids",
    "nodes_truenodeids", "nodes_values", "nodes_values_as_tensor", "base_values", "base_values_as_tensor",
)  # fmt: skip
_VECTORS = ("coefficients", "kernel_params", "kernel_type", "rho", "support_vectors")

# By the operator's name, the function that converts it and the attributes that it takes.
MODELS = {
    "LinearClassifier": (
        _linear_classifier, (*_LABELS, "coefficients", "intercepts", "multi_class"),
    ),
    "LinearRegressor": (
        _linear_regressor, ("coefficients", "intercepts", "post_transform", "targets"),
    ),
    "SVMClassifier": (
        _svm_classifier, (*_LABELS, *_VECTORS, "prob_a", "prob_b", "vectors_per_class"),
    ),
    "SVMRegressor": (
        _svm_regressor, (*_VECTORS, "n_supports", "one_class", "post_transform"),
    ),
    "TreeEnsemble": (
        _trees_of_version_5,
        (
            "aggregate_function", "leaf_targetids", "leaf_weights", "n_targets", "nodes_falseleafs",
            "nodes_falsenodeids", "nodes_featureids", "nodes_hitrates",
            "nodes_missing_value_tracks_true", "nodes_modes", "nodes_splits", "nodes_trueleafs",
            "nodes_truenodeids", "post_transform", "tree_roots",
        ),
    ),
    "TreeEnsembleClassifier": (
        _tree_classifier,
        (
            *_LABELS, *_NODES, "class_ids", "class_nodeids", "class_treeids", "class_weights",
            "class_weights_as_tensor",
        ),
    ),
    "TreeEnsembleRegressor": (
        _tree_regressor,
        (
            *_NODES, "aggregate_function", "n_targets", "post_transform", "target_ids",
            "target_nodeids", "target_treeids", "target_weights", "target_weights_as_tensor",
        ),
    ),
}  # fmt: skip
