"""The layers that networks are made of.

A layer is one step of a network, in the clear and on shares; :class:`nn.Sequential` makes a network of
a list of layers. ``Dense.untrained(64, 32)`` is a layer of given sizes that is to be trained; with
arrays for parameters, ``Dense(weights, bias)``, a layer is trained. ``LAYERS`` maps the name of every
registered kind of layer to its class.

Examples
--------
>>> import numpy as np
>>> import nn
>>> layers = [nn.layers.Dense.untrained(64, 32), nn.layers.Tanh(), nn.layers.Dense.untrained(32, 10)]
>>> X_train, X_test, y_train, y_test = nn.load_digits_8x8()
>>> model = nn.Sequential(layers, n_features=64, random_state=0).fit(X_train, y_train)
>>> model.score(X_test, y_test) > 0.9
True
"""

from nn.layers.activations import Sigmoid, Tanh
from nn.layers.clipping import Clip, HardSigmoid, HardSwish
from nn.layers.comparing import Largest
from nn.layers.convolution import Convolution
from nn.layers.dense import Dense
from nn.layers.dropout import Dropout
from nn.layers.embedding import Embedding
from nn.layers.functions import Cos, Exp, Log, Pow, Reciprocal, Sin, Sqrt
from nn.layers.graph import Graph
from nn.layers.joining import (
    Add,
    Concat,
    MatMul,
    Maximum,
    Mean,
    Minimum,
    Multiply,
    Subtract,
)
from nn.layers.layer import LAYERS, Layer, NamedElsewhere, Weighted, register
from nn.layers.leaky_relu import LeakyReLU
from nn.layers.narrowing import Narrow
from nn.layers.normalisation import BatchNorm
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.rectifiers import Abs, PReLU, Step, ThresholdedReLU
from nn.layers.reducing import ReduceMax, ReduceMean, ReduceMin, ReduceSum
from nn.layers.relu import ReLU
from nn.layers.resizing import CubicResize, Resize
from nn.layers.scale import Scale, Shift
from nn.layers.selecting import Pad, Take
from nn.layers.shaping import Flatten, Reshape, Transpose
from nn.layers.smooth import CELU, ELU, GELU, SELU, Erf, Mish, SiLU, Softplus
from nn.layers.softmax import LogSoftmax, Softmax
from nn.layers.standardising import GroupNorm, LayerNorm, LocalResponseNorm, RMSNorm
from nn.layers.transposed import TransposedConvolution
from nn.layers.trees import Trees

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "LAYERS",
    "SELU",
    "Abs",
    "Add",
    "AveragePool",
    "BatchNorm",
    "Clip",
    "Concat",
    "Convolution",
    "Cos",
    "CubicResize",
    "Dense",
    "Dropout",
    "Embedding",
    "Erf",
    "Exp",
    "Flatten",
    "Graph",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Largest",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LocalResponseNorm",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Maximum",
    "Mean",
    "Minimum",
    "Mish",
    "Multiply",
    "NamedElsewhere",
    "Narrow",
    "PReLU",
    "Pad",
    "Pow",
    "RMSNorm",
    "ReLU",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Reshape",
    "Resize",
    "Scale",
    "Shift",
    "SiLU",
    "Sigmoid",
    "Sin",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Step",
    "Subtract",
    "Take",
    "Tanh",
    "ThresholdedReLU",
    "Transpose",
    "TransposedConvolution",
    "Trees",
    "Weighted",
    "register",
]
