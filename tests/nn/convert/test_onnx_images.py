"""ONNX graphs on images against ONNX's own reference evaluator: channels first there, last here."""

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.layers import Dense, ReLU
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape, Transpose
from nn.models.predictors import Classifier

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
reference = pytest.importorskip("onnx.reference")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT

random = np.random.default_rng(0)
X = random.normal(size=(5, 3, 8, 10)).astype(np.float32)


def normal(*shape):
    return random.normal(size=shape).astype(np.float32)


# Weights of every shape, by name; integers are axes and shapes.
CONSTANTS = {
    "k3": normal(4, 3, 3, 3), "k32": normal(4, 3, 3, 2), "k1": normal(4, 3, 1, 1), "b4": normal(4),
    "k4": normal(2, 4, 3, 3), "k44": normal(4, 4, 3, 3), "grouped": normal(4, 1, 3, 3),
    "k5": normal(4, 5, 3, 3), "big": normal(4, 3, 9, 3), "k_1d": normal(4, 3, 3),
    "s3": normal(3), "m3": normal(3), "v3": random.uniform(0.5, 2, size=3).astype(np.float32),
    "s4": normal(4), "m4": normal(4), "v4": random.uniform(0.5, 2, size=4).astype(np.float32),
    "mean": normal(1, 3, 1, 1), "deviation": normal(3, 1, 1) ** 2 + 1, "half": np.float32(0.5),
    "pixels": normal(1, 3, 8, 10), "w320": normal(320, 6), "w240": normal(240, 6),
    "w80": normal(80, 6), "w4": normal(4, 6), "b6": normal(6), "w80t": normal(6, 80),
    "hw": np.array([2, 3]), "one": np.array([1]), "flat": np.array([0, -1]), "four": np.array([4]),
    "images": np.array([-1, 3, 8, 10]), "yes": np.array(True), "ratio": np.float32(0.5),
    "around": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    "two_three": np.array([-2, -1]), "pixel": normal(4, 6, 8),
}  # fmt: skip


def build(nodes, output="y", opset=17, shape=("n", 3, 8, 10)):
    """Make a model from lines "Operator inputs -> output" with attributes."""
    made = []
    for line, attributes in nodes:
        left, right = line.split(" -> ")
        op, *inputs = left.split()
        made.append(helper.make_node(op, inputs, right.split(), name=f"the {op}", **attributes))
    used = {name for node in made for name in node.input}
    graph = helper.make_graph(
        made,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [onnx.numpy_helper.from_array(v, n) for n, v in CONSTANTS.items() if n in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model, x=X, tolerance=1e-4):
    """Compare with the reference evaluator; rows are the images' pixels as ONNX has them."""
    made = nn.from_onnx(model, x.reshape(len(x), -1))
    want = reference.ReferenceEvaluator(model).run(None, {"x": x})[0].reshape(len(x), -1)
    found = made.predict(x.reshape(len(x), -1)).reshape(len(x), -1)
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    return made


CONV = {"kernel_shape": [3, 3], "group": 1, "dilations": [1, 1]}
FLAT = ("Flatten c -> f", {"axis": 1})
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


@pytest.mark.parametrize("bias", ["", " b4"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 1], [3, 2]])
@pytest.mark.parametrize("pads", [None, [0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 1, 3], [0, 1, 2, 1]])
def test_convolutions(bias, strides, pads):
    attributes = {**CONV, "strides": strides} | ({"pads": pads} if pads else {})
    made = check(build([(f"Conv x k3{bias} -> y", attributes)]))
    assert [type(layer) for layer in made.layers[:3]] == [Reshape, Transpose, Convolution]


@pytest.mark.parametrize("automatic", ["VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"])
@pytest.mark.parametrize("kernel", ["k3", "k32", "k1"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
def test_automatic_padding(automatic, kernel, strides):
    check(build([(f"Conv x {kernel} b4 -> y", {"auto_pad": automatic, "strides": strides})]))


def test_one_channel_needs_no_transposition():
    kernel = CONSTANTS["k3"][:, :1]
    model = build([("Conv x k3 -> y", {})], shape=("n", 1, 8, 10))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernel, "k3"))
    made = check(model, X[:, :1])
    assert [type(layer) for layer in made.layers[:2]] == [Reshape, Convolution]
    assert made.layers[0].shape == (8, 10, 1)


