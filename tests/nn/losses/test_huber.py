"""Huber's loss: by hand, on shares, and in training."""

import numpy as np
import pytest

import mpc
import nn
from nn.losses.huber import HUBER, huber, huber_gradient
from ring.errors import DtypeError

SCORES = np.array([[3.0, 0.25, -4.0], [0.0, 0.5, 1.0]])
TARGETS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_by_hand():
    # Differences 2, 0.25, -4 and 0, 0.5, 0.
    assert huber(SCORES, TARGETS) == (1.5 + 0.25**2 / 2 + 3.5 + 0.5**2 / 2) / 2
    assert huber_gradient(SCORES, TARGETS).tolist() == [[0.5, 0.125, -0.5], [0.0, 0.25, 0.0]]
    single = huber_gradient(SCORES.astype(np.float32), TARGETS.astype(np.float32))
    assert single.dtype == np.float32


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
def test_on_shares(parties):
    with mpc.Session(parties) as s:
        scores, targets = s.share(SCORES, owner="alice"), s.share(TARGETS, owner="bob", bound=1)
        for shared in (scores, scores * 1.0):
            before = s.cost().total.rounds
            gradient = HUBER.shared_gradient(shared, targets)
            assert s.cost().total.rounds - before <= 8
            found, value = gradient.reveal(), HUBER.shared_value(shared, targets).reveal()
            np.testing.assert_allclose(found, 2 * huber_gradient(SCORES, TARGETS), atol=1e-4)
            assert value == pytest.approx(2 * huber(SCORES, TARGETS), abs=5e-4)
        for function in (huber, huber_gradient):
            with pytest.raises(DtypeError, match=r"got a SharedArray: .*np\.clip"):
                function(scores, targets)


def test_a_network_trains_alike_on_shares(tmp_path):
    rows, test, labels, wanted = nn.load_digits_8x8()
    model = nn.MLP((64, 64, 10), random_state=0)
    model.fit(rows, labels, loss="huber", epochs=20, batch_size=16)
    assert model.score(test, wanted) > 0.9
    rows, labels = rows[:96], labels[:96]
    plain = nn.MLP((64, 12, 10), random_state=0)
    plain.fit(rows, labels, epochs=2, batch_size=16, loss="huber")
    plain.save(tmp_path / "m.npz")
    assert nn.load(tmp_path / "m.npz").link == plain.link == "normalised"
    with mpc.Session() as s:
        X, y = s.share(rows, owner="alice"), s.share(nn.one_hot(labels, 10), owner="bob")
        fitted = nn.MLP((64, 12, 10), random_state=0).fit(
            X, y, epochs=2, batch_size=16, loss="huber", validation=(X, y)
        )
        for a, b in zip(fitted.reveal().parameters, plain.parameters, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-3)
        value = huber(plain.decision_function(rows), nn.one_hot(labels, 10))
        assert fitted.validation_losses_[-1] == pytest.approx(value, abs=5e-3)
