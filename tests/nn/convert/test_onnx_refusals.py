"""Nothing in an ONNX graph is left out, or taken for something else, without a word."""

import numpy as np
import pytest

import nn
from nn.convert.from_sklearn import ConversionError
from nn.models.predictors import Classifier, Regressor

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_from_onnx import INT, X, build, evaluate, tensor  # noqa: E402

random = np.random.default_rng(5)
V, U = random.normal(size=(4, 3)), random.normal(size=(4, 2))
FIRST = ("MatMul", "x v", "h", {})
COUNT = [
    FIRST, ("Shape", "x", "s", {}), ("Gather", "s zero", "n", {}), ("Cast", "n", "f", {"to": 1}),
]  # fmt: skip
CONSTANTS = [
    tensor("v", V), tensor("u", U), tensor("zero", 0, np.int64), tensor("one", 1, np.int64),
    tensor("first", [0], np.int64), tensor("rest", [-1], np.int64), tensor("two", 2, np.int64),
    tensor("ten", 10.0),
]  # fmt: skip


def graph(*nodes, outputs=("o",), **more):
    return build(list(nodes), CONSTANTS, outputs, **more)


@pytest.mark.parametrize("outputs", [("kind", "box"), ("box", "kind")])
def test_every_output_counts(outputs):
    nodes = ("MatMul", "x v", "kind", {}), ("MatMul", "x u", "box", {})
    found = nn.from_onnx(graph(*nodes, outputs=outputs)).predict(X)
    assert list(found) == list(outputs)
    for name, weights in (("kind", V), ("box", U)):
        np.testing.assert_allclose(found[name], X @ weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        nn.from_onnx(graph(*nodes, outputs=("box",))).predict(X), X @ U, rtol=1e-4, atol=1e-5
    )


RELU, SOFTMAX = ("Relu", "h", "r", {}), ("Softmax", "h", "p", {})
LABEL = ("ArgMax", "h", "l", {"axis": 1})


@pytest.mark.parametrize(
    ("nodes", "outputs", "kinds"),
    [
        ([FIRST, RELU], ("r", "h"), {}),  # what is on the way
        ([FIRST, ("Identity", "v", "k", {})], ("h", "k"), {}),  # a constant
        ([FIRST, ("Identity", "v", "k", {})], ("k", "h"), {}),
        ([FIRST, ("Shape", "x", "k", {})], ("h", "k"), {"k": INT}),
        ([FIRST, LABEL, ("MatMul", "x u", "g", {}), ("ArgMax", "g", "m", {"axis": 1})],
         ("l", "m"), {"l": INT, "m": INT}),
        ([FIRST, SOFTMAX, ("Sigmoid", "h", "q", {})], ("p", "q"), {}),
        ([FIRST, SOFTMAX, ("MatMul", "x u", "q", {})], ("p", "q"), {}),
    ],
)  # fmt: skip
def test_outputs_that_differ(nodes, outputs, kinds):
    model = graph(*nodes, outputs=outputs, kinds=kinds)
    if "k" in outputs:
        with pytest.raises(ConversionError, match="must depend on its inputs, got the constant k"):
            nn.from_onnx(model)
        return
    made = nn.from_onnx(model)
    found, odds, given = made.predict(X), made.predict_proba(X), evaluate(model)
    for name, want in zip(outputs, given, strict=True):
        if name in odds:
            np.testing.assert_allclose(odds[name], want, atol=1e-5)
        else:
            np.testing.assert_allclose(found[name], np.squeeze(want), rtol=1e-4, atol=1e-5)


def test_outputs_that_say_the_same():
    for nodes, outputs, kinds in (
        ([FIRST, ("Identity", "h", "k", {})], ("h", "k"), {}),
        ([FIRST, SOFTMAX], ("p", "h"), {}),
        ([FIRST, SOFTMAX, LABEL], ("l", "p", "h"), {"l": INT}),
    ):
        made = nn.from_onnx(graph(*nodes, outputs=outputs, kinds=kinds))
        scores = getattr(made, "decision_function", made.predict)(X)
        np.testing.assert_allclose(scores, X @ V, rtol=1e-4, atol=1e-5)


def test_the_mask_of_a_dropout_is_not_given():
    model = graph(FIRST, ("Dropout", "h", "d m", {}), outputs=("d", "m"), kinds={"m": 9})
    with pytest.raises(ConversionError, match="outputs that are not converted, got m"):
        nn.from_onnx(model)


