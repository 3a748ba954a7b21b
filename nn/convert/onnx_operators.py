"""ONNX operators on vectors, labels and probabilities, as functions of :mod:`nn.convert.onnx_values`.

Every function takes a node's attributes and inputs, and returns the value of its output: a new layer,
or the input's last affine map with the operator folded in. It raises ConversionError for a use of the
operator that Sotto cannot compute; the message completes "Operator (node ...): ".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_whole import FLOATS, INTEGERS
from nn.convert.onnx_images import IMAGE_OPERATORS
from nn.convert.onnx_values import (
    Images,
    Labels,
    Probabilities,
    Rows,
    Sizes,
    Value,
    as_images,
    as_rows,
    constant,
    of_one_row,
)
from nn.layers import LAYERS, Layer

__all__ = ["operators"]

Floats = NDArray[np.float64]
Operator = Callable[..., Value | tuple[Value, ...]]


def _identity(attributes: dict[str, Any], x: Value, *other: Value) -> Value:
    return x


def _activation(kind: type[Layer], named: Mapping[str, tuple[str, float | str]]) -> Operator:
    """Return the conversion to an activation; `named` is NamedElsewhere.onnx_attributes."""

    def activate(attributes: dict[str, Any], x: Value) -> Rows | Images:
        options = {
            argument: attributes.get(name, default) for name, (argument, default) in named.items()
        }
        layer = kind(**{k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()})
        if isinstance(x, Images):
            return x.follow(layer, shape=x.shape)
        return as_rows(x).activate(layer)

    return activate


def _matmul(attributes: dict[str, Any], x: Value, weights: Value) -> Rows:
    rows, matrix = as_rows(x, 1), constant(weights)
    if matrix.ndim > 2:
        raise ConversionError(f"needs weights with two axes, got shape {matrix.shape}")
    if matrix.ndim == 1:
        return replace(rows.then(matrix[:, None], np.zeros(1)), shape=())
    return rows.then(matrix, np.zeros(matrix.shape[1]))


def _gemm(attributes: dict[str, Any], x: Value, weights: Value, bias: Value | None = None) -> Rows:
    rows, matrix = as_rows(x, 1), constant(weights)
    if attributes.get("transA", 0):
        raise ConversionError("needs transA=0")
    matrix = (matrix.T if attributes.get("transB", 0) else matrix) * attributes.get("alpha", 1.0)
    added = np.zeros(()) if bias is None else constant(bias) * attributes.get("beta", 1.0)
    return rows.then(matrix, of_one_row(added, (matrix.shape[1],)))


def _plus(x: Value, values: Floats, sign: float = 1.0) -> Rows | Images:
    """Return sign * x + values."""
    by_channel = _by_channel(x, values)
    if by_channel is not None:
        return as_images(x).affine(sign, by_channel)
    rows = as_rows(x)
    return rows.scaled(sign, of_one_row(values, rows.shape))


def _times(x: Value, values: Floats) -> Rows | Images:
    """Return x * values."""
    by_channel = _by_channel(x, values)
    if by_channel is not None:
        return as_images(x).affine(by_channel, 0.0)
    rows = as_rows(x)
    return rows.scaled(of_one_row(values, rows.shape), 0.0)


def _by_channel(x: Value, values: Floats) -> Floats | None:
    """Return a constant operand of images as one value for each channel.

    None if x is no image, or if the constant varies within a channel.
    """
    if not isinstance(x, (Rows, Images)):
        return None
    if isinstance(x, Rows) and (x.weights is not None or len(x.shape) != 3):
        return None
    whole = of_one_row(values, x.shape).reshape(x.shape[0], -1)
    return whole[:, 0] if (whole == whole[:, :1]).all() else None


def _operands(x: Value, y: Value) -> tuple[Value, Floats]:
    """Return the operand that depends on the graph's input, and the constant one."""
    return (y, constant(x)) if isinstance(x, (np.ndarray, Sizes)) else (x, constant(y))


def _add(attributes: dict[str, Any], x: Value, y: Value) -> Rows | Images:
    return _plus(*_operands(x, y))


def _subtract(attributes: dict[str, Any], x: Value, y: Value) -> Rows | Images:
    if isinstance(x, (np.ndarray, Sizes)):
        return _plus(y, constant(x), -1.0)
    return _plus(x, -constant(y))


def _multiply(attributes: dict[str, Any], x: Value, y: Value) -> Rows | Images:
    return _times(*_operands(x, y))


def _divide(attributes: dict[str, Any], x: Value, y: Value) -> Rows | Images:
    return _times(x, 1 / constant(y))


