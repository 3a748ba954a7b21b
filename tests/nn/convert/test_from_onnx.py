"""ONNX graphs against ONNX's own reference evaluator, built as the exporters build them."""

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.layers import Dense, ReLU
from nn.layers.activations import Sigmoid
from nn.models.predictors import Classifier, Regressor
from ring.errors import DataError, DtypeError

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
reference = pytest.importorskip("onnx.reference")
helper, FLOAT, INT = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = [11, 12, 13, 14, 17, 18, 21, NEWEST]

random = np.random.default_rng(0)
X = random.normal(size=(40, 4)).astype(np.float32)
W1, B1 = random.normal(size=(4, 5)), random.normal(size=5)
W2, B2 = random.normal(size=(5, 3)), random.normal(size=3)
V2, C2 = random.normal(size=(5, 1)), random.normal(size=1)


def tensor(name, values, kind=np.float32):
    return onnx.numpy_helper.from_array(np.asarray(values, kind), name)


def build(nodes, constants, outputs, opset=17, shape=("n", 4), kinds=None):
    """Make a model from nodes (op, inputs, outputs, attributes)."""
    made = [
        helper.make_node(
            op, i.split(), o.split(), domain="ai.onnx.ml" if op in ML else "", **attributes
        )
        for op, i, o, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(o, (kinds or {}).get(o, FLOAT), None) for o in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


ML = (
    "Scaler",
    "ZipMap",
    "LinearClassifier",
    "LinearRegressor",
    "ArrayFeatureExtractor",
    "Normalizer",
)


def evaluate(model, rows=X):
    return reference.ReferenceEvaluator(model).run(None, {"x": rows})


def weights(transposed=False):
    turn = np.transpose if transposed else np.asarray
    return [
        tensor("w1", turn(W1)), tensor("b1", B1), tensor("w2", turn(W2)), tensor("b2", B2),
        tensor("v2", turn(V2)), tensor("c2", C2),
    ]  # fmt: skip


def as_torch_exports(activation="Relu", last="w2 b2"):
    """Gemm with transposed weights."""
    return [
        ("Gemm", "x w1 b1", "h", {"transB": 1, "alpha": 1.0, "beta": 1.0}),
        (activation, "h", "a", {}),
        ("Gemm", f"a {last}", "y", {"transB": 1}),
    ]


def as_skl2onnx_exports(activation="Relu", last="w2 b2"):
    """A scaler, then products and sums."""
    w, b = last.split()
    return [
        ("Scaler", "x", "s", {"offset": [0.5, -1.0, 0.0, 2.0], "scale": [2.0, 0.5, 1.0, 3.0]}),
        ("Cast", "s", "f", {"to": FLOAT}),
        ("MatMul", "f w1", "m", {}),
        ("Add", "m b1", "h", {}),
        (activation, "h", "a", {}),
        ("MatMul", f"a {w}", "p", {}),
        ("Add", f"p {b}", "y", {}),
    ]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("style", [as_torch_exports, as_skl2onnx_exports])
def test_regressors(opset, activation, style):
    model = build(style(activation), weights(style is as_torch_exports), ["y"], opset)
    made = nn.from_onnx(model, X)
    assert isinstance(made, Regressor)
    assert [type(layer) for layer in made.layers][::2] == [Dense, Dense]
    np.testing.assert_allclose(made.predict(X), evaluate(model)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_classifiers_of_skl2onnx(opset):
    nodes = [
        *as_skl2onnx_exports(),
        ("Softmax", "y", "p1", {}),
        ("ArgMax", "p1", "i", {"axis": 1}),
        ("ZipMap", "p1", "z", {"classlabels_strings": ["a", "b", "c"]}),
        ("ArrayFeatureExtractor", "names i", "l", {}),
        ("Reshape", "l flat", "l1", {}),
        ("Identity", "l1", "label", {}),
    ]
    constants = [*weights(), tensor("names", [7, 8, 9], np.int64), tensor("flat", [-1], np.int64)]
    plain = [node for node in nodes if node[0] != "ZipMap"]  # not in the reference evaluator
    model = build(plain, constants, ["label", "p1"], opset, kinds={"label": INT})
    made = nn.from_onnx(model, X)
    label, odds = evaluate(model)
    assert isinstance(made, Classifier) and made.classes_.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(made.predict(X), label)
    np.testing.assert_allclose(made.predict_proba(X), odds, atol=1e-5)
    zipped = nn.from_onnx(build(nodes, constants, ["label", "z"], opset, kinds={"label": INT}))
    np.testing.assert_allclose(zipped.predict_proba(X), odds, atol=1e-5)


def test_two_classes_of_skl2onnx():
    nodes = [
        *as_skl2onnx_exports("Sigmoid", "v2 c2"),
        ("Sigmoid", "y", "q", {}),
        ("Sub", "one q", "r", {}),
        ("Concat", "r q", "p1", {"axis": 1}),
        ("ArgMax", "p1", "i", {"axis": 1}),
        ("ArrayFeatureExtractor", "names i", "l", {}),
        ("Reshape", "l flat", "l1", {}),
        ("Cast", "l1", "label", {"to": INT}),
    ]
    constants = [
        *weights(), tensor("one", 1.0), tensor("names", [0, 1], np.int64),
        tensor("flat", [-1], np.int64),
    ]  # fmt: skip
    model = build(nodes, constants, ["label", "p1"], kinds={"label": INT})
    made = nn.from_onnx(model, X)
    label, odds = evaluate(model)
    # The last sigmoid is no layer: on shares the sign of its input is enough.
    assert [type(layer) for layer in made.layers] == [Dense, Sigmoid, Dense]
    np.testing.assert_array_equal(made.predict(X), label)
    np.testing.assert_allclose(made.predict_proba(X), odds, atol=1e-5)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("rows", [2, 3])
def test_linear_classifiers(transform, rows):
    attributes = {
        "coefficients": W2.T[:rows, :4].ravel().tolist(),
        "intercepts": B2[:rows].tolist(),
        "classlabels_strings": ["a", "b", "c"][:rows],
        "post_transform": transform,
        "multi_class": 1,
    }
    if rows == 2:  # scores of two classes are z and -z
        attributes["coefficients"][4:] = [-c for c in attributes["coefficients"][:4]]
        attributes["intercepts"][1] = -attributes["intercepts"][0]
    nodes = [
        ("LinearClassifier", "x", "label s", attributes),
        ("Normalizer", "s", "p", {"norm": "L1"}),
    ]
    if transform == "NONE":
        nodes = nodes[:1]
    outputs = ["label", "s" if transform == "NONE" else "p"]
    model = build(nodes, [], outputs, kinds={"label": onnx.TensorProto.STRING})
    made = nn.from_onnx(model, X)
    label, scores = evaluate(model)
    assert made.predict(X).tolist() == [str(name) for name in label]
    if transform == "NONE":
        assert made.link is None
        np.testing.assert_allclose(made.decision_function(X), scores, atol=1e-5)
    else:
        np.testing.assert_allclose(made.predict_proba(X), scores, atol=1e-5)


def test_one_row_of_coefficients_for_two_classes():
    attributes = {
        "coefficients": W1[:, 0].tolist(), "intercepts": [0.5], "classlabels_ints": [3, 4],
        "post_transform": "LOGISTIC",
    }  # fmt: skip
    model = build([("LinearClassifier", "x", "label p", attributes)], [], ["label", "p"])
    made = nn.from_onnx(model, X)
    z = X @ W1[:, 0].astype(np.float32) + 0.5
    np.testing.assert_array_equal(made.predict(X), np.where(z > 0, 4, 3))
    np.testing.assert_allclose(made.predict_proba(X)[:, 1], 1 / (1 + np.exp(-z)), atol=1e-5)


def test_linear_regressors():
    attributes = {
        "coefficients": W2[:4].T.ravel().tolist(),
        "intercepts": B2.tolist(),
        "targets": 3,
    }
    model = build([("LinearRegressor", "x", "y", attributes)], [], ["y"])
    np.testing.assert_allclose(nn.from_onnx(model).predict(X), evaluate(model)[0], atol=1e-5)


@pytest.mark.parametrize("shape", [("n", 1, 2, 2), (1, 1, 2, 2), ("n", 4)])
@pytest.mark.parametrize("how", ["Flatten", "-1", "0", "size"])
def test_images_are_flattened(shape, how):
    target = {"-1": [-1, 4], "0": [0, -1], "size": [1, -1]}.get(how)
    if how == "size" and shape[0] != 1:
        target = [-1, 4]
    first = (
        ("Flatten", "x", "f", {"axis": 1}) if how == "Flatten" else ("Reshape", "x target", "f", {})
    )
    constants = [*weights(), tensor("target", target or [-1], np.int64)]
    nodes = [
        first,
        ("MatMul", "f w1", "m", {}),
        ("Add", "m b1", "h", {}),
        ("Relu", "h", "y", {}),
    ]
    model = build(nodes, constants, ["y"], shape=shape)
    made = nn.from_onnx(model)
    assert made.n_features_in_ == 4 and [type(layer) for layer in made.layers] == [Dense, ReLU]
    rows = X[:1].reshape(1, *shape[1:])
    np.testing.assert_allclose(made.predict(X[:1]), evaluate(model, rows)[0], atol=1e-5)


@pytest.mark.parametrize("opset", [11, 17])
def test_a_shape_taken_from_the_rows(opset):
    # What PyTorch makes of x.view(x.shape[0], -1).
    nodes = [
        ("Shape", "x", "all", {}),
        ("Gather", "all zero", "count", {"axis": 0}),
        # Until version 12 the axes are an attribute.
        ("Unsqueeze", "count", "first", {"axes": [0]})
        if opset < 13
        else ("Unsqueeze", "count axes", "first", {}),
        ("Concat", "first rest", "target", {"axis": 0}),
        ("Reshape", "x target", "f", {}),
        ("MatMul", "f w1", "y", {}),
    ]
    constants = [
        *weights(), tensor("zero", 0, np.int64), tensor("axes", [0], np.int64),
        tensor("rest", [-1], np.int64),
    ]  # fmt: skip
    model = build(nodes, constants, ["y"], opset, shape=("n", 1, 2, 2))
    rows = X.reshape(-1, 1, 2, 2)
    np.testing.assert_allclose(nn.from_onnx(model).predict(X), evaluate(model, rows)[0], atol=1e-5)


def test_batch_normalisation_is_folded():
    mean, variance = random.normal(size=5), random.uniform(0.5, 2, size=5)
    nodes = [
        ("Gemm", "x w1 b1", "h", {"transB": 1}),
        ("BatchNormalization", "h scale shift mean variance", "y", {"epsilon": 0.25}),
    ]
    constants = [
        *weights(True), tensor("scale", B1), tensor("shift", mean), tensor("mean", B1 + 1),
        tensor("variance", variance),
    ]  # fmt: skip
    model = build(nodes, constants, ["y"])
    made = nn.from_onnx(model)
    assert repr(made.layers) == "[Dense(4, 5)]"
    np.testing.assert_allclose(made.predict(X), evaluate(model)[0], atol=1e-4)


def test_arithmetic_with_constants_is_folded():
    nodes = [
        ("Constant", "", "k", {"value": tensor("", [[1.0, 2.0, 3.0, 4.0]])}),
        ("Sqrt", "k", "root", {}),
        ("Sub", "x k", "a", {}),
        ("Div", "a root", "b", {}),
        ("Sub", "k b", "c", {}),
        ("Mul", "k c", "d", {}),
        ("Transpose", "w", "wt", {"perm": [1, 0]}),
        ("MatMul", "d wt", "e", {}),
        ("Dropout", "e", "f", {}),
        ("Add", "b1 f", "y", {}),
    ]
    model = build(nodes, [tensor("w", W1.T), tensor("b1", B1)], ["y"])
    made = nn.from_onnx(model)
    assert repr(made.layers) == "[Dense(4, 5)]"
    np.testing.assert_allclose(made.predict(X), evaluate(model)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_networks_that_end_in_a_softmax(op):
    model = build([*as_torch_exports(), (op, "y", "p", {"axis": 1})], weights(True), ["p"])
    made = nn.from_onnx(model, classes=["x", "y", "z"])
    odds = evaluate(model)[0]
    assert made.classes_.tolist() == ["x", "y", "z"]
    given = made.predict_log_proba if op == "LogSoftmax" else made.predict_proba
    np.testing.assert_allclose(given(X), odds, atol=1e-4)


def test_networks_with_probabilities_and_their_logarithms():
    ends = [("Softmax", "y", "p", {"axis": 1}), ("LogSoftmax", "y", "q", {"axis": 1})]
    for outputs in (["p", "q"], ["q", "p"]):
        model = build([*as_torch_exports(), *ends], weights(True), outputs)
        made = nn.from_onnx(model)
        given = dict(zip(outputs, evaluate(model), strict=True))
        np.testing.assert_allclose(made.predict_proba(X), given["p"], atol=1e-5)
        np.testing.assert_allclose(made.predict_log_proba(X), given["q"], atol=1e-4)


def test_networks_that_end_in_scores_or_an_argmax():
    model = build(as_torch_exports(), weights(True), ["y"])
    scores = evaluate(model)[0]
    named = nn.from_onnx(model, classes=[2, 4, 6])
    np.testing.assert_array_equal(named.predict(X), 2 * scores.argmax(axis=1) + 2)
    model = build([*as_torch_exports(), ("ArgMax", "y", "l", {"axis": -1})], weights(True), ["l"])
    np.testing.assert_array_equal(nn.from_onnx(model).predict(X), scores.argmax(axis=1))


def test_on_shares_and_from_a_file(tmp_path):
    model = build(as_skl2onnx_exports("Tanh"), weights(), ["y"])
    onnx.save(model, tmp_path / "model.onnx")
    made = nn.from_onnx(tmp_path / "model.onnx", X)
    with mpc.Session(("alice", "bob", "carol")) as s:
        secret = made.share(s, owner="alice")
        values = secret.predict(secret.share_rows(X, owner="carol"))
    np.testing.assert_allclose(values, evaluate(model)[0], atol=2e-3)
    made.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(nn.load(tmp_path / "model.npz").predict(X), made.predict(X))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [("Det", "x", "y", {})],
            "Det.*cannot be converted; operators that can be: .*Add, And, ArgMax",
        ),
        ([("NonZero", "x", "y", {})], "NonZero.*cannot be converted"),
        ([("MatMul", "w1 x", "y", {})], "MatMul.*along the rows"),
        ([("Gemm", "x w1", "y", {"transA": 1})], "Gemm.*along the rows"),
        ([("Add", "x per_row", "y", {})], "same for all rows"),
        ([("Flatten", "x", "y", {"axis": 0})], "several rows together"),
        ([("Reshape", "x two", "y", {})], "must not move elements between rows"),
        ([("Reshape", "x mixed", "y", {})], "must keep the elements"),
        (
            [("Softmax", "x", "y", {"axis": 0})],
            "an axis other than that of the rows",
        ),
        ([("ArgMax", "x", "y", {"axis": 0})], "an axis other than that of the rows"),
        ([("Cast", "x", "y", {"to": INT})], "rounding to integers is not converted"),
        ([("Normalizer", "x", "y", {"norm": "MAX"})], "needs norm L1 or L2"),
        ([("MatMul", "x w2", "y", {})], "MatMul.*needs an axis of 5, got 4"),
        ([("Relu", "nothing", "y", {})], "no output of a node before it: nothing"),
        ([("Identity", "x", "y", {})], "must have a layer"),
        ([("Identity", "w1", "y", {})], "must depend on its input"),
    ],
)
def test_what_cannot_be_converted(nodes, message):
    constants = [
        *weights(), tensor("per_row", np.ones((40, 4))), tensor("two", [2, -1], np.int64),
        tensor("mixed", [-1, 8], np.int64),
    ]  # fmt: skip
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(build(nodes, constants, ["y"], opset=20))


