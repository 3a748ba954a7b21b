"""Joining a session when another one's listener still stands at the same address."""

import socket
import threading
from dataclasses import replace

import pytest

import mpc
from mpc.parties import configuration
from mpc.parties.handshake import disagreement, hear_hello, terms
from mpc.parties.joining import join_parties
from mpc.parties.tls import own_contexts
from mpc.transport.listener import Listener
from mpc.transport.loop import farewell


@pytest.fixture
def trial(tmp_path):
    """A configuration whose addresses are bound already, and their sockets."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    yield configuration.load(configuration.write_example(tmp_path / "t", ports=ports)), sockets
    for sock in sockets:
        sock.close()


def listen(read, sock, talk):
    _, server = own_contexts(read, "alice")
    listener = Listener("alice", sock, server, {"bob": read.parties["bob"].accepted}, talk)
    listener.start()
    return listener


def join(read, me, problems, sock=None):
    try:
        join_parties(read, me, sock=sock)
    except mpc.PeerError as error:
        problems.append(f"{me}: {error}")


def joining(*arguments):
    thread = threading.Thread(target=join, args=arguments, daemon=True)
    thread.start()
    return thread


def test_a_connection_that_an_ended_session_took_is_made_again(trial):
    read, sockets = trial
    came = []

    def talk(connection):
        greeting = yield from hear_hello(connection, 10)
        came.append((connection.peer, greeting.purpose))
        return farewell(connection, "enough") if len(came) > 1 else None

    listener = listen(read, sockets[0], talk)
    problems = []
    bob = joining(read, "bob", problems)
    bob.join(60)
    assert not bob.is_alive()
    assert came == [("bob", "session")] * 2
    assert len(problems) == 1 and "enough" in problems[0]
    listener.close()


def test_a_closed_listener_keeps_no_connection_open(trial):
    """Neither one that it holds nor one that comes while it closes."""
    read, sockets = trial
    held = threading.Event()

    def talk(connection):
        yield from hear_hello(connection, 10)
        held.set()
        connection.expect_bytes([], 0)
        yield 1e9

    listener = listen(read, sockets[0].dup(), talk)
    problems = []
    bob = joining(read, "bob", problems)
    assert held.wait(60)
    listener.close()

    def refuse(connection):
        yield from hear_hello(connection, 10)
        return farewell(connection, "enough")

    second = listen(read, sockets[0], refuse)
    bob.join(60)
    assert len(problems) == 1 and "enough" in problems[0]
    second.close()


def test_parties_listed_in_another_order_say_so(trial):
    """Both wait to be reached, as each holds itself to be the first."""
    read, sockets = trial
    text = read.path.read_text()
    first, second = text.index("[parties.alice]"), text.index("[parties.bob]")
    end = text.index("# Who may ask")
    swapped = read.path.with_name("swapped.toml")
    swapped.write_text(text[:first] + text[second:end] + text[first:second] + text[end:])
    other = configuration.load(swapped)
    assert other.names == ("bob", "alice")
    problems = []
    threads = [
        joining(read, "alice", problems, sockets[0].dup()),
        joining(other, "bob", problems, sockets[1].dup()),
    ]
    for thread in threads:
        thread.join(60)
    assert len(problems) == 2
    for problem in problems:
        assert "disagree on parties: " in problem and "('bob', 'alice')" in problem


def test_a_name_that_does_not_resolve_yet_is_tried_until_the_deadline(trial, monkeypatch):
    read, sockets = trial
    real, tries = socket.create_connection, []

    def resolve(address, **options):
        if address == read.parties["alice"].address:
            tries.append(address)
        if len(tries) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(address, **options)

    monkeypatch.setattr(socket, "create_connection", resolve)

    def refuse(connection):
        yield from hear_hello(connection, 10)
        return farewell(connection, "enough")

    listener = listen(read, sockets[0], refuse)
    problems = []
    join(read, "bob", problems)
    assert "enough" in problems[0] and len(tries) == 4
    listener.close()
    monkeypatch.setattr(socket, "create_connection", real)


def test_nobody_is_let_in_before_a_service_is_made(monkeypatch):
    """A connection that waits already is not handled by half a service."""
    from mpc.transport.listener import Listener
    from mpc.transport.loop import Loop

    started = []
    monkeypatch.setattr(Loop, "start", lambda loop: started.append(loop))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener("alice", sock, None, {}, lambda connection: None)
        assert not started
        listener.start()
        assert started == [listener.loop]


def test_parties_without_a_provider_shake_hands_alone(trial):
    read, sockets = trial
    alone, found = replace(read, provider=None), {}

    def meet(me, sock):
        found[me] = join_parties(alone, me, sock=sock)

    threads = [
        threading.Thread(target=meet, args=(me, sock.dup()), daemon=True)
        for me, sock in zip(alone.names, sockets, strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    alice, bob = found["alice"], found["bob"]
    assert alice.session == bob.session and alice.pair_keys[1] == bob.pair_keys[0]
    for links in (alice, bob):
        assert links.provider is None and links.provider_key is None
        assert links.connections == tuple(links.peers.values())
        for connection in links.connections:
            connection.close()


def test_parties_must_agree_on_whether_there_is_a_provider(trial):
    read, _ = trial
    alone = terms(replace(read, provider=None), None)
    assert disagreement("alice", terms(read, None), "bob", alone) == (
        "alice and bob disagree on provider: alice has 'crypto', bob has 'none'"
    )
