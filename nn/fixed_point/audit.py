"""Range audit: can a model leave the fixed-point range, and how exact is it on shares?

Bounds of values are those of interval arithmetic: they hold for every input in the range, and most
inputs stay far inside. Bounds of errors add up, to first order, the rounding of inputs, weights and
biases when they are encoded, less than one unit for each truncation, and the bound of an activation's
protocol; a layer multiplies the errors of its input by the absolute values of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.fixed_point.bounds import (
    check_range,
    check_values,
    interval_bounds,
    unbounded,
    whole_row,
)
from nn.fixed_point.calibration import (
    FEWEST_FRAC_BITS,
    LEAST_VALUE,
    Bounds,
    fits_by_itself,
    most_between,
    roomiest,
)
from nn.fixed_point.inputs import Floats, InputScale
from nn.fixed_point.precision import precision_problem
from nn.layers import Layer
from nn.layers.graph import names, run_all
from ring import FixedPoint
from ring.errors import RangeError
from ring.fixed_point import HEADROOM_BITS

__all__ = [
    "Audit",
    "Fitted",
    "LayerAudit",
    "audit_layers",
    "check_fits",
    "error_bounds",
    "find_format",
    "fit_inputs",
    "suggest_format",
]

# Fraction of the format's limit that bounds in real arithmetic may reach; rounding adds a little.
MARGIN = 1 - 2**-10
# With more, no integer bit would be left. A comparison costs more for every four further bits.
_MOST_FRAC_BITS = 30
# How many formats are tried for a model with limits.
_FORMATS_TRIED = 4


@dataclass(frozen=True)
class LayerAudit:
    """The audit of the input, or of one layer.

    Attributes
    ----------
    name : str
        "input", or number and repr of the layer.
    weight : float
        Largest magnitude of a parameter; NaN without parameters.
    bound, observed : float
        Largest magnitude of an output: a bound for all inputs in the range, and the largest for
        the given rows (NaN without rows).
    bits_left : float
        How many times `bound` or `weight` could double before the format overflows.
    error_bound, error_observed : float
        Largest error of an output on shares: a bound, and the largest for the given rows; NaN if
        not known.
    """

    name: str
    weight: float
    bound: float
    observed: float
    bits_left: float
    error_bound: float
    error_observed: float


@dataclass(frozen=True)
class Audit:
    """The result of ``model.audit``. Printing it gives a table.

    Attributes
    ----------
    format : FixedPoint
    layers : tuple of LayerAudit
    problem : str or None
        Why the model does not fit the format, or the format is too coarse for the model: the
        message that ``share`` would raise. None if neither.
    suggestion : FixedPoint or None
        A format that holds the model and is fine enough; `format` itself if it is, None if no
        such format was found.
    finest : FixedPoint or None
        The format with the most fractional bits that holds the model.
    finest_error_bound : float
        Largest error of an output in the format `finest`, at most; NaN if not known.
    rows : int
        Number of rows that the observed values are from.
    """

    format: FixedPoint
    layers: tuple[LayerAudit, ...]
    problem: str | None
    suggestion: FixedPoint | None
    finest: FixedPoint | None
    finest_error_bound: float
    rows: int

    @property
    def fits(self) -> bool:
        """Whether no layer can leave the range, and the format is fine enough."""
        return self.problem is None

    @property
    def error_bound(self) -> float:
        """Bound on the error of an output on shares."""
        return self.layers[-1].error_bound

    def __str__(self) -> str:
        head = (
            "layer", "largest weight", "can reach", "does reach", "bits left", "error at most",
            "error seen",
        )  # fmt: skip
        rows: list[tuple[str, ...]] = [head]
        for layer in self.layers:
            numbers = (
                layer.weight, layer.bound, layer.observed, layer.bits_left,
                layer.error_bound, layer.error_observed,
            )  # fmt: skip
            rows.append(
                (
                    layer.name,
                    *(
                        "-" if math.isnan(v) else f"{v:.1f}" if k == 3 else f"{v:.3g}"
                        for k, v in enumerate(numbers)
                    ),
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            )
            for row in rows
        ]
        form = f"frac_bits={self.format.frac_bits}, int_bits={self.format.int_bits}"
        if self.fits:
            lines.append(f"{form}: fits")
            if self.finest is not None and self.finest.frac_bits > self.format.frac_bits:
                finest = f"frac_bits={self.finest.frac_bits}, int_bits={self.finest.int_bits}"
                known = not math.isnan(self.finest_error_bound)
                error = f": error at most {self.finest_error_bound:.3g}" if known else ""
                lines.append(f"{finest} fits too{error}")
        else:
            lines.append(f"{form}: does not fit; {self.problem}")
        return "\n".join(lines)


def _largest(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    """Return the largest magnitude in each interval [low, high]."""
    magnitude: NDArray[Any] = np.maximum(np.abs(low), np.abs(high))
    return magnitude


def _top(values: Any) -> float:
    return float(np.max(values)) if np.size(values) else 0.0


def error_bounds(
    layers: Sequence[Layer], low: Floats, high: Floats, frac_bits: int
) -> list[NDArray[Any]]:
    """Return bounds on the errors of the input and of each layer's output, by elements of a row."""
    unit = 2.0**-frac_bits
    magnitudes = [_largest(*ends) for ends in interval_bounds(layers, low, high)]
    first = _largest(*whole_row(layers, low, high))

    # Of each value its magnitude, its error, and whether it carries twice the fractional bits.
    def step(index: int, layer: Layer, given: Any) -> tuple[NDArray[Any], NDArray[Any], bool]:
        if layer.joins:
            magnitude: Any = tuple(part[0] for part in given)
            error: Any = tuple(part[1] for part in given)
            doubled = any(part[2] for part in given)
        else:
            magnitude, error, doubled = given
            if doubled and layer.parameters:
                error = error + unit
        found = layer.fixed_point_error(magnitude, error, frac_bits)
        doubled = (
            bool(layer.parameters)
            or layer.doubles
            or (doubled and (layer.only_moves or layer.keeps_bits))
        )
        return magnitudes[index], found, doubled

    start = first, np.full(first.shape, unit / 2), False
    found = [start, *run_all(layers, start, step)]
    errors = [error for _, error, _ in found]
    if found[-1][2]:  # revealing truncates
        errors[-1] = errors[-1] + unit
    return errors