def test_results_that_differ():
    nodes = [*as_torch_exports(), ("MatMul", "a v", "other", {})]
    constants = [*weights(True), tensor("v", W2)]
    model = build([*nodes, ("ArgMax", "y", "l", {"axis": 1})], constants, ["l", "other"])
    found, (labels, values) = nn.from_onnx(model).predict(X), evaluate(model)
    assert list(found) == ["l", "other"]
    np.testing.assert_array_equal(found["l"], labels.reshape(-1))
    np.testing.assert_allclose(found["other"], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [1, 8, NEWEST + 1])
def test_versions_that_are_not_known(opset):
    with pytest.raises(ConversionError, match=f"from 9 to {NEWEST}.*got {opset}"):
        nn.from_onnx(build(as_torch_exports(), weights(True), ["y"], opset))


def test_bad_input(tmp_path):
    model = build(as_torch_exports(), weights(True), ["y"])
    path = tmp_path / "short.onnx"
    whole = model.SerializeToString()
    for length in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises((DataError, ConversionError)):
            nn.from_onnx(path)
    with pytest.raises(FileNotFoundError):
        nn.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(DtypeError, match="ModelProto"):
        nn.from_onnx(b"bytes")
    two = build(as_torch_exports(), weights(True), ["y"])
    two.graph.input.append(helper.make_tensor_value_info("x2", FLOAT, ("n", 4)))
    with pytest.raises(
        ConversionError, match="no output depends on the input x2: export without it"
    ):
        nn.from_onnx(two)
    with pytest.raises(ConversionError, match="known sizes"):
        nn.from_onnx(build(as_torch_exports(), weights(True), ["y"], shape=("n", "m")))
    with pytest.raises(mpc.ShapeError, match="4 features"):
        nn.from_onnx(model, X[:, :3])
    with pytest.raises(mpc.ShapeError, match="one label for each of 3"):
        nn.from_onnx(model, classes=[0, 1])


@pytest.mark.parametrize("opset", [11, 15, 21])
def test_what_skl2onnx_itself_exports(opset):
    skl2onnx = pytest.importorskip("skl2onnx", reason="exports of skl2onnx itself need it")
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = np.array(["low", "mid", "top"])[np.digitize(X[:, 0], [-0.5, 0.5])]
    networks = MLPClassifier((6,), max_iter=5), MLPClassifier((6,), activation="tanh", max_iter=5)
    for last in (LogisticRegression(), *networks):
        original = make_pipeline(StandardScaler(), last).fit(X, y)
        made = nn.from_onnx(
            skl2onnx.to_onnx(original, X[:1], target_opset={"": opset, "ai.onnx.ml": 1})
        )
        assert (made.predict(X) == original.predict(X)).all()
        np.testing.assert_allclose(made.predict_proba(X), original.predict_proba(X), atol=1e-4)


def test_without_onnx_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"sotto-mpc\[onnx\]"):
        nn.from_onnx("model.onnx")
