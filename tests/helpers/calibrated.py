"""A deep network whose limits are from rows, and programs about it."""

import numpy as np

import mpc
import nn

DEPTH, WIDTH = 10, 32


def rows(count=40):
    return np.random.default_rng(8).random((count, WIDTH))


def rows_beyond(count=40):
    """Return rows in the range of the inputs, one of which leaves a limit."""
    some = rows(count)
    some[count // 2] = 64.0
    return some


def deep_network():
    """Return a network whose interval bounds no format holds, and its bounds."""
    rng = np.random.default_rng(7)
    parameters = []
    for _ in range(DEPTH):
        parameters += [rng.normal(size=(WIDTH, WIDTH)) / 4, rng.normal(size=WIDTH) / 8]
    model = nn.MLP.from_parameters(parameters)
    model.input_range_ = (0.0, 64.0)
    bounds = model.calibrate(rows(), margin=4)
    assert bounds.largest > 2.0**20
    return model, bounds


def outcome(call):
    """Return what a call returns, or the error that it is."""
    try:
        return call()
    except mpc.RangeError as error:
        return f"RangeError: {error}"


def predictions(session):
    """Alice's network on bob's rows, with limits: what each party gets, or the error it is told."""
    model, bounds = deep_network()
    if session.me != "alice":
        model = model.outline()
    secret = model.share(session, owner="alice", scores=True, bounds=bounds)
    found = {}
    for name, X in (("inside", rows()), ("beyond", rows_beyond())):
        x = secret.share_rows(X if session.me == "bob" else None, "bob", rows=len(X))
        found[name] = outcome(lambda x=x: secret.predict(x))
    # The session goes on.
    x = secret.share_rows(rows() if session.me == "bob" else None, "bob", rows=len(rows()))
    found["after"] = outcome(lambda: secret.predict(x))
    return found
