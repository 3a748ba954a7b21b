"""A model on shares gives what the plain model gives, and refuses what it cannot hold."""

import numpy as np
import pytest

import mpc
import nn
from nn.models.trainable import NotFittedError
from ring import SottoError

PARTIES = {2: ("alice", "bob"), 3: ("alice", "bob", "carol"), 5: tuple("abcde")}


@pytest.fixture(scope="module")
def digits():
    X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    model = nn.MLP((64, 24, 16, 10), random_state=1).fit(X_train, y_train, epochs=15)
    return model, X_test, y_test


@pytest.fixture(params=PARTIES, ids=lambda n: f"{n} parties")
def session(request):
    with mpc.Session(PARTIES[request.param]) as s:
        yield s


def test_scores_and_labels(digits, session):
    model, X, _ = digits
    secret = model.share(session, owner=session.parties[0])
    rows = session.share(X, owner=session.parties[-1], bound=1)
    scores = secret(rows).reveal()
    assert scores.shape == (len(X), 10)
    # 64 products of values below 2 in steps of 2^-16, through three layers.
    np.testing.assert_allclose(scores, model.decision_function(X), atol=2e-3)
    sure = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0] > 4e-3
    assert sure.mean() > 0.95
    labels = secret.predict(rows)
    assert labels.dtype == model.classes_.dtype
    assert (labels == model.predict(X))[sure].all()


def test_batches_change_nothing_but_the_rounds(digits, session):
    model, X, _ = digits
    secret = model.share(session, owner=session.parties[0])
    rows = secret.share_rows(X[:70], owner=session.parties[-1])
    secret(rows[:1])  # opens the weights
    start = session.cost()
    whole = secret(rows).reveal()
    once = session.cost() - start
    again = secret.share_rows(X[:70], owner=session.parties[-1])
    before = session.cost().rounds
    pieces = secret(again, batch_size=32)
    # All but the truncation and the revealing, which are one.
    assert session.cost().rounds - before == 3 * (once.rounds - 1)
    np.testing.assert_allclose(pieces.reveal(), whole, atol=1e-3)


def test_columns_of_several_owners_are_joined(digits, session):
    model, X, _ = digits
    secret = model.share(session, owner=session.parties[0])
    odd, even = np.arange(1, 64, 2), np.arange(0, 64, 2)
    joined = secret.join_columns(
        [
            secret.share_rows(X[:20, odd], owner=session.parties[0], columns=odd),
            secret.share_rows(X[:20, even], owner=session.parties[-1], columns=even),
        ]
    )
    scores = secret(joined).reveal()
    np.testing.assert_allclose(scores, model.decision_function(X[:20]), atol=2e-3)


def test_accuracy_is_computed_on_shares(digits, session):
    model, X, y = digits
    secret = model.share(session, owner=session.parties[0])
    predicted = secret(session.share(X, owner=session.parties[1], bound=1)).argmax(
        axis=1, one_hot=True
    )
    targets = session.share(nn.one_hot(y), owner=session.parties[1])
    hits = (predicted * targets).sum().reveal()
    assert hits == pytest.approx(model.score(X, y) * len(y), abs=1)


def test_costs_of_a_hidden_layer(digits):
    model, X, _ = digits
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        rows = s.share(X[:4], owner="bob", bound=1)
        secret(rows)
        layers = s.cost().by_layer
    assert list(layers) == [
        "1 Dense(64, 24)", "2 ReLU()", "3 Dense(24, 16)", "4 ReLU()", "5 Dense(16, 10)",
    ]  # fmt: skip
    assert [spent.rounds for spent in layers.values()] == [1, 3, 1, 3, 1]
    assert sum(s.seconds for s in layers.values()) > 0


def test_plan_equals_run(digits, session):
    model, X, _ = digits

    def program(s):
        secret = model.share(s, owner=s.parties[0])
        secret.predict(secret.share_rows(X[:33], owner=s.parties[1]))

    plan = session.plan(program)
    program(session)
    assert plan.cost == session.cost()
    assert plan.cost.trips == session.cost().trips > 0


