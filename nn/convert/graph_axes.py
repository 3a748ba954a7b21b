"""ONNX operators along axes: reductions, layer normalisation, clipping and slopes, tables.

Functions of :mod:`nn.convert.graph_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_arithmetic import contracted, joined, limited
from nn.convert.graph_builder import Builder
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Labels, Scores, Tensor, constant
from nn.layers import Layer
from nn.layers.comparing import Largest
from nn.layers.embedding import Embedding
from nn.layers.functions import Log, Reciprocal, Sqrt
from nn.layers.joining import Concat, Multiply, Subtract
from nn.layers.leaky_relu import LeakyReLU
from nn.layers.rectifiers import Abs, PReLU
from nn.layers.reducing import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from nn.layers.selecting import Take
from nn.layers.softmax import LogSoftmax, Softmax
from nn.layers.standardising import LayerNorm, RMSNorm

__all__ = ["looked_up", "reduced_to_largest", "summed"]


def _reduce(add: Callable[[Builder, int], int]) -> Any:
    """Return the conversion of a reduction; `add` takes a value's last axis to one of size 1."""

    def reduce(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Tensor:
        x = builder.tensor(x)
        rank = len(x.axes)
        named = attributes.get("axes") if axes is None else constant(axes).reshape(-1).tolist()
        if not named and attributes.get("noop_with_empty_axes", 0):
            return x
        reduced = sorted({x.number(int(a)) for a in named}) if named else list(range(rank))
        if any(ROWS in x.axes[a] for a in reduced):
            raise ConversionError(
                f"must keep axis 0, which counts the rows, got axes={reduced}: rows are computed separately"
            )
        last = tuple(p for a in reduced for p in x.axes[a])
        kept = [p for p in range(len(x.sizes)) if p not in last]
        # One axis of rows stays behind, of size 1.
        value = add(builder, builder.arranged(x, [*((p,) for p in kept), last]))
        places = {p: k for k, p in enumerate(kept)} | {ROWS: ROWS}
        made = [
            () if a in reduced else tuple(places[p] for p in group)
            for a, group in enumerate(x.axes)
        ]
        if not attributes.get("keepdims", 1):
            made = [group for a, group in enumerate(made) if a not in reduced]
        return Tensor(value, builder.sizes[value], tuple(made))

    return reduce


def _by(kind: Callable[[int], Layer]) -> Any:
    return _reduce(lambda builder, value: builder.add(kind(-1), value))


def _multiplied(builder: Builder, value: int) -> int:
    """Multiply the elements of the last axis: halves of them, and halves of the products ..."""
    last = len(builder.sizes[value]) - 1
    while (size := builder.sizes[value][last]) > 1:
        half, odd = size // 2, size % 2
        first, second, rest = (
            builder.add(Take(last, places), value) if len(places) else None
            for places in (range(half), range(half, 2 * half), range(size - odd, size))
        )
        assert first is not None and second is not None
        value = builder.add(Multiply(), first, second)
        value = value if rest is None else builder.add(Concat(last), value, rest)
    return value


def _log_of_powers(builder: Builder, value: int) -> int:
    """Take the logarithm of the sum of powers of e: what a LogSoftmax takes off each element."""
    last = len(builder.sizes[value]) - 1
    if builder.sizes[value][last] == 1:
        return value
    both = (value, builder.add(LogSoftmax(), value))
    return builder.add(Subtract(), *(builder.add(Take(last, [0]), v) for v in both))


summed, reduced_to_largest, _reduced_to_least = _by(ReduceSum), _by(ReduceMax), _by(ReduceMin)
operator("ReduceProd", "axes", "keepdims", "noop_with_empty_axes")(_reduce(_multiplied))
operator("ReduceLogSumExp", "axes", "keepdims", "noop_with_empty_axes")(_reduce(_log_of_powers))
operator("ReduceLogSum", "axes", "keepdims", "noop_with_empty_axes")(
    _reduce(lambda builder, value: builder.add(Log(), builder.add(ReduceSum(-1), value)))
)
for _name, _kind in (
    ("ReduceSum", ReduceSum), ("ReduceMean", ReduceMean), ("ReduceMax", ReduceMax),
    ("ReduceMin", ReduceMin),
):  # fmt: skip
    operator(_name, "axes", "keepdims", "noop_with_empty_axes")(_by(_kind))


_REDUCED = ("axes", "keepdims", "noop_with_empty_axes")


@operator("ReduceL1", *_REDUCED)
def _reduce_l1(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Tensor:
    size = builder.elementwise(Abs(), builder.tensor(x))
    return summed(builder, attributes, size, axes)


@operator("ReduceSumSquare", *_REDUCED)
def _sum_square(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Tensor:
    x = builder.tensor(x)
    return summed(builder, attributes, joined(builder, Multiply(), x, x), axes)


@operator("ReduceL2", *_REDUCED)
def _reduce_l2(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Tensor:
    return builder.elementwise(Sqrt(), _sum_square(builder, attributes, x, axes))


@operator("LpNormalization", "axis", "p")
def _divided(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x, p = builder.tensor(x), int(attributes.get("p", 2))
    size = (_reduce_l1 if p == 1 else _reduce_l2)(
        builder, {"keepdims": 1}, x, np.array([attributes.get("axis", -1)])
    )
    return joined(builder, Multiply(), x, builder.elementwise(Reciprocal(), size))


@operator("Hardmax", "axis")
def _hardmax(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x = builder.tensor(x)
    axis = x.number(attributes.get("axis", -1 if attributes["opset"] >= 13 else 1))
    if attributes["opset"] < 13:  # all axes from this one on, as one
        return _along_last(builder, Largest(), x, axis)
    return builder.along(Largest(), x, axis)


@operator("CumSum", "exclusive", "reverse")
def _running_sum(builder: Builder, attributes: dict[str, Any], x: Any, axis: Any) -> Tensor:
    x = builder.tensor(x)
    number = x.number(int(constant(axis).reshape(())))
    size = x.size(number)
    matrix = np.triu(np.ones((size, size)), 1 if attributes.get("exclusive", 0) else 0)
    return contracted(builder, x, number, matrix.T if attributes.get("reverse", 0) else matrix)


def _along_last(builder: Builder, layer: Layer, x: Tensor, axis: int) -> Tensor:
    """Apply a layer that works along all axes from `axis` on, as one."""
    start = x.number(axis)
    last = tuple(p for group in x.axes[start:] for p in group)
    made = builder.along(layer, replace(x, axes=(*x.axes[:start], last)), start)
    places, groups = iter(made.axes[start]), []
    for group in x.axes[start:]:
        groups.append(tuple(next(places) for _ in group))
    return replace(made, axes=(*made.axes[:start], *groups))


def _scores(log: bool) -> Callable[..., Any]:
    def softmax(builder: Builder, attributes: dict[str, Any], x: Any) -> Any:
        x = builder.tensor(x)
        axis = x.number(attributes.get("axis", -1 if attributes["opset"] >= 13 else 1))
        if ROWS in x.axes[axis]:
            raise ConversionError("needs an axis other than that of the rows, which are separate")
        if attributes["opset"] < 13 and axis < len(x.axes) - 1:  # all axes from this one on, as one
            return _along_last(builder, LogSoftmax() if log else Softmax(), x, axis)
        return Scores(x, axis, log)

    return softmax


operator("Softmax", "axis")(_scores(False))
operator("LogSoftmax", "axis")(_scores(True))


@operator("ArgMax", "axis", "keepdims", "select_last_index")
def _argmax(builder: Builder, attributes: dict[str, Any], x: Any) -> Labels | Tensor:
    x = x.scores if isinstance(x, Scores) else builder.tensor(x)
    axis, backwards = x.number(attributes.get("axis", 0)), attributes.get("select_last_index", 0)
    if x.axes[:-1] == ((ROWS,),) and axis == 1 and not backwards:
        return Labels(x)
    # Of several places, or the last of equal scores: the ones where they are, times the indices.
    if ROWS in x.axes[axis]:
        raise ConversionError("needs an axis other than that of the rows, which are separate")
    size = x.size(axis)
    places = np.arange(size, dtype=np.float64)
    if backwards:
        x, places = builder.one_axis(x, axis), places[::-1]
        turned = builder.add(Take(x.axes[axis][0], range(size)[::-1]), x.value)
        x = replace(x, value=turned)
    found = contracted(builder, builder.along(Largest(), x, axis), axis, places[:, None])
    if not attributes.get("keepdims", 1):
        found = replace(found, axes=(*found.axes[:axis], *found.axes[axis + 1 :]))
    return found


@operator("ArgMin", "axis", "keepdims", "select_last_index")
def _argmin(builder: Builder, attributes: dict[str, Any], x: Any) -> Labels | Tensor:
    return _argmax(builder, attributes, builder.scaled(builder.tensor(x), -1.0, None))


@operator("TopK", "axis", "largest", "sorted")
def _top(
    builder: Builder, attributes: dict[str, Any], x: Any, count: Any
) -> tuple[Tensor, Labels | Tensor]:
    wanted = constant(count).reshape(-1).tolist()
    if wanted != [1]:
        raise ConversionError(
            f"needs k=1, got k={', '.join(f'{k:g}' for k in wanted)}: nothing is sorted on shares; keep an"
            " output ahead of it, by outputs="
        )
    axis = attributes.get("axis", -1)
    place = {"axis": axis, "keepdims": 1}
    if attributes.get("largest", 1):
        return reduced_to_largest(builder, place, x, np.array([axis])), _argmax(builder, place, x)
    return _reduced_to_least(builder, place, x, np.array([axis])), _argmin(builder, place, x)


@operator("LayerNormalization", "axis", "epsilon", "stash_type")
def _layer_norm(
    builder: Builder, attributes: dict[str, Any], x: Any, scale: Any, bias: Any = None
) -> Tensor:
    if attributes["outputs"] > 1:
        raise ConversionError("needs one output: export the model for inference")
    factor = _of_axes(builder, x, attributes, scale)
    summand = np.zeros(factor.shape) if bias is None else _of_axes(builder, x, attributes, bias)
    layer = LayerNorm(factor, summand, attributes.get("epsilon", 1e-5))
    return _along_last(builder, layer, builder.tensor(x), attributes.get("axis", -1))


@operator("RMSNormalization", "axis", "epsilon", "stash_type")
def _rms_norm(builder: Builder, attributes: dict[str, Any], x: Any, scale: Any) -> Tensor:
    layer = RMSNorm(_of_axes(builder, x, attributes, scale), attributes.get("epsilon", 1e-5))
    return _along_last(builder, layer, builder.tensor(x), attributes.get("axis", -1))


def _of_axes(
    builder: Builder, x: Any, attributes: dict[str, Any], values: Any
) -> NDArray[np.float64]:
    """Return a constant with an entry for each normalised element."""
    x = builder.tensor(x)
    start = x.number(attributes.get("axis", -1))
    if any(ROWS in group for group in x.axes[start:]):
        raise ConversionError("must normalise within rows, got the axis of the rows")
    shape = tuple(x.size(a) for a in range(start, len(x.axes)))
    found = constant(values)
    if found.ndim > len(shape):
        raise ConversionError(f"needs a scale of the normalised axes {shape}, got {found.shape}")
    return np.broadcast_to(found, shape).reshape(-1).copy()


@operator("Clip", "max", "min")
def _clip(
    builder: Builder, attributes: dict[str, Any], x: Any, low: Any = None, high: Any = None
) -> Tensor:
    least, most = (
        attributes.get(name) if limit is None else float(constant(limit).reshape(()))
        for name, limit in (("min", low), ("max", high))
    )
    return limited(builder, builder.tensor(x), least, most)


@operator("PRelu")
def _prelu(builder: Builder, attributes: dict[str, Any], x: Any, slope: Any) -> Tensor:
    x, values = builder.tensor(x), constant(slope)
    if values.size == 1 and 0 <= values.reshape(()) < 1:
        return builder.elementwise(LeakyReLU(float(values.reshape(()))), x)
    if values.ndim == len(x.axes):
        if values.shape[0] != 1:
            raise ConversionError("needs slopes that are the same for all rows")
        values = values[0]
    shape = x.shape
    if values.ndim > len(shape):
        raise ConversionError(f"needs slopes for rows of {shape}, got shape {values.shape}")
    whole = values.reshape((1,) * (len(shape) - values.ndim) + values.shape)
    if len(shape) in (2, 3) and whole.shape[1:] == (1,) * (len(shape) - 1):
        made = builder.add(PReLU(whole.reshape(-1)), builder.images(x))
        return builder.from_images(made)
    return builder.from_rows(builder.add(PReLU(whole), builder.rows(x)))


@operator("OneHot", "axis")
def _one_hot(
    builder: Builder, attributes: dict[str, Any], ids: Any, depth: Any, values: Any
) -> Tensor:
    """Ones where ids are; an id outside is refused in the clear and the nearest one on shares."""
    count, (off, on) = int(constant(depth).reshape(())), constant(values).reshape(-1)
    made = looked_up(builder, off + (on - off) * np.eye(count), 0, ids)
    axes, last = list(made.axes), made.axes[-1]
    place = int(attributes.get("axis", -1)) % len(axes)
    return replace(made, axes=(*axes[:-1][:place], last, *axes[:-1][place:]))


def looked_up(builder: Builder, table: NDArray[Any], axis: int, ids: Any) -> Tensor:
    """Return the entries of a constant for indices that depend on the graph's inputs."""
    if axis not in (0, -table.ndim) or table.dtype.kind not in "f":
        raise ConversionError("looks up secret indices in a table, which needs axis=0 and floats")
    ids = builder.tensor(ids)
    width = table.reshape(len(table), -1).astype(np.float64)
    value = builder.add(Embedding(width), ids.value)
    last = len(ids.sizes)
    made = Tensor(value, builder.sizes[value], (*ids.axes, (last,)))
    if table.ndim == 2:
        return made
    split = builder.split(made, {last: list(table.shape[1:]) or [1]})
    groups = [(k,) for k in split.axes[-1]] if table.ndim > 2 else []
    return replace(split, axes=(*split.axes[:-1], *groups))
