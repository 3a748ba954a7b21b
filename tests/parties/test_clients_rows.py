"""Clients who do not keep to the rules: rows out of range, and more than they may ask for."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.core import wire
from mpc.core.frames import Kind
from nn.gateway.asking import Asking
from nn.gateway.bodies import Table
from nn.gateway.problems import as_problem
from nn.serving.answers import OUTSIDE
from tests.helpers.programs import branched_network, flower_network, flower_rows, picture_network
from tests.helpers.services import Services

# How many requests a hostile client sends beside an honest one.
HOSTILE = int(os.environ.get("SOTTO_HOSTILE", "60"))
UNIT = 2**16
WEIGHTS = np.array([-3, 7, 40_001, -52_429, 1]) / UNIT
# Labels tell whether the weighted sum of a row is positive.
LINEAR = nn.MLP.from_parameters(
    [np.column_stack([np.zeros(5), WEIGHTS]), np.zeros(2)],
)
MODELS = {
    "linear": (LINEAR, {"low": -1, "high": 1}),
    "pictures": (picture_network(), {"low": 0, "high": 1}),
    "flowers": (flower_network(), {}),
    "branched": (branched_network(), {}),
}
TABLES = {
    "trudy": "trusted = true\n", "erin": "requests_an_hour = 3\n", "gus": "rows_an_hour = 10\n",
    "tom": "rows_an_hour = 2\ntrusted = true\n",
}  # fmt: skip


def with_tables(path):
    """Write what is said of some clients into parties.toml."""
    text = path.read_text()
    for name, lines in TABLES.items():
        text = text.replace(f"[clients.{name}]\n", f"[clients.{name}]\n{lines}")
    path.write_text(text)


@pytest.fixture(
    scope="module",
    params=[(("alice", "bob"), True), (("alice", "bob", "cleo"), True), (("alice", "bob"), False)],
    ids=["two", "three", "alone"],
)
def services(request, tmp_path_factory):
    parties, provider = request.param
    models = MODELS if len(parties) == 2 and provider else {"linear": MODELS["linear"]}
    running = Services(
        tmp_path_factory.mktemp("rows"), models, workers=1, parties=parties, provider=provider,
        clients=("carol", "dora", *TABLES), edit=with_tables,
    )  # fmt: skip
    yield running
    assert not running.stop()


def asks(services, me, model="linear"):
    if model not in services.models:
        pytest.skip("served by two parties with a provider")
    return nn.Client(services.path, me=me, model=model)


def send(client, words, answer=None):
    """Send encoded values as they are, which an honest client would never do with some of them."""
    return client._send(np.asarray(words, np.int64).view(np.uint64), answer or client.answers_[0])


def powers(feature):
    """Return 2^k times a unit vector for each k."""
    rows = np.zeros((63, 5), np.int64)
    rows[:, feature] = 1 << np.arange(63)
    return rows


def weight_of(labels, top):
    """Return the weight that the labels of powers tell, if they are decided by bit `top` of scores."""
    bits = [int(label) for label in labels[top::-1]]
    return (bits[-1] << top) - sum(bit << i for i, bit in enumerate(bits[:-1]))


def test_powers_of_two_show_the_weights_to_clients_who_are_trusted_alone(services):
    """The attack: the label of 2^k e_j is a bit of the weight w_j, for each k another."""
    weights = (WEIGHTS * UNIT).astype(int).tolist()
    with asks(services, "trudy") as client:
        told = [send(client, powers(feature)) for feature in range(5)]
    found = [[weight_of(labels, top) for labels in told] for top in range(30, 63)]
    assert weights in found
    with asks(services, "carol") as client:
        for feature in range(5):
            with pytest.raises(mpc.RangeError, match="outside the range that the model"):
                send(client, powers(feature))
        told = []
        for row in powers(3):
            try:
                told.append(int(send(client, row[None])[0]))
            except mpc.RangeError:
                told.append(None)
    # What is in range tells the weight's sign, which is what labels are for; the rest is refused.
    assert told == [int(weights[3] > 0)] * 17 + [None] * 46


@pytest.mark.parametrize("model", MODELS)
def test_one_unit_beyond_an_end_is_refused_and_the_end_is_not(services, model):
    with asks(services, "carol", model) as client:
        low, high = client.input_range_
        scale = client._model.inputs
        ends = [end if scale is None else scale.apply(end) for end in (low, high)]
        low, high = (
            np.broadcast_to(np.rint(end * UNIT), client.n_features_in_).astype(int) for end in ends
        )
        send(client, [low, high])
        for feature in {0, client.n_features_in_ // 2, client.n_features_in_ - 1}:
            for end, step in ((low, -1), (high, 1)):
                rows = np.array([low, end, high])
                rows[1, feature] += step
                with pytest.raises(mpc.RangeError, match="outside the range that the model"):
                    send(client, rows)
                rows[1, feature] = end[feature]
                send(client, rows)


def test_a_hostile_client_costs_an_honest_one_no_answer(services):
    """Its requests come to the same turns, some of it leaves in the middle, and the session lives."""
    rows = np.random.default_rng(4).uniform(-1, 1, (20, 5))
    plain, refused, over = LINEAR.predict(rows), [], threading.Event()

    def attack():
        with asks(services, "dora") as hostile:
            for k in range(HOSTILE):
                try:
                    send(hostile, np.full((1 + k % 3, 5), 1 << 17 + k % 46))
                except mpc.RangeError:
                    refused.append(k)
        over.set()

    def leave():
        """Send all parties their shares, and close before the answer."""
        while not over.is_set():
            with asks(services, "dora") as hostile:
                call = ("predict", os.urandom(16), "linear", b"", "class", 1)
                for connection in hostile._connections[:-1]:
                    connection.post_bytes(Kind.CALL, wire.encode((*call, bytes(16))))
                last = hostile._connections[-1]
                last.post_bytes(Kind.CALL, wire.encode(call))
                last.post(Kind.SHARE, [np.zeros((1, 5), np.uint64)])
                for connection in hostile._connections:
                    connection.push()
            time.sleep(0.1)

    before = {name: len(services.lines(name, "lost")) for name in services.parties}
    threads = [threading.Thread(target=each) for each in (attack, leave)]
    for thread in threads:
        thread.start()
    answered = 0
    with asks(services, "carol") as client:
        while answered < 10 or not over.is_set():
            some = slice(answered % 15, answered % 15 + 1 + answered % 5)
            np.testing.assert_array_equal(client.predict(rows[some]), plain[some])
            answered += 1
    for thread in threads:
        thread.join()
    assert refused == list(range(HOSTILE))
    for name in services.parties:
        assert services.processes[name].poll() is None
        lost = [line for line in services.lines(name, "lost")[before[name] :] if "dora" not in line]
        assert not lost, lost
    assert any(OUTSIDE in line for line in services.lines("alice", "unanswered"))


def test_the_check_is_in_the_cost_and_clients_who_are_trusted_do_without(services):
    row, costs = np.zeros((1, 5)), {}
    for name in ("trudy", "carol"):
        with asks(services, name) as client:
            # Without a provider some calls make transfers for those that follow, too.
            spent = []
            for _ in range(5):
                client.predict(row)
                spent.append(client.last_cost())
            costs[name] = np.min(spent, axis=0)
    rounds = costs["carol"][0] - costs["trudy"][0]
    assert rounds == 6 if "provider" in services.processes else rounds > 6
    assert costs["carol"][1] > costs["trudy"][1]


def test_scaled_features_keep_their_answers(services):
    rows = flower_rows()
    with asks(services, "carol", "flowers") as client:
        low, high = client.input_range_
        np.testing.assert_array_equal(client.predict(rows), flower_network().predict(rows))
        client.predict(np.array([low, high]))


def test_parties_that_say_different_things_of_the_only_client_refuse_it_and_go_on(tmp_path):
    """Nobody else is refused: they get ready, agree again once they say the same, and answer."""
    services = Services(
        tmp_path, {"linear": MODELS["linear"]}, workers=1, clients=("carol",), connect=20
    )
    row = np.zeros((1, 5))
    try:
        for name in services.parties:
            services.wait_for(name, "ready")
        checked = services.path.read_text()
        services.path.write_text(
            checked.replace("[clients.carol]\n", "[clients.carol]\ntrusted = true\n")
        )
        services.processes["alice"].terminate()
        services.processes["alice"].wait(20)
        services.start("alice")
        services.wait_for("alice", "ready")
        services.wait_for("bob", "ready", count=2)
        services.path.write_text(checked)
        with (
            nn.Client(services.path, me="carol", model="linear", patience=0) as client,
            pytest.raises(mpc.PeerError, match="whether its client is trusted"),
        ):
            client.predict(row)
        services.processes["alice"].send_signal(signal.SIGHUP)
        services.wait_for("alice", "reload")
        with nn.Client(services.path, me="carol", model="linear") as client:
            client.predict(row)
            with pytest.raises(mpc.RangeError, match="outside the range that the model"):
                send(client, powers(0))
    finally:
        assert not services.stop()


# Limits in an hour.


def test_requests_beyond_an_hours_are_refused_with_the_time_to_wait(services):
    row = np.zeros((1, 5))
    with asks(services, "erin") as client:
        for _ in range(3):
            client.predict(row)
        for _ in range(2):
            with pytest.raises(
                mpc.LimitError, match="erin may ask for 3 requests an hour: ask"
            ) as e:
                client.predict(row)
            assert 0 < e.value.retry_after <= 1200
        assert client.health()
    # Another connection, another process: it is the certificate that is counted.
    with asks(services, "erin") as client, pytest.raises(mpc.LimitError):
        client.predict(row)
    with asks(services, "carol") as client:
        client.predict(row)


def test_rows_beyond_an_hours_are_refused_and_too_many_for_ever(services):
    with asks(services, "gus") as client:
        with pytest.raises(
            mpc.LimitError, match="gus may ask for 10 rows an hour: this .* 11"
        ) as e:
            client.predict(np.zeros((11, 5)))
        assert e.value.retry_after is None
        client.predict(np.zeros((8, 5)))
        with pytest.raises(mpc.LimitError, match="10 rows an hour: ask again in") as e:
            client.predict(np.zeros((3, 5)))
        assert 0 < e.value.retry_after <= 360
        # What was refused was not counted.
        client.predict(np.zeros((2, 5)))


def test_the_gateway_answers_with_429_and_when_to_ask_again(services):
    asking = Asking(services.path, "tom", 1)

    def problem_of(rows):
        with pytest.raises(mpc.LimitError) as e:
            asking.answer("linear", None, Table(np.zeros((rows, 5)), None), detailed=False)
        return as_problem(e.value)

    try:
        asking.answer("linear", None, Table(np.zeros((2, 5)), None), detailed=False)
        later, never = problem_of(1), problem_of(3)
    finally:
        asking.close()
    assert (later.status, never.status, later.kind) == (429, 429, "LimitError")
    assert 0 < later.retry <= 1800
    assert never.retry is None
