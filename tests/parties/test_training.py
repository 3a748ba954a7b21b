"""Training with every party in a process of its own: as in a local session, and resumed."""

import numpy as np
import pytest

import mpc
from mpc.launch import start
from nn.training.optimizers import Adam
from tests.helpers.bodies import fixed_local_streams
from tests.helpers.programs import Fit, digits, epoch_of, fit, small_convolutions, small_mlp

NAMES = ("alice", "bob", "carol")


def apart(names, how, security="semi-honest", **crash):
    return start(
        lambda me: Fit(me, names, how, **crash), names, timeout=120, answer_timeout=10,
        security=security,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parties", "network", "how"),
    [
        (2, small_mlp, {"optimizer": "adam"}),
        (2, small_convolutions, {"learning_rate": 0.02}),
        (3, small_mlp, {"optimizer": "sgd", "loss": "squared_error", "learning_rate": 0.02}),
    ],
    ids=["two", "two-images", "three"],
)
def test_training_gives_the_very_words_of_a_local_session(parties, network, how, monkeypatch):
    names = NAMES[:parties]
    how = {"network": network, "epochs": 2, "batch_size": 32, **how}
    found = apart(names, how)
    monkeypatch.setattr(mpc.session_setup, "fresh_streams", fixed_local_streams)
    # As between processes, where the loss of held-out rows is checked on shares.
    with mpc.Session(names, ranges="warn") as session:
        parameters, scores, losses = fit(session, *digits(), **how)
        rounds = session.cost().total.rounds
    assert losses[-1] < losses[0]
    for name in names:
        theirs, *revealed = found[name]
        assert revealed == [scores, losses, rounds]
        for one, other in zip(theirs, parameters, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "how",
    [{"learning_rate": 30.0}, {"optimizer": Adam(100.0)},
     {"loss": "squared_error", "learning_rate": 20.0, "momentum": 0.99}],
    ids=["sgd", "adam", "squared error"],
)  # fmt: skip
def test_a_training_that_leaves_its_range_is_an_error_at_all_parties_alike(how):
    names = NAMES[:2]
    with pytest.raises(mpc.LaunchError) as caught:
        apart(names, {"network": small_mlp, "epochs": 2, "batch_size": 32, **how})
    first, second = (caught.value.errors[name] for name in names)
    assert first == second
    assert "RangeError: in epoch" in first and "a lower learning_rate may help" in first


def epochs(folder):
    """Return the epochs of the checkpoints by name."""
    return {path.name: epoch_of(path) for path in sorted(folder.iterdir())}


def check_as_if_never_interrupted(names, resumed, how, security="semi-honest"):
    with mpc.Session(names, ranges="warn", security=security) as session:  # as between processes
        whole, *_ = fit(session, *digits(), **{**how, "folder": None})
        rounds = session.cost().total.rounds
    for name in names:
        parameters, scores, _, spent = resumed[name]
        assert spent < 0.8 * rounds
        assert len(scores) == how["epochs"]
        for found, expected in zip(parameters, whole, strict=True):
            # Up to the truncations' coins.
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("names", "security"), [(NAMES[:2], "semi-honest"), (NAMES, "malicious")])
def test_a_training_whose_parties_died_is_resumed(names, security, tmp_path):
    how = {"network": small_mlp, "epochs": 3, "batch_size": 64, "folder": tmp_path}
    with pytest.raises(mpc.LaunchError, match="exit code -9"):
        apart(names, how, security, crash_after=1)
    assert epochs(tmp_path) == {f"checkpoint-{name}.npz": 1 for name in names}
    resumed = apart(names, {**how, "resume": True}, security)
    check_as_if_never_interrupted(names, resumed, how, security)


@pytest.mark.parametrize("names", [NAMES[:2], NAMES], ids=["two", "three"])
def test_a_party_that_died_before_its_checkpoint_is_an_epoch_behind(names, tmp_path):
    how = {"network": small_mlp, "epochs": 4, "batch_size": 64, "folder": tmp_path}
    with pytest.raises(mpc.LaunchError, match=f"{names[-1]}: .*exit code -9"):
        apart(names, how, crash_before=3)
    left = {f"checkpoint-{name}.npz": 3 for name in names}
    left |= {f"previous-checkpoint-{name}.npz": 2 for name in names}
    left |= {f"checkpoint-{names[-1]}.npz": 2, f"previous-checkpoint-{names[-1]}.npz": 1}
    assert epochs(tmp_path) == left
    check_as_if_never_interrupted(names, apart(names, {**how, "resume": True}), how)
    assert set(epochs(tmp_path).values()) == {3, 4}


def test_no_epoch_in_common_is_an_error_at_all_parties(tmp_path):
    names = NAMES[:2]
    how = {"network": small_mlp, "epochs": 2, "batch_size": 64, "folder": tmp_path}
    with pytest.raises(mpc.LaunchError):
        apart(names, how, crash_before=1)
    assert epochs(tmp_path) == {"checkpoint-alice.npz": 1}
    with pytest.raises(mpc.LaunchError) as caught:
        apart(names, {**how, "resume": True})
    for name in names:
        assert caught.value.errors[name] == (
            "DataError: the parties have no checkpoint of the same run and epoch: alice has epoch 1,"
            " bob has none; without resume the training begins anew"
        )
    assert epochs(tmp_path) == {"checkpoint-alice.npz": 1}
