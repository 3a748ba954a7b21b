"""ONNX operators on rows of numbers, each folded into what is before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.activations import Sigmoid, Tanh
from nn.folding import dense
from nn.layers import Layer, ReLU
from nn.sklearn_import import ConversionError

__all__ = ["OPERATORS", "Labels", "Probabilities", "Rows", "Value"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of numbers: the layers up to the last activation, and an affine map behind it.

    Attributes
    ----------
    core : tuple of Layer
    width : int
        Numbers in a row in front of the map.
    weights, bias : arrays, or None for the identity
    shape : tuple of int
        What a row's numbers are laid out in, row-major.
    batch : int
        How many rows the graph was made for; -1 if that is open.
    """

    core: tuple[Layer, ...]
    width: int
    weights: Floats | None
    bias: Floats
    shape: tuple[int, ...]
    batch: int = -1

    def matrix(self) -> Floats:
        """Return the map's weights."""
        return np.eye(self.width) if self.weights is None else self.weights

    def then(self, weights: Floats, bias: Floats) -> Rows:
        """Follow with a map of whole rows."""
        both = weights if self.weights is None else self.weights @ weights
        return replace(
            self, weights=both, bias=self.bias @ weights + bias, shape=(weights.shape[1],)
        )

    def layers(self) -> list[Layer]:
        """Return all layers."""
        if self.weights is None and not self.bias.any():
            return list(self.core)
        return [*self.core, dense(self.matrix(), self.bias)]

    def activate(self, layer: Layer) -> Rows:
        """Follow with an activation."""
        size = prod(self.shape)
        return Rows((*self.layers(), layer), size, None, np.zeros(size), self.shape, self.batch)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Rows of probabilities made from scores by a link; of scores themselves without one."""

    rows: Rows
    link: str | None


@dataclass(frozen=True, eq=False)
class Labels:
    """The class with the largest score of each row; numbers from 0 unless `classes` names them."""

    rows: Rows
    classes: NDArray[Any] | None = None


Value = Rows | Probabilities | Labels | NDArray[Any]


def _rows(value: Any, ndim: int | None = None) -> Rows:
    if not isinstance(value, Rows):
        raise ConversionError(
            f"needs rows of numbers, got {type(value).__name__.lower() if value is not None else 'nothing'}"
        )
    if ndim is not None and len(value.shape) != ndim:
        raise ConversionError(f"needs rows with {ndim} axes, got rows of shape {value.shape}")
    return value


def _constant(value: Any) -> Floats:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ConversionError("needs a constant of numbers for its other operand")
    return value.astype(np.float64)


def _pass(attributes: dict[str, Any], x: Value, *other: Value) -> Value:
    return x


def _activation(kind: type[Layer]) -> Callable[..., Rows]:
    return lambda attributes, x: _rows(x).activate(kind())


def _matmul(attributes: dict[str, Any], x: Value, weights: Value) -> Rows:
    rows, matrix = _rows(x, 1), _constant(weights)
    if matrix.ndim == 1:
        return replace(rows.then(matrix[:, None], np.zeros(1)), shape=())
    return rows.then(matrix, np.zeros(matrix.shape[1]))


def _gemm(attributes: dict[str, Any], x: Value, weights: Value, bias: Value | None = None) -> Rows:
    rows, matrix = _rows(x, 1), _constant(weights)
    if attributes.get("transA", 0):
        raise ConversionError("needs transA=0")
    matrix = (matrix.T if attributes.get("transB", 0) else matrix) * attributes.get("alpha", 1.0)
    added = np.zeros(()) if bias is None else _constant(bias) * attributes.get("beta", 1.0)
    return rows.then(matrix, _of_one_row(added, (matrix.shape[1],)))


def _of_one_row(constant: Floats, shape: tuple[int, ...]) -> Floats:
    """Broadcast a constant to the numbers of a row; all rows have the same."""
    if constant.ndim > len(shape):
        if constant.ndim > len(shape) + 1 or constant.shape[0] != 1:
            raise ConversionError(
                f"needs a constant that is the same for all rows, got shape {constant.shape} for "
                f"rows of shape {shape}"
            )
        constant = constant[0]
    return np.broadcast_to(constant, shape).reshape(-1)


def _affine(rows: Rows, factor: Any, summand: Any) -> Rows:
    """x * factor + summand, element by element."""
    size = prod(rows.shape)
    factor, summand = (
        np.broadcast_to(np.asarray(v, np.float64), (size,)) for v in (factor, summand)
    )
    weights = rows.weights
    if (factor != 1).any():
        weights = np.diag(factor) if weights is None else weights * factor
    return replace(rows, weights=weights, bias=rows.bias * factor + summand)


def _add(attributes: dict[str, Any], x: Value, y: Value) -> Rows:
    rows, constant = (x, y) if isinstance(x, Rows) else (y, x)
    return _affine(_rows(rows), 1.0, _of_one_row(_constant(constant), _rows(rows).shape))


def _subtract(attributes: dict[str, Any], x: Value, y: Value) -> Rows:
    if isinstance(x, Rows):
        return _affine(x, 1.0, -_of_one_row(_constant(y), x.shape))
    rows = _rows(y)
    return _affine(rows, -1.0, _of_one_row(_constant(x), rows.shape))


def _multiply(attributes: dict[str, Any], x: Value, y: Value) -> Rows:
    rows, constant = (x, y) if isinstance(x, Rows) else (y, x)
    return _affine(_rows(rows), _of_one_row(_constant(constant), _rows(rows).shape), 0.0)


def _divide(attributes: dict[str, Any], x: Value, y: Value) -> Rows:
    rows = _rows(x)
    return _affine(rows, 1 / _of_one_row(_constant(y), rows.shape), 0.0)


def _scaler(attributes: dict[str, Any], x: Value) -> Rows:
    rows = _rows(x, 1)
    offset, scale = np.array(attributes["offset"]), np.array(attributes["scale"])
    return _affine(rows, scale, -offset * scale)


def _batch_normalization(
    attributes: dict[str, Any], x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Rows:
    rows = _rows(x, 1)
    if attributes.get("training_mode", 0):
        raise ConversionError("needs training_mode=0: export the model for inference")
    factor = _constant(scale) / np.sqrt(_constant(variance) + attributes.get("epsilon", 1e-5))
    return _affine(rows, factor, _constant(bias) - _constant(mean) * factor)


def _shape(attributes: dict[str, Any], x: Value) -> NDArray[Any]:
    rows = _rows(x)
    sizes = np.array([rows.batch, *rows.shape], np.int64)
    return sizes[attributes.get("start", 0) : attributes.get("end")]


def _flatten(attributes: dict[str, Any], x: Value) -> Value:
    if not isinstance(x, Rows):
        return x
    if attributes.get("axis", 1) != 1:
        raise ConversionError(f"needs axis=1, which keeps the rows, got {attributes['axis']}")
    return replace(x, shape=(prod(x.shape),))


def _reshape(attributes: dict[str, Any], x: Value, shape: Value) -> Value:
    if not isinstance(x, Rows):
        return x
    target = [int(n) for n in _constant(shape)]
    size = prod(x.shape)
    rest = target[1:]
    # Rows stay rows if each keeps its numbers, whatever their number; and that is sure for an open
    # size if their number is left open, or given as the input gives it.
    # (Two sizes of -1 are not valid as such: the first is then what Shape has given.)
    if rest.count(-1) == 1 and target[0] in (0, x.batch):
        known = prod(n for n in rest if n != -1)
        rest = [size // known if n == -1 and known else n for n in rest]
    if not target or min(rest, default=1) < 1 or prod(rest) != size:
        raise ConversionError(f"must keep the rows, of shape {x.shape} each, got shape {target}")
    return replace(x, shape=tuple(rest))


def _squeeze(attributes: dict[str, Any], x: Value, axes: Value | None = None) -> Value:
    if not isinstance(x, Rows):
        return x
    named = attributes.get("axes") if axes is None else _constant(axes)
    if named is None or [int(a) % (len(x.shape) + 1) for a in named] != [1] or x.shape != (1,):
        raise ConversionError("must take away the axis of a single number a row")
    return replace(x, shape=())


def _softmax(attributes: dict[str, Any], x: Value) -> Probabilities:
    rows = _rows(x, 1)
    if attributes.get("axis", 1) not in (1, -1):
        raise ConversionError(f"needs the axis of the classes, got axis={attributes['axis']}")
    return Probabilities(rows, "softmax")


def _argmax(attributes: dict[str, Any], x: Value) -> Labels:
    rows = x.rows if isinstance(x, Probabilities) else _rows(x, 1)
    if attributes.get("axis", 0) not in (1, -1) or attributes.get("select_last_index", 0):
        raise ConversionError("needs the axis of the classes, and the first of equal scores")
    return Labels(rows)


def _concat(attributes: dict[str, Any], *parts: Value) -> Rows:
    rows = [_rows(part, 1) for part in parts]
    if attributes.get("axis") not in (1, -1) or any(r.core is not rows[0].core for r in rows):
        raise ConversionError("needs maps of the same rows, side by side")
    return replace(
        rows[0],
        weights=np.hstack([r.matrix() for r in rows]),
        bias=np.concatenate([r.bias for r in rows]),
        shape=(sum(len(r.bias) for r in rows),),
    )


def _array_feature_extractor(attributes: dict[str, Any], x: Value, y: Value) -> Value:
    if isinstance(x, np.ndarray) and isinstance(y, Labels) and y.classes is None:
        return replace(y, classes=x.reshape(-1))
    if isinstance(x, Probabilities) and isinstance(y, np.ndarray):
        return Probabilities(x.rows, None)
    raise ConversionError("needs the names of classes, picked by an argmax")


def _cast(attributes: dict[str, Any], x: Value) -> Value:
    to = attributes["to"]
    if isinstance(x, Rows) and to not in (1, 10, 11, 16):
        raise ConversionError("must turn numbers into floats: rounding is not converted")
    return x


def _names(attributes: dict[str, Any]) -> NDArray[Any]:
    for key in ("classlabels_strings", "classlabels_ints"):
        if attributes.get(key):
            return np.array([n.decode() if isinstance(n, bytes) else n for n in attributes[key]])
    raise ConversionError("needs the labels of its classes")


def _coefficients(attributes: dict[str, Any], rows: Rows) -> tuple[Floats, Floats]:
    weights = np.array(attributes["coefficients"], dtype=np.float64).reshape(-1, prod(rows.shape)).T
    bias = np.array(attributes.get("intercepts") or np.zeros(weights.shape[1]), dtype=np.float64)
    return weights, bias


def _linear_classifier(attributes: dict[str, Any], x: Value) -> tuple[Labels, Probabilities]:
    rows, names = _rows(x, 1), _names(attributes)
    weights, bias = _coefficients(attributes, rows)
    transform = attributes.get("post_transform", b"NONE").decode()
    link = {"NONE": None, "SOFTMAX": "softmax", "LOGISTIC": "one_vs_rest"}
    if transform not in link:
        raise ConversionError(f"needs post_transform NONE, SOFTMAX or LOGISTIC, got {transform}")
    if weights.shape[1] == 1 and len(names) == 2:
        weights, bias = np.hstack([-weights, weights]), np.concatenate([-bias, bias])
    if weights.shape[1] != len(names):
        raise ConversionError(f"needs one score a class, got {weights.shape[1]} for {len(names)}")
    scores = rows.then(weights, bias)
    return Labels(scores, names), Probabilities(scores, link[transform])


def _linear_regressor(attributes: dict[str, Any], x: Value) -> Rows:
    rows = _rows(x, 1)
    if attributes.get("post_transform", b"NONE") != b"NONE":
        raise ConversionError("needs post_transform NONE")
    return rows.then(*_coefficients(attributes, rows))


def _normalizer(attributes: dict[str, Any], x: Value) -> Value:
    if not isinstance(x, Probabilities) or attributes.get("norm") != b"L1":
        raise ConversionError("is converted behind probabilities only, with norm L1")
    return x


OPERATORS: dict[str, Callable[..., Value | tuple[Value, ...]]] = {
    "Add": _add,
    "ArgMax": _argmax,
    "ArrayFeatureExtractor": _array_feature_extractor,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _divide,
    "Dropout": _pass,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _pass,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Mul": _multiply,
    "Normalizer": _normalizer,
    "Relu": _activation(ReLU),
    "Reshape": _reshape,
    "Scaler": _scaler,
    "Shape": _shape,
    "Sigmoid": _activation(Sigmoid),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Tanh": _activation(Tanh),
    "ZipMap": _pass,
}
