"""Steps on shares against steps in float64: gradients, openings, optimizers."""

from collections import Counter

import numpy as np
import pytest

import mpc
import nn
from mpc.protocols import masking, product
from nn.layers.layer import parameters
from nn.losses import LOSSES
from nn.models.mlp import dense_layers
from nn.shared.optimizers import on_shares
from nn.shared.training import SharedTrainer
from nn.training import steps as training
from nn.training.optimizers import SGD, Adam

NAMES = ("alice", "bob", "carol")
UNIT = 2.0**-16


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def session(request):
    with mpc.Session(NAMES[: request.param]) as s:
        yield s


def fixed(x):
    return np.round(np.asarray(x) / UNIT) * UNIT


def problem(rows=40, sizes=(12, 9, 7, 5), seed=0):
    """Return layers, rows and one-hot targets."""
    random = np.random.default_rng(seed)
    layers = dense_layers(sizes, random)
    for layer in layers[::2]:
        layer.bias += random.normal(scale=0.1, size=layer.bias.shape)
    X = fixed(random.uniform(0, 1, (rows, sizes[0])))
    return layers, X, nn.one_hot(random.integers(sizes[-1], size=rows), sizes[-1])


def share(session, X, Y):
    return (
        session.share(X, owner="alice", bound=1),
        session.share(Y, owner=session.parties[-1], bound=1),
    )


def trainer(session, layers, loss="cross_entropy", rule=None):
    rule = SGD(0.5, momentum=0) if rule is None else rule
    return SharedTrainer(session, layers, LOSSES[loss], on_shares(rule, session))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_gradients_are_those_of_the_plain_network(session, loss):
    layers, X, Y = problem()
    secret = trainer(session, layers, loss)
    secret.gradients(*share(session, X, Y))
    scores = training.forward(layers, X)
    # On shares the gradient is the sum over the rows, not their mean.
    training.backward(layers, LOSSES[loss].gradient(scores, Y.astype(float)) * len(X))
    for ours, plain in zip(secret.layers, layers, strict=True):
        for found, expected in zip(ours.gradients, plain.gradients, strict=True):
            np.testing.assert_allclose(found.reveal(), expected, rtol=0, atol=40 * 8 * UNIT)
            assert np.abs(expected).max() > 0.5


def test_nothing_is_opened_twice(session, monkeypatch):
    """Each tensor is masked once, whatever the number of products it takes part in."""
    masked, products = Counter(), Counter()
    mask, multiply = masking._mask, product.matmul

    def listen(fresh):
        masked.update(x.shape for x in fresh)
        mask(fresh)

    def count(x, w):
        products["matmul"] += 1
        return multiply(x, w)

    monkeypatch.setattr(masking, "_mask", listen)
    monkeypatch.setattr(product, "matmul", count)
    layers, X, Y = problem()
    x, targets = share(session, X, Y)
    secret = trainer(session, layers, "squared_error")
    x.mask_data()
    for start in (0, 20):
        masked.clear()
        products.clear()
        before = session.cost()
        secret.step(x[start : start + 20], targets[start : start + 20], 1.0)
        spent = (session.cost() - before).by_protocol
        size = secret.weights.size
        # The parameters, each hidden layer's output, the gradient at each layer's output; that of the
        # first goes to the rows' owner alone.
        assert masked == Counter({(size,): 1, (20, 9): 1, (20, 7): 2, (20, 5): 1})
        # Three forward, three for weights, two for inputs.
        assert products["matmul"] == 8
        others = 8 * (session.size - 1)
        assert spent["masking"].bytes_sent == others * size
        assert spent["product"].bytes_sent == others * 20 * (9 + 7 + 5 + 7) + 8 * 20 * 9
        assert spent["product"].rounds == 5
        # The ReLU's bits cost nothing on the way back, apart from the truncation's opening.
        assert set(spent) == {"masking", "product", "relu", "truncation", "gate", "combination"}
        assert spent["gate"].bytes_sent == others * 20 * (9 + 7)
        assert spent["gate"].rounds == 2


def test_rounds_of_a_step(session):
    layers, X, Y = problem(sizes=(12, 9, 7, 10))
    x, targets = share(session, X, Y)
    secret = trainer(session, layers)
    x.mask_data()
    before = session.cost()
    secret.step(x, targets, 1.0)
    cost = session.cost() - before
    assert cost.rounds == 24
    assert cost.by_protocol["softmax"].rounds == 9


RULES = [
    SGD(0.25, momentum=0),
    SGD(0.25, momentum=0.75),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, weight_decay=0.05),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_steps_follow_the_plain_optimizer(session, rule, loss):
    """Ten steps of different sizes; the last batch of an epoch is shorter."""
    layers, X, Y = problem(rows=50)
    secret = trainer(session, layers, loss, rule)
    x, targets = share(session, X, Y)
    rule.reset()
    scales = [1.0, 0.7, 0.33]
    for step in range(9):
        rows = [slice(0, 16), slice(16, 32), slice(32, 50)][step % 3]
        scale = scales[step % 3]
        secret.step(x[rows], targets[rows], scale)
        scores = training.forward(layers, X[rows])
        training.backward(layers, LOSSES[loss].gradient(scores, Y[rows].astype(float)))
        training.update(layers, rule, scale)
    secret.place()
    moved = 0.0
    for found, expected in zip(secret.views(), parameters(layers), strict=True):
        np.testing.assert_allclose(found.reveal(), expected, rtol=0, atol=3e-4)
        moved = max(moved, np.abs(expected).max())
    assert moved > 0.1


