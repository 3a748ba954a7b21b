"""Services live until they are told to stop: neither silence nor a client nor a stranger ends them."""

import os
import signal
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

import mpc
import nn
from mpc.core import wire
from mpc.core.errors import PeerError
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.handshake import read_hello, send_hello, terms
from mpc.parties.health import ask
from mpc.parties.tls import connect, own_contexts
from mpc.transport import waiting
from mpc.transport.certificates import load_certificate, make_certificate
from mpc.transport.connection import exchange
from nn.command import main
from nn.serving.parcels import Contents
from nn.serving.service import PartyService
from tests.helpers.dates import redate
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, Services

X = np.random.default_rng(15).random((5, 64))
IDLE = 2


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("lasting"),
        {"network": MODELS["network"], "flowers": MODELS["flowers"]},
        workers=1, idle=IDLE, answer=6, more="[limits]\nconnections = 40\nrequests = 20\n",
    )  # fmt: skip
    yield running
    assert not running.stop()


def client(services, me="carol", **options):
    return nn.Client(services.path, me=me, model="network", **options)


def works(services, me="carol"):
    with client(services, me) as one:
        np.testing.assert_array_equal(one.predict(X), network().predict(X))


def sessions(services):
    """Return how many sessions the provider has had that are over."""
    found = ask(configuration.load(services.path), "alice")[0].told
    assert found["sessions"] == 1
    return found["served"]


def greeted(services, party, me="erin"):
    """Return a connection of a client that has said hello, and nothing yet."""
    read = configuration.load(services.path)
    context, _ = own_contexts(read, me)
    connection = connect(read.parties[party], context, 20)
    mine = {name: v for name, v in terms(read, None).items() if name != "program"}
    send_hello(connection, "predict", mine, b"")
    read_hello(connection, 20)
    return connection


def send(connection, id, rows):
    """Send a request for rows of zeros; the last party gets words and the other a seed."""
    call = ("predict", id, "network", b"", "class", rows)
    if connection.peer == PARTIES[-1]:
        connection.post_bytes(Kind.CALL, wire.encode(call))
        (share,) = Contents((bytes(16),), 0, 2, watched=False).shares((rows, 64), None)
        connection.post(Kind.SHARE, [np.negative(share)])
    else:
        connection.post_bytes(Kind.CALL, wire.encode((*call, bytes(16))))
    connection.expect_bytes([Kind.ANSWER], 1 << 16)
    connection.push()


def test_silence_ends_nothing_and_a_quiet_client_connects_again(services):
    with client(services) as one:
        one.predict(X)
        over, before = sessions(services), one._connections
        threading.Event().wait(1.8 * IDLE)
        np.testing.assert_array_equal(one.predict(X), network().predict(X))
        assert one._connections is not before, "the parties have not let it go"
    assert sessions(services) == over


def test_a_request_that_parties_get_differently_is_refused_and_nothing_else(services):
    over = sessions(services)
    both = [greeted(services, name) for name in PARTIES]
    for connection, rows in zip(both, (1, 2), strict=True):
        send(connection, b"d" * 16, rows)
    exchange(both, 30)
    for connection in both:
        status, text = wire.decode(connection.take().data.data)
        assert status == "later" and "not every party has got this request alike" in text
        # Its connections live on.
        send(connection, b"e" * 16, 2)
    works(services)
    exchange_words(both)
    assert sessions(services) == over


def exchange_words(both):
    for connection in both:
        connection.expect_arrays(Kind.ANSWER, ((2,),))
    exchange(both, 30)
    for connection in both:
        connection.take()
        connection.close()


@pytest.mark.parametrize("party", PARTIES)
def test_requests_that_one_party_alone_gets_hold_nobody_up(services, party):
    over = sessions(services)
    lone = []
    for number in range(32):
        # Each asks at once: who says nothing for two seconds is let go.
        lone.append(greeted(services, party))
        send(lone[-1], party.encode().ljust(15) + bytes([number]), 1)
    for _ in range(5):
        works(services)
    answers = []
    exchange(lone, 30)
    for connection in lone:
        answers.append(wire.decode(connection.take().data.data))
        connection.close()
    # Twenty wait in vain for as long as an answer may take, the others are too many.
    many = [text for _, text in answers if "has 20 requests in progress" in text]
    assert len(many) == 12
    assert sum("not every party has got" in text for _, text in answers) == 20
    assert sessions(services) == over
    works(services, "erin")