@pytest.mark.parametrize("shape", [("n", 4), (2, 4)], ids=["open", "two rows"])
@pytest.mark.parametrize(
    "nodes",
    [
        [*COUNT, ("Div", "h f", "o", {})],
        [*COUNT, ("Mul", "h f", "o", {})],
        [*COUNT, ("Add", "h f", "o", {})],
        [*COUNT, ("Sub", "f h", "o", {})],
        [*COUNT, ("Mul", "f f", "g", {}), ("Div", "h g", "o", {})],
        [*COUNT, ("Equal", "n two", "b", {}), ("Where", "b f ten", "g", {}), ("Div", "h g", "o", {})],
        [*COUNT, ("Max", "f ten", "g", {}), ("Div", "h g", "o", {})],
        [*COUNT, ("Cast", "s", "t", {"to": 1}), ("ReduceProd", "t", "g", {"keepdims": 0}),
         ("Div", "h g", "o", {})],
        [*COUNT, ("Sub", "n n", "k", {}), ("Gather", "u k", "g", {}), ("Gather", "g zero", "e", {}),
         ("Mul", "h e", "o", {})],
        [*COUNT, ("Unsqueeze", "n first", "k", {}), ("Concat", "k k", "r", {"axis": 0}),
         ("Reshape", "h r", "o", {})],
    ],
)  # fmt: skip
def test_the_number_of_rows_is_not_computed_with(nodes, shape):
    with pytest.raises(ConversionError, match="number of rows|their number|must keep the elements"):
        nn.from_onnx(graph(*nodes, shape=shape))


