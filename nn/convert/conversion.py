"""The conversion of one estimator: what is known of it, and what each of its parts gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.expressions import Affine, Builder, TreeTable, joined
from nn.convert.problems import ConversionError
from nn.convert.public_columns import Columns
from nn.layers import Clip, Exp, Largest, Multiply, Reciprocal, Sigmoid, Softmax, Step
from nn.models.trainable import NotFittedError

__all__ = [
    "LEAST_TOTAL",
    "Conversion",
    "Kinds",
    "Scores",
    "Values",
    "both",
    "check_fitted",
    "inner_of",
    "named_by",
]

# Below this a sum of one-vs-rest probabilities does not fall.
LEAST_TOTAL = 2.0**-7
# The last digit of a column in the default format, what a piece may be off by, as a part of the deviation
# of its heights, and the largest factor of a column.
_UNIT, _SHOWS, _MOST_FACTOR = 2.0**-17, 2.0**-11, 2.0**12


@dataclass(frozen=True)
class Scores:
    """A classifier's scores: one for each class, the largest of which is the answer.

    Attributes
    ----------
    values : Affine
    classes : array of shape (classes,)
    link : str or None
        As of :class:`nn.models.predictors.Classifier`.
    decision : Affine or None
        What the original calls its decision function; of one column for two classes.
    certain : bool
        Whether the values are probabilities that sum to 1.
    """

    values: Affine
    classes: NDArray[Any]
    link: str | None
    decision: Affine | None = None
    certain: bool = False


@dataclass(frozen=True)
class Values:
    """A regressor's values, and whether the original predicts a vector."""

    values: Affine
    flat: bool = True


@dataclass(frozen=True)
class Kinds:
    """The functions that convert, by the names of classes.

    Attributes
    ----------
    transformers, classifiers, regressors : dict
        A function of the conversion, the fitted step and the value that it takes.
    """

    transformers: Mapping[str, Callable[[Conversion, Any, Affine], Affine]]
    classifiers: Mapping[str, Callable[[Conversion, Any, Affine], Scores]]
    regressors: Mapping[str, Callable[[Conversion, Any, Affine], Values]]
    # By the names of wrappers, the attribute with the estimator that they stand for.
    inside: Mapping[str, str]
    # For steps that no name tells of: read by what they have.
    selector: Callable[[Conversion, Any, Affine], Affine]
    linear_classifier: Callable[[Conversion, Any, Affine], Scores]
    linear_regressor: Callable[[Conversion, Any, Affine], Values]


