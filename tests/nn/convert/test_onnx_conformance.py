"""onnx's own cases of every operator that is converted: each agrees, or is refused for a reason.

The first input of a case, or the first two where both are computed with, is what is secret; the others
are constants. Of a case without an axis of rows a row is made.
"""

import importlib
import os
import warnings

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.models.heads import HeadsModel
from ring.errors import SottoError

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")
cases = pytest.importorskip("onnx.backend.test.case.node")

from nn.convert import onnx_graph  # noqa: E402

# By beginnings of the messages, why a case may be refused: what it is about is not computed on shares.
REASONS = (
    "must not have the attribute", "needs ", "cannot select rows", "cannot join rows", "cannot repeat",
    "cannot expand", "cannot add rows", "moves elements between rows", "must not move elements",
    "must cast", "must keep", "must normalise", "must remove", "must have rows",
    "along the rows", "looks up", "must be", "the graph must",
    "must not compute", "is used in a way", "input 'x", "cannot be computed", "must depend", "input ",
    "the output", "computes with integers",
)  # fmt: skip
# Operators of single elements: a vector is a row of them.
ELEMENTWISE = (
    "Add", "Clip", "Div", "Elu", "HardSigmoid", "LeakyRelu", "Max", "Mean", "Min", "Mul", "Pow", "Selu",
    "Sub", "Sum",
)  # fmt: skip
ALL = bool(os.environ.get("SOTTO_ALL_ONNX_CASES"))
# The modules whose cases are run every time.
SHARE = (
    "add",
    "and_",
    "concat",
    "equal",
    "gemm",
    "lstm",
    "matmul",
    "slice",
    "split",
    "transpose",
    "where",
)
# Cases that onnxruntime computes as Sotto does, otherwise than the case says.
DISPUTED = (
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
)


def collected():
    """Return (name, model, inputs, outputs) of the cases of operators that are converted.

    A module of onnx makes its cases when it is imported; all of them take half a minute.
    """
    known = onnx_graph.known_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ALL:
            everything = cases.collect_testcases(None)
        else:
            for module in SHARE:
                importlib.import_module(f"{cases.__name__}.{module}")
            everything = cases._NodeTestCases
    found = []
    for case in everything:
        nodes = case.model.graph.node if case.model is not None else []
        if len(nodes) == 1 and nodes[0].op_type in known and nodes[0].domain == "":
            inputs, outputs = case.data_sets[0]
            if all(isinstance(v, (np.ndarray, np.generic)) for v in (*inputs, *outputs)):
                found.append((case.name, case.model, inputs, outputs))
    return found


def prepared(model, inputs, secret):
    """Return the model with the inputs behind the first `secret` ones as constants, and the inputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    named = dict(zip([i.name for i in graph.input], inputs, strict=True))
    kept = [i for i in graph.input if i.name in list(named)[:secret]]
    constants = [i for i in graph.input if i.name not in list(named)[:secret]]
    for value in constants:
        graph.initializer.append(
            onnx.numpy_helper.from_array(np.asarray(named[value.name]), value.name)
        )
    del graph.input[:]
    graph.input.extend(kept)
    return model, {i.name: np.asarray(named[i.name]) for i in kept}


def known_reason(name, message):
    """Return why a case is refused, after checking that it is for one of the reasons."""
    assert any(reason in message for reason in REASONS), f"{name}: {message}"
    return message


def with_one_output(model):
    """Return a model that gives its first output alone: others are for training."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[1:]
    for node in model.graph.node:
        del node.output[1:]
    return model


def with_a_layer(model, given):
    """Return a model that turns its inputs' signs first, and these turned: some only move elements."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    signs = [onnx.helper.make_node("Neg", [n], [f"{n}_turned"]) for n in given]
    for node in model.graph.node:
        node.input[:] = [f"{n}_turned" if n in given else n for n in node.input]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*signs, *nodes])
    return model, {n: -v for n, v in given.items()}


def as_one_row(model, inputs):
    """Return a case of single vectors as one with a row: each operand is a row, or one number."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    inputs = [v[None] if np.ndim(v) == 1 else v for v in inputs]
    for value, array in zip(model.graph.input, inputs, strict=True):
        del value.type.tensor_type.shape.dim[:]
        for size in np.shape(array):
            value.type.tensor_type.shape.dim.add().dim_value = size
    return model, inputs


