"""Graphs of learned models, as skl2onnx writes them, against onnxruntime: trees, machines, linear models.

The files are in tests/models/learned, made by tests/models/make_learned.py, with onnxruntime's outputs for
rows of which many lie on thresholds of trees, or next to them.
"""

from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.layers import Trees
from nn.models.predictors import Classifier

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
helper = onnx.helper

FOLDER = Path(__file__).resolve().parents[2] / "models" / "learned"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
# Of a support vector machine the labels are converted.
MACHINES = ("svc_linear", "svc_rbf_of_two")


def read(name, **options):
    """Return a model, the rows, and onnxruntime's outputs: values, or labels and probabilities."""
    with np.load(FOLDER / f"{name}.npz") as kept:
        rows, outputs = kept["rows"], [kept[key] for key in kept.files if key != "rows"]
    if name in MACHINES:
        options["outputs"] = ["output_label"]
    return nn.from_onnx(FOLDER / f"{name}.onnx", rows, **options), rows, outputs


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_onnxruntime(name):
    model, rows, outputs = read(name)
    if not isinstance(model, Classifier):
        spread = outputs[0].std(axis=0)
        # Trees sum a few leaves; machines hundreds of products, in float32.
        tolerance = 1e-6 if any(isinstance(layer, Trees) for layer in model.layers) else 2e-5
        assert (np.abs(model.predict(rows) - outputs[0]) <= tolerance * spread).all()
        return
    np.testing.assert_array_equal(model.predict(rows), outputs[0])
    if name not in MACHINES:
        np.testing.assert_allclose(model.predict_proba(rows), outputs[1], atol=2e-6)


