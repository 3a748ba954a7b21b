"""Whoever presents a certificate that is not accepted is told so at the first try, and why."""

import re
import signal
import socket
import ssl
import time

import numpy as np
import pytest

import mpc
import nn
from mpc.parties import configuration
from mpc.parties.tls import connect, own_contexts
from mpc.transport import certificates, listener
from mpc.transport.addresses import bind
from mpc.transport.certificates import make_certificate
from mpc.transport.connection import exchange
from mpc.transport.listener import Listener
from mpc.transport.tls_session import Tls
from nn.command import main
from nn.serving import client_connections
from tests.helpers.dates import redate
from tests.helpers.ports import free_ports
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, Services

X = np.random.default_rng(3).random((3, 64))
NOT_THERE = "it is not in that one's parties.toml, which sotto join and SIGHUP there put right"
KINDS = {
    "expired": "by that one's clock it has expired; sotto key --successor makes the next",
    "not yet valid": "it is damaged, or not valid yet by that one's clock",
    "unknown": NOT_THERE,
    "removed": NOT_THERE,
}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Services that know certificates of erin's that have expired, or are not valid yet."""

    def edit(path):
        folder = path.parent
        for kind, begin, end in (("expired", -9, -1), ("not yet valid", 1, 9)):
            name = kind.replace(" ", "-")
            files = folder / f"{name}.crt", folder / f"{name}.key"
            make_certificate("x", *files)
            redate(*files, begin, end)
            with path.open("a") as file:
                file.write(f'[clients.{name}]\ncertificate = "{name}.crt"\n')

    folder = tmp_path_factory.mktemp("refused")
    running = Services(folder, {"network": MODELS["network"]}, workers=1, edit=edit)
    works(running)
    yield running
    assert not running.stop()


def works(services):
    with nn.Client(services.path, me="dora", model="network", patience=60) as client:
        np.testing.assert_array_equal(client.predict(X), network().predict(X))


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def presenting(services, kind):
    """Return a file of erin's own, whose key is of a certificate that is refused."""
    folder, name = services.path.parent, kind.replace(" ", "-")
    if kind == "unknown" and not (folder / "unknown.crt").exists():
        make_certificate("erin", folder / "unknown.crt", folder / "unknown.key")
    if kind == "removed":
        text = services.path.read_text()
        part = re.search(r"\[clients\.carol\]\n.*?\n\n", text, re.DOTALL)[0]
        services.path.write_text(text.replace(part, ""))
        for party in PARTIES:
            services.processes[party].send_signal(signal.SIGHUP)
            until(lambda party=party: services.lines(party, "reload"))
        mine = folder / "carol's own.toml"
        mine.write_text(text)
        return mine, "carol"
    mine = folder / f"erin {name}.toml"
    text = services.path.read_text()
    # Hers alone: the others have these certificates beside other names.
    text = re.sub(rf"\[clients\.{name}\]\n[^\n]*\n", "", text)
    for end in ("crt", "key"):
        text = text.replace(f'"erin.{end}"', f'"{name}.{end}"')
    mine.write_text(text)
    return mine, "erin"


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_is_told_at_its_first_try(services, kind, monkeypatch, capsys):
    mine, me = presenting(services, kind)
    # As by a clock of hers that is wrong: else her own machine refuses it.
    monkeypatch.setattr(certificates.Certificate, "problem", "")
    tries = []

    def counted(member, *arguments):
        tries.append(member.name)
        return connect(member, *arguments)

    monkeypatch.setattr(client_connections, "connect", counted)
    told = f"alice refused the certificate shown to it: {KINDS[kind]}"
    for _ in range(5):
        tries.clear()
        with pytest.raises(mpc.CertificateError, match=re.escape(told)):
            nn.Client(mine, me=me)
        assert tries == ["alice"]
    assert main(["health", str(mine), "--me", me]) == 1
    shown = capsys.readouterr().out
    for party in PARTIES:
        assert f"{party} refused the certificate shown to it: {KINDS[kind]}" in shown
    works(services)


