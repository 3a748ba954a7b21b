"""Networks with one output between processes: training, what it starts from, and after a kill."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import mpc
from mpc.launch import start
from nn.training.optimizers import SGD
from tests.helpers import task_programs as programs
from tests.helpers.programs import DIGITS, Fit, fit, normalised, numbers, one_output

NAMES = ("alice", "bob")


@pytest.mark.parametrize("loss", programs.TARGETS)
def test_one_output_between_organisations(loss):
    plain = programs.network().fit(programs.X, programs.TARGETS[loss], loss=loss, **programs.HOW)
    found = mpc.launch(partial(programs.trained, loss=loss), NAMES)
    for a, b in zip(found["alice"], plain.parameters, strict=True):
        assert np.abs(a - b).max() < 1e-3
    close = np.abs(found["bob"] - plain.predict(programs.X)) < 1e-3
    assert close.mean() > 0.98


def test_regressions_between_organisations():
    found = mpc.launch(programs.regressions, NAMES)
    ridge = Ridge().fit(programs.X, programs.VALUES)
    logistic = LogisticRegression(tol=1e-8).fit(programs.X, programs.CLASSES)
    (weights, _), (scores, _) = found["alice"]
    assert np.abs(weights[:, 0] - ridge.coef_).max() < 2e-4
    assert np.abs(scores[:, 1] - logistic.coef_[0]).max() < 1e-3
    numbers, labels = found["bob"]
    assert np.abs(numbers - ridge.predict(programs.X)).max() < 5e-4
    assert (labels == logistic.predict(programs.X)).mean() > 0.98


def test_alice_s_model_goes_on_with_bob_s_rows():
    loss = "squared_error"
    model = programs.network().fit(programs.X, programs.VALUES, loss=loss, **programs.HOW)
    found = mpc.launch(partial(programs.tuned, loss=loss, model=model), NAMES)
    plain = programs.network().fit(
        programs.X, programs.VALUES, loss=loss, start=model, **programs.HOW
    )
    for own in found.values():
        for a, b in zip(own, plain.parameters, strict=True):
            assert np.abs(a - b).max() < 2e-3


def test_secret_initial_weights_are_of_no_party_s_making():
    """The same random_state twice: not the same model, and not that of public weights."""
    runs = [
        mpc.launch(partial(programs.trained, loss="squared_error", start="secret"), NAMES)["alice"][
            0
        ]
        for _ in range(2)
    ]
    public = programs.network().fit(
        programs.X, programs.VALUES, loss="squared_error", **programs.HOW
    )
    for one, other in [runs, (runs[0], public.parameters[0]), (runs[1], public.parameters[0])]:
        assert (one - other).std() > 0.3


def test_parties_with_other_models_to_start_from_are_told():
    model = programs.network().fit(programs.X, programs.CLASSES, **programs.HOW)
    with pytest.raises(mpc.LaunchError, match="runs another program"):
        mpc.launch(partial(programs.other_starts, model=model), NAMES)


@pytest.mark.parametrize(
    ("initial", "network"), [(None, normalised), ("secret", one_output)], ids=["norm", "secret"]
)
def test_a_training_of_numbers_goes_on_after_a_kill(tmp_path, initial, network):
    how = {
        "network": network, "epochs": 3, "batch_size": 64, "folder": tmp_path, "columns": 1,
        "loss": "squared_error", "learning_rate": 0.05, "start": initial,
    }  # fmt: skip
    if initial:
        # Steps so short stay where the kept weights are; new ones would be elsewhere.
        how |= {"learning_rate": 2e-5, "momentum": 0}

    def apart(how, **crash):
        def program(me):
            made = Fit(me, NAMES, how, **crash)
            X, y = numbers()
            made.data = (X if me == "alice" else None, y if me == "bob" else None)
            return made

        return start(program, NAMES, timeout=120, answer_timeout=10)

    with pytest.raises(mpc.LaunchError, match="exit code -9"):
        apart(how, crash_after=1)
    kept = np.sum(
        [np.load(tmp_path / f"checkpoint-{name}.npz")["weights"][0] for name in NAMES], axis=0
    )
    resumed = apart({**how, "resume": True})
    with mpc.Session(NAMES, ranges="warn") as session:  # as between processes
        whole, *_ = fit(session, *numbers(), **{**how, "folder": None})
        rounds = session.cost().total.rounds
        bits = session.format.frac_bits + session.format.guard_bits
    for parameters, scores, losses, spent in (resumed[name] for name in NAMES):
        assert spent < 0.8 * rounds
        assert len(scores) == 3
        assert scores == [-loss for loss in losses]
        if initial:
            found = np.concatenate([array.reshape(-1) for array in parameters])
            np.testing.assert_allclose(found, kept.view(np.int64) / 2.0**bits, rtol=0, atol=2e-3)
        else:
            assert losses[-1] < losses[0]
            for found, expected in zip(parameters, whole, strict=True):
                np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


COMBINED = {
    "classes": {
        "network": programs.smooth, "columns": 10, "optimizer": SGD(0.05, weight_decay=0.02),
        "class_weight": "balanced", "sample_weight": np.linspace(0.5, 2, DIGITS), "patience": 2,
    },
    "labels": {
        "network": programs.three_labels, "columns": 3, "loss": "binary_cross_entropy",
        "learning_rate": 0.1, "sample_weight": "secret",
    },
    "two classes": {
        "network": programs.one_score, "columns": 1, "learning_rate": 0.1, "class_weight": {1: 4.0},
        "start": "alice's",
    },
    # Steps too short to change an answer: it stops after a second epoch, which is after the kill.
    "stopping": {
        "network": programs.ten_classes, "columns": 10, "epochs": 6, "learning_rate": 2e-5,
        "momentum": 0, "patience": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("task", COMBINED)
def test_options_together_go_on_after_a_kill(tmp_path, task):
    how = {"epochs": 2, "batch_size": 64, "folder": tmp_path, **COMBINED[task]}
    with pytest.raises(mpc.LaunchError, match="exit code -9"):
        start(
            partial(programs.Options, how=how, crash_after=1), NAMES, timeout=120, answer_timeout=10
        )
    resumed = start(
        partial(programs.Options, how={**how, "resume": True}),
        NAMES,
        timeout=120,
        answer_timeout=10,
    )
    plain, scores = programs.options_in_the_clear(**how)
    assert len(scores) == 2
    for found, validation in resumed.values():
        assert len(validation) == 2
        assert validation == pytest.approx(scores, abs=0.03)
        np.testing.assert_allclose(found, plain, rtol=0, atol=1e-2)
