"""The deep networks to start from: sizes, initial weights, and values against ONNX and plain NumPy."""

import math
import re

import numpy as np
import pytest

import mpc
import nn
from nn.layers import BatchNorm, Convolution, Dense, Shift
from nn.layers.graph import rewired, run
from nn.layers.normalisation import folded
from ring.errors import ArgumentError, RangeError, ShapeError

COUNTS = {
    "ResNet20": 270_410, "ResNet18": 11_178_762, "MobileNetV2": 709_762,
    "TransformerEncoder": 798_730, "ViT": 821_386,
}  # fmt: skip
# What papers count: without the biases of convolutions, and 1,000 classes are ten here.
PAPERS = {"ResNet20": 0.27e6, "ResNet18": 11.17e6, "MobileNetV2": 1.97e6 - 1281 * 990}
random = np.random.default_rng(5)


@pytest.fixture(scope="module")
def networks():
    return {name: getattr(nn.networks, name)(random_state=0) for name in COUNTS}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted(networks, name):
    model = networks[name]
    assert model.n_parameters == COUNTS[name]
    assert f"{COUNTS[name]:,} parameters" in getattr(nn.networks, name).__doc__
    row = re.search(rf":`{name}` +([\d,]+) +([\d,]+) ", nn.networks.__doc__)
    assert row.groups() == (f"{model.n_features_in_:,}", f"{COUNTS[name]:,}")
    if name in PAPERS:
        biases = sum(len(x.bias) for x in model.layers if isinstance(x, Convolution))
        assert model.n_parameters - biases == pytest.approx(PAPERS[name], rel=0.01)