class Conversion:
    """One conversion under way.

    Attributes
    ----------
    build : Builder
    columns : Columns
        What the rows' owner does to its columns in the clear.
    names : array of str, or None
        Of the features of the rows.
    stairs : bool
        Whether lines became stairs, which are off by less than 1e-3 of a deviation.
    """

    def __init__(
        self, build: Builder, kinds: Kinds, columns: Columns, names: NDArray[Any] | None
    ) -> None:
        self.build, self._kinds, self.columns, self.names = build, kinds, columns, names
        self.stairs = False

    def transform(self, step: Any, x: Affine) -> Affine:
        """Return what a transformer gives for `x`."""
        if (isinstance(step, str) and step == "passthrough") or step is None:
            return x
        check_fitted(step)
        found = self._kinds.transformers.get(named_by(step))
        if found is None and named_by(step) and hasattr(step, "get_support"):
            found = self._kinds.selector
        if found is None:
            raise ConversionError(self._refusal(step))
        return found(self, step, x)

    def scores(self, step: Any, x: Affine) -> Scores:
        """Return a classifier's scores for `x`."""
        step, x = self._final(step, x)
        found = self._kinds.classifiers.get(named_by(step))
        if found is None and is_linear(step) and hasattr(step, "classes_"):
            found = self._kinds.linear_classifier
        if found is None:
            raise ConversionError(self._refusal(step))
        return found(self, step, x)

    def values(self, step: Any, x: Affine) -> Values:
        """Return a regressor's values for `x`."""
        step, x = self._final(step, x)
        found = self._kinds.regressors.get(named_by(step))
        if found is None and is_linear(step) and not hasattr(step, "classes_"):
            found = self._kinds.linear_regressor
        if found is None:
            raise ConversionError(self._refusal(step))
        return found(self, step, x)

    def _final(self, step: Any, x: Affine) -> tuple[Any, Affine]:
        """Return the estimator at the end of pipelines and searches, and what it takes."""
        while True:
            if step is None or isinstance(step, str):
                raise ConversionError(f"an estimator is needed at the end, got {step!r}")
            check_fitted(step)
            if named_by(step) == "Pipeline":
                steps = [one for one in step.steps if one[1] not in (None, "passthrough")]
                if not steps:
                    raise ConversionError("a Pipeline needs an estimator at its end, got no steps")
                for name, inner in steps[:-1]:
                    try:
                        x = self.transform(inner, x)
                    except ConversionError as error:
                        raise ConversionError(f"step {name!r}, {error}") from None
                step = steps[-1][1]
            elif named_by(step) in self._kinds.inside:
                step = inner_of(step, self._kinds.inside[named_by(step)])
            else:
                return step, x

    def classifies(self, step: Any) -> bool:
        """Return whether a step is a classifier; clusterings with a rule for new rows are."""
        from sklearn.base import is_classifier

        return is_classifier(step) or named_by(step) in self._kinds.classifiers

    def regresses(self, step: Any) -> bool:
        """Return whether a step is a regressor."""
        from sklearn.base import is_regressor

        return is_regressor(step)

    def _refusal(self, step: Any) -> str:
        name = type(step).__name__
        kinds = self._kinds
        if named_by(step) in kinds.transformers:
            return (
                f"{name} is not converted as a classifier or regressor, which the last step must be"
            )
        if not named_by(step):
            return (
                f"{name} of {type(step).__module__} is not converted: it may predict something else than "
                "the class that it was made of"
            )
        known = {*kinds.transformers, *kinds.classifiers, *kinds.regressors, *kinds.inside}
        listed = ", ".join(sorted(one for one in known if not one.startswith("_")))
        return (
            f"{name} is not converted. from_sklearn converts every estimator with coef_ and intercept_, "
            f"selectors of features, and {listed}. What it does not may be written by skl2onnx and read "
            "by nn.from_onnx, as far as its operators are known there"
        )

    # What composed estimators ask of their members.

    def probabilities(self, step: Any, x: Affine) -> Affine:
        """Return a classifier's probabilities, one column a class."""
        return self.probabilities_of(self.scores(step, x), type(step).__name__)

    def probabilities_of(self, found: Scores, name: str) -> Affine:
        """Return probabilities from scores."""
        values, build = found.values, self.build
        if found.link == "normalised":
            if found.certain:
                return values
            return self._normalised(values)
        if found.link == "softmax" and values.size == 2:
            return both(build.apply(Sigmoid(), values.map([[-1.0], [1.0]])))
        if found.link == "softmax":
            return build.apply(Softmax(), values)
        if found.link == "one_vs_rest":
            return self._normalised(build.apply(Sigmoid(), values))
        raise ConversionError(f"{name} gives no probabilities that are converted")

    def _normalised(self, values: Affine) -> Affine:
        total = values.map(np.ones((values.size, 1)))
        # A bound for the interval of the reciprocal; one class at least has a part of it.
        total = self.build.apply(Clip(LEAST_TOTAL, float(values.size)), total)
        total = self.build.apply(Reciprocal(), total)
        return self.build.apply(Multiply(), values, total.map(np.ones((1, values.size))))

    def decision(self, step: Any, x: Affine) -> Affine:
        """Return what the original calls its decision function."""
        found = self.scores(step, x)
        if found.decision is None:
            raise ConversionError(
                f"the decision function of {type(self._final(step, x)[0]).__name__} is not converted: in"
                " a stack, stack_method='predict' or 'predict_proba'"
            )
        return found.decision

    def has_decision(self, step: Any) -> bool:
        """Return whether the original has a decision function."""
        return hasattr(step, "decision_function")

    def votes(self, step: Any, x: Affine) -> Affine:
        """Return a one for the class that a classifier predicts, zeros for others."""
        return self.winner(self.scores(step, x).values)

    def above(self, x: Affine, thresholds: Any) -> Affine:
        """Return ones where columns of `x` are above thresholds, one each; exact, ties included."""
        table, count = TreeTable(), x.size
        for column, threshold in enumerate(np.broadcast_to(thresholds, (count,))):
            table.add([column, -1, -1], [threshold, 0, 0], [1, -1, -1], [2, -1, -1], [1, 0, 0])
        values = np.zeros((2 * count, count))
        values[2 * np.arange(count) + 1, np.arange(count)] = 1.0
        return self.build.trees(table, x, values, np.zeros(count))

    def polyline(self, z: Affine, places: Any, heights: Any) -> Affine:
        """Return a function of one column, linear between places and constant outside.

        A piece of rows that is so steep that their last digit would show becomes stairs, whose steps are
        compared as exactly as thresholds of trees: off by 2^-11 of the heights' deviation, at most.
        """
        x, y = np.asarray(places, np.float64), np.asarray(heights, np.float64)
        width, rise = np.diff(x), np.diff(y)
        if not rise.any():
            return self.build.constant(y[:1])
        shows = float(y.std()) * _SHOWS
        if set(z.terms) == {0}:
            reach = float(x[-1] - x[0])
            plain = np.abs(rise) * (reach * _UNIT) <= shows * width
            plain &= reach <= width * _MOST_FACTOR
        else:
            plain = width * _MOST_FACTOR >= 1.0
        total = self.build.constant(y[:1])
        if plain.any():
            # Each piece goes from 0 to 1: bends are as exact as heights are.
            start, scale = x[:-1][plain], 1 / width[plain]
            drawn = self.build.apply(Clip(0.0, 1.0), z.map(scale[None], -start * scale))
            total = total + drawn.map(rise[plain][:, None])
        steep = np.flatnonzero(~plain & (rise != 0))
        if not len(steep):
            return total
        self.stairs = True
        steps = np.ceil(np.abs(rise[steep]) / (2 * shows)).astype(np.int64)
        limits = [
            x[k] + width[k] * (np.arange(n) + 0.5) / n for k, n in zip(steep, steps, strict=True)
        ]
        each = np.repeat(rise[steep] / steps, steps)
        passed = self.above(z.take(np.zeros(len(each), np.intp)), np.concatenate(limits))
        return total + passed.map(each[:, None])

    def exponential(self, values: Affine, middle: Any) -> Affine:
        """Return e to the power of values that lie around `middle`, for which there is most room."""
        middle = np.broadcast_to(np.asarray(middle, np.float64), (values.size,))
        around = self.build.apply(Exp(), values.map(np.ones(values.size), -middle))
        return around.map(np.exp(middle))

    def winner(self, values: Affine) -> Affine:
        """Return a one at the largest value, zeros elsewhere."""
        if values.size == 1:
            return self.build.constant([1.0])
        if values.size == 2:
            return both(self.build.apply(Step(), values.map([[-1.0], [1.0]])))
        return self.build.apply(Largest(), values)


