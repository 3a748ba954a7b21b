"""ONNX operators along any axes: Einsum, products with several matrices, ArgMax, older softmax."""

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import (  # noqa: E402
    build,
    check,
    check_on_shares,
    normal,
    reference,
)

INPUT = {"x": ("n", 3, 4, 5)}
# An equation of x and a constant, of the given shape; and of x and a value made of x.
PUBLIC = {
    "bhtd,hde->bhte": (3, 5, 2), "bhtd,dhe->bte": (5, 3, 2), "bhtd,td->bh": (4, 5),
    "bhtd,t->bhtd": (4,), "bhtd,tde->bhe": (4, 5, 2), "bhtd,e->bhtde": (2,), "...d,de->...e": (5, 2),
    "b...,...->b": (3, 4, 5), "bhtd,hde": (3, 5, 2), "bhtd,htde->bhe": (3, 4, 5, 2),
    "bhtd,xhd->bthd": (2, 3, 5),
}  # fmt: skip
SECRET = [
    "bhtd,bhsd->bhts", "bhtd,bhsd->bst", "bhtd,bhtd->bth", "bhtd,bhtd->b", "bhtd,bjsd->bhjts",
    "...td,...sd->...ts", "bhtd,bhxy->bht",
]  # fmt: skip


@pytest.mark.parametrize("equation", PUBLIC)
def test_einsum_with_a_constant(equation):
    lines = [("Einsum x c -> e", {"equation": equation}), "Relu e -> y"]
    check(build(lines, inputs=INPUT, c=normal(*PUBLIC[equation])))


def test_einsum_with_a_constant_first():
    lines = [("Einsum c x -> e", {"equation": "hde,bhtd->bhte"}), "Relu e -> y"]
    check_on_shares(build(lines, inputs=INPUT, c=normal(3, 5, 2)))


@pytest.mark.parametrize("equation", SECRET)
def test_einsum_of_two_values(equation):
    lines = ["Relu x -> z", ("Einsum x z -> e", {"equation": equation}), "Relu e -> y"]
    check(build(lines, inputs=INPUT))


@pytest.mark.parametrize("equation", ["bhtd->bdt", "bhtd->bhdt", "b...->...b"])
def test_einsum_of_one_value(equation):
    lines = ["Relu x -> z", ("Einsum z -> y", {"equation": equation})]
    model = build(lines, inputs=INPUT)
    if equation.endswith("b"):
        with pytest.raises(ConversionError, match="rows along its first axis"):
            nn.from_onnx(model)
    else:
        check(model)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("bhtb->bh", "diagonals along the rows"), ("bhtd->bx", "among those of operands, got bx"),
        ("bht->b", "operands of the axes that it names"), ("bhtd,b->b", "needs 2 operands, got 1"),
        ("bhtd->htd", "must keep axis 0"),
    ],
)  # fmt: skip
def test_einsum_that_is_refused(equation, message):
    with pytest.raises(ConversionError, match=message):
        nn.from_onnx(build([("Einsum x -> y", {"equation": equation})], inputs=INPUT))


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("MatMul x c -> h", (3, 5, 2)), ("MatMul x c -> h", (1, 3, 5, 2)),
        ("MatMul x c -> h", (1, 1, 5, 2)), ("MatMul c x -> h", (3, 2, 4)),
    ],
)  # fmt: skip
def test_a_matrix_for_each_place_of_an_axis(line, shape):
    check_on_shares(build([line, "Relu h -> y"], inputs=INPUT, c=normal(*shape)))


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
def test_argmax_of_several_places(axis, keep, last):
    options = {"axis": axis, "keepdims": keep, "select_last_index": last}
    model = build([("Relu x -> r"), ("ArgMax r -> y", options)], inputs=INPUT)
    check(model)  # of equal zeros, too


