"""Parties as services: clients, garbage, restarts, and shares in files."""

import dataclasses
import os
import re
import signal
import socket
import ssl
import threading

import numpy as np
import pytest

import mpc
import nn
from mpc.core import frames, wire
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.handshake import read_hello, send_hello, terms
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import exchange
from tests.helpers.processes import in_child
from tests.helpers.programs import (
    branched_network,
    flower_network,
    flower_rows,
    network,
    picture_network,
    price_network,
)
from tests.helpers.services import PARTIES, Services


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(tmp_path_factory.mktemp("services"))
    yield running
    assert not running.stop()


@pytest.fixture(scope="module")
def client(services):
    with nn.Client(services.path, me="carol", model="network") as client:
        yield client


X = np.random.default_rng(5).random((40, 64))


def test_a_client_gets_the_models_answers(client):
    plain = network()
    assert client.n_features_in_ == 64
    np.testing.assert_array_equal(client.predict(X), plain.predict(X))
    np.testing.assert_allclose(client.decision_function(X), plain.decision_function(X), atol=1e-3)
    np.testing.assert_array_equal(client.predict_one_hot(X).argmax(axis=1), plain.predict(X))
    assert client.predict(X[:0]).shape == (0,)
    assert [party["me"] for party in client.health()] == list(PARTIES)


def test_a_client_takes_tables_of_any_numbers(client):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X[:5]).assign(**{"0": X[:5, 0] > 0}).drop(columns=0)
    table = table[["0", *range(1, 64)]].convert_dtypes()
    rows = np.column_stack([X[:5, 0] > 0, X[:5, 1:]])
    np.testing.assert_array_equal(client.predict(table), network().predict(rows))
    with pytest.raises(mpc.DtypeError, match="'0'"):
        client.predict(table.assign(**{"0": "?"}))


def test_every_kind_of_layer_is_served(services):
    with nn.Client(services.path, me="dora", model="pictures") as client:
        assert client.answers_ == ("class", "one-hot")
        np.testing.assert_array_equal(client.predict(X), picture_network().predict(X))
        for refused in (client.decision_function, client.predict_proba):
            with pytest.raises(mpc.ArgumentError, match="class, one-hot alone"):
                refused(X)


def test_scores_that_the_owner_has_not_allowed_are_refused_by_the_parties_too(services):
    with nn.Client(services.path, me="dora", model="pictures") as client:
        # As a client would that does not keep to the rules.
        client._model = dataclasses.replace(client._model, answers=("class", "scores"))
        with pytest.raises(mpc.PeerError, match="the model's owner allows no other"):
            client.decision_function(X[:2])
        np.testing.assert_array_equal(client.predict(X[:2]), picture_network().predict(X[:2]))


def test_features_of_very_different_sizes_are_served(services):
    rows, plain = flower_rows(), flower_network()
    with nn.Client(services.path, me="dora", model="flowers") as client:
        assert client.classes_.dtype == object
        np.testing.assert_array_equal(client.predict(rows), plain.predict(rows))
        np.testing.assert_allclose(client.predict_proba(rows), plain.predict_proba(rows), atol=1e-3)
        with pytest.raises(mpc.RangeError, match="in this feature.*index \\(0, 2\\)"):
            client.predict(rows[:1] * [[1, 1, 1e6]])


class Table(np.ndarray):
    """Rows whose columns have names."""

    columns = ("length", "height", "width")


def test_columns_in_another_order_are_refused(services):
    with nn.Client(services.path, me="dora", model="flowers") as client:
        rows = flower_rows()[:5].view(Table)
        with pytest.raises(mpc.ArgumentError, match="column 1 must be 'width', got 'height'"):
            client.predict(rows)
        rows.columns = ("length", "width", "height")
        np.testing.assert_array_equal(client.predict(rows), flower_network().predict(rows))


