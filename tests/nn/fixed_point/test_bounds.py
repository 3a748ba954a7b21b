"""Interval bounds of whole networks, and the range check made from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn.fixed_point.bounds import check_range, interval_bounds
from nn.layers import Dense, ReLU
from nn.models.mlp import dense_layers
from ring.errors import ArgumentError, RangeError, ShapeError


def small_network():
    return [
        Dense(np.array([[2.0, -1.0], [-3.0, 0.5]]), np.array([0.5, 1.0])),
        ReLU(),
        Dense(np.array([[10.0, -1.0], [-20.0, 3.0]]), np.array([0.0, -7.0])),
    ]


def test_bounds_by_hand():
    bounds = interval_bounds(small_network(), 0, [1, 2])
    assert [(low.tolist(), high.tolist()) for low, high in bounds] == [
        ([-5.5, 0.0], [2.5, 2.0]),
        ([0.0, 0.0], [2.5, 2.0]),
        ([-40.0, -9.5], [25.0, -1.0]),
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_no_input_leaves_the_bounds(seed, sizes):
    random = np.random.default_rng(seed)
    layers = dense_layers(sizes, random)
    for layer in layers[::2]:
        layer.bias += random.normal(size=layer.bias.shape)
    low, high = np.sort(random.normal(scale=2, size=(2, sizes[0])), axis=0)
    x = random.uniform(low, high, size=(200, sizes[0]))
    x[:50] = np.where(random.random((50, sizes[0])) < 0.5, low, high)
    for layer, (least, greatest) in zip(layers, interval_bounds(layers, low, high), strict=True):
        x = layer(x)
        assert (x >= least - 1e-9).all()
        assert (x <= greatest + 1e-9).all()


def test_an_input_of_one_value_has_bounds_of_one_value():
    layers, x = small_network(), np.array([[0.25, 0.5]])
    for layer, (low, high) in zip(layers, interval_bounds(layers, x[0], x[0]), strict=True):
        x = layer(x)
        np.testing.assert_array_equal(low, x[0])
        np.testing.assert_array_equal(high, x[0])


def test_check_passes_below_the_limit_and_returns_the_bounds():
    bounds = check_range(small_network(), 0, [1, 2], limit=40.5)
    np.testing.assert_array_equal(bounds[2][0], [-40.0, -9.5])


def test_check_names_the_layer_and_the_excess():
    with pytest.raises(RangeError) as caught:
        check_range(small_network(), 0, [1, 2], limit=32)
    assert str(caught.value) == (
        "layer 3, Dense(2, 2): its output must stay below 32 in magnitude, but element 0 can "
        "reach 40 for inputs in [0, 2]: 8 too much"
    )


def test_the_limit_itself_is_too_much():
    with pytest.raises(RangeError, match=r"can reach 40 for inputs .*: 0 too much"):
        check_range(small_network(), 0, [1, 2], limit=40)


def test_hidden_layers_are_checked_before_the_rectifier_hides_them():
    layers = [Dense(np.array([[-100.0]]), np.array([0.0])), ReLU()]
    with pytest.raises(RangeError, match=r"layer 1, Dense\(1, 1\): its output .* reach 200 "):
        check_range(layers, [0], 2, limit=150)


def test_parameters_are_checked_even_where_inputs_keep_outputs_small():
    layers = [Dense(np.array([[300.0], [-1.0]]), np.array([0.0]))]
    check_range(layers, [0, 0], 0.1, limit=301)
    with pytest.raises(
        RangeError, match=r"parameter of shape \(2, 1\) .*element \(0, 0\) can reach 300"
    ):
        check_range(layers, [0, 0], 0.1, limit=256)
    with pytest.raises(RangeError, match=r"parameter of shape \(1,\) .*element 0 can reach 256"):
        check_range([Dense(np.array([[1.0]]), np.array([-256.0]))], [255], [255], limit=256)


def test_the_input_is_checked():
    with pytest.raises(RangeError, match=r"the input must stay below 32 .* it can reach 33: 1 too"):
        check_range(small_network(), -33, 0, limit=32)


def test_nan_parameters_do_not_pass():
    layers = small_network()
    layers[2].weights[1, 0] = np.nan
    with pytest.raises(RangeError, match=r"layer 3.* element \(1, 0\) can reach nan"):
        check_range(layers, 0, 1, limit=1000)


@pytest.mark.parametrize("limit", [0, -1, np.nan, np.inf])
def test_bad_limits(limit):
    with pytest.raises(ArgumentError, match="limit must be above 0 and finite, got"):
        check_range(small_network(), 0, 1, limit=limit)


def test_bad_input_ranges():
    for function in (interval_bounds, lambda *args: check_range(*args, limit=100)):
        with pytest.raises(ArgumentError, match="low 1 and high 0"):
            function(small_network(), 1, 0)
        with pytest.raises(ShapeError, match="scalars or have 2 entries"):
            function(small_network(), [0, 0, 0], 1)


def test_layers_that_do_not_fit_together():
    layers = [Dense(np.ones((2, 3)), np.ones(3)), Dense(np.ones((2, 1)), np.ones(1))]
    with pytest.raises(ShapeError, match="have 2 entries"):
        interval_bounds(layers, [0, 0], 1)


def test_input_ranges_of_different_shapes():
    with pytest.raises(ShapeError, match=r"same shape, got \(2,\) and \(3,\)"):
        check_range(small_network(), [0, 0], [1, 1, 1], limit=100)
