"""Whether a format is fine enough for a model: fixed point is simulated in floating point.

A check of the range says nothing about small values: weights or targets of 1e-6 fit every format and
are rounded to 0 in most. So random rows of the range are evaluated with inputs, parameters and outputs
of layers rounded to the format's unit, and the outputs' errors are compared with a scale: for values
their standard deviation, for scores the lead of the best class over the second. Error bounds would
not do: they are far larger than errors that occur.

Sigmoid and tanh on shares have small errors in every format. A model whose outputs hardly vary, such
as one that was hardly trained, is not refused because of these: where no format is fine enough, one does
whose errors are faint beside the outputs, or at most twice those. The same holds of outputs that vary by
less than any format shows well: the finest one does if it shows them at all. What softmax or sigmoid gives
as an output of the network is a probability, whose size is 1 however small it is for all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.layers import Concat, Layer, Sigmoid, Softmax, Step, Trees
from nn.layers.evaluation import evaluate
from nn.layers.graph import inputs_of, run
from ring import FixedPoint
from ring.fixed_point import HEADROOM_BITS

__all__ = [
    "FAINT",
    "SCORES",
    "VALUES",
    "compares_computed",
    "output_scale",
    "precision_problem",
    "rows_between",
    "simulate",
]

Floats = NDArray[np.float64]
# The largest error that passes, as a fraction of the scale. Chosen so that, on more rows than are
# tried here, errors of values stay below 1e-3 of their standard deviation, and fewer than 0.5 % of the
# labels change.
VALUES, SCORES = 2.0**-11, 2.0**-5
# An output whose standard deviation is a smaller fraction of its size counts as constant.
_CONSTANT = 2.0**-30
# The largest error that passes if no format has a smaller one, as a fraction of the output's size.
FAINT = 2.0**-12
# A row that comes to another leaf is rare, and far off: it takes more rows to see whether there are such.
_ROWS, _ROWS_OF_TREES, _COARSER = 64, 2048, 3
# That many of these rows may come to another leaf.
_LEAPS = 2
# With so many fractional bits the errors of sigmoid and tanh alone are left, which no format avoids; how
# many times these may be exceeded.
_ANY_BITS, _NEAR_FLOOR = 48, 2.0
# How many times the largest error may be exceeded in the finest format there is.
_NEAR_LIMIT = 8.0


def output_scale(outputs: NDArray[Any], ranked: bool) -> Floats:
    """Return the scale with which errors of the outputs are compared; 0 for outputs that are all 0.

    Parameters
    ----------
    outputs : array of shape (rows, outputs)
        For typical rows, at least one.
    ranked : bool
        Whether the outputs are scores, of which the greatest alone counts.

    Returns
    -------
    array of shape (outputs,)
        For values, each output's standard deviation, or its largest magnitude if it does not vary.
        For scores, the median over the rows of the best score minus the second; of one class, as for
        values.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.fixed_point.precision import output_scale
    >>> outputs = np.array([[0.0, 5.0, 3.0], [2.0, 5.0, 4.0]])
    >>> output_scale(outputs, ranked=False).tolist(), output_scale(outputs, ranked=True).tolist()
    ([1.0, 5.0, 0.5], [1.5, 1.5, 1.5])
    """
    values = np.asarray(outputs, np.float64)
    if ranked and values.shape[1] > 1:
        greatest = np.sort(values, axis=1)[:, -2:]
        return np.full(values.shape[1], np.median(greatest[:, 1] - greatest[:, 0]))
    level, spread = np.abs(values).max(axis=0), values.std(axis=0)
    return np.where(spread > _CONSTANT * level, spread, level)


def rows_between(low: Floats, high: Floats, features: int, count: int = _ROWS) -> Floats:
    """Return rows drawn uniformly from a range, the same in every call."""
    some = np.random.default_rng(0).uniform(size=(count, features))  # no mask
    rows: Floats = low + some * (high - low)
    return rows


def simulate(
    layers: Sequence[Layer],
    rows: Floats,
    frac_bits: int,
    decided: list[Floats] | None = None,
    *,
    blurred: bool = False,
) -> Any:
    """Return the outputs, with inputs, parameters and outputs of layers rounded to `frac_bits`.

    What steps decide by is added to `decided`. With `blurred`, functions are off by their error bound times
    a number in [-1, 1].
    """
    unit = 2.0**-frac_bits
    random = np.random.default_rng(0)  # no mask

    def step(_: int, layer: Layer, x: Any) -> Any:
        _watch(layer, x, decided)
        parameters = [
            np.rint(np.asarray(p, np.float64) / unit) * unit for p in layer.on_grid(frac_bits)
        ]
        found = layer.with_parameters(parameters).as_on_shares(x)
        if blurred and not layer.joins and not parameters:
            bound = layer.fixed_point_error(np.abs(x), np.zeros(np.shape(x)), _ANY_BITS)
            found = found + np.nan_to_num(bound) * random.uniform(-1, 1, np.shape(found))
        return np.floor(found / unit) * unit

    return run(layers, np.rint(rows / unit) * unit, step)


def compares_computed(layers: Sequence[Layer]) -> bool:
    """Return whether there are trees that take features which other layers compute."""
    inputs = inputs_of(layers)
    return any(isinstance(layer, Trees) and inputs[k] != (0,) for k, layer in enumerate(layers))


def _watch(layer: Layer, x: Any, decided: list[Floats] | None) -> None:
    if decided is not None and isinstance(layer, Step):
        decided.append(np.reshape(x, (len(x), -1)) - layer.threshold)


def _by_steps(layers: Sequence[Layer], rows: Floats) -> Floats | None:
    """Return how far rows are from the thresholds of steps, one column each; None without steps."""
    if not any(isinstance(layer, Step) for layer in layers):
        return None
    decided: list[Floats] = []

    def step(_: int, layer: Layer, x: Any) -> Any:
        _watch(layer, x, decided)
        return layer(x)

    run(layers, rows, step)
    return np.concatenate(decided, axis=1)


def _probabilities(layers: Sequence[Layer], rows: Floats) -> NDArray[np.bool_]:
    """Return which outputs are those of a softmax or sigmoid, in another place or shape."""

    def step(_: int, layer: Layer, x: Any) -> Any:
        if layer.only_moves or isinstance(layer, Concat):
            return layer(x)
        shapes = tuple(part.shape[1:] for part in x) if layer.joins else x.shape[1:]
        return np.full((1, *layer.output_shape(shapes)), type(layer) in (Sigmoid, Softmax))

    found: NDArray[np.bool_] = run(layers, np.zeros(rows[:1].shape, bool), step)
    return found.reshape(-1)


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
    """Return why a format is too coarse for a model, and a better one; None if it is fine enough.

    Parameters
    ----------
    layers : sequence of Layer
    low, high : float64 arrays
        Range of typical rows. Layers and range are as they are to be shared.
    form : FixedPoint
    suggest : callable
        Takes a format and returns the nearest one that holds the model, or None.
    features : int
        Features of a row.
    ranked : bool
        As for :func:`output_scale`.
    scale : array of shape (outputs,), optional
        The result of :func:`output_scale` for typical rows; default that for rows of the range.
    size : array of shape (outputs,), optional
        Largest magnitude of each output for typical rows; default that for rows of the range. The
        two differ for a range that was widened for a few far rows.

    Returns
    -------
    (str, FixedPoint or None) or None
    """
    leaps = not ranked and compares_computed(layers)
    rows = rows_between(low, high, features, _ROWS_OF_TREES if leaps else _ROWS)
    if leaps:  # also rows nearer to the middle, where thresholds are
        rows = np.concatenate([rows, (rows + np.roll(rows, 1, axis=0) + rows[::-1]) / 3])
    exact = evaluate(layers, rows)
    scale = output_scale(exact, ranked) if scale is None else scale
    limit = np.where(scale > 0, (SCORES if ranked else VALUES) * scale, np.inf)
    # Votes are whole numbers: whether they are right is seen in what they are decided by.
    apart = _by_steps(layers, rows) if ranked else None
    if apart is not None:
        middle = np.median(np.abs(apart), axis=0)
        scale = np.concatenate([scale, middle])
        limit = np.concatenate([limit, np.where(middle > 0, SCORES * middle, np.inf)])
        size = None if size is None else np.concatenate([size, np.abs(apart).max(axis=0)])

    def error(frac_bits: int) -> Floats:
        decided: list[Floats] | None = None if apart is None else []
        # In coarser steps, rows that come to another leaf are as many times more: fewer than are tried.
        frac_bits -= _COARSER if leaps else 0
        found = np.abs(simulate(layers, rows, frac_bits, decided, blurred=leaps) - exact)
        found = np.sort(found, axis=0)[-1 - (_LEAPS if leaps else 0)]
        if decided and apart is not None:
            off = np.abs(np.concatenate(decided, axis=1) - apart).max(axis=0)
            found = np.concatenate([found, off])
        return np.asarray(found)

    here = error(form.frac_bits)
    if (here <= limit).all():
        return None
    finer: list[tuple[FixedPoint, Floats]] = []
    for frac_bits in range(form.frac_bits + 1, (HEADROOM_BITS - 2) // 2 + 1):
        int_bits = min(form.int_bits, HEADROOM_BITS - 1 - 2 * frac_bits)
        near = suggest(FixedPoint(frac_bits, int_bits))
        if near is None or near.frac_bits < frac_bits:
            break
        finer.append((near, error(frac_bits)))
        if (finer[-1][1] <= limit).all():
            break
    better = finer[-1][0] if finer and (finer[-1][1] <= limit).all() else None
    known = better is not None
    if not known:
        # No format is fine enough. What is as good as formats get, or faint, has to do.
        if size is None:
            parts = [exact] if apart is None else [exact, apart]
            size = np.concatenate([np.abs(part).max(axis=0) for part in parts])
        likely = np.zeros(size.shape, bool)
        likely[: exact.shape[1]] = _probabilities(layers, rows)
        size = np.where(likely, 1.0, size)
        floor = error(_ANY_BITS)
        enough = np.maximum(limit, FAINT * size)
        if not leaps:
            enough = np.maximum(enough, _NEAR_FLOOR * floor)
        if (here <= enough).all():
            return None
        # Where an activation's own error is no matter, a finer format would do if there was room for it.
        near_floor = np.where(floor > limit, enough, limit)
        better = next((near for near, off in finer if (off <= near_floor).all()), None)
        if better is None:
            least = here if not finer else finer[-1][1]
            if (least <= _NEAR_LIMIT * np.where(likely, np.maximum(limit, FAINT), limit)).all():
                if not finer:
                    return None
                better = finer[-1][0]
            else:  # the first that is let through
                better = next((near for near, off in finer if (off <= enough).all()), None)
    worst = int(np.argmax(here / limit))
    named = f"its output {worst}" if worst < exact.shape[1] else "what a step decides by"
    what = "the best score ahead of the second by" if ranked else "a standard deviation of"
    how = "is fine enough" if known else "comes as near as any format"
    advice = (
        f"mpc.Session(frac_bits={better.frac_bits}, int_bits={better.int_bits}) {how}"
        if better is not None
        else "no format that holds the model is fine enough: outputs in a smaller unit would need fewer"
    )
    problem = (
        f"{form.frac_bits} fractional bits are too few for this model: {named} would be "
        f"off by about {here[worst]:.2g}, with {what} {scale[worst]:.2g}; {advice}"
    )
    return problem, better
