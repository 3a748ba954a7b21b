"""Limits of a network's values from typical rows, where interval bounds are hopeless.

Interval bounds grow with every layer, by the weights' sums of magnitudes: in a network of many layers they
reach what no format holds, however small the values are that occur. Limits are the largest values that
rows have led to, times a margin, and a proof on shares that no value has left them comes with every
evaluation: :mod:`mpc.protocols.limits`. What remains to be bounded by intervals is one layer at a time,
from the limit of its inputs.

There is one limit a layer, not one a channel or an element: a limit is public, so one number says least
of the model and the rows; and finer limits would narrow the next layer's window by a bit or two,
which hardly costs less.

Linear layers are those with weights, Scale, Shift, Add, Subtract, Mean and Concat. Their output is within
a public reach, the interval of that one layer, before it is checked. Unchecked it may pass on to the only
layer that takes it, if that is pooling to the maximum, a change of shape, or Add, Subtract or Concat, whose
own reach is then that of its inputs; never into a product. Where its limit is checked:
- At the ReLU that it comes to in this way. Above only: what is negative becomes 0.
- Otherwise at the output of the last layer on this way that computes: the layer itself, Add or Subtract;
  truncated to the format; above and below. A Concat is not checked as a whole, its parts are.
- Not at all if it comes to sigmoid or tanh, which are right for every value, or to the network's output,
  or to a ReLU behind which there is nothing but these: it is within its reach.
A value that several layers take, or one layer twice, is checked before. All other layers take checked
values, and the interval of each says that the format holds its output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core.checks import real
from nn.fixed_point.bounds import interval_of, whole_row
from nn.layers import (
    Add,
    Clip,
    Concat,
    Flatten,
    Layer,
    Maximum,
    MaxPool,
    Mean,
    Minimum,
    ReLU,
    Reshape,
    Scale,
    Shift,
    Sigmoid,
    Subtract,
    Take,
    Tanh,
    Transpose,
    Weighted,
)
from nn.layers.evaluation import ROWS_AT_ONCE
from nn.layers.graph import inputs_of, run_all
from ring import FixedPoint
from ring.errors import ArgumentError, DtypeError, RangeError
from ring.fixed_point import HEADROOM_BITS

__all__ = [
    "LEAST_VALUE", "Bounds", "calibrate", "checked_at", "fits_by_itself", "follows", "is_linear",
    "most_between", "observed", "roomiest",
]  # fmt: skip

Floats = NDArray[np.float64]

# They give elements of their input, in another shape or order; a subclass may do more.
_MOVES = (Flatten, Reshape, Take, Transpose)
# By their type, too: Constant is a Shift and follows another rule.
_SUMS = (Add, Subtract)
_LINEAR = (*_SUMS, Concat, Mean, Scale, Shift)
# They give one of their inputs, or a constant, rounded.
_CHOOSING = (Clip, Maximum, Minimum)
# The fewest fractional bits of a suggested format.
FEWEST_FRAC_BITS = 8
# Room in the reach of a layer for weights that a format rounds, and for rounding inside a layer.
_ROUNDING = 1.25
# Fraction of a value, or of 1, by which a layer's protocol may be off.
_OFF = 2.0**-10
_UNITS = 2
# The way out for a value without a bound.
LEAST_VALUE = (
    "give what is divided by, or taken the logarithm of, a least value in the network, as by nn.layers.Clip"
    " or ONNX's Clip or Max"
)
# A limit is at least 1: nothing is won by a smaller one, and a layer of zeros has one, too.
_LEAST = 1.0


@dataclass(frozen=True)
class Bounds:
    """Public bounds of a model's values, made by ``model.calibrate(X)``.

    All parties pass the same to ``share``. They tell of the model and of the rows X: for each layer about
    how large its values were, to a factor of 2, and about how large they could be for inputs within
    their limits, to a factor of 16.

    Attributes
    ----------
    limits : tuple of float or None
        One entry a layer of the model as it is shared: the magnitude that the layer's output must not
        exceed, checked on shares; None where nothing is checked.
    reaches : tuple of float or None
        For each linear layer the largest magnitude of its output, before a ReLU behind it, for all
        inputs within their limits. Of a sum or mean, that of the sum of magnitudes.
    largest : float
        What interval bounds of the whole network reach, rounded up to a power of two. A format that
        holds it needs no limits, and `share` does not use them.
    room : int
        By how much the range of the inputs may be widened, see ``share``.

    Raises
    ------
    DtypeError, ArgumentError
        If an entry is no positive finite number, or `largest` or `room` is out of its range.

    Examples
    --------
    >>> import nn
    >>> model = nn.MLP.from_parameters([[[9.0]], [0.5], [[2.0, -4.0]], [0.0, 1.0]])
    >>> model.input_range_ = (0.0, 1.0)
    >>> bounds = model.calibrate([[0.5], [1.0]], margin=2)
    >>> bounds.limits, bounds.reaches
    ((None, 32.0, None), (16.0, None, 256.0))
    """

    limits: tuple[float | None, ...]
    reaches: tuple[float | None, ...]
    largest: float
    room: int = 1

    def __post_init__(self) -> None:
        for name in ("limits", "reaches"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)):
                raise DtypeError(f"{name} must be a tuple, got {values!r}")
            checked = [
                None if value is None else real(f"{name}[{k}]", value, above=0, below=math.inf)
                for k, value in enumerate(values)
            ]
            object.__setattr__(self, name, tuple(checked))
        if isinstance(self.largest, bool) or not isinstance(self.largest, (int, float)):
            raise DtypeError(f"largest must be a number, got {self.largest!r}")
        if not self.largest >= 0:
            raise ArgumentError(f"largest must be at least 0, got {self.largest}")
        if type(self.room) is not int or self.room < 1:
            raise ArgumentError(f"room must be a whole number of at least 1, got {self.room!r}")

    def needed(self, form: FixedPoint) -> bool:
        """Return whether the format does not hold what interval bounds reach."""
        return not self.largest < form.limit

    def check(self, layers: Sequence[Layer], form: FixedPoint) -> None:
        """Raise unless the limits are for these layers and fit the format; every party can tell."""
        places = checked_at(layers)
        linear = [is_linear(layer) for layer in layers]
        if [x is not None for x in self.limits] != places or [
            x is not None for x in self.reaches
        ] != linear:
            raise ArgumentError(
                f"bounds must be those of this model's {len(layers)} layers, made by its calibrate, got"
                f" limits {self.limits} and reaches {self.reaches}"
            )
        problem = problem_of(self, form)
        if problem is not None:
            raise RangeError(problem)


def is_linear(layer: Layer) -> bool:
    """Return whether a layer's output has a reach, and may wait for its check."""
    return isinstance(layer, Weighted) or type(layer) in _LINEAR


