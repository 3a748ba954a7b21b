"""ONNX graphs node by node: the values of a conversion, and the graph that it builds.

How an operator is added: write a function in a file of its own, ``nn/convert/graph_*.py``, with
``@operator("Name", "attribute", ...)`` above it, naming every attribute that it uses or may ignore, and
import the file in :mod:`nn.convert.onnx_graph`. The function takes the :class:`Builder`, the node's
attributes as a dict, and the node's inputs (None for one that is left out); it returns the value of the
output, or a tuple of them. An input is an array (a constant), :class:`Sizes` (shape arithmetic), or what
depends on the graph's inputs, which ``builder.tensor(x)`` gives as a :class:`Tensor`. A layer is applied
in one of four ways: ``builder.elementwise(layer, x)`` to each element; ``builder.images(x)`` is the
number of the same value as rows (height, width, channels), or (width, channels), for ``builder.add(layer,
number)``, whose result ``builder.from_images`` takes back; ``builder.along(layer, x, axis)`` applies a
layer that works along the last axis of rows and keeps their shape; ``builder.rows(x)`` and
``builder.from_rows`` do what ``images`` does for rows in ONNX's order of axes. ``builder.scaled``
multiplies by a constant and adds one. A use that Sotto cannot compute raises ConversionError, whose
message completes "Operator (node ...): ". An activation needs no function: ``named_elsewhere`` of its
layer is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nn.convert.graph_builder import Builder
from nn.convert.graph_values import Tensor
from nn.layers import LAYERS, Layer

__all__ = ["OPERATORS", "Operator", "known_operators", "operator"]

Convert = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """An entry of the table: the function, and the attributes that it takes."""

    convert: Convert
    attributes: tuple[str, ...]


OPERATORS: dict[str, Operator] = {}


def operator(name: str, *attributes: str) -> Callable[[Convert], Convert]:
    """Enter a function into the table of operators; a decorator."""

    def enter(convert: Convert) -> Convert:
        OPERATORS[name] = Operator(convert, attributes)
        return convert

    return enter


def known_operators() -> dict[str, Operator]:
    """Return the table, with the activations that are registered in :data:`nn.layers.LAYERS`."""
    found = dict(OPERATORS)
    for kind in LAYERS.values():
        named = kind.named_elsewhere
        if named is not None and named.onnx is not None and named.onnx not in found:
            found[named.onnx] = Operator(_activation(kind), tuple(named.onnx_attributes))
    return found


def _activation(kind: type[Layer]) -> Convert:
    def activate(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
        assert kind.named_elsewhere is not None
        options = {
            argument: attributes.get(name, default)
            for name, (argument, default) in kind.named_elsewhere.onnx_attributes.items()
        }
        # Strings of a graph are bytes.
        plain = {k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()}
        return builder.elementwise(kind(**plain), builder.tensor(x))

    return activate
