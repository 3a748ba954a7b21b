"""ONNX's recurrent operators, unrolled, against the same steps by hand."""

import numpy as np
import pytest

import mpc
import nn
from tests.helpers.weights import normal

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import build, check  # noqa: E402

random = np.random.default_rng(1)


def torch_like(kind, gates, hidden=3, width=4, directions=1):
    return {
        "w": normal(directions, gates * hidden, width), "r": normal(directions, gates * hidden, hidden),
        "b": normal(directions, 2 * gates * hidden),
    }  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(kind, x, w, r, b, after):
    """Return the states of all steps of one direction; x has the shape (steps, rows, features)."""
    hidden = r.shape[1]
    own, other = np.split(b, 2)
    h = c = np.zeros((x.shape[1], hidden))
    found = []
    for row in x:
        p, q = row @ w.T + own, h @ r.T + other
        if kind == "RNN":
            h = np.tanh(p + q)
        elif kind == "LSTM":
            i, o, f, g = np.split(p + q, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            z, s = (sigmoid(p[:, k : k + hidden] + q[:, k : k + hidden]) for k in (0, hidden))
            last = q[:, 2 * hidden :]
            if not after:
                last = (s * h) @ r[2 * hidden :].T + other[2 * hidden :]
            new = np.tanh(p[:, 2 * hidden :] + (s * last if after else last))
            h = (1 - z) * new + z * h
        found.append(h)
    return np.array(found)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "gates", "after"), [("RNN", 1, 0), ("LSTM", 4, 0), ("GRU", 3, 0), ("GRU", 3, 1)]
)
def test_recurrent_layers(kind, gates, after, direction):
    both = direction == "bidirectional"
    weights = torch_like(kind, gates, directions=1 + both)
    attributes = {"hidden_size": 3, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = after
    lines = [
        ("Transpose x -> t", {"perm": [1, 0, 2]}), (f"{kind} t w r b -> o h", attributes),
        ("Transpose o -> p", {"perm": [2, 0, 1, 3]}), ("Transpose h -> q", {"perm": [1, 0, 2]}),
        ("Flatten p -> y", {"axis": 1}), ("Flatten q -> z", {"axis": 1}),
    ]  # fmt: skip
    model = build(lines, "y z", {"x": ("n", 5, 4)}, **weights)
    made = nn.from_onnx(model)
    X = random.uniform(-1, 1, size=(3, 5, 4))
    steps, found = X.transpose(1, 0, 2), []
    for k, reverse in enumerate([False, True] if both else [direction == "reverse"]):
        given = steps[::-1] if reverse else steps
        states = by_hand(kind, given, *(weights[n][k].astype(float) for n in "wrb"), after)
        found.append((states[::-1] if reverse else states, states[-1]))
    want = np.stack([all_of for all_of, _ in found], axis=1).transpose(2, 0, 1, 3).reshape(3, -1)
    ends = np.concatenate([end for _, end in found], axis=1)
    plain = made.predict(X.reshape(3, -1))
    np.testing.assert_allclose(plain["y"], want, atol=1e-5)
    np.testing.assert_allclose(plain["z"], ends, atol=1e-5)
    if direction != "bidirectional" and (kind != "GRU" or after):
        made.input_range_ = (-1.0, 1.0)
        with mpc.Session(frac_bits=20) as s:
            secret = made.share(s, owner="alice")
            secret = secret.predict(secret.share_rows(X.reshape(3, -1), owner="bob"))
        np.testing.assert_allclose(secret["y"], want, atol=1e-3)


@pytest.mark.parametrize("options", [{"peepholes": 1}, {"input_forget": 1}, {"clip": 0.3}], ids=str)
def test_options_of_an_lstm(options):
    weights = torch_like("LSTM", 4)
    if options.get("peepholes"):
        weights["p"] = normal(1, 9)
    named = {n: v for n, v in options.items() if n != "peepholes"}
    lines = [
        ("Transpose x -> t", {"perm": [1, 0, 2]}),
        (f"LSTM t w r b - - -{' p' if 'p' in weights else ''} -> - h", {"hidden_size": 3, **named}),
        ("Squeeze h at0 -> y"),
    ]  # fmt: skip
    model = build(lines, "y", {"x": ("n", 5, 4)}, at0=np.array([0]), **weights)
    X = random.uniform(-1, 1, size=(3, 5, 4))
    w, r, b = (weights[n][0].astype(float) for n in "wrb")
    peeps = np.split(weights["p"][0].astype(float), 3) if "p" in weights else [0.0] * 3
    limit = options.get("clip", np.inf)
    h = c = np.zeros((3, 3))
    for row in X.transpose(1, 0, 2):
        i, o, f, g = np.split(row @ w.T + h @ r.T + b[:12] + b[12:], 4, axis=1)
        i, f, g = (np.clip(v, -limit, limit) for v in (i + peeps[0] * c, f + peeps[2] * c, g))
        stay = 1 - sigmoid(i) if options.get("input_forget") else sigmoid(f)
        c = stay * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(np.clip(o + peeps[1] * c, -limit, limit)) * np.tanh(c)
    np.testing.assert_allclose(nn.from_onnx(model).predict(X.reshape(3, -1)), h, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "slopes", "offsets", "functions"),
    [
        (["Relu"], [], [], [lambda x: np.maximum(x, 0)]),
        (["HardSigmoid"], [0.25], [0.4], [lambda x: np.clip(0.25 * x + 0.4, 0, 1)]),
        (["LeakyRelu"], [0.3], [], [lambda x: np.where(x > 0, x, 0.3 * x)]),
        (["Affine"], [0.5], [0.1], [lambda x: 0.5 * x + 0.1]),
    ],
)
def test_activations_of_recurrent_layers(names, slopes, offsets, functions):
    weights = torch_like("RNN", 1)
    options = {"activations": names, "hidden_size": 3}
    options |= {"activation_alpha": slopes} if slopes else {}
    options |= {"activation_beta": offsets} if offsets else {}
    lines = [
        ("Transpose x -> t", {"perm": [1, 0, 2]}), ("RNN t w r b -> - h", options), "Squeeze h at0 -> y",
    ]  # fmt: skip
    model = build(lines, "y", {"x": ("n", 3, 4)}, at0=np.array([0]), **weights)
    X = random.uniform(-1, 1, size=(2, 3, 4))
    w, r, b = (weights[n][0].astype(float) for n in "wrb")
    h = np.zeros((2, 3))
    for row in X.transpose(1, 0, 2):
        h = functions[0](row @ w.T + h @ r.T + b[:3] + b[3:])
    np.testing.assert_allclose(nn.from_onnx(model).predict(X.reshape(2, -1)), h, atol=1e-5)


def test_an_initial_state_that_is_repeated_for_the_rows():
    weights = torch_like("LSTM", 4)
    lines = [
        "Shape x -> s", ("Gather s zero -> n", {"axis": 0}), "Unsqueeze n at0 -> n1",
        ("Concat one1 n1 three1 -> shape", {"axis": 0}), "ConstantOfShape shape -> h0",
        ("Transpose x -> t", {"perm": [1, 0, 2]}),
        ("LSTM t w r b - h0 h0 -> o h", {"hidden_size": 3}), "Squeeze h at0 -> k", "Neg k -> y",
    ]  # fmt: skip
    constants = {
        **weights,
        "zero": np.array(0),
        "at0": np.array([0]),
        "one1": np.array([1]),
        "three1": np.array([3]),
    }
    check(build(lines, inputs={"x": ("n", 5, 4)}, **constants))