def test_more_connections_than_a_client_may_have_are_refused_to_it_alone(services):
    read = configuration.load(services.path)
    context, _ = own_contexts(read, "erin")
    # They say nothing yet, so that none is let go as idle before the last has come.
    many = [connect(read.parties["alice"], context, 20) for _ in range(40)]
    with pytest.raises(PeerError, match="erin has 40 connections already"):
        many.extend(greeted(services, "alice") for _ in range(3))
    works(services)
    for connection in many:
        connection.close()
    threading.Event().wait(0.5)
    works(services, "erin")


def test_silent_connections_of_strangers_keep_nobody_out_and_fill_no_log(services):
    read = configuration.load(services.path)
    for member in (*read.parties.values(), read.provider):
        silent = [socket.create_connection(member.address) for _ in range(300)]
        garbage = [socket.create_connection(member.address) for _ in range(50)]
        for sock in garbage:
            sock.sendall(os.urandom(100))
        works(services, "dora")
        # A restarted party gets in as well.
        assert ask(read, "alice")[0].told["role"] == "provider"
        for sock in (*silent, *garbage):
            sock.close()
    for name in services.logs:
        assert len(services.lines(name, "refused")) < 20, services.told(name)[-2000:]


def refused(ask):
    """Ask until there is an error; return what it says."""
    while True:
        try:
            ask()
        except PeerError as error:
            return str(error)


def test_a_clients_error_is_not_its_last_word(services):
    with client(services, patience=0) as one:
        services.kill("provider")
        assert "provider" in refused(lambda: one.predict(X))
        # Why nobody can be served is what a new client is told too.
        assert "provider" in refused(lambda: client(services, patience=0).close())
        services.start("provider")
        works(services)
        np.testing.assert_array_equal(one.predict(X), network().predict(X))


def test_the_provider_drains_under_load_and_ends(services):
    load = services.load("dora")
    services.processes["provider"].send_signal(signal.SIGTERM)
    assert services.processes["provider"].wait(20) == 0
    # The parties have ended their session, having done what had begun; nobody cut it off.
    assert services.lines("provider", "session")[-1].endswith("problem=-")
    assert load.poll() is None
    services.start("provider")
    works(services)
    load.stdin.close()
    told = load.stdout.read().splitlines()
    # Nobody was told of an error: what had begun was finished, the rest was asked again.
    assert len(told) == 1 and told[0].startswith("answered ")
    for name in PARTIES:
        assert "provider shuts down" in services.lines(name, "lost")[-1]


def reload(services, name):
    """Send SIGHUP; return what the service says of it."""
    before = len(services.lines(name, "reload"))
    services.processes[name].send_signal(signal.SIGHUP)
    while len(services.lines(name, "reload")) == before:
        pass
    return services.lines(name, "reload")[-1]


def test_a_party_that_stalls_is_missed_without_a_request_and_comes_back(services):
    works(services)
    alice = services.processes["alice"]
    before = len(services.lines("bob", "lost"))
    alice.send_signal(signal.SIGSTOP)
    try:
        while not (said := [x for x in services.lines("bob", "lost")[before:] if "me=bob" in x]):
            assert services.processes["bob"].poll() is None
    finally:
        alice.send_signal(signal.SIGCONT)
    assert "why='alice did not answer within 8 s" in said[0]
    works(services)


def test_a_new_set_of_shares_and_new_clients_are_taken_without_losing_a_request(services):
    load = services.load("dora", model="network")
    text = services.path.read_text()
    # What is wrong changes nothing.
    services.path.write_text(text + "[nonsense]\n")
    for name in services.logs:
        assert "no 'nonsense' goes here" in reload(services, name)
    services.path.write_text(text.replace("[clients.erin]", "[clients.frank]"))
    folder = services.folder / "network"
    for file in folder.iterdir():
        file.unlink()
    assert "network/alice.npz does not exist" in reload(services, "alice")
    services.save("network", folder)
    for name in PARTIES:
        # In between the parties have different sets, and serve the one that both have.
        assert reload(services, name).endswith("clients=carol,dora,frank")
        works(services)
    works(services, "frank")
    services.path.write_text(text)
    for name in PARTIES:
        assert reload(services, name).endswith("clients=carol,dora,erin")
    load.stdin.close()
    told = load.stdout.read().splitlines()
    assert len(told) == 1 and told[0].startswith("answered ")