@pytest.mark.parametrize("how", ["Flatten f -> g", "Reshape f flat -> g", "Reshape f w -> g"])
@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_what_is_flattened_keeps_its_places(how, activation):
    nodes = [
        ("Conv x k3 b4 -> c", {"pads": [1, 1, 1, 1]}),
        (f"{activation} c -> f", {}),
        (how.replace(" w ", " flat "), {"axis": 1} if how.startswith("Flatten") else {}),
        (f"{activation} g -> h", {}),
        ("Gemm h w320 b6 -> y", {}),
    ]
    made = check(build(nodes))
    assert [type(layer) for layer in made.layers][-3:] == [
        Flatten, type(made.layers[3]), Dense
    ]  # fmt: skip


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [[2, 2], [4, 5], [8, 10], [1, 2]])
def test_pools(op, size):
    nodes = [
        ("Conv x k3 b4 -> c", {"pads": [1, 1, 1, 1]}),
        (f"{op} c -> p", {"kernel_shape": size, "strides": size, "ceil_mode": 0}),
        ("Relu p -> y", {}),
    ]
    check(build(nodes))
    check(build([(f"{op} x -> y", {"kernel_shape": size, "strides": size})]))


def test_a_maximum_is_taken_before_the_relu():
    nodes = [("Conv x k3 -> c", {"pads": [1] * 4}), ("Relu c -> r", {}), ("MaxPool r -> y", POOL)]
    made = check(build(nodes))
    assert [type(layer) for layer in made.layers[3:5]] == [MaxPool, ReLU]


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMean 1"])
@pytest.mark.parametrize("last", ["Flatten", "Squeeze", "Reshape"])
def test_global_pools(op, last):
    nodes = [
        ("Conv x k3 b4 -> c", {}),
        ("Relu c -> r", {}),
        (f"{op.split()[0]} r{' two_three' if '1' in op else ''} -> p",
         {"axes": [2, 3]} if op == "ReduceMean" else {}),
        {"Flatten": ("Flatten p -> f", {}), "Squeeze": ("Squeeze p hw -> f", {}),
         "Reshape": ("Reshape p flat -> f", {})}[last],
        ("MatMul f w4 -> y", {}),
    ]  # fmt: skip
    made = check(build(nodes, opset=18 if "1" in op else 17))
    assert type(made.layers[4]) in (AveragePool, MaxPool, ReLU)


def test_a_mean_without_its_axes():
    nodes = [
        ("Conv x k3 b4 -> c", {}), ("ReduceMean c -> f", {"axes": [-1, -2], "keepdims": 0}),
        ("MatMul f w4 -> y", {}),
    ]  # fmt: skip
    check(build(nodes))


NORM3 = ("BatchNormalization {} s3 m3 m3 v3 -> {}", {"epsilon": 0.25})
NORM4 = ("BatchNormalization {} s4 m4 m4 v4 -> {}", {"epsilon": 0.25})


def norm(kind, x, y):
    return kind[0].format(x, y), kind[1]


def test_batch_normalisation_behind_a_convolution_is_folded():
    made = check(build([("Conv x k3 b4 -> c", {"pads": [1] * 4}), norm(NORM4, "c", "y")]))
    assert sum(isinstance(layer, Convolution) for layer in made.layers) == 1


@pytest.mark.parametrize(("pads", "count"), [([0] * 4, 1), ([1] * 4, 2)])
def test_batch_normalisation_of_the_input(pads, count):
    # Zeros around the image come behind it: then it cannot be folded.
    made = check(build([norm(NORM3, "x", "n"), ("Conv n k3 b4 -> y", {"pads": pads})]))
    assert sum(isinstance(layer, Convolution) for layer in made.layers) == count


def test_batch_normalisation_behind_an_activation_and_a_pool():
    nodes = [
        ("Conv x k3 b4 -> c", {}), ("Relu c -> r", {}), ("AveragePool r -> p", POOL),
        norm(NORM4, "p", "n"), ("Conv n k4 -> y", {"pads": [0, 1, 0, 1]}),
    ]  # fmt: skip
    check(build(nodes))
    nodes[-1] = ("Relu n -> y", {})
    check(build(nodes))
    nodes[-1:] = [("Flatten n -> f", {}), ("Relu f -> y", {})]
    check(build(nodes))


