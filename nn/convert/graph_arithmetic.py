"""ONNX operators that compute, as functions of :mod:`nn.convert.graph_table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_builder import Builder
from nn.convert.graph_table import operator
from nn.convert.graph_values import ROWS, Labels, Scores, Tensor, constant
from nn.layers import Layer
from nn.layers.clipping import Clip
from nn.layers.dense import Dense
from nn.layers.functions import Pow, Reciprocal
from nn.layers.joining import Add, MatMul, Maximum, Mean, Minimum, Multiply, Subtract
from nn.layers.relu import ReLU

__all__ = ["contracted", "is_constant", "joined", "limited", "product"]

Floats = NDArray[np.float64]
# Exporters write float32's largest number for no limit.
_NO_LIMIT = 1e30


def is_constant(x: Any) -> bool:
    return x is None or not isinstance(x, (Tensor, Scores, Labels))


def joined(builder: Builder, layer: Layer, *parts: Any) -> Tensor:
    """Return what a layer with several inputs makes of them, element by element."""
    values, result = builder.aligned(*(builder.tensor(p) for p in parts))
    made = builder.add(layer, *values)
    return replace(result, value=made, sizes=builder.sizes[made])


@operator("Add")
def _add(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    if is_constant(x):
        x, y = y, x
    if is_constant(y):
        return builder.shifted(builder.tensor(x), constant(y), None)
    return joined(builder, Add(), x, y)


@operator("Sub")
def _subtract(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    if is_constant(y):
        return builder.shifted(builder.tensor(x), -constant(y), None)
    if is_constant(x):
        return builder.shifted(builder.tensor(y), constant(x), -1.0)
    return joined(builder, Subtract(), x, y)


@operator("Mul")
def _multiply(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    whole = any(attributes["whole"])
    if is_constant(x):
        x, y = y, x
    if not is_constant(y):
        return joined(builder, Multiply(), x, y)
    factor = constant(y)
    # Zeros and ones times a mask's constant; of fractions nothing stands for the product.
    near = builder.near(factor) if whole else factor
    made = builder.scaled(builder.tensor(x), near, None)
    if not np.array_equal(near, factor):
        builder.far.add(made.value)
    return made


@operator("Div")
def _divide(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    if is_constant(y):
        with np.errstate(divide="ignore"):
            factor = 1 / constant(y)
        if not np.isfinite(factor).all():
            raise ConversionError("needs divisors other than 0")
        return builder.scaled(builder.tensor(x), factor, None)
    inverse = builder.elementwise(Reciprocal(), builder.tensor(y))
    if is_constant(x):
        whole = constant(x)
        one = whole.size == 1 and (whole == 1).all()
        return inverse if one else builder.scaled(inverse, whole, None)
    return joined(builder, Multiply(), x, inverse)


@operator("Neg")
def _negate(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    return builder.scaled(builder.tensor(x), -1.0, None)


@operator("Pow")
def _power(builder: Builder, attributes: dict[str, Any], x: Any, exponent: Any) -> Tensor:
    power = constant(exponent)
    if power.size != 1 or not np.isfinite(power).all() or not power.all():
        raise ConversionError("needs one exponent, finite and not 0")
    value = float(power.reshape(-1)[0])
    if value < 1 or not value.is_integer():
        return builder.elementwise(Pow(value), builder.tensor(x))
    x, left = builder.tensor(x), int(value)
    result = None
    while left:  # the square of a square ...
        if left & 1:
            result = x if result is None else joined(builder, Multiply(), result, x)
        left >>= 1
        if left:
            x = joined(builder, Multiply(), x, x)
    assert result is not None
    return result


def _several(layer: Callable[[], Layer], plain: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return the conversion of an operator with any number of inputs."""

    def convert(builder: Builder, attributes: dict[str, Any], *parts: Any) -> Tensor:
        secret = [builder.tensor(p) for p in parts if not is_constant(p)]
        public = [constant(p) for p in parts if is_constant(p)]
        if len(secret) == len(parts) == 1:
            return secret[0]
        if public:
            total = plain(public)
            if layer is Mean:
                return _mean_with(builder, secret, total, len(parts))
            both = secret[0] if len(secret) == 1 else joined(builder, layer(), *secret)
            return _with_constant(builder, layer(), both, total)
        return joined(builder, layer(), *secret)

    return convert


def limited(builder: Builder, x: Tensor, least: float | None, most: float | None) -> Tensor:
    """Apply a Clip, or the ReLU that it is; limits that no value reaches are none."""
    least = None if least is None or least <= -_NO_LIMIT else least
    most = None if most is None or most >= _NO_LIMIT else most
    if least is None and most is None:
        return x
    if least is not None and most is not None and least >= most:  # the upper limit is the last word
        return builder.scaled(x, 0.0, most)
    rectifies = least == 0 and most is None
    return builder.elementwise(ReLU() if rectifies else Clip(least, most), x)


