"""ONNX operators that compare and choose, functions spelled out in nodes, and public branches."""

import numpy as np
import pytest

import nn
from nn.convert.from_sklearn import ConversionError
from nn.layers import GELU, LayerNorm, Maximum, Minimum, Mish, RMSNorm, SiLU, Softplus
from nn.layers.clipping import HardSwish

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import (  # noqa: E402
    build,
    check,
    check_on_shares,
    helper,
    normal,
    reference,
)

f32 = np.float32
C = {
    "w": normal(6, 6),
    "v": normal(6, 6),
    "half": f32(0.5),
    "one": f32(1),
    "two": f32(2),
    "three": f32(3),
    "some": np.linspace(-0.4, 0.4, 6, dtype=np.float32),
    "root": f32(2**0.5),
    "third": f32(1 / 3),
    "c1": f32(0.044715),
    "c2": f32((2 / np.pi) ** 0.5),
    "six": f32(6),
    "large": f32(20000),
    "minus_large": f32(-20000),
    "far": f32(-np.inf),
    "minus_far": f32(-3.4e38),
    "thousandth": f32(1e-3),
    "zero": f32(0),
    "eps": f32(1e-5),
    "mask": np.array([True, False, True, True, False, True]),
    "last": np.array([-1]),
    "minus": np.array(-1),
    "beta": f32(1.702),
}


def made(lines, **options):
    constants = {n: options.pop(n) for n in ("place", "width") if n in options}
    used = {n for line in lines for n in (line if isinstance(line, str) else line[0]).split()}
    return build(lines, **{n: v for n, v in C.items() if n in used}, **constants, **options)


