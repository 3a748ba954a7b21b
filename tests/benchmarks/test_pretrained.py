"""The benchmark of pre-trained files, on wheels that are made up here: nothing is downloaded."""

import json
import zipfile

import numpy as np
import pytest

from tests.helpers.scripts import check_refused, run

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
pytest.importorskip("onnxruntime", reason="compares with onnxruntime")


def graph(operator):
    """An ONNX file with two layers: a product and an operator."""
    weights = onnx.numpy_helper.from_array(np.array([[1, -1], [2, 1]], np.float32), "w")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node(operator, ["h"], ["y"], name="second"),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 2])
        for name in "xy"
    )
    made = onnx.helper.make_graph(nodes, "made up", [x], [y], [weights])
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.fixture
def wheels(tmp_path):
    with zipfile.ZipFile(tmp_path / "made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up/right.onnx", graph("Relu"))
        wheel.writestr("made_up/refused.onnx", graph("Det"))
    return tmp_path


def test_measures(benchmark, wheels):
    pretrained = benchmark("pretrained")
    files = [
        pretrained.File("made-up", "1.0", f"made_up/{name}.onnx", "two layers", (2,))
        for name in ("right", "refused")
    ]
    found = json.loads(json.dumps([pretrained.measure(each, wheels, 3, True) for each in files]))
    right, refused = found
    assert right["taken"] and right["right"] and right["on_shares"] == "right"
    assert right["off_on_shares"] < 1e-3 and right["rounds"] > 0
    assert not refused["taken"] and "Det (node 'second'" in refused["error"]
    measured = {"machine": pretrained.facts(), "rows": 3, "files": found}
    said = "\n".join(pretrained.pretrained_text(measured))
    assert "1 of 2 are taken, and 1 of these" in said
    assert "made-up 1.0, right.onnx" in said and "- made-up 1.0, refused.onnx: Det" in said


def test_a_wrong_answer_is_told(benchmark, wheels, monkeypatch):
    pretrained = benchmark("pretrained")
    file = pretrained.File("made-up", "1.0", "made_up/right.onnx", "two layers", (2,))
    monkeypatch.setattr(pretrained, "original", lambda path, X: np.ones((len(X), 2)))
    assert pretrained.measure(file, wheels, 3, False)["right"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--packages", "magika,tensorflow"], "--packages must be among basic-pitch, ddddocr"),
        (["--rows", "0"], "--rows must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    check_refused(run("pretrained", *arguments), message)