def _with_constant(builder: Builder, layer: Layer, x: Tensor, value: Any) -> Tensor:
    if isinstance(layer, Add):
        return builder.scaled(x, None, value)
    if np.size(value) == 1 and np.ndim(value) <= len(x.axes):
        limit = float(np.reshape(value, ()))
        least, most = (limit, None) if isinstance(layer, Maximum) else (None, limit)
        return limited(builder, x, least, most)
    if not np.isfinite(value).all():
        raise ConversionError("needs finite constants, but for one number for all")
    # The constant as a value: x times 0, plus the constant.
    return joined(builder, layer, x, builder.scaled(x, 0.0, value))


def _mean_with(builder: Builder, secret: list[Tensor], total: Any, count: int) -> Tensor:
    both = secret[0] if len(secret) == 1 else joined(builder, Add(), *secret)
    return builder.scaled(both, 1 / count, total / count)


def _total(parts: list[Any]) -> Any:
    return sum(parts)


operator("Sum")(_several(Add, _total))
operator("Mean")(_several(Mean, _total))
operator("Max")(_several(Maximum, lambda parts: np.maximum.reduce(np.broadcast_arrays(*parts))))
operator("Min")(_several(Minimum, lambda parts: np.minimum.reduce(np.broadcast_arrays(*parts))))


def contracted(
    builder: Builder, x: Tensor, axis: int, matrix: Floats, bias: Floats | None = None
) -> Tensor:
    """Return a tensor one of whose axes is multiplied by a matrix of shape (size, outputs)."""
    x = builder.slim(x)
    group = x.axes[axis]
    if ROWS in group:
        raise ConversionError("multiplies along the rows, which are computed separately")
    if x.size(axis) != matrix.shape[0]:
        raise ConversionError(f"needs an axis of {matrix.shape[0]}, got {x.size(axis)}")
    # The parts of the axis as they lie in rows: the matrix is put in their order.
    lying = tuple(sorted(group))
    sizes = [x.sizes[a] for a in group]
    moved = matrix.reshape(*sizes, -1).transpose(
        *(group.index(a) for a in lying), len(group)
    )  # fmt: skip
    weights = np.ascontiguousarray(moved.reshape(matrix.shape[0], -1))
    used = {a for g in x.axes for a in g}
    others = [a for a in range(len(x.sizes)) if a not in group and a in used]
    value = builder.arranged(x, [*((a,) for a in others), lying])
    summand = np.zeros(matrix.shape[1]) if bias is None else bias
    made = builder.add(Dense(weights, np.array(summand)), value)
    places = {a: k for k, a in enumerate(others)} | {ROWS: ROWS}
    axes = tuple(
        (len(others),) if k == axis else tuple(places[a] for a in g) for k, g in enumerate(x.axes)
    )
    return Tensor(made, builder.sizes[made], axes)


@operator("MatMul")
def _matmul(builder: Builder, attributes: dict[str, Any], x: Any, y: Any) -> Tensor:
    if is_constant(y):
        x, matrix = builder.tensor(x), constant(y)
        if matrix.ndim == 1:
            made = contracted(builder, x, len(x.axes) - 1, matrix[:, None])
            return replace(made, axes=made.axes[:-1])
        if matrix.ndim > 2 and max(matrix.shape[:-2]) == 1:
            matrix = matrix.reshape(matrix.shape[-2:])
        if matrix.ndim == 2:
            return contracted(builder, x, len(x.axes) - 1, matrix)
        return product(builder, x, _beside(builder, x, matrix))
    if is_constant(x):
        y, matrix = builder.tensor(y), constant(x)
        if matrix.ndim > 2:
            return product(builder, _beside(builder, y, matrix), y)
        if matrix.ndim != 2 or len(y.axes) < 2:
            raise ConversionError(f"needs weights with two axes, got shape {matrix.shape}")
        return contracted(builder, y, len(y.axes) - 2, matrix.T)
    return product(builder, builder.tensor(x), builder.tensor(y))


def _beside(builder: Builder, x: Tensor, matrices: Floats) -> Tensor:
    """Return constant matrices, one for each place of other axes, as a Tensor of the axes of x."""
    rows = next(k for k, group in enumerate(x.axes) if ROWS in group)
    if matrices.ndim > len(x.axes):
        raise ConversionError(f"needs weights of at most {len(x.axes)} axes, got {matrices.ndim}")
    ahead = (1,) * (len(x.axes) - matrices.ndim)
    return builder.constant(matrices.reshape(ahead + matrices.shape), rows)


