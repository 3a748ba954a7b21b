"""Smooth activations and elementary functions: in the clear, on shares, backward, saved and imported."""

import numpy as np
import pytest
from scipy.special import erf, expit

import mpc
import nn
from nn.layers import (
    CELU,
    ELU,
    GELU,
    SELU,
    Cos,
    Dense,
    Erf,
    Exp,
    Log,
    Mish,
    Pow,
    Reciprocal,
    SiLU,
    Sin,
    Softplus,
    Sqrt,
)  # fmt: skip
from ring.errors import ArgumentError, DtypeError

X = np.linspace(-9, 9, 145).reshape(5, 29)
UNIT = 2.0**-16


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


SMOOTH = [
    (SiLU(), lambda x: x * expit(x)),
    (GELU(), lambda x: x / 2 * (1 + erf(x / np.sqrt(2)))),
    (GELU("tanh"), gelu_tanh),
    (Mish(), lambda x: x * np.tanh(np.logaddexp(0, x))),
    (Softplus(), lambda x: np.logaddexp(0, x)),
    (Erf(), erf),
    (ELU(), elu),
    (ELU(2.5), lambda x: elu(x, 2.5)),
    (CELU(0.5), lambda x: elu(x / 0.5) * 0.5),
    (SELU(), lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772)),
]
# With the numbers that they take.
FUNCTIONS = [
    (Exp(), np.exp, X),
    (Log(), np.log, np.abs(X) + 2.0**-8),
    (Sqrt(), np.sqrt, np.abs(X)),
    (Reciprocal(), lambda x: 1 / x, X + 2.0**-6),
    (Sin(), np.sin, X),
    (Cos(), np.cos, X),
    (Pow(3), lambda x: x**3, X),
    (Pow(-0.5), lambda x: x**-0.5, np.abs(X) + 2.0**-6),
    (Pow(1.5), lambda x: x**1.5, np.abs(X)),
]
ALL = [(layer, exact, X) for layer, exact in SMOOTH] + FUNCTIONS


def ids(value):
    return repr(value) if isinstance(value, nn.layers.Layer) else ""


@pytest.mark.parametrize(("layer", "exact", "x"), ALL, ids=ids)
def test_same_in_the_clear_and_on_shares(layer, exact, x):
    np.testing.assert_allclose(layer(x), exact(x), rtol=1e-12, atol=1e-14)
    assert layer(x.astype(np.float32)).dtype == np.float32
    x = np.round(x / UNIT) * UNIT
    with mpc.Session(("alice", "bob", "carol")) as s:
        found = layer(s.share(x, owner="bob")).reveal()
    bound = layer.fixed_point_error(np.abs(x), np.zeros(x.shape), 16)
    if np.isnan(bound).any():  # not known to the audit: as mpc.protocols.normalised says
        bound = np.abs(exact(x)) * 2.0**-18 + 4 * UNIT
    assert (np.abs(found - exact(x)) <= bound).all()
    np.testing.assert_allclose(found, layer.as_on_shares(x), rtol=2.0**-18, atol=7 * UNIT)
    assert layer.output_shape((3, 2)) == (3, 2)


@pytest.mark.parametrize(("layer", "exact", "x"), ALL, ids=ids)
def test_gradient_is_that_of_finite_differences(layer, exact, x):
    x = x[np.abs(x) > 1e-3]
    layer.forward(x)
    step = 1e-6 * np.minimum(1, np.abs(x))
    slope = (exact(x + step) - exact(x - step)) / (2 * step)
    np.testing.assert_allclose(
        layer.backward(np.full(x.shape, 2.0)), 2 * slope, rtol=1e-4, atol=1e-6
    )
    assert layer.backward(np.ones(x.shape), input_gradient=False) is None
    with mpc.Session() as s, pytest.raises(DtypeError, match="is not trained on shares"):
        layer.forward(s.share(x, owner="alice"))


@pytest.mark.parametrize(("layer", "exact", "x"), ALL, ids=ids)
def test_bounds_hold(layer, exact, x):
    random = np.random.default_rng(0)
    lows, highs = np.sort(random.choice(x.ravel(), (2, 40)), axis=0)
    least, most = layer.bounds(lows, highs)
    inside = np.linspace(lows, highs, 400)
    if isinstance(layer, Reciprocal):
        across = (lows < 0) & (highs > 0)
        assert np.isinf(most[across]).all() and np.isinf(least[across]).all()
    values = exact(np.where(inside == 0, 1e-9, inside))
    assert (values >= least - 1e-6).all() and (values <= most + 1e-6).all()
    # And they are reached, nearly.
    finite = np.isfinite(least) & np.isfinite(most)
    room = 1e-4 + 1e-2 * np.abs(values).max(axis=0)
    assert (values.min(axis=0) <= least + room)[finite].all()
    assert (values.max(axis=0) >= most - room)[finite].all()


