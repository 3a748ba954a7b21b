"""Masks of a model's weights have keys of their own: no key of a batch's block opens them."""

import numpy as np
import pytest

import mpc
import nn
from mpc.core.correlation import Correlation, MaskRef
from nn.layers import Convolution, Dense, Embedding, Flatten, MaxPool, ReLU, Sigmoid
from ring.streams import OWN_IDS

PARTIES = ("alice", "bob", "carol")


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(0, 0.3, shape)


LAYERS = {
    "dense": [Dense(normal(8, 6), normal(6)), ReLU(), Dense(normal(6, 3), normal(3))],
    "sigmoid": [Dense(normal(8, 6), normal(6)), Sigmoid(), Dense(normal(6, 3), normal(3))],
    "images": [
        nn.layers.Reshape(4, 2, 1), Convolution(normal(2, 2, 1, 3), normal(3)), ReLU(),
        MaxPool((3, 1)), Flatten(), Dense(normal(3, 3), normal(3)),
    ],
    "words": [Embedding(normal(4, 2)), Flatten(), Dense(normal(16, 3), normal(3))],
}  # fmt: skip


def references(correlation):
    for value in vars(correlation).values():
        if isinstance(value, MaskRef):
            yield value
        elif isinstance(value, Correlation):
            yield from references(value)


def older_references(session, monkeypatch, program):
    """Run a program; return the ids of masks from before it that the provider was told of."""
    base, asked = session.last_id, []
    correct = session.source.provider.correct
    with monkeypatch.context() as patch:
        patch.setattr(
            session.source.provider,
            "correct",
            lambda id, c, out: (asked.append(c), correct(id, c, out)),
        )
        program()
    found = {ref.id for correlation in asked for ref in references(correlation)}
    return {id for id in found if id % OWN_IDS <= base}


@pytest.mark.parametrize("owner", ["alice", "carol", "shares"])
@pytest.mark.parametrize("masked", [False, True], ids=["fresh rows", "masked rows"])
@pytest.mark.parametrize("name", LAYERS)
def test_what_a_batch_refers_to_from_before_has_a_key_of_its_own(
    name, masked, owner, monkeypatch, tmp_path
):
    model = nn.Sequential.from_layers(LAYERS[name], n_features=8)
    X = np.random.default_rng(0).integers(0, 2, (2, 8)).astype(float)
    with mpc.Session(PARTIES) as s:
        secret = model.share(s, owner="alice" if owner == "shares" else owner)
        if owner == "shares":
            # Nobody knows the weights.
            nn.save_shares(secret, tmp_path)
            secret = nn.load_shares(s, tmp_path)

        def answer():
            rows = s.share(X, owner="carol", bound=1)
            if masked:
                rows.mask_data()
            return secret.predict(rows)

        first = answer()
        older = older_references(s, monkeypatch, answer)
        assert older and min(older) > OWN_IDS
        np.testing.assert_array_equal(first, answer())


def test_weights_that_were_trained_on_shares_have_keys_of_their_own(monkeypatch):
    X = np.random.default_rng(0).integers(0, 2, (16, 8)).astype(float)
    with mpc.Session(PARTIES) as s:
        rows = s.share(X, owner="bob", bound=1)
        targets = s.share(nn.one_hot((X[:, 0] > 0).astype(int)), owner="alice")
        secret = nn.MLP((8, 4, 2), random_state=0).fit(rows, targets, epochs=1, batch_size=8)

        def answer():
            return secret.predict(s.share(X[:2], owner="bob", bound=1))

        for _ in range(2):
            older = older_references(s, monkeypatch, answer)
            assert older and min(older) > OWN_IDS


def test_a_mask_that_a_correlation_is_about_has_a_key_of_its_own():
    with mpc.Session(PARTIES) as s:
        for x in (s.share(normal(5, 4), owner="alice"), s.share(normal(5, 4), owner="bob") + 1):
            x.kept = True
            np.testing.assert_array_equal(x.argmax(axis=1).reveal(), x.reveal().argmax(axis=1))
            assert x.mask.ref.id > OWN_IDS


def test_a_plan_counts_as_the_run_does():
    model = nn.MLP.from_parameters([normal(5, 4), normal(4), normal(4, 2), normal(2)])
    with mpc.Session() as s:
        secret = model.share(s, owner="alice")
        asked, rows = [], secret.share_rows(np.zeros((3, 5)), owner="bob")
        planned = s.without_parties(s.last_id)
        secret.twin(planned)(secret.twin_rows(planned, rows)).reveal()
        correlated = s.correlated
        s.correlated = lambda c: (asked.append(c), correlated(c))[1]
        secret(rows).reveal()
        assert [(id, c) for id, c in planned.source.asked if c.corrected_words]
        assert [c for _, c in planned.source.asked] == asked
        assert planned.last_id == s.last_id
        weights = s.share(1.0, owner="alice")
        before = weights.outline()
        weights.kept = True
        assert weights.outline() != before
