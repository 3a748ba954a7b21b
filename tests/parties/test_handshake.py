"""Joining a session when another one's listener still stands at the same address."""

import socket
import threading

import pytest

import mpc
from mpc import configuration
from mpc.handshake import join_parties
from mpc.transport.frames import Kind
from mpc.transport.tls import Listener, own_contexts


@pytest.fixture
def trial(tmp_path):
    """A configuration whose first party's address is bound already."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    yield configuration.load(configuration.write_example(tmp_path / "t", ports=ports)), sockets[0]
    for sock in sockets:
        sock.close()


def listen(read, sock):
    _, server = own_contexts(read, "alice")
    return Listener("alice", sock, server, {"bob": read.parties["bob"].accepted})


def join(read, problems):
    try:
        join_parties(read, "bob")
    except mpc.PeerError as error:
        problems.append(str(error))


def test_a_connection_that_an_ended_session_took_is_made_again(trial):
    read, sock = trial
    listener = listen(read, sock)
    problems = []
    bob = threading.Thread(target=join, args=(read, problems), daemon=True)
    bob.start()
    listener.accept(10).close()
    again = listener.accept(10)
    assert again is not None and again.peer == "bob"
    again.notify(Kind.ABORT, "enough")
    bob.join(10)
    assert not bob.is_alive()
    assert len(problems) == 1 and "enough" in problems[0]
    listener.close()


def test_a_closed_listener_keeps_no_connection_open(trial):
    """Neither one that waits in its queue nor one whose TLS ends later."""
    read, sock = trial
    listener = listen(read, sock.dup())
    admit, go = listener._admit, threading.Event()

    def late(*args):
        go.wait(10)
        admit(*args)

    listener._admit = late
    problems = []
    bob = threading.Thread(target=join, args=(read, problems), daemon=True)
    bob.start()
    while not any(t.name == "alice admits" for t in threading.enumerate()):
        pass
    listener.close()
    second = listen(read, sock)
    go.set()
    connection = second.accept(10)
    assert connection is not None and connection.peer == "bob"
    connection.notify(Kind.ABORT, "enough")
    bob.join(10)
    assert len(problems) == 1 and "enough" in problems[0]
    second.close()
