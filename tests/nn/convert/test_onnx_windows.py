"""ONNX operators with windows and along axes against ONNX's own reference evaluator, corner cases too."""

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.models.predictors import Regressor

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
reference = pytest.importorskip("onnx.reference")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT

IMAGES, SIGNALS, TOKENS = (4, 6, 7), (4, 9), (5, 6)
ROWS = 3


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def build(op, shape, attributes=(), constants=(), opset=18, kind=FLOAT):
    """Make a model of one node on rows of `shape`; None among the constants is an input left out."""
    names = ["" if v is None else f"c{k}" for k, v in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["y"], name=f"the {op}", **dict(attributes))
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", kind, ("n", *shape))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [
            onnx.numpy_helper.from_array(np.asarray(v), n)
            for n, v in zip(names, constants, strict=True)
            if v is not None
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model, shape, want=None, rows=ROWS):
    """Compare with the reference evaluator; return the model and what it should give."""
    x = normal(rows, *shape)
    made = nn.from_onnx(model)
    assert isinstance(made, Regressor)
    if want is None:
        want = reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    want = want.reshape(rows, -1)
    found = made.predict(x.reshape(rows, -1)).reshape(rows, -1)
    np.testing.assert_allclose(found, want, atol=2e-5 * max(1, np.abs(want).max()))
    return made, x, want


