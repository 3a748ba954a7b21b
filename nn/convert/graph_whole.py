"""Which values of an ONNX graph are whole numbers, and what computes with them.

Sotto computes with reals. Sums, differences and products of integers are those of reals; a quotient is
not, so what computes with integers otherwise is refused unless they are turned into floats first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_values import Labels, Scores, Tensor

__all__ = ["BOOL", "FLOATS", "INTEGERS", "Whole"]

# ONNX numbers of element types: float, float16, double, bfloat16; truth values; the integers that hold
# the index of any class.
FLOATS = (1, 10, 11, 16)
BOOL = 9
INTEGERS = (5, 6, 7, 12, 13)
# Of these no sum or product in a format's range overflows, and differences may be negative.
_WIDE = (6, 7, BOOL)
# Operators whose outputs are truth values.
_TRUTHS = (
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or",
    "Xor",
)  # fmt: skip
# Operators that move elements of their first input, or of all of them; what else they take says where.
_MOVING = (
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze",
)  # fmt: skip
# Operators that make integers of integers, as they make reals of reals; some may overflow.
_ADDING = ("Abs", "Add", "CumSum", "Mul", "Neg", "ReduceSum", "Sub", "Sum")
_CHOOSING = ("Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Sign", "TopK", "Where")
# Operators that take integers and give something else.
_TAKING = ("ArgMax", "ArgMin", "Cast", "OneHot", "Shape")


@dataclass
class Whole:
    """The values of a graph that are whole numbers, by name.

    Attributes
    ----------
    types : dict of str to int
        Element types of those that the graph computes with as integers or truth values.
    valued : set of str
        All of them, also those that the graph holds in floats.
    """

    types: dict[str, int] = field(default_factory=dict)
    valued: set[str] = field(default_factory=set)

    def enter(self, name: str, kind: int) -> None:
        """Enter a value of an integer type."""
        self.types[name] = kind
        self.valued.add(name)

    def rename(self, name: str, new: str) -> None:
        """Enter a value that has another name, too."""
        if name in self.types:
            self.types[new] = self.types[name]
        if name in self.valued:
            self.valued.add(new)

    def follow(self, node: Any, attributes: dict[str, Any], inputs: Sequence[Any]) -> None:
        """Check what a node computes with, and enter its outputs, if they are whole numbers.

        Raises
        ------
        ConversionError
            If it computes with integers in a way in which reals differ.
        """
        op, names = node.op_type, list(node.input)
        data = (
            names[:1] if op in _MOVING and op != "Concat" else names[1:] if op == "Where" else names
        )
        pairs = [(n, x) for n, x in zip(names, inputs, strict=True) if n in data and x is not None]
        secret = [n for n, x in pairs if isinstance(x, (Labels, Scores, Tensor))]
        typed = [self.types[n] for n in secret if n in self.types]
        if typed and op in _ADDING and not set(typed) <= set(_WIDE):
            raise ConversionError(
                "computes with integers that may overflow: cast them to int64, or to floats, first"
            )
        if typed and op not in (*_TRUTHS, *_MOVING, *_ADDING, *_CHOOSING, *_TAKING):
            raise ConversionError(
                "computes with integers, in which it may differ from what it does with floats: cast them"
                " to floats first"
            )
        kept = op == "Cast" or op in (*_MOVING, *_ADDING, *_CHOOSING)
        whole = kept and all(n in self.valued if n in secret else _whole(x) for n, x in pairs)
        for name in filter(None, node.output):
            if op in _TRUTHS:
                self.enter(name, BOOL)
            elif op in ("ArgMax", "ArgMin") or (op == "TopK" and name in node.output[1:]):
                self.enter(name, 7)
            elif op == "Cast":
                if attributes["to"] in (*INTEGERS, BOOL):
                    self.enter(name, attributes["to"])
                elif whole:
                    self.valued.add(name)
            elif kept:
                if whole:
                    self.valued.add(name)
                kinds = typed or [7 for _, x in pairs if not secret and _integer(x)]
                if kinds:
                    self.enter(name, max(kinds))


def _integer(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind in "iub"


def _whole(x: Any) -> bool:
    """Return whether a constant holds whole numbers; one that no format holds is a mask's."""
    if not isinstance(x, np.ndarray):
        return False
    return _integer(x) or (x.dtype.kind == "f" and bool((np.rint(x) == x).all()))
