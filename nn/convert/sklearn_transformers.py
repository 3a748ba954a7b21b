"""Transformers of scikit-learn: affine maps, selections, functions, and what runs in the clear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Conversion
from nn.convert.expressions import Affine, joined
from nn.convert.problems import ConversionError
from nn.convert.sklearn_kernels import kernel
from nn.layers import (
    Abs,
    Clip,
    Exp,
    Log,
    Maximum,
    Multiply,
    Reciprocal,
    ReLU,
    RMSNorm,
    Sigmoid,
    Sqrt,
    Tanh,
)  # fmt: skip

__all__ = ["TRANSFORMERS", "normalised", "select"]

Floats = NDArray[np.float64]
# Rows are normalised if their mean square is far above the first, their sum or maximum above the second.
_LEAST_SQUARE, _LEAST_SIZE = 1e-9, 2.0**-6


# Scalers.


def _standard_scaler(c: Conversion, step: Any, x: Affine) -> Affine:
    scale = 1 / np.asarray(step.scale_, np.float64) if step.with_std else np.ones(x.size)
    mean = np.asarray(step.mean_, np.float64) if step.with_mean else np.zeros(x.size)
    return x.map(scale, -mean * scale)


def _min_max_scaler(c: Conversion, step: Any, x: Affine) -> Affine:
    scaled = x.map(np.asarray(step.scale_, np.float64), np.asarray(step.min_, np.float64))
    return c.build.apply(Clip(*map(float, step.feature_range)), scaled) if step.clip else scaled


def _max_abs_scaler(c: Conversion, step: Any, x: Affine) -> Affine:
    scaled = x.map(1 / np.asarray(step.scale_, np.float64))
    return c.build.apply(Clip(-1.0, 1.0), scaled) if getattr(step, "clip", False) else scaled


def _robust_scaler(c: Conversion, step: Any, x: Affine) -> Affine:
    scale = 1 / np.asarray(step.scale_, np.float64) if step.with_scaling else np.ones(x.size)
    center = np.asarray(step.center_, np.float64) if step.with_centering else np.zeros(x.size)
    return x.map(scale, -center * scale)


# Projections.


def _pca(c: Conversion, step: Any, x: Affine) -> Affine:
    matrix = np.asarray(step.components_, dtype=np.float64).T
    if step.whiten:
        deviation = np.sqrt(step.explained_variance_)
        matrix = matrix / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return x.map(matrix, -np.asarray(step.mean_, dtype=np.float64) @ matrix)


def _components(c: Conversion, step: Any, x: Affine) -> Affine:
    """Convert a projection to ``components_``, of the difference to ``mean_`` if there is one."""
    components = step.components_
    if hasattr(components, "toarray"):
        components = components.toarray()
    matrix = np.asarray(components, np.float64).T
    mean = getattr(step, "mean_", None)
    if mean is None or getattr(step, "whiten", True) is False:
        return x.map(matrix)
    return x.map(matrix, -np.asarray(mean, np.float64) @ matrix)


def _factor_analysis(c: Conversion, step: Any, x: Affine) -> Affine:
    components = np.asarray(step.components_, np.float64)
    weighted = components / step.noise_variance_
    matrix = weighted.T @ np.linalg.inv(np.eye(len(components)) + weighted @ components.T)
    return x.map(matrix, -np.asarray(step.mean_) @ matrix)


def _discriminant(c: Conversion, step: Any, x: Affine) -> Affine:
    if step.solver == "lsqr":
        raise ConversionError("LinearDiscriminantAnalysis with solver='lsqr' transforms nothing")
    center = step.xbar_ if step.solver == "svd" else np.zeros(x.size)
    matrix = np.asarray(step.scalings_, np.float64)[:, : step._max_components]
    return x.map(matrix, -np.asarray(center) @ matrix)


def _partial_least_squares(c: Conversion, step: Any, x: Affine) -> Affine:
    matrix = np.asarray(step.x_rotations_, np.float64) / np.asarray(step._x_std)[:, None]
    return x.map(matrix, -np.asarray(step._x_mean) @ matrix)


def _agglomeration(c: Conversion, step: Any, x: Affine) -> Affine:
    if step.pooling_func is not np.mean:
        raise ConversionError("FeatureAgglomeration is converted with pooling_func=np.mean")
    labels = np.asarray(step.labels_)
    groups = np.unique(labels)
    matrix = (labels[:, None] == groups) / np.bincount(labels)[groups]
    return x.map(matrix)


# Functions.


def _normalizer(c: Conversion, step: Any, x: Affine) -> Affine:
    return normalised(c, x, step.norm)


def normalised(c: Conversion, x: Affine, kind: str) -> Affine:
    """Return rows divided by their norm, "l1", "l2" or "max"."""
    if kind == "l2":
        norm = RMSNorm(np.full(x.size, 1 / np.sqrt(x.size)), _LEAST_SQUARE)
        return c.build.apply(norm, x)
    size = c.build.apply(Abs(), x)
    if kind == "l1":
        size = size.map(np.ones((x.size, 1)))
    while size.size > 1:
        half = size.size // 2
        pair = size.take(np.arange(half)), size.take(np.arange(half, 2 * half))
        rest = [size.take([size.size - 1])] if size.size % 2 else []
        size = joined([c.build.apply(Maximum(), *pair), *rest])
    # Rows of zeros stay so.
    factor = c.build.apply(Reciprocal(), c.build.apply(Clip(_LEAST_SIZE, None), size))
    return c.build.apply(Multiply(), x, factor.map(np.ones((1, x.size))))


def _polynomial(c: Conversion, step: Any, x: Affine) -> Affine:
    """Products of features: those of a lower degree times one feature more, one layer a degree."""
    powers = np.asarray(step.powers_)
    known: dict[tuple[int, ...], tuple[Affine, int]] = {}
    unit = tuple([0] * x.size)
    known[unit] = c.build.constant([1.0]), 0
    for k in range(x.size):
        known[(*unit[:k], 1, *unit[k + 1 :])] = x, k
    wanted = {tuple(row) for row in powers.tolist()}

    def lower(row: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        k = next(k for k, n in enumerate(row) if n)
        return (*row[:k], row[k] - 1, *row[k + 1 :]), k

    waiting = list(wanted)
    while waiting:
        row = waiting.pop()
        if sum(row) > 1 and lower(row)[0] not in wanted:
            wanted.add(lower(row)[0])
            waiting.append(lower(row)[0])
    for degree in range(2, int(powers.sum(axis=1).max(initial=0)) + 1):
        rows = sorted(row for row in wanted if sum(row) == degree)
        if not rows:
            continue
        left = joined([known[lower(row)[0]][0].take([known[lower(row)[0]][1]]) for row in rows])
        product = c.build.apply(Multiply(), left, x.take([lower(row)[1] for row in rows]))
        known.update({row: (product, k) for k, row in enumerate(rows)})
    parts = [known[tuple(row)] for row in powers.tolist()]
    return joined([value.take([k]) for value, k in parts])


def _binarizer(c: Conversion, step: Any, x: Affine) -> Affine:
    return c.above(x, float(step.threshold))


def _bins(c: Conversion, step: Any, x: Affine) -> Affine:
    """Bins of features: how many edges a value has reached, or a one in its bin."""
    parts = []
    for k, edges in enumerate(step.bin_edges_):
        column, inner = x.take([k]), np.asarray(edges, np.float64)[1:-1]
        if not len(inner):
            parts.append(c.build.constant([1.0 if step.encode != "ordinal" else 0.0]))
            continue
        # A value of an edge is in the upper bin.
        reached = c.above(column.take(np.zeros(len(inner), int)), np.nextafter(inner, -np.inf))
        if step.encode == "ordinal":
            parts.append(reached.map(np.ones((len(inner), 1))))
        else:
            one, zero = c.build.constant([1.0]), c.build.constant([0.0])
            parts.append(joined([one, reached]) - joined([reached, zero]))
    return joined(parts)


def _quantiles(c: Conversion, step: Any, x: Affine) -> Affine:
    """Convert the uniform distribution: a line between quantiles, and jumps where some are equal."""
    if step.output_distribution != "uniform":
        raise ConversionError(
            "QuantileTransformer is converted with output_distribution='uniform', got "
            f"{step.output_distribution!r}"
        )
    heights, parts = np.asarray(step.references_, np.float64), []
    for k, column in enumerate(np.asarray(step.quantiles_, np.float64).T):
        z, (places, first) = x.take([k]), np.unique(column, return_index=True)
        last = np.append(first[1:], len(column)) - 1
        jumps = heights[last] - heights[first]
        # Where a value has two heights it gets the middle; at the ends 0 and 1.
        at = jumps / 2
        at[-1], at[0] = jumps[-1], 0.0
        part = c.polyline(z, places, heights[first] - np.cumsum(jumps) + jumps)
        many = np.flatnonzero(jumps)
        if len(many):
            steps = np.concatenate([np.nextafter(places[many], -np.inf), places[many]])
            rises = np.concatenate([at[many], jumps[many] - at[many]])
            passed = c.above(z.take(np.zeros(len(steps), np.intp)), steps)
            part = part + passed.map(rises[:, None])
        parts.append(part)
    return joined(parts)


def _power(c: Conversion, step: Any, x: Affine) -> Affine:
    """Convert (v^p - 1) / p, or log(v) for p = 0: of 1 + x and 1 - x, or of x itself."""
    powers = np.asarray(step.lambdas_, np.float64)
    if step.method == "box-cox":
        values = _powers(c, x, powers)
    else:
        sides = c.build.apply(ReLU(), joined([x, -x]))
        both = _powers(c, sides.map(np.ones(sides.size), 1.0), np.concatenate([powers, 2 - powers]))
        values = both.take(np.arange(x.size)) - both.take(np.arange(x.size, 2 * x.size))
    return _standard_scaler(c, step._scaler, values) if step.standardize else values


def _powers(c: Conversion, x: Affine, powers: Floats) -> Affine:
    logs = c.build.apply(Log(), x)
    some = np.abs(powers) > np.finfo(np.float64).eps
    factor = np.where(some, powers, 1.0)
    raised = c.build.apply(Exp(), logs * np.where(some, powers, 0.0))
    return raised.map(some / factor, -(some / factor)) + logs * ~some


_FUNCTIONS = {
    np.exp: lambda c, x: c.build.apply(Exp(), x),
    np.expm1: lambda c, x: c.build.apply(Exp(), x).map(np.ones(x.size), -1.0),
    np.log: lambda c, x: c.build.apply(Log(), x),
    np.log2: lambda c, x: c.build.apply(Log(), x) * (1 / np.log(2.0)),
    np.log10: lambda c, x: c.build.apply(Log(), x) * (1 / np.log(10.0)),
    np.negative: lambda c, x: -x,
    np.tanh: lambda c, x: c.build.apply(Tanh(), x),
    np.log1p: lambda c, x: c.build.apply(Log(), x.map(np.ones(x.size), 1.0)),
    np.sqrt: lambda c, x: c.build.apply(Sqrt(), x),
    np.abs: lambda c, x: c.build.apply(Abs(), x),
    np.square: lambda c, x: c.build.apply(Multiply(), x, x),
}


def _function(c: Conversion, step: Any, x: Affine) -> Affine:
    if step.func is None:
        return x
    if step.func not in _FUNCTIONS or step.kw_args:
        names = ", ".join(sorted(f"np.{function.__name__}" for function in _FUNCTIONS))
        raise ConversionError(
            f"FunctionTransformer is converted with one of {names}, got {step.func!r}"
        )
    return _FUNCTIONS[step.func](c, x)


def _boltzmann(c: Conversion, step: Any, x: Affine) -> Affine:
    matrix = np.asarray(step.components_, np.float64).T
    return c.build.apply(Sigmoid(), x.map(matrix, np.asarray(step.intercept_hidden_, np.float64)))


def _nystroem(c: Conversion, step: Any, x: Affine) -> Affine:
    gamma = 1 / x.size if step.gamma is None else float(step.gamma)
    offset = 1.0 if step.coef0 is None else float(step.coef0)
    degree = 3 if step.degree is None else step.degree
    found = kernel(c, x, step.kernel, step.components_, gamma, offset, degree)
    return found.map(np.asarray(step.normalization_, np.float64).T)


def select(c: Conversion, step: Any, x: Affine) -> Affine:
    """Convert whatever tells which features it keeps."""
    return x.take(np.flatnonzero(step.get_support()))


# Composition.


def _pipeline(c: Conversion, step: Any, x: Affine) -> Affine:
    for name, inner in step.steps:
        try:
            x = c.transform(inner, x)
        except ConversionError as error:
            raise ConversionError(f"step {name!r}, {error}") from None
    return x


def _union(c: Conversion, step: Any, x: Affine) -> Affine:
    weights, parts = step.transformer_weights or {}, []
    for name, inner in step.transformer_list:
        if inner != "drop":
            part = c.transform(inner, x)
            parts.append(part * weights[name] if name in weights else part)
    return joined(parts)


def _columns(c: Conversion, step: Any, x: Affine) -> Affine:
    weights, parts = step.transformer_weights or {}, {}
    for name, inner, _ in step.transformers_:
        places = step._transformer_to_input_indices[name]
        if inner == "drop" or not len(places):
            continue
        part = c.transform(inner, x.take(np.asarray(places, np.intp)))
        parts[name] = part * weights[name] if name in weights else part
    # The outputs are in the order of their slices.
    found = sorted(parts, key=lambda name: step.output_indices_[name].start)
    return joined([parts[name] for name in found])


# In the clear, at the rows' owner.


def _raw_columns(c: Conversion, step: Any, x: Affine) -> list[int]:
    """Return which columns of the rows x holds, unchanged; raise unless it may be told of them."""
    name = type(step).__name__
    if not c.columns.allowed:
        raise ConversionError(
            f"{name} runs in the clear at the owner of the rows, who then gets its categories and fill "
            "values; from_sklearn(..., public_preprocessing=True) allows it"
        )
    matrix = x.terms.get(0, np.zeros((1, x.size)))
    plain = set(x.terms) == {0} and not x.bias.any() and np.isin(matrix, (0.0, 1.0)).all()
    if not plain or (matrix.sum(axis=0) != 1).any():
        raise ConversionError(f"{name} must come before all that computes with its columns")
    return [int(k) for k in matrix.argmax(axis=0)]


def _one_hot_encoder(c: Conversion, step: Any, x: Affine) -> Affine:
    if getattr(step, "min_frequency", None) is not None or step.max_categories is not None:
        raise ConversionError("OneHotEncoder is converted without min_frequency and max_categories")
    rules = []
    for k, (place, categories) in enumerate(
        zip(_raw_columns(c, step, x), step.categories_, strict=True)
    ):
        dropped = None if step.drop_idx_ is None else step.drop_idx_[k]
        rules += [_rule(c, "is", place, item) for j, item in enumerate(categories) if j != dropped]
    return c.build.columns(c.columns.add(rules))


def _ordinal_encoder(c: Conversion, step: Any, x: Affine) -> Affine:
    rules = []
    for place, categories in zip(_raw_columns(c, step, x), step.categories_, strict=True):
        other = None
        if step.handle_unknown == "use_encoded_value":
            other = float(step.unknown_value)
        rules.append(_rule(c, "rank", place, {"known": list(categories), "other": other}))
    return c.build.columns(c.columns.add(rules))


def _rule(c: Conversion, kind: str, place: int, value: Any) -> tuple[str, int, Any]:
    """Return a rule for a column, which may be filled first."""
    before, column, fill = c.columns.rules[place]
    value = _item(value)
    if before == "filled":
        return f"filled {kind}", column, (fill, value)
    if before != "number":
        raise ConversionError("an encoder of what another encoder gave is not converted")
    return kind, column, value


def _item(value: Any) -> Any:
    """Return a value as Python's own."""
    if isinstance(value, dict):
        return {key: _item(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_item(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _imputer(c: Conversion, step: Any, x: Affine) -> Affine:
    places, rules = _raw_columns(c, step, x), []
    gaps = step.missing_values
    if not (gaps is None or (isinstance(gaps, float) and math.isnan(gaps))):
        raise ConversionError(f"SimpleImputer is converted for NaN, got missing_values={gaps!r}")
    for place, fill in zip(places, step.statistics_, strict=True):
        value = _item(fill)
        if isinstance(value, float) and math.isnan(value):
            if not step.keep_empty_features:
                continue
            value = 0.0
        rules.append(("filled", c.columns.rules[place][1], value))
    if step.add_indicator:
        rules += [
            ("missing", c.columns.rules[places[k]][1], None) for k in step.indicator_.features_
        ]
    return c.build.columns(c.columns.add(rules))


TRANSFORMERS = {
    "BernoulliRBM": _boltzmann,
    "Binarizer": _binarizer,
    "CCA": _partial_least_squares,
    "ColumnTransformer": _columns,
    "FactorAnalysis": _factor_analysis,
    "FastICA": _components,
    "FeatureAgglomeration": _agglomeration,
    "FeatureUnion": _union,
    "FunctionTransformer": _function,
    "GaussianRandomProjection": _components,
    "IncrementalPCA": _pca,
    "KBinsDiscretizer": _bins,
    "LinearDiscriminantAnalysis": _discriminant,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "NeighborhoodComponentsAnalysis": _components,
    "Normalizer": _normalizer,
    "Nystroem": _nystroem,
    "OneHotEncoder": _one_hot_encoder,
    "OrdinalEncoder": _ordinal_encoder,
    "PCA": _pca,
    "PLSCanonical": _partial_least_squares,
    "PLSRegression": _partial_least_squares,
    "Pipeline": _pipeline,
    "PolynomialFeatures": _polynomial,
    "PowerTransformer": _power,
    "QuantileTransformer": _quantiles,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": _imputer,
    "SparseRandomProjection": _components,
    "StandardScaler": _standard_scaler,
    "TruncatedSVD": _components,
}