def test_rows_at_once_follows_the_memory_limit(digits):
    model, _, _ = digits
    counts = []
    for limit in (1 << 20, 1 << 24):
        with mpc.Session(memory_limit=limit) as s:
            counts.append(model.share(s, owner="alice").rows_at_once())
    assert 1 <= counts[0] < counts[1]
    assert counts[1] == pytest.approx(16 * counts[0], rel=0.05)


def test_a_model_that_can_leave_the_range_is_refused():
    model = nn.MLP.from_parameters(
        [np.full((3, 2), 200.0), np.zeros(2), np.eye(2) * 100, np.zeros(2)]
    )
    with mpc.Session() as s:
        with pytest.raises(mpc.RangeError, match=r"layer 3, Dense\(2, 2\).*60000"):
            model.share(s, owner="alice")
        assert s.fresh_id() == 1, "something was shared"
        model.share(s, owner="alice", low=0, high=0.25)


def test_bad_input(digits):
    model, X, _ = digits
    with mpc.Session() as s, mpc.Session() as other:
        secret = model.share(s, owner="alice")
        with pytest.raises(mpc.PartyError, match="owner must be one of alice, bob, got 'carol'"):
            model.share(s, owner="carol")
        with pytest.raises(NotFittedError):
            nn.MLP((64, 10)).share(s, owner="alice")
        with pytest.raises(mpc.ShapeError, match=r"\(rows, 64\), got \(3, 63\)"):
            secret(s.share(X[:3, :63], owner="bob"))
        with pytest.raises(mpc.SessionError, match="another session"):
            secret(other.share(X[:3], owner="bob"))
        with pytest.raises(mpc.DtypeError, match="ndarray"):
            secret(X[:3])
        wrong = X[:3].copy()
        wrong[1, 2] = 1.5
        with pytest.raises(mpc.RangeError, match=r"\[0, 1\].*got 1\.5 at index \(1, 2\)"):
            secret.share_rows(wrong, owner="bob")
        wrong[1, 2] = np.nan
        with pytest.raises(mpc.RangeError, match="nan at index"):
            secret.share_rows(wrong, owner="bob")
        with pytest.raises(SottoError, match="batch_size"):
            secret(s.share(X[:3], owner="bob", bound=1), batch_size=0)


def test_nothing_plain_is_kept_with_the_shares(digits):
    model, X, _ = digits
    model.layers[0].forward(X[:2])
    with mpc.Session() as s:
        for layer in model.share(s, owner="alice").layers:
            with pytest.raises(mpc.ArgumentError, match="needs a forward before it"):
                layer.backward(None)
            assert all(isinstance(p, mpc.SharedArray) for p in layer.parameters)
    assert "SharedModel" in repr(model.share(mpc.Session(), owner="alice"))


def test_a_call_like_an_earlier_one_has_its_plan(digits, monkeypatch):
    model, X, _ = digits
    with mpc.Session() as s:
        secret, keys = model.share(s, owner="alice"), []
        monkeypatch.setattr(s, "prepares", lambda: True)
        monkeypatch.setattr(s, "prepare", lambda program, key=None: keys.append(key))
        for rows in (5, 5, 5, 7):
            secret.predict(secret.share_rows(X[:rows], owner="bob"))
            # What predict calls, of the same rows, asks for nothing of its own.
            del keys[-1]
        first, second, third, other = keys
        # The first call opens the weights under their masks.
        assert first != second == third != other
        assert hash(second) == hash(third)
        images = secret.share_rows(X[:5], owner="bob")
        secret.predict(images, to="bob")
        assert keys[4] != second
        secret.predict(images, to="bob")
        assert keys[6] != keys[4], "the rows have a mask by now"
        gone = keys[4][0]
        del secret
        assert gone() is None, "a key keeps the model"