def checked_at(layers: Sequence[Layer]) -> list[bool]:
    """Return for each layer whether its output has a limit that is checked."""
    takers: list[list[int]] = [[] for _ in range(len(layers) + 1)]
    for index, taken in enumerate(inputs_of(layers)):
        for value in taken:
            takers[value].append(index)
    # Of each layer whether nothing but layers that follow come after it.
    free = [True] * len(layers)
    # Of each layer where its output is checked if it comes unchecked: None for nowhere.
    at: list[int | None] = [None] * len(layers)
    places = [False] * len(layers)
    for index in reversed(range(len(layers))):
        after = takers[index + 1]
        free[index] = all(free[k] and follows(layers[k]) for k in after)
        at[index] = place = _place(layers, after, at, free) if after else None
        if place == _BEFORE and type(layers[index]) in _SUMS:
            at[index] = place = index
        if not is_linear(layers[index]) or place is None:
            continue
        if place != _BEFORE:
            places[place] = True
        elif type(layers[index]) is not Concat:
            places[index] = True
    return places


# No layer's index: a value is to be checked before it comes here.
_BEFORE = -1


def _place(
    layers: Sequence[Layer], takers: Sequence[int], at: Sequence[int | None], free: Sequence[bool]
) -> int | None:
    """Return where a value is checked that `takers` take, from where their outputs are."""
    (taker, *others) = takers
    kind = type(layers[taker])
    if others:
        return _BEFORE
    if kind in (*_MOVES, *_SUMS, MaxPool, Concat):
        return at[taker]
    if kind is ReLU:
        # ReLU makes no value larger. What follows may need a limit, unless nothing but these does.
        return None if free[taker] else taker
    return None if kind in (Sigmoid, Tanh) else _BEFORE