@pytest.mark.parametrize("layer", [layer for layer, _ in SMOOTH], ids=ids)
def test_no_steeper_and_no_larger_than_stated(layer):
    y = layer(np.linspace(-30, 30, 600_001))
    assert np.abs(np.gradient(y, 1e-4)).max() <= layer._steepest + 1e-9
    assert layer.may_grow or (np.abs(y) <= np.abs(np.linspace(-30, 30, 600_001)) + 1e-12).all()


@pytest.mark.parametrize("layer", [SiLU(), GELU(), GELU("tanh"), Mish()], ids=ids)
def test_the_least_value_is_the_lower_bound(layer):
    turn = layer.lowest_at
    near = layer(turn + np.linspace(-1e-3, 1e-3, 2001))
    assert abs(layer.bounds(-5.0, 5.0)[0] - near.min()) <= 1e-15


@pytest.mark.parametrize("layer", [Log(), Reciprocal(), Pow(-0.5), Pow(-2), Pow(1.5)], ids=ids)
def test_reach_bounds_results_of_numbers_near_zero(layer):
    with mpc.Session() as s:
        reach = layer.reach(s.share([3.0], owner="alice"))
        most = reach if isinstance(reach, float) else reach.reveal().max()
        assert np.abs(layer(np.array([2.0**-7, 0.5, 3.0]))).max() <= most + 4 * UNIT


def test_what_the_constructors_refuse():
    for make, kind in (
        (lambda: GELU("erf"), ArgumentError),
        (lambda: ELU(0.01), ArgumentError),
        (lambda: CELU(16), ArgumentError),
        (lambda: Pow(0), ArgumentError),
        (lambda: Pow("x"), DtypeError),
    ):
        with pytest.raises(kind, match="must be"):
            make()
    assert (
        repr(ELU(2)) == "ELU(2)"
        and repr(GELU("tanh")) == "GELU('tanh')"
        and repr(Pow(2)) == "Pow(2)"
    )


def network(layer):
    return nn.Sequential(
        [Dense.untrained(64, 12), layer, Dense.untrained(12, 10)], n_features=64, random_state=0
    )


@pytest.mark.parametrize("layer", [SiLU(), GELU("tanh"), ELU(0.5), Softplus()], ids=ids)
def test_a_network_is_trained_saved_and_shared(layer, tmp_path):
    rows, test, labels, wanted = nn.load_digits_8x8()
    plain = network(layer).fit(rows[:600], labels[:600], epochs=5, batch_size=16)
    assert plain.score(test, wanted) > 0.8
    plain.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert repr(again.layers) == repr(plain.layers)
    with mpc.Session() as s:
        secret = again.share(s, owner="alice", scores=True)
        found = secret.decision_function(secret.share_rows(test[:50], owner="bob"))
    audit = plain.audit(test[:50])
    assert np.abs(found - plain.decision_function(test[:50])).max() <= audit.error_bound


def test_training_on_shares_refuses_before_it_starts():
    rows, _, labels, _ = nn.load_digits_8x8()
    with mpc.Session() as s:
        targets = s.share(nn.one_hot(labels[:32], 10), owner="bob")
        before = s.cost().total
        with pytest.raises(DtypeError, match=r"layer 2, SiLU\(\), is not trained on shares"):
            network(SiLU()).fit(s.share(rows[:32], owner="alice"), targets, epochs=1)
        assert s.cost().total == before


def test_rows_outside_of_a_domain_are_refused_where_bounds_are_vouched_for():
    with mpc.Session() as s:
        x = s.share([[-0.5, 1.0]], owner="alice")
        with (
            s.range_policy.vouched(),
            pytest.raises(mpc.RangeError, match="log: the value at index"),
        ):
            Log()(x)


ONNX = {
    "Gelu": (20, {"approximate": "tanh"}, GELU("tanh")),
    "Elu": (16, {"alpha": 0.5}, ELU(0.5)),
    "Celu": (16, {}, CELU()),
    "Selu": (16, {}, SELU()),
    "Softplus": (16, {}, Softplus()),
    "Mish": (18, {}, Mish()),
    "Erf": (16, {}, Erf()),
    "Exp": (16, {}, Exp()),
    "Log": (16, {}, Log()),
    "Sqrt": (16, {}, Sqrt()),
    "Reciprocal": (16, {}, Reciprocal()),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name):
    onnx = pytest.importorskip("onnx")
    opset, attributes, layer = ONNX[name]
    node = onnx.helper.make_node(name, ["x"], ["y"], **attributes)
    values = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [None, 3]) for end in "xy"
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = nn.from_onnx(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    x = np.array([[0.25, 1.0, 2.0]], np.float32)
    np.testing.assert_allclose(model.predict(x), layer(x), rtol=1e-6)
    assert repr(layer) in repr(model.layers)
