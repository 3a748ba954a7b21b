"""ONNX's Einsum as matrix products and sums of products, a function of :mod:`nn.convert.graph_table`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_arithmetic import contracted, is_constant, joined, product
from nn.convert.graph_axes import summed
from nn.convert.graph_builder import Builder
from nn.convert.graph_shaping import take
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Tensor, constant
from nn.layers.joining import Multiply

__all__: list[str] = []

# Names of the axes that an ellipsis stands for, the last one first: no letters, which are the user's.
_MORE = "0123456789"
# NumPy's names are letters.
_DIGITS = str.maketrans(_MORE, "ÀÁÂÃÄÅÆÇÈÉ")


def _parsed(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the axes of each operand and of the result, a character each."""
    given, arrow, wanted = equation.replace(" ", "").partition("->")
    names = given.split(",")
    if len(names) != len(ranks):
        raise ConversionError(f"needs {len(names)} operands, got {len(ranks)}")
    widths = [rank - len(n.replace("...", "")) for n, rank in zip(names, ranks, strict=True)]
    most = max([0, *(w for n, w in zip(names, widths, strict=True) if "..." in n)])
    if min(widths) < 0 or most > len(_MORE):
        raise ConversionError(f"needs operands of the axes that it names, got {equation}")
    if not arrow:
        once = [a for a, count in Counter("".join(names)).items() if count == 1 and a != "."]
        wanted = ("..." if "..." in given else "") + "".join(sorted(once))
    found = [n.replace("...", _MORE[:w][::-1]) for n, w in zip(names, widths, strict=True)]
    if any(len(n) != rank for n, rank in zip(found, ranks, strict=True)):
        raise ConversionError(f"needs operands of the axes that it names, got {equation}")
    return found, wanted.replace("...", _MORE[:most][::-1])


@operator("Einsum", "equation")
def _einsum(builder: Builder, attributes: dict[str, Any], *parts: Any) -> Tensor:
    operands: list[Any] = [constant(p) if is_constant(p) else builder.tensor(p) for p in parts]
    ranks = [x.ndim if is_constant(x) else len(x.axes) for x in operands]
    names, wanted = _parsed(attributes["equation"].decode(), ranks)
    if len(set(wanted)) < len(wanted):
        raise ConversionError(f"needs every axis of its result once, got {wanted}")
    if set(wanted) - set("".join(names)):
        raise ConversionError(f"needs the axes of its result among those of operands, got {wanted}")
    for k, (x, name) in enumerate(zip(operands, names, strict=True)):
        operands[k], names[k] = _diagonals(builder, x, name)
    x, name = operands[0], names[0]
    for k in range(1, len(operands)):
        later = set(wanted).union(*names[k + 1 :])
        between = "".join(dict.fromkeys(a for a in name + names[k] if a in later))
        x = _pair(
            builder, [x, operands[k]], [name, names[k]], wanted if k + 1 == len(names) else between
        )
        name = between
    return x if len(operands) > 1 else _pair(builder, operands, names, wanted)


def _diagonals(builder: Builder, x: Any, name: str) -> tuple[Any, str]:
    """Return an operand with every axis once: of those that have one name, the diagonal."""
    for a in dict.fromkeys(name):
        axes = [k for k, other in enumerate(name) if other == a]
        if len(axes) == 1:
            continue
        if not is_constant(x) and any(ROWS in x.axes[k] for k in axes):
            raise ConversionError("takes diagonals along the rows, which are computed separately")
        shape = x.shape if is_constant(x) else [x.size(k) for k in range(len(x.axes))]
        sizes = {shape[k] for k in axes}
        if len(sizes) > 1:
            raise ConversionError(f"needs axes of one size for {a}, got {sorted(sizes)}")
        size = sizes.pop()
        # All of them as one, of which every so many are taken.
        places = np.arange(size) * sum(size**k for k in range(len(axes)))
        first, others = axes[0], axes[1:]
        if is_constant(x):
            moved = np.moveaxis(x, axes, range(len(axes)))
            x = np.moveaxis(moved.reshape(-1, *moved.shape[len(axes) :])[places], 0, first)
        else:
            joined_up = tuple(part for k in axes for part in x.axes[k])
            groups = [
                joined_up if k == first else g for k, g in enumerate(x.axes) if k not in others
            ]
            x = take(builder, replace(x, axes=tuple(groups)), first, places.tolist())
        name = "".join(n for k, n in enumerate(name) if k not in others)
    return x, name


