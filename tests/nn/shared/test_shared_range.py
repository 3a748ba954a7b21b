"""Training on shares that leaves its range is an error, however the values look modulo 2^64."""

import numpy as np
import pytest

import mpc
import nn
import nn.shared.training
from mpc.protocols import linear
from nn.fixed_point.bounds import interval_bounds
from nn.layers import BatchNorm, Dense, ReLU, Scale
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape
from nn.shared.range import RangeWatch
from nn.training.optimizers import SGD, Adam

PARTIES = {2: ("alice", "bob"), 3: ("alice", "bob", "carol")}
LIMIT = 2**15


@pytest.fixture(params=PARTIES, ids=lambda n: f"{n} parties")
def session(request):
    with mpc.Session(PARTIES[request.param]) as s:
        yield s


@pytest.fixture(scope="module")
def digits():
    X, _, y, _ = nn.load_digits_8x8()
    return X[:512].astype(float), y[:512]


def words(session, values, frac_bits=32):
    """Share words of the ring, wherever they lie."""
    array = np.array(values, np.uint64)
    shares = np.random.default_rng(1).integers(
        0, 2**64, (session.size, *array.shape), dtype=np.uint64
    )
    shares[0] += array - shares.sum(axis=0, dtype=np.uint64)
    return mpc.SharedArray(session, shares, frac_bits, 2**62)


def apart(session):
    """Watch as between processes, where nobody can look at values."""
    watch = RangeWatch(session)
    watch.sees_values = False
    return watch


TOP = LIMIT << 32
BEYOND = [TOP, TOP + 1, 2**50, 2**61, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**63 + TOP, 2**64 - 2**62,
          2**64 - 2**50, 2**64 - TOP, 3 * 2**62 + 12345, 2**63 + 2**20]  # fmt: skip


@pytest.mark.parametrize("word", BEYOND, ids=hex)
def test_one_number_beyond_the_limit_is_found_wherever_it_lies(session, word):
    watch = apart(session)
    others = np.random.default_rng(2).integers(-(2**34), 2**34, 700).astype(np.uint64)
    for place in (0, 300, 699):
        others[place] = word
        watch.begin()
        watch.add_sums(words(session, others), LIMIT)
        watch.gather()
        assert not watch.in_range()
        watch.compare(words(session, others[place : place + 1]), LIMIT)
        assert not watch.in_range()
        others[place] = 0


def test_numbers_that_wrap_together_are_found(session):
    watch = apart(session)
    random = np.random.default_rng(3)
    for values in (
        np.full(256, 2**63, np.uint64),
        np.tile(np.array([2**62, 2**64 - 2**62], np.uint64), 128),
        random.integers(0, 2**64, 256, dtype=np.uint64),
        random.integers(0, 2, 256).astype(np.uint64) << np.uint64(63),
    ):
        watch.begin()
        watch.add_sums(words(session, values), LIMIT)
        watch.gather()
        assert not watch.in_range()


