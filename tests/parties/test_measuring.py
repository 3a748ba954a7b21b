"""The network that the first party measures for all, and other terms that decide the form of a protocol."""

import socket
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import mpc
from mpc.core import wire
from mpc.core.frames import Kind
from mpc.core.network import MEASURED
from mpc.parties import configuration, measuring
from mpc.parties.handshake import disagreement, terms
from mpc.parties.joining import join_parties
from mpc.provider.service import ProviderService
from mpc.workers import worker


@pytest.fixture
def trial(tmp_path):
    """A configuration that measures, whose addresses are bound already, and a provider that runs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    path = configuration.write_example(tmp_path / "t", ports=ports)
    path.write_text(path.read_text() + "[network]\nmeasure = true\n")
    read = configuration.load(path)
    provider = ProviderService(read, sock=sockets[2].dup())
    yield read, sockets
    provider.close(grace=0.5)
    for sock in sockets:
        sock.close()


def both(trial, program, limits=(1 << 28, 1 << 28)):
    """Run a program in a session of both parties, each in a thread: what each returns, or its error."""
    read, sockets = trial
    found = {}

    def party(me, sock, limit):
        try:
            links = join_parties(read, me, None, sock.dup(), limit)
            with mpc.Session.from_links(read, me, links) as session:
                found[me] = program(session)
        except Exception as error:
            found[me] = error

    each = zip(("alice", "bob"), sockets[:2], limits, strict=True)
    threads = [threading.Thread(target=party, args=a, daemon=True) for a in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a party hangs"
    return found["alice"], found["bob"]


def forms(session):
    x = session.share([1.5, -2.0] if session.me == "bob" else None, owner="bob", shape=(2,))
    plan = session.plan(lambda p: p.twin(x).relu().reveal())
    y = x.relu().reveal()
    return session.network, y.tolist(), session.cost() == plan.cost, session.cost().forms


def test_all_choose_by_what_the_first_party_has_measured(trial, monkeypatch):
    asked = []

    def times(connection, exchange):
        asked.append(connection.peer)
        return 0.021, 1.2e9

    monkeypatch.setattr(measuring, "_times", times)
    alice, bob = both(trial, forms)
    assert asked == ["bob"]
    assert alice == bob
    network, y, as_planned, said = alice
    assert network == mpc.Network(0.02, 1000)
    assert y == [1.5, 0.0] and as_planned
    assert said["-"].startswith("2 rounds: 20 ms of trips")


def test_what_is_measured_is_a_network_that_all_have(trial):
    alice, bob = both(trial, forms)
    assert alice == bob and alice[1:3] == ([1.5, 0.0], True)
    network = alice[0]
    assert network.round_trip == measuring.rounded(network.round_trip, 1e-6, 100)
    assert network.megabits == measuring.rounded(network.megabits, 0.01, 1e6)


def test_without_a_provider_nothing_is_measured(trial, monkeypatch):
    monkeypatch.setattr(measuring, "measure", None)
    read, sockets = trial
    alone = replace(read, provider=None), sockets
    assert both(alone, lambda s: s.network) == (None, None)


def test_workers_have_what_their_party_has_measured(trial, monkeypatch):
    read, _ = trial
    found = []
    monkeypatch.setattr(worker, "connect", lambda *arguments: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(
        worker.Task, "_part", lambda task, read, control: found.append(read.network)
    )
    network = mpc.Network(0.02, 1000)
    task = worker.Task(
        str(read.path), "alice", read.format, 1 << 28, network, ("127.0.0.1", 1), b"", abs
    )
    task()
    assert found == [network]


@pytest.mark.parametrize(
    ("value", "near"),
    [(0.021, 0.02), (0.0033, 0.005), (950, 1000), (0.0, 1e-6), (1e12, 1e6), (3.1, 2), (1.0, 1.0)],
)
def test_measured_numbers_are_rounded(value, near):
    assert measuring.rounded(value, 1e-6, 1e6) == near


class Told:
    """Stands in for the connection to a first party that tells anything."""

    peer = "alice"

    def __init__(self, data, probes=0):
        self.data, self.left, self.answered = data, probes, 0

    def expect_bytes(self, kinds, largest):
        assert Kind.PROBE in kinds and Kind.READY in kinds

    def take(self):
        kind = Kind.PROBE if self.left else Kind.READY
        self.left -= 1
        data = np.frombuffer(b"" if kind == Kind.PROBE else self.data, np.uint8)
        return SimpleNamespace(header=SimpleNamespace(kind=kind), data=data)

    def post_bytes(self, kind, data):
        self.answered += 1


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ((-1, 10**6), "alice told a network that there cannot be: round_trip must be a positive"),
        ((0, 10**6), "round_trip must be a positive number"),
        ((2**63 - 1, 10**6), "round_trip must be a positive number below"),
        ((10**7, 0), "megabits must be a positive number"),
        ((10**7, 2**63 - 1), "megabits must be a positive number below"),
        ((10**7, "fast"), "alice told a network that is malformed"),
        ((10**7, True), "malformed"),
        ((10**7,), "malformed"),
        (None, "malformed"),
        (b"\xffnan", "malformed"),
    ],
)
def test_a_network_that_cannot_be_is_refused_by_name(told, message):
    data = told if isinstance(told, bytes) else wire.encode(told)
    with pytest.raises(mpc.FrameError, match=message):
        measuring.follow(Told(data), lambda connections: None)


def test_a_first_party_that_never_ends_to_measure_is_refused():
    told = Told(b"", probes=10**6)
    with pytest.raises(mpc.FrameError, match="alice measures the network without an end"):
        measuring.follow(told, lambda connections: None)
    assert told.answered < 20


def test_the_first_party_takes_the_slowest(monkeypatch):
    found = iter([(0.021, 1.2e9), (0.048, 4e9), (0.001, 11e6)])
    monkeypatch.setattr(measuring, "_times", lambda connection, exchange: next(found))
    told = [Told(b""), Told(b""), Told(b"")]
    assert measuring.measure(told, lambda connections: None) == mpc.Network(0.05, 10)
    assert [t.answered for t in told] == [1, 1, 1]


def test_parties_must_have_the_same_memory_limit(trial):
    alice, bob = both(trial, forms, limits=(1 << 28, 1 << 20))
    for error in (alice, bob):
        assert isinstance(error, mpc.HandshakeError)
        assert (
            "alice and bob disagree on memory_limit: alice has 268435456, bob has 1048576"
            in str(error)
        )


def test_a_memory_limit_may_be_any_number(trial):
    read, _ = trial
    mine = terms(read, None, 10**30)
    assert dict(wire.decode(wire.encode(tuple(mine.items()))))["memory_limit"] == 1 << 62


def test_a_measured_and_a_stated_network_disagree(trial):
    read, _ = trial
    assert read.network == MEASURED
    stated = replace(read, network=mpc.Network(0.02, 1000))
    assert disagreement("alice", terms(read, None), "bob", terms(stated, None)) == (
        "alice and bob disagree on network: alice has 'measured', bob has '0.02 s, 1000.0 Mbit/s'"
    )