CHOICES = {
    "greater": ["MatMul x w -> h", "Greater h some -> c", "Where c h x -> y"],
    "less": ["MatMul x w -> h", "Less h zero -> c", "Where c x zero -> y"],
    "two values": ["MatMul x w -> h", "GreaterOrEqual h x -> c", "Where c h x -> y"],
    "at most": ["MatMul x w -> h", "LessOrEqual h some -> c", "Not c -> d", "Where d one two -> y"],
    "and": [
        "MatMul x w -> h",
        "Greater h zero -> c",
        "Less h half -> d",
        "And c d -> e",
        "Where e h zero -> y",
    ],
    "or": [
        "MatMul x w -> h",
        "Less h zero -> c",
        "Greater h half -> d",
        "Or c d -> e",
        "Where e h zero -> y",
    ],
    "mask": ["MatMul x w -> h", "Where mask h x -> y"],
    "masked constant": ["MatMul x w -> h", "Where mask h two -> y"],
    "soft shrink": ["MatMul x w -> h", ("Shrink h -> y", {"lambd": 0.25, "bias": 0.25})],
    "hard shrink": ["MatMul x w -> h", ("Shrink h -> y", {"lambd": 0.25})],
    "sign": ["MatMul x w -> h", "Sign h -> s", "Mul s x -> y"],
    "softsign": ["MatMul x w -> h", "Softsign h -> y"],
    "reductions": [
        "MatMul x w -> h",
        "ReduceL1 h last -> a",
        "ReduceL2 h last -> b",
        "ReduceSumSquare h last -> c",
        "Sum a b c -> y",
    ],
    "running sum": ["MatMul x w -> h", ("CumSum h minus -> y", {"exclusive": 1, "reverse": 1})],
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    check_on_shares(made(CHOICES[name]))


def test_equal_whole_numbers():
    """Ids that are compared with public ones, as an exporter spells a one-hot of ids."""
    lines = [
        ("Reshape x column -> c", {}),
        "Equal c ids -> h",
        ("Cast h -> f", {"to": 1}),
        "MatMul f w -> y",
    ]
    graph = build(
        lines,
        inputs={"x": ("n", 4)},
        column=np.array([-1, 4, 1]),
        w=C["w"],
        ids=np.arange(6, dtype=np.int32),
    )
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    model = nn.from_onnx(graph)
    X = np.array([[0, 5, 2, 2], [1, 7, -1, 3]])
    want = np.where((X[..., None] == np.arange(6)), 1.0, 0.0) @ C["w"]
    np.testing.assert_allclose(
        model.predict(X), want.reshape(2, -1) if model.predict(X).ndim == 2 else want, atol=1e-6
    )


SIGMOID = ["MatMul x w -> h", "Sigmoid h -> s", "Mul h s -> a", "MatMul a v -> y"]
FUSED = {
    "silu": (SiLU, SIGMOID),
    "quick gelu": (SiLU, ["MatMul x w -> h", "Mul h beta -> b", "Sigmoid b -> s", "Mul s h -> y"]),
    "gelu": (
        GELU,
        [
            "MatMul x w -> h",
            "Div h root -> d",
            "Erf d -> e",
            "Add e one -> f",
            "Mul h f -> g",
            "Mul g half -> y",
        ],
    ),
    "gelu, half first": (
        GELU,
        [
            "MatMul x w -> h",
            "Mul h half -> g",
            "Div h root -> d",
            "Erf d -> e",
            "Add one e -> f",
            "Mul f g -> y",
        ],
    ),
    "gelu by tanh": (
        GELU,
        [
            "MatMul x w -> h",
            "Pow h three -> p",
            "Mul p c1 -> q",
            "Add h q -> r",
            "Mul r c2 -> s",
            "Tanh s -> t",
            "Add t one -> u",
            "Mul h half -> g",
            "Mul g u -> y",
        ],
    ),
    "mish": (Mish, ["MatMul x w -> h", "Softplus h -> s", "Tanh s -> t", "Mul h t -> y"]),
    "hard swish": (
        HardSwish,
        [
            "MatMul x w -> h",
            "Add h three -> a",
            "Clip a zero six -> c",
            "Mul h c -> m",
            "Div m six -> y",
        ],
    ),
    "hard sigmoid": (
        HardSwish,
        ["MatMul x w -> h", ("HardSigmoid h -> s", {"alpha": 1 / 6}), "Mul h s -> y"],
    ),
    "layer norm": (
        LayerNorm,
        [
            "MatMul x w -> h",
            ("ReduceMean h last -> m", {}),
            "Sub h m -> d",
            "Pow d two -> p",
            "ReduceMean p last -> q",
            "Add q eps -> e",
            "Sqrt e -> r",
            "Div d r -> n",
            "Mul n some -> k",
            "Add k some -> y",
        ],
    ),
    "rms norm": (
        RMSNorm,
        [
            "MatMul x w -> h",
            "Pow h two -> p",
            "ReduceMean p last -> q",
            "Add q eps -> e",
            "Sqrt e -> r",
            "Reciprocal r -> i",
            "Mul h i -> n",
            "Mul n some -> y",
        ],
    ),
    "unit length": (
        RMSNorm,
        ["MatMul x w -> h", "ReduceL2 h last -> q", "Clip q eps -> e", "Div h e -> y"],
    ),
    "softplus": (
        Softplus,
        ["MatMul x w -> h", "Softplus h -> s", "Greater h twenty -> c", "Where c h s -> y"],
    ),
}
C["twenty"] = f32(20)


@pytest.mark.parametrize("name", FUSED)
def test_functions_spelled_out_are_one_layer(name):
    kind, lines = FUSED[name]
    model = check_on_shares(made(lines), tolerance=2e-3)
    kinds = [type(layer) for layer in model.layers]
    assert kind in kinds, kinds
    assert len(kinds) <= 4, kinds


def test_what_only_looks_alike_is_not_fused():
    """A gate of another value, another constant, another mean."""
    for kind, lines in {
        SiLU: ["MatMul x w -> h", "Sigmoid x -> s", "Mul h s -> y"],
        GELU: [
            "MatMul x w -> h",
            "Div h two -> d",
            "Erf d -> e",
            "Add e three -> f",
            "Mul h f -> y",
        ],
        HardSwish: ["MatMul x w -> h", "Add h two -> a", "Clip a zero six -> c", "Mul h c -> y"],
        LayerNorm: [
            "MatMul x w -> h",
            "ReduceMean x last -> m",
            "Sub h m -> d",
            "Pow d two -> p",
            "ReduceMean p last -> q",
            "Add q eps -> e",
            "Sqrt e -> r",
            "Div d r -> y",
        ],
    }.items():
        model = check_on_shares(made(lines), tolerance=3e-3)
        assert kind not in [type(layer) for layer in model.layers]


FAR = {
    "large": ["MatMul x w -> h", "Greater h zero -> c", "Where c h large -> y"],
    "of all rows": ["MatMul x w -> h", "Where mask h large -> y"],
    "large and small": ["MatMul x w -> h", "Less h zero -> c", "Where c large one -> y"],
    "beside a mask": [
        "MatMul x w -> h", "Greater h zero -> c", "Where c h minus_large -> m", "Softmax m -> s",
        "Add s m -> y",
    ],
}  # fmt: skip
MASKS = {
    "scaled": [
        "Where c h far -> m",
        "Div m two -> d",
        "Add d some -> a",
        "Softmax a -> s",
        "Mul s h -> y",
    ],
    "added": ["Where c zero minus_far -> m", "Add h m -> a", "Softmax a -> s", "MatMul s w -> y"],
}


@pytest.mark.parametrize("name", FAR)
def test_large_constants_are_what_they_are(name):
    check(made(FAR[name]))


@pytest.mark.parametrize("name", MASKS)
def test_what_stands_for_masks_of_softmaxes(name):
    begin = ["MatMul x w -> h", "Greater h some -> g", "Or g mask -> c"]
    check_on_shares(made([*begin, *MASKS[name]]), tolerance=3e-3)


def test_masked_scores_of_a_classifier():
    begin = ["MatMul x w -> h", "Greater h some -> g", "Or g mask -> c"]
    graph = made([*begin, "Where c h far -> m", "Softmax m -> y"])
    x = normal(5, 6)
    (want,) = reference.ReferenceEvaluator(graph).run(None, {"x": x})
    np.testing.assert_allclose(nn.from_onnx(graph).predict_proba(x), want, atol=1e-6)


def test_infinite_constants_are_for_softmaxes():
    lines = ["MatMul x w -> h", "Greater h zero -> c", "Where c h far -> y"]
    with pytest.raises(
        ConversionError, match="needs finite constants where anything but a softmax"
    ):
        nn.from_onnx(made(lines))


def test_a_norm_has_the_least_value_that_the_graph_says():
    for least in ("one", "thousandth"):
        lines = [
            "MatMul x w -> h", "ReduceL2 h last -> n", f"Clip n {least} -> d", "Div h d -> y",
        ]  # fmt: skip
        model = made(lines)
        (weights,) = (a for a in model.graph.initializer if a.name == "w")
        small = onnx.numpy_helper.to_array(weights) * np.float32(1e-3)
        weights.CopyFrom(onnx.numpy_helper.from_array(small, "w"))
        check(model)


CONDITION = ["Shape x -> s", "Gather s place -> n", "Equal n width -> c", "Relu x -> y"]


def test_a_public_condition_chooses_its_branch():
    graph = made(CONDITION, place=np.array(1), width=np.array(6))
    branches = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = helper.make_node(op, ["x"], [f"in_{name}"])
        out = helper.make_tensor_value_info(f"in_{name}", onnx.TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([inner], name, [], [out])
    graph.graph.node[-1].CopyFrom(helper.make_node("If", ["c"], ["y"], **branches))
    X = np.array([[1.0, -2.0, 3.0, -4.0, 5.0, -6.0]])
    np.testing.assert_array_equal(nn.from_onnx(graph).predict(X), np.maximum(X, 0))
    graph.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(np.array(5), "width"))
    np.testing.assert_array_equal(nn.from_onnx(graph).predict(X), -X)


def test_a_branch_that_cannot_be_converted_is_named():
    graph = made(CONDITION, place=np.array(1), width=np.array(6))
    out = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    one = helper.make_graph([helper.make_node("Det", ["x"], ["z"])], "one", [], [out])
    graph.graph.node[-1].CopyFrom(
        helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=one)
    )
    with pytest.raises(ConversionError, match="Det"):
        nn.from_onnx(graph)


