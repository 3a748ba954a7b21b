"""Operators of graphs of learned models, as functions of :mod:`nn.convert.learned_values`.

Every function takes the context, a node's attributes and its inputs, and returns the value of its output.
It raises ConversionError for a use that Sotto cannot compute; its message completes "Operator (node): ".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.conversion import Scores
from nn.convert.expressions import Affine, joined
from nn.convert.graph_whole import FLOATS
from nn.convert.learned_models import MODELS
from nn.convert.learned_values import Context, Labelled, Numbers, Odds, computed, labels_of, numbers
from nn.convert.problems import ConversionError
from nn.convert.sklearn_transformers import normalised
from nn.convert.sklearn_trees import from_float32
from nn.layers import LAYERS, Clip, Layer, Multiply

__all__ = ["operators"]

Floats = NDArray[np.float64]
Convert = Callable[..., Any]
# ONNX's numbers of float types, and of float64.
_DOUBLE = 11


def _constant(value: Any, size: int) -> Floats:
    """Return a constant operand with one number for each column."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConversionError("needs a constant of numbers for its other operand")
    if value.ndim > 2 or (value.ndim == 2 and value.shape[0] != 1):
        raise ConversionError(f"needs a constant that is the same for all rows, got {value.shape}")
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (size,))


def _stepped(context: Context, x: Numbers, name: str, by: Floats, affine: Affine) -> Numbers:
    """Return an affine map of each column, whose paths grow by a step."""
    paths = tuple(
        None
        if path is None or context.double or (name in "*/" and number == 0)
        else (path[0], (*path[1], (name, float(number))))
        for path, number in zip(x.paths, by, strict=True)
    )
    return Numbers(affine, paths)


def _by(name: str) -> Convert:
    def convert(context: Context, attributes: dict[str, Any], x: Any, y: Any) -> Any:
        if name in "+*" and isinstance(x, np.ndarray):
            x, y = y, x
        if name == "/" and isinstance(x, Numbers) and isinstance(y, Numbers):
            if y.summed is x.affine:  # shares of a total
                odds = Scores(x.affine, np.arange(x.affine.size), "normalised")
                return Odds(odds)
        if isinstance(y, np.ndarray):
            x = numbers(context, x)
            factors = _constant(y, x.affine.size)
            if name in "+-":
                added = factors if name == "+" else -factors
                return _stepped(context, x, name, factors, x.affine.map(np.ones(len(added)), added))
            return _stepped(
                context, x, name, factors, x.affine * (factors if name == "*" else 1 / factors)
            )
        if isinstance(x, np.ndarray):
            other = numbers(context, y).affine
            if name != "-":
                raise ConversionError("must divide by a constant")
            return computed((-other).map(np.ones(other.size), _constant(x, other.size)))
        left, right = numbers(context, x).affine, numbers(context, y).affine
        if left.size != right.size:
            if 1 not in (left.size, right.size):
                raise ConversionError(f"needs as many columns, got {left.size} and {right.size}")
            spread = np.ones((1, max(left.size, right.size)))
            left, right = (a.map(spread) if a.size == 1 else a for a in (left, right))
        if name == "/":
            raise ConversionError("must divide by a constant, or by the sum of its own columns")
        if name == "*":
            return computed(context.c.build.apply(Multiply(), left, right))
        return computed(left + right if name == "+" else left - right)

    return convert


def _sum(context: Context, attributes: dict[str, Any], *parts: Any) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = _by("+")(context, {}, total, part)
    return total


