"""Forward and backward of the layers for images on shares, against plain."""

import numpy as np
import pytest

import mpc
from nn.layers import ReLU
from nn.layers.convolution import Convolution
from nn.layers.normalisation import BatchNorm, Dropout
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape

PARTIES = {2: ("alice", "bob"), 3: ("alice", "bob", "carol")}
UNIT = 2.0**-16


def rounded(random, *shape):
    """Numbers that fixed point holds exactly."""
    return np.round(random.normal(size=shape) / UNIT) * UNIT


def convolution(random, **more):
    return Convolution(rounded(random, 3, 2, 2, 3), rounded(random, 3), **more)


CASES = {
    "convolution": (lambda r: convolution(r), (2, 5, 4, 2)),
    "convolution with stride and padding": (
        lambda r: convolution(r, stride=(2, 1), padding="same"), (2, 5, 4, 2)
    ),
    "max pool": (lambda r: MaxPool(2), (2, 4, 6, 3)),
    "max pool of odd tiles": (lambda r: MaxPool((3, 1)), (2, 6, 2, 3)),
    "max pool of nine": (lambda r: MaxPool(3), (1, 6, 3, 2)),
    "average pool": (lambda r: AveragePool(2), (2, 4, 6, 3)),
    "average pool of odd tiles": (lambda r: AveragePool((3, 1)), (2, 6, 2, 3)),
    "reshape": (lambda r: Reshape(3, 4, 1), (2, 12)),
    "flatten": (lambda r: Flatten(), (2, 3, 2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("surplus", [False, True], ids=["format", "product"])
def test_gradients_on_shares(case, parties, surplus):
    random = np.random.default_rng(len(case))
    make, shape = CASES[case]
    layer = make(random)
    x = rounded(random, *shape)
    wanted = layer.forward(x)
    gradient = rounded(random, *wanted.shape)
    at_input = layer.backward(gradient)
    seen = []

    def program(s):
        twin = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        # As they come from a product, with twice the fractional bits, or not.
        secret_x, secret_g = s.share(x, owner="bob"), s.share(gradient, "bob")
        if surplus:
            secret_x, secret_g = (z * 0.5 * 2 for z in (secret_x, secret_g))
            assert secret_x.frac_bits == 32
        output = twin.forward(secret_x)
        back = twin.backward(secret_g)
        seen[:] = [output.reveal(), back.reveal(), *(g.reveal() for g in twin.gradients)]
        assert twin.backward(secret_g, input_gradient=False) is None

    with mpc.Session(PARTIES[parties]) as s:
        plan = s.plan(program)
        program(s)
        assert plan.cost == s.cost()
        assert plan.cost.trips == s.cost().trips
    for found, expected in zip(seen, [wanted, at_input, *layer.gradients], strict=True):
        assert found.shape == expected.shape
        # Rounding of operands in [-5, 5] by a unit, in sums of at most 40 products.
        np.testing.assert_allclose(found, expected, atol=200 * UNIT)


def test_of_equal_values_the_same_one_gets_the_gradient():
    x = np.random.default_rng(0).integers(0, 2, size=(20, 6, 4, 2)).astype(float)
    for size in (2, (3, 2), (1, 4)):
        layer = MaxPool(size)
        gradient = np.ones(layer.forward(x).shape)
        wanted = layer.backward(gradient)
        with mpc.Session() as s:
            layer.forward(s.share(x, owner="bob"))
            found = layer.backward(s.share(gradient, owner="alice"))
            np.testing.assert_array_equal(found.reveal(), wanted)


def test_relu_has_the_same_gradient_at_zero_as_in_the_clear():
    # Zero biases behind black borders make whole regions of zeros, in which this decides.
    x = np.array([[-UNIT, 0.0, UNIT, -1.0, 0.0, 2.0]])
    layer = ReLU()
    layer.forward(x)
    wanted = layer.backward(np.ones(x.shape))
    assert wanted.tolist() == [[0, 0, 1, 0, 0, 1]]
    for surplus in (False, True):
        with mpc.Session() as s:
            secret_x = s.share(x, owner="bob")
            layer.forward(secret_x * 0.5 * 2 if surplus else secret_x)
            found = layer.backward(s.share(np.ones(x.shape), owner="alice"))
            np.testing.assert_array_equal(found.reveal(), wanted)


def test_backward_opens_only_the_gradient():
    layer = Convolution(np.ones((3, 3, 2, 4)), np.ones(4))
    with mpc.Session() as s:
        layer = layer.with_parameters([s.share(p, owner="alice") for p in layer.parameters])
        layer.forward(s.share(np.ones((2, 7, 7, 2)), owner="bob"))
        before = s.cost()
        layer.backward(s.share(np.ones((2, 5, 5, 4)), owner="alice"))
        spent = (s.cost() - before).total
        assert spent.sent == (8 * 2 * 5 * 5 * 4, 0)
        assert spent.rounds == 1


def test_trained_in_the_clear_only():
    with mpc.Session() as s:
        x = s.share(np.ones((2, 3)), owner="bob")
        for layer in (BatchNorm.untrained(3), Dropout(0.5)):
            with pytest.raises(mpc.ArgumentError, match="trained in the clear only"):
                layer.forward(x)