def test_softmax_of_several_places_is_no_classifier():
    """Probabilities of each place sum to 1, not those of all places together."""
    lines = ["MatMul x w -> h", ("Softmax h -> y", {"axis": -1})]
    model, _ = check(build(lines, w=C["w"], inputs={"x": ("n", 4, 6)}))
    assert not hasattr(model, "classes_")


def test_a_graph_for_one_row_may_have_the_rows_second():
    lines = [("Transpose x -> t", {"perm": [1, 0, 2]}), "MatMul t w -> y"]
    graph = build(lines, w=C["w"], inputs={"x": (1, 4, 6)})
    X = np.random.default_rng(0).normal(size=(3, 4, 6))
    found = nn.from_onnx(graph).predict(X.reshape(3, -1))
    np.testing.assert_allclose(np.reshape(found, (3, 4, 6)), X @ C["w"], atol=1e-6)
    # For several rows, the graph's output is in another order than a model's.
    with pytest.raises(ConversionError, match="several rows together"):
        nn.from_onnx(build(lines, w=C["w"], inputs={"x": ("n", 4, 6)}))


def test_strides_of_each_row():
    """Indices that an exporter computes of a flattened tensor: the same of each row's own elements."""
    lines = [
        "Reshape x flat -> f",
        "Shape x -> s",
        "Gather s zero64 -> n",
        "Range zero64 n one64 -> r",
        "Mul r size -> k",
        "Unsqueeze k behind -> u",
        "Add u own -> i",
        "Gather f i -> y",
    ]
    constants = {
        "flat": np.array([-1]),
        "zero64": np.array(0),
        "one64": np.array(1),
        "size": np.array(6),
        "behind": np.array([1]),
        "own": np.array([5, 0, 2]),
    }
    check_on_shares(build([*lines[:-1], "Gather f i -> g", "Relu g -> y"], **constants))
    constants["own"] = np.array([5, 0, 7])
    with pytest.raises(ConversionError):
        nn.from_onnx(build(lines, **constants))


