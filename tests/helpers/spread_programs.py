"""Programs for tests of workers."""

import contextlib
import os
import signal
import time
from dataclasses import replace
from unittest import mock

import numpy as np

import mpc
from mpc.parties import configuration
from mpc.workers.spread import spread
from nn.layers import Dense
from nn.models.predictors import Regressor
from nn.shared.workers import evaluate
from tests.helpers.programs import network

ROWS = 101
SCALES = np.array([1.0, 100.0, 0.01])


def images():
    return np.random.default_rng(1).random((ROWS, 64))


def features():
    return np.random.default_rng(2).random((ROWS, 3)) * SCALES


def regressor():
    return Regressor([Dense(np.array([[1.0], [0.02], [-30.0]]), np.ones(1))], 3)


class Marked:
    """A worker's program that notes who ran it, and comes to harm at one party.

    Parameters
    ----------
    folder : path
        Where each process that runs a part leaves a file.
    victims : sequence of str
        At these parties' workers `harm` happens, in the middle of the protocol.
    harm : "raise", "sleep", "kill" or "stop"
    times : int
        How often.
    """

    def __init__(self, folder, victims=(), harm=None, times=1):
        self.folder, self.victims, self.harm, self.times = folder, victims, harm, times

    def __call__(self, session, x, w):
        if session.here:
            name = f"{session.me}.{os.getpid()}.{session.session_id.hex()}"
            (self.folder / name).write_text("")
        y = (x @ w).relu()
        if session.here and session.me in self.victims and self.strikes():
            if self.harm == "raise":
                raise ZeroDivisionError("12345 is a secret")
            if self.harm == "sleep":
                time.sleep(7)
            else:
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[self.harm])
        return (y * y).truncate()

    def strikes(self):
        for k in range(self.times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"strike {k}").touch(exist_ok=False)
                return True
        return False


def operands(session):
    x = session.share(images() if session.me == "bob" else None, owner="bob", shape=(ROWS, 64))
    w = np.random.default_rng(3).normal(0, 0.2, (64, 4))
    return x, session.share(w if session.me == "alice" else None, owner="alice", shape=(64, 4))


def expected():
    w = np.random.default_rng(3).normal(0, 0.2, (64, 4))
    return np.maximum(images() @ w, 0) ** 2


def attempt(function):
    """Return what a call gives, or its error, and how long it took."""
    begin = time.monotonic()
    try:
        return function(), time.monotonic() - begin
    except mpc.SottoError as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - begin


def harmed(session, folder, harm, times, victims=("bob",), n_jobs=2):
    """Spread with harm done to some parties' workers, and then once more without."""
    x, w = operands(session)
    for name in ("first", "second"):
        (folder / name).mkdir(exist_ok=True)
    first = attempt(
        lambda: spread(
            session, Marked(folder / "first", victims, harm, times), x, w, n_jobs=n_jobs
        ).reveal()
    )
    second = spread(session, Marked(folder / "second"), x, w, n_jobs=n_jobs).reveal()
    return first, second, os.getpid()


def models(session):
    """What a user calls, with one worker, with two, and with numbers that are not the same."""
    mine, last = session.me, session.parties[-1]
    model = network() if mine == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1, scores=True)
    x = secret.share_rows(images() if mine == last else None, owner=last, rows=ROWS)
    plain = regressor()
    other = (plain if mine == "alice" else plain.outline()).share(
        session, owner="alice", low=0 * SCALES, high=SCALES
    )
    z = other.share_rows(features() if mine == last else None, owner=last, rows=ROWS)
    before = session.cost()
    labels = secret.predict(x, n_jobs=2)
    return {
        "labels": labels,
        "spent": session.cost() - before,
        "alone": secret.predict(x),
        "to alice": secret.predict(x, to="alice", n_jobs=2),
        "scores": secret.decision_function(x, n_jobs=2),
        "values": other.predict(z, n_jobs=2),
        "shares": secret(x, n_jobs=2).argmax(axis=1).reveal(),
        "mismatch": attempt(lambda: secret.predict(x, n_jobs=2 if mine == "alice" else 3))[0],
        "after": secret.predict(x),
        "by default": by_default(session, secret, x),
        "planned": session.plan(
            lambda planned: secret.twin(planned).predict(planned.twin(x), n_jobs=2)
        ).cost,
    }


def predicts(session):
    """Predict with two workers: labels and scores."""
    mine, last = session.me, session.parties[-1]
    model = network() if mine == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1, scores=True)
    x = secret.share_rows(images() if mine == last else None, owner=last, rows=ROWS)
    return secret.predict(x, n_jobs=2), secret.decision_function(x, n_jobs=2)


def by_default(session, secret, x):
    """As a service does it: prepared, and spread because parties.toml says so."""
    read = session.configuration
    session.configuration = replace(read, workers=configuration.Workers(2, ROWS))
    with mock.patch("nn.shared.model.evaluate", wraps=evaluate) as spreading:
        session.prepare(
            lambda planned: secret.twin(planned)(planned.twin(x)).argmax(axis=1).reveal()
        )
        labels = secret(x).argmax(axis=1).reveal()
        # In the run, in the plan if one is made, and not for few rows.
        times = spreading.call_count
        few = secret.predict(x[: ROWS - 1])
        secret(x, n_jobs=1)
        times_in_all = spreading.call_count
    session.configuration = read
    return labels, few, times, times_in_all


def stalls(session, folder):
    """Workers that wait for the end of the world while their party is killed."""
    x, w = operands(session)
    if session.me == "bob":
        (folder / "pid").write_text(str(os.getpid()))
    return spread(session, Marked(folder, ("alice",), "stop", 2), x, w, n_jobs=2).reveal()


def on_dask(session, folder, scheduler):
    """Alice's cluster is named in her configuration, bob's in his program."""
    import joblib
    from distributed import Client

    if session.me == "alice":
        members = session.configuration.parties
        mine = {"alice": replace(members["alice"], scheduler=scheduler)}
        session.configuration = replace(session.configuration, parties={**members, **mine})
        return (*harmed(session, folder, "kill", 1), *named(session))
    with Client(scheduler, set_as_default=False) as client:
        with joblib.parallel_config("dask", client=client):
            return (*harmed(session, folder, "kill", 1), *named(session))


def named(session):
    """What a model says with all the workers that there are, and by itself."""
    model = network() if session.me == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1)
    x = secret.share_rows(images() if session.me == "bob" else None, owner="bob", rows=ROWS)
    return secret.predict(x, n_jobs=-1), secret.predict(x)
