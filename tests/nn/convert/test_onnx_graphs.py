"""ONNX graphs whose values are used more than once, against ONNX's own reference evaluator."""

import tracemalloc

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.layers import Dense, Graph, Scale
from nn.models.heads import HeadsModel
from nn.models.predictors import Classifier, Regressor
from tests.helpers.weights import normal, random

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
reference = pytest.importorskip("onnx.reference")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def build(lines, outputs="y", inputs=None, opset=20, **constants):
    """Make a model from lines "Operator inputs -> output"; "-" is an input that is left out."""
    made = []
    for line in lines:
        line, attributes = (line, {}) if isinstance(line, str) else line
        left, right = line.split(" -> ")
        op, *names = left.split()
        names = ["" if name == "-" else name for name in names]
        made.append(helper.make_node(op, names, right.split(), name=f"the {op}", **attributes))
    given = {"x": ("n", 6)} if inputs is None else inputs
    graph = helper.make_graph(
        made,
        "test",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def rows_for(model, count):
    """Return random rows of each input."""
    found = {}
    for value in model.graph.input:
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        found[value.name] = random.uniform(-1, 1, size=(count, *sizes)).astype(np.float32)
    return found


def values_of(found, names):
    """Return what a model predicts as a dict, as models with several outputs do."""
    return found if isinstance(found, dict) else {names[0]: found}


def check(model, count=5, tolerance=1e-4):
    """Compare with the evaluator for two numbers of rows; return the model and the rows."""
    names = [output.name for output in model.graph.output]
    for rows in (count, 1):
        given = rows_for(model, rows)
        flat = {name: x.reshape(rows, -1) for name, x in given.items()}
        made = nn.from_onnx(model)
        whole = np.concatenate(list(flat.values()), axis=1)
        found = values_of(made.predict(flat if len(flat) > 1 else whole), names)
        judged = reference.ReferenceEvaluator(model).run(None, given)
        for name, want in zip(names, judged, strict=True):
            np.testing.assert_allclose(
                np.reshape(found[name], want.shape), want, rtol=tolerance,
                atol=tolerance * max(1, np.abs(want).max()),
            )  # fmt: skip
    return made, whole


def check_on_shares(model, parties=("alice", "bob"), tolerance=1e-3):
    """Compare also the model on shares with the model in the clear."""
    made, _ = check(model)
    names = [output.name for output in model.graph.output]
    X = np.concatenate([x.reshape(3, -1) for x in rows_for(model, 3).values()], axis=1)
    made.input_range_ = (-1.0, 1.0)
    with mpc.Session(parties, frac_bits=20) as s:
        secret = made.share(s, owner="alice")
        found = values_of(secret.predict(secret.share_rows(X, owner="bob")), names)
    for name, want in values_of(made.predict(X), names).items():
        np.testing.assert_allclose(found[name], want, atol=tolerance * max(1, np.abs(want).max()))
    return made


W = {"w": normal(6, 6), "v": normal(6, 6), "u": normal(6, 3), "b": normal(6)}
BRANCHES = {
    "residual": ["Gemm x w b -> h", "Relu h -> r", "MatMul r v -> k", "Add k x -> s", "MatMul s u -> y"],
    "sum of maps": ["MatMul x w -> h", "MatMul x v -> k", "Add h k -> y"],
    "skip": ["Gemm x w b -> h", "Relu h -> r", ("Concat r x -> c", {"axis": 1}), "MatMul c uu -> y"],
    "product": ["MatMul x w -> h", "Mul h x -> p", "Sub p h -> d", "Neg d -> y"],
    "extremes": ["MatMul x w -> h", "Max h x b -> p", "Min p h x -> q", "Mean q x -> y"],
    "power": ["MatMul x w -> h", "Pow h three -> y"],
    "split": ["MatMul x w -> h", ("Split h -> a c", {"axis": 1, "num_outputs": 2}), "Mul a c -> y"],
    "gather": ["MatMul x w -> h", ("Gather h places -> g", {"axis": -1}), "Relu g -> y"],
    "scaled": ["Mul x b -> s", "Relu s -> r", "Sub one r -> t", "Div t two -> d", "Add d x -> y"],
    "chain of sums": ["Sum x x b x -> s", "Relu s -> y"],
}  # fmt: skip
MORE = {
    "uu": normal(12, 3), "three": np.float32(3), "one": np.float32(1), "two": np.float32(2),
    "places": np.array([[0, 5], [5, 1]]),
}  # fmt: skip


def needed(lines, constants):
    names = {n for line in lines for n in (line if isinstance(line, str) else line[0]).split()}
    return {name: value for name, value in constants.items() if name in names}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name):
    lines = BRANCHES[name]
    made = check_on_shares(build(lines, **needed(lines, {**W, **MORE})))
    assert isinstance(made, Regressor)
    assert isinstance(made.layers, list if name == "gather" else Graph)