def _pair(builder: Builder, operands: list[Any], names: list[str], wanted: str) -> Any:
    """Return what one or two operands with every axis once give."""
    if all(map(is_constant, operands)):
        return np.einsum(f"{','.join(names)}->{wanted}".translate(_DIGITS), *operands)
    for k, (x, name) in enumerate(zip(operands, names, strict=True)):
        others = set(wanted).union(*(n for j, n in enumerate(names) if j != k))
        gone = [axis for axis, a in enumerate(name) if a not in others]
        if gone:
            operands[k] = _without(builder, x, gone)
            names[k] = "".join(a for a in name if a in others)
    if len(operands) == 1:
        (x,), (name,) = operands, names
        made: Tensor = replace(x, axes=tuple(x.axes[name.index(a)] for a in wanted))
        return made
    (x, y), (first, second) = operands, names
    if is_constant(x):
        x, y, first, second = y, x, second, first
    (rows,) = (a for a, group in zip(first, x.axes, strict=True) if ROWS in group)
    kept = [a for a in first if a in second and a in wanted and a != rows]
    summed_up = [a for a in first if a in second and a not in wanted]
    if is_constant(y):
        if summed_up and not kept and rows not in second:
            return _of_matrix(builder, x, y, (first, second), summed_up, wanted)
        if not summed_up:
            return _scaled(builder, x, y, (first, second), wanted)
        if rows not in second:  # an axis of its own, which repeats the constant for the rows
            y, second = y[None], rows + second
        y = builder.constant(y, second.index(rows))
    return _of_both(builder, x, y, (first, second), wanted)


def _without(builder: Builder, x: Any, axes: list[int]) -> Any:
    """Return the sum over axes."""
    if isinstance(x, np.ndarray):
        return x.sum(axis=tuple(axes))
    return summed(builder, {"keepdims": 0}, x, np.array(axes))


def _of_matrix(
    builder: Builder, x: Tensor, y: Any, names: tuple[str, str], shared: list[str], wanted: str
) -> Tensor:
    """Return the product of x and a constant matrix, along axes of both."""
    first, second = names
    rows, columns = ([a for a in name if a not in shared] for name in names)
    matrix = y.transpose([second.index(a) for a in (*shared, *columns)])
    flat = matrix.reshape(prod(matrix.shape[: len(shared)]), -1)
    one = _grouped(x, first, [*([a] for a in rows), shared])
    made = contracted(builder, one, len(rows), flat)
    (last,) = made.axes[-1]
    split = builder.split(made, {last: list(matrix.shape[len(shared) :]) or [1]})
    groups = [*split.axes[:-1], *((a,) for a in split.axes[-1])]
    order = [*rows, *columns]
    return replace(split, axes=tuple(groups[order.index(a)] for a in wanted))


def _scaled(builder: Builder, x: Tensor, y: Any, names: tuple[str, str], wanted: str) -> Tensor:
    """Return the products of x with a constant, of which nothing is summed."""
    first, second = names
    factor = y.transpose([second.index(a) for a in wanted if a in second])
    factor = factor.reshape([y.shape[second.index(a)] if a in second else 1 for a in wanted])
    one = replace(x, axes=tuple(x.axes[first.index(a)] if a in first else () for a in wanted))
    return builder.scaled(one, factor, None)


def _of_both(builder: Builder, x: Tensor, y: Tensor, names: tuple[str, str], wanted: str) -> Tensor:
    """Return the matrix products of two tensors, or their products where nothing is summed."""
    first, second = names
    kept = [a for a in first if a in second and a in wanted]
    shared = [a for a in first if a in second and a not in wanted]
    rows, columns = ([a for a in name if a not in kept + shared] for name in names)
    if not shared:
        order = [*kept, *rows, *columns]
        one, two = (
            replace(t, axes=tuple(t.axes[n.index(a)] if a in n else () for a in order))
            for t, n in ((x, first), (y, second))
        )
        made = joined(builder, Multiply(), one, two)
        return replace(made, axes=tuple(made.axes[order.index(a)] for a in wanted))
    sides = [
        [builder.slim(t).size(name.index(a)) for a in part]
        for t, name, part in ((x, first, rows), (y, second, columns))
    ]
    one = _grouped(x, first, [*([a] for a in kept), rows, shared])
    two = _grouped(y, second, [*([a] for a in kept), shared, columns])
    split = product(builder, one, two)
    (left,), (right,) = split.axes[-2], split.axes[-1]
    split = builder.split(split, {left: sides[0] or [1], right: sides[1] or [1]})
    groups = [*split.axes[:-2]]
    for end, side in zip(split.axes[-2:], sides, strict=True):
        groups += [(a,) for a in end][: len(side)]
    order = [*kept, *rows, *columns]
    return replace(split, axes=tuple(groups[order.index(a)] for a in wanted))


def _grouped(t: Tensor, name: str, groups: list[list[str]]) -> Tensor:
    parts = dict(zip(name, t.axes, strict=True))
    return replace(t, axes=tuple(tuple(p for a in group for p in parts[a]) for group in groups))
