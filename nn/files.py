"""Model files: plain models as ``.npz`` archives, with a version and without pickle.

An archive holds the entry ``sotto_model``, a JSON text that says what the model is made of, and its
arrays: ``parameter_0``, ``parameter_1``, ... in layer order, ``classes``, ``low`` and ``high``, and
``output_scale``.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn import archives, training
from nn.checks import local_path
from nn.layer_descriptions import described, layers_of, plain_labels
from nn.mlp import MLP
from nn.model import Model
from nn.normalisation import folded
from nn.predictors import Classifier, Regressor
from nn.sequential import Sequential
from nn.trainable import Network
from ring.errors import DataError, DtypeError, SottoError

__all__ = ["VERSION", "load", "save"]

VERSION = 1
_HEADER = "sotto_model"
_KINDS: dict[str, type[Model]] = {
    "Classifier": Classifier,
    "MLP": MLP,
    "Regressor": Regressor,
    "Sequential": Sequential,
}


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a plain model to a file; see :meth:`nn.model.Model.save`."""
    kind = type(model).__name__
    if _KINDS.get(kind) is not type(model):
        raise DtypeError(f"models of a file must be of {', '.join(_KINDS)}, got {kind}")
    layers = folded(model.layers)
    arrays = {f"parameter_{i}": np.asarray(p) for i, p in enumerate(training.parameters(layers))}
    header: dict[str, Any] = {
        "version": VERSION,
        "kind": kind,
        "n_features": model.n_features_in_,
        "layers": described(layers),
    }
    if isinstance(model, Network):
        header["loss_curve"], header["validation_scores"] = (
            [float(v) for v in values] for values in (model.loss_curve_, model.validation_scores_)
        )
    if isinstance(model, Classifier):
        arrays["classes"], header["classes_are_objects"] = plain_labels(model.classes_)
        header["link"] = model.link
    elif isinstance(model, Regressor):
        header["flat"] = model.flat
    else:
        raise DtypeError(
            f"only classifiers and regressors can be saved, got {type(model).__name__}"
        )
    if model.feature_names_in_ is not None:
        header["feature_names"] = [str(name) for name in model.feature_names_in_]
    if model.output_scale_ is not None:
        arrays["output_scale"] = model.output_scale_
    if model.input_range_ is not None:
        arrays["low"], arrays["high"] = (np.asarray(ends) for ends in model.input_range_)
    text = np.array(json.dumps(header))
    archives.write(local_path("path", path), {_HEADER: text, **arrays}, replace=True)


def load(path: str | os.PathLike[str]) -> Classifier | Regressor:
    """Read a model that ``model.save`` has written.

    Parameters
    ----------
    path : path

    Returns
    -------
    MLP, Sequential, Classifier or Regressor

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
        model = _build(header, arrays)
        if "feature_names" in header:
            names = np.array(header["feature_names"], dtype=object)
            if names.shape != (model.n_features_in_,):
                raise DataError(f"names for {model.n_features_in_} features, got {names.shape}")
            model.feature_names_in_ = names
        if "output_scale" in arrays:
            scale = arrays["output_scale"]
            if scale.shape != (model.n_outputs_,) or not (scale >= 0).all():
                raise DataError(f"no scale of {model.n_outputs_} outputs")
            model.output_scale_ = scale
        return model
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"{os.fspath(path)} is a damaged model file: {error}") from None


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and all arrays of an archive."""
    arrays = archives.read(local_path("path", path))
    if _HEADER not in arrays:
        raise DataError(f"{os.fspath(path)} is no model file of Sotto: no {_HEADER} in it")
    try:
        header = json.loads(str(arrays.pop(_HEADER)))
    except ValueError as error:
        raise DataError(f"{os.fspath(path)} is a damaged model file: {error}") from None
    if not isinstance(header, dict):
        raise DataError(f"{os.fspath(path)} is a damaged model file: {_HEADER} is no table")
    return header, arrays


def _build(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Classifier | Regressor:
    parameters = []
    for i in range(sum(name.startswith("parameter_") for name in arrays)):
        array = arrays[f"parameter_{i}"]
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise DataError(f"parameter_{i} does not hold finite floats")
        parameters.append(array)
    ends = (arrays["low"], arrays["high"]) if "low" in arrays else None
    features = int(header["n_features"])
    layers = layers_of(header["layers"], parameters)
    if header["kind"] == "Regressor":
        return Regressor(layers, features, ends, flat=header["flat"])
    classes = (
        arrays["classes"].astype(object) if header["classes_are_objects"] else arrays["classes"]
    )
    made = Classifier(layers, classes, features, ends, link=header["link"])
    if header["kind"] == "Classifier":
        return made
    network: Network
    if header["kind"] == "MLP":
        network = MLP.from_parameters(parameters, classes=made.classes_)
    elif header["kind"] == "Sequential":
        network = Sequential.from_layers(layers, features, classes=made.classes_)
    else:
        raise DataError(f"kind {header['kind']!r} is not known")
    if list(map(repr, network.layers)) != list(map(repr, layers)):
        raise DataError(f"an {header['kind']} cannot have the layers {layers}")
    network.link = made.link
    if made.input_range_ is not None:
        low, high = made.input_range_
        network.input_range_ = (float(low), float(high)) if not low.ndim else (low, high)
    network.loss_curve_ = [float(v) for v in header["loss_curve"]]
    network.validation_scores_ = [float(v) for v in header["validation_scores"]]
    return network
