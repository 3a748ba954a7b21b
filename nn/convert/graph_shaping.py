"""ONNX operators that move elements, as functions of :mod:`nn.convert.graph_table`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_axes import looked_up
from nn.convert.graph_builder import Builder
from nn.convert.graph_choosing import differs
from nn.convert.graph_sizes import FREE, LINEAR, OPEN, Sizes, sizes_for, whole_sizes
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Labels, Scores, Tensor, constant
from nn.convert.graph_whole import BOOL, FLOATS, INTEGERS
from nn.layers.joining import Concat
from nn.layers.selecting import Pad, Take

__all__ = ["axes_of", "take"]


def _integers(value: Any) -> list[int]:
    return [int(n) for n in constant(value).reshape(-1)]


def axes_of(attributes: dict[str, Any], axes: Any, rank: int) -> list[int] | None:
    """Return a node's axes, counted from the front, from its attribute or its input; None for none."""
    named = attributes.get("axes") if axes is None else _integers(axes)
    if named is None or not len(named):
        return None
    if not all(-rank <= a < rank for a in named):
        raise ConversionError(f"needs axes of {rank}, got axes={list(named)}")
    return [int(a) % rank for a in named]


@operator("Identity")
def _identity(builder: Builder, attributes: dict[str, Any], x: Any) -> Any:
    return x


@operator("Cast", "to", "saturate", "round_mode")
def _cast(builder: Builder, attributes: dict[str, Any], x: Any) -> Any:
    (to, whole) = attributes["to"], attributes["whole"][0]
    if to == BOOL and not isinstance(x, Labels):
        return x if attributes["truth"] else differs(builder, x, np.zeros(()))
    if to not in FLOATS and not (whole and to in INTEGERS):
        raise ConversionError("must cast to a float type: rounding to integers is not converted")
    return x


@operator("Dropout", "ratio", "seed")
def _dropout(
    builder: Builder, attributes: dict[str, Any], x: Any, ratio: Any = None, training: Any = None
) -> Any:
    if isinstance(training, np.ndarray) and training.any():
        raise ConversionError("needs training_mode=False: export the model for inference")
    return x


@operator("Shape", "start", "end")
def _shape(builder: Builder, attributes: dict[str, Any], x: Any) -> Any:
    x = x.scores if isinstance(x, Scores) else builder.tensor(x)
    part = slice(attributes.get("start", 0), attributes.get("end"))
    first, second = (
        np.array(
            [x.size(k) * (rows if ROWS in group else 1) for k, group in enumerate(x.axes)], np.int64
        )[part]
        for rows in builder.counts
    )
    marks = np.array([LINEAR if ROWS in group else FREE for group in x.axes])[part]
    return sizes_for((first, second), marks)


