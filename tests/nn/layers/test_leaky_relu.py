"""The leaky rectifier: in the clear, on shares, backward, trained, saved and imported."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Dense, LeakyReLU
from ring.errors import ArgumentError, DtypeError

X = np.array([[-20.0, -0.75, -1e-3, 0.0, 1e-3, 2.5]])


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
@pytest.mark.parametrize("slope", [0.0, 0.01, 0.25])
def test_same_in_the_clear_and_on_shares(parties, slope):
    layer = LeakyReLU(slope)
    np.testing.assert_array_equal(layer(X), leaky(X, slope))
    assert layer(X.astype(np.float32)).dtype == np.float32
    with mpc.Session(parties) as s:
        x = s.share(X, owner="bob")
        bound = layer.fixed_point_error(np.abs(X), np.full(X.shape, 2.0**-17), 16)
        for shared in (x, x * 1.0):  # with once and twice the format's fractional bits
            assert (np.abs(layer(shared).reveal() - leaky(X, slope)) <= bound).all()
            layer.forward(shared)
            gradient = s.share(np.full(X.shape, 2.0), owner="alice")
            back = layer.backward(gradient).reveal()
            np.testing.assert_allclose(back, np.where(X > 0, 2, 2 * slope), atol=1e-4)
            assert layer.backward(gradient, input_gradient=False) is None


def test_gradient_bounds_and_what_it_is_made_of():
    layer = LeakyReLU(0.25)
    layer.forward(X)
    assert layer.backward(np.full(X.shape, 2.0)).tolist() == [[0.5, 0.5, 0.5, 0.5, 2.0, 2.0]]
    low, high = layer.bounds([-4.0, 1.0], [2.0, 3.0])
    assert low.tolist() == [-1.0, 1.0] and high.tolist() == [2.0, 3.0]
    assert repr(layer) == "LeakyReLU(0.25)" and layer.description() == ["LeakyReLU", 0.25]
    for bad, kind in ((1.0, ArgumentError), (-0.1, ArgumentError), ("x", DtypeError)):
        with pytest.raises(kind, match="slope must be"):
            LeakyReLU(bad)


def network(random_state=0):
    layers = [Dense.untrained(64, 12), LeakyReLU(0.125), Dense.untrained(12, 10)]
    return nn.Sequential(layers, n_features=64, random_state=random_state)


def test_a_network_trains_alike_on_shares_and_is_saved_and_shared(tmp_path):
    rows, test, labels, wanted = nn.load_digits_8x8()
    assert network().fit(rows, labels).score(test, wanted) > 0.9
    rows, labels = rows[:96], labels[:96]
    plain = network().fit(rows, labels, epochs=2, batch_size=16)
    plain.save(tmp_path / "m.npz")
    again = nn.load(tmp_path / "m.npz")
    assert repr(again.layers) == repr(plain.layers)
    np.testing.assert_array_equal(again.decision_function(test), plain.decision_function(test))
    with mpc.Session() as s:
        targets = s.share(nn.one_hot(labels, 10), owner="bob")
        fitted = network().fit(s.share(rows, owner="alice"), targets, epochs=2, batch_size=16)
        assert fitted.high > 0
        for a, b in zip(fitted.reveal().parameters, plain.parameters, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-3)
        secret = plain.share(s, owner="alice", scores=True)
        found = secret.decision_function(secret.share_rows(test[:50], owner="bob"))
    audit = plain.audit(test[:50])
    assert np.abs(found - plain.decision_function(test[:50])).max() <= audit.error_bound
    assert audit.layers[-1].error_observed <= audit.error_bound


@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.25}])
def test_onnx(attributes):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("LeakyRelu", ["x"], ["y"], **attributes)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 3]) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 16)]
    model = nn.from_onnx(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    x = np.array([[-2.0, 0.0, 2.0]], np.float32)
    slope = np.float32(attributes.get("alpha", 0.01))
    np.testing.assert_allclose(model.predict(x), leaky(x, slope), rtol=1e-6)
