"""Functions that exporters spell out along any axis, in the clear and on shares: each is one layer."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import (
    ELU,
    GELU,
    Clip,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    RMSNorm,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
)
from nn.layers.clipping import HardSwish
from nn.models.predictors import Classifier

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import (  # noqa: E402
    build,
    check,
    check_on_shares,
    normal,
    reference,
)

f32 = np.float32
C = {
    "w": normal(6, 6), "gamma": normal(6), "beta": normal(6), "column": normal(6, 1),
    "eps": f32(1e-5), "tiny": f32(1e-12), "less": f32(1e-6), "far": f32(-1e9), "lowest": f32(-np.inf),
    "one": f32(1), "two": f32(2), "three": f32(3), "six": f32(6), "zero": f32(0), "half": f32(0.5),
    "sixth": f32(1 / 6), "slope": f32(0.01), "c1": f32(0.044715), "c2": f32((2 / np.pi) ** 0.5),
    "first": np.array([1]), "last": np.array([-1]), "kept": np.array([-1, 6, 1]),
    "whole": np.array([1, 6, 6]), "groups": np.array([-1, 2, 18]), "images": np.array([-1, 6, 6]),
}  # fmt: skip
GONE = {"keepdims": 0}


def made(lines, shape=("n", 6, 6), last="y"):
    used = {n for line in lines for n in (line if isinstance(line, str) else line[0]).split()}
    constants = {n: v for n, v in C.items() if n in used | {"w"}}
    return build(["MatMul x w -> h", *lines], last, inputs={"x": shape}, **constants)


JAX_SOFTMAX = [
    ("ReduceMax h last -> m", GONE), "Max lowest m -> n", "Reshape n kept -> r", "Expand r whole -> e",
    "Sub h e -> d", "Exp d -> p", ("ReduceSum p last -> s", GONE), "Reshape s kept -> t",
    "Expand t whole -> u", "Div p u -> y",
]  # fmt: skip
ROOT = ["Add v eps -> e", "Sqrt e -> r", "Reciprocal r -> i"]
# Mean and variance of a row, as two exporters write them.
DIFFERENCES = ["Sub h m -> d", "Mul d d -> p", "ReduceMean p last -> v", *ROOT]
SQUARES = [
    "Mul h h -> p", "ReduceMean p last -> q", "Mul m m -> n", "Sub q n -> o", "Max zero o -> v", *ROOT,
]  # fmt: skip
MEAN = "ReduceMean h last -> m"
SHIFTED = ["Mul i gamma -> k", "Mul h k -> a", "Mul m k -> b", "Sub beta b -> c", "Add a c -> y"]
SOFTPLUS = ["Exp h -> e", "Add e one -> k", "Log k -> l"]
ALONG = {
    "softmax by jax": (Softmax, [*JAX_SOFTMAX[:-1], "Div p u -> q", "MatMul q w -> y"]),
    "softmax, axis 1": (
        Softmax,
        ["ReduceMax h first -> m", "Sub h m -> d", "Exp d -> p", "ReduceSum p first -> s",
         "Add s less -> t", "Div p t -> q", "Mul q h -> y"],
    ),
    "softmax of a difference": (
        Softmax,
        ["Sub h x -> d", "Exp d -> p", "ReduceSum p last -> s", "Div p s -> q", "MatMul q w -> y"],
    ),
    "masked softmax": (
        Softmax,
        ["Greater h zero -> c", "Where c h far -> k", "ReduceMax k last -> m", "Sub k m -> d",
         "Exp d -> p", "ReduceSum p last -> s", "Div p s -> q", "MatMul q w -> y"],
    ),
    "log-softmax": (
        LogSoftmax,
        [("ReduceMax h last -> m", GONE), "Unsqueeze m last -> e", "Sub h e -> d", "Exp d -> p",
         "ReduceSum p last -> s", "Log s -> l", "Sub d l -> y"],
    ),
    "log of softmax": (LogSoftmax, [("Softmax h -> s", {"axis": 1}), "Log s -> y"]),
    "norm by jax": (
        LayerNorm,
        [MEAN, *SQUARES, "Mul i gamma -> k", "Sub h m -> d", "Mul d k -> a", "Add a beta -> y"],
    ),
    "norm by tensorflow": (LayerNorm, [MEAN, *DIFFERENCES, *SHIFTED]),
    "norm of squares": (LayerNorm, [MEAN, *SQUARES, *SHIFTED]),
    "norm by deviations": (
        LayerNorm,
        [MEAN, *DIFFERENCES[:3], "Sqrt v -> r", "Add r less -> s", "Div d s -> y"],
    ),
    "norm by groups": (
        LayerNorm,
        ["Reshape h groups -> g", "ReduceMean g last -> m", "Sub g m -> d", *DIFFERENCES[1:],
         "Mul d i -> a", "Reshape a images -> b", "Mul b column -> y"],
    ),
    "length, axis 1": (RMSNorm, ["ReduceL2 h first -> s", "Max s tiny -> t", "Div h t -> y"]),
    "length": (RMSNorm, ["ReduceL2 h last -> s", "Div h s -> y"]),
}  # fmt: skip
ELEMENTS = {
    "sigmoid": (Sigmoid, ["Neg h -> n", "Exp n -> e", "Add one e -> k", "Div one k -> y"]),
    "sigmoid, ratio": (Sigmoid, ["Exp h -> e", "Add one e -> k", "Div e k -> y"]),
    "silu": (SiLU, ["Neg h -> n", "Exp n -> e", "Add one e -> k", "Div h k -> y"]),
    "softplus": (Softplus, [*SOFTPLUS, "Neg l -> y"]),
    "softplus of both": (
        Softplus,
        ["Max h zero -> m", "Abs h -> a", "Neg a -> n", "Exp n -> e", "Add e one -> k", "Log k -> l",
         "Add m l -> y"],
    ),
    "mish": (Mish, [*SOFTPLUS, "Tanh l -> t", "Mul h t -> y"]),
    "gelu by jax": (
        GELU,
        ["Mul c1 h -> a", "Mul h a -> b", "Mul h b -> c", "Add h c -> d", "Mul c2 d -> e", "Tanh e -> t",
         "Add t one -> u", "Mul u half -> v", "Mul h v -> y"],
    ),
    "fast gelu": (
        GELU,
        ["Mul h c2 -> a", "Mul h c1 -> b", "Mul b h -> c", "Add c one -> d", "Mul a d -> e",
         "Tanh e -> t", "Add t one -> u", "Mul h half -> v", "Mul v u -> y"],
    ),
    "hard swish": (
        HardSwish,
        ["Add h three -> a", "Min a six -> r", "Max r zero -> c", "Mul c sixth -> m", "Mul m h -> y"],
    ),
    "relu": (ReLU, ["Greater h zero -> c", "Where c h zero -> y"]),
    "leaky relu": (LeakyReLU, ["Greater h zero -> c", "Mul h slope -> s", "Where c h s -> y"]),
    "below 0": (Clip, ["Greater h zero -> c", "Where c zero h -> y"]),
    "elu": (
        ELU,
        ["Greater h zero -> c", "Where c zero h -> m", "Exp m -> e", "Sub e one -> s", "Mul s two -> t",
         "Where c h t -> y"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ALONG, *ELEMENTS])
def test_functions_spelled_out_are_one_layer(name):
    kind, lines = (ALONG | ELEMENTS)[name]
    model, _ = check(made(lines))
    kinds = [type(layer) for layer in model.layers]
    assert kind in kinds, kinds
    others = {"Exp", "Log", "Sqrt", "Reciprocal", "ReduceSum", "ReduceMean", "ReduceMax"}
    assert not others & {k.__name__ for k in kinds}, kinds


@pytest.mark.parametrize("name", ["masked softmax", "norm by jax", "length, axis 1"])
def test_on_shares(name):
    check_on_shares(made(ALONG[name][1]), tolerance=2e-3)


LOOK_ALIKES = {
    "sums of another axis": (
        Softmax, ["Exp h -> p", "ReduceSum p last -> s", ("Transpose s -> t", {"perm": [0, 2, 1]}),
                  "Div p t -> y"],
    ),
    "sums of half": (
        Softmax, ["Exp h -> p", ("Split p -> q r", {"axis": 2, "num_outputs": 2}),
                  "ReduceSum q last -> s", "Div p s -> y"],
    ),
    "powers of another value": (
        Softmax, ["Exp h -> p", "Exp x -> q", "ReduceSum q last -> s", "Div p s -> y"],
    ),
    "another shift": (
        Softmax, ["ReduceMax h first -> m", "Sub h m -> d", "Exp d -> p", "Exp h -> q",
                  "ReduceSum q last -> s", "Div p s -> y"],
    ),
    "twice the sum": (Softmax, ["Exp h -> p", "ReduceSum p last -> s", "Mul s two -> t", "Div p t -> y"]),
    "means of another axis": (
        LayerNorm, ["ReduceMean h first -> m", *DIFFERENCES, "Mul d i -> y"],
    ),
    "variance of another axis": (
        LayerNorm, [MEAN, *DIFFERENCES[:2], "ReduceMean p first -> v", *ROOT, "Mul d i -> y"],
    ),
    "squares of another axis": (
        LayerNorm, [MEAN, "Mul h h -> p", "ReduceMean p first -> q", "Mul m m -> n",
                    ("Transpose q -> t", {"perm": [0, 2, 1]}), "Sub t n -> o", "Abs o -> v", *ROOT,
                    "Sub h m -> d", "Mul d i -> y"],
    ),
    "half the mean": (
        LayerNorm, [MEAN, "Mul m half -> g", "Sub h g -> d", *DIFFERENCES[1:], "Mul d i -> y"],
    ),
    "another weight": (LayerNorm, [MEAN, *DIFFERENCES, "Mul i gamma -> k", "Mul h k -> a",
                                   "Mul i beta -> g", "Mul m g -> b", "Sub beta b -> c", "Add a c -> y"]),
    "no sigmoid": (Sigmoid, ["Exp h -> e", "Sub e one -> k", "Abs k -> a", "Add a one -> b",
                             "Div one b -> y"]),
    "a cube of another value": (
        GELU, ["Mul x x -> a", "Mul a x -> b", "Mul b c1 -> c", "Add h c -> d", "Mul d c2 -> e",
               "Tanh e -> t", "Add t one -> u", "Mul h u -> y"],
    ),
    "above 1": (ReLU, ["Greater h one -> c", "Where c h zero -> y"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_only_looks_alike_is_not_fused(name):
    kind, lines = LOOK_ALIKES[name]
    model, _ = check(made(lines))
    assert kind not in [type(layer) for layer in model.layers]


LOWEST = [-np.inf, -3.4e38, -1e9, -1e4]


@pytest.mark.parametrize("lowest", LOWEST)
@pytest.mark.parametrize("spelled", [False, True])
def test_constant_masks_are_added(spelled, lowest):
    """As exporters write causal attention: what is added is no number that a format holds."""
    mask = np.triu(np.full((6, 6), lowest, f32), 1)
    mask[np.tril_indices(6)] = 0
    ending = [
        "ReduceMax s last -> m",
        "Sub s m -> d",
        "Exp d -> p",
        "ReduceSum p last -> q",
        "Div p q -> a",
    ]
    lines = ["MatMul x w -> h", "Add h mask -> s", *(ending if spelled else ["Softmax s -> a"])]
    graph = build(
        [*lines, "MatMul a x -> y"], inputs={"x": ("n", 6, 6)}, mask=mask, w=2 * C["w"],
        **({"last": C["last"]} if spelled else {}),
    )  # fmt: skip
    model = check_on_shares(graph, tolerance=2e-3)
    assert Softmax in [type(layer) for layer in model.layers]


@pytest.mark.parametrize(
    "lines",
    [
        ["Add h large -> s", "Mul s thousandth -> z"],
        ["Sub large h -> s", "Relu s -> z"],
        ["Add h large -> s", "Mul s thousandth -> d", "Exp d -> e", "Add e one -> k", "Log k -> z"],
        ["Add h large -> s", "Softmax s -> p", "Add s p -> z"],
    ],
)
def test_large_constants_that_are_no_masks_are_what_they_are(lines):
    numbers = {"large": f32(20000), "thousandth": f32(1e-3), "one": f32(1)}
    used = {n for line in lines for n in line.split()}
    check(
        build(
            ["MatMul x w -> h", *lines, "Add z x -> y"], inputs={"x": ("n", 6)}, w=C["w"],
            **{n: v for n, v in numbers.items() if n in used},
        )
    )  # fmt: skip


@pytest.mark.parametrize("log", [False, True])
def test_a_softmax_at_the_end_makes_a_classifier(log):
    ending = ["Exp h -> p", "ReduceSum p last -> s", "Div p s -> q", "Log q -> y"]
    graph = made(ending if log else [*ending[:2], "Div p s -> y"], ("n", 6))
    model, x = nn.from_onnx(graph), normal(5, 6)
    assert isinstance(model, Classifier)
    (want,) = reference.ReferenceEvaluator(graph).run(None, {"x": x})
    found = model.predict_log_proba(x) if log else model.predict_proba(x)
    np.testing.assert_allclose(found, want, atol=1e-6)
    model.input_range_ = (-2.0, 2.0)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        labels = secret.predict(secret.share_rows(x, owner="bob"))
    np.testing.assert_array_equal(labels, want.argmax(axis=1))