def product(builder: Builder, x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product of two tensors."""
    if len(x.axes) < 2 or len(y.axes) < 2:
        raise ConversionError("needs operands with two axes or more")
    m, k, n = x.axes[-2], x.axes[-1], y.axes[-1]
    if any(ROWS in g for g in (m, k, y.axes[-2], n)):
        raise ConversionError("multiplies along the rows, which are computed separately")
    if x.size(len(x.axes) - 1) != y.size(len(y.axes) - 2):
        raise ConversionError("needs operands that agree in the inner dimension")
    # The axes before the last two are aligned by tensors that have no others.
    one, two = builder.one_axis(x, len(x.axes) - 2), builder.one_axis(y, len(y.axes) - 2)
    one, two = builder.one_axis(one, len(x.axes) - 1), builder.one_axis(two, len(y.axes) - 1)
    rank = max(len(x.axes), len(y.axes))
    one, two = (replace(t, axes=((),) * (rank - len(t.axes)) + t.axes) for t in (one, two))
    for axis in range(rank - 2):
        one, two = builder.refined([one, two], axis)
    lead = [
        [[a for a in g if a != ROWS and t.sizes[a] > 1] for g in t.axes[:-2]] for t in (one, two)
    ]
    groups: list[list[tuple[int, ...]]] = [[], []]
    sizes: list[int] = []
    axes: list[tuple[int, ...]] = []
    for axis in range(rank - 2):
        parts = [lead[0][axis], lead[1][axis]]
        width = max(map(len, parts))
        made: list[int] = []
        for place in range(width):
            for side in (0, 1):
                groups[side].append((parts[side][place],) if parts[side] else ())
            made.append(len(sizes))
            sizes.append(1)
        whole = next((t.axes[axis] for t in (one, two) if ROWS in t.axes[axis]), None)
        if whole is not None:
            made.insert(list(whole).index(ROWS), ROWS)
        axes.append(tuple(made))
    values = [
        builder.arranged(t, [*side, t.axes[-2], t.axes[-1]])
        for t, side in zip((one, two), groups, strict=True)
    ]
    made_value = builder.add(MatMul(), *values)
    axes += [(len(sizes),), (len(sizes) + 1,)]
    return Tensor(made_value, builder.sizes[made_value], tuple(axes))


@operator("Gemm", "alpha", "beta", "transA", "transB")
def _gemm(builder: Builder, attributes: dict[str, Any], x: Any, y: Any, z: Any = None) -> Tensor:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if attributes.get("transA", 0):
        if is_constant(x):
            x = np.asarray(x).T
        else:
            x = replace(builder.tensor(x), axes=builder.tensor(x).axes[::-1])
    if attributes.get("transB", 0):
        if is_constant(y):
            y = np.asarray(y).T
        else:
            y = replace(builder.tensor(y), axes=builder.tensor(y).axes[::-1])
    bias = None
    if is_constant(y) and not is_constant(x):
        matrix = constant(y) * alpha
        x = builder.tensor(x)
        if len(x.axes) != 2:
            raise ConversionError(f"needs operands with two axes, got {len(x.axes)}")
        if z is not None and is_constant(z):
            summand = constant(z) * beta
            if summand.ndim < 2 or summand.shape[0] == 1:
                bias, z = np.broadcast_to(summand.reshape(-1), matrix.shape[1]), None
        made = contracted(builder, x, 1, matrix, bias)
    else:
        made = _matmul(builder, {}, x, y)
        made = made if alpha == 1 else builder.scaled(made, alpha, None)
    if z is None:
        return made
    if is_constant(z):
        return builder.scaled(made, None, constant(z) * beta)
    added = builder.tensor(z)
    added = added if beta == 1 else builder.scaled(added, beta, None)
    return joined(builder, Add(), made, added)


@operator("BatchNormalization", "epsilon", "momentum", "training_mode", "spatial")
def _batch_normalization(
    builder: Builder, attributes: dict[str, Any], x: Any, scale: Any, bias: Any, mean: Any,
    variance: Any,
) -> Tensor:  # fmt: skip
    if attributes.get("training_mode", 0) or attributes["outputs"] > 1:
        raise ConversionError(
            "needs training_mode=0 and one output: export the model for inference"
        )
    x = builder.tensor(x)
    factor = constant(scale) / np.sqrt(constant(variance) + attributes.get("epsilon", 1e-5))
    summand = constant(bias) - constant(mean) * factor
    ones = (1,) * (len(x.axes) - 2)
    return builder.scaled(x, factor.reshape(-1, *ones), summand.reshape(-1, *ones))
