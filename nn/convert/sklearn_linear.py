"""Linear models, networks, naive Bayes and discriminants of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Conversion, Scores, Values, both
from nn.convert.expressions import Affine, joined
from nn.convert.problems import ConversionError
from nn.layers import LAYERS, Clip, Layer, Multiply

__all__ = ["CLASSIFIERS", "REGRESSORS", "linear_classifier", "linear_regressor", "squares"]

Floats = NDArray[np.float64]


def _activations() -> dict[str, type[Layer] | None]:
    """Return the activations by their names in scikit-learn; the identity is None, no layer."""
    named = {
        kind.named_elsewhere.sklearn: kind
        for kind in LAYERS.values()
        if kind.named_elsewhere is not None and kind.named_elsewhere.sklearn is not None
    }
    return {**named, "identity": None}


def _affine(step: Any, x: Affine) -> Affine:
    """Return ``x @ coef_.T + intercept_``."""
    coefficients = step.coef_.toarray() if hasattr(step.coef_, "toarray") else step.coef_
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64)).T
    if weights.shape[0] != x.size:
        raise ConversionError(
            f"{type(step).__name__} must have a coefficient for each of {x.size} features, got "
            f"coef_ of shape {np.shape(coefficients)}"
        )
    return x.map(
        weights, np.broadcast_to(np.asarray(step.intercept_, np.float64), weights.shape[1:])
    )


def binary(z: Affine, is_both: bool = False) -> Affine:
    """Return scores of two classes, (0, z) or with `is_both` (-z, z), for one score z."""
    return joined([-z if is_both else z * 0.0, z])


def linear_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    """Return scores of any classifier with ``coef_`` and ``intercept_``, one a class."""
    z, classes = _affine(step, x), np.asarray(step.classes_)
    two = len(classes) == 2
    # Ridge classifiers number the labels of a row as if they were classes.
    kind = getattr(getattr(step, "_label_binarizer", None), "y_type_", "")
    if z.size != (1 if two else len(classes)) or kind.startswith("multilabel"):
        raise ConversionError(
            f"{type(step).__name__} has {z.size} scores for {len(classes)} classes: several labels a "
            "row are not converted; convert a classifier for each label"
        )
    link, is_both = _link_of(step, two)
    if link == "huber":
        odds = c.build.apply(Clip(0.0, 1.0), z.map([0.5], [0.5]))
        return Scores(both(odds), classes, "normalised", z, certain=True)
    return Scores(binary(z, is_both) if two else z, classes, link, z)


def _link_of(step: Any, two: bool) -> tuple[str | None, bool]:
    """Return how a linear classifier's scores become probabilities, and whether two are (-z, z)."""
    name = type(step).__name__
    if name.startswith("LogisticRegression"):
        # `multi_class` exists before scikit-learn 1.8; liblinear fits one classifier a class.
        mode = getattr(step, "multi_class", "deprecated")
        if not two and (mode in ("ovr", "warn") or step.solver == "liblinear"):
            return "one_vs_rest", False
        return "softmax", two and mode == "multinomial"
    if name == "LinearDiscriminantAnalysis":
        return "softmax", False
    if name == "SGDClassifier":
        if step.loss == "modified_huber" and two:
            return "huber", False
        if step.loss == "log_loss":
            return ("softmax" if two else "one_vs_rest"), False
    return None, False


def linear_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    """Return the values of any regressor with ``coef_`` and ``intercept_``, through its link."""
    mean = getattr(
        step, "_x_mean", None
    )  # of partial least squares, whose coefficients take x - mean
    if mean is not None:
        x = x.map(np.ones(x.size), -np.asarray(mean, np.float64))
    values = _affine(step, x)
    link = getattr(getattr(step, "_base_loss", None), "link", None)
    name = type(link).__name__
    if link is not None and name == "LogLink":
        values = c.exponential(values, step.intercept_)
    elif link is not None and name != "IdentityLink":
        raise ConversionError(
            f"{type(step).__name__} is converted with a log link or none, got {name}"
        )
    flat = np.ndim(step.coef_) == 1
    if mean is not None:
        flat = bool(getattr(step, "_predict_1d", False))
    return Values(values, flat)


# Networks.


def _network(c: Conversion, step: Any, x: Affine) -> Affine:
    """Return the outputs of a fitted multi-layer perceptron."""
    known = _activations()
    if step.activation not in known:
        raise ConversionError(
            f"activation must be one of {', '.join(sorted(known))}, got {step.activation!r}"
        )
    activation = known[step.activation]
    for number, (weights, bias) in enumerate(zip(step.coefs_, step.intercepts_, strict=True)):
        if number and activation is not None:
            x = c.build.apply(activation(), x)
        x = x.map(weights, bias)
    return x


