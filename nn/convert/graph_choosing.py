"""ONNX operators that compare and choose, as functions of :mod:`nn.convert.graph_table`.

A condition is a value of zeros and ones: a Step of a difference. Infinite constants, and others that no
format holds, are masks of attention: a number that a format holds stands for them, where nothing but
softmaxes takes what is chosen (:func:`only_softmaxes_take`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_arithmetic import is_constant, joined
from nn.convert.graph_axes import reduced_to_largest
from nn.convert.graph_builder import FAR, Builder
from nn.convert.graph_fusing import Fusing
from nn.convert.graph_table import operator
from nn.convert.graph_values import Scores, Tensor, constant
from nn.layers.clipping import Clip
from nn.layers.functions import Reciprocal
from nn.layers.joining import Add, Multiply, Subtract
from nn.layers.rectifiers import Abs, Step
from nn.layers.reducing import ReduceMax
from nn.layers.scale import Scale, Shift
from nn.layers.selecting import Take
from nn.layers.shaping import Reshape, Transpose
from nn.layers.smooth import Softplus
from nn.layers.softmax import Softmax

__all__ = ["differs", "only_softmaxes_take"]

# A mask is one still if it is scaled by as little as this.
_LEAST = 2.0**-6
_KEEPING = (Add, ReduceMax, Reshape, Shift, Subtract, Take, Transpose)
# Says of the largest score whether there is one that is not masked.
_ALL = (Step, -FAR / 2)
# From here on softplus is x, to 1e-6.
_STRAIGHT = 14.0


def _difference(builder: Builder, x: Any, y: Any) -> Tensor:
    if is_constant(y):
        values = constant(y)
        x = builder.tensor(x)
        return x if not values.any() and values.size == 1 else builder.scaled(x, None, -values)
    if is_constant(x):
        return builder.scaled(builder.tensor(y), -1.0, constant(x))
    return joined(builder, Subtract(), x, y)


def _compared(swapped: bool, inclusive: bool) -> Any:
    def compare(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
        if swapped:
            x, y = y, x
        if is_constant(y) and np.size(constant(y)) == 1:
            threshold = float(constant(y).reshape(-1)[0])
            return builder.elementwise(Step(threshold, inclusive), builder.tensor(x))
        return builder.elementwise(Step(0.0, inclusive), _difference(builder, x, y))

    return compare


operator("Greater")(_compared(False, False))
operator("GreaterOrEqual")(_compared(False, True))
operator("Less")(_compared(True, False))
operator("LessOrEqual")(_compared(True, True))


def differs(builder: Builder, x: Any, y: Any) -> Tensor:
    """Return ones where values differ, zeros elsewhere."""
    apart = builder.elementwise(Abs(), _difference(builder, x, y))
    return builder.elementwise(Step(0.0), apart)


@operator("Equal")
def _equal(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    return _not(builder, {}, differs(builder, x, y))


@operator("Not")
def _not(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    return builder.scaled(builder.tensor(x), -1.0, 1.0)


@operator("And")
def _and(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    if is_constant(x):
        x, y = y, x
    if is_constant(y):
        return builder.scaled(builder.tensor(x), constant(y), None)
    return joined(builder, Multiply(), x, y)


@operator("Or")
def _or(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    neither = [1 - constant(v) if is_constant(v) else _not(builder, {}, v) for v in (x, y)]
    return _not(builder, {}, _and(builder, {}, *neither))


@operator("Where")
def _where(builder: Builder, attributes: dict[str, Any], choose: Any, x: Any, y: Any) -> Tensor:
    first: Any = builder.near(constant(x)) if is_constant(x) else builder.tensor(x)
    second: Any = builder.near(constant(y)) if is_constant(y) else builder.tensor(y)
    made = _chosen(builder, choose, first, second)
    if any(
        is_constant(v) and not np.array_equal(constant(v), f) for v, f in ((x, first), (y, second))
    ):
        builder.far.add(made.value)
    return made


def _chosen(builder: Builder, choose: Any, first: Any, second: Any) -> Tensor:
    if is_constant(choose):
        mask = constant(choose)
        parts = []
        for value, kept in ((first, mask), (second, 1 - mask)):
            if is_constant(value):
                parts.append(value * kept)
            else:
                parts.append(builder.scaled(value, kept, None))
        return _sum(builder, *parts)
    choose = builder.tensor(choose)
    if _is_softplus(builder, choose, first, second):
        return builder.tensor(second)
    if _is_never(builder, choose) and not is_constant(second) and choose.axes == second.axes:
        return builder.tensor(second)
    if is_constant(first) and is_constant(second):
        return builder.scaled(choose, first - second, second)
    apart = _difference(builder, first, second)
    return _sum(builder, joined(builder, Multiply(), choose, apart), second)


def only_softmaxes_take(builder: Builder, value: int, *, then_softmax: bool) -> bool:
    """Return whether a value depends on what stands for masks by softmaxes alone.

    `then_softmax` says whether a softmax, or the largest element, is taken of the value itself.
    """
    if not builder.far:
        return True
    # Softmaxes that are spelled out count, too.
    places = builder.places(value)
    far = {places[k] for k in builder.far if k in places}
    fused = Fusing(builder.graph(value), builder.sizes[0][0], far)
    masked: set[float] = set()
    for k in sorted(fused.needed()):
        layer, taken = fused.nodes[k]
        if not masked.isdisjoint(taken):
            if (
                isinstance(layer, Softmax)
                or (type(layer), getattr(layer, "threshold", None)) == _ALL
            ):
                continue
            scales = isinstance(layer, Scale) and np.abs(layer.factor).min() >= _LEAST
            # Not by `isinstance`: a Flatten, say, is a Reshape, but a Constant is no Shift of its input.
            if not scales and type(layer) not in _KEEPING:
                return False
            masked.add(k)
        elif k in far:
            masked.add(k)
    return then_softmax or fused.last not in masked


def _sum(builder: Builder, x: Any, y: Any) -> Tensor:
    if is_constant(x):
        x, y = y, x
    return builder.scaled(x, None, y) if is_constant(y) else joined(builder, Add(), x, y)


def _is_softplus(builder: Builder, choose: Tensor, x: Any, y: Any) -> bool:
    """Return whether x is chosen where it is large, and softplus of x elsewhere."""
    if is_constant(x) or is_constant(y) or not (choose.value and y.value):
        return False
    step, (of_step, *_) = builder.nodes[choose.value - 1]
    soft, (of_soft, *_) = builder.nodes[y.value - 1]
    same = of_step == of_soft == x.value and x.axes == y.axes == choose.axes
    return (
        same
        and isinstance(soft, Softplus)
        and isinstance(step, Step)
        and step.threshold >= _STRAIGHT
    )


@operator("IsNaN")
def _is_nan(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    """Ones where a softmax has nothing to choose from, since all is masked: 0 / 0 in floats."""
    if not builder.infinite or not isinstance(x, Scores):
        return builder.scaled(builder.tensor(x), 0.0, None)  # fixed-point numbers are finite
    largest = reduced_to_largest(builder, {}, x.scores, np.array([x.axis]))
    return _not(builder, {}, builder.elementwise(Step(-FAR / 2), largest))


def _is_never(builder: Builder, choose: Tensor) -> bool:
    layer = builder.nodes[choose.value - 1][0] if choose.value else None
    return isinstance(layer, Scale) and not layer.factor.any() and not layer.summand.any()


@operator("Sign")
def _sign(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x = builder.tensor(x)
    above, least = (builder.elementwise(Step(0.0, end), x) for end in (False, True))
    both = joined(builder, Add(), above, least)
    return builder.scaled(both, None, -1.0)


@operator("Softsign")
def _softsign(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x = builder.tensor(x)
    size = builder.scaled(builder.elementwise(Abs(), x), None, 1.0)
    return joined(builder, Multiply(), x, builder.elementwise(Reciprocal(), size))


@operator("Shrink", "bias", "lambd")
def _shrink(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x, bias, width = builder.tensor(x), attributes.get("bias", 0.0), attributes.get("lambd", 0.5)
    if width <= 0:
        raise ConversionError(f"needs lambd above 0, got lambd={width}")
    if bias == width:
        inside = builder.elementwise(Clip(-width, width), x)
        return joined(builder, Subtract(), x, inside)
    above = builder.elementwise(Step(width), x)
    below = _not(builder, {}, builder.elementwise(Step(-width, True), x))
    kept = joined(builder, Multiply(), x, joined(builder, Add(), above, below))
    if not bias:
        return kept
    moved = builder.scaled(joined(builder, Subtract(), above, below), -bias, None)
    return replace(joined(builder, Add(), kept, moved), axes=kept.axes)
