"""Plain models from boosters of xgboost and lightgbm, or from their dumps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nn.convert import boosters
from nn.convert.conversion import Conversion, Scores, Values
from nn.convert.expressions import Builder
from nn.convert.from_sklearn import KINDS
from nn.convert.knowing_rows import knowing
from nn.convert.problems import ConversionError
from nn.convert.public_columns import Columns
from nn.core.checks import local_path
from nn.core.labels import ordered_classes
from nn.models.predictors import Classifier, Regressor
from ring.errors import DataError, DtypeError
from ring.real_arrays import plain_array, real_array

__all__ = ["from_booster"]


def from_booster(
    source: Any,
    X: Any | None = None,
    *,
    classes: ArrayLike | None = None,
    secret_features: bool = False,
) -> Classifier | Regressor:
    """Convert boosted trees of xgboost or lightgbm to a plain model, ready to be shared.

    For ``Booster`` objects and dumps; estimators such as XGBClassifier and LGBMRegressor are for
    :func:`nn.from_sklearn`, which compares answers, too. Reading a dump needs neither library. Of
    xgboost all trees count, as in ``Booster.predict``: after early stopping, give
    ``booster[: booster.best_iteration + 1]``, or its dump, for the answers of the estimator.

    Parameters
    ----------
    source : Booster, dict or path
        A booster of either library, or its dump: the JSON of xgboost's ``save_model("model.json")``
        or of lightgbm's ``dump_model()``, as a path or parsed.
    X : array_like of shape (rows, features), optional
        Rows like those to predict, as for :func:`nn.from_sklearn`. Without them the range of the
        features has to be given to ``share``.
    classes : array_like of shape (classes,), optional
        The labels in ascending order; default 0, 1, 2, ...
    secret_features : bool, default=False
        As for :func:`nn.from_sklearn`.

    Returns
    -------
    Classifier or Regressor

    Raises
    ------
    ConversionError
        If the dump is of another kind, or has splits or an objective that cannot be converted.
    DataError
        If the file cannot be read, or is no JSON.
    DtypeError, ShapeError, RangeError, ArgumentError
        If another argument breaks its rule.

    Examples
    --------
    >>> import nn
    >>> leaves = {"left_child": {"leaf_value": -1.0}, "right_child": {"leaf_value": 2.5}}
    >>> split = {"split_feature": 0, "threshold": 0.5, "decision_type": "<=", "missing_type": "None"}
    >>> dump = {
    ...     "objective": "regression", "num_tree_per_iteration": 1, "max_feature_idx": 1,
    ...     "tree_info": [{"tree_structure": split | leaves}],
    ... }
    >>> nn.from_booster(dump).predict([[0.5, 0], [1, 0]])
    array([-1. ,  2.5])
    """
    if not isinstance(secret_features, (bool, np.bool_)):
        raise DtypeError(f"secret_features must be True or False, got {secret_features!r}")
    if isinstance(source, (str, os.PathLike)):
        source = _parsed(source)
    found = boosters.read(source) if isinstance(source, Mapping) else boosters.read_model(source)
    build = Builder(found.features, bool(secret_features))
    conversion = Conversion(build, KINDS, Columns(found.features, False), None)
    if found.classifies:
        count = max(2, found.outputs)
        names = np.arange(count) if classes is None else plain_array(classes, "classes")
        made: Scores | Values = boosters.scores_of(
            conversion, found, build.input, ordered_classes(names, count)
        )
    else:
        if classes is not None:
            raise ConversionError(f"objective {found.objective!r} has no classes, got {classes!r}")
        made = boosters.values_of(conversion, found, build.input)
    layers = build.finish(made.values, None)
    model: Classifier | Regressor
    if isinstance(made, Scores):
        model = Classifier(layers, made.classes, build.features, link=made.link)
    else:
        model = Regressor(layers, build.features, flat=made.flat)
    if X is not None:
        model.take_rows(X)
        model.layers = knowing(model.layers, np.asarray(real_array(X, "X"), np.float64))
    return model


def _parsed(path: Any) -> Any:
    place = local_path("source", path)
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{place} cannot be read as JSON: {error}") from None
