"""Estimators of scikit-learn that are put together from others."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from nn.convert.conversion import LEAST_TOTAL, Conversion, Scores, Values, both, named_by
from nn.convert.expressions import Affine, joined
from nn.convert.problems import ConversionError
from nn.convert.sklearn_kernels import pairwise_scores
from nn.convert.sklearn_linear import binary
from nn.layers import Multiply, ReLU, Sigmoid, Step

__all__ = ["CLASSIFIERS", "INSIDE", "REGRESSORS"]

# Estimators that stand for one that they hold, by the attribute that has it.
INSIDE = {
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RANSACRegressor": "estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "SelfTrainingClassifier": "estimator_",
}


def _zero(c: Conversion, size: int) -> Affine:
    return c.build.constant(np.zeros(size))


def _members(step: Any) -> tuple[list[Any], list[float]]:
    """Return the members of a vote, and their weights."""
    weights = step._weights_not_none
    if weights is None:
        weights = np.ones(len(step.estimators_))
    return list(step.estimators_), [float(w) for w in weights]


def _voting_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    members, weights = _members(step)
    classes = np.asarray(step.classes_)
    total = _zero(c, len(classes))
    for member, weight in zip(members, weights, strict=True):
        found = c.probabilities(member, x) if step.voting == "soft" else c.votes(member, x)
        places = np.asarray(member.classes_, np.int64)
        total = total + found.map(np.eye(len(classes))[places] * (weight / sum(weights)))
    if step.voting == "soft":
        return Scores(total, classes, "normalised", certain=True)
    return Scores(total, classes, None)


def _voting_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    members, weights = _members(step)
    total = _zero(c, 1)
    for member, weight in zip(members, weights, strict=True):
        total = total + c.values(member, x).values * (weight / sum(weights))
    return Values(total)


def _bagging_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    classes = np.asarray(step.classes_)
    total = _zero(c, len(classes))
    for member, columns in zip(step.estimators_, step.estimators_features_, strict=True):
        part = x.take(columns)
        odds = hasattr(member, "predict_proba")
        found = c.probabilities(member, part) if odds else c.votes(member, part)
        places = np.asarray(member.classes_, np.int64)
        total = total + found.map(np.eye(len(classes))[places] / len(step.estimators_))
    return Scores(total, classes, "normalised", certain=True)


def _bagging_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    parts = zip(step.estimators_, step.estimators_features_, strict=True)
    found = [c.values(member, x.take(columns)) for member, columns in parts]
    total = found[0].values
    for other in found[1:]:
        total = total + other.values
    return Values(total * (1 / len(found)), found[0].flat)


def _stacked(c: Conversion, step: Any, x: Affine, classes: int) -> Affine:
    members = [member for member in step.estimators_ if member != "drop"]
    methods = step.stack_method_
    if isinstance(methods, dict):
        methods = list(methods.values())
    parts = []
    for member, method in zip(members, methods, strict=True):
        if method == "predict_proba":
            found = c.probabilities(member, x)
            parts.append(found.take(np.arange(1, 2)) if classes == 2 else found)
        elif method == "decision_function":
            parts.append(c.decision(member, x))
        elif c.classifies(member):
            labels = np.asarray(member.classes_, np.float64)
            parts.append(c.votes(member, x).map(labels[:, None]))
        else:
            parts.append(c.values(member, x).values)
    return joined([*parts, x] if step.passthrough else parts)


def _stacking_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    classes = np.asarray(step.classes_)
    found = c.scores(step.final_estimator_, _stacked(c, step, x, len(classes)))
    return Scores(found.values, classes, found.link, found.decision, found.certain)


def _stacking_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    return c.values(step.final_estimator_, _stacked(c, step, x, 0))


# Several classes by two.


def _positive(c: Conversion, member: Any, x: Affine) -> tuple[Affine, bool]:
    """Return the score of the second class, and whether it is a probability."""
    if named_by(member) == "_ConstantPredictor":
        return c.build.constant(np.ravel(member.y_).astype(np.float64)), True
    if c.regresses(member) and not c.classifies(member):
        return c.values(member, x).values, False
    if c.has_decision(member):
        return c.decision(member, x), False
    return c.probabilities(member, x).take([1]), True


def _one_vs_rest(c: Conversion, step: Any, x: Affine) -> Scores:
    classes = np.asarray(step.classes_)
    if step.multilabel_:
        raise ConversionError(
            "OneVsRestClassifier with several labels a row is not converted: convert its estimators_"
        )
    found = [_positive(c, member, x) for member in step.estimators_]
    scores = joined([value for value, _ in found])
    certain = all(odds for _, odds in found)
    if len(found) == 1:
        values = both(scores) if certain else binary(scores)
        link = "normalised" if certain else _sigmoid_link(step.estimators_[0], "softmax")
        return Scores(values, classes, link, scores, certain)
    link = "normalised" if certain else _sigmoid_link(step.estimators_[0], "one_vs_rest")
    return Scores(scores, classes, link, scores)


def _sigmoid_link(member: Any, link: str) -> str | None:
    """Return `link` if a binary classifier's probability is the sigmoid of its decision function."""
    simple = named_by(member) in ("LogisticRegression", "LogisticRegressionCV")
    return link if simple else None


