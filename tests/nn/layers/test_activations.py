"""Sigmoid and tanh layers: in the clear, on shares, backward, and their ranges."""

import numpy as np
import pytest
from scipy.special import expit

import mpc
from nn.layers.activations import Sigmoid, Tanh

LAYERS = [(Sigmoid, expit), (Tanh, np.tanh)]


@pytest.mark.parametrize(("kind", "exact"), LAYERS)
def test_same_in_the_clear_and_on_shares(kind, exact):
    x = np.linspace(-20, 20, 301).reshape(7, 43)
    np.testing.assert_allclose(kind()(x), exact(x), rtol=1e-14)
    with mpc.Session(("alice", "bob", "carol")) as s:
        np.testing.assert_allclose(
            kind()(s.share(x, owner="bob")).reveal(), exact(x), rtol=0, atol=8e-5
        )


@pytest.mark.parametrize(("kind", "exact"), LAYERS)
def test_gradient_is_that_of_finite_differences(kind, exact):
    x = np.array([[-3.0, -0.4, 0.0, 1.7]])
    layer = kind()
    layer.forward(x)
    step = 1e-6
    slope = (exact(x + step) - exact(x - step)) / (2 * step)
    np.testing.assert_allclose(layer.backward(np.full(x.shape, 2.0)), 2 * slope, rtol=1e-6)
    assert layer.backward(np.ones(x.shape), input_gradient=False) is None
    # No steeper than the audit takes it to be.
    grid = np.linspace(-5, 5, 1001)
    assert np.abs(np.gradient(exact(grid), grid)).max() <= kind.slope


@pytest.mark.parametrize(("kind", "exact"), LAYERS)
def test_bounds(kind, exact):
    low, high = kind().bounds([-1.0, 0.0], [2.0, 0.0])
    np.testing.assert_allclose(low, exact([-1.0, 0.0]))
    np.testing.assert_allclose(high, exact([2.0, 0.0]))
    assert kind().output_shape((3,)) == (3,)
    assert kind().parameters == [] and repr(kind()) == f"{kind.__name__}()"