def _mlp_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    outputs, classes = _network(c, step, x), np.asarray(step.classes_)
    if step.out_activation_ == "logistic" and outputs.size == 1 and len(classes) == 2:
        return Scores(binary(outputs), classes, "softmax")
    if step.out_activation_ != "softmax" or outputs.size != len(classes):
        raise ConversionError(
            "MLPClassifier is converted if it has two or more classes and one label a row; "
            f"got {outputs.size} outputs with {step.out_activation_!r} for {len(classes)} classes"
        )
    return Scores(outputs, classes, "softmax")


def _mlp_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    values = _network(c, step, x)
    if step.out_activation_ == "exp":
        values = c.exponential(values, step.intercepts_[-1])
    elif step.out_activation_ != "identity":
        raise ConversionError(
            f"MLPRegressor is not converted with outputs of {step.out_activation_!r}"
        )
    return Values(values, values.size == 1)


# Naive Bayes and discriminants.


def squares(c: Conversion, z: Affine) -> Affine:
    """Return the square of each column."""
    return c.build.apply(Multiply(), z, z)


def _multinomial(c: Conversion, step: Any, x: Affine) -> Scores:
    scores = x.map(np.asarray(step.feature_log_prob_).T, np.asarray(step.class_log_prior_))
    return Scores(scores, np.asarray(step.classes_), "softmax")


def _complement(c: Conversion, step: Any, x: Affine) -> Scores:
    prior = step.class_log_prior_ if len(step.classes_) == 1 else 0.0
    scores = x.map(np.asarray(step.feature_log_prob_).T, prior)
    return Scores(scores, np.asarray(step.classes_), "softmax")


def _bernoulli(c: Conversion, step: Any, x: Affine) -> Scores:
    if step.binarize is not None:
        x = c.above(x, float(step.binarize))
    positive = np.asarray(step.feature_log_prob_, np.float64)
    negative = np.log(1 - np.exp(positive))
    prior = np.asarray(step.class_log_prior_) + negative.sum(axis=1)
    return Scores(x.map((positive - negative).T, prior), np.asarray(step.classes_), "softmax")


def _quadratic(
    c: Conversion, x: Affine, classes: Any, maps: list[tuple[Floats, Floats, float]]
) -> Scores:
    """Return the scores ``constant - |z|^2 / 2`` for z = x @ matrix + shift, of each class."""
    z = joined([x.map(matrix, shift) for matrix, shift, _ in maps])
    spread = squares(c, z)
    sizes = [np.shape(shift)[0] for _, shift, _ in maps]
    sums = np.zeros((spread.size, len(maps)))
    start = 0
    for k, size in enumerate(sizes):
        sums[start : start + size, k] = -0.5
        start += size
    constants = np.array([constant for _, _, constant in maps])
    return Scores(spread.map(sums, constants), np.asarray(classes), "softmax")


def _gaussian(c: Conversion, step: Any, x: Affine) -> Scores:
    maps = []
    for mean, variance, prior in zip(step.theta_, step.var_, step.class_prior_, strict=True):
        scale = 1 / np.sqrt(variance)
        constant = float(np.log(prior) - 0.5 * np.sum(np.log(2.0 * np.pi * variance)))
        maps.append((scale, -mean * scale, constant))
    return _quadratic(c, x, step.classes_, maps)


def _qda(c: Conversion, step: Any, x: Affine) -> Scores:
    maps = []
    parts = zip(step.rotations_, step.scalings_, step.means_, step.priors_, strict=True)
    for rotation, scaling, mean, prior in parts:
        matrix = np.asarray(rotation) * np.asarray(scaling) ** -0.5
        constant = float(np.log(prior) - 0.5 * np.sum(np.log(scaling)))
        maps.append((matrix, -np.asarray(mean) @ matrix, constant))
    return _quadratic(c, x, step.classes_, maps)


def _dummy_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    if step.n_outputs_ != 1:
        raise ConversionError(
            "DummyClassifier of several labels a row is not converted; convert a classifier for each label"
        )
    if step.strategy not in ("prior", "most_frequent", "constant"):
        raise ConversionError(
            "DummyClassifier is converted with strategy 'prior', 'most_frequent' or 'constant', got "
            f"{step.strategy!r}"
        )
    classes = np.asarray(step.classes_)
    odds = np.asarray(step.class_prior_, np.float64)
    if step.strategy != "prior":
        chosen = classes == np.ravel(step.constant)[0] if step.strategy == "constant" else None
        odds = np.eye(len(classes))[int(np.argmax(odds if chosen is None else chosen))]
    return Scores(c.build.constant(odds), classes, "normalised", certain=True)


def _dummy_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    values = np.ravel(step.constant_)
    return Values(c.build.constant(values), len(values) == 1)


CLASSIFIERS = {
    "BernoulliNB": _bernoulli,
    "ComplementNB": _complement,
    "DummyClassifier": _dummy_classifier,
    "GaussianNB": _gaussian,
    "MLPClassifier": _mlp_classifier,
    "MultinomialNB": _multinomial,
    "QuadraticDiscriminantAnalysis": _qda,
}
REGRESSORS = {"DummyRegressor": _dummy_regressor, "MLPRegressor": _mlp_regressor}