def test_three_parties():
    lines = BRANCHES["skip"]
    check_on_shares(build(lines, **needed(lines, {**W, **MORE})), ("alice", "bob", "carol"))


TOKENS = {"x": ("n", 4, 6)}
ATTENTION = [
    # As an exporter writes it: axes of rows and tokens change places, heads are joined to the rows.
    ("Transpose x -> t", {"perm": [1, 0, 2]}), "Shape t -> s", ("Gather s zero -> l", {"axis": 0}),
    ("Gather s i1 -> n", {"axis": 0}), "Mul n heads -> nh",
    "Unsqueeze l at0 -> l1", "Unsqueeze nh at0 -> nh1", ("Concat l1 nh1 three1 -> shape", {"axis": 0}),
    "MatMul t w -> q0", "MatMul t v -> k0", "MatMul t o -> v0",
    *(f"Reshape {a}0 shape -> {a}1" for a in "qkv"),
    *((f"Transpose {a}1 -> {a}2", {"perm": [1, 0, 2]}) for a in "qv"),
    ("Transpose k1 -> k2", {"perm": [1, 2, 0]}),
    "MatMul q2 k2 -> scores", "Mul scores half -> scaled", "MatMul scaled v2 -> mixed",
    ("Transpose mixed -> m1", {"perm": [1, 0, 2]}),
    "Unsqueeze n at0 -> n1", ("Concat l1 n1 six1 -> back", {"axis": 0}), "Reshape m1 back -> m2",
    "Add m2 t -> sum", ("Transpose sum -> y", {"perm": [1, 0, 2]}),
]  # fmt: skip
INDICES = {
    "zero": np.array(0), "i1": np.array(1), "heads": np.array(2), "at0": np.array([0]),
    "three1": np.array([3]), "six1": np.array([6]), "half": np.float32(0.5), "o": normal(6, 6),
}  # fmt: skip


def test_heads_that_are_joined_to_the_rows():
    lines = ATTENTION
    check_on_shares(build(lines, inputs=TOKENS, **needed(lines, {**W, **INDICES})))