def with_rows_first(model, inputs, outputs):
    """Return a case of a recurrent operator with the batch as the first axis of what is secret."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    (node,) = model.graph.node
    for value in model.graph.input[:1]:
        sizes = value.type.tensor_type.shape.dim
        sizes[0].dim_value, sizes[1].dim_value = sizes[1].dim_value, sizes[0].dim_value
    turned = onnx.helper.make_node("Transpose", [node.input[0]], ["turned"], perm=[1, 0, 2])
    node.input[0], whole, made = "turned", list(outputs), []
    for k, name in enumerate(node.output):
        if name:
            order = [2, 0, 1, 3] if np.ndim(whole[len(made)]) == 4 else [1, 0, 2]
            node.output[k] = f"{name}_before"
            made.append(onnx.helper.make_node("Transpose", [node.output[k]], [name], perm=order))
            whole[len(made) - 1] = np.transpose(whole[len(made) - 1], order)
    model.graph.node.insert(0, turned)
    model.graph.node.extend(made)
    return model, [np.transpose(inputs[0], [1, 0, 2]), *inputs[1:]], whole


def outcome(case):
    """Return "agrees", a reason, or raise AssertionError if values differ."""
    name, model, inputs, outputs = case
    op = model.graph.node[0].op_type
    if op in ELEMENTWISE and all(np.ndim(v) < 2 for v in inputs):
        model, inputs = as_one_row(model, inputs)
    layout = [a.i for a in model.graph.node[0].attribute if a.name == "layout"]
    if op in ("GRU", "LSTM", "RNN") and layout != [1]:
        model, inputs, outputs = with_rows_first(model, inputs, outputs)
    found = "no rows of numbers"
    for secret in (2, 1) if len(inputs) == 2 and same_kind(inputs) else (1,):
        found = outcome_of(name, *prepared(model, inputs, secret), outputs)
        if "needs one output" in found or "outputs that are not converted" in found:
            one = with_one_output(model)
            found = outcome_of(name, *prepared(one, inputs, secret), outputs[:1])
        if "must have a layer" in found:
            found = outcome_of(
                name, *with_a_layer(*prepared(model, inputs, secret)), outputs
            )  # fmt: skip
        if found == "agrees":
            break
    return found


def outcome_of(name, model, given, outputs):
    """Return what becomes of a case whose secret inputs are given."""
    if not given or any(
        v.ndim < 2 or v.dtype.kind not in "fiub" or not v.size for v in given.values()
    ):
        return "no rows of numbers"
    try:
        made = nn.from_onnx(model)
    except (ConversionError, SottoError) as error:
        return known_reason(name, str(error).split("): ", 1)[-1])
    rows = len(next(iter(given.values())))
    X = np.concatenate([v.reshape(rows, -1) for v in given.values()], axis=1).astype(np.float64)
    if hasattr(made, "predict_proba") and not isinstance(made, HeadsModel):
        several = [made.predict(X), made.decision_function(X)]
        if made.link is not None:
            several += [made.predict_proba(X), made.predict_log_proba(X)]
        kinds = {
            output.name: found
            for output, want in zip(model.graph.output, outputs, strict=False)
            for found in several
            if np.size(found) == np.size(want)
            and np.allclose(np.reshape(found, np.shape(want)), want, rtol=1e-3, atol=1e-4)
        }
        assert kinds, name
    else:
        found = made.predict(X)
        only = dict.fromkeys([model.graph.output[0].name], found)
        kinds = found if isinstance(found, dict) else only
    for output, want in zip(model.graph.output, outputs, strict=False):
        if output.name in kinds:
            value = np.reshape(kinds[output.name], np.shape(want))
            np.testing.assert_allclose(value, want, rtol=1e-3, atol=1e-4, err_msg=name)
    made.input_range_ = (float(X.min()), float(X.max()))
    with mpc.Session(frac_bits=18, int_bits=18) as s:
        try:
            secret = made.share(s, owner="alice")
        except SottoError as error:
            return f"on shares: {error}"
        found = secret.predict(secret.share_rows(X, owner="bob"))
    plain = made.predict(X)
    for part in plain if isinstance(plain, dict) else [None]:
        a, b = (found[part], plain[part]) if part is not None else (found, plain)
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3, err_msg=name)
    return "agrees"


def same_kind(inputs):
    """Whether two inputs are operands of one kind, with as many rows."""
    first, second = (np.asarray(v) for v in inputs)
    alike = first.ndim == second.ndim and first.ndim > 1 and first.dtype == second.dtype
    return alike and first.dtype.kind in "fiub" and len(first) == len(second)


def test_every_case_agrees_or_is_refused_for_a_reason():
    agreed, refused = [], {}
    for case in collected():
        if case[0] in DISPUTED:
            continue
        found = outcome(case)
        if found == "agrees":
            agreed.append(case[0])
        else:
            refused[case[0]] = found
    if ALL:
        for name, reason in refused.items():
            print(f"{name}: {reason}")
        print(f"{len(agreed)} agree, {len(refused)} are refused")
    assert len(agreed) >= (400 if ALL else 40)
