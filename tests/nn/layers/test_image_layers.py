"""Layers for images: values by hand, gradients by finite differences, bounds by all corners."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn.layers import Dense, ReLU
from nn.layers.convolution import Convolution
from nn.layers.dropout import Dropout
from nn.layers.normalisation import BatchNorm, folded
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.scale import Scale
from nn.layers.shaping import Flatten, Reshape, Transpose
from ring.errors import ArgumentError, DtypeError, ShapeError
from tests.helpers.gradients import finite_differences


def check_gradients(layer, x, random, atol=1e-6):
    weight = random.normal(size=layer.forward(x).shape)

    def loss():
        return float((layer.forward(x) * weight).sum())

    expected = finite_differences(loss, x), [finite_differences(loss, p) for p in layer.parameters]
    layer.forward(x)
    at_input = layer.backward(weight)
    np.testing.assert_allclose(at_input, expected[0], atol=atol)
    assert len(layer.gradients) == len(layer.parameters)
    for gradient, wanted in zip(layer.gradients, expected[1], strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=atol)
    layer.forward(x)
    before = [gradient.copy() for gradient in layer.gradients]
    assert layer.backward(weight, input_gradient=False) is None
    for gradient, wanted in zip(layer.gradients, before, strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def convolution(random, kernel=(3, 2), channels=2, outputs=3, **more):
    weights = random.normal(size=(*kernel, channels, outputs))
    return Convolution(weights, random.normal(size=outputs), **more)


PADDINGS = st.sampled_from(["valid", "same", 1, (0, 2), ((0, 2), (1, 0))])


class TestConvolution:
    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 2**32), PADDINGS, st.sampled_from([1, 2, (2, 1), 3]))
    def test_gradients(self, seed, padding, stride):
        random = np.random.default_rng(seed)
        layer = convolution(random, padding=padding, stride=stride)
        check_gradients(layer, random.normal(size=(2, 5, 4, 2)), random)

    def test_by_hand(self):
        kernel = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
        layer = Convolution(kernel, np.array([0.5]))
        image = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]).reshape(1, 2, 3, 1)
        # Not flipped: the first pixel meets the first weight.
        assert layer(image).ravel().tolist() == [5.5, 7.5]

    def test_many_images_are_computed_in_pieces(self):
        layer = Convolution.untrained(1, 2, kernel=5).fresh(np.random.default_rng(0), np.float32)
        x = np.random.default_rng(1).normal(size=(1300, 28, 28, 1)).astype(np.float32)
        tracemalloc.start()
        try:
            whole = layer(x)
            assert tracemalloc.get_traced_memory()[1] < 576 * 25 * 4 * 1300
        finally:
            tracemalloc.stop()
        np.testing.assert_allclose(whole, layer.forward(x), atol=1e-5)
        assert layer(x[:0]).shape == (0, 24, 24, 2)

    def test_same_padding_puts_the_odd_zero_last(self):
        layer = Convolution(np.ones((2, 2, 1, 1)), np.zeros(1), padding="same")
        image = np.array([[1.0, 2.0], [4.0, 8.0]]).reshape(1, 2, 2, 1)
        assert layer(image)[0, :, :, 0].tolist() == [[15.0, 10.0], [12.0, 8.0]]

    @pytest.mark.parametrize(
        ("more", "shape"),
        [
            ({}, (24, 24, 5)),
            ({"stride": 2, "padding": "same"}, (14, 14, 5)),
            ({"stride": (2, 3), "padding": (0, 2)}, (12, 10, 5)),
            ({"padding": "same"}, (28, 28, 5)),
            ({"padding": ((1, 0), (2, 4))}, (25, 30, 5)),
        ],
    )
    def test_output_shape(self, more, shape):
        layer = Convolution.untrained(1, 5, kernel=5, **more)
        assert layer.output_shape((28, 28, 1)) == shape
        assert layer(np.zeros((2, 28, 28, 1))).shape == (2, *shape)

    def test_bounds_are_the_extremes_over_all_corners(self):
        random = np.random.default_rng(5)
        layer = convolution(random, (2, 2), 1, 2, padding="same", stride=2)
        low, high = np.sort(random.normal(size=(2, 3, 3, 1)), axis=0)
        corners = np.array(list(itertools.product(*np.stack([low, high]).reshape(2, -1).T)))
        outputs = layer(corners.reshape(-1, 3, 3, 1))
        lows, highs = layer.bounds(low, high)
        np.testing.assert_allclose(lows, outputs.min(axis=0), atol=1e-12)
        np.testing.assert_allclose(highs, outputs.max(axis=0), atol=1e-12)
        with pytest.raises(ShapeError, match=r"\(height, width, channels\)"):
            layer.bounds(0, 1)

    def test_float32_stays(self):
        random = np.random.default_rng(0)
        layer = Convolution.untrained(1, 2, kernel=3).fresh(random, np.float32)
        assert layer.forward(np.ones((1, 4, 4, 1), np.float32)).dtype == np.float32
        assert layer.backward(np.ones((1, 2, 2, 2), np.float32)).dtype == np.float32
        assert {gradient.dtype for gradient in layer.gradients} == {np.dtype(np.float32)}

    def test_fresh_weights_have_the_variance_of_he(self):
        random = np.random.default_rng(0)
        fresh = Convolution.untrained(16, 64, kernel=5, stride=2).fresh(random)
        assert fresh.weights.var() == pytest.approx(2 / 400, rel=0.05)
        assert fresh.stride == (2, 2)
        assert not fresh.bias.any()

    def test_bad_input(self):
        with pytest.raises(ShapeError, match="weights must have four axes"):
            Convolution(np.ones((2, 2)), np.ones(2))
        with pytest.raises(ShapeError, match="one entry for each of 3 outputs"):
            Convolution(np.ones((2, 2, 1, 3)), np.ones(2))
        for more, message in (
            ({"stride": 0}, "stride must be at least 1, got 0"),
            ({"stride": (1, 1, 1)}, "stride must be one integer or two"),
            ({"padding": "full"}, "padding must be 'valid', 'same' or integers, got 'full'"),
            ({"padding": -1}, "padding must be at least 0"),
        ):
            with pytest.raises(ArgumentError, match=message):
                Convolution.untrained(1, 1, kernel=2, **more)
        with pytest.raises(DtypeError, match="kernel must be an integer"):
            Convolution.untrained(1, 1, kernel=2.5)
        layer = Convolution.untrained(2, 1, kernel=3)
        with pytest.raises(ShapeError, match=r"Convolution\(2, 1.*2 channels\), got.*\(5, 5, 1\)"):
            layer(np.ones((1, 5, 5, 1)))
        with pytest.raises(ShapeError, match=r"kernel larger than the image: \(3, 3\) on \(5, 2\)"):
            layer.output_shape((5, 2, 2))
        with pytest.raises(ArgumentError, match="needs a forward before it"):
            layer.backward(np.ones((1, 3, 3, 1)))
        with pytest.raises(ShapeError, match="needs parameters of shapes"):
            layer.parameters = [np.ones((3, 3, 2, 2)), np.ones(2)]


class TestPools:
    @pytest.mark.parametrize("kind", [MaxPool, AveragePool])
    @pytest.mark.parametrize("size", [2, (3, 1), (1, 2)])
    def test_gradients(self, kind, size):
        random = np.random.default_rng(1)
        check_gradients(kind(size), random.normal(size=(2, 6, 4, 3)), random)

    def test_values(self):
        x = np.random.default_rng(2).normal(size=(3, 4, 6, 2))
        tiles = x.reshape(3, 2, 2, 2, 3, 2)
        np.testing.assert_array_equal(MaxPool((2, 3))(x), tiles.max(axis=(2, 4)))
        np.testing.assert_allclose(AveragePool((2, 3))(x), tiles.mean(axis=(2, 4)))

    def test_the_first_of_equal_values_gets_the_gradient(self):
        layer = MaxPool(2)
        layer.forward(np.array([1.0, 7.0, 7.0, 7.0]).reshape(1, 2, 2, 1))
        assert layer.backward(np.full((1, 1, 1, 1), 5.0)).ravel().tolist() == [0, 5, 0, 0]

    def test_maximum_before_relu_is_the_same_function(self):
        x = np.random.default_rng(3).normal(size=(5, 4, 4, 2))
        np.testing.assert_array_equal(MaxPool()(ReLU()(x)), ReLU()(MaxPool()(x)))

    @pytest.mark.parametrize("kind", [MaxPool, AveragePool])
    def test_bounds_and_shapes(self, kind):
        low, high = np.zeros((4, 4, 1)), np.ones((4, 4, 1))
        high[0, 0] = 3
        lows, highs = kind(2).bounds(low, high)
        assert lows.tolist() == np.zeros((2, 2, 1)).tolist()
        assert highs[0, 0, 0] == (3 if kind is MaxPool else 1.5)
        assert kind(2).bounds(-1, 2) == (-1, 2)
        assert kind(2).output_shape((5, 4, 1)) == (2, 2, 1), "a fifth row is left out"
        with pytest.raises(ShapeError, match=r"Pool\(\(2, 2\)\) has windows larger.*\(1, 4, 1\)"):
            kind(2)(np.ones((1, 1, 4, 1)))
        with pytest.raises(ShapeError, match="has a window of padding alone"):
            kind(2, padding=2)(np.ones((1, 4, 4, 1)))
        with pytest.raises(ArgumentError, match="windows of the whole image"):
            kind(None, stride=2)
        with pytest.raises(ShapeError, match="takes images"):
            kind(2).output_shape((4,))
        with pytest.raises(ArgumentError, match="size must be at least 1"):
            kind(0)


class TestShaping:
    @pytest.mark.parametrize(
        "layer", [Reshape(3, 4, 1), Reshape(12), Flatten(), Transpose(1, 0), Transpose(0, 1)]
    )
    def test_gradients(self, layer):
        random = np.random.default_rng(0)
        check_gradients(layer, random.normal(size=(2, 6, 2)), random)

    def test_bounds(self):
        low, high = Reshape(2, 2, 1).bounds(0, [1, 2, 3, 4])
        assert low.shape == (2, 2, 1)
        assert high.ravel().tolist() == [1, 2, 3, 4]
        assert Reshape(2, 2, 1).bounds(0, 1)[1].tolist() == np.ones((2, 2, 1)).tolist()
        assert Flatten().bounds(low, high)[1].tolist() == [1, 2, 3, 4]

    def test_transpose(self):
        layer, random = Transpose(2, 0, 1), np.random.default_rng(0)
        x = random.normal(size=(2, 3, 4, 5))
        np.testing.assert_array_equal(layer(x), np.moveaxis(x, 3, 1))
        check_gradients(layer, x, random)
        low, high = layer.bounds(x[0] - 1, x[0])
        np.testing.assert_array_equal(low, layer(x)[0] - 1)
        np.testing.assert_array_equal(high, layer(x)[0])
        assert layer.output_shape((3, 4, 5)) == (5, 3, 4) and layer.bounds(0, 1)[1] == 1
        with pytest.raises(ShapeError, match="3 axes"):
            layer(x[0])
        with pytest.raises(ArgumentError, match="in some order"):
            Transpose(0, 2)

    def test_wrong_size(self):
        with pytest.raises(ShapeError, match=r"Reshape\(2, 3\) takes rows of 6 elements.*\(7,\)"):
            Reshape(2, 3)(np.ones((2, 7)))
        with pytest.raises(ArgumentError, match=r"shape\[1\] must be at least 1, got -1"):
            Reshape(2, -1)


class TestBatchNorm:
    @pytest.mark.parametrize("shape", [(7, 3), (2, 3, 2, 3)])
    def test_gradients(self, shape):
        random = np.random.default_rng(1)
        layer = BatchNorm(random.normal(size=3), random.normal(size=3))
        check_gradients(layer, random.normal(size=shape), random)

    def test_running_values(self):
        layer = BatchNorm(np.ones(2), np.zeros(2), momentum=0.5)
        x = np.array([[0.0, 10.0], [2.0, 10.0]])
        layer.forward(x)
        assert layer.mean.tolist() == [0.5, 5.0]
        assert layer.variance.tolist() == [1.0, 0.5]
        twin = layer.with_parameters(layer.parameters)
        np.testing.assert_allclose(twin(x), (x - [0.5, 5.0]) / np.sqrt([1.00001, 0.50001]))
        assert layer.fresh(np.random.default_rng(0)).mean.tolist() == [0, 0]

    def test_bounds(self):
        layer = BatchNorm(np.array([1.0, -1.0]), np.array([0.0, 3.0]), epsilon=1e-12)
        low, high = layer.bounds(np.array([0.0, 0.0]), np.array([1.0, 2.0]))
        np.testing.assert_allclose(low, [0.0, 1.0])
        np.testing.assert_allclose(high, [1.0, 3.0])

    def test_folding_changes_nothing(self):
        random = np.random.default_rng(2)
        norms = [BatchNorm(*random.normal(size=(3, n)), random.uniform(1, 2, n)) for n in (3, 5)]
        layers = [
            convolution(random), norms[0], ReLU(), Flatten(),
            Dense(random.normal(size=(36, 5)), random.normal(size=5)), norms[1], Dropout(0.9),
        ]  # fmt: skip
        x = y = random.normal(size=(4, 5, 5, 2))
        for layer in layers:
            x = layer(x)
        kept = folded(layers)
        assert [type(layer) for layer in kept] == [Convolution, ReLU, Flatten, Dense]
        for layer in kept:
            y = layer(y)
        np.testing.assert_allclose(y, x, atol=1e-9)
        elsewhere = folded([ReLU(), norms[1]])
        assert [type(layer) for layer in elsewhere] == [ReLU, Scale]
        rows = random.normal(size=(3, 5))
        np.testing.assert_allclose(elsewhere[1](rows), norms[1](rows), atol=1e-12)

    def test_bad_input(self):
        with pytest.raises(ShapeError, match=r"takes 2 channels, got shape \(3,\)"):
            BatchNorm.untrained(2)(np.ones((1, 3)))
        with pytest.raises(ShapeError, match="must be vectors"):
            BatchNorm(np.ones(2), np.ones(3))
        with pytest.raises(ArgumentError, match="momentum must be at least 0 and below 1, got 1"):
            BatchNorm(np.ones(2), np.ones(2), momentum=1)


class TestDropout:
    def test_training_keeps_the_mean_and_the_gradient_the_mask(self):
        layer = Dropout(0.25, np.random.default_rng(0))
        x = np.ones((100, 100), np.float32)
        y = layer.forward(x)
        assert y.dtype == np.float32
        assert set(np.unique(y)) == {0, np.float32(4 / 3)}
        assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
        np.testing.assert_array_equal(layer.backward(x), y)
        assert (layer.forward(x) != y).any()
        np.testing.assert_array_equal(layer(x), x)

    def test_the_same_seed_drops_the_same(self):
        x = np.ones((4, 50))
        outputs = [Dropout(0.5).fresh(np.random.default_rng(3)).forward(x) for _ in range(2)]
        np.testing.assert_array_equal(*outputs)

    def test_rate(self):
        with pytest.raises(ArgumentError, match="rate must be at least 0 and below 1, got 1"):
            Dropout(1)