def both(second: Affine) -> Affine:
    """Return 1 - p and p side by side."""
    return joined([second.map([-1.0], [1.0]), second])


def named_by(step: Any) -> str:
    """Return the name by which a step is known, "" if it is of another library or a user's subclass."""
    kind = type(step)
    package = kind.__module__.split(".")[0]
    if package in ("xgboost", "lightgbm") and kind.__name__.startswith(("XGB", "LGBM")):
        return kind.__name__
    if package not in ("sklearn", "nn"):
        return ""
    return kind.__name__


def is_linear(step: Any) -> bool:
    """Return whether a step of scikit-learn has coefficients and an intercept."""
    # Those of boosters raise where there are none.
    if not named_by(step) or type(step).__module__.split(".")[0] in ("xgboost", "lightgbm"):
        return False
    return hasattr(step, "coef_") and hasattr(step, "intercept_")


def inner_of(step: Any, attribute: str) -> Any:
    """Return the estimator that another stands for."""
    found = getattr(step, attribute, None)
    if found is None:
        raise ConversionError(
            f"{type(step).__name__} is converted by its {attribute}, which it has not: fit it with "
            "refit=True, or convert the estimator that you choose"
        )
    return found


def check_fitted(step: Any) -> None:
    """Raise NotFittedError unless a step is fitted."""
    from sklearn.exceptions import NotFittedError as Unfitted
    from sklearn.utils.validation import check_is_fitted

    if named_by(step) in ("FunctionTransformer", "Pipeline", "FrozenEstimator"):
        return
    try:
        check_is_fitted(step)
    except Unfitted:
        raise NotFittedError(
            f"{type(step).__name__} must be fitted before it is converted: call its fit first"
        ) from None
    except TypeError:
        raise ConversionError(f"{type(step).__name__} is no estimator of scikit-learn") from None
