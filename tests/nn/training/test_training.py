"""The pieces of a training step, and one step worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import nn
from nn.layers import Dense, ReLU
from nn.layers.layer import parameters
from nn.losses import LOSSES
from nn.models.mlp import dense_layers
from nn.training import steps as training
from nn.training.optimizers import SGD


def test_one_step_by_hand():
    # The second row leaves the second hidden unit at rest. All numbers are exact in binary.
    layers = [
        Dense(np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.0, 0.5])),
        ReLU(),
        Dense(np.array([[1.0, 0.0], [-1.0, 2.0]]), np.array([0.0, 1.0])),
    ]
    x = np.array([[1.0, 2.0], [1.0, -1.0]])
    targets = np.array([[0.0, 1.0], [1.0, 0.0]])
    loss = LOSSES["squared_error"]

    scores = training.forward(layers, x)
    assert scores.tolist() == [[-1.5, 8.0], [0.5, 1.0]]
    assert loss.value(scores, targets) == 13.125

    training.backward(layers, loss.gradient(scores, targets))
    assert [gradient.tolist() for gradient in layers[2].gradients] == [
        [[-1.625, 7.25], [-2.625, 12.25]],
        [-1.0, 4.0],
    ]
    assert [gradient.tolist() for gradient in layers[0].gradients] == [
        [[-1.0, 7.75], [-1.25, 15.5]],
        [-1.0, 7.75],
    ]

    training.update(layers, SGD(learning_rate=0.5, momentum=0.9))
    assert [array.tolist() for array in parameters(layers)] == [
        [[1.5, -4.875], [1.125, -5.75]],
        [0.5, -3.375],
        [[1.8125, -3.625], [0.3125, -4.125]],
        [0.5, -1.0],
    ]


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), hidden=st.lists(st.integers(1, 5), max_size=3))
def test_gradients_of_whole_networks(name, seed, hidden):
    random = np.random.default_rng(seed)
    layers = dense_layers((3, *hidden, 4), random)
    for layer in layers[::2]:
        layer.bias += random.normal(size=layer.bias.shape)
    x, targets = random.normal(size=(5, 3)), np.eye(4)[random.integers(4, size=5)]
    loss = LOSSES[name]

    def value():
        return loss.value(training.forward(layers, x), targets)

    training.backward(layers, loss.gradient(training.forward(layers, x), targets))
    gradients = [gradient.copy() for layer in layers for gradient in layer.gradients]
    step = 1e-7
    for parameter, gradient in zip(parameters(layers), gradients, strict=True):
        direction = random.normal(size=parameter.shape)
        before = parameter.copy()
        parameter += step * direction
        above = value()
        parameter -= 2 * step * direction
        slope = (above - value()) / (2 * step)
        parameter[...] = before
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-4, abs=1e-5)


class Recorder(SGD):
    """An optimizer that returns other arrays than it was given, as one on shares does."""

    def step(self, parameters, gradients, *, scale=1.0):
        return [p - scale * g for p, g in zip(parameters, gradients, strict=True)]


def test_update_puts_new_arrays_into_the_layers():
    layers = [Dense(np.array([[1.0]]), np.array([2.0])), ReLU(), Dense(np.eye(1), np.zeros(1))]
    old = parameters(layers)
    training.forward(layers, np.array([[3.0]]))
    training.backward(layers, np.array([[1.0]]))
    training.update(layers, Recorder(), scale=0.5)
    assert [array.tolist() for array in parameters(layers)] == [
        [[-0.5]],
        [1.5],
        [[-1.5]],
        [-0.5],
    ]
    assert [array.tolist() for array in old] == [[[1.0]], [2.0], [[1.0]], [0.0]]


@given(st.integers(0, 50), st.integers(1, 60), st.integers(0, 2**32))
def test_batches_hold_every_row_once(rows, batch_size, seed):
    batches = list(training.shuffled_batches(rows, batch_size, np.random.default_rng(seed)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(rows))


def test_batches_are_shuffled_and_repeat_with_the_seed():
    def order(random):
        return np.concatenate(list(training.shuffled_batches(100, 7, random))).tolist()

    random = np.random.default_rng(0)
    first, second = order(random), order(random)
    assert first != second != list(range(100))
    assert order(np.random.default_rng(0)) == first


def threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


class ThreadCounter(SGD):
    def step(self, parameters, gradients, *, scale=1.0):
        self.seen = threads()
        return super().step(parameters, gradients, scale=scale)


def test_small_steps_use_one_thread_and_large_ones_those_that_are_set(monkeypatch):
    with threadpool_limits(2, user_api="blas"):
        before, optimizer = threads(), ThreadCounter()
        X, y = np.eye(3), [0, 1, 2]
        nn.MLP((3, 5, 3)).fit(X, y, optimizer=optimizer)
        assert optimizer.seen == [1] * len(before)
        assert threads() == before
        # The largest product of a step has 3 rows, 3 features and 5 outputs.
        monkeypatch.setattr(training, "_LARGE_PRODUCT", 45)
        nn.MLP((3, 5, 3)).fit(X, y, optimizer=optimizer)
        assert optimizer.seen == before
        monkeypatch.setattr(training, "_LARGE_PRODUCT", 46)
        nn.MLP((3, 5, 3)).fit(X, y, optimizer=optimizer)
        assert optimizer.seen == [1] * len(before)