@pytest.mark.parametrize("rule", [Adam(0.01), Adam(2.0**-6, weight_decay=0.1)], ids=repr)
def test_adam_on_shares_is_close_to_adam(session, rule):
    layers, X, Y = problem(rows=48)
    start = [p.copy() for p in parameters(layers)]
    secret = trainer(session, layers, "cross_entropy", rule)
    x, targets = share(session, X, Y)
    rule.reset()
    for _ in range(8):
        secret.step(x, targets, 1.0)
        scores = training.forward(layers, X)
        training.backward(layers, LOSSES["cross_entropy"].gradient(scores, Y.astype(float)))
        training.update(layers, rule)
    secret.place()
    for found, expected, at_first in zip(secret.views(), parameters(layers), start, strict=True):
        moved = np.abs(expected - at_first)
        # 1e-3 from the inverse root, as much from beta_2, the rest from gradients near zero.
        error = np.abs(found.reveal() - expected)
        assert error.max() < 0.02 * moved.max() + UNIT
        assert np.median(error) < 0.004 * np.median(moved) + UNIT


def test_power_of_two_rates_are_part_of_the_truncation():
    """A rate of 2^-4 over 128 rows is a shift, whatever the schedule does in powers of two."""
    with mpc.Session() as s:
        optimizer = on_shares(SGD(2.0**-4), s)
        for scale in (1.0, 0.5, 0.125):
            f = optimizer.fraction(-(2.0**-4) * scale / 128, 32)
            assert f.numerator == -1
        assert optimizer.fraction(-0.1 / 128, 32).bits <= 24


def test_a_rate_that_the_format_cannot_hold():
    with mpc.Session() as s, pytest.raises(mpc.RangeError, match="learning_rate must be at least"):
        on_shares(SGD(1e-9), s)


def test_an_optimizer_that_is_not_there():
    class Other(SGD.__base__):
        def reset(self):
            pass

        def step(self, parameters, gradients, *, scale=1.0):
            return list(parameters)

    with mpc.Session() as s, pytest.raises(mpc.DtypeError, match="SGD or Adam"):
        on_shares(Other(), s)


def test_training_goes_on_from_a_secret_model():
    """Initial weights may be secret too: those of a shared model."""
    layers, X, Y = problem()
    model = nn.MLP.from_parameters(parameters(layers))
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        ours = SharedTrainer(
            s, secret.layers, LOSSES["cross_entropy"], on_shares(SGD(0.5, momentum=0), s)
        )
        ours.step(*share(s, X, Y), 1.0)
        ours.place()
        scores = training.forward(layers, X)
        training.backward(layers, LOSSES["cross_entropy"].gradient(scores, Y.astype(float)))
        training.update(layers, SGD(0.5, momentum=0))
        for found, expected in zip(ours.views(), parameters(layers), strict=True):
            np.testing.assert_allclose(found.reveal(), expected, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def alone():
    """Two parties without a provider."""
    with mpc.Session(provider=None) as s:
        yield s


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_gradients_without_a_provider(alone, loss):
    test_gradients_are_those_of_the_plain_network(alone, loss)


def test_steps_without_a_provider(alone):
    test_steps_follow_the_plain_optimizer(alone, loss="cross_entropy", rule=RULES[3])
    test_adam_on_shares_is_close_to_adam(alone, Adam(0.01))


def test_a_convolutional_network_without_a_provider(alone):
    """The gradients of images: of a batch, of kernels with a stride and padding, behind a pooling."""
    random = np.random.default_rng(1)

    def draw(*shape):
        return fixed(random.normal(scale=0.3, size=shape))

    layers = [
        nn.layers.Convolution(draw(3, 3, 1, 4), draw(4), padding=1),
        nn.layers.ReLU(),
        nn.layers.MaxPool(2),
        nn.layers.Convolution(draw(2, 2, 4, 3), draw(3), stride=(2, 1)),
        nn.layers.ReLU(),
        nn.layers.Flatten(),
        nn.layers.Dense(draw(18, 3), draw(3)),
    ]
    X, Y = fixed(random.random((6, 8, 8, 1))), nn.one_hot(np.arange(6) % 3, 3)
    secret = trainer(alone, layers, "cross_entropy")
    secret.gradients(*share(alone, X, Y))
    scores = training.forward(layers, X)
    training.backward(layers, LOSSES["cross_entropy"].gradient(scores, Y.astype(float)) * len(X))
    for ours, plain in zip(secret.layers, layers, strict=True):
        for found, expected in zip(ours.gradients, plain.gradients, strict=True):
            np.testing.assert_allclose(found.reveal(), expected, rtol=0, atol=40 * 8 * UNIT)
            assert np.abs(expected).max() > 0.1
