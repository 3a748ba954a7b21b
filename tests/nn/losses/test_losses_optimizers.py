"""Losses, optimizers and schedules against values worked out by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from nn.losses import LOSSES
from nn.losses.links import LINKS, log_probabilities, log_softmax, normalised, softmax
from nn.training.optimizers import OPTIMIZERS, SCHEDULES, SGD, Adam
from ring.errors import ArgumentError, DtypeError, ShapeError

ONE_HOT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 5), classes=st.integers(2, 6))
def test_gradients_are_those_of_finite_differences(name, seed, rows, classes):
    random = np.random.default_rng(seed)
    scores = random.normal(scale=3, size=(rows, classes))
    targets = np.eye(classes)[random.integers(classes, size=rows)]
    gradient = LOSSES[name].gradient(scores, targets)
    for index in np.ndindex(scores.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = scores.copy()
            moved[index] += step
            ends.append(LOSSES[name].value(moved, targets))
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_cross_entropy_by_hand():
    scores = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 4.0]]))
    value = LOSSES["cross_entropy"].value(scores, ONE_HOT)
    assert value == pytest.approx(-(math.log(2 / 8) + math.log(3 / 10)) / 2, abs=1e-12)
    np.testing.assert_allclose(
        LOSSES["cross_entropy"].gradient(scores, ONE_HOT),
        [[1 / 16, -6 / 16, 5 / 16], [-7 / 20, 3 / 20, 4 / 20]],
        atol=1e-12,
    )


def test_squared_error_by_hand():
    scores = np.array([[1.0, 3.0, -1.0], [0.0, 0.0, 0.0]])
    assert LOSSES["squared_error"].value(scores, ONE_HOT) == (6 / 2 + 1 / 2) / 2
    assert LOSSES["squared_error"].gradient(scores, ONE_HOT).tolist() == [
        [0.5, 1.0, -0.5],
        [-0.5, 0.0, 0.0],
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_is_stable_at_large_scores(dtype):
    scores = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    assert LOSSES["cross_entropy"].value(scores, ONE_HOT) == pytest.approx((2e4 + math.log(2)) / 2)
    gradient = LOSSES["cross_entropy"].gradient(scores, ONE_HOT.astype(dtype))
    assert gradient.dtype == dtype
    assert gradient.tolist() == [[0.5, -0.5, 0.0], [-0.25, 0.25, 0.0]]


def test_losses_and_gradients_leave_their_input_alone():
    for loss in LOSSES.values():
        scores, targets = ONE_HOT * 3 - 1, ONE_HOT.copy()
        loss.value(scores, targets)
        loss.gradient(scores, targets)
        LINKS[loss.link](scores)
        assert scores.tolist() == (ONE_HOT * 3 - 1).tolist()
        assert targets.tolist() == ONE_HOT.tolist()


def test_softmax():
    np.testing.assert_allclose(
        softmax(np.log(np.array([[1.0, 2.0, 5.0]]))), [[1 / 8, 2 / 8, 5 / 8]], atol=1e-15
    )
    assert softmax(np.array([[1e30, 0.0]])).tolist() == [[1.0, 0.0]]


def test_logarithms_of_probabilities():
    scores = np.array([[0.0, 3.0], [0.0, 2000.0]])
    logarithms = log_probabilities("softmax", scores)
    np.testing.assert_allclose(np.exp(logarithms), softmax(scores), atol=1e-15)
    assert logarithms[1].tolist() == [-2000.0, 0.0]
    clipped = log_probabilities("normalised", np.array([[-1.0, 0.5]]))
    assert clipped.tolist() == [[-math.inf, 0.0]]


def test_normalised():
    scores = np.array([[-1.0, 0.5, 0.25], [-1.0, -2.0, 0.0], [5.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        normalised(scores), [[0, 2 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], atol=1e-15
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(
    ("scores", "targets"),
    [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,)), ((0, 3), (0, 3))],
)
def test_losses_refuse_shapes_that_do_not_fit(name, scores, targets):
    for function in (LOSSES[name].value, LOSSES[name].gradient):
        with pytest.raises(ShapeError, match="scores and targets must have the same shape"):
            function(np.ones(scores), np.ones(targets))


PLAIN_ONLY = {
    softmax: r"scores\.softmax\(\)",
    log_softmax: r"scores\.log_softmax\(\)",
    normalised: "reveal them first",
    LOSSES["cross_entropy"].value: r"\(targets \* scores\.log_softmax\(\)\)\.sum\(\)",
    LOSSES["cross_entropy"].gradient: r"scores\.softmax\(\) - targets",
    LOSSES["squared_error"].value: r"np\.square\(scores - targets\)\.sum\(\)",
}


@pytest.mark.parametrize("function", PLAIN_ONLY, ids=lambda f: f.__name__)
def test_shared_scores_are_refused_with_what_is_for_them(function):
    scores = np.array([[0.5, -1.0, 2.0], [0.0, 1.0, 1.0]])
    with mpc.Session() as s:
        shared = s.share(scores, owner="alice", bound=2), s.share(ONE_HOT, owner="bob", bound=1)
        pairs = [shared, (scores, shared[1]), (shared[0], ONE_HOT)]
        if function in (softmax, log_softmax, normalised):
            pairs = [(shared[0],)]
        before = s.cost().rounds
        for given in pairs:
            with pytest.raises(DtypeError, match=f"got a SharedArray: .*{PLAIN_ONLY[function]}"):
                function(*given)
        assert s.cost().rounds == before
        # What the messages say gives what the functions give.
        a, b = shared
        for found, wanted in (
            (a.softmax(), softmax(scores)),
            (a.log_softmax(), log_softmax(scores)),
            (-(b * a.log_softmax()).sum() / 2, LOSSES["cross_entropy"].value(scores, ONE_HOT)),
            ((a.softmax() - b) / 2, LOSSES["cross_entropy"].gradient(scores, ONE_HOT)),
            (np.square(a - b).sum() / 4, LOSSES["squared_error"].value(scores, ONE_HOT)),
        ):
            np.testing.assert_allclose(found.reveal(), wanted, atol=1e-2)


@pytest.mark.parametrize("function", [softmax, log_softmax, normalised])
def test_scores_that_are_no_matrix_of_numbers(function):
    for bad, kind in (([1.0, 2.0], ShapeError), ([["x"]], DtypeError), ([[1j]], DtypeError)):
        with pytest.raises(kind, match="scores must h"):
            function(bad)
    np.testing.assert_array_equal(function([[1, 2]]), function(np.array([[1.0, 2.0]])))


def test_sgd_by_hand():
    optimizer = SGD(learning_rate=0.5, momentum=0.25)
    first, second = np.array([1.0, 2.0]), np.array([[4.0]])
    parameters = [first, second]
    optimizer.step(parameters, [np.array([1.0, -1.0]), np.array([[2.0]])])
    assert (first.tolist(), second.tolist()) == ([0.5, 2.5], [[3.0]])
    # Velocities are (-0.5, 0.5) and -1; a quarter of them goes on.
    returned = optimizer.step(parameters, [np.array([0.0, 1.0]), np.array([[-1.0]])], scale=0.5)
    assert (first.tolist(), second.tolist()) == ([0.375, 2.375], [[3.0]])
    assert [a is b for a, b in zip(returned, parameters, strict=True)] == [True, True]


def test_sgd_without_momentum_forgets():
    optimizer, weights = SGD(learning_rate=1, momentum=0), np.array([0.0])
    for _ in range(3):
        optimizer.step([weights], [np.array([1.0])])
    assert weights.tolist() == [-3.0]


def test_sgd_leaves_the_gradients_alone():
    optimizer, gradient = SGD(learning_rate=0.5), np.array([1.0])
    for _ in range(2):
        optimizer.step([np.array([0.0])], [gradient])
    assert gradient.tolist() == [1.0]


def test_adam_follows_the_formula_of_the_paper():
    rate, b1, b2, epsilon = 0.1, 0.8, 0.9, 1e-3
    optimizer, weight = Adam(rate, b1, b2, epsilon), np.array([2.0])
    wanted, m, v = 2.0, 0.0, 0.0
    for t, (gradient, scale) in enumerate([(0.5, 1), (-2.0, 0.5), (0.25, 1), (0.0, 1)], start=1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        wanted -= scale * rate * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + epsilon)
        optimizer.step([weight], [np.array([gradient])], scale=scale)
        assert weight[0] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizers_keep_the_dtype_and_repeat_after_reset(make, dtype):
    optimizer, runs = make(), []
    for _ in range(2):
        optimizer.reset()
        weights = np.array([1.0, -2.0], dtype=dtype)
        for _ in range(3):
            optimizer.step([weights], [weights * 2])
        assert weights.dtype == dtype
        runs.append(weights.tolist())
    assert runs[0] == runs[1]
    assert runs[0][0] < 1
    assert runs[0][1] > -2


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_refuse_lists_that_do_not_fit(make):
    optimizer = make()
    with pytest.raises(ShapeError, match=r"parameters have shapes \[\(2,\)\], but gradients"):
        optimizer.step([np.ones(2)], [np.ones(3)])
    with pytest.raises(ShapeError, match="but gradients have"):
        optimizer.step([np.ones(2)], [])
    optimizer.step([np.ones(2)], [np.ones(2)])
    weights = np.ones(3)
    with pytest.raises(ShapeError, match=r"but earlier steps have \[\(2,\)\]"):
        optimizer.step([weights], [np.ones(3)])
    assert weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
def test_bad_learning_rates(make, value):
    with pytest.raises(
        ArgumentError, match=f"learning_rate must be above 0 and finite, got {value}"
    ):
        make(learning_rate=value)


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1, 0.2]])
def test_learning_rates_of_the_wrong_type(value):
    with pytest.raises(DtypeError, match="learning_rate must be a number, got"):
        SGD(learning_rate=value)


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400), 10**5000], ids=range(4))
def test_numbers_beyond_the_largest_float(value):
    with pytest.raises(ArgumentError, match="learning_rate must be above 0 and finite, got a num"):
        SGD(learning_rate=value)


def test_other_bad_hyper_parameters():
    for value in (-0.1, 1, math.nan):
        with pytest.raises(ArgumentError, match="momentum must be at least 0 and below 1, got"):
            SGD(momentum=value)
        with pytest.raises(ArgumentError, match="beta_1 must be at least 0 and below 1, got"):
            Adam(beta_1=value)
        with pytest.raises(ArgumentError, match="beta_2 must be at least 0 and below 1, got"):
            Adam(beta_2=value)
    with pytest.raises(ArgumentError, match="epsilon must be above 0 and finite, got 0"):
        Adam(epsilon=0)


def test_schedules():
    done = [0, 0.25, 0.5, 1]
    values = {name: [schedule(d) for d in done] for name, schedule in SCHEDULES.items()}
    assert values["constant"] == [1, 1, 1, 1]
    assert values["linear"] == [1, 0.75, 0.5, 0]
    assert values["cosine"] == pytest.approx([1, 0.5 + math.sqrt(2) / 4, 0.5, 0], abs=1e-15)