def _walk(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    limits: Sequence[float | None] | None,
    unit: float,
) -> list[float]:
    """Return the largest magnitude of each layer's output, each from the limits of its input.

    Without limits, from the layers before alone. `unit` is that of the format in which parameters are
    rounded; 0 leaves them as they are. Of a sum or mean it is the sum of magnitudes, which no sum of
    some of its inputs exceeds.
    """
    # A sigmoid or tanh is off by up to 4 units, a leaky ReLU by 3 and as many as its input has ones.
    found, off = [], max(_OFF, 16 * unit)
    frac_bits = -math.frexp(unit)[1] + 1

    def step(index: int, layer: Layer, ends: Any) -> tuple[Any, Any]:
        if unit and layer.parameters:
            rounded = [np.rint(np.asarray(p, np.float64) / unit) * unit for p in layer.parameters]
            layer = layer.with_parameters(rounded)
        low, high = interval_of(index, layer, ends)
        slack = 0.0
        if not isinstance(layer, Weighted) and type(layer) not in _MOVES:
            # Each input of a linear layer may be truncated before it.
            inputs = len(ends) if layer.joins else 1
            exact = type(layer) in (ReLU, MaxPool, *_CHOOSING, *_LINEAR) and type(layer) is not Mean
            slack = _UNITS * inputs * unit
            off_low = slack if exact else slack + off * (1 + np.abs(low))
            off_high = slack if exact else slack + off * (1 + np.abs(high))
            if unit and not exact and not layer.joins:
                # A layer may say that it is off by more; NaN if it does not know.
                own = layer.fixed_point_error(_most(*ends), np.asarray(unit), frac_bits)
                off_low, off_high = np.fmax(off_low, own), np.fmax(off_high, own)
            low, high = low - off_low, high + off_high
            if type(layer) is Mean:  # 1 / n is rounded
                low, high = low - inputs * unit * np.abs(low), high + inputs * unit * np.abs(high)
        most = _most(low, high)
        if type(layer) in (*_SUMS, Mean):
            most = np.maximum(most.max(initial=0.0), slack + sum(_most(*pair) for pair in ends))
        found.append(float(np.max(most, initial=0.0)))
        limit = None if limits is None else limits[index]
        if limit is not None:
            low, high = np.clip(low, -limit, limit), np.clip(high, -limit, limit)
        return low, high

    run_all(layers, whole_row(layers, low, high), step)
    return found


def _most(low: Any, high: Any) -> Floats:
    """Return the largest magnitude of each number between two ends."""
    return np.asarray(np.maximum(np.abs(low), np.abs(high)))


def _power(value: float, bits: int) -> float:
    """Return the least power of 2^bits, from 1 on, that is at least `value`."""
    if not math.isfinite(value):
        return math.inf
    power = max(0, math.ceil(math.log2(max(value, 1.0)) / bits)) * bits
    return math.inf if power > 1000 else 2.0**power


def observed(layers: Sequence[Layer], X: NDArray[Any]) -> tuple[list[float], NDArray[Any]]:
    """Return the largest magnitude of each layer's output for the rows X, and the last outputs.

    A magnitude that is not finite is given as infinity.
    """
    most, pieces = [0.0] * len(layers), []
    for start in range(0, max(1, len(X)), ROWS_AT_ONCE):
        found = run_all(layers, X[start : start + ROWS_AT_ONCE], lambda _, layer, x: layer(x))
        for k, x in enumerate(found):
            value = float(np.abs(x).max(initial=0.0))
            most[k] = max(most[k], value if value < math.inf else math.inf)
        pieces.append(found[-1])
    return most, pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def calibrate(
    layers: Sequence[Layer],
    seen: Sequence[float],
    margin: float,
    low: Floats,
    high: Floats,
    room: int,
) -> Bounds:
    """Return the bounds of layers as they are to be shared.

    Parameters
    ----------
    layers : sequence of Layer
        With the scale of the inputs folded into the first one.
    seen : sequence of float
        The largest magnitude of each layer's output, from :func:`observed`.
    margin : float
        Above 1.
    low, high : float64 arrays of shape (features,)
        Range of all rows that a model on shares accepts, widened by `room`, in that scale.
    room : int

    Raises
    ------
    RangeError
        If a value is not finite, or no number of a double's range bounds it.
    """
    for number, (layer, value) in enumerate(zip(layers, seen, strict=True), start=1):
        if not value < math.inf:
            raise RangeError(f"layer {number}, {layer!r}: its output for X must be finite")
    limits = tuple(
        max(_LEAST, _power(margin * value, 1)) if checked else None
        for value, checked in zip(seen, checked_at(layers), strict=True)
    )
    reached = _walk(layers, low, high, limits, 0.0)
    reaches = tuple(
        _power(_ROUNDING * value, 4) if is_linear(layer) else None
        for layer, value in zip(layers, reached, strict=True)
    )
    if not all(math.isfinite(x) for x in (*limits, *reaches) if x is not None):
        for k, (layer, value) in enumerate(zip(layers, reached, strict=True)):
            if not math.isfinite(max(_power(_ROUNDING * value, 4), limits[k] or 0.0)):
                raise RangeError(
                    f"layer {k + 1}, {layer!r}: no bounds can be given to its output, which can reach"
                    f" {value:g} for inputs within their limits; {LEAST_VALUE}"
                )
    parameters = [float(np.abs(p).max(initial=0)) for layer in layers for p in layer.parameters]
    # Not by max, which may pass over what is no number.
    most = float(np.max([*_walk(layers, low, high, None, 0.0), *parameters]))
    return Bounds(limits, reaches, _power(most * (1 + _OFF), 1), room)