@pytest.mark.parametrize("shape", [("n", 4), (2, 4)], ids=["open", "two rows"])
def test_sizes_of_a_row_are_numbers_and_reshapes_may_keep_the_rows(shape):
    rows = X[:2]
    features = [FIRST, ("Shape", "x", "s", {}), ("Gather", "s one", "n", {}),
                ("Cast", "n", "f", {"to": 1}), ("Div", "h f", "o", {})]  # fmt: skip
    keeping = [FIRST, *COUNT[1:3], ("Unsqueeze", "n first", "k", {}),
               ("Concat", "k rest", "r", {"axis": 0}), ("Reshape", "h r", "o", {})]  # fmt: skip
    for nodes, expected in ((features, rows @ V / 4), (keeping, rows @ V)):
        model = graph(*nodes, shape=shape)
        np.testing.assert_allclose(evaluate(model, rows)[0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            nn.from_onnx(model).predict(rows), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("nodes", "message", "kinds"),
    [
        ([FIRST, SOFTMAX, ("Reshape", "p rest", "o", {})], "needs numbers|several rows", {}),
        ([FIRST, SOFTMAX, ("Flatten", "p", "o", {"axis": 0})], "needs numbers|several rows", {}),
        ([FIRST, SOFTMAX, ("Cast", "p", "o", {"to": 7})], "rounding", {"o": INT}),
        ([FIRST, LABEL, ("Cast", "l", "o", {"to": 9})], "rounding", {"o": 9}),
        ([FIRST, LABEL, ("Squeeze", "l first", "o", {})], "other than axis 0", {"o": INT}),
        ([FIRST, SOFTMAX, ("ArrayFeatureExtractor", "p h", "o", {})], "an argmax that selects", {}),
        ([FIRST, ("RandomNormal", "", "k", {"shape": [3]}), ("Add", "h k", "o", {})], "random", {}),
        ([FIRST, ("Relu", "h", "o", {"strange": 1})], "not have the attribute strange", {}),
        ([("LinearRegressor", "x", "o", {"coefficients": [1.0] * 8, "targets": 1})], "targets=1", {}),
    ],
)  # fmt: skip
def test_uses_that_change_the_meaning(nodes, message, kinds):
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(graph(*nodes, kinds=kinds))


QUANTISED = {
    "around": [("QuantizeLinear", "x s z", "q", {}), ("DequantizeLinear", "q s z", "d", {}),
               ("DequantizeLinear", "k s", "e", {}), ("MatMul", "d e", "o", {})],
    "whole": [("QuantizeLinear", "x s z", "q", {}), ("QLinearMatMul", "q s z k s i s z", "o", {})],
    "while it runs": [("DynamicQuantizeLinear", "x", "q r t", {}), ("MatMulInteger", "q k t", "m", {}),
                      ("Cast", "m", "f", {"to": 1}), ("Mul", "f r", "o", {})],
    "of onnxruntime": [("QuantizeLinear", "x s z", "q", {}), ("QGemm", "q s z k s i", "o", {})],
}  # fmt: skip
SCALES = [
    tensor("k", np.arange(12).reshape(4, 3), np.int8), tensor("s", 0.125), tensor("z", 0, np.uint8),
    tensor("i", 0, np.int8),
]  # fmt: skip


def of_microsoft(model, op):
    """Return the model with an operator of onnxruntime's domain."""
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for node in model.graph.node:
        node.domain = "com.microsoft" if node.op_type == op else node.domain
    return model


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_graph_is_called_that(name):
    with pytest.raises(ConversionError, match="^the graph is quantised.*in floats; ") as caught:
        nn.from_onnx(of_microsoft(build(QUANTISED[name], SCALES, ("o",)), "QGemm"))
    assert " MatMul (" not in str(caught.value) and "operators that can be" not in str(caught.value)


def test_weights_alone_may_be_quantised():
    nodes = [("DequantizeLinear", "k s", "e", {}), ("MatMul", "x e", "o", {})]
    made = nn.from_onnx(build(nodes, SCALES, ("o",)))
    np.testing.assert_allclose(made.predict(X), X @ np.arange(12).reshape(4, 3) / 8, rtol=1e-5)


def test_operators_of_other_domains_are_all_named():
    ends = [("Det", "a", "b", {}), ("Gelu", "b", "o", {})]
    with pytest.raises(ConversionError) as caught:
        nn.from_onnx(of_microsoft(graph(FIRST, ("Relu", "h", "a", {}), *ends), "Gelu"))
    message = str(caught.value)
    assert "Det (" in message and "com.microsoft.Gelu (" in message
    assert message.count("operators that can be: ") == 1


def test_whole_numbers_are_turned_into_floats_first():
    def made(*nodes):
        model = graph(*nodes)
        model.graph.input[0].type.tensor_type.elem_type = INT
        return model

    cast = made(("Cast", "x", "y", {"to": 1}), ("MatMul", "y v", "o", {}))
    rows = np.arange(8).reshape(2, 4)
    np.testing.assert_allclose(nn.from_onnx(cast).predict(rows), rows @ V, rtol=1e-4)
    with pytest.raises(ConversionError, match=r"Div \(node .* computes with integers"):
        nn.from_onnx(made(("Div", "x two", "y", {}), ("MatMul", "y v", "o", {})))


def test_names_of_columns_that_nothing_else_says():
    names = {"classlabels_strings": ["a", "b", "c"]}
    made = nn.from_onnx(graph(FIRST, SOFTMAX, ("ZipMap", "p", "o", names)))
    assert isinstance(made, Classifier) and made.classes_.tolist() == ["a", "b", "c"]
    assert isinstance(nn.from_onnx(graph(FIRST, ("Identity", "h", "o", {}))), Regressor)


@pytest.mark.parametrize("rows", [2, 3])
def test_sigmoids_that_do_not_sum_to_one(rows):
    attributes = {
        "coefficients": V[:, :rows].T.ravel().tolist(), "intercepts": [0.5] * rows,
        "classlabels_ints": [3, 4, 5][:rows], "post_transform": "LOGISTIC",
    }  # fmt: skip
    sigmoids = ("LinearClassifier", "x", "l p", attributes)
    scaled = ("Normalizer", "p", "s", {"norm": "L1"})
    for outputs in (("l", "p"), ("p",), ("l", "p", "s")):
        model = build([sigmoids, scaled], [], outputs, kinds={"l": INT})
        with pytest.raises(ConversionError, match=r"sum to 1.*Normalizer|of which s is another"):
            nn.from_onnx(model)
    for nodes, outputs in (([sigmoids, scaled], ("l", "s")), ([sigmoids], ("l",))):
        model = build(nodes, [], outputs, kinds={"l": INT})
        made, given = nn.from_onnx(model), evaluate(model)
        np.testing.assert_array_equal(made.predict(X), given[0])
        if len(outputs) == 2:
            np.testing.assert_allclose(made.predict_proba(X), given[1], atol=1e-5)


@pytest.mark.parametrize(("columns", "same"), [([3, 4, 5], True), ([5, 4, 3], False)])
def test_columns_are_called_as_the_labels_are(columns, same):
    attributes = {
        "coefficients": V.T.ravel().tolist(), "intercepts": [0.5] * 3,
        "classlabels_ints": [3, 4, 5], "post_transform": "SOFTMAX",
    }  # fmt: skip
    nodes = [
        ("LinearClassifier", "x", "l p", attributes),
        ("ZipMap", "p", "z", {"classlabels_int64s": columns}),
    ]
    model = build(nodes, [], ("l", "z"), kinds={"l": INT})
    if same:
        assert nn.from_onnx(model).classes_.tolist() == columns
    else:
        with pytest.raises(ConversionError, match=r"got \[3, 4, 5\] and \[5, 4, 3\]"):
            nn.from_onnx(model)


def test_sigmoids_of_opposite_scores_sum_to_one():
    attributes = {
        "coefficients": [*V[:, 0], *-V[:, 0]], "intercepts": [0.5, -0.5],
        "classlabels_ints": [3, 4], "post_transform": "LOGISTIC",
    }  # fmt: skip
    nodes = [("LinearClassifier", "x", "l p", attributes)]
    model = build(nodes, [], ("l", "p"), kinds={"l": INT})
    np.testing.assert_allclose(nn.from_onnx(model).predict_proba(X), evaluate(model)[1], atol=1e-5)


def test_scores_are_divided_by_their_norm_and_logarithms_are_not():
    attributes = {
        "coefficients": V.T.ravel().tolist(), "intercepts": [0.5] * 3,
        "classlabels_ints": [3, 4, 5], "post_transform": "NONE",
    }  # fmt: skip
    end = ("Normalizer", "p", "s", {"norm": "L1"})
    model = graph(("LinearClassifier", "x", "l p", attributes), end, outputs=("s",))
    np.testing.assert_allclose(nn.from_onnx(model).predict(X), evaluate(model)[0], atol=1e-4)
    with pytest.raises(ConversionError, match="LogSoftmax.*cannot be converted"):
        nn.from_onnx(graph(FIRST, ("LogSoftmax", "h", "p", {"axis": 1}), end, outputs=("s",)))