@operator("Transpose", "perm")
def _transpose(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x = builder.tensor(x)
    rank = len(x.axes)
    order = list(attributes.get("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise ConversionError(f"needs perm to name {rank} axes, got perm={order}")
    return replace(x, axes=tuple(x.axes[a] for a in order))


@operator("Flatten", "axis")
def _flatten(builder: Builder, attributes: dict[str, Any], x: Any) -> Any:
    axis = attributes.get("axis", 1)
    if axis == 1 and isinstance(x, (Labels, Scores)):
        return x
    x = builder.tensor(x)
    axis = axis + len(x.axes) if axis < 0 else axis
    parts = x.axes[:axis], x.axes[axis:]
    return replace(x, axes=tuple(tuple(a for group in part for a in group) for part in parts))


@operator("Reshape", "allowzero")
def _reshape(builder: Builder, attributes: dict[str, Any], x: Any, shape: Any) -> Any:
    wanted = whole_sizes(shape)
    if isinstance(x, (Labels, Scores)):
        scores = x.scores
        width = 1 if isinstance(x, Labels) else scores.size(len(scores.axes) - 1)
        kept = [[width], [-1], *([[]] if isinstance(x, Labels) else [])]
        if all(
            found[0] in (-1, 0, rows) and found[1:] in kept
            for found, rows in zip(wanted, builder.counts, strict=True)
        ):
            return x
        if isinstance(x, Labels):
            raise ConversionError(f"must keep the rows, got shape {wanted[0]}")
    x = builder.tensor(x)
    # First for the second number of rows, a prime, which shows where the rows are; a graph that was
    # made for a number of rows may name that number instead.
    problem = None
    for found, rows in [(wanted[1], builder.counts[1]), (wanted[0], builder.counts[0])]:
        target = _target(x, found, rows, bool(attributes.get("allowzero", 0)))
        if isinstance(target, list):
            try:
                return _regrouped(builder, x, target, rows)
            except ConversionError as error:
                target = str(error)
        problem = problem or target
        if isinstance(shape, Sizes):
            break
    raise ConversionError(problem or "must keep the elements")


def _target(x: Tensor, found: list[int], rows: int, allowzero: bool) -> list[int] | str:
    """Return the sizes that a Reshape makes, for a number of rows, or what is wrong with them."""
    own = [x.size(k) * (rows if ROWS in group else 1) for k, group in enumerate(x.axes)]
    shown = [n if rows not in OPEN or n % rows else f"rows*{n // rows}" for n in own]
    if not allowzero:
        if any(n == 0 and k >= len(own) for k, n in enumerate(found)):
            return f"has no size to repeat, got shape {found}"
        found = [own[k] if n == 0 else n for k, n in enumerate(found)]
    known, total = prod(n for n in found if n != -1), prod(own)
    if found.count(-1) > 1 or not known or total % known:
        return f"must keep the elements, of shape {shown}, got shape {found}"
    target = [total // known if n == -1 else n for n in found]
    return (
        target
        if prod(target) == total
        else (f"must keep the elements, of shape {shown}, got shape {found}")
    )


def _regrouped(builder: Builder, x: Tensor, target: list[int], rows: int) -> Tensor:
    """Return a tensor whose axes have the sizes of `target`, which counts `rows` rows."""
    x = builder.slim(x)
    flat = [a for group in x.axes for a in group]
    found = _fitted(x, flat, target, rows)
    if found is None and flat and flat[0] == ROWS:
        # Sizes cut across axes: the elements of a row are put in order.
        value = builder.arranged(x, [tuple(flat[1:])])
        x = Tensor(value, builder.sizes[value], ((ROWS,), (0,)))
        flat = [ROWS, 0]
        found = _fitted(x, flat, target, rows)
    if found is None:
        raise ConversionError(f"must not move elements between rows, got shape {target}")
    factors, lengths = found
    split = builder.split(replace(x, axes=(tuple(flat),)), factors)
    parts = list(split.axes[0])
    axes: list[tuple[int, ...]] = []
    for length in lengths:
        axes.append(tuple(parts[:length]))
        parts = parts[length:]
    return replace(split, axes=tuple(axes))


def _fitted(
    x: Tensor, flat: list[int], target: list[int], rows: int
) -> tuple[dict[int, list[int]], list[int]] | None:
    """Return how axes of rows are split, and how many of the parts make each axis of `target`."""
    left = [(a, rows if a == ROWS else x.sizes[a]) for a in flat]
    factors: dict[int, list[int]] = {a: [] for a in flat if a != ROWS}
    lengths = []
    for size in target:
        length = 0
        while size > 1 or (left and left[0][0] == ROWS and left[0][1] == 1 and length == 0):
            if not left:
                return None
            a, have = left.pop(0)
            if size % have == 0:
                size //= have
                part = have
            elif a != ROWS and have % size == 0:
                left.insert(0, (a, have // size))
                part, size = size, 1
            else:
                return None
            if a != ROWS:
                factors[a].append(part)
            length += 1
        lengths.append(length)
    return None if left else (factors, lengths)


@operator("Squeeze", "axes")
def _squeeze(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, Labels):  # of shape (rows,) or (rows, 1)
        if 0 in (axes_of(attributes, axes, 2) or []):
            raise ConversionError("needs axes other than axis 0, which counts the rows")
        return x
    x = builder.tensor(x)
    removed = axes_of(attributes, axes, len(x.axes))
    if removed is None:
        removed = [k for k, g in enumerate(x.axes) if ROWS not in g and x.size(k) == 1]
    if any(x.size(k) != 1 or ROWS in x.axes[k] for k in removed):
        raise ConversionError("must remove axes of size 1 without the rows")
    return replace(x, axes=tuple(g for k, g in enumerate(x.axes) if k not in removed))


@operator("Unsqueeze", "axes")
def _unsqueeze(builder: Builder, attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    x = builder.tensor(x)
    named = attributes.get("axes") if axes is None else _integers(axes)
    new = axes_of({"axes": named}, None, len(x.axes) + len(named or [])) or []
    groups = list(x.axes)
    for k in sorted(new):
        groups.insert(k, ())
    return replace(x, axes=tuple(groups))


@operator("Concat", "axis")
def _concat(builder: Builder, attributes: dict[str, Any], *parts: Any) -> Tensor:
    shapes = [builder.tensor(p) for p in parts if isinstance(p, (Tensor, Scores))]
    rows = next(k for k, group in enumerate(shapes[0].axes) if ROWS in group)
    tensors = [
        builder.constant(constant(p), rows)
        if isinstance(p, (np.ndarray, Sizes))
        else builder.tensor(p)
        for p in parts
    ]
    axis = tensors[0].number(attributes["axis"])
    if len({len(x.axes) for x in tensors}) > 1:
        raise ConversionError("needs inputs with the same number of axes")
    if any(ROWS in x.axes[axis] for x in tensors):
        raise ConversionError("cannot join rows, which are computed separately")
    single = [builder.one_axis(x, axis) for x in tensors]
    for other in range(len(single[0].axes)):
        if other != axis:
            single = builder.refined(single, other)
    # Aligned as if the axis had one element everywhere, then put at the end.
    whole = [
        builder.slim(replace(x, axes=(*x.axes[:axis], (), *x.axes[axis + 1 :]))) for x in single
    ]
    values, order = [], None
    for x, thin in zip(single, whole, strict=True):
        groups = [(a,) for g in thin.axes for a in g if a != ROWS]
        shape = [tuple(x.sizes[a] for a in g if a != ROWS) for g in thin.axes]
        if order is not None and shape != order:
            raise ConversionError("needs inputs that are equal in all other axes")
        order = shape
        values.append(builder.arranged(x, [*groups, x.axes[axis]]))
    last = len(builder.sizes[values[0]]) - 1
    joined = builder.add(Concat(last), *values)
    count = 0
    axes_of_result: list[tuple[int, ...]] = []
    for k, group in enumerate(whole[0].axes):
        if k == axis:
            axes_of_result.append((last,))
            continue
        made = []
        for a in group:
            made.append(ROWS if a == ROWS else count)
            count += a != ROWS
        axes_of_result.append(tuple(made))
    return Tensor(joined, builder.sizes[joined], tuple(axes_of_result))


def take(builder: Builder, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    """Return the elements of a tensor along one of ONNX's axes by public indices."""
    group = x.axes[axis]
    if ROWS in group:
        raise ConversionError("cannot select rows")
    size = x.size(axis)
    if not indices or not all(-size <= n < size for n in indices):
        raise ConversionError(f"needs indices below {size}, at least one")
    places = [n % size for n in indices]
    if places == list(range(size)):
        return x
    x = builder.one_axis(x, axis)
    made = builder.add(Take(x.axes[axis][0], places), x.value)
    return replace(x, value=made, sizes=builder.sizes[made])


@operator("Gather", "axis")
def _gather(builder: Builder, attributes: dict[str, Any], x: Any, indices: Any) -> Tensor:
    if isinstance(x, np.ndarray):
        return looked_up(builder, x, int(attributes.get("axis", 0)), indices)
    x = builder.tensor(x)
    axis = x.number(attributes.get("axis", 0))
    if isinstance(indices, Sizes):
        return _gathered_rows(builder, x, axis, indices)
    places = np.asarray(indices)
    taken = take(builder, x, axis, [int(n) for n in places.reshape(-1)])
    if places.ndim == 1:
        return taken
    if places.ndim == 0:
        return replace(taken, axes=(*taken.axes[:axis], *taken.axes[axis + 1 :]))
    (a,) = taken.axes[axis] if places.size > 1 else (None,)
    shape = list(places.shape)
    if a is None:
        groups: list[tuple[int, ...]] = [()] * len(shape)
        return replace(taken, axes=(*taken.axes[:axis], *groups, *taken.axes[axis + 1 :]))
    parts = builder.split(taken, {a: shape})
    groups = [(k,) for k in parts.axes[axis]]
    return replace(parts, axes=(*parts.axes[:axis], *groups, *parts.axes[axis + 1 :]))


def _gathered_rows(builder: Builder, x: Tensor, axis: int, indices: Sizes) -> Tensor:
    """Return what indices of each row's own elements take of an array without the axis of rows.

    So an exporter writes strides: the indices of a row are those of the first, and the rows' size on.
    """
    base = indices.pair[0][:1]
    size = x.size(axis)
    for found, rows in zip(indices.pair, builder.counts, strict=True):
        steps = np.arange(rows).reshape(-1, *[1] * (base.ndim - 1)) * size
        if not base.ndim or len(found) != rows or not np.array_equal(found, base + steps):
            raise ConversionError("must not compute with the number of rows but along each row")
    if axis != 0 or len(x.axes) != 1 or x.axes[0][0] != ROWS:
        raise ConversionError("must not select rows")
    apart = replace(x, axes=((ROWS,), x.axes[0][1:]))
    return _gather(builder, {"axis": 1}, apart, base[0])


@operator("Slice", "starts", "ends", "axes")
def _slice(
    builder: Builder, attributes: dict[str, Any], x: Any, starts: Any = None, ends: Any = None,
    axes: Any = None, steps: Any = None,
) -> Tensor:  # fmt: skip
    x = builder.tensor(x)
    first = attributes["starts"] if starts is None else _integers(starts)
    last = attributes["ends"] if ends is None else _integers(ends)
    named = axes_of(attributes, axes, len(x.axes)) or list(range(len(first)))
    step = [1] * len(first) if steps is None else _integers(steps)
    for a, b, axis, k in zip(first, last, named, step, strict=True):
        if ROWS in x.axes[axis]:
            if (a, k) == (0, 1) and b >= 10**9:
                continue
            raise ConversionError("cannot select rows")
        x = take(builder, x, axis, range(x.size(axis))[slice(a, b, k)])
    return x


@operator("Split", "axis", "split", "num_outputs")
def _split(
    builder: Builder, attributes: dict[str, Any], x: Any, sizes: Any = None
) -> tuple[Tensor, ...]:
    x = builder.tensor(x)
    axis = x.number(attributes.get("axis", 0))
    whole = x.size(axis)
    if sizes is not None:
        parts = _integers(sizes)
    elif "split" in attributes:
        parts = list(attributes["split"])
    else:
        count = attributes.get("num_outputs", attributes["outputs"])
        each = -(-whole // count)
        parts = [each] * (count - 1) + [whole - each * (count - 1)]
    if sum(parts) != whole:
        raise ConversionError(f"needs parts of {whole} elements, got {parts}")
    stops = np.cumsum(parts).tolist()
    return tuple(
        take(builder, x, axis, range(stop - size, stop))
        for stop, size in zip(stops, parts, strict=True)
    )


@operator("Trilu", "upper")
def _triangle(builder: Builder, attributes: dict[str, Any], x: Any, shift: Any = None) -> Tensor:
    x, k = builder.tensor(x), 0 if shift is None else int(constant(shift).reshape(()))
    if len(x.axes) < 2 or any(ROWS in group for group in x.axes[-2:]):
        raise ConversionError("needs two axes behind that of the rows")
    ones = np.ones([x.size(len(x.axes) - 2), x.size(len(x.axes) - 1)])
    kept = np.triu(ones, k) if attributes.get("upper", 1) else np.tril(ones, k)
    return builder.scaled(x, kept, None)


@operator("Expand")
def _expand(builder: Builder, attributes: dict[str, Any], x: Any, shape: Any) -> Tensor:
    x = builder.tensor(x)
    wanted = whole_sizes(shape)
    rank = max(len(x.axes), len(wanted[0]))
    x = replace(x, axes=((),) * (rank - len(x.axes)) + x.axes)
    for axis in range(rank - len(wanted[0]), rank):
        first, second = (v[axis - rank + len(v)] for v in wanted)
        if ROWS in x.axes[axis]:
            if first not in (1, builder.counts[0]):
                raise ConversionError("cannot repeat rows")
            continue
        if first != second:
            raise ConversionError("cannot repeat a value for each row")
        if first > 1 and x.size(axis) == 1:
            x = take(builder, x, axis, [0] * first)
        elif first not in (1, x.size(axis)):
            raise ConversionError(f"cannot expand an axis of {x.size(axis)} to {first}")
    return x


@operator("Tile")
def _tile(builder: Builder, attributes: dict[str, Any], x: Any, repeats: Any) -> Tensor:
    x = builder.tensor(x)
    for axis, count in enumerate(_integers(repeats)):
        if count != 1:
            x = take(builder, x, axis, list(range(x.size(axis))) * count)
    return x


@operator("Pad", "mode", "pads", "value")
def _pad(
    builder: Builder, attributes: dict[str, Any], x: Any, pads: Any = None, value: Any = None,
    axes: Any = None,
) -> Tensor:  # fmt: skip
    x = builder.tensor(x)
    mode = attributes.get("mode", b"constant").decode()
    number = attributes.get("value", 0.0) if value is None else float(constant(value).reshape(()))
    widths = list(attributes["pads"]) if pads is None else _integers(pads)
    named = axes_of(attributes, axes, len(x.axes)) or list(range(len(widths) // 2))
    half = len(widths) // 2
    pairs = {a: (widths[k], widths[k + half]) for k, a in enumerate(named)}
    for axis, (before, behind) in pairs.items():
        if not before and not behind:
            continue
        size = x.size(axis)
        if mode == "constant" and min(before, behind) >= 0:
            continue
        places = np.arange(size)
        if mode == "constant":  # negative widths cut
            kept = places[max(0, -before) : size - max(0, -behind)]
        else:
            kinds = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
            if mode not in kinds or min(before, behind) < 0:
                raise ConversionError(
                    f"needs mode constant, reflect, edge or wrap, got mode={mode}"
                )
            kept = np.pad(places, (before, behind), mode=kinds[mode])  # type: ignore[call-overload]
        x = take(builder, x, axis, [int(n) for n in kept])
    if mode != "constant":
        return x
    more = {a: (max(0, p), max(0, q)) for a, (p, q) in pairs.items() if max(p, q) > 0}
    if not more:
        return x
    if any(ROWS in x.axes[a] for a in more):
        raise ConversionError("cannot add rows")
    for axis in more:
        x = builder.one_axis(x, axis)
    sides = [(0, 0)] * len(x.sizes)
    for axis, pair in more.items():
        sides[x.axes[axis][0]] = pair
    made = builder.add(Pad(sides, number), x.value)
    return replace(x, value=made, sizes=builder.sizes[made])