POOLS = [
    (IMAGES, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    (IMAGES, {"kernel_shape": [2, 3], "pads": [0, 1, 1, 2]}),
    (IMAGES, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    (IMAGES, {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    # A last window along the width would begin behind the image.
    (IMAGES, {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    (IMAGES, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    (IMAGES, {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
    (IMAGES, {"kernel_shape": [2, 2], "strides": [3, 3], "auto_pad": "VALID"}),
    (SIGNALS, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    (SIGNALS, {"kernel_shape": [2], "strides": [2]}),
]


@pytest.mark.parametrize(("shape", "attributes"), POOLS, ids=str)
def test_max_pool(shape, attributes):
    check(build("MaxPool", shape, attributes), shape)


@pytest.mark.parametrize("dilations", [[2, 1], [2, 3]])
def test_max_pool_with_dilation(dilations):
    check(build("MaxPool", IMAGES, {"kernel_shape": [2, 2], "dilations": dilations}), IMAGES)


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize(("shape", "attributes"), POOLS, ids=str)
def test_average_pool(shape, attributes, counted):
    check(build("AveragePool", shape, {**attributes, "count_include_pad": counted}), shape)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [IMAGES, SIGNALS])
def test_global_pools(op, shape):
    reduce = np.max if op == "GlobalMaxPool" else np.mean
    axes = tuple(range(2, len(shape) + 1))
    check(build(op, shape), shape, reduce(normal(ROWS, *shape), axis=axes))


@pytest.mark.parametrize(
    ("shape", "weights", "attributes"),
    [
        (IMAGES, (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        (IMAGES, (6, 2, 2, 3), {"group": 2, "strides": [2, 1], "auto_pad": "SAME_LOWER"}),
        (IMAGES, (3, 4, 3, 2), {"dilations": [2, 3], "pads": [2, 0, 1, 3]}),
        (IMAGES, (3, 4, 3, 3), {"dilations": [2, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        (SIGNALS, (5, 4, 3), {"strides": [2], "pads": [2, 1]}),
        (SIGNALS, (4, 1, 2), {"group": 4, "dilations": [3]}),
    ],
    ids=str,
)
def test_conv(shape, weights, attributes):
    constants = [normal(*weights), normal(weights[0])]
    check(build("Conv", shape, attributes, constants), shape)
    check(build("Conv", shape, attributes, constants[:1]), shape)


@pytest.mark.parametrize(
    ("shape", "weights", "attributes"),
    [
        (IMAGES, (4, 3, 2, 2), {"strides": [2, 2]}),
        (IMAGES, (4, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        (IMAGES, (4, 2, 3, 2), {"dilations": [2, 1], "pads": [1, 0, 2, 1]}),
        (IMAGES, (4, 1, 3, 3), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
        (IMAGES, (4, 1, 3, 3), {"strides": [2, 2], "output_shape": [12, 14], "auto_pad": "SAME_LOWER"}),
        (IMAGES, (4, 1, 3, 3), {"strides": [2, 2], "output_shape": [14, 16]}),
        (SIGNALS, (4, 2, 4), {"strides": [2], "pads": [1, 1]}),
    ],
    ids=str,
)  # fmt: skip
def test_conv_transpose(shape, weights, attributes):
    outputs = weights[1] * attributes.get("group", 1)
    model = build("ConvTranspose", shape, attributes, [normal(*weights), normal(outputs)])
    check(model, shape)


def test_conv_transpose_by_groups():
    attributes, weights = {"dilations": [2, 1], "strides": [1, 2]}, normal(4, 3, 3, 2)
    x, halves = normal(ROWS, *IMAGES), []
    for part in (slice(0, 2), slice(2, 4)):
        half = build("ConvTranspose", (2, 6, 7), attributes, [weights[part]])
        halves += reference.ReferenceEvaluator(half).run(None, {"x": x[:, part]})
    model = build("ConvTranspose", IMAGES, {**attributes, "group": 2}, [weights])
    check(model, IMAGES, np.concatenate(halves, axis=1))


@pytest.mark.parametrize(
    "place", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.5, 3], [1, 1, 3, 1]], ids=str)
def test_resize(place, mode, scales):
    attributes = {"coordinate_transformation_mode": place, "mode": mode}
    check(build("Resize", IMAGES, attributes, [None, np.float32(scales)]), IMAGES)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_scales_are_numbers_of_float32(mode):
    """10 pixels times float32's 0.7, which is a little less than 0.7, are 7 pixels in onnxruntime."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime has the last word")
    model = build("Resize", (2, 10, 10), {"mode": mode}, [None, np.float32([1, 1, 0.7, 1.7])])
    x = normal(ROWS, 2, 10, 10)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"x": x})
    found = nn.from_onnx(model).predict(x.reshape(ROWS, -1))
    np.testing.assert_allclose(found, want.reshape(ROWS, -1), atol=2e-5)


@pytest.mark.parametrize("sharpness", [-0.5, -0.75])
def test_cubic_resizing_without_pixels_beyond_the_border(sharpness):
    attributes = {"mode": "cubic", "cubic_coeff_a": sharpness, "exclude_outside": 1}
    check(build("Resize", IMAGES, attributes, [None, np.float32([1, 1, 1.4, 0.6])]), IMAGES)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resize_to_sizes(rounding):
    attributes = {"mode": "nearest", "nearest_mode": rounding}
    sizes = [None, None, np.array([ROWS, 4, 9, 5])]
    graph = build("Resize", IMAGES, attributes, sizes)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = ROWS
    check(graph, IMAGES)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_older_resizing_is_asymmetric(op, opset, mode):
    scales = np.float32([1, 1, 2, 3])
    attributes = {
        "mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
    }  # fmt: skip
    newer = build("Resize", IMAGES, attributes, [None, scales])
    (want,) = reference.ReferenceEvaluator(newer).run(None, {"x": normal(ROWS, *IMAGES)})
    check(build(op, IMAGES, {"mode": mode}, [scales], opset), IMAGES, want)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [2, 3], [1, 3], [1, 2, 3]], ids=str)
def test_reductions(op, keep, axes):
    model = build(op, IMAGES, {"keepdims": keep}, [np.array(axes)])
    check(model, IMAGES)


def test_reductions_before_axes_were_inputs():
    check(build("ReduceMean", TOKENS, {"axes": [-1]}, opset=11), TOKENS)
    model = build("ReduceSum", TOKENS, {"noop_with_empty_axes": 1}, [np.array([], np.int64)])
    with pytest.raises(ConversionError, match="a layer between its input and its output"):
        nn.from_onnx(model)


NORMALISED = [
    ("LayerNormalization", TOKENS, {"axis": -1}, [(6,), (6,)], 17),
    ("LayerNormalization", TOKENS, {"axis": 1, "epsilon": 0.1}, [(5, 6), (5, 6)], 17),
    ("LayerNormalization", IMAGES, {"axis": 2}, [(6, 7)], 17),
    ("InstanceNormalization", IMAGES, {"epsilon": 1e-3}, [(4,), (4,)], 17),
    ("InstanceNormalization", SIGNALS, {}, [(4,), (4,)], 17),
    ("GroupNormalization", IMAGES, {"num_groups": 2}, [(4,), (4,)], 21),
    ("GroupNormalization", IMAGES, {"num_groups": 2}, [(2,), (2,)], 18),
    ("LRN", IMAGES, {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0}, [], 17),
    ("LRN", IMAGES, {"size": 4}, [], 17),
    ("RMSNormalization", TOKENS, {"axis": -1}, [(6,)], 23),
]


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "weights", "opset"), NORMALISED, ids=lambda v: str(v)[:40]
)
def test_normalisations(op, shape, attributes, weights, opset):
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("the installed onnx is older than the operator")
    model = build(op, shape, attributes, [normal(*w) for w in weights], opset)
    # The evaluator's LRN takes rows for channels, so there are as many of both.
    check(model, shape, rows=shape[0] if op == "LRN" else ROWS)


@pytest.mark.parametrize("opset", [6, 18])
def test_clip(opset):
    if opset == 6:
        model = build("Clip", TOKENS, {"min": -0.5, "max": 0.75}, opset=9)
    else:
        model = build("Clip", TOKENS, {}, [np.float32(-0.5), np.float32(0.75)])
    check(model, TOKENS)
    check(build("Clip", TOKENS, {}, [None, np.float32(0.75)]), TOKENS)
    model = build("Clip", TOKENS, {}, [np.float32(0), np.float32(3.4e38)])
    assert type(check(model, TOKENS)[0].layers[-2]).__name__ in ("ReLU", "Reshape")


@pytest.mark.parametrize("slope", [(4, 1, 1), (1, 4, 1, 1), (7,), (4, 6, 7)], ids=str)
def test_prelu_of_images(slope):
    check(build("PRelu", IMAGES, {}, [normal(*slope)], opset=16), IMAGES)


@pytest.mark.parametrize("slope", [0.25, -0.5])
def test_prelu_of_one_slope(slope):
    check(build("PRelu", TOKENS, {}, [np.float32([slope])], opset=16), TOKENS)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.5, "beta": 0.25}), ("HardSwish", {}),
        ("Abs", {}), ("ThresholdedRelu", {"alpha": 0.5}),
    ],
    ids=str,
)  # fmt: skip
def test_activations(op, attributes):
    check(build(op, TOKENS, attributes), TOKENS)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_that_something_takes(op, axis):
    model = build(op, TOKENS, {"axis": axis})
    node = helper.make_node("Add", ["y", "y"], ["z"])
    model.graph.node.append(node)
    model.graph.output[0].name = "z"
    check(model, TOKENS)


def test_a_table_for_secret_ids():
    model = build("Gather", (4,), {"axis": 0}, [], kind=onnx.TensorProto.INT64)
    table = normal(6, 2)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    model.graph.node[0].input[:] = ["table", "x"]
    x = np.array([[0, 5, 3, 3], [1, 2, 4, 0]])
    made = nn.from_onnx(model)
    want = reference.ReferenceEvaluator(model).run(None, {"x": x})[0].reshape(2, -1)
    np.testing.assert_allclose(made.predict(x.astype(float)), want, atol=1e-6)
    with mpc.Session() as s:
        shared = made.share(s, owner="alice", low=0, high=5)
        found = shared.predict(shared.share_rows(x.astype(float), owner="bob"))
    np.testing.assert_allclose(found, want, atol=2e-5)


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "constants", "message"),
    [
        ("Resize", IMAGES, {"mode": "area"}, [None, np.float32([1, 1, 2, 2])], "got mode=area"),
        (
            "Resize",
            IMAGES,
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            [None, np.float32([1, 1, 2, 2])],
            "got coordinate_transformation_mode=tf_crop_and_resize",
        ),
        ("Resize", IMAGES, {"antialias": 1}, [None, np.float32([1, 1, 2, 2])], "antialias=0"),
        ("Resize", IMAGES, {}, [None, np.float32([1, 2, 2, 2])], "must keep rows and channels"),
        ("Conv", IMAGES, {"pads": [-1, 0, 0, 0]}, [normal(2, 4, 3, 3)], "pads of at least 0"),
        ("Conv", IMAGES, {"group": 2}, [normal(2, 4, 3, 3)], "needs images of 8 channels, got 4"),
        ("Conv", (4, 3, 3, 3), {}, [normal(2, 4, 3, 3, 3)], "kernels with one or two axes"),
        ("MaxPool", IMAGES, {"kernel_shape": [3]}, [], "needs kernels with 2 axes"),
        ("ReduceMax", IMAGES, {}, [np.array([0, 1])], "must keep axis 0, which counts the rows"),
        ("LayerNormalization", TOKENS, {"axis": 0}, [normal(5, 6)], "must normalise within rows"),
        ("PRelu", TOKENS, {}, [normal(3, 5, 6)], "the same for all rows"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_is_refused(op, shape, attributes, constants, message):
    with pytest.raises(ConversionError, match=rf"{op} \(node 'the {op}'.*{message}"):
        nn.from_onnx(build(op, shape, attributes, constants))


def test_indices_of_maxima_are_refused():
    model = build("MaxPool", IMAGES, {"kernel_shape": [2, 2]})
    model.graph.node[0].output.append("places")
    model.graph.output.append(onnx.helper.make_tensor_value_info("places", 7, None))
    with pytest.raises(ConversionError, match="indices of maxima are not converted"):
        nn.from_onnx(model)


def test_on_shares():
    """A network of many of them: its scores on shares are those of the plain model."""
    nodes, constants = [], {
        "k": normal(4, 1, 3, 3), "b": normal(4), "s": normal(4), "t": normal(4) * 0.5,
        "up": np.float32([1, 1, 2, 2]), "d": normal(4, 2, 2, 2), "low": np.float32(0),
        "high": np.float32(6), "axes": np.array([2, 3]), "w": normal(2, 3),
    }  # fmt: skip
    for line, attributes in (
        ("Conv x k b -> a", {"group": 4, "pads": [1, 1, 1, 1], "strides": [1, 2]}),
        ("Clip a low high -> e", {}),
        ("MaxPool e -> f", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("InstanceNormalization f s t -> g", {"epsilon": 0.01}),
        ("HardSwish g -> h", {}),
        ("AveragePool h -> i", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}),
        ("ConvTranspose i d -> j", {"strides": [2, 2]}),
        ("ReduceMean j axes -> m", {"keepdims": 0}),
        ("Softmax m -> p", {"axis": 1}),
        ("MatMul p w -> y", {}),
    ):
        left, right = line.split(" -> ")
        op, *inputs = left.split()
        nodes.append(helper.make_node(op, inputs, [right], **attributes))
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("x", FLOAT, ("n", *IMAGES))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    made, x, want = check(helper.make_model(graph, opset_imports=opsets, ir_version=8), IMAGES)
    with mpc.Session(frac_bits=20, int_bits=12) as s:
        shared = made.share(s, owner="alice", low=-4, high=4)
        found = shared.predict(shared.share_rows(x.reshape(ROWS, -1).astype(float), owner="bob"))
    np.testing.assert_allclose(found, want, atol=2e-3 * np.abs(want).max())
