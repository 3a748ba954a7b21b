"""Initial weights and seeds."""

import numpy as np
import pytest

from nn.layers.initialisation import generator, he_normal
from nn.models.mlp import dense_layers
from ring.errors import ArgumentError, DtypeError


def draws(random_state):
    return generator(random_state).random(3).tolist()


def test_an_int_gives_the_same_stream_each_time():
    assert draws(7) == draws(7) == draws(np.int64(7))
    assert draws(7) != draws(8)


def test_none_gives_another_stream_each_time():
    assert draws(None) != draws(None)


def test_a_generator_is_used_itself():
    random = np.random.default_rng(0)
    assert generator(random) is random


def test_a_random_state_seeds_and_advances():
    random = np.random.RandomState(0)
    first, second = draws(random), draws(random)
    assert first != second
    assert draws(np.random.RandomState(0)) == first


def test_bad_random_states():
    for value in (1.5, "0", True, [1]):
        with pytest.raises(
            DtypeError, match=f"random_state must be .*, got {type(value).__name__}"
        ):
            generator(value)
    with pytest.raises(ArgumentError, match="random_state must be at least 0, got -1"):
        generator(-1)


def test_he_weights_have_the_variance_and_no_bias():
    weights = he_normal(400, 300, np.random.default_rng(0))
    # 120,000 draws: the standard error of the variance is 0.4 %, that of the mean 0.0002.
    assert weights.var() == pytest.approx(2 / 400, rel=0.02)
    assert abs(weights.mean()) < 0.001


def test_float32_weights_are_the_float64_ones_rounded():
    double = he_normal(5, 4, np.random.default_rng(3))
    single = he_normal(5, 4, np.random.default_rng(3), np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_only_float32_and_float64():
    for dtype in (np.float16, int, "complex128", "nonsense"):
        with pytest.raises(DtypeError, match="dtype must be float32 or float64, got"):
            he_normal(5, 4, np.random.default_rng(3), dtype)


def test_dense_layers():
    layers = dense_layers((5, 4, 3, 2), np.random.default_rng(0), np.float32)
    assert repr(layers) == "[Dense(5, 4), ReLU(), Dense(4, 3), ReLU(), Dense(3, 2)]"
    arrays = [array for layer in layers for array in layer.parameters]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert all(array.any() for array in arrays[::2])
    assert not any(array.any() for array in arrays[1::2])