def test_certificates_are_renewed_without_losing_a_request(services):
    load = services.load("dora")
    trial, text = services.path.parent, services.path.read_text()
    new_alone = text
    for name in ("provider", *PARTIES, "carol"):
        make_certificate(name, trial / f"{name}-2.crt", trial / f"{name}-2.key")
        line, other = f'certificate = "{name}.crt"', f'"{name}-2.crt"'
        text = text.replace(line, f"{line}\nsuccessor = {other}")
        new_alone = new_alone.replace(line, f"certificate = {other}").replace(
            f'"{name}.key"', f'"{name}-2.key"'
        )
    # First all know the successors; then everybody presents one.
    for each in (text, new_alone):
        services.path.write_text(each)
        for name in services.logs:
            before = len(services.lines(name, "reload"))
            services.processes[name].send_signal(signal.SIGHUP)
            while len(services.lines(name, "reload")) == before:
                pass
    # Who knows the new ones alone gets in, and finds nobody with an old one.
    works(services)
    load.stdin.close()
    told = load.stdout.read().splitlines()
    assert len(told) == 1 and told[0].startswith("answered ")
    services.kill("provider")
    services.start("provider")
    works(services)


def test_a_party_outlives_its_own_certificate(services):
    old = configuration.load(services.path)
    own = services.path.parent / "old.crt", services.path.parent / "old.key"
    make_certificate("alice", *own)
    redate(*own, -9, -1)
    expired = replace(old.parties["alice"], certificates=(load_certificate(own[0]),), key=own[1])
    sock = socket.create_server(("127.0.0.1", 0))
    folders = {"network": services.folder / "network"}
    party = PartyService(old, "alice", folders, sock=sock)
    party.read = replace(old, parties={**old.parties, "alice": expired})
    thread = threading.Thread(target=party.run)
    thread.start()
    while "old.crt expired" not in party.state:
        assert thread.is_alive()
    party.reload(old)
    while "expired" in party.state:
        assert thread.is_alive()
    party.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_what_is_wrong_at_a_party_is_said_before_others_are_waited_for(services, capsys):
    arguments = ["serve", str(services.path), "--me", "alice", "--model", "x=missing"]
    assert main(arguments) == 78
    assert "missing/alice.npz does not exist" in capsys.readouterr().err


def test_services_say_at_once_what_they_do(services):
    told = {name: path.read_text() for name, path in services.printed.items()}
    assert "provider listens at 127.0.0.1:" in told["provider"]
    for name, other in (PARTIES, PARTIES[::-1]):
        assert f"{name} listens at 127.0.0.1:" in told[name]
        assert f"and waits for {other}, provider\n" in told[name]
        assert f"{name} is ready: network, flowers\n" in told[name]


class Quiet:
    """Stands in for a connection; says after a while who is late, or nothing."""

    sent_bytes = received_bytes = 0

    def __init__(self, peer, says=""):
        self.peer, self.says, self.asked = peer, says, 0
        self._ends = socket.socketpair()

    def fileno(self):
        return self._ends[0].fileno()

    def events(self):
        return 1

    def advance(self, readable=None):
        self.asked += 1
        if self.says and self.late():
            raise mpc.PeerError(f"{self.peer} stopped: {self.says}")
        return False


def test_of_several_that_are_late_the_one_is_named_for_which_the_others_wait(monkeypatch):
    monkeypatch.setattr(waiting, "_EXPLAIN_SECONDS", 0.2)
    bob, carol = Quiet("bob", "carol did not answer"), Quiet("carol")
    clock = waiting.time.monotonic()
    bob.late = lambda: waiting.time.monotonic() > clock + 0.15
    for order in ([bob, carol], [carol, bob]):
        with pytest.raises(mpc.PeerError, match="bob stopped: carol did not answer"):
            waiting.exchange(order, 0.1)
    bob.says = ""
    with pytest.raises(mpc.PeerTimeoutError, match=r"^bob and carol did not answer within 0.1 s"):
        waiting.exchange([bob, carol], 0.1)
    with pytest.raises(mpc.PeerTimeoutError, match=r"^carol did not answer within 0.1 s"):
        waiting.exchange([carol], 0.1)