def suggest_format(
    layers: Sequence[Layer], low: Floats, high: Floats, preferred: FixedPoint
) -> FixedPoint | None:
    """Return the format nearest to `preferred` that holds the model, None if there is none."""
    values = [_top(_largest(low, high))]
    values += [_top(np.abs(p)) for layer in layers for p in layer.parameters]
    values += [_top(_largest(*ends)) for ends in interval_bounds(layers, low, high)]
    largest = max(values)
    if not math.isfinite(largest):
        return None
    int_bits = max(preferred.int_bits, math.floor(math.log2(max(largest, 1) / MARGIN)) + 1)
    if int_bits > HEADROOM_BITS:
        return None
    frac_bits = min(preferred.frac_bits, (61 - int_bits) // 2)
    return FixedPoint(frac_bits, int_bits) if frac_bits >= FEWEST_FRAC_BITS else None


def check_fits(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    form: FixedPoint,
    inputs: InputScale | None = None,
    bounds: Bounds | None = None,
) -> None:
    """Raise RangeError, with a suggestion, if a layer can leave the range.

    Parameters
    ----------
    layers : sequence of Layer
        As they are to be shared; with `inputs`, its scale is folded into the first one.
    low, high : float64 array of shape (features,)
        Range of the rows as they are shared.
    form : FixedPoint
    inputs : InputScale, optional
        The scale of the rows.
    bounds : Bounds, optional
        Limits that are checked on shares, in place of interval bounds.
    """
    problem = _range_problem(layers, low, high, form, inputs, bounds)
    if problem is not None:
        better = _holds(layers, low, high, form, inputs, bounds)
        ends = accepted_range(low, high, inputs, form)
        endless = better is None and unbounded(layers, *ends)
        raise RangeError(problem + _advice(better, bounds, endless=endless))


def _holds(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    form: FixedPoint,
    inputs: InputScale | None,
    bounds: Bounds | None,
) -> FixedPoint | None:
    """Return the format nearest to `form` that holds the model, None if there is none."""
    if bounds is not None:
        values = [_top(_largest(*accepted_range(low, high, inputs, form)))]
        values += [_top(np.abs(p)) for layer in layers for p in layer.parameters]
        for _ in range(_FORMATS_TRIED):
            near = roomiest(bounds, form, max(values) / MARGIN)
            if near is None or _range_problem(layers, low, high, near, inputs, bounds) is None:
                return near
            # What layers without limits reach is a little larger in coarser formats.
            values.append(most_between(bounds, layers, *_any_rows(low, high, near), near))
        return None
    return suggest_format(layers, *accepted_range(low, high, inputs, form), form)


def accepted_range(
    low: Floats, high: Floats, inputs: InputScale | None, form: FixedPoint
) -> tuple[Floats, Floats]:
    """Return the range of all rows that a model on shares accepts, which may exceed [low, high].

    A model on shares sees no values of rows, only their public bound: one magnitude for all
    features, rounded up to the format's unit. Scaled rows (with `inputs`) can only come from
    ``share_rows``, which has checked every feature against [low, high].
    """
    if inputs is not None:
        return low, high
    unit = 2.0**-form.frac_bits
    most = max(np.ceil(_top(_largest(low, high)) / unit), 1) * unit
    return np.full(low.shape, -most), np.full(low.shape, most)


def _any_rows(low: Floats, high: Floats, form: FixedPoint) -> tuple[Floats, Floats]:
    """Return the range of rows of a client: one magnitude for all features, and its rounding."""
    most = accepted_range(low, high, None, form)[1] + 2.0**-form.frac_bits
    return -most, most


def _range_problem(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    form: FixedPoint,
    inputs: InputScale | None,
    bounds: Bounds | None = None,
) -> str | None:
    what = None if inputs is None else "inputs in the range given for each feature"
    least, most = accepted_range(low, high, inputs, form)
    try:
        if bounds is not None:
            check_values(layers, least, most, form.limit * MARGIN)
            bounds.check(layers, form)
            return fits_by_itself(bounds, layers, *_any_rows(low, high, form), form)
        check_range(layers, low, high, form.limit * MARGIN, inputs=what)
        if inputs is None:
            what = f"inputs of magnitude up to {_top(most):g}, the public bound of shared rows"
            check_range(layers, least, most, form.limit * MARGIN, inputs=what)
    except RangeError as error:
        return str(error)
    return None


def holds_intervals(fitted: Fitted, form: FixedPoint) -> bool:
    """Return whether a format holds all that interval bounds say a model's values can reach."""
    return _range_problem(fitted.layers, *fitted.scaled, form, fitted.inputs) is None


def _advice(
    better: FixedPoint | None,
    bounds: Bounds | None = None,
    one_range: bool = False,
    endless: bool = False,
) -> str:
    if endless:
        return f"; no format and no limits hold it: {LEAST_VALUE}"
    advice = (
        f"mpc.Session(frac_bits={better.frac_bits}, int_bits={better.int_bits}) holds it"
        if better is not None
        else f"no format holds it with {FEWEST_FRAC_BITS} fractional bits or more, or as many as it needs"
    )
    if one_range:
        advice += "; low and high for each feature, in place of one range, may help too"
    if bounds is None:
        advice += (
            "; or take limits from typical rows, by share(..., bounds=model.calibrate(X)), and have them"
            " checked on shares in every evaluation"
        )
    return f"; {advice}"


def find_format(
    fitted: Fitted,
    form: FixedPoint,
    *,
    bounds: Bounds | None = None,
    features: int,
    ranked: bool,
    scale: Floats | None,
    size: Floats | None,
) -> tuple[str | None, FixedPoint | None]:
    """Return why a format does not suit a model (None if it does), and a format that does, if any.

    Parameters
    ----------
    fitted : Fitted
    form : FixedPoint
    bounds : Bounds, optional
        Limits that are checked on shares, in place of interval bounds.
    features, ranked, scale, size
        As for :func:`nn.fixed_point.precision.precision_problem`.
    """
    layers = fitted.layers
    # The range of typical rows, without the room around it.
    low, high = (ends / fitted.room for ends in fitted.scaled)

    def precision(tried: FixedPoint) -> tuple[str, FixedPoint | None] | None:
        return precision_problem(
            layers, low, high, tried,
            lambda near: _holds(layers, low, high, near, fitted.inputs, bounds),
            features=features, ranked=ranked, scale=scale, size=size,
        )  # fmt: skip

    problem = _range_problem(layers, *fitted.scaled, form, fitted.inputs, bounds)
    if problem is None:
        return precision(form) or (None, form)
    better = _holds(layers, *fitted.scaled, form, fitted.inputs, bounds)
    if better is not None:
        _, better = precision(better) or (None, better)
    ends = accepted_range(*fitted.scaled, fitted.inputs, form)
    endless = better is None and unbounded(layers, *ends)
    return problem + _advice(better, bounds, not fitted.low.ndim, endless), better


@dataclass(frozen=True)
class Fitted:
    """A model's layers and range as they are to be shared.

    Attributes
    ----------
    layers : sequence of Layer
        With the scale of the inputs folded into the first one.
    low, high : float64 array of shape () or (features,)
        Range of the rows, in the units of the features.
    scaled : (float64 array, float64 array)
        The same range, in the scale in which rows are shared: each of shape (features,).
    inputs : InputScale or None
        That scale.
    room : int
        The range's width, as a multiple of the width of the range that was asked for.
    """

    layers: Sequence[Layer]
    low: Floats
    high: Floats
    scaled: tuple[Floats, Floats]
    inputs: InputScale | None
    room: int


def fit_inputs(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    form: FixedPoint,
    *,
    features: int,
    room: int,
) -> Fitted:
    """Choose the scale of the inputs, and widen their range: up to `room` times, while layers fit."""
    fitted = widened(layers, low, high, features, room)
    while fitted.room > 1:
        try:
            check_range(fitted.layers, *fitted.scaled, form.limit * MARGIN)
        except RangeError:
            fitted = widened(layers, low, high, features, fitted.room // 2)
        else:
            break
    return fitted


def widened(layers: Sequence[Layer], low: Floats, high: Floats, features: int, room: int) -> Fitted:
    """Choose the scale of the inputs, and widen their range `room` times if there is one."""
    inputs = InputScale.of(low, high, layers)
    if inputs is None:
        row = np.broadcast_to(low, features), np.broadcast_to(high, features)
        return Fitted(layers, low, high, row, None, 1)
    room = InputScale.most_room(layers, room)
    least, most = room * inputs.apply(low), room * inputs.apply(high)
    if room > 1:
        low, high = inputs.undo(least), inputs.undo(most)
    return Fitted(inputs.fold(layers, room), low, high, (least, most), inputs, room)


def audit_layers(
    fitted: Fitted,
    form: FixedPoint,
    problem: str | None,
    suggestion: FixedPoint | None,
    observed: Sequence[float] | None = None,
    errors: Sequence[float] | None = None,
    rows: int = 0,
) -> Audit:
    """Return the audit of a model.

    Parameters
    ----------
    fitted : Fitted
    form : FixedPoint
    problem, suggestion
        From :func:`find_format`.
    observed, errors : sequence of float, optional
        Largest magnitudes and errors of the input and of each layer's output, for given rows.
    rows : int, default=0
        Number of these rows.
    """
    layers, (low, high) = fitted.layers, fitted.scaled
    magnitudes = [_top(_largest(low, high))]
    magnitudes += [_top(_largest(*ends)) for ends in interval_bounds(layers, low, high)]
    bounds = [_top(error) for error in error_bounds(layers, low, high, form.frac_bits)]
    titles = ["input", *names(layers)]
    weights = [math.nan]
    weights += [
        max((_top(np.abs(p)) for p in layer.parameters), default=math.nan) for layer in layers
    ]
    nothing = [math.nan] * len(titles)
    found = []
    for name, weight, bound, seen, error_bound, error in zip(
        titles, weights, magnitudes, observed or nothing, bounds, errors or nothing, strict=True
    ):
        largest = max(bound, 0.0 if math.isnan(weight) else weight)
        left = math.log2(form.limit) - math.log2(largest) if largest else float(form.int_bits)
        found.append(LayerAudit(name, weight, bound, seen, left, error_bound, error))
    ends = accepted_range(low, high, fitted.inputs, form)
    finest = suggest_format(layers, *ends, FixedPoint(_MOST_FRAC_BITS, 1))
    finest_bound = math.nan
    if finest is not None:
        finest_bound = _top(error_bounds(layers, low, high, finest.frac_bits)[-1])
    return Audit(form, tuple(found), problem, suggestion, finest, finest_bound, rows)
