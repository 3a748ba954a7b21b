"""Forward and backward of the layers for images on shares, against plain."""

import numpy as np
import pytest

import mpc
from nn.layers import ReLU
from nn.layers.convolution import Convolution
from nn.layers.dropout import Dropout
from nn.layers.normalisation import BatchNorm
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


@pytest.mark.parametrize("shape", [(9, 3), (2, 3, 2, 3)], ids=["rows", "images"])
def test_batch_normalisation(shape):
    """Output, gradients and running statistics; one channel hardly varies, one does widely."""
    random = np.random.default_rng(0)
    x = np.round((random.normal(size=shape) * [0.5, 0.01, 40] + [0, 3, -50]) / UNIT) * UNIT
    gradient = np.round(random.normal(size=shape) / UNIT) * UNIT
    for epsilon, momentum in ((1e-5, 0.9), (0.25, 0.0)):
        options = {"epsilon": epsilon, "momentum": momentum}
        plain = BatchNorm(np.array([1.5, -0.5, 2.0]), np.array([0.25, 0.0, -1.0]), **options)
        with mpc.Session() as s:
            layer = plain.with_parameters([s.share(p, owner="alice") for p in plain.parameters])
            layer.on_shares(s)
            wanted = plain.forward(x), plain.backward(gradient)
            output = layer.forward(s.share(x, owner="bob"))
            assert tuple(output.shape) == shape
            back = layer.backward(s.share(gradient, owner="alice"))
            # The error of the inputs is relative to the deviation.
            np.testing.assert_allclose(output.reveal(), wanted[0], atol=2e-3)
            largest = np.abs(wanted[1]).max(axis=tuple(range(len(shape) - 1)))
            assert (np.abs(back.reveal() - wanted[1]) <= 2e-3 * largest).all()
            for mine, other in zip(layer.gradients, plain.gradients, strict=True):
                np.testing.assert_allclose(mine.reveal(), other, atol=4e-3)
            np.testing.assert_allclose(layer.mean.reveal(), plain.mean, atol=2 * UNIT)
            found = layer.variance.reveal()
            np.testing.assert_allclose(found, plain.variance, rtol=1e-4, atol=3 * UNIT)
            for mine, other in zip(layer.shared_affine(), plain.affine(), strict=True):
                np.testing.assert_allclose(mine.reveal(), other, rtol=2e-3, atol=2 * UNIT)


@pytest.mark.parametrize("bits", [(8, 26), (8, 22), (16, 18)])
def test_a_format_without_room_for_squares_is_refused(bits):
    """Also one with room for few of a variance's places: an eighth, for (16, 24)."""
    with (
        mpc.Session(frac_bits=bits[0], int_bits=bits[1]) as s,
        pytest.raises(mpc.RangeError, match="fewer integer"),
    ):
        BatchNorm.untrained(3).on_shares(s)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.3])
def test_dropout(rate):
    x = np.round(np.random.default_rng(0).normal(size=(40, 5)) / UNIT) * UNIT
    plain, layer = (Dropout(rate, np.random.default_rng(7)) for _ in range(2))
    wanted = plain.forward(x), plain.backward(x[::-1])
    with mpc.Session() as s:
        before = s.cost()
        output = layer.forward(s.share(x, owner="bob"))
        spent = (s.cost() - before).rounds
        np.testing.assert_allclose(output.reveal(), wanted[0], atol=1e-4)
        found = layer.backward(s.share(x[::-1].copy(), owner="bob")).reveal()
        np.testing.assert_allclose(found, wanted[1], atol=1e-4)
    assert spent <= (rate == 0.3)
