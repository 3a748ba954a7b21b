"""Parties as services: clients, garbage, restarts, and shares in files."""

import dataclasses
import os
import signal
import socket
import ssl
import threading

import numpy as np
import pytest

import mpc
import nn
from mpc import configuration
from mpc.transport.connection import exchange
from mpc.transport.frames import Kind
from mpc.transport.tls import connect, own_contexts
from tests.parties.programs import (
    flower_network,
    flower_rows,
    network,
    picture_network,
    price_network,
)
from tests.parties.services import PARTIES, Services


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


@pytest.mark.parametrize(("model", "outputs"), [("prices", 1), ("two-prices", 2)])
def test_regressors_are_served(services, model, outputs):
    rows, plain = flower_rows(), price_network(outputs)
    with nn.Client(services.path, me="dora", model=model) as client:
        assert client.answers_ == ("values",) and not hasattr(client, "classes_")
        assert client.predict(rows[:0]).shape == ((0,) if outputs == 1 else (0, 2))
        np.testing.assert_allclose(client.predict(rows), plain.predict(rows), atol=1e-3)
        with pytest.raises(mpc.ArgumentError, match="values alone"):
            client.predict_one_hot(rows)


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


def test_garbage_and_clients_that_go_disturb_nobody(services, client):
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "dora")
    for member in read.parties.values():
        for send in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(1000)):
            with socket.create_connection(member.address) as sock:
                sock.sendall(send)
        # With the right certificate: no greeting, a malformed one, none of what was announced.
        connect(member, context, 5).close()
        for kind, data in ((Kind.HELLO, os.urandom(50)), (Kind.CALL, b"N")):
            connection = connect(member, context, 5)
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
        connection = connect(read.parties["alice"], context, 5)
        connection.expect_bytes([Kind.HELLO], 1000)
        exchange([connection], 5)

    with pytest.raises(mpc.PeerError, match="refused the certificate|closed the connection"):
        greet()
    # Bob's certificate where alice's should be.
    swapped = text.replace("alice.crt", "?").replace("bob.crt", "alice.crt").replace("?", "bob.crt")
    changed.write_text(
        swapped.replace("alice.key", "?").replace("bob.key", "alice.key").replace("?", "bob.key")
    )
    read = configuration.load(changed)
    context, _ = own_contexts(read, "dora")
    with pytest.raises(mpc.PeerError, match="alice at .* has another certificate"):
        connect(read.parties["alice"], context, 5)


def test_plain_tcp_and_old_tls_are_refused(services):
    address = configuration.load(services.path).parties["alice"].address
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address) as sock, pytest.raises(ssl.SSLError):
        old.wrap_socket(sock)


def test_sigterm_stops_all_parties_after_their_turn(services, client):
    services.processes["alice"].send_signal(signal.SIGTERM)
    for name in PARTIES:
        assert services.processes[name].wait(20) == 0, services.logs[name].read_text()[-1000:]
    with pytest.raises(mpc.PeerError):
        client.predict(X[:1])
    services.processes["provider"].send_signal(signal.SIGTERM)
    assert services.processes["provider"].wait(40) == 0
    for log in services.logs.values():
        assert "event=stop" in log.read_text()
