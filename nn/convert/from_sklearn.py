"""Conversion of fitted scikit-learn estimators, with transformers before them, to plain models."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert import (
    boosters,
    sklearn_ensembles,
    sklearn_kernels,
    sklearn_linear,
    sklearn_transformers,
    sklearn_trees,
)
from nn.convert.conversion import (
    Conversion,
    Kinds,
    Scores,
    Values,
    check_fitted,
    inner_of,
    named_by,
)  # fmt: skip
from nn.convert.expressions import Affine, Builder
from nn.convert.knowing_rows import check_digits, knowing
from nn.convert.problems import ConversionError
from nn.convert.public_columns import Columns
from nn.fixed_point.inputs import public_range
from nn.fixed_point.precision import compares_computed
from nn.layers import Dense, Largest
from nn.models.predictors import Classifier, Regressor
from nn.models.preprocessing import PublicPreprocessing
from ring.errors import DtypeError
from ring.real_arrays import real_array

__all__ = ["KINDS", "ConversionError", "from_sklearn"]

# Rows on which the converted model is compared with the original.
_ROWS = 256
# By what part of a deviation stairs in place of lines may be off.
_STAIRS = 1e-3


def _own_classifier(c: Conversion, step: Any, x: Affine) -> Scores:
    """Convert Sotto's own estimator, which holds its plain model."""
    return Scores(_through(c, step.model_.layers, x), step.model_.classes_, step.model_.link)


def _own_regressor(c: Conversion, step: Any, x: Affine) -> Values:
    return Values(_through(c, step.model_.layers, x), step.model_.flat)


def _through(c: Conversion, layers: Any, x: Affine) -> Affine:
    for layer in layers:
        if isinstance(layer, Dense):
            x = x.map(layer.weights, layer.bias)
        else:
            x = c.build.apply(layer, x)
    return x


KINDS = Kinds(
    transformers=sklearn_transformers.TRANSFORMERS,
    classifiers={
        **sklearn_linear.CLASSIFIERS, **sklearn_trees.CLASSIFIERS, **sklearn_kernels.CLASSIFIERS,
        **sklearn_ensembles.CLASSIFIERS, **boosters.CLASSIFIERS,
        "SecureMLPClassifier": _own_classifier,
    },
    regressors={
        **sklearn_linear.REGRESSORS, **sklearn_trees.REGRESSORS, **sklearn_kernels.REGRESSORS,
        **sklearn_ensembles.REGRESSORS, **boosters.REGRESSORS,
        "SecureMLPRegressor": _own_regressor,
    },
    inside=sklearn_ensembles.INSIDE,
    selector=sklearn_transformers.select,
    linear_classifier=sklearn_linear.linear_classifier,
    linear_regressor=sklearn_linear.linear_regressor,
)  # fmt: skip


