"""Services that spread large requests over workers, which do all of what their rows need."""

import os
import re
import signal
import threading

import numpy as np
import pytest

import mpc
import nn
from tests.helpers.processes import marked
from tests.helpers.programs import network, price_network
from tests.helpers.services import MODELS, PARTIES, Services

X = np.random.default_rng(12).random((40, 64))
ROWS = 20


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("spread"),
        {name: MODELS[name] for name in ("network", "prices")},
        workers=1,
        more=f"\n[workers]\nn_jobs = 2\nrows = {ROWS}\n",
    )
    yield running
    assert not running.stop()


def spreads(services):
    """Return which program was spread, over how many rows, at each party."""
    return [
        re.findall(r"event=spread me=\w+ program='([^']+)' rows=(\d+)", services.told(name))
        for name in PARTIES
    ]


def test_each_kind_of_answer(services):
    plain = network()
    with nn.Client(services.path, me="carol", model="network") as client:
        np.testing.assert_array_equal(client.predict(X), plain.predict(X))
        one_hot = client.predict_one_hot(X)
        np.testing.assert_array_equal(one_hot.argmax(axis=1), plain.predict(X))
        assert set(one_hot.sum(axis=1)) == {1}
        scores = client.decision_function(X)
        np.testing.assert_allclose(scores, plain.decision_function(X), atol=1e-3)
        # Few rows stay in the party's own process.
        np.testing.assert_array_equal(client.predict(X[: ROWS - 1]), plain.predict(X[: ROWS - 1]))
    with nn.Client(services.path, me="carol", model="prices") as client:
        rows = np.random.default_rng(13).uniform(client._model.low, client._model.high, (ROWS, 3))
        expected = price_network().predict(rows)
        np.testing.assert_allclose(client.predict(rows), expected, atol=1e-3)
    done = [
        ("Evaluation of classes", "40"), ("Evaluation of one-hot", "40"),
        ("Evaluation of scores", "40"), ("Evaluation of scores", str(ROWS)),
    ]  # fmt: skip
    # Before, the services have warmed up.
    assert [each[-len(done) :] for each in spreads(services)] == [done, done]


def test_clients_are_told_that_workers_fail_and_the_service_goes_on(services):
    bob, over = services.processes["bob"], threading.Event()

    def strike():
        while not over.wait(0.02):
            for process in marked(services.mark):
                if process.parent == bob.pid and "popen_loky_posix" in process.command:
                    os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        with nn.Client(services.path, me="dora", model="network") as client:
            with pytest.raises(
                mpc.PeerError, match="workers were lost|lost 3 times|has no workers"
            ):
                client.predict(X)
            over.set()
            thread.join()
            np.testing.assert_array_equal(client.predict(X), network().predict(X))
            np.testing.assert_array_equal(client.predict(X[:2]), network().predict(X[:2]))
    finally:
        over.set()
        thread.join()
    for name in PARTIES:
        assert services.processes[name].poll() is None
        assert f"event=workers me={name} problem=" in services.told(name)
