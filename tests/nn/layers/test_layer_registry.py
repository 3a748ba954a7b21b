"""The registry of layers: what files keep of each kind, and what is no kind of layer."""

import json

import numpy as np
import pytest

import nn
from nn.layers import LAYERS, Layer, ReLU, Weighted, register
from nn.layers.layer import described, layers_of
from ring.errors import ArgumentError, DataError, DtypeError

L = nn.layers
# A layer of each kind, and what files of version 1 hold of it.
FORMAT = [
    (L.Dense(np.ones((2, 3)), np.zeros(3)), ["Dense"]),
    (L.Convolution(np.ones((2, 3, 1, 4)), np.zeros(4), stride=2), ["Convolution", [2, 2], "valid"]),
    (
        L.Convolution(np.ones((2, 3, 1, 4)), np.zeros(4), padding=((1, 0), (0, 2))),
        ["Convolution", [1, 1], [[1, 0], [0, 2]]],
    ),
    (L.ReLU(), ["ReLU"]),
    (L.Sigmoid(), ["Sigmoid"]),
    (L.Tanh(), ["Tanh"]),
    (L.MaxPool((2, 1)), ["MaxPool", [2, 1]]),
    (L.AveragePool(3), ["AveragePool", [3, 3]]),
    (L.Reshape(8, 8, 1), ["Reshape", [8, 8, 1]]),
    (L.Flatten(), ["Flatten"]),
    (L.Transpose(1, 2, 0), ["Transpose", [1, 2, 0]]),
]


def test_kinds_that_files_may_hold_stay_known():
    assert {text[0] for _, text in FORMAT} <= set(LAYERS)


@pytest.mark.parametrize(("layer", "text"), FORMAT, ids=lambda x: repr(x))
def test_what_files_hold_of_a_layer_makes_it_again(layer, text):
    (kept,) = json.loads(json.dumps(described([layer])))
    assert kept == text
    (again,) = layers_of([text], layer.parameters)
    assert type(again) is type(layer) and repr(again) == repr(layer)
    for a, b in zip(again.parameters, layer.parameters, strict=True):
        assert a is b


@pytest.mark.parametrize(
    "text",
    [
        ["Flatten", 1],
        ["ReLU", 1],
        ["Dense", 1],
        ["MaxPool"],
        ["Reshape"],
        ["Layer"],
        ["Weighted"],
        [],
    ],
    ids=str,
)
def test_descriptions_of_no_layer_are_refused(text):
    with pytest.raises(DataError, match="its layers cannot be made|fewer parameters"):
        layers_of([text], [np.ones((2, 3)), np.zeros(3)])


def test_what_register_refuses():
    class Scaled(Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

    with pytest.raises(ArgumentError, match=r"options of Scaled must be .*\('factor',\).*got \(\)"):
        register(Scaled)

    class Mixed(Weighted):
        def __init__(self, weights, bias, kind):
            super().__init__(weights, bias)

    with pytest.raises(ArgumentError, match=r"options of Mixed must be .*\('kind',\)"):
        register(Mixed)
    with pytest.raises(ArgumentError, match="the name of a layer must be new, got ReLU"):
        register(type("ReLU", (ReLU,), {}))
    for bad in (int, ReLU(), None):
        with pytest.raises(DtypeError, match="kind must be a subclass of Layer"):
            register(bad)
    assert not {"Scaled", "Mixed"} & set(LAYERS) and LAYERS["ReLU"] is ReLU
