"""What processes tell of themselves: log lines, health, and nothing that is secret."""

import re
import signal

import numpy as np
import pytest

import mpc
import nn
from mpc.parties import configuration
from mpc.parties.health import ask
from mpc.protocols import intervals
from tests.helpers.programs import network
from tests.helpers.services import PARTIES, Services

X = np.random.default_rng(3).random((7, 64))
# What a line may say; numbers among it are counts and seconds.
FIELDS = {
    "event", "role", "me", "parties", "models", "session", "id", "model", "answer", "shape",
    "at", "peer", "why", "limit", "together", "rounds", "bytes", "sent", "received",
    "corrections", "served", "seconds", "problem",
    "more", "clients", "client", "waited",
}  # fmt: skip


def lines(path, event):
    """Return the log's lines of one kind as dicts."""
    found = []
    for line in path.read_text().splitlines():
        pairs = dict(re.findall(r"(\w+)=('[^']*'|\S+)", line.partition(" level=")[2]))
        assert set(pairs) - {"INFO", "WARNING"} <= FIELDS, line
        if pairs["event"] == event:
            found.append(pairs)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Two predictions by services, their health meanwhile, and their logs afterwards."""
    models = {"network": (network(), {"low": 0, "high": 1, "scores": True})}
    running = Services(tmp_path_factory.mktemp("told"), models, workers=1)
    try:
        with nn.Client(running.path, me="carol") as client:
            before = client.health()
            labels = client.predict(X)
            client.predict(X[:2])
            health = {"before": before, "after": client.health()}
        health["provider"] = ask(configuration.load(running.path), "alice")[0].told
        for name in (*PARTIES, "provider"):
            running.processes[name].send_signal(signal.SIGTERM)
            assert running.processes[name].wait(60) == 0
    finally:
        left = running.stop()
    assert not left
    np.testing.assert_array_equal(labels, network().predict(X))
    return running.logs, health


def test_each_request_is_a_line_at_every_party(told):
    logs, _ = told
    first, second = (lines(logs[name], "request") for name in PARTIES)
    for line, other, rows in zip(first, second, (7, 2), strict=True):
        assert line["shape"] == f"{rows}x64"
        assert (line["model"], line["answer"], line["together"]) == ("network", "class", "1")
        assert re.fullmatch("[0-9a-f]{8}", line["id"])
        assert float(line["seconds"]) > 0
        # Everything but the times is the same at both.
        apart = {"seconds": 0, "waited": 0}
        assert {**line, **apart} == {**other, **apart}
    with mpc.Session() as s:
        secret = network().share(s, owner="alice", low=0, high=1)
        secret.predict(secret.share_rows(X, owner="bob"))
        start = s.cost()
        rows = secret.share_rows(X[:2], owner="bob")
        # A client gets shares of the classes, one more round.
        _ = secret(rows).argmax(axis=1).shares
        spent = s.cost() - start
    # The second request finds the weights opened, as this one does. Its rows come from outside, so
    # that both parties open a share of them, and check before that they are in range.
    check = intervals.cost(2, 2 * 64, 1)
    assert int(first[1]["rounds"]) == spent.rounds + check.rounds
    assert int(first[1]["bytes"]) == spent.bytes_sent_per_party + check.bytes_sent


def test_each_session_is_a_line_at_every_process(told):
    logs, _ = told
    found = [lines(log, "session") for log in logs.values()]
    assert [len(each) for each in found] == [1, 1, 1]
    sessions = {each[0]["session"] for each in found}
    assert len(sessions) == 1
    for name in PARTIES:
        (line,) = lines(logs[name], "session")
        assert line["me"] == name
        assert line["problem"] == "-"
        assert min(int(line[key]) for key in ("rounds", "sent", "received")) > 0
    (provider,) = lines(logs["provider"], "session")
    assert int(provider["corrections"]) > 10
    # What the provider sends arrives at the last party.
    (last,) = lines(logs["bob"], "session")
    assert int(provider["bytes"]) < int(last["received"])
    assert float(provider["seconds"]) > 0


def test_health(told):
    _, health = told
    for when, served in (("before", 0), ("after", 2)):
        assert [each["me"] for each in health[when]] == list(PARTIES)
        for each in health[when]:
            assert (each["role"], each["served"], each["waiting"]) == ("party", served, 0)
            assert each["models"] == ("network",)
    assert health["provider"]["role"] == "provider"
    assert health["provider"]["sessions"] == 1


def test_without_verbose_warnings_alone(caplog):
    from mpc.core.events import record

    with caplog.at_level("WARNING", logger="sotto"):
        record("session", rounds=3)
        record("lost", warning=True, why="bob did not answer", seconds=0.12345)
    assert caplog.messages == ["event=lost why='bob did not answer' seconds=0.123"]


def test_the_cost_of_each_layer():
    with mpc.Session() as s:
        secret = network().share(s, owner="alice", low=0, high=1)
        secret.predict(secret.share_rows(X, owner="bob"))
        cost = s.cost()
    names = [name for name in cost.by_layer if name != "-"]
    assert [name.split()[0] for name in names] == ["1", "2", "3"]
    for part in (cost.by_layer, cost.by_protocol):
        assert sum(spent.rounds for spent in part.values()) == cost.rounds
    for name in names:
        assert re.search(rf"{re.escape(name)} +{cost.by_layer[name].rounds} ", str(cost))