def test_indices_on_shares_may_be_looked_up():
    lines = [
        ("ArgMax x -> a", {"axis": 3, "keepdims": 0}), ("Cast a -> c", {"to": 7}), "Gather t c -> y",
    ]  # fmt: skip
    check_on_shares(build(lines, inputs=INPUT, t=normal(5, 2)))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_was_along_all_axes_from_one_on(op, axis):
    model = build([(f"{op} x -> s", {"axis": axis}), "Neg s -> y"], inputs=INPUT, opset=11)
    x = normal(2, 3, 4, 5)
    flat = x.reshape(2, *((-1,) if axis == 1 else (3, -1) if axis == 2 else (3, 4, 5))).astype(
        float
    )
    powers = np.exp(flat)
    want = powers / powers.sum(axis=-1, keepdims=True)
    want = np.log(want) if op == "LogSoftmax" else want
    found = nn.from_onnx(model).predict(x.reshape(2, -1))
    np.testing.assert_allclose(found.reshape(2, -1), -want.reshape(2, -1), atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.25, -0.25), (0.25, 0.25), (0.0, -0.5)])
def test_a_lower_limit_above_the_upper_one(low, high):
    ends = {"low": np.float32(low), "high": np.float32(high)}
    model = build(["Clip x low high -> c", "Add c x -> y"], inputs=INPUT, **ends)
    x = normal(2, 3, 4, 5)
    found = nn.from_onnx(model).predict(x.reshape(2, -1)).reshape(x.shape)
    np.testing.assert_allclose(found, x + np.float32(high), atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_around_the_same_middle(mode):
    how = {"mode": mode, "coordinate_transformation_mode": "half_pixel_symmetric"}
    lines = [("Resize x - scales -> h", how), "Relu h -> y"]
    scales = np.array([1, 1, 0.6, 1.7], np.float32)
    check(build(lines, inputs=INPUT, scales=scales))


@pytest.mark.parametrize(("policy", "size"), [("not_larger", (8, 10)), ("not_smaller", (12, 15))])
def test_resize_that_keeps_the_ratio(policy, size):
    how = {"keep_aspect_ratio_policy": policy, "axes": [2, 3]}
    model = build([("Resize x - - sizes -> y", how)], inputs=INPUT, sizes=np.array([8, 15]))
    x = normal(2, 3, 4, 5)
    (want,) = reference.ReferenceEvaluator(model).run(None, {"x": x})
    assert want.shape[2:] == size
    np.testing.assert_allclose(
        nn.from_onnx(model).predict(x.reshape(2, -1)).reshape(want.shape), want
    )
    lines = [("Resize x - - sizes -> y", how)]
    with pytest.raises(ConversionError, match="sizes that keep the ratio"):
        nn.from_onnx(build(lines, inputs=INPUT, sizes=np.array([7, 9])))


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_the_first_of_all(axis, largest):
    """TopK with k=1: the value, and the index of the first one of it."""
    top = ("TopK h k -> value place", {"axis": axis, "largest": largest})
    model = build(
        ["MatMul x w -> h", top, ("Cast place -> c", {"to": 1}), "Add value c -> y"],
        "value y", INPUT, w=normal(5, 4), k=np.array([1]),
    )  # fmt: skip
    check_on_shares(model)


@pytest.mark.parametrize("op", ["ArgMin", "TopK"])
def test_the_first_of_a_row_is_a_label(op):
    row = {"x": ("n", 6)}
    line = ("ArgMin h -> y", {"axis": 1}) if op == "ArgMin" else ("TopK h k -> v y", {"largest": 0})
    constants = {"w": normal(6, 4)} | ({"k": np.array([1])} if op == "TopK" else {})
    model = build(["MatMul x w -> h", line], inputs=row, **constants)
    x = normal(9, 6)
    made = nn.from_onnx(model)
    want = (x @ constants["w"]).argmin(axis=1)
    np.testing.assert_array_equal(made.predict(x), want)
    made.input_range_ = (-2.0, 2.0)
    with mpc.Session(frac_bits=20) as s:
        secret = made.share(s, owner="alice")
        rows = secret.share_rows(x.astype(float), owner="bob")
        np.testing.assert_array_equal(secret.predict(rows), want)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("TopK x k -> y i", {"axis": 1}), "needs k=1, got k=2"),
        (("TopK x one -> y i", {"axis": 0}), "must keep axis 0, which counts the rows"),
        (("ArgMin x -> y", {"axis": 0}), "an axis other than that of the rows"),
        (("Softmax x -> y", {"axis": 0}), "an axis other than that of the rows"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_not_along_a_row_or_sorts_is_refused(line, message):
    model = build([line], inputs=INPUT, k=np.array([2]), one=np.array([1]))
    with pytest.raises(ConversionError, match=rf"\(node 'the {line[0].split()[0]}'.*{message}"):
        nn.from_onnx(model)
