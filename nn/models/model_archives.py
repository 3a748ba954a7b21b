"""Model files: plain models as ``.npz`` archives, with a version and without pickle.

The entry ``sotto_model`` of an archive is its header, a JSON text with the kind of model, its sizes and
the descriptions of its layers, of a graph also the values that each layer takes. The other entries are
arrays: ``parameter_0``, ``parameter_1``, ... in layer order, and as far as the model has them
``classes``, ``low``, ``high`` and ``output_scale``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core import archives
from nn.core.checks import local_path
from nn.layers import Layer
from nn.layers.graph import wiring_of
from nn.layers.layer import described, parameters
from ring.errors import DataError

__all__ = ["VERSION", "read_model", "write_model"]

VERSION = 1
_HEADER = "sotto_model"


def write_model(
    path: str | os.PathLike[str],
    header: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    layers: Sequence[Layer],
) -> None:
    """Write a model file: header and arrays, to which those of the layers are added."""
    entries = {f"parameter_{i}": np.asarray(p) for i, p in enumerate(parameters(layers))}
    described_layers = {"layers": described(layers), **wiring_of(layers)}
    text = json.dumps({"version": VERSION, **header, **described_layers})
    everything = {_HEADER: np.array(text), **entries, **arrays}
    archives.write(local_path("path", path), everything, replace=True)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays of a model file; raise DataError if it is none."""
    arrays = archives.read(local_path("path", path))
    if _HEADER not in arrays:
        raise DataError(f"{os.fspath(path)} is no model file of Sotto: it has no entry {_HEADER}")
    try:
        header = json.loads(str(arrays.pop(_HEADER)))
    except ValueError as error:
        raise DataError(f"{os.fspath(path)} is a damaged model file: {error}") from None
    if not isinstance(header, dict):
        raise DataError(f"{os.fspath(path)} is a damaged model file: {_HEADER} is no JSON object")
    return header, arrays