def problem_of(bounds: Bounds, form: FixedPoint) -> str | None:
    """Return why a format does not hold the bounds; None if it does."""
    room = 2.0 ** (HEADROOM_BITS - 2 * form.frac_bits)
    limit = max((x for x in bounds.limits if x is not None), default=0.0)
    reach = max((x for x in bounds.reaches if x is not None), default=0.0)
    if limit <= form.limit and reach < room:
        return None
    bits = f"frac_bits={form.frac_bits}, int_bits={form.int_bits}"
    return (
        f"bounds: {bits} hold values up to {form.limit:g} and products below {room:g}, and these bounds"
        f" are limits up to {limit:g} and products up to {reach:g}"
    )


def fits_by_itself(
    bounds: Bounds, layers: Sequence[Layer], low: Floats, high: Floats, form: FixedPoint
) -> str | None:
    """Return why the owner's layers do not keep what the bounds say; None if they do.

    This is what makes the proof on shares one: the output of each layer, for all inputs within their
    limits, is within its reach, which is below 2^62 as an encoded product.

    Parameters
    ----------
    bounds : Bounds
    layers : sequence of Layer
        As they are to be shared.
    low, high : float64 arrays of shape (features,)
        Range of all rows that a model on shares accepts.
    form : FixedPoint
    """
    reached = _walk(layers, low, high, bounds.limits, 2.0**-form.frac_bits)
    for k, (layer, value) in enumerate(zip(layers, reached, strict=True)):
        reach = bounds.reaches[k]
        what = f"layer {k + 1}, {layer!r}"
        if reach is not None and not value * (1 + 2.0**-20) <= reach:
            return (
                f"bounds: {what} can reach {value:g} for inputs within their limits, more than the"
                f" {reach:g} that they say; make them by calibrate for this model, range and format"
            )
        held = follows(layer) or value < form.limit * (1 - _OFF)
        if reach is None and bounds.limits[k] is None and not held:
            return f"bounds: {what} can reach {value:g}, which must stay below {form.limit:g}"
    return None


def most_between(
    bounds: Bounds, layers: Sequence[Layer], low: Floats, high: Floats, form: FixedPoint
) -> float:
    """Return the largest magnitude that a format has to hold of layers without limit and reach.

    Arguments as for :func:`fits_by_itself`.
    """
    reached = _walk(layers, low, high, bounds.limits, 2.0**-form.frac_bits)
    inner = [
        value
        for layer, value, limit, reach in zip(
            layers, reached, bounds.limits, bounds.reaches, strict=True
        )
        if limit is None and reach is None and not follows(layer)
    ]
    return max(inner, default=0.0)


def follows(layer: Layer) -> bool:
    """Return whether a layer lets a value pass that is within a reach, or gives one within 1."""
    return type(layer) in (*_MOVES, ReLU, MaxPool, Sigmoid, Tanh)


def roomiest(bounds: Bounds, form: FixedPoint, value: float) -> FixedPoint | None:
    """Return the format nearest to `form` that holds the bounds and `value`, None if there is none."""
    limit = max((x for x in bounds.limits if x is not None), default=1.0)
    reach = max((x for x in bounds.reaches if x is not None), default=1.0)
    if not math.isfinite(value):
        return None
    held = math.floor(math.log2(max(value, 1.0))) + 1
    int_bits = max(form.int_bits, held, math.ceil(math.log2(limit)))
    room = (HEADROOM_BITS - 1 - max(int_bits, math.ceil(math.log2(reach)))) // 2
    frac_bits = min(form.frac_bits, room)
    return FixedPoint(frac_bits, int_bits) if frac_bits >= FEWEST_FRAC_BITS else None
