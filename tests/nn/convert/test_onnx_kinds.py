"""Networks of kinds that people bring: masks and ids as inputs, U-Nets, recurrent ones, several owners."""

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from tests.helpers.weights import normal

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import build, reference, values_of  # noqa: E402

random = np.random.default_rng(1)
FLOAT, INT, BOOL = 1, 7, 9
WORDS, WIDTH, HEADS, LENGTH = 11, 8, 2, 5

f32 = np.float32


def whole(*values):
    return np.array(values, np.int64)


def given(model, kinds, last=(), rows=4):
    """Set the inputs' element types, and return rows: ids below WORDS, masks of which the first is 1.

    `last` says what the last row of an input is.
    """
    found = {}
    for value in model.graph.input:
        value.type.tensor_type.elem_type = kind = kinds.get(value.name, FLOAT)
        shape = (rows, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        if kind == FLOAT:
            found[value.name] = random.uniform(-1, 1, shape).astype(np.float32)
        elif value.name == "ids":
            found[value.name] = random.integers(0, WORDS, shape)
        else:
            found[value.name] = (random.uniform(size=shape) < 0.6).astype(
                np.int64 if kind == INT else bool
            )
            found[value.name][:, 0] = 1
        if value.name in last:
            found[value.name][-1] = last[value.name]
    return found


def agrees(model, kinds=None, last=()):
    """Compare with the evaluator, and on shares with the clear."""
    X = given(model, kinds or {}, last)
    names = [output.name for output in model.graph.output]
    with np.errstate(invalid="ignore"):  # a softmax with nothing to choose from
        want = reference.ReferenceEvaluator(model).run(None, X)
    made = nn.from_onnx(model)
    flat = np.concatenate([v.reshape(len(v), -1).astype(np.float64) for v in X.values()], axis=1)
    plain = values_of(made.predict(flat), names)
    for name, wanted in zip(names, want, strict=True):
        np.testing.assert_allclose(plain[name].reshape(wanted.shape), wanted, atol=2e-5)
    low, high = float(flat.min()), float(flat.max())
    with mpc.Session(frac_bits=18, int_bits=18) as s:
        bounds = made.calibrate(flat, low=low, high=high)
        secret = made.share(s, owner="alice", low=low, high=high, bounds=bounds)
        found = values_of(secret.predict(secret.share_rows(flat, owner="bob")), names)
    for name in names:
        np.testing.assert_allclose(found[name], plain[name], atol=1e-3)


IMAGES = {
    # name: lines, constants
    "inception": (
        [
            ("Conv x wide -> a", {"pads": [0, 3, 0, 3]}), "Relu a -> a1",
            ("Conv a1 tall -> b", {"pads": [3, 0, 3, 0]}), "Relu b -> b1",
            ("AveragePool x -> p", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), "Conv p one -> q",
            ("MaxPool x -> m", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("Concat b1 q m -> c", {"axis": 1}), "Relu c -> d",
            ("MaxPool d -> f", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
            "GlobalAveragePool f -> h", "Flatten h -> y",
        ],
        {"wide": normal(4, 4, 1, 7), "tall": normal(3, 4, 7, 1), "one": normal(2, 4, 1, 1)},
    ),
    "squeeze and excite": (
        [
            ("Conv x w -> h", {"pads": [1, 1, 1, 1]}), "HardSwish h -> k", "ReduceMean k last -> s",
            "Conv s less -> s1", "Relu s1 -> s2", "Conv s2 more -> s3", "HardSigmoid s3 -> s4",
            "Mul k s4 -> m", ("Conv m each -> n", {"group": 6, "pads": [1, 1, 1, 1]}),
            "Clip n zero six -> n1", "Add n1 k -> o", "GlobalMaxPool o -> p", "Reshape p flat -> y",
        ],
        {
            "w": normal(6, 4, 3, 3), "less": normal(2, 6, 1, 1), "more": normal(6, 2, 1, 1),
            "each": normal(6, 1, 3, 3), "last": whole(2, 3), "zero": f32(0), "six": f32(6),
            "flat": whole(-1, 6),
        },
    ),
    "U-Net": (
        [
            ("Conv x w -> h", {"pads": [1, 1, 1, 1]}), "LeakyRelu h -> h1",
            ("MaxPool h1 -> d", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            "Conv d down -> d1", "InstanceNormalization d1 gain shift -> d2", "Relu d2 -> d3",
            ("ConvTranspose d3 up -> u", {"strides": [2, 2], "output_padding": [1, 1]}),
            "Slice u at0 at8 last -> u1", ("Concat u1 h1 -> c", {"axis": 1}), "Conv c out -> e",
            ("Resize e - scales -> r", {"mode": "cubic", "cubic_coeff_a": -0.5}), "Sigmoid r -> y",
        ],
        {
            "w": normal(4, 4, 3, 3), "down": normal(3, 4, 2, 2), "gain": f32(np.ones(3)),
            "shift": normal(3), "up": normal(3, 4, 3, 3), "at0": whole(0, 0), "at8": whole(8, 8),
            "last": whole(2, 3), "out": normal(1, 8, 1, 1), "scales": f32([1, 1, 1.5, 0.75]),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_networks_of_images(name):
    lines, constants = IMAGES[name]
    agrees(build(lines, inputs={"x": ("n", 4, 8, 8)}, opset=18, **constants))


def test_dilated_convolutions_of_a_signal():
    lines = [
        ("Conv x a -> h", {"dilations": [3], "pads": [6, 0], "group": 2}), "Relu h -> r",
        ("Conv r b -> k", {"dilations": [2], "pads": [2, 2]}), "Add k r -> s",
        ("MaxPool s -> m", {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}),
        ("AveragePool m -> v", {"kernel_shape": [2], "pads": [1, 0], "count_include_pad": 1}),
        ("ReduceMean v last -> y", {"keepdims": 0}),
    ]  # fmt: skip
    constants = {"a": normal(6, 2, 3), "b": normal(6, 6, 3), "last": whole(2)}
    agrees(build(lines, inputs={"x": ("n", 4, 12)}, opset=18, **constants))


def test_a_recurrent_network_in_both_directions():
    options = {"hidden_size": 3, "direction": "bidirectional", "linear_before_reset": 1}
    lines = [
        ("Transpose x -> t", {"perm": [1, 0, 2]}),
        ("GRU t w r b -> o last", options),
        ("Transpose o -> p", {"perm": [2, 0, 1, 3]}), "Reshape p flat -> q",
        ("ReduceMax q one -> y", {"keepdims": 0}),
        ("Transpose last -> l", {"perm": [1, 0, 2]}), "Reshape l row -> z",
    ]  # fmt: skip
    constants = {
        "w": normal(2, 9, 5), "r": normal(2, 9, 3), "b": normal(2, 18), "flat": whole(0, 0, -1),
        "one": whole(1), "row": whole(-1, 6),
    }  # fmt: skip
    agrees(build(lines, outputs="y z", inputs={"x": ("n", 4, 5)}, opset=18, **constants))


# How exporters say which tokens count, from a mask of integers or from the ids; it ends in `scores` masked.
MASKS = {
    "sum of floats": [
        "Unsqueeze mask at12 -> m1", ("Cast m1 -> m2", {"to": FLOAT}), "Sub one m2 -> m3",
        "Mul m3 lowest -> bias", "Add scores bias -> masked",
    ],
    "where of a truth value": [
        "Unsqueeze mask at12 -> m1", ("Cast m1 -> m2", {"to": FLOAT}), "Sub one m2 -> m3",
        ("Cast m3 -> m4", {"to": BOOL}), "Where m4 lowest m3 -> bias", "Add scores bias -> masked",
    ],
    "truth values": [
        "Unsqueeze mask at12 -> m1", ("Cast m1 -> m2", {"to": BOOL}), "Where m2 scores far -> masked",
    ],
    "truth values, with nothing to choose from": [
        "Unsqueeze mask at12 -> m1", ("Cast m1 -> m2", {"to": BOOL}), "Where m2 scores far -> masked",
    ],
    "of ids": [
        "Unsqueeze ids at12 -> m1", "Equal m1 pad -> m2", "Where m2 far scores -> masked",
    ],
    "of earlier tokens": [
        "Unsqueeze mask at1 -> m0", "Unsqueeze mask at2 -> m1", "Mul m0 m1 -> m2",
        ("Trilu m2 -> m3", {"upper": 0}), ("Cast m3 -> m4", {"to": BOOL}), "Unsqueeze m4 at1 -> m5",
        "Where m5 scores lowest -> masked",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_attention_with_a_mask_of_an_input(name):
    nothing = name.endswith("choose from")
    guard = ["IsNaN p0 -> nan", "Where nan zero p0 -> p"] if nothing else ["Identity p0 -> p"]
    split = [
        line for n in "qkv" for line in (
            f"MatMul h w{n} -> {n}0", f"Reshape {n}0 heads -> {n}1",
            (f"Transpose {n}1 -> {n}2", {"perm": [0, 2, 1, 3] if n != "k" else [0, 2, 3, 1]}),
        )
    ]  # fmt: skip
    lines = [
        "Gather words ids -> e", "Add e places -> e1", "LayerNormalization e1 gain -> h", *split,
        "MatMul q2 k2 -> s0", "Mul s0 half -> scores", *MASKS[name], "Softmax masked -> p0", *guard,
        "MatMul p v2 -> o", ("Transpose o -> o1", {"perm": [0, 2, 1, 3]}), "Reshape o1 rows -> o2",
        "Add o2 h -> o3", ("Gather o3 first -> y", {"axis": 1}),
    ]  # fmt: skip
    constants = {
        "words": 2 * normal(WORDS, WIDTH), "places": normal(LENGTH, WIDTH), "gain": f32(np.ones(WIDTH)),
        **{f"w{n}": normal(WIDTH, WIDTH) for n in "qkv"}, "heads": whole(0, 0, HEADS, WIDTH // HEADS),
        "rows": whole(0, 0, WIDTH), "half": f32(0.5), "first": np.array(0), "at1": whole(1),
        "at2": whole(2), "at12": whole(1, 2), "one": f32(1), "far": f32(-np.inf),
        "lowest": np.finfo(np.float32).min, "pad": np.array(0), "zero": f32(0),
    }  # fmt: skip
    inputs = {"ids": ("n", LENGTH)} | ({} if name == "of ids" else {"mask": ("n", LENGTH)})
    model = build(lines, inputs=inputs, opset=18, **constants)
    agrees(model, {"ids": INT, "mask": INT}, {"mask": 0} if nothing else {})


def test_places_that_are_counted_from_ids():
    lines = [
        "Equal ids pad -> e", "Not e -> f", ("Cast f -> m", {"to": 6}), "CumSum m axis -> c",
        "Mul c m -> p", ("Cast p -> p1", {"to": INT}), "Add p1 pad -> p2", "Gather words ids -> a",
        "Gather places p2 -> b", "Add a b -> h", ("ReduceMean h one -> y", {"keepdims": 0}),
    ]  # fmt: skip
    constants = {
        "pad": np.array(1), "axis": np.array(1), "one": whole(1), "words": normal(WORDS, 4),
        "places": normal(LENGTH + 2, 4),
    }  # fmt: skip
    agrees(build(lines, inputs={"ids": ("n", LENGTH)}, opset=18, **constants), {"ids": INT})


def test_truth_values_as_an_input():
    lines = ["MatMul x w -> h", "Where m h low -> k", "Not m -> n"]
    lines += [("Cast n -> f", {"to": 1}), "Add k f -> y"]
    model = build(
        lines, inputs={"x": ("n", 4), "m": ("n", 4)}, opset=18, w=normal(4, 4), low=f32(-2)
    )
    agrees(model, {"m": BOOL})


FUNCTIONS = [
    ("Elu h -> y", {"alpha": 40.0}), ("Elu h -> y", {"alpha": -0.5}), ("Celu h -> y", {"alpha": 0.05}),
    ("Selu h -> y", {"alpha": 1.3, "gamma": 0.75}), ("Selu h -> y", {"gamma": 1.0507009873554805}),
    ("Sin h -> y", {}), ("Cos h -> y", {}), ("Hardmax h -> y", {"axis": 1}),
    ("LpNormalization h -> y", {"axis": 1, "p": 2}), ("LpNormalization x1 -> y", {"axis": -1, "p": 1}),
    ("ReduceProd h one -> y", {"keepdims": 1}), ("ReduceLogSumExp h one -> y", {"keepdims": 0}),
    ("ReduceLogSumExp h two -> y", {"keepdims": 0}), ("ReduceLogSum x1 one -> y", {"keepdims": 0}),
    ("Trilu h -> y", {}), ("Trilu h shift -> y", {"upper": 0}), ("Mean h c h -> y", {}),
    ("Einsum h -> y", {"equation": "bii->bi"}), ("Einsum h -> y", {"equation": "bii->b"}),
    ("Einsum h c -> y", {"equation": "bij,jj->bi"}), ("Einsum h h -> y", {"equation": "bii,bij->bj"}),
    ("Einsum h c c -> y", {"equation": "bij,jk,kl->bil"}),
    ("Einsum h c h -> y", {"equation": "bij,jk,bkl->bil"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "attributes"), FUNCTIONS, ids=str)
def test_functions(line, attributes):
    lines = ["MatMul x c -> h", "Abs h -> a", "Add a half -> x1", (line, attributes)]
    constants = {
        "c": 2 * normal(4, 4), "one": whole(1), "two": whole(2), "shift": np.array(1), "half": f32(0.5)
    }  # fmt: skip
    agrees(build(lines, inputs={"x": ("n", 4, 4)}, opset=18, **constants))


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_ones_where_ids_are(axis):
    lines = [("OneHot ids depth ends -> o", {"axis": axis}), "Mul o c -> y"]
    constants = {"depth": np.array(WORDS), "ends": f32([-1, 2]), "c": f32(0.5)}
    model = build(lines, inputs={"ids": ("n", 3)}, opset=18, **constants)
    if axis == 0:
        given(model, {"ids": INT})
        with pytest.raises(ConversionError, match="rows along its first axis"):
            nn.from_onnx(model)
    else:
        agrees(model, {"ids": INT})


# From a value of floats to integers, what is done with them, and which operator is refused.
INTEGERS = [
    (("ArgMax h -> a", {"axis": 2, "keepdims": 0}), "Div a two -> d", "Div"),
    (("Greater h c -> a", {}), "Pow a two -> d", "Pow"),
    (("Cast h -> a", {"to": INT}), "Add a a -> d", "Cast"),
    (("ArgMax h -> n", {"axis": 2, "keepdims": 0}), "Sub a two -> d", "Sub"),
]


@pytest.mark.parametrize(
    ("made", "line", "op"), INTEGERS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_integers_are_no_reals(made, line, op):
    narrow = [("Cast n -> a", {"to": 12})] if op == "Sub" else []
    lines = ["MatMul x c -> h", made, *narrow, line, ("Cast d -> y", {"to": FLOAT})]
    model = build(lines, inputs={"x": ("n", 4, 4)}, opset=18, c=normal(4, 4), two=np.array(2))
    with pytest.raises(ConversionError, match=rf"{op} \(node .*(integers|must cast to a float)"):
        nn.from_onnx(model)


def test_parts_of_axes_that_consist_of_others():
    """An axis of 8 that was one of 4 times 2 is joined with one that never was."""
    lines = [
        "Reshape x square -> v", ("Gather v turned -> w", {"axis": 1}),
        ("Transpose w -> t", {"perm": [0, 2, 1]}), ("Concat t v -> y", {"axis": 2}),
        "Relu y -> z",
    ]  # fmt: skip
    constants = {"square": whole(-1, 8, 8), "turned": np.arange(8)[::-1].copy()}
    agrees(build(lines, outputs="z", inputs={"x": ("n", 4, 4, 4)}, opset=18, **constants))


def test_text_and_images_of_two_owners():
    """Rows of each input have its shape, or are flat."""
    lines = [
        "Gather words ids -> e", "Unsqueeze mask two -> m1", ("Cast m1 -> m2", {"to": FLOAT}),
        "Mul e m2 -> em", ("ReduceSum em one -> s", {"keepdims": 0}),
        ("ReduceSum m2 one -> c", {"keepdims": 0}), "Max c least -> c1", "Div s c1 -> t",
        ("Conv img k -> q", {"pads": [1, 1, 1, 1]}), "Relu q -> q1", "GlobalAveragePool q1 -> q2",
        "Flatten q2 -> q3", ("Concat t q3 -> f", {"axis": 1}), "Gemm f u -> y",
    ]  # fmt: skip
    constants = {
        "words": normal(WORDS, 4), "two": whole(2), "one": whole(1), "least": f32(1),
        "k": normal(3, 2, 3, 3), "u": normal(7, 2),
    }  # fmt: skip
    inputs = {"ids": ("n", 5), "mask": ("n", 5), "img": ("n", 2, 4, 4)}
    model = build(lines, inputs=inputs, opset=18, **constants)
    X = given(model, {"ids": INT, "mask": INT})
    (want,) = reference.ReferenceEvaluator(model).run(None, X)
    made = nn.from_onnx(model, X)
    np.testing.assert_allclose(made.predict(X), want, atol=1e-5)
    with mpc.Session(("alice", "bob", "carol"), frac_bits=18, int_bits=16) as s:
        secret = made.share(s, owner="alice")
        text = secret.share_rows({name: X[name] for name in ("ids", "mask")}, owner="bob")
        images = secret.share_rows({"img": X["img"]}, owner="carol")
        np.testing.assert_allclose(secret.predict({**text, **images}), want, atol=1e-3)
        with pytest.raises(mpc.ShapeError, match=r"X\['img'\] must have the shape \(rows, 32\)"):
            secret.share_rows({"img": X["img"][:, :, :2]}, owner="carol")


def test_all_inputs_that_cannot_be_taken_are_named():
    model = build(["Mul x s -> y"], inputs={"x": ("n", 4), "s": (), "t": ("n",)}, opset=18)
    with pytest.raises(ConversionError, match=r"input 's' must .*; input 't' must"):
        nn.from_onnx(model)
