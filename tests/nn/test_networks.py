"""The papers' networks: their shapes, training, and evaluation on shares."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Dense, ReLU
from nn.layers.convolution import Convolution
from nn.layers.dropout import Dropout
from nn.layers.normalisation import BatchNorm
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape
from nn.models.trainable import NotFittedError

PARTIES = {2: ("alice", "bob"), 3: ("alice", "bob", "carol")}
MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "mnist"
NETWORKS = {"A": 118_282, "B": 33_542, "C": 431_080, "D": 99_240}


def small(random_state=0, pool=MaxPool):
    """Every kind of layer, for the 8x8 digits."""
    layers = [
        Reshape(8, 8, 1),
        Convolution.untrained(1, 6, kernel=3, padding="same"),
        BatchNorm.untrained(6),
        pool(2),
        ReLU(),
        Convolution.untrained(6, 8, kernel=2, stride=2),
        ReLU(),
        Flatten(),
        Dropout(0.1),
        Dense.untrained(32, 10),
    ]
    return nn.Sequential(layers, n_features=64, random_state=random_state)


@pytest.fixture(scope="module")
def digits():
    return nn.load_digits_8x8()


@pytest.fixture(scope="module", params=[MaxPool, AveragePool], ids=["max", "average"])
def trained(request, digits):
    X, _, y, _ = digits
    return small(pool=request.param).fit(X, y, epochs=20, batch_size=32)


@pytest.fixture(scope="module")
def images():
    """Rows of 784 pixels that have something to learn: a bar whose place is the label."""
    random = np.random.default_rng(0)
    y = np.arange(240) % 10
    X = random.uniform(0, 0.3, size=(240, 28, 28))
    X[np.arange(240), :, 2 * y + 4] = 1
    X[:, 0, 0] = 0
    return X.reshape(240, 784), y


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_counted(name):
    model = getattr(nn.networks, name)(random_state=0)
    assert model.n_parameters == NETWORKS[name]
    assert model.n_features_in_ == 784
    with pytest.raises(NotFittedError):
        model.predict(np.zeros((1, 784)))


def test_shapes_along_the_way():
    def shapes(model):
        shape, found = (784,), []
        for layer in model.architecture:
            shape = layer.output_shape(shape)
            found.append(shape)
        return found

    assert (12, 12, 20) in shapes(nn.networks.C()) and (800,) in shapes(nn.networks.C())
    assert (256,) in shapes(nn.networks.B())
    assert (14, 14, 5) in shapes(nn.networks.D()) and (980,) in shapes(nn.networks.D())


def test_training(trained, digits):
    _, X, _, y = digits
    assert trained.score(X, y) > 0.93
    assert trained.loss_curve_[-1] < trained.loss_curve_[0] / 5
    assert trained.predict_proba(X[:3]).sum(axis=1) == pytest.approx(1)


def test_the_same_seed_gives_the_same_model(digits):
    X, _, y, _ = digits
    first, again = (small(3).fit(X[:200], y[:200], epochs=2) for _ in range(2))
    for a, b in zip(first.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    other = small(4).fit(X[:200], y[:200], epochs=2)
    assert (other.parameters[0] != first.parameters[0]).any()


@pytest.mark.parametrize("parties", PARTIES)
def test_scores_on_shares(trained, digits, parties):
    _, X, _, _ = digits
    with mpc.Session(PARTIES[parties]) as s:
        secret = trained.share(s, owner="alice")
        assert not any(isinstance(layer, (BatchNorm, Dropout)) for layer in secret.layers)
        rows = secret.share_rows(X[:100], owner=s.parties[-1])
        scores = secret(rows, batch_size=70).reveal()
    np.testing.assert_allclose(scores, trained.decision_function(X[:100]), atol=3e-3)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_on_shares(name, parties, images):
    X, y = images
    model = getattr(nn.networks, name)(random_state=0)
    model.fit(X.astype(np.float32), y, epochs=1, learning_rate=0.02, batch_size=24)

    def program(s):
        secret = model.share(s, owner="alice")
        return secret(secret.share_rows(X[:9], owner="bob")).reveal()

    with mpc.Session(PARTIES[parties]) as s:
        plan = s.plan(program)
        scores = program(s)
        assert plan.cost == s.cost()
        assert plan.cost.trips == s.cost().trips
    np.testing.assert_allclose(scores, model.decision_function(X[:9]), atol=3e-3)


@pytest.mark.parametrize(
    ("name", "megabytes", "rounds"), [("A", 0.022, 13), ("B", 0.45, 29), ("C", 0.65, 29), ("D", 0.06, 13)]
)  # fmt: skip
def test_bytes_and_rounds_of_one_image(name, megabytes, rounds, images):
    X, y = images
    model = getattr(nn.networks, name)(random_state=0).fit(X[:24], y[:24], epochs=1)
    costs = []

    def program(s):
        secret = model.share(s, owner="alice")
        for _ in range(2):
            secret.predict(secret.share_rows(None, owner="bob", rows=1))
            costs.append(s.cost())

    with mpc.Session() as s:
        s.plan(program)
    once = costs[1] - costs[0]
    assert once.rounds == rounds
    assert sum(once.total.sent) <= megabytes * 1e6
    assert once.bytes_sent_per_party == max(once.total.sent)


@pytest.mark.parametrize(("to", "more"), [("bob", 2), (None, 3)])
def test_a_label_takes_few_trips_more_than_scores(to, more, images):
    X, y = images
    model = nn.networks.A(random_state=0).fit(X[:24], y[:24], epochs=1)

    def trips(ask):
        costs = []

        def program(s):
            secret = model.share(s, owner="alice")
            for _ in range(2):
                ask(secret, secret.share_rows(None, owner="bob", rows=1))
                costs.append(s.cost())

        with mpc.Session() as s:
            s.plan(program)
        return (costs[1] - costs[0]).trips

    scores = trips(lambda secret, rows: secret(rows).reveal(to=to))
    label = trips(lambda secret, rows: secret.predict(rows, to=to))
    assert label - scores == more


def test_batches_follow_the_memory_limit(images):
    X, y = images
    model = nn.networks.B(random_state=0).fit(X[:24], y[:24], epochs=1)
    counts = []
    for limit in (1 << 24, 1 << 28):
        with mpc.Session(memory_limit=limit) as s:
            counts.append(model.share(s, owner="alice").rows_at_once())
    assert 1 <= counts[0] < counts[1]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Convolution.untrained(1, 2, 3)], r"layer 1: Convolution\(1, 2.*got shape \(784,\)"),
        ([Reshape(28, 28)], r"layer 1, Reshape\(28, 28\), must have one axis of scores"),
        ([Reshape(28, 27, 1)], r"layer 1: Reshape\(28, 27, 1\) takes rows of 756"),
        ([Reshape(28, 28, 1), Convolution.untrained(3, 2, 3)], r"layer 2: .*3 channels"),
        ([Reshape(28, 28, 1), Convolution.untrained(1, 2, 29)], "layer 2: .*larger than the image"),
        ([Reshape(28, 28, 1), MaxPool(29)], r"layer 2: MaxPool\(\(29, 29\)\) has windows larger"),
        ([Reshape(28, 28, 1), Flatten(), Dense.untrained(783, 10)], r"layer 3: Dense\(783, 10\)"),
        ([Reshape(28, 28, 1), BatchNorm.untrained(2)], r"layer 2: BatchNorm\(2\)"),
    ],
)  # fmt: skip
def test_layers_that_do_not_chain(layers, message):
    with pytest.raises(mpc.ShapeError, match=message):
        nn.Sequential(layers)


def test_bad_arguments():
    with pytest.raises(mpc.DtypeError, match="layers must be a sequence of layers"):
        nn.Sequential([Dense])
    with pytest.raises(mpc.ArgumentError, match="at least one with parameters"):
        nn.Sequential([ReLU()])
    with pytest.raises(mpc.ArgumentError, match="at least one with parameters"):
        nn.Sequential([])
    with pytest.raises(mpc.ArgumentError, match="random_state"):
        nn.networks.A(random_state=-1)


def test_a_network_that_can_leave_the_range_is_refused(images):
    X, y = images
    model = nn.networks.D(random_state=0).fit(X[:24], y[:24], epochs=1)
    model.layers[1].weights[...] = 3000.0
    with mpc.Session() as s:
        with pytest.raises(mpc.RangeError, match=r"layer 2, Convolution\(1, 5.*its output"):
            model.share(s, owner="alice")
        assert s.fresh_id() == 1, "something was shared"


def test_a_model_of_trained_layers(trained, digits):
    _, X, _, _ = digits
    names = list("abcdefghij")
    model = nn.Sequential.from_layers(trained.layers, 64, classes=names)
    np.testing.assert_array_equal(model.decision_function(X), trained.decision_function(X))
    assert (model.predict(X) == np.array(names)[trained.predict(X)]).all()
    with pytest.raises(mpc.ShapeError, match="one label for each of 10 outputs"):
        nn.Sequential.from_layers(trained.layers, 64, classes=[0, 1])


def test_memory_of_a_batch_of_network_c(images):
    X, y = images
    model = nn.networks.C(random_state=0).fit(X[:24], y[:24], epochs=1)
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        rows = secret.share_rows(X[:128], owner="bob")
        tracemalloc.start()
        try:
            secret(rows, batch_size=128)
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < 1e9
            # What decides how many rows are taken at once is no less than what they take, and
            # not many times as much.
            assert peak / 128 < s.memory_limit / secret.rows_at_once() < 4 * peak / 128
        finally:
            tracemalloc.stop()


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs the idx files of MNIST in ../shared")
def test_mnist_accuracy_of_one_epoch():
    X, X_test, y, y_test = (a.astype(np.float32) if a.ndim > 1 else a for a in nn.load_mnist(MNIST))
    model = nn.networks.D(random_state=0).fit(X, y, epochs=1)
    plain = model.score(X_test[:2000], y_test[:2000])
    assert plain > 0.93
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        rows = secret.share_rows(X_test[:2000], owner="bob")
        found = (secret.predict(rows) == y_test[:2000]).mean()
    assert abs(found - plain) <= 0.001


def test_training_on_shares_follows_training_in_the_clear(digits):
    X, _, y, _ = digits
    # Where all is black, a first ReLU sits at exactly 0, and the places of a tile are all equal.
    X = X * (X > 0.3)
    layers = [
        Reshape(8, 8, 1),
        Convolution.untrained(1, 4, kernel=3),
        MaxPool(2),
        ReLU(),
        Flatten(),
        Dense.untrained(36, 10),
    ]
    options = {
        "epochs": 1, "batch_size": 32, "learning_rate": 0.125, "schedule": "constant",
    }  # fmt: skip
    model = nn.Sequential(layers, 64, random_state=0)
    with mpc.Session() as s:
        secret = model.fit(
            s.share(X[:320], owner="bob", bound=1),
            s.share(nn.one_hot(y[:320], 10), owner="bob", bound=1),
            progress=False,
            **options,
        )
        revealed = secret.reveal(to="alice")
    found = revealed.parameters
    model.fit(X[:320].astype(np.float64), y[:320], **options)
    for array, wanted in zip(found, model.parameters, strict=True):
        np.testing.assert_allclose(array, wanted, atol=5e-3)
    assert isinstance(revealed, nn.Sequential)
    assert (revealed.predict(X) == model.predict(X)).mean() > 0.99
    fresh = layers[1].fresh(np.random.default_rng(0)).parameters[0]
    assert np.abs(found[0] - fresh).max() > 0.05, "nothing was learnt"