@pytest.mark.parametrize("pads", [[0] * 4, [1, 0, 2, 1]])
def test_mean_and_deviation_of_the_pixels(pads):
    nodes = [
        ("Sub x mean -> a", {}), ("Div a deviation -> b", {}), ("Mul b half -> c", {}),
        ("Sub half c -> d", {}), ("Add d half -> e", {}), ("Conv e k3 -> y", {"pads": pads}),
    ]  # fmt: skip
    check(build(nodes))
    nodes[-1:] = [("Flatten e -> f", {"axis": -3}), ("Gemm f w240 b6 -> y", {})]
    made = check(build(nodes))
    assert repr(made.layers) == "[Dense(240, 6)]", "all of it is one affine map"


def test_a_constant_for_every_pixel():
    check(build([("Sub x pixels -> a", {}), ("Conv a k3 -> y", {})]))
    nodes = [("Conv x k1 -> c", {}), ("Relu c -> r", {}), ("Mul r b -> y", {})]
    CONSTANTS["b"] = normal(4, 8, 10)
    check(build(nodes))


@pytest.mark.parametrize("opset", [11, 17])
def test_zeros_around_an_image(opset):
    pad = ("Pad x around -> p", {}) if opset > 10 else ("Pad x -> p", {})
    made = check(build([pad, ("Conv p k3 -> y", {"pads": [1, 0, 0, 1]})], opset=opset))
    assert made.layers[2].padding == ((2, 0), (2, 2))


def test_channels_last_as_tensorflow_exports_them():
    nodes = [
        ("Transpose x -> t", {"perm": [0, 3, 1, 2]}), ("Conv t k3 b4 -> c", {"pads": [1] * 4}),
        ("Relu c -> r", {}), ("MaxPool r -> p", POOL), ("Transpose p -> u", {"perm": [0, 2, 3, 1]}),
        ("Reshape u flat -> f", {}), ("MatMul f w80 -> m", {}), ("Add m b6 -> y", {}),
    ]  # fmt: skip
    x = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    made = check(build(nodes, shape=("n", 8, 10, 3)), x)
    assert [type(layer) for layer in made.layers] == [
        Reshape, Convolution, MaxPool, ReLU, Flatten, Dense
    ]  # fmt: skip
    np.testing.assert_allclose(made.layers[-1].weights, CONSTANTS["w80"], rtol=1e-6)


def test_transposed_rows():
    nodes = [
        ("Transpose x -> t", {"perm": [0, 2, 3, 1]}), ("Flatten t -> f", {}),
        ("MatMul f w240 -> y", {}),
    ]  # fmt: skip
    made = check(build(nodes))
    assert repr(made.layers) == "[Dense(240, 6)]"


def test_rows_that_become_images():
    x = X.reshape(5, -1)
    nodes = [("Reshape x images -> i", {}), ("Conv i k3 -> y", {})]
    check(build(nodes, shape=("n", 240)), x)
    CONSTANTS["square"] = normal(240, 240) / 16
    nodes = [("MatMul x square -> m", {}), ("Relu m -> r", {}), *nodes]
    nodes[2] = ("Reshape r images -> i", {})
    check(build(nodes, shape=("n", 240)), x)


def as_torch(last=()):
    """Conv, BatchNorm, ReLU, pools, dropout and a classifier."""
    return [
        ("Conv x k3 b4 -> c1", {**CONV, "pads": [1, 1, 1, 1], "strides": [1, 1]}),
        norm(NORM4, "c1", "n1"),
        ("Relu n1 -> r1", {}),
        ("MaxPool r1 -> p1", {**POOL, "ceil_mode": 0, "dilations": [1, 1], "pads": [0] * 4}),
        ("Dropout p1 ratio -> d1", {}),
        ("Conv d1 k44 -> c2", {**CONV, "pads": [1, 1, 1, 1]}),
        ("Relu c2 -> r2", {}),
        ("Flatten r2 -> f", {"axis": 1}),
        ("Gemm f w80t b6 -> y", {"alpha": 0.05, "beta": 1.0, "transB": 1}),
        *last,
    ]