LIMITS = {
    "Max -inf": (-np.inf, ["MatMul x w -> h", "Max limit h -> z", "Add z half -> y"]),
    "Max float32's least": (np.finfo(f32).min, ["MatMul x w -> h", "Max h limit -> z", "Add z half -> y"]),
    "Min inf": (np.inf, ["MatMul x w -> h", "Min limit h -> z", "Add z half -> y"]),
    "Max 0": (0.0, ["MatMul x w -> h", "Max limit h -> y"]),
    "Max": (0.25, ["MatMul x w -> h", "Max limit h -> y"]),
    "Min": ([[0.25]], ["MatMul x w -> h", "Min h limit -> y"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_one_limit_for_all_is_a_clip_or_none(name):
    limit, lines = LIMITS[name]
    model = build(lines, w=C["w"], half=C["half"], limit=np.asarray(limit, f32))
    converted = check_on_shares(model)
    assert not any(isinstance(layer, (Maximum, Minimum)) for layer in converted.layers)


@pytest.mark.parametrize("limit", [np.inf, np.nan, [0, -np.inf, 0, 0, 0, 0]])
def test_limits_that_are_no_numbers_are_refused(limit):
    lines = ["MatMul x w -> h", "Max limit h -> y"]
    with pytest.raises(ConversionError, match=r"Max \(node '.*', output y\)"):
        nn.from_onnx(build(lines, w=C["w"], limit=np.asarray(limit, f32)))