@pytest.mark.parametrize(
    "lines",
    [
        ["MatMul x w -> h", "Add h b -> k", "Relu k -> y"],
        ["MatMul wide x -> y"],
        ["MatMul x w -> h", ("Transpose h -> t", {"perm": [0, 2, 1]}), "MatMul t x -> y"],
        [("Transpose x -> t", {"perm": [0, 2, 1]}), "Reshape t four6 -> r", "Mul r x -> y"],
        ["Reshape x eight3 -> r", "Relu r -> y"],
        ["Reshape x keep -> r", "MatMul r u24 -> y"],
        [("Slice x starts ends axes -> h", {}), ("Concat h x -> y", {"axis": 1})],
        ["Expand token shape -> t", ("Concat t x -> y", {"axis": 1})],
        [("Einsum x w -> y", {"equation": "nij,jk->nki"})],
        [("Einsum x x -> y", {"equation": "nij,nkj->nik"})],
        [("Gather x zero -> f", {"axis": 1}), "MatMul f u -> y"],
        ["Unsqueeze x at2 -> a", "Expand a spread -> y"],
        ["Pad x widths half - -> y"],
    ],
    ids=lambda lines: str(lines[0])[:24],
)
def test_rows_with_several_axes(lines):
    constants = {
        **W, **INDICES, "wide": normal(5, 4), "four6": np.array([-1, 4, 6]), "eight3": np.array([0, 8, 3]),
        "keep": np.array([0, -1]), "u24": normal(24, 3), "starts": np.array([1, -2]),
        "ends": np.array([100, -5]), "axes": np.array([1, 2]),
        "token": np.linspace(-1, 1, 12).reshape(1, 2, 6), "shape": np.array([1, 2, 6]),
        "at2": np.array([2]), "spread": np.array([1, 1, 3, 1]),
        "widths": np.array([0, 1, 0, 0, 0, 2]),
    }  # fmt: skip
    if (
        lines[0].startswith("Slice")
        if isinstance(lines[0], str)
        else lines[0][0].startswith("Slice")
    ):
        lines = ["Slice x starts ends axes steps -> h", "Neg h -> y"]
        constants["steps"] = np.array([1, -1])
    if lines[0] == "Expand token shape -> t":
        lines = [
            "Shape x -> s",
            "Slice s at0 one1 -> n",
            ("Concat n two6 -> shape", {"axis": 0}),
            *lines,
        ]
        constants |= {"one1": np.array([1]), "two6": np.array([2, 6])}
        del constants["shape"]
    check_on_shares(build(lines, inputs=TOKENS, **needed(lines, constants)))


IMAGES = {"x": ("n", 2, 6, 8)}
KERNELS = {
    "k": normal(2, 2, 3, 3),
    "k4": normal(3, 4, 1, 1),
    "channel": normal(2, 1, 1),
    "pixel": normal(6, 8),
}
PADDED = {"pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    "lines",
    [
        [("Conv x k -> c", PADDED), "Relu c -> r", "Add r x -> s", ("Conv s k -> y", PADDED)],
        [("Conv x k -> c", PADDED), ("Concat c x -> d", {"axis": 1}), "Conv d k4 -> y"],
        [("Conv x k -> c", PADDED), "GlobalAveragePool c -> g", "Mul c g -> y"],
        [("Conv x k -> c", PADDED), "Mul c channel -> m", "Relu m -> r", "Add r c -> y"],
        [("Conv x k -> c", PADDED), "Mul c pixel -> m", "Relu m -> y"],
        [("Transpose x -> t", {"perm": [0, 2, 3, 1]}), ("Flatten t -> f", {"axis": 1}), "Relu f -> y"],
        [("Conv x k -> c", PADDED), ("Flatten c -> f", {"axis": 2}), "Relu f -> g", "Reshape g back -> y"],
    ],
    ids=range(7),
)  # fmt: skip
def test_images(lines):
    constants = {**KERNELS, "back": np.array([-1, 2, 6, 8])}
    if any("Flatten c" in str(line) for line in lines):
        lines = [lines[0], "Reshape c flat -> f", "Relu f -> g", "Reshape g back -> y"]
        constants["flat"] = np.array([0, 2, -1])
    check_on_shares(build(lines, inputs=IMAGES, **needed(lines, constants)))


def test_several_inputs_and_outputs():
    lines = [
        "MatMul x w -> h",
        "Relu h -> r",
        "MatMul z wz -> k",
        "Add r k -> s",
        "MatMul s u -> y",
        "Relu s -> p",
    ]
    model = build(lines, "y p", {"x": ("n", 6), "z": ("n", 2)}, w=W["w"], u=W["u"], wz=normal(2, 6))
    made = check_on_shares(model)
    assert isinstance(made, HeadsModel) and made.inputs_ == {"x": 6, "z": 2}


