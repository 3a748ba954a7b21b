"""What rows say of a converted model: which lie on thresholds of trees, and what is exact for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.problems import ConversionError
from nn.fixed_point.audit import fit_inputs
from nn.fixed_point.precision import (
    FAINT,
    VALUES,
    compares_computed,
    output_scale,
    rows_between,
    simulate,
)
from nn.layers import Layer, Trees
from nn.layers.evaluation import evaluate
from nn.layers.graph import inputs_of, rewired, run
from nn.layers.normalisation import folded
from nn.models.predictors import Classifier, Regressor
from ring import FixedPoint

__all__ = ["check_digits", "knowing"]

Floats = NDArray[np.float64]

# The unit of shared features as a part of their range is about 2^-28, coarser in coarse formats.
_NEAR = 2.0**-22
# Computed features are off by units of the format, large ones by more: by rounded weights times inputs.
_NEAR_COMPUTED = 2.0**-12
# Rows that are tried, by which part of themselves they are moved, and in the units of which format.
_LIKE, _APART, _BITS = 512, 0.01, 16
# With so many fractional bits only the errors of functions are left.
_ANY_BITS = 48
# What values may be off by as a part of their deviation, and how many rows may.
_WITHIN, _FEW, _TINY = 1e-3, 0.005, np.finfo(np.float64).tiny


def knowing(layers: Sequence[Layer], X: Floats) -> Sequence[Layer]:
    """Return layers whose trees know of the rows `X`.

    A threshold is often half way between two values of the training data, which is where another row may
    lie, up to the last digits of a double: fewer than a format has. Or it is a value of the training data.
    Of these rows the trees are told, also of what other steps make of them.
    """
    told = list(layers)

    def step(index: int, layer: Layer, x: Any) -> Any:
        if isinstance(layer, Trees):
            if inputs[index] == (0,):
                told[index] = layer.leaning(x, (x.max(axis=0) - x.min(axis=0)) * _NEAR)
            else:
                near = _NEAR_COMPUTED * (1 + np.abs(x).max(axis=0) / 8)
                told[index] = layer.leaning(x, near, computed=True)
        return told[index](x)

    inputs = inputs_of(layers)
    if any(isinstance(layer, Trees) for layer in layers):
        run(layers, X, step)
    return rewired(layers, told)


def check_digits(made: Classifier | Regressor, X: Floats, names: Any = None) -> None:
    """Raise ConversionError if rows like those of `X` get other answers in every format.

    Values may be off by 1e-3 of their deviation, and one of 200 labels may be another. Values that rows
    like those of `X` make less exact than rows of the whole range make `output_scale_` smaller.
    """
    fitted = fit_inputs(
        folded(made.layers), *made.range_for(None, None), FixedPoint(_BITS, 15),
        features=made.n_features_in_, room=made.room,
    )  # fmt: skip
    layers, like = fitted.layers, _like(X)
    rows = like if fitted.inputs is None else fitted.inputs.apply(like)
    exact = evaluate(layers, rows)
    deviation = output_scale(exact, False)
    raw = {
        k: layer
        for k, (layer, taken) in enumerate(zip(layers, inputs_of(layers), strict=True))
        if isinstance(layer, Trees) and taken == (0,)
    }
    if raw:
        _check_trees(layers, raw, rows, exact, deviation, made, names)
    if isinstance(made, Classifier):
        return
    floor = np.abs(simulate(layers, rows, _ANY_BITS) - exact).max(axis=0)
    enough = np.maximum(VALUES * deviation, FAINT * np.abs(exact).max(axis=0))
    worst = int(np.argmax(floor / np.maximum(enough, _TINY)))
    if floor[worst] > enough[worst] and not compares_computed(layers):
        raise ConversionError(
            f"exponentials, sigmoids and their kin are off by some 1e-5 on shares, which this model's "
            f"weights make {floor[worst]:.2g} of output {worst}, with a standard deviation of "
            f"{deviation[worst]:.2g}: smaller weights, as by a larger alpha or a smaller C, or another "
            "kernel or activation are converted"
        )
    if made.output_scale_ is not None and not any(isinstance(layer, Trees) for layer in layers):
        low, high = (ends / fitted.room for ends in fitted.scaled)
        some = rows_between(low, high, made.n_features_in_)
        here, there = (
            np.abs(simulate(layers, z, _BITS) - evaluate(layers, z)).max(axis=0)
            for z in (rows, some)
        )
        made.output_scale_ = made.output_scale_ * np.minimum(
            1.0, 2 * there / np.maximum(here, _TINY)
        )


def _like(X: Floats) -> Floats:
    """Return rows like those of `X`: each feature a little more or less, or between two rows."""
    random = np.random.default_rng(0)  # no mask
    one, other = random.integers(0, len(X), (2, _LIKE))
    part = random.uniform(size=(_LIKE, 1))
    near = X[one] * random.uniform(1 - _APART, 1 + _APART, (_LIKE, X.shape[1]))
    between = part * X[one] + (1 - part) * X[other]
    return np.clip(np.concatenate([near, between]), X.min(axis=0), X.max(axis=0))


def _check_trees(
    layers: Sequence[Layer],
    raw: dict[int, Trees],
    rows: Floats,
    exact: Floats,
    deviation: Floats,
    made: Classifier | Regressor,
    names: Any,
) -> None:
    """Raise ConversionError if rows come to other leaves because features are shared in units."""
    rounded, told = np.rint(rows * 2.0**_BITS) / 2.0**_BITS, list(layers)
    for k, layer in raw.items():
        values = layer.parameters
        limits = np.floor(np.asarray(layer.thresholds) * 2.0**_BITS) / 2.0**_BITS
        nothing = np.zeros_like(layer.lean)
        told[k] = layer.with_parameters([limits, *values[1:3], nothing, *values[4:]])
    found = evaluate(rewired(layers, told), rounded)
    if isinstance(made, Classifier):
        off = found.argmax(axis=1) != exact.argmax(axis=1)
    else:
        off = (np.abs(found - exact) > _WITHIN * deviation).any(axis=1)
    if off.mean() <= _FEW:
        return
    counts = np.zeros(made.n_features_in_)
    for layer in raw.values():
        places, limits = layer.picked(), np.asarray(layer.thresholds)
        low = np.floor(limits * 2.0**_BITS) / 2.0**_BITS
        others = (rows[:, places] <= limits) != (rounded[:, places] <= low)
        np.add.at(counts, places, others.sum(axis=0))
    worst = int(counts.argmax())
    named = repr(str(names[worst])) if names is not None else str(worst)
    raise ConversionError(
        f"trees are converted if rows tell from thresholds by 2^-28 of a feature's range, got a feature, "
        f"{named}, of far smaller differences beside large values: {off.mean():.1%} of rows like those of X"
        " would get other answers. Fit the trees to its logarithm, say, and share rows with that"
    )