def _scaler(attributes: dict[str, Any], x: Value) -> Rows:
    rows = as_rows(x, 1)
    offset, scale = np.array(attributes["offset"]), np.array(attributes["scale"])
    return rows.scaled(scale, -offset * scale)


def _batch_normalization(
    attributes: dict[str, Any], x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Rows | Images:
    if attributes.get("training_mode", 0):
        raise ConversionError("needs training_mode=0: export the model for inference")
    factor = constant(scale) / np.sqrt(constant(variance) + attributes.get("epsilon", 1e-5))
    summand = constant(bias) - constant(mean) * factor
    if isinstance(x, Images) or (isinstance(x, Rows) and len(x.shape) == 3):
        return as_images(x).affine(factor, summand)
    return as_rows(x, 1).scaled(factor, summand)


def _shape(attributes: dict[str, Any], x: Value) -> Value:
    rows = x if isinstance(x, Images) else as_rows(x)
    sizes = np.array([rows.batch, *rows.shape], np.int64)
    part = slice(attributes.get("start", 0), attributes.get("end"))
    of_rows = (np.arange(len(sizes)) == 0)[part]
    return Sizes(sizes[part], of_rows) if of_rows.any() else sizes[part]


def _flatten(attributes: dict[str, Any], x: Value) -> Value:
    if attributes.get("axis", 1) == 1 and isinstance(x, (Probabilities, Labels)):
        return x
    rows = as_rows(x)
    if attributes.get("axis", 1) % (len(rows.shape) + 1) != 1:
        raise ConversionError(f"needs axis=1, which keeps the rows, got axis={attributes['axis']}")
    return replace(rows, shape=(prod(rows.shape),))


def _reshape(attributes: dict[str, Any], x: Value, shape: Value) -> Value:
    if isinstance(shape, Sizes):
        if shape.of_rows[1:].any():
            raise ConversionError(
                "must keep the rows: of the new sizes, the first alone may be the number of rows"
            )
        shape = shape.array
    target = [int(n) for n in constant(shape)]
    if isinstance(x, (Probabilities, Labels)):
        width = prod(x.rows.shape) if isinstance(x, Probabilities) else 1
        batch = x.rows.batch
        kept = target[1:] in ([width], [-1]) or (isinstance(x, Labels) and len(target) == 1)
        if kept and target[0] in (-1, 0, batch):
            return x
        raise ConversionError(f"must keep the rows, got shape {target}")
    rows = as_rows(x)
    size = prod(rows.shape)
    rest = target[1:]
    if not attributes.get("allowzero", 0):  # 0 stands for the input's size of the same axis
        rest = [rows.shape[k] if n == 0 and k < len(rows.shape) else n for k, n in enumerate(rest)]
    # The first axis counts rows, so the other sizes must multiply to the elements of one row. A -1
    # among them stands for the size that makes them do so. That is certain only if the first size is
    # the number of rows: 0, which repeats the input's size, or `batch`, which is -1 if the graph leaves
    # the number open.
    if rest.count(-1) == 1 and target[0] in (0, rows.batch):
        known = prod(n for n in rest if n != -1)
        rest = [size // known if n == -1 and known else n for n in rest]
    if not target or min(rest, default=1) < 1 or prod(rest) != size:
        raise ConversionError(f"must keep the rows, of shape {rows.shape} each, got shape {target}")
    return replace(rows, shape=tuple(rest))


def _axes(attributes: dict[str, Any], axes: Value | None, count: int) -> list[int]:
    """Return a node's axes as axes of a row, from 0 on.

    The node counts them in an array of `count` axes, whose axis 0 counts rows.
    """
    named = attributes.get("axes") if axes is None else constant(axes)
    found = [] if named is None else [int(a) % count - 1 for a in named]
    if not found or min(found) < 0:
        raise ConversionError("needs axes other than axis 0, which counts the rows")
    return found


def _squeeze(attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    if isinstance(x, Labels):  # of shape (rows,) or (rows, 1)
        _axes(attributes, np.array([1]) if axes is attributes.get("axes") is None else axes, 2)
        return x
    rows = as_rows(x)
    removed = _axes(attributes, axes, len(rows.shape) + 1)
    if any(rows.shape[a] != 1 for a in removed):
        raise ConversionError(f"must remove axes of size 1, got rows of shape {rows.shape}")
    return replace(rows, shape=tuple(n for k, n in enumerate(rows.shape) if k not in removed))


def _unsqueeze(attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    rows = as_rows(x)
    named = attributes.get("axes") if axes is None else constant(axes)
    count = len(rows.shape) + 1 + (0 if named is None else len(named))
    new = _axes(attributes, axes, count)
    shape = list(rows.shape)
    for axis in sorted(new):
        shape.insert(axis, 1)
    return replace(rows, shape=tuple(shape))


def _transpose(attributes: dict[str, Any], x: Value) -> Rows:
    rows = as_rows(x)
    count = len(rows.shape) + 1
    order = list(attributes.get("perm", range(count)[::-1]))
    if sorted(order) != list(range(count)) or order[0] != 0:
        raise ConversionError(f"needs perm to keep axis 0, which counts the rows, got perm={order}")
    places = np.arange(prod(rows.shape)).reshape(rows.shape).transpose([a - 1 for a in order[1:]])
    return rows.take(places.reshape(-1), places.shape)


def _dropout(
    attributes: dict[str, Any], x: Value, ratio: Any = None, training: Any = None
) -> Value:
    if isinstance(training, np.ndarray) and training.any():
        raise ConversionError("needs training_mode=False: export the model for inference")
    return x


def _softmax(attributes: dict[str, Any], x: Value) -> Probabilities:
    rows = as_rows(x, 1)
    if attributes.get("axis", 1) not in (1, -1):
        raise ConversionError(f"needs the axis of the classes, got axis={attributes['axis']}")
    return Probabilities(rows, "softmax")


def _log_softmax(attributes: dict[str, Any], x: Value) -> Probabilities:
    return replace(_softmax(attributes, x), log=True)


def _argmax(attributes: dict[str, Any], x: Value) -> Labels:
    rows = x.rows if isinstance(x, Probabilities) else as_rows(x, 1)
    if attributes.get("axis", 0) not in (1, -1) or attributes.get("select_last_index", 0):
        raise ConversionError(
            "needs the axis of the classes, and select_last_index=0: the first of equal scores"
        )
    return Labels(rows)


def _concat(attributes: dict[str, Any], *parts: Value) -> Rows:
    rows = [as_rows(part, 1) for part in parts]
    if attributes.get("axis") not in (1, -1) or any(r.core is not rows[0].core for r in rows):
        raise ConversionError("needs axis=1, and inputs that are affine maps of the same layer")
    return replace(
        rows[0],
        weights=np.hstack([r.matrix() for r in rows]),
        bias=np.concatenate([r.bias for r in rows]),
        shape=(sum(len(r.bias) for r in rows),),
    )


def _array_feature_extractor(attributes: dict[str, Any], x: Value, y: Value) -> Value:
    if isinstance(x, np.ndarray) and isinstance(y, Labels) and y.classes is None:
        return replace(y, classes=x.reshape(-1))
    # Column 1 of the probabilities of two classes, from which column 0 follows.
    if isinstance(x, Probabilities) and isinstance(y, np.ndarray):
        if x.rows.shape == (2,) and y.reshape(-1).tolist() == [1]:
            return Probabilities(x.rows, None)
    raise ConversionError("needs an argmax that selects from the labels of the classes")


def _cast(attributes: dict[str, Any], x: Value) -> Value:
    to = attributes["to"]
    if to not in FLOATS and not (isinstance(x, Labels) and to in INTEGERS):
        raise ConversionError("must cast to a float type: rounding to integers is not converted")
    return x


def _zip_map(attributes: dict[str, Any], x: Value) -> Value:
    if not isinstance(x, Probabilities):
        raise ConversionError("is converted behind probabilities only")
    return replace(x, classes=_labels(attributes))


def _labels(attributes: dict[str, Any]) -> NDArray[Any]:
    """Return the labels of the classes that a node names, in the order of its outputs."""
    for key in ("classlabels_strings", "classlabels_ints", "classlabels_int64s"):
        if attributes.get(key):
            return np.array([n.decode() if isinstance(n, bytes) else n for n in attributes[key]])
    raise ConversionError("needs the labels of its classes")


def _coefficients(attributes: dict[str, Any], rows: Rows) -> tuple[Floats, Floats]:
    """Return weights of shape (features, outputs) and bias of a linear model."""
    weights = np.array(attributes["coefficients"], dtype=np.float64).reshape(-1, prod(rows.shape)).T
    bias = np.array(attributes.get("intercepts") or np.zeros(weights.shape[1]), dtype=np.float64)
    return weights, bias


def _linear_classifier(attributes: dict[str, Any], x: Value) -> tuple[Labels, Probabilities]:
    rows, labels = as_rows(x, 1), _labels(attributes)
    weights, bias = _coefficients(attributes, rows)
    transform = attributes.get("post_transform", b"NONE").decode()
    link = {"NONE": None, "SOFTMAX": "softmax", "LOGISTIC": "sigmoids"}
    if transform not in link:
        raise ConversionError(f"needs post_transform NONE, SOFTMAX or LOGISTIC, got {transform}")
    if weights.shape[1] == 1 and len(labels) == 2:
        weights, bias = np.hstack([-weights, weights]), np.concatenate([-bias, bias])
    if weights.shape[1] != len(labels):
        raise ConversionError(
            f"needs one score a class, got {weights.shape[1]} for {len(labels)} classes"
        )
    scores, kind = rows.then(weights, bias), link[transform]
    if kind == "sigmoids" and weights.shape[1] == 2:
        # The sigmoids of z and -z sum to 1 without scaling.
        if np.array_equal(weights[:, 0], -weights[:, 1]) and bias[0] == -bias[1]:
            kind = "one_vs_rest"
    return Labels(scores, labels), Probabilities(scores, kind)


def _linear_regressor(attributes: dict[str, Any], x: Value) -> Rows:
    rows = as_rows(x, 1)
    if attributes.get("post_transform", b"NONE") != b"NONE":
        raise ConversionError("needs post_transform NONE")
    weights, bias = _coefficients(attributes, rows)
    if weights.shape[1] != attributes.get("targets", 1):
        raise ConversionError(
            f"needs coefficients for targets={attributes.get('targets', 1)}, got {weights.shape[1]}"
        )
    return rows.then(weights, bias)


def _normalizer(attributes: dict[str, Any], x: Value) -> Value:
    if not isinstance(x, Probabilities) or attributes.get("norm") != b"L1":
        raise ConversionError("is converted behind probabilities only, with norm L1")
    if x.link is None or x.log:
        what = "scores" if x.link is None else "logarithms"
        raise ConversionError(f"is converted behind probabilities only, not behind {what}")
    return replace(x, link="one_vs_rest") if x.link == "sigmoids" else x


_OPERATORS: dict[str, Operator] = {
    **IMAGE_OPERATORS,
    "Add": _add,
    "ArgMax": _argmax,
    "ArrayFeatureExtractor": _array_feature_extractor,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _divide,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _identity,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "Mul": _multiply,
    "Normalizer": _normalizer,
    "Reshape": _reshape,
    "Scaler": _scaler,
    "Shape": _shape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "ZipMap": _zip_map,
}

# The attributes that each function above uses or may ignore; a node with any other is refused. Values
# of the attributes of image operators are checked in nn.convert.onnx_images.
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "ArgMax": ("axis", "keepdims", "select_last_index"),
    "AveragePool": (
        "auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides",
    ),
    "BatchNormalization": ("epsilon", "momentum", "training_mode"),
    "Cast": ("to", "saturate", "round_mode"),
    "Concat": ("axis",),
    "Conv": ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"),
    "Dropout": ("ratio", "seed"),
    "Flatten": ("axis",),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "LinearClassifier": (
        "classlabels_ints", "classlabels_strings", "coefficients", "intercepts", "multi_class",
        "post_transform",
    ),
    "LinearRegressor": ("coefficients", "intercepts", "post_transform", "targets"),
    "LogSoftmax": ("axis",),
    "MaxPool": (
        "auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides",
    ),
    "Normalizer": ("norm",),
    "Pad": ("mode", "pads", "value"),
    "ReduceMean": ("axes", "keepdims", "noop_with_empty_axes"),
    "Reshape": ("allowzero",),
    "Scaler": ("offset", "scale"),
    "Shape": ("start", "end"),
    "Softmax": ("axis",),
    "Squeeze": ("axes",),
    "Transpose": ("perm",),
    "Unsqueeze": ("axes",),
    "ZipMap": ("classlabels_int64s", "classlabels_strings"),
}  # fmt: skip


def operators() -> dict[str, tuple[Operator, tuple[str, ...]]]:
    """Return, by the operator's name, the function that converts it and the attributes it takes.

    The activations are those that are registered in :data:`nn.layers.LAYERS`.
    """
    found = {name: (convert, _ATTRIBUTES.get(name, ())) for name, convert in _OPERATORS.items()}
    for kind in LAYERS.values():
        named = kind.named_elsewhere
        if named is not None and named.onnx is not None:
            convert = _activation(kind, named.onnx_attributes)
            found[named.onnx] = convert, tuple(named.onnx_attributes)
    return found
