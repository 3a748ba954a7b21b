"""Parties as services without a provider: clients, workers, models that change, and losses."""

import re
import signal
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.parties import configuration
from nn.command import main
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, Services

X = np.random.default_rng(17).random((200, 64))
ANSWER = 12
ROWS = 150
# Longer than any time that a party waits.
WITHIN = 60


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("alone"),
        {"network": MODELS["network"]},
        answer=ANSWER,
        more=f"\n[workers]\nn_jobs = 2\nrows = {ROWS}\n",
        provider=False,
    )
    yield running
    assert not running.stop()


def client(services, me="carol", model="network"):
    return nn.Client(services.path, me=me, model=model, patience=WITHIN)


def works(services):
    with client(services) as one:
        np.testing.assert_array_equal(one.predict(X[:5]), network().predict(X[:5]))


def serve(services, models):
    """Wait until these models are served and no others."""
    deadline = time.monotonic() + WITHIN
    with client(services) as one:
        while set(one.models()) != models and time.monotonic() < deadline:
            time.sleep(0.2)
        assert set(one.models()) == models


def sessions(services, name):
    """Return the ids of the sessions between the services themselves that have ended."""
    lines = services.lines(name, "session")
    return [re.search(r"session=(\w+)", line)[1] for line in lines]


def test_clients_get_the_models_answers(services):
    plain = network()
    with client(services) as one:
        np.testing.assert_array_equal(one.predict(X[:20]), plain.predict(X[:20]))
        scores = one.decision_function(X[:5])
        np.testing.assert_allclose(scores, plain.decision_function(X[:5]), atol=1e-3)
        one_hot = one.predict_one_hot(X[:5])
        np.testing.assert_array_equal(one_hot.argmax(axis=1), plain.predict(X[:5]))
        assert [each["me"] for each in one.health()] == list(PARTIES)
    for name in PARTIES:
        other = PARTIES[name == "alice"]
        assert f"and waits for {other}\n" in services.printed[name].read_text()


def test_many_rows_are_spread_over_workers(services):
    before = {name: len(services.lines(name, "spread")) for name in PARTIES}
    with client(services) as one:
        np.testing.assert_array_equal(one.predict(X), network().predict(X))
    for name in PARTIES:
        (line,) = services.lines(name, "spread")[before[name] :]
        assert f"rows={len(X)} workers=2 tries=1" in line


def test_health(services, capsys):
    assert main(["health", str(services.path), "--me", "alice"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["party", "alice"], ["party", "bob"]]
    assert main(["health", str(services.path), "--me", "carol"]) == 0
    assert "provider" not in capsys.readouterr().out


def test_a_client_that_is_told_of_a_provider_is_refused(services):
    text = services.path.read_text().replace(configuration.ALONE + "\n", "")
    table = '[provider]\naddress = "127.0.0.1:9"\ncertificate = "erin.crt"\n'
    other = services.path.with_name("told.toml")
    begin, end = text.index("[clients.erin]"), text.index("[workers]")
    other.write_text(text[:begin] + table + text[end:])
    told = "alice and dora disagree on provider: alice has 'none', dora has 'crypto'"
    with (
        pytest.raises(mpc.HandshakeError, match=told),
        nn.Client(other, me="dora", model="network") as one,
    ):
        one.predict(X[:1])
    works(services)


def test_put_and_remove(services, tmp_path):
    services.save("network", tmp_path / "more")
    for me in PARTIES:
        put = ["put", str(services.path), "--me", me, "more", str(tmp_path / "more")]
        assert main(put) == 0
    serve(services, {"network", "more"})
    with client(services, model="more") as one:
        np.testing.assert_array_equal(one.predict(X[:3]), network().predict(X[:3]))
    for me in PARTIES:
        assert main(["remove", str(services.path), "--me", me, "more"]) == 0
    serve(services, {"network"})
    with (
        pytest.raises(mpc.ArgumentError, match="model must be one of network, got"),
        client(services, model="more") as one,
    ):
        one.predict(X[:1])


@pytest.mark.parametrize(
    ("victim", "how"), [("alice", "kill"), ("bob", "stop"), ("alice", "terminate")]
)
def test_a_party_that_is_lost_is_waited_for_and_comes_back(services, victim, how):
    """Under load: the other says who it was, and they join again, in a new session."""
    works(services)
    (other,) = set(PARTIES) - {victim}
    load = services.load("erin", 2)
    before, ended = len(services.lines(other, "lost")), sessions(services, other)
    process = services.processes[victim]
    if how == "kill":
        services.kill(victim)
    elif how == "terminate":
        process.terminate()
        assert process.wait(WITHIN) == 0
    else:
        process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + WITHIN
    while len(services.lines(other, "lost")) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    if how == "stop":
        process.send_signal(signal.SIGCONT)
    else:
        services.start(victim)
    works(services)
    # The clients connect again by themselves, unless they were told that a party is late.
    load.stdin.close()
    told = load.stdout.read().splitlines()
    assert load.wait(WITHIN) == 0
    for line in told[:-1]:
        assert how == "stop" and "did not answer" in line and victim in line, line
    assert int(told[-1].removeprefix("answered ")) > 0
    assert services.processes[other].poll() is None, services.told(other)
    lost = [line for line in services.lines(other, "lost")[before:] if f"me={other}" in line]
    assert lost and all(victim in line.partition("why=")[2] for line in lost), lost
    now = sessions(services, other)
    assert len(now) > len(ended) and len(set(now)) == len(now)


def test_a_party_killed_while_they_begin_is_waited_for(services):
    """While base transfers are made, too."""
    for name in PARTIES:
        services.kill(name)
        services.start(name)
    deadline = time.monotonic() + WITHIN
    while not (begun := services.printed["bob"].read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert begun, services.told("bob")
    services.kill("alice")
    services.start("alice")
    works(services)
    for name in PARTIES:
        assert services.processes[name].poll() is None, services.told(name)