def test_rows_are_near_thresholds_behind_scalers():
    """Rounded otherwise than in float32, some of them would come to other leaves."""
    model, rows, _ = read("forest")
    layer = model.layers[0]
    X = rows.astype(np.float64)
    for factor in (1 - 1e-7, 1 + 1e-7):
        moved = layer.with_parameters([layer.thresholds * factor, *layer.parameters[1:]])
        assert (np.abs(moved(X) - layer(X)).max(axis=1) > 1e-9).sum() > 10


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("every_mode", False), ("forest", True), ("boosting", False), ("svc_linear", False),
        ("svr_rbf", False),
    ],
)  # fmt: skip
def test_on_shares(name, secret):
    model, rows, outputs = read(name, secret_features=secret)
    form = model.audit().suggestion
    with mpc.Session(frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        shared = model.share(s, owner="alice")
        found = shared.predict(shared.share_rows(rows, owner="bob"))
    if isinstance(model, Classifier):
        np.testing.assert_array_equal(found, outputs[0])
    else:
        np.testing.assert_allclose(found, outputs[0], atol=1e-3 * outputs[0].std())


def test_what_is_saved_has_the_same_trees(tmp_path):
    model, rows, _ = read("boosting_of_two")
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(
        nn.load(tmp_path / "model.npz").predict_proba(rows), model.predict_proba(rows)
    )


def graph(nodes, outputs, inputs=(("x", 1),), constants=(), kind=1):
    made = [
        helper.make_node(
            name, taken.split(), given.split(), domain="ai.onnx.ml" if ml else "", **attributes
        )
        for name, ml, taken, given, attributes in nodes
    ]
    values = [helper.make_tensor_value_info(name, kind, ["rows", size]) for name, size in inputs]
    ends = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    arrays = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(
        helper.make_graph(made, "test", values, ends, arrays), opset_imports=opsets, ir_version=10
    )


def tensor(values, kind=np.float32):
    return onnx.numpy_helper.from_array(np.asarray(values, kind))


def stump(post=b"NONE", **changed):
    """Return a tree of one node: 1 for x up to 0.1, 2 above."""
    attributes = {
        "nodes_treeids": [0] * 3, "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0] * 3,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_values": [0.1, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "n_targets": 1,
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [1.0, 2.0], "post_transform": post,
    }  # fmt: skip
    return "TreeEnsembleRegressor", True, "x", "y", attributes | changed


def test_the_newer_operator_for_trees():
    attributes = {
        "nodes_featureids": [0, 0], "nodes_modes": tensor([0, 4], np.uint8),
        "nodes_splits": tensor([0.5, 2.0]), "nodes_truenodeids": [1, 1], "nodes_trueleafs": [0, 1],
        "nodes_falsenodeids": [0, 2], "nodes_falseleafs": [1, 1], "leaf_targetids": [0, 0, 0],
        "leaf_weights": tensor([1.0, 2.0, 4.0]), "n_targets": 1, "tree_roots": [0],
        "aggregate_function": 1,
    }  # fmt: skip
    model = nn.from_onnx(graph([("TreeEnsemble", True, "x", "y", attributes)], ["y"]))
    np.testing.assert_array_equal(model.predict([[0.5], [0.6], [2.0]]), [[4.0], [1.0], [1.0]])
    member = attributes | {"nodes_modes": tensor([6, 4], np.uint8)}
    with pytest.raises(ConversionError, match="compares numbers, got BRANCH_MEMBER"):
        nn.from_onnx(graph([("TreeEnsemble", True, "x", "y", member)], ["y"]))


def test_rows_of_doubles_are_compared_as_doubles():
    row = [[float(np.float32(0.1)) + 1e-12]]
    for kind, value in ((1, 1.0), (11, 2.0)):
        model = nn.from_onnx(graph([stump()], ["y"], kind=kind))
        assert model.predict(row).tolist() == [[value]]


@pytest.mark.parametrize("scale", [0.3, -0.3])
def test_a_scaler_may_turn_the_order_round(scale):
    offset = 0.7
    nodes = [("Scaler", True, "x", "s", {"offset": [offset], "scale": [scale]}), stump()]
    nodes[1] = (*nodes[1][:2], "s", *nodes[1][3:])
    model = nn.from_onnx(graph(nodes, ["y"]))
    near = np.float32(offset + 0.1 / scale).view(np.int32) + np.arange(-20, 21, dtype=np.int32)
    rows = near.view(np.float32)[:, None]
    scaled = (rows - np.float32(offset)) * np.float32(scale)
    want = np.where(scaled <= np.float32(0.1), 1.0, 2.0)
    assert len(np.unique(want)) == 2
    np.testing.assert_array_equal(model.predict(rows), want)


def test_several_inputs_are_columns():
    nodes = [
        ("FeatureVectorizer", True, "a b", "x", {"inputdimensions": [1, 2]}),
        ("Scaler", True, "x", "s", {"offset": [1.0], "scale": [2.0]}),
        ("ArrayFeatureExtractor", True, "s last", "y", {}),
    ]
    made = graph(nodes, ["y"], [("a", 1), ("b", 2)], [("last", np.array([2, 0]))])
    model = nn.from_onnx(made)
    given = {"a": [[1.0], [2.0]], "b": [[3.0, 4.0], [5.0, 6.0]]}
    np.testing.assert_array_equal(model.predict(given), [[6.0, 0.0], [10.0, 2.0]])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (stump(b"LOGISTIC"), "needs post_transform NONE"),
        (stump(aggregate_function=b"MAX"), "SUM or AVERAGE, got MAX"),
        (stump(nodes_truenodeids=[0, 0, 0]), "must make one tree"),
        (stump(nodes_featureids=[3, 0, 0]), "compares column 3, but its rows have 1"),
        (stump(target_ids=[0, 1]), "used in a way"),
        (stump(base_values=[1.0, 2.0]), "needs 1 numbers in base_values, got 2"),
        (("OneHotEncoder", True, "x", "y", {"cats_int64s": [1, 2]}), "encodes categories"),
        (("Normalizer", True, "x", "y", {"norm": "MAX"}), "the largest value with its sign"),
        (("Imputer", True, "x", "y", {"replaced_value_float": -1.0}), "must replace NaN"),
    ],
)  # fmt: skip
def test_refusals(node, message):
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(graph([node], ["y"]))


def test_scores_of_a_machine_are_refused_and_how_to_keep_its_labels():
    message = r"scores of an SVMClassifier.* outputs= keeps .* \['output_label'\]"
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(FOLDER / "svc_rbf_of_two.onnx")
    with pytest.raises(mpc.ArgumentError, match="outputs must be among output_label"):
        nn.from_onnx(FOLDER / "svc_rbf_of_two.onnx", outputs=["label"])
