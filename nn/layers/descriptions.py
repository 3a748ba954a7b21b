"""Descriptions of layers, and labels, as model files and files of shares hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from nn.layers.layer import LAYERS, Layer
from ring.errors import DataError, DtypeError, SottoError

__all__ = ["check_described", "described", "layers_of", "plain_labels"]


def described(layers: Sequence[Layer]) -> list[list[Any]]:
    """Return the description of each layer: its name and options, without its parameters.

    Raises
    ------
    DtypeError
        If a layer is of a kind that is not registered.

    Examples
    --------
    >>> from nn.layers.descriptions import described
    >>> from nn.layers import Dense, MaxPool, ReLU
    >>> described([Dense.untrained(3, 2), ReLU(), MaxPool(2)])
    [['Dense'], ['ReLU'], ['MaxPool', (2, 2)]]
    """
    for layer in layers:
        if LAYERS.get(type(layer).__name__) is not type(layer):
            raise DtypeError(
                f"layers of a file must be of {', '.join(sorted(LAYERS))}, got {layer!r}; "
                "nn.layers.register adds a kind"
            )
    return [layer.description() for layer in layers]


def check_described(layers: Sequence[Layer]) -> None:
    """Check, before a training, that files can hold the trained layers.

    Raises
    ------
    DtypeError
        If a layer is of a kind that is not registered, or its description makes another layer.
    """
    for number, layer in enumerate(layers, start=1):
        if layer.only_trains:
            continue
        try:
            (kept,) = json.loads(json.dumps(described([layer])))
            (again,) = layers_of([kept], layer.parameters)
        except (AttributeError, TypeError, ValueError, SottoError) as error:
            raise DtypeError(f"layer {number} could not be saved after training: {error}") from None
        if type(again) is not type(layer) or json.dumps(described([again])) != json.dumps([kept]):
            raise DtypeError(
                f"layer {number}, {layer!r}, could not be saved after training: a file would give "
                f"{again!r}; its `options` must name its constructor's arguments"
            )


def layers_of(descriptions: Any, parameters: Sequence[Any]) -> list[Layer]:
    """Return the layers that a file describes, with the given parameters in layer order.

    Raises
    ------
    DataError
        If `descriptions` are malformed, or the layers have other parameters.
    """
    remaining = iter(parameters)
    try:
        layers = [LAYERS[name].rebuilt(options, remaining) for name, *options in descriptions]
    except StopIteration:
        raise DataError("fewer parameters than its layers have") from None
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"its layers cannot be made: {error}") from None
    if next(remaining, None) is not None:
        raise DataError("more parameters than its layers have")
    return layers


def plain_labels(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return labels in a dtype that a file can hold, and whether they were objects."""
    if classes.dtype.kind in "biufU":
        return classes, False
    if classes.dtype.kind == "O" and all(isinstance(label, str) for label in classes):
        return classes.astype(str), True
    raise DtypeError(f"classes of a file must be numbers, bools or strings, got {classes.dtype}")
