"""Parties as services: clients, garbage, restarts, and shares in files."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import mpc
import nn
from mpc import configuration
from mpc.transport.connection import exchange
from mpc.transport.frames import Kind
from mpc.transport.tls import connect, own_contexts
from tests.parties.programs import network

ROOT = Path(__file__).parents[2]
PARTIES = ("alice", "bob")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class Services:
    """The provider and both parties as commands."""

    def __init__(self, folder):
        self.path = configuration.write_example(
            folder / "trial", PARTIES, ("carol", "dora"), ports=free_ports(3),
            timeouts=configuration.Timeouts(connect=60, answer=20),
        )  # fmt: skip
        # In one process all parties' files are written; each serves its own.
        with mpc.Session(PARTIES) as session:
            nn.save_shares(
                network().share(session, owner="alice", low=0, high=1), folder / "shares"
            )
        self.logs = {name: folder / f"{name}.log" for name in ("provider", *PARTIES)}
        self.processes = {}
        for name, log in self.logs.items():
            what = ["provider", str(self.path)]
            if name != "provider":
                model = f"network={folder / 'shares'}"
                what = ["serve", str(self.path), "--me", name, "--model", model]
                what += ["--answers", "class,one-hot,scores"]
            with log.open("w") as file:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "nn.command", *what, "--verbose"],
                    stderr=file, cwd=ROOT,
                )  # fmt: skip

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(tmp_path_factory.mktemp("services"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(services):
    with nn.Client(services.path, me="carol") as client:
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
    with pytest.raises(mpc.ArgumentError, match="model must be one of network, got 'other'"):
        nn.Client(services.path, me="dora", model="other")


def test_two_clients_at_once(services, client):
    wrong, plain = [], network().predict(X)

    def ask(who, first):
        for k in range(first, 200 + first):
            rows = slice(k % 30, k % 30 + 1 + k % 3)
            if not np.array_equal(who.predict(X[rows]), plain[rows]):
                wrong.append(k)

    with nn.Client(services.path, me="dora") as other:
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
    gone = nn.Client(services.path, me="dora")
    for connection in gone._connections:
        connection.close()
    half = nn.Client(services.path, me="dora")
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


# Files.


def saved(folder):
    with mpc.Session() as session:
        return nn.save_shares(network().share(session, owner="alice", low=0, high=1), folder)


def test_saved_shares_are_one_partys_own(tmp_path):
    paths = saved(tmp_path / "model")
    assert [path.name for path in paths] == ["alice.npz", "bob.npz"]
    words = []
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with np.load(path, allow_pickle=False) as file:
            words.append(file["p0"])
            assert json.loads(file["header"].tobytes())["version"] == 1
    total = (words[0] + words[1]).view(np.int64) * 2.0**-16
    np.testing.assert_allclose(total, network().parameters[0], atol=2.0**-16)
    with mpc.Session() as session:
        model = nn.load_shares(session, tmp_path / "model")
        rows = model.share_rows(X, owner="bob")
        np.testing.assert_array_equal(model.predict(rows), network().predict(X))


def test_files_that_do_not_fit_are_refused(tmp_path):
    alice, bob = saved(tmp_path / "one")
    saved(tmp_path / "two")
    with pytest.raises(mpc.DataError, match="exists already"):
        saved(tmp_path / "one")

    def load(**options):
        with mpc.Session(**options) as session:
            nn.load_shares(session, tmp_path / "one")

    with pytest.raises(mpc.DataError, match="frac_bits must be 12, got 16"):
        load(frac_bits=12)
    kept = bob.read_bytes()
    bob.write_bytes((tmp_path / "two" / "bob.npz").read_bytes())
    with pytest.raises(mpc.DataError, match="not of one set"):
        load()
    bob.write_bytes(alice.read_bytes())
    with pytest.raises(mpc.DataError, match="party must be 'bob', got 'alice'"):
        load()
    bob.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(mpc.DataError, match=r"bob\.npz is damaged"):
        load()
    bob.chmod(0o644)
    with pytest.raises(mpc.DataError, match="mode 644"):
        load()
    bob.unlink()
    with pytest.raises(mpc.DataError, match="does not exist"):
        load()
