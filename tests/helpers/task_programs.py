"""Programs for tests of networks with one output, each party in a process of its own."""

import numpy as np

import nn

X = np.random.default_rng(0).uniform(-1, 1, size=(96, 4))
CLASSES = (X[:, 0] > X[:, 1]) * 1
VALUES = X[:, 0] - X[:, 1]
TARGETS = {"cross_entropy": CLASSES, "squared_error": VALUES}
HOW = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1}


def network(random_state=0):
    return nn.MLP((4, 8, 1), random_state=random_state)


def _data(session, loss):
    mine = session.me == "bob"
    rows = session.share(
        X if session.me == "alice" else None, owner="alice", shape=X.shape, bound=1
    )
    y = TARGETS[loss]
    return rows, session.share(
        y if mine else None, owner="bob", shape=y.shape, dtype=y.dtype, bound=2
    )


def trained(session, loss, start=None):
    """Train on alice's rows and bob's targets; alice gets the model, bob its answers."""
    rows, y = _data(session, loss)
    model = network().fit(rows, y, loss=loss, start=start, **HOW)
    answers, plain = model.predict(rows, to="bob"), model.reveal(to="alice")
    return answers if plain is None else plain.parameters


def tuned(session, loss, model):
    """Go on with alice's model, of which bob has the outline."""
    mine = model if session.me == "alice" else model.outline()
    secret = mine.share(session, owner="alice", low=-1, high=1)
    found = network().fit(*_data(session, loss), loss=loss, start=secret, **HOW)
    return found.reveal().parameters


def other_starts(session, model):
    """Each party has another plain model to start from."""
    start = model if session.me == "alice" else network(1).fit(X, CLASSES, **HOW)
    network().fit(*_data(session, "cross_entropy"), start=start, **HOW)


def regressions(session):
    """Fit a ridge and a logistic regression; alice gets the models, bob the answers for her rows."""
    rows, y = _data(session, "squared_error")
    _, labels = _data(session, "cross_entropy")
    models = nn.SecureRidge().fit(rows, y), nn.SecureLogisticRegression().fit(rows, labels)
    answers = [model.predict(rows, to="bob") for model in models]
    plain = [model.reveal(to="alice") for model in models]
    return answers if session.me == "bob" else [model.parameters for model in plain]
