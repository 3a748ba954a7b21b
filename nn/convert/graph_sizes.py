"""Shape arithmetic of ONNX graphs whose number of rows is open.

A node that computes with sizes is computed for two numbers of rows. What depends on the number is marked
element by element: not only where the two results differ, since ``max(rows, 10)`` is the same for both. A
Reshape may use elements that are sums and products of the number; a constant must be free of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.convert.from_sklearn import ConversionError

__all__ = ["OPEN", "Sizes", "computed", "sizes_for"]

# Numbers of rows for which shape arithmetic is done, where the graph leaves the number open. Primes, so
# that a size which has the number as a factor shows it.
OPEN = (4099, 4111)
# Marks of elements: computed from the number of rows by sums and products, or in another way.
FREE, LINEAR, OTHER = 0, 1, 2
# Operators that move elements of their first input (Concat: of all inputs) and compute nothing.
_PLACING = ("Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
_LINEAR = ("Add", "Div", "Mul", "Sub")
_ELEMENTWISE = (
    "Abs", "And", "Ceil", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "Mod", "Neg", "Not", "Or", "Pow", "Reciprocal", "Sqrt",
)  # fmt: skip
# Operators that never compute with the number of elements.
_ROW_BY_ROW = ("Gemm", "MatMul", "Relu", "Sigmoid", "Tanh", "Transpose")

Arrays = dict[str, NDArray[Any]]
# Computes the outputs of a node, given the arrays of its inputs by name.
Evaluate = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Sizes:
    """Numbers computed from sizes of arrays, for two numbers of rows.

    Attributes
    ----------
    pair : (array, array)
    marks : int array of the first one's shape
        Which elements depend on the number of rows, and how: FREE, LINEAR or OTHER.
    """

    pair: tuple[NDArray[Any], NDArray[Any]]
    marks: NDArray[np.int8]

    def same_for_all_rows(self) -> NDArray[Any] | None:
        """Return an array with one row, if the rows' number and nothing else depends on theirs."""
        first, second = self.pair
        if first.ndim != second.ndim or self.marks.any():
            return None
        axes = [a for a in range(first.ndim) if first.shape[a] != second.shape[a]]
        if len(axes) != 1 or not first.shape[axes[0]]:
            return None
        one = first.take([0], axes[0])
        return one if all((v == one).all() for v in self.pair) else None


def sizes_for(pair: tuple[NDArray[Any], NDArray[Any]], marks: NDArray[Any]) -> Any:
    """Return arrays as Sizes, or as a constant if nothing depends on the number of rows."""
    if pair[0].shape == pair[1].shape and not marks.any():
        return pair[0]
    return Sizes(pair, marks.astype(np.int8))


def whole_sizes(value: Any) -> tuple[list[int], list[int]]:
    """Return sizes that a node makes an array of, for both numbers of rows."""
    if isinstance(value, Sizes):
        if (value.marks == OTHER).any():
            raise ConversionError(
                "must not compute with the number of rows but by sums and products, got sizes that are"
                " computed in another way"
            )
        first, second = value.pair
    elif isinstance(value, np.ndarray):
        first = second = value
    else:
        raise ConversionError("needs sizes that do not depend on values")
    return [int(n) for n in first.reshape(-1)], [int(n) for n in second.reshape(-1)]


def computed(
    op: str, inputs: dict[str, Any], outputs: list[str], evaluate: Evaluate
) -> dict[str, Any]:
    """Return the outputs of a node whose inputs are constants and Sizes.

    Parameters
    ----------
    op : str
    inputs : dict of str to array or Sizes
        In the node's order.
    outputs : list of str
    evaluate : callable
    """
    if not any(isinstance(v, Sizes) for v in inputs.values()):
        return dict(zip(outputs, map(np.asarray, evaluate(inputs)), strict=False))
    found = [
        [
            np.asarray(v)
            for v in evaluate(
                {n: v.pair[k] if isinstance(v, Sizes) else v for n, v in inputs.items()}
            )
        ]
        for k in (0, 1)
    ]
    marks = _marks(op, inputs, found[0], evaluate)
    return {
        name: sizes_for((a, b), m)
        for name, a, b, m in zip(outputs, found[0], found[1], marks, strict=False)
    }


def _marks(
    op: str, inputs: dict[str, Any], results: list[NDArray[Any]], evaluate: Evaluate
) -> list[NDArray[Any]]:
    """Return the marks of a node's outputs."""
    given = [
        v.marks if isinstance(v, Sizes) else np.zeros(np.shape(v), np.int8) for v in inputs.values()
    ]
    everything = max(int(m.max(initial=0)) for m in given)
    names = list(inputs)
    moved = set(names if op == "Concat" else names[:1])
    if op in _PLACING and all(n in moved or not isinstance(v, Sizes) for n, v in inputs.items()):
        as_data = {
            n: (m.astype(v.pair[0].dtype if isinstance(v, Sizes) else v.dtype) if n in moved else v)
            for (n, v), m in zip(inputs.items(), given, strict=True)
        }
        return [np.asarray(v).astype(np.int8) for v in evaluate(as_data)]
    (result, *more) = results
    if not more and op in (*_LINEAR, *_ELEMENTWISE, "Equal", "Where"):
        marks = [np.broadcast_to(m, result.shape) for m in given]
        if op == "Where":
            chosen = np.where(marks[0], OTHER, np.maximum(marks[1], marks[2]))
            first = next(iter(inputs.values()))
            if isinstance(first, np.ndarray):  # known which
                chosen = np.where(first, marks[1], marks[2])
            return [chosen]
        both = np.max(marks, axis=0)
        if op in _LINEAR:
            return [both]
        both = np.where(both, OTHER, FREE)
        if op == "Equal":  # the number of rows is never negative
            for v, m in zip(inputs.values(), marks[::-1], strict=True):
                if isinstance(v, np.ndarray):
                    both = np.where(
                        (m == LINEAR) & np.broadcast_to(v < 0, result.shape), FREE, both
                    )
        return [both]
    if op == "ReduceProd" and everything == LINEAR:
        return [np.full(v.shape, LINEAR) for v in results]
    if op == "Shape" and everything <= LINEAR:
        (value,) = inputs.values()
        pair = zip(value.pair[0].shape, value.pair[1].shape, strict=True)
        whole = np.array([FREE if a == b else LINEAR for a, b in pair], np.int8)
        return [whole] if whole.shape == result.shape else [np.full(result.shape, OTHER)]
    if op in _ROW_BY_ROW and everything == FREE:
        return [np.zeros(v.shape, np.int8) for v in results]
    data = given[0] if op != "ConstantOfShape" else np.zeros(1)
    if op in ("ConstantOfShape", "Expand") and everything == LINEAR and not data.any():
        return [np.zeros(v.shape, np.int8) for v in results]
    return [np.full(v.shape, OTHER) for v in results]
