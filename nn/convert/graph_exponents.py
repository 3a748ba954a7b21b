"""ONNX's exponential linear units with any numbers, as functions of :mod:`nn.convert.graph_table`."""

from __future__ import annotations

from typing import Any

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_arithmetic import joined
from nn.convert.graph_builder import Builder
from nn.convert.graph_table import operator
from nn.convert.graph_values import Tensor
from nn.layers.joining import Add
from nn.layers.relu import ReLU
from nn.layers.smooth import CELU, ELU, SELU

__all__: list[str] = []

# What ONNX has for Selu, to the digits of float32.
_SELU = (1.6732632423543772, 1.0507009873554805)


def _given(attributes: dict[str, Any], name: str, usual: float) -> float:
    # Attributes are float32, for numbers such as 0.1.
    return float(f"{attributes.get(name, usual):.7g}")


def _fits(alpha: float) -> bool:
    return 1 / 16 <= alpha < 16


def _unit(builder: Builder, x: Tensor, alpha: float) -> Tensor:
    """Return x where it is positive, alpha (exp(x) - 1) elsewhere."""
    if _fits(alpha):
        return builder.elementwise(ELU(alpha), x)
    # That of alpha = 1, of which the part below 0 is multiplied.
    one, above = builder.elementwise(ELU(), x), builder.elementwise(ReLU(), x)
    if not alpha:
        return above
    return joined(
        builder, Add(), builder.scaled(one, alpha, None), builder.scaled(above, 1 - alpha, None)
    )


@operator("Elu", "alpha")
def _elu(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    return _unit(builder, builder.tensor(x), _given(attributes, "alpha", 1.0))


@operator("Celu", "alpha")
def _celu(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x, alpha = builder.tensor(x), _given(attributes, "alpha", 1.0)
    if alpha <= 0:
        raise ConversionError(f"needs alpha above 0, got alpha={alpha:g}")
    if _fits(alpha):
        return builder.elementwise(CELU(alpha), x)
    one = builder.elementwise(ELU(), builder.scaled(x, 1 / alpha, None))
    return builder.scaled(one, alpha, None)


@operator("Selu", "alpha", "gamma")
def _selu(builder: Builder, attributes: dict[str, Any], x: Any) -> Tensor:
    x = builder.tensor(x)
    numbers = tuple(
        _given(attributes, name, usual)
        for name, usual in zip(("alpha", "gamma"), _SELU, strict=True)
    )
    if all(abs(a - b) < 1e-6 for a, b in zip(numbers, _SELU, strict=True)):
        return builder.elementwise(SELU(), x)
    alpha, factor = numbers
    return builder.scaled(_unit(builder, x, alpha), factor, None)
