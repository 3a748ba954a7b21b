"""Layers and labels as plain text and arrays, and back: what model files and files of shares hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from nn.activations import Sigmoid, Tanh
from nn.convolution import Convolution
from nn.layers import Dense, Layer, ReLU
from nn.pooling import AveragePool, MaxPool
from nn.shaping import Flatten, Reshape, Transpose
from ring.errors import DataError, DtypeError, SottoError

__all__ = ["described", "layers_of", "plain_labels"]

# Layers by name: which they are, and the attributes that make one, behind its two parameters.
_LAYERS: dict[str, tuple[type[Layer], tuple[str, ...]]] = {
    "AveragePool": (AveragePool, ("size",)),
    "Convolution": (Convolution, ("stride", "padding")),
    "Dense": (Dense, ()),
    "Flatten": (Flatten, ()),
    "MaxPool": (MaxPool, ("size",)),
    "ReLU": (ReLU, ()),
    "Reshape": (Reshape, ("shape",)),
    "Sigmoid": (Sigmoid, ()),
    "Tanh": (Tanh, ()),
    "Transpose": (Transpose, ("axes",)),
}


def described(layers: Sequence[Layer]) -> list[list[Any]]:
    """Return each layer's name and what it is made of, but for its parameters.

    Examples
    --------
    >>> from nn.layer_descriptions import described
    >>> from nn.layers import Dense, ReLU
    >>> from nn.pooling import MaxPool
    >>> described([Dense.untrained(3, 2), ReLU(), MaxPool(2)])
    [['Dense'], ['ReLU'], ['MaxPool', (2, 2)]]
    """
    found = []
    for layer in layers:
        name = type(layer).__name__
        kind, attributes = _LAYERS.get(name, (None, ()))
        if kind is not type(layer):
            raise DtypeError(f"layers of a file must be of {', '.join(_LAYERS)}, got {layer!r}")
        found.append([name, *(getattr(layer, attribute) for attribute in attributes)])
    return found


def layers_of(descriptions: Any, parameters: Sequence[Any]) -> list[Layer]:
    """Return the layers of descriptions that a file held, with their parameters.

    Raises
    ------
    DataError
        If they describe no layers, or layers with other parameters.
    """
    remaining = iter(parameters)
    try:
        layers = [_layer(description, remaining) for description in descriptions]
    except StopIteration:
        raise DataError("fewer parameters than its layers have") from None
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"its layers cannot be made: {error}") from None
    if next(remaining, None) is not None:
        raise DataError("more parameters than its layers have")
    return layers


def _layer(description: list[Any], parameters: Iterator[Any]) -> Layer:
    name, *values = description
    kind, attributes = _LAYERS[name]
    if name in ("Reshape", "Transpose"):
        (numbers,) = values
        return (Reshape if name == "Reshape" else Transpose)(*numbers)
    options = dict(zip(attributes, values, strict=True))
    if name in ("Convolution", "Dense"):
        return kind(next(parameters), next(parameters), **options)  # type: ignore[call-arg]
    return kind(**options)


def plain_labels(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return labels in a dtype that a file can hold, and whether they were objects."""
    if classes.dtype.kind in "biufU":
        return classes, False
    if classes.dtype.kind == "O" and all(isinstance(label, str) for label in classes):
        return classes.astype(str), True
    raise DtypeError(f"classes of a file must be numbers, bools or strings, got {classes.dtype}")