@pytest.mark.parametrize("name", ["ResNet20", "TransformerEncoder"])
def test_initial_weights_follow_the_seed(networks, name):
    model, again, other = networks[name], *(
        getattr(nn.networks, name)(random_state=seed) for seed in (0, 1)
    )  # fmt: skip
    for a, b in zip(model.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (model.layers[1].parameters[0] != other.layers[1].parameters[0]).any()
    for layer in model.layers:
        if isinstance(layer, Convolution):
            fan = math.prod(layer.weights.shape[:-1])
            assert layer.weights.std() == pytest.approx(math.sqrt(2 / fan), rel=0.1)
        elif isinstance(layer, Shift):
            assert layer.summand.std() == pytest.approx(0.02, rel=0.1)
        elif isinstance(layer, Dense) and name == "TransformerEncoder":
            inputs, outputs = layer.weights.shape
            parts = np.split(layer.weights, 3 if outputs == 384 else 1, axis=1)
            wanted = math.sqrt(2 / (inputs + parts[0].shape[1]))
            for k, part in enumerate(parts):
                small = math.sqrt(32) if len(parts) == 3 and k == 0 else 1
                assert part.std() * small == pytest.approx(wanted, rel=0.1)


class Exporter:
    """Arrays in the documented order, and an ONNX graph of the same network."""

    def __init__(self):
        self.onnx = pytest.importorskip(
            "onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]"
        )
        self.arrays, self.nodes, self.constants = [], [], []

    def node(self, op, *names, **attributes):
        self.nodes.append(
            self.onnx.helper.make_node(op, names, [f"v{len(self.nodes)}"], **attributes)
        )
        return self.nodes[-1].output[0]

    def constant(self, array):
        self.constants.append(
            self.onnx.numpy_helper.from_array(
                np.asarray(array, np.float32), f"c{len(self.constants)}"
            )
        )
        return self.constants[-1].name

    def normal(self, x, channels, outputs, kernel, stride=1, groups=1):
        """Add a convolution with batch normalisation whose statistics are no 0 and 1."""
        fan = kernel * kernel * channels // groups
        weights = random.normal(
            scale=math.sqrt(2 / fan), size=(kernel, kernel, channels // groups, outputs)
        )
        bias, shift, mean = random.normal(scale=0.3, size=(3, outputs))
        scale, variance = random.uniform(0.5, 1, outputs), random.uniform(1, 2, outputs)
        self.arrays += [weights, bias, scale, shift, mean, variance]
        names = [self.constant(weights.transpose(3, 2, 0, 1)), self.constant(bias)]
        pads = [kernel // 2] * 4
        x = self.node("Conv", x, *names, strides=[stride] * 2, pads=pads, group=groups)
        return self.node("BatchNormalization", x, *map(self.constant, self.arrays[-4:]))

    def model(self, x, channels):
        """Add pooling and the classifier, and return the model."""
        weights, bias = random.normal(size=(channels, 10)), random.normal(size=10)
        self.arrays += [weights, bias]
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        x = self.node("Gemm", x, self.constant(weights), self.constant(bias))
        info = self.onnx.helper.make_tensor_value_info
        kind = self.onnx.TensorProto.FLOAT
        graph = self.onnx.helper.make_graph(
            self.nodes, "network", [info("x", kind, ("n", 3, 32, 32))], [info(x, kind, None)],
            self.constants,
        )  # fmt: skip
        opset = [self.onnx.helper.make_opsetid("", 18)]
        return self.onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


def residual(e, widths, blocks, projected):
    x, channels = e.node("Relu", e.normal("x", 3, widths[0], 3)), widths[0]
    for outputs in widths:
        for block in range(blocks):
            stride = 2 if block == 0 and outputs != channels else 1
            y = e.normal(
                e.node("Relu", e.normal(x, channels, outputs, 3, stride)), outputs, outputs, 3
            )
            if stride == 2 and projected:
                x = e.normal(x, channels, outputs, 1, 2)
            elif stride == 2:
                # Option A as a convolution: every other pixel, channels in the middle of zeros.
                chosen = np.zeros((outputs, channels, 1, 1))
                chosen[np.arange(channels) + (outputs - channels) // 2, np.arange(channels)] = 1
                x = e.node("Conv", x, e.constant(chosen), strides=[2, 2])
            x, channels = e.node("Relu", e.node("Add", y, x)), outputs
    return e.model(x, channels)


def mobile(e):
    def six(x):
        return e.node("Clip", x, e.constant(0), e.constant(6))

    x, channels = six(e.normal("x", 3, 16, 3)), 16
    stages = [
        (1, 8, 1, 1), (6, 16, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2),
        (6, 160, 1, 1),
    ]  # fmt: skip
    for expansion, outputs, blocks, first in stages:
        for block in range(blocks):
            stride, inner = first if block == 0 else 1, channels * expansion
            y = six(e.normal(x, channels, inner, 1)) if expansion > 1 else x
            y = six(e.normal(y, inner, inner, 3, stride, groups=inner))
            y = e.normal(y, inner, outputs, 1)
            x = e.node("Add", x, y) if stride == 1 and channels == outputs else y
            channels = outputs
    return e.model(six(e.normal(x, channels, 1280, 1)), 1280)


EXPORTS = {
    "ResNet20": lambda e: residual(e, (16, 32, 64), 3, False),
    "ResNet18": lambda e: residual(e, (64, 128, 256, 512), 2, True),
    "MobileNetV2": mobile,
}


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_network_from_onnx_has_the_same_scores(networks, name):
    exporter = Exporter()
    converted = nn.from_onnx(EXPORTS[name](exporter), classes=np.arange(10))
    # float32, as the constants of the graph.
    made = networks[name].from_parameters([a.astype(np.float32) for a in exporter.arrays])
    images = random.uniform(size=(1, 32, 32, 3))
    wanted = converted.decision_function(images.transpose(0, 3, 1, 2).reshape(1, -1))
    found = made.decision_function(images.reshape(1, -1))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def encoder_in_numpy(x, arrays):
    """Return the scores of sequences (rows, length, 128) by the formulas of the papers."""

    def norm(x, scale, shift):
        centred = x - x.mean(axis=-1, keepdims=True)
        return scale * centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 1e-5) + shift

    take = iter(arrays)

    def some(count):
        return [next(take) for _ in range(count)]

    x = x + next(take)
    for _ in range(4):
        wide, parts = norm(x, *some(2)), []
        weights, bias, out, out_bias = some(4)
        for head in range(4):
            at = [slice(32 * head + 128 * k, 32 * head + 128 * k + 32) for k in range(3)]
            q, k, v = (wide @ weights[:, cut] + bias[cut] for cut in at)
            powers = np.exp(q @ k.transpose(0, 2, 1))
            parts.append(powers / powers.sum(axis=-1, keepdims=True) @ v)
        x = x + np.concatenate(parts, axis=-1) @ out + out_bias
        wide = norm(x, *some(2))
        weights, bias, out, out_bias = some(4)
        x = x + np.maximum(wide @ weights + bias, 0) @ out + out_bias
    x = norm(x, *some(2)).mean(axis=1)
    weights, bias = some(2)
    return x @ weights + bias


def changed(model):
    """Return a model's parameters, all of them moved, so that none stands for another."""
    return [p + random.normal(scale=0.03, size=p.shape) for p in model.parameters]


def test_the_transformer_encoder_is_that_of_the_papers(networks):
    arrays = changed(networks["TransformerEncoder"])
    x = random.normal(size=(2, 32, 128))
    found = networks["TransformerEncoder"].from_parameters(arrays)
    found = found.decision_function(x.reshape(2, -1))
    np.testing.assert_allclose(found, encoder_in_numpy(x, arrays), atol=1e-9)


@pytest.mark.parametrize("patch", [4, 8])
def test_the_vision_transformer_takes_patches_row_by_row(patch):
    network = nn.networks.ViT(patch=patch, random_state=0)
    weights, bias, *arrays = changed(network)
    images = random.uniform(size=(1, 32, 32, 3))
    patches = [
        images[:, i : i + patch, j : j + patch].reshape(1, -1)
        for i in range(0, 32, patch)
        for j in range(0, 32, patch)
    ]
    wanted = encoder_in_numpy(np.stack(patches, axis=1) @ weights + bias, arrays)
    found = network.from_parameters([weights, bias, *arrays])
    found = found.decision_function(images.reshape(1, -1))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    with pytest.raises(ArgumentError, match="patch must be 4 or 8, got 5"):
        nn.networks.ViT(patch=5)


def test_weights_that_do_not_fit_are_refused():
    network = nn.Sequential(
        [Dense.untrained(3, 2), BatchNorm.untrained(2)], n_features=3, random_state=0
    )
    arrays = [np.ones((3, 2)), np.ones(2), np.ones(2), np.zeros(2), np.ones(2), np.full(2, 4.0)]
    made = network.from_parameters(arrays, classes=["no", "yes"])
    np.testing.assert_allclose(made.decision_function(np.ones((1, 3))), 3 / 2, atol=1e-5)
    assert made.classes_.tolist() == ["no", "yes"] and made.random_state == 0
    arrays[0][:] = 7
    assert made.parameters[0].max() == 1, "not copied"
    with pytest.raises(ArgumentError, match="must be 6 arrays.* got 4"):
        network.from_parameters(arrays[:4])
    with pytest.raises(ShapeError, match=r"parameters\[2\] must have shape \(2,\), for layer 2"):
        network.from_parameters([*arrays[:2], np.ones(3), *arrays[3:]])
    with pytest.raises(RangeError, match=r"parameters\[5\], a variance, .* got -1"):
        network.from_parameters([*arrays[:5], np.array([1.0, -1.0])])
    with pytest.raises(RangeError, match=r"parameters\[1\] must be finite"):
        network.from_parameters([arrays[0], np.array([1.0, np.nan]), *arrays[2:]])


def test_a_transformer_is_trained(networks):
    X = random.normal(size=(8, 4096))
    model = nn.networks.TransformerEncoder(random_state=0)
    settings = {"epochs": 4, "batch_size": 8, "optimizer": "adam", "learning_rate": 1e-3}
    model.fit(X, np.arange(8), classes=np.arange(10), **settings)
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 2
    assert np.abs(model.layers[1].summand).max() > 0, "positions are learnt"


def test_a_residual_network_on_shares_has_the_same_scores():
    """Layer by layer: values are checked in a local session, whose every product they must fit."""
    model = nn.networks.ResNet20(random_state=0)
    X = np.random.default_rng(8).uniform(size=(8, 3072))
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0  # statistics of these rows alone
    run(model.layers, X, lambda _, layer, x: layer.forward(x))
    wanted = model.decision_function(X)
    layers = folded(model.layers)
    assert not any(isinstance(layer, BatchNorm) for layer in layers)
    with mpc.Session() as s:
        shared = [
            layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
            for layer in layers
        ]
        rows = s.share(X, owner="bob", bound=1)
        found = run(rewired(layers, shared), rows).reveal()
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_array_equal(found.argmax(axis=1), wanted.argmax(axis=1))


def test_a_vision_transformer_on_shares_has_the_same_scores(networks):
    model = networks["ViT"]
    X = np.random.default_rng(8).uniform(size=(2, 3072))
    with mpc.Session(frac_bits=16, int_bits=18) as s:
        secret = model.share(s, owner="alice", scores=True)
        rows = secret.share_rows(X, owner="bob")
        found, wanted = secret.decision_function(rows), model.decision_function(X)
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_array_equal(found.argmax(axis=1), wanted.argmax(axis=1))