@pytest.mark.parametrize(("model", "outputs"), [("prices", 1), ("two-prices", 2)])
def test_regressors_are_served(services, model, outputs):
    rows, plain = flower_rows(), price_network(outputs)
    with nn.Client(services.path, me="dora", model=model) as client:
        assert client.answers_ == ("values",) and not hasattr(client, "classes_")
        assert client.predict(rows[:0]).shape == ((0,) if outputs == 1 else (0, 2))
        np.testing.assert_allclose(client.predict(rows), plain.predict(rows), atol=1e-3)
        with pytest.raises(mpc.ArgumentError, match="values alone"):
            client.predict_one_hot(rows)


def test_graphs_with_named_inputs_and_outputs_are_served(services):
    plain = branched_network()
    rows = 2 * X[:, :6] - 1
    parts = {"right": rows[:, 4:], "left": rows[:, :4]}
    with nn.Client(services.path, me="dora", model="branched") as client:
        assert client.answers_ == ("outputs",) and client.inputs_ == {"left": 4, "right": 2}
        for given in (rows, parts):
            found = client.predict(given)
            assert list(found) == ["kind", "size"]
            np.testing.assert_array_equal(found["kind"], plain.predict(rows)["kind"])
            np.testing.assert_allclose(found["size"], plain.predict(rows)["size"], atol=1e-3)
        with pytest.raises(mpc.ArgumentError, match="none called 'left'"):
            client.predict({"right": rows[:, 4:]})
        with pytest.raises(mpc.ArgumentError, match="outputs alone"):
            client.decision_function(rows)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (X[:, :5], mpc.ShapeError),
        (X * 1000, mpc.RangeError),
        (np.full((1, 64), np.nan), mpc.RangeError),
        (X - 1, mpc.RangeError),
    ],
    ids=["width", "range", "nan", "below"],
)
def test_bad_rows_are_refused_before_anything_is_sent(client, rows, error):
    with pytest.raises(error):
        client.predict(rows)


def test_an_unknown_model(services):
    with pytest.raises(
        mpc.ArgumentError, match="model must be one of network, pictures.*got 'other'"
    ):
        nn.Client(services.path, me="dora", model="other")


