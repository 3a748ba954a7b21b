"""Layers: values by hand, gradients by finite differences, bounds by all corners."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn.layers import Dense, ReLU
from ring.errors import ArgumentError, ShapeError
from tests.helpers.gradients import finite_differences


def random_dense(seed, inputs, outputs):
    random = np.random.default_rng(seed)
    return Dense(random.normal(size=(inputs, outputs)), random.normal(size=outputs))


class Traced:
    """An array known by its operators alone, as a shared array is: NumPy must ask it."""

    def __init__(self, values, used):
        self.values, self.used = np.asarray(values), used
        self.shape = self.values.shape

    def __array__(self, *args, **kwargs):
        raise TypeError("must not become a plain array")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        assert method == "__call__"
        assert not kwargs
        self.used.append(ufunc.__name__)
        return Traced(ufunc(*(getattr(x, "values", x) for x in inputs)), self.used)

    def __matmul__(self, other):
        return np.matmul(self, other)

    def __add__(self, other):
        return np.add(self, other)


class TestDense:
    def test_forward_by_hand(self):
        layer = Dense(np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.0, 0.5]))
        assert layer.forward(np.array([[1.0, 2.0], [1.0, -1.0]])).tolist() == [
            [2.0, 3.5],
            [0.5, -2.5],
        ]

    def test_backward_by_hand(self):
        layer = Dense(np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.0, 0.5]))
        layer.forward(np.array([[1.0, 2.0], [1.0, -1.0]]))
        assert layer.backward(np.array([[1.0, 0.0], [2.0, -1.0]])).tolist() == [
            [1.0, 0.5],
            [3.0, -1.0],
        ]
        assert layer.gradients[0].tolist() == [[3.0, -1.0], [0.0, 1.0]]
        assert layer.gradients[1].tolist() == [3.0, -1.0]

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
    def test_gradients_are_those_of_finite_differences(self, seed, rows, inputs, outputs):
        layer = random_dense(seed, inputs, outputs)
        random = np.random.default_rng([seed, 1])
        x, weight = random.normal(size=(rows, inputs)), random.normal(size=(rows, outputs))

        def loss():
            return float((layer(x) * weight).sum())

        layer.forward(x)
        at_input = layer.backward(weight)
        np.testing.assert_allclose(at_input, finite_differences(loss, x), atol=1e-7)
        for parameter, gradient in zip(layer.parameters, layer.gradients, strict=True):
            np.testing.assert_allclose(gradient, finite_differences(loss, parameter), atol=1e-7)

    def test_without_the_input_gradient_the_others_are_the_same(self):
        layer, x = random_dense(0, 3, 2), np.random.default_rng(1).normal(size=(4, 3))
        layer.forward(x)
        layer.backward(np.ones((4, 2)))
        wanted = [gradient.copy() for gradient in layer.gradients]
        assert layer.backward(np.ones((4, 2)), input_gradient=False) is None
        for gradient, value in zip(layer.gradients, wanted, strict=True):
            np.testing.assert_array_equal(gradient, value)

    def test_calling_computes_as_forward_and_remembers_nothing(self):
        layer, x = random_dense(0, 3, 2), np.ones((1, 3))
        np.testing.assert_array_equal(layer(x), x @ layer.weights + layer.bias)
        with pytest.raises(ArgumentError, match=r"Dense\(3, 2\).backward needs a forward"):
            layer.backward(np.ones((1, 2)))

    def test_float32_stays(self):
        layer = Dense(np.ones((3, 2), dtype=np.float32), np.ones(2, dtype=np.float32))
        assert layer.forward(np.ones((1, 3), dtype=np.float32)).dtype == np.float32
        assert layer.backward(np.ones((1, 2), dtype=np.float32)).dtype == np.float32
        assert [gradient.dtype for gradient in layer.gradients] == [np.float32, np.float32]

    def test_works_on_arrays_known_by_their_operators(self):
        used = []
        weights, bias = np.array([[2.0], [-1.0]]), np.array([0.5])
        x = np.array([[1.0, 4.0], [3.0, 1.0]])
        for a, b, c in itertools.product((False, True), repeat=3):
            if not (a or b or c):
                continue
            layer = Dense(
                Traced(weights, used) if a else weights, Traced(bias, used) if b else bias
            )
            output = ReLU().forward(layer.forward(Traced(x, used) if c else x))
            assert output.values.tolist() == [[0.0], [5.5]]
        assert {"matmul", "add", "maximum"} == set(used)

    def test_parameters_can_be_replaced_by_arrays_of_the_same_shape(self):
        layer = random_dense(0, 2, 1)
        layer.parameters = [np.array([[1.0], [2.0]]), np.array([3.0])]
        assert layer(np.array([[10.0, 100.0]])).tolist() == [[213.0]]
        for wrong in ([np.ones((1, 2)), np.ones(1)], [np.ones((2, 1))], []):
            with pytest.raises(ShapeError, match=r"Dense\(2, 1\) needs parameters of shapes"):
                layer.parameters = wrong

    def test_wrong_shapes(self):
        with pytest.raises(ShapeError, match=r"weights must have two axes .* got \(3,\)"):
            Dense(np.ones(3), np.ones(3))
        with pytest.raises(ShapeError, match=r"bias must have one entry for each of 2 .*\(3,\)"):
            Dense(np.ones((3, 2)), np.ones(3))
        with pytest.raises(ShapeError, match=r"Dense\(3, 2\) takes rows of shape \(3,\).*\(2,\)"):
            Dense(np.ones((3, 2)), np.ones(2)).forward(np.ones((5, 2)))

    def test_output_shape(self):
        assert random_dense(0, 3, 2).output_shape((3,)) == (2,)
        with pytest.raises(ShapeError, match=r"got shape \(3, 1\)"):
            random_dense(0, 3, 2).output_shape((3, 1))


class TestReLU:
    def test_values_and_gradient(self):
        layer = ReLU()
        x = np.array([[-1.5, 0.0, 2.0]])
        assert layer.forward(x).tolist() == [[0.0, 0.0, 2.0]]
        assert layer.backward(np.array([[5.0, 6.0, 7.0]])).tolist() == [[0.0, 0.0, 7.0]]
        assert x.tolist() == [[-1.5, 0.0, 2.0]]
        assert layer.parameters == []
        assert layer.gradients == []

    def test_backward_needs_forward(self):
        layer = ReLU()
        layer(np.ones((1, 2)))
        with pytest.raises(ArgumentError, match=r"ReLU\(\).backward needs a forward"):
            layer.backward(np.ones((1, 2)))

    def test_has_no_parameters_to_set(self):
        ReLU().parameters = []
        with pytest.raises(ArgumentError, match=r"ReLU\(\) has no parameters, got 1"):
            ReLU().parameters = [np.ones(1)]

    def test_output_shape_is_the_input_shape(self):
        assert ReLU().output_shape((4, 5)) == (4, 5)


class TestBounds:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4))
    def test_dense_bounds_are_the_extremes_over_all_corners(self, seed, inputs, outputs):
        layer = random_dense(seed, inputs, outputs)
        ends = np.sort(np.random.default_rng([seed, 1]).normal(size=(2, inputs)), axis=0)
        corners = np.array(list(itertools.product(*ends.T)))
        low, high = layer.bounds(*ends)
        np.testing.assert_allclose(low, layer(corners).min(axis=0), atol=1e-12)
        np.testing.assert_allclose(high, layer(corners).max(axis=0), atol=1e-12)

    def test_scalars_stand_for_every_feature(self):
        layer = random_dense(3, 4, 2)
        np.testing.assert_array_equal(
            layer.bounds(-1, 2), layer.bounds(np.full(4, -1.0), np.full(4, 2.0))
        )

    def test_are_in_float64_for_float32_parameters(self):
        layer = Dense(np.full((2, 1), 0.1, dtype=np.float32), np.zeros(1, dtype=np.float32))
        low, high = layer.bounds(np.float32(0), np.float32(1))
        assert low.dtype == high.dtype == np.float64
        assert high[0] == 2 * float(np.float32(0.1))

    def test_relu(self):
        low, high = ReLU().bounds([-2.0, -1.0, 1.0], [-1.0, 3.0, 2.0])
        assert low.tolist() == [0.0, 0.0, 1.0]
        assert high.tolist() == [0.0, 3.0, 2.0]

    @pytest.mark.parametrize("layer", [random_dense(0, 3, 2), ReLU()])
    def test_bad_intervals(self, layer):
        with pytest.raises(ArgumentError, match="low 2 and high 1"):
            layer.bounds([0, 2, 0], [1, 1, 1])
        with pytest.raises(ArgumentError, match="low nan"):
            layer.bounds(np.nan, 1)
        with pytest.raises(ShapeError, match=r"same shape, got \(2,\) and \(3,\)"):
            layer.bounds([0, 0], [1, 1, 1])

    def test_wrong_number_of_features(self):
        with pytest.raises(ShapeError, match="scalars or have 3 entries"):
            random_dense(0, 3, 2).bounds([0, 0], [1, 1])