def test_a_client_is_told_when_it_is_a_service_that_cannot_be_trusted(services, monkeypatch):
    mine = services.path.parent / "swapped.toml"
    text = services.path.read_text().replace('"alice.crt"', '"unknown.crt"', 1)
    if not (mine.parent / "unknown.crt").exists():
        make_certificate("x", mine.parent / "unknown.crt", mine.parent / "unknown.key")
    mine.write_text(text.replace('key = "alice.key"\n', ""))
    tries = []

    def counted(member, *arguments):
        tries.append(member.name)
        return connect(member, *arguments)

    monkeypatch.setattr(client_connections, "connect", counted)
    with pytest.raises(mpc.CertificateError, match="alice at .* has another certificate"):
        nn.Client(mine, me="dora")
    assert tries == ["alice"]


def test_a_service_waits_and_its_log_says_why(services):
    works(services)
    folder = services.path.parent
    for end in ("crt", "key"):
        (folder / f"stranger.{end}").unlink(missing_ok=True)
    make_certificate("bob", folder / "stranger.crt", folder / "stranger.key")
    right = services.path
    mine = folder / "bob's own.toml"
    text = right.read_text()
    for end in ("crt", "key"):
        text = text.replace(f'"bob.{end}"', f'"stranger.{end}"')
    mine.write_text(text)
    services.kill("bob")
    services.path = mine
    services.start("bob")
    services.path = right
    why = f"alice refused the certificate shown to it: {NOT_THERE}"
    until(lambda: any(why in line for line in services.lines("bob", "waiting")))
    assert services.processes["bob"].poll() is None
    services.kill("bob")
    services.start("bob")
    works(services)


class Door:
    """A listener of alice's that hangs up on whoever has got in."""

    def __init__(self, read, known):
        _, server = own_contexts(read, "alice")
        self.came = []
        sock = bind(read.parties["alice"].listen)
        self.listener = Listener("alice", sock, server, known, self._take)
        self.listener.start()

    def _take(self, connection):
        self.came.append(connection.peer)
        return None
        yield

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


@pytest.fixture
def read(tmp_path):
    path = configuration.write_example(tmp_path / "trial", ports=free_ports(3))
    return configuration.load(path)


def test_whoever_is_known_and_not_wanted_is_told_by_name(read):
    known = {"bob": read.parties["bob"].accepted}
    context, _ = own_contexts(read, "carol")
    with Door(read, known):
        for _ in range(20):
            connection = connect(read.parties["alice"], context, 30)
            connection.expect_bytes([], 0)
            with pytest.raises(mpc.PeerError, match="alice stopped: alice lets in bob alone"):
                exchange([connection], 30)
            connection.close()


def test_somebody_who_is_refused_has_time_to_hear_it(read, monkeypatch, tmp_path):
    """Where a socket closes on what has yet to come, some systems take back the alert."""
    monkeypatch.setattr(listener, "_FAREWELL_SECONDS", 60)
    make_certificate("x", tmp_path / "x.crt", tmp_path / "x.key")
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    plain.load_cert_chain(tmp_path / "x.crt", tmp_path / "x.key")
    with Door(read, read.certificates()) as door:
        sock = socket.create_connection(read.parties["alice"].address)
        tls = Tls(sock, plain, server=False)
        tls.handshake(time.monotonic() + 30)
        sock.setblocking(True)
        assert sock.recv(1000)
        assert not sock.recv(1000)
        for _ in range(3):
            sock.sendall(b"what was on its way")
            time.sleep(0.05)
        sock.close()
        until(lambda: not door.listener.newcomers)
        assert not door.came


def test_so_many_are_let_in_a_second(read, monkeypatch):
    """Beyond that they wait, however many there are and whoever they are; nobody is sent away."""
    monkeypatch.setattr(listener, "_SAVED", 3)
    monkeypatch.setattr(listener, "_A_SECOND", 0)
    context, _ = own_contexts(read, "carol")

    def come(seconds=30):
        return connect(read.parties["alice"], context, seconds)

    with Door(read, read.certificates()) as door:
        connections = [come() for _ in range(3)]
        with pytest.raises(mpc.PeerTimeoutError, match="did not finish TLS"):
            come(0.5)
        # Of the third the listener may hear later than carol.
        until(lambda: len(door.came) >= 3)
        assert door.came == ["carol"] * 3
        monkeypatch.setattr(listener, "_A_SECOND", 1000)
        connections.append(come())
        until(lambda: len(door.came) >= 4)
    for connection in connections:
        connection.close()