def test_two_clients_at_once(services, client):
    wrong, plain = [], network().predict(X)

    def ask(who, first):
        for k in range(first, 200 + first):
            rows = slice(k % 30, k % 30 + 1 + k % 3)
            if not np.array_equal(who.predict(X[rows]), plain[rows]):
                wrong.append(k)

    with nn.Client(services.path, me="dora", model="network") as other:
        threads = [threading.Thread(target=ask, args=a) for a in ((client, 0), (other, 7))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_threads_with_one_client_wait_for_each_other(client):
    plain, wrong = network().predict(X), []

    def ask(first):
        for k in range(first, 40 + first):
            rows = slice(k % 30, k % 30 + 1 + k % 3)
            if not np.array_equal(client.predict(X[rows]), plain[rows]):
                wrong.append(k)

    threads = [threading.Thread(target=ask, args=(7 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_client_stays_with_its_process(services):
    with nn.Client(services.path, me="dora", model="network") as client:
        for refused in (lambda: client.predict(X[:2]), client.health):
            assert in_child(refused).startswith(
                f"SessionError: the client belongs to the process {os.getpid()}, which this one, "
            )
        assert in_child(client.close) == "returned None"
        np.testing.assert_array_equal(client.predict(X[:3]), network().predict(X[:3]))


def test_garbage_and_clients_that_go_disturb_nobody(services, client):
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "dora")
    for member in read.parties.values():
        for send in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(1000)):
            with socket.create_connection(member.address) as sock:
                sock.sendall(send)
        # With the right certificate: no greeting, a malformed one, none of what was announced.
        connect(member, context, 30).close()
        for kind, data in ((Kind.HELLO, os.urandom(50)), (Kind.CALL, b"N")):
            connection = connect(member, context, 30)
            connection.post_bytes(kind, data)
            connection.push()
            connection.close()
    gone = nn.Client(services.path, me="dora", model="network")
    for connection in gone._connections:
        connection.close()
    half = nn.Client(services.path, me="dora", model="network")
    half._connections[0].post_bytes(Kind.CALL, b"t\x01s\x03abc")
    half._connections[0].push()
    np.testing.assert_array_equal(client.predict(X[:3]), network().predict(X[:3]))
    logged = services.logs["alice"].read_text()
    assert "event=refused at=alice" in logged
    assert "dora sent a HELLO that is malformed" in logged


def greeted(services, party):
    """Return a connection of a client that has said hello, and nothing yet."""
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "erin")
    connection = connect(read.parties[party], context, 30)
    mine = {name: v for name, v in terms(read, None).items() if name != "program"}
    send_hello(connection, "predict", mine, b"")
    read_hello(connection, 5)
    return connection


def call(*values):
    return lambda connection: connection.post_bytes(Kind.CALL, wire.encode(values))


def predict(model="network", answer="class", rows=2, id=b"i" * 16, seed=None):
    """Call as at the last party, which gets no seed with the call."""
    return call("predict", id, model, b"", answer, rows, *(() if seed is None else (seed,)))


def words(*shape):
    return lambda connection: connection.post(Kind.SHARE, [np.zeros(shape, np.uint64)])


def plain(size):
    return lambda connection: connection.post_bytes(Kind.SHARE, bytes(size))


def header(*shape, words=True, kind=Kind.SHARE, number=2):
    """Announce what never comes."""
    head = frames.pack(kind, number, 0, words, [shape])
    return lambda connection: connection.post_raw(head, [])


def again(connection):
    """Send the last frame once more, as it was."""
    connection.next_sent -= 1
    call("health")(connection)


def skipped(connection):
    connection.next_sent += 1
    call("health")(connection)


def listen(connection):
    while True:
        exchange([connection], 30)
        connection.take()
        connection.expect_bytes([Kind.ANSWER], 1 << 16)


@pytest.mark.parametrize(
    ("party", "steps", "told"),
    [
        ("alice", [call("x" * 5000)], "sent 5[0-9]* bytes where at most 4096 may come"),
        ("bob", [call("steal", 1)], "no call is named 'steal'"),
        ("bob", [call("health", 1, 2)], "malformed: wrong number of arguments"),
        ("bob", [call()], "malformed"),
        ("bob", [lambda c: c.post_bytes(Kind.CALL, b"Z")], "malformed"),
        ("bob", [words(3)], "sent SHARE .words. where CALL was to come"),
        ("bob", [header(1 << 31, number=1)], "sent SHARE"),
        ("bob", [header((1 << 32) - 1, words=False, kind=Kind.CALL, number=1)], "at most 4096"),
        ("bob", [predict(), words(2, 63)], r"sent the shape \(2, 63\) where \(2, 64\)"),
        ("bob", [predict(), words(3, 64)], r"sent the shape \(3, 64\)"),
        ("bob", [predict(), header(1 << 16, 1 << 15)], "sent the shape"),
        ("bob", [predict(), plain(16)], "where SHARE was to come"),
        ("bob", [predict(seed=bytes(16))], "at the last party none"),
        ("alice", [predict(seed=bytes(15))], "needs a seed of 16 bytes"),
        ("alice", [predict(seed="s" * 16)], "needs a seed of 16 bytes"),
        ("alice", [predict(), words(2, 64)], "needs a seed of 16 bytes"),
        ("alice", [predict(id=b"short", seed=bytes(16))], "needs an id and a number of rows"),
        ("alice", [predict(rows="2", seed=bytes(16))], "needs an id and a number of rows"),
        ("alice", [call("health"), again], "sent frame 1 where 2 was to come"),
        ("alice", [skipped], "sent frame 2 where 1 was to come"),
    ],
)
def test_hostile_calls_are_told_and_logged_and_disturb_nobody(services, client, party, steps, told):
    connection = greeted(services, party)
    for step in steps:
        step(connection)
    connection.expect_bytes([Kind.ANSWER], 1 << 16)
    with pytest.raises(mpc.PeerError, match=f"{party} stopped: .*erin.*({told})"):
        listen(connection)
    connection.close()
    np.testing.assert_array_equal(client.predict(X[:3]), network().predict(X[:3]))
    lines = [line for line in services.told(party).splitlines() if "event=lost" in line]
    assert re.search(f"erin.*({told})", lines[-1])


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (predict(model="other", seed=bytes(16)), "model must be one of network, pictures"),
        (predict(answer="weights", seed=bytes(16)), "answer must be one of class, one-hot, scores"),
        (predict(rows=0, seed=bytes(16)), "rows must be in .1, 4096., got 0"),
        (predict(rows=1 << 40, seed=bytes(16)), "rows must be in .1, 4096., got 1099511627776"),
    ],
)
def test_requests_that_cannot_be_answered_are_answered_so(services, client, request_, told):
    connection = greeted(services, "alice")
    for _ in range(2):  # the connection lives on
        request_(connection)
        connection.expect_bytes([Kind.ANSWER], 1 << 16)
        exchange([connection], 30)
        status, text = wire.decode(connection.take().data.data)
        assert status == "error" and re.search(told, text)
    connection.notify(Kind.BYE)
    connection.close()
    np.testing.assert_array_equal(client.predict(X[:3]), network().predict(X[:3]))