def from_sklearn(
    estimator: Any,
    X: Any | None = None,
    *,
    secret_features: bool = False,
    public_preprocessing: bool = False,
) -> Classifier | Regressor:
    """Convert a fitted scikit-learn estimator to a plain model, ready to be shared.

    Parameters
    ----------
    estimator : fitted estimator
        Any with ``coef_`` and ``intercept_``; networks; trees, forests and boosted trees; support vector
        machines and other kernel machines; nearest neighbours and centroids; naive Bayes; the estimators of
        xgboost and lightgbm; and votes,
        stacks, searches and pipelines of those. Affine transformers are folded into the first layer, so
        the data owner shares raw features. Of Sotto's own estimators, such as
        :class:`nn.SecureMLPClassifier`, it is their ``model_``. The page on conversion lists all.
    X : array_like of shape (rows, features), optional
        Rows like those to predict, such as the training data. The model takes two things from
        them: the range of each feature, rounded outward (:func:`nn.fixed_point.inputs.public_range`),
        and the size of its outputs, from which follows how exact they have to be. Without `X`, the
        range is that of a MinMaxScaler at the front, or has to be given to ``share``.
    secret_features : bool, default=False
        Whether trees hide which feature each node compares, at the price of a product. By default
        that becomes public when the model is shared, as the trees' shape does.
    public_preprocessing : bool, default=False
        Whether encoders of categories and SimpleImputer at the front are run in the clear by the owner
        of the rows, who then gets their categories and fill values: ``model.preprocess(X)`` gives the
        rows to be shared.

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
    flags = {"secret_features": secret_features, "public_preprocessing": public_preprocessing}
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise DtypeError(f"{name} must be True or False, got {flag!r}")
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise ConversionError(f"a fitted estimator is needed, got {estimator!r}")
    first = _first(estimator)
    names = getattr(first, "feature_names_in_", None)
    count = _features(estimator, first)
    build, columns = (
        Builder(count, bool(secret_features)),
        Columns(count, bool(public_preprocessing)),
    )
    conversion = Conversion(build, KINDS, columns, names)
    found: Scores | Values
    try:
        if conversion.classifies(estimator):
            found = conversion.scores(estimator, build.input)
        else:
            found = conversion.values(estimator, build.input)
    except AttributeError as error:
        raise ConversionError(
            f"{error}: was it fitted by another version of scikit-learn?"
        ) from None
    keep, rules = None, None
    if len(columns.rules) > count:
        keep = build.used(found.values)
        rules = PublicPreprocessing(
            count, [columns.rules[k] for k in keep], None if names is None else [*map(str, names)]
        )
    layers = build.finish(found.values, keep)
    features = build.features if keep is None else len(keep)
    made: Classifier | Regressor
    if isinstance(found, Scores):
        made = Classifier(layers, found.classes, features, link=found.link)
    else:
        made = Regressor(layers, features, flat=found.flat)
    made.preprocessing_ = rules
    if rules is None:
        made.feature_names_in_ = names
    if X is not None:
        numbers = X if rules is None else rules.transform(X)
        made.take_rows(numbers)
        known = np.asarray(real_array(numbers, "X"), np.float64)
        made.layers = knowing(made.layers, known)
    elif type(first).__name__ == "MinMaxScaler":
        made.input_range_ = public_range(np.stack([first.data_min_, first.data_max_]))
    if type(_last(estimator)).__module__.startswith(("sklearn.", "xgboost.", "lightgbm.")):
        _check_agreement(estimator, made, X, _STAIRS if conversion.stairs else 0.0)
    if X is not None:
        check_digits(made, known, made.feature_names_in_)
    return made


def _first(estimator: Any) -> Any:
    """Return the first step of pipelines within one another."""
    steps = getattr(estimator, "steps", None)
    if type(estimator).__name__ != "Pipeline" or not steps:
        return estimator
    real = [one for _, one in steps if one is not None and not isinstance(one, str)]
    return _first(real[0]) if real else estimator


def _last(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    real = [one for _, one in steps or () if one is not None and not isinstance(one, str)]
    return _last(real[-1]) if type(estimator).__name__ == "Pipeline" and real else estimator


def _features(estimator: Any, first: Any) -> int:
    """Return how many features the rows have."""
    if type(first).__name__ == "Pipeline":
        raise ConversionError("an estimator is needed, got a Pipeline without steps")
    if named_by(first) in KINDS.inside:
        inner_of(first, KINDS.inside[named_by(first)])
    for holder in (first, estimator):
        for inner in (holder, getattr(holder, "best_estimator_", None)):
            count = getattr(inner, "n_features_in_", None)
            if count is not None:
                return int(count)
    check_fitted(first)
    points = getattr(first, "X_thresholds_", None)
    if points is not None:  # isotonic regression, of one feature
        return 1
    raise ConversionError(
        f"{type(first).__name__} does not say of how many features its rows are, as with a kernel that is "
        "a function of one's own, which is not converted: kernels by name are"
    )


def _check_agreement(
    original: Any, made: Classifier | Regressor, X: Any | None, off: float
) -> None:
    """Raise ConversionError unless both models predict the same for rows of `X`, or random rows."""
    if X is None:
        if made.preprocessing_ is not None:
            return  # no row is known that has its categories
        rows = np.random.default_rng(0).normal(size=(_ROWS, made.n_features_in_))
        if made.input_range_ is not None:
            low, high = made.input_range_
            rows = np.clip((low + high) / 2 + rows * (high - low) / 4, low, high)
        given = _named(rows, made.feature_names_in_)
    elif hasattr(X, "iloc"):
        given = X.iloc[:_ROWS]
        rows = made.preprocess(given)
    elif made.preprocessing_ is not None:
        given = np.asarray(X, dtype=object)[:_ROWS]
        rows = made.preprocess(given)
    else:
        given = rows = real_array(X, "X").astype(np.float64, copy=False)[:_ROWS]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # about names of features, and versions
        try:
            wanted = np.asarray(original.predict(given))
            odds = original.predict_proba(given) if hasattr(original, "predict_proba") else None
        except (AttributeError, TypeError, ValueError) as error:
            raise ConversionError(f"the estimator's own predict fails: {error}") from None
        same = _same(made, rows, wanted, odds, off)
    different = np.size(same) - np.count_nonzero(same)
    # Which of points at the same distance are neighbours is not laid down.
    chooses = any(type(one) is Largest for one in made.layers)
    if different > (0.01 * np.size(same) if chooses else 0):
        raise ConversionError(
            f"the converted model and the original must predict the same, got other predictions for "
            f"{different} of {np.size(same)}: was it changed after it was "
            "fitted, or fitted by another version of scikit-learn, or to features whose mean is far "
            "larger than their spread?"
            + (" Or are points at the same distance from these rows?" if chooses else "")
            + (
                " Or do rows lie on thresholds of trees behind a step that computes features? Then fit the "
                "trees to what that step gives, and share rows with it"
                if compares_computed(made.layers)
                else ""
            )
        )


def _named(rows: NDArray[Any], names: NDArray[Any] | None) -> Any:
    """Return rows as a table with names, if there are names and pandas."""
    pandas = None
    if names is not None:
        with contextlib.suppress(ImportError):
            pandas = importlib.import_module("pandas")
    return rows if pandas is None else pandas.DataFrame(rows, columns=names)


def _same(
    made: Classifier | Regressor,
    rows: NDArray[Any],
    wanted: NDArray[Any],
    odds: Any,
    off: float,
) -> NDArray[np.bool_]:
    """Return which predictions of a converted model are those of the original.

    Values may be off by the part `off` of their deviation, and probabilities by as much of 1.
    """
    if isinstance(made, Regressor):
        found = made.predict(rows)
        if found.shape != wanted.shape:
            return np.zeros(1, bool)
        # Some sum in float32.
        near = (1e-6 if wanted.dtype != np.float32 else 1e-5) * np.abs(wanted).max(
            axis=0, initial=np.finfo(np.float64).tiny
        )
        return np.asarray(np.abs(found - wanted) <= near + off * wanted.std(axis=0))
    if wanted.shape != (len(rows),):
        return np.zeros(1, bool)
    scores = made.decision_function(rows)
    ranked = np.sort(scores, axis=1)
    lead = ranked[:, -1] - ranked[:, max(-2, -ranked.shape[1])]
    tied = lead <= 1e-6 * np.abs(scores).max(axis=1)
    same = (made.predict(rows) == wanted) | tied
    if odds is not None and made.link is not None:
        same = same & (np.abs(made.predict_proba(rows) - odds) <= max(1e-5, off)).all(axis=1)
    return np.asarray(same)
