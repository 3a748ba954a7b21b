"""A deep network whose limits are from rows, and programs about it."""

import numpy as np
import pytest

import mpc
import nn
from nn.fixed_point import calibration
from nn.layers import Add, Dense, Graph, ReLU
from nn.models.predictors import Classifier, Regressor
from ring.errors import RangeError

UNIT = 2.0**-16
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


def residual_network():
    """Return the same of blocks with skips."""
    rng = np.random.default_rng(6)

    def layer(size=WIDTH):
        return Dense(rng.normal(size=(WIDTH, size)) / 5, np.zeros(size))

    nodes = [(layer(), 0), (ReLU(), 1)]
    for _ in range(DEPTH):
        skip = len(nodes)
        nodes += [(layer(), skip), (ReLU(), skip + 1), (layer(), skip + 2)]
        nodes += [(Add(), (skip + 3, skip)), (ReLU(), skip + 4)]
    nodes.append((layer(4), len(nodes)))
    model = Classifier(Graph(nodes), np.arange(4), WIDTH, (0.0, 64.0))
    bounds = model.calibrate(rows(), margin=4)
    assert bounds.largest > 2.0**20
    return model, bounds


def outcome(call):
    """Return what a call returns, or the error that it is."""
    try:
        return call()
    except mpc.RangeError as error:
        return f"RangeError: {error}"


def predictions(session, network):
    """Alice's network on bob's rows, with limits: what each party gets, or the error it is told."""
    model, bounds = network()
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


# Networks of layers whose values are known.


def dense(*rows, bias=None):
    weights = np.array(rows, np.float64)
    return Dense(weights, np.zeros(weights.shape[1]) if bias is None else np.array(bias, float))


def eye(n=1, factor=1.0):
    return Dense(factor * np.eye(n), np.zeros(n))


def bounds_of(layers, limit, inputs, shape=(1,)):
    """Give every place that is checked the same limit, and every layer its true reach."""
    limits = tuple(limit if checked else None for checked in calibration.checked_at(layers))
    ends = np.full(shape, float(inputs))
    reached = calibration._walk(layers, -ends, ends, limits, UNIT)
    reaches = tuple(
        2.0 ** np.ceil(np.log2(1.01 * value)) if calibration.is_linear(layer) else None
        for layer, value in zip(layers, reached, strict=True)
    )
    return nn.Bounds(limits, reaches, 2.0**40)


def shared(session, layers, limit, inputs, n=1):
    model = Regressor(layers, n, flat=False)
    bounds = bounds_of(layers, limit, inputs, (n,))
    return model.share(session, session.parties[0], low=-inputs, high=inputs, bounds=bounds)


def answer(secret, X):
    rows = secret.share_rows(np.atleast_2d(X), secret.session.parties[1])
    return secret(rows).reveal()


def refused(secret, X):
    with pytest.raises(RangeError, match="left its limit"):
        answer(secret, X)
    return True
