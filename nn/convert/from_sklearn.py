"""Conversion of fitted scikit-learn estimators, with transformers before them, to plain models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.fixed_point.inputs import public_range
from nn.layers import LAYERS, Dense, Layer
from nn.layers.folding import dense, merge
from nn.models.predictors import Classifier, Regressor
from nn.models.trainable import NotFittedError
from ring.errors import ArgumentError
from ring.real_arrays import real_array

__all__ = ["ESTIMATORS", "TRANSFORMERS", "ConversionError", "from_sklearn"]

Floats = NDArray[np.float64]


def _activations() -> dict[str, type[Layer] | None]:
    """Return the activations by their names in scikit-learn; the identity is None, no layer."""
    named = {
        kind.named_elsewhere.sklearn: kind
        for kind in LAYERS.values()
        if kind.named_elsewhere is not None and kind.named_elsewhere.sklearn is not None
    }
    return {**named, "identity": None}


# Rows on which the converted model is compared with the original.
_ROWS = 256


class ConversionError(ArgumentError):
    """A model of another library cannot be converted: Sotto lacks a part of it."""


def from_sklearn(estimator: Any, X: ArrayLike | None = None) -> Classifier | Regressor:
    """Convert a fitted scikit-learn estimator to a plain model, ready to be shared.

    Parameters
    ----------
    estimator : fitted estimator
        MLPClassifier, MLPRegressor, LogisticRegression, LinearSVC, LinearRegression or Ridge, or a
        Pipeline (nested ones too) of StandardScaler, MinMaxScaler or PCA and one of them. The
        transformers are folded into the first layer, so the data owner shares raw features. Of
        Sotto's own estimators, such as :class:`nn.SecureMLPClassifier`, it is their ``model_``.
    X : array_like of shape (rows, features), optional
        Rows like those to predict, such as the training data. The model takes two things from
        them: the range of each feature, rounded outward (:func:`nn.fixed_point.inputs.public_range`),
        and the size of its outputs, from which follows how exact they have to be. Without `X`, the
        range is that of a MinMaxScaler at the front, or has to be given to ``share``.

    Returns
    -------
    Classifier or Regressor
        In float64. A classifier has one score a class; of two classes, the first has the score 0.
        The model has the estimator's names of features, and refuses tables with other names.

    Raises
    ------
    ConversionError
        If `estimator` is of another kind or has an option that cannot be converted; or if the
        converted model predicts something else, as may happen with an estimator of another version.
    NotFittedError
        If `estimator` is not fitted.
    ShapeError, RangeError, DtypeError
        If `X` does not fit the estimator.

    Examples
    --------
    >>> import nn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> original = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> model = nn.from_sklearn(original, X)
    >>> bool((model.predict(X) == original.predict(X)).all())
    True
    """
    transformers, final = _steps(estimator)
    for step in (*transformers, final):
        _check_fitted(step)
    try:
        layers: list[Layer] = [TRANSFORMERS[type(step).__name__](step) for step in transformers]
        made = ESTIMATORS[type(final).__name__](final)
    except AttributeError as error:
        raise ConversionError(
            f"{error}: was it fitted by another version of scikit-learn?"
        ) from None
    layers = merge([*layers, *made.layers])
    features = layers[0].parameters[0].shape[0]
    if isinstance(made, Classifier):
        made = Classifier(layers, made.classes_, features, link=made.link)
    else:
        made = Regressor(layers, features, flat=made.flat)
    first = (*transformers, final)[0]
    made.feature_names_in_ = getattr(first, "feature_names_in_", None)
    if X is not None:
        made.take_rows(X)
    elif type(first).__name__ == "MinMaxScaler":
        made.input_range_ = public_range(np.stack([first.data_min_, first.data_max_]))
    if type(final).__module__.startswith("sklearn."):
        _check_agreement(estimator, made, X)
    return made


def _listed(names: Collection[str]) -> str:
    """Return names as text: "a, b and c"."""
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}"


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """Return the transformers and the final estimator of a pipeline; raise if one is not known."""
    steps = list(_flat("", estimator))
    can = (
        f"from_sklearn converts {_listed(ESTIMATORS)}, and Pipelines that put "
        f"{_listed(TRANSFORMERS)} before one of them"
    )
    if not steps:
        raise ConversionError(f"{can}; got a Pipeline without steps")
    for place, (where, step) in enumerate(steps):
        known = ESTIMATORS if place == len(steps) - 1 else TRANSFORMERS
        if not _is(step, known):
            raise ConversionError(f"{can}; got {where}{type(step).__name__}")
    return [step for _, step in steps[:-1]], steps[-1][1]


def _flat(where: str, step: Any) -> Iterator[tuple[str, Any]]:
    """Yield the steps of nested pipelines, each with the text that says where it is."""
    if not _is(step, ("Pipeline",)):
        yield where, step
        return
    for name, inner in step.steps:
        if inner is not None and not (isinstance(inner, str) and inner == "passthrough"):
            yield from _flat(f"step {name!r}, ", inner)


def _is(step: Any, names: Collection[str]) -> bool:
    """Return whether a step is of a class in `names` of scikit-learn or Sotto.

    A user's subclass is not: it may predict something else.
    """
    kind = type(step)
    return kind.__name__ in names and kind.__module__.split(".")[0] in ("sklearn", "nn")


def _check_fitted(step: Any) -> None:
    from sklearn.exceptions import NotFittedError as Unfitted
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(step)
    except Unfitted:
        raise NotFittedError(
            f"{type(step).__name__} must be fitted before it is converted: call its fit first"
        ) from None


def _check_agreement(original: Any, made: Classifier | Regressor, X: ArrayLike | None) -> None:
    """Raise ConversionError unless both models predict the same for rows of `X`, or random rows."""
    if X is None:
        rows = np.random.default_rng(0).normal(size=(_ROWS, made.n_features_in_))
        if made.input_range_ is not None:
            low, high = made.input_range_
            rows = np.clip((low + high) / 2 + rows * (high - low) / 4, low, high)
    else:
        rows = real_array(X, "X").astype(np.float64, copy=False)[:_ROWS]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # about names of features, and versions
        try:
            wanted = np.asarray(original.predict(rows))
            odds = original.predict_proba(rows) if hasattr(original, "predict_proba") else None
        except (AttributeError, TypeError, ValueError) as error:
            raise ConversionError(f"the estimator's own predict fails: {error}") from None
        if isinstance(made, Regressor):
            found = made.predict(rows)
            near = 1e-6 * np.abs(wanted).max(axis=0, initial=np.finfo(np.float64).tiny)
            same = found.shape == wanted.shape and np.abs(found - wanted) <= near
        else:
            scores = made.decision_function(rows)
            ranked = np.sort(scores, axis=1)
            tied = ranked[:, -1] - ranked[:, -2] <= 1e-6 * np.abs(scores).max(axis=1)
            same = (made.predict(rows) == wanted) | tied
            if odds is not None and made.link is not None:
                same = same & (np.abs(made.predict_proba(rows) - odds) <= 1e-5).all(axis=1)
    if not np.all(same):
        raise ConversionError(
            f"the converted model and the original must predict the same, got other predictions for "
            f"{np.size(same) - np.count_nonzero(same)} of {np.size(same)}: was it changed after it was "
            "fitted, or fitted by another version of scikit-learn, or to features whose mean is far "
            "larger than their spread?"
        )


# Transformers, each an affine map.


def _standard_scaler(step: Any) -> Layer:
    scale = 1 / step.scale_ if step.with_std else np.ones(step.n_features_in_)
    mean = step.mean_ if step.with_mean else np.zeros(step.n_features_in_)
    return dense(scale, -mean * scale)


def _min_max_scaler(step: Any) -> Layer:
    if step.clip:
        raise ConversionError("MinMaxScaler is converted with clip=False only, got clip=True")
    return dense(step.scale_, step.min_)


def _pca(step: Any) -> Layer:
    matrix = np.asarray(step.components_, dtype=np.float64).T
    if step.whiten:
        deviation = np.sqrt(step.explained_variance_)
        matrix = matrix / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return dense(matrix, -np.asarray(step.mean_, dtype=np.float64) @ matrix)


# Estimators.


def _binary(layer: Dense, both: bool = False) -> Dense:
    """Return scores of two classes, (0, z) or with `both` (-z, z), for one score z."""
    weights, bias = layer.weights, layer.bias
    first = -1.0 if both else 0.0
    return dense(np.hstack([first * weights, weights]), np.concatenate([first * bias, bias]))


def _linear(step: Any) -> Dense:
    """Return coefficients and intercept as a layer."""
    coefficients = step.coef_.toarray() if hasattr(step.coef_, "toarray") else step.coef_
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64)).T
    bias = np.asarray(step.intercept_, dtype=np.float64)
    return dense(weights, np.broadcast_to(bias, weights.shape[1:]))


def _linear_regressor(step: Any) -> Regressor:
    layer = _linear(step)
    return Regressor([layer], layer.weights.shape[0], flat=np.ndim(step.coef_) == 1)


def _linear_classifier(step: Any, link: str | None, both: bool = False) -> Classifier:
    layer = _linear(step)
    if len(step.classes_) == 2:
        layer = _binary(layer, both)
    return Classifier([layer], step.classes_, layer.weights.shape[0], link=link)


def _logistic_regression(step: Any) -> Classifier:
    # `multi_class` exists before scikit-learn 1.8; liblinear fits one classifier a class.
    mode = getattr(step, "multi_class", "deprecated")
    several = len(step.classes_) > 2
    if several and (mode in ("ovr", "warn") or step.solver == "liblinear"):
        return _linear_classifier(step, "one_vs_rest")
    return _linear_classifier(step, "softmax", both=mode == "multinomial" and not several)


def _linear_svc(step: Any) -> Classifier:
    return _linear_classifier(step, None)


def _network(step: Any) -> list[Layer]:
    """Return the layers of a fitted multi-layer perceptron."""
    known = _activations()
    if step.activation not in known:
        raise ConversionError(
            f"activation must be one of {_listed(known)}, got {step.activation!r}"
        )
    activation = known[step.activation]
    layers: list[Layer] = []
    for weights, bias in zip(step.coefs_, step.intercepts_, strict=True):
        if layers and activation is not None:
            layers.append(activation())
        layers.append(dense(weights, bias))
    return layers


def _mlp_classifier(step: Any) -> Classifier:
    layers = _network(step)
    classes = np.asarray(step.classes_)
    outputs = layers[-1].parameters[1].shape[0]
    if step.out_activation_ == "logistic" and outputs == 1 and len(classes) == 2:
        last = layers[-1]
        assert isinstance(last, Dense)
        layers[-1] = _binary(last)
    elif step.out_activation_ != "softmax" or outputs != len(classes):
        raise ConversionError(
            "MLPClassifier is converted if it has two or more classes and one label a row; "
            f"got {outputs} outputs with {step.out_activation_!r} for {len(classes)} classes"
        )
    return Classifier(layers, classes, step.n_features_in_)


def _mlp_regressor(step: Any) -> Regressor:
    if step.out_activation_ != "identity":
        raise ConversionError(
            "MLPRegressor is converted with loss='squared_error' only, got outputs with "
            f"{step.out_activation_!r}"
        )
    return Regressor(_network(step), step.n_features_in_)


TRANSFORMERS: dict[str, Callable[[Any], Layer]] = {
    "MinMaxScaler": _min_max_scaler,
    "PCA": _pca,
    "StandardScaler": _standard_scaler,
}
ESTIMATORS: dict[str, Callable[[Any], Classifier | Regressor]] = {
    "LinearRegression": _linear_regressor,
    "LinearSVC": _linear_svc,
    "LogisticRegression": _logistic_regression,
    "MLPClassifier": _mlp_classifier,
    "MLPRegressor": _mlp_regressor,
    "Ridge": _linear_regressor,
    # Sotto's own estimators hold their plain model.
    "SecureMLPClassifier": lambda step: step.model_,
    "SecureMLPRegressor": lambda step: step.model_,
}