def _negative(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    return computed(-numbers(context, x).affine)


def _scaler(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    x = numbers(context, x)
    offset, scale = (
        np.broadcast_to(np.asarray(attributes.get(key, [value]), np.float64), (x.affine.size,))
        for key, value in (("offset", 0.0), ("scale", 1.0))
    )
    moved = _stepped(context, x, "-", offset, x.affine.map(np.ones(x.affine.size), -offset))
    return _stepped(context, moved, "*", scale, moved.affine * scale)


def _matmul(context: Context, attributes: dict[str, Any], x: Any, weights: Any) -> Numbers:
    if not isinstance(weights, np.ndarray) or weights.ndim != 2:
        raise ConversionError("needs a matrix of constants behind the rows")
    return computed(numbers(context, x).affine.map(weights.astype(np.float64)))


def _gemm(
    context: Context, attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None
) -> Numbers:
    if attributes.get("transA", 0) or not isinstance(weights, np.ndarray):
        raise ConversionError("needs transA=0, and a matrix of constants")
    matrix = weights.astype(np.float64) * attributes.get("alpha", 1.0)
    matrix = matrix.T if attributes.get("transB", 0) else matrix
    added = np.zeros(1) if bias is None else bias * attributes.get("beta", 1.0)
    affine = numbers(context, x).affine
    return computed(affine.map(matrix, _constant(np.asarray(added), matrix.shape[1])))


def _same(context: Context, attributes: dict[str, Any], x: Any, *other: Any) -> Any:
    return x


def _concat(context: Context, attributes: dict[str, Any], *parts: Any) -> Numbers:
    if attributes.get("axis", 1) not in (1, -1):
        raise ConversionError(f"needs axis=1, got axis={attributes['axis']}")
    found = [numbers(context, part) for part in parts]
    return Numbers(joined([n.affine for n in found]), tuple(p for n in found for p in n.paths))


def _vectorizer(context: Context, attributes: dict[str, Any], *parts: Any) -> Numbers:
    found = _concat(context, {}, *parts)
    sizes = attributes.get("inputdimensions")
    if sizes is not None and sum(sizes) != found.affine.size:
        raise ConversionError(f"needs columns as in inputdimensions, {sizes}")
    return found


def _extractor(context: Context, attributes: dict[str, Any], x: Any, y: Any) -> Any:
    if isinstance(x, np.ndarray) and isinstance(y, Labelled):
        return Labelled(replace(y.scores, classes=x.reshape(-1)))
    if not isinstance(y, np.ndarray):
        raise ConversionError("needs constant columns, or an argmax that selects from the labels")
    return numbers(context, x).take([int(k) for k in y.reshape(-1)])


def _slice(
    context: Context, attributes: dict[str, Any], x: Any,
    starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None,
) -> Numbers:  # fmt: skip
    x = numbers(context, x)
    start, end, axis, step = (
        attributes.get(key, [1]) if value is None else np.ravel(value).tolist()
        for key, value in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
    )
    if axis not in ([1], [-1]):
        raise ConversionError("needs axes=[1]")
    return x.take(list(range(x.affine.size))[start[0] : end[0] : step[0]])


def _reshape(context: Context, attributes: dict[str, Any], x: Any, shape: Any) -> Any:
    size = x.affine.size if isinstance(x, Numbers) else 1
    size = x.scores.values.size if isinstance(x, Odds) else size
    target = np.ravel(shape).tolist()
    if isinstance(x, Labelled) or (len(target) == 2 and target[0] in (-1, 0)):
        if isinstance(x, Labelled) or target[1] in (-1, size):
            return x
    raise ConversionError(f"must keep the rows, of {size} columns, got shape {target}")


def _softmax(context: Context, attributes: dict[str, Any], x: Any) -> Odds:
    if attributes.get("axis", 1) not in (1, -1):
        raise ConversionError(f"needs the axis of the classes, got axis={attributes['axis']}")
    values = numbers(context, x).affine
    return Odds(Scores(values, np.arange(values.size), "softmax"))


def _argmax(context: Context, attributes: dict[str, Any], x: Any) -> Labelled:
    if attributes.get("axis", 0) not in (1, -1) or attributes.get("select_last_index", 0):
        raise ConversionError("needs the axis of the classes, and select_last_index=0")
    if isinstance(x, Odds):
        return Labelled(x.scores)
    values = numbers(context, x).affine
    return Labelled(Scores(values, np.arange(values.size), None))


def _reduce_sum(context: Context, attributes: dict[str, Any], x: Any, axes: Any = None) -> Numbers:
    named = attributes.get("axes") if axes is None else np.ravel(axes).tolist()
    if named not in ([1], [-1]):
        raise ConversionError("needs axes=[1]")
    affine = numbers(context, x).affine
    return Numbers(affine.map(np.ones((affine.size, 1))), (None,), summed=affine)


def _clip(
    context: Context, attributes: dict[str, Any], x: Any, low: Any = None, high: Any = None
) -> Numbers:
    ends = [
        attributes.get(key) if value is None else float(np.ravel(value)[0])
        for key, value in (("min", low), ("max", high))
    ]
    return computed(context.c.build.apply(Clip(*ends), numbers(context, x).affine))


def _cast(context: Context, attributes: dict[str, Any], x: Any) -> Any:
    if not isinstance(x, Labelled) and attributes["to"] not in FLOATS:
        raise ConversionError("must cast to a float type: rounding to integers is not converted")
    if isinstance(x, Numbers) and context.double and attributes["to"] != _DOUBLE:
        return replace(x, paths=(None,) * len(x.paths))
    return x


def _normalizer(context: Context, attributes: dict[str, Any], x: Any) -> Any:
    norm = attributes.get("norm", b"MAX").decode()
    if isinstance(x, Odds) and norm == "L1" and x.scores.link is not None:
        sums = x.scores.link != "sigmoids"
        return x if sums else Odds(replace(x.scores, link="one_vs_rest"))
    if norm not in ("L1", "L2"):
        raise ConversionError("needs norm L1 or L2: MAX divides by the largest value with its sign")
    return computed(normalised(context.c, numbers(context, x).affine, norm.lower()))


def _binarizer(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
    limit = float(attributes.get("threshold", 0.0))
    limit = limit if context.double else float(from_float32([limit])[0])
    return computed(context.c.above(numbers(context, x).affine, limit))


def _imputer(context: Context, attributes: dict[str, Any], x: Any) -> Any:
    if not np.isnan(attributes.get("replaced_value_float", 0.0)):
        raise ConversionError("must replace NaN, which no row has that is shared, and no number")
    return x


def _zip_map(context: Context, attributes: dict[str, Any], x: Any) -> Odds:
    if isinstance(x, Numbers):
        return Odds(Scores(x.affine, labels_of(attributes), None))
    return Odds(replace(x.scores, classes=labels_of(attributes)))


def _one_hot(context: Context, attributes: dict[str, Any], x: Any) -> Any:
    raise ConversionError(
        "encodes categories, which the owner of the rows does in the clear: begin the graph behind it, "
        "or use nn.from_sklearn(..., public_preprocessing=True)"
    )


def _activation(kind: type[Layer], named: Mapping[str, tuple[str, float | str]]) -> Convert:
    """Return the conversion to an activation; `named` is NamedElsewhere.onnx_attributes."""

    def activate(context: Context, attributes: dict[str, Any], x: Any) -> Numbers:
        options = {
            argument: attributes.get(name, default) for name, (argument, default) in named.items()
        }
        layer = kind(**{k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()})
        return computed(context.c.build.apply(layer, numbers(context, x).affine))

    return activate


_OPERATORS: dict[str, tuple[Convert, tuple[str, ...]]] = {
    "Add": (_by("+"), ()),
    "ArgMax": (_argmax, ("axis", "keepdims", "select_last_index")),
    "ArrayFeatureExtractor": (_extractor, ()),
    "Binarizer": (_binarizer, ("threshold",)),
    "Cast": (_cast, ("to", "saturate", "round_mode")),
    "Clip": (_clip, ("min", "max")),
    "Concat": (_concat, ("axis",)),
    "Div": (_by("/"), ()),
    "FeatureVectorizer": (_vectorizer, ("inputdimensions",)),
    "Gemm": (_gemm, ("alpha", "beta", "transA", "transB")),
    "Identity": (_same, ()),
    "Imputer": (
        _imputer,
        (
            "imputed_value_floats",
            "imputed_value_int64s",
            "replaced_value_float",
            "replaced_value_int64",
        ),
    ),
    "MatMul": (_matmul, ()),
    "Mul": (_by("*"), ()),
    "Neg": (_negative, ()),
    "Normalizer": (_normalizer, ("norm",)),
    "OneHotEncoder": (_one_hot, ("cats_int64s", "cats_strings", "zeros")),
    "ReduceSum": (_reduce_sum, ("axes", "keepdims", "noop_with_empty_axes")),
    "Reshape": (_reshape, ("allowzero",)),
    "Scaler": (_scaler, ("offset", "scale")),
    "Slice": (_slice, ("axes", "ends", "starts")),
    "Softmax": (_softmax, ("axis",)),
    "Sub": (_by("-"), ()),
    "Sum": (_sum, ()),
    "ZipMap": (_zip_map, ("classlabels_int64s", "classlabels_strings")),
    **MODELS,
}


def operators() -> dict[str, tuple[Convert, tuple[str, ...]]]:
    """Return, by the operator's name, the function that converts it and the attributes it takes.

    The activations are those that are registered in :data:`nn.layers.LAYERS`.
    """
    found = dict(_OPERATORS)
    for kind in LAYERS.values():
        named = kind.named_elsewhere
        if named is not None and named.onnx is not None:
            convert = _activation(kind, named.onnx_attributes)
            found.setdefault(named.onnx, (convert, tuple(named.onnx_attributes)))
    return found
