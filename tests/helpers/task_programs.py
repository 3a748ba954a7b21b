"""Programs for tests of networks with one output, each party in a process of its own."""

import numpy as np

import nn
from nn.layers import BatchNorm, Dense, Dropout, Tanh
from nn.layers.evaluation import evaluate
from tests.helpers.programs import DIGITS, Fit, digits

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


def smooth():
    """Batch normalisation, tanh and dropout."""
    layers = [
        Dense.untrained(64, 12), BatchNorm.untrained(12), Tanh(), Dropout(0.25), Dense.untrained(12, 10)
    ]  # fmt: skip
    return nn.Sequential(layers, 64, random_state=5)


def ten_classes():
    """Before training its best score for each of the first rows is 0.05 ahead of the second."""
    return nn.MLP((64, 12, 10), random_state=5)


def three_labels():
    return nn.MLP((64, 12, 3), random_state=5)


def one_score():
    return nn.MLP((64, 12, 1), random_state=5)


def _targets(columns):
    """Return digits one-hot, three properties of a digit, or whether it is a 3."""
    _, y = digits()
    number = y.argmax(axis=1)
    if columns == 10:
        return y
    properties = np.column_stack([number == 3, number % 2, number > 4]) * 1
    return properties[:, :columns]


SECRET = np.linspace(2, 0.5, DIGITS)


def _before():
    """Return the model that alice has."""
    return one_score().fit(digits()[0], _targets(1)[:, 0], epochs=1, learning_rate=0.1)


def _split(how):
    how = {name: value for name, value in how.items() if name not in ("folder", "resume")}
    return how.pop("network"), how.pop("columns"), how


def options_in_the_clear(**how):
    """Train with options in the clear; return the outputs and the scores of validation."""
    network, columns, how = _split(how)
    X, y = digits()[0], _targets(columns)
    y = y.argmax(axis=1) if columns == 10 else y[:, 0] if columns == 1 else y
    if isinstance(how.get("sample_weight"), str):
        how["sample_weight"] = SECRET
    if "start" in how:
        how["start"] = _before()
    model = network()
    model.fit(X, y, validation=(X[:50], y[:50]), **how)
    return evaluate(model.layers, X), model.validation_scores_


class Options(Fit):
    """One party's part of a training with options, on alice's rows and bob's targets."""

    def __init__(self, me, how, crash_after=None):
        super().__init__(me, ("alice", "bob"), how, crash_after)

    def train(self, session, folder, resume=False, **how):
        network, columns, how = _split(how)
        mine = session.me == "bob"
        rows = session.share(self.data[0], owner="alice", shape=(DIGITS, 64), bound=1)
        y = session.share(
            _targets(columns) if mine else None, owner="bob", shape=(DIGITS, columns), dtype=np.int64,
            bound=1,
        )  # fmt: skip
        if isinstance(how.get("sample_weight"), str):
            how["sample_weight"] = session.share(
                SECRET if mine else None, owner="bob", shape=(DIGITS,), bound=2
            )
        if "start" in how:
            before = _before().outline() if mine else _before()
            how["start"] = before.share(session, owner="alice", low=-1, high=1)
        model = network().fit(
            rows, y, validation=(rows[:50], y[:50]), checkpoint=folder, resume=resume, **how
        )
        return evaluate(model.reveal().layers, digits()[0]), model.validation_scores_
