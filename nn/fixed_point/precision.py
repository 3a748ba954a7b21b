"""Whether a format is fine enough for a model: fixed point is imitated in floating point.

A range says nothing on small values: weights of 1e-6, or targets of 1e-6, fit any format and are lost
in most. So rows from the range are evaluated with everything rounded to the format's unit, and the
outputs' errors are held against what the outputs are for: values against their spread, scores against
the lead of the winning class. Bounds of the error would not do: they are far above what occurs.
What is smooth on shares is a little off in every format; a model that hardly varies at all, such as
one that has hardly been trained, is not refused for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.layers import Layer
from nn.layers.evaluation import evaluate
from ring import FixedPoint
from ring.fixed_point import HEADROOM_BITS

__all__ = ["output_scale", "precision_problem", "rows_between"]

Floats = NDArray[np.float64]
# The largest error that passes, as a part of the scale: for 1e-3 of the values' standard deviation,
# and for fewer than 0.5 % of the labels, on rows that are more and others than those here.
_VALUES, _SCORES = 2.0**-11, 2.0**-5
# An output that varies by less, as a part of its size, is a constant but for rounding.
_CONSTANT = 2.0**-30
# What passes, as a part of an output's size, where no format does better.
_FAINT = 2.0**-12
_ROWS = 64


def output_scale(outputs: NDArray[Any], ranked: bool) -> Floats:
    """Return what errors of outputs are held against; 0 where nothing can be lost.

    Parameters
    ----------
    outputs : array of shape (rows, outputs)
        Of typical rows, at least one.
    ranked : bool
        Whether the outputs are scores, of which the greatest alone counts.

    Returns
    -------
    array of shape (outputs,)
        Each output's standard deviation, or its size if it does not vary; for scores, how far the
        greatest is ahead of the next, in the median.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.fixed_point.precision import output_scale
    >>> outputs = np.array([[0.0, 5.0, 3.0], [2.0, 5.0, 4.0]])
    >>> output_scale(outputs, ranked=False).tolist(), output_scale(outputs, ranked=True).tolist()
    ([1.0, 5.0, 0.5], [1.5, 1.5, 1.5])
    """
    values = np.asarray(outputs, np.float64)
    if ranked:
        greatest = np.sort(values, axis=1)[:, -2:]
        return np.full(values.shape[1], np.median(greatest[:, 1] - greatest[:, 0]))
    level, spread = np.abs(values).max(axis=0), values.std(axis=0)
    return np.where(spread > _CONSTANT * level, spread, level)


def rows_between(low: Floats, high: Floats, features: int) -> Floats:
    """Return rows of a range to try a model on, always the same."""
    some = np.random.default_rng(0).uniform(size=(_ROWS, features))  # it makes no mask
    rows: Floats = low + some * (high - low)
    return rows


def _imitated(layers: Sequence[Layer], rows: Floats, frac_bits: int) -> Any:
    """Return the outputs with inputs, parameters and what each layer gives rounded to a unit."""
    unit = 2.0**-frac_bits
    x: Any = np.rint(rows / unit) * unit
    for layer in layers:
        parameters = [np.rint(np.asarray(p, np.float64) / unit) * unit for p in layer.parameters]
        x = layer.with_parameters(parameters).as_on_shares(x)
        x = np.floor(x / unit) * unit
    return x


def precision_problem(
    layers: Sequence[Layer],
    low: Floats,
    high: Floats,
    form: FixedPoint,
    suggest: Callable[[FixedPoint], FixedPoint | None],
    *,
    features: int,
    ranked: bool,
    scale: Floats | None = None,
    size: Floats | None = None,
) -> tuple[str, FixedPoint | None] | None:
    """Return what is wrong, and a better format, if a format is too coarse for a model's outputs.

    Parameters
    ----------
    layers : sequence of Layer
    low, high : float64 arrays
        Range of typical inputs, both as they are to be shared.
    form : FixedPoint
    suggest : callable
        Gives the format nearest to one that holds the model.
    features : int
    ranked, scale
        As for and from :func:`output_scale`; without `scale`, it is that of rows from the range.
    size : array of shape (outputs,), optional
        How large outputs for typical rows are; without it, it is that of rows from the range. A
        range that was widened for a few far rows has larger outputs, which excuse nothing for the
        others.
    """
    rows = rows_between(low, high, features)
    exact = evaluate(layers, rows)
    scale = output_scale(exact, ranked) if scale is None else scale
    limit = np.where(scale > 0, (_SCORES if ranked else _VALUES) * scale, np.inf)

    def error(frac_bits: int) -> Floats:
        found: Floats = np.abs(_imitated(layers, rows, frac_bits) - exact).max(axis=0)
        return found

    here = error(form.frac_bits)
    if (here <= limit).all():
        return None
    better = None
    for frac_bits in range(form.frac_bits + 1, (HEADROOM_BITS - 2) // 2 + 1):
        int_bits = min(form.int_bits, HEADROOM_BITS - 1 - 2 * frac_bits)
        near = suggest(FixedPoint(frac_bits, int_bits))
        if near is None or near.frac_bits < frac_bits:
            break
        if (error(frac_bits) <= limit).all():
            better = near
            break
    size = np.abs(exact).max(axis=0) if size is None else size
    if better is None and (here <= np.maximum(limit, _FAINT * size)).all():
        return None
    worst = int(np.argmax(here / limit))
    what = "how far the best score is ahead of the next" if ranked else "how far it varies"
    advice = (
        f"mpc.Session(frac_bits={better.frac_bits}, int_bits={better.int_bits}) is fine enough"
        if better is not None
        else "no format that holds it is fine enough: outputs in a smaller unit would need fewer"
    )
    problem = (
        f"{form.frac_bits} fractional bits are too few for this model: its output {worst} would be "
        f"off by about {here[worst]:.2g}, with {what} at {scale[worst]:.2g}; {advice}"
    )
    return problem, better