def test_the_provider_serves_computing_parties_alone(services):
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "erin")

    def greet():
        connection = connect(read.provider, context, 30)
        connection.expect_bytes([Kind.HELLO], 1000)
        exchange([connection], 30)

    with pytest.raises(mpc.PeerError, match="provider lets in alice, bob, provider alone"):
        greet()
    assert "event=refused at=provider" in services.told("provider")


def test_the_wrong_certificate_is_named(services, tmp_path):
    other = configuration.write_example(tmp_path / "other", PARTIES, ("carol", "dora"))
    text = services.path.read_text()
    (services.path.parent / "stranger.crt").write_bytes((other.parent / "dora.crt").read_bytes())
    (services.path.parent / "stranger.key").touch(mode=0o600)
    (services.path.parent / "stranger.key").write_bytes((other.parent / "dora.key").read_bytes())
    changed = services.path.parent / "stranger.toml"
    changed.write_text(
        text.replace('"dora.crt"', '"stranger.crt"').replace('"dora.key"', '"stranger.key"')
    )
    read = configuration.load(changed)
    context, _ = own_contexts(read, "dora")

    def greet():
        connection = connect(read.parties["alice"], context, 30)
        connection.expect_bytes([Kind.HELLO], 1000)
        exchange([connection], 30)

    with pytest.raises(mpc.CertificateError, match="alice refused the certificate shown to it"):
        greet()
    # Bob's certificate where alice's should be.
    swapped = text.replace("alice.crt", "?").replace("bob.crt", "alice.crt").replace("?", "bob.crt")
    changed.write_text(
        swapped.replace("alice.key", "?").replace("bob.key", "alice.key").replace("?", "bob.key")
    )
    read = configuration.load(changed)
    context, _ = own_contexts(read, "dora")
    with pytest.raises(mpc.PeerError, match="alice at .* has another certificate"):
        connect(read.parties["alice"], context, 30)


def test_plain_tcp_and_old_tls_are_refused(services):
    address = configuration.load(services.path).parties["alice"].address
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address) as sock, pytest.raises(ssl.SSLError):
        old.wrap_socket(sock)


def test_sigterm_stops_one_party_and_the_provider_and_the_others_wait(services, client):
    services.processes["alice"].send_signal(signal.SIGTERM)
    assert services.processes["alice"].wait(20) == 0, services.told("alice")
    assert "event=stop role=party me=alice" in services.told("alice")
    with pytest.raises(mpc.PeerError, match="alice"):
        nn.Client(services.path, me="dora", model="network", patience=0)
    services.wait_for("bob", "lost", "me=bob why='alice shuts down'")
    services.start("alice")
    # The client is the same as before.
    np.testing.assert_array_equal(client.predict(X), network().predict(X))
    services.processes["provider"].send_signal(signal.SIGTERM)
    assert services.processes["provider"].wait(20) == 0
    assert "event=stop" in services.told("provider")
    services.start("provider")
    np.testing.assert_array_equal(client.predict(X), network().predict(X))
    assert "provider shuts down" in services.lines("bob", "lost")[-1]
    assert all(process.poll() is None for process in services.processes.values())