def _one_vs_one(c: Conversion, step: Any, x: Affine) -> Scores:
    classes = np.asarray(step.classes_)
    indices = step.pairwise_indices_
    parts, steps = [], []
    for k, member in enumerate(step.estimators_):
        value, odds = _positive(c, member, x if indices is None else x.take(indices[k]))
        parts.append(value)
        steps.append(0.5 if odds else 0.0)
    z = joined(parts)
    if len(classes) == 2:
        return Scores(binary(z.map([1.0], [-steps[0]])), classes, None)
    if not any(steps):
        return Scores(pairwise_scores(c, z, len(classes), False), classes, None)
    votes = c.build.apply(Step(), z.map(np.ones(z.size), -np.array(steps)))
    matrix, bias = np.zeros((z.size, len(classes))), np.zeros(len(classes))
    sums = np.zeros_like(matrix)
    for k, (i, j) in enumerate(combinations(range(len(classes)), 2)):
        matrix[k, i], matrix[k, j], bias[i] = -1, 1, bias[i] + 1
        sums[k, i], sums[k, j] = -1, 1
    # Sums of probabilities are below the number of classes, so a quarter decides ties alone.
    return Scores(votes.map(matrix, bias) + z.map(sums / (4 * len(classes))), classes, None)


def _output_code(c: Conversion, step: Any, x: Affine) -> Scores:
    z = joined([_positive(c, member, x)[0] for member in step.estimators_])
    book = np.asarray(step.code_book_, np.float64)
    scores = z.map(book.T, -0.5 * (book**2).sum(axis=1))
    return Scores(scores, np.asarray(step.classes_), None)


# Calibration and thresholds.


def _calibrated(c: Conversion, step: Any, x: Affine) -> Scores:
    classes, members = np.asarray(step.classes_), step.calibrated_classifiers_
    total = _zero(c, len(classes))
    for member in members:
        total = total + _calibrated_member(c, member, x, len(classes)) * (1 / len(members))
    return Scores(total, classes, "normalised", certain=True)


def _calibrated_member(c: Conversion, member: Any, x: Affine, classes: int) -> Affine:
    inner = member.estimator
    odds = not c.has_decision(inner)
    if odds:
        found = c.probabilities(inner, x)
        found = found.take([1]) if classes == 2 else found
    else:
        found = c.decision(inner, x)
    if member.method == "temperature":
        if odds:
            raise ConversionError(
                "CalibratedClassifierCV with method='temperature' is converted for a decision function"
            )
        scores = binary(found, True) if classes == 2 else found
        beta = float(member.calibrators[0].beta_)
        # Of two classes the scores are -z and z.
        return c.probabilities_of(Scores(scores * beta, np.arange(classes), "softmax"), "softmax")
    if len(member.calibrators) != (1 if classes == 2 else classes):
        raise ConversionError(
            "CalibratedClassifierCV is converted if each part has seen all classes"
        )
    values = joined(
        [_calibrator(c, one, found.take([k])) for k, one in enumerate(member.calibrators)]
    )
    if member.method == "sigmoid":
        values = c.build.apply(Sigmoid(), values)
    if classes == 2:
        return both(values)
    if member.method == "isotonic":
        # Of rows that no class claims, all are as likely.
        lack = values.map(-np.ones((classes, 1)), [LEAST_TOTAL])
        lack = c.build.apply(ReLU(), lack)
        values = values + lack.map(np.full((1, classes), 1 / classes))
    return c.probabilities_of(Scores(values, np.arange(classes), "normalised"), "calibration")


def _calibrator(c: Conversion, one: Any, z: Affine) -> Affine:
    if hasattr(one, "a_"):
        return z.map([-float(one.a_)], [-float(one.b_)])
    return c.polyline(z, one.X_thresholds_, one.y_thresholds_)


