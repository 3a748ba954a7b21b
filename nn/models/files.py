"""Reading of model files, see :mod:`nn.models.model_archives`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core.checks import named_inputs
from nn.fixed_point.calibration import Bounds
from nn.layers.graph import names, wired
from nn.layers.layer import layers_of
from nn.models.heads import Head, HeadsModel
from nn.models.mlp import MLP
from nn.models.model_archives import VERSION, read_model
from nn.models.predictors import Classifier, Regressor
from nn.models.preprocessing import PublicPreprocessing
from nn.models.sequential import Sequential
from nn.models.trainable import Network
from ring.errors import DataError, SottoError

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Classifier | Regressor | HeadsModel:
    """Read a model from a file that ``model.save`` has written.

    Parameters
    ----------
    path : path

    Returns
    -------
    MLP, Sequential, Classifier, Regressor or HeadsModel

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file is no model file, of another version, or damaged.
    DtypeError
        If `path` is no path.

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
    header, arrays = read_model(path)
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
        if "preprocessing" in header:
            model.preprocessing_ = PublicPreprocessing.rebuilt(header["preprocessing"])
        if "bounds" in header:
            model.bounds_ = Bounds(**header["bounds"])
        if "inputs" in header:
            model.inputs_ = named_inputs(header["inputs"], model.n_features_in_)
        if "output_scale" in arrays:
            scale = arrays["output_scale"]
            if scale.shape != (model.n_outputs_,) or not (scale >= 0).all():
                raise DataError(f"output_scale must be {model.n_outputs_} numbers of 0 or more")
            model.output_scale_ = scale
        return model
    except (KeyError, TypeError, ValueError, SottoError) as error:
        raise DataError(f"{os.fspath(path)} is a damaged model file: {error}") from None


def _build(
    header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> Classifier | Regressor | HeadsModel:
    """Return the model of a file's header and arrays, without names of features."""
    parameters = []
    for i in range(sum(name.startswith("parameter_") for name in arrays)):
        array = arrays[f"parameter_{i}"]
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise DataError(f"parameter_{i} must hold finite floats of 32 or 64 bits")
        parameters.append(array)
    ends = (arrays["low"], arrays["high"]) if "low" in arrays else None
    features = int(header["n_features"])
    layers = wired(layers_of(header["layers"], parameters), header)
    if header["kind"] == "Regressor":
        return Regressor(layers, features, ends, flat=header["flat"])
    if header["kind"] == "HeadsModel":
        return HeadsModel(layers, features, [Head(*kept) for kept in header["heads"]], ends)
    classes = (
        arrays["classes"].astype(object) if header["classes_are_objects"] else arrays["classes"]
    )
    made = Classifier(layers, classes, features, ends, link=header["link"])
    if header["kind"] == "Classifier":
        return made
    network: Network
    if header["kind"] == "MLP":
        network = MLP.from_parameters(
            parameters, classes=made.classes_, activation=header.get("activation", "relu")
        )
    elif header["kind"] == "Sequential":
        network = Sequential.from_layers(layers, features, classes=made.classes_)
    else:
        raise DataError(f"kind {header['kind']!r} is not known")
    if names(network.layers) != names(layers):
        raise DataError(f"an {header['kind']} cannot have the layers {layers}")
    network.link = made.link
    if made.input_range_ is not None:
        low, high = made.input_range_
        network.input_range_ = (float(low), float(high)) if not low.ndim else (low, high)
    network.loss_curve_ = [float(v) for v in header["loss_curve"]]
    network.validation_scores_ = [float(v) for v in header["validation_scores"]]
    return network
