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
    "the output",
)  # fmt: skip
ALL = bool(os.environ.get("SOTTO_ALL_ONNX_CASES"))
# The modules whose cases are run every time.
SHARE = ("add", "concat", "gemm", "lstm", "matmul", "slice", "split", "transpose")
# Cases that onnxruntime computes as Sotto does, otherwise than the case says.
DISPUTED = ("test_resize_downsample_scales_linear_align_corners",)


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


def outcome(case):
    """Return "agrees", a reason, or raise AssertionError if values differ."""
    name, model, inputs, outputs = case
    model, given = prepared(model, inputs, 2 if len(inputs) == 2 and same_kind(inputs) else 1)
    if not given or any(v.ndim < 2 or v.dtype.kind != "f" or not v.size for v in given.values()):
        return "no rows of floats"
    try:
        made = nn.from_onnx(model)
    except (ConversionError, SottoError) as error:
        return known_reason(name, str(error).split("): ", 1)[-1])
    rows = len(next(iter(given.values())))
    X = np.concatenate([v.reshape(rows, -1) for v in given.values()], axis=1).astype(np.float64)
    found = made.decision_function(X) if hasattr(made, "classes_") else made.predict(X)
    kinds = (
        dict.fromkeys([model.graph.output[0].name], found) if not isinstance(found, dict) else found
    )
    for output, want in zip(model.graph.output, outputs, strict=False):
        if output.name in kinds and not hasattr(made, "classes_"):
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
    for name in plain if isinstance(plain, dict) else [None]:
        a, b = (found[name], plain[name]) if name is not None else (found, plain)
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3, err_msg=case[0])
    return "agrees"


def same_kind(inputs):
    """Whether two inputs are operands of one kind, with as many rows."""
    first, second = (np.asarray(v) for v in inputs)
    alike = first.ndim == second.ndim and first.ndim > 1 and first.dtype == second.dtype
    return alike and first.dtype.kind == "f" and len(first) == len(second)


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
    assert len(agreed) >= (140 if ALL else 10)