@pytest.mark.parametrize("opset", [12, 13, 17, 20])
def test_a_network_on_shares_and_in_a_file(opset, tmp_path):
    model = build(as_torch([("Softmax y -> p", {"axis": 1})]), "p", opset=opset)
    rows = X.reshape(5, -1)
    made = nn.from_onnx(model, rows)
    # The evaluator takes normalisation before version 14 for training, whatever its outputs.
    judge = build(as_torch([("Softmax y -> p", {"axis": 1})]), "p", opset=max(opset, 14))
    odds = reference.ReferenceEvaluator(judge).run(None, {"x": X})[0]
    assert isinstance(made, Classifier)
    np.testing.assert_allclose(made.predict_proba(rows), odds, atol=1e-4)
    audit = made.audit(rows)
    assert audit.fits, audit.problem
    assert 0 < audit.layers[-1].error_observed <= audit.error_bound
    with mpc.Session(("alice", "bob", "carol")) as s:
        secret = made.share(s, owner="alice", scores=True)
        shared = secret.share_rows(rows, owner="carol")
        np.testing.assert_allclose(secret.predict_proba(shared), odds, atol=2e-3)
        np.testing.assert_array_equal(secret.predict(shared), odds.argmax(axis=1))
    made.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert repr(again.layers) == repr(made.layers)
    np.testing.assert_array_equal(again.predict_proba(rows), made.predict_proba(rows))


@pytest.mark.parametrize(
    "nodes",
    [
        [("Pad x around -> y", {"mode": "edge"})],
        [("Pad x around -> y", {"mode": "reflect"})],
        [("Pad x around half -> y", {})],
        [("MaxPool x -> y", {"kernel_shape": [2, 2]})],
        [("AveragePool x -> y", {"kernel_shape": [3, 3], "strides": [3, 3]})],
        [("ReduceMean x -> y", {"axes": [1]})],
        [("Conv x k3 -> c", {}), ("Softmax c -> y", {"axis": 1})],
        [("Pad x channels -> y", {})],
        [("Pad x around -> p", {}), ("Relu p -> y", {})],
        [("Conv x k3 -> c", {}), ("Add c c -> y", {})],
        [("Conv x k3 -> c", {}), ("Concat c c -> y", {"axis": 1})],
        [("Conv x k3 -> c", {}), ("Concat c c -> y", {"axis": 3})],
        [("Conv x k3 -> c", {}), ("Mul c pixel -> d", {}), ("Relu d -> y", {})],
    ],
)  # fmt: skip
def test_what_takes_a_graph(nodes):
    output = nodes[-1][0].split(" -> ")[1]
    check(build(nodes, output))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Conv x grouped -> y", {"group": 3})], "Conv .node 'the Conv', output y.*groups must divide"),
        ([("Conv x k3 -> y", {"kernel_shape": [5, 5]})], r"kernel_shape of its weights, got .*\[5, 5\]"),
        ([("Conv x k3 -> y", {"pads": [0, -1, 0, 0]})], "pads of at least 0"),
        ([("Conv x k3 -> y", {"auto_pad": "SAME"})], "auto_pad=SAME"),
        ([("Conv x k5 -> y", {})], "images of 5 channels, got 3"),
        ([("Conv x big -> y", {})], "kernel larger than the image"),
        ([("Conv x k_1d -> y", {})], "rows with 1 axes behind the channels"),
        ([("Conv x x -> y", {})], "needs a constant"),
        ([("Flatten x -> f", {}), ("Conv f k3 -> y", {})], "needs images"),
        ([("MaxPool x -> y i", POOL), ("Relu i -> z", {})], "indices of maxima are not converted"),
        ([("ReduceMean x -> y", {"axes": [0]})], "must keep axis 0, which counts the rows"),
        ([("Transpose x -> y", {"perm": [1, 0, 2, 3]})], "several rows together"),
        ([("Transpose x -> y", {})], "several rows together"),
        ([("Dropout x ratio yes -> y", {})], "training_mode=False"),
        ([("BatchNormalization x s3 m3 m3 v3 -> y", {"training_mode": 1})], "training_mode=0"),
        ([("BatchNormalization x s4 m4 m4 v4 -> y", {})], "BatchNormalization"),
        ([("BatchNormalization x s3 m3 m3 v3 -> y a b", {})], "one output"),
        ([("Conv x k3 -> c", {}), ("MatMul c w4 -> y", {})], "needs an axis of 4, got 8"),
        ([("Resize x -> y", {})], "needs constant scales, or sizes"),
        ([("ConvTranspose x k3 -> y", {})], "ConvTranspose.*needs images of 4 channels, got 3"),
        ([("Squeeze x one -> y", {})], "axes of size 1"),
        ([("Conv x k3 -> c", {}), ("Cast c -> y", {"to": 7})], "rounding to integers is not converted"),
        ([("Transpose x -> t", {"perm": [0, 2, 1, 3]}), ("Conv t k3 -> y", {})], "8|reordered"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted(nodes, message):
    output = nodes[-1][0].split(" -> ")[1].split()[0]
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(build(nodes, output))