def _threshold(c: Conversion, step: Any, x: Affine) -> Scores:
    inner, classes = getattr(step, "estimator_", None) or step.estimator, np.asarray(step.classes_)
    method = step._get_response_method()
    methods = [method] if isinstance(method, str) else list(method)
    chosen = next((name for name in methods if hasattr(inner, name)), None)
    positive = getattr(step, "pos_label", None)
    if positive is None and hasattr(step, "_curve_scorer"):
        positive = step._curve_scorer._get_pos_label()
    place = 1 if positive is None else int(np.flatnonzero(classes == positive)[0])
    odds = chosen == "predict_proba"
    if odds:
        z = c.probabilities(inner, x).take([place])
    else:
        z = c.decision(inner, x) * (1.0 if place == 1 else -1.0)
    limit = getattr(step, "best_threshold_", None)
    if limit is None:
        limit = (0.5 if odds else 0.0) if step.threshold == "auto" else step.threshold
    # A score of the threshold itself is one of the positive class.
    ahead = z.map([1.0], [2.0**-17 - float(limit)])
    values = binary(ahead) if place == 1 else binary(-ahead)
    return Scores(values, classes, None)


# Targets.


def _transformed_target(c: Conversion, step: Any, x: Affine) -> Values:
    found = c.values(step.regressor_, x)
    inverse = step.transformer_
    name = named_by(inverse)
    values = found.values
    if name == "FunctionTransformer":
        middle = getattr(step.regressor_, "intercept_", 0.0)
        values = _inverse_function(c, inverse.inverse_func, values, middle)
        return Values(values, step._training_dim == 1)
    # Whatever scales, undone: two points say how, a third that it is affine.
    if not _scales(inverse):
        raise ConversionError(
            "TransformedTargetRegressor is converted with a scaler, a pipeline of scalers, or a function, "
            f"got {name}"
        )
    rows = np.concatenate([np.zeros((1, values.size)), np.eye(values.size)])
    undone = np.asarray(inverse.inverse_transform(rows), np.float64)
    return Values(values.map(undone[1:] - undone[0], undone[0]), step._training_dim == 1)


def _scales(step: Any) -> bool:
    """Return whether a transformer is a scaler, or several."""
    if named_by(step) == "Pipeline":
        return all(one in (None, "passthrough") or _scales(one) for _, one in step.steps)
    name = named_by(step)
    return name in ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")


def _inverse_function(c: Conversion, function: Any, values: Affine, middle: Any) -> Affine:
    if function is None:
        return values
    if function is np.exp:
        return c.exponential(values, middle)
    if function is np.expm1:
        return c.exponential(values, middle).map(np.ones(values.size), -1.0)
    if function is np.square:
        return c.build.apply(Multiply(), values, values)
    raise ConversionError(
        f"a target is converted back by np.exp, np.expm1 or np.square, got {function!r}"
    )


def _multi_output(c: Conversion, step: Any, x: Affine) -> Values:
    return Values(joined([c.values(member, x).values for member in step.estimators_]), False)


def _chain(c: Conversion, step: Any, x: Affine) -> Values:
    found: list[Affine] = []
    for member in step.estimators_:
        found.append(c.values(member, joined([x, *found])).values)
    order = np.argsort(np.asarray(step.order_))
    return Values(joined([found[k] for k in order]), False)


def _isotonic(c: Conversion, step: Any, x: Affine) -> Values:
    if step.out_of_bounds != "clip":
        raise ConversionError(
            "IsotonicRegression is converted with out_of_bounds='clip', got "
            f"{step.out_of_bounds!r}: set_params(out_of_bounds='clip') does, without a new fit"
        )
    return Values(c.polyline(x.take([0]), step.X_thresholds_, step.y_thresholds_))


CLASSIFIERS = {
    "BaggingClassifier": _bagging_classifier,
    "CalibratedClassifierCV": _calibrated,
    "FixedThresholdClassifier": _threshold,
    "OneVsOneClassifier": _one_vs_one,
    "OneVsRestClassifier": _one_vs_rest,
    "OutputCodeClassifier": _output_code,
    "StackingClassifier": _stacking_classifier,
    "TunedThresholdClassifierCV": _threshold,
    "VotingClassifier": _voting_classifier,
}
REGRESSORS = {
    "BaggingRegressor": _bagging_regressor,
    "IsotonicRegression": _isotonic,
    "MultiOutputRegressor": _multi_output,
    "RegressorChain": _chain,
    "StackingRegressor": _stacking_regressor,
    "TransformedTargetRegressor": _transformed_target,
    "VotingRegressor": _voting_regressor,
}