@pytest.mark.parametrize(
    ("word", "inside"),
    [(TOP // 2 - 1, True), (TOP // 2, False), (2**64 - TOP // 2, True), (2**64 - TOP // 2 - 1, False),
     (2**63 - 1, False), (2**63, False), (0, True)],
)  # fmt: skip
def test_a_sum_is_looked_at_on_both_sides(session, word, inside):
    watch = apart(session)
    watch.coins = np.ones_like(watch.coins)
    watch.add_sums(words(session, [word]), LIMIT)
    watch.gather()
    assert watch.in_range() == inside


def test_what_is_inside_passes(session):
    watch = apart(session)
    random = np.random.default_rng(4)
    # At the norm that is promised to pass, and far below it.
    near = random.normal(size=(30, 256))
    near *= LIMIT / 12 / np.linalg.norm(near, axis=1, keepdims=True)
    one = np.zeros(256)
    one[7] = -LIMIT / 12
    for values in (near, np.zeros(3), one, random.normal(size=(5, 7)), np.ones(1000)):
        watch.begin()
        watch.add_sums(
            words(session, np.rint(values * 2**32).astype(np.int64).view(np.uint64)), LIMIT
        )
        watch.gather()
        edges = [LIMIT - 2**-20, -LIMIT + 2**-20, 0.0]
        watch.compare(
            words(session, np.rint(np.array(edges) * 2**32).astype(np.int64).view(np.uint64)), LIMIT
        )
        assert watch.in_range()


def network():
    return nn.MLP((64, 32, 10), random_state=0)


def train(session, X, y, bound, **how):
    data = session.share(X, "alice", bound=bound), session.share(nn.one_hot(y, 10), "bob", bound=1)
    return network().fit(*data, **{"epochs": 2, "batch_size": 64, **how})


DIVERGING = {
    "rate 10": (1, {"learning_rate": 10.0}),
    "rate 100": (1, {"learning_rate": 100.0}),
    "rate 10000": (1, {"learning_rate": 1e4}),
    "momentum": (1, {"optimizer": SGD(8.0, momentum=0.99)}),
    "wide inputs": (255, {}),
    "wider inputs": (30000, {}),
    "squared error": (1, {"loss": "squared_error", "learning_rate": 10.0}),
    "squared error, wide": (255, {"loss": "squared_error"}),
    "adam, rate": (1, {"optimizer": Adam(100.0)}),
    "adam, inputs of bytes": (255, {"optimizer": "adam"}),
    "adam, wide": (30000, {"optimizer": "adam"}),
    "constant rate": (1, {"learning_rate": 20.0, "schedule": "constant"}),
}


@pytest.mark.parametrize("case", DIVERGING)
@pytest.mark.parametrize("here", [True, False], ids=["values", "shares alone"])
def test_a_training_that_leaves_its_range_is_an_error(digits, case, here, monkeypatch):
    X, y = digits
    factor, how = DIVERGING[case]
    if not here:  # as between processes, where nobody can look at values
        begin = RangeWatch.begin
        monkeypatch.setattr(
            RangeWatch, "begin", lambda watch: (setattr(watch, "_local", False), begin(watch))
        )
    with mpc.Session() as s:
        with pytest.raises(mpc.RangeError, match=r"in epoch \d.*a lower learning_rate may help"):
            train(s, X * factor, y, factor, **how)


@pytest.mark.parametrize("case", ["rate 10000", "wider inputs", "adam, inputs of bytes"])
def test_without_the_check_it_is_not(digits, case):
    """What the check is for: the same runs end without an error, and their weights are wrong."""
    X, y = digits
    factor, how = DIVERGING[case]
    with mpc.Session() as s:
        found = train(s, X * factor, y, factor, check_range=False, **how).reveal().parameters
    with np.errstate(all="ignore"):
        try:
            plain = network().fit(X * factor, y, epochs=2, batch_size=64, **how).parameters
        except mpc.ArgumentError:  # diverges there too
            return
    assert max(np.abs(a - b).max() for a, b in zip(found, plain, strict=True)) > 0.1


@pytest.mark.parametrize(
    ("factor", "how"),
    [
        (1, {}), (1, {"learning_rate": 1.0}), (16, {"learning_rate": 0.01}), (1, {"optimizer": "adam"}),
        (16, {"optimizer": "adam"}), (1, {"loss": "squared_error", "learning_rate": 0.02}),
        (1, {"optimizer": Adam(weight_decay=0.1)}),
    ],
)  # fmt: skip
def test_a_training_that_stays_inside_is_not(digits, factor, how):
    X, y = digits
    plain = network().fit(X * factor, y, epochs=2, batch_size=64, **how).parameters
    with mpc.Session() as s:
        found = train(s, X * factor, y, factor, **how).reveal().parameters
    assert max(np.abs(a - b).max() for a, b in zip(found, plain, strict=True)) < 0.05


def test_what_leaves_the_range_in_the_middle_of_an_epoch_and_comes_back(digits, monkeypatch):
    X, y = digits
    calls = []

    def spoil(step):
        def spoiled(trainer, x, targets, scale, weights=None):
            step(trainer, x, targets, scale, weights)
            if not trainer.session.here:
                return
            calls.append(1)
            if len(calls) == 3:  # of 16 steps
                trainer.kept = trainer.weights
                trainer.weights = (trainer.weights * 2**17).truncate()
                trainer.weights = linear.at_bits(trainer.weights, 24)
            elif len(calls) == 4:
                trainer.weights = trainer.kept

        return spoiled

    monkeypatch.setattr(
        nn.shared.training.SharedTrainer, "step", spoil(nn.shared.training.SharedTrainer.step)
    )
    with mpc.Session() as s, pytest.raises(mpc.RangeError, match="in epoch 1"):
        train(s, X[:384], y[:384], 1, epochs=1)


def test_activations_for_validation_rows_are_looked_at(digits):
    X, y = digits
    with mpc.Session() as s:
        targets = s.share(nn.one_hot(y, 10), "bob", bound=1)
        small, large = (s.share(X * f, "alice", bound=20000) for f in (1, 20000))
        with pytest.raises(mpc.RangeError, match="after epoch 1, .*layer 1"):
            network().fit(small, targets, validation=(large, targets), epochs=1, batch_size=64)


def conv(pool):
    return nn.Sequential(
        [Reshape(8, 8, 1), Convolution.untrained(1, 4, kernel=3), pool(2), ReLU(), Flatten(),
         Dense.untrained(36, 10)],
        64, random_state=3,
    )  # fmt: skip


def smooth():
    return nn.Sequential(
        [Dense.untrained(64, 16), Sigmoid(), Dense.untrained(16, 16), Tanh(), Dense.untrained(16, 10)],
        64, random_state=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    "make", [network, lambda: conv(MaxPool), lambda: conv(AveragePool), smooth],
    ids=["dense", "max pool", "average pool", "sigmoid and tanh"],
)  # fmt: skip
@pytest.mark.parametrize("bound", [1, 100, None])
def test_the_range_of_a_trained_model_is_one_that_it_was_found_right_for(digits, make, bound):
    X, y = digits
    with mpc.Session() as s:
        data = s.share(X, "alice", bound=bound), s.share(nn.one_hot(y, 10), "bob", bound=1)
        secret = make().fit(*data, epochs=1, batch_size=64, learning_rate=0.02)
        high = float(secret.high)
        assert secret.low == -high

        def reach(end):
            layers, row = secret.reveal().layers, np.full(X.shape[1], end)
            return max(np.abs(b).max() for pair in interval_bounds(layers, -row, row) for b in pair)

        assert reach(high) < LIMIT
        # Not more than it takes: the next larger would be too large, or was not asked for.
        if high < (bound or LIMIT):
            assert reach(2 * high) > 0.95 * LIMIT
        with pytest.raises(mpc.RangeError, match="public bound"):
            secret.predict(s.share(X, "alice", bound=1.01 * high))
        assert len(secret.predict(s.share(X, "alice", bound=min(high, 1)))) == len(X)


@pytest.mark.parametrize("rule", [SGD(0.5, weight_decay=0.9), Adam(0.5, weight_decay=0.9)])
def test_decay_of_large_weights_is_watched(rule):
    """Of a weight of 2^14 the decay alone is more than a step has room for."""
    from nn.shared.optimizers import on_shares

    with mpc.Session() as s:
        watch = RangeWatch(s)
        watch.sees_values = False
        step = on_shares(rule, s)
        zeros = s.share(np.zeros(3), "alice") * s.share(np.zeros(3), "bob")
        for weight, inside in ((2.0, True), (2.0**14, False)):
            weights = linear.at_bits(s.share(np.full(3, weight), "alice"), 24)
            watch.begin()
            step.step(weights, zeros, 1, 1.0, watch)
            watch.gather()
            assert watch.in_range() == inside


# Two for which a truncation may or may not wrap around, some for which everything does.
GRADIENTS = [(0.5, True), (6.25, True), (6.5, False), (8.0, False), (12.649, False), (16.0, False)]
GRADIENTS += [(64.0, False), (200.0, False), (250.0, False)]


@pytest.mark.parametrize(("gradient", "inside"), GRADIENTS)
def test_adams_second_moment_is_looked_at(gradient, inside):
    """(16 g)^2 / 10 must be below 2^10. It wraps around from there on: at 2^12 to 0."""
    from nn.shared.optimizers import on_shares

    with mpc.Session() as s:
        watch = RangeWatch(s)
        watch.sees_values = False
        step = on_shares(Adam(0.01, beta_2=0.9), s)
        g = s.share(np.full(3, gradient), "alice") * s.share(np.ones(3), "bob")
        watch.begin()
        with s.range_policy.vouched():
            step.step(linear.at_bits(s.share(np.zeros(3), "alice"), 24), g, 1, 1.0, watch)
        watch.gather()
        assert watch.in_range() == inside


def test_where_values_are_looked_at_sums_do_not_decide(digits):
    """Inputs up to 16 make activations that sums take for outside, and no result wrong."""
    X, y = digits
    with mpc.Session() as s:
        assert np.isfinite(train(s, X * 16, y, 16, learning_rate=0.01).reveal().score(X * 16, y))
        watch = RangeWatch(s)
        watch.begin()
        watch.add_sums(words(s, [2**62]), LIMIT)
        watch.gather()
        assert watch.in_range()
        watch.compare(words(s, [2**62]), LIMIT)
        assert not watch.in_range()


@pytest.mark.parametrize("here", [True, False], ids=["values", "shares alone"])
def test_running_statistics_that_leave_the_range_are_an_error(here, monkeypatch):
    if not here:
        monkeypatch.setattr(nn.shared.training, "RangeWatch", apart)
    X = np.random.default_rng(0).uniform(-1, 1, (32, 2))
    layers = [BatchNorm.untrained(2), Dense.untrained(2, 2)]
    norm = BatchNorm(np.full(2, 100.0), np.zeros(2), np.full(2, 3e4), np.zeros(2), momentum=0.999)
    model = nn.Sequential.from_layers([norm, Dense(np.eye(2) / 128, np.zeros(2))], n_features=2)
    layers[0].momentum = 0.999
    with mpc.Session() as s:
        data = (
            s.share(X, owner="alice", bound=1),
            s.share(nn.one_hot((X[:, 0] > 0) * 1), owner="bob"),
        )
        how = {"epochs": 1, "batch_size": 32, "learning_rate": 2.0**-10, "start": model}
        with pytest.raises(mpc.RangeError, match="running statistics of"):
            nn.Sequential(layers, 2, random_state=0).fit(*data, **how)


def test_products_of_a_scale_that_wrap_around_to_0_are_an_error():
    X = np.full((8, 2), 4096.0)
    scale = Scale(np.full(2, 4096.0), np.zeros(2))
    start = nn.Sequential.from_layers([scale, Dense(np.eye(2) / 128, np.zeros(2))], n_features=2)
    network = nn.Sequential(start.layers, 2, random_state=0)
    with mpc.Session() as s:
        data = s.share(X, owner="alice", bound=4096), s.share(nn.one_hot([0, 1] * 4), owner="bob")
        with pytest.raises(mpc.RangeError, match=r"the products of layer 1, Scale\(2\)"):
            network.fit(*data, epochs=1, batch_size=8, learning_rate=2.0**-10, start=start)
