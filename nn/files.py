"""Model files: plain models as ``.npz`` archives, with a version and without pickle.

An archive holds the entry ``sotto_model``, a JSON text that says what the model is made of, and its
arrays: ``parameter_0``, ``parameter_1``, ... in layer order, ``classes``, ``low`` and ``high``.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nn.activations import Sigmoid, Tanh
from nn.layers import Dense, Layer, ReLU
from nn.mlp import MLP
from nn.model import Model
from nn.predictors import Classifier, Regressor
from ring.errors import DataError, DtypeError, SottoError

__all__ = ["VERSION", "load", "save"]

VERSION = 1
_HEADER = "sotto_model"
# What reading an archive with any of its bytes changed or missing raises.
_DAMAGE = (
    AttributeError, BadZipFile, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, struct.error, zlib.error,
)  # fmt: skip
_PLAIN_LAYERS: dict[str, type[Layer]] = {"ReLU": ReLU, "Sigmoid": Sigmoid, "Tanh": Tanh}


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a plain model to a file; see :meth:`nn.model.Model.save`."""
    arrays = {f"parameter_{i}": np.asarray(p) for i, p in enumerate(model.parameters)}
    header: dict[str, Any] = {
        "version": VERSION,
        "kind": type(model).__name__,
        "n_features": model.n_features_in_,
        "layers": [_layer_name(layer) for layer in model.layers],
    }
    if isinstance(model, MLP):
        header["loss_curve"], header["validation_scores"] = (
            [float(v) for v in values] for values in (model.loss_curve_, model.validation_scores_)
        )
    if isinstance(model, Classifier):
        arrays["classes"], header["classes_are_objects"] = _plain_labels(model.classes_)
        header["link"] = model.link
    elif isinstance(model, Regressor):
        header["flat"] = model.flat
    else:
        raise DtypeError(
            f"only classifiers and regressors can be saved, got {type(model).__name__}"
        )
    if model.input_range_ is not None:
        arrays["low"], arrays["high"] = (np.asarray(ends) for ends in model.input_range_)
    target = Path(path)
    # In whole or not at all.
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **{_HEADER: np.array(json.dumps(header))}, **arrays)  # type: ignore[arg-type]
        part.replace(target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def load(path: str | os.PathLike[str]) -> MLP | Classifier | Regressor:
    """Read a model that ``model.save`` has written.

    Parameters
    ----------
    path : path

    Returns
    -------
    MLP, Classifier or Regressor

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file is no model, of another version, or damaged.

    Examples
    --------
    >>> import os, tempfile
    >>> import nn
    >>> model = nn.MLP.from_parameters([[[1.0, -1.0]], [0.0, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     model.save(path)
    ...     nn.load(path).decision_function([[2.0]])
    array([[ 2. , -1.5]])
    """
    header, arrays = _read(path)
    version = header.get("version")
    if version != VERSION:
        raise DataError(
            f"{os.fspath(path)} must be a model file of version {VERSION}, got version {version!r}"
        )
    try:
        return _build(header, arrays)
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"{os.fspath(path)} is a damaged model file: {error}") from None


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and all arrays of an archive."""
    content = io.BytesIO(Path(path).read_bytes())
    try:
        archive = np.load(content, allow_pickle=False)
        if isinstance(archive, np.ndarray) or _HEADER not in archive:
            raise DataError(f"{os.fspath(path)} is no model file of Sotto: no {_HEADER} in it")
        arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop(_HEADER)))
    except _DAMAGE as error:
        raise DataError(
            f"{os.fspath(path)} is no model file of Sotto, or was cut short: {error}"
        ) from None
    if not isinstance(header, dict):
        raise DataError(f"{os.fspath(path)} is a damaged model file: {_HEADER} is no table")
    return header, arrays


def _layer_name(layer: Layer) -> str:
    name = type(layer).__name__
    if name != "Dense" and _PLAIN_LAYERS.get(name) is not type(layer):
        raise DtypeError(
            f"layers of a file must be Dense, {', '.join(_PLAIN_LAYERS)}, got {layer!r}"
        )
    return name


def _plain_labels(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return labels in a dtype that a file can hold, and whether they were objects."""
    if classes.dtype.kind in "biufU":
        return classes, False
    if classes.dtype.kind == "O" and all(isinstance(label, str) for label in classes):
        return classes.astype(str), True
    raise DtypeError(f"classes of a file must be numbers, bools or strings, got {classes.dtype}")


def _build(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> MLP | Classifier | Regressor:
    parameters = []
    for i in range(sum(name.startswith("parameter_") for name in arrays)):
        array = arrays[f"parameter_{i}"]
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise DataError(f"parameter_{i} does not hold finite floats")
        parameters.append(array)
    ends = (arrays["low"], arrays["high"]) if "low" in arrays else None
    features = int(header["n_features"])
    layers: list[Layer] = []
    remaining = iter(parameters)
    for name in header["layers"]:
        if name == "Dense":
            layers.append(Dense(next(remaining), next(remaining)))
        else:
            layers.append(_PLAIN_LAYERS[name]())
    if next(remaining, None) is not None:
        raise DataError("more parameters than its layers have")
    if header["kind"] == "Regressor":
        return Regressor(layers, features, ends, flat=header["flat"])
    classes = (
        arrays["classes"].astype(object) if header["classes_are_objects"] else arrays["classes"]
    )
    made = Classifier(layers, classes, features, ends, link=header["link"])
    if header["kind"] == "Classifier":
        return made
    if header["kind"] != "MLP":
        raise DataError(f"kind {header['kind']!r} is not known")
    mlp = MLP.from_parameters(parameters, classes=made.classes_)
    if list(map(repr, mlp.layers)) != list(map(repr, layers)):
        raise DataError(f"an MLP cannot have the layers {layers}")
    mlp.link = made.link
    if made.input_range_ is not None:
        low, high = made.input_range_
        mlp.input_range_ = (float(low), float(high)) if not low.ndim else (low, high)
    mlp.loss_curve_ = [float(v) for v in header["loss_curve"]]
    mlp.validation_scores_ = [float(v) for v in header["validation_scores"]]
    return mlp
