"""The usual architectures as PyTorch's two exporters write them: all are taken, and right on shares.

The files are in tests/models, made by make.py there, with onnxruntime's outputs. A share of them is
evaluated in every run; SOTTO_ALL_ARCHITECTURES evaluates all of them for all rows.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from nn.fixed_point.bounds import interval_bounds
from nn.layers import Add, Graph, Reciprocal, Subtract

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.models.rows import ROWS, made_rows  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "models"
NAMES = sorted(path.name.removesuffix(".onnx") for path in FOLDER.glob("*.onnx"))
ALL = bool(os.environ.get("SOTTO_ALL_ARCHITECTURES"))
# Evaluated on shares in every run, for a few rows: one of each kind, those that take little time.
SHARE = (
    "attention_cbam", "cnn_1d.dynamo", "cross_attention", "feature_pyramid", "gan_discriminator",
    "gated_transformer.dynamo", "ghostnet.dynamo", "gru", "inception_v3.dynamo", "lenet", "lstm.dynamo",
    "mobilenet_v3", "multi_task", "normalised_embedding", "shrinks", "squeezenet_small.dynamo",
    "super_resolution", "two_towers", "two_towers.dynamo",
)  # fmt: skip
# Largest error, as a fraction of the largest score, and smallest share of rows of the same class.
ERROR, AGREEMENT = 2e-3, 0.995


class Exported:
    """A file, with the rows and what onnxruntime makes of them."""

    def __init__(self, name, rows):
        model = onnx.load(FOLDER / f"{name}.onnx")
        shapes = [
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim)[1:]
            for value in model.graph.input
        ]
        inputs = [x.reshape(ROWS, -1)[:rows] for x in made_rows(shapes)]
        named = {v.name: x for v, x in zip(model.graph.input, inputs, strict=True)}
        self.X = np.concatenate(inputs, axis=1).astype(np.float64)
        self.model = nn.from_onnx(model, named if len(named) > 1 else inputs[0])
        with np.load(FOLDER / f"{name.removesuffix('.dynamo')}.npz") as kept:
            judged = [kept[key][:rows] for key in kept.files]
        self.judged = {o.name: y for o, y in zip(model.graph.output, judged, strict=True)}
        self.outputs = list(self.judged)

    def named(self, found):
        return found if isinstance(found, dict) else {self.outputs[0]: found}

    def plain(self):
        """Return scores in the clear by output, and values as the graph has them."""
        scores = self.named(
            self.model.decision_function(self.X)
            if hasattr(self.model, "decision_function")
            else self.model.predict(self.X)
        )
        values = dict(scores)
        if hasattr(self.model, "predict_proba"):
            values |= self.named(self.model.predict_proba(self.X))
        return scores, values


def check_plain(exported):
    scores, values = exported.plain()
    for name, want in exported.judged.items():
        found = np.reshape(values[name][: len(want)], want.shape)
        if (want <= 0).all() and not (found <= 0).all():  # logarithms of probabilities
            want = np.exp(want)
        scale = np.abs(want).max()
        assert scale > 1e-3, f"{name} says nothing"
        np.testing.assert_allclose(found, want, atol=2e-5 * scale, err_msg=name)
    return scores


def check_on_shares(exported, scores, parties=("alice", "bob")):
    """Compare scores on shares with those in the clear, in the format that the audit names."""
    audit = exported.model.audit(exported.X)
    assert audit.suggestion is not None, audit.problem
    form = audit.suggestion
    found = {}
    with mpc.Session(parties, frac_bits=form.frac_bits, int_bits=form.int_bits) as s:
        secret = exported.model.share(s, owner="alice")
        for start in range(0, len(exported.X), 64):
            made = secret(secret.share_rows(exported.X[start : start + 64], owner="bob"))
            for name, values in exported.named(made).items():
                found.setdefault(name, []).append(values.reveal())
    for name, want in scores.items():
        got = np.concatenate(found[name]).reshape(len(want), -1)
        want = np.reshape(want, got.shape)
        worst = np.abs(got - want).max() / np.abs(want).max()
        same = (got.argmax(axis=1) == want.argmax(axis=1)).mean()
        if ALL:
            print(
                f"{form.frac_bits},{form.int_bits}: {name} off by {worst:.1e} of the largest, "
                f"{same:.2%} of {len(want)} rows of the same class"
            )
        assert worst < ERROR, f"{name}: off by {worst:.2e} of the largest"
        if exported.judged[name].ndim > 2:
            continue  # the largest of an image's or a sequence's numbers is no class
        assert same >= AGREEMENT, f"{name}: {same:.2%} of the same class"


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_taken(name):
    exported = Exported(name, ROWS if ALL else 8)
    scores = check_plain(exported)
    if ALL or name in SHARE:
        check_on_shares(exported, scores)


def test_three_parties():
    exported = Exported("mobilenet_v2", 4)
    check_on_shares(exported, exported.plain()[0], ("alice", "bob", "carol"))


def test_the_usual_architectures_are_here():
    """By both exporters, except where one of them cannot export an operator."""
    names = {name.removesuffix(".dynamo") for name in NAMES}
    once = {name for name in names if (name in NAMES) + (f"{name}.dynamo" in NAMES) < 2}
    assert len(names) >= 70
    assert once == {"alexnet", "bilinear"}  # the older exporter knows no LRN and no bilinear form
    assert set(SHARE) <= set(NAMES)


def test_a_wrong_number_is_seen():
    """The comparison itself: a weight that is a little off is an error."""
    exported = Exported("mlp", 8)
    layer = exported.model.layers[0]
    layer.weights = layer.weights * 1.01
    with pytest.raises(AssertionError):
        check_plain(exported)


def test_what_cannot_be_is_said():
    graph = onnx.load(FOLDER / "mlp.onnx")
    graph.graph.node[1].op_type = "Det"
    with pytest.raises(ConversionError, match="Det"):
        nn.from_onnx(graph)


def test_errors_of_gates_stay_bounded():
    """Errors of values that are within -1 and 1 do not grow with every step of a recurrent network."""
    exported = Exported("gru", 8)
    assert exported.model.audit(exported.X).error_bound < 1e6


def test_bounds_that_are_no_numbers_are_infinite():
    graph = Graph([(Reciprocal(), 0), (Subtract(), (1, 1)), (Add(), (2, 1))], 1)
    low, high = interval_bounds(graph, np.array([-1.0]), np.array([1.0]))[-1]
    assert low == -np.inf
    assert high == np.inf