def test_labels_and_probabilities_of_several_heads(tmp_path):
    lines = [
        "MatMul x w -> h", "MatMul h u -> s", ("Softmax s -> p", {"axis": 1}), "MatMul h v -> t",
        ("ArgMax t -> l", {"axis": 1, "keepdims": 0}), "Gemm h one -> value",
    ]  # fmt: skip
    model = build(lines, "p l value", one=normal(6, 1), **{n: W[n] for n in "wuv"})
    made, X = check(build(lines, "value", one=normal(6, 1), **{n: W[n] for n in "wuv"}))
    made = nn.from_onnx(model, X)
    odds, labels, values = reference.ReferenceEvaluator(model).run(None, {"x": X})
    np.testing.assert_allclose(made.predict_proba(X)["p"], odds, atol=1e-5)
    found = made.predict(X)
    np.testing.assert_array_equal(found["p"], odds.argmax(axis=1))
    np.testing.assert_array_equal(found["l"], labels)
    np.testing.assert_allclose(found["value"], values, rtol=1e-4, atol=1e-5)
    made.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.predict(X)["l"], labels)


def test_one_logit_with_two_classes_is_a_classifier():
    for extra in ([], ["Add h x -> s"]):
        last = "s" if extra else "h"
        lines = ["MatMul x w -> h", *extra, f"MatMul {last} one -> z", "Sigmoid z -> y"]
        model = build(lines, w=W["w"], one=normal(6, 1))
        X = random.uniform(-1, 1, size=(20, 6)).astype(np.float32)
        want = reference.ReferenceEvaluator(model).run(None, {"x": X})[0]
        made = nn.from_onnx(model, classes=[0, 1])
        assert isinstance(made, Classifier)
        np.testing.assert_allclose(made.predict_proba(X), np.hstack([1 - want, want]), atol=1e-5)
        np.testing.assert_array_equal(made.predict(X), (want[:, 0] > 0.5).astype(int))


def test_scales_go_into_the_layers_beside_them():
    norm = "BatchNormalization c s b m v -> n"
    constants = {**KERNELS, **{n: normal(2) for n in "sbm"}, "v": np.ones(2, np.float32)}
    lines = [("Conv x k -> c", PADDED), norm, "Add n x -> y"]
    made, _ = check(build(lines, inputs=IMAGES, **needed(lines, constants)))
    assert not any(isinstance(layer, Scale) for layer in made.layers)
    lines = ["Mul x b -> s", "MatMul s w -> h", "Relu h -> r", "Add r x -> y"]
    made, _ = check(build(lines, w=W["w"], b=W["b"]))
    assert [type(layer) for layer in made.layers][:1] == [Dense]


def test_a_scale_of_each_pixel_takes_no_matrix():
    lines = ["Mul x b -> s", "Relu s -> r", "MatMul r u -> y"]
    model = build(lines, inputs={"x": ("n", 20_000)}, b=normal(20_000), u=normal(20_000, 2))
    tracemalloc.start()
    made, _ = check(model)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 27 and isinstance(made.layers[0], Scale)


def test_all_blockers_are_named_in_one_error():
    lines = [
        "MatMul x w -> h", "Det h -> a", "Relu a -> c", ("NonZero c -> d", {}), "Add h d -> e",
        ("Cast h -> f", {"to": 7}), "Add e f -> y",
    ]  # fmt: skip
    with pytest.raises(ConversionError) as caught:
        nn.from_onnx(build(lines, w=W["w"]))
    message = str(caught.value)
    assert message.startswith("3 nodes cannot be converted: ")
    for part in (
        "Det (node 'the Det', output a)",
        "NonZero (node 'the NonZero', output d) cannot be converted: how many elements it gives",
        "Cast (node 'the Cast'",
    ):
        assert part in message
    assert "Relu" not in message.replace("LeakyRelu", "").replace("Relu, ", "")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Shape x -> s", ("Gather s zero -> n", {"axis": 0}), "Max n ten -> k", "Unsqueeze k at0 -> k1",
          ("Concat k1 six -> t", {"axis": 0}), "MatMul x w -> h", "Add h x -> g", "Reshape g t -> y"],
         "computed in another way"),
        (["MatMul x w -> h", "Add h x -> g", "Reshape g merged -> y"],
         "must keep the elements|between rows"),
        (["MatMul x w -> h", ("Transpose h -> t", {"perm": [1, 0]}), "MatMul h t -> y"], "along the rows"),
        (["MatMul x w -> h", ("Slice h at0 one1 at0 -> a", {}), "Add a x -> y"], "cannot select rows"),
        (["MatMul x w -> h", ("Concat h x -> c", {"axis": 0}), "Relu c -> y"], "cannot join rows"),
        (["Add x perrow -> h", "Mul h x -> y"], "same for all rows"),
    ],
)  # fmt: skip
def test_rows_do_not_mix(lines, message):
    constants = {
        "w": W["w"], "zero": np.array(0), "ten": np.array(10), "at0": np.array([0]), "six": np.array([6]),
        "merged": np.array([3, -1]), "one1": np.array([1]), "perrow": normal(4, 6),
    }  # fmt: skip
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(build(lines, **needed(lines, constants)))


