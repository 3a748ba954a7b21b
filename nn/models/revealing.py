"""Plain models, made from shared models whose weights were revealed."""

from __future__ import annotations

from collections.abc import Sequence

from nn.layers import Dense, Layer, ReLU
from nn.layers.graph import Graph
from nn.layers.layer import parameters
from nn.models.heads import HeadsModel
from nn.models.mlp import MLP
from nn.models.predictors import Regressor
from nn.models.sequential import Sequential
from nn.models.trainable import Network
from nn.shared.heads import SharedHeads
from nn.shared.model import SharedModel, plain_model_of
from nn.shared.regressor import SharedRegressor

__all__ = ["plain_classifier", "plain_heads", "plain_regressor"]


@plain_model_of(SharedModel)
def plain_classifier(model: SharedModel, layers: Sequence[Layer]) -> Network:
    """Return an MLP if the layers are Dense and ReLU in turn, else a Sequential."""
    network: Network
    kinds = [type(layer) for layer in layers]
    chain = not isinstance(layers, Graph)
    if chain and kinds == [Dense, *[ReLU, Dense] * (len(layers) // 2)]:
        network = MLP.from_parameters(parameters(layers), classes=model.classes_)
    else:
        network = Sequential.from_layers(layers, model.n_features_in_, classes=model.classes_)
    ends = model.low, model.high
    network.input_range_ = ends if model.low.ndim else (float(ends[0]), float(ends[1]))
    network.link, network.feature_names_in_ = model.link, model.feature_names_in_
    network.inputs_ = model.inputs_
    return network


@plain_model_of(SharedHeads)
def plain_heads(model: SharedHeads, layers: Sequence[Layer]) -> HeadsModel:
    """Return a HeadsModel with the revealed layers."""
    ends = model.low, model.high
    plain = HeadsModel(layers, model.n_features_in_, model.heads, ends)
    plain.feature_names_in_, plain.inputs_ = model.feature_names_in_, model.inputs_
    return plain


@plain_model_of(SharedRegressor)
def plain_regressor(model: SharedRegressor, layers: Sequence[Layer]) -> Regressor:
    """Return a Regressor with the revealed layers."""
    ends = model.low, model.high
    plain = Regressor(layers, model.n_features_in_, ends, flat=model.flat)
    plain.feature_names_in_, plain.inputs_ = model.feature_names_in_, model.inputs_
    return plain
