"""Programs for tests of weights in a training, each party in a process of its own."""

import numpy as np

import nn

X = np.random.default_rng(0).normal(size=(64, 3))
Y = (X[:, 0] > 1) * 1
SAMPLE = np.linspace(0, 3, 64)
HOW = {"epochs": 1, "batch_size": 16, "learning_rate": 0.1}


def network(random_state=0):
    return nn.MLP((3, 4, 2), random_state=random_state)


def _rows(session):
    shared = session.share(X, owner="alice", bound=8)
    return shared, session.share(nn.one_hot(Y, 2), owner="bob", bound=1)


def trained(session):
    """Weights of rows that bob alone knows, and of classes that are counted on shares."""
    mine = session.me == "bob"
    sample = session.share(SAMPLE if mine else None, owner="bob", shape=(64,), bound=4)
    rows = _rows(session)
    secret = network().fit(*rows, class_weight="balanced", sample_weight=sample, **HOW)
    return secret.reveal().parameters


def apart(session, **different):
    """Train with arguments of which each party has its own."""
    own = {name: values[session.parties.index(session.me)] for name, values in different.items()}
    model = network(own.pop("random_state", 0))
    return model.fit(*_rows(session), **{**HOW, **own}).reveal().parameters