def test_open_sizes_are_given_by_shape():
    lines = [("Conv x k -> c", PADDED), "Relu c -> r", "Add r x -> s", "GlobalAveragePool s -> y"]
    model = build(lines, inputs={"x": ("n", 2, "h", "w")}, k=KERNELS["k"])
    with pytest.raises(ConversionError, match="shape= gives those that are open"):
        nn.from_onnx(model)
    for shape in ((2, 6), (3, 6, 8), (2, 6, 8, 1)):
        with pytest.raises(mpc.ShapeError, match="must fit the input 'x'"):
            nn.from_onnx(model, shape=shape)
    X = random.uniform(-1, 1, size=(3, 2, 5, 7)).astype(np.float32)
    made = nn.from_onnx(model, X, shape=(2, 5, 7))
    want = reference.ReferenceEvaluator(model).run(None, {"x": X})[0]
    for rows in (X, X.reshape(3, -1)):
        np.testing.assert_allclose(
            made.predict(rows).reshape(want.shape), want, rtol=1e-4, atol=1e-5
        )
        with mpc.Session(frac_bits=20) as s:
            secret = made.share(s, owner="alice")
            found = secret.predict(secret.share_rows(rows, owner="bob"))
        np.testing.assert_allclose(found.reshape(want.shape), want, atol=1e-3)
    assert made.predict(X[:0]).shape == made.predict(rows[:0]).shape
    with pytest.raises(mpc.ShapeError, match="must have two axes"):
        made.predict(X.transpose(0, 2, 3, 1))  # as many numbers a row, in another order


def test_what_no_output_needs_is_no_blocker():
    """Nodes, and outputs of nodes, that none of the graph's outputs depends on."""
    model = build(
        [
            "Tan x -> idle",
            ("MaxPool x -> pooled places", {"kernel_shape": [2, 2]}),
            "Sinh idle -> more",
            ("LayerNormalization pooled scale -> y mean inverse", {"axis": -1}),
        ],
        inputs={"x": ("n", 1, 4, 4)},
        scale=normal(3),
    )
    check(model)
    names = [o for node in model.graph.node for o in node.output]
    assert {"idle", "places", "mean", "inverse"} <= set(names), "the caller's model stays as it is"


def test_what_a_branch_takes_is_needed():
    """Of a graph of which one output is kept, too."""
    branch = helper.make_graph(
        [helper.make_node("Relu", ["hidden"], ["kept"])],
        "taken",
        [],
        [helper.make_tensor_value_info("kept", FLOAT, None)],
    )
    model = build(
        [
            "MatMul x weights -> hidden",
            "Tan x -> other",
            ("If yes -> y", {"then_branch": branch, "else_branch": branch}),
        ],
        outputs="y other",
        weights=normal(6, 3),
        yes=np.array(True),
    )
    X = normal(5, 6)
    wanted = np.maximum(X @ onnx.numpy_helper.to_array(model.graph.initializer[0]), 0)
    found = nn.from_onnx(model, X, outputs=["y"]).predict(X)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_number_of_axes_may_be_open():
    model = build(["MatMul x weights -> h", "Relu h -> y"], weights=normal(6, 3))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    X = normal(5, 6)
    wanted = np.maximum(X @ onnx.numpy_helper.to_array(model.graph.initializer[0]), 0)
    np.testing.assert_allclose(nn.from_onnx(model, X, shape=[6]).predict(X), wanted, atol=1e-6)
    with pytest.raises(ConversionError, match="shape= gives those that are open"):
        nn.from_onnx(model, X)
